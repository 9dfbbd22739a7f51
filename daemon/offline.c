#include "daemon/offline.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "daemon/lock.h"
#include "daemon/offline_priv.h"
#include "daemon/report.h"
#include "ioengine/checkpoint.h"
#include "ioengine/store.h"

/* ---- shared by the tasks --------------------------------------------------------------------- */

enum vex_status offline_io_open(struct vex_io **out_io, struct vex_error *error)
{
    char note[256];
    return vex_io_open("sync", AT_FDCWD, NULL, 0, out_io, note, error);
}

enum vex_status offline_read_manifest(struct vex_io *io, const char *path, struct vex_manifest *out,
                                      struct vex_error *error)
{
    struct vex_file file;
    int64_t got = io->ops->open_file(io, path, VEX_FILE_READ, &file);
    if (got < 0) {
        return vex_error_os(error,
                            got == -ENOENT ? VEX_ERR_NOT_FOUND : vex_status_from_errno((int)-got),
                            (int)-got, "not an instance: %s", path);
    }
    void *pages = NULL;
    got = posix_memalign(&pages, VEX_BLOCK_BYTES, VEX_MANIFEST_BYTES) == 0
              ? io->ops->read(io, &file, pages, VEX_MANIFEST_BYTES, 0)
              : -ENOMEM;
    io->ops->close_file(io, &file);
    enum vex_status status =
        got < 0 ? vex_error_os(error, vex_status_from_errno((int)-got), (int)-got, "read %s", path)
                : vex_manifest_decode(out, NULL, pages, (size_t)got, error);
    free(pages);
    return status;
}

/* ---- check ----------------------------------------------------------------------------------- */

struct check_report {
    struct vex_report report;
    uint64_t files;
    uint64_t damaged;
};

static void tell_finding(void *context, enum vex_status status, const char *path, const char *text)
{
    struct check_report *check = context;
    check->files++;
    check->damaged += status != VEX_OK;
    const struct vex_field fields[] = {
        VEX_TEXT("path", path),
        VEX_BOOL("sound", status == VEX_OK),
        VEX_TEXT("status", vex_base_status_name(status)),
        VEX_TEXT("text", text),
    };
    vex_report_item(&check->report, fields, sizeof(fields) / sizeof(fields[0]), "%-8s %s: %s",
                    status == VEX_OK ? "ok" : "DAMAGED", path, text);
}

static enum vex_status end_check(struct check_report *check, enum vex_status status,
                                 struct vex_error *error)
{
    const struct vex_field fields[] = {
        VEX_BOOL("sound", check->damaged == 0 && status == VEX_OK),
        VEX_NUMBER("findings", check->files),
        VEX_NUMBER("damaged", check->damaged),
    };
    bool printed =
        vex_report_end(&check->report, fields, sizeof(fields) / sizeof(fields[0]),
                       "%s: %llu findings, %llu of them damage",
                       check->damaged == 0 && status == VEX_OK ? "sound" : "NOT SOUND",
                       (unsigned long long)check->files, (unsigned long long)check->damaged);
    return printed || status != VEX_OK
               ? status
               : vex_error_set(error, VEX_ERR_IO, "standard output: %s", strerror(errno));
}

enum vex_status offline_check(const struct vex_offline_options *options, struct vex_error *error)
{
    struct check_report check = {.report = {.to = stdout, .json = options->json}};
    struct vex_io *io = NULL;
    enum vex_status status = offline_io_open(&io, error);
    if (status != VEX_OK) {
        return status;
    }
    vex_report_begin(&check.report, "files");
    status = vex_store_check(io, tell_finding, &check, error);
    vex_io_close(io);
    /* Something that belongs to the instance and is not there is damage. */
    if (status == VEX_ERR_NOT_FOUND) {
        status = VEX_ERR_CORRUPT;
    }
    return end_check(&check, status, error);
}

/* ---- doing it -------------------------------------------------------------------------------- */

