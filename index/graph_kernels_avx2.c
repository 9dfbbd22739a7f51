/*
 * The graph kernels for AVX2, FMA and F16C.
 *
 * A byte product of these instructions saturates 16 bits unless both factors are small: codes are
 * below 16 and so are safe with a full eight-bit query (two pairs of products stay below 7,700), and
 * bytes for building are within -63..63. Otherwise as the file for AVX-512: four codes share the
 * query, ranks are counted over registers.
 */
#include "index/graph_kernels.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define LANES 8u
#define WIDE 32u /* bytes of a register */
#define LINE 64u
#define GROUP 4u
#define INLINE static inline __attribute__((always_inline))

INLINE __m256i first_lanes(size_t count)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)count),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static void centre_avx2(const float *in, float scale, const float *centre, size_t dim,
                        size_t padded, float *out)
{
    const __m256 factor = _mm256_set1_ps(scale);
    size_t i = 0;
    for (; dim - i >= LANES; i += LANES) {
        _mm256_storeu_ps(
            out + i, _mm256_fmsub_ps(_mm256_loadu_ps(in + i), factor, _mm256_loadu_ps(centre + i)));
    }
    if (i < dim) {
        __m256i mask = first_lanes(dim - i);
        _mm256_storeu_ps(out + i, _mm256_fmsub_ps(_mm256_maskload_ps(in + i, mask), factor,
                                                  _mm256_maskload_ps(centre + i, mask)));
        i += LANES;
    }
    for (; i < padded; i += LANES) {
        _mm256_storeu_ps(out + i, _mm256_setzero_ps());
    }
}

static void flip_avx2(float *values, const uint8_t *bits, size_t count)
{
    const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i sign = _mm256_set1_epi32((int)0x80000000u);
    for (size_t i = 0; i < count; i += LANES) {
        __m256i picked = _mm256_and_si256(_mm256_set1_epi32(bits[i / 8]), bit);
        __m256i flips = _mm256_and_si256(_mm256_cmpeq_epi32(picked, bit), sign);
        __m256 value = _mm256_loadu_ps(values + i);
        _mm256_storeu_ps(values + i, _mm256_xor_ps(value, _mm256_castsi256_ps(flips)));
    }
}

/* The three smallest strides, within a register. */
INLINE __m256 hadamard_lanes(__m256 x)
{
    const __m256 one = _mm256_setr_ps(0.0f, -0.0f, 0.0f, -0.0f, 0.0f, -0.0f, 0.0f, -0.0f);
    const __m256 two = _mm256_setr_ps(0.0f, 0.0f, -0.0f, -0.0f, 0.0f, 0.0f, -0.0f, -0.0f);
    const __m256 four = _mm256_setr_ps(0.0f, 0.0f, 0.0f, 0.0f, -0.0f, -0.0f, -0.0f, -0.0f);
    x = _mm256_add_ps(_mm256_xor_ps(x, one), _mm256_permute_ps(x, 0xb1));
    x = _mm256_add_ps(_mm256_xor_ps(x, two), _mm256_permute_ps(x, 0x4e));
    return _mm256_add_ps(_mm256_xor_ps(x, four), _mm256_permute2f128_ps(x, x, 0x01));
}

static void hadamard_avx2(float *values, size_t count)
{
    const __m256 scale = _mm256_set1_ps(1 / sqrtf((float)count));
    for (size_t i = 0; i < count; i += LANES) {
        __m256 x = hadamard_lanes(_mm256_loadu_ps(values + i));
        _mm256_storeu_ps(values + i, _mm256_mul_ps(x, scale));
    }
    for (size_t half = LANES; half < count; half *= 2) {
        for (size_t i = 0; i < count; i += 2 * half) {
            for (size_t j = i; j < i + half; j += LANES) {
                __m256 a = _mm256_loadu_ps(values + j);
                __m256 b = _mm256_loadu_ps(values + j + half);
                _mm256_storeu_ps(values + j, _mm256_add_ps(a, b));
                _mm256_storeu_ps(values + j + half, _mm256_sub_ps(a, b));
            }
        }
    }
}

