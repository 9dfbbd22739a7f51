#include "tests/unit/hard_rows.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

#define IDS_STRIDE 7919u /* a prime: ids wander over the rows */

typedef void (*fill_kind)(struct hard_rows *rows, struct vex_random *random);

/* Near enough to a bell: a sum of four. */
static double bell(struct vex_random *random)
{
    double sum = 0;
    for (int i = 0; i < 4; i++) {
        sum += vex_random_between(random, -1, 1);
    }
    return sum;
}

static float *vector_at(struct hard_rows *rows, uint32_t i)
{
    return i < rows->rows_count ? rows->rows + (size_t)i * rows->dim
                                : rows->queries + (size_t)(i - rows->rows_count) * rows->dim;
}

static uint32_t all(const struct hard_rows *rows)
{
    return rows->rows_count + rows->queries_count;
}

static void fill_bells(struct hard_rows *rows, double centre, double size,
                       struct vex_random *random)
{
    for (uint32_t i = 0; i < all(rows); i++) {
        float *vector = vector_at(rows, i);
        for (uint32_t d = 0; d < rows->dim; d++) {
            vector[d] = (float)(centre + size * bell(random));
        }
    }
}

static void fill_random(struct hard_rows *rows, struct vex_random *random)
{
    fill_bells(rows, 0, 1, random);
}

/* Centring loses what the distance is made of. */
static void fill_far_centre(struct hard_rows *rows, struct vex_random *random)
{
    fill_bells(rows, vex_random_between(random, 1, 1e3), pow(10, vex_random_between(random, -5, 0)),
               random);
}

static void fill_very_far_centre(struct hard_rows *rows, struct vex_random *random)
{
    fill_bells(rows, pow(10, vex_random_between(random, 5, 7)), 1, random);
}

/* Codes fit perfectly: nothing hides an error of the query's rounding or of half floats. */
static void fill_axes(struct hard_rows *rows, struct vex_random *random)
{
    uint32_t axes = rows->dim < 3 ? rows->dim : 3;
    for (uint32_t i = 0; i < all(rows); i++) {
        float *vector = vector_at(rows, i);
        memset(vector, 0, rows->dim * sizeof(*vector));
        bool is_query = i >= rows->rows_count;
        double length = pow(10, vex_random_between(random, -1.5, 0));
        for (uint32_t d = 0; d < axes && is_query; d++) {
            vector[d] = (float)bell(random);
        }
        if (!is_query) {
            vector[vex_random_below(random, axes)] = (float)(i % 2 ? length : -length);
        }
    }
}

/* One direction, many lengths. */
static void fill_ray(struct hard_rows *rows, struct vex_random *random)
{
    float *first = vector_at(rows, 0);
    for (uint32_t d = 0; d < rows->dim; d++) {
        first[d] = (float)bell(random);
    }
    for (uint32_t i = all(rows); i-- > 0;) {
        double length = pow(10, vex_random_between(random, -2, 2));
        for (uint32_t d = 0; d < rows->dim; d++) {
            vector_at(rows, i)[d] = (float)((double)first[d] * length);
        }
    }
}

/* Ties without end. */
static void fill_small_integers(struct hard_rows *rows, struct vex_random *random)
{
    uint64_t levels = 2 + vex_random_below(random, 3);
    for (uint32_t i = 0; i < all(rows); i++) {
        for (uint32_t d = 0; d < rows->dim; d++) {
            vector_at(rows, i)[d] = (float)vex_random_below(random, levels);
        }
    }
}

static void fill_equal(struct hard_rows *rows, struct vex_random *random)
{
    float value = (float)bell(random);
    for (uint32_t i = 0; i < all(rows); i++) {
        for (uint32_t d = 0; d < rows->dim; d++) {
            vector_at(rows, i)[d] = value;
        }
    }
}

/* Few vectors, each many times; queries are rows. */
static void fill_duplicates(struct hard_rows *rows, struct vex_random *random)
{
    fill_random(rows, random);
    uint32_t originals = rows->rows_count < 12 ? rows->rows_count : 12;
    for (uint32_t i = originals; i < all(rows); i++) {
        memcpy(vector_at(rows, i), vector_at(rows, (uint32_t)vex_random_below(random, originals)),
               rows->dim * sizeof(float));
    }
}

