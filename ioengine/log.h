/*
 * The log: records in, an LSN each, durable in batches.
 *
 * Happy path: vex_log_room says whether one more record fits; vex_log_stage copies it into the open
 * batch and numbers it; vex_log_commit seals the open batch and submits it if none is in flight;
 * when the I/O backend's event_fd becomes readable, vex_log_poll finds it done and durable_lsn
 * moves. While one batch is in flight the next one collects: that is the group commit, without
 * timers.
 *
 * Files are zero-filled before use, because appending to a growing or merely preallocated file
 * costs a journal commit per append on top of the flush; while batches are large, the commit costs
 * less than writing every byte twice, and blocks are all a file gets. The next one is prepared by a helper
 * thread when the current one is half full; a file that is no longer needed may be used again
 * instead. A batch never spans files. The switch happens only when nothing is in flight, and the
 * file left behind is given an end mark first: so a batch proves all batches before it, and an end
 * mark that a newer file exists.
 *
 * Failures. EINTR, EAGAIN and short writes are retried, bounded. Any other failure of a durable
 * write latches the log: no further writes, what was staged is of unknown outcome, reads go on. It
 * is never retried: after a failed flush the kernel may report the next one as fine with the data
 * gone. Running out of disk shows when a file is prepared, before anything is staged: vex_log_room
 * refuses with NO_SPACE, nothing has happened, and it may succeed later. What is left in the files
 * at hand is kept for writes that give space back.
 *
 * Thread-safety: one thread, except for vex_log_trim (the helper thread is internal).
 */
#ifndef VEX_IOENGINE_LOG_H
#define VEX_IOENGINE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vex/status.h>

#include "ioengine/io.h"

#define VEX_LOG_DIRECTORY "log"
#define VEX_LOG_BUFFERS 2u
/* A batch must hold any single record the daemon accepts. */
#define VEX_LOG_BUFFER_BYTES (24u << 20)

struct vex_log;

/* What the checkpoint says about the log. */
struct vex_log_start {
    uint64_t file_number; /* first file to read; 0 = there is no log yet: make it, records begin at
                           * lsn + 1 */
    uint64_t lsn; /* records up to here are in the checkpoint: read and checked, not replayed */
    /* 0, or an earlier file: those from here on stay, unread, since an older checkpoint needs them. The
     * walk begins here if there is no file from file_number on, as after a repair. */
    uint64_t kept_file;
};

struct vex_log_options {
    const uint8_t *uuid;
    /* Files start at the minimum and double up to the maximum; 0 = 4 MiB and 64 MiB. */
    uint64_t file_bytes_min;
    uint64_t file_bytes_max;
    struct vex_log_start start;
};

struct vex_log_piece {
    const void *data;
    size_t bytes;
};

/* What recovery found. */
struct vex_log_recovery {
    uint64_t last_lsn; /* at least that of the start; 0 = nothing was ever written */
    uint64_t records;  /* replayed */
    /* Incomplete batches dropped, none of them acknowledged. One of which not even the beginning
     * reached the disk leaves nothing to be counted. */
    uint64_t torn_tails;
    bool clean; /* the last daemon stopped in order */
};

/* Called for each record in LSN order; any status but OK ends recovery with it. `body` is
 * 8-aligned. */
typedef enum vex_status (*vex_log_replay)(void *context, uint64_t lsn, uint16_t type,
                                          const uint8_t *body, size_t bytes,
                                          struct vex_error *error);

/* The two batch buffers, to be registered with vex_io_open and handed to vex_log_open. Errors:
 * NOMEM. */
enum vex_status vex_log_buffers_init(struct vex_io_buffer buffers[VEX_LOG_BUFFERS],
                                     struct vex_error *error);
void vex_log_buffers_deinit(struct vex_io_buffer buffers[VEX_LOG_BUFFERS]);

