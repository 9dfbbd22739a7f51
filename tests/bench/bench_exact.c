/*
 * vexbench exact: how fast an answer can be had that is certainly the right one.
 *
 * Collections of the user's own vectors, without an index and with one, are searched exactly: one query a
 * call, beside a plain scan of the float32 values, and a read of as many bytes, which no scan could beat;
 * and many queries a call, beside a library that multiplies matrices for it. Who takes part takes
 * turns, pass by pass, on one core, and each pass makes its own ratio.
 *
 * Fast and wrong is worth nothing. All answers of the first, unmeasured pass are compared with brute force
 * in double precision, id for id, and a wrong one fails the run.
 */
#include <math.h>
#include <stdlib.h>

#include <vex/vex.h>

#include "tests/bench/answers.h"
#include "tests/bench/bench.h"
#include "tests/bench/common.h"
#include "tests/bench/instance.h"
#include "tests/bench/memory.h"
#include "tests/bench/plain_scan.h"
#include "tests/bench/sides.h"
#include "tests/bench/vectors.h"

#define SCANS 8u /* plain ones, and reads of memory, in each pass */
#define K_MAX 1000

enum { BASE, QUERY, METRIC, INDEX, BATCH, PEERS, K, LIMIT, QUERIES, PASSES, ISA, DIR };

static const struct vex_bench_option options[] = {
    [BASE] = {"base", VEX_BENCH_TEXT, "FILE", NULL, 0, 0, "vectors, .fvecs or .bvecs; needed"},
    [QUERY] = {"query", VEX_BENCH_TEXT, "FILE", NULL, 0, 0, "queries, as the base; needed"},
    [METRIC] = {"metric", VEX_BENCH_WORD, "l2|cosine|dot", "l2", 0, 0, "distance"},
    [INDEX] = {"index", VEX_BENCH_WORDS, "flat|hnsw|ivf", "flat,hnsw", 0, 0,
               "indexes of the collections, which exact searches look through"},
    [BATCH] = {"batch", VEX_BENCH_COUNT, "N", "1000", 1, VEX_QUERIES_MAX,
               "queries of one call; 1: no batches"},
    [PEERS] = {"peers", VEX_BENCH_WORDS, "none|faiss", "none", 0, 0,
               "compare batches with a library"},
    [K] = {"k", VEX_BENCH_COUNT, "N", "10", 1, K_MAX, "neighbours wanted"},
    [LIMIT] = {"limit", VEX_BENCH_COUNT, "N", NULL, 1, 1e9, "only the first rows of the base"},
    [QUERIES] = {"queries", VEX_BENCH_COUNT, "N", NULL, 1, 1e9, "only the first queries"},
    [PASSES] = {"passes", VEX_BENCH_COUNT, "N", "3", 3, 1e6, "times that all is measured"},
    [ISA] = VEX_BENCH_OPTION_ISA,
    [DIR] = VEX_BENCH_OPTION_DIR,
    {0},
};

static const enum vex_metric metrics[] = {VEX_METRIC_L2, VEX_METRIC_COSINE, VEX_METRIC_DOT};
static const enum vex_index_kind indexes[] = {VEX_INDEX_FLAT, VEX_INDEX_HNSW, VEX_INDEX_IVF};
static const char *const names[] = {"flat", "hnsw", "ivf"};
#define INDEXES (sizeof(indexes) / sizeof(*indexes))

enum way { SINGLY, IN_BATCHES, WAYS };

/* Answers of one collection in one way. */
struct entry {
    struct vex_ours *ours;
    struct vex_verdict verdict;
    struct vex_samples rates;
    struct vex_samples us;     /* of single calls: how long each query took, all passes */
    struct vex_samples ratios; /* to the plain scan or the library */
    double visited;
};

