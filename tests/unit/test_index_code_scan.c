/*
 * Exact search of segments with codes against brute force in double precision: the same ids and the
 * same keys in the same order. Rows and queries are those of hard_rows.h; besides, rows are dead or not
 * yet visible, codes end before the rows do, and the limit comes from samples, walks or nowhere.
 *
 * The level of the kernels is chosen once in a process: VEX_ISA names the one to test, and a processor
 * that lacks it ends the program with 77.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "index/code_build.h"
#include "index/code_scan.h"
#include "index/exact.h"
#include "index/graph_build.h"
#include "tests/unit/hard_rows.h"
#include "tests/unit/level.h"

#define ROUNDS 16u
#define QUERIES_MAX 24u
#define K_MAX 64u
#define LSN 10u

static uint64_t seed;
static uint32_t cases;
static const enum vex_metric metrics[] = {VEX_METRIC_L2, VEX_METRIC_COSINE, VEX_METRIC_DOT};

/* ---- oracle ---------------------------------------------------------------------------------- */

static int by_key_and_id(const void *a, const void *b)
{
    const struct vex_candidate *x = a;
    const struct vex_candidate *y = b;
    return x->key != y->key ? (x->key > y->key) - (x->key < y->key)
                            : (x->id > y->id) - (x->id < y->id);
}

static void brute_force(const struct vex_view *view, const float *query, struct vex_candidate *all,
                        uint32_t *out_count)
{
    const struct vex_segment *segment = view->segments[0].segment;
    double norm = vex_exact_norm(query, view->dim);
    *out_count = 0;
    for (uint32_t row = 0; row < view->segments[0].visible_rows; row++) {
        if (vex_segment_alive(segment, row, view->lsn)) {
            all[(*out_count)++] = (struct vex_candidate){
                vex_exact_row_key(segment, query, norm, row), segment->ids[row], 0, row};
        }
    }
    qsort(all, *out_count, sizeof(*all), by_key_and_id);
}

static void compare(const struct vex_view *view, const struct hard_rows *rows, uint32_t k,
                    const char *what)
{
    uint32_t visible = view->segments[0].visible_rows;
    struct vex_candidate *all = calloc(visible + 1, sizeof(*all));
    struct vex_candidate *heaps = calloc((size_t)rows->queries_count * k, sizeof(*heaps));
    struct vex_topk *topks = calloc(rows->queries_count, sizeof(*topks));
    struct vex_search_counters counters = {0};
    if (!all || !heaps || !topks) {
        abort();
    }
    for (uint32_t q = 0; q < rows->queries_count; q++) {
        vex_topk_init(&topks[q], heaps + (size_t)q * k, k);
    }
    assert_int_equal(
        vex_index_flat.search(view, rows->queries, rows->queries_count, topks, &counters, NULL),
        VEX_OK);
    assert_int_equal(counters.rows_visited, (uint64_t)visible * rows->queries_count);
    for (uint32_t q = 0; q < rows->queries_count; q++) {
        uint32_t living;
        brute_force(view, rows->queries + (size_t)q * rows->dim, all, &living);
        vex_topk_finish(&topks[q]);
        assert_int_equal(topks[q].count, living < k ? living : k);
        for (uint32_t i = 0; i < topks[q].count; i++) {
            const struct vex_candidate *found = &topks[q].heap[i];
            if (found->id != all[i].id || found->key != all[i].key || found->row != all[i].row) {
                fail_msg(
                    "%s, metric %d, dim %u, k %u, query %u of %u: place %u is id %llu (%.17g), "
                    "should be %llu (%.17g)",
                    what, view->metric, view->dim, k, q, rows->queries_count, i,
                    (unsigned long long)found->id, found->key, (unsigned long long)all[i].id,
                    all[i].key);
            }
        }
        cases++;
    }
    free(all);
    free(heaps);
    free(topks);
}

/* ---- hard rows ------------------------------------------------------------------------------- */

static void kill_some(struct vex_segment_writer *writer, uint32_t odds, struct vex_random *random)
{
    for (uint32_t row = 0; row < writer->rows && odds; row++) {
        if (vex_segment_death(&writer->segment, row) == 0 && vex_random_once_in(random, odds)) {
            /* Some die later than this view. */
            vex_segment_kill(writer, row, LSN - 1 + vex_random_below(random, 3));
        }
    }
}

