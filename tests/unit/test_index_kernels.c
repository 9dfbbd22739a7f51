/*
 * The kernels of every level that this processor runs, against sums in double precision and against
 * the error bound of index/kernels.h; the choice of a level; the double-precision functions against
 * long double and against their documented order.
 *
 * Every dimension from 1 to 2048 is tried, because kernels go wrong at remainders. Two tests make
 * faults visible that an error bound would hide: small integers, whose sums are exact in any order,
 * and guard pages around everything that is read or written. The choice is made once in a process,
 * so it is tested in children of this very program, started with --chosen.
 */
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <float.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "index/kernels.h"

#define DIM_MAX 2048u
#define ROWS_MAX 9u /* one group of eight and one more */
#define STRIDE_MAX (DIM_MAX + 32)
#define MISALIGNMENT_MAX 16u
#define THREADS_COUNT 8u
#define CHOSEN_FLAG "--chosen"

static const char *const level_names[] = {"scalar", "avx2", "avx512", "avx512vnni"};
#define LEVELS_COUNT (sizeof level_names / sizeof *level_names)

static bool processor_runs(const char *name)
{
#if defined(__x86_64__)
    unsigned a = 0;
    unsigned b = 0;
    unsigned c = 0;
    unsigned d = 0;
    bool f16c = __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C); /* clang 14 has no name for it */
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && f16c;
    if (strcmp(name, "avx2") == 0) {
        return avx2;
    }
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (strcmp(name, "avx512") == 0) {
        return avx512;
    }
    if (strcmp(name, "avx512vnni") == 0) {
        return avx512 && __builtin_cpu_supports("avx512vnni");
    }
#endif
    return strcmp(name, "scalar") == 0;
}

/* The tables to test; returns how many. */
static size_t levels_here(const struct vex_kernels *out_levels[LEVELS_COUNT])
{
    size_t count = 0;
    for (size_t i = 0; i < LEVELS_COUNT; i++) {
        const struct vex_kernels *kernels = vex_kernels_by_name(level_names[i]);
        if (kernels) {
            out_levels[count++] = kernels;
        } else {
            print_message("this processor cannot run %s: that level is not tested\n",
                          level_names[i]);
        }
    }
    return count;
}

static uint64_t random_state = 0x5eed0f5eed5ull;

/* splitmix64 */
static uint64_t random_bits(void)
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static float float_from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Any sign and significand; the exponent field between two values (0: subnormal, 127: [1, 2)). */
static float random_float(uint32_t exponent_min, uint32_t exponent_max)
{
    uint64_t bits = random_bits();
    uint32_t exponent = exponent_min + (uint32_t)(bits >> 32) % (exponent_max - exponent_min + 1u);
    return float_from_bits(((uint32_t)bits & 0x807fffffu) | exponent << 23);
}

static float random_uniform(void)
{
    return (float)((int32_t)(random_bits() >> 40) - (1 << 23)) * 0x1p-23f;
}

static float random_integer(int32_t magnitude)
{
    return (float)((int32_t)(random_bits() % (uint64_t)(2 * magnitude + 1)) - magnitude);
}

enum data {
    DATA_UNIFORM,
    DATA_PIXELS,      /* whole numbers far from zero: large sums */
    DATA_WIDE,        /* 2^-60 to 2^55: most terms vanish beside the largest */
    DATA_OVERFLOWING, /* up to FLT_MAX: infinities are right, if the sum is that large */
    DATA_TINY,        /* subnormals, and products that underflow */
    DATA_CANCELLING,  /* dot products near zero from large terms; rows a few ulps from the query */
    DATA_ZEROS,       /* zeros of both signs, and few other values */
    DATA_KINDS
};

