/*
 * The verb import: from options and files to a load, and from its result to a summary or to the
 * words that say how to go on.
 *
 * Order: everything about the files first, without a daemon; then the collection; then the pass
 * that checks each row; and only then, if asked for, the collection is created and rows are
 * written.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "libclient/vexctl/fault.h"
#include "libclient/vexctl/file.h"
#include "libclient/vexctl/import.h"
#include "libclient/vexctl/json.h"
#include "libclient/vexctl/parse.h"
#include "libclient/vexctl/shape.h"
#include "libclient/vexctl/verbs.h"

enum {
    FORMAT,
    MODE,
    FIRST_ID,
    PAYLOAD_FILE,
    SKIP,
    LIMIT,
    BATCH,
    CREATE,
    METRIC,
    SHAPE,
    OPTIONS_COUNT = SHAPE + VEX_SHAPE_COUNT
};

static const struct vex_option options[OPTIONS_COUNT] = {
    [FORMAT] = {"format", 0, "FORMAT", "fvecs, bvecs, npy or jsonl; default: by the file's name"},
    [MODE] = {"mode", 0, "insert|upsert",
              "insert (default) refuses ids that exist,\n"
              "upsert replaces vector and payload"},
    [FIRST_ID] = {"first-id", 0, "N", "id of the file's first row; default 0"},
    [PAYLOAD_FILE] = {"payload-file", 0, "FILE",
                      "text file, one line a row; an empty line is no payload"},
    [SKIP] = {"skip", 0, "N", "leave out the first N rows; they keep their numbers"},
    [LIMIT] = {"limit", 0, "N", "import at most N rows"},
    [BATCH] = {"batch", 0, "N", "rows a batch at most; default: 4 MiB of data"},
    [CREATE] = {"create", 0, NULL, "create the collection if there is none (needs --metric)"},
    [METRIC] = {"metric", 0, "METRIC", "of the new collection: l2, cosine or dot"},
    VEX_SHAPE_OPTIONS(SHAPE),
};

static const char text[] =
    "Formats:\n"
    "  fvecs   each row: int32 dim, then dim 32-bit floats\n"
    "  bvecs   each row: int32 dim, then dim bytes\n"
    "  npy     numpy array of rows, C order; <f4 <f8 <f2 |i1 |u1\n"
    "  jsonl   one object a line: {\"id\": 7, \"vector\": [0.5, 1], \"payload\": ...};\n"
    "          id and payload are optional, but either all lines have an id or none\n"
    "\n"
    "A row without an id gets its row number, from 0, plus --first-id. A jsonl payload that is a\n"
    "string is stored as its text, any other value as compact JSON.\n"
    "\n"
    "The whole file is checked before anything is written: a bad file changes nothing. Only a\n"
    "number too large for --storage float16 is met later, on writing its batch. If an\n"
    "import stops later (exit code 8), the batches before are durable and the message says\n"
    "with which --skip to go on. Ctrl-C ends it between two batches.\n"
    "\n"
    "example:\n"
    "  vexctl import words words.fvecs --create --metric cosine --payload-file words.txt\n";

struct job {
    struct vex_context *context;
    const char *path;
    const char *name; /* of the collection */
    const struct vex_arguments *arguments;
    bool create;
    size_t metric; /* position in `metrics`; METRIC_OPEN = not given */
    struct vex_collection_options shape;
    struct vex_file file;
    struct vex_file payload_file;
    struct vex_lines lines;
    struct vex_collection *collection;
    struct vex_import import;
};

static const char *const metrics[] = {"l2", "cosine", "dot", NULL};
static const enum vex_metric metric_values[] = {VEX_METRIC_L2, VEX_METRIC_COSINE, VEX_METRIC_DOT};
#define METRIC_OPEN 3u

static void close_job(struct job *job)
{
    vex_reader_close(job->import.reader);
    vex_collection_close(job->collection);
    vex_file_unmap(&job->file);
    vex_file_unmap(&job->payload_file);
}

