#include "index/calibrate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/panic.h"
#include "index/exact.h"

#define SAMPLES_MAX 256u
#define SAMPLES_FEWER_K 10u
#define MISSES_FACTOR (4.0 / 3)
#define ROWS_PER_SAMPLE 32u /* the least: what is taken out must not change what is left */
#define EXACT_AT_ONCE 16u
#define ENOUGH 0.9995 /* more effort than this takes is not measured */
#define DEATH 1u      /* of the rows that are taken out */
#define LADDER_RATIO 1.4
#define EFFORT_MAX 4096u
#define SCRATCH_ALIGNMENT 64u
/* Rows compared by all searches, for each row of the segment: a twentieth of what a build compares. */
#define VISITS_PER_ROW 100u
#define VISITS_LEAST 2000000u

/* A link that is bent, and what it was. */
struct bent {
    uint32_t *link;
    uint32_t *factors;
    uint32_t node;
    uint32_t node_factors;
};

struct calibration {
    struct vex_segment_writer *writer;
    const struct vex_index *index;
    const struct vex_build_pace *pace;
    enum vex_effort_unit unit;
    struct vex_segment segment; /* as the writer's, but with deaths of its own */
    struct vex_view_segment part;
    struct vex_effort effort;
    struct vex_view view;
    _Atomic uint64_t *deaths;
    uint8_t *is_entry; /* [rows]: a search may begin there, so it stays */
    uint32_t samples_count;
    uint32_t samples[SAMPLES_MAX];
    struct bent *bent;
    size_t bent_count;
    size_t bent_capacity;
    struct vex_candidate *heaps; /* [EXACT_AT_ONCE][VEX_EFFORT_K_MAX] */
    float *queries;              /* [EXACT_AT_ONCE][dim] */
    float *row;                  /* [2][dim]: for rows that are not kept as floats */
    uint64_t visits;             /* rows compared so far */
    double reach[SAMPLES_MAX][VEX_EFFORT_COLUMNS]; /* key of the last true neighbour */
    struct vex_effort_block block;
};

/* ---- taking rows out ------------------------------------------------------------------------- */

static void draw_samples(struct calibration *calibration)
{
    const struct vex_graph *graph = &calibration->segment.graph;
    uint32_t rows = calibration->writer->rows;
    uint32_t wanted = rows / ROWS_PER_SAMPLE < SAMPLES_MAX ? rows / ROWS_PER_SAMPLE : SAMPLES_MAX;
    for (uint32_t i = 0; graph->nodes_count && i < graph->layers[1].nodes_count; i++) {
        calibration->is_entry[graph->entries[i]] = 1;
    }
    for (uint64_t draw = 0; calibration->samples_count < wanted && draw < 4 * SAMPLES_MAX; draw++) {
        uint32_t row = (uint32_t)(vex_mix64(draw + 1) % rows);
        if (!calibration->is_entry[row] && !vex_segment_death(&calibration->segment, row)) {
            /* relaxed: nobody else sees these deaths. */
            atomic_store_explicit(&calibration->deaths[row], DEATH, memory_order_relaxed);
            calibration->samples[calibration->samples_count++] = row;
        }
    }
}

static bool note_link(struct calibration *calibration, const struct bent *bent)
{
    if (calibration->bent_count == calibration->bent_capacity) {
        size_t capacity = 2 * calibration->bent_capacity + 4096;
        struct bent *more = realloc(calibration->bent, capacity * sizeof(*more));
        if (!more) {
            return false;
        }
        calibration->bent = more;
        calibration->bent_capacity = capacity;
    }
    calibration->bent[calibration->bent_count++] = *bent;
    return true;
}

static const uint32_t *links_of(const struct vex_graph_layer *layer, uint32_t node)
{
    return (const void *)(layer->rows + node * layer->row_bytes);
}

static bool is_linked(const struct vex_graph_layer *layer, uint32_t from, uint32_t to)
{
    const uint32_t *links = links_of(layer, from);
    bool found = from == to;
    for (uint32_t i = 0; i < layer->links; i++) {
        found |= links[i] == to;
    }
    return found;
}

