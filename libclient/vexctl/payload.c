/*
 * A payload's three faces: JSON as it stands, text, bytes.
 *
 * jansson only judges whether the bytes are JSON; what is printed are the bytes themselves, so that
 * numbers keep all their digits and objects their order.
 */
#include "libclient/vexctl/payload.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>

#include "libclient/vexctl/context.h"
#include "libclient/vexctl/utf8.h"

static bool is_json(const char *text, size_t bytes)
{
    json_error_t fault;
    /* Integers of any length are JSON, though jansson could not hold them. */
    json_t *json =
        json_loadb(text, bytes, JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &fault);
    json_decref(json);
    return json != NULL;
}

static void put_base64(struct vex_json *json, const unsigned char *data, size_t bytes)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t text_bytes = (bytes + 2) / 3 * 4;
    char *text = vex_context_alloc(text_bytes, 1);
    for (size_t at = 0, to = 0; at < bytes; at += 3, to += 4) {
        size_t left = bytes - at;
        uint32_t three = (uint32_t)data[at] << 16 | (left > 1 ? (uint32_t)data[at + 1] << 8 : 0) |
                         (left > 2 ? (uint32_t)data[at + 2] : 0);
        text[to] = digits[three >> 18];
        text[to + 1] = digits[three >> 12 & 63];
        text[to + 2] = left > 1 ? digits[three >> 6 & 63] : '=';
        text[to + 3] = left > 2 ? digits[three & 63] : '=';
    }
    vex_json_string(json, text, text_bytes);
    free(text);
}

void vex_payload_json(struct vex_json *json, const void *payload, size_t bytes)
{
    if (payload && !vex_utf8_valid(payload, bytes)) {
        vex_json_key(json, "payload_base64");
        put_base64(json, payload, bytes);
        return;
    }
    vex_json_key(json, "payload");
    if (!payload) {
        vex_json_null(json);
    } else if (is_json(payload, bytes)) {
        vex_json_raw(json, payload, bytes);
    } else {
        vex_json_string(json, payload, bytes);
    }
}

char *vex_payload_line(const void *payload, size_t bytes, size_t columns_max)
{
    char *line = NULL;
    size_t line_bytes = 0;
    FILE *to = open_memstream(&line, &line_bytes);
    if (!to) {
        vex_context_end_without_memory();
    }
    if (!payload) {
        fputc('-', to);
        bytes = 0;
    }
    const char *text = payload;
    size_t columns = 0;
    for (size_t at = 0; at < bytes && columns <= columns_max;) {
        uint32_t code;
        size_t used = vex_utf8_next(text + at, bytes - at, &code);
        int shown = 0;
        if (!used) {
            shown = fprintf(to, "\\x%02x", (unsigned)(unsigned char)text[at]);
            used = 1;
        } else if (vex_utf8_printable(code)) {
            fwrite(text + at, 1, used, to);
            columns += vex_utf8_width(code);
        } else if (code == '\n' || code == '\t') {
            shown = fprintf(to, code == '\n' ? "\\n" : "\\t");
        } else {
            shown = fprintf(to, "\\u{%" PRIx32 "}", code);
        }
        columns += shown > 0 ? (size_t)shown : 0;
        at += used;
    }
    if (fclose(to) != 0) {
        vex_context_end_without_memory();
    }
    return line;
}
