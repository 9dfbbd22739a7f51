/*
 * Kernels that scan codes (graph_kernels.h) in the order in which they lie in memory: one query
 * against consecutive rows, and many queries against a tile of rows.
 *
 * One query: the codes stream from memory, each unpacked in registers beside the query's bytes.
 *
 * Many queries: unpacking would be paid for each of them, so VEX_TILE_ROWS rows are laid out once the
 * other way round (four dimensions of every row side by side), and each query then needs one
 * broadcast of its own four bytes per step and nothing else. A tile is VEX_TILE_ROWS * padded bytes:
 * the codes of a few thousand dimensions stay in the first-level cache while the queries take turns.
 *
 * What a scan does with the dot products is the same for both. `estimate` gives distances; `spread`
 * and `sieve` say which rows may lie within a threshold, and never leave out one that does. What the
 * terms of the sieve are and why they hold is proved in code_bound.h; here they are only evaluated:
 *
 *     v      = dot - middle
 *     least  = base + add * by_add + across * by_across + along * min(v * ahead, v * behind)
 *              + turn * max(v * by_turn, 0)
 *
 * and a row is left out if least > 0. What is not a number is kept.
 *
 * Dot products are the same on every level. The floats are not, and need not be.
 *
 * One const table per instruction set, reached through kernels.h. No alignment is needed unless it
 * is said. Thread-safety: pure functions on what they are given.
 */
#ifndef VEX_INDEX_SCAN_KERNELS_H
#define VEX_INDEX_SCAN_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "index/graph_kernels.h"

#define VEX_TILE_ROWS 32u
#define VEX_SCAN_ROWS 256u /* rows spread at once; a multiple of VEX_TILE_ROWS */

/* Rows as the sieve sees them, in units of the segment's codes. */
struct vex_scan_rows {
    _Alignas(64) float add[VEX_SCAN_ROWS];    /* the square of the length; NaN: always kept */
    _Alignas(64) float across[VEX_SCAN_ROWS]; /* the most that lies across the code */
    _Alignas(64) float along[VEX_SCAN_ROWS];  /* the most that a step along the code adds */
    _Alignas(64) float turn[VEX_SCAN_ROWS];
};

/* A query and its threshold as the sieve sees them. */
struct vex_scan_terms {
    float middle;
    float base;
    float by_add;
    float by_across; /* not above 0 */
    float ahead;     /* not above 0 */
    float behind;    /* ahead, nearer to 0 */
    float by_turn;   /* not below 0 */
};

/* Bounds of stored factors beyond which `spread` does not trust a row's code. */
#define VEX_SPREAD_SINE_MAX 0.5f
#define VEX_SPREAD_RESCALE_MIN 0x1p-14f
/* How far half floats are from what they stand for, relative and absolute, and a sine from what it
 * is: see code_bound.h. */
#define VEX_SPREAD_HALF 0x1.008p-11f
#define VEX_SPREAD_FLOOR 0x1p-24f
#define VEX_SPREAD_SINE 0x1p-17f
#define VEX_SPREAD_SQUARE 0x1p-9f
#define VEX_SPREAD_ROUND 0x1p-19f

struct vex_scan_kernels {
    /* out[i] = sum over d of query[d] * code value d of row i; `query` has `padded` bytes. */
    void (*dots)(const int8_t *query, const uint8_t *codes, size_t padded, size_t count,
                 int32_t *out);
    /* Lays out up to VEX_TILE_ROWS consecutive codes; rows behind `count` become zero. `tile` is
     * aligned to 64, VEX_TILE_ROWS * padded bytes, and is read by tile_dots of this table only. */
    void (*tile_pack)(const uint8_t *codes, size_t padded, size_t count, uint8_t *tile);
    /* out[q * VEX_TILE_ROWS + i] = the dot product of query q and row i. `out` is aligned to 64. */
    void (*tile_dots)(const uint8_t *tile, size_t padded, const int8_t *const *queries,
                      size_t count, int32_t *out);
    /* out[i] = the distance that graph_kernels.h's `score` gives a row with that dot product. */
    void (*estimate)(const struct vex_code_query *query, const int32_t *dots,
                     const uint32_t *factors, size_t count, float *out);
    /* Spreads up to VEX_SCAN_ROWS rows; factors and angles as in code_set.h. Slots up to the next
     * multiple of VEX_TILE_ROWS are filled, with what is always kept. */
    void (*spread)(const uint32_t *factors, const uint16_t *angles, size_t count,
                   struct vex_scan_rows *out);
    /* Bit i % 32 of out[i / 32] is set if row i is kept. `dots` and `rows` are read, and whole words
     * written, up to the next multiple of VEX_TILE_ROWS. */
    void (*sieve)(const struct vex_scan_terms *terms, const struct vex_scan_rows *rows,
                  const int32_t *dots, size_t count, uint32_t *out);
    /* The same for rows first .. first + VEX_TILE_ROWS - 1 and many queries, with dots as from
     * tile_dots: out[q] for terms[q]. */
    void (*sieve_tile)(const struct vex_scan_terms *terms, const struct vex_scan_rows *rows,
                       size_t first, const int32_t *dots, size_t count, uint32_t *out);
};

extern const struct vex_scan_kernels vex_scan_kernels_scalar;
#if defined(__x86_64__)
extern const struct vex_scan_kernels vex_scan_kernels_avx2;
extern const struct vex_scan_kernels vex_scan_kernels_avx512; /* needs VNNI */
#endif

#endif
