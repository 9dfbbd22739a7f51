/*
 * Backups: the newest checkpoint and what it names, as a directory that is itself an instance. Its manifest
 * says that there is no log yet and where one would begin, so a daemon that opens it makes its own.
 *
 * Files are immutable, so a hard link is as good as a copy and costs nothing; on another file system they
 * are copied, piece by piece, with pauses. (A link shares its blocks with the original: it protects against
 * mistakes and crashes, not against a dying disk.) The directory gets its name last: whoever finds the name
 * finds all of it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "ioengine/store_priv.h"
#include "ioengine/whole_file.h"

#define COPY_BYTES (1u << 20)
#define PART_SUFFIX ".part"
/* Room for the longest name in it. */
#define BACKUP_PATH_BYTES_MAX (VEX_WHOLE_FILE_PATH_BYTES - VEX_CHECKPOINT_PATH_BYTES - 16u)

struct backup {
    struct vex_io *io;
    const struct vex_pace *pace;
    const char *path;
    char part[VEX_WHOLE_FILE_PATH_BYTES];
    uint64_t bytes;
    bool gave_up;
};

/* "<part>/<name>"; the length has been checked. */
static void join(const struct backup *backup, const char *name,
                 char out_path[VEX_WHOLE_FILE_PATH_BYTES])
{
    size_t length = strlen(backup->part);
    memcpy(out_path, backup->part, length);
    (void)snprintf(out_path + length, VEX_WHOLE_FILE_PATH_BYTES - length, "/%s", name);
}

/* ---- one file -------------------------------------------------------------------------------- */

static bool pause_after(struct backup *backup, uint64_t bytes)
{
    if (backup->pace && !backup->pace->pause(backup->pace->context, bytes)) {
        backup->gave_up = true;
        return false;
    }
    return true;
}

static int copy_pieces(struct backup *backup, const struct vex_file *source,
                       const struct vex_file *target, uint64_t bytes, void *piece)
{
    struct vex_io *io = backup->io;
    for (uint64_t at = 0; at < bytes; at += COPY_BYTES) {
        size_t some = bytes - at < COPY_BYTES ? (size_t)(bytes - at) : COPY_BYTES;
        int64_t got = io->ops->read(io, source, piece, some, at);
        if (got != (int64_t)some) {
            return got < 0 ? (int)got : -EIO;
        }
        int result = io->ops->write(io, target, piece, some, at);
        if (result < 0) {
            return result;
        }
        if (!pause_after(backup, some)) {
            return -ECANCELED;
        }
    }
    return 0;
}

static int copy_open_file(struct backup *backup, const struct vex_file *source, const char *to)
{
    struct vex_io *io = backup->io;
    uint64_t bytes = 0;
    int result = io->ops->size(io, source, &bytes);
    if (result < 0) {
        return result;
    }
    void *piece = NULL;
    if (posix_memalign(&piece, VEX_BLOCK_BYTES, COPY_BYTES) != 0) {
        return -ENOMEM;
    }
    struct vex_whole_file target;
    result = vex_whole_file_begin(&target, io, to);
    if (result == 0) {
        result = copy_pieces(backup, source, &target.file, bytes, piece);
        if (result < 0) {
            vex_whole_file_abandon(&target);
        } else {
            result = vex_whole_file_end(&target);
        }
    }
    free(piece);
    return result;
}

static int copy_file(struct backup *backup, const char *from, const char *to)
{
    struct vex_file source;
    int result = backup->io->ops->open_file(backup->io, from, VEX_FILE_READ, &source);
    if (result == 0) {
        result = copy_open_file(backup, &source, to);
        backup->io->ops->close_file(backup->io, &source);
    }
    return result;
}

static bool has_no_links(int result)
{
    return result == -EXDEV || result == -EPERM || result == -EMLINK || result == -EOPNOTSUPP;
}

static enum vex_status take_file(struct backup *backup, const char *name, uint64_t bytes,
                                 struct vex_error *error)
{
    char to[VEX_WHOLE_FILE_PATH_BYTES];
    join(backup, name, to);
    int result = backup->io->ops->link(backup->io, name, to);
    if (has_no_links(result)) {
        result = copy_file(backup, name, to);
    } else if (result == 0 && !pause_after(backup, 0)) {
        result = -ECANCELED;
    }
    if (result < 0) {
        return backup->gave_up
                   ? vex_error_set(error, VEX_ERR_UNAVAILABLE, "the backup was given up")
                   : vex_error_os(error, vex_status_from_errno(-result), -result,
                                  "%s into the backup", name);
    }
    backup->bytes += bytes;
    return VEX_OK;
}

