#include "index/graph_build.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/panic.h"
#include "index/exact.h"
#include "index/graph_build_priv.h"

#define ENCODE_CHUNK 64u /* nodes handed out at once: a few milliseconds at most */
#define INSERT_CHUNK 8u
#define BYTES_LIMIT 63    /* of a byte, so that a difference is one too */
#define BYTES_SIGMAS 4.5f /* of a coordinate of a long vector, to be represented */
#define LONG_VECTOR 0.99f /* quantile of lengths */
#define REST_STRETCH 1.5f /* the longest row by the long ones, beyond which it does not count */
#define REST_BYTES 64u    /* the rest under dot is spread over so many equal bytes */
#define SEED 0x76657864622d6731u

enum phase_kind {
    PHASE_ENCODE,
    PHASE_ADOPT,
    PHASE_INSERT,
    PHASE_TRIM,
    PHASE_FINISH,
    PHASE_FREEZE,
    PHASE_END
};

/* ---- memory ---------------------------------------------------------------------------------- */

static uint32_t bytes_stride_for(enum vex_metric metric, uint32_t dim, bool fine)
{
    uint32_t coordinate_bytes = fine ? sizeof(float) : 1;
    return coordinate_bytes * vex_code_padded(dim) + (metric == VEX_METRIC_DOT ? REST_BYTES : 0);
}

uint64_t vex_graph_build_bytes(const struct vex_segment_shape *shape)
{
    uint64_t nodes = shape->capacity_rows;
    uint64_t links = vex_graph_links(&shape->graph);
    uint64_t per_node = bytes_stride_for(shape->metric, shape->dim, false) +
                        (links + links / 4) * sizeof(uint32_t) + sizeof(uint32_t) + 3 + 1;
    per_node += 3 * sizeof(uint32_t); /* numbers in an older graph */
    /* Upper layers take a thirty-first of it at most. */
    return nodes * per_node + nodes * per_node / 31;
}

static void *aligned(size_t count, size_t bytes)
{
    size_t total;
    if (!vex_multiply(count, bytes, &total)) {
        return NULL;
    }
    return aligned_alloc(64, vex_round_up(total + 64, 64));
}

static bool make_layer(struct vex_build_layer *layer, uint32_t nodes, uint32_t links, bool is_top)
{
    layer->nodes_count = nodes;
    layer->links = links;
    layer->row_links = links + links / 4;
    layer->insert_end = nodes;
    if (is_top) {
        return true;
    }
    layer->rows = aligned(nodes, layer->row_links * sizeof(uint32_t));
    layer->degrees = calloc(nodes, sizeof(*layer->degrees));
    layer->locks = calloc(nodes, sizeof(*layer->locks));
    return layer->rows && layer->degrees && layer->locks;
}

static bool make_memory(struct vex_graph_build *build)
{
    uint32_t nodes[VEX_GRAPH_LAYERS_MAX];
    uint32_t links = vex_graph_links(&build->shape);
    uint32_t upper = vex_graph_upper_links(links);
    build->layers_count = vex_graph_layers(build->nodes_count, nodes);
    build->row_of = malloc((size_t)build->nodes_count * sizeof(*build->row_of));
    build->bytes = aligned(build->nodes_count, build->bytes_stride);
    bool all = build->row_of && build->bytes;
    for (uint32_t i = 0; i < build->layers_count && all; i++) {
        all = make_layer(&build->layers[i], nodes[i], i == 0 ? links : upper,
                         i + 1 == build->layers_count);
    }
    return all;
}

void vex_graph_build_free(struct vex_graph_build *build)
{
    if (!build) {
        return;
    }
    for (uint32_t i = 0; i < VEX_GRAPH_LAYERS_MAX; i++) {
        free(build->layers[i].rows);
        free(build->layers[i].degrees);
        free(build->layers[i].locks);
    }
    vex_build_origin_free(&build->origin);
    free(build->row_of);
    free(build->bytes);
    free(build);
}

/* ---- before the first phase ------------------------------------------------------------------ */

