#include "ioengine/whole_file.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define SUFFIX ".new"

bool vex_whole_file_is_temporary(const char *name)
{
    size_t length = strlen(name);
    return length > strlen(SUFFIX) && strcmp(name + length - strlen(SUFFIX), SUFFIX) == 0;
}

int vex_sync_parent(struct vex_io *io, const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash) {
        return io->ops->sync_directory(io, ".");
    }
    char parent[VEX_WHOLE_FILE_PATH_BYTES];
    size_t length = slash == path ? 1 : (size_t)(slash - path); /* "/" itself */
    if (length >= sizeof(parent)) {
        return -ENAMETOOLONG;
    }
    memcpy(parent, path, length);
    parent[length] = 0;
    return io->ops->sync_directory(io, parent);
}

int vex_whole_file_begin(struct vex_whole_file *self, struct vex_io *io, const char *path)
{
    if (strlen(path) + sizeof(SUFFIX) > VEX_WHOLE_FILE_PATH_BYTES) {
        return -ENAMETOOLONG;
    }
    self->io = io;
    size_t length = strlen(path);
    memcpy(self->path, path, length + 1);
    memcpy(self->temporary, path, length);
    memcpy(self->temporary + length, SUFFIX, sizeof(SUFFIX));
    int result = io->ops->open_file(io, self->temporary, VEX_FILE_CREATE, &self->file);
    if (result < 0) {
        /* It may have been created all the same. */
        (void)io->ops->unlink(io, self->temporary);
    }
    return result;
}

int vex_whole_file_end(struct vex_whole_file *self)
{
    struct vex_io *io = self->io;
    int result = io->ops->sync(io, &self->file);
    if (result < 0) {
        vex_whole_file_abandon(self);
        return result;
    }
    io->ops->close_file(io, &self->file);
    result = io->ops->rename(io, self->temporary, self->path);
    result = result < 0 ? result : vex_sync_parent(io, self->path);
    if (result < 0) {
        /* Which of the two names it has is not known. */
        (void)io->ops->unlink(io, self->temporary);
        (void)io->ops->unlink(io, self->path);
    }
    return result;
}

void vex_whole_file_abandon(struct vex_whole_file *self)
{
    self->io->ops->close_file(self->io, &self->file);
    (void)self->io->ops->unlink(self->io, self->temporary);
}