/* What needs neither file nor daemon. */
static enum vex_status read_options(struct job *job, uint64_t *limit, struct vex_error *error)
{
    static const char *const modes[] = {"insert", "upsert", NULL};
    const char *const *values = job->arguments->values;
    struct vex_import *import = &job->import;
    uint64_t batch_rows = 0;
    size_t mode = 0;
    job->create = values[CREATE] != NULL;
    job->metric = METRIC_OPEN;
    job->shape = (struct vex_collection_options)VEX_COLLECTION_OPTIONS_INIT;
    enum vex_status status = VEX_OK;
    if (values[MODE]) {
        status = vex_parse_choice("--mode", values[MODE], modes, &mode, error);
    }
    if (status == VEX_OK && values[METRIC]) {
        status = vex_parse_choice("--metric", values[METRIC], metrics, &job->metric, error);
    }
    if (status == VEX_OK) {
        status = vex_shape_parse(values + SHAPE, &job->shape, error);
    }
    if (status == VEX_OK) {
        status = vex_parse_option("--first-id", values[FIRST_ID], 0, VEX_ID_MAX, &import->id_first,
                                  error);
    }
    if (status == VEX_OK) {
        status = vex_parse_option("--skip", values[SKIP], 0, UINT64_MAX, &import->row_first, error);
    }
    if (status == VEX_OK) {
        status = vex_parse_option("--limit", values[LIMIT], 1, UINT64_MAX, limit, error);
    }
    if (status == VEX_OK) {
        status =
            vex_parse_option("--batch", values[BATCH], 1, VEX_BATCH_COUNT_MAX, &batch_rows, error);
    }
    import->kind = mode == 0 ? VEX_WRITE_INSERT : VEX_WRITE_UPSERT;
    import->batch_rows = (size_t)batch_rows;
    if (status == VEX_OK && job->create && job->metric == METRIC_OPEN) {
        return vex_fault(error, VEX_ERR_INVALID, "--create needs --metric");
    }
    if (status == VEX_OK && !job->create && job->metric != METRIC_OPEN) {
        return vex_fault(error, VEX_ERR_INVALID, "--metric is of use only with --create");
    }
    const char *given = vex_shape_given(values + SHAPE);
    if (status == VEX_OK && !job->create && given) {
        return vex_fault(error, VEX_ERR_INVALID, "%s is of use only with --create", given);
    }
    return status;
}

static enum vex_status choose_format(const struct job *job, enum vex_reader_format *out,
                                     struct vex_error *error)
{
    const char *word = job->arguments->values[FORMAT];
    *out = word ? vex_reader_format_of_word(word) : vex_reader_format_of_path(job->path);
    if (*out != VEX_READER_UNKNOWN) {
        return VEX_OK;
    }
    return word ? vex_fault(error, VEX_ERR_INVALID,
                            "--format: '%.40s' is none of fvecs, bvecs, npy, jsonl", word)
                : vex_fault(error, VEX_ERR_INVALID,
                            "the name '%.80s' does not tell the format; give --format", job->path);
}

static enum vex_status open_payload_file(struct job *job, uint64_t rows, struct vex_error *error)
{
    const char *path = job->arguments->values[PAYLOAD_FILE];
    enum vex_status status = vex_file_map(path, &job->payload_file, error);
    if (status != VEX_OK) {
        return status;
    }
    status =
        vex_lines_open_memory(&job->lines, job->payload_file.data, job->payload_file.bytes, error);
    if (status == VEX_OK && job->lines.count != rows) {
        status =
            vex_fault(error, VEX_ERR_INVALID,
                      "%" PRIu64 " lines for %" PRIu64 " rows; there must be as many lines as rows",
                      job->lines.count, rows);
    }
    if (status != VEX_OK) {
        return vex_fault_in(error, path);
    }
    job->import.lines = &job->lines;
    return VEX_OK;
}

