/*
 * A run of rows to be scored in single precision, whatever they are stored as.
 *
 * The kernels score floats. Rows that are something else are decoded into a buffer of the first
 * cache's size, once for all the queries that take turns on the block. Rows too wide for that are
 * decoded piece by piece for each query, and the pieces' scores added up: that is a sum in another
 * order, no deeper than one running sum, so the bound of kernels.h holds for it, too. (A piece of c of
 * the n terms takes at most c - 1 additions, and there are at most n / c pieces to add.)
 *
 * Thread-safety: a block belongs to its caller.
 */
#ifndef VEX_INDEX_ROW_BLOCK_H
#define VEX_INDEX_ROW_BLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "index/kernels.h"
#include "index/segment.h"

#define VEX_ROW_BLOCK_ROWS_MAX 256u
#define VEX_ROW_BLOCK_FLOATS 8192u

struct vex_row_block {
    const struct vex_segment *segment;
    vex_rows_kernel score;
    uint32_t rows_max; /* a multiple of what kernels take at a time */
    uint32_t first_row;
    uint32_t count;
    const float *vectors; /* NULL: too wide */
    float *buffer;
};

/* A block without rows. Scores are squared distances or dot products. `buffer` is for
 * VEX_ROW_BLOCK_FLOATS floats, aligned to 64, and in use as long as the block. */
void vex_row_block_init(struct vex_row_block *block, const struct vex_segment *segment, bool is_l2,
                        float *buffer);
/* What follows is for rows that are not floats. */
void vex_row_block_decode(struct vex_row_block *block);
void vex_row_block_score_wide(const struct vex_row_block *block, const float *query, float *out);

/* Goes to `count` rows, at most rows_max, from `first_row` on. */
static inline void vex_row_block_move(struct vex_row_block *block, uint32_t first_row,
                                      uint32_t count)
{
    VEX_ASSERT(count <= block->rows_max);
    block->first_row = first_row;
    block->count = count;
    if (block->segment->storage == VEX_STORAGE_FLOAT32) {
        block->vectors = vex_segment_vector(block->segment, first_row);
    } else {
        vex_row_block_decode(block);
    }
}

/* Scores of the rows for `query`, into [count]. */
static inline void vex_row_block_score(const struct vex_row_block *block, const float *query,
                                       float *out)
{
    if (block->vectors) {
        block->score(query, block->vectors, block->segment->stride_floats, block->count,
                     block->segment->dim, out);
    } else {
        vex_row_block_score_wide(block, query, out);
    }
}

#endif
