/*
 * An attachment: one connection to one daemon, the control region that daemon publishes in, and the
 * slots it gave us. When the daemon is replaced the client makes a new attachment and lets the old
 * one go.
 *
 * Slots. A thread gets one on its first read and keeps it until it ends (or the attachment does):
 * slots are never shared between threads. Snapshots take slots of their own. The way from thread to
 * slot is a thread-local cache, so a read finds its slot without a lock or a system call.
 *
 * Letting go. A reader that is about to pin stores into its slot first and then checks that the
 * attachment is still the database's current one; who replaces the attachment stores the new one
 * first and then looks at the slots. Both are sequentially consistent, so one of them sees the
 * other (the argument of pin.h). What such a slot protects is unmapped once the slot is idle; the
 * slot pages themselves stay until vex_close.
 *
 * Thread-safety: everything from any thread unless it says otherwise.
 */
#ifndef VEX_LIBCLIENT_ATTACHMENT_H
#define VEX_LIBCLIENT_ATTACHMENT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <vex/status.h>

#include "libclient/connection.h"
#include "shm/control.h"
#include "shm/pin.h"
#include "shm/region.h"

#define ATTACHMENT_PAGES_MAX 64u

struct reader_slot {
    struct vex_slot *slot;
    struct vex_slot_page *page;
    _Atomic uint64_t epoch; /* writer: owner. SLOT_EPOCH. Of the database, when it began to read */
    uint64_t last_generation;           /* a lower bound of the current one; owner only */
    uint64_t serial;                    /* of the attachment */
    struct attachment *attachment;      /* NULL once it is gone; guarded by the process-wide lock */
    struct reader_slot *next_of_thread; /* owner thread only */
};

struct attachment {
    uint64_t serial; /* unique in this process */
    uint8_t uuid[VEX_UUID_BYTES];
    uint8_t key[VEX_UUID_BYTES]; /* of the names of the shared memory */
    uint32_t daemon_pid;
    struct vex_connection *connection;
    struct vex_region control; /* read-only */

    pthread_mutex_t lock; /* guards what follows */
    struct vex_slot_page *pages[ATTACHMENT_PAGES_MAX];
    uint64_t taken[ATTACHMENT_PAGES_MAX]; /* bit i: slot i of the page has an owner */
    uint32_t pages_count;
    struct reader_slot **owners; /* heap array of every handed-out slot */
    size_t owners_count;
    size_t owners_capacity;
    bool
        adding; /* a thread asks for a page, with the lock given up; `added` says when it is over */
    pthread_cond_t added;
    struct attachment *next_of_process; /* guarded by the process-wide lock */
    struct attachment *next;            /* in the database's list of old ones */
    uint32_t calls; /* under way on the connection; guarded by the database's lock */
};

/* Connects, greets, maps. Errors: UNAVAILABLE, TIMEOUT, PERMISSION, VERSION, CORRUPT, NOMEM. */
enum vex_status vex_attachment_open(const char *directory, uint32_t timeout_ms,
                                    struct attachment **out_attachment, struct vex_error *error);
/* Frees everything; no call and no read is under way. NULL is allowed. */
void vex_attachment_close(struct attachment *attachment);
/* In a forked child. */
void vex_attachment_abandon(struct attachment *attachment);
/* Unmaps the control region and closes the connection if no slot is in use. The slot pages stay. No
 * call is under way. */
bool vex_attachment_hibernate(struct attachment *attachment);

/* The calling thread's slot. NULL and a status: LIMIT, UNAVAILABLE, NOMEM. */
struct reader_slot *vex_attachment_thread_slot(struct attachment *attachment,
                                               enum vex_status *out_status,
                                               struct vex_error *error);
/* A slot that belongs to no thread. */
struct reader_slot *vex_attachment_take_slot(struct attachment *attachment,
                                             enum vex_status *out_status, struct vex_error *error);
void vex_attachment_give_slot(struct reader_slot *slot);
/* True if every slot is idle or began its read in `epoch` or later. */
bool vex_attachment_passed(struct attachment *attachment, uint64_t epoch);

/* The daemon has stopped, was replaced, or has cut us off: what can be read here may be old or gone,
 * and another daemon may know better. */
bool vex_attachment_is_over(const struct attachment *attachment);
/* As above, or the connection is broken: no more calls. A daemon that was killed leaves its memory as it
 * was, so until there is a successor (which makes this attachment "over") nothing newer exists. */
bool vex_attachment_is_stale(const struct attachment *attachment);
/* True if a daemon that came later has made its memory. One system call. */
bool vex_attachment_has_successor(const struct attachment *attachment);

/* Number of forks this process came out of since the library was loaded. */
uint32_t vex_fork_count(void);

#endif
