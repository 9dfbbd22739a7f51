/*
 * Reading segment files: straight into the memory they are to stand in, or through one chunk of memory to
 * verify them.
 *
 * A start loads everything, so what counts is that the disk always has enough to do: files are opened in
 * groups, and all chunks of a group go into one vex_io_ops.read_many. Each chunk is verified as it arrives,
 * while the others are still being read.
 */
#include "ioengine/segment_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/panic.h"
#include "ioengine/segment_file_priv.h"

#define GROUP_FILES_MAX 64u /* descriptors are scarce */

/* ---- the header ------------------------------------------------------------------------------ */

static enum vex_status read_failed(struct vex_error *error, uint64_t number, int os_errno)
{
    char path[VEX_SEGMENT_PATH_BYTES];
    vex_segment_file_path(path, number);
    return vex_error_os(error, vex_status_from_errno(os_errno), os_errno, "read %s", path);
}

/* Reads the first `bytes` bytes into fresh memory and decodes. */
static enum vex_status read_header(struct segment_reader *reader, struct vex_io *io,
                                   const uint8_t *uuid, uint64_t number, uint64_t bytes,
                                   uint64_t file_bytes, uint64_t *out_need, struct vex_error *error)
{
    void *memory = NULL;
    *out_need = 0;
    if (posix_memalign(&memory, VEX_BLOCK_BYTES, (size_t)bytes) != 0) {
        return read_failed(error, number, ENOMEM);
    }
    int64_t got = io->ops->read(io, &reader->file, memory, (size_t)bytes, 0);
    enum vex_status status =
        got < 0 ? read_failed(error, number, (int)-got)
                : vex_segment_file_header_decode(&reader->header, out_need, uuid, number, memory,
                                                 (size_t)got, file_bytes, error);
    if (status != VEX_OK) {
        free(memory);
        return status;
    }
    reader->memory = memory;
    return VEX_OK;
}

static enum vex_status read_any_header(struct segment_reader *reader, struct vex_io *io,
                                       const uint8_t *uuid, uint64_t number,
                                       struct vex_error *error)
{
    uint64_t file_bytes = 0;
    int result = io->ops->size(io, &reader->file, &file_bytes);
    if (result < 0) {
        return read_failed(error, number, -result);
    }
    uint64_t need = 0;
    enum vex_status status =
        read_header(reader, io, uuid, number, VEX_BLOCK_BYTES, file_bytes, &need, error);
    if (need > 0) { /* more chunks than one block has room for; no more than the file is long */
        status = read_header(reader, io, uuid, number, need, file_bytes, &need, error);
    }
    return status;
}

enum vex_status segment_reader_open(struct segment_reader *reader, struct vex_io *io,
                                    const uint8_t *uuid, uint64_t number, struct vex_error *error)
{
    *reader = (struct segment_reader){.file = {-1, false}};
    char path[VEX_SEGMENT_PATH_BYTES];
    vex_segment_file_path(path, number);
    int result = io->ops->open_file(io, path, VEX_FILE_READ, &reader->file);
    if (result == -ENOENT) {
        return vex_error_set(error, VEX_ERR_NOT_FOUND, "%s is missing", path);
    }
    if (result < 0) {
        reader->file.fd = -1;
        return read_failed(error, number, -result);
    }
    enum vex_status status = read_any_header(reader, io, uuid, number, error);
    if (status != VEX_OK) {
        segment_reader_close(reader, io);
    }
    return status;
}

void segment_reader_close(struct segment_reader *reader, struct vex_io *io)
{
    if (reader->file.fd >= 0) {
        io->ops->close_file(io, &reader->file);
    }
    free(reader->memory);
    *reader = (struct segment_reader){.file = {-1, false}};
}

