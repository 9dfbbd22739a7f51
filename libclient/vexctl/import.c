/*
 * The two passes of an import.
 *
 * A batch holds at most BATCH_BYTES of data unless --batch says otherwise: large enough that the
 * commit it waits for is a small part of its time, small enough that progress is visible and an
 * interruption loses little.
 */
#include "libclient/vexctl/import.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>

#include "libclient/vexctl/context.h"
#include "libclient/vexctl/fault.h"
#include "libclient/vexctl/file.h"
#include "libclient/vexctl/progress.h"

#define BATCH_BYTES (4u << 20)

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    interrupted = 1;
}

/* The rows of one batch, whatever file their parts come from. */
struct batch {
    struct vex_reader_rows rows;
    uint64_t *ids; /* made here if the file has none */
    const void **payloads;
    size_t *payload_bytes;
    size_t capacity;
};

struct pass {
    const struct vex_import *import;
    struct batch batch;
    size_t bytes_max;
    struct vex_progress progress;
    uint64_t bytes; /* so far */
};

static void begin_pass(struct pass *pass, const struct vex_import *import, const char *label)
{
    *pass = (struct pass){.import = import};
    pass->bytes_max = import->batch_rows ? VEX_BATCH_BYTES_MAX : BATCH_BYTES;
    size_t row_bytes = vex_reader_dim(import->reader) * sizeof(float) + sizeof(uint64_t);
    size_t capacity = pass->bytes_max / row_bytes + 1;
    if (import->batch_rows && import->batch_rows < capacity) {
        capacity = import->batch_rows;
    }
    capacity = capacity > VEX_BATCH_COUNT_MAX ? VEX_BATCH_COUNT_MAX : capacity;
    pass->batch.capacity = capacity;
    pass->batch.ids = vex_context_alloc(capacity, sizeof(*pass->batch.ids));
    if (import->lines) {
        pass->batch.payloads = vex_context_alloc(capacity, sizeof(*pass->batch.payloads));
        pass->batch.payload_bytes = vex_context_alloc(capacity, sizeof(*pass->batch.payload_bytes));
    }
    vex_progress_begin(&pass->progress, label, import->row_end - import->row_first);
}

static void end_pass(struct pass *pass)
{
    vex_progress_end(&pass->progress);
    free(pass->batch.ids);
    free(pass->batch.payloads);
    free(pass->batch.payload_bytes);
}

static enum vex_status rewind_files(const struct vex_import *import, struct vex_error *error)
{
    if (import->lines) {
        vex_lines_seek(import->lines, import->row_first);
    }
    return vex_reader_seek(import->reader, import->row_first, error);
}

/* The next batch; rows.count is 0 at the end. */
static enum vex_status next_batch(struct pass *pass, uint64_t row, struct vex_error *error)
{
    const struct vex_import *import = pass->import;
    struct batch *batch = &pass->batch;
    uint64_t left = import->row_end - row;
    size_t count = left < batch->capacity ? (size_t)left : batch->capacity;
    size_t bytes_max = pass->bytes_max;
    size_t line_bytes = 0;
    if (import->lines && count > 0) {
        size_t row_bytes = vex_reader_dim(import->reader) * sizeof(float) + sizeof(uint64_t);
        count = vex_lines_next(import->lines, count, row_bytes, bytes_max, batch->payloads,
                               batch->payload_bytes);
        if (count == 0) {
            return vex_fault(error, VEX_ERR_FORMAT, "the payload file became shorter");
        }
        bytes_max = SIZE_MAX;
        for (size_t i = 0; i < count; i++) {
            line_bytes += batch->payload_bytes[i];
        }
    }
    enum vex_status status = vex_reader_next(import->reader, count, bytes_max, &batch->rows, error);
    if (status != VEX_OK) {
        return status;
    }
    if (import->lines) {
        if (batch->rows.payloads) {
            return vex_fault(error, VEX_ERR_INVALID,
                             "the file has payloads of its own, so --payload-file cannot be used");
        }
        batch->rows.payloads = batch->payloads;
        batch->rows.payload_bytes = batch->payload_bytes;
    }
    if (!batch->rows.ids) {
        for (size_t i = 0; i < batch->rows.count; i++) {
            batch->ids[i] = import->id_first + batch->rows.first_row + i;
        }
        batch->rows.ids = batch->ids;
    }
    batch->rows.bytes += line_bytes;
    return VEX_OK;
}

/* ---- first pass ------------------------------------------------------------------------------ */

struct numbered {
    uint64_t id;
    uint64_t row;
};

/* Ids that come from the file, to find those given twice. */
struct seen {
    struct numbered *items;
    size_t count;
};

static int compare_numbered(const void *left, const void *right)
{
    const struct numbered *a = left;
    const struct numbered *b = right;
    if (a->id != b->id) {
        return a->id < b->id ? -1 : 1;
    }
    return a->row < b->row ? -1 : a->row > b->row;
}

static enum vex_status check_twice(struct seen *seen, struct vex_error *error)
{
    if (seen->count > 1) {
        qsort(seen->items, seen->count, sizeof(*seen->items), compare_numbered);
    }
    for (size_t i = 1; i < seen->count; i++) {
        const struct numbered *item = &seen->items[i];
        if (item->id == item[-1].id) {
            return vex_fault(error, VEX_ERR_INVALID,
                             "row %" PRIu64 " has the id %" PRIu64 " of row %" PRIu64
                             " again; --mode upsert lets the last one win",
                             item->row, item->id, item[-1].row);
        }
    }
    return VEX_OK;
}