/* Where a link from `node` to `gone` would lead had `gone` never been there: of its links, to the nearest
 * that `node` has no link to. The node itself if there is none: that one was met already. */
static uint32_t detour(const struct calibration *calibration, uint32_t node, uint32_t gone)
{
    const struct vex_segment *segment = &calibration->segment;
    const struct vex_graph_layer *layer = &segment->graph.layers[0];
    const uint32_t *links = links_of(layer, gone);
    const float *vector = vex_segment_row(segment, node, calibration->row);
    double norm = vex_exact_norm(vector, segment->dim);
    double least = INFINITY;
    uint32_t best = node;
    for (uint32_t i = 0; i < layer->links; i++) {
        if (vex_segment_death(segment, links[i]) || is_linked(layer, node, links[i])) {
            continue;
        }
        /* A graph under dot is one of distances, too. */
        enum vex_metric metric =
            segment->metric == VEX_METRIC_DOT ? VEX_METRIC_L2 : segment->metric;
        const float *other = vex_segment_row(segment, links[i], calibration->row + segment->dim);
        double key = vex_exact_key(metric, vector, norm, other, segment->dim);
        if (key < least) {
            least = key;
            best = links[i];
        }
    }
    return best;
}

/* False if there is no memory. A link to its own node is one to a node that was met already. */
static bool bend_links(struct calibration *calibration)
{
    const struct vex_graph *graph = &calibration->segment.graph;
    const struct vex_graph_layer *layer = &graph->layers[0];
    uint8_t *base = calibration->writer->base;
    for (uint32_t node = 0; node < graph->nodes_count; node++) {
        const uint8_t *row = layer->rows + node * layer->row_bytes;
        uint32_t *links = (void *)(base + (row - base));
        uint32_t *factors = links + layer->links;
        for (uint32_t i = 0; i < layer->links; i++) {
            if (!vex_segment_death(&calibration->segment, links[i])) {
                continue;
            }
            struct bent bent = {&links[i], &factors[i], links[i], factors[i]};
            if (!note_link(calibration, &bent)) {
                return false;
            }
            links[i] = detour(calibration, node, links[i]);
            factors[i] = layer->factors[links[i]];
        }
    }
    return true;
}

static void straighten_links(struct calibration *calibration)
{
    for (size_t i = 0; i < calibration->bent_count; i++) {
        struct bent *bent = &calibration->bent[i];
        *bent->link = bent->node;
        *bent->factors = bent->node_factors;
    }
    calibration->bent_count = 0;
}

/* ---- measuring ------------------------------------------------------------------------------- */

static enum vex_status pause_between(const struct calibration *calibration, struct vex_error *error)
{
    const struct vex_build_pace *pace = calibration->pace;
    return !pace || pace->pause(pace->context)
               ? VEX_OK
               : vex_error_set(error, VEX_ERR_UNAVAILABLE, "given up while measuring recall");
}

static void start_topks(const struct calibration *calibration, uint32_t first, uint32_t count,
                        uint32_t k, struct vex_topk *topks)
{
    uint32_t dim = calibration->segment.dim;
    for (uint32_t i = 0; i < count; i++) {
        const float *row = vex_segment_row(&calibration->segment, calibration->samples[first + i],
                                           calibration->row);
        memcpy(calibration->queries + (size_t)i * dim, row, dim * sizeof(float));
        vex_topk_init(&topks[i], calibration->heaps + (size_t)i * VEX_EFFORT_K_MAX, k);
    }
}

static enum vex_status find_truth(struct calibration *calibration, struct vex_error *error)
{
    struct vex_topk topks[EXACT_AT_ONCE];
    struct vex_search_counters counters = {0};
    enum vex_status status = VEX_OK;
    for (uint32_t first = 0; first < calibration->samples_count && status == VEX_OK;
         first += EXACT_AT_ONCE) {
        uint32_t left = calibration->samples_count - first;
        uint32_t count = left < EXACT_AT_ONCE ? left : EXACT_AT_ONCE;
        start_topks(calibration, first, count, VEX_EFFORT_K_MAX, topks);
        status = vex_index_flat.search(&calibration->view, calibration->queries, count, topks,
                                       &counters, error);
        for (uint32_t i = 0; i < count && status == VEX_OK; i++) {
            vex_topk_finish(&topks[i]);
            VEX_ASSERT(topks[i].count == VEX_EFFORT_K_MAX);
            for (uint32_t column = 0; column < VEX_EFFORT_COLUMNS; column++) {
                calibration->reach[first + i][column] =
                    topks[i].heap[vex_effort_column_k(column) - 1].key;
            }
        }
        status = status == VEX_OK ? pause_between(calibration, error) : status;
    }
    return status;
}

