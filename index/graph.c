#include "index/graph.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "index/segment.h"

#define LINE_BYTES 64u
#define LAYER_RATIO 32u    /* a layer has so many times the nodes of the one above */
#define TOP_NODES_MAX 512u /* all scored at every search */
#define BYTES_PER_LINK 8u  /* node and factors */

_Static_assert(sizeof(struct vex_graph_head) == 64, "on disk");

/* ---- layout ---------------------------------------------------------------------------------- */

bool vex_graph_shape_is_sound(const struct vex_graph_shape *shape)
{
    return shape->m == 0 ||
           (shape->m >= 2 && shape->m <= VEX_GRAPH_M_MAX && shape->ef_construction >= 1 &&
            shape->ef_construction <= VEX_GRAPH_EF_CONSTRUCTION_MAX);
}

/*
 * Twice m, as in HNSW. Three times m is a tenth to a third faster at recall 0.99 and no faster at 0.95,
 * for 128 bytes more a row at the default m: that is what a larger m is for.
 */
uint32_t vex_graph_links(const struct vex_graph_shape *shape)
{
    return (uint32_t)vex_round_up(2 * (uint64_t)shape->m, VEX_LINKS_STEP);
}

uint32_t vex_graph_upper_links(uint32_t links)
{
    return (uint32_t)vex_round_up(links / 2, VEX_LINKS_STEP);
}

uint32_t vex_graph_layers(uint32_t nodes_count, uint32_t out_nodes[VEX_GRAPH_LAYERS_MAX])
{
    uint32_t count = 0;
    out_nodes[count++] = nodes_count;
    do {
        uint32_t next = out_nodes[count - 1] / LAYER_RATIO;
        out_nodes[count++] = next > 0 ? next : 1;
    } while (out_nodes[count - 1] > TOP_NODES_MAX);
    return count;
}

/* What an upper layer holds, one behind the other; the topmost has no rows. */
struct upper_layout {
    uint64_t codes_offset;
    uint64_t rows_offset;
    uint64_t factors_offset;
};

/* Returns the bytes of all upper layers and the entries, which come first. */
static uint64_t lay_out_upper(uint32_t nodes_count, uint32_t links, uint32_t padded,
                              struct upper_layout out[VEX_GRAPH_LAYERS_MAX])
{
    uint32_t nodes[VEX_GRAPH_LAYERS_MAX];
    uint32_t layers = vex_graph_layers(nodes_count, nodes);
    uint64_t bytes = vex_round_up((uint64_t)nodes[1] * sizeof(uint32_t), LINE_BYTES);
    for (uint32_t layer = 1; layer < layers; layer++) {
        uint64_t count = nodes[layer];
        out[layer].codes_offset = bytes;
        bytes += count * (padded / 2);
        out[layer].rows_offset = bytes;
        bytes += layer + 1 < layers ? count * vex_graph_upper_links(links) * BYTES_PER_LINK : 0;
        out[layer].factors_offset = bytes;
        bytes = vex_round_up(bytes + count * sizeof(uint32_t), LINE_BYTES);
    }
    return bytes;
}

struct vex_part_size vex_graph_part_size(enum vex_index_part part,
                                         const struct vex_graph_shape *shape, uint32_t dim,
                                         uint32_t nodes_count)
{
    struct upper_layout upper[VEX_GRAPH_LAYERS_MAX];
    uint32_t links = vex_graph_links(shape);
    const struct vex_part_size sizes[VEX_PARTS_COUNT] = {
        [VEX_PART_GRAPH_HEAD] = {0, sizeof(struct vex_graph_head)},
        [VEX_PART_GRAPH_ROWS] = {links * BYTES_PER_LINK, 0},
        [VEX_PART_GRAPH_UPPER] = {0,
                                  lay_out_upper(nodes_count, links, vex_code_padded(dim), upper)},
    };
    return sizes[part];
}

/* ---- attach ---------------------------------------------------------------------------------- */

