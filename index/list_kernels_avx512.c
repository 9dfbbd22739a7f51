/*
 * The kernels of inverted lists for AVX-512 with VNNI.
 *
 * The dot products take four queries and four tiles at a time: sixteen sums in registers, four lines
 * of tiles loaded for sixteen products. Codes become tiles by transposing sixteen lines as squares of
 * four-byte words and splitting the halves of the bytes afterwards.
 */
#include "index/list_kernels.h"

#include <immintrin.h>

#define LANES 16u
#define LINE 64u
#define SIDE 4u /* queries, and tiles, taken together */
#define INLINE static inline __attribute__((always_inline))

INLINE __mmask16 first_lanes(size_t count)
{
    return (__mmask16)(count < LANES ? (1u << count) - 1 : 0xffffu);
}

/* Sixteen registers of sixteen words become their transpose. */
INLINE void transpose(__m512i x[LANES])
{
    __m512i y[LANES];
#pragma GCC unroll 8
    for (size_t i = 0; i < LANES; i += 2) {
        y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
        y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < LANES; i += 4) {
        x[i] = _mm512_unpacklo_epi64(y[i], y[i + 2]);
        x[i + 1] = _mm512_unpackhi_epi64(y[i], y[i + 2]);
        x[i + 2] = _mm512_unpacklo_epi64(y[i + 1], y[i + 3]);
        x[i + 3] = _mm512_unpackhi_epi64(y[i + 1], y[i + 3]);
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++) {
        y[i] = _mm512_shuffle_i32x4(x[i], x[i + 4], 0x88);
        y[i + 4] = _mm512_shuffle_i32x4(x[i], x[i + 4], 0xdd);
        y[i + 8] = _mm512_shuffle_i32x4(x[i + 8], x[i + 12], 0x88);
        y[i + 12] = _mm512_shuffle_i32x4(x[i + 8], x[i + 12], 0xdd);
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++) {
        x[i] = _mm512_shuffle_i32x4(y[i], y[i + 8], 0x88);
        x[i + 4] = _mm512_shuffle_i32x4(y[i + 4], y[i + 12], 0x88);
        x[i + 8] = _mm512_shuffle_i32x4(y[i], y[i + 8], 0xdd);
        x[i + 12] = _mm512_shuffle_i32x4(y[i + 4], y[i + 12], 0xdd);
    }
}

/* `rows_count` is a constant where all rows are there. */
INLINE void tile_of(const uint8_t *codes, size_t padded, size_t rows_count, uint8_t *out_tile)
{
    const __m512i low_half = _mm512_set1_epi8(15);
    size_t code_bytes = padded / 2;
    for (size_t line = 0; line < code_bytes; line += LINE) {
        __m512i words[LANES];
#pragma GCC unroll 16
        for (size_t row = 0; row < LANES; row++) {
            words[row] = row < rows_count ? _mm512_loadu_si512(codes + row * code_bytes + line)
                                          : _mm512_setzero_si512();
        }
        transpose(words);
        uint8_t *low = out_tile + vex_list_tile_bytes(2 * line);
        uint8_t *high = low + vex_list_tile_bytes(LINE);
#pragma GCC unroll 16
        for (size_t i = 0; i < LANES; i++) {
            _mm512_store_si512(low + i * LINE, _mm512_and_si512(words[i], low_half));
            _mm512_store_si512(high + i * LINE,
                               _mm512_and_si512(_mm512_srli_epi16(words[i], 4), low_half));
        }
    }
}

static void tile_codes_avx512(const uint8_t *codes, size_t padded, size_t rows_count,
                              uint8_t *out_tile)
{
    if (rows_count == LANES) {
        tile_of(codes, padded, LANES, out_tile);
    } else {
        tile_of(codes, padded, rows_count, out_tile);
    }
}

INLINE __m512i repeat_four(const int8_t *bytes)
{
    int32_t word;
    __builtin_memcpy(&word, bytes, sizeof(word));
    return _mm512_set1_epi32(word);
}

