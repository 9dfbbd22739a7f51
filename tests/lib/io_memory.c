#include "tests/lib/io_memory.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILES_MAX 64u
#define HANDLES_MAX 64u
#define PATH_BYTES 96u

/* What a path leads to. A handle keeps it after it was unlinked, as the kernel does. */
struct content {
    uint8_t *data;
    size_t bytes;
    unsigned references;
};

struct entry {
    char path[PATH_BYTES];
    struct content *content; /* NULL = free entry */
};

struct io_memory {
    struct vex_io io;
    pthread_mutex_t mutex;
    struct entry entries[FILES_MAX];
    struct content *handles[HANDLES_MAX];
    bool pending;
    int64_t result;
};

static struct io_memory *memory_of(struct vex_io *io)
{
    return (struct io_memory *)io;
}

static void must(bool condition, const char *what)
{
    if (!condition) {
        (void)fprintf(stderr, "io_memory: %s\n", what);
        abort();
    }
}

static struct entry *find(struct io_memory *self, const char *path)
{
    for (size_t i = 0; i < FILES_MAX; i++) {
        if (self->entries[i].content && strcmp(self->entries[i].path, path) == 0) {
            return &self->entries[i];
        }
    }
    return NULL;
}

static void release(struct content *content)
{
    if (--content->references == 0) {
        free(content->data);
        free(content);
    }
}

static struct entry *make(struct io_memory *self, const char *path)
{
    for (size_t i = 0; i < FILES_MAX; i++) {
        struct entry *entry = &self->entries[i];
        if (!entry->content) {
            must(strlen(path) < PATH_BYTES, "path too long");
            (void)snprintf(entry->path, sizeof(entry->path), "%s", path);
            entry->content = calloc(1, sizeof(*entry->content));
            must(entry->content, "out of memory");
            entry->content->references = 1;
            return entry;
        }
    }
    must(false, "too many files");
    return NULL;
}

static void resize(struct content *content, size_t bytes)
{
    if (bytes > content->bytes) {
        content->data = realloc(content->data, bytes);
        must(content->data, "out of memory");
        memset(content->data + content->bytes, 0, bytes - content->bytes);
        content->bytes = bytes;
    }
}

static struct content *content_of(struct io_memory *self, const struct vex_file *file)
{
    must(file->fd >= 0 && (unsigned)file->fd < HANDLES_MAX && self->handles[file->fd],
         "use of a closed file");
    return self->handles[file->fd];
}

static void memory_close(struct vex_io *io)
{
    struct io_memory *self = memory_of(io);
    for (size_t i = 0; i < HANDLES_MAX; i++) {
        must(!self->handles[i], "closed with files open");
    }
    for (size_t i = 0; i < FILES_MAX; i++) {
        if (self->entries[i].content) {
            release(self->entries[i].content);
        }
    }
    (void)pthread_mutex_destroy(&self->mutex);
    free(self);
}

static int open_locked(struct io_memory *self, const char *path, enum vex_file_mode mode,
                       struct vex_file *out_file)
{
    struct entry *entry = find(self, path);
    if (!entry && mode != VEX_FILE_CREATE) {
        return -ENOENT;
    }
    if (!entry) {
        entry = make(self, path);
    } else if (mode == VEX_FILE_CREATE) {
        entry->content->bytes = 0;
    }
    for (int fd = 0; fd < (int)HANDLES_MAX; fd++) {
        if (!self->handles[fd]) {
            self->handles[fd] = entry->content;
            entry->content->references++;
            *out_file = (struct vex_file){fd, false};
            return 0;
        }
    }
    return -EMFILE;
}

static int memory_open_file(struct vex_io *io, const char *path, enum vex_file_mode mode,
                            struct vex_file *out_file)
{
    struct io_memory *self = memory_of(io);
    (void)pthread_mutex_lock(&self->mutex);
    int result = open_locked(self, path, mode, out_file);
    (void)pthread_mutex_unlock(&self->mutex);
    return result;
}

static void memory_close_file(struct vex_io *io, struct vex_file *file)
{
    struct io_memory *self = memory_of(io);
    if (file->fd >= 0) {
        (void)pthread_mutex_lock(&self->mutex);
        release(content_of(self, file));
        self->handles[file->fd] = NULL;
        (void)pthread_mutex_unlock(&self->mutex);
    }
    file->fd = -1;
}

