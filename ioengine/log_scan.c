/*
 * The walk over the log: every batch of every file in order, and what stands where it ends.
 *
 * Each file begins with a sound header that continues the file before it; each batch continues the
 * batch before it (LSN, checksum chain, place). Where that ends, the bytes are judged by what the
 * writer does: one batch is in flight at a time, a file gets its end mark when the next one is
 * durably there, and no batch is written to that one before. So:
 *
 *  - A sound batch of this file's life further on, or records in the next file, prove that what
 *    stands here had been completed: acknowledged data is damaged.
 *  - Nothing of the kind: this is the end of the log. What stands here may be zeros, bytes of the
 *    file's earlier life (another nonce: they never validate), or part of a batch that was being
 *    written, which was not acknowledged. The last is known by its header.
 *
 * What this cannot see is damage at rest to the very last batch of all. The watermark written a
 * moment after the last acknowledgement narrows that to bursts that no watermark followed.
 *
 * Nothing is changed here. FORMAT.md has the table of cases.
 */
#include "ioengine/log_scan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "ioengine/log_priv.h"

/* ---- which files there are ------------------------------------------------------------------- */

struct listing {
    struct log_scan *scan;
    bool out_of_memory;
};

static uint64_t first_kept(const struct vex_log_start *start)
{
    return start->kept_file && start->kept_file < start->file_number ? start->kept_file
                                                                     : start->file_number;
}

static void note_file(void *context, const char *name)
{
    struct listing *listing = context;
    struct log_scan *scan = listing->scan;
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
    uint64_t entry = number;
    bool leftover = scan->start.file_number == 0 || number < first_kept(&scan->start);
    struct vex_buffer *list = leftover ? &scan->leftovers : &scan->numbers;
    listing->out_of_memory |= !vex_buffer_append(list, &entry, sizeof(entry));
    if (!leftover && number > scan->last_number) {
        scan->last_number = number;
    }
}

static enum vex_status failed(struct log_scan *scan, int os_errno, const char *what)
{
    return vex_error_os(scan->error, vex_status_from_errno(os_errno), os_errno, "%s %s", what,
                        scan->path);
}

static enum vex_status list_files(struct log_scan *scan)
{
    struct listing listing = {scan, false};
    int result = scan->io->ops->list(scan->io, VEX_LOG_DIRECTORY, note_file, &listing);
    if (result < 0 && result != -ENOENT) {
        return failed(scan, -result, "list");
    }
    return listing.out_of_memory
               ? vex_error_set(scan->error, VEX_ERR_NOMEM, "log: no memory for its list of files")
               : VEX_OK;
}

/* ---- verdicts -------------------------------------------------------------------------------- */

static enum vex_status damaged(struct log_scan *scan, enum log_damage damage,
                               const struct log_position *at, const char *what)
{
    scan->damage = damage;
    scan->damage_at = *at;
    char path[LOG_PATH_MAX];
    log_file_path(path, at->file_number);
    return vex_error_set(scan->error, VEX_ERR_CORRUPT, "%s: offset %llu, at LSN %llu: %s%s", path,
                         (unsigned long long)at->offset, (unsigned long long)at->next_lsn, what,
                         scan->remedy ? scan->remedy : "");
}

/* ---- one file -------------------------------------------------------------------------------- */

static enum vex_status reserve_data(struct log_scan *scan, uint64_t bytes)
{
    if (bytes <= scan->data_capacity) {
        return VEX_OK;
    }
    free(scan->data);
    scan->data = NULL;
    scan->data_capacity = 0;
    void *data = NULL;
    if (posix_memalign(&data, VEX_BLOCK_BYTES, bytes) != 0) {
        return vex_error_set(scan->error, VEX_ERR_NOMEM, "%s: no memory for %llu bytes", scan->path,
                             (unsigned long long)bytes);
    }
    scan->data = data;
    scan->data_capacity = bytes;
    return VEX_OK;
}

static enum vex_status read_open_file(struct log_scan *scan, const struct vex_file *file)
{
    struct vex_io *io = scan->io;
    /* What decides about acknowledged data must itself be on disk, not just in a cache that the
     * crashed daemon left. */
    int result = io->ops->sync(io, file);
    uint64_t bytes = 0;
    result = result < 0 ? result : io->ops->size(io, file, &bytes);
    if (result < 0) {
        return failed(scan, -result, "sync and size");
    }
    scan->data_bytes = 0;
    enum vex_status status = reserve_data(scan, vex_round_up(bytes, VEX_BLOCK_BYTES));
    if (status != VEX_OK) {
        return status;
    }
    /* Direct I/O reads whole blocks. What a file that was cut holds of its last one is not needed. */
    uint64_t whole = bytes - bytes % VEX_BLOCK_BYTES;
    int64_t got = whole ? io->ops->read(io, file, scan->data, whole, 0) : 0;
    if (got != (int64_t)whole) {
        return failed(scan, got < 0 ? (int)-got : EIO, "read");
    }
    if (whole < bytes) {
        memset(scan->data + whole, 0, VEX_BLOCK_BYTES);
    }
    scan->data_bytes = bytes;
    return VEX_OK;
}

