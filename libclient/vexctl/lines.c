/*
 * Lines of payloads: found with memchr() as they are needed, so that a file of any size takes no
 * memory.
 */
#include "libclient/vexctl/lines.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include <vex/types.h>

#include "libclient/vexctl/fault.h"

/* The next line, which there is. */
static const char *take_line(struct vex_lines *lines, size_t *out_bytes)
{
    const char *start = lines->data + lines->at;
    const char *newline = memchr(start, '\n', lines->bytes - lines->at);
    size_t bytes = newline ? (size_t)(newline - start) : lines->bytes - lines->at;
    lines->at += bytes + (newline ? 1 : 0);
    lines->line++;
    if (bytes > 0 && start[bytes - 1] == '\r') {
        bytes--;
    }
    *out_bytes = bytes;
    return start;
}

enum vex_status vex_lines_open_memory(struct vex_lines *out, const void *data, size_t bytes,
                                      struct vex_error *error)
{
    struct vex_lines lines = {.data = data, .bytes = bytes};
    if (bytes == 0) {
        return vex_fault(error, VEX_ERR_FORMAT, "the file is empty");
    }
    while (lines.at < bytes) {
        size_t at = lines.at;
        size_t line_bytes;
        (void)take_line(&lines, &line_bytes);
        if (line_bytes > VEX_PAYLOAD_MAX) {
            return vex_fault(error, VEX_ERR_LIMIT,
                             "line %" PRIu64 " (byte %zu) has %zu bytes, a payload has at most %u",
                             lines.line, at, line_bytes, VEX_PAYLOAD_MAX);
        }
    }
    lines.count = lines.line;
    lines.line = 0;
    lines.at = 0;
    *out = lines;
    return VEX_OK;
}

void vex_lines_seek(struct vex_lines *lines, uint64_t line)
{
    if (line < lines->line) {
        lines->line = 0;
        lines->at = 0;
    }
    while (lines->line < line && lines->at < lines->bytes) {
        size_t bytes;
        (void)take_line(lines, &bytes);
    }
}

size_t vex_lines_next(struct vex_lines *lines, size_t count_max, size_t row_bytes, size_t bytes_max,
                      const void **payloads, size_t *payload_bytes)
{
    size_t count = 0;
    size_t used = 0;
    while (count < count_max && lines->at < lines->bytes) {
        struct vex_lines before = *lines;
        size_t bytes;
        const char *text = take_line(lines, &bytes);
        bool too_long = bytes > VEX_PAYLOAD_MAX; /* only if the file changed since it was opened */
        if (count > 0 && (too_long || used + row_bytes + bytes > bytes_max)) {
            *lines = before;
            break;
        }
        payloads[count] = bytes && !too_long ? text : NULL;
        payload_bytes[count] = too_long ? 0 : bytes;
        used += row_bytes + bytes;
        count++;
    }
    return count;
}
