/*
 * The graph kernels of every level that this processor runs, against plain C written from their
 * contract; the half floats, all 65,536 of them; the ranking of four rows at a time, to the bit.
 *
 * Whole numbers must agree exactly. Sums of floats may be in another order, so they are compared
 * within a bound that a wrong lane, a missed remainder or a wrong factor exceeds by far.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "index/codes.h"
#include "index/half.h"
#include "index/kernels.h"
#include "tests/lib/random.h"

#define PADDED_MAX 1152u
#define NODES 61u

static uint64_t seed;
static const char *const names[] = {"scalar", "avx2", "avx512", "avx512vnni"};

typedef void (*level_test)(const struct vex_kernels *kernels, struct vex_random *random);

static void on_every_level(level_test test)
{
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        const struct vex_kernels *kernels = vex_kernels_by_name(names[i]);
        if (kernels) {
            struct vex_random random = vex_random_seeded(seed);
            test(kernels, &random);
        } else {
            print_message("this processor cannot run %s\n", names[i]);
        }
    }
}

static float uniform(struct vex_random *random)
{
    return (float)vex_random_between(random, -1, 1);
}

static void fill(struct vex_random *random, float *values, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        values[i] = uniform(random);
    }
}

static void assert_near(double a, double b, double tolerance)
{
    if (!(fabs(a - b) <= tolerance)) {
        fail_msg("%.9g and %.9g differ by more than %g", a, b, tolerance);
    }
}

/* ---- one vector ------------------------------------------------------------------------------ */

static void check_vector_kernels(const struct vex_kernels *kernels, struct vex_random *random)
{
    const struct vex_graph_kernels *graph = kernels->graph;
    _Alignas(64) float in[PADDED_MAX + 1];
    _Alignas(64) float centre[PADDED_MAX + 1];
    _Alignas(64) float out[PADDED_MAX + 16];
    for (uint32_t dim = 1; dim <= 300; dim++) {
        uint32_t padded = vex_code_padded(dim);
        fill(random, in, PADDED_MAX);
        fill(random, centre, PADDED_MAX);
        in[dim] = NAN; /* must not be read into anything */
        out[padded] = 77;
        graph->centre(in, 0.5f, centre, dim, padded, out);
        for (uint32_t i = 0; i < padded; i++) {
            assert_near((double)out[i], i < dim ? (double)(in[i] * 0.5f - centre[i]) : 0, 1e-6);
        }
        assert_true(out[padded] == 77);
        double square = 0;
        double largest = 0;
        for (uint32_t i = 0; i < dim; i++) {
            square += (double)in[i] * (double)in[i];
            largest = fmax(largest, fabs((double)in[i]));
        }
        assert_near((double)graph->square_sum(in, dim), square, 1e-4);
        assert_true((double)graph->max_abs(in, dim) == largest);
    }
}

static void vectors_are_centred_and_measured(void **state)
{
    (void)state;
    on_every_level(check_vector_kernels);
}

static void check_quantise(const struct vex_kernels *kernels, struct vex_random *random)
{
    float in[200];
    int8_t out[201];
    for (size_t count = 1; count <= 200; count++) {
        fill(random, in, count);
        in[0] = 1e30f; /* bounded, not wrapped */
        out[count] = 99;
        int32_t sum = kernels->graph->quantise(in, count, 80.0f, 63, out);
        int32_t expected_sum = 0;
        for (size_t i = 0; i < count; i++) {
            double scaled = (double)(in[i] * 80.0f);
            long expected = lrint(fmin(fmax(scaled, -63), 63));
            assert_int_equal(out[i], expected);
            expected_sum += (int32_t)expected;
        }
        assert_int_equal(sum, expected_sum);
        assert_int_equal(out[count], 99);
    }
}

static void values_are_rounded_to_bytes_within_the_limit(void **state)
{
    (void)state;
    on_every_level(check_quantise);
}

