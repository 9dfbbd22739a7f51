/*
 * The `uring` backend: durable writes through a small ring of their own, so that nothing else can
 * queue in front of a commit. One write is in flight at a time; its completion is signalled through
 * an eventfd that the daemon's loop watches. SINGLE_ISSUER and DEFER_TASKRUN keep completions on
 * the thread that reaps; a kernel that does not know them (before 6.1) gets a plain ring. The ring
 * is restricted to the two write opcodes: io_uring bypasses seccomp filters, so it should not be
 * able to do more than it must.
 *
 * No write->fsync links: a short write breaks the chain, and the flush could run before the rest.
 */
#include "ioengine/io.h"

#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/panic.h"

#define RING_ENTRIES 8u
#define BUFFERS_MAX 4u
#define READS_IN_FLIGHT 32u
#define SUBMIT_ATTEMPTS_MAX 64u
#define SUBMIT_PAUSE_US 1000u

struct io_ring {
    struct vex_io io;
    struct io_uring ring;
    int event_fd;
    bool pending;
    struct vex_io_buffer buffers[BUFFERS_MAX]; /* registered, in this order */
    unsigned buffers_count;
};

/* Debian 12's liburing.so declares wrappers for these two but does not export them. */
static int register_ring(const struct io_uring *ring, unsigned operation, const void *argument,
                         unsigned count)
{
    return syscall(SYS_io_uring_register, ring->ring_fd, operation, argument, count) < 0 ? -errno
                                                                                         : 0;
}

static void ring_close(struct vex_io *io)
{
    struct io_ring *self = (struct io_ring *)io;
    /* The kernel takes a ring apart at leisure; the lock must not wait for that. */
    (void)register_ring(&self->ring, IORING_UNREGISTER_FILES, NULL, 0);
    io_uring_queue_exit(&self->ring);
    (void)close(self->event_fd);
    free(self);
}

/* Index of the registered buffer that holds the whole range, or -1. */
static int registered_index(const struct io_ring *self, const void *from, size_t bytes)
{
    for (unsigned i = 0; i < self->buffers_count; i++) {
        const uint8_t *start = self->buffers[i].memory;
        const uint8_t *at = from;
        if (at >= start && at + bytes <= start + self->buffers[i].bytes) {
            return (int)i;
        }
    }
    return -1;
}

/* The kernel may be short of memory for a moment; not for ever. 0 or a negative errno. */
static int submit_all(struct io_uring *ring)
{
    for (unsigned attempt = 0;; attempt++) {
        int submitted = io_uring_submit(ring);
        if (submitted >= 0) {
            return 0;
        }
        bool passing = submitted == -EAGAIN || submitted == -EBUSY;
        if (submitted != -EINTR && (!passing || attempt == SUBMIT_ATTEMPTS_MAX)) {
            return submitted;
        }
        if (passing) {
            (void)usleep(SUBMIT_PAUSE_US);
        }
    }
}

static int ring_submit(struct vex_io *io, const struct vex_file *file, const void *from,
                       size_t bytes, uint64_t offset)
{
    struct io_ring *self = (struct io_ring *)io;
    VEX_ASSERT(!self->pending);
    struct io_uring_sqe *sqe = io_uring_get_sqe(&self->ring);
    VEX_ASSERT(sqe);
    int index = registered_index(self, from, bytes);
    if (index >= 0) {
        io_uring_prep_write_fixed(sqe, file->fd, from, (unsigned)bytes, offset, index);
    } else {
        io_uring_prep_write(sqe, file->fd, from, (unsigned)bytes, offset);
    }
    sqe->rw_flags = RWF_DSYNC;
    int submitted = submit_all(&self->ring);
    if (submitted < 0) {
        return submitted;
    }
    self->pending = true;
    return 0;
}

