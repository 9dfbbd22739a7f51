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
#include "ioengine/log_priv.h"
#include "ioengine/log_scan.h"
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
    (void)snprintf(text, sizeof(text), "%s; %zu checkpoint%s, log from file %llu",
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

/* ---- the log --------------------------------------------------------------------------------- */

/* The file that the walk is in. */
struct log_check {
    struct check *check;
    uint64_t file_number; /* 0 = none yet */
    uint64_t first_lsn;
    uint64_t records;
    uint64_t batches;
};

static void tell_log_file(struct log_check *log_check)
{
    char path[LOG_PATH_MAX];
    char text[TEXT_BYTES];
    if (log_check->file_number == 0) {
        return;
    }
    log_file_path(path, log_check->file_number);
    (void)snprintf(text, sizeof(text), "%llu records from LSN %llu on, in %llu batches",
                   (unsigned long long)log_check->records, (unsigned long long)log_check->first_lsn,
                   (unsigned long long)log_check->batches);
    tell(log_check->check, VEX_OK, path, text);
}

static enum vex_status enter_log_file(void *context, const struct vex_log_file *file,
                                      struct vex_error *error)
{
    (void)error;
    struct log_check *log_check = context;
    tell_log_file(log_check);
    log_check->file_number = file->number;
    log_check->first_lsn = file->first_lsn;
    log_check->records = log_check->batches = 0;
    return VEX_OK;
}

static enum vex_status count_batch(void *context, const struct vex_log_batch *batch,
                                   struct vex_error *error)
{
    (void)error;
    struct log_check *log_check = context;
    log_check->records += batch->records_count;
    log_check->batches++;
    return VEX_OK;
}

static void check_log(struct check *check)
{
    const struct vex_manifest *manifest = &check->manifest;
    struct log_check log_check = {.check = check};
    const struct vex_log_start start = {
        .file_number = manifest->log_file,
        .lsn = manifest->checkpoints_count > 0 ? manifest->checkpoints[0].lsn : manifest->log_lsn,
    };
    const struct vex_log_visitor visitor = {
        .context = &log_check, .file = enter_log_file, .batch = count_batch};
    struct vex_log_scan_result result = {0};
    struct vex_error error = {.status = VEX_OK};
    enum vex_status status =
        vex_log_scan(check->io, manifest->uuid, &start, &visitor, &result, &error);
    char path[LOG_PATH_MAX] = VEX_LOG_DIRECTORY;
    char text[TEXT_BYTES];
    if (result.file_number > 0) {
        log_file_path(path, result.file_number);
    }
    if (status != VEX_OK) {
        tell_error(check, path, &error);
        return;
    }
    tell_log_file(&log_check);
    if (result.end == VEX_LOG_END_TORN) {
        (void)snprintf(text, sizeof(text),
                       "offset %llu: a batch that was being written, never acknowledged: the next "
                       "start drops it",
                       (unsigned long long)result.offset);
        tell(check, VEX_OK, path, text);
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

static void check_log_name(struct check *check, const char *name)
{
    char path[PATH_BYTES];
    char numbered[LOG_PATH_MAX];
    uint64_t number = strtoull(name, NULL, 10);
    (void)snprintf(path, sizeof(path), VEX_LOG_DIRECTORY "/%s", name);
    log_file_path(numbered, number);
    if (strcmp(path, PREPARED_PATH) == 0 || strcmp(path, SPARE_PATH) == 0) {
        tell(check, VEX_OK, path, "made ahead: the next start removes it");
    } else if (strcmp(path, numbered) != 0) {
        tell(check, VEX_OK, path, "not a file of ours");
    } else if (number < check->manifest.log_file) {
        tell(check, VEX_OK, path, "not needed: the next start removes it");
    }
}

static void check_log_directory(struct check *check)
{
    struct store_listing listing;
    struct vex_error error = {.status = VEX_OK};
    /* No file of the log is named like those of the store, so all are among the other names. */
    if (store_list(check->io, VEX_LOG_DIRECTORY, VEX_SEGMENT_SUFFIX, &listing, &error) != VEX_OK) {
        tell_error(check, VEX_LOG_DIRECTORY, &error);
        return;
    }
    for (size_t at = 0; at < listing.names.bytes;) {
        const char *name = (const char *)listing.names.data + at;
        check_log_name(check, name);
        at += strlen(name) + 1;
    }
    store_listing_deinit(&listing);
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
        check_log(&check);
        check_directory(&check, VEX_CHECKPOINT_DIRECTORY, VEX_CHECKPOINT_SUFFIX);
        check_directory(&check, VEX_SEGMENT_DIRECTORY, VEX_SEGMENT_SUFFIX);
        check_log_directory(&check);
    }
    vex_buffer_deinit(&check.named);
    return check.worst;
}

/* ---- where the log begins -------------------------------------------------------------------- */

/* The file, and that what it names is there; the images are not read. */
static enum vex_status try_checkpoint(struct vex_io *io, const struct vex_manifest *manifest,
                                      size_t index, struct vex_error *error)
{
    struct vex_checkpoint_file file = {0};
    enum vex_status status = store_read_checkpoint(io, manifest, index, &file, error);
    for (size_t i = 0; status == VEX_OK && i < file.checkpoint.segments_count; i++) {
        struct vex_segment_file ignored;
        status = vex_segment_file_read_header(io, manifest->uuid, file.checkpoint.segments[i],
                                              &ignored, error);
    }
    vex_checkpoint_file_deinit(&file);
    return status;
}

enum vex_status vex_store_read_log_start(struct vex_io *io, uint8_t out_uuid[VEX_STORE_UUID_BYTES],
                                         struct vex_log_start *out_start, struct vex_error *error)
{
    struct vex_manifest manifest;
    enum vex_status status = vex_manifest_read(io, &manifest, NULL, error);
    if (status != VEX_OK) {
        return status;
    }
    struct vex_log_start start = {.file_number = manifest.log_file, .kept_file = manifest.log_file};
    bool found = manifest.log_lsn == 0 && manifest.checkpoints_count <= 1;
    for (size_t i = 0; i < manifest.checkpoints_count; i++) {
        struct vex_error fault;
        status = try_checkpoint(io, &manifest, i, &fault);
        if (status == VEX_OK) {
            start.lsn = manifest.checkpoints[i].lsn;
            if (manifest.log_file > 0) {
                start.file_number = manifest.checkpoints[i].log_file;
            }
            found = true;
            break;
        }
        if (error && i == 0) {
            *error = fault;
        }
    }
    if (!found) {
        return vex_error_wrap(error, VEX_ERR_CORRUPT, "no checkpoint can be used; the newest");
    }
    memcpy(out_uuid, manifest.uuid, sizeof(manifest.uuid));
    *out_start = start;
    return VEX_OK;
}
