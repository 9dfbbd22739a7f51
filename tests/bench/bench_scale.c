/*
 * vexbench scale: what a search costs as the collection grows, at equal recall.
 *
 * The same effort finds less in a larger collection, so the cost of an effort would flatter whatever
 * grows badly. What is compared from one size to the next is the time of a query at a recall of 0.95 and
 * of 0.99, each interpolated between two efforts; beside it stands what building cost for each row. A
 * library that searches the same rows takes turns with us in every pass.
 *
 * The rows are made up (latent.h), so that any size can be had; a smaller one is the beginning of a larger.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <vex/vex.h>

#include "tests/bench/answers.h"
#include "tests/bench/bench.h"
#include "tests/bench/common.h"
#include "tests/bench/contest.h"
#include "tests/bench/instance.h"
#include "tests/bench/latent.h"
#include "tests/bench/recall.h"
#include "tests/bench/sides.h"
#include "tests/bench/vectors.h"

#define COLLECTION "scale"
#define K 10u
#define LIBRARIES 2u

enum {
    ROWS,
    DIM,
    LATENT,
    SEED,
    METRIC,
    INDEX,
    EFFORT,
    QUERIES,
    PEERS,
    PEER_EFFORT,
    M,
    EF_CONSTRUCTION,
    PASSES,
    ISA,
    DIR
};

static const struct vex_bench_option options[] = {
    [ROWS] = {"rows", VEX_BENCH_LIST, "N", "10000,100000,1000000", K, INT32_MAX,
              "sizes, rising, one after the other"},
    [DIM] = {"dim", VEX_BENCH_COUNT, "D", "128", 1, VEX_DIM_MAX, "values of a vector"},
    [LATENT] = {"latent", VEX_BENCH_COUNT, "D", "16", 1, VEX_LATENT_MAX,
                "dimensions that they depend on"},
    [SEED] = {"seed", VEX_BENCH_COUNT, "N", "1", 0, 1e15, "what decides about the vectors"},
    [METRIC] = {"metric", VEX_BENCH_WORD, "l2|cosine|dot", "l2", 0, 0, "distance"},
    [INDEX] = {"index", VEX_BENCH_WORD, "hnsw|ivf", "hnsw", 0, 0, "how it is searched"},
    [EFFORT] = {"effort", VEX_BENCH_LIST, "N", NULL, 1, VEX_EF_SEARCH_MAX,
                "ef_search of hnsw, nprobe of ivf, rising; default: 10,20,... or 1,2,..."},
    [QUERIES] = {"queries", VEX_BENCH_COUNT, "N", "1000", 1, 1e6, "queries of a pass"},
    [PEERS] = {"peers", VEX_BENCH_WORDS, "none|hnswlib|faiss", "none", 0, 0,
               "compare with libraries"},
    [PEER_EFFORT] = {"peer-effort", VEX_BENCH_LIST, "N", NULL, 1, VEX_EF_SEARCH_MAX,
                     "ef_search of peers; default: as --effort of hnsw"},
    [M] = {"m", VEX_BENCH_COUNT, "N", "16", VEX_HNSW_M_MIN, VEX_HNSW_M_MAX,
           "links of the graph, of peers too"},
    [EF_CONSTRUCTION] = {"ef-construction", VEX_BENCH_COUNT, "N", "200",
                         VEX_HNSW_EF_CONSTRUCTION_MIN, VEX_HNSW_EF_CONSTRUCTION_MAX,
                         "candidates while building, of peers too"},
    [PASSES] = {"passes", VEX_BENCH_COUNT, "N", "3", 3, 1e6, "times that all is measured"},
    [ISA] = VEX_BENCH_OPTION_ISA,
    [DIR] = VEX_BENCH_OPTION_DIR,
    {0},
};

static const enum vex_metric metrics[] = {VEX_METRIC_L2, VEX_METRIC_COSINE, VEX_METRIC_DOT};
static const enum vex_index_kind indexes[] = {VEX_INDEX_HNSW, VEX_INDEX_IVF};
static const char *const libraries[LIBRARIES] = {"hnswlib", "faiss"};
static const double targets[VEX_CONTEST_TARGETS] = {0.95, 0.99}; /* as the contest has them */

