/*
 * Files that are there whole or not at all: written under a temporary name in the same directory, synced,
 * renamed, the directory synced. A crash at any point leaves the temporary file (whose name says so, and
 * which nobody reads) or the finished one. Everything but the log and the slots of the manifest is written
 * this way.
 *
 * Thread-safety: none; one owner.
 */
#ifndef VEX_IOENGINE_WHOLE_FILE_H
#define VEX_IOENGINE_WHOLE_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "ioengine/io.h"

#define VEX_WHOLE_FILE_PATH_BYTES 1024u /* of a path, its end and the temporary suffix included */

struct vex_whole_file {
    struct vex_io *io;
    struct vex_file file; /* to be written to between begin and end */
    char path[VEX_WHOLE_FILE_PATH_BYTES];
    char temporary[VEX_WHOLE_FILE_PATH_BYTES];
};

/* Both return 0 or a negative errno; after a failure nothing is to be ended or abandoned, and neither name is
 * left behind as far as the disk allows. A file that has the name already is replaced. */
int vex_whole_file_begin(struct vex_whole_file *self, struct vex_io *io, const char *path);
int vex_whole_file_end(struct vex_whole_file *self);
/* Instead of ending: removes what was written. */
void vex_whole_file_abandon(struct vex_whole_file *self);

/* Whether a name is one that a crash between begin and end leaves. */
bool vex_whole_file_is_temporary(const char *name);

/* Syncs the directory that holds `path`. 0 or a negative errno. */
int vex_sync_parent(struct vex_io *io, const char *path);

#endif
