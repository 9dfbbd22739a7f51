/*
 * npy: numpy's format for one array. Magic, version, length of the header, the header, the numbers.
 *
 * The header is the text of a Python dict with the keys descr, fortran_order and shape. It is
 * parsed as exactly that and no more: numpy itself writes nothing else, and a header that needs
 * Python to be understood (structured types, objects) holds no vectors. A 1-d array is one vector.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "libclient/vexctl/fault.h"
#include "libclient/vexctl/reader_priv.h"

#define MAGIC "\x93NUMPY"
#define MAGIC_BYTES 6u
#define HEADER_BYTES_MAX (64u << 10)

struct cursor {
    const char *at;
    const char *end;
};

struct header {
    char descr[32];
    bool has_descr;
    bool fortran;
    bool has_fortran;
    uint64_t shape[3]; /* the third only tells that there are too many */
    size_t axes;
    bool has_shape;
};

static void skip_blanks(struct cursor *cursor)
{
    while (cursor->at < cursor->end && memchr(" \t\r\n", *cursor->at, 4)) {
        cursor->at++;
    }
}

/* True, and moves on, if `word` is next. */
static bool take(struct cursor *cursor, const char *word)
{
    skip_blanks(cursor);
    size_t bytes = strlen(word);
    if ((size_t)(cursor->end - cursor->at) < bytes || memcmp(cursor->at, word, bytes) != 0) {
        return false;
    }
    cursor->at += bytes;
    return true;
}

static bool take_string(struct cursor *cursor, char *out, size_t capacity)
{
    skip_blanks(cursor);
    if (cursor->at == cursor->end || (*cursor->at != '\'' && *cursor->at != '"')) {
        return false;
    }
    char quote = *cursor->at++;
    const char *close = memchr(cursor->at, quote, (size_t)(cursor->end - cursor->at));
    size_t bytes = close ? (size_t)(close - cursor->at) : capacity;
    if (bytes >= capacity || memchr(cursor->at, '\\', bytes) || memchr(cursor->at, 0, bytes)) {
        return false;
    }
    memcpy(out, cursor->at, bytes);
    out[bytes] = 0;
    cursor->at = close + 1;
    return true;
}

static bool take_number(struct cursor *cursor, uint64_t *out)
{
    skip_blanks(cursor);
    const char *start = cursor->at;
    uint64_t value = 0;
    while (cursor->at < cursor->end && *cursor->at >= '0' && *cursor->at <= '9') {
        if (__builtin_mul_overflow(value, 10u, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*cursor->at - '0'), &value)) {
            return false;
        }
        cursor->at++;
    }
    (void)take(cursor, "L"); /* Python 2 wrote it behind long numbers */
    *out = value;
    return cursor->at > start && *start != 'L';
}

static bool take_shape(struct cursor *cursor, struct header *header)
{
    if (!take(cursor, "(")) {
        return false;
    }
    while (!take(cursor, ")")) {
        uint64_t length;
        if (!take_number(cursor, &length)) {
            return false;
        }
        if (header->axes < sizeof(header->shape) / sizeof(header->shape[0])) {
            header->shape[header->axes++] = length;
        }
        if (!take(cursor, ",")) {
            header->has_shape = take(cursor, ")");
            return header->has_shape;
        }
    }
    header->has_shape = true;
    return true;
}

static bool take_item(struct cursor *cursor, struct header *header)
{
    char key[16];
    if (!take_string(cursor, key, sizeof(key)) || !take(cursor, ":")) {
        return false;
    }
    if (strcmp(key, "descr") == 0 && !header->has_descr) {
        header->has_descr = take_string(cursor, header->descr, sizeof(header->descr));
        return header->has_descr;
    }
    if (strcmp(key, "fortran_order") == 0 && !header->has_fortran) {
        header->fortran = take(cursor, "True");
        header->has_fortran = header->fortran || take(cursor, "False");
        return header->has_fortran;
    }
    return strcmp(key, "shape") == 0 && !header->has_shape && take_shape(cursor, header);
}

static bool parse_header(struct cursor cursor, struct header *header)
{
    if (!take(&cursor, "{")) {
        return false;
    }
    while (!take(&cursor, "}")) {
        if (!take_item(&cursor, header)) {
            return false;
        }
        if (!take(&cursor, ",")) {
            if (!take(&cursor, "}")) {
                return false;
            }
            break;
        }
    }
    skip_blanks(&cursor);
    return cursor.at == cursor.end && header->has_descr && header->has_fortran && header->has_shape;
}

