/*
 * The end of a build: see that every node can be reached, find what the estimates are worth, and
 * write the sections.
 *
 * Insertion alone does not promise that a walk can come everywhere: a node's last incoming link may
 * have been dropped in favour of others, most easily among many copies of one vector. So every layer
 * is searched from the nodes of the layer above, where a walk can begin, and whoever is not met gets
 * a link from a near node that is, in a free slot or in place of one that others have as well. Taking
 * a link may still cut someone off, hence rounds.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/panic.h"
#include "index/exact.h"
#include "index/graph_build_priv.h"

#define REPAIR_ROUNDS_MAX 20u
#define CALIBRATION_NODES 512u
#define FINE_ERROR_RMS 1e-6f /* of single precision, as a share of both lengths */

static uint32_t *row_of(const struct vex_build_layer *layer, uint32_t node)
{
    return layer->rows + (size_t)node * layer->row_links;
}

/* ---- reach ----------------------------------------------------------------------------------- */

struct reach {
    struct vex_build_layer *layer;
    uint8_t *met;
    uint32_t *queue;
    uint32_t count;
    uint32_t *links_to; /* how many links lead to a node */
    uint8_t *kept;      /* links of a node, from its last, that were made here */
};

static void spread_from(struct reach *reach, uint32_t node)
{
    uint32_t head = reach->count;
    if (reach->met[node]) {
        return;
    }
    reach->met[node] = 1;
    reach->queue[reach->count++] = node;
    for (; head < reach->count; head++) {
        const uint32_t *row = row_of(reach->layer, reach->queue[head]);
        uint32_t degree = reach->layer->degrees[reach->queue[head]];
        for (uint32_t i = 0; i < degree; i++) {
            if (!reach->met[row[i]]) {
                reach->met[row[i]] = 1;
                reach->queue[reach->count++] = row[i];
            }
        }
    }
}

/* The last link of a node whose end others link to as well, and that was not made here; else the row's
 * length. */
static uint32_t spare_slot(const struct reach *reach, uint32_t node)
{
    const uint32_t *row = row_of(reach->layer, node);
    uint32_t degree = reach->layer->degrees[node];
    if (degree < reach->layer->links) {
        return degree;
    }
    for (uint32_t slot = degree - reach->kept[node]; slot-- > 0;) {
        if (reach->links_to[row[slot]] > 1) {
            return slot;
        }
    }
    return degree;
}

/* Makes `slot` of `from` lead to `node`, and puts it among the links to be kept, at the end. */
static void set_link(struct reach *reach, uint32_t from, uint32_t slot, uint32_t node)
{
    struct vex_build_layer *layer = reach->layer;
    uint32_t *row = row_of(layer, from);
    if (slot == layer->degrees[from]) {
        layer->degrees[from]++;
    } else {
        reach->links_to[row[slot]]--;
    }
    uint32_t last = layer->degrees[from] - 1u - reach->kept[from];
    row[slot] = row[last];
    row[last] = node;
    reach->links_to[node]++;
    reach->kept[from]++;
}

/* Links to `node` from the nearest node met that has a link to spare. */
static void link_from_near(struct vex_graph_worker *worker, struct reach *reach, uint32_t layer,
                           uint32_t node)
{
    const struct vex_beam *beam = &worker->beam;
    uint32_t entries[VEX_BUILD_ENTRIES];
    uint32_t count = vex_build_entries(worker, node, layer, entries);
    vex_build_walk(worker, node, layer, entries, count, worker->build->shape.ef_construction);
    for (uint32_t i = 0; i < beam->count; i++) {
        uint32_t from = beam->nodes[i] & ~VEX_NODE_EXPANDED;
        uint32_t slot = spare_slot(reach, from);
        if (reach->met[from] && slot < reach->layer->links) {
            set_link(reach, from, slot, node);
            spread_from(reach, node);
            return;
        }
    }
}

static void count_links(struct reach *reach, uint32_t nodes_count)
{
    for (uint32_t node = 0; node < nodes_count; node++) {
        const uint32_t *row = row_of(reach->layer, node);
        for (uint32_t i = 0; i < reach->layer->degrees[node]; i++) {
            reach->links_to[row[i]]++;
        }
    }
}

/* Returns how many were met before anything was linked. */
static uint32_t repair_round(struct vex_graph_worker *worker, struct reach *reach, uint32_t layer)
{
    uint32_t nodes = reach->layer->nodes_count;
    uint32_t starts = worker->build->layers[layer + 1].nodes_count;
    memset(reach->met, 0, nodes);
    reach->count = 0;
    for (uint32_t node = 0; node < starts; node++) {
        spread_from(reach, node);
    }
    uint32_t reached = reach->count;
    for (uint32_t node = starts; node < nodes && reach->count < nodes; node++) {
        if (!reach->met[node]) {
            link_from_near(worker, reach, layer, node);
        }
    }
    return reached;
}

static uint32_t repair_layer(struct vex_graph_worker *worker, struct reach *reach, uint32_t layer)
{
    uint32_t nodes = worker->build->layers[layer].nodes_count;
    uint32_t reached = 0;
    reach->layer = &worker->build->layers[layer];
    memset(reach->links_to, 0, nodes * sizeof(*reach->links_to));
    memset(reach->kept, 0, nodes);
    count_links(reach, nodes);
    for (uint32_t round = 0; round < REPAIR_ROUNDS_MAX && reached < nodes; round++) {
        reached = repair_round(worker, reach, layer);
    }
    return reached;
}