/*
 * Recovers the log in directory "log" of `io` from options.start, or makes it, and opens it for
 * appending. Files before the start (and kept_file) are what trimming left, and are removed. On failure nothing has
 * been changed. Errors: CORRUPT (damage that a torn tail does not explain; the message names file,
 * offset and LSN), VERSION, NO_SPACE, IO, NOMEM, or what `replay` returned.
 */
enum vex_status vex_log_open(struct vex_io *io, const struct vex_io_buffer buffers[VEX_LOG_BUFFERS],
                             const struct vex_log_options *options, vex_log_replay replay,
                             void *context, struct vex_log **out_log,
                             struct vex_log_recovery *out_recovery, struct vex_error *error);
/* Waits for a batch in flight; what is staged but not committed is dropped. NULL is allowed. */
void vex_log_close(struct vex_log *log);

/*
 * OK: a record of `body_bytes` can be staged now. BUSY: not before the open batch has been
 * committed. NO_SPACE: the disk is full. READ_ONLY: latched. LIMIT: larger than any batch. `small`
 * is for records that give space back (deletes, drops): they may use what is left in the files at
 * hand when no other can be made; others are refused before that.
 */
enum vex_status vex_log_room(struct vex_log *log, size_t body_bytes, bool small,
                             struct vex_error *error);
/* Copies a record, made of pieces whose lengths add up to a multiple of 8. Returns its LSN. The
 * caller has asked vex_log_room. */
uint64_t vex_log_stage(struct vex_log *log, uint16_t type, const struct vex_log_piece *pieces,
                       size_t pieces_count);
/* Seals and submits the open batch. True if it did: there was one and nothing was in flight. */
bool vex_log_commit(struct vex_log *log);
/* True if a batch became durable or the log latched. With `wait` it blocks while one is in
 * flight. */
bool vex_log_poll(struct vex_log *log, bool wait);
/* Writes an empty batch that proves the last acknowledgement, if none follows it yet. `clean` marks
 * the end of an orderly shutdown. True if it submitted one. */
bool vex_log_watermark(struct vex_log *log, bool clean);

/*
 * The next batch goes to a new file even if it would fit, and that file holds no old bytes; files are
 * not used again until the next vex_log_trim with `recycle`. With the checkpoint and the trimming
 * after it, nothing is left on disk of what the log held before. True if arranged; false if no file
 * could be made, or if the records staged need the prepared one: then try again after the commit.
 */
bool vex_log_rotate(struct vex_log *log);

/*
 * Removes the files below `first_file_number`, never the current one, or keeps one of them
 * (`recycle`) to be used again: that spares zero-filling, its old bytes stay on disk. A file that
 * cannot be removed is left to the next recovery, and is the reason of the result: 0 or a negative errno. Any
 * thread.
 */
int vex_log_trim(struct vex_log *log, uint64_t first_file_number, bool recycle);

/* The file that the last batch went to or, before the first one, goes to: records staged from now on
 * will be in it or behind it. */
uint64_t vex_log_file_number(const struct vex_log *log);
bool vex_log_in_flight(const struct vex_log *log);
bool vex_log_has_staged(const struct vex_log *log);
bool vex_log_needs_watermark(const struct vex_log *log);
uint64_t vex_log_next_lsn(const struct vex_log *log);
uint64_t vex_log_durable_lsn(const struct vex_log *log);
/* Last LSN in the batch that is in flight or was last submitted. */
uint64_t vex_log_submitted_lsn(const struct vex_log *log);
/* 0, or the errno that latched the log. */
int vex_log_failure(const struct vex_log *log);

struct vex_log_counters {
    uint64_t commits;
    uint64_t records;
    uint64_t record_bytes; /* in the files read at recovery, and since */
    uint64_t file_bytes;   /* of all log files, unused space in them included */
    uint64_t batch_bytes;  /* of all batches written since the start, padding included */
    uint64_t replay_bytes; /* of the batches at recovery that hold records behind the start */
    uint64_t zeroed_bytes; /* written since the start to prepare files, beside the batches */
};
void vex_log_get_counters(struct vex_log *log, struct vex_log_counters *out);

#endif
