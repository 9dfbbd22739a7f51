/*
 * The walk.
 *
 * Two nodes are expanded at a time, so that the lines of both rows' codes are under way together.
 * A step first names the links not met before and asks memory for their codes, then asks for the
 * rows that will be expanded next, and only then scores: by that time the codes have arrived, and
 * the rows arrive meanwhile.
 *
 * What has been met is kept in a small table of whole numbers of nodes, one slot each, overwritten
 * on collision. It may forget: the node is then scored again, gets the same estimate to the bit
 * (factors on links are those of the node, wherever the link is), and the beam refuses it.
 *
 * Where codes are blurred (code_set.h) the same walk goes by the vectors, in single precision.
 *
 * Damaged links: a node's number is bounded as it is read, estimates that are not numbers compare
 * false and go nowhere, and steps are limited. A walk thus ends, and reads only the graph.
 */
#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/panic.h"
#include "index/code_space.h"
#include "index/exact.h"
#include "index/fetch.h"
#include "index/segment.h"

#define LINE_BYTES 64u
#define ENTRY_BEAM_MAX 8u /* kept on the way down */
#define EF_PER_ENTRY 16u
#define ENTRY_TAGS 1024u
#define RANK_GROUP 4u         /* vectors ranked together */
#define FETCH_ROW_BYTES 1024u /* of one vector: the processor goes on by itself */
#define RANK_AHEAD 6u         /* vectors fetched ahead of being ranked */
#define ERROR_SIGMAS 4.0f     /* by which an estimate may be wrong */
#define WIDER_TIMES 3u        /* what a short walk that was too short keeps, in what it kept */
#define STEPS_PER_EF 8u       /* many times what a sound graph needs */
#define STEPS_LEAST 512u

struct scratch {
    float *rotated;
    int8_t *values;
    float *distances;
    uint32_t *nodes;
    uint32_t *tags;
    struct vex_score_batch *batch;
};

/* For a walk by the vectors themselves, where codes are blurred (code_set.h). */
struct fine {
    const struct vex_segment *segment;
    const struct vex_kernels *kernels;
    const struct vex_code_target *target;
    const float *query;
    float query_norm;
    float *buffer; /* for a row that is stored as something else */
};

struct walk {
    const struct vex_graph_kernels *kernels;
    const struct fine *fine; /* NULL: by the codes */
    const uint32_t *row_of;  /* of the layer's nodes; NULL: they are the rows */
    const struct vex_graph_layer *layer;
    const struct vex_code_query *query;
    struct vex_beam beam;
    struct vex_score_batch *batch;
    uint32_t *tags;
    uint32_t tags_mask;
    size_t code_bytes;
    uint64_t steps;
    uint64_t scored;
};

/* ---- scratch --------------------------------------------------------------------------------- */

static uint32_t tags_for(uint32_t ef)
{
    return ef <= 80 ? 4096 : ef <= 200 ? 8192 : ef <= 1000 ? 16384 : 65536;
}

static size_t take(size_t *used, size_t bytes)
{
    size_t offset = *used;
    *used += vex_round_up(bytes, LINE_BYTES);
    return offset;
}

struct scratch_layout {
    size_t rotated;
    size_t values;
    size_t distances;
    size_t nodes;
    size_t tags;
    size_t batch;
    size_t bytes;
};

static struct scratch_layout lay_out_scratch(uint32_t padded, uint32_t ef)
{
    struct scratch_layout layout = {0};
    size_t used = 0;
    layout.rotated = take(&used, padded * sizeof(float));
    layout.values = take(&used, padded);
    layout.distances = take(&used, (ef + VEX_BATCH_PAD) * sizeof(float));
    layout.nodes = take(&used, (ef + VEX_BATCH_PAD) * sizeof(uint32_t));
    layout.tags = take(&used, tags_for(ef) * sizeof(uint32_t));
    layout.batch = take(&used, sizeof(struct vex_score_batch));
    layout.bytes = used;
    return layout;
}

static struct scratch place_scratch(void *memory, uint32_t padded, uint32_t ef)
{
    struct scratch_layout layout = lay_out_scratch(padded, ef);
    uint8_t *base = memory;
    return (struct scratch){
        .rotated = (void *)(base + layout.rotated),
        .values = (void *)(base + layout.values),
        .distances = (void *)(base + layout.distances),
        .nodes = (void *)(base + layout.nodes),
        .tags = (void *)(base + layout.tags),
        .batch = (void *)(base + layout.batch),
    };
}

size_t vex_graph_scratch_bytes(uint32_t dim, uint32_t ef)
{
    return lay_out_scratch(vex_code_padded(dim), ef).bytes;
}

/* ---- walk ------------------------------------------------------------------------------------ */

