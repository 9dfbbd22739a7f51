/*
 * The control region: publishing states of collections, and reading them.
 *
 * The daemon is the only writer. It publishes in this order: the cells of the collections that
 * changed, each collection's `view`, `published_lsn`, and last `current`. A reader pins (pin.h),
 * loads `published_lsn`, then a collection's view: it gets a state at least as new as that LSN,
 * complete and immutable. All functions take the mapped region and never map anything themselves.
 *
 * Readers do not trust the bytes: indexes and counts are checked before use. Thread-safety: writer
 * functions: one thread. Reader functions: any number, any time.
 */
#ifndef VEX_SHM_CONTROL_H
#define VEX_SHM_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

#include <vex/status.h>

#include "shm/layout.h"

/* A state of a collection, as plain values. */
struct vex_view_state {
    uint64_t lsn;
    uint64_t list_id;
    uint64_t live_rows;
    uint64_t dead_rows;
    uint64_t shm_bytes;
    uint32_t list_block;
    uint32_t tail_rows;
};

/* What a collection is. The index asked for, which is kind, m, ef_construction and lists, may be altered; the
 * rest does not change while it lives. */
struct vex_collection_facts {
    uint32_t id;
    uint32_t dim;
    enum vex_metric metric;
    enum vex_index_kind index;
    uint32_t m; /* of the graph */
    uint32_t ef_construction;
    enum vex_storage storage;
    uint32_t lists; /* of a segment, 0 = by its size */
    char name[VEX_NAME_MAX + 1];
};

/* NULL, or what is out of bounds; the name is not looked at. */
const char *vex_collection_facts_fault(const struct vex_collection_facts *facts);

/* Hash of sizes and offsets; a library and a daemon that differ in it refuse each other. */
uint64_t vex_layout_hash(void);

/* ---- writer ---- */

/* Fills a zeroed region. Nothing is visible before vex_control_ready. */
void vex_control_init(void *region, const uint8_t *key, uint32_t daemon_pid);
void vex_control_ready(void *region);
void vex_control_set_state(void *region, enum vex_daemon_state state);
/* Says that the daemon is alive; called at least twice a second. */
void vex_control_beat(void *region);
/* The list block to fill before a view names it. Its memory must have been allocated. */
struct vex_list_block *vex_control_list_block(void *region, uint32_t block);
void vex_control_add_collection(void *region, uint32_t slot,
                                const struct vex_collection_facts *facts);
/* The index that is asked for from now on; the rest of the facts is as it was. */
void vex_control_set_index(void *region, uint32_t slot, const struct vex_collection_facts *facts);
void vex_control_remove_collection(void *region, uint32_t slot);
void vex_control_set_view(void *region, uint32_t slot, const struct vex_view_state *state);
/* Makes everything set so far the current generation and wakes waiters. Returns its number. */
uint64_t vex_control_publish(void *region, uint64_t lsn);

/* ---- reader ---- */

/* Errors: CORRUPT (not a control region), VERSION (other layout), BUSY (not ready yet). */
enum vex_status vex_control_check(const void *region, uint64_t bytes, const uint8_t *key,
                                  struct vex_error *error);
enum vex_daemon_state vex_control_state(const void *region);
/* vex_clock_ms of the last beat. */
uint64_t vex_control_heartbeat_ms(const void *region);
uint64_t vex_control_generation(const void *region);
uint64_t vex_control_published_lsn(const void *region);
uint64_t vex_control_catalog(const void *region);
/* False if slot `slot` holds no collection. */
bool vex_control_collection(const void *region, uint32_t slot, struct vex_collection_facts *out);
/* NO_COLLECTION or GONE if the slot does not hold collection `id` (any more); CORRUPT if the cells
 * never hold still. The reader is pinned. */
enum vex_status vex_control_view(const void *region, uint32_t slot, uint32_t id,
                                 struct vex_view_state *out);
/* Copies a list out of a block. False if it is not list `list_id` or is damaged. */
bool vex_control_list(const void *region, uint32_t block, uint64_t list_id,
                      struct vex_list_block *out);
/* Blocks until published_lsn >= lsn or the deadline (vex_clock_ns). False on time-out, or when the
 * daemon is gone. */
bool vex_control_wait(const void *region, uint64_t lsn, uint64_t deadline_ns);

#endif