static float random_value(enum data kind)
{
    switch (kind) {
    case DATA_PIXELS:
        return (float)(random_bits() % 256);
    case DATA_WIDE:
        return random_float(127 - 60, 127 + 55);
    case DATA_OVERFLOWING:
        return random_float(127 + 40, 254);
    case DATA_TINY:
        return random_float(0, 127 - 60);
    case DATA_ZEROS: {
        uint64_t bits = random_bits();
        return bits % 16 == 0 ? random_uniform() : bits % 2 ? 0.0f : -0.0f;
    }
    case DATA_UNIFORM:
    case DATA_CANCELLING:
    case DATA_KINDS:
        break;
    }
    return random_uniform();
}

static void fill_query(enum data kind, float *query, size_t dim)
{
    for (size_t d = 0; d < dim; d++) {
        query[d] = kind == DATA_CANCELLING && d % 2 ? -query[d - 1] : random_value(kind);
    }
}

static void fill_row(enum data kind, const float *query, size_t row_index, float *row, size_t dim)
{
    for (size_t d = 0; d < dim; d++) {
        if (kind != DATA_CANCELLING) {
            row[d] = random_value(kind);
        } else if (row_index % 2) {
            row[d] = query[d] * (1 + random_integer(3) * FLT_EPSILON);
        } else {
            row[d] = d % 2 ? row[d - 1] * (1 + random_integer(1) * FLT_EPSILON)
                           : 1000 * random_uniform();
        }
    }
}

struct exact {
    double sum;
    double magnitude; /* the sum of the terms' absolute values */
};

/* Double precision errs by 2^-29 of what the kernels may. */
static struct exact exact_l2(const float *a, const float *b, size_t dim)
{
    struct exact exact = {0, 0};
    for (size_t d = 0; d < dim; d++) {
        double difference = (double)a[d] - (double)b[d];
        exact.sum += difference * difference;
    }
    exact.magnitude = exact.sum;
    return exact;
}

static struct exact exact_dot(const float *a, const float *b, size_t dim)
{
    struct exact exact = {0, 0};
    for (size_t d = 0; d < dim; d++) {
        double term = (double)a[d] * (double)b[d];
        exact.sum += term;
        exact.magnitude += fabs(term);
    }
    return exact;
}

/* The bound of index/kernels.h. */
static double allowed_error(const struct exact *exact, size_t dim)
{
    double terms = (double)dim + 3;
    double unit = 0x1p-24;
    return terms * unit / (1 - terms * unit) * exact->magnitude + (double)dim * (double)FLT_MIN;
}

static bool is_within_bound(const struct exact *exact, size_t dim, float computed)
{
    double allowed = allowed_error(exact, dim);
    if (!isfinite(computed)) {
        return exact->magnitude + allowed >= (double)FLT_MAX;
    }
    return fabs((double)computed - exact->sum) <= allowed;
}

static void check_within_bound(const char *level, const char *kernel, const struct exact *exact,
                               size_t dim, enum data kind, float computed)
{
    if (!is_within_bound(exact, dim, computed)) {
        fail_msg("%s %s, dim %zu, data %d: computed %.9g, exact %.17g, may differ by %.9g", level,
                 kernel, dim, (int)kind, (double)computed, exact->sum, allowed_error(exact, dim));
    }
}

/* Rows in one buffer, with NaN wherever a kernel has no business. */
struct rows {
    float query[DIM_MAX + MISALIGNMENT_MAX];
    float values[ROWS_MAX * STRIDE_MAX + MISALIGNMENT_MAX];
    const float *first_query;
    const float *first_row;
    size_t stride;
    size_t count;
    size_t dim;
};

static size_t stride_for(size_t dim, size_t choice)
{
    switch (choice % 4) {
    case 0:
        return dim;
    case 1:
        return (dim + 15) / 16 * 16;
    case 2:
        return dim | 1u;
    default:
        return (dim | 1u) + 2 * (choice % 11);
    }
}

