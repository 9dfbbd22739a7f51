/*
 * What the background thread writes and removes: segment files, checkpoints, the reserve.
 *
 * Everything here follows one order: what is new is durable under its name before the manifest names it, and
 * what is old is removed after the manifest has stopped naming it, durably and in both slots. So at any
 * moment either content of the manifest finds all of its files.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "ioengine/store_priv.h"
#include "ioengine/whole_file.h"

#define PATH_BYTES 320u /* a directory of ours and any file name */

static enum vex_status refuse_failed(struct vex_error *error)
{
    return vex_error_set(
        error, VEX_ERR_READ_ONLY,
        "writing " VEX_MANIFEST_PATH
        " failed: nothing is written or removed in the background until a restart");
}

static void count_written(struct vex_store *store, uint64_t bytes)
{
    (void)pthread_mutex_lock(&store->mutex);
    store->counters.written_bytes += bytes;
    (void)pthread_mutex_unlock(&store->mutex);
}

/* ---- the reserve ----------------------------------------------------------------------------- */

static void set_reserve(struct vex_store *store, uint64_t bytes)
{
    (void)pthread_mutex_lock(&store->mutex);
    store->counters.reserve_bytes = bytes;
    (void)pthread_mutex_unlock(&store->mutex);
}

/* Where blocks cannot be had for the asking. */
static int write_zeros(struct vex_io *io, const struct vex_file *file, uint64_t bytes)
{
    const size_t piece_bytes = bytes < (1u << 20) ? (size_t)bytes : 1u << 20;
    void *zeros = NULL;
    if (posix_memalign(&zeros, VEX_BLOCK_BYTES, piece_bytes) != 0) {
        return -ENOMEM;
    }
    memset(zeros, 0, piece_bytes);
    int result = 0;
    for (uint64_t at = 0; at < bytes && result == 0; at += piece_bytes) {
        uint64_t left = bytes - at;
        result =
            io->ops->write(io, file, zeros, left < piece_bytes ? (size_t)left : piece_bytes, at);
    }
    free(zeros);
    return result;
}

void vex_store_refill_reserve(struct vex_store *store)
{
    struct vex_io *io = store->io;
    uint64_t bytes = store->reserve_wanted_bytes;
    struct vex_file file;
    if (bytes == 0 || store->counters.reserve_bytes == bytes ||
        io->ops->open_file(io, VEX_STORE_RESERVE_PATH, VEX_FILE_CREATE, &file) < 0) {
        return;
    }
    int result = io->ops->allocate(io, &file, bytes);
    if (result == -EOPNOTSUPP) {
        result = write_zeros(io, &file, bytes);
    }
    result = result < 0 ? result : io->ops->sync(io, &file);
    io->ops->close_file(io, &file);
    if (result < 0) {
        /* Half a reserve helps nobody and takes what others may need now. */
        (void)io->ops->unlink(io, VEX_STORE_RESERVE_PATH);
    } else {
        set_reserve(store, bytes);
    }
}

void store_open_reserve(struct vex_store *store)
{
    struct vex_io *io = store->io;
    uint64_t bytes = 0;
    struct vex_file file;
    if (store->reserve_wanted_bytes == 0) {
        (void)io->ops->unlink(io, VEX_STORE_RESERVE_PATH);
        return;
    }
    if (io->ops->open_file(io, VEX_STORE_RESERVE_PATH, VEX_FILE_READ, &file) == 0) {
        (void)io->ops->size(io, &file, &bytes);
        io->ops->close_file(io, &file);
    }
    /* A small instance that never needed a checkpoint needs no reserve for one: it is not made here. */
    if (bytes == store->reserve_wanted_bytes) {
        set_reserve(store, bytes);
    } else {
        (void)io->ops->unlink(io, VEX_STORE_RESERVE_PATH);
    }
}

/* True if there was one: what ran out of space may be tried once more. */
static bool give_reserve_up(struct vex_store *store)
{
    struct vex_io *io = store->io;
    if (store->counters.reserve_bytes == 0 || io->ops->unlink(io, VEX_STORE_RESERVE_PATH) < 0) {
        return false;
    }
    set_reserve(store, 0);
    /* Some file systems hand freed blocks out only after this. */
    (void)io->ops->sync_directory(io, ".");
    return true;
}

