/*
 * vexbench live: what searches keep of their rate while rows arrive, and whether rows are found at once.
 *
 * The collection is built from most of the base; the rest of it arrives during the run, one durable insert
 * a call, at a given rate. Phases without and with arrivals alternate, each pair making its own ratio, and
 * before each quiet phase the daemon finishes its work in the background: what is left from the arrivals
 * would slow the searches that they are compared with. Here the time is that of the clock: the question is
 * what a user gets, and that includes a search which has to wait.
 *
 * The searching thread has a core to itself as far as this program can see to that: writers, and unless
 * told otherwise the daemon, are kept on the other ones.
 *
 * After some of the acknowledgements the writer searches for the row that it has just inserted, through
 * the index like any search: it must be among the hits.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <vex/vex.h>

#include "tests/bench/bench.h"
#include "tests/bench/common.h"
#include "tests/bench/crew.h"
#include "tests/bench/instance.h"
#include "tests/bench/sides.h"
#include "tests/bench/vectors.h"

#define COLLECTION "live"
#define K 10u
#define WRITERS_MAX 16u

enum {
    BASE,
    QUERY,
    METRIC,
    INDEX,
    EFFORT,
    RATE,
    WRITERS,
    SECONDS,
    ROUNDS,
    CHECK,
    DAEMON,
    STILL,
    SETTLE,
    LIMIT,
    DIR
};

static const struct vex_bench_option options[] = {
    [BASE] = {"base", VEX_BENCH_TEXT, "FILE", NULL, 0, 0,
              "vectors, .fvecs or .bvecs; the last ones arrive during the run; needed"},
    [QUERY] = {"query", VEX_BENCH_TEXT, "FILE", NULL, 0, 0, "queries, as the base; needed"},
    [METRIC] = {"metric", VEX_BENCH_WORD, "l2|cosine", "l2", 0, 0, "distance"},
    [INDEX] = {"index", VEX_BENCH_WORD, "flat|hnsw|ivf", "hnsw", 0, 0, "how it is searched"},
    [EFFORT] = {"effort", VEX_BENCH_COUNT, "N", "64", 1, VEX_EF_SEARCH_MAX,
                "ef_search of hnsw, nprobe of ivf"},
    [RATE] = {"rate", VEX_BENCH_COUNT, "N", "5000", 1, 1e6, "inserts a second, of all writers"},
    [WRITERS] = {"writers", VEX_BENCH_COUNT, "N", "1", 1, WRITERS_MAX,
                 "threads that insert, each with its own connection"},
    [SECONDS] = {"seconds", VEX_BENCH_SECONDS, "S", "3", 0.1, 3600, "length of a phase"},
    [ROUNDS] = {"rounds", VEX_BENCH_COUNT, "N", "5", 3, 1000, "pairs of phases"},
    [CHECK] = {"check-every", VEX_BENCH_COUNT, "N", "20", 1, 1e6,
               "inserts of a writer, of which one row is searched for"},
    [DAEMON] = {"daemon-cores", VEX_BENCH_WORD, "others|all", "others", 0, 0,
                "cores of the daemon: all but that of the searches, or all"},
    [STILL] = {"still-seconds", VEX_BENCH_SECONDS, "S", "0.5", 0.1, 3600,
               "the daemon is at rest when it did nothing for so long"},
    [SETTLE] = {"settle-seconds", VEX_BENCH_SECONDS, "S", "60", 0.1, 3600,
                "and is waited for so long at most"},
    [LIMIT] = {"limit", VEX_BENCH_COUNT, "N", NULL, 1, 1e9, "only the first rows of the base"},
    [DIR] = VEX_BENCH_OPTION_DIR,
    {0},
};

static const enum vex_metric metrics[] = {VEX_METRIC_L2, VEX_METRIC_COSINE};
static const enum vex_index_kind indexes[] = {VEX_INDEX_FLAT, VEX_INDEX_HNSW, VEX_INDEX_IVF};

/* Searches of one phase. */
struct phase {
    uint64_t searches;
    double wall_s;
    double cpu_s;
};

struct writer {
    struct vex_db *db;
    struct vex_collection *collection;
    uint64_t inserts;
    uint64_t checked;
    uint64_t missed;
    struct vex_samples inserts_us;
};

