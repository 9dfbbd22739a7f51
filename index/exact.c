#include "index/exact.h"

#include <math.h>

#include "index/kernels.h"

double vex_exact_norm(const float *vector, size_t dim)
{
    return sqrt(vex_dot_f64(vector, vector, dim));
}

/* A zero row cannot be stored under cosine; zeroed memory of a revoked segment can look so. */
static double cosine_key(double dot, double query_norm, double row_square)
{
    double row_norm = sqrt(row_square);
    return row_norm > 0 ? 1 - dot / (query_norm * row_norm) : 2;
}

double vex_exact_key(enum vex_metric metric, const float *query, double query_norm,
                     const float *row, size_t dim)
{
    switch (metric) {
    case VEX_METRIC_L2:
        return vex_l2_f64(query, row, dim);
    case VEX_METRIC_DOT:
        return -vex_dot_f64(query, row, dim);
    case VEX_METRIC_COSINE:
        break;
    }
    return cosine_key(vex_dot_f64(query, row, dim), query_norm, vex_dot_f64(row, row, dim));
}

void vex_exact_keys(enum vex_metric metric, const float *query, double query_norm,
                    const float *const rows[4], size_t dim, double out[4])
{
    const struct vex_kernels *kernels = vex_kernels_get();
    double squares[4];
    switch (metric) {
    case VEX_METRIC_L2:
        kernels->l2_f64_four(query, rows, dim, out);
        return;
    case VEX_METRIC_DOT:
        kernels->dot_f64_four(query, rows, dim, out, NULL);
        break;
    case VEX_METRIC_COSINE:
        kernels->dot_f64_four(query, rows, dim, out, squares);
        break;
    }
    for (int i = 0; i < 4; i++) {
        out[i] = metric == VEX_METRIC_DOT ? -out[i] : cosine_key(out[i], query_norm, squares[i]);
    }
}
