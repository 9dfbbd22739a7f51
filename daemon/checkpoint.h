/*
 * Checkpoints: the staged state at one LSN, taken down by the main thread in no time, written by the worker,
 * and put back at the next start.
 *
 * Taking one down costs a list of segments: tails are sealed, so that every segment with rows is immutable
 * but for deaths, and which rows are dead at the LSN can still be read later. Only segments without a file
 * are written. The worker must not publish the checkpoint before the log is durable up to its LSN: it is
 * started when that is so.
 *
 * Restoring reads the segment files straight into new shared memory, in parallel, then attaches them: no
 * index or hash is rebuilt. Its cost is reading the files; the log adds its tail.
 *
 * Thread-safety: take and restore belong to the main thread, run to the worker (or to the main thread, at the
 * end). The homes stay alive as long as the job.
 */
#ifndef VEX_DAEMON_CHECKPOINT_H
#define VEX_DAEMON_CHECKPOINT_H

#include <stdint.h>

#include <vex/status.h>

#include "daemon/image.h"
#include "daemon/registry.h"
#include "ioengine/store.h"

struct vex_checkpoint_home {
    struct vex_home *home;
    uint64_t file_number; /* 0 until it is written; out */
    uint64_t held_bytes;  /* out: what is left of its memory after trimming; 0 = not trimmed */
};

struct vex_checkpoint_job {
    struct vex_store *store;
    struct vex_store_cut cut;
    uint32_t next_collection_id;
    uint32_t collections_count;
    struct vex_image_collection *collections; /* owned */
    struct vex_checkpoint_home *homes;        /* owned; of all collections, one after the other */
    size_t homes_count;
    bool leftovers; /* an earlier one failed: files that it wrote may be of no use any more */
    bool recycle;   /* keep log files for reuse; false = what they held is to be gone */
    /* Out. */
    enum vex_status status; /* UNAVAILABLE: told to give up */
    struct vex_error error;
    uint64_t written_bytes;
};

/* Seals the tails and fills *job with the staged state. Errors: NOMEM. */
enum vex_status vex_checkpoint_take(struct vex_checkpoint_job *job, struct vex_registry *registry,
                                    struct vex_store *store, struct vex_error *error);
/* A vex_work. */
void vex_checkpoint_run(void *job, const struct vex_pace *pace);
/* Tells the registry which segments have files now, and frees. */
void vex_checkpoint_finish(struct vex_checkpoint_job *job, struct vex_registry *registry);

struct vex_checkpoint_restore {
    const uint8_t *key;
    struct vex_publisher *publisher;
    struct vex_registry *registry;
    /* Serve the rest when segment files of a collection are damaged; else that is an error. */
    bool quarantine;
    uint32_t quarantined; /* out */
};

/* Puts the empty registry to a checkpoint. Errors: CORRUPT, VERSION, NO_SPACE, NOMEM, IO. */
enum vex_status vex_checkpoint_restore(struct vex_checkpoint_restore *restore,
                                       struct vex_store *store, uint64_t lsn, const uint8_t *body,
                                       size_t bytes, struct vex_error *error);

#endif
