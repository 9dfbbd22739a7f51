/*
 * Cutting a damaged log, for people who accept the loss.
 *
 * The walk (log_scan.c) says where the first damage is; it is mended, and the walk is made again until
 * it finds none. What is sound before the damage stays. Later files go first and the rest of the
 * damaged one is made zero last, so whatever an interruption leaves is still a damaged log, to be
 * repaired again. A damaged end mark is written anew: nothing is lost with it.
 *
 * A log that ends before the checkpoint cannot go on there: its next records would have numbers that
 * the checkpoint is said to hold. It begins anew behind the checkpoint, as one empty file with the
 * number that the checkpoint names.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "ioengine/log_priv.h"

/* Small: the disk may be full, and the log makes a larger one as soon as it can. */
#define RESTART_FILE_BYTES (64u << 10)
/* Each step mends one file for good; this many would be a fault of this program. */
#define STEPS_MAX 100000u

struct repair {
    struct vex_io *io;
    const uint8_t *uuid;
    struct log_scan *scan; /* the last walk */
    struct vex_log_repair_report *report;
    uint64_t highest_lsn; /* seen in what goes */
    uint8_t *page;
    struct vex_error *error;
};

static enum vex_status failed(struct repair *repair, int result, const char *what, uint64_t number)
{
    char path[LOG_PATH_MAX];
    log_file_path(path, number);
    return vex_error_os(repair->error, vex_status_from_errno(-result), -result, "%s %s", what,
                        path);
}

/* ---- what is lost ---------------------------------------------------------------------------- */

static enum vex_status note_loss_in_file(struct repair *repair, uint64_t number, uint64_t offset)
{
    struct log_scan *scan = repair->scan;
    struct vex_error ignored;
    scan->error = &ignored;
    enum vex_status status = log_scan_read_file(scan, number);
    if (status == VEX_ERR_NOMEM) {
        return vex_error_set(repair->error, status, "log: no memory to read file %llu",
                             (unsigned long long)number);
    }
    struct vex_log_header header = {0};
    if (status == VEX_OK && scan->data_bytes >= VEX_BLOCK_BYTES) {
        memcpy(&header, scan->data, sizeof(header));
    }
    if (vex_log_header_fault(&header, repair->uuid, number)) {
        repair->report->more_possible = true;
        return VEX_OK;
    }
    uint64_t highest = log_scan_highest_lsn(scan, number, header.nonce, offset);
    repair->highest_lsn = highest > repair->highest_lsn ? highest : repair->highest_lsn;
    return VEX_OK;
}

static uint64_t number_at(const struct repair *repair, size_t index)
{
    return vex_load_u64(repair->scan->numbers.data + index * sizeof(uint64_t));
}

static size_t numbers_count(const struct repair *repair)
{
    return repair->scan->numbers.bytes / sizeof(uint64_t);
}

/* Counts what is behind `position` and removes the files that are wholly behind it. */
static enum vex_status remove_files_behind(struct repair *repair, uint64_t number, uint64_t offset)
{
    struct vex_io *io = repair->io;
    enum vex_status status = VEX_OK;
    for (size_t i = 0; status == VEX_OK && i < numbers_count(repair); i++) {
        uint64_t other = number_at(repair, i);
        if (other >= number) {
            status = note_loss_in_file(repair, other, other == number ? offset : VEX_BLOCK_BYTES);
        }
    }
    if (status != VEX_OK) {
        return status;
    }
    for (size_t i = 0; i < numbers_count(repair); i++) {
        uint64_t other = number_at(repair, i);
        if (other <= number) {
            continue;
        }
        char path[LOG_PATH_MAX];
        log_file_path(path, other);
        int result = io->ops->unlink(io, path);
        if (result < 0) {
            return failed(repair, result, "remove", other);
        }
        repair->report->files_removed++;
    }
    int result = io->ops->sync_directory(io, VEX_LOG_DIRECTORY);
    return result < 0 ? failed(repair, result, "sync the directory of", number) : VEX_OK;
}

/* ---- mending --------------------------------------------------------------------------------- */

static enum vex_status make_empty_log(struct repair *repair)
{
    struct vex_io *io = repair->io;
    const struct vex_log_start *start = &repair->scan->start;
    const struct log_request request = {RESTART_FILE_BYTES,
                                        VEX_LOG_FILE_BLOCKS_MIN * VEX_BLOCK_BYTES, false};
    struct log_prepared prepared;
    int result = log_make_prepared(io, &request, &prepared);
    if (result < 0) {
        return failed(repair, result, "make anew", start->file_number);
    }
    const struct log_position position = {.next_lsn = start->lsn + 1};
    uint64_t nonce;
    char path[LOG_PATH_MAX];
    log_file_path(path, start->file_number);
    log_make_header(repair->page, repair->uuid, start->file_number, &position, prepared.bytes,
                    &nonce);
    result = log_write_block(io, &prepared.file, repair->page, 0);
    io->ops->close_file(io, &prepared.reserve);
    io->ops->close_file(io, &prepared.file);
    result = result < 0 ? result : io->ops->rename(io, PREPARED_PATH, path);
    result = result < 0 ? result : io->ops->sync_directory(io, VEX_LOG_DIRECTORY);
    return result < 0 ? failed(repair, result, "make anew", start->file_number) : VEX_OK;
}

