/*
 * The coordinator: the only door to storage and index. It checks a mutation, numbers it, stages it
 * in the log and in shared memory, and publishes it once it is durable.
 *
 *   check -> room in the log -> room in shared memory -> log (LSN) -> rows, deaths, registry
 *                                   ... batch sealed: capture ... batch durable: apply, publish
 *
 * Everything that can fail comes before the first change, so a refused mutation leaves nothing
 * behind. Invariant I1: nothing is published, and nothing acknowledged, before it is durable.
 *
 * Thread-safety: the daemon's main thread.
 */
#ifndef VEX_DAEMON_COORDINATOR_H
#define VEX_DAEMON_COORDINATOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vex/status.h>

#include "daemon/upkeep.h"
#include "shm/wire.h"

struct vex_coordinator;

struct vex_coordinator_options {
    const char *io_backend; /* NULL = choose */
    const int *lock_fd;     /* the instance's lock, see vex_io_ops.hold_lock; NULL = none */
    uint64_t log_file_bytes_min;
    uint64_t log_file_bytes_max;
    uint64_t checkpoint_bytes; /* of log that are worth one; 0 = by the amount of data */
    /* For tests: a disk in front of the real one, closed with it. NULL = none. */
    struct vex_io *(*wrap_io)(struct vex_io *io, void *context);
    void *wrap_context;
    bool quarantine; /* start without the collections whose segment files are damaged */
};

/* Opens or makes the instance in `directory_fd`, which is the working directory, loads its checkpoint,
 * replays the log behind it and publishes the first generation. The control region is ready for clients afterwards. */
enum vex_status vex_coordinator_open(int directory_fd,
                                     const struct vex_coordinator_options *options,
                                     struct vex_coordinator **out_coordinator,
                                     struct vex_error *error);
/* Commits what is staged, marks the shutdown as clean, and frees everything. NULL is allowed. */
void vex_coordinator_close(struct vex_coordinator *coordinator);

const uint8_t *vex_coordinator_uuid(const struct vex_coordinator *coordinator);
/* For looking at, between two calls of this interface. */
const struct vex_registry *vex_coordinator_registry(const struct vex_coordinator *coordinator);
/* Names the shared memory: vex_region_key. */
const uint8_t *vex_coordinator_key(const struct vex_coordinator *coordinator);
/* Tells readers that the daemon is alive. */
void vex_coordinator_beat(struct vex_coordinator *coordinator);
/* See vex_publisher_spare_readers. */
void vex_coordinator_spare_readers(struct vex_coordinator *coordinator);
/* Readable when vex_coordinator_poll may have something to do. */
int vex_coordinator_event_fd(const struct vex_coordinator *coordinator);

/*
 * One mutation. OK: staged; *out_ack holds once vex_coordinator_durable_lsn reaches its LSN. BUSY:
 * the open batch is full; offer it again after the next commit. Anything else: refused, nothing has
 * changed.
 */
enum vex_status vex_coordinator_write(struct vex_coordinator *coordinator, const uint8_t *body,
                                      size_t bytes, struct vex_ack_body *out_ack,
                                      struct vex_error *error);
enum vex_status vex_coordinator_create(struct vex_coordinator *coordinator,
                                       const struct vex_create_body *body,
                                       struct vex_ack_body *out_ack, struct vex_error *error);
enum vex_status vex_coordinator_drop(struct vex_coordinator *coordinator,
                                     const struct vex_drop_body *body, struct vex_ack_body *out_ack,
                                     struct vex_error *error);
/* Another index is asked for from this record on; upkeep makes it so. */
enum vex_status vex_coordinator_alter(struct vex_coordinator *coordinator,
                                      const struct vex_alter_body *body,
                                      struct vex_ack_body *out_ack, struct vex_error *error);

/* Seals and submits what is staged, if nothing is in flight. True if it did. */
bool vex_coordinator_commit(struct vex_coordinator *coordinator);
/* Publishes a batch that has become durable. True if nothing is in flight any more that was before
 * (a watermark counts), or if the log has just failed. */
bool vex_coordinator_poll(struct vex_coordinator *coordinator, bool wait);
/* Nothing staged, nothing in flight. */
bool vex_coordinator_idle(const struct vex_coordinator *coordinator);
/* Call when idle for a moment: covers the last acknowledgement by a watermark. */
void vex_coordinator_settle(struct vex_coordinator *coordinator);
bool vex_coordinator_wants_settling(const struct vex_coordinator *coordinator);

/* Last record staged; what was checked against it can be told once it is durable. */
uint64_t vex_coordinator_staged_lsn(const struct vex_coordinator *coordinator);
uint64_t vex_coordinator_durable_lsn(const struct vex_coordinator *coordinator);
/* 0, or the errno with which the log failed. */
int vex_coordinator_failure(const struct vex_coordinator *coordinator);
/* The published generation, for judging slot values. */
uint64_t vex_coordinator_generation(const struct vex_coordinator *coordinator);
bool vex_coordinator_has_retired(const struct vex_coordinator *coordinator);
void vex_coordinator_reclaim(struct vex_coordinator *coordinator, uint64_t oldest_pinned);
/* Background work: checkpoints, merges, requests. Call in every turn of the loop; the descriptors are readable
 * when there is news. */
int vex_coordinator_upkeep_fd(const struct vex_coordinator *coordinator);
int vex_coordinator_builder_fd(const struct vex_coordinator *coordinator, unsigned builder);
/* A checkpoint, merge, graph or backup is under way: to end now would throw it away. */
bool vex_coordinator_upkeep_is_running(const struct vex_coordinator *coordinator);
void vex_coordinator_upkeep(struct vex_coordinator *coordinator, uint64_t now_ms);
/* As in upkeep.h. */
enum vex_status vex_coordinator_request(struct vex_coordinator *coordinator,
                                        const struct vex_upkeep_body *body, uint64_t *out_ticket,
                                        struct vex_error *error);
bool vex_coordinator_take_answer(struct vex_coordinator *coordinator,
                                 struct vex_upkeep_answer *out);
/* How far the index of a collection is. Errors: NO_COLLECTION. */
enum vex_status vex_coordinator_index_status(const struct vex_coordinator *coordinator,
                                             const struct vex_drop_body *which,
                                             struct vex_index_body *out, struct vex_error *error);
/* Fills what it knows; clients, embedded, pid and uptime are the caller's. */
void vex_coordinator_stats(const struct vex_coordinator *coordinator, struct vex_stats_body *out);

#endif
