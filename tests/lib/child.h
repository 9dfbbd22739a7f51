/*
 * Runs a piece of a test in a child process: what may abort, needs its own mount table, or is to be
 * abandoned without any clean-up, as a killed daemon would be.
 *
 * The caller has no threads of its own at that moment. What the child prints reaches the test's output.
 */
#ifndef VEX_TESTS_LIB_CHILD_H
#define VEX_TESTS_LIB_CHILD_H

#define VEX_CHILD_SKIPPED 77

/* Runs body(context) in a child and returns its exit code, or minus the signal that ended it (SIGABRT for
 * a failed assertion). The child ends by _exit with what `body` returns: no destructor and no leak check
 * runs. */
int vex_child_run(int (*body)(void *context), void *context);

#endif
