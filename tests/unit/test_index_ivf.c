/*
 * Inverted lists: the kernels of every level against plain C; that clusters are clusters, and every
 * row is in one; then searches against exact ones over the same rows, one by one and in batches, with
 * dead and invisible rows, few rows, equal rows, several segments; and images in which every byte of
 * lists and codes may be wrong, which may cost answers but must stay inside the memory (that is what a
 * run under the address sanitizer shows; the memory is allocated to the byte).
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
#include "index/kmeans.h"
#include "index/list_build.h"
#include "index/list_kernels.h"
#include "index/list_search.h"
#include "tests/lib/random.h"
#include "tests/unit/damage.h"
#include "tests/unit/level.h"

#define K 10u
#define QUERIES 60u
#define PLACES 176u

static uint64_t seed;

/* ---- kernels --------------------------------------------------------------------------------- */

struct operands {
    uint32_t padded;
    uint8_t *codes; /* [PLACES][padded / 2] */
    uint8_t *tiles;
    int8_t *queries; /* [5][padded] */
    const int8_t *query[5];
    int32_t dots[5 * PLACES];
    uint32_t factors[PLACES];
    float keys[PLACES];
    float scales[PLACES];
};

static void make_operands(struct operands *operands, uint32_t padded, struct vex_random *random)
{
    operands->padded = padded;
    operands->codes = aligned_alloc(64, (size_t)PLACES * padded / 2);
    operands->tiles = aligned_alloc(64, (size_t)PLACES * padded);
    operands->queries = aligned_alloc(64, (size_t)5 * padded);
    assert_true(operands->codes && operands->tiles && operands->queries);
    vex_random_fill(random, operands->codes, (size_t)PLACES * padded / 2);
    for (uint32_t i = 0; i < PLACES * padded; i++) {
        operands->tiles[i] = (uint8_t)vex_random_below(random, 128);
    }
    /* The ends of the range, too: that is where sixteen bits would overflow. */
    for (uint32_t i = 0; i < 5 * padded; i++) {
        operands->queries[i] = i < padded ? 127
                               : i < 2 * padded
                                   ? -127
                                   : (int8_t)((int)vex_random_below(random, 255) - 127);
    }
    for (uint32_t i = 0; i < 5; i++) {
        operands->query[i] = operands->queries + (size_t)i * padded;
    }
    for (uint32_t i = 0; i < PLACES; i++) {
        operands->factors[i] = (uint32_t)(0x3000 + vex_random_below(random, 0x1000)) |
                               (uint32_t)(0xb000 + vex_random_below(random, 0x1000)) << 16;
        operands->keys[i] = (float)vex_random_between(random, -3, 3);
        operands->scales[i] = (float)vex_random_between(random, 0, 2);
    }
    memset(operands->tiles, 127, padded * VEX_LIST_TILE_ROWS);
}

static void free_operands(struct operands *operands)
{
    free(operands->codes);
    free(operands->tiles);
    free(operands->queries);
}

static void compare_products(const struct vex_list_kernels *kernels, const struct operands *in)
{
    const struct vex_list_kernels *plain = &vex_list_kernels_scalar;
    size_t bytes = vex_list_tile_bytes(in->padded);
    uint8_t *tile = aligned_alloc(64, bytes);
    uint8_t *other = aligned_alloc(64, bytes);
    static int32_t dots[5 * PLACES];
    static int32_t expected[5 * PLACES];
    for (uint32_t rows = 1; rows <= VEX_LIST_TILE_ROWS; rows++) {
        plain->tile_codes(in->codes, in->padded, rows, tile);
        kernels->tile_codes(in->codes, in->padded, rows, other);
        plain->tile_dots(tile, 1, in->padded, in->query, 5, expected, VEX_LIST_TILE_ROWS);
        kernels->tile_dots(other, 1, in->padded, in->query, 5, dots, VEX_LIST_TILE_ROWS);
        for (uint32_t q = 0; q < 5; q++) {
            assert_memory_equal(dots + (size_t)q * VEX_LIST_TILE_ROWS,
                                expected + (size_t)q * VEX_LIST_TILE_ROWS, rows * sizeof(*dots));
            int32_t by_row[VEX_LIST_TILE_ROWS];
            vex_kernels_get()->scan->dots(in->query[q], in->codes, in->padded, rows, by_row);
            assert_memory_equal(by_row, expected + (size_t)q * VEX_LIST_TILE_ROWS,
                                rows * sizeof(*dots));
        }
    }
    for (uint32_t tiles = 1; tiles <= PLACES / VEX_LIST_TILE_ROWS; tiles++) {
        for (uint32_t queries = 1; queries <= 5; queries++) {
            plain->tile_dots(in->tiles, tiles, in->padded, in->query, queries, expected, PLACES);
            kernels->tile_dots(in->tiles, tiles, in->padded, in->query, queries, dots, PLACES);
            for (uint32_t q = 0; q < queries; q++) {
                assert_memory_equal(dots + (size_t)q * PLACES, expected + (size_t)q * PLACES,
                                    tiles * VEX_LIST_TILE_ROWS * sizeof(*dots));
            }
        }
    }
    free(tile);
    free(other);
}

