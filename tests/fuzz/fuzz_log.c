/*
 * Fuzzes recovery: the input is one or two log files on a disk in memory. Whatever they hold, opening
 * them ends, with the records in order or with an error that leaves every byte as it was. What opens can
 * be opened again with the same records, and takes a new one. The scan says the same as opening, and what
 * is refused as damaged opens after a repair.
 *
 * A checksum stops a fuzzer at the door, so the first byte may ask for some of them to be made right
 * after the bytes are in place, with or without the fields that chain a batch to the one before it.
 * Blocks are mostly zeros: each 128 bytes of input are the beginning of one.
 *
 *   byte 0   flags, below
 *   byte 1   number of blocks of the first file, 0 = there is one file
 *   rest     128 bytes for each block
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/panic.h"
#include "ioengine/log.h"
#include "ioengine/log_scan.h"
#include "ioengine/record.h"
#include "tests/lib/io_memory.h"

#define BLOCK_INPUT 128u
#define BLOCKS_MAX 24u

enum {
    SEAL_FILE_HEADERS = 1,
    CHAIN_FILES = 2, /* first LSN and hash of the second file continue the first */
    SEAL_BATCHES = 4,
    CHAIN_BATCHES = 8,
    MARK_BATCHES = 16, /* every block that is not zero begins like a batch */
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t uuid[VEX_LOG_UUID_BYTES] = "fuzzing instance";
static const struct vex_log_options options = {
    uuid, 3 * VEX_BLOCK_BYTES, 5 * VEX_BLOCK_BYTES, {1, 0, 0}};
static struct vex_io_buffer buffers[VEX_LOG_BUFFERS];

/* ---- making files ---------------------------------------------------------------------------- */

struct chain {
    uint64_t lsn;
    uint64_t hash;
};

static void seal_batches(uint8_t *file, size_t bytes, unsigned flags, struct chain *chain)
{
    struct vex_log_header file_header;
    memcpy(&file_header, file, sizeof(file_header));
    size_t at = VEX_BLOCK_BYTES;
    while (at < bytes) {
        struct vex_batch_header header;
        memcpy(&header, file + at, sizeof(header));
        bool is_zero = header.magic == 0 && header.total_bytes == 0;
        if (flags & MARK_BATCHES && !is_zero) {
            header.magic = VEX_BATCH_MAGIC;
            header.version = VEX_LOG_VERSION;
        }
        size_t total = header.total_bytes / VEX_BLOCK_BYTES * VEX_BLOCK_BYTES;
        if (header.magic != VEX_BATCH_MAGIC || total == 0 || total > bytes - at) {
            at += VEX_BLOCK_BYTES;
            continue;
        }
        if (flags & CHAIN_BATCHES) {
            header.first_lsn = chain->lsn;
            header.previous_hash = chain->hash;
            header.file_number = file_header.file_number;
            header.block = (uint32_t)(at / VEX_BLOCK_BYTES);
            header.total_bytes = (uint32_t)total;
        }
        header.checksum = 0;
        uint64_t head = vex_hash64(&header, sizeof(header), file_header.nonce);
        if (header.total_bytes >= sizeof(header) && header.total_bytes <= bytes - at) {
            header.checksum =
                vex_hash64(file + at + sizeof(header), header.total_bytes - sizeof(header), head);
        }
        memcpy(file + at, &header, sizeof(header));
        chain->lsn = header.first_lsn + header.records_count;
        chain->hash = header.flags & VEX_BATCH_END ? chain->hash : header.checksum;
        at += total;
    }
}

static void seal_file(uint8_t *file, size_t bytes, unsigned flags, uint64_t number,
                      struct chain *chain)
{
    if (flags & SEAL_FILE_HEADERS) {
        struct vex_log_header header;
        memcpy(&header, file, sizeof(header));
        header.magic = VEX_LOG_MAGIC;
        header.version = VEX_LOG_VERSION;
        memcpy(header.uuid, uuid, sizeof(uuid));
        header.file_number = number;
        header.file_bytes = bytes;
        if (flags & CHAIN_FILES) {
            header.first_lsn = chain->lsn;
            header.previous_hash = chain->hash;
        }
        vex_log_header_seal(&header);
        memcpy(file, &header, sizeof(header));
    }
    if (flags & SEAL_BATCHES) {
        seal_batches(file, bytes, flags, chain);
    }
}

