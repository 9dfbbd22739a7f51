/*
 * Threads that start together: each one prepares, waits at the gate until all are there, and works.
 *
 * A gate and not a barrier, because a thread that could not be started must not leave the others
 * waiting.
 */
#ifndef VEX_BENCH_CREW_H
#define VEX_BENCH_CREW_H

#include <stdbool.h>

struct vex_crew;

/* What a member does: prepares, calls vex_crew_ready, works if that says so. `index` counts from 0.
 * Returns false after saying what went wrong. */
typedef bool (*vex_crew_work)(struct vex_crew *crew, void *context, unsigned index);

/* Runs `count` members to their end, each in a thread of its own. False if one of them said so, or
 * could not be started. */
bool vex_crew_run(unsigned count, vex_crew_work work, void *context);
/* False: go home. */
bool vex_crew_ready(struct vex_crew *crew);

#endif
