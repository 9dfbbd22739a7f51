/*
 * Segments of every storage: rows as their storage rounds them, moved bit by bit, searched exactly and by
 * a graph, against brute force over the rows as they are read back; and bytes that nobody meant.
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
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "index/exact.h"
#include "index/index.h"
#include "index/kernels.h"
#include "index/segment.h"
#include "tests/lib/random.h"
#include "tests/unit/level.h"

#define COUNT_OF(array) (sizeof(array) / sizeof(*(array)))
#define PAGE 4096u
#define K 10u

static uint64_t seed;

static const enum vex_storage kinds[] = {VEX_STORAGE_FLOAT32, VEX_STORAGE_FLOAT16,
                                         VEX_STORAGE_INT8};
static const enum vex_metric metrics[] = {VEX_METRIC_L2, VEX_METRIC_COSINE, VEX_METRIC_DOT};

static void random_vector(struct vex_random *random, uint32_t dim, double reach, float *out)
{
    for (uint32_t d = 0; d < dim; d++) {
        out[d] = (float)vex_random_between(random, -reach, reach);
    }
}

/* ---- segments -------------------------------------------------------------------------------- */

struct world {
    struct vex_segment_shape shape;
    struct vex_segment_writer writer;
    void *memory;
    uint64_t bytes;
};

static void make_world(struct world *world, enum vex_storage storage, enum vex_metric metric,
                       uint32_t dim, uint32_t rows, uint32_t m)
{
    *world = (struct world){.shape = {.segment_id = 1,
                                      .collection_id = 2,
                                      .metric = metric,
                                      .storage = storage,
                                      .dim = dim,
                                      .capacity_rows = rows,
                                      .payload_capacity_bytes = 8 * (uint64_t)rows,
                                      .graph = {.m = m, .ef_construction = m ? 80 : 0}}};
    world->bytes = vex_segment_memory_bytes(&world->shape);
    assert_true(world->bytes > 0);
    assert_int_equal(posix_memalign(&world->memory, PAGE, world->bytes), 0);
    memset(world->memory, 0, world->bytes);
    vex_segment_create(&world->writer, &world->shape, world->memory);
}

static void free_world(struct world *world)
{
    free(world->memory);
}

static void fill_world(struct world *world, struct vex_random *random, uint32_t rows)
{
    uint32_t dim = world->shape.dim;
    float *vector = malloc(dim * sizeof(*vector));
    assert_non_null(vector);
    for (uint32_t i = 0; i < rows; i++) {
        random_vector(random, dim, 2, vector);
        (void)vex_segment_append(&world->writer, 10 + i, vector, &i, sizeof(i));
    }
    free(vector);
}

static float *floats(uint64_t count)
{
    float *values = aligned_alloc(64, (count * sizeof(float) + 63) / 64 * 64);
    assert_non_null(values);
    return values;
}

static void a_row_is_kept_as_its_storage_rounds_it(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed);
    static const uint32_t dims[] = {1, 16, 31, 33, 64, 65, 1500};
    for (size_t kind = 0; kind < COUNT_OF(kinds); kind++) {
        for (size_t i = 0; i < COUNT_OF(dims); i++) {
            uint32_t dim = dims[i];
            struct world world;
            make_world(&world, kinds[kind], VEX_METRIC_L2, dim, 9, 0);
            float *vector = floats(dim);
            float *expected = floats(dim);
            float *buffer = floats(dim);
            void *rounded = floats(dim);
            const struct vex_segment *segment = &world.writer.segment;
            for (uint32_t row = 0; row < 9; row++) {
                random_vector(&random, dim, 100, vector);
                (void)vex_segment_append(&world.writer, row, vector, NULL, 0);
                float scale = vex_store_round(kinds[kind], vector, dim, rounded);
                vex_store_decode(kinds[kind], rounded, scale, 0, dim, expected);
                assert_memory_equal(vex_segment_row(segment, row, buffer), expected,
                                    dim * sizeof(float));
                float norm = (float)sqrt(vex_dot_f64(expected, expected, dim));
                assert_memory_equal(&segment->norms[row], &norm, sizeof(norm));
                assert_int_equal((uintptr_t)vex_segment_stored(segment, row) % 64, 0);
            }
            assert_int_equal(segment->row_bytes % 64, 0);
            assert_true(segment->row_bytes < dim * vex_store_element_bytes(kinds[kind]) + 64);
            free(vector);
            free(expected);
            free(buffer);
            free(rounded);
            free_world(&world);
        }
    }
}

