/*
 * The codes of a segment's rows (codes.h), as sections of its image: what every index starts from.
 *
 * The graph walks by them, lists are scanned by them, and exact search leaves out by them what
 * cannot be among the nearest. A row's code is its own and the rotation that of all, so one set of
 * codes serves all three.
 *
 * Beside a code lie two factors, as half floats in units of their means, and an angle. With x the
 * row as code_space.h sees it (centred, scaled, rotated) and h its code in steps:
 *
 *     A = |x|^2      r = -2 A / <x, h>      sine of the angle between x and h, rounded up
 *
 * A row that has no direction (zero) has A = 0, r = 0 and a sine of 1. Under cosine a row whose length
 * or its inverse is not a normal float is not where its code says: its angle is VEX_ANGLE_UNKNOWN.
 *
 * Numbers are bounded at attach. Nothing read from a code or a factor leads anywhere: damaged bytes
 * give wrong numbers only.
 *
 * Thread-safety: a set is immutable. Building (code_build.h) writes it once.
 */
#ifndef VEX_INDEX_CODE_SET_H
#define VEX_INDEX_CODE_SET_H

#include <stdint.h>

#include <vex/status.h>

#include "index/codes.h"
#include "index/parts.h"

#define VEX_CODES_MAGIC 0x43584556u /* "VEXC" */
#define VEX_CODES_VERSION 1u
/*
 * Blur: by how much an estimate of the distance to the nearest row is off, as a share of what lies
 * between that distance and that of the sixteenth; the median over a sample. Where rows lie in groups
 * that are far apart and narrow, four bits that reach over all groups do not tell the rows of one from
 * each other. Codes more blurred than this are good for leaving rows out (their error is known), but
 * not to walk by: at 0.5 a walk needs about twice the effort.
 */
#define VEX_CODES_BLUR_MAX 0.25f
/* Rows from which on codes are worth having: below, a scan of the vectors takes microseconds. */
#define VEX_CODES_ROWS_MIN 256u
/* The angle of a row about which its code says nothing that could be relied on: not a number. */
#define VEX_ANGLE_UNKNOWN 0x7e00u

/* The section VEX_PART_CODES_HEAD. On disk. */
struct vex_codes_head {
    uint32_t magic; /* 0: not built */
    uint32_t version;
    uint32_t count;
    uint32_t padded;
    uint64_t seed;
    float scale; /* of rows, L2 and dot: the longest becomes 1 */
    float add_unit;
    float rescale_unit;
    float mean_length; /* of a centred row */
    float blur;
    uint32_t reserved[5];
};

/* A checked set: pointers into the image and private copies of what bounds them. */
struct vex_codes {
    uint32_t count; /* rows that have one, the first so many; 0: none */
    uint32_t padded;
    float scale;
    float add_unit;
    float rescale_unit;
    float mean_length;
    float blur;
    const float *centre; /* [dim] */
    struct vex_rotation rotation;
    const uint8_t *codes;    /* [count][padded / 2] */
    const uint32_t *factors; /* [count]: half floats, low A / add_unit, high r / rescale_unit */
    const uint16_t *angles;  /* [count]: half floats */
};

/* Of a part of the codes. */
struct vex_part_size vex_codes_part_size(enum vex_index_part part, uint32_t dim);

/*
 * Checks the parts of a segment with `capacity_rows` rows of `dim` and fills *out; codes that are not
 * built yet, or not there, give count 0. Errors: CORRUPT, VERSION.
 */
enum vex_status vex_codes_attach(struct vex_codes *out, const struct vex_index_parts *parts,
                                 uint32_t dim, uint32_t capacity_rows, struct vex_error *error);

#endif
