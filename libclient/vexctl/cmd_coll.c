/*
 * The verbs on collections: coll create, list, show, drop. Altering one is in cmd_index.c.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libclient/vexctl/fault.h"
#include "libclient/vexctl/json.h"
#include "libclient/vexctl/parse.h"
#include "libclient/vexctl/shape.h"
#include "libclient/vexctl/table.h"
#include "libclient/vexctl/verbs.h"

static void print_info_json(struct vex_json *json, const struct vex_collection_info *info)
{
    vex_json_open(json, '{');
    vex_json_key(json, "name");
    vex_json_text(json, info->name);
    vex_json_key(json, "id");
    vex_json_u64(json, info->id);
    vex_json_key(json, "dim");
    vex_json_u64(json, info->dim);
    vex_json_key(json, "metric");
    vex_json_text(json, vex_metric_name(info->metric));
    vex_json_key(json, "index");
    vex_json_text(json, vex_index_name(info->index));
    vex_json_key(json, "m");
    vex_json_u64(json, info->m);
    vex_json_key(json, "ef_construction");
    vex_json_u64(json, info->ef_construction);
    vex_json_key(json, "lists");
    vex_json_u64(json, info->lists);
    vex_json_key(json, "storage");
    vex_json_text(json, vex_storage_name(info->storage));
    vex_json_key(json, "count");
    vex_json_u64(json, info->count);
    vex_json_key(json, "dead");
    vex_json_u64(json, info->dead);
    vex_json_key(json, "segments");
    vex_json_u64(json, info->segments);
    vex_json_key(json, "shm_bytes");
    vex_json_u64(json, info->shm_bytes);
    vex_json_key(json, "lsn");
    vex_json_u64(json, info->lsn);
    vex_json_close(json, '}');
}

/* ---- create ---------------------------------------------------------------------------------- */

enum { DIM, METRIC, SHAPE, CREATE_COUNT = SHAPE + VEX_SHAPE_COUNT };

static const struct vex_option create_options[CREATE_COUNT] = {
    [DIM] = {"dim", 0, "N", "components of a vector, 1 to 65535"},
    [METRIC] = {"metric", 0, "METRIC",
                "l2 (squared Euclidean), cosine (1 - cosine)\n"
                "or dot (larger is nearer)"},
    VEX_SHAPE_OPTIONS(SHAPE),
};

static enum vex_exit run_create(struct vex_context *context, const struct vex_arguments *arguments)
{
    static const char *const words[] = {"l2", "cosine", "dot", NULL};
    static const enum vex_metric metrics[] = {VEX_METRIC_L2, VEX_METRIC_COSINE, VEX_METRIC_DOT};
    const char *name = arguments->words[0];
    struct vex_collection_options shape = VEX_COLLECTION_OPTIONS_INIT;
    struct vex_error error = {0};
    uint64_t dim = 0;
    size_t metric = 0;
    if (!arguments->values[DIM] || !arguments->values[METRIC]) {
        return vex_context_usage(context, "coll create: --dim and --metric are both needed");
    }
    if (vex_parse_number("--dim", arguments->values[DIM], 1, VEX_DIM_MAX, &dim, &error) != VEX_OK ||
        vex_parse_choice("--metric", arguments->values[METRIC], words, &metric, &error) != VEX_OK ||
        vex_shape_parse(arguments->values + SHAPE, &shape, &error) != VEX_OK) {
        return vex_context_usage(context, "coll create: %s", error.message);
    }
    shape.dim = (uint32_t)dim;
    shape.metric = metrics[metric];
    struct vex_collection_info info = {.size = sizeof(info)};
    struct vex_collection *collection = NULL;
    context->creates = true;
    enum vex_status status = vex_context_open(context, true, &error);
    if (status == VEX_OK) {
        status = vex_collection_create(context->db, name, &shape, &error);
    }
    if (status == VEX_OK) {
        status = vex_collection_open(context->db, name, &collection, &error);
    }
    if (status == VEX_OK) {
        status = vex_collection_describe(collection, &info, &error);
    }
    vex_collection_close(collection);
    if (status != VEX_OK) {
        return vex_context_fail(&error);
    }
    if (context->json) {
        struct vex_json json = {.to = context->out};
        print_info_json(&json, &info);
        fputc('\n', context->out);
    } else {
        fprintf(context->out, "created '%s': dimension %" PRIu32 ", metric %s, index %s, %s\n",
                info.name, info.dim, vex_metric_name(info.metric), vex_index_name(info.index),
                vex_storage_name(info.storage));
    }
    return VEX_EXIT_OK;
}