/* As a merge and a start do. */
static void rows_move_to_other_segments_bit_by_bit(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed);
    for (size_t kind = 0; kind < COUNT_OF(kinds); kind++) {
        struct world from;
        struct world to;
        struct vex_segment_writer restored;
        struct vex_error error = {0};
        make_world(&from, kinds[kind], VEX_METRIC_COSINE, 70, 40, 0);
        make_world(&to, kinds[kind], VEX_METRIC_COSINE, 70, 20, 0);
        fill_world(&from, &random, 40);
        for (uint32_t row = 0; row < 40; row += 2) {
            (void)vex_segment_append_row(&to.writer, &from.writer.segment, row);
        }
        assert_int_equal(vex_segment_restore(&restored, &to.shape, 20, 80, to.memory, &error),
                         VEX_OK);
        const struct vex_segment *old = &from.writer.segment;
        for (uint32_t row = 0; row < 20; row++) {
            const struct vex_segment *moved = &restored.segment;
            assert_memory_equal(vex_segment_stored(old, 2 * row), vex_segment_stored(moved, row),
                                old->row_bytes);
            assert_true(vex_segment_scale(old, 2 * row) == vex_segment_scale(moved, row));
            assert_true(old->norms[2 * row] == moved->norms[row]);
            assert_int_equal(old->ids[2 * row], moved->ids[row]);
        }
        /* A segment of another storage is not what was stored. */
        struct vex_segment_shape other = to.shape;
        other.storage = kinds[(kind + 1) % COUNT_OF(kinds)];
        assert_int_equal(vex_segment_restore(&restored, &other, 20, 80, to.memory, &error),
                         VEX_ERR_CORRUPT);
        free_world(&from);
        free_world(&to);
    }
}

static void a_header_that_lies_about_storage_is_refused(void **state)
{
    (void)state;
    struct vex_error error = {0};
    for (size_t kind = 0; kind < COUNT_OF(kinds); kind++) {
        struct world world;
        make_world(&world, kinds[kind], VEX_METRIC_L2, 128, 10, 0);
        struct vex_segment_header *header = world.memory;
        struct vex_segment segment;
        for (uint32_t lie = 0; lie < 5; lie++) {
            header->storage = lie;
            enum vex_status status =
                vex_segment_attach(&segment, world.memory, world.bytes, &error);
            assert_int_equal(status, lie == (uint32_t)kinds[kind] ? VEX_OK : VEX_ERR_CORRUPT);
        }
        header->storage = kinds[kind];
        for (uint32_t i = 0; i < header->sections_count; i++) {
            if (header->sections[i].kind == VEX_SECTION_SCALES) {
                header->sections[i].bytes--;
                assert_int_equal(vex_segment_attach(&segment, world.memory, world.bytes, &error),
                                 VEX_ERR_CORRUPT);
            }
        }
        free_world(&world);
    }
    struct vex_segment_shape unknown = {
        .metric = VEX_METRIC_L2, .storage = (enum vex_storage)3, .dim = 4, .capacity_rows = 4};
    assert_int_equal(vex_segment_memory_bytes(&unknown), 0);
}

/* ---- searches -------------------------------------------------------------------------------- */

static int by_key_and_id(const void *left, const void *right)
{
    const struct vex_candidate *a = left;
    const struct vex_candidate *b = right;
    if (a->key != b->key) {
        return a->key < b->key ? -1 : 1;
    }
    return a->id < b->id ? -1 : a->id > b->id;
}