/* Over all rounds. */
struct outcome {
    struct vex_samples searches_us[2]; /* quiet, loaded; as everything here with 2 */
    struct vex_samples rates[2];
    struct vex_samples ratios;
    struct vex_samples cpu_ratios;
    struct vex_samples first_ratios; /* to the first quiet phase */
    double first_rate;
    struct vex_samples inserts_s;
    double daemon_s; /* processor time while loaded */
    double loaded_s;
    uint64_t unrested; /* rounds that began before the daemon was at rest */
};

struct live {
    const struct vex_bench_value *values;
    struct vex_vectors base;
    struct vex_vectors queries;
    size_t rows;         /* of the base, there before anything arrives */
    uint64_t phase_rows; /* that arrive in a phase */
    struct vex_instance instance;
    struct vex_ours ours;
    struct writer writers[WRITERS_MAX];
    uint64_t round;
    bool is_loaded;
    struct phase phase;
    size_t next_query;
    struct outcome outcome;
};

static double seconds_since(uint64_t start_ns)
{
    return (double)(vex_bench_clock_ns() - start_ns) * 1e-9;
}

/* ---- searching ------------------------------------------------------------------------------- */

static bool search_once(struct live *live)
{
    struct vex_search_options how = vex_ours_options(&live->ours, live->values[EFFORT].count);
    struct vex_search_info info;
    uint64_t ids[K];
    uint64_t start_ns = vex_bench_clock_ns();
    size_t query = live->next_query++ % live->queries.rows;
    if (!vex_ours_search(&live->ours, query, 1, &how, ids, &info)) {
        return false;
    }
    vex_samples_add(&live->outcome.searches_us[live->is_loaded], seconds_since(start_ns) * 1e6);
    live->phase.searches++;
    return live->ours.counts[0] == K ||
           vex_bench_fail("a search found %u rows", live->ours.counts[0]);
}

static bool be_searcher(struct live *live)
{
    double seconds = live->values[SECONDS].seconds;
    uint64_t start_ns = vex_bench_clock_ns();
    double start_s = vex_bench_thread_seconds();
    bool sound = true;
    while (sound && seconds_since(start_ns) < seconds && !vex_bench_stopped()) {
        sound = search_once(live);
    }
    live->phase.wall_s = seconds_since(start_ns);
    live->phase.cpu_s = vex_bench_thread_seconds() - start_s;
    return sound;
}

/* ---- arriving -------------------------------------------------------------------------------- */

static const float *row_of(const struct live *live, uint64_t id)
{
    return live->base.values + id * live->base.dim;
}

/* A row that has more than k equals may not be among the hits: then they all are its equals. */
static bool check_arrived(struct live *live, struct writer *writer, uint64_t id)
{
    size_t vector_bytes = live->base.dim * sizeof(float);
    uint64_t ids[K];
    float distances[K];
    uint32_t count = 0;
    struct vex_results results = {
        .size = sizeof(results), .ids = ids, .distances = distances, .counts = &count};
    struct vex_search_options how = vex_ours_options(&live->ours, live->values[EFFORT].count);
    struct vex_error error;
    if (vex_search(writer->collection, row_of(live, id), 1, live->base.dim, &how, &results, NULL,
                   &error) != VEX_OK) {
        return vex_bench_fail("search: %s", error.message);
    }
    bool found = false;
    bool all_equal = count == K;
    for (uint32_t i = 0; i < count; i++) {
        found = found || ids[i] == id;
        all_equal = all_equal && ids[i] < live->base.rows &&
                    memcmp(row_of(live, ids[i]), row_of(live, id), vector_bytes) == 0;
    }
    writer->checked++;
    writer->missed += !found && !all_equal;
    return true;
}

static bool insert(struct live *live, struct writer *writer, uint64_t id)
{
    struct vex_error error;
    uint64_t start_ns = vex_bench_clock_ns();
    if (vex_insert(writer->collection, &id, row_of(live, id), live->base.dim, NULL, 0, NULL,
                   &error) != VEX_OK) {
        return vex_bench_fail("insert: %s", error.message);
    }
    vex_samples_add(&writer->inserts_us, seconds_since(start_ns) * 1e6);
    return writer->inserts++ % live->values[CHECK].count != 0 || check_arrived(live, writer, id);
}

