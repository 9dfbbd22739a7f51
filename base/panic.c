#include "base/panic.h"

#include <stdio.h>
#include <stdlib.h>

_Noreturn void vex_panic(const char *file, int line, const char *condition)
{
    fprintf(stderr, "vexdb: %s:%d: assertion failed: %s\n", file, line, condition);
    abort();
}