/* Keys are those of exact search to the bit, so "as near as" needs no tolerance. */
static uint32_t count_found(const struct vex_topk *topk, double reach)
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < topk->count; i++) {
        found += topk->heap[i].key <= reach;
    }
    return found;
}

/*
 * The mean over the samples, less its standard error, and with its misses made more by MISSES_FACTOR: real
 * queries lie a little further from the rows than rows do from each other.
 */
static float careful_mean(double sum, double squares, uint32_t count)
{
    double mean = sum / count;
    double variance = fmax(squares / count - mean * mean, 0) / (count - 1);
    return (float)fmax(1 - (1 - mean + sqrt(variance)) * MISSES_FACTOR, 0);
}

static enum vex_status measure(struct calibration *calibration, uint32_t effort, uint32_t column,
                               float *out_recall, struct vex_error *error)
{
    uint32_t k = vex_effort_column_k(column);
    struct vex_search_counters counters = {0};
    double sum = 0;
    double squares = 0;
    /* With more neighbours a query says more, and costs more. */
    uint32_t samples_count = calibration->samples_count;
    samples_count /= k > SAMPLES_FEWER_K ? 4 : 1;
    *(calibration->unit == VEX_EFFORT_UNIT_EF ? &calibration->effort.ef
                                              : &calibration->effort.nprobe) = effort;
    for (uint32_t i = 0; i < samples_count; i++) {
        struct vex_topk topk;
        start_topks(calibration, i, 1, k, &topk);
        enum vex_status status = calibration->index->search(
            &calibration->view, calibration->queries, 1, &topk, &counters, error);
        if (status != VEX_OK) {
            return status;
        }
        double share = (double)count_found(&topk, calibration->reach[i][column]) / k;
        sum += share;
        squares += share * share;
    }
    calibration->visits += counters.rows_visited;
    *out_recall = careful_mean(sum, squares, samples_count);
    return pause_between(calibration, error);
}

static uint32_t next_effort(uint32_t effort)
{
    uint32_t next = (uint32_t)(effort * LADDER_RATIO);
    return next > effort ? next : effort + 1;
}

static bool is_over_budget(const struct calibration *calibration)
{
    uint64_t budget = (uint64_t)calibration->writer->rows * VISITS_PER_ROW;
    return calibration->visits > (budget > VISITS_LEAST ? budget : VISITS_LEAST);
}

