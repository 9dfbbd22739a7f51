/*
 * The scan kernels of every level that this processor runs, against plain C written from their
 * contract. Dot products must agree exactly, at every count and length, and nothing may be written
 * behind the rows that were asked for. What `spread` and `sieve` give is compared with the formulas in
 * double precision, with the margins left out that make the real ones safe.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "index/half.h"
#include "index/kernels.h"
#include "tests/lib/random.h"

#define PADDED_MAX 1152u
#define ROWS_MAX 300u
#define QUERIES_MAX 21u

static uint64_t seed;
static const char *const names[] = {"scalar", "avx2", "avx512", "avx512vnni"};

struct bench {
    _Alignas(64) uint8_t codes[ROWS_MAX * PADDED_MAX / 2];
    _Alignas(64) uint8_t tile[VEX_TILE_ROWS * PADDED_MAX];
    int8_t queries[QUERIES_MAX][PADDED_MAX];
    _Alignas(64) int32_t dots[QUERIES_MAX * VEX_TILE_ROWS + ROWS_MAX];
    uint32_t factors[ROWS_MAX];
    uint16_t angles[ROWS_MAX];
    float estimates[ROWS_MAX + 1];
    struct vex_scan_rows rows;
};

static struct bench bench;

typedef void (*level_test)(const struct vex_scan_kernels *kernels, struct vex_random *random);

static void on_every_level(level_test test)
{
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        const struct vex_kernels *kernels = vex_kernels_by_name(names[i]);
        if (kernels) {
            struct vex_random random = vex_random_seeded(seed);
            test(kernels->scan, &random);
        } else {
            print_message("this processor cannot run %s\n", names[i]);
        }
    }
}

/* ---- dot products ---------------------------------------------------------------------------- */

static int32_t expected_dot(const int8_t *query, const uint8_t *code, size_t padded)
{
    int32_t sum = 0;
    for (size_t d = 0; d < padded; d++) {
        size_t line = d / VEX_CODE_CHUNK_DIMS;
        size_t at = d % VEX_CODE_CHUNK_DIMS;
        uint8_t byte = code[line * VEX_CODE_CHUNK_BYTES + at % VEX_CODE_CHUNK_BYTES];
        sum += query[d] * (at < VEX_CODE_CHUNK_BYTES ? byte & 15 : byte >> 4);
    }
    return sum;
}

/* The largest values in one case of four: sums of 16 bits must hold them. */
static void fill_bench(struct vex_random *random)
{
    bool extreme = vex_random_next(random) % 4 == 0;
    for (size_t i = 0; i < sizeof(bench.codes); i++) {
        bench.codes[i] = extreme ? 0xff : (uint8_t)vex_random_next(random);
    }
    for (size_t q = 0; q < QUERIES_MAX; q++) {
        int8_t sign = q % 2 ? 127 : -127;
        for (size_t d = 0; d < PADDED_MAX; d++) {
            int8_t any = (int8_t)((int)(vex_random_next(random) % 255) - 127);
            bench.queries[q][d] = extreme ? sign : any;
        }
    }
}

static void check_dots(const struct vex_scan_kernels *kernels, struct vex_random *random)
{
    for (size_t padded = 128; padded <= PADDED_MAX; padded += 128) {
        fill_bench(random);
        for (size_t count = 0; count <= 70; count++) {
            bench.dots[count] = 77;
            kernels->dots(bench.queries[0], bench.codes, padded, count, bench.dots);
            for (size_t i = 0; i < count; i++) {
                assert_int_equal(bench.dots[i], expected_dot(bench.queries[0],
                                                             bench.codes + i * padded / 2, padded));
            }
            assert_int_equal(bench.dots[count], 77);
        }
    }
}

static void one_query_meets_rows_in_order(void **state)
{
    (void)state;
    on_every_level(check_dots);
}

static void check_tile(const struct vex_scan_kernels *kernels, struct vex_random *random)
{
    const int8_t *queries[QUERIES_MAX];
    for (size_t q = 0; q < QUERIES_MAX; q++) {
        queries[q] = bench.queries[QUERIES_MAX - 1 - q];
    }
    for (size_t padded = 128; padded <= PADDED_MAX; padded += 128) {
        for (size_t count = 0; count <= QUERIES_MAX; count++) {
            fill_bench(random);
            size_t rows = vex_random_next(random) % (VEX_TILE_ROWS + 1);
            kernels->tile_pack(bench.codes, padded, rows, bench.tile);
            bench.dots[count * VEX_TILE_ROWS] = 77;
            kernels->tile_dots(bench.tile, padded, queries, count, bench.dots);
            for (size_t i = 0; i < count * VEX_TILE_ROWS; i++) {
                size_t row = i % VEX_TILE_ROWS;
                int32_t expected = row < rows ? expected_dot(queries[i / VEX_TILE_ROWS],
                                                             bench.codes + row * padded / 2, padded)
                                              : 0;
                assert_int_equal(bench.dots[i], expected);
            }
            assert_int_equal(bench.dots[count * VEX_TILE_ROWS], 77);
        }
    }
}