static enum vex_status restart(struct repair *repair)
{
    enum vex_status status =
        remove_files_behind(repair, repair->scan->start.file_number, VEX_BLOCK_BYTES);
    return status == VEX_OK ? make_empty_log(repair) : status;
}

/* Writes in one file: an end mark at `offset`, or zeros up to `end`. */
static enum vex_status overwrite(struct repair *repair, uint64_t number, uint64_t offset,
                                 uint64_t end, const uint8_t *page)
{
    struct vex_io *io = repair->io;
    char path[LOG_PATH_MAX];
    log_file_path(path, number);
    struct vex_file file;
    int result = io->ops->open_file(io, path, VEX_FILE_WRITE, &file);
    if (result < 0) {
        return failed(repair, result, "open", number);
    }
    result =
        page ? log_write_block(io, &file, page, offset) : log_write_zeros(io, &file, offset, end);
    io->ops->close_file(io, &file);
    return result < 0 ? failed(repair, result, "write to", number) : VEX_OK;
}

static enum vex_status cut(struct repair *repair, const struct log_position *position)
{
    if (position->file_number == 0 || position->next_lsn <= repair->scan->start.lsn) {
        return restart(repair);
    }
    enum vex_status status = remove_files_behind(repair, position->file_number, position->offset);
    return status == VEX_OK ? overwrite(repair, position->file_number, position->offset,
                                        position->file_bytes, NULL)
                            : status;
}

static enum vex_status write_end_mark(struct repair *repair)
{
    const struct log_position *at = &repair->scan->damage_at;
    log_make_end_mark(repair->page, at);
    return overwrite(repair, at->file_number, at->offset, 0, repair->page);
}

/* Zeros where the end of a file is missing; what was there shows in the next walk, if at all. */
static enum vex_status lengthen(struct repair *repair)
{
    const struct log_scan *scan = repair->scan;
    struct vex_log_header header;
    memcpy(&header, scan->data, sizeof(header));
    repair->report->more_possible = true;
    return overwrite(repair, header.file_number,
                     scan->data_bytes - scan->data_bytes % VEX_BLOCK_BYTES, header.file_bytes,
                     NULL);
}

static enum vex_status mend(struct repair *repair)
{
    const struct log_scan *scan = repair->scan;
    struct log_position at = scan->damage_at;
    struct vex_log_repair_report *report = repair->report;
    switch (scan->damage) {
    case LOG_DAMAGE_LENGTH:
        return lengthen(repair);
    case LOG_DAMAGE_END_MARK:
        return write_end_mark(repair);
    case LOG_DAMAGE_BATCH:
        return cut(repair, &at);
    case LOG_DAMAGE_SUCCESSOR:
        report->more_possible = true;
        return cut(repair, &at);
    case LOG_DAMAGE_FILE:
        report->more_possible = true;
        at = scan->before;
        return cut(repair, &at);
    case LOG_DAMAGE_SHORT:
        report->more_possible = true;
        return restart(repair);
    case LOG_DAMAGE_NONE:
    case LOG_DAMAGE_FOREIGN:
        break;
    }
    if (repair->error) {
        *repair->error = report->damage;
    }
    return VEX_ERR_CORRUPT;
}

/* One walk and what it asks for. *out_done: there was no damage. */
static enum vex_status take_step(struct repair *repair, const struct vex_log_start *start,
                                 bool *out_done)
{
    struct vex_error found = {.status = VEX_OK};
    struct log_scan scan = {
        .io = repair->io, .uuid = repair->uuid, .start = *start, .error = &found};
    repair->scan = &scan;
    struct vex_log_repair_report *report = repair->report;
    enum vex_status status = log_scan_run(&scan);
    *out_done = scan.damage == LOG_DAMAGE_NONE;
    if (*out_done) {
        report->last_lsn = scan.at.next_lsn - 1;
        if (status != VEX_OK && repair->error) {
            *repair->error = found;
        }
    } else {
        report->damage = report->changed ? report->damage : found;
        status = mend(repair);
        report->changed = true;
    }
    log_scan_deinit(&scan);
    return status;
}

enum vex_status vex_log_repair(struct vex_io *io, const uint8_t *uuid,
                               const struct vex_log_start *start,
                               struct vex_log_repair_report *out_report, struct vex_error *error)
{
    *out_report = (struct vex_log_repair_report){0};
    void *page = NULL;
    if (posix_memalign(&page, VEX_BLOCK_BYTES, VEX_BLOCK_BYTES) != 0) {
        return vex_error_set(error, VEX_ERR_NOMEM, "log: out of memory");
    }
    struct repair repair = {
        .io = io, .uuid = uuid, .report = out_report, .page = page, .error = error};
    bool done = false;
    enum vex_status status = VEX_OK;
    for (unsigned step = 0; status == VEX_OK && !done; step++) {
        status = step < STEPS_MAX
                     ? take_step(&repair, start, &done)
                     : vex_error_set(error, VEX_ERR_CORRUPT, "log: the repair comes to no end");
    }
    free(page);
    if (repair.highest_lsn > out_report->last_lsn) {
        out_report->lost_lsns = repair.highest_lsn - out_report->last_lsn;
    }
    return status;
}
