/*
 * The scan kernels for AVX2, FMA and F16C.
 *
 * Products of bytes are summed in sixteen bits: a pair of them is at most 2 * 15 * 127 = 3,810, so
 * eight steps fit before they must be widened (30,480). Otherwise as the file for AVX-512, with eight
 * rows in a register and two queries at a time, for want of registers.
 */
#include "index/scan_kernels.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define LANES 8u
#define WIDE 32u /* bytes of a register */
#define LINE VEX_CODE_CHUNK_BYTES
#define GROUP 4u
#define STEP_DIMS 4u
#define STEP_BYTES (VEX_TILE_ROWS * STEP_DIMS)
#define STEPS_NARROW 8u /* sums of 16 bits hold so many */
#define QUARTERS (VEX_TILE_ROWS / LANES)
#define FETCH_AHEAD_BYTES 8192u
#define FETCH_AHEAD_ROWS 512u /* of factors and angles */
#define INLINE static inline __attribute__((always_inline))

INLINE __m256i load(const void *from)
{
    return _mm256_loadu_si256(from);
}

INLINE void store(void *to, __m256i value)
{
    _mm256_storeu_si256(to, value);
}

/* ---- one query ------------------------------------------------------------------------------- */

/* The sum of a code, spread over eight lanes. */
INLINE __m256i one_row(const uint8_t *code, const int8_t *query, size_t padded)
{
    const __m256i low_half = _mm256_set1_epi8(15);
    __m256i sum = _mm256_setzero_si256();
    for (size_t i = 0; i < padded; i += VEX_CODE_CHUNK_DIMS) {
        __m256i front = load(code + i / 2);
        __m256i back = load(code + i / 2 + WIDE);
        _mm_prefetch((const char *)code + i / 2 + FETCH_AHEAD_BYTES, _MM_HINT_T0);
        __m256i a = _mm256_maddubs_epi16(_mm256_and_si256(front, low_half), load(query + i));
        __m256i b = _mm256_maddubs_epi16(_mm256_and_si256(back, low_half), load(query + i + WIDE));
        __m256i c = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(front, 4), low_half),
                                         load(query + i + LINE));
        __m256i d = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(back, 4), low_half),
                                         load(query + i + LINE + WIDE));
        __m256i narrow = _mm256_add_epi16(_mm256_add_epi16(a, b), _mm256_add_epi16(c, d));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(narrow, _mm256_set1_epi16(1)));
    }
    return sum;
}

INLINE __m128i four_rows(const uint8_t *const code[GROUP], const int8_t *query, size_t padded)
{
    __m256i a = one_row(code[0], query, padded);
    __m256i b = one_row(code[1], query, padded);
    __m256i c = one_row(code[2], query, padded);
    __m256i d = one_row(code[3], query, padded);
    __m256i all = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    return _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
}

static void dots_avx2(const int8_t *query, const uint8_t *codes, size_t padded, size_t count,
                      int32_t *out)
{
    size_t code_bytes = padded / 2;
    size_t i = 0;
    for (; count - i >= GROUP; i += GROUP) {
        const uint8_t *at = codes + i * code_bytes;
        const uint8_t *const code[GROUP] = {at, at + code_bytes, at + 2 * code_bytes,
                                            at + 3 * code_bytes};
        _mm_storeu_si128((__m128i *)(void *)(out + i), four_rows(code, query, padded));
    }
    if (i < count) {
        const uint8_t *code[GROUP];
        int32_t sums[GROUP];
        for (size_t j = 0; j < GROUP; j++) {
            code[j] = codes + (i + j < count ? i + j : i) * code_bytes;
        }
        _mm_storeu_si128((__m128i *)(void *)sums, four_rows(code, query, padded));
        memcpy(out + i, sums, (count - i) * sizeof(*out));
    }
}

/* ---- tiles ----------------------------------------------------------------------------------- */

