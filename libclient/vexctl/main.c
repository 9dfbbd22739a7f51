/*
 * vexctl: the operator's command line of VexDB.
 *
 * It uses the public library alone, and so also proves that the library is enough. This file reads
 * the global options, finds the verb and runs it; each family of verbs has a file cmd_*.c.
 */
#include <stdint.h>
#include <string.h>

#include "libclient/vexctl/fault.h"
#include "libclient/vexctl/parse.h"
#include "libclient/vexctl/verbs.h"

static void note_output(const struct vex_options *globals, struct vex_context *context)
{
    const char *output = globals->values[VEX_GLOBAL_OUTPUT];
    context->json = output && strcmp(output, "json") == 0;
}

/* From the global options to the context. */
static enum vex_status apply_globals(const struct vex_options *globals, struct vex_context *context,
                                     struct vex_error *error)
{
    const char *const *values = globals->values;
    context->directory = values[VEX_GLOBAL_DIRECTORY];
    if (context->directory && !context->directory[0]) {
        return vex_fault(error, VEX_ERR_INVALID, "-d: the directory has an empty name");
    }
    context->no_spawn = values[VEX_GLOBAL_NO_SPAWN] != NULL;
    const char *output = values[VEX_GLOBAL_OUTPUT];
    if (output && strcmp(output, "json") != 0 && strcmp(output, "table") != 0) {
        return vex_fault(error, VEX_ERR_INVALID, "-o: '%.40s' is neither table nor json", output);
    }
    enum vex_status status =
        vex_parse_seconds("--timeout", values[VEX_GLOBAL_TIMEOUT], &context->timeout_ms, error);
    if (status == VEX_OK) {
        status =
            vex_parse_seconds("--idle", values[VEX_GLOBAL_IDLE], &context->idle_timeout_ms, error);
    }
    return status;
}

static enum vex_exit run_verb(struct vex_context *context, const struct vex_verb *verb,
                              const struct vex_arguments *arguments)
{
    if (arguments->words_count < verb->words_min) {
        return vex_context_usage(context, "%s: too few arguments, it takes %s", verb->name,
                                 verb->synopsis);
    }
    if (arguments->words_count > verb->words_max) {
        return vex_context_usage(context, "%s: '%.60s' is one argument too many", verb->name,
                                 arguments->words[verb->words_max]);
    }
    return verb->run(context, arguments);
}

/* `globals`: what was read before the mistake; it says in what form to tell it. */
static enum vex_exit fail_usage(struct vex_context *context, const struct vex_options *globals,
                                const struct vex_error *error)
{
    note_output(globals, context);
    return vex_context_usage(context, "%s%s%s", context->verb ? context->verb : "",
                             context->verb ? ": " : "", error->message);
}

/* What stands where a verb should, but is none. */
static enum vex_exit fail_verb(const struct vex_context *context, char *const *words, size_t count)
{
    if (count == 0) {
        return vex_context_usage(context, "a verb is missing");
    }
    char text[128];
    if (vex_verb_is_group(words[0], text)) {
        return vex_context_usage(context, "%s: say %s", words[0], text);
    }
    return vex_context_usage(context, "'%.60s' is no verb", words[0]);
}

static enum vex_exit run(struct vex_context *context, char **words, size_t count)
{
    struct vex_options globals = {.table = vex_globals, .count = VEX_GLOBALS_COUNT};
    struct vex_error error = {0};
    size_t at = 0;
    if (vex_options_parse(words, count, true, NULL, &globals, &at, &error) != VEX_OK) {
        return fail_usage(context, &globals, &error);
    }
    words += at;
    count -= at;
    size_t used = 0;
    const struct vex_verb *verb = vex_verb_find(words, count, &used);
    struct vex_options own = {0};
    char ignored[128];
    if (!verb && count > 0 && vex_verb_is_group(words[0], ignored) &&
        vex_options_parse(words, count, false, NULL, &globals, &used, &error) == VEX_OK) {
        count = globals.values[VEX_GLOBAL_HELP] ? 0 : used; /* "coll --help": the overview */
    }
    if (verb) {
        context->verb = verb->name;
        own.table = verb->options;
        own.count = verb->options_count;
        words += used;
        count -= used;
        if (vex_options_parse(words, count, false, &own, &globals, &count, &error) != VEX_OK) {
            return fail_usage(context, &globals, &error);
        }
    }
    note_output(&globals, context);
    if (globals.values[VEX_GLOBAL_HELP]) {
        if (!verb && count > 0) {
            return fail_verb(context, words, count);
        }
        vex_verb_print_help(context->out, verb);
        return VEX_EXIT_OK;
    }
    if (apply_globals(&globals, context, &error) != VEX_OK) {
        return fail_usage(context, &globals, &error);
    }
    if (globals.values[VEX_GLOBAL_VERSION]) {
        return vex_verb_version.run(context, NULL);
    }
    if (!verb) {
        return fail_verb(context, words, count);
    }
    struct vex_arguments arguments = {words, count, own.values};
    return run_verb(context, verb, &arguments);
}

int main(int count, char **words)
{
    struct vex_context context = {0};
    vex_context_init(&context);
    size_t words_count = count > 0 ? (size_t)count - 1 : 0;
    enum vex_exit code = run(&context, words + 1, words_count);
    return (int)vex_context_finish(&context, code);
}
