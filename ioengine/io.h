/*
 * The disk, as the storage engine sees it: one table of operations, so that the log and its
 * recovery can run on a ring, on plain system calls, or on a simulated disk that crashes.
 *
 * All paths are relative to the instance's directory. Calls return 0 (or a count) or a negative
 * errno. Blocking operations may be called from any thread. The durable write is asynchronous, one
 * at a time, and belongs to one thread: submit, wait for event_fd to become readable, reap.
 *
 * "Durable" has one meaning: reap returned the full length. A write is on stable storage then, with
 * the file data flushed (RWF_DSYNC); the file has been zero-filled before, so no metadata is at
 * stake.
 */
#ifndef VEX_IOENGINE_IO_H
#define VEX_IOENGINE_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vex/status.h>

#define VEX_BLOCK_BYTES 4096u /* alignment of buffers, offsets and lengths of direct I/O */

struct vex_io;

struct vex_file {
    int fd;      /* -1 = closed */
    bool direct; /* O_DIRECT was granted */
};

enum vex_file_mode {
    VEX_FILE_READ,
    VEX_FILE_WRITE,  /* read and write an existing file */
    VEX_FILE_CREATE, /* as WRITE; created, or emptied if it is there */
};

/* One of many reads. */
struct vex_read {
    const struct vex_file *file;
    void *into;
    size_t bytes;
    uint64_t offset;
    int64_t result; /* out: bytes read, fewer only at the end of the file, or a negative errno */
};

struct vex_io_ops {
    const char *name; /* "uring", "sync"; shown in the status */
    void (*close)(struct vex_io *io);

    int (*open_file)(struct vex_io *io, const char *path, enum vex_file_mode mode,
                     struct vex_file *out_file);
    void (*close_file)(struct vex_io *io, struct vex_file *file);
    int (*size)(struct vex_io *io, const struct vex_file *file, uint64_t *out_bytes);
    /* Both handle all of `bytes` or fail; reading stops early only at the end of the file. */
    int64_t (*read)(struct vex_io *io, const struct vex_file *file, void *into, size_t bytes,
                    uint64_t offset);
    int (*write)(struct vex_io *io, const struct vex_file *file, const void *from, size_t bytes,
                 uint64_t offset);
    int (*sync)(struct vex_io *io, const struct vex_file *file); /* fdatasync */
    /* Gives the file's first `bytes` bytes real blocks, so that a full disk shows now. -EOPNOTSUPP
     * where the file system has no such thing. */
    int (*allocate)(struct vex_io *io, const struct vex_file *file, uint64_t bytes);
    int (*sync_directory)(struct vex_io *io, const char *path);
    int (*make_directory)(struct vex_io *io, const char *path); /* fine if it is there */
    int (*rename)(struct vex_io *io, const char *from, const char *to);
    int (*link)(struct vex_io *io, const char *from, const char *to); /* hard link */
    int (*unlink)(struct vex_io *io, const char *path);
    /* Calls `entry` for each name in a directory, in any order. */
    int (*list)(struct vex_io *io, const char *path, void (*entry)(void *context, const char *name),
                void *context);

    /*
     * Reads every item, many at a time where the backend can, and calls `done` on the calling thread
     * for each as it is over, in any order. Reading stops at the first result of `done` that is not
     * 0, and that is returned. Any thread, also while a durable write is in flight.
     */
    int (*read_many)(struct vex_io *io, struct vex_read *items, size_t count,
                     int (*done)(void *context, size_t index), void *context);

    /* Starts a durable write. `from` stays untouched until it is reaped. */
    int (*submit)(struct vex_io *io, const struct vex_file *file, const void *from, size_t bytes,
                  uint64_t offset);
    /* 1 and *out_result (bytes written, or a negative errno) when it is done; else 0. With `wait`
     * it blocks. A negative errno if the backend itself failed. */
    int (*reap)(struct vex_io *io, bool wait, int64_t *out_result);
    int (*event_fd)(struct vex_io *io); /* readable when reap may have something */
    /* Keeps a reference to the lock's open file for as long as a write of ours may still be under way,
     * also after this process has been killed. NULL where the process cannot die before its write. */
    int (*hold_lock)(struct vex_io *io, int lock_fd);
};

/* Concrete backends begin with this. */
struct vex_io {
    const struct vex_io_ops *ops;
    int directory_fd;
};

/* Memory from which durable writes start, so that a backend can register it with the kernel. */
struct vex_io_buffer {
    void *memory; /* VEX_BLOCK_BYTES aligned */
    size_t bytes;
};

/*
 * Opens the backend for a directory: "uring", "sync", or NULL to take uring and fall back to sync
 * where the kernel, a sandbox or a limit refuses io_uring; `out_note` (256 bytes) then says why.
 * The environment variable VEX_IO overrides NULL. Errors: INVALID (unknown name), IO, NOMEM,
 * PERMISSION, UNAVAILABLE (uring was asked for by name and is refused).
 */
enum vex_status vex_io_open(const char *backend, int directory_fd,
                            const struct vex_io_buffer *buffers, unsigned buffers_count,
                            struct vex_io **out_io, char *out_note, struct vex_error *error);
void vex_io_close(struct vex_io *io);

/* The single backends; vex_io_open chooses. */
int vex_io_sync_open(int directory_fd, struct vex_io **out_io);
int vex_io_uring_open(int directory_fd, const struct vex_io_buffer *buffers, unsigned buffers_count,
                      struct vex_io **out_io);

/* Blocking operations on real files, shared by the backends (io_posix.c). */
extern const struct vex_io_ops vex_io_posix_ops;

#endif
