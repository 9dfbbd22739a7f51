#include "ioengine/io.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

static const char *refusal_hint(int os_errno)
{
    switch (os_errno) {
    case ENOSYS:
        return "the kernel has no io_uring";
    case EPERM:
    case EACCES:
        return "io_uring is forbidden here (sysctl kernel.io_uring_disabled, or a container's "
               "seccomp profile)";
    case ENOMEM:
        return "RLIMIT_MEMLOCK is too small for a ring";
    default:
        return strerrordesc_np(os_errno);
    }
}

enum vex_status vex_io_open(const char *backend, int directory_fd,
                            const struct vex_io_buffer *buffers, unsigned buffers_count,
                            struct vex_io **out_io, char *out_note, struct vex_error *error)
{
    *out_io = NULL;
    out_note[0] = 0;
    if (!backend) {
        backend = getenv("VEX_IO");
    }
    bool any = !backend || !*backend;
    bool uring = any || strcmp(backend, "uring") == 0;
    if (!uring && strcmp(backend, "sync") != 0) {
        return vex_error_set(error, VEX_ERR_INVALID,
                             "unknown I/O backend '%s': there are uring and sync", backend);
    }
    int result = 0;
    if (uring) {
        result = vex_io_uring_open(directory_fd, buffers, buffers_count, out_io);
        if (result == 0) {
            return VEX_OK;
        }
        if (!any) {
            return vex_error_set(error, VEX_ERR_UNAVAILABLE, "I/O backend uring: %s",
                                 refusal_hint(-result));
        }
        (void)snprintf(out_note, 256, "using plain system calls instead of io_uring: %s",
                       refusal_hint(-result));
    }
    result = vex_io_sync_open(directory_fd, out_io);
    if (result < 0) {
        return vex_error_os(error, vex_status_from_errno(-result), -result, "I/O backend sync");
    }
    return VEX_OK;
}

void vex_io_close(struct vex_io *io)
{
    if (io) {
        io->ops->close(io);
    }
}
