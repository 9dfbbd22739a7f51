/*
 * The verb status: what the daemon says about itself, and the ratios that an operator wants from it.
 *
 * A ratio needs something to be divided by: without live rows, or before the first write, there is
 * none, which is null in JSON and absent from the table.
 */
#include <inttypes.h>

#include "libclient/vexctl/json.h"
#include "libclient/vexctl/table.h"
#include "libclient/vexctl/verbs.h"

static uint64_t disk_bytes(const struct vex_stats *stats)
{
    return stats->log_file_bytes + stats->segment_bytes;
}

static const char *job_name(enum vex_upkeep_job job)
{
    switch (job) {
    case VEX_JOB_NONE:
        return "none";
    case VEX_JOB_CHECKPOINT:
        return "checkpoint";
    case VEX_JOB_MERGE:
        return "merge";
    case VEX_JOB_BACKUP:
        return "backup";
    }
    return "unknown";
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static void print_numbers_json(struct vex_json *json, const struct vex_stats *stats)
{
    const struct {
        const char *key;
        uint64_t value;
    } numbers[] = {
        {"daemon_pid", stats->daemon_pid},
        {"clients", stats->clients},
        {"uptime_ms", stats->uptime_ms},
        {"lsn", stats->lsn},
        {"generation", stats->generation},
        {"collections", stats->collections},
        {"quarantined", stats->quarantined},
        {"live_rows", stats->live_rows},
        {"dead_rows", stats->dead_rows},
        {"live_bytes", stats->live_bytes},
        {"shm_bytes", stats->shm_bytes},
        {"log_bytes", stats->log_bytes},
        {"log_file_bytes", stats->log_file_bytes},
        {"segment_files", stats->segment_files},
        {"segment_bytes", stats->segment_bytes},
        {"reserve_bytes", stats->reserve_bytes},
        {"disk_bytes", disk_bytes(stats)},
        {"ingested_bytes", stats->ingested_bytes},
        {"written_bytes", stats->written_bytes},
        {"commits", stats->commits},
        {"records", stats->records},
        {"checkpoint_lsn", stats->checkpoint_lsn},
        {"checkpoints", stats->checkpoints},
        {"checkpoint_failures", stats->checkpoint_failures},
        {"merges", stats->merges},
        {"merge_failures", stats->merge_failures},
        {"merged_bytes", stats->merged_bytes},
        {"recovery_us", stats->recovery_us},
        {"replayed", stats->replayed},
        {"torn_tails", stats->torn_tails},
    };
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        vex_json_key(json, numbers[i].key);
        vex_json_u64(json, numbers[i].value);
    }
}

static void print_ratio_json(struct vex_json *json, const char *key, uint64_t above, uint64_t below)
{
    vex_json_key(json, key);
    if (below) {
        vex_json_decimal(json, (double)above / (double)below);
    } else {
        vex_json_null(json);
    }
}

static void print_stats_json(FILE *out, const struct vex_stats *stats)
{
    struct vex_json json = {.to = out};
    vex_json_open(&json, '{');
    vex_json_key(&json, "instance");
    vex_json_text(&json, stats->instance);
    vex_json_key(&json, "version");
    vex_json_text(&json, stats->version);
    vex_json_key(&json, "io_backend");
    vex_json_text(&json, stats->io_backend);
    vex_json_key(&json, "embedded");
    vex_json_bool(&json, stats->embedded);
    vex_json_key(&json, "read_only");
    vex_json_bool(&json, stats->read_only);
    print_numbers_json(&json, stats);
    print_ratio_json(&json, "space_amplification", disk_bytes(stats), stats->live_bytes);
    print_ratio_json(&json, "write_amplification", stats->written_bytes, stats->ingested_bytes);
    print_ratio_json(&json, "shm_amplification", stats->shm_bytes, stats->live_bytes);
    vex_json_key(&json, "upkeep_running");
    vex_json_text(&json, job_name(stats->upkeep_running));
    vex_json_key(&json, "upkeep_error");
    if (stats->upkeep_error[0]) {
        vex_json_text(&json, stats->upkeep_error);
    } else {
        vex_json_null(&json);
    }
    vex_json_close(&json, '}');
    fputc('\n', out);
}

/* ---- table ----------------------------------------------------------------------------------- */

#define WIDTH 13

static void print_state(FILE *out, const struct vex_stats *stats)
{
    if (stats->read_only) {
        vex_table_line(out, WIDTH, "state", "READ-ONLY after an I/O error of the log");
    } else if (stats->quarantined) {
        vex_table_line(out, WIDTH, "state",
                       "DAMAGED: %" PRIu64 " collections are quarantined, see 'vexctl help fsck'",
                       stats->quarantined);
    } else if (stats->upkeep_error[0]) {
        vex_table_line(out, WIDTH, "state", "healthy, but background work failed");
    } else {
        vex_table_line(out, WIDTH, "state", "healthy");
    }
}

