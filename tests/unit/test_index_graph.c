/*
 * The graph against exact search over the same rows: what it finds, that its distances are the same
 * numbers, that the dead and the invisible never appear; then graphs that are small, made of copies, of
 * enormous or of zero vectors; builds that are shared, repeated, given up; and images in which every
 * byte of the graph may be wrong, which may cost answers but must end and stay inside the memory
 * (that is what a run under the address sanitizer shows; the memory is allocated to the byte).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <float.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "index/exact.h"
#include "index/index.h"
#include "index/kernels.h"
#include "tests/lib/random.h"
#include "tests/unit/damage.h"
#include "tests/unit/level.h"

#define K 10u
#define QUERIES 60u
#define LINKS 16u /* of a node: twice m */

static uint64_t seed;

struct world {
    struct vex_segment_shape shape;
    struct vex_segment_writer writer;
    uint64_t bytes;
    void *memory;
    float *queries;
    struct vex_random random;
};

/* Rows around a few centres: near neighbours, far clusters. */
static void random_vector(struct vex_random *random, uint32_t dim, uint32_t centres, float *out)
{
    struct vex_random centre = vex_random_seeded(vex_random_below(random, centres) * 7919 + seed);
    for (uint32_t d = 0; d < dim; d++) {
        out[d] =
            (float)(vex_random_between(&centre, -1, 1) + vex_random_between(random, -1, 1) * 0.5);
    }
}

static void allocate_world(struct world *world, enum vex_metric metric, uint32_t dim,
                           uint32_t capacity)
{
    *world = (struct world){
        .shape = {.segment_id = 1,
                  .collection_id = 1,
                  .metric = metric,
                  .dim = dim,
                  .capacity_rows = capacity,
                  .graph = {.m = 8, .ef_construction = 60}},
        .random = vex_random_seeded(seed),
    };
    world->bytes = vex_segment_memory_bytes(&world->shape);
    assert_true(world->bytes > 0);
    assert_int_equal(posix_memalign(&world->memory, 4096, world->bytes), 0);
    memset(world->memory, 0, world->bytes);
    vex_segment_create(&world->writer, &world->shape, world->memory);
    world->queries = malloc(QUERIES * dim * sizeof(float));
    assert_non_null(world->queries);
}

static void build(struct world *world, struct vex_graph_report *out_report)
{
    struct vex_error error = {0};
    struct vex_graph_report report;
    if (vex_index_hnsw.build(&world->writer, &world->shape, NULL, &report, &error) != VEX_OK ||
        vex_index_hnsw.validate(&world->writer.segment, &error) != VEX_OK) {
        fail_msg("%s", error.message);
    }
    assert_int_equal(report.nodes_count, world->writer.rows);
    assert_int_equal(report.reached, world->writer.rows);
    if (out_report) {
        *out_report = report;
    }
}

static void make_world(struct world *world, enum vex_metric metric, uint32_t dim, uint32_t rows)
{
    float *vector = malloc(dim * sizeof(*vector));
    assert_non_null(vector);
    allocate_world(world, metric, dim, rows);
    for (uint32_t i = 0; i < rows; i++) {
        random_vector(&world->random, dim, 12, vector);
        (void)vex_segment_append(&world->writer, 1000 + i, vector, NULL, 0);
    }
    for (uint32_t i = 0; i < QUERIES; i++) {
        random_vector(&world->random, dim, 12, world->queries + i * dim);
    }
    free(vector);
}

static void free_world(struct world *world)
{
    free(world->memory);
    free(world->queries);
}

struct answers {
    struct vex_candidate heaps[QUERIES * K];
    struct vex_topk topks[QUERIES];
    struct vex_search_counters counters;
};

static void ask(const struct vex_index *index, const struct world *world, uint32_t visible,
                uint64_t lsn, uint32_t ef, uint32_t k, struct answers *out)
{
    struct vex_view_segment part = {&world->writer.segment, visible};
    struct vex_effort effort = {.ef = ef};
    struct vex_view view = {&part, 1, world->shape.dim, world->shape.metric, lsn, &effort};
    out->counters = (struct vex_search_counters){0};
    for (uint32_t i = 0; i < QUERIES; i++) {
        vex_topk_init(&out->topks[i], out->heaps + i * K, k);
    }
    assert_int_equal(
        index->search(&view, world->queries, QUERIES, out->topks, &out->counters, NULL), VEX_OK);
    for (uint32_t i = 0; i < QUERIES; i++) {
        vex_topk_finish(&out->topks[i]);
    }
}

