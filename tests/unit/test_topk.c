/* The k best, against sorting everything. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "index/topk.h"
#include "tests/lib/random.h"

#define OFFERS_MAX 600u

static uint64_t seed;

static int by_key_and_id(const void *left, const void *right)
{
    const struct vex_candidate *a = left;
    const struct vex_candidate *b = right;
    if (a->key != b->key) {
        return a->key < b->key ? -1 : 1;
    }
    return a->id < b->id ? -1 : a->id > b->id;
}

/* Offers all, checking the threshold on the way, and compares with the sorted beginning. */
static void check(const struct vex_candidate *offers, uint32_t count, uint32_t k)
{
    struct vex_candidate *sorted = malloc((count ? count : 1) * sizeof(*sorted));
    struct vex_candidate *heap = malloc(k * sizeof(*heap));
    assert_true(sorted && heap);
    struct vex_topk topk;
    vex_topk_init(&topk, heap, k);
    for (uint32_t i = 0; i < count; i++) {
        if (i < k) {
            assert_true(isinf(vex_topk_threshold(&topk)));
        } else {
            memcpy(sorted, offers, i * sizeof(*sorted));
            qsort(sorted, i, sizeof(*sorted), by_key_and_id);
            assert_true(vex_topk_threshold(&topk) == sorted[k - 1].key);
        }
        vex_topk_offer(&topk, &offers[i]);
        assert_int_equal(topk.count, i + 1 < k ? i + 1 : k);
    }
    vex_topk_finish(&topk);
    memcpy(sorted, offers, count * sizeof(*sorted));
    qsort(sorted, count, sizeof(*sorted), by_key_and_id);
    assert_int_equal(topk.count, count < k ? count : k);
    for (uint32_t i = 0; i < topk.count; i++) {
        assert_true(heap[i].key == sorted[i].key);
        assert_int_equal(heap[i].id, sorted[i].id);
        /* Segment and row belong to the id. */
        assert_int_equal(heap[i].segment, (uint32_t)(heap[i].id >> 3));
        assert_int_equal(heap[i].row, (uint32_t)(heap[i].id * 5));
    }
    free(heap);
    free(sorted);
}

enum order { RANDOM, RISING, FALLING, FEW_KEYS, ONE_KEY, EXTREMES, ORDERS_COUNT };

static double key_for(enum order order, uint32_t i, struct vex_random *random)
{
    static const double extremes[] = {0.0,     -0.0,         DBL_MAX,  -DBL_MAX,
                                      DBL_MIN, DBL_TRUE_MIN, INFINITY, -INFINITY};
    switch (order) {
    case RANDOM:
        return vex_random_between(random, -1, 1);
    case RISING:
        return i;
    case FALLING:
        return -(double)i;
    case FEW_KEYS:
        return (double)vex_random_below(random, 5);
    case ONE_KEY:
        return 42;
    case EXTREMES:
        return extremes[vex_random_below(random, 8)];
    case ORDERS_COUNT:
        break;
    }
    return 0;
}

static void the_k_best_of_any_order_are_kept_ties_going_to_the_lower_id(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed);
    const uint32_t ks[] = {1, 2, 3, 7, 10, 64, 100, OFFERS_MAX, OFFERS_MAX + 1};
    for (int order = 0; order < ORDERS_COUNT; order++) {
        for (size_t i = 0; i < sizeof(ks) / sizeof(*ks); i++) {
            for (int round = 0; round < 4; round++) {
                struct vex_candidate offers[OFFERS_MAX];
                uint32_t count = round == 0 ? 0 : (uint32_t)vex_random_below(&random, 200);
                count = round == 3 && i < 3 ? OFFERS_MAX : count;
                for (uint32_t j = 0; j < count; j++) {
                    uint64_t id = vex_random_below(&random, 1000);
                    offers[j] = (struct vex_candidate){key_for((enum order)order, j, &random), id,
                                                       (uint32_t)(id >> 3), (uint32_t)(id * 5)};
                }
                check(offers, count, ks[i]);
            }
        }
    }
}

static void the_largest_ids_are_ordered_as_numbers(void **state)
{
    (void)state;
    const uint64_t ids[] = {UINT64_MAX - 1, 0, (uint64_t)1 << 63, ((uint64_t)1 << 63) - 1, 1};
    struct vex_candidate offers[5];
    for (int i = 0; i < 5; i++) {
        offers[i] =
            (struct vex_candidate){1.0, ids[i], (uint32_t)(ids[i] >> 3), (uint32_t)(ids[i] * 5)};
    }
    for (uint32_t k = 1; k <= 6; k++) {
        check(offers, 5, k);
    }
}

int main(void)
{
    seed = vex_random_announce("test_topk");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_k_best_of_any_order_are_kept_ties_going_to_the_lower_id),
        cmocka_unit_test(the_largest_ids_are_ordered_as_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
