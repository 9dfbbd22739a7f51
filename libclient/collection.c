#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "libclient/client.h"
#include "shm/wire.h"

/* ---- administration -------------------------------------------------------------------------- */

static enum vex_status change(struct vex_db *db, uint16_t op, const void *body, size_t bytes,
                              struct vex_error *error)
{
    struct attachment *attachment = NULL;
    enum vex_status status = vex_db_ensure(db, &attachment, error);
    if (status != VEX_OK) {
        return status;
    }
    struct vex_reply reply;
    status = vex_connection_call(attachment->connection, op, body, bytes, true, 0, &reply, error);
    vex_db_done(db, attachment);
    if (status == VEX_OK) {
        vex_buffer_deinit(&reply.body);
    }
    return status;
}

static enum vex_status check_name(const char *name, struct vex_error *error)
{
    return name && !vex_name_fault(name, VEX_NAME_MAX + 2)
               ? VEX_OK
               : vex_error_set(error, VEX_ERR_NO_COLLECTION, "no collection %.80s",
                               name ? name : "(NULL)");
}

enum vex_status vex_collection_create(struct vex_db *db, const char *name,
                                      const struct vex_collection_options *options,
                                      struct vex_error *error)
{
    enum vex_status status = vex_db_check(db, error);
    if (status != VEX_OK) {
        return status;
    }
    if (!name || !options || options->size != sizeof(*options)) {
        return vex_error_set(error, VEX_ERR_INVALID,
                             "create: name or options is NULL, or its size is not set");
    }
    const char *fault = vex_name_fault(name, VEX_NAME_MAX + 2);
    if (fault) {
        return vex_error_set(error, VEX_ERR_INVALID, "%s", fault);
    }
    struct vex_create_body body = {
        .dim = options->dim,
        .metric = options->metric,
        .index = options->index,
        .m = options->m,
        .ef_construction = options->ef_construction,
        .storage = options->storage,
        .lists = options->lists,
    };
    (void)snprintf(body.name, sizeof(body.name), "%s", name);
    return change(db, VEX_OP_CREATE, &body, sizeof(body), error);
}

enum vex_status vex_collection_drop(struct vex_db *db, const char *name, struct vex_error *error)
{
    enum vex_status status = vex_db_check(db, error);
    status = status == VEX_OK ? check_name(name, error) : status;
    if (status != VEX_OK) {
        return status;
    }
    struct vex_drop_body body = {0};
    (void)snprintf(body.name, sizeof(body.name), "%s", name);
    return change(db, VEX_OP_DROP, &body, sizeof(body), error);
}

_Static_assert((int)VEX_ALTER_INDEX == (int)VEX_CHANGES_INDEX &&
                   (int)VEX_ALTER_M == (int)VEX_CHANGES_M &&
                   (int)VEX_ALTER_EF_CONSTRUCTION == (int)VEX_CHANGES_EF_CONSTRUCTION &&
                   (int)VEX_ALTER_LISTS == (int)VEX_CHANGES_LISTS,
               "wire");

enum vex_status vex_collection_alter(struct vex_db *db, const char *name,
                                     const struct vex_alter_options *options,
                                     struct vex_error *error)
{
    enum vex_status status = vex_db_check(db, error);
    if (status == VEX_OK && (!options || options->size != sizeof(*options))) {
        status =
            vex_error_set(error, VEX_ERR_INVALID, "alter: options is NULL, or its size is not set");
    }
    status = status == VEX_OK ? check_name(name, error) : status;
    if (status != VEX_OK) {
        return status;
    }
    struct vex_alter_body body = {
        .changes = options->changes,
        .index = options->index,
        .m = options->m,
        .ef_construction = options->ef_construction,
        .lists = options->lists,
    };
    (void)snprintf(body.name, sizeof(body.name), "%s", name);
    return change(db, VEX_OP_ALTER, &body, sizeof(body), error);
}

/* ---- looking --------------------------------------------------------------------------------- */

static enum vex_status ask_index_status(struct vex_db *db, const struct vex_drop_body *which,
                                        struct vex_index_body *out, struct vex_error *error)
{
    struct attachment *attachment = NULL;
    enum vex_status status = vex_db_ensure(db, &attachment, error);
    if (status != VEX_OK) {
        return status;
    }
    struct vex_reply reply;
    status = vex_connection_call(attachment->connection, VEX_OP_INDEX, which, sizeof(*which), false,
                                 vex_db_deadline_ns(db), &reply, error);
    vex_db_done(db, attachment);
    if (status != VEX_OK) {
        return status;
    }
    if (reply.body.bytes == sizeof(*out)) {
        memcpy(out, reply.body.data, sizeof(*out));
    } else {
        status = vex_error_set(error, VEX_ERR_PROTOCOL, "index status of a strange length");
    }
    vex_buffer_deinit(&reply.body);
    return status;
}

