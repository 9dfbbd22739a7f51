/*
 * Which files the log has: switching to the next one, and trimming those at the other end.
 *
 * A prepared file becomes one of the log by header (durable), rename, directory sync; then the file
 * before it gets its end mark (durable), and only then the first batch is written to the new one. So
 * an end mark proves that the next file exists, and a batch that the file before has its end mark. A
 * crash in between leaves log/prepared, which recovery removes, or a numbered file without batches,
 * which is a valid, empty end of the log.
 *
 * A trimmed file that is kept is renamed to log/spare and the directory synced before it may be
 * written again: under its old name it would be a file of the log.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/panic.h"
#include "ioengine/log_priv.h"

void log_file_path(char *out_path, uint64_t file_number)
{
    (void)snprintf(out_path, LOG_PATH_MAX, VEX_LOG_DIRECTORY "/%08llu.log",
                   (unsigned long long)file_number);
}

static uint64_t random_nonce(void)
{
    uint64_t nonce = 0;
    if (getrandom(&nonce, sizeof(nonce), 0) != (ssize_t)sizeof(nonce)) {
        struct timespec now;
        (void)clock_gettime(CLOCK_REALTIME, &now);
        nonce = vex_mix64((uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec);
    }
    return nonce;
}

void log_make_header(uint8_t *page, const uint8_t *uuid, uint64_t file_number,
                     const struct log_position *position, uint64_t file_bytes, uint64_t *out_nonce)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    struct vex_log_header header = {
        .magic = VEX_LOG_MAGIC,
        .version = VEX_LOG_VERSION,
        .file_number = file_number,
        .first_lsn = position->next_lsn,
        .previous_hash = position->previous_hash,
        .nonce = random_nonce(),
        .file_bytes = file_bytes,
        .created_ms = (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u,
    };
    memcpy(header.uuid, uuid, sizeof(header.uuid));
    vex_log_header_seal(&header);
    memset(page, 0, VEX_BLOCK_BYTES);
    memcpy(page, &header, sizeof(header));
    *out_nonce = header.nonce;
}

void log_make_end_mark(uint8_t *page, const struct log_position *position)
{
    struct vex_batch_header *header = (struct vex_batch_header *)(void *)page;
    *header = (struct vex_batch_header){
        .flags = VEX_BATCH_END,
        .first_lsn = position->next_lsn,
        .block = (uint32_t)(position->offset / VEX_BLOCK_BYTES),
        .previous_hash = position->previous_hash,
        .durable_lsn = position->next_lsn - 1,
        .file_number = position->file_number,
    };
    (void)vex_batch_seal(header, 0, position->nonce);
}

int log_write_block(struct vex_io *io, const struct vex_file *file, const uint8_t *page,
                    uint64_t offset)
{
    int result = io->ops->write(io, file, page, VEX_BLOCK_BYTES, offset);
    return result < 0 ? result : io->ops->sync(io, file);
}

/* ---- switching ------------------------------------------------------------------------------- */

static int take_prepared(struct vex_log *log, struct log_prepared *out_prepared)
{
    struct log_files *files = &log->files;
    (void)pthread_mutex_lock(&files->mutex);
    VEX_ASSERT(files->state == PREPARATION_READY);
    bool room = vex_buffer_reserve(&files->entries, sizeof(struct log_file_entry));
    if (room) {
        *out_prepared = files->prepared;
        files->prepared.file.fd = -1;
        files->prepared.reserve.fd = -1;
    }
    (void)pthread_mutex_unlock(&files->mutex);
    return room ? 0 : -ENOMEM;
}

/* The prepared file under its number, durably; then the end mark of the one before. */
static int put_in_place(struct vex_log *log, struct log_prepared *prepared, uint64_t *out_nonce)
{
    struct vex_io *io = log->io;
    const struct log_position position = {
        .file_number = log->file_number,
        .nonce = log->nonce,
        .offset = log->file_offset,
        .next_lsn = log->next_lsn - log->open_records,
        .previous_hash = log->previous_hash,
    };
    char path[LOG_PATH_MAX];
    log_file_path(path, log->file_number + 1);
    log_make_header(log->page, log->uuid, log->file_number + 1, &position, prepared->bytes,
                    out_nonce);
    int result = log_write_block(io, &prepared->file, log->page, 0);
    result = result < 0 ? result : io->ops->rename(io, PREPARED_PATH, path);
    io->ops->close_file(io, &prepared->reserve);
    result = result < 0 ? result : io->ops->sync_directory(io, VEX_LOG_DIRECTORY);
    if (result < 0 || log->file.fd < 0) {
        return result;
    }
    log_make_end_mark(log->page, &position);
    log->batch_bytes += VEX_BLOCK_BYTES;
    return log_write_block(io, &log->file, log->page, log->file_offset);
}

