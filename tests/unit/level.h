/*
 * For tests that run once for each level of the kernels: VEX_ISA names it, and a processor that lacks it
 * skips the run.
 */
#ifndef VEX_TESTS_UNIT_LEVEL_H
#define VEX_TESTS_UNIT_LEVEL_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "index/kernels.h"

#define LEVEL_SKIPPED 77 /* exit code, as ctest is told */

static inline bool level_is_missing(void)
{
    const char *wanted = getenv("VEX_ISA");
    if (!wanted || !*wanted || strcmp(vex_kernels_get()->name, wanted) == 0) {
        return false;
    }
    printf("skipped: this processor cannot run %s\n", wanted);
    return true;
}

#endif