static void start_beam(struct walk *walk, float *distances, uint32_t *nodes, uint32_t capacity)
{
    for (uint32_t i = 0; i < capacity + VEX_BATCH_PAD; i++) {
        distances[i] = INFINITY;
    }
    walk->beam = (struct vex_beam){
        .distances = distances,
        .nodes = nodes,
        .capacity = capacity,
        .rows = walk->layer->rows,
        .row_bytes = walk->layer->rows ? walk->layer->row_bytes : 0,
    };
}

/* A key in single precision as an estimate of the squared distance that codes speak of. */
static float estimate_row(const struct fine *fine, uint32_t row)
{
    const struct vex_segment *segment = fine->segment;
    const float *vector = vex_segment_row(segment, row, fine->buffer);
    float key = 0;
    if (segment->metric == VEX_METRIC_L2) {
        fine->kernels->l2_rows(fine->query, vector, segment->stride_floats, 1, segment->dim, &key);
    } else {
        fine->kernels->dot_rows(fine->query, vector, segment->stride_floats, 1, segment->dim, &key);
        key = segment->metric == VEX_METRIC_DOT
                  ? -key
                  : 1 - key / (fine->query_norm * segment->norms[row]);
    }
    return (float)(((double)key - fine->target->key_offset) / fine->target->key_scale);
}

static void score(struct walk *walk)
{
    struct vex_score_batch *batch = walk->batch;
    if (walk->fine) {
        uint32_t last = walk->fine->segment->graph.nodes_count - 1;
        for (uint32_t i = 0; i < batch->count; i++) {
            uint32_t row = walk->row_of ? walk->row_of[batch->nodes[i]] : batch->nodes[i];
            batch->distances[i] = estimate_row(walk->fine, row < last ? row : last);
        }
    } else {
        walk->kernels->score(walk->query, walk->layer->codes, batch);
    }
    walk->kernels->offer(&walk->beam, batch);
    walk->scored += batch->count;
}

static void forget(struct walk *walk, uint32_t *tags, uint32_t count)
{
    walk->tags = tags;
    walk->tags_mask = count - 1;
    memset(tags, 0xff, count * sizeof(*tags));
}

/*
 * Takes nodes that were not met yet into the batch; without a branch, which would be a coin's toss.
 * Numbers are bounded here, once for all that follows. Returns how many the batch holds then.
 */
static uint32_t meet(const struct walk *walk, const uint32_t *restrict nodes,
                     const uint32_t *restrict factors, uint32_t nodes_count)
{
    uint32_t *restrict tags = walk->tags;
    uint32_t *restrict out_nodes = walk->batch->nodes;
    uint32_t *restrict out_factors = walk->batch->factors;
    uint32_t mask = walk->tags_mask;
    uint32_t last = walk->layer->nodes_count - 1;
    uint32_t count = walk->batch->count;
    for (uint32_t i = 0; i < nodes_count; i++) {
        uint32_t node = nodes[i] < last ? nodes[i] : last;
        uint32_t is_new = tags[node & mask] != node;
        tags[node & mask] = node;
        out_nodes[count] = node;
        out_factors[count] = factors[i];
        count += is_new;
    }
    return count;
}

static void collect(struct walk *walk, uint32_t node)
{
    const struct vex_graph_layer *layer = walk->layer;
    const uint32_t *links = (const void *)(layer->rows + node * layer->row_bytes);
    uint32_t before = walk->batch->count;
    uint32_t count = meet(walk, links, links + layer->links, layer->links);
    walk->batch->count = count;
    for (uint32_t i = before; i < count && !walk->fine; i++) {
        vex_fetch(layer->codes + walk->batch->nodes[i] * walk->code_bytes, walk->code_bytes);
    }
}

/* Begins in a layer with nodes that are in it. */
static void begin_with(struct walk *walk, const uint32_t *nodes, uint32_t count)
{
    walk->batch->count = 0;
    for (uint32_t i = 0; i < count; i++) {
        walk->batch->count = meet(walk, nodes + i, walk->layer->factors + nodes[i], 1);
    }
    score(walk);
}

/* The nearest node not yet expanded, marked as expanded; false if there is none. */
static bool next_node(struct vex_beam *beam, uint32_t *out)
{
    while (beam->cursor < beam->count) {
        uint32_t node = beam->nodes[beam->cursor];
        if (!(node & VEX_NODE_EXPANDED)) {
            beam->nodes[beam->cursor++] = node | VEX_NODE_EXPANDED;
            *out = node;
            return true;
        }
        beam->cursor++;
    }
    return false;
}

static void fetch_next_rows(const struct vex_beam *beam)
{
    uint32_t found = 0;
    for (uint32_t i = beam->cursor; i < beam->count && found < VEX_EXPAND_COUNT; i++) {
        if (!(beam->nodes[i] & VEX_NODE_EXPANDED)) {
            vex_fetch(beam->rows + beam->nodes[i] * beam->row_bytes, beam->row_bytes);
            found++;
        }
    }
}

