/*
 * The verb recall: how much of the true answer the index of a collection finds, by effort.
 *
 * Options, the snapshot that everything is read from, and output; recall.c measures, queries.c draws
 * the queries. A file of queries is read before a daemon is asked, so that a wrong name starts none.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "libclient/vexctl/fault.h"
#include "libclient/vexctl/json.h"
#include "libclient/vexctl/parse.h"
#include "libclient/vexctl/queries.h"
#include "libclient/vexctl/recall.h"
#include "libclient/vexctl/table.h"
#include "libclient/vexctl/verbs.h"

#define SAMPLE_DEFAULT 500u

enum { SAMPLE, QUERIES, FORMAT, K, EF_SEARCH, NPROBE, TARGET, SEED, OPTIONS_COUNT };

static const struct vex_option options[OPTIONS_COUNT] = {
    [SAMPLE] = {"sample", 0, "N", "measure with N queries; default 500, or all of --queries"},
    [QUERIES] = {"queries", 0, "FILE",
                 "queries from a file, as for import, not rows of\n"
                 "the collection"},
    [FORMAT] = {"format", 0, "FORMAT", "of --queries, as for import"},
    [K] = {"k", 'k', "N", "neighbours of each query; default 10"},
    [EF_SEARCH] = {"ef-search", 0, "LIST",
                   "efforts to measure, like 16,32,64; default a ladder\n"
                   "from k on"},
    [NPROBE] = {"nprobe", 0, "LIST", "as above, for the index ivf; default from 1 on"},
    [TARGET] = {"target", 0, "RECALL", "suggest the least effort that reaches it, like 0.95"},
    [SEED] = {"seed", 0, "N", "draws other queries; default 1"},
};

static const char text[] =
    "Compares the index with exact search, on one snapshot, one query a call: which share of the\n"
    "k true neighbours is found (rows of equal distance are as good as each other), and how long\n"
    "a query takes. The queries are living rows drawn at random, each left out of its own answer;\n"
    "or, better, real ones from a file: a graph finds the neighbours of its rows more easily than\n"
    "those of what it does not know. +- is half the width of an interval around the measured\n"
    "recall that holds the true one 19 times of 20.\n"
    "\n"
    "The effort is ef_search, or nprobe for the index ivf, as searches take it; one for the other\n"
    "index is without effect. An ef_search below k is taken as k. Without --target efforts rise\n"
    "to 512 at most. What is suggested holds for data and queries like these: measure again when\n"
    "they change.\n"
    "\n"
    "JSON output is {\"queries\", \"drawn\", \"k\", \"seed\", \"snapshot_lsn\", \"mode\", "
    "\"exact_us\",\n"
    "\"effort_name\", \"efforts\": [{\"effort\", \"recall\", \"margin\", \"us\", "
    "\"rows_visited\"}, ...],\n"
    "\"target\", \"suggested\"}. \"drawn\" is file, rows or ids (each row equally likely), or\n"
    "neighbourhoods (more than 65,536 rows with scattered ids: not equally likely).\n"
    "\n"
    "examples:\n"
    "  vexctl recall words --sample 1000 --target 0.95\n"
    "  vexctl -o json recall words --queries asked.fvecs -k 100 --ef-search 100,200,400\n";

struct job {
    struct vex_context *context;
    const char *path; /* of a file of queries, or NULL */
    size_t sample;
    uint64_t seed;
    struct vex_queries queries;
    struct vex_recall recall;
};

/* ---- output ---------------------------------------------------------------------------------- */

static void print_measure_json(struct vex_json *json, const struct vex_measure *measure, bool scan)
{
    vex_json_open(json, '{');
    vex_json_key(json, "effort");
    if (scan) {
        vex_json_null(json);
    } else {
        vex_json_u64(json, measure->effort);
    }
    vex_json_key(json, "recall");
    vex_json_float(json, (float)measure->recall);
    vex_json_key(json, "margin");
    vex_json_float(json, (float)measure->margin);
    vex_json_key(json, "us");
    vex_json_decimal(json, measure->us);
    vex_json_key(json, "rows_visited");
    vex_json_decimal(json, measure->rows_visited);
    vex_json_close(json, '}');
}

static void print_json(const struct job *job)
{
    const struct vex_recall *recall = &job->recall;
    struct vex_json json = {.to = job->context->out};
    const struct vex_measure *suggested = vex_recall_suggestion(recall);
    vex_json_open(&json, '{');
    vex_json_key(&json, "queries");
    vex_json_u64(&json, job->queries.count);
    vex_json_key(&json, "drawn");
    vex_json_text(&json, job->queries.drawn);
    vex_json_key(&json, "k");
    vex_json_u64(&json, recall->k);
    vex_json_key(&json, "seed");
    vex_json_u64(&json, job->seed);
    vex_json_key(&json, "snapshot_lsn");
    vex_json_u64(&json, vex_snapshot_lsn(recall->snapshot));
    vex_json_key(&json, "mode");
    vex_json_text(&json, recall->mode);
    vex_json_key(&json, "exact_us");
    vex_json_decimal(&json, recall->exact_us);
    vex_json_key(&json, "effort_name");
    vex_json_text(&json, vex_effort_name(recall->kind));
    vex_json_key(&json, "efforts");
    vex_json_open(&json, '[');
    for (size_t i = 0; i < recall->measures_count; i++) {
        print_measure_json(&json, &recall->measures[i], vex_recall_is_scan(recall));
    }
    vex_json_close(&json, ']');
    vex_json_key(&json, "target");
    vex_json_float(&json, recall->target > 0 ? (float)recall->target : NAN);
    vex_json_key(&json, "suggested");
    if (suggested) {
        vex_json_u64(&json, suggested->effort);
    } else {
        vex_json_null(&json);
    }
    vex_json_close(&json, '}');
    fputc('\n', json.to);
}

