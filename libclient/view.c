/*
 * From a collection's published view to rows in this process's memory. The idea is in client.h.
 */
#include "libclient/client.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/clock.h"
#include "base/error.h"

#define MIN_LSN_TIMEOUT_MS 5000u
#define STALE_PAUSE_NS 5000000
#define SWEEP_NS 100000000u
#define WAIT_SLICE_NS 100000000u

/* ---- mapped segments ------------------------------------------------------------------------- */

void vex_mapped_release(struct mapped_segment *mapped)
{
    /* pairs: MAPPED_REFERENCES with itself: the last one to let go sees all accesses done. */
    if (atomic_fetch_sub_explicit(&mapped->references, 1, memory_order_acq_rel) == 1) {
        vex_region_close(&mapped->region);
        free(mapped);
    }
}

static struct mapped_segment *share(struct mapped_segment *mapped)
{
    /* relaxed: the caller holds a reference already. */
    (void)atomic_fetch_add_explicit(&mapped->references, 1, memory_order_relaxed);
    return mapped;
}

static enum vex_status map_segment(const struct vex_collection *collection, const uint8_t *key,
                                   uint64_t segment_id, struct mapped_segment **out_mapped,
                                   struct vex_error *error)
{
    struct mapped_segment *mapped = calloc(1, sizeof(*mapped));
    if (!mapped) {
        return vex_error_set(error, VEX_ERR_NOMEM, "map segment: out of memory");
    }
    char name[VEX_REGION_NAME_MAX];
    vex_region_segment_name(name, key, segment_id);
    enum vex_status status = vex_region_open(&mapped->region, name, false, error);
    if (status == VEX_OK) {
        (void)madvise(mapped->region.memory, mapped->region.bytes, MADV_DONTFORK);
        status = vex_segment_attach(&mapped->segment, mapped->region.memory, mapped->region.bytes,
                                    error);
        const struct vex_segment *segment = &mapped->segment;
        if (status == VEX_OK &&
            (segment->segment_id != segment_id || segment->collection_id != collection->facts.id ||
             segment->dim != collection->facts.dim || segment->metric != collection->facts.metric ||
             segment->storage != collection->facts.storage)) {
            status = vex_error_set(error, VEX_ERR_CORRUPT,
                                   "shared memory %s holds another segment than it should", name);
        }
    }
    if (status != VEX_OK) {
        vex_region_close(&mapped->region);
        free(mapped);
        /* A pinned list names it, so it must be there. */
        return status == VEX_ERR_NOT_FOUND
                   ? vex_error_set(error, VEX_ERR_CORRUPT,
                                   "shared memory %s is gone: something removed it from /dev/shm; "
                                   "restart vexd",
                                   name)
                   : status;
    }
    /* relaxed: not shared yet. */
    atomic_store_explicit(&mapped->references, 1, memory_order_relaxed);
    *out_mapped = mapped;
    return VEX_OK;
}

/* ---- the cache ------------------------------------------------------------------------------- */

void vex_cache_free(struct view_cache *cache)
{
    if (cache) {
        for (uint32_t i = 0; i < cache->count; i++) {
            vex_mapped_release(cache->mapped[i]);
        }
        free(cache);
    }
}

static struct view_cache *cache_of(struct vex_collection *collection)
{
    /* pairs: VIEW_CACHE with replace_cache. seq_cst: after the pin, see client.h. */
    return atomic_load_explicit(&collection->cache, memory_order_seq_cst);
}

/* With the collection's lock held. Frees what no reader can still use. */
static void sweep_locked(struct vex_collection *collection)
{
    struct view_cache **link = &collection->replaced;
    while (*link) {
        struct view_cache *item = *link;
        if (vex_db_passed(collection->db, item->replaced_in)) {
            *link = item->next;
            vex_cache_free(item);
        } else {
            link = &item->next;
        }
    }
    uint64_t after_ns = collection->replaced ? vex_clock_ns() + SWEEP_NS : 0;
    /* relaxed: only paces. */
    atomic_store_explicit(&collection->sweep_after_ns, after_ns, memory_order_relaxed);
}

