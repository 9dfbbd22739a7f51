/*
 * The simulated disk's operations and their record. What the running program sees is the tree "now", in
 * which everything has happened at once; what a crash leaves is worked out later from the record alone
 * (io_sim_crash.c), so that one run serves all its crash points.
 *
 * A write is recorded as the whole sectors it leaves, read back from the tree: what a sector held beside
 * the bytes written is part of its new version.
 */
#include "tests/lib/io_sim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/io_sim_priv.h"

#define SECTOR VEX_SIM_SECTOR_BYTES

void sim_must(bool condition, const char *what)
{
    if (!condition) {
        (void)fprintf(stderr, "io_sim: %s\n", what);
        abort();
    }
}

struct sim *sim_of(struct vex_io *io)
{
    return (struct sim *)io;
}

/* ---- recording ------------------------------------------------------------------------------- */

static void step(struct sim *self)
{
    if (self->habits.step) {
        self->habits.step(self->habits.context);
    }
}

/* 0, or the error that this operation ends with. */
static int fails(struct sim *self, bool may_be_full)
{
    if (self->habits.error_odds == 0 ||
        !vex_random_once_in(&self->random, self->habits.error_odds)) {
        return 0;
    }
    return may_be_full && vex_random_once_in(&self->random, 2) ? -ENOSPC : -EIO;
}

/* A failed operation may have happened all the same. */
static bool happened(struct sim *self)
{
    return vex_random_once_in(&self->random, 2);
}

static struct vex_sim_op *record(struct sim *self, enum vex_sim_kind kind, uint32_t node)
{
    static struct vex_sim_op unused;
    if (!self->recording) {
        return &unused;
    }
    if (self->ops_count == self->ops_capacity) {
        self->ops_capacity = self->ops_capacity ? 2 * self->ops_capacity : 64;
        self->ops = realloc(self->ops, self->ops_capacity * sizeof(*self->ops));
        sim_must(self->ops, "out of memory");
    }
    struct vex_sim_op *op = &self->ops[self->ops_count++];
    *op = (struct vex_sim_op){.kind = kind, .node = node};
    return op;
}

static void name_to(struct vex_sim_op *op, uint32_t directory, const char *name)
{
    op->to_directory = directory;
    (void)snprintf(op->to, sizeof(op->to), "%s", name);
}

static void name_from(struct vex_sim_op *op, uint32_t directory, const char *name)
{
    op->from_directory = directory;
    (void)snprintf(op->from, sizeof(op->from), "%s", name);
}

static bool is_zero(const uint8_t *data, size_t bytes)
{
    return bytes == 0 || (data[0] == 0 && memcmp(data, data + 1, bytes - 1) == 0);
}

static void record_data(struct sim *self, struct vex_sim_op *op, uint64_t offset, uint64_t bytes)
{
    if (!self->recording || bytes == 0) {
        return;
    }
    const struct sim_content *content = sim_tree_node(&self->tree, op->node)->content;
    op->offset = offset / SECTOR * SECTOR;
    op->bytes = vex_round_up(offset + bytes, SECTOR) - op->offset;
    uint64_t there = content->bytes - op->offset;
    size_t copied = (size_t)(there < op->bytes ? there : op->bytes);
    if (is_zero(content->data + op->offset, copied)) {
        return;
    }
    uint8_t *data = calloc(1, (size_t)op->bytes);
    sim_must(data, "out of memory");
    memcpy(data, content->data + op->offset, copied);
    op->data = data;
}

static void forget(struct sim *self)
{
    for (size_t i = 0; i < self->ops_count; i++) {
        free((void *)(uintptr_t)self->ops[i].data);
    }
    free(self->ops);
    self->ops = NULL;
    self->ops_count = self->ops_capacity = 0;
    if (self->recording) {
        sim_tree_deinit(&self->base);
    }
    self->recording = false;
}

/* ---- files ----------------------------------------------------------------------------------- */