struct exact {
    const struct vex_bench_value *values;
    struct vex_vectors base;
    struct vex_vectors queries;
    struct vex_instance instance;
    struct vex_ours ours[INDEXES];
    size_t ours_count;
    struct entry entries[INDEXES][WAYS];
    bool with_library;
    struct vex_theirs library;
    struct vex_answers answers;
    struct vex_verdict library_verdict;
    struct vex_samples library_rates;
    struct vex_memory memory; /* as many bytes as the vectors have */
    struct vex_samples read_rates;
    struct vex_plain_scan scan;
    struct vex_samples scan_rates;
    uint64_t *found;  /* queries x k */
    float *distances; /* k */
    enum vex_metric metric;
    uint32_t k;
};

static bool with_batches(const struct exact *exact)
{
    return exact->values[BATCH].count > 1;
}

/* ---- running --------------------------------------------------------------------------------- */

static bool search_all(struct exact *exact, struct entry *entry, size_t batch, bool measured)
{
    struct vex_search_options how = VEX_SEARCH_OPTIONS_INIT;
    how.k = exact->k;
    how.exact = true;
    uint64_t visited = 0;
    size_t queries = exact->queries.rows;
    for (size_t first = 0; first < queries; first += batch) {
        size_t count = queries - first < batch ? queries - first : batch;
        struct vex_search_info info;
        double start_s = vex_bench_thread_seconds();
        if (vex_bench_stopped() || !vex_ours_search(entry->ours, first, count, &how,
                                                    exact->found + first * exact->k, &info)) {
            return false;
        }
        if (measured && batch == 1) {
            vex_samples_add(&entry->us, (vex_bench_thread_seconds() - start_s) * 1e6);
        }
        visited += info.rows_visited;
    }
    entry->visited = (double)visited / (double)queries;
    return true;
}

static struct vex_verdict judge(struct exact *exact)
{
    struct vex_verdict verdict = {0};
    for (size_t i = 0; i < exact->queries.rows; i++) {
        vex_answers_judge(&exact->answers, i, exact->found + i * exact->k, &verdict);
    }
    return verdict;
}

static bool search_library(struct exact *exact)
{
    struct vex_contest_point point = {.effort = 0};
    return !vex_bench_stopped() &&
           vex_theirs_search_all(&exact->library, &point, false, exact->found);
}

/* Maps pages and warms caches, and is what the verdicts are of. */
static bool try_out(struct exact *exact)
{
    for (size_t i = 0; i < exact->ours_count; i++) {
        for (int way = 0; way < (with_batches(exact) ? WAYS : 1); way++) {
            struct entry *entry = &exact->entries[i][way];
            size_t batch = way == SINGLY ? 1 : exact->values[BATCH].count;
            if (!search_all(exact, entry, batch, false)) {
                return false;
            }
            entry->verdict = judge(exact);
        }
    }
    if (exact->with_library) {
        if (!search_library(exact)) {
            return false;
        }
        exact->library_verdict = judge(exact);
    }
    return vex_memory_read(&exact->memory);
}

/* Rates are by the thread's own processor time; who waits for memory uses it too. */
static bool measure_entry(struct exact *exact, struct entry *entry, size_t batch, double compared)
{
    double start_s = vex_bench_thread_seconds();
    if (!search_all(exact, entry, batch, true)) {
        return false;
    }
    double rate = (double)exact->queries.rows / (vex_bench_thread_seconds() - start_s);
    vex_samples_add(&entry->rates, rate);
    if (isfinite(compared)) {
        vex_samples_add(&entry->ratios, rate / compared);
    }
    return true;
}

