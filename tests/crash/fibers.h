/*
 * The engine's threads, clock and random numbers, made to follow from a seed.
 *
 * The linker hands the calls of the code under test (pthread_create, mutexes, condition variables,
 * getrandom, clock_gettime; --wrap) to this file. Threads become fibers of one real thread. Another one
 * goes on where the running one blocks, and, by the seed's whim, at any call to the disk: so what a helper
 * thread does falls between any two operations, and a run can be had again. A fiber also costs a thousandth
 * of a thread, and every recovery starts one.
 *
 * When nothing can go on, that is a deadlock of the code under test: the process aborts.
 */
#ifndef VEX_TESTS_CRASH_FIBERS_H
#define VEX_TESTS_CRASH_FIBERS_H

#include <stdint.h>

/* A new world: clock and random numbers start from the seed, and others run once in `odds` chances (0 =
 * only when the running one blocks). No fiber of the old one may be left. */
void fibers_reset(uint64_t seed, uint32_t odds);
/* A chance for others to run; a vex_sim_habits.step. */
void fibers_step(void *context);
/* How many have been created and not joined. */
unsigned fibers_left(void);

#endif
