/*
 * Replacing every id under searches, and what that leaves; the idea is in turnover.h.
 *
 * One thread writes and one searches, on a core of its own. They share two numbers, that of the last batch
 * which has been sent and that of the last which has been acknowledged: from these, read before and after
 * a search, follows which versions it may have seen.
 */
#include "tests/bench/turnover.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/answers.h"
#include "tests/bench/common.h"
#include "tests/bench/contest.h"
#include "tests/bench/crew.h"
#include "tests/bench/instance.h"
#include "tests/bench/recall.h"
#include "tests/bench/sides.h"
#include "tests/bench/vectors.h"
#include "tests/bench/versions.h"

#define K 10u
#define SNAPSHOT_EVERY 50u /* searches, of which one is repeated exactly */

struct found {
    uint64_t searches;
    uint64_t hits;
    uint64_t dead;     /* of these: of no version that can have been alive */
    uint64_t twice;    /* ids named twice in one answer */
    uint64_t unfilled; /* answers of less than k */
    uint64_t exact_searches;
    uint64_t exact_hits;
    uint64_t exact_found;
    double cpu_s;
    double wall_s;
    struct vex_samples latencies_us;
};

struct turnover {
    const struct vex_turnover_options *options;
    struct vex_vectors base;
    struct vex_vectors final; /* as the ids have them at the end */
    struct vex_vectors queries;
    struct vex_versions versions;
    struct vex_instance instance;
    struct vex_ours churned;
    struct vex_ours fresh;
    struct vex_truth truth; /* of the final rows */
    struct vex_truth given; /* of the base, for distances */
    uint64_t *found_rows;
    struct vex_samples updates_us;
    double updates_s;
    struct found found;
    bool rested;
    pthread_mutex_t lock; /* guards what follows */
    uint32_t sent;        /* batches */
    uint32_t acknowledged;
    bool ended;  /* by the writer */
    bool failed; /* to search */
};

/* ---- writing --------------------------------------------------------------------------------- */

static void copy_row(const struct turnover *turnover, uint64_t version, uint64_t id, float *to)
{
    size_t row = turnover->versions.vectors[version * turnover->versions.rows + id];
    uint32_t dim = turnover->base.dim;
    memcpy(to, turnover->base.values + row * dim, dim * sizeof(*to));
}

static void tell_sent(struct turnover *turnover)
{
    (void)pthread_mutex_lock(&turnover->lock);
    turnover->sent++;
    (void)pthread_mutex_unlock(&turnover->lock);
}

/* False if nobody searches any more. */
static bool tell_acknowledged(struct turnover *turnover)
{
    (void)pthread_mutex_lock(&turnover->lock);
    turnover->acknowledged++;
    bool failed = turnover->failed;
    (void)pthread_mutex_unlock(&turnover->lock);
    return !failed;
}

static bool write_batch(struct turnover *turnover, const struct vex_batch *batch)
{
    struct vex_error error;
    tell_sent(turnover);
    uint64_t start_ns = vex_bench_clock_ns();
    if (vex_write(turnover->churned.collection, VEX_WRITE_UPDATE, batch, NULL, &error) != VEX_OK) {
        return vex_bench_fail("update: %s", error.message);
    }
    vex_samples_add(&turnover->updates_us, (double)(vex_bench_clock_ns() - start_ns) * 1e-3);
    return tell_acknowledged(turnover) && !vex_bench_stopped();
}

static bool write_version(struct turnover *turnover, uint64_t version, uint64_t *ids,
                          float *vectors)
{
    size_t rows = turnover->base.rows;
    const uint32_t *order = turnover->versions.order + version * rows;
    uint32_t dim = turnover->base.dim;
    bool sound = true;
    for (size_t at = 0; at < rows && sound; at += turnover->options->batch_rows) {
        size_t left = rows - at;
        struct vex_batch batch = VEX_BATCH_INIT;
        batch.count = left < turnover->options->batch_rows ? left : turnover->options->batch_rows;
        batch.ids = ids;
        batch.vectors = vectors;
        batch.dim = dim;
        for (size_t i = 0; i < batch.count; i++) {
            ids[i] = order[at + i];
            copy_row(turnover, version, ids[i], vectors + i * dim);
        }
        sound = write_batch(turnover, &batch);
    }
    return sound;
}

