/*
 * What vexctl's exit code says. Scripts depend on these numbers: they are documented in 'vexctl
 * help exit-codes' and in README.md, and never change their meaning.
 */
#ifndef VEX_VEXCTL_EXIT_H
#define VEX_VEXCTL_EXIT_H

#include <stdio.h>

#include <vex/status.h>

enum vex_exit {
    VEX_EXIT_OK = 0,
    VEX_EXIT_FAILED = 1,
    VEX_EXIT_USAGE = 2,
    VEX_EXIT_NOT_FOUND = 3,
    VEX_EXIT_CONFLICT = 4,
    VEX_EXIT_UNREACHABLE = 5,
    VEX_EXIT_CORRUPT = 6,
    VEX_EXIT_TIMEOUT = 7,
    VEX_EXIT_PARTIAL = 8, /* of import alone; no status maps to it */
    VEX_EXIT_DENIED = 9,
    VEX_EXIT_NO_SPACE = 10,
};

/* A status this program was not built with is a plain failure. */
enum vex_exit vex_exit_of(enum vex_status status);
/* The whole table, for people. */
void vex_exit_print(FILE *to);

#endif