static void compare_estimates(const struct vex_list_kernels *kernels, struct operands *in)
{
    const struct vex_list_kernels *plain = &vex_list_kernels_scalar;
    struct vex_code_query query = {in->query[3], in->padded, 0.01f, -0.3f, 2, 0.5f, 0.01f};
    static float add[2][PLACES];
    static float rescale[2][PLACES];
    struct vex_row_factors factors[2] = {{add[0], rescale[0]}, {add[1], rescale[1]}};
    plain->tile_dots(in->tiles, PLACES / VEX_LIST_TILE_ROWS, in->padded, in->query + 3, 1, in->dots,
                     PLACES);
    for (uint32_t count = 1; count <= PLACES; count += 1 + count / 8) {
        plain->row_factors(&query, in->factors, count, factors[0]);
        kernels->row_factors(&query, in->factors, count, factors[1]);
        assert_memory_equal(add[0], add[1], count * sizeof(float));
        assert_memory_equal(rescale[0], rescale[1], count * sizeof(float));
        add[0][count / 2] = INFINITY;
        static float distances[2][PLACES + 16];
        static uint32_t rows[2][PLACES + 16];
        float limits[] = {INFINITY, 2.5f, 0, -INFINITY};
        for (uint32_t i = 0; i < 4; i++) {
            uint32_t found[2];
            found[0] = plain->near_rows(&query, in->dots, factors[0], count, limits[i], 1000,
                                        distances[0], rows[0]);
            found[1] = kernels->near_rows(&query, in->dots, factors[0], count, limits[i], 1000,
                                          distances[1], rows[1]);
            assert_int_equal(found[0], found[1]);
            assert_memory_equal(rows[0], rows[1], found[0] * sizeof(uint32_t));
            assert_int_equal(i == 0 ? found[0] : count - 1, count - 1);
            for (uint32_t j = 0; j < found[0]; j++) {
                assert_true(fabsf(distances[0][j] - distances[1][j]) <=
                            1e-4f * (1 + fabsf(distances[0][j])));
            }
        }
    }
}

static void compare_selections(const struct vex_list_kernels *kernels, struct operands *in)
{
    const struct vex_list_kernels *plain = &vex_list_kernels_scalar;
    static float keys[2][PLACES];
    static uint32_t places[2][PLACES];
    in->keys[17] = in->keys[90] = -4; /* the first of two counts */
    for (uint32_t count = VEX_LIST_TILE_ROWS; count <= PLACES; count += VEX_LIST_TILE_ROWS) {
        plain->centre_keys(in->dots, in->scales, in->keys, count, -0.5f, 1234, keys[0]);
        kernels->centre_keys(in->dots, in->scales, in->keys, count, -0.5f, 1234, keys[1]);
        for (uint32_t i = 0; i < count; i++) {
            assert_true(fabsf(keys[0][i] - keys[1][i]) <= 1e-5f * (1 + fabsf(keys[0][i])));
        }
        assert_int_equal(plain->smallest(in->keys, count), kernels->smallest(in->keys, count));
        memset(keys, 0, sizeof(keys));
        plain->fold(in->keys, count, keys[0]);
        kernels->fold(in->keys, count, keys[1]);
        assert_memory_equal(keys[0], keys[1], sizeof(keys[0]));
        for (float limit = -4; limit < 4; limit += 0.5f) {
            uint32_t found = plain->places_within(in->keys, count, limit, places[0]);
            assert_int_equal(plain->count_within(in->keys, count, limit), found);
            assert_int_equal(kernels->count_within(in->keys, count, limit), found);
            assert_int_equal(kernels->places_within(in->keys, count, limit, places[1]), found);
            assert_memory_equal(places[0], places[1], found * sizeof(uint32_t));
        }
    }
    assert_int_equal(plain->smallest(in->keys, PLACES), 17);
}

static void every_level_agrees_with_plain_c(void **state)
{
    (void)state;
    static const char *const levels[] = {"scalar", "avx2", "avx512", "avx512vnni"};
    static struct operands operands;
    struct vex_random random = vex_random_seeded(seed);
    for (uint32_t i = 0; i < 4; i++) {
        const struct vex_list_kernels *kernels = vex_list_kernels_by_name(levels[i]);
        for (uint32_t padded = 128; kernels && padded <= 1024; padded *= 2) {
            make_operands(&operands, padded == 512 ? 384 : padded, &random);
            compare_products(kernels, &operands);
            compare_estimates(kernels, &operands);
            compare_selections(kernels, &operands);
            free_operands(&operands);
        }
    }
}

/* ---- worlds ---------------------------------------------------------------------------------- */

struct world {
    struct vex_segment_shape shape;
    struct vex_segment_writer writer;
    uint64_t bytes;
    void *memory;
    float *rows; /* as given; the id of a row is its number */
    float *queries;
    struct vex_random random;
};

