/*
 * Memory that a thread uses for one search after the other, so that none allocates: a graph search needs a few
 * hundred KiB. It grows to the largest search of the thread and is freed when the thread ends.
 *
 * Thread-safety: each thread has its own.
 */
#ifndef VEX_LIBCLIENT_SCRATCH_H
#define VEX_LIBCLIENT_SCRATCH_H

#include <stddef.h>

/* At least `bytes` bytes aligned to 64, valid until the thread's next call; NULL if memory is short. */
void *vex_scratch_take(size_t bytes);

#endif
