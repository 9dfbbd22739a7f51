/*
 * Approximate search of a view: graphs where segments have them, scans where not.
 *
 * All segments share one list of the k best. Graphs come first, the largest first, because the k-th
 * best that they leave behind lets the scans drop nearly every row on its single-precision score. A
 * graph in which the walk held fewer than k living rows (most of it dead, or damaged) is scanned:
 * what is alive is always found.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "index/calibrate.h"
#include "index/index.h"
#include "index/list_search.h"

#define SCRATCH_ALIGNMENT 64u
#define DEAD_SHARE_MAX 0.75 /* that more effort makes up for; beyond, few searches are worth it */
#define EF_SHARE_LEAST 5u   /* a walk that keeps fewer nodes gets stuck */
#define FIRST_TIMES 2u      /* the first of several walks, in its share */

const struct vex_index *vex_index_by_name(const char *name)
{
    static const struct vex_index *const all[] = {&vex_index_flat, &vex_index_hnsw, &vex_index_ivf};
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
        if (strcmp(all[i]->name, name) == 0) {
            return all[i];
        }
    }
    return NULL;
}

size_t vex_effort_scratch_bytes(uint32_t dim, uint32_t ef, uint32_t k)
{
    return vex_graph_scratch_bytes(dim, ef > k ? ef : k);
}

static bool has_graph(const struct vex_view *view, uint32_t segment)
{
    return view->segments[segment].segment->graph.nodes_count > 0;
}

/* The segment with the largest graph below `bound` nodes, or of `bound` nodes and behind `after`. */
static bool next_graph(const struct vex_view *view, uint32_t *segment, uint32_t *nodes)
{
    uint32_t best = view->segments_count;
    uint32_t best_nodes = 0;
    for (uint32_t s = 0; s < view->segments_count; s++) {
        uint32_t count = view->segments[s].segment->graph.nodes_count;
        bool is_left = count < *nodes || (count == *nodes && s > *segment);
        if (count > best_nodes && is_left) {
            best = s;
            best_nodes = count;
        }
    }
    *segment = best;
    *nodes = best_nodes;
    return best < view->segments_count;
}

static uint32_t living_rows_wanted(const struct vex_view *view, uint32_t segment, uint32_t k)
{
    uint32_t rows = view->segments[segment].segment->graph.nodes_count;
    uint32_t visible = view->segments[segment].visible_rows;
    rows = rows < visible ? rows : visible;
    return rows < k ? rows : k;
}

/*
 * For want of a table: what these recalls took at most on real data (graphs of 16 to 64 links, 60,000 to
 * 400,000 rows), at k = 10, doubled.
 */
static uint32_t usual_ef(double recall, uint32_t k)
{
    uint32_t ef = recall <= 0.9 ? 64 : recall <= 0.95 ? 96 : recall <= 0.99 ? 256 : 512;
    return k > 10 ? ef / 10 * k : ef;
}

/* Rows that are dead take their places in the walk's list like others. */
static double made_up_for(double ef, double dead_share)
{
    double share = dead_share < DEAD_SHARE_MAX ? dead_share : DEAD_SHARE_MAX;
    return ceil(ef / (1 - share));
}

static uint32_t segment_ef(const struct vex_view *view, uint32_t segment, uint32_t k)
{
    const struct vex_effort *effort = view->effort;
    double ef = effort && effort->ef ? effort->ef : VEX_GRAPH_EF_SEARCH_DEFAULT;
    if (effort && effort->recall > 0) {
        uint32_t measured = vex_effort_for(&view->segments[segment].segment->effort,
                                           VEX_EFFORT_UNIT_EF, k, effort->recall);
        ef = measured ? measured : usual_ef(effort->recall, k);
        ef = made_up_for(ef, effort->dead_share);
    }
    ef = ef < VEX_GRAPH_EF_SEARCH_MAX ? ef : VEX_GRAPH_EF_SEARCH_MAX;
    return ef > k ? (uint32_t)ef : k;
}

static bool is_measured(const struct vex_view *view, uint32_t segment, uint32_t k)
{
    const struct vex_effort *effort = view->effort;
    return effort && effort->recall > 0 &&
           vex_effort_for(&view->segments[segment].segment->effort, VEX_EFFORT_UNIT_EF, k,
                          effort->recall) > 0;
}

uint32_t vex_effort_ef(const struct vex_view *view, uint32_t k)
{
    uint32_t most = k;
    for (uint32_t s = 0; s < view->segments_count; s++) {
        uint32_t ef = has_graph(view, s) ? segment_ef(view, s, k) : 0;
        most = ef > most ? ef : most;
    }
    return most;
}

/*
 * What walks of several graphs keep. The k best are spread over them by size, and so are the ef nodes
 * that one walk of all rows would keep; with a part on top of that for chance. The first walk finds
 * the k-th best that the others are measured by. Of those seen so far k are nearer than it, so in a
 * graph behind them a share of k is, by its size: the walk keeps twice that to find out.
 */
