/*
 * What an instance occupies, on disk and in shared memory, as the system counts it and not as the
 * daemon does; and how to make the system forget the files it has read.
 *
 * Thread-safety: one thread.
 */
#ifndef VEX_BENCH_SPACE_H
#define VEX_BENCH_SPACE_H

#include <stdbool.h>
#include <stdint.h>

/* Blocks that the files below a directory take. */
uint64_t vex_space_disk_bytes(const char *directory);
/* Memory that the daemon's named shared-memory objects take: all whose names begin as that of one
 * that it maps. 0 if the system does not say. */
uint64_t vex_space_shm_bytes(uint32_t daemon_pid);
/*
 * Drops the files below a directory from the page cache, and, as root, all the system's clean
 * pages, so that the program that reads them is read anew too. False after saying why.
 */
bool vex_space_drop_cache(const char *directory);

#endif
