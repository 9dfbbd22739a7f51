/*
 * What effort is worth: looking a recall up in a table made by hand, tables whose bytes are wrong, and
 * measuring, which must tell what queries that are no rows really find, and must leave every byte of
 * the index as it was, also when it is given up half-way.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "index/calibrate.h"
#include "tests/lib/random.h"

#define DIM 24u
#define ROWS 4000u
#define QUERIES 400u
#define K 10u

/* ---- looking up ------------------------------------------------------------------------------ */

static const struct vex_effort_table by_hand = {
    .unit = VEX_EFFORT_UNIT_EF,
    .steps_count = 4,
    .steps = {{10, {0.50f, 0.40f, 0.30f}},
              {20, {0.75f, 0.60f, 0.50f}},
              {40, {1.00f, 0.80f, 0.75f}},
              {80, {1.00f, 0.90f, 0.80f}}},
};

static uint32_t ef_for(uint32_t k, double recall)
{
    return vex_effort_for(&by_hand, VEX_EFFORT_UNIT_EF, k, recall);
}

static void effort_lies_between_the_steps_around_it(void **state)
{
    (void)state;
    assert_int_equal(ef_for(1, 0.50), 10);
    assert_int_equal(ef_for(1, 0.75), 20);
    assert_int_equal(ef_for(1, 0.875), 30);
    assert_int_equal(ef_for(1, 0.8125), 25);
    assert_int_equal(ef_for(100, 0.75), 40);
    assert_int_equal(ef_for(1, 0.1), 10);
}

static void effort_follows_k(void **state)
{
    (void)state;
    uint32_t at_10 = ef_for(10, 0.5);
    uint32_t at_100 = ef_for(100, 0.5);
    assert_int_equal(at_10, 15);
    assert_int_equal(at_100, 20);
    assert_int_equal(ef_for(55, 0.5), 18); /* 17.5 */
    assert_int_equal(ef_for(300, 0.5), 60);
}

static void a_recall_that_none_reaches_goes_beyond_the_last_step(void **state)
{
    (void)state;
    /* A tenth was missed, a twentieth may be: twice the effort. But not without end. */
    assert_in_range(ef_for(10, 0.95), 159, 161);
    assert_int_equal(ef_for(10, 0.999), 320);
    assert_int_equal(ef_for(1, 1), 40);
}

static void no_table_says_nothing(void **state)
{
    (void)state;
    const struct vex_effort_table none = {0};
    assert_int_equal(vex_effort_for(&none, VEX_EFFORT_UNIT_EF, 10, 0.5), 0);
    assert_int_equal(vex_effort_for(&by_hand, VEX_EFFORT_UNIT_NPROBE, 10, 0.5), 0);
}

static void a_table_need_not_be_monotone(void **state)
{
    (void)state;
    const struct vex_effort_table odd = {
        .unit = VEX_EFFORT_UNIT_NPROBE,
        .steps_count = 3,
        .steps = {{1, {0.5f, 0.5f, 0.5f}}, {2, {0.1f, 0, 0}}, {INT32_MAX, {0.9f, 1, 1}}},
    };
    assert_int_equal(vex_effort_for(&odd, VEX_EFFORT_UNIT_NPROBE, 1, 0.5), 1);
    assert_in_range(vex_effort_for(&odd, VEX_EFFORT_UNIT_NPROBE, 1, 0.6), 2, INT32_MAX);
    assert_int_equal(vex_effort_for(&odd, VEX_EFFORT_UNIT_NPROBE, UINT32_MAX, 0.95), INT32_MAX);
}

/* ---- segments -------------------------------------------------------------------------------- */

struct world {
    struct vex_segment_shape shape;
    struct vex_segment_writer writer;
    uint64_t bytes;
    uint8_t *memory;
    float *queries;
};

/* Around 200 centres, each in a plane of its own: near neighbours and few dimensions, as in real data. */
static void random_vector(struct vex_random *random, float *out)
{
    struct vex_random centre = vex_random_seeded(1 + vex_random_below(random, 200));
    double along = vex_random_between(random, -1, 1);
    for (uint32_t d = 0; d < DIM; d++) {
        double start = vex_random_between(&centre, -1, 1);
        out[d] = (float)(start + along * vex_random_between(&centre, -1, 1) +
                         0.1 * vex_random_between(random, -1, 1));
    }
}

