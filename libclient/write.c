/*
 * Mutations: checked here as far as the client can, so that a bad batch costs no round trip and
 * gets its message from where the caller stands; checked again by the daemon, which trusts nobody.
 */
#include <stdio.h>

#include "base/error.h"
#include "index/kernels.h"
#include "libclient/client.h"
#include "shm/wire.h"

static enum vex_status check_shape(const struct vex_collection *collection,
                                   enum vex_write_kind kind, const struct vex_batch *batch,
                                   struct vex_error *error)
{
    if (kind < VEX_WRITE_INSERT || kind > VEX_WRITE_DELETE) {
        return vex_error_set(error, VEX_ERR_INVALID, "write: unknown kind %d", (int)kind);
    }
    if (batch->count < 1 || batch->count > VEX_BATCH_COUNT_MAX) {
        return vex_error_set(error, VEX_ERR_LIMIT, "write: %zu items; a batch holds 1 to %u",
                             batch->count, VEX_BATCH_COUNT_MAX);
    }
    if (!batch->ids && kind != VEX_WRITE_INSERT) {
        return vex_error_set(error, VEX_ERR_INVALID,
                             "write: ids are missing; only an insert may "
                             "leave them to the coordinator");
    }
    if (kind == VEX_WRITE_DELETE) {
        return batch->vectors || batch->payloads || batch->dim
                   ? vex_error_set(error, VEX_ERR_INVALID, "delete: takes ids only")
                   : VEX_OK;
    }
    if (!batch->vectors || (batch->payloads && !batch->payload_bytes)) {
        return vex_error_set(error, VEX_ERR_INVALID, "write: vectors or payload_bytes is NULL");
    }
    if (batch->dim != collection->facts.dim) {
        return vex_error_set(error, VEX_ERR_DIM, "vectors of dimension %zu, collection %s has %u",
                             batch->dim, collection->facts.name, collection->facts.dim);
    }
    return VEX_OK;
}

/* "item 3 (id 77)", or "item 3" if the coordinator makes the ids. */
static const char *item_text(const struct vex_batch *batch, size_t item, char text[64])
{
    if (batch->ids) {
        (void)snprintf(text, 64, "item %zu (id %llu)", item, (unsigned long long)batch->ids[item]);
    } else {
        (void)snprintf(text, 64, "item %zu", item);
    }
    return text;
}

static enum vex_status check_items(enum vex_write_kind kind, const struct vex_batch *batch,
                                   struct vex_error *error)
{
    char text[64];
    size_t row_bytes = batch->dim * sizeof(float) + sizeof(uint64_t);
    size_t bytes = batch->count * row_bytes;
    for (size_t i = 0; i < batch->count; i++) {
        if (batch->ids && batch->ids[i] > VEX_ID_MAX) {
            return vex_error_set(error, VEX_ERR_LIMIT, "item %zu: id 2^64-1 is not an id", i);
        }
        if (batch->payloads && batch->payloads[i]) {
            if (batch->payload_bytes[i] > VEX_PAYLOAD_MAX) {
                return vex_error_set(error, VEX_ERR_LIMIT, "%s: payload of %zu bytes, at most %u",
                                     item_text(batch, i, text), batch->payload_bytes[i],
                                     VEX_PAYLOAD_MAX);
            }
            bytes += batch->payload_bytes[i];
        }
        if (kind != VEX_WRITE_DELETE &&
            !vex_kernels_get()->all_finite(batch->vectors + i * batch->dim, batch->dim)) {
            return vex_error_set(error, VEX_ERR_NOT_FINITE, "%s: the vector holds NaN or infinity",
                                 item_text(batch, i, text));
        }
    }
    if (bytes > VEX_BATCH_BYTES_MAX) {
        return vex_error_set(error, VEX_ERR_LIMIT,
                             "write: a batch of %zu bytes, at most %u; split it", bytes,
                             VEX_BATCH_BYTES_MAX);
    }
    return VEX_OK;
}