/* ---- the directory --------------------------------------------------------------------------- */

static void note_any(void *context, const char *name)
{
    (void)name;
    *(bool *)context = true;
}

/* Not even an empty directory: who made it may have other plans. */
static enum vex_status refuse_existing(struct backup *backup, struct vex_error *error)
{
    bool any = false;
    int result = backup->io->ops->list(backup->io, backup->path, note_any, &any);
    if (result == -ENOENT || (result == 0 && !any)) {
        return VEX_OK;
    }
    if (result == 0 || result == -ENOTDIR) {
        return vex_error_set(error, VEX_ERR_EXISTS, "%s exists", backup->path);
    }
    return vex_error_os(error, vex_status_from_errno(-result), -result, "look for %s",
                        backup->path);
}

/* Removes what a backup has in one of its directories. */
static void clear_directory(struct backup *backup, const char *directory, const char *suffix)
{
    char path[VEX_WHOLE_FILE_PATH_BYTES];
    struct store_listing listing;
    join(backup, directory, path);
    if (store_list(backup->io, path, suffix, &listing, NULL) != VEX_OK) {
        return;
    }
    char name[VEX_CHECKPOINT_PATH_BYTES];
    for (size_t i = 0; i < store_listing_count(&listing); i++) {
        (void)snprintf(name, sizeof(name), "%s/%016llx%s", directory,
                       (unsigned long long)store_listing_number(&listing, i), suffix);
        join(backup, name, path);
        (void)backup->io->ops->unlink(backup->io, path);
    }
    for (size_t at = 0; at < listing.names.bytes;) {
        const char *other = (const char *)listing.names.data + at;
        if (vex_whole_file_is_temporary(other) && strlen(other) < sizeof(name) / 2) {
            (void)snprintf(name, sizeof(name), "%s/%.31s", directory, other);
            join(backup, name, path);
            (void)backup->io->ops->unlink(backup->io, path);
        }
        at += strlen(other) + 1;
    }
    store_listing_deinit(&listing);
}

/* Of this attempt or an earlier one. Only files of our own names. */
static void clear_part(struct backup *backup)
{
    char path[VEX_WHOLE_FILE_PATH_BYTES];
    clear_directory(backup, VEX_SEGMENT_DIRECTORY, VEX_SEGMENT_SUFFIX);
    clear_directory(backup, VEX_CHECKPOINT_DIRECTORY, VEX_CHECKPOINT_SUFFIX);
    static const char *const names[] = {VEX_MANIFEST_PATH, VEX_MANIFEST_PATH ".new"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        join(backup, names[i], path);
        (void)backup->io->ops->unlink(backup->io, path);
    }
}

static int make_part(struct backup *backup)
{
    struct vex_io *io = backup->io;
    char path[VEX_WHOLE_FILE_PATH_BYTES];
    struct vex_file lock;
    join(backup, "LOCK", path);
    int result = io->ops->open_file(io, path, VEX_FILE_READ, &lock);
    if (result == 0) { /* an instance, and not ours to clear */
        io->ops->close_file(io, &lock);
        return -EEXIST;
    }
    if (result != -ENOENT) {
        return result;
    }
    static const char *const directories[] = {VEX_SEGMENT_DIRECTORY, VEX_CHECKPOINT_DIRECTORY};
    result = io->ops->make_directory(io, backup->part);
    for (size_t i = 0; result == 0 && i < sizeof(directories) / sizeof(directories[0]); i++) {
        join(backup, directories[i], path);
        result = io->ops->make_directory(io, path);
    }
    if (result == 0) {
        clear_part(backup);
    }
    return result;
}

