/* The store's inside, shared by store.c (life, numbers, counters), store_recover.c, store_write.c
 * (checkpoints, segments, trimming, the reserve), store_backup.c and store_check.c. */
#ifndef VEX_IOENGINE_STORE_PRIV_H
#define VEX_IOENGINE_STORE_PRIV_H

#include <pthread.h>

#include "base/bytes.h"
#include "ioengine/checkpoint.h"
#include "ioengine/manifest.h"
#include "ioengine/store.h"

/* A checkpoint that a restart could use, and the segment files it needs (ascending). */
struct store_kept {
    struct vex_manifest_checkpoint entry;
    uint64_t *segments;
    size_t segments_count;
};

/* A segment file on disk. */
struct store_segment {
    uint64_t number;
    uint64_t bytes;
};

struct vex_store {
    uint8_t uuid[VEX_STORE_UUID_BYTES]; /* the manifest's, for any thread: written once */
    struct vex_io *io;
    struct vex_log *log;
    uint64_t reserve_wanted_bytes;

    struct vex_manifest manifest;                         /* as on disk */
    struct store_kept kept[VEX_MANIFEST_CHECKPOINTS_MAX]; /* newest first */
    size_t kept_count;
    bool
        hold; /* a checkpoint on disk could not be read, so what it needs is not known: remove nothing */
    uint64_t next_checkpoint_number;
    struct vex_buffer segments; /* of struct store_segment, ascending */

    pthread_mutex_t mutex; /* guards the rest */
    uint64_t next_segment_number;
    struct vex_store_counters counters;
};

/* ---- store.c */

/* What a directory of numbered files holds. Zeroed is empty. */
struct store_listing {
    const char *suffix;
    struct vex_buffer numbers; /* of uint64_t, ascending */
    struct vex_buffer names;   /* of all other files, each with its terminating zero */
    bool out_of_memory;
};

/* Errors: IO, NOMEM, ... with the directory in the message. A directory that is not there is empty. */
enum vex_status store_list(struct vex_io *io, const char *directory, const char *suffix,
                           struct store_listing *out, struct vex_error *error);
void store_listing_deinit(struct store_listing *listing);
size_t store_listing_count(const struct store_listing *listing);
uint64_t store_listing_number(const struct store_listing *listing, size_t index);

/* Both arrays ascending. */
bool store_has_number(const uint64_t *numbers, size_t count, uint64_t number);
/* A sorted copy, or NULL without memory; never NULL for lack of numbers. */
uint64_t *store_copy_numbers(const uint64_t *numbers, size_t count);
void store_kept_deinit(struct store_kept *kept);

size_t store_segments_count(const struct vex_store *store);
struct store_segment *store_segment_at(const struct vex_store *store, size_t index);
struct store_segment *store_find_segment(const struct vex_store *store, uint64_t number);
/* False without memory. */
bool store_add_segment(struct vex_store *store, uint64_t number, uint64_t bytes);
/* After a change of the table or of `kept`. */
void store_count(struct vex_store *store);
bool store_has_failed(const struct vex_store *store);

/* ---- store_recover.c */
enum vex_status store_recover(struct vex_store *store, const struct vex_io_buffer *buffers,
                              const struct vex_store_options *options,
                              const struct vex_store_state *state,
                              struct vex_store_recovery *out_recovery, struct vex_error *error);
/* The checkpoint that the manifest means, and no other. Errors: as vex_checkpoint_read. */
enum vex_status store_read_checkpoint(struct vex_io *io, const struct vex_manifest *manifest,
                                      size_t index, struct vex_checkpoint_file *out,
                                      struct vex_error *error);

/* ---- store_write.c */
/* Removes checkpoint and segment files that no kept checkpoint needs, and the temporary ones. 0 or the first
 * negative errno; goes on after it. */
int store_remove_unneeded(struct vex_store *store, const uint64_t *keep, size_t keep_count,
                          uint64_t *out_removed);
/* Finds the reserve file, makes it, or removes it, as wanted. A full disk is no error. */
void store_open_reserve(struct vex_store *store);

#endif
