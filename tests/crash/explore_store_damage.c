/*
 * Damage at rest to a store, and what must come of it.
 *
 * Everything is there twice, or something proves that it was there: then damage must be survived, or
 * refused. Only what one checkpoint alone needs may be lost, since the other one and the log are left. The
 * disk is recovered first, so that no leftovers of the crash are hit.
 */
#include <string.h>

#include "base/error.h"
#include "ioengine/checkpoint.h"
#include "ioengine/manifest.h"
#include "ioengine/record.h"
#include "tests/crash/explore_steps.h"
#include "tests/crash/explore_store.h"

#define BLOCK VEX_BLOCK_BYTES

struct victim {
    struct vex_io *image;
    struct vex_random *random;
    struct vex_manifest manifest;
    uint64_t segments[2][TOY_PARTS - 1]; /* that the checkpoints name, newest first */
    bool is_checkpoint_last;             /* nothing is behind the newest one */
    char *what;
};

static uint64_t below(struct victim *victim, uint64_t bound)
{
    return vex_random_below(victim->random, bound);
}

/* ---- ways to damage a file ------------------------------------------------------------------- */

/* A bit, a block or everything: within the first `bytes` bytes, or the whole file if 0. */
static bool hurt(struct victim *victim, const char *path, size_t from, size_t bytes)
{
    size_t there = 0;
    uint8_t *data = vex_io_sim_bytes(victim->image, path, &there);
    if (!data) {
        return false;
    }
    bytes = bytes ? bytes : there - from;
    size_t at = from + (size_t)below(victim, bytes);
    size_t block = at / BLOCK * BLOCK;
    switch (below(victim, 6)) {
    case 0:
        (void)snprintf(victim->what, 160, "%s is missing", path);
        return vex_io_sim_drop(victim->image, path);
    case 1:
        for (size_t i = block; i < block + BLOCK && i < there; i++) {
            if (data[i] != 0) { /* else nothing changes */
                memset(data + block, 0, block + BLOCK < there ? BLOCK : there - block);
                (void)snprintf(victim->what, 160, "%s: the block at %zu is zero", path, block);
                return true;
            }
        }
        return false;
    default:
        data[at] ^= (uint8_t)(1u << below(victim, 8));
        (void)snprintf(victim->what, 160, "%s: a bit at %zu is flipped", path, at);
        return true;
    }
}

/* ---- what may be hit ------------------------------------------------------------------------- */

static bool read_manifest(struct victim *victim)
{
    size_t bytes = 0;
    const uint8_t *data = vex_io_sim_bytes(victim->image, VEX_MANIFEST_PATH, &bytes);
    struct vex_error error;
    return data && vex_manifest_decode(&victim->manifest, NULL, data, bytes, &error) == VEX_OK;
}

static void read_checkpoints(struct victim *victim)
{
    for (size_t i = 0; i < victim->manifest.checkpoints_count; i++) {
        char path[VEX_CHECKPOINT_PATH_BYTES];
        struct vex_checkpoint checkpoint;
        struct vex_error error = {.status = VEX_OK};
        uint64_t hash;
        size_t bytes = 0;
        uint64_t number = victim->manifest.checkpoints[i].number;
        vex_checkpoint_path(path, number);
        const uint8_t *data = vex_io_sim_bytes(victim->image, path, &bytes);
        if (!data ||
            vex_checkpoint_decode(&checkpoint, &hash, victim->manifest.uuid, number, data, bytes,
                                  &error) != VEX_OK ||
            checkpoint.segments_count != TOY_PARTS - 1) {
            explore_fail("I2", "%s cannot be read after recovery: %s", path, error.message);
        }
        memcpy(victim->segments[i], checkpoint.segments, sizeof(victim->segments[i]));
    }
}

/* Whether recovery has another way than the newest checkpoint. */
static enum explore_verdict without_newest(const struct victim *victim)
{
    bool from_the_beginning =
        victim->manifest.checkpoints_count == 1 && victim->manifest.log_lsn == 0;
    return victim->manifest.checkpoints_count == 2 || from_the_beginning ? EXPLORE_MUST_SURVIVE
                                                                         : EXPLORE_MUST_REFUSE;
}

static enum explore_verdict hurt_manifest(struct victim *victim)
{
    uint64_t slot = below(victim, 4);
    size_t bytes = 0;
    uint8_t *data = vex_io_sim_bytes(victim->image, VEX_MANIFEST_PATH, &bytes);
    if (slot == 3) {
        (void)snprintf(victim->what, 160, "MANIFEST is missing");
        (void)vex_io_sim_drop(victim->image, VEX_MANIFEST_PATH);
        return EXPLORE_MUST_REFUSE;
    }
    for (uint64_t i = 0; i < 2; i++) {
        if (slot == 2 || slot == i) {
            data[i * BLOCK + below(victim, BLOCK)] ^= (uint8_t)(1u << below(victim, 8));
        }
    }
    (void)snprintf(victim->what, 160, "MANIFEST: a bit is flipped in %s",
                   slot == 2 ? "both slots" : "one slot");
    return slot == 2 ? EXPLORE_MUST_REFUSE : EXPLORE_MUST_SURVIVE;
}

