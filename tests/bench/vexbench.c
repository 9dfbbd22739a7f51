/*
 * vexbench: measures VexDB through its public library, as a program of a user would meet it.
 *
 * Results are JSON, one object a line, on standard output; whatever is meant for people goes to
 * standard error. Nothing is judged here: a line gives a figure and, measured in the same run, what
 * the machine could have done at best, and their ratio. README.md says how to read each line.
 *
 * This file has the table of sub-commands, the help and the reading of the command line. Exit
 * codes: 0 measured, 1 something failed, 2 usage, 130 ended by Ctrl-C (what was started has been
 * stopped and removed).
 */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vex/vex.h>

#include "tests/bench/bench.h"
#include "tests/bench/common.h"

/* One row for each sub-command. */
#define BENCHES(X)                                                                                 \
    X(pin)                                                                                         \
    X(scan)                                                                                        \
    X(ingest)                                                                                      \
    X(start)                                                                                       \
    X(churn)                                                                                       \
    X(search)                                                                                      \
    X(exact)                                                                                       \
    X(live)                                                                                        \
    X(scale)

#define DECLARE(name) extern const struct vex_bench vex_bench_##name;
BENCHES(DECLARE)
#undef DECLARE

static const struct vex_bench *const benches[] = {
#define LIST(name) &vex_bench_##name,
    BENCHES(LIST)
#undef LIST
};
#define BENCHES_COUNT (sizeof benches / sizeof *benches)

enum exit_code { EXIT_MEASURED = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_INTERRUPTED = 130 };

/* ---- help ------------------------------------------------------------------------------------ */

static void print_overview(void)
{
    printf("usage: vexbench BENCH [options]\n"
           "\n"
           "Measures VexDB with an instance of its own in a temporary directory, and prints one\n"
           "JSON object a line.\n"
           "\n");
    for (size_t i = 0; i < BENCHES_COUNT; i++) {
        printf("  %-8s %s\n", benches[i]->name, benches[i]->summary);
    }
    printf("\n"
           "'vexbench BENCH --help' lists its options.\n"
           "exit codes: 0 measured, 1 failed, 2 usage, 130 interrupted\n");
}

static void print_help(const struct vex_bench *bench)
{
    printf("usage: vexbench %s [options]\n\n%s\n\n", bench->name, bench->summary);
    for (const struct vex_bench_option *option = bench->options; option->name; option++) {
        char words[64];
        (void)snprintf(words, sizeof(words), "--%s %s", option->name,
                       option->value ? option->value : "");
        printf("  %-24s %s", words, option->help);
        if (option->initial) {
            printf(" (%s)", option->initial);
        }
        printf("\n");
    }
}

/* ---- values ---------------------------------------------------------------------------------- */

/* Reads a whole number at *text and moves behind it. False: there is none, or it is too large. */
static bool read_count(const char **text, uint64_t *out)
{
    char *end = NULL;
    errno = 0;
    unsigned long long number = strtoull(*text, &end, 10);
    if (!isdigit((unsigned char)**text) || errno) {
        return false;
    }
    *text = end;
    *out = number;
    return true;
}

static bool within(const struct vex_bench_option *option, double number)
{
    return number >= option->least && number <= option->most;
}

static bool parse_list(const struct vex_bench_option *option, const char *text,
                       struct vex_bench_value *out)
{
    out->list_count = 0;
    for (;;) {
        uint64_t number = 0;
        if (out->list_count == VEX_BENCH_LIST_MAX || !read_count(&text, &number) ||
            !within(option, (double)number)) {
            return false;
        }
        out->list[out->list_count++] = number;
        if (*text == 0) {
            return true;
        }
        if (*text++ != ',') {
            return false;
        }
    }
}

static bool parse_word(const struct vex_bench_option *option, const char *text, size_t length,
                       uint64_t *out)
{
    const char *word = option->value;
    for (uint64_t i = 0;; i++) {
        size_t word_length = strcspn(word, "|");
        if (word_length == length && memcmp(word, text, length) == 0) {
            *out = i;
            return true;
        }
        if (word[word_length] == 0) {
            return false;
        }
        word += word_length + 1;
    }
}