static void make_stored(struct world *world, enum vex_metric metric, enum vex_storage storage,
                        uint32_t rows)
{
    *world = (struct world){.shape = {.segment_id = 1,
                                      .collection_id = 1,

                                      .metric = metric,
                                      .storage = storage,
                                      .dim = DIM,
                                      .capacity_rows = rows,
                                      .graph = {.m = 8, .ef_construction = 60}}};
    struct vex_random random = vex_random_seeded(5);
    world->bytes = vex_segment_memory_bytes(&world->shape);
    world->memory = aligned_alloc(4096, (world->bytes + 4095) / 4096 * 4096);
    world->queries = malloc((size_t)QUERIES * DIM * sizeof(float));
    assert_non_null(world->memory);
    assert_non_null(world->queries);
    memset(world->memory, 0, world->bytes);
    vex_segment_create(&world->writer, &world->shape, world->memory);
    for (uint32_t i = 0; i < rows; i++) {
        float vector[DIM];
        random_vector(&random, vector);
        (void)vex_segment_append(&world->writer, i, vector, NULL, 0);
    }
    for (uint32_t i = 0; i < QUERIES; i++) {
        random_vector(&random, world->queries + (size_t)i * DIM);
    }
    assert_int_equal(vex_graph_build(&world->writer, &world->shape.graph, NULL, NULL, NULL),
                     VEX_OK);
}

static void make_world(struct world *world, enum vex_metric metric, uint32_t rows)
{
    make_stored(world, metric, VEX_STORAGE_FLOAT32, rows);
}

static void free_world(struct world *world)
{
    free(world->memory);
    free(world->queries);
}

static void calibrate(struct world *world)
{
    assert_int_equal(vex_calibrate(&world->writer, &vex_index_hnsw, VEX_EFFORT_UNIT_EF, NULL, NULL),
                     VEX_OK);
}

static uint8_t *block_of(struct world *world)
{
    struct vex_index_parts parts;
    vex_segment_parts(&world->writer, &parts);
    assert_non_null(parts.start[VEX_PART_EFFORT]);
    return world->memory + (parts.start[VEX_PART_EFFORT] - world->memory);
}

static void search(const struct world *world, const struct vex_index *index,
                   const struct vex_effort *effort, struct vex_topk *topks,
                   struct vex_candidate *heaps)
{
    struct vex_view_segment part = {&world->writer.segment, world->writer.rows};
    struct vex_view view = {&part, 1, DIM, world->shape.metric, 1, effort};
    struct vex_search_counters counters = {0};
    for (uint32_t i = 0; i < QUERIES; i++) {
        vex_topk_init(&topks[i], heaps + (size_t)i * K, K);
    }
    assert_int_equal(index->search(&view, world->queries, QUERIES, topks, &counters, NULL), VEX_OK);
    for (uint32_t i = 0; i < QUERIES; i++) {
        vex_topk_finish(&topks[i]);
    }
}

static double recall_with(const struct world *world, const struct vex_effort *effort)
{
    static struct vex_topk truth[QUERIES];
    static struct vex_topk found[QUERIES];
    static struct vex_candidate truth_heaps[QUERIES * K];
    static struct vex_candidate found_heaps[QUERIES * K];
    search(world, &vex_index_flat, NULL, truth, truth_heaps);
    search(world, &vex_index_hnsw, effort, found, found_heaps);
    uint32_t hits = 0;
    for (uint32_t i = 0; i < QUERIES; i++) {
        for (uint32_t j = 0; j < found[i].count; j++) {
            hits += found[i].heap[j].key <= truth[i].heap[K - 1].key;
        }
    }
    return (double)hits / (QUERIES * K);
}

/* ---- measuring ------------------------------------------------------------------------------- */

static void asked_recall_is_reached(void **state)
{
    (void)state;
    static const enum vex_metric metrics[] = {VEX_METRIC_L2, VEX_METRIC_COSINE, VEX_METRIC_DOT};
    static const double asked[] = {0.8, 0.9, 0.95, 0.99};
    for (size_t m = 0; m < sizeof(metrics) / sizeof(*metrics); m++) {
        struct world world;
        make_world(&world, metrics[m], ROWS);
        calibrate(&world);
        assert_true(world.writer.segment.effort.steps_count > 3);
        for (size_t i = 0; i < sizeof(asked) / sizeof(*asked); i++) {
            double recall = recall_with(&world, &(struct vex_effort){.recall = asked[i]});
            if (recall < asked[i] - 0.02) {
                fail_msg("metric %d: asked for %.3f, found %.4f", (int)metrics[m], asked[i],
                         recall);
            }
        }
        free_world(&world);
    }
}

