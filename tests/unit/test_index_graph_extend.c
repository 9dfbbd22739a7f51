/*
 * Graphs that take over the links of older ones, against exact search and against graphs built from
 * the start: after rows were added, after rows died, after every row was replaced five times; when the
 * layers grow and shrink, when the data moves away from the older codes, when the older image is
 * damaged, and when it is not worth extending at all.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "index/index.h"
#include "tests/lib/random.h"

#define K 10u
#define QUERIES 100u
#define CLUSTERS 12u
#define DIM_MAX 64u

static const struct vex_graph_shape usual = {.m = 8, .ef_construction = 60};

struct world {
    struct vex_segment_shape shape;
    struct vex_segment_writer writer;
    void *memory;
    uint64_t bytes;
};

static struct world new_world(enum vex_metric metric, uint32_t dim, uint32_t capacity)
{
    struct world world = {.shape = {.segment_id = 1,
                                    .collection_id = 1,
                                    .metric = metric,
                                    .dim = dim,
                                    .capacity_rows = capacity,
                                    .graph = usual}};
    world.bytes = vex_segment_memory_bytes(&world.shape);
    assert_true(world.bytes > 0);
    assert_int_equal(posix_memalign(&world.memory, 4096, world.bytes), 0);
    memset(world.memory, 0, world.bytes);
    vex_segment_create(&world.writer, &world.shape, world.memory);
    return world;
}

/* Rows around a few centres; `shift` moves them all, `scale` stretches them. */
static void random_vector(struct vex_random *random, uint32_t dim, double shift, double scale,
                          float *out)
{
    struct vex_random centre = vex_random_seeded(vex_random_below(random, CLUSTERS) * 7919 + 1);
    for (uint32_t d = 0; d < dim; d++) {
        double value = vex_random_between(&centre, -1, 1) + vex_random_between(random, -1, 1) * 0.5;
        out[d] = (float)((value + shift) * scale);
    }
}

static void add_rows(struct world *world, struct vex_random *random, uint64_t first_id,
                     uint32_t count)
{
    float vector[DIM_MAX];
    for (uint32_t i = 0; i < count; i++) {
        random_vector(random, world->shape.dim, 0, 1, vector);
        (void)vex_segment_append(&world->writer, first_id + i, vector, NULL, 0);
    }
}

/* The living rows of `from`, in order: returns what can be extended. */
static struct vex_graph_origin copy_living(struct world *to, const struct world *from, uint64_t lsn)
{
    const struct vex_segment *segment = &from->writer.segment;
    for (uint32_t row = 0; row < from->writer.rows; row++) {
        if (vex_segment_alive(segment, row, lsn)) {
            (void)vex_segment_append_row(&to->writer, segment, row);
        }
    }
    return (struct vex_graph_origin){segment, from->writer.rows, lsn};
}

static uint32_t kill_some(struct world *world, struct vex_random *random, uint32_t one_in,
                          uint64_t lsn)
{
    uint32_t killed = 0;
    for (uint32_t row = 0; row < world->writer.rows; row++) {
        if (vex_segment_death(&world->writer.segment, row) == 0 &&
            vex_random_once_in(random, one_in)) {
            vex_segment_kill(&world->writer, row, lsn);
            killed++;
        }
    }
    return killed;
}

static struct vex_graph_report extend(struct world *world, const struct vex_graph_origin *origin)
{
    struct vex_error error = {0};
    struct vex_graph_report report;
    if (vex_graph_extend(&world->writer, &world->shape.graph, origin, NULL, &report, &error) !=
            VEX_OK ||
        vex_graph_validate(&world->writer.segment, &error) != VEX_OK) {
        fail_msg("%s", error.message);
    }
    assert_int_equal(report.nodes_count, world->writer.rows);
    assert_int_equal(report.reached, world->writer.rows);
    return report;
}

static void ask(const struct vex_index *index, const struct world *world, uint32_t ef,
                const float *query, struct vex_candidate heap[K], struct vex_topk *topk)
{
    struct vex_view_segment part = {&world->writer.segment, world->writer.rows};
    struct vex_effort effort = {.ef = ef};
    struct vex_view view = {&part, 1, world->shape.dim, world->shape.metric, 1, &effort};
    struct vex_search_counters counters = {0};
    vex_topk_init(topk, heap, K);
    assert_int_equal(index->search(&view, query, 1, topk, &counters, NULL), VEX_OK);
    vex_topk_finish(topk);
}