/* ---- segment files --------------------------------------------------------------------------- */

enum vex_status vex_store_write_segment(struct vex_store *store,
                                        const struct vex_segment_file *file, const void *image,
                                        const struct vex_pace *pace, struct vex_error *error)
{
    if (store_has_failed(store)) {
        return refuse_failed(error);
    }
    uint64_t bytes = 0;
    enum vex_status status =
        vex_segment_file_write(store->io, store->manifest.uuid, file, image, pace, &bytes, error);
    if (status == VEX_ERR_NO_SPACE && give_reserve_up(store)) {
        status = vex_segment_file_write(store->io, store->manifest.uuid, file, image, pace, &bytes,
                                        error);
    }
    if (status != VEX_OK) {
        return status;
    }
    if (!store_add_segment(store, file->number, bytes)) {
        char path[VEX_SEGMENT_PATH_BYTES];
        vex_segment_file_path(path, file->number);
        (void)store->io->ops->unlink(store->io, path);
        return vex_error_set(error, VEX_ERR_NOMEM, "%s: out of memory", path);
    }
    store_count(store);
    count_written(store, bytes);
    return VEX_OK;
}

/* ---- checkpoints ----------------------------------------------------------------------------- */

static enum vex_status check_checkpoint(const struct vex_store *store,
                                        const struct vex_store_cut *cut, const uint64_t *segments,
                                        size_t segments_count, struct vex_error *error)
{
    const struct vex_manifest *manifest = &store->manifest;
    if (store->kept_count > 0 &&
        (cut->lsn < store->kept[0].entry.lsn || cut->log_file < store->kept[0].entry.log_file)) {
        return vex_error_set(error, VEX_ERR_INVALID,
                             "a checkpoint at LSN %llu: the newest one is at LSN %llu already",
                             (unsigned long long)cut->lsn,
                             (unsigned long long)store->kept[0].entry.lsn);
    }
    if (cut->lsn < manifest->log_lsn || cut->log_file < manifest->log_file) {
        return vex_error_set(error, VEX_ERR_INVALID,
                             "a checkpoint at LSN %llu: the log begins behind it",
                             (unsigned long long)cut->lsn);
    }
    for (size_t i = 0; i < segments_count; i++) {
        if (!store_find_segment(store, segments[i])) {
            char path[VEX_SEGMENT_PATH_BYTES];
            vex_segment_file_path(path, segments[i]);
            return vex_error_set(error, VEX_ERR_INVALID,
                                 "a checkpoint that names %s, which has not been written", path);
        }
    }
    return VEX_OK;
}

static enum vex_status write_checkpoint_file(struct vex_store *store,
                                             const struct vex_checkpoint *checkpoint,
                                             struct vex_manifest_checkpoint *entry,
                                             struct vex_error *error)
{
    const uint8_t *uuid = store->manifest.uuid;
    enum vex_status status =
        vex_checkpoint_write(store->io, uuid, checkpoint, &entry->bytes, &entry->hash, error);
    if (status == VEX_ERR_NO_SPACE && give_reserve_up(store)) {
        status =
            vex_checkpoint_write(store->io, uuid, checkpoint, &entry->bytes, &entry->hash, error);
    }
    return status;
}

/* The manifest with one more checkpoint, the one before it kept, and none else. */
static struct vex_manifest manifest_with(const struct vex_store *store,
                                         const struct vex_manifest_checkpoint *entry)
{
    struct vex_manifest manifest = store->manifest;
    manifest.checkpoints_count = 1;
    manifest.checkpoints[0] = *entry;
    manifest.checkpoints[1] = (struct vex_manifest_checkpoint){0};
    if (store->kept_count > 0) {
        const struct vex_manifest_checkpoint *older = &store->kept[0].entry;
        manifest.checkpoints_count = 2;
        manifest.checkpoints[1] = *older;
        manifest.log_file = older->log_file;
        manifest.log_lsn = older->lsn;
    }
    return manifest;
}

