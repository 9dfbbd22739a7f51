#include "ioengine/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/panic.h"
#include "ioengine/log_priv.h"

#define FILE_BYTES_MIN (4u << 20)
#define FILE_BYTES_MAX (64u << 20)
#define FILE_BYTES_LIMIT ((uint64_t)1 << 40) /* a batch counts its blocks in 32 bits */
#define LEFT_BYTES_MAX (1u << 20)
#define WRITE_ATTEMPTS_MAX 16u
#define WRITE_PAUSE_NS 1000000

enum vex_status vex_log_buffers_init(struct vex_io_buffer buffers[VEX_LOG_BUFFERS],
                                     struct vex_error *error)
{
    for (unsigned i = 0; i < VEX_LOG_BUFFERS; i++) {
        /* Untouched pages cost nothing: most batches are small. */
        void *memory = mmap(NULL, VEX_LOG_BUFFER_BYTES, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) {
            while (i-- > 0) {
                (void)munmap(buffers[i].memory, VEX_LOG_BUFFER_BYTES);
            }
            return vex_error_os(error, VEX_ERR_NOMEM, errno, "log buffers");
        }
        buffers[i] = (struct vex_io_buffer){memory, VEX_LOG_BUFFER_BYTES};
    }
    return VEX_OK;
}

void vex_log_buffers_deinit(struct vex_io_buffer buffers[VEX_LOG_BUFFERS])
{
    for (unsigned i = 0; i < VEX_LOG_BUFFERS; i++) {
        if (buffers[i].memory) {
            (void)munmap(buffers[i].memory, buffers[i].bytes);
        }
        buffers[i] = (struct vex_io_buffer){0};
    }
}

static uint64_t file_bytes_option(uint64_t bytes, uint64_t otherwise)
{
    const uint64_t least = VEX_LOG_FILE_BLOCKS_MIN * VEX_BLOCK_BYTES;
    bytes = bytes ? bytes : otherwise;
    bytes = bytes < least ? least : bytes;
    return bytes > FILE_BYTES_LIMIT ? FILE_BYTES_LIMIT : vex_round_up(bytes, VEX_BLOCK_BYTES);
}

enum vex_status vex_log_open(struct vex_io *io, const struct vex_io_buffer buffers[VEX_LOG_BUFFERS],
                             const struct vex_log_options *options, vex_log_replay replay,
                             void *context, struct vex_log **out_log,
                             struct vex_log_recovery *out_recovery, struct vex_error *error)
{
    *out_log = NULL;
    void *page = NULL;
    struct vex_log *log = calloc(1, sizeof(*log));
    if (!log || posix_memalign(&page, VEX_BLOCK_BYTES, VEX_BLOCK_BYTES) != 0) {
        free(log);
        return vex_error_set(error, VEX_ERR_NOMEM, "log: out of memory");
    }
    log->io = io;
    log->file.fd = -1;
    log->page = page;
    memcpy(log->uuid, options->uuid, sizeof(log->uuid));
    log->file_bytes_min = file_bytes_option(options->file_bytes_min, FILE_BYTES_MIN);
    log->file_bytes_max = file_bytes_option(options->file_bytes_max, FILE_BYTES_MAX);
    for (unsigned i = 0; i < VEX_LOG_BUFFERS; i++) {
        log->buffers[i] = buffers[i].memory;
    }
    log_files_init(&log->files);
    enum vex_status status =
        log_recover(log, &options->start, replay, context, out_recovery, error);
    if (status != VEX_OK) {
        vex_log_close(log);
        return status;
    }
    *out_log = log;
    return VEX_OK;
}

void vex_log_close(struct vex_log *log)
{
    if (!log) {
        return;
    }
    while (log->in_flight) {
        (void)vex_log_poll(log, true);
    }
    log_files_deinit(log);
    log->io->ops->close_file(log->io, &log->file);
    free(log->page);
    free(log);
}

/* ---- staging --------------------------------------------------------------------------------- */

static uint64_t batch_bytes(size_t records_bytes)
{
    return vex_round_up(sizeof(struct vex_batch_header) + records_bytes, VEX_BLOCK_BYTES);
}

/* Where the open batch will be written, given that the one in flight comes first. */
static uint64_t offset_after_flight(const struct vex_log *log)
{
    return log->file_offset + (log->in_flight ? log->flight_bytes : 0);
}

/* How far batches may go in the current file: its last block is kept for the end mark. */
static uint64_t file_limit(const struct vex_log *log)
{
    return log->rotate ? 0 : log->file_bytes - VEX_BLOCK_BYTES;
}

static bool open_batch_needs_new_file(const struct vex_log *log)
{
    return offset_after_flight(log) + batch_bytes(log->open_bytes) > file_limit(log);
}

/* What is kept at the end of the current file for records that give space back, as long as no other
 * file is assured. A file that came out smaller than wanted, on a full disk, is kept whole. */