/* Rows around a few centres: near neighbours, far clusters. */
static void random_vector(struct vex_random *random, uint32_t dim, uint32_t centres, float *out)
{
    struct vex_random centre = vex_random_seeded(vex_random_below(random, centres) * 7919 + seed);
    for (uint32_t d = 0; d < dim; d++) {
        out[d] =
            (float)(vex_random_between(&centre, -1, 1) + vex_random_between(random, -1, 1) * 0.5);
    }
}

static const float *row_of(void *context, uint32_t i, float *buffer, float *out_norm)
{
    (void)buffer;
    const struct world *world = context;
    const float *row = world->rows + (size_t)i * world->shape.dim;
    *out_norm = (float)vex_exact_norm(row, world->shape.dim);
    return row;
}

static void allocate_world(struct world *world, enum vex_metric metric, uint32_t dim, uint32_t rows)
{
    *world = (struct world){
        .shape = {.segment_id = 1,
                  .collection_id = 1,
                  .metric = metric,
                  .dim = dim,
                  .capacity_rows = rows,
                  .lists = vex_lists_count_for(rows, 0)},
        .random = vex_random_seeded(seed + dim),
    };
    world->bytes = vex_segment_memory_bytes(&world->shape);
    assert_true(world->bytes > 0);
    assert_int_equal(posix_memalign(&world->memory, 4096, world->bytes), 0);
    memset(world->memory, 0, world->bytes);
    vex_segment_create(&world->writer, &world->shape, world->memory);
    world->rows = malloc((size_t)rows * dim * sizeof(float));
    world->queries = malloc((size_t)QUERIES * dim * sizeof(float));
    assert_true(world->rows && world->queries);
}

static enum vex_status cluster(struct world *world, const struct vex_build_pace *pace,
                               struct vex_clusters *out)
{
    const struct vex_kmeans_input input = {
        .rows_count = world->shape.capacity_rows,
        .dim = world->shape.dim,
        .metric = world->shape.metric,
        .lists = world->shape.lists,
        .row = row_of,
        .context = world,
        .pace = pace,
    };
    return vex_kmeans_run(&input, out, NULL);
}

/* Rows in the order of lists, and where lists begin. */
static void append_clustered(struct world *world)
{
    struct vex_clusters clusters;
    assert_int_equal(cluster(world, NULL, &clusters), VEX_OK);
    for (uint32_t i = 0; i < world->shape.capacity_rows; i++) {
        uint32_t row = clusters.order[i];
        (void)vex_segment_append(&world->writer, row, world->rows + (size_t)row * world->shape.dim,
                                 NULL, 0);
    }
    vex_lists_arrange(&world->writer, clusters.starts, world->shape.lists);
    vex_clusters_deinit(&clusters);
}

static void build(struct world *world)
{
    struct vex_error error = {0};
    append_clustered(world);
    if (vex_index_ivf.build(&world->writer, &world->shape, NULL, NULL, &error) != VEX_OK ||
        vex_index_ivf.validate(&world->writer.segment, &error) != VEX_OK) {
        fail_msg("%s", error.message);
    }
    assert_int_equal(world->writer.segment.lists.count, world->shape.lists);
    assert_int_equal(world->writer.segment.codes.count, world->writer.rows);
}

static void make_world(struct world *world, enum vex_metric metric, uint32_t dim, uint32_t rows)
{
    allocate_world(world, metric, dim, rows);
    for (uint32_t i = 0; i < rows; i++) {
        random_vector(&world->random, dim, 40, world->rows + (size_t)i * dim);
    }
    for (uint32_t i = 0; i < QUERIES; i++) {
        random_vector(&world->random, dim, 40, world->queries + (size_t)i * dim);
    }
    build(world);
}

static void free_world(struct world *world)
{
    free(world->memory);
    free(world->rows);
    free(world->queries);
}

struct answers {
    struct vex_topk topks[QUERIES];
    struct vex_candidate heaps[QUERIES][1000];
    struct vex_search_counters counters;
};

struct question {
    uint32_t visible;
    uint64_t lsn;
    uint32_t nprobe;
    uint32_t k;
    uint32_t batch;
};

static void ask_view(const struct vex_index *index, struct vex_view *view, const float *queries,
                     const struct question *question, struct answers *out)
{
    struct vex_effort effort = {.nprobe = question->nprobe};
    view->effort = &effort;
    /* As a client does: what a search keeps there, nothing that it calls may touch. */
    effort.scratch_bytes = vex_ivf_scratch_bytes(view, question->batch, question->k);
    effort.scratch = effort.scratch_bytes ? aligned_alloc(64, effort.scratch_bytes) : NULL;
    memset(&out->counters, 0, sizeof(out->counters));
    for (uint32_t i = 0; i < QUERIES; i++) {
        vex_topk_init(&out->topks[i], out->heaps[i], question->k);
    }
    for (uint32_t i = 0; i < QUERIES; i += question->batch) {
        uint32_t count = QUERIES - i < question->batch ? QUERIES - i : question->batch;
        assert_int_equal(index->search(view, queries + (size_t)i * view->dim, count, &out->topks[i],
                                       &out->counters, NULL),
                         VEX_OK);
    }
    for (uint32_t i = 0; i < QUERIES; i++) {
        vex_topk_finish(&out->topks[i]);
    }
    free(effort.scratch);
    view->effort = NULL;
}

