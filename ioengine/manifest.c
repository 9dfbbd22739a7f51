#include "ioengine/manifest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/bytes.h"
#include "base/error.h"
#include "ioengine/checkpoint.h"
#include "ioengine/log.h"
#include "ioengine/segment_file.h"
#include "ioengine/whole_file.h"

#define MANIFEST_MAGIC 0x4d584556u /* "VEXM" */
#define MANIFEST_VERSION 2u
#define CHECKSUM_OFFSET (VEX_BLOCK_BYTES - sizeof(uint64_t))
#define SEQUENCE_MAX ((uint64_t)INT64_MAX) /* nobody gets there by writing */

struct slot {
    uint32_t magic;
    uint32_t version;
    uint64_t sequence;
    uint8_t uuid[VEX_MANIFEST_UUID_BYTES];
    uint64_t created_ms;
    uint64_t log_file;
    uint64_t log_lsn;
    uint32_t checkpoints_count;
    uint32_t zero;
    struct vex_manifest_checkpoint checkpoints[VEX_MANIFEST_CHECKPOINTS_MAX];
}; /* then zeros up to the checksum in the block's last 8 bytes */

_Static_assert(sizeof(struct slot) == 144, "on disk");

/* ---- slots ----------------------------------------------------------------------------------- */

static const char *content_fault(const struct slot *slot)
{
    if (slot->sequence == 0 || slot->sequence > SEQUENCE_MAX) {
        return "impossible sequence";
    }
    if (slot->checkpoints_count > VEX_MANIFEST_CHECKPOINTS_MAX) {
        return "too many checkpoints";
    }
    uint64_t lsn_min = slot->log_lsn;
    uint64_t log_file_min = slot->log_file;
    uint64_t number_min = 1;
    for (size_t i = slot->checkpoints_count; i-- > 0;) {
        const struct vex_manifest_checkpoint *checkpoint = &slot->checkpoints[i];
        if (checkpoint->lsn < lsn_min || checkpoint->log_file < log_file_min ||
            checkpoint->number < number_min || checkpoint->number == UINT64_MAX) {
            return "checkpoints out of order";
        }
        lsn_min = checkpoint->lsn;
        log_file_min = checkpoint->log_file;
        number_min = checkpoint->number + 1;
    }
    return NULL;
}

static bool is_checksum_right(const uint8_t *block)
{
    return vex_load_u32(block) == MANIFEST_MAGIC &&
           vex_load_u64(block + CHECKSUM_OFFSET) ==
               vex_hash64(block, CHECKSUM_OFFSET, MANIFEST_MAGIC);
}

static bool is_of_another_version(const uint8_t *block)
{
    return is_checksum_right(block) &&
           vex_load_u32(block + offsetof(struct slot, version)) != MANIFEST_VERSION;
}

const char *vex_manifest_slot_fault(const uint8_t *block, size_t index)
{
    struct slot slot;
    memcpy(&slot, block, sizeof(slot));
    if (slot.magic != MANIFEST_MAGIC) {
        return "not a slot of a manifest";
    }
    if (!is_checksum_right(block)) {
        return "checksum does not match";
    }
    if (slot.version != MANIFEST_VERSION) {
        return "written by another version of vexd";
    }
    if (slot.sequence % VEX_MANIFEST_SLOTS != index) {
        return "a slot in the wrong place";
    }
    return content_fault(&slot);
}

static void decode_slot(struct vex_manifest *out, const uint8_t *block)
{
    struct slot slot;
    memcpy(&slot, block, sizeof(slot));
    *out = (struct vex_manifest){
        .sequence = slot.sequence,
        .created_ms = slot.created_ms,
        .log_file = slot.log_file,
        .log_lsn = slot.log_lsn,
        .checkpoints_count = slot.checkpoints_count,
    };
    memcpy(out->uuid, slot.uuid, sizeof(out->uuid));
    memcpy(out->checkpoints, slot.checkpoints,
           slot.checkpoints_count * sizeof(slot.checkpoints[0]));
}

static void encode_slot(uint8_t *block, const struct vex_manifest *manifest)
{
    struct slot slot = {
        .magic = MANIFEST_MAGIC,
        .version = MANIFEST_VERSION,
        .sequence = manifest->sequence,
        .created_ms = manifest->created_ms,
        .log_file = manifest->log_file,
        .log_lsn = manifest->log_lsn,
        .checkpoints_count = (uint32_t)manifest->checkpoints_count,
    };
    memcpy(slot.uuid, manifest->uuid, sizeof(slot.uuid));
    memcpy(slot.checkpoints, manifest->checkpoints,
           manifest->checkpoints_count * sizeof(slot.checkpoints[0]));
    memset(block, 0, VEX_BLOCK_BYTES);
    memcpy(block, &slot, sizeof(slot));
    uint64_t checksum = vex_hash64(block, CHECKSUM_OFFSET, MANIFEST_MAGIC);
    memcpy(block + CHECKSUM_OFFSET, &checksum, sizeof(checksum));
}

