/*
 * The plain memory read that a scan is compared with: a buffer of this process alone, in 4 KiB
 * pages, summed from end to end with the widest loads the processor has. Pure, but for the choice
 * of the loads.
 */
#ifndef VEX_BENCH_MEMORY_H
#define VEX_BENCH_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vex_memory {
    uint64_t *words;
    size_t bytes;
    uint64_t sum; /* of all words, as the reference says */
};

/* `bytes` is rounded up to 4 KiB. */
bool vex_memory_open(struct vex_memory *memory, size_t bytes);
void vex_memory_close(struct vex_memory *memory);
/* Reads it all. False, having said so, if the sum is wrong. */
bool vex_memory_read(const struct vex_memory *memory);
/* "avx512", "avx2" or "plain"; static storage. */
const char *vex_memory_loads(void);

#endif
