/*
 * The scan kernels in plain C: for processors without a table of their own, and what the others are
 * compared with. A tile has the layout of the others (four dimensions of 32 rows, 128 bytes), for
 * there is none that suits a compiler better: its inner loop runs over rows.
 */
#include "index/scan_kernels.h"

#include <math.h>
#include <string.h>

#include "index/half.h"

#define LINE VEX_CODE_CHUNK_BYTES
#define STEP_DIMS 4u
#define STEP_BYTES (VEX_TILE_ROWS * STEP_DIMS)

static int32_t dot_row(const int8_t *query, const uint8_t *code, size_t padded)
{
    int32_t sum = 0;
    for (size_t i = 0; i < padded; i += VEX_CODE_CHUNK_DIMS) {
        const uint8_t *line = code + i / 2;
        const int8_t *low = query + i;
        const int8_t *high = low + LINE;
        for (size_t j = 0; j < LINE; j++) {
            sum += (line[j] & 15) * low[j] + (line[j] >> 4) * high[j];
        }
    }
    return sum;
}

static void dots_scalar(const int8_t *query, const uint8_t *codes, size_t padded, size_t count,
                        int32_t *out)
{
    for (size_t i = 0; i < count; i++) {
        out[i] = dot_row(query, codes + i * (padded / 2), padded);
    }
}

static void tile_pack_scalar(const uint8_t *codes, size_t padded, size_t count, uint8_t *tile)
{
    memset(tile, 0, VEX_TILE_ROWS * padded);
    for (size_t row = 0; row < count; row++) {
        const uint8_t *code = codes + row * (padded / 2);
        for (size_t i = 0; i < padded; i += VEX_CODE_CHUNK_DIMS) {
            uint8_t *low = tile + i * VEX_TILE_ROWS + row * STEP_DIMS;
            uint8_t *high = low + LINE * VEX_TILE_ROWS;
            for (size_t j = 0; j < LINE; j++) {
                size_t at = j / STEP_DIMS * STEP_BYTES + j % STEP_DIMS;
                low[at] = code[i / 2 + j] & 15;
                high[at] = code[i / 2 + j] >> 4;
            }
        }
    }
}

static void tile_dots_scalar(const uint8_t *tile, size_t padded, const int8_t *const *queries,
                             size_t count, int32_t *out)
{
    for (size_t q = 0; q < count; q++) {
        int32_t sums[VEX_TILE_ROWS] = {0};
        for (size_t d = 0; d < padded; d += STEP_DIMS) {
            const uint8_t *step = tile + d * VEX_TILE_ROWS;
            const int8_t *query = queries[q] + d;
            for (size_t i = 0; i < VEX_TILE_ROWS; i++) {
                const uint8_t *row = step + i * STEP_DIMS;
                sums[i] +=
                    row[0] * query[0] + row[1] * query[1] + row[2] * query[2] + row[3] * query[3];
            }
        }
        memcpy(out + q * VEX_TILE_ROWS, sums, sizeof(sums));
    }
}

static void estimate_scalar(const struct vex_code_query *query, const int32_t *dots,
                            const uint32_t *factors, size_t count, float *out)
{
    for (size_t i = 0; i < count; i++) {
        float inner = query->scale * (float)dots[i] + query->offset;
        float add = query->add_unit * vex_half_to_float((uint16_t)factors[i]);
        float rescale = query->rescale_unit * vex_half_to_float((uint16_t)(factors[i] >> 16));
        out[i] = rescale * inner + (add + query->base);
    }
}

static void spread_row(uint32_t factors, uint16_t angle, struct vex_scan_rows *out, size_t at)
{
    float add = vex_half_to_float((uint16_t)factors);
    float rescale = -vex_half_to_float((uint16_t)(factors >> 16));
    float sine = vex_half_to_float(angle);
    float unknown = add < VEX_HALF_MAX && sine == sine ? 0.0f : NAN;
    int is_plain = sine > VEX_SPREAD_SINE_MAX || !(rescale >= VEX_SPREAD_RESCALE_MIN) ||
                   rescale >= VEX_HALF_MAX;
    sine = is_plain ? 1 : sine;
    float square = sine * sine;
    float length = sqrtf(add * (1 + VEX_SPREAD_HALF) + VEX_SPREAD_FLOOR);
    float most = rescale * (1 + VEX_SPREAD_HALF) + VEX_SPREAD_FLOOR;
    float least = rescale * (1 - VEX_SPREAD_HALF) - VEX_SPREAD_FLOOR;
    float cosine = 1 + VEX_SPREAD_ROUND - square * (1 - VEX_SPREAD_SQUARE);
    out->add[at] = add + unknown;
    out->across[at] = (sine + VEX_SPREAD_SINE) * length * (1 + VEX_SPREAD_ROUND);
    out->along[at] = is_plain ? 0 : most * cosine * (1 + VEX_SPREAD_ROUND);
    out->turn[at] = is_plain ? 0 : least * sine * (1 - VEX_SPREAD_ROUND - square);
}

static void spread_scalar(const uint32_t *factors, const uint16_t *angles, size_t count,
                          struct vex_scan_rows *out)
{
    for (size_t i = 0; i < count; i++) {
        spread_row(factors[i], angles[i], out, i);
    }
    for (size_t i = count; i % VEX_TILE_ROWS != 0; i++) {
        out->add[i] = NAN;
        out->across[i] = out->along[i] = out->turn[i] = 0;
    }
}

static uint32_t keep(const struct vex_scan_terms *terms, const struct vex_scan_rows *rows,
                     size_t first, const int32_t *dots)
{
    uint32_t kept = 0;
    for (size_t i = 0; i < VEX_TILE_ROWS; i++) {
        float v = (float)dots[i] - terms->middle;
        float ahead = v * terms->ahead;
        float behind = v * terms->behind;
        float turn = v * terms->by_turn;
        float least = rows->across[first + i] * terms->by_across + terms->base;
        least += rows->add[first + i] * terms->by_add;
        least += rows->turn[first + i] * (turn > 0 ? turn : 0);
        least += rows->along[first + i] * (ahead < behind ? ahead : behind);
        kept |= (uint32_t) !(least > 0) << i;
    }
    return kept;
}

static void sieve_scalar(const struct vex_scan_terms *terms, const struct vex_scan_rows *rows,
                         const int32_t *dots, size_t count, uint32_t *out)
{
    for (size_t i = 0; i < count; i += VEX_TILE_ROWS) {
        out[i / VEX_TILE_ROWS] = keep(terms, rows, i, dots + i);
    }
}

static void sieve_tile_scalar(const struct vex_scan_terms *terms, const struct vex_scan_rows *rows,
                              size_t first, const int32_t *dots, size_t count, uint32_t *out)
{
    for (size_t q = 0; q < count; q++) {
        out[q] = keep(&terms[q], rows, first, dots + q * VEX_TILE_ROWS);
    }
}

const struct vex_scan_kernels vex_scan_kernels_scalar = {
    .dots = dots_scalar,
    .tile_pack = tile_pack_scalar,
    .tile_dots = tile_dots_scalar,
    .estimate = estimate_scalar,
    .spread = spread_scalar,
    .sieve = sieve_scalar,
    .sieve_tile = sieve_tile_scalar,
};
