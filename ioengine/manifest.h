/*
 * MANIFEST: what an instance is and what belongs to its state, in two 4 KiB slots. FORMAT.md has the table.
 *
 * Both slots say the same, except while a new content is being written: first into one slot (durably: from
 * then on the new content holds), then into the other. So a torn write leaves the old content, whose files
 * are all there still, because the writer removes nothing before the second slot is durable too; and damage
 * to either slot, later, costs nothing. Opening makes them equal again.
 *
 * Each slot has one checksum over all of its block, unused bytes included.
 */
#ifndef VEX_IOENGINE_MANIFEST_H
#define VEX_IOENGINE_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vex/status.h>

#include "ioengine/io.h"

#define VEX_MANIFEST_PATH "MANIFEST"
#define VEX_MANIFEST_UUID_BYTES 16u
#define VEX_MANIFEST_SLOTS 2u
#define VEX_MANIFEST_BYTES (VEX_MANIFEST_SLOTS * VEX_BLOCK_BYTES)
#define VEX_MANIFEST_CHECKPOINTS_MAX 2u

/* A checkpoint file and where it stands in the log. */
struct vex_manifest_checkpoint {
    uint64_t number; /* names the file */
    uint64_t lsn;
    uint64_t log_file; /* record lsn + 1 is in this file or a later one */
    uint64_t bytes;    /* of the checkpoint file */
    uint64_t hash;     /* its checksum */
};

struct vex_manifest {
    uint64_t sequence; /* of the newest slot; grows by one with each slot written */
    uint8_t uuid[VEX_MANIFEST_UUID_BYTES];
    uint64_t created_ms; /* wall clock */
    uint64_t log_file;   /* first file of the log that is needed; 0 = the log is yet to be made */
    uint64_t log_lsn;    /* the log has every record above this LSN; 0 = every record there was */
    size_t checkpoints_count;
    struct vex_manifest_checkpoint checkpoints[VEX_MANIFEST_CHECKPOINTS_MAX]; /* newest first */
};

/*
 * Reads MANIFEST, or makes a new one with a random UUID (no log, no checkpoint) when the directory holds no
 * instance yet, and makes its slots equal if they are not. Errors: CORRUPT (no sound slot, or files of an
 * instance without a manifest), VERSION, NO_SPACE, IO, NOMEM.
 */
enum vex_status vex_manifest_open(struct vex_io *io, struct vex_manifest *out,
                                  struct vex_error *error);
/* Reads MANIFEST and changes nothing. Errors: NOT_FOUND, CORRUPT, VERSION, IO, NOMEM. *out_equal as in
 * vex_manifest_decode. */
enum vex_status vex_manifest_read(struct vex_io *io, struct vex_manifest *out, bool *out_equal,
                                  struct vex_error *error);
/* Makes `manifest` the content of both slots, one after the other, and advances its sequence. After an
 * error (IO, NOMEM) the old or the new content holds: the caller must not write again, nor remove files that
 * either one names. */
enum vex_status vex_manifest_write(struct vex_io *io, struct vex_manifest *manifest,
                                   struct vex_error *error);
/* Makes a manifest file of the given path, durably. 0 or a negative errno. */
int vex_manifest_create(struct vex_io *io, const char *path, struct vex_manifest *manifest);

/* ---- pure ------------------------------------------------------------------------------------ */

/* Newest sound slot among `bytes` bytes; CORRUPT or VERSION if there is none. *out_equal (may be NULL): both
 * slots are sound and say the same. */
enum vex_status vex_manifest_decode(struct vex_manifest *out, bool *out_equal, const uint8_t *data,
                                    size_t bytes, struct vex_error *error);
/* Why the slot in this block is of no use, or NULL. */
const char *vex_manifest_slot_fault(const uint8_t *block, size_t slot);

#endif
