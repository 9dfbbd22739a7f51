#include "daemon/clone.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "ioengine/checkpoint.h"
#include "ioengine/store.h"

#define MANIFEST_NAME "MANIFEST"
#define COPY_BYTES (1u << 20)

/* The folders of an instance, and the files in them that count. */
static const struct folder {
    const char *name;
    const char *suffix;
    bool changes; /* its files are written in place */
} folders[] = {
    {VEX_CHECKPOINT_DIRECTORY, VEX_CHECKPOINT_SUFFIX, false},
    {VEX_SEGMENT_DIRECTORY, ".seg", false},
    {VEX_LOG_DIRECTORY, ".log", true},
};

#define FOLDERS (sizeof(folders) / sizeof(folders[0]))

static bool ends_with(const char *name, const char *suffix)
{
    size_t bytes = strlen(name);
    size_t suffix_bytes = strlen(suffix);
    return bytes > suffix_bytes && strcmp(name + bytes - suffix_bytes, suffix) == 0;
}

/* ---- one file -------------------------------------------------------------------------------- */

static int copy_by_hand(int source, int target)
{
    char *piece = malloc(COPY_BYTES);
    int failure = piece ? 0 : ENOMEM;
    while (!failure) {
        ssize_t got = read(source, piece, COPY_BYTES);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            failure = got < 0 ? errno : 0;
            break;
        }
        for (ssize_t done = 0; done < got && !failure;) {
            ssize_t some = write(target, piece + done, (size_t)(got - done));
            if (some >= 0) {
                done += some;
            } else if (errno != EINTR) {
                failure = errno;
            }
        }
    }
    free(piece);
    return failure;
}

/* The kernel may share blocks; where it cannot, or stops part-way, the rest goes through memory: both
 * advance the same file positions. */
static int copy_bytes(int source, int target)
{
    ssize_t got;
    do {
        got = copy_file_range(source, NULL, target, NULL, 1u << 30, 0);
    } while (got > 0 || (got < 0 && errno == EINTR));
    return got < 0 && (errno == ENOSPC || errno == EDQUOT || errno == EIO)
               ? errno
               : copy_by_hand(source, target);
}