static uint64_t left_bytes(const struct vex_log *log)
{
    if (log->file_bytes < log->file_bytes_min) {
        return log->file_bytes;
    }
    uint64_t bytes = log->file_bytes / 8 / VEX_BLOCK_BYTES * VEX_BLOCK_BYTES;
    return bytes < LEFT_BYTES_MAX ? bytes : LEFT_BYTES_MAX;
}

/* A batch that ends at `end` in the current file uses what is left for others. */
static bool uses_what_is_left(struct vex_log *log, uint64_t end)
{
    return end + left_bytes(log) > file_limit(log) && !log_preparation_assured(log);
}

enum vex_status vex_log_room(struct vex_log *log, size_t body_bytes, bool small,
                             struct vex_error *error)
{
    if (log->failure) {
        return vex_error_os(error, VEX_ERR_READ_ONLY, log->failure,
                            "the log failed and takes no more writes until a restart");
    }
    size_t records_bytes = log->open_bytes + sizeof(struct vex_record_header) + body_bytes;
    uint64_t bytes = batch_bytes(records_bytes);
    if (body_bytes > VEX_LOG_BUFFER_BYTES || bytes > VEX_LOG_BUFFER_BYTES) {
        return log->open_records
                   ? VEX_ERR_BUSY
                   : vex_error_set(error, VEX_ERR_LIMIT,
                                   "a record of %zu bytes is too large for the log", body_bytes);
    }
    uint64_t end = offset_after_flight(log) + bytes;
    if (end <= file_limit(log)) {
        if (small || !uses_what_is_left(log, end)) {
            return VEX_OK;
        }
        /* Rather than waiting here, take it that the first attempt will succeed. */
        log_prepare(log);
        if (log_preparation_assured(log)) {
            return VEX_OK;
        }
    }
    uint64_t needed = log_file_bytes_for(log, bytes, small);
    if (log->open_records && open_batch_needs_new_file(log) && !log_has_prepared(log, needed)) {
        /* What is staged relies on the file that is prepared: it is not given up for a larger one. */
        return VEX_ERR_BUSY;
    }
    int failure = log_await_prepared(log, needed, small);
    if (failure < 0) {
        return vex_error_os(error, vex_status_from_errno(-failure), -failure,
                            "no new log file could be prepared, the write was refused");
    }
    return VEX_OK;
}

bool vex_log_rotate(struct vex_log *log)
{
    if (log->failure) {
        return false;
    }
    if (log->open_records && open_batch_needs_new_file(log)) {
        return false;
    }
    uint64_t bytes = log_file_bytes_for(log, batch_bytes(log->open_bytes), false);
    if (log_await_fresh(log, bytes) < 0) {
        return false;
    }
    log->rotate = true;
    return true;
}

uint64_t vex_log_stage(struct vex_log *log, uint16_t type, const struct vex_log_piece *pieces,
                       size_t pieces_count)
{
    uint8_t *start = log->buffers[log->open] + sizeof(struct vex_batch_header) + log->open_bytes;
    uint8_t *at = start + sizeof(struct vex_record_header);
    for (size_t i = 0; i < pieces_count; i++) {
        VEX_ASSERT(at + pieces[i].bytes <= log->buffers[log->open] + VEX_LOG_BUFFER_BYTES);
        memcpy(at, pieces[i].data, pieces[i].bytes);
        at += pieces[i].bytes;
    }
    size_t body_bytes = (size_t)(at - start) - sizeof(struct vex_record_header);
    VEX_ASSERT(body_bytes % 8 == 0 && body_bytes <= UINT32_MAX);
    struct vex_record_header header = {(uint32_t)body_bytes, type, 0};
    memcpy(start, &header, sizeof(header));
    log->open_bytes += sizeof(header) + body_bytes;
    log->open_records++;
    return log->next_lsn++;
}

/* ---- committing ------------------------------------------------------------------------------ */

static void latch(struct vex_log *log, int os_errno)
{
    log->failure = os_errno ? os_errno : EIO;
    log->in_flight = false;
}

static void submit_flight(struct vex_log *log)
{
    int result = log->io->ops->submit(log->io, &log->file, log->flight_data + log->flight_done,
                                      log->flight_bytes - log->flight_done,
                                      log->file_offset + log->flight_done);
    if (result < 0) {
        latch(log, -result);
    }
}

static bool seal_and_submit(struct vex_log *log, uint16_t flags)
{
    uint64_t bytes = batch_bytes(log->open_bytes);
    if (log->file_offset + bytes > file_limit(log)) {
        int failure = log_switch_file(log);
        if (failure < 0) {
            latch(log, -failure);
            return true;
        }
    }
    struct vex_batch_header *header = (struct vex_batch_header *)(void *)log->buffers[log->open];
    *header = (struct vex_batch_header){
        .flags = flags,
        .first_lsn = log->next_lsn - log->open_records,
        .records_count = log->open_records,
        .block = (uint32_t)(log->file_offset / VEX_BLOCK_BYTES),
        .previous_hash = log->previous_hash,
        .durable_lsn = log->durable_lsn,
        .file_number = log->file_number,
    };
    log->flight_bytes = vex_batch_seal(header, log->open_bytes, log->nonce);
    log->typical_batch_bytes = (7 * log->typical_batch_bytes + log->flight_bytes) / 8;
    log->flight_data = log->buffers[log->open];
    log->flight_done = 0;
    log->flight_attempts = 0;
    log->previous_hash = header->checksum;
    log->submitted_lsn = log->next_lsn - 1;
    log->proven_lsn = log->durable_lsn;
    log->records += log->open_records;
    log->record_bytes += log->open_bytes;
    log->batch_bytes += log->flight_bytes;
    log->open = (log->open + 1) % VEX_LOG_BUFFERS;
    log->open_bytes = 0;
    log->open_records = 0;
    log->in_flight = true;
    submit_flight(log);
    if (log->file_offset + log->flight_bytes > log->file_bytes / 2) {
        log_prepare(log);
    }
    return true;
}

