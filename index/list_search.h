/*
 * Searching the lists of one segment, one query or many.
 *
 * A query visits the lists whose centres are nearest, estimates all their rows by their codes, and
 * ranks the rows in front by their vectors, in double precision: distances are exact, only rows of
 * lists that were not visited, or that an estimate misjudged by more than three of its standard
 * errors, can be missing.
 *
 * Many queries are turned inside out. Which lists each one wants is worked out first; then every list
 * is read once, its codes turned into tiles (list_kernels.h) once, and all queries that want it are
 * served, so that memory and unpacking cost a fraction of what they do one by one. A query keeps the
 * rows whose estimate is within reach of the k-th best estimate so far; now and then it looks through
 * them and drops those that have come to be out of reach.
 *
 * Answers do not depend on which other queries are in the batch, except where the estimates of two
 * rows differ by less than a rounding of single precision.
 *
 * Thread-safety: searches share nothing; scratch memory is the call's own.
 */
#ifndef VEX_INDEX_LIST_SEARCH_H
#define VEX_INDEX_LIST_SEARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "index/index.h"

#define VEX_LISTS_PROBE_DEFAULT 64u

struct vex_list_search {
    const struct vex_view *view;
    uint32_t segment; /* of the view; has lists */
    const float *queries;
    size_t queries_count;
    struct vex_topk *topks;
};

/* Whether a segment's rows are searched by its lists. Codes that cannot tell rows apart (code_set.h) do
 * not do for that, and then scanning is the way. */
bool vex_lists_can_serve(const struct vex_segment *segment);

/* Scratch for such a search, in the view's effort; without it, the search allocates. */
size_t vex_lists_scratch_bytes(const struct vex_view *view, uint32_t segment, size_t queries_count,
                               uint32_t k);

/* Offers the nearest rows found to the topks. Errors: NOMEM. */
enum vex_status vex_lists_search(const struct vex_list_search *search,
                                 struct vex_search_counters *counters, struct vex_error *error);

#endif