static void sim_close(struct vex_io *io)
{
    struct sim *self = sim_of(io);
    forget(self);
    sim_tree_deinit(&self->tree);
    free(self);
}

static int new_handle(struct sim *self, uint32_t node, struct vex_file *out_file)
{
    for (int fd = 0; fd < (int)SIM_HANDLES_MAX; fd++) {
        if (!self->handles[fd]) {
            self->handles[fd] = node;
            *out_file = (struct vex_file){fd, true};
            return 0;
        }
    }
    sim_must(false, "too many open files: some are never closed");
    return -EMFILE;
}

static int sim_open_file(struct vex_io *io, const char *path, enum vex_file_mode mode,
                         struct vex_file *out_file)
{
    struct sim *self = sim_of(io);
    step(self);
    uint32_t directory;
    char name[VEX_SIM_NAME_BYTES];
    uint32_t node = sim_tree_resolve(&self->tree, path, &directory, name);
    if (node && sim_tree_node(&self->tree, node)->directory) {
        return -EISDIR;
    }
    if (!node && (mode != VEX_FILE_CREATE || !directory)) {
        return -ENOENT;
    }
    int error = mode == VEX_FILE_CREATE ? fails(self, true) : 0;
    if (error && !happened(self)) {
        return error;
    }
    if (!node) {
        node = sim_tree_new_node(&self->tree, false);
        sim_tree_set(&self->tree, directory, name, node);
        name_to(record(self, VEX_SIM_CREATE, node), directory, name);
    } else if (mode == VEX_FILE_CREATE) {
        struct vex_sim_op *op = record(self, VEX_SIM_TRUNCATE, node);
        op->size_before = sim_tree_size(&self->tree, node);
        sim_tree_resize(&self->tree, node, 0);
    }
    return error ? error : new_handle(self, node, out_file);
}

static uint32_t node_of(struct sim *self, const struct vex_file *file)
{
    sim_must(file->fd >= 0 && file->fd < (int)SIM_HANDLES_MAX && self->handles[file->fd],
             "use of a closed file");
    return self->handles[file->fd];
}

static void sim_close_file(struct vex_io *io, struct vex_file *file)
{
    struct sim *self = sim_of(io);
    if (file->fd >= 0) {
        (void)node_of(self, file);
        self->handles[file->fd] = 0;
    }
    file->fd = -1;
}

static int sim_size(struct vex_io *io, const struct vex_file *file, uint64_t *out_bytes)
{
    struct sim *self = sim_of(io);
    *out_bytes = sim_tree_size(&self->tree, node_of(self, file));
    return 0;
}

static int64_t sim_read(struct vex_io *io, const struct vex_file *file, void *into, size_t bytes,
                        uint64_t offset)
{
    struct sim *self = sim_of(io);
    step(self);
    const struct sim_content *content = sim_tree_node(&self->tree, node_of(self, file))->content;
    uint64_t size = content ? content->bytes : 0;
    uint64_t there = offset < size ? size - offset : 0;
    size_t got = bytes < there ? bytes : (size_t)there;
    if (got) {
        memcpy(into, content->data + offset, got);
    }
    return (int64_t)got;
}

static size_t put(struct sim *self, enum vex_sim_kind kind, uint32_t node, const void *from,
                  size_t bytes, uint64_t offset)
{
    uint64_t before = sim_tree_size(&self->tree, node);
    if (offset + bytes > before) {
        sim_tree_resize(&self->tree, node, offset + bytes);
    }
    if (bytes) {
        sim_tree_write(&self->tree, node, offset, from, bytes);
    }
    struct vex_sim_op *op = record(self, kind, node);
    op->size_before = before;
    op->size = sim_tree_size(&self->tree, node);
    record_data(self, op, offset, bytes);
    return self->ops_count - 1;
}