static bool write_all(struct turnover *turnover)
{
    size_t batch_rows = turnover->options->batch_rows;
    uint64_t *ids = vex_bench_alloc(batch_rows, sizeof(*ids));
    float *vectors = vex_bench_alloc(batch_rows * turnover->base.dim, sizeof(*vectors));
    bool sound = true;
    uint64_t start_ns = vex_bench_clock_ns();
    for (uint64_t version = 1; version < turnover->versions.count && sound; version++) {
        vex_bench_note("round %llu of %llu", (unsigned long long)version,
                       (unsigned long long)turnover->options->turnovers);
        sound = write_version(turnover, version, ids, vectors);
    }
    turnover->updates_s = (double)(vex_bench_clock_ns() - start_ns) * 1e-9;
    free(ids);
    free(vectors);
    (void)pthread_mutex_lock(&turnover->lock);
    turnover->ended = true;
    (void)pthread_mutex_unlock(&turnover->lock);
    return sound;
}

/* ---- judging --------------------------------------------------------------------------------- */

/* As libvex hands them out: dot products are larger when nearer. */
static bool has_distance(const struct turnover *turnover, size_t query, uint64_t row, float given)
{
    double distance = vex_truth_distance(&turnover->given, query, row);
    distance = turnover->options->metric == VEX_METRIC_DOT ? -distance : distance;
    double slack = 1e-6 * fabs(distance);
    slack += turnover->options->metric == VEX_METRIC_L2 ? 0 : 1e-6;
    return fabs(distance - (double)given) <= slack;
}

/* Some version that can have been alive between `acknowledged` before the search and `sent` after it. */
static bool can_be(const struct turnover *turnover, size_t query, uint64_t id, float distance,
                   uint32_t acknowledged, uint32_t sent)
{
    const struct vex_versions *versions = &turnover->versions;
    for (uint64_t version = 0; version < versions->count && id < versions->rows; version++) {
        if (vex_versions_can_live(versions, version, id, acknowledged, sent) &&
            has_distance(turnover, query, versions->vectors[version * versions->rows + id],
                         distance)) {
            return true;
        }
    }
    return false;
}

static void judge(struct turnover *turnover, size_t query, const uint64_t *ids,
                  uint32_t acknowledged, uint32_t sent)
{
    struct found *found = &turnover->found;
    uint32_t count = turnover->churned.counts[0];
    found->searches++;
    found->hits += count;
    found->unfilled += count < K;
    for (uint32_t i = 0; i < count; i++) {
        float distance = turnover->churned.distances[i];
        if (!can_be(turnover, query, ids[i], distance, acknowledged, sent)) {
            if (found->dead++ == 0) {
                (void)vex_bench_fail("search %llu, query %zu: id %llu at %.9g is dead; batches "
                                     "acknowledged before %u, sent until the end %u",
                                     (unsigned long long)found->searches, query,
                                     (unsigned long long)ids[i], (double)distance, acknowledged,
                                     sent);
            }
        }
        for (uint32_t j = 0; j < i; j++) {
            found->twice += ids[i] == ids[j];
        }
    }
}

/* ---- searching ------------------------------------------------------------------------------- */

static uint64_t middle_effort(const struct vex_turnover_options *options)
{
    return options->efforts->list[options->efforts->list_count / 2];
}

