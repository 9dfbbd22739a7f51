/*
 * Rows of halves and of bytes for AVX2 and F16C. Their ranking is in kernels_exact_avx2.c, where that of
 * floats is.
 */
#include "index/store_kernels.h"

#include <immintrin.h>
#include <stdint.h>

#include "index/half.h"
#include "index/store_kernels_avx2.h"

#define DECODE_LANES 8u

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
