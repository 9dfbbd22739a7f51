/*
 * Flat index: exact search by scanning every visible row.
 *
 * The answer is defined as brute force in double precision, ordered by (distance, id), and is the
 * same on every processor. Single precision is only a filter: a float kernel scores a block of
 * rows, and a row whose score cannot, with its rounding error counted against it, beat the k-th
 * best so far is dropped; the few others are scored again in double precision. The error bound is
 * the one that kernels.h states, with u = 2^-24, n = dim and g = (n + 8) u / (1 - (n + 8) u); the 5
 * extra u pay for the roundings of the threshold itself, and c = n * FLT_MIN for underflow:
 *
 *   L2      computed <= exact (1 + g) + c,         so drop only if computed > tau (1 + g) + c
 *   dot     computed >= exact - g |q||x| - c,      so drop only if computed < s - g |q||x| - c
 *   cosine  as dot, with s = (1 - tau) |q||x|
 *
 * where tau (s) is the k-th best distance (dot product) so far. A score that is not finite says
 * nothing and is never dropped; neither is a row whose length is not a normal float, because its
 * relative error is larger than u.
 *
 * Why not rank in single precision: on real data (784 pixels, squared distances near 5e7) its
 * rounding exceeds the gap between neighbours, and answers would differ between processors.
 */
#include "index/index.h"

#include <float.h>
#include <math.h>

#include "base/panic.h"
#include "index/exact.h"
#include "index/row_block.h"

#define GROUP_QUERIES 64u /* share one pass over the rows */

struct scan {
    const struct vex_view *view;
    double bound; /* g of the file comment */
    float floor;  /* c of the file comment */
};

/* What a row's score is compared with; refreshed when the k-th best changes. */
struct filter {
    float base;   /* L2: largest score to keep. dot: s. */
    float factor; /* of |x|, to be added to base */
    float floor;
};

static struct filter filter_for(const struct scan *scan, double query_norm, double threshold)
{
    struct filter filter = {INFINITY, 0, scan->floor};
    switch (scan->view->metric) {
    case VEX_METRIC_L2:
        if (threshold < FLT_MAX / 4) {
            filter.base =
                nextafterf((float)(threshold * (1 + scan->bound)), INFINITY) + scan->floor;
        }
        break;
    case VEX_METRIC_COSINE:
        filter.base = 0;
        filter.factor = nextafterf((float)((1 - threshold - scan->bound) * query_norm), -INFINITY);
        break;
    case VEX_METRIC_DOT: {
        double s = -threshold;
        filter.base = nextafterf((float)(s - fabs(s) * 1e-6), -INFINITY);
        filter.factor = nextafterf((float)(-scan->bound * query_norm), -INFINITY);
        break;
    }
    }
    return filter;
}

static bool cannot_win_l2(const struct filter *filter, float score)
{
    return score > filter->base && score <= FLT_MAX;
}

/* NaN compares false, and infinities on either side are asked for: both keep the row. */
static bool cannot_win_dot(const struct filter *filter, float score, float norm)
{
    float limit = filter->base + filter->factor * norm - filter->floor;
    return score < limit && limit <= FLT_MAX && score >= -FLT_MAX && norm >= FLT_MIN &&
           norm <= FLT_MAX;
}

static void scan_block(const struct scan *scan, const struct vex_row_block *block,
                       uint32_t segment_index, const float *query, double query_norm,
                       struct vex_topk *topk)
{
    const struct vex_segment *segment = block->segment;
    bool is_l2 = scan->view->metric == VEX_METRIC_L2;
    float scores[VEX_ROW_BLOCK_ROWS_MAX];
    vex_row_block_score(block, query, scores);
    double threshold = vex_topk_threshold(topk);
    struct filter filter = filter_for(scan, query_norm, threshold);
    uint32_t first_row = block->first_row;
    uint32_t count = block->count;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t row = first_row + i;
        if (is_l2 ? cannot_win_l2(&filter, scores[i])
                  : cannot_win_dot(&filter, scores[i], segment->norms[row])) {
            continue;
        }
        if (!vex_segment_alive(segment, row, scan->view->lsn)) {
            continue;
        }
        struct vex_candidate candidate = {
            .key = vex_exact_row_key(segment, query, query_norm, row),
            .id = segment->ids[row],
            .segment = segment_index,
            .row = row,
        };
        vex_topk_offer(topk, &candidate);
        double now = vex_topk_threshold(topk);
        if (now < threshold) {
            threshold = now;
            filter = filter_for(scan, query_norm, threshold);
        }
    }
}

