/*
 * The verb search: nearest neighbours of one query or of many.
 *
 * Everything is read from one snapshot: the vector of --id, all queries of a file, and the
 * payloads, which then need no copies. Queries go to the library in chunks, so that the arrays of
 * hits stay bounded whatever the file and k are.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libclient/vexctl/fault.h"
#include "libclient/vexctl/file.h"
#include "libclient/vexctl/json.h"
#include "libclient/vexctl/parse.h"
#include "libclient/vexctl/payload.h"
#include "libclient/vexctl/progress.h"
#include "libclient/vexctl/reader.h"
#include "libclient/vexctl/table.h"
#include "libclient/vexctl/verbs.h"

#define HITS_AT_ONCE (1u << 20)
#define QUERY_BYTES_AT_ONCE (64u << 20)

enum {
    VECTOR,
    VECTOR_FILE,
    ID,
    FORMAT,
    LIMIT,
    ROWS,
    K,
    PAYLOADS,
    MIN_LSN,
    EXACT,
    EF_SEARCH,
    NPROBE,
    RECALL,
    OPTIONS_COUNT
};

static const struct vex_option options[OPTIONS_COUNT] = {
    [VECTOR] = {"vector", 0, "JSON|@FILE|-", "the query as an array of numbers"},
    [VECTOR_FILE] = {"vector-file", 0, "FILE[:ROW]", "queries from a file, all rows or one"},
    [ID] = {"id", 0, "N", "the stored vector of this id is the query"},
    [FORMAT] = {"format", 0, "FORMAT", "of --vector-file, as for import"},
    [LIMIT] = {"limit", 0, "N", "at most N queries"},
    [ROWS] = {"rows", 0, "FROM-TO", "only these rows of --vector-file, both included"},
    [K] = {"k", 'k', "N", "neighbours of each query; default 10"},
    [PAYLOADS] = {"payloads", 0, NULL, "show the payloads, too"},
    [EXACT] = {"exact", 0, NULL, "look at every vector, whatever the index"},
    [EF_SEARCH] = {"ef-search", 0, "N",
                   "candidates kept while walking a graph; more\n"
                   "finds more, takes longer; default 64, and\n"
                   "never less than k"},
    [NPROBE] = {"nprobe", 0, "N",
                "lists of each ivf segment to read; more finds\n"
                "more, takes longer; default 64"},
    [RECALL] = {"recall", 0, "SHARE",
                "instead of both: the share of the true\n"
                "neighbours to aim at, above 0 and below 1,\n"
                "like 0.95"},
    [MIN_LSN] = {"min-lsn", 0, "N", "wait until record N is visible (see put, import)"},
};

static const char text[] =
    "Exactly one of --vector, --vector-file and --id says what to search for. Smaller distances\n"
    "are nearer for l2 and cosine, larger ones for dot; equal ones come in the order of their\n"
    "ids. With --id the vector itself is among its hits.\n"
    "\n"
    "--ef-search, --nprobe and --recall set how hard the index tries; rows without an index are\n"
    "scanned, and an effort for another index is without effect. --recall looks up what was\n"
    "measured when the index was built; 'vexctl recall' measures now.\n"
    "\n"
    "JSON output is {\"queries\": [{\"hits\": [{\"id\", \"distance\", \"payload\"}, ...]}, ...],\n"
    "\"k\", \"snapshot_lsn\", \"mode\", \"complete\", \"stale\", \"rows_visited\", \"ef_search\",\n"
    "\"search_ms\"}, one entry in \"queries\" for each query, in their order; \"payload\" with\n"
    "--payloads. \"mode\" is exact, hnsw or ivf; \"ef_search\" as used, 0 without a graph.\n"
    "\n"
    "examples:\n"
    "  vexctl search colours --vector '[1, 0.4, 0]' -k 3 --payloads\n"
    "  vexctl -o json search words --vector-file queries.fvecs --limit 100 -k 10\n";

struct search {
    struct vex_context *context;
    struct vex_collection *collection;
    struct vex_snapshot *snapshot;
    uint32_t k;
    uint32_t ef_search;
    uint32_t nprobe;
    float recall;
    bool exact;
    bool payloads;
    struct vex_results results; /* room for `capacity` queries */
    size_t capacity;
    struct vex_json json;
    uint64_t queries_done;
    uint64_t queries_total;
    bool complete;
    bool stale;
    const char *mode;
    uint64_t rows_visited;
    uint32_t ef_used;
    double seconds; /* in the library */
};

