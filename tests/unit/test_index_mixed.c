/*
 * Views whose segments are of every kind at once (rows alone, codes, a graph, lists), as a collection
 * has them while its index is changed or its tail grows, of every storage and metric, over rows made
 * to be hard (hard_rows.h), with dead and not yet visible rows, one query or many, small and huge k.
 *
 * Exact search must be brute force, to the bit. The others may miss rows, but must fill k with living
 * rows at their true distances, each once.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "index/code_build.h"
#include "index/exact.h"
#include "index/graph_build.h"
#include "index/index.h"
#include "index/kmeans.h"
#include "index/list_build.h"
#include "tests/unit/hard_rows.h"
#include "tests/unit/level.h"

#define ROUNDS 150u
#define PARTS_MAX 5u
#define QUERIES_MAX 20u
#define LSN 10u

static uint64_t seed;

enum kind { PLAIN, CODES, GRAPH, LISTS, KINDS_COUNT };

struct mixed {
    struct vex_segment_writer writers[PARTS_MAX];
    struct vex_view_segment parts[PARTS_MAX];
    struct vex_view view;
    struct vex_random *random;
    uint32_t rows_total;
    struct vex_candidate *all;
    char what[512];
};

static const float *row_of(void *context, uint32_t i, float *buffer, float *out_norm)
{
    (void)buffer;
    const struct hard_rows *rows = context;
    const float *row = rows->rows + (size_t)i * rows->dim;
    *out_norm = (float)vex_exact_norm(row, rows->dim);
    return row;
}

static void append_all(struct vex_segment_writer *writer, const struct hard_rows *rows,
                       const uint32_t *order, uint64_t first_id)
{
    for (uint32_t i = 0; i < rows->rows_count; i++) {
        uint32_t row = order ? order[i] : i;
        uint64_t id = first_id + (uint64_t)row * 7919 % rows->rows_count;
        (void)vex_segment_append(writer, id, rows->rows + (size_t)row * rows->dim, NULL, 0);
    }
}

static void build_lists(struct vex_segment_writer *writer, struct hard_rows *rows, uint32_t lists,
                        uint64_t first_id)
{
    const struct vex_kmeans_input input = {.rows_count = rows->rows_count,
                                           .dim = rows->dim,
                                           .metric = writer->segment.metric,
                                           .lists = lists,
                                           .row = row_of,
                                           .context = rows};
    struct vex_clusters clusters;
    assert_int_equal(vex_kmeans_run(&input, &clusters, NULL), VEX_OK);
    append_all(writer, rows, clusters.order, first_id);
    vex_lists_arrange(writer, clusters.starts, lists);
    vex_clusters_deinit(&clusters);
    assert_int_equal(vex_lists_build(writer, lists, NULL, NULL), VEX_OK);
}

static void add_part(struct mixed *mixed, enum kind kind, struct hard_rows *rows,
                     enum vex_storage storage)
{
    uint32_t s = mixed->view.segments_count++;
    struct vex_segment_writer *writer = &mixed->writers[s];
    struct vex_segment_shape shape = {
        .segment_id = s + 1,
        .collection_id = 1,
        .metric = mixed->view.metric,
        .storage = storage,
        .dim = rows->dim,
        .capacity_rows = rows->rows_count,
        .codes = kind == CODES,
        .graph = {.m = kind == GRAPH ? 4 : 0, .ef_construction = 30},
        .lists = kind == LISTS ? vex_lists_count_for(rows->rows_count, 0) : 0,
    };
    uint64_t bytes = vex_segment_memory_bytes(&shape);
    void *memory = NULL;
    assert_int_equal(posix_memalign(&memory, 4096, bytes), 0);
    memset(memory, 0, bytes);
    vex_segment_create(writer, &shape, memory);
    if (kind == LISTS) {
        build_lists(writer, rows, shape.lists, mixed->rows_total + 1);
    } else {
        append_all(writer, rows, NULL, mixed->rows_total + 1);
    }
    if (kind == CODES) {
        assert_int_equal(vex_code_build(writer, NULL, NULL), VEX_OK);
    } else if (kind == GRAPH) {
        assert_int_equal(vex_graph_build(writer, &shape.graph, NULL, NULL, NULL), VEX_OK);
    }
    mixed->rows_total += rows->rows_count;
}

static void kill_some(struct mixed *mixed, uint32_t s)
{
    static const uint32_t odds[] = {0, 10, 2, 1};
    uint32_t odd = odds[vex_random_below(mixed->random, 4)];
    struct vex_segment_writer *writer = &mixed->writers[s];
    for (uint32_t row = 0; row < writer->rows && odd; row++) {
        if (vex_random_once_in(mixed->random, odd) && !vex_random_once_in(mixed->random, 30)) {
            vex_segment_kill(writer, row, LSN - 1 + vex_random_below(mixed->random, 3));
        }
    }
}

static int by_key_and_id(const void *a, const void *b)
{
    const struct vex_candidate *x = a;
    const struct vex_candidate *y = b;
    return x->key != y->key ? (x->key > y->key) - (x->key < y->key)
                            : (x->id > y->id) - (x->id < y->id);
}

static uint32_t brute_force(struct mixed *mixed, const float *query)
{
    const struct vex_view *view = &mixed->view;
    double norm = vex_exact_norm(query, view->dim);
    uint32_t count = 0;
    for (uint32_t s = 0; s < view->segments_count; s++) {
        const struct vex_segment *segment = view->segments[s].segment;
        for (uint32_t row = 0; row < view->segments[s].visible_rows; row++) {
            if (vex_segment_alive(segment, row, view->lsn)) {
                mixed->all[count++] = (struct vex_candidate){
                    vex_exact_row_key(segment, query, norm, row), segment->ids[row], s, row};
            }
        }
    }
    qsort(mixed->all, count, sizeof(*mixed->all), by_key_and_id);
    return count;
}

static void check_exact(const struct mixed *mixed, const struct vex_topk *topk, uint32_t living)
{
    assert_int_equal(topk->count, living < topk->k ? living : topk->k);
    for (uint32_t i = 0; i < topk->count; i++) {
        if (topk->heap[i].id != mixed->all[i].id || topk->heap[i].key != mixed->all[i].key) {
            fail_msg("%s: place %u is %llu (%.17g), should be %llu (%.17g)", mixed->what, i,
                     (unsigned long long)topk->heap[i].id, topk->heap[i].key,
                     (unsigned long long)mixed->all[i].id, mixed->all[i].key);
        }
    }
}

/* Every answer is a living row at its distance, none twice, and there are as many as there can be. */
static void check_sound(const struct mixed *mixed, const struct vex_topk *topk, uint32_t living)
{
    uint32_t at = 0;
    if (topk->count != (living < topk->k ? living : topk->k)) {
        fail_msg("%s: %u answers of k %u, %u rows are alive", mixed->what, topk->count, topk->k,
                 living);
    }
    for (uint32_t i = 0; i < topk->count; i++) {
        while (at < living && mixed->all[at].id != topk->heap[i].id) {
            at++;
        }
        if (at == living || mixed->all[at].key != topk->heap[i].key) {
            fail_msg("%s: place %u is %llu (%.17g), which is not so", mixed->what, i,
                     (unsigned long long)topk->heap[i].id, topk->heap[i].key);
        }
        at++;
    }
}

