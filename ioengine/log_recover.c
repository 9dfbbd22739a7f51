/*
 * Recovery: read every batch of every file in order, hand its records out, and find where to go on.
 *
 * Happy path: each file begins with a sound header that continues the file before it; each batch
 * continues the batch before it (LSN, checksum chain); then come zeros.
 *
 * When the bytes at some offset are neither a batch that continues the chain nor zeros to the end,
 * there are two explanations, told apart by what follows:
 *  - a batch was being written when the machine stopped. It was never acknowledged, nothing sound
 *    follows
 *    it, and it is the end of the last file. It is erased (durably, or it could be mistaken for a
 *    batch
 *    after the *next* crash) and recovery succeeds.
 *  - acknowledged data is damaged. Then a later batch or file exists, which was only written
 *    because this
 *    one had become durable. Recovery refuses: it never skips.
 * What this cannot see is damage at rest to the very last batch of all. The watermark written a
 * moment after the last acknowledgement narrows that to bursts that no watermark followed.
 *
 * Recovery changes nothing but the torn tail, so a crash in it is repeated by the next one.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/panic.h"
#include "ioengine/log_priv.h"

struct recovery {
    struct vex_log *log;
    vex_log_replay replay;
    void *context;
    struct vex_log_recovery *found;
    struct vex_error *error;
    char path[LOG_PATH_MAX];
    uint8_t *data; /* the file at hand, read whole */
    uint64_t bytes;
};

struct file_range {
    uint64_t first;
    uint64_t last; /* 0 = no files */
    uint64_t count;
};

static void note_file(void *context, const char *name)
{
    struct file_range *range = context;
    char *end = NULL;
    errno = 0;
    unsigned long long number = strtoull(name, &end, 10);
    if (errno || end == name || strcmp(end, ".log") != 0 || number == 0) {
        return;
    }
    char path[LOG_PATH_MAX];
    log_file_path(path, number);
    if (strcmp(path + strlen(VEX_LOG_DIRECTORY "/"), name) != 0) {
        return; /* not a name that the log gives: somebody's copy */
    }
    range->count++;
    range->first = range->first == 0 || number < range->first ? number : range->first;
    range->last = number > range->last ? number : range->last;
}

static enum vex_status failed(struct recovery *recovery, int os_errno, const char *what)
{
    return vex_error_os(recovery->error, vex_status_from_errno(os_errno), os_errno, "%s %s", what,
                        recovery->path);
}

static enum vex_status damaged(struct recovery *recovery, uint64_t offset, const char *what)
{
    return vex_error_set(recovery->error, VEX_ERR_CORRUPT,
                         "%s: offset %llu, at LSN %llu: %s; acknowledged writes are damaged, "
                         "refusing to start (restore a backup of the directory)",
                         recovery->path, (unsigned long long)offset,
                         (unsigned long long)recovery->log->next_lsn, what);
}

static enum vex_status read_whole_file(struct recovery *recovery, const struct vex_file *file)
{
    struct vex_io *io = recovery->log->io;
    /* What decides about acknowledged data must itself be on disk, not just in a cache that the
     * crashed daemon left. */
    int result = io->ops->sync(io, file);
    uint64_t bytes = 0;
    result = result < 0 ? result : io->ops->size(io, file, &bytes);
    if (result < 0) {
        return failed(recovery, -result, "sync and size");
    }
    if (bytes % VEX_BLOCK_BYTES != 0 || bytes < VEX_BLOCK_BYTES) {
        return damaged(recovery, bytes, "the file has been cut to an impossible size");
    }
    void *data = NULL;
    if (posix_memalign(&data, VEX_BLOCK_BYTES, bytes) != 0) {
        return vex_error_set(recovery->error, VEX_ERR_NOMEM, "%s: no memory for %llu bytes",
                             recovery->path, (unsigned long long)bytes);
    }
    int64_t got = io->ops->read(io, file, data, bytes, 0);
    if (got != (int64_t)bytes) {
        free(data);
        return failed(recovery, got < 0 ? (int)-got : EIO, "read");
    }
    free(recovery->data);
    recovery->data = data;
    recovery->bytes = bytes;
    return VEX_OK;
}

