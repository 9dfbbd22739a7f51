#include "daemon/server.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/linger.h"
#include "base/panic.h"
#include "daemon/session.h"
#include "daemon/trace.h"
#include "shm/control.h"
#include "shm/pin.h"

#define CLIENTS_MAX 1024u
#define EVENTS_MAX 64
#define DUES_MAX 4096u /* answers one client may wait for; then its frames wait for the batch */
#define DESCRIPTORS_SPARED 64u /* for files, rings and what a client hands over */
#define HELLO_TIMEOUT_MS 5000u
#define SETTLE_MS 100u /* after the last acknowledgement: then a watermark proves it */
#define RECLAIM_MS 20u /* while something retired waits for readers */
#define HOUSEKEEPING_MS 500u
#define INPUT_KEPT_BYTES (1u << 20) /* a larger buffer is freed once its batch is through */
#define DRAIN_MS 2000u              /* at shutdown, for clients to take their last replies */

/*
 * An answer that waits for a batch: an acknowledgement, or a refusal that rests on a record which is
 * staged but not yet published. Told at once, "it exists" would come before anybody can see it.
 */
struct due {
    struct vex_session *session;
    uint64_t request;
    uint16_t op;
    struct vex_ack_body ack;
    struct vex_error *refusal; /* owned; NULL = an acknowledgement */
};

/* A request for upkeep whose work goes on in the background. */
struct errand {
    struct vex_session *session;
    uint64_t request;
    uint64_t ticket;
};

struct vex_server {
    struct vex_coordinator *coordinator;
    struct vex_server_options options;
    int listener;
    int signals;
    int epoll;
    bool accepting;
    uint32_t clients_max;
    bool stopping;
    struct vex_session *sessions;
    uint32_t sessions_count;
    struct vex_buffer dues;    /* struct due each, by LSN */
    struct vex_buffer errands; /* struct errand each */
    uint64_t started_ms;
    uint64_t idle_since_ms;
    uint64_t quiet_since_ms;  /* nothing to commit since */
    bool progress;            /* a batch became durable in this turn */
    uint64_t flight_start_ns; /* 0 = no batch is in flight */
    struct vex_linger flight; /* while one is: learns from how long they take */
    struct vex_linger quiet;  /* while none is: learns from how soon requests come */
};

/* ---- sessions -------------------------------------------------------------------------------- */

static void watch(struct vex_server *server, struct vex_session *session)
{
    struct epoll_event event = {.data.ptr = session};
    event.events =
        (session->stalled || session->closing ? 0 : EPOLLIN) | (session->writable ? EPOLLOUT : 0);
    (void)epoll_ctl(server->epoll, EPOLL_CTL_MOD, session->fd, &event);
}

static void watch_listener(struct vex_server *server, bool on)
{
    struct epoll_event event = {.events = on ? EPOLLIN : 0, .data.ptr = &server->listener};
    (void)epoll_ctl(server->epoll, EPOLL_CTL_MOD, server->listener, &event);
    server->accepting = on;
}

static void forget(struct vex_server *server, struct vex_session *session)
{
    if (session->previous) {
        session->previous->next = session->next;
    } else {
        server->sessions = session->next;
    }
    if (session->next) {
        session->next->previous = session->previous;
    }
    vex_session_free(session);
}

static void drop_session(struct vex_server *server, struct vex_session *session)
{
    if (session->fd < 0) {
        return;
    }
    (void)epoll_ctl(server->epoll, EPOLL_CTL_DEL, session->fd, NULL);
    for (uint32_t i = 0; i < session->pages_count; i++) {
        /* First, so that a pin that begins meanwhile learns that it does not count. */
        vex_slot_page_revoke(session->pages[i]);
        if (vex_slot_page_oldest(session->pages[i], UINT64_MAX) != UINT64_MAX) {
            vex_coordinator_spare_readers(server->coordinator);
        }
    }
    vex_session_disconnect(session, true);
    server->sessions_count--;
    server->idle_since_ms = vex_clock_ms();
    if (!server->accepting && !server->stopping) {
        watch_listener(server, true);
    }
}

