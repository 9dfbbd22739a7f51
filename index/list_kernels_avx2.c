/*
 * The kernels of inverted lists for AVX2, FMA and F16C.
 *
 * A line of a tile is two registers of eight rows. Products of bytes are added in pairs to sixteen
 * bits, which hold them because a tile's bytes are at most 127, and then to thirty-two. Two queries
 * and two tiles at a time: eight sums, four lines, two repeated words, in sixteen registers.
 */
#include "index/list_kernels.h"

#include <immintrin.h>
#include <stdbool.h>
#include <string.h>

#define LANES 8u
#define WIDE 32u /* bytes of a register */
#define LINE 64u
#define SIDE 2u /* queries, and tiles, taken together */
#define INLINE static inline __attribute__((always_inline))

/* Eight registers of eight words become their transpose. */
INLINE void transpose(__m256i x[LANES])
{
    __m256i y[LANES];
#pragma GCC unroll 4
    for (size_t i = 0; i < LANES; i += 2) {
        y[i] = _mm256_unpacklo_epi32(x[i], x[i + 1]);
        y[i + 1] = _mm256_unpackhi_epi32(x[i], x[i + 1]);
    }
#pragma GCC unroll 2
    for (size_t i = 0; i < LANES; i += 4) {
        x[i] = _mm256_unpacklo_epi64(y[i], y[i + 2]);
        x[i + 1] = _mm256_unpackhi_epi64(y[i], y[i + 2]);
        x[i + 2] = _mm256_unpacklo_epi64(y[i + 1], y[i + 3]);
        x[i + 3] = _mm256_unpackhi_epi64(y[i + 1], y[i + 3]);
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++) {
        y[i] = _mm256_permute2x128_si256(x[i], x[i + 4], 0x20);
        y[i + 4] = _mm256_permute2x128_si256(x[i], x[i + 4], 0x31);
    }
#pragma GCC unroll 8
    for (size_t i = 0; i < LANES; i++) {
        x[i] = y[i];
    }
}

/* Half a line of eight rows, from `first_row` on. */
INLINE void tile_part(const uint8_t *codes, size_t code_bytes, size_t at, size_t first_row,
                      size_t rows_count, uint8_t *low, uint8_t *high)
{
    const __m256i low_half = _mm256_set1_epi8(15);
    __m256i words[LANES];
#pragma GCC unroll 8
    for (size_t i = 0; i < LANES; i++) {
        size_t row = first_row + i < rows_count ? first_row + i : 0;
        const uint8_t *code = codes + row * code_bytes + at;
        words[i] = _mm256_loadu_si256((const __m256i *)(const void *)code);
    }
    transpose(words);
#pragma GCC unroll 8
    for (size_t i = 0; i < LANES; i++) {
        _mm256_storeu_si256((__m256i *)(void *)(low + i * LINE),
                            _mm256_and_si256(words[i], low_half));
        _mm256_storeu_si256((__m256i *)(void *)(high + i * LINE),
                            _mm256_and_si256(_mm256_srli_epi16(words[i], 4), low_half));
    }
}

static void tile_codes_avx2(const uint8_t *codes, size_t padded, size_t rows_count,
                            uint8_t *out_tile)
{
    size_t code_bytes = padded / 2;
    for (size_t line = 0; line < code_bytes; line += LINE) {
        uint8_t *low = out_tile + vex_list_tile_bytes(2 * line);
        uint8_t *high = low + vex_list_tile_bytes(LINE);
        for (size_t half = 0; half < LINE; half += WIDE) {
            for (size_t row = 0; row < VEX_LIST_TILE_ROWS; row += LANES) {
                size_t place = half / 4 * LINE + row * 4;
                tile_part(codes, code_bytes, line + half, row, rows_count, low + place,
                          high + place);
            }
        }
    }
}

INLINE __m256i repeat_four(const int8_t *bytes)
{
    int32_t word;
    memcpy(&word, bytes, sizeof(word));
    return _mm256_set1_epi32(word);
}

