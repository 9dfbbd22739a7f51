/*
 * The store: everything an instance has on disk, and the one order of writing that makes it safe.
 *
 *   MANIFEST                     two slots: who the instance is, and its (up to two) checkpoints
 *   checkpoints/<number>.ckpt    the state at an LSN: names the segment files, and the caller's body
 *   segments/<number>.seg        immutable images
 *   log/<number>.log             every record after the older checkpoint
 *   RESERVE                      real blocks, given up so that a checkpoint can finish on a full disk
 *
 * A checkpoint: new segment files (each durable under its name), the checkpoint file (the same), then the
 * manifest, slot after slot (durable: the first one decides); only then may what neither kept checkpoint
 * needs be removed: older checkpoint files, segment files that no kept checkpoint names, log files wholly at
 * or below the *older* kept checkpoint's LSN. So whichever of the two can be read, the log behind it is
 * there.
 *
 * Recovery: newest manifest slot; newest checkpoint whose file is sound and which the caller can restore,
 * else the older one, else nothing at all if the log still has every record there was, else it refuses;
 * then the records of the log above the checkpoint's LSN. What a crash left (temporary files, files that no
 * kept checkpoint names) is removed, unless a checkpoint could not be read: then everything is kept until
 * the next one has been made. Recovery is idempotent: a crash in it is repeated by the next one.
 *
 * Thread-safety: appending (the log), the cut and opening belong to one thread. Checkpoints, trimming,
 * segment files and backups belong to one other thread, which may be the same. New numbers and counters are
 * for both.
 */
#ifndef VEX_IOENGINE_STORE_H
#define VEX_IOENGINE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vex/status.h>

#include "ioengine/io.h"
#include "ioengine/log.h"
#include "ioengine/segment_file.h"

#define VEX_STORE_RESERVE_PATH "RESERVE"
#define VEX_STORE_UUID_BYTES 16u

struct vex_store;

struct vex_store_options {
    uint64_t log_file_bytes_min; /* 0 = default, as in log.h */
    uint64_t log_file_bytes_max;
    uint64_t reserve_bytes; /* 0 = no reserve file */
};

/* What recovery asks of the caller. */
struct vex_store_state {
    void *context;
    /*
     * Puts the caller's state to the checkpoint with this body at `lsn` (body NULL, lsn 0: empty). Called
     * once, and again with the next older state if it returned CORRUPT or IO: what it built before is to be
     * thrown away first. `body` is 8-aligned and gone afterwards. Loads segment files through
     * vex_segment_files_load; the store has no log yet.
     */
    enum vex_status (*restore)(void *context, struct vex_store *store, uint64_t lsn,
                               const uint8_t *body, size_t bytes, struct vex_error *error);
    vex_log_replay replay; /* with `context` */
};

struct vex_store_recovery {
    struct vex_log_recovery log;
    uint64_t checkpoint_lsn; /* of the one restored, 0 = none */
    bool fell_back;          /* the newest checkpoint could not be used; `fault` says why */
    struct vex_error fault;
    uint64_t removed_files; /* left by a crash, in checkpoints/ and segments/ */
};

/*
 * Opens the instance in io's directory, making it if there is none (its first log file included), and
 * recovers it. Errors: CORRUPT (names file, offset, LSN), VERSION, NO_SPACE, IO, NOMEM, or what the
 * callbacks returned.
 */
enum vex_status vex_store_open(struct vex_io *io,
                               const struct vex_io_buffer buffers[VEX_LOG_BUFFERS],
                               const struct vex_store_options *options,
                               const struct vex_store_state *state, struct vex_store **out_store,
                               struct vex_store_recovery *out_recovery, struct vex_error *error);
/* Closes the log (see vex_log_close) and frees. NULL is allowed. */
void vex_store_close(struct vex_store *store);

const uint8_t *vex_store_uuid(const struct vex_store *store);
/* For restore callbacks and for writing segments. */
struct vex_io *vex_store_io(const struct vex_store *store);
/* The log: append, commit and poll through it. */
struct vex_log *vex_store_log(const struct vex_store *store);

/* A file number above those of all segment files that exist or are named. Any thread. */
uint64_t vex_store_new_segment_number(struct vex_store *store);

/* Where a checkpoint stands in the log. Taken on the log's thread when the last record staged is `lsn`
 * and its batch is sealed or durable; to be used once that batch is durable. */
struct vex_store_cut {
    uint64_t lsn;
    uint64_t log_file; /* the file at whose end or behind which record lsn + 1 will be */
};
struct vex_store_cut vex_store_take_cut(const struct vex_store *store);