/* How much of what is there at one moment a search finds at that moment. */
static bool search_snapshot(struct turnover *turnover, size_t query)
{
    struct vex_ours *ours = &turnover->churned;
    struct vex_search_options how = vex_ours_options(ours, middle_effort(turnover->options));
    struct vex_search_info info;
    struct vex_error error;
    uint64_t ids[K];
    float distances[K];
    if (vex_snapshot_open(ours->collection, NULL, &how.read.snapshot, &error) != VEX_OK) {
        return vex_bench_fail("snapshot: %s", error.message);
    }
    bool sound = vex_ours_search(ours, query, 1, &how, ids, &info);
    memcpy(distances, ours->distances, sizeof(distances));
    uint32_t count = sound ? ours->counts[0] : 0;
    how.exact = true;
    sound = sound && vex_ours_search(ours, query, 1, &how, ids, &info);
    vex_snapshot_close(how.read.snapshot);
    if (!sound || ours->counts[0] < K) {
        return sound;
    }
    float limit = ours->distances[K - 1];
    turnover->found.exact_searches++;
    turnover->found.exact_hits += K;
    for (uint32_t i = 0; i < count; i++) {
        bool counts = turnover->options->metric == VEX_METRIC_DOT ? distances[i] >= limit
                                                                  : distances[i] <= limit;
        turnover->found.exact_found += counts;
    }
    return true;
}

static bool search_one(struct turnover *turnover, size_t query, bool *out_ended)
{
    struct vex_ours *ours = &turnover->churned;
    struct vex_search_options how = vex_ours_options(ours, middle_effort(turnover->options));
    struct vex_search_info info;
    uint64_t ids[K];
    (void)pthread_mutex_lock(&turnover->lock);
    uint32_t acknowledged = turnover->acknowledged;
    (void)pthread_mutex_unlock(&turnover->lock);
    uint64_t start_ns = vex_bench_clock_ns();
    double start_s = vex_bench_thread_seconds();
    if (!vex_ours_search(ours, query, 1, &how, ids, &info)) {
        return false;
    }
    turnover->found.cpu_s += vex_bench_thread_seconds() - start_s;
    double wall_s = (double)(vex_bench_clock_ns() - start_ns) * 1e-9;
    turnover->found.wall_s += wall_s;
    vex_samples_add(&turnover->found.latencies_us, wall_s * 1e6);
    (void)pthread_mutex_lock(&turnover->lock);
    uint32_t sent = turnover->sent;
    *out_ended = turnover->ended;
    (void)pthread_mutex_unlock(&turnover->lock);
    judge(turnover, query, ids, acknowledged, sent);
    return true;
}

static bool search_all(struct turnover *turnover)
{
    bool ended = false;
    bool sound = true;
    (void)vex_core_take(0);
    for (size_t i = 0; !ended && sound && !vex_bench_stopped(); i++) {
        size_t query = i % turnover->queries.rows;
        sound = search_one(turnover, query, &ended);
        if (sound && i % SNAPSHOT_EVERY == 0) {
            sound = search_snapshot(turnover, query);
        }
    }
    (void)pthread_mutex_lock(&turnover->lock);
    turnover->failed = !sound;
    (void)pthread_mutex_unlock(&turnover->lock);
    return sound;
}

static bool work(struct vex_crew *crew, void *context, unsigned index)
{
    struct turnover *turnover = context;
    if (!vex_crew_ready(crew)) {
        return true;
    }
    return index == 0 ? write_all(turnover) : search_all(turnover);
}

/* ---- what it led to -------------------------------------------------------------------------- */

static bool print_turnover(struct turnover *turnover)
{
    struct found *found = &turnover->found;
    double updates = (double)turnover->base.rows * (double)turnover->options->turnovers;
    struct vex_line line;
    vex_contest_line(&turnover->truth, &line, "turnover");
    vex_line_text(&line, "index", vex_index_name(turnover->options->index));
    vex_line_count(&line, "turnovers", turnover->options->turnovers);
    vex_line_count(&line, "items", turnover->options->batch_rows);
    vex_line_real(&line, "vectors_s", updates / turnover->updates_s);
    vex_line_real(&line, "update_p50_us", vex_samples_median(&turnover->updates_us));
    vex_line_real(&line, "update_p99_us", vex_samples_quantile(&turnover->updates_us, 0.99));
    vex_line_count(&line, "effort", middle_effort(turnover->options));
    vex_line_count(&line, "searches", found->searches);
    vex_line_real(&line, "queries_s", (double)found->searches / found->cpu_s);
    vex_line_real(&line, "p50_us", vex_samples_median(&found->latencies_us));
    vex_line_real(&line, "p99_us", vex_samples_quantile(&found->latencies_us, 0.99));
    vex_line_real(&line, "core_share", found->cpu_s / found->wall_s);
    vex_line_count(&line, "hits", found->hits);
    vex_line_count(&line, "dead", found->dead);
    vex_line_count(&line, "twice", found->twice);
    vex_line_count(&line, "unfilled", found->unfilled);
    vex_line_count(&line, "recall_searches", found->exact_searches);
    vex_line_share(&line, "recall", (double)found->exact_found / (double)found->exact_hits);
    return vex_line_end(&line);
}

