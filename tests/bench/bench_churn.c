/*
 * vexbench churn: what ceaseless updating does to searches, to memory and to the disk.
 *
 * Every vector is inserted once and then replaced again and again, so the data stay as large as
 * they were; whatever grows is what replaced rows leave behind. The instance is measured fresh, at
 * the end of the updates, and once it has settled: space that is given back in the background
 * counts only then. Meanwhile other processes search without a pause; their latency during the
 * updates is compared with that in a quiet period before.
 *
 * Readers are processes, as in a user's system, since they then share nothing with the writer but
 * what the daemon publishes. Each keeps its own list of searches with the times of a clock that all
 * processes share, and leaves it in a file when it is told to end: the phases need not be told to
 * readers, and nothing but searching is in the figures.
 *
 * That is about space and latency, with data made up. With --base it is about what searches find: see
 * turnover.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <vex/vex.h>

#include "tests/bench/bench.h"
#include "tests/bench/common.h"
#include "tests/bench/instance.h"
#include "tests/bench/space.h"
#include "tests/bench/turnover.h"

#define COLLECTION "churn"
#define K 10u
#define READERS_MAX 64u
#define WARM_SEARCHES 3
#define STILL_POLL_NS 100000000

enum {
    ROWS,
    DIM,
    ROUNDS,
    BATCH,
    READERS,
    QUIET,
    STILL,
    SETTLE,
    BASE,
    QUERY,
    METRIC,
    INDEX,
    EFFORT,
    TURNOVERS,
    LIMIT,
    PASSES,
    DIR
};

static const struct vex_bench_option options[] = {
    [ROWS] = {"rows", VEX_BENCH_COUNT, "N", "200000", 1, 1e9, "vectors"},
    [DIM] = {"dim", VEX_BENCH_COUNT, "D", "128", 1, VEX_DIM_MAX, "their dimension"},
    [ROUNDS] = {"rounds", VEX_BENCH_COUNT, "N", "10", 1, 10000, "times that each is updated"},
    [BATCH] = {"batch", VEX_BENCH_COUNT, "N", "200", 1, VEX_BATCH_COUNT_MAX, "updates in a batch"},
    [READERS] = {"readers", VEX_BENCH_COUNT, "N", "1", 1, READERS_MAX, "processes that search"},
    [QUIET] = {"quiet-seconds", VEX_BENCH_SECONDS, "S", "3", 0.001, 3600,
               "length of the quiet periods before and after"},
    [STILL] = {"still-seconds", VEX_BENCH_SECONDS, "S", "3", 0.1, 3600,
               "settled is what has not changed for so long"},
    [SETTLE] = {"settle-seconds", VEX_BENCH_SECONDS, "S", "60", 0.1, 3600,
                "and what has not settled after so long is taken as it is"},
    [BASE] =
        {"base", VEX_BENCH_TEXT, "FILE", NULL, 0, 0,
         "replace these vectors, .fvecs or .bvecs, and compare with a fresh build; what follows "
         "goes with it"},
    [QUERY] = {"query", VEX_BENCH_TEXT, "FILE", NULL, 0, 0, "queries, as the base; needed"},
    [METRIC] = {"metric", VEX_BENCH_WORD, "l2|cosine|dot", "l2", 0, 0, "distance"},
    [INDEX] = {"index", VEX_BENCH_WORD, "flat|hnsw|ivf", "hnsw", 0, 0, "how it is searched"},
    [EFFORT] = {"effort", VEX_BENCH_LIST, "N", "20,40,80", 1, VEX_EF_SEARCH_MAX,
                "ef_search of hnsw, nprobe of ivf, rising"},
    [TURNOVERS] = {"turnovers", VEX_BENCH_COUNT, "N", "5", 1, 100, "times that each is replaced"},
    [LIMIT] = {"limit", VEX_BENCH_COUNT, "N", NULL, 1, 1e9, "only the first rows of the base"},
    [PASSES] = {"passes", VEX_BENCH_COUNT, "N", "3", 3, 1e6, "times that both are measured"},
    [DIR] = VEX_BENCH_OPTION_DIR,
    {0},
};

enum phase { PHASE_QUIET, PHASE_CHURN, PHASE_AFTER, PHASES };

static const char *const phase_names[PHASES] = {"quiet", "churn", "after"};

/* What the instance takes at one moment. */
struct space {
    uint64_t disk_bytes;
    uint64_t shm_bytes;         /* as the daemon counts */
    uint64_t shm_objects_bytes; /* as the system does */
    uint64_t dead_rows;
};