/* Each row has its moment, whatever became of those before: a writer that is late hurries. */
static bool be_writer(struct live *live, unsigned index)
{
    struct writer *writer = &live->writers[index];
    uint64_t start_ns = vex_bench_clock_ns();
    double pause_ns = 1e9 / (double)live->values[RATE].count;
    uint64_t first = live->rows + live->round * live->phase_rows;
    bool sound = true;
    for (uint64_t at = index; at < live->phase_rows && sound && !vex_bench_stopped();
         at += live->values[WRITERS].count) {
        uint64_t due_ns = start_ns + (uint64_t)((double)at * pause_ns);
        struct timespec due = {(time_t)(due_ns / 1000000000u), (long)(due_ns % 1000000000u)};
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL) == EINTR &&
               !vex_bench_stopped()) {
        }
        if (seconds_since(start_ns) >= live->values[SECONDS].seconds) {
            break; /* so late that the phase is over: what is left does not arrive */
        }
        sound = insert(live, writer, first + at);
    }
    return sound;
}

static bool work(struct vex_crew *crew, void *context, unsigned index)
{
    struct live *live = context;
    if (index == 0) {
        (void)vex_core_take(0);
    } else {
        vex_core_leave(0);
    }
    if (!vex_crew_ready(crew)) {
        return true;
    }
    return index == 0 ? be_searcher(live) : be_writer(live, index - 1);
}

/* ---- phases ---------------------------------------------------------------------------------- */

static uint64_t inserts_of(const struct live *live)
{
    uint64_t inserts = 0;
    for (size_t i = 0; i < WRITERS_MAX; i++) {
        inserts += live->writers[i].inserts;
    }
    return inserts;
}

static bool run_phase(struct live *live, bool is_loaded)
{
    struct outcome *outcome = &live->outcome;
    double daemon_s = vex_instance_daemon_seconds(&live->instance);
    uint64_t inserts = inserts_of(live);
    unsigned writers = is_loaded ? (unsigned)live->values[WRITERS].count : 0;
    live->is_loaded = is_loaded;
    live->phase = (struct phase){0};
    if (!vex_crew_run(1 + writers, work, live) || vex_bench_stopped()) {
        return false;
    }
    vex_samples_add(&outcome->rates[is_loaded], (double)live->phase.searches / live->phase.wall_s);
    if (is_loaded) {
        outcome->daemon_s += vex_instance_daemon_seconds(&live->instance) - daemon_s;
        outcome->loaded_s += live->phase.wall_s;
        vex_samples_add(&outcome->inserts_s,
                        (double)(inserts_of(live) - inserts) / live->phase.wall_s);
    }
    return true;
}

static bool run_round(struct live *live)
{
    struct outcome *outcome = &live->outcome;
    bool rested = false;
    if (!vex_instance_rest(&live->instance, live->values[STILL].seconds,
                           live->values[SETTLE].seconds, &rested) ||
        !run_phase(live, false)) {
        return false;
    }
    struct phase quiet = live->phase;
    if (!run_phase(live, true)) {
        return false;
    }
    struct phase loaded = live->phase;
    double quiet_rate = (double)quiet.searches / quiet.wall_s;
    double loaded_rate = (double)loaded.searches / loaded.wall_s;
    outcome->first_rate = live->round == 0 ? quiet_rate : outcome->first_rate;
    outcome->unrested += !rested;
    vex_samples_add(&outcome->ratios, loaded_rate / quiet_rate);
    vex_samples_add(&outcome->first_ratios, loaded_rate / outcome->first_rate);
    vex_samples_add(&outcome->cpu_ratios, ((double)loaded.searches / loaded.cpu_s) /
                                              ((double)quiet.searches / quiet.cpu_s));
    return true;
}

/* ---- lines ----------------------------------------------------------------------------------- */

