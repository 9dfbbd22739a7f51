#include "base/bytes.h"

#include <stdlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/panic.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the formats are little-endian");
_Static_assert(sizeof(size_t) == 8, "sizes and offsets are 64 bit");

uint64_t vex_hash64(const void *data, size_t bytes, uint64_t seed)
{
    return XXH3_64bits_withSeed(data, bytes, seed);
}

bool vex_buffer_reserve(struct vex_buffer *buffer, size_t more)
{
    size_t needed;
    if (!vex_add(buffer->bytes, more, &needed)) {
        return false;
    }
    if (needed <= buffer->capacity) {
        return true;
    }
    size_t capacity = buffer->capacity ? buffer->capacity : 256;
    while (capacity < needed) {
        if (!vex_add(capacity, capacity, &capacity)) {
            return false;
        }
    }
    uint8_t *data = realloc(buffer->data, capacity);
    if (!data) {
        return false;
    }
    buffer->data = data;
    buffer->capacity = capacity;
    return true;
}

bool vex_buffer_append(struct vex_buffer *buffer, const void *data, size_t bytes)
{
    if (!vex_buffer_reserve(buffer, bytes)) {
        return false;
    }
    if (bytes) {
        memcpy(buffer->data + buffer->bytes, data, bytes);
    }
    buffer->bytes += bytes;
    return true;
}

void vex_buffer_consume(struct vex_buffer *buffer, size_t bytes)
{
    VEX_ASSERT(bytes <= buffer->bytes);
    buffer->bytes -= bytes;
    if (buffer->bytes) {
        memmove(buffer->data, buffer->data + bytes, buffer->bytes);
    }
}

void vex_buffer_deinit(struct vex_buffer *buffer)
{
    free(buffer->data);
    *buffer = (struct vex_buffer){0};
}
