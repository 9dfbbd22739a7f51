/* The ranking kernels of halves and bytes that the tables of AVX2 and AVX-512 share. */
#ifndef VEX_INDEX_STORE_KERNELS_AVX2_H
#define VEX_INDEX_STORE_KERNELS_AVX2_H

#include <stddef.h>

void vex_l2_f64_four_half_avx2(const float *query, const void *const rows[4], const float scales[4],
                               size_t dim, double out[4]);
void vex_l2_f64_four_int8_avx2(const float *query, const void *const rows[4], const float scales[4],
                               size_t dim, double out[4]);
void vex_dot_f64_four_half_avx2(const float *query, const void *const rows[4],
                                const float scales[4], size_t dim, double out_dots[4],
                                double *out_squares);
void vex_dot_f64_four_int8_avx2(const float *query, const void *const rows[4],
                                const float scales[4], size_t dim, double out_dots[4],
                                double *out_squares);

#endif