static void rows_fill(struct rows *rows, enum data kind, size_t misalignment)
{
    rows->first_query = rows->query + misalignment;
    rows->first_row = rows->values + (misalignment * 7 + 3) % MISALIGNMENT_MAX;
    memset(rows->values, 0xff, sizeof(float) * (rows->count * rows->stride + MISALIGNMENT_MAX));
    memset(rows->query, 0xff, sizeof(float) * (rows->dim + MISALIGNMENT_MAX));
    fill_query(kind, rows->query + misalignment, rows->dim);
    for (size_t i = 0; i < rows->count; i++) {
        float *row = rows->values + (rows->first_row - rows->values) + i * rows->stride;
        fill_row(kind, rows->first_query, i, row, rows->dim);
    }
}

static struct rows *rows_new(void)
{
    struct rows *rows = aligned_alloc(64, (sizeof *rows + 63) / 64 * 64);
    assert_non_null(rows);
    memset(rows, 0, sizeof *rows);
    return rows;
}

/* Scores all rows by one kernel; what is behind out[count - 1] must stay. */
static void score(vex_rows_kernel kernel, const struct rows *rows, float out[ROWS_MAX + 1])
{
    const float untouched = -12345;
    out[rows->count] = untouched;
    kernel(rows->first_query, rows->first_row, rows->stride, rows->count, rows->dim, out);
    assert_true(out[rows->count] == untouched);
}

static void every_level_stays_within_the_stated_bound(void **state)
{
    (void)state;
    const struct vex_kernels *levels[LEVELS_COUNT];
    size_t levels_count = levels_here(levels);
    struct rows *rows = rows_new();
    for (size_t dim = 1; dim <= DIM_MAX; dim++) {
        for (size_t count = 1; count <= ROWS_MAX; count++) {
            enum data kind = (enum data)((dim + count) % DATA_KINDS);
            rows->dim = dim;
            rows->count = count;
            rows->stride = stride_for(dim, dim / DATA_KINDS + count);
            rows_fill(rows, kind, (dim * 5 + count) % MISALIGNMENT_MAX);
            struct exact l2[ROWS_MAX];
            struct exact dot[ROWS_MAX];
            for (size_t i = 0; i < count; i++) {
                const float *row = rows->first_row + i * rows->stride;
                l2[i] = exact_l2(rows->first_query, row, dim);
                dot[i] = exact_dot(rows->first_query, row, dim);
            }
            for (size_t level = 0; level < levels_count; level++) {
                const struct vex_kernels *kernels = levels[level];
                float out[ROWS_MAX + 1];
                score(kernels->l2_rows, rows, out);
                for (size_t i = 0; i < count; i++) {
                    check_within_bound(kernels->name, "l2", &l2[i], dim, kind, out[i]);
                    assert_true(out[i] >= 0); /* not NaN */
                }
                score(kernels->dot_rows, rows, out);
                for (size_t i = 0; i < count; i++) {
                    check_within_bound(kernels->name, "dot", &dot[i], dim, kind, out[i]);
                }
            }
        }
    }
    free(rows);
}

/* Magnitudes of 31 at most: sums stay below 2^24, so no order of additions rounds. */
static void sums_of_small_integers_are_exact(void **state)
{
    (void)state;
    const struct vex_kernels *levels[LEVELS_COUNT];
    size_t levels_count = levels_here(levels);
    struct rows *rows = rows_new();
    for (size_t dim = 1; dim <= DIM_MAX; dim++) {
        rows->dim = dim;
        rows->count = 1 + dim % ROWS_MAX;
        rows->stride = stride_for(dim, dim / ROWS_MAX);
        rows_fill(rows, DATA_ZEROS, dim % MISALIGNMENT_MAX);
        float *values = rows->values + (rows->first_row - rows->values);
        for (size_t d = 0; d < dim; d++) {
            rows->query[(size_t)(rows->first_query - rows->query) + d] = random_integer(31);
            for (size_t i = 0; i < rows->count; i++) {
                values[i * rows->stride + d] = random_integer(31);
            }
        }
        for (size_t level = 0; level < levels_count; level++) {
            float l2[ROWS_MAX + 1];
            float dot[ROWS_MAX + 1];
            score(levels[level]->l2_rows, rows, l2);
            score(levels[level]->dot_rows, rows, dot);
            for (size_t i = 0; i < rows->count; i++) {
                const float *row = values + i * rows->stride;
                double exact = exact_l2(rows->first_query, row, dim).sum;
                assert_true((double)l2[i] == exact);
                exact = exact_dot(rows->first_query, row, dim).sum;
                assert_true((double)dot[i] == exact);
            }
        }
    }
    free(rows);
}