const struct vex_verb vex_verb_coll_create = {
    .name = "coll create",
    .synopsis = "NAME --dim N --metric l2|cosine|dot [options]",
    .summary = "Create a collection",
    .text = "Names are 1 to 63 letters, digits, '_', '-' and '.', not beginning with '.'. The\n"
            "collection is durable when the command returns. A name that is taken is exit code 4.\n"
            "\n"
            "example:\n"
            "  vexctl coll create words --dim 256 --metric cosine\n",
    .options = create_options,
    .options_count = CREATE_COUNT,
    .words_min = 1,
    .words_max = 1,
    .run = run_create,
};

/* ---- list ------------------------------------------------------------------------------------ */

static void print_list(FILE *out, const struct vex_collection_info *infos, size_t count)
{
    static const char *const titles[] = {"NAME",   ">DIM",  "METRIC",    "INDEX", "STORAGE",
                                         ">COUNT", ">DEAD", ">SEGMENTS", ">SHM",  ">LSN"};
    if (count == 0) {
        fputs("no collections\n", out);
        return;
    }
    struct vex_table table;
    vex_table_init(&table, titles, sizeof(titles) / sizeof(titles[0]));
    for (size_t i = 0; i < count; i++) {
        const struct vex_collection_info *info = &infos[i];
        char shm[16];
        vex_table_bytes(shm, info->shm_bytes);
        vex_table_add(&table, "%s", info->name);
        vex_table_add(&table, "%" PRIu32, info->dim);
        vex_table_add(&table, "%s", vex_metric_name(info->metric));
        vex_table_add(&table, "%s", vex_index_name(info->index));
        vex_table_add(&table, "%s", vex_storage_name(info->storage));
        vex_table_add(&table, "%" PRIu64, info->count);
        vex_table_add(&table, "%" PRIu64, info->dead);
        vex_table_add(&table, "%" PRIu32, info->segments);
        vex_table_add(&table, "%s", shm);
        vex_table_add(&table, "%" PRIu64, info->lsn);
    }
    vex_table_print(&table, out);
    vex_table_deinit(&table);
}

static enum vex_exit run_list(struct vex_context *context, const struct vex_arguments *arguments)
{
    (void)arguments;
    struct vex_error error = {0};
    struct vex_collection_info *infos = NULL;
    size_t count = 0;
    if (vex_context_open(context, true, &error) != VEX_OK ||
        vex_context_list(context, &infos, &count, &error) != VEX_OK) {
        return vex_context_fail(&error);
    }
    if (context->json) {
        struct vex_json json = {.to = context->out};
        vex_json_open(&json, '{');
        vex_json_key(&json, "collections");
        vex_json_open(&json, '[');
        for (size_t i = 0; i < count; i++) {
            print_info_json(&json, &infos[i]);
        }
        vex_json_close(&json, ']');
        vex_json_close(&json, '}');
        fputc('\n', context->out);
    } else {
        print_list(context->out, infos, count);
    }
    free(infos);
    return VEX_EXIT_OK;
}

const struct vex_verb vex_verb_coll_list = {
    .name = "coll list",
    .synopsis = "",
    .summary = "List the collections",
    .text = "In the order of their names. COUNT is the number of live vectors, DEAD that of rows\n"
            "deleted or replaced whose space is not yet given back.\n"
            "\n"
            "example:\n"
            "  vexctl -o json coll list\n",
    .run = run_list,
};

/* ---- show ------------------------------------------------------------------------------------ */

/* How far the background is with the index that is asked for. */
static void print_indexed(FILE *out, int width, const struct vex_index_status *now)
{
    char segments[48];
    char scanned[48];
    vex_table_count(segments, now->segments, "segment");
    vex_table_count(scanned, now->rows - now->rows_indexed - now->rows_other, "row");
    char waiting[64] = "";
    if (now->segments_waiting) {
        (void)snprintf(waiting, sizeof(waiting), "; %" PRIu32 " to be built or replaced",
                       now->segments_waiting);
    }
    vex_table_line(out, width, "indexed", "%" PRIu32 " of %s, %s scanned%s", now->segments_indexed,
                   segments, scanned, waiting);
}

static void print_info_table(FILE *out, const struct vex_collection_info *info,
                             const struct vex_index_status *now)
{
    char shm[16];
    vex_table_bytes(shm, info->shm_bytes);
    int width = 13;
    vex_table_line(out, width, "name", "%s", info->name);
    vex_table_line(out, width, "id", "%" PRIu32, info->id);
    vex_table_line(out, width, "dimension", "%" PRIu32, info->dim);
    vex_table_line(out, width, "metric", "%s", vex_metric_name(info->metric));
    vex_table_line(out, width, "index", "%s, M %" PRIu32 ", ef_construction %" PRIu32,
                   vex_index_name(info->index), info->m, info->ef_construction);
    if (info->lists) {
        vex_table_line(out, width, "lists", "%" PRIu32 " in each segment", info->lists);
    } else {
        vex_table_line(out, width, "lists", "by the size of the segment");
    }
    vex_table_line(out, width, "storage", "%s", vex_storage_name(info->storage));
    print_indexed(out, width, now);
    vex_table_line(out, width, "vectors", "%" PRIu64, info->count);
    vex_table_line(out, width, "dead rows", "%" PRIu64, info->dead);
    vex_table_line(out, width, "segments", "%" PRIu32, info->segments);
    vex_table_line(out, width, "shared memory", "%s", shm);
    vex_table_line(out, width, "changed by", "lsn %" PRIu64, info->lsn);
}