static enum explore_verdict hurt_checkpoint(struct victim *victim)
{
    size_t count = victim->manifest.checkpoints_count;
    uint64_t which = below(victim, 3); /* the newest, the other one, both */
    if (count == 0 || (count == 1 && which > 0)) {
        return EXPLORE_NOTHING_DAMAGED;
    }
    for (size_t i = 0; i < count; i++) {
        char path[VEX_CHECKPOINT_PATH_BYTES];
        vex_checkpoint_path(path, victim->manifest.checkpoints[i].number);
        if ((which == 2 || which == i) && !hurt(victim, path, 0, 0)) {
            return EXPLORE_NOTHING_DAMAGED;
        }
    }
    return which == 0   ? without_newest(victim)
           : which == 1 ? EXPLORE_MUST_SURVIVE
                        : EXPLORE_MUST_REFUSE;
}

static bool is_named(const struct victim *victim, uint32_t checkpoint, uint64_t number)
{
    bool named = false;
    for (unsigned i = 0; i < TOY_PARTS - 1; i++) {
        named = named || victim->segments[checkpoint][i] == number;
    }
    return named && checkpoint < victim->manifest.checkpoints_count;
}

static enum explore_verdict hurt_segment(struct victim *victim)
{
    size_t count = victim->manifest.checkpoints_count;
    if (count == 0) {
        return EXPLORE_NOTHING_DAMAGED;
    }
    uint64_t number = victim->segments[below(victim, count)][below(victim, TOY_PARTS - 1)];
    char path[VEX_SEGMENT_PATH_BYTES];
    vex_segment_file_path(path, number);
    if (!hurt(victim, path, 0, 0)) {
        return EXPLORE_NOTHING_DAMAGED;
    }
    if (!is_named(victim, 0, number)) {
        return EXPLORE_MUST_SURVIVE; /* only the older one needs it */
    }
    return is_named(victim, 1, number) ? EXPLORE_MUST_REFUSE : without_newest(victim);
}

/* Number of the log file that the node is; 0 if it is not, or not any more, one that is needed. */
static uint64_t log_number(const struct victim *victim, uint32_t node, char out_path[64])
{
    unsigned long long number = 0;
    bool is_log = vex_io_sim_path(victim->image, node, out_path, 64) &&
                  sscanf(out_path, VEX_LOG_DIRECTORY "/%8llu.log", &number) == 1;
    return is_log && number >= victim->manifest.log_file ? number : 0;
}

static enum explore_verdict hurt_log(struct victim *victim, struct vex_io *recorded,
                                     size_t position)
{
    struct explore_write write;
    struct explore_write last = {0};
    char path[64];
    if (!explore_followed_write(recorded, position, victim->random, &write, &last)) {
        return EXPLORE_NOTHING_DAMAGED;
    }
    /* The last batch of all can be told from a torn one if a checkpoint has all of it. */
    if (victim->is_checkpoint_last && below(victim, 3) == 0) {
        return log_number(victim, last.node, path) && hurt(victim, path, last.offset, last.bytes)
                   ? EXPLORE_EITHER
                   : EXPLORE_NOTHING_DAMAGED;
    }
    bool in_header = below(victim, 8) == 0;
    size_t offset = in_header ? 0 : (size_t)write.offset;
    size_t bytes = in_header ? sizeof(struct vex_log_header) : (size_t)write.bytes;
    uint64_t number = log_number(victim, write.node, path);
    if (number == 0 || !hurt(victim, path, offset, bytes)) {
        return EXPLORE_NOTHING_DAMAGED;
    }
    /* A file that only the older checkpoint needs is not read. */
    bool is_read = victim->manifest.checkpoints_count == 0 ||
                   number >= victim->manifest.checkpoints[0].log_file;
    return is_read ? EXPLORE_MUST_REFUSE : EXPLORE_MUST_SURVIVE;
}

static enum explore_verdict hurt_anything(struct victim *victim, struct vex_io *recorded,
                                          size_t position)
{
    switch (below(victim, 8)) {
    case 0:
        return hurt_manifest(victim);
    case 1:
    case 2:
        return hurt_checkpoint(victim);
    case 3:
    case 4:
        return hurt_segment(victim);
    default:
        return hurt_log(victim, recorded, position);
    }
}

static void ignore_report(void *context, enum vex_status status, const char *path, const char *text)
{
    (void)context;
    (void)status;
    (void)path;
    (void)text;
}

enum explore_verdict toy_damage(struct vex_io *image, const struct explore_model *model,
                                struct vex_io *recorded, size_t position, struct vex_random *random,
                                char out_what[160])
{
    struct victim victim = {.image = image, .random = random, .what = out_what};
    struct toy_opened opened;
    toy_open(image, model, false, &opened);
    vex_store_close(opened.store);
    if (!opened.store || !read_manifest(&victim)) {
        explore_fail("I1", "recovery refuses: %s", opened.error.message);
    }
    if (model->bounds.checkpoints_made >= 2 && victim.manifest.checkpoints_count < 2) {
        explore_fail("I1", "two checkpoints were made, MANIFEST names one");
    }
    read_checkpoints(&victim);
    victim.is_checkpoint_last = opened.found.checkpoint_lsn == opened.map.lsn;
    enum explore_verdict verdict = hurt_anything(&victim, recorded, position);
    bool is_seen = verdict == EXPLORE_MUST_REFUSE || verdict == EXPLORE_MUST_SURVIVE;
    if (is_seen && vex_store_check(image, ignore_report, NULL, NULL) == VEX_OK) {
        explore_fail("I6", "the offline check finds nothing: %s", out_what);
    }
    return verdict;
}
