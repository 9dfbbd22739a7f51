/*
 * The body of a checkpoint: what the registry knows, as bytes. Collections with their facts, for each its
 * segments with the numbers of their files, and for each segment which rows are dead as of the
 * checkpoint's LSN (a bitmap; the LSNs themselves matter only to readers that no longer exist).
 *
 * Encoding runs beside the main thread: rows below the given count and deaths up to the given LSN are
 * facts that nothing changes any more. Decoding trusts nothing: the file's checksum says that these are
 * the bytes that were written, not that they were right.
 *
 * Thread-safety: pure functions on memory.
 */
#ifndef VEX_DAEMON_IMAGE_H
#define VEX_DAEMON_IMAGE_H

#include <stdbool.h>
#include <stdint.h>

#include <vex/status.h>

#include "base/bytes.h"
#include "index/segment.h"
#include "shm/control.h"

struct vex_image_head {
    uint32_t version;
    uint32_t collections_count;
    uint32_t next_collection_id;
    uint32_t reserved;
};

struct vex_image_collection {
    uint32_t id;
    uint32_t dim;
    uint32_t metric;
    uint32_t homes_count;
    uint64_t next_id;
    uint64_t lsn;
    uint16_t index;   /* enum vex_index_kind */
    uint16_t storage; /* enum vex_storage */
    uint32_t m;
    uint32_t ef_construction;
    uint32_t lists;
    char name[VEX_NAME_MAX + 1];
};

struct vex_image_home {
    uint64_t file_number;
    uint32_t capacity_rows;
    uint32_t rows;
    uint64_t payload_capacity_bytes;
    uint64_t payload_bytes;
    uint32_t dead_rows; /* 0 = no bitmap follows, else u64[(rows + 63) / 64] */
    uint32_t graph_m;   /* of the segment's graph; 0 = it has none */
    uint32_t graph_ef_construction;
    uint32_t codes; /* 1 = the segment has codes; one with a graph has them anyway */
    uint32_t lists; /* of inverted lists; 0 = it has none */
    uint32_t reserved;
};

/* Append to a body; false if memory is short. The counts in the structs are what will follow. */
bool vex_image_begin(struct vex_buffer *body, uint32_t collections_count,
                     uint32_t next_collection_id);
bool vex_image_add_collection(struct vex_buffer *body,
                              const struct vex_image_collection *collection);
struct vex_collection_facts vex_image_facts(const struct vex_image_collection *collection);
/* Fills in home->dead_rows from the segment's deaths up to `lsn`. */
bool vex_image_add_home(struct vex_buffer *body, struct vex_image_home *home,
                        const struct vex_segment *segment, uint64_t lsn);

struct vex_image_cursor {
    const uint8_t *at;
    const uint8_t *end;
};

/* Each reads one item and moves on. Errors: CORRUPT, VERSION. Bounds are checked: names, dim, metric, counts,
 * rows within capacity, bitmaps within the body and equal to dead_rows. */
enum vex_status vex_image_read_head(struct vex_image_cursor *cursor, const uint8_t *body,
                                    size_t bytes, struct vex_image_head *out,
                                    struct vex_error *error);
enum vex_status vex_image_read_collection(struct vex_image_cursor *cursor,
                                          struct vex_image_collection *out,
                                          struct vex_error *error);
/* `*out_dead` points into the body: bit r % 64 of word r / 64 is row r; NULL if dead_rows is 0. */
enum vex_status vex_image_read_home(struct vex_image_cursor *cursor, struct vex_image_home *out,
                                    const uint8_t **out_dead, struct vex_error *error);
/* CORRUPT if anything is left. */
enum vex_status vex_image_read_end(const struct vex_image_cursor *cursor, struct vex_error *error);

#endif