/* `queries_count` and `tiles_count` are constants where this is used: the sums stay in registers. */
INLINE void dots_of(const uint8_t *tiles, size_t padded, const int8_t *const *queries, int32_t *out,
                    size_t stride, size_t queries_count, size_t tiles_count)
{
    __m512i sums[SIDE][SIDE];
#pragma GCC unroll 4
    for (size_t q = 0; q < queries_count; q++) {
#pragma GCC unroll 4
        for (size_t t = 0; t < tiles_count; t++) {
            sums[q][t] = _mm512_setzero_si512();
        }
    }
    for (size_t d = 0; d < padded; d += 4) {
        __m512i lines[SIDE];
#pragma GCC unroll 4
        for (size_t t = 0; t < tiles_count; t++) {
            lines[t] = _mm512_load_si512(tiles + t * vex_list_tile_bytes(padded) + d * LANES);
        }
#pragma GCC unroll 4
        for (size_t q = 0; q < queries_count; q++) {
            __m512i four = repeat_four(queries[q] + d);
#pragma GCC unroll 4
            for (size_t t = 0; t < tiles_count; t++) {
                sums[q][t] = _mm512_dpbusd_epi32(sums[q][t], lines[t], four);
            }
        }
    }
#pragma GCC unroll 4
    for (size_t q = 0; q < queries_count; q++) {
#pragma GCC unroll 4
        for (size_t t = 0; t < tiles_count; t++) {
            _mm512_storeu_si512(out + q * stride + t * LANES, sums[q][t]);
        }
    }
}

INLINE void dots_of_tiles(const uint8_t *tiles, size_t padded, const int8_t *const *queries,
                          int32_t *out, size_t stride, size_t queries_count, size_t tiles_count)
{
    switch (tiles_count) {
    case 1:
        dots_of(tiles, padded, queries, out, stride, queries_count, 1);
        break;
    case 2:
        dots_of(tiles, padded, queries, out, stride, queries_count, 2);
        break;
    case 3:
        dots_of(tiles, padded, queries, out, stride, queries_count, 3);
        break;
    default:
        dots_of(tiles, padded, queries, out, stride, queries_count, 4);
        break;
    }
}

static void tile_dots_avx512(const uint8_t *tiles, size_t tiles_count, size_t padded,
                             const int8_t *const *queries, size_t queries_count, int32_t *out,
                             size_t stride)
{
    for (size_t t = 0; t < tiles_count; t += SIDE) {
        size_t tiles_left = tiles_count - t < SIDE ? tiles_count - t : SIDE;
        const uint8_t *first = tiles + t * vex_list_tile_bytes(padded);
        for (size_t q = 0; q < queries_count; q += SIDE) {
            int32_t *at = out + q * stride + t * LANES;
            switch (queries_count - q) {
            case 1:
                dots_of_tiles(first, padded, queries + q, at, stride, 1, tiles_left);
                break;
            case 2:
                dots_of_tiles(first, padded, queries + q, at, stride, 2, tiles_left);
                break;
            case 3:
                dots_of_tiles(first, padded, queries + q, at, stride, 3, tiles_left);
                break;
            default:
                dots_of_tiles(first, padded, queries + q, at, stride, 4, tiles_left);
                break;
            }
        }
    }
}

static void row_factors_avx512(const struct vex_code_query *units, const uint32_t *factors,
                               size_t count, struct vex_row_factors out)
{
    const __m512 add_unit = _mm512_set1_ps(units->add_unit);
    const __m512 rescale_unit = _mm512_set1_ps(units->rescale_unit);
    for (size_t i = 0; i < count; i += LANES) {
        __m512i both = _mm512_maskz_loadu_epi32(first_lanes(count - i), factors + i);
        __m512 add = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(both));
        __m512 rescale = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(both, 16)));
        _mm512_storeu_ps(out.add + i, _mm512_mul_ps(add, add_unit));
        _mm512_storeu_ps(out.rescale + i, _mm512_mul_ps(rescale, rescale_unit));
    }
}

static uint32_t near_rows_avx512(const struct vex_code_query *query, const int32_t *dots,
                                 struct vex_row_factors factors, size_t count, float limit,
                                 uint32_t first_row, float *out_distances, uint32_t *out_rows)
{
    const __m512 scale = _mm512_set1_ps(query->scale);
    const __m512 offset = _mm512_set1_ps(query->offset);
    const __m512 base = _mm512_set1_ps(query->base);
    const __m512 most = _mm512_set1_ps(limit);
    const __m512i steps = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    uint32_t found = 0;
    for (size_t i = 0; i < count; i += LANES) {
        __mmask16 inside = first_lanes(count - i);
        __m512 dot = _mm512_cvtepi32_ps(_mm512_maskz_loadu_epi32(inside, dots + i));
        __m512 inner = _mm512_fmadd_ps(dot, scale, offset);
        __m512 add = _mm512_add_ps(base, _mm512_maskz_loadu_ps(inside, factors.add + i));
        __m512 distance =
            _mm512_fmadd_ps(_mm512_maskz_loadu_ps(inside, factors.rescale + i), inner, add);
        __mmask16 nearer = _mm512_mask_cmp_ps_mask(inside, distance, most, _CMP_LT_OQ);
        if (nearer) {
            __m512i rows = _mm512_add_epi32(_mm512_set1_epi32((int)(first_row + i)), steps);
            _mm512_storeu_ps(out_distances + found, _mm512_maskz_compress_ps(nearer, distance));
            _mm512_storeu_si512(out_rows + found, _mm512_maskz_compress_epi32(nearer, rows));
            found += (uint32_t)__builtin_popcount(nearer);
        }
    }
    return found;
}