static enum vex_status write_manifest(struct vex_store *store, struct vex_manifest *manifest,
                                      struct vex_error *error)
{
    enum vex_status status = vex_manifest_write(store->io, manifest, error);
    if (status != VEX_OK) {
        (void)pthread_mutex_lock(&store->mutex);
        store->counters.failed = true;
        (void)pthread_mutex_unlock(&store->mutex);
        return vex_error_wrap(error, VEX_ERR_READ_ONLY, "no more checkpoints until a restart");
    }
    count_written(store, VEX_MANIFEST_BYTES);
    return VEX_OK;
}

static void keep_checkpoint(struct vex_store *store, const struct vex_manifest *manifest,
                            uint64_t *segments, size_t segments_count)
{
    store->manifest = *manifest;
    store_kept_deinit(&store->kept[1]);
    store->kept[1] = store->kept[0];
    store->kept[0] = (struct store_kept){manifest->checkpoints[0], segments, segments_count};
    store->kept_count = manifest->checkpoints_count;
    store->hold = false; /* what could not be read is not named any more */
    (void)pthread_mutex_lock(&store->mutex);
    store->counters.checkpoints++;
    (void)pthread_mutex_unlock(&store->mutex);
    store_count(store);
}

enum vex_status vex_store_checkpoint(struct vex_store *store, const struct vex_store_cut *cut,
                                     const uint64_t *segments, size_t segments_count,
                                     const void *body, size_t body_bytes, struct vex_error *error)
{
    if (store_has_failed(store)) {
        return refuse_failed(error);
    }
    enum vex_status status = check_checkpoint(store, cut, segments, segments_count, error);
    if (status != VEX_OK) {
        return status;
    }
    uint64_t *sorted = store_copy_numbers(segments, segments_count);
    if (!sorted) {
        return vex_error_set(error, VEX_ERR_NOMEM, "checkpoint: out of memory");
    }
    const struct vex_checkpoint checkpoint = {
        .number = store->next_checkpoint_number++,
        .lsn = cut->lsn,
        .log_file = cut->log_file,
        .segments = sorted,
        .segments_count = segments_count,
        .body = body,
        .body_bytes = body_bytes,
    };
    struct vex_manifest_checkpoint entry = {
        .number = checkpoint.number, .lsn = cut->lsn, .log_file = cut->log_file};
    status = write_checkpoint_file(store, &checkpoint, &entry, error);
    struct vex_manifest manifest = manifest_with(store, &entry);
    if (status == VEX_OK) {
        count_written(store, entry.bytes);
        status = write_manifest(store, &manifest, error);
    }
    if (status != VEX_OK) {
        free(sorted);
        return status;
    }
    keep_checkpoint(store, &manifest, sorted, segments_count);
    return VEX_OK;
}

/* ---- removing -------------------------------------------------------------------------------- */

struct removal {
    struct vex_io *io;
    const char *directory;
    int result; /* first failure */
    uint64_t removed;
};

/* True if the file is gone. */
static bool remove_file(struct removal *removal, const char *path)
{
    int result = removal->io->ops->unlink(removal->io, path);
    removal->removed += result == 0;
    if (result == 0 || result == -ENOENT) {
        return true;
    }
    removal->result = removal->result < 0 ? removal->result : result;
    return false;
}

static void remove_temporaries(struct removal *removal, const struct store_listing *listing)
{
    size_t at = 0;
    while (at < listing->names.bytes) {
        const char *name = (const char *)listing->names.data + at;
        char path[PATH_BYTES];
        if (vex_whole_file_is_temporary(name)) {
            (void)snprintf(path, sizeof(path), "%s/%s", removal->directory, name);
            (void)remove_file(removal, path);
        }
        at += strlen(name) + 1;
    }
}

static void end_removal(struct removal *removal)
{
    if (removal->removed > 0) {
        int result = removal->io->ops->sync_directory(removal->io, removal->directory);
        removal->result = removal->result < 0 ? removal->result : result;
    }
}

