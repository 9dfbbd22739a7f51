/*
 * Extending: a new graph that takes over the links of an older one.
 *
 * The first rows of the new segment are the living rows of the older segment, in order. Their links
 * are renumbered; what is new is then inserted as in any build. That costs a copy for each old row
 * and an insertion only for each new one, so that small segments can join a large one often.
 *
 * Links to rows that have died are healed: the node chooses again, among its living links and those
 * that its dead links had (the rule of FreshDiskANN, Singh et al., 2021), so that the ways which led
 * over the dead do not end. Links to the node are left to the others: each heals its own.
 *
 * The upper layers stay random samples. Their living nodes remain, in order; new rows, in random
 * order, fill them up to the size that the new number of nodes asks for, and old rows do if there
 * are not enough new ones.
 *
 * Not worth it if most of the old graph is dead (healing would work from scraps) or if it would be a
 * small part of the new one: then everything is built from the start.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "index/graph_build_priv.h"

#define NODE_NONE UINT32_MAX
#define LEAST_LIVING_SHARE 2u /* one in so many of the old rows has to live */
#define LEAST_SHARE 4u        /* one in so many of the new segment's rows has to be an old one */
#define HEAL_LEVELS 3u        /* how far healing looks for the living behind the dead */

static bool lives(const struct vex_graph_origin *from, uint32_t row)
{
    return vex_segment_alive(from->segment, row, from->lsn);
}

/* ---- plan ------------------------------------------------------------------------------------ */

static uint32_t count_living(const struct vex_graph_origin *from)
{
    uint32_t count = 0;
    for (uint32_t row = 0; row < from->rows; row++) {
        count += lives(from, row);
    }
    return count;
}

static bool is_worth_it(const struct vex_graph_build *build, const struct vex_graph_origin *from,
                        uint32_t living)
{
    const struct vex_segment *old = from->segment;
    return old->graph.nodes_count > 0 && old->graph.nodes_count == from->rows &&
           old->graph.layers[0].links == vex_graph_links(&build->shape) &&
           old->metric == build->segment->metric && old->dim == build->segment->dim &&
           (uint64_t)living * LEAST_LIVING_SHARE >= from->rows && living <= build->nodes_count &&
           (uint64_t)living * LEAST_SHARE >= build->nodes_count;
}

static void number_old_rows(struct vex_build_origin *origin)
{
    uint32_t row = 0;
    for (uint32_t old = 0; old < origin->from.rows; old++) {
        origin->node_of[old] = NODE_NONE;
        if (lives(&origin->from, old)) {
            origin->old_row_of[row++] = old;
        }
    }
}

/* The living nodes of the old upper layers first, in order; then all that is new; then the rest. */
static void order_nodes(struct vex_graph_build *build, const uint32_t *shuffled)
{
    struct vex_build_origin *origin = &build->origin;
    const struct vex_graph *graph = &origin->from.segment->graph;
    uint32_t node = 0;
    for (uint32_t i = 0; i < graph->layers[1].nodes_count; i++) {
        uint32_t old = graph->entries[i];
        if (old < origin->from.rows && lives(&origin->from, old) &&
            origin->node_of[old] == NODE_NONE) {
            origin->upper_of[node] = i;
            origin->node_of[old] = node++;
        }
    }
    origin->upper_count = node;
    for (uint32_t i = 0; i < build->nodes_count; i++) {
        if (shuffled[i] >= origin->rows) {
            build->row_of[node++] = shuffled[i];
        }
    }
    origin->new_end = node;
    for (uint32_t i = 0; i < build->nodes_count; i++) {
        uint32_t row = shuffled[i];
        if (row < origin->rows && origin->node_of[origin->old_row_of[row]] == NODE_NONE) {
            origin->node_of[origin->old_row_of[row]] = node;
            build->row_of[node++] = row;
        }
    }
    for (uint32_t row = 0; row < origin->rows; row++) {
        build->row_of[origin->node_of[origin->old_row_of[row]]] = row;
    }
}

