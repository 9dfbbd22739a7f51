/*
 * Files of the log, and the thread that zero-fills the next one.
 *
 * A prepared file has no number and no header yet: it becomes one by header (durable), rename,
 * directory sync, in this order. A crash in between leaves "prepared" behind, which recovery
 * removes, or a numbered file without batches, which is a valid, empty end of the log.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/bytes.h"
#include "base/panic.h"
#include "ioengine/log_priv.h"

#define ZERO_CHUNK_BYTES (1u << 20)

void log_file_path(char *out_path, uint64_t file_number)
{
    (void)snprintf(out_path, LOG_PATH_MAX, VEX_LOG_DIRECTORY "/%08llu.log",
                   (unsigned long long)file_number);
}

/* ---- preparing ------------------------------------------------------------------------------- */

static int zero_fill(struct vex_io *io, struct vex_file *file, uint64_t bytes)
{
    void *zeros = NULL;
    if (posix_memalign(&zeros, VEX_BLOCK_BYTES, ZERO_CHUNK_BYTES) != 0) {
        return -ENOMEM;
    }
    memset(zeros, 0, ZERO_CHUNK_BYTES);
    int result = 0;
    for (uint64_t at = 0; at < bytes && result == 0; at += ZERO_CHUNK_BYTES) {
        uint64_t left = bytes - at;
        size_t chunk = left < ZERO_CHUNK_BYTES ? (size_t)left : ZERO_CHUNK_BYTES;
        result = io->ops->write(io, file, zeros, chunk, at);
    }
    free(zeros);
    return result < 0 ? result : io->ops->sync(io, file);
}

static int prepare_file(struct vex_io *io, uint64_t bytes, struct vex_file *out_file)
{
    struct vex_file file;
    int result = io->ops->open_file(io, PREPARED_PATH, VEX_FILE_CREATE, &file);
    if (result < 0) {
        return result;
    }
    result = zero_fill(io, &file, bytes);
    if (result < 0) {
        io->ops->close_file(io, &file);
        (void)io->ops->unlink(io, PREPARED_PATH);
        return result;
    }
    *out_file = file;
    return 0;
}

static void *preparer_main(void *argument)
{
    struct vex_log *log = argument;
    struct log_preparer *preparer = &log->preparer;
    (void)pthread_mutex_lock(&preparer->mutex);
    while (!preparer->stop) {
        if (preparer->state != PREPARATION_RUNNING) {
            (void)pthread_cond_wait(&preparer->changed, &preparer->mutex);
            continue;
        }
        uint64_t bytes = preparer->bytes;
        (void)pthread_mutex_unlock(&preparer->mutex);
        struct vex_file file = {-1, false};
        int result = prepare_file(log->io, bytes, &file);
        (void)pthread_mutex_lock(&preparer->mutex);
        preparer->file = file;
        preparer->failure = result < 0 ? -result : 0;
        preparer->state = result < 0 ? PREPARATION_FAILED : PREPARATION_READY;
        (void)pthread_cond_broadcast(&preparer->changed);
    }
    (void)pthread_mutex_unlock(&preparer->mutex);
    return NULL;
}

int log_preparer_start(struct vex_log *log)
{
    struct log_preparer *preparer = &log->preparer;
    preparer->file.fd = -1;
    (void)pthread_mutex_init(&preparer->mutex, NULL);
    (void)pthread_cond_init(&preparer->changed, NULL);
    /* Signals are for the thread that serves: here they would end the process. */
    sigset_t all;
    sigset_t before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int result = pthread_create(&preparer->thread, NULL, preparer_main, log);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    preparer->started = result == 0;
    return -result;
}

void log_preparer_stop(struct vex_log *log)
{
    struct log_preparer *preparer = &log->preparer;
    if (preparer->started) {
        (void)pthread_mutex_lock(&preparer->mutex);
        preparer->stop = true;
        (void)pthread_cond_broadcast(&preparer->changed);
        (void)pthread_mutex_unlock(&preparer->mutex);
        (void)pthread_join(preparer->thread, NULL);
    }
    if (preparer->file.fd >= 0) {
        log->io->ops->close_file(log->io, &preparer->file);
        (void)log->io->ops->unlink(log->io, PREPARED_PATH);
    }
    (void)pthread_cond_destroy(&preparer->changed);
    (void)pthread_mutex_destroy(&preparer->mutex);
}

/* Each file is twice the one before, up to the maximum, and never smaller than needed. */
static uint64_t next_file_bytes(const struct vex_log *log, uint64_t at_least)
{
    uint64_t bytes = 2 * log->file_bytes;
    bytes = bytes > log->file_bytes_max ? log->file_bytes_max : bytes;
    bytes = bytes < at_least ? at_least : bytes;
    return vex_round_up(bytes, VEX_BLOCK_BYTES);
}

