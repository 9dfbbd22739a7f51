/*
 * What every benchmark needs: time, cores, medians, result lines, reproducible data, and a way to
 * end early.
 *
 * Figures are medians of many short measurements, because the machine is rarely ours alone: a
 * neighbour's burst spoils some of them and leaves the median where it was, while a mean would move.
 *
 * Thread-safety: everything from any thread, except what works on a struct of the caller's.
 */
#ifndef VEX_BENCH_COMMON_H
#define VEX_BENCH_COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

/* ---- the run --------------------------------------------------------------------------------- */

/* Names the run, for messages and lines, and catches SIGINT and SIGTERM. */
void vex_bench_begin(const char *bench);
/* True after such a signal: every loop looks, ends, and lets what was started be removed. A second
 * signal ends the program at once. */
bool vex_bench_stopped(void);
/* Both print "vexbench <bench>: <message>" on standard error. fail returns false. */
bool vex_bench_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
void vex_bench_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Prints the line that says what this machine is. */
bool vex_bench_machine(void);

/* ---- time and cores -------------------------------------------------------------------------- */

static inline uint64_t vex_bench_clock_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Processor time of the calling thread. */
static inline double vex_bench_thread_seconds(void)
{
    struct timespec used;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return (double)used.tv_sec + (double)used.tv_nsec * 1e-9;
}

/* How many cores this process may run on, as it was started. */
unsigned vex_cores_count(void);
/*
 * Pins the calling thread to the index-th of them, counted from the last one, because what else
 * runs tends to be on the first ones; more threads than cores share. Returns the number of the
 * core, or -1. Daemons inherit it: open the instance before.
 */
int vex_core_take(unsigned index);
/* Keeps the calling thread off that core and on all the others, if there are others. */
void vex_core_leave(unsigned index);
/* Lets the calling thread run on all of them again. */
void vex_core_release(void);

/* ---- samples --------------------------------------------------------------------------------- */

struct vex_samples {
    double *values;
    size_t count;
    size_t capacity;
};

/* Out of memory ends the program. */
void vex_samples_add(struct vex_samples *samples, double value);
void vex_samples_append(struct vex_samples *samples, const struct vex_samples *more);
/* Sorts the samples. NAN if there are none; `share` is 0.5 for the median, 0.99, 0 for the least,
 * 1 for the greatest. */
double vex_samples_quantile(struct vex_samples *samples, double share);
double vex_samples_median(struct vex_samples *samples);
void vex_samples_deinit(struct vex_samples *samples);

/* ---- result lines ---------------------------------------------------------------------------- */

/* One JSON object. Keys are written as they are. */
struct vex_line {
    char text[4096];
    size_t bytes;
};

/* Begins with "bench" and "what". */
void vex_line_begin(struct vex_line *line, const char *what);
void vex_line_text(struct vex_line *line, const char *key, const char *value);
void vex_line_count(struct vex_line *line, const char *key, uint64_t value);
/* null if it is not finite. */
void vex_line_real(struct vex_line *line, const char *key, double value);
/* The same with five places, for what is at most 1 and near it. */
void vex_line_share(struct vex_line *line, const char *key, double value);
/* The median as <key>, and <key>_least and <key>_greatest. */
void vex_line_spread(struct vex_line *line, const char *key, struct vex_samples *samples);
/* Prints it. Returns false if standard output does not take it. */
bool vex_line_end(struct vex_line *line);

/* ---- data ------------------------------------------------------------------------------------ */

/* Fills with values in [-1, 1) that depend on the seed alone; the seed moves on. */
void vex_data_fill(float *values, size_t count, uint64_t *seed);
/* The numbers from 0 to count - 1 in an order that depends on the seed alone. */
void vex_data_shuffle(uint64_t *numbers, size_t count, uint64_t *seed);
/* calloc, or the end of the program. */
void *vex_bench_alloc(size_t count, size_t bytes);

#endif