static void accept_client(struct vex_server *server)
{
    int fd = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE) {
            /* Until a client leaves: a listener that stays readable would spin the loop. */
            watch_listener(server, false);
        }
        return;
    }
    struct vex_session *session = vex_session_new(fd);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = session};
    if (!session || epoll_ctl(server->epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
        (void)close(fd);
        free(session);
        return;
    }
    session->next = server->sessions;
    if (server->sessions) {
        server->sessions->previous = session;
    }
    server->sessions = session;
    if (++server->sessions_count >= server->clients_max) {
        watch_listener(server, false);
    }
}

static void flush(struct vex_server *server, struct vex_session *session)
{
    if (session->fd < 0) {
        return;
    }
    bool was_writable = session->writable;
    switch (vex_session_send(session)) {
    case VEX_SESSION_OK:
        if (session->closing) {
            drop_session(server, session);
            return;
        }
        session->writable = false;
        break;
    case VEX_SESSION_AGAIN:
        session->writable = true;
        break;
    case VEX_SESSION_END:
        drop_session(server, session);
        return;
    }
    if (session->writable != was_writable) {
        watch(server, session);
    }
}

/* ---- requests -------------------------------------------------------------------------------- */

static void refuse(struct vex_server *server, struct vex_session *session,
                   const struct vex_frame_head *head, const struct vex_error *error)
{
    if (!vex_session_reply_error(session, head->op, head->request, error)) {
        drop_session(server, session);
    }
}

/* After an error that leaves the stream without a known frame boundary. */
static void refuse_and_close(struct vex_server *server, struct vex_session *session,
                             const struct vex_frame_head *head, const struct vex_error *error)
{
    session->closing = true;
    refuse(server, session, head, error);
}

static void hello(struct vex_server *server, struct vex_session *session,
                  const struct vex_frame_head *head, const uint8_t *body)
{
    struct vex_error error;
    struct vex_hello hello;
    if (head->body_bytes != sizeof(hello) || session->welcomed) {
        (void)vex_error_set(&error, VEX_ERR_PROTOCOL, "hello: once, and of %zu bytes",
                            sizeof(hello));
        refuse_and_close(server, session, head, &error);
        return;
    }
    memcpy(&hello, body, sizeof(hello));
    if (hello.layout_hash != vex_layout_hash()) {
        (void)vex_error_set(&error, VEX_ERR_VERSION,
                            "vexd %s and this libvex differ in their memory layout; use the libvex "
                            "that came with the daemon",
                            VEX_VERSION);
        refuse_and_close(server, session, head, &error);
        return;
    }
    session->pid = hello.pid;
    struct vex_welcome welcome = {
        .daemon_pid = (uint32_t)getpid(),
        .embedded = server->options.embedded,
    };
    memcpy(welcome.uuid, vex_coordinator_uuid(server->coordinator), sizeof(welcome.uuid));
    memcpy(welcome.key, vex_coordinator_key(server->coordinator), sizeof(welcome.key));
    if (vex_session_reply_page(session, head->op, head->request, &welcome, sizeof(welcome),
                               &error) != VEX_OK) {
        refuse_and_close(server, session, head, &error);
        return;
    }
    session->welcomed = true;
}

static void slot_page(struct vex_server *server, struct vex_session *session,
                      const struct vex_frame_head *head)
{
    struct vex_error error;
    if (vex_session_reply_page(session, head->op, head->request, NULL, 0, &error) != VEX_OK) {
        refuse(server, session, head, &error);
    }
}

