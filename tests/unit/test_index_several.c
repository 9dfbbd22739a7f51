/*
 * Searches over several graphs: they find as much as one graph of all rows, for much less than as many searches,
 * and what is near in a small graph is found however much of it there is, and whatever around it is dead.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "index/index.h"
#include "tests/lib/random.h"

#define DIM 24u
#define K 10u
#define ROWS 16000u
#define QUERIES 200u
#define EF 120u
#define LSN 5u

struct part {
    struct vex_segment_writer writer;
    void *memory;
};

static float *rows;
static float *queries;

static int make_rows(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(7);
    rows = malloc((ROWS + QUERIES) * DIM * sizeof(*rows));
    assert_non_null(rows);
    for (uint32_t i = 0; i < ROWS + QUERIES; i++) {
        struct vex_random cluster = vex_random_seeded(vex_random_below(&random, 40) + 1000);
        for (uint32_t d = 0; d < DIM; d++) {
            rows[(size_t)i * DIM + d] = (float)(vex_random_between(&cluster, -1, 1) +
                                                vex_random_between(&random, -0.7, 0.7));
        }
    }
    queries = rows + (size_t)ROWS * DIM;
    return 0;
}

static int free_rows(void **state)
{
    (void)state;
    free(rows);
    return 0;
}

static void make_part(struct part *part, uint32_t first, uint32_t count)
{
    struct vex_segment_shape shape = {.segment_id = first + 1,
                                      .collection_id = 1,
                                      .metric = VEX_METRIC_L2,
                                      .dim = DIM,
                                      .capacity_rows = count,
                                      .codes = true,
                                      .graph = {12, 80}};
    size_t bytes = vex_segment_memory_bytes(&shape);
    part->memory = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    assert_non_null(part->memory);
    memset(part->memory, 0, bytes);
    vex_segment_create(&part->writer, &shape, part->memory);
    for (uint32_t i = first; i < first + count; i++) {
        (void)vex_segment_append(&part->writer, i, rows + (size_t)i * DIM, NULL, 0);
    }
    struct vex_error error;
    assert_int_equal(vex_graph_build(&part->writer, &shape.graph, NULL, NULL, &error), VEX_OK);
}

static double ask(const struct vex_index *index, struct part *const *parts, uint32_t count,
                  const float *query, struct vex_candidate found[K],
                  struct vex_search_counters *counters)
{
    struct vex_view_segment segments[4];
    for (uint32_t i = 0; i < count; i++) {
        segments[i] = (struct vex_view_segment){&parts[i]->writer.segment, parts[i]->writer.rows};
    }
    const struct vex_effort effort = {.ef = EF};
    const struct vex_view view = {.segments = segments,
                                  .segments_count = count,
                                  .dim = DIM,
                                  .metric = VEX_METRIC_L2,
                                  .lsn = LSN,
                                  .effort = &effort};
    struct vex_topk topk = {.heap = found, .k = K};
    assert_int_equal(index->search(&view, query, 1, &topk, counters, NULL), VEX_OK);
    assert_int_equal(topk.count, K);
    double farthest = 0;
    for (uint32_t i = 0; i < K; i++) {
        farthest = found[i].key > farthest ? found[i].key : farthest;
    }
    return farthest;
}

/* Answers that are no farther than the k-th nearest there is; *work: codes compared. */
static double recall_of(struct part *const *parts, uint32_t count, uint64_t *work)
{
    struct vex_search_counters counters = {0};
    struct vex_search_counters ignored = {0};
    struct vex_candidate found[K];
    uint32_t hits = 0;
    for (uint32_t i = 0; i < QUERIES; i++) {
        const float *query = queries + (size_t)i * DIM;
        double bound = ask(&vex_index_flat, parts, count, query, found, &ignored);
        (void)ask(&vex_index_hnsw, parts, count, query, found, &counters);
        for (uint32_t j = 0; j < K; j++) {
            hits += found[j].key <= bound;
        }
    }
    *work = counters.rows_visited;
    return (double)hits / (QUERIES * K);
}

static void several_graphs_cost_much_less_than_as_many_searches(void **state)
{
    (void)state;
    static const uint32_t cuts[][5] = {
        {0, 14400, 15200, ROWS, 0},   /* a large one and two small ones */
        {0, 4000, 8000, 12000, ROWS}, /* four alike */
    };
    struct part whole;
    make_part(&whole, 0, ROWS);
    struct part *const one[] = {&whole};
    uint64_t work_of_one = 0;
    double recall_of_one = recall_of(one, 1, &work_of_one);
    for (uint32_t c = 0; c < 2; c++) {
        struct part made[4];
        struct part *parts[4];
        uint32_t count = 0;
        uint64_t alone = 0;
        for (; count < 4 && cuts[c][count + 1]; count++) {
            make_part(&made[count], cuts[c][count], cuts[c][count + 1] - cuts[c][count]);
            parts[count] = &made[count];
            uint64_t work = 0;
            (void)recall_of(&parts[count], 1, &work);
            alone += work;
        }
        uint64_t together = 0;
        double recall = recall_of(parts, count, &together);
        assert_true(recall >= recall_of_one - 0.01);
        assert_true(recall > 0.95);
        assert_true(together * 4 < alone * 3);
        for (uint32_t i = 0; i < count; i++) {
            free(made[i].memory);
        }
    }
    free(whole.memory);
}

/* A graph of a tenth of the rows that has all of the nearest, and dead ones in front of them. */
static void a_small_graph_that_has_it_all_is_walked_until_it_is_found(void **state)
{
    (void)state;
    struct part large;
    struct part small;
    make_part(&large, 0, 14000);
    float *centre = queries;
    struct vex_random random = vex_random_seeded(9);
    for (uint32_t i = 14000; i < 15400; i++) {
        double spread = i % 10 == 0 ? 0.05 : 0.02; /* those that die are nearer */
        for (uint32_t d = 0; d < DIM; d++) {
            rows[(size_t)i * DIM + d] =
                centre[d] + (float)(spread * vex_random_between(&random, -1, 1));
        }
    }
    make_part(&small, 14000, 1400);
    struct part *const parts[] = {&large, &small};
    struct vex_candidate found[K];
    struct vex_candidate truth[K];
    struct vex_search_counters counters = {0};
    for (uint32_t turn = 0; turn < 2; turn++) {
        double bound = ask(&vex_index_flat, parts, 2, centre, truth, &counters);
        (void)ask(&vex_index_hnsw, parts, 2, centre, found, &counters);
        uint32_t hits = 0;
        for (uint32_t i = 0; i < K; i++) {
            hits += found[i].key <= bound;
            assert_int_equal(found[i].segment, 1);
            assert_true(turn == 0 || found[i].row % 10 == 0);
        }
        assert_true(hits >= K - 1);
        for (uint32_t row = 0; row < 1400 && turn == 0; row++) {
            if (row % 10 != 0) {
                vex_segment_kill(&small.writer, row, LSN - 1);
            }
        }
    }
    free(large.memory);
    free(small.memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(several_graphs_cost_much_less_than_as_many_searches),
        cmocka_unit_test(a_small_graph_that_has_it_all_is_walked_until_it_is_found),
    };
    return cmocka_run_group_tests(tests, make_rows, free_rows);
}
