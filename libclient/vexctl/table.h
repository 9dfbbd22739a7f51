/*
 * Aligned columns for people. Cells are collected first, because the widths are known only at the
 * end. The last column may hold long text: on a terminal it is cut at the right edge.
 */
#ifndef VEX_VEXCTL_TABLE_H
#define VEX_VEXCTL_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define VEX_TABLE_COLUMNS_MAX 10u

struct vex_table {
    const char *const *titles; /* one a column; a leading '>' aligns it to the right */
    size_t columns;
    char **cells; /* row after row */
    size_t cells_count;
    size_t cells_capacity;
};

/* Columns of standard output's terminal; SIZE_MAX if it is none, so that nothing is cut. */
size_t vex_table_screen_columns(void);

void vex_table_init(struct vex_table *table, const char *const *titles, size_t columns);
/* The next cell, left to right, row after row. */
void vex_table_add(struct vex_table *table, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Takes `cell`, which was malloc()ed. */
void vex_table_take(struct vex_table *table, char *cell);
/* Prints titles and rows, and forgets the rows. */
void vex_table_print(struct vex_table *table, FILE *to);
void vex_table_deinit(struct vex_table *table);

/* "name   value" lines; `width` is that of the longest name. */
void vex_table_line(FILE *to, int width, const char *name, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* "1 segment", "2 segments"; writes at most 48 bytes. */
void vex_table_count(char out[48], uint64_t count, const char *noun);
/* "1.5 GiB"; writes at most 16 bytes. */
void vex_table_bytes(char out[16], uint64_t bytes);
/* "3 d 04:05:06"; writes at most 32 bytes. */
void vex_table_duration(char out[32], uint64_t ms);

#endif
