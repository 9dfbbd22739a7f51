/*
 * What every index answers: the k nearest rows of a view.
 *
 * A view is one state of a collection: its segments, how many rows of each are visible, and the LSN
 * as of which rows are dead or alive. An index is one const table of functions; a new kind of index
 * is one file that fills such a table. Flat (flat.c) is the only one that needs nothing but the
 * rows.
 *
 * Thread-safety: a view is immutable while it is searched; searches share nothing.
 */
#ifndef VEX_INDEX_INDEX_H
#define VEX_INDEX_INDEX_H

#include <stddef.h>
#include <stdint.h>

#include <vex/status.h>

#include "index/segment.h"
#include "index/topk.h"

struct vex_view_segment {
    const struct vex_segment *segment;
    uint32_t visible_rows; /* at most the segment's capacity */
};

struct vex_view {
    const struct vex_view_segment *segments; /* oldest first */
    uint32_t segments_count;
    uint32_t dim;
    enum vex_metric metric;
    uint64_t lsn;
};

struct vex_search_counters {
    uint64_t rows_visited; /* rows compared, over all queries */
};

struct vex_index {
    const char *name;
    /*
     * Offers the nearest rows of `view` to topks[i] for each of the `count` queries of view->dim
     * floats. Queries are finite, and not zero under cosine: the caller has checked. Errors: NOMEM.
     */
    enum vex_status (*search)(const struct vex_view *view, const float *queries, size_t count,
                              struct vex_topk *topks, struct vex_search_counters *counters,
                              struct vex_error *error);
};

extern const struct vex_index vex_index_flat;

/* Finds the live row of `id` in a view, newest segment first. False if there is none. */
bool vex_view_find(const struct vex_view *view, uint64_t id, uint32_t *out_segment,
                   uint32_t *out_row);

#endif
