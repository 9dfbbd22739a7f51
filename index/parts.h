/*
 * The sections of a segment that an index puts beside the rows: codes of the rows, a graph, inverted
 * lists, a table of what search effort is worth. A part is a section; which ones a segment has, its
 * shape says (segment.h). Each part's layout belongs to the file that reads it.
 *
 * Thread-safety: plain values.
 */
#ifndef VEX_INDEX_PARTS_H
#define VEX_INDEX_PARTS_H

#include <stddef.h>
#include <stdint.h>

#include <vex/status.h>

/* In the order in which they lie in the image. */
enum vex_index_part {
    VEX_PART_CODES_HEAD, /* code_set.h */
    VEX_PART_CODES_ROTATION,
    VEX_PART_CODES,
    VEX_PART_CODE_FACTORS,
    VEX_PART_CODE_ANGLES,
    VEX_PART_GRAPH_HEAD, /* graph.h */
    VEX_PART_GRAPH_ROWS,
    VEX_PART_GRAPH_UPPER,
    VEX_PART_EFFORT,     /* effort.h */
    VEX_PART_LISTS_HEAD, /* lists.h */
    VEX_PART_LISTS,
    VEX_PARTS_COUNT
};

/* What a part takes: bytes for each row of the segment's capacity, or bytes in all. */
struct vex_part_size {
    uint32_t row_bytes;
    uint64_t bytes; /* if row_bytes is 0 */
};

/* Where the parts lie in an image: NULL and 0 if there is none. */
struct vex_index_parts {
    const uint8_t *start[VEX_PARTS_COUNT];
    uint64_t bytes[VEX_PARTS_COUNT];
};

/* What a part with a head begins with. */
struct vex_part_mark {
    uint32_t magic; /* 0: not built */
    uint32_t version;
};

/*
 * Copies the head of `part`, `bytes` bytes that begin with a mark, into `out_head`, so that what is checked
 * is what is used. A part that is not there, or not built, leaves magic 0. `what` names it in messages.
 * Errors: CORRUPT, VERSION.
 */
enum vex_status vex_part_head(const struct vex_index_parts *parts, enum vex_index_part part,
                              const char *what, const struct vex_part_mark *expected,
                              void *out_head, size_t bytes, struct vex_error *error);

#endif
