/*
 * Approximate search of a view by inverted lists, where segments have them.
 *
 * All segments share one list of the k best. Those with lists come first, the largest first, because
 * the k-th best that they leave behind is a limit for the others from their first row on; what has no
 * lists, like the tail that is still written to, is scanned.
 */
#include "base/error.h"
#include "index/calibrate.h"
#include "index/index.h"
#include "index/list_build.h"
#include "index/list_search.h"

static uint32_t lists_rows(const struct vex_view *view, uint32_t segment)
{
    const struct vex_segment *rows = view->segments[segment].segment;
    return vex_lists_can_serve(rows) ? rows->lists.rows : 0;
}

/* The segment with the most rows in lists below `rows`, or of `rows` rows and behind `segment`. */
static bool next_segment(const struct vex_view *view, uint32_t *segment, uint32_t *rows)
{
    uint32_t best = view->segments_count;
    uint32_t best_rows = 0;
    for (uint32_t s = 0; s < view->segments_count; s++) {
        uint32_t count = lists_rows(view, s);
        bool is_left = count < *rows || (count == *rows && s > *segment);
        if (count > best_rows && is_left) {
            best = s;
            best_rows = count;
        }
    }
    *segment = best;
    *rows = best_rows;
    return best < view->segments_count;
}

size_t vex_ivf_scratch_bytes(const struct vex_view *view, size_t queries_count, uint32_t k)
{
    size_t most = 0;
    for (uint32_t s = 0; s < view->segments_count; s++) {
        if (lists_rows(view, s) > 0) {
            size_t bytes = vex_lists_scratch_bytes(view, s, queries_count, k);
            most = bytes > most ? bytes : most;
        }
    }
    return most;
}

static enum vex_status search_ivf(const struct vex_view *view, const float *queries, size_t count,
                                  struct vex_topk *topks, struct vex_search_counters *counters,
                                  struct vex_error *error)
{
    uint32_t segment = view->segments_count;
    uint32_t rows = UINT32_MAX;
    while (next_segment(view, &segment, &rows)) {
        struct vex_list_search search = {
            .view = view,
            .segment = segment,
            .queries = queries,
            .queries_count = count,
            .topks = topks,
        };
        enum vex_status status = vex_lists_search(&search, counters, error);
        if (status != VEX_OK) {
            return status;
        }
    }
    for (uint32_t s = 0; s < view->segments_count; s++) {
        if (lists_rows(view, s) == 0) {
            vex_flat_scan(view, s, queries, count, topks, counters);
        }
    }
    return VEX_OK;
}

static enum vex_status build_ivf(struct vex_segment_writer *writer,
                                 const struct vex_segment_shape *shape,
                                 const struct vex_build_pace *pace,
                                 struct vex_graph_report *out_report, struct vex_error *error)
{
    if (out_report) {
        *out_report = (struct vex_graph_report){0};
    }
    enum vex_status status = vex_lists_build(writer, shape->lists, pace, error);
    return status == VEX_OK
               ? vex_calibrate(writer, &vex_index_ivf, VEX_EFFORT_UNIT_NPROBE, pace, error)
               : status;
}

const struct vex_index vex_index_ivf = {
    .name = "ivf",
    .search = search_ivf,
    .build = build_ivf,
    .validate = vex_lists_validate,
};