static bool check_found(const struct turnover *turnover)
{
    const struct found *found = &turnover->found;
    return (found->dead == 0 && found->twice == 0 && found->unfilled == 0) ||
           vex_bench_fail("searches found %llu dead rows, ids twice %llu times, and less than %u "
                          "rows %llu times",
                          (unsigned long long)found->dead, (unsigned long long)found->twice, K,
                          (unsigned long long)found->unfilled);
}

/* Every id is there, with the vector that it got last. */
static bool check_rows(const struct turnover *turnover)
{
    struct vex_collection *collection = turnover->churned.collection;
    size_t vector_bytes = turnover->base.dim * sizeof(float);
    struct vex_snapshot *snapshot = NULL;
    struct vex_error error;
    uint64_t count = 0;
    if (vex_count(collection, NULL, &count, &error) != VEX_OK ||
        vex_snapshot_open(collection, NULL, &snapshot, &error) != VEX_OK) {
        return vex_bench_fail("after the updates: %s", error.message);
    }
    bool sound = count == turnover->base.rows ||
                 vex_bench_fail("%llu vectors are there after the updates, not %zu",
                                (unsigned long long)count, turnover->base.rows);
    for (size_t id = 0; id < turnover->base.rows && sound; id++) {
        struct vex_record record = {.size = sizeof(record)};
        const float *expected = turnover->final.values + id * turnover->base.dim;
        if (vex_snapshot_get(snapshot, id, &record, &error) != VEX_OK) {
            sound = vex_bench_fail("get id %zu: %s", id, error.message);
        } else if (memcmp(record.vector, expected, vector_bytes) != 0) {
            sound = vex_bench_fail("id %zu does not have the vector of its last update", id);
        }
    }
    vex_snapshot_close(snapshot);
    return sound;
}

/* ---- against a fresh build ------------------------------------------------------------------- */

static bool print_aged(struct turnover *turnover, const char *stage, struct vex_contest *contest,
                       size_t at)
{
    struct vex_contest_point *aged = &contest->sides[0].points[at];
    struct vex_contest_point *fresh = &contest->sides[1].points[at];
    struct vex_samples ratios = {0};
    for (size_t i = 0; i < aged->rates.count; i++) { /* pass by pass, before a median sorts them */
        vex_samples_add(&ratios, aged->rates.values[i] / fresh->rates.values[i]);
    }
    const struct vex_collection_info *info = &turnover->churned.info;
    struct vex_line line;
    vex_contest_line(&turnover->truth, &line, "aged");
    vex_line_text(&line, "index", vex_index_name(turnover->options->index));
    vex_line_count(&line, "turnovers", turnover->options->turnovers);
    vex_line_text(&line, "stage", stage);
    vex_line_count(&line, "segments", info->segments);
    vex_line_count(&line, "dead_rows", info->dead);
    vex_line_real(&line, "memory_ratio",
                  (double)info->shm_bytes / (double)turnover->fresh.info.shm_bytes);
    vex_line_count(&line, "effort", aged->effort);
    vex_line_share(&line, "recall", aged->recall);
    vex_line_share(&line, "fresh_recall", fresh->recall);
    vex_line_share(&line, "recall_loss", fresh->recall - aged->recall);
    vex_line_real(&line, "queries_s", vex_samples_median(&aged->rates));
    vex_line_real(&line, "fresh_queries_s", vex_samples_median(&fresh->rates));
    vex_line_spread(&line, "ratio", &ratios);
    vex_line_count(&line, "passes", ratios.count);
    vex_samples_deinit(&ratios);
    return vex_line_end(&line);
}

