/*
 * Fuzzes the import readers: whatever the bytes are, rows are sound or there is an error.
 *
 * The first byte chooses the format, and bits of it how the file is read; the second one the size
 * of a batch; the rest is the file. It is copied to memory of exactly its size, so that reading one
 * byte beyond it is seen. A file is read twice, the second time in other batches: both readings
 * must agree, because import checks a file in the first and sends it in the second. The bytes also
 * go through the lines of a payload file, with the same idea.
 */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "libclient/vexctl/lines.h"
#include "libclient/vexctl/reader.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* What a reading saw; a sum of all values, so that a difference anywhere shows. */
struct reading {
    enum vex_status status;
    uint64_t rows;
    uint64_t sum;
};

static void must(bool condition)
{
    if (!condition) {
        abort();
    }
}

static uint64_t mix(uint64_t sum, const void *data, size_t bytes)
{
    const uint8_t *from = data;
    for (size_t i = 0; i < bytes; i++) {
        sum = (sum ^ from[i]) * 0x100000001b3u;
    }
    return sum;
}

/* Adds one row to the sum, after looking at each part of it. */
static void take_row(struct reading *reading, const struct vex_reader_rows *rows, size_t i,
                     uint32_t dim, bool refuse_zero)
{
    const float *vector = rows->vectors + i * dim;
    bool zero = true;
    for (uint32_t at = 0; at < dim; at++) {
        must(isfinite(vector[at]));
        zero = zero && vector[at] == 0;
    }
    must(!(zero && refuse_zero));
    reading->sum = mix(reading->sum, vector, dim * sizeof(*vector));
    if (rows->ids) {
        must(rows->ids[i] <= VEX_ID_MAX);
        reading->sum = mix(reading->sum, &rows->ids[i], sizeof(rows->ids[i]));
    }
    if (rows->payloads && rows->payloads[i]) {
        must(rows->payload_bytes[i] <= VEX_PAYLOAD_MAX);
        reading->sum = mix(reading->sum, rows->payloads[i], rows->payload_bytes[i]);
    } else {
        must(!rows->payloads || rows->payload_bytes[i] == 0);
    }
}

static struct reading read_rows(struct vex_reader *reader, size_t rows_max, size_t bytes_max,
                                bool refuse_zero)
{
    struct reading reading = {0};
    struct vex_error error = {0};
    for (;;) {
        struct vex_reader_rows rows;
        reading.status = vex_reader_next(reader, rows_max, bytes_max, &rows, &error);
        if (reading.status != VEX_OK) {
            must(reading.status == error.status && error.message[0]);
            return reading;
        }
        must(rows.first_row == reading.rows && rows.count <= rows_max);
        must(rows.count <= 1 || rows.bytes <= bytes_max);
        if (rows.count == 0) {
            must(reading.rows == vex_reader_rows_count(reader));
            return reading;
        }
        must((rows.ids != NULL) == vex_reader_has_ids(reader));
        for (size_t i = 0; i < rows.count; i++) {
            take_row(&reading, &rows, i, vex_reader_dim(reader), refuse_zero);
        }
        reading.rows += rows.count;
    }
}

static void try_reader(const uint8_t *file, size_t bytes, enum vex_reader_format format,
                       size_t rows_max, bool refuse_zero)
{
    struct vex_error error = {0};
    struct vex_reader *reader = NULL;
    enum vex_status status = vex_reader_open_memory(file, bytes, format, &reader, &error);
    must((status == VEX_OK) == (reader != NULL));
    if (!reader) {
        must(status == error.status && error.message[0]);
        return;
    }
    uint32_t dim = vex_reader_dim(reader);
    must(dim >= 1 && dim <= VEX_DIM_MAX && vex_reader_rows_count(reader) >= 1);
    if (refuse_zero) {
        vex_reader_refuse_zero(reader);
    }
    struct reading first = read_rows(reader, rows_max, SIZE_MAX, refuse_zero);
    must(vex_reader_seek(reader, 0, &error) == VEX_OK);
    struct reading second = read_rows(reader, SIZE_MAX, 64 * rows_max, refuse_zero);
    must(first.status == second.status);
    /* On failure the batches before it differ, not what is wrong. */
    must(first.status != VEX_OK || (first.rows == second.rows && first.sum == second.sum));
    must(vex_reader_seek(reader, vex_reader_rows_count(reader), &error) == VEX_OK);
    must(vex_reader_seek(reader, vex_reader_rows_count(reader) + 1, &error) != VEX_OK);
    vex_reader_close(reader);
}

static void try_lines(const uint8_t *file, size_t bytes, size_t lines_max)
{
    const void *texts[64];
    size_t text_bytes[64];
    struct vex_error error = {0};
    struct vex_lines lines = {0};
    if (vex_lines_open_memory(&lines, file, bytes, &error) != VEX_OK) {
        must(error.message[0]);
        return;
    }
    uint64_t count = 0;
    uint64_t sum = 0;
    size_t got;
    while ((got = vex_lines_next(&lines, 1 + lines_max % 64, 8, 8 * lines_max, texts, text_bytes)) >
           0) {
        for (size_t i = 0; i < got; i++) {
            must((texts[i] != NULL) == (text_bytes[i] > 0) && text_bytes[i] <= VEX_PAYLOAD_MAX);
            sum = mix(sum, texts[i], text_bytes[i]);
        }
        count += got;
    }
    must(count == lines.count);
    vex_lines_seek(&lines, count / 2);
    must(lines.line == count / 2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const enum vex_reader_format formats[] = {VEX_READER_FVECS, VEX_READER_BVECS,
                                                     VEX_READER_NPY, VEX_READER_JSONL};
    if (bytes < 2) {
        return 0;
    }
    size_t file_bytes = bytes - 2;
    uint8_t *file = malloc(file_bytes ? file_bytes : 1);
    must(file != NULL);
    memcpy(file, data + 2, file_bytes);
    size_t rows_max = 1u + data[1];
    try_reader(file, file_bytes, formats[data[0] % 4], rows_max, data[0] & 4);
    try_lines(file, file_bytes, rows_max);
    const char *guess = vex_reader_sniff(file, file_bytes);
    must(!guess || guess[0]);
    free(file);
    return 0;
}
