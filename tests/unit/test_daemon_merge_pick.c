/*
 * Which merges are due, on collections that exist as numbers only: sizes of segments, who has a graph, who is
 * being merged, who has time. One test plays an hour of steady writing through the rules, with builders that
 * take as long as builders do, and counts what a search would meet.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "daemon/merge_pick.h"

#define HOMES_MAX 64u
#define M 16u
#define GRAPH true
#define BARE false

static struct vex_live_collection collection;
static struct vex_home homes[HOMES_MAX];
static struct vex_hour hour;
static struct vex_merge_claim claim;

static int reset(void **state)
{
    (void)state;
    memset(&collection, 0, sizeof(collection));
    memset(homes, 0, sizeof(homes));
    collection.facts.index = VEX_INDEX_HNSW;
    collection.facts.m = M;
    collection.facts.ef_construction = 100;
    hour = (struct vex_hour){.quiet_ms = 0, .is_free = {true, true, true}};
    return 0;
}

static void put_home(uint32_t at, uint32_t rows, bool graph)
{
    struct vex_home *home = &homes[at];
    memset(home, 0, sizeof(*home));
    home->writer.rows = rows;
    home->sealed = true;
    if (graph) {
        home->shape.graph.m = M;
        home->shape.graph.ef_construction = 100;
    }
    collection.homes[at] = home;
}

static struct vex_home *add(uint32_t rows, bool graph)
{
    uint32_t at = collection.homes_count++;
    put_home(at, rows, graph);
    collection.live_rows += rows;
    return &homes[at];
}

static void expect(uint32_t first, uint32_t count, enum vex_hand hand)
{
    struct vex_merge_pick pick;
    assert_true(vex_merge_pick_due(&pick, &collection, &hour));
    assert_int_equal(pick.first, first);
    assert_int_equal(pick.count, count);
    assert_int_equal(pick.hand, hand);
    assert_int_equal(pick.index.graph.m > 0, hand != VEX_HAND_WORKER);
}

static void expect_nothing(void)
{
    struct vex_merge_pick pick;
    assert_false(vex_merge_pick_due(&pick, &collection, &hour));
}

/* ---- levels ---------------------------------------------------------------------------------- */

static void a_tail_is_wanted_when_it_is_worth_a_walk_and_somebody_has_time(void **state)
{
    (void)state;
    add(100000, GRAPH);
    assert_false(vex_merge_wants_tail(&collection, &hour)); /* there is none */
    struct vex_home *tail = add(1023, BARE);
    tail->sealed = false;
    assert_false(vex_merge_wants_tail(&collection, &hour));
    tail->writer.rows = 1024;
    assert_true(vex_merge_wants_tail(&collection, &hour));
    hour.is_free[VEX_HAND_SMALL_BUILDER] = false;
    assert_false(vex_merge_wants_tail(&collection, &hour));
    hour.is_free[VEX_HAND_SMALL_BUILDER] = true;
    collection.facts.index = VEX_INDEX_FLAT;
    assert_false(vex_merge_wants_tail(&collection, &hour));
    collection.facts.index = VEX_INDEX_AUTO;
    assert_true(vex_merge_wants_tail(&collection, &hour)); /* of 100,000 rows in all */
    collection.live_rows = 5000;
    assert_false(vex_merge_wants_tail(&collection, &hour));
}

static void dead_rows_of_a_tail_do_not_count(void **state)
{
    (void)state;
    add(100000, GRAPH);
    struct vex_home *tail = add(3000, BARE);
    tail->sealed = false;
    tail->dead_rows = 2000;
    assert_false(vex_merge_wants_tail(&collection, &hour));
}

static void tails_wait_until_they_are_a_share_of_the_small_graph(void **state)
{
    (void)state;
    add(1000000, GRAPH);
    add(32000, GRAPH);
    struct vex_home *tail = add(1500, BARE);
    tail->sealed = false;
    assert_false(vex_merge_wants_tail(&collection, &hour));
    tail->writer.rows = 2000;
    assert_true(vex_merge_wants_tail(&collection, &hour));
}

static void the_small_graph_takes_in_tails_and_the_large_one_is_left_alone(void **state)
{
    (void)state;
    add(100000, GRAPH);
    add(1024, BARE);
    expect(1, 1, VEX_HAND_SMALL_BUILDER);
    put_home(1, 1024, GRAPH);
    expect_nothing();
    add(1024, BARE);
    add(300, BARE);
    expect(1, 3, VEX_HAND_SMALL_BUILDER);
}

static void a_small_graph_joins_the_large_one_when_it_is_its_eighth_or_large_itself(void **state)
{
    (void)state;
    add(100000, GRAPH);
    add(12499, GRAPH);
    expect_nothing();
    put_home(1, 12500, GRAPH);
    expect(0, 2, VEX_HAND_LARGE_BUILDER);
    put_home(0, 1000000, GRAPH);
    put_home(1, 32767, GRAPH);
    expect_nothing();
    put_home(1, 32768, GRAPH);
    expect(0, 2, VEX_HAND_LARGE_BUILDER);
}