static bool all_zero(const uint8_t *data, uint64_t bytes)
{
    return bytes == 0 || (data[0] == 0 && memcmp(data, data + 1, bytes - 1) == 0);
}

/* True if a sound batch of this file's life lies anywhere behind `offset`: proof that what stands
 * at `offset` had been completed, since one batch is in flight at a time. */
static bool anything_sound_follows(const struct recovery *recovery, uint64_t offset)
{
    for (uint64_t at = offset + VEX_BLOCK_BYTES; at < recovery->bytes; at += VEX_BLOCK_BYTES) {
        if (!vex_batch_fault(recovery->data + at, recovery->bytes - at, recovery->log->nonce)) {
            return true;
        }
    }
    return false;
}

static enum vex_status erase_tail(struct recovery *recovery, struct vex_file *file, uint64_t offset)
{
    struct vex_io *io = recovery->log->io;
    uint64_t end = recovery->bytes;
    while (end > offset && all_zero(recovery->data + end - VEX_BLOCK_BYTES, VEX_BLOCK_BYTES)) {
        end -= VEX_BLOCK_BYTES;
    }
    memset(recovery->data + offset, 0, end - offset);
    int result = io->ops->write(io, file, recovery->data + offset, end - offset, offset);
    result = result < 0 ? result : io->ops->sync(io, file);
    if (result < 0) {
        return failed(recovery, -result, "erase the torn tail of");
    }
    recovery->found->torn_tails++;
    recovery->found->clean = false;
    return VEX_OK;
}

/* NULL if the batch at `offset` is sound and continues the chain. Tearing cannot make a batch that is
 * sound by itself, so *out_torn tells whether an unfinished write may be the reason. */
static const char *batch_fault(const struct recovery *recovery, uint64_t offset, bool *out_torn)
{
    const struct vex_log *log = recovery->log;
    const uint8_t *at = recovery->data + offset;
    const char *fault = vex_batch_fault(at, recovery->bytes - offset, log->nonce);
    *out_torn = fault != NULL;
    if (fault) {
        return fault;
    }
    struct vex_batch_header header;
    memcpy(&header, at, sizeof(header));
    if (header.first_lsn != log->next_lsn) {
        return "batch does not continue the LSNs before it";
    }
    if (header.previous_hash != log->previous_hash || header.file_number != log->file_number) {
        return "batch does not continue the batch before it";
    }
    return NULL;
}

static enum vex_status replay_batch(struct recovery *recovery, uint64_t offset)
{
    struct vex_log *log = recovery->log;
    const uint8_t *at = recovery->data + offset;
    struct vex_batch_header header;
    memcpy(&header, at, sizeof(header));
    struct vex_record_cursor cursor;
    vex_record_cursor_init(&cursor, at);
    uint64_t lsn;
    uint16_t type;
    const uint8_t *body;
    size_t bytes;
    while (vex_record_next(&cursor, &lsn, &type, &body, &bytes)) {
        enum vex_status status =
            recovery->replay(recovery->context, lsn, type, body, bytes, recovery->error);
        if (status != VEX_OK) {
            return vex_error_wrap(recovery->error, status, "%s: offset %llu, LSN %llu",
                                  recovery->path, (unsigned long long)offset,
                                  (unsigned long long)lsn);
        }
    }
    log->next_lsn += header.records_count;
    log->previous_hash = header.checksum;
    log->proven_lsn = header.durable_lsn;
    log->records += header.records_count;
    log->record_bytes += header.payload_bytes;
    recovery->found->clean = (header.flags & VEX_BATCH_CLEAN) != 0;
    return VEX_OK;
}

static enum vex_status walk_batches(struct recovery *recovery, struct vex_file *file, bool is_last)
{
    uint64_t offset = VEX_BLOCK_BYTES;
    enum vex_status status = VEX_OK;
    while (status == VEX_OK && offset < recovery->bytes) {
        bool torn = false;
        const char *fault = batch_fault(recovery, offset, &torn);
        if (!fault) {
            uint32_t total_bytes = vex_load_u32(recovery->data + offset +
                                                offsetof(struct vex_batch_header, total_bytes));
            status = replay_batch(recovery, offset);
            offset += total_bytes;
            continue;
        }
        if (all_zero(recovery->data + offset, recovery->bytes - offset)) {
            break;
        }
        if (!is_last || !torn || anything_sound_follows(recovery, offset)) {
            return damaged(recovery, offset, fault);
        }
        status = erase_tail(recovery, file, offset);
        break;
    }
    recovery->log->file_offset = offset;
    return status;
}