static void put_searches(struct live *live, struct vex_line *line)
{
    static const char *const keys[2][4] = {
        {"quiet_searches", "quiet_queries_s", "quiet_p50_us", "quiet_p99_us"},
        {"loaded_searches", "loaded_queries_s", "loaded_p50_us", "loaded_p99_us"},
    };
    for (int i = 0; i < 2; i++) {
        struct vex_samples *samples = &live->outcome.searches_us[i];
        vex_line_count(line, keys[i][0], samples->count);
        vex_line_real(line, keys[i][1], vex_samples_median(&live->outcome.rates[i]));
        vex_line_real(line, keys[i][2], vex_samples_median(samples));
        vex_line_real(line, keys[i][3], vex_samples_quantile(samples, 0.99));
    }
    vex_line_spread(line, "ratio", &live->outcome.ratios);
    vex_line_real(line, "cpu_ratio", vex_samples_median(&live->outcome.cpu_ratios));
    vex_line_real(line, "first_ratio", vex_samples_median(&live->outcome.first_ratios));
}

static bool print_searches(struct live *live, const struct vex_collection_info *info)
{
    struct vex_line line;
    vex_line_begin(&line, "search");
    vex_line_text(&line, "metric", vex_metric_name(info->metric));
    vex_line_text(&line, "index", vex_index_name(info->index));
    vex_line_count(&line, "dim", info->dim);
    vex_line_count(&line, "rows_before", live->rows);
    vex_line_count(&line, "rows_after", info->count);
    vex_line_count(&line, "k", K);
    vex_line_count(&line, "effort", info->index == VEX_INDEX_FLAT ? 0 : live->values[EFFORT].count);
    vex_line_count(&line, "rounds", live->outcome.ratios.count);
    vex_line_count(&line, "unrested", live->outcome.unrested);
    put_searches(live, &line);
    return vex_line_end(&line);
}

static bool print_inserts(struct live *live, const struct vex_collection_info *info)
{
    struct outcome *outcome = &live->outcome;
    struct vex_samples inserts_us = {0};
    uint64_t checked = 0;
    uint64_t missed = 0;
    for (size_t i = 0; i < WRITERS_MAX; i++) {
        vex_samples_append(&inserts_us, &live->writers[i].inserts_us);
        checked += live->writers[i].checked;
        missed += live->writers[i].missed;
    }
    struct vex_line line;
    vex_line_begin(&line, "arrival");
    vex_line_count(&line, "rate", live->values[RATE].count);
    vex_line_count(&line, "writers", live->values[WRITERS].count);
    vex_line_text(&line, "daemon_on", live->values[DAEMON].text);
    vex_line_spread(&line, "inserts_s", &outcome->inserts_s);
    vex_line_real(&line, "p50_us", vex_samples_median(&inserts_us));
    vex_line_real(&line, "p99_us", vex_samples_quantile(&inserts_us, 0.99));
    vex_line_real(&line, "daemon_cores", outcome->daemon_s / outcome->loaded_s);
    vex_line_count(&line, "inserts", inserts_us.count);
    vex_line_count(&line, "checked", checked);
    vex_line_count(&line, "missed", missed);
    vex_line_count(&line, "segments", info->segments);
    vex_line_count(&line, "graphs", info->graphs);
    vex_samples_deinit(&inserts_us);
    return vex_line_end(&line) &&
           (missed == 0 || vex_bench_fail("%llu of %llu rows were not found after their "
                                          "acknowledgement",
                                          (unsigned long long)missed, (unsigned long long)checked));
}

static bool print_all(struct live *live)
{
    struct vex_collection_info info = {.size = sizeof(info)};
    struct vex_error error;
    if (vex_collection_describe(live->ours.collection, &info, &error) != VEX_OK) {
        return vex_bench_fail("describe: %s", error.message);
    }
    uint64_t expected = live->rows + inserts_of(live);
    return print_searches(live, &info) && print_inserts(live, &info) &&
           (info.count == expected ||
            vex_bench_fail("%llu vectors are there, %llu were inserted",
                           (unsigned long long)info.count, (unsigned long long)expected));
}

/* ---- the run --------------------------------------------------------------------------------- */