static struct vex_candidate *rank_all(const struct world *world, const float *query)
{
    const struct vex_segment *segment = &world->writer.segment;
    uint32_t dim = segment->dim;
    double norm = vex_exact_norm(query, dim);
    struct vex_candidate *ranked = calloc(world->writer.rows, sizeof(*ranked));
    float *buffer = floats(dim);
    assert_non_null(ranked);
    for (uint32_t row = 0; row < world->writer.rows; row++) {
        const float *vector = vex_segment_row(segment, row, buffer);
        ranked[row] = (struct vex_candidate){
            .key = vex_exact_key(segment->metric, query, norm, vector, dim),
            .id = segment->ids[row],
            .row = row,
        };
    }
    qsort(ranked, world->writer.rows, sizeof(*ranked), by_key_and_id);
    free(buffer);
    return ranked;
}

static void ask(const struct vex_index *index, const struct world *world, const float *queries,
                uint32_t count, struct vex_candidate *heaps, struct vex_topk *topks)
{
    struct vex_view_segment part = {&world->writer.segment, world->writer.rows};
    struct vex_effort effort = {.ef = 120};
    struct vex_view view = {&part, 1, world->shape.dim, world->shape.metric, 1, &effort};
    struct vex_search_counters counters = {0};
    for (uint32_t i = 0; i < count; i++) {
        vex_topk_init(&topks[i], heaps + (size_t)i * K, K);
    }
    assert_int_equal(index->search(&view, queries, count, topks, &counters, NULL), VEX_OK);
    for (uint32_t i = 0; i < count; i++) {
        vex_topk_finish(&topks[i]);
    }
}

static void check_exact(enum vex_storage storage, enum vex_metric metric, uint32_t dim,
                        uint32_t rows)
{
    enum { QUERIES = 5 };
    struct vex_random random = vex_random_seeded(seed + dim);
    struct world world;
    make_world(&world, storage, metric, dim, rows, 0);
    fill_world(&world, &random, rows - 3);
    float *queries = floats((uint64_t)QUERIES * dim);
    random_vector(&random, QUERIES * dim, 2, queries);
    /* The same vector under more than one id: ties. */
    for (uint32_t i = 0; i < 3; i++) {
        (void)vex_segment_append(&world.writer, 5 - i, queries, NULL, 0);
    }
    struct vex_candidate heaps[QUERIES * K];
    struct vex_topk topks[QUERIES];
    ask(&vex_index_flat, &world, queries, QUERIES, heaps, topks);
    for (uint32_t i = 0; i < QUERIES; i++) {
        struct vex_candidate *ranked = rank_all(&world, queries + (size_t)i * dim);
        assert_int_equal(topks[i].count, rows < K ? rows : K);
        for (uint32_t j = 0; j < topks[i].count; j++) {
            assert_int_equal(topks[i].heap[j].id, ranked[j].id);
            assert_memory_equal(&topks[i].heap[j].key, &ranked[j].key, sizeof(double));
        }
        free(ranked);
    }
    free(queries);
    free_world(&world);
}

static void exact_search_is_brute_force_over_the_stored_rows(void **state)
{
    (void)state;
    /* Beyond 1024 a row is scored in pieces. */
    static const uint32_t dims[] = {3, 64, 100, 128, 1000, 1030, 5000};
    for (size_t kind = 0; kind < COUNT_OF(kinds); kind++) {
        for (size_t metric = 0; metric < COUNT_OF(metrics); metric++) {
            for (size_t i = 0; i < COUNT_OF(dims); i++) {
                check_exact(kinds[kind], metrics[metric], dims[i], dims[i] > 1000 ? 37 : 900);
            }
            check_exact(kinds[kind], metrics[metric], 20, 4);
        }
    }
}