static int memory_size(struct vex_io *io, const struct vex_file *file, uint64_t *out_bytes)
{
    struct io_memory *self = memory_of(io);
    (void)pthread_mutex_lock(&self->mutex);
    *out_bytes = content_of(self, file)->bytes;
    (void)pthread_mutex_unlock(&self->mutex);
    return 0;
}

static int64_t memory_read(struct vex_io *io, const struct vex_file *file, void *into, size_t bytes,
                           uint64_t offset)
{
    struct io_memory *self = memory_of(io);
    (void)pthread_mutex_lock(&self->mutex);
    const struct content *content = content_of(self, file);
    size_t there = offset < content->bytes ? content->bytes - (size_t)offset : 0;
    size_t got = bytes < there ? bytes : there;
    if (got) {
        memcpy(into, content->data + offset, got);
    }
    (void)pthread_mutex_unlock(&self->mutex);
    return (int64_t)got;
}

static int memory_write(struct vex_io *io, const struct vex_file *file, const void *from,
                        size_t bytes, uint64_t offset)
{
    struct io_memory *self = memory_of(io);
    (void)pthread_mutex_lock(&self->mutex);
    struct content *content = content_of(self, file);
    resize(content, (size_t)offset + bytes);
    if (bytes) {
        memcpy(content->data + offset, from, bytes);
    }
    (void)pthread_mutex_unlock(&self->mutex);
    return 0;
}

static int memory_sync(struct vex_io *io, const struct vex_file *file)
{
    struct io_memory *self = memory_of(io);
    (void)pthread_mutex_lock(&self->mutex);
    (void)content_of(self, file);
    (void)pthread_mutex_unlock(&self->mutex);
    return 0;
}

static int memory_allocate(struct vex_io *io, const struct vex_file *file, uint64_t bytes)
{
    struct io_memory *self = memory_of(io);
    (void)pthread_mutex_lock(&self->mutex);
    resize(content_of(self, file), (size_t)bytes);
    (void)pthread_mutex_unlock(&self->mutex);
    return 0;
}

static int memory_sync_directory(struct vex_io *io, const char *path)
{
    (void)io;
    (void)path;
    return 0;
}

static int memory_make_directory(struct vex_io *io, const char *path)
{
    (void)io;
    (void)path;
    return 0;
}

static int memory_rename(struct vex_io *io, const char *from, const char *to)
{
    struct io_memory *self = memory_of(io);
    (void)pthread_mutex_lock(&self->mutex);
    struct entry *source = find(self, from);
    if (source) {
        struct entry *target = find(self, to);
        if (target && target != source) {
            release(target->content);
            target->content = NULL;
        }
        must(strlen(to) < PATH_BYTES, "path too long");
        (void)snprintf(source->path, sizeof(source->path), "%s", to);
    }
    (void)pthread_mutex_unlock(&self->mutex);
    return source ? 0 : -ENOENT;
}

static int memory_link(struct vex_io *io, const char *from, const char *to)
{
    struct io_memory *self = memory_of(io);
    (void)pthread_mutex_lock(&self->mutex);
    struct entry *source = find(self, from);
    int result = source ? 0 : -ENOENT;
    if (source && find(self, to)) {
        result = -EEXIST;
    } else if (source) {
        struct entry *target = make(self, to);
        free(target->content);
        target->content = source->content;
        target->content->references++;
    }
    (void)pthread_mutex_unlock(&self->mutex);
    return result;
}

static int memory_unlink(struct vex_io *io, const char *path)
{
    return vex_io_memory_drop(io, path) ? 0 : -ENOENT;
}

static int memory_list(struct vex_io *io, const char *path,
                       void (*entry)(void *context, const char *name), void *context)
{
    struct io_memory *self = memory_of(io);
    size_t length = strlen(path);
    for (size_t i = 0; i < FILES_MAX; i++) {
        const struct entry *item = &self->entries[i];
        if (item->content && strncmp(item->path, path, length) == 0 && item->path[length] == '/') {
            entry(context, item->path + length + 1);
        }
    }
    return 0;
}