enum vex_status log_scan_read_file(struct log_scan *scan, uint64_t file_number)
{
    struct vex_io *io = scan->io;
    log_file_path(scan->path, file_number);
    struct vex_file file;
    int result = io->ops->open_file(io, scan->path, VEX_FILE_READ, &file);
    if (result == -ENOENT) {
        return VEX_ERR_NOT_FOUND;
    }
    if (result < 0) {
        return failed(scan, -result, "open");
    }
    enum vex_status status = read_open_file(scan, &file);
    io->ops->close_file(io, &file);
    return status;
}

/* ---- batches --------------------------------------------------------------------------------- */

static struct vex_batch_header batch_at(const struct log_scan *scan, uint64_t offset)
{
    struct vex_batch_header header;
    memcpy(&header, scan->data + offset, sizeof(header));
    return header;
}

static uint64_t block_of(uint64_t offset)
{
    return offset / VEX_BLOCK_BYTES;
}

/* True if a sound batch of this file's life, written where it stands, lies at `offset`. */
static bool is_sound_batch(const struct log_scan *scan, uint64_t file_number, uint64_t nonce,
                           uint64_t offset)
{
    struct vex_batch_header header = batch_at(scan, offset);
    return header.file_number == file_number && header.block == block_of(offset) &&
           !vex_batch_fault(scan->data + offset, scan->data_bytes - offset, nonce);
}

/* True if such a batch lies anywhere behind the end of the walk: proof that what stands there had been
 * completed, since one batch is in flight at a time. Its LSN does not matter: a watermark takes none, so
 * what is behind a damaged one may have the LSN that is next here. */
static bool anything_sound_follows(const struct log_scan *scan)
{
    const struct log_position *at = &scan->at;
    for (uint64_t offset = at->offset + VEX_BLOCK_BYTES; offset < scan->data_bytes;
         offset += VEX_BLOCK_BYTES) {
        if (is_sound_batch(scan, at->file_number, at->nonce, offset)) {
            return true;
        }
    }
    return false;
}

uint64_t log_scan_highest_lsn(const struct log_scan *scan, uint64_t file_number, uint64_t nonce,
                              uint64_t offset)
{
    uint64_t highest = 0;
    for (; offset < scan->data_bytes; offset += VEX_BLOCK_BYTES) {
        if (!is_sound_batch(scan, file_number, nonce, offset)) {
            continue;
        }
        struct vex_batch_header header = batch_at(scan, offset);
        uint64_t last = header.first_lsn + header.records_count - 1;
        last = last < header.durable_lsn ? header.durable_lsn : last;
        highest = last > highest ? last : highest;
    }
    return highest;
}

/* The beginning of a batch that was to continue the log here. Its first sector has reached the disk,
 * others have not. */
static bool looks_torn(const struct log_scan *scan)
{
    const struct log_position *at = &scan->at;
    struct vex_batch_header header = batch_at(scan, at->offset);
    return header.magic == VEX_BATCH_MAGIC && header.version == VEX_LOG_VERSION &&
           header.file_number == at->file_number && header.block == block_of(at->offset) &&
           header.first_lsn == at->next_lsn && header.previous_hash == at->previous_hash;
}

static bool is_zero_block(const uint8_t *block)
{
    return block[0] == 0 && memcmp(block, block + 1, VEX_BLOCK_BYTES - 1) == 0;
}

/* NULL if the batch where the walk stands is sound and continues the chain. Tearing cannot make a batch
 * that is sound in its place: *out_sound tells these apart. A sound one that belongs elsewhere is a copy,
 * from inside a record of a torn batch. */