static void print_verdict(const struct vex_recall *recall, FILE *out)
{
    const struct vex_measure *suggested = vex_recall_suggestion(recall);
    if (vex_recall_is_scan(recall)) {
        fputs("every search of this collection is exact: no effort is needed\n", out);
    } else if (suggested) {
        fprintf(out, "suggests %s %" PRIu32 " for recall %g\n", vex_effort_name(recall->kind),
                suggested->effort, recall->target);
    } else if (recall->target > 0) {
        fprintf(out, "no effort measured reaches recall %g\n", recall->target);
    }
}

static const char *describe_queries(const struct vex_queries *queries)
{
    if (!queries->ids) {
        return "from the file";
    }
    return strcmp(queries->drawn, "neighbourhoods") == 0
               ? "rows, not equally likely because their ids are scattered"
               : "rows, each left out of its own answer";
}

static void print_table(const struct job *job)
{
    const char *const titles[] = {job->recall.kind == VEX_EFFORT_NPROBE ? ">NPROBE" : ">EF_SEARCH",
                                  ">RECALL", ">+-", ">US/QUERY", ">ROWS COMPARED"};
    const struct vex_recall *recall = &job->recall;
    FILE *out = job->context->out;
    struct vex_table table;
    vex_table_init(&table, titles, 5);
    for (size_t i = 0; i < recall->measures_count; i++) {
        const struct vex_measure *measure = &recall->measures[i];
        if (vex_recall_is_scan(recall)) {
            vex_table_add(&table, "-");
        } else {
            vex_table_add(&table, "%" PRIu32, measure->effort);
        }
        vex_table_add(&table, "%.4f", measure->recall);
        if (isnan(measure->margin)) {
            vex_table_add(&table, "-");
        } else {
            vex_table_add(&table, "%.4f", measure->margin);
        }
        vex_table_add(&table, "%.1f", measure->us);
        vex_table_add(&table, "%.0f", measure->rows_visited);
    }
    vex_table_print(&table, out);
    vex_table_deinit(&table);
    fprintf(out, "\n%zu queries (%s), k %" PRIu32 ", exact search %.1f us, lsn %" PRIu64 "\n",
            job->queries.count, describe_queries(&job->queries), recall->k, recall->exact_us,
            vex_snapshot_lsn(recall->snapshot));
    print_verdict(recall, out);
}

/* ---- the verb -------------------------------------------------------------------------------- */

/* "0.95"; above 0, at most 1. */
static enum vex_status parse_target(const char *word, double *out, struct vex_error *error)
{
    double value = 0;
    double unit = 1;
    bool good = word[0] == '0' && word[1] == '.' && word[2] && strlen(word) < 16;
    for (const char *digit = word + 2; good && *digit; digit++) {
        good = *digit >= '0' && *digit <= '9';
        unit *= 10;
        value = value * 10 + (*digit - '0');
    }
    value = good ? value / unit : strcmp(word, "1") == 0;
    if (value <= 0) {
        return vex_fault(error, VEX_ERR_INVALID,
                         "--target: '%.40s' is no recall above 0 and up to 1, like 0.95", word);
    }
    *out = value;
    return VEX_OK;
}

/* "16,32,64" */
static enum vex_status parse_efforts(const char *option, const char *list, uint32_t effort_max,
                                     struct vex_recall *recall, struct vex_error *error)
{
    char *words = vex_context_alloc(strlen(list) + 1, 1);
    strcpy(words, list);
    enum vex_status status = VEX_OK;
    for (char *word = words; word && status == VEX_OK;) {
        char *comma = strchr(word, ',');
        if (comma) {
            *comma = 0;
        }
        uint64_t effort = 0;
        status = recall->wishes_count < VEX_EFFORTS_MAX
                     ? vex_parse_number(option, word, 1, effort_max, &effort, error)
                     : vex_fault(error, VEX_ERR_INVALID, "%s: more than %u efforts", option,
                                 VEX_EFFORTS_MAX);
        if (status == VEX_OK) {
            recall->wishes[recall->wishes_count++] = (uint32_t)effort;
        }
        word = comma ? comma + 1 : NULL;
    }
    free(words);
    return status;
}

