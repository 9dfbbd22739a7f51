#include "daemon/coordinator.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/panic.h"
#include "daemon/checkpoint.h"
#include "daemon/index_plan.h"
#include "daemon/merge.h"
#include "daemon/publisher.h"
#include "daemon/registry.h"
#include "daemon/trace.h"
#include "daemon/upkeep.h"
#include "index/kernels.h"
#include "ioengine/store.h"

/* Registered with the ring: covers nearly every batch, within a small RLIMIT_MEMLOCK. */
#define REGISTERED_BYTES (1u << 20)
/* Enough for a checkpoint's tails and a small merge. */
#define RESERVE_BYTES (16u << 20)
/* A write from here on takes as long to apply as the disk to store it: they go on at the same time. */
#define LARGE_WRITE_BYTES (64u << 10)

/* Scratch for one batch: ids met so far, with a number each. */
struct id_map {
    uint64_t *ids; /* id + 1, 0 = free */
    uint32_t *values;
    size_t capacity; /* power of two */
    size_t mask;     /* of the part that this batch uses */
};

struct vex_coordinator {
    struct vex_io *io;
    struct vex_io_buffer buffers[VEX_LOG_BUFFERS];
    uint8_t key[VEX_UUID_BYTES]; /* of the shared memory's names */
    struct vex_publisher *publisher;
    struct vex_registry *registry;
    struct vex_store *store;
    struct vex_log *log; /* the store's */
    struct vex_upkeep *upkeep;
    struct vex_store_recovery recovery;
    uint64_t recovery_us;
    uint64_t record_bytes_at_start;
    bool quarantine;      /* no other way: serve the rest if a collection's files are damaged */
    uint32_t quarantined; /* collections */
    struct id_map seen;
    struct vex_buffer payload_sizes; /* scratch: u32 per item of one batch */
    bool replayed_drop;
    bool failed; /* the log's failure has been announced */
};

/* ---- checking -------------------------------------------------------------------------------- */

static void seen_deinit(struct id_map *map)
{
    free(map->ids);
    free(map->values);
    *map = (struct id_map){0};
}

static bool seen_reset(struct id_map *map, size_t count)
{
    size_t capacity = 16;
    while (capacity < 2 * count) {
        capacity *= 2;
    }
    if (capacity > map->capacity) {
        seen_deinit(map);
        map->ids = malloc(capacity * sizeof(*map->ids));
        map->values = malloc(capacity * sizeof(*map->values));
        if (!map->ids || !map->values) {
            seen_deinit(map);
            return false;
        }
        map->capacity = capacity;
    }
    memset(map->ids, 0, capacity * sizeof(*map->ids));
    map->mask = capacity - 1;
    return true;
}

/* The number kept for `id`; *out_added says whether it was met for the first time. */
static uint32_t *seen_slot(struct id_map *map, uint64_t id, bool *out_added)
{
    size_t slot = (size_t)vex_mix64(id) & map->mask;
    while (map->ids[slot] != 0 && map->ids[slot] != id + 1) {
        slot = (slot + 1) & map->mask;
    }
    *out_added = map->ids[slot] == 0;
    map->ids[slot] = id + 1;
    return &map->values[slot];
}

/* False if it was there already. */
static bool seen_add(struct id_map *map, uint64_t id)
{
    bool added;
    (void)seen_slot(map, id, &added);
    return added;
}

/* "item 3 (id 77)", or "item 3" if the ids are made here. */
static const char *item_text(const struct vex_write *write, uint32_t item, char text[64])
{
    if (write->ids) {
        (void)snprintf(text, 64, "item %u (id %llu)", item,
                       (unsigned long long)vex_write_id(write, item));
    } else {
        (void)snprintf(text, 64, "item %u", item);
    }
    return text;
}

/* What only some collections refuse: what their storage cannot hold, and under cosine what it makes a
 * zero vector of. */
static enum vex_status check_storage(const struct vex_collection_facts *facts,
                                     const struct vex_write *write, uint32_t item,
                                     struct vex_error *error)
{
    char text[64];
    const float *vector = write->vectors + (size_t)item * facts->dim;
    uint32_t beyond = vex_store_overflow(facts->storage, vector, facts->dim);
    if (beyond < facts->dim) {
        return vex_error_set(error, VEX_ERR_LIMIT,
                             "%s: coordinate %u is %g; collection %s is stored as float16, whose "
                             "numbers end at 65504: scale the vectors, or use float32 or int8",
                             item_text(write, item, text), beyond, (double)vector[beyond],
                             facts->name);
    }
    if (facts->metric != VEX_METRIC_COSINE ||
        !vex_store_is_zero(facts->storage, vector, facts->dim)) {
        return VEX_OK;
    }
    bool was_zero = vex_store_is_zero(VEX_STORAGE_FLOAT32, vector, facts->dim);
    return vex_error_set(error, VEX_ERR_ZERO_VECTOR,
                         "%s: a%s zero vector has no direction, collection %s measures by cosine",
                         item_text(write, item, text),
                         was_zero ? "" : " vector that rounding to the storage makes a",
                         facts->name);
}

static enum vex_status check_values(const struct vex_live_collection *collection,
                                    const struct vex_write *write, struct vex_error *error)
{
    const struct vex_kernels *kernels = vex_kernels_get();
    char text[64];
    uint32_t dim = write->head.dim;
    for (uint32_t i = 0; i < write->head.count; i++) {
        const float *vector = write->vectors + (size_t)i * dim;
        if (!kernels->all_finite(vector, dim)) {
            return vex_error_set(error, VEX_ERR_NOT_FINITE, "%s: the vector holds NaN or infinity",
                                 item_text(write, i, text));
        }
        enum vex_status status = check_storage(&collection->facts, write, i, error);
        if (status != VEX_OK) {
            return status;
        }
    }
    return VEX_OK;
}

