/*
 * Rows of halves and of bytes in plain C: the level that the others are compared with.
 *
 * One loop serves both kinds: what differs is how a coordinate is read, and a constant decides that.
 * The order of the sums is that of kernels.c, written out there.
 */
#include "index/store_kernels.h"

#include <stdbool.h>
#include <stdint.h>

#include "index/half.h"

#define PARTIAL_SUMS 4u
#define INLINE static inline __attribute__((always_inline)) /* is_half must fold away */

INLINE float coordinate(bool is_half, const void *row, float scale, size_t d)
{
    return is_half ? vex_half_to_float(((const uint16_t *)row)[d])
                   : (float)((const int8_t *)row)[d] * scale;
}

INLINE void decode(bool is_half, const void *row, float scale, size_t count, float *out)
{
    for (size_t d = 0; d < count; d++) {
        out[d] = coordinate(is_half, row, scale, d);
    }
}

static double total(const double sums[PARTIAL_SUMS])
{
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

INLINE double l2(bool is_half, const float *query, const void *row, float scale, size_t dim)
{
    double sums[PARTIAL_SUMS] = {0};
    for (size_t d = 0; d < dim; d++) {
        double difference = (double)query[d] - (double)coordinate(is_half, row, scale, d);
        sums[d % PARTIAL_SUMS] += difference * difference;
    }
    return total(sums);
}

INLINE void dot(bool is_half, const float *query, const void *row, float scale, size_t dim,
                double *out_dot, double *out_square)
{
    double dots[PARTIAL_SUMS] = {0};
    double squares[PARTIAL_SUMS] = {0};
    for (size_t d = 0; d < dim; d++) {
        double x = (double)coordinate(is_half, row, scale, d);
        dots[d % PARTIAL_SUMS] += (double)query[d] * x;
        squares[d % PARTIAL_SUMS] += x * x;
    }
    *out_dot = total(dots);
    *out_square = total(squares);
}

INLINE void dot_four(bool is_half, const float *query, const void *const rows[4],
                     const float scales[4], size_t dim, double out_dots[4], double *out_squares)
{
    for (size_t i = 0; i < 4; i++) {
        double square;
        dot(is_half, query, rows[i], scales[i], dim, &out_dots[i], &square);
        if (out_squares) {
            out_squares[i] = square;
        }
    }
}

static void decode_half(const void *row, float scale, size_t count, float *out)
{
    decode(true, row, scale, count, out);
}

static void decode_int8(const void *row, float scale, size_t count, float *out)
{
    decode(false, row, scale, count, out);
}

static void l2_four_half(const float *query, const void *const rows[4], const float scales[4],
                         size_t dim, double out[4])
{
    for (size_t i = 0; i < 4; i++) {
        out[i] = l2(true, query, rows[i], scales[i], dim);
    }
}

static void l2_four_int8(const float *query, const void *const rows[4], const float scales[4],
                         size_t dim, double out[4])
{
    for (size_t i = 0; i < 4; i++) {
        out[i] = l2(false, query, rows[i], scales[i], dim);
    }
}

static void dot_four_half(const float *query, const void *const rows[4], const float scales[4],
                          size_t dim, double out_dots[4], double *out_squares)
{
    dot_four(true, query, rows, scales, dim, out_dots, out_squares);
}

static void dot_four_int8(const float *query, const void *const rows[4], const float scales[4],
                          size_t dim, double out_dots[4], double *out_squares)
{
    dot_four(false, query, rows, scales, dim, out_dots, out_squares);
}

const struct vex_store_kernels vex_half_kernels_scalar = {
    .decode = decode_half,
    .l2_f64_four = l2_four_half,
    .dot_f64_four = dot_four_half,
};

const struct vex_store_kernels vex_int8_kernels_scalar = {
    .decode = decode_int8,
    .l2_f64_four = l2_four_int8,
    .dot_f64_four = dot_four_int8,
};