static void check_kind(uint32_t kind, enum vex_metric metric, struct vex_random *random)
{
    static const uint32_t odds[] = {0, 10, 2};
    uint32_t dim = 1 + (uint32_t)(vex_random_once_in(random, 6) ? vex_random_below(random, 1000)
                                                                : vex_random_below(random, 70));
    uint32_t rows_count = 1 + (uint32_t)vex_random_below(random, 700);
    uint32_t queries = 1 + (uint32_t)vex_random_below(random, QUERIES_MAX);
    struct hard_rows rows = hard_rows_make(kind, metric, dim, rows_count, queries, random);
    struct vex_segment_writer writer;
    enum vex_storage storage = (enum vex_storage)vex_random_below(random, 3);
    storage = hard_rows_fit(&rows, storage) ? storage : VEX_STORAGE_FLOAT32;
    hard_rows_segment(&rows, metric, storage, 0, &writer);
    assert_int_equal(vex_code_build(&writer, NULL, NULL), VEX_OK);
    kill_some(&writer, odds[vex_random_below(random, 3)], random);
    struct vex_segment segment = writer.segment;
    uint32_t visible = rows_count - (uint32_t)vex_random_below(random, 2) * (rows_count / 5);
    if (vex_random_once_in(random, 4)) {
        segment.codes.count -= rows_count / 3;
    }
    struct vex_view_segment part = {&segment, visible};
    struct vex_view view = {&part, 1, dim, metric, LSN, NULL};
    compare(&view, &rows, 1 + (uint32_t)vex_random_below(random, K_MAX), hard_rows_kind(kind));
    hard_rows_segment_free(&writer);
    hard_rows_free(&rows);
}

static void the_answer_is_that_of_brute_force(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        for (uint32_t kind = 0; kind < hard_rows_kinds(); kind++) {
            for (size_t m = 0; m < sizeof(metrics) / sizeof(*metrics); m++) {
                check_kind(kind, metrics[m], &random);
            }
        }
    }
    print_message("%u queries\n", cases);
}

/* ---- samples, walks, groups ------------------------------------------------------------------ */

static void check_large(uint32_t kind, enum vex_metric metric, uint32_t rows_count,
                        uint32_t queries, bool with_graph, struct vex_random *random)
{
    static const uint32_t ks[] = {1, 10, 200};
    struct hard_rows rows = hard_rows_make(kind, metric, 24, rows_count, queries, random);
    struct vex_segment_writer writer;
    struct vex_graph_shape shape = {.m = 16, .ef_construction = 60};
    hard_rows_segment(&rows, metric, VEX_STORAGE_FLOAT32, with_graph ? shape.m : 0, &writer);
    assert_int_equal(with_graph ? vex_graph_build(&writer, &shape, NULL, NULL, NULL)
                                : vex_code_build(&writer, NULL, NULL),
                     VEX_OK);
    for (uint32_t odds = 0; odds <= 6; odds += 3) {
        kill_some(&writer, odds, random);
        struct vex_view_segment part = {&writer.segment, rows_count - odds * 50};
        struct vex_view view = {&part, 1, rows.dim, metric, LSN, NULL};
        for (size_t i = 0; i < sizeof(ks) / sizeof(*ks); i++) {
            compare(&view, &rows, ks[i], hard_rows_kind(kind));
        }
    }
    hard_rows_segment_free(&writer);
    hard_rows_free(&rows);
}

static void a_sampled_limit_changes_nothing(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed);
    for (uint32_t kind = 0; kind < hard_rows_kinds(); kind++) {
        enum vex_metric metric = metrics[kind % 3];
        check_large(kind, metric, 2500 + kind, kind % 2 ? 1 : 9, false, &random);
    }
}

static void a_walked_limit_changes_nothing(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed);
    for (size_t m = 0; m < sizeof(metrics) / sizeof(*metrics); m++) {
        check_large(m == 1 ? 14 : 0, metrics[m], 8300, m == 1 ? 7 : 1, true, &random);
    }
}

static void more_queries_than_a_group_are_answered(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed);
    check_large(0, VEX_METRIC_L2, 2100, VEX_CODE_SCAN_GROUP + 37, false, &random);
}