/* Share of the exact answers that the graph has, too; its keys must be those of the exact search. */
static double recall(const struct world *world, const struct answers *exact,
                     const struct answers *found)
{
    uint32_t hits = 0;
    uint32_t wanted = 0;
    for (uint32_t i = 0; i < QUERIES; i++) {
        const float *query = world->queries + i * world->shape.dim;
        double norm = vex_exact_norm(query, world->shape.dim);
        wanted += exact->topks[i].count;
        for (uint32_t j = 0; j < found->topks[i].count; j++) {
            const struct vex_candidate *hit = &found->topks[i].heap[j];
            double key = vex_exact_key(world->shape.metric, query, norm,
                                       vex_segment_vector(&world->writer.segment, hit->row),
                                       world->shape.dim);
            assert_memory_equal(&key, &hit->key, sizeof(key));
            assert_int_equal(hit->id, world->writer.segment.ids[hit->row]);
            hits += hit->key <= exact->topks[i].heap[exact->topks[i].count - 1].key;
            for (uint32_t other = 0; other < j; other++) {
                assert_true(found->topks[i].heap[other].row != hit->row);
            }
        }
    }
    return (double)hits / wanted;
}

/* ---- what it finds --------------------------------------------------------------------------- */

static void check_recall(enum vex_metric metric, uint32_t dim, uint32_t rows, double least)
{
    static struct answers exact;
    static struct answers found;
    struct world world;
    make_world(&world, metric, dim, rows);
    struct vex_graph_report report;
    build(&world, &report);
    ask(&vex_index_flat, &world, rows, 1, 0, K, &exact);
    ask(&vex_index_hnsw, &world, rows, 1, 100, K, &found);
    double share = recall(&world, &exact, &found);
    if (share < least) {
        fail_msg("metric %d dim %u: recall %.4f", metric, dim, share);
    }
    assert_true(found.counters.rows_visited < (uint64_t)rows * QUERIES);
    assert_int_equal(found.counters.rescans, 0);
    assert_true(report.mean_degree > 8 && report.error_rms > 0 && report.error_rms < 0.1f);
    free_world(&world);
}

static void nearly_all_of_the_nearest_are_found_under_every_metric(void **state)
{
    (void)state;
    static const uint32_t dims[] = {24, 128, 200, 300};
    for (size_t i = 0; i < sizeof(dims) / sizeof(*dims); i++) {
        check_recall(VEX_METRIC_L2, dims[i], 2500, 0.97);
        check_recall(VEX_METRIC_COSINE, dims[i], 2500, 0.97);
        check_recall(VEX_METRIC_DOT, dims[i], 2500, 0.95);
    }
}

static void layers_above_the_first_are_built_and_used(void **state)
{
    (void)state;
    check_recall(VEX_METRIC_L2, 16, 17000, 0.97); /* 531 nodes above, 16 above them */
}

static void more_effort_finds_more(void **state)
{
    (void)state;
    static struct answers exact;
    static struct answers little;
    static struct answers much;
    struct world world;
    make_world(&world, VEX_METRIC_L2, 96, 6000);
    build(&world, NULL);
    ask(&vex_index_flat, &world, 6000, 1, 0, K, &exact);
    ask(&vex_index_hnsw, &world, 6000, 1, K, K, &little);
    ask(&vex_index_hnsw, &world, 6000, 1, 400, K, &much);
    assert_true(recall(&world, &exact, &much) >= recall(&world, &exact, &little));
    assert_true(recall(&world, &exact, &much) > 0.995);
    assert_true(much.counters.rows_visited > little.counters.rows_visited);
    free_world(&world);
}

/* ---- who may appear -------------------------------------------------------------------------- */

static void the_dead_and_the_invisible_never_appear(void **state)
{
    (void)state;
    static struct answers exact;
    static struct answers found;
    const uint32_t rows = 3000;
    struct world world;
    make_world(&world, VEX_METRIC_COSINE, 40, rows);
    build(&world, NULL);
    for (uint32_t row = 0; row < rows; row++) {
        if (row % 3 == 0) {
            vex_segment_kill(&world.writer, row, 10 + row % 2);
        }
    }
    for (uint64_t lsn = 9; lsn <= 11; lsn++) {
        uint32_t visible = rows - 100 * (uint32_t)(lsn - 9);
        ask(&vex_index_flat, &world, visible, lsn, 0, K, &exact);
        ask(&vex_index_hnsw, &world, visible, lsn, 150, K, &found);
        assert_true(recall(&world, &exact, &found) > 0.95);
        for (uint32_t i = 0; i < QUERIES; i++) {
            assert_int_equal(found.topks[i].count, K);
            for (uint32_t j = 0; j < K; j++) {
                uint32_t row = found.topks[i].heap[j].row;
                assert_true(row < visible);
                assert_true(vex_segment_alive(&world.writer.segment, row, lsn));
            }
        }
    }
    free_world(&world);
}