int log_switch_file(struct vex_log *log)
{
    struct log_files *files = &log->files;
    VEX_ASSERT(!log->in_flight);
    struct log_prepared prepared;
    int result = take_prepared(log, &prepared);
    if (result < 0) {
        return result;
    }
    uint64_t nonce = 0;
    result = put_in_place(log, &prepared, &nonce);
    if (result < 0) {
        log->io->ops->close_file(log->io, &prepared.file);
        return result;
    }
    log->io->ops->close_file(log->io, &log->file);
    log->file = prepared.file;
    log->file_number++;
    log->file_bytes = prepared.bytes;
    log->file_offset = VEX_BLOCK_BYTES;
    log->nonce = nonce;
    log->rotate = false;
    const struct log_file_entry entry = {log->file_number, log->file_bytes};
    (void)pthread_mutex_lock(&files->mutex);
    bool added = vex_buffer_append(&files->entries, &entry, sizeof(entry));
    VEX_ASSERT(added); /* reserved before */
    files->bytes += entry.bytes;
    files->spare_bytes_min = log_next_file_bytes(log, 0);
    /* Only now may the name "prepared" be used again. */
    files->state = PREPARATION_NONE;
    (void)pthread_mutex_unlock(&files->mutex);
    return 0;
}

/* ---- trimming -------------------------------------------------------------------------------- */

/* Takes the oldest file off the list if it is below `first`. *out_keep: it is to be the spare one. */
static bool take_oldest(struct log_files *files, uint64_t first, struct log_file_entry *out_entry,
                        bool *out_keep)
{
    (void)pthread_mutex_lock(&files->mutex);
    bool any = files->entries.bytes > sizeof(*out_entry);
    if (any) {
        memcpy(out_entry, files->entries.data, sizeof(*out_entry));
        any = out_entry->number < first;
    }
    if (any) {
        vex_buffer_consume(&files->entries, sizeof(*out_entry));
        files->bytes -= out_entry->bytes;
        *out_keep = files->recycling && out_entry->bytes >= files->spare_bytes_min &&
                    (files->spare == SPARE_NONE ||
                     (files->spare == SPARE_READY && files->spare_bytes < files->spare_bytes_min));
        files->spare = *out_keep ? SPARE_MOVING : files->spare;
    }
    (void)pthread_mutex_unlock(&files->mutex);
    return any;
}

/* The directory has been synced: the spare file may be used, if that is still wanted. */
static void offer_spare(struct vex_log *log, uint64_t bytes)
{
    struct log_files *files = &log->files;
    (void)pthread_mutex_lock(&files->mutex);
    files->spare_bytes = bytes;
    files->spare = bytes && files->recycling ? SPARE_READY : SPARE_NONE;
    if (files->spare == SPARE_NONE) {
        (void)log->io->ops->unlink(log->io, SPARE_PATH);
    }
    (void)pthread_mutex_unlock(&files->mutex);
}

int vex_log_trim(struct vex_log *log, uint64_t first_file_number, bool recycle)
{
    struct log_files *files = &log->files;
    struct vex_io *io = log->io;
    int failure = 0;
    bool changed = !recycle; /* vex_log_rotate may have removed one without syncing */
    (void)pthread_mutex_lock(&files->mutex);
    files->recycling = recycle;
    if (!recycle && files->spare == SPARE_READY) {
        files->spare = SPARE_NONE;
        failure = io->ops->unlink(io, SPARE_PATH);
    }
    (void)pthread_mutex_unlock(&files->mutex);

    bool moving = false;
    uint64_t spare_bytes = 0;
    struct log_file_entry entry;
    bool keep = false;
    while (take_oldest(files, first_file_number, &entry, &keep)) {
        char path[LOG_PATH_MAX];
        log_file_path(path, entry.number);
        moving = moving || keep;
        if (keep && io->ops->rename(io, path, SPARE_PATH) == 0) {
            spare_bytes = entry.bytes;
        } else {
            int result = io->ops->unlink(io, path);
            failure = failure < 0 ? failure : result;
        }
        changed = true;
    }
    if (changed) {
        int result = io->ops->sync_directory(io, VEX_LOG_DIRECTORY);
        spare_bytes = result < 0 ? 0 : spare_bytes;
        failure = failure < 0 ? failure : result;
    }
    if (moving) {
        offer_spare(log, spare_bytes);
    }
    return failure;
}