static void stats(struct vex_server *server, struct vex_session *session,
                  const struct vex_frame_head *head)
{
    struct vex_stats_body body = {
        .daemon_pid = (uint32_t)getpid(),
        .clients = server->sessions_count,
        .embedded = server->options.embedded,
        .uptime_ms = vex_clock_ms() - server->started_ms,
    };
    vex_coordinator_stats(server->coordinator, &body);
    if (!vex_session_reply(session, head->op, head->request, VEX_OK, &body, sizeof(body))) {
        drop_session(server, session);
    }
}

static void index_status(struct vex_server *server, struct vex_session *session,
                         const struct vex_frame_head *head, const uint8_t *body)
{
    struct vex_error error = {0};
    struct vex_drop_body which;
    struct vex_index_body answer;
    enum vex_status status = VEX_OK;
    if (head->body_bytes != sizeof(which)) {
        status =
            vex_error_set(&error, VEX_ERR_PROTOCOL, "index: a body of %zu bytes", sizeof(which));
    } else {
        memcpy(&which, body, sizeof(which));
        status = vex_coordinator_index_status(server->coordinator, &which, &answer, &error);
    }
    if (status != VEX_OK) {
        refuse(server, session, head, &error);
    } else if (!vex_session_reply(session, head->op, head->request, VEX_OK, &answer,
                                  sizeof(answer))) {
        drop_session(server, session);
    }
}

static enum vex_status offer_mutation(struct vex_server *server, const struct vex_frame_head *head,
                                      const uint8_t *body, struct vex_ack_body *out_ack,
                                      struct vex_error *error)
{
    struct vex_create_body create;
    struct vex_drop_body drop;
    struct vex_alter_body alter;
    switch (head->op) {
    case VEX_OP_CREATE:
        if (head->body_bytes != sizeof(create)) {
            return vex_error_set(error, VEX_ERR_PROTOCOL, "create: a body of %zu bytes",
                                 sizeof(create));
        }
        memcpy(&create, body, sizeof(create));
        return vex_coordinator_create(server->coordinator, &create, out_ack, error);
    case VEX_OP_DROP:
        if (head->body_bytes != sizeof(drop)) {
            return vex_error_set(error, VEX_ERR_PROTOCOL, "drop: a body of %zu bytes",
                                 sizeof(drop));
        }
        memcpy(&drop, body, sizeof(drop));
        return vex_coordinator_drop(server->coordinator, &drop, out_ack, error);
    case VEX_OP_ALTER:
        if (head->body_bytes != sizeof(alter)) {
            return vex_error_set(error, VEX_ERR_PROTOCOL, "alter: a body of %zu bytes",
                                 sizeof(alter));
        }
        memcpy(&alter, body, sizeof(alter));
        return vex_coordinator_alter(server->coordinator, &alter, out_ack, error);
    default:
        return vex_coordinator_write(server->coordinator, body, head->body_bytes, out_ack, error);
    }
}

/* Whether a refusal may be due to a record that nobody can see yet. */
static bool rests_on_staged(const struct vex_server *server, enum vex_status status)
{
    bool about_state = status == VEX_ERR_EXISTS || status == VEX_ERR_NOT_FOUND ||
                       status == VEX_ERR_GONE || status == VEX_ERR_NO_COLLECTION;
    return about_state && !vex_coordinator_failure(server->coordinator) &&
           vex_coordinator_staged_lsn(server->coordinator) >
               vex_coordinator_durable_lsn(server->coordinator);
}