static void what_goes_into_a_larger_graph_is_built_with_less_effort(void **state)
{
    (void)state;
    collection.facts.ef_construction = 200;
    add(100000, GRAPH)->shape.graph.ef_construction = 200;
    add(2000, BARE);
    struct vex_merge_pick pick;
    assert_true(vex_merge_pick_due(&pick, &collection, &hour));
    assert_true(pick.is_level);
    assert_int_equal(pick.index.graph.m, M);
    assert_int_equal(pick.index.graph.ef_construction, 50);
    /* It is not seen as one that was built for another wish. */
    put_home(1, 2000, GRAPH);
    homes[1].shape.graph.ef_construction = 50;
    homes[1].is_level = true;
    expect_nothing();
    /* What is made of both is no level. */
    hour.quiet_ms = 5000;
    assert_true(vex_merge_pick_due(&pick, &collection, &hour));
    assert_int_equal(pick.count, 2);
    assert_false(pick.is_level);
    assert_int_equal(pick.index.graph.ef_construction, 200);
    /* Nor is one whose larger graph has gone. */
    hour.quiet_ms = 0;
    collection.homes[0] = collection.homes[1];
    collection.homes_count = 1;
    collection.live_rows = 2000;
    assert_true(vex_merge_pick_due(&pick, &collection, &hour));
    assert_int_equal(pick.count, 1);
    assert_false(pick.is_level);
    assert_int_equal(pick.index.graph.ef_construction, 200);
}

static void while_the_large_builder_works_the_small_one_goes_on(void **state)
{
    (void)state;
    add(1000000, GRAPH)->claim = &claim;
    add(40000, GRAPH)->claim = &claim;
    hour.is_free[VEX_HAND_LARGE_BUILDER] = false;
    add(2000, BARE);
    expect(2, 1, VEX_HAND_SMALL_BUILDER);
    put_home(2, 2000, GRAPH);
    expect_nothing();
    add(2000, BARE);
    expect(2, 2, VEX_HAND_SMALL_BUILDER);
    hour.is_free[VEX_HAND_SMALL_BUILDER] = false;
    expect_nothing();
}

static void a_large_graph_with_many_dead_does_not_keep_tails_waiting(void **state)
{
    (void)state;
    add(1000000, GRAPH)->dead_rows = 400000;
    add(2000, BARE);
    expect(0, 1, VEX_HAND_LARGE_BUILDER);
    hour.is_free[VEX_HAND_LARGE_BUILDER] = false;
    expect(1, 1, VEX_HAND_SMALL_BUILDER);
}

static void in_silence_one_graph_is_left(void **state)
{
    (void)state;
    add(100000, GRAPH);
    add(2000, GRAPH);
    expect_nothing();
    hour.quiet_ms = 3000;
    expect(0, 2, VEX_HAND_LARGE_BUILDER);
    put_home(0, 1000000, GRAPH);
    expect_nothing();
    hour.quiet_ms = 30000;
    expect(0, 2, VEX_HAND_LARGE_BUILDER);
}

static void a_bulk_load_extends_the_graph_and_few_rows_get_none(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 3; i++) {
        add(300, BARE);
    }
    expect_nothing();
    collection.live_rows = 0;
    collection.homes_count = 0;
    add(60000, GRAPH);
    add(30000, BARE);
    add(30000, BARE);
    expect(0, 3, VEX_HAND_LARGE_BUILDER);
    collection.facts.index = VEX_INDEX_FLAT;
    collection.homes_count = 0;
    for (uint32_t i = 0; i < 4; i++) {
        expect_nothing();
        add(5000, BARE);
    }
    expect(0, 4, VEX_HAND_WORKER);
}

/* ---- an hour of writing ---------------------------------------------------------------------- */

struct builder {
    bool busy;
    bool is_level;
    struct vex_home *first;
    uint32_t count;
    uint64_t done_ms;
    uint32_t rows;
};

static uint32_t position_of(const struct vex_home *home)
{
    uint32_t at = 0;
    while (collection.homes[at] != home) {
        at++;
        assert_true(at < collection.homes_count);
    }
    return at;
}

static void finish(struct builder *builder)
{
    uint32_t first = position_of(builder->first);
    builder->busy = false;
    builder->first->claim = NULL;
    builder->first->writer.rows = builder->rows;
    builder->first->shape.graph = (struct vex_graph_shape){M, 100};
    builder->first->is_level = builder->is_level;
    uint32_t behind = first + builder->count;
    memmove(&collection.homes[first + 1], &collection.homes[behind],
            (collection.homes_count - behind) * sizeof(collection.homes[0]));
    collection.homes_count -= builder->count - 1;
}

static void start(struct builder *builder, const struct vex_merge_pick *pick, uint64_t now_ms)
{
    uint32_t largest = 0;
    builder->rows = 0;
    for (uint32_t i = pick->first; i < pick->first + pick->count; i++) {
        struct vex_home *home = collection.homes[i];
        assert_null(home->claim);
        home->claim = &claim;
        builder->rows += home->writer.rows;
        if (home->shape.graph.m && home->writer.rows > largest) {
            largest = home->writer.rows;
        }
    }
    /* 4 us to copy a row, 25 or 70 us to insert one. */
    uint64_t insertion_us = pick->is_level ? 25 : 70;
    uint64_t us = 4 * (uint64_t)builder->rows + insertion_us * (builder->rows - largest);
    builder->is_level = pick->is_level;
    builder->busy = true;
    builder->first = collection.homes[pick->first];
    builder->count = pick->count;
    builder->done_ms = now_ms + us / 1000;
}

