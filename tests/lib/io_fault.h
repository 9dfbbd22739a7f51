/*
 * A disk that fails on demand: sits in front of any other disk (a real backend, or memory), passes every
 * call on, and asks a function of the test first whether this one shall fail, and how.
 *
 * A failing call need not leave nothing behind: of a write, the decision says how many bytes reach the
 * disk all the same, so that "error, but it was written" and "error, torn" can be had. A durable write
 * can fail at two places: SUBMIT is the call that starts it, DURABLE the result that is reaped.
 *
 * Calls are counted per kind over all threads. Thread-safety: the decision is made under a lock.
 */
#ifndef VEX_TESTS_LIB_IO_FAULT_H
#define VEX_TESTS_LIB_IO_FAULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ioengine/io.h"

enum vex_io_call {
    VEX_IO_OPEN_FILE,
    VEX_IO_SIZE,
    VEX_IO_READ,
    VEX_IO_WRITE,
    VEX_IO_SYNC,
    VEX_IO_ALLOCATE,
    VEX_IO_SYNC_DIRECTORY,
    VEX_IO_MAKE_DIRECTORY,
    VEX_IO_RENAME,
    VEX_IO_LINK,
    VEX_IO_UNLINK,
    VEX_IO_LIST,
    VEX_IO_SUBMIT,
    VEX_IO_DURABLE,
    VEX_IO_REAP,
    VEX_IO_CALLS_COUNT,
};

struct vex_io_decision {
    int error; /* errno to fail with; 0 = none */
    size_t
        bytes; /* of WRITE and DURABLE: how many reach the disk; without error DURABLE reports them.
                   * Of other calls: not 0 = the call is carried out before it fails */
};

#define VEX_IO_PASS ((struct vex_io_decision){0, SIZE_MAX})

/* `nth` counts from 1; `bytes` is the length of a READ, WRITE or DURABLE. Each
 * item of a read_many is a READ. Called with a lock held. */
typedef struct vex_io_decision (*vex_io_decide)(void *context, enum vex_io_call call, uint64_t nth,
                                                size_t bytes);

/* Does not own `inner`: the caller closes it after this one. */
struct vex_io *vex_io_fault_open(struct vex_io *inner, vex_io_decide decide, void *context);
uint64_t vex_io_fault_count(struct vex_io *io, enum vex_io_call call);
const char *vex_io_call_name(enum vex_io_call call);

/* The most common decision: call number `nth` of one kind fails, once or from then on. */
struct vex_io_fault_plan {
    enum vex_io_call call;
    uint64_t nth; /* 0 = never */
    bool again;   /* later calls of the kind fail too */
    struct vex_io_decision decision;
    bool happened; /* out */
};
struct vex_io_decision vex_io_fault_planned(void *plan, enum vex_io_call call, uint64_t nth,
                                            size_t bytes);

#endif