static void many_queries_meet_a_tile(void **state)
{
    (void)state;
    on_every_level(check_tile);
}

/* ---- distances and sieve --------------------------------------------------------------------- */

static void fill_factors(struct vex_random *random)
{
    for (size_t i = 0; i < ROWS_MAX; i++) {
        uint32_t add = vex_half_from_float((float)vex_random_between(random, 0.2, 3));
        uint32_t rescale = vex_half_from_float((float)vex_random_between(random, -2, -0.5));
        bench.factors[i] = add | rescale << 16;
        bench.angles[i] = vex_half_at_least(vex_random_between(random, 0.02, 0.49));
        bench.dots[i] = (int32_t)vex_random_between(random, -20000, 20000);
    }
}

static void assert_near(double a, double b, double tolerance)
{
    if (!(fabs(a - b) <= tolerance)) {
        fail_msg("%.9g and %.9g differ by more than %g", a, b, tolerance);
    }
}

static void check_estimate(const struct vex_scan_kernels *kernels, struct vex_random *random)
{
    struct vex_code_query query = {
        .scale = 1e-4f, .offset = 0.25f, .base = 2, .add_unit = 0.7f, .rescale_unit = 0.3f};
    fill_factors(random);
    for (size_t count = 0; count <= 40; count++) {
        bench.estimates[count] = 77;
        kernels->estimate(&query, bench.dots, bench.factors, count, bench.estimates);
        for (size_t i = 0; i < count; i++) {
            double add = (double)vex_half_to_float((uint16_t)bench.factors[i]);
            double rescale = (double)vex_half_to_float((uint16_t)(bench.factors[i] >> 16));
            double inner = (double)query.scale * bench.dots[i] + (double)query.offset;
            assert_near((double)bench.estimates[i],
                        (double)query.base + (double)query.add_unit * add +
                            (double)query.rescale_unit * rescale * inner,
                        1e-5);
        }
        assert_true(bench.estimates[count] == 77);
    }
}

static void estimates_are_those_of_the_walk(void **state)
{
    (void)state;
    on_every_level(check_estimate);
}

/* `least` of a row, from what is stored, without any margin. */
static double expected_least(const struct vex_scan_terms *terms, size_t row, int32_t dot)
{
    double add = (double)vex_half_to_float((uint16_t)bench.factors[row]);
    double rescale = -(double)vex_half_to_float((uint16_t)(bench.factors[row] >> 16));
    double sine = (double)vex_half_to_float(bench.angles[row]);
    double v = dot - (double)terms->middle;
    double cosine = rescale * (1 - sine * sine);
    return (double)terms->base + (double)terms->by_add * add +
           (double)terms->by_across * sine * sqrt(add) +
           cosine * fmin(v * (double)terms->ahead, v * (double)terms->behind) +
           cosine * sine * fmax(v * (double)terms->by_turn, 0);
}

static struct vex_scan_terms some_terms(struct vex_random *random)
{
    return (struct vex_scan_terms){
        .middle = 12.5f,
        .base = (float)vex_random_between(random, -1, 2),
        .by_add = 1,
        .by_across = -2,
        .ahead = -1e-4f,
        .behind = -0.99e-4f,
        .by_turn = 0.5e-4f,
    };
}

/* The margins move `least` down by a few thousandths of its terms, which are below 4 here. */
static void check_kept(uint32_t word, size_t bit, double least)
{
    bool is_kept = word >> bit & 1;
    if (least > 0.04) {
        assert_false(is_kept);
    } else if (least < 0) {
        assert_true(is_kept);
    }
}

static void check_sieve(const struct vex_scan_kernels *kernels, struct vex_random *random)
{
    for (size_t count = 1; count <= VEX_SCAN_ROWS; count++) {
        fill_factors(random);
        struct vex_scan_terms terms = some_terms(random);
        uint32_t kept[VEX_SCAN_ROWS / VEX_TILE_ROWS + 1];
        size_t words = (count + VEX_TILE_ROWS - 1) / VEX_TILE_ROWS;
        kept[words] = 77;
        kernels->spread(bench.factors, bench.angles, count, &bench.rows);
        kernels->sieve(&terms, &bench.rows, bench.dots, count, kept);
        assert_int_equal(kept[words], 77);
        for (size_t i = 0; i < words * VEX_TILE_ROWS; i++) {
            double least = i < count ? expected_least(&terms, i, bench.dots[i]) : -1;
            check_kept(kept[i / VEX_TILE_ROWS], i % VEX_TILE_ROWS, least);
        }
    }
}

static void the_sieve_drops_what_is_too_far(void **state)
{
    (void)state;
    on_every_level(check_sieve);
}

