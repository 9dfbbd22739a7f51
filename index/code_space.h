/*
 * Where codes measure: every metric as squared distances between vectors of length about 1.
 *
 *   L2      x / longest row                         key = d^2 longest^2
 *   cosine  x / |x|                                 key = d^2 / 2
 *   dot     (x / longest, rest), rest such that the length is 1; the query (q / |q|, 0)
 *                                                   key = (d^2 - 2) / 2 |q| longest
 *
 * so that one kind of code, graph and estimate serve all. (The last is the usual reduction of
 * inner products to distances, Bachrach et al., RecSys 2014.) The rest is only needed between rows,
 * that is for building; codes and queries do without. The scale keeps squares of any finite vector
 * from overflowing.
 */
#ifndef VEX_INDEX_CODE_SPACE_H
#define VEX_INDEX_CODE_SPACE_H

#include <stdbool.h>

#include <vex/types.h>

#include "index/code_set.h"
#include "index/kernels.h"

struct vex_segment;

struct vex_code_space {
    enum vex_metric metric;
    uint32_t dim;
    float scale;
    const float *centre;
    struct vex_rotation rotation;
    const struct vex_kernels *kernels;
};

struct vex_code_space vex_code_space_of(const struct vex_segment *segment);

/* A row, centred and rotated, into [padded], which may be where the row is. `norm` is its length. */
void vex_code_space_row(const struct vex_code_space *space, const float *row, float norm,
                        float *out);
/* What turns an estimate into a key: key = key_scale * estimate + key_offset. */
struct vex_code_target {
    struct vex_code_query code;
    double key_scale;
    double key_offset;
    float length; /* of the query as the codes meet it */
};

/* Rotates a query into `rotated` [padded] and rounds it into `values` [padded]. */
void vex_code_space_query(const struct vex_code_space *space, const struct vex_codes *codes,
                          const float *query, double query_norm, float *rotated, int8_t *values,
                          struct vex_code_target *out);

#endif
