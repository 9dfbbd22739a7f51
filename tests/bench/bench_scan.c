/*
 * vexbench scan: how near an exact search comes to reading the vectors and doing nothing else.
 *
 * One thread on one core searches a collection too large for any cache, one query at a time; in
 * turns with it, the same thread sums as many bytes of its own memory. What the machine's memory
 * gives changes from one minute to the next, also by what the neighbours do, so each pass makes its
 * own ratio and the median of these is the figure.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <vex/vex.h>

#include "tests/bench/bench.h"
#include "tests/bench/common.h"
#include "tests/bench/instance.h"
#include "tests/bench/memory.h"

#define DEFAULT_BYTES (256u << 20)
#define PASSES_MIN 5u
#define QUERIES 16u
#define K 10u

enum { DIM, METRIC, ROWS, SECONDS, DIR };

static const struct vex_bench_option options[] = {
    [DIM] = {"dim", VEX_BENCH_LIST, "D", "128", 1, VEX_DIM_MAX, "dimensions, one after the other"},
    [METRIC] = {"metric", VEX_BENCH_WORD, "l2|cosine|dot", "l2", 0, 0, "distance"},
    [ROWS] = {"rows", VEX_BENCH_COUNT, "N", NULL, K, 1e9, "rows; default: 256 MiB of vectors"},
    [SECONDS] = {"seconds", VEX_BENCH_SECONDS, "S", "5", 0.001, 3600,
                 "length of the measurement, for each dimension"},
    [DIR] = VEX_BENCH_OPTION_DIR,
    {0},
};

static const enum vex_metric metrics[] = {VEX_METRIC_L2, VEX_METRIC_COSINE, VEX_METRIC_DOT};

struct scan {
    struct vex_collection *collection;
    struct vex_collection_info info;
    struct vex_memory memory; /* as many bytes as the vectors have */
    float *queries;
    uint64_t searches;
    int core;
    struct vex_samples search_s;
    struct vex_samples read_s;
    struct vex_samples ratios;
};

static double seconds_since(uint64_t start_ns)
{
    return (double)(vex_bench_clock_ns() - start_ns) * 1e-9;
}

static bool search_once(struct scan *scan)
{
    uint64_t ids[K];
    float distances[K];
    uint32_t count = 0;
    struct vex_results results = {
        .size = sizeof(results),
        .ids = ids,
        .distances = distances,
        .counts = &count,
    };
    struct vex_search_options search = VEX_SEARCH_OPTIONS_INIT;
    search.k = K;
    struct vex_search_info info = {.size = sizeof(info)};
    struct vex_error error;
    const float *query = scan->queries + scan->searches++ % QUERIES * scan->info.dim;
    if (vex_search(scan->collection, query, 1, scan->info.dim, &search, &results, &info, &error) !=
        VEX_OK) {
        return vex_bench_fail("search: %s", error.message);
    }
    return (info.complete && count == K && info.rows_visited == scan->info.count) ||
           vex_bench_fail("a search visited %llu of %llu rows and found %u",
                          (unsigned long long)info.rows_visited,
                          (unsigned long long)scan->info.count, count);
}

static bool make_pass(struct scan *scan)
{
    uint64_t start_ns = vex_bench_clock_ns();
    if (!vex_memory_read(&scan->memory)) {
        return false;
    }
    double read_s = seconds_since(start_ns);
    start_ns = vex_bench_clock_ns();
    if (!search_once(scan)) {
        return false;
    }
    double search_s = seconds_since(start_ns);
    vex_samples_add(&scan->read_s, read_s);
    vex_samples_add(&scan->search_s, search_s);
    vex_samples_add(&scan->ratios, read_s / search_s);
    return true;
}

