/*
 * Kernels of inverted lists: many bytes against many bytes.
 *
 * A tile holds sixteen rows the other way round: for each four dimensions one line of 64 bytes, four
 * bytes of each row. A line meets four bytes of a query that are repeated over the register, and the
 * sums of sixteen rows stand side by side: no reduction at the end, and a line that is loaded once
 * serves several queries. Codes (graph_kernels.h) are laid out row by row, so a list's codes become
 * tiles when its turn comes; that pays as soon as a few queries want the list. Centres of lists are
 * stored as tiles.
 *
 * Bytes of a tile are at most 127, so that the products of two pairs fit sixteen bits (AVX2). Integer
 * results are the same on every level; floats may differ in the last bits.
 *
 * Tiles are aligned to 64 bytes. Thread-safety: pure functions on what they are given.
 */
#ifndef VEX_INDEX_LIST_KERNELS_H
#define VEX_INDEX_LIST_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "index/graph_kernels.h"

#define VEX_LIST_TILE_ROWS 16u
#define VEX_LIST_FOLD 8u /* keys that fold makes one of */

/* Bytes of one tile. */
static inline size_t vex_list_tile_bytes(size_t padded)
{
    return padded * VEX_LIST_TILE_ROWS;
}

/* The factors of rows, as floats. */
struct vex_row_factors {
    float *add;
    float *rescale;
};

struct vex_list_kernels {
    /* Writes one tile from the codes of 1 to 16 rows; those that are missing hold anything. */
    void (*tile_codes)(const uint8_t *codes, size_t padded, size_t rows_count, uint8_t *out_tile);
    /* out[q * stride + r] = <query q, row r>, for all rows of `tiles_count` tiles. */
    void (*tile_dots)(const uint8_t *tiles, size_t tiles_count, size_t padded,
                      const int8_t *const *queries, size_t queries_count, int32_t *out,
                      size_t stride);
    /* Unpacks the half floats of `count` rows; `out` has room for whole registers of 16. */
    void (*row_factors)(const struct vex_code_query *units, const uint32_t *factors, size_t count,
                        struct vex_row_factors out);
    /*
     * Estimates `count` rows (graph_kernels.h) and writes the distances below `limit` and the rows'
     * numbers, which begin with `first_row`. Returns how many; `out` has room for count + 16.
     */
    uint32_t (*near_rows)(const struct vex_code_query *query, const int32_t *dots,
                          struct vex_row_factors factors, size_t count, float limit,
                          uint32_t first_row, float *out_distances, uint32_t *out_rows);
    /* out[i] = squares[i] + factor * scales[i] * (dots[i] - shift); count a multiple of 16. */
    void (*centre_keys)(const int32_t *dots, const float *scales, const float *squares,
                        size_t count, float factor, int32_t shift, float *out);
    /* The place of the smallest; of the first one if there are several. count a multiple of 16. */
    uint32_t (*smallest)(const float *keys, size_t count);
    /* The least of each VEX_LIST_FOLD keys; which keys go together is of no matter. count a multiple of
     * 16; `out` gets count / VEX_LIST_FOLD, rounded up to 16. */
    void (*fold)(const float *keys, size_t count, float *out);
    /* How many are at most `limit`. count a multiple of 16. */
    uint32_t (*count_within)(const float *keys, size_t count, float limit);
    /* The places of those that are at most `limit`, ascending; room for count. */
    uint32_t (*places_within)(const float *keys, size_t count, float limit, uint32_t *out);
};

/* The table for the level that vex_kernels_get has chosen. */
const struct vex_list_kernels *vex_list_kernels_get(void);
/* The table that belongs to a level by its name; NULL if there is none. For tests. */
const struct vex_list_kernels *vex_list_kernels_by_name(const char *name);

extern const struct vex_list_kernels vex_list_kernels_scalar;
#if defined(__x86_64__)
extern const struct vex_list_kernels vex_list_kernels_avx2;
extern const struct vex_list_kernels vex_list_kernels_avx512; /* needs VNNI */
#endif

#endif