enum vex_status vex_collection_index_status(struct vex_db *db, const char *name,
                                            struct vex_index_status *out, struct vex_error *error)
{
    if (!out || out->size != sizeof(*out)) {
        return vex_error_set(error, VEX_ERR_INVALID,
                             "index status: out is NULL or its size is not set");
    }
    enum vex_status status = vex_db_check(db, error);
    status = status == VEX_OK ? check_name(name, error) : status;
    if (status != VEX_OK) {
        return status;
    }
    struct vex_drop_body which = {0};
    struct vex_index_body body;
    (void)snprintf(which.name, sizeof(which.name), "%s", name);
    status = ask_index_status(db, &which, &body, error);
    if (status == VEX_OK) {
        *out = (struct vex_index_status){
            .size = sizeof(*out),
            .index = (enum vex_index_kind)body.index,
            .m = body.m,
            .ef_construction = body.ef_construction,
            .lists = body.lists,
            .segments = body.segments,
            .segments_indexed = body.segments_indexed,
            .segments_other = body.segments_other,
            .segments_waiting = body.segments_waiting,
            .rows = body.rows,
            .rows_indexed = body.rows_indexed,
            .rows_other = body.rows_other,
            .build_rows = body.build_rows,
            .build_ms = body.build_ms,
            .busy_elsewhere = body.busy_elsewhere != 0,
        };
    }
    return status;
}

/* Pins the newest attachment that can be had. */
static enum vex_status pin_fresh(struct vex_db *db, struct attachment **out_attachment,
                                 struct reader_slot **out_slot, struct vex_error *error)
{
    enum vex_status status = vex_db_pin(db, true, out_attachment, out_slot, error);
    if (status == VEX_OK && vex_attachment_is_over(*out_attachment)) {
        (void)vex_db_unpin(*out_slot);
        vex_db_try_attach(db);
        status = vex_db_pin(db, true, out_attachment, out_slot, error);
    }
    return status;
}

static bool find_by_name(const void *region, const char *name, struct vex_collection_facts *out)
{
    for (uint32_t slot = 0; slot < VEX_PLACES_MAX; slot++) {
        if (vex_control_collection(region, slot, out) && strcmp(out->name, name) == 0) {
            return true;
        }
    }
    return false;
}

static void describe(const void *region, uint32_t slot, const struct vex_collection_facts *facts,
                     struct vex_collection_info *out)
{
    struct vex_view_state state = {0};
    struct vex_list_block list = {0};
    (void)vex_control_view(region, slot, facts->id, &state);
    if (state.list_id != 0 && !vex_control_list(region, state.list_block, state.list_id, &list)) {
        list.segments_count = 0;
    }
    *out = (struct vex_collection_info){
        .size = sizeof(*out),
        .id = facts->id,
        .dim = facts->dim,
        .metric = facts->metric,
        .index = facts->index,
        .m = facts->m,
        .ef_construction = facts->ef_construction,
        .storage = facts->storage,
        .lists = facts->lists,
        .segments = list.segments_count,
        .count = state.live_rows,
        .dead = state.dead_rows,
        .shm_bytes = state.shm_bytes,
        .lsn = state.lsn,
    };
    (void)snprintf(out->name, sizeof(out->name), "%s", facts->name);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct vex_collection_info *)a)->name,
                  ((const struct vex_collection_info *)b)->name);
}

enum vex_status vex_collection_list(struct vex_db *db, struct vex_collection_info *infos,
                                    size_t capacity, size_t *out_count, struct vex_error *error)
{
    enum vex_status status = vex_db_check(db, error);
    if (status != VEX_OK) {
        return status;
    }
    if (!out_count || (capacity && !infos)) {
        return vex_error_set(error, VEX_ERR_INVALID, "list: infos or out_count is NULL");
    }
    for (size_t i = 0; i < capacity && i < VEX_PLACES_MAX; i++) {
        if (infos[i].size != sizeof(infos[i])) {
            return vex_error_set(error, VEX_ERR_INVALID, "list: the size of entry %zu is not set",
                                 i);
        }
    }
    struct vex_collection_info *all = calloc(VEX_PLACES_MAX, sizeof(*all));
    if (!all) {
        return vex_error_set(error, VEX_ERR_NOMEM, "list: out of memory");
    }
    struct attachment *attachment = NULL;
    struct reader_slot *slot = NULL;
    status = pin_fresh(db, &attachment, &slot, error);
    if (status != VEX_OK) {
        free(all);
        return status;
    }
    size_t count = 0;
    for (uint32_t i = 0; i < VEX_PLACES_MAX; i++) {
        struct vex_collection_facts facts;
        if (vex_control_collection(attachment->control.memory, i, &facts)) {
            describe(attachment->control.memory, i, &facts, &all[count++]);
        }
    }
    (void)vex_db_unpin(slot);
    qsort(all, count, sizeof(*all), by_name);
    for (size_t i = 0; i < count && i < capacity; i++) {
        infos[i] = all[i];
    }
    free(all);
    *out_count = count;
    return VEX_OK;
}

/* ---- handles --------------------------------------------------------------------------------- */

