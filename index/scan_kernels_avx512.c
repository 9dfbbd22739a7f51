/*
 * The scan kernels for AVX-512 with VNNI: four products of bytes and their sum in each lane of one
 * instruction. A single query meets four rows at a time, whose sixteen sums per row are folded
 * together with those of twelve more. In a tile, sixteen rows share a register: two registers of
 * rows and eight queries keep sixteen sums in flight for ten loads.
 */
#include "index/scan_kernels.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define LANES 16u
#define LINE VEX_CODE_CHUNK_BYTES
#define GROUP 4u
#define STEP_DIMS 4u
#define STEP_BYTES (VEX_TILE_ROWS * STEP_DIMS)
#define TILE_QUERIES 8
#define FETCH_AHEAD_BYTES 8192u
#define FETCH_AHEAD_ROWS 512u /* of factors and angles */
#define INLINE static inline __attribute__((always_inline))

INLINE __mmask16 first_lanes(size_t count)
{
    return (__mmask16)((1u << count) - 1);
}

/* ---- one query ------------------------------------------------------------------------------- */

/* The sum of a code, spread over sixteen lanes. Rows are taken one after the other, so that memory is
 * read in its order; the processor overlaps their sums by itself. */
INLINE __m512i one_row(const uint8_t *code, const int8_t *query, size_t padded)
{
    const __m512i low_half = _mm512_set1_epi8(15);
    __m512i low = _mm512_setzero_si512();
    __m512i high = _mm512_setzero_si512();
    for (size_t i = 0; i < padded; i += VEX_CODE_CHUNK_DIMS) {
        __m512i line = _mm512_loadu_si512(code + i / 2);
        _mm_prefetch((const char *)code + i / 2 + FETCH_AHEAD_BYTES, _MM_HINT_T0);
        low = _mm512_dpbusd_epi32(low, _mm512_and_si512(line, low_half),
                                  _mm512_loadu_si512(query + i));
        high = _mm512_dpbusd_epi32(high, _mm512_and_si512(_mm512_srli_epi16(line, 4), low_half),
                                   _mm512_loadu_si512(query + i + LINE));
    }
    return _mm512_add_epi32(low, high);
}

/* Lane i of each quarter of the result holds a part of the sum of code i. */
INLINE __m512i four_rows(const uint8_t *const code[GROUP], const int8_t *query, size_t padded)
{
    __m512i a = one_row(code[0], query, padded);
    __m512i b = one_row(code[1], query, padded);
    __m512i c = one_row(code[2], query, padded);
    __m512i d = one_row(code[3], query, padded);
    __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    return _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
}

/* Adds the quarters of two registers: quarters 0, 1 of the result are of a, 2, 3 of b. */
INLINE __m512i fold_pair(__m512i a, __m512i b)
{
    return _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x44), _mm512_shuffle_i32x4(a, b, 0xee));
}

static void dots_avx512(const int8_t *query, const uint8_t *codes, size_t padded, size_t count,
                        int32_t *out)
{
    size_t code_bytes = padded / 2;
    for (size_t i = 0; i < count; i += LANES) {
        size_t left = count - i < LANES ? count - i : LANES;
        __m512i sums[GROUP];
#pragma GCC unroll 4
        for (size_t g = 0; g < GROUP; g++) {
            const uint8_t *code[GROUP];
#pragma GCC unroll 4
            for (size_t j = 0; j < GROUP; j++) {
                size_t row = g * GROUP + j;
                code[j] = codes + (i + (row < left ? row : left - 1)) * code_bytes;
            }
            sums[g] = four_rows(code, query, padded);
        }
        __m512i first = fold_pair(sums[0], sums[1]);
        __m512i second = fold_pair(sums[2], sums[3]);
        __m512i all = _mm512_add_epi32(_mm512_shuffle_i32x4(first, second, 0x88),
                                       _mm512_shuffle_i32x4(first, second, 0xdd));
        __mmask16 mask = left < LANES ? first_lanes(left) : (__mmask16)0xffff;
        _mm512_mask_storeu_epi32(out + i, mask, all);
    }
}

/* ---- tiles ----------------------------------------------------------------------------------- */