/* Queries a last digit away from rows. */
static void fill_neighbours(struct hard_rows *rows, struct vex_random *random)
{
    fill_random(rows, random);
    for (uint32_t i = rows->rows_count; i < all(rows); i++) {
        const float *row = vector_at(rows, (uint32_t)vex_random_below(random, rows->rows_count));
        for (uint32_t d = 0; d < rows->dim; d++) {
            vector_at(rows, i)[d] = nextafterf(row[d], (float)bell(random));
        }
    }
}

/* Lengths from the smallest float to the largest. */
static void fill_all_lengths(struct hard_rows *rows, struct vex_random *random)
{
    for (uint32_t i = 0; i < all(rows); i++) {
        double length = pow(2, vex_random_between(random, -149, 124));
        for (uint32_t d = 0; d < rows->dim; d++) {
            vector_at(rows, i)[d] = (float)(bell(random) * length);
        }
    }
}

static void fill_tiny(struct hard_rows *rows, struct vex_random *random)
{
    fill_bells(rows, 0, pow(2, vex_random_between(random, -149, -100)), random);
}

static void fill_huge(struct hard_rows *rows, struct vex_random *random)
{
    fill_bells(rows, 0, pow(2, vex_random_between(random, 100, 125.5)), random);
}

/* One coordinate, or one row, that dwarfs the others: steps and units are made for it. */
static void fill_outlier_coordinate(struct hard_rows *rows, struct vex_random *random)
{
    fill_random(rows, random);
    uint32_t place = (uint32_t)vex_random_below(random, rows->dim);
    double size = pow(10, vex_random_between(random, 1, 6));
    for (uint32_t i = 0; i < all(rows); i++) {
        if (vex_random_once_in(random, 2)) {
            vector_at(rows, i)[place] = (float)(size * bell(random));
        }
    }
}

static void fill_outlier_row(struct hard_rows *rows, struct vex_random *random)
{
    fill_random(rows, random);
    double size = pow(10, vex_random_between(random, 1, 20));
    float *row = vector_at(rows, (uint32_t)vex_random_below(random, rows->rows_count));
    for (uint32_t d = 0; d < rows->dim; d++) {
        row[d] = (float)((double)row[d] * size);
    }
}

/* Clusters far smaller than their distances: the threshold is tiny beside lengths. */
static void fill_clusters(struct hard_rows *rows, struct vex_random *random)
{
    fill_random(rows, random);
    uint32_t centres = rows->rows_count < 8 ? rows->rows_count : 8;
    double size = pow(10, vex_random_between(random, -4, -0.3));
    for (uint32_t i = centres; i < all(rows); i++) {
        const float *centre = vector_at(rows, (uint32_t)vex_random_below(random, centres));
        for (uint32_t d = 0; d < rows->dim; d++) {
            vector_at(rows, i)[d] = (float)((double)centre[d] + size * bell(random));
        }
    }
}

/* Far queries: what the rows are is lost beside them. */
static void fill_far_queries(struct hard_rows *rows, struct vex_random *random)
{
    fill_random(rows, random);
    double size = pow(10, vex_random_between(random, 1, 30));
    for (uint32_t i = rows->rows_count; i < all(rows); i++) {
        for (uint32_t d = 0; d < rows->dim; d++) {
            vector_at(rows, i)[d] = (float)(size * bell(random));
        }
    }
}

/* Many zeros, and rows that are nothing else. */
static void fill_sparse(struct hard_rows *rows, struct vex_random *random)
{
    for (uint32_t i = 0; i < all(rows); i++) {
        bool is_zero = vex_random_once_in(random, 5);
        for (uint32_t d = 0; d < rows->dim; d++) {
            bool is_set = !is_zero && vex_random_once_in(random, 8);
            vector_at(rows, i)[d] = is_set ? (float)bell(random) : 0;
        }
    }
}

/* Rows as far from the query as each other, but for the last digits of a float. */
static void fill_sphere(struct hard_rows *rows, struct vex_random *random)
{
    fill_random(rows, random);
    for (uint32_t i = 0; i < all(rows); i++) {
        float *vector = vector_at(rows, i);
        double square = 0;
        for (uint32_t d = 0; d < rows->dim; d++) {
            square += (double)vector[d] * (double)vector[d];
        }
        double scale = i < rows->rows_count ? 1 / sqrt(square) : 1e-4 / sqrt(square);
        for (uint32_t d = 0; d < rows->dim && square > 0; d++) {
            vector[d] = (float)((double)vector[d] * scale);
        }
    }
}