static bool measure_scans(struct exact *exact, double *out_rate)
{
    const struct vex_vectors *queries = &exact->queries;
    double start_s = vex_bench_thread_seconds();
    for (size_t i = 0; i < SCANS; i++) {
        if (vex_bench_stopped()) {
            return false;
        }
        const float *query = queries->values + i % queries->rows * queries->dim;
        vex_plain_scan_search(&exact->scan, query, exact->k, exact->found, exact->distances);
    }
    *out_rate = SCANS / (vex_bench_thread_seconds() - start_s);
    vex_samples_add(&exact->scan_rates, *out_rate);
    start_s = vex_bench_thread_seconds();
    for (size_t i = 0; i < SCANS; i++) {
        if (vex_bench_stopped() || !vex_memory_read(&exact->memory)) {
            return false;
        }
    }
    vex_samples_add(&exact->read_rates, SCANS / (vex_bench_thread_seconds() - start_s));
    return true;
}

static bool measure_library(struct exact *exact, double *out_rate)
{
    *out_rate = NAN;
    if (!exact->with_library) {
        return true;
    }
    double start_s = vex_bench_thread_seconds();
    if (!search_library(exact)) {
        return false;
    }
    *out_rate = (double)exact->queries.rows / (vex_bench_thread_seconds() - start_s);
    vex_samples_add(&exact->library_rates, *out_rate);
    return true;
}

static bool make_pass(struct exact *exact)
{
    double scan_rate = 0;
    double library_rate = 0;
    bool sound = measure_scans(exact, &scan_rate);
    for (size_t i = 0; i < exact->ours_count && sound; i++) {
        sound = measure_entry(exact, &exact->entries[i][SINGLY], 1, scan_rate);
    }
    if (!sound || !with_batches(exact)) {
        return sound;
    }
    sound = measure_library(exact, &library_rate);
    for (size_t i = 0; i < exact->ours_count && sound; i++) {
        sound = measure_entry(exact, &exact->entries[i][IN_BATCHES], exact->values[BATCH].count,
                              library_rate);
    }
    return sound;
}

/* ---- result lines ---------------------------------------------------------------------------- */

static void begin_line(const struct exact *exact, struct vex_line *line, const char *what)
{
    vex_line_begin(line, what);
    vex_line_text(line, "metric", vex_metric_name(exact->metric));
    vex_line_count(line, "rows", exact->base.rows);
    vex_line_count(line, "dim", exact->base.dim);
    vex_line_count(line, "queries", exact->queries.rows);
    vex_line_count(line, "k", exact->k);
}

static void put_verdict(struct vex_line *line, const struct vex_verdict *verdict)
{
    vex_line_count(line, "same", verdict->same);
    vex_line_count(line, "tied", verdict->tied);
    vex_line_count(line, "wrong", verdict->wrong);
}

static void put_ratio(struct vex_line *line, struct entry *entry)
{
    vex_line_real(line, "ratio", vex_samples_median(&entry->ratios));
    vex_line_real(line, "ratio_least", vex_samples_quantile(&entry->ratios, 0));
    vex_line_real(line, "ratio_greatest", vex_samples_quantile(&entry->ratios, 1));
}

static bool print_single(struct exact *exact, struct entry *entry)
{
    double bytes = (double)exact->base.rows * exact->base.dim * sizeof(float);
    double scan_rate = vex_samples_median(&exact->scan_rates);
    double read_rate = vex_samples_median(&exact->read_rates);
    struct vex_line line;
    begin_line(exact, &line, "single");
    vex_line_text(&line, "index", vex_index_name(entry->ours->info.index));
    put_verdict(&line, &entry->verdict);
    vex_line_spread(&line, "queries_s", &entry->rates);
    vex_line_real(&line, "p50_us", vex_samples_median(&entry->us));
    vex_line_real(&line, "p99_us", vex_samples_quantile(&entry->us, 0.99));
    vex_line_real(&line, "rows_visited", entry->visited);
    vex_line_text(&line, "loads", vex_memory_loads());
    vex_line_real(&line, "scan_queries_s", scan_rate);
    vex_line_real(&line, "scan_gb_s", scan_rate * bytes * 1e-9);
    put_ratio(&line, entry);
    vex_line_real(&line, "read_queries_s", read_rate);
    vex_line_real(&line, "read_gb_s", read_rate * bytes * 1e-9);
    vex_line_real(&line, "read_ratio", vex_samples_median(&entry->rates) / read_rate);
    vex_line_count(&line, "passes", entry->rates.count);
    return vex_line_end(&line);
}

