/*
 * vexbench search: how many of the true neighbours a search finds, and how fast, on data of the
 * user's own.
 *
 * The base goes into an instance through libvex, and its index is built; then one thread on one core
 * searches as a program does, one query a call or many, with one effort after the other. What somebody
 * else runs at the same time costs us a pass now and then, so all is measured several times and the
 * median counts; time is the thread's own processor time, which leaves out that it had to wait.
 *
 * A rate means nothing without its recall, and no effort of ours means what the same number means
 * elsewhere. So peers, libraries that search the same vectors in this process's memory or our own graph,
 * take turns with us in every pass with efforts of their own, and are compared at equal recall.
 */
#include <math.h>
#include <stdlib.h>

#include <vex/vex.h>

#include "tests/bench/answers.h"
#include "tests/bench/bench.h"
#include "tests/bench/common.h"
#include "tests/bench/contest.h"
#include "tests/bench/instance.h"
#include "tests/bench/recall.h"
#include "tests/bench/sides.h"
#include "tests/bench/vectors.h"

#define TRUTH_CHECKS 16u
#define K_MAX 1000

enum {
    BASE,
    QUERY,
    TRUTH,
    METRIC,
    INDEX,
    EFFORT,
    RECALL,
    BATCH,
    PEERS,
    PEER_EFFORT,
    M,
    EF_CONSTRUCTION,
    LISTS,
    STORAGE,
    K,
    LIMIT,
    PASSES,
    ISA,
    DIR
};

static const struct vex_bench_option options[] = {
    [BASE] = {"base", VEX_BENCH_TEXT, "FILE", NULL, 0, 0, "vectors, .fvecs or .bvecs; needed"},
    [QUERY] = {"query", VEX_BENCH_TEXT, "FILE", NULL, 0, 0, "queries, as the base; needed"},
    [TRUTH] = {"truth", VEX_BENCH_TEXT, "FILE", NULL, 0, 0,
               "true neighbours, .ivecs; default: found by brute force"},
    [METRIC] = {"metric", VEX_BENCH_WORD, "l2|cosine|dot", "l2", 0, 0, "distance"},
    [INDEX] = {"index", VEX_BENCH_WORD, "flat|hnsw|ivf", "hnsw", 0, 0, "how it is searched"},
    [EFFORT] = {"effort", VEX_BENCH_LIST, "N", NULL, 1, VEX_EF_SEARCH_MAX,
                "ef_search of hnsw, nprobe of ivf, rising; default: 10,20,... or 1,2,..."},
    [RECALL] = {"recall", VEX_BENCH_SHARE, "R", NULL, 0.01, 0.9999,
                "ask for this recall instead of an effort"},
    [BATCH] = {"batch", VEX_BENCH_COUNT, "N", "1", 1, VEX_QUERIES_MAX, "queries of one call"},
    [PEERS] = {"peers", VEX_BENCH_WORDS, "none|hnswlib|faiss|graph", "none", 0, 0,
               "compare with libraries, or our own graph"},
    [PEER_EFFORT] = {"peer-effort", VEX_BENCH_LIST, "N", NULL, 1, VEX_EF_SEARCH_MAX,
                     "ef_search of peers; default: as --effort of hnsw"},
    [M] = {"m", VEX_BENCH_COUNT, "N", "16", VEX_HNSW_M_MIN, VEX_HNSW_M_MAX,
           "links of the graph, of peers too"},
    [EF_CONSTRUCTION] = {"ef-construction", VEX_BENCH_COUNT, "N", "200",
                         VEX_HNSW_EF_CONSTRUCTION_MIN, VEX_HNSW_EF_CONSTRUCTION_MAX,
                         "candidates while building, of peers too"},
    [LISTS] = {"lists", VEX_BENCH_COUNT, "N", "0", 0, VEX_LISTS_MAX,
               "lists of ivf, of peers too; 0: by the number of rows"},
    [STORAGE] = {"storage", VEX_BENCH_WORD, "float32|float16|int8", "float32", 0, 0,
                 "what is kept of a vector"},
    [K] = {"k", VEX_BENCH_COUNT, "N", "10", 1, K_MAX, "neighbours wanted"},
    [LIMIT] = {"limit", VEX_BENCH_COUNT, "N", NULL, 1, 1e9, "only the first rows of the base"},
    [PASSES] = {"passes", VEX_BENCH_COUNT, "N", "3", 3, 1e6, "times that all is measured"},
    [ISA] = VEX_BENCH_OPTION_ISA,
    [DIR] = VEX_BENCH_OPTION_DIR,
    {0},
};

