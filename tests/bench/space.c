/*
 * Counting and forgetting; the idea is in space.h.
 */
#include "tests/bench/space.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/bench/common.h"

#define SHM_DIRECTORY "/dev/shm/"
#define SHM_PREFIX "vexdb-"
#define BLOCK_BYTES 512 /* of st_blocks, whatever the file system's are */

static uint64_t blocks_bytes; /* nftw hands no context on */

static int add_blocks(const char *path, const struct stat *info, int kind, struct FTW *place)
{
    (void)path;
    (void)place;
    blocks_bytes += kind == FTW_NS ? 0 : (uint64_t)info->st_blocks * BLOCK_BYTES;
    return 0;
}

uint64_t vex_space_disk_bytes(const char *directory)
{
    blocks_bytes = 0;
    (void)nftw(directory, add_blocks, 16, FTW_PHYS);
    return blocks_bytes;
}

/* "vexdb-<key>-" of an object that the process maps; false if it maps none. */
static bool find_prefix(uint32_t pid, char *out, size_t out_bytes)
{
    char path[64];
    (void)snprintf(path, sizeof(path), "/proc/%u/maps", pid);
    FILE *file = fopen(path, "re");
    char line[PATH_MAX];
    bool found = false;
    while (file && !found && fgets(line, sizeof(line), file)) {
        const char *name = strstr(line, SHM_DIRECTORY SHM_PREFIX);
        if (name) {
            name += strlen(SHM_DIRECTORY);
            size_t length = strlen(SHM_PREFIX) + strcspn(name + strlen(SHM_PREFIX), "-") + 1;
            found = length < out_bytes;
            (void)snprintf(out, out_bytes, "%.*s", (int)length, name);
        }
    }
    if (file) {
        (void)fclose(file);
    }
    return found;
}

uint64_t vex_space_shm_bytes(uint32_t daemon_pid)
{
    char prefix[128];
    DIR *directory =
        find_prefix(daemon_pid, prefix, sizeof(prefix)) ? opendir(SHM_DIRECTORY) : NULL;
    if (!directory) {
        return 0;
    }
    uint64_t bytes = 0;
    const struct dirent *entry;
    while ((entry = readdir(directory))) {
        struct stat info;
        if (strncmp(entry->d_name, prefix, strlen(prefix)) == 0 &&
            fstatat(dirfd(directory), entry->d_name, &info, AT_SYMLINK_NOFOLLOW) == 0) {
            bytes += (uint64_t)info.st_blocks * BLOCK_BYTES;
        }
    }
    (void)closedir(directory);
    return bytes;
}

/* Only clean pages can be dropped, hence the sync. */
static int forget_file(const char *path, const struct stat *info, int kind, struct FTW *place)
{
    (void)place;
    if (kind != FTW_F || !S_ISREG(info->st_mode)) {
        return 0;
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0) {
        (void)vex_bench_fail("%s: %s", path, strerror(errno));
    }
    int failure = fd < 0 ? errno : posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    if (fd >= 0) {
        (void)close(fd);
    }
    return failure;
}

bool vex_space_drop_cache(const char *directory)
{
    int failure = nftw(directory, forget_file, 16, FTW_PHYS);
    if (failure != 0) {
        return vex_bench_fail("drop %s from the page cache: %s", directory,
                              strerror(failure < 0 ? errno : failure));
    }
    /* Root only, and not in every container: then the daemon's own program may stay cached. */
    int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        (void)!write(fd, "1\n", 2);
        (void)close(fd);
    }
    return true;
}
