/* One connected client: its buffers, its slot pages, what it still waits for. */
#ifndef VEX_DAEMON_SESSION_H
#define VEX_DAEMON_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "shm/layout.h"
#include "shm/wire.h"

#define VEX_SESSION_PAGES_MAX 64u /* x 63 slots: reading threads of one client */
/* A client that does not read its replies is cut off at this many unsent bytes. */
#define VEX_SESSION_OUTPUT_MAX (4u << 20)

struct vex_session {
    int fd; /* -1 = disconnected, kept while acknowledgements are due */
    bool welcomed;
    bool stalled;  /* a whole frame waits for room in the log */
    bool closing;  /* disconnect once the output is sent */
    bool writable; /* the loop waits for room in the socket */
    uint32_t due;  /* acknowledgements on their way */
    uint64_t connected_ms;
    uint32_t pid; /* as it says; for messages only */
    struct vex_buffer input;
    struct vex_buffer output;
    /* Descriptors that go with the output byte at `at`, in order. */
    struct {
        size_t at;
        int fd;
    } riders[VEX_SESSION_PAGES_MAX];
    uint32_t riders_count;
    struct vex_slot_page *pages[VEX_SESSION_PAGES_MAX];
    uint32_t pages_count;
    struct vex_session *next;
    struct vex_session *previous;
};

struct vex_session *vex_session_new(int fd);
/* Unmaps the slot pages, closes the socket; the session itself stays. With `revoke` the client's
 * pins stop protecting anything: memory may be given back while it still reads. */
void vex_session_disconnect(struct vex_session *session, bool revoke);
/* Frees a disconnected session. */
void vex_session_free(struct vex_session *session);

enum vex_session_io {
    VEX_SESSION_OK,
    VEX_SESSION_AGAIN, /* nothing more to do now */
    VEX_SESSION_END,   /* the peer is gone or misbehaves */
};

/* Reads what has arrived, up to a bound per call. */
enum vex_session_io vex_session_receive(struct vex_session *session);
/* Sends what it can. */
enum vex_session_io vex_session_send(struct vex_session *session);

/* Queues a reply. False if the output limit or memory is reached: disconnect. */
bool vex_session_reply(struct vex_session *session, uint16_t op, uint64_t request,
                       enum vex_status status, const void *body, size_t bytes);
bool vex_session_reply_error(struct vex_session *session, uint16_t op, uint64_t request,
                             const struct vex_error *error);
/* Makes a slot page and queues it with a reply. Errors: LIMIT, NOMEM, or what the system said. */
enum vex_status vex_session_reply_page(struct vex_session *session, uint16_t op, uint64_t request,
                                       const void *body, size_t bytes, struct vex_error *error);

#endif