static void ask(const struct vex_index *index, const struct world *world,
                const struct question *question, struct answers *out)
{
    struct vex_view_segment part = {&world->writer.segment, question->visible};
    struct vex_view view = {&part, 1, world->shape.dim, world->shape.metric, question->lsn, NULL};
    ask_view(index, &view, world->queries, question, out);
}

static struct question all_of(const struct world *world, uint32_t nprobe, uint32_t batch)
{
    return (struct question){world->writer.rows, 1, nprobe, K, batch};
}

static double recall_of(const struct answers *found, const struct answers *truth)
{
    uint32_t hits = 0;
    uint32_t wanted = 0;
    for (uint32_t i = 0; i < QUERIES; i++) {
        const struct vex_topk *best = &truth->topks[i];
        assert_int_equal(found->topks[i].count, best->count);
        for (uint32_t j = 0; j < best->count; j++) {
            hits += found->topks[i].heap[j].key <= best->heap[best->count - 1].key;
        }
        wanted += best->count;
    }
    return (double)hits / wanted;
}

static void assert_same(const struct answers *a, const struct answers *b)
{
    for (uint32_t i = 0; i < QUERIES; i++) {
        assert_int_equal(a->topks[i].count, b->topks[i].count);
        for (uint32_t j = 0; j < a->topks[i].count; j++) {
            assert_true(a->topks[i].heap[j].key == b->topks[i].heap[j].key);
            assert_true(a->topks[i].heap[j].id == b->topks[i].heap[j].id);
        }
    }
}

/* Distances are those of exact search, rows are named once, and in order. */
static void assert_true_distances(const struct world *world, const struct answers *found)
{
    uint32_t dim = world->shape.dim;
    for (uint32_t i = 0; i < QUERIES; i++) {
        const float *query = world->queries + (size_t)i * dim;
        const struct vex_topk *topk = &found->topks[i];
        for (uint32_t j = 0; j < topk->count; j++) {
            const struct vex_candidate *hit = &topk->heap[j];
            double key = vex_exact_key(world->shape.metric, query, vex_exact_norm(query, dim),
                                       world->rows + hit->id * dim, dim);
            assert_true(key == hit->key);
            assert_true(j == 0 || hit->key > topk->heap[j - 1].key ||
                        (hit->key == topk->heap[j - 1].key && hit->id > topk->heap[j - 1].id));
        }
    }
}

static struct answers found;
static struct answers other;
static struct answers truth;

/* ---- clusters -------------------------------------------------------------------------------- */

static void assert_partition(const struct vex_clusters *clusters, uint32_t rows, uint32_t lists)
{
    uint8_t *seen = calloc(rows, 1);
    assert_non_null(seen);
    assert_int_equal(clusters->starts[0], 0);
    assert_int_equal(clusters->starts[lists], rows);
    for (uint32_t i = 0; i < lists; i++) {
        assert_true(clusters->starts[i] <= clusters->starts[i + 1]);
    }
    for (uint32_t i = 0; i < rows; i++) {
        assert_true(clusters->order[i] < rows && !seen[clusters->order[i]]);
        seen[clusters->order[i]] = 1;
    }
    free(seen);
}

static void every_row_is_in_one_list_and_runs_repeat(void **state)
{
    (void)state;
    static const uint32_t counts[] = {1, 2, 15, 16, 17, 33, 700, 1500};
    for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
        struct world world;
        make_world(&world, VEX_METRIC_L2, 24, counts[i]);
        for (uint32_t lists = 1; lists <= counts[i]; lists = 4 * lists + 1) {
            struct vex_clusters clusters[2];
            world.shape.lists = lists;
            assert_int_equal(cluster(&world, NULL, &clusters[0]), VEX_OK);
            assert_int_equal(cluster(&world, NULL, &clusters[1]), VEX_OK);
            assert_partition(&clusters[0], counts[i], lists);
            assert_memory_equal(clusters[0].order, clusters[1].order, counts[i] * sizeof(uint32_t));
            vex_clusters_deinit(&clusters[0]);
            vex_clusters_deinit(&clusters[1]);
        }
        free_world(&world);
    }
}

static void rows_of_a_cluster_share_a_list(void **state)
{
    (void)state;
    struct world world;
    allocate_world(&world, VEX_METRIC_L2, 32, 4000);
    for (uint32_t i = 0; i < 4000; i++) {
        for (uint32_t d = 0; d < 32; d++) {
            world.rows[(size_t)i * 32 + d] =
                (float)(d == i % 20 ? 10 : 0) + (float)vex_random_between(&world.random, 0, 0.5);
        }
    }
    world.shape.lists = 40;
    struct vex_clusters clusters;
    assert_int_equal(cluster(&world, NULL, &clusters), VEX_OK);
    uint32_t longest = 0;
    for (uint32_t list = 0; list < 40; list++) {
        uint32_t first = clusters.starts[list];
        uint32_t end = clusters.starts[list + 1];
        longest = end - first > longest ? end - first : longest;
        for (uint32_t i = first; i < end; i++) {
            assert_int_equal(clusters.order[i] % 20, clusters.order[first] % 20);
        }
    }
    /* Twice as many lists as clusters: the full ones have been split. */
    assert_true(longest <= 200);
    vex_clusters_deinit(&clusters);
    free_world(&world);
}

