/*
 * Upkeep: decides when to write a checkpoint, which segments to merge, and carries out what an operator asks
 * for (checkpoint, compaction, erasure, backup). The work itself is the worker's (checkpoint.c, merge.c);
 * here are the rules and the bookkeeping.
 *
 * Rules, for one job at a time, in this order:
 *  - what an operator asked for;
 *  - the store's reserve, before the log has grown so much that a checkpoint could run out of disk;
 *  - a checkpoint when the log behind the last one has grown to a quarter of the data (32 MiB to 256 MiB), or
 *    to a little and nothing has been written for a moment;
 *  - merges (merge_pick.h). Those that build a graph are the builders', two workers of their own, since they can
 *    take minutes; they go on beside the other jobs.
 *
 * What only old generations can see is not given back while a job may read it: upkeep counts as a reader
 * (vex_upkeep_oldest_pinned).
 *
 * Thread-safety: the daemon's main thread.
 */
#ifndef VEX_DAEMON_UPKEEP_H
#define VEX_DAEMON_UPKEEP_H

#include <stdbool.h>
#include <stdint.h>

#include <vex/status.h>

#include "daemon/registry.h"
#include "ioengine/store.h"
#include "shm/wire.h"

struct vex_upkeep;

/* `tail_bytes`: log that is worth a checkpoint; 0 = by the amount of data, as above. */
enum vex_status vex_upkeep_open(const uint8_t *key, uint64_t tail_bytes,
                                struct vex_publisher *publisher, struct vex_registry *registry,
                                struct vex_store *store, struct vex_upkeep **out_upkeep,
                                struct vex_error *error);
/* Gives up what is running. NULL is allowed. */
void vex_upkeep_close(struct vex_upkeep *upkeep);
/* A checkpoint before an orderly end, if it saves the next start much; gives up what is running. Everything is
 * durable, and nothing but vex_upkeep_close comes after it. */
void vex_upkeep_last_checkpoint(struct vex_upkeep *upkeep);

/* Readable when the worker, and each of the builders of graphs, has something to report. */
#define VEX_UPKEEP_BUILDERS 2u
int vex_upkeep_event_fd(const struct vex_upkeep *upkeep);
int vex_upkeep_builder_event_fd(const struct vex_upkeep *upkeep, unsigned builder);
/* Right after a batch was sealed with its views captured, or with nothing staged: the moment at which a wanted
 * checkpoint can be taken down. */
void vex_upkeep_at_rest(struct vex_upkeep *upkeep);
/* Takes results, starts what is due. `busy`: commits are under way. To be called every second or so, and after
 * every event. */
void vex_upkeep_turn(struct vex_upkeep *upkeep, uint64_t now_ms, bool busy);
/* The oldest generation that the worker may read, UINT64_MAX = none. */
uint64_t vex_upkeep_oldest_pinned(const struct vex_upkeep *upkeep);
/* Checkpoints leave what is damaged alone: none are written while a collection is quarantined. */
void vex_upkeep_set_quarantine(struct vex_upkeep *upkeep, bool quarantine);

/* A collection that may have files is gone: checkpoints follow when it is quiet, so that the disk gets them back. */
void vex_upkeep_note_drop(struct vex_upkeep *upkeep);

/* Asks for something; the answer comes through vex_upkeep_take_answer with this ticket. Errors: INVALID,
 * NO_COLLECTION, BUSY (too many requests wait), READ_ONLY. */
enum vex_status vex_upkeep_request(struct vex_upkeep *upkeep, const struct vex_upkeep_body *body,
                                   uint64_t *out_ticket, struct vex_error *error);

struct vex_upkeep_answer {
    uint64_t ticket;
    enum vex_status status;
    struct vex_error error;
    struct vex_upkeep_done_body done;
};
/* True if a request is over. */
bool vex_upkeep_take_answer(struct vex_upkeep *upkeep, struct vex_upkeep_answer *out);

/* How far the index of a collection is. */
void vex_upkeep_index_status(const struct vex_upkeep *upkeep,
                             const struct vex_live_collection *collection,
                             struct vex_index_body *out);

struct vex_upkeep_counters {
    uint64_t checkpoints;
    uint64_t checkpoint_failures;
    uint64_t merges;
    uint64_t merge_failures;
    uint64_t merged_bytes; /* of shared memory written by merges */
    uint64_t running;      /* enum vex_upkeep_kind of the job under way, 0 = none */
    char last_error[96];   /* of a failed job; empty after a success */
};
void vex_upkeep_get_counters(const struct vex_upkeep *upkeep, struct vex_upkeep_counters *out);

#endif