static void a_row_has_the_same_bits_wherever_it_stands_in_a_run(void **state)
{
    (void)state;
    enum { RUN_ROWS = 19, RUN_DIM_MAX = 100 };
    const struct vex_kernels *levels[LEVELS_COUNT];
    size_t levels_count = levels_here(levels);
    static float rows[RUN_ROWS * RUN_DIM_MAX];
    float query[RUN_DIM_MAX];
    for (size_t dim = 1; dim <= RUN_DIM_MAX; dim++) {
        fill_query(DATA_UNIFORM, query, dim);
        for (size_t i = 0; i < RUN_ROWS; i++) {
            fill_row(DATA_UNIFORM, query, i, rows + i * dim, dim);
        }
        for (size_t level = 0; level < levels_count; level++) {
            vex_rows_kernel kernels[] = {levels[level]->l2_rows, levels[level]->dot_rows};
            for (size_t k = 0; k < 2; k++) {
                float alone[RUN_ROWS];
                for (size_t i = 0; i < RUN_ROWS; i++) {
                    kernels[k](query, rows + i * dim, dim, 1, dim, alone + i);
                }
                for (size_t count = 1; count <= RUN_ROWS; count++) {
                    float run[RUN_ROWS];
                    kernels[k](query, rows + (RUN_ROWS - count) * dim, dim, count, dim, run);
                    assert_memory_equal(run, alone + RUN_ROWS - count, count * sizeof *run);
                }
            }
        }
    }
}

static void an_empty_run_writes_nothing(void **state)
{
    (void)state;
    const struct vex_kernels *levels[LEVELS_COUNT];
    size_t levels_count = levels_here(levels);
    float query[16] = {1};
    float rows[16] = {2};
    for (size_t level = 0; level < levels_count; level++) {
        float out = 77;
        levels[level]->l2_rows(query, rows, 16, 0, 16, &out);
        levels[level]->dot_rows(query, rows, 16, 0, 16, &out);
        assert_true(out == 77);
    }
}

/* Memory between two pages that fault at a touch. */
struct guarded {
    char *pages;
    size_t page_bytes;
    size_t bytes; /* between the guards */
};

