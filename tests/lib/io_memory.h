/*
 * A disk in memory behind the engine's table of operations: as fast as a fuzzer needs it, and its files
 * can be looked at and damaged by hand. It never fails by itself; put a vex_io_fault in front for that.
 *
 * Everything written is at once what a later open reads, as after a crash of the daemon (not of the
 * machine). Thread-safety: any thread, as the interface asks for; the functions below are for moments
 * when nothing else runs.
 */
#ifndef VEX_TESTS_LIB_IO_MEMORY_H
#define VEX_TESTS_LIB_IO_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ioengine/io.h"

/* Never fails: a test without memory ends. */
struct vex_io *vex_io_memory_open(void);

/* The bytes of a file, to be read or changed in place until the file grows or goes; NULL if there is no
 * such file. */
uint8_t *vex_io_memory_bytes(struct vex_io *io, const char *path, size_t *out_bytes);
/* Makes or replaces a file. */
void vex_io_memory_put(struct vex_io *io, const char *path, const void *data, size_t bytes);
/* False if there was none. */
bool vex_io_memory_drop(struct vex_io *io, const char *path);
/* Another disk with the same files. */
struct vex_io *vex_io_memory_clone(struct vex_io *io);
/* Whether two disks hold the same files with the same bytes. */
bool vex_io_memory_equals(struct vex_io *left, struct vex_io *right);

#endif
