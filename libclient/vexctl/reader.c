/*
 * What the formats share: choosing one, buffers, batches, and the rows of the fixed formats.
 *
 * Buffers grow to the largest batch asked for and are kept. A batch ends at the caller's limit of
 * rows or bytes; for JSON lines the size of a row is known only once it is parsed, so a line that
 * does not fit any more is put back and parsed again for the next batch: one line in a batch, which
 * is cheaper than keeping it.
 */
#include "libclient/vexctl/reader.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "libclient/vexctl/fault.h"
#include "libclient/vexctl/reader_priv.h"

#define BLOB_BYTES_MIN 4096u

static const struct format {
    const char *word;
    const char *extensions[2];
    enum vex_status (*open)(struct vex_reader *reader, struct vex_error *error);
} formats[] = {
    [VEX_READER_FVECS] = {"fvecs", {".fvecs", NULL}, vex_reader_open_vecs},
    [VEX_READER_BVECS] = {"bvecs", {".bvecs", NULL}, vex_reader_open_vecs},
    [VEX_READER_NPY] = {"npy", {".npy", NULL}, vex_reader_open_npy},
    [VEX_READER_JSONL] = {"jsonl", {".jsonl", ".ndjson"}, vex_reader_open_jsonl},
};

#define FORMATS_COUNT (sizeof(formats) / sizeof(formats[0]))

enum vex_reader_format vex_reader_format_of_word(const char *word)
{
    for (size_t i = VEX_READER_FVECS; i < FORMATS_COUNT; i++) {
        if (strcmp(word, formats[i].word) == 0) {
            return (enum vex_reader_format)i;
        }
    }
    return VEX_READER_UNKNOWN;
}

enum vex_reader_format vex_reader_format_of_path(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *point = strrchr(slash ? slash : path, '.');
    for (size_t i = VEX_READER_FVECS; point && i < FORMATS_COUNT; i++) {
        for (size_t j = 0; j < 2 && formats[i].extensions[j]; j++) {
            if (strcasecmp(point, formats[i].extensions[j]) == 0) {
                return (enum vex_reader_format)i;
            }
        }
    }
    return VEX_READER_UNKNOWN;
}

enum vex_status vex_reader_fail_foreign(const struct vex_reader *reader, struct vex_error *error,
                                        const char *why)
{
    const char *guess = vex_reader_sniff(reader->data, reader->bytes);
    return vex_fault(error, VEX_ERR_FORMAT, "not a sound %s file: %s%s%s",
                     formats[reader->format].word, why, guess ? "; it looks like " : "",
                     guess ? guess : "");
}

enum vex_status vex_reader_open_memory(const void *data, size_t bytes,
                                       enum vex_reader_format format,
                                       struct vex_reader **out_reader, struct vex_error *error)
{
    *out_reader = NULL;
    if (bytes == 0) {
        return vex_fault(error, VEX_ERR_FORMAT, "the file is empty");
    }
    struct vex_reader *reader = calloc(1, sizeof(*reader));
    if (!reader) {
        return vex_fault(error, VEX_ERR_NOMEM, "out of memory");
    }
    reader->data = data;
    reader->bytes = bytes;
    reader->format = format;
    enum vex_status status = formats[format].open(reader, error);
    if (status == VEX_OK) {
        status = vex_reader_seek(reader, 0, error);
    }
    if (status != VEX_OK) {
        vex_reader_close(reader);
        return status;
    }
    *out_reader = reader;
    return VEX_OK;
}

void vex_reader_close(struct vex_reader *reader)
{
    if (reader) {
        free(reader->buffers.vectors);
        free(reader->buffers.ids);
        free(reader->buffers.payloads);
        free(reader->buffers.payload_bytes);
        free(reader->buffers.blob);
        free(reader);
    }
}

uint32_t vex_reader_dim(const struct vex_reader *reader)
{
    return reader->dim;
}

uint64_t vex_reader_rows_count(const struct vex_reader *reader)
{
    return reader->rows_count;
}

bool vex_reader_has_ids(const struct vex_reader *reader)
{
    return reader->has_ids;
}

void vex_reader_refuse_zero(struct vex_reader *reader)
{
    reader->refuse_zero = true;
}

/* ---- buffers --------------------------------------------------------------------------------- */

/* `count` items of `bytes` each at *memory, if there is room for them. */
static bool resize(void *memory, size_t count, size_t bytes)
{
    void **place = memory;
    size_t total;
    if (__builtin_mul_overflow(count, bytes, &total)) {
        return false;
    }
    void *moved = realloc(*place, total);
    if (moved) {
        *place = moved;
    }
    return moved != NULL;
}

static bool resize_rows(struct vex_reader *reader, size_t capacity)
{
    struct vex_reader_buffers *buffers = &reader->buffers;
    bool lines = reader->format == VEX_READER_JSONL;
    if (!resize(&buffers->vectors, capacity, reader->dim * sizeof(*buffers->vectors))) {
        return false;
    }
    if (lines && !(resize(&buffers->ids, capacity, sizeof(*buffers->ids)) &&
                   resize(&buffers->payloads, capacity, sizeof(*buffers->payloads)) &&
                   resize(&buffers->payload_bytes, capacity, sizeof(*buffers->payload_bytes)))) {
        return false;
    }
    buffers->capacity = capacity;
    return true;
}

