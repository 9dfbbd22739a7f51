/*
 * Opening a store: from whatever a crash left to the newest state that can be had.
 *
 * The manifest decides what belongs to the instance; files are only believed if it names them (or a
 * checkpoint file that it names does) and their checksums hold. A checkpoint that cannot be read, or whose
 * segment files cannot, is passed over for the one before it: the log behind that one is still there, so
 * nothing is lost but time. While such a one is around nothing is removed, because what it would have needed
 * is not known, and somebody may want to look.
 *
 * The order for a new instance: manifest without a log; the first log file; then the manifest says that there
 * is a log, in both slots. A crash in between is taken up where it was; afterwards a missing log is damage.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/panic.h"
#include "ioengine/store_priv.h"

struct recovery {
    struct vex_store *store;
    const struct vex_store_state *state;
    struct vex_store_recovery *found;
    struct vex_error *error;
};

/* ---- what is there --------------------------------------------------------------------------- */

static enum vex_status make_directories(struct vex_store *store, struct vex_error *error)
{
    struct vex_io *io = store->io;
    static const char *const directories[] = {VEX_CHECKPOINT_DIRECTORY, VEX_SEGMENT_DIRECTORY};
    int result = 0;
    for (size_t i = 0; result == 0 && i < sizeof(directories) / sizeof(directories[0]); i++) {
        result = io->ops->make_directory(io, directories[i]);
        /* Names that are seen now must not be gone after the next crash. */
        result = result < 0 ? result : io->ops->sync_directory(io, directories[i]);
    }
    result = result < 0 ? result : io->ops->sync_directory(io, ".");
    return result < 0 ? vex_error_os(error, vex_status_from_errno(-result), -result,
                                     "make directories " VEX_CHECKPOINT_DIRECTORY
                                     "/ and " VEX_SEGMENT_DIRECTORY "/")
                      : VEX_OK;
}

static int file_size(struct vex_io *io, const char *path, uint64_t *out_bytes)
{
    struct vex_file file;
    int result = io->ops->open_file(io, path, VEX_FILE_READ, &file);
    if (result == 0) {
        result = io->ops->size(io, &file, out_bytes);
        io->ops->close_file(io, &file);
    }
    return result;
}

/* Fills the table of segment files. */
static enum vex_status find_segments(struct vex_store *store, struct vex_error *error)
{
    struct store_listing listing;
    enum vex_status status =
        store_list(store->io, VEX_SEGMENT_DIRECTORY, VEX_SEGMENT_SUFFIX, &listing, error);
    if (status != VEX_OK) {
        return status;
    }
    store->next_segment_number = 1;
    for (size_t i = 0; status == VEX_OK && i < store_listing_count(&listing); i++) {
        uint64_t number = store_listing_number(&listing, i);
        uint64_t bytes = 0;
        char path[VEX_SEGMENT_PATH_BYTES];
        vex_segment_file_path(path, number);
        int result = file_size(store->io, path, &bytes);
        if (result == 0 && !store_add_segment(store, number, bytes)) {
            result = -ENOMEM;
        }
        if (result < 0) {
            status =
                vex_error_os(error, vex_status_from_errno(-result), -result, "size of %s", path);
        }
        if (number < UINT64_MAX) {
            store->next_segment_number = number + 1;
        }
    }
    store_listing_deinit(&listing);
    return status;
}

/* ---- checkpoints ----------------------------------------------------------------------------- */

enum vex_status store_read_checkpoint(struct vex_io *io, const struct vex_manifest *manifest,
                                      size_t index, struct vex_checkpoint_file *out,
                                      struct vex_error *error)
{
    const struct vex_manifest_checkpoint *entry = &manifest->checkpoints[index];
    enum vex_status status = vex_checkpoint_read(io, manifest->uuid, entry->number, out, error);
    if (status == VEX_OK && (out->bytes != entry->bytes || out->hash != entry->hash ||
                             out->checkpoint.lsn != entry->lsn)) {
        char path[VEX_CHECKPOINT_PATH_BYTES];
        vex_checkpoint_path(path, entry->number);
        vex_checkpoint_file_deinit(out);
        return vex_error_set(error, VEX_ERR_CORRUPT,
                             "%s: is not the file that " VEX_MANIFEST_PATH " names", path);
    }
    return status;
}