static void check_graph(enum vex_storage storage, enum vex_metric metric)
{
    enum { QUERIES = 40, DIM = 48, ROWS = 1200 };
    struct vex_random random = vex_random_seeded(seed);
    struct vex_error error = {0};
    struct world world;
    make_world(&world, storage, metric, DIM, ROWS, 16);
    fill_world(&world, &random, ROWS);
    if (vex_index_hnsw.build(&world.writer, &world.shape, NULL, NULL, &error) != VEX_OK ||
        vex_index_hnsw.validate(&world.writer.segment, &error) != VEX_OK) {
        fail_msg("%s", error.message);
    }
    static float queries[QUERIES * DIM];
    static struct vex_candidate heaps[QUERIES * K];
    static struct vex_topk topks[QUERIES];
    random_vector(&random, QUERIES * DIM, 2, queries);
    ask(&vex_index_hnsw, &world, queries, QUERIES, heaps, topks);
    uint32_t hits = 0;
    for (uint32_t i = 0; i < QUERIES; i++) {
        struct vex_candidate *ranked = rank_all(&world, queries + (size_t)i * DIM);
        for (uint32_t j = 0; j < topks[i].count; j++) {
            const struct vex_candidate *hit = &topks[i].heap[j];
            uint32_t at = 0;
            while (at < ROWS && ranked[at].id != hit->id) {
                at++;
            }
            assert_true(at < ROWS);
            assert_memory_equal(&hit->key, &ranked[at].key, sizeof(double));
            hits += at < K;
        }
        free(ranked);
    }
    if (hits < QUERIES * K * 9 / 10) {
        fail_msg("storage %d, metric %d: %u of %u found", storage, metric, hits, QUERIES * K);
    }
    free_world(&world);
}

static void a_graph_finds_the_stored_rows_and_ranks_them_exactly(void **state)
{
    (void)state;
    for (size_t kind = 0; kind < COUNT_OF(kinds); kind++) {
        for (size_t metric = 0; metric < COUNT_OF(metrics); metric++) {
            check_graph(kinds[kind], metrics[metric]);
        }
    }
}

/* Memory that was taken back, or damaged: anything may come out, but nothing is touched that is not the
 * segment's, and k rows are still rows. */
static void garbage_is_searched_without_harm(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed);
    for (size_t kind = 1; kind < COUNT_OF(kinds); kind++) {
        for (size_t metric = 0; metric < COUNT_OF(metrics); metric++) {
            struct world world;
            make_world(&world, kinds[kind], metrics[metric], 40, 300, 0);
            fill_world(&world, &random, 300);
            const struct vex_segment *segment = &world.writer.segment;
            uint8_t *rows = (uint8_t *)world.memory +
                            ((const uint8_t *)segment->vectors - (const uint8_t *)world.memory);
            size_t bytes = (size_t)segment->capacity_rows * segment->row_bytes;
            float query[40];
            random_vector(&random, 40, 2, query);
            for (uint32_t round = 0; round < 3; round++) {
                struct vex_candidate heap[K];
                struct vex_topk topk;
                if (round == 1) {
                    vex_random_fill(&random, rows, bytes);
                } else if (round == 2) {
                    memset(rows, 0xff, bytes); /* of halves, NaN */
                    memset((void *)(uintptr_t)segment->norms, 0, 300 * sizeof(float));
                }
                ask(&vex_index_flat, &world, query, 1, heap, &topk);
                assert_true(topk.count <= K);
                for (uint32_t i = 0; i < topk.count; i++) {
                    assert_true(topk.heap[i].row < 300);
                }
            }
            free_world(&world);
        }
    }
}

int main(void)
{
    if (level_is_missing()) {
        return LEVEL_SKIPPED;
    }
    seed = vex_random_announce("test_index_storage");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_row_is_kept_as_its_storage_rounds_it),
        cmocka_unit_test(rows_move_to_other_segments_bit_by_bit),
        cmocka_unit_test(a_header_that_lies_about_storage_is_refused),
        cmocka_unit_test(exact_search_is_brute_force_over_the_stored_rows),
        cmocka_unit_test(a_graph_finds_the_stored_rows_and_ranks_them_exactly),
        cmocka_unit_test(garbage_is_searched_without_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