static void what_is_alive_among_many_dead_is_found_by_scanning(void **state)
{
    (void)state;
    static struct answers exact;
    static struct answers found;
    const uint32_t rows = 3000;
    struct world world;
    make_world(&world, VEX_METRIC_L2, 20, rows);
    build(&world, NULL);
    for (uint32_t row = 0; row < rows; row++) {
        if (row % 100 != 0) {
            vex_segment_kill(&world.writer, row, 5);
        }
    }
    ask(&vex_index_flat, &world, rows, 5, 0, K, &exact);
    ask(&vex_index_hnsw, &world, rows, 5, 20, K, &found);
    assert_true(found.counters.rescans > 0);
    for (uint32_t i = 0; i < QUERIES; i++) {
        assert_int_equal(found.topks[i].count, K);
    }
    assert_true(recall(&world, &exact, &found) == 1);
    free_world(&world);
}

static void graphs_and_plain_segments_share_one_list(void **state)
{
    (void)state;
    static struct answers exact;
    static struct answers found;
    struct world worlds[3];
    struct vex_view_segment parts[3];
    const uint32_t rows[3] = {700, 2500, 900};
    for (uint32_t i = 0; i < 3; i++) {
        seed += i;
        make_world(&worlds[i], VEX_METRIC_L2, 33, rows[i]);
        seed -= i;
        parts[i] = (struct vex_view_segment){&worlds[i].writer.segment, rows[i]};
        if (i != 2) {
            build(&worlds[i], NULL);
        }
    }
    struct vex_effort effort = {.ef = 120};
    effort.scratch_bytes = vex_effort_scratch_bytes(33, effort.ef, K);
    effort.scratch = aligned_alloc(64, effort.scratch_bytes);
    struct vex_view view = {parts, 3, 33, VEX_METRIC_L2, 1, &effort};
    uint32_t hits = 0;
    for (uint32_t i = 0; i < QUERIES; i++) {
        const float *query = worlds[0].queries + i * 33;
        vex_topk_init(&exact.topks[i], exact.heaps + i * K, K);
        vex_topk_init(&found.topks[i], found.heaps + i * K, K);
        assert_int_equal(
            vex_index_flat.search(&view, query, 1, &exact.topks[i], &exact.counters, NULL), VEX_OK);
        assert_int_equal(
            vex_index_hnsw.search(&view, query, 1, &found.topks[i], &found.counters, NULL), VEX_OK);
        vex_topk_finish(&exact.topks[i]);
        vex_topk_finish(&found.topks[i]);
        assert_int_equal(found.topks[i].count, K);
        for (uint32_t j = 0; j < K; j++) {
            const struct vex_candidate *hit = &found.topks[i].heap[j];
            assert_true(hit->row < rows[hit->segment]);
            hits += hit->key <= exact.topks[i].heap[K - 1].key;
        }
    }
    assert_true(hits >= QUERIES * K * 97 / 100);
    free(effort.scratch);
    for (uint32_t i = 0; i < 3; i++) {
        free_world(&worlds[i]);
    }
}

/* ---- unusual rows ---------------------------------------------------------------------------- */

static void every_small_number_of_rows_is_answered_in_full(void **state)
{
    (void)state;
    static struct answers exact;
    static struct answers found;
    for (uint32_t rows = 1; rows <= 80; rows += rows < 10 ? 1 : 7) {
        struct world world;
        make_world(&world, VEX_METRIC_L2, 5, rows);
        build(&world, NULL);
        ask(&vex_index_flat, &world, rows, 1, 0, K, &exact);
        ask(&vex_index_hnsw, &world, rows, 1, 100, K, &found);
        for (uint32_t i = 0; i < QUERIES; i++) {
            assert_int_equal(found.topks[i].count, rows < K ? rows : K);
        }
        assert_true(recall(&world, &exact, &found) == 1);
        free_world(&world);
    }
}

