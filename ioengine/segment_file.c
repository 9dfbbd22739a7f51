/*
 * What is in a segment file, how it is written, and its header read. segment_load.c reads the data.
 *
 * A file is written front to back but for its header, which holds the checksums and so comes last, and then
 * gets its name: whoever finds the name finds all of it. Nothing is copied: each chunk is hashed where it
 * is (which brings it into the cache), and written from there.
 */
#include "ioengine/segment_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/panic.h"
#include "ioengine/segment_file_priv.h"
#include "ioengine/whole_file.h"

#define SEGMENT_MAGIC 0x47584556u /* "VEXG" */
#define SEGMENT_VERSION 1u
#define UUID_BYTES 16u

struct header {
    uint32_t magic;
    uint32_t version;
    uint8_t uuid[UUID_BYTES];
    uint64_t number;
    uint32_t tag;
    uint32_t extents_count;
    uint64_t image_bytes;
    uint64_t chunks_count;
    uint64_t header_bytes;
    uint64_t checksum; /* of the header blocks behind this struct, seeded with that of the struct */
    struct vex_extent extents[VEX_SEGMENT_EXTENTS_MAX];
}; /* then a checksum per chunk, and zeros */

_Static_assert(sizeof(struct header) == 72 + 16 * VEX_SEGMENT_EXTENTS_MAX, "on disk");

void vex_segment_file_path(char out_path[VEX_SEGMENT_PATH_BYTES], uint64_t number)
{
    (void)snprintf(out_path, VEX_SEGMENT_PATH_BYTES,
                   VEX_SEGMENT_DIRECTORY "/%016llx" VEX_SEGMENT_SUFFIX, (unsigned long long)number);
}

/* Of the struct with its field 0, then of the rest of the header's blocks in `pages`. */
static uint64_t checksum_of(const struct header *header, const uint8_t *pages)
{
    struct header copy = *header;
    copy.checksum = 0;
    uint64_t seed = vex_hash64(&copy, sizeof(copy), SEGMENT_MAGIC);
    return vex_hash64(pages + sizeof(copy), (size_t)header->header_bytes - sizeof(copy), seed);
}

/* ---- chunks ---------------------------------------------------------------------------------- */

void segment_chunks_init(struct segment_chunks *chunks, const struct vex_segment_file *file,
                         uint64_t header_bytes)
{
    *chunks = (struct segment_chunks){.file = file, .file_offset = header_bytes};
}

bool segment_chunks_next(struct segment_chunks *chunks, struct segment_chunk *out)
{
    const struct vex_segment_file *file = chunks->file;
    if (chunks->extent == file->extents_count) {
        return false;
    }
    const struct vex_extent *extent = &file->extents[chunks->extent];
    uint64_t left = extent->bytes - chunks->done;
    *out = (struct segment_chunk){
        .index = chunks->index++,
        .image_offset = extent->offset + chunks->done,
        .file_offset = chunks->file_offset,
        .bytes = left < VEX_SEGMENT_CHUNK_BYTES ? (size_t)left : (size_t)VEX_SEGMENT_CHUNK_BYTES,
    };
    chunks->file_offset += out->bytes;
    chunks->done += out->bytes;
    if (chunks->done == extent->bytes) {
        chunks->extent++;
        chunks->done = 0;
    }
    return true;
}

/* Sizes that follow from the extents. False if these break the rules. */
static bool measure(const struct vex_segment_file *file, uint64_t *out_chunks_count,
                    uint64_t *out_header_bytes, uint64_t *out_file_bytes)
{
    if (file->extents_count > VEX_SEGMENT_EXTENTS_MAX || file->image_bytes > INT64_MAX / 2) {
        return false;
    }
    uint64_t end = 0;
    uint64_t chunks_count = 0;
    uint64_t data_bytes = 0;
    for (uint32_t i = 0; i < file->extents_count; i++) {
        const struct vex_extent *extent = &file->extents[i];
        if (extent->offset < end || extent->offset > file->image_bytes || extent->bytes == 0 ||
            extent->bytes > file->image_bytes - extent->offset ||
            (extent->offset | extent->bytes) % VEX_BLOCK_BYTES != 0) {
            return false;
        }
        end = extent->offset + extent->bytes;
        data_bytes += extent->bytes; /* at most image_bytes in sum */
        chunks_count += (extent->bytes + VEX_SEGMENT_CHUNK_BYTES - 1) / VEX_SEGMENT_CHUNK_BYTES;
    }
    *out_chunks_count = chunks_count;
    *out_header_bytes =
        vex_round_up(sizeof(struct header) + chunks_count * sizeof(uint64_t), VEX_BLOCK_BYTES);
    *out_file_bytes = *out_header_bytes + data_bytes;
    return true;
}

