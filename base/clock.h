/* Monotonic time, shared by all processes of a host. No system call on Linux (vDSO). */
#ifndef VEX_BASE_CLOCK_H
#define VEX_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t vex_clock_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline uint64_t vex_clock_ms(void)
{
    return vex_clock_ns() / 1000000u;
}

#endif
