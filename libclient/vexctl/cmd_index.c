/*
 * The verbs on the index of a collection: coll alter, index status.
 *
 * Altering returns at once and the daemon does the work later, so both say how far it is, in the same words.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "libclient/vexctl/json.h"
#include "libclient/vexctl/shape.h"
#include "libclient/vexctl/table.h"
#include "libclient/vexctl/verbs.h"

static void print_status_json(struct vex_json *json, const char *name,
                              const struct vex_index_status *status)
{
    const struct {
        const char *key;
        uint64_t value;
    } numbers[] = {
        {"m", status->m},
        {"ef_construction", status->ef_construction},
        {"lists", status->lists},
        {"segments", status->segments},
        {"segments_indexed", status->segments_indexed},
        {"segments_other", status->segments_other},
        {"segments_waiting", status->segments_waiting},
        {"rows", status->rows},
        {"rows_indexed", status->rows_indexed},
        {"rows_other", status->rows_other},
        {"rows_scanned", status->rows - status->rows_indexed - status->rows_other},
        {"build_rows", status->build_rows},
        {"build_ms", status->build_ms},
    };
    vex_json_open(json, '{');
    vex_json_key(json, "name");
    vex_json_text(json, name);
    vex_json_key(json, "index");
    vex_json_text(json, vex_index_name(status->index));
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        vex_json_key(json, numbers[i].key);
        vex_json_u64(json, numbers[i].value);
    }
    vex_json_key(json, "busy_elsewhere");
    vex_json_bool(json, status->busy_elsewhere);
    vex_json_close(json, '}');
}

/* What the kind of index has a use for. */
static void describe_parameters(const struct vex_index_status *status, char out[48])
{
    switch (status->index) {
    case VEX_INDEX_AUTO:
    case VEX_INDEX_HNSW:
        (void)snprintf(out, 48, "M %" PRIu32 ", ef_construction %" PRIu32, status->m,
                       status->ef_construction);
        return;
    case VEX_INDEX_IVF:
        if (status->lists) {
            (void)snprintf(out, 48, "%" PRIu32 " lists", status->lists);
        } else {
            (void)snprintf(out, 48, "lists by size");
        }
        return;
    case VEX_INDEX_FLAT:
        break;
    }
    (void)snprintf(out, 48, "-");
}

/* ---- alter ----------------------------------------------------------------------------------- */

enum { ALTER_COUNT = VEX_SHAPE_STORAGE };

static const struct vex_option alter_options[ALTER_COUNT] = {VEX_SHAPE_INDEX_OPTIONS(0)};

static uint32_t changes_of(const char *const *values)
{
    return (values[VEX_SHAPE_INDEX] ? VEX_ALTER_INDEX : 0u) |
           (values[VEX_SHAPE_M] ? VEX_ALTER_M : 0u) |
           (values[VEX_SHAPE_EF_CONSTRUCTION] ? VEX_ALTER_EF_CONSTRUCTION : 0u) |
           (values[VEX_SHAPE_LISTS] ? VEX_ALTER_LISTS : 0u);
}

static void print_altered(FILE *out, const char *name, const struct vex_index_status *status)
{
    char parameters[48];
    char segments[48];
    describe_parameters(status, parameters);
    vex_table_count(segments, status->segments, "segment");
    bool has_parameters = strcmp(parameters, "-") != 0;
    fprintf(out, "altered '%s': index %s%s%s; ", name, vex_index_name(status->index),
            has_parameters ? ", " : "", has_parameters ? parameters : "");
    if (status->segments_waiting) {
        fprintf(out, "%" PRIu32 " of %s to be built or replaced, see 'vexctl index status'\n",
                status->segments_waiting, segments);
    } else {
        fputs("nothing to be built now\n", out);
    }
}

static enum vex_exit run_alter(struct vex_context *context, const struct vex_arguments *arguments)
{
    const char *name = arguments->words[0];
    const char *values[VEX_SHAPE_COUNT] = {NULL};
    memcpy(values, arguments->values, ALTER_COUNT * sizeof(values[0]));
    struct vex_error error = {0};
    struct vex_collection_options shape = VEX_COLLECTION_OPTIONS_INIT;
    if (changes_of(values) == 0) {
        return vex_context_usage(context, "coll alter: nothing to change is given");
    }
    if (vex_shape_parse(values, &shape, &error) != VEX_OK) {
        return vex_context_usage(context, "coll alter: %s", error.message);
    }
    const struct vex_alter_options options = {
        .size = sizeof(options),
        .changes = changes_of(values),
        .index = shape.index,
        .m = shape.m,
        .ef_construction = shape.ef_construction,
        .lists = shape.lists,
    };
    struct vex_index_status now = {.size = sizeof(now)};
    if (vex_context_open(context, true, &error) != VEX_OK ||
        vex_collection_alter(context->db, name, &options, &error) != VEX_OK ||
        vex_collection_index_status(context->db, name, &now, &error) != VEX_OK) {
        return vex_context_fail(&error);
    }
    if (context->json) {
        struct vex_json json = {.to = context->out};
        print_status_json(&json, name, &now);
        fputc('\n', context->out);
    } else {
        print_altered(context->out, name, &now);
    }
    return VEX_EXIT_OK;
}

