/*
 * Checkpoint files: checkpoints/<number, 16 hex digits>.ckpt. The state at an LSN: the numbers of the segment
 * files that belong to it, and a body that only the caller understands.
 *
 * File: header, numbers, body, zeros to a multiple of VEX_BLOCK_BYTES whose last 8 bytes are the checksum of
 * all that, chained over pieces so that writing is one pass through one small buffer. FORMAT.md has the
 * table. The manifest holds size and checksum as well, so that the file it names is the one that was meant.
 *
 * Thread-safety: no shared state.
 */
#ifndef VEX_IOENGINE_CHECKPOINT_H
#define VEX_IOENGINE_CHECKPOINT_H

#include <stddef.h>
#include <stdint.h>

#include <vex/status.h>

#include "ioengine/io.h"

#define VEX_CHECKPOINT_DIRECTORY "checkpoints"
#define VEX_CHECKPOINT_SUFFIX ".ckpt"
#define VEX_CHECKPOINT_PATH_BYTES 64u

struct vex_checkpoint {
    uint64_t number;
    uint64_t lsn;
    uint64_t log_file; /* where the log stood; a backup's manifest says otherwise, and counts */
    const uint64_t *segments;
    size_t segments_count;
    const uint8_t *body; /* 8-aligned when read */
    size_t body_bytes;
};

/* A checkpoint that was read, and the memory it points into. Zeroed is empty. */
struct vex_checkpoint_file {
    struct vex_checkpoint checkpoint;
    uint64_t bytes; /* of the file */
    uint64_t hash;
    void *memory;
};

void vex_checkpoint_path(char out_path[VEX_CHECKPOINT_PATH_BYTES], uint64_t number);

/* Writes the file, durably. Nothing of that name stays behind on failure. Errors: NO_SPACE, IO, NOMEM,
 * LIMIT. */
enum vex_status vex_checkpoint_write(struct vex_io *io, const uint8_t *uuid,
                                     const struct vex_checkpoint *checkpoint, uint64_t *out_bytes,
                                     uint64_t *out_hash, struct vex_error *error);

/* Reads and checks the file. Errors: CORRUPT (also if it is missing), VERSION, IO, NOMEM. */
enum vex_status vex_checkpoint_read(struct vex_io *io, const uint8_t *uuid, uint64_t number,
                                    struct vex_checkpoint_file *out, struct vex_error *error);
void vex_checkpoint_file_deinit(struct vex_checkpoint_file *file);

/* Pure. `out` points into `data` (8-aligned), which is the whole file. Errors: CORRUPT, VERSION. */
enum vex_status vex_checkpoint_decode(struct vex_checkpoint *out, uint64_t *out_hash,
                                      const uint8_t *uuid, uint64_t number, const uint8_t *data,
                                      size_t bytes, struct vex_error *error);

#endif