/* Turns sixteen rows of sixteen words into sixteen columns. */
INLINE void transpose(__m512i rows[LANES])
{
    __m512i pairs[LANES];
    __m512i fours[LANES];
#pragma GCC unroll 8
    for (size_t i = 0; i < LANES; i += 2) {
        pairs[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < LANES; i += 4) {
        fours[i] = _mm512_unpacklo_epi64(pairs[i], pairs[i + 2]);
        fours[i + 1] = _mm512_unpackhi_epi64(pairs[i], pairs[i + 2]);
        fours[i + 2] = _mm512_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
        fours[i + 3] = _mm512_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
    }
    /* fours[4 r + c] holds, in its quarter q, word 4 q + c of rows 4 r .. 4 r + 3. */
#pragma GCC unroll 4
    for (size_t c = 0; c < GROUP; c++) {
        __m512i a = _mm512_shuffle_i32x4(fours[c], fours[4 + c], 0x88);
        __m512i b = _mm512_shuffle_i32x4(fours[8 + c], fours[12 + c], 0x88);
        __m512i d = _mm512_shuffle_i32x4(fours[c], fours[4 + c], 0xdd);
        __m512i e = _mm512_shuffle_i32x4(fours[8 + c], fours[12 + c], 0xdd);
        rows[c] = _mm512_shuffle_i32x4(a, b, 0x88);
        rows[8 + c] = _mm512_shuffle_i32x4(a, b, 0xdd);
        rows[4 + c] = _mm512_shuffle_i32x4(d, e, 0x88);
        rows[12 + c] = _mm512_shuffle_i32x4(d, e, 0xdd);
    }
}

/* The same line of the same rows of the next tile, which is wanted when the queries are through. */
INLINE void fetch_next(const uint8_t *line, size_t code_bytes)
{
#pragma GCC unroll 16
    for (size_t j = 0; j < LANES; j++) {
        _mm_prefetch((const char *)line + (VEX_TILE_ROWS + j) * code_bytes, _MM_HINT_T1);
    }
}

static void tile_pack_avx512(const uint8_t *codes, size_t padded, size_t count, uint8_t *tile)
{
    const __m512i low_half = _mm512_set1_epi8(15);
    size_t code_bytes = padded / 2;
    for (size_t first = 0; first < VEX_TILE_ROWS; first += LANES) {
        uint8_t *half = tile + first * STEP_DIMS;
        for (size_t i = 0; i < padded; i += VEX_CODE_CHUNK_DIMS) {
            __m512i rows[LANES];
#pragma GCC unroll 16
            for (size_t j = 0; j < LANES; j++) {
                rows[j] = first + j < count
                              ? _mm512_loadu_si512(codes + (first + j) * code_bytes + i / 2)
                              : _mm512_setzero_si512();
            }
            fetch_next(codes + first * code_bytes + i / 2, code_bytes);
            transpose(rows);
            uint8_t *low = half + i * VEX_TILE_ROWS;
            uint8_t *high = low + LINE * VEX_TILE_ROWS;
#pragma GCC unroll 16
            for (size_t j = 0; j < LANES; j++) {
                _mm512_store_si512(low + j * STEP_BYTES, _mm512_and_si512(rows[j], low_half));
                _mm512_store_si512(high + j * STEP_BYTES,
                                   _mm512_and_si512(_mm512_srli_epi16(rows[j], 4), low_half));
            }
        }
    }
}

INLINE __m512i broadcast(const int8_t *from)
{
    int32_t word;
    memcpy(&word, from, sizeof(word));
    return _mm512_set1_epi32(word);
}

/* `count` is a constant wherever this is inlined. */
INLINE void some_queries(const uint8_t *tile, size_t padded, const int8_t *const *queries,
                         const size_t count, int32_t *out)
{
    __m512i low[TILE_QUERIES];
    __m512i high[TILE_QUERIES];
#pragma GCC unroll 8
    for (size_t q = 0; q < count; q++) {
        low[q] = _mm512_setzero_si512();
        high[q] = _mm512_setzero_si512();
    }
    for (size_t d = 0; d < padded; d += STEP_DIMS) {
        __m512i first = _mm512_load_si512(tile + d * VEX_TILE_ROWS);
        __m512i second = _mm512_load_si512(tile + d * VEX_TILE_ROWS + LINE);
#pragma GCC unroll 8
        for (size_t q = 0; q < count; q++) {
            __m512i bytes = broadcast(queries[q] + d);
            low[q] = _mm512_dpbusd_epi32(low[q], first, bytes);
            high[q] = _mm512_dpbusd_epi32(high[q], second, bytes);
        }
    }
#pragma GCC unroll 8
    for (size_t q = 0; q < count; q++) {
        _mm512_store_si512(out + q * VEX_TILE_ROWS, low[q]);
        _mm512_store_si512(out + q * VEX_TILE_ROWS + LANES, high[q]);
    }
}

static void tile_dots_avx512(const uint8_t *tile, size_t padded, const int8_t *const *queries,
                             size_t count, int32_t *out)
{
    size_t q = 0;
    for (; count - q >= TILE_QUERIES; q += TILE_QUERIES) {
        some_queries(tile, padded, queries + q, TILE_QUERIES, out + q * VEX_TILE_ROWS);
    }
    if (count - q >= 4) {
        some_queries(tile, padded, queries + q, 4, out + q * VEX_TILE_ROWS);
        q += 4;
    }
    for (; q < count; q++) {
        some_queries(tile, padded, queries + q, 1, out + q * VEX_TILE_ROWS);
    }
}

/* ---- what the sums say ----------------------------------------------------------------------- */

INLINE __m512 low_halves(__m512i words)
{
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(words));
}

