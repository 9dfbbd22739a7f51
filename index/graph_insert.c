/*
 * One insertion: find what is near, choose links among it, and have them link back.
 *
 * A link from p to c is left out if p has a nearer link s from which c is nearer still, by the factor
 * alpha: then the way to c leads over s. What is left points in all directions, which is what makes
 * a walk short. alpha slightly above 1 keeps some long links; twenty per cent, as is often advised,
 * costs speed at the same recall. Identical vectors leave each other out (<=), or a row would fill
 * with copies; slots that choosing leaves free are given to the nearest of what was left out.
 *
 * Distances are between bytes of the rotated vectors, with one scale for all: whole numbers, exact,
 * an eighth of the memory that floats would move.
 *
 * A node's row is guarded by a lock of its own, held for a copy or for choosing again. Two locks are
 * never held at once.
 */
#include "index/graph_build_priv.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "index/fetch.h"

#define ALPHA 1.1f
#define CHOOSE_GROUP 8u /* links that a candidate is compared with at a time */

enum state { STATE_OPEN, STATE_TAKEN, STATE_SKIPPED };

static void be_patient(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static void lock_node(const struct vex_build_layer *layer, uint32_t node)
{
    /* pairs: NODE_LINKS with unlock_node. */
    while (atomic_exchange_explicit(&layer->locks[node].held, 1, memory_order_acquire)) {
        be_patient();
    }
}

static void unlock_node(const struct vex_build_layer *layer, uint32_t node)
{
    /* pairs: NODE_LINKS with lock_node: carries row and degree of the node. */
    atomic_store_explicit(&layer->locks[node].held, 0, memory_order_release);
}

static uint32_t *row_of(const struct vex_build_layer *layer, uint32_t node)
{
    return layer->rows + (size_t)node * layer->row_links;
}

void vex_build_distances(const struct vex_graph_build *build, uint32_t node, const uint32_t *nodes,
                         uint32_t count, float *out)
{
    if (!build->fine) {
        build->kernels->bytes_l2(vex_build_bytes(build, node), build->bytes, build->bytes_stride,
                                 nodes, count, out);
        return;
    }
    size_t stride = build->bytes_stride / sizeof(float);
    const float *from = (const void *)vex_build_bytes(build, node);
    for (uint32_t i = 0; i < count; i++) {
        const float *to = (const void *)vex_build_bytes(build, nodes[i]);
        build->codes.space.kernels->l2_rows(from, to, stride, 1, stride, &out[i]);
    }
}

/* ---- walk ------------------------------------------------------------------------------------ */

void vex_build_mark_none_seen(struct vex_graph_worker *worker)
{
    if (++worker->seen_mark == 0) {
        memset(worker->seen, 0, worker->build->nodes_count);
        worker->seen_mark = 1;
    }
}

static void fetch_bytes(const struct vex_graph_build *build, uint32_t node)
{
    vex_fetch(vex_build_bytes(build, node), build->bytes_stride);
}

/* Takes nodes that were not met yet into the batch; without a branch, which would be a coin's toss. */
static void meet(struct vex_graph_worker *worker, const uint32_t *restrict nodes, uint32_t count)
{
    uint8_t *restrict seen = worker->seen;
    uint32_t *restrict met = worker->batch->nodes;
    uint8_t mark = worker->seen_mark;
    uint32_t met_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t node = nodes[i];
        uint32_t is_new = seen[node] != mark;
        seen[node] = mark;
        met[met_count] = node;
        met_count += is_new;
    }
    worker->batch->count = met_count;
    for (uint32_t i = 0; i < met_count; i++) {
        fetch_bytes(worker->build, met[i]);
    }
}

static void score(struct vex_graph_worker *worker, uint32_t node)
{
    const struct vex_graph_build *build = worker->build;
    struct vex_score_batch *batch = worker->batch;
    vex_build_distances(build, node, batch->nodes, batch->count, batch->distances);
    build->kernels->offer(&worker->beam, batch);
}

static void start_beam(struct vex_graph_worker *worker, const struct vex_build_layer *layer,
                       uint32_t capacity)
{
    struct vex_beam *beam = &worker->beam;
    for (uint32_t i = 0; i < capacity + VEX_BATCH_PAD; i++) {
        beam->distances[i] = INFINITY;
    }
    beam->capacity = capacity;
    beam->count = 0;
    beam->cursor = 0;
    beam->rows = (const void *)layer->rows;
    beam->row_bytes = layer->rows ? layer->row_links * sizeof(uint32_t) : 0;
}

static void copy_links(struct vex_graph_worker *worker, const struct vex_build_layer *layer,
                       uint32_t node, uint32_t *out, uint32_t *out_count)
{
    (void)worker;
    lock_node(layer, node);
    *out_count = layer->degrees[node];
    memcpy(out, row_of(layer, node), *out_count * sizeof(*out));
    unlock_node(layer, node);
}

