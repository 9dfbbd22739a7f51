/*
 * Flat search against brute force in double precision: the same ids in the same order, whatever the
 * numbers. The filter in single precision is where it can go wrong, so most of the material is made to
 * defeat it: sums that cancel, that overflow or underflow a float, neighbours closer than a float can
 * tell, lengths that a float cannot hold.
 *
 * The oracle is written from the contract (kernels.h: four interleaved partial sums, no contraction), not
 * from the code, and is itself compared with long double.
 *
 * The level of the kernels is chosen once in a process: VEX_ISA names the one to test, and a processor
 * that lacks it ends the program with 77.
 */
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

#include "index/index.h"
#include "index/kernels.h"
#include "tests/lib/random.h"
#include "tests/unit/level.h"

#define COUNT_OF(array) (sizeof(array) / sizeof(*(array)))
#define DENORM_MIN 0x1p-149f

static uint64_t seed;

/* ---- oracle ---------------------------------------------------------------------------------- */

static double sum_of_four(const double sums[4])
{
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

static double oracle_dot(const float *a, const float *b, uint32_t dim)
{
    double sums[4] = {0, 0, 0, 0};
    for (uint32_t d = 0; d < dim; d++) {
        double product = (double)a[d] * (double)b[d];
        sums[d % 4] += product;
    }
    return sum_of_four(sums);
}

static double oracle_l2(const float *a, const float *b, uint32_t dim)
{
    double sums[4] = {0, 0, 0, 0};
    for (uint32_t d = 0; d < dim; d++) {
        double difference = (double)a[d] - (double)b[d];
        double square = difference * difference;
        sums[d % 4] += square;
    }
    return sum_of_four(sums);
}

static double oracle_key(enum vex_metric metric, const float *query, const float *row, uint32_t dim)
{
    switch (metric) {
    case VEX_METRIC_L2:
        return oracle_l2(query, row, dim);
    case VEX_METRIC_DOT:
        return -oracle_dot(query, row, dim);
    case VEX_METRIC_COSINE:
        break;
    }
    double query_norm = sqrt(oracle_dot(query, query, dim));
    double row_norm = sqrt(oracle_dot(row, row, dim));
    return 1 - oracle_dot(query, row, dim) / (query_norm * row_norm);
}

/* Largest difference that rounding in double explains, for comparison with long double. */
static void check_oracle(enum vex_metric metric, const float *query, const float *row, uint32_t dim)
{
    long double dot = 0;
    long double l2 = 0;
    long double size = 0;
    long double query_square = 0;
    long double row_square = 0;
    for (uint32_t d = 0; d < dim; d++) {
        long double product = (long double)query[d] * row[d];
        long double difference = (long double)query[d] - row[d];
        dot += product;
        size += fabsl(product);
        l2 += difference * difference;
        query_square += (long double)query[d] * query[d];
        row_square += (long double)row[d] * row[d];
    }
    long double unit = (dim + 8) * 0x1p-52L;
    long double key = (long double)oracle_key(metric, query, row, dim);
    if (metric == VEX_METRIC_L2) {
        assert_true(fabsl(key - l2) <= unit * l2);
    } else if (metric == VEX_METRIC_DOT) {
        assert_true(fabsl(key + dot) <= unit * size);
    } else {
        assert_true(fabsl(key - (1 - dot / sqrtl(query_square * row_square))) <= 4 * unit);
    }
}

/* ---- a view and its answer ------------------------------------------------------------------- */

#define SEGMENTS_MAX 5u

struct world {
    uint32_t dim;
    enum vex_metric metric;
    struct vex_segment_writer writers[SEGMENTS_MAX];
    void *memory[SEGMENTS_MAX];
    struct vex_view_segment parts[SEGMENTS_MAX];
    uint32_t segments_count;
};

static void make_world(struct world *world, enum vex_metric metric, uint32_t dim,
                       uint32_t segments_count, uint32_t rows_each)
{
    *world = (struct world){.dim = dim, .metric = metric, .segments_count = segments_count};
    for (uint32_t s = 0; s < segments_count; s++) {
        const struct vex_segment_shape shape = {.segment_id = s + 1,
                                                .collection_id = 1,
                                                .metric = metric,
                                                .dim = dim,
                                                .capacity_rows = rows_each};
        uint64_t bytes = vex_segment_memory_bytes(&shape);
        assert_true(bytes > 0);
        assert_int_equal(posix_memalign(&world->memory[s], 4096, bytes), 0);
        memset(world->memory[s], 0, bytes);
        vex_segment_create(&world->writers[s], &shape, world->memory[s]);
        world->parts[s].segment = &world->writers[s].segment;
    }
}

static void free_world(struct world *world)
{
    for (uint32_t s = 0; s < world->segments_count; s++) {
        free(world->memory[s]);
    }
}

static void add_row(struct world *world, uint32_t s, uint64_t id, const float *vector)
{
    (void)vex_segment_append(&world->writers[s], id, vector, NULL, 0);
    world->parts[s].visible_rows = world->writers[s].rows;
}

static int by_key_and_id(const void *left, const void *right)
{
    const struct vex_candidate *a = left;
    const struct vex_candidate *b = right;
    if (a->key != b->key) {
        return a->key < b->key ? -1 : 1;
    }
    return a->id < b->id ? -1 : a->id > b->id;
}

/* All visible, living rows, nearest first. Returns how many. */
static uint32_t rank_all(const struct world *world, const float *query, uint64_t lsn,
                         struct vex_candidate **out_ranked)
{
    uint32_t most = 0;
    for (uint32_t s = 0; s < world->segments_count; s++) {
        most += world->parts[s].visible_rows;
    }
    struct vex_candidate *ranked = calloc(most ? most : 1, sizeof(*ranked));
    assert_non_null(ranked);
    uint32_t count = 0;
    for (uint32_t s = 0; s < world->segments_count; s++) {
        const struct vex_segment *segment = world->parts[s].segment;
        for (uint32_t row = 0; row < world->parts[s].visible_rows; row++) {
            uint64_t death = vex_segment_death(segment, row);
            if (death != 0 && death <= lsn) {
                continue;
            }
            const float *vector = vex_segment_vector(segment, row);
            ranked[count++] = (struct vex_candidate){
                oracle_key(world->metric, query, vector, world->dim), segment->ids[row], s, row};
        }
    }
    qsort(ranked, count, sizeof(*ranked), by_key_and_id);
    *out_ranked = ranked;
    return count;
}

static const char *metric_name(enum vex_metric metric)
{
    return metric == VEX_METRIC_L2 ? "l2" : metric == VEX_METRIC_DOT ? "dot" : "cosine";
}

static void compare(const struct world *world, const float *query, uint64_t lsn,
                    const struct vex_topk *topk, const char *what)
{
    struct vex_candidate *ranked;
    uint32_t count = rank_all(world, query, lsn, &ranked);
    uint32_t expected = count < topk->k ? count : topk->k;
    if (topk->count != expected) {
        fail_msg("%s, %s, dim %u, k %u: %u rows instead of %u", what, metric_name(world->metric),
                 world->dim, topk->k, topk->count, expected);
    }
    for (uint32_t i = 0; i < expected; i++) {
        const struct vex_candidate *got = &topk->heap[i];
        if (got->id != ranked[i].id || got->key != ranked[i].key ||
            got->segment != ranked[i].segment || got->row != ranked[i].row) {
            fail_msg("%s, %s, dim %u, k %u, place %u of %u: id %llu key %.17g instead of id %llu "
                     "key %.17g",
                     what, metric_name(world->metric), world->dim, topk->k, i, count,
                     (unsigned long long)got->id, got->key, (unsigned long long)ranked[i].id,
                     ranked[i].key);
        }
    }
    free(ranked);
}

/* Searches for `count` queries at once and compares each answer with brute force. */
static void check_search(const struct world *world, const float *queries, size_t count, uint32_t k,
                         uint64_t lsn, const char *what)
{
    struct vex_candidate *heaps = calloc(count * k, sizeof(*heaps));
    struct vex_topk *topks = calloc(count, sizeof(*topks));
    assert_true(heaps && topks);
    for (size_t i = 0; i < count; i++) {
        vex_topk_init(&topks[i], heaps + i * k, k);
    }
    struct vex_view view = {world->parts, world->segments_count, world->dim, world->metric, lsn,
                            NULL};
    struct vex_search_counters counters = {.rows_visited = 1000};
    assert_int_equal(vex_index_flat.search(&view, queries, count, topks, &counters, NULL), VEX_OK);
    uint64_t visible = 0;
    for (uint32_t s = 0; s < world->segments_count; s++) {
        visible += world->parts[s].visible_rows;
    }
    assert_int_equal(counters.rows_visited, 1000 + count * visible);
    for (size_t i = 0; i < count; i++) {
        vex_topk_finish(&topks[i]);
        compare(world, queries + i * world->dim, lsn, &topks[i], what);
    }
    free(topks);
    free(heaps);
}

/* ---- material -------------------------------------------------------------------------------- */

typedef void (*maker)(struct vex_random *random, float *vector, uint32_t dim, uint32_t number);

static void make_uniform(struct vex_random *random, float *vector, uint32_t dim, uint32_t number)
{
    (void)number;
    for (uint32_t d = 0; d < dim; d++) {
        vector[d] = (float)vex_random_between(random, -1, 1);
    }
}

/* Whole numbers of a small range: many equal distances. */
static void make_whole(struct vex_random *random, float *vector, uint32_t dim, uint32_t number)
{
    (void)number;
    for (uint32_t d = 0; d < dim; d++) {
        vector[d] = (float)vex_random_below(random, 3) - 1;
    }
}

/* As pictures: 0 to 255, large sums whose neighbours differ by less than a float can tell. */
static void make_pixels(struct vex_random *random, float *vector, uint32_t dim, uint32_t number)
{
    (void)number;
    for (uint32_t d = 0; d < dim; d++) {
        vector[d] = (float)vex_random_below(random, 256);
    }
    /* Only a few pixels differ from a common picture. */
    for (uint32_t d = 0; d < dim; d++) {
        vector[d] = d % 7 == number % 7 ? vector[d] : (float)(d * 37 % 256);
    }
}

static void make_equal(struct vex_random *random, float *vector, uint32_t dim, uint32_t number)
{
    (void)random;
    (void)number;
    for (uint32_t d = 0; d < dim; d++) {
        vector[d] = 0.1f * (float)(d % 10 + 1);
    }
}

/* One value of a common vector moved by one step of a float. */
static void make_nearly_equal(struct vex_random *random, float *vector, uint32_t dim,
                              uint32_t number)
{
    make_equal(random, vector, dim, number);
    uint32_t d = (uint32_t)vex_random_below(random, dim);
    vector[d] = nextafterf(vector[d], vex_random_once_in(random, 2) ? INFINITY : -INFINITY);
}

/* The same direction at many lengths: cosines that differ in rounding only. */
static void make_parallel(struct vex_random *random, float *vector, uint32_t dim, uint32_t number)
{
    make_equal(random, vector, dim, number);
    float scale = (float)exp(vex_random_between(random, -20, 20));
    for (uint32_t d = 0; d < dim; d++) {
        vector[d] *= scale;
    }
}

static void make_magnitudes(struct vex_random *random, float *vector, uint32_t dim, uint32_t number)
{
    (void)number;
    for (uint32_t d = 0; d < dim; d++) {
        double size = pow(10, vex_random_between(random, -30, 30));
        vector[d] = (float)(vex_random_once_in(random, 2) ? size : -size);
    }
}

/* All values of one vector alike, each vector of another magnitude. */
static void make_scales(struct vex_random *random, float *vector, uint32_t dim, uint32_t number)
{
    make_uniform(random, vector, dim, number);
    double scale = pow(10, vex_random_between(random, -38, 38));
    for (uint32_t d = 0; d < dim; d++) {
        vector[d] = (float)((double)vector[d] * scale);
    }
    vector[0] = vector[0] == 0 ? DENORM_MIN : vector[0];
}

static void make_subnormal(struct vex_random *random, float *vector, uint32_t dim, uint32_t number)
{
    (void)number;
    for (uint32_t d = 0; d < dim; d++) {
        float size = (float)(1 + vex_random_below(random, 4)) * DENORM_MIN;
        vector[d] = vex_random_once_in(random, 3) ? -size : size;
    }
}

static void make_huge(struct vex_random *random, float *vector, uint32_t dim, uint32_t number)
{
    (void)number;
    for (uint32_t d = 0; d < dim; d++) {
        float size = vex_random_once_in(random, 2) ? FLT_MAX : FLT_MAX / 2;
        vector[d] = vex_random_once_in(random, 2) ? size : -size;
    }
}

/* Large terms that cancel and leave a small rest. */
static void make_cancelling(struct vex_random *random, float *vector, uint32_t dim, uint32_t number)
{
    (void)number;
    float size = (float)vex_random_between(random, 1e6, 1e7);
    for (uint32_t d = 0; d < dim; d++) {
        vector[d] = d % 2 ? -size : size;
    }
    vector[vex_random_below(random, dim)] += (float)vex_random_between(random, -2, 2);
}

/* Mostly zeros. */
static void make_sparse(struct vex_random *random, float *vector, uint32_t dim, uint32_t number)
{
    (void)number;
    memset(vector, 0, dim * sizeof(*vector));
    for (uint32_t i = 0; i < 1 + dim / 16; i++) {
        vector[vex_random_below(random, dim)] = (float)vex_random_between(random, 1, 2);
    }
}

static const struct {
    const char *name;
    maker make;
} makers[] = {
    {"uniform", make_uniform},
    {"whole numbers", make_whole},
    {"pixels", make_pixels},
    {"equal", make_equal},
    {"nearly equal", make_nearly_equal},
    {"parallel", make_parallel},
    {"magnitudes", make_magnitudes},
    {"scales", make_scales},
    {"subnormal", make_subnormal},
    {"huge", make_huge},
    {"cancelling", make_cancelling},
    {"sparse", make_sparse},
};

/* Makes vectors until one is not zero: cosine has no zero vectors. */
static void make_directed(maker make, struct vex_random *random, float *vector, uint32_t dim,
                          uint32_t number)
{
    for (int attempt = 0; attempt < 100; attempt++) {
        make(random, vector, dim, number);
        for (uint32_t d = 0; d < dim; d++) {
            if (vector[d] != 0) {
                return;
            }
        }
    }
    vector[0] = 1;
}

/* Rows of one kind and queries of another, ids in no order, some rows twice. */
static void check_material(struct vex_random *random, enum vex_metric metric, uint32_t dim,
                           uint32_t rows, size_t row_kind, size_t query_kind)
{
    struct world world;
    make_world(&world, metric, dim, 1, rows);
    float *vectors = malloc((size_t)dim * 4 * sizeof(float));
    assert_non_null(vectors);
    float *row = vectors + (size_t)3 * dim;
    for (uint32_t i = 0; i < rows; i++) {
        if (i == 0 || !vex_random_once_in(random, 8)) {
            make_directed(makers[row_kind].make, random, row, dim, i);
        }
        /* A multiplication by an odd number gives every id once. */
        add_row(&world, 0, (uint64_t)i * 0x9e3779b97f4a7c15u >> 1, row);
    }
    make_directed(makers[query_kind].make, random, vectors, dim, 1);
    make_directed(makers[query_kind].make, random, vectors + dim, dim, 2);
    memcpy(vectors + 2 * dim,
           vex_segment_vector(world.parts[0].segment, (uint32_t)vex_random_below(random, rows)),
           dim * sizeof(float));
    char what[64];
    (void)snprintf(what, sizeof(what), "%s asked with %s", makers[row_kind].name,
                   makers[query_kind].name);
    const uint32_t ks[] = {1, 3, 10};
    for (size_t i = 0; i < COUNT_OF(ks); i++) {
        check_search(&world, vectors, 3, ks[i], UINT64_MAX, what);
    }
    check_oracle(metric, vectors, row, dim);
    free(vectors);
    free_world(&world);
}

/* ---- cases ----------------------------------------------------------------------------------- */

static void every_dimension_equals_brute_force(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed);
    for (uint32_t dim = 1; dim <= 2000; dim++) {
        bool wanted =
            dim <= 70 || (dim >= 255 && dim <= 260) || dim == 784 || dim == 1000 || dim == 2000;
        for (int metric = VEX_METRIC_L2; wanted && metric <= VEX_METRIC_DOT; metric++) {
            uint32_t rows = dim <= 70 ? 600 : 120;
            check_material(&random, (enum vex_metric)metric, dim, rows, 0, 0);
            check_material(&random, (enum vex_metric)metric, dim, rows, 2, 2);
        }
    }
}

