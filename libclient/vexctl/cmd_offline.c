/*
 * The verbs for an instance that no daemon serves: fsck, log dump, log repair. vexd does the work.
 */
#include "libclient/vexctl/parse.h"
#include "libclient/vexctl/verbs.h"
#include "libclient/vexctl/vexd.h"

/* ---- fsck ------------------------------------------------------------------------------------ */

enum { DEEP, FSCK_COUNT };

static const struct vex_option fsck_options[FSCK_COUNT] = {
    [DEEP] = {"deep", 0, NULL,
              "open a scratch copy for real and check every row, too;\n"
              "see 'vexctl help backup verify'"},
};

static enum vex_exit run_fsck(struct vex_context *context, const struct vex_arguments *arguments)
{
    const char *const words[] = {arguments->values[DEEP] ? "--verify" : "--check", NULL};
    return vex_vexd_run(context, NULL, words);
}

const struct vex_verb vex_verb_fsck = {
    .name = "fsck",
    .synopsis = "[--deep]",
    .summary = "Check every file of the instance; changes nothing",
    .text =
        "Reads manifest, checkpoints, segment files and log to the end and verifies all\n"
        "checksums. No daemon may serve the instance (exit code 4): stop it with 'vexctl stop'.\n"
        "Exit code 0: sound (a torn tail of the log is, it was never acknowledged); 6: damaged,\n"
        "and the report on standard output says which files. What then: damage in one of two\n"
        "checkpoints costs nothing, the daemon takes the other; damage in segment files of one\n"
        "collection leaves the others to be served with 'vexd --quarantine'; for the log see\n"
        "'vexctl help log repair'; a backup helps always.\n"
        "\n"
        "example:\n"
        "  vexctl -d /srv/vexdb fsck\n",
    .options = fsck_options,
    .options_count = FSCK_COUNT,
    .run = run_fsck,
};

/* ---- log dump -------------------------------------------------------------------------------- */

enum { FROM, RECORDS, DUMP_COUNT };

static const struct vex_option dump_options[DUMP_COUNT] = {
    [FROM] = {"from", 0, "LSN", "only from this record on"},
    [RECORDS] = {"records", 0, NULL, "each record, not only the batches"},
};

static enum vex_exit run_dump(struct vex_context *context, const struct vex_arguments *arguments)
{
    const char *from = arguments->values[FROM];
    struct vex_error error = {0};
    uint64_t lsn = 0;
    if (vex_parse_option("--from", from, 0, UINT64_MAX, &lsn, &error) != VEX_OK) {
        return vex_context_usage(context, "log dump: %s", error.message);
    }
    const char *words[5] = {"--log-dump"};
    size_t count = 1;
    if (arguments->values[RECORDS]) {
        words[count++] = "--records";
    }
    if (from) {
        words[count++] = "--from";
        words[count++] = from;
    }
    return vex_vexd_run(context, NULL, words);
}

const struct vex_verb vex_verb_log_dump = {
    .name = "log dump",
    .synopsis = "[--from LSN] [--records]",
    .summary = "Show what is in the log: files, batches, records",
    .text = "From the oldest log file that is kept. Records that a checkpoint covers are in it as\n"
            "long as their file is. No daemon may serve the instance (exit code 4). Exit code 6:\n"
            "the log is damaged; what comes before the damage is shown.\n"
            "\n"
            "example:\n"
            "  vexctl -d /srv/vexdb log dump --records\n",
    .options = dump_options,
    .options_count = DUMP_COUNT,
    .run = run_dump,
};

/* ---- log repair ------------------------------------------------------------------------------ */

enum { ACCEPT, REPAIR_COUNT };

static const struct vex_option repair_options[REPAIR_COUNT] = {
    [ACCEPT] = {"accept-loss", 0, NULL, "do it; without this nothing is changed"},
};

static enum vex_exit run_repair(struct vex_context *context, const struct vex_arguments *arguments)
{
    const char *accept = arguments->values[ACCEPT] ? "--accept-loss" : NULL;
    const char *const words[] = {"--log-repair", accept, NULL};
    return vex_vexd_run(context, NULL, words);
}

const struct vex_verb vex_verb_log_repair = {
    .name = "log repair",
    .synopsis = "[--accept-loss]",
    .summary = "Cut a damaged log where the damage begins",
    .text =
        "Everything from the first damage on is lost, acknowledged writes included. Without\n"
        "--accept-loss the command says what would be lost, changes nothing, and ends with exit\n"
        "code 6; with it the log is cut and the daemon starts again. A sound log is left alone\n"
        "(exit code 0). No daemon may serve the instance (exit code 4). Restoring a backup\n"
        "instead may lose less: look at both first, and copy the directory before you cut.\n"
        "\n"
        "example:\n"
        "  vexctl -d /srv/vexdb log repair --accept-loss\n",
    .options = repair_options,
    .options_count = REPAIR_COUNT,
    .run = run_repair,
};