static struct vex_home *free_home(void)
{
    for (uint32_t i = 0; i < HOMES_MAX; i++) {
        bool used = false;
        for (uint32_t j = 0; j < collection.homes_count; j++) {
            used = used || collection.homes[j] == &homes[i];
        }
        if (!used) {
            memset(&homes[i], 0, sizeof(homes[i]));
            return &homes[i];
        }
    }
    fail_msg("more than %u segments", HOMES_MAX);
    return NULL;
}

static void steady_writing_leaves_few_graphs_and_a_short_tail(void **state)
{
    (void)state;
    static const uint32_t rows_per_s[] = {1000, 5000};
    for (uint32_t rate = 0; rate < 2; rate++) {
        (void)reset(NULL);
        struct builder builders[VEX_HANDS] = {{0}};
        uint64_t bare_sum = 0;
        uint64_t graphs_sum = 0;
        uint32_t bare_most = 0;
        add(200000, GRAPH);
        for (uint64_t ms = 0; ms < 200000; ms++) {
            struct vex_home *tail = collection.homes[collection.homes_count - 1];
            if (tail->sealed) {
                tail = collection.homes[collection.homes_count++] = free_home();
            }
            tail->writer.rows += rows_per_s[rate] / 1000;
            collection.live_rows += rows_per_s[rate] / 1000;
            for (uint32_t hand = 1; hand < VEX_HANDS; hand++) {
                if (builders[hand].busy && builders[hand].done_ms <= ms) {
                    finish(&builders[hand]);
                }
                hour.is_free[hand] = !builders[hand].busy;
            }
            if (vex_merge_wants_tail(&collection, &hour)) {
                collection.homes[collection.homes_count - 1]->sealed = true;
            }
            struct vex_merge_pick pick;
            if (vex_merge_pick_due(&pick, &collection, &hour)) {
                assert_int_not_equal(pick.hand, VEX_HAND_WORKER);
                start(&builders[pick.hand], &pick, ms);
            }
            uint32_t bare = 0;
            for (uint32_t i = 0; i < collection.homes_count; i++) {
                const struct vex_home *home = collection.homes[i];
                bare += home->shape.graph.m ? 0 : home->writer.rows;
                graphs_sum += home->shape.graph.m > 0;
            }
            bare_sum += bare;
            bare_most = bare > bare_most ? bare : bare_most;
        }
        /* The large one, the one on its way into it, and the one that tails go to meanwhile. */
        assert_true((double)graphs_sum / 200000 < (rate == 0 ? 2.5 : 3.75));
        assert_true(bare_most < 6000);
        assert_true(bare_sum / 200000 < 2500);
    }
}

static void lists_are_no_level_of_a_graph_that_is_on_its_way_out(void **state)
{
    (void)state;
    add(100000, GRAPH);
    add(2000, BARE);
    collection.facts.index = VEX_INDEX_IVF;
    homes[0].claim = &claim; /* it is being made into lists */
    hour.is_free[VEX_HAND_LARGE_BUILDER] = false;
    struct vex_merge_pick pick;
    assert_true(vex_merge_pick_due(&pick, &collection, &hour));
    assert_int_equal(pick.first, 1);
    assert_int_equal(pick.count, 1);
    assert_true(pick.index.lists);
    assert_int_equal(pick.index.graph.m, 0);
    assert_false(pick.is_level);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_tail_is_wanted_when_it_is_worth_a_walk_and_somebody_has_time,
                               reset),
        cmocka_unit_test_setup(dead_rows_of_a_tail_do_not_count, reset),
        cmocka_unit_test_setup(tails_wait_until_they_are_a_share_of_the_small_graph, reset),
        cmocka_unit_test_setup(the_small_graph_takes_in_tails_and_the_large_one_is_left_alone,
                               reset),
        cmocka_unit_test_setup(
            a_small_graph_joins_the_large_one_when_it_is_its_eighth_or_large_itself, reset),
        cmocka_unit_test_setup(what_goes_into_a_larger_graph_is_built_with_less_effort, reset),
        cmocka_unit_test_setup(lists_are_no_level_of_a_graph_that_is_on_its_way_out, reset),
        cmocka_unit_test_setup(while_the_large_builder_works_the_small_one_goes_on, reset),
        cmocka_unit_test_setup(a_large_graph_with_many_dead_does_not_keep_tails_waiting, reset),
        cmocka_unit_test_setup(in_silence_one_graph_is_left, reset),
        cmocka_unit_test_setup(a_bulk_load_extends_the_graph_and_few_rows_get_none, reset),
        cmocka_unit_test_setup(steady_writing_leaves_few_graphs_and_a_short_tail, reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