static const char *batch_fault(const struct log_scan *scan, bool *out_sound)
{
    const struct log_position *at = &scan->at;
    *out_sound = false;
    const char *fault =
        vex_batch_fault(scan->data + at->offset, scan->data_bytes - at->offset, at->nonce);
    if (fault) {
        return fault;
    }
    if (!is_sound_batch(scan, at->file_number, at->nonce, at->offset)) {
        return "batch of another place";
    }
    *out_sound = true;
    struct vex_batch_header header = batch_at(scan, at->offset);
    if (header.first_lsn != at->next_lsn) {
        return "batch does not continue the LSNs before it";
    }
    if (header.previous_hash != at->previous_hash) {
        return "batch does not continue the batch before it";
    }
    if (!(header.flags & VEX_BATCH_END) &&
        header.total_bytes > scan->data_bytes - VEX_BLOCK_BYTES - at->offset) {
        return "batch in the block that is kept for the end mark";
    }
    return NULL;
}

static enum vex_status visit_records(struct log_scan *scan)
{
    const struct vex_log_visitor *visitor = scan->visitor;
    struct vex_record_cursor cursor;
    vex_record_cursor_init(&cursor, scan->data + scan->at.offset);
    uint64_t lsn;
    uint16_t type;
    const uint8_t *body;
    size_t bytes;
    while (visitor->record && vex_record_next(&cursor, &lsn, &type, &body, &bytes)) {
        enum vex_status status =
            visitor->record(visitor->context, lsn, type, body, bytes, scan->error);
        if (status != VEX_OK) {
            return vex_error_wrap(scan->error, status, "%s: offset %llu, LSN %llu", scan->path,
                                  (unsigned long long)scan->at.offset, (unsigned long long)lsn);
        }
    }
    return VEX_OK;
}

static enum vex_status visit_batch(struct log_scan *scan, const struct vex_batch_header *header)
{
    const struct vex_log_visitor *visitor = scan->visitor;
    const struct vex_log_batch batch = {
        .file_number = header->file_number,
        .offset = scan->at.offset,
        .bytes = header->total_bytes,
        .first_lsn = header->first_lsn,
        .records_count = header->records_count,
        .durable_lsn = header->durable_lsn,
        .checksum = header->checksum,
        .flags = header->flags,
    };
    enum vex_status status =
        visitor->batch ? visitor->batch(visitor->context, &batch, scan->error) : VEX_OK;
    return status == VEX_OK ? visit_records(scan) : status;
}

/* Goes past a batch that continues the log. */
static void step(struct log_scan *scan, const struct vex_batch_header *header)
{
    struct log_position *at = &scan->at;
    at->batches++;
    at->next_lsn += header->records_count;
    scan->proven_lsn = header->durable_lsn;
    scan->clean = (header->flags & VEX_BATCH_CLEAN) != 0;
    scan->batches++;
    scan->records += header->records_count;
    scan->record_bytes += header->payload_bytes;
    if (header->records_count && at->next_lsn - 1 > scan->start.lsn) {
        scan->replay_bytes += header->total_bytes;
    }
    if (header->flags & VEX_BATCH_END) {
        at->ended = true;
        return;
    }
    at->previous_hash = header->checksum;
    at->offset += header->total_bytes;
}

/* What stands where no batch continues the log. */
static enum vex_status judge_end(struct log_scan *scan, const char *fault, bool is_sound)
{
    const struct log_position *at = &scan->at;
    if (is_sound || anything_sound_follows(scan)) {
        return damaged(scan, LOG_DAMAGE_BATCH, at, fault);
    }
    if (at->file_number != scan->last_number) {
        /* Left so by a crash while switching: then the next file is the last, and empty. */
        return at->file_number + 1 == scan->last_number
                   ? VEX_OK
                   : damaged(scan, LOG_DAMAGE_END_MARK, at, "end mark missing");
    }
    if (at->next_lsn <= scan->start.lsn) {
        return damaged(scan, LOG_DAMAGE_SHORT, at, "the log ends before the checkpoint");
    }
    scan->torn = looks_torn(scan);
    scan->dirty = !is_zero_block(scan->data + at->offset);
    scan->clean = scan->clean && !scan->torn;
    return VEX_OK;
}

static enum vex_status walk_batches(struct log_scan *scan)
{
    struct log_position *at = &scan->at;
    while (!at->ended) {
        bool is_sound = false;
        const char *fault = batch_fault(scan, &is_sound);
        if (fault) {
            return judge_end(scan, fault, is_sound);
        }
        if (at->batches == 0 && scan->before.file_number && !scan->before.ended) {
            return damaged(scan, LOG_DAMAGE_END_MARK, &scan->before, "end mark missing");
        }
        struct vex_batch_header header = batch_at(scan, at->offset);
        enum vex_status status = visit_batch(scan, &header);
        if (status != VEX_OK) {
            return status;
        }
        step(scan, &header);
    }
    return at->file_number == scan->last_number
               ? damaged(scan, LOG_DAMAGE_SUCCESSOR, at, "the log file after this one is missing")
               : VEX_OK;
}