/* Share of the exact answers that the graph finds. No row of a new segment is dead here. */
static double recall(const struct world *world, uint32_t ef)
{
    struct vex_random random = vex_random_seeded(99);
    uint32_t hits = 0;
    for (uint32_t i = 0; i < QUERIES; i++) {
        float query[DIM_MAX];
        struct vex_candidate exact_heap[K];
        struct vex_candidate heap[K];
        struct vex_topk exact;
        struct vex_topk found;
        random_vector(&random, world->shape.dim, 0, 1, query);
        ask(&vex_index_flat, world, 0, query, exact_heap, &exact);
        ask(&vex_index_hnsw, world, ef, query, heap, &found);
        assert_int_equal(found.count, exact.count);
        for (uint32_t j = 0; j < found.count; j++) {
            hits += heap[j].key <= exact_heap[exact.count - 1].key;
            for (uint32_t other = 0; other < j; other++) {
                assert_true(heap[other].id != heap[j].id);
            }
        }
    }
    return hits / (double)(QUERIES * K);
}

static double recall_from_the_start(const struct world *like, uint32_t ef)
{
    struct world fresh = new_world(like->shape.metric, like->shape.dim, like->writer.rows);
    (void)copy_living(&fresh, like, 1);
    struct vex_graph_report report = extend(&fresh, NULL);
    assert_int_equal(report.inserted, fresh.writer.rows);
    double share = recall(&fresh, ef);
    free(fresh.memory);
    return share;
}

static void expect_recall_of_a_fresh_one(const struct world *world, uint32_t ef, double tolerance)
{
    double fresh = recall_from_the_start(world, ef);
    double share = recall(world, ef);
    if (share < fresh - tolerance) {
        fail_msg("metric %d: recall %.4f, built from the start %.4f", world->shape.metric, share,
                 fresh);
    }
}

static struct world make_world(enum vex_metric metric, uint32_t dim, uint32_t rows,
                               struct vex_random *random)
{
    struct world world = new_world(metric, dim, rows);
    add_rows(&world, random, 0, rows);
    (void)extend(&world, NULL);
    return world;
}

/* ---- what it finds --------------------------------------------------------------------------- */

static void new_rows_join_the_old_ones(void **state)
{
    (void)state;
    static const enum vex_metric metrics[] = {VEX_METRIC_L2, VEX_METRIC_COSINE, VEX_METRIC_DOT};
    for (size_t i = 0; i < 3; i++) {
        struct vex_random random = vex_random_seeded(i + 1);
        struct world old = make_world(metrics[i], 24, 3000, &random);
        struct world new = new_world(metrics[i], 24, 4000);
        struct vex_graph_origin origin = copy_living(&new, &old, 1);
        add_rows(&new, &random, 10000, 1000);
        struct vex_graph_report report = extend(&new, &origin);
        assert_int_equal(report.inserted, 1000);
        assert_true(report.codes_kept);
        expect_recall_of_a_fresh_one(&new, 40, 0.01);
        free(old.memory);
        free(new.memory);
    }
}

static void what_was_linked_to_the_dead_is_healed(void **state)
{
    (void)state;
    static const uint32_t one_in[] = {10, 4, 3};
    for (size_t i = 0; i < 3; i++) {
        struct vex_random random = vex_random_seeded(i + 1);
        struct world old = make_world(VEX_METRIC_L2, 24, 4000, &random);
        uint32_t dead = kill_some(&old, &random, one_in[i], 7);
        struct world new = new_world(VEX_METRIC_L2, 24, 4000 - dead);
        struct vex_graph_origin origin = copy_living(&new, &old, 7);
        struct vex_graph_report report = extend(&new, &origin);
        assert_int_equal(report.inserted, 0);
        assert_true(report.mean_degree > 15); /* of 16, a third of which may have died */
        expect_recall_of_a_fresh_one(&new, 40, 0.01);
        free(old.memory);
        free(new.memory);
    }
}

static void deaths_after_the_lsn_do_not_count(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(3);
    struct world old = make_world(VEX_METRIC_L2, 8, 1000, &random);
    uint32_t dead = kill_some(&old, &random, 10, 5);
    (void)kill_some(&old, &random, 10, 6);
    struct world new = new_world(VEX_METRIC_L2, 8, 1000 - dead);
    struct vex_graph_origin origin = copy_living(&new, &old, 5);
    assert_int_equal(new.writer.rows, 1000 - dead);
    struct vex_graph_report report = extend(&new, &origin);
    assert_int_equal(report.inserted, 0);
    free(old.memory);
    free(new.memory);
}

