/*
 * Asking memory for lines ahead of their use.
 *
 * A function that does nothing but prefetch has no effect that a compiler must keep: GCC finds it
 * pure and drops the calls, silently. The empty statement below is an effect, so whoever prefetches
 * through here, however deep in functions of its own, does.
 */
#ifndef VEX_INDEX_FETCH_H
#define VEX_INDEX_FETCH_H

#include <stddef.h>

#define VEX_LINE_BYTES 64u

/* The lines of `bytes` bytes from a line's start on. */
static inline void vex_fetch(const void *from, size_t bytes)
{
    const char *line = from;
    for (size_t i = 0; i < bytes; i += VEX_LINE_BYTES) {
        __builtin_prefetch(line + i);
    }
    __asm__ volatile("" : : "r"(line));
}

#endif