/* `queries_count` and `tiles_count` are constants where this is used: the sums stay in registers. */
INLINE void dots_of(const uint8_t *tiles, size_t padded, const int8_t *const *queries, int32_t *out,
                    size_t stride, size_t queries_count, size_t tiles_count)
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sums[SIDE][2 * SIDE];
#pragma GCC unroll 2
    for (size_t q = 0; q < queries_count; q++) {
#pragma GCC unroll 4
        for (size_t t = 0; t < 2 * tiles_count; t++) {
            sums[q][t] = _mm256_setzero_si256();
        }
    }
    for (size_t d = 0; d < padded; d += 4) {
#pragma GCC unroll 4
        for (size_t t = 0; t < 2 * tiles_count; t++) {
            const uint8_t *line =
                tiles + t / 2 * vex_list_tile_bytes(padded) + d * VEX_LIST_TILE_ROWS + t % 2 * WIDE;
            __m256i bytes = _mm256_load_si256((const __m256i *)(const void *)line);
#pragma GCC unroll 2
            for (size_t q = 0; q < queries_count; q++) {
                __m256i pairs = _mm256_maddubs_epi16(bytes, repeat_four(queries[q] + d));
                sums[q][t] = _mm256_add_epi32(sums[q][t], _mm256_madd_epi16(pairs, ones));
            }
        }
    }
#pragma GCC unroll 2
    for (size_t q = 0; q < queries_count; q++) {
#pragma GCC unroll 4
        for (size_t t = 0; t < 2 * tiles_count; t++) {
            _mm256_storeu_si256((__m256i *)(void *)(out + q * stride + t * LANES), sums[q][t]);
        }
    }
}

static void tile_dots_avx2(const uint8_t *tiles, size_t tiles_count, size_t padded,
                           const int8_t *const *queries, size_t queries_count, int32_t *out,
                           size_t stride)
{
    for (size_t t = 0; t < tiles_count; t += SIDE) {
        bool is_pair = tiles_count - t >= SIDE;
        const uint8_t *first = tiles + t * vex_list_tile_bytes(padded);
        for (size_t q = 0; q < queries_count; q += SIDE) {
            int32_t *at = out + q * stride + t * VEX_LIST_TILE_ROWS;
            if (queries_count - q >= SIDE) {
                is_pair ? dots_of(first, padded, queries + q, at, stride, SIDE, SIDE)
                        : dots_of(first, padded, queries + q, at, stride, SIDE, 1);
            } else {
                is_pair ? dots_of(first, padded, queries + q, at, stride, 1, SIDE)
                        : dots_of(first, padded, queries + q, at, stride, 1, 1);
            }
        }
    }
}

/* Eight half floats at the bottom of eight words. */
INLINE __m256 low_halves(__m256i words)
{
    __m256i packed = _mm256_packus_epi32(_mm256_and_si256(words, _mm256_set1_epi32(0xffff)),
                                         _mm256_setzero_si256());
    packed = _mm256_permute4x64_epi64(packed, 0x08);
    return _mm256_cvtph_ps(_mm256_castsi256_si128(packed));
}

static void row_factors_avx2(const struct vex_code_query *units, const uint32_t *factors,
                             size_t count, struct vex_row_factors out)
{
    const __m256 add_unit = _mm256_set1_ps(units->add_unit);
    const __m256 rescale_unit = _mm256_set1_ps(units->rescale_unit);
    for (size_t i = 0; i < count; i += LANES) {
        uint32_t few[LANES] = {0};
        const uint32_t *from = factors + i;
        if (count - i < LANES) {
            memcpy(few, from, (count - i) * sizeof(*few));
            from = few;
        }
        __m256i both = _mm256_loadu_si256((const __m256i *)(const void *)from);
        _mm256_storeu_ps(out.add + i, _mm256_mul_ps(low_halves(both), add_unit));
        _mm256_storeu_ps(out.rescale + i,
                         _mm256_mul_ps(low_halves(_mm256_srli_epi32(both, 16)), rescale_unit));
    }
}

static uint32_t near_rows_avx2(const struct vex_code_query *query, const int32_t *dots,
                               struct vex_row_factors factors, size_t count, float limit,
                               uint32_t first_row, float *out_distances, uint32_t *out_rows)
{
    const __m256 scale = _mm256_set1_ps(query->scale);
    const __m256 offset = _mm256_set1_ps(query->offset);
    const __m256 base = _mm256_set1_ps(query->base);
    const __m256 most = _mm256_set1_ps(limit);
    uint32_t found = 0;
    for (size_t i = 0; i < count; i += LANES) {
        __m256 dot =
            _mm256_cvtepi32_ps(_mm256_loadu_si256((const __m256i *)(const void *)(dots + i)));
        __m256 inner = _mm256_fmadd_ps(dot, scale, offset);
        __m256 add = _mm256_add_ps(base, _mm256_loadu_ps(factors.add + i));
        __m256 distance = _mm256_fmadd_ps(_mm256_loadu_ps(factors.rescale + i), inner, add);
        uint32_t nearer = (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(distance, most, _CMP_LT_OQ));
        nearer &= count - i < LANES ? (1u << (count - i)) - 1 : 0xffu;
        float values[LANES];
        if (nearer) {
            _mm256_storeu_ps(values, distance);
        }
        for (; nearer; nearer &= nearer - 1) {
            uint32_t lane = (uint32_t)__builtin_ctz(nearer);
            out_distances[found] = values[lane];
            out_rows[found++] = first_row + (uint32_t)i + lane;
        }
    }
    return found;
}