static const struct vex_bench_value graph_efforts = {
    .text = "10,20,40,80,160,320", .list = {10, 20, 40, 80, 160, 320}, .list_count = 6};
static const struct vex_bench_value lists_efforts = {
    .text = "1,2,4,8,16,32,64,128", .list = {1, 2, 4, 8, 16, 32, 64, 128}, .list_count = 8};

/* What the first size cost, for each side. */
struct first {
    double row_cpu_us;
    double cost_us[VEX_CONTEST_TARGETS];
};

struct scale {
    const struct vex_bench_value *values;
    struct vex_vectors base; /* of the largest size */
    struct vex_vectors queries;
    struct vex_instance instance;
    struct first first[1 + LIBRARIES];
    bool with[LIBRARIES];
    /* Of one size. */
    struct vex_vectors part;
    struct vex_truth truth;
    uint64_t *found;
    struct vex_ours ours;
    struct vex_theirs theirs[LIBRARIES];
    struct vex_contest contest;
};

static enum vex_index_kind index_of(const struct scale *scale)
{
    return indexes[scale->values[INDEX].count];
}

/* ---- building -------------------------------------------------------------------------------- */

static bool print_build(struct scale *scale, const char *by, enum vex_index_kind index,
                        const struct vex_build *build, struct first *first)
{
    double rows = (double)scale->part.rows;
    double row_cpu_us = build->cpu_s * 1e6 / rows;
    if (scale->part.rows == scale->values[ROWS].list[0]) {
        first->row_cpu_us = row_cpu_us;
    }
    struct vex_line line;
    vex_contest_line(&scale->truth, &line, "build");
    vex_line_count(&line, "latent", scale->values[LATENT].count);
    vex_line_text(&line, "by", by);
    vex_line_text(&line, "index", vex_index_name(index));
    vex_line_count(&line, "m", scale->values[M].count);
    vex_line_count(&line, "ef_construction", scale->values[EF_CONSTRUCTION].count);
    vex_line_real(&line, "cpu_s", build->cpu_s);
    vex_line_real(&line, "row_cpu_us", row_cpu_us);
    vex_line_real(&line, "vs_first", row_cpu_us / first->row_cpu_us);
    vex_line_real(&line, "memory_bytes", (double)build->bytes / rows);
    vex_line_count(&line, "segments", build->segments);
    return vex_line_end(&line);
}

static bool build_ours(struct scale *scale)
{
    struct vex_collection_options how = VEX_COLLECTION_OPTIONS_INIT;
    how.dim = scale->part.dim;
    how.metric = scale->truth.metric;
    how.index = index_of(scale);
    if (how.index == VEX_INDEX_HNSW) {
        how.m = (uint32_t)scale->values[M].count;
        how.ef_construction = (uint32_t)scale->values[EF_CONSTRUCTION].count;
    }
    scale->ours = (struct vex_ours){
        .instance = &scale->instance,
        .queries = &scale->queries,
        .k = K,
        .batch = 1,
        .how = VEX_SEARCH_OPTIONS_INIT,
    };
    return vex_ours_build(&scale->ours, COLLECTION, &how, &scale->part) &&
           print_build(scale, "vexdb", how.index, &scale->ours.build, &scale->first[0]);
}

/* hnswlib always walks a graph. */
static bool build_theirs(struct scale *scale, size_t library)
{
    struct vex_theirs *theirs = &scale->theirs[library];
    if (!scale->with[library]) {
        return true;
    }
    if (!vex_theirs_load(theirs, libraries[library])) {
        return false;
    }
    enum vex_index_kind index = index_of(scale);
    if (!theirs->library->can((enum index_peer_kind)index)) {
        index = VEX_INDEX_HNSW;
    }
    theirs->queries = &scale->queries;
    theirs->k = K;
    theirs->batch = 1;
    theirs->shape = (struct index_peer_shape){
        .kind = (enum index_peer_kind)index,
        .metric = (int)scale->truth.metric,
        .m = (uint32_t)scale->values[M].count,
        .ef_construction = (uint32_t)scale->values[EF_CONSTRUCTION].count,
    };
    return vex_theirs_print(theirs) && vex_theirs_build(theirs, &scale->part) &&
           print_build(scale, theirs->library->name, index, &theirs->build,
                       &scale->first[1 + library]);
}

