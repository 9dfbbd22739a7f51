/*
 * index_bench: the graph index alone, in plain memory, beside hnswlib, for work on the index.
 *
 *     index_bench <directory> [rows=N] [metric=l2|cosine|dot] [k=10] [ef=a,b,c] [m=16] [efc=150]
 *                 [hefc=200] [passes=3] [peer=0|1] [huge=0|1]
 *
 * The directory holds base and query as fvecs or bvecs; the ground truth is computed here, exactly,
 * with the flat index. One thread, one query per call; pin it with taskset. The two libraries take turns
 * within a pass, pass by pass, and the best pass counts, so that what else runs on the machine hits both
 * alike. GLIBC_TUNABLES=glibc.malloc.hugetlb=1 gives hnswlib the huge pages that huge=1 gives the graph.
 * It says nothing about the product, which searches shared memory through libvex: vexbench does.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "index/calibrate.h"
#include "index/graph_build.h"
#include "index/index.h"
#include "index/kernels.h"
#include "tests/bench/index_peer.h"

#define EFS_MAX 32
#define QUERIES_MAX 1000u
#define EF_MAX 4096u /* of those that a table may suggest */

struct rows {
    float *values;
    uint32_t count;
    uint32_t dim;
};

struct setup {
    const char *directory;
    enum vex_metric metric;
    uint32_t rows_max;
    uint32_t k;
    uint32_t efs[EFS_MAX];
    uint32_t efs_count;
    uint32_t passes;
    uint32_t peer_ef_construction;
    bool with_peer;
    struct vex_graph_shape graph;
};

struct world {
    struct setup setup;
    struct rows base;
    struct rows queries;
    struct vex_segment_writer writer;
    uint64_t *truth;    /* [queries][k] */
    double *truth_keys; /* the k-th key of each query */
    void *scratch;
    const struct index_peer_library *library;
    struct index_peer *peer; /* NULL = none */
};

static void die(const char *what)
{
    (void)fprintf(stderr, "index_bench: %s\n", what);
    exit(1);
}