static bool is_checkpoint_kept(const struct vex_store *store, uint64_t number)
{
    for (size_t i = 0; i < store->kept_count; i++) {
        if (store->kept[i].entry.number == number) {
            return true;
        }
    }
    return false;
}

static void remove_checkpoints(struct vex_store *store, struct removal *removal)
{
    struct store_listing listing;
    if (store_list(store->io, VEX_CHECKPOINT_DIRECTORY, VEX_CHECKPOINT_SUFFIX, &listing, NULL) !=
        VEX_OK) {
        removal->result = -EIO;
        return;
    }
    for (size_t i = 0; !store->hold && i < store_listing_count(&listing); i++) {
        uint64_t number = store_listing_number(&listing, i);
        char path[VEX_CHECKPOINT_PATH_BYTES];
        if (!is_checkpoint_kept(store, number)) {
            vex_checkpoint_path(path, number);
            (void)remove_file(removal, path);
        }
    }
    remove_temporaries(removal, &listing);
    store_listing_deinit(&listing);
    end_removal(removal);
}

static bool is_segment_needed(const struct vex_store *store, const uint64_t *keep,
                              size_t keep_count, uint64_t number)
{
    for (size_t i = 0; i < store->kept_count; i++) {
        const struct store_kept *kept = &store->kept[i];
        if (store_has_number(kept->segments, kept->segments_count, number)) {
            return true;
        }
    }
    return store_has_number(keep, keep_count, number);
}

/* The table tells what is there; a listing, what else there is. */
static void remove_segments(struct vex_store *store, const uint64_t *keep, size_t keep_count,
                            struct removal *removal)
{
    size_t left = 0;
    for (size_t i = 0; i < store_segments_count(store); i++) {
        struct store_segment segment = *store_segment_at(store, i);
        char path[VEX_SEGMENT_PATH_BYTES];
        vex_segment_file_path(path, segment.number);
        bool needed = store->hold || is_segment_needed(store, keep, keep_count, segment.number);
        if (needed || !remove_file(removal, path)) {
            *store_segment_at(store, left++) = segment;
        }
    }
    store->segments.bytes = left * sizeof(struct store_segment);
    struct store_listing listing;
    if (store_list(store->io, VEX_SEGMENT_DIRECTORY, VEX_SEGMENT_SUFFIX, &listing, NULL) ==
        VEX_OK) {
        remove_temporaries(removal, &listing);
        store_listing_deinit(&listing);
    } else if (removal->result == 0) {
        removal->result = -EIO;
    }
    end_removal(removal);
}

int store_remove_unneeded(struct vex_store *store, const uint64_t *keep, size_t keep_count,
                          uint64_t *out_removed)
{
    struct removal checkpoints = {.io = store->io, .directory = VEX_CHECKPOINT_DIRECTORY};
    struct removal segments = {.io = store->io, .directory = VEX_SEGMENT_DIRECTORY};
    remove_checkpoints(store, &checkpoints);
    remove_segments(store, keep, keep_count, &segments);
    *out_removed = checkpoints.removed + segments.removed;
    return checkpoints.result < 0 ? checkpoints.result : segments.result;
}

enum vex_status vex_store_trim(struct vex_store *store, bool recycle, const uint64_t *keep,
                               size_t keep_count, struct vex_error *error)
{
    if (store_has_failed(store)) {
        return refuse_failed(error);
    }
    if (store->hold) {
        return VEX_OK;
    }
    uint64_t *sorted = store_copy_numbers(keep, keep_count);
    if (!sorted) {
        return vex_error_set(error, VEX_ERR_NOMEM, "trimming: out of memory");
    }
    uint64_t removed = 0;
    int result = store_remove_unneeded(store, sorted, keep_count, &removed);
    free(sorted);
    store_count(store);
    int log_result = vex_log_trim(store->log, store->manifest.log_file, recycle);
    /* Of no account in the daily round: the next start removes it. Not if it was to be gone. */
    result = result == 0 && !recycle ? log_result : result;
    return result < 0 ? vex_error_os(error, vex_status_from_errno(-result), -result,
                                     "remove what no checkpoint needs")
                      : VEX_OK;
}
