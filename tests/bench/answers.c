/*
 * Brute force in double precision; what it is for is in answers.h.
 *
 * Blocks of rows small enough for the cache are compared with every query, so that memory is read once.
 * Eight sums at a time: the compiler makes of them what the processor has.
 */
#include "tests/bench/answers.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/common.h"

#define BLOCK_BYTES (128u << 10)
#define LANES 8u

typedef float lanes_float __attribute__((vector_size(LANES * sizeof(float)), aligned(4)));
typedef double lanes __attribute__((vector_size(LANES * sizeof(double))));

struct sums {
    double (*dot)(const float *a, const float *b, uint32_t dim);
    double (*square_distance)(const float *a, const float *b, uint32_t dim);
};

/*
 * A product of two floats is exact in a double, so only the additions round. Made once for each kind of
 * processor: a compiler takes lanes apart before it would inline or clone.
 */
#define LOAD(from) __builtin_convertvector(*(const lanes_float *)(const void *)(from), lanes)
#define DEFINE_SUMS(kind, target)                                                                  \
    target static double dot_##kind(const float *a, const float *b, uint32_t dim)                  \
    {                                                                                              \
        lanes sums = {0};                                                                          \
        double sum = 0;                                                                            \
        uint32_t d = 0;                                                                            \
        for (; d + LANES <= dim; d += LANES) {                                                     \
            sums += LOAD(a + d) * LOAD(b + d);                                                     \
        }                                                                                          \
        for (uint32_t i = 0; i < LANES; i++) {                                                     \
            sum += sums[i];                                                                        \
        }                                                                                          \
        for (; d < dim; d++) {                                                                     \
            sum += (double)a[d] * b[d];                                                            \
        }                                                                                          \
        return sum;                                                                                \
    }                                                                                              \
    target static double square_distance_##kind(const float *a, const float *b, uint32_t dim)      \
    {                                                                                              \
        lanes sums = {0};                                                                          \
        double sum = 0;                                                                            \
        uint32_t d = 0;                                                                            \
        for (; d + LANES <= dim; d += LANES) {                                                     \
            lanes difference = LOAD(a + d) - LOAD(b + d);                                          \
            sums += difference * difference;                                                       \
        }                                                                                          \
        for (uint32_t i = 0; i < LANES; i++) {                                                     \
            sum += sums[i];                                                                        \
        }                                                                                          \
        for (; d < dim; d++) {                                                                     \
            double difference = (double)a[d] - b[d];                                               \
            sum += difference * difference;                                                        \
        }                                                                                          \
        return sum;                                                                                \
    }                                                                                              \
    static const struct sums sums_##kind = {dot_##kind, square_distance_##kind};

DEFINE_SUMS(plain, )
#if defined(__x86_64__)
DEFINE_SUMS(avx2, __attribute__((target("avx2"))))
DEFINE_SUMS(avx512, __attribute__((target("avx512f"))))
#endif

static const struct sums *best_sums(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) {
        return &sums_avx512;
    }
    if (__builtin_cpu_supports("avx2")) {
        return &sums_avx2;
    }
#endif
    return &sums_plain;
}

/* ---- finding --------------------------------------------------------------------------------- */

/* What a distance needs, made once. */
struct helps {
    const struct sums *sums;
    double *row_lengths; /* of cosine */
    double *query_lengths;
};

static double *find_lengths(const struct sums *sums, const struct vex_vectors *vectors)
{
    double *lengths = vex_bench_alloc(vectors->rows, sizeof(*lengths));
    for (size_t i = 0; i < vectors->rows; i++) {
        const float *vector = vectors->values + i * vectors->dim;
        lengths[i] = sqrt(sums->dot(vector, vector, vectors->dim));
    }
    return lengths;
}

static double distance(const struct vex_answers *answers, size_t query, uint64_t row,
                       const struct helps *helps)
{
    uint32_t dim = answers->base->dim;
    const float *q = answers->queries->values + query * dim;
    const float *r = answers->base->values + row * dim;
    switch (answers->metric) {
    case VEX_METRIC_L2:
        return helps->sums->square_distance(q, r, dim);
    case VEX_METRIC_DOT:
        return -helps->sums->dot(q, r, dim);
    case VEX_METRIC_COSINE:
        break;
    }
    return 1 -
           helps->sums->dot(q, r, dim) / (helps->query_lengths[query] * helps->row_lengths[row]);
}

/* Rows come in the order of their ids, so that among equals the later one loses. */
static void offer(struct vex_answers *answers, size_t query, uint64_t row, double distance)
{
    uint64_t *rows = answers->rows + query * answers->k;
    double *distances = answers->distances + query * answers->k;
    uint32_t at = answers->k - 1;
    if (!(distance < distances[at])) {
        return;
    }
    for (; at > 0 && distance < distances[at - 1]; at--) {
        distances[at] = distances[at - 1];
        rows[at] = rows[at - 1];
    }
    distances[at] = distance;
    rows[at] = row;
}

