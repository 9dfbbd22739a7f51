/*
 * Short codes: a vector as four bits a dimension and two factors, good enough to walk a graph by.
 *
 * A vector is centred, scaled and rotated by a fixed random rotation, which makes all coordinates
 * alike whatever the data was; then one step per vector, chosen among a few to fit best, turns each
 * coordinate into one of sixteen levels h. With A = |x|^2 and r = -2 A / <x, h>, the estimate
 *
 *     |q - x|^2  ~  A + |q|^2 + r <h, q>
 *
 * has no bias: the factor r undoes the shortening that rounding to levels brings. The part of h that
 * is not along x behaves like noise to q, so the error falls with the square root of the dimension
 * (the idea is that of RaBitQ, Gao and Long, SIGMOD 2024; levels finer than a bit are from its
 * successor of 2025). The query is rounded to eight bits, and <h, q> is a sum of small integers.
 *
 * The rotation is made of rounds: flip signs by seeded bits, a fast Hadamard transform of the largest
 * power of two of coordinates that fits (first at the front, then at the back), and a butterfly
 * between the halves if that left some out. n log n instead of n^2, and nothing to store but bits.
 *
 * Thread-safety: pure functions on what they are given.
 */
#ifndef VEX_INDEX_CODES_H
#define VEX_INDEX_CODES_H

#include <stddef.h>
#include <stdint.h>

#include "index/graph_kernels.h"

struct vex_rotation {
    const uint8_t *signs; /* [rounds][padded / 8] */
    uint32_t padded;      /* a multiple of VEX_CODE_CHUNK_DIMS */
    uint32_t rounds;
};

struct vex_code_factors {
    float add;     /* A */
    float rescale; /* r; 0 if the code says nothing */
    double sine; /* of the angle between vector and code, not less than it is; see VEX_SINE_SLACK */
};

/* By how much the stored square of a sine is larger than the one computed, which is a difference of
 * numbers near 1: many times what double precision loses there. */
#define VEX_SINE_SLACK 1e-12

/* Dimensions of a code, bits included: dim rounded up to a line. */
uint32_t vex_code_padded(uint32_t dim);
/* Bytes of a rotation's signs. */
size_t vex_rotation_bytes(uint32_t padded);
/* How many rounds mix `padded` coordinates well. */
uint32_t vex_rotation_rounds(uint32_t padded);
void vex_rotation_make(uint64_t seed, uint32_t padded, uint8_t *out_signs);
/* In place. Keeps lengths but for rounding. */
void vex_rotation_apply(const struct vex_rotation *rotation,
                        const struct vex_graph_kernels *kernels, float *values);

/* Writes padded / 2 bytes of code. A zero vector gets factors of 0 and a sine of 1. */
struct vex_code_factors vex_code_encode(const struct vex_graph_kernels *kernels,
                                        const float *values, uint32_t padded, uint8_t *out_code);

/* Rounds a rotated query into `out_values`; base and units are left to the caller. */
void vex_code_query(const struct vex_graph_kernels *kernels, const float *values, uint32_t padded,
                    int8_t *out_values, struct vex_code_query *out);

#endif
