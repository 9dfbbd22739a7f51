/*
 * Words of the command line to values, from tables. The same table makes the help text, so that
 * what is accepted and what is explained cannot drift apart; that, and messages that name verb and
 * option alike for every mistake, is why this is not getopt. Pure: no output, no exit.
 *
 * Accepted: --name VALUE, --name=VALUE, -n VALUE, -nVALUE; "--" ends the options; a lone "-" is a
 * word.
 */
#ifndef VEX_VEXCTL_OPTIONS_H
#define VEX_VEXCTL_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#include <vex/status.h>

#define VEX_OPTIONS_MAX 16u

struct vex_option {
    const char *name;  /* without the dashes; NULL = only a letter */
    char letter;       /* 0 = none */
    const char *value; /* what the help calls the value; NULL = the option takes none */
    const char *help;  /* one line, or several separated by '\n' */
};

/* A table of options, and what was found for each: NULL = not given, "" = given without a value. */
struct vex_options {
    const struct vex_option *table;
    size_t count; /* at most VEX_OPTIONS_MAX */
    const char *values[VEX_OPTIONS_MAX];
};

/*
 * Reads words up to the end, or up to the first one that is no option if `stop_at_word`. Options
 * are looked up in `own` and then in `shared`. Words that are none are moved to the front of
 * `words`; *out_count is their number, or with stop_at_word the position of the first one. Errors:
 * INVALID (unknown, without its value, given twice).
 */
enum vex_status vex_options_parse(char **words, size_t words_count, bool stop_at_word,
                                  struct vex_options *own, struct vex_options *shared,
                                  size_t *out_count, struct vex_error *error);

#endif
