/*
 * The server: one thread, one loop. It accepts clients, cuts their bytes into frames, offers
 * mutations to the coordinator, commits once per turn, and sends acknowledgements when their batch
 * is durable.
 *
 * Group commit needs no timer: whatever arrives while a batch is in flight goes into the next one.
 *
 * A client can only harm itself: frames are bounded, replies are queued up to a limit, a client
 * that breaks the protocol or says nothing at first is disconnected. Its pins end with its
 * connection; because it may still be reading, its slot pages are revoked first (pin.h).
 */
#ifndef VEX_DAEMON_SERVER_H
#define VEX_DAEMON_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include <vex/status.h>

#include "daemon/coordinator.h"

#define VEX_SOCKET_NAME "vexd.sock"

struct vex_server_options {
    bool embedded;            /* end after idle_timeout_ms without clients */
    uint32_t idle_timeout_ms; /* 0 = never */
};

struct vex_server;

/* Listens on vexd.sock in the working directory. Errors: PERMISSION, IO, NOMEM. */
enum vex_status vex_server_open(struct vex_coordinator *coordinator,
                                const struct vex_server_options *options,
                                struct vex_server **out_server, struct vex_error *error);
/* Serves until SIGTERM, SIGINT, a client's shutdown request, or the idle time-out. Everything
 * accepted is durable and acknowledged when it returns, except what a failed log took with it. */
void vex_server_run(struct vex_server *server);
/* NULL is allowed. */
void vex_server_close(struct vex_server *server);

#endif
