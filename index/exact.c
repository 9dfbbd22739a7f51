#include "index/exact.h"

#include <math.h>

#include "index/kernels.h"
#include "index/segment.h"

#define PARTIAL_SUMS 4u /* as in kernels.c, and in the same order */

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

/* ---- rows of a segment ----------------------------------------------------------------------- */

static const struct vex_store_kernels *store_kernels(const struct vex_segment *segment)
{
    const struct vex_kernels *kernels = vex_kernels_get();
    return segment->storage == VEX_STORAGE_FLOAT16 ? kernels->half : kernels->int8;
}

/* Rows that are not floats, as their kernels want them. */
struct stored_rows {
    const void *rows[4];
    float scales[4];
};

static struct stored_rows find_stored(const struct vex_segment *segment, const uint32_t rows[4])
{
    struct stored_rows stored;
    for (int i = 0; i < 4; i++) {
        stored.rows[i] = vex_segment_stored(segment, rows[i]);
        stored.scales[i] = vex_segment_scale(segment, rows[i]);
    }
    return stored;
}

double vex_exact_row_norm(const struct vex_segment *segment, uint32_t row)
{
    if (segment->storage == VEX_STORAGE_FLOAT32) {
        return vex_exact_norm(vex_segment_vector(segment, row), segment->dim);
    }
    float part[VEX_STORE_CHUNK];
    double sums[PARTIAL_SUMS] = {0};
    for (uint32_t first = 0; first < segment->dim; first += VEX_STORE_CHUNK) {
        uint32_t left = segment->dim - first;
        uint32_t count = left < VEX_STORE_CHUNK ? left : VEX_STORE_CHUNK;
        vex_store_decode(segment->storage, vex_segment_stored(segment, row),
                         vex_segment_scale(segment, row), first, count, part);
        for (uint32_t i = 0; i < count; i++) {
            sums[i % PARTIAL_SUMS] += (double)part[i] * (double)part[i];
        }
    }
    return sqrt((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

static void stored_keys(const struct vex_segment *segment, const float *query, double query_norm,
                        const uint32_t rows[4], double out[4])
{
    const struct vex_store_kernels *kernels = store_kernels(segment);
    struct stored_rows stored = find_stored(segment, rows);
    double squares[4];
    switch (segment->metric) {
    case VEX_METRIC_L2:
        kernels->l2_f64_four(query, stored.rows, stored.scales, segment->dim, out);
        return;
    case VEX_METRIC_DOT:
        kernels->dot_f64_four(query, stored.rows, stored.scales, segment->dim, out, NULL);
        break;
    case VEX_METRIC_COSINE:
        kernels->dot_f64_four(query, stored.rows, stored.scales, segment->dim, out, squares);
        break;
    }
    for (int i = 0; i < 4; i++) {
        out[i] = segment->metric == VEX_METRIC_DOT ? -out[i]
                                                   : cosine_key(out[i], query_norm, squares[i]);
    }
}

double vex_exact_row_key(const struct vex_segment *segment, const float *query, double query_norm,
                         uint32_t row)
{
    if (segment->storage == VEX_STORAGE_FLOAT32) {
        return vex_exact_key(segment->metric, query, query_norm, vex_segment_vector(segment, row),
                             segment->dim);
    }
    double keys[4];
    stored_keys(segment, query, query_norm, (const uint32_t[4]){row, row, row, row}, keys);
    return keys[0];
}

void vex_exact_row_keys(const struct vex_segment *segment, const float *query, double query_norm,
                        const uint32_t rows[4], double out[4])
{
    if (segment->storage != VEX_STORAGE_FLOAT32) {
        stored_keys(segment, query, query_norm, rows, out);
        return;
    }
    const float *vectors[4];
    for (int i = 0; i < 4; i++) {
        vectors[i] = vex_segment_vector(segment, rows[i]);
    }
    vex_exact_keys(segment->metric, query, query_norm, vectors, segment->dim, out);
}
