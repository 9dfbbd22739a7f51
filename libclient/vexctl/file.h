/*
 * Files that the user names: small ones read whole, large ones mapped.
 *
 * A mapped file that is cut short by another process raises SIGBUS in whoever reads it; while a
 * file is mapped here, that ends the program with a message instead of a core dump.
 */
#ifndef VEX_VEXCTL_FILE_H
#define VEX_VEXCTL_FILE_H

#include <stddef.h>

#include <vex/status.h>

struct vex_file {
    void *data; /* NULL if empty or closed */
    size_t bytes;
};

#define VEX_FILES_MAPPED_MAX 2u

/* Maps a regular file, read-only. Errors: INVALID (no such file, not a regular file), PERMISSION,
 * IO, NOMEM. */
enum vex_status vex_file_map(const char *path, struct vex_file *out, struct vex_error *error);
/* From now on the message says that a part is written, and the exit code is VEX_EXIT_PARTIAL. */
void vex_file_mark_written(void);
/* Accepts a zeroed struct. */
void vex_file_unmap(struct vex_file *file);
/*
 * All of a file, or of standard input for "-", if it has at most bytes_max bytes; with a NUL behind
 * them. *out_data is to be freed. Errors as above, and LIMIT.
 */
enum vex_status vex_file_read(const char *path, size_t bytes_max, void **out_data,
                              size_t *out_bytes, struct vex_error *error);

#endif
