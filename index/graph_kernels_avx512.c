/*
 * The graph kernels for AVX-512 with VNNI (F, BW, DQ, VL, VNNI).
 *
 * Scoring takes four codes at a time: they share the loads of the query, and their eight sums hide
 * the latency of the dot-product instruction; a last group of fewer scores its first node again. The
 * beam is two arrays in order: the rank of a new distance is a count over whole registers, without
 * a branch to mispredict, and room is made by moving whole registers from the end.
 */
#include "index/graph_kernels.h"

#include <immintrin.h>
#include <math.h>

#define LANES 16u
#define LINE 64u
#define GROUP 4u
#define INLINE static inline __attribute__((always_inline))

INLINE __mmask16 first_lanes(size_t count)
{
    return (__mmask16)((1u << count) - 1);
}

static void centre_avx512(const float *in, float scale, const float *centre, size_t dim,
                          size_t padded, float *out)
{
    const __m512 factor = _mm512_set1_ps(scale);
    for (size_t i = 0; i < padded; i += LANES) {
        __mmask16 mask = i >= dim ? 0 : dim - i < LANES ? first_lanes(dim - i) : (__mmask16)0xffff;
        __m512 value = _mm512_maskz_loadu_ps(mask, in + i);
        __m512 middle = _mm512_maskz_loadu_ps(mask, centre + i);
        _mm512_storeu_ps(out + i, _mm512_fmsub_ps(value, factor, middle));
    }
}

static void flip_avx512(float *values, const uint8_t *bits, size_t count)
{
    const __m512i sign = _mm512_set1_epi32((int)0x80000000u);
    for (size_t i = 0; i < count; i += LANES) {
        __mmask16 mask = (__mmask16)(bits[i / 8] | bits[i / 8 + 1] << 8);
        __m512i value = _mm512_loadu_si512(values + i);
        _mm512_storeu_si512(values + i, _mm512_mask_xor_epi32(value, mask, value, sign));
    }
}

/* The four smallest strides, within a register. */
INLINE __m512 hadamard_lanes(__m512 x)
{
    const __m512i sign = _mm512_set1_epi32((int)0x80000000u);
    const __m512i zero = _mm512_setzero_si512();
#define SIGNED(mask, value)                                                                        \
    _mm512_castsi512_ps(                                                                           \
        _mm512_xor_si512(_mm512_castps_si512(value), _mm512_mask_blend_epi32((mask), zero, sign)))
    x = _mm512_add_ps(SIGNED(0xaaaa, x), _mm512_permute_ps(x, 0xb1));
    x = _mm512_add_ps(SIGNED(0xcccc, x), _mm512_permute_ps(x, 0x4e));
    x = _mm512_add_ps(SIGNED(0xf0f0, x), _mm512_shuffle_f32x4(x, x, 0xb1));
    x = _mm512_add_ps(SIGNED(0xff00, x), _mm512_shuffle_f32x4(x, x, 0x4e));
#undef SIGNED
    return x;
}

/* Two strides in one pass over memory. */
INLINE void hadamard_four(float *at, size_t stride)
{
    __m512 a = _mm512_loadu_ps(at);
    __m512 b = _mm512_loadu_ps(at + stride);
    __m512 c = _mm512_loadu_ps(at + 2 * stride);
    __m512 d = _mm512_loadu_ps(at + 3 * stride);
    __m512 ab = _mm512_add_ps(a, b);
    __m512 cd = _mm512_add_ps(c, d);
    a = _mm512_sub_ps(a, b);
    c = _mm512_sub_ps(c, d);
    _mm512_storeu_ps(at, _mm512_add_ps(ab, cd));
    _mm512_storeu_ps(at + stride, _mm512_add_ps(a, c));
    _mm512_storeu_ps(at + 2 * stride, _mm512_sub_ps(ab, cd));
    _mm512_storeu_ps(at + 3 * stride, _mm512_sub_ps(a, c));
}