static bool give_up(void *context)
{
    uint32_t *left = context;
    return (*left)-- > 0;
}

static void clustering_and_building_can_be_given_up(void **state)
{
    (void)state;
    struct world world;
    allocate_world(&world, VEX_METRIC_L2, 16, 3000);
    for (uint32_t i = 0; i < 3000 * 16; i++) {
        world.rows[i] = (float)vex_random_unit(&world.random);
    }
    for (uint32_t calls = 0; calls < 300; calls += 37) {
        uint32_t left = calls;
        struct vex_build_pace pace = {give_up, &left};
        struct vex_clusters clusters;
        assert_int_equal(cluster(&world, &pace, &clusters), VEX_ERR_UNAVAILABLE);
        assert_null(clusters.order);
    }
    append_clustered(&world);
    uint32_t left = 5;
    struct vex_build_pace pace = {give_up, &left};
    assert_int_equal(vex_index_ivf.build(&world.writer, &world.shape, &pace, NULL, NULL),
                     VEX_ERR_UNAVAILABLE);
    vex_segment_attach_again(&world.writer);
    assert_int_equal(world.writer.segment.lists.count, 0);
    assert_int_equal(world.writer.segment.codes.count, 0);
    free_world(&world);
}

static void numbers_of_lists_follow_rows(void **state)
{
    (void)state;
    assert_int_equal(vex_lists_count_for(1, 0), 1);
    assert_int_equal(vex_lists_count_for(1, 500), 1);
    assert_int_equal(vex_lists_count_for(1024, 0), 64);
    assert_int_equal(vex_lists_count_for(400000, 0), 2529);
    assert_int_equal(vex_lists_count_for(400000, 100), 100);
    assert_int_equal(vex_lists_count_for(VEX_SEGMENT_ROWS_MAX, 0), VEX_LISTS_MAX);
}

/* ---- searching ------------------------------------------------------------------------------- */

static void nearly_all_of_the_nearest_are_found_under_every_metric(void **state)
{
    (void)state;
    static const uint32_t dims[] = {1, 3, 20, 128, 200, 1000};
    for (uint32_t metric = VEX_METRIC_L2; metric <= VEX_METRIC_DOT; metric++) {
        for (size_t i = 0; i < sizeof(dims) / sizeof(*dims); i++) {
            struct world world;
            make_world(&world, (enum vex_metric)metric, dims[i], dims[i] > 300 ? 900 : 2500);
            struct question question = all_of(&world, 0, QUERIES);
            ask(&vex_index_flat, &world, &question, &truth);
            ask(&vex_index_ivf, &world, &question, &found);
            assert_true_distances(&world, &found);
            double recall = recall_of(&found, &truth);
            /* All lists: what is missing then, an estimate has misjudged. */
            question.nprobe = VEX_LISTS_MAX;
            ask(&vex_index_ivf, &world, &question, &found);
            double most = recall_of(&found, &truth);
            print_message("metric %u, %u dimensions: recall %.3f, of all lists %.3f\n", metric,
                          dims[i], recall, most);
            assert_true(recall >= 0.9);
            assert_true(most >= 0.99);
            free_world(&world);
        }
    }
}

static void more_lists_find_more(void **state)
{
    (void)state;
    struct world world;
    make_world(&world, VEX_METRIC_L2, 32, 8000);
    struct question question = all_of(&world, 1, QUERIES);
    ask(&vex_index_flat, &world, &question, &truth);
    ask(&vex_index_ivf, &world, &question, &found);
    double few = recall_of(&found, &truth);
    uint64_t few_rows = found.counters.rows_visited;
    question.nprobe = 30;
    ask(&vex_index_ivf, &world, &question, &found);
    assert_true(recall_of(&found, &truth) > few + 0.1);
    assert_true(found.counters.rows_visited > 10 * few_rows);
    assert_true(found.counters.rows_visited < (uint64_t)QUERIES * 8000 / 2);
    free_world(&world);
}

static void a_batch_answers_as_single_queries_do(void **state)
{
    (void)state;
    for (uint32_t metric = VEX_METRIC_L2; metric <= VEX_METRIC_DOT; metric++) {
        struct world world;
        make_world(&world, (enum vex_metric)metric, 48, 5000);
        struct question question = all_of(&world, 12, QUERIES);
        ask(&vex_index_ivf, &world, &question, &found);
        static const uint32_t batches[] = {1, 2, 7, 33};
        for (uint32_t i = 0; i < 4; i++) {
            question.batch = batches[i];
            ask(&vex_index_ivf, &world, &question, &other);
            assert_same(&found, &other);
        }
        free_world(&world);
    }
}

