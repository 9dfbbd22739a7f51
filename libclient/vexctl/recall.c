/*
 * Recall by effort; see recall.h. Each search asks for one hit more than k if the queries are rows
 * of the collection, because such a row finds itself.
 */
#include "libclient/vexctl/recall.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "libclient/vexctl/context.h"
#include "libclient/vexctl/fault.h"
#include "libclient/vexctl/progress.h"

#define HITS_AT_ONCE (1u << 20)
#define QUERIES_AT_ONCE 256u
#define EXACT_TIMED 10u     /* exact searches, one query a call, for the time of one */
#define LADDER_UNASKED 512u /* without a target there is no reason to go on beyond */
#define GAP_SHARE 16u       /* the suggestion is at most a sixteenth above the least effort */

/* The efforts from which one is chosen. */
static const uint32_t ladder[] = {1,   2,   4,   8,   12,  16,  24,   32,   48,   64,   96,
                                  128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096};
#define LADDER_COUNT (sizeof(ladder) / sizeof(ladder[0]))

/* ---- searching ------------------------------------------------------------------------------- */

/* A row that is a query is found, too; one more hit makes up for it. */
static uint32_t hits_asked(const struct vex_recall *recall)
{
    return recall->k + (recall->queries->ids ? 1 : 0);
}

/* `effort` 0 = exact. */
static enum vex_status ask(struct vex_recall *recall, size_t query, size_t count, uint32_t effort,
                           struct vex_search_info *out_info, struct vex_error *error)
{
    struct vex_search_options how = VEX_SEARCH_OPTIONS_INIT;
    how.k = hits_asked(recall);
    how.exact = effort == 0;
    *(recall->kind == VEX_EFFORT_NPROBE ? &how.nprobe : &how.ef_search) = effort;
    how.read.snapshot = recall->snapshot;
    struct vex_results results = {
        .size = sizeof(results),
        .ids = recall->ids,
        .distances = recall->distances,
        .counts = recall->counts,
    };
    *out_info = (struct vex_search_info){.size = sizeof(*out_info)};
    size_t dim = recall->queries->dim;
    return vex_search(recall->collection, recall->queries->vectors + query * dim, count, dim, &how,
                      &results, out_info, error);
}

/*
 * Goes through the hits of the `at`-th query of the last call, which is `query` of all, without the
 * query itself, at most k: how many are not beyond `reach`; *out_last is the last one's distance.
 */
static uint32_t count_hits(const struct vex_recall *recall, size_t at, size_t query, float reach,
                           float *out_last)
{
    uint32_t seen = 0;
    uint32_t within = 0;
    for (uint32_t i = 0; i < recall->counts[at] && seen < recall->k; i++) {
        size_t hit = at * hits_asked(recall) + i;
        if (recall->queries->ids && recall->ids[hit] == recall->queries->ids[query]) {
            continue;
        }
        float distance = recall->distances[hit];
        within += recall->metric == VEX_METRIC_DOT ? distance >= reach : distance <= reach;
        seen++;
        *out_last = distance;
    }
    return within;
}

static enum vex_status find_truth(struct vex_recall *recall, struct vex_error *error)
{
    size_t count = recall->queries->count;
    float all = recall->metric == VEX_METRIC_DOT ? -INFINITY : INFINITY;
    recall->reach = vex_context_alloc(count, sizeof(*recall->reach));
    recall->wanted = vex_context_alloc(count, sizeof(*recall->wanted));
    struct vex_progress progress;
    vex_progress_begin(&progress, "exact", count);
    enum vex_status status = VEX_OK;
    for (size_t first = 0; first < count && status == VEX_OK;) {
        size_t some = count - first < recall->capacity ? count - first : recall->capacity;
        struct vex_search_info info;
        status = ask(recall, first, some, 0, &info, error);
        for (size_t i = 0; i < some && status == VEX_OK; i++) {
            recall->wanted[first + i] =
                count_hits(recall, i, first + i, all, &recall->reach[first + i]);
            if (recall->wanted[first + i] == 0) {
                status = vex_fault(error, VEX_ERR_INVALID,
                                   "the collection is empty: there is nothing to find");
            }
        }
        first += some;
        vex_progress_show(&progress, first, first * recall->queries->dim * sizeof(float));
    }
    vex_progress_end(&progress);
    return status;
}

static enum vex_status time_exact(struct vex_recall *recall, struct vex_error *error)
{
    size_t count = recall->queries->count < EXACT_TIMED ? recall->queries->count : EXACT_TIMED;
    uint64_t started_ns = vex_progress_now_ns();
    enum vex_status status = VEX_OK;
    for (size_t query = 0; query < count && status == VEX_OK; query++) {
        struct vex_search_info info;
        status = ask(recall, query, 1, 0, &info, error);
    }
    recall->exact_us = (double)(vex_progress_now_ns() - started_ns) / 1e3 / (double)count;
    return status;
}

