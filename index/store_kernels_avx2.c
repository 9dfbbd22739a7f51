/*
 * Rows of halves and of bytes for AVX2 and F16C.
 *
 * Ranking is as in kernels_exact_avx2.c: partial sum j of the documented order is lane j, four rows
 * hide the latency of the additions, nothing is fused. Only the loads differ; a coordinate goes to a
 * float, exactly, and then to a double. Tails are copied out of the row, so that nothing beyond it is
 * read; lanes beyond the last dimension hold 0 and add 0.
 */
#include "index/store_kernels.h"

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "index/half.h"
#include "index/store_kernels_avx2.h"

#define LANES 4u
#define ROWS 4u
#define DECODE_LANES 8u
#define INLINE static inline __attribute__((always_inline)) /* flags must fold away */

/* Four coordinates of which the first `left` are the row's. */
INLINE __m128 load_four(bool is_half, const void *row, float scale, size_t d, size_t left)
{
    size_t count = left < LANES ? left : LANES;
    if (is_half) {
        uint64_t halves = 0;
        memcpy(&halves, (const uint16_t *)row + d, count * sizeof(uint16_t));
        return _mm_cvtph_ps(_mm_cvtsi64_si128((long long)halves));
    }
    uint32_t bytes = 0;
    memcpy(&bytes, (const int8_t *)row + d, count);
    __m128 steps = _mm_cvtepi32_ps(_mm_cvtepi8_epi32(_mm_cvtsi32_si128((int)bytes)));
    return _mm_mul_ps(steps, _mm_set1_ps(scale));
}

INLINE __m256d widen(bool is_half, const void *row, float scale, size_t d, size_t left)
{
    return _mm256_cvtps_pd(load_four(is_half, row, scale, d, left));
}

INLINE __m256d widen_query(const float *query, size_t left)
{
    if (left >= LANES) {
        return _mm256_cvtps_pd(_mm_loadu_ps(query));
    }
    __m128i mask = _mm_cmpgt_epi32(_mm_set1_epi32((int)left), _mm_setr_epi32(0, 1, 2, 3));
    return _mm256_cvtps_pd(_mm_maskload_ps(query, mask));
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

INLINE void l2_four(bool is_half, const float *query, const void *const rows[4],
                    const float scales[4], size_t dim, double out[4])
{
    __m256d sums[ROWS];
#pragma GCC unroll 4
    for (size_t i = 0; i < ROWS; i++) {
        sums[i] = _mm256_setzero_pd();
    }
    size_t d = 0;
    for (; dim - d >= LANES; d += LANES) {
        __m256d part = widen_query(query + d, LANES);
#pragma GCC unroll 4
        for (size_t i = 0; i < ROWS; i++) {
            __m256d x = widen(is_half, rows[i], scales[i], d, LANES);
            sums[i] = add_square(sums[i], _mm256_sub_pd(part, x));
        }
    }
    for (size_t i = 0; i < ROWS; i++) {
        if (d < dim) {
            __m256d x = widen(is_half, rows[i], scales[i], d, dim - d);
            sums[i] = add_square(sums[i], _mm256_sub_pd(widen_query(query + d, dim - d), x));
        }
        out[i] = total(sums[i]);
    }
}

INLINE void dot_four(bool is_half, bool with_squares, const float *query, const void *const rows[4],
                     const float scales[4], size_t dim, double out_dots[4], double *out_squares)
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
        __m256d part = widen_query(query + d, LANES);
#pragma GCC unroll 4
        for (size_t i = 0; i < ROWS; i++) {
            __m256d x = widen(is_half, rows[i], scales[i], d, LANES);
            dots[i] = _mm256_add_pd(dots[i], _mm256_mul_pd(part, x));
            squares[i] = with_squares ? add_square(squares[i], x) : squares[i];
        }
    }
    for (size_t i = 0; i < ROWS; i++) {
        if (d < dim) {
            __m256d x = widen(is_half, rows[i], scales[i], d, dim - d);
            __m256d part = widen_query(query + d, dim - d);
            dots[i] = _mm256_add_pd(dots[i], _mm256_mul_pd(part, x));
            squares[i] = with_squares ? add_square(squares[i], x) : squares[i];
        }
        out_dots[i] = total(dots[i]);
        if (with_squares) {
            out_squares[i] = total(squares[i]);
        }
    }
}

void vex_l2_f64_four_half_avx2(const float *query, const void *const rows[4], const float scales[4],
                               size_t dim, double out[4])
{
    l2_four(true, query, rows, scales, dim, out);
}

void vex_l2_f64_four_int8_avx2(const float *query, const void *const rows[4], const float scales[4],
                               size_t dim, double out[4])
{
    l2_four(false, query, rows, scales, dim, out);
}

void vex_dot_f64_four_half_avx2(const float *query, const void *const rows[4],
                                const float scales[4], size_t dim, double out_dots[4],
                                double *out_squares)
{
    if (out_squares) {
        dot_four(true, true, query, rows, scales, dim, out_dots, out_squares);
    } else {
        dot_four(true, false, query, rows, scales, dim, out_dots, NULL);
    }
}

void vex_dot_f64_four_int8_avx2(const float *query, const void *const rows[4],
                                const float scales[4], size_t dim, double out_dots[4],
                                double *out_squares)
{
    if (out_squares) {
        dot_four(false, true, query, rows, scales, dim, out_dots, out_squares);
    } else {
        dot_four(false, false, query, rows, scales, dim, out_dots, NULL);
    }
}

static void decode_half(const void *row, float scale, size_t count, float *out)
{
    (void)scale;
    const uint16_t *halves = row;
    size_t d = 0;
    for (; count - d >= DECODE_LANES; d += DECODE_LANES) {
        __m128i eight = _mm_loadu_si128((const __m128i *)(const void *)(halves + d));
        _mm256_storeu_ps(out + d, _mm256_cvtph_ps(eight));
    }
    for (; d < count; d++) {
        out[d] = vex_half_to_float(halves[d]);
    }
}

static void decode_int8(const void *row, float scale, size_t count, float *out)
{
    const int8_t *bytes = row;
    const __m256 factor = _mm256_set1_ps(scale);
    size_t d = 0;
    for (; count - d >= DECODE_LANES; d += DECODE_LANES) {
        __m128i eight = _mm_loadl_epi64((const __m128i *)(const void *)(bytes + d));
        __m256 steps = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(eight));
        _mm256_storeu_ps(out + d, _mm256_mul_ps(steps, factor));
    }
    for (; d < count; d++) {
        out[d] = (float)bytes[d] * scale;
    }
}

const struct vex_store_kernels vex_half_kernels_avx2 = {
    .decode = decode_half,
    .l2_f64_four = vex_l2_f64_four_half_avx2,
    .dot_f64_four = vex_dot_f64_four_half_avx2,
};

const struct vex_store_kernels vex_int8_kernels_avx2 = {
    .decode = decode_int8,
    .l2_f64_four = vex_l2_f64_four_int8_avx2,
    .dot_f64_four = vex_dot_f64_four_int8_avx2,
};
