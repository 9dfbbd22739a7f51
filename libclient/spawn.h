/*
 * Starting a private daemon, the way tmux and adb do: whoever finds nobody serving the directory
 * starts vexd for it, detached, and waits for its one line on a pipe. Losers of a race find that
 * out from their own daemon, which could not get the lock, and connect to the winner's.
 */
#ifndef VEX_LIBCLIENT_SPAWN_H
#define VEX_LIBCLIENT_SPAWN_H

#include <stdint.h>

#include <vex/status.h>

/* The daemon program. `wanted` NULL: $VEXD_PATH, vexd beside or in ../bin of the library, $PATH.
 * `out_path` has PATH_MAX bytes. Errors: UNAVAILABLE. */
enum vex_status vex_spawn_find(const char *wanted, char *out_path, struct vex_error *error);

/*
 * Starts vexd for `directory`; `program` is as above. OK: it is ready. BUSY: another daemon has the directory, or is about to leave it: try to
 * connect. UNAVAILABLE: no program, or it ended. TIMEOUT. Any other status is the daemon's own
 * reason for refusing, and the message quotes it.
 */
enum vex_status vex_spawn_daemon(const char *directory, const char *program,
                                 uint32_t idle_timeout_ms, uint64_t deadline_ns,
                                 struct vex_error *error);

#endif
