#include "daemon/registry.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/panic.h"

#define SEGMENT_BYTES_MIN (256u << 10)
/* A tail; merges make larger ones. With many segments (merges cannot keep up, or have no memory) tails
 * grow, too, so that the list does not run out. */
#define SEGMENT_BYTES_MAX (64u << 20)
#define SEGMENT_BYTES_MAX_CROWDED (1024u << 20)
#define SEGMENTS_CROWDED 64u
#define SEGMENT_ROWS_MIN 64u
#define NEXT_TAIL_TIMES 4u     /* the next tail after one that was sealed early, in rows of that */
#define ROW_OVERHEAD_BYTES 48u /* id, norm, link, payload reference, hash, death */

struct capture {
    struct vex_live_collection *collection;
    struct vex_view_state view;
    struct vex_collection_facts facts;
    bool drop;
};

/* A death that a merge's copy does not know of yet. */
struct late_death {
    uint64_t id;
    uint64_t lsn;
};

struct vex_registry {
    struct vex_publisher *publisher;
    /* By slot; dropped collections stay until their drop is published. */
    struct vex_live_collection *slots[VEX_PLACES_MAX];
    bool slot_busy[VEX_PLACES_MAX];
    uint32_t count;
    uint32_t next_id;
    struct vex_live_collection *dirty[VEX_PLACES_MAX];
    uint32_t dirty_count;
    struct capture captures[VEX_PLACES_MAX];
    uint32_t captures_count;
    struct vex_merge_claim *claims;
    /* Homes that a merge replaced, of collections whose list has not been written since. */
    struct vex_buffer replaced; /* struct replaced_home each */
};

struct replaced_home {
    struct vex_live_collection *collection;
    struct vex_home *home;
};

enum vex_status vex_registry_open(struct vex_publisher *publisher,
                                  struct vex_registry **out_registry, struct vex_error *error)
{
    *out_registry = calloc(1, sizeof(**out_registry));
    if (!*out_registry) {
        return vex_error_set(error, VEX_ERR_NOMEM, "registry: out of memory");
    }
    (*out_registry)->publisher = publisher;
    (*out_registry)->next_id = 1;
    return VEX_OK;
}

static void retire_homes(struct vex_registry *registry, struct vex_live_collection *collection)
{
    for (uint32_t i = 0; i < collection->homes_count; i++) {
        vex_publisher_retire_home(registry->publisher, &collection->homes[i]);
    }
    collection->homes_count = 0;
}

/* The list that no longer names them is on its way. */
static void retire_replaced(struct vex_registry *registry,
                            const struct vex_live_collection *collection)
{
    struct replaced_home *items = (struct replaced_home *)(void *)registry->replaced.data;
    size_t count = registry->replaced.bytes / sizeof(*items);
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (items[i].collection == collection) {
            vex_publisher_retire_home(registry->publisher, &items[i].home);
        } else {
            items[kept++] = items[i];
        }
    }
    registry->replaced.bytes = kept * sizeof(*items);
}

void vex_registry_close(struct vex_registry *registry)
{
    if (!registry) {
        return;
    }
    for (uint32_t slot = 0; slot < VEX_PLACES_MAX; slot++) {
        if (registry->slots[slot]) {
            retire_replaced(registry, registry->slots[slot]);
            retire_homes(registry, registry->slots[slot]);
            free(registry->slots[slot]);
        }
    }
    vex_buffer_deinit(&registry->replaced);
    free(registry);
}

/* ---- collections ----------------------------------------------------------------------------- */

struct vex_live_collection *vex_registry_by_id(struct vex_registry *registry, uint32_t id)
{
    for (uint32_t slot = 0; slot < VEX_PLACES_MAX; slot++) {
        struct vex_live_collection *collection = registry->slots[slot];
        if (collection && !collection->dropped && collection->facts.id == id) {
            return collection;
        }
    }
    return NULL;
}

struct vex_live_collection *vex_registry_by_name(struct vex_registry *registry, const char *name)
{
    for (uint32_t slot = 0; slot < VEX_PLACES_MAX; slot++) {
        struct vex_live_collection *collection = registry->slots[slot];
        if (collection && !collection->dropped && strcmp(collection->facts.name, name) == 0) {
            return collection;
        }
    }
    return NULL;
}