static const char *head_fault(const struct vex_graph_head *head, const struct vex_codes *codes,
                              uint32_t capacity_rows)
{
    if (head->nodes_count < 1 || head->nodes_count > capacity_rows) {
        return "its nodes are more than the rows";
    }
    if (head->nodes_count > codes->count) {
        return "its nodes have no codes";
    }
    if (head->links < VEX_LINKS_STEP || head->links > VEX_LINKS_MAX ||
        head->links % VEX_LINKS_STEP != 0 ||
        head->upper_links != vex_graph_upper_links(head->links)) {
        return "its links are out of bounds";
    }
    uint32_t nodes[VEX_GRAPH_LAYERS_MAX];
    if (head->padded != codes->padded ||
        head->layers_count != vex_graph_layers(head->nodes_count, nodes)) {
        return "its layers or codes do not fit the rows";
    }
    if (!(head->error_rms >= 0)) {
        return "its error is not a number";
    }
    return NULL;
}

static bool parts_hold(const struct vex_graph_head *head, const struct vex_index_parts *parts,
                       uint64_t upper_bytes)
{
    uint64_t rows = (uint64_t)head->nodes_count * head->links * BYTES_PER_LINK;
    return parts->bytes[VEX_PART_GRAPH_ROWS] >= rows &&
           parts->bytes[VEX_PART_GRAPH_UPPER] >= upper_bytes;
}

void vex_graph_place(struct vex_graph *out, const struct vex_index_parts *parts,
                     uint32_t nodes_count, uint32_t links, uint32_t padded)
{
    struct upper_layout upper[VEX_GRAPH_LAYERS_MAX];
    uint32_t nodes[VEX_GRAPH_LAYERS_MAX];
    const uint8_t *base = parts->start[VEX_PART_GRAPH_UPPER];
    (void)lay_out_upper(nodes_count, links, padded, upper);
    *out = (struct vex_graph){
        .nodes_count = nodes_count,
        .padded = padded,
        .layers_count = vex_graph_layers(nodes_count, nodes),
        .entries = (const void *)base,
    };
    out->layers[0] = (struct vex_graph_layer){
        .nodes_count = nodes_count,
        .links = links,
        .row_bytes = links * BYTES_PER_LINK,
        .rows = parts->start[VEX_PART_GRAPH_ROWS],
        .codes = parts->start[VEX_PART_CODES],
        .factors = (const void *)parts->start[VEX_PART_CODE_FACTORS],
    };
    for (uint32_t layer = 1; layer < out->layers_count; layer++) {
        bool is_top = layer + 1 == out->layers_count;
        out->layers[layer] = (struct vex_graph_layer){
            .nodes_count = nodes[layer],
            .links = vex_graph_upper_links(links),
            .row_bytes = vex_graph_upper_links(links) * BYTES_PER_LINK,
            .rows = is_top ? NULL : base + upper[layer].rows_offset,
            .codes = base + upper[layer].codes_offset,
            .factors = (const void *)(base + upper[layer].factors_offset),
        };
    }
}

enum vex_status vex_graph_attach(struct vex_graph *out, const struct vex_index_parts *parts,
                                 const struct vex_codes *codes, uint32_t capacity_rows,
                                 struct vex_error *error)
{
    struct vex_graph_head head;
    memset(out, 0, sizeof(*out));
    enum vex_status status = vex_part_head(
        parts, VEX_PART_GRAPH_HEAD, "graph",
        &(struct vex_part_mark){VEX_GRAPH_MAGIC, VEX_GRAPH_VERSION}, &head, sizeof(head), error);
    if (status != VEX_OK || head.magic == 0) {
        return status;
    }
    const char *fault = head_fault(&head, codes, capacity_rows);
    if (fault) {
        return vex_error_set(error, VEX_ERR_CORRUPT, "graph: %s", fault);
    }
    struct upper_layout upper[VEX_GRAPH_LAYERS_MAX];
    uint64_t upper_bytes = lay_out_upper(head.nodes_count, head.links, head.padded, upper);
    if (!parts_hold(&head, parts, upper_bytes)) {
        return vex_error_set(error, VEX_ERR_CORRUPT, "graph: a section is missing or too short");
    }
    vex_graph_place(out, parts, head.nodes_count, head.links, head.padded);
    out->error_rms = head.error_rms;
    return VEX_OK;
}

