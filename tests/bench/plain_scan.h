/*
 * The exact search that anybody would write first: every float32 value of every row is read and compared,
 * with the widest instructions there are. What it costs is the memory's doing.
 *
 * The rows are a copy of this process's own, in huge pages where the system has them, of unit length for
 * cosine. Thread-safety: one thread.
 */
#ifndef VEX_BENCH_PLAIN_SCAN_H
#define VEX_BENCH_PLAIN_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vex/types.h>

#include "tests/bench/vectors.h"

struct vex_plain_scan {
    float *rows;
    size_t bytes;
    size_t count;
    uint32_t dim;
    enum vex_metric metric;
};

/* False after saying why. */
bool vex_plain_scan_open(struct vex_plain_scan *scan, const struct vex_vectors *base,
                         enum vex_metric metric);
/* The k nearest, nearest first, as float32 has it. `distances` has room for k. */
void vex_plain_scan_search(const struct vex_plain_scan *scan, const float *query, uint32_t k,
                           uint64_t *out_rows, float *distances);
/* Accepts a zeroed struct. */
void vex_plain_scan_close(struct vex_plain_scan *scan);

#endif
