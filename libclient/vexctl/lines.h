/*
 * A text file with one payload a line, beside an import file. Pure, like the reader: bytes in,
 * lines out. A line ends with "\n" or "\r\n"; an empty line means: no payload.
 */
#ifndef VEX_VEXCTL_LINES_H
#define VEX_VEXCTL_LINES_H

#include <stddef.h>
#include <stdint.h>

#include <vex/status.h>

struct vex_lines {
    const char *data;
    size_t bytes;
    size_t at;     /* offset of the next line */
    uint64_t line; /* its number, from 0 as rows are */
    uint64_t count;
};

/* Counts the lines and checks their lengths. Errors: FORMAT (empty), LIMIT (line too long). */
enum vex_status vex_lines_open_memory(struct vex_lines *out, const void *data, size_t bytes,
                                      struct vex_error *error);
/* Goes on with line `line`, at most the count. */
void vex_lines_seek(struct vex_lines *lines, uint64_t line);
/*
 * The next `count_max` lines at most, or fewer, such that `row_bytes` for each and their text stay
 * within bytes_max, but at least one if there is one. Returns their number. An empty line is NULL.
 */
size_t vex_lines_next(struct vex_lines *lines, size_t count_max, size_t row_bytes, size_t bytes_max,
                      const void **payloads, size_t *payload_bytes);

#endif
