#include "ioengine/checkpoint.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "ioengine/whole_file.h"

#define CHECKPOINT_MAGIC 0x43584556u /* "VEXC" */
#define CHECKPOINT_VERSION 1u
#define PIECE_BYTES (1u << 20)
#define UUID_BYTES 16u
#define HASH_BYTES sizeof(uint64_t)

struct header {
    uint32_t magic;
    uint32_t version;
    uint8_t uuid[UUID_BYTES];
    uint64_t number;
    uint64_t lsn;
    uint64_t log_file;
    uint64_t segments_count;
    uint64_t body_bytes;
    uint64_t file_bytes;
};

_Static_assert(sizeof(struct header) == 72, "on disk");

void vex_checkpoint_path(char out_path[VEX_CHECKPOINT_PATH_BYTES], uint64_t number)
{
    (void)snprintf(out_path, VEX_CHECKPOINT_PATH_BYTES,
                   VEX_CHECKPOINT_DIRECTORY "/%016llx" VEX_CHECKPOINT_SUFFIX,
                   (unsigned long long)number);
}

/* False if the sizes do not add up to a file. */
static bool file_bytes_of(uint64_t segments_count, uint64_t body_bytes, uint64_t *out_bytes)
{
    size_t bytes = 0;
    if (!vex_multiply(segments_count, sizeof(uint64_t), &bytes) ||
        !vex_add(bytes, sizeof(struct header) + HASH_BYTES, &bytes) ||
        !vex_add(bytes, body_bytes, &bytes) || bytes > (size_t)INT64_MAX - VEX_BLOCK_BYTES) {
        return false;
    }
    *out_bytes = vex_round_up(bytes, VEX_BLOCK_BYTES);
    return true;
}

/* ---- writing --------------------------------------------------------------------------------- */

/* Collects pieces of the file; each is hashed, with the hash so far as its seed, and written. */
struct writer {
    struct vex_io *io;
    const struct vex_file *file;
    uint8_t *piece; /* PIECE_BYTES */
    size_t used;
    uint64_t offset;
    uint64_t hash;
};

static int flush(struct writer *writer, size_t hashed_bytes)
{
    writer->hash = vex_hash64(writer->piece, hashed_bytes, writer->hash);
    if (hashed_bytes < writer->used) { /* the last piece: its checksum stands at its end */
        memcpy(writer->piece + hashed_bytes, &writer->hash, HASH_BYTES);
    }
    int result = writer->io->ops->write(writer->io, writer->file, writer->piece, writer->used,
                                        writer->offset);
    writer->offset += writer->used;
    writer->used = 0;
    return result;
}

/* A full piece is written only when more follows, so that the last one is never empty. */
static int put(struct writer *writer, const void *data, size_t bytes)
{
    size_t done = 0;
    while (done < bytes) {
        if (writer->used == PIECE_BYTES) {
            int result = flush(writer, PIECE_BYTES);
            if (result < 0) {
                return result;
            }
        }
        size_t some = bytes - done;
        if (some > PIECE_BYTES - writer->used) {
            some = PIECE_BYTES - writer->used;
        }
        if (data) {
            memcpy(writer->piece + writer->used, (const uint8_t *)data + done, some);
        } else {
            memset(writer->piece + writer->used, 0, some);
        }
        writer->used += some;
        done += some;
    }
    return 0;
}

static int write_file(struct writer *writer, const struct header *header,
                      const struct vex_checkpoint *checkpoint)
{
    size_t segments_bytes = checkpoint->segments_count * sizeof(uint64_t);
    size_t used = sizeof(*header) + segments_bytes + checkpoint->body_bytes;
    int result = writer->io->ops->allocate(writer->io, writer->file, header->file_bytes);
    result = result == -EOPNOTSUPP ? 0 : result;
    result = result < 0 ? result : put(writer, header, sizeof(*header));
    result = result < 0 ? result : put(writer, checkpoint->segments, segments_bytes);
    result = result < 0 ? result : put(writer, checkpoint->body, checkpoint->body_bytes);
    result = result < 0 ? result : put(writer, NULL, header->file_bytes - used);
    return result < 0 ? result : flush(writer, writer->used - HASH_BYTES);
}