static void centre_keys_avx512(const int32_t *dots, const float *scales, const float *squares,
                               size_t count, float factor, int32_t shift, float *out)
{
    const __m512 times = _mm512_set1_ps(factor);
    const __m512i less = _mm512_set1_epi32(shift);
    for (size_t i = 0; i < count; i += LANES) {
        __m512i dot = _mm512_sub_epi32(_mm512_loadu_si512(dots + i), less);
        __m512 scale = _mm512_mul_ps(_mm512_loadu_ps(scales + i), times);
        _mm512_storeu_ps(
            out + i, _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(dot), _mm512_loadu_ps(squares + i)));
    }
}

static uint32_t smallest_avx512(const float *keys, size_t count)
{
    const __m512i step = _mm512_set1_epi32((int)LANES);
    __m512 best = _mm512_loadu_ps(keys);
    __m512i best_at = _mm512_setzero_si512();
    __m512i at = step;
    for (size_t i = LANES; i < count; i += LANES) {
        __m512 next = _mm512_loadu_ps(keys + i);
        __mmask16 nearer = _mm512_cmp_ps_mask(next, best, _CMP_LT_OQ);
        best = _mm512_mask_mov_ps(best, nearer, next);
        best_at = _mm512_mask_mov_epi32(best_at, nearer, at);
        at = _mm512_add_epi32(at, step);
    }
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __mmask16 least =
        _mm512_cmp_ps_mask(best, _mm512_set1_ps(_mm512_reduce_min_ps(best)), _CMP_EQ_OQ);
    /* None is the least where keys are not numbers. */
    return least ? _mm512_mask_reduce_min_epu32(least, _mm512_add_epi32(best_at, lanes)) : 0;
}

static void fold_avx512(const float *keys, size_t count, float *out)
{
    for (size_t i = 0; i < count; i += VEX_LIST_FOLD * LANES) {
        __m512 least = _mm512_loadu_ps(keys + i);
        size_t end = count - i < VEX_LIST_FOLD * LANES ? count : i + VEX_LIST_FOLD * LANES;
        for (size_t j = i + LANES; j < end; j += LANES) {
            least = _mm512_min_ps(least, _mm512_loadu_ps(keys + j));
        }
        _mm512_storeu_ps(out + i / VEX_LIST_FOLD, least);
    }
}

static uint32_t count_within_avx512(const float *keys, size_t count, float limit)
{
    const __m512 most = _mm512_set1_ps(limit);
    uint32_t found = 0;
    for (size_t i = 0; i < count; i += LANES) {
        __mmask16 within = _mm512_cmp_ps_mask(_mm512_loadu_ps(keys + i), most, _CMP_LE_OQ);
        found += (uint32_t)__builtin_popcount(within);
    }
    return found;
}

static uint32_t places_within_avx512(const float *keys, size_t count, float limit, uint32_t *out)
{
    const __m512 most = _mm512_set1_ps(limit);
    const __m512i step = _mm512_set1_epi32((int)LANES);
    __m512i places = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    uint32_t found = 0;
    for (size_t i = 0; i < count; i += LANES) {
        __mmask16 within = _mm512_cmp_ps_mask(_mm512_loadu_ps(keys + i), most, _CMP_LE_OQ);
        /* Never beyond the end: as many places are written as have been passed, at most. */
        _mm512_storeu_si512(out + found, _mm512_maskz_compress_epi32(within, places));
        found += (uint32_t)__builtin_popcount(within);
        places = _mm512_add_epi32(places, step);
    }
    return found;
}

const struct vex_list_kernels vex_list_kernels_avx512 = {
    .tile_codes = tile_codes_avx512,
    .tile_dots = tile_dots_avx512,
    .row_factors = row_factors_avx512,
    .near_rows = near_rows_avx512,
    .centre_keys = centre_keys_avx512,
    .smallest = smallest_avx512,
    .fold = fold_avx512,
    .count_within = count_within_avx512,
    .places_within = places_within_avx512,
};
