/*
 * The next file of the log: zero-filled, or one that was trimmed and is used again, ready before the
 * current one is full.
 *
 * A prepared file has no number yet. log/prepared is the one that will be next, log/spare one that a
 * trim has kept; recovery removes both. Real blocks are allocated before the zeros are written, so
 * that a full disk shows at once; then smaller files are tried, since a write needs only so much.
 *
 * Zeros are written even though the blocks are allocated: a block that was never written costs a
 * journal commit when it is, and a recycled file costs none and no zeros either. Nothing throttles
 * this: it is at most one file, in pieces that the disk finishes in milliseconds.
 *
 * A caller that needs the file now prepares it itself; the helper thread is for preparing ahead and
 * is started when that first happens, so that opening a log only to recover it stays cheap.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "ioengine/log_priv.h"

#define ZERO_CHUNK_BYTES (1u << 20)
/* A batch is large if so many fill a file, and it is at least so long. */
#define LARGE_BATCHES 256u
#define LARGE_BYTES_MIN (2 * VEX_BLOCK_BYTES)
/* On a full disk, files are not made smaller than this for the sake of one write; for those that give
 * space back, the second. */
#define SMALLEST_BYTES (1u << 20)
#define SMALLEST_SMALL_BYTES (64u << 10)

/* ---- making a file --------------------------------------------------------------------------- */

int log_write_zeros(struct vex_io *io, const struct vex_file *file, uint64_t offset, uint64_t end)
{
    size_t chunk_bytes =
        end - offset < ZERO_CHUNK_BYTES ? (size_t)(end - offset) : ZERO_CHUNK_BYTES;
    void *zeros = NULL;
    if (posix_memalign(&zeros, VEX_BLOCK_BYTES, chunk_bytes) != 0) {
        return -ENOMEM;
    }
    memset(zeros, 0, chunk_bytes);
    int result = 0;
    for (uint64_t at = offset; at < end && result == 0; at += chunk_bytes) {
        uint64_t left = end - at;
        result =
            io->ops->write(io, file, zeros, left < chunk_bytes ? (size_t)left : chunk_bytes, at);
    }
    free(zeros);
    return result < 0 ? result : io->ops->sync(io, file);
}

static bool means_full(int result)
{
    return result == -ENOSPC || result == -EDQUOT;
}

/* Blocks for as much as was asked for, or for less. Some file systems cannot say beforehand: there a
 * full disk shows while the zeros are written. */
static int allocate(struct vex_io *io, const struct vex_file *file,
                    const struct log_request *request, uint64_t *out_bytes, bool *out_real)
{
    uint64_t bytes = request->bytes;
    for (;;) {
        int result = io->ops->allocate(io, file, bytes);
        if (result == 0 || result == -EOPNOTSUPP || result == -ENOSYS) {
            *out_bytes = bytes;
            *out_real = result == 0;
            return 0;
        }
        if (!means_full(result) || bytes <= request->bytes_min) {
            return result;
        }
        bytes = vex_round_up(bytes / 2, VEX_BLOCK_BYTES);
        bytes = bytes < request->bytes_min ? request->bytes_min : bytes;
    }
}

static void close_prepared(struct vex_io *io, struct log_prepared *prepared)
{
    io->ops->close_file(io, &prepared->file);
    io->ops->close_file(io, &prepared->reserve);
}

int log_make_prepared(struct vex_io *io, const struct log_request *request,
                      struct log_prepared *out_prepared)
{
    struct log_prepared made = {.file = {-1, false}, .reserve = {-1, false}};
    int result = io->ops->open_file(io, PREPARED_PATH, VEX_FILE_CREATE, &made.file);
    if (result < 0) {
        return result;
    }
    result = io->ops->open_file(io, PREPARED_PATH, VEX_FILE_READ, &made.reserve);
    bool real = false;
    result = result < 0 ? result : allocate(io, &made.file, request, &made.bytes, &real);
    made.zeroed = !(request->bare && real);
    if (result == 0) {
        result = made.zeroed ? log_write_zeros(io, &made.file, 0, made.bytes)
                             : io->ops->sync(io, &made.file);
    }
    if (result < 0) {
        close_prepared(io, &made);
        (void)io->ops->unlink(io, PREPARED_PATH);
        return result;
    }
    *out_prepared = made;
    return 0;
}

/* Makes the spare file the prepared one. */
static int take_spare(struct vex_io *io, uint64_t bytes, struct log_prepared *out_prepared)
{
    struct log_prepared made = {
        .file = {-1, false}, .reserve = {-1, false}, .bytes = bytes, .recycled = true};
    int result = io->ops->rename(io, SPARE_PATH, PREPARED_PATH);
    result =
        result < 0 ? result : io->ops->open_file(io, PREPARED_PATH, VEX_FILE_WRITE, &made.file);
    result =
        result < 0 ? result : io->ops->open_file(io, PREPARED_PATH, VEX_FILE_READ, &made.reserve);
    if (result < 0) {
        close_prepared(io, &made);
        return result;
    }
    *out_prepared = made;
    return 0;
}

