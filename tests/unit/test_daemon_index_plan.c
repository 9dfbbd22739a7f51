/*
 * Which index a segment is to have, as a table: every kind asked for, beside segments of every kind and size.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/index_plan.h"

#define COUNT_OF(array) (sizeof(array) / sizeof(*(array)))

static struct vex_collection_facts asking_for(enum vex_index_kind index, uint32_t m, uint32_t ef)
{
    return (struct vex_collection_facts){
        .id = 1, .dim = 8, .metric = VEX_METRIC_L2, .index = index, .m = m, .ef_construction = ef};
}

static struct vex_home home_of(uint32_t rows, uint32_t dead, uint32_t m, uint32_t ef)
{
    return (struct vex_home){
        .writer = {.rows = rows}, .shape = {.graph = {m, ef}}, .dead_rows = dead, .sealed = true};
}

static void a_graph_is_for_those_who_ask_and_have_the_rows(void **state)
{
    (void)state;
    const struct {
        enum vex_index_kind index;
        uint64_t rows;
        bool graph;
    } cases[] = {
        {VEX_INDEX_FLAT, 0, false},         {VEX_INDEX_FLAT, 1000000, false},
        {VEX_INDEX_HNSW, 1023, false},      {VEX_INDEX_HNSW, 1024, true},
        {VEX_INDEX_AUTO, 16383, false},     {VEX_INDEX_AUTO, 16384, true},
        {VEX_INDEX_HNSW, UINT32_MAX, true}, {VEX_INDEX_AUTO, 0, false},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        const struct vex_collection_facts facts = asking_for(cases[i].index, 24, 77);
        const struct vex_index_plan plan = vex_index_plan_for(&facts, cases[i].rows);
        assert_int_equal(plan.graph.m, cases[i].graph ? 24 : 0);
        assert_int_equal(plan.graph.ef_construction, cases[i].graph ? 77 : 0);
        assert_int_equal(vex_index_plan_is_bare(&plan), !cases[i].graph);
    }
}

static void what_is_not_as_asked_is_due_and_then_not_again(void **state)
{
    (void)state;
    const struct {
        enum vex_index_kind index;
        uint32_t m, ef;
        struct vex_home home;
        enum vex_index_fit fit;
        bool due;
    } cases[] = {
        /* None there. */
        {VEX_INDEX_FLAT, 16, 200, home_of(50000, 0, 0, 0), VEX_FIT_BARE, false},
        {VEX_INDEX_HNSW, 16, 200, home_of(1000, 0, 0, 0), VEX_FIT_BARE, false},
        {VEX_INDEX_HNSW, 16, 200, home_of(2000, 0, 0, 0), VEX_FIT_BARE, true},
        {VEX_INDEX_HNSW, 16, 200, home_of(2000, 1500, 0, 0), VEX_FIT_BARE, false},
        {VEX_INDEX_AUTO, 16, 200, home_of(2000, 0, 0, 0), VEX_FIT_BARE, false},
        {VEX_INDEX_AUTO, 16, 200, home_of(20000, 0, 0, 0), VEX_FIT_BARE, true},
        /* As asked, however few rows are left. */
        {VEX_INDEX_HNSW, 16, 200, home_of(2000, 0, 16, 200), VEX_FIT_ASKED, false},
        {VEX_INDEX_HNSW, 16, 200, home_of(2000, 1999, 16, 200), VEX_FIT_ASKED, false},
        {VEX_INDEX_AUTO, 16, 200, home_of(2000, 0, 16, 200), VEX_FIT_ASKED, false},
        /* As many links: 32. */
        {VEX_INDEX_HNSW, 12, 200, home_of(2000, 0, 16, 200), VEX_FIT_ASKED, false},
        /* Another. */
        {VEX_INDEX_HNSW, 17, 200, home_of(2000, 0, 16, 200), VEX_FIT_OTHER, true},
        {VEX_INDEX_HNSW, 16, 201, home_of(2000, 0, 16, 200), VEX_FIT_OTHER, true},
        {VEX_INDEX_AUTO, 32, 200, home_of(20000, 0, 16, 200), VEX_FIT_OTHER, true},
        {VEX_INDEX_FLAT, 16, 200, home_of(2000, 0, 16, 200), VEX_FIT_OTHER, true},
        {VEX_INDEX_IVF, 16, 200, home_of(2000, 0, 16, 200), VEX_FIT_OTHER, true},
        {VEX_INDEX_HNSW, 32, 200, home_of(500, 0, 16, 200), VEX_FIT_OTHER, true},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        const struct vex_collection_facts facts =
            asking_for(cases[i].index, cases[i].m, cases[i].ef);
        const struct vex_home *home = &cases[i].home;
        assert_int_equal(vex_index_fit_of(&facts, &home->shape), cases[i].fit);
        assert_int_equal(vex_index_is_due(&facts, home), cases[i].due);
        /* What upkeep makes of it is never due, or it would go on for ever. */
        uint32_t left = home->writer.rows - home->dead_rows;
        const struct vex_index_plan plan = vex_index_plan_for(&facts, left);
        struct vex_home made = home_of(left, 0, plan.graph.m, plan.graph.ef_construction);
        made.shape.capacity_rows = left;
        made.shape.lists = plan.lists ? vex_lists_count_for(left, plan.lists_wanted) : 0;
        assert_false(vex_index_is_due(&facts, &made));
    }
}