static void make_results(struct search *search, uint64_t queries)
{
    size_t capacity = HITS_AT_ONCE / search->k;
    capacity = capacity ? capacity : 1;
    search->capacity = queries < capacity ? (size_t)queries : capacity;
    size_t hits = search->capacity * search->k;
    struct vex_results *results = &search->results;
    results->size = sizeof(*results);
    results->ids = vex_context_alloc(hits, sizeof(*results->ids));
    results->distances = vex_context_alloc(hits, sizeof(*results->distances));
    results->counts = vex_context_alloc(search->capacity, sizeof(*results->counts));
    if (search->payloads) {
        results->payloads = vex_context_alloc(hits, sizeof(*results->payloads));
        results->payload_bytes = vex_context_alloc(hits, sizeof(*results->payload_bytes));
    }
}

static void free_results(struct vex_results *results)
{
    free(results->ids);
    free(results->distances);
    free(results->counts);
    free(results->payloads);
    free(results->payload_bytes);
}

static void print_query_json(struct search *search, size_t query)
{
    const struct vex_results *results = &search->results;
    struct vex_json *json = &search->json;
    vex_json_open(json, '{');
    vex_json_key(json, "hits");
    vex_json_open(json, '[');
    for (size_t i = 0; i < results->counts[query]; i++) {
        size_t hit = query * search->k + i;
        vex_json_open(json, '{');
        vex_json_key(json, "id");
        vex_json_u64(json, results->ids[hit]);
        vex_json_key(json, "distance");
        vex_json_float(json, results->distances[hit]);
        if (search->payloads) {
            vex_payload_json(json, results->payloads[hit], results->payload_bytes[hit]);
        }
        vex_json_close(json, '}');
    }
    vex_json_close(json, ']');
    vex_json_close(json, '}');
}

static void print_query_table(struct search *search, size_t query)
{
    static const char *const titles[] = {">RANK", ">ID", ">DISTANCE", "PAYLOAD"};
    const struct vex_results *results = &search->results;
    FILE *out = search->context->out;
    if (search->queries_total > 1) {
        fprintf(out, "%squery %" PRIu64 "\n", search->queries_done + query ? "\n" : "",
                search->queries_done + query);
    }
    struct vex_table table;
    vex_table_init(&table, titles, search->payloads ? 4 : 3);
    for (size_t i = 0; i < results->counts[query]; i++) {
        size_t hit = query * search->k + i;
        vex_table_add(&table, "%zu", i + 1);
        vex_table_add(&table, "%" PRIu64, results->ids[hit]);
        vex_table_add(&table, "%#.6g", (double)results->distances[hit]);
        if (search->payloads) {
            vex_table_take(&table,
                           vex_payload_line(results->payloads[hit], results->payload_bytes[hit],
                                            vex_table_screen_columns()));
        }
    }
    vex_table_print(&table, out);
    vex_table_deinit(&table);
}

/* At most `capacity` queries. */
static enum vex_status search_chunk(struct search *search, const float *queries, size_t count,
                                    size_t dim, struct vex_error *error)
{
    struct vex_search_options how = VEX_SEARCH_OPTIONS_INIT;
    struct vex_search_info info = {.size = sizeof(info)};
    how.k = search->k;
    how.exact = search->exact;
    how.ef_search = search->ef_search;
    how.nprobe = search->nprobe;
    how.recall = search->recall;
    how.payloads = search->payloads;
    how.read.snapshot = search->snapshot;
    uint64_t started_ns = vex_progress_now_ns();
    enum vex_status status =
        vex_search(search->collection, queries, count, dim, &how, &search->results, &info, error);
    search->seconds += (double)(vex_progress_now_ns() - started_ns) / 1e9;
    if (status != VEX_OK) {
        return status;
    }
    search->complete = search->complete && info.complete;
    search->stale = search->stale || info.stale;
    search->mode = info.mode;
    search->rows_visited += info.rows_visited;
    search->ef_used = info.ef_search;
    for (size_t query = 0; query < count; query++) {
        if (search->context->json) {
            print_query_json(search, query);
        } else {
            print_query_table(search, query);
        }
    }
    search->queries_done += count;
    return VEX_OK;
}