enum vex_status vex_segment_file_read_header(struct vex_io *io, const uint8_t *uuid,
                                             uint64_t number, struct vex_segment_file *out,
                                             struct vex_error *error)
{
    struct segment_reader reader;
    enum vex_status status = segment_reader_open(&reader, io, uuid, number, error);
    if (status == VEX_OK) {
        *out = reader.header.file;
        segment_reader_close(&reader, io);
    }
    return status;
}

/* ---- chunks ---------------------------------------------------------------------------------- */

/* `got` is what reading the chunk returned. */
static enum vex_status verify_chunk(const struct vex_segment_file_header *header,
                                    const struct segment_chunk *chunk, const void *data,
                                    int64_t got, struct vex_error *error)
{
    const char *fault = NULL;
    if (got < 0) {
        enum vex_status status = read_failed(error, header->file.number, (int)-got);
        return vex_error_wrap(error, status, "offset %llu", (unsigned long long)chunk->file_offset);
    }
    if (got != (int64_t)chunk->bytes) {
        fault = "the file ends here";
    } else if (vex_hash64(data, chunk->bytes, segment_chunk_seed(chunk)) !=
               header->checksums[chunk->index]) {
        fault = "checksum does not match";
    }
    if (!fault) {
        return VEX_OK;
    }
    char path[VEX_SEGMENT_PATH_BYTES];
    vex_segment_file_path(path, header->file.number);
    return vex_error_set(error, VEX_ERR_CORRUPT, "%s: offset %llu: %s", path,
                         (unsigned long long)chunk->file_offset, fault);
}

static enum vex_status verify_data(struct segment_reader *reader, struct vex_io *io,
                                   struct vex_error *error)
{
    void *memory = NULL;
    if (posix_memalign(&memory, VEX_BLOCK_BYTES, VEX_SEGMENT_CHUNK_BYTES) != 0) {
        return read_failed(error, reader->header.file.number, ENOMEM);
    }
    struct segment_chunks chunks;
    struct segment_chunk chunk;
    segment_chunks_init(&chunks, &reader->header.file, reader->header.header_bytes);
    enum vex_status status = VEX_OK;
    while (status == VEX_OK && segment_chunks_next(&chunks, &chunk)) {
        int64_t got = io->ops->read(io, &reader->file, memory, chunk.bytes, chunk.file_offset);
        status = verify_chunk(&reader->header, &chunk, memory, got, error);
    }
    free(memory);
    return status;
}

enum vex_status vex_segment_file_verify(struct vex_io *io, const uint8_t *uuid, uint64_t number,
                                        struct vex_error *error)
{
    struct segment_reader reader;
    enum vex_status status = segment_reader_open(&reader, io, uuid, number, error);
    if (status == VEX_OK) {
        status = verify_data(&reader, io, error);
        segment_reader_close(&reader, io);
    }
    return status;
}

/* ---- loading --------------------------------------------------------------------------------- */

/* Which chunk an item of read_many is. */
struct piece {
    size_t load; /* within the group */
    struct segment_chunk chunk;
};

struct group {
    struct vex_segment_load *loads;
    size_t count;
    struct segment_reader readers[GROUP_FILES_MAX];
    struct vex_read *items;
    struct piece *pieces;
    size_t items_count;
};

static enum vex_status open_load(struct group *group, size_t index, struct vex_io *io,
                                 const uint8_t *uuid)
{
    struct vex_segment_load *load = &group->loads[index];
    struct segment_reader *reader = &group->readers[index];
    VEX_ASSERT((uintptr_t)load->memory % VEX_BLOCK_BYTES == 0);
    char path[VEX_SEGMENT_PATH_BYTES];
    vex_segment_file_path(path, load->number);
    enum vex_status status = segment_reader_open(reader, io, uuid, load->number, &load->error);
    if (status == VEX_ERR_NOT_FOUND) { /* somebody wants it loaded, so it should be there */
        return vex_error_set(&load->error, VEX_ERR_CORRUPT, "%s is missing", path);
    }
    if (status != VEX_OK) {
        return status;
    }
    const struct vex_segment_file *file = &reader->header.file;
    if (file->tag != load->tag || file->image_bytes != load->image_bytes) {
        return vex_error_set(&load->error, VEX_ERR_CORRUPT,
                             "%s: holds %llu bytes of %u, and not %llu bytes of %u", path,
                             (unsigned long long)file->image_bytes, file->tag,
                             (unsigned long long)load->image_bytes, load->tag);
    }
    return VEX_OK;
}

