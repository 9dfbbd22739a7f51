/*
 * Fuzzes the command channel: the first 32 bytes are a frame head, what follows is the body of a write.
 * A body that is accepted must lie within its bytes and must be the one that encoding its parts gives:
 * there are no two encodings of one write, and no byte that nobody looks at.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/panic.h"
#include "shm/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_head(const uint8_t *data)
{
    struct vex_frame_head head;
    struct vex_error error = {.status = VEX_OK};
    enum vex_status status = vex_frame_decode(&head, data, &error);
    VEX_ASSERT(status == VEX_OK || error.status == status);
    if (status == VEX_OK) {
        VEX_ASSERT(head.magic == VEX_WIRE_MAGIC && head.version == VEX_WIRE_VERSION);
        VEX_ASSERT(head.body_bytes <= VEX_WIRE_BODY_MAX && head.body_bytes % 8 == 0);
        VEX_ASSERT(head.reserved == 0);
        VEX_ASSERT(memcmp(&head, data, sizeof(head)) == 0);
    }
}

static void check_bounds(const struct vex_write *write, const uint8_t *body, size_t size)
{
    const uint8_t *end = body + size;
    uint32_t count = write->head.count;
    VEX_ASSERT(count >= 1 && count <= VEX_BATCH_COUNT_MAX);
    for (uint32_t i = 0; i < count; i++) {
        VEX_ASSERT(vex_write_id(write, i) <= VEX_ID_MAX);
    }
    if (write->vectors) {
        size_t floats = (size_t)count * write->head.dim;
        VEX_ASSERT((const uint8_t *)(write->vectors + floats) <= end);
    }
    VEX_ASSERT(write->payloads <= end);
    VEX_ASSERT(write->payload_bytes <= (size_t)(end - write->payloads));
}

/* Encodes the parts again and compares. First ids of VEX_WRITE_AUTO_IDS are not the encoder's to give. */
static void check_same(const struct vex_write *write, const uint8_t *body, size_t size)
{
    uint32_t count = write->head.count;
    uint64_t *ids = calloc(count, sizeof(*ids));
    const void **payloads = calloc(count, sizeof(*payloads));
    size_t *payload_bytes = calloc(count, sizeof(*payload_bytes));
    VEX_ASSERT(ids && payloads && payload_bytes);
    const uint8_t *at = write->payloads;
    for (uint32_t i = 0; i < count; i++) {
        ids[i] = vex_write_id(write, i);
        uint32_t bytes = vex_write_payload_bytes(write, i);
        if (bytes != VEX_NO_PAYLOAD) {
            payloads[i] = at;
            payload_bytes[i] = bytes;
            at += bytes;
        }
    }
    const struct vex_write_input input = {
        .collection_id = write->head.collection_id,
        .kind = (enum vex_write_kind)write->head.kind,
        .count = count,
        .dim = write->head.dim,
        .ids = write->ids ? ids : NULL,
        .vectors = write->vectors,
        .payloads = write->payload_lengths ? payloads : NULL,
        .payload_bytes = payload_bytes,
    };
    struct vex_buffer again = {0};
    bool encoded = vex_write_encode(&again, &input);
    VEX_ASSERT(encoded);
    VEX_ASSERT(again.bytes == size);
    if (!write->ids) {
        memcpy(again.data + sizeof(write->head), &write->first_id, sizeof(write->first_id));
    }
    VEX_ASSERT(memcmp(again.data, body, size) == 0);
    vex_buffer_deinit(&again);
    free(payload_bytes);
    free(payloads);
    free(ids);
}

static void fuzz_body(const uint8_t *data, size_t size)
{
    uint8_t *body = malloc(size ? size : 1);
    VEX_ASSERT(body);
    memcpy(body, data, size);
    struct vex_write write;
    struct vex_error error = {.status = VEX_OK};
    enum vex_status status = vex_write_decode(&write, body, size, &error);
    if (status == VEX_OK) {
        check_bounds(&write, body, size);
        check_same(&write, body, size);
    } else {
        VEX_ASSERT(error.status == status);
        VEX_ASSERT(status == VEX_ERR_PROTOCOL || status == VEX_ERR_LIMIT);
    }
    free(body);
}

static void fuzz_name(const uint8_t *data, size_t size)
{
    char name[VEX_NAME_MAX + 1];
    size_t bytes = size < sizeof(name) ? size : sizeof(name);
    memcpy(name, data, bytes);
    if (!vex_name_fault(name, bytes)) {
        size_t length = strnlen(name, bytes);
        VEX_ASSERT(length >= 1 && length < bytes && name[0] != '.');
        VEX_ASSERT(!memchr(name, '/', length));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < VEX_WIRE_HEAD_BYTES) {
        fuzz_name(data, size);
        return 0;
    }
    fuzz_head(data);
    fuzz_name(data, size);
    fuzz_body(data + VEX_WIRE_HEAD_BYTES, size - VEX_WIRE_HEAD_BYTES);
    return 0;
}
