#include "daemon/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/error.h"

#define LOCK_NAME "LOCK"
#define LOCK_ATTEMPTS 5        /* while its holder lives */
#define LOCK_ATTEMPTS_DEAD 600 /* while the kernel finishes a dead holder's last write */
#define LOCK_PAUSE_US 50000u

static bool is_alive(const char *holder)
{
    long pid = strtol(holder, NULL, 10);
    return pid > 0 && (kill((pid_t)pid, 0) == 0 || errno == EPERM);
}

/* The kernel releases the lock with the process; a ring can hold a dead daemon's descriptors for a
 * moment longer, hence the attempts. */
static enum vex_status lock(int fd, struct vex_error *error)
{
    for (int attempt = 0; flock(fd, LOCK_EX | LOCK_NB) != 0; attempt++) {
        if (errno != EWOULDBLOCK && errno != EINTR) {
            return vex_error_os(error, VEX_ERR_IO, errno, "lock " LOCK_NAME);
        }
        char holder[32] = {0};
        (void)!pread(fd, holder, sizeof(holder) - 1, 0);
        if (attempt >= (is_alive(holder) ? LOCK_ATTEMPTS : LOCK_ATTEMPTS_DEAD)) {
            return vex_error_set(error, VEX_ERR_BUSY,
                                 "another vexd (process %.20s) serves this directory",
                                 strtok(holder, "\n") ? holder : "unknown");
        }
        (void)usleep(LOCK_PAUSE_US);
    }
    return VEX_OK;
}

static enum vex_status write_holder(int fd, struct vex_error *error)
{
    char text[32];
    int length = snprintf(text, sizeof(text), "%d\n", getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)length, 0) != length) {
        return vex_error_os(error, vex_status_from_errno(errno), errno, "write " LOCK_NAME);
    }
    return VEX_OK;
}

enum vex_status vex_lock_take(enum vex_lock_mode mode, int *out_fd, struct vex_error *error)
{
    bool serve = mode == VEX_LOCK_SERVE;
    int fd = open(LOCK_NAME, (serve ? O_RDWR | O_CREAT : O_RDONLY) | O_CLOEXEC, 0640);
    if (fd < 0 && !serve && errno == ENOENT) {
        *out_fd = -1;
        return VEX_OK;
    }
    if (fd < 0) {
        return vex_error_os(error, vex_status_from_errno(errno), errno, "open " LOCK_NAME);
    }
    enum vex_status status = lock(fd, error);
    status = status == VEX_OK && serve ? write_holder(fd, error) : status;
    if (status != VEX_OK) {
        (void)close(fd);
        return status;
    }
    *out_fd = fd;
    return VEX_OK;
}