/* False if the frame must wait for the next commit. */
static bool mutate(struct vex_server *server, struct vex_session *session,
                   const struct vex_frame_head *head, const uint8_t *body)
{
    if (session->due >= DUES_MAX) {
        return false;
    }
    struct vex_error error = {0};
    struct due due = {.session = session, .request = head->request, .op = head->op};
    if (!vex_buffer_reserve(&server->dues, sizeof(due))) {
        (void)vex_error_set(&error, VEX_ERR_NOMEM, "out of memory");
        refuse(server, session, head, &error);
        return true;
    }
    enum vex_status status = offer_mutation(server, head, body, &due.ack, &error);
    if (status == VEX_ERR_BUSY) {
        return false;
    }
    if (status != VEX_OK && !rests_on_staged(server, status)) {
        refuse(server, session, head, &error);
        return true;
    }
    if (status != VEX_OK) {
        due.ack.lsn = vex_coordinator_staged_lsn(server->coordinator);
        due.refusal = malloc(sizeof(error));
        if (!due.refusal) {
            refuse(server, session, head, &error);
            return true;
        }
        *due.refusal = error;
    }
    session->due++;
    (void)vex_buffer_append(&server->dues, &due, sizeof(due));
    return true;
}

static void upkeep(struct vex_server *server, struct vex_session *session,
                   const struct vex_frame_head *head, const uint8_t *body)
{
    struct vex_error error = {0};
    struct vex_upkeep_body ask;
    struct errand errand = {.session = session, .request = head->request};
    enum vex_status status = VEX_OK;
    if (head->body_bytes != sizeof(ask)) {
        status =
            vex_error_set(&error, VEX_ERR_PROTOCOL, "upkeep: a body of %zu bytes", sizeof(ask));
    } else if (!vex_buffer_reserve(&server->errands, sizeof(errand))) {
        status = vex_error_set(&error, VEX_ERR_NOMEM, "out of memory");
    } else {
        memcpy(&ask, body, sizeof(ask));
        status = vex_coordinator_request(server->coordinator, &ask, &errand.ticket, &error);
    }
    if (status != VEX_OK) {
        refuse(server, session, head, &error);
        return;
    }
    session->due++;
    (void)vex_buffer_append(&server->errands, &errand, sizeof(errand));
}

/* False if the frame must wait for the next commit. */
static bool handle_frame(struct vex_server *server, struct vex_session *session,
                         const struct vex_frame_head *head, const uint8_t *body)
{
    struct vex_error error;
    if (!session->welcomed && head->op != VEX_OP_HELLO) {
        (void)vex_error_set(&error, VEX_ERR_PROTOCOL, "the first frame must be a hello");
        refuse_and_close(server, session, head, &error);
        return true;
    }
    switch (head->op) {
    case VEX_OP_HELLO:
        hello(server, session, head, body);
        return true;
    case VEX_OP_SLOT_PAGE:
        slot_page(server, session, head);
        return true;
    case VEX_OP_STATS:
        stats(server, session, head);
        return true;
    case VEX_OP_INDEX:
        index_status(server, session, head, body);
        return true;
    case VEX_OP_UPKEEP:
        upkeep(server, session, head, body);
        return true;
    case VEX_OP_SHUTDOWN:
        vex_trace("shutdown asked for by process %u", session->pid);
        server->stopping = true;
        if (!vex_session_reply(session, head->op, head->request, VEX_OK, NULL, 0)) {
            drop_session(server, session);
        }
        return true;
    case VEX_OP_CREATE:
    case VEX_OP_DROP:
    case VEX_OP_ALTER:
    case VEX_OP_WRITE:
        return mutate(server, session, head, body);
    default:
        (void)vex_error_set(&error, VEX_ERR_PROTOCOL, "unknown operation %u", head->op);
        refuse(server, session, head, &error);
        return true;
    }
}

