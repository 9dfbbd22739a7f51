/*
 * Merges beside a plain model: random writes, updates and deletes, segments sealed at random, random runs of
 * them merged while more deaths come in. After each merge every id is where the model says, counts add up,
 * and no dead row from before the merge is left in it; with graphs, which are then extended, too.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/merge.h"
#include "daemon/registry.h"
#include "index/index.h"
#include "tests/lib/random.h"

#define DIM 3u
#define IDS 300u

struct bench {
    uint8_t key[VEX_UUID_BYTES];
    struct vex_publisher *publisher;
    struct vex_registry *registry;
    struct vex_live_collection *collection;
    struct vex_random random;
    uint64_t lsn;
    struct vex_merge_claim claim;
    uint32_t value[IDS]; /* 0 = not there */
    uint32_t last_value;
};

static bool never_pause(void *context, uint64_t bytes)
{
    (void)bytes;
    return context == NULL;
}

static const struct vex_pace full_speed = {never_pause, NULL};

static struct bench *open_bench(uint64_t seed)
{
    struct bench *bench = calloc(1, sizeof(*bench));
    const int64_t pid = getpid();
    memcpy(bench->key, &pid, sizeof(pid));
    bench->random = vex_random_seeded(seed);
    assert_int_equal(vex_publisher_open(bench->key, &bench->publisher, NULL), VEX_OK);
    assert_int_equal(vex_registry_open(bench->publisher, &bench->registry, NULL), VEX_OK);
    const struct vex_collection_facts facts = {.id = 1,
                                               .dim = DIM,
                                               .metric = VEX_METRIC_L2,
                                               .m = 16,
                                               .ef_construction = 200,
                                               .name = "points"};
    bench->collection = vex_registry_create(bench->registry, &facts, ++bench->lsn);
    return bench;
}

static void publish(struct bench *bench)
{
    vex_registry_capture(bench->registry);
    vex_registry_apply(bench->registry, bench->lsn);
    vex_publisher_reclaim(bench->publisher, UINT64_MAX, vex_registry_reuse_slot, bench->registry);
}

static void close_bench(struct bench *bench)
{
    vex_registry_close(bench->registry);
    vex_publisher_close(bench->publisher);
    free(bench);
}

static void write_one(struct bench *bench, uint64_t id, bool remove)
{
    struct vex_location old;
    bool there = vex_registry_get_offset(bench->collection, id, &old);
    assert_int_equal(there, bench->value[id] != 0);
    bench->lsn++;
    if (remove) {
        if (there) {
            vex_registry_mark_deleted(bench->registry, bench->collection, old, bench->lsn);
            bench->value[id] = 0;
        }
        return;
    }
    uint32_t value = ++bench->last_value;
    const float vector[DIM] = {(float)value, (float)id, 1};
    const uint32_t payload_bytes = value % 5 == 0 ? 4 : 0;
    assert_int_equal(
        vex_registry_reserve(bench->registry, bench->collection, 1, &payload_bytes, NULL), VEX_OK);
    vex_registry_update_offset(bench->registry, bench->collection, id, vector,
                               payload_bytes ? &value : NULL, payload_bytes, there ? &old : NULL,
                               bench->lsn);
    bench->value[id] = value;
}

static void write_some(struct bench *bench, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        write_one(bench, vex_random_below(&bench->random, IDS),
                  vex_random_below(&bench->random, 3) == 0);
        if (vex_random_below(&bench->random, 20) == 0) {
            vex_registry_seal(bench->registry);
        }
        if (vex_random_below(&bench->random, 10) == 0) {
            publish(bench);
        }
    }
}

static void check_all(const struct bench *bench)
{
    uint64_t live = 0;
    for (uint64_t id = 0; id < IDS; id++) {
        struct vex_location at;
        bool there = vex_registry_get_offset(bench->collection, id, &at);
        assert_int_equal(there, bench->value[id] != 0);
        if (!there) {
            continue;
        }
        live++;
        const struct vex_home *home = bench->collection->homes[at.home];
        const float *vector = vex_segment_vector(&home->writer.segment, at.row);
        assert_true(vector[0] == (float)bench->value[id] && vector[1] == (float)id);
        size_t bytes = 0;
        const void *payload = vex_registry_payload(bench->collection, at, &bytes);
        assert_int_equal(bytes, bench->value[id] % 5 == 0 ? 4 : 0);
        assert_true(bytes == 0 || memcmp(payload, &bench->value[id], 4) == 0);
    }
    assert_int_equal(bench->collection->live_rows, live);
    uint64_t rows = 0;
    uint64_t dead = 0;
    uint64_t held = 0;
    for (uint32_t i = 0; i < bench->collection->homes_count; i++) {
        const struct vex_home *home = bench->collection->homes[i];
        uint32_t dead_here = 0;
        for (uint32_t row = 0; row < home->writer.rows; row++) {
            dead_here += !vex_segment_alive(&home->writer.segment, row, UINT64_MAX);
        }
        assert_int_equal(dead_here, home->dead_rows);
        rows += home->writer.rows;
        dead += dead_here;
        held += home->held_bytes;
    }
    assert_int_equal(rows, live + dead);
    assert_int_equal(bench->collection->dead_rows, dead);
    assert_int_equal(bench->collection->shm_bytes, held);
}