/* Every row is replaced five times, a fifteenth at a time. */
static void recall_survives_five_turnovers(void **state)
{
    (void)state;
    static const enum vex_metric metrics[] = {VEX_METRIC_L2, VEX_METRIC_DOT};
    for (size_t m = 0; m < 2; m++) {
        struct vex_random random = vex_random_seeded(m + 1);
        struct world now = make_world(metrics[m], 24, 3000, &random);
        uint64_t next_id = 100000;
        for (uint64_t lsn = 2; lsn < 2 + 75; lsn++) {
            /* The oldest fifteenth is the first in the segment's order. */
            for (uint32_t row = 0; row < 200; row++) {
                vex_segment_kill(&now.writer, row, lsn);
            }
            struct world next = new_world(metrics[m], 24, 3000);
            struct vex_graph_origin origin = copy_living(&next, &now, lsn);
            add_rows(&next, &random, next_id, 200);
            next_id += 200;
            struct vex_graph_report report = extend(&next, &origin);
            assert_int_equal(report.inserted, 200);
            free(now.memory);
            now = next;
        }
        expect_recall_of_a_fresh_one(&now, 20, 0.01);
        expect_recall_of_a_fresh_one(&now, 60, 0.005);
        free(now.memory);
    }
}

static void layers_grow_and_shrink(void **state)
{
    (void)state;
    /* 16416 nodes are the first to have 513 above them, and so a third layer. */
    static const uint32_t sizes[] = {16000, 17000, 15500};
    struct vex_random random = vex_random_seeded(1);
    struct world now = make_world(VEX_METRIC_L2, 8, sizes[0], &random);
    for (uint64_t step = 1; step < 3; step++) {
        struct world next = new_world(VEX_METRIC_L2, 8, sizes[step]);
        uint32_t keep = now.writer.rows < sizes[step] ? now.writer.rows : sizes[step];
        for (uint32_t row = keep; row < now.writer.rows; row++) {
            vex_segment_kill(&now.writer, row, step);
        }
        struct vex_graph_origin origin = copy_living(&next, &now, step);
        add_rows(&next, &random, step * 100000, sizes[step] - keep);
        struct vex_graph_report report = extend(&next, &origin);
        assert_int_equal(report.inserted, sizes[step] - keep);
        assert_int_equal(next.writer.segment.graph.layers_count, step == 1 ? 3 : 2);
        assert_true(recall(&next, 60) > 0.97);
        free(now.memory);
        now = next;
    }
    free(now.memory);
}

static void copies_and_zeros_stay_reachable(void **state)
{
    (void)state;
    const float zero[8] = {0};
    struct vex_random random = vex_random_seeded(1);
    struct world old = new_world(VEX_METRIC_L2, 8, 600);
    for (uint64_t id = 0; id < 600; id++) {
        (void)vex_segment_append(&old.writer, id, zero, NULL, 0);
    }
    (void)extend(&old, NULL);
    uint32_t dead = kill_some(&old, &random, 5, 2);
    struct world new = new_world(VEX_METRIC_L2, 8, 600);
    struct vex_graph_origin origin = copy_living(&new, &old, 2);
    add_rows(&new, &random, 1000, dead / 2);
    for (uint64_t id = 2000; new.writer.rows < 600; id++) {
        (void)vex_segment_append(&new.writer, id, zero, NULL, 0);
    }
    struct vex_graph_report report = extend(&new, &origin);
    assert_int_equal(report.inserted, dead);
    free(old.memory);
    free(new.memory);
}

/* ---- codes ----------------------------------------------------------------------------------- */