static void check_transforms(const struct vex_kernels *kernels, struct vex_random *random)
{
    _Alignas(64) float values[1024];
    float before[1024];
    for (size_t count = 64; count <= 1024; count *= 2) {
        fill(random, values, count);
        memcpy(before, values, sizeof(before));
        kernels->graph->hadamard(values, count);
        for (size_t row = 0; row < count; row += 7) {
            double sum = 0;
            for (size_t i = 0; i < count; i++) {
                sum += __builtin_popcountll(row & i) % 2 ? -(double)before[i] : (double)before[i];
            }
            assert_near((double)values[row], sum / sqrt((double)count), 1e-5);
        }
        memcpy(before, values, sizeof(before));
        kernels->graph->butterfly(values, count / 2);
        for (size_t i = 0; i < count / 2; i++) {
            double a = (double)before[i];
            double b = (double)before[i + count / 2];
            assert_near((double)values[i], (a + b) * sqrt(0.5), 1e-6);
            assert_near((double)values[i + count / 2], (a - b) * sqrt(0.5), 1e-6);
        }
        uint8_t bits[128];
        vex_random_fill(random, bits, sizeof(bits));
        memcpy(before, values, sizeof(before));
        kernels->graph->flip(values, bits, count);
        for (size_t i = 0; i < count; i++) {
            assert_true(values[i] == (bits[i / 8] >> i % 8 & 1 ? -before[i] : before[i]));
        }
    }
}

static void transforms_are_what_they_are_called(void **state)
{
    (void)state;
    on_every_level(check_transforms);
}

static void check_rotation(const struct vex_kernels *kernels, struct vex_random *random)
{
    static const uint32_t dims[] = {128, 256, 384, 640, 896, 1152};
    _Alignas(64) float a[PADDED_MAX];
    _Alignas(64) float b[PADDED_MAX];
    uint8_t signs[PADDED_MAX * VEX_ROTATION_ROUNDS_MAX / 8];
    for (size_t i = 0; i < sizeof(dims) / sizeof(*dims); i++) {
        uint32_t padded = dims[i];
        fill(random, a, padded);
        memset(b, 0, sizeof(b));
        b[vex_random_below(random, padded)] = 1;
        double before = (double)kernels->graph->square_sum(a, padded);
        vex_rotation_make(7, padded, signs);
        struct vex_rotation rotation = {signs, padded, vex_rotation_rounds(padded)};
        assert_true(vex_rotation_bytes(padded) <= sizeof(signs));
        vex_rotation_apply(&rotation, kernels->graph, a);
        vex_rotation_apply(&rotation, kernels->graph, b);
        assert_near((double)kernels->graph->square_sum(a, padded), before, 1e-3 * before);
        /* A single coordinate is spread over all: none keeps much of it. */
        assert_near((double)kernels->graph->square_sum(b, padded), 1, 1e-4);
        assert_true(kernels->graph->max_abs(b, padded) < 0.5f);
    }
}

static void a_rotation_keeps_lengths_and_spreads_coordinates(void **state)
{
    (void)state;
    on_every_level(check_rotation);
}

/* ---- codes ----------------------------------------------------------------------------------- */

static unsigned code_at(const uint8_t *code, uint32_t i)
{
    uint8_t byte = code[i / 128 * 64 + i % 64];
    return i % 128 < 64 ? byte & 15 : byte >> 4;
}

static void check_codes(const struct vex_kernels *kernels, struct vex_random *random)
{
    _Alignas(64) float x[PADDED_MAX];
    _Alignas(64) uint8_t code[PADDED_MAX / 2];
    for (uint32_t padded = 128; padded <= PADDED_MAX; padded += 128) {
        fill(random, x, padded);
        kernels->graph->code_pack(x, padded, 8.5f, code);
        float sums[2];
        kernels->graph->code_fit(x, padded, 8.5f, sums);
        double dot = 0;
        double square = 0;
        for (uint32_t i = 0; i < padded; i++) {
            double steps = floor((double)(x[i] * 8.5f)) + 8;
            unsigned expected = (unsigned)fmin(fmax(steps, 0), 15);
            assert_int_equal(code_at(code, i), expected);
            dot += (expected - 7.5) * (double)x[i];
            square += (expected - 7.5) * (expected - 7.5);
        }
        assert_near((double)sums[0], dot, 1e-4 * dot);
        assert_near((double)sums[1], square, 1e-4 * square);
    }
}

static void codes_are_packed_as_documented(void **state)
{
    (void)state;
    on_every_level(check_codes);
}

struct coded {
    uint32_t padded;
    uint8_t *codes; /* [NODES] */
    uint32_t factors[NODES];
    int8_t *query;
};