static const struct {
    const char *name;
    fill_kind fill;
} kinds[] = {
    {"random", fill_random},
    {"far centre", fill_far_centre},
    {"very far centre", fill_very_far_centre},
    {"axes", fill_axes},
    {"ray", fill_ray},
    {"small integers", fill_small_integers},
    {"all equal", fill_equal},
    {"duplicates", fill_duplicates},
    {"neighbours", fill_neighbours},
    {"all lengths", fill_all_lengths},
    {"tiny", fill_tiny},
    {"huge", fill_huge},
    {"outlier coordinate", fill_outlier_coordinate},
    {"outlier row", fill_outlier_row},
    {"clusters", fill_clusters},
    {"far queries", fill_far_queries},
    {"sparse", fill_sparse},
    {"sphere", fill_sphere},
};

uint32_t hard_rows_kinds(void)
{
    return sizeof(kinds) / sizeof(*kinds);
}

const char *hard_rows_kind(uint32_t kind)
{
    return kinds[kind].name;
}

/* Cosine has no zero vectors; none of the fillers makes infinities but those of huge sizes. */
static void repair(float *vector, uint32_t dim, bool no_zero)
{
    bool is_zero = true;
    for (uint32_t d = 0; d < dim; d++) {
        vector[d] = fmaxf(fminf(vector[d], FLT_MAX), -FLT_MAX);
        is_zero = is_zero && vector[d] == 0;
    }
    if (no_zero && is_zero) {
        vector[0] = 1;
    }
}

struct hard_rows hard_rows_make(uint32_t kind, enum vex_metric metric, uint32_t dim,
                                uint32_t rows_count, uint32_t queries_count,
                                struct vex_random *random)
{
    struct hard_rows rows = {.dim = dim, .rows_count = rows_count, .queries_count = queries_count};
    rows.rows = calloc((size_t)rows_count * dim, sizeof(float));
    rows.queries = calloc((size_t)queries_count * dim, sizeof(float));
    if (!rows.rows || !rows.queries) {
        abort();
    }
    kinds[kind].fill(&rows, random);
    for (uint32_t i = 0; i < all(&rows); i++) {
        repair(vector_at(&rows, i), dim, metric == VEX_METRIC_COSINE);
    }
    return rows;
}

void hard_rows_free(struct hard_rows *rows)
{
    free(rows->rows);
    free(rows->queries);
    *rows = (struct hard_rows){0};
}

bool hard_rows_fit(const struct hard_rows *rows, enum vex_storage storage)
{
    for (uint32_t i = 0; i < rows->rows_count; i++) {
        const float *row = rows->rows + (size_t)i * rows->dim;
        if (vex_store_overflow(storage, row, rows->dim) < rows->dim ||
            vex_store_is_zero(storage, row, rows->dim)) {
            return false;
        }
    }
    return true;
}

void hard_rows_segment(const struct hard_rows *rows, enum vex_metric metric,
                       enum vex_storage storage, uint32_t graph_m, struct vex_segment_writer *out)
{
    struct vex_segment_shape shape = {
        .segment_id = 1,
        .collection_id = 1,
        .metric = metric,
        .storage = storage,
        .dim = rows->dim,
        .capacity_rows = rows->rows_count,
        .codes = true,
        .graph = {.m = graph_m, .ef_construction = graph_m ? 60 : 0},
    };
    uint64_t bytes = vex_segment_memory_bytes(&shape);
    void *memory = aligned_alloc(4096, vex_round_up(bytes, 4096));
    if (!memory) {
        abort();
    }
    memset(memory, 0, bytes);
    vex_segment_create(out, &shape, memory);
    for (uint32_t i = 0; i < rows->rows_count; i++) {
        (void)vex_segment_append(out, (uint64_t)i * IDS_STRIDE % rows->rows_count + 1,
                                 rows->rows + (size_t)i * rows->dim, NULL, 0);
    }
}

void hard_rows_segment_free(struct vex_segment_writer *writer)
{
    free(writer->base);
    *writer = (struct vex_segment_writer){0};
}