/* Handles every whole frame in the input, as far as the log has room. */
static void handle_input(struct vex_server *server, struct vex_session *session)
{
    size_t used = 0;
    session->stalled = false;
    while (session->fd >= 0 && !session->closing && !server->stopping) {
        const uint8_t *at = session->input.data + used;
        size_t left = session->input.bytes - used;
        struct vex_frame_head head = {0};
        struct vex_error error;
        if (left < VEX_WIRE_HEAD_BYTES) {
            break;
        }
        if (vex_frame_decode(&head, at, &error) != VEX_OK) {
            refuse_and_close(server, session, &head, &error);
            break;
        }
        if (left - VEX_WIRE_HEAD_BYTES < head.body_bytes) {
            break;
        }
        if (!handle_frame(server, session, &head, at + VEX_WIRE_HEAD_BYTES)) {
            session->stalled = true;
            break;
        }
        used += VEX_WIRE_HEAD_BYTES + head.body_bytes;
    }
    if (session->fd < 0) {
        return;
    }
    /* Frames are multiples of 8 bytes, so what is left stays aligned. */
    vex_buffer_consume(&session->input, used);
    if (session->input.bytes == 0 && session->input.capacity > INPUT_KEPT_BYTES) {
        vex_buffer_deinit(&session->input);
    }
    if (session->output.bytes) {
        flush(server, session);
    }
    if (session->fd >= 0 && (session->stalled || session->closing)) {
        watch(server, session);
    }
}

static void retry_stalled(struct vex_server *server)
{
    struct vex_session *next;
    for (struct vex_session *session = server->sessions; session; session = next) {
        next = session->next;
        if (session->fd >= 0 && session->stalled) {
            handle_input(server, session);
            if (session->fd >= 0 && !session->stalled) {
                watch(server, session);
            }
        }
    }
}

static void client_event(struct vex_server *server, struct vex_session *session, uint32_t events)
{
    if (session->fd < 0) {
        return;
    }
    if (events & EPOLLOUT) {
        flush(server, session);
    }
    if (session->fd >= 0 && !session->stalled && (events & (EPOLLIN | EPOLLHUP | EPOLLERR))) {
        if (vex_session_receive(session) == VEX_SESSION_END) {
            drop_session(server, session);
        } else {
            handle_input(server, session);
        }
    } else if (session->fd >= 0 && (events & (EPOLLHUP | EPOLLERR))) {
        /* Level-triggered: a stalled or closing client that has gone would wake us for ever. */
        drop_session(server, session);
    }
}

/* ---- acknowledgements ------------------------------------------------------------------------ */

static bool answer(const struct due *due, uint64_t durable, int failure)
{
    if (due->refusal && due->ack.lsn <= durable) {
        return vex_session_reply_error(due->session, due->op, due->request, due->refusal);
    }
    if (due->ack.lsn <= durable) {
        return vex_session_reply(due->session, due->op, due->request, VEX_OK, &due->ack,
                                 sizeof(due->ack));
    }
    struct vex_error error;
    (void)vex_error_os(&error, VEX_ERR_UNKNOWN_OUTCOME, failure,
                       "the log failed while this write was under way; it may or may not be there "
                       "after a restart");
    return vex_session_reply_error(due->session, due->op, due->request, &error);
}

static void send_acknowledgements(struct vex_server *server)
{
    uint64_t durable = vex_coordinator_durable_lsn(server->coordinator);
    int failure = vex_coordinator_failure(server->coordinator);
    struct due *dues = (struct due *)(void *)server->dues.data;
    size_t count = server->dues.bytes / sizeof(*dues);
    size_t done = 0;
    for (; done < count && (dues[done].ack.lsn <= durable || failure); done++) {
        struct vex_session *session = dues[done].session;
        session->due--;
        if (session->fd >= 0 && !answer(&dues[done], durable, failure)) {
            drop_session(server, session);
        }
        free(dues[done].refusal);
    }
    vex_buffer_consume(&server->dues, done * sizeof(*dues));
}

static void send_answers(struct vex_server *server)
{
    struct vex_upkeep_answer answer;
    while (vex_coordinator_take_answer(server->coordinator, &answer)) {
        struct errand *errands = (struct errand *)(void *)server->errands.data;
        size_t count = server->errands.bytes / sizeof(*errands);
        size_t at = 0;
        while (at < count && errands[at].ticket != answer.ticket) {
            at++;
        }
        VEX_ASSERT(at < count);
        struct errand errand = errands[at];
        errands[at] = errands[count - 1];
        server->errands.bytes -= sizeof(errand);
        errand.session->due--;
        if (errand.session->fd < 0) {
            continue;
        }
        bool sent = answer.status == VEX_OK
                        ? vex_session_reply(errand.session, VEX_OP_UPKEEP, errand.request, VEX_OK,
                                            &answer.done, sizeof(answer.done))
                        : vex_session_reply_error(errand.session, VEX_OP_UPKEEP, errand.request,
                                                  &answer.error);
        if (!sent) {
            drop_session(server, errand.session);
        }
    }
}