/* Turns eight rows of eight words into eight columns. */
INLINE void transpose(__m256i rows[LANES])
{
    __m256i pairs[LANES];
    __m256i fours[LANES];
#pragma GCC unroll 4
    for (size_t i = 0; i < LANES; i += 2) {
        pairs[i] = _mm256_unpacklo_epi32(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm256_unpackhi_epi32(rows[i], rows[i + 1]);
    }
#pragma GCC unroll 2
    for (size_t i = 0; i < LANES; i += 4) {
        fours[i] = _mm256_unpacklo_epi64(pairs[i], pairs[i + 2]);
        fours[i + 1] = _mm256_unpackhi_epi64(pairs[i], pairs[i + 2]);
        fours[i + 2] = _mm256_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
        fours[i + 3] = _mm256_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
    }
#pragma GCC unroll 4
    for (size_t c = 0; c < 4; c++) {
        rows[c] = _mm256_permute2x128_si256(fours[c], fours[4 + c], 0x20);
        rows[4 + c] = _mm256_permute2x128_si256(fours[c], fours[4 + c], 0x31);
    }
}

static void tile_pack_avx2(const uint8_t *codes, size_t padded, size_t count, uint8_t *tile)
{
    const __m256i low_half = _mm256_set1_epi8(15);
    size_t code_bytes = padded / 2;
    for (size_t first = 0; first < VEX_TILE_ROWS; first += LANES) {
        for (size_t i = 0; i < code_bytes; i += WIDE) {
            __m256i rows[LANES];
#pragma GCC unroll 8
            for (size_t j = 0; j < LANES; j++) {
                rows[j] = first + j < count ? load(codes + (first + j) * code_bytes + i)
                                            : _mm256_setzero_si256();
            }
            /* Wanted when the queries are through with this tile. */
            for (size_t j = 0; j < LANES; j++) {
                _mm_prefetch((const char *)codes + (VEX_TILE_ROWS + first + j) * code_bytes + i,
                             _MM_HINT_T1);
            }
            transpose(rows);
            size_t dim = i / LINE * VEX_CODE_CHUNK_DIMS + i % LINE;
            uint8_t *low = tile + dim * VEX_TILE_ROWS + first * STEP_DIMS;
            uint8_t *high = low + LINE * VEX_TILE_ROWS;
#pragma GCC unroll 8
            for (size_t j = 0; j < LANES; j++) {
                store(low + j * STEP_BYTES, _mm256_and_si256(rows[j], low_half));
                store(high + j * STEP_BYTES,
                      _mm256_and_si256(_mm256_srli_epi16(rows[j], 4), low_half));
            }
        }
    }
}

INLINE __m256i broadcast(const int8_t *from)
{
    int32_t word;
    memcpy(&word, from, sizeof(word));
    return _mm256_set1_epi32(word);
}

/* `count` is a constant wherever this is inlined: 1 or 2. */
INLINE void some_queries(const uint8_t *tile, size_t padded, const int8_t *const *queries,
                         const size_t count, int32_t *out)
{
    const __m256i ones = _mm256_set1_epi16(1);
    memset(out, 0, count * VEX_TILE_ROWS * sizeof(*out));
    for (size_t d = 0; d < padded; d += STEPS_NARROW * STEP_DIMS) {
        __m256i narrow[2][QUARTERS];
#pragma GCC unroll 2
        for (size_t q = 0; q < count; q++) {
#pragma GCC unroll 4
            for (size_t r = 0; r < QUARTERS; r++) {
                narrow[q][r] = _mm256_setzero_si256();
            }
        }
        for (size_t step = d; step < d + STEPS_NARROW * STEP_DIMS; step += STEP_DIMS) {
            __m256i bytes[2];
#pragma GCC unroll 2
            for (size_t q = 0; q < count; q++) {
                bytes[q] = broadcast(queries[q] + step);
            }
#pragma GCC unroll 4
            for (size_t r = 0; r < QUARTERS; r++) {
                __m256i rows = load(tile + step * VEX_TILE_ROWS + r * WIDE);
#pragma GCC unroll 2
                for (size_t q = 0; q < count; q++) {
                    narrow[q][r] =
                        _mm256_add_epi16(narrow[q][r], _mm256_maddubs_epi16(rows, bytes[q]));
                }
            }
        }
#pragma GCC unroll 2
        for (size_t q = 0; q < count; q++) {
#pragma GCC unroll 4
            for (size_t r = 0; r < QUARTERS; r++) {
                int32_t *at = out + q * VEX_TILE_ROWS + r * LANES;
                store(at, _mm256_add_epi32(load(at), _mm256_madd_epi16(narrow[q][r], ones)));
            }
        }
    }
}

static void tile_dots_avx2(const uint8_t *tile, size_t padded, const int8_t *const *queries,
                           size_t count, int32_t *out)
{
    size_t q = 0;
    for (; count - q >= 2; q += 2) {
        some_queries(tile, padded, queries + q, 2, out + q * VEX_TILE_ROWS);
    }
    if (q < count) {
        some_queries(tile, padded, queries + q, 1, out + q * VEX_TILE_ROWS);
    }
}

/* ---- what the sums say ----------------------------------------------------------------------- */

/* The half floats in the low words. */
INLINE __m256 low_halves(__m256i words)
{
    __m256i low = _mm256_and_si256(words, _mm256_set1_epi32(0xffff));
    return _mm256_cvtph_ps(
        _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1)));
}

