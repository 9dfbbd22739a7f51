#include "tests/lib/io_fault.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

struct io_fault {
    struct vex_io io;
    struct vex_io *inner;
    vex_io_decide decide;
    void *context;
    pthread_mutex_t mutex;
    uint64_t counts[VEX_IO_CALLS_COUNT];

    /* The durable write that is in flight. */
    bool pending;
    bool inner_pending; /* some bytes of it went to the inner disk, which will report them */
    int64_t result;
};

static struct io_fault *fault_of(struct vex_io *io)
{
    return (struct io_fault *)io;
}

static struct vex_io_decision ask(struct vex_io *io, enum vex_io_call call, size_t bytes)
{
    struct io_fault *self = fault_of(io);
    (void)pthread_mutex_lock(&self->mutex);
    uint64_t nth = ++self->counts[call];
    struct vex_io_decision decision = self->decide(self->context, call, nth, bytes);
    (void)pthread_mutex_unlock(&self->mutex);
    if (decision.bytes > bytes) {
        decision.bytes = bytes;
    }
    return decision;
}

/* For calls that happen whole or not at all: true if the inner disk is to be called. */
static bool passes(struct vex_io_decision decision)
{
    return decision.error == 0 || decision.bytes != 0;
}

static int outcome(struct vex_io_decision decision, int result)
{
    return decision.error ? -decision.error : result;
}

static void fault_close(struct vex_io *io)
{
    struct io_fault *self = fault_of(io);
    (void)pthread_mutex_destroy(&self->mutex);
    free(self);
}

static int fault_open_file(struct vex_io *io, const char *path, enum vex_file_mode mode,
                           struct vex_file *out_file)
{
    struct io_fault *self = fault_of(io);
    struct vex_io_decision decision = ask(io, VEX_IO_OPEN_FILE, 1);
    struct vex_file file = {-1, false};
    int result = 0;
    if (passes(decision)) {
        result = self->inner->ops->open_file(self->inner, path, mode, &file);
    }
    if (decision.error && result == 0) {
        self->inner->ops->close_file(self->inner, &file);
    }
    result = outcome(decision, result);
    if (result == 0) {
        *out_file = file;
    }
    return result;
}

static void fault_close_file(struct vex_io *io, struct vex_file *file)
{
    struct vex_io *inner = fault_of(io)->inner;
    inner->ops->close_file(inner, file);
}

static int fault_size(struct vex_io *io, const struct vex_file *file, uint64_t *out_bytes)
{
    struct vex_io *inner = fault_of(io)->inner;
    struct vex_io_decision decision = ask(io, VEX_IO_SIZE, 1);
    return decision.error ? -decision.error : inner->ops->size(inner, file, out_bytes);
}

static int64_t fault_read(struct vex_io *io, const struct vex_file *file, void *into, size_t bytes,
                          uint64_t offset)
{
    struct vex_io *inner = fault_of(io)->inner;
    struct vex_io_decision decision = ask(io, VEX_IO_READ, bytes);
    return decision.error ? -decision.error : inner->ops->read(inner, file, into, bytes, offset);
}

static int fault_write(struct vex_io *io, const struct vex_file *file, const void *from,
                       size_t bytes, uint64_t offset)
{
    struct vex_io *inner = fault_of(io)->inner;
    struct vex_io_decision decision = ask(io, VEX_IO_WRITE, bytes);
    /* A direct write that is cut short is cut at a block. */
    size_t some =
        decision.bytes == bytes ? bytes : decision.bytes - decision.bytes % VEX_BLOCK_BYTES;
    int result = some ? inner->ops->write(inner, file, from, some, offset) : 0;
    return outcome(decision, result);
}

static int fault_sync(struct vex_io *io, const struct vex_file *file)
{
    struct vex_io *inner = fault_of(io)->inner;
    struct vex_io_decision decision = ask(io, VEX_IO_SYNC, 1);
    return outcome(decision, passes(decision) ? inner->ops->sync(inner, file) : 0);
}

static int fault_allocate(struct vex_io *io, const struct vex_file *file, uint64_t bytes)
{
    struct vex_io *inner = fault_of(io)->inner;
    struct vex_io_decision decision = ask(io, VEX_IO_ALLOCATE, 1);
    return outcome(decision, passes(decision) ? inner->ops->allocate(inner, file, bytes) : 0);
}

static int fault_sync_directory(struct vex_io *io, const char *path)
{
    struct vex_io *inner = fault_of(io)->inner;
    struct vex_io_decision decision = ask(io, VEX_IO_SYNC_DIRECTORY, 1);
    return outcome(decision, passes(decision) ? inner->ops->sync_directory(inner, path) : 0);
}

static int fault_make_directory(struct vex_io *io, const char *path)
{
    struct vex_io *inner = fault_of(io)->inner;
    struct vex_io_decision decision = ask(io, VEX_IO_MAKE_DIRECTORY, 1);
    return outcome(decision, passes(decision) ? inner->ops->make_directory(inner, path) : 0);
}

static int fault_rename(struct vex_io *io, const char *from, const char *to)
{
    struct vex_io *inner = fault_of(io)->inner;
    struct vex_io_decision decision = ask(io, VEX_IO_RENAME, 1);
    return outcome(decision, passes(decision) ? inner->ops->rename(inner, from, to) : 0);
}

static int fault_link(struct vex_io *io, const char *from, const char *to)
{
    struct vex_io *inner = fault_of(io)->inner;
    struct vex_io_decision decision = ask(io, VEX_IO_LINK, 1);
    return outcome(decision, passes(decision) ? inner->ops->link(inner, from, to) : 0);
}

