#include "shm/control.h"

#include <limits.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/panic.h"

#define VIEW_ATTEMPTS_MAX 100000u /* each failed attempt means a publication went by */

static struct vex_control *control_of(void *region)
{
    return region;
}

static const struct vex_control *control_at(const void *region)
{
    return region;
}

static struct vex_collection_entry *entry_of(void *region, uint32_t slot)
{
    VEX_ASSERT(slot < VEX_PLACES_MAX);
    return (struct vex_collection_entry *)(void *)((uint8_t *)region + VEX_ENTRIES_OFFSET) + slot;
}

static const struct vex_collection_entry *entry_at(const void *region, uint32_t slot)
{
    VEX_ASSERT(slot < VEX_PLACES_MAX);
    return (const struct vex_collection_entry *)(const void *)((const uint8_t *)region +
                                                               VEX_ENTRIES_OFFSET) +
           slot;
}

const char *vex_collection_facts_fault(const struct vex_collection_facts *facts)
{
    if (facts->dim < 1 || facts->dim > VEX_DIM_MAX) {
        return "the dimension is not within 1 to 65535";
    }
    if (facts->metric < VEX_METRIC_L2 || facts->metric > VEX_METRIC_DOT) {
        return "unknown metric";
    }
    if ((uint32_t)facts->index > VEX_INDEX_IVF) {
        return "unknown kind of index";
    }
    if (facts->m < VEX_HNSW_M_MIN || facts->m > VEX_HNSW_M_MAX) {
        return "M is not within 4 to 64";
    }
    if (facts->ef_construction < VEX_HNSW_EF_CONSTRUCTION_MIN ||
        facts->ef_construction > VEX_HNSW_EF_CONSTRUCTION_MAX) {
        return "ef_construction is not within 8 to 4096";
    }
    if ((uint32_t)facts->storage > VEX_STORAGE_INT8) {
        return "unknown kind of storage";
    }
    if (facts->lists > VEX_LISTS_MAX) {
        return "the number of lists is not within 0 to 65536";
    }
    return NULL;
}

uint64_t vex_layout_hash(void)
{
    const uint64_t facts[] = {
        VEX_LAYOUT_VERSION,
        sizeof(struct vex_control),
        offsetof(struct vex_control, current),
        offsetof(struct vex_control, published_lsn),
        offsetof(struct vex_control, state),
        offsetof(struct vex_control, catalog),
        sizeof(struct vex_collection_entry),
        offsetof(struct vex_collection_entry, view),
        sizeof(struct vex_view_cell),
        offsetof(struct vex_view_cell, tail_rows),
        VEX_VIEW_RING,
        VEX_PLACES_MAX,
        offsetof(struct vex_control, heartbeat_ms),
        VEX_LIST_BLOCKS_MAX,
        sizeof(struct vex_list_block),
        sizeof(struct vex_slot_page),
        VEX_SLOTS_PER_PAGE,
        VEX_LISTS_OFFSET,
        offsetof(struct vex_collection_entry, storage),
        offsetof(struct vex_collection_entry, tuning),
        VEX_TUNING_LISTS_SHIFT,
    };
    uint64_t hash = vex_hash64(facts, sizeof(facts), VEX_CONTROL_MAGIC);
    return hash ? hash : 1;
}

/* ---- the tuning word ------------------------------------------------------------------------- */

_Static_assert(VEX_INDEX_IVF < 1u << VEX_TUNING_M_SHIFT, "tuning");
_Static_assert(VEX_HNSW_M_MAX < 1u << (VEX_TUNING_EF_SHIFT - VEX_TUNING_M_SHIFT), "tuning");
_Static_assert(VEX_HNSW_EF_CONSTRUCTION_MAX < 1u << (VEX_TUNING_LISTS_SHIFT - VEX_TUNING_EF_SHIFT),
               "tuning");

static uint64_t tuning_of(const struct vex_collection_facts *facts)
{
    return (uint64_t)facts->index << VEX_TUNING_INDEX_SHIFT |
           (uint64_t)facts->m << VEX_TUNING_M_SHIFT |
           (uint64_t)facts->ef_construction << VEX_TUNING_EF_SHIFT |
           (uint64_t)facts->lists << VEX_TUNING_LISTS_SHIFT;
}

static void set_tuning(struct vex_collection_facts *facts, uint64_t tuning)
{
    facts->index = (enum vex_index_kind)(tuning >> VEX_TUNING_INDEX_SHIFT & 0xff);
    facts->m = (uint32_t)(tuning >> VEX_TUNING_M_SHIFT & 0xff);
    facts->ef_construction = (uint32_t)(tuning >> VEX_TUNING_EF_SHIFT & 0xffff);
    facts->lists = (uint32_t)(tuning >> VEX_TUNING_LISTS_SHIFT);
}

