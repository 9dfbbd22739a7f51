#include "daemon/index_plan.h"

/* Rows from which on a graph is worth building: below, a scan takes less than a millisecond or so. */
#define GRAPH_ROWS_HNSW 1024u
#define GRAPH_ROWS_AUTO 16384u
#define LEVEL_SHARE 4u /* of the effort */
#define EF_LEVEL_LEAST 48u

struct vex_index_plan vex_index_plan_for(const struct vex_collection_facts *facts, uint64_t rows)
{
    const struct vex_graph_shape graph = {facts->m, facts->ef_construction};
    struct vex_index_plan plan = {.graph = {0, 0}};
    switch (facts->index) {
    case VEX_INDEX_FLAT:
        break;
    case VEX_INDEX_IVF:
        plan.lists = rows >= VEX_LISTS_ROWS_MIN;
        plan.lists_wanted = facts->lists;
        break;
    case VEX_INDEX_AUTO:
        plan.graph = rows >= GRAPH_ROWS_AUTO ? graph : plan.graph;
        break;
    case VEX_INDEX_HNSW:
        plan.graph = rows >= GRAPH_ROWS_HNSW ? graph : plan.graph;
        break;
    }
    return plan;
}

struct vex_index_plan vex_index_plan_level(const struct vex_index_plan *plan)
{
    struct vex_index_plan level = *plan;
    uint32_t least =
        plan->graph.ef_construction < EF_LEVEL_LEAST ? plan->graph.ef_construction : EF_LEVEL_LEAST;
    uint32_t effort = plan->graph.ef_construction / LEVEL_SHARE;
    level.graph.ef_construction = effort < least ? least : effort;
    return level;
}

bool vex_index_plan_is_bare(const struct vex_index_plan *plan)
{
    return plan->graph.m == 0 && !plan->lists;
}

bool vex_index_same_graph(const struct vex_graph_shape *a, const struct vex_graph_shape *b)
{
    /* An M that makes as many links is the same M. */
    return vex_graph_links(a) == vex_graph_links(b) && a->ef_construction == b->ef_construction;
}

static bool are_graphs_asked(const struct vex_collection_facts *facts)
{
    return facts->index == VEX_INDEX_AUTO || facts->index == VEX_INDEX_HNSW;
}

static bool is_graph_asked(const struct vex_collection_facts *facts,
                           const struct vex_graph_shape *graph)
{
    const struct vex_graph_shape asked = {facts->m, facts->ef_construction};
    return are_graphs_asked(facts) && vex_index_same_graph(graph, &asked);
}

/* A sealed segment has room for the rows it was made of and no more. */
static bool are_lists_asked(const struct vex_collection_facts *facts,
                            const struct vex_segment_shape *shape)
{
    return facts->index == VEX_INDEX_IVF &&
           shape->lists == vex_lists_count_for(shape->capacity_rows, facts->lists);
}

enum vex_index_fit vex_index_fit_of(const struct vex_collection_facts *facts,
                                    const struct vex_segment_shape *shape)
{
    if (shape->lists > 0) {
        return are_lists_asked(facts, shape) ? VEX_FIT_ASKED : VEX_FIT_OTHER;
    }
    if (shape->graph.m == 0) {
        return VEX_FIT_BARE;
    }
    return is_graph_asked(facts, &shape->graph) ? VEX_FIT_ASKED : VEX_FIT_OTHER;
}

enum vex_index_fit vex_index_fit_of_home(const struct vex_collection_facts *facts,
                                         const struct vex_home *home)
{
    return home->is_level && are_graphs_asked(facts) ? VEX_FIT_ASKED
                                                     : vex_index_fit_of(facts, &home->shape);
}

bool vex_index_is_due(const struct vex_collection_facts *facts, const struct vex_home *home)
{
    uint64_t rows = home->writer.rows - home->dead_rows;
    const struct vex_index_plan plan = vex_index_plan_for(facts, rows);
    switch (vex_index_fit_of_home(facts, home)) {
    case VEX_FIT_BARE:
        return !vex_index_plan_is_bare(&plan);
    case VEX_FIT_ASKED:
        return false; /* even if it has too few rows by now: it is there */
    case VEX_FIT_OTHER:
        return true;
    }
    return false;
}