static enum vex_status check_ids(struct vex_coordinator *coordinator,
                                 const struct vex_live_collection *collection,
                                 const struct vex_write *write, struct vex_error *error)
{
    enum vex_write_kind kind = (enum vex_write_kind)write->head.kind;
    bool unique = kind == VEX_WRITE_INSERT || kind == VEX_WRITE_DELETE;
    if (!write->ids) {
        uint64_t left = collection->next_id > VEX_ID_MAX ? 0 : VEX_ID_MAX - collection->next_id + 1;
        if (write->head.count > left) {
            return vex_error_set(
                error, VEX_ERR_LIMIT,
                "no ids left above the largest one in use, %llu; give ids yourself",
                (unsigned long long)(collection->next_id - 1));
        }
        return VEX_OK;
    }
    if (unique && write->head.count > 1 && !seen_reset(&coordinator->seen, write->head.count)) {
        return vex_error_set(error, VEX_ERR_NOMEM, "out of memory");
    }
    for (uint32_t i = 0; i < write->head.count; i++) {
        uint64_t id = vex_write_id(write, i);
        struct vex_location location;
        bool there = vex_registry_get_offset(collection, id, &location);
        if (kind == VEX_WRITE_INSERT && there) {
            return vex_error_set(error, VEX_ERR_EXISTS, "item %u: id %llu exists in collection %s",
                                 i, (unsigned long long)id, collection->facts.name);
        }
        if ((kind == VEX_WRITE_UPDATE || kind == VEX_WRITE_DELETE) && !there) {
            return vex_error_set(error, VEX_ERR_NOT_FOUND,
                                 "item %u: id %llu is not in collection %s", i,
                                 (unsigned long long)id, collection->facts.name);
        }
        if (unique && write->head.count > 1 && !seen_add(&coordinator->seen, id)) {
            return vex_error_set(error, VEX_ERR_EXISTS,
                                 "item %u: id %llu stands twice in the batch", i,
                                 (unsigned long long)id);
        }
    }
    return VEX_OK;
}

static enum vex_status check_write(struct vex_coordinator *coordinator,
                                   const struct vex_live_collection *collection,
                                   const struct vex_write *write, struct vex_error *error)
{
    if (write->head.kind == VEX_WRITE_DELETE) {
        return check_ids(coordinator, collection, write, error);
    }
    if (write->head.dim != collection->facts.dim) {
        return vex_error_set(error, VEX_ERR_DIM, "vectors of dimension %u, collection %s has %u",
                             write->head.dim, collection->facts.name, collection->facts.dim);
    }
    enum vex_status status = check_values(collection, write, error);
    return status == VEX_OK ? check_ids(coordinator, collection, write, error) : status;
}

/* ---- applying -------------------------------------------------------------------------------- */

/* An update without a payload keeps the old one, which moves into the new row's segment. */
static bool keeps_payload(const struct vex_write *write, uint32_t item)
{
    return write->head.kind == VEX_WRITE_UPDATE &&
           vex_write_payload_bytes(write, item) == VEX_NO_PAYLOAD;
}

static uint32_t stored_payload_bytes(const struct vex_live_collection *collection, uint64_t id)
{
    struct vex_location location;
    size_t bytes = 0;
    if (vex_registry_get_offset(collection, id, &location)) {
        (void)vex_registry_payload(collection, location, &bytes);
    }
    return (uint32_t)bytes;
}

/* How many payload bytes each item will store. In an update that names an id twice, the later item
 * without a payload keeps what the earlier one brought. False if memory is short. */
static bool size_payloads(struct vex_coordinator *coordinator,
                          const struct vex_live_collection *collection,
                          const struct vex_write *write)
{
    struct vex_buffer *sizes = &coordinator->payload_sizes;
    sizes->bytes = 0;
    bool is_update = write->head.kind == VEX_WRITE_UPDATE;
    if (!vex_buffer_reserve(sizes, write->head.count * sizeof(uint32_t)) ||
        (is_update && !seen_reset(&coordinator->seen, write->head.count))) {
        return false;
    }
    for (uint32_t i = 0; i < write->head.count; i++) {
        uint32_t bytes = vex_write_payload_bytes(write, i);
        bytes = bytes == VEX_NO_PAYLOAD ? 0 : bytes;
        if (is_update) {
            uint64_t id = vex_write_id(write, i);
            bool first;
            uint32_t *latest = seen_slot(&coordinator->seen, id, &first);
            if (keeps_payload(write, i)) {
                bytes = first ? stored_payload_bytes(collection, id) : *latest;
            }
            *latest = bytes;
        }
        (void)vex_buffer_append(sizes, &bytes, sizeof(bytes));
    }
    return true;
}

static enum vex_status reserve_rows(struct vex_coordinator *coordinator,
                                    struct vex_live_collection *collection,
                                    const struct vex_write *write, struct vex_error *error)
{
    if (write->head.kind == VEX_WRITE_DELETE) {
        return VEX_OK;
    }
    if (!size_payloads(coordinator, collection, write)) {
        return vex_error_set(error, VEX_ERR_NOMEM, "out of memory");
    }
    return vex_registry_reserve(coordinator->registry, collection, write->head.count,
                                (const uint32_t *)(const void *)coordinator->payload_sizes.data,
                                error);
}

/* False if the write does not suit the state: cannot happen after check_write, can in a damaged
 * log. */