static void rows_that_are_not_floats_are_measured_too(void **state)
{
    (void)state;
    static const enum vex_storage storages[] = {VEX_STORAGE_FLOAT16, VEX_STORAGE_INT8};
    for (size_t i = 0; i < sizeof(storages) / sizeof(*storages); i++) {
        struct world world;
        make_stored(&world, VEX_METRIC_L2, storages[i], ROWS);
        calibrate(&world);
        assert_true(recall_with(&world, &(struct vex_effort){.recall = 0.95}) >= 0.93);
        free_world(&world);
    }
}

/* With the sampled rows left in, the first step would claim nearly everything. */
static void a_table_does_not_flatter(void **state)
{
    (void)state;
    struct world world;
    make_world(&world, VEX_METRIC_L2, ROWS);
    calibrate(&world);
    const struct vex_effort_table *table = &world.writer.segment.effort;
    for (uint32_t i = 0; i < table->steps_count; i++) {
        double recall = recall_with(&world, &(struct vex_effort){.ef = table->steps[i].effort});
        double claimed = (double)table->steps[i].recalls[1];
        if (claimed > recall + 0.02 || claimed < recall - 0.15) {
            fail_msg("ef %u: the table says %.4f, found %.4f", table->steps[i].effort, claimed,
                     recall);
        }
    }
    free_world(&world);
}

static void measuring_leaves_the_index_as_it_was(void **state)
{
    (void)state;
    struct world world;
    make_world(&world, VEX_METRIC_COSINE, ROWS);
    uint8_t *before = malloc(world.bytes);
    assert_non_null(before);
    memcpy(before, world.memory, world.bytes);
    calibrate(&world);
    assert_int_equal(((struct vex_effort_block *)(void *)block_of(&world))->magic,
                     VEX_EFFORT_MAGIC);
    memset(block_of(&world), 0, sizeof(struct vex_effort_block));
    assert_memory_equal(before, world.memory, world.bytes);
    free(before);
    free_world(&world);
}

static bool pause_down(void *context)
{
    uint32_t *left = context;
    return *left > 0 && --*left > 0;
}

static void giving_up_leaves_the_index_as_it_was(void **state)
{
    (void)state;
    struct world world;
    make_world(&world, VEX_METRIC_L2, ROWS);
    uint8_t *before = malloc(world.bytes);
    assert_non_null(before);
    memcpy(before, world.memory, world.bytes);
    static const uint32_t pauses[] = {1, 2, 8, 9, 20};
    for (size_t i = 0; i < sizeof(pauses) / sizeof(*pauses); i++) {
        uint32_t left = pauses[i];
        struct vex_build_pace pace = {pause_down, &left};
        struct vex_error error = {0};
        assert_int_equal(
            vex_calibrate(&world.writer, &vex_index_hnsw, VEX_EFFORT_UNIT_EF, &pace, &error),
            VEX_ERR_UNAVAILABLE);
        assert_non_null(strstr(error.message, "given up"));
        assert_memory_equal(before, world.memory, world.bytes);
        assert_int_equal(world.writer.segment.effort.steps_count, 0);
    }
    free(before);
    free_world(&world);
}

static void few_rows_are_not_measured(void **state)
{
    (void)state;
    struct world world;
    make_world(&world, VEX_METRIC_L2, VEX_CALIBRATE_ROWS_MIN - 1);
    calibrate(&world);
    assert_int_equal(world.writer.segment.effort.steps_count, 0);
    assert_true(recall_with(&world, &(struct vex_effort){.recall = 0.95}) >= 0.95);
    free_world(&world);
    make_world(&world, VEX_METRIC_L2, VEX_CALIBRATE_ROWS_MIN);
    calibrate(&world);
    assert_true(world.writer.segment.effort.steps_count > 0);
    free_world(&world);
}

/* ---- using ----------------------------------------------------------------------------------- */