static void start_locked(struct vex_log *log, uint64_t at_least)
{
    struct log_preparer *preparer = &log->preparer;
    if (preparer->state == PREPARATION_READY) {
        log->io->ops->close_file(log->io, &preparer->file);
    }
    preparer->bytes = next_file_bytes(log, at_least);
    preparer->failure = 0;
    preparer->state = PREPARATION_RUNNING;
    (void)pthread_cond_broadcast(&preparer->changed);
}

void log_prepare(struct vex_log *log, uint64_t bytes)
{
    struct log_preparer *preparer = &log->preparer;
    (void)pthread_mutex_lock(&preparer->mutex);
    /* A failed attempt is repeated only when the space is really needed. */
    if (preparer->state == PREPARATION_NONE) {
        start_locked(log, bytes);
    }
    (void)pthread_mutex_unlock(&preparer->mutex);
}

bool log_preparation_failed(struct vex_log *log)
{
    struct log_preparer *preparer = &log->preparer;
    (void)pthread_mutex_lock(&preparer->mutex);
    bool failed = preparer->state == PREPARATION_FAILED;
    (void)pthread_mutex_unlock(&preparer->mutex);
    return failed;
}

bool log_has_prepared(struct vex_log *log, uint64_t bytes)
{
    struct log_preparer *preparer = &log->preparer;
    (void)pthread_mutex_lock(&preparer->mutex);
    bool ready = preparer->state == PREPARATION_READY && preparer->bytes >= bytes;
    (void)pthread_mutex_unlock(&preparer->mutex);
    return ready;
}

int log_await_prepared(struct vex_log *log, uint64_t bytes)
{
    struct log_preparer *preparer = &log->preparer;
    (void)pthread_mutex_lock(&preparer->mutex);
    bool tried = false;
    int result = 0;
    for (;;) {
        if (preparer->state == PREPARATION_RUNNING) {
            (void)pthread_cond_wait(&preparer->changed, &preparer->mutex);
        } else if (preparer->state == PREPARATION_READY && preparer->bytes >= bytes) {
            break;
        } else if (!tried) {
            tried = true;
            start_locked(log, bytes);
        } else {
            result = -(preparer->failure ? preparer->failure : EIO);
            break;
        }
    }
    (void)pthread_mutex_unlock(&preparer->mutex);
    return result;
}

/* ---- switching ------------------------------------------------------------------------------- */

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

static int write_header(struct vex_io *io, const struct vex_file *file,
                        const struct vex_log_header *header)
{
    void *page = NULL;
    if (posix_memalign(&page, VEX_BLOCK_BYTES, VEX_BLOCK_BYTES) != 0) {
        return -ENOMEM;
    }
    memset(page, 0, VEX_BLOCK_BYTES);
    memcpy(page, header, sizeof(*header));
    int result = io->ops->write(io, file, page, VEX_BLOCK_BYTES, 0);
    free(page);
    return result < 0 ? result : io->ops->sync(io, file);
}

int log_switch_file(struct vex_log *log)
{
    struct log_preparer *preparer = &log->preparer;
    struct vex_io *io = log->io;
    VEX_ASSERT(!log->in_flight);
    (void)pthread_mutex_lock(&preparer->mutex);
    VEX_ASSERT(preparer->state == PREPARATION_READY);
    struct vex_file file = preparer->file;
    uint64_t bytes = preparer->bytes;
    preparer->file.fd = -1;
    (void)pthread_mutex_unlock(&preparer->mutex);

    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    struct vex_log_header header = {
        .magic = VEX_LOG_MAGIC,
        .version = VEX_LOG_VERSION,
        .file_number = log->file_number + 1,
        .first_lsn = log->next_lsn - log->open_records,
        .previous_hash = log->previous_hash,
        .nonce = random_nonce(),
        .file_bytes = bytes,
        .created_ms = (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u,
    };
    memcpy(header.uuid, log->uuid, sizeof(header.uuid));
    vex_log_header_seal(&header);
    char path[LOG_PATH_MAX];
    log_file_path(path, header.file_number);
    int result = write_header(io, &file, &header);
    result = result < 0 ? result : io->ops->rename(io, PREPARED_PATH, path);
    result = result < 0 ? result : io->ops->sync_directory(io, VEX_LOG_DIRECTORY);
    if (result < 0) {
        io->ops->close_file(io, &file);
        return result;
    }
    /* Only now may the helper use the name "prepared" again. */
    (void)pthread_mutex_lock(&preparer->mutex);
    preparer->state = PREPARATION_NONE;
    (void)pthread_mutex_unlock(&preparer->mutex);
    io->ops->close_file(io, &log->file);
    log->file = file;
    log->file_number = header.file_number;
    log->file_bytes = bytes;
    log->file_offset = VEX_BLOCK_BYTES;
    log->nonce = header.nonce;
    log->files_bytes += bytes;
    return 0;
}