/* Unpinned. A reader that was busy at the replacement must not keep old segments mapped for good. */
static void sweep(struct vex_collection *collection)
{
    /* relaxed: only paces. */
    uint64_t after_ns = atomic_load_explicit(&collection->sweep_after_ns, memory_order_relaxed);
    if (after_ns == 0 || vex_clock_ns() < after_ns ||
        pthread_mutex_trylock(&collection->lock) != 0) {
        return;
    }
    sweep_locked(collection);
    (void)pthread_mutex_unlock(&collection->lock);
}

/* With the collection's lock held. */
static void replace_cache(struct vex_collection *collection, struct view_cache *cache)
{
    struct view_cache *old = cache_of(collection);
    /* pairs: VIEW_CACHE with cache_of. seq_cst: before the epoch. */
    atomic_store_explicit(&collection->cache, cache, memory_order_seq_cst);
    /* pairs: EPOCH with vex_db_pin. seq_cst: whoever reads in this epoch sees the new cache. */
    uint64_t epoch = atomic_fetch_add_explicit(&collection->db->epoch, 1, memory_order_seq_cst) + 1;
    if (old) {
        old->replaced_in = epoch;
        old->next = collection->replaced;
        collection->replaced = old;
    }
    sweep_locked(collection);
}

static bool find_slot(const void *region, uint32_t id, uint32_t *out_slot)
{
    for (uint32_t slot = 0; slot < VEX_PLACES_MAX; slot++) {
        struct vex_collection_facts facts;
        if (vex_control_collection(region, slot, &facts) && facts.id == id) {
            *out_slot = slot;
            return true;
        }
    }
    return false;
}

static enum vex_status gone(const struct vex_collection *collection, struct vex_error *error)
{
    return vex_error_set(error, VEX_ERR_GONE, "collection %s was dropped", collection->facts.name);
}

/* The mapping of `segment_id` in a cache of the same attachment, or NULL. */
static struct mapped_segment *known_mapping(const struct view_cache *cache,
                                            const struct attachment *attachment,
                                            uint64_t segment_id)
{
    for (uint32_t i = 0; cache && cache->serial == attachment->serial && i < cache->count; i++) {
        if (cache->mapped[i]->segment.segment_id == segment_id) {
            return cache->mapped[i];
        }
    }
    return NULL;
}

static enum vex_status more_rows_than_there_are(const struct vex_collection *collection,
                                                struct vex_error *error)
{
    return vex_error_set(error, VEX_ERR_CORRUPT,
                         "collection %s: a view shows more rows than its segment has",
                         collection->facts.name);
}

static enum vex_status fill_cache(struct vex_collection *collection, struct attachment *attachment,
                                  const struct vex_view_state *state, struct view_cache *cache,
                                  struct vex_error *error)
{
    struct vex_list_block list = {0};
    if (state->list_id != 0 &&
        !vex_control_list(attachment->control.memory, state->list_block, state->list_id, &list)) {
        return vex_error_set(error, VEX_ERR_CORRUPT, "the segment list of collection %s is damaged",
                             collection->facts.name);
    }
    cache->list_id = state->list_id;
    const struct view_cache *old = cache_of(collection);
    for (uint32_t i = 0; i < list.segments_count; i++) {
        uint64_t segment_id = list.segments[i].segment_id;
        struct mapped_segment *mapped = known_mapping(old, attachment, segment_id);
        if (mapped) {
            (void)share(mapped);
        } else {
            enum vex_status status =
                map_segment(collection, attachment->key, segment_id, &mapped, error);
            if (status != VEX_OK) {
                return status;
            }
        }
        cache->mapped[i] = mapped;
        cache->segments[i] = (struct vex_view_segment){&mapped->segment, list.segments[i].rows};
        cache->count = i + 1;
        if (list.segments[i].rows > mapped->segment.capacity_rows) {
            return more_rows_than_there_are(collection, error);
        }
    }
    return VEX_OK;
}

