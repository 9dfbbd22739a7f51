#include "index/exact.h"

#include <math.h>

#include "index/kernels.h"

double vex_exact_norm(const float *vector, size_t dim)
{
    return sqrt(vex_dot_f64(vector, vector, dim));
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
    double row_norm = vex_exact_norm(row, dim);
    /* A zero row cannot be stored under cosine; zeroed memory of a revoked segment can look so. */
    return row_norm > 0 ? 1 - vex_dot_f64(query, row, dim) / (query_norm * row_norm) : 2;
}
