/*
 * The list of verbs, the global options, and the text of the help, which is made from them.
 */
#include "libclient/vexctl/verbs.h"

#include <stdio.h>
#include <string.h>

const struct vex_verb *const vex_verbs[] = {
    &vex_verb_status,
    &vex_verb_coll_create,
    &vex_verb_coll_list,
    &vex_verb_coll_show,
    &vex_verb_coll_alter,
    &vex_verb_coll_drop,
    &vex_verb_put,
    &vex_verb_get,
    &vex_verb_delete,
    &vex_verb_count,
    &vex_verb_search,
    &vex_verb_recall,
    &vex_verb_import,
    &vex_verb_index_status,
    &vex_verb_checkpoint,
    &vex_verb_compact_run,
    &vex_verb_compact_status,
    &vex_verb_backup_create,
    &vex_verb_backup_list,
    &vex_verb_backup_verify,
    &vex_verb_backup_restore,
    &vex_verb_fsck,
    &vex_verb_log_dump,
    &vex_verb_log_repair,
    &vex_verb_stop,
    &vex_verb_help,
    &vex_verb_version,
    NULL,
};

const struct vex_option vex_globals[VEX_GLOBALS_COUNT] = {
    [VEX_GLOBAL_DIRECTORY] = {"dir", 'd', "DIR",
                              "the instance; default $VEXDB_DIR, else ~/.local/share/vexdb"},
    [VEX_GLOBAL_OUTPUT] = {"output", 'o', "table|json",
                           "for people (default), or one JSON document"},
    [VEX_GLOBAL_TIMEOUT] = {"timeout", 0, "SECONDS",
                            "wait at most so long for the daemon; default 30"},
    [VEX_GLOBAL_IDLE] = {"idle", 0, "SECONDS",
                         "a daemon started by this command ends after so long\n"
                         "without clients; default 10"},
    [VEX_GLOBAL_NO_SPAWN] = {"no-spawn", 0, NULL, "fail if no daemon runs, do not start one"},
    [VEX_GLOBAL_HELP] = {"help", 'h', NULL, "this help"},
    [VEX_GLOBAL_VERSION] = {"version", 0, NULL, "as the verb version"},
};

/* The number of words of `name` if `words` begin with it, else 0. */
static size_t match_name(const char *name, char *const *words, size_t words_count)
{
    size_t used = 0;
    for (;;) {
        const char *space = strchr(name, ' ');
        size_t bytes = space ? (size_t)(space - name) : strlen(name);
        if (used == words_count || strlen(words[used]) != bytes ||
            memcmp(words[used], name, bytes) != 0) {
            return 0;
        }
        used++;
        if (!space) {
            return used;
        }
        name = space + 1;
    }
}

const struct vex_verb *vex_verb_find(char *const *words, size_t words_count, size_t *out_used)
{
    for (size_t i = 0; vex_verbs[i]; i++) {
        size_t used = match_name(vex_verbs[i]->name, words, words_count);
        if (used) {
            *out_used = used;
            return vex_verbs[i];
        }
    }
    return NULL;
}

/* The second word of a verb that begins with `group`, or NULL. */
static const char *second_word(const struct vex_verb *verb, const char *group)
{
    size_t bytes = strlen(group);
    return strncmp(verb->name, group, bytes) == 0 && verb->name[bytes] == ' '
               ? verb->name + bytes + 1
               : NULL;
}

bool vex_verb_is_group(const char *word, char *out_text)
{
    size_t left = 0;
    for (size_t i = 0; vex_verbs[i]; i++) {
        left += second_word(vex_verbs[i], word) != NULL;
    }
    size_t used = 0;
    bool found = left > 0;
    for (size_t i = 0; left > 0; i++) {
        const char *second = second_word(vex_verbs[i], word);
        if (second) {
            left--;
            used += (size_t)snprintf(out_text + used, 128 - used, "%s%s", second,
                                     left > 1    ? ", "
                                     : left == 1 ? " or "
                                                 : "");
        }
    }
    return found;
}

#define OPTION_COLUMN 28

static void print_option(FILE *to, const struct vex_option *option)
{
    char left[64];
    int width;
    const char *space = option->value ? " " : "";
    const char *value = option->value ? option->value : "";
    if (option->letter && option->name) {
        width = snprintf(left, sizeof(left), "  -%c, --%s%s%s", option->letter, option->name, space,
                         value);
    } else if (option->letter) {
        width = snprintf(left, sizeof(left), "  -%c%s%s", option->letter, space, value);
    } else {
        width = snprintf(left, sizeof(left), "      --%s%s%s", option->name, space, value);
    }
    fputs(left, to);
    if (width >= OPTION_COLUMN) {
        fputc('\n', to);
        width = 0;
    }
    for (const char *line = option->help; line;) {
        const char *end = strchr(line, '\n');
        int bytes = (int)(end ? (size_t)(end - line) : strlen(line));
        fprintf(to, "%*s%.*s\n", OPTION_COLUMN - width, "", bytes, line);
        width = 0;
        line = end ? end + 1 : NULL;
    }
}

static void print_overview(FILE *to)
{
    fputs("usage: vexctl [-d DIR] [-o table|json] [--timeout SECONDS] [--no-spawn] VERB ...\n"
          "\n"
          "Works on one VexDB instance: a directory with collections of vectors. If no daemon\n"
          "serves the directory, one is started, and ends by itself when it is idle.\n"
          "\n"
          "verbs:\n",
          to);
    for (size_t i = 0; vex_verbs[i]; i++) {
        fprintf(to, "  %-14s %s\n", vex_verbs[i]->name, vex_verbs[i]->summary);
    }
    fputs("\noptions, before or behind the verb:\n", to);
    for (size_t i = 0; i < VEX_GLOBALS_COUNT; i++) {
        print_option(to, &vex_globals[i]);
    }
    fputs("\n'vexctl help VERB' explains one verb, with an example; 'vexctl help exit-codes' what\n"
          "the exit code says.\n",
          to);
}

void vex_verb_print_help(FILE *to, const struct vex_verb *verb)
{
    if (!verb) {
        print_overview(to);
        return;
    }
    fprintf(to, "usage: vexctl %s%s%s\n\n%s.\n\n%s", verb->name, verb->synopsis[0] ? " " : "",
            verb->synopsis, verb->summary, verb->text);
    if (verb->options_count) {
        fputs("\noptions:\n", to);
        for (size_t i = 0; i < verb->options_count; i++) {
            print_option(to, &verb->options[i]);
        }
    }
    fputs("\nThe options of 'vexctl help' are understood here too.\n", to);
}