static bool parse_words(const struct vex_bench_option *option, const char *text,
                        struct vex_bench_value *out)
{
    out->list_count = 0;
    for (;;) {
        size_t length = strcspn(text, ",");
        uint64_t word = 0;
        if (out->list_count == VEX_BENCH_LIST_MAX || !parse_word(option, text, length, &word)) {
            return false;
        }
        for (size_t i = 0; i < out->list_count; i++) {
            if (out->list[i] == word) {
                return false;
            }
        }
        out->list[out->list_count++] = word;
        if (text[length] == 0) {
            return true;
        }
        text += length + 1;
    }
}

static bool parse_real(const struct vex_bench_option *option, const char *text, double *out)
{
    char *end = NULL;
    double number = strtod(text, &end);
    if (!isdigit((unsigned char)text[0]) || *end || !isfinite(number) || !within(option, number)) {
        return false;
    }
    *out = number;
    return true;
}

static bool parse_value(const struct vex_bench_option *option, const char *text,
                        struct vex_bench_value *out)
{
    out->given = true;
    out->text = text;
    switch (option->kind) {
    case VEX_BENCH_COUNT:
        return read_count(&text, &out->count) && *text == 0 && within(option, (double)out->count);
    case VEX_BENCH_SECONDS:
        return parse_real(option, text, &out->seconds);
    case VEX_BENCH_SHARE:
        return parse_real(option, text, &out->share);
    case VEX_BENCH_LIST:
        return parse_list(option, text, out);
    case VEX_BENCH_WORD:
        return parse_word(option, text, strlen(text), &out->count);
    case VEX_BENCH_WORDS:
        return parse_words(option, text, out);
    case VEX_BENCH_TEXT:
        return text[0] != 0;
    case VEX_BENCH_FLAG:
        return false;
    }
    return false;
}

static void explain_value(const struct vex_bench *bench, const struct vex_bench_option *option,
                          const char *text)
{
    fprintf(stderr, "vexbench %s: --%s: '%.60s' is not ", bench->name, option->name, text);
    switch (option->kind) {
    case VEX_BENCH_COUNT:
        fprintf(stderr, "a whole number from %.0f to %.0f\n", option->least, option->most);
        break;
    case VEX_BENCH_SECONDS:
        fprintf(stderr, "a number of seconds from %g to %g\n", option->least, option->most);
        break;
    case VEX_BENCH_SHARE:
        fprintf(stderr, "a number from %g to %g\n", option->least, option->most);
        break;
    case VEX_BENCH_LIST:
        fprintf(stderr, "1 to %u whole numbers from %.0f to %.0f with commas between them\n",
                VEX_BENCH_LIST_MAX, option->least, option->most);
        break;
    case VEX_BENCH_WORD:
        fprintf(stderr, "one of %s\n", option->value);
        break;
    case VEX_BENCH_WORDS:
        fprintf(stderr, "one or more of %s, each once, with commas between them\n", option->value);
        break;
    case VEX_BENCH_TEXT:
        fprintf(stderr, "the name of anything\n");
        break;
    case VEX_BENCH_FLAG:
        fprintf(stderr, "wanted: it takes no value\n");
        break;
    }
}

/* ---- options --------------------------------------------------------------------------------- */

static const struct vex_bench_option *find_option(const struct vex_bench *bench, const char *name,
                                                  size_t length)
{
    for (const struct vex_bench_option *option = bench->options; option->name; option++) {
        if (strlen(option->name) == length && memcmp(option->name, name, length) == 0) {
            return option;
        }
    }
    return NULL;
}

static int usage(const struct vex_bench *bench)
{
    fprintf(stderr, "try 'vexbench %s --help'\n", bench->name);
    return EXIT_USAGE;
}

