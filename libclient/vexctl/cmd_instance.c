/*
 * The verbs about the instance as a whole: status, stop, version.
 */
#include <inttypes.h>

#include "libclient/vexctl/fault.h"
#include "libclient/vexctl/json.h"
#include "libclient/vexctl/table.h"
#include "libclient/vexctl/verbs.h"

static void print_stats_json(FILE *out, const struct vex_stats *stats)
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
        {"live_rows", stats->live_rows},
        {"dead_rows", stats->dead_rows},
        {"shm_bytes", stats->shm_bytes},
        {"log_bytes", stats->log_bytes},
        {"log_file_bytes", stats->log_file_bytes},
        {"commits", stats->commits},
        {"records", stats->records},
        {"replayed", stats->replayed},
        {"torn_tails", stats->torn_tails},
    };
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
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        vex_json_key(&json, numbers[i].key);
        vex_json_u64(&json, numbers[i].value);
    }
    vex_json_close(&json, '}');
    fputc('\n', out);
}

static void print_stats_table(FILE *out, const struct vex_stats *stats)
{
    char shm[16];
    char log[16];
    char log_files[16];
    char uptime[32];
    vex_table_bytes(shm, stats->shm_bytes);
    vex_table_bytes(log, stats->log_bytes);
    vex_table_bytes(log_files, stats->log_file_bytes);
    vex_table_duration(uptime, stats->uptime_ms);
    int width = 13;
    vex_table_line(out, width, "instance", "%s", stats->instance);
    vex_table_line(out, width, "daemon", "vexd %s, process %" PRIu32 ", up %s, %s", stats->version,
                   stats->daemon_pid, uptime,
                   stats->embedded ? "private: ends when idle" : "a service");
    vex_table_line(out, width, "state", "%s",
                   stats->read_only ? "READ-ONLY after an I/O error of the log" : "healthy");
    vex_table_line(out, width, "clients", "%" PRIu32, stats->clients);
    vex_table_line(out, width, "collections", "%" PRIu32, stats->collections);
    vex_table_line(out, width, "rows", "%" PRIu64 " live, %" PRIu64 " dead", stats->live_rows,
                   stats->dead_rows);
    vex_table_line(out, width, "shared memory", "%s", shm);
    vex_table_line(out, width, "log", "%s in files of %s, I/O backend %s", log, log_files,
                   stats->io_backend);
    vex_table_line(out, width, "lsn", "%" PRIu64 ", generation %" PRIu64, stats->lsn,
                   stats->generation);
    vex_table_line(out, width, "commits", "%" PRIu64 " with %" PRIu64 " records since the start",
                   stats->commits, stats->records);
    vex_table_line(out, width, "recovery",
                   "%" PRIu64 " records replayed, %" PRIu64 " torn tails dropped", stats->replayed,
                   stats->torn_tails);
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
    .text = "Starts a daemon if none runs; with --no-spawn it fails then (exit code 5), which\n"
            "tells whether one runs. Replayed records and torn tails are those of the daemon's\n"
            "start; a torn tail is a batch that was never acknowledged.\n"
            "\n"
            "example:\n"
            "  vexctl -d /srv/vexdb -o json status\n",
    .run = run_status,
};

static enum vex_exit run_stop(struct vex_context *context, const struct vex_arguments *arguments)
{
    (void)arguments;
    struct vex_error error = {0};
    struct vex_stats stats = {.size = sizeof(stats)};
    if (vex_context_open(context, false, &error) != VEX_OK ||
        vex_get_stats(context->db, &stats, &error) != VEX_OK ||
        vex_shutdown(context->db, &error) != VEX_OK) {
        if (error.status == VEX_ERR_UNAVAILABLE) {
            (void)vex_fault_in(&error, "no daemon to stop");
        }
        return vex_context_fail(&error);
    }
    if (context->json) {
        struct vex_json json = {.to = context->out};
        vex_json_open(&json, '{');
        vex_json_key(&json, "stopped");
        vex_json_bool(&json, true);
        vex_json_key(&json, "daemon_pid");
        vex_json_u64(&json, stats.daemon_pid);
        vex_json_close(&json, '}');
        fputc('\n', context->out);
    } else {
        fprintf(context->out, "stopped vexd, process %" PRIu32 "\n", stats.daemon_pid);
    }
    return VEX_EXIT_OK;
}

const struct vex_verb vex_verb_stop = {
    .name = "stop",
    .synopsis = "",
    .summary = "End the daemon",
    .text = "Returns when all accepted writes are on disk and the daemon has gone. Never starts\n"
            "one: if none runs, it fails (exit code 5). Programs that have the instance open keep\n"
            "their last snapshot, and start a new daemon when they write.\n"
            "\n"
            "example:\n"
            "  vexctl -d /srv/vexdb stop\n",
    .run = run_stop,
};

#define NUMBER_TEXT(number) #number
#define VERSION_TEXT(major, minor, patch)                                                          \
    NUMBER_TEXT(major) "." NUMBER_TEXT(minor) "." NUMBER_TEXT(patch)
static const char own_version[] =
    VERSION_TEXT(VEX_VERSION_MAJOR, VEX_VERSION_MINOR, VEX_VERSION_PATCH);

static enum vex_exit run_version(struct vex_context *context, const struct vex_arguments *arguments)
{
    (void)arguments;
    if (context->json) {
        struct vex_json json = {.to = context->out};
        vex_json_open(&json, '{');
        vex_json_key(&json, "vexctl");
        vex_json_text(&json, own_version);
        vex_json_key(&json, "libvex");
        vex_json_text(&json, vex_version());
        vex_json_key(&json, "kernels");
        vex_json_text(&json, vex_isa_name());
        vex_json_close(&json, '}');
        fputc('\n', context->out);
    } else {
        fprintf(context->out, "vexctl %s, libvex %s, kernels %s\n", own_version, vex_version(),
                vex_isa_name());
    }
    return VEX_EXIT_OK;
}

const struct vex_verb vex_verb_version = {
    .name = "version",
    .synopsis = "",
    .summary = "Tell the versions of vexctl and libvex",
    .text = "Also names the distance kernels chosen for this processor. The daemon's version is\n"
            "part of 'vexctl status'.\n"
            "\n"
            "example:\n"
            "  vexctl version\n",
    .run = run_version,
};