static void a_segment_with_room_to_spare_has_a_graph_of_its_rows(void **state)
{
    (void)state;
    static struct answers exact;
    static struct answers found;
    struct world world;
    float vector[8];
    allocate_world(&world, VEX_METRIC_L2, 8, 5000);
    for (uint32_t i = 0; i < 1500; i++) {
        random_vector(&world.random, 8, 5, vector);
        (void)vex_segment_append(&world.writer, i, vector, NULL, 0);
    }
    for (uint32_t i = 0; i < QUERIES; i++) {
        random_vector(&world.random, 8, 5, world.queries + i * 8);
    }
    build(&world, NULL);
    struct vex_segment attached;
    assert_int_equal(vex_segment_attach(&attached, world.memory, world.bytes, NULL), VEX_OK);
    assert_int_equal(attached.graph.nodes_count, 1500);
    ask(&vex_index_flat, &world, 1500, 1, 0, K, &exact);
    ask(&vex_index_hnsw, &world, 1500, 1, 100, K, &found);
    assert_true(recall(&world, &exact, &found) > 0.97);
    free_world(&world);
}

/* Thousands of copies of few vectors: every one is reachable (build checks it). */
static void copies_do_not_become_islands(void **state)
{
    (void)state;
    static struct answers found;
    struct world world;
    float vector[12];
    allocate_world(&world, VEX_METRIC_L2, 12, 3000);
    for (uint32_t i = 0; i < 3000; i++) {
        if (i % 300 == 0) {
            random_vector(&world.random, 12, 1000, vector);
        }
        (void)vex_segment_append(&world.writer, i, vector, NULL, 0);
    }
    for (uint32_t i = 0; i < QUERIES; i++) {
        memcpy(world.queries + i * 12, vex_segment_vector(&world.writer.segment, (i * 300) % 3000),
               sizeof(vector));
    }
    build(&world, NULL);
    ask(&vex_index_hnsw, &world, 3000, 1, 50, K, &found);
    for (uint32_t i = 0; i < QUERIES; i++) {
        assert_int_equal(found.topks[i].count, K);
        assert_true(found.topks[i].heap[K - 1].key == 0);
    }
    free_world(&world);
}

static void fill_scaled(struct world *world, uint32_t rows, float scale)
{
    float vector[16];
    for (uint32_t i = 0; i < rows + QUERIES; i++) {
        random_vector(&world->random, 16, 6, vector);
        for (uint32_t d = 0; d < 16; d++) {
            vector[d] *= scale;
        }
        if (i < rows) {
            (void)vex_segment_append(&world->writer, i, vector, NULL, 0);
        } else {
            memcpy(world->queries + (i - rows) * 16, vector, sizeof(vector));
        }
    }
}

static void numbers_at_the_ends_of_the_range_are_searched(void **state)
{
    (void)state;
    static struct answers exact;
    static struct answers found;
    static const float scales[] = {0x1p-140f, 0x1p-80f, 1e15f, FLT_MAX / 4, 0};
    static const enum vex_metric metrics[] = {VEX_METRIC_L2, VEX_METRIC_COSINE, VEX_METRIC_DOT};
    for (size_t m = 0; m < 3; m++) {
        for (size_t i = 0; i < sizeof(scales) / sizeof(*scales); i++) {
            if (scales[i] == 0 && metrics[m] == VEX_METRIC_COSINE) {
                continue; /* such rows are refused */
            }
            struct world world;
            allocate_world(&world, metrics[m], 16, 1500);
            fill_scaled(&world, 1500, scales[i]);
            build(&world, NULL);
            ask(&vex_index_flat, &world, 1500, 1, 0, K, &exact);
            ask(&vex_index_hnsw, &world, 1500, 1, 200, K, &found);
            for (uint32_t q = 0; q < QUERIES; q++) {
                assert_int_equal(found.topks[q].count, K);
            }
            double share = recall(&world, &exact, &found);
            /* Squares of subnormal numbers keep no digits to rank codes by. */
            if (scales[i] >= 0x1p-80f && share < 0.95) {
                fail_msg("metric %d scale %g: recall %.4f", metrics[m], (double)scales[i], share);
            }
            free_world(&world);
        }
    }
}

/* ---- building -------------------------------------------------------------------------------- */

