#include "tests/lib/temp_dir.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int remove_item(const char *path, const struct stat *info, int type, struct FTW *walk)
{
    (void)info;
    (void)type;
    (void)walk;
    return remove(path);
}

void vex_temp_dir_make(struct vex_temp_dir *directory)
{
    const char *root = getenv("TMPDIR");
    (void)snprintf(directory->path, sizeof(directory->path), "%s/vexdb-test-XXXXXX",
                   root && *root ? root : "/tmp");
    if (!mkdtemp(directory->path)) {
        perror(directory->path);
        abort();
    }
    directory->fd = open(directory->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory->fd < 0) {
        perror(directory->path);
        abort();
    }
}

void vex_temp_dir_remove(struct vex_temp_dir *directory)
{
    if (directory->fd < 0) {
        return;
    }
    (void)close(directory->fd);
    directory->fd = -1;
    if (nftw(directory->path, remove_item, 16, FTW_DEPTH | FTW_PHYS) != 0) {
        perror(directory->path);
    }
}
