/*
 * JSON lines: one object a line, {"id": 7, "vector": [0.5, ...], "payload": ...}; id and payload
 * are optional. Blank lines are passed over.
 *
 * Either all lines have an id or none: half a file with numbers of its own and half numbered by us
 * is a mistake more likely than a wish. An unknown key is refused for the same reason: dropping
 * data silently is worse than stopping. A payload that is a string is stored as its text, any other
 * as compact JSON. jansson's integers end at 2^63 - 1; ids above that may be written as a string of
 * digits.
 *
 * Opening counts the lines and parses the first one for the dimension; the others are parsed when
 * they are read.
 */
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "libclient/vexctl/fault.h"
#include "libclient/vexctl/reader_priv.h"
#include "libclient/vexctl/vector.h"

/* VEX_DIM_MAX numbers of 32 characters, a payload escaped sixfold, and some room. */
#define LINE_BYTES_MAX (4u << 20)

struct line {
    const char *text;
    size_t bytes;
    size_t offset; /* in the file */
    uint64_t number;
};

/* The next line that is not blank; false at the end. Moves *at and *number behind it. */
static bool find_line(const struct vex_reader *reader, size_t *at, uint64_t *number,
                      struct line *out)
{
    while (*at < reader->bytes) {
        const char *start = (const char *)reader->data + *at;
        const char *newline = memchr(start, '\n', reader->bytes - *at);
        size_t bytes = newline ? (size_t)(newline - start) : reader->bytes - *at;
        struct line line = {start, bytes, *at, *number};
        *at += bytes + (newline ? 1 : 0);
        ++*number;
        for (size_t i = 0; i < bytes; i++) {
            if (!memchr(" \t\r", start[i], 3)) {
                *out = line;
                return true;
            }
        }
    }
    return false;
}

/* The message that is there gets row, line and byte in front. */
static enum vex_status fail_line(const struct vex_reader *reader, const struct line *line,
                                 size_t place, struct vex_error *error)
{
    if (error) {
        char where[96];
        (void)snprintf(where, sizeof(where), "row %" PRIu64 " (line %" PRIu64 ", byte %zu)",
                       reader->row, line->number, line->offset + place);
        return vex_fault_in(error, where);
    }
    return VEX_ERR_FORMAT;
}

static enum vex_status read_id(const json_t *value, uint64_t *out, struct vex_error *error)
{
    if (json_is_integer(value) && json_integer_value(value) >= 0) {
        *out = (uint64_t)json_integer_value(value);
        return VEX_OK;
    }
    uint64_t id = 0;
    const char *text = json_string_value(value);
    bool good = text && *text;
    for (; good && *text; text++) {
        good = *text >= '0' && *text <= '9' && !__builtin_mul_overflow(id, 10u, &id) &&
               !__builtin_add_overflow(id, (uint64_t)(*text - '0'), &id);
    }
    if (!good || id > VEX_ID_MAX) {
        return vex_fault(error, VEX_ERR_FORMAT,
                         "\"id\" must be a whole number within 0 to %" PRIu64
                         " (above 2^63 - 1 as a string of digits)",
                         VEX_ID_MAX);
    }
    *out = id;
    return VEX_OK;
}

static enum vex_status append_payload(struct vex_reader *reader, size_t slot, const char *text,
                                      size_t bytes, struct vex_error *error)
{
    if (bytes > VEX_PAYLOAD_MAX) {
        return vex_fault(error, VEX_ERR_LIMIT, "a payload of %zu bytes; at most %u are allowed",
                         bytes, VEX_PAYLOAD_MAX);
    }
    /* One byte at least: an empty payload is not NULL, which would mean that there is none. */
    enum vex_status status = vex_reader_make_room(reader, slot, bytes ? bytes : 1, error);
    if (status != VEX_OK) {
        return status;
    }
    struct vex_reader_buffers *buffers = &reader->buffers;
    if (bytes) {
        memcpy(buffers->blob + buffers->blob_bytes, text, bytes);
    }
    buffers->blob_bytes += bytes;
    buffers->payload_bytes[slot] = bytes;
    return VEX_OK;
}

/* `value` may be NULL or JSON's null: no payload. */
static enum vex_status read_payload(struct vex_reader *reader, size_t slot, const json_t *value,
                                    struct vex_error *error)
{
    if (!value || json_is_null(value)) {
        reader->buffers.payload_bytes[slot] = SIZE_MAX;
        return VEX_OK;
    }
    if (json_is_string(value)) {
        return append_payload(reader, slot, json_string_value(value), json_string_length(value),
                              error);
    }
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
    if (!text) {
        return vex_fault(error, VEX_ERR_NOMEM, "out of memory");
    }
    enum vex_status status = append_payload(reader, slot, text, strlen(text), error);
    free(text);
    return status;
}

static enum vex_status check_keys(json_t *object, struct vex_error *error)
{
    const char *key;
    json_t *value;
    if (!json_is_object(object)) {
        return vex_fault(error, VEX_ERR_FORMAT,
                         "a line must be one object, {\"vector\": [...], ...}%s",
                         json_is_array(object) ? ", not an array" : "");
    }
    json_object_foreach(object, key, value)
    {
        if (strcmp(key, "id") != 0 && strcmp(key, "vector") != 0 && strcmp(key, "payload") != 0) {
            return vex_fault(error, VEX_ERR_FORMAT,
                             "unknown key \"%.60s\"; known are id, vector and payload", key);
        }
    }
    if (!json_object_get(object, "vector")) {
        return vex_fault(error, VEX_ERR_FORMAT, "the key \"vector\" is missing");
    }
    return VEX_OK;
}

