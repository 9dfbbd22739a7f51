/*
 * Durable writes at the disk's own rate; the idea is in disk.h.
 */
#include "tests/bench/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define FILE_BYTES (64u << 20) /* as the largest file of the log */
#define FILL_BYTES (1u << 20)

static bool fill_with_zeros(int fd)
{
    static const uint8_t zeros[FILL_BYTES];
    for (uint64_t at = 0; at < FILE_BYTES; at += FILL_BYTES) {
        if (pwrite(fd, zeros, FILL_BYTES, (off_t)at) != (ssize_t)FILL_BYTES) {
            return false;
        }
    }
    return fsync(fd) == 0;
}

/* -1 after saying why. */
static int make_file(const char *root, const char *name)
{
    char path[PATH_MAX + 32];
    (void)snprintf(path, sizeof(path), "%s/%s", root, name);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || !fill_with_zeros(fd)) {
        (void)vex_bench_fail("%s: %s", path, strerror(errno));
        if (fd >= 0) {
            (void)close(fd);
        }
        return -1;
    }
    return fd;
}

/* From here on past the page cache; -1 where there is no such way. */
static int go_direct(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags >= 0 && fcntl(fd, F_SETFL, flags | O_DIRECT) == 0) {
        return fd;
    }
    vex_bench_note("no O_DIRECT on this file system (%s)", strerror(errno));
    (void)close(fd);
    return -1;
}

bool vex_disk_open(struct vex_disk *disk, const char *root, size_t bytes_max)
{
    *disk = (struct vex_disk){.fds = {-1, -1}};
    if (posix_memalign(&disk->data, VEX_DISK_BLOCK_BYTES, bytes_max) != 0) {
        disk->data = NULL;
        return vex_bench_fail("out of memory");
    }
    /* Not zeros: some disks and file systems store those without writing them. */
    memset(disk->data, 0xa5, bytes_max);
    static const char *const names[VEX_DISK_METHODS] = {"disk-fdatasync", "disk-dsync"};
    for (int i = 0; i < VEX_DISK_METHODS; i++) {
        disk->fds[i] = make_file(root, names[i]);
        if (disk->fds[i] < 0) {
            vex_disk_close(disk);
            return false;
        }
    }
    disk->fds[VEX_DISK_DSYNC] = go_direct(disk->fds[VEX_DISK_DSYNC]);
    return true;
}

bool vex_disk_has(const struct vex_disk *disk, enum vex_disk_method method)
{
    return disk->fds[method] >= 0;
}

void vex_disk_close(struct vex_disk *disk)
{
    for (int i = 0; i < VEX_DISK_METHODS; i++) {
        if (disk->fds[i] >= 0) {
            (void)close(disk->fds[i]);
        }
    }
    free(disk->data);
    *disk = (struct vex_disk){.fds = {-1, -1}};
}

static bool write_once(const struct vex_disk *disk, enum vex_disk_method method, size_t bytes)
{
    int fd = disk->fds[method];
    off_t offset = (off_t)disk->offsets[method];
    if (method == VEX_DISK_FDATASYNC) {
        return pwrite(fd, disk->data, bytes, offset) == (ssize_t)bytes && fdatasync(fd) == 0;
    }
    struct iovec piece = {disk->data, bytes};
    return pwritev2(fd, &piece, 1, offset, RWF_DSYNC) == (ssize_t)bytes;
}

bool vex_disk_measure(struct vex_disk *disk, enum vex_disk_method method, size_t bytes,
                      uint64_t duration_ns, double *out_rate, struct vex_samples *latencies_us)
{
    if (disk->fds[method] < 0) {
        *out_rate = NAN;
        return true;
    }
    uint64_t start_ns = vex_bench_clock_ns();
    uint64_t before_ns = start_ns;
    uint64_t count = 0;
    do {
        uint64_t *offset = &disk->offsets[method];
        if (*offset + bytes > FILE_BYTES) {
            *offset = 0;
        }
        if (!write_once(disk, method, bytes)) {
            return vex_bench_fail("durable write to the disk: %s", strerror(errno));
        }
        *offset += bytes;
        count++;
        uint64_t now_ns = vex_bench_clock_ns();
        if (latencies_us) {
            vex_samples_add(latencies_us, (double)(now_ns - before_ns) * 1e-3);
        }
        before_ns = now_ns;
    } while (before_ns - start_ns < duration_ns && (count + 1) * bytes <= FILE_BYTES &&
             !vex_bench_stopped());
    *out_rate = (double)count * 1e9 / (double)(before_ns - start_ns);
    return true;
}
