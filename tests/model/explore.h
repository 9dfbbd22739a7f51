/*
 * All interleavings of a scenario: depth first from its first state, every thread, every alternative
 * of its step, every death that is allowed. A state that has been seen is not entered again; seen means
 * that a hash of 64 bits of it is known, so that of ten million states one is lost with a probability
 * of 3 in a million.
 *
 * Besides what the scenario checks: a state from which nothing can happen, with a thread that has not
 * ended, is a violation; so is a reader at the begin of an attempt which, left alone and with nobody else
 * moving ever again, would not come to an end.
 */
#ifndef VEX_TESTS_MODEL_EXPLORE_H
#define VEX_TESTS_MODEL_EXPLORE_H

#include <stddef.h>

#include "tests/model/machine.h"

struct scenario {
    const char *name;
    const char *what;
    uint32_t threads_count;
    uint32_t locations_count;
    uint8_t deaths_max;
    bool may_die[THREADS_MAX];
    uint8_t attempt_step; /* where readers begin anew, 0 = they never do */
    const char *const *location_names;
    const char *const *thread_names;
    void (*begin)(struct machine *machine);
    void (*step)(struct machine *machine);
};

struct exploration {
    const char *violation; /* NULL = none */
    size_t states;
    size_t steps;
    size_t depth_max;
};

/* `used`, if given, is set for every access that is made. Prints the way to a violation if `tells`. */
void model_explore(const struct scenario *scenario, const struct machine *rules, bool tells,
                   bool *used, struct exploration *out);

#endif