static int memory_read_many(struct vex_io *io, struct vex_read *items, size_t count,
                            int (*done)(void *context, size_t index), void *context)
{
    for (size_t i = 0; i < count; i++) {
        struct vex_read *item = &items[i];
        item->result = memory_read(io, item->file, item->into, item->bytes, item->offset);
        int result = done(context, i);
        if (result != 0) {
            return result;
        }
    }
    return 0;
}

static int memory_submit(struct vex_io *io, const struct vex_file *file, const void *from,
                         size_t bytes, uint64_t offset)
{
    struct io_memory *self = memory_of(io);
    must(!self->pending, "two writes in flight");
    (void)memory_write(io, file, from, bytes, offset);
    self->result = (int64_t)bytes;
    self->pending = true;
    return 0;
}

static int memory_reap(struct vex_io *io, bool wait, int64_t *out_result)
{
    (void)wait;
    struct io_memory *self = memory_of(io);
    if (!self->pending) {
        return 0;
    }
    self->pending = false;
    *out_result = self->result;
    return 1;
}

static int memory_event_fd(struct vex_io *io)
{
    (void)io;
    return -1;
}

static const struct vex_io_ops memory_ops = {
    .name = "memory",
    .close = memory_close,
    .open_file = memory_open_file,
    .close_file = memory_close_file,
    .size = memory_size,
    .read = memory_read,
    .write = memory_write,
    .sync = memory_sync,
    .allocate = memory_allocate,
    .sync_directory = memory_sync_directory,
    .make_directory = memory_make_directory,
    .rename = memory_rename,
    .link = memory_link,
    .unlink = memory_unlink,
    .list = memory_list,
    .read_many = memory_read_many,
    .submit = memory_submit,
    .reap = memory_reap,
    .event_fd = memory_event_fd,
};

struct vex_io *vex_io_memory_open(void)
{
    struct io_memory *self = calloc(1, sizeof(*self));
    must(self, "out of memory");
    (void)pthread_mutex_init(&self->mutex, NULL);
    self->io = (struct vex_io){&memory_ops, -1};
    return &self->io;
}

uint8_t *vex_io_memory_bytes(struct vex_io *io, const char *path, size_t *out_bytes)
{
    struct entry *entry = find(memory_of(io), path);
    if (!entry) {
        return NULL;
    }
    *out_bytes = entry->content->bytes;
    return entry->content->data;
}

void vex_io_memory_put(struct vex_io *io, const char *path, const void *data, size_t bytes)
{
    (void)vex_io_memory_drop(io, path);
    struct entry *entry = make(memory_of(io), path);
    resize(entry->content, bytes);
    if (bytes) {
        memcpy(entry->content->data, data, bytes);
    }
}

bool vex_io_memory_drop(struct vex_io *io, const char *path)
{
    struct io_memory *self = memory_of(io);
    (void)pthread_mutex_lock(&self->mutex);
    struct entry *entry = find(self, path);
    if (entry) {
        release(entry->content);
        entry->content = NULL;
    }
    (void)pthread_mutex_unlock(&self->mutex);
    return entry != NULL;
}

struct vex_io *vex_io_memory_clone(struct vex_io *io)
{
    struct io_memory *self = memory_of(io);
    struct vex_io *copy = vex_io_memory_open();
    for (size_t i = 0; i < FILES_MAX; i++) {
        const struct entry *entry = &self->entries[i];
        if (entry->content) {
            vex_io_memory_put(copy, entry->path, entry->content->data, entry->content->bytes);
        }
    }
    return copy;
}

/* Every file of `left` is in `right`. */
static bool is_within(struct io_memory *left, struct io_memory *right)
{
    for (size_t i = 0; i < FILES_MAX; i++) {
        const struct entry *mine = &left->entries[i];
        if (!mine->content) {
            continue;
        }
        const struct entry *theirs = find(right, mine->path);
        if (!theirs || theirs->content->bytes != mine->content->bytes ||
            (mine->content->bytes &&
             memcmp(theirs->content->data, mine->content->data, mine->content->bytes) != 0)) {
            return false;
        }
    }
    return true;
}

bool vex_io_memory_equals(struct vex_io *left, struct vex_io *right)
{
    return is_within(memory_of(left), memory_of(right)) &&
           is_within(memory_of(right), memory_of(left));
}
