/*
 * Opening, mapping and reading what the user names.
 *
 * The handler of SIGBUS looks whether the address is within one of the mapped files: only then is
 * it the file that shrank. Any other SIGBUS is given back to the default action, so that it is not
 * mistaken. Files are mapped and unmapped by one thread, before and after their use.
 */
#include "libclient/vexctl/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libclient/vexctl/exit.h"
#include "libclient/vexctl/fault.h"

static struct vex_file mapped[VEX_FILES_MAPPED_MAX];
static volatile sig_atomic_t written;

static void on_bus_error(int signal_number, siginfo_t *info, void *context)
{
    (void)context;
    uintptr_t address = (uintptr_t)info->si_addr;
    for (size_t i = 0; i < VEX_FILES_MAPPED_MAX; i++) {
        uintptr_t start = (uintptr_t)mapped[i].data;
        if (mapped[i].data && address >= start && address - start < mapped[i].bytes) {
            static const char text[] =
                "vexctl: the input file became shorter, or could not be read, while it was in use";
            static const char nothing[] = "; nothing was written\n";
            static const char part[] = "; the batches before are written, see 'vexctl count'\n";
            (void)!write(STDERR_FILENO, text, sizeof(text) - 1);
            if (written) {
                (void)!write(STDERR_FILENO, part, sizeof(part) - 1);
                _exit(VEX_EXIT_PARTIAL);
            }
            (void)!write(STDERR_FILENO, nothing, sizeof(nothing) - 1);
            _exit(VEX_EXIT_FAILED);
        }
    }
    (void)signal(signal_number, SIG_DFL);
}

static void guard(const struct vex_file *file)
{
    for (size_t i = 0; i < VEX_FILES_MAPPED_MAX; i++) {
        if (!mapped[i].data) {
            mapped[i] = *file;
            break;
        }
    }
    struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
    (void)sigaction(SIGBUS, &action, NULL);
}

static enum vex_status fail_os(struct vex_error *error, const char *path, int os_errno)
{
    enum vex_status status = VEX_ERR_IO;
    if (os_errno == EACCES || os_errno == EPERM) {
        status = VEX_ERR_PERMISSION;
    } else if (os_errno == ENOENT || os_errno == ENOTDIR || os_errno == EISDIR ||
               os_errno == ENAMETOOLONG) {
        status = VEX_ERR_INVALID;
    } else if (os_errno == ENOMEM) {
        status = VEX_ERR_NOMEM;
    }
    (void)vex_fault(error, status, "%s", strerror(os_errno));
    return vex_fault_in(error, path);
}

/* Maps what is open as `fd`. */
static enum vex_status map_open(int fd, const char *path, struct vex_file *out,
                                struct vex_error *error)
{
    struct stat facts;
    if (fstat(fd, &facts) != 0) {
        return fail_os(error, path, errno);
    }
    if (!S_ISREG(facts.st_mode)) {
        (void)vex_fault(error, VEX_ERR_INVALID, "not a regular file");
        return vex_fault_in(error, path);
    }
    struct vex_file file = {0};
    if (facts.st_size > 0) {
        file.bytes = (size_t)facts.st_size;
        file.data = mmap(NULL, file.bytes, PROT_READ, MAP_PRIVATE, fd, 0);
        if (file.data == MAP_FAILED) {
            return fail_os(error, path, errno);
        }
        (void)madvise(file.data, file.bytes, MADV_SEQUENTIAL); /* advice only */
        guard(&file);
    }
    *out = file;
    return VEX_OK;
}

enum vex_status vex_file_map(const char *path, struct vex_file *out, struct vex_error *error)
{
    /* Not to hang on a FIFO: fstat() then refuses it. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return fail_os(error, path, errno);
    }
    enum vex_status status = map_open(fd, path, out, error);
    (void)close(fd);
    return status;
}

void vex_file_mark_written(void)
{
    written = 1;
}

void vex_file_unmap(struct vex_file *file)
{
    if (!file->data) {
        return;
    }
    for (size_t i = 0; i < VEX_FILES_MAPPED_MAX; i++) {
        if (mapped[i].data == file->data) {
            mapped[i] = (struct vex_file){0};
        }
    }
    (void)munmap(file->data, file->bytes);
    *file = (struct vex_file){0};
}

/* Reads to the end or to bytes_max + 1 bytes; -1 and errno on failure. */
static ssize_t read_all(int fd, char *to, size_t bytes_max)
{
    size_t used = 0;
    while (used <= bytes_max) {
        ssize_t got = read(fd, to + used, bytes_max + 1 - used);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return -1;
        }
        if (got == 0) {
            break;
        }
        used += (size_t)got;
    }
    return (ssize_t)used;
}

enum vex_status vex_file_read(const char *path, size_t bytes_max, void **out_data,
                              size_t *out_bytes, struct vex_error *error)
{
    bool is_input = strcmp(path, "-") == 0;
    int fd = is_input ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return fail_os(error, path, errno);
    }
    char *text = malloc(bytes_max + 2);
    ssize_t bytes = text ? read_all(fd, text, bytes_max) : -1;
    int failure = text ? errno : ENOMEM;
    if (!is_input) {
        (void)close(fd);
    }
    const char *name = is_input ? "standard input" : path;
    if (bytes < 0) {
        free(text);
        return fail_os(error, name, failure);
    }
    if ((size_t)bytes > bytes_max) {
        free(text);
        (void)vex_fault(error, VEX_ERR_LIMIT, "more than %zu bytes", bytes_max);
        return vex_fault_in(error, name);
    }
    text[bytes] = 0;
    *out_data = text;
    *out_bytes = (size_t)bytes;
    return VEX_OK;
}
