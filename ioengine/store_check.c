/*
 * Checking an instance that no daemon runs on: every byte that a start would believe is read and verified,
 * and nothing is changed. Each file is reported by itself, so that one look tells what is lost and what is
 * not; a checkpoint that cannot be read does not hide the state of the other one.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "ioengine/store_priv.h"
#include "ioengine/whole_file.h"

#define TEXT_BYTES 256u
#define PATH_BYTES 320u

struct check {
    struct vex_io *io;
    vex_store_report report;
    void *context;
    struct vex_error *error;
    enum vex_status worst; /* the first that is not OK */
    struct vex_manifest manifest;
    struct vex_buffer
        named;     /* of uint64_t: segment files of checkpoints that could be read, ascending
                              * and without repetition once sorted */
    bool all_read; /* no checkpoint failed, so what is not named is not needed */
};

static void tell(struct check *check, enum vex_status status, const char *path, const char *text)
{
    check->report(check->context, status, path, text);
    if (status != VEX_OK && check->worst == VEX_OK) {
        check->worst = status;
        (void)vex_error_set(check->error, status, "%s: %s", path, text);
    }
}

/* An error's message begins with the path, which the report has already. */
static void tell_error(struct check *check, const char *path, const struct vex_error *error)
{
    const char *text = error->message;
    size_t length = strlen(path);
    if (strncmp(text, path, length) == 0 && (text[length] == ':' || text[length] == ' ')) {
        text += length + (text[length] == ':' ? 2 : 1);
    }
    tell(check, error->status, path, text);
}

/* ---- the manifest ---------------------------------------------------------------------------- */

static void tell_slots(struct check *check, const uint8_t *pages, size_t bytes)
{
    for (size_t i = 0; i < VEX_MANIFEST_SLOTS; i++) {
        char text[TEXT_BYTES];
        const char *fault = (i + 1) * VEX_BLOCK_BYTES <= bytes
                                ? vex_manifest_slot_fault(pages + i * VEX_BLOCK_BYTES, i)
                                : "the file ends before it";
        if (fault) {
            (void)snprintf(text, sizeof(text), "slot %zu: %s", i, fault);
            tell(check, VEX_ERR_CORRUPT, VEX_MANIFEST_PATH, text);
        }
    }
}

/* True if there is one to go on with. */
static bool check_slots(struct check *check, const uint8_t *pages, size_t bytes)
{
    bool equal = false;
    struct vex_error error = {.status = VEX_OK};
    tell_slots(check, pages, bytes);
    enum vex_status status = vex_manifest_decode(&check->manifest, &equal, pages, bytes, &error);
    if (status != VEX_OK) {
        tell_error(check, VEX_MANIFEST_PATH, &error);
        return false;
    }
    char text[TEXT_BYTES];
    (void)snprintf(text, sizeof(text), "%s; %u checkpoint%s, log from file %llu",
                   equal ? "both slots say the same" : "one slot counts",
                   check->manifest.checkpoints_count,
                   check->manifest.checkpoints_count == 1 ? "" : "s",
                   (unsigned long long)check->manifest.log_file);
    tell(check, VEX_OK, VEX_MANIFEST_PATH, text);
    return true;
}

static bool check_manifest(struct check *check)
{
    struct vex_io *io = check->io;
    struct vex_file file;
    uint64_t bytes = 0;
    void *pages = NULL;
    int64_t got = io->ops->open_file(io, VEX_MANIFEST_PATH, VEX_FILE_READ, &file);
    if (got == 0) {
        got = posix_memalign(&pages, VEX_BLOCK_BYTES, VEX_MANIFEST_BYTES) == 0 ? 0 : -ENOMEM;
        got = got < 0 ? got : io->ops->size(io, &file, &bytes);
        got = got < 0 ? got : io->ops->read(io, &file, pages, VEX_MANIFEST_BYTES, 0);
        io->ops->close_file(io, &file);
    }
    bool usable = false;
    if (got < 0) {
        tell(check, got == -ENOENT ? VEX_ERR_NOT_FOUND : vex_status_from_errno((int)-got),
             VEX_MANIFEST_PATH, strerrordesc_np((int)-got));
    } else {
        usable = check_slots(check, pages, (size_t)got);
        if (bytes > VEX_MANIFEST_BYTES) {
            tell(check, VEX_ERR_CORRUPT, VEX_MANIFEST_PATH, "something stands behind the slots");
        }
    }
    free(pages);
    return usable;
}

/* ---- checkpoints and segments ---------------------------------------------------------------- */