static void butterfly_avx2(float *values, size_t half)
{
    const __m256 scale = _mm256_set1_ps(0.70710678f);
    for (size_t i = 0; i < half; i += LANES) {
        __m256 a = _mm256_mul_ps(_mm256_loadu_ps(values + i), scale);
        __m256 b = _mm256_mul_ps(_mm256_loadu_ps(values + i + half), scale);
        _mm256_storeu_ps(values + i, _mm256_add_ps(a, b));
        _mm256_storeu_ps(values + i + half, _mm256_sub_ps(a, b));
    }
}

INLINE __m256 absolute(__m256 x)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
}

INLINE __m128 halves_max(__m256 x)
{
    return _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
}

static float max_abs_avx2(const float *values, size_t count)
{
    __m256 largest = _mm256_setzero_ps();
    size_t i = 0;
    for (; count - i >= LANES; i += LANES) {
        largest = _mm256_max_ps(largest, absolute(_mm256_loadu_ps(values + i)));
    }
    __m256 rest = _mm256_maskload_ps(values + i, first_lanes(count - i));
    __m128 four = halves_max(_mm256_max_ps(largest, absolute(rest)));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}

INLINE float total(__m256 x)
{
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}

static float square_sum_avx2(const float *values, size_t count)
{
    __m256 sum = _mm256_setzero_ps();
    size_t i = 0;
    for (; count - i >= LANES; i += LANES) {
        __m256 x = _mm256_loadu_ps(values + i);
        sum = _mm256_fmadd_ps(x, x, sum);
    }
    __m256 rest = _mm256_maskload_ps(values + i, first_lanes(count - i));
    return total(_mm256_fmadd_ps(rest, rest, sum));
}

/* Codes of 8 values as floats of 0..15. max returns its second operand if one is NaN. */
INLINE __m256 codes_of(__m256 values, __m256 inverse_step)
{
    __m256 steps = _mm256_floor_ps(_mm256_mul_ps(values, inverse_step));
    steps = _mm256_add_ps(steps, _mm256_set1_ps(8));
    return _mm256_min_ps(_mm256_max_ps(steps, _mm256_setzero_ps()), _mm256_set1_ps(15));
}

static void code_fit_avx2(const float *values, size_t padded, float inverse_step, float out[2])
{
    const __m256 inverse = _mm256_set1_ps(inverse_step);
    __m256 dot = _mm256_setzero_ps();
    __m256 square = _mm256_setzero_ps();
    for (size_t i = 0; i < padded; i += LANES) {
        __m256 x = _mm256_loadu_ps(values + i);
        __m256 h = _mm256_sub_ps(codes_of(x, inverse), _mm256_set1_ps(VEX_CODE_MIDDLE));
        dot = _mm256_fmadd_ps(h, x, dot);
        square = _mm256_fmadd_ps(h, h, square);
    }
    out[0] = total(dot);
    out[1] = total(square);
}

/* The low bytes of eight numbers of 0..255. */
INLINE void store_bytes(uint8_t *out, __m256i numbers)
{
    __m128i words =
        _mm_packs_epi32(_mm256_castsi256_si128(numbers), _mm256_extracti128_si256(numbers, 1));
    _mm_storel_epi64((__m128i *)(void *)out, _mm_packus_epi16(words, words));
}

static void code_pack_avx2(const float *values, size_t padded, float inverse_step, uint8_t *out)
{
    const __m256 inverse = _mm256_set1_ps(inverse_step);
    for (size_t i = 0; i < padded; i += VEX_CODE_CHUNK_DIMS) {
        for (size_t j = 0; j < LINE; j += LANES) {
            __m256 low = codes_of(_mm256_loadu_ps(values + i + j), inverse);
            __m256 high = codes_of(_mm256_loadu_ps(values + i + LINE + j), inverse);
            store_bytes(out + i / 2 + j,
                        _mm256_or_si256(_mm256_cvtps_epi32(low),
                                        _mm256_slli_epi32(_mm256_cvtps_epi32(high), 4)));
        }
    }
}

static int32_t quantise_avx2(const float *values, size_t count, float inverse, int limit,
                             int8_t *out)
{
    const __m256 factor = _mm256_set1_ps(inverse);
    const __m256 high = _mm256_set1_ps((float)limit);
    const __m256 low = _mm256_set1_ps((float)-limit);
    int32_t sum = 0;
    for (size_t i = 0; i < count; i += LANES) {
        size_t left = count - i < LANES ? count - i : LANES;
        __m256 x = _mm256_mul_ps(_mm256_maskload_ps(values + i, first_lanes(left)), factor);
        __m256i whole = _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(x, low), high));
        __m128i words =
            _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
        int8_t bytes[16];
        _mm_storeu_si128((__m128i *)(void *)bytes, _mm_packs_epi16(words, words));
        memcpy(out + i, bytes, left);
        __m128i ones = _mm_madd_epi16(words, _mm_set1_epi16(1));
        ones = _mm_add_epi32(ones, _mm_shuffle_epi32(ones, 0x4e));
        sum += _mm_cvtsi128_si32(ones) + _mm_extract_epi32(ones, 1);
    }
    return sum;
}