static void make_coded(struct coded *coded, struct vex_random *random, uint32_t padded)
{
    coded->padded = padded;
    coded->codes = aligned_alloc(64, NODES * padded / 2 + 64);
    coded->query = aligned_alloc(64, padded);
    assert_true(coded->codes && coded->query);
    vex_random_fill(random, coded->codes, NODES * padded / 2);
    for (uint32_t i = 0; i < padded; i++) {
        coded->query[i] = (int8_t)((int)vex_random_below(random, 255) - 127);
    }
    for (uint32_t i = 0; i < NODES; i++) {
        coded->factors[i] = vex_half_from_float((float)vex_random_unit(random)) |
                            (uint32_t)vex_half_from_float(-(float)vex_random_unit(random)) << 16;
    }
}

static double expected_distance(const struct coded *coded, const struct vex_code_query *query,
                                uint32_t node, uint32_t factors)
{
    const uint8_t *code = coded->codes + (size_t)node * coded->padded / 2;
    double dot = 0;
    for (uint32_t i = 0; i < coded->padded; i++) {
        dot += (double)code_at(code, i) * coded->query[i];
    }
    double add = (double)vex_half_to_float((uint16_t)factors) * (double)query->add_unit;
    double rescale =
        (double)vex_half_to_float((uint16_t)(factors >> 16)) * (double)query->rescale_unit;
    return (double)query->base + add +
           rescale * ((double)query->scale * dot + (double)query->offset);
}

static void check_scores(const struct vex_kernels *kernels, struct vex_random *random)
{
    for (uint32_t padded = 128; padded <= PADDED_MAX; padded += 128) {
        struct coded coded;
        make_coded(&coded, random, padded);
        struct vex_code_query query = {coded.query, padded, 0.01f, -0.4f, 1.5f, 0.9f, 0.3f};
        struct vex_score_batch *batch = aligned_alloc(64, sizeof(*batch) + 64);
        float alone[NODES];
        assert_non_null(batch);
        for (uint32_t node = 0; node < NODES; node++) {
            batch->count = 1;
            batch->nodes[0] = node;
            batch->factors[0] = coded.factors[node];
            kernels->graph->score(&query, coded.codes, batch);
            alone[node] = batch->distances[0];
        }
        for (uint32_t count = 1; count <= NODES; count++) {
            for (uint32_t i = 0; i < count; i++) {
                batch->nodes[i] = (i * 17 + count) % NODES;
                batch->factors[i] = coded.factors[batch->nodes[i]];
            }
            batch->count = count;
            kernels->graph->score(&query, coded.codes, batch);
            for (uint32_t i = 0; i < count; i++) {
                uint32_t node = batch->nodes[i];
                double expected = expected_distance(&coded, &query, node, coded.factors[node]);
                assert_near((double)batch->distances[i], expected, 1e-5 * (4 + fabs(expected)));
                /* The same node, the same bits, whatever batch it is in. */
                assert_memory_equal(&alone[node], &batch->distances[i], sizeof(float));
            }
        }
        free(batch);
        free(coded.codes);
        free(coded.query);
    }
}

static void scores_are_the_formula_and_the_same_in_every_batch(void **state)
{
    (void)state;
    on_every_level(check_scores);
}

static void check_bytes(const struct vex_kernels *kernels, struct vex_random *random)
{
    int8_t base[NODES * 256];
    int8_t query[256];
    for (size_t i = 0; i < sizeof(base); i++) {
        base[i] = (int8_t)((int)vex_random_below(random, 127) - 63);
    }
    memset(base, 63, 256);
    memset(query, -63, sizeof(query)); /* the largest distance there is */
    for (size_t bytes = 64; bytes <= 256; bytes += 64) {
        for (size_t count = 1; count <= NODES; count++) {
            uint32_t nodes[NODES];
            float out[NODES + 1];
            out[count] = -5;
            for (uint32_t i = 0; i < count; i++) {
                nodes[i] = (i * 7) % NODES;
            }
            kernels->graph->bytes_l2(query, base, bytes, nodes, count, out);
            for (size_t i = 0; i < count; i++) {
                int64_t expected = 0;
                for (size_t j = 0; j < bytes; j++) {
                    int64_t difference = query[j] - base[nodes[i] * bytes + j];
                    expected += difference * difference;
                }
                assert_true(out[i] == (float)expected);
            }
            assert_true(out[count] == -5);
        }
    }
}

static void distances_of_bytes_are_exact(void **state)
{
    (void)state;
    on_every_level(check_bytes);
}

/* ---- beam ------------------------------------------------------------------------------------ */