static int ring_reap(struct vex_io *io, bool wait, int64_t *out_result)
{
    struct io_ring *self = (struct io_ring *)io;
    eventfd_t ignored;
    (void)eventfd_read(self->event_fd, &ignored);
    if (!self->pending) {
        return 0;
    }
    struct io_uring_cqe *cqe = NULL;
    int result;
    do {
        if (wait) {
            result = io_uring_wait_cqe(&self->ring, &cqe);
        } else {
            /* With deferred task work a completion exists only once the kernel was entered. */
            (void)io_uring_get_events(&self->ring);
            result = io_uring_peek_cqe(&self->ring, &cqe);
        }
    } while (result == -EINTR);
    if (result == -EAGAIN) {
        return 0;
    }
    if (result < 0) {
        return result;
    }
    *out_result = cqe->res;
    io_uring_cqe_seen(&self->ring, cqe);
    self->pending = false;
    /* Entering the kernel posted the completion and signalled once more; nothing else is in flight, and a
     * descriptor left readable would spin the caller's loop. */
    (void)eventfd_read(self->event_fd, &ignored);
    return 1;
}

static int ring_event_fd(struct vex_io *io)
{
    return ((struct io_ring *)io)->event_fd;
}

/*
 * The kernel finishes a dead process's write after its descriptors are closed and its file locks free. A
 * successor that started in between would append where that write still lands. Holding the lock file in the
 * ring keeps the lock until the ring's last request is over.
 */
static int ring_hold_lock(struct vex_io *io, int lock_fd)
{
    struct io_ring *self = (struct io_ring *)io;
    return register_ring(&self->ring, IORING_REGISTER_FILES, &lock_fd, 1);
}

/* ---- many reads ------------------------------------------------------------------------------ */

struct reader {
    struct io_uring ring;
    struct vex_read *items;
    size_t count;
    size_t next; /* first one not yet started */
    unsigned in_flight;
};

/* Starts the rest of an item: all of it, or what a short read left. */
static void start_read(struct reader *reader, size_t index)
{
    const struct vex_read *item = &reader->items[index];
    struct io_uring_sqe *sqe = io_uring_get_sqe(&reader->ring);
    VEX_ASSERT(sqe); /* never more in flight than the ring has entries */
    size_t done = (size_t)item->result;
    io_uring_prep_read(sqe, item->file->fd, (uint8_t *)item->into + done,
                       (unsigned)(item->bytes - done), item->offset + done);
    io_uring_sqe_set_data64(sqe, index);
    reader->in_flight++;
}

/* True if the item is over; its result says how. */
static bool take_read(struct vex_read *item, int result)
{
    if (result == -EINTR || result == -EAGAIN) {
        (void)usleep(SUBMIT_PAUSE_US); /* rare, and nobody waits for one read */
        return false;
    }
    if (result < 0) {
        item->result = result;
        return true;
    }
    item->result += result;
    return result == 0 || (size_t)item->result == item->bytes;
}

/* What the kernel has begun still writes to the caller's memory: there is no leaving before it is over, and
 * nothing to be done if the kernel does not tell. */
static void drain(struct reader *reader)
{
    while (reader->in_flight) {
        struct io_uring_cqe *cqe = NULL;
        int waited = io_uring_wait_cqe(&reader->ring, &cqe);
        if (waited != -EINTR && waited != -EAGAIN) {
            VEX_ASSERT(waited == 0);
            io_uring_cqe_seen(&reader->ring, cqe);
            reader->in_flight--;
        }
    }
}

static int run_reads(struct reader *reader, int (*done)(void *context, size_t index), void *context)
{
    int verdict = 0;
    while (reader->in_flight || (verdict == 0 && reader->next < reader->count)) {
        while (verdict == 0 && reader->next < reader->count &&
               reader->in_flight < READS_IN_FLIGHT) {
            reader->items[reader->next].result = 0;
            start_read(reader, reader->next++);
        }
        int submitted = submit_all(&reader->ring);
        if (submitted < 0) {
            reader->in_flight -= io_uring_sq_ready(&reader->ring);
            drain(reader);
            return submitted;
        }
        struct io_uring_cqe *cqe = NULL;
        int waited = io_uring_wait_cqe(&reader->ring, &cqe);
        if (waited == -EINTR || waited == -EAGAIN) {
            continue;
        }
        VEX_ASSERT(waited == 0); /* as in drain */
        size_t index = (size_t)io_uring_cqe_get_data64(cqe);
        int result = cqe->res;
        io_uring_cqe_seen(&reader->ring, cqe);
        reader->in_flight--;
        if (!take_read(&reader->items[index], result)) {
            start_read(reader, index);
        } else if (verdict == 0) {
            verdict = done(context, index);
        }
    }
    return verdict;
}

