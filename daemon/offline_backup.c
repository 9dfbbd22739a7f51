/*
 * Backups without a daemon: listing them, and making an instance of one.
 *
 * A restored directory gets its name last, when all of it is durable and every file has been checked: whoever
 * finds the name finds a sound instance.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "daemon/clone.h"
#include "daemon/lock.h"
#include "daemon/offline_priv.h"
#include "daemon/report.h"
#include "ioengine/checkpoint.h"
#include "ioengine/store.h"

#define BACKUP_FOLDER "backup"
#define PART_SUFFIX ".part"
#define COUNT(fields) (sizeof(fields) / sizeof((fields)[0]))

/* ---- list ------------------------------------------------------------------------------------ */

/* Bytes of the files in backup/<name>/<folder>. */
static uint64_t folder_bytes(const char *name, const char *folder)
{
    char path[PATH_MAX];
    int length = snprintf(path, sizeof(path), BACKUP_FOLDER "/%s/%s", name, folder);
    DIR *entries = length > 0 && length < PATH_MAX ? opendir(path) : NULL;
    uint64_t bytes = 0;
    const struct dirent *entry = NULL;
    struct stat info;
    while (entries && (entry = readdir(entries))) {
        if (fstatat(dirfd(entries), entry->d_name, &info, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISREG(info.st_mode)) {
            bytes += (uint64_t)info.st_size;
        }
    }
    if (entries) {
        (void)closedir(entries);
    }
    return bytes;
}

static void tell_backup(struct vex_report *report, struct vex_io *io, const char *name,
                        const struct stat *info)
{
    char path[PATH_MAX];
    struct vex_manifest manifest = {0};
    struct vex_error fault = {.status = VEX_OK};
    int length = snprintf(path, sizeof(path), BACKUP_FOLDER "/%s/" VEX_MANIFEST_PATH, name);
    if (length < 0 || length >= PATH_MAX) {
        return;
    }
    enum vex_status status = offline_read_manifest(io, path, &manifest, &fault);
    uint64_t lsn = status == VEX_OK && manifest.checkpoints_count ? manifest.checkpoints[0].lsn : 0;
    uint64_t bytes =
        folder_bytes(name, VEX_SEGMENT_DIRECTORY) + folder_bytes(name, VEX_CHECKPOINT_DIRECTORY);
    char when[32];
    struct tm utc;
    (void)gmtime_r(&info->st_mtim.tv_sec, &utc);
    (void)strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &utc);
    const struct vex_field fields[] = {
        VEX_TEXT("name", name),    VEX_BOOL("whole", status == VEX_OK),
        VEX_NUMBER("lsn", lsn),    VEX_NUMBER("bytes", bytes),
        VEX_TEXT("created", when), VEX_TEXT("fault", fault.message),
    };
    if (status == VEX_OK) {
        vex_report_item(report, fields, COUNT(fields), "%s  LSN %llu, %llu bytes  %s", when,
                        (unsigned long long)lsn, (unsigned long long)bytes, name);
    } else {
        vex_report_item(report, fields, COUNT(fields), "%s  NOT A WHOLE BACKUP  %s: %s", when, name,
                        fault.message);
    }
}

static bool is_backup(const char *name)
{
    return name[0] != '.' && !strstr(name, ".scratch-");
}

static int keep_backup(const struct dirent *entry)
{
    return is_backup(entry->d_name);
}

enum vex_status offline_list_backups(const struct vex_offline_options *options,
                                     struct vex_error *error)
{
    struct vex_io *io = NULL;
    enum vex_status status = offline_io_open(&io, error);
    if (status != VEX_OK) {
        return status;
    }
    struct dirent **entries = NULL;
    int count = scandir(BACKUP_FOLDER, &entries, keep_backup, alphasort);
    if (count < 0 && errno != ENOENT) {
        vex_io_close(io);
        return vex_error_os(error, vex_status_from_errno(errno), errno, "list " BACKUP_FOLDER);
    }
    struct vex_report report = {.to = stdout, .json = options->json};
    uint64_t told = 0;
    vex_report_begin(&report, "backups");
    for (int i = 0; i < count; i++) {
        char path[PATH_MAX];
        struct stat info;
        int length = snprintf(path, sizeof(path), BACKUP_FOLDER "/%s", entries[i]->d_name);
        if (length > 0 && length < PATH_MAX && stat(path, &info) == 0 && S_ISDIR(info.st_mode)) {
            tell_backup(&report, io, entries[i]->d_name, &info);
            told++;
        }
        free(entries[i]);
    }
    free(entries);
    vex_io_close(io);
    const struct vex_field fields[] = {VEX_NUMBER("count", told)};
    return vex_report_end(&report, fields, COUNT(fields), "%llu backups", (unsigned long long)told)
               ? VEX_OK
               : vex_error_set(error, VEX_ERR_IO, "standard output: %s", strerror(errno));
}

/* ---- restore --------------------------------------------------------------------------------- */

/* An instance that a daemon serves is no backup: its files come and go. */
static enum vex_status lock_source(const char *source, int *out_fd, struct vex_error *error)
{
    if (chdir(source) != 0) {
        return vex_error_os(error,
                            errno == ENOENT ? VEX_ERR_NOT_FOUND : vex_status_from_errno(errno),
                            errno, "the backup %s", source);
    }
    return vex_lock_take(VEX_LOCK_LOOK, out_fd, error);
}