static bool apply_write(struct vex_coordinator *coordinator, struct vex_live_collection *collection,
                        const struct vex_write *write, uint64_t lsn)
{
    const uint8_t *payload_at = write->payloads;
    for (uint32_t i = 0; i < write->head.count; i++) {
        uint64_t id = vex_write_id(write, i);
        struct vex_location old;
        bool there = vex_registry_get_offset(collection, id, &old);
        bool must_exist =
            write->head.kind == VEX_WRITE_UPDATE || write->head.kind == VEX_WRITE_DELETE;
        if ((must_exist && !there) || (write->head.kind == VEX_WRITE_INSERT && there)) {
            return false;
        }
        if (write->head.kind == VEX_WRITE_DELETE) {
            vex_registry_mark_deleted(coordinator->registry, collection, old, lsn);
            continue;
        }
        const void *payload = NULL;
        size_t bytes = 0;
        if (keeps_payload(write, i)) {
            payload = vex_registry_payload(collection, old, &bytes);
        } else if (vex_write_payload_bytes(write, i) != VEX_NO_PAYLOAD) {
            payload = payload_at;
            bytes = vex_write_payload_bytes(write, i);
            payload_at += bytes;
        }
        vex_registry_update_offset(coordinator->registry, collection, id,
                                   write->vectors + (size_t)i * write->head.dim, payload, bytes,
                                   there ? &old : NULL, lsn);
    }
    return true;
}

/* ---- mutations ------------------------------------------------------------------------------- */

/* Once the log has failed, the staged state is no fact: nothing is said about it. */
static enum vex_status check_log(const struct vex_coordinator *coordinator, struct vex_error *error)
{
    int failure = vex_log_failure(coordinator->log);
    return failure ? vex_error_os(error, VEX_ERR_READ_ONLY, failure,
                                  "the log failed and takes no more writes until a restart")
                   : VEX_OK;
}

static enum vex_status is_quarantined(const struct vex_live_collection *collection,
                                      struct vex_error *error)
{
    return vex_error_set(error, VEX_ERR_CORRUPT,
                         "collection %s is quarantined: its segment files are damaged",
                         collection->facts.name);
}

enum vex_status vex_coordinator_write(struct vex_coordinator *coordinator, const uint8_t *body,
                                      size_t bytes, struct vex_ack_body *out_ack,
                                      struct vex_error *error)
{
    struct vex_write write;
    enum vex_status status = check_log(coordinator, error);
    status = status == VEX_OK ? vex_write_decode(&write, body, bytes, error) : status;
    if (status != VEX_OK) {
        return status;
    }
    struct vex_live_collection *collection =
        vex_registry_by_id(coordinator->registry, write.head.collection_id);
    if (!collection) {
        return vex_error_set(error, VEX_ERR_GONE, "collection number %u does not exist (any more)",
                             write.head.collection_id);
    }
    if (collection->quarantined) {
        return is_quarantined(collection, error);
    }
    status = check_write(coordinator, collection, &write, error);
    if (status == VEX_OK) {
        status = vex_log_room(coordinator->log, bytes, write.head.kind == VEX_WRITE_DELETE, error);
    }
    if (status == VEX_OK) {
        status = reserve_rows(coordinator, collection, &write, error);
    }
    if (status != VEX_OK) {
        return status;
    }
    write.first_id = collection->next_id;
    size_t head_bytes = sizeof(struct vex_write_head);
    size_t id_bytes = write.ids ? 0 : sizeof(write.first_id);
    const struct vex_log_piece pieces[] = {
        {body, head_bytes},
        {&write.first_id, id_bytes},
        {body + head_bytes + id_bytes, bytes - head_bytes - id_bytes},
    };
    uint64_t lsn = vex_log_stage(coordinator->log, VEX_OP_WRITE, pieces, 3);
    bool sealed = bytes >= LARGE_WRITE_BYTES && vex_log_commit(coordinator->log);
    bool applied = apply_write(coordinator, collection, &write, lsn);
    VEX_ASSERT(applied);
    if (sealed) {
        /* Nothing was staged since: what is captured is what was sealed. */
        VEX_ASSERT(vex_coordinator_staged_lsn(coordinator) == lsn);
        vex_registry_capture(coordinator->registry);
        vex_upkeep_at_rest(coordinator->upkeep);
    }
    *out_ack = (struct vex_ack_body){
        .lsn = lsn,
        .first_id = write.ids ? vex_write_id(&write, 0) : write.first_id,
        .count = write.head.count,
    };
    return VEX_OK;
}

/* The name has been checked: it ends. */
static struct vex_collection_facts facts_of(const struct vex_create_body *record)
{
    struct vex_collection_facts facts = {
        .id = record->collection_id,
        .dim = record->dim,
        .metric = (enum vex_metric)record->metric,
        .index = (enum vex_index_kind)record->index,
        .m = record->m,
        .ef_construction = record->ef_construction,
        .storage = (enum vex_storage)record->storage,
        .lists = record->lists,
    };
    (void)snprintf(facts.name, sizeof(facts.name), "%s", record->name);
    return facts;
}

