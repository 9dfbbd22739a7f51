/*
 * A real instance for a test: a fresh directory and, when asked for, a real vexd ($VEXD_PATH) in it
 * that can be stopped, killed and started again.
 *
 * A test may end in any way: by a failed assertion, a signal, a time-out. Clean-up must not depend
 * on it, so a second process, the guardian, waits at a pipe until the test says "done" or is gone;
 * then it kills the daemon that the instance's LOCK names, removes the shared memory that its
 * MANIFEST names, and the directory. The daemons and the children made here die with the test, too.
 *
 * What must not fail in a test environment (a directory, a process, a daemon that starts) ends the
 * program with a message instead of returning an error: no test can say anything without it.
 *
 * Thread-safety: one thread, and it lives as long as the daemon: the kernel kills a daemon when the
 * thread that started it ends.
 */
#ifndef VEX_TESTS_LIB_FIXTURE_H
#define VEX_TESTS_LIB_FIXTURE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <vex/vex.h>

#include "tests/lib/temp_dir.h"

#define VEX_FIXTURE_PATH_MAX 512u

struct vex_fixture {
    struct vex_temp_dir root;
    char directory[VEX_FIXTURE_PATH_MAX];   /* the instance, below root; not made here */
    char diagnostics[VEX_FIXTURE_PATH_MAX]; /* where a daemon that was started here writes to */
    pid_t daemon;                           /* 0 = none was started here, or it has ended */
    int guard_fd;
    pid_t guardian;
};

void vex_fixture_init(struct vex_fixture *fixture);
/*
 * Stops the daemon and removes everything. 0, or 1 if the daemon did not end in order or a sanitizer
 * or an assertion spoke in its diagnostics; it has then said so.
 */
int vex_fixture_deinit(struct vex_fixture *fixture);

/*
 * Starts vexd with further options (NULL-terminated words, or NULL) and waits for its answer. OK, or
 * what it refused with and its message; *out_exit_code (may be NULL) is its exit code then.
 */
enum vex_status vex_fixture_try_start(struct vex_fixture *fixture, const char *const *words,
                                      int *out_exit_code, struct vex_error *error);
/* As above, but must succeed. Another daemon's ring may hold the lock for a moment: tries again. */
void vex_fixture_start(struct vex_fixture *fixture, const char *const *words);
/* Starts vexd and kills it after so long, ready or not: a crash while it starts. */
void vex_fixture_start_and_kill(struct vex_fixture *fixture, const char *const *words,
                                uint32_t after_us);
/* Both return the exit code, or minus the signal, with which the daemon ended. */
int vex_fixture_stop(struct vex_fixture *fixture);
int vex_fixture_kill(struct vex_fixture *fixture);
bool vex_fixture_is_running(struct vex_fixture *fixture);

/* Connects to the daemon that is there; never starts one. */
struct vex_db *vex_fixture_open(const struct vex_fixture *fixture);
/* Opens a collection, which is made if there is none of that name. */
struct vex_collection *vex_fixture_collection(struct vex_db *db, const char *name, uint32_t dim,
                                              enum vex_metric metric);
/* An INIT macro with the size set, no_spawn and a time-out that suits tests. */
struct vex_open_options vex_fixture_open_options(void);

/* $VEXD_PATH. */
const char *vex_fixture_vexd(void);
/* fork() whose child dies with the parent. */
pid_t vex_fixture_fork(void);
/* Exit code of a child, or minus the signal. A child that takes longer than the limit is killed. */
int vex_fixture_await(pid_t child, uint32_t timeout_ms);
/* True once `condition` holds; asks it every few milliseconds for so long. */
bool vex_fixture_eventually(bool (*condition)(void *context), void *context, uint32_t timeout_ms);
uint64_t vex_fixture_now_ms(void);
void vex_fixture_pause_ms(uint32_t ms);

__attribute__((format(printf, 1, 2))) _Noreturn void vex_fixture_die(const char *format, ...);

#endif
