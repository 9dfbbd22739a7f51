/*
 * Fuzzes checkpoint files: any content, whose checksum the first byte may ask to be made right. What decodes
 * points into the file and nowhere else; and reading the file says the same as decoding it, and no more.
 *
 *   byte 0    1: make the checksum right; 2: the size in the header, too
 *   byte 1    blocks of the file, 1 to 8; what the input does not fill is zero
 *   then      the file
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/panic.h"
#include "ioengine/checkpoint.h"
#include "tests/lib/io_memory.h"

#define BLOCKS_MAX 8u
#define NUMBER 7u
#define SIZE_OFFSET 64u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t uuid[16] = "fuzzing instance";

static bool is_within(const void *from, size_t bytes, const uint8_t *file, size_t file_bytes)
{
    const uint8_t *at = from;
    return at >= file && at <= file + file_bytes && bytes <= (size_t)(file + file_bytes - at);
}

/* Touches all that was decoded, for the sanitizers to see. */
static uint64_t use(const struct vex_checkpoint *checkpoint)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < checkpoint->segments_count; i++) {
        sum += checkpoint->segments[i];
    }
    return sum + vex_hash64(checkpoint->body, checkpoint->body_bytes, sum);
}

static void fuzz_read(const uint8_t *file, size_t bytes, enum vex_status expected,
                      const struct vex_checkpoint *decoded)
{
    struct vex_io *io = vex_io_memory_open();
    char path[VEX_CHECKPOINT_PATH_BYTES];
    vex_checkpoint_path(path, NUMBER);
    vex_io_memory_put(io, path, file, bytes);
    struct vex_io *before = vex_io_memory_clone(io);
    struct vex_checkpoint_file read = {0};
    enum vex_status status = vex_checkpoint_read(io, uuid, NUMBER, &read, NULL);
    VEX_ASSERT(status == expected);
    if (status == VEX_OK) {
        VEX_ASSERT(read.bytes == bytes);
        VEX_ASSERT(read.checkpoint.lsn == decoded->lsn);
        VEX_ASSERT(use(&read.checkpoint) == use(decoded));
        vex_checkpoint_file_deinit(&read);
    }
    VEX_ASSERT(read.memory == NULL);
    VEX_ASSERT(vex_io_memory_equals(io, before));
    vex_io_close(before);
    vex_io_close(io);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) {
        return 0;
    }
    unsigned flags = data[0];
    size_t bytes = (1 + data[1] % BLOCKS_MAX) * (size_t)VEX_BLOCK_BYTES;
    uint8_t *file = calloc(1, bytes);
    VEX_ASSERT(file);
    memcpy(file, data + 2, size - 2 < bytes ? size - 2 : bytes);
    if (flags & 2) {
        uint64_t size_field = bytes;
        memcpy(file + SIZE_OFFSET, &size_field, sizeof(size_field));
    }
    if (flags & 1) {
        uint64_t checksum = vex_hash64(file, bytes - sizeof(checksum), 0);
        memcpy(file + bytes - sizeof(checksum), &checksum, sizeof(checksum));
    }
    struct vex_checkpoint checkpoint = {0};
    uint64_t hash = 0;
    struct vex_error error = {.status = VEX_OK};
    enum vex_status status =
        vex_checkpoint_decode(&checkpoint, &hash, uuid, NUMBER, file, bytes, &error);
    if (status == VEX_OK) {
        VEX_ASSERT(checkpoint.number == NUMBER);
        VEX_ASSERT(checkpoint.segments_count <= bytes / sizeof(uint64_t));
        VEX_ASSERT(is_within(checkpoint.segments, checkpoint.segments_count * sizeof(uint64_t),
                             file, bytes));
        VEX_ASSERT(is_within(checkpoint.body, checkpoint.body_bytes, file, bytes));
    } else {
        VEX_ASSERT(error.status == status && error.message[0]);
        VEX_ASSERT(status == VEX_ERR_CORRUPT || status == VEX_ERR_VERSION);
    }
    fuzz_read(file, bytes, status, &checkpoint);
    free(file);
    return 0;
}