static int write_whole(struct vex_io *io, const char *path, const struct header *header,
                       const struct vex_checkpoint *checkpoint, uint64_t *out_hash)
{
    void *piece = NULL;
    size_t piece_bytes =
        header->file_bytes < PIECE_BYTES ? (size_t)header->file_bytes : (size_t)PIECE_BYTES;
    if (posix_memalign(&piece, VEX_BLOCK_BYTES, piece_bytes) != 0) {
        return -ENOMEM;
    }
    struct vex_whole_file file;
    int result = vex_whole_file_begin(&file, io, path);
    if (result == 0) {
        struct writer writer = {.io = io, .file = &file.file, .piece = piece};
        result = write_file(&writer, header, checkpoint);
        *out_hash = writer.hash;
        if (result < 0) {
            vex_whole_file_abandon(&file);
        } else {
            result = vex_whole_file_end(&file);
        }
    }
    free(piece);
    return result;
}

enum vex_status vex_checkpoint_write(struct vex_io *io, const uint8_t *uuid,
                                     const struct vex_checkpoint *checkpoint, uint64_t *out_bytes,
                                     uint64_t *out_hash, struct vex_error *error)
{
    char path[VEX_CHECKPOINT_PATH_BYTES];
    vex_checkpoint_path(path, checkpoint->number);
    struct header header = {
        .magic = CHECKPOINT_MAGIC,
        .version = CHECKPOINT_VERSION,
        .number = checkpoint->number,
        .lsn = checkpoint->lsn,
        .log_file = checkpoint->log_file,
        .segments_count = checkpoint->segments_count,
        .body_bytes = checkpoint->body_bytes,
    };
    memcpy(header.uuid, uuid, sizeof(header.uuid));
    if (!file_bytes_of(header.segments_count, header.body_bytes, &header.file_bytes)) {
        return vex_error_set(error, VEX_ERR_LIMIT, "%s: too large for a file", path);
    }
    int result = write_whole(io, path, &header, checkpoint, out_hash);
    if (result < 0) {
        return vex_error_os(error, vex_status_from_errno(-result), -result, "write %s", path);
    }
    *out_bytes = header.file_bytes;
    return VEX_OK;
}

/* ---- reading --------------------------------------------------------------------------------- */

static uint64_t hash_of(const uint8_t *data, size_t bytes)
{
    uint64_t hash = 0;
    size_t hashed = bytes - HASH_BYTES;
    for (size_t at = 0; at < bytes; at += PIECE_BYTES) {
        size_t some = bytes - at <= PIECE_BYTES ? hashed - at : PIECE_BYTES;
        hash = vex_hash64(data + at, some, hash);
    }
    return hash;
}

static const char *header_fault(const struct header *header, const uint8_t *uuid, uint64_t number,
                                size_t bytes)
{
    uint64_t expected_bytes = 0;
    if (memcmp(header->uuid, uuid, sizeof(header->uuid)) != 0) {
        return "belongs to another instance";
    }
    if (header->number != number) {
        return "is another checkpoint under this name";
    }
    if (!file_bytes_of(header->segments_count, header->body_bytes, &expected_bytes) ||
        header->file_bytes != expected_bytes || expected_bytes != bytes) {
        return "sizes in the header do not fit the file";
    }
    return NULL;
}

