/*
 * vexbench search: how many of the true neighbours a search finds, and how fast, on data of the
 * user's own.
 *
 * The base goes into an instance through libvex, and its graph is built; then one thread on one core
 * searches as a program does, one query a call, with one effort after the other. What somebody else
 * runs at the same time costs us a pass now and then, so all is measured several times and the
 * median counts; time is the thread's own processor time, which leaves out that it had to wait.
 *
 * A rate means nothing without its recall, and no effort of ours means what the same number means
 * elsewhere. So a peer, a library that searches the same vectors in this process's memory, takes
 * turns with us in every pass with efforts of its own, and the two are compared at equal recall.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vex/vex.h>

#include "tests/bench/bench.h"
#include "tests/bench/common.h"
#include "tests/bench/contest.h"
#include "tests/bench/index_peer.h"
#include "tests/bench/instance.h"
#include "tests/bench/recall.h"
#include "tests/bench/vectors.h"

#define COLLECTION "search"
#define BATCH_BYTES (4u << 20)
#define EXACT_QUERIES 64u /* of one call */
#define TRUTH_CHECKS 16u
#define K_MAX 1000

enum {
    BASE,
    QUERY,
    TRUTH,
    METRIC,
    INDEX,
    EFFORT,
    PEERS,
    PEER_EFFORT,
    M,
    EF_CONSTRUCTION,
    K,
    LIMIT,
    PASSES,
    DIR
};

static const struct vex_bench_option options[] = {
    [BASE] = {"base", VEX_BENCH_TEXT, "FILE", NULL, 0, 0, "vectors, .fvecs or .bvecs; needed"},
    [QUERY] = {"query", VEX_BENCH_TEXT, "FILE", NULL, 0, 0, "queries, as the base; needed"},
    [TRUTH] = {"truth", VEX_BENCH_TEXT, "FILE", NULL, 0, 0,
               "true neighbours, .ivecs; default: found by exact searches"},
    [METRIC] = {"metric", VEX_BENCH_WORD, "l2|cosine|dot", "l2", 0, 0, "distance"},
    [INDEX] = {"index", VEX_BENCH_WORD, "flat|hnsw", "hnsw", 0, 0, "how it is searched"},
    [EFFORT] = {"effort", VEX_BENCH_LIST, "N", "10,20,40,80,160,320", 1, VEX_EF_SEARCH_MAX,
                "candidates that a search keeps (ef_search), rising"},
    [PEERS] = {"peers", VEX_BENCH_WORD, "none|hnswlib", "none", 0, 0, "compare with a library"},
    [PEER_EFFORT] = {"peer-effort", VEX_BENCH_LIST, "N", NULL, 1, VEX_EF_SEARCH_MAX,
                     "the same of the peer; default: as --effort"},
    [M] = {"m", VEX_BENCH_COUNT, "N", "16", VEX_HNSW_M_MIN, VEX_HNSW_M_MAX,
           "links of the graph, the peer's too"},
    [EF_CONSTRUCTION] = {"ef-construction", VEX_BENCH_COUNT, "N", "200",
                         VEX_HNSW_EF_CONSTRUCTION_MIN, VEX_HNSW_EF_CONSTRUCTION_MAX,
                         "candidates while building, the peer's too"},
    [K] = {"k", VEX_BENCH_COUNT, "N", "10", 1, K_MAX, "neighbours wanted"},
    [LIMIT] = {"limit", VEX_BENCH_COUNT, "N", NULL, 1, 1e9, "only the first rows of the base"},
    [PASSES] = {"passes", VEX_BENCH_COUNT, "N", "3", 3, 1e6, "times that all is measured"},
    [DIR] = VEX_BENCH_OPTION_DIR,
    {0},
};

static const enum vex_metric metrics[] = {VEX_METRIC_L2, VEX_METRIC_COSINE, VEX_METRIC_DOT};
static const enum vex_index_kind indexes[] = {VEX_INDEX_FLAT, VEX_INDEX_HNSW};

struct search {
    const struct vex_bench_value *values;
    struct vex_vectors base;
    struct vex_vectors queries;
    struct vex_truth truth;
    struct vex_instance instance;
    struct vex_collection *collection;
    struct vex_collection_info info;
    struct index_peer *peer; /* NULL = none */
    uint64_t *found;         /* queries x k */
    float *distances;        /* EXACT_QUERIES x k */
    uint32_t k;
    struct vex_contest contest;
};

static double seconds_since(uint64_t start_ns)
{
    return (double)(vex_bench_clock_ns() - start_ns) * 1e-9;
}

/* ---- result lines ---------------------------------------------------------------------------- */

struct build {
    const char *by;
    double import_s; /* of the calls that handed the vectors over */
    double build_s;  /* from then on until the graph is there */
    double cpu_s;    /* of all that */
    uint64_t bytes;
    uint64_t segments;
};