enum vex_status vex_coordinator_create(struct vex_coordinator *coordinator,
                                       const struct vex_create_body *body,
                                       struct vex_ack_body *out_ack, struct vex_error *error)
{
    struct vex_registry *registry = coordinator->registry;
    enum vex_status status = check_log(coordinator, error);
    if (status != VEX_OK) {
        return status;
    }
    const char *fault = vex_name_fault(body->name, sizeof(body->name));
    if (fault) {
        return vex_error_set(error, VEX_ERR_INVALID, "%s", fault);
    }
    struct vex_create_body record = *body;
    record.m = body->m ? body->m : VEX_HNSW_M_DEFAULT;
    record.ef_construction =
        body->ef_construction ? body->ef_construction : VEX_HNSW_EF_CONSTRUCTION_DEFAULT;
    record.collection_id = vex_registry_next_id(registry);
    struct vex_collection_facts facts = facts_of(&record);
    fault = vex_collection_facts_fault(&facts);
    if (fault) {
        bool dim = facts.dim < 1 || facts.dim > VEX_DIM_MAX;
        return vex_error_set(error, dim ? VEX_ERR_DIM : VEX_ERR_INVALID,
                             "create %s: %s (dimension %u, metric %u, index %u, M %u, "
                             "ef_construction %u, storage %u, %u lists)",
                             body->name, fault, facts.dim, record.metric, record.index, facts.m,
                             facts.ef_construction, record.storage, facts.lists);
    }
    if (vex_registry_by_name(registry, body->name)) {
        return vex_error_set(error, VEX_ERR_EXISTS, "collection %s exists", body->name);
    }
    status = vex_registry_can_create(registry, error);
    if (status == VEX_OK) {
        status = vex_log_room(coordinator->log, sizeof(*body), false, error);
    }
    if (status != VEX_OK) {
        return status;
    }
    memcpy(record.name, facts.name, sizeof(record.name));
    uint64_t lsn = vex_log_stage(coordinator->log, VEX_OP_CREATE,
                                 &(struct vex_log_piece){&record, sizeof(record)}, 1);
    (void)vex_registry_create(registry, &facts, lsn);
    *out_ack = (struct vex_ack_body){lsn, record.collection_id, 1};
    return VEX_OK;
}

/* `name` is one of VEX_NAME_MAX + 1 bytes that may not end. */
static enum vex_status find_collection(const struct vex_coordinator *coordinator, const char *name,
                                       struct vex_live_collection **out_collection,
                                       struct vex_error *error)
{
    const char *fault = vex_name_fault(name, VEX_NAME_MAX + 1);
    *out_collection = fault ? NULL : vex_registry_by_name(coordinator->registry, name);
    return *out_collection
               ? VEX_OK
               : vex_error_set(error, VEX_ERR_NO_COLLECTION, "no collection %.63s", name);
}

/* With the last collection that is quarantined, the reason goes for which checkpoints leave files alone. */
static void drop_collection(struct vex_coordinator *coordinator,
                            struct vex_live_collection *collection, uint64_t lsn)
{
    if (collection->quarantined) {
        coordinator->quarantined--;
        if (coordinator->upkeep) { /* not during the replay */
            vex_upkeep_set_quarantine(coordinator->upkeep, coordinator->quarantined > 0);
        }
    }
    if (coordinator->upkeep && (collection->homes_count || collection->quarantined)) {
        vex_upkeep_note_drop(coordinator->upkeep);
    }
    coordinator->replayed_drop = coordinator->replayed_drop || !coordinator->upkeep;
    vex_registry_drop(coordinator->registry, collection, lsn);
}

enum vex_status vex_coordinator_drop(struct vex_coordinator *coordinator,
                                     const struct vex_drop_body *body, struct vex_ack_body *out_ack,
                                     struct vex_error *error)
{
    enum vex_status status = check_log(coordinator, error);
    if (status != VEX_OK) {
        return status;
    }
    struct vex_live_collection *collection = NULL;
    status = find_collection(coordinator, body->name, &collection, error);
    if (status == VEX_OK) {
        status = vex_log_room(coordinator->log, sizeof(*body), true, error);
    }
    if (status != VEX_OK) {
        return status;
    }
    struct vex_drop_body record = {.collection_id = collection->facts.id};
    memcpy(record.name, collection->facts.name, sizeof(record.name));
    uint64_t lsn = vex_log_stage(coordinator->log, VEX_OP_DROP,
                                 &(struct vex_log_piece){&record, sizeof(record)}, 1);
    drop_collection(coordinator, collection, lsn);
    *out_ack = (struct vex_ack_body){lsn, record.collection_id, 1};
    return VEX_OK;
}

/* `facts` with what the request changes. */
static void change_facts(struct vex_collection_facts *facts, const struct vex_alter_body *body)
{
    if (body->changes & VEX_CHANGES_INDEX) {
        facts->index = (enum vex_index_kind)body->index;
    }
    if (body->changes & VEX_CHANGES_M) {
        facts->m = body->m ? body->m : VEX_HNSW_M_DEFAULT;
    }
    if (body->changes & VEX_CHANGES_EF_CONSTRUCTION) {
        facts->ef_construction =
            body->ef_construction ? body->ef_construction : VEX_HNSW_EF_CONSTRUCTION_DEFAULT;
    }
    if (body->changes & VEX_CHANGES_LISTS) {
        facts->lists = body->lists;
    }
}

static enum vex_status check_alter(const struct vex_live_collection *collection,
                                   const struct vex_alter_body *body,
                                   struct vex_collection_facts *out, struct vex_error *error)
{
    if (collection->quarantined) {
        return is_quarantined(collection, error);
    }
    if (body->changes == 0 || body->changes & ~(uint32_t)VEX_CHANGES_ALL) {
        return vex_error_set(error, VEX_ERR_INVALID,
                             "alter %s: nothing to change is given, or nothing known (changes %x)",
                             body->name, body->changes);
    }
    *out = collection->facts;
    change_facts(out, body);
    const char *fault = vex_collection_facts_fault(out);
    if (fault) {
        return vex_error_set(
            error, VEX_ERR_INVALID, "alter %s: %s (index %u, M %u, ef_construction %u, %u lists)",
            body->name, fault, (uint32_t)out->index, out->m, out->ef_construction, out->lists);
    }
    return VEX_OK;
}

/* The segment that is still written to gets its index, too, if it is worth one by now. */
static void alter_collection(struct vex_coordinator *coordinator,
                             struct vex_live_collection *collection,
                             const struct vex_collection_facts *facts, uint64_t lsn)
{
    vex_registry_alter(coordinator->registry, collection, facts, lsn);
    uint32_t count = collection->homes_count;
    if (count && vex_index_is_due(&collection->facts, collection->homes[count - 1])) {
        vex_registry_seal_collection(collection);
    }
}