static enum vex_status open_files(struct job *job, uint64_t limit, struct vex_error *error)
{
    enum vex_reader_format format;
    struct vex_import *import = &job->import;
    enum vex_status status = choose_format(job, &format, error);
    if (status == VEX_OK) {
        status = vex_file_map(job->path, &job->file, error);
    }
    if (status != VEX_OK) {
        return status;
    }
    status =
        vex_reader_open_memory(job->file.data, job->file.bytes, format, &import->reader, error);
    if (status != VEX_OK) {
        return vex_fault_in(error, job->path);
    }
    uint64_t rows = vex_reader_rows_count(import->reader);
    if (import->row_first > rows) {
        return vex_fault(error, VEX_ERR_INVALID,
                         "--skip %" PRIu64 ": the file has only %" PRIu64 " rows",
                         import->row_first, rows);
    }
    if (vex_reader_has_ids(import->reader) && job->arguments->values[FIRST_ID]) {
        return vex_fault(error, VEX_ERR_INVALID,
                         "--first-id: the rows of this file have ids of their own");
    }
    uint64_t left = rows - import->row_first;
    import->row_end = import->row_first + (limit < left ? limit : left);
    return job->arguments->values[PAYLOAD_FILE] ? open_payload_file(job, rows, error) : VEX_OK;
}

/* Does the collection, if it is there, take such vectors? */
static enum vex_status compare(struct job *job, enum vex_metric *out_metric,
                               struct vex_error *error)
{
    struct vex_collection_info info = {.size = sizeof(info)};
    enum vex_status status = vex_collection_describe(job->collection, &info, error);
    if (status != VEX_OK) {
        return status;
    }
    uint32_t dim = vex_reader_dim(job->import.reader);
    if (info.dim != dim) {
        (void)vex_fault(error, VEX_ERR_DIM,
                        "vectors of dimension %" PRIu32 ", the collection '%s' has %" PRIu32, dim,
                        info.name, info.dim);
        return vex_fault_in(error, job->path);
    }
    if (job->metric != METRIC_OPEN && metric_values[job->metric] != info.metric) {
        return vex_fault(error, VEX_ERR_EXISTS, "the collection '%s' exists with metric %s, not %s",
                         info.name, vex_metric_name(info.metric), metrics[job->metric]);
    }
    *out_metric = info.metric;
    return vex_shape_compare(job->arguments->values + SHAPE, &job->shape, &info, error);
}

static enum vex_status open_collection(struct job *job, struct vex_error *error)
{
    job->context->creates = job->create;
    enum vex_status status =
        vex_context_open_collection(job->context, job->name, &job->collection, error);
    enum vex_metric metric = VEX_METRIC_L2;
    if (status == VEX_ERR_NO_COLLECTION && job->create) {
        metric = metric_values[job->metric];
        status = VEX_OK;
    } else if (status == VEX_OK) {
        status = compare(job, &metric, error);
    } else if (status == VEX_ERR_NO_COLLECTION) {
        return vex_fault(error, status, "no collection '%.63s'; --create --metric METRIC makes one",
                         job->name);
    }
    if (status == VEX_OK && metric == VEX_METRIC_COSINE) {
        vex_reader_refuse_zero(job->import.reader);
    }
    return status;
}

static enum vex_status create_collection(struct job *job, struct vex_error *error)
{
    struct vex_collection_options shape = job->shape;
    shape.dim = vex_reader_dim(job->import.reader);
    shape.metric = metric_values[job->metric];
    enum vex_status status = vex_collection_create(job->context->db, job->name, &shape, error);
    if (status == VEX_OK) {
        status = vex_collection_open(job->context->db, job->name, &job->collection, error);
    }
    return status;
}

/* Says what is durable and how to go on. */
static enum vex_exit stop_partway(const struct job *job, const struct vex_import_result *result,
                                  const char *cause)
{
    const struct vex_import *import = &job->import;
    uint64_t next = import->row_first + result->rows;
    char *message = NULL;
    size_t bytes = 0;
    FILE *line = open_memstream(&message, &bytes);
    if (!line) {
        vex_context_end_without_memory();
    }
    fprintf(line, "import stopped: %s; %" PRIu64 " rows are durable", cause, result->rows);
    if (result->rows) {
        fprintf(line, " (rows %" PRIu64 " to %" PRIu64 " of the file)", import->row_first,
                next - 1);
    }
    if (result->unsure) {
        fprintf(line, "; rows %" PRIu64 " to %" PRIu64 " may be, too", next,
                next + result->unsure - 1);
    }
    fprintf(line, "; to go on: the same command with --skip %" PRIu64, next);
    if (job->arguments->values[LIMIT]) {
        fprintf(line, " --limit %" PRIu64, import->row_end - next);
    }
    fputs(result->unsure ? " --mode upsert" : "", line);
    if (fclose(line) != 0) {
        vex_context_end_without_memory();
    }
    (void)vex_context_say(VEX_EXIT_PARTIAL, NULL, message);
    free(message);
    return VEX_EXIT_PARTIAL;
}