static void centre_keys_avx2(const int32_t *dots, const float *scales, const float *squares,
                             size_t count, float factor, int32_t shift, float *out)
{
    const __m256 times = _mm256_set1_ps(factor);
    const __m256i less = _mm256_set1_epi32(shift);
    for (size_t i = 0; i < count; i += LANES) {
        __m256i dot =
            _mm256_sub_epi32(_mm256_loadu_si256((const __m256i *)(const void *)(dots + i)), less);
        __m256 scale = _mm256_mul_ps(_mm256_loadu_ps(scales + i), times);
        _mm256_storeu_ps(
            out + i, _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(dot), _mm256_loadu_ps(squares + i)));
    }
}

static uint32_t smallest_avx2(const float *keys, size_t count)
{
    __m256 best = _mm256_loadu_ps(keys);
    __m256i best_at = _mm256_setzero_si256();
    for (size_t i = LANES; i < count; i += LANES) {
        __m256 next = _mm256_loadu_ps(keys + i);
        __m256 nearer = _mm256_cmp_ps(next, best, _CMP_LT_OQ);
        best = _mm256_blendv_ps(best, next, nearer);
        best_at =
            _mm256_blendv_epi8(best_at, _mm256_set1_epi32((int)i), _mm256_castps_si256(nearer));
    }
    float values[LANES];
    uint32_t places[LANES];
    _mm256_storeu_ps(values, best);
    _mm256_storeu_si256((__m256i *)(void *)places, best_at);
    uint32_t lane = 0;
    for (uint32_t i = 1; i < LANES; i++) {
        if (values[i] < values[lane] ||
            (values[i] == values[lane] && places[i] + i < places[lane] + lane)) {
            lane = i;
        }
    }
    return places[lane] + lane;
}

static void fold_avx2(const float *keys, size_t count, float *out)
{
    for (size_t i = 0; i < count; i += VEX_LIST_FOLD * VEX_LIST_TILE_ROWS) {
        __m256 low = _mm256_loadu_ps(keys + i);
        __m256 high = _mm256_loadu_ps(keys + i + LANES);
        size_t end = count - i < VEX_LIST_FOLD * VEX_LIST_TILE_ROWS
                         ? count
                         : i + VEX_LIST_FOLD * VEX_LIST_TILE_ROWS;
        for (size_t j = i + VEX_LIST_TILE_ROWS; j < end; j += VEX_LIST_TILE_ROWS) {
            low = _mm256_min_ps(low, _mm256_loadu_ps(keys + j));
            high = _mm256_min_ps(high, _mm256_loadu_ps(keys + j + LANES));
        }
        _mm256_storeu_ps(out + i / VEX_LIST_FOLD, low);
        _mm256_storeu_ps(out + i / VEX_LIST_FOLD + LANES, high);
    }
}

static uint32_t within_mask(const float *keys, __m256 most)
{
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(keys), most, _CMP_LE_OQ));
}

static uint32_t count_within_avx2(const float *keys, size_t count, float limit)
{
    uint32_t found = 0;
    for (size_t i = 0; i < count; i += LANES) {
        found += (uint32_t)__builtin_popcount(within_mask(keys + i, _mm256_set1_ps(limit)));
    }
    return found;
}

static uint32_t places_within_avx2(const float *keys, size_t count, float limit, uint32_t *out)
{
    uint32_t found = 0;
    for (size_t i = 0; i < count; i += LANES) {
        uint32_t within = within_mask(keys + i, _mm256_set1_ps(limit));
        for (; within; within &= within - 1) {
            out[found++] = (uint32_t)i + (uint32_t)__builtin_ctz(within);
        }
    }
    return found;
}

const struct vex_list_kernels vex_list_kernels_avx2 = {
    .tile_codes = tile_codes_avx2,
    .tile_dots = tile_dots_avx2,
    .row_factors = row_factors_avx2,
    .near_rows = near_rows_avx2,
    .centre_keys = centre_keys_avx2,
    .smallest = smallest_avx2,
    .fold = fold_avx2,
    .count_within = count_within_avx2,
    .places_within = places_within_avx2,
};
