#include "daemon/image.h"

#include <string.h>

#include "base/error.h"
#include "shm/wire.h"

#define IMAGE_VERSION 2u
#define WORD_BITS 64u

_Static_assert(sizeof(struct vex_image_head) == 16, "on disk");
_Static_assert(sizeof(struct vex_image_collection) == 112, "on disk");
_Static_assert(sizeof(struct vex_image_home) == 56, "on disk");

static size_t bitmap_bytes(uint32_t rows)
{
    return ((size_t)rows + WORD_BITS - 1) / WORD_BITS * sizeof(uint64_t);
}

/* ---- encoding -------------------------------------------------------------------------------- */

bool vex_image_begin(struct vex_buffer *body, uint32_t collections_count,
                     uint32_t next_collection_id)
{
    const struct vex_image_head head = {IMAGE_VERSION, collections_count, next_collection_id, 0};
    return vex_buffer_append(body, &head, sizeof(head));
}

bool vex_image_add_collection(struct vex_buffer *body,
                              const struct vex_image_collection *collection)
{
    return vex_buffer_append(body, collection, sizeof(*collection));
}

bool vex_image_add_home(struct vex_buffer *body, struct vex_image_home *home,
                        const struct vex_segment *segment, uint64_t lsn)
{
    size_t start = body->bytes;
    size_t bytes = bitmap_bytes(home->rows);
    if (!vex_buffer_reserve(body, sizeof(*home) + bytes)) {
        return false;
    }
    home->dead_rows = 0;
    (void)vex_buffer_append(body, home, sizeof(*home));
    for (uint32_t first = 0; first < home->rows; first += WORD_BITS) {
        uint64_t word = 0;
        uint32_t count = home->rows - first < WORD_BITS ? home->rows - first : WORD_BITS;
        for (uint32_t i = 0; i < count; i++) {
            uint64_t dead = !vex_segment_alive(segment, first + i, lsn);
            word |= dead << i;
            home->dead_rows += (uint32_t)dead;
        }
        (void)vex_buffer_append(body, &word, sizeof(word));
    }
    if (home->dead_rows == 0) {
        body->bytes -= bytes;
    }
    memcpy(body->data + start, home, sizeof(*home));
    return true;
}

struct vex_collection_facts vex_image_facts(const struct vex_image_collection *collection)
{
    struct vex_collection_facts facts = {
        .id = collection->id,
        .dim = collection->dim,
        .metric = (enum vex_metric)collection->metric,
        .index = (enum vex_index_kind)collection->index,
        .m = collection->m,
        .ef_construction = collection->ef_construction,
        .storage = (enum vex_storage)collection->storage,
        .lists = collection->lists,
    };
    memcpy(facts.name, collection->name, sizeof(facts.name));
    return facts;
}

/* ---- decoding -------------------------------------------------------------------------------- */

static enum vex_status corrupt(struct vex_error *error, const char *what)
{
    return vex_error_set(error, VEX_ERR_CORRUPT, "checkpoint: %s", what);
}

static const uint8_t *take(struct vex_image_cursor *cursor, size_t bytes)
{
    if ((size_t)(cursor->end - cursor->at) < bytes) {
        return NULL;
    }
    const uint8_t *at = cursor->at;
    cursor->at += bytes;
    return at;
}

enum vex_status vex_image_read_head(struct vex_image_cursor *cursor, const uint8_t *body,
                                    size_t bytes, struct vex_image_head *out,
                                    struct vex_error *error)
{
    *cursor = (struct vex_image_cursor){body, body + bytes};
    const uint8_t *at = take(cursor, sizeof(*out));
    if (!at) {
        return corrupt(error, "cut short");
    }
    memcpy(out, at, sizeof(*out));
    if (out->version != IMAGE_VERSION) {
        return vex_error_set(error, VEX_ERR_VERSION, "checkpoint: version %u, this vexd reads %u",
                             out->version, IMAGE_VERSION);
    }
    if (out->collections_count > VEX_COLLECTIONS_MAX) {
        return corrupt(error, "too many collections");
    }
    return VEX_OK;
}

enum vex_status vex_image_read_collection(struct vex_image_cursor *cursor,
                                          struct vex_image_collection *out, struct vex_error *error)
{
    const uint8_t *at = take(cursor, sizeof(*out));
    if (!at) {
        return corrupt(error, "cut short in a collection");
    }
    memcpy(out, at, sizeof(*out));
    if (vex_name_fault(out->name, sizeof(out->name)) || out->id == 0 || out->id == UINT32_MAX ||
        out->homes_count > VEX_LIST_SEGMENTS_MAX) {
        return corrupt(error, "a collection's facts are out of bounds");
    }
    struct vex_collection_facts facts = vex_image_facts(out);
    if (vex_collection_facts_fault(&facts)) {
        return corrupt(error, "a collection's facts are out of bounds");
    }
    return VEX_OK;
}

static uint32_t count_bits(const uint8_t *bitmap, size_t bytes)
{
    uint32_t count = 0;
    for (size_t at = 0; at < bytes; at += sizeof(uint64_t)) {
        count += (uint32_t)__builtin_popcountll(vex_load_u64(bitmap + at));
    }
    return count;
}

/* The last word's bits behind the last row are zero. */
static bool ends_clean(const uint8_t *bitmap, uint32_t rows)
{
    uint32_t used = rows % WORD_BITS;
    uint64_t last = vex_load_u64(bitmap + bitmap_bytes(rows) - sizeof(uint64_t));
    return used == 0 || last >> used == 0;
}

enum vex_status vex_image_read_home(struct vex_image_cursor *cursor, struct vex_image_home *out,
                                    const uint8_t **out_dead, struct vex_error *error)
{
    const uint8_t *at = take(cursor, sizeof(*out));
    if (!at) {
        return corrupt(error, "cut short in a segment");
    }
    memcpy(out, at, sizeof(*out));
    if (out->rows < 1 || out->rows > out->capacity_rows ||
        out->capacity_rows > VEX_SEGMENT_ROWS_MAX ||
        out->payload_bytes > out->payload_capacity_bytes || out->dead_rows > out->rows) {
        return corrupt(error, "a segment's sizes are out of bounds");
    }
    *out_dead = NULL;
    if (out->dead_rows) {
        size_t bytes = bitmap_bytes(out->rows);
        *out_dead = take(cursor, bytes);
        if (!*out_dead || !ends_clean(*out_dead, out->rows) ||
            count_bits(*out_dead, bytes) != out->dead_rows) {
            return corrupt(error, "a segment's dead rows do not add up");
        }
    }
    return VEX_OK;
}

enum vex_status vex_image_read_end(const struct vex_image_cursor *cursor, struct vex_error *error)
{
    return cursor->at == cursor->end ? VEX_OK : corrupt(error, "bytes behind its end");
}
