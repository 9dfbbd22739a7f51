#include "index/store.h"

#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "index/half.h"
#include "index/kernels.h"

#define BYTE_LIMIT 127
#define SCALE_LEAST 0x1p-133
/* Of a double: what is left of the significand are sixteen bits, the leading one included. */
#define SCALE_MASK (~(((uint64_t)1 << 37) - 1))

uint32_t vex_store_element_bytes(enum vex_storage storage)
{
    switch (storage) {
    case VEX_STORAGE_FLOAT16:
        return sizeof(uint16_t);
    case VEX_STORAGE_INT8:
        return sizeof(int8_t);
    case VEX_STORAGE_FLOAT32:
        break;
    }
    return sizeof(float);
}

uint32_t vex_store_stride(enum vex_storage storage, uint32_t dim)
{
    return (uint32_t)vex_round_up(dim, VEX_STORE_LINE_BYTES / vex_store_element_bytes(storage));
}

uint32_t vex_store_overflow(enum vex_storage storage, const float *vector, uint32_t dim)
{
    uint32_t d = storage == VEX_STORAGE_FLOAT16 ? 0 : dim;
    while (d < dim && fabsf(vector[d]) <= VEX_HALF_MAX) {
        d++;
    }
    return d;
}

/* What one step of a row's bytes is worth, see store.h. */
static float scale_of(const float *vector, uint32_t dim)
{
    float largest = 0;
    for (uint32_t d = 0; d < dim; d++) {
        float magnitude = fabsf(vector[d]);
        largest = magnitude > largest ? magnitude : largest;
    }
    double scale = (double)largest / BYTE_LIMIT;
    uint64_t bits;
    memcpy(&bits, &scale, sizeof(bits));
    bits &= SCALE_MASK;
    memcpy(&scale, &bits, sizeof(scale));
    return scale < SCALE_LEAST ? 0 : (float)scale;
}

bool vex_store_is_zero(enum vex_storage storage, const float *vector, uint32_t dim)
{
    if (storage == VEX_STORAGE_INT8) {
        return scale_of(vector, dim) == 0; /* the largest magnitude is 127 steps otherwise */
    }
    for (uint32_t d = 0; d < dim; d++) {
        float stored = storage == VEX_STORAGE_FLOAT16
                           ? vex_half_to_float(vex_half_from_float(vector[d]))
                           : vector[d];
        if (stored != 0) {
            return false;
        }
    }
    return true;
}

static void round_to_halves(const float *vector, uint32_t dim, uint16_t *out_row)
{
    for (uint32_t d = 0; d < dim; d++) {
        out_row[d] = vex_half_from_float(vector[d]);
    }
}

static float round_to_bytes(const float *vector, uint32_t dim, int8_t *out_row)
{
    float scale = scale_of(vector, dim);
    for (uint32_t d = 0; d < dim; d++) {
        out_row[d] = scale > 0 ? (int8_t)lrintf(vector[d] / scale) : 0;
    }
    return scale;
}

float vex_store_round(enum vex_storage storage, const float *vector, uint32_t dim, void *out_row)
{
    switch (storage) {
    case VEX_STORAGE_FLOAT16:
        round_to_halves(vector, dim, out_row);
        return 1;
    case VEX_STORAGE_INT8:
        return round_to_bytes(vector, dim, out_row);
    case VEX_STORAGE_FLOAT32:
        break;
    }
    memcpy(out_row, vector, dim * sizeof(float));
    return 1;
}

void vex_store_decode(enum vex_storage storage, const void *row, float scale, size_t first,
                      size_t count, float *out)
{
    const uint8_t *from = (const uint8_t *)row + first * vex_store_element_bytes(storage);
    switch (storage) {
    case VEX_STORAGE_FLOAT16:
        vex_kernels_get()->half->decode(from, 1, count, out);
        return;
    case VEX_STORAGE_INT8:
        vex_kernels_get()->int8->decode(from, scale, count, out);
        return;
    case VEX_STORAGE_FLOAT32:
        break;
    }
    memcpy(out, from, count * sizeof(float));
}
