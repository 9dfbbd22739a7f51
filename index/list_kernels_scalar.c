/*
 * The kernels of inverted lists in plain C: what the others are measured by, and what runs where no
 * instruction set is known. The choice of a table follows that of the distance kernels, so that one
 * switch lowers all of them.
 */
#include "index/list_kernels.h"

#include <string.h>

#include "index/half.h"
#include "index/kernels.h"

#define GROUP_DIMS 4u /* of a row, side by side in a line of a tile */

static uint8_t *tile_at(uint8_t *tile, size_t dim, size_t row)
{
    return tile + dim / GROUP_DIMS * (GROUP_DIMS * VEX_LIST_TILE_ROWS) + row * GROUP_DIMS +
           dim % GROUP_DIMS;
}

static void tile_codes_scalar(const uint8_t *codes, size_t padded, size_t rows_count,
                              uint8_t *out_tile)
{
    memset(out_tile, 0, vex_list_tile_bytes(padded));
    for (size_t row = 0; row < rows_count; row++) {
        const uint8_t *code = codes + row * (padded / 2);
        for (size_t i = 0; i < padded / 2; i++) {
            size_t dim = i / VEX_CODE_CHUNK_BYTES * VEX_CODE_CHUNK_DIMS + i % VEX_CODE_CHUNK_BYTES;
            *tile_at(out_tile, dim, row) = code[i] & 15;
            *tile_at(out_tile, dim + VEX_CODE_CHUNK_BYTES, row) = code[i] >> 4;
        }
    }
}

static void tile_dots_scalar(const uint8_t *tiles, size_t tiles_count, size_t padded,
                             const int8_t *const *queries, size_t queries_count, int32_t *out,
                             size_t stride)
{
    for (size_t q = 0; q < queries_count; q++) {
        for (size_t t = 0; t < tiles_count; t++) {
            const uint8_t *line = tiles + t * vex_list_tile_bytes(padded);
            int32_t *sums = out + q * stride + t * VEX_LIST_TILE_ROWS;
            memset(sums, 0, VEX_LIST_TILE_ROWS * sizeof(*sums));
            for (size_t d = 0; d < padded; d += GROUP_DIMS) {
                for (size_t i = 0; i < GROUP_DIMS * VEX_LIST_TILE_ROWS; i++) {
                    sums[i / GROUP_DIMS] += *line++ * queries[q][d + i % GROUP_DIMS];
                }
            }
        }
    }
}

static void row_factors_scalar(const struct vex_code_query *units, const uint32_t *factors,
                               size_t count, struct vex_row_factors out)
{
    for (size_t i = 0; i < count; i++) {
        out.add[i] = vex_half_to_float((uint16_t)factors[i]) * units->add_unit;
        out.rescale[i] = vex_half_to_float((uint16_t)(factors[i] >> 16)) * units->rescale_unit;
    }
}

static uint32_t near_rows_scalar(const struct vex_code_query *query, const int32_t *dots,
                                 struct vex_row_factors factors, size_t count, float limit,
                                 uint32_t first_row, float *out_distances, uint32_t *out_rows)
{
    uint32_t found = 0;
    for (size_t i = 0; i < count; i++) {
        float inner = query->scale * (float)dots[i] + query->offset;
        float distance = query->base + factors.add[i] + factors.rescale[i] * inner;
        if (distance < limit) {
            out_distances[found] = distance;
            out_rows[found++] = first_row + (uint32_t)i;
        }
    }
    return found;
}

static void centre_keys_scalar(const int32_t *dots, const float *scales, const float *squares,
                               size_t count, float factor, int32_t shift, float *out)
{
    for (size_t i = 0; i < count; i++) {
        out[i] = squares[i] + factor * scales[i] * (float)(dots[i] - shift);
    }
}

static uint32_t smallest_scalar(const float *keys, size_t count)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < count; i++) {
        best = keys[i] < keys[best] ? i : best;
    }
    return best;
}

static void fold_scalar(const float *keys, size_t count, float *out)
{
    for (size_t i = 0; i < count; i += VEX_LIST_FOLD * VEX_LIST_TILE_ROWS) {
        size_t end = count - i < VEX_LIST_FOLD * VEX_LIST_TILE_ROWS
                         ? count
                         : i + VEX_LIST_FOLD * VEX_LIST_TILE_ROWS;
        memcpy(out + i / VEX_LIST_FOLD, keys + i, VEX_LIST_TILE_ROWS * sizeof(*out));
        for (size_t j = i + VEX_LIST_TILE_ROWS; j < end; j++) {
            float *least = out + i / VEX_LIST_FOLD + j % VEX_LIST_TILE_ROWS;
            *least = keys[j] < *least ? keys[j] : *least;
        }
    }
}

static uint32_t count_within_scalar(const float *keys, size_t count, float limit)
{
    uint32_t found = 0;
    for (size_t i = 0; i < count; i++) {
        found += keys[i] <= limit;
    }
    return found;
}

static uint32_t places_within_scalar(const float *keys, size_t count, float limit, uint32_t *out)
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (keys[i] <= limit) {
            out[found++] = i;
        }
    }
    return found;
}

const struct vex_list_kernels vex_list_kernels_scalar = {
    .tile_codes = tile_codes_scalar,
    .tile_dots = tile_dots_scalar,
    .row_factors = row_factors_scalar,
    .near_rows = near_rows_scalar,
    .centre_keys = centre_keys_scalar,
    .smallest = smallest_scalar,
    .fold = fold_scalar,
    .count_within = count_within_scalar,
    .places_within = places_within_scalar,
};

static const struct vex_list_kernels *table_for(const struct vex_kernels *kernels)
{
#if defined(__x86_64__)
    if (kernels->graph == &vex_graph_kernels_avx512) {
        return &vex_list_kernels_avx512;
    }
    if (kernels->graph == &vex_graph_kernels_avx2) {
        return &vex_list_kernels_avx2;
    }
#endif
    (void)kernels;
    return &vex_list_kernels_scalar;
}

const struct vex_list_kernels *vex_list_kernels_get(void)
{
    return table_for(vex_kernels_get());
}

const struct vex_list_kernels *vex_list_kernels_by_name(const char *name)
{
    const struct vex_kernels *kernels = vex_kernels_by_name(name);
    return kernels ? table_for(kernels) : NULL;
}