/* ---- writing --------------------------------------------------------------------------------- */

struct writer {
    struct vex_io *io;
    const struct vex_file *target;
    const struct vex_segment_file *file;
    const uint8_t *image;
    const struct vex_pace *pace;
    uint8_t *pages; /* the header */
    uint64_t chunks_count;
    uint64_t header_bytes;
    uint64_t file_bytes;
    bool gave_up;
};

static int write_data(struct writer *writer)
{
    uint8_t *checksums = writer->pages + sizeof(struct header);
    struct segment_chunks chunks;
    struct segment_chunk chunk;
    segment_chunks_init(&chunks, writer->file, writer->header_bytes);
    while (segment_chunks_next(&chunks, &chunk)) {
        const uint8_t *from = writer->image + chunk.image_offset;
        uint64_t checksum = vex_hash64(from, chunk.bytes, segment_chunk_seed(&chunk));
        memcpy(checksums + chunk.index * sizeof(checksum), &checksum, sizeof(checksum));
        int result = writer->io->ops->write(writer->io, writer->target, from, chunk.bytes,
                                            chunk.file_offset);
        if (result < 0) {
            return result;
        }
        if (writer->pace && !writer->pace->pause(writer->pace->context, chunk.bytes)) {
            writer->gave_up = true;
            return -ECANCELED;
        }
    }
    return 0;
}

static void seal_header(struct writer *writer, const uint8_t *uuid)
{
    const struct vex_segment_file *file = writer->file;
    struct header header = {
        .magic = SEGMENT_MAGIC,
        .version = SEGMENT_VERSION,
        .number = file->number,
        .tag = file->tag,
        .extents_count = file->extents_count,
        .image_bytes = file->image_bytes,
        .chunks_count = writer->chunks_count,
        .header_bytes = writer->header_bytes,
    };
    memcpy(header.uuid, uuid, sizeof(header.uuid));
    memcpy(header.extents, file->extents, file->extents_count * sizeof(file->extents[0]));
    header.checksum = checksum_of(&header, writer->pages);
    memcpy(writer->pages, &header, sizeof(header));
}

static int write_whole(struct writer *writer, const uint8_t *uuid, const char *path)
{
    struct vex_io *io = writer->io;
    struct vex_whole_file whole;
    int result = vex_whole_file_begin(&whole, io, path);
    if (result < 0) {
        return result;
    }
    writer->target = &whole.file;
    result = io->ops->allocate(io, &whole.file, writer->file_bytes);
    result = result == -EOPNOTSUPP ? 0 : result;
    result = result < 0 ? result : write_data(writer);
    if (result == 0) {
        seal_header(writer, uuid);
        result = io->ops->write(io, &whole.file, writer->pages, (size_t)writer->header_bytes, 0);
    }
    if (result < 0) {
        vex_whole_file_abandon(&whole);
        return result;
    }
    return vex_whole_file_end(&whole);
}

