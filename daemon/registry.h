/*
 * The registry: which collections there are, and for each id the row that holds it now.
 *
 * It describes the *staged* state, which runs ahead of the published one by the records that are
 * not yet durable. Rows and deaths are written straight into shared memory; readers do not see them
 * before a view says so (segment.h), so staging needs no second copy and publishing moves no data.
 *
 * A vector's location is (segment, row). vex_registry_get_offset finds it,
 * vex_registry_mark_deleted ends it, vex_registry_update_offset makes a new one and ends the old.
 *
 * Thread-safety: the daemon's main thread.
 */
#ifndef VEX_DAEMON_REGISTRY_H
#define VEX_DAEMON_REGISTRY_H

#include <stdbool.h>
#include <stdint.h>

#include <vex/status.h>

#include "base/bytes.h"
#include "daemon/publisher.h"
#include "shm/control.h"

/* How fast rows arrive: upkeep's notes. */
struct vex_arrivals {
    uint64_t rows_at_sample;
    uint64_t sampled_ms; /* 0 = never */
    uint64_t since_ms;   /* of the load under way */
    bool is_load;
};

struct vex_live_collection {
    struct vex_collection_facts facts;
    uint32_t slot;                                 /* in the control region */
    struct vex_home *homes[VEX_LIST_SEGMENTS_MAX]; /* oldest first; the last one is appended to */
    uint32_t homes_count;
    uint64_t list_id; /* 0 = no list yet, because no segment */
    uint32_t list_block;
    uint32_t spare_block; /* for the next list */
    bool list_changed;    /* homes differ from the published list; spare_block is taken */
    bool announced;       /* its entry is in the control region */
    bool dropped;
    uint32_t tail_rows_most; /* rows that the next tail has room for, 0 = by the amount of data */
    bool dirty;              /* in the registry's list of collections to publish */
    uint64_t live_rows;
    uint64_t dead_rows; /* that still have a place in a segment */
    uint64_t shm_bytes;
    uint64_t appended_rows; /* since the start */
    struct vex_arrivals arrivals;
    uint64_t next_id; /* for ids made here: one above the largest seen */
    uint64_t lsn;     /* last record that changed it */
    /* Its segment files are damaged and were left alone: neither read nor written, only dropped. */
    bool quarantined;
};

struct vex_location {
    uint32_t home;
    uint32_t row;
};

struct vex_registry;

enum vex_status vex_registry_open(struct vex_publisher *publisher,
                                  struct vex_registry **out_registry, struct vex_error *error);
/* Retires all segments. NULL is allowed. */
void vex_registry_close(struct vex_registry *registry);

struct vex_live_collection *vex_registry_by_id(struct vex_registry *registry, uint32_t id);
struct vex_live_collection *vex_registry_by_name(struct vex_registry *registry, const char *name);
uint32_t vex_registry_count(const struct vex_registry *registry);
/* The id that the next collection gets. */
uint32_t vex_registry_next_id(const struct vex_registry *registry);
void vex_registry_totals(const struct vex_registry *registry, uint64_t *out_live,
                         uint64_t *out_dead);

/* What the live rows would need alone: vectors, ids and payloads. */
uint64_t vex_registry_live_bytes(const struct vex_registry *registry);

/* Whether vex_registry_create would find room. Errors: LIMIT, NOMEM. */
enum vex_status vex_registry_can_create(struct vex_registry *registry, struct vex_error *error);
/* The caller has checked name, id and room. */
struct vex_live_collection *vex_registry_create(struct vex_registry *registry,
                                                const struct vex_collection_facts *facts,
                                                uint64_t lsn);
void vex_registry_drop(struct vex_registry *registry, struct vex_live_collection *collection,
                       uint64_t lsn);

/* Another index is asked for: kind, m, ef_construction and lists of `facts`. */
void vex_registry_alter(struct vex_registry *registry, struct vex_live_collection *collection,
                        const struct vex_collection_facts *facts, uint64_t lsn);

/* True and the location of the live row of `id`. */
bool vex_registry_get_offset(const struct vex_live_collection *collection, uint64_t id,
                             struct vex_location *out);
const void *vex_registry_payload(const struct vex_live_collection *collection,
                                 struct vex_location location, size_t *out_bytes);