static void estimate_avx512(const struct vex_code_query *query, const int32_t *dots,
                            const uint32_t *factors, size_t count, float *out)
{
    for (size_t i = 0; i < count; i += LANES) {
        __mmask16 mask = count - i < LANES ? first_lanes(count - i) : (__mmask16)0xffff;
        __m512i both = _mm512_maskz_loadu_epi32(mask, factors + i);
        __m512 dot = _mm512_cvtepi32_ps(_mm512_maskz_loadu_epi32(mask, dots + i));
        __m512 inner =
            _mm512_fmadd_ps(dot, _mm512_set1_ps(query->scale), _mm512_set1_ps(query->offset));
        __m512 add = _mm512_fmadd_ps(low_halves(both), _mm512_set1_ps(query->add_unit),
                                     _mm512_set1_ps(query->base));
        __m512 rescale = _mm512_mul_ps(low_halves(_mm512_srli_epi32(both, 16)),
                                       _mm512_set1_ps(query->rescale_unit));
        _mm512_mask_storeu_ps(out + i, mask, _mm512_fmadd_ps(rescale, inner, add));
    }
}

static void spread_avx512(const uint32_t *factors, const uint16_t *angles, size_t count,
                          struct vex_scan_rows *out)
{
    const __m512 one = _mm512_set1_ps(1);
    const __m512 nan = _mm512_set1_ps(NAN);
    const __m512 clamped = _mm512_set1_ps(65504.0f);
    const __m512 floor = _mm512_set1_ps(VEX_SPREAD_FLOOR);
    const __m512 more = _mm512_set1_ps(1 + VEX_SPREAD_HALF);
    const __m512 round = _mm512_set1_ps(1 + VEX_SPREAD_ROUND);
    size_t end = (count + VEX_TILE_ROWS - 1) / VEX_TILE_ROWS * VEX_TILE_ROWS;
    for (size_t i = 0; i < end; i += LANES) {
        size_t left = i < count ? count - i : 0;
        __mmask16 mask = left < LANES ? first_lanes(left) : (__mmask16)0xffff;
        __m512i both = _mm512_maskz_loadu_epi32(mask, factors + i);
        _mm_prefetch((const char *)(factors + i + FETCH_AHEAD_ROWS), _MM_HINT_T0);
        _mm_prefetch((const char *)(angles + i + FETCH_AHEAD_ROWS), _MM_HINT_T0);
        __m512 add = low_halves(both);
        __m512 rescale = low_halves(_mm512_srli_epi32(both, 16));
        rescale = _mm512_sub_ps(_mm512_setzero_ps(), rescale);
        __m512 sine = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, angles + i));
        __mmask16 unknown = _mm512_cmp_ps_mask(add, clamped, _CMP_NLT_UQ) |
                            _mm512_cmp_ps_mask(sine, sine, _CMP_UNORD_Q) | (__mmask16)~mask;
        __mmask16 plain =
            _mm512_cmp_ps_mask(sine, _mm512_set1_ps(VEX_SPREAD_SINE_MAX), _CMP_GT_OQ) |
            _mm512_cmp_ps_mask(rescale, _mm512_set1_ps(VEX_SPREAD_RESCALE_MIN), _CMP_NGE_UQ) |
            _mm512_cmp_ps_mask(rescale, clamped, _CMP_GE_OQ);
        sine = _mm512_mask_mov_ps(sine, plain, one);
        __m512 square = _mm512_mul_ps(sine, sine);
        __m512 length = _mm512_sqrt_ps(_mm512_fmadd_ps(add, more, floor));
        __m512 most = _mm512_fmadd_ps(rescale, more, floor);
        __m512 least = _mm512_fmsub_ps(rescale, _mm512_set1_ps(1 - VEX_SPREAD_HALF), floor);
        __m512 cosine = _mm512_fnmadd_ps(square, _mm512_set1_ps(1 - VEX_SPREAD_SQUARE), round);
        __m512 across = _mm512_mul_ps(_mm512_add_ps(sine, _mm512_set1_ps(VEX_SPREAD_SINE)), length);
        __m512 turn = _mm512_mul_ps(
            least,
            _mm512_mul_ps(sine, _mm512_sub_ps(_mm512_set1_ps(1 - VEX_SPREAD_ROUND), square)));
        _mm512_store_ps(out->add + i, _mm512_mask_mov_ps(add, unknown, nan));
        _mm512_store_ps(out->across + i, _mm512_mul_ps(across, round));
        _mm512_store_ps(out->along + i,
                        _mm512_maskz_mul_ps((__mmask16)~plain, _mm512_mul_ps(most, cosine), round));
        _mm512_store_ps(out->turn + i, _mm512_maskz_mov_ps((__mmask16)~plain, turn));
    }
}

