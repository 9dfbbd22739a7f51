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
 * costs a journal commit per append on top of the flush. The next one is prepared by a helper
 * thread when the current one is half full. A batch never spans files. The switch happens only when
 * nothing is in flight, so a file that exists proves that the one before it is complete.
 *
 * Failures. EINTR, EAGAIN and short writes are retried, bounded. Any other failure of a durable
 * write latches the log: no further writes, what was staged is of unknown outcome, reads go on. It
 * is never retried: after a failed flush the kernel may report the next one as fine with the data
 * gone. Running out of disk shows when a file is prepared, before anything is staged: vex_log_room
 * refuses with NO_SPACE, nothing has happened, and it may succeed later.
 *
 * Thread-safety: one thread (the helper thread is internal).
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

struct vex_log_options {
    const uint8_t *uuid;
    /* Files start at the minimum and double up to the maximum; 0 = 4 MiB and 64 MiB. */
    uint64_t file_bytes_min;
    uint64_t file_bytes_max;
};

struct vex_log_piece {
    const void *data;
    size_t bytes;
};

/* What recovery found. */
struct vex_log_recovery {
    uint64_t last_lsn; /* 0 = empty log */
    uint64_t records;
    uint64_t torn_tails; /* incomplete batches dropped; none of them was acknowledged */
    bool clean;          /* the last daemon stopped in order */
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
 * Recovers the log in directory "log" of `io`, creating it if there is none, and opens it for
 * appending. Errors: CORRUPT (damage that a torn tail does not explain; the message names file,
 * offset and LSN), NO_SPACE, IO, NOMEM, or what `replay` returned.
 */
enum vex_status vex_log_open(struct vex_io *io, const struct vex_io_buffer buffers[VEX_LOG_BUFFERS],
                             const struct vex_log_options *options, vex_log_replay replay,
                             void *context, struct vex_log **out_log,
                             struct vex_log_recovery *out_recovery, struct vex_error *error);
/* Waits for a batch in flight; what is staged but not committed is dropped. NULL is allowed. */
void vex_log_close(struct vex_log *log);

/* OK: a record of `body_bytes` can be staged now. BUSY: not before the open batch has been
 * committed. NO_SPACE: the disk is full. READ_ONLY: latched. */
enum vex_status vex_log_room(struct vex_log *log, size_t body_bytes, struct vex_error *error);
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
    uint64_t record_bytes; /* since the directory was made, as far as the files go */
    uint64_t file_bytes;   /* of all log files, prepared space included */
};
void vex_log_get_counters(const struct vex_log *log, struct vex_log_counters *out);

#endif