static void hadamard_avx512(float *values, size_t count)
{
    const __m512 scale = _mm512_set1_ps(1 / sqrtf((float)count));
    for (size_t i = 0; i < count; i += LANES) {
        __m512 x = hadamard_lanes(_mm512_loadu_ps(values + i));
        _mm512_storeu_ps(values + i, _mm512_mul_ps(x, scale));
    }
    size_t half = LANES;
    for (; 4 * half <= count; half *= 4) {
        for (size_t i = 0; i < count; i += 4 * half) {
            for (size_t j = i; j < i + half; j += LANES) {
                hadamard_four(values + j, half);
            }
        }
    }
    for (size_t i = 0; half < count && i < half; i += LANES) {
        __m512 a = _mm512_loadu_ps(values + i);
        __m512 b = _mm512_loadu_ps(values + i + half);
        _mm512_storeu_ps(values + i, _mm512_add_ps(a, b));
        _mm512_storeu_ps(values + i + half, _mm512_sub_ps(a, b));
    }
}

static void butterfly_avx512(float *values, size_t half)
{
    const __m512 scale = _mm512_set1_ps(0.70710678f);
    for (size_t i = 0; i < half; i += LANES) {
        __m512 a = _mm512_mul_ps(_mm512_loadu_ps(values + i), scale);
        __m512 b = _mm512_mul_ps(_mm512_loadu_ps(values + i + half), scale);
        _mm512_storeu_ps(values + i, _mm512_add_ps(a, b));
        _mm512_storeu_ps(values + i + half, _mm512_sub_ps(a, b));
    }
}

static float max_abs_avx512(const float *values, size_t count)
{
    __m512 largest = _mm512_setzero_ps();
    size_t i = 0;
    for (; count - i >= LANES; i += LANES) {
        largest = _mm512_max_ps(largest, _mm512_abs_ps(_mm512_loadu_ps(values + i)));
    }
    __m512 rest = _mm512_maskz_loadu_ps(first_lanes(count - i), values + i);
    return _mm512_reduce_max_ps(_mm512_max_ps(largest, _mm512_abs_ps(rest)));
}

static float square_sum_avx512(const float *values, size_t count)
{
    __m512 sum = _mm512_setzero_ps();
    size_t i = 0;
    for (; count - i >= LANES; i += LANES) {
        __m512 x = _mm512_loadu_ps(values + i);
        sum = _mm512_fmadd_ps(x, x, sum);
    }
    __m512 rest = _mm512_maskz_loadu_ps(first_lanes(count - i), values + i);
    return _mm512_reduce_add_ps(_mm512_fmadd_ps(rest, rest, sum));
}

/* Codes of 16 values as floats of 0..15. max returns its second operand if one is NaN. */
INLINE __m512 codes_of(__m512 values, __m512 inverse_step)
{
    __m512 steps = _mm512_floor_ps(_mm512_mul_ps(values, inverse_step));
    steps = _mm512_add_ps(steps, _mm512_set1_ps(8));
    return _mm512_min_ps(_mm512_max_ps(steps, _mm512_setzero_ps()), _mm512_set1_ps(15));
}

static void code_fit_avx512(const float *values, size_t padded, float inverse_step, float out[2])
{
    const __m512 inverse = _mm512_set1_ps(inverse_step);
    __m512 dot = _mm512_setzero_ps();
    __m512 square = _mm512_setzero_ps();
    for (size_t i = 0; i < padded; i += LANES) {
        __m512 x = _mm512_loadu_ps(values + i);
        __m512 h = _mm512_sub_ps(codes_of(x, inverse), _mm512_set1_ps(VEX_CODE_MIDDLE));
        dot = _mm512_fmadd_ps(h, x, dot);
        square = _mm512_fmadd_ps(h, h, square);
    }
    out[0] = _mm512_reduce_add_ps(dot);
    out[1] = _mm512_reduce_add_ps(square);
}

static void code_pack_avx512(const float *values, size_t padded, float inverse_step, uint8_t *out)
{
    const __m512 inverse = _mm512_set1_ps(inverse_step);
    for (size_t i = 0; i < padded; i += VEX_CODE_CHUNK_DIMS) {
        for (size_t j = 0; j < LINE; j += LANES) {
            __m512 low = codes_of(_mm512_loadu_ps(values + i + j), inverse);
            __m512 high = codes_of(_mm512_loadu_ps(values + i + LINE + j), inverse);
            __m512i both = _mm512_or_si512(_mm512_cvtps_epi32(low),
                                           _mm512_slli_epi32(_mm512_cvtps_epi32(high), 4));
            _mm_storeu_si128((__m128i *)(void *)(out + i / 2 + j), _mm512_cvtepi32_epi8(both));
        }
    }
}