uint32_t vex_registry_count(const struct vex_registry *registry)
{
    return registry->count;
}

uint32_t vex_registry_next_id(const struct vex_registry *registry)
{
    return registry->next_id;
}

void vex_registry_totals(const struct vex_registry *registry, uint64_t *out_live,
                         uint64_t *out_dead)
{
    *out_live = 0;
    *out_dead = 0;
    for (uint32_t slot = 0; slot < VEX_PLACES_MAX; slot++) {
        const struct vex_live_collection *collection = registry->slots[slot];
        if (collection && !collection->dropped) {
            *out_live += collection->live_rows;
            *out_dead += collection->dead_rows;
        }
    }
}

static uint64_t vector_bytes(const struct vex_collection_facts *facts)
{
    return (uint64_t)facts->dim * vex_store_element_bytes(facts->storage);
}

uint64_t vex_registry_live_bytes(const struct vex_registry *registry)
{
    uint64_t bytes = 0;
    for (uint32_t slot = 0; slot < VEX_PLACES_MAX; slot++) {
        const struct vex_live_collection *collection = vex_registry_at(registry, slot);
        for (uint32_t i = 0; collection && i < collection->homes_count; i++) {
            const struct vex_home *home = collection->homes[i];
            uint64_t live = home->writer.rows - home->dead_rows;
            bytes += live * (vector_bytes(&collection->facts) + sizeof(uint64_t));
            /* Payloads of dead rows are taken to be as long as the others. */
            bytes += live ? home->writer.payload_bytes / home->writer.rows * live : 0;
        }
    }
    return bytes;
}

struct vex_live_collection *vex_registry_at(const struct vex_registry *registry, uint32_t slot)
{
    struct vex_live_collection *collection = registry->slots[slot];
    return collection && !collection->dropped ? collection : NULL;
}

bool vex_registry_is_dirty(const struct vex_registry *registry)
{
    return registry->dirty_count > 0;
}

static void mark_dirty(struct vex_registry *registry, struct vex_live_collection *collection)
{
    if (!collection->dirty) {
        collection->dirty = true;
        registry->dirty[registry->dirty_count++] = collection;
    }
}

static bool find_free_slot(const struct vex_registry *registry, uint32_t *out_slot)
{
    for (uint32_t slot = 0; slot < VEX_PLACES_MAX; slot++) {
        if (!registry->slot_busy[slot]) {
            *out_slot = slot;
            return true;
        }
    }
    return false;
}

enum vex_status vex_registry_can_create(struct vex_registry *registry, struct vex_error *error)
{
    uint32_t slot;
    if (registry->count == VEX_COLLECTIONS_MAX) {
        return vex_error_set(error, VEX_ERR_LIMIT, "an instance holds at most %u collections",
                             VEX_COLLECTIONS_MAX);
    }
    if (!find_free_slot(registry, &slot)) {
        return vex_error_set(error, VEX_ERR_NO_SPACE,
                             "the places of dropped collections are still seen by a reader: close "
                             "old snapshots");
    }
    if (registry->next_id == UINT32_MAX) {
        return vex_error_set(error, VEX_ERR_LIMIT, "collection numbers are used up");
    }
    return VEX_OK;
}

struct vex_live_collection *vex_registry_create(struct vex_registry *registry,
                                                const struct vex_collection_facts *facts,
                                                uint64_t lsn)
{
    uint32_t slot = 0;
    bool found = find_free_slot(registry, &slot);
    VEX_ASSERT(found);
    struct vex_live_collection *collection = calloc(1, sizeof(*collection));
    VEX_ASSERT(collection); /* a few KiB; the record is staged already */
    collection->facts = *facts;
    collection->slot = slot;
    collection->lsn = lsn;
    registry->slots[slot] = collection;
    registry->slot_busy[slot] = true;
    registry->count++;
    registry->next_id = facts->id + 1;
    mark_dirty(registry, collection);
    return collection;
}

void vex_registry_drop(struct vex_registry *registry, struct vex_live_collection *collection,
                       uint64_t lsn)
{
    collection->dropped = true;
    collection->lsn = lsn;
    for (struct vex_merge_claim *claim = registry->claims; claim; claim = claim->next) {
        if (claim->collection == collection) {
            claim->collection = NULL;
        }
    }
    registry->count--;
    mark_dirty(registry, collection);
}