enum moment { MOMENT_FRESH, MOMENT_END, MOMENT_SETTLED, MOMENTS };

struct churn {
    struct vex_instance instance;
    const struct vex_bench_value *values;
    uint32_t dim;
    struct vex_collection *collection;
    pid_t readers[READERS_MAX];
    unsigned readers_count;
    struct span {
        uint64_t start_ns;
        uint64_t end_ns;
    } spans[PHASES];
    struct vex_samples searches_us[PHASES];
    struct vex_samples updates_us;
    struct space spaces[MOMENTS];
    double settle_s;
    bool settled;
    double daemon_s; /* during the updates */
    uint64_t written_bytes;
};

/* ---- readers --------------------------------------------------------------------------------- */

static void reader_path(const struct churn *churn, unsigned index, char *out, size_t bytes)
{
    (void)snprintf(out, bytes, "%s/reader-%u", churn->instance.root, index);
}

static bool search_once(struct vex_collection *collection, float *query, uint32_t dim,
                        uint64_t *seed, struct span *out_span)
{
    uint64_t ids[K];
    float distances[K];
    uint32_t found = 0;
    struct vex_search_options search = VEX_SEARCH_OPTIONS_INIT;
    search.k = K;
    struct vex_results results = {
        .size = sizeof(results), .ids = ids, .distances = distances, .counts = &found};
    struct vex_error error;
    vex_data_fill(query, dim, seed);
    out_span->start_ns = vex_bench_clock_ns();
    bool sound = vex_search(collection, query, 1, dim, &search, &results, NULL, &error) == VEX_OK;
    out_span->end_ns = vex_bench_clock_ns();
    return sound || vex_bench_fail("search: %s", error.message);
}

/* Until the signal comes; the spans go to `file`. */
static bool search_until(struct vex_collection *collection, uint32_t dim, unsigned index,
                         int ready_fd, FILE *file)
{
    float *query = vex_bench_alloc(dim, sizeof(*query));
    uint64_t seed = 1000 + index;
    struct span span;
    bool sound = true;
    for (int i = 0; i < WARM_SEARCHES && sound; i++) {
        sound = search_once(collection, query, dim, &seed, &span);
    }
    sound = sound && write(ready_fd, "", 1) == 1;
    while (sound && !vex_bench_stopped()) {
        sound = search_once(collection, query, dim, &seed, &span) &&
                fwrite(&span, sizeof(span), 1, file) == 1;
    }
    free(query);
    return sound;
}

/* The whole life of a reader, with an attachment of its own: none survives a fork. */
static bool be_reader(const struct churn *churn, unsigned index, int ready_fd)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    char path[PATH_MAX + 32];
    reader_path(churn, index, path, sizeof(path));
    FILE *file = fopen(path, "wxe");
    if (!file) {
        return vex_bench_fail("%s: %s", path, strerror(errno));
    }
    struct vex_db *db = NULL;
    struct vex_collection *collection = NULL;
    struct vex_error error;
    bool sound = vex_instance_connect(&churn->instance, &db) &&
                 (vex_collection_open(db, COLLECTION, &collection, &error) == VEX_OK ||
                  vex_bench_fail("open the collection: %s", error.message));
    sound = sound && search_until(collection, churn->dim, index, ready_fd, file);
    vex_collection_close(collection);
    vex_close(db);
    return fclose(file) == 0 && sound;
}