/* Numbers of segment files only grow, and one that is named but lost must not come back as another. */
static void pass_named(struct vex_store *store, const struct store_kept *kept)
{
    for (size_t i = 0; i < kept->segments_count; i++) {
        if (kept->segments[i] >= store->next_segment_number && kept->segments[i] < UINT64_MAX) {
            store->next_segment_number = kept->segments[i] + 1;
        }
    }
}

/* Makes the entry of `kept`. */
static enum vex_status note_kept(struct vex_store *store, size_t index,
                                 const struct vex_checkpoint *checkpoint, struct store_kept *out,
                                 struct vex_error *error)
{
    struct store_kept kept = {
        .entry = store->manifest.checkpoints[index],
        .segments = store_copy_numbers(checkpoint->segments, checkpoint->segments_count),
        .segments_count = checkpoint->segments_count,
    };
    if (!kept.segments) {
        return vex_error_set(error, VEX_ERR_NOMEM, "checkpoint: out of memory");
    }
    pass_named(store, &kept);
    *out = kept;
    return VEX_OK;
}

static bool has_all_files(const struct vex_store *store, const struct store_kept *kept)
{
    for (size_t i = 0; i < kept->segments_count; i++) {
        if (!store_find_segment(store, kept->segments[i])) {
            return false;
        }
    }
    return true;
}

static enum vex_status restore_checkpoint(struct recovery *recovery, size_t index,
                                          struct vex_error *error)
{
    struct vex_store *store = recovery->store;
    struct vex_checkpoint_file file = {0};
    struct store_kept kept = {0};
    enum vex_status status =
        store_read_checkpoint(store->io, &store->manifest, index, &file, error);
    if (status != VEX_OK) {
        return status;
    }
    const struct vex_checkpoint *checkpoint = &file.checkpoint;
    status = note_kept(store, index, checkpoint, &kept, error);
    if (status == VEX_OK) {
        /* It loads the files, so it finds out what is missing, and knows what that means. */
        status = recovery->state->restore(recovery->state->context, store, checkpoint->lsn,
                                          checkpoint->body, checkpoint->body_bytes, error);
    }
    if (status == VEX_OK) {
        store->kept[0] = kept;
        store->kept_count = 1;
        recovery->found->checkpoint_lsn = checkpoint->lsn;
    } else {
        store_kept_deinit(&kept);
    }
    vex_checkpoint_file_deinit(&file);
    return status;
}

static bool may_fall_back(enum vex_status status)
{
    return status == VEX_ERR_CORRUPT || status == VEX_ERR_IO;
}

/* Newest state that can be had: a checkpoint, or the beginning if the log goes back so far. */
static enum vex_status restore_any(struct recovery *recovery)
{
    struct vex_store *store = recovery->store;
    const struct vex_manifest *manifest = &store->manifest;
    for (size_t i = 0; i < manifest->checkpoints_count; i++) {
        struct vex_error fault = {.status = VEX_OK};
        enum vex_status status = restore_checkpoint(recovery, i, &fault);
        if (status == VEX_OK) {
            return VEX_OK;
        }
        if (i == 0) {
            recovery->found->fault = fault;
        }
        if (!may_fall_back(status)) {
            if (recovery->error) {
                *recovery->error = fault;
            }
            return status;
        }
        recovery->found->fell_back = true;
        store->hold = true;
    }
    if (manifest->log_lsn > 0 || manifest->checkpoints_count > 1) {
        if (recovery->error) {
            *recovery->error = recovery->found->fault;
        }
        return vex_error_wrap(recovery->error, recovery->found->fault.status,
                              "no checkpoint can be used; the newest");
    }
    return recovery->state->restore(recovery->state->context, store, 0, NULL, 0, recovery->error);
}

/* The checkpoint behind the one that was restored: it is what the next start may fall back to, so what it
 * names must stay. */
