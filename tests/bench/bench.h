/*
 * What a sub-command of vexbench is: a name, a table of options and a function. The same table
 * parses the command line and makes the help, so what is accepted and what is explained agree.
 *
 * To add one: a file bench_<name>.c that defines `const struct vex_bench vex_bench_<name>`, and its
 * row in the table of vexbench.c. Its function prints JSON lines (common.h) and returns false after
 * saying on standard error what went wrong.
 */
#ifndef VEX_BENCH_BENCH_H
#define VEX_BENCH_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VEX_BENCH_OPTIONS_MAX 24u
#define VEX_BENCH_LIST_MAX 16u

enum vex_bench_kind {
    VEX_BENCH_COUNT,   /* a whole number */
    VEX_BENCH_SECONDS, /* a decimal number */
    VEX_BENCH_SHARE,   /* the same, of no unit */
    VEX_BENCH_LIST,    /* whole numbers with commas between them */
    VEX_BENCH_WORD,    /* one of the words of `value`, which has '|' between them */
    VEX_BENCH_WORDS,   /* some of these words, with commas between them */
    VEX_BENCH_TEXT,
    VEX_BENCH_FLAG, /* takes no value; `given` says it all */
};

struct vex_bench_option {
    const char *name; /* without the dashes; NULL ends the table */
    enum vex_bench_kind kind;
    const char *value;   /* what the help calls it; NULL for flags */
    const char *initial; /* what is taken if it is not given; NULL = nothing, see `given` */
    double least;        /* of numbers, inclusive */
    double most;
    const char *help;
};

struct vex_bench_value {
    bool given;                        /* or has an initial value */
    const char *text;                  /* as it was given */
    uint64_t count;                    /* COUNT; WORD: which one */
    double seconds;                    /* SECONDS */
    double share;                      /* SHARE */
    uint64_t list[VEX_BENCH_LIST_MAX]; /* LIST; WORDS: which ones, each once, in their order */
    size_t list_count;
};

/* The row that every table has: where the instance and the files of a run are. */
/* clang-format off */
#define VEX_BENCH_OPTION_DIR                                                                       \
    {"dir", VEX_BENCH_TEXT, "DIR", NULL, 0, 0,                                                     \
     "make the temporary directory of the run in DIR; default: where this program is"}
/*
 * The row of what compares instruction sets. Acted upon before anything is run: kernels are chosen once
 * in a process, and the daemon inherits the environment.
 */
#define VEX_BENCH_OPTION_ISA_NAME "isa"
#define VEX_BENCH_OPTION_ISA                                                                       \
    {VEX_BENCH_OPTION_ISA_NAME, VEX_BENCH_WORD, "best|scalar|avx2|avx512", "best", 0, 0,           \
     "instructions that may be used at most"}
/* clang-format on */

struct vex_bench {
    const char *name;
    const char *summary; /* one line */
    const struct vex_bench_option *options;
    /* `values` go with the rows of `options`. */
    bool (*run)(const struct vex_bench_value *values);
};

#endif