static void scratch_of_the_caller_is_used_and_may_be_too_small(void **state)
{
    (void)state;
    struct world world;
    make_world(&world, VEX_METRIC_COSINE, 48, 3000);
    struct question question = all_of(&world, 0, QUERIES);
    ask(&vex_index_ivf, &world, &question, &truth);
    struct vex_view_segment part = {&world.writer.segment, world.writer.rows};
    struct vex_view view = {&part, 1, 48, VEX_METRIC_COSINE, 1, NULL};
    size_t needed = vex_ivf_scratch_bytes(&view, QUERIES, K);
    for (size_t bytes = needed - 64; bytes <= needed; bytes += 64) {
        void *scratch = aligned_alloc(64, bytes);
        assert_non_null(scratch);
        memset(scratch, 0xa5, bytes);
        struct vex_effort effort = {.scratch = scratch, .scratch_bytes = bytes};
        view.effort = &effort;
        for (uint32_t i = 0; i < QUERIES; i++) {
            vex_topk_init(&found.topks[i], found.heaps[i], K);
        }
        assert_int_equal(
            vex_index_ivf.search(&view, world.queries, QUERIES, found.topks, &found.counters, NULL),
            VEX_OK);
        for (uint32_t i = 0; i < QUERIES; i++) {
            vex_topk_finish(&found.topks[i]);
        }
        assert_same(&found, &truth);
        free(scratch);
    }
    free_world(&world);
}

static void the_dead_and_the_invisible_never_appear(void **state)
{
    (void)state;
    struct world world;
    make_world(&world, VEX_METRIC_L2, 32, 4000);
    struct question question = {3000, 5, 0, K, 16};
    for (uint32_t i = 0; i < 4000; i++) {
        if (vex_random_once_in(&world.random, 3)) {
            /* After 5 is not yet dead for this view. */
            vex_segment_kill(&world.writer, i, 4 + vex_random_below(&world.random, 3));
        }
    }
    ask(&vex_index_flat, &world, &question, &truth);
    ask(&vex_index_ivf, &world, &question, &found);
    assert_true(recall_of(&found, &truth) >= 0.9);
    for (uint32_t i = 0; i < QUERIES; i++) {
        assert_int_equal(found.topks[i].count, K);
        for (uint32_t j = 0; j < K; j++) {
            uint32_t row = found.topks[i].heap[j].row;
            assert_true(row < 3000 && vex_segment_alive(&world.writer.segment, row, 5));
        }
    }
    free_world(&world);
}

static void what_is_alive_among_many_dead_is_found(void **state)
{
    (void)state;
    struct world world;
    make_world(&world, VEX_METRIC_COSINE, 32, 4000);
    for (uint32_t i = 0; i < 4000; i++) {
        if (i % 200 != 7) {
            vex_segment_kill(&world.writer, i, 2);
        }
    }
    struct question question = {4000, 9, 2, K, QUERIES};
    ask(&vex_index_flat, &world, &question, &truth);
    ask(&vex_index_ivf, &world, &question, &found);
    assert_true(found.counters.rescans > QUERIES / 2);
    assert_same(&found, &truth);
    question.lsn = 1;
    ask(&vex_index_ivf, &world, &question, &found);
    assert_int_equal(found.counters.rescans, 0);
    free_world(&world);
}

static void every_small_number_of_rows_is_answered_in_full(void **state)
{
    (void)state;
    for (uint32_t rows = 1; rows <= 70; rows++) {
        struct world world;
        make_world(&world, VEX_METRIC_L2, 5, rows);
        struct question question = all_of(&world, 1, 7);
        ask(&vex_index_flat, &world, &question, &truth);
        ask(&vex_index_ivf, &world, &question, &found);
        for (uint32_t i = 0; i < QUERIES; i++) {
            assert_int_equal(found.topks[i].count, rows < K ? rows : K);
        }
        question.nprobe = VEX_LISTS_MAX;
        ask(&vex_index_ivf, &world, &question, &found);
        assert_true(recall_of(&found, &truth) >= 0.98);
        free_world(&world);
    }
}

static void many_neighbours_are_found_as_well_as_few(void **state)
{
    (void)state;
    struct world world;
    make_world(&world, VEX_METRIC_DOT, 32, 6000);
    struct question question = {6000, 1, 0, 1000, QUERIES};
    ask(&vex_index_flat, &world, &question, &truth);
    ask(&vex_index_ivf, &world, &question, &found);
    assert_true_distances(&world, &found);
    assert_true(recall_of(&found, &truth) >= 0.9);
    free_world(&world);
}