static int exit_of(enum vex_status status)
{
    static const struct {
        enum vex_status status;
        enum vex_offline_exit code;
    } codes[] = {
        {VEX_OK, VEX_OFFLINE_DONE},
        {VEX_ERR_BUSY, VEX_OFFLINE_TAKEN},
        {VEX_ERR_CORRUPT, VEX_OFFLINE_DAMAGED},
        {VEX_ERR_NOT_FOUND, VEX_OFFLINE_NOT_FOUND},
        {VEX_ERR_NO_SPACE, VEX_OFFLINE_NO_SPACE},
        {VEX_ERR_EXISTS, VEX_OFFLINE_EXISTS},
        {VEX_ERR_PERMISSION, VEX_OFFLINE_DENIED},
    };
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        if (codes[i].status == status) {
            return (int)codes[i].code;
        }
    }
    return VEX_OFFLINE_FAILED;
}

/* A directory without any of these never held an instance; one with a part of them is a damaged one. */
static bool holds_instance(void)
{
    static const char *const names[] = {
        VEX_MANIFEST_PATH,
        VEX_LOG_DIRECTORY,
        VEX_CHECKPOINT_DIRECTORY,
        VEX_SEGMENT_DIRECTORY,
    };
    struct stat info;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (stat(names[i], &info) == 0) {
            return true;
        }
    }
    return false;
}

static enum vex_status enter(const char *directory, struct vex_error *error)
{
    if (chdir(directory) != 0) {
        return vex_error_os(error,
                            errno == ENOENT ? VEX_ERR_NOT_FOUND : vex_status_from_errno(errno),
                            errno, "enter the directory");
    }
    return holds_instance()
               ? VEX_OK
               : vex_error_set(error, VEX_ERR_NOT_FOUND, "the directory holds no instance");
}

static enum vex_status take_lock(const struct vex_offline_options *options, int *out_fd,
                                 struct vex_error *error)
{
    bool changes = options->task == VEX_OFFLINE_LOG_REPAIR && options->accept_loss;
    enum vex_status status = vex_lock_take(changes ? VEX_LOCK_SERVE : VEX_LOCK_LOOK, out_fd, error);
    return status == VEX_ERR_BUSY
               ? vex_error_wrap(error, status,
                                "this needs the instance for itself, 'vexctl stop' first")
               : status;
}

static enum vex_status run_locked(const struct vex_offline_options *options,
                                  struct vex_error *error)
{
    switch (options->task) {
    case VEX_OFFLINE_CHECK:
        return offline_check(options, error);
    case VEX_OFFLINE_VERIFY:
        return offline_in_scratch(offline_verify, options, error);
    case VEX_OFFLINE_LOG_DUMP:
        return offline_log_dump(options, error);
    case VEX_OFFLINE_LOG_REPAIR:
        /* What would be lost is found by doing it, to a copy. */
        return options->accept_loss ? offline_log_repair(options, error)
                                    : offline_in_scratch(offline_log_repair, options, error);
    case VEX_OFFLINE_NONE:
    case VEX_OFFLINE_RESTORE:
    case VEX_OFFLINE_LIST_BACKUPS:
        break;
    }
    return vex_error_set(error, VEX_ERR_INVALID, "no such task");
}

static enum vex_status run(const char *directory, const struct vex_offline_options *options,
                           struct vex_error *error)
{
    if (options->task == VEX_OFFLINE_RESTORE) {
        return offline_restore(directory, options, error);
    }
    enum vex_status status = enter(directory, error);
    if (status != VEX_OK || options->task == VEX_OFFLINE_LIST_BACKUPS) {
        return status == VEX_OK ? offline_list_backups(options, error) : status;
    }
    int lock = -1;
    status = take_lock(options, &lock, error);
    status = status == VEX_OK ? run_locked(options, error) : status;
    if (lock >= 0) {
        (void)close(lock);
    }
    return status;
}

int vex_offline_run(const char *directory, const struct vex_offline_options *options)
{
    struct vex_error error = {.status = VEX_OK};
    enum vex_status status = run(directory, options, &error);
    if (status != VEX_OK) {
        fprintf(stderr, "vexd: %s: %s\n", directory,
                error.message[0] ? error.message : vex_base_status_text(status));
    }
    return exit_of(status);
}
