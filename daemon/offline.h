/*
 * What vexd does in place of serving: checking an instance, looking into its log, repairing it, restoring a
 * backup. The operator's tool starts it, because only the daemon knows the files.
 *
 * Nothing but a repair that was told to changes the instance, and nothing runs beside a daemon that serves
 * it, except the list of backups. Results go to standard output, what went wrong to standard error.
 *
 * Thread-safety: the main thread, before there are others.
 */
#ifndef VEX_DAEMON_OFFLINE_H
#define VEX_DAEMON_OFFLINE_H

#include <stdbool.h>
#include <stdint.h>

enum vex_offline_task {
    VEX_OFFLINE_NONE, /* serve */
    VEX_OFFLINE_CHECK,
    VEX_OFFLINE_VERIFY,
    VEX_OFFLINE_LOG_DUMP,
    VEX_OFFLINE_LOG_REPAIR,
    VEX_OFFLINE_RESTORE,
    VEX_OFFLINE_LIST_BACKUPS,
};

struct vex_offline_options {
    enum vex_offline_task task;
    uint64_t from_lsn;  /* LOG_DUMP */
    bool records;       /* LOG_DUMP: each record, too */
    bool accept_loss;   /* LOG_REPAIR: do it */
    const char *source; /* RESTORE: the backup */
    bool copy;          /* RESTORE: no hard links */
    bool json;
};

/* Exit codes, beside those of serving (0, 1, 2, and 3 for a directory that a vexd serves). */
enum vex_offline_exit {
    VEX_OFFLINE_DONE = 0, /* sound, if it was about that */
    VEX_OFFLINE_FAILED = 1,
    VEX_OFFLINE_TAKEN = 3,
    VEX_OFFLINE_DAMAGED = 4,
    VEX_OFFLINE_NOT_FOUND = 5, /* no instance there */
    VEX_OFFLINE_NO_SPACE = 6,
    VEX_OFFLINE_EXISTS = 7,
    VEX_OFFLINE_DENIED = 8,
};

/* Does the task and returns the exit code. `directory` is the instance, or what RESTORE makes. */
int vex_offline_run(const char *directory, const struct vex_offline_options *options);

#endif