void vex_build_walk(struct vex_graph_worker *worker, uint32_t node, uint32_t layer_number,
                    const uint32_t *entries, uint32_t entries_count, uint32_t capacity)
{
    const struct vex_build_layer *layer = &worker->build->layers[layer_number];
    struct vex_beam *beam = &worker->beam;
    start_beam(worker, layer, capacity);
    vex_build_mark_none_seen(worker);
    worker->seen[node] = worker->seen_mark;
    worker->expanded_count = 0;
    meet(worker, entries, entries_count);
    score(worker, node);
    while (beam->cursor < beam->count) {
        uint32_t at = beam->cursor++;
        uint32_t next = beam->nodes[at];
        if (next & VEX_NODE_EXPANDED) {
            continue;
        }
        beam->nodes[at] = next | VEX_NODE_EXPANDED;
        if (worker->expanded_count < worker->expanded_max) {
            worker->expanded[worker->expanded_count++] =
                (struct vex_near){beam->distances[at], next};
        }
        uint32_t count;
        copy_links(worker, layer, next, worker->links, &count);
        meet(worker, worker->links, count);
        score(worker, node);
    }
}

/* All nodes of the topmost layer, the nearest of them left in the beam. */
static void scan_top(struct vex_graph_worker *worker, uint32_t node)
{
    const struct vex_graph_build *build = worker->build;
    const struct vex_build_layer *top = &build->layers[build->layers_count - 1];
    start_beam(worker, top, VEX_BUILD_ENTRIES);
    for (uint32_t first = 0; first < top->nodes_count; first += VEX_BATCH_MAX) {
        uint32_t end = first + VEX_BATCH_MAX;
        end = end < top->nodes_count ? end : top->nodes_count;
        worker->batch->count = 0;
        for (uint32_t other = first; other < end; other++) {
            if (other != node) {
                worker->batch->nodes[worker->batch->count++] = other;
            }
        }
        score(worker, node);
    }
}

static uint32_t take_entries(const struct vex_beam *beam, uint32_t out[VEX_BUILD_ENTRIES])
{
    uint32_t count = beam->count < VEX_BUILD_ENTRIES ? beam->count : VEX_BUILD_ENTRIES;
    for (uint32_t i = 0; i < count; i++) {
        out[i] = beam->nodes[i] & ~VEX_NODE_EXPANDED;
    }
    return count;
}

uint32_t vex_build_entries(struct vex_graph_worker *worker, uint32_t node, uint32_t layer,
                           uint32_t out[VEX_BUILD_ENTRIES])
{
    scan_top(worker, node);
    uint32_t count = take_entries(&worker->beam, out);
    for (uint32_t above = worker->build->layers_count - 2; above > layer; above--) {
        vex_build_walk(worker, node, above, out, count, VEX_BUILD_ENTRIES);
        count = take_entries(&worker->beam, out);
    }
    return count;
}

/* ---- choosing -------------------------------------------------------------------------------- */

static int compare_near(const void *a, const void *b)
{
    const struct vex_near *left = a;
    const struct vex_near *right = b;
    if (left->distance != right->distance) {
        return left->distance < right->distance ? -1 : 1;
    }
    return (left->node > right->node) - (left->node < right->node);
}

/* Ascending, each node once. */
static uint32_t sort_unique(struct vex_near *nodes, uint32_t count)
{
    qsort(nodes, count, sizeof(*nodes), compare_near);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (kept == 0 || nodes[kept - 1].node != nodes[i].node) {
            nodes[kept++] = nodes[i];
        }
    }
    return kept;
}

/* Whether one of the links taken so far is on the way to the candidate. */
static bool is_covered(const struct vex_graph_build *build, const struct vex_near *candidate,
                       const uint32_t *taken, uint32_t taken_count)
{
    for (uint32_t i = 0; i < taken_count; i += CHOOSE_GROUP) {
        float distances[CHOOSE_GROUP];
        uint32_t count = taken_count - i < CHOOSE_GROUP ? taken_count - i : CHOOSE_GROUP;
        vex_build_distances(build, candidate->node, taken + i, count, distances);
        for (uint32_t j = 0; j < count; j++) {
            if (ALPHA * ALPHA * distances[j] <= candidate->distance) {
                return true;
            }
        }
    }
    return false;
}

/* Chooses up to `links` of the sorted candidates; with `fill`, up to exactly so many. */
static uint32_t choose(struct vex_graph_worker *worker, const struct vex_near *candidates,
                       uint32_t count, uint32_t links, bool fill, uint32_t *out)
{
    uint32_t taken = 0;
    uint32_t looked_at = 0;
    for (; looked_at < count && taken < links; looked_at++) {
        bool covered = is_covered(worker->build, &candidates[looked_at], out, taken);
        worker->states[looked_at] = covered ? STATE_SKIPPED : STATE_TAKEN;
        if (!covered) {
            out[taken++] = candidates[looked_at].node;
        }
    }
    for (uint32_t i = 0; fill && i < looked_at && taken < links; i++) {
        if (worker->states[i] == STATE_SKIPPED) {
            out[taken++] = candidates[i].node;
        }
    }
    return taken;
}