/* Everything but sequence and checksum. */
static bool say_the_same(const uint8_t *left, const uint8_t *right)
{
    const size_t from = offsetof(struct slot, uuid);
    return memcmp(left + from, right + from, CHECKSUM_OFFSET - from) == 0;
}

enum vex_status vex_manifest_decode(struct vex_manifest *out, bool *out_equal, const uint8_t *data,
                                    size_t bytes, struct vex_error *error)
{
    const uint8_t *newest = NULL;
    bool other_version = false;
    size_t sound = 0;
    for (size_t i = 0; i < VEX_MANIFEST_SLOTS && (i + 1) * VEX_BLOCK_BYTES <= bytes; i++) {
        const uint8_t *block = data + i * VEX_BLOCK_BYTES;
        other_version = other_version || is_of_another_version(block);
        if (vex_manifest_slot_fault(block, i)) {
            continue;
        }
        sound++;
        const size_t at = offsetof(struct slot, sequence);
        if (!newest || vex_load_u64(block + at) > vex_load_u64(newest + at)) {
            newest = block;
        }
    }
    /* Also beside a sound slot of ours: that one may be older. */
    if (other_version) {
        return vex_error_set(error, VEX_ERR_VERSION,
                             VEX_MANIFEST_PATH ": written by another version of vexd");
    }
    if (!newest) {
        return vex_error_set(error, VEX_ERR_CORRUPT, VEX_MANIFEST_PATH ": both copies are damaged");
    }
    decode_slot(out, newest);
    if (out_equal) {
        *out_equal = sound == VEX_MANIFEST_SLOTS && say_the_same(data, data + VEX_BLOCK_BYTES);
    }
    return VEX_OK;
}

/* ---- writing --------------------------------------------------------------------------------- */

static int write_slots(struct vex_io *io, const struct vex_file *file,
                       struct vex_manifest *manifest, uint8_t *block)
{
    int result = 0;
    for (size_t i = 0; i < VEX_MANIFEST_SLOTS && result == 0; i++) {
        manifest->sequence++;
        encode_slot(block, manifest);
        result = io->ops->write(io, file, block, VEX_BLOCK_BYTES,
                                manifest->sequence % VEX_MANIFEST_SLOTS * VEX_BLOCK_BYTES);
        result = result < 0 ? result : io->ops->sync(io, file);
    }
    return result;
}

enum vex_status vex_manifest_write(struct vex_io *io, struct vex_manifest *manifest,
                                   struct vex_error *error)
{
    void *block = NULL;
    if (posix_memalign(&block, VEX_BLOCK_BYTES, VEX_BLOCK_BYTES) != 0) {
        return vex_error_set(error, VEX_ERR_NOMEM, VEX_MANIFEST_PATH ": out of memory");
    }
    struct vex_file file;
    int result = io->ops->open_file(io, VEX_MANIFEST_PATH, VEX_FILE_WRITE, &file);
    if (result == 0) {
        result = write_slots(io, &file, manifest, block);
        io->ops->close_file(io, &file);
    }
    free(block);
    return result < 0 ? vex_error_os(error, vex_status_from_errno(-result), -result,
                                     "write " VEX_MANIFEST_PATH)
                      : VEX_OK;
}

int vex_manifest_create(struct vex_io *io, const char *path, struct vex_manifest *manifest)
{
    void *pages = NULL;
    if (posix_memalign(&pages, VEX_BLOCK_BYTES, VEX_MANIFEST_BYTES) != 0) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < VEX_MANIFEST_SLOTS; i++) {
        manifest->sequence++;
        encode_slot((uint8_t *)pages + manifest->sequence % VEX_MANIFEST_SLOTS * VEX_BLOCK_BYTES,
                    manifest);
    }
    struct vex_whole_file file;
    int result = vex_whole_file_begin(&file, io, path);
    if (result == 0) {
        result = io->ops->write(io, &file.file, pages, VEX_MANIFEST_BYTES, 0);
        if (result < 0) {
            vex_whole_file_abandon(&file);
        } else {
            result = vex_whole_file_end(&file);
        }
    }
    free(pages);
    return result;
}

/* ---- opening --------------------------------------------------------------------------------- */