/* Which nodes of each layer have links already. */
static void adopt_layers(struct vex_graph_build *build)
{
    const struct vex_build_origin *origin = &build->origin;
    const struct vex_graph *graph = &origin->from.segment->graph;
    build->layers[0].insert_first = origin->upper_count;
    build->layers[0].insert_end = origin->new_end;
    for (uint32_t layer = 1; layer + 1 < build->layers_count; layer++) {
        uint32_t kept = 0;
        if (layer + 1 < graph->layers_count) {
            while (kept < origin->upper_count &&
                   origin->upper_of[kept] < graph->layers[layer].nodes_count) {
                kept++;
            }
        }
        uint32_t nodes = build->layers[layer].nodes_count;
        build->layers[layer].insert_first = kept < nodes ? kept : nodes;
        build->layers[layer].insert_end = nodes;
    }
}

enum vex_status vex_build_plan_extension(struct vex_graph_build *build,
                                         const struct vex_graph_origin *from,
                                         struct vex_error *error)
{
    struct vex_build_origin *origin = &build->origin;
    uint32_t living = count_living(from);
    if (!is_worth_it(build, from, living)) {
        return VEX_OK;
    }
    size_t shuffled_bytes = build->nodes_count * sizeof(uint32_t);
    uint32_t *shuffled = malloc(shuffled_bytes);
    *origin = (struct vex_build_origin){
        .from = *from,
        .rows = living,
        .old_row_of = malloc(living * sizeof(uint32_t)),
        .node_of = malloc(from->rows * sizeof(uint32_t)),
        .upper_of = malloc(from->segment->graph.layers[1].nodes_count * sizeof(uint32_t)),
    };
    bool all = shuffled && origin->old_row_of && origin->node_of && origin->upper_of;
    if (all) {
        memcpy(shuffled, build->row_of, shuffled_bytes);
        number_old_rows(origin);
        order_nodes(build, shuffled);
        adopt_layers(build);
        origin->codes_kept = vex_code_build_keep(&build->codes, &from->segment->codes);
    }
    free(shuffled);
    return all ? VEX_OK
               : vex_error_set(error, VEX_ERR_NOMEM,
                               "graph: out of memory to extend one of %u nodes", from->rows);
}

void vex_build_origin_free(struct vex_build_origin *origin)
{
    free(origin->old_row_of);
    free(origin->node_of);
    free(origin->upper_of);
}

/* ---- links ----------------------------------------------------------------------------------- */

/* One layer of the old graph and of the new one, as seen from a node. */
struct adoption {
    struct vex_graph_worker *worker;
    const struct vex_graph *graph;
    uint32_t layer;
    uint32_t node;
    uint32_t found[VEX_BUILD_CANDIDATES_MAX]; /* living, each once */
    uint32_t found_count;
    uint32_t dead[VEX_BUILD_CANDIDATES_MAX]; /* numbers in the old layer, to be looked behind */
    uint32_t dead_count;
};

/* The new number of a node of the old layer; NODE_NONE if it is dead, or in this layer no more. */
static uint32_t new_number(const struct adoption *adoption, uint32_t old)
{
    const struct vex_graph_build *build = adoption->worker->build;
    uint32_t row = adoption->layer == 0 ? old : adoption->graph->entries[old];
    uint32_t node = row < build->origin.from.rows ? build->origin.node_of[row] : NODE_NONE;
    bool stays = adoption->layer == 0 || node < build->layers[adoption->layer].insert_first;
    return stays ? node : NODE_NONE;
}