static void codes_are_kept_until_the_data_moves_away(void **state)
{
    (void)state;
    static const struct {
        double shift;
        double scale;
        bool kept;
    } cases[] = {{0, 1, true}, {0.02, 1, true}, {3, 1, false}, {0, 100, false}, {0, 0.1, false}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct vex_random random = vex_random_seeded(i + 1);
        struct world old = make_world(VEX_METRIC_L2, 24, 1000, &random);
        uint32_t dead = kill_some(&old, &random, 3, 2);
        struct world new = new_world(VEX_METRIC_L2, 24, 1000 - dead + 1200);
        struct vex_graph_origin origin = copy_living(&new, &old, 2);
        for (uint64_t id = 5000; id < 6200; id++) {
            float vector[24];
            random_vector(&random, 24, cases[i].shift, cases[i].scale, vector);
            (void)vex_segment_append(&new.writer, id, vector, NULL, 0);
        }
        struct vex_graph_report report = extend(&new, &origin);
        assert_int_equal(report.inserted, 1200); /* links are kept either way */
        assert_int_equal(report.codes_kept, cases[i].kept);
        const struct vex_codes *before = &old.writer.segment.codes;
        const struct vex_codes *after = &new.writer.segment.codes;
        assert_int_equal(memcmp(before->centre, after->centre, 24 * sizeof(float)) == 0,
                         cases[i].kept);
        uint32_t row = 0;
        for (uint32_t other = 0; other < 1000 && cases[i].kept; other++) {
            if (vex_segment_death(&old.writer.segment, other) == 0) {
                size_t bytes = before->padded / 2;
                assert_memory_equal(before->codes + other * bytes, after->codes + row * bytes,
                                    bytes);
                assert_int_equal(before->factors[other], after->factors[row]);
                assert_int_equal(before->angles[other], after->angles[row]);
                row++;
            }
        }
        if (cases[i].scale >= 1) { /* a dense lump between clusters hides them from a walk */
            expect_recall_of_a_fresh_one(&new, 60, 0.01);
        }
        free(old.memory);
        free(new.memory);
    }
}

/* ---- when it is not worth it ----------------------------------------------------------------- */

static uint32_t inserted_after(uint32_t rows, uint32_t one_in_dead, uint32_t added,
                               const struct vex_graph_shape *shape)
{
    struct vex_random random = vex_random_seeded(1);
    struct world old = make_world(VEX_METRIC_L2, 8, rows, &random);
    uint32_t dead = one_in_dead ? kill_some(&old, &random, one_in_dead, 2) : 0;
    struct world new = new_world(VEX_METRIC_L2, 8, 1);
    free(new.memory);
    new.shape.graph = *shape;
    new.shape.capacity_rows = rows - dead + added;
    new.bytes = vex_segment_memory_bytes(&new.shape);
    assert_int_equal(posix_memalign(&new.memory, 4096, new.bytes), 0);
    memset(new.memory, 0, new.bytes);
    vex_segment_create(&new.writer, &new.shape, new.memory);
    struct vex_graph_origin origin = copy_living(&new, &old, 2);
    add_rows(&new, &random, 10000, added);
    struct vex_graph_report report = extend(&new, &origin);
    uint32_t left = new.writer.rows - report.inserted;
    free(old.memory);
    free(new.memory);
    return left;
}

static void small_or_dead_origins_are_not_extended(void **state)
{
    (void)state;
    assert_int_equal(inserted_after(600, 0, 1200, &usual), 600);
    assert_int_equal(inserted_after(600, 0, 1801, &usual), 0); /* less than a quarter */
    assert_true(inserted_after(600, 3, 100, &usual) > 300);
    assert_int_equal(inserted_after(600, 1, 100, &usual), 0); /* all dead */
    const struct vex_graph_shape wider = {.m = 16, .ef_construction = 60};
    assert_int_equal(inserted_after(600, 0, 100, &wider), 0);
}

static void origins_without_a_graph_are_not_extended(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(1);
    struct world old = new_world(VEX_METRIC_L2, 8, 500);
    add_rows(&old, &random, 0, 500);
    struct world new = new_world(VEX_METRIC_L2, 8, 500);
    struct vex_graph_origin origin = copy_living(&new, &old, 1);
    assert_int_equal(extend(&new, &origin).inserted, 500);
    free(old.memory);
    free(new.memory);
}

/* ---- how it is built ------------------------------------------------------------------------- */