static void shuffle_rows(struct vex_graph_build *build)
{
    uint64_t state = SEED;
    for (uint32_t i = 0; i < build->nodes_count; i++) {
        build->row_of[i] = i;
    }
    for (uint32_t i = build->nodes_count - 1; i > 0; i--) {
        state += 0x9e3779b97f4a7c15u;
        uint32_t other = (uint32_t)(vex_mix64(state) % ((uint64_t)i + 1));
        uint32_t held = build->row_of[i];
        build->row_of[i] = build->row_of[other];
        build->row_of[other] = held;
    }
}

/* What is missing to the length that all rows have under dot. */
static float rest_of(const struct vex_graph_build *build, uint32_t row)
{
    float length = build->segment->norms[row] * build->codes.space.scale;
    float square = build->rest_limit - length * length;
    return square > 0 ? sqrtf(square) : 0;
}

static int compare_floats(const void *a, const void *b)
{
    const float *left = a;
    const float *right = b;
    return (*left > *right) - (*left < *right);
}

/*
 * Under dot, the square of the length that all rows are given. By rights that is the longest row's; but
 * a few rows that are much longer than the others would make the rest the larger part of all others,
 * which are then all alike, and links lead nowhere in particular. Those few keep their own length.
 * Measured, lengths spread lognormally by 0.5: at equal effort 0.90 of the nearest are found in the place of 0.76.
 */
static float find_rest_limit(const struct vex_graph_build *build, float *lengths)
{
    uint32_t count = vex_code_sample_count(build->writer);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t row = vex_code_sample_row(build->writer, i);
        lengths[i] = build->segment->norms[row] * build->codes.space.scale;
    }
    qsort(lengths, count, sizeof(*lengths), compare_floats);
    float length = lengths[(uint32_t)((float)(count - 1) * LONG_VECTOR)];
    return length * REST_STRETCH < 1 ? length * length : 1;
}

/* How far coordinates reach, from the lengths of the sample: after the rotation, a coordinate is as
 * likely to be large as any other. */
static bool find_spread(struct vex_graph_build *build)
{
    uint32_t padded = build->codes.space.rotation.padded;
    uint32_t count = vex_code_sample_count(build->writer);
    float *lengths = malloc(count * sizeof(*lengths));
    float *rotated = aligned(padded, sizeof(float));
    bool all = lengths && rotated;
    double rests = 0;
    build->rest_limit = all ? find_rest_limit(build, lengths) : 1;
    for (uint32_t i = 0; i < count && all; i++) {
        uint32_t row = vex_code_sample_row(build->writer, i);
        vex_code_space_row(&build->codes.space, vex_segment_row(build->segment, row, rotated),
                           build->segment->norms[row], rotated);
        lengths[i] = sqrtf(build->kernels->square_sum(rotated, padded));
        rests += (double)rest_of(build, row);
    }
    if (all) {
        qsort(lengths, count, sizeof(*lengths), compare_floats);
        float length = lengths[(uint32_t)((float)(count - 1) * LONG_VECTOR)];
        float reach = BYTES_SIGMAS * length / sqrtf((float)padded);
        build->bytes_inverse = reach > 0 ? (float)BYTES_LIMIT / reach : 0;
        build->rest_mean = (float)(rests / count);
    }
    free(lengths);
    free(rotated);
    return all;
}

static enum vex_status prepare(struct vex_graph_build *build, const struct vex_graph_origin *origin,
                               struct vex_error *error)
{
    enum vex_status status = vex_code_build_begin(&build->codes, build->writer, error);
    if (status != VEX_OK) {
        return status;
    }
    build->fine = build->codes.head.blur > VEX_CODES_BLUR_MAX;
    build->bytes_stride =
        bytes_stride_for(build->segment->metric, build->segment->dim, build->fine);
    build->kernels = build->codes.space.kernels->graph;
    bool all = make_memory(build);
    if (all) {
        shuffle_rows(build);
        status = origin ? vex_build_plan_extension(build, origin, error) : VEX_OK;
        all = status != VEX_OK || find_spread(build);
    }
    return all ? status
               : vex_error_set(error, VEX_ERR_NOMEM, "graph: out of memory for %u nodes of dim %u",
                               build->nodes_count, build->segment->dim);
}