static void begin_output(struct search *search)
{
    search->json.to = search->context->out;
    search->complete = true;
    search->mode = "exact";
    if (search->context->json) {
        vex_json_open(&search->json, '{');
        vex_json_key(&search->json, "queries");
        vex_json_open(&search->json, '[');
    }
}

static void end_output(struct search *search)
{
    struct vex_json *json = &search->json;
    FILE *out = search->context->out;
    uint64_t lsn = vex_snapshot_lsn(search->snapshot);
    if (!search->context->json) {
        /* For people; a script that wants it asks for JSON. */
        if (isatty(STDOUT_FILENO)) {
            fprintf(out, "\n%s", search->mode);
            if (search->ef_used) {
                fprintf(out, " with ef_search %" PRIu32, search->ef_used);
            }
            fprintf(out, ", %.3f ms, %" PRIu64 " rows compared, lsn %" PRIu64 "%s%s\n",
                    search->seconds * 1e3, search->rows_visited, lsn,
                    search->complete ? "" : ", incomplete",
                    search->stale ? ", stale: no daemon is connected" : "");
        }
        return;
    }
    vex_json_close(json, ']');
    vex_json_key(json, "k");
    vex_json_u64(json, search->k);
    vex_json_key(json, "snapshot_lsn");
    vex_json_u64(json, lsn);
    vex_json_key(json, "mode");
    vex_json_text(json, search->mode);
    vex_json_key(json, "complete");
    vex_json_bool(json, search->complete);
    vex_json_key(json, "stale");
    vex_json_bool(json, search->stale);
    vex_json_key(json, "rows_visited");
    vex_json_u64(json, search->rows_visited);
    vex_json_key(json, "ef_search");
    vex_json_u64(json, search->ef_used);
    vex_json_key(json, "search_ms");
    vex_json_decimal(json, search->seconds * 1e3);
    vex_json_close(json, '}');
    fputc('\n', out);
}

/* ---- where queries come from ----------------------------------------------------------------- */

struct source {
    float *vector; /* of --vector */
    size_t dim;
    uint64_t id; /* of --id */
    bool by_id;
    char *path; /* of --vector-file */
    struct vex_file file;
    struct vex_reader *reader;
    uint64_t row_first;
    uint64_t row_end;
};

static void close_source(struct source *source)
{
    free(source->vector);
    free(source->path);
    vex_reader_close(source->reader);
    vex_file_unmap(&source->file);
}

/* "FROM-TO" to a first row and the one behind the last. */
static enum vex_status parse_rows(const char *rows, struct source *source, struct vex_error *error)
{
    char from[32];
    const char *dash = strchr(rows, '-');
    size_t bytes = dash ? (size_t)(dash - rows) : sizeof(from);
    uint64_t last = 0;
    if (bytes >= sizeof(from)) {
        return vex_fault(error, VEX_ERR_INVALID, "--rows: '%.40s' is not like 10-19", rows);
    }
    memcpy(from, rows, bytes);
    from[bytes] = 0;
    enum vex_status status =
        vex_parse_number("--rows", from, 0, UINT64_MAX - 1, &source->row_first, error);
    if (status == VEX_OK) {
        status =
            vex_parse_number("--rows", dash + 1, source->row_first, UINT64_MAX - 1, &last, error);
    }
    source->row_end = last + 1;
    return status;
}

/* Splits "FILE:ROW"; a file that really has such a name is taken as it is. */
static enum vex_status split_row(const char *word, struct source *source, bool rows_given,
                                 struct vex_error *error)
{
    const char *colon = strrchr(word, ':');
    bool has_row = colon && colon > word && colon[1] &&
                   strspn(colon + 1, "0123456789") == strlen(colon + 1) && access(word, F_OK) != 0;
    if (has_row && rows_given) {
        return vex_fault(error, VEX_ERR_INVALID, "--rows: the row is in --vector-file already");
    }
    if (has_row) {
        enum vex_status status = vex_parse_number("--vector-file: ROW", colon + 1, 0,
                                                  UINT64_MAX - 1, &source->row_first, error);
        if (status != VEX_OK) {
            return status;
        }
        source->row_end = source->row_first + 1;
    }
    size_t bytes = has_row ? (size_t)(colon - word) : strlen(word);
    char *path = vex_context_alloc(bytes + 1, 1);
    memcpy(path, word, bytes);
    path[bytes] = 0;
    source->path = path;
    return VEX_OK;
}