/* A view of several segments: what one has found is the threshold of the next. */
static void segments_share_a_threshold(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed);
    struct hard_rows rows = hard_rows_make(14, VEX_METRIC_L2, 40, 3000, 9, &random);
    struct vex_segment_writer writer;
    struct vex_candidate heap[10];
    struct vex_candidate split_heap[10];
    hard_rows_segment(&rows, VEX_METRIC_L2, VEX_STORAGE_FLOAT32, 0, &writer);
    struct vex_segment plain = writer.segment;
    assert_int_equal(vex_code_build(&writer, NULL, NULL), VEX_OK);
    struct vex_view_segment whole = {&plain, 3000};
    struct vex_view view = {&whole, 1, 40, VEX_METRIC_L2, LSN, NULL};
    /* The same rows twice: every answer comes from both. */
    struct vex_view_segment twice[] = {{&plain, 3000}, {&writer.segment, 3000}};
    struct vex_view both = {twice, 2, 40, VEX_METRIC_L2, LSN, NULL};
    struct vex_search_counters counters = {0};
    for (uint32_t q = 0; q < rows.queries_count; q++) {
        const float *query = rows.queries + (size_t)q * rows.dim;
        struct vex_topk topk;
        struct vex_topk split;
        vex_topk_init(&topk, heap, 5);
        vex_topk_init(&split, split_heap, 10);
        (void)vex_index_flat.search(&view, query, 1, &topk, &counters, NULL);
        (void)vex_index_flat.search(&both, query, 1, &split, &counters, NULL);
        vex_topk_finish(&topk);
        vex_topk_finish(&split);
        for (uint32_t i = 0; i < 10; i++) {
            assert_int_equal(split.heap[i].id, topk.heap[i / 2].id);
            assert_true(split.heap[i].key == topk.heap[i / 2].key);
        }
    }
    hard_rows_segment_free(&writer);
    hard_rows_free(&rows);
}

/* ---- damage ---------------------------------------------------------------------------------- */

static void *bytes_of(const struct vex_segment_writer *writer, const void *part)
{
    return writer->base + ((const uint8_t *)part - writer->base);
}

/* Any answer will do that names living rows once. */
static void check_sanity(const struct vex_view *view, const struct hard_rows *rows)
{
    struct vex_candidate heaps[QUERIES_MAX][10];
    struct vex_topk topks[QUERIES_MAX];
    struct vex_search_counters counters = {0};
    for (uint32_t q = 0; q < rows->queries_count; q++) {
        vex_topk_init(&topks[q], heaps[q], 10);
    }
    assert_int_equal(
        vex_index_flat.search(view, rows->queries, rows->queries_count, topks, &counters, NULL),
        VEX_OK);
    for (uint32_t q = 0; q < rows->queries_count; q++) {
        for (uint32_t i = 0; i < topks[q].count; i++) {
            assert_true(topks[q].heap[i].row < view->segments[0].visible_rows);
            for (uint32_t j = 0; j < i; j++) {
                assert_int_not_equal(topks[q].heap[i].row, topks[q].heap[j].row);
            }
        }
    }
}

static void damaged_codes_do_no_harm(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed);
    for (uint32_t round = 0; round < 60; round++) {
        enum vex_metric metric = metrics[round % 3];
        struct hard_rows rows = hard_rows_make(0, metric, 33, 2300, round % 2 ? 9 : 1, &random);
        struct vex_segment_writer writer;
        hard_rows_segment(&rows, metric, VEX_STORAGE_FLOAT32, 0, &writer);
        assert_int_equal(vex_code_build(&writer, NULL, NULL), VEX_OK);
        struct vex_segment segment = writer.segment;
        const struct vex_codes *codes = &segment.codes;
        bool zeroed = round % 4 < 2;
        struct {
            const void *start;
            size_t bytes;
        } parts[] = {{codes->factors, 2300 * sizeof(uint32_t)},
                     {codes->angles, 2300 * sizeof(uint16_t)},
                     {codes->centre, 33 * sizeof(float)},
                     {codes->codes, 2300u * 64}};
        for (size_t i = 0; i < 4; i++) {
            void *at = bytes_of(&writer, parts[i].start);
            if (zeroed) {
                memset(at, 0, parts[i].bytes);
            } else {
                vex_random_fill(&random, at, parts[i].bytes);
            }
        }
        struct vex_view_segment part = {&segment, 2300};
        struct vex_view view = {&part, 1, 33, metric, LSN, NULL};
        check_sanity(&view, &rows);
        hard_rows_segment_free(&writer);
        hard_rows_free(&rows);
    }
}

int main(void)
{
    if (level_is_missing()) {
        return LEVEL_SKIPPED;
    }
    seed = vex_random_announce("test_index_code_scan");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_answer_is_that_of_brute_force),
        cmocka_unit_test(a_sampled_limit_changes_nothing),
        cmocka_unit_test(a_walked_limit_changes_nothing),
        cmocka_unit_test(more_queries_than_a_group_are_answered),
        cmocka_unit_test(segments_share_a_threshold),
        cmocka_unit_test(damaged_codes_do_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