/* Each kind of rows asked with each kind of query. */
static void adversarial_numbers_equal_brute_force(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed + 1);
    const uint32_t dims[] = {1, 2, 3, 4, 7, 16, 17, 64, 100};
    for (size_t i = 0; i < COUNT_OF(dims); i++) {
        for (size_t rows = 0; rows < COUNT_OF(makers); rows++) {
            for (size_t queries = 0; queries < COUNT_OF(makers); queries++) {
                for (int metric = VEX_METRIC_L2; metric <= VEX_METRIC_DOT; metric++) {
                    check_material(&random, (enum vex_metric)metric, dims[i], 150, rows, queries);
                }
            }
        }
    }
}

static void long_adversarial_vectors_equal_brute_force(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed + 2);
    const uint32_t dims[] = {259, 784, 2000};
    for (size_t i = 0; i < COUNT_OF(dims); i++) {
        for (size_t kind = 0; kind < COUNT_OF(makers); kind++) {
            for (int metric = VEX_METRIC_L2; metric <= VEX_METRIC_DOT; metric++) {
                check_material(&random, (enum vex_metric)metric, dims[i], 60, kind, kind);
                check_material(&random, (enum vex_metric)metric, dims[i], 60, kind, 0);
            }
        }
    }
}

/* The length of such a row, rounded to a float, is off by up to a third: it may not decide anything. */
static void lengths_that_a_float_cannot_hold_decide_nothing(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed + 3);
    for (int metric = VEX_METRIC_L2; metric <= VEX_METRIC_DOT; metric++) {
        for (uint32_t dim = 2; dim <= 24; dim++) {
            struct world world;
            make_world(&world, (enum vex_metric)metric, dim, 1, 120);
            float vector[24];
            for (uint32_t i = 0; i < 120; i++) {
                /* Ones and zeros: lengths of sqrt(1), sqrt(2), sqrt(3) ... smallest floats. */
                memset(vector, 0, sizeof(vector));
                for (uint32_t d = 0; d < dim; d++) {
                    vector[d] = vex_random_once_in(&random, 2) ? DENORM_MIN : 0;
                }
                vector[i % dim] = DENORM_MIN;
                add_row(&world, 0, 1000 - i, vector);
            }
            for (uint32_t d = 0; d < dim; d++) {
                vector[d] = (float)vex_random_between(&random, 1e29, 1e30);
            }
            for (uint32_t k = 1; k <= 20; k++) {
                check_search(&world, vector, 1, k, 1, "smallest floats");
            }
            free_world(&world);
        }
    }
}

