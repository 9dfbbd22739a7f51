#include "shm/region.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/error.h"

#define SHM_DIRECTORY "/dev/shm"
#define HUGE_PAGE_BYTES (2u << 20)
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* newer than the C library */
#endif
#define REGION_MODE                                                                                \
    0640 /* readable by the group of the instance, writable by the daemon's user only */

static void hex(char *out, const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        (void)snprintf(out + 2 * i, 3, "%02x", bytes[i]);
    }
}

int vex_region_key(uint8_t *out_key, const uint8_t *uuid, const char *directory)
{
    struct stat info;
    if (stat(directory, &info) != 0) {
        return errno;
    }
    uint64_t facts[4] = {0, 0, info.st_dev, info.st_ino};
    memcpy(facts, uuid, VEX_UUID_BYTES);
    const uint64_t key[2] = {vex_hash64(facts, sizeof(facts), 1),
                             vex_hash64(facts, sizeof(facts), 2)};
    memcpy(out_key, key, sizeof(key));
    return 0;
}

void vex_region_control_name(char *out_name, const uint8_t *key)
{
    char text[2 * VEX_UUID_BYTES + 1];
    hex(text, key, VEX_UUID_BYTES);
    (void)snprintf(out_name, VEX_REGION_NAME_MAX, "/vexdb-%s-ctl", text);
}

void vex_region_segment_name(char *out_name, const uint8_t *key, uint64_t segment_id)
{
    char text[2 * VEX_UUID_BYTES + 1];
    hex(text, key, VEX_UUID_BYTES);
    (void)snprintf(out_name, VEX_REGION_NAME_MAX, "/vexdb-%s-seg-%llu", text,
                   (unsigned long long)segment_id);
}

void vex_uuid_text(char *out_text, const uint8_t *uuid)
{
    char plain[2 * VEX_UUID_BYTES + 1];
    hex(plain, uuid, VEX_UUID_BYTES);
    (void)snprintf(out_text, 37, "%.8s-%.4s-%.4s-%.4s-%.12s", plain, plain + 8, plain + 12,
                   plain + 16, plain + 20);
}