static bool print_scan(struct scan *scan)
{
    double bytes = (double)scan->info.count * scan->info.dim * sizeof(float);
    double search_s = vex_samples_median(&scan->search_s);
    struct vex_line line;
    vex_line_begin(&line, "search");
    vex_line_text(&line, "metric", vex_metric_name(scan->info.metric));
    vex_line_count(&line, "dim", scan->info.dim);
    vex_line_count(&line, "rows", scan->info.count);
    vex_line_count(&line, "k", K);
    vex_line_count(&line, "segments", scan->info.segments);
    vex_line_text(&line, "kernels", vex_isa_name());
    vex_line_text(&line, "loads", vex_memory_loads());
    vex_line_count(&line, "core", (uint64_t)scan->core);
    vex_line_count(&line, "passes", scan->ratios.count);
    vex_line_real(&line, "vector_mib", bytes / (1 << 20));
    vex_line_real(&line, "queries_s", 1 / search_s);
    vex_line_real(&line, "gb_s", bytes * 1e-9 / search_s);
    vex_line_real(&line, "read_gb_s",
                  (double)scan->memory.bytes * 1e-9 / vex_samples_median(&scan->read_s));
    vex_line_real(&line, "ratio", vex_samples_median(&scan->ratios));
    vex_line_real(&line, "ratio_least", vex_samples_quantile(&scan->ratios, 0));
    vex_line_real(&line, "ratio_greatest", vex_samples_quantile(&scan->ratios, 1));
    return vex_line_end(&line);
}

static bool measure(struct scan *scan, double seconds)
{
    uint64_t seed = 2;
    scan->queries = vex_bench_alloc((size_t)QUERIES * scan->info.dim, sizeof(*scan->queries));
    vex_data_fill(scan->queries, (size_t)QUERIES * scan->info.dim, &seed);
    /* One of each that does not count: pages are mapped at first touch. */
    if (!vex_memory_read(&scan->memory) || !search_once(scan)) {
        return false;
    }
    uint64_t start_ns = vex_bench_clock_ns();
    while (scan->ratios.count < PASSES_MIN || seconds_since(start_ns) < seconds) {
        if (vex_bench_stopped() || !make_pass(scan)) {
            return false;
        }
    }
    return print_scan(scan);
}

static void end(struct scan *scan)
{
    vex_collection_close(scan->collection);
    vex_memory_close(&scan->memory);
    free(scan->queries);
    vex_samples_deinit(&scan->search_s);
    vex_samples_deinit(&scan->read_s);
    vex_samples_deinit(&scan->ratios);
}

/* One dimension, in a collection that is dropped afterwards. */
static bool run_dim(struct vex_db *db, const struct vex_bench_value *values, uint32_t dim)
{
    static const char name[] = "scan";
    size_t row_bytes = dim * sizeof(float);
    uint64_t rows = values[ROWS].given ? values[ROWS].count : DEFAULT_BYTES / row_bytes;
    struct scan scan = {.info = {.size = sizeof(scan.info)}};
    struct vex_error error;
    uint64_t seed = 1;
    bool sound =
        vex_instance_collection(db, name, dim, metrics[values[METRIC].count], &scan.collection);
    if (sound) {
        vex_bench_note("filling %llu rows of %u", (unsigned long long)rows, dim);
        sound = vex_instance_fill(scan.collection, dim, rows, &seed) &&
                vex_memory_open(&scan.memory, rows * row_bytes);
    }
    if (sound && vex_collection_describe(scan.collection, &scan.info, &error) != VEX_OK) {
        sound = vex_bench_fail("describe: %s", error.message);
    }
    scan.core = vex_core_take(0);
    sound = sound && measure(&scan, values[SECONDS].seconds);
    vex_core_release();
    end(&scan);
    if (sound && vex_collection_drop(db, name, &error) != VEX_OK) {
        sound = vex_bench_fail("drop: %s", error.message);
    }
    return sound;
}

static bool run(const struct vex_bench_value *values)
{
    struct vex_instance instance;
    if (!vex_instance_open(&instance, &values[DIR])) {
        return false;
    }
    bool sound = true;
    for (size_t i = 0; i < values[DIM].list_count && sound; i++) {
        sound = run_dim(instance.db, values, (uint32_t)values[DIM].list[i]);
    }
    vex_instance_close(&instance);
    return sound;
}

const struct vex_bench vex_bench_scan = {
    "scan",
    "exact search beside a plain read of as many bytes",
    options,
    run,
};
