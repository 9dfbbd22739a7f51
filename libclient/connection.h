/*
 * The command channel of one client: one socket, any number of threads.
 *
 * A call sends its frame under a lock and then waits for the reply with its number. Whichever
 * waiting thread comes first reads the socket, for all of them: no helper thread, and pipelining
 * between threads for free.
 *
 * A connection that breaks stays broken. Calls whose frame may have reached the daemon answer
 * UNKNOWN_OUTCOME, others UNAVAILABLE; the owner makes a new connection.
 *
 * Thread-safety: calls from any thread; closing is for when no call is under way.
 */
#ifndef VEX_LIBCLIENT_CONNECTION_H
#define VEX_LIBCLIENT_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vex/status.h>

#include "base/bytes.h"

struct vex_connection;

/* Connects to vexd.sock in `directory`. Errors: UNAVAILABLE, TIMEOUT, PERMISSION, NOMEM. */
enum vex_status vex_connection_open(const char *directory, uint32_t timeout_ms,
                                    struct vex_connection **out_connection,
                                    struct vex_error *error);
/* The daemon sees the end at once, even if a forked child still holds the descriptor. */
void vex_connection_close(struct vex_connection *connection);
/* In a forked child: gives the descriptor up without touching the locks. */
void vex_connection_abandon(struct vex_connection *connection);
bool vex_connection_is_broken(const struct vex_connection *connection);
/* Asks the socket whether the daemon has closed it. One system call. */
bool vex_connection_has_ended(const struct vex_connection *connection);

struct vex_reply {
    struct vex_buffer body; /* to be freed with vex_buffer_deinit */
    int fd;                 /* descriptor that came along, -1 = none; the caller's to close */
};

/*
 * Sends one request and waits for its reply. A refusal by the daemon becomes this call's error.
 * `changes`: the request may change something, so a lost reply is UNKNOWN_OUTCOME. `deadline_ns`
 * (vex_clock_ns, 0 = none) is for requests that change nothing: TIMEOUT.
 */
enum vex_status vex_connection_call(struct vex_connection *connection, uint16_t op,
                                    const void *body, size_t bytes, bool changes,
                                    uint64_t deadline_ns, struct vex_reply *out_reply,
                                    struct vex_error *error);
/* Waits until the daemon closes the connection. False on time-out. */
bool vex_connection_await_end(struct vex_connection *connection, uint64_t deadline_ns);

#endif