static void check_index(struct mixed *mixed, const struct vex_index *index, const float *queries,
                        uint32_t count, uint32_t k)
{
    struct vex_topk topks[QUERIES_MAX];
    struct vex_search_counters counters = {0};
    char what[512];
    memcpy(what, mixed->what, sizeof(what));
    struct vex_candidate *heaps = malloc((size_t)count * k * sizeof(*heaps));
    assert_non_null(heaps);
    for (uint32_t q = 0; q < count; q++) {
        vex_topk_init(&topks[q], heaps + (size_t)q * k, k);
    }
    assert_int_equal(index->search(&mixed->view, queries, count, topks, &counters, NULL), VEX_OK);
    for (uint32_t q = 0; q < count; q++) {
        uint32_t living = brute_force(mixed, queries + (size_t)q * mixed->view.dim);
        vex_topk_finish(&topks[q]);
        (void)snprintf(mixed->what, sizeof(mixed->what), "%s, k %u, query %u of %u,%s", index->name,
                       k, q, count, what);
        if (index == &vex_index_flat) {
            check_exact(mixed, &topks[q], living);
        } else {
            check_sound(mixed, &topks[q], living);
        }
    }
    memcpy(mixed->what, what, sizeof(what));
    free(heaps);
}

static void note(struct mixed *mixed, const char *name, uint32_t number)
{
    size_t used = strlen(mixed->what);
    (void)snprintf(mixed->what + used, sizeof(mixed->what) - used, " %s %u", name, number);
}