static bool print_batch(struct exact *exact, struct entry *entry)
{
    struct vex_line line;
    begin_line(exact, &line, "batch");
    vex_line_text(&line, "index", vex_index_name(entry->ours->info.index));
    vex_line_count(&line, "batch", exact->values[BATCH].count);
    put_verdict(&line, &entry->verdict);
    vex_line_spread(&line, "queries_s", &entry->rates);
    vex_line_text(&line, "peer", exact->with_library ? exact->library.library->name : "none");
    vex_line_real(&line, "peer_queries_s", vex_samples_median(&exact->library_rates));
    put_ratio(&line, entry);
    vex_line_count(&line, "passes", entry->rates.count);
    return vex_line_end(&line);
}

static bool print_library(struct exact *exact)
{
    struct vex_line line;
    begin_line(exact, &line, "peer_batch");
    vex_line_text(&line, "peer", exact->library.library->name);
    vex_line_count(&line, "batch", exact->library.batch);
    put_verdict(&line, &exact->library_verdict);
    vex_line_spread(&line, "queries_s", &exact->library_rates);
    vex_line_count(&line, "passes", exact->library_rates.count);
    return vex_line_end(&line);
}

static bool print_all(struct exact *exact)
{
    bool printed = true;
    uint64_t wrong = 0;
    for (int way = 0; way < (with_batches(exact) ? WAYS : 1); way++) {
        for (size_t i = 0; i < exact->ours_count && printed; i++) {
            struct entry *entry = &exact->entries[i][way];
            wrong += entry->verdict.wrong;
            printed = way == SINGLY ? print_single(exact, entry) : print_batch(exact, entry);
        }
    }
    if (printed && exact->with_library) {
        printed = print_library(exact);
    }
    return printed && (wrong == 0 || vex_bench_fail("%llu of the answers are not brute force's",
                                                    (unsigned long long)wrong));
}

/* ---- the run --------------------------------------------------------------------------------- */

static bool read_data(struct exact *exact)
{
    const struct vex_bench_value *values = exact->values;
    if (!values[BASE].given || !values[QUERY].given) {
        return vex_bench_fail("give --base and --query, files that end in .fvecs or .bvecs");
    }
    size_t rows_max = values[LIMIT].given ? (size_t)values[LIMIT].count : INT32_MAX;
    size_t queries_max = values[QUERIES].given ? (size_t)values[QUERIES].count : INT32_MAX;
    if (!vex_vectors_read(&exact->base, "base", values[BASE].text, false, rows_max) ||
        !vex_vectors_read(&exact->queries, "query", values[QUERY].text, false, queries_max)) {
        return false;
    }
    if (exact->base.dim != exact->queries.dim) {
        return vex_bench_fail("--query %s: vectors of %u; those of the base have %u values",
                              values[QUERY].text, exact->queries.dim, exact->base.dim);
    }
    return exact->base.rows >= exact->k ||
           vex_bench_fail("--k: %u neighbours of %zu rows", exact->k, exact->base.rows);
}

static bool load_library(struct exact *exact)
{
    const struct vex_bench_value *peers = &exact->values[PEERS];
    for (size_t i = 0; i < peers->list_count; i++) {
        exact->with_library = exact->with_library || peers->list[i] > 0;
    }
    exact->with_library = exact->with_library && with_batches(exact);
    return !exact->with_library || vex_theirs_load(&exact->library, "faiss");
}