void vex_registry_alter(struct vex_registry *registry, struct vex_live_collection *collection,
                        const struct vex_collection_facts *facts, uint64_t lsn)
{
    collection->facts.index = facts->index;
    collection->facts.m = facts->m;
    collection->facts.ef_construction = facts->ef_construction;
    collection->facts.lists = facts->lists;
    collection->lsn = lsn;
    mark_dirty(registry, collection);
}

void vex_registry_reuse_slot(void *registry, uint32_t slot)
{
    ((struct vex_registry *)registry)->slot_busy[slot] = false;
}

/* ---- rows ------------------------------------------------------------------------------------ */

bool vex_registry_get_offset(const struct vex_live_collection *collection, uint64_t id,
                             struct vex_location *out)
{
    if (id >= collection->next_id) {
        return false; /* above all that were ever there, as ids made here are */
    }
    for (uint32_t i = collection->homes_count; i-- > 0;) {
        const struct vex_segment_writer *writer = &collection->homes[i]->writer;
        uint32_t row = 0;
        /* As of the end of time: a staged death counts. */
        enum vex_find found =
            vex_segment_find(&writer->segment, id, writer->rows, UINT64_MAX, &row);
        if (found == VEX_FIND_ALIVE) {
            *out = (struct vex_location){i, row};
            return true;
        }
        if (found == VEX_FIND_DEAD) {
            return false;
        }
    }
    return false;
}

const void *vex_registry_payload(const struct vex_live_collection *collection,
                                 struct vex_location location, size_t *out_bytes)
{
    const void *payload = NULL;
    bool sound = vex_segment_payload(&collection->homes[location.home]->writer.segment,
                                     location.row, &payload, out_bytes);
    VEX_ASSERT(sound);
    return payload;
}

static uint64_t grown_bytes(uint64_t held_bytes, uint32_t homes_count)
{
    uint64_t most = homes_count < SEGMENTS_CROWDED ? SEGMENT_BYTES_MAX : SEGMENT_BYTES_MAX_CROWDED;
    uint64_t bytes = held_bytes / 4;
    bytes = bytes < SEGMENT_BYTES_MIN ? SEGMENT_BYTES_MIN : bytes;
    return bytes > most ? most : bytes;
}

/* A quarter of what the collection holds, so that the number of segments grows with the logarithm
 * of the data, while the unused end of the last one stays small. */
static uint32_t next_capacity(const struct vex_live_collection *collection, uint32_t rows_needed)
{
    uint64_t row_bytes = vector_bytes(&collection->facts) + ROW_OVERHEAD_BYTES;
    uint64_t rows = 0;
    for (uint32_t i = 0; i < collection->homes_count; i++) {
        rows += collection->homes[i]->writer.rows;
    }
    uint64_t capacity = grown_bytes(rows * row_bytes, collection->homes_count) / row_bytes;
    if (collection->tail_rows_most && capacity > collection->tail_rows_most) {
        capacity = collection->tail_rows_most;
    }
    capacity = capacity < SEGMENT_ROWS_MIN ? SEGMENT_ROWS_MIN : capacity;
    return capacity < rows_needed ? rows_needed : (uint32_t)capacity;
}

/* As many payload bytes per row as this write brings or the collection had so far, whichever is
 * more, but no more than a quarter of all payloads so far: one large payload is not the rule. */
static uint64_t payload_capacity(const struct vex_live_collection *collection,
                                 uint32_t capacity_rows, uint32_t rows, uint64_t bytes)
{
    uint64_t per_row = rows ? bytes / rows + 1 : 0;
    uint64_t seen_rows = 0;
    uint64_t seen_bytes = 0;
    for (uint32_t i = 0; i < collection->homes_count; i++) {
        seen_rows += collection->homes[i]->writer.rows;
        seen_bytes += collection->homes[i]->writer.payload_bytes;
    }
    if (bytes == 0) {
        per_row = 0;
    }
    if (seen_bytes && seen_bytes / seen_rows + 1 > per_row) {
        per_row = seen_bytes / seen_rows + 1;
    }
    uint64_t capacity = per_row * capacity_rows;
    uint64_t most = grown_bytes(seen_bytes, collection->homes_count);
    capacity = capacity > most ? most : capacity;
    return capacity < bytes ? bytes : capacity;
}

