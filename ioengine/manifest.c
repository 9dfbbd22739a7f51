#include "ioengine/manifest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/bytes.h"
#include "base/error.h"
#include "ioengine/log.h"

#define MANIFEST_MAGIC 0x4d584556u /* "VEXM" */
#define MANIFEST_VERSION 1u
#define SLOTS 2u
#define NEW_PATH VEX_MANIFEST_PATH ".new"

struct slot {
    uint32_t magic;
    uint32_t version;
    uint64_t sequence;
    uint8_t uuid[VEX_MANIFEST_UUID_BYTES];
    uint64_t created_ms;
    uint64_t checksum; /* of the fields above */
};

_Static_assert(sizeof(struct slot) == 48, "on disk");

enum vex_status vex_manifest_decode(struct vex_manifest *out, const uint8_t *data, size_t bytes,
                                    struct vex_error *error)
{
    bool found = false;
    bool other_version = false;
    struct vex_manifest newest = {0};
    for (size_t i = 0; i < SLOTS && (i + 1) * VEX_BLOCK_BYTES <= bytes; i++) {
        struct slot slot;
        memcpy(&slot, data + i * VEX_BLOCK_BYTES, sizeof(slot));
        if (slot.magic != MANIFEST_MAGIC ||
            slot.checksum != vex_hash64(&slot, offsetof(struct slot, checksum), MANIFEST_MAGIC)) {
            continue;
        }
        if (slot.version != MANIFEST_VERSION) {
            other_version = true;
            continue;
        }
        if (!found || slot.sequence > newest.sequence) {
            found = true;
            newest.sequence = slot.sequence;
            newest.created_ms = slot.created_ms;
            memcpy(newest.uuid, slot.uuid, sizeof(newest.uuid));
        }
    }
    if (!found) {
        return other_version
                   ? vex_error_set(error, VEX_ERR_VERSION,
                                   VEX_MANIFEST_PATH ": written by another version of vexd")
                   : vex_error_set(error, VEX_ERR_CORRUPT,
                                   VEX_MANIFEST_PATH ": both copies are damaged");
    }
    *out = newest;
    return VEX_OK;
}

static void encode_slot(uint8_t *page, const struct vex_manifest *manifest)
{
    struct slot slot = {
        .magic = MANIFEST_MAGIC,
        .version = MANIFEST_VERSION,
        .sequence = manifest->sequence,
        .created_ms = manifest->created_ms,
    };
    memcpy(slot.uuid, manifest->uuid, sizeof(slot.uuid));
    slot.checksum = vex_hash64(&slot, offsetof(struct slot, checksum), MANIFEST_MAGIC);
    memcpy(page, &slot, sizeof(slot));
}

static int write_new(struct vex_io *io, const struct vex_manifest *manifest, uint8_t *pages)
{
    memset(pages, 0, SLOTS * VEX_BLOCK_BYTES);
    encode_slot(pages, manifest);
    struct vex_file file;
    int result = io->ops->open_file(io, NEW_PATH, VEX_FILE_CREATE, &file);
    if (result < 0) {
        return result;
    }
    result = io->ops->write(io, &file, pages, SLOTS * VEX_BLOCK_BYTES, 0);
    result = result < 0 ? result : io->ops->sync(io, &file);
    io->ops->close_file(io, &file);
    result = result < 0 ? result : io->ops->rename(io, NEW_PATH, VEX_MANIFEST_PATH);
    return result < 0 ? result : io->ops->sync_directory(io, ".");
}

static enum vex_status create(struct vex_io *io, struct vex_manifest *out, uint8_t *pages,
                              struct vex_error *error)
{
    struct vex_manifest manifest = {.sequence = 1};
    if (getrandom(manifest.uuid, sizeof(manifest.uuid), 0) != (ssize_t)sizeof(manifest.uuid)) {
        return vex_error_os(error, VEX_ERR_IO, errno, "random bytes for the instance's UUID");
    }
    /* RFC 4122, version 4. */
    manifest.uuid[6] = (uint8_t)((manifest.uuid[6] & 0x0f) | 0x40);
    manifest.uuid[8] = (uint8_t)((manifest.uuid[8] & 0x3f) | 0x80);
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    manifest.created_ms = (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
    int result = write_new(io, &manifest, pages);
    if (result < 0) {
        return vex_error_os(error, vex_status_from_errno(-result), -result,
                            "write " VEX_MANIFEST_PATH);
    }
    *out = manifest;
    return VEX_OK;
}

static void note_log_file(void *context, const char *name)
{
    const char *end = strrchr(name, '.');
    if (end && strcmp(end, ".log") == 0) {
        *(bool *)context = true;
    }
}

/* A directory without MANIFEST is a new instance only if it holds no log. */
static enum vex_status check_fresh(struct vex_io *io, struct vex_error *error)
{
    bool log_files = false;
    int result = io->ops->list(io, VEX_LOG_DIRECTORY, note_log_file, &log_files);
    if (result < 0 && result != -ENOENT) {
        return vex_error_os(error, vex_status_from_errno(-result), -result,
                            "look for log files beside a missing " VEX_MANIFEST_PATH);
    }
    return log_files ? vex_error_set(error, VEX_ERR_CORRUPT,
                                     VEX_MANIFEST_PATH " is missing, but there are log files")
                     : VEX_OK;
}

static enum vex_status read_existing(struct vex_io *io, struct vex_manifest *out, uint8_t *pages,
                                     struct vex_file *file, struct vex_error *error)
{
    int64_t got = io->ops->read(io, file, pages, SLOTS * VEX_BLOCK_BYTES, 0);
    if (got < 0) {
        return vex_error_os(error, VEX_ERR_IO, (int)-got, "read " VEX_MANIFEST_PATH);
    }
    return vex_manifest_decode(out, pages, (size_t)got, error);
}

enum vex_status vex_manifest_open(struct vex_io *io, struct vex_manifest *out,
                                  struct vex_error *error)
{
    void *pages = NULL;
    if (posix_memalign(&pages, VEX_BLOCK_BYTES, SLOTS * VEX_BLOCK_BYTES) != 0) {
        return vex_error_set(error, VEX_ERR_NOMEM, VEX_MANIFEST_PATH ": out of memory");
    }
    struct vex_file file;
    enum vex_status status;
    int result = io->ops->open_file(io, VEX_MANIFEST_PATH, VEX_FILE_READ, &file);
    if (result == 0) {
        status = read_existing(io, out, pages, &file, error);
        io->ops->close_file(io, &file);
    } else if (result != -ENOENT) {
        status =
            vex_error_os(error, vex_status_from_errno(-result), -result, "open " VEX_MANIFEST_PATH);
    } else {
        status = check_fresh(io, error);
        status = status == VEX_OK ? create(io, out, pages, error) : status;
    }
    free(pages);
    return status;
}
