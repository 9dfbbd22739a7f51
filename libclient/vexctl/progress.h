/*
 * How far a long run is: one line on standard error, rewritten in place, and only if that is a
 * terminal.
 */
#ifndef VEX_VEXCTL_PROGRESS_H
#define VEX_VEXCTL_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct vex_progress {
    const char *label;
    uint64_t rows_total;
    uint64_t started_ns;
    uint64_t shown_ns;
    bool visible;
    bool drawn;
};

/* Nanoseconds that only go forward. */
uint64_t vex_progress_now_ns(void);
void vex_progress_begin(struct vex_progress *progress, const char *label, uint64_t rows_total);
/* Draws at most ten times a second. `bytes` of vectors and payloads belong to the `rows` so far. */
void vex_progress_show(struct vex_progress *progress, uint64_t rows, uint64_t bytes);
/* Clears the line, so that messages begin on a clean one. */
void vex_progress_end(struct vex_progress *progress);

#endif
