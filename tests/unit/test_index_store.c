/*
 * Rows that are not floats: how they are rounded, against arithmetic in double precision written from
 * store.h; the kernels of every level that this processor runs, against plain C and against the floats
 * that the rows stand for, to the bit, with a page behind them that nothing may touch.
 *
 * The level that decodes in passing is chosen once in a process: VEX_ISA names it, and a processor that
 * lacks it ends the program with 77.
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
#include <sys/mman.h>

#include "index/half.h"
#include "index/kernels.h"
#include "index/store.h"
#include "tests/lib/random.h"
#include "tests/unit/level.h"

#define COUNT_OF(array) (sizeof(array) / sizeof(*(array)))
#define PAGE 4096u

static uint64_t seed;

static const enum vex_storage kinds[] = {VEX_STORAGE_FLOAT32, VEX_STORAGE_FLOAT16,
                                         VEX_STORAGE_INT8};
static const char *const level_names[] = {"scalar", "avx2", "avx512", "avx512vnni"};

static float random_float(struct vex_random *random, double reach)
{
    return (float)vex_random_between(random, -reach, reach);
}

static void random_vector(struct vex_random *random, uint32_t dim, double reach, float *out)
{
    for (uint32_t d = 0; d < dim; d++) {
        out[d] = random_float(random, reach);
    }
}

/* ---- rounding -------------------------------------------------------------------------------- */

static void halves_are_the_nearest(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed);
    for (uint32_t i = 0; i < 200000; i++) {
        /* All magnitudes from below the least half to the largest. */
        float value =
            random_float(&random, 65504) * (float)ldexp(1, -(int)vex_random_below(&random, 45));
        uint16_t half;
        assert_true(vex_store_round(VEX_STORAGE_FLOAT16, &value, 1, &half) == 1);
        double error = fabs((double)vex_half_to_float(half) - (double)value);
        uint16_t magnitude = half & 0x7fffu;
        double below = (double)vex_half_to_float((uint16_t)(magnitude ? magnitude - 1 : 0));
        double above = (double)vex_half_to_float((uint16_t)(magnitude + 1));
        assert_true(error <= fabs(fabs((double)value) - below));
        assert_true(magnitude == 0x7bffu || error <= fabs(fabs((double)value) - above));
        assert_int_equal(!!signbit(value), half >> 15);
    }
}

static void what_a_half_cannot_hold_is_found(void **state)
{
    (void)state;
    float vector[40] = {0};
    assert_int_equal(vex_store_overflow(VEX_STORAGE_FLOAT16, vector, 40), 40);
    vector[3] = 65504;
    vector[39] = -65504;
    assert_int_equal(vex_store_overflow(VEX_STORAGE_FLOAT16, vector, 40), 40);
    vector[39] = nextafterf(-65504, -INFINITY);
    assert_int_equal(vex_store_overflow(VEX_STORAGE_FLOAT16, vector, 40), 39);
    vector[0] = FLT_MAX;
    assert_int_equal(vex_store_overflow(VEX_STORAGE_FLOAT16, vector, 40), 0);
    assert_int_equal(vex_store_overflow(VEX_STORAGE_FLOAT32, vector, 40), 40);
    assert_int_equal(vex_store_overflow(VEX_STORAGE_INT8, vector, 40), 40);
}

/* A vector whose largest magnitude is `largest`, at a random place. */
static void vector_reaching(struct vex_random *random, float largest, uint32_t dim, float *out)
{
    for (uint32_t d = 0; d < dim; d++) {
        out[d] = (float)((double)largest * vex_random_between(random, -1, 1));
    }
    out[vex_random_below(random, dim)] = vex_random_once_in(random, 2) ? largest : -largest;
}

static void check_bytes_of(const float *vector, uint32_t dim, float largest)
{
    int8_t row[64];
    float decoded[64];
    int8_t again[64];
    float scale = vex_store_round(VEX_STORAGE_INT8, vector, dim, row);
    int longest = 0;
    /* A little below the exact 127th part, and short enough for exact products. */
    assert_true((double)scale <= (double)largest / 127);
    assert_true((double)scale >= (double)largest / 127 * (1 - 0x1p-15));
    vex_store_decode(VEX_STORAGE_INT8, row, scale, 0, dim, decoded);
    for (uint32_t d = 0; d < dim; d++) {
        assert_true((double)decoded[d] == (double)row[d] * (double)scale);
        double error = fabs((double)decoded[d] - (double)vector[d]);
        assert_true(error <= (double)scale * 0.51);
        longest = abs(row[d]) > longest ? abs(row[d]) : longest;
    }
    assert_int_equal(longest, 127);
    /* What was read can be written again. */
    assert_true(vex_store_round(VEX_STORAGE_INT8, decoded, dim, again) == scale);
    assert_memory_equal(row, again, dim);
}