uint32_t vex_build_choose(struct vex_graph_worker *worker, uint32_t count, uint32_t links,
                          uint32_t *out)
{
    count = sort_unique(worker->candidates, count);
    return choose(worker, worker->candidates, count, links, true, out);
}

/* The links of a node and, unless it is `node` itself, one more, as sorted candidates. */
static uint32_t candidates_of_row(struct vex_graph_worker *worker,
                                  const struct vex_build_layer *layer, uint32_t node,
                                  uint32_t one_more)
{
    const struct vex_graph_build *build = worker->build;
    uint32_t count = layer->degrees[node];
    uint32_t nodes[VEX_BATCH_MAX + 1];
    float distances[VEX_BATCH_MAX + 1];
    memcpy(nodes, row_of(layer, node), count * sizeof(*nodes));
    if (one_more != node) {
        nodes[count++] = one_more;
    }
    vex_build_distances(build, node, nodes, count, distances);
    for (uint32_t i = 0; i < count; i++) {
        worker->candidates[i] = (struct vex_near){distances[i], nodes[i]};
    }
    return sort_unique(worker->candidates, count);
}

static bool holds(const uint32_t *row, uint32_t count, uint32_t node)
{
    for (uint32_t i = 0; i < count; i++) {
        if (row[i] == node) {
            return true;
        }
    }
    return false;
}

static void link_back(struct vex_graph_worker *worker, const struct vex_build_layer *layer,
                      uint32_t from, uint32_t to)
{
    lock_node(layer, from);
    uint32_t *row = row_of(layer, from);
    uint32_t degree = layer->degrees[from];
    if (!holds(row, degree, to)) {
        if (degree < layer->row_links) {
            row[degree++] = to;
        } else {
            uint32_t count = candidates_of_row(worker, layer, from, to);
            degree = choose(worker, worker->candidates, count, layer->links, false, row);
        }
        layer->degrees[from] = (uint16_t)degree;
    }
    unlock_node(layer, from);
}

/* ---- insertion ------------------------------------------------------------------------------- */

/* What the walk met near, and whoever has linked to the node already. */
static uint32_t gather(struct vex_graph_worker *worker, const struct vex_build_layer *layer,
                       uint32_t node)
{
    const struct vex_graph_build *build = worker->build;
    struct vex_near *candidates = worker->candidates;
    uint32_t count = worker->expanded_count;
    memcpy(candidates, worker->expanded, count * sizeof(*candidates));
    for (uint32_t i = 0; i < worker->beam.count; i++) {
        if (!(worker->beam.nodes[i] & VEX_NODE_EXPANDED)) {
            candidates[count++] =
                (struct vex_near){worker->beam.distances[i], worker->beam.nodes[i]};
        }
    }
    uint32_t linked;
    copy_links(worker, layer, node, worker->links, &linked);
    float distances[VEX_BATCH_MAX];
    vex_build_distances(build, node, worker->links, linked, distances);
    for (uint32_t i = 0; i < linked; i++) {
        candidates[count++] = (struct vex_near){distances[i], worker->links[i]};
    }
    count = sort_unique(candidates, count);
    return count < VEX_BUILD_CANDIDATES_MAX ? count : VEX_BUILD_CANDIDATES_MAX;
}

void vex_build_insert(struct vex_graph_worker *worker, uint32_t node, uint32_t layer_number)
{
    struct vex_build_layer *layer = &worker->build->layers[layer_number];
    uint32_t entries[VEX_BUILD_ENTRIES];
    uint32_t count = vex_build_entries(worker, node, layer_number, entries);
    uint32_t ef = worker->build->shape.ef_construction;
    vex_build_walk(worker, node, layer_number, entries, count, ef);
    count = gather(worker, layer, node);
    uint32_t chosen[VEX_LINKS_MAX];
    uint32_t degree = choose(worker, worker->candidates, count, layer->links, true, chosen);
    lock_node(layer, node);
    memcpy(row_of(layer, node), chosen, degree * sizeof(*chosen));
    layer->degrees[node] = (uint16_t)degree;
    unlock_node(layer, node);
    for (uint32_t i = 0; i < degree; i++) {
        link_back(worker, layer, chosen[i], node);
    }
}

void vex_build_trim(struct vex_graph_worker *worker, uint32_t node, uint32_t layer_number)
{
    struct vex_build_layer *layer = &worker->build->layers[layer_number];
    if (layer->degrees[node] <= layer->links) {
        return;
    }
    uint32_t count = candidates_of_row(worker, layer, node, node);
    layer->degrees[node] = (uint16_t)choose(worker, worker->candidates, count, layer->links, true,
                                            row_of(layer, node));
}