static void take_links(struct adoption *adoption, uint32_t old)
{
    const struct vex_graph_layer *from = &adoption->graph->layers[adoption->layer];
    struct vex_graph_worker *worker = adoption->worker;
    const uint32_t *links = (const void *)(from->rows + old * from->row_bytes);
    for (uint32_t i = 0; i < from->links; i++) {
        if (links[i] >= from->nodes_count) {
            continue;
        }
        uint32_t node = new_number(adoption, links[i]);
        if (node == NODE_NONE) {
            if (links[i] != old && adoption->dead_count < VEX_BUILD_CANDIDATES_MAX) {
                adoption->dead[adoption->dead_count++] = links[i];
            }
        } else if (worker->seen[node] != worker->seen_mark &&
                   adoption->found_count < VEX_BUILD_CANDIDATES_MAX) {
            worker->seen[node] = worker->seen_mark;
            adoption->found[adoption->found_count++] = node;
        }
    }
}

/* Behind the dead links, and behind those if that does not find enough. */
static void look_behind_dead(struct adoption *adoption)
{
    uint32_t first = 0;
    uint32_t links = adoption->worker->build->layers[adoption->layer].links;
    for (uint32_t level = 0; level < HEAL_LEVELS; level++) {
        uint32_t end = adoption->dead_count;
        for (; first < end; first++) {
            take_links(adoption, adoption->dead[first]);
        }
        if (adoption->found_count >= links) {
            return;
        }
    }
}

static uint32_t choose_found(const struct adoption *adoption, uint32_t *out)
{
    struct vex_graph_worker *worker = adoption->worker;
    const struct vex_graph_build *build = worker->build;
    for (uint32_t first = 0; first < adoption->found_count; first += VEX_BATCH_MAX) {
        float distances[VEX_BATCH_MAX];
        uint32_t left = adoption->found_count - first;
        uint32_t count = left < VEX_BATCH_MAX ? left : VEX_BATCH_MAX;
        vex_build_distances(build, adoption->node, adoption->found + first, count, distances);
        for (uint32_t i = 0; i < count; i++) {
            worker->candidates[first + i] =
                (struct vex_near){distances[i], adoption->found[first + i]};
        }
    }
    return vex_build_choose(worker, adoption->found_count, build->layers[adoption->layer].links,
                            out);
}

static void adopt_links(struct vex_graph_worker *worker, uint32_t node, uint32_t layer_number,
                        uint32_t old)
{
    struct vex_build_layer *layer = &worker->build->layers[layer_number];
    struct adoption adoption;
    adoption.worker = worker;
    adoption.graph = &worker->build->origin.from.segment->graph;
    adoption.layer = layer_number;
    adoption.node = node;
    adoption.found_count = 0;
    adoption.dead_count = 0;
    uint32_t *row = layer->rows + (size_t)node * layer->row_links;
    vex_build_mark_none_seen(worker);
    worker->seen[node] = worker->seen_mark;
    take_links(&adoption, old);
    if (adoption.dead_count > 0) {
        look_behind_dead(&adoption);
        layer->degrees[node] = (uint16_t)choose_found(&adoption, row);
    } else {
        memcpy(row, adoption.found, adoption.found_count * sizeof(*row));
        layer->degrees[node] = (uint16_t)adoption.found_count;
    }
}

void vex_build_adopt(struct vex_graph_worker *worker, uint32_t node)
{
    const struct vex_graph_build *build = worker->build;
    uint32_t row = build->row_of[node];
    if (row < build->origin.rows) {
        adopt_links(worker, node, 0, build->origin.old_row_of[row]);
    }
    for (uint32_t layer = 1; layer + 1 < build->layers_count; layer++) {
        if (node < build->layers[layer].insert_first) {
            adopt_links(worker, node, layer, build->origin.upper_of[node]);
        }
    }
}

bool vex_build_adopt_code(const struct vex_graph_build *build, uint32_t row)
{
    const struct vex_build_origin *origin = &build->origin;
    if (!origin->codes_kept || row >= origin->rows) {
        return false;
    }
    vex_code_build_copy(&build->codes, row, &origin->from.segment->codes, origin->old_row_of[row]);
    return true;
}