/* From what is in the beam to what is nearest. */
static void run(struct walk *walk)
{
    uint64_t steps_max = walk->steps + STEPS_LEAST + (uint64_t)STEPS_PER_EF * walk->beam.capacity;
    while (walk->steps < steps_max) {
        uint32_t node;
        uint32_t expanded = 0;
        walk->batch->count = 0;
        while (expanded < VEX_EXPAND_COUNT && next_node(&walk->beam, &node)) {
            collect(walk, node);
            expanded++;
        }
        if (expanded == 0) {
            return;
        }
        walk->steps += expanded;
        fetch_next_rows(&walk->beam);
        score(walk);
    }
}

/* ---- entry ----------------------------------------------------------------------------------- */

static void scan_top(struct walk *walk)
{
    const struct vex_graph_layer *layer = walk->layer;
    for (uint32_t first = 0; first < layer->nodes_count; first += VEX_BATCH_MAX) {
        uint32_t left = layer->nodes_count - first;
        walk->batch->count = left < VEX_BATCH_MAX ? left : VEX_BATCH_MAX;
        for (uint32_t i = 0; i < walk->batch->count; i++) {
            walk->batch->nodes[i] = first + i;
            walk->batch->factors[i] = layer->factors[first + i];
        }
        score(walk);
    }
}

static uint32_t take_beam(const struct walk *walk, uint32_t out[ENTRY_BEAM_MAX])
{
    for (uint32_t i = 0; i < walk->beam.count; i++) {
        out[i] = walk->beam.nodes[i] & ~VEX_NODE_EXPANDED;
    }
    return walk->beam.count;
}

/*
 * Finds nodes to begin with in the base layer; returns how many. One is enough where rows lie evenly;
 * among clusters several are the way out of a wrong one, so there are more the more effort is wanted.
 */
static uint32_t descend(struct walk *walk, const struct vex_graph *graph, uint32_t *tags,
                        uint32_t ef, uint32_t out[ENTRY_BEAM_MAX])
{
    float distances[ENTRY_BEAM_MAX + VEX_BATCH_PAD];
    uint32_t nodes[ENTRY_BEAM_MAX + VEX_BATCH_PAD];
    uint32_t layer = graph->layers_count - 1;
    uint32_t capacity = ef / EF_PER_ENTRY;
    capacity = capacity < 1 ? 1 : capacity > ENTRY_BEAM_MAX ? ENTRY_BEAM_MAX : capacity;
    walk->row_of = graph->entries;
    walk->layer = &graph->layers[layer];
    start_beam(walk, distances, nodes, capacity);
    scan_top(walk);
    uint32_t count = take_beam(walk, out);
    while (--layer > 0) {
        walk->layer = &graph->layers[layer];
        forget(walk, tags, ENTRY_TAGS);
        start_beam(walk, distances, nodes, capacity);
        begin_with(walk, out, count);
        run(walk);
        count = take_beam(walk, out);
    }
    uint32_t last = graph->nodes_count - 1;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t node = graph->entries[out[i]];
        out[i] = node < last ? node : last;
    }
    return count;
}

static void walk_base(struct walk *walk, const struct vex_graph *graph,
                      const struct scratch *scratch, uint32_t ef)
{
    uint32_t entries[ENTRY_BEAM_MAX];
    uint32_t count = descend(walk, graph, scratch->tags, ef, entries);
    walk->row_of = NULL;
    walk->layer = &graph->layers[0];
    walk->steps = 0;
    forget(walk, scratch->tags, tags_for(ef));
    start_beam(walk, scratch->distances, scratch->nodes, ef);
    begin_with(walk, entries, count);
    run(walk);
}

/* ---- ranking --------------------------------------------------------------------------------- */

static bool counts(const struct vex_graph_query *query, uint32_t row)
{
    return row < query->visible_rows && vex_segment_alive(query->segment, row, query->lsn);
}

static void fetch_row(const struct vex_graph_query *query, uint32_t row)
{
    size_t bytes = query->segment->row_bytes;
    vex_fetch(vex_segment_stored(query->segment, row),
              bytes < FETCH_ROW_BYTES ? bytes : FETCH_ROW_BYTES);
}

struct ranking {
    const struct vex_graph_query *query;
    struct vex_topk *topk;
    double query_norm;
    uint32_t rows[RANK_GROUP];
    uint32_t count;
    uint64_t ranked;
};