static enum vex_status note_older(struct vex_store *store, struct vex_error *error)
{
    if (store->hold || store->manifest.checkpoints_count < 2) {
        return VEX_OK;
    }
    struct vex_checkpoint_file file = {0};
    enum vex_status status = store_read_checkpoint(store->io, &store->manifest, 1, &file, error);
    if (status == VEX_OK) {
        status = note_kept(store, 1, &file.checkpoint, &store->kept[1], error);
        vex_checkpoint_file_deinit(&file);
    }
    if (status == VEX_OK && !has_all_files(store, &store->kept[1])) {
        store_kept_deinit(&store->kept[1]);
        status = VEX_ERR_CORRUPT;
    }
    store->kept_count += status == VEX_OK;
    if (may_fall_back(status)) {
        store->hold = true;
        return VEX_OK;
    }
    return status;
}

/* ---- the log --------------------------------------------------------------------------------- */

/* A log that was repaired may go on in a file before the one that a checkpoint names. */
static void lower_log_files(struct vex_store *store)
{
    uint64_t log_file = vex_log_file_number(store->log);
    for (size_t i = 0; i < store->kept_count; i++) {
        struct vex_manifest_checkpoint *entry = &store->kept[i].entry;
        entry->log_file = entry->log_file > log_file ? log_file : entry->log_file;
    }
}

/* The log file from which the restored checkpoint needs the records. */
static uint64_t first_needed(const struct vex_store *store, uint64_t lsn)
{
    const struct vex_manifest *manifest = &store->manifest;
    bool restored = store->kept_count > 0 && store->kept[0].entry.lsn == lsn;
    return manifest->log_file && restored ? store->kept[0].entry.log_file : manifest->log_file;
}

static enum vex_status open_log(struct recovery *recovery, const struct vex_io_buffer *buffers,
                                const struct vex_store_options *options)
{
    struct vex_store *store = recovery->store;
    struct vex_manifest *manifest = &store->manifest;
    uint64_t lsn = recovery->found->checkpoint_lsn;
    const struct vex_log_options log_options = {
        .uuid = manifest->uuid,
        .file_bytes_min = options->log_file_bytes_min,
        .file_bytes_max = options->log_file_bytes_max,
        .start = {.file_number = first_needed(store, lsn),
                  .lsn = lsn,
                  .kept_file = manifest->log_file},
    };
    enum vex_status status =
        vex_log_open(store->io, buffers, &log_options, recovery->state->replay,
                     recovery->state->context, &store->log, &recovery->found->log, recovery->error);
    if (status != VEX_OK) {
        return status;
    }
    lower_log_files(store);
    if (manifest->log_file > 0) {
        return VEX_OK;
    }
    manifest->log_file = vex_log_file_number(store->log);
    for (size_t i = 0; i < manifest->checkpoints_count; i++) { /* a backup's, from another log */
        manifest->checkpoints[i].log_file = manifest->log_file;
    }
    for (size_t i = 0; i < store->kept_count; i++) {
        store->kept[i].entry.log_file = manifest->log_file;
    }
    return vex_manifest_write(store->io, manifest, recovery->error);
}

/* ---- all of it ------------------------------------------------------------------------------- */

enum vex_status store_recover(struct vex_store *store, const struct vex_io_buffer *buffers,
                              const struct vex_store_options *options,
                              const struct vex_store_state *state,
                              struct vex_store_recovery *out_recovery, struct vex_error *error)
{
    *out_recovery = (struct vex_store_recovery){0};
    struct recovery recovery = {store, state, out_recovery, error};
    enum vex_status status = vex_manifest_open(store->io, &store->manifest, error);
    memcpy(store->uuid, store->manifest.uuid, sizeof(store->uuid));
    status = status == VEX_OK ? make_directories(store, error) : status;
    status = status == VEX_OK ? find_segments(store, error) : status;
    status = status == VEX_OK ? restore_any(&recovery) : status;
    status = status == VEX_OK ? note_older(store, error) : status;
    status = status == VEX_OK ? open_log(&recovery, buffers, options) : status;
    if (status != VEX_OK) {
        return status;
    }
    store->next_checkpoint_number = 1;
    if (store->manifest.checkpoints_count > 0) {
        store->next_checkpoint_number = store->manifest.checkpoints[0].number + 1;
    }
    /* Nothing depends on these: what cannot be removed now is tried again by the next trimming. */
    (void)store_remove_unneeded(store, NULL, 0, &out_recovery->removed_files);
    store_open_reserve(store);
    store_count(store);
    return VEX_OK;
}
