/*
 * The verb put: one vector, from the command line or a small file. Many vectors are for import.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "libclient/vexctl/json.h"
#include "libclient/vexctl/parse.h"
#include "libclient/vexctl/verbs.h"

enum { ID, VECTOR, PAYLOAD, MODE, OPTIONS_COUNT };

static const struct vex_option options[OPTIONS_COUNT] = {
    [ID] = {"id", 0, "N", "the id; without it a new one is made, and printed"},
    [VECTOR] = {"vector", 0, "JSON|@FILE|-", "the vector as an array of numbers"},
    [PAYLOAD] = {"payload", 0, "TEXT|@FILE", "the payload; @FILE takes all bytes of a file"},
    [MODE] = {"mode", 0, "MODE",
              "insert: the id must be free; upsert: replaces;\n"
              "update: the id must exist, no --payload keeps the old one;\n"
              "default: upsert with --id, insert without"},
};

static enum vex_exit put(struct vex_context *context, const char *name, enum vex_write_kind kind,
                         const struct vex_batch *batch)
{
    struct vex_error error = {0};
    struct vex_collection *collection = NULL;
    struct vex_ack ack = VEX_ACK_INIT;
    enum vex_status status = vex_context_open_collection(context, name, &collection, &error);
    if (status == VEX_OK) {
        status = vex_write(collection, kind, batch, &ack, &error);
    }
    vex_collection_close(collection);
    if (status != VEX_OK) {
        return vex_context_fail(&error);
    }
    uint64_t id = batch->ids ? batch->ids[0] : ack.first_id;
    if (context->json) {
        struct vex_json json = {.to = context->out};
        vex_json_open(&json, '{');
        vex_json_key(&json, "id");
        vex_json_u64(&json, id);
        vex_json_key(&json, "lsn");
        vex_json_u64(&json, ack.lsn);
        vex_json_close(&json, '}');
        fputc('\n', context->out);
    } else {
        fprintf(context->out, "id %" PRIu64 ", lsn %" PRIu64 "\n", id, ack.lsn);
    }
    return VEX_EXIT_OK;
}

static enum vex_exit run(struct vex_context *context, const struct vex_arguments *arguments)
{
    static const char *const words[] = {"insert", "upsert", "update", NULL};
    static const enum vex_write_kind kinds[] = {VEX_WRITE_INSERT, VEX_WRITE_UPSERT,
                                                VEX_WRITE_UPDATE};
    const char *const *values = arguments->values;
    struct vex_error error = {0};
    uint64_t id = 0;
    size_t mode = values[ID] ? 1 : 0;
    if (!values[VECTOR]) {
        return vex_context_usage(context, "put: --vector is needed");
    }
    if (vex_parse_option("--id", values[ID], 0, VEX_ID_MAX, &id, &error) != VEX_OK ||
        (values[MODE] &&
         vex_parse_choice("--mode", values[MODE], words, &mode, &error) != VEX_OK)) {
        return vex_context_usage(context, "put: %s", error.message);
    }
    if (!values[ID] && mode != 0) {
        return vex_context_usage(context, "put: --mode %s needs --id", words[mode]);
    }
    float *vector = NULL;
    void *payload = NULL;
    struct vex_batch batch = VEX_BATCH_INIT;
    size_t payload_bytes = 0;
    enum vex_status status =
        vex_parse_vector("--vector", values[VECTOR], &vector, &batch.dim, &error);
    if (status == VEX_OK && values[PAYLOAD]) {
        status = vex_parse_payload("--payload", values[PAYLOAD], &payload, &payload_bytes, &error);
    }
    enum vex_exit code;
    if (status == VEX_OK) {
        const void *payloads[1] = {payload};
        batch.count = 1;
        batch.ids = values[ID] ? &id : NULL;
        batch.vectors = vector;
        if (payload) {
            batch.payloads = payloads;
            batch.payload_bytes = &payload_bytes;
        }
        code = put(context, arguments->words[0], kinds[mode], &batch);
    } else {
        code = vex_context_fail(&error);
    }
    free(vector);
    free(payload);
    return code;
}

const struct vex_verb vex_verb_put = {
    .name = "put",
    .synopsis = "COLLECTION --vector JSON|@FILE|- [options]",
    .summary = "Write one vector",
    .text =
        "Durable and visible to every reader when it returns. A payload is any bytes, up to\n"
        "64 KiB; text that begins with '@' must come from a file. '-' and '@-' read standard\n"
        "input. For many vectors use 'vexctl import'.\n"
        "\n"
        "example:\n"
        "  vexctl put colours --id 7 --vector '[1, 0.5, 0]' --payload '{\"name\": \"orange\"}'\n",
    .options = options,
    .options_count = OPTIONS_COUNT,
    .words_min = 1,
    .words_max = 1,
    .run = run,
};