static bool print_aged_ratio(struct turnover *turnover, const char *stage,
                             struct vex_contest *contest, int target)
{
    static const double targets[VEX_CONTEST_TARGETS] = {0.95, 0.99}; /* as the contest has them */
    struct vex_contest_side *aged = &contest->sides[0];
    struct vex_contest_side *fresh = &contest->sides[1];
    struct vex_line line;
    vex_contest_line(&turnover->truth, &line, "aged_ratio");
    vex_line_text(&line, "index", vex_index_name(turnover->options->index));
    vex_line_count(&line, "turnovers", turnover->options->turnovers);
    vex_line_text(&line, "stage", stage);
    vex_line_share(&line, "recall", targets[target]);
    vex_line_real(&line, "queries_s", vex_samples_median(&aged->at_target[target]));
    vex_line_share(&line, "at_recall", aged->at_recall[target]);
    vex_line_real(&line, "fresh_queries_s", vex_samples_median(&fresh->at_target[target]));
    vex_line_share(&line, "fresh_at_recall", fresh->at_recall[target]);
    vex_line_spread(&line, "ratio", &fresh->ratios[target]);
    return vex_line_end(&line);
}

static bool compare(struct turnover *turnover, const char *stage)
{
    struct vex_contest *contest = vex_bench_alloc(1, sizeof(*contest));
    contest->truth = &turnover->truth;
    contest->found = turnover->found_rows;
    struct vex_contest_side aged = {"aged", vex_ours_search_all, &turnover->churned, .batch = 1,
                                    .asked_recall = NAN};
    struct vex_contest_side fresh = {"fresh", vex_ours_search_all, &turnover->fresh, .batch = 1,
                                     .asked_recall = NAN};
    struct vex_error error;
    bool sound = vex_collection_describe(turnover->churned.collection, &turnover->churned.info,
                                         &error) == VEX_OK ||
                 vex_bench_fail("describe: %s", error.message);
    sound = sound && vex_contest_add(contest, &aged, turnover->options->efforts) &&
            vex_contest_add(contest, &fresh, turnover->options->efforts) &&
            vex_contest_run(contest, turnover->options->passes);
    for (size_t i = 0; i < contest->sides[0].points_count && sound; i++) {
        sound = print_aged(turnover, stage, contest, i);
    }
    for (int i = 0; i < VEX_CONTEST_TARGETS && sound; i++) {
        sound = print_aged_ratio(turnover, stage, contest, i);
    }
    vex_contest_deinit(contest);
    free(contest);
    return sound;
}

static bool find_truth(struct turnover *turnover)
{
    struct vex_answers answers;
    vex_bench_note("finding the true neighbours");
    bool sound = vex_answers_find(&answers, &turnover->final, &turnover->queries,
                                  turnover->truth.metric, K, turnover->queries.rows);
    for (size_t i = 0; i < turnover->queries.rows && sound; i++) {
        vex_truth_set(&turnover->truth, i, answers.rows + i * K);
    }
    vex_answers_free(&answers);
    return sound;
}

static struct vex_collection_options collection_of(const struct turnover *turnover)
{
    struct vex_collection_options how = VEX_COLLECTION_OPTIONS_INIT;
    how.dim = turnover->base.dim;
    how.metric = turnover->options->metric;
    how.index = turnover->options->index;
    return how;
}

static bool compact(struct turnover *turnover)
{
    struct vex_error error;
    return vex_compact(turnover->instance.db, "churned", NULL, NULL, &error) == VEX_OK ||
           vex_bench_fail("compact: %s", error.message);
}

static bool compare_all(struct turnover *turnover)
{
    struct vex_collection_options how = collection_of(turnover);
    bool rested = false;
    double still_s = turnover->options->still_s;
    double rest_s = turnover->options->rest_s;
    vex_bench_note("building afresh");
    return vex_ours_build(&turnover->fresh, "fresh", &how, &turnover->final) &&
           vex_instance_rest(&turnover->instance, still_s, rest_s, &rested) &&
           find_truth(turnover) && compare(turnover, turnover->rested ? "settled" : "unsettled") &&
           compact(turnover) && vex_instance_rest(&turnover->instance, still_s, rest_s, &rested) &&
           compare(turnover, "compacted");
}