static uint32_t count_sealed(const struct bench *bench)
{
    uint32_t count = bench->collection->homes_count;
    return count && !bench->collection->homes[count - 1]->sealed ? count - 1 : count;
}

static struct vex_merge_job begin(struct bench *bench, uint32_t first, uint32_t count)
{
    struct vex_merge_job job = {
        .lsn = bench->lsn,
        .shape = {.segment_id = vex_publisher_new_segment_id(bench->publisher),
                  .collection_id = 1,
                  .metric = VEX_METRIC_L2,
                  .dim = DIM},
        .sources_count = count,
    };
    memcpy(job.key, bench->key, sizeof(job.key));
    memcpy(job.sources, &bench->collection->homes[first], count * sizeof(job.sources[0]));
    vex_registry_begin_merge(bench->registry, &bench->claim, bench->collection, first, count);
    return job;
}

/* The graph is sound, and finds every row of its segment. */
static void check_graph(const struct vex_home *home)
{
    const struct vex_segment *segment = &home->writer.segment;
    uint32_t rows = home->writer.rows;
    assert_int_equal(segment->graph.nodes_count, rows);
    assert_int_equal(vex_graph_validate(segment, NULL), VEX_OK);
    struct vex_view_segment part = {segment, rows};
    struct vex_view view = {&part, 1, DIM, VEX_METRIC_L2, 1, NULL};
    struct vex_candidate heap[IDS];
    struct vex_topk topk;
    struct vex_search_counters counters = {0};
    vex_topk_init(&topk, heap, rows);
    assert_int_equal(
        vex_index_hnsw.search(&view, vex_segment_vector(segment, 0), 1, &topk, &counters, NULL),
        VEX_OK);
    assert_int_equal(topk.count, rows);
}

/* Returns how many merges took links over. */
static uint64_t merge_at_random(const struct vex_graph_shape *graph)
{
    uint64_t merges = 0;
    uint64_t extended = 0;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct bench *bench = open_bench(seed);
        for (unsigned round = 0; round < 20; round++) {
            write_some(bench, graph->m ? 50 : 150);
            uint32_t sealed = count_sealed(bench);
            if (sealed == 0) {
                continue;
            }
            uint32_t first = (uint32_t)vex_random_below(&bench->random, sealed);
            uint32_t count = 1 + (uint32_t)vex_random_below(&bench->random, sealed - first);
            struct vex_merge_job job = begin(bench, first, count);
            job.shape.graph = *graph;
            write_some(bench, 30); /* deaths and segments before the copy */
            vex_merge_run(&job, &full_speed);
            assert_int_equal(job.status, VEX_OK);
            for (uint32_t row = 0; job.merged && row < job.merged->writer.rows; row++) {
                assert_int_equal(vex_segment_death(&job.merged->writer.segment, row), 0);
            }
            if (job.merged && graph->m) {
                check_graph(job.merged);
                assert_int_equal(job.graph.nodes_count, job.merged->writer.rows);
                extended += job.graph.inserted < job.graph.nodes_count;
            }
            write_some(bench, 30); /* and after it */
            assert_true(vex_registry_end_merge(bench->registry, &bench->claim, &job.merged, NULL));
            assert_null(job.merged);
            check_all(bench);
            publish(bench);
            check_all(bench);
            merges++;
        }
        close_bench(bench);
    }
    assert_true(merges > 700);
    return extended;
}

static void merges_change_nothing(void **state)
{
    (void)state;
    assert_int_equal(merge_at_random(&(struct vex_graph_shape){0}), 0);
}

static void merges_extend_graphs(void **state)
{
    (void)state;
    uint64_t extended = merge_at_random(&(struct vex_graph_shape){.m = 8, .ef_construction = 40});
    assert_true(extended > 100);
}

/* A merge of everything, with a graph of this shape. Returns how many of its nodes were inserted. */
static uint32_t merge_all(struct bench *bench, uint32_t m, uint32_t ef)
{
    vex_registry_seal(bench->registry);
    struct vex_merge_job job = begin(bench, 0, bench->collection->homes_count);
    job.shape.graph = (struct vex_graph_shape){m, ef};
    vex_merge_run(&job, &full_speed);
    assert_int_equal(job.status, VEX_OK);
    check_graph(job.merged);
    uint32_t inserted = job.graph.inserted;
    assert_true(vex_registry_end_merge(bench->registry, &bench->claim, &job.merged, NULL));
    publish(bench);
    return inserted;
}