/* All alike, twos of a kind, zeros, and the ends of the range. */
static void equal_and_extreme_rows_are_searched(void **state)
{
    (void)state;
    for (uint32_t kind = 0; kind < 5; kind++) {
        struct world world;
        allocate_world(&world, VEX_METRIC_L2, 16, 2000);
        for (uint32_t i = 0; i < 2000 * 16; i++) {
            float value = (float)vex_random_between(&world.random, -1, 1);
            uint32_t twin = i / 32 * 16 + i % 16;
            world.rows[i] = kind == 0   ? 3
                            : kind == 1 ? world.rows[twin]
                            : kind == 2 ? 0
                            : kind == 3 ? value * 1e37f
                                        : value * 1e-38f;
            if (kind == 1 && i / 16 % 2 == 0) {
                world.rows[i] = value;
            }
        }
        memcpy(world.queries, world.rows, (size_t)QUERIES * 16 * sizeof(float));
        build(&world);
        struct question question = all_of(&world, VEX_LISTS_MAX, QUERIES);
        ask(&vex_index_flat, &world, &question, &truth);
        ask(&vex_index_ivf, &world, &question, &found);
        assert_true_distances(&world, &found);
        double recall = recall_of(&found, &truth);
        print_message("kind %u: recall %.3f\n", kind, recall);
        assert_true(recall >= 0.98);
        free_world(&world);
    }
}

static void segments_share_one_list_of_the_best(void **state)
{
    (void)state;
    struct world worlds[3];
    for (uint32_t i = 0; i < 3; i++) {
        make_world(&worlds[i], VEX_METRIC_L2, 32, 1000 + 1000 * i);
    }
    /* The first one as it is before a merge: no lists. */
    struct vex_segment plain = worlds[0].writer.segment;
    plain.lists.count = 0;
    struct vex_view_segment parts[3] = {
        {&plain, 1000}, {&worlds[1].writer.segment, 2000}, {&worlds[2].writer.segment, 3000}};
    struct vex_view view = {parts, 3, 32, VEX_METRIC_L2, 1, NULL};
    struct question question = {0, 1, 0, K, QUERIES};
    ask_view(&vex_index_flat, &view, worlds[0].queries, &question, &truth);
    ask_view(&vex_index_ivf, &view, worlds[0].queries, &question, &found);
    assert_true(recall_of(&found, &truth) >= 0.9);
    /* A collection whose index has been changed: the search by graphs knows lists. */
    ask_view(&vex_index_hnsw, &view, worlds[0].queries, &question, &other);
    assert_true(recall_of(&other, &truth) >= 0.9);
    assert_true(other.counters.rows_visited < (uint64_t)QUERIES * 6000);
    bool is_from[3] = {false, false, false};
    for (uint32_t i = 0; i < QUERIES; i++) {
        for (uint32_t j = 0; j < K; j++) {
            is_from[found.topks[i].heap[j].segment] = true;
        }
    }
    assert_true(is_from[0] && is_from[1] && is_from[2]);
    for (uint32_t i = 0; i < 3; i++) {
        free_world(&worlds[i]);
    }
}

/* ---- damage ---------------------------------------------------------------------------------- */

/* Asks everything of a damaged image, if it can still be attached. */
static void survive(struct world *world)
{
    struct vex_segment attached;
    struct vex_error error;
    if (vex_segment_attach(&attached, world->memory, world->bytes, &error) != VEX_OK) {
        return;
    }
    struct vex_segment kept = world->writer.segment;
    world->writer.segment = attached;
    static const uint32_t batches[] = {1, QUERIES};
    for (uint32_t i = 0; i < 2; i++) {
        struct question question = {attached.capacity_rows, 1, 5, K, batches[i]};
        ask(&vex_index_ivf, world, &question, &found);
        for (uint32_t q = 0; q < QUERIES; q++) {
            for (uint32_t j = 0; j < found.topks[q].count; j++) {
                assert_true(found.topks[q].heap[j].row < attached.capacity_rows);
            }
        }
    }
    (void)vex_index_ivf.validate(&attached, &error);
    world->writer.segment = kept;
}

static void damaged_bytes_end_in_an_error_or_a_wrong_answer(void **state)
{
    (void)state;
    for (uint32_t metric = VEX_METRIC_L2; metric <= VEX_METRIC_DOT; metric++) {
        struct world world;
        make_world(&world, (enum vex_metric)metric, 20, 1500);
        void *image = malloc(world.bytes);
        assert_non_null(image);
        memcpy(image, world.memory, world.bytes);
        for (enum vex_index_part part = 0; part < VEX_PARTS_COUNT; part++) {
            for (int round = 0; round < 12; round++) {
                memcpy(world.memory, image, world.bytes);
                damage_part(&world.writer, &world.random, part,
                            (enum damage)(round < 3 ? round : 2 + round % 2));
                survive(&world);
            }
        }
        /* Everything behind the heads at once. */
        for (int round = 0; round < 4; round++) {
            memcpy(world.memory, image, world.bytes);
            for (enum vex_index_part part = 0; part < VEX_PARTS_COUNT; part++) {
                if (part != VEX_PART_CODES_HEAD && part != VEX_PART_LISTS_HEAD) {
                    damage_part(&world.writer, &world.random, part, (enum damage)round);
                }
            }
            survive(&world);
        }
        free(image);
        free_world(&world);
    }
}