static void put_file(struct vex_io *io, const char *path, const uint8_t *data, size_t size,
                     unsigned flags, uint64_t number, struct chain *chain)
{
    size_t blocks = (size + BLOCK_INPUT - 1) / BLOCK_INPUT;
    size_t bytes = blocks * VEX_BLOCK_BYTES;
    uint8_t *file = calloc(1, bytes ? bytes : 1);
    VEX_ASSERT(file);
    for (size_t block = 0; block < blocks; block++) {
        size_t from = block * BLOCK_INPUT;
        size_t some = size - from < BLOCK_INPUT ? size - from : BLOCK_INPUT;
        memcpy(file + block * VEX_BLOCK_BYTES, data + from, some);
    }
    if (bytes) {
        seal_file(file, bytes, flags, number, chain);
    }
    vex_io_memory_put(io, path, file, bytes);
    free(file);
}

static struct vex_io *make_disk(const uint8_t *data, size_t size)
{
    struct vex_io *io = vex_io_memory_open();
    unsigned flags = data[0];
    size_t first = (size_t)data[1] % BLOCKS_MAX * BLOCK_INPUT;
    data += 2;
    size = size - 2 > BLOCKS_MAX * BLOCK_INPUT ? BLOCKS_MAX * BLOCK_INPUT : size - 2;
    first = first == 0 || first > size ? size : first;
    struct chain chain = {.lsn = 1};
    put_file(io, "log/00000001.log", data, first, flags, 1, &chain);
    if (first < size) {
        put_file(io, "log/00000002.log", data + first, size - first, flags, 2, &chain);
    }
    return io;
}

/* ---- pure functions -------------------------------------------------------------------------- */

static uint64_t sum_of(const uint8_t *bytes, size_t count)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        sum += bytes[i];
    }
    return sum;
}

static void walk_records(const uint8_t *batch, size_t bytes)
{
    struct vex_batch_header header;
    memcpy(&header, batch, sizeof(header));
    struct vex_record_cursor cursor;
    vex_record_cursor_init(&cursor, batch);
    uint64_t lsn;
    uint16_t type;
    const uint8_t *body;
    size_t body_bytes;
    uint32_t count = 0;
    while (vex_record_next(&cursor, &lsn, &type, &body, &body_bytes)) {
        VEX_ASSERT(body >= batch && body_bytes <= bytes - (size_t)(body - batch));
        VEX_ASSERT(body_bytes % 8 == 0);
        VEX_ASSERT(lsn == header.first_lsn + count);
        (void)sum_of(body, body_bytes);
        count++;
    }
    VEX_ASSERT(count == header.records_count);
}

/* Every block of a file as a batch, in memory that ends where the file does. */
static void fuzz_batches(struct vex_io *io, const char *path)
{
    size_t bytes = 0;
    const uint8_t *file = vex_io_memory_bytes(io, path, &bytes);
    if (!file || bytes < VEX_BLOCK_BYTES) {
        return;
    }
    struct vex_log_header header;
    memcpy(&header, file, sizeof(header));
    (void)vex_log_header_fault(&header, uuid, 1);
    for (size_t at = VEX_BLOCK_BYTES; at < bytes; at += VEX_BLOCK_BYTES) {
        if (!vex_batch_fault(file + at, bytes - at, header.nonce)) {
            walk_records(file + at, bytes - at);
        }
    }
}

/* ---- the log --------------------------------------------------------------------------------- */

static enum vex_status replay(void *context, uint64_t lsn, uint16_t type, const uint8_t *body,
                              size_t bytes, struct vex_error *error)
{
    (void)type;
    (void)error;
    uint64_t *next = context;
    VEX_ASSERT(lsn == *next);
    VEX_ASSERT(bytes % 8 == 0 && (uintptr_t)body % 8 == 0);
    (void)sum_of(body, bytes);
    (*next)++;
    return VEX_OK;
}

