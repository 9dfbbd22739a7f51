/*
 * The verb help: the overview, a verb, or the exit codes.
 */
#include <string.h>

#include "libclient/vexctl/verbs.h"

static enum vex_exit run(struct vex_context *context, const struct vex_arguments *arguments)
{
    char **words = arguments->words;
    size_t count = arguments->words_count;
    if (count == 0) {
        vex_verb_print_help(context->out, NULL);
        return VEX_EXIT_OK;
    }
    if (count == 1 && strcmp(words[0], "exit-codes") == 0) {
        vex_exit_print(context->out);
        return VEX_EXIT_OK;
    }
    size_t used = 0;
    const struct vex_verb *verb = vex_verb_find(words, count, &used);
    if (verb && used == count) {
        vex_verb_print_help(context->out, verb);
        return VEX_EXIT_OK;
    }
    /* "coll": the verbs that begin so. */
    size_t bytes = strlen(words[0]);
    bool found = false;
    for (size_t i = 0; count == 1 && vex_verbs[i]; i++) {
        if (strncmp(vex_verbs[i]->name, words[0], bytes) == 0 && vex_verbs[i]->name[bytes] == ' ') {
            fputs(found ? "\n" : "", context->out);
            vex_verb_print_help(context->out, vex_verbs[i]);
            found = true;
        }
    }
    return found ? VEX_EXIT_OK
                 : vex_context_usage(context, "help: '%.60s' is no verb", words[count - 1]);
}

const struct vex_verb vex_verb_help = {
    .name = "help",
    .synopsis = "[VERB | exit-codes]",
    .summary = "Explain vexctl, a verb, or the exit codes",
    .text = "The same text as 'vexctl VERB --help'.\n"
            "\n"
            "example:\n"
            "  vexctl help import\n",
    .words_max = 2,
    .run = run,
};