static const enum vex_metric metrics[] = {VEX_METRIC_L2, VEX_METRIC_COSINE, VEX_METRIC_DOT};
static const enum vex_index_kind indexes[] = {VEX_INDEX_FLAT, VEX_INDEX_HNSW, VEX_INDEX_IVF};
static const enum vex_storage storages[] = {VEX_STORAGE_FLOAT32, VEX_STORAGE_FLOAT16,
                                            VEX_STORAGE_INT8};
static const size_t storage_bytes[] = {sizeof(float), 2, 1};

static const struct vex_bench_value no_effort = {.text = "0", .list_count = 1};
static const struct vex_bench_value graph_efforts = {
    .text = "10,20,40,80,160,320", .list = {10, 20, 40, 80, 160, 320}, .list_count = 6};
static const struct vex_bench_value lists_efforts = {
    .text = "1,2,4,8,16,32,64,128", .list = {1, 2, 4, 8, 16, 32, 64, 128}, .list_count = 8};

enum { PEER_NONE, PEER_HNSWLIB, PEER_FAISS, PEER_GRAPH, PEER_KINDS };
#define LIBRARIES 2u

struct search {
    const struct vex_bench_value *values;
    struct vex_vectors base;
    struct vex_vectors queries;
    struct vex_truth truth;
    struct vex_instance instance;
    struct vex_ours ours;
    struct vex_ours graph;                  /* PEER_GRAPH */
    struct vex_theirs libraries[LIBRARIES]; /* PEER_HNSWLIB, PEER_FAISS */
    bool with[PEER_KINDS];
    uint64_t *found; /* queries x k */
    uint32_t k;
    struct vex_contest contest;
};

static enum vex_index_kind index_of(const struct search *search)
{
    return indexes[search->values[INDEX].count];
}

/* ---- result lines ---------------------------------------------------------------------------- */

static bool print_build(const struct search *search, const char *by, enum vex_index_kind index,
                        size_t storage, const struct vex_build *build)
{
    double vector_bytes = (double)search->base.dim * (double)storage_bytes[storage];
    double memory_bytes = (double)build->bytes / (double)search->base.rows;
    struct vex_line line;
    vex_contest_line(&search->truth, &line, "build");
    vex_line_text(&line, "by", by);
    vex_line_text(&line, "index", vex_index_name(index));
    vex_line_text(&line, "storage", vex_storage_name(storages[storage]));
    vex_line_count(&line, "m", search->values[M].count);
    vex_line_count(&line, "ef_construction", search->values[EF_CONSTRUCTION].count);
    vex_line_count(&line, "lists", search->values[LISTS].count);
    vex_line_real(&line, "import_s", build->import_s);
    vex_line_real(&line, "build_s", build->build_s);
    vex_line_real(&line, "cpu_s", build->cpu_s);
    vex_line_real(&line, "vector_bytes", vector_bytes);
    vex_line_real(&line, "memory_bytes", memory_bytes);
    vex_line_real(&line, "beside_bytes", memory_bytes - vector_bytes);
    vex_line_count(&line, "segments", build->segments);
    return vex_line_end(&line);
}

static bool print_build_ratio(const struct search *search, const char *peer,
                              const struct vex_build *theirs)
{
    double ours_s = search->ours.build.cpu_s;
    struct vex_line line;
    vex_contest_line(&search->truth, &line, "build_ratio");
    vex_line_text(&line, "index", vex_index_name(index_of(search)));
    vex_line_text(&line, "peer", peer);
    vex_line_real(&line, "vexdb_cpu_s", ours_s);
    vex_line_real(&line, "peer_cpu_s", theirs->cpu_s);
    vex_line_real(&line, "ratio", ours_s / theirs->cpu_s);
    return vex_line_end(&line);
}

/* ---- building -------------------------------------------------------------------------------- */

