/*
 * The tasks behind offline.c, a file each, and what they share.
 *
 * A task returns a status whose message has been left in `error`; what it found stands in its report. All but
 * RESTORE run with the instance as the working directory and its lock held.
 */
#ifndef VEX_DAEMON_OFFLINE_PRIV_H
#define VEX_DAEMON_OFFLINE_PRIV_H

#include <vex/status.h>

#include "daemon/offline.h"
#include "ioengine/io.h"
#include "ioengine/log.h"
#include "ioengine/manifest.h"

/* The working directory through plain system calls. */
enum vex_status offline_io_open(struct vex_io **out_io, struct vex_error *error);
/* Reads MANIFEST and changes nothing. Errors: NOT_FOUND, CORRUPT, VERSION, IO, NOMEM. */
enum vex_status offline_read_manifest(struct vex_io *io, const char *path, struct vex_manifest *out,
                                      struct vex_error *error);

/* vex_store_check with a report. `title` names the list in JSON. */
enum vex_status offline_check(const struct vex_offline_options *options, struct vex_error *error);
enum vex_status offline_verify(const struct vex_offline_options *options, struct vex_error *error);
enum vex_status offline_log_dump(const struct vex_offline_options *options,
                                 struct vex_error *error);
enum vex_status offline_log_repair(const struct vex_offline_options *options,
                                   struct vex_error *error);
enum vex_status offline_list_backups(const struct vex_offline_options *options,
                                     struct vex_error *error);
/* Working directory and lock are whatever they are. */
enum vex_status offline_restore(const char *directory, const struct vex_offline_options *options,
                                struct vex_error *error);

/*
 * Runs `task` in a process of its own, with a scratch copy of the working directory's instance as the working
 * directory, and clears up however that process ends. The task's status and message are passed on; a process
 * that is ended by a signal is CORRUPT if the signal is one of a program error, since the only thing unusual
 * about it is its input.
 */
enum vex_status offline_in_scratch(
    enum vex_status (*task)(const struct vex_offline_options *options, struct vex_error *error),
    const struct vex_offline_options *options, struct vex_error *error);

#endif