static void print_upkeep(FILE *out, const struct vex_stats *stats)
{
    char merged[16];
    vex_table_bytes(merged, stats->merged_bytes);
    vex_table_line(out, WIDTH, "checkpoints",
                   "%" PRIu64 " since the start, the newest at lsn %" PRIu64, stats->checkpoints,
                   stats->checkpoint_lsn);
    vex_table_line(out, WIDTH, "merges", "%" PRIu64 " since the start, %s", stats->merges, merged);
    vex_table_line(out, WIDTH, "upkeep", "%s", job_name(stats->upkeep_running));
    if (stats->checkpoint_failures || stats->merge_failures || stats->upkeep_error[0]) {
        vex_table_line(out, WIDTH, "failures", "%" PRIu64 " checkpoints, %" PRIu64 " merges%s%s",
                       stats->checkpoint_failures, stats->merge_failures,
                       stats->upkeep_error[0] ? "; the last: " : "", stats->upkeep_error);
    }
}

/* "x.xx (what)", or a dash where there is nothing to compare with. */
static void print_ratio(FILE *out, const char *before, uint64_t above, uint64_t below,
                        const char *what)
{
    if (below) {
        fprintf(out, "%s%.2f %s", before, (double)above / (double)below, what);
    } else {
        fprintf(out, "%s- %s", before, what);
    }
}

static void print_amplification(FILE *out, const struct vex_stats *stats)
{
    fprintf(out, "%-*s", WIDTH + 2, "amplification");
    print_ratio(out, "", disk_bytes(stats), stats->live_bytes, "of disk");
    print_ratio(out, ", ", stats->shm_bytes, stats->live_bytes, "of shared memory");
    print_ratio(out, ", ", stats->written_bytes, stats->ingested_bytes,
                "of writes since the start");
    fputc('\n', out);
}

static void print_space(FILE *out, const struct vex_stats *stats)
{
    char live[16];
    char shm[16];
    char log[16];
    char log_files[16];
    char segments[16];
    char reserve[16];
    vex_table_bytes(live, stats->live_bytes);
    vex_table_bytes(shm, stats->shm_bytes);
    vex_table_bytes(log, stats->log_bytes);
    vex_table_bytes(log_files, stats->log_file_bytes);
    vex_table_bytes(segments, stats->segment_bytes);
    vex_table_bytes(reserve, stats->reserve_bytes);
    vex_table_line(out, WIDTH, "rows", "%" PRIu64 " live with %s, %" PRIu64 " dead",
                   stats->live_rows, live, stats->dead_rows);
    vex_table_line(out, WIDTH, "shared memory", "%s", shm);
    vex_table_line(out, WIDTH, "log", "%s in files of %s, I/O backend %s", log, log_files,
                   stats->io_backend);
    vex_table_line(out, WIDTH, "segment files", "%" PRIu64 " of %s; reserve %s",
                   stats->segment_files, segments,
                   stats->reserve_bytes         ? reserve
                   : stats->checkpoint_failures ? "GIVEN UP: the disk is full"
                                                : "not needed yet");
    print_amplification(out, stats);
}

static void print_stats_table(FILE *out, const struct vex_stats *stats)
{
    char uptime[32];
    vex_table_duration(uptime, stats->uptime_ms);
    vex_table_line(out, WIDTH, "instance", "%s", stats->instance);
    vex_table_line(out, WIDTH, "daemon", "vexd %s, process %" PRIu32 ", up %s, %s", stats->version,
                   stats->daemon_pid, uptime,
                   stats->embedded ? "private: ends when idle" : "a service");
    print_state(out, stats);
    vex_table_line(out, WIDTH, "clients", "%" PRIu32, stats->clients);
    vex_table_line(out, WIDTH, "collections", "%" PRIu32, stats->collections);
    print_space(out, stats);
    vex_table_line(out, WIDTH, "lsn", "%" PRIu64 ", generation %" PRIu64, stats->lsn,
                   stats->generation);
    vex_table_line(out, WIDTH, "commits", "%" PRIu64 " with %" PRIu64 " records since the start",
                   stats->commits, stats->records);
    print_upkeep(out, stats);
    vex_table_line(out, WIDTH, "recovery",
                   "%.3f s, %" PRIu64 " records replayed, %" PRIu64 " torn tails dropped",
                   (double)stats->recovery_us / 1e6, stats->replayed, stats->torn_tails);
}

static enum vex_exit run_status(struct vex_context *context, const struct vex_arguments *arguments)
{
    (void)arguments;
    struct vex_error error = {0};
    struct vex_stats stats = {.size = sizeof(stats)};
    if (vex_context_open(context, true, &error) != VEX_OK ||
        vex_get_stats(context->db, &stats, &error) != VEX_OK) {
        return vex_context_fail(&error);
    }
    if (context->json) {
        print_stats_json(context->out, &stats);
    } else {
        print_stats_table(context->out, &stats);
    }
    return VEX_EXIT_OK;
}

const struct vex_verb vex_verb_status = {
    .name = "status",
    .synopsis = "",
    .summary = "Tell how the instance and its daemon are",
    .text =
        "Starts a daemon if none runs; with --no-spawn it fails then (exit code 5), which\n"
        "tells whether one runs. Recovery is that of the daemon's start; a torn tail is a batch\n"
        "that was never acknowledged. The amplifications are bytes on disk (log and segment\n"
        "files), bytes written to disk since the start, and bytes of shared memory, each for\n"
        "one byte of live vectors and payloads, or of records accepted since the start. A small\n"
        "instance has large ones: log files are prepared in advance.\n"
        "\n"
        "example:\n"
        "  vexctl -d /srv/vexdb -o json status\n",
    .run = run_status,
};