/* Where the header's text is. */
static enum vex_status find_header(const struct vex_reader *reader, struct cursor *out,
                                   struct vex_error *error)
{
    const uint8_t *data = reader->data;
    char why[120];
    if (reader->bytes < MAGIC_BYTES || memcmp(data, MAGIC, MAGIC_BYTES) != 0) {
        return vex_reader_fail_foreign(reader, error, "it does not begin with \\x93NUMPY");
    }
    if (reader->bytes < MAGIC_BYTES + 4) {
        return vex_fault(error, VEX_ERR_FORMAT, "npy: the file ends within its header");
    }
    unsigned major = data[MAGIC_BYTES];
    if ((major != 1 && major != 2) || data[MAGIC_BYTES + 1] != 0) {
        (void)snprintf(why, sizeof(why), "version %u.%u of the format; 1.0 and 2.0 are read", major,
                       (unsigned)data[MAGIC_BYTES + 1]);
        return vex_reader_fail_foreign(reader, error, why);
    }
    size_t start = MAGIC_BYTES + (major == 1 ? 4u : 6u);
    if (reader->bytes < start) {
        return vex_fault(error, VEX_ERR_FORMAT, "npy: the file ends within its header");
    }
    size_t length = data[MAGIC_BYTES + 2] | (size_t)data[MAGIC_BYTES + 3] << 8;
    if (major == 2) {
        length |= (size_t)data[MAGIC_BYTES + 4] << 16 | (size_t)data[MAGIC_BYTES + 5] << 24;
    }
    if (length > HEADER_BYTES_MAX || length > reader->bytes - start) {
        return vex_fault(error, VEX_ERR_FORMAT,
                         "npy: the header claims %zu bytes, the file has %zu behind it", length,
                         reader->bytes - start);
    }
    out->at = (const char *)data + start;
    out->end = out->at + length;
    return VEX_OK;
}

static enum vex_status choose_element(struct vex_reader *reader, const char *descr,
                                      struct vex_error *error)
{
    static const struct {
        const char *descr;
        enum vex_element element;
    } known[] = {
        {"<f4", VEX_ELEMENT_F4}, {"<f8", VEX_ELEMENT_F8}, {"<f2", VEX_ELEMENT_F2},
        {"|i1", VEX_ELEMENT_I1}, {"|u1", VEX_ELEMENT_U1},
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcmp(descr, known[i].descr) == 0) {
            reader->element = known[i].element;
            return VEX_OK;
        }
    }
    if (descr[0] == '>') {
        return vex_fault(error, VEX_ERR_FORMAT,
                         "npy: dtype '%.20s' is big-endian; save it with .astype('<%.20s')", descr,
                         descr + 1);
    }
    return vex_fault(error, VEX_ERR_FORMAT,
                     "npy: dtype '%.20s'; read are <f4, <f8, <f2, |i1 and |u1, so save it with "
                     ".astype('<f4')",
                     descr);
}

static enum vex_status apply_shape(struct vex_reader *reader, const struct header *header,
                                   struct vex_error *error)
{
    if (header->axes == 0 || header->axes > 2) {
        return vex_fault(error, VEX_ERR_FORMAT,
                         "npy: the array has %s axes; 2 are needed, rows and components, or 1 for "
                         "a single vector",
                         header->axes ? "more than 2" : "no");
    }
    if (header->fortran && header->axes == 2) {
        return vex_fault(error, VEX_ERR_FORMAT,
                         "npy: the array is in Fortran order (column by column); save "
                         "numpy.ascontiguousarray(it)");
    }
    uint64_t rows = header->axes == 2 ? header->shape[0] : 1;
    uint64_t dim = header->shape[header->axes - 1];
    if (rows == 0) {
        return vex_fault(error, VEX_ERR_FORMAT, "npy: the array has no rows");
    }
    if (dim == 0 || dim > VEX_DIM_MAX) {
        return vex_fault(error, VEX_ERR_FORMAT,
                         "npy: the rows have dimension %" PRIu64 ", allowed are 1 to %u", dim,
                         VEX_DIM_MAX);
    }
    reader->rows_count = rows;
    reader->dim = (uint32_t)dim;
    reader->row_bytes = reader->dim * vex_element_bytes(reader->element);
    return VEX_OK;
}

static enum vex_status check_length(const struct vex_reader *reader, struct vex_error *error)
{
    uint64_t left = reader->bytes - reader->data_offset;
    uint64_t need;
    bool fits = !__builtin_mul_overflow(reader->rows_count, (uint64_t)reader->row_bytes, &need);
    if (fits && left == need) {
        return VEX_OK;
    }
    if (fits && left > need) {
        return vex_fault(error, VEX_ERR_FORMAT,
                         "npy: %" PRIu64 " bytes too many behind the %" PRIu64
                         " rows that the header announces",
                         left - need, reader->rows_count);
    }
    uint64_t row = left / reader->row_bytes;
    return vex_fault(error, VEX_ERR_FORMAT,
                     "npy: row %" PRIu64 " (byte %" PRIu64 ") is cut short or missing: the header "
                     "announces %" PRIu64 " rows of %zu bytes",
                     row, reader->data_offset + row * reader->row_bytes, reader->rows_count,
                     reader->row_bytes);
}

enum vex_status vex_reader_open_npy(struct vex_reader *reader, struct vex_error *error)
{
    struct cursor text = {0};
    enum vex_status status = find_header(reader, &text, error);
    if (status != VEX_OK) {
        return status;
    }
    struct header header = {0};
    if (!parse_header(text, &header)) {
        int shown = text.end - text.at > 80 ? 80 : (int)(text.end - text.at);
        return vex_fault(error, VEX_ERR_FORMAT,
                         "npy: the header is not that of a plain array of numbers: %.*s", shown,
                         text.at);
    }
    reader->data_offset = (size_t)(text.end - (const char *)reader->data);
    status = choose_element(reader, header.descr, error);
    if (status == VEX_OK) {
        status = apply_shape(reader, &header, error);
    }
    return status == VEX_OK ? check_length(reader, error) : status;
}
