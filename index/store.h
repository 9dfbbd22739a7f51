/*
 * How the rows of a collection are kept: as floats, as half floats, or as bytes.
 *
 *   float32  as given
 *   float16  each coordinate rounded to the nearest half (ties to even); beyond 65504 it is refused
 *   int8     round(x / scale), with one scale a row
 *
 * The stored row *is* the vector from then on: norms, distances, exact answers and what is read back
 * are of it. So it must be the same everywhere and for ever: rounding is plain C of fixed order, and
 * turning a row back into floats is exact, by any processor. For halves that is so by nature. For
 * bytes the scale, the largest magnitude over 127, is cut to sixteen significant bits, which leaves
 * room in a float for the product with seven bits more: all coordinates are exact products, the
 * largest stays 127 steps, and a row that is read and written again is the same bytes. A scale too
 * small for that (below 2^-133) makes a zero row.
 *
 * Why rounding happens when a row is stored and not when it is logged: the log says what was asked
 * for, in one format; a replay rounds again, to the same bytes.
 *
 * Thread-safety: pure functions on what they are given.
 */
#ifndef VEX_INDEX_STORE_H
#define VEX_INDEX_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vex/types.h>

#define VEX_STORE_LINE_BYTES 64u
/* So many coordinates are decoded at once where there is no room for a row of any dimension. */
#define VEX_STORE_CHUNK 1024u

static inline bool vex_storage_is_known(uint32_t storage)
{
    return storage <= VEX_STORAGE_INT8;
}

/* Bytes of a coordinate. */
uint32_t vex_store_element_bytes(enum vex_storage storage);
/* Coordinates from one row to the next: `dim` rounded up to a line. */
uint32_t vex_store_stride(enum vex_storage storage, uint32_t dim);

/* The first coordinate that cannot be stored, or `dim` if all can. The vector is finite. */
uint32_t vex_store_overflow(enum vex_storage storage, const float *vector, uint32_t dim);
/* Whether the vector becomes a zero row. */
bool vex_store_is_zero(enum vex_storage storage, const float *vector, uint32_t dim);

/* Rounds `dim` coordinates into `out_row`; returns the scale of the row, 1 if it needs none. */
float vex_store_round(enum vex_storage storage, const float *vector, uint32_t dim, void *out_row);

/* `count` coordinates of a stored row, from `first` on, as floats. */
void vex_store_decode(enum vex_storage storage, const void *row, float scale, size_t first,
                      size_t count, float *out);

#endif