/* The slow way, pinned: brings the cache up to the view that is current now. */
static enum vex_status refresh_locked(struct vex_collection *collection,
                                      struct attachment *attachment, struct vex_view_state *state,
                                      struct view_cache **out_cache, struct vex_error *error)
{
    struct view_cache *old = cache_of(collection);
    uint32_t slot = 0;
    if (old && old->serial == attachment->serial) {
        slot = old->slot;
    } else if (!find_slot(attachment->control.memory, collection->facts.id, &slot)) {
        return gone(collection, error);
    }
    enum vex_status status =
        vex_control_view(attachment->control.memory, slot, collection->facts.id, state);
    if (status != VEX_OK) {
        return status == VEX_ERR_GONE
                   ? gone(collection, error)
                   : vex_error_set(error, status, "the views of collection %s are damaged",
                                   collection->facts.name);
    }
    if (old && old->serial == attachment->serial && old->list_id == state->list_id) {
        *out_cache = old; /* another thread was faster */
        return VEX_OK;
    }
    struct view_cache *cache = calloc(1, sizeof(*cache));
    if (!cache) {
        return vex_error_set(error, VEX_ERR_NOMEM, "view: out of memory");
    }
    cache->serial = attachment->serial;
    cache->slot = slot;
    status = fill_cache(collection, attachment, state, cache, error);
    if (status != VEX_OK) {
        vex_cache_free(cache);
        return status;
    }
    replace_cache(collection, cache);
    *out_cache = cache;
    return VEX_OK;
}

static enum vex_status find_view(struct vex_collection *collection, struct attachment *attachment,
                                 struct vex_view_state *state, struct view_cache **out_cache,
                                 struct vex_error *error)
{
    struct view_cache *cache = cache_of(collection);
    if (cache && cache->serial == attachment->serial &&
        vex_control_view(attachment->control.memory, cache->slot, collection->facts.id, state) ==
            VEX_OK &&
        state->list_id == cache->list_id) {
        *out_cache = cache;
        return VEX_OK;
    }
    (void)pthread_mutex_lock(&collection->lock);
    enum vex_status status = refresh_locked(collection, attachment, state, out_cache, error);
    (void)pthread_mutex_unlock(&collection->lock);
    return status;
}

/* ---- reading --------------------------------------------------------------------------------- */

static enum vex_status fill_reading(const struct vex_collection *collection,
                                    const struct vex_view_state *state, uint64_t published_lsn,
                                    struct reading *out, struct vex_error *error)
{
    const struct view_cache *cache = out->cache;
    if (cache->count) {
        uint32_t tail = cache->count - 1;
        if (state->tail_rows > cache->segments[tail].segment->capacity_rows) {
            return more_rows_than_there_are(collection, error);
        }
        memcpy(out->segments, cache->segments, cache->count * sizeof(out->segments[0]));
        out->segments[tail].visible_rows = state->tail_rows;
    }
    out->view = (struct vex_view){
        .segments = out->segments,
        .segments_count = cache->count,
        .dim = collection->facts.dim,
        .metric = collection->facts.metric,
        .lsn = state->lsn,
    };
    out->live_rows = state->live_rows;
    out->dead_rows = state->dead_rows;
    out->shm_bytes = state->shm_bytes;
    /* A record between the view's own LSN and the published one did not touch this collection. */
    out->lsn = state->lsn > published_lsn ? state->lsn : published_lsn;
    return VEX_OK;
}

static void end_pin(struct reading *reading, bool own_slot)
{
    (void)vex_db_unpin(reading->slot);
    if (!own_slot) {
        vex_attachment_give_slot(reading->slot);
    }
}

/* Pinned: waits until `min_lsn` is published. False if it is not, in time or by this daemon. */
static bool await_lsn(struct reading *reading, uint64_t min_lsn, uint64_t deadline_ns)
{
    const void *region = reading->attachment->control.memory;
    for (;;) {
        uint64_t slice_ns = vex_clock_ns() + WAIT_SLICE_NS;
        bool reached =
            vex_control_wait(region, min_lsn, slice_ns < deadline_ns ? slice_ns : deadline_ns);
        /* Nothing has been reached yet, and a long wait must not keep memory alive. */
        reading->slot->last_generation =
            vex_pin_refresh(region, reading->slot->slot, reading->slot->last_generation);
        if (reached || slice_ns >= deadline_ns || vex_attachment_is_over(reading->attachment)) {
            return reached;
        }
    }
}