/*
 * Makes the checkpoint at `cut` the newest, durably: its file, then the manifest. The segment files it names
 * have been written before. Two checkpoints are kept. Errors: INVALID (the cut is older than the newest
 * checkpoint, or a segment file it names is not there), NO_SPACE (the instance goes on with the ones it had;
 * the reserve file was given up first), IO, NOMEM (as well). A failed manifest write latches the store,
 * because either content may be found by the next start: then nothing is written or removed any more, and
 * this and what follows returns READ_ONLY until a restart. The log is not concerned.
 */
enum vex_status vex_store_checkpoint(struct vex_store *store, const struct vex_store_cut *cut,
                                     const uint64_t *segments, size_t segments_count,
                                     const void *body, size_t body_bytes, struct vex_error *error);
/*
 * Removes what no kept checkpoint needs. `recycle`: log files may be kept for reuse (their old bytes stay on
 * disk); without it they are removed. Segment files in `keep` (numbers, may be NULL) stay: a backup is
 * linking them or a checkpoint on its way will name them. Does nothing while a checkpoint that could not be
 * read at the start has not been replaced. Errors: IO, NOMEM (another call takes up what is left),
 * READ_ONLY.
 */
enum vex_status vex_store_trim(struct vex_store *store, bool recycle, const uint64_t *keep,
                               size_t keep_count, struct vex_error *error);
/* Writes one segment file (vex_segment_file_write), giving the reserve up on NO_SPACE and trying once
 * more. Errors: as that, and READ_ONLY. */
enum vex_status vex_store_write_segment(struct vex_store *store,
                                        const struct vex_segment_file *file, const void *image,
                                        const struct vex_pace *pace, struct vex_error *error);
/* Restores the reserve file if there is room again; nothing happens if it is there or not wanted. */
void vex_store_refill_reserve(struct vex_store *store);

/*
 * A backup: a directory `path` (relative to the instance, or absolute) that is itself an instance without
 * log: the newest checkpoint, its segment files (hard links where the file system allows, else copies), and
 * a manifest that names them. Made as "<path>.part", synced, renamed: a directory that has its name is
 * whole. Every record up to the newest checkpoint's LSN is in it. What an earlier attempt left in
 * "<path>.part" is replaced; a failed attempt leaves empty directories there at most. `pace` may be NULL.
 * Errors: EXISTS, NO_SPACE, IO, PERMISSION, NOMEM, UNAVAILABLE (`pace` gave up), INVALID (no checkpoint
 * yet, or an impossible path).
 */
enum vex_status vex_store_backup(struct vex_store *store, const char *path,
                                 const struct vex_pace *pace, uint64_t *out_lsn,
                                 uint64_t *out_bytes, struct vex_error *error);

struct vex_store_counters {
    uint64_t checkpoint_lsn; /* of the newest */
    uint64_t checkpoints;    /* written since the start */
    uint64_t segment_bytes;  /* of all segment files on disk */
    uint64_t segments;
    uint64_t written_bytes; /* to segment and checkpoint files and the manifest, since then */
    uint64_t reserve_bytes; /* 0 = given up */
    bool failed;            /* latched */
};
void vex_store_get_counters(const struct vex_store *store, struct vex_store_counters *out);

/* ---- offline: nothing is changed, no daemon runs --------------------------------------------- */

/*
 * Whose the log is and where it begins for a start from the newest checkpoint that can be read: for
 * vex_log_scan and vex_log_repair. Errors: NOT_FOUND (no instance), CORRUPT (no checkpoint can be read, and
 * the log alone is not all), VERSION, IO, NOMEM.
 */
enum vex_status vex_store_read_log_start(struct vex_io *io, uint8_t out_uuid[VEX_STORE_UUID_BYTES],
                                         struct vex_log_start *out_start, struct vex_error *error);

/* One line for people about one file, without its path. `status` OK = sound, or what a crash may leave. */
typedef void (*vex_store_report)(void *context, enum vex_status status, const char *path,
                                 const char *text);
/*
 * Reads everything: manifest slots, checkpoint files, every segment file with all checksums, the whole log
 * with its chain, and files that do not belong. Returns OK if all is sound (a torn tail and files that a
 * crash left are), else the first fault found, every finding having been reported. A slot that was being
 * written when the machine stopped is a fault here; the next start mends it.
 */
enum vex_status vex_store_check(struct vex_io *io, vex_store_report report, void *context,
                                struct vex_error *error);

#endif
