/*
 * The verbs about backups: create (the daemon's work), list, verify, restore (vexd's, without serving).
 *
 * A backup is named by a word, which is a directory below backup/ in the instance, or by a path, which has a
 * slash in it.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "libclient/vexctl/fault.h"
#include "libclient/vexctl/json.h"
#include "libclient/vexctl/table.h"
#include "libclient/vexctl/verbs.h"
#include "libclient/vexctl/vexd.h"

#define FOLDER "backup"

/* The path of the backup that `name` means. Errors: INVALID. */
static enum vex_status find_backup(const struct vex_context *context, const char *name,
                                   char out_path[PATH_MAX], struct vex_error *error)
{
    bool is_path = strchr(name, '/') != NULL;
    if (!is_path && (!name[0] || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)) {
        return vex_fault(error, VEX_ERR_INVALID,
                         "'%.60s' is neither a name nor a path with a slash", name);
    }
    char directory[PATH_MAX];
    if (vex_find_directory(is_path ? name : context->directory, directory, sizeof(directory),
                           error) != VEX_OK) {
        return error->status;
    }
    int length = is_path ? snprintf(out_path, PATH_MAX, "%s", directory)
                         : snprintf(out_path, PATH_MAX, "%s/" FOLDER "/%s", directory, name);
    if (length < 0 || length >= PATH_MAX) {
        return vex_fault(error, VEX_ERR_INVALID, "the backup's path is too long");
    }
    return VEX_OK;
}

/* ---- create ---------------------------------------------------------------------------------- */

/* The folder of backups that are named by a word; what is wrong with it shows in the backup. */
static void make_folder(const char *path)
{
    char folder[PATH_MAX];
    size_t length = (size_t)(strrchr(path, '/') - path);
    memcpy(folder, path, length);
    folder[length] = 0;
    (void)mkdir(folder, 0750);
}

static enum vex_exit run_create(struct vex_context *context, const struct vex_arguments *arguments)
{
    struct vex_error error = {0};
    char now[32];
    struct tm utc;
    time_t seconds = time(NULL);
    (void)gmtime_r(&seconds, &utc);
    (void)strftime(now, sizeof(now), "%Y%m%dT%H%M%SZ", &utc);
    const char *name = arguments->words_count ? arguments->words[0] : now;
    char path[PATH_MAX];
    struct vex_upkeep_info info = VEX_UPKEEP_INFO_INIT;
    if (find_backup(context, name, path, &error) != VEX_OK ||
        vex_context_open(context, true, &error) != VEX_OK) {
        return vex_context_fail(&error);
    }
    if (!strchr(name, '/')) {
        make_folder(path);
    }
    if (vex_backup(context->db, path, &info, &error) != VEX_OK) {
        return vex_context_fail(&error);
    }
    if (context->json) {
        struct vex_json json = {.to = context->out};
        vex_json_open(&json, '{');
        vex_json_key(&json, "path");
        vex_json_text(&json, path);
        vex_json_key(&json, "lsn");
        vex_json_u64(&json, info.lsn);
        vex_json_key(&json, "bytes");
        vex_json_u64(&json, info.bytes);
        vex_json_close(&json, '}');
        fputc('\n', context->out);
    } else {
        char bytes[16];
        vex_table_bytes(bytes, info.bytes);
        fprintf(context->out, "backup at lsn %" PRIu64 ", %s: %s\n", info.lsn, bytes, path);
    }
    return VEX_EXIT_OK;
}

const struct vex_verb vex_verb_backup_create = {
    .name = "backup create",
    .synopsis = "[NAME | PATH]",
    .summary = "Make a backup while the daemon serves",
    .text =
        "A name is a directory below backup/ in the instance, a path has a slash in it; without\n"
        "either the name is the time (UTC). Every write acknowledged before the command is in\n"
        "it. On the instance's file system it is made of hard links and costs no space at\n"
        "first; elsewhere the daemon copies. Hard links share the disk's fate: for safety from\n"
        "a failing disk give a path on another one, or copy the backup there.\n"
        "\n"
        "example:\n"
        "  vexctl -d /srv/vexdb backup create before-upgrade\n",
    .words_max = 1,
    .run = run_create,
};

/* ---- list ------------------------------------------------------------------------------------ */

static enum vex_exit run_list(struct vex_context *context, const struct vex_arguments *arguments)
{
    (void)arguments;
    static const char *const words[] = {"--list-backups", NULL};
    return vex_vexd_run(context, NULL, words);
}

const struct vex_verb vex_verb_backup_list = {
    .name = "backup list",
    .synopsis = "",
    .summary = "List the backups below backup/ in the instance",
    .text = "Those that were given a name. Needs no daemon, and starts none.\n"
            "\n"
            "example:\n"
            "  vexctl -d /srv/vexdb -o json backup list\n",
    .run = run_list,
};

/* ---- verify ---------------------------------------------------------------------------------- */

static enum vex_exit run_verify(struct vex_context *context, const struct vex_arguments *arguments)
{
    static const char *const words[] = {"--verify", NULL};
    struct vex_error error = {0};
    char path[PATH_MAX];
    if (find_backup(context, arguments->words[0], path, &error) != VEX_OK) {
        return vex_context_fail(&error);
    }
    return vex_vexd_run(context, path, words);
}

const struct vex_verb vex_verb_backup_verify = {
    .name = "backup verify",
    .synopsis = "NAME | PATH",
    .summary = "Open a backup for real and check everything in it",
    .text =
        "Reads every byte, verifies all checksums, opens the backup as a daemon would and checks\n"
        "each row: ids, the way from id to row, payloads, deaths. The backup is not touched: a\n"
        "scratch copy (hard links where possible) beside it, or in $TMPDIR, is opened and\n"
        "removed. Takes as much shared memory as the instance itself. Exit code 0: sound;\n"
        "6: damaged, and the report says what.\n"
        "\n"
        "example:\n"
        "  vexctl -d /srv/vexdb backup verify before-upgrade\n",
    .words_min = 1,
    .words_max = 1,
    .run = run_verify,
};

/* ---- restore --------------------------------------------------------------------------------- */

enum { COPY, RESTORE_COUNT };

static const struct vex_option restore_options[RESTORE_COUNT] = {
    [COPY] = {"copy", 0, NULL, "copy the files even where hard links are possible"},
};

static enum vex_exit run_restore(struct vex_context *context, const struct vex_arguments *arguments)
{
    struct vex_error error = {0};
    char path[PATH_MAX];
    if (find_backup(context, arguments->words[0], path, &error) != VEX_OK) {
        return vex_context_fail(&error);
    }
    const char *copy = arguments->values[COPY] ? "--copy" : NULL;
    const char *const words[] = {"--restore", path, copy, NULL};
    return vex_vexd_run(context, arguments->words[1], words);
}

const struct vex_verb vex_verb_backup_restore = {
    .name = "backup restore",
    .synopsis = "NAME | PATH NEWDIR [--copy]",
    .summary = "Make a new instance from a backup",
    .text = "NEWDIR must not exist, or be empty. It appears under its name when it is whole, and\n"
            "can be served at once, also beside the instance that the backup was made of, which\n"
            "may go on running. Where hard links are possible they are used; with --copy the new\n"
            "instance shares nothing with the backup.\n"
            "\n"
            "example:\n"
            "  vexctl -d /srv/vexdb backup restore before-upgrade /srv/restored\n",
    .options = restore_options,
    .options_count = RESTORE_COUNT,
    .words_min = 2,
    .words_max = 2,
    .run = run_restore,
};
