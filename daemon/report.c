#include "daemon/report.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

/* Bytes of the UTF-8 sequence that begins at `at`, 0 if there is none. Overlong forms and surrogates are
 * let through: whoever reads them can tell. */
static size_t sequence_bytes(const uint8_t *at)
{
    size_t bytes = 0;
    if (at[0] >= 0xc2 && at[0] <= 0xdf) {
        bytes = 2;
    } else if (at[0] >= 0xe0 && at[0] <= 0xef) {
        bytes = 3;
    } else if (at[0] >= 0xf0 && at[0] <= 0xf4) {
        bytes = 4;
    }
    for (size_t i = 1; i < bytes; i++) {
        if (at[i] < 0x80 || at[i] > 0xbf) { /* the end of the string, too */
            return 0;
        }
    }
    return bytes;
}

static void print_string(FILE *to, const char *text)
{
    fputc('"', to);
    for (const uint8_t *at = (const uint8_t *)text; *at;) {
        size_t bytes = sequence_bytes(at);
        if (bytes) {
            fwrite(at, 1, bytes, to);
            at += bytes;
            continue;
        }
        if (*at >= 0x80) {
            fputs("\\ufffd", to);
        } else if (*at < 0x20 || *at == 0x7f) {
            fprintf(to, "\\u%04x", *at);
        } else {
            fputs(*at == '"' || *at == '\\' ? "\\" : "", to);
            fputc(*at, to);
        }
        at++;
    }
    fputc('"', to);
}

static void print_members(struct vex_report *report, const struct vex_field *fields, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct vex_field *field = &fields[i];
        fputs(report->comma ? "," : "", report->to);
        report->comma = true;
        print_string(report->to, field->key);
        fputc(':', report->to);
        if (field->text) {
            print_string(report->to, field->text);
        } else if (field->boolean) {
            fputs(field->number ? "true" : "false", report->to);
        } else {
            fprintf(report->to, "%" PRIu64, field->number);
        }
    }
}

VEX_PRINTF(2, 0)
static void print_line(FILE *to, const char *format, va_list arguments)
{
    char *line = NULL;
    if (vasprintf(&line, format, arguments) < 0) {
        fputs("(no memory for this line)\n", to);
        return;
    }
    for (uint8_t *at = (uint8_t *)line; *at;) {
        size_t bytes = sequence_bytes(at);
        if (!bytes) {
            *at = *at < 0x20 || *at >= 0x7f ? '?' : *at;
            bytes = 1;
        }
        at += bytes;
    }
    fprintf(to, "%s\n", line);
    free(line);
}

void vex_report_begin(struct vex_report *report, const char *list)
{
    report->comma = false;
    report->in_list = list != NULL;
    if (report->json) {
        fputc('{', report->to);
    }
    if (report->json && list) {
        print_string(report->to, list);
        fputs(":[", report->to);
    }
}

void vex_report_item(struct vex_report *report, const struct vex_field *fields, size_t count,
                     const char *line, ...)
{
    if (report->json) {
        fputs(report->comma ? ",\n{" : "{", report->to);
        report->comma = false;
        print_members(report, fields, count);
        fputc('}', report->to);
        report->comma = true;
        return;
    }
    va_list arguments;
    va_start(arguments, line);
    print_line(report->to, line, arguments);
    va_end(arguments);
}

bool vex_report_end(struct vex_report *report, const struct vex_field *fields, size_t count,
                    const char *line, ...)
{
    if (report->json) {
        if (report->in_list) {
            fputc(']', report->to);
            report->comma = true;
        }
        print_members(report, fields, count);
        fputs("}\n", report->to);
    } else {
        va_list arguments;
        va_start(arguments, line);
        print_line(report->to, line, arguments);
        va_end(arguments);
    }
    return fflush(report->to) == 0 && !ferror(report->to);
}
