/*
 * Fuzzes the manifest: two slots of any content, whose checksums the first byte may ask to be made right.
 * What decodes must be one of the slots; what an instance opens must be what decodes, and opening changes
 * nothing but makes slots equal that are not.
 *
 *   byte 0    1, 2: make the checksum of that slot right; 4: the file ends inside the second slot
 *   then      160 bytes for each slot
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/panic.h"
#include "ioengine/manifest.h"
#include "tests/lib/io_memory.h"

#define SLOT_INPUT 160u
#define CHECKED_BYTES 4088u
#define FILE_BYTES (2u * VEX_BLOCK_BYTES)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool is_from_slot(const struct vex_manifest *manifest, const uint8_t *slot)
{
    return vex_load_u64(slot + 8) == manifest->sequence &&
           memcmp(slot + 16, manifest->uuid, sizeof(manifest->uuid)) == 0 &&
           vex_load_u64(slot + 32) == manifest->created_ms &&
           vex_load_u64(slot + 40) == manifest->log_file &&
           vex_load_u64(slot + 48) == manifest->log_lsn &&
           vex_load_u32(slot + 56) == manifest->checkpoints_count &&
           memcmp(slot + 64, manifest->checkpoints,
                  manifest->checkpoints_count * sizeof(manifest->checkpoints[0])) == 0;
}

static bool same_content(const struct vex_manifest *left, struct vex_manifest right)
{
    right.sequence = left->sequence;
    return memcmp(left, &right, sizeof(right)) == 0;
}

static void fuzz_open(const uint8_t *file, size_t bytes, enum vex_status expected, bool equal,
                      const struct vex_manifest *decoded)
{
    struct vex_io *io = vex_io_memory_open();
    vex_io_memory_put(io, "MANIFEST", file, bytes);
    struct vex_io *before = vex_io_memory_clone(io);
    struct vex_manifest opened;
    enum vex_status status = vex_manifest_open(io, &opened, NULL);
    VEX_ASSERT(status == expected);
    VEX_ASSERT(vex_io_memory_equals(io, before) == (status != VEX_OK || equal));
    if (status == VEX_OK) {
        VEX_ASSERT(same_content(decoded, opened));
        struct vex_manifest again;
        size_t mended_bytes;
        const uint8_t *mended = vex_io_memory_bytes(io, "MANIFEST", &mended_bytes);
        status = vex_manifest_decode(&again, &equal, mended, mended_bytes, NULL);
        VEX_ASSERT(status == VEX_OK && equal);
        VEX_ASSERT(memcmp(&opened, &again, sizeof(again)) == 0);
    }
    vex_io_close(before);
    vex_io_close(io);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) {
        return 0;
    }
    unsigned flags = *data++;
    size--;
    uint8_t *file = calloc(1, FILE_BYTES);
    VEX_ASSERT(file);
    for (size_t slot = 0; slot < 2; slot++) {
        uint8_t *at = file + slot * VEX_BLOCK_BYTES;
        size_t some = size < SLOT_INPUT ? size : SLOT_INPUT;
        memcpy(at, data, some);
        data += some;
        size -= some;
        at[15] &=
            0x3f; /* of the sequence, which could not be told from a right one at its upper end */
        if (flags & (1u << slot)) {
            uint64_t checksum = vex_hash64(at, CHECKED_BYTES, 0x4d584556u);
            memcpy(at + CHECKED_BYTES, &checksum, sizeof(checksum));
        }
    }
    size_t bytes = flags & 4 ? VEX_BLOCK_BYTES + (flags >> 3) : FILE_BYTES;
    struct vex_manifest manifest;
    bool equal = false;
    struct vex_error error = {.status = VEX_OK};
    enum vex_status status = vex_manifest_decode(&manifest, &equal, file, bytes, &error);
    if (status == VEX_OK) {
        bool first = is_from_slot(&manifest, file);
        bool second = is_from_slot(&manifest, file + VEX_BLOCK_BYTES);
        VEX_ASSERT(first || second);
    } else {
        VEX_ASSERT(error.status == status && error.message[0]);
        VEX_ASSERT(status == VEX_ERR_CORRUPT || status == VEX_ERR_VERSION);
    }
    fuzz_open(file, bytes, status, equal, &manifest);
    free(file);
    return 0;
}