/* Carries files->request out. Called and returns with the mutex held, not held meanwhile. */
static void run_locked(struct vex_log *log)
{
    struct log_files *files = &log->files;
    struct log_request request = files->request;
    bool spare =
        files->recycling && files->spare == SPARE_READY && files->spare_bytes >= request.bytes;
    uint64_t spare_bytes = files->spare_bytes;
    if (spare) {
        files->spare = SPARE_MOVING;
    }
    (void)pthread_mutex_unlock(&files->mutex);
    struct log_prepared prepared = {.file = {-1, false}, .reserve = {-1, false}};
    int result = spare ? take_spare(log->io, spare_bytes, &prepared) : -ENOENT;
    if (result < 0) {
        result = log_make_prepared(log->io, &request, &prepared);
    }
    (void)pthread_mutex_lock(&files->mutex);
    if (spare) {
        files->spare = SPARE_NONE;
    } else if (means_full(result) && files->recycling && files->spare == SPARE_READY &&
               files->spare_bytes >= request.bytes_min) {
        /* Smaller than wished for, but there. */
        files->spare = SPARE_MOVING;
        spare_bytes = files->spare_bytes;
        (void)pthread_mutex_unlock(&files->mutex);
        int taken = take_spare(log->io, spare_bytes, &prepared);
        (void)pthread_mutex_lock(&files->mutex);
        files->spare = SPARE_NONE;
        result = taken < 0 ? result : 0;
    }
    files->zeroed_bytes += result == 0 && prepared.zeroed ? prepared.bytes : 0;
    files->prepared = prepared;
    files->failure = result < 0 ? -result : 0;
    files->state = result < 0 ? PREPARATION_FAILED : PREPARATION_READY;
    (void)pthread_cond_broadcast(&files->changed);
}

/* ---- the helper thread ----------------------------------------------------------------------- */

static void *helper_main(void *argument)
{
    struct vex_log *log = argument;
    struct log_files *files = &log->files;
    (void)pthread_mutex_lock(&files->mutex);
    while (!files->stop) {
        if (files->helper_asked) {
            files->helper_asked = false;
            run_locked(log);
        } else {
            (void)pthread_cond_wait(&files->changed, &files->mutex);
        }
    }
    (void)pthread_mutex_unlock(&files->mutex);
    return NULL;
}

static bool start_helper(struct vex_log *log)
{
    struct log_files *files = &log->files;
    if (files->started) {
        return true;
    }
    /* Signals are for the thread that serves: here they would end the process. */
    sigset_t all;
    sigset_t before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    files->started = pthread_create(&files->thread, NULL, helper_main, log) == 0;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return files->started;
}

void log_files_init(struct log_files *files)
{
    files->prepared.file.fd = -1;
    files->prepared.reserve.fd = -1;
    files->recycling = true;
    (void)pthread_mutex_init(&files->mutex, NULL);
    (void)pthread_cond_init(&files->changed, NULL);
}

void log_files_deinit(struct vex_log *log)
{
    struct log_files *files = &log->files;
    if (files->started) {
        (void)pthread_mutex_lock(&files->mutex);
        files->stop = true;
        (void)pthread_cond_broadcast(&files->changed);
        (void)pthread_mutex_unlock(&files->mutex);
        (void)pthread_join(files->thread, NULL);
    }
    if (files->prepared.file.fd >= 0) {
        close_prepared(log->io, &files->prepared);
        (void)log->io->ops->unlink(log->io, PREPARED_PATH);
    }
    if (files->spare == SPARE_READY) {
        (void)log->io->ops->unlink(log->io, SPARE_PATH);
    }
    vex_buffer_deinit(&files->entries);
    (void)pthread_cond_destroy(&files->changed);
    (void)pthread_mutex_destroy(&files->mutex);
}

/* ---- asking for one -------------------------------------------------------------------------- */

/* Each file is twice the one before, between minimum and maximum, and never smaller than needed. */
uint64_t log_next_file_bytes(const struct vex_log *log, uint64_t at_least)
{
    uint64_t bytes = 2 * log->file_bytes;
    bytes = bytes < log->file_bytes_min ? log->file_bytes_min : bytes;
    bytes = bytes > log->file_bytes_max ? log->file_bytes_max : bytes;
    bytes = bytes < at_least ? at_least : bytes;
    return vex_round_up(bytes, VEX_BLOCK_BYTES);
}

/*
 * Zeros spare each append a commit of the file system's journal, at the price of writing every byte twice. For
 * large batches the commit is the smaller part.
 */
