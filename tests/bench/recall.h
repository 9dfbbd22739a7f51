/*
 * How much of what is true a search found, and what a rate is worth at a given recall.
 *
 * A hit counts if it is no farther from the query than the k-th true neighbour: where rows are
 * equally far, any of them will do, so that a search is not blamed for choosing otherwise than the
 * list of true neighbours did. Distances are computed here, in double precision from the vectors as
 * they were read, for whoever found the rows: nobody's own arithmetic decides.
 *
 * Pure.
 */
#ifndef VEX_BENCH_RECALL_H
#define VEX_BENCH_RECALL_H

#include <stddef.h>
#include <stdint.h>

#include <vex/types.h>

#include "tests/bench/vectors.h"

struct vex_truth {
    const struct vex_vectors *base;
    const struct vex_vectors *queries;
    enum vex_metric metric;
    uint32_t k;
    double *limits; /* of each query: distance of its k-th true neighbour */
};

/* Smaller is nearer, whatever the metric. */
double vex_truth_distance(const struct vex_truth *truth, size_t query, uint64_t row);
/* Sets the limit of one query from its k true neighbours. */
void vex_truth_set(struct vex_truth *truth, size_t query, const uint64_t *rows);
/* Share of `found`, k rows a query (UINT64_MAX = none), that count. A row named twice counts once. */
double vex_truth_recall(const struct vex_truth *truth, const uint64_t *found);

/* One effort: what it found and how fast. */
struct vex_recall_point {
    double recall;
    double rate;
};

/*
 * The best rate at a recall of at least `target`: of a point that has it, or between two neighbours
 * of which one has it, where the logarithm of the rate is taken as linear in the recall. NAN if no
 * point reaches it; *out_recall (may be NULL) is the recall that the rate is of.
 */
double vex_recall_rate(const struct vex_recall_point *points, size_t count, double target,
                       double *out_recall);

#endif