enum vex_status vex_segment_file_write(struct vex_io *io, const uint8_t *uuid,
                                       const struct vex_segment_file *file, const void *image,
                                       const struct vex_pace *pace, uint64_t *out_file_bytes,
                                       struct vex_error *error)
{
    char path[VEX_SEGMENT_PATH_BYTES];
    vex_segment_file_path(path, file->number);
    VEX_ASSERT((uintptr_t)image % VEX_BLOCK_BYTES == 0);
    struct writer writer = {.io = io, .file = file, .image = image, .pace = pace};
    if (!measure(file, &writer.chunks_count, &writer.header_bytes, &writer.file_bytes)) {
        return vex_error_set(error, VEX_ERR_INVALID, "%s: extents of the image break the rules",
                             path);
    }
    void *pages = NULL;
    if (posix_memalign(&pages, VEX_BLOCK_BYTES, (size_t)writer.header_bytes) != 0) {
        return vex_error_set(error, VEX_ERR_NOMEM, "%s: out of memory", path);
    }
    memset(pages, 0, (size_t)writer.header_bytes);
    writer.pages = pages;
    int result = write_whole(&writer, uuid, path);
    free(pages);
    if (writer.gave_up) {
        return vex_error_set(error, VEX_ERR_UNAVAILABLE, "%s: writing was given up", path);
    }
    if (result < 0) {
        return vex_error_os(error, vex_status_from_errno(-result), -result, "write %s", path);
    }
    *out_file_bytes = writer.file_bytes;
    return VEX_OK;
}

/* ---- the header ------------------------------------------------------------------------------ */

/* Of the fields that say how large the header is; none of it is trusted yet. */
static const char *size_fault(const struct header *header, uint64_t file_bytes)
{
    if (header->magic != SEGMENT_MAGIC) {
        return "not a segment file";
    }
    if (header->header_bytes < VEX_BLOCK_BYTES || header->header_bytes % VEX_BLOCK_BYTES != 0 ||
        header->header_bytes > file_bytes) {
        return "size of the header does not fit the file";
    }
    return NULL;
}

static const char *content_fault(const struct header *header, const uint8_t *uuid, uint64_t number,
                                 uint64_t file_bytes, struct vex_segment_file *out)
{
    if (memcmp(header->uuid, uuid, sizeof(header->uuid)) != 0) {
        return "belongs to another instance";
    }
    if (header->number != number) {
        return "is another segment under this name";
    }
    *out = (struct vex_segment_file){
        .number = header->number,
        .tag = header->tag,
        .image_bytes = header->image_bytes,
        .extents_count = header->extents_count,
    };
    memcpy(out->extents, header->extents, sizeof(out->extents));
    uint64_t chunks_count = 0;
    uint64_t header_bytes = 0;
    uint64_t expected_bytes = 0;
    if (!measure(out, &chunks_count, &header_bytes, &expected_bytes) ||
        chunks_count != header->chunks_count || header_bytes != header->header_bytes) {
        return "impossible extents";
    }
    return expected_bytes == file_bytes ? NULL : "the file has another size than it should";
}

enum vex_status vex_segment_file_header_decode(struct vex_segment_file_header *out,
                                               uint64_t *out_need, const uint8_t *uuid,
                                               uint64_t number, const uint8_t *data, size_t bytes,
                                               uint64_t file_bytes, struct vex_error *error)
{
    char path[VEX_SEGMENT_PATH_BYTES];
    vex_segment_file_path(path, number);
    uint64_t need = 0;
    out_need = out_need ? out_need : &need;
    *out_need = 0;
    struct header header;
    if (bytes < VEX_BLOCK_BYTES) {
        return vex_error_set(error, VEX_ERR_CORRUPT, "%s: cut to %zu bytes", path, bytes);
    }
    memcpy(&header, data, sizeof(header));
    const char *fault = size_fault(&header, file_bytes);
    if (!fault && header.header_bytes > bytes) {
        *out_need = header.header_bytes;
        return vex_error_set(error, VEX_ERR_CORRUPT, "%s: offset 0: header is cut", path);
    }
    if (!fault && header.checksum != checksum_of(&header, data)) {
        fault = "checksum of the header does not match";
    }
    if (!fault && header.version != SEGMENT_VERSION) {
        return vex_error_set(error, VEX_ERR_VERSION, "%s: written by another version of vexd",
                             path);
    }
    struct vex_segment_file_header decoded = {
        .header_bytes = header.header_bytes,
        .chunks_count = header.chunks_count,
        .checksums = (const uint64_t *)(const void *)(data + sizeof(header)),
    };
    fault = fault ? fault : content_fault(&header, uuid, number, file_bytes, &decoded.file);
    if (fault) {
        return vex_error_set(error, VEX_ERR_CORRUPT, "%s: offset 0: %s", path, fault);
    }
    *out = decoded;
    return VEX_OK;
}