/* 0 or an errno. */
static int copy_file(int from, int to, const char *name)
{
    int source = openat(from, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (source < 0) {
        return errno;
    }
    int target = openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
    int failure = target < 0 ? errno : copy_bytes(source, target);
    if (target >= 0) {
        failure = !failure && fsync(target) != 0 ? errno : failure;
        failure = close(target) != 0 && !failure ? errno : failure;
    }
    (void)close(source);
    return failure;
}

static int take_file(int from, int to, const char *name, bool link)
{
    if (link && linkat(from, name, to, name, 0) == 0) {
        return 0;
    }
    return copy_file(from, to, name);
}

/* ---- the directory --------------------------------------------------------------------------- */

static enum vex_status take_files(int from, int to, const struct folder *folder, bool may_link,
                                  struct vex_error *error)
{
    int listed = dup(from);
    DIR *entries = listed < 0 ? NULL : fdopendir(listed);
    int failure = entries ? 0 : errno;
    const struct dirent *entry = NULL;
    const char *name = "";
    while (!failure && (entry = readdir(entries))) {
        if (ends_with(entry->d_name, folder->suffix)) {
            name = entry->d_name;
            failure = take_file(from, to, name, may_link && !folder->changes);
        }
    }
    failure = !failure && fsync(to) != 0 ? errno : failure;
    enum vex_status status = VEX_OK;
    if (failure) {
        status = vex_error_os(error, vex_status_from_errno(failure), failure, "copy %s/%.64s",
                              folder->name, name);
    }
    if (entries) {
        (void)closedir(entries);
    } else if (listed >= 0) {
        (void)close(listed);
    }
    return status;
}

/* A backup has no log yet, so a folder may be missing. */
static enum vex_status take_folder(int from, int to, const struct folder *folder, bool may_link,
                                   struct vex_error *error)
{
    int source = openat(from, folder->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (source < 0) {
        return errno == ENOENT ? VEX_OK
                               : vex_error_os(error, vex_status_from_errno(errno), errno, "open %s",
                                              folder->name);
    }
    enum vex_status status = VEX_OK;
    int target = -1;
    if (mkdirat(to, folder->name, 0750) != 0 ||
        (target = openat(to, folder->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) {
        status = vex_error_os(error, vex_status_from_errno(errno), errno, "make %s", folder->name);
    } else {
        status = take_files(source, target, folder, may_link, error);
        (void)close(target);
    }
    (void)close(source);
    return status;
}

static enum vex_status fill(int from, int to, bool may_link, struct vex_error *error)
{
    struct stat info;
    if (fstatat(from, MANIFEST_NAME, &info, AT_SYMLINK_NOFOLLOW) != 0) {
        return vex_error_os(error,
                            errno == ENOENT ? VEX_ERR_NOT_FOUND : vex_status_from_errno(errno),
                            errno, "not an instance: " MANIFEST_NAME);
    }
    for (size_t i = 0; i < FOLDERS; i++) {
        enum vex_status status = take_folder(from, to, &folders[i], may_link, error);
        if (status != VEX_OK) {
            return status;
        }
    }
    int failure = copy_file(from, to, MANIFEST_NAME);
    failure = !failure && fsync(to) != 0 ? errno : failure;
    return failure
               ? vex_error_os(error, vex_status_from_errno(failure), failure, "copy " MANIFEST_NAME)
               : VEX_OK;
}

enum vex_status vex_clone_fill(const char *from, const char *to, bool may_link,
                               struct vex_error *error)
{
    int source = open(from, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (source < 0) {
        return vex_error_os(error,
                            errno == ENOENT ? VEX_ERR_NOT_FOUND : vex_status_from_errno(errno),
                            errno, "open %s", from);
    }
    int target = open(to, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    enum vex_status status =
        target < 0 ? vex_error_os(error, vex_status_from_errno(errno), errno, "open %s", to)
                   : fill(source, target, may_link, error);
    if (target >= 0) {
        (void)close(target);
    }
    (void)close(source);
    return status;
}

/* ---- clearing -------------------------------------------------------------------------------- */

static bool is_ours(const struct folder *folder, const char *name)
{
    return ends_with(name, folder->suffix) || ends_with(name, ".new") ||
           (folder->changes && (strcmp(name, "prepared") == 0 || strcmp(name, "spare") == 0));
}

static void clear_folder(int directory, const struct folder *cleared)
{
    int folder = openat(directory, cleared->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *entries = folder < 0 ? NULL : fdopendir(folder);
    const struct dirent *entry = NULL;
    while (entries && (entry = readdir(entries))) {
        if (is_ours(cleared, entry->d_name)) {
            (void)unlinkat(dirfd(entries), entry->d_name, 0);
        }
    }
    if (entries) {
        (void)closedir(entries);
    } else if (folder >= 0) {
        (void)close(folder);
    }
    (void)unlinkat(directory, cleared->name, AT_REMOVEDIR);
}

bool vex_clone_clear(const char *path)
{
    static const char *const files[] = {
        MANIFEST_NAME,
        MANIFEST_NAME ".new",
        VEX_STORE_RESERVE_PATH,
        "LOCK",
    };
    int directory = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (directory < 0) {
        return errno == ENOENT;
    }
    for (size_t i = 0; i < FOLDERS; i++) {
        clear_folder(directory, &folders[i]);
    }
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        (void)unlinkat(directory, files[i], 0);
    }
    (void)close(directory);
    return rmdir(path) == 0;
}

static bool make_scratch(const char *prefix, int bytes, const char *name, char *out_path)
{
    int length = snprintf(out_path, PATH_MAX, "%.*s%s.scratch-XXXXXX", bytes, prefix, name);
    return length > 0 && length < PATH_MAX && mkdtemp(out_path) != NULL;
}

enum vex_status vex_clone_make_scratch(const char *directory, char *out_path,
                                       struct vex_error *error)
{
    const char *name = strrchr(directory, '/');
    if (name && make_scratch(directory, (int)(name + 1 - directory), name + 1, out_path)) {
        return VEX_OK;
    }
    const char *folder = getenv("TMPDIR");
    folder = folder && folder[0] == '/' ? folder : "/tmp";
    if (make_scratch(folder, (int)strlen(folder), "/vexdb", out_path)) {
        return VEX_OK;
    }
    return vex_error_os(error, vex_status_from_errno(errno), errno,
                        "make a scratch directory beside %s, or in %s", directory, folder);
}
