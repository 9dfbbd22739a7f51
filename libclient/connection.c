#include "libclient/connection.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/linger.h"
#include "base/panic.h"
#include "shm/wire.h"

#define SOCKET_NAME "vexd.sock"

/* A call that waits; lives on its thread's stack. */
struct pending {
    uint64_t request;
    bool done;
    enum vex_status status; /* of the reply; or of the connection's end */
    struct vex_reply reply;
    struct pending *next;
};

struct vex_connection {
    int fd;
    pthread_mutex_t send_lock; /* one frame at a time; taken before `lock` */
    pthread_mutex_t lock;      /* guards what follows */
    pthread_cond_t changed;
    bool reading;             /* a thread reads for all */
    struct vex_linger linger; /* the reading thread's, also while it has given the lock up */
    struct pending *pendings;
    uint64_t next_request;
    _Atomic bool broken;
};

/* ---- life ------------------------------------------------------------------------------------ */

/* sun_path holds 108 bytes; a longer directory is reached through its descriptor. 0 or an errno. */
static int connect_in(const char *directory, int fd)
{
    int directory_fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (directory_fd < 0) {
        return errno;
    }
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/" SOCKET_NAME,
                   directory_fd);
    int result;
    do {
        result = connect(fd, (const struct sockaddr *)&address, sizeof(address));
    } while (result != 0 && errno == EINTR);
    int failure = result != 0 ? errno : 0;
    (void)close(directory_fd);
    return failure;
}

/* Bounds connect(), which waits while the daemon's queue is full. */
static void set_send_timeout(int fd, uint32_t timeout_ms)
{
    struct timeval timeout = {timeout_ms / 1000, (timeout_ms % 1000) * 1000};
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
}

static enum vex_status connect_status(int os_errno)
{
    switch (os_errno) {
    case EACCES:
    case EPERM:
        return VEX_ERR_PERMISSION;
    case EAGAIN:
        return VEX_ERR_TIMEOUT; /* the daemon does not accept */
    default:
        return VEX_ERR_UNAVAILABLE;
    }
}

enum vex_status vex_connection_open(const char *directory, uint32_t timeout_ms,
                                    struct vex_connection **out_connection, struct vex_error *error)
{
    *out_connection = NULL;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return vex_error_os(error, VEX_ERR_UNAVAILABLE, errno, "socket");
    }
    set_send_timeout(fd, timeout_ms);
    int failure = connect_in(directory, fd);
    set_send_timeout(fd, 0);
    struct vex_connection *connection = failure ? NULL : calloc(1, sizeof(*connection));
    if (!connection) {
        (void)close(fd);
        if (!failure) {
            return vex_error_set(error, VEX_ERR_NOMEM, "connect: out of memory");
        }
        return vex_error_os(error, connect_status(failure), failure, "connect to vexd in %s",
                            directory);
    }
    connection->fd = fd;
    connection->next_request = 1;
    vex_linger_init(&connection->linger, vex_linger_cores());
    (void)pthread_mutex_init(&connection->send_lock, NULL);
    (void)pthread_mutex_init(&connection->lock, NULL);
    pthread_condattr_t attributes;
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&connection->changed, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    *out_connection = connection;
    return VEX_OK;
}

void vex_connection_close(struct vex_connection *connection)
{
    if (!connection) {
        return;
    }
    (void)shutdown(connection->fd, SHUT_RDWR);
    (void)close(connection->fd);
    (void)pthread_cond_destroy(&connection->changed);
    (void)pthread_mutex_destroy(&connection->lock);
    (void)pthread_mutex_destroy(&connection->send_lock);
    free(connection);
}

void vex_connection_abandon(struct vex_connection *connection)
{
    if (connection && connection->fd >= 0) {
        (void)close(connection->fd);
        connection->fd = -1;
    }
}

bool vex_connection_is_broken(const struct vex_connection *connection)
{
    /* relaxed: a hint; whoever acts on it makes sure under a lock. */
    return atomic_load_explicit(&connection->broken, memory_order_relaxed);
}