static struct hard_rows make_rows(struct mixed *mixed, uint32_t rows_count,
                                  enum vex_storage *storage)
{
    uint32_t kind = (uint32_t)vex_random_below(mixed->random, hard_rows_kinds());
    struct hard_rows rows = hard_rows_make(kind, mixed->view.metric, mixed->view.dim, rows_count,
                                           QUERIES_MAX, mixed->random);
    note(mixed, hard_rows_kind(kind), rows_count);
    if (*storage != VEX_STORAGE_FLOAT32 && !hard_rows_fit(&rows, *storage)) {
        *storage = VEX_STORAGE_FLOAT32;
    }
    return rows;
}

static void check_round(struct vex_random *random)
{
    struct mixed mixed = {.random = random};
    struct hard_rows rows[PARTS_MAX];
    uint32_t parts = 1 + (uint32_t)vex_random_below(random, PARTS_MAX);
    enum vex_storage storage = (enum vex_storage)vex_random_below(random, 3);
    uint32_t dim = 1 + (uint32_t)vex_random_below(random, vex_random_once_in(random, 5) ? 400 : 40);
    mixed.view = (struct vex_view){
        .segments = mixed.parts,
        .dim = dim,
        .metric = (enum vex_metric)(VEX_METRIC_L2 + vex_random_below(random, 3)),
        .lsn = LSN,
    };
    for (uint32_t s = 0; s < parts; s++) {
        uint32_t count =
            1 + (uint32_t)vex_random_below(random, vex_random_once_in(random, 3) ? 3000 : 500);
        rows[s] = make_rows(&mixed, count, &storage);
    }
    for (uint32_t s = 0; s < parts; s++) {
        enum kind kind = (enum kind)vex_random_below(random, KINDS_COUNT);
        static const char *const names[] = {"plain", "codes", "graph", "lists"};
        note(&mixed, names[kind], (uint32_t)storage);
        add_part(&mixed, kind, &rows[s], storage);
        kill_some(&mixed, s);
        uint32_t visible = rows[s].rows_count;
        visible = vex_random_once_in(random, 3) ? (uint32_t)vex_random_below(random, visible + 1)
                                                : visible;
        mixed.parts[s] = (struct vex_view_segment){&mixed.writers[s].segment, visible};
    }
    note(&mixed, "metric", (uint32_t)mixed.view.metric);
    mixed.all = malloc((size_t)mixed.rows_total * sizeof(*mixed.all));
    assert_non_null(mixed.all);
    uint32_t ks[] = {1, 10, 1 + (uint32_t)vex_random_below(random, 300),
                     vex_random_once_in(random, 4) ? mixed.rows_total + 5 : 3};
    for (size_t i = 0; i < sizeof(ks) / sizeof(*ks); i++) {
        uint32_t count = i % 2 ? 1 + (uint32_t)vex_random_below(random, QUERIES_MAX) : 1;
        const float *queries = rows[vex_random_below(random, parts)].queries;
        check_index(&mixed, &vex_index_flat, queries, count, ks[i]);
        check_index(&mixed, &vex_index_hnsw, queries, count, ks[i]);
        check_index(&mixed, &vex_index_ivf, queries, count, ks[i]);
    }
    for (uint32_t s = 0; s < parts; s++) {
        free(mixed.writers[s].base);
        hard_rows_free(&rows[s]);
    }
    free(mixed.all);
}

static void every_kind_of_segment_serves_beside_the_others(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        check_round(&random);
    }
}

int main(void)
{
    if (level_is_missing()) {
        return LEVEL_SKIPPED;
    }
    seed = vex_random_announce("test_index_mixed");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_of_segment_serves_beside_the_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
