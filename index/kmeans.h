/*
 * Clustering rows for inverted lists: k-means in bytes.
 *
 * Rows are centred, scaled and rotated as for codes, then rounded to eight bits; centres have seven.
 * One pass of assigning a row to its nearest centre is thus a product of two byte matrices, which
 * processors do at tens of multiplications a cycle, and what the rounding does to a distance is far
 * below the difference that would move a neighbour to another list. Search finds lists by the same
 * arithmetic.
 *
 * Lloyd's iterations run over a sample of some dozens of rows a list, and all rows are assigned once at
 * the end. A centre that is left without rows, and one with very few, moves to a random row of the
 * list that is fullest: lists come out of similar length, so that a number of lists is a number of rows.
 *
 * There is no second level: at 65,536 lists, the most there are, a pass is still cheaper than building
 * a graph over the same rows.
 *
 * The result depends on nothing but the rows and their order. Thread-safety: pure function, apart from
 * what `row` and the pace do.
 */
#ifndef VEX_INDEX_KMEANS_H
#define VEX_INDEX_KMEANS_H

#include <stdint.h>

#include <vex/status.h>
#include <vex/types.h>

#include "index/code_build.h"

struct vex_kmeans_input {
    uint32_t rows_count; /* at least 1 */
    uint32_t dim;
    enum vex_metric metric;
    uint32_t lists; /* at least 1, at most VEX_LISTS_MAX and rows_count */
    /* Row `i`: its values, in place or in `buffer` of dim floats, and its length. */
    const float *(*row)(void *context, uint32_t i, float *buffer, float *out_norm);
    void *context;
    const struct vex_build_pace *pace; /* may be NULL */
};

/* Rows in the order of lists. */
struct vex_clusters {
    uint32_t *order;  /* [rows_count]: number of a row */
    uint32_t *starts; /* [lists + 1] */
};

/* Private memory that this takes, at most. */
uint64_t vex_kmeans_bytes(uint32_t rows_count, uint32_t lists, uint32_t dim);

/* Errors: NOMEM, UNAVAILABLE (the pace gave up). */
enum vex_status vex_kmeans_run(const struct vex_kmeans_input *input, struct vex_clusters *out,
                               struct vex_error *error);
/* Zeroed is allowed. */
void vex_clusters_deinit(struct vex_clusters *clusters);

#endif