bool vex_connection_has_ended(const struct vex_connection *connection)
{
    char byte;
    ssize_t got = recv(connection->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return got == 0 || (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

/* ---- bytes ----------------------------------------------------------------------------------- */

static bool send_all(int fd, const void *data, size_t bytes)
{
    const uint8_t *at = data;
    while (bytes) {
        ssize_t put = send(fd, at, bytes, MSG_NOSIGNAL);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put < 0) {
            return false;
        }
        at += put;
        bytes -= (size_t)put;
    }
    return true;
}

/* In one piece as far as the socket takes it: two would wake the daemon twice. */
static bool send_frame(int fd, const struct vex_frame_head *head, const void *body, size_t bytes)
{
    struct iovec pieces[2] = {
        {(void *)(uintptr_t)head, sizeof(*head)},
        {(void *)(uintptr_t)body, bytes},
    };
    const struct msghdr message = {.msg_iov = pieces, .msg_iovlen = 2};
    ssize_t put;
    do {
        put = sendmsg(fd, &message, MSG_NOSIGNAL);
    } while (put < 0 && errno == EINTR);
    if (put < 0) {
        return false;
    }
    size_t done = (size_t)put;
    size_t of_head = done < sizeof(*head) ? done : sizeof(*head);
    return send_all(fd, (const uint8_t *)head + of_head, sizeof(*head) - of_head) &&
           send_all(fd, (const uint8_t *)body + (done - of_head), bytes - (done - of_head));
}

/* Keeps the first descriptor that came along, closes any other. */
static void take_descriptors(struct msghdr *message, int *fd)
{
    for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header;
         header = CMSG_NXTHDR(message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int got;
            memcpy(&got, CMSG_DATA(header) + i * sizeof(int), sizeof(got));
            if (*fd < 0) {
                *fd = got;
            } else {
                (void)close(got);
            }
        }
    }
}

static bool receive_all(int socket, void *into, size_t bytes, int *fd)
{
    uint8_t *at = into;
    while (bytes) {
        struct iovec piece = {at, bytes};
        union {
            char bytes[CMSG_SPACE(4 * sizeof(int))];
            struct cmsghdr align;
        } control;
        struct msghdr message = {
            .msg_iov = &piece,
            .msg_iovlen = 1,
            .msg_control = control.bytes,
            .msg_controllen = sizeof(control.bytes),
        };
        ssize_t got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got > 0) {
            take_descriptors(&message, fd);
        }
        if (got <= 0 || (message.msg_flags & MSG_CTRUNC)) {
            return false;
        }
        at += got;
        bytes -= (size_t)got;
    }
    return true;
}

static bool receive_frame(int socket, struct vex_frame_head *head, struct vex_reply *reply)
{
    uint8_t bytes[VEX_WIRE_HEAD_BYTES];
    if (!receive_all(socket, bytes, sizeof(bytes), &reply->fd) ||
        vex_frame_decode(head, bytes, NULL) != VEX_OK ||
        !vex_buffer_reserve(&reply->body, (size_t)head->body_bytes + 1) ||
        !receive_all(socket, reply->body.data, head->body_bytes, &reply->fd)) {
        return false;
    }
    reply->body.bytes = head->body_bytes;
    return true;
}

static void drop_reply(struct vex_reply *reply)
{
    vex_buffer_deinit(&reply->body);
    if (reply->fd >= 0) {
        (void)close(reply->fd);
        reply->fd = -1;
    }
}

/* ---- calls ----------------------------------------------------------------------------------- */

/* With `lock` held: every waiting call ends. */
static void break_connection(struct vex_connection *connection)
{
    /* relaxed: a hint, see vex_connection_is_broken. */
    atomic_store_explicit(&connection->broken, true, memory_order_relaxed);
    (void)shutdown(connection->fd, SHUT_RDWR);
    for (struct pending *pending = connection->pendings; pending; pending = pending->next) {
        if (!pending->done) {
            pending->done = true;
            pending->status = VEX_ERR_UNKNOWN_OUTCOME;
        }
    }
}

/* Returns when there is something to read, or when it is time to sleep for it. */
static void linger_for_input(int fd, struct vex_linger *linger)
{
    struct pollfd input = {.fd = fd, .events = POLLIN};
    while (vex_linger_more(linger) && poll(&input, 1, 0) == 0) {
    }
}

/* False if nothing came before the deadline. */
static bool await_input(int fd, uint64_t deadline_ns)
{
    while (deadline_ns) {
        uint64_t now_ns = vex_clock_ns();
        if (now_ns >= deadline_ns) {
            return false;
        }
        struct pollfd input = {.fd = fd, .events = POLLIN};
        if (poll(&input, 1, (int)((deadline_ns - now_ns) / 1000000u) + 1) > 0) {
            break;
        }
    }
    return true;
}

/* With `lock` held; gives it up while reading. */
static void read_one_reply(struct vex_connection *connection, uint64_t deadline_ns)
{
    connection->reading = true;
    (void)pthread_mutex_unlock(&connection->lock);
    struct vex_frame_head head;
    struct vex_reply reply = {.fd = -1};
    vex_linger_begin(&connection->linger);
    linger_for_input(connection->fd, &connection->linger);
    if (!await_input(connection->fd, deadline_ns)) {
        (void)pthread_mutex_lock(&connection->lock);
        connection->reading = false;
        return;
    }
    bool received = receive_frame(connection->fd, &head, &reply);
    vex_linger_end(&connection->linger);
    (void)pthread_mutex_lock(&connection->lock);
    connection->reading = false;
    if (!received) {
        drop_reply(&reply);
        break_connection(connection);
        return;
    }
    struct pending *pending = connection->pendings;
    while (pending && (pending->request != head.request || pending->done)) {
        pending = pending->next;
    }
    if (pending) {
        pending->done = true;
        pending->status = (enum vex_status)head.status;
        pending->reply = reply;
    } else {
        drop_reply(&reply);
        if (head.request == 0 || head.request >= connection->next_request) {
            break_connection(connection); /* nobody ever asked for this */
        }
    }
}