static struct vex_log *open_log(struct vex_io *io, uint64_t *out_records)
{
    struct vex_log *log = NULL;
    struct vex_log_recovery recovery;
    struct vex_error error = {.status = VEX_OK};
    uint64_t next = 1;
    enum vex_status status =
        vex_log_open(io, buffers, &options, replay, &next, &log, &recovery, &error);
    if (status != VEX_OK) {
        VEX_ASSERT(!log && error.status == status && error.message[0]);
        VEX_ASSERT(status == VEX_ERR_CORRUPT || status == VEX_ERR_VERSION);
        return NULL;
    }
    VEX_ASSERT(recovery.last_lsn == next - 1 && recovery.records == next - 1);
    *out_records = next - 1;
    return log;
}

static enum vex_status scan_log(struct vex_io *io, struct vex_log_scan_result *out_result)
{
    struct vex_io *before = vex_io_memory_clone(io);
    uint64_t next = 1;
    const struct vex_log_visitor visitor = {.context = &next, .record = replay};
    enum vex_status status = vex_log_scan(io, uuid, &options.start, &visitor, out_result, NULL);
    VEX_ASSERT(vex_io_memory_equals(io, before));
    VEX_ASSERT((out_result->end == VEX_LOG_END_DAMAGE) == (status == VEX_ERR_CORRUPT));
    vex_io_close(before);
    return status;
}

/* A file of another instance is damage that is not repaired. */
static bool repair_log(struct vex_io *io, const struct vex_log_scan_result *scanned)
{
    struct vex_log_repair_report report;
    enum vex_status status = vex_log_repair(io, uuid, &options.start, &report, NULL);
    VEX_ASSERT(status == VEX_OK || status == VEX_ERR_CORRUPT || status == VEX_ERR_VERSION);
    VEX_ASSERT(status != VEX_OK || report.last_lsn >= scanned->last_lsn);
    return status == VEX_OK;
}

static void fuzz_recovery(struct vex_io *io)
{
    struct vex_io *before = vex_io_memory_clone(io);
    struct vex_log_scan_result scanned;
    enum vex_status verdict = scan_log(io, &scanned);
    uint64_t records = 0;
    struct vex_log *log = open_log(io, &records);
    VEX_ASSERT((log != NULL) == (verdict == VEX_OK));
    if (!log) {
        VEX_ASSERT(vex_io_memory_equals(io, before));
        if (!repair_log(io, &scanned)) {
            vex_io_close(before);
            return;
        }
        log = open_log(io, &records);
        VEX_ASSERT(log);
    }
    vex_io_close(before);
    vex_log_close(log);
    /* Once recovered, there is nothing to recover. */
    struct vex_io *after = vex_io_memory_clone(io);
    uint64_t again = 0;
    log = open_log(io, &again);
    VEX_ASSERT(log && again == records);
    VEX_ASSERT(vex_io_memory_equals(io, after));
    vex_io_close(after);
    static const uint8_t body[24] = "a new record";
    enum vex_status status = vex_log_room(log, sizeof(body), false, NULL);
    VEX_ASSERT(status == VEX_OK);
    (void)vex_log_stage(log, 7, &(struct vex_log_piece){body, sizeof(body)}, 1);
    bool submitted = vex_log_commit(log);
    VEX_ASSERT(submitted);
    (void)vex_log_poll(log, true);
    VEX_ASSERT(vex_log_durable_lsn(log) == records + 1);
    vex_log_close(log);
    log = open_log(io, &again);
    VEX_ASSERT(log && again == records + 1);
    vex_log_close(log);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) {
        return 0;
    }
    if (!buffers[0].memory) {
        enum vex_status status = vex_log_buffers_init(buffers, NULL);
        VEX_ASSERT(status == VEX_OK);
    }
    struct vex_io *io = make_disk(data, size);
    fuzz_batches(io, "log/00000001.log");
    fuzz_batches(io, "log/00000002.log");
    fuzz_recovery(io);
    vex_io_close(io);
    return 0;
}