static struct guarded guarded_new(size_t floats_max)
{
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    size_t bytes = (floats_max * sizeof(float) + page_bytes - 1) / page_bytes * page_bytes;
    char *pages = mmap(NULL, bytes + 2 * page_bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(pages != MAP_FAILED);
    assert_int_equal(mprotect(pages, page_bytes, PROT_NONE), 0);
    assert_int_equal(mprotect(pages + page_bytes + bytes, page_bytes, PROT_NONE), 0);
    return (struct guarded){pages, page_bytes, bytes};
}

static void guarded_free(const struct guarded *guarded)
{
    munmap(guarded->pages, guarded->bytes + 2 * guarded->page_bytes);
}

/* Directly behind the first guard, or so that `count` floats end directly before the second. */
static float *guarded_floats(const struct guarded *guarded, bool at_end, size_t count)
{
    char *start = guarded->pages + guarded->page_bytes;
    void *floats = at_end ? start + guarded->bytes - count * sizeof(float) : start;
    return floats;
}

static void nothing_is_touched_before_or_behind_the_floats_named(void **state)
{
    (void)state;
    const struct vex_kernels *levels[LEVELS_COUNT];
    size_t levels_count = levels_here(levels);
    struct guarded query_memory = guarded_new(DIM_MAX);
    struct guarded rows_memory = guarded_new(ROWS_MAX * STRIDE_MAX);
    struct guarded out_memory = guarded_new(ROWS_MAX);
    for (size_t dim = 1; dim <= DIM_MAX; dim++) {
        for (size_t count = 1; count <= ROWS_MAX; count++) {
            bool at_end = (dim + count) % 4 != 0;
            size_t stride = stride_for(dim, dim + count);
            const float *query = guarded_floats(&query_memory, at_end, dim);
            /* The last row has no padding behind it. */
            const float *rows = guarded_floats(&rows_memory, at_end, (count - 1) * stride + dim);
            float *out = guarded_floats(&out_memory, at_end, count);
            for (size_t level = 0; level < levels_count; level++) {
                levels[level]->l2_rows(query, rows, stride, count, dim, out);
                levels[level]->dot_rows(query, rows, stride, count, dim, out);
            }
        }
        const float *values = guarded_floats(&query_memory, true, dim);
        for (size_t level = 0; level < levels_count; level++) {
            assert_true(levels[level]->all_finite(values, dim));
        }
    }
    guarded_free(&query_memory);
    guarded_free(&rows_memory);
    guarded_free(&out_memory);
}

static const uint32_t not_finite_bits[] = {
    0x7f800000, 0xff800000, /* infinities */
    0x7fc00000, 0xffc00000, /* quiet NaNs */
    0x7f800001, 0xff800001, /* signalling NaNs */
    0x7fffffff, 0xffffffff,
};
#define NOT_FINITE_COUNT (sizeof not_finite_bits / sizeof *not_finite_bits)

static void one_value_that_is_not_finite_is_found_at_each_position(void **state)
{
    (void)state;
    enum { COUNT_MAX = 150 };
    const struct vex_kernels *levels[LEVELS_COUNT];
    size_t levels_count = levels_here(levels);
    struct guarded memory = guarded_new(DIM_MAX);
    for (size_t n = 1; n <= COUNT_MAX + 1; n++) {
        size_t count = n <= COUNT_MAX ? n : DIM_MAX;
        float *values = guarded_floats(&memory, true, count);
        fill_query(DATA_OVERFLOWING, values, count);
        for (size_t position = 0; position < count; position++) {
            float held = values[position];
            for (size_t b = 0; b < NOT_FINITE_COUNT; b++) {
                memcpy(&values[position], &not_finite_bits[b], sizeof *values);
                for (size_t level = 0; level < levels_count; level++) {
                    assert_false(levels[level]->all_finite(values, count));
                }
            }
            values[position] = held;
        }
        for (size_t level = 0; level < levels_count; level++) {
            assert_true(levels[level]->all_finite(values, count));
        }
    }
    guarded_free(&memory);
}

static void every_finite_value_is_finite_and_neighbours_do_not_count(void **state)
{
    (void)state;
    const float extremes[] = {FLT_MAX, -FLT_MAX, 0.0f,         -0.0f,
                              FLT_MIN, -FLT_MIN, FLT_TRUE_MIN, -FLT_TRUE_MIN};
    const size_t extremes_count = sizeof extremes / sizeof *extremes;
    enum { COUNT_MAX = 150 };
    const struct vex_kernels *levels[LEVELS_COUNT];
    size_t levels_count = levels_here(levels);
    float values[1 + COUNT_MAX + 1];
    for (size_t count = 0; count <= COUNT_MAX; count++) {
        values[0] = NAN;
        values[count + 1] = INFINITY;
        for (size_t i = 0; i < count; i++) {
            values[1 + i] = extremes[(i + count) % extremes_count];
        }
        for (size_t level = 0; level < levels_count; level++) {
            assert_true(levels[level]->all_finite(values + 1, count));
        }
    }
}

static void a_level_is_offered_exactly_if_the_processor_runs_it(void **state)
{
    (void)state;
    for (size_t i = 0; i < LEVELS_COUNT; i++) {
        const struct vex_kernels *kernels = vex_kernels_by_name(level_names[i]);
        assert_int_equal(kernels != NULL, processor_runs(level_names[i]));
        if (kernels) {
            assert_string_equal(kernels->name, level_names[i]);
        }
    }
}

static void an_unknown_name_has_no_table(void **state)
{
    (void)state;
    const char *const names[] = {"", "sse2", "AVX2", "avx", "avx5", "avx5122", "scalar ", "best"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        assert_null(vex_kernels_by_name(names[i]));
    }
}

struct chooser {
    pthread_t thread;
    pthread_barrier_t *start;
    const struct vex_kernels *kernels;
};

static void *choose_at_start(void *argument)
{
    struct chooser *chooser = argument;
    pthread_barrier_wait(chooser->start);
    chooser->kernels = vex_kernels_get();
    return NULL;
}

/*
 * What a child does: threads choose at the same moment and must agree, then a changed environment
 * must change nothing. Prints the name; exit status 0 if all held.
 */
static int print_chosen(void)
{
    pthread_barrier_t start;
    struct chooser choosers[THREADS_COUNT];
    pthread_barrier_init(&start, NULL, THREADS_COUNT);
    for (size_t i = 0; i < THREADS_COUNT; i++) {
        choosers[i].start = &start;
        if (pthread_create(&choosers[i].thread, NULL, choose_at_start, &choosers[i]) != 0) {
            return 2;
        }
    }
    for (size_t i = 0; i < THREADS_COUNT; i++) {
        pthread_join(choosers[i].thread, NULL);
    }
    pthread_barrier_destroy(&start);
    const struct vex_kernels *chosen = vex_kernels_get();
    for (size_t i = 0; i < THREADS_COUNT; i++) {
        if (choosers[i].kernels != chosen) {
            return 3;
        }
    }
    const char *other = strcmp(chosen->name, "scalar") == 0 ? "avx512" : "scalar";
    if (setenv("VEX_ISA", other, 1) != 0 || vex_kernels_get() != chosen) {
        return 4;
    }
    return puts(chosen->name) == EOF || fflush(stdout) != 0 ? 5 : 0;
}

/* In the child: this program again, its output into the pipe. Only returns by exiting. */
static _Noreturn void run_chosen(const char *isa, int output)
{
    bool is_ready = (isa ? setenv("VEX_ISA", isa, 1) : unsetenv("VEX_ISA")) == 0 &&
                    dup2(output, STDOUT_FILENO) >= 0;
    if (is_ready) {
        execl("/proc/self/exe", "test_index_kernels", CHOSEN_FLAG, (char *)NULL);
    }
    _exit(6);
}

/* The level that a new process chooses with this VEX_ISA (NULL: not set). */
static void chosen_with(const char *isa, char *out_name, size_t name_bytes)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        run_chosen(isa, ends[1]);
    }
    close(ends[1]);
    size_t length = 0;
    while (length < name_bytes - 1) {
        ssize_t got = read(ends[0], out_name + length, name_bytes - 1 - length);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            break;
        }
        length += (size_t)got;
    }
    close(ends[0]);
    int status = -1;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    out_name[length] = '\0';
    out_name[strcspn(out_name, "\n")] = '\0';
}