static void enlist(struct vex_connection *connection, struct pending *pending)
{
    pending->next = connection->pendings;
    connection->pendings = pending;
}

static void delist(struct vex_connection *connection, struct pending *pending)
{
    struct pending **link = &connection->pendings;
    while (*link != pending) {
        link = &(*link)->next;
    }
    *link = pending->next;
}

static bool send_request(struct vex_connection *connection, struct pending *pending, uint16_t op,
                         const void *body, size_t bytes)
{
    VEX_ASSERT(bytes % 8 == 0);
    struct vex_frame_head head = {
        .magic = VEX_WIRE_MAGIC,
        .version = VEX_WIRE_VERSION,
        .op = op,
        .body_bytes = (uint32_t)bytes,
    };
    (void)pthread_mutex_lock(&connection->send_lock);
    (void)pthread_mutex_lock(&connection->lock);
    bool usable = !vex_connection_is_broken(connection);
    if (usable) {
        pending->request = head.request = connection->next_request++;
        enlist(connection, pending);
    }
    (void)pthread_mutex_unlock(&connection->lock);
    if (usable && !send_frame(connection->fd, &head, body, bytes)) {
        /* A refusal may lie in the socket already: the reader decides how this ends. */
        (void)shutdown(connection->fd, SHUT_WR);
    }
    (void)pthread_mutex_unlock(&connection->send_lock);
    return usable;
}

static enum vex_status refusal(struct pending *pending, bool changes, struct vex_error *error)
{
    bool lost = pending->reply.body.data == NULL;
    if (lost) {
        enum vex_status status = changes ? VEX_ERR_UNKNOWN_OUTCOME : VEX_ERR_UNAVAILABLE;
        return vex_error_set(error, status, "the connection to vexd broke%s",
                             changes ? "; the write may or may not have happened" : "");
    }
    uint8_t *text = pending->reply.body.data;
    text[pending->reply.body.bytes] = 0; /* receive_frame left room */
    enum vex_status status = pending->status;
    (void)vex_error_set(error, status, "%s", (const char *)text);
    drop_reply(&pending->reply);
    return status;
}

/* With `lock` held. */
static void await_other_reader(struct vex_connection *connection, uint64_t deadline_ns)
{
    if (deadline_ns == 0) {
        (void)pthread_cond_wait(&connection->changed, &connection->lock);
        return;
    }
    struct timespec until = {(time_t)(deadline_ns / 1000000000u),
                             (long)(deadline_ns % 1000000000u)};
    (void)pthread_cond_timedwait(&connection->changed, &connection->lock, &until);
}

enum vex_status vex_connection_call(struct vex_connection *connection, uint16_t op,
                                    const void *body, size_t bytes, bool changes,
                                    uint64_t deadline_ns, struct vex_reply *out_reply,
                                    struct vex_error *error)
{
    struct pending pending = {.reply = {.fd = -1}};
    if (!send_request(connection, &pending, op, body, bytes)) {
        return vex_error_set(error, VEX_ERR_UNAVAILABLE, "the connection to vexd is broken");
    }
    (void)pthread_mutex_lock(&connection->lock);
    while (!pending.done && (deadline_ns == 0 || vex_clock_ns() < deadline_ns)) {
        if (connection->reading) {
            await_other_reader(connection, deadline_ns);
        } else {
            read_one_reply(connection, deadline_ns);
            (void)pthread_cond_broadcast(&connection->changed);
        }
    }
    /* A reply that comes after this finds nobody, and is dropped. */
    delist(connection, &pending);
    (void)pthread_mutex_unlock(&connection->lock);
    if (!pending.done) {
        return vex_error_set(error, VEX_ERR_TIMEOUT, "vexd does not answer");
    }
    if (pending.status != VEX_OK) {
        return refusal(&pending, changes, error);
    }
    *out_reply = pending.reply;
    return VEX_OK;
}

bool vex_connection_await_end(struct vex_connection *connection, uint64_t deadline_ns)
{
    for (;;) {
        uint64_t now_ns = vex_clock_ns();
        if (now_ns >= deadline_ns) {
            return false;
        }
        struct pollfd end = {.fd = connection->fd, .events = POLLIN | POLLRDHUP};
        int polled = poll(&end, 1, (int)((deadline_ns - now_ns) / 1000000u) + 1);
        if (polled > 0) {
            return true;
        }
    }
}