enum vex_status vex_reader_make_room(struct vex_reader *reader, size_t slot, size_t more,
                                     struct vex_error *error)
{
    struct vex_reader_buffers *buffers = &reader->buffers;
    bool good = true;
    if (slot >= buffers->capacity) {
        good = resize_rows(reader, slot < 8 ? 16 : slot * 2);
    }
    size_t blob_bytes = buffers->blob_bytes + more; /* both bounded by a batch's bytes */
    if (good && blob_bytes > buffers->blob_capacity) {
        size_t capacity = blob_bytes * 2 < BLOB_BYTES_MIN ? BLOB_BYTES_MIN : blob_bytes * 2;
        good = resize(&buffers->blob, capacity, 1);
        buffers->blob_capacity = good ? capacity : buffers->blob_capacity;
    }
    return good ? VEX_OK : vex_fault(error, VEX_ERR_NOMEM, "out of memory for %zu rows", slot + 1);
}

/* ---- rows ------------------------------------------------------------------------------------ */

static enum vex_status fail_value(const struct vex_reader *reader, enum vex_status status,
                                  size_t offset, size_t place, struct vex_error *error)
{
    size_t byte = offset + place * vex_element_bytes(reader->element);
    return vex_fault(
        error, status, "row %" PRIu64 ", component %zu (byte %zu): %s", reader->row, place, byte,
        status == VEX_ERR_LIMIT ? "the value does not fit a 32-bit float" : "NaN or infinity");
}

/* The next row of a fixed format into `slot`. */
static enum vex_status read_fixed(struct vex_reader *reader, size_t slot, size_t *out_bytes,
                                  struct vex_error *error)
{
    enum vex_status status = vex_reader_make_room(reader, slot, 0, error);
    if (status != VEX_OK) {
        return status;
    }
    size_t offset =
        reader->data_offset + (size_t)reader->row * reader->row_bytes + reader->prefix_bytes;
    float *to = reader->buffers.vectors + slot * reader->dim;
    size_t place = 0;
    status = vex_element_decode(reader->element, reader->data + offset, reader->dim, to, &place);
    if (status != VEX_OK) {
        return fail_value(reader, status, offset, place, error);
    }
    if (reader->refuse_zero && vex_element_all_zero(to, reader->dim)) {
        return vex_fault(error, VEX_ERR_ZERO_VECTOR,
                         "row %" PRIu64 " (byte %zu): a zero vector has no direction under cosine",
                         reader->row, offset);
    }
    reader->row++;
    *out_bytes = reader->dim * sizeof(float) + sizeof(uint64_t);
    return VEX_OK;
}

/* Pointers to the payloads, now that the blob has its place. True if there is any. */
static bool settle_payloads(struct vex_reader_buffers *buffers, size_t count)
{
    bool any = false;
    const char *at = buffers->blob;
    for (size_t i = 0; i < count; i++) {
        if (buffers->payload_bytes[i] == SIZE_MAX) {
            buffers->payloads[i] = NULL;
            buffers->payload_bytes[i] = 0;
        } else {
            buffers->payloads[i] = at;
            at += buffers->payload_bytes[i];
            any = true;
        }
    }
    return any;
}

enum vex_status vex_reader_next(struct vex_reader *reader, size_t rows_max, size_t bytes_max,
                                struct vex_reader_rows *out, struct vex_error *error)
{
    bool lines = reader->format == VEX_READER_JSONL;
    struct vex_reader_rows rows = {.first_row = reader->row};
    reader->buffers.blob_bytes = 0;
    while (rows.count < rows_max && reader->row < reader->rows_count) {
        size_t at = reader->at;
        uint64_t line = reader->line;
        uint64_t row = reader->row;
        size_t bytes = 0;
        enum vex_status status = lines ? vex_reader_read_line(reader, rows.count, &bytes, error)
                                       : read_fixed(reader, rows.count, &bytes, error);
        if (status != VEX_OK) {
            return status;
        }
        if (rows.count > 0 && rows.bytes + bytes > bytes_max) {
            reader->at = at;
            reader->line = line;
            reader->row = row;
            break;
        }
        rows.bytes += bytes;
        rows.count++;
    }
    if (rows.count > 0) {
        struct vex_reader_buffers *buffers = &reader->buffers;
        rows.vectors = buffers->vectors;
        rows.ids = reader->has_ids ? buffers->ids : NULL;
        if (lines && settle_payloads(buffers, rows.count)) {
            rows.payloads = buffers->payloads;
            rows.payload_bytes = buffers->payload_bytes;
        }
    }
    *out = rows;
    return VEX_OK;
}

enum vex_status vex_reader_seek(struct vex_reader *reader, uint64_t row, struct vex_error *error)
{
    if (row > reader->rows_count) {
        return vex_fault(error, VEX_ERR_INVALID,
                         "row %" PRIu64 " is beyond the end: there are %" PRIu64 " rows", row,
                         reader->rows_count);
    }
    if (reader->format == VEX_READER_JSONL) {
        if (row < reader->row) {
            reader->row = 0;
            reader->at = 0;
            reader->line = 1;
        }
        for (; reader->row < row; reader->row++) {
            vex_reader_skip_line(reader);
        }
    }
    reader->row = row;
    return VEX_OK;
}