static int32_t quantise_avx512(const float *values, size_t count, float inverse, int limit,
                               int8_t *out)
{
    const __m512 factor = _mm512_set1_ps(inverse);
    const __m512 high = _mm512_set1_ps((float)limit);
    const __m512 low = _mm512_set1_ps((float)-limit);
    __m512i sum = _mm512_setzero_si512();
    for (size_t i = 0; i < count; i += LANES) {
        __mmask16 mask = count - i < LANES ? first_lanes(count - i) : (__mmask16)0xffff;
        __m512 x = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, values + i), factor);
        __m512i whole = _mm512_cvtps_epi32(_mm512_min_ps(_mm512_max_ps(x, low), high));
        sum = _mm512_add_epi32(sum, whole);
        _mm_mask_storeu_epi8(out + i, mask, _mm512_cvtepi32_epi8(whole));
    }
    return _mm512_reduce_add_epi32(sum);
}

/* Four registers of sums to four sums. */
INLINE __m128i fold_four(__m512i a, __m512i b, __m512i c, __m512i d)
{
    __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    __m512i all = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

INLINE __m128i dot_four(const uint8_t *const code[GROUP], const int8_t *query, size_t padded)
{
    const __m512i low_half = _mm512_set1_epi8(15);
    __m512i low[GROUP];
    __m512i high[GROUP];
#pragma GCC unroll 4
    for (size_t j = 0; j < GROUP; j++) {
        low[j] = _mm512_setzero_si512();
        high[j] = _mm512_setzero_si512();
    }
    for (size_t i = 0; i < padded; i += VEX_CODE_CHUNK_DIMS) {
        __m512i first = _mm512_loadu_si512(query + i);
        __m512i second = _mm512_loadu_si512(query + i + LINE);
#pragma GCC unroll 4
        for (size_t j = 0; j < GROUP; j++) {
            __m512i line = _mm512_loadu_si512(code[j] + i / 2);
            low[j] = _mm512_dpbusd_epi32(low[j], _mm512_and_si512(line, low_half), first);
            high[j] = _mm512_dpbusd_epi32(
                high[j], _mm512_and_si512(_mm512_srli_epi16(line, 4), low_half), second);
        }
    }
    return fold_four(_mm512_add_epi32(low[0], high[0]), _mm512_add_epi32(low[1], high[1]),
                     _mm512_add_epi32(low[2], high[2]), _mm512_add_epi32(low[3], high[3]));
}

static void score_avx512(const struct vex_code_query *query, const uint8_t *codes,
                         struct vex_score_batch *batch)
{
    const __m512 scale = _mm512_set1_ps(query->scale);
    const __m512 offset = _mm512_set1_ps(query->offset);
    const __m512 base = _mm512_set1_ps(query->base);
    const __m512 add_unit = _mm512_set1_ps(query->add_unit);
    const __m512 rescale_unit = _mm512_set1_ps(query->rescale_unit);
    size_t code_bytes = query->padded / 2;
    _Alignas(64) int32_t dots[LANES];
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
        __m512i factors = _mm512_loadu_si512(batch->factors + i);
        __m512 add = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(factors));
        __m512 rescale = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(factors, 16)));
        __mmask16 mask = left < LANES ? first_lanes(left) : (__mmask16)0xffff;
        __m512 dot = _mm512_cvtepi32_ps(_mm512_maskz_load_epi32(mask, dots));
        __m512 inner = _mm512_fmadd_ps(dot, scale, offset);
        __m512 distance = _mm512_fmadd_ps(_mm512_mul_ps(rescale, rescale_unit), inner,
                                          _mm512_fmadd_ps(add, add_unit, base));
        _mm512_mask_storeu_ps(batch->distances + i, mask, distance);
    }
}