static void bytes_are_near_and_exact_products(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed);
    static const float reaches[] = {FLT_MAX, 0x1.8p127f, 1e30f,  65505,        127,
                                    1,       1e-3f,      1e-30f, FLT_MIN * 127};
    float vector[64];
    for (uint32_t i = 0; i < 20000; i++) {
        uint32_t dim = 1 + (uint32_t)vex_random_below(&random, 64);
        float largest = i < COUNT_OF(reaches)
                            ? reaches[i]
                            : (float)exp2(vex_random_between(&random, -119, 127.9));
        vector_reaching(&random, largest, dim, vector);
        check_bytes_of(vector, dim, largest);
    }
}

static void rows_too_small_become_zero_rows(void **state)
{
    (void)state;
    static const float tiny[] = {0, -0.0f, 0x1p-149f, -0x1p-140f, 0x1p-127f};
    for (size_t i = 0; i < COUNT_OF(tiny); i++) {
        float vector[3] = {tiny[i], 0, tiny[i] / 2};
        int8_t row[3] = {1, 1, 1};
        assert_true(vex_store_round(VEX_STORAGE_INT8, vector, 3, row) == 0);
        assert_memory_equal(row, ((int8_t[3]){0}), 3);
        assert_true(vex_store_is_zero(VEX_STORAGE_INT8, vector, 3));
        assert_true(vex_store_is_zero(VEX_STORAGE_FLOAT16, vector, 3));
        assert_int_equal(vex_store_is_zero(VEX_STORAGE_FLOAT32, vector, 3), tiny[i] == 0);
    }
    float least_half = 0x1p-24f;
    float half_of_it = 0x1p-25f;
    float above_half_of_it = nextafterf(0x1p-25f, 1);
    assert_false(vex_store_is_zero(VEX_STORAGE_FLOAT16, &least_half, 1));
    assert_true(vex_store_is_zero(VEX_STORAGE_FLOAT16, &half_of_it, 1));
    assert_false(vex_store_is_zero(VEX_STORAGE_FLOAT16, &above_half_of_it, 1));
    assert_false(vex_store_is_zero(VEX_STORAGE_INT8, &least_half, 1));
}

/* ---- kernels --------------------------------------------------------------------------------- */

/* The end of a page behind which nothing may be read or written. */
struct guarded {
    uint8_t *start;
    size_t bytes;
};

