/*
 * A disk that loses power. It records every operation, in order; afterwards the disk can be had as it may
 * look if the power had failed after any of them, and recovery runs on that, recorded again.
 *
 * The model is what POSIX promises and no more:
 *  - What is written to a file is volatile until a sync of that file, or, for a durable write, until that
 *    write has been reaped: then its own range is durable and nothing else. Until then each sector of 512
 *    bytes is on the disk or not, whatever happens to its neighbours, and a sector that was written
 *    several times holds any of its versions. A write that was under way may also leave garbage.
 *  - The length of a file is one more such unit. What lies behind the old end and was not written reads as
 *    zeros.
 *  - Names (created, removed, renamed, linked) are volatile until the directory is synced. Each change is
 *    on the disk or not, whatever happens to the others; a rename is one change. `ordered` makes it what
 *    journaling file systems do: of the changes to one directory, the first few.
 *  - What is synced stays. Syncing a file says nothing about its name.
 *  - What a failed sync should have made durable is not made so by a later one: it must be written again.
 *
 * Files are shared between images and copied when written to, so an image costs microseconds.
 * Thread-safety: none. Code under test that has threads must run them one at a time (tests/crash/fibers.h).
 */
#ifndef VEX_TESTS_LIB_IO_SIM_H
#define VEX_TESTS_LIB_IO_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "ioengine/io.h"

#define VEX_SIM_SECTOR_BYTES 512u
#define VEX_SIM_NAME_BYTES 56u

enum vex_sim_kind {
    VEX_SIM_CREATE,
    VEX_SIM_TRUNCATE,
    VEX_SIM_WRITE,
    VEX_SIM_SYNC,
    VEX_SIM_SYNC_FAILED,
    VEX_SIM_SUBMIT,
    VEX_SIM_COMPLETE,
    VEX_SIM_RENAME,
    VEX_SIM_UNLINK,
    VEX_SIM_LINK,
    VEX_SIM_SYNC_DIRECTORY,
    VEX_SIM_MAKE_DIRECTORY,
    VEX_SIM_MARK, /* put in by the test */
};

struct vex_sim_op {
    enum vex_sim_kind kind;
    uint32_t node;           /* the file or directory concerned */
    uint32_t from_directory; /* where the name `from` goes away; 0 = none does */
    uint32_t to_directory;   /* where the name `to` begins to mean `node`; 0 = none does */
    char from[VEX_SIM_NAME_BYTES];
    char to[VEX_SIM_NAME_BYTES];
    uint64_t offset; /* of a write: whole sectors, with what else they contain */
    uint64_t bytes;
    const uint8_t *data;  /* NULL = zeros */
    uint64_t size_before; /* of the file */
    uint64_t size;
    size_t submitted; /* COMPLETE: the SUBMIT that it ends */
    int64_t result;   /* COMPLETE */
    uint64_t mark;    /* MARK: kind and value are the test's */
    uint64_t value;
};

/* What a simulated disk does by itself. All zero: nothing. */
struct vex_sim_habits {
    void (*step)(void *context); /* called at the start of every operation: others may run */
    void *context;
    uint64_t seed;
    uint32_t short_odds;   /* a durable write is cut short once in so many times */
    uint32_t again_odds;   /* or is answered with EAGAIN */
    uint32_t pending_odds; /* a reap without wait finds nothing yet */
    bool no_links;         /* the file system has none */
    /* What changes something fails, and is done all the same, in part, or not. */
    uint32_t error_odds;
};

/* An empty disk. Never fails: a test without memory ends. */
struct vex_io *vex_io_sim_open(void);
/* Another disk with the same files, none of them open; nothing recorded. */
struct vex_io *vex_io_sim_clone(struct vex_io *io);
/* The same with a directory as the root; NULL if there is none of that path. */
struct vex_io *vex_io_sim_clone_below(struct vex_io *io, const char *path);
void vex_io_sim_set_habits(struct vex_io *io, const struct vex_sim_habits *habits);
/* Changes one habit. */
void vex_io_sim_set_errors(struct vex_io *io, uint32_t error_odds);
/* From here on operations are recorded. What is there now counts as durable. */
void vex_io_sim_record(struct vex_io *io);
void vex_io_sim_mark(struct vex_io *io, uint64_t mark, uint64_t value);
size_t vex_io_sim_ops_count(struct vex_io *io);
const struct vex_sim_op *vex_io_sim_op(struct vex_io *io, size_t index);
void vex_io_sim_print_op(struct vex_io *io, size_t index, FILE *out);

/* The bytes of a file, to be read or damaged in place until the file grows or goes; NULL if there is no
 * such file. */
uint8_t *vex_io_sim_bytes(struct vex_io *io, const char *path, size_t *out_bytes);
/* Path of a file or directory ("" if none leads to it); false if there is none. */
bool vex_io_sim_path(struct vex_io *io, uint32_t node, char *out_path, size_t path_bytes);
/* False if there was none. */
bool vex_io_sim_drop(struct vex_io *io, const char *path);
/* Whether every path of `part` leads to the same bytes in `whole`. */
bool vex_io_sim_is_within(struct vex_io *part, struct vex_io *whole);
/* Whether the same paths lead to the same bytes. */
bool vex_io_sim_equals(struct vex_io *left, struct vex_io *right);
void vex_io_sim_print_files(struct vex_io *io, FILE *out);

/* ---- crashing -------------------------------------------------------------------------------- */

/* Which states of a crash point are looked at. */
struct vex_sim_limits {
    unsigned exhaustive_states; /* all combinations, if there are no more than so many */
    unsigned random_states;     /* else so many at random, beside "nothing" and "everything" */
    unsigned garbage_states;    /* and so many with zeros, garbage or stale bytes in some sectors */
    bool ordered;               /* names: see above */
    uint64_t seed;
};

struct vex_sim_crash;

/* Begins in front of the first recorded operation. `io` outlives it. */
struct vex_sim_crash *vex_sim_crash_open(struct vex_io *io, const struct vex_sim_limits *limits);
void vex_sim_crash_close(struct vex_sim_crash *crash);
/* Goes on behind the next operation; false at the end. */
bool vex_sim_crash_step(struct vex_sim_crash *crash);
/* How many operations lie before the crash point. */
size_t vex_sim_crash_position(const struct vex_sim_crash *crash);
/* How many states there are here. State 0 is "nothing that is not durable". */
uint64_t vex_sim_crash_states(struct vex_sim_crash *crash);
/* Whether anything is not durable here. */
bool vex_sim_crash_is_settled(const struct vex_sim_crash *crash);
/* The disk after a crash here. The caller closes it. */
struct vex_io *vex_sim_crash_image(struct vex_sim_crash *crash, uint64_t state);
/* The disk if here the process dies and not the machine: everything has happened, what was not durable still
 * is not, and the record goes on behind this point. */
struct vex_io *vex_sim_crash_killed(struct vex_sim_crash *crash);
/* The operations so far, and what became of those that were not durable, for people. */
void vex_sim_crash_print(struct vex_sim_crash *crash, uint64_t state, FILE *out);

#endif
