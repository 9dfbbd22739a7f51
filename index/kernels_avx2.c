/*
 * The kernels for AVX2 and FMA.
 *
 * Eight rows at a time, one accumulator each, as in the file for AVX-512 and for the same reasons;
 * a step takes a whole cache line, two registers, of each row. Measured on a Zen 5 core, this is
 * the fastest shape in the first-level cache (200 to 235 GB/s from 64 dimensions on). Beyond the
 * caches it reads at 87 to 97 per cent of a plain read; one row at a time comes closer (95 to 100),
 * but halves the speed in the cache, because then every step loads the query too. Software prefetch
 * gained at one dimension what it lost at the next, so there is none.
 *
 * Fewer than eight rows are scored as four or eight, the last one repeated, so that a row has the
 * same bits wherever it stands in a run. The last `dim % 8` floats are loaded under a mask, which
 * neither touches nor faults on what lies beyond.
 */
#include "index/kernels.h"

#include <immintrin.h>

#include "index/kernels_exact.h"

#define LANES 8u
#define GROUP_ROWS 8u
#define INLINE static inline __attribute__((always_inline)) /* is_l2 must fold away */

static const int magnitude_bits = 0x7fffffff;
static const int largest_finite_bits = 0x7f7fffff;

INLINE __m256i first_lanes(size_t count)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)count),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

INLINE __m256 add_term(bool is_l2, __m256 sum, __m256 query, __m256 row)
{
    if (is_l2) {
        __m256 difference = _mm256_sub_ps(query, row);
        return _mm256_fmadd_ps(difference, difference, sum);
    }
    return _mm256_fmadd_ps(query, row, sum);
}

/* Four registers to four sums in each half. */
INLINE __m256 fold_four(const __m256 sums[4])
{
    return _mm256_hadd_ps(_mm256_hadd_ps(sums[0], sums[1]), _mm256_hadd_ps(sums[2], sums[3]));
}

INLINE __m256 fold(const __m256 sums[GROUP_ROWS])
{
    __m256 first = fold_four(sums);
    __m256 second = fold_four(sums + 4);
    return _mm256_add_ps(_mm256_permute2f128_ps(first, second, 0x20),
                         _mm256_permute2f128_ps(first, second, 0x31));
}

/*
 * The first group_rows (4 or 8, a constant) of the eight scores; rows after `last` are taken to be
 * `last` again.
 */
INLINE __m256 score_group(bool is_l2, size_t group_rows, const float *query, const float *rows,
                          size_t stride, size_t last, size_t dim)
{
    const float *row[GROUP_ROWS];
    __m256 sums[GROUP_ROWS];
#pragma GCC unroll 8
    for (size_t i = 0; i < GROUP_ROWS; i++) {
        row[i] = rows + (i < last ? i : last) * stride;
        sums[i] = _mm256_setzero_ps();
    }
    size_t d = 0;
    for (; dim - d >= 2 * LANES; d += 2 * LANES) {
        __m256 part = _mm256_loadu_ps(query + d);
        __m256 next = _mm256_loadu_ps(query + d + LANES);
#pragma GCC unroll 8
        for (size_t i = 0; i < group_rows; i++) {
            sums[i] = add_term(is_l2, sums[i], part, _mm256_loadu_ps(row[i] + d));
            sums[i] = add_term(is_l2, sums[i], next, _mm256_loadu_ps(row[i] + d + LANES));
        }
    }
    if (dim - d >= LANES) {
        __m256 part = _mm256_loadu_ps(query + d);
#pragma GCC unroll 8
        for (size_t i = 0; i < group_rows; i++) {
            sums[i] = add_term(is_l2, sums[i], part, _mm256_loadu_ps(row[i] + d));
        }
        d += LANES;
    }
    if (d < dim) {
        __m256i mask = first_lanes(dim - d);
        __m256 part = _mm256_maskload_ps(query + d, mask);
#pragma GCC unroll 8
        for (size_t i = 0; i < group_rows; i++) {
            sums[i] = add_term(is_l2, sums[i], part, _mm256_maskload_ps(row[i] + d, mask));
        }
    }
    return fold(sums);
}

INLINE void score_rows(bool is_l2, const float *query, const float *rows, size_t stride,
                       size_t count, size_t dim, float *out)
{
    size_t i = 0;
    for (; count - i >= GROUP_ROWS; i += GROUP_ROWS) {
        const float *first = rows + i * stride;
        __m256 scores = score_group(is_l2, GROUP_ROWS, query, first, stride, GROUP_ROWS - 1, dim);
        _mm256_storeu_ps(out + i, scores);
    }
    if (i < count) {
        const float *first = rows + i * stride;
        size_t left = count - i;
        __m256 scores =
            left <= GROUP_ROWS / 2
                ? score_group(is_l2, GROUP_ROWS / 2, query, first, stride, left - 1, dim)
                : score_group(is_l2, GROUP_ROWS, query, first, stride, left - 1, dim);
        _mm256_maskstore_ps(out + i, first_lanes(left), scores);
    }
}

static void l2_rows_avx2(const float *query, const float *rows, size_t stride, size_t count,
                         size_t dim, float *out)
{
    score_rows(true, query, rows, stride, count, dim, out);
}

static void dot_rows_avx2(const float *query, const float *rows, size_t stride, size_t count,
                          size_t dim, float *out)
{
    score_rows(false, query, rows, stride, count, dim, out);
}

/* Without its sign, a float is finite if its bits, as an integer, are at most those of FLT_MAX. */
static bool all_finite_avx2(const float *values, size_t count)
{
    const __m256i magnitude = _mm256_set1_epi32(magnitude_bits);
    __m256i worst = _mm256_setzero_si256();
    size_t i = 0;
    for (; count - i >= LANES; i += LANES) {
        __m256i bits = _mm256_castps_si256(_mm256_loadu_ps(values + i));
        worst = _mm256_max_epi32(worst, _mm256_and_si256(bits, magnitude));
    }
    __m256 rest = _mm256_maskload_ps(values + i, first_lanes(count - i));
    worst = _mm256_max_epi32(worst, _mm256_and_si256(_mm256_castps_si256(rest), magnitude));
    __m256i wrong = _mm256_cmpgt_epi32(worst, _mm256_set1_epi32(largest_finite_bits));
    return _mm256_testz_si256(wrong, wrong) != 0;
}

const struct vex_kernels vex_kernels_avx2 = {
    .name = "avx2",
    .l2_rows = l2_rows_avx2,
    .dot_rows = dot_rows_avx2,
    .all_finite = all_finite_avx2,
    .l2_f64_four = vex_l2_f64_four_avx2,
    .dot_f64_four = vex_dot_f64_four_avx2,
    .graph = &vex_graph_kernels_avx2,
    .half = &vex_half_kernels_avx2,
    .int8 = &vex_int8_kernels_avx2,
    .scan = &vex_scan_kernels_avx2,
};
