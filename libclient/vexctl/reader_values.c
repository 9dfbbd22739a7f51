/*
 * Numbers of a file to floats, with the check that they are finite.
 *
 * The float32 path is the one that counts: a copy, then one pass of integer compares over the whole
 * row, which compilers vectorise; only a row that fails is searched for the place.
 */
#include <float.h>
#include <string.h>

#include "libclient/vexctl/reader_priv.h"

#define F4_EXPONENT 0x7f800000u

size_t vex_element_bytes(enum vex_element element)
{
    switch (element) {
    case VEX_ELEMENT_F4:
        return 4;
    case VEX_ELEMENT_F8:
        return 8;
    case VEX_ELEMENT_F2:
        return 2;
    case VEX_ELEMENT_I1:
    case VEX_ELEMENT_U1:
        return 1;
    }
    return 1;
}

static uint32_t float_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

/* An IEEE half is a float with a shorter exponent; its infinities and NaNs stay what they are. */
static float float_from_half(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    uint32_t exponent = half >> 10 & 0x1fu;
    uint32_t fraction = half & 0x3ffu;
    if (exponent == 0) {
        float value = (float)fraction * 0x1p-24f;
        return sign ? -value : value;
    }
    exponent = exponent == 0x1f ? 0xff : exponent + 112;
    uint32_t bits = sign | exponent << 23 | fraction << 13;
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static enum vex_status check_finite(const float *vector, size_t dim, size_t *out_place)
{
    unsigned bad = 0;
    for (size_t i = 0; i < dim; i++) {
        bad |= (float_bits(vector[i]) & F4_EXPONENT) == F4_EXPONENT;
    }
    for (size_t i = 0; bad && i < dim; i++) {
        if ((float_bits(vector[i]) & F4_EXPONENT) == F4_EXPONENT) {
            *out_place = i;
            return VEX_ERR_NOT_FINITE;
        }
    }
    return VEX_OK;
}

static enum vex_status decode_f8(const uint8_t *from, size_t dim, float *to, size_t *out_place)
{
    for (size_t i = 0; i < dim; i++) {
        double value;
        memcpy(&value, from + i * sizeof(value), sizeof(value));
        *out_place = i;
        if (!(value - value == 0)) {
            return VEX_ERR_NOT_FINITE;
        }
        if (value > (double)FLT_MAX || value < -(double)FLT_MAX) {
            return VEX_ERR_LIMIT;
        }
        to[i] = (float)value;
    }
    return VEX_OK;
}

enum vex_status vex_element_decode(enum vex_element element, const uint8_t *from, size_t dim,
                                   float *to, size_t *out_place)
{
    switch (element) {
    case VEX_ELEMENT_F4:
        memcpy(to, from, dim * sizeof(*to));
        return check_finite(to, dim, out_place);
    case VEX_ELEMENT_F8:
        return decode_f8(from, dim, to, out_place);
    case VEX_ELEMENT_F2:
        for (size_t i = 0; i < dim; i++) {
            uint16_t half;
            memcpy(&half, from + i * sizeof(half), sizeof(half));
            to[i] = float_from_half(half);
        }
        return check_finite(to, dim, out_place);
    case VEX_ELEMENT_I1:
        for (size_t i = 0; i < dim; i++) {
            to[i] = (float)(int8_t)from[i];
        }
        return VEX_OK;
    case VEX_ELEMENT_U1:
        for (size_t i = 0; i < dim; i++) {
            to[i] = (float)from[i];
        }
        return VEX_OK;
    }
    return VEX_ERR_FORMAT;
}

bool vex_element_all_zero(const float *vector, size_t dim)
{
    for (size_t i = 0; i < dim; i++) {
        if (vector[i] != 0) {
            return false;
        }
    }
    return true;
}