static enum vex_status add_home(struct vex_registry *registry,
                                struct vex_live_collection *collection, uint32_t rows,
                                uint64_t payload_bytes, struct vex_error *error)
{
    if (collection->homes_count == VEX_LIST_SEGMENTS_MAX) {
        return vex_error_set(error, VEX_ERR_NO_SPACE, "collection %s has all its %u segments",
                             collection->facts.name, VEX_LIST_SEGMENTS_MAX);
    }
    uint32_t capacity = next_capacity(collection, rows);
    struct vex_segment_shape shape = {
        .collection_id = collection->facts.id,
        .metric = collection->facts.metric,
        .storage = collection->facts.storage,
        .dim = collection->facts.dim,
        .capacity_rows = capacity,
        .payload_capacity_bytes = payload_capacity(collection, capacity, rows, payload_bytes),
    };
    struct vex_home *home = NULL;
    enum vex_status status = vex_publisher_make_home(registry->publisher, &shape, &home, error);
    while (status == VEX_ERR_NO_SPACE &&
           (shape.capacity_rows > rows || shape.payload_capacity_bytes > payload_bytes)) {
        /* The generous size does not fit any more; something between it and what this write needs may. */
        uint32_t fewer = shape.capacity_rows / 4;
        uint64_t less = shape.payload_capacity_bytes / 4;
        shape.capacity_rows = fewer > rows ? fewer : rows;
        shape.payload_capacity_bytes = less > payload_bytes ? less : payload_bytes;
        status = vex_publisher_make_home(registry->publisher, &shape, &home, error);
    }
    if (status == VEX_OK && !collection->list_changed) {
        status = vex_publisher_take_block(registry->publisher, &collection->spare_block, error);
        if (status != VEX_OK) {
            vex_publisher_discard_home(registry->publisher, &home);
        }
    }
    if (status != VEX_OK) {
        return status;
    }
    if (collection->homes_count && !collection->homes[collection->homes_count - 1]->sealed) {
        /* It filled up before anybody had time for it: a larger one gives more. */
        collection->tail_rows_most *= collection->tail_rows_most <= UINT32_MAX / 2 ? 2 : 1;
    }
    collection->list_changed = true;
    collection->homes[collection->homes_count++] = home;
    collection->shm_bytes += home->held_bytes;
    return VEX_OK;
}

enum vex_status vex_registry_reserve(struct vex_registry *registry,
                                     struct vex_live_collection *collection, uint32_t rows,
                                     const uint32_t *payload_bytes, struct vex_error *error)
{
    /* The same walk that vex_registry_update_offset will do: fill the last segment until a row does not fit. */
    uint32_t fits = 0;
    uint64_t bytes = 0;
    if (collection->homes_count && !collection->homes[collection->homes_count - 1]->sealed) {
        const struct vex_segment_writer *tail =
            &collection->homes[collection->homes_count - 1]->writer;
        while (fits < rows && vex_segment_has_room(tail, fits + 1, bytes + payload_bytes[fits])) {
            bytes += payload_bytes[fits++];
        }
    }
    if (fits == rows) {
        return VEX_OK;
    }
    bytes = 0;
    for (uint32_t row = fits; row < rows; row++) {
        bytes += payload_bytes[row];
    }
    return add_home(registry, collection, rows - fits, bytes, error);
}

/* The segment that takes the next row: the last one, or the one before it while it still has room
 * (a reservation may have added the last one already). */
static struct vex_segment_writer *writer_for(struct vex_live_collection *collection,
                                             size_t payload_bytes)
{
    uint32_t last = collection->homes_count - 1;
    if (last > 0 && collection->homes[last]->writer.rows == 0) {
        struct vex_segment_writer *before = &collection->homes[last - 1]->writer;
        if (!collection->homes[last - 1]->sealed &&
            vex_segment_has_room(before, 1, payload_bytes)) {
            return before;
        }
    }
    return &collection->homes[last]->writer;
}