static bool print_build(const struct search *search, const struct build *build)
{
    struct vex_line line;
    vex_contest_line(&search->truth, &line, "build");
    vex_line_text(&line, "by", build->by);
    vex_line_count(&line, "m", search->values[M].count);
    vex_line_count(&line, "ef_construction", search->values[EF_CONSTRUCTION].count);
    vex_line_real(&line, "import_s", build->import_s);
    vex_line_real(&line, "build_s", build->build_s);
    vex_line_real(&line, "cpu_s", build->cpu_s);
    vex_line_real(&line, "vector_bytes", (double)search->base.dim * sizeof(float));
    vex_line_real(&line, "memory_bytes", (double)build->bytes / (double)search->base.rows);
    vex_line_count(&line, "segments", build->segments);
    return vex_line_end(&line);
}

/* ---- searching ------------------------------------------------------------------------------- */

/* `count` queries from `first` on in one call; what is not found is UINT64_MAX. */
static bool search_ours(struct search *search, size_t first, size_t count, uint64_t effort,
                        bool exact, struct vex_search_info *out_info)
{
    uint32_t counts[EXACT_QUERIES];
    struct vex_results results = {
        .size = sizeof(results),
        .ids = search->found + first * search->k,
        .distances = search->distances,
        .counts = counts,
    };
    struct vex_search_options how = VEX_SEARCH_OPTIONS_INIT;
    how.k = search->k;
    how.exact = exact;
    how.ef_search = (uint32_t)effort;
    *out_info = (struct vex_search_info){.size = sizeof(*out_info)};
    uint32_t dim = search->base.dim;
    struct vex_error error;
    return vex_search(search->collection, search->queries.values + first * dim, count, dim, &how,
                      &results, out_info, &error) == VEX_OK ||
           vex_bench_fail("search: %s", error.message);
}

static bool search_all_ours(void *context, struct vex_contest_point *point, bool counting)
{
    struct search *search = context;
    uint64_t visited = 0;
    struct vex_search_info info = {.mode = "none"};
    for (size_t i = 0; i < search->queries.rows; i++) {
        if (!search_ours(search, i, 1, point->effort, false, &info)) {
            return false;
        }
        visited += info.rows_visited;
    }
    if (counting) {
        point->mode = info.mode;
        point->visited = (double)visited / (double)search->queries.rows;
    }
    return true;
}

static bool search_all_peers(void *context, struct vex_contest_point *point, bool counting)
{
    struct search *search = context;
    if (counting) {
        index_peer_count(search->peer, true);
    }
    for (size_t i = 0; i < search->queries.rows; i++) {
        index_peer_search(search->peer, search->queries.values + i * search->queries.dim, search->k,
                          (uint32_t)point->effort, search->found + i * search->k);
    }
    if (counting) {
        point->mode = "hnsw";
        point->visited = (double)index_peer_counted() / (double)search->queries.rows;
        index_peer_count(search->peer, false);
    }
    return true;
}

/* ---- building -------------------------------------------------------------------------------- */

static bool make_collection(struct search *search)
{
    struct vex_collection_options how = VEX_COLLECTION_OPTIONS_INIT;
    how.dim = search->base.dim;
    how.metric = search->truth.metric;
    how.index = indexes[search->values[INDEX].count];
    how.m = (uint32_t)search->values[M].count;
    how.ef_construction = (uint32_t)search->values[EF_CONSTRUCTION].count;
    struct vex_db *db = search->instance.db;
    struct vex_error error;
    return (vex_collection_create(db, COLLECTION, &how, &error) == VEX_OK &&
            vex_collection_open(db, COLLECTION, &search->collection, &error) == VEX_OK) ||
           vex_bench_fail("collection %s: %s", COLLECTION, error.message);
}

static bool import(struct search *search)
{
    uint32_t dim = search->base.dim;
    size_t batch_rows = BATCH_BYTES / (dim * sizeof(float) + sizeof(uint64_t)) + 1;
    uint64_t *ids = vex_bench_alloc(batch_rows, sizeof(*ids));
    bool sound = true;
    for (size_t row = 0; row < search->base.rows && sound; row += batch_rows) {
        size_t left = search->base.rows - row;
        struct vex_batch batch = VEX_BATCH_INIT;
        batch.count = left < batch_rows ? left : batch_rows;
        batch.ids = ids;
        batch.vectors = search->base.values + row * dim;
        batch.dim = dim;
        for (size_t i = 0; i < batch.count; i++) {
            ids[i] = row + i;
        }
        struct vex_error error;
        sound = vex_write(search->collection, VEX_WRITE_INSERT, &batch, NULL, &error) == VEX_OK ||
                vex_bench_fail("import of the rows from %zu on: %s", row, error.message);
        sound = sound && !vex_bench_stopped();
    }
    free(ids);
    return sound;
}