/* ---- files ----------------------------------------------------------------------------------- */

/* Puts the walk in front of a file that has not been looked at yet. */
static void enter_file(struct log_scan *scan, uint64_t number)
{
    scan->before = scan->at;
    scan->at.file_number = number;
    scan->at.offset = 0;
    scan->at.batches = 0;
    scan->at.ended = false;
}

/* True if the file does not continue the one before. The first one is compared with the start. */
static bool breaks_off(const struct log_scan *scan, const struct vex_log_header *header)
{
    return scan->before.file_number
               ? header->first_lsn != scan->at.next_lsn ||
                     header->previous_hash != scan->at.previous_hash
               : header->first_lsn == 0 || header->first_lsn > scan->start.lsn + 1;
}

static enum vex_status check_header(struct log_scan *scan)
{
    struct log_position *at = &scan->at;
    if (scan->data_bytes < VEX_BLOCK_BYTES) {
        return damaged(scan, LOG_DAMAGE_FILE, at, "the file has been cut to an impossible size");
    }
    struct vex_log_header header;
    memcpy(&header, scan->data, sizeof(header));
    const char *fault = vex_log_header_fault(&header, scan->uuid, at->file_number);
    if (fault && vex_log_header_is_whole(&header) && header.version != VEX_LOG_VERSION) {
        return vex_error_set(scan->error, VEX_ERR_VERSION,
                             "%s: log format version %u, this program reads %u: use the version "
                             "that wrote it",
                             scan->path, header.version, VEX_LOG_VERSION);
    }
    if (fault) {
        bool foreign = vex_log_header_is_whole(&header) &&
                       memcmp(header.uuid, scan->uuid, sizeof(header.uuid)) != 0;
        return damaged(scan, foreign ? LOG_DAMAGE_FOREIGN : LOG_DAMAGE_FILE, at, fault);
    }
    if (header.file_bytes != scan->data_bytes) {
        return damaged(scan,
                       scan->data_bytes < header.file_bytes ? LOG_DAMAGE_LENGTH : LOG_DAMAGE_FILE,
                       at, "file size differs from the one in its header");
    }
    if (breaks_off(scan, &header)) {
        /* Without an end mark it is the file before that has lost something. */
        bool lost = scan->before.file_number && !scan->before.ended;
        return damaged(scan, LOG_DAMAGE_FILE, lost ? &scan->before : at,
                       lost ? "the log breaks off here, but there is a later file"
                            : "file does not continue the log before it");
    }
    at->file_bytes = header.file_bytes;
    at->nonce = header.nonce;
    at->next_lsn = header.first_lsn;
    at->previous_hash = header.previous_hash;
    at->offset = VEX_BLOCK_BYTES;
    return VEX_OK;
}

static enum vex_status visit_file(struct log_scan *scan)
{
    struct vex_log_header header;
    memcpy(&header, scan->data, sizeof(header));
    const struct log_file_entry entry = {header.file_number, header.file_bytes};
    if (!vex_buffer_append(&scan->entries, &entry, sizeof(entry))) {
        return vex_error_set(scan->error, VEX_ERR_NOMEM, "log: no memory for its list of files");
    }
    if (!scan->visitor->file) {
        return VEX_OK;
    }
    const struct vex_log_file file = {
        .number = header.file_number,
        .bytes = header.file_bytes,
        .first_lsn = header.first_lsn,
        .previous_hash = header.previous_hash,
        .nonce = header.nonce,
        .created_ms = header.created_ms,
    };
    return scan->visitor->file(scan->visitor->context, &file, scan->error);
}

static enum vex_status walk_file(struct log_scan *scan, uint64_t number)
{
    enter_file(scan, number);
    enum vex_status status = log_scan_read_file(scan, number);
    if (status == VEX_ERR_NOT_FOUND) {
        return damaged(scan, LOG_DAMAGE_FILE, &scan->at,
                       number > scan->last_number
                           ? "the file is missing"
                           : "the file is missing, but later ones are there");
    }
    status = status == VEX_OK ? check_header(scan) : status;
    status = status == VEX_OK ? visit_file(scan) : status;
    return status == VEX_OK ? walk_batches(scan) : status;
}

/* A file that only an older checkpoint needs: its size, for the books. Whether it is sound shows if that
 * checkpoint is ever used; one that is gone is not missed before. */
