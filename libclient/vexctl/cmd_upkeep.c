/*
 * The verbs that ask the daemon for its background work: checkpoint, compact run, compact status.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "libclient/vexctl/json.h"
#include "libclient/vexctl/table.h"
#include "libclient/vexctl/verbs.h"

static void print_number(struct vex_json *json, const char *key, uint64_t value)
{
    vex_json_key(json, key);
    vex_json_u64(json, value);
}

/* ---- checkpoint ------------------------------------------------------------------------------ */

static enum vex_exit run_checkpoint(struct vex_context *context,
                                    const struct vex_arguments *arguments)
{
    (void)arguments;
    struct vex_error error = {0};
    struct vex_upkeep_info info = VEX_UPKEEP_INFO_INIT;
    if (vex_context_open(context, true, &error) != VEX_OK ||
        vex_checkpoint(context->db, &info, &error) != VEX_OK) {
        return vex_context_fail(&error);
    }
    if (context->json) {
        struct vex_json json = {.to = context->out};
        vex_json_open(&json, '{');
        print_number(&json, "checkpoint_lsn", info.lsn);
        vex_json_close(&json, '}');
        fputc('\n', context->out);
    } else {
        fprintf(context->out, "checkpoint at lsn %" PRIu64 "\n", info.lsn);
    }
    return VEX_EXIT_OK;
}

const struct vex_verb vex_verb_checkpoint = {
    .name = "checkpoint",
    .synopsis = "",
    .summary = "Write the state to segment files now",
    .text = "The daemon does it by itself when the log has grown. After one the next start has\n"
            "nothing to replay, and log files that are not needed any more are given back.\n"
            "Returns when it is on disk; --timeout does not bound it.\n"
            "\n"
            "example:\n"
            "  vexctl -d /srv/vexdb checkpoint\n",
    .run = run_checkpoint,
};

/* ---- compact run ----------------------------------------------------------------------------- */

enum { ERASE, RUN_COUNT };

static const struct vex_option run_options[RUN_COUNT] = {
    [ERASE] = {"erase", 0, NULL,
               "leave no byte of deleted or replaced vectors and\n"
               "payloads in any file of the instance"},
};

static enum vex_exit run_compact(struct vex_context *context, const struct vex_arguments *arguments)
{
    struct vex_error error = {0};
    struct vex_upkeep_info info = VEX_UPKEEP_INFO_INIT;
    struct vex_compact_options options = VEX_COMPACT_OPTIONS_INIT;
    options.erase = arguments->values[ERASE] != NULL;
    const char *collection = arguments->words_count ? arguments->words[0] : NULL;
    if (vex_context_open(context, true, &error) != VEX_OK ||
        vex_compact(context->db, collection, &options, &info, &error) != VEX_OK) {
        return vex_context_fail(&error);
    }
    if (context->json) {
        struct vex_json json = {.to = context->out};
        vex_json_open(&json, '{');
        print_number(&json, "rows_removed", info.rows_removed);
        print_number(&json, "segments_before", info.segments_before);
        print_number(&json, "segments_after", info.segments_after);
        print_number(&json, "checkpoint_lsn", info.lsn);
        vex_json_key(&json, "erased");
        vex_json_bool(&json, options.erase);
        vex_json_close(&json, '}');
        fputc('\n', context->out);
    } else {
        char rows[48];
        char segments[48];
        vex_table_count(rows, info.rows_removed, "dead row");
        vex_table_count(segments, info.segments_before, "segment");
        fprintf(context->out,
                "removed %s%s; %s became %" PRIu64 ", checkpoint at lsn %" PRIu64 "\n", rows,
                options.erase ? " and erased what they held from all files" : "", segments,
                info.segments_after, info.lsn);
    }
    return VEX_EXIT_OK;
}

const struct vex_verb vex_verb_compact_run = {
    .name = "compact run",
    .synopsis = "[COLLECTION] [--erase]",
    .summary = "Merge segments, give memory and disk of dead rows back",
    .text =
        "Works on one collection, or on all of them. The daemon merges by itself what is worth\n"
        "it; this merges everything, and returns when the old segments are off the disk. Reads\n"
        "and writes go on meanwhile; --timeout does not bound it. It needs room for a second\n"
        "copy of the largest collection.\n"
        "\n"
        "With --erase the log is renewed as well, so that what was deleted or replaced before\n"
        "is in no file of the instance. Backups made earlier keep it.\n"
        "\n"
        "example:\n"
        "  vexctl compact run words --erase\n",
    .options = run_options,
    .options_count = RUN_COUNT,
    .words_max = 1,
    .run = run_compact,
};