static enum vex_status measure_effort(struct vex_recall *recall, uint32_t effort,
                                      struct vex_measure *measure, struct vex_error *error)
{
    size_t count = recall->queries->count;
    double sum = 0;
    double squares = 0;
    uint64_t ns = 0;
    uint64_t rows_visited = 0;
    struct vex_progress progress;
    vex_progress_begin(&progress, "measure", count);
    for (size_t query = 0; query < count; query++) {
        struct vex_search_info info;
        uint64_t started_ns = vex_progress_now_ns();
        enum vex_status status = ask(recall, query, 1, effort, &info, error);
        ns += vex_progress_now_ns() - started_ns;
        if (status != VEX_OK) {
            vex_progress_end(&progress);
            return status;
        }
        float last;
        double share = (double)count_hits(recall, 0, query, recall->reach[query], &last) /
                       recall->wanted[query];
        sum += share;
        squares += share * share;
        rows_visited += info.rows_visited;
        recall->mode = info.mode;
        vex_progress_show(&progress, query + 1, (query + 1) * recall->queries->dim * sizeof(float));
    }
    vex_progress_end(&progress);
    double mean = sum / (double)count;
    double variance = fmax(squares / (double)count - mean * mean, 0) / ((double)count - 1);
    *measure = (struct vex_measure){
        .effort = effort,
        .recall = mean,
        .margin = count > 1 ? 1.96 * sqrt(variance) : NAN,
        .us = (double)ns / 1e3 / (double)count,
        .rows_visited = (double)rows_visited / (double)count,
    };
    return VEX_OK;
}

/* ---- which efforts --------------------------------------------------------------------------- */

static enum vex_status add_measure(struct vex_recall *recall, uint32_t effort,
                                   struct vex_error *error)
{
    enum vex_status status =
        measure_effort(recall, effort, &recall->measures[recall->measures_count], error);
    recall->measures_count += status == VEX_OK;
    return status;
}

const char *vex_effort_name(enum vex_effort_kind kind)
{
    return kind == VEX_EFFORT_NPROBE ? "nprobe" : "ef_search";
}

bool vex_recall_is_scan(const struct vex_recall *recall)
{
    return strcmp(recall->mode, "exact") == 0;
}

/* `low` fails, `high` reaches the target. */
static enum vex_status narrow(struct vex_recall *recall, uint32_t low, uint32_t high,
                              struct vex_error *error)
{
    while (high - low > 1 + high / GAP_SHARE && recall->measures_count < VEX_EFFORTS_MAX) {
        uint32_t middle = low + (high - low) / 2;
        enum vex_status status = add_measure(recall, middle, error);
        if (status != VEX_OK) {
            return status;
        }
        if (recall->measures[recall->measures_count - 1].recall >= recall->target) {
            high = middle;
        } else {
            low = middle;
        }
    }
    return VEX_OK;
}

/* From the least effort that makes a difference, ef_search being at least k. */
static enum vex_status climb(struct vex_recall *recall, struct vex_error *error)
{
    double enough = recall->target > 0 ? recall->target : 1;
    uint32_t effort_max = recall->target > 0 ? UINT32_MAX : LADDER_UNASKED;
    uint32_t effort = recall->kind == VEX_EFFORT_NPROBE ? 1 : recall->k;
    uint32_t below = 0;
    size_t step = 0;
    for (;;) {
        enum vex_status status = add_measure(recall, effort, error);
        if (status != VEX_OK || vex_recall_is_scan(recall)) {
            return status;
        }
        if (recall->measures[recall->measures_count - 1].recall >= enough) {
            return recall->target > 0 && below ? narrow(recall, below, effort, error) : VEX_OK;
        }
        below = effort;
        while (step < LADDER_COUNT && ladder[step] <= effort) {
            step++;
        }
        if (step == LADDER_COUNT || ladder[step] > effort_max) {
            return VEX_OK;
        }
        effort = ladder[step];
    }
}

static enum vex_status measure_all(struct vex_recall *recall, struct vex_error *error)
{
    if (!recall->wishes_count) {
        return climb(recall, error);
    }
    enum vex_status status = VEX_OK;
    for (size_t i = 0; i < recall->wishes_count && status == VEX_OK; i++) {
        status = add_measure(recall, recall->wishes[i], error);
        if (status == VEX_OK && vex_recall_is_scan(recall)) {
            break;
        }
    }
    return status;
}

static int compare_measures(const void *left, const void *right)
{
    const struct vex_measure *a = left;
    const struct vex_measure *b = right;
    return (a->effort > b->effort) - (a->effort < b->effort);
}

const struct vex_measure *vex_recall_suggestion(const struct vex_recall *recall)
{
    for (size_t i = 0;
         recall->target > 0 && !vex_recall_is_scan(recall) && i < recall->measures_count; i++) {
        if (recall->measures[i].recall >= recall->target) {
            return &recall->measures[i];
        }
    }
    return NULL;
}

enum vex_status vex_recall_measure(struct vex_recall *recall, struct vex_error *error)
{
    size_t capacity = HITS_AT_ONCE / hits_asked(recall);
    recall->capacity = capacity < QUERIES_AT_ONCE ? capacity : QUERIES_AT_ONCE;
    size_t hits = recall->capacity * hits_asked(recall);
    recall->ids = vex_context_alloc(hits, sizeof(*recall->ids));
    recall->distances = vex_context_alloc(hits, sizeof(*recall->distances));
    recall->counts = vex_context_alloc(recall->capacity, sizeof(*recall->counts));
    enum vex_status status = find_truth(recall, error);
    status = status == VEX_OK ? time_exact(recall, error) : status;
    status = status == VEX_OK ? measure_all(recall, error) : status;
    qsort(recall->measures, recall->measures_count, sizeof(recall->measures[0]), compare_measures);
    return status;
}

void vex_recall_deinit(struct vex_recall *recall)
{
    free(recall->reach);
    free(recall->wanted);
    free(recall->ids);
    free(recall->distances);
    free(recall->counts);
}
