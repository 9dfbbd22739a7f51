/*
 * Ranking in double precision, four rows at a time, with the bits of kernels.c.
 *
 * The documented order has four partial sums, and a register of AVX2 has four doubles: sum j is lane
 * j, and nothing is reordered. A row alone would wait for each addition to finish; four rows do not.
 * No fused operations: their results differ. (A lane beyond the last dimension adds 0 * 0, and a sum
 * that began at +0 is not changed by that, to the bit.)
 */
#include "index/kernels_exact.h"

#include <immintrin.h>
#include <stdbool.h>

#define LANES 4u
#define ROWS 4u
#define INLINE static inline __attribute__((always_inline)) /* flags must fold away */

INLINE __m256d widen(const float *from, size_t left)
{
    if (left >= LANES) {
        return _mm256_cvtps_pd(_mm_loadu_ps(from));
    }
    __m128i mask = _mm_cmpgt_epi32(_mm_set1_epi32((int)left), _mm_setr_epi32(0, 1, 2, 3));
    return _mm256_cvtps_pd(_mm_maskload_ps(from, mask));
}

INLINE double total(__m256d sums)
{
    double lanes[LANES];
    _mm256_storeu_pd(lanes, sums);
    return (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
}

INLINE __m256d add_square(__m256d sum, __m256d x)
{
    return _mm256_add_pd(sum, _mm256_mul_pd(x, x));
}

void vex_l2_f64_four_avx2(const float *query, const float *const rows[4], size_t dim, double out[4])
{
    __m256d sums[ROWS];
#pragma GCC unroll 4
    for (size_t i = 0; i < ROWS; i++) {
        sums[i] = _mm256_setzero_pd();
    }
    size_t d = 0;
    for (; dim - d >= LANES; d += LANES) {
        __m256d part = widen(query + d, LANES);
#pragma GCC unroll 4
        for (size_t i = 0; i < ROWS; i++) {
            sums[i] = add_square(sums[i], _mm256_sub_pd(part, widen(rows[i] + d, LANES)));
        }
    }
    for (size_t i = 0; i < ROWS; i++) {
        if (d < dim) {
            __m256d part = widen(query + d, dim - d);
            sums[i] = add_square(sums[i], _mm256_sub_pd(part, widen(rows[i] + d, dim - d)));
        }
        out[i] = total(sums[i]);
    }
}

INLINE void dot_four(const float *query, const float *const rows[4], size_t dim, double out_dots[4],
                     double *out_squares, bool with_squares)
{
    __m256d dots[ROWS];
    __m256d squares[ROWS];
#pragma GCC unroll 4
    for (size_t i = 0; i < ROWS; i++) {
        dots[i] = _mm256_setzero_pd();
        squares[i] = _mm256_setzero_pd();
    }
    size_t d = 0;
    for (; dim - d >= LANES; d += LANES) {
        __m256d part = widen(query + d, LANES);
#pragma GCC unroll 4
        for (size_t i = 0; i < ROWS; i++) {
            __m256d x = widen(rows[i] + d, LANES);
            dots[i] = _mm256_add_pd(dots[i], _mm256_mul_pd(part, x));
            squares[i] = with_squares ? add_square(squares[i], x) : squares[i];
        }
    }
    for (size_t i = 0; i < ROWS; i++) {
        if (d < dim) {
            __m256d x = widen(rows[i] + d, dim - d);
            dots[i] = _mm256_add_pd(dots[i], _mm256_mul_pd(widen(query + d, dim - d), x));
            squares[i] = with_squares ? add_square(squares[i], x) : squares[i];
        }
        out_dots[i] = total(dots[i]);
        if (with_squares) {
            out_squares[i] = total(squares[i]);
        }
    }
}

void vex_dot_f64_four_avx2(const float *query, const float *const rows[4], size_t dim,
                           double out_dots[4], double *out_squares)
{
    if (out_squares) {
        dot_four(query, rows, dim, out_dots, out_squares, true);
    } else {
        dot_four(query, rows, dim, out_dots, out_squares, false);
    }
}
