/*
 * The bound of code_bound.h, row by row: with a row's own key as the threshold it must be kept, on every
 * level of the kernels. That is the whole claim, without a search around it that could hide a miss; a
 * step of the proof that is left out shows here (the kinds of hard_rows.h aim at one each). The other
 * way round, a bound that kept everything would pass that, so on tame rows it has to leave out most.
 *
 * The level that encodes is chosen once in a process by VEX_ISA.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "index/code_bound.h"
#include "index/code_build.h"
#include "index/exact.h"
#include "tests/unit/hard_rows.h"

#define ROWS 96u
#define QUERIES 6u
#define ROUNDS 12u
#define DIM_MAX 1000u

static uint64_t seed;
static const char *const levels[] = {"scalar", "avx2", "avx512", "avx512vnni"};
static const enum vex_metric metrics[] = {VEX_METRIC_L2, VEX_METRIC_COSINE, VEX_METRIC_DOT};

struct prepared {
    struct vex_code_bound bound;
    double norm;
    _Alignas(64) float rotated[1024];
    int8_t values[1024];
};

static void prepare(const struct vex_segment *segment, const float *query, struct prepared *out)
{
    struct vex_code_space space = vex_code_space_of(segment);
    struct vex_code_target target;
    out->norm = vex_exact_norm(query, segment->dim);
    vex_code_space_query(&space, &segment->codes, query, out->norm, out->rotated, out->values,
                         &target);
    vex_code_bound_init(&out->bound, &space, &segment->codes, query, out->norm, out->rotated,
                        &target);
}

/* Whether a row is kept under a threshold. */
static bool is_kept(const struct vex_scan_kernels *kernels, const struct vex_segment *segment,
                    const struct prepared *query, uint32_t row, double threshold)
{
    const struct vex_codes *codes = &segment->codes;
    struct vex_scan_rows spread;
    struct vex_scan_terms terms;
    int32_t dots[VEX_TILE_ROWS] = {0};
    uint32_t kept;
    kernels->dots(query->values, codes->codes + (size_t)row * codes->padded / 2, codes->padded, 1,
                  dots);
    kernels->spread(codes->factors + row, codes->angles + row, 1, &spread);
    vex_code_bound_terms(&query->bound, threshold, &terms);
    kernels->sieve(&terms, &spread, dots, 1, &kept);
    return kept & 1;
}

static void check_kind(uint32_t kind, enum vex_metric metric, uint32_t dim,
                       struct vex_random *random)
{
    struct hard_rows rows = hard_rows_make(kind, metric, dim, ROWS, QUERIES, random);
    struct vex_segment_writer writer;
    struct prepared query;
    hard_rows_segment(&rows, metric, 0, &writer);
    assert_int_equal(vex_code_build(&writer, NULL, NULL), VEX_OK);
    for (uint32_t q = 0; q < QUERIES; q++) {
        const float *vector = rows.queries + (size_t)q * dim;
        prepare(&writer.segment, vector, &query);
        for (size_t level = 0; level < sizeof(levels) / sizeof(*levels); level++) {
            const struct vex_kernels *kernels = vex_kernels_by_name(levels[level]);
            for (uint32_t row = 0; row < ROWS && kernels; row++) {
                double key = vex_exact_key(metric, vector, query.norm,
                                           vex_segment_vector(&writer.segment, row), dim);
                if (!is_kept(kernels->scan, &writer.segment, &query, row, key)) {
                    fail_msg("%s, metric %d, dim %u, %s: row %u with key %.17g is left out",
                             hard_rows_kind(kind), metric, dim, levels[level], row, key);
                }
            }
        }
    }
    hard_rows_segment_free(&writer);
    hard_rows_free(&rows);
}

static uint32_t some_dim(struct vex_random *random)
{
    switch (vex_random_below(random, 4)) {
    case 0:
        return 1 + (uint32_t)vex_random_below(random, 4);
    case 1:
        return 1 + (uint32_t)vex_random_below(random, DIM_MAX);
    default:
        return 1 + (uint32_t)vex_random_below(random, 160);
    }
}