/* Of whole numbers whose squares' sum a double can hold, that is. */
static bool sums_are_exact(const struct vex_answers *answers)
{
    const struct vex_vectors *both[] = {answers->base, answers->queries};
    double greatest = 0;
    for (size_t b = 0; b < 2; b++) {
        for (size_t i = 0; i < both[b]->rows * both[b]->dim; i++) {
            double value = both[b]->values[i];
            if (value != nearbyint(value)) {
                return false;
            }
            greatest = fabs(value) > greatest ? fabs(value) : greatest;
        }
    }
    return answers->metric != VEX_METRIC_COSINE &&
           4 * greatest * greatest * answers->base->dim < 0x1p53;
}

bool vex_answers_find(struct vex_answers *answers, const struct vex_vectors *base,
                      const struct vex_vectors *queries, enum vex_metric metric, uint32_t k,
                      size_t count)
{
    *answers = (struct vex_answers){base, queries, metric, k, count, NULL, NULL, false};
    answers->rows = vex_bench_alloc(count * k, sizeof(*answers->rows));
    answers->distances = vex_bench_alloc(count * k, sizeof(*answers->distances));
    for (size_t i = 0; i < count * k; i++) {
        answers->rows[i] = UINT64_MAX;
        answers->distances[i] = INFINITY;
    }
    answers->is_exact = sums_are_exact(answers);
    const struct sums *sums = best_sums();
    struct helps helps = {sums, find_lengths(sums, base), find_lengths(sums, queries)};
    size_t block_rows = BLOCK_BYTES / (base->dim * sizeof(float)) + 1;
    for (size_t first = 0; first < base->rows && !vex_bench_stopped(); first += block_rows) {
        size_t end = first + block_rows < base->rows ? first + block_rows : base->rows;
        for (size_t query = 0; query < count; query++) {
            for (size_t row = first; row < end; row++) {
                offer(answers, query, row, distance(answers, query, row, &helps));
            }
        }
    }
    free(helps.row_lengths);
    free(helps.query_lengths);
    return !vex_bench_stopped();
}

void vex_answers_free(struct vex_answers *answers)
{
    free(answers->rows);
    free(answers->distances);
    *answers = (struct vex_answers){0};
}

/* ---- judging --------------------------------------------------------------------------------- */

/* Whether `row` may be at the place of another whose distance is `wanted`: no farther from that than two
 * ways of adding the same terms can be. */
static bool is_as_far(const struct vex_answers *answers, size_t query, uint64_t row, double wanted)
{
    const struct sums *sums = best_sums();
    uint32_t dim = answers->base->dim;
    const float *q = answers->queries->values + query * dim;
    const float *r = answers->base->values + row * dim;
    double q_square = sums->dot(q, q, dim);
    double r_square = sums->dot(r, r, dim);
    double its = 0;
    double terms = 0;
    switch (answers->metric) {
    case VEX_METRIC_L2:
        its = sums->square_distance(q, r, dim);
        terms = its;
        break;
    case VEX_METRIC_DOT:
        its = -sums->dot(q, r, dim);
        terms = sqrt(q_square * r_square);
        break;
    case VEX_METRIC_COSINE:
        its = 1 - sums->dot(q, r, dim) / (sqrt(q_square) * sqrt(r_square));
        terms = 4; /* the quotient rounds too, and both lengths */
        break;
    }
    return fabs(its - wanted) <= 2 * (dim + 4.0) * DBL_EPSILON * terms;
}

static bool are_alike(const struct vex_answers *answers, uint64_t a, uint64_t b)
{
    uint32_t dim = answers->base->dim;
    const float *values = answers->base->values;
    return memcmp(values + a * dim, values + b * dim, dim * sizeof(*values)) == 0;
}

/* Of rows that are alike the one with the lower id is there if a later one is. */
static bool keeps_first_of_alike(const struct vex_answers *answers, size_t query,
                                 const uint64_t *found)
{
    const uint64_t *rows = answers->rows + query * answers->k;
    for (uint32_t i = 0; i < answers->k; i++) {
        bool met = false;
        for (uint32_t j = 0; j < answers->k; j++) {
            met = met || found[j] == rows[i];
            if (!met && found[j] > rows[i] && are_alike(answers, found[j], rows[i])) {
                return false;
            }
        }
    }
    return true;
}

static bool is_tied(const struct vex_answers *answers, size_t query, const uint64_t *found)
{
    const double *distances = answers->distances + query * answers->k;
    if (answers->is_exact) {
        return false;
    }
    for (uint32_t i = 0; i < answers->k; i++) {
        if (found[i] >= answers->base->rows || !is_as_far(answers, query, found[i], distances[i])) {
            return false;
        }
        for (uint32_t j = 0; j < i; j++) {
            if (found[j] >= found[i] && are_alike(answers, found[j], found[i])) {
                return false;
            }
        }
    }
    return keeps_first_of_alike(answers, query, found);
}

void vex_answers_judge(const struct vex_answers *answers, size_t query, const uint64_t *found,
                       struct vex_verdict *verdict)
{
    const uint64_t *rows = answers->rows + query * answers->k;
    if (memcmp(found, rows, answers->k * sizeof(*rows)) == 0) {
        verdict->same++;
    } else if (is_tied(answers, query, found)) {
        verdict->tied++;
    } else {
        verdict->wrong++;
    }
}
