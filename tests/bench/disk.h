/*
 * What the disk can do by itself: durable writes to a zero-filled file beside the instance, with
 * nothing in the way. Zero-filled, because a file that still grows makes the file system write its
 * own records too; it is what a log that prepares its files pays.
 */
#ifndef VEX_BENCH_DISK_H
#define VEX_BENCH_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/bench/common.h"

#define VEX_DISK_BLOCK_BYTES 4096u

enum vex_disk_method {
    VEX_DISK_FDATASYNC, /* write() through the page cache, then fdatasync() */
    VEX_DISK_DSYNC,     /* one write, O_DIRECT and RWF_DSYNC */
};

#define VEX_DISK_METHODS 2

struct vex_disk {
    int fds[VEX_DISK_METHODS]; /* a file for each method; -1 if it cannot be had here */
    /* Of the next write: they go through the file in order, round and round. */
    uint64_t offsets[VEX_DISK_METHODS];
    void *data; /* what is written */
};

/* Makes the files in directory `root`, for writes of up to bytes_max. */
bool vex_disk_open(struct vex_disk *disk, const char *root, size_t bytes_max);
bool vex_disk_has(const struct vex_disk *disk, enum vex_disk_method method);
/* The files stay for whoever removes the root. */
void vex_disk_close(struct vex_disk *disk);
/*
 * Writes `bytes`, a multiple of the block, again and again for duration_ns or once through the
 * file, whichever comes first; *out_rate is the number of writes a second, NAN for DSYNC without
 * O_DIRECT, and each write's microseconds are added to `latencies_us` (NULL = not wanted).
 */
bool vex_disk_measure(struct vex_disk *disk, enum vex_disk_method method, size_t bytes,
                      uint64_t duration_ns, double *out_rate, struct vex_samples *latencies_us);

#endif