static void check_checkpoint(struct check *check, size_t index)
{
    const struct vex_manifest_checkpoint *entry = &check->manifest.checkpoints[index];
    struct vex_error error = {.status = VEX_OK};
    struct vex_checkpoint_file file = {0};
    char path[VEX_CHECKPOINT_PATH_BYTES];
    char text[TEXT_BYTES];
    vex_checkpoint_path(path, entry->number);
    enum vex_status status =
        store_read_checkpoint(check->io, &check->manifest, index, &file, &error);
    if (status != VEX_OK) {
        check->all_read = false;
        tell_error(check, path, &error);
        return;
    }
    const struct vex_checkpoint *checkpoint = &file.checkpoint;
    (void)snprintf(text, sizeof(text), "state at LSN %llu, %zu segment files",
                   (unsigned long long)checkpoint->lsn, checkpoint->segments_count);
    if (checkpoint->segments_count > 0 &&
        !vex_buffer_append(&check->named, checkpoint->segments,
                           checkpoint->segments_count * sizeof(uint64_t))) {
        tell(check, VEX_ERR_NOMEM, path, "out of memory");
    } else {
        tell(check, VEX_OK, path, text);
    }
    vex_checkpoint_file_deinit(&file);
}

/* Both checkpoints may name the same file. */
static void sort_named(struct check *check)
{
    size_t count = check->named.bytes / sizeof(uint64_t);
    uint64_t *sorted = store_copy_numbers((uint64_t *)(void *)check->named.data, count);
    if (!sorted) {
        tell(check, VEX_ERR_NOMEM, VEX_SEGMENT_DIRECTORY, "out of memory");
        return;
    }
    size_t distinct = 0;
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || sorted[i] != sorted[i - 1]) {
            sorted[distinct++] = sorted[i];
        }
    }
    if (distinct > 0) {
        memcpy(check->named.data, sorted, distinct * sizeof(uint64_t));
    }
    check->named.bytes = distinct * sizeof(uint64_t);
    free(sorted);
}

static void check_segments(struct check *check)
{
    sort_named(check);
    for (size_t i = 0; i < check->named.bytes / sizeof(uint64_t); i++) {
        uint64_t number = vex_load_u64(check->named.data + i * sizeof(uint64_t));
        struct vex_error error = {.status = VEX_OK};
        char path[VEX_SEGMENT_PATH_BYTES];
        vex_segment_file_path(path, number);
        enum vex_status status =
            vex_segment_file_verify(check->io, check->manifest.uuid, number, &error);
        if (status == VEX_OK) {
            tell(check, VEX_OK, path, "sound");
        } else {
            tell_error(check, path, &error);
        }
    }
}

/* ---- what does not belong -------------------------------------------------------------------- */

static bool is_named(const struct check *check, const char *suffix, uint64_t number)
{
    if (strcmp(suffix, VEX_SEGMENT_SUFFIX) == 0) {
        return store_has_number((const uint64_t *)(const void *)check->named.data,
                                check->named.bytes / sizeof(uint64_t), number);
    }
    for (size_t i = 0; i < check->manifest.checkpoints_count; i++) {
        if (check->manifest.checkpoints[i].number == number) {
            return true;
        }
    }
    return false;
}

static void check_directory(struct check *check, const char *directory, const char *suffix)
{
    struct store_listing listing;
    struct vex_error error = {.status = VEX_OK};
    char path[PATH_BYTES];
    if (store_list(check->io, directory, suffix, &listing, &error) != VEX_OK) {
        tell_error(check, directory, &error);
        return;
    }
    for (size_t i = 0; i < store_listing_count(&listing); i++) {
        uint64_t number = store_listing_number(&listing, i);
        if (is_named(check, suffix, number)) {
            continue;
        }
        (void)snprintf(path, sizeof(path), "%s/%016llx%s", directory, (unsigned long long)number,
                       suffix);
        tell(check, VEX_OK, path,
             check->all_read ? "not needed: the next start removes it"
                             : "no checkpoint that can be read names it");
    }
    for (size_t at = 0; at < listing.names.bytes;) {
        const char *name = (const char *)listing.names.data + at;
        (void)snprintf(path, sizeof(path), "%s/%s", directory, name);
        tell(check, VEX_OK, path,
             vex_whole_file_is_temporary(name) ? "left by a crash: the next start removes it"
                                               : "not a file of ours");
        at += strlen(name) + 1;
    }
    store_listing_deinit(&listing);
}

enum vex_status vex_store_check(struct vex_io *io, vex_store_report report, void *context,
                                struct vex_error *error)
{
    struct check check = {.io = io,
                          .report = report,
                          .context = context,
                          .error = error,
                          .worst = VEX_OK,
                          .all_read = true};
    if (check_manifest(&check)) {
        for (size_t i = 0; i < check.manifest.checkpoints_count; i++) {
            check_checkpoint(&check, i);
        }
        check_segments(&check);
        check_directory(&check, VEX_CHECKPOINT_DIRECTORY, VEX_CHECKPOINT_SUFFIX);
        check_directory(&check, VEX_SEGMENT_DIRECTORY, VEX_SEGMENT_SUFFIX);
    }
    vex_buffer_deinit(&check.named);
    return check.worst;
}