static void no_row_is_left_out_at_its_own_key(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        for (uint32_t kind = 0; kind < hard_rows_kinds(); kind++) {
            for (size_t m = 0; m < sizeof(metrics) / sizeof(*metrics); m++) {
                check_kind(kind, metrics[m], some_dim(&random), &random);
            }
        }
    }
}

/* The share of rows that are kept with the tenth key as the threshold. */
static double share_kept(enum vex_metric metric, uint32_t kind, uint32_t rows_count,
                         struct vex_random *random)
{
    struct hard_rows rows = hard_rows_make(kind, metric, 128, rows_count, QUERIES, random);
    struct vex_segment_writer writer;
    struct prepared query;
    uint32_t kept = 0;
    hard_rows_segment(&rows, metric, 0, &writer);
    assert_int_equal(vex_code_build(&writer, NULL, NULL), VEX_OK);
    for (uint32_t q = 0; q < QUERIES; q++) {
        const float *vector = rows.queries + (size_t)q * rows.dim;
        double nearest[10];
        prepare(&writer.segment, vector, &query);
        for (uint32_t i = 0; i < 10; i++) {
            nearest[i] = INFINITY;
        }
        for (uint32_t row = 0; row < rows_count; row++) {
            double key = vex_exact_key(metric, vector, query.norm,
                                       vex_segment_vector(&writer.segment, row), rows.dim);
            for (uint32_t i = 0; i < 10; i++) {
                double held = nearest[i];
                nearest[i] = fmin(held, key);
                key = fmax(held, key);
            }
        }
        for (uint32_t row = 0; row < rows_count; row++) {
            kept += is_kept(vex_kernels_get()->scan, &writer.segment, &query, row, nearest[9]);
        }
    }
    hard_rows_segment_free(&writer);
    hard_rows_free(&rows);
    return kept / (double)(rows_count * QUERIES);
}

/* Independent coordinates are the hardest rows there are: all lie about as far away. Ten of 4,000 is
 * 0.0025. */
static void most_rows_are_left_out(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed);
    for (size_t m = 0; m < sizeof(metrics) / sizeof(*metrics); m++) {
        double kept = share_kept(metrics[m], 0, 4000, &random);
        print_message("metric %d: %.4f of the rows are kept\n", metrics[m], kept);
        assert_true(kept < 0.1);
    }
}

/* Where the proof does not reach, everything is kept. */
static void numbers_beyond_the_proof_keep_every_row(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed);
    struct hard_rows rows = hard_rows_make(0, VEX_METRIC_L2, 100, ROWS, 1, &random);
    struct vex_segment_writer writer;
    struct prepared query;
    hard_rows_segment(&rows, VEX_METRIC_L2, 0, &writer);
    assert_int_equal(vex_code_build(&writer, NULL, NULL), VEX_OK);
    struct vex_segment changed = writer.segment;
    const struct vex_scan_kernels *kernels = vex_kernels_get()->scan;
    const float bad[] = {0, 0x1p-120f, 0x1p120f, NAN, INFINITY};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        changed.codes = writer.segment.codes;
        changed.codes.add_unit = bad[i];
        prepare(&changed, rows.queries, &query);
        assert_true(is_kept(kernels, &changed, &query, 0, 0));
        changed.codes = writer.segment.codes;
        changed.codes.rescale_unit = bad[i];
        prepare(&changed, rows.queries, &query);
        assert_true(is_kept(kernels, &changed, &query, 0, 0));
    }
    prepare(&writer.segment, rows.queries, &query);
    assert_false(is_kept(kernels, &writer.segment, &query, 0, 0));
    assert_true(is_kept(kernels, &writer.segment, &query, 0, INFINITY));
    assert_true(is_kept(kernels, &writer.segment, &query, 0, NAN));
    hard_rows_segment_free(&writer);
    hard_rows_free(&rows);
}

int main(void)
{
    const char *wanted = getenv("VEX_ISA");
    if (wanted && *wanted && strcmp(vex_kernels_get()->name, wanted) != 0) {
        print_message("skipped: this processor cannot run %s\n", wanted);
        return 77;
    }
    seed = vex_random_announce("test_index_bound");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_row_is_left_out_at_its_own_key),
        cmocka_unit_test(most_rows_are_left_out),
        cmocka_unit_test(numbers_beyond_the_proof_keep_every_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
