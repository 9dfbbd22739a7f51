/*
 * Where a graph measures: every metric as squared distances between vectors of length about 1.
 *
 *   L2      x / longest row                         key = d^2 longest^2
 *   cosine  x / |x|                                 key = d^2 / 2
 *   dot     (x / longest, rest), rest such that the length is 1; the query (q / |q|, 0)
 *                                                   key = (d^2 - 2) / 2 |q| longest
 *
 * so that one kind of graph and one kind of estimate serve all. (The last is the usual reduction of
 * inner products to distances, Bachrach et al., RecSys 2014.) The rest is only needed between rows,
 * that is for building; codes and queries do without. The scale keeps squares of any finite vector
 * from overflowing.
 */
#ifndef VEX_INDEX_GRAPH_SPACE_H
#define VEX_INDEX_GRAPH_SPACE_H

#include <stdbool.h>

#include "index/graph.h"
#include "index/kernels.h"

struct vex_graph_space {
    enum vex_metric metric;
    uint32_t dim;
    float scale;
    const float *centre;
    struct vex_rotation rotation;
    const struct vex_kernels *kernels;
};

struct vex_graph_space vex_graph_space_of(const struct vex_segment *segment);

/* A row, centred and rotated, into [padded]. `norm` is its length. */
void vex_graph_space_row(const struct vex_graph_space *space, const float *row, float norm,
                         float *out);
/* The factors of a row's code as this metric wants them. */
struct vex_code_factors vex_graph_space_factors(const struct vex_graph_space *space,
                                                struct vex_code_factors factors);

/* What turns an estimate into a key: key = key_scale * estimate + key_offset. */
struct vex_graph_target {
    struct vex_code_query code;
    double key_scale;
    double key_offset;
    float length; /* of the query as the codes meet it */
};

/* Rotates a query into `rotated` [padded] and rounds it into `values` [padded]. */
void vex_graph_space_query(const struct vex_graph_space *space, const struct vex_graph *graph,
                           const float *query, double query_norm, float *rotated, int8_t *values,
                           struct vex_graph_target *out);

#endif
