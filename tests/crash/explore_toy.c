#include <string.h>

#include "base/error.h"
#include "tests/crash/explore_store.h"

#define BLOCK VEX_BLOCK_BYTES
#define IMAGE_BYTES (4u * BLOCK)
#define BODY_MAGIC 0x796f74u

struct body {
    uint64_t magic;
    uint64_t lsn;
    uint64_t segments[TOY_PARTS];
    uint64_t values[TOY_KEYS]; /* of part 0 */
};

/* Values, a gap, a pattern. */
static const struct vex_extent extents[] = {{0, BLOCK}, {2 * BLOCK, BLOCK}};

static _Alignas(BLOCK) uint8_t images[TOY_PARTS][IMAGE_BYTES];

/* ---- the map --------------------------------------------------------------------------------- */

void toy_apply(struct toy_map *map, uint32_t life, uint64_t lsn)
{
    static const uint8_t parts[8] = {0, 0, 0, 0, 1, 1, 2, 3};
    uint64_t word = explore_word(life, lsn, 0);
    /* Part 3 changes seldom, so that its segment file serves several checkpoints. */
    unsigned part = parts[word % 8];
    part = part == 3 && (word >> 3) % 4 ? 0 : part;
    bool removed = (word >> 16) % 6 == 0;
    map->values[part][(word >> 8) % TOY_KEYS] = removed ? 0 : word | 1;
    map->lsn = lsn;
}

struct toy_map toy_at(const struct explore_model *model, uint64_t lsn)
{
    struct toy_map map = {0};
    for (uint64_t i = 1; i <= lsn; i++) {
        toy_apply(&map, model->lives[i], i);
    }
    return map;
}

/* ---- saving ---------------------------------------------------------------------------------- */

bool toy_worked(enum vex_status status, const struct vex_error *error,
                const struct explore_model *model, const char *what)
{
    if (status != VEX_OK && model->error_odds == 0) {
        explore_fail("I5", "%s fails on a disk that is fine: %s", what, error->message);
    }
    return status == VEX_OK;
}

static uint64_t pattern(uint64_t number, unsigned part, size_t at)
{
    return vex_mix64(number * 16 + part) + at;
}

static void fill_image(uint8_t *image, const struct toy_map *map, unsigned part, uint64_t number)
{
    memset(image, 0, IMAGE_BYTES);
    memcpy(image, map->values[part], sizeof(map->values[part]));
    for (size_t at = 0; at < BLOCK; at += 8) {
        uint64_t word = pattern(number, part, at);
        memcpy(image + 2 * BLOCK + at, &word, sizeof(word));
    }
}

/* The file's number, or 0. */
static uint64_t save_part(struct vex_store *store, const struct explore_model *model,
                          const struct toy_map *map, unsigned part)
{
    struct vex_error error = {.status = VEX_OK};
    struct vex_segment_file file = {
        .number = vex_store_new_segment_number(store),
        .tag = part,
        .image_bytes = IMAGE_BYTES,
        .extents_count = 2,
        .extents = {extents[0], extents[1]},
    };
    fill_image(images[0], map, part, file.number);
    return toy_worked(vex_store_write_segment(store, &file, images[0], NULL, &error), &error, model,
                      "writing a segment file")
               ? file.number
               : 0;
}

bool toy_save(struct vex_store *store, const struct explore_model *model,
              const struct vex_store_cut *cut, const struct toy_map *map, bool trim_before,
              struct toy_saved *saved)
{
    struct vex_error error = {.status = VEX_OK};
    struct toy_saved next = {.map = *map};
    struct body body = {.magic = BODY_MAGIC, .lsn = cut->lsn};
    for (unsigned part = 1; part < TOY_PARTS; part++) {
        bool same = saved->segments[part] && memcmp(saved->map.values[part], map->values[part],
                                                    sizeof(map->values[part])) == 0;
        next.segments[part] = same ? saved->segments[part] : save_part(store, model, map, part);
        if (next.segments[part] == 0) {
            return false;
        }
    }
    memcpy(body.segments, next.segments, sizeof(body.segments));
    memcpy(body.values, map->values[0], sizeof(body.values));
    if (trim_before) {
        (void)toy_worked(vex_store_trim(store, true, next.segments + 1, TOY_PARTS - 1, &error),
                         &error, model, "trimming");
    }
    if (!toy_worked(vex_store_checkpoint(store, cut, next.segments + 1, TOY_PARTS - 1, &body,
                                         sizeof(body), &error),
                    &error, model, "a checkpoint")) {
        return false;
    }
    *saved = next;
    return true;
}

/* ---- loading --------------------------------------------------------------------------------- */

/* Bytes whose checksums hold are ours, or the wrong file was taken. */
static void take_image(struct toy_map *map, const uint8_t *image, unsigned part, uint64_t number)
{
    memcpy(map->values[part], image, sizeof(map->values[part]));
    static _Alignas(BLOCK) uint8_t expected[IMAGE_BYTES];
    fill_image(expected, map, part, number);
    if (memcmp(expected, image, IMAGE_BYTES) != 0) {
        explore_fail("I2", "segment file %llu is loaded with other bytes",
                     (unsigned long long)number);
    }
}

enum vex_status toy_load(struct toy_saved *out, struct vex_store *store, uint64_t lsn,
                         const uint8_t *body_bytes, size_t bytes, struct vex_error *error)
{
    struct body body;
    *out = (struct toy_saved){.map = {.lsn = lsn}};
    if (!body_bytes) {
        if (lsn != 0) {
            explore_fail("I2", "an empty state at LSN %llu", (unsigned long long)lsn);
        }
        return VEX_OK;
    }
    if (bytes != sizeof(body)) {
        explore_fail("I2", "a checkpoint's body of %zu bytes", bytes);
    }
    memcpy(&body, body_bytes, sizeof(body));
    if (body.magic != BODY_MAGIC || body.lsn != lsn) {
        explore_fail("I2", "the body of another checkpoint, at LSN %llu",
                     (unsigned long long)body.lsn);
    }
    struct vex_segment_load loads[TOY_PARTS - 1];
    memset(loads, 0, sizeof(loads));
    memset(images, 0, sizeof(images));
    for (unsigned part = 1; part < TOY_PARTS; part++) {
        loads[part - 1].number = body.segments[part];
        loads[part - 1].tag = part;
        loads[part - 1].memory = images[part];
        loads[part - 1].image_bytes = IMAGE_BYTES;
    }
    enum vex_status status = vex_segment_files_load(vex_store_io(store), vex_store_uuid(store),
                                                    loads, TOY_PARTS - 1, error);
    if (status != VEX_OK) {
        return status;
    }
    memcpy(out->map.values[0], body.values, sizeof(body.values));
    memcpy(out->segments, body.segments, sizeof(body.segments));
    for (unsigned part = 1; part < TOY_PARTS; part++) {
        take_image(&out->map, images[part], part, body.segments[part]);
    }
    return VEX_OK;
}