/* Links that were chosen with another effort must not pass for what is asked for now. */
static void another_graph_is_built_from_the_start(void **state)
{
    (void)state;
    struct bench *bench = open_bench(1);
    write_some(bench, 400);
    uint32_t rows = merge_all(bench, 8, 40);
    assert_int_equal(rows, bench->collection->live_rows);
    assert_int_equal(merge_all(bench, 8, 40), 0);
    assert_int_equal(merge_all(bench, 7, 40), 0); /* as many links */
    assert_int_equal(merge_all(bench, 8, 41), rows);
    assert_int_equal(merge_all(bench, 12, 41), rows);
    assert_int_equal(merge_all(bench, 12, 41), 0);
    close_bench(bench);
}

static void all_dead_leaves_no_segment(void **state)
{
    (void)state;
    struct bench *bench = open_bench(1);
    for (uint64_t id = 0; id < IDS; id++) {
        write_one(bench, id, false);
    }
    publish(bench);
    for (uint64_t id = 0; id < IDS; id++) {
        write_one(bench, id, true);
    }
    vex_registry_seal(bench->registry);
    struct vex_merge_job job = begin(bench, 0, bench->collection->homes_count);
    vex_merge_run(&job, &full_speed);
    assert_int_equal(job.status, VEX_OK);
    assert_null(job.merged);
    assert_true(vex_registry_end_merge(bench->registry, &bench->claim, &job.merged, NULL));
    publish(bench);
    check_all(bench);
    assert_int_equal(bench->collection->homes_count, 0);
    write_some(bench, 100);
    publish(bench);
    check_all(bench);
    close_bench(bench);
}

static void dropped_meanwhile(void **state)
{
    (void)state;
    struct bench *bench = open_bench(2);
    write_some(bench, 200);
    vex_registry_seal(bench->registry);
    struct vex_merge_job job = begin(bench, 0, bench->collection->homes_count);
    vex_merge_run(&job, &full_speed);
    assert_non_null(job.merged);
    vex_registry_drop(bench->registry, bench->collection, ++bench->lsn);
    struct vex_error error;
    assert_false(vex_registry_end_merge(bench->registry, &bench->claim, &job.merged, &error));
    assert_int_equal(error.status, VEX_ERR_GONE);
    assert_non_null(job.merged);
    vex_home_destroy(job.merged, true);
    publish(bench);
    close_bench(bench);
}

static bool give_up(void *context, uint64_t bytes)
{
    (void)context;
    (void)bytes;
    return false;
}

static void told_to_give_up(void **state)
{
    (void)state;
    struct bench *bench = open_bench(3);
    /* More than a slice: the pause is asked for at least once. */
    const struct vex_collection_facts facts = {.id = 2,
                                               .dim = 4096,
                                               .metric = VEX_METRIC_L2,
                                               .m = 16,
                                               .ef_construction = 200,
                                               .name = "wide"};
    struct vex_live_collection *wide = vex_registry_create(bench->registry, &facts, ++bench->lsn);
    float *vector = calloc(4096, sizeof(*vector));
    for (uint64_t id = 0; id < 80; id++) {
        const uint32_t none = 0;
        assert_int_equal(vex_registry_reserve(bench->registry, wide, 1, &none, NULL), VEX_OK);
        vex_registry_update_offset(bench->registry, wide, id, vector, NULL, 0, NULL, ++bench->lsn);
    }
    free(vector);
    vex_registry_seal(bench->registry);
    struct vex_merge_job job = {
        .lsn = bench->lsn,
        .shape = {.segment_id = vex_publisher_new_segment_id(bench->publisher),
                  .collection_id = 2,
                  .metric = VEX_METRIC_L2,
                  .dim = 4096},
        .sources_count = wide->homes_count,
    };
    memcpy(job.key, bench->key, sizeof(job.key));
    memcpy(job.sources, wide->homes, wide->homes_count * sizeof(job.sources[0]));
    const struct vex_pace impatient = {give_up, NULL};
    vex_merge_run(&job, &impatient);
    assert_int_equal(job.status, VEX_ERR_UNAVAILABLE);
    assert_null(job.merged);
    publish(bench);
    close_bench(bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_change_nothing),
        cmocka_unit_test(merges_extend_graphs),
        cmocka_unit_test(another_graph_is_built_from_the_start),
        cmocka_unit_test(all_dead_leaves_no_segment),
        cmocka_unit_test(dropped_meanwhile),
        cmocka_unit_test(told_to_give_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
