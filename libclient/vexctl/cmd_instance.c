/*
 * The verbs stop and version.
 */
#include <inttypes.h>

#include "libclient/vexctl/fault.h"
#include "libclient/vexctl/json.h"
#include "libclient/vexctl/verbs.h"

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