/* True once all of them are searching. */
static bool start_readers(struct churn *churn)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0) {
        return vex_bench_fail("pipe: %s", strerror(errno));
    }
    bool sound = true;
    while (churn->readers_count < churn->values[READERS].count && sound) {
        pid_t pid = fork();
        if (pid == 0) {
            (void)close(fds[0]);
            _exit(be_reader(churn, churn->readers_count, fds[1]) ? 0 : 1);
        }
        sound = pid > 0 || vex_bench_fail("start a reader: %s", strerror(errno));
        churn->readers[churn->readers_count] = pid;
        churn->readers_count += sound;
    }
    (void)close(fds[1]);
    char byte;
    for (unsigned i = 0; i < churn->readers_count && sound; i++) {
        /* No byte and nobody left to write one: a reader has failed and said why. */
        sound = read(fds[0], &byte, 1) == 1;
    }
    (void)close(fds[0]);
    return sound;
}

static bool stop_readers(struct churn *churn)
{
    bool sound = true;
    for (unsigned i = 0; i < churn->readers_count; i++) {
        (void)kill(churn->readers[i], SIGTERM);
    }
    for (unsigned i = 0; i < churn->readers_count; i++) {
        int status = 0;
        sound = waitpid(churn->readers[i], &status, 0) > 0 && status == 0 && sound;
    }
    return sound || vex_bench_fail("a reader failed");
}

/* Sorts a reader's searches by the phase that they fall into as a whole. */
static bool collect_searches(struct churn *churn, unsigned index)
{
    char path[PATH_MAX + 32];
    reader_path(churn, index, path, sizeof(path));
    FILE *file = fopen(path, "re");
    if (!file) {
        return vex_bench_fail("%s: %s", path, strerror(errno));
    }
    struct span span;
    while (fread(&span, sizeof(span), 1, file) == 1) {
        for (int i = 0; i < PHASES; i++) {
            if (span.start_ns >= churn->spans[i].start_ns &&
                span.end_ns <= churn->spans[i].end_ns) {
                vex_samples_add(&churn->searches_us[i],
                                (double)(span.end_ns - span.start_ns) * 1e-3);
            }
        }
    }
    (void)fclose(file);
    return true;
}

/* ---- space ----------------------------------------------------------------------------------- */

static bool measure_space(const struct churn *churn, struct space *out)
{
    struct vex_stats stats;
    if (!vex_instance_stats(&churn->instance, &stats)) {
        return false;
    }
    *out = (struct space){
        .disk_bytes = vex_space_disk_bytes(churn->instance.directory),
        .shm_bytes = stats.shm_bytes,
        .shm_objects_bytes = vex_space_shm_bytes(churn->instance.daemon_pid),
        .dead_rows = stats.dead_rows,
    };
    return true;
}

/* Waits until nothing changes any more, and gives what it then is. */
static bool settle(const struct churn *churn, struct space *out, bool *out_settled,
                   double *out_seconds)
{
    uint64_t still_ns = (uint64_t)(churn->values[STILL].seconds * 1e9);
    uint64_t start_ns = vex_bench_clock_ns();
    uint64_t end_ns = start_ns + (uint64_t)(churn->values[SETTLE].seconds * 1e9);
    uint64_t changed_ns = start_ns;
    uint64_t now_ns = start_ns;
    struct space before;
    if (!measure_space(churn, &before)) {
        return false;
    }
    while (now_ns - changed_ns < still_ns && now_ns < end_ns && !vex_bench_stopped()) {
        (void)nanosleep(&(struct timespec){0, STILL_POLL_NS}, NULL);
        if (!measure_space(churn, out)) {
            return false;
        }
        now_ns = vex_bench_clock_ns();
        if (memcmp(out, &before, sizeof(before)) != 0) {
            changed_ns = now_ns;
            before = *out;
        }
    }
    *out = before;
    *out_settled = now_ns - changed_ns >= still_ns;
    *out_seconds = (double)(changed_ns - start_ns) * 1e-9;
    return !vex_bench_stopped();
}

/* ---- phases ---------------------------------------------------------------------------------- */