enum vex_status vex_graph_build_new(struct vex_segment_writer *writer,
                                    const struct vex_graph_shape *shape,
                                    const struct vex_graph_origin *origin,
                                    struct vex_graph_build **out_build, struct vex_error *error)
{
    struct vex_index_parts parts;
    vex_segment_parts(writer, &parts);
    if (writer->rows == 0 || shape->m == 0 || !vex_graph_shape_is_sound(shape) ||
        !parts.start[VEX_PART_GRAPH_HEAD] ||
        parts.bytes[VEX_PART_GRAPH_ROWS] !=
            (uint64_t)writer->segment.capacity_rows * vex_graph_links(shape) * 8) {
        return vex_error_set(error, VEX_ERR_INVALID,
                             "graph: segment %llu has no rows, or was not laid out for this graph",
                             (unsigned long long)writer->segment.segment_id);
    }
    struct vex_graph_build *build = calloc(1, sizeof(*build));
    if (!build) {
        return vex_error_set(error, VEX_ERR_NOMEM, "graph: out of memory");
    }
    build->writer = writer;
    build->segment = &writer->segment;
    build->shape = *shape;
    build->nodes_count = writer->rows;
    enum vex_status status = prepare(build, origin, error);
    if (status != VEX_OK) {
        vex_graph_build_free(build);
        return status;
    }
    *out_build = build;
    return VEX_OK;
}

/* ---- workers --------------------------------------------------------------------------------- */

void vex_graph_worker_free(struct vex_graph_worker *worker)
{
    if (!worker) {
        return;
    }
    free(worker->beam.distances);
    free(worker->beam.nodes);
    free(worker->batch);
    free(worker->seen);
    free(worker->expanded);
    free(worker->candidates);
    free(worker->states);
    free(worker->rotated);
    free(worker->links);
    free(worker);
}

enum vex_status vex_graph_worker_new(struct vex_graph_build *build,
                                     struct vex_graph_worker **out_worker, struct vex_error *error)
{
    struct vex_graph_worker *worker = calloc(1, sizeof(*worker));
    uint32_t ef = build->shape.ef_construction;
    uint32_t beam = (ef > VEX_BUILD_ENTRIES ? ef : VEX_BUILD_ENTRIES) + VEX_BATCH_PAD;
    bool all = worker;
    if (all) {
        worker->build = build;
        worker->expanded_max = 4 * ef + 256;
        worker->candidates_max = worker->expanded_max + beam + VEX_BATCH_MAX;
        worker->beam.distances = aligned(beam, sizeof(float));
        worker->beam.nodes = aligned(beam, sizeof(uint32_t));
        worker->batch = aligned(1, sizeof(*worker->batch));
        worker->seen = calloc(build->nodes_count, 1);
        worker->expanded = malloc(worker->expanded_max * sizeof(*worker->expanded));
        worker->candidates = malloc(worker->candidates_max * sizeof(*worker->candidates));
        worker->states = malloc(worker->candidates_max);
        worker->rotated = aligned(build->codes.space.rotation.padded, sizeof(float));
        worker->links = aligned(VEX_BATCH_MAX, sizeof(uint32_t));
        all = worker->beam.distances && worker->beam.nodes && worker->batch && worker->seen &&
              worker->expanded && worker->candidates && worker->states && worker->rotated &&
              worker->links;
    }
    if (!all) {
        vex_graph_worker_free(worker);
        return vex_error_set(error, VEX_ERR_NOMEM, "graph: out of memory for a worker");
    }
    *out_worker = worker;
    return VEX_OK;
}

/* ---- phases ---------------------------------------------------------------------------------- */

struct phase {
    enum phase_kind kind;
    uint32_t layer; /* of PHASE_INSERT: from the top down */
    uint32_t first;
    uint32_t end;
    uint32_t chunk;
};

