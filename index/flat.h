/*
 * Exact search of rows one by one (flat.c), as the scan by codes (code_scan.h) uses it for what codes
 * cannot decide.
 */
#ifndef VEX_INDEX_FLAT_H
#define VEX_INDEX_FLAT_H

#include <stddef.h>
#include <stdint.h>

#include "index/index.h"

/* A query under way. */
struct vex_flat_query {
    const float *query;
    double norm; /* vex_exact_norm of it */
    struct vex_topk *topk;
    double limit; /* no row with a larger key can be among the answers, whatever topk holds */
};

/* What a row's key must not exceed. */
double vex_flat_threshold(const struct vex_flat_query *query);
/* Offers the living rows first .. first + count - 1 of a segment of the view to every query. */
void vex_flat_rows(const struct vex_view *view, uint32_t segment, uint32_t first, uint32_t count,
                   struct vex_flat_query *queries, size_t queries_count);

/* What an exact search of a view by so many queries wants as scratch of the view's effort; with less it
 * allocates. 0 if no segment has codes. */
size_t vex_flat_scratch_bytes(const struct vex_view *view, size_t count, uint32_t k);

#endif