INLINE __m256i load(const void *from)
{
    return _mm256_loadu_si256(from);
}

/* Four registers of sums to four sums. */
INLINE __m128i fold_four(const __m256i sums[GROUP])
{
    __m256i all =
        _mm256_hadd_epi32(_mm256_hadd_epi32(sums[0], sums[1]), _mm256_hadd_epi32(sums[2], sums[3]));
    return _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
}

INLINE __m128i dot_four(const uint8_t *const code[GROUP], const int8_t *query, size_t padded)
{
    const __m256i low_half = _mm256_set1_epi8(15);
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sums[GROUP];
#pragma GCC unroll 4
    for (size_t j = 0; j < GROUP; j++) {
        sums[j] = _mm256_setzero_si256();
    }
    for (size_t i = 0; i < padded; i += VEX_CODE_CHUNK_DIMS) {
#pragma GCC unroll 2
        for (size_t part = 0; part < LINE; part += WIDE) {
            __m256i first = load(query + i + part);
            __m256i second = load(query + i + LINE + part);
#pragma GCC unroll 4
            for (size_t j = 0; j < GROUP; j++) {
                __m256i line = load(code[j] + i / 2 + part);
                __m256i low = _mm256_maddubs_epi16(_mm256_and_si256(line, low_half), first);
                __m256i high = _mm256_maddubs_epi16(
                    _mm256_and_si256(_mm256_srli_epi16(line, 4), low_half), second);
                sums[j] =
                    _mm256_add_epi32(sums[j], _mm256_madd_epi16(_mm256_add_epi16(low, high), ones));
            }
        }
    }
    return fold_four(sums);
}

INLINE __m256 factor_of(__m256i shifted)
{
    const __m256i low_word = _mm256_set1_epi32(0xffff);
    __m256i words = _mm256_and_si256(shifted, low_word);
    __m128i halves =
        _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    return _mm256_cvtph_ps(halves);
}

static void score_avx2(const struct vex_code_query *query, const uint8_t *codes,
                       struct vex_score_batch *batch)
{
    const __m256 scale = _mm256_set1_ps(query->scale);
    const __m256 offset = _mm256_set1_ps(query->offset);
    const __m256 base = _mm256_set1_ps(query->base);
    const __m256 add_unit = _mm256_set1_ps(query->add_unit);
    const __m256 rescale_unit = _mm256_set1_ps(query->rescale_unit);
    size_t code_bytes = query->padded / 2;
    _Alignas(32) int32_t dots[LANES] = {0};
    for (uint32_t i = 0; i < batch->count; i += LANES) {
        uint32_t left = batch->count - i < LANES ? batch->count - i : LANES;
        for (uint32_t j = 0; j < left; j += GROUP) {
            const uint8_t *code[GROUP];
            for (uint32_t g = 0; g < GROUP; g++) {
                code[g] = codes + batch->nodes[i + (j + g < left ? j + g : j)] * code_bytes;
            }
            _mm_store_si128((__m128i *)(void *)(dots + j),
                            dot_four(code, query->values, query->padded));
        }
        __m256i factors = load(batch->factors + i);
        __m256 add = factor_of(factors);
        __m256 rescale = factor_of(_mm256_srli_epi32(factors, 16));
        __m256 dot = _mm256_cvtepi32_ps(load(dots));
        __m256 inner = _mm256_fmadd_ps(dot, scale, offset);
        __m256 distance = _mm256_fmadd_ps(_mm256_mul_ps(rescale, rescale_unit), inner,
                                          _mm256_fmadd_ps(add, add_unit, base));
        _mm256_storeu_ps(batch->distances + i, distance);
    }
}

