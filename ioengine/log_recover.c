/*
 * Recovery: the walk (log_scan.c) hands the records out and finds where the log ends; then what a
 * crash left is put in order, and the log goes on there.
 *
 * Nothing is changed before the whole log has been read and found sound. What is changed then:
 *  - A file that a crash left without its end mark, the next one being there, is given it.
 *  - The block at the end of the log is made zero if it is not: the header of a torn batch must not
 *    meet the rest of a later one that is written to the same place and torn as well, or a batch that
 *    was dropped could come back. The blocks behind it need no care: without their header they are
 *    nothing, and sound batches are not among them.
 *  - Files before the start, and the ones that have no number, are removed.
 * Each of these can be repeated, so a crash in recovery is repeated by the next one.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/panic.h"
#include "ioengine/log_priv.h"

#define REMEDY                                                                                     \
    "; acknowledged writes are damaged: 'vexctl log repair' tells what going on without them "     \
    "loses, perhaps nothing; or restore a backup"

struct replaying {
    vex_log_replay replay;
    void *context;
    uint64_t start_lsn;
    uint64_t records;
};

static enum vex_status replay_record(void *context, uint64_t lsn, uint16_t type,
                                     const uint8_t *body, size_t bytes, struct vex_error *error)
{
    struct replaying *replaying = context;
    if (lsn <= replaying->start_lsn) {
        return VEX_OK;
    }
    replaying->records++;
    return replaying->replay(replaying->context, lsn, type, body, bytes, error);
}

static enum vex_status failed(struct vex_error *error, int result, const char *what,
                              const char *path)
{
    return vex_error_os(error, vex_status_from_errno(-result), -result, "%s %s", what, path);
}

static enum vex_status open_directory(struct vex_io *io, struct vex_error *error)
{
    int result = io->ops->make_directory(io, VEX_LOG_DIRECTORY);
    result = result < 0 ? result : io->ops->sync_directory(io, ".");
    result = result < 0 ? result : io->ops->sync_directory(io, VEX_LOG_DIRECTORY);
    return result < 0 ? failed(error, result, "open directory", VEX_LOG_DIRECTORY) : VEX_OK;
}

/* ---- putting in order ------------------------------------------------------------------------ */

static enum vex_status end_file_before(struct vex_log *log, const struct log_scan *scan,
                                       struct vex_error *error)
{
    const struct log_position *before = &scan->before;
    if (before->file_number == 0 || before->ended) {
        return VEX_OK;
    }
    char path[LOG_PATH_MAX];
    log_file_path(path, before->file_number);
    struct vex_file file;
    int result = log->io->ops->open_file(log->io, path, VEX_FILE_WRITE, &file);
    if (result < 0) {
        return failed(error, result, "open", path);
    }
    log_make_end_mark(log->page, before);
    result = log_write_block(log->io, &file, log->page, before->offset);
    log->io->ops->close_file(log->io, &file);
    return result < 0 ? failed(error, result, "end", path) : VEX_OK;
}

static enum vex_status open_last_file(struct vex_log *log, const struct log_scan *scan,
                                      struct vex_error *error)
{
    char path[LOG_PATH_MAX];
    log_file_path(path, scan->at.file_number);
    int result = log->io->ops->open_file(log->io, path, VEX_FILE_WRITE, &log->file);
    if (result < 0) {
        log->file.fd = -1;
        return failed(error, result, "open", path);
    }
    if (scan->dirty) {
        memset(log->page, 0, VEX_BLOCK_BYTES);
        result = log_write_block(log->io, &log->file, log->page, scan->at.offset);
    }
    return result < 0 ? failed(error, result, "erase the end of", path) : VEX_OK;
}

