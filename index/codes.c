#include "index/codes.h"

#include <math.h>

#include "base/bytes.h"

#define FITS_COUNT 20u
#define FIT_SMALLEST 0.25f /* of the step with which the largest coordinate just fits */
#define FIT_LARGEST 1.05f
#define LEVELS_HALF 8.0f
#define QUERY_LIMIT 127

uint32_t vex_code_padded(uint32_t dim)
{
    return (uint32_t)vex_round_up(dim, VEX_CODE_CHUNK_DIMS);
}

uint32_t vex_rotation_rounds(uint32_t padded)
{
    /* A power of two is mixed completely by one transform; a second one also hides what the first
     * happens to line up with. */
    return (padded & (padded - 1)) == 0 ? 2 : VEX_ROTATION_ROUNDS_MAX;
}

size_t vex_rotation_bytes(uint32_t padded)
{
    return (size_t)vex_rotation_rounds(padded) * padded / 8;
}

void vex_rotation_make(uint64_t seed, uint32_t padded, uint8_t *out_signs)
{
    size_t bytes = vex_rotation_bytes(padded);
    for (size_t i = 0; i < bytes; i += sizeof(uint64_t)) {
        uint64_t word = vex_mix64(seed + (i + 1) * 0x9e3779b97f4a7c15u);
        memcpy(out_signs + i, &word, sizeof(word));
    }
}

static uint32_t largest_power_within(uint32_t padded)
{
    return 1u << (31 - __builtin_clz(padded));
}

void vex_rotation_apply(const struct vex_rotation *rotation,
                        const struct vex_graph_kernels *kernels, float *values)
{
    uint32_t padded = rotation->padded;
    uint32_t power = largest_power_within(padded);
    for (uint32_t round = 0; round < rotation->rounds; round++) {
        kernels->flip(values, rotation->signs + (size_t)round * padded / 8, padded);
        kernels->hadamard(values + (round % 2 ? padded - power : 0), power);
        if (power != padded) {
            kernels->butterfly(values, padded / 2);
        }
    }
}

/* <x, h>, |h|^2 and |x|^2 of a packed code, in double precision. */
static void measure_code(const float *values, uint32_t padded, const uint8_t *code, double out[3])
{
    double along = 0;
    double square = 0;
    double length = 0;
    for (uint32_t chunk = 0; chunk < padded; chunk += VEX_CODE_CHUNK_DIMS) {
        const uint8_t *line = code + chunk / 2;
        const float *low = values + chunk;
        const float *high = low + VEX_CODE_CHUNK_BYTES;
        for (uint32_t j = 0; j < VEX_CODE_CHUNK_BYTES; j++) {
            double u = (double)(line[j] & 15) - (double)VEX_CODE_MIDDLE;
            double v = (double)(line[j] >> 4) - (double)VEX_CODE_MIDDLE;
            along += (double)low[j] * u + (double)high[j] * v;
            square += u * u + v * v;
            length += (double)low[j] * (double)low[j] + (double)high[j] * (double)high[j];
        }
    }
    out[0] = along;
    out[1] = square;
    out[2] = length;
}

struct vex_code_factors vex_code_encode(const struct vex_graph_kernels *kernels,
                                        const float *values, uint32_t padded, uint8_t *out_code)
{
    float largest = kernels->max_abs(values, padded);
    float best_inverse = 0;
    float best_fit = -1;
    for (uint32_t i = 0; i < FITS_COUNT && largest > 0; i++) {
        float share = FIT_SMALLEST + (FIT_LARGEST - FIT_SMALLEST) * (float)i / (FITS_COUNT - 1);
        float inverse = LEVELS_HALF / (largest * share);
        float sums[2];
        kernels->code_fit(values, padded, inverse, sums);
        float fit = sums[0] * sums[0] / sums[1]; /* |x|^2 cos^2 of the angle between x and h */
        if (fit > best_fit) {
            best_fit = fit;
            best_inverse = inverse;
        }
    }
    kernels->code_pack(values, padded, best_inverse, out_code);
    double sums[3];
    measure_code(values, padded, out_code, sums);
    if (!(sums[0] > 0)) {
        return (struct vex_code_factors){(float)sums[2], 0, 1};
    }
    double sine_square = 1 - sums[0] * sums[0] / (sums[1] * sums[2]) + VEX_SINE_SLACK;
    return (struct vex_code_factors){
        .add = (float)sums[2],
        .rescale = (float)(-2 * sums[2] / sums[0]),
        .sine = sine_square < 1 ? sqrt(sine_square) : 1,
    };
}

void vex_code_query(const struct vex_graph_kernels *kernels, const float *values, uint32_t padded,
                    int8_t *out_values, struct vex_code_query *out)
{
    float largest = kernels->max_abs(values, padded);
    float inverse = largest > 0 ? QUERY_LIMIT / largest : 0;
    int32_t sum = kernels->quantise(values, padded, inverse, QUERY_LIMIT, out_values);
    *out = (struct vex_code_query){
        .values = out_values,
        .padded = padded,
        .scale = largest / QUERY_LIMIT,
        .offset = -VEX_CODE_MIDDLE * (largest / QUERY_LIMIT) * (float)sum,
    };
}
