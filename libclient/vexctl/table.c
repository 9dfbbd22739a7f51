/*
 * Tables: collect, measure, print. Widths are in columns of the terminal, not bytes, see utf8.h.
 */
#include "libclient/vexctl/table.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "libclient/vexctl/context.h"
#include "libclient/vexctl/utf8.h"

#define GAP "  "
#define GAP_COLUMNS 2u
#define CUT "..."
#define LAST_COLUMNS_MIN 8u /* a narrow terminal wraps rather than hides everything */

size_t vex_table_screen_columns(void)
{
    struct winsize size;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0) {
        return SIZE_MAX;
    }
    return size.ws_col ? size.ws_col : 80;
}

void vex_table_init(struct vex_table *table, const char *const *titles, size_t columns)
{
    *table = (struct vex_table){.titles = titles, .columns = columns};
}

void vex_table_take(struct vex_table *table, char *cell)
{
    if (table->cells_count == table->cells_capacity) {
        table->cells_capacity = table->cells_capacity ? table->cells_capacity * 2 : 64;
        table->cells =
            vex_context_realloc(table->cells, table->cells_capacity, sizeof(*table->cells));
    }
    table->cells[table->cells_count++] = cell;
}

void vex_table_add(struct vex_table *table, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    char *cell;
    if (vasprintf(&cell, format, arguments) < 0) {
        vex_context_end_without_memory();
    }
    va_end(arguments);
    vex_table_take(table, cell);
}

/* Columns that `text` takes; *out_bytes is how much of it fits into `columns_max`. */
static size_t measure(const char *text, size_t columns_max, size_t *out_bytes)
{
    size_t bytes = strlen(text);
    size_t columns = 0;
    size_t at = 0;
    while (at < bytes) {
        uint32_t code;
        size_t used = vex_utf8_next(text + at, bytes - at, &code);
        size_t width = used ? vex_utf8_width(code) : 1;
        if (columns + width > columns_max) {
            break;
        }
        columns += width;
        at += used ? used : 1;
    }
    *out_bytes = at;
    return columns;
}

static void print_last(FILE *to, const char *text, size_t columns_max)
{
    size_t bytes;
    (void)measure(text, columns_max, &bytes);
    if (!text[bytes]) {
        fprintf(to, "%s\n", text);
        return;
    }
    (void)measure(text, columns_max - (sizeof(CUT) - 1), &bytes);
    fwrite(text, 1, bytes, to);
    fputs(CUT "\n", to);
}

static void print_row(const struct vex_table *table, FILE *to, char *const *row,
                      const size_t *widths, size_t last_max)
{
    for (size_t i = 0; i < table->columns; i++) {
        const char *text = row ? row[i] : table->titles[i] + (table->titles[i][0] == '>');
        bool right = table->titles[i][0] == '>';
        bool last = i + 1 == table->columns;
        size_t bytes;
        size_t columns = measure(text, SIZE_MAX, &bytes);
        size_t padding = columns < widths[i] ? widths[i] - columns : 0;
        if (right) {
            fprintf(to, "%*s", (int)padding, "");
        }
        if (last) {
            print_last(to, text, last_max);
        } else {
            fprintf(to, "%s%*s" GAP, text, right ? 0 : (int)padding, "");
        }
    }
}

void vex_table_print(struct vex_table *table, FILE *to)
{
    size_t widths[VEX_TABLE_COLUMNS_MAX];
    size_t before_last = 0;
    for (size_t i = 0; i < table->columns; i++) {
        size_t bytes;
        widths[i] = measure(table->titles[i] + (table->titles[i][0] == '>'), SIZE_MAX, &bytes);
        for (size_t cell = i; cell < table->cells_count; cell += table->columns) {
            size_t columns = measure(table->cells[cell], SIZE_MAX, &bytes);
            widths[i] = columns > widths[i] ? columns : widths[i];
        }
        if (i + 1 < table->columns) {
            before_last += widths[i] + GAP_COLUMNS;
        }
    }
    size_t screen = vex_table_screen_columns();
    size_t last_max = screen > before_last + LAST_COLUMNS_MIN ? screen - before_last : screen;
    if (last_max < LAST_COLUMNS_MIN) {
        last_max = SIZE_MAX;
    }
    print_row(table, to, NULL, widths, last_max);
    for (size_t cell = 0; cell + table->columns <= table->cells_count; cell += table->columns) {
        print_row(table, to, table->cells + cell, widths, last_max);
    }
    for (size_t cell = 0; cell < table->cells_count; cell++) {
        free(table->cells[cell]);
    }
    table->cells_count = 0;
}

void vex_table_deinit(struct vex_table *table)
{
    for (size_t cell = 0; cell < table->cells_count; cell++) {
        free(table->cells[cell]);
    }
    free(table->cells);
    *table = (struct vex_table){0};
}

void vex_table_line(FILE *to, int width, const char *name, const char *format, ...)
{
    fprintf(to, "%-*s  ", width, name);
    va_list arguments;
    va_start(arguments, format);
    vfprintf(to, format, arguments);
    va_end(arguments);
    fputc('\n', to);
}

void vex_table_bytes(char out[16], uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 1023.95 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        value /= 1024;
        unit++;
    }
    (void)snprintf(out, 16, unit ? "%.1f %s" : "%.0f %s", value, units[unit]);
}

void vex_table_count(char out[48], uint64_t count, const char *noun)
{
    (void)snprintf(out, 48, "%" PRIu64 " %s%s", count, noun, count == 1 ? "" : "s");
}

void vex_table_duration(char out[32], uint64_t ms)
{
    uint64_t seconds = ms / 1000;
    uint64_t days = seconds / 86400;
    unsigned rest = (unsigned)(seconds % 86400);
    if (days) {
        (void)snprintf(out, 32, "%" PRIu64 " d %02u:%02u:%02u", days, rest / 3600, rest / 60 % 60,
                       rest % 60);
    } else if (rest >= 60) {
        (void)snprintf(out, 32, "%02u:%02u:%02u", rest / 3600, rest / 60 % 60, rest % 60);
    } else {
        (void)snprintf(out, 32, "%u.%u s", rest, (unsigned)(ms % 1000 / 100));
    }
}