/* Maps at a 2 MiB boundary by reserving more and giving the ends back. */
static void *map_aligned(int fd, uint64_t bytes, int protection)
{
    size_t reserve_bytes;
    if (!vex_add((size_t)bytes, HUGE_PAGE_BYTES, &reserve_bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    uint8_t *reserve =
        mmap(NULL, reserve_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (reserve == MAP_FAILED) {
        return NULL;
    }
    uint8_t *start = (uint8_t *)vex_round_up((uint64_t)reserve, HUGE_PAGE_BYTES);
    void *memory = mmap(start, (size_t)bytes, protection, MAP_SHARED | MAP_FIXED, fd, 0);
    if (memory == MAP_FAILED) {
        int saved = errno;
        (void)munmap(reserve, reserve_bytes);
        errno = saved;
        return NULL;
    }
    uint8_t *end = start + vex_round_up(bytes, VEX_PAGE_BYTES);
    if (start > reserve) {
        (void)munmap(reserve, (size_t)(start - reserve));
    }
    if (reserve + reserve_bytes > end) {
        (void)munmap(end, (size_t)(reserve + reserve_bytes - end));
    }
    return memory;
}

static uint64_t available_bytes(void)
{
    struct statvfs shm;
    return statvfs(SHM_DIRECTORY, &shm) == 0 ? (uint64_t)shm.f_bavail * shm.f_frsize : UINT64_MAX;
}

/* Whether so many bytes can fit, some of which may be there already: somebody may read a file into them meanwhile. What
 * is free is looked at first, so that what is taken between the two looks is not counted twice. */
static bool may_fit(int fd, uint64_t bytes)
{
    uint64_t available = available_bytes();
    struct stat info;
    uint64_t there = fstat(fd, &info) == 0 ? (uint64_t)info.st_blocks * 512u : 0;
    return bytes <= there || bytes - there <= available;
}

static enum vex_status no_space(const char *name, uint64_t bytes, int os_errno,
                                struct vex_error *error)
{
    if (os_errno != ENOSPC) {
        return vex_error_os(error, vex_status_from_errno(os_errno), os_errno,
                            "allocate %llu bytes of shared memory %s", (unsigned long long)bytes,
                            name);
    }
    uint64_t free_bytes = available_bytes();
    unsigned long long available = free_bytes == UINT64_MAX ? 0 : free_bytes;
    return vex_error_os(error, vex_status_from_errno(os_errno), os_errno,
                        "shared memory %s needs %llu more bytes, " SHM_DIRECTORY
                        " has %llu free; enlarge it (mount -o remount,size=... " SHM_DIRECTORY
                        ", or --shm-size for a container)",
                        name, (unsigned long long)bytes, available);
}

/* posix_fallocate would restart for ever under signals; a bounded retry does not. */
static int allocate(int fd, uint64_t offset, uint64_t bytes)
{
    for (int attempt = 0; attempt < 100; attempt++) {
        if (fallocate(fd, 0, (off_t)offset, (off_t)bytes) == 0) {
            return 0;
        }
        if (errno != EINTR) {
            return errno;
        }
    }
    return EINTR;
}

enum vex_status vex_region_create(struct vex_region *region, const char *name, uint64_t bytes,
                                  uint64_t allocate_bytes, struct vex_error *error)
{
    *region = (struct vex_region){0};
    int fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, REGION_MODE);
    if (fd < 0) {
        enum vex_status status = errno == EEXIST ? VEX_ERR_EXISTS : vex_status_from_errno(errno);
        return vex_error_os(error, status, errno, "create shared memory %s", name);
    }
    /* The mode above passed through the umask of whoever started the daemon. */
    enum vex_status status = VEX_OK;
    int failure = 0;
    if (fchmod(fd, REGION_MODE) != 0 || ftruncate(fd, (off_t)bytes) != 0) {
        failure = errno;
        status = vex_error_os(error, vex_status_from_errno(failure), failure,
                              "size shared memory %s", name);
    } else if (allocate_bytes && (failure = allocate(fd, 0, allocate_bytes)) != 0) {
        status = no_space(name, allocate_bytes, failure, error);
    } else if (!(region->memory = map_aligned(fd, bytes, PROT_READ | PROT_WRITE))) {
        status =
            vex_error_os(error, vex_status_from_errno(errno), errno, "map shared memory %s", name);
    }
    (void)close(fd);
    if (status != VEX_OK) {
        (void)shm_unlink(name);
        return status;
    }
    region->bytes = bytes;
    (void)snprintf(region->name, sizeof(region->name), "%s", name);
    return VEX_OK;
}

/*
 * Huge pages for the whole ones within the range, where the kernel has some (from 6.1 on; MADV_COLLAPSE does
 * not depend on the settings for shared memory). One small page in each makes it a candidate. Clearing one
 * huge page costs a third of clearing 512 small ones, and readers miss their address caches less often.
 * A courtesy: what does not get any is allocated in small pages by the caller.
 */
static void allocate_huge(const struct vex_region *region, int fd, uint64_t offset, uint64_t bytes)
{
    uint64_t start = (offset + HUGE_PAGE_BYTES - 1) & ~(uint64_t)(HUGE_PAGE_BYTES - 1);
    uint64_t end = (offset + bytes) & ~(uint64_t)(HUGE_PAGE_BYTES - 1);
    for (uint64_t at = start; at < end; at += HUGE_PAGE_BYTES) {
        if (allocate(fd, at, VEX_PAGE_BYTES) != 0) {
            return;
        }
    }
    if (start < end) {
        (void)madvise((uint8_t *)region->memory + start, end - start, MADV_COLLAPSE);
    }
}

enum vex_status vex_region_allocate(struct vex_region *region, uint64_t offset, uint64_t bytes,
                                    struct vex_error *error)
{
    int fd = shm_open(region->name, O_RDWR | O_CLOEXEC, 0);
    if (fd < 0) {
        return vex_error_os(error, vex_status_from_errno(errno), errno,
                            "shared memory %s was removed by somebody else", region->name);
    }
    /* What does not fit would first take all there is from those who need little. */
    int failure = bytes >= HUGE_PAGE_BYTES && !may_fit(fd, bytes) ? ENOSPC : 0;
    if (failure == 0) {
        allocate_huge(region, fd, offset, bytes);
        failure = allocate(fd, offset, bytes);
    }
    (void)close(fd);
    return failure ? no_space(region->name, bytes, failure, error) : VEX_OK;
}

enum vex_status vex_region_open(struct vex_region *region, const char *name, bool writable,
                                struct vex_error *error)
{
    *region = (struct vex_region){0};
    int fd = shm_open(name, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC, 0);
    if (fd < 0) {
        enum vex_status status = errno == ENOENT ? VEX_ERR_NOT_FOUND : vex_status_from_errno(errno);
        return vex_error_os(error, status, errno, "open shared memory %s", name);
    }
    enum vex_status status = VEX_OK;
    struct stat info;
    if (fstat(fd, &info) != 0 || info.st_size <= 0) {
        status = vex_error_set(error, VEX_ERR_CORRUPT, "shared memory %s is empty", name);
    } else {
        int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
        region->memory = map_aligned(fd, (uint64_t)info.st_size, protection);
        if (!region->memory) {
            status = vex_error_os(error, vex_status_from_errno(errno), errno,
                                  "map shared memory %s", name);
        }
    }
    (void)close(fd);
    if (status == VEX_OK) {
        region->bytes = (uint64_t)info.st_size;
        (void)snprintf(region->name, sizeof(region->name), "%s", name);
        /* A crash of the caller must not write the whole index into its core file. */
        (void)madvise(region->memory, region->bytes, MADV_DONTDUMP);
    }
    return status;
}

void vex_region_punch(struct vex_region *region)
{
    if (region->memory) {
        (void)madvise(region->memory, region->bytes, MADV_REMOVE);
    }
}

void vex_region_punch_range(struct vex_region *region, uint64_t offset, uint64_t bytes)
{
    if (bytes) {
        (void)madvise((uint8_t *)region->memory + offset, bytes, MADV_REMOVE);
    }
}

void vex_region_close(struct vex_region *region)
{
    if (region->memory) {
        (void)munmap(region->memory, region->bytes);
    }
    *region = (struct vex_region){0};
}

bool vex_region_exists(const char *name)
{
    char path[sizeof(SHM_DIRECTORY) + VEX_REGION_NAME_MAX];
    (void)snprintf(path, sizeof(path), SHM_DIRECTORY "%s", name);
    return access(path, F_OK) == 0;
}

enum vex_status vex_region_rename(struct vex_region *region, const char *name,
                                  struct vex_error *error)
{
    char from[sizeof(SHM_DIRECTORY) + VEX_REGION_NAME_MAX];
    char to[sizeof(SHM_DIRECTORY) + VEX_REGION_NAME_MAX];
    (void)snprintf(from, sizeof(from), SHM_DIRECTORY "%s", region->name);
    (void)snprintf(to, sizeof(to), SHM_DIRECTORY "%s", name);
    if (rename(from, to) != 0) {
        return vex_error_os(error, VEX_ERR_IO, errno, "rename shared memory %s", region->name);
    }
    (void)snprintf(region->name, sizeof(region->name), "%s", name);
    return VEX_OK;
}

void vex_region_unlink(const char *name)
{
    (void)shm_unlink(name);
}

void vex_region_unlink_all(const uint8_t *key)
{
    char prefix[VEX_REGION_NAME_MAX];
    char text[2 * VEX_UUID_BYTES + 1];
    hex(text, key, VEX_UUID_BYTES);
    int prefix_length = snprintf(prefix, sizeof(prefix), "vexdb-%s-", text);
    DIR *directory = opendir(SHM_DIRECTORY);
    if (!directory) {
        return;
    }
    struct dirent *item;
    while ((item = readdir(directory))) {
        if (strncmp(item->d_name, prefix, (size_t)prefix_length) == 0) {
            (void)unlinkat(dirfd(directory), item->d_name, 0);
        }
    }
    (void)closedir(directory);
}

int vex_region_anonymous(const char *label, size_t bytes, void **out_memory)
{
    int fd = memfd_create(label, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) {
        return -1;
    }
    void *memory = MAP_FAILED;
    int failure = allocate(fd, 0, bytes);
    if (failure) {
        errno = failure;
    } else {
        memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    /* Sealed against shrinking: neither side can make the other's access fault. */
    if (memory == MAP_FAILED ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
        int saved = errno;
        if (memory != MAP_FAILED) {
            (void)munmap(memory, bytes);
        }
        (void)close(fd);
        errno = saved;
        return -1;
    }
    *out_memory = memory;
    return fd;
}