static int sim_write(struct vex_io *io, const struct vex_file *file, const void *from, size_t bytes,
                     uint64_t offset)
{
    struct sim *self = sim_of(io);
    step(self);
    int error = fails(self, true);
    if (error) {
        bytes = (size_t)vex_random_below(&self->random, bytes / SECTOR + 1) * SECTOR;
    }
    if (bytes || !error) {
        (void)put(self, VEX_SIM_WRITE, node_of(self, file), from, bytes, offset);
    }
    return error;
}

static int sim_sync(struct vex_io *io, const struct vex_file *file)
{
    struct sim *self = sim_of(io);
    step(self);
    int error = fails(self, true);
    (void)record(self, error ? VEX_SIM_SYNC_FAILED : VEX_SIM_SYNC, node_of(self, file));
    return error;
}

/* Only the length changes; a record of a write of nothing. */
static int sim_allocate(struct vex_io *io, const struct vex_file *file, uint64_t bytes)
{
    struct sim *self = sim_of(io);
    step(self);
    uint32_t node = node_of(self, file);
    int error = fails(self, true);
    if (error) {
        return error;
    }
    if (bytes > sim_tree_size(&self->tree, node)) {
        (void)put(self, VEX_SIM_WRITE, node, NULL, 0, bytes);
    }
    return 0;
}

static int sim_read_many(struct vex_io *io, struct vex_read *items, size_t count,
                         int (*done)(void *context, size_t index), void *context)
{
    struct sim *self = sim_of(io);
    size_t first = count ? (size_t)vex_random_below(&self->random, count) : 0;
    for (size_t i = 0; i < count; i++) {
        size_t index = (first + i) % count;
        struct vex_read *item = &items[index];
        item->result = sim_read(io, item->file, item->into, item->bytes, item->offset);
        int result = done(context, index);
        if (result != 0) {
            return result;
        }
    }
    return 0;
}

/* ---- names ----------------------------------------------------------------------------------- */

static int sim_sync_directory(struct vex_io *io, const char *path)
{
    struct sim *self = sim_of(io);
    step(self);
    uint32_t directory;
    char name[VEX_SIM_NAME_BYTES];
    uint32_t node = sim_tree_resolve(&self->tree, path, &directory, name);
    if (!node) {
        return -ENOENT;
    }
    int error = fails(self, false);
    if (error) {
        return error;
    }
    (void)record(self, VEX_SIM_SYNC_DIRECTORY, node);
    return 0;
}

static int sim_make_directory(struct vex_io *io, const char *path)
{
    struct sim *self = sim_of(io);
    step(self);
    uint32_t directory;
    char name[VEX_SIM_NAME_BYTES];
    uint32_t node = sim_tree_resolve(&self->tree, path, &directory, name);
    if (node) {
        return sim_tree_node(&self->tree, node)->directory ? 0 : -ENOTDIR;
    }
    if (!directory) {
        return -ENOENT;
    }
    int error = fails(self, true);
    if (error && !happened(self)) {
        return error;
    }
    node = sim_tree_new_node(&self->tree, true);
    sim_tree_set(&self->tree, directory, name, node);
    name_to(record(self, VEX_SIM_MAKE_DIRECTORY, node), directory, name);
    return error;
}

static int sim_rename(struct vex_io *io, const char *from, const char *to)
{
    struct sim *self = sim_of(io);
    step(self);
    uint32_t from_directory;
    uint32_t to_directory;
    char from_name[VEX_SIM_NAME_BYTES];
    char to_name[VEX_SIM_NAME_BYTES];
    uint32_t node = sim_tree_resolve(&self->tree, from, &from_directory, from_name);
    (void)sim_tree_resolve(&self->tree, to, &to_directory, to_name);
    if (!node || !to_directory) {
        return -ENOENT;
    }
    int error = fails(self, true);
    if (error && !happened(self)) {
        return error;
    }
    sim_tree_remove(&self->tree, from_directory, from_name);
    sim_tree_set(&self->tree, to_directory, to_name, node);
    struct vex_sim_op *op = record(self, VEX_SIM_RENAME, node);
    name_from(op, from_directory, from_name);
    name_to(op, to_directory, to_name);
    return error;
}

