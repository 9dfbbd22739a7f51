/*
 * Reading the log without changing it, for recovery and for tools; and cutting it where it is
 * damaged, for people who accept the loss.
 *
 * Both judge by the same walk as vex_log_open: what one calls damage, torn or sound, the others do
 * too. No daemon may have the log open.
 */
#ifndef VEX_IOENGINE_LOG_SCAN_H
#define VEX_IOENGINE_LOG_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vex/status.h>

#include "ioengine/io.h"
#include "ioengine/log.h"

struct vex_log_file {
    uint64_t number;
    uint64_t bytes;
    uint64_t first_lsn;
    uint64_t previous_hash;
    uint64_t nonce;
    uint64_t created_ms;
};

struct vex_log_batch {
    uint64_t file_number;
    uint64_t offset;
    uint64_t bytes;
    uint64_t first_lsn;
    uint64_t records_count;
    uint64_t durable_lsn;
    uint64_t checksum;
    unsigned flags; /* VEX_BATCH_... of record.h */
};

/* What the walk passes, in order: a file, its batches, each followed by its records. Any status but
 * OK ends the walk with it. Each function may be NULL. */
struct vex_log_visitor {
    void *context;
    enum vex_status (*file)(void *context, const struct vex_log_file *file,
                            struct vex_error *error);
    enum vex_status (*batch)(void *context, const struct vex_log_batch *batch,
                             struct vex_error *error);
    vex_log_replay record; /* also those up to start.lsn */
};

enum vex_log_end {
    VEX_LOG_END_WHOLE,  /* behind a whole batch */
    VEX_LOG_END_TORN,   /* before a batch that was being written, which was never acknowledged */
    VEX_LOG_END_DAMAGE, /* acknowledged records may be behind it */
};

struct vex_log_scan_result {
    enum vex_log_end end;
    uint64_t file_number; /* where the log ends, or is damaged; 0 = there is no log yet */
    uint64_t offset;
    uint64_t last_lsn; /* of the last record before that */
    uint64_t files;
    uint64_t batches;
    uint64_t records;
    bool clean;
};

/*
 * Walks the log from `start`. OK: whole or torn. CORRUPT: damaged; the message says where and how.
 * VERSION, IO, NOMEM, or what the visitor returned. *out_result is filled as far as the walk came, in
 * any case.
 */
enum vex_status vex_log_scan(struct vex_io *io, const uint8_t *uuid,
                             const struct vex_log_start *start,
                             const struct vex_log_visitor *visitor,
                             struct vex_log_scan_result *out_result, struct vex_error *error);

struct vex_log_repair_report {
    bool changed;            /* false: there was no damage */
    struct vex_error damage; /* what was found first: status and message */
    uint64_t last_lsn;       /* the log goes on behind it */
    uint64_t lost_lsns;      /* records behind it that were seen, or are known to have been there */
    bool more_possible;      /* and parts were found of which nobody can say what was in them */
    uint64_t files_removed;
};

/*
 * Makes a damaged log one that opens, at the price of everything from the first damage on (a damaged
 * end mark costs nothing). If that is before start.lsn, the log begins anew behind it, and start must
 * then be that of the newest checkpoint, the only one that can be opened afterwards. Interrupted, it is
 * to be run again. Errors: CORRUPT (not a log of this instance), VERSION, NO_SPACE, IO, NOMEM.
 */
enum vex_status vex_log_repair(struct vex_io *io, const uint8_t *uuid,
                               const struct vex_log_start *start,
                               struct vex_log_repair_report *out_report, struct vex_error *error);

#endif
