/*
 * Rows and queries made to break a bound: each kind aims at one step of a proof (code_bound.h), or at
 * what floats do at their ends. A kind fills rows and queries of any dimension, for any metric.
 *
 * Thread-safety: one thread at a time.
 */
#ifndef VEX_TESTS_UNIT_HARD_ROWS_H
#define VEX_TESTS_UNIT_HARD_ROWS_H

#include <stdbool.h>
#include <stdint.h>

#include <vex/types.h>

#include "index/segment.h"
#include "tests/lib/random.h"

struct hard_rows {
    uint32_t dim;
    uint32_t rows_count;
    uint32_t queries_count;
    float *rows;
    float *queries;
};

uint32_t hard_rows_kinds(void);
const char *hard_rows_kind(uint32_t kind);
/* Fresh rows of a kind; none is zero under cosine, all are finite. */
struct hard_rows hard_rows_make(uint32_t kind, enum vex_metric metric, uint32_t dim,
                                uint32_t rows_count, uint32_t queries_count,
                                struct vex_random *random);
void hard_rows_free(struct hard_rows *rows);

/* Whether a storage can hold all of them, none as a zero row. */
bool hard_rows_fit(const struct hard_rows *rows, enum vex_storage storage);
/* A segment of these rows with ids that are no order of rows, room for codes, and a graph if graph_m
 * is not 0; neither is built. */
void hard_rows_segment(const struct hard_rows *rows, enum vex_metric metric,
                       enum vex_storage storage, uint32_t graph_m, struct vex_segment_writer *out);
void hard_rows_segment_free(struct vex_segment_writer *writer);

#endif
