/*
 * Ranking in double precision, four rows at a time, with the bits of kernels.c, for rows of floats, of
 * halves and of bytes.
 *
 * The documented order has four partial sums, and a register of AVX2 has four doubles: sum j is lane
 * j, and nothing is reordered. A row alone would wait for each addition to finish; four rows do not.
 * No fused operations: their results differ. (A lane beyond the last dimension adds 0 * 0, and a sum
 * that began at +0 is not changed by that, to the bit.)
 *
 * Only the loads differ: a coordinate goes to a float, exactly, and then to a double. Tails are masked,
 * or copied out of the row, so that nothing beyond it is read.
 */
#include "index/kernels_exact.h"

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "index/store_kernels_avx2.h"

#define LANES 4u
#define ROWS 4u
#define INLINE static inline __attribute__((always_inline)) /* forms and flags must fold away */

enum form { FLOATS, HALVES, BYTES };

INLINE __m256d widen_floats(const float *from, size_t left)
{
    if (left >= LANES) {
        return _mm256_cvtps_pd(_mm_loadu_ps(from));
    }
    __m128i mask = _mm_cmpgt_epi32(_mm_set1_epi32((int)left), _mm_setr_epi32(0, 1, 2, 3));
    return _mm256_cvtps_pd(_mm_maskload_ps(from, mask));
}

/* Four coordinates of which the first `left` are the row's. */
INLINE __m256d widen(enum form form, const void *row, float scale, size_t d, size_t left)
{
    if (form == FLOATS) {
        return widen_floats((const float *)row + d, left);
    }
    size_t count = left < LANES ? left : LANES;
    if (form == HALVES) {
        uint64_t halves = 0;
        memcpy(&halves, (const uint16_t *)row + d, count * sizeof(uint16_t));
        return _mm256_cvtps_pd(_mm_cvtph_ps(_mm_cvtsi64_si128((long long)halves)));
    }
    uint32_t bytes = 0;
    memcpy(&bytes, (const int8_t *)row + d, count);
    __m128 steps = _mm_cvtepi32_ps(_mm_cvtepi8_epi32(_mm_cvtsi32_si128((int)bytes)));
    return _mm256_cvtps_pd(_mm_mul_ps(steps, _mm_set1_ps(scale)));
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

INLINE void l2_four(enum form form, const float *query, const void *const rows[4],
                    const float scales[4], size_t dim, double out[4])
{
    __m256d sums[ROWS];
#pragma GCC unroll 4
    for (size_t i = 0; i < ROWS; i++) {
        sums[i] = _mm256_setzero_pd();
    }
    size_t d = 0;
    for (; dim - d >= LANES; d += LANES) {
        __m256d part = widen_floats(query + d, LANES);
#pragma GCC unroll 4
        for (size_t i = 0; i < ROWS; i++) {
            __m256d x = widen(form, rows[i], scales[i], d, LANES);
            sums[i] = add_square(sums[i], _mm256_sub_pd(part, x));
        }
    }
    for (size_t i = 0; i < ROWS; i++) {
        if (d < dim) {
            __m256d x = widen(form, rows[i], scales[i], d, dim - d);
            sums[i] = add_square(sums[i], _mm256_sub_pd(widen_floats(query + d, dim - d), x));
        }
        out[i] = total(sums[i]);
    }
}

INLINE void dot_four(enum form form, bool with_squares, const float *query,
                     const void *const rows[4], const float scales[4], size_t dim,
                     double out_dots[4], double *out_squares)
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
        __m256d part = widen_floats(query + d, LANES);
#pragma GCC unroll 4
        for (size_t i = 0; i < ROWS; i++) {
            __m256d x = widen(form, rows[i], scales[i], d, LANES);
            dots[i] = _mm256_add_pd(dots[i], _mm256_mul_pd(part, x));
            squares[i] = with_squares ? add_square(squares[i], x) : squares[i];
        }
    }
    for (size_t i = 0; i < ROWS; i++) {
        if (d < dim) {
            __m256d x = widen(form, rows[i], scales[i], d, dim - d);
            __m256d part = widen_floats(query + d, dim - d);
            dots[i] = _mm256_add_pd(dots[i], _mm256_mul_pd(part, x));
            squares[i] = with_squares ? add_square(squares[i], x) : squares[i];
        }
        out_dots[i] = total(dots[i]);
        if (with_squares) {
            out_squares[i] = total(squares[i]);
        }
    }
}

/* Floats have no scale. */
static const float no_scales[ROWS] = {1, 1, 1, 1};

void vex_l2_f64_four_avx2(const float *query, const float *const rows[4], size_t dim, double out[4])
{
    const void *const places[ROWS] = {rows[0], rows[1], rows[2], rows[3]};
    l2_four(FLOATS, query, places, no_scales, dim, out);
}

void vex_dot_f64_four_avx2(const float *query, const float *const rows[4], size_t dim,
                           double out_dots[4], double *out_squares)
{
    const void *const places[ROWS] = {rows[0], rows[1], rows[2], rows[3]};
    if (out_squares) {
        dot_four(FLOATS, true, query, places, no_scales, dim, out_dots, out_squares);
    } else {
        dot_four(FLOATS, false, query, places, no_scales, dim, out_dots, NULL);
    }
}

void vex_l2_f64_four_half_avx2(const float *query, const void *const rows[4], const float scales[4],
                               size_t dim, double out[4])
{
    l2_four(HALVES, query, rows, scales, dim, out);
}

void vex_l2_f64_four_int8_avx2(const float *query, const void *const rows[4], const float scales[4],
                               size_t dim, double out[4])
{
    l2_four(BYTES, query, rows, scales, dim, out);
}

void vex_dot_f64_four_half_avx2(const float *query, const void *const rows[4],
                                const float scales[4], size_t dim, double out_dots[4],
                                double *out_squares)
{
    if (out_squares) {
        dot_four(HALVES, true, query, rows, scales, dim, out_dots, out_squares);
    } else {
        dot_four(HALVES, false, query, rows, scales, dim, out_dots, NULL);
    }
}

void vex_dot_f64_four_int8_avx2(const float *query, const void *const rows[4],
                                const float scales[4], size_t dim, double out_dots[4],
                                double *out_squares)
{
    if (out_squares) {
        dot_four(BYTES, true, query, rows, scales, dim, out_dots, out_squares);
    } else {
        dot_four(BYTES, false, query, rows, scales, dim, out_dots, NULL);
    }
}