static void two_builds_of_the_same_rows_are_the_same_bytes(void **state)
{
    (void)state;
    struct world first;
    struct world second;
    make_world(&first, VEX_METRIC_COSINE, 50, 2000);
    make_world(&second, VEX_METRIC_COSINE, 50, 2000);
    build(&first, NULL);
    build(&second, NULL);
    assert_int_equal(first.bytes, second.bytes);
    assert_memory_equal(first.memory, second.memory, first.bytes);
    free_world(&first);
    free_world(&second);
}

struct hand {
    pthread_t thread;
    struct vex_graph_build *build;
    struct vex_graph_worker *worker;
    bool finished;
};

static void *lend_a_hand(void *argument)
{
    struct hand *hand = argument;
    hand->finished = vex_graph_build_work(hand->build, hand->worker, NULL);
    return NULL;
}

static void threads_share_a_build(void **state)
{
    (void)state;
    static struct answers exact;
    static struct answers found;
    struct world world;
    struct hand hands[3];
    struct vex_graph_build *shared = NULL;
    make_world(&world, VEX_METRIC_DOT, 30, 4000);
    assert_int_equal(vex_graph_build_new(&world.writer, &world.shape.graph, NULL, &shared, NULL),
                     VEX_OK);
    for (size_t i = 0; i < 3; i++) {
        hands[i].build = shared;
        assert_int_equal(vex_graph_worker_new(shared, &hands[i].worker, NULL), VEX_OK);
    }
    do {
        for (size_t i = 0; i < 3; i++) {
            assert_int_equal(pthread_create(&hands[i].thread, NULL, lend_a_hand, &hands[i]), 0);
        }
        for (size_t i = 0; i < 3; i++) {
            assert_int_equal(pthread_join(hands[i].thread, NULL), 0);
            assert_true(hands[i].finished);
        }
    } while (vex_graph_build_next(shared));
    struct vex_graph_report report;
    vex_graph_build_end(shared, &report);
    for (size_t i = 0; i < 3; i++) {
        vex_graph_worker_free(hands[i].worker);
    }
    vex_graph_build_free(shared);
    assert_int_equal(report.reached, 4000);
    assert_int_equal(vex_graph_validate(&world.writer.segment, NULL), VEX_OK);
    ask(&vex_index_flat, &world, 4000, 1, 0, K, &exact);
    ask(&vex_index_hnsw, &world, 4000, 1, 100, K, &found);
    assert_true(recall(&world, &exact, &found) > 0.95);
    free_world(&world);
}

static bool give_up_after(void *context)
{
    uint32_t *left = context;
    return (*left)-- > 0;
}

static void a_build_that_is_given_up_leaves_no_graph(void **state)
{
    (void)state;
    struct world world;
    make_world(&world, VEX_METRIC_L2, 10, 800);
    for (uint32_t calls = 0; calls < 120; calls += 13) {
        uint32_t left = calls;
        struct vex_build_pace pace = {give_up_after, &left};
        struct vex_segment attached;
        struct vex_error error = {0};
        assert_int_equal(vex_graph_build(&world.writer, &world.shape.graph, &pace, NULL, &error),
                         VEX_ERR_UNAVAILABLE);
        assert_int_equal(vex_segment_attach(&attached, world.memory, world.bytes, NULL), VEX_OK);
        assert_int_equal(attached.graph.nodes_count, 0);
    }
    build(&world, NULL); /* what was given up can be done again */
    free_world(&world);
}

static void a_build_wants_rows_and_the_shape_that_was_laid_out(void **state)
{
    (void)state;
    struct world world;
    struct vex_error error;
    float vector[4] = {1, 2, 3, 4};
    allocate_world(&world, VEX_METRIC_L2, 4, 10);
    const struct vex_graph_shape *right = &world.shape.graph;
    assert_int_equal(vex_graph_build(&world.writer, right, NULL, NULL, &error), VEX_ERR_INVALID);
    (void)vex_segment_append(&world.writer, 1, vector, NULL, 0);
    static const struct vex_graph_shape wrong[] = {{0, 10}, {40, 10}, {8, 0}, {65, 10}, {8, 5000}};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        assert_int_equal(vex_graph_build(&world.writer, &wrong[i], NULL, NULL, &error),
                         VEX_ERR_INVALID);
    }
    assert_int_equal(vex_graph_build(&world.writer, right, NULL, NULL, &error), VEX_OK);
    free_world(&world);
}