/* From the least effort up, until every k finds all there is or it takes too long. */
static enum vex_status climb(struct calibration *calibration, struct vex_error *error)
{
    struct vex_effort_block *block = &calibration->block;
    bool is_enough = false;
    for (uint32_t effort = 1; !is_enough && block->steps_count < VEX_EFFORT_STEPS_MAX &&
                              effort <= EFFORT_MAX && !is_over_budget(calibration);
         effort = next_effort(effort)) {
        struct vex_effort_step *step = &block->steps[block->steps_count];
        const struct vex_effort_step *before = block->steps_count ? step - 1 : NULL;
        step->effort = effort;
        is_enough = true;
        for (uint32_t column = 0; column < VEX_EFFORT_COLUMNS; column++) {
            /* What is enough stays so; and a graph keeps at least k anyway. */
            bool is_known = before && (before->recalls[column] >= (float)ENOUGH ||
                                       (calibration->unit == VEX_EFFORT_UNIT_EF &&
                                        effort <= vex_effort_column_k(column)));
            enum vex_status status = VEX_OK;
            if (is_known) {
                step->recalls[column] = before->recalls[column];
            } else {
                status = measure(calibration, effort, column, &step->recalls[column], error);
            }
            if (status != VEX_OK) {
                return status;
            }
            is_enough = is_enough && step->recalls[column] >= (float)ENOUGH;
        }
        block->steps_count++;
    }
    return VEX_OK;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static bool init(struct calibration *calibration, const struct vex_segment_writer *writer)
{
    uint32_t rows = writer->rows;
    uint32_t dim = writer->segment.dim;
    calibration->deaths = calloc(rows, sizeof(*calibration->deaths));
    calibration->is_entry = calloc(rows, sizeof(*calibration->is_entry));
    calibration->heaps =
        malloc((size_t)EXACT_AT_ONCE * VEX_EFFORT_K_MAX * sizeof(*calibration->heaps));
    calibration->queries = malloc((size_t)EXACT_AT_ONCE * dim * sizeof(float));
    calibration->row = malloc((size_t)2 * dim * sizeof(float));
    calibration->effort.scratch_bytes = vex_round_up(
        vex_effort_scratch_bytes(dim, EFFORT_MAX, VEX_EFFORT_K_MAX), SCRATCH_ALIGNMENT);
    calibration->effort.scratch =
        aligned_alloc(SCRATCH_ALIGNMENT, calibration->effort.scratch_bytes);
    if (!calibration->deaths || !calibration->is_entry || !calibration->heaps ||
        !calibration->queries || !calibration->row || !calibration->effort.scratch) {
        return false;
    }
    calibration->segment = writer->segment;
    calibration->segment.deaths = calibration->deaths;
    calibration->part = (struct vex_view_segment){&calibration->segment, rows};
    calibration->view = (struct vex_view){
        .segments = &calibration->part,
        .segments_count = 1,
        .dim = dim,
        .metric = writer->segment.metric,
        .lsn = DEATH,
        .effort = &calibration->effort,
    };
    draw_samples(calibration);
    return bend_links(calibration);
}

static void deinit(struct calibration *calibration)
{
    straighten_links(calibration);
    free(calibration->bent);
    free((void *)(uintptr_t)calibration->deaths);
    free(calibration->is_entry);
    free(calibration->heaps);
    free(calibration->queries);
    free(calibration->row);
    free(calibration->effort.scratch);
}

static void store(const struct calibration *calibration, const struct vex_index_parts *parts)
{
    struct vex_segment_writer *writer = calibration->writer;
    memcpy(writer->base + (parts->start[VEX_PART_EFFORT] - writer->base), &calibration->block,
           sizeof(calibration->block));
    vex_segment_attach_again(writer);
}

enum vex_status vex_calibrate(struct vex_segment_writer *writer, const struct vex_index *index,
                              enum vex_effort_unit unit, const struct vex_build_pace *pace,
                              struct vex_error *error)
{
    struct vex_index_parts parts;
    vex_segment_parts(writer, &parts);
    if (writer->rows < VEX_CALIBRATE_ROWS_MIN || !parts.start[VEX_PART_EFFORT]) {
        return VEX_OK;
    }
    struct calibration *calibration = calloc(1, sizeof(*calibration));
    if (!calibration) {
        return vex_error_set(error, VEX_ERR_NOMEM, "out of memory to measure recall");
    }
    calibration->writer = writer;
    calibration->index = index;
    calibration->pace = pace;
    calibration->unit = unit;
    enum vex_status status = VEX_OK;
    if (!init(calibration, writer)) {
        status = vex_error_set(error, VEX_ERR_NOMEM,
                               "out of memory to measure the recall of %u rows", writer->rows);
    }
    status = status == VEX_OK ? find_truth(calibration, error) : status;
    status = status == VEX_OK ? climb(calibration, error) : status;
    deinit(calibration);
    if (status == VEX_OK) {
        calibration->block.magic = VEX_EFFORT_MAGIC;
        calibration->block.version = VEX_EFFORT_VERSION;
        calibration->block.unit = unit;
        calibration->block.samples_count = calibration->samples_count;
        store(calibration, &parts);
    }
    free(calibration);
    return status;
}