static enum vex_status check_header(struct recovery *recovery, uint64_t number)
{
    struct vex_log *log = recovery->log;
    struct vex_log_header header;
    memcpy(&header, recovery->data, sizeof(header));
    const char *fault = vex_log_header_fault(&header, log->uuid, number);
    if (!fault && header.file_bytes != recovery->bytes) {
        fault = "file size differs from the one in its header";
    }
    if (!fault && header.first_lsn != log->next_lsn) {
        fault = "file does not continue the LSNs of the one before it";
    }
    if (!fault && header.previous_hash != log->previous_hash) {
        fault = "file does not continue the one before it";
    }
    if (fault) {
        return damaged(recovery, 0, fault);
    }
    log->file_number = number;
    log->file_bytes = recovery->bytes;
    log->nonce = header.nonce;
    log->files_bytes += recovery->bytes;
    return VEX_OK;
}

static enum vex_status recover_file(struct recovery *recovery, uint64_t number, bool is_last)
{
    struct vex_log *log = recovery->log;
    struct vex_io *io = log->io;
    log_file_path(recovery->path, number);
    struct vex_file file;
    int result =
        io->ops->open_file(io, recovery->path, is_last ? VEX_FILE_WRITE : VEX_FILE_READ, &file);
    if (result == -ENOENT) {
        return damaged(recovery, 0, "the file is missing, but later ones are there");
    }
    if (result < 0) {
        return failed(recovery, -result, "open");
    }
    enum vex_status status = read_whole_file(recovery, &file);
    status = status == VEX_OK ? check_header(recovery, number) : status;
    status = status == VEX_OK ? walk_batches(recovery, &file, is_last) : status;
    if (status == VEX_OK && is_last) {
        log->file = file;
    } else {
        io->ops->close_file(io, &file);
    }
    return status;
}

static enum vex_status make_first_file(struct recovery *recovery)
{
    struct vex_log *log = recovery->log;
    /* next_file_bytes doubles: the first file gets the minimum. */
    log->file_bytes /= 2;
    int result = log_await_prepared(log, 2 * VEX_BLOCK_BYTES);
    result = result < 0 ? result : log_switch_file(log);
    return result < 0 ? failed(recovery, -result, "create the first log file after") : VEX_OK;
}

enum vex_status log_recover(struct vex_log *log, vex_log_replay replay, void *context,
                            struct vex_log_recovery *out_recovery, struct vex_error *error)
{
    *out_recovery = (struct vex_log_recovery){0};
    struct recovery recovery = {
        .log = log,
        .replay = replay,
        .context = context,
        .found = out_recovery,
        .error = error,
        .path = VEX_LOG_DIRECTORY,
    };
    struct vex_io *io = log->io;
    struct file_range range = {0};
    int result = io->ops->make_directory(io, VEX_LOG_DIRECTORY);
    result = result < 0 ? result : io->ops->sync_directory(io, ".");
    result = result < 0 ? result : io->ops->sync_directory(io, VEX_LOG_DIRECTORY);
    result = result < 0 ? result : io->ops->list(io, VEX_LOG_DIRECTORY, note_file, &range);
    if (result < 0) {
        return failed(&recovery, -result, "open directory");
    }
    result = io->ops->unlink(io, PREPARED_PATH);
    if (result < 0 && result != -ENOENT) {
        return failed(&recovery, -result, "remove the prepared file in");
    }
    log->next_lsn = 1;
    enum vex_status status = VEX_OK;
    if (range.count == 0) {
        status = make_first_file(&recovery);
    }
    for (uint64_t number = 1; status == VEX_OK && number <= range.last; number++) {
        status = recover_file(&recovery, number, number == range.last);
    }
    free(recovery.data);
    log->durable_lsn = log->submitted_lsn = out_recovery->last_lsn = log->next_lsn - 1;
    out_recovery->records = log->records;
    log->records = 0;
    return status;
}