/* The best level that is not above `highest`, a place in level_names. */
static const char *best_name(size_t highest)
{
    while (highest > 0 && !processor_runs(level_names[highest])) {
        highest--;
    }
    return level_names[highest];
}

static void the_environment_lowers_the_level_and_the_choice_is_made_once(void **state)
{
    (void)state;
    char name[32];
    chosen_with(NULL, name, sizeof name);
    assert_string_equal(name, best_name(LEVELS_COUNT - 1));
    for (size_t i = 0; i < LEVELS_COUNT; i++) {
        chosen_with(level_names[i], name, sizeof name);
        assert_string_equal(name, best_name(i));
    }
    chosen_with("no-such-level", name, sizeof name);
    assert_string_equal(name, best_name(LEVELS_COUNT - 1));
    chosen_with("", name, sizeof name);
    assert_string_equal(name, best_name(LEVELS_COUNT - 1));
}

static void double_precision_is_close_to_long_double(void **state)
{
    (void)state;
    if (LDBL_MANT_DIG <= DBL_MANT_DIG) {
        print_message("long double is no wider than double here\n");
        skip();
    }
    float *a = malloc(2 * DIM_MAX * sizeof *a);
    assert_non_null(a);
    float *b = a + DIM_MAX;
    for (size_t dim = 1; dim <= DIM_MAX; dim++) {
        enum data kind = (enum data)(dim % DATA_KINDS);
        fill_query(kind, a, dim);
        fill_row(kind, a, dim / DATA_KINDS, b, dim);
        long double l2 = 0;
        long double dot = 0;
        long double magnitude = 0;
        for (size_t d = 0; d < dim; d++) {
            long double difference = (long double)a[d] - (long double)b[d];
            long double term = (long double)a[d] * (long double)b[d];
            l2 += difference * difference;
            dot += term;
            magnitude += fabsl(term);
        }
        /* A term meets dim / 4 additions, two more of the partial sums, and its own roundings. */
        long double relative = ((long double)dim / 4 + 6) * 0x1p-53L;
        assert_true(fabsl((long double)vex_l2_f64(a, b, dim) - l2) <= relative * l2);
        assert_true(fabsl((long double)vex_dot_f64(a, b, dim) - dot) <= relative * magnitude);
    }
    free(a);
}

