/*
 * Named shared memory: the only file of this folder that asks the kernel for anything.
 *
 * Names are made from the instance's key, so that whoever knows the directory finds the memory,
 * with or without a daemon: /vexdb-<key>-ctl and /vexdb-<key>-seg-<number>. Memory is allocated
 * before it is used (fallocate), because a store into a hole of a full tmpfs is SIGBUS; running out
 * is an error here. Mappings start on a 2 MiB boundary, so that huge pages fit where the kernel
 * grants them.
 *
 * Thread-safety: no shared state. Errors name the object and, where there is one, the remedy.
 */
#ifndef VEX_SHM_REGION_H
#define VEX_SHM_REGION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vex/status.h>

#include "shm/layout.h"

#define VEX_REGION_NAME_MAX 96u

struct vex_region {
    void *memory; /* NULL = not mapped */
    uint64_t bytes;
    char name[VEX_REGION_NAME_MAX];
};

/*
 * The key under which an instance's memory is named: a hash of its UUID and of the directory's identity, so
 * that a copy of the directory, which has the same UUID, is another instance. 0 or an errno.
 */
int vex_region_key(uint8_t *out_key, const uint8_t *uuid, const char *directory);
void vex_region_control_name(char *out_name, const uint8_t *key);
void vex_region_segment_name(char *out_name, const uint8_t *key, uint64_t segment_id);
/* 36 characters and a NUL. */
void vex_uuid_text(char *out_text, const uint8_t *uuid);

/*
 * Creates a new object of `bytes` bytes, zero-filled, mapped read-write. `allocate_bytes` of it are
 * allocated at once, the rest by vex_region_allocate. Errors: NO_SPACE (the message says how much
 * was asked for, how much there is and what to do), EXISTS, PERMISSION, NOMEM, IO.
 */
enum vex_status vex_region_create(struct vex_region *region, const char *name, uint64_t bytes,
                                  uint64_t allocate_bytes, struct vex_error *error);
/* Makes the bytes at [offset, offset + bytes) safe to store to. Errors: NO_SPACE, IO. */
enum vex_status vex_region_allocate(struct vex_region *region, uint64_t offset, uint64_t bytes,
                                    struct vex_error *error);
/* Maps an existing object, read-only or read-write. Errors: NOT_FOUND, PERMISSION, NOMEM, IO. */
enum vex_status vex_region_open(struct vex_region *region, const char *name, bool writable,
                                struct vex_error *error);
/* Gives the memory back to the system even while others map it: they read zeros from now on. */
void vex_region_punch(struct vex_region *region);
/* The same for a part, whose ends are pages: memory that nobody was told of. */
void vex_region_punch_range(struct vex_region *region, uint64_t offset, uint64_t bytes);
/* Unmaps. The object lives on under its name. */
void vex_region_close(struct vex_region *region);
/* True if an object of that name exists. */
bool vex_region_exists(const char *name);
/* Gives the object another name, in place of whatever had it. Errors: IO. */
enum vex_status vex_region_rename(struct vex_region *region, const char *name,
                                  struct vex_error *error);
/* Removes the name; mappings stay valid. A missing name is fine. */
void vex_region_unlink(const char *name);
/* Removes every name of this instance: what a daemon that was killed left behind. */
void vex_region_unlink_all(const uint8_t *key);

/* A page of anonymous shared memory, to be handed over by descriptor. Returns the descriptor,
 * mapped read-write at *out_memory, or -1 with errno set. */
int vex_region_anonymous(const char *label, size_t bytes, void **out_memory);

#endif
