/*
 * Segment files: immutable images on disk, segments/<number, 16 hex digits>.seg.
 *
 * The image is opaque here: a run of memory of which some ranges ("extents") carry data and the rest is
 * zero. Only the extents are stored, one after the other, so an image laid out for more rows than it
 * holds costs no disk. Each extent is stored in chunks of VEX_SEGMENT_CHUNK_BYTES (its last one may be
 * shorter), and no chunk crosses extents: loading reads every chunk straight to its place in the caller's
 * (shared) memory, many at a time, and verifies its checksum as it arrives, so that damage is found and
 * named by file and offset before anything is served.
 *
 * File: header block(s) (magic "VEXG", version, UUID, number, tag, image bytes, extents, one checksum per
 * chunk, a checksum of all that; a multiple of VEX_BLOCK_BYTES), then the data. Written under a temporary
 * name, synced, renamed, directory synced: a file that has its name is whole. FORMAT.md has the table.
 *
 * Thread-safety: no shared state; different files from different threads.
 */
#ifndef VEX_IOENGINE_SEGMENT_FILE_H
#define VEX_IOENGINE_SEGMENT_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vex/status.h>

#include "ioengine/io.h"

#define VEX_SEGMENT_DIRECTORY "segments"
#define VEX_SEGMENT_SUFFIX ".seg"
#define VEX_SEGMENT_PATH_BYTES 64u
#define VEX_SEGMENT_CHUNK_BYTES (1u << 20)
#define VEX_SEGMENT_EXTENTS_MAX 32u

/* A range of the image in memory. Both are multiples of VEX_BLOCK_BYTES, `bytes` is not 0; ascending, not
 * overlapping. */
struct vex_extent {
    uint64_t offset;
    uint64_t bytes;
};

/* What a file is, and what is in it. */
struct vex_segment_file {
    uint64_t number;
    uint32_t tag;         /* the caller's: which collection */
    uint64_t image_bytes; /* of memory; at least the end of the last extent */
    uint32_t extents_count;
    struct vex_extent extents[VEX_SEGMENT_EXTENTS_MAX];
};

/* Called between pieces of background work, with the bytes just moved: sleeps to keep out of the way of
 * commits, or returns false to give up (the daemon stops). NULL = full speed. */
struct vex_pace {
    bool (*pause)(void *context, uint64_t bytes);
    void *context;
};

/* Writes `image` (VEX_BLOCK_BYTES aligned; may be mapped shared memory; its extents do not change
 * meanwhile) as a new file, durably; the directory is there already. Nothing with that name stays behind on
 * failure. Errors: INVALID (extents that break the rules above), NO_SPACE, IO, NOMEM, UNAVAILABLE (`pace`
 * gave up). */
enum vex_status vex_segment_file_write(struct vex_io *io, const uint8_t *uuid,
                                       const struct vex_segment_file *file, const void *image,
                                       const struct vex_pace *pace, uint64_t *out_file_bytes,
                                       struct vex_error *error);

/* Reads and checks the header alone. Errors: CORRUPT, VERSION, NOT_FOUND, IO, NOMEM. */
enum vex_status vex_segment_file_read_header(struct vex_io *io, const uint8_t *uuid,
                                             uint64_t number, struct vex_segment_file *out,
                                             struct vex_error *error);

/* One image to load. */
struct vex_segment_load {
    uint64_t number;
    uint32_t tag;           /* must be the file's */
    void *memory;           /* zero-filled, VEX_BLOCK_BYTES aligned; only extents are written */
    uint64_t image_bytes;   /* must be the file's */
    enum vex_status status; /* out, with `error` */
    struct vex_error error;
};

/*
 * Loads many files at once, keeping many reads under way (vex_io_ops.read_many), checksums verified.
 * Each load has its own result: damage to one (CORRUPT, message names file and offset; a missing file is
 * damage, too) does not keep the others from loading. Returns OK if all are, else the status of the first
 * that is not.
 */
enum vex_status vex_segment_files_load(struct vex_io *io, const uint8_t *uuid,
                                       struct vex_segment_load *loads, size_t count,
                                       struct vex_error *error);

/* Reads a whole file through and verifies every checksum, without memory for the image. Errors as for
 * reading the header. */
enum vex_status vex_segment_file_verify(struct vex_io *io, const uint8_t *uuid, uint64_t number,
                                        struct vex_error *error);

void vex_segment_file_path(char out_path[VEX_SEGMENT_PATH_BYTES], uint64_t number);

/* The header as decoded. `checksums` (one per chunk, in order) points into the data it came from. */
struct vex_segment_file_header {
    struct vex_segment_file file;
    uint64_t header_bytes; /* where the data begin */
    uint64_t chunks_count;
    const uint64_t *checksums;
};

/* Pure. `data` (8-aligned) is the beginning of a file of `file_bytes` bytes. If it is too short to hold the
 * header, *out_need (may be NULL) says how much is needed, and nothing else is looked at; else it is 0.
 * Errors: CORRUPT, VERSION. */
enum vex_status vex_segment_file_header_decode(struct vex_segment_file_header *out,
                                               uint64_t *out_need, const uint8_t *uuid,
                                               uint64_t number, const uint8_t *data, size_t bytes,
                                               uint64_t file_bytes, struct vex_error *error);

#endif