static bool build_ours(struct exact *exact)
{
    const struct vex_bench_value *chosen = &exact->values[INDEX];
    for (size_t i = 0; i < chosen->list_count; i++) {
        struct vex_collection_options how = VEX_COLLECTION_OPTIONS_INIT;
        how.dim = exact->base.dim;
        how.metric = exact->metric;
        how.index = indexes[chosen->list[i]];
        struct vex_ours *ours = &exact->ours[exact->ours_count];
        *ours = (struct vex_ours){
            .instance = &exact->instance, .queries = &exact->queries, .k = exact->k};
        for (int way = 0; way < WAYS; way++) {
            exact->entries[exact->ours_count][way].ours = ours;
        }
        exact->ours_count++;
        vex_bench_note("building the collection of %s", names[chosen->list[i]]);
        if (!vex_ours_build(ours, names[chosen->list[i]], &how, &exact->base)) {
            return false;
        }
    }
    return true;
}

static bool build_library(struct exact *exact)
{
    struct vex_theirs *library = &exact->library;
    if (!exact->with_library) {
        return true;
    }
    library->queries = &exact->queries;
    library->k = exact->k;
    library->batch = exact->values[BATCH].count;
    library->shape =
        (struct index_peer_shape){.kind = INDEX_PEER_FLAT, .metric = (int)exact->metric};
    return vex_theirs_print(library) && vex_theirs_build(library, &exact->base);
}

static bool measure(struct exact *exact)
{
    (void)vex_core_take(0);
    bool sound = try_out(exact);
    uint64_t passes = exact->values[PASSES].count;
    for (uint64_t pass = 1; pass <= passes && sound; pass++) {
        vex_bench_note("pass %llu of %llu", (unsigned long long)pass, (unsigned long long)passes);
        sound = make_pass(exact);
    }
    vex_core_release();
    return sound;
}

static void end(struct exact *exact)
{
    for (size_t i = 0; i < INDEXES; i++) {
        vex_ours_close(&exact->ours[i]);
        for (int way = 0; way < WAYS; way++) {
            vex_samples_deinit(&exact->entries[i][way].rates);
            vex_samples_deinit(&exact->entries[i][way].us);
            vex_samples_deinit(&exact->entries[i][way].ratios);
        }
    }
    vex_theirs_close(&exact->library);
    vex_instance_close(&exact->instance);
    vex_answers_free(&exact->answers);
    vex_memory_close(&exact->memory);
    vex_plain_scan_close(&exact->scan);
    vex_samples_deinit(&exact->scan_rates);
    vex_samples_deinit(&exact->read_rates);
    vex_samples_deinit(&exact->library_rates);
    vex_vectors_free(&exact->base);
    vex_vectors_free(&exact->queries);
    free(exact->found);
    free(exact->distances);
    free(exact);
}

static bool run(const struct vex_bench_value *values)
{
    struct exact *exact = vex_bench_alloc(1, sizeof(*exact));
    exact->values = values;
    exact->k = (uint32_t)values[K].count;
    exact->metric = metrics[values[METRIC].count];
    bool sound = load_library(exact) && read_data(exact);
    if (sound) {
        size_t queries = exact->queries.rows;
        exact->found = vex_bench_alloc(queries * exact->k, sizeof(*exact->found));
        exact->distances = vex_bench_alloc(exact->k, sizeof(*exact->distances));
        vex_bench_note("finding the answers by brute force");
        sound =
            vex_answers_find(&exact->answers, &exact->base, &exact->queries, exact->metric,
                             exact->k, queries) &&
            vex_memory_open(&exact->memory, exact->base.rows * exact->base.dim * sizeof(float)) &&
            vex_plain_scan_open(&exact->scan, &exact->base, exact->metric) &&
            vex_instance_open(&exact->instance, &values[DIR]) && build_ours(exact) &&
            build_library(exact) && measure(exact) && print_all(exact);
    }
    end(exact);
    return sound;
}

const struct vex_bench vex_bench_exact = {
    "exact",
    "exact searches of vectors of your own, and whether they are right",
    options,
    run,
};