static void estimate_avx2(const struct vex_code_query *query, const int32_t *dots,
                          const uint32_t *factors, size_t count, float *out)
{
    for (size_t i = 0; i < count; i += LANES) {
        uint32_t pairs[LANES] = {0};
        int32_t sums[LANES] = {0};
        float distances[LANES];
        size_t left = count - i < LANES ? count - i : LANES;
        memcpy(pairs, factors + i, left * sizeof(*pairs));
        memcpy(sums, dots + i, left * sizeof(*sums));
        __m256i both = load(pairs);
        __m256 inner = _mm256_fmadd_ps(_mm256_cvtepi32_ps(load(sums)), _mm256_set1_ps(query->scale),
                                       _mm256_set1_ps(query->offset));
        __m256 add = _mm256_fmadd_ps(low_halves(both), _mm256_set1_ps(query->add_unit),
                                     _mm256_set1_ps(query->base));
        __m256 rescale = _mm256_mul_ps(low_halves(_mm256_srli_epi32(both, 16)),
                                       _mm256_set1_ps(query->rescale_unit));
        _mm256_storeu_ps(distances, _mm256_fmadd_ps(rescale, inner, add));
        memcpy(out + i, distances, left * sizeof(*out));
    }
}

static void spread_eight(__m256i both, __m128i angles, struct vex_scan_rows *out, size_t at)
{
    const __m256 one = _mm256_set1_ps(1);
    const __m256 clamped = _mm256_set1_ps(65504.0f);
    const __m256 floor = _mm256_set1_ps(VEX_SPREAD_FLOOR);
    const __m256 more = _mm256_set1_ps(1 + VEX_SPREAD_HALF);
    const __m256 round = _mm256_set1_ps(1 + VEX_SPREAD_ROUND);
    __m256 add = low_halves(both);
    __m256 rescale = _mm256_sub_ps(_mm256_setzero_ps(), low_halves(_mm256_srli_epi32(both, 16)));
    __m256 sine = _mm256_cvtph_ps(angles);
    /* All ones is a NaN, too. */
    __m256 unknown = _mm256_or_ps(_mm256_cmp_ps(add, clamped, _CMP_NLT_UQ),
                                  _mm256_cmp_ps(sine, sine, _CMP_UNORD_Q));
    __m256 plain = _mm256_or_ps(
        _mm256_cmp_ps(sine, _mm256_set1_ps(VEX_SPREAD_SINE_MAX), _CMP_GT_OQ),
        _mm256_or_ps(_mm256_cmp_ps(rescale, _mm256_set1_ps(VEX_SPREAD_RESCALE_MIN), _CMP_NGE_UQ),
                     _mm256_cmp_ps(rescale, clamped, _CMP_GE_OQ)));
    sine = _mm256_blendv_ps(sine, one, plain);
    __m256 square = _mm256_mul_ps(sine, sine);
    __m256 length = _mm256_sqrt_ps(_mm256_fmadd_ps(add, more, floor));
    __m256 most = _mm256_fmadd_ps(rescale, more, floor);
    __m256 least = _mm256_fmsub_ps(rescale, _mm256_set1_ps(1 - VEX_SPREAD_HALF), floor);
    __m256 cosine = _mm256_fnmadd_ps(square, _mm256_set1_ps(1 - VEX_SPREAD_SQUARE), round);
    __m256 across = _mm256_mul_ps(_mm256_add_ps(sine, _mm256_set1_ps(VEX_SPREAD_SINE)), length);
    __m256 rest = _mm256_sub_ps(_mm256_set1_ps(1 - VEX_SPREAD_ROUND), square);
    __m256 turn = _mm256_mul_ps(least, _mm256_mul_ps(sine, rest));
    __m256 along = _mm256_mul_ps(_mm256_mul_ps(most, cosine), round);
    _mm256_store_ps(out->add + at, _mm256_or_ps(add, unknown));
    _mm256_store_ps(out->across + at, _mm256_mul_ps(across, round));
    _mm256_store_ps(out->along + at, _mm256_andnot_ps(plain, along));
    _mm256_store_ps(out->turn + at, _mm256_andnot_ps(plain, turn));
}