static bool batches_are_large(const struct vex_log *log)
{
    uint64_t large = log->file_bytes_max / LARGE_BATCHES;
    return log->typical_batch_bytes >= (large > LARGE_BYTES_MIN ? large : LARGE_BYTES_MIN);
}

static struct log_request make_request(const struct vex_log *log, uint64_t wanted, uint64_t needed,
                                       bool small)
{
    uint64_t least = vex_round_up(needed, small ? SMALLEST_SMALL_BYTES : SMALLEST_BYTES);
    return (struct log_request){wanted, least < wanted ? least : wanted, batches_are_large(log)};
}

void log_prepare(struct vex_log *log)
{
    struct log_files *files = &log->files;
    (void)pthread_mutex_lock(&files->mutex);
    /* A failed attempt is repeated only when the space is really needed. */
    if (files->state == PREPARATION_NONE && start_helper(log)) {
        uint64_t bytes = log_next_file_bytes(log, VEX_LOG_FILE_BLOCKS_MIN * VEX_BLOCK_BYTES);
        files->request = make_request(log, bytes, VEX_BLOCK_BYTES, false);
        files->state = PREPARATION_RUNNING;
        files->helper_asked = true;
        (void)pthread_cond_broadcast(&files->changed);
    }
    (void)pthread_mutex_unlock(&files->mutex);
}

static bool is_ready_locked(const struct log_files *files, uint64_t bytes, bool fresh)
{
    return files->state == PREPARATION_READY && files->prepared.bytes >= bytes &&
           !(fresh && files->prepared.recycled);
}

static int await_locked(struct vex_log *log, const struct log_request *request, uint64_t bytes,
                        bool fresh)
{
    struct log_files *files = &log->files;
    bool tried = false;
    for (;;) {
        if (files->state == PREPARATION_RUNNING) {
            (void)pthread_cond_wait(&files->changed, &files->mutex);
        } else if (is_ready_locked(files, bytes, fresh)) {
            return 0;
        } else if (tried) {
            return -(files->failure ? files->failure : EIO);
        } else {
            tried = true;
            close_prepared(log->io, &files->prepared);
            files->request = *request;
            files->failure = 0;
            files->state = PREPARATION_RUNNING;
            run_locked(log);
        }
    }
}

int log_await_prepared(struct vex_log *log, uint64_t bytes, bool small)
{
    struct log_files *files = &log->files;
    struct log_request request = make_request(log, log_next_file_bytes(log, bytes), bytes, small);
    (void)pthread_mutex_lock(&files->mutex);
    int result = await_locked(log, &request, bytes, false);
    (void)pthread_mutex_unlock(&files->mutex);
    return result;
}

int log_await_fresh(struct vex_log *log, uint64_t bytes)
{
    struct log_files *files = &log->files;
    /* As small as files get: the caller waits for it. */
    uint64_t wanted = log->file_bytes_min < bytes ? bytes : log->file_bytes_min;
    struct log_request request =
        make_request(log, vex_round_up(wanted, VEX_BLOCK_BYTES), bytes, false);
    (void)pthread_mutex_lock(&files->mutex);
    files->recycling = false;
    bool drop = files->spare == SPARE_READY;
    if (drop) {
        files->spare = SPARE_NONE;
        (void)log->io->ops->unlink(log->io, SPARE_PATH);
    }
    int result = await_locked(log, &request, bytes, true);
    (void)pthread_mutex_unlock(&files->mutex);
    return result;
}

bool log_preparation_failed(struct vex_log *log)
{
    struct log_files *files = &log->files;
    (void)pthread_mutex_lock(&files->mutex);
    bool failed = files->state == PREPARATION_FAILED;
    (void)pthread_mutex_unlock(&files->mutex);
    return failed;
}

uint64_t log_file_bytes_for(const struct vex_log *log, uint64_t batch_bytes, bool small)
{
    uint64_t bytes = VEX_BLOCK_BYTES + batch_bytes + VEX_BLOCK_BYTES;
    uint64_t usual = log->file_bytes_min < SMALLEST_BYTES ? log->file_bytes_min : SMALLEST_BYTES;
    return !small && bytes < usual ? usual : bytes;
}

bool log_preparation_assured(struct vex_log *log)
{
    struct log_files *files = &log->files;
    uint64_t bytes = log_file_bytes_for(log, VEX_BLOCK_BYTES, false);
    (void)pthread_mutex_lock(&files->mutex);
    bool assured = files->state == PREPARATION_RUNNING || is_ready_locked(files, bytes, false);
    (void)pthread_mutex_unlock(&files->mutex);
    return assured;
}

bool log_has_prepared(struct vex_log *log, uint64_t bytes)
{
    struct log_files *files = &log->files;
    (void)pthread_mutex_lock(&files->mutex);
    bool ready = is_ready_locked(files, bytes, false);
    (void)pthread_mutex_unlock(&files->mutex);
    return ready;
}
