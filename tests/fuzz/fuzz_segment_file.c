/*
 * Fuzzes segment files: a header of any content, whose checksums the first byte may ask to be made right.
 * What the header says must fit the file; loading writes inside the image's extents and nowhere else; and
 * reading the header, verifying and loading agree.
 *
 *   byte 0    1: make the header's checksum right; 2: those of the chunks, too; 4: the file ends in a block
 *   byte 1    blocks of the file, 1 to 16; what the input does not fill is zero
 *   then      the file
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/panic.h"
#include "ioengine/segment_file.h"
#include "tests/lib/io_memory.h"

#define BLOCKS_MAX 16u
#define NUMBER 7u
#define STRUCT_BYTES 584u
#define CHECKSUM_OFFSET 64u
#define MAGIC 0x47584556u
#define IMAGE_BYTES_MAX (64u * VEX_BLOCK_BYTES)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t uuid[16] = "fuzzing instance";

/* Of a header of one block. */
static void seal_header(uint8_t *file)
{
    memset(file + CHECKSUM_OFFSET, 0, sizeof(uint64_t));
    uint64_t checksum = vex_hash64(file, STRUCT_BYTES, MAGIC);
    checksum = vex_hash64(file + STRUCT_BYTES, VEX_BLOCK_BYTES - STRUCT_BYTES, checksum);
    memcpy(file + CHECKSUM_OFFSET, &checksum, sizeof(checksum));
}

/* One chunk per extent, as in all files this small; whatever the extents are. */
static void seal_chunks(uint8_t *file, size_t bytes)
{
    size_t offset = VEX_BLOCK_BYTES;
    for (size_t i = 0; i < VEX_SEGMENT_EXTENTS_MAX; i++) {
        uint64_t image_offset = vex_load_u64(file + 72 + 16 * i);
        uint64_t extent_bytes = vex_load_u64(file + 72 + 16 * i + 8);
        if (extent_bytes == 0 || extent_bytes > bytes - offset) {
            return;
        }
        uint64_t checksum = vex_hash64(file + offset, (size_t)extent_bytes, image_offset);
        memcpy(file + STRUCT_BYTES + 8 * i, &checksum, sizeof(checksum));
        offset += (size_t)extent_bytes;
    }
}

static bool is_in_extent(const struct vex_segment_file *file, uint64_t block)
{
    for (uint32_t i = 0; i < file->extents_count; i++) {
        if (block >= file->extents[i].offset &&
            block - file->extents[i].offset < file->extents[i].bytes) {
            return true;
        }
    }
    return false;
}

/* Everything outside of the extents still has the byte that it was filled with. */
static void fuzz_load(struct vex_io *io, const struct vex_segment_file *file,
                      enum vex_status expected)
{
    if (file->image_bytes > IMAGE_BYTES_MAX) {
        return;
    }
    size_t bytes = (size_t)vex_round_up(file->image_bytes, VEX_BLOCK_BYTES);
    void *memory = NULL;
    int failure = posix_memalign(&memory, VEX_BLOCK_BYTES, bytes ? bytes : VEX_BLOCK_BYTES);
    VEX_ASSERT(failure == 0);
    memset(memory, 0x5a, bytes);
    struct vex_segment_load load = {
        .number = NUMBER, .tag = file->tag, .memory = memory, .image_bytes = file->image_bytes};
    enum vex_status status = vex_segment_files_load(io, uuid, &load, 1, NULL);
    VEX_ASSERT(status == expected && load.status == expected);
    for (size_t block = 0; block < bytes; block += VEX_BLOCK_BYTES) {
        const uint8_t *at = (const uint8_t *)memory + block;
        bool untouched = at[0] == 0x5a && memcmp(at, at + 1, VEX_BLOCK_BYTES - 1) == 0;
        VEX_ASSERT(untouched || is_in_extent(file, block));
    }
    free(memory);
}

static void fuzz_read(const uint8_t *data, size_t bytes, enum vex_status expected,
                      const struct vex_segment_file_header *header)
{
    struct vex_io *io = vex_io_memory_open();
    char path[VEX_SEGMENT_PATH_BYTES];
    vex_segment_file_path(path, NUMBER);
    vex_io_memory_put(io, path, data, bytes);
    struct vex_io *before = vex_io_memory_clone(io);
    struct vex_segment_file file;
    enum vex_status status = vex_segment_file_read_header(io, uuid, NUMBER, &file, NULL);
    VEX_ASSERT(status == expected);
    enum vex_status verified = vex_segment_file_verify(io, uuid, NUMBER, NULL);
    VEX_ASSERT(status == VEX_OK ? verified == VEX_OK || verified == VEX_ERR_CORRUPT
                                : verified == status);
    if (status == VEX_OK) {
        VEX_ASSERT(memcmp(&file, &header->file, sizeof(file)) == 0);
        fuzz_load(io, &file, verified);
    }
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
        seal_chunks(file, bytes);
    }
    if (flags & 1) {
        seal_header(file);
    }
    if (flags & 4) {
        bytes -= 1 + flags;
    }
    struct vex_segment_file_header header = {0};
    uint64_t need = 0;
    struct vex_error error = {.status = VEX_OK};
    enum vex_status status =
        vex_segment_file_header_decode(&header, &need, uuid, NUMBER, file, bytes, bytes, &error);
    VEX_ASSERT(need == 0); /* all of the file is at hand */
    if (status == VEX_OK) {
        VEX_ASSERT(header.file.number == NUMBER);
        VEX_ASSERT(header.file.extents_count <= VEX_SEGMENT_EXTENTS_MAX);
        VEX_ASSERT(header.chunks_count <= (header.header_bytes - STRUCT_BYTES) / 8);
        VEX_ASSERT(header.header_bytes <= bytes);
    } else {
        VEX_ASSERT(error.status == status && error.message[0]);
        VEX_ASSERT(status == VEX_ERR_CORRUPT || status == VEX_ERR_VERSION);
    }
    fuzz_read(file, bytes, status, &header);
    free(file);
    return 0;
}