bool vex_log_commit(struct vex_log *log)
{
    if (log->in_flight || log->failure || log->open_records == 0) {
        return false;
    }
    return seal_and_submit(log, 0);
}

bool vex_log_needs_watermark(const struct vex_log *log)
{
    return !log->failure && log->proven_lsn < log->durable_lsn;
}

bool vex_log_watermark(struct vex_log *log, bool clean)
{
    if (log->in_flight || log->failure || log->open_records) {
        return false;
    }
    if (!clean && !vex_log_needs_watermark(log)) {
        return false;
    }
    /* A watermark is a courtesy: it is left out where it would take the last of the space. */
    uint64_t end = log->file_offset + VEX_BLOCK_BYTES;
    if (!clean && log_preparation_failed(log) && uses_what_is_left(log, end)) {
        return false;
    }
    if (end > file_limit(log) &&
        (log_preparation_failed(log) ||
         log_await_prepared(log, log_file_bytes_for(log, VEX_BLOCK_BYTES, true), true) < 0)) {
        return false;
    }
    return seal_and_submit(log, (uint16_t)(VEX_BATCH_WATERMARK | (clean ? VEX_BATCH_CLEAN : 0)));
}

/* True if the batch is over, one way or the other. */
static bool take_result(struct vex_log *log, int64_t result)
{
    if (result == -EINTR || result == -EAGAIN || result >= 0) {
        size_t left = log->flight_bytes - log->flight_done;
        if (result > 0 && (size_t)result == left) {
            log->in_flight = false;
            log->file_offset += log->flight_bytes;
            log->durable_lsn = log->submitted_lsn;
            log->commits++;
            return true;
        }
        size_t progress = result > 0 ? (size_t)result & ~(size_t)(VEX_BLOCK_BYTES - 1) : 0;
        if (progress) {
            log->flight_attempts = 0;
            /* Direct I/O goes on at a block boundary; writing the same bytes again is harmless. */
            log->flight_done += progress;
        }
        if (++log->flight_attempts < WRITE_ATTEMPTS_MAX) {
            if (result == -EAGAIN) {
                /* The device's queue is full: at once again is at once refused again. */
                (void)nanosleep(&(struct timespec){0, WRITE_PAUSE_NS}, NULL);
            }
            submit_flight(log);
            return log->failure != 0;
        }
        result = result < 0 ? result : -EIO;
    }
    latch(log, (int)-result);
    return true;
}

bool vex_log_poll(struct vex_log *log, bool wait)
{
    while (log->in_flight) {
        int64_t result = 0;
        int reaped = log->io->ops->reap(log->io, wait, &result);
        if (reaped < 0) {
            latch(log, -reaped);
            return true;
        }
        if (reaped == 0) {
            return false;
        }
        if (take_result(log, result)) {
            return true;
        }
    }
    return false;
}

/* ---- state ----------------------------------------------------------------------------------- */

bool vex_log_in_flight(const struct vex_log *log)
{
    return log->in_flight;
}

bool vex_log_has_staged(const struct vex_log *log)
{
    return log->open_records > 0;
}

uint64_t vex_log_next_lsn(const struct vex_log *log)
{
    return log->next_lsn;
}

uint64_t vex_log_durable_lsn(const struct vex_log *log)
{
    return log->durable_lsn;
}

uint64_t vex_log_submitted_lsn(const struct vex_log *log)
{
    return log->submitted_lsn;
}

int vex_log_failure(const struct vex_log *log)
{
    return log->failure;
}

uint64_t vex_log_file_number(const struct vex_log *log)
{
    return log->file_number;
}

void vex_log_get_counters(struct vex_log *log, struct vex_log_counters *out)
{
    (void)pthread_mutex_lock(&log->files.mutex);
    uint64_t file_bytes = log->files.bytes;
    uint64_t zeroed_bytes = log->files.zeroed_bytes;
    (void)pthread_mutex_unlock(&log->files.mutex);
    *out = (struct vex_log_counters){
        .commits = log->commits,
        .records = log->records,
        .record_bytes = log->record_bytes,
        .file_bytes = file_bytes,
        .batch_bytes = log->batch_bytes,
        .replay_bytes = log->replay_bytes,
        .zeroed_bytes = zeroed_bytes,
    };
}