/* The numbered files before the start, and the unnumbered ones. */
static enum vex_status remove_leftovers(struct vex_log *log, const struct log_scan *scan,
                                        struct vex_error *error)
{
    struct vex_io *io = log->io;
    bool any = false;
    const char *const unnumbered[] = {PREPARED_PATH, SPARE_PATH};
    size_t numbers = scan->leftovers.bytes / sizeof(uint64_t);
    for (size_t i = 0; i < numbers + 2; i++) {
        char path[LOG_PATH_MAX];
        if (i < numbers) {
            log_file_path(path, vex_load_u64(scan->leftovers.data + i * sizeof(uint64_t)));
        } else {
            memcpy(path, unnumbered[i - numbers], strlen(unnumbered[i - numbers]) + 1);
        }
        int result = io->ops->unlink(io, path);
        if (result < 0 && result != -ENOENT) {
            return failed(error, result, "remove", path);
        }
        any = any || result == 0;
    }
    int result = any ? io->ops->sync_directory(io, VEX_LOG_DIRECTORY) : 0;
    return result < 0 ? failed(error, result, "sync", VEX_LOG_DIRECTORY) : VEX_OK;
}

static enum vex_status make_first_file(struct vex_log *log, struct vex_error *error)
{
    int result = log_await_prepared(log, VEX_LOG_FILE_BLOCKS_MIN * VEX_BLOCK_BYTES, false);
    result = result < 0 ? result : log_switch_file(log);
    return result < 0 ? failed(error, result, "create the first file in", VEX_LOG_DIRECTORY)
                      : VEX_OK;
}

/* Makes the end of the walk the place where the log goes on. */
static enum vex_status go_on(struct vex_log *log, struct log_scan *scan, struct vex_error *error)
{
    const struct log_position *at = &scan->at;
    log->next_lsn = at->next_lsn;
    log->previous_hash = at->previous_hash;
    /* A checkpoint proves its records as well as a watermark does. */
    log->proven_lsn = scan->proven_lsn > scan->start.lsn ? scan->proven_lsn : scan->start.lsn;
    log->record_bytes = scan->record_bytes;
    log->replay_bytes = scan->replay_bytes;
    log->durable_lsn = log->submitted_lsn = at->next_lsn - 1;
    if (scan->start.file_number == 0) {
        enum vex_status status = remove_leftovers(log, scan, error);
        return status == VEX_OK ? make_first_file(log, error) : status;
    }
    log->file_number = at->file_number;
    log->file_bytes = at->file_bytes;
    log->file_offset = at->offset;
    log->nonce = at->nonce;
    struct log_files *files = &log->files;
    files->entries = scan->entries;
    scan->entries = (struct vex_buffer){0};
    for (size_t i = 0; i < files->entries.bytes; i += sizeof(struct log_file_entry)) {
        struct log_file_entry entry;
        memcpy(&entry, files->entries.data + i, sizeof(entry));
        files->bytes += entry.bytes;
    }
    files->spare_bytes_min = log_next_file_bytes(log, 0);
    enum vex_status status = end_file_before(log, scan, error);
    status = status == VEX_OK ? open_last_file(log, scan, error) : status;
    return status == VEX_OK ? remove_leftovers(log, scan, error) : status;
}

enum vex_status log_recover(struct vex_log *log, const struct vex_log_start *start,
                            vex_log_replay replay, void *context,
                            struct vex_log_recovery *out_recovery, struct vex_error *error)
{
    *out_recovery = (struct vex_log_recovery){0};
    enum vex_status status = open_directory(log->io, error);
    if (status != VEX_OK) {
        return status;
    }
    struct replaying replaying = {replay, context, start->lsn, 0};
    const struct vex_log_visitor visitor = {.context = &replaying, .record = replay_record};
    struct log_scan scan = {.io = log->io,
                            .uuid = log->uuid,
                            .start = *start,
                            .visitor = &visitor,
                            .error = error,
                            .remedy = REMEDY};
    status = log_scan_run(&scan);
    status = status == VEX_OK ? go_on(log, &scan, error) : status;
    *out_recovery = (struct vex_log_recovery){
        .last_lsn = log->durable_lsn,
        .records = replaying.records,
        .torn_tails = scan.torn,
        .clean = scan.clean,
    };
    log_scan_deinit(&scan);
    return status;
}