/* Sums that leave the range of a float on their way and come back: what the float says then is nothing.
 * Large terms of one sign fill the first half of the row, nearly as large ones of the other the rest, so
 * that every partial sum of every kernel overflows. */
static void sums_whose_parts_overflow_decide_nothing(void **state)
{
    (void)state;
    const uint32_t dim = 512;
    const float large = FLT_MAX / 24; /* the length of the row is still a float */
    float *vector = malloc(dim * sizeof(*vector));
    float *sixteens = malloc(dim * sizeof(*sixteens));
    assert_true(vector && sixteens);
    for (int metric = VEX_METRIC_L2; metric <= VEX_METRIC_DOT; metric++) {
        for (int sign = -1; sign <= 1; sign += 2) {
            struct world world;
            make_world(&world, (enum vex_metric)metric, dim, 1, 300);
            for (uint32_t i = 0; i < 300; i++) {
                for (uint32_t d = 0; d < dim; d++) {
                    float rest = i % 2 ? nextafterf(large, INFINITY) : nextafterf(large, 0);
                    bool overflows = i % 10 == 7 || i % 10 == 8;
                    vector[d] = !overflows    ? (float)(i + d % 3)
                                : d < dim / 2 ? -large * (float)sign
                                              : rest * (float)sign;
                    sixteens[d] = 16;
                }
                vector[0] += 1;
                add_row(&world, 0, i, vector);
            }
            for (uint32_t k = 1; k <= 64; k *= 4) {
                check_search(&world, sixteens, 1, k, 1, "overflowing parts");
                check_search(&world, vector, 1, k, 1, "overflowing parts");
            }
            free_world(&world);
        }
    }
    free(sixteens);
    free(vector);
}