/* ---- writer ---------------------------------------------------------------------------------- */

void vex_control_init(void *region, const uint8_t *key, uint32_t daemon_pid)
{
    struct vex_control *control = control_of(region);
    control->magic = VEX_CONTROL_MAGIC;
    control->version = VEX_LAYOUT_VERSION;
    memcpy(control->key, key, VEX_UUID_BYTES);
    control->region_bytes = VEX_CONTROL_REGION_BYTES;
    control->collections_max = VEX_COLLECTIONS_MAX;
    control->daemon_pid = daemon_pid;
    /* relaxed: readers come only after vex_control_ready. */
    atomic_store_explicit(&control->current, 1, memory_order_relaxed);
    /* relaxed: as above. */
    atomic_store_explicit(&control->state, VEX_DAEMON_RUNNING, memory_order_relaxed);
}

void vex_control_ready(void *region)
{
    /* pairs: CONTROL_READY with vex_control_check. */
    atomic_store_explicit(&control_of(region)->layout_hash, vex_layout_hash(),
                          memory_order_release);
}

static void wake_waiters(struct vex_control *control)
{
    /* relaxed: only this thread stores; the futex call orders it against sleepers. */
    uint32_t wake = atomic_load_explicit(&control->wake, memory_order_relaxed);
    /* pairs: WAKE with vex_control_wait. */
    atomic_store_explicit(&control->wake, wake + 1, memory_order_release);
    (void)syscall(SYS_futex, &control->wake, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void vex_control_set_state(void *region, enum vex_daemon_state state)
{
    /* pairs: DAEMON_STATE with vex_control_state. */
    atomic_store_explicit(&control_of(region)->state, (uint32_t)state, memory_order_release);
    wake_waiters(control_of(region));
}

void vex_control_beat(void *region)
{
    /* pairs: HEARTBEAT with vex_control_heartbeat_ms. */
    atomic_store_explicit(&control_of(region)->heartbeat_ms, vex_clock_ms(), memory_order_release);
}

struct vex_list_block *vex_control_list_block(void *region, uint32_t block)
{
    VEX_ASSERT(block < VEX_LIST_BLOCKS_MAX);
    return (struct vex_list_block *)(void *)((uint8_t *)region + VEX_LISTS_OFFSET) + block;
}

static void bump_catalog(void *region)
{
    struct vex_control *control = control_of(region);
    /* relaxed: only this thread stores. */
    uint64_t catalog = atomic_load_explicit(&control->catalog, memory_order_relaxed);
    /* pairs: CATALOG with vex_control_catalog. */
    atomic_store_explicit(&control->catalog, catalog + 1, memory_order_release);
}

void vex_control_add_collection(void *region, uint32_t slot,
                                const struct vex_collection_facts *facts)
{
    struct vex_collection_entry *entry = entry_of(region, slot);
    /* relaxed: only this thread stores. */
    VEX_ASSERT(atomic_load_explicit(&entry->id, memory_order_relaxed) == 0);
    VEX_ASSERT(facts->id != 0);
    entry->dim = facts->dim;
    entry->metric = facts->metric;
    entry->storage = facts->storage;
    vex_control_set_index(region, slot, facts);
    memcpy(entry->name, facts->name, sizeof(entry->name));
    /* pairs: COLLECTION_ID with vex_control_collection: carries the facts and the view. */
    atomic_store_explicit(&entry->id, facts->id, memory_order_release);
    bump_catalog(region);
}

void vex_control_set_index(void *region, uint32_t slot, const struct vex_collection_facts *facts)
{
    /* relaxed: one word that says all of it and carries nothing else. */
    atomic_store_explicit(&entry_of(region, slot)->tuning, tuning_of(facts), memory_order_relaxed);
}

void vex_control_remove_collection(void *region, uint32_t slot)
{
    /* pairs: COLLECTION_ID with vex_control_view, which then answers GONE. */
    atomic_store_explicit(&entry_of(region, slot)->id, 0, memory_order_release);
    bump_catalog(region);
}

void vex_control_set_view(void *region, uint32_t slot, const struct vex_view_state *state)
{
    struct vex_collection_entry *entry = entry_of(region, slot);
    /* relaxed: only this thread stores. */
    uint64_t sequence = atomic_load_explicit(&entry->view, memory_order_relaxed) + 1;
    struct vex_view_cell *cell = &entry->views[sequence % VEX_VIEW_RING];
    /* A lapped reader that sees any of the stores below also sees this one, because each of them
     * releases it: it then finds the sequence changed and starts again. */
    /* relaxed: ordered by the release stores that follow. */
    atomic_store_explicit(&cell->sequence, 0, memory_order_relaxed);
    /* pairs: VIEW_CELL with vex_control_view. */
    atomic_store_explicit(&cell->lsn, state->lsn, memory_order_release);
    /* pairs: VIEW_CELL */
    atomic_store_explicit(&cell->list_id, state->list_id, memory_order_release);
    /* pairs: VIEW_CELL */
    atomic_store_explicit(&cell->live_rows, state->live_rows, memory_order_release);
    /* pairs: VIEW_CELL */
    atomic_store_explicit(&cell->dead_rows, state->dead_rows, memory_order_release);
    /* pairs: VIEW_CELL */
    atomic_store_explicit(&cell->shm_bytes, state->shm_bytes, memory_order_release);
    /* pairs: VIEW_CELL */
    atomic_store_explicit(&cell->list_block, state->list_block, memory_order_release);
    /* pairs: VIEW_CELL */
    atomic_store_explicit(&cell->tail_rows, state->tail_rows, memory_order_release);
    /* pairs: VIEW_CELL */
    atomic_store_explicit(&cell->sequence, sequence, memory_order_release);
    /* pairs: VIEW with vex_control_view: carries the cell, the list block and the rows it shows. */
    atomic_store_explicit(&entry->view, sequence, memory_order_release);
}

uint64_t vex_control_publish(void *region, uint64_t lsn)
{
    struct vex_control *control = control_of(region);
    /* relaxed: only this thread stores. */
    VEX_ASSERT(atomic_load_explicit(&control->published_lsn, memory_order_relaxed) <= lsn);
    /* relaxed: only this thread stores. */
    uint64_t generation = atomic_load_explicit(&control->current, memory_order_relaxed) + 1;
    /* pairs: PUBLISHED_LSN with vex_control_published_lsn: carries the views set before. */
    atomic_store_explicit(&control->published_lsn, lsn, memory_order_release);
    /* pairs: GENERATION with vex_pin. seq_cst, because the slot scan that follows must not be
     * ordered before it: see pin.h. */
    atomic_store_explicit(&control->current, generation, memory_order_seq_cst);
    wake_waiters(control);
    return generation;
}

/* ---- reader ---------------------------------------------------------------------------------- */

enum vex_status vex_control_check(const void *region, uint64_t bytes, const uint8_t *key,
                                  struct vex_error *error)
{
    const struct vex_control *control = control_at(region);
    if (bytes < VEX_PAGE_BYTES) {
        return vex_error_set(error, VEX_ERR_CORRUPT, "control region: only %llu bytes",
                             (unsigned long long)bytes);
    }
    /* pairs: CONTROL_READY with vex_control_ready. */
    uint64_t hash = atomic_load_explicit(&control->layout_hash, memory_order_acquire);
    if (hash == 0) {
        return vex_error_set(error, VEX_ERR_BUSY, "control region: the daemon is still starting");
    }
    if (control->magic != VEX_CONTROL_MAGIC) {
        return vex_error_set(error, VEX_ERR_CORRUPT, "control region: bad magic %08x",
                             control->magic);
    }
    if (hash != vex_layout_hash()) {
        return vex_error_set(error, VEX_ERR_VERSION,
                             "control region: layout %u (%016llx), this library reads layout %u "
                             "(%016llx); use the libvex that came with the running vexd",
                             control->version, (unsigned long long)hash, VEX_LAYOUT_VERSION,
                             (unsigned long long)vex_layout_hash());
    }
    if (bytes < VEX_CONTROL_REGION_BYTES || memcmp(control->key, key, VEX_UUID_BYTES) != 0) {
        return vex_error_set(error, VEX_ERR_CORRUPT,
                             "control region: wrong size or another instance's");
    }
    return VEX_OK;
}

enum vex_daemon_state vex_control_state(const void *region)
{
    /* pairs: DAEMON_STATE with vex_control_set_state. */
    return (enum vex_daemon_state)atomic_load_explicit(&control_at(region)->state,
                                                       memory_order_acquire);
}

uint64_t vex_control_heartbeat_ms(const void *region)
{
    /* pairs: HEARTBEAT with vex_control_beat. */
    return atomic_load_explicit(&control_at(region)->heartbeat_ms, memory_order_acquire);
}

uint64_t vex_control_generation(const void *region)
{
    /* pairs: GENERATION with vex_control_publish. */
    return atomic_load_explicit(&control_at(region)->current, memory_order_acquire);
}

uint64_t vex_control_published_lsn(const void *region)
{
    /* pairs: PUBLISHED_LSN with vex_control_publish. */
    return atomic_load_explicit(&control_at(region)->published_lsn, memory_order_acquire);
}

uint64_t vex_control_catalog(const void *region)
{
    /* pairs: CATALOG with bump_catalog. */
    return atomic_load_explicit(&control_at(region)->catalog, memory_order_acquire);
}

bool vex_control_collection(const void *region, uint32_t slot, struct vex_collection_facts *out)
{
    const struct vex_collection_entry *entry = entry_at(region, slot);
    /* pairs: COLLECTION_ID with vex_control_add_collection. */
    out->id = atomic_load_explicit(&entry->id, memory_order_acquire);
    if (out->id == 0) {
        return false;
    }
    out->dim = entry->dim;
    out->metric = (enum vex_metric)entry->metric;
    out->storage = (enum vex_storage)entry->storage;
    /* relaxed: as in vex_control_set_index; the first one came with the id. */
    set_tuning(out, atomic_load_explicit(&entry->tuning, memory_order_relaxed));
    memcpy(out->name, entry->name, sizeof(out->name));
    out->name[VEX_NAME_MAX] = 0;
    return vex_collection_facts_fault(out) == NULL;
}

/* One attempt; false if the cell was overwritten meanwhile. */
static bool read_cell(const struct vex_view_cell *cell, uint64_t sequence,
                      struct vex_view_state *out)
{
    /* pairs: VIEW_CELL with vex_control_set_view. */
    if (atomic_load_explicit(&cell->sequence, memory_order_acquire) != sequence) {
        return false;
    }
    /* Acquire loads keep their order, so that the second look at the sequence comes last. */
    /* pairs: VIEW_CELL */
    out->lsn = atomic_load_explicit(&cell->lsn, memory_order_acquire);
    /* pairs: VIEW_CELL */
    out->list_id = atomic_load_explicit(&cell->list_id, memory_order_acquire);
    /* pairs: VIEW_CELL */
    out->live_rows = atomic_load_explicit(&cell->live_rows, memory_order_acquire);
    /* pairs: VIEW_CELL */
    out->dead_rows = atomic_load_explicit(&cell->dead_rows, memory_order_acquire);
    /* pairs: VIEW_CELL */
    out->shm_bytes = atomic_load_explicit(&cell->shm_bytes, memory_order_acquire);
    /* pairs: VIEW_CELL */
    out->list_block = atomic_load_explicit(&cell->list_block, memory_order_acquire);
    /* pairs: VIEW_CELL */
    out->tail_rows = atomic_load_explicit(&cell->tail_rows, memory_order_acquire);
    /* pairs: VIEW_CELL */
    return atomic_load_explicit(&cell->sequence, memory_order_acquire) == sequence;
}

enum vex_status vex_control_view(const void *region, uint32_t slot, uint32_t id,
                                 struct vex_view_state *out)
{
    const struct vex_collection_entry *entry = entry_at(region, slot);
    for (uint32_t attempt = 0; attempt < VIEW_ATTEMPTS_MAX; attempt++) {
        /* pairs: COLLECTION_ID with vex_control_remove_collection. */
        if (atomic_load_explicit(&entry->id, memory_order_acquire) != id) {
            return VEX_ERR_GONE;
        }
        /* pairs: VIEW with vex_control_set_view. */
        uint64_t sequence = atomic_load_explicit(&entry->view, memory_order_acquire);
        if (read_cell(&entry->views[sequence % VEX_VIEW_RING], sequence, out)) {
            return VEX_OK;
        }
    }
    return VEX_ERR_CORRUPT;
}

bool vex_control_list(const void *region, uint32_t block, uint64_t list_id,
                      struct vex_list_block *out)
{
    if (block >= VEX_LIST_BLOCKS_MAX) {
        return false;
    }
    const struct vex_list_block *blocks =
        (const struct vex_list_block *)(const void *)((const uint8_t *)region + VEX_LISTS_OFFSET);
    memcpy(out, &blocks[block], sizeof(*out));
    return out->list_id == list_id && out->segments_count <= VEX_LIST_SEGMENTS_MAX;
}

bool vex_control_wait(const void *region, uint64_t lsn, uint64_t deadline_ns)
{
    const struct vex_control *control = control_at(region);
    for (;;) {
        /* pairs: WAKE with wake_waiters: read before the LSN, so that no publication is missed. */
        uint32_t wake = atomic_load_explicit(&control->wake, memory_order_acquire);
        if (vex_control_published_lsn(region) >= lsn) {
            return true;
        }
        uint64_t now_ns = vex_clock_ns();
        if (now_ns >= deadline_ns || vex_control_state(region) == VEX_DAEMON_GONE) {
            return false;
        }
        uint64_t left_ns = deadline_ns - now_ns;
        struct timespec left = {(time_t)(left_ns / 1000000000u), (long)(left_ns % 1000000000u)};
        (void)syscall(SYS_futex, &control->wake, FUTEX_WAIT, wake, &left, NULL, 0);
    }
}
