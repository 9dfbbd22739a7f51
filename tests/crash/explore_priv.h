/* The explorer's inside, shared by explore.c (options, jobs, failing) and explore_points.c (exploring). */
#ifndef VEX_TESTS_CRASH_EXPLORE_PRIV_H
#define VEX_TESTS_CRASH_EXPLORE_PRIV_H

#include <signal.h>

#include "tests/crash/explore.h"

#define EXPLORE_KILLED UINT64_MAX /* instead of a state: the process dies, the machine does not */

/* Where exploring is: a crash point and a state of a seed, and the same again if it is a second crash. */
struct explore_place {
    uint64_t seed;
    uint64_t point;
    uint64_t state;
    uint64_t second_point;
    uint64_t second_state;
    bool second;
};

struct explore_counts {
    uint64_t seeds;
    uint64_t failing_seeds; /* of them: lives on a disk that returns errors */
    uint64_t states;        /* of both depths */
    uint64_t points;
    uint64_t second_states;
    uint64_t second_points;
    uint64_t kills; /* lives that ended without loss of power, and another one began */
    uint64_t further_lives;
    uint64_t damages;
};

struct explorer {
    const struct explore_app *app;
    struct explore_place here;
    struct explore_place wanted; /* only this one, if `is_replay` */
    bool is_replay;
    bool is_ordered;
    bool is_failing; /* every life is on a disk that returns errors */
    bool is_thin;    /* fewer states of each point, so more points and seeds */
    bool is_damaged; /* on purpose, as `damage` says */
    char damage[160];
    uint64_t states_wanted; /* then this process stops */
    struct explore_counts counts;
    volatile sig_atomic_t is_stopped;
};

extern struct explorer explorer;

/* explore_points.c */
void explore_seed(uint64_t seed);

#endif
