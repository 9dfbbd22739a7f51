/*
 * Rows of halves and of bytes for AVX-512: sixteen coordinates at a time into floats. Ranking stays
 * with AVX2, because the documented order has four sums and no use for eight lanes.
 */
#include "index/store_kernels.h"

#include <immintrin.h>
#include <stdint.h>

#include "index/store_kernels_avx2.h"

#define LANES 16u

static void decode_half(const void *row, float scale, size_t count, float *out)
{
    (void)scale;
    const uint16_t *halves = row;
    size_t d = 0;
    for (; count - d >= LANES; d += LANES) {
        __m256i part = _mm256_loadu_si256((const __m256i *)(const void *)(halves + d));
        _mm512_storeu_ps(out + d, _mm512_cvtph_ps(part));
    }
    if (d < count) {
        __mmask16 mask = (__mmask16)((1u << (count - d)) - 1);
        _mm512_mask_storeu_ps(out + d, mask,
                              _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, halves + d)));
    }
}

static void decode_int8(const void *row, float scale, size_t count, float *out)
{
    const int8_t *bytes = row;
    const __m512 factor = _mm512_set1_ps(scale);
    size_t d = 0;
    for (; count - d >= LANES; d += LANES) {
        __m128i part = _mm_loadu_si128((const __m128i *)(const void *)(bytes + d));
        __m512 steps = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(part));
        _mm512_storeu_ps(out + d, _mm512_mul_ps(steps, factor));
    }
    if (d < count) {
        __mmask16 mask = (__mmask16)((1u << (count - d)) - 1);
        __m128i part = _mm_maskz_loadu_epi8(mask, bytes + d);
        __m512 steps = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(part));
        _mm512_mask_storeu_ps(out + d, mask, _mm512_mul_ps(steps, factor));
    }
}

const struct vex_store_kernels vex_half_kernels_avx512 = {
    .decode = decode_half,
    .l2_f64_four = vex_l2_f64_four_half_avx2,
    .dot_f64_four = vex_dot_f64_four_half_avx2,
};

const struct vex_store_kernels vex_int8_kernels_avx512 = {
    .decode = decode_int8,
    .l2_f64_four = vex_l2_f64_four_int8_avx2,
    .dot_f64_four = vex_dot_f64_four_int8_avx2,
};