enum vex_status vex_coordinator_alter(struct vex_coordinator *coordinator,
                                      const struct vex_alter_body *body,
                                      struct vex_ack_body *out_ack, struct vex_error *error)
{
    struct vex_live_collection *collection = NULL;
    struct vex_collection_facts facts;
    enum vex_status status = check_log(coordinator, error);
    if (status == VEX_OK) {
        status = find_collection(coordinator, body->name, &collection, error);
    }
    if (status == VEX_OK) {
        status = check_alter(collection, body, &facts, error);
    }
    if (status == VEX_OK) {
        status = vex_log_room(coordinator->log, sizeof(*body), false, error);
    }
    if (status != VEX_OK) {
        return status;
    }
    struct vex_alter_body record = {
        .collection_id = facts.id,
        .changes = body->changes,
        .index = facts.index,
        .m = facts.m,
        .ef_construction = facts.ef_construction,
        .lists = facts.lists,
    };
    memcpy(record.name, facts.name, sizeof(record.name));
    uint64_t lsn = vex_log_stage(coordinator->log, VEX_OP_ALTER,
                                 &(struct vex_log_piece){&record, sizeof(record)}, 1);
    alter_collection(coordinator, collection, &facts, lsn);
    *out_ack = (struct vex_ack_body){lsn, record.collection_id, 1};
    return VEX_OK;
}

/* ---- replay ---------------------------------------------------------------------------------- */

static enum vex_status unsuitable(struct vex_error *error, const char *what)
{
    return vex_error_set(error, VEX_ERR_CORRUPT, "record does not suit the state: %s", what);
}

static enum vex_status replay_create(struct vex_coordinator *coordinator, uint64_t lsn,
                                     const uint8_t *body, size_t bytes, struct vex_error *error)
{
    struct vex_create_body record;
    if (bytes != sizeof(record)) {
        return unsuitable(error, "create of another length");
    }
    memcpy(&record, body, sizeof(record));
    if (record.collection_id < vex_registry_next_id(coordinator->registry) ||
        record.collection_id == UINT32_MAX || vex_name_fault(record.name, sizeof(record.name))) {
        return unsuitable(error, "create");
    }
    struct vex_collection_facts facts = facts_of(&record);
    if (vex_collection_facts_fault(&facts) ||
        vex_registry_by_name(coordinator->registry, record.name) ||
        vex_registry_can_create(coordinator->registry, NULL) != VEX_OK) {
        return unsuitable(error, "create");
    }
    (void)vex_registry_create(coordinator->registry, &facts, lsn);
    return VEX_OK;
}

/* Nobody reads yet, so memory that nothing names any more can go back at once. */
static void give_back(struct vex_coordinator *coordinator, uint64_t lsn)
{
    vex_registry_capture(coordinator->registry);
    vex_registry_apply(coordinator->registry, lsn);
    vex_coordinator_reclaim(coordinator, UINT64_MAX);
}

static enum vex_status replay_drop(struct vex_coordinator *coordinator, uint64_t lsn,
                                   const uint8_t *body, size_t bytes, struct vex_error *error)
{
    struct vex_drop_body record;
    if (bytes != sizeof(record)) {
        return unsuitable(error, "drop of another length");
    }
    memcpy(&record, body, sizeof(record));
    struct vex_live_collection *collection =
        vex_registry_by_id(coordinator->registry, record.collection_id);
    if (!collection) {
        return unsuitable(error, "drop of a collection that does not exist");
    }
    drop_collection(coordinator, collection, lsn);
    give_back(coordinator, lsn); /* a long log may drop many collections */
    return VEX_OK;
}

static enum vex_status replay_alter(struct vex_coordinator *coordinator, uint64_t lsn,
                                    const uint8_t *body, size_t bytes, struct vex_error *error)
{
    struct vex_alter_body record;
    if (bytes != sizeof(record)) {
        return unsuitable(error, "alter of another length");
    }
    memcpy(&record, body, sizeof(record));
    struct vex_live_collection *collection =
        vex_registry_by_id(coordinator->registry, record.collection_id);
    if (!collection) {
        return unsuitable(error, "alter of a collection that does not exist");
    }
    struct vex_collection_facts facts = collection->facts;
    record.changes = VEX_CHANGES_ALL; /* they are all there */
    change_facts(&facts, &record);
    if (vex_collection_facts_fault(&facts)) {
        return unsuitable(error, "alter");
    }
    alter_collection(coordinator, collection, &facts, lsn);
    return VEX_OK;
}

/* A checkpoint may have found a list of segments nearly full that had room again before this record came. */
static enum vex_status make_room_in_list(struct vex_coordinator *coordinator,
                                         struct vex_live_collection *collection, uint64_t lsn,
                                         struct vex_error *error)
{
    if (collection->homes_count < VEX_LIST_SEGMENTS_MAX) {
        return VEX_OK;
    }
    enum vex_status status = vex_merge_smallest(coordinator->key, coordinator->publisher,
                                                coordinator->registry, collection, lsn, error);
    if (status == VEX_OK) {
        give_back(coordinator, lsn);
    }
    return status;
}

static enum vex_status replay_write(struct vex_coordinator *coordinator, uint64_t lsn,
                                    const uint8_t *body, size_t bytes, struct vex_error *error)
{
    struct vex_write write;
    enum vex_status status = vex_write_decode(&write, body, bytes, error);
    if (status != VEX_OK) {
        return status;
    }
    struct vex_live_collection *collection =
        vex_registry_by_id(coordinator->registry, write.head.collection_id);
    if (!collection || (write.head.dim != 0 && write.head.dim != collection->facts.dim)) {
        return unsuitable(error, "write to a collection that does not exist or has another dim");
    }
    if (collection->quarantined) {
        return VEX_OK; /* stays in the log: no checkpoint is written meanwhile */
    }
    if (write.head.kind != VEX_WRITE_DELETE) {
        status = make_room_in_list(coordinator, collection, lsn - 1, error);
    }
    status = status == VEX_OK ? reserve_rows(coordinator, collection, &write, error) : status;
    if (status == VEX_OK && !apply_write(coordinator, collection, &write, lsn)) {
        status = unsuitable(error, "insert of a taken id, or change of a missing one");
    }
    return status;
}

