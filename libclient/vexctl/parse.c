/*
 * Strict parsing of command line values. strtoull() and friends accept signs, blanks and trailing
 * text; here only digits pass.
 */
#include "libclient/vexctl/parse.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <vex/types.h>

#include "libclient/vexctl/fault.h"
#include "libclient/vexctl/file.h"
#include "libclient/vexctl/vector.h"

/* VEX_DIM_MAX numbers at 32 characters each, rounded up. */
#define VECTOR_TEXT_MAX (4u << 20)

/* False if `text` is not all digits or does not fit. */
static bool read_digits(const char *text, size_t bytes, uint64_t *out)
{
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] < '0' || text[i] > '9' || __builtin_mul_overflow(value, 10u, &value) ||
            __builtin_add_overflow(value, (uint64_t)(text[i] - '0'), &value)) {
            return false;
        }
    }
    *out = value;
    return bytes > 0;
}

enum vex_status vex_parse_number(const char *what, const char *text, uint64_t least, uint64_t most,
                                 uint64_t *out, struct vex_error *error)
{
    uint64_t value = 0;
    if (!read_digits(text, strlen(text), &value) || value < least || value > most) {
        return vex_fault(error, VEX_ERR_INVALID,
                         "%s: '%.40s' is not a whole number within %" PRIu64 " to %" PRIu64, what,
                         text, least, most);
    }
    *out = value;
    return VEX_OK;
}

enum vex_status vex_parse_option(const char *what, const char *text, uint64_t least, uint64_t most,
                                 uint64_t *out, struct vex_error *error)
{
    return text ? vex_parse_number(what, text, least, most, out, error) : VEX_OK;
}

enum vex_status vex_parse_seconds(const char *what, const char *text, uint32_t *out_ms,
                                  struct vex_error *error)
{
    if (!text) {
        return VEX_OK;
    }
    size_t bytes = strlen(text);
    const char *point = strchr(text, '.');
    size_t whole_bytes = point ? (size_t)(point - text) : bytes;
    uint64_t seconds = 0;
    uint64_t thousandths = 0;
    bool good = read_digits(text, whole_bytes, &seconds) && seconds < UINT32_MAX / 1000;
    if (good && point) {
        char digits[3] = {'0', '0', '0'};
        size_t digits_bytes = bytes - whole_bytes - 1;
        good = digits_bytes >= 1 && digits_bytes <= sizeof(digits);
        if (good) {
            memcpy(digits, point + 1, digits_bytes);
            good = read_digits(digits, sizeof(digits), &thousandths);
        }
    }
    if (!good || seconds * 1000 + thousandths == 0) {
        return vex_fault(error, VEX_ERR_INVALID,
                         "%s: '%.40s' is not a number of seconds above 0, like 2 or 0.25", what,
                         text);
    }
    *out_ms = (uint32_t)(seconds * 1000 + thousandths);
    return VEX_OK;
}

enum vex_status vex_parse_fraction(const char *what, const char *text, float *out,
                                   struct vex_error *error)
{
    if (!text) {
        return VEX_OK;
    }
    const char *digits = text[0] == '0' ? text + 1 : text;
    size_t digits_bytes = digits[0] == '.' ? strlen(digits + 1) : 0;
    uint64_t value = 0;
    if (digits_bytes < 1 || digits_bytes > 6 || !read_digits(digits + 1, digits_bytes, &value) ||
        value == 0) {
        return vex_fault(error, VEX_ERR_INVALID,
                         "%s: '%.40s' is not a number above 0 and below 1, like 0.95", what, text);
    }
    double fraction = (double)value;
    for (size_t i = 0; i < digits_bytes; i++) {
        fraction /= 10;
    }
    *out = (float)fraction;
    return VEX_OK;
}

enum vex_status vex_parse_choice(const char *what, const char *text, const char *const *words,
                                 size_t *out, struct vex_error *error)
{
    char all[100] = "";
    size_t used = 0;
    for (size_t i = 0; words[i]; i++) {
        if (strcmp(words[i], text) == 0) {
            *out = i;
            return VEX_OK;
        }
        used += (size_t)snprintf(all + used, sizeof(all) - used, "%s%s", i ? ", " : "", words[i]);
    }
    return vex_fault(error, VEX_ERR_INVALID, "%s: '%.40s' is none of %s", what, text, all);
}

enum vex_status vex_parse_vector(const char *what, const char *text, float **out_vector,
                                 size_t *out_dim, struct vex_error *error)
{
    void *read = NULL;
    size_t bytes = strlen(text);
    const char *path = strcmp(text, "-") == 0 ? "-" : text[0] == '@' ? text + 1 : NULL;
    if (path) {
        enum vex_status status = vex_file_read(path, VECTOR_TEXT_MAX, &read, &bytes, error);
        if (status != VEX_OK) {
            return status;
        }
        text = read;
    }
    json_error_t fault;
    json_t *json = json_loadb(text, bytes, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &fault);
    enum vex_status status;
    if (json) {
        status = vex_vector_from_json(json, out_vector, out_dim, error);
    } else {
        status = vex_fault(error, VEX_ERR_FORMAT,
                           "not a JSON array of numbers like [0.5, 1, -2]: %.100s", fault.text);
    }
    json_decref(json);
    free(read);
    return status == VEX_OK ? VEX_OK : vex_fault_in(error, path ? path : what);
}

enum vex_status vex_parse_payload(const char *what, const char *text, void **out_data,
                                  size_t *out_bytes, struct vex_error *error)
{
    if (text[0] == '@') {
        return vex_file_read(text + 1, VEX_PAYLOAD_MAX, out_data, out_bytes, error);
    }
    size_t bytes = strlen(text);
    if (bytes > VEX_PAYLOAD_MAX) {
        return vex_fault(error, VEX_ERR_LIMIT, "%s: %zu bytes, a payload has at most %u", what,
                         bytes, VEX_PAYLOAD_MAX);
    }
    char *copy = malloc(bytes ? bytes : 1);
    if (!copy) {
        return vex_fault(error, VEX_ERR_NOMEM, "%s: out of memory", what);
    }
    memcpy(copy, text, bytes);
    *out_data = copy;
    *out_bytes = bytes;
    return VEX_OK;
}