/* A ring of its own, for the calling thread: nothing may queue in front of a commit. */
static int ring_read_many(struct vex_io *io, struct vex_read *items, size_t count,
                          int (*done)(void *context, size_t index), void *context)
{
    struct reader reader = {.items = items, .count = count};
    if (io_uring_queue_init(READS_IN_FLIGHT, &reader.ring, 0) < 0) {
        /* Out of descriptors or locked memory: slower, not impossible. */
        return vex_io_posix_ops.read_many(io, items, count, done, context);
    }
    int result = run_reads(&reader, done, context);
    io_uring_queue_exit(&reader.ring);
    return result;
}

static int set_up_ring(struct io_uring *ring)
{
    unsigned best = IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER |
                    IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
    int result = io_uring_queue_init(RING_ENTRIES, ring, best);
    if (result == -EINVAL) {
        result = io_uring_queue_init(RING_ENTRIES, ring, IORING_SETUP_R_DISABLED);
    }
    return result;
}

static int restrict_and_enable(const struct io_uring *ring)
{
    const struct io_uring_restriction allowed[4] = {
        {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITE},
        {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITE_FIXED},
        {.opcode = IORING_RESTRICTION_REGISTER_OP, .register_op = IORING_REGISTER_FILES},
        {.opcode = IORING_RESTRICTION_REGISTER_OP, .register_op = IORING_UNREGISTER_FILES},
    };
    int result = register_ring(ring, IORING_REGISTER_RESTRICTIONS, allowed, 4);
    return result < 0 ? result : register_ring(ring, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
}

static struct vex_io_ops ring_ops;

int vex_io_uring_open(int directory_fd, const struct vex_io_buffer *buffers, unsigned buffers_count,
                      struct vex_io **out_io)
{
    VEX_ASSERT(buffers_count <= BUFFERS_MAX);
    struct io_ring *self = calloc(1, sizeof(*self));
    if (!self) {
        return -ENOMEM;
    }
    self->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int result = self->event_fd < 0 ? -errno : set_up_ring(&self->ring);
    if (result < 0) {
        goto out_event;
    }
    struct iovec pieces[BUFFERS_MAX];
    for (unsigned i = 0; i < buffers_count; i++) {
        self->buffers[i] = buffers[i];
        pieces[i] = (struct iovec){buffers[i].memory, buffers[i].bytes};
    }
    /* Refused under a small RLIMIT_MEMLOCK; plain writes then do. */
    if (buffers_count && io_uring_register_buffers(&self->ring, pieces, buffers_count) == 0) {
        self->buffers_count = buffers_count;
    }
    result = io_uring_register_eventfd(&self->ring, self->event_fd);
    if (result == 0) {
        result = restrict_and_enable(&self->ring);
    }
    if (result < 0) {
        goto out_ring;
    }
    ring_ops = vex_io_posix_ops;
    ring_ops.name = "uring";
    ring_ops.close = ring_close;
    ring_ops.submit = ring_submit;
    ring_ops.reap = ring_reap;
    ring_ops.event_fd = ring_event_fd;
    ring_ops.hold_lock = ring_hold_lock;
    ring_ops.read_many = ring_read_many;
    self->io = (struct vex_io){&ring_ops, directory_fd};
    *out_io = &self->io;
    return 0;

out_ring:
    io_uring_queue_exit(&self->ring);
out_event:
    if (self->event_fd >= 0) {
        (void)close(self->event_fd);
    }
    free(self);
    return result;
}