struct terms {
    __m512 middle;
    __m512 base;
    __m512 by_add;
    __m512 by_across;
    __m512 ahead;
    __m512 behind;
    __m512 by_turn;
};

INLINE struct terms terms_of(const struct vex_scan_terms *from)
{
    return (struct terms){
        _mm512_set1_ps(from->middle),    _mm512_set1_ps(from->base),  _mm512_set1_ps(from->by_add),
        _mm512_set1_ps(from->by_across), _mm512_set1_ps(from->ahead), _mm512_set1_ps(from->behind),
        _mm512_set1_ps(from->by_turn),
    };
}

INLINE uint32_t keep(const struct terms *terms, const struct vex_scan_rows *rows, size_t at,
                     const int32_t *dots)
{
    __m512 v = _mm512_sub_ps(_mm512_cvtepi32_ps(_mm512_loadu_si512(dots)), terms->middle);
    __m512 step = _mm512_min_ps(_mm512_mul_ps(v, terms->ahead), _mm512_mul_ps(v, terms->behind));
    __m512 turn = _mm512_max_ps(_mm512_mul_ps(v, terms->by_turn), _mm512_setzero_ps());
    __m512 least =
        _mm512_fmadd_ps(_mm512_load_ps(rows->across + at), terms->by_across, terms->base);
    least = _mm512_fmadd_ps(_mm512_load_ps(rows->add + at), terms->by_add, least);
    least = _mm512_fmadd_ps(_mm512_load_ps(rows->turn + at), turn, least);
    least = _mm512_fmadd_ps(_mm512_load_ps(rows->along + at), step, least);
    return _mm512_cmp_ps_mask(least, _mm512_setzero_ps(), _CMP_NGT_UQ);
}

INLINE uint32_t keep_tile(const struct terms *terms, const struct vex_scan_rows *rows, size_t at,
                          const int32_t *dots)
{
    return keep(terms, rows, at, dots) | keep(terms, rows, at + LANES, dots + LANES) << LANES;
}

static void sieve_avx512(const struct vex_scan_terms *terms, const struct vex_scan_rows *rows,
                         const int32_t *dots, size_t count, uint32_t *out)
{
    struct terms spread = terms_of(terms);
    for (size_t i = 0; i < count; i += VEX_TILE_ROWS) {
        out[i / VEX_TILE_ROWS] = keep_tile(&spread, rows, i, dots + i);
    }
}

static void sieve_tile_avx512(const struct vex_scan_terms *terms, const struct vex_scan_rows *rows,
                              size_t first, const int32_t *dots, size_t count, uint32_t *out)
{
    for (size_t q = 0; q < count; q++) {
        struct terms spread = terms_of(&terms[q]);
        out[q] = keep_tile(&spread, rows, first, dots + q * VEX_TILE_ROWS);
    }
}

const struct vex_scan_kernels vex_scan_kernels_avx512 = {
    .dots = dots_avx512,
    .tile_pack = tile_pack_avx512,
    .tile_dots = tile_dots_avx512,
    .estimate = estimate_avx512,
    .spread = spread_avx512,
    .sieve = sieve_avx512,
    .sieve_tile = sieve_tile_avx512,
};