/* An empty directory is as good as none: it is replaced. */
static enum vex_status refuse_existing(const char *directory, struct vex_error *error)
{
    DIR *entries = opendir(directory);
    if (!entries && errno == ENOENT) {
        return VEX_OK;
    }
    if (!entries && errno != ENOTDIR) {
        return vex_error_os(error, vex_status_from_errno(errno), errno, "look at it");
    }
    bool empty = entries != NULL;
    const struct dirent *entry = NULL;
    while (empty && (entry = readdir(entries))) {
        empty = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
    }
    if (entries) {
        (void)closedir(entries);
    }
    return empty ? VEX_OK : vex_error_set(error, VEX_ERR_EXISTS, "it exists and is not empty");
}

/* What an interrupted restore leaves has never been served. */
static bool is_instance(const char *part)
{
    char path[PATH_MAX + sizeof("/LOCK")];
    (void)snprintf(path, sizeof(path), "%s/LOCK", part);
    return access(path, F_OK) == 0;
}

static enum vex_status make_part(const char *part, struct vex_error *error)
{
    if (is_instance(part)) {
        return vex_error_set(
            error, VEX_ERR_EXISTS,
            "%s is needed for the work and is an instance: restore to another name", part);
    }
    if (!vex_clone_clear(part)) { /* left by an attempt that was interrupted */
        return vex_error_set(error, VEX_ERR_EXISTS, "%s is in the way: remove it", part);
    }
    return mkdir(part, 0750) == 0
               ? VEX_OK
               : vex_error_os(error, vex_status_from_errno(errno), errno, "make %s", part);
}

static void note_finding(void *context, enum vex_status status, const char *path, const char *text)
{
    (void)context;
    if (status != VEX_OK) {
        fprintf(stderr, "vexd: %s: %s\n", path, text);
    }
}

static enum vex_status check_part(const char *part, struct vex_error *error)
{
    struct vex_io *io = NULL;
    if (chdir(part) != 0) {
        return vex_error_os(error, vex_status_from_errno(errno), errno, "enter %s", part);
    }
    enum vex_status status = offline_io_open(&io, error);
    if (status == VEX_OK) {
        status = vex_store_check(io, note_finding, NULL, error);
        vex_io_close(io);
    }
    return status == VEX_OK
               ? VEX_OK
               : vex_error_wrap(error, status == VEX_ERR_NOT_FOUND ? VEX_ERR_CORRUPT : status,
                                "the backup is damaged, nothing was restored (to save what is "
                                "sound, copy it and start vexd --quarantine)");
}

static enum vex_status finish(const char *part, const char *directory, struct vex_error *error)
{
    char parent[PATH_MAX];
    size_t length = (size_t)(strrchr(directory, '/') - directory);
    memcpy(parent, directory, length);
    memcpy(parent + length, "/", 2);
    int failure = rename(part, directory) == 0 ? 0 : errno;
    int fd = failure ? -1 : open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    failure = !failure && (fd < 0 || fsync(fd) != 0) ? errno : failure;
    if (fd >= 0) {
        (void)close(fd);
    }
    return failure ? vex_error_os(error, vex_status_from_errno(failure), failure, "rename %s", part)
                   : VEX_OK;
}

static enum vex_status restore_to(const char *directory, const char *part,
                                  const struct vex_offline_options *options,
                                  struct vex_error *error)
{
    enum vex_status status = refuse_existing(directory, error);
    status = status == VEX_OK ? make_part(part, error) : status;
    if (status != VEX_OK) {
        return status;
    }
    status = vex_clone_fill(options->source, part, !options->copy, error);
    status = status == VEX_OK ? check_part(part, error) : status;
    status = status == VEX_OK ? finish(part, directory, error) : status;
    if (status != VEX_OK) {
        (void)vex_clone_clear(part);
    }
    return status;
}

static enum vex_status tell_restored(const char *directory,
                                     const struct vex_offline_options *options,
                                     struct vex_error *error)
{
    struct vex_report report = {.to = stdout, .json = options->json};
    const struct vex_field fields[] = {VEX_TEXT("restored", directory),
                                       VEX_TEXT("from", options->source)};
    vex_report_begin(&report, NULL);
    return vex_report_end(&report, fields, COUNT(fields), "restored %s to %s", options->source,
                          directory)
               ? VEX_OK
               : vex_error_set(error, VEX_ERR_IO, "standard output: %s", strerror(errno));
}

enum vex_status offline_restore(const char *directory, const struct vex_offline_options *options,
                                struct vex_error *error)
{
    char target[PATH_MAX];
    char part[PATH_MAX];
    size_t length = strlen(directory);
    while (length > 1 && directory[length - 1] == '/') {
        length--;
    }
    if (directory[0] != '/' || options->source[0] != '/' ||
        length + sizeof(PART_SUFFIX) > sizeof(part)) {
        return vex_error_set(error, VEX_ERR_INVALID,
                             "both paths must be absolute, and not too long");
    }
    (void)snprintf(target, sizeof(target), "%.*s", (int)length, directory);
    (void)snprintf(part, sizeof(part), "%.*s" PART_SUFFIX, (int)length, directory);
    int lock = -1;
    enum vex_status status = lock_source(options->source, &lock, error);
    status = status == VEX_OK ? restore_to(target, part, options, error) : status;
    if (lock >= 0) {
        (void)close(lock);
    }
    return status == VEX_OK ? tell_restored(target, options, error) : status;
}
