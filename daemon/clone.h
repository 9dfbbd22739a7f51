/*
 * Another directory with the same instance in it: for restoring a backup, and as a scratch copy that may be
 * opened, changed and thrown away while the original stays as it is.
 *
 * Checkpoint and segment files never change, so a hard link is as good as a copy where the file system allows
 * it. The manifest and the log are written in place, so they are always copied. Nothing else belongs to an
 * instance: lock, reserve, socket, diagnostics and backups stay behind.
 *
 * Thread-safety: none.
 */
#ifndef VEX_DAEMON_CLONE_H
#define VEX_DAEMON_CLONE_H

#include <stdbool.h>

#include <vex/status.h>

/*
 * Makes the clone of the instance in `from` in the existing, empty directory `to`, and everything durable in
 * it. Errors: NOT_FOUND (no manifest: not an instance), NO_SPACE, PERMISSION, IO. What was made stays, for
 * vex_clone_clear.
 */
enum vex_status vex_clone_fill(const char *from, const char *to, bool may_link,
                               struct vex_error *error);
/* Removes what is in a clone's directory, also after a daemon has been in it, and the directory. Only names
 * that an instance uses are removed. False if the directory is still there. */
bool vex_clone_clear(const char *path);

/*
 * A scratch directory for a clone of `directory` (an absolute path): beside it, else in $TMPDIR or /tmp.
 * `out_path` has PATH_MAX bytes. Errors: NO_SPACE, PERMISSION, IO.
 */
enum vex_status vex_clone_make_scratch(const char *directory, char *out_path,
                                       struct vex_error *error);

#endif