static struct vex_collection_options options_of(const struct search *search,
                                                enum vex_index_kind index)
{
    const struct vex_bench_value *values = search->values;
    struct vex_collection_options how = VEX_COLLECTION_OPTIONS_INIT;
    how.dim = search->base.dim;
    how.metric = search->truth.metric;
    how.index = index;
    /* An index takes only parameters of its own. */
    if (index == VEX_INDEX_HNSW) {
        how.m = (uint32_t)values[M].count;
        how.ef_construction = (uint32_t)values[EF_CONSTRUCTION].count;
    }
    how.storage = storages[values[STORAGE].count];
    how.lists = index == VEX_INDEX_IVF ? (uint32_t)values[LISTS].count : 0;
    return how;
}

static bool build_ours(struct search *search)
{
    size_t storage = search->values[STORAGE].count;
    struct vex_collection_options how = options_of(search, index_of(search));
    if (!vex_ours_build(&search->ours, "search", &how, &search->base) ||
        !print_build(search, "vexdb", how.index, storage, &search->ours.build)) {
        return false;
    }
    if (!search->with[PEER_GRAPH]) {
        return true;
    }
    how = options_of(search, VEX_INDEX_HNSW);
    return vex_ours_build(&search->graph, "graph", &how, &search->base) &&
           print_build(search, "graph", how.index, storage, &search->graph.build) &&
           print_build_ratio(search, "graph", &search->graph.build);
}

static bool build_theirs(struct search *search)
{
    for (size_t i = 0; i < LIBRARIES; i++) {
        struct vex_theirs *theirs = &search->libraries[i];
        if (!theirs->library) {
            continue;
        }
        enum vex_index_kind index = (enum vex_index_kind)theirs->shape.kind;
        const char *name = theirs->library->name;
        if (!vex_theirs_print(theirs) || !vex_theirs_build(theirs, &search->base) ||
            !print_build(search, name, index, 0, &theirs->build) ||
            !print_build_ratio(search, name, &theirs->build)) {
            return false;
        }
    }
    return true;
}

/* ---- the truth ------------------------------------------------------------------------------- */

static bool find_truth(struct search *search, size_t queries, struct vex_answers *answers)
{
    return vex_answers_find(answers, &search->base, &search->queries, search->truth.metric,
                            search->k, queries);
}

static bool compute_truth(struct search *search)
{
    struct vex_answers answers;
    vex_bench_note("finding the true neighbours");
    bool sound = find_truth(search, search->queries.rows, &answers);
    for (size_t i = 0; i < search->queries.rows && sound; i++) {
        vex_truth_set(&search->truth, i, answers.rows + i * search->k);
    }
    vex_answers_free(&answers);
    return sound;
}

