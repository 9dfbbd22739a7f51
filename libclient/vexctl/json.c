/*
 * The writer: a single flag remembers whether a comma is due, because after any value and after any
 * closing bracket it is, and after an opening bracket or a key it is not.
 */
#include "libclient/vexctl/json.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "libclient/vexctl/utf8.h"

static void begin_value(struct vex_json *json)
{
    if (json->comma) {
        fputc(',', json->to);
    }
    json->comma = true;
}

void vex_json_open(struct vex_json *json, char bracket)
{
    begin_value(json);
    fputc(bracket, json->to);
    json->comma = false;
}

void vex_json_close(struct vex_json *json, char bracket)
{
    fputc(bracket, json->to);
    json->comma = true;
}

void vex_json_key(struct vex_json *json, const char *key)
{
    vex_json_text(json, key);
    fputc(':', json->to);
    json->comma = false;
}

void vex_json_u64(struct vex_json *json, uint64_t value)
{
    begin_value(json);
    fprintf(json->to, "%" PRIu64, value);
}

void vex_json_bool(struct vex_json *json, bool value)
{
    begin_value(json);
    fputs(value ? "true" : "false", json->to);
}

void vex_json_null(struct vex_json *json)
{
    begin_value(json);
    fputs("null", json->to);
}

void vex_json_float(struct vex_json *json, float value)
{
    if (!isfinite(value)) {
        vex_json_null(json);
        return;
    }
    begin_value(json);
    fprintf(json->to, "%.9g", (double)value);
}

void vex_json_decimal(struct vex_json *json, double value)
{
    begin_value(json);
    fprintf(json->to, "%.3f", value);
}

static void put_escaped(FILE *to, const char *text, size_t bytes)
{
    unsigned char first = (unsigned char)text[0];
    if (first == '"' || first == '\\') {
        fputc('\\', to);
        fputc(first, to);
    } else if (first == '\n') {
        fputs("\\n", to);
    } else if (first == '\t') {
        fputs("\\t", to);
    } else if (first < 0x20 || first == 0x7f) {
        fprintf(to, "\\u%04x", (unsigned)first);
    } else {
        fwrite(text, 1, bytes, to);
    }
}

void vex_json_string(struct vex_json *json, const char *text, size_t bytes)
{
    begin_value(json);
    fputc('"', json->to);
    for (size_t at = 0; at < bytes;) {
        uint32_t code;
        size_t used = vex_utf8_next(text + at, bytes - at, &code);
        if (used) {
            put_escaped(json->to, text + at, used);
        } else {
            fputs("\xef\xbf\xbd", json->to);
            used = 1;
        }
        at += used;
    }
    fputc('"', json->to);
}

void vex_json_text(struct vex_json *json, const char *text)
{
    vex_json_string(json, text, strlen(text));
}

void vex_json_raw(struct vex_json *json, const void *value, size_t bytes)
{
    begin_value(json);
    fwrite(value, 1, bytes, json->to);
}