/* ---- checks ---------------------------------------------------------------------------------- */

static const uint32_t *links_of(const struct vex_graph_layer *layer, uint32_t node)
{
    return (const void *)(layer->rows + node * layer->row_bytes);
}

static enum vex_status check_links(const struct vex_graph_layer *layer, uint32_t number,
                                   struct vex_error *error)
{
    for (uint32_t node = 0; layer->rows && node < layer->nodes_count; node++) {
        const uint32_t *links = links_of(layer, node);
        for (uint32_t i = 0; i < layer->links; i++) {
            if (links[i] >= layer->nodes_count) {
                return vex_error_set(error, VEX_ERR_CORRUPT,
                                     "graph: layer %u: a link of node %u leads to node %u of %u",
                                     number, node, links[i], layer->nodes_count);
            }
        }
    }
    return VEX_OK;
}

/* How many nodes of a layer can be come to from those of the layer above. */
static uint32_t count_reached(const struct vex_graph *graph, uint32_t number, uint8_t *seen,
                              uint32_t *queue)
{
    const struct vex_graph_layer *layer = &graph->layers[number];
    uint32_t starts = graph->layers[number + 1].nodes_count;
    uint32_t count = 0;
    memset(seen, 0, layer->nodes_count);
    for (uint32_t i = 0; i < starts; i++) {
        uint32_t node = number == 0 ? graph->entries[i] : i;
        if (!seen[node]) {
            seen[node] = 1;
            queue[count++] = node;
        }
    }
    for (uint32_t head = 0; head < count; head++) {
        const uint32_t *links = links_of(layer, queue[head]);
        for (uint32_t i = 0; i < layer->links; i++) {
            if (!seen[links[i]]) {
                seen[links[i]] = 1;
                queue[count++] = links[i];
            }
        }
    }
    return count;
}

static enum vex_status check_reach(const struct vex_graph *graph, struct vex_error *error)
{
    uint8_t *seen = malloc(graph->nodes_count);
    uint32_t *queue = malloc((size_t)graph->nodes_count * sizeof(*queue));
    enum vex_status status = VEX_OK;
    if (!seen || !queue) {
        status = vex_error_set(error, VEX_ERR_NOMEM, "graph: out of memory to check %u nodes",
                               graph->nodes_count);
    }
    for (uint32_t layer = graph->layers_count - 1; status == VEX_OK && layer-- > 0;) {
        uint32_t reached = count_reached(graph, layer, seen, queue);
        if (reached < graph->layers[layer].nodes_count) {
            status = vex_error_set(error, VEX_ERR_CORRUPT,
                                   "graph: layer %u: only %u of %u nodes can be reached", layer,
                                   reached, graph->layers[layer].nodes_count);
        }
    }
    free(seen);
    free(queue);
    return status;
}

enum vex_status vex_graph_validate(const struct vex_segment *segment, struct vex_error *error)
{
    const struct vex_graph *graph = &segment->graph;
    if (graph->nodes_count == 0) {
        return VEX_OK;
    }
    for (uint32_t i = 0; i < graph->layers[1].nodes_count; i++) {
        if (graph->entries[i] >= graph->nodes_count) {
            return vex_error_set(error, VEX_ERR_CORRUPT, "graph: entry %u is node %u of %u", i,
                                 graph->entries[i], graph->nodes_count);
        }
    }
    for (uint32_t layer = 0; layer < graph->layers_count; layer++) {
        enum vex_status status = check_links(&graph->layers[layer], layer, error);
        if (status != VEX_OK) {
            return status;
        }
    }
    return check_reach(graph, error);
}