static void k_may_be_anything_from_one_to_more_than_there_are(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed + 4);
    const uint32_t ks[] = {1, 2, 9, 10, 99, 100, 101, 1000, VEX_K_MAX};
    for (int metric = VEX_METRIC_L2; metric <= VEX_METRIC_DOT; metric++) {
        struct world world;
        float vector[20];
        make_world(&world, (enum vex_metric)metric, 20, 1, 100);
        for (uint32_t i = 0; i < 100; i++) {
            make_directed(make_whole, &random, vector, 20, i);
            add_row(&world, 0, 500 - i, vector);
        }
        make_directed(make_uniform, &random, vector, 20, 0);
        for (size_t i = 0; i < COUNT_OF(ks); i++) {
            check_search(&world, vector, 1, ks[i], 1, "k");
        }
        free_world(&world);
    }
}

static void equal_distances_go_to_the_lower_ids(void **state)
{
    (void)state;
    for (int metric = VEX_METRIC_L2; metric <= VEX_METRIC_DOT; metric++) {
        struct world world;
        make_world(&world, (enum vex_metric)metric, 5, 2, 700);
        const float vector[5] = {0.1f, 0.2f, 0.3f, 0.4f, 0.5f};
        for (uint32_t i = 0; i < 1400; i++) {
            /* In the order of rows the lowest ids are neither first nor last. */
            add_row(&world, i / 700, (i * 617u) % 1400u, vector);
        }
        const uint32_t ks[] = {1, 7, 256, 1400, 1500};
        for (size_t i = 0; i < COUNT_OF(ks); i++) {
            check_search(&world, vector, 1, ks[i], 1, "equal rows");
        }
        free_world(&world);
    }
}