/* The parsed line, checked as far as it does not depend on other lines. Place of a syntax error in
 * *out_place. */
static enum vex_status parse_line(const struct line *line, json_t **out, size_t *out_place,
                                  struct vex_error *error)
{
    if (line->bytes > LINE_BYTES_MAX) {
        return vex_fault(error, VEX_ERR_LIMIT, "a line of %zu bytes; at most %u are allowed",
                         line->bytes, LINE_BYTES_MAX);
    }
    json_error_t fault;
    json_t *object = json_loadb(line->text, line->bytes,
                                JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_ANY, &fault);
    if (!object) {
        size_t place = fault.position > 0 ? (size_t)fault.position : 0;
        *out_place = place < line->bytes ? place : line->bytes;
        return vex_fault(error, VEX_ERR_FORMAT, "no JSON: %.120s", fault.text);
    }
    enum vex_status status = check_keys(object, error);
    if (status != VEX_OK) {
        json_decref(object);
        return status;
    }
    *out = object;
    return VEX_OK;
}

static enum vex_status store(struct vex_reader *reader, size_t slot, const json_t *object,
                             struct vex_error *error)
{
    const json_t *id = json_object_get(object, "id");
    if ((id != NULL) != reader->has_ids) {
        return vex_fault(error, VEX_ERR_FORMAT,
                         id ? "this line has an \"id\", the first one has none"
                            : "the key \"id\" is missing, though the first line has one");
    }
    const json_t *vector = json_object_get(object, "vector");
    size_t dim = 0;
    enum vex_status status = vex_vector_measure(vector, &dim, error);
    if (status == VEX_OK && dim != reader->dim) {
        status = vex_fault(error, VEX_ERR_FORMAT,
                           "the vector has %zu numbers, that of the first line %" PRIu32, dim,
                           reader->dim);
    }
    if (status == VEX_OK) {
        status = vex_reader_make_room(reader, slot, 0, error);
    }
    if (status == VEX_OK) {
        status = vex_vector_fill(vector, reader->buffers.vectors + slot * dim, error);
    }
    if (status == VEX_OK && reader->refuse_zero &&
        vex_element_all_zero(reader->buffers.vectors + slot * dim, dim)) {
        status =
            vex_fault(error, VEX_ERR_ZERO_VECTOR, "a zero vector has no direction under cosine");
    }
    if (status == VEX_OK && id) {
        status = read_id(id, &reader->buffers.ids[slot], error);
    }
    return status == VEX_OK ? read_payload(reader, slot, json_object_get(object, "payload"), error)
                            : status;
}

enum vex_status vex_reader_read_line(struct vex_reader *reader, size_t slot, size_t *out_bytes,
                                     struct vex_error *error)
{
    struct line line;
    size_t at = reader->at;
    uint64_t number = reader->line;
    if (!find_line(reader, &at, &number, &line)) {
        return vex_fault(error, VEX_ERR_FORMAT, "row %" PRIu64 ": the file became shorter",
                         reader->row);
    }
    json_t *object = NULL;
    size_t place = 0;
    size_t blob_bytes = reader->buffers.blob_bytes;
    enum vex_status status = parse_line(&line, &object, &place, error);
    if (status == VEX_OK) {
        status = store(reader, slot, object, error);
        json_decref(object);
    }
    if (status != VEX_OK) {
        (void)fail_line(reader, &line, place, error);
        return status;
    }
    reader->at = at;
    reader->line = number;
    reader->row++;
    *out_bytes =
        reader->dim * sizeof(float) + sizeof(uint64_t) + (reader->buffers.blob_bytes - blob_bytes);
    return VEX_OK;
}

void vex_reader_skip_line(struct vex_reader *reader)
{
    struct line line;
    (void)find_line(reader, &reader->at, &reader->line, &line);
}

/* The first line tells dimension and whether there are ids. */
static enum vex_status read_shape(struct vex_reader *reader, const struct line *line,
                                  struct vex_error *error)
{
    json_t *object = NULL;
    size_t place = 0;
    size_t dim = 0;
    enum vex_status status = parse_line(line, &object, &place, error);
    if (status == VEX_OK) {
        status = vex_vector_measure(json_object_get(object, "vector"), &dim, error);
        reader->dim = (uint32_t)dim;
        reader->has_ids = json_object_get(object, "id") != NULL;
        json_decref(object);
    }
    if (status == VEX_OK) {
        return VEX_OK;
    }
    const char *guess = vex_reader_sniff(reader->data, reader->bytes);
    (void)fail_line(reader, line, place, error);
    if (guess && error) {
        size_t used = strlen(error->message);
        (void)snprintf(error->message + used, sizeof(error->message) - used,
                       "; the file looks like %s", guess);
    }
    return status;
}

enum vex_status vex_reader_open_jsonl(struct vex_reader *reader, struct vex_error *error)
{
    static const char mark[3] = {'\xef', '\xbb', '\xbf'};
    if (reader->bytes >= sizeof(mark) && memcmp(reader->data, mark, sizeof(mark)) == 0) {
        reader->data += sizeof(mark);
        reader->bytes -= sizeof(mark);
    }
    size_t at = 0;
    uint64_t number = 1;
    struct line line;
    if (!find_line(reader, &at, &number, &line)) {
        return vex_fault(error, VEX_ERR_FORMAT, "the file holds only blank lines");
    }
    enum vex_status status = read_shape(reader, &line, error);
    if (status != VEX_OK) {
        return status;
    }
    do {
        reader->rows_count++;
    } while (find_line(reader, &at, &number, &line));
    reader->row = UINT64_MAX; /* so that the first seek starts from the beginning */
    return VEX_OK;
}