static void a_segment_without_an_index_keeps_its_layout(void **state)
{
    (void)state;
    struct vex_segment_shape with = {.segment_id = 1,
                                     .collection_id = 1,
                                     .metric = VEX_METRIC_L2,
                                     .dim = 9,
                                     .capacity_rows = 100,
                                     .graph = {.m = 16, .ef_construction = 100}};
    struct vex_segment_shape without = with;
    without.graph.m = 0;
    struct vex_segment_range ranges[VEX_SEGMENT_RANGES_MAX];
    uint32_t image_count;
    /* header, 7 sections, deaths: the bytes that version 1 has always had */
    assert_int_equal(vex_segment_memory_bytes(&without),
                     4096 + 6400 + 832 + 448 + 448 + 832 + 1024 + 0 + 2304 + 800 - 4096 % 4096);
    assert_true(vex_segment_memory_bytes(&with) > vex_segment_memory_bytes(&without));
    assert_true(vex_segment_used_ranges(&with, 3, 0, ranges, &image_count) <=
                VEX_SEGMENT_RANGES_MAX);
}

/* ---- damage ---------------------------------------------------------------------------------- */

/* Asks everything of a damaged image, if it can still be attached. */
static void survive(struct world *world)
{
    static struct answers found;
    struct vex_segment attached;
    struct vex_error error;
    if (vex_segment_attach(&attached, world->memory, world->bytes, &error) != VEX_OK) {
        return;
    }
    struct vex_segment kept = world->writer.segment;
    world->writer.segment = attached;
    ask(&vex_index_hnsw, world, attached.capacity_rows, 1, 30, K, &found);
    for (uint32_t i = 0; i < QUERIES; i++) {
        for (uint32_t j = 0; j < found.topks[i].count; j++) {
            assert_true(found.topks[i].heap[j].row < attached.capacity_rows);
        }
    }
    (void)vex_graph_validate(&attached, &error);
    world->writer.segment = kept;
}

static void damaged_bytes_end_in_an_error_or_a_wrong_answer(void **state)
{
    (void)state;
    for (uint32_t metric = VEX_METRIC_L2; metric <= VEX_METRIC_DOT; metric++) {
        struct world world;
        /* Three layers once, two are enough for the others. */
        make_world(&world, (enum vex_metric)metric, 20, metric == VEX_METRIC_L2 ? 17000 : 1500);
        build(&world, NULL);
        void *image = malloc(world.bytes);
        assert_non_null(image);
        memcpy(image, world.memory, world.bytes);
        for (enum vex_index_part part = 0; part < VEX_PARTS_COUNT; part++) {
            for (int round = 0; round < 12; round++) {
                memcpy(world.memory, image, world.bytes);
                damage_part(&world.writer, &world.random, part,
                            (enum damage)(round < 3 ? round : 2 + round % 2));
                survive(&world);
            }
        }
        /* Everything behind the headers at once. */
        for (int round = 0; round < 4; round++) {
            memcpy(world.memory, image, world.bytes);
            for (enum vex_index_part part = 0; part < VEX_PARTS_COUNT; part++) {
                if (part != VEX_PART_CODES_HEAD && part != VEX_PART_GRAPH_HEAD) {
                    damage_part(&world.writer, &world.random, part, DAMAGE_NOISE);
                }
            }
            survive(&world);
        }
        free(image);
        free_world(&world);
    }
}

static void validate_names_a_link_that_leads_outside(void **state)
{
    (void)state;
    struct world world;
    struct vex_error error = {0};
    make_world(&world, VEX_METRIC_L2, 8, 500);
    build(&world, NULL);
    struct vex_index_parts parts;
    vex_segment_parts(&world.writer, &parts);
    uint8_t *rows = (uint8_t *)world.memory +
                    (parts.start[VEX_PART_GRAPH_ROWS] - (const uint8_t *)world.memory);
    uint32_t outside = 500;
    uint32_t held;
    memcpy(&held, rows + 7 * LINKS * 8, sizeof(held));
    memcpy(rows + 7 * LINKS * 8, &outside, sizeof(outside));
    assert_int_equal(vex_graph_validate(&world.writer.segment, &error), VEX_ERR_CORRUPT);
    assert_non_null(strstr(error.message, "node 7"));
    memcpy(rows + 7 * LINKS * 8, &held, sizeof(held));
    assert_int_equal(vex_graph_validate(&world.writer.segment, &error), VEX_OK);
    /* All links of all nodes lead to themselves: nothing can be reached. */
    for (uint32_t node = 0; node < 500; node++) {
        for (uint32_t i = 0; i < LINKS; i++) {
            memcpy(rows + (node * LINKS * 2 + i) * 4, &node, sizeof(node));
        }
    }
    assert_int_equal(vex_graph_validate(&world.writer.segment, &error), VEX_ERR_CORRUPT);
    assert_non_null(strstr(error.message, "can be reached"));
    free_world(&world);
}