static enum vex_status check_free(const struct vex_reader_rows *rows,
                                  struct vex_collection *collection,
                                  const struct vex_read_options *read, struct vex_error *error)
{
    for (size_t i = 0; i < rows->count; i++) {
        bool exists = false;
        enum vex_status status = vex_exists(collection, rows->ids[i], read, &exists, error);
        if (status != VEX_OK) {
            return status;
        }
        if (exists) {
            return vex_fault(error, VEX_ERR_EXISTS,
                             "row %" PRIu64 ": id %" PRIu64 " exists already; nothing was written; "
                             "replace with --mode upsert, or give other ids with --first-id",
                             rows->first_row + i, rows->ids[i]);
        }
    }
    return VEX_OK;
}

/* Goes over all rows. `read` is NULL if nothing can be taken yet, `seen` if ids cannot repeat. */
static enum vex_status check_rows(struct pass *pass, struct vex_collection *collection,
                                  const struct vex_read_options *read, struct seen *seen,
                                  struct vex_error *error)
{
    const struct vex_import *import = pass->import;
    enum vex_status status = rewind_files(import, error);
    uint64_t row = import->row_first;
    while (status == VEX_OK && row < import->row_end) {
        status = next_batch(pass, row, error);
        if (status != VEX_OK) {
            break;
        }
        const struct vex_reader_rows *rows = &pass->batch.rows;
        for (size_t i = 0; seen && i < rows->count; i++) {
            seen->items[seen->count++] = (struct numbered){rows->ids[i], rows->first_row + i};
        }
        if (read) {
            status = check_free(rows, collection, read, error);
        }
        row += rows->count;
        pass->bytes += rows->bytes;
        vex_progress_show(&pass->progress, row - import->row_first, pass->bytes);
    }
    return status == VEX_OK && seen ? check_twice(seen, error) : status;
}

enum vex_status vex_import_check(const struct vex_import *import, struct vex_collection *collection,
                                 struct vex_error *error)
{
    uint64_t last = 0;
    bool own_ids = vex_reader_has_ids(import->reader);
    if (!own_ids && import->row_end > import->row_first &&
        (__builtin_add_overflow(import->id_first, import->row_end - 1, &last) ||
         last > VEX_ID_MAX)) {
        return vex_fault(error, VEX_ERR_LIMIT, "--first-id: the last row's id would be too large");
    }
    bool insert = import->kind == VEX_WRITE_INSERT;
    struct vex_snapshot *snapshot = NULL;
    if (insert && collection) {
        enum vex_status status = vex_snapshot_open(collection, NULL, &snapshot, error);
        if (status != VEX_OK) {
            return status;
        }
    }
    struct seen seen = {0};
    if (insert && own_ids) {
        seen.items =
            vex_context_alloc((size_t)(import->row_end - import->row_first), sizeof(*seen.items));
    }
    struct vex_read_options read = VEX_READ_OPTIONS_INIT;
    read.snapshot = snapshot;
    struct pass pass;
    begin_pass(&pass, import, "checking");
    enum vex_status status =
        check_rows(&pass, collection, snapshot ? &read : NULL, seen.items ? &seen : NULL, error);
    end_pass(&pass);
    free(seen.items);
    vex_snapshot_close(snapshot);
    return status;
}

/* ---- second pass ----------------------------------------------------------------------------- */

static enum vex_status load_rows(struct pass *pass, struct vex_collection *collection,
                                 struct vex_import_result *result, struct vex_error *error)
{
    const struct vex_import *import = pass->import;
    enum vex_status status = rewind_files(import, error);
    uint64_t row = import->row_first;
    while (status == VEX_OK && row < import->row_end) {
        if (interrupted) {
            result->interrupted = true;
            break;
        }
        status = next_batch(pass, row, error);
        if (status != VEX_OK) {
            break;
        }
        const struct vex_reader_rows *rows = &pass->batch.rows;
        struct vex_batch batch = VEX_BATCH_INIT;
        batch.count = rows->count;
        batch.ids = rows->ids;
        batch.vectors = rows->vectors;
        batch.dim = vex_reader_dim(import->reader);
        batch.payloads = rows->payloads;
        batch.payload_bytes = rows->payload_bytes;
        struct vex_ack ack = VEX_ACK_INIT;
        vex_file_mark_written();
        status = vex_write(collection, import->kind, &batch, &ack, error);
        if (status == VEX_OK) {
            row += rows->count;
            result->rows += rows->count;
            result->bytes += rows->bytes;
            result->batches++;
            result->lsn = ack.lsn;
            vex_progress_show(&pass->progress, result->rows, result->bytes);
        } else if (status == VEX_ERR_UNKNOWN_OUTCOME) {
            result->unsure = rows->count;
        }
    }
    return status;
}

enum vex_status vex_import_load(const struct vex_import *import, struct vex_collection *collection,
                                struct vex_import_result *out, struct vex_error *error)
{
    /* A second signal ends the program at once. */
    struct sigaction action = {.sa_handler = on_interrupt,
                               .sa_flags = (int)SA_RESETHAND | SA_RESTART};
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    struct vex_import_result result = {0};
    struct pass pass;
    begin_pass(&pass, import, "importing");
    uint64_t started_ns = vex_progress_now_ns();
    enum vex_status status = load_rows(&pass, collection, &result, error);
    result.seconds = (double)(vex_progress_now_ns() - started_ns) / 1e9;
    end_pass(&pass);
    *out = result;
    return status;
}