void vex_registry_update_offset(struct vex_registry *registry,
                                struct vex_live_collection *collection, uint64_t id,
                                const float *vector, const void *payload, size_t payload_bytes,
                                const struct vex_location *old, uint64_t lsn)
{
    if (old) {
        vex_registry_mark_deleted(registry, collection, *old, lsn);
    }
    struct vex_segment_writer *writer = writer_for(collection, payload ? payload_bytes : 0);
    (void)vex_segment_append(writer, id, vector, payload, payload_bytes);
    collection->appended_rows++;
    collection->live_rows++;
    collection->lsn = lsn;
    if (id >= collection->next_id) {
        collection->next_id = id + 1;
    }
    mark_dirty(registry, collection);
}

void vex_registry_mark_deleted(struct vex_registry *registry,
                               struct vex_live_collection *collection, struct vex_location location,
                               uint64_t lsn)
{
    struct vex_home *home = collection->homes[location.home];
    vex_segment_kill(&home->writer, location.row, lsn);
    home->dead_rows++;
    struct vex_merge_claim *claim = home->claim;
    if (claim) {
        const struct late_death death = {home->writer.segment.ids[location.row], lsn};
        claim->incomplete |= !vex_buffer_append(&claim->late_deaths, &death, sizeof(death));
    }
    collection->live_rows--;
    collection->dead_rows++;
    collection->lsn = lsn;
    mark_dirty(registry, collection);
}

/* ---- sealing and merging --------------------------------------------------------------------- */

void vex_registry_seal_collection(struct vex_live_collection *collection)
{
    /* All but the tail are full already. */
    for (uint32_t i = 0; i < collection->homes_count; i++) {
        collection->homes[i]->sealed = true;
        VEX_ASSERT(collection->homes[i]->writer.rows > 0);
    }
}

void vex_registry_seal(struct vex_registry *registry)
{
    for (uint32_t slot = 0; slot < VEX_PLACES_MAX; slot++) {
        struct vex_live_collection *collection = vex_registry_at(registry, slot);
        if (collection) {
            vex_registry_seal_collection(collection);
        }
    }
}

void vex_registry_seal_tail(struct vex_live_collection *collection)
{
    VEX_ASSERT(collection->homes_count > 0);
    struct vex_home *tail = collection->homes[collection->homes_count - 1];
    VEX_ASSERT(!tail->sealed && tail->writer.rows > 0);
    tail->sealed = true;
    collection->tail_rows_most = NEXT_TAIL_TIMES * tail->writer.rows;
}

void vex_registry_note_trimmed(struct vex_registry *registry,
                               struct vex_live_collection *collection, struct vex_home *home,
                               uint64_t held_bytes)
{
    /* A merge may have replaced it while its file was written. */
    for (uint32_t i = 0; collection && i < collection->homes_count; i++) {
        if (collection->homes[i] == home) {
            collection->shm_bytes -= home->held_bytes - held_bytes;
        }
    }
    vex_publisher_note_trimmed(registry->publisher, home, held_bytes);
}

void vex_registry_begin_merge(struct vex_registry *registry, struct vex_merge_claim *claim,
                              struct vex_live_collection *collection, uint32_t first,
                              uint32_t count)
{
    VEX_ASSERT(count > 0 && first + count <= collection->homes_count);
    *claim = (struct vex_merge_claim){
        .collection = collection,
        .first = collection->homes[first],
        .count = count,
        .next = registry->claims,
    };
    registry->claims = claim;
    for (uint32_t i = first; i < first + count; i++) {
        VEX_ASSERT(!collection->homes[i]->claim);
        collection->homes[i]->claim = claim;
    }
}

static uint32_t position_of(const struct vex_merge_claim *claim)
{
    uint32_t at = 0;
    while (claim->collection->homes[at] != claim->first) {
        at++;
        VEX_ASSERT(at < claim->collection->homes_count);
    }
    return at;
}

void vex_registry_abort_merge(struct vex_registry *registry, struct vex_merge_claim *claim)
{
    if (claim->collection) {
        uint32_t first = position_of(claim);
        for (uint32_t i = first; i < first + claim->count; i++) {
            claim->collection->homes[i]->claim = NULL;
        }
    }
    struct vex_merge_claim **link = &registry->claims;
    while (*link && *link != claim) {
        link = &(*link)->next;
    }
    if (*link) {
        *link = claim->next;
    }
    vex_buffer_deinit(&claim->late_deaths);
    *claim = (struct vex_merge_claim){0};
}