/* ---- costs ----------------------------------------------------------------------------------- */

static const struct vex_bench_value *efforts_of(const struct scale *scale, bool is_peer,
                                                enum vex_index_kind index)
{
    const struct vex_bench_value *values = scale->values;
    if (is_peer && index == VEX_INDEX_HNSW && values[PEER_EFFORT].given) {
        return &values[PEER_EFFORT];
    }
    if (values[EFFORT].given && index == index_of(scale)) {
        return &values[EFFORT];
    }
    return index == VEX_INDEX_HNSW ? &graph_efforts : &lists_efforts;
}

static bool add_sides(struct scale *scale)
{
    struct vex_contest_side side = {"vexdb", vex_ours_search_all, &scale->ours, .batch = 1,
                                    .asked_recall = NAN};
    bool added = vex_contest_add(&scale->contest, &side, efforts_of(scale, false, index_of(scale)));
    for (size_t i = 0; i < LIBRARIES && added; i++) {
        if (scale->with[i]) {
            struct vex_theirs *theirs = &scale->theirs[i];
            side.name = libraries[i];
            side.search_all = vex_theirs_search_all;
            side.context = theirs;
            added =
                vex_contest_add(&scale->contest, &side,
                                efforts_of(scale, true, (enum vex_index_kind)theirs->shape.kind));
        }
    }
    return added;
}

static bool print_cost(struct scale *scale, struct vex_contest_side *side, int target,
                       struct first *first)
{
    struct vex_samples *rates = &side->at_target[target];
    double cost_us = 1e6 / vex_samples_median(rates);
    if (scale->part.rows == scale->values[ROWS].list[0]) {
        first->cost_us[target] = cost_us;
    }
    struct vex_line line;
    vex_contest_line(&scale->truth, &line, "cost");
    vex_line_count(&line, "latent", scale->values[LATENT].count);
    vex_line_text(&line, "by", side->name);
    vex_line_text(&line, "mode", side->points[0].mode);
    vex_line_share(&line, "recall", targets[target]);
    vex_line_share(&line, "at_recall", side->at_recall[target]);
    vex_line_real(&line, "cost_us", cost_us);
    vex_line_real(&line, "cost_us_least", 1e6 / vex_samples_quantile(rates, 1));
    vex_line_real(&line, "cost_us_greatest", 1e6 / vex_samples_quantile(rates, 0));
    vex_line_real(&line, "rows_vs_first",
                  (double)scale->part.rows / (double)scale->values[ROWS].list[0]);
    vex_line_real(&line, "vs_first", cost_us / first->cost_us[target]);
    return vex_line_end(&line);
}

static bool print_costs(struct scale *scale)
{
    bool printed = true;
    for (size_t s = 0; s < scale->contest.sides_count; s++) {
        struct vex_contest_side *side = &scale->contest.sides[s];
        size_t who = 0;
        for (size_t i = 0; i < LIBRARIES; i++) {
            who = side->context == &scale->theirs[i] ? 1 + i : who;
        }
        for (int i = 0; i < VEX_CONTEST_TARGETS && printed; i++) {
            printed = print_cost(scale, side, i, &scale->first[who]);
        }
    }
    return printed;
}

/* ---- one size -------------------------------------------------------------------------------- */

static bool find_truth(struct scale *scale)
{
    struct vex_answers answers;
    vex_bench_note("finding the true neighbours in %zu rows", scale->part.rows);
    bool sound = vex_answers_find(&answers, &scale->part, &scale->queries, scale->truth.metric, K,
                                  scale->queries.rows);
    for (size_t i = 0; i < scale->queries.rows && sound; i++) {
        vex_truth_set(&scale->truth, i, answers.rows + i * K);
    }
    vex_answers_free(&answers);
    return sound;
}