/* Returns when there is one segment, with its graph if it is to have one. */
static bool build_ours(struct search *search)
{
    struct build build = {.by = "vexdb"};
    double start_s = vex_instance_daemon_seconds(&search->instance);
    uint64_t start_ns = vex_bench_clock_ns();
    if (!import(search)) {
        return false;
    }
    build.import_s = seconds_since(start_ns);
    start_ns = vex_bench_clock_ns();
    struct vex_error error;
    if (vex_compact(search->instance.db, COLLECTION, NULL, NULL, &error) != VEX_OK) {
        return vex_bench_fail("compact: %s", error.message);
    }
    build.build_s = seconds_since(start_ns);
    build.cpu_s = vex_instance_daemon_seconds(&search->instance) - start_s;
    vex_instance_settle(&search->instance);
    search->info = (struct vex_collection_info){.size = sizeof(search->info)};
    if (vex_collection_describe(search->collection, &search->info, &error) != VEX_OK) {
        return vex_bench_fail("describe: %s", error.message);
    }
    build.bytes = search->info.shm_bytes;
    build.segments = search->info.segments;
    return !vex_bench_stopped() && print_build(search, &build);
}

static bool build_peers(struct search *search)
{
    vex_bench_note("building the graph of %s", index_peer_name());
    uint64_t start_ns = vex_bench_clock_ns();
    double start_s = vex_bench_thread_seconds();
    search->peer = index_peer_open((uint32_t)search->base.rows, search->base.dim,
                                   (int)search->truth.metric, (uint32_t)search->values[M].count,
                                   (uint32_t)search->values[EF_CONSTRUCTION].count);
    if (!search->peer) {
        return vex_bench_fail("out of memory");
    }
    for (size_t i = 0; i < search->base.rows; i++) {
        if (vex_bench_stopped()) {
            return false;
        }
        if (!index_peer_add(search->peer, (uint32_t)i,
                            search->base.values + i * search->base.dim)) {
            return vex_bench_fail("%s does not take row %zu", index_peer_name(), i);
        }
    }
    struct build build = {
        .by = index_peer_name(),
        .import_s = NAN,
        .build_s = seconds_since(start_ns),
        .cpu_s = vex_bench_thread_seconds() - start_s,
        .bytes = index_peer_bytes(search->peer),
        .segments = 1,
    };
    return print_build(search, &build);
}

/* ---- the truth ------------------------------------------------------------------------------- */

/* Exact searches for the queries from `first` on, as many as one call does; 0 after saying why not. */
static size_t find_truth(struct search *search, size_t first)
{
    size_t left = search->queries.rows - first;
    size_t count = left < EXACT_QUERIES ? left : EXACT_QUERIES;
    struct vex_search_info info;
    if (vex_bench_stopped() || !search_ours(search, first, count, 0, true, &info)) {
        return 0;
    }
    if (info.count != count * search->k) {
        (void)vex_bench_fail("exact searches found %llu of %zu rows",
                             (unsigned long long)info.count, count * search->k);
        return 0;
    }
    return count;
}

static bool compute_truth(struct search *search)
{
    vex_bench_note("finding the true neighbours");
    for (size_t first = 0, count = 0; first < search->queries.rows; first += count) {
        count = find_truth(search, first);
        if (count == 0) {
            return false;
        }
        for (size_t i = first; i < first + count; i++) {
            vex_truth_set(&search->truth, i, search->found + i * search->k);
        }
    }
    return true;
}

/* A truth of another base or metric would only look like a bad recall. */
static bool check_truth(struct search *search)
{
    size_t count = find_truth(search, 0);
    for (size_t i = 0; i < count && i < TRUTH_CHECKS; i++) {
        double given = search->truth.limits[i];
        vex_truth_set(&search->truth, i, search->found + i * search->k);
        double exact = search->truth.limits[i];
        search->truth.limits[i] = given;
        if (fabs(given - exact) >
            1e-6 * fabs(exact) + 1e-6 * (search->info.metric != VEX_METRIC_L2)) {
            return vex_bench_fail("--truth %s: query %zu: its %u-th neighbour is at %g, an exact "
                                  "search finds %g; is it of this base and metric, and of --limit?",
                                  search->values[TRUTH].text, i, search->k, given, exact);
        }
    }
    return count > 0;
}