/* Different rows, the same distance: mirrored and permuted coordinates. */
static void rows_at_the_same_distance_go_by_id_too(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed + 5);
    for (int metric = VEX_METRIC_L2; metric <= VEX_METRIC_DOT; metric++) {
        struct world world;
        make_world(&world, (enum vex_metric)metric, 8, 1, 256);
        float vector[8];
        for (uint32_t i = 0; i < 256; i++) {
            for (uint32_t d = 0; d < 8; d++) {
                vector[d] = i >> d & 1 ? 3 : -3;
            }
            add_row(&world, 0, (i * 77u) % 256u, vector);
        }
        const float ones[8] = {1, 1, 1, 1, 1, 1, 1, 1};
        for (uint32_t k = 1; k <= 256; k += 17) {
            check_search(&world, ones, 1, k, 1, "mirrored");
        }
        make_directed(make_whole, &random, vector, 8, 0);
        check_search(&world, vector, 1, 40, 1, "mirrored");
        free_world(&world);
    }
}

static void dead_rows_are_left_out_as_of_the_lsn_of_the_view(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed + 6);
    for (int metric = VEX_METRIC_L2; metric <= VEX_METRIC_DOT; metric++) {
        struct world world;
        float vector[12];
        make_world(&world, (enum vex_metric)metric, 12, 1, 900);
        for (uint32_t i = 0; i < 900; i++) {
            make_directed(make_uniform, &random, vector, 12, i);
            add_row(&world, 0, i, vector);
            if (vex_random_once_in(&random, 2)) {
                vex_segment_kill(&world.writers[0], i, 1 + vex_random_below(&random, 100));
            }
        }
        make_directed(make_uniform, &random, vector, 12, 0);
        const uint64_t lsns[] = {0, 1, 50, 99, 100, UINT64_MAX};
        for (size_t i = 0; i < COUNT_OF(lsns); i++) {
            check_search(&world, vector, 1, 10, lsns[i], "deaths");
            check_search(&world, vector, 1, 600, lsns[i], "deaths");
        }
        for (uint32_t i = 0; i < 900; i++) {
            if (vex_segment_alive(&world.writers[0].segment, i, UINT64_MAX)) {
                vex_segment_kill(&world.writers[0], i, 200);
            }
        }
        check_search(&world, vector, 1, 10, 200, "all dead");
        free_world(&world);
    }
}