/* Deaths that the copy does not have yet. Each was of a row alive when copying began, so the copy has it. */
static void carry_deaths_over(const struct vex_merge_claim *claim, struct vex_home *merged)
{
    const struct late_death *deaths =
        (const struct late_death *)(const void *)claim->late_deaths.data;
    for (size_t i = 0; i < claim->late_deaths.bytes / sizeof(*deaths); i++) {
        uint32_t row = 0;
        enum vex_find found = vex_segment_find(&merged->writer.segment, deaths[i].id,
                                               merged->writer.rows, UINT64_MAX, &row);
        VEX_ASSERT(found == VEX_FIND_ALIVE);
        vex_segment_kill(&merged->writer, row, deaths[i].lsn);
        merged->dead_rows++;
    }
}

/* What can fail comes first: a block for the new list, and the books. */
static enum vex_status prepare_replacement(struct vex_registry *registry,
                                           const struct vex_merge_claim *claim,
                                           struct vex_home *merged, struct vex_error *error)
{
    struct vex_live_collection *collection = claim->collection;
    if (claim->incomplete ||
        !vex_buffer_reserve(&registry->replaced, claim->count * sizeof(struct replaced_home))) {
        return vex_error_set(error, VEX_ERR_NOMEM, "merge: out of memory");
    }
    enum vex_status status = VEX_OK;
    if (!collection->list_changed) {
        status = vex_publisher_take_block(registry->publisher, &collection->spare_block, error);
        collection->list_changed = status == VEX_OK;
    }
    if (status == VEX_OK && merged) {
        status = vex_publisher_adopt_home(registry->publisher, merged, error);
    }
    if (collection->list_changed) {
        mark_dirty(registry, collection); /* the block is not to be lost */
    }
    return status;
}

bool vex_registry_end_merge(struct vex_registry *registry, struct vex_merge_claim *claim,
                            struct vex_home **merged, struct vex_error *error)
{
    struct vex_live_collection *collection = claim->collection;
    enum vex_status status =
        !collection ? vex_error_set(error, VEX_ERR_GONE, "merge: its collection was dropped")
                    : prepare_replacement(registry, claim, *merged, error);
    if (status != VEX_OK) {
        vex_registry_abort_merge(registry, claim);
        return false;
    }
    uint32_t first = position_of(claim);
    uint64_t rows_before = 0;
    for (uint32_t i = first; i < first + claim->count; i++) {
        struct replaced_home item = {collection, collection->homes[i]};
        rows_before += item.home->writer.rows;
        collection->shm_bytes -= item.home->held_bytes;
        (void)vex_buffer_append(&registry->replaced, &item, sizeof(item));
    }
    uint32_t put = 0;
    if (*merged) {
        carry_deaths_over(claim, *merged);
        (*merged)->sealed = true;
        rows_before -= (*merged)->writer.rows;
        collection->shm_bytes += (*merged)->held_bytes;
        collection->homes[first] = *merged;
        *merged = NULL;
        put = 1;
    }
    uint32_t behind = first + claim->count;
    memmove(&collection->homes[first + put], &collection->homes[behind],
            (collection->homes_count - behind) * sizeof(collection->homes[0]));
    collection->homes_count -= claim->count - put;
    collection->dead_rows -= rows_before;
    claim->collection = NULL; /* its segments are no longer there to be let go */
    vex_registry_abort_merge(registry, claim);
    return true;
}

/* ---- restoring ------------------------------------------------------------------------------- */

void vex_registry_set_next_collection_id(struct vex_registry *registry, uint32_t next_id)
{
    registry->next_id = next_id;
}

enum vex_status vex_registry_add_restored(struct vex_registry *registry,
                                          struct vex_live_collection *collection,
                                          struct vex_home *home, struct vex_error *error)
{
    VEX_ASSERT(collection->homes_count < VEX_LIST_SEGMENTS_MAX);
    enum vex_status status = VEX_OK;
    if (!collection->list_changed) {
        status = vex_publisher_take_block(registry->publisher, &collection->spare_block, error);
        collection->list_changed = status == VEX_OK;
    }
    status = status == VEX_OK ? vex_publisher_adopt_home(registry->publisher, home, error) : status;
    if (status != VEX_OK) {
        return status;
    }
    home->sealed = true;
    collection->homes[collection->homes_count++] = home;
    collection->live_rows += home->writer.rows - home->dead_rows;
    collection->dead_rows += home->dead_rows;
    collection->shm_bytes += home->held_bytes;
    mark_dirty(registry, collection);
    return VEX_OK;
}

