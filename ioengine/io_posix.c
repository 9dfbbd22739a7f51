/*
 * Plain system calls: the blocking operations of every real backend, and the `sync` backend, whose
 * durable write is one pwritev2 with RWF_DSYNC inside submit. While it blocks, requests collect in
 * the sockets, so group commit happens all the same; what is lost is the overlap of the two.
 */
#include "ioengine/io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/panic.h"

struct io_sync {
    struct vex_io io;
    int event_fd;
    bool pending;
    int64_t result;
};

static int posix_open_file(struct vex_io *io, const char *path, enum vex_file_mode mode,
                           struct vex_file *out_file)
{
    int flags = O_CLOEXEC | (mode == VEX_FILE_READ ? O_RDONLY : O_RDWR);
    if (mode == VEX_FILE_CREATE) {
        flags |= O_CREAT | O_TRUNC;
    }
    int fd = openat(io->directory_fd, path, flags | O_DIRECT, 0640);
    bool direct = fd >= 0;
    if (fd < 0 && errno == EINVAL) {
        fd = openat(io->directory_fd, path, flags, 0640); /* tmpfs and some others */
    }
    if (fd < 0) {
        return -errno;
    }
    *out_file = (struct vex_file){fd, direct};
    return 0;
}

static void posix_close_file(struct vex_io *io, struct vex_file *file)
{
    (void)io;
    if (file->fd >= 0) {
        (void)close(file->fd);
    }
    file->fd = -1;
}

static int posix_size(struct vex_io *io, const struct vex_file *file, uint64_t *out_bytes)
{
    (void)io;
    struct stat info;
    if (fstat(file->fd, &info) != 0) {
        return -errno;
    }
    *out_bytes = (uint64_t)info.st_size;
    return 0;
}

static int64_t posix_read(struct vex_io *io, const struct vex_file *file, void *into, size_t bytes,
                          uint64_t offset)
{
    (void)io;
    size_t done = 0;
    while (done < bytes) {
        ssize_t got = pread(file->fd, (uint8_t *)into + done, bytes - done, (off_t)(offset + done));
        if (got < 0 && (errno == EINTR || errno == EAGAIN)) {
            continue;
        }
        if (got < 0) {
            return -errno;
        }
        if (got == 0) {
            break;
        }
        done += (size_t)got;
    }
    return (int64_t)done;
}

static int posix_write(struct vex_io *io, const struct vex_file *file, const void *from,
                       size_t bytes, uint64_t offset)
{
    (void)io;
    size_t done = 0;
    while (done < bytes) {
        ssize_t put =
            pwrite(file->fd, (const uint8_t *)from + done, bytes - done, (off_t)(offset + done));
        if (put < 0 && (errno == EINTR || errno == EAGAIN)) {
            continue;
        }
        if (put <= 0) {
            return put < 0 ? -errno : -EIO;
        }
        done += (size_t)put;
    }
    return 0;
}

static int posix_sync(struct vex_io *io, const struct vex_file *file)
{
    (void)io;
    return fdatasync(file->fd) == 0 ? 0 : -errno;
}

static int posix_allocate(struct vex_io *io, const struct vex_file *file, uint64_t bytes)
{
    (void)io;
    int result;
    do {
        result = fallocate(file->fd, 0, 0, (off_t)bytes);
    } while (result != 0 && errno == EINTR);
    return result == 0 ? 0 : -errno;
}