static bool read_data(struct live *live)
{
    const struct vex_bench_value *values = live->values;
    if (!values[BASE].given || !values[QUERY].given) {
        return vex_bench_fail("give --base and --query, files that end in .fvecs or .bvecs");
    }
    size_t rows_max = values[LIMIT].given ? (size_t)values[LIMIT].count : INT32_MAX;
    if (!vex_vectors_read(&live->base, "base", values[BASE].text, false, rows_max) ||
        !vex_vectors_read(&live->queries, "query", values[QUERY].text, false, INT32_MAX)) {
        return false;
    }
    if (live->base.dim != live->queries.dim) {
        return vex_bench_fail("--query %s: vectors of %u; those of the base have %u values",
                              values[QUERY].text, live->queries.dim, live->base.dim);
    }
    double phase_rows = (double)values[RATE].count * values[SECONDS].seconds;
    double rows = (double)live->base.rows - phase_rows * (double)values[ROUNDS].count;
    if (phase_rows < 1 || rows < K) {
        return vex_bench_fail("--base: %zu rows; at this --rate %.0f would arrive in each of %s "
                              "rounds, which leaves less than %u; lower --seconds or --rounds",
                              live->base.rows, phase_rows, values[ROUNDS].text, K);
    }
    live->phase_rows = (uint64_t)phase_rows;
    live->rows = live->base.rows - (size_t)(live->phase_rows * values[ROUNDS].count);
    return true;
}

static bool build(struct live *live)
{
    struct vex_collection_options how = VEX_COLLECTION_OPTIONS_INIT;
    how.dim = live->base.dim;
    how.metric = metrics[live->values[METRIC].count];
    how.index = indexes[live->values[INDEX].count];
    struct vex_vectors before = live->base;
    before.rows = live->rows;
    live->ours = (struct vex_ours){
        .instance = &live->instance,
        .queries = &live->queries,
        .k = K,
        .batch = 1,
        .how = VEX_SEARCH_OPTIONS_INIT,
    };
    vex_bench_note("building");
    if (!vex_ours_build(&live->ours, COLLECTION, &how, &before)) {
        return false;
    }
    struct vex_error error;
    for (size_t i = 0; i < live->values[WRITERS].count; i++) {
        struct writer *writer = &live->writers[i];
        if (!vex_instance_connect(&live->instance, &writer->db)) {
            return false;
        }
        if (vex_collection_open(writer->db, COLLECTION, &writer->collection, &error) != VEX_OK) {
            return vex_bench_fail("open the collection: %s", error.message);
        }
    }
    return true;
}

static void end(struct live *live)
{
    struct outcome *outcome = &live->outcome;
    struct vex_samples *samples[] = {
        &outcome->searches_us[0], &outcome->searches_us[1], &outcome->rates[0],
        &outcome->rates[1],       &outcome->ratios,         &outcome->cpu_ratios,
        &outcome->first_ratios,   &outcome->inserts_s,
    };
    for (size_t i = 0; i < sizeof(samples) / sizeof(*samples); i++) {
        vex_samples_deinit(samples[i]);
    }
    for (size_t i = 0; i < WRITERS_MAX; i++) {
        vex_samples_deinit(&live->writers[i].inserts_us);
        vex_collection_close(live->writers[i].collection);
        vex_close(live->writers[i].db);
    }
    vex_ours_close(&live->ours);
    vex_instance_close(&live->instance);
    vex_vectors_free(&live->base);
    vex_vectors_free(&live->queries);
    vex_core_release();
    free(live);
}

static bool run(const struct vex_bench_value *values)
{
    struct live *live = vex_bench_alloc(1, sizeof(*live));
    live->values = values;
    bool sound = read_data(live);
    if (sound && strcmp(values[DAEMON].text, "others") == 0) {
        vex_core_leave(0); /* the daemon inherits it */
    }
    sound = sound && vex_instance_open(&live->instance, &values[DIR]);
    vex_core_release();
    sound = sound && build(live);
    for (; live->round < values[ROUNDS].count && sound; live->round++) {
        vex_bench_note("round %llu of %s", (unsigned long long)live->round + 1,
                       values[ROUNDS].text);
        sound = run_round(live);
    }
    sound = sound && print_all(live);
    end(live);
    return sound;
}

const struct vex_bench vex_bench_live = {
    "live",
    "searches while rows arrive",
    options,
    run,
};