static void check_beam(const struct vex_kernels *kernels, struct vex_random *random)
{
    static uint8_t rows[64];
    struct vex_score_batch *batch = aligned_alloc(64, sizeof(*batch) + 64);
    assert_non_null(batch);
    for (uint32_t capacity = 1; capacity <= 70; capacity += 1 + capacity / 9) {
        _Alignas(64) float distances[70 + VEX_BATCH_PAD];
        _Alignas(64) uint32_t nodes[70 + VEX_BATCH_PAD];
        float expected[4096];
        uint32_t expected_count = 0;
        uint32_t lowest = UINT32_MAX;
        for (uint32_t i = 0; i < capacity + VEX_BATCH_PAD; i++) {
            distances[i] = INFINITY;
        }
        struct vex_beam beam = {distances, nodes, capacity, 0, 0, rows, 0};
        for (uint32_t round = 0; round < 40; round++) {
            batch->count = (uint32_t)vex_random_below(random, 60);
            beam.cursor = beam.count;
            lowest = beam.count;
            for (uint32_t i = 0; i < batch->count; i++) {
                /* Few values: many ties, and many nodes offered again. */
                batch->nodes[i] = (uint32_t)vex_random_below(random, 200);
                batch->distances[i] = (float)(batch->nodes[i] % 50);
                if (vex_random_once_in(random, 20)) {
                    batch->distances[i] = NAN;
                    continue;
                }
            }
            kernels->graph->offer(&beam, batch);
            assert_true(beam.count <= capacity && beam.cursor <= beam.count);
            for (uint32_t i = 0; i < beam.count; i++) {
                assert_true(distances[i] == (float)((nodes[i] & ~VEX_NODE_EXPANDED) % 50));
                assert_true(i == 0 || distances[i - 1] <= distances[i]);
                for (uint32_t j = 0; j < i; j++) {
                    assert_true((nodes[j] & ~VEX_NODE_EXPANDED) != (nodes[i] & ~VEX_NODE_EXPANDED));
                }
                if (!(nodes[i] & VEX_NODE_EXPANDED)) {
                    lowest = i < lowest ? i : lowest;
                    nodes[i] |= VEX_NODE_EXPANDED;
                }
            }
            /* Whatever is new is at or behind the cursor. */
            assert_true(beam.cursor <= lowest);
            for (uint32_t i = 0; i < batch->count; i++) {
                if (!isnan(batch->distances[i]) && expected_count < 4096) {
                    expected[expected_count++] = batch->distances[i];
                }
            }
        }
        /* The best distance offered is in front; a full beam holds nothing worse than it must. */
        float best = INFINITY;
        for (uint32_t i = 0; i < expected_count; i++) {
            best = expected[i] < best ? expected[i] : best;
        }
        assert_true(distances[0] == best);
        for (uint32_t i = beam.count; i < capacity + VEX_BATCH_PAD; i++) {
            assert_true(isinf(distances[i]));
        }
    }
    free(batch);
}

static void a_beam_is_sorted_unique_and_bounded(void **state)
{
    (void)state;
    on_every_level(check_beam);
}

/* All levels make the same beam of the same offers. */
static void beams_agree_between_levels(void **state)
{
    (void)state;
    static uint8_t rows[64];
    float distances[4][100 + VEX_BATCH_PAD];
    uint32_t nodes[4][100 + VEX_BATCH_PAD];
    struct vex_beam beams[4];
    struct vex_score_batch *batch = aligned_alloc(64, sizeof(*batch) + 64);
    assert_non_null(batch);
    for (size_t level = 0; level < 4; level++) {
        for (uint32_t i = 0; i < 100 + VEX_BATCH_PAD; i++) {
            distances[level][i] = INFINITY;
        }
        beams[level] = (struct vex_beam){distances[level], nodes[level], 100, 0, 0, rows, 0};
    }
    struct vex_random random = vex_random_seeded(seed);
    for (uint32_t round = 0; round < 200; round++) {
        batch->count = (uint32_t)vex_random_below(&random, VEX_BATCH_MAX + 1);
        for (uint32_t i = 0; i < batch->count; i++) {
            batch->nodes[i] = (uint32_t)vex_random_below(&random, 5000);
            batch->distances[i] = (float)(vex_mix64(batch->nodes[i]) % 3000);
        }
        for (size_t level = 0; level < 4; level++) {
            const struct vex_kernels *kernels = vex_kernels_by_name(names[level]);
            if (kernels) {
                kernels->graph->offer(&beams[level], batch);
                assert_int_equal(beams[level].count, beams[0].count);
                assert_int_equal(beams[level].cursor, beams[0].cursor);
                assert_memory_equal(distances[level], distances[0], beams[0].count * 4);
                assert_memory_equal(nodes[level], nodes[0], beams[0].count * 4);
            }
        }
    }
    assert_int_equal(beams[0].count, 100);
    free(batch);
}