static double cpu_seconds(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static bool with_huge_pages = true;

static void *allocate(size_t bytes)
{
    size_t huge = 2u << 20;
    size_t rounded = (bytes + 2 * huge - 1) & ~(huge - 1);
    void *memory = mmap(NULL, rounded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        die("out of memory");
    }
    (void)madvise(memory, rounded, with_huge_pages ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    return memory;
}

static struct rows read_rows(const char *directory, const char *name, uint32_t rows_max)
{
    char path[4096];
    (void)snprintf(path, sizeof(path), "%s/%s.fvecs", directory, name);
    FILE *file = fopen(path, "rb");
    size_t value_bytes = sizeof(float);
    if (!file) {
        (void)snprintf(path, sizeof(path), "%s/%s.bvecs", directory, name);
        file = fopen(path, "rb");
        value_bytes = 1;
    }
    int32_t dim = 0;
    if (!file || fread(&dim, sizeof(dim), 1, file) != 1 || dim < 1) {
        die("base or query cannot be read");
    }
    (void)fseek(file, 0, SEEK_END);
    size_t row_bytes = sizeof(dim) + (size_t)dim * value_bytes;
    struct rows rows = {NULL, (uint32_t)((size_t)ftell(file) / row_bytes), (uint32_t)dim};
    rows.count = rows.count < rows_max ? rows.count : rows_max;
    rows.values = allocate((size_t)rows.count * rows.dim * sizeof(float));
    uint8_t *buffer = malloc(row_bytes);
    rewind(file);
    for (uint32_t i = 0; i < rows.count; i++) {
        if (!buffer || fread(buffer, row_bytes, 1, file) != 1) {
            die("base or query is cut short");
        }
        float *out = rows.values + (size_t)i * rows.dim;
        for (uint32_t d = 0; d < rows.dim && value_bytes == 1; d++) {
            out[d] = buffer[sizeof(dim) + d];
        }
        if (value_bytes != 1) {
            memcpy(out, buffer + sizeof(dim), rows.dim * sizeof(float));
        }
    }
    free(buffer);
    (void)fclose(file);
    return rows;
}

static void build(struct world *world)
{
    struct setup *setup = &world->setup;
    struct vex_segment_shape shape = {
        .segment_id = 1,
        .collection_id = 1,
        .metric = setup->metric,
        .dim = world->base.dim,
        .capacity_rows = world->base.count,
        .graph = setup->graph,
    };
    vex_segment_create(&world->writer, &shape, allocate(vex_segment_memory_bytes(&shape)));
    for (uint32_t i = 0; i < world->base.count; i++) {
        (void)vex_segment_append(&world->writer, i,
                                 world->base.values + (size_t)i * world->base.dim, NULL, 0);
    }
    struct vex_graph_report report;
    struct vex_error error;
    if (vex_graph_build(&world->writer, &setup->graph, NULL, &report, &error) != VEX_OK ||
        vex_graph_validate(&world->writer.segment, &error) != VEX_OK) {
        die(error.message);
    }
    printf("vex: %.1f s of CPU, %.0f rows/s, reached %u of %u, degree %.1f, error %.4f\n",
           (double)report.cpu_ns * 1e-9, world->base.count / ((double)report.cpu_ns * 1e-9),
           report.reached, report.nodes_count, (double)report.mean_degree,
           (double)report.error_rms);
    double start = cpu_seconds();
    if (vex_calibrate(&world->writer, &vex_index_hnsw, VEX_EFFORT_UNIT_EF, NULL, &error) !=
        VEX_OK) {
        die(error.message);
    }
    printf("calibrated: %.2f s of CPU, %u steps\n", cpu_seconds() - start,
           world->writer.segment.effort.steps_count);
    uint32_t ef_max = setup->k > EF_MAX ? setup->k : EF_MAX;
    for (uint32_t i = 0; i < setup->efs_count; i++) {
        ef_max = setup->efs[i] > ef_max ? setup->efs[i] : ef_max;
    }
    world->scratch = allocate(vex_graph_scratch_bytes(shape.dim, ef_max));
}

static void find_truth(struct world *world)
{
    uint32_t k = world->setup.k;
    uint32_t count = world->queries.count;
    struct vex_view_segment part = {&world->writer.segment, world->base.count};
    struct vex_view view = {&part, 1, world->base.dim, world->setup.metric, 1, NULL};
    struct vex_candidate *heaps = malloc((size_t)count * k * sizeof(*heaps));
    struct vex_topk *topks = malloc(count * sizeof(*topks));
    world->truth_keys = malloc(count * sizeof(double));
    struct vex_search_counters counters = {0};
    if (!heaps || !topks || !world->truth_keys) {
        die("out of memory");
    }
    for (uint32_t i = 0; i < count; i++) {
        vex_topk_init(&topks[i], heaps + (size_t)i * k, k);
    }
    if (vex_index_flat.search(&view, world->queries.values, count, topks, &counters, NULL) !=
        VEX_OK) {
        die("flat search failed");
    }
    for (uint32_t i = 0; i < count; i++) {
        vex_topk_finish(&topks[i]);
        world->truth_keys[i] = topks[i].heap[k - 1].key;
    }
    free(heaps);
    free(topks);
}

/* Ties count: a hit is a row as near as the k-th true neighbour. */
static double key_of(const struct world *world, uint32_t query, uint64_t row)
{
    const float *q = world->queries.values + (size_t)query * world->base.dim;
    const float *r = world->base.values + row * world->base.dim;
    uint32_t dim = world->base.dim;
    switch (world->setup.metric) {
    case VEX_METRIC_L2:
        return vex_l2_f64(q, r, dim);
    case VEX_METRIC_DOT:
        return -vex_dot_f64(q, r, dim);
    case VEX_METRIC_COSINE:
        break;
    }
    return 1 - vex_dot_f64(q, r, dim) / sqrt(vex_dot_f64(q, q, dim) * vex_dot_f64(r, r, dim));
}

struct outcome {
    double seconds;
    double recall;
    struct vex_graph_counters counters;
};

static double recall_of(const struct world *world, const uint64_t *found)
{
    uint32_t k = world->setup.k;
    uint64_t hits = 0;
    for (uint32_t i = 0; i < world->queries.count; i++) {
        for (uint32_t j = 0; j < k; j++) {
            uint64_t row = found[(size_t)i * k + j];
            double limit = world->truth_keys[i] + fabs(world->truth_keys[i]) * 1e-6;
            hits += row != UINT64_MAX && key_of(world, i, row) <= limit;
        }
    }
    return (double)hits / ((double)world->queries.count * k);
}

static struct outcome run_vex(const struct world *world, uint32_t ef, bool measured,
                              uint64_t *found)
{
    uint32_t k = world->setup.k;
    struct outcome outcome = {0};
    struct vex_candidate *heap = malloc(k * sizeof(*heap));
    double start = cpu_seconds();
    for (uint32_t i = 0; i < world->queries.count; i++) {
        struct vex_topk topk;
        vex_topk_init(&topk, heap, k);
        struct vex_graph_query query = {
            .segment = &world->writer.segment,
            .visible_rows = world->base.count,
            .lsn = 1,
            .query = world->queries.values + (size_t)i * world->base.dim,
            .ef = ef,
            .scratch = world->scratch,
        };
        (void)vex_graph_search(&query, &topk, &outcome.counters);
        vex_topk_finish(&topk);
        for (uint32_t j = 0; j < k; j++) {
            found[(size_t)i * k + j] = j < topk.count ? topk.heap[j].id : UINT64_MAX;
        }
    }
    outcome.seconds = cpu_seconds() - start;
    outcome.recall = measured ? 0 : recall_of(world, found);
    free(heap);
    return outcome;
}

static struct outcome run_peer(const struct world *world, uint32_t ef, bool measured,
                               uint64_t *found)
{
    uint32_t k = world->setup.k;
    struct outcome outcome = {0};
    double start = cpu_seconds();
    for (uint32_t i = 0; i < world->queries.count; i++) {
        world->library->search(world->peer, world->queries.values + (size_t)i * world->base.dim, 1,
                               k, ef, found + (size_t)i * k);
    }
    outcome.seconds = cpu_seconds() - start;
    outcome.recall = measured ? 0 : recall_of(world, found);
    return outcome;
}

/* Queries per second at a recall, between the two efforts around it. */
static double rate_at(const struct outcome *outcomes, uint32_t count, uint32_t queries,
                      double recall)
{
    for (uint32_t i = 0; i < count; i++) {
        double rate = queries / outcomes[i].seconds;
        if (outcomes[i].recall < recall) {
            continue;
        }
        if (i == 0 || outcomes[i].recall <= outcomes[i - 1].recall) {
            return rate;
        }
        double before = queries / outcomes[i - 1].seconds;
        double share =
            (recall - outcomes[i - 1].recall) / (outcomes[i].recall - outcomes[i - 1].recall);
        return exp(log(before) + share * (log(rate) - log(before)));
    }
    return 0;
}

static void keep_best(struct outcome *best, struct outcome now, uint32_t pass)
{
    double recall = pass == 0 ? now.recall : best->recall;
    if (pass == 0 || now.seconds < best->seconds) {
        *best = now;
    }
    best->recall = recall;
}

static void compare(const struct world *world)
{
    const struct setup *setup = &world->setup;
    struct outcome ours[EFS_MAX];
    struct outcome theirs[EFS_MAX];
    double count = world->queries.count;
    uint64_t *found = malloc((size_t)world->queries.count * setup->k * sizeof(*found));
    for (uint32_t pass = 0; pass < setup->passes && found; pass++) {
        for (uint32_t i = 0; i < setup->efs_count; i++) {
            keep_best(&ours[i], run_vex(world, setup->efs[i], pass > 0, found), pass);
            if (world->peer) {
                keep_best(&theirs[i], run_peer(world, setup->efs[i], pass > 0, found), pass);
            }
        }
    }
    free(found);
    for (uint32_t i = 0; i < setup->efs_count; i++) {
        const struct vex_graph_counters *counters = &ours[i].counters;
        printf("ef %4u: vex %.4f %7.0f/s (steps %.0f scored %.0f ranked %.1f)", setup->efs[i],
               ours[i].recall, count / ours[i].seconds, (double)counters->steps / count,
               (double)counters->scored / count, (double)counters->ranked / count);
        if (world->peer) {
            printf("   hnswlib %.4f %7.0f/s", theirs[i].recall, count / theirs[i].seconds);
        }
        printf("\n");
    }
    static const double recalls[] = {0.90, 0.95, 0.99, 0.995};
    for (uint32_t i = 0; i < sizeof(recalls) / sizeof(*recalls); i++) {
        double mine = rate_at(ours, setup->efs_count, world->queries.count, recalls[i]);
        double other =
            world->peer ? rate_at(theirs, setup->efs_count, world->queries.count, recalls[i]) : 0;
        printf("recall %.3f: vex %.0f/s hnswlib %.0f/s ratio %.2f\n", recalls[i], mine, other,
               other > 0 ? mine / other : 0);
    }
}

static void parse_efs(struct setup *setup, const char *text)
{
    setup->efs_count = 0;
    while (*text && setup->efs_count < EFS_MAX) {
        char *end;
        setup->efs[setup->efs_count++] = (uint32_t)strtoul(text, &end, 10);
        text = *end == ',' ? end + 1 : end;
    }
}

static void parse(struct setup *setup, const char *argument)
{
    const char *value = strchr(argument, '=');
    if (!value) {
        setup->directory = argument;
        return;
    }
    value++;
    uint32_t number = (uint32_t)strtoul(value, NULL, 10);
    if (strncmp(argument, "rows=", 5) == 0) {
        setup->rows_max = number;
    } else if (strncmp(argument, "metric=", 7) == 0) {
        setup->metric = strcmp(value, "l2") == 0       ? VEX_METRIC_L2
                        : strcmp(value, "cosine") == 0 ? VEX_METRIC_COSINE
                                                       : VEX_METRIC_DOT;
    } else if (strncmp(argument, "k=", 2) == 0) {
        setup->k = number;
    } else if (strncmp(argument, "ef=", 3) == 0) {
        parse_efs(setup, value);
    } else if (strncmp(argument, "m=", 2) == 0) {
        setup->graph.m = number;
    } else if (strncmp(argument, "efc=", 4) == 0) {
        setup->graph.ef_construction = number;
    } else if (strncmp(argument, "hefc=", 5) == 0) {
        setup->peer_ef_construction = number;
    } else if (strncmp(argument, "passes=", 7) == 0) {
        setup->passes = number;
    } else if (strncmp(argument, "peer=", 5) == 0) {
        setup->with_peer = number != 0;
    } else if (strncmp(argument, "huge=", 5) == 0) {
        with_huge_pages = number != 0;
    } else {
        die(argument);
    }
}

static void build_peer(struct world *world)
{
    world->library = index_peer_load("hnswlib", vex_kernels_get()->name);
    if (!world->library) {
        die("built without hnswlib: peer=0, or scripts/install-deps --peers");
    }
    struct index_peer_shape shape = {
        .kind = INDEX_PEER_GRAPH,
        .metric = (int)world->setup.metric,
        .dim = world->base.dim,
        .capacity = world->base.count,
        .m = world->setup.graph.m,
        .ef_construction = world->setup.peer_ef_construction,
    };
    double start = cpu_seconds();
    world->peer = world->library->open(&shape, world->base.values);
    if (!world->peer ||
        !world->library->add(world->peer, world->base.values, 0, world->base.count)) {
        die("hnswlib: out of memory");
    }
    printf("%s: %.1f s of CPU\n", world->library->name, cpu_seconds() - start);
}

/* What a search that names a recall would use, and what that finds. */
static void check_table(const struct world *world)
{
    static const double recalls[] = {0.80, 0.90, 0.95, 0.99, 0.995};
    const struct vex_effort_table *table = &world->writer.segment.effort;
    uint64_t *found = malloc((size_t)world->queries.count * world->setup.k * sizeof(*found));
    for (uint32_t i = 0; i < sizeof(recalls) / sizeof(*recalls) && found; i++) {
        uint32_t ef = vex_effort_for(table, VEX_EFFORT_UNIT_EF, world->setup.k, recalls[i]);
        struct outcome outcome = run_vex(world, ef, false, found);
        printf("asked for recall %.3f: ef %u, recall %.4f\n", recalls[i], ef, outcome.recall);
    }
    free(found);
}

int main(int count, char **arguments)
{
    struct world world = {.setup = {
                              .metric = VEX_METRIC_L2,
                              .rows_max = UINT32_MAX,
                              .k = 10,
                              .passes = 3,
                              .peer_ef_construction = 200,
                              .with_peer = true,
                              .graph = {VEX_GRAPH_M_DEFAULT, VEX_GRAPH_EF_CONSTRUCTION_DEFAULT},
                          }};
    parse_efs(&world.setup, "10,14,20,28,40,56,80,112,160,224,320,448");
    for (int i = 1; i < count; i++) {
        parse(&world.setup, arguments[i]);
    }
    if (!world.setup.directory) {
        die("a directory with base and query is missing");
    }
    world.base = read_rows(world.setup.directory, "base", world.setup.rows_max);
    world.queries = read_rows(world.setup.directory, "query", QUERIES_MAX);
    printf("%s: %u rows of %u, %u queries, k %u, %s\n", world.setup.directory, world.base.count,
           world.base.dim, world.queries.count, world.setup.k, vex_kernels_get()->name);
    build(&world);
    find_truth(&world);
    check_table(&world);
    if (world.setup.with_peer) {
        build_peer(&world);
    }
    compare(&world);
    if (world.peer) {
        world.library->free(world.peer);
    }
    return 0;
}
