/*
 * MANIFEST: what an instance is, in two 4 KiB slots that are written alternately, so that a torn
 * write leaves the other one. The newest sound slot counts. Today it names the instance;
 * checkpoints will be listed in it. FORMAT.md has the table.
 */
#ifndef VEX_IOENGINE_MANIFEST_H
#define VEX_IOENGINE_MANIFEST_H

#include <stdint.h>

#include <vex/status.h>

#include "ioengine/io.h"

#define VEX_MANIFEST_PATH "MANIFEST"
#define VEX_MANIFEST_UUID_BYTES 16u

struct vex_manifest {
    uint64_t sequence; /* of the slot; grows by one with each write */
    uint8_t uuid[VEX_MANIFEST_UUID_BYTES];
    uint64_t created_ms; /* wall clock */
};

/*
 * Reads DIR/MANIFEST, or makes a new one with a random UUID when the directory holds no instance
 * yet. Errors: CORRUPT (no sound slot, or log files without a manifest), VERSION, NO_SPACE, IO.
 */
enum vex_status vex_manifest_open(struct vex_io *io, struct vex_manifest *out,
                                  struct vex_error *error);

/* Newest sound slot among `bytes` bytes; CORRUPT or VERSION if there is none. Pure. */
enum vex_status vex_manifest_decode(struct vex_manifest *out, const uint8_t *data, size_t bytes,
                                    struct vex_error *error);

#endif