/* ---- half floats and ranking ----------------------------------------------------------------- */

static void every_half_float_survives_a_round_trip(void **state)
{
    (void)state;
    for (uint32_t half = 0; half <= 0xffff; half++) {
        float value = vex_half_to_float((uint16_t)half);
        if (isfinite(value)) {
            assert_int_equal(vex_half_from_float(value), half);
        }
    }
    assert_true(vex_half_to_float(0x3c00) == 1 && vex_half_to_float(0xc000) == -2);
    assert_true(vex_half_to_float(0x0001) == 0x1p-24f && vex_half_to_float(0x7bff) == 65504);
    assert_true(isinf(vex_half_to_float(0x7c00)) && isnan(vex_half_to_float(0x7e00)));
    assert_int_equal(vex_half_from_float(1e9f), 0x7bff);
    assert_int_equal(vex_half_from_float(-INFINITY), 0xfbff);
}

static void rounding_to_half_is_to_the_nearest(void **state)
{
    (void)state;
    for (uint32_t half = 0; half < 0x7bff; half++) {
        double low = (double)vex_half_to_float((uint16_t)half);
        double high = (double)vex_half_to_float((uint16_t)(half + 1));
        assert_int_equal(vex_half_from_float((float)(low + (high - low) * 0.375)), half);
        assert_int_equal(vex_half_from_float((float)(low + (high - low) * 0.625)), half + 1);
        assert_int_equal(vex_half_from_float((float)((low + high) / 2)), half + half % 2);
    }
}

static void check_exact(const struct vex_kernels *kernels, struct vex_random *random)
{
    float values[5 * 400];
    for (size_t dim = 1; dim <= 400; dim++) {
        for (size_t i = 0; i < 5 * dim; i++) {
            values[i] = uniform(random) * ldexpf(1, (int)vex_random_below(random, 40) - 20);
        }
        const float *const rows[4] = {values + dim, values + 2 * dim, values + 3 * dim,
                                      values + 4 * dim};
        double distances[4];
        double dots[4];
        double again[4];
        double squares[4];
        kernels->l2_f64_four(values, rows, dim, distances);
        kernels->dot_f64_four(values, rows, dim, dots, squares);
        kernels->dot_f64_four(values, rows, dim, again, NULL);
        for (size_t i = 0; i < 4; i++) {
            double expected[3] = {vex_l2_f64(values, rows[i], dim),
                                  vex_dot_f64(values, rows[i], dim),
                                  vex_dot_f64(rows[i], rows[i], dim)};
            assert_memory_equal(&distances[i], &expected[0], sizeof(double));
            assert_memory_equal(&dots[i], &expected[1], sizeof(double));
            assert_memory_equal(&again[i], &expected[1], sizeof(double));
            assert_memory_equal(&squares[i], &expected[2], sizeof(double));
        }
    }
}

static void ranking_four_rows_gives_the_bits_of_ranking_one(void **state)
{
    (void)state;
    on_every_level(check_exact);
}

int main(void)
{
    seed = vex_random_announce("test_index_graph_kernels");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors_are_centred_and_measured),
        cmocka_unit_test(values_are_rounded_to_bytes_within_the_limit),
        cmocka_unit_test(transforms_are_what_they_are_called),
        cmocka_unit_test(a_rotation_keeps_lengths_and_spreads_coordinates),
        cmocka_unit_test(codes_are_packed_as_documented),
        cmocka_unit_test(scores_are_the_formula_and_the_same_in_every_batch),
        cmocka_unit_test(distances_of_bytes_are_exact),
        cmocka_unit_test(a_beam_is_sorted_unique_and_bounded),
        cmocka_unit_test(beams_agree_between_levels),
        cmocka_unit_test(every_half_float_survives_a_round_trip),
        cmocka_unit_test(rounding_to_half_is_to_the_nearest),
        cmocka_unit_test(ranking_four_rows_gives_the_bits_of_ranking_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