static int fault_unlink(struct vex_io *io, const char *path)
{
    struct vex_io *inner = fault_of(io)->inner;
    struct vex_io_decision decision = ask(io, VEX_IO_UNLINK, 1);
    return outcome(decision, passes(decision) ? inner->ops->unlink(inner, path) : 0);
}

static int fault_list(struct vex_io *io, const char *path,
                      void (*entry)(void *context, const char *name), void *context)
{
    struct vex_io *inner = fault_of(io)->inner;
    struct vex_io_decision decision = ask(io, VEX_IO_LIST, 1);
    return outcome(decision, passes(decision) ? inner->ops->list(inner, path, entry, context) : 0);
}

static int fault_read_many(struct vex_io *io, struct vex_read *items, size_t count,
                           int (*done)(void *context, size_t index), void *context)
{
    for (size_t i = 0; i < count; i++) {
        struct vex_read *item = &items[i];
        item->result = fault_read(io, item->file, item->into, item->bytes, item->offset);
        int result = done(context, i);
        if (result != 0) {
            return result;
        }
    }
    return 0;
}

static int fault_submit(struct vex_io *io, const struct vex_file *file, const void *from,
                        size_t bytes, uint64_t offset)
{
    struct io_fault *self = fault_of(io);
    if (self->pending) {
        (void)fprintf(stderr, "io_fault: two writes in flight\n");
        abort();
    }
    struct vex_io_decision refusal = ask(io, VEX_IO_SUBMIT, 1);
    if (refusal.error) {
        return -refusal.error;
    }
    struct vex_io_decision decision = ask(io, VEX_IO_DURABLE, bytes);
    size_t some = decision.bytes;
    size_t whole_blocks = some - some % VEX_BLOCK_BYTES;
    self->result = decision.error ? -decision.error : (int64_t)some;
    self->inner_pending = whole_blocks > 0;
    if (self->inner_pending) {
        int result = self->inner->ops->submit(self->inner, file, from, whole_blocks, offset);
        if (result < 0) {
            return result;
        }
    }
    self->pending = true;
    return 0;
}

static int fault_reap(struct vex_io *io, bool wait, int64_t *out_result)
{
    struct io_fault *self = fault_of(io);
    if (!self->pending) {
        return 0;
    }
    struct vex_io_decision decision = ask(io, VEX_IO_REAP, 1);
    if (decision.error) {
        /* The result is lost; the disk itself is idle again. */
        int64_t lost;
        if (self->inner_pending) {
            (void)self->inner->ops->reap(self->inner, true, &lost);
        }
        self->inner_pending = false;
        self->pending = false;
        return -decision.error;
    }
    if (self->inner_pending) {
        int64_t result = 0;
        int reaped = self->inner->ops->reap(self->inner, wait, &result);
        if (reaped <= 0) {
            return reaped;
        }
        self->inner_pending = false;
        if (result < 0) {
            self->result = result;
        }
    }
    self->pending = false;
    *out_result = self->result;
    return 1;
}

static int fault_event_fd(struct vex_io *io)
{
    struct vex_io *inner = fault_of(io)->inner;
    return inner->ops->event_fd(inner);
}

static const struct vex_io_ops fault_ops = {
    .name = "fault",
    .close = fault_close,
    .open_file = fault_open_file,
    .close_file = fault_close_file,
    .size = fault_size,
    .read = fault_read,
    .write = fault_write,
    .sync = fault_sync,
    .allocate = fault_allocate,
    .sync_directory = fault_sync_directory,
    .make_directory = fault_make_directory,
    .rename = fault_rename,
    .link = fault_link,
    .unlink = fault_unlink,
    .list = fault_list,
    .read_many = fault_read_many,
    .submit = fault_submit,
    .reap = fault_reap,
    .event_fd = fault_event_fd,
};

struct vex_io *vex_io_fault_open(struct vex_io *inner, vex_io_decide decide, void *context)
{
    struct io_fault *self = calloc(1, sizeof(*self));
    if (!self) {
        abort();
    }
    (void)pthread_mutex_init(&self->mutex, NULL);
    self->inner = inner;
    self->decide = decide;
    self->context = context;
    self->io = (struct vex_io){&fault_ops, inner->directory_fd};
    return &self->io;
}

uint64_t vex_io_fault_count(struct vex_io *io, enum vex_io_call call)
{
    struct io_fault *self = fault_of(io);
    (void)pthread_mutex_lock(&self->mutex);
    uint64_t count = self->counts[call];
    (void)pthread_mutex_unlock(&self->mutex);
    return count;
}

const char *vex_io_call_name(enum vex_io_call call)
{
    static const char *const names[VEX_IO_CALLS_COUNT] = {
        "open_file", "size",           "read",           "write",         "sync",
        "allocate",  "sync_directory", "make_directory", "rename",        "link",
        "unlink",    "list",           "submit",         "durable write", "reap",
    };
    return names[call];
}

struct vex_io_decision vex_io_fault_planned(void *context, enum vex_io_call call, uint64_t nth,
                                            size_t bytes)
{
    (void)bytes;
    struct vex_io_fault_plan *plan = context;
    bool now = plan->nth != 0 && call == plan->call &&
               (nth == plan->nth || (plan->again && nth > plan->nth));
    if (!now) {
        return VEX_IO_PASS;
    }
    plan->happened = true;
    return plan->decision;
}