enum vex_status vex_collection_open(struct vex_db *db, const char *name,
                                    struct vex_collection **out_collection, struct vex_error *error)
{
    if (!out_collection) {
        return vex_error_set(error, VEX_ERR_INVALID, "out_collection is NULL");
    }
    *out_collection = NULL;
    enum vex_status status = vex_db_check(db, error);
    if (status == VEX_OK && !name) {
        status = vex_error_set(error, VEX_ERR_INVALID, "the collection's name is NULL");
    }
    struct attachment *attachment = NULL;
    struct reader_slot *slot = NULL;
    status = status == VEX_OK ? pin_fresh(db, &attachment, &slot, error) : status;
    if (status != VEX_OK) {
        return status;
    }
    struct vex_collection_facts facts;
    bool found = find_by_name(attachment->control.memory, name, &facts);
    (void)vex_db_unpin(slot);
    if (!found) {
        return vex_error_set(error, VEX_ERR_NO_COLLECTION, "no collection %.80s", name);
    }
    struct vex_collection *collection = calloc(1, sizeof(*collection));
    if (!collection) {
        return vex_error_set(error, VEX_ERR_NOMEM, "out of memory");
    }
    collection->db = db;
    collection->facts = facts;
    (void)pthread_mutex_init(&collection->lock, NULL);
    *out_collection = collection;
    return VEX_OK;
}

void vex_collection_close(struct vex_collection *collection)
{
    if (!collection) {
        return;
    }
    if (vex_db_check(collection->db, NULL) != VEX_OK) {
        return; /* in a forked child: nothing of it came along */
    }
    /* relaxed: nobody else uses the handle any more. */
    vex_cache_free(atomic_load_explicit(&collection->cache, memory_order_relaxed));
    while (collection->replaced) {
        struct view_cache *next = collection->replaced->next;
        vex_cache_free(collection->replaced);
        collection->replaced = next;
    }
    (void)pthread_mutex_destroy(&collection->lock);
    free(collection);
}

/* Segments with a graph, or with lists where those are what the collection wants. */
static uint32_t count_graphs(const struct vex_view *view)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < view->segments_count; i++) {
        const struct vex_segment *segment = view->segments[i].segment;
        count += segment->graph.nodes_count > 0 || segment->lists.count > 0;
    }
    return count;
}

/* Those that the handle was opened with, but for the index, which may have been altered since. */
static struct vex_collection_facts current_facts(const struct vex_collection *collection,
                                                 const struct reading *reading)
{
    struct vex_collection_facts facts;
    bool found =
        vex_control_collection(reading->attachment->control.memory, reading->cache->slot, &facts) &&
        facts.id == collection->facts.id;
    return found ? facts : collection->facts;
}

enum vex_status vex_collection_describe(struct vex_collection *collection,
                                        struct vex_collection_info *out, struct vex_error *error)
{
    if (!collection || !out || out->size != sizeof(*out)) {
        return vex_error_set(error, VEX_ERR_INVALID,
                             "describe: collection or out is NULL, or its size is not set");
    }
    enum vex_status status = vex_db_check(collection->db, error);
    struct reading reading;
    status = status == VEX_OK ? vex_reading_begin(collection, true, 0, 0, &reading, error) : status;
    if (status != VEX_OK) {
        return status;
    }
    struct vex_collection_facts facts = current_facts(collection, &reading);
    *out = (struct vex_collection_info){
        .size = sizeof(*out),
        .id = facts.id,
        .dim = facts.dim,
        .metric = facts.metric,
        .index = facts.index,
        .m = facts.m,
        .ef_construction = facts.ef_construction,
        .storage = facts.storage,
        .lists = facts.lists,
        .segments = reading.view.segments_count,
        .graphs = count_graphs(&reading.view),
        .count = reading.live_rows,
        .dead = reading.dead_rows,
        .shm_bytes = reading.shm_bytes,
        .lsn = reading.view.lsn,
    };
    (void)snprintf(out->name, sizeof(out->name), "%s", facts.name);
    (void)vex_db_unpin(reading.slot);
    return VEX_OK;
}

const char *vex_index_name(enum vex_index_kind index)
{
    switch (index) {
    case VEX_INDEX_AUTO:
        return "auto";
    case VEX_INDEX_FLAT:
        return "flat";
    case VEX_INDEX_HNSW:
        return "hnsw";
    case VEX_INDEX_IVF:
        return "ivf";
    }
    return "unknown";
}

const char *vex_storage_name(enum vex_storage storage)
{
    switch (storage) {
    case VEX_STORAGE_FLOAT32:
        return "float32";
    case VEX_STORAGE_FLOAT16:
        return "float16";
    case VEX_STORAGE_INT8:
        return "int8";
    }
    return "unknown";
}

const char *vex_metric_name(enum vex_metric metric)
{
    switch (metric) {
    case VEX_METRIC_L2:
        return "l2";
    case VEX_METRIC_COSINE:
        return "cosine";
    case VEX_METRIC_DOT:
        return "dot";
    default:
        return "unknown";
    }
}
