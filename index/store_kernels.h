/*
 * Kernels for rows that are not floats: turning them into floats, and ranking them in double
 * precision as they lie.
 *
 * A stored coordinate is a float exactly (store.h), so what the ranking kernels give are the bits that
 * vex_l2_f64 and vex_dot_f64 give for the decoded row: same order, no fused operations. They convert
 * on the way because a decoded copy of a row of any dimension would need memory that a search does not
 * have, and would be read once.
 *
 * Any bytes are safe; garbage may decode to NaN or infinity. Kernels read `dim` coordinates of a row and
 * nothing beyond. Tables per storage and instruction set hang on struct vex_kernels.
 */
#ifndef VEX_INDEX_STORE_KERNELS_H
#define VEX_INDEX_STORE_KERNELS_H

#include <stddef.h>

struct vex_store_kernels {
    /* `scale` is that of the row; halves have none and ignore it. */
    void (*decode)(const void *row, float scale, size_t count, float *out);
    /* As the members of struct vex_kernels for floats. */
    void (*l2_f64_four)(const float *query, const void *const rows[4], const float scales[4],
                        size_t dim, double out[4]);
    void (*dot_f64_four)(const float *query, const void *const rows[4], const float scales[4],
                         size_t dim, double out_dots[4], double *out_squares);
};

extern const struct vex_store_kernels vex_half_kernels_scalar;
extern const struct vex_store_kernels vex_int8_kernels_scalar;
#if defined(__x86_64__)
extern const struct vex_store_kernels vex_half_kernels_avx2;
extern const struct vex_store_kernels vex_int8_kernels_avx2;
extern const struct vex_store_kernels vex_half_kernels_avx512; /* ranks as AVX2 does */
extern const struct vex_store_kernels vex_int8_kernels_avx512;
#endif

#endif