/* What the reader could not know. */
static enum vex_status check_file(const struct job *job, const struct vex_collection_info *info,
                                  struct vex_error *error)
{
    const struct vex_queries *queries = &job->queries;
    if (info->dim != queries->dim) {
        (void)vex_fault(error, VEX_ERR_DIM, "rows of dimension %zu, collection %.63s has %" PRIu32,
                        queries->dim, info->name, info->dim);
        return vex_fault_in(error, job->path);
    }
    for (size_t i = 0; info->metric == VEX_METRIC_COSINE && i < queries->count; i++) {
        size_t zeros = 0;
        while (zeros < queries->dim && queries->vectors[i * queries->dim + zeros] == 0) {
            zeros++;
        }
        if (zeros == queries->dim) {
            (void)vex_fault(error, VEX_ERR_ZERO_VECTOR,
                            "query %zu is a zero vector, which has no direction under cosine", i);
            return vex_fault_in(error, job->path);
        }
    }
    return VEX_OK;
}

static enum vex_status measure(struct job *job, struct vex_error *error)
{
    struct vex_recall *recall = &job->recall;
    struct vex_collection_info info = {.size = sizeof(info)};
    enum vex_status status = vex_collection_describe(recall->collection, &info, error);
    if (status == VEX_OK) {
        status = job->path ? check_file(job, &info, error)
                           : vex_queries_draw(recall->collection, recall->snapshot, job->sample,
                                              job->seed, &job->queries, error);
    }
    if (status == VEX_OK) {
        recall->queries = &job->queries;
        recall->metric = info.metric;
        if (!recall->wishes_count && info.index == VEX_INDEX_IVF) {
            recall->kind = VEX_EFFORT_NPROBE;
        }
        status = vex_recall_measure(recall, error);
    }
    if (status == VEX_OK) {
        (job->context->json ? print_json : print_table)(job);
    }
    return status;
}

static enum vex_status measure_collection(struct job *job, const char *name,
                                          struct vex_error *error)
{
    struct vex_recall *recall = &job->recall;
    enum vex_status status =
        vex_context_open_collection(job->context, name, &recall->collection, error);
    if (status == VEX_OK) {
        status = vex_snapshot_open(recall->collection, NULL, &recall->snapshot, error);
    }
    if (status == VEX_OK) {
        status = measure(job, error);
    }
    vex_recall_deinit(recall);
    vex_snapshot_close(recall->snapshot);
    vex_collection_close(recall->collection);
    return status;
}

static enum vex_status parse(const char *const *values, struct job *job, struct vex_error *error)
{
    uint64_t k = 10;
    uint64_t sample = values[QUERIES] ? VEX_QUERIES_MAX : SAMPLE_DEFAULT;
    job->path = values[QUERIES];
    job->seed = 1;
    enum vex_status status = vex_parse_option("-k", values[K], 1, VEX_K_MAX - 1, &k, error);
    if (status == VEX_OK) {
        status = vex_parse_option("--sample", values[SAMPLE], 1, VEX_QUERIES_MAX, &sample, error);
    }
    if (status == VEX_OK) {
        status = vex_parse_option("--seed", values[SEED], 0, UINT64_MAX, &job->seed, error);
    }
    if (status == VEX_OK && values[EF_SEARCH]) {
        status =
            parse_efforts("--ef-search", values[EF_SEARCH], VEX_EF_SEARCH_MAX, &job->recall, error);
    }
    if (status == VEX_OK && values[NPROBE]) {
        status = parse_efforts("--nprobe", values[NPROBE], VEX_LISTS_MAX, &job->recall, error);
    }
    if (status == VEX_OK && values[TARGET]) {
        status = parse_target(values[TARGET], &job->recall.target, error);
    }
    job->recall.kind = values[NPROBE] ? VEX_EFFORT_NPROBE : VEX_EFFORT_EF_SEARCH;
    job->recall.k = (uint32_t)k;
    job->sample = (size_t)sample;
    return status;
}

static enum vex_exit run(struct vex_context *context, const struct vex_arguments *arguments)
{
    const char *const *values = arguments->values;
    struct job job = {.context = context};
    struct vex_error error = {0};
    if (values[FORMAT] && !values[QUERIES]) {
        return vex_context_usage(context, "recall: --format goes with --queries");
    }
    if (values[EF_SEARCH] && values[NPROBE]) {
        return vex_context_usage(context, "recall: give one of --ef-search and --nprobe");
    }
    if (parse(values, &job, &error) != VEX_OK) {
        return vex_context_usage(context, "recall: %s", error.message);
    }
    enum vex_status status = VEX_OK;
    if (job.path) {
        status =
            vex_queries_read(job.path, values[FORMAT], job.sample, job.seed, &job.queries, &error);
    }
    if (status == VEX_OK) {
        status = measure_collection(&job, arguments->words[0], &error);
    }
    vex_queries_deinit(&job.queries);
    return status == VEX_OK ? VEX_EXIT_OK : vex_context_fail(&error);
}

const struct vex_verb vex_verb_recall = {
    .name = "recall",
    .synopsis = "COLLECTION [--sample N] [--queries FILE] [--target RECALL]  [options]",
    .summary = "Measure the index against exact search",
    .text = text,
    .options = options,
    .options_count = OPTIONS_COUNT,
    .words_min = 1,
    .words_max = 1,
    .run = run,
};
