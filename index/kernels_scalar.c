/*
 * The kernels in plain C, for processors without a table of their own and as the level that every
 * other one is compared with.
 *
 * A compiler may not reorder a sum of floats, so one running sum would add one float per latency of
 * an addition. Eight interleaved sums are eight independent additions, which it may put into vector
 * registers of whatever the baseline has (two of SSE2 or NEON). One row at a time: these loops are
 * not limited by loads of the query.
 */
#include "index/kernels.h"

#include <stdint.h>
#include <string.h>

#define PARTIAL_SUMS 8
#define EXPONENT_BITS 0x7f800000u

/* Written out, because a loop over the array would keep the sums in memory. */
static float total(const float sums[PARTIAL_SUMS])
{
    return ((sums[0] + sums[4]) + (sums[2] + sums[6])) +
           ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

static float l2(const float *a, const float *b, size_t dim)
{
    float sums[PARTIAL_SUMS] = {0};
    size_t d = 0;
    for (; dim - d >= PARTIAL_SUMS; d += PARTIAL_SUMS) {
        for (size_t j = 0; j < PARTIAL_SUMS; j++) {
            float difference = a[d + j] - b[d + j];
            sums[j] += difference * difference;
        }
    }
    for (size_t j = 0; j < dim - d; j++) {
        float difference = a[d + j] - b[d + j];
        sums[j] += difference * difference;
    }
    return total(sums);
}

static float dot(const float *a, const float *b, size_t dim)
{
    float sums[PARTIAL_SUMS] = {0};
    size_t d = 0;
    for (; dim - d >= PARTIAL_SUMS; d += PARTIAL_SUMS) {
        for (size_t j = 0; j < PARTIAL_SUMS; j++) {
            sums[j] += a[d + j] * b[d + j];
        }
    }
    for (size_t j = 0; j < dim - d; j++) {
        sums[j] += a[d + j] * b[d + j];
    }
    return total(sums);
}

static void l2_rows_scalar(const float *query, const float *rows, size_t stride, size_t count,
                           size_t dim, float *out)
{
    for (size_t i = 0; i < count; i++) {
        out[i] = l2(query, rows + i * stride, dim);
    }
}

static void dot_rows_scalar(const float *query, const float *rows, size_t stride, size_t count,
                            size_t dim, float *out)
{
    for (size_t i = 0; i < count; i++) {
        out[i] = dot(query, rows + i * stride, dim);
    }
}

/* On the bits, not with isfinite: the answer must not depend on how floats are compiled. */
static bool all_finite_scalar(const float *values, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, values + i, sizeof bits);
        if ((bits & EXPONENT_BITS) == EXPONENT_BITS) {
            return false;
        }
    }
    return true;
}

static void l2_f64_four_scalar(const float *query, const float *const rows[4], size_t dim,
                               double out[4])
{
    for (size_t i = 0; i < 4; i++) {
        out[i] = vex_l2_f64(query, rows[i], dim);
    }
}

static void dot_f64_four_scalar(const float *query, const float *const rows[4], size_t dim,
                                double out_dots[4], double *out_squares)
{
    for (size_t i = 0; i < 4; i++) {
        out_dots[i] = vex_dot_f64(query, rows[i], dim);
        if (out_squares) {
            out_squares[i] = vex_dot_f64(rows[i], rows[i], dim);
        }
    }
}

const struct vex_kernels vex_kernels_scalar = {
    .name = "scalar",
    .l2_rows = l2_rows_scalar,
    .dot_rows = dot_rows_scalar,
    .all_finite = all_finite_scalar,
    .l2_f64_four = l2_f64_four_scalar,
    .dot_f64_four = dot_f64_four_scalar,
    .graph = &vex_graph_kernels_scalar,
    .half = &vex_half_kernels_scalar,
    .int8 = &vex_int8_kernels_scalar,
    .scan = &vex_scan_kernels_scalar,
};
