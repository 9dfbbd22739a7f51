/*
 * The graph kernels in plain C: for processors without a table of their own, and what the others are
 * compared with. Loops are written so that a compiler can put them into the baseline's registers
 * where sums are of integers; sums of floats keep the order that is written.
 */
#include "index/graph_kernels.h"

#include <math.h>
#include <string.h>

#include "index/half.h"

#define HALF_LINE (VEX_CODE_CHUNK_DIMS / 2)

static void centre_scalar(const float *in, float scale, const float *centre, size_t dim,
                          size_t padded, float *out)
{
    for (size_t i = 0; i < dim; i++) {
        out[i] = in[i] * scale - centre[i];
    }
    memset(out + dim, 0, (padded - dim) * sizeof(*out));
}

static void flip_scalar(float *values, const uint8_t *bits, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        values[i] = bits[i / 8] >> i % 8 & 1 ? -values[i] : values[i];
    }
}

static void hadamard_scalar(float *values, size_t count)
{
    for (size_t half = 1; half < count; half *= 2) {
        for (size_t i = 0; i < count; i += 2 * half) {
            for (size_t j = i; j < i + half; j++) {
                float a = values[j];
                float b = values[j + half];
                values[j] = a + b;
                values[j + half] = a - b;
            }
        }
    }
    float scale = 1 / sqrtf((float)count);
    for (size_t i = 0; i < count; i++) {
        values[i] *= scale;
    }
}

static void butterfly_scalar(float *values, size_t half)
{
    const float scale = 0.70710678f;
    for (size_t i = 0; i < half; i++) {
        float a = values[i] * scale;
        float b = values[i + half] * scale;
        values[i] = a + b;
        values[i + half] = a - b;
    }
}

static float max_abs_scalar(const float *values, size_t count)
{
    float largest = 0;
    for (size_t i = 0; i < count; i++) {
        float magnitude = fabsf(values[i]);
        largest = magnitude > largest ? magnitude : largest;
    }
    return largest;
}

static float square_sum_scalar(const float *values, size_t count)
{
    float sums[8] = {0};
    for (size_t i = 0; i < count; i++) {
        sums[i % 8] += values[i] * values[i];
    }
    return ((sums[0] + sums[4]) + (sums[2] + sums[6])) +
           ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

/* The code of one value, 0..15. Written so that NaN gives 0. */
static float code_of(float value, float inverse_step)
{
    float steps = floorf(value * inverse_step) + 8;
    return steps > 0 ? (steps < 15 ? steps : 15) : 0;
}

static void code_fit_scalar(const float *values, size_t padded, float inverse_step, float out[2])
{
    float dot = 0;
    float square = 0;
    for (size_t i = 0; i < padded; i++) {
        float h = code_of(values[i], inverse_step) - VEX_CODE_MIDDLE;
        dot += h * values[i];
        square += h * h;
    }
    out[0] = dot;
    out[1] = square;
}

static void code_pack_scalar(const float *values, size_t padded, float inverse_step, uint8_t *out)
{
    for (size_t i = 0; i < padded; i += VEX_CODE_CHUNK_DIMS) {
        for (size_t j = 0; j < HALF_LINE; j++) {
            unsigned low = (unsigned)code_of(values[i + j], inverse_step);
            unsigned high = (unsigned)code_of(values[i + HALF_LINE + j], inverse_step);
            out[i / 2 + j] = (uint8_t)(low | high << 4);
        }
    }
}

static int32_t quantise_scalar(const float *values, size_t count, float inverse, int limit,
                               int8_t *out)
{
    int32_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        float scaled = values[i] * inverse;
        float bounded = scaled > (float)-limit ? scaled : (float)-limit;
        bounded = bounded < (float)limit ? bounded : (float)limit;
        out[i] = (int8_t)lrintf(bounded);
        sum += out[i];
    }
    return sum;
}

static int32_t code_dot(const uint8_t *code, const int8_t *query, size_t padded)
{
    int32_t sum = 0;
    for (size_t i = 0; i < padded; i += VEX_CODE_CHUNK_DIMS) {
        const uint8_t *line = code + i / 2;
        const int8_t *low = query + i;
        const int8_t *high = low + HALF_LINE;
        for (size_t j = 0; j < HALF_LINE; j++) {
            sum += (line[j] & 15) * low[j] + (line[j] >> 4) * high[j];
        }
    }
    return sum;
}

static void score_scalar(const struct vex_code_query *query, const uint8_t *codes,
                         struct vex_score_batch *batch)
{
    size_t code_bytes = query->padded / 2;
    for (uint32_t i = 0; i < batch->count; i++) {
        int32_t dot = code_dot(codes + batch->nodes[i] * code_bytes, query->values, query->padded);
        float inner = query->scale * (float)dot + query->offset;
        float add = query->add_unit * vex_half_to_float((uint16_t)batch->factors[i]);
        float rescale =
            query->rescale_unit * vex_half_to_float((uint16_t)(batch->factors[i] >> 16));
        batch->distances[i] = rescale * inner + (add + query->base);
    }
}

/* False if the beam holds the node already, with the same distance. */
static int insert(struct vex_beam *beam, float distance, uint32_t node)
{
    uint32_t low = 0;
    uint32_t high = beam->count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (beam->distances[middle] <= distance) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    for (uint32_t i = low; i-- > 0 && beam->distances[i] == distance;) {
        if ((beam->nodes[i] & ~VEX_NODE_EXPANDED) == node) {
            return 0;
        }
    }
    uint32_t kept = beam->count < beam->capacity ? beam->count : beam->capacity - 1;
    memmove(beam->distances + low + 1, beam->distances + low, (kept - low) * sizeof(float));
    memmove(beam->nodes + low + 1, beam->nodes + low, (kept - low) * sizeof(uint32_t));
    beam->distances[low] = distance;
    beam->nodes[low] = node;
    beam->count = kept + 1;
    beam->cursor = low < beam->cursor ? low : beam->cursor;
    return low <= beam->cursor + VEX_BEAM_FETCH_AHEAD;
}

static void offer_scalar(struct vex_beam *beam, const struct vex_score_batch *batch)
{
    for (uint32_t i = 0; i < batch->count; i++) {
        if (!(batch->distances[i] < beam->distances[beam->capacity - 1])) {
            continue;
        }
        if (insert(beam, batch->distances[i], batch->nodes[i]) && beam->rows) {
            const uint8_t *row = beam->rows + batch->nodes[i] * beam->row_bytes;
            for (size_t at = 0; at < beam->row_bytes; at += 64) {
                __builtin_prefetch(row + at);
            }
        }
    }
}

static void bytes_l2_scalar(const int8_t *query, const int8_t *base, size_t bytes,
                            const uint32_t *nodes, size_t count, float *out)
{
    for (size_t i = 0; i < count; i++) {
        const int8_t *other = base + nodes[i] * bytes;
        int32_t sum = 0;
        for (size_t j = 0; j < bytes; j++) {
            int32_t difference = query[j] - other[j];
            sum += difference * difference;
        }
        out[i] = (float)sum;
    }
}

const struct vex_graph_kernels vex_graph_kernels_scalar = {
    .centre = centre_scalar,
    .flip = flip_scalar,
    .hadamard = hadamard_scalar,
    .butterfly = butterfly_scalar,
    .max_abs = max_abs_scalar,
    .square_sum = square_sum_scalar,
    .code_fit = code_fit_scalar,
    .code_pack = code_pack_scalar,
    .quantise = quantise_scalar,
    .score = score_scalar,
    .offer = offer_scalar,
    .bytes_l2 = bytes_l2_scalar,
};
