/*
 * What the disk can do by itself when it is read: a file beside the instance, read in order past
 * the page cache, in blocks of 1 MiB with so many of them under way at a time.
 *
 * By threads and not by a ring, because rings are refused in some containers and blocks of this
 * size do not notice the difference.
 */
#ifndef VEX_BENCH_READS_H
#define VEX_BENCH_READS_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#define VEX_READS_DEPTH_MAX 16u

struct vex_reads {
    char path[PATH_MAX + 16];
    uint64_t blocks;
};

/* Makes the file in directory `root`, at least as large. It stays for whoever removes the root. */
bool vex_reads_open(struct vex_reads *reads, const char *root, uint64_t bytes);
/* Reads `bytes`, from the beginning again when the file is too small; *out_rate is bytes a second,
 * NAN where there is no O_DIRECT. */
bool vex_reads_measure(const struct vex_reads *reads, unsigned depth, uint64_t bytes,
                       double *out_rate);

#endif