static void a_head_that_cannot_be_is_refused(void **state)
{
    (void)state;
    struct world world;
    make_world(&world, VEX_METRIC_L2, 20, 500);
    struct vex_index_parts parts;
    vex_segment_parts(&world.writer, &parts);
    void *head = (uint8_t *)world.memory +
                 (parts.start[VEX_PART_LISTS_HEAD] - (const uint8_t *)world.memory);
    struct vex_lists_head good;
    memcpy(&good, head, sizeof(good));
    struct vex_lists_head bad[8];
    for (size_t i = 0; i < 8; i++) {
        bad[i] = good;
    }
    bad[0].magic++;
    bad[1].count = 0;
    bad[2].count = VEX_LISTS_MAX + 1;
    bad[3].count = good.count + 64; /* more than there is room for */
    bad[4].rows--;
    bad[5].padded = 256;
    bad[6].error_rms = NAN;
    bad[7].version++;
    struct vex_segment attached;
    struct vex_error error;
    for (size_t i = 0; i < 8; i++) {
        memcpy(head, &bad[i], sizeof(good));
        assert_int_equal(vex_segment_attach(&attached, world.memory, world.bytes, &error),
                         i < 7 ? VEX_ERR_CORRUPT : VEX_ERR_VERSION);
        assert_non_null(strstr(error.message, "lists"));
    }
    free_world(&world);
}

static void validate_names_what_is_wrong(void **state)
{
    (void)state;
    struct world world;
    make_world(&world, VEX_METRIC_L2, 20, 1500);
    struct vex_lists *lists = &world.writer.segment.lists;
    uint8_t *base = world.memory;
    uint32_t *starts = (void *)(base + ((const uint8_t *)lists->starts - base));
    float *squares = (void *)(base + ((const uint8_t *)lists->centres.squares - base));
    uint8_t *tiles = base + (lists->centres.tiles - base);
    struct vex_error error;
    uint32_t kept = starts[5];
    starts[5] = starts[6] + 1;
    assert_int_equal(vex_index_ivf.validate(&world.writer.segment, &error), VEX_ERR_CORRUPT);
    assert_non_null(strstr(error.message, "list 5"));
    starts[5] = kept;
    squares[3] = NAN;
    assert_int_equal(vex_index_ivf.validate(&world.writer.segment, &error), VEX_ERR_CORRUPT);
    assert_non_null(strstr(error.message, "centre of list 3"));
    squares[3] = 1;
    tiles[0] = 200;
    assert_int_equal(vex_index_ivf.validate(&world.writer.segment, &error), VEX_ERR_CORRUPT);
    tiles[0] = 64;
    starts[lists->count] = 1400;
    assert_int_equal(vex_index_ivf.validate(&world.writer.segment, &error), VEX_ERR_CORRUPT);
    free_world(&world);
}

static void building_wants_rows_in_the_order_of_lists(void **state)
{
    (void)state;
    struct world world;
    allocate_world(&world, VEX_METRIC_L2, 4, 300);
    struct vex_error error;
    assert_int_equal(vex_index_ivf.build(&world.writer, &world.shape, NULL, NULL, &error),
                     VEX_ERR_INVALID);
    for (uint32_t i = 0; i < 300; i++) {
        (void)vex_segment_append(&world.writer, i, (const float[]){1, 2, 3, (float)i}, NULL, 0);
    }
    assert_int_equal(vex_index_ivf.build(&world.writer, &world.shape, NULL, NULL, &error),
                     VEX_ERR_INVALID);
    assert_non_null(strstr(error.message, "order of lists"));
    /* More lists than were laid out. */
    world.shape.lists += 100;
    assert_int_equal(vex_index_ivf.build(&world.writer, &world.shape, NULL, NULL, &error),
                     VEX_ERR_INVALID);
    free_world(&world);
}

int main(void)
{
    seed = vex_random_announce("test_index_ivf");
    if (level_is_missing()) {
        return LEVEL_SKIPPED;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_level_agrees_with_plain_c),
        cmocka_unit_test(every_row_is_in_one_list_and_runs_repeat),
        cmocka_unit_test(rows_of_a_cluster_share_a_list),
        cmocka_unit_test(clustering_and_building_can_be_given_up),
        cmocka_unit_test(numbers_of_lists_follow_rows),
        cmocka_unit_test(nearly_all_of_the_nearest_are_found_under_every_metric),
        cmocka_unit_test(more_lists_find_more),
        cmocka_unit_test(a_batch_answers_as_single_queries_do),
        cmocka_unit_test(scratch_of_the_caller_is_used_and_may_be_too_small),
        cmocka_unit_test(the_dead_and_the_invisible_never_appear),
        cmocka_unit_test(what_is_alive_among_many_dead_is_found),
        cmocka_unit_test(every_small_number_of_rows_is_answered_in_full),
        cmocka_unit_test(many_neighbours_are_found_as_well_as_few),
        cmocka_unit_test(equal_and_extreme_rows_are_searched),
        cmocka_unit_test(segments_share_one_list_of_the_best),
        cmocka_unit_test(damaged_bytes_end_in_an_error_or_a_wrong_answer),
        cmocka_unit_test(a_head_that_cannot_be_is_refused),
        cmocka_unit_test(validate_names_what_is_wrong),
        cmocka_unit_test(building_wants_rows_in_the_order_of_lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