static enum vex_status replay(void *context, uint64_t lsn, uint16_t type, const uint8_t *body,
                              size_t bytes, struct vex_error *error)
{
    struct vex_coordinator *coordinator = context;
    switch (type) {
    case VEX_OP_CREATE:
        return replay_create(coordinator, lsn, body, bytes, error);
    case VEX_OP_DROP:
        return replay_drop(coordinator, lsn, body, bytes, error);
    case VEX_OP_ALTER:
        return replay_alter(coordinator, lsn, body, bytes, error);
    case VEX_OP_WRITE:
        return replay_write(coordinator, lsn, body, bytes, error);
    default:
        return vex_error_set(error, VEX_ERR_VERSION, "unknown record type %u", type);
    }
}

/* The store calls it with the newest checkpoint, and again with the older one if that is of no use. */
static enum vex_status restore(void *context, struct vex_store *store, uint64_t lsn,
                               const uint8_t *body, size_t bytes, struct vex_error *error)
{
    struct vex_coordinator *coordinator = context;
    vex_registry_close(coordinator->registry);
    vex_publisher_close(coordinator->publisher);
    coordinator->registry = NULL;
    coordinator->publisher = NULL;
    int failure = vex_region_key(coordinator->key, vex_store_uuid(store), ".");
    if (failure) {
        return vex_error_os(error, VEX_ERR_IO, failure, "look at the directory");
    }
    enum vex_status status = vex_publisher_open(coordinator->key, &coordinator->publisher, error);
    if (status == VEX_OK) {
        status = vex_registry_open(coordinator->publisher, &coordinator->registry, error);
    }
    if (status != VEX_OK || !body) {
        return status;
    }
    struct vex_checkpoint_restore job = {
        .key = coordinator->key,
        .publisher = coordinator->publisher,
        .registry = coordinator->registry,
        .quarantine = coordinator->quarantine,
    };
    status = vex_checkpoint_restore(&job, store, lsn, body, bytes, error);
    coordinator->quarantined = job.quarantined;
    return status;
}

/* ---- life ------------------------------------------------------------------------------------ */

/* The older checkpoint may have whole what is damaged in the newer one, so a collection is set aside only when
 * nothing else helps. */
static enum vex_status open_store(struct vex_coordinator *coordinator,
                                  const struct vex_coordinator_options *options,
                                  struct vex_error *error)
{
    const struct vex_store_options store_options = {
        .log_file_bytes_min = options->log_file_bytes_min,
        .log_file_bytes_max = options->log_file_bytes_max,
        .reserve_bytes = RESERVE_BYTES,
    };
    const struct vex_store_state state = {coordinator, restore, replay};
    enum vex_status status =
        vex_store_open(coordinator->io, coordinator->buffers, &store_options, &state,
                       &coordinator->store, &coordinator->recovery, error);
    if (options->quarantine && (status == VEX_ERR_CORRUPT || status == VEX_ERR_IO)) {
        coordinator->quarantine = true;
        status = vex_store_open(coordinator->io, coordinator->buffers, &store_options, &state,
                                &coordinator->store, &coordinator->recovery, error);
    }
    return status;
}

static enum vex_status open_parts(struct vex_coordinator *coordinator, int directory_fd,
                                  const struct vex_coordinator_options *options,
                                  struct vex_error *error)
{
    char note[256];
    enum vex_status status = vex_log_buffers_init(coordinator->buffers, error);
    if (status != VEX_OK) {
        return status;
    }
    struct vex_io_buffer registered[VEX_LOG_BUFFERS];
    for (unsigned i = 0; i < VEX_LOG_BUFFERS; i++) {
        registered[i] = (struct vex_io_buffer){coordinator->buffers[i].memory, REGISTERED_BYTES};
    }
    status = vex_io_open(options->io_backend, directory_fd, registered, VEX_LOG_BUFFERS,
                         &coordinator->io, note, error);
    if (status != VEX_OK) {
        return status;
    }
    if (options->lock_fd && coordinator->io->ops->hold_lock) {
        int failure = coordinator->io->ops->hold_lock(coordinator->io, *options->lock_fd);
        if (failure < 0) {
            return vex_error_os(error, VEX_ERR_IO, -failure, "hand the lock to the ring");
        }
    }
    if (note[0]) {
        vex_trace("%s", note);
    }
    if (options->wrap_io) {
        coordinator->io = options->wrap_io(coordinator->io, options->wrap_context);
    }
    status = open_store(coordinator, options, error);
    if (status == VEX_OK && coordinator->recovery.fell_back) {
        vex_trace("the newest checkpoint cannot be used: %s; started from the one at LSN %llu and "
                  "the log behind "
                  "it, and nothing is removed until the next checkpoint ('vexctl checkpoint'); "
                  "check the disk",
                  coordinator->recovery.fault.message,
                  (unsigned long long)coordinator->recovery.checkpoint_lsn);
    }
    if (status == VEX_OK) {
        coordinator->log = vex_store_log(coordinator->store);
        status =
            vex_upkeep_open(coordinator->key, options->checkpoint_bytes, coordinator->publisher,
                            coordinator->registry, coordinator->store, &coordinator->upkeep, error);
    }
    return status;
}