/* Without memory to look, the graph stays as insertion left it, and says that nobody looked. */
void vex_build_repair(struct vex_graph_worker *worker)
{
    struct vex_graph_build *build = worker->build;
    struct reach reach = {
        .met = malloc(build->nodes_count),
        .queue = malloc((size_t)build->nodes_count * sizeof(uint32_t)),
        .links_to = malloc((size_t)build->nodes_count * sizeof(uint32_t)),
        .kept = malloc(build->nodes_count),
    };
    if (reach.met && reach.queue && reach.links_to && reach.kept) {
        for (uint32_t layer = build->layers_count - 1; layer-- > 0;) {
            build->head.reached = repair_layer(worker, &reach, layer);
        }
    }
    free(reach.met);
    free(reach.queue);
    free(reach.links_to);
    free(reach.kept);
    double links = 0;
    for (uint32_t node = 0; node < build->nodes_count; node++) {
        links += build->layers[0].degrees[node];
    }
    build->head.mean_degree = (float)(links / build->nodes_count);
}

/* ---- calibration ----------------------------------------------------------------------------- */

struct calibration_room {
    float *query;   /* [padded], if its row is not floats */
    int8_t *values; /* [padded] */
};

/* Takes a row for a query and compares the estimates of its links with the truth: the sum of squared
 * errors, as shares of the lengths. */
static double squared_errors(struct vex_graph_worker *worker, uint32_t node,
                             const struct vex_codes *codes, struct calibration_room *room,
                             double *terms)
{
    const struct vex_graph_build *build = worker->build;
    const struct vex_segment *segment = build->segment;
    const struct vex_build_layer *layer = &build->layers[0];
    const float *query = vex_segment_row(segment, build->row_of[node], room->query);
    double norm = vex_exact_norm(query, segment->dim);
    struct vex_code_target target;
    vex_code_space_query(&build->codes.space, codes, query, norm, worker->rotated, room->values,
                         &target);
    struct vex_score_batch *batch = worker->batch;
    batch->count = layer->degrees[node];
    for (uint32_t i = 0; i < batch->count; i++) {
        uint32_t other = row_of(layer, node)[i];
        batch->nodes[i] = build->row_of[other];
        batch->factors[i] = build->codes.factors[batch->nodes[i]];
    }
    build->kernels->score(&target.code, build->codes.codes, batch);
    double unit = (double)target.length * (double)build->codes.head.mean_length;
    double sum = 0;
    for (uint32_t i = 0; i < batch->count && unit > 0 && target.key_scale > 0; i++) {
        double key = vex_exact_row_key(segment, query, norm, batch->nodes[i]);
        double truth = (key - target.key_offset) / target.key_scale;
        double error = ((double)batch->distances[i] - truth) / unit;
        sum += error * error;
        *terms += 1;
    }
    return sum;
}

void vex_build_calibrate(struct vex_graph_worker *worker)
{
    struct vex_graph_build *build = worker->build;
    if (build->fine) {
        build->head.error_rms = FINE_ERROR_RMS;
        return;
    }
    uint32_t padded = build->codes.space.rotation.padded;
    struct vex_codes codes = {
        .add_unit = build->codes.head.add_unit,
        .rescale_unit = build->codes.head.rescale_unit,
    };
    struct calibration_room room = {aligned_alloc(64, padded * sizeof(float)),
                                    aligned_alloc(64, padded)};
    bool has_room = room.query && room.values;
    double sum = 0;
    double terms = 0;
    for (uint32_t node = 0; has_room && node < build->nodes_count && node < CALIBRATION_NODES;
         node++) {
        sum += squared_errors(worker, node, &codes, &room, &terms);
    }
    free(room.query);
    free(room.values);
    double rms = terms > 0 ? sqrt(sum / terms) : 0;
    /* Without a measurement: what four bits give at worst, at the fewest dimensions. */
    build->head.error_rms = has_room && isfinite(rms) ? (float)rms : 0.1f;
}

/* ---- sections -------------------------------------------------------------------------------- */

static void write_row(const struct vex_graph_build *build, const struct vex_build_layer *layer,
                      uint32_t node, uint32_t *out, const uint32_t *names)
{
    for (uint32_t i = 0; i < layer->links; i++) {
        /* A free slot leads to the node itself, which the walk has met. */
        uint32_t link = i < layer->degrees[node] ? row_of(layer, node)[i] : node;
        out[i] = names ? names[link] : link;
        out[layer->links + i] = build->codes.factors[build->row_of[link]];
    }
}

static void *writable(const struct vex_graph_build *build, const void *part)
{
    return build->writer->base + ((const uint8_t *)part - build->writer->base);
}

void vex_build_freeze(struct vex_graph_build *build, uint32_t node)
{
    struct vex_graph graph;
    struct vex_index_parts parts;
    vex_segment_parts(build->writer, &parts);
    vex_graph_place(&graph, &parts, build->nodes_count, build->layers[0].links,
                    build->codes.space.rotation.padded);
    uint32_t row = build->row_of[node];
    size_t code_bytes = build->codes.space.rotation.padded / 2;
    const struct vex_graph_layer *base = &graph.layers[0];
    write_row(build, &build->layers[0], node, writable(build, base->rows + row * base->row_bytes),
              build->row_of);
    for (uint32_t i = 1; i < build->layers_count && node < build->layers[i].nodes_count; i++) {
        const struct vex_graph_layer *layer = &graph.layers[i];
        memcpy(writable(build, layer->codes + node * code_bytes), base->codes + row * code_bytes,
               code_bytes);
        *(uint32_t *)writable(build, layer->factors + node) = build->codes.factors[row];
        if (layer->rows) {
            write_row(build, &build->layers[i], node,
                      writable(build, layer->rows + node * layer->row_bytes), NULL);
        }
    }
    if (node < build->layers[1].nodes_count) {
        *(uint32_t *)writable(build, graph.entries + node) = row;
    }
}
