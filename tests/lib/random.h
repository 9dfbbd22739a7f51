/*
 * Deterministic random numbers for tests. The seed is printed, so that a failure can be had again:
 * VEX_TEST_SEED=<seed> repeats the run. Without it every run uses the same seed, because a test that
 * fails once in a while on other people's changes teaches nobody anything; a nightly loop may vary it.
 *
 * The generator is SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): one word of state, any seed is good.
 */
#ifndef VEX_TESTS_LIB_RANDOM_H
#define VEX_TESTS_LIB_RANDOM_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

struct vex_random {
    uint64_t state;
};

static inline struct vex_random vex_random_seeded(uint64_t seed)
{
    return (struct vex_random){seed};
}

/* The seed of this run, printed with the name of whatever it is for. */
static inline uint64_t vex_random_announce(const char *what)
{
    const char *given = getenv("VEX_TEST_SEED");
    uint64_t seed = given && *given ? strtoull(given, NULL, 0) : 0x5eed5eed5eed5eedu;
    printf("%s: VEX_TEST_SEED=0x%llx\n", what, (unsigned long long)seed);
    (void)fflush(stdout);
    return seed;
}

static inline uint64_t vex_random_next(struct vex_random *random)
{
    random->state += 0x9e3779b97f4a7c15u;
    return vex_mix64(random->state);
}

/* Within [0, below); `below` is not 0. The bias of the remainder does not matter to a test. */
static inline uint64_t vex_random_below(struct vex_random *random, uint64_t below)
{
    return vex_random_next(random) % below;
}

/* True once in `odds` calls. */
static inline int vex_random_once_in(struct vex_random *random, uint64_t odds)
{
    return vex_random_below(random, odds) == 0;
}

/* Within [0, 1). */
static inline double vex_random_unit(struct vex_random *random)
{
    return (double)(vex_random_next(random) >> 11) * 0x1p-53;
}

static inline double vex_random_between(struct vex_random *random, double low, double high)
{
    return low + (high - low) * vex_random_unit(random);
}

static inline void vex_random_fill(struct vex_random *random, void *into, size_t bytes)
{
    uint8_t *at = into;
    while (bytes > 0) {
        uint64_t word = vex_random_next(random);
        size_t chunk = bytes < sizeof(word) ? bytes : sizeof(word);
        memcpy(at, &word, chunk);
        at += chunk;
        bytes -= chunk;
    }
}

#endif
