#include "shm/wire.h"

#include "base/error.h"

enum vex_status vex_frame_decode(struct vex_frame_head *out, const uint8_t *bytes,
                                 struct vex_error *error)
{
    struct vex_frame_head head;
    memcpy(&head, bytes, sizeof(head));
    if (head.magic != VEX_WIRE_MAGIC) {
        return vex_error_set(error, VEX_ERR_PROTOCOL, "frame: bad magic %08x", head.magic);
    }
    if (head.version != VEX_WIRE_VERSION) {
        return vex_error_set(error, VEX_ERR_VERSION, "frame: protocol %u, this side speaks %u",
                             head.version, VEX_WIRE_VERSION);
    }
    if (head.body_bytes > VEX_WIRE_BODY_MAX || head.body_bytes % 8 != 0) {
        return vex_error_set(error, VEX_ERR_PROTOCOL,
                             "frame: body of %u bytes; at most %u and a multiple of 8",
                             head.body_bytes, VEX_WIRE_BODY_MAX);
    }
    if (head.reserved != 0) {
        return vex_error_set(error, VEX_ERR_PROTOCOL, "frame: reserved bits are set");
    }
    *out = head;
    return VEX_OK;
}

static enum vex_status malformed(struct vex_error *error, const char *what)
{
    return vex_error_set(error, VEX_ERR_PROTOCOL, "write: %s", what);
}

/* Cuts `count` elements off the front of what is left. NULL if there are fewer. */
static const uint8_t *take(const uint8_t **at, size_t *left, size_t count, size_t element_bytes)
{
    size_t bytes;
    if (!vex_multiply(count, element_bytes, &bytes) || bytes > *left) {
        return NULL;
    }
    const uint8_t *start = *at;
    *at += bytes;
    *left -= bytes;
    return start;
}

static enum vex_status check_head(const struct vex_write_head *head, struct vex_error *error)
{
    if (head->kind < VEX_WRITE_INSERT || head->kind > VEX_WRITE_DELETE) {
        return vex_error_set(error, VEX_ERR_PROTOCOL, "write: unknown kind %u", head->kind);
    }
    if (head->flags & ~(VEX_WRITE_AUTO_IDS | VEX_WRITE_PAYLOADS)) {
        return malformed(error, "unknown flags");
    }
    if (head->count < 1 || head->count > VEX_BATCH_COUNT_MAX) {
        return vex_error_set(error, VEX_ERR_LIMIT, "write: %u items; a batch holds 1 to %u",
                             head->count, VEX_BATCH_COUNT_MAX);
    }
    bool is_delete = head->kind == VEX_WRITE_DELETE;
    if (is_delete ? head->dim != 0 || head->flags != 0 : head->dim < 1 || head->dim > VEX_DIM_MAX) {
        return malformed(error, "dimension or flags do not suit the kind");
    }
    if ((head->flags & VEX_WRITE_AUTO_IDS) && head->kind != VEX_WRITE_INSERT) {
        return malformed(error, "only inserts may leave the ids to the coordinator");
    }
    return VEX_OK;
}

static enum vex_status check_payloads(struct vex_write *write, size_t left, struct vex_error *error)
{
    for (uint32_t i = 0; write->payload_lengths && i < write->head.count; i++) {
        uint32_t bytes = vex_write_payload_bytes(write, i);
        if (bytes == VEX_NO_PAYLOAD) {
            continue;
        }
        if (bytes > VEX_PAYLOAD_MAX) {
            return vex_error_set(error, VEX_ERR_LIMIT,
                                 "write: item %u: payload of %u bytes, at most %u", i, bytes,
                                 VEX_PAYLOAD_MAX);
        }
        write->payload_bytes += bytes;
    }
    if (write->payload_bytes > left || left - write->payload_bytes >= 8) {
        return malformed(error, "body is shorter or longer than its parts");
    }
    for (size_t i = (size_t)write->payload_bytes; i < left; i++) {
        if (write->payloads[i] != 0) {
            return malformed(error, "padding is not zero");
        }
    }
    return VEX_OK;
}