static void flush_and_sweep(struct vex_server *server)
{
    struct vex_session *next;
    for (struct vex_session *session = server->sessions; session; session = next) {
        next = session->next;
        if (session->fd >= 0 && session->output.bytes && !session->writable) {
            flush(server, session);
        }
        if (session->fd < 0 && session->due == 0) {
            forget(server, session);
        }
    }
}

/* ---- the loop -------------------------------------------------------------------------------- */

static void reclaim(struct vex_server *server)
{
    if (!vex_coordinator_has_retired(server->coordinator)) {
        return;
    }
    uint64_t current = vex_coordinator_generation(server->coordinator);
    uint64_t oldest = UINT64_MAX;
    for (struct vex_session *session = server->sessions; session; session = session->next) {
        for (uint32_t i = 0; i < session->pages_count; i++) {
            uint64_t pinned = vex_slot_page_oldest(session->pages[i], current);
            oldest = pinned < oldest ? pinned : oldest;
        }
    }
    vex_coordinator_reclaim(server->coordinator, oldest);
}

static void drop_silent_clients(struct vex_server *server, uint64_t now_ms)
{
    for (struct vex_session *session = server->sessions; session; session = session->next) {
        if (session->fd >= 0 && !session->welcomed &&
            now_ms - session->connected_ms > HELLO_TIMEOUT_MS) {
            drop_session(server, session);
        }
    }
}

static void time_flight(struct vex_server *server, bool landed)
{
    uint64_t now_ns = vex_clock_ns();
    if (landed && server->flight_start_ns) {
        vex_linger_learn_wait(&server->flight, now_ns - server->flight_start_ns);
        server->flight_start_ns = 0;
    }
    if (server->flight_start_ns == 0 && !vex_coordinator_idle(server->coordinator)) {
        server->flight_start_ns = now_ns;
    }
}

/* Commits what this turn staged; then there is room for those that had none. */
static void advance(struct vex_server *server)
{
    for (;;) {
        (void)vex_coordinator_commit(server->coordinator);
        if (!vex_coordinator_poll(server->coordinator, false)) {
            break;
        }
        server->progress = true;
    }
    bool landed = server->progress || vex_coordinator_failure(server->coordinator);
    if (landed) {
        server->progress = false;
        server->quiet_since_ms = vex_clock_ms();
        send_acknowledgements(server);
        retry_stalled(server);
        (void)vex_coordinator_commit(server->coordinator);
    }
    time_flight(server, landed);
    vex_coordinator_upkeep(server->coordinator, vex_clock_ms());
    send_answers(server);
    flush_and_sweep(server);
    reclaim(server);
}

static int next_timeout_ms(struct vex_server *server)
{
    uint64_t timeout = HOUSEKEEPING_MS;
    if (vex_coordinator_wants_settling(server->coordinator)) {
        timeout = SETTLE_MS;
    }
    if (vex_coordinator_has_retired(server->coordinator)) {
        timeout = RECLAIM_MS;
    }
    if (server->options.embedded && server->options.idle_timeout_ms &&
        server->options.idle_timeout_ms < timeout) {
        timeout = server->options.idle_timeout_ms;
    }
    return (int)timeout;
}