static struct phase phase_of(const struct vex_graph_build *build)
{
    uint32_t inserts = build->layers_count - 1;
    uint32_t number = build->phase;
    uint32_t count = build->nodes_count;
    if (number == 0) {
        return (struct phase){PHASE_ENCODE, 0, 0, count, ENCODE_CHUNK};
    }
    if (number == 1) {
        return (struct phase){PHASE_ADOPT, 0, 0, build->origin.rows ? count : 0, ENCODE_CHUNK};
    }
    if (number - 2 < inserts) {
        uint32_t number_of_layer = inserts - 1 - (number - 2);
        const struct vex_build_layer *layer = &build->layers[number_of_layer];
        return (struct phase){PHASE_INSERT, number_of_layer, layer->insert_first, layer->insert_end,
                              INSERT_CHUNK};
    }
    switch (number - 2 - inserts) {
    case 0:
        return (struct phase){PHASE_TRIM, 0, 0, count, ENCODE_CHUNK};
    case 1:
        return (struct phase){PHASE_FINISH, 0, 0, 1, 1};
    case 2:
        return (struct phase){PHASE_FREEZE, 0, 0, count, ENCODE_CHUNK};
    default:
        return (struct phase){PHASE_END, 0, 0, 0, 1};
    }
}

/* Both codes of a node: the bytes that building measures by, and the segment's. */
static void encode(struct vex_graph_worker *worker, uint32_t node)
{
    struct vex_graph_build *build = worker->build;
    uint32_t row = build->row_of[node];
    uint32_t padded = build->codes.space.rotation.padded;
    if (vex_build_adopt_code(build, row)) {
        vex_code_space_row(&build->codes.space,
                           vex_segment_row(build->segment, row, worker->rotated),
                           build->segment->norms[row], worker->rotated);
    } else {
        vex_code_build_row(&build->codes, row, worker->rotated);
    }
    int8_t *bytes = build->bytes + (size_t)node * build->bytes_stride;
    if (build->fine) {
        float *floats = (void *)bytes;
        memcpy(floats, worker->rotated, padded * sizeof(float));
        if (build->segment->metric == VEX_METRIC_DOT) {
            memset(floats + padded, 0, REST_BYTES);
            floats[padded] = rest_of(build, row);
        }
        return;
    }
    (void)build->kernels->quantise(worker->rotated, padded, build->bytes_inverse, BYTES_LIMIT,
                                   bytes);
    if (build->segment->metric == VEX_METRIC_DOT) {
        float share = (rest_of(build, row) - build->rest_mean) / sqrtf((float)REST_BYTES);
        float rest[REST_BYTES];
        for (uint32_t i = 0; i < REST_BYTES; i++) {
            rest[i] = share;
        }
        (void)build->kernels->quantise(rest, REST_BYTES, build->bytes_inverse, BYTES_LIMIT,
                                       bytes + padded);
    }
}

static void trim(struct vex_graph_worker *worker, uint32_t node)
{
    const struct vex_graph_build *build = worker->build;
    for (uint32_t layer = 0; layer + 1 < build->layers_count; layer++) {
        if (node < build->layers[layer].nodes_count) {
            vex_build_trim(worker, node, layer);
        }
    }
}

static void work_on(struct vex_graph_worker *worker, const struct phase *phase, uint32_t node)
{
    switch (phase->kind) {
    case PHASE_ENCODE:
        encode(worker, node);
        break;
    case PHASE_ADOPT:
        vex_build_adopt(worker, node);
        break;
    case PHASE_INSERT:
        vex_build_insert(worker, node, phase->layer);
        break;
    case PHASE_TRIM:
        trim(worker, node);
        break;
    case PHASE_FINISH:
        vex_build_repair(worker);
        vex_build_calibrate(worker);
        break;
    case PHASE_FREEZE:
        vex_build_freeze(worker->build, node);
        break;
    case PHASE_END:
        break;
    }
}