/* ---- publishing ------------------------------------------------------------------------------ */

/* Writes the list of segments into its block. All but the last never grow again, because a
 * reservation is always followed by the rows it was made for, which end in the segment that it
 * added. */
static void write_list(struct vex_registry *registry, struct vex_live_collection *collection)
{
    uint32_t homes = collection->homes_count;
    VEX_ASSERT(homes == 0 || collection->homes[homes - 1]->writer.rows > 0);
    if (collection->list_id != 0) {
        vex_publisher_retire_block(registry->publisher, collection->list_block);
    }
    retire_replaced(registry, collection);
    collection->list_id = vex_publisher_new_list_id(registry->publisher);
    collection->list_block = collection->spare_block;
    collection->list_changed = false;
    struct vex_list_block *block =
        vex_control_list_block(vex_publisher_region(registry->publisher), collection->list_block);
    memset(block, 0, sizeof(*block));
    block->list_id = collection->list_id;
    block->segments_count = collection->homes_count;
    for (uint32_t i = 0; i < collection->homes_count; i++) {
        block->segments[i].segment_id = collection->homes[i]->writer.segment.segment_id;
        block->segments[i].rows = collection->homes[i]->writer.rows;
    }
}

void vex_registry_capture(struct vex_registry *registry)
{
    VEX_ASSERT(registry->captures_count == 0);
    for (uint32_t i = 0; i < registry->dirty_count; i++) {
        struct vex_live_collection *collection = registry->dirty[i];
        struct capture *capture = &registry->captures[registry->captures_count++];
        collection->dirty = false;
        if (!collection->dropped && collection->list_changed) {
            write_list(registry, collection);
        }
        uint32_t homes = collection->homes_count;
        *capture = (struct capture){
            .collection = collection,
            .drop = collection->dropped,
            .facts = collection->facts,
            .view =
                {
                    .lsn = collection->lsn,
                    .list_id = collection->list_id,
                    .live_rows = collection->live_rows,
                    .dead_rows = collection->dead_rows,
                    .shm_bytes = collection->shm_bytes,
                    .list_block = collection->list_block,
                    .tail_rows = homes ? collection->homes[homes - 1]->writer.rows : 0,
                },
        };
    }
    registry->dirty_count = 0;
}

static void apply_drop(struct vex_registry *registry, struct vex_live_collection *collection)
{
    if (collection->announced) {
        vex_control_remove_collection(vex_publisher_region(registry->publisher), collection->slot);
    }
    retire_replaced(registry, collection);
    retire_homes(registry, collection);
    if (collection->list_id != 0) {
        vex_publisher_retire_block(registry->publisher, collection->list_block);
    }
    if (collection->list_changed) {
        vex_publisher_retire_block(registry->publisher, collection->spare_block);
    }
    vex_publisher_retire_slot(registry->publisher, collection->slot);
    registry->slots[collection->slot] = NULL;
    free(collection);
}

void vex_registry_apply(struct vex_registry *registry, uint64_t lsn)
{
    void *region = vex_publisher_region(registry->publisher);
    for (uint32_t i = 0; i < registry->captures_count; i++) {
        const struct capture *capture = &registry->captures[i];
        struct vex_live_collection *collection = capture->collection;
        if (capture->drop) {
            apply_drop(registry, collection);
            continue;
        }
        if (collection->quarantined) {
            continue; /* readers do not find it */
        }
        vex_control_set_view(region, collection->slot, &capture->view);
        /* As captured: what was staged since may ask for another index, and is not durable. */
        if (!collection->announced) {
            vex_control_add_collection(region, collection->slot, &capture->facts);
            collection->announced = true;
        } else {
            vex_control_set_index(region, collection->slot, &capture->facts);
        }
    }
    registry->captures_count = 0;
    vex_publisher_publish(registry->publisher, lsn);
}