static void housekeeping(struct vex_server *server)
{
    uint64_t now_ms = vex_clock_ms();
    vex_coordinator_beat(server->coordinator);
    if (!vex_coordinator_idle(server->coordinator)) {
        server->quiet_since_ms = now_ms;
    } else if (now_ms - server->quiet_since_ms >= SETTLE_MS) {
        vex_coordinator_settle(server->coordinator);
    }
    drop_silent_clients(server, now_ms);
    /* Also when descriptors ran out with nobody connected who could leave. */
    if (!server->accepting && server->sessions_count < server->clients_max) {
        watch_listener(server, true);
    }
    if (server->options.embedded && server->options.idle_timeout_ms &&
        server->sessions_count == 0 &&
        ((vex_coordinator_idle(server->coordinator) &&
          !vex_coordinator_upkeep_is_running(server->coordinator)) ||
         vex_coordinator_failure(server->coordinator)) &&
        now_ms - server->idle_since_ms >= server->options.idle_timeout_ms) {
        vex_trace("idle for %u ms, ending", server->options.idle_timeout_ms);
        server->stopping = true;
    }
}

static void handle_event(struct vex_server *server, const struct epoll_event *event)
{
    if (event->data.ptr == &server->listener) {
        accept_client(server);
    } else if (event->data.ptr == &server->signals) {
        struct signalfd_siginfo info;
        (void)!read(server->signals, &info, sizeof(info));
        vex_trace("signal %u, stopping", info.ssi_signo);
        server->stopping = true;
    } else if (event->data.ptr != server) {
        /* &server itself is the log or the worker: advance() looks at them in every turn. */
        client_event(server, event->data.ptr, event->events);
    }
}

/* Everything staged becomes durable and is acknowledged; nothing new is taken. */
static void drain(struct vex_server *server)
{
    (void)unlink(VEX_SOCKET_NAME);
    watch_listener(server, false);
    while (!vex_coordinator_idle(server->coordinator) &&
           !vex_coordinator_failure(server->coordinator)) {
        (void)vex_coordinator_commit(server->coordinator);
        (void)vex_coordinator_poll(server->coordinator, true);
    }
    (void)vex_coordinator_poll(server->coordinator, false);
    send_acknowledgements(server);
    uint64_t deadline_ms = vex_clock_ms() + DRAIN_MS;
    bool unsent = true;
    while (unsent && vex_clock_ms() < deadline_ms) {
        unsent = false;
        for (struct vex_session *session = server->sessions; session; session = session->next) {
            flush(server, session);
            unsent = unsent || (session->fd >= 0 && session->output.bytes);
        }
        if (unsent) {
            (void)usleep(1000);
        }
    }
}

static int await_events(struct vex_server *server, struct epoll_event events[EVENTS_MAX])
{
    bool flying = server->flight_start_ns != 0;
    struct vex_linger *linger = flying ? &server->flight : &server->quiet;
    int count = 0;
    vex_linger_begin(linger);
    /* Beside a disk that takes its time, a wake-up saved is nothing. */
    if (vex_linger_budget_ns(&server->flight)) {
        while (count == 0 && vex_linger_more(linger)) {
            count = epoll_wait(server->epoll, events, EVENTS_MAX, 0);
        }
    }
    if (count == 0) {
        count = epoll_wait(server->epoll, events, EVENTS_MAX, next_timeout_ms(server));
    }
    if (!flying) {
        vex_linger_end(linger);
    }
    return count;
}

void vex_server_run(struct vex_server *server)
{
    while (!server->stopping) {
        struct epoll_event events[EVENTS_MAX];
        int count = await_events(server, events);
        for (int i = 0; i < count && !server->stopping; i++) {
            handle_event(server, &events[i]);
        }
        advance(server);
        housekeeping(server);
    }
    drain(server);
}

/* ---- life ------------------------------------------------------------------------------------ */