static enum vex_status take_files(struct backup *backup, const struct vex_store *store,
                                  struct vex_error *error)
{
    const struct store_kept *kept = &store->kept[0];
    char name[VEX_CHECKPOINT_PATH_BYTES];
    enum vex_status status = VEX_OK;
    for (size_t i = 0; status == VEX_OK && i < kept->segments_count; i++) {
        const struct store_segment *segment = store_find_segment(store, kept->segments[i]);
        vex_segment_file_path(name, kept->segments[i]);
        status = take_file(backup, name, segment ? segment->bytes : 0, error);
    }
    if (status != VEX_OK) {
        return status;
    }
    vex_checkpoint_path(name, kept->entry.number);
    return take_file(backup, name, kept->entry.bytes, error);
}

static int finish(struct backup *backup, const struct vex_store *store)
{
    struct vex_io *io = backup->io;
    char path[VEX_WHOLE_FILE_PATH_BYTES];
    struct vex_manifest manifest = {
        .created_ms = store->manifest.created_ms,
        .log_lsn = store->kept[0].entry.lsn,
        .checkpoints_count = 1,
        .checkpoints = {store->kept[0].entry},
    };
    memcpy(manifest.uuid, store->manifest.uuid, sizeof(manifest.uuid));
    manifest.checkpoints[0].log_file = 0;
    join(backup, VEX_SEGMENT_DIRECTORY, path);
    int result = io->ops->sync_directory(io, path);
    join(backup, VEX_CHECKPOINT_DIRECTORY, path);
    result = result < 0 ? result : io->ops->sync_directory(io, path);
    join(backup, VEX_MANIFEST_PATH, path); /* its directory is synced with it */
    result = result < 0 ? result : vex_manifest_create(io, path, &manifest);
    result = result < 0 ? result : io->ops->rename(io, backup->part, backup->path);
    if (result == -EEXIST || result == -ENOTEMPTY || result == -ENOTDIR) {
        return -EEXIST; /* made meanwhile */
    }
    return result < 0 ? result : vex_sync_parent(io, backup->path);
}

static enum vex_status make_backup(struct backup *backup, const struct vex_store *store,
                                   struct vex_error *error)
{
    int result = make_part(backup);
    if (result == -EEXIST) {
        return vex_error_set(error, VEX_ERR_EXISTS,
                             "%s is needed for the work and is an instance: choose another name",
                             backup->part);
    }
    if (result < 0) {
        return vex_error_os(error, vex_status_from_errno(-result), -result, "make directory %s",
                            backup->part);
    }
    enum vex_status status = take_files(backup, store, error);
    if (status == VEX_OK) {
        result = finish(backup, store);
        if (result < 0) {
            status = vex_error_os(
                error, result == -EEXIST ? VEX_ERR_EXISTS : vex_status_from_errno(-result), -result,
                "finish %s", backup->path);
        }
    }
    if (status != VEX_OK) {
        clear_part(backup);
    }
    return status;
}

enum vex_status vex_store_backup(struct vex_store *store, const char *path,
                                 const struct vex_pace *pace, uint64_t *out_lsn,
                                 uint64_t *out_bytes, struct vex_error *error)
{
    struct backup backup = {.io = store->io, .pace = pace, .path = path};
    size_t length = strlen(path);
    if (length == 0 || path[length - 1] == '/' || length > BACKUP_PATH_BYTES_MAX) {
        return vex_error_set(error, VEX_ERR_INVALID,
                             "a backup needs a path of 1 to %u bytes that does not end in '/'",
                             BACKUP_PATH_BYTES_MAX);
    }
    const size_t suffix = strlen(PART_SUFFIX);
    if (length > suffix && strcmp(path + length - suffix, PART_SUFFIX) == 0) {
        return vex_error_set(error, VEX_ERR_INVALID,
                             "%s: a name that ends in '" PART_SUFFIX
                             "' is that of an unfinished backup, which the next one replaces: "
                             "choose another",
                             path);
    }
    if (store->kept_count == 0) {
        return vex_error_set(error, VEX_ERR_INVALID, "nothing to back up: no checkpoint yet");
    }
    (void)snprintf(backup.part, sizeof(backup.part), "%s" PART_SUFFIX, path);
    enum vex_status status = refuse_existing(&backup, error);
    status = status == VEX_OK ? make_backup(&backup, store, error) : status;
    if (status != VEX_OK) {
        return status;
    }
    *out_lsn = store->kept[0].entry.lsn;
    *out_bytes = backup.bytes + VEX_MANIFEST_BYTES;
    return VEX_OK;
}
