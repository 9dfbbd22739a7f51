/*
 * The distances that rank, for every index: in double precision, the same bits on every processor
 * (kernels.h). A key is smaller for the nearer row: squared distance, 1 - cosine, or the negated dot
 * product.
 */
#ifndef VEX_INDEX_EXACT_H
#define VEX_INDEX_EXACT_H

#include <stddef.h>
#include <stdint.h>

#include <vex/types.h>

struct vex_segment;

/* Euclidean length. */
double vex_exact_norm(const float *vector, size_t dim);
/* `query_norm` is vex_exact_norm of the query; only cosine reads it. */
double vex_exact_key(enum vex_metric metric, const float *query, double query_norm,
                     const float *row, size_t dim);
/* The same, to the bit, for four rows. */
void vex_exact_keys(enum vex_metric metric, const float *query, double query_norm,
                    const float *const rows[4], size_t dim, double out[4]);

/* Of rows of a segment, whatever their storage: the keys, to the bit, of the rows as floats. */
double vex_exact_row_norm(const struct vex_segment *segment, uint32_t row);
double vex_exact_row_key(const struct vex_segment *segment, const float *query, double query_norm,
                         uint32_t row);
void vex_exact_row_keys(const struct vex_segment *segment, const float *query, double query_norm,
                        const uint32_t rows[4], double out[4]);

#endif