/* ---- compact status -------------------------------------------------------------------------- */

static void print_status_json(FILE *out, const struct vex_stats *stats,
                              const struct vex_collection_info *infos, size_t count)
{
    struct vex_json json = {.to = out};
    vex_json_open(&json, '{');
    vex_json_key(&json, "running");
    vex_json_bool(&json, stats->upkeep_running == VEX_JOB_MERGE);
    print_number(&json, "merges", stats->merges);
    print_number(&json, "merge_failures", stats->merge_failures);
    print_number(&json, "merged_bytes", stats->merged_bytes);
    vex_json_key(&json, "collections");
    vex_json_open(&json, '[');
    for (size_t i = 0; i < count; i++) {
        vex_json_open(&json, '{');
        vex_json_key(&json, "name");
        vex_json_text(&json, infos[i].name);
        print_number(&json, "segments", infos[i].segments);
        print_number(&json, "live", infos[i].count);
        print_number(&json, "dead", infos[i].dead);
        print_number(&json, "shm_bytes", infos[i].shm_bytes);
        vex_json_close(&json, '}');
    }
    vex_json_close(&json, ']');
    vex_json_close(&json, '}');
    fputc('\n', out);
}

static void print_status_table(FILE *out, const struct vex_stats *stats,
                               const struct vex_collection_info *infos, size_t count)
{
    static const char *const titles[] = {"COLLECTION", ">SEGMENTS", ">LIVE",
                                         ">DEAD",      ">DEAD %",   ">SHM"};
    fprintf(out, "%s; %" PRIu64 " merges since the start, %" PRIu64 " failed\n",
            stats->upkeep_running == VEX_JOB_MERGE ? "a merge is running" : "no merge is running",
            stats->merges, stats->merge_failures);
    struct vex_table table;
    vex_table_init(&table, titles, sizeof(titles) / sizeof(titles[0]));
    for (size_t i = 0; i < count; i++) {
        const struct vex_collection_info *info = &infos[i];
        uint64_t rows = info->count + info->dead;
        char shm[16];
        vex_table_bytes(shm, info->shm_bytes);
        vex_table_add(&table, "%s", info->name);
        vex_table_add(&table, "%" PRIu32, info->segments);
        vex_table_add(&table, "%" PRIu64, info->count);
        vex_table_add(&table, "%" PRIu64, info->dead);
        vex_table_add(&table, "%.1f", rows ? 100.0 * (double)info->dead / (double)rows : 0.0);
        vex_table_add(&table, "%s", shm);
    }
    if (count) {
        vex_table_print(&table, out);
    }
    vex_table_deinit(&table);
}

static enum vex_exit run_compact_status(struct vex_context *context,
                                        const struct vex_arguments *arguments)
{
    (void)arguments;
    struct vex_error error = {0};
    struct vex_stats stats = {.size = sizeof(stats)};
    struct vex_collection_info *infos = NULL;
    size_t count = 0;
    if (vex_context_open(context, true, &error) != VEX_OK ||
        vex_get_stats(context->db, &stats, &error) != VEX_OK ||
        vex_context_list(context, &infos, &count, &error) != VEX_OK) {
        return vex_context_fail(&error);
    }
    if (context->json) {
        print_status_json(context->out, &stats, infos, count);
    } else {
        print_status_table(context->out, &stats, infos, count);
    }
    free(infos);
    return VEX_EXIT_OK;
}

const struct vex_verb vex_verb_compact_status = {
    .name = "compact status",
    .synopsis = "",
    .summary = "Tell what there is to compact, and whether it is going on",
    .text =
        "For each collection the number of its segments and of the dead rows in them; a search\n"
        "passes over dead rows, so many of them cost time as well as memory.\n"
        "\n"
        "example:\n"
        "  vexctl -o json compact status\n",
    .run = run_compact_status,
};