INLINE uint32_t rank_of(const struct vex_beam *beam, float distance)
{
    const __m512 x = _mm512_set1_ps(distance);
    uint32_t rank = 0;
    for (uint32_t i = 0; i < beam->count; i += LANES) {
        __mmask16 below = _mm512_cmp_ps_mask(_mm512_loadu_ps(beam->distances + i), x, _CMP_LE_OQ);
        rank += (uint32_t)__builtin_popcount(below);
    }
    return rank;
}

/* Moves what is at [from, end) up by one. */
INLINE void make_room(struct vex_beam *beam, uint32_t from, uint32_t end)
{
    while (end - from >= LANES) {
        end -= LANES;
        __m512 distances = _mm512_loadu_ps(beam->distances + end);
        __m512i nodes = _mm512_loadu_si512(beam->nodes + end);
        _mm512_storeu_ps(beam->distances + end + 1, distances);
        _mm512_storeu_si512(beam->nodes + end + 1, nodes);
    }
    __mmask16 mask = first_lanes(end - from);
    __m512 distances = _mm512_maskz_loadu_ps(mask, beam->distances + from);
    __m512i nodes = _mm512_maskz_loadu_epi32(mask, beam->nodes + from);
    _mm512_mask_storeu_ps(beam->distances + from + 1, mask, distances);
    _mm512_mask_storeu_epi32(beam->nodes + from + 1, mask, nodes);
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
    make_room(beam, rank, kept);
    beam->distances[rank] = distance;
    beam->nodes[rank] = node;
    beam->count = kept + 1;
    beam->cursor = rank < beam->cursor ? rank : beam->cursor;
    return rank <= beam->cursor + VEX_BEAM_FETCH_AHEAD;
}

static void offer_avx512(struct vex_beam *beam, const struct vex_score_batch *batch)
{
    const float *last = beam->distances + beam->capacity - 1;
    for (uint32_t i = 0; i < batch->count; i += LANES) {
        uint32_t left = batch->count - i;
        __mmask16 inside = left < LANES ? first_lanes(left) : (__mmask16)0xffff;
        __m512 distances = _mm512_maskz_loadu_ps(inside, batch->distances + i);
        uint32_t nearer =
            _mm512_mask_cmp_ps_mask(inside, distances, _mm512_set1_ps(*last), _CMP_LT_OQ);
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

static void bytes_l2_avx512(const int8_t *query, const int8_t *base, size_t bytes,
                            const uint32_t *nodes, size_t count, float *out)
{
    for (size_t i = 0; i < count; i += GROUP) {
        const int8_t *other[GROUP];
        __m512i sums[GROUP];
#pragma GCC unroll 4
        for (size_t j = 0; j < GROUP; j++) {
            other[j] = base + nodes[i + j < count ? i + j : i] * bytes;
            sums[j] = _mm512_setzero_si512();
        }
        for (size_t d = 0; d < bytes; d += LINE) {
            __m512i part = _mm512_loadu_si512(query + d);
#pragma GCC unroll 4
            for (size_t j = 0; j < GROUP; j++) {
                __m512i difference =
                    _mm512_abs_epi8(_mm512_sub_epi8(part, _mm512_loadu_si512(other[j] + d)));
                sums[j] = _mm512_dpbusd_epi32(sums[j], difference, difference);
            }
        }
        __m128 folded = _mm_cvtepi32_ps(fold_four(sums[0], sums[1], sums[2], sums[3]));
        size_t left = count - i < GROUP ? count - i : GROUP;
        _mm_mask_storeu_ps(out + i, (__mmask8)first_lanes(left), folded);
    }
}

const struct vex_graph_kernels vex_graph_kernels_avx512 = {
    .centre = centre_avx512,
    .flip = flip_avx512,
    .hadamard = hadamard_avx512,
    .butterfly = butterfly_avx512,
    .max_abs = max_abs_avx512,
    .square_sum = square_sum_avx512,
    .code_fit = code_fit_avx512,
    .code_pack = code_pack_avx512,
    .quantise = quantise_avx512,
    .score = score_avx512,
    .offer = offer_avx512,
    .bytes_l2 = bytes_l2_avx512,
};