/* One pass over the rows of a segment for all queries of a group. */
static void scan_group(const struct scan *scan, uint32_t segment_index, const float *queries,
                       size_t count, struct vex_topk *topks)
{
    const struct vex_view *view = scan->view;
    double query_norms[GROUP_QUERIES];
    for (size_t i = 0; i < count; i++) {
        query_norms[i] = vex_exact_norm(queries + i * view->dim, view->dim);
    }
    const struct vex_segment *segment = view->segments[segment_index].segment;
    uint32_t visible = view->segments[segment_index].visible_rows;
    VEX_ASSERT(visible <= segment->capacity_rows);
    _Alignas(64) float buffer[VEX_ROW_BLOCK_FLOATS];
    struct vex_row_block block;
    vex_row_block_init(&block, segment, view->metric == VEX_METRIC_L2, buffer);
    for (uint32_t row = 0; row < visible; row += block.rows_max) {
        uint32_t left = visible - row;
        vex_row_block_move(&block, row, left < block.rows_max ? left : block.rows_max);
        for (size_t i = 0; i < count; i++) {
            scan_block(scan, &block, segment_index, queries + i * view->dim, query_norms[i],
                       &topks[i]);
        }
    }
}

void vex_flat_scan(const struct vex_view *view, uint32_t segment, const float *queries,
                   size_t count, struct vex_topk *topks, struct vex_search_counters *counters)
{
    double u = ldexp(1, -24);
    double n = view->dim;
    struct scan scan = {
        .view = view,
        .bound = (n + 8) * u / (1 - (n + 8) * u),
        .floor = (float)n * FLT_MIN,
    };
    for (size_t i = 0; i < count; i += GROUP_QUERIES) {
        size_t group = count - i < GROUP_QUERIES ? count - i : GROUP_QUERIES;
        scan_group(&scan, segment, queries + i * view->dim, group, topks + i);
        counters->rows_visited += (uint64_t)group * view->segments[segment].visible_rows;
    }
}

static enum vex_status search_flat(const struct vex_view *view, const float *queries, size_t count,
                                   struct vex_topk *topks, struct vex_search_counters *counters,
                                   struct vex_error *error)
{
    (void)error;
    for (uint32_t s = 0; s < view->segments_count; s++) {
        vex_flat_scan(view, s, queries, count, topks, counters);
    }
    return VEX_OK;
}

static enum vex_status build_flat(struct vex_segment_writer *writer,
                                  const struct vex_segment_shape *shape,
                                  const struct vex_build_pace *pace,
                                  struct vex_graph_report *out_report, struct vex_error *error)
{
    if (out_report) {
        *out_report = (struct vex_graph_report){0};
    }
    return shape->codes ? vex_code_build(writer, pace, error) : VEX_OK;
}

static enum vex_status validate_flat(const struct vex_segment *segment, struct vex_error *error)
{
    (void)segment;
    (void)error;
    return VEX_OK;
}

const struct vex_index vex_index_flat = {
    .name = "flat",
    .search = search_flat,
    .build = build_flat,
    .validate = validate_flat,
};

bool vex_view_find(const struct vex_view *view, uint64_t id, uint32_t *out_segment,
                   uint32_t *out_row)
{
    for (uint32_t s = view->segments_count; s-- > 0;) {
        enum vex_find found = vex_segment_find(view->segments[s].segment, id,
                                               view->segments[s].visible_rows, view->lsn, out_row);
        if (found == VEX_FIND_DEAD) {
            return false;
        }
        if (found == VEX_FIND_ALIVE) {
            *out_segment = s;
            return true;
        }
    }
    return false;
}