static void only_visible_rows_of_all_segments_count(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed + 7);
    for (int round = 0; round < 60; round++) {
        enum vex_metric metric = (enum vex_metric)(1 + round % 3);
        struct world world;
        float vector[30];
        uint32_t segments_count = (uint32_t)vex_random_below(&random, SEGMENTS_MAX + 1);
        make_world(&world, metric, 30, segments_count, 300);
        for (uint32_t s = 0; s < segments_count; s++) {
            uint32_t rows = (uint32_t)vex_random_below(&random, 301);
            for (uint32_t i = 0; i < rows; i++) {
                make_directed(make_whole, &random, vector, 30, i);
                add_row(&world, s, 10000 - (s * 300 + i), vector);
            }
            world.parts[s].visible_rows = (uint32_t)vex_random_below(&random, rows + 1);
        }
        make_directed(make_uniform, &random, vector, 30, 0);
        check_search(&world, vector, 1, 1 + (uint32_t)vex_random_below(&random, 50), 1, "segments");
        free_world(&world);
    }
}

/* Queries share passes over the rows in groups; the borders of groups and of blocks of rows. */
static void many_queries_at_once_are_answered_one_by_one(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed + 8);
    const size_t counts[] = {1, 2, 63, 64, 65, 127, 128, 129, 200};
    const uint32_t rows[] = {255, 256, 257, 513};
    float *queries = malloc(200 * 9 * sizeof(float));
    assert_non_null(queries);
    for (int metric = VEX_METRIC_L2; metric <= VEX_METRIC_DOT; metric++) {
        for (size_t r = 0; r < COUNT_OF(rows); r++) {
            struct world world;
            float vector[9];
            make_world(&world, (enum vex_metric)metric, 9, 1, rows[r]);
            for (uint32_t i = 0; i < rows[r]; i++) {
                make_directed(make_uniform, &random, vector, 9, i);
                add_row(&world, 0, i ^ 0x55, vector);
            }
            for (size_t i = 0; i < 200; i++) {
                make_directed(make_uniform, &random, queries + 9 * i, 9, 0);
            }
            for (size_t i = 0; i < COUNT_OF(counts); i++) {
                check_search(&world, queries, counts[i], 5, 1, "groups");
            }
            free_world(&world);
        }
    }
    free(queries);
}