enum vex_status vex_checkpoint_decode(struct vex_checkpoint *out, uint64_t *out_hash,
                                      const uint8_t *uuid, uint64_t number, const uint8_t *data,
                                      size_t bytes, struct vex_error *error)
{
    char path[VEX_CHECKPOINT_PATH_BYTES];
    vex_checkpoint_path(path, number);
    struct header header;
    if (bytes < VEX_BLOCK_BYTES || bytes % VEX_BLOCK_BYTES != 0) {
        return vex_error_set(error, VEX_ERR_CORRUPT, "%s: cut to %zu bytes", path, bytes);
    }
    memcpy(&header, data, sizeof(header));
    if (header.magic != CHECKPOINT_MAGIC) {
        return vex_error_set(error, VEX_ERR_CORRUPT, "%s: offset 0: not a checkpoint", path);
    }
    uint64_t hash = vex_load_u64(data + bytes - HASH_BYTES);
    if (hash != hash_of(data, bytes)) {
        return vex_error_set(error, VEX_ERR_CORRUPT, "%s: checksum does not match", path);
    }
    if (header.version != CHECKPOINT_VERSION) {
        return vex_error_set(error, VEX_ERR_VERSION, "%s: written by another version of vexd",
                             path);
    }
    const char *fault = header_fault(&header, uuid, number, bytes);
    if (fault) {
        return vex_error_set(error, VEX_ERR_CORRUPT, "%s: %s", path, fault);
    }
    const uint8_t *segments = data + sizeof(header);
    *out = (struct vex_checkpoint){
        .number = header.number,
        .lsn = header.lsn,
        .log_file = header.log_file,
        .segments = (const uint64_t *)(const void *)segments,
        .segments_count = (size_t)header.segments_count,
        .body = segments + header.segments_count * sizeof(uint64_t),
        .body_bytes = (size_t)header.body_bytes,
    };
    *out_hash = hash;
    return VEX_OK;
}

static enum vex_status read_failed(struct vex_error *error, const char *path, int os_errno)
{
    return vex_error_os(error, vex_status_from_errno(os_errno), os_errno, "read %s", path);
}

/* As the manifest: what is read decides, so it is synced first. */
static enum vex_status read_open_file(struct vex_io *io, const struct vex_file *file,
                                      const char *path, struct vex_checkpoint_file *out,
                                      struct vex_error *error)
{
    uint64_t bytes = 0;
    int result = io->ops->sync(io, file);
    result = result < 0 ? result : io->ops->size(io, file, &bytes);
    if (result < 0) {
        return read_failed(error, path, -result);
    }
    if (bytes == 0 || bytes % VEX_BLOCK_BYTES != 0) {
        return vex_error_set(error, VEX_ERR_CORRUPT, "%s: cut to %llu bytes", path,
                             (unsigned long long)bytes);
    }
    void *memory = NULL;
    if (bytes > SIZE_MAX || posix_memalign(&memory, VEX_BLOCK_BYTES, (size_t)bytes) != 0) {
        return vex_error_set(error, VEX_ERR_NOMEM, "%s: no memory for %llu bytes", path,
                             (unsigned long long)bytes);
    }
    int64_t got = io->ops->read(io, file, memory, (size_t)bytes, 0);
    if (got != (int64_t)bytes) {
        free(memory);
        return read_failed(error, path, got < 0 ? (int)-got : EIO);
    }
    out->memory = memory;
    out->bytes = bytes;
    return VEX_OK;
}

enum vex_status vex_checkpoint_read(struct vex_io *io, const uint8_t *uuid, uint64_t number,
                                    struct vex_checkpoint_file *out, struct vex_error *error)
{
    char path[VEX_CHECKPOINT_PATH_BYTES];
    vex_checkpoint_path(path, number);
    struct vex_file file;
    int result = io->ops->open_file(io, path, VEX_FILE_READ, &file);
    if (result == -ENOENT) {
        return vex_error_set(error, VEX_ERR_CORRUPT, "%s is missing", path);
    }
    if (result < 0) {
        return read_failed(error, path, -result);
    }
    struct vex_checkpoint_file read = {0};
    enum vex_status status = read_open_file(io, &file, path, &read, error);
    io->ops->close_file(io, &file);
    if (status == VEX_OK) {
        status = vex_checkpoint_decode(&read.checkpoint, &read.hash, uuid, number, read.memory,
                                       (size_t)read.bytes, error);
    }
    if (status != VEX_OK) {
        vex_checkpoint_file_deinit(&read);
        return status;
    }
    *out = read;
    return VEX_OK;
}

void vex_checkpoint_file_deinit(struct vex_checkpoint_file *file)
{
    free(file->memory);
    *file = (struct vex_checkpoint_file){0};
}