static enum vex_status open_reader(const char *format_word, struct source *source,
                                   struct vex_error *error)
{
    const char *path = source->path;
    enum vex_reader_format format =
        format_word ? vex_reader_format_of_word(format_word) : vex_reader_format_of_path(path);
    if (format == VEX_READER_UNKNOWN) {
        return vex_fault(error, VEX_ERR_INVALID,
                         "'%.80s' does not tell the format; --format fvecs, bvecs, npy or jsonl",
                         format_word ? format_word : path);
    }
    enum vex_status status = vex_file_map(path, &source->file, error);
    if (status != VEX_OK) {
        return status;
    }
    status = vex_reader_open_memory(source->file.data, source->file.bytes, format, &source->reader,
                                    error);
    if (status != VEX_OK) {
        return vex_fault_in(error, path);
    }
    source->dim = vex_reader_dim(source->reader);
    uint64_t rows = vex_reader_rows_count(source->reader);
    if (source->row_end == 0) {
        source->row_end = rows;
    } else if (source->row_end > rows) {
        (void)vex_fault(error, VEX_ERR_INVALID,
                        "row %" PRIu64 " is beyond the end: there are %" PRIu64 " rows, from 0",
                        source->row_end - 1, rows);
        return vex_fault_in(error, path);
    }
    return VEX_OK;
}

static enum vex_status open_source(const char *const *values, struct source *source,
                                   struct vex_error *error)
{
    if (values[VECTOR]) {
        return vex_parse_vector("--vector", values[VECTOR], &source->vector, &source->dim, error);
    }
    if (values[ID]) {
        source->by_id = true;
        return vex_parse_number("--id", values[ID], 0, VEX_ID_MAX, &source->id, error);
    }
    enum vex_status status = VEX_OK;
    if (values[ROWS]) {
        status = parse_rows(values[ROWS], source, error);
    }
    if (status == VEX_OK) {
        status = split_row(values[VECTOR_FILE], source, values[ROWS] != NULL, error);
    }
    if (status == VEX_OK) {
        status = open_reader(values[FORMAT], source, error);
    }
    if (status == VEX_OK && values[LIMIT]) {
        uint64_t limit = 0;
        status = vex_parse_number("--limit", values[LIMIT], 1, UINT64_MAX, &limit, error);
        if (status == VEX_OK && source->row_end - source->row_first > limit) {
            source->row_end = source->row_first + limit;
        }
    }
    return status;
}

static enum vex_status search_file(struct search *search, struct source *source,
                                   struct vex_error *error)
{
    enum vex_status status = vex_reader_seek(source->reader, source->row_first, error);
    uint64_t row = source->row_first;
    while (status == VEX_OK && row < source->row_end) {
        uint64_t left = source->row_end - row;
        size_t count = left < search->capacity ? (size_t)left : search->capacity;
        struct vex_reader_rows rows;
        status = vex_reader_next(source->reader, count, QUERY_BYTES_AT_ONCE, &rows, error);
        if (status != VEX_OK) {
            return vex_fault_in(error, source->path);
        }
        status = search_chunk(search, rows.vectors, rows.count, source->dim, error);
        row += rows.count;
    }
    return status;
}

static enum vex_status search_all(struct search *search, struct source *source,
                                  struct vex_error *error)
{
    search->queries_total = source->reader ? source->row_end - source->row_first : 1;
    make_results(search, search->queries_total);
    begin_output(search);
    enum vex_status status;
    if (source->reader) {
        status = search_file(search, source, error);
    } else if (source->by_id) {
        struct vex_record record = {.size = sizeof(record)};
        status = vex_snapshot_get(search->snapshot, source->id, &record, error);
        if (status == VEX_OK) {
            status = search_chunk(search, record.vector, 1, record.dim, error);
        }
    } else {
        status = search_chunk(search, source->vector, 1, source->dim, error);
    }
    if (status == VEX_OK) {
        end_output(search);
    }
    free_results(&search->results);
    return status;
}