static void rank_group(struct ranking *ranking)
{
    const struct vex_segment *segment = ranking->query->segment;
    double keys[RANK_GROUP];
    for (uint32_t i = ranking->count; i < RANK_GROUP; i++) {
        ranking->rows[i] = ranking->rows[0];
    }
    vex_exact_row_keys(segment, ranking->query->query, ranking->query_norm, ranking->rows, keys);
    for (uint32_t i = 0; i < ranking->count; i++) {
        struct vex_candidate candidate = {
            .key = keys[i],
            .id = segment->ids[ranking->rows[i]],
            .segment = ranking->query->segment_index,
            .row = ranking->rows[i],
        };
        vex_topk_offer(ranking->topk, &candidate);
    }
    ranking->ranked += ranking->count;
    ranking->count = 0;
}

/*
 * In the order of estimates, until none can make it any more. Returns how many count, of at least
 * `wanted`: so many are looked for behind the last that can make it.
 */
static uint32_t rank(struct ranking *ranking, const struct vex_beam *beam,
                     const struct vex_code_target *target, uint32_t wanted)
{
    const struct vex_graph_query *query = ranking->query;
    const struct vex_segment *segment = query->segment;
    float slack =
        ERROR_SIGMAS * segment->graph.error_rms * target->length * segment->codes.mean_length;
    uint32_t found = 0;
    uint32_t ahead = wanted ? RANK_AHEAD : 1; /* after a short walk nearly none can make it */
    for (uint32_t i = 0; i < beam->count && i < ahead; i++) {
        fetch_row(query, beam->nodes[i] & ~VEX_NODE_EXPANDED);
    }
    for (uint32_t i = 0; i < beam->count; i++) {
        double least =
            target->key_scale * ((double)beam->distances[i] - (double)slack) + target->key_offset;
        bool is_late = least > vex_topk_threshold(ranking->topk);
        if (is_late && found >= wanted) {
            break;
        }
        if (i + ahead < beam->count) {
            fetch_row(query, beam->nodes[i + ahead] & ~VEX_NODE_EXPANDED);
        }
        uint32_t row = beam->nodes[i] & ~VEX_NODE_EXPANDED;
        if (!counts(query, row)) {
            continue;
        }
        found++;
        if (is_late) {
            continue;
        }
        ranking->rows[ranking->count++] = row;
        if (ranking->count == RANK_GROUP) {
            rank_group(ranking);
        }
    }
    if (ranking->count > 0) {
        rank_group(ranking);
    }
    return found;
}

/* Whether a short walk has seen the end of what can make it: what it kept is not mostly nearer than that. */
static bool is_enough(const struct walk *walk, const struct vex_code_target *target,
                      const struct vex_topk *topk)
{
    const struct vex_beam *beam = &walk->beam;
    if (beam->count < beam->capacity) {
        return true; /* there is no more to reach */
    }
    double farthest = vex_topk_threshold(topk);
    float middle = beam->distances[beam->count / 2];
    return target->key_scale * (double)middle + target->key_offset > farthest;
}

uint32_t vex_graph_search(const struct vex_graph_query *query, struct vex_topk *topk,
                          struct vex_graph_counters *counters)
{
    const struct vex_graph *graph = &query->segment->graph;
    VEX_ASSERT(graph->nodes_count > 0);
    uint32_t ef = query->ef > topk->k ? query->ef : topk->k;
    struct scratch scratch = place_scratch(query->scratch, graph->padded, ef);
    struct vex_code_space space = vex_code_space_of(query->segment);
    struct vex_code_target target;
    double query_norm = vex_exact_norm(query->query, query->segment->dim);
    vex_code_space_query(&space, &query->segment->codes, query->query, query_norm, scratch.rotated,
                         scratch.values, &target);
    const struct fine fine = {
        .segment = query->segment,
        .kernels = space.kernels,
        .target = &target,
        .query = query->query,
        .query_norm = (float)query_norm,
        .buffer = scratch.rotated, /* which nobody needs any more */
    };
    struct walk walk = {
        .kernels = space.kernels->graph,
        .fine = query->segment->codes.blur > VEX_CODES_BLUR_MAX ? &fine : NULL,
        .query = &target.code,
        .batch = scratch.batch,
        .code_bytes = graph->padded / 2,
    };
    bool is_short = query->ef_first && query->ef_first < ef && topk->count == topk->k;
    uint32_t kept = is_short ? query->ef_first : ef;
    walk_base(&walk, graph, &scratch, kept);
    counters->steps += walk.steps;
    while (kept < ef && !is_enough(&walk, &target, topk)) {
        kept = kept < ef / WIDER_TIMES ? kept * WIDER_TIMES : ef;
        walk_base(&walk, graph, &scratch, kept);
        counters->steps += walk.steps;
    }
    counters->scored += walk.scored;
    struct ranking ranking = {.query = query, .topk = topk, .query_norm = query_norm};
    uint32_t found = rank(&ranking, &walk.beam, &target, kept < ef ? 0 : topk->k);
    counters->ranked += ranking.ranked;
    /* A walk whose estimates are all beyond a float has kept nothing, and says nothing about what is near. */
    return kept < ef && walk.beam.count > 0 ? topk->k : found;
}