/* Takes the option at words[*at], moving *at to the last word used. */
static bool take_option(const struct vex_bench *bench, char **words, int count, int *at,
                        struct vex_bench_value *values)
{
    const char *word = words[*at];
    if (strncmp(word, "--", 2) != 0) {
        fprintf(stderr, "vexbench %s: '%.60s' is one word too many, it takes only options\n",
                bench->name, word);
        return false;
    }
    const char *name = word + 2;
    size_t length = strcspn(name, "=");
    const struct vex_bench_option *option = find_option(bench, name, length);
    if (!option) {
        fprintf(stderr, "vexbench %s: there is no option '%.60s'\n", bench->name, word);
        return false;
    }
    const char *text = name[length] ? name + length + 1 : NULL;
    if (!text && option->kind == VEX_BENCH_FLAG) {
        values[option - bench->options].given = true;
        return true;
    }
    if (!text && *at + 1 == count) {
        fprintf(stderr, "vexbench %s: --%s: %s is missing\n", bench->name, option->name,
                option->value);
        return false;
    }
    text = text ? text : words[++*at];
    if (!parse_value(option, text, &values[option - bench->options])) {
        explain_value(bench, option, text);
        return false;
    }
    return true;
}

static bool choose_isa(const struct vex_bench *bench, const struct vex_bench_value *values)
{
    const struct vex_bench_option *option =
        find_option(bench, VEX_BENCH_OPTION_ISA_NAME, strlen(VEX_BENCH_OPTION_ISA_NAME));
    const char *isa = option ? values[option - bench->options].text : "best";
    if (strcmp(isa, "best") == 0) {
        return true;
    }
    if (setenv("VEX_ISA", isa, 1) == 0 && strcmp(vex_isa_name(), isa) == 0) {
        return true;
    }
    fprintf(stderr, "vexbench %s: --isa: this processor has no %s\n", bench->name, isa);
    return false;
}

static int run_bench(const struct vex_bench *bench, char **words, int count)
{
    struct vex_bench_value values[VEX_BENCH_OPTIONS_MAX] = {0};
    size_t options_count = 0;
    for (const struct vex_bench_option *option = bench->options; option->name; option++) {
        if (options_count == VEX_BENCH_OPTIONS_MAX ||
            (option->initial && !parse_value(option, option->initial, &values[options_count]))) {
            fprintf(stderr, "vexbench: the table of %s is wrong at --%s\n", bench->name,
                    option->name);
            abort();
        }
        options_count++;
    }
    for (int i = 0; i < count; i++) {
        if (strcmp(words[i], "--help") == 0) {
            print_help(bench);
            return EXIT_MEASURED;
        }
        if (!take_option(bench, words, count, &i, values)) {
            return usage(bench);
        }
    }
    if (!choose_isa(bench, values)) {
        return EXIT_FAILED;
    }
    vex_bench_begin(bench->name);
    bool measured = vex_bench_machine() && bench->run(values);
    if (vex_bench_stopped()) {
        vex_bench_note("interrupted");
        return EXIT_INTERRUPTED;
    }
    return measured ? EXIT_MEASURED : EXIT_FAILED;
}

int main(int count, char **words)
{
    if (count < 2) {
        fprintf(stderr, "vexbench: name what to measure; try 'vexbench --help'\n");
        return EXIT_USAGE;
    }
    if (strcmp(words[1], "--help") == 0 || strcmp(words[1], "help") == 0) {
        print_overview();
        return EXIT_MEASURED;
    }
    if (strcmp(words[1], "--version") == 0) {
        printf("vexbench %s\n", vex_version());
        return EXIT_MEASURED;
    }
    for (size_t i = 0; i < BENCHES_COUNT; i++) {
        if (strcmp(words[1], benches[i]->name) == 0) {
            return run_bench(benches[i], words + 2, count - 2);
        }
    }
    fprintf(stderr, "vexbench: '%.60s' is nothing it measures; try 'vexbench --help'\n", words[1]);
    return EXIT_USAGE;
}