/* Four groups a hundred times as far apart as they are wide: codes that reach over all of them see only
 * which group a row is in. */
static void rows_of_narrow_groups_are_found(void **state)
{
    (void)state;
    enum { DIM = 24, ROWS = 4000 };
    for (uint32_t metric = VEX_METRIC_L2; metric <= VEX_METRIC_DOT; metric++) {
        struct world world;
        allocate_world(&world, (enum vex_metric)metric, DIM, ROWS);
        for (uint32_t i = 0; i < ROWS + QUERIES; i++) {
            float vector[DIM];
            uint64_t group = vex_random_below(&world.random, 4);
            for (uint32_t d = 0; d < DIM; d++) {
                vector[d] = (float)((d % 4 == group ? 100.0 : 0.0) +
                                    vex_random_between(&world.random, -1, 1));
            }
            if (i < ROWS) {
                (void)vex_segment_append(&world.writer, 1000 + i, vector, NULL, 0);
            } else {
                memcpy(world.queries + (i - ROWS) * DIM, vector, sizeof(vector));
            }
        }
        build(&world, NULL);
        assert_true(world.writer.segment.codes.blur > VEX_CODES_BLUR_MAX);
        static struct answers exact;
        static struct answers found;
        ask(&vex_index_flat, &world, ROWS, 1, 0, K, &exact);
        ask(&vex_index_hnsw, &world, ROWS, 1, 64, K, &found);
        double share = recall(&world, &exact, &found);
        if (share < 0.95) {
            fail_msg("metric %u: recall %.4f", metric, share);
        }
        free_world(&world);
    }
}

/* A few rows that are many times as long as the others must not make all others alike. */
static void a_few_long_rows_do_not_spoil_the_dot_product(void **state)
{
    (void)state;
    enum { DIM = 64, ROWS = 8000 };
    static struct answers exact;
    static struct answers found;
    struct world world;
    float vector[DIM];
    allocate_world(&world, VEX_METRIC_DOT, DIM, ROWS);
    for (uint32_t i = 0; i < ROWS; i++) {
        random_vector(&world.random, DIM, 4000, vector);
        double sum = 0; /* of uniform numbers: nearly normal, so that lengths are lognormal */
        for (int j = 0; j < 12; j++) {
            sum += vex_random_between(&world.random, -0.5, 0.5);
        }
        float length = expf((float)sum * 0.5f);
        for (uint32_t d = 0; d < DIM; d++) {
            vector[d] *= length;
        }
        (void)vex_segment_append(&world.writer, 1000 + i, vector, NULL, 0);
    }
    for (uint32_t i = 0; i < QUERIES; i++) {
        random_vector(&world.random, DIM, 4000, world.queries + i * DIM);
    }
    build(&world, NULL);
    ask(&vex_index_flat, &world, ROWS, 1, 0, K, &exact);
    ask(&vex_index_hnsw, &world, ROWS, 1, 40, K, &found);
    double share = recall(&world, &exact, &found);
    if (share < 0.54) {
        fail_msg("recall %.4f", share);
    }
    free_world(&world);
}

/* Puts each of the heads into the place of a good one, and that back. */
static void expect_refused(const struct world *world, enum vex_index_part part, const void *heads,
                           size_t count, size_t head_bytes, enum vex_status status)
{
    struct vex_segment attached;
    uint64_t bytes;
    uint8_t good[256];
    uint8_t *head = part_of(&world->writer, part, &bytes);
    assert_true(head && head_bytes <= sizeof(good));
    memcpy(good, head, head_bytes);
    for (size_t i = 0; i < count; i++) {
        memcpy(head, (const uint8_t *)heads + i * head_bytes, head_bytes);
        assert_int_equal(vex_segment_attach(&attached, world->memory, world->bytes, NULL), status);
    }
    memcpy(head, good, head_bytes);
    assert_int_equal(vex_segment_attach(&attached, world->memory, world->bytes, NULL), VEX_OK);
}

