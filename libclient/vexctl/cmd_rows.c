/*
 * The verbs on stored vectors by id: get, delete, count.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "libclient/vexctl/fault.h"
#include "libclient/vexctl/json.h"
#include "libclient/vexctl/parse.h"
#include "libclient/vexctl/payload.h"
#include "libclient/vexctl/table.h"
#include "libclient/vexctl/verbs.h"

#define SHOWN_COMPONENTS 4u

/* The ids behind the collection's name; to be freed. NULL on failure. */
static uint64_t *parse_ids(const struct vex_arguments *arguments, size_t *out_count,
                           struct vex_error *error)
{
    size_t count = arguments->words_count - 1;
    uint64_t *ids = vex_context_alloc(count, sizeof(*ids));
    for (size_t i = 0; i < count; i++) {
        if (vex_parse_number("ID", arguments->words[i + 1], 0, VEX_ID_MAX, &ids[i], error) !=
            VEX_OK) {
            free(ids);
            return NULL;
        }
    }
    *out_count = count;
    return ids;
}

/* ---- get ------------------------------------------------------------------------------------- */

static void print_record_json(struct vex_json *json, const struct vex_record *record)
{
    vex_json_open(json, '{');
    vex_json_key(json, "id");
    vex_json_u64(json, record->id);
    vex_json_key(json, "vector");
    vex_json_open(json, '[');
    for (size_t i = 0; i < record->dim; i++) {
        vex_json_float(json, record->vector[i]);
    }
    vex_json_close(json, ']');
    vex_payload_json(json, record->payload, record->payload_bytes);
    vex_json_close(json, '}');
}

static void add_record(struct vex_table *table, const struct vex_record *record)
{
    char vector[SHOWN_COMPONENTS * 16 + 32];
    size_t used = 0;
    vector[0] = 0;
    for (size_t i = 0; i < record->dim && i < SHOWN_COMPONENTS; i++) {
        used += (size_t)snprintf(vector + used, sizeof(vector) - used, "%s%.6g", i ? ", " : "",
                                 (double)record->vector[i]);
    }
    if (record->dim > SHOWN_COMPONENTS) {
        (void)snprintf(vector + used, sizeof(vector) - used, ", ... (%zu)", record->dim);
    }
    vex_table_add(table, "%" PRIu64, record->id);
    vex_table_add(table, "[%s]", vector);
    vex_table_take(table, vex_payload_line(record->payload, record->payload_bytes,
                                           vex_table_screen_columns()));
}

static enum vex_status print_records(struct vex_context *context, struct vex_snapshot *snapshot,
                                     const uint64_t *ids, size_t count, struct vex_error *error)
{
    static const char *const titles[] = {">ID", "VECTOR", "PAYLOAD"};
    struct vex_json json = {.to = context->out};
    struct vex_table table;
    vex_table_init(&table, titles, sizeof(titles) / sizeof(titles[0]));
    enum vex_status status = VEX_OK;
    if (context->json) {
        vex_json_open(&json, '{');
        vex_json_key(&json, "records");
        vex_json_open(&json, '[');
    }
    for (size_t i = 0; i < count && status == VEX_OK; i++) {
        struct vex_record record = {.size = sizeof(record)};
        status = vex_snapshot_get(snapshot, ids[i], &record, error);
        if (status == VEX_OK && context->json) {
            print_record_json(&json, &record);
        } else if (status == VEX_OK) {
            add_record(&table, &record);
        }
    }
    if (context->json) {
        vex_json_close(&json, ']');
        vex_json_key(&json, "snapshot_lsn");
        vex_json_u64(&json, vex_snapshot_lsn(snapshot));
        vex_json_close(&json, '}');
        fputc('\n', context->out);
    } else if (status == VEX_OK) {
        vex_table_print(&table, context->out);
    }
    vex_table_deinit(&table);
    return status;
}

static enum vex_exit run_get(struct vex_context *context, const struct vex_arguments *arguments)
{
    struct vex_error error = {0};
    size_t count = 0;
    uint64_t *ids = parse_ids(arguments, &count, &error);
    if (!ids) {
        return vex_context_usage(context, "get: %s", error.message);
    }
    struct vex_collection *collection = NULL;
    struct vex_snapshot *snapshot = NULL;
    enum vex_status status =
        vex_context_open_collection(context, arguments->words[0], &collection, &error);
    if (status == VEX_OK) {
        status = vex_snapshot_open(collection, NULL, &snapshot, &error);
    }
    if (status == VEX_OK) {
        status = print_records(context, snapshot, ids, count, &error);
    }
    vex_snapshot_close(snapshot);
    vex_collection_close(collection);
    free(ids);
    return status == VEX_OK ? VEX_EXIT_OK : vex_context_fail(&error);
}