static enum vex_status search_collection(struct vex_context *context, const char *name,
                                         struct search *search, struct source *source,
                                         uint64_t min_lsn, struct vex_error *error)
{
    struct vex_read_options read = VEX_READ_OPTIONS_INIT;
    read.min_lsn = min_lsn;
    read.timeout_ms = context->timeout_ms;
    enum vex_status status = vex_context_open_collection(context, name, &search->collection, error);
    if (status == VEX_OK) {
        status = vex_snapshot_open(search->collection, &read, &search->snapshot, error);
    }
    if (status == VEX_OK) {
        status = search_all(search, source, error);
    }
    vex_snapshot_close(search->snapshot);
    vex_collection_close(search->collection);
    return status;
}

/* Options of which one leaves nothing to do for another; NULL if there are none. */
static const char *find_contradiction(const char *const *values)
{
    if (values[EXACT] && (values[EF_SEARCH] || values[NPROBE] || values[RECALL])) {
        return "--exact finds all of them: it goes with none of --ef-search, --nprobe and --recall";
    }
    if (values[RECALL] && (values[EF_SEARCH] || values[NPROBE])) {
        return "--recall chooses the effort: give it, or --ef-search and --nprobe";
    }
    return NULL;
}

static enum vex_exit run(struct vex_context *context, const struct vex_arguments *arguments)
{
    const char *const *values = arguments->values;
    int sources = (values[VECTOR] != NULL) + (values[VECTOR_FILE] != NULL) + (values[ID] != NULL);
    if (sources != 1) {
        return vex_context_usage(context, "search: give one of --vector, --vector-file and --id");
    }
    if (!values[VECTOR_FILE] && (values[FORMAT] || values[ROWS] || values[LIMIT])) {
        return vex_context_usage(context,
                                 "search: --format, --rows and --limit go with --vector-file");
    }
    const char *contradiction = find_contradiction(values);
    if (contradiction) {
        return vex_context_usage(context, "search: %s", contradiction);
    }
    struct vex_error error = {0};
    uint64_t k = 10;
    uint64_t min_lsn = 0;
    uint64_t ef_search = 0;
    uint64_t nprobe = 0;
    float recall = 0;
    if (vex_parse_option("--ef-search", values[EF_SEARCH], 1, VEX_EF_SEARCH_MAX, &ef_search,
                         &error) != VEX_OK ||
        vex_parse_option("--nprobe", values[NPROBE], 1, VEX_LISTS_MAX, &nprobe, &error) != VEX_OK ||
        vex_parse_fraction("--recall", values[RECALL], &recall, &error) != VEX_OK ||
        vex_parse_option("-k", values[K], 1, VEX_K_MAX, &k, &error) != VEX_OK ||
        vex_parse_option("--min-lsn", values[MIN_LSN], 0, UINT64_MAX, &min_lsn, &error) != VEX_OK) {
        return vex_context_usage(context, "search: %s", error.message);
    }
    struct search search = {
        .context = context,
        .k = (uint32_t)k,
        .ef_search = (uint32_t)ef_search,
        .nprobe = (uint32_t)nprobe,
        .recall = recall,
        .exact = values[EXACT] != NULL,
        .payloads = values[PAYLOADS] != NULL,
    };
    struct source source = {0};
    enum vex_status status = open_source(values, &source, &error);
    if (status == VEX_OK) {
        status = search_collection(context, arguments->words[0], &search, &source, min_lsn, &error);
    }
    close_source(&source);
    return status == VEX_OK ? VEX_EXIT_OK : vex_context_fail(&error);
}

const struct vex_verb vex_verb_search = {
    .name = "search",
    .synopsis = "COLLECTION --vector JSON | --vector-file FILE[:ROW] | --id N  [options]",
    .summary = "Find the nearest vectors",
    .text = text,
    .options = options,
    .options_count = OPTIONS_COUNT,
    .words_min = 1,
    .words_max = 1,
    .run = run,
};