static bool wait_quietly(struct churn *churn, enum phase phase)
{
    double seconds = churn->values[QUIET].seconds;
    struct span *span = &churn->spans[phase];
    span->start_ns = vex_bench_clock_ns();
    struct timespec pause = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    (void)nanosleep(&pause, NULL);
    span->end_ns = vex_bench_clock_ns();
    return !vex_bench_stopped();
}

/* Every id once, in the order of `ids`. */
static bool update_all(struct churn *churn, const uint64_t *ids, float *vectors, uint64_t *seed)
{
    size_t rows = churn->values[ROWS].count;
    size_t batch_rows = churn->values[BATCH].count;
    for (size_t at = 0; at < rows && !vex_bench_stopped(); at += batch_rows) {
        struct vex_batch batch = VEX_BATCH_INIT;
        batch.count = rows - at < batch_rows ? rows - at : batch_rows;
        batch.ids = ids + at;
        batch.vectors = vectors;
        batch.dim = churn->dim;
        vex_data_fill(vectors, batch.count * churn->dim, seed);
        struct vex_error error;
        uint64_t start_ns = vex_bench_clock_ns();
        if (vex_write(churn->collection, VEX_WRITE_UPDATE, &batch, NULL, &error) != VEX_OK) {
            return vex_bench_fail("update: %s", error.message);
        }
        vex_samples_add(&churn->updates_us, (double)(vex_bench_clock_ns() - start_ns) * 1e-3);
    }
    return !vex_bench_stopped();
}

static bool update_rounds(struct churn *churn)
{
    size_t rows = churn->values[ROWS].count;
    uint64_t *ids = vex_bench_alloc(rows, sizeof(*ids));
    float *vectors = vex_bench_alloc(churn->values[BATCH].count * churn->dim, sizeof(*vectors));
    uint64_t seed = 2;
    uint64_t rounds = churn->values[ROUNDS].count;
    double daemon_s = vex_instance_daemon_seconds(&churn->instance);
    uint64_t written_bytes = vex_process_io(churn->instance.daemon_pid).write_bytes;
    bool sound = true;
    churn->spans[PHASE_CHURN].start_ns = vex_bench_clock_ns();
    for (uint64_t round = 0; round < rounds && sound; round++) {
        vex_bench_note("round %llu of %llu", (unsigned long long)round + 1,
                       (unsigned long long)rounds);
        vex_data_shuffle(ids, rows, &seed);
        sound = update_all(churn, ids, vectors, &seed);
    }
    churn->spans[PHASE_CHURN].end_ns = vex_bench_clock_ns();
    churn->daemon_s = vex_instance_daemon_seconds(&churn->instance) - daemon_s;
    churn->written_bytes = vex_process_io(churn->instance.daemon_pid).write_bytes - written_bytes;
    free(vectors);
    free(ids);
    return sound;
}

static bool check_count(const struct churn *churn)
{
    uint64_t count = 0;
    struct vex_error error;
    if (vex_count(churn->collection, NULL, &count, &error) != VEX_OK) {
        return vex_bench_fail("count: %s", error.message);
    }
    return count == churn->values[ROWS].count ||
           vex_bench_fail("%llu vectors are there after the updates, not %s",
                          (unsigned long long)count, churn->values[ROWS].text);
}

static bool run_phases(struct churn *churn)
{
    uint64_t seed = 1;
    bool settled = false;
    double seconds = 0;
    bool sound =
        vex_instance_collection(churn->instance.db, COLLECTION, churn->dim, VEX_METRIC_L2,
                                &churn->collection) &&
        vex_instance_fill(churn->collection, churn->dim, churn->values[ROWS].count, &seed) &&
        settle(churn, &churn->spaces[MOMENT_FRESH], &settled, &seconds) && start_readers(churn) &&
        wait_quietly(churn, PHASE_QUIET) && update_rounds(churn) &&
        measure_space(churn, &churn->spaces[MOMENT_END]) &&
        settle(churn, &churn->spaces[MOMENT_SETTLED], &churn->settled, &churn->settle_s) &&
        wait_quietly(churn, PHASE_AFTER) && check_count(churn);
    sound = stop_readers(churn) && sound;
    for (unsigned i = 0; i < churn->readers_count && sound; i++) {
        sound = collect_searches(churn, i);
    }
    return sound && !vex_bench_stopped();
}

