/*
 * A private instance in a fresh temporary directory, gone without a trace at the end.
 *
 *     <parent>/vexbench.XXXXXX/      root; a benchmark may put files of its own there
 *     <parent>/vexbench.XXXXXX/db/   the instance
 *
 * The parent is on a disk unless the user wants it elsewhere: durable writes to memory would be
 * measured at memory's speed. Thread-safety: one thread opens and closes.
 */
#ifndef VEX_BENCH_INSTANCE_H
#define VEX_BENCH_INSTANCE_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include <vex/vex.h>

#include "tests/bench/bench.h"

struct vex_instance {
    char root[PATH_MAX]; /* empty = there is none */
    char directory[PATH_MAX];
    const char *file_system; /* "ext4", ..., or "other" */
    bool in_memory;
    struct vex_db *db; /* NULL = stopped */
    uint32_t daemon_pid;
};

/* `dir` is the value of VEX_BENCH_OPTION_DIR. On failure it has said why, and left nothing. */
bool vex_instance_open(struct vex_instance *instance, const struct vex_bench_value *dir);
/*
 * As open, but with the instance that is in `directory`, which stays: only the root is new, and on
 * the same file system. Refuses an instance that somebody else is using.
 */
bool vex_instance_take(struct vex_instance *instance, const struct vex_bench_value *dir,
                       const char *directory);
bool vex_instance_stats(const struct vex_instance *instance, struct vex_stats *out);
/* Stops the daemon and closes `db`, if it is open; the files stay. */
bool vex_instance_stop(struct vex_instance *instance);
/* Stops the daemon and removes the root. Accepts a zeroed or half-open struct. */
void vex_instance_close(struct vex_instance *instance);
/* One more connection to it. */
bool vex_instance_connect(const struct vex_instance *instance, struct vex_db **out_db);

/* Makes a collection and opens it. */
bool vex_instance_collection(struct vex_db *db, const char *name, uint32_t dim,
                             enum vex_metric metric, struct vex_collection **out_collection);
/* Fills it with `rows` rows of vex_data_fill(), ids from 0. False also if the run was stopped. */
bool vex_instance_fill(struct vex_collection *collection, uint32_t dim, uint64_t rows,
                       uint64_t *seed);
/* Processor time that the daemon has used so far, or NAN. */
double vex_instance_daemon_seconds(const struct vex_instance *instance);
/* Waits until the daemon has had no work in the background, and published nothing, for `still_s`, but at
 * most `most_s`; *out_rested says whether it got there. False if the run was stopped, or after saying why. */
bool vex_instance_rest(const struct vex_instance *instance, double still_s, double most_s,
                       bool *out_rested);
/* Waits until the daemon writes nothing more: after a load it may be preparing files. */
void vex_instance_settle(const struct vex_instance *instance);

/* ---- processes ------------------------------------------------------------------------------- */

struct vex_process_io {
    uint64_t read_bytes; /* from disks, that is: not from the page cache */
    uint64_t write_bytes;
};

/* What a process has had read and written so far; zeros if the system does not say. */
struct vex_process_io vex_process_io(uint32_t pid);
/* Waits, some seconds at most, until a process writes nothing more. */
void vex_process_settle(uint32_t pid);

#endif