static int sim_link(struct vex_io *io, const char *from, const char *to)
{
    struct sim *self = sim_of(io);
    step(self);
    uint32_t directory;
    char name[VEX_SIM_NAME_BYTES];
    uint32_t node = sim_tree_resolve(&self->tree, from, &directory, name);
    if (!node) {
        return -ENOENT;
    }
    if (sim_tree_resolve(&self->tree, to, &directory, name)) {
        return -EEXIST;
    }
    if (!directory) {
        return -ENOENT;
    }
    if (self->habits.no_links) {
        return -EOPNOTSUPP;
    }
    int error = fails(self, true);
    if (error && !happened(self)) {
        return error;
    }
    sim_tree_set(&self->tree, directory, name, node);
    name_to(record(self, VEX_SIM_LINK, node), directory, name);
    return error;
}

static bool is_empty(const struct sim_tree *tree, uint32_t directory)
{
    for (uint32_t i = 0; i < tree->entries_count; i++) {
        if (tree->entries[i].directory == directory) {
            return false;
        }
    }
    return true;
}

static int sim_unlink(struct vex_io *io, const char *path)
{
    struct sim *self = sim_of(io);
    step(self);
    uint32_t directory;
    char name[VEX_SIM_NAME_BYTES];
    uint32_t node = sim_tree_resolve(&self->tree, path, &directory, name);
    if (!node) {
        return -ENOENT;
    }
    if (sim_tree_node(&self->tree, node)->directory && !is_empty(&self->tree, node)) {
        return -ENOTEMPTY;
    }
    int error = fails(self, false);
    if (error && !happened(self)) {
        return error;
    }
    sim_tree_remove(&self->tree, directory, name);
    name_from(record(self, VEX_SIM_UNLINK, node), directory, name);
    return error;
}

static int sim_list(struct vex_io *io, const char *path,
                    void (*entry)(void *context, const char *name), void *context)
{
    struct sim *self = sim_of(io);
    step(self);
    uint32_t directory;
    char name[VEX_SIM_NAME_BYTES];
    uint32_t node = sim_tree_resolve(&self->tree, path, &directory, name);
    if (!node) {
        return -ENOENT;
    }
    /* A callback may change names. */
    struct sim_tree before;
    sim_tree_copy(&before, &self->tree);
    for (uint32_t i = 0; i < before.entries_count; i++) {
        if (before.entries[i].directory == node) {
            entry(context, before.entries[i].name);
        }
    }
    sim_tree_deinit(&before);
    return 0;
}

/* ---- durable writes -------------------------------------------------------------------------- */

static int sim_submit(struct vex_io *io, const struct vex_file *file, const void *from,
                      size_t bytes, uint64_t offset)
{
    struct sim *self = sim_of(io);
    step(self);
    sim_must(!self->pending, "two durable writes in flight");
    sim_must(offset % VEX_BLOCK_BYTES == 0 && bytes % VEX_BLOCK_BYTES == 0 &&
                 (uintptr_t)from % VEX_BLOCK_BYTES == 0,
             "a durable write is not aligned");
    self->pending_op = put(self, VEX_SIM_SUBMIT, node_of(self, file), from, bytes, offset);
    self->pending_bytes = bytes;
    self->pending = true;
    return 0;
}

static bool happens(struct sim *self, uint32_t odds)
{
    return odds != 0 && vex_random_once_in(&self->random, odds);
}

static int sim_reap(struct vex_io *io, bool wait, int64_t *out_result)
{
    struct sim *self = sim_of(io);
    step(self);
    if (!self->pending || (!wait && happens(self, self->habits.pending_odds))) {
        return 0;
    }
    self->pending = false;
    *out_result = fails(self, true);
    if (*out_result == 0) {
        *out_result = (int64_t)self->pending_bytes;
    }
    if (*out_result > 0 && happens(self, self->habits.again_odds)) {
        *out_result = -EAGAIN;
    } else if (*out_result > 0 && happens(self, self->habits.short_odds)) {
        *out_result =
            (int64_t)vex_random_below(&self->random, self->pending_bytes / SECTOR) * SECTOR;
    }
    struct vex_sim_op *op = record(self, VEX_SIM_COMPLETE, 0);
    if (self->recording) {
        op->node = self->ops[self->pending_op].node;
        op->submitted = self->pending_op;
        op->result = *out_result;
    }
    return 1;
}