/* A truth of another base or metric would only look like a bad recall. */
static bool check_truth(struct search *search)
{
    struct vex_answers answers;
    size_t count = search->queries.rows < TRUTH_CHECKS ? search->queries.rows : TRUTH_CHECKS;
    bool sound = find_truth(search, count, &answers);
    for (size_t i = 0; i < count && sound; i++) {
        double given = search->truth.limits[i];
        vex_truth_set(&search->truth, i, answers.rows + i * search->k);
        double exact = search->truth.limits[i];
        search->truth.limits[i] = given;
        if (fabs(given - exact) >
            1e-6 * fabs(exact) + 1e-6 * (search->truth.metric != VEX_METRIC_L2)) {
            sound = vex_bench_fail("--truth %s: query %zu: its %u-th neighbour is at %g, brute "
                                   "force finds %g; is it of this base and metric, and of --limit?",
                                   search->values[TRUTH].text, i, search->k, given, exact);
        }
    }
    vex_answers_free(&answers);
    return sound;
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

/* ---- who takes part -------------------------------------------------------------------------- */

static const struct vex_bench_value *our_efforts(const struct search *search)
{
    const struct vex_bench_value *values = search->values;
    if (index_of(search) == VEX_INDEX_FLAT || values[RECALL].given) {
        return &no_effort;
    }
    if (values[EFFORT].given) {
        return &values[EFFORT];
    }
    return index_of(search) == VEX_INDEX_IVF ? &lists_efforts : &graph_efforts;
}

static const struct vex_bench_value *peer_efforts(const struct search *search,
                                                  enum vex_index_kind index)
{
    const struct vex_bench_value *values = search->values;
    if (index == VEX_INDEX_FLAT) {
        return &no_effort;
    }
    if (index == VEX_INDEX_IVF) {
        return values[EFFORT].given ? &values[EFFORT] : &lists_efforts;
    }
    if (values[PEER_EFFORT].given) {
        return &values[PEER_EFFORT];
    }
    return values[EFFORT].given && index_of(search) == VEX_INDEX_HNSW ? &values[EFFORT]
                                                                      : &graph_efforts;
}

/* hnswlib always walks a graph, and faiss has each kind of index. */
static bool add_library(struct search *search, int peer, const char *name)
{
    const struct vex_bench_value *values = search->values;
    struct vex_theirs *theirs = &search->libraries[peer - PEER_HNSWLIB];
    if (!search->with[peer]) {
        return true;
    }
    if (!vex_theirs_load(theirs, name)) {
        return false;
    }
    enum vex_index_kind index = index_of(search);
    if (!theirs->library->can((enum index_peer_kind)index)) {
        index = VEX_INDEX_HNSW;
    }
    theirs->queries = &search->queries;
    theirs->k = search->k;
    theirs->batch = theirs->library->takes_batches ? values[BATCH].count : 1;
    theirs->shape = (struct index_peer_shape){
        .kind = (enum index_peer_kind)index,
        .metric = (int)search->truth.metric,
        .m = (uint32_t)values[M].count,
        .ef_construction = (uint32_t)values[EF_CONSTRUCTION].count,
        .lists = (uint32_t)values[LISTS].count,
    };
    struct vex_contest_side side = {name, vex_theirs_search_all, theirs, .batch = theirs->batch,
                                    .asked_recall = NAN};
    return vex_contest_add(&search->contest, &side, peer_efforts(search, index));
}

static struct vex_ours ours_of(struct search *search, size_t batch)
{
    return (struct vex_ours){
        .instance = &search->instance,
        .queries = &search->queries,
        .k = search->k,
        .batch = batch,
        .how = VEX_SEARCH_OPTIONS_INIT,
    };
}

static bool add_sides(struct search *search)
{
    const struct vex_bench_value *values = search->values;
    for (size_t i = 0; i < values[PEERS].list_count; i++) {
        search->with[values[PEERS].list[i]] = true;
    }
    search->ours = ours_of(search, values[BATCH].count);
    search->ours.how.recall = (float)values[RECALL].share;
    struct vex_contest_side side = {
        "vexdb", vex_ours_search_all, &search->ours, .batch = values[BATCH].count,
        .asked_recall = values[RECALL].given ? values[RECALL].share : NAN};
    if (!vex_contest_add(&search->contest, &side, our_efforts(search)) ||
        !add_library(search, PEER_HNSWLIB, "hnswlib") ||
        !add_library(search, PEER_FAISS, "faiss")) {
        return false;
    }
    /* It is there to compare an index and its batches with what a program would do otherwise. */
    search->graph = ours_of(search, 1);
    side = (struct vex_contest_side){"graph", vex_ours_search_all, &search->graph, .batch = 1,
                                     .asked_recall = NAN};
    return !search->with[PEER_GRAPH] ||
           vex_contest_add(&search->contest, &side, peer_efforts(search, VEX_INDEX_HNSW));
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

static void make_room(struct search *search)
{
    search->truth.base = &search->base;
    search->truth.queries = &search->queries;
    search->truth.limits = vex_bench_alloc(search->queries.rows, sizeof(double));
    search->found = vex_bench_alloc(search->queries.rows * search->k, sizeof(*search->found));
    search->contest.truth = &search->truth;
    search->contest.found = search->found;
}

static void end(struct search *search)
{
    vex_contest_deinit(&search->contest);
    for (size_t i = 0; i < LIBRARIES; i++) {
        vex_theirs_close(&search->libraries[i]);
    }
    vex_ours_close(&search->ours);
    vex_ours_close(&search->graph);
    vex_instance_close(&search->instance);
    vex_vectors_free(&search->base);
    vex_vectors_free(&search->queries);
    free(search->truth.limits);
    free(search->found);
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
        sound = learn_truth(search) && vex_instance_open(&search->instance, &values[DIR]) &&
                build_ours(search) && build_theirs(search) &&
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