enum vex_status vex_coordinator_open(int directory_fd,
                                     const struct vex_coordinator_options *options,
                                     struct vex_coordinator **out_coordinator,
                                     struct vex_error *error)
{
    *out_coordinator = NULL;
    struct vex_coordinator *coordinator = calloc(1, sizeof(*coordinator));
    if (!coordinator) {
        return vex_error_set(error, VEX_ERR_NOMEM, "coordinator: out of memory");
    }
    uint64_t started_ns = vex_clock_ns();
    enum vex_status status = open_parts(coordinator, directory_fd, options, error);
    if (status != VEX_OK) {
        vex_coordinator_close(coordinator);
        return status;
    }
    vex_upkeep_set_quarantine(coordinator->upkeep, coordinator->quarantined > 0);
    if (coordinator->replayed_drop) {
        vex_upkeep_note_drop(coordinator->upkeep);
    }
    vex_registry_capture(coordinator->registry);
    vex_registry_apply(coordinator->registry, coordinator->recovery.log.last_lsn);
    struct vex_log_counters counters;
    vex_log_get_counters(coordinator->log, &counters);
    coordinator->record_bytes_at_start = counters.record_bytes;
    coordinator->recovery_us = (vex_clock_ns() - started_ns) / 1000u;
    vex_coordinator_beat(coordinator);
    vex_control_ready(vex_publisher_region(coordinator->publisher));
    status = vex_publisher_announce(coordinator->publisher, error);
    if (status != VEX_OK) {
        vex_coordinator_close(coordinator);
        return status;
    }
    *out_coordinator = coordinator;
    return VEX_OK;
}

void vex_coordinator_close(struct vex_coordinator *coordinator)
{
    if (!coordinator) {
        return;
    }
    if (coordinator->log) {
        while (!vex_coordinator_idle(coordinator) && !vex_log_failure(coordinator->log)) {
            (void)vex_coordinator_commit(coordinator);
            (void)vex_coordinator_poll(coordinator, true);
        }
        if (coordinator->upkeep) {
            vex_upkeep_last_checkpoint(coordinator->upkeep);
        }
        if (vex_log_watermark(coordinator->log, true)) {
            (void)vex_log_poll(coordinator->log, true);
        }
    }
    vex_upkeep_close(coordinator->upkeep);
    vex_store_close(coordinator->store);
    vex_registry_close(coordinator->registry);
    vex_publisher_close(coordinator->publisher);
    vex_io_close(coordinator->io);
    vex_log_buffers_deinit(coordinator->buffers);
    seen_deinit(&coordinator->seen);
    vex_buffer_deinit(&coordinator->payload_sizes);
    free(coordinator);
}

const uint8_t *vex_coordinator_uuid(const struct vex_coordinator *coordinator)
{
    return vex_store_uuid(coordinator->store);
}

const struct vex_registry *vex_coordinator_registry(const struct vex_coordinator *coordinator)
{
    return coordinator->registry;
}

const uint8_t *vex_coordinator_key(const struct vex_coordinator *coordinator)
{
    return coordinator->key;
}

void vex_coordinator_beat(struct vex_coordinator *coordinator)
{
    vex_control_beat(vex_publisher_region(coordinator->publisher));
}

void vex_coordinator_spare_readers(struct vex_coordinator *coordinator)
{
    vex_publisher_spare_readers(coordinator->publisher);
}

int vex_coordinator_event_fd(const struct vex_coordinator *coordinator)
{
    return coordinator->io->ops->event_fd(coordinator->io);
}

/* ---- commit ---------------------------------------------------------------------------------- */

bool vex_coordinator_commit(struct vex_coordinator *coordinator)
{
    struct vex_log *log = coordinator->log;
    if (vex_log_in_flight(log) || vex_log_failure(log) || !vex_log_has_staged(log)) {
        return false;
    }
    vex_registry_capture(coordinator->registry);
    bool submitted = vex_log_commit(log);
    vex_upkeep_at_rest(coordinator->upkeep);
    return submitted;
}

/* From here on nothing is written any more; what was staged stays invisible. */
static void announce_failure(struct vex_coordinator *coordinator)
{
    coordinator->failed = true;
    int failure = vex_log_failure(coordinator->log);
    vex_trace("log write failed (%s): read-only from now on, restart to recover",
              strerrordesc_np(failure));
    vex_control_set_state(vex_publisher_region(coordinator->publisher), VEX_DAEMON_READ_ONLY);
}

bool vex_coordinator_poll(struct vex_coordinator *coordinator, bool wait)
{
    struct vex_log *log = coordinator->log;
    uint64_t before = vex_log_durable_lsn(log);
    bool over = vex_log_poll(log, wait);
    if (vex_log_failure(log)) {
        bool news = !coordinator->failed;
        if (news) {
            announce_failure(coordinator);
        }
        return news;
    }
    uint64_t durable = vex_log_durable_lsn(log);
    if (durable != before) {
        vex_registry_apply(coordinator->registry, durable);
    }
    return over;
}

bool vex_coordinator_idle(const struct vex_coordinator *coordinator)
{
    return !vex_log_in_flight(coordinator->log) && !vex_log_has_staged(coordinator->log);
}

bool vex_coordinator_wants_settling(const struct vex_coordinator *coordinator)
{
    return vex_coordinator_idle(coordinator) && vex_log_needs_watermark(coordinator->log);
}

void vex_coordinator_settle(struct vex_coordinator *coordinator)
{
    (void)vex_log_watermark(coordinator->log, false);
}

uint64_t vex_coordinator_staged_lsn(const struct vex_coordinator *coordinator)
{
    return vex_log_next_lsn(coordinator->log) - 1;
}

uint64_t vex_coordinator_durable_lsn(const struct vex_coordinator *coordinator)
{
    return vex_log_durable_lsn(coordinator->log);
}