/* ---- lines ----------------------------------------------------------------------------------- */

static bool print_searches(struct churn *churn, enum phase phase)
{
    struct vex_samples *samples = &churn->searches_us[phase];
    struct vex_samples *quiet = &churn->searches_us[PHASE_QUIET];
    const struct span *span = &churn->spans[phase];
    double p50_us = vex_samples_median(samples);
    double p99_us = vex_samples_quantile(samples, 0.99);
    struct vex_line line;
    vex_line_begin(&line, "search");
    vex_line_text(&line, "phase", phase_names[phase]);
    vex_line_count(&line, "readers", churn->readers_count);
    vex_line_count(&line, "rows", churn->values[ROWS].count);
    vex_line_count(&line, "dim", churn->dim);
    vex_line_count(&line, "searches", samples->count);
    vex_line_real(&line, "searches_s",
                  (double)samples->count * 1e9 / (double)(span->end_ns - span->start_ns));
    vex_line_real(&line, "p50_us", p50_us);
    vex_line_real(&line, "p99_us", p99_us);
    vex_line_real(&line, "greatest_us", vex_samples_quantile(samples, 1));
    vex_line_real(&line, "p50_vs_quiet", p50_us / vex_samples_median(quiet));
    vex_line_real(&line, "p99_vs_quiet", p99_us / vex_samples_quantile(quiet, 0.99));
    return vex_line_end(&line);
}

static bool print_updates(struct churn *churn)
{
    const struct span *span = &churn->spans[PHASE_CHURN];
    double seconds = (double)(span->end_ns - span->start_ns) * 1e-9;
    double updates = (double)churn->values[ROWS].count * (double)churn->values[ROUNDS].count;
    double bytes = updates * churn->dim * sizeof(float);
    struct vex_line line;
    vex_line_begin(&line, "update");
    vex_line_count(&line, "rounds", churn->values[ROUNDS].count);
    vex_line_count(&line, "items", churn->values[BATCH].count);
    vex_line_real(&line, "vectors_s", updates / seconds);
    vex_line_real(&line, "mb_s", bytes / seconds * 1e-6);
    vex_line_real(&line, "p50_us", vex_samples_median(&churn->updates_us));
    vex_line_real(&line, "p99_us", vex_samples_quantile(&churn->updates_us, 0.99));
    vex_line_real(&line, "greatest_us", vex_samples_quantile(&churn->updates_us, 1));
    vex_line_real(&line, "daemon_cores", churn->daemon_s / seconds);
    vex_line_real(&line, "written_ratio", (double)churn->written_bytes / bytes);
    return vex_line_end(&line);
}

/* <name>_mib fresh, and at the other moments how many times as much. */
static void put_space(struct vex_line *line, const char *name, uint64_t fresh, uint64_t end,
                      uint64_t settled)
{
    char key[64];
    (void)snprintf(key, sizeof(key), "%s_mib", name);
    vex_line_real(line, key, (double)fresh / 0x1p20);
    (void)snprintf(key, sizeof(key), "%s_end_ratio", name);
    vex_line_real(line, key, (double)end / (double)fresh);
    (void)snprintf(key, sizeof(key), "%s_settled_ratio", name);
    vex_line_real(line, key, (double)settled / (double)fresh);
}

