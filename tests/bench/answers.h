/*
 * The k nearest rows of each query by brute force: every distance in double precision, ranked by
 * distance and then by id. What exact searches are judged by and recall counts from.
 *
 * Nothing of VexDB takes part, so no error of its own can hide. For the same reason the last bits of a
 * sum may differ from its own: where two rows are that near to being equally far, either order is right.
 * Where sums are exact (values that are whole numbers and not large) or rows are alike, there is one
 * order only.
 *
 * Thread-safety: one thread.
 */
#ifndef VEX_BENCH_ANSWERS_H
#define VEX_BENCH_ANSWERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vex/types.h>

#include "tests/bench/vectors.h"

struct vex_answers {
    const struct vex_vectors *base;
    const struct vex_vectors *queries;
    enum vex_metric metric;
    uint32_t k;
    size_t count;      /* queries answered: the first ones */
    uint64_t *rows;    /* count x k */
    double *distances; /* count x k; smaller is nearer, whatever the metric */
    bool is_exact;     /* no sum is rounded */
};

struct vex_verdict {
    uint64_t same;  /* answers that are the brute force's, id for id */
    uint64_t tied;  /* that differ only in the order of rows whose distances differ by rounding */
    uint64_t wrong; /* all others */
};

/* Answers the first `count` queries. False if the run was stopped meanwhile. `k` must not be above the
 * number of rows. */
bool vex_answers_find(struct vex_answers *answers, const struct vex_vectors *base,
                      const struct vex_vectors *queries, enum vex_metric metric, uint32_t k,
                      size_t count);
/* Judges what a search found for one query, k ids in order. */
void vex_answers_judge(const struct vex_answers *answers, size_t query, const uint64_t *found,
                       struct vex_verdict *verdict);
/* Accepts a zeroed struct. */
void vex_answers_free(struct vex_answers *answers);

#endif
