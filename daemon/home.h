/*
 * A home: one segment, the shared memory it lies in, and its file once there is one.
 *
 * Life: blank (memory, no rows) -> filling (the tail of its collection) -> sealed (no more rows; its unused
 * memory is given back) -> stored (a segment file with the same bytes) -> replaced by a merge, or dropped
 * with its collection. Deaths change to the end; they are no part of the file.
 *
 * Thread-safety: creating and destroying touch nothing shared, so the worker does it too. The fields belong
 * to the main thread; the worker reads rows below the count it was given.
 */
#ifndef VEX_DAEMON_HOME_H
#define VEX_DAEMON_HOME_H

#include <stdbool.h>
#include <stdint.h>

#include <vex/status.h>

#include "index/segment.h"
#include "shm/region.h"

struct vex_merge_claim;

struct vex_home {
    struct vex_region region;
    struct vex_segment_writer writer;
    struct vex_segment_shape shape;
    uint64_t held_bytes;  /* shared memory that is really there */
    uint64_t file_number; /* of the segment file, 0 = not on disk */
    uint32_t dead_rows;   /* staged deaths included */
    bool sealed;
    bool
        is_level; /* its graph is on the way into a larger one, and was built with less effort; not stored */
    struct vex_merge_claim *claim; /* of the merge that is copying it, see registry.h */
};

/*
 * Memory for a segment of this shape, zero-filled; no segment in it yet: vex_segment_create or
 * vex_segment_restore on home->writer comes next. `allocate`: all of it can be stored to; else vex_home_allocate
 * has to be called. Errors: LIMIT, NO_SPACE, NOMEM, IO.
 */
enum vex_status vex_home_create(const uint8_t *key, const struct vex_segment_shape *shape,
                                bool allocate, struct vex_home **out_home, struct vex_error *error);
/* Allocates what `rows` rows with `payload_bytes` bytes of payloads need. Errors: NO_SPACE, IO. */
enum vex_status vex_home_allocate(struct vex_home *home, uint32_t rows, uint64_t payload_bytes,
                                  struct vex_error *error);
/* Removes the name, gives the memory back (`punch`: even from under those who still map it), frees. */
void vex_home_destroy(struct vex_home *home, bool punch);
/* Gives the memory behind the rows of a sealed segment back; returns how many bytes are left. Readers never
 * look there. Any thread, once the segment is sealed. */
uint64_t vex_home_trim(struct vex_home *home);

#endif