static enum vex_status note_unread(struct log_scan *scan, uint64_t number)
{
    struct vex_io *io = scan->io;
    struct log_file_entry entry = {.number = number};
    struct vex_file file;
    log_file_path(scan->path, number);
    int result = io->ops->open_file(io, scan->path, VEX_FILE_READ, &file);
    if (result == -ENOENT) {
        return VEX_OK;
    }
    if (result == 0) {
        result = io->ops->size(io, &file, &entry.bytes);
        io->ops->close_file(io, &file);
    }
    if (result < 0) {
        return failed(scan, -result, "size");
    }
    return vex_buffer_append(&scan->entries, &entry, sizeof(entry))
               ? VEX_OK
               : vex_error_set(scan->error, VEX_ERR_NOMEM, "log: out of memory");
}

/* There is no log yet: files may be there that a crash left while the first one was made, but nothing
 * can have been written to them. */
static enum vex_status expect_nothing(struct log_scan *scan)
{
    for (size_t i = 0; i < scan->leftovers.bytes / sizeof(uint64_t); i++) {
        uint64_t number = vex_load_u64(scan->leftovers.data + i * sizeof(uint64_t));
        enter_file(scan, number);
        enum vex_status status = log_scan_read_file(scan, number);
        if (status != VEX_OK) {
            return status == VEX_ERR_NOT_FOUND ? failed(scan, ENOENT, "open") : status;
        }
        struct vex_log_header header = {0};
        const char *fault = "the file has been cut to an impossible size";
        if (scan->data_bytes >= sizeof(header)) {
            memcpy(&header, scan->data, sizeof(header));
            fault = vex_log_header_fault(&header, scan->uuid, number);
        }
        if (fault) {
            return damaged(scan, LOG_DAMAGE_FOREIGN, &scan->at, fault);
        }
        scan->at.offset = VEX_BLOCK_BYTES;
        if (log_scan_highest_lsn(scan, number, header.nonce, VEX_BLOCK_BYTES)) {
            return damaged(scan, LOG_DAMAGE_FOREIGN, &scan->at,
                           "there should be no log yet, but this file holds batches");
        }
    }
    scan->at = (struct log_position){.next_lsn = scan->start.lsn + 1};
    return VEX_OK;
}

enum vex_status log_scan_run(struct log_scan *scan)
{
    static const struct vex_log_visitor nobody = {0};
    scan->visitor = scan->visitor ? scan->visitor : &nobody;
    memcpy(scan->path, VEX_LOG_DIRECTORY, sizeof(VEX_LOG_DIRECTORY));
    scan->at.next_lsn = scan->start.lsn + 1;
    enum vex_status status = list_files(scan);
    if (status != VEX_OK || scan->start.file_number == 0) {
        return status == VEX_OK ? expect_nothing(scan) : status;
    }
    uint64_t number = scan->start.file_number;
    if (scan->last_number < number) {
        number = first_kept(&scan->start);
    }
    for (uint64_t kept = first_kept(&scan->start); status == VEX_OK && kept < number; kept++) {
        status = note_unread(scan, kept);
    }
    while (status == VEX_OK) {
        status = walk_file(scan, number);
        if (number++ >= scan->last_number) {
            break;
        }
    }
    return status;
}

void log_scan_deinit(struct log_scan *scan)
{
    free(scan->data);
    scan->data = NULL;
    vex_buffer_deinit(&scan->numbers);
    vex_buffer_deinit(&scan->leftovers);
    vex_buffer_deinit(&scan->entries);
}

/* ---- for tools ------------------------------------------------------------------------------- */

enum vex_status vex_log_scan(struct vex_io *io, const uint8_t *uuid,
                             const struct vex_log_start *start,
                             const struct vex_log_visitor *visitor,
                             struct vex_log_scan_result *out_result, struct vex_error *error)
{
    struct log_scan scan = {
        .io = io, .uuid = uuid, .start = *start, .visitor = visitor, .error = error};
    enum vex_status status = log_scan_run(&scan);
    const struct log_position *at = scan.damage ? &scan.damage_at : &scan.at;
    *out_result = (struct vex_log_scan_result){
        .end = scan.damage ? VEX_LOG_END_DAMAGE
               : scan.torn ? VEX_LOG_END_TORN
                           : VEX_LOG_END_WHOLE,
        .file_number = at->file_number,
        .offset = at->offset,
        .last_lsn = at->next_lsn - 1,
        .files = scan.entries.bytes / sizeof(struct log_file_entry),
        .batches = scan.batches,
        .records = scan.records,
        .clean = scan.clean,
    };
    log_scan_deinit(&scan);
    return status;
}