int vex_coordinator_failure(const struct vex_coordinator *coordinator)
{
    return vex_log_failure(coordinator->log);
}

uint64_t vex_coordinator_generation(const struct vex_coordinator *coordinator)
{
    return vex_control_generation(vex_publisher_region(coordinator->publisher));
}

bool vex_coordinator_has_retired(const struct vex_coordinator *coordinator)
{
    return vex_publisher_has_retired(coordinator->publisher);
}

void vex_coordinator_reclaim(struct vex_coordinator *coordinator, uint64_t oldest_pinned)
{
    /* No worker during the replay. */
    uint64_t oldest =
        coordinator->upkeep ? vex_upkeep_oldest_pinned(coordinator->upkeep) : UINT64_MAX;
    vex_publisher_reclaim(coordinator->publisher, oldest < oldest_pinned ? oldest : oldest_pinned,
                          vex_registry_reuse_slot, coordinator->registry);
}

/* ---- upkeep ---------------------------------------------------------------------------------- */

int vex_coordinator_upkeep_fd(const struct vex_coordinator *coordinator)
{
    return vex_upkeep_event_fd(coordinator->upkeep);
}

bool vex_coordinator_upkeep_is_running(const struct vex_coordinator *coordinator)
{
    return vex_upkeep_oldest_pinned(coordinator->upkeep) != UINT64_MAX;
}

int vex_coordinator_builder_fd(const struct vex_coordinator *coordinator, unsigned builder)
{
    return vex_upkeep_builder_event_fd(coordinator->upkeep, builder);
}

void vex_coordinator_upkeep(struct vex_coordinator *coordinator, uint64_t now_ms)
{
    bool idle = vex_coordinator_idle(coordinator);
    vex_upkeep_turn(coordinator->upkeep, now_ms, !idle);
    if (!vex_coordinator_idle(coordinator) || vex_log_failure(coordinator->log)) {
        return; /* what a merge changed is published with the next batch */
    }
    if (vex_registry_is_dirty(coordinator->registry)) {
        vex_registry_capture(coordinator->registry);
        vex_registry_apply(coordinator->registry, vex_log_durable_lsn(coordinator->log));
    }
    vex_upkeep_at_rest(coordinator->upkeep);
    vex_upkeep_turn(coordinator->upkeep, now_ms, false);
}

enum vex_status vex_coordinator_request(struct vex_coordinator *coordinator,
                                        const struct vex_upkeep_body *body, uint64_t *out_ticket,
                                        struct vex_error *error)
{
    enum vex_status status = check_log(coordinator, error);
    return status == VEX_OK ? vex_upkeep_request(coordinator->upkeep, body, out_ticket, error)
                            : status;
}

bool vex_coordinator_take_answer(struct vex_coordinator *coordinator, struct vex_upkeep_answer *out)
{
    return vex_upkeep_take_answer(coordinator->upkeep, out);
}

/* ---- status ---------------------------------------------------------------------------------- */

enum vex_status vex_coordinator_index_status(const struct vex_coordinator *coordinator,
                                             const struct vex_drop_body *which,
                                             struct vex_index_body *out, struct vex_error *error)
{
    struct vex_live_collection *collection = NULL;
    enum vex_status status = find_collection(coordinator, which->name, &collection, error);
    if (status == VEX_OK) {
        vex_upkeep_index_status(coordinator->upkeep, collection, out);
    }
    return status;
}

void vex_coordinator_stats(const struct vex_coordinator *coordinator, struct vex_stats_body *out)
{
    struct vex_log_counters counters;
    vex_log_get_counters(coordinator->log, &counters);
    out->collections = vex_registry_count(coordinator->registry);
    out->read_only = vex_log_failure(coordinator->log) != 0;
    (void)snprintf(out->version, sizeof(out->version), "%s", VEX_VERSION);
    (void)snprintf(out->io_backend, sizeof(out->io_backend), "%s", coordinator->io->ops->name);
    out->lsn = vex_log_durable_lsn(coordinator->log);
    out->generation = vex_coordinator_generation(coordinator);
    vex_registry_totals(coordinator->registry, &out->live_rows, &out->dead_rows);
    out->shm_bytes = vex_publisher_shm_bytes(coordinator->publisher);
    out->log_bytes = counters.record_bytes;
    out->log_file_bytes = counters.file_bytes;
    out->commits = counters.commits;
    out->records = counters.records;
    out->replayed = coordinator->recovery.log.records;
    out->torn_tails = coordinator->recovery.log.torn_tails;
    out->recovery_us = coordinator->recovery_us;
    struct vex_store_counters store;
    vex_store_get_counters(coordinator->store, &store);
    out->checkpoint_lsn = store.checkpoint_lsn;
    out->segment_files = store.segments;
    out->segment_bytes = store.segment_bytes;
    out->reserve_bytes = store.reserve_bytes;
    out->ingested_bytes = counters.record_bytes - coordinator->record_bytes_at_start;
    out->written_bytes = counters.batch_bytes + counters.zeroed_bytes + store.written_bytes;
    out->live_bytes = vex_registry_live_bytes(coordinator->registry);
    out->quarantined = coordinator->quarantined;
    struct vex_upkeep_counters upkeep;
    vex_upkeep_get_counters(coordinator->upkeep, &upkeep);
    out->checkpoints = upkeep.checkpoints;
    out->checkpoint_failures = upkeep.checkpoint_failures;
    out->merges = upkeep.merges;
    out->merge_failures = upkeep.merge_failures;
    out->merged_bytes = upkeep.merged_bytes;
    out->upkeep_running = upkeep.running;
    memcpy(out->upkeep_error, upkeep.last_error, sizeof(out->upkeep_error));
}