static void blocks_of_rows_end_where_they_should_in_every_dimension(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed + 9);
    const uint32_t dims[] = {1, 48, 49, 192, 193, 1000, 3072, 4096, 12288, 20000, VEX_DIM_MAX};
    float *vector = malloc(VEX_DIM_MAX * sizeof(float));
    assert_non_null(vector);
    for (size_t i = 0; i < COUNT_OF(dims); i++) {
        for (uint32_t rows = 1; rows <= 13; rows += 4) {
            struct world world;
            make_world(&world, VEX_METRIC_L2, dims[i], 1, rows);
            for (uint32_t row = 0; row < rows; row++) {
                make_uniform(&random, vector, dims[i], row);
                add_row(&world, 0, row, vector);
            }
            make_uniform(&random, vector, dims[i], 0);
            check_search(&world, vector, 1, 2, 1, "blocks");
            free_world(&world);
        }
    }
    free(vector);
}

static void an_empty_view_has_an_empty_answer(void **state)
{
    (void)state;
    struct world world;
    const float query[3] = {1, 2, 3};
    make_world(&world, VEX_METRIC_L2, 3, 0, 0);
    check_search(&world, query, 1, 10, 0, "no segment");
    make_world(&world, VEX_METRIC_COSINE, 3, 2, 5);
    check_search(&world, query, 1, 10, 0, "no rows");
    check_search(&world, query, 0, 10, 0, "no queries");
    free_world(&world);
}