const struct vex_verb vex_verb_get = {
    .name = "get",
    .synopsis = "COLLECTION ID...",
    .summary = "Show stored vectors with their payloads",
    .text = "All from one state of the collection. If one id does not exist, nothing is shown and\n"
            "the exit code is 3. In tables long vectors and payloads are shortened; JSON has all\n"
            "of them. A payload that is JSON is shown as JSON, other text as a string, bytes that\n"
            "are no UTF-8 as \"payload_base64\".\n"
            "\n"
            "example:\n"
            "  vexctl -o json get colours 7 8\n",
    .words_min = 2,
    .words_max = SIZE_MAX,
    .run = run_get,
};

/* ---- delete ---------------------------------------------------------------------------------- */

static enum vex_exit run_delete(struct vex_context *context, const struct vex_arguments *arguments)
{
    struct vex_error error = {0};
    struct vex_batch batch = VEX_BATCH_INIT;
    uint64_t *ids = parse_ids(arguments, &batch.count, &error);
    if (!ids) {
        return vex_context_usage(context, "delete: %s", error.message);
    }
    batch.ids = ids;
    struct vex_ack ack = VEX_ACK_INIT;
    struct vex_collection *collection = NULL;
    enum vex_status status =
        vex_context_open_collection(context, arguments->words[0], &collection, &error);
    if (status == VEX_OK) {
        status = vex_write(collection, VEX_WRITE_DELETE, &batch, &ack, &error);
    }
    vex_collection_close(collection);
    free(ids);
    if (status != VEX_OK) {
        return vex_context_fail(&error);
    }
    if (context->json) {
        struct vex_json json = {.to = context->out};
        vex_json_open(&json, '{');
        vex_json_key(&json, "deleted");
        vex_json_u64(&json, batch.count);
        vex_json_key(&json, "lsn");
        vex_json_u64(&json, ack.lsn);
        vex_json_close(&json, '}');
        fputc('\n', context->out);
    } else {
        fprintf(context->out, "deleted %zu, lsn %" PRIu64 "\n", batch.count, ack.lsn);
    }
    return VEX_EXIT_OK;
}

const struct vex_verb vex_verb_delete = {
    .name = "delete",
    .synopsis = "COLLECTION ID...",
    .summary = "Delete vectors by id",
    .text = "All of them or, if one does not exist (exit code 3), none. Durable when it returns.\n"
            "\n"
            "example:\n"
            "  vexctl delete colours 7 8\n",
    .words_min = 2,
    .words_max = SIZE_MAX,
    .run = run_delete,
};

/* ---- count ----------------------------------------------------------------------------------- */

static enum vex_exit run_count(struct vex_context *context, const struct vex_arguments *arguments)
{
    struct vex_error error = {0};
    struct vex_collection *collection = NULL;
    uint64_t count = 0;
    enum vex_status status =
        vex_context_open_collection(context, arguments->words[0], &collection, &error);
    if (status == VEX_OK) {
        status = vex_count(collection, NULL, &count, &error);
    }
    vex_collection_close(collection);
    if (status != VEX_OK) {
        return vex_context_fail(&error);
    }
    if (context->json) {
        struct vex_json json = {.to = context->out};
        vex_json_open(&json, '{');
        vex_json_key(&json, "count");
        vex_json_u64(&json, count);
        vex_json_close(&json, '}');
        fputc('\n', context->out);
    } else {
        fprintf(context->out, "%" PRIu64 "\n", count);
    }
    return VEX_EXIT_OK;
}

const struct vex_verb vex_verb_count = {
    .name = "count",
    .synopsis = "COLLECTION",
    .summary = "Count the live vectors of a collection",
    .text = "Prints the number alone, or {\"count\": N}.\n"
            "\n"
            "example:\n"
            "  vexctl count colours\n",
    .words_min = 1,
    .words_max = 1,
    .run = run_count,
};
