#include "index/row_block.h"

#include "base/panic.h"

#define ROWS_STEP 8u

_Static_assert(VEX_ROW_BLOCK_FLOATS == ROWS_STEP * VEX_STORE_CHUNK, "a piece of so many rows fits");

void vex_row_block_init(struct vex_row_block *block, const struct vex_segment *segment, bool is_l2,
                        float *buffer)
{
    const struct vex_kernels *kernels = vex_kernels_get();
    uint32_t rows = VEX_ROW_BLOCK_FLOATS / segment->stride_floats;
    rows -= rows % ROWS_STEP;
    rows = rows < ROWS_STEP ? ROWS_STEP : rows;
    *block = (struct vex_row_block){
        .segment = segment,
        .score = is_l2 ? kernels->l2_rows : kernels->dot_rows,
        .rows_max = rows < VEX_ROW_BLOCK_ROWS_MAX ? rows : VEX_ROW_BLOCK_ROWS_MAX,
        .buffer = buffer,
    };
}

void vex_row_block_decode(struct vex_row_block *block)
{
    const struct vex_segment *segment = block->segment;
    size_t stride = segment->stride_floats;
    block->vectors = NULL;
    if (stride * block->count > VEX_ROW_BLOCK_FLOATS) {
        return;
    }
    for (uint32_t i = 0; i < block->count; i++) {
        (void)vex_segment_row(segment, block->first_row + i, block->buffer + i * stride);
    }
    block->vectors = block->buffer;
}

/* Eight rows at most, piece by piece. */
void vex_row_block_score_wide(const struct vex_row_block *block, const float *query, float *out)
{
    const struct vex_segment *segment = block->segment;
    float scores[ROWS_STEP];
    VEX_ASSERT(block->count <= ROWS_STEP);
    for (uint32_t first = 0; first < segment->dim; first += VEX_STORE_CHUNK) {
        uint32_t left = segment->dim - first;
        uint32_t width = left < VEX_STORE_CHUNK ? left : VEX_STORE_CHUNK;
        for (uint32_t i = 0; i < block->count; i++) {
            uint32_t row = block->first_row + i;
            vex_store_decode(segment->storage, vex_segment_stored(segment, row),
                             vex_segment_scale(segment, row), first, width,
                             block->buffer + (size_t)i * VEX_STORE_CHUNK);
        }
        block->score(query + first, block->buffer, VEX_STORE_CHUNK, block->count, width, scores);
        for (uint32_t i = 0; i < block->count; i++) {
            out[i] = first ? out[i] + scores[i] : scores[i];
        }
    }
}