static bool take_truth(struct search *search, const struct vex_vectors *truth)
{
    const char *path = search->values[TRUTH].text;
    if (truth->rows < search->queries.rows || truth->dim < search->k) {
        return vex_bench_fail("--truth %s: has %zu rows of %u; there are %zu queries, and k is %u",
                              path, truth->rows, truth->dim, search->queries.rows, search->k);
    }
    uint64_t rows[K_MAX];
    for (size_t i = 0; i < search->queries.rows; i++) {
        for (uint32_t j = 0; j < search->k; j++) {
            int32_t row = truth->integers[i * truth->dim + j];
            if (row < 0 || (size_t)row >= search->base.rows) {
                return vex_bench_fail("--truth %s: query %zu: row %d is not among the %zu of the "
                                      "base; without --truth it is computed",
                                      path, i, row, search->base.rows);
            }
            rows[j] = (uint64_t)row;
        }
        vex_truth_set(&search->truth, i, rows);
    }
    return check_truth(search);
}

static bool learn_truth(struct search *search)
{
    if (!search->values[TRUTH].given) {
        return compute_truth(search);
    }
    struct vex_vectors truth;
    bool sound = vex_vectors_read(&truth, "truth", search->values[TRUTH].text, true, SIZE_MAX) &&
                 take_truth(search, &truth);
    vex_vectors_free(&truth);
    return sound;
}

/* ---- the run --------------------------------------------------------------------------------- */

static bool read_data(struct search *search)
{
    const struct vex_bench_value *values = search->values;
    if (!values[BASE].given || !values[QUERY].given) {
        return vex_bench_fail("give --base and --query, files that end in .fvecs or .bvecs");
    }
    size_t rows_max = values[LIMIT].given ? (size_t)values[LIMIT].count : INT32_MAX;
    if (!vex_vectors_read(&search->base, "base", values[BASE].text, false, rows_max) ||
        !vex_vectors_read(&search->queries, "query", values[QUERY].text, false, INT32_MAX)) {
        return false;
    }
    if (search->base.dim != search->queries.dim) {
        return vex_bench_fail("--query %s: vectors of %u; those of the base have %u values",
                              values[QUERY].text, search->queries.dim, search->base.dim);
    }
    return search->base.rows >= search->k ||
           vex_bench_fail("--k: %u neighbours of %zu rows", search->k, search->base.rows);
}

static bool add_sides(struct search *search)
{
    static const struct vex_bench_value no_effort = {.text = "0", .list_count = 1};
    const struct vex_bench_value *values = search->values;
    bool is_flat = indexes[values[INDEX].count] == VEX_INDEX_FLAT;
    if (!vex_contest_add(&search->contest, "vexdb", search_all_ours,
                         is_flat ? &no_effort : &values[EFFORT])) {
        return false;
    }
    if (!values[PEERS].count) {
        return true;
    }
    if (strcmp(index_peer_name(), "none") == 0) {
        return vex_bench_fail("--peers hnswlib: this program was built without hnswlib; install it "
                              "('scripts/install-deps --peers'), configure again and build");
    }
    return vex_contest_add(&search->contest, index_peer_name(), search_all_peers,
                           &values[values[PEER_EFFORT].given ? PEER_EFFORT : EFFORT]);
}

static void make_room(struct search *search)
{
    search->truth.base = &search->base;
    search->truth.queries = &search->queries;
    search->truth.limits = vex_bench_alloc(search->queries.rows, sizeof(double));
    search->found = vex_bench_alloc(search->queries.rows * search->k, sizeof(*search->found));
    search->contest.truth = &search->truth;
    search->contest.found = search->found;
    search->contest.context = search;
    search->distances =
        vex_bench_alloc((size_t)EXACT_QUERIES * search->k, sizeof(*search->distances));
}

static void end(struct search *search)
{
    vex_contest_deinit(&search->contest);
    index_peer_free(search->peer);
    vex_collection_close(search->collection);
    vex_instance_close(&search->instance);
    vex_vectors_free(&search->base);
    vex_vectors_free(&search->queries);
    free(search->truth.limits);
    free(search->found);
    free(search->distances);
    free(search);
}

static bool run(const struct vex_bench_value *values)
{
    struct search *search = vex_bench_alloc(1, sizeof(*search));
    search->values = values;
    search->k = (uint32_t)values[K].count;
    search->truth.k = search->k;
    search->truth.metric = metrics[values[METRIC].count];
    bool sound = add_sides(search) && read_data(search);
    if (sound) {
        make_room(search);
        sound = vex_instance_open(&search->instance, &values[DIR]) && make_collection(search) &&
                build_ours(search) && learn_truth(search) &&
                (!values[PEERS].count || build_peers(search)) &&
                vex_contest_run(&search->contest, values[PASSES].count) &&
                vex_contest_print(&search->contest);
    }
    end(search);
    return sound;
}

const struct vex_bench vex_bench_search = {
    "search",
    "recall and rate of searches in vectors of your own",
    options,
    run,
};