static void a_head_that_cannot_be_is_refused(void **state)
{
    (void)state;
    struct world world;
    make_world(&world, VEX_METRIC_L2, 8, 100);
    build(&world, NULL);
    uint64_t bytes;
    struct vex_graph_head good;
    memcpy(&good, part_of(&world.writer, VEX_PART_GRAPH_HEAD, &bytes), sizeof(good));
    struct vex_graph_head bad[9];
    for (size_t i = 0; i < 9; i++) {
        bad[i] = good;
    }
    bad[0].magic++;
    bad[1].nodes_count = 101;
    bad[2].nodes_count = 0;
    bad[3].links = 17;
    bad[4].padded = 256;
    bad[5].layers_count = 7;
    bad[6].error_rms = NAN;
    bad[7].nodes_count = 99;
    bad[7].layers_count = 1;
    bad[8].links = 192;
    expect_refused(&world, VEX_PART_GRAPH_HEAD, bad, 9, sizeof(good), VEX_ERR_CORRUPT);
    bad[0] = good;
    bad[0].version++;
    expect_refused(&world, VEX_PART_GRAPH_HEAD, bad, 1, sizeof(good), VEX_ERR_VERSION);
    free_world(&world);
}

static void a_head_of_codes_that_cannot_be_is_refused(void **state)
{
    (void)state;
    struct world world;
    make_world(&world, VEX_METRIC_L2, 8, 100);
    build(&world, NULL);
    uint64_t bytes;
    struct vex_codes_head good;
    memcpy(&good, part_of(&world.writer, VEX_PART_CODES_HEAD, &bytes), sizeof(good));
    struct vex_codes_head bad[7];
    for (size_t i = 0; i < 7; i++) {
        bad[i] = good;
    }
    bad[0].magic++;
    bad[1].count = 101;
    bad[2].count = 99; /* fewer than the graph's nodes */
    bad[3].padded = 256;
    bad[4].scale = NAN;
    bad[5].add_unit = 0;
    bad[6].rescale_unit = -1;
    expect_refused(&world, VEX_PART_CODES_HEAD, bad, 7, sizeof(good), VEX_ERR_CORRUPT);
    bad[0] = good;
    bad[0].version++;
    expect_refused(&world, VEX_PART_CODES_HEAD, bad, 1, sizeof(good), VEX_ERR_VERSION);
    free_world(&world);
}

static void indexes_have_names(void **state)
{
    (void)state;
    assert_ptr_equal(vex_index_by_name("flat"), &vex_index_flat);
    assert_ptr_equal(vex_index_by_name("hnsw"), &vex_index_hnsw);
    assert_ptr_equal(vex_index_by_name("ivf"), &vex_index_ivf);
    assert_null(vex_index_by_name("tree"));
}

int main(void)
{
    seed = vex_random_announce("test_index_graph");
    if (level_is_missing()) {
        return LEVEL_SKIPPED;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nearly_all_of_the_nearest_are_found_under_every_metric),
        cmocka_unit_test(layers_above_the_first_are_built_and_used),
        cmocka_unit_test(more_effort_finds_more),
        cmocka_unit_test(the_dead_and_the_invisible_never_appear),
        cmocka_unit_test(what_is_alive_among_many_dead_is_found_by_scanning),
        cmocka_unit_test(graphs_and_plain_segments_share_one_list),
        cmocka_unit_test(every_small_number_of_rows_is_answered_in_full),
        cmocka_unit_test(a_segment_with_room_to_spare_has_a_graph_of_its_rows),
        cmocka_unit_test(copies_do_not_become_islands),
        cmocka_unit_test(numbers_at_the_ends_of_the_range_are_searched),
        cmocka_unit_test(two_builds_of_the_same_rows_are_the_same_bytes),
        cmocka_unit_test(threads_share_a_build),
        cmocka_unit_test(a_build_that_is_given_up_leaves_no_graph),
        cmocka_unit_test(a_build_wants_rows_and_the_shape_that_was_laid_out),
        cmocka_unit_test(a_segment_without_an_index_keeps_its_layout),
        cmocka_unit_test(damaged_bytes_end_in_an_error_or_a_wrong_answer),
        cmocka_unit_test(validate_names_a_link_that_leads_outside),
        cmocka_unit_test(a_head_that_cannot_be_is_refused),
        cmocka_unit_test(rows_of_narrow_groups_are_found),
        cmocka_unit_test(a_few_long_rows_do_not_spoil_the_dot_product),
        cmocka_unit_test(a_head_of_codes_that_cannot_be_is_refused),
        cmocka_unit_test(indexes_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