static bool print_space(struct churn *churn)
{
    const struct space *fresh = &churn->spaces[MOMENT_FRESH];
    const struct space *end = &churn->spaces[MOMENT_END];
    const struct space *settled = &churn->spaces[MOMENT_SETTLED];
    double row_bytes = (double)churn->dim * sizeof(float);
    struct vex_line line;
    vex_line_begin(&line, "space");
    vex_line_count(&line, "rows", churn->values[ROWS].count);
    vex_line_count(&line, "dim", churn->dim);
    vex_line_count(&line, "rounds", churn->values[ROUNDS].count);
    vex_line_real(&line, "vector_mib", (double)churn->values[ROWS].count * row_bytes / 0x1p20);
    put_space(&line, "disk", fresh->disk_bytes, end->disk_bytes, settled->disk_bytes);
    put_space(&line, "shm", fresh->shm_bytes, end->shm_bytes, settled->shm_bytes);
    put_space(&line, "shm_objects", fresh->shm_objects_bytes, end->shm_objects_bytes,
              settled->shm_objects_bytes);
    vex_line_count(&line, "dead_rows_fresh", fresh->dead_rows);
    vex_line_count(&line, "dead_rows_end", end->dead_rows);
    vex_line_count(&line, "dead_rows_settled", settled->dead_rows);
    vex_line_text(&line, "settled", churn->settled ? "yes" : "no, still changing");
    vex_line_real(&line, "settle_s", churn->settle_s);
    return vex_line_end(&line);
}

static bool print_all(struct churn *churn)
{
    bool printed = true;
    for (int i = 0; i < PHASES && printed; i++) {
        printed = print_searches(churn, (enum phase)i);
    }
    return printed && print_updates(churn) && print_space(churn);
}

static bool run_turnover(const struct vex_bench_value *values)
{
    static const enum vex_metric metrics[] = {VEX_METRIC_L2, VEX_METRIC_COSINE, VEX_METRIC_DOT};
    static const enum vex_index_kind indexes[] = {VEX_INDEX_FLAT, VEX_INDEX_HNSW, VEX_INDEX_IVF};
    static const struct vex_bench_value no_effort = {.text = "0", .list_count = 1};
    struct vex_turnover_options how = {
        .base = &values[BASE],
        .query = &values[QUERY],
        .dir = &values[DIR],
        .efforts = &values[EFFORT],
        .rows_max = values[LIMIT].given ? (size_t)values[LIMIT].count : INT32_MAX,
        .metric = metrics[values[METRIC].count],
        .index = indexes[values[INDEX].count],
        .turnovers = values[TURNOVERS].count,
        .batch_rows = values[BATCH].count,
        .passes = values[PASSES].count,
        .still_s = values[STILL].seconds,
        .rest_s = values[SETTLE].seconds,
    };
    if (how.index == VEX_INDEX_FLAT) {
        how.efforts = &no_effort;
    }
    if (!values[QUERY].given) {
        return vex_bench_fail("give --query with --base, files that end in .fvecs or .bvecs");
    }
    return vex_turnover_run(&how);
}

static bool run(const struct vex_bench_value *values)
{
    if (values[BASE].given || values[QUERY].given) {
        return values[BASE].given ? run_turnover(values)
                                  : vex_bench_fail("--query goes with --base, which is missing");
    }
    struct churn *churn = vex_bench_alloc(1, sizeof(*churn));
    churn->values = values;
    churn->dim = (uint32_t)values[DIM].count;
    double batch_bytes = (double)values[BATCH].count * ((double)values[DIM].count * 4 + 8);
    bool sound =
        batch_bytes <= VEX_BATCH_BYTES_MAX ||
        vex_bench_fail("a batch of %s vectors of %s is larger than %u bytes; lower --batch",
                       values[BATCH].text, values[DIM].text, VEX_BATCH_BYTES_MAX);
    sound = sound && vex_instance_open(&churn->instance, &values[DIR]) && run_phases(churn) &&
            print_all(churn);
    for (int i = 0; i < PHASES; i++) {
        vex_samples_deinit(&churn->searches_us[i]);
    }
    vex_samples_deinit(&churn->updates_us);
    vex_collection_close(churn->collection);
    vex_instance_close(&churn->instance);
    free(churn);
    return sound;
}

const struct vex_bench vex_bench_churn = {
    "churn",
    "searches and space under ceaseless updates",
    options,
    run,
};