/*
 * Makes sure that `rows` rows, the i-th with payload_bytes[i] bytes of payload, can be put one after
 * the other; exactly these must follow. At most one segment is added. Errors: NO_SPACE, NOMEM; nothing
 * changed then.
 */
enum vex_status vex_registry_reserve(struct vex_registry *registry,
                                     struct vex_live_collection *collection, uint32_t rows,
                                     const uint32_t *payload_bytes, struct vex_error *error);
/* Appends a row for `id`, which is found there from now on, and ends the one that held it (*old, NULL =
 * none), at `lsn`. */
void vex_registry_update_offset(struct vex_registry *registry,
                                struct vex_live_collection *collection, uint64_t id,
                                const float *vector, const void *payload, size_t payload_bytes,
                                const struct vex_location *old, uint64_t lsn);
void vex_registry_mark_deleted(struct vex_registry *registry,
                               struct vex_live_collection *collection, struct vex_location location,
                               uint64_t lsn);

/* Seals every segment, of all collections or of one: the next row goes to a new one. */
void vex_registry_seal(struct vex_registry *registry);
void vex_registry_seal_collection(struct vex_live_collection *collection);
/* Seals the tail, which has rows, long before it is full; the next one is small, too. */
void vex_registry_seal_tail(struct vex_live_collection *collection);
/* Gives the unused memory of a sealed segment back in the books, after vex_home_trim. `collection` is NULL
 * if it has been dropped meanwhile. */
void vex_registry_note_trimmed(struct vex_registry *registry,
                               struct vex_live_collection *collection, struct vex_home *home,
                               uint64_t held_bytes);

/*
 * A merge: adjacent sealed segments are about to be replaced by one that has their rows alive at the staged LSN.
 * A worker copies meanwhile; deaths that come in are noted here and carried over at the end. Several merges of
 * different segments may be under way. Zeroed, it is none.
 */
struct vex_merge_claim {
    struct vex_live_collection *collection; /* NULL = none, or its collection was dropped */
    struct vex_home *first;
    uint32_t count;
    bool incomplete;               /* memory was short for a death */
    struct vex_buffer late_deaths; /* struct late_death each */
    struct vex_merge_claim *next;  /* in the registry's list */
};

/* `count` segments from the one numbered `first` on, none of them claimed. The claim stays where it is until it
 * is ended or aborted. */
void vex_registry_begin_merge(struct vex_registry *registry, struct vex_merge_claim *claim,
                              struct vex_live_collection *collection, uint32_t first,
                              uint32_t count);
/*
 * Puts `*merged` (NULL: no row was alive) in place of the segments and takes it, or gives the merge up if it
 * is not possible (its collection was dropped, memory is short): *merged is then left to the caller. True if it
 * was done.
 */
bool vex_registry_end_merge(struct vex_registry *registry, struct vex_merge_claim *claim,
                            struct vex_home **merged, struct vex_error *error);
void vex_registry_abort_merge(struct vex_registry *registry, struct vex_merge_claim *claim);

/* For restoring a checkpoint: a collection as it was, without its segments; and those, oldest first. */
void vex_registry_set_next_collection_id(struct vex_registry *registry, uint32_t next_id);
enum vex_status vex_registry_add_restored(struct vex_registry *registry,
                                          struct vex_live_collection *collection,
                                          struct vex_home *home, struct vex_error *error);

/* Whether anything staged is not captured yet, a changed list of segments included. */
bool vex_registry_is_dirty(const struct vex_registry *registry);
/* The collection in a slot below VEX_PLACES_MAX, NULL if there is none or it is dropped. */
struct vex_live_collection *vex_registry_at(const struct vex_registry *registry, uint32_t slot);

/*
 * Publishing in two steps. Capture takes down the staged state of every dirty collection, at the
 * moment a batch is sealed. Apply, once that batch is durable, writes it to the control region and
 * publishes. One capture can be outstanding.
 */
void vex_registry_capture(struct vex_registry *registry);
void vex_registry_apply(struct vex_registry *registry, uint64_t lsn);
/* Marks a slot of the control region as free again. */
void vex_registry_reuse_slot(void *registry, uint32_t slot);

#endif
