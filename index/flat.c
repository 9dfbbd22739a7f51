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
#include "index/flat.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/panic.h"
#include "index/code_scan.h"
#include "index/exact.h"
#include "index/row_block.h"

#define GROUP_QUERIES 64u /* share one pass over the rows */
#define SCRATCH_ALIGNMENT 64u

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

double vex_flat_threshold(const struct vex_flat_query *query)
{
    double threshold = vex_topk_threshold(query->topk);
    return threshold < query->limit ? threshold : query->limit;
}

static void scan_block(const struct scan *scan, const struct vex_row_block *block,
                       uint32_t segment_index, struct vex_flat_query *query)
{
    const struct vex_segment *segment = block->segment;
    bool is_l2 = scan->view->metric == VEX_METRIC_L2;
    float scores[VEX_ROW_BLOCK_ROWS_MAX];
    vex_row_block_score(block, query->query, scores);
    double threshold = vex_flat_threshold(query);
    struct filter filter = filter_for(scan, query->norm, threshold);
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
            .key = vex_exact_row_key(segment, query->query, query->norm, row),
            .id = segment->ids[row],
            .segment = segment_index,
            .row = row,
        };
        vex_topk_offer(query->topk, &candidate);
        double now = vex_flat_threshold(query);
        if (now < threshold) {
            threshold = now;
            filter = filter_for(scan, query->norm, threshold);
        }
    }
}

void vex_flat_rows(const struct vex_view *view, uint32_t segment, uint32_t first, uint32_t count,
                   struct vex_flat_query *queries, size_t queries_count)
{
    const double u = 0x1p-24;
    double n = view->dim;
    struct scan scan = {
        .view = view,
        .bound = (n + 8) * u / (1 - (n + 8) * u),
        .floor = (float)n * FLT_MIN,
    };
    _Alignas(64) float buffer[VEX_ROW_BLOCK_FLOATS];
    struct vex_row_block block;
    uint32_t end = first + count;
    VEX_ASSERT(end <= view->segments[segment].segment->capacity_rows);
    vex_row_block_init(&block, view->segments[segment].segment, view->metric == VEX_METRIC_L2,
                       buffer);
    for (uint32_t row = first; row < end; row += block.count) {
        vex_row_block_move(&block, row, end - row < block.rows_max ? end - row : block.rows_max);
        for (size_t i = 0; i < queries_count; i++) {
            scan_block(&scan, &block, segment, &queries[i]);
        }
    }
}

size_t vex_flat_scratch_bytes(const struct vex_view *view, size_t count, uint32_t k)
{
    size_t most = 0;
    count = count < VEX_CODE_SCAN_GROUP ? count : VEX_CODE_SCAN_GROUP;
    for (uint32_t s = 0; s < view->segments_count; s++) {
        if (vex_code_scan_rows(&view->segments[s]) > 0) {
            size_t bytes = vex_code_scan_scratch_bytes(view->segments[s].segment, count, k);
            most = bytes > most ? bytes : most;
        }
    }
    return most;
}

/* Scratch for the codes of a segment: what the caller brought, or NULL if there is none. */
static void *find_scratch(const struct vex_view *view, size_t needed, void **out_owned)
{
    *out_owned = NULL;
    if (view->effort && view->effort->scratch && view->effort->scratch_bytes >= needed) {
        return view->effort->scratch;
    }
    *out_owned = aligned_alloc(SCRATCH_ALIGNMENT, vex_round_up(needed, SCRATCH_ALIGNMENT));
    return *out_owned;
}

/* One pass over a segment, by codes as far as they go. Without memory for that it takes longer. */
static void scan_group(const struct vex_view *view, uint32_t segment,
                       struct vex_flat_query *queries, size_t count)
{
    uint32_t visible = view->segments[segment].visible_rows;
    uint32_t coded = vex_code_scan_rows(&view->segments[segment]);
    VEX_ASSERT(visible <= view->segments[segment].segment->capacity_rows);
    if (coded > 0) {
        void *owned;
        size_t needed =
            vex_code_scan_scratch_bytes(view->segments[segment].segment, count, queries[0].topk->k);
        void *scratch = find_scratch(view, needed, &owned);
        if (scratch) {
            vex_code_scan(view, segment, queries, count, scratch);
        }
        coded = scratch ? coded : 0;
        free(owned);
    }
    for (size_t i = 0; i < count; i += GROUP_QUERIES) {
        size_t some = count - i < GROUP_QUERIES ? count - i : GROUP_QUERIES;
        vex_flat_rows(view, segment, coded, visible - coded, queries + i, some);
    }
}

void vex_flat_scan(const struct vex_view *view, uint32_t segment, const float *queries,
                   size_t count, struct vex_topk *topks, struct vex_search_counters *counters)
{
    struct vex_flat_query group[VEX_CODE_SCAN_GROUP];
    for (size_t i = 0; i < count; i += VEX_CODE_SCAN_GROUP) {
        size_t some = count - i < VEX_CODE_SCAN_GROUP ? count - i : VEX_CODE_SCAN_GROUP;
        for (size_t j = 0; j < some; j++) {
            const float *query = queries + (i + j) * view->dim;
            group[j] = (struct vex_flat_query){query, vex_exact_norm(query, view->dim),
                                               &topks[i + j], INFINITY};
        }
        scan_group(view, segment, group, some);
        counters->rows_visited += (uint64_t)some * view->segments[segment].visible_rows;
    }
}

static enum vex_status search_flat(const struct vex_view *view, const float *queries, size_t count,
                                   struct vex_topk *topks, struct vex_search_counters *counters,
                                   struct vex_error *error)
{
    (void)error;
    /* Codes first: what they find lets the others drop rows on their single-precision score. */
    for (int coded = 1; coded >= 0; coded--) {
        for (uint32_t s = 0; s < view->segments_count; s++) {
            if ((vex_code_scan_rows(&view->segments[s]) > 0) == coded) {
                vex_flat_scan(view, s, queries, count, topks, counters);
            }
        }
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