static void the_same_steps_give_the_same_bytes(void **state)
{
    (void)state;
    struct world ends[2];
    for (size_t i = 0; i < 2; i++) {
        struct vex_random random = vex_random_seeded(5);
        struct world old = make_world(VEX_METRIC_COSINE, 24, 1500, &random);
        uint32_t dead = kill_some(&old, &random, 6, 2);
        ends[i] = new_world(VEX_METRIC_COSINE, 24, 1500 - dead + 500);
        struct vex_graph_origin origin = copy_living(&ends[i], &old, 2);
        add_rows(&ends[i], &random, 10000, 500);
        assert_int_equal(extend(&ends[i], &origin).inserted, 500);
        free(old.memory);
    }
    assert_int_equal(ends[0].bytes, ends[1].bytes);
    assert_memory_equal(ends[0].memory, ends[1].memory, ends[0].bytes);
    free(ends[0].memory);
    free(ends[1].memory);
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

static void threads_share_it(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(1);
    struct world old = make_world(VEX_METRIC_L2, 24, 3000, &random);
    uint32_t dead = kill_some(&old, &random, 4, 2);
    struct world new = new_world(VEX_METRIC_L2, 24, 4000 - dead);
    struct vex_graph_origin origin = copy_living(&new, &old, 2);
    add_rows(&new, &random, 10000, 1000);
    struct vex_graph_build *shared = NULL;
    struct hand hands[3];
    assert_int_equal(vex_graph_build_new(&new.writer, &usual, &origin, &shared, NULL), VEX_OK);
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
    assert_int_equal(report.inserted, 1000);
    assert_int_equal(report.reached, new.writer.rows);
    assert_int_equal(vex_graph_validate(&new.writer.segment, NULL), VEX_OK);
    expect_recall_of_a_fresh_one(&new, 60, 0.01);
    free(old.memory);
    free(new.memory);
}

static bool give_up_after(void *context)
{
    uint32_t *left = context;
    return (*left)-- > 0;
}

static void what_is_given_up_leaves_no_graph(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(1);
    struct world old = make_world(VEX_METRIC_L2, 8, 800, &random);
    struct world new = new_world(VEX_METRIC_L2, 8, 900);
    struct vex_graph_origin origin = copy_living(&new, &old, 1);
    add_rows(&new, &random, 10000, 100);
    uint32_t calls = 0;
    for (;; calls += 3) {
        uint32_t left = calls;
        struct vex_build_pace pace = {give_up_after, &left};
        enum vex_status status = vex_graph_extend(&new.writer, &usual, &origin, &pace, NULL, NULL);
        if (status == VEX_OK) {
            break;
        }
        assert_int_equal(status, VEX_ERR_UNAVAILABLE);
        struct vex_segment attached;
        assert_int_equal(vex_segment_attach(&attached, new.memory, new.bytes, NULL), VEX_OK);
        assert_int_equal(attached.graph.nodes_count, 0);
    }
    assert_true(calls > 30);
    assert_int_equal(vex_graph_validate(&new.writer.segment, NULL), VEX_OK);
    free(old.memory);
    free(new.memory);
}

/* Links that lead anywhere give a poor graph, but a sound one. */
static void damaged_origins_do_no_harm(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct vex_random random = vex_random_seeded(seed);
        struct world old = make_world(VEX_METRIC_L2, 8, 2000, &random);
        struct vex_index_parts parts;
        vex_segment_parts(&old.writer, &parts);
        for (unsigned part = VEX_PART_GRAPH_ROWS; part <= VEX_PART_GRAPH_UPPER; part++) {
            uint8_t *start = old.writer.base + (parts.start[part] - old.writer.base);
            for (uint64_t i = 0; i < parts.bytes[part]; i += 4) {
                if (vex_random_once_in(&random, seed)) {
                    vex_random_fill(&random, start + i, seed % 2 ? 4 : 1);
                }
            }
        }
        uint32_t dead = kill_some(&old, &random, 5, 2);
        struct world new = new_world(VEX_METRIC_L2, 8, 2000 - dead + 100);
        struct vex_graph_origin origin = copy_living(&new, &old, 2);
        add_rows(&new, &random, 10000, 100);
        struct vex_error error = {0};
        struct vex_graph_report report;
        assert_int_equal(vex_graph_extend(&new.writer, &usual, &origin, NULL, &report, &error),
                         VEX_OK);
        struct vex_segment attached;
        assert_int_equal(vex_segment_attach(&attached, new.memory, new.bytes, NULL), VEX_OK);
        enum vex_status status = vex_graph_validate(&new.writer.segment, &error);
        if (status != VEX_OK && report.reached == new.writer.rows) {
            fail_msg("%s", error.message);
        }
        free(old.memory);
        free(new.memory);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(new_rows_join_the_old_ones),
        cmocka_unit_test(what_was_linked_to_the_dead_is_healed),
        cmocka_unit_test(deaths_after_the_lsn_do_not_count),
        cmocka_unit_test(recall_survives_five_turnovers),
        cmocka_unit_test(layers_grow_and_shrink),
        cmocka_unit_test(copies_and_zeros_stay_reachable),
        cmocka_unit_test(codes_are_kept_until_the_data_moves_away),
        cmocka_unit_test(small_or_dead_origins_are_not_extended),
        cmocka_unit_test(origins_without_a_graph_are_not_extended),
        cmocka_unit_test(the_same_steps_give_the_same_bytes),
        cmocka_unit_test(threads_share_it),
        cmocka_unit_test(what_is_given_up_leaves_no_graph),
        cmocka_unit_test(damaged_origins_do_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
