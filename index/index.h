/*
 * What every index answers: the k nearest rows of a view.
 *
 * A view is one state of a collection: its segments, how many rows of each are visible, and the LSN
 * as of which rows are dead or alive. An index is one const table of functions; a new kind of index
 * is one file that fills such a table. Flat (flat.c) is exact and needs nothing but the rows. The
 * graph (hnsw.c) is approximate and needs a graph in the segment; a segment without one, like the
 * tail that is still written to, it searches as flat does.
 *
 * Thread-safety: a view is immutable while it is searched; searches share nothing.
 */
#ifndef VEX_INDEX_INDEX_H
#define VEX_INDEX_INDEX_H

#include <stddef.h>
#include <stdint.h>

#include <vex/status.h>

#include "index/graph_build.h"
#include "index/segment.h"
#include "index/topk.h"

struct vex_view_segment {
    const struct vex_segment *segment;
    uint32_t visible_rows; /* at most the segment's capacity */
};

/*
 * How hard an approximate search tries, and what it may work with. Exact search ignores it. With a recall
 * to aim at, each segment is searched as hard as its table says (effort.h).
 */
struct vex_effort {
    double recall;        /* instead of ef and nprobe; 0 = not asked for */
    double dead_share;    /* of the view's rows: a recall was measured with none */
    uint32_t ef;          /* nodes kept while walking; 0 = the default. k is the least */
    uint32_t nprobe;      /* lists visited; 0 = the default */
    void *scratch;        /* aligned to 64; NULL = allocate for this call */
    size_t scratch_bytes; /* what is too small is not used */
};

struct vex_view {
    const struct vex_view_segment *segments; /* oldest first */
    uint32_t segments_count;
    uint32_t dim;
    enum vex_metric metric;
    uint64_t lsn;
    const struct vex_effort *effort; /* NULL = defaults */
};

struct vex_search_counters {
    uint64_t rows_visited; /* rows compared, over all queries; of a graph, codes */
    uint64_t rescans;      /* graphs that found too few living rows and were scanned */
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
    /* Adds to a segment whose rows are all there what search wants of it. out_report may be NULL.
     * Errors: NOMEM, INVALID, UNAVAILABLE (`pace` gave up). */
    enum vex_status (*build)(struct vex_segment_writer *writer,
                             const struct vex_segment_shape *shape,
                             const struct vex_build_pace *pace, struct vex_graph_report *out_report,
                             struct vex_error *error);
    /* Reads all of what build made. Errors: CORRUPT, NOMEM. */
    enum vex_status (*validate)(const struct vex_segment *segment, struct vex_error *error);
};

extern const struct vex_index vex_index_flat;
extern const struct vex_index vex_index_hnsw;
extern const struct vex_index vex_index_ivf;

/* "flat", "hnsw" or "ivf"; NULL if there is no index of that name. */
const struct vex_index *vex_index_by_name(const char *name);

/* Scratch for hnsw searches with this ef, dim and k. */
size_t vex_effort_scratch_bytes(uint32_t dim, uint32_t ef, uint32_t k);
/* The ef that a search of this view uses at k; the largest, if segments differ. */
uint32_t vex_effort_ef(const struct vex_view *view, uint32_t k);

/* Scratch for an ivf search of so many queries with the effort that `view` has. */
size_t vex_ivf_scratch_bytes(const struct vex_view *view, size_t queries_count, uint32_t k);

/* Offers the nearest rows of one segment of a view, by scanning it. */
void vex_flat_scan(const struct vex_view *view, uint32_t segment, const float *queries,
                   size_t count, struct vex_topk *topks, struct vex_search_counters *counters);

/* Finds the live row of `id` in a view, newest segment first. False if there is none. */
bool vex_view_find(const struct vex_view *view, uint64_t id, uint32_t *out_segment,
                   uint32_t *out_row);

#endif