/* ---- the run --------------------------------------------------------------------------------- */

static bool read_data(struct turnover *turnover)
{
    const struct vex_turnover_options *options = turnover->options;
    if (!vex_vectors_read(&turnover->base, "base", options->base->text, false, options->rows_max) ||
        !vex_vectors_read(&turnover->queries, "query", options->query->text, false, INT32_MAX)) {
        return false;
    }
    if (turnover->base.dim != turnover->queries.dim) {
        return vex_bench_fail("--query %s: vectors of %u; those of the base have %u values",
                              options->query->text, turnover->queries.dim, turnover->base.dim);
    }
    double batch_bytes = (double)options->batch_rows * ((double)turnover->base.dim * 4 + 8);
    return (turnover->base.rows >= K ||
            vex_bench_fail("--base: %zu rows; %u are searched for", turnover->base.rows, K)) &&
           (batch_bytes <= VEX_BATCH_BYTES_MAX ||
            vex_bench_fail("a batch of %zu vectors of %u is larger than %u bytes; lower --batch",
                           options->batch_rows, turnover->base.dim, VEX_BATCH_BYTES_MAX));
}

static void make_room(struct turnover *turnover)
{
    const struct vex_turnover_options *options = turnover->options;
    size_t rows = turnover->base.rows;
    vex_versions_make(&turnover->versions, rows, options->turnovers, options->batch_rows);
    turnover->final = (struct vex_vectors){.rows = rows, .dim = turnover->base.dim};
    turnover->final.values = vex_bench_alloc(rows * turnover->base.dim, sizeof(float));
    for (size_t id = 0; id < rows; id++) {
        copy_row(turnover, options->turnovers, id,
                 turnover->final.values + id * turnover->base.dim);
    }
    turnover->truth = (struct vex_truth){
        .base = &turnover->final,
        .queries = &turnover->queries,
        .metric = options->metric,
        .k = K,
        .limits = vex_bench_alloc(turnover->queries.rows, sizeof(double)),
    };
    turnover->given = turnover->truth;
    turnover->given.base = &turnover->base;
    turnover->found_rows =
        vex_bench_alloc(turnover->queries.rows * K, sizeof(*turnover->found_rows));
    turnover->churned = turnover->fresh = (struct vex_ours){
        .instance = &turnover->instance,
        .queries = &turnover->queries,
        .k = K,
        .batch = 1,
        .how = VEX_SEARCH_OPTIONS_INIT,
    };
}

static bool run_all(struct turnover *turnover)
{
    struct vex_collection_options how = collection_of(turnover);
    return vex_instance_open(&turnover->instance, turnover->options->dir) &&
           vex_ours_build(&turnover->churned, "churned", &how, &turnover->base) &&
           vex_crew_run(2, work, turnover) && !vex_bench_stopped() && print_turnover(turnover) &&
           check_found(turnover) &&
           vex_instance_rest(&turnover->instance, turnover->options->still_s,
                             turnover->options->rest_s, &turnover->rested) &&
           check_rows(turnover) && compare_all(turnover);
}

bool vex_turnover_run(const struct vex_turnover_options *options)
{
    struct turnover *turnover = vex_bench_alloc(1, sizeof(*turnover));
    turnover->options = options;
    (void)pthread_mutex_init(&turnover->lock, NULL);
    bool sound = read_data(turnover);
    if (sound) {
        make_room(turnover);
        sound = run_all(turnover);
    }
    vex_ours_close(&turnover->churned);
    vex_ours_close(&turnover->fresh);
    vex_instance_close(&turnover->instance);
    (void)pthread_mutex_destroy(&turnover->lock);
    vex_samples_deinit(&turnover->updates_us);
    vex_samples_deinit(&turnover->found.latencies_us);
    vex_versions_deinit(&turnover->versions);
    vex_vectors_free(&turnover->base);
    vex_vectors_free(&turnover->final);
    vex_vectors_free(&turnover->queries);
    free(turnover->truth.limits);
    free(turnover->found_rows);
    free(turnover);
    return sound;
}