/* The ranking is the same on every processor only if the order of additions is exactly this one. */
static void double_precision_adds_in_the_documented_order(void **state)
{
    (void)state;
    float *a = malloc(2 * DIM_MAX * sizeof *a);
    assert_non_null(a);
    float *b = a + DIM_MAX;
    for (size_t dim = 0; dim <= DIM_MAX; dim++) {
        fill_query(DATA_UNIFORM, a, dim);
        fill_row(DATA_UNIFORM, a, 0, b, dim);
        volatile double l2[4] = {0}; /* volatile: term by term, as written */
        volatile double dot[4] = {0};
        for (size_t d = 0; d < dim; d++) {
            volatile double difference = (double)a[d] - (double)b[d];
            volatile double square = difference * difference;
            volatile double product = (double)a[d] * (double)b[d];
            l2[d % 4] = l2[d % 4] + square;
            dot[d % 4] = dot[d % 4] + product;
        }
        double expected_l2 = (l2[0] + l2[1]) + (l2[2] + l2[3]);
        double expected_dot = (dot[0] + dot[1]) + (dot[2] + dot[3]);
        assert_true(vex_l2_f64(a, b, dim) == expected_l2);
        assert_true(vex_dot_f64(a, b, dim) == expected_dot);
    }
    free(a);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], CHOSEN_FLAG) == 0) {
        return print_chosen();
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_level_stays_within_the_stated_bound),
        cmocka_unit_test(sums_of_small_integers_are_exact),
        cmocka_unit_test(a_row_has_the_same_bits_wherever_it_stands_in_a_run),
        cmocka_unit_test(an_empty_run_writes_nothing),
        cmocka_unit_test(nothing_is_touched_before_or_behind_the_floats_named),
        cmocka_unit_test(one_value_that_is_not_finite_is_found_at_each_position),
        cmocka_unit_test(every_finite_value_is_finite_and_neighbours_do_not_count),
        cmocka_unit_test(a_level_is_offered_exactly_if_the_processor_runs_it),
        cmocka_unit_test(an_unknown_name_has_no_table),
        cmocka_unit_test(the_environment_lowers_the_level_and_the_choice_is_made_once),
        cmocka_unit_test(double_precision_is_close_to_long_double),
        cmocka_unit_test(double_precision_adds_in_the_documented_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