INLINE uint32_t rank_of(const struct vex_beam *beam, float distance)
{
    const __m256 x = _mm256_set1_ps(distance);
    uint32_t rank = 0;
    for (uint32_t i = 0; i < beam->count; i += LANES) {
        __m256 below = _mm256_cmp_ps(_mm256_loadu_ps(beam->distances + i), x, _CMP_LE_OQ);
        rank += (uint32_t)__builtin_popcount((unsigned)_mm256_movemask_ps(below));
    }
    return rank;
}

INLINE int insert(struct vex_beam *beam, float distance, uint32_t node)
{
    uint32_t rank = rank_of(beam, distance);
    for (uint32_t i = rank; i-- > 0 && beam->distances[i] == distance;) {
        if ((beam->nodes[i] & ~VEX_NODE_EXPANDED) == node) {
            return 0;
        }
    }
    uint32_t kept = beam->count < beam->capacity ? beam->count : beam->capacity - 1;
    memmove(beam->distances + rank + 1, beam->distances + rank, (kept - rank) * sizeof(float));
    memmove(beam->nodes + rank + 1, beam->nodes + rank, (kept - rank) * sizeof(uint32_t));
    beam->distances[rank] = distance;
    beam->nodes[rank] = node;
    beam->count = kept + 1;
    beam->cursor = rank < beam->cursor ? rank : beam->cursor;
    return rank <= beam->cursor + VEX_BEAM_FETCH_AHEAD;
}

static void offer_avx2(struct vex_beam *beam, const struct vex_score_batch *batch)
{
    const float *last = beam->distances + beam->capacity - 1;
    for (uint32_t i = 0; i < batch->count; i += LANES) {
        uint32_t left = batch->count - i;
        unsigned inside = left < LANES ? (1u << left) - 1 : 0xffu;
        __m256 distances = _mm256_loadu_ps(batch->distances + i);
        unsigned nearer = inside & (unsigned)_mm256_movemask_ps(
                                       _mm256_cmp_ps(distances, _mm256_set1_ps(*last), _CMP_LT_OQ));
        for (; nearer; nearer &= nearer - 1) {
            uint32_t at = i + (uint32_t)__builtin_ctz(nearer);
            if (!(batch->distances[at] < *last) ||
                !insert(beam, batch->distances[at], batch->nodes[at]) || !beam->rows) {
                continue;
            }
            const uint8_t *row = beam->rows + batch->nodes[at] * beam->row_bytes;
            for (size_t byte = 0; byte < beam->row_bytes; byte += LINE) {
                _mm_prefetch((const char *)row + byte, _MM_HINT_T0);
            }
        }
    }
}

static void bytes_l2_avx2(const int8_t *query, const int8_t *base, size_t bytes,
                          const uint32_t *nodes, size_t count, float *out)
{
    const __m256i ones = _mm256_set1_epi16(1);
    for (size_t i = 0; i < count; i += GROUP) {
        const int8_t *other[GROUP];
        __m256i sums[GROUP];
        size_t left = count - i < GROUP ? count - i : GROUP;
#pragma GCC unroll 4
        for (size_t j = 0; j < GROUP; j++) {
            other[j] = base + nodes[i + (j < left ? j : 0)] * bytes;
            sums[j] = _mm256_setzero_si256();
        }
        for (size_t d = 0; d < bytes; d += WIDE) {
            __m256i part = load(query + d);
#pragma GCC unroll 4
            for (size_t j = 0; j < GROUP; j++) {
                __m256i difference = _mm256_abs_epi8(_mm256_sub_epi8(part, load(other[j] + d)));
                __m256i squares = _mm256_maddubs_epi16(difference, difference);
                sums[j] = _mm256_add_epi32(sums[j], _mm256_madd_epi16(squares, ones));
            }
        }
        float folded[GROUP];
        _mm_storeu_ps(folded, _mm_cvtepi32_ps(fold_four(sums)));
        memcpy(out + i, folded, left * sizeof(*out));
    }
}

const struct vex_graph_kernels vex_graph_kernels_avx2 = {
    .centre = centre_avx2,
    .flip = flip_avx2,
    .hadamard = hadamard_avx2,
    .butterfly = butterfly_avx2,
    .max_abs = max_abs_avx2,
    .square_sum = square_sum_avx2,
    .code_fit = code_fit_avx2,
    .code_pack = code_pack_avx2,
    .quantise = quantise_avx2,
    .score = score_avx2,
    .offer = offer_avx2,
    .bytes_l2 = bytes_l2_avx2,
};