static enum vex_exit run_show(struct vex_context *context, const struct vex_arguments *arguments)
{
    struct vex_error error = {0};
    struct vex_collection *collection = NULL;
    struct vex_collection_info info = {.size = sizeof(info)};
    struct vex_index_status now = {.size = sizeof(now)};
    enum vex_status status =
        vex_context_open_collection(context, arguments->words[0], &collection, &error);
    if (status == VEX_OK) {
        status = vex_collection_describe(collection, &info, &error);
    }
    vex_collection_close(collection);
    if (status == VEX_OK && !context->json) {
        status = vex_collection_index_status(context->db, info.name, &now, &error);
    }
    if (status != VEX_OK) {
        return vex_context_fail(&error);
    }
    if (context->json) {
        struct vex_json json = {.to = context->out};
        print_info_json(&json, &info);
        fputc('\n', context->out);
    } else {
        print_info_table(context->out, &info, &now);
    }
    return VEX_EXIT_OK;
}

const struct vex_verb vex_verb_coll_show = {
    .name = "coll show",
    .synopsis = "NAME",
    .summary = "Describe one collection",
    .text =
        "The keys of the JSON output are those of 'coll list'. Rows that are scanned are in "
        "segments\n"
        "without an index: the newest ones, and those too small to be worth it; 'index status'\n"
        "tells more.\n"
        "\n"
        "example:\n"
        "  vexctl coll show words\n",
    .words_min = 1,
    .words_max = 1,
    .run = run_show,
};

/* ---- drop ------------------------------------------------------------------------------------ */

enum { YES, DROP_COUNT };

static const struct vex_option drop_options[DROP_COUNT] = {
    [YES] = {"yes", 0, NULL, "do not ask"},
};

static bool ask(const char *name, uint64_t count)
{
    fprintf(stderr, "Drop the collection '%s' with its %" PRIu64 " vectors, for good? [y/N] ", name,
            count);
    char answer[16];
    return fgets(answer, sizeof(answer), stdin) && (answer[0] == 'y' || answer[0] == 'Y');
}

static enum vex_exit run_drop(struct vex_context *context, const struct vex_arguments *arguments)
{
    const char *name = arguments->words[0];
    bool sure = arguments->values[YES] != NULL;
    if (!sure && !(isatty(STDIN_FILENO) && isatty(STDERR_FILENO))) {
        return vex_context_usage(context, "coll drop: nothing was dropped; without a terminal to "
                                          "ask on, --yes is needed");
    }
    struct vex_error error = {0};
    struct vex_collection *collection = NULL;
    struct vex_collection_info info = {.size = sizeof(info)};
    enum vex_status status = vex_context_open_collection(context, name, &collection, &error);
    if (status == VEX_OK) {
        status = vex_collection_describe(collection, &info, &error);
    }
    vex_collection_close(collection);
    if (status == VEX_OK && !sure && !ask(name, info.count)) {
        return vex_context_say(VEX_EXIT_FAILED, NULL, "nothing was dropped");
    }
    if (status == VEX_OK) {
        status = vex_collection_drop(context->db, name, &error);
    }
    if (status != VEX_OK) {
        return vex_context_fail(&error);
    }
    if (context->json) {
        struct vex_json json = {.to = context->out};
        vex_json_open(&json, '{');
        vex_json_key(&json, "dropped");
        vex_json_text(&json, name);
        vex_json_key(&json, "count");
        vex_json_u64(&json, info.count);
        vex_json_close(&json, '}');
        fputc('\n', context->out);
    } else {
        fprintf(context->out, "dropped '%s' with %" PRIu64 " vectors\n", name, info.count);
    }
    return VEX_EXIT_OK;
}

const struct vex_verb vex_verb_coll_drop = {
    .name = "coll drop",
    .synopsis = "NAME [--yes]",
    .summary = "Remove a collection and everything in it",
    .text = "Asks first on a terminal; elsewhere --yes is needed. There is no way back.\n"
            "\n"
            "example:\n"
            "  vexctl coll drop words --yes\n",
    .options = drop_options,
    .options_count = DROP_COUNT,
    .words_min = 1,
    .words_max = 1,
    .run = run_drop,
};