const struct vex_verb vex_verb_coll_alter = {
    .name = "coll alter",
    .synopsis = "NAME [options]",
    .summary = "Ask for another index, or other parameters of it",
    .text =
        "What is not given stays as it is; dimension, metric and storage stay for as long as the\n"
        "collection lives. Returns when the change is durable. The daemon then builds what is\n"
        "missing and replaces what is not as asked any more, a segment at a time and in the\n"
        "background; until then a segment is searched by the index that it has. 'index status'\n"
        "tells how far that is, 'compact run' does it now. The JSON output is an entry of that of\n"
        "'index status'.\n"
        "\n"
        "example:\n"
        "  vexctl coll alter words --index hnsw --m 24\n",
    .options = alter_options,
    .options_count = ALTER_COUNT,
    .words_min = 1,
    .words_max = 1,
    .run = run_alter,
};

/* ---- status ---------------------------------------------------------------------------------- */

static void add_status_row(struct vex_table *table, const char *name,
                           const struct vex_index_status *status)
{
    char parameters[48];
    char building[48];
    describe_parameters(status, parameters);
    vex_table_count(building, status->build_rows, "row");
    vex_table_add(table, "%s", name);
    vex_table_add(table, "%s", vex_index_name(status->index));
    vex_table_add(table, "%s", parameters);
    vex_table_add(table, "%" PRIu32, status->segments);
    vex_table_add(table, "%" PRIu32, status->segments_indexed);
    vex_table_add(table, "%" PRIu32, status->segments_other);
    vex_table_add(table, "%" PRIu32, status->segments_waiting);
    vex_table_add(table, "%" PRIu64, status->rows);
    vex_table_add(table, "%" PRIu64, status->rows - status->rows_indexed - status->rows_other);
    if (status->build_rows) {
        vex_table_add(table, "%s since %" PRIu64 " s", building, status->build_ms / 1000);
    } else if (status->segments_waiting && status->busy_elsewhere) {
        vex_table_add(table, "behind another one");
    } else {
        vex_table_add(table, "-");
    }
}

struct entry {
    const char *name;
    struct vex_index_status status;
};

static enum vex_status fill_entry(const struct vex_context *context, const char *name,
                                  struct entry *entry, struct vex_error *error)
{
    *entry = (struct entry){name, {.size = sizeof(entry->status)}};
    return vex_collection_index_status(context->db, name, &entry->status, error);
}

/* All that are not dropped while it goes on. */
static enum vex_status fill_entries(const struct vex_context *context,
                                    const struct vex_collection_info *infos, size_t infos_count,
                                    struct entry *entries, size_t *out_count,
                                    struct vex_error *error)
{
    size_t count = 0;
    for (size_t i = 0; i < infos_count; i++) {
        enum vex_status status = fill_entry(context, infos[i].name, &entries[count], error);
        if (status != VEX_OK && status != VEX_ERR_NO_COLLECTION) {
            return status;
        }
        count += status == VEX_OK;
    }
    *out_count = count;
    return VEX_OK;
}

static void print_entries(const struct vex_context *context, const struct entry *entries,
                          size_t count)
{
    static const char *const titles[] = {"COLLECTION", "INDEX",   "PARAMETERS", ">SEGMENTS",
                                         ">INDEXED",   ">OLD",    ">TO DO",     ">ROWS",
                                         ">SCANNED",   "BUILDING"};
    if (context->json) {
        struct vex_json json = {.to = context->out};
        vex_json_open(&json, '{');
        vex_json_key(&json, "collections");
        vex_json_open(&json, '[');
        for (size_t i = 0; i < count; i++) {
            print_status_json(&json, entries[i].name, &entries[i].status);
        }
        vex_json_close(&json, ']');
        vex_json_close(&json, '}');
        fputc('\n', context->out);
        return;
    }
    if (count == 0) {
        fputs("no collections\n", context->out);
        return;
    }
    struct vex_table table;
    vex_table_init(&table, titles, sizeof(titles) / sizeof(titles[0]));
    for (size_t i = 0; i < count; i++) {
        add_status_row(&table, entries[i].name, &entries[i].status);
    }
    vex_table_print(&table, context->out);
    vex_table_deinit(&table);
}

static enum vex_exit run_status(struct vex_context *context, const struct vex_arguments *arguments)
{
    struct vex_error error = {0};
    struct vex_collection_info *infos = NULL;
    struct entry *entries = NULL;
    size_t count = 1;
    enum vex_status status = vex_context_open(context, true, &error);
    if (status == VEX_OK && arguments->words_count) {
        entries = vex_context_alloc(1, sizeof(*entries));
        status = fill_entry(context, arguments->words[0], entries, &error);
    } else if (status == VEX_OK) {
        status = vex_context_list(context, &infos, &count, &error);
        entries = vex_context_alloc(count, sizeof(*entries));
    }
    if (status == VEX_OK && infos) {
        status = fill_entries(context, infos, count, entries, &count, &error);
    }
    if (status == VEX_OK) {
        print_entries(context, entries, count);
    }
    free(entries);
    free(infos);
    return status == VEX_OK ? VEX_EXIT_OK : vex_context_fail(&error);
}

const struct vex_verb vex_verb_index_status = {
    .name = "index status",
    .synopsis = "[COLLECTION]",
    .summary = "Tell how far the index of each collection is",
    .text =
        "INDEX and its parameters are what is asked for. INDEXED segments have that, OLD ones\n"
        "another index, by which they are searched until they are replaced; the rest has none\n"
        "and is scanned: the newest rows, segments too small to be worth it, all of a flat\n"
        "collection. TO DO counts the segments that the background builds or replaces for the\n"
        "index alone, those under way included; small ones, which it only merges into a larger\n"
        "one that gets an index, do not count. ROWS are those of all segments, dead ones\n"
        "included, SCANNED those without an index. BUILDING is what is being built now, and since\n"
        "when; 'behind another one' means that the builders work for other collections.\n"
        "\n"
        "example:\n"
        "  vexctl -o json index status words\n",
    .words_max = 1,
    .run = run_status,
};
