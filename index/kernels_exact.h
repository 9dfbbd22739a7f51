/* The ranking kernels that the tables of AVX2 and AVX-512 share. */
#ifndef VEX_INDEX_KERNELS_EXACT_H
#define VEX_INDEX_KERNELS_EXACT_H

#include <stddef.h>

void vex_l2_f64_four_avx2(const float *query, const float *const rows[4], size_t dim,
                          double out[4]);
void vex_dot_f64_four_avx2(const float *query, const float *const rows[4], size_t dim,
                           double out_dots[4], double *out_squares);

#endif