static int open_listener(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return -errno;
    }
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = VEX_SOCKET_NAME};
    /* We hold the instance's lock: a socket that is there is a dead daemon's. */
    (void)unlink(VEX_SOCKET_NAME);
    /* The mode is set by the umask before anyone can connect. */
    mode_t old = umask(0117);
    int result = bind(fd, (const struct sockaddr *)&address, sizeof(address));
    int failure = errno;
    (void)umask(old);
    if (result != 0 || listen(fd, 256) != 0) {
        failure = result != 0 ? failure : errno;
        (void)close(fd);
        return -failure;
    }
    return fd;
}

static int open_signals(void)
{
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

static bool add_to_epoll(struct vex_server *server, int fd, void *tag, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = tag};
    return epoll_ctl(server->epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

/* Clients must not use up the descriptors that the log needs to go on. */
static uint32_t clients_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 ||
        limit.rlim_cur >= CLIENTS_MAX + DESCRIPTORS_SPARED) {
        return CLIENTS_MAX;
    }
    return limit.rlim_cur > 2 * DESCRIPTORS_SPARED ? (uint32_t)limit.rlim_cur - DESCRIPTORS_SPARED
                                                   : DESCRIPTORS_SPARED / 4;
}

static bool add_builders(struct vex_server *server)
{
    for (unsigned i = 0; i < VEX_UPKEEP_BUILDERS; i++) {
        int fd = vex_coordinator_builder_fd(server->coordinator, i);
        if (!add_to_epoll(server, fd, server, EPOLLIN | EPOLLET)) {
            return false;
        }
    }
    return true;
}

enum vex_status vex_server_open(struct vex_coordinator *coordinator,
                                const struct vex_server_options *options,
                                struct vex_server **out_server, struct vex_error *error)
{
    *out_server = NULL;
    struct vex_server *server = calloc(1, sizeof(*server));
    if (!server) {
        return vex_error_set(error, VEX_ERR_NOMEM, "server: out of memory");
    }
    server->coordinator = coordinator;
    server->options = *options;
    server->accepting = true;
    server->clients_max = clients_limit();
    vex_linger_init(&server->flight, vex_linger_cores());
    vex_linger_init(&server->quiet, vex_linger_cores());
    server->started_ms = server->idle_since_ms = server->quiet_since_ms = vex_clock_ms();
    server->epoll = epoll_create1(EPOLL_CLOEXEC);
    server->signals = open_signals();
    server->listener = open_listener();
    if (server->epoll < 0 || server->signals < 0 || server->listener < 0 ||
        !add_to_epoll(server, server->listener, &server->listener, EPOLLIN) ||
        !add_to_epoll(server, server->signals, &server->signals, EPOLLIN) ||
        !add_to_epoll(server, vex_coordinator_upkeep_fd(coordinator), server, EPOLLIN | EPOLLET) ||
        !add_builders(server) ||
        !add_to_epoll(server, vex_coordinator_event_fd(coordinator), server,
                      EPOLLIN | EPOLLET)) { /* a late signal must not spin the loop */
        int failure = server->listener < 0 ? -server->listener : errno;
        vex_server_close(server);
        return vex_error_os(error, vex_status_from_errno(failure), failure,
                            "listen on " VEX_SOCKET_NAME);
    }
    *out_server = server;
    return VEX_OK;
}

void vex_server_close(struct vex_server *server)
{
    if (!server) {
        return;
    }
    while (server->sessions) {
        struct vex_session *session = server->sessions;
        /* Not revoked: nothing is given back any more, and readers go on with their last
         * snapshot. */
        vex_session_disconnect(session, false);
        session->due = 0;
        forget(server, session);
    }
    const int fds[] = {server->epoll, server->signals, server->listener};
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
        if (fds[i] >= 0) {
            (void)close(fds[i]);
        }
    }
    struct due *dues = (struct due *)(void *)server->dues.data;
    for (size_t i = 0; i < server->dues.bytes / sizeof(*dues); i++) {
        free(dues[i].refusal);
    }
    vex_buffer_deinit(&server->dues);
    vex_buffer_deinit(&server->errands);
    free(server);
}