static enum vex_status create(struct vex_io *io, struct vex_manifest *out, struct vex_error *error)
{
    struct vex_manifest manifest = {0};
    if (getrandom(manifest.uuid, sizeof(manifest.uuid), 0) != (ssize_t)sizeof(manifest.uuid)) {
        return vex_error_os(error, VEX_ERR_IO, errno, "random bytes for the instance's UUID");
    }
    /* RFC 4122, version 4. */
    manifest.uuid[6] = (uint8_t)((manifest.uuid[6] & 0x0f) | 0x40);
    manifest.uuid[8] = (uint8_t)((manifest.uuid[8] & 0x3f) | 0x80);
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    manifest.created_ms = (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
    int result = vex_manifest_create(io, VEX_MANIFEST_PATH, &manifest);
    if (result < 0) {
        return vex_error_os(error, vex_status_from_errno(-result), -result,
                            "write " VEX_MANIFEST_PATH);
    }
    /* The instance's own name. It may have been made long ago, and its parent may be closed to us. */
    (void)io->ops->sync_directory(io, "..");
    *out = manifest;
    return VEX_OK;
}

struct leftovers {
    const char *suffix;
    bool found;
};

static void note_leftover(void *context, const char *name)
{
    struct leftovers *leftovers = context;
    const char *end = strrchr(name, '.');
    if (end && strcmp(end, leftovers->suffix) == 0) {
        leftovers->found = true;
    }
}

/* A directory without MANIFEST is a new instance only if it holds nothing of an older one: a fresh UUID would
 * make all that another instance's. */
static enum vex_status check_fresh(struct vex_io *io, struct vex_error *error)
{
    const struct {
        const char *directory;
        const char *suffix;
    } places[] = {
        {VEX_LOG_DIRECTORY, ".log"},
        {VEX_CHECKPOINT_DIRECTORY, VEX_CHECKPOINT_SUFFIX},
        {VEX_SEGMENT_DIRECTORY, VEX_SEGMENT_SUFFIX},
    };
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        struct leftovers leftovers = {places[i].suffix, false};
        int result = io->ops->list(io, places[i].directory, note_leftover, &leftovers);
        if (result < 0 && result != -ENOENT) {
            return vex_error_os(error, vex_status_from_errno(-result), -result,
                                "look into %s/ beside a missing " VEX_MANIFEST_PATH,
                                places[i].directory);
        }
        if (leftovers.found) {
            return vex_error_set(error, VEX_ERR_CORRUPT,
                                 VEX_MANIFEST_PATH " is missing, but there are files in %s/: "
                                                   "restore it, or move them away",
                                 places[i].directory);
        }
    }
    return VEX_OK;
}

/* What is read decides about files, so it must not be only in a cache that a crash forgets. */
static enum vex_status read_existing(struct vex_io *io, struct vex_manifest *out, bool *out_equal,
                                     const struct vex_file *file, struct vex_error *error)
{
    void *pages = NULL;
    if (posix_memalign(&pages, VEX_BLOCK_BYTES, VEX_MANIFEST_BYTES) != 0) {
        return vex_error_set(error, VEX_ERR_NOMEM, VEX_MANIFEST_PATH ": out of memory");
    }
    int64_t got = io->ops->sync(io, file);
    got = got < 0 ? got : io->ops->read(io, file, pages, VEX_MANIFEST_BYTES, 0);
    enum vex_status status = got < 0
                                 ? vex_error_os(error, vex_status_from_errno((int)-got), (int)-got,
                                                "read " VEX_MANIFEST_PATH)
                                 : vex_manifest_decode(out, out_equal, pages, (size_t)got, error);
    free(pages);
    return status;
}

enum vex_status vex_manifest_read(struct vex_io *io, struct vex_manifest *out, bool *out_equal,
                                  struct vex_error *error)
{
    struct vex_file file;
    int result = io->ops->open_file(io, VEX_MANIFEST_PATH, VEX_FILE_READ, &file);
    if (result == -ENOENT) {
        return vex_error_set(error, VEX_ERR_NOT_FOUND,
                             VEX_MANIFEST_PATH " is missing: not the directory of an instance");
    }
    if (result < 0) {
        return vex_error_os(error, vex_status_from_errno(-result), -result,
                            "open " VEX_MANIFEST_PATH);
    }
    enum vex_status status = read_existing(io, out, out_equal, &file, error);
    io->ops->close_file(io, &file);
    return status;
}

enum vex_status vex_manifest_open(struct vex_io *io, struct vex_manifest *out,
                                  struct vex_error *error)
{
    struct vex_manifest manifest;
    bool equal = false;
    enum vex_status status = vex_manifest_read(io, &manifest, &equal, error);
    if (status == VEX_ERR_NOT_FOUND) {
        status = check_fresh(io, error);
        return status == VEX_OK ? create(io, out, error) : status;
    }
    if (status == VEX_OK && !equal) {
        status = vex_manifest_write(io, &manifest, error);
    }
    if (status == VEX_OK) {
        *out = manifest;
    }
    return status;
}