static enum vex_status send_batch(struct vex_collection *collection, enum vex_write_kind kind,
                                  const struct vex_batch *batch, struct vex_reply *reply,
                                  struct vex_error *error)
{
    struct vex_buffer body = {0};
    const struct vex_write_input input = {
        .collection_id = collection->facts.id,
        .kind = kind,
        .count = (uint32_t)batch->count,
        .dim = (uint32_t)batch->dim,
        .ids = batch->ids,
        .vectors = batch->vectors,
        .payloads = batch->payloads,
        .payload_bytes = batch->payload_bytes,
    };
    struct attachment *attachment = NULL;
    enum vex_status status = vex_db_ensure(collection->db, &attachment, error);
    if (status != VEX_OK) {
        return status;
    }
    if (vex_write_encode(&body, &input)) {
        status = vex_connection_call(attachment->connection, VEX_OP_WRITE, body.data, body.bytes,
                                     true, 0, reply, error);
    } else {
        status = vex_error_set(error, VEX_ERR_NOMEM, "write: out of memory");
    }
    vex_db_done(collection->db, attachment);
    vex_buffer_deinit(&body);
    return status;
}

enum vex_status vex_write(struct vex_collection *collection, enum vex_write_kind kind,
                          const struct vex_batch *batch, struct vex_ack *out_ack,
                          struct vex_error *error)
{
    if (!collection || !batch || batch->size != sizeof(*batch) ||
        (out_ack && out_ack->size != sizeof(*out_ack))) {
        return vex_error_set(error, VEX_ERR_INVALID,
                             "write: collection or batch is NULL, or a size is not set");
    }
    enum vex_status status = vex_db_check(collection->db, error);
    status = status == VEX_OK ? check_shape(collection, kind, batch, error) : status;
    status = status == VEX_OK ? check_items(kind, batch, error) : status;
    struct vex_reply reply;
    status = status == VEX_OK ? send_batch(collection, kind, batch, &reply, error) : status;
    if (status != VEX_OK) {
        return status;
    }
    struct vex_ack_body ack = {0};
    bool sound = reply.body.bytes == sizeof(ack);
    if (sound) {
        memcpy(&ack, reply.body.data, sizeof(ack));
    }
    vex_buffer_deinit(&reply.body);
    if (!sound) {
        return vex_error_set(error, VEX_ERR_UNKNOWN_OUTCOME,
                             "write: an acknowledgement of a strange length");
    }
    if (out_ack) {
        *out_ack = (struct vex_ack){sizeof(*out_ack), ack.lsn, ack.first_id, ack.count};
    }
    return VEX_OK;
}

static enum vex_status write_one(struct vex_collection *collection, enum vex_write_kind kind,
                                 const uint64_t *id, const float *vector, size_t dim,
                                 const void *payload, size_t payload_bytes, struct vex_ack *out_ack,
                                 struct vex_error *error)
{
    const struct vex_batch batch = {
        .size = sizeof(batch),
        .count = 1,
        .ids = id,
        .vectors = vector,
        .dim = dim,
        .payloads = payload ? &payload : NULL,
        .payload_bytes = payload ? &payload_bytes : NULL,
    };
    return vex_write(collection, kind, &batch, out_ack, error);
}

enum vex_status vex_insert(struct vex_collection *collection, const uint64_t *id,
                           const float *vector, size_t dim, const void *payload,
                           size_t payload_bytes, struct vex_ack *out_ack, struct vex_error *error)
{
    return write_one(collection, VEX_WRITE_INSERT, id, vector, dim, payload, payload_bytes, out_ack,
                     error);
}

enum vex_status vex_upsert(struct vex_collection *collection, uint64_t id, const float *vector,
                           size_t dim, const void *payload, size_t payload_bytes,
                           struct vex_ack *out_ack, struct vex_error *error)
{
    return write_one(collection, VEX_WRITE_UPSERT, &id, vector, dim, payload, payload_bytes,
                     out_ack, error);
}

enum vex_status vex_update(struct vex_collection *collection, uint64_t id, const float *vector,
                           size_t dim, const void *payload, size_t payload_bytes,
                           struct vex_ack *out_ack, struct vex_error *error)
{
    return write_one(collection, VEX_WRITE_UPDATE, &id, vector, dim, payload, payload_bytes,
                     out_ack, error);
}

enum vex_status vex_delete(struct vex_collection *collection, uint64_t id, struct vex_ack *out_ack,
                           struct vex_error *error)
{
    return write_one(collection, VEX_WRITE_DELETE, &id, NULL, 0, NULL, 0, out_ack, error);
}