enum vex_status vex_write_decode(struct vex_write *out, const uint8_t *bytes, size_t bytes_count,
                                 struct vex_error *error)
{
    struct vex_write write = {0};
    const uint8_t *at = bytes;
    size_t left = bytes_count;
    if (bytes_count % 8 != 0) {
        return malformed(error, "body is not a multiple of 8 bytes");
    }
    const uint8_t *head = take(&at, &left, 1, sizeof(write.head));
    if (!head) {
        return malformed(error, "body is shorter than its head");
    }
    memcpy(&write.head, head, sizeof(write.head));
    enum vex_status status = check_head(&write.head, error);
    if (status != VEX_OK) {
        return status;
    }
    uint32_t count = write.head.count;
    const uint8_t *ids =
        take(&at, &left, write.head.flags & VEX_WRITE_AUTO_IDS ? 1 : count, sizeof(uint64_t));
    if (!ids) {
        return malformed(error, "body ends inside the ids");
    }
    if (write.head.flags & VEX_WRITE_AUTO_IDS) {
        write.first_id = vex_load_u64(ids);
        if (write.first_id > VEX_ID_MAX || count - 1 > VEX_ID_MAX - write.first_id) {
            return vex_error_set(error, VEX_ERR_LIMIT, "write: ids run past the largest one");
        }
    } else {
        write.ids = ids;
    }
    for (uint32_t i = 0; write.ids && i < count; i++) {
        if (vex_write_id(&write, i) > VEX_ID_MAX) {
            return vex_error_set(error, VEX_ERR_LIMIT, "write: item %u: id 2^64-1 is not an id", i);
        }
    }
    if (write.head.dim) {
        const uint8_t *vectors = take(&at, &left, (size_t)count * write.head.dim, sizeof(float));
        if (!vectors) {
            return malformed(error, "body ends inside the vectors");
        }
        write.vectors = (const float *)(const void *)vectors;
    }
    if (write.head.flags & VEX_WRITE_PAYLOADS) {
        write.payload_lengths = take(&at, &left, count, sizeof(uint32_t));
        if (!write.payload_lengths) {
            return malformed(error, "body ends inside the payload lengths");
        }
    }
    write.payloads = at;
    status = check_payloads(&write, left, error);
    if (status == VEX_OK) {
        *out = write;
    }
    return status;
}

bool vex_write_encode(struct vex_buffer *out, const struct vex_write_input *input)
{
    static const uint8_t zeros[8];
    size_t start = out->bytes;
    struct vex_write_head head = {
        .collection_id = input->collection_id,
        .kind = (uint16_t)input->kind,
        .flags = (uint16_t)((input->ids ? 0 : VEX_WRITE_AUTO_IDS) |
                            (input->payloads ? VEX_WRITE_PAYLOADS : 0)),
        .count = input->count,
        .dim = input->dim,
    };
    size_t vectors_bytes = (size_t)input->count * input->dim * sizeof(float);
    bool fits = vex_buffer_append(out, &head, sizeof(head));
    fits = fits && (input->ids ? vex_buffer_append(out, input->ids, input->count * sizeof(uint64_t))
                               : vex_buffer_append(out, zeros, sizeof(uint64_t)));
    fits = fits && vex_buffer_append(out, input->vectors, vectors_bytes);
    for (uint32_t i = 0; fits && input->payloads && i < input->count; i++) {
        uint32_t bytes = input->payloads[i] ? (uint32_t)input->payload_bytes[i] : VEX_NO_PAYLOAD;
        fits = vex_buffer_append(out, &bytes, sizeof(bytes));
    }
    for (uint32_t i = 0; fits && input->payloads && i < input->count; i++) {
        fits = !input->payloads[i] ||
               vex_buffer_append(out, input->payloads[i], input->payload_bytes[i]);
    }
    size_t padding = (size_t)vex_round_up(out->bytes - start, 8) - (out->bytes - start);
    return fits && vex_buffer_append(out, zeros, padding);
}

const char *vex_name_fault(const char *name, size_t bytes)
{
    size_t length = strnlen(name, bytes);
    if (length == 0) {
        return "a collection name is not empty";
    }
    if (length > VEX_NAME_MAX || length == bytes) {
        return "a collection name has at most 63 bytes";
    }
    if (name[0] == '.') {
        return "a collection name does not start with '.'";
    }
    for (size_t i = 0; i < length; i++) {
        char c = name[i];
        bool fine = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                    c == '_' || c == '-' || c == '.';
        if (!fine) {
            return "a collection name consists of letters, digits, '_', '-' and '.'";
        }
    }
    return NULL;
}
