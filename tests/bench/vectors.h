/*
 * Files of vectors as the data sets of this field come: each row is a 32-bit number of values, then
 * the values: float32 (.fvecs), bytes (.bvecs) or 32-bit integers (.ivecs), little-endian. They are
 * read whole, bytes as floats; whatever does not fit the form is refused with its place.
 */
#ifndef VEX_BENCH_VECTORS_H
#define VEX_BENCH_VECTORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vex_vectors {
    float *values;     /* rows x dim; NULL for .ivecs */
    int32_t *integers; /* rows x dim of .ivecs, else NULL */
    size_t rows;
    uint32_t dim;
};

/*
 * The first rows_max rows of the file; the end of its name says what they are, and `integers`
 * whether that must be .ivecs or must not. False after saying why, the message beginning with
 * `option`.
 */
bool vex_vectors_read(struct vex_vectors *vectors, const char *option, const char *path,
                      bool integers, size_t rows_max);
/* Accepts a zeroed struct. */
void vex_vectors_free(struct vex_vectors *vectors);

#endif