static int posix_sync_directory(struct vex_io *io, const char *path)
{
    int fd = openat(io->directory_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    int result = fsync(fd) == 0 ? 0 : -errno;
    (void)close(fd);
    return result;
}

static int posix_make_directory(struct vex_io *io, const char *path)
{
    return mkdirat(io->directory_fd, path, 0750) == 0 || errno == EEXIST ? 0 : -errno;
}

static int posix_rename(struct vex_io *io, const char *from, const char *to)
{
    return renameat(io->directory_fd, from, io->directory_fd, to) == 0 ? 0 : -errno;
}

static int posix_link(struct vex_io *io, const char *from, const char *to)
{
    return linkat(io->directory_fd, from, io->directory_fd, to, 0) == 0 ? 0 : -errno;
}

static int posix_unlink(struct vex_io *io, const char *path)
{
    return unlinkat(io->directory_fd, path, 0) == 0 ? 0 : -errno;
}

static int posix_list(struct vex_io *io, const char *path,
                      void (*entry)(void *context, const char *name), void *context)
{
    int fd = openat(io->directory_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    DIR *directory = fdopendir(fd);
    if (!directory) {
        int failure = -errno;
        (void)close(fd);
        return failure;
    }
    struct dirent *item;
    errno = 0;
    while ((item = readdir(directory))) {
        entry(context, item->d_name);
        errno = 0;
    }
    int result = -errno;
    (void)closedir(directory);
    return result;
}

static int posix_read_many(struct vex_io *io, struct vex_read *items, size_t count,
                           int (*done)(void *context, size_t index), void *context)
{
    for (size_t i = 0; i < count; i++) {
        struct vex_read *item = &items[i];
        item->result = posix_read(io, item->file, item->into, item->bytes, item->offset);
        int result = done(context, i);
        if (result != 0) {
            return result;
        }
    }
    return 0;
}

const struct vex_io_ops vex_io_posix_ops = {
    .open_file = posix_open_file,
    .close_file = posix_close_file,
    .size = posix_size,
    .read = posix_read,
    .write = posix_write,
    .sync = posix_sync,
    .allocate = posix_allocate,
    .sync_directory = posix_sync_directory,
    .make_directory = posix_make_directory,
    .rename = posix_rename,
    .link = posix_link,
    .unlink = posix_unlink,
    .list = posix_list,
    .read_many = posix_read_many,
};

/* ---- the sync backend ------------------------------------------------------------------------ */

static void sync_close(struct vex_io *io)
{
    struct io_sync *self = (struct io_sync *)io;
    (void)close(self->event_fd);
    free(self);
}

static int sync_submit(struct vex_io *io, const struct vex_file *file, const void *from,
                       size_t bytes, uint64_t offset)
{
    struct io_sync *self = (struct io_sync *)io;
    VEX_ASSERT(!self->pending);
    /* writev wants a mutable pointer and does not use it as one. */
    struct iovec piece = {(void *)(uintptr_t)from, bytes};
    ssize_t put = pwritev2(file->fd, &piece, 1, (off_t)offset, RWF_DSYNC);
    self->result = put >= 0 ? put : -errno;
    self->pending = true;
    (void)eventfd_write(self->event_fd, 1);
    return 0;
}

static int sync_reap(struct vex_io *io, bool wait, int64_t *out_result)
{
    (void)wait;
    struct io_sync *self = (struct io_sync *)io;
    eventfd_t ignored;
    (void)eventfd_read(self->event_fd, &ignored);
    if (!self->pending) {
        return 0;
    }
    self->pending = false;
    *out_result = self->result;
    return 1;
}

static int sync_event_fd(struct vex_io *io)
{
    return ((struct io_sync *)io)->event_fd;
}

static struct vex_io_ops sync_ops;

int vex_io_sync_open(int directory_fd, struct vex_io **out_io)
{
    struct io_sync *self = calloc(1, sizeof(*self));
    if (!self) {
        return -ENOMEM;
    }
    self->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (self->event_fd < 0) {
        int failure = -errno;
        free(self);
        return failure;
    }
    sync_ops = vex_io_posix_ops;
    sync_ops.name = "sync";
    sync_ops.close = sync_close;
    sync_ops.submit = sync_submit;
    sync_ops.reap = sync_reap;
    sync_ops.event_fd = sync_event_fd;
    self->io = (struct vex_io){&sync_ops, directory_fd};
    *out_io = &self->io;
    return 0;
}
