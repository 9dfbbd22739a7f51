/*
 * Recall that knows ties, and rates at equal recall; the rules are in recall.h.
 */
#include "tests/bench/recall.h"

#include <math.h>
#include <stdbool.h>

/* Rows as far as the k-th may differ by the rounding of the sums, and of unit vectors made from one. */
#define SLACK 1e-9

static double dot(const float *a, const float *b, uint32_t dim)
{
    double sum = 0;
    for (uint32_t i = 0; i < dim; i++) {
        sum += (double)a[i] * b[i];
    }
    return sum;
}

static double square_distance(const float *a, const float *b, uint32_t dim)
{
    double sum = 0;
    for (uint32_t i = 0; i < dim; i++) {
        double difference = (double)a[i] - b[i];
        sum += difference * difference;
    }
    return sum;
}

double vex_truth_distance(const struct vex_truth *truth, size_t query, uint64_t row)
{
    uint32_t dim = truth->base->dim;
    const float *q = truth->queries->values + query * dim;
    const float *r = truth->base->values + row * dim;
    switch (truth->metric) {
    case VEX_METRIC_L2:
        return square_distance(q, r, dim);
    case VEX_METRIC_DOT:
        return -dot(q, r, dim);
    case VEX_METRIC_COSINE:
        break;
    }
    return 1 - dot(q, r, dim) / sqrt(dot(q, q, dim) * dot(r, r, dim));
}

void vex_truth_set(struct vex_truth *truth, size_t query, const uint64_t *rows)
{
    double limit = -INFINITY;
    for (uint32_t i = 0; i < truth->k; i++) {
        double distance = vex_truth_distance(truth, query, rows[i]);
        limit = distance > limit ? distance : limit;
    }
    /* A cosine distance near 0 is a difference of two numbers near 1 and errs as they do. */
    double scale = truth->metric == VEX_METRIC_COSINE ? 1 : fabs(limit);
    truth->limits[query] = limit + SLACK * scale;
}

static bool is_repeated(const uint64_t *found, uint32_t at)
{
    for (uint32_t i = 0; i < at; i++) {
        if (found[i] == found[at]) {
            return true;
        }
    }
    return false;
}

double vex_truth_recall(const struct vex_truth *truth, const uint64_t *found)
{
    uint64_t hits = 0;
    for (size_t query = 0; query < truth->queries->rows; query++) {
        const uint64_t *rows = found + query * truth->k;
        for (uint32_t i = 0; i < truth->k; i++) {
            hits += rows[i] < truth->base->rows && !is_repeated(rows, i) &&
                    vex_truth_distance(truth, query, rows[i]) <= truth->limits[query];
        }
    }
    return (double)hits / ((double)truth->queries->rows * truth->k);
}

double vex_recall_rate(const struct vex_recall_point *points, size_t count, double target,
                       double *out_recall)
{
    double best = NAN;
    double best_recall = NAN;
    for (size_t i = 0; i < count; i++) {
        if (points[i].recall < target) {
            continue;
        }
        double rate = points[i].rate;
        double recall = points[i].recall;
        if (i > 0 && points[i - 1].recall < target) {
            double share = (target - points[i - 1].recall) / (recall - points[i - 1].recall);
            rate = exp(log(points[i - 1].rate) * (1 - share) + log(rate) * share);
            recall = target;
        }
        if (!(rate <= best)) {
            best = rate;
            best_recall = recall;
        }
    }
    if (out_recall) {
        *out_recall = best_recall;
    }
    return best;
}