static void plan_ef(struct vex_graph_query *question, uint32_t nodes, uint64_t nodes_seen,
                    uint64_t nodes_total, uint32_t k)
{
    uint32_t ef = question->ef;
    uint64_t share = (uint64_t)ef * nodes / nodes_total;
    if (nodes_seen == 0) {
        uint64_t first = FIRST_TIMES * (share > k ? share : k);
        question->ef = first < ef ? (uint32_t)first : ef;
        return;
    }
    uint64_t near = 2 * (uint64_t)k * nodes / nodes_seen;
    share += share / 4;
    question->ef_first = (uint32_t)(share > near ? share : near) + EF_SHARE_LEAST;
}

/* The scratch is for the effort that `most_k` takes, at least topk->k. */
static void search_graphs(const struct vex_view *view, const float *query, uint32_t most_k,
                          void *scratch, struct vex_topk *topk,
                          struct vex_search_counters *counters)
{
    uint32_t segment = view->segments_count;
    uint32_t nodes = UINT32_MAX;
    uint64_t nodes_total = 0;
    uint64_t nodes_seen = 0;
    uint32_t ef = 0;
    for (uint32_t s = 0; s < view->segments_count; s++) {
        nodes_total += view->segments[s].segment->graph.nodes_count;
    }
    while (next_graph(view, &segment, &nodes)) {
        struct vex_graph_counters graph_counters = {0};
        /* Small graphs have no table of their own: what finds enough in the largest does in them. */
        if (nodes_seen == 0 || is_measured(view, segment, most_k)) {
            ef = segment_ef(view, segment, most_k);
        }
        struct vex_graph_query question = {
            .segment = view->segments[segment].segment,
            .segment_index = segment,
            .visible_rows = view->segments[segment].visible_rows,
            .lsn = view->lsn,
            .query = query,
            .ef = ef,
            .scratch = scratch,
        };
        plan_ef(&question, nodes, nodes_seen, nodes_total, topk->k);
        nodes_seen += nodes;
        uint32_t found = vex_graph_search(&question, topk, &graph_counters);
        counters->rows_visited += graph_counters.scored;
        if (found < living_rows_wanted(view, segment, topk->k)) {
            counters->rescans++;
            vex_topk_drop(topk, segment);
            vex_flat_scan(view, segment, query, 1, topk, counters);
        }
    }
}

/* Segments without a graph; where the index of a collection has been changed, some may have lists. */
static enum vex_status search_others(const struct vex_view *view, const float *queries,
                                     size_t count, struct vex_topk *topks,
                                     struct vex_search_counters *counters, struct vex_error *error)
{
    enum vex_status status = VEX_OK;
    for (uint32_t s = 0; s < view->segments_count && status == VEX_OK; s++) {
        if (has_graph(view, s)) {
            continue;
        }
        if (!vex_lists_can_serve(view->segments[s].segment)) {
            vex_flat_scan(view, s, queries, count, topks, counters);
            continue;
        }
        const struct vex_list_search search = {
            .view = view,
            .segment = s,
            .queries = queries,
            .queries_count = count,
            .topks = topks,
        };
        status = vex_lists_search(&search, counters, error);
    }
    return status;
}

static enum vex_status search_hnsw(const struct vex_view *view, const float *queries, size_t count,
                                   struct vex_topk *topks, struct vex_search_counters *counters,
                                   struct vex_error *error)
{
    uint32_t k = 0;
    for (size_t i = 0; i < count; i++) {
        k = topks[i].k > k ? topks[i].k : k;
    }
    uint32_t ef = vex_effort_ef(view, k);
    size_t needed = vex_effort_scratch_bytes(view->dim, ef, k);
    bool is_given = view->effort && view->effort->scratch && view->effort->scratch_bytes >= needed;
    void *scratch = is_given
                        ? view->effort->scratch
                        : aligned_alloc(SCRATCH_ALIGNMENT, vex_round_up(needed, SCRATCH_ALIGNMENT));
    if (!scratch) {
        return vex_error_set(error, VEX_ERR_NOMEM, "search: out of memory for ef = %u", ef);
    }
    for (size_t i = 0; i < count; i++) {
        search_graphs(view, queries + i * view->dim, k, scratch, &topks[i], counters);
    }
    if (!is_given) {
        free(scratch);
    }
    return search_others(view, queries, count, topks, counters, error);
}

static enum vex_status build_hnsw(struct vex_segment_writer *writer,
                                  const struct vex_segment_shape *shape,
                                  const struct vex_build_pace *pace,
                                  struct vex_graph_report *out_report, struct vex_error *error)
{
    enum vex_status status = vex_graph_build(writer, &shape->graph, pace, out_report, error);
    return status == VEX_OK
               ? vex_calibrate(writer, &vex_index_hnsw, VEX_EFFORT_UNIT_EF, pace, error)
               : status;
}

const struct vex_index vex_index_hnsw = {
    .name = "hnsw",
    .search = search_hnsw,
    .build = build_hnsw,
    .validate = vex_graph_validate,
};