static int sim_event_fd(struct vex_io *io)
{
    (void)io;
    return -1;
}

static const struct vex_io_ops sim_ops = {
    .name = "sim",
    .close = sim_close,
    .open_file = sim_open_file,
    .close_file = sim_close_file,
    .size = sim_size,
    .read = sim_read,
    .write = sim_write,
    .sync = sim_sync,
    .allocate = sim_allocate,
    .sync_directory = sim_sync_directory,
    .make_directory = sim_make_directory,
    .rename = sim_rename,
    .unlink = sim_unlink,
    .link = sim_link,
    .list = sim_list,
    .read_many = sim_read_many,
    .submit = sim_submit,
    .reap = sim_reap,
    .event_fd = sim_event_fd,
};

/* ---- for tests ------------------------------------------------------------------------------- */

struct vex_io *sim_open_tree(struct sim_tree *tree)
{
    struct sim *self = calloc(1, sizeof(*self));
    sim_must(self, "out of memory");
    self->io = (struct vex_io){&sim_ops, -1};
    self->tree = *tree;
    *tree = (struct sim_tree){0};
    return &self->io;
}

struct vex_io *vex_io_sim_open(void)
{
    struct sim_tree tree;
    sim_tree_init(&tree);
    return sim_open_tree(&tree);
}

struct vex_io *vex_io_sim_clone(struct vex_io *io)
{
    struct sim_tree tree;
    sim_tree_copy(&tree, &sim_of(io)->tree);
    return sim_open_tree(&tree);
}

struct vex_io *vex_io_sim_clone_below(struct vex_io *io, const char *path)
{
    const struct sim_tree *from = &sim_of(io)->tree;
    uint32_t directory;
    char name[VEX_SIM_NAME_BYTES];
    uint32_t node = sim_tree_resolve(from, path, &directory, name);
    if (!node || !sim_tree_node(from, node)->directory) {
        return NULL;
    }
    struct sim_tree tree;
    sim_tree_copy(&tree, from);
    for (uint32_t i = 0; i < tree.entries_count; i++) {
        struct sim_entry *entry = &tree.entries[i];
        /* Node 0 is never looked into, so what is beside the directory is out of sight. */
        entry->directory = entry->directory == node       ? SIM_ROOT
                           : entry->directory == SIM_ROOT ? 0
                                                          : entry->directory;
    }
    return sim_open_tree(&tree);
}

void vex_io_sim_set_habits(struct vex_io *io, const struct vex_sim_habits *habits)
{
    sim_of(io)->habits = *habits;
    sim_of(io)->random = vex_random_seeded(habits->seed);
}

void vex_io_sim_set_errors(struct vex_io *io, uint32_t error_odds)
{
    sim_of(io)->habits.error_odds = error_odds;
}

void vex_io_sim_record(struct vex_io *io)
{
    struct sim *self = sim_of(io);
    forget(self);
    sim_tree_copy_all(&self->base, &self->tree);
    self->recording = true;
}

void vex_io_sim_mark(struct vex_io *io, uint64_t mark, uint64_t value)
{
    struct vex_sim_op *op = record(sim_of(io), VEX_SIM_MARK, 0);
    op->mark = mark;
    op->value = value;
}

size_t vex_io_sim_ops_count(struct vex_io *io)
{
    return sim_of(io)->ops_count;
}

const struct vex_sim_op *vex_io_sim_op(struct vex_io *io, size_t index)
{
    sim_must(index < sim_of(io)->ops_count, "no such operation");
    return &sim_of(io)->ops[index];
}
