/*
 * Half-precision floats (IEEE binary16) in plain C, for the factors that graph links carry. The
 * vector kernels use the processor's conversions, which round the same way.
 */
#ifndef VEX_INDEX_HALF_H
#define VEX_INDEX_HALF_H

#include <stdint.h>
#include <string.h>

#define VEX_HALF_MAX 65504.0f

static inline float vex_half_to_float(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    uint32_t exponent = half >> 10 & 0x1fu;
    uint32_t fraction = half & 0x3ffu;
    uint32_t bits;
    float value;
    if (exponent == 0) {
        value = (float)fraction * 0x1p-24f;
        return sign ? -value : value;
    }
    bits = exponent == 0x1fu ? sign | 0x7f800000u | fraction << 13
                             : sign | (exponent + 112u) << 23 | fraction << 13;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

/* Rounds to nearest, ties to even; what is too large becomes the largest finite number. */
static inline uint16_t vex_half_from_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000u);
    float magnitude = value < 0 ? -value : value;
    if (!(magnitude < VEX_HALF_MAX)) {
        return (uint16_t)(sign | 0x7bffu);
    }
    if (magnitude < 0x1p-14f) {
        /* Adding 0.5 leaves a float whose last bit is 2^-24, the step of small halves. */
        float shifted = magnitude + 0.5f;
        uint32_t shifted_bits;
        memcpy(&shifted_bits, &shifted, sizeof(shifted_bits));
        return (uint16_t)(sign | (shifted_bits - 0x3f000000u));
    }
    memcpy(&bits, &magnitude, sizeof(bits));
    bits += 0x0fffu + (bits >> 13 & 1u);
    return (uint16_t)(sign | ((bits >> 13) - (112u << 10)));
}

/* The smallest half that is not below a value of 0 to 1. */
static inline uint16_t vex_half_at_least(double value)
{
    uint16_t half = vex_half_from_float((float)value);
    return (double)vex_half_to_float(half) < value ? (uint16_t)(half + 1u) : half;
}

#endif