static void spread_avx2(const uint32_t *factors, const uint16_t *angles, size_t count,
                        struct vex_scan_rows *out)
{
    size_t i = 0;
    for (; count - i >= LANES; i += LANES) {
        _mm_prefetch((const char *)(factors + i + FETCH_AHEAD_ROWS), _MM_HINT_T0);
        _mm_prefetch((const char *)(angles + i + FETCH_AHEAD_ROWS), _MM_HINT_T0);
        spread_eight(load(factors + i), _mm_loadu_si128((const void *)(angles + i)), out, i);
    }
    for (; i < count || i % VEX_TILE_ROWS != 0; i += LANES) {
        uint32_t pairs[LANES];
        uint16_t some_angles[LANES];
        size_t left = i < count ? count - i : 0;
        memset(pairs, 0xff, sizeof(pairs));
        memset(some_angles, 0xff, sizeof(some_angles));
        memcpy(pairs, factors + i, left * sizeof(*pairs));
        memcpy(some_angles, angles + i, left * sizeof(*some_angles));
        spread_eight(load(pairs), _mm_loadu_si128((const void *)some_angles), out, i);
    }
}

struct terms {
    __m256 middle;
    __m256 base;
    __m256 by_add;
    __m256 by_across;
    __m256 ahead;
    __m256 behind;
    __m256 by_turn;
};

INLINE struct terms terms_of(const struct vex_scan_terms *from)
{
    return (struct terms){
        _mm256_set1_ps(from->middle),    _mm256_set1_ps(from->base),  _mm256_set1_ps(from->by_add),
        _mm256_set1_ps(from->by_across), _mm256_set1_ps(from->ahead), _mm256_set1_ps(from->behind),
        _mm256_set1_ps(from->by_turn),
    };
}

INLINE uint32_t keep(const struct terms *terms, const struct vex_scan_rows *rows, size_t at,
                     const int32_t *dots)
{
    __m256 v = _mm256_sub_ps(_mm256_cvtepi32_ps(load(dots)), terms->middle);
    __m256 step = _mm256_min_ps(_mm256_mul_ps(v, terms->ahead), _mm256_mul_ps(v, terms->behind));
    __m256 turn = _mm256_max_ps(_mm256_mul_ps(v, terms->by_turn), _mm256_setzero_ps());
    __m256 least =
        _mm256_fmadd_ps(_mm256_load_ps(rows->across + at), terms->by_across, terms->base);
    least = _mm256_fmadd_ps(_mm256_load_ps(rows->add + at), terms->by_add, least);
    least = _mm256_fmadd_ps(_mm256_load_ps(rows->turn + at), turn, least);
    least = _mm256_fmadd_ps(_mm256_load_ps(rows->along + at), step, least);
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(least, _mm256_setzero_ps(), _CMP_NGT_UQ));
}

INLINE uint32_t keep_tile(const struct terms *terms, const struct vex_scan_rows *rows, size_t at,
                          const int32_t *dots)
{
    uint32_t kept = 0;
#pragma GCC unroll 4
    for (size_t i = 0; i < VEX_TILE_ROWS; i += LANES) {
        kept |= keep(terms, rows, at + i, dots + i) << i;
    }
    return kept;
}

static void sieve_avx2(const struct vex_scan_terms *terms, const struct vex_scan_rows *rows,
                       const int32_t *dots, size_t count, uint32_t *out)
{
    struct terms spread = terms_of(terms);
    for (size_t i = 0; i < count; i += VEX_TILE_ROWS) {
        out[i / VEX_TILE_ROWS] = keep_tile(&spread, rows, i, dots + i);
    }
}

static void sieve_tile_avx2(const struct vex_scan_terms *terms, const struct vex_scan_rows *rows,
                            size_t first, const int32_t *dots, size_t count, uint32_t *out)
{
    for (size_t q = 0; q < count; q++) {
        struct terms spread = terms_of(&terms[q]);
        out[q] = keep_tile(&spread, rows, first, dots + q * VEX_TILE_ROWS);
    }
}

const struct vex_scan_kernels vex_scan_kernels_avx2 = {
    .dots = dots_avx2,
    .tile_pack = tile_pack_avx2,
    .tile_dots = tile_dots_avx2,
    .estimate = estimate_avx2,
    .spread = spread_avx2,
    .sieve = sieve_avx2,
    .sieve_tile = sieve_tile_avx2,
};
