#include "daemon/session.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/panic.h"
#include "shm/pin.h"
#include "shm/region.h"

#define RECEIVE_BYTES (256u << 10) /* per turn and client, so that one cannot starve the others */

struct vex_session *vex_session_new(int fd)
{
    struct vex_session *session = calloc(1, sizeof(*session));
    if (session) {
        session->fd = fd;
        session->connected_ms = vex_clock_ms();
    }
    return session;
}

static void drop_riders(struct vex_session *session, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        (void)close(session->riders[i].fd);
    }
    session->riders_count -= count;
    memmove(session->riders, session->riders + count,
            session->riders_count * sizeof(session->riders[0]));
}

void vex_session_disconnect(struct vex_session *session, bool revoke)
{
    for (uint32_t i = 0; i < session->pages_count; i++) {
        if (revoke) {
            vex_slot_page_revoke(session->pages[i]);
        }
        (void)munmap(session->pages[i], sizeof(struct vex_slot_page));
    }
    session->pages_count = 0;
    drop_riders(session, session->riders_count);
    if (session->fd >= 0) {
        (void)close(session->fd);
    }
    session->fd = -1;
    session->stalled = false;
    vex_buffer_deinit(&session->input);
    vex_buffer_deinit(&session->output);
}

void vex_session_free(struct vex_session *session)
{
    VEX_ASSERT(session->fd < 0 && session->due == 0);
    free(session);
}

/* How much to read next: the rest of the frame that has begun, or whatever there is. */
static size_t wanted_bytes(const struct vex_session *session)
{
    const struct vex_buffer *input = &session->input;
    if (input->bytes >= VEX_WIRE_HEAD_BYTES) {
        struct vex_frame_head head;
        if (vex_frame_decode(&head, input->data, NULL) == VEX_OK) {
            size_t whole = VEX_WIRE_HEAD_BYTES + (size_t)head.body_bytes;
            if (whole > input->bytes && whole - input->bytes > RECEIVE_BYTES) {
                return whole - input->bytes;
            }
        }
    }
    return RECEIVE_BYTES;
}

enum vex_session_io vex_session_receive(struct vex_session *session)
{
    size_t wanted = wanted_bytes(session);
    if (!vex_buffer_reserve(&session->input, wanted)) {
        return VEX_SESSION_END;
    }
    ssize_t got;
    do {
        got = recv(session->fd, session->input.data + session->input.bytes, wanted, MSG_DONTWAIT);
    } while (got < 0 && errno == EINTR);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        return VEX_SESSION_AGAIN;
    }
    if (got <= 0) {
        return VEX_SESSION_END;
    }
    session->input.bytes += (size_t)got;
    return VEX_SESSION_OK;
}

/* One send, with the descriptor if there is one. */
static ssize_t send_some(int socket, const void *data, size_t bytes, int fd)
{
    struct iovec piece = {(void *)(uintptr_t)data, bytes};
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
    if (fd >= 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof(control.bytes);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(header), &fd, sizeof(fd));
    }
    ssize_t put;
    do {
        put = sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (put < 0 && errno == EINTR);
    return put;
}

enum vex_session_io vex_session_send(struct vex_session *session)
{
    size_t sent = 0;
    uint32_t rode = 0;
    enum vex_session_io result = VEX_SESSION_OK;
    while (sent < session->output.bytes) {
        /* A descriptor arrives with the first byte of the send that carries it: never send across. */
        bool carries = rode < session->riders_count && session->riders[rode].at == sent;
        uint32_t next = rode + carries;
        size_t end =
            next < session->riders_count ? session->riders[next].at : session->output.bytes;
        ssize_t put = send_some(session->fd, session->output.data + sent, end - sent,
                                carries ? session->riders[rode].fd : -1);
        if (put < 0) {
            bool full = errno == EAGAIN || errno == EWOULDBLOCK;
            result = full ? VEX_SESSION_AGAIN : VEX_SESSION_END;
            break;
        }
        sent += (size_t)put;
        rode = next;
    }
    drop_riders(session, rode);
    for (uint32_t i = 0; i < session->riders_count; i++) {
        session->riders[i].at -= sent;
    }
    vex_buffer_consume(&session->output, sent);
    return result;
}

static struct vex_frame_head reply_head(uint16_t op, uint64_t request, enum vex_status status,
                                        size_t bytes)
{
    return (struct vex_frame_head){
        .magic = VEX_WIRE_MAGIC,
        .version = VEX_WIRE_VERSION,
        .op = op,
        .body_bytes = (uint32_t)vex_round_up(bytes, 8),
        .status = (uint32_t)status,
        .request = request,
    };
}

bool vex_session_reply(struct vex_session *session, uint16_t op, uint64_t request,
                       enum vex_status status, const void *body, size_t bytes)
{
    static const uint8_t zeros[8];
    struct vex_frame_head head = reply_head(op, request, status, bytes);
    struct vex_buffer *output = &session->output;
    return output->bytes + sizeof(head) + head.body_bytes <= VEX_SESSION_OUTPUT_MAX &&
           vex_buffer_append(output, &head, sizeof(head)) &&
           vex_buffer_append(output, body, bytes) &&
           vex_buffer_append(output, zeros, head.body_bytes - bytes);
}

bool vex_session_reply_error(struct vex_session *session, uint16_t op, uint64_t request,
                             const struct vex_error *error)
{
    return vex_session_reply(session, op, request, error->status, error->message,
                             strlen(error->message));
}

enum vex_status vex_session_reply_page(struct vex_session *session, uint16_t op, uint64_t request,
                                       const void *body, size_t bytes, struct vex_error *error)
{
    if (session->pages_count == VEX_SESSION_PAGES_MAX) {
        return vex_error_set(error, VEX_ERR_LIMIT, "one client reads with at most %u threads",
                             VEX_SESSION_PAGES_MAX * VEX_SLOTS_PER_PAGE);
    }
    void *memory = NULL;
    int fd = vex_region_anonymous("vexdb-slots", sizeof(struct vex_slot_page), &memory);
    if (fd < 0) {
        return vex_error_os(error, vex_status_from_errno(errno), errno, "slot page");
    }
    size_t at = session->output.bytes;
    if (!vex_session_reply(session, op, request, VEX_OK, body, bytes)) {
        (void)close(fd);
        (void)munmap(memory, sizeof(struct vex_slot_page));
        return vex_error_set(error, VEX_ERR_NOMEM, "out of memory");
    }
    session->riders[session->riders_count].at = at;
    session->riders[session->riders_count++].fd = fd;
    session->pages[session->pages_count++] = memory;
    return VEX_OK;
}