static void list_pieces(struct group *group)
{
    size_t next = 0;
    for (size_t i = 0; i < group->count; i++) {
        struct segment_reader *reader = &group->readers[i];
        if (group->loads[i].status != VEX_OK) {
            continue;
        }
        struct segment_chunks chunks;
        struct segment_chunk chunk;
        segment_chunks_init(&chunks, &reader->header.file, reader->header.header_bytes);
        while (segment_chunks_next(&chunks, &chunk)) {
            group->pieces[next] = (struct piece){i, chunk};
            group->items[next++] = (struct vex_read){
                .file = &reader->file,
                .into = (uint8_t *)group->loads[i].memory + chunk.image_offset,
                .bytes = chunk.bytes,
                .offset = chunk.file_offset,
            };
        }
    }
    VEX_ASSERT(next == group->items_count);
}

/* Damage to one file does not stop the others, so this is always 0. */
static int note_read(void *context, size_t index)
{
    struct group *group = context;
    const struct piece *piece = &group->pieces[index];
    struct vex_segment_load *load = &group->loads[piece->load];
    if (load->status == VEX_OK) {
        const struct vex_read *item = &group->items[index];
        load->status = verify_chunk(&group->readers[piece->load].header, &piece->chunk, item->into,
                                    item->result, &load->error);
    }
    return 0;
}

/* What keeps the whole group from being read is the fault of each that was to be. */
static void fail_group(struct group *group, int os_errno)
{
    for (size_t i = 0; i < group->count; i++) {
        struct vex_segment_load *load = &group->loads[i];
        if (load->status == VEX_OK) {
            load->status = read_failed(&load->error, load->number, os_errno);
        }
    }
}

static void read_group(struct group *group, struct vex_io *io)
{
    if (group->items_count == 0) {
        return;
    }
    group->items = calloc(group->items_count, sizeof(*group->items));
    group->pieces = calloc(group->items_count, sizeof(*group->pieces));
    if (!group->items || !group->pieces) {
        fail_group(group, ENOMEM);
    } else {
        list_pieces(group);
        int result = io->ops->read_many(io, group->items, group->items_count, note_read, group);
        if (result < 0) {
            fail_group(group, -result);
        }
    }
    free(group->items);
    free(group->pieces);
}

static void load_group(struct vex_io *io, const uint8_t *uuid, struct vex_segment_load *loads,
                       size_t count)
{
    struct group group = {.loads = loads, .count = count};
    for (size_t i = 0; i < count; i++) {
        loads[i].status = open_load(&group, i, io, uuid);
        if (loads[i].status == VEX_OK) {
            group.items_count += (size_t)group.readers[i].header.chunks_count;
        }
    }
    read_group(&group, io);
    for (size_t i = 0; i < count; i++) {
        segment_reader_close(&group.readers[i], io);
    }
}

enum vex_status vex_segment_files_load(struct vex_io *io, const uint8_t *uuid,
                                       struct vex_segment_load *loads, size_t count,
                                       struct vex_error *error)
{
    for (size_t at = 0; at < count; at += GROUP_FILES_MAX) {
        size_t left = count - at;
        load_group(io, uuid, loads + at, left < GROUP_FILES_MAX ? left : GROUP_FILES_MAX);
    }
    for (size_t i = 0; i < count; i++) {
        if (loads[i].status != VEX_OK) {
            if (error) {
                *error = loads[i].error;
            }
            return loads[i].status;
        }
    }
    return VEX_OK;
}