static struct guarded make_guarded(size_t bytes)
{
    size_t whole = (bytes + PAGE - 1) / PAGE * PAGE;
    uint8_t *start =
        mmap(NULL, whole + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(start != MAP_FAILED);
    assert_int_equal(mprotect(start + whole, PAGE, PROT_NONE), 0);
    return (struct guarded){start, whole};
}

static void *last_of(const struct guarded *guarded, size_t bytes)
{
    return guarded->start + guarded->bytes - bytes;
}

static void free_guarded(struct guarded *guarded)
{
    assert_int_equal(munmap(guarded->start, guarded->bytes + PAGE), 0);
}

static const struct vex_store_kernels *table_of(const struct vex_kernels *kernels,
                                                enum vex_storage storage)
{
    return storage == VEX_STORAGE_FLOAT16 ? kernels->half : kernels->int8;
}

static bool same_float(float a, float b)
{
    return (isnan(a) && isnan(b)) || memcmp(&a, &b, sizeof(a)) == 0;
}

/* Random bytes are garbage of all kinds, NaN among the halves. */
static void check_decoding(const struct vex_kernels *kernels, enum vex_storage storage,
                           struct vex_random *random)
{
    enum { MOST = 300 };
    struct guarded from = make_guarded(MOST * sizeof(uint16_t));
    struct guarded into = make_guarded(MOST * sizeof(float));
    float expected[MOST];
    for (uint32_t count = 0; count <= MOST; count++) {
        size_t bytes = count * vex_store_element_bytes(storage);
        void *row = last_of(&from, bytes);
        float *out = last_of(&into, count * sizeof(float));
        float scale = random_float(random, 3);
        vex_random_fill(random, row, bytes);
        table_of(kernels, storage)->decode(row, scale, count, out);
        table_of(&vex_kernels_scalar, storage)->decode(row, scale, count, expected);
        for (uint32_t d = 0; d < count; d++) {
            assert_true(same_float(out[d], expected[d]));
        }
    }
    free_guarded(&from);
    free_guarded(&into);
}

static void check_ranking(const struct vex_kernels *kernels, enum vex_storage storage,
                          struct vex_random *random)
{
    enum { MOST = 130 };
    struct guarded memory[4];
    struct guarded asked = make_guarded(MOST * sizeof(float));
    float vectors[4][MOST];
    float vector[MOST];
    for (int i = 0; i < 4; i++) {
        memory[i] = make_guarded(MOST * sizeof(uint16_t));
    }
    for (uint32_t dim = 1; dim <= MOST; dim++) {
        const void *rows[4];
        float scales[4];
        float *query = last_of(&asked, dim * sizeof(float));
        random_vector(random, dim, 2, query);
        for (int i = 0; i < 4; i++) {
            void *row = last_of(&memory[i], dim * vex_store_element_bytes(storage));
            random_vector(random, dim, 2, vector);
            scales[i] = vex_store_round(storage, vector, dim, row);
            rows[i] = row;
            vex_store_decode(storage, row, scales[i], 0, dim, vectors[i]);
        }
        double l2[4];
        double dots[4];
        double plain[4];
        double squares[4];
        table_of(kernels, storage)->l2_f64_four(query, rows, scales, dim, l2);
        table_of(kernels, storage)->dot_f64_four(query, rows, scales, dim, dots, squares);
        table_of(kernels, storage)->dot_f64_four(query, rows, scales, dim, plain, NULL);
        for (int i = 0; i < 4; i++) {
            double expected = vex_l2_f64(query, vectors[i], dim);
            assert_memory_equal(&l2[i], &expected, sizeof(expected));
            expected = vex_dot_f64(query, vectors[i], dim);
            assert_memory_equal(&dots[i], &expected, sizeof(expected));
            assert_memory_equal(&plain[i], &expected, sizeof(expected));
            expected = vex_dot_f64(vectors[i], vectors[i], dim);
            assert_memory_equal(&squares[i], &expected, sizeof(expected));
        }
    }
    for (int i = 0; i < 4; i++) {
        free_guarded(&memory[i]);
    }
    free_guarded(&asked);
}

static void all_levels_give_the_bits_of_the_rows_as_floats(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed);
    for (size_t i = 0; i < COUNT_OF(level_names); i++) {
        const struct vex_kernels *kernels = vex_kernels_by_name(level_names[i]);
        if (!kernels) {
            print_message("this processor cannot run %s\n", level_names[i]);
            continue;
        }
        for (size_t kind = 1; kind < COUNT_OF(kinds); kind++) {
            check_decoding(kernels, kinds[kind], &random);
            check_ranking(kernels, kinds[kind], &random);
        }
    }
}

static void every_half_is_decoded_alike(void **state)
{
    (void)state;
    static uint16_t halves[65536];
    static float values[65536];
    for (uint32_t i = 0; i < 65536; i++) {
        halves[i] = (uint16_t)i;
    }
    for (size_t level = 0; level < COUNT_OF(level_names); level++) {
        const struct vex_kernels *kernels = vex_kernels_by_name(level_names[level]);
        if (!kernels) {
            continue;
        }
        kernels->half->decode(halves, 1, 65536, values);
        for (uint32_t i = 0; i < 65536; i++) {
            assert_true(same_float(values[i], vex_half_to_float(halves[i])));
        }
    }
}

int main(void)
{
    if (level_is_missing()) {
        return LEVEL_SKIPPED;
    }
    seed = vex_random_announce("test_index_store");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(halves_are_the_nearest),
        cmocka_unit_test(what_a_half_cannot_hold_is_found),
        cmocka_unit_test(bytes_are_near_and_exact_products),
        cmocka_unit_test(rows_too_small_become_zero_rows),
        cmocka_unit_test(all_levels_give_the_bits_of_the_rows_as_floats),
        cmocka_unit_test(every_half_is_decoded_alike),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
