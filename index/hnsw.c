/*
 * Approximate search of a view: graphs where segments have them, scans where not.
 *
 * All segments share one list of the k best. Graphs come first, the largest first, because the k-th
 * best that they leave behind lets the scans drop nearly every row on its single-precision score. A
 * graph in which the walk held fewer than k living rows (most of it dead, or damaged) is scanned:
 * what is alive is always found.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "index/index.h"

#define SCRATCH_ALIGNMENT 64u

const struct vex_index *vex_index_by_name(const char *name)
{
    static const struct vex_index *const all[] = {&vex_index_flat, &vex_index_hnsw};
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

static void search_graphs(const struct vex_view *view, const float *query, uint32_t ef,
                          void *scratch, struct vex_topk *topk,
                          struct vex_search_counters *counters)
{
    uint32_t segment = view->segments_count;
    uint32_t nodes = UINT32_MAX;
    while (next_graph(view, &segment, &nodes)) {
        struct vex_graph_counters graph_counters = {0};
        struct vex_graph_query question = {
            .segment = view->segments[segment].segment,
            .segment_index = segment,
            .visible_rows = view->segments[segment].visible_rows,
            .lsn = view->lsn,
            .query = query,
            .ef = ef,
            .scratch = scratch,
        };
        uint32_t found = vex_graph_search(&question, topk, &graph_counters);
        counters->rows_visited += graph_counters.scored;
        if (found < living_rows_wanted(view, segment, topk->k)) {
            counters->rescans++;
            vex_topk_drop(topk, segment);
            vex_flat_scan(view, segment, query, 1, topk, counters);
        }
    }
}

static uint32_t effort_ef(const struct vex_view *view, uint32_t k)
{
    uint32_t ef = view->effort && view->effort->ef ? view->effort->ef : VEX_GRAPH_EF_SEARCH_DEFAULT;
    ef = ef < VEX_GRAPH_EF_SEARCH_MAX ? ef : VEX_GRAPH_EF_SEARCH_MAX;
    return ef > k ? ef : k;
}

static enum vex_status search_hnsw(const struct vex_view *view, const float *queries, size_t count,
                                   struct vex_topk *topks, struct vex_search_counters *counters,
                                   struct vex_error *error)
{
    uint32_t k = 0;
    for (size_t i = 0; i < count; i++) {
        k = topks[i].k > k ? topks[i].k : k;
    }
    uint32_t ef = effort_ef(view, k);
    size_t needed = vex_effort_scratch_bytes(view->dim, ef, k);
    bool is_given = view->effort && view->effort->scratch && view->effort->scratch_bytes >= needed;
    void *scratch = is_given
                        ? view->effort->scratch
                        : aligned_alloc(SCRATCH_ALIGNMENT, vex_round_up(needed, SCRATCH_ALIGNMENT));
    if (!scratch) {
        return vex_error_set(error, VEX_ERR_NOMEM, "search: out of memory for ef = %u", ef);
    }
    for (size_t i = 0; i < count; i++) {
        search_graphs(view, queries + i * view->dim, ef, scratch, &topks[i], counters);
    }
    for (uint32_t s = 0; s < view->segments_count; s++) {
        if (!has_graph(view, s)) {
            vex_flat_scan(view, s, queries, count, topks, counters);
        }
    }
    if (!is_given) {
        free(scratch);
    }
    return VEX_OK;
}

static enum vex_status build_hnsw(struct vex_segment_writer *writer,
                                  const struct vex_segment_shape *shape,
                                  const struct vex_build_pace *pace,
                                  struct vex_graph_report *out_report, struct vex_error *error)
{
    return vex_graph_build(writer, &shape->graph, pace, out_report, error);
}

const struct vex_index vex_index_hnsw = {
    .name = "hnsw",
    .search = search_hnsw,
    .build = build_hnsw,
    .validate = vex_graph_validate,
};
