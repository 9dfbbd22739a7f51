/*
 * The instance's lock: one process at a time in a directory, held by the kernel for as long as that process
 * lives. The file LOCK names its holder, for people and for those who wait.
 *
 * Thread-safety: none.
 */
#ifndef VEX_DAEMON_LOCK_H
#define VEX_DAEMON_LOCK_H

#include <vex/status.h>

enum vex_lock_mode {
    VEX_LOCK_SERVE, /* makes the file if need be, and writes this process into it */
    VEX_LOCK_LOOK,  /* changes nothing; without a file there is nobody to keep out: *out_fd is -1 */
};

/* Takes LOCK in the working directory; the descriptor holds it. Errors: BUSY (the message names the
 * holder), IO, PERMISSION, NO_SPACE. */
enum vex_status vex_lock_take(enum vex_lock_mode mode, int *out_fd, struct vex_error *error);

#endif