static bool end_size(struct scale *scale, bool sound)
{
    struct vex_error error;
    bool is_there = scale->ours.collection != NULL;
    vex_contest_deinit(&scale->contest);
    scale->contest = (struct vex_contest){0};
    for (size_t i = 0; i < LIBRARIES; i++) {
        vex_theirs_close(&scale->theirs[i]);
    }
    vex_ours_close(&scale->ours);
    if (sound && is_there &&
        vex_collection_drop(scale->instance.db, COLLECTION, &error) != VEX_OK) {
        return vex_bench_fail("drop: %s", error.message);
    }
    return sound;
}

static bool run_size(struct scale *scale, size_t rows)
{
    scale->part = scale->base;
    scale->part.rows = rows;
    scale->contest.truth = &scale->truth;
    scale->contest.found = scale->found;
    bool sound = find_truth(scale) && build_ours(scale);
    for (size_t i = 0; i < LIBRARIES && sound; i++) {
        sound = build_theirs(scale, i);
    }
    sound = sound && add_sides(scale) &&
            vex_contest_run(&scale->contest, scale->values[PASSES].count) &&
            vex_contest_print(&scale->contest) && print_costs(scale);
    return end_size(scale, sound);
}

/* ---- the run --------------------------------------------------------------------------------- */

static bool check_options(struct scale *scale)
{
    const struct vex_bench_value *rows = &scale->values[ROWS];
    for (size_t i = 1; i < rows->list_count; i++) {
        if (rows->list[i] <= rows->list[i - 1]) {
            return vex_bench_fail("--rows: the sizes must rise: %s", rows->text);
        }
    }
    for (size_t i = 0; i < scale->values[PEERS].list_count; i++) {
        uint64_t peer = scale->values[PEERS].list[i];
        if (peer > 0) {
            struct vex_theirs theirs = {0};
            scale->with[peer - 1] = true;
            if (!vex_theirs_load(&theirs, libraries[peer - 1])) {
                return false;
            }
        }
    }
    return true;
}

static void make_data(struct scale *scale)
{
    const struct vex_bench_value *values = scale->values;
    uint64_t seed = values[SEED].count;
    struct vex_latent model;
    vex_bench_note("making vectors");
    vex_latent_init(&model, (uint32_t)values[DIM].count, (uint32_t)values[LATENT].count, &seed);
    vex_latent_draw(&model, values[QUERIES].count, &seed, &scale->queries);
    vex_latent_draw(&model, values[ROWS].list[values[ROWS].list_count - 1], &seed, &scale->base);
    vex_latent_deinit(&model);
    scale->truth = (struct vex_truth){
        .base = &scale->part,
        .queries = &scale->queries,
        .metric = metrics[values[METRIC].count],
        .k = K,
        .limits = vex_bench_alloc(scale->queries.rows, sizeof(double)),
    };
    scale->found = vex_bench_alloc(scale->queries.rows * K, sizeof(*scale->found));
}

static bool run(const struct vex_bench_value *values)
{
    struct scale *scale = vex_bench_alloc(1, sizeof(*scale));
    scale->values = values;
    bool sound = check_options(scale);
    if (sound) {
        make_data(scale);
        sound = !vex_bench_stopped() && vex_instance_open(&scale->instance, &values[DIR]);
    }
    for (size_t i = 0; i < values[ROWS].list_count && sound; i++) {
        sound = run_size(scale, values[ROWS].list[i]);
    }
    vex_instance_close(&scale->instance);
    vex_vectors_free(&scale->base);
    vex_vectors_free(&scale->queries);
    free(scale->truth.limits);
    free(scale->found);
    free(scale);
    return sound;
}

const struct vex_bench vex_bench_scale = {
    "scale",
    "cost of a search as a collection grows",
    options,
    run,
};