static void lists_are_due_where_they_are_asked_for_and_not_again(void **state)
{
    (void)state;
    const struct {
        enum vex_index_kind index;
        uint32_t asked;
        uint32_t rows;
        uint32_t there;
        enum vex_index_fit fit;
        bool due;
    } cases[] = {
        {VEX_INDEX_IVF, 0, 1000, 0, VEX_FIT_BARE, false},
        {VEX_INDEX_IVF, 0, 10000, 0, VEX_FIT_BARE, true},
        {VEX_INDEX_IVF, 0, 10000, 400, VEX_FIT_ASKED, false},
        {VEX_INDEX_IVF, 50, 10000, 400, VEX_FIT_OTHER, true},
        {VEX_INDEX_IVF, 50, 10000, 50, VEX_FIT_ASKED, false},
        {VEX_INDEX_IVF, 60000, 10000, 625, VEX_FIT_ASKED, false}, /* as many as the rows allow */
        {VEX_INDEX_HNSW, 0, 10000, 400, VEX_FIT_OTHER, true},
        {VEX_INDEX_FLAT, 0, 10000, 400, VEX_FIT_OTHER, true},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct vex_collection_facts facts = asking_for(cases[i].index, 16, 200);
        struct vex_home home = home_of(cases[i].rows, 0, 0, 0);
        facts.lists = cases[i].asked;
        home.shape.capacity_rows = cases[i].rows;
        home.shape.lists = cases[i].there;
        assert_int_equal(vex_index_fit_of(&facts, &home.shape), cases[i].fit);
        assert_int_equal(vex_index_is_due(&facts, &home), cases[i].due);
        const struct vex_index_plan plan = vex_index_plan_for(&facts, cases[i].rows);
        assert_int_equal(plan.lists,
                         cases[i].index == VEX_INDEX_IVF && cases[i].rows >= VEX_LISTS_ROWS_MIN);
        assert_true(vex_index_plan_is_bare(&plan) == (!plan.lists && plan.graph.m == 0));
        home = home_of(cases[i].rows, 0, plan.graph.m, plan.graph.ef_construction);
        home.shape.capacity_rows = cases[i].rows;
        home.shape.lists = plan.lists ? vex_lists_count_for(cases[i].rows, plan.lists_wanted) : 0;
        assert_false(vex_index_is_due(&facts, &home));
    }
}

static void a_level_is_as_asked_as_long_as_graphs_are(void **state)
{
    (void)state;
    const struct {
        enum vex_index_kind index;
        bool due;
    } cases[] = {
        {VEX_INDEX_HNSW, false},
        {VEX_INDEX_AUTO, false},
        {VEX_INDEX_FLAT, true},
        {VEX_INDEX_IVF, true},
    };
    struct vex_home level = home_of(3000, 0, 16, 50);
    level.is_level = true;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct vex_collection_facts facts = asking_for(cases[i].index, 16, 200);
        assert_int_equal(vex_index_fit_of_home(&facts, &level),
                         cases[i].due ? VEX_FIT_OTHER : VEX_FIT_ASKED);
        assert_int_equal(vex_index_is_due(&facts, &level), cases[i].due);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_graph_is_for_those_who_ask_and_have_the_rows),
        cmocka_unit_test(what_is_not_as_asked_is_due_and_then_not_again),
        cmocka_unit_test(a_level_is_as_asked_as_long_as_graphs_are),
        cmocka_unit_test(lists_are_due_where_they_are_asked_for_and_not_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