static void each_segment_gets_its_own_effort(void **state)
{
    (void)state;
    struct vex_segment hard = {.graph.nodes_count = 1, .effort = by_hand};
    struct vex_segment easy = {.graph.nodes_count = 1, .effort = by_hand};
    struct vex_segment bare = {.graph.nodes_count = 1};
    struct vex_segment flat = {.effort = by_hand};
    easy.effort.steps_count = 1;
    struct vex_effort effort = {.recall = 0.8};
    struct vex_view_segment parts[] = {{&easy, 1}, {&hard, 1}, {&flat, 1}, {&bare, 1}};
    struct vex_view view = {parts, 1, DIM, VEX_METRIC_L2, 1, &effort};
    assert_in_range(vex_effort_ef(&view, 10), 29, 31); /* beyond its only step, which misses 0.6 */
    assert_int_equal(vex_effort_ef(&view, 77), 77);
    view.segments_count = 2;
    assert_int_equal(vex_effort_ef(&view, 10), 40);
    effort.dead_share = 0.5;
    assert_int_equal(vex_effort_ef(&view, 10), 80);
    effort.dead_share = 1;
    assert_int_equal(vex_effort_ef(&view, 10), 160);
    effort = (struct vex_effort){.ef = 33, .dead_share = 0.5};
    assert_int_equal(vex_effort_ef(&view, 10), 33);
    effort = (struct vex_effort){.recall = 0.8};
    view.segments_count = 3;
    assert_int_equal(vex_effort_ef(&view, 10), 40);
    view.segments_count = 4;
    assert_true(vex_effort_ef(&view, 10) >= VEX_GRAPH_EF_SEARCH_DEFAULT);
}

/* ---- wrong bytes ----------------------------------------------------------------------------- */

static enum vex_status attach(const struct world *world, struct vex_segment *out,
                              struct vex_error *error)
{
    return vex_segment_attach(out, world->memory, world->bytes, error);
}

static void expect_fault(const struct world *world, enum vex_status status, const char *words)
{
    struct vex_segment segment;
    struct vex_error error = {0};
    assert_int_equal(attach(world, &segment, &error), status);
    if (!strstr(error.message, words)) {
        fail_msg("'%s' is not in '%s'", words, error.message);
    }
}

static void wrong_tables_are_refused(void **state)
{
    (void)state;
    struct world world;
    make_world(&world, VEX_METRIC_L2, VEX_CALIBRATE_ROWS_MIN);
    calibrate(&world);
    struct vex_effort_block *block = (void *)block_of(&world);
    const struct vex_effort_block sound = *block;
    block->magic ^= 1;
    expect_fault(&world, VEX_ERR_CORRUPT, "bad magic");
    *block = sound;
    block->version++;
    expect_fault(&world, VEX_ERR_VERSION, "version 2");
    *block = sound;
    block->unit = 3;
    expect_fault(&world, VEX_ERR_CORRUPT, "unit");
    *block = sound;
    block->steps_count = VEX_EFFORT_STEPS_MAX + 1;
    expect_fault(&world, VEX_ERR_CORRUPT, "too many steps");
    *block = sound;
    block->steps[1].effort = block->steps[0].effort;
    expect_fault(&world, VEX_ERR_CORRUPT, "ascend");
    *block = sound;
    block->steps[0].effort = 0;
    expect_fault(&world, VEX_ERR_CORRUPT, "ascend");
    static const float recalls[] = {-0.01f, 1.01f, NAN, INFINITY};
    for (size_t i = 0; i < sizeof(recalls) / sizeof(*recalls); i++) {
        *block = sound;
        block->steps[block->steps_count - 1].recalls[i % VEX_EFFORT_COLUMNS] = recalls[i];
        expect_fault(&world, VEX_ERR_CORRUPT, "recall");
    }
    struct vex_segment segment;
    *block = sound;
    assert_int_equal(attach(&world, &segment, NULL), VEX_OK);
    assert_int_equal(segment.effort.steps_count, sound.steps_count);
    block->magic = 0;
    assert_int_equal(attach(&world, &segment, NULL), VEX_OK);
    assert_int_equal(segment.effort.steps_count, 0);
    free_world(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(effort_lies_between_the_steps_around_it),
        cmocka_unit_test(effort_follows_k),
        cmocka_unit_test(a_recall_that_none_reaches_goes_beyond_the_last_step),
        cmocka_unit_test(no_table_says_nothing),
        cmocka_unit_test(a_table_need_not_be_monotone),
        cmocka_unit_test(asked_recall_is_reached),
        cmocka_unit_test(rows_that_are_not_floats_are_measured_too),
        cmocka_unit_test(a_table_does_not_flatter),
        cmocka_unit_test(measuring_leaves_the_index_as_it_was),
        cmocka_unit_test(giving_up_leaves_the_index_as_it_was),
        cmocka_unit_test(few_rows_are_not_measured),
        cmocka_unit_test(each_segment_gets_its_own_effort),
        cmocka_unit_test(wrong_tables_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