static void print_summary(const struct job *job, const struct vex_import_result *result,
                          bool created)
{
    FILE *out = job->context->out;
    double rate = result->seconds > 0 ? (double)result->rows / result->seconds : 0;
    if (!job->context->json) {
        fprintf(out,
                "imported %" PRIu64 " rows into '%s' in %.2f s (%.0f rows/s), lsn %" PRIu64 "\n",
                result->rows, job->name, result->seconds, rate, result->lsn);
        return;
    }
    struct vex_json json = {.to = out};
    vex_json_open(&json, '{');
    vex_json_key(&json, "collection");
    vex_json_text(&json, job->name);
    vex_json_key(&json, "created");
    vex_json_bool(&json, created);
    vex_json_key(&json, "rows");
    vex_json_u64(&json, result->rows);
    vex_json_key(&json, "batches");
    vex_json_u64(&json, result->batches);
    vex_json_key(&json, "bytes");
    vex_json_u64(&json, result->bytes);
    vex_json_key(&json, "seconds");
    vex_json_decimal(&json, result->seconds);
    vex_json_key(&json, "rows_per_second");
    vex_json_decimal(&json, rate);
    vex_json_key(&json, "lsn");
    vex_json_u64(&json, result->lsn);
    vex_json_close(&json, '}');
    fputc('\n', out);
}

/* What a failure of the check says: the file's own faults get its name. */
static enum vex_exit fail_check(const struct job *job, struct vex_error *error)
{
    if (error->status == VEX_ERR_FORMAT || error->status == VEX_ERR_NOT_FINITE ||
        error->status == VEX_ERR_ZERO_VECTOR || error->status == VEX_ERR_LIMIT ||
        error->status == VEX_ERR_INVALID || error->status == VEX_ERR_EXISTS) {
        (void)vex_fault_in(error, job->path);
    }
    return vex_context_fail(error);
}

static enum vex_exit load(struct job *job)
{
    struct vex_error error = {0};
    if (vex_import_check(&job->import, job->collection, &error) != VEX_OK) {
        return fail_check(job, &error);
    }
    bool created = !job->collection;
    if (created && create_collection(job, &error) != VEX_OK) {
        return vex_context_fail(&error);
    }
    struct vex_import_result result = {0};
    enum vex_status status = vex_import_load(&job->import, job->collection, &result, &error);
    if (status != VEX_OK) {
        if (result.rows || result.unsure) {
            return stop_partway(job, &result, error.message);
        }
        if (created) {
            (void)vex_fault_in(&error, "the collection was created and is empty");
        }
        return vex_context_fail(&error);
    }
    if (result.interrupted) {
        return stop_partway(job, &result, "interrupted");
    }
    print_summary(job, &result, created);
    return VEX_EXIT_OK;
}

static enum vex_exit run(struct vex_context *context, const struct vex_arguments *arguments)
{
    struct job job = {
        .context = context,
        .name = arguments->words[0],
        .path = arguments->words[1],
        .arguments = arguments,
    };
    struct vex_error error = {0};
    uint64_t limit = UINT64_MAX;
    if (read_options(&job, &limit, &error) != VEX_OK) {
        return vex_context_usage(context, "import: %s", error.message);
    }
    enum vex_status status = open_files(&job, limit, &error);
    if (status == VEX_OK) {
        status = open_collection(&job, &error);
    }
    enum vex_exit code = status == VEX_OK ? load(&job) : vex_context_fail(&error);
    close_job(&job);
    return code;
}

const struct vex_verb vex_verb_import = {
    .name = "import",
    .synopsis = "COLLECTION FILE [options]",
    .summary = "Load the rows of a file",
    .text = text,
    .options = options,
    .options_count = OPTIONS_COUNT,
    .words_min = 2,
    .words_max = 2,
    .run = run,
};
