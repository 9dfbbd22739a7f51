/*
 * The parser behind the option tables: one word at a time, own table first. Each option may stand
 * once; twice is a mistake more often than a wish.
 */
#include "libclient/vexctl/options.h"

#include <string.h>

#include "libclient/vexctl/fault.h"

struct match {
    struct vex_options *options;
    size_t slot;
    const char *inline_value; /* behind '=' or the letter; NULL = none */
};

static bool match_in(struct vex_options *options, const char *word, struct match *match)
{
    bool is_long = word[1] == '-';
    const char *equals = is_long ? strchr(word, '=') : NULL;
    size_t name_bytes = equals ? (size_t)(equals - word) - 2 : strlen(word) - (is_long ? 2 : 0);
    for (size_t i = 0; options && i < options->count; i++) {
        const struct vex_option *option = &options->table[i];
        bool hit;
        if (is_long) {
            hit = option->name && strlen(option->name) == name_bytes &&
                  memcmp(option->name, word + 2, name_bytes) == 0;
            match->inline_value = equals ? equals + 1 : NULL;
        } else {
            hit = option->letter && option->letter == word[1];
            match->inline_value = word[2] ? word + 2 : NULL;
        }
        if (hit) {
            match->options = options;
            match->slot = i;
            return true;
        }
    }
    return false;
}

/* The option in words[at]; *out_used is how many words it takes. */
static enum vex_status take_option(char **words, size_t words_count, size_t at,
                                   struct vex_options *own, struct vex_options *shared,
                                   size_t *out_used, struct vex_error *error)
{
    const char *word = words[at];
    struct match match;
    if (!match_in(own, word, &match) && !match_in(shared, word, &match)) {
        return vex_fault(error, VEX_ERR_INVALID, "unknown option %.60s", word);
    }
    const struct vex_option *option = &match.options->table[match.slot];
    const char **value = &match.options->values[match.slot];
    if (*value) {
        return vex_fault(error, VEX_ERR_INVALID, "option %.60s is given twice", word);
    }
    *out_used = 1;
    if (!option->value) {
        if (match.inline_value) {
            return vex_fault(error, VEX_ERR_INVALID, "%.60s: this option takes no value", word);
        }
        *value = "";
    } else if (match.inline_value) {
        *value = match.inline_value;
    } else if (at + 1 < words_count) {
        *value = words[at + 1];
        *out_used = 2;
    } else {
        return vex_fault(error, VEX_ERR_INVALID, "option %.60s needs a value (%s)", word,
                         option->value);
    }
    return VEX_OK;
}

enum vex_status vex_options_parse(char **words, size_t words_count, bool stop_at_word,
                                  struct vex_options *own, struct vex_options *shared,
                                  size_t *out_count, struct vex_error *error)
{
    size_t kept = 0;
    size_t at = 0;
    bool options_ended = false;
    while (at < words_count) {
        char *word = words[at];
        bool is_option = !options_ended && word[0] == '-' && word[1] != 0;
        if (is_option && strcmp(word, "--") == 0) {
            options_ended = true;
            at++;
        } else if (is_option) {
            size_t used = 0;
            enum vex_status status = take_option(words, words_count, at, own, shared, &used, error);
            if (status != VEX_OK) {
                return status;
            }
            at += used;
        } else if (stop_at_word) {
            break;
        } else {
            words[kept++] = word;
            at++;
        }
    }
    *out_count = stop_at_word ? at : kept;
    return VEX_OK;
}
