/*
 * What judges exact searches must itself be right: it accepts what brute force finds and what differs from
 * it by rounding alone, and nothing else.
 */
#include "tests/bench/answers.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "tests/bench/common.h"

#define ROWS 300u
#define DIM 19u /* lanes and a rest */
#define QUERIES 5u
#define K 4u

struct world {
    float base_values[ROWS * DIM];
    float query_values[QUERIES * DIM];
    struct vex_vectors base;
    struct vex_vectors queries;
    struct vex_answers answers;
};

/* Whole numbers if `step` is 1: then many rows are equally far from a query. */
static void make_world(struct world *world, float step, enum vex_metric metric)
{
    uint64_t seed = 7;
    memset(world, 0, sizeof(*world));
    vex_data_fill(world->base_values, (size_t)ROWS * DIM, &seed);
    vex_data_fill(world->query_values, (size_t)QUERIES * DIM, &seed);
    for (size_t i = 0; i < (size_t)ROWS * DIM && step > 0; i++) {
        world->base_values[i] = (float)(int)(world->base_values[i] * 2 / step) * step;
    }
    for (size_t i = 0; i < (size_t)QUERIES * DIM && step > 0; i++) {
        world->query_values[i] = (float)(int)(world->query_values[i] * 2 / step) * step;
    }
    world->base = (struct vex_vectors){world->base_values, NULL, ROWS, DIM};
    world->queries = (struct vex_vectors){world->query_values, NULL, QUERIES, DIM};
    assert_true(
        vex_answers_find(&world->answers, &world->base, &world->queries, metric, K, QUERIES));
}

static struct vex_verdict judge(struct world *world, size_t query, const uint64_t *found)
{
    struct vex_verdict verdict = {0};
    vex_answers_judge(&world->answers, query, found, &verdict);
    assert_int_equal(verdict.same + verdict.tied + verdict.wrong, 1);
    return verdict;
}

static void finds_what_no_row_beats(void **state)
{
    (void)state;
    static struct world world;
    make_world(&world, 1, VEX_METRIC_L2);
    assert_true(world.answers.is_exact);
    for (size_t query = 0; query < QUERIES; query++) {
        double last = world.answers.distances[query * K + K - 1];
        uint64_t last_row = world.answers.rows[query * K + K - 1];
        size_t nearer = 0;
        for (uint64_t row = 0; row < ROWS; row++) {
            double distance = 0;
            for (uint32_t d = 0; d < DIM; d++) {
                double difference =
                    (double)world.base_values[row * DIM + d] - world.query_values[query * DIM + d];
                distance += difference * difference;
            }
            nearer += distance < last || (distance == last && row < last_row);
        }
        assert_int_equal(nearer, K - 1);
    }
    vex_answers_free(&world.answers);
}

static void wants_ties_by_id(void **state)
{
    (void)state;
    static struct world world;
    make_world(&world, 1, VEX_METRIC_L2);
    uint64_t found[K];
    size_t ties = 0;
    for (size_t query = 0; query < QUERIES; query++) {
        const uint64_t *rows = world.answers.rows + query * K;
        const double *distances = world.answers.distances + query * K;
        memcpy(found, rows, sizeof(found));
        assert_int_equal(judge(&world, query, found).same, 1);
        for (uint32_t i = 0; i + 1 < K; i++) {
            if (distances[i] == distances[i + 1]) {
                assert_true(rows[i] < rows[i + 1]);
                found[i] = rows[i + 1];
                found[i + 1] = rows[i];
                assert_int_equal(judge(&world, query, found).wrong, 1);
                memcpy(found, rows, sizeof(found));
                ties++;
            }
        }
    }
    assert_true(ties > 0);
    vex_answers_free(&world.answers);
}

static void refuses_rows_that_are_farther_or_twice_or_none(void **state)
{
    (void)state;
    static const enum vex_metric metrics[] = {VEX_METRIC_L2, VEX_METRIC_COSINE, VEX_METRIC_DOT};
    for (size_t m = 0; m < 3; m++) {
        static struct world world;
        make_world(&world, 0, metrics[m]);
        assert_false(world.answers.is_exact);
        uint64_t found[K];
        memcpy(found, world.answers.rows, sizeof(found));
        assert_int_equal(judge(&world, 0, found).same, 1);
        found[K - 1] = (found[K - 1] + 1) % ROWS;
        assert_int_equal(judge(&world, 0, found).wrong, 1);
        found[K - 1] = found[0];
        assert_int_equal(judge(&world, 0, found).wrong, 1);
        found[K - 1] = UINT64_MAX;
        assert_int_equal(judge(&world, 0, found).wrong, 1);
        memcpy(found, world.answers.rows, sizeof(found));
        found[0] = world.answers.rows[1];
        found[1] = world.answers.rows[0];
        assert_int_equal(judge(&world, 0, found).wrong, 1);
        vex_answers_free(&world.answers);
    }
}

/* Row 1 is three times row 0, so under cosine rounding alone can tell them apart; rows 2 and 3 are the same
 * bits. */
static void forgives_rounding_but_not_equal_rows(void **state)
{
    (void)state;
    static struct world world;
    make_world(&world, 0, VEX_METRIC_COSINE);
    vex_answers_free(&world.answers);
    for (uint32_t d = 0; d < DIM; d++) {
        /* Few enough binary places for three times the value to be exact. */
        float value = (float)(int)(world.query_values[d] * 4096) / 4096;
        world.query_values[d] = value;
        world.base_values[d] = value;
        world.base_values[DIM + d] = 3 * value;
        world.base_values[2 * DIM + d] = d == 0 ? value + 0.01f : value;
        world.base_values[3 * DIM + d] = world.base_values[2 * DIM + d];
    }
    assert_true(vex_answers_find(&world.answers, &world.base, &world.queries, VEX_METRIC_COSINE, K,
                                 QUERIES));
    const uint64_t *rows = world.answers.rows;
    assert_true(rows[0] + rows[1] == 1 && rows[2] == 2 && rows[3] == 3);
    uint64_t found[K] = {rows[1], rows[0], 2, 3};
    assert_int_equal(judge(&world, 0, found).tied, 1);
    uint64_t swapped[K] = {rows[0], rows[1], 3, 2};
    assert_int_equal(judge(&world, 0, swapped).wrong, 1);
    vex_answers_free(&world.answers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_what_no_row_beats),
        cmocka_unit_test(wants_ties_by_id),
        cmocka_unit_test(refuses_rows_that_are_farther_or_twice_or_none),
        cmocka_unit_test(forgives_rounding_but_not_equal_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