static void check_sieve_tile(const struct vex_scan_kernels *kernels, struct vex_random *random)
{
    struct vex_scan_terms terms[QUERIES_MAX];
    uint32_t kept[QUERIES_MAX + 1];
    fill_factors(random);
    kernels->spread(bench.factors, bench.angles, VEX_SCAN_ROWS, &bench.rows);
    for (size_t first = 0; first < VEX_SCAN_ROWS; first += VEX_TILE_ROWS) {
        for (size_t q = 0; q < QUERIES_MAX; q++) {
            terms[q] = some_terms(random);
        }
        for (size_t i = 0; i < QUERIES_MAX * VEX_TILE_ROWS; i++) {
            bench.dots[i] = (int32_t)vex_random_between(random, -20000, 20000);
        }
        kept[QUERIES_MAX] = 77;
        kernels->sieve_tile(terms, &bench.rows, first, bench.dots, QUERIES_MAX, kept);
        assert_int_equal(kept[QUERIES_MAX], 77);
        for (size_t i = 0; i < QUERIES_MAX * VEX_TILE_ROWS; i++) {
            size_t q = i / VEX_TILE_ROWS;
            size_t row = i % VEX_TILE_ROWS;
            check_kept(kept[q], row, expected_least(&terms[q], first + row, bench.dots[i]));
        }
    }
}

static void every_query_of_a_tile_has_its_own_threshold(void **state)
{
    (void)state;
    on_every_level(check_sieve_tile);
}

/* Terms under which any row that the sieve trusts is dropped. */
static const struct vex_scan_terms drop_all = {.base = 1000};

static void check_untrusted(const struct vex_scan_kernels *kernels, struct vex_random *random)
{
    static const uint16_t bad_adds[] = {0x7bff, 0x7c00, 0x7e00, 0xbc00, 0xfc00};
    fill_factors(random);
    for (size_t i = 0; i < sizeof(bad_adds) / sizeof(*bad_adds); i++) {
        bench.factors[3 * i] = (bench.factors[3 * i] & 0xffff0000u) | bad_adds[i];
    }
    bench.angles[20] = 0x7e00; /* not a number */
    bench.angles[21] = 0x7fff;
    uint32_t kept[1];
    kernels->spread(bench.factors, bench.angles, VEX_TILE_ROWS, &bench.rows);
    kernels->sieve(&drop_all, &bench.rows, bench.dots, VEX_TILE_ROWS, kept);
    assert_int_equal(kept[0], 1u | 1u << 3 | 1u << 6 | 1u << 9 | 1u << 12 | 3u << 20);
    struct vex_scan_terms no_numbers = {.base = NAN};
    kernels->sieve(&no_numbers, &bench.rows, bench.dots, VEX_TILE_ROWS, kept);
    assert_int_equal(kept[0], UINT32_MAX);
}

static void what_is_not_a_number_is_kept(void **state)
{
    (void)state;
    on_every_level(check_untrusted);
}

/* A code that says little leaves a row its length only. */
static void check_plain(const struct vex_scan_kernels *kernels, struct vex_random *random)
{
    fill_factors(random);
    bench.factors[0] &= 0xffffu;                                   /* no rescale */
    bench.factors[1] = (bench.factors[1] & 0xffffu) | 0x80010000u; /* next to none */
    bench.factors[2] = (bench.factors[2] & 0xffffu) | 0xfbff0000u; /* clamped */
    bench.factors[3] ^= 0x80000000u;                               /* of the wrong sign */
    bench.angles[4] = vex_half_at_least(0.7);
    bench.angles[5] = vex_half_at_least(1);
    kernels->spread(bench.factors, bench.angles, VEX_TILE_ROWS, &bench.rows);
    for (size_t i = 0; i < 6; i++) {
        double length = sqrt((double)vex_half_to_float((uint16_t)bench.factors[i]));
        assert_true(bench.rows.along[i] == 0);
        assert_true(bench.rows.turn[i] == 0);
        assert_true((double)bench.rows.across[i] >= length);
        assert_near((double)bench.rows.across[i], length, 2e-3);
    }
    assert_true(bench.rows.along[6] > 0 && bench.rows.turn[6] > 0);
}

static void a_code_that_says_little_is_not_believed(void **state)
{
    (void)state;
    on_every_level(check_plain);
}

int main(void)
{
    seed = vex_random_announce("test_index_scan_kernels");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_query_meets_rows_in_order),
        cmocka_unit_test(many_queries_meet_a_tile),
        cmocka_unit_test(estimates_are_those_of_the_walk),
        cmocka_unit_test(the_sieve_drops_what_is_too_far),
        cmocka_unit_test(every_query_of_a_tile_has_its_own_threshold),
        cmocka_unit_test(what_is_not_a_number_is_kept),
        cmocka_unit_test(a_code_that_says_little_is_not_believed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