static enum vex_status try_begin(struct vex_collection *collection, bool own_slot, uint64_t min_lsn,
                                 uint64_t deadline_ns, struct reading *out, struct vex_error *error)
{
    sweep(collection);
    out->attachment = NULL;
    enum vex_status status =
        vex_db_pin(collection->db, own_slot, &out->attachment, &out->slot, error);
    if (status != VEX_OK) {
        return status;
    }
    const void *region = out->attachment->control.memory;
    out->over = vex_attachment_is_over(out->attachment);
    /* Before the view: whatever is covered by this LSN is in the view that is loaded next. */
    uint64_t published_lsn = vex_control_published_lsn(region);
    if (published_lsn < min_lsn) {
        if (!await_lsn(out, min_lsn, deadline_ns)) {
            out->over = vex_attachment_is_over(out->attachment);
            end_pin(out, own_slot);
            return VEX_ERR_TIMEOUT;
        }
        published_lsn = vex_control_published_lsn(region);
    }
    struct vex_view_state state;
    status = find_view(collection, out->attachment, &state, &out->cache, error);
    if (status == VEX_OK) {
        status = fill_reading(collection, &state, published_lsn, out, error);
    }
    if (status != VEX_OK) {
        /* The daemon may have gone since the first look, and its memory with it. */
        out->over = out->over || vex_attachment_is_over(out->attachment);
        end_pin(out, own_slot);
    }
    return status;
}

/* True if try_begin got as far as a pin, so that out->over means something. */
static bool pinned_status(enum vex_status status)
{
    return status == VEX_OK || status == VEX_ERR_TIMEOUT || status == VEX_ERR_GONE ||
           status == VEX_ERR_CORRUPT;
}

static enum vex_status begin_somehow(struct vex_collection *collection, bool own_slot,
                                     uint64_t min_lsn, uint32_t timeout_ms, struct reading *out,
                                     struct vex_error *error)
{
    uint64_t deadline_ns = 0;
    if (min_lsn) {
        timeout_ms = timeout_ms ? timeout_ms : MIN_LSN_TIMEOUT_MS;
        deadline_ns = vex_clock_ns() + timeout_ms * UINT64_C(1000000);
    }
    for (bool attached = false;;) {
        enum vex_status status = try_begin(collection, own_slot, min_lsn, deadline_ns, out, error);
        bool was_over = pinned_status(status) && out->over;
        if (was_over && !attached) {
            /* The daemon may have been replaced: its successor has a fresher state. */
            if (status == VEX_OK) {
                end_pin(out, own_slot);
            }
            vex_db_try_attach(collection->db);
            attached = true;
            continue;
        }
        if (status != VEX_OK && out->attachment &&
            vex_db_has_replaced(collection->db, out->attachment)) {
            continue; /* what failed belonged to a daemon that has a successor by now */
        }
        if (was_over && status == VEX_ERR_CORRUPT) {
            return vex_error_set(
                error, VEX_ERR_UNAVAILABLE,
                "vexd has stopped, and this part of collection %s was not mapped yet",
                collection->facts.name);
        }
        if (status != VEX_ERR_TIMEOUT) {
            return status;
        }
        if (!out->over || vex_clock_ns() >= deadline_ns) {
            return vex_error_set(error, VEX_ERR_TIMEOUT, "LSN %llu was not published in time",
                                 (unsigned long long)min_lsn);
        }
        attached = false;
        (void)nanosleep(&(struct timespec){0, STALE_PAUSE_NS}, NULL);
    }
}

enum vex_status vex_reading_begin(struct vex_collection *collection, bool own_slot,
                                  uint64_t min_lsn, uint32_t timeout_ms, struct reading *out,
                                  struct vex_error *error)
{
    struct vex_error failure; /* of one attempt, which is not yet the caller's */
    enum vex_status status =
        begin_somehow(collection, own_slot, min_lsn, timeout_ms, out, &failure);
    if (status != VEX_OK && error) {
        *error = failure;
    }
    return status;
}