static uint64_t thread_cpu_ns(void)
{
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

bool vex_graph_build_work(struct vex_graph_build *build, struct vex_graph_worker *worker,
                          const struct vex_build_pace *pace)
{
    struct phase phase = phase_of(build);
    uint64_t start_ns = thread_cpu_ns();
    bool going_on = true;
    while (going_on) {
        /* relaxed: the counter hands out numbers; threads meet between phases. */
        uint32_t first =
            atomic_fetch_add_explicit(&build->next_node, phase.chunk, memory_order_relaxed);
        if (first >= phase.end - phase.first) {
            break;
        }
        uint32_t left = phase.end - phase.first - first;
        uint32_t count = left < phase.chunk ? left : phase.chunk;
        for (uint32_t i = 0; i < count; i++) {
            work_on(worker, &phase, phase.first + first + i);
        }
        going_on = !pace || pace->pause(pace->context);
    }
    /* relaxed: a sum, read when all threads are done. */
    atomic_fetch_add_explicit(&build->cpu_ns, thread_cpu_ns() - start_ns, memory_order_relaxed);
    return going_on;
}

bool vex_graph_build_next(struct vex_graph_build *build)
{
    build->phase++;
    /* relaxed: no work is under way. */
    atomic_store_explicit(&build->next_node, 0, memory_order_relaxed);
    return phase_of(build).kind != PHASE_END;
}

void vex_graph_build_end(struct vex_graph_build *build, struct vex_graph_report *out_report)
{
    struct vex_index_parts parts;
    struct vex_graph_head *head = &build->head;
    struct vex_segment_writer *writer = build->writer;
    VEX_ASSERT(phase_of(build).kind == PHASE_END);
    head->magic = VEX_GRAPH_MAGIC;
    head->version = VEX_GRAPH_VERSION;
    head->nodes_count = build->nodes_count;
    head->links = build->layers[0].links;
    head->upper_links = build->layers[1].links;
    head->padded = build->codes.space.rotation.padded;
    head->layers_count = build->layers_count;
    head->ef_construction = build->shape.ef_construction;
    /* relaxed: no work is under way. */
    uint64_t cpu_ns = atomic_load_explicit(&build->cpu_ns, memory_order_relaxed);
    vex_code_build_end(&build->codes);
    vex_segment_parts(writer, &parts);
    memcpy(writer->base + (parts.start[VEX_PART_GRAPH_HEAD] - writer->base), head, sizeof(*head));
    vex_segment_attach_again(writer);
    *out_report = (struct vex_graph_report){
        .nodes_count = head->nodes_count,
        .reached = head->reached,
        .inserted = build->layers[0].insert_end - build->layers[0].insert_first,
        .codes_kept = build->origin.codes_kept,
        .mean_degree = head->mean_degree,
        .error_rms = head->error_rms,
        .cpu_ns = cpu_ns,
    };
}

enum vex_status vex_graph_extend(struct vex_segment_writer *writer,
                                 const struct vex_graph_shape *shape,
                                 const struct vex_graph_origin *origin,
                                 const struct vex_build_pace *pace,
                                 struct vex_graph_report *out_report, struct vex_error *error)
{
    struct vex_graph_build *build = NULL;
    struct vex_graph_worker *worker = NULL;
    struct vex_graph_report report;
    enum vex_status status = vex_graph_build_new(writer, shape, origin, &build, error);
    status = status == VEX_OK ? vex_graph_worker_new(build, &worker, error) : status;
    while (status == VEX_OK) {
        if (!vex_graph_build_work(build, worker, pace)) {
            status = vex_error_set(error, VEX_ERR_UNAVAILABLE, "graph: given up while building");
        } else if (!vex_graph_build_next(build)) {
            vex_graph_build_end(build, out_report ? out_report : &report);
            break;
        }
    }
    vex_graph_worker_free(worker);
    vex_graph_build_free(build);
    return status;
}

enum vex_status vex_graph_build(struct vex_segment_writer *writer,
                                const struct vex_graph_shape *shape,
                                const struct vex_build_pace *pace,
                                struct vex_graph_report *out_report, struct vex_error *error)
{
    return vex_graph_extend(writer, shape, NULL, pace, out_report, error);
}