static void zero_vectors_are_rows_like_others_unless_direction_counts(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed + 10);
    const enum vex_metric metrics[] = {VEX_METRIC_L2, VEX_METRIC_DOT};
    for (size_t m = 0; m < COUNT_OF(metrics); m++) {
        struct world world;
        float vector[6];
        const float zero[6] = {0};
        make_world(&world, metrics[m], 6, 1, 50);
        for (uint32_t i = 0; i < 50; i++) {
            make_whole(&random, vector, 6, i);
            add_row(&world, 0, i, i % 5 ? vector : zero);
        }
        for (uint32_t k = 1; k <= 50; k += 7) {
            check_search(&world, zero, 1, k, 1, "zero query");
            check_search(&world, vector, 1, k, 1, "zero rows");
        }
        free_world(&world);
    }
}

static void an_id_is_found_in_its_newest_segment(void **state)
{
    (void)state;
    struct world world;
    const float vector[2] = {1, 2};
    make_world(&world, VEX_METRIC_L2, 2, 3, 10);
    struct vex_view view = {world.parts, 3, 2, VEX_METRIC_L2, 5, NULL};
    uint32_t segment = 9;
    uint32_t row = 9;
    assert_false(vex_view_find(&view, 7, &segment, &row));
    add_row(&world, 0, 7, vector);
    add_row(&world, 0, 8, vector);
    assert_true(vex_view_find(&view, 7, &segment, &row));
    assert_true(segment == 0 && row == 0);
    /* Replaced at LSN 6, which this view does not see yet; then it does. */
    vex_segment_kill(&world.writers[0], 0, 6);
    add_row(&world, 2, 7, vector);
    world.parts[2].visible_rows = 0;
    assert_true(vex_view_find(&view, 7, &segment, &row));
    assert_true(segment == 0 && row == 0);
    world.parts[2].visible_rows = 1;
    view.lsn = 6;
    assert_true(vex_view_find(&view, 7, &segment, &row));
    assert_true(segment == 2 && row == 0);
    assert_true(vex_view_find(&view, 8, &segment, &row));
    assert_true(segment == 0 && row == 1);
    vex_segment_kill(&world.writers[2], 0, 7);
    view.lsn = 7;
    assert_false(vex_view_find(&view, 7, &segment, &row));
    free_world(&world);
}

int main(void)
{
    if (level_is_missing()) {
        return LEVEL_SKIPPED;
    }
    seed = vex_random_announce("test_index_flat");
    printf("kernels: %s\n", vex_kernels_get()->name);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_dimension_equals_brute_force),
        cmocka_unit_test(adversarial_numbers_equal_brute_force),
        cmocka_unit_test(long_adversarial_vectors_equal_brute_force),
        cmocka_unit_test(lengths_that_a_float_cannot_hold_decide_nothing),
        cmocka_unit_test(sums_whose_parts_overflow_decide_nothing),
        cmocka_unit_test(k_may_be_anything_from_one_to_more_than_there_are),
        cmocka_unit_test(equal_distances_go_to_the_lower_ids),
        cmocka_unit_test(rows_at_the_same_distance_go_by_id_too),
        cmocka_unit_test(dead_rows_are_left_out_as_of_the_lsn_of_the_view),
        cmocka_unit_test(only_visible_rows_of_all_segments_count),
        cmocka_unit_test(many_queries_at_once_are_answered_one_by_one),
        cmocka_unit_test(blocks_of_rows_end_where_they_should_in_every_dimension),
        cmocka_unit_test(an_empty_view_has_an_empty_answer),
        cmocka_unit_test(zero_vectors_are_rows_like_others_unless_direction_counts),
        cmocka_unit_test(an_id_is_found_in_its_newest_segment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
