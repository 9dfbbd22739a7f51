#include "libclient/spawn.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"

#define DIAGNOSTICS_NAME "vexd.log"
#define LINE_MAX_BYTES 512u

static bool is_program(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode) && access(path, X_OK) == 0;
}

/* vexd in the directory of `file`, or in the bin directory next to or above it: lib/libvex.so and
 * lib/x86_64-linux-gnu/libvex.so both belong to bin/vexd. */
static bool program_near(const char *file, char *out_path)
{
    const char *slash = strrchr(file, '/');
    if (!slash) {
        return false;
    }
    static const char *const places[] = {"vexd", "../bin/vexd", "../../bin/vexd"};
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        int length = snprintf(out_path, PATH_MAX, "%.*s/%s", (int)(slash - file), file, places[i]);
        if (length > 0 && length < PATH_MAX && is_program(out_path)) {
            return true;
        }
    }
    return false;
}

static bool program_in_path(char *out_path)
{
    const char *path = getenv("PATH");
    while (path && *path) {
        size_t length = strcspn(path, ":");
        int written = snprintf(out_path, PATH_MAX, "%.*s/vexd", (int)length, path);
        if (written > 0 && written < PATH_MAX && is_program(out_path)) {
            return true;
        }
        path += length + (path[length] == ':');
    }
    return false;
}

enum vex_status vex_spawn_find(const char *wanted, char *out_path, struct vex_error *error)
{
    const char *given = wanted ? wanted : getenv("VEXD_PATH");
    if (given && *given) {
        if (strlen(given) < PATH_MAX && is_program(given)) {
            memcpy(out_path, given, strlen(given) + 1);
            return VEX_OK;
        }
        return vex_error_set(error, VEX_ERR_UNAVAILABLE, "%s is not a program that can be run",
                             given);
    }
    Dl_info info;
    char self[PATH_MAX];
    if (dladdr((const void *)&vex_spawn_daemon, &info) != 0 && info.dli_fname &&
        realpath(info.dli_fname, self) && program_near(self, out_path)) {
        return VEX_OK;
    }
    if (program_in_path(out_path)) {
        return VEX_OK;
    }
    return vex_error_set(error, VEX_ERR_UNAVAILABLE,
                         "the program vexd is neither beside libvex nor in $PATH; set VEXD_PATH");
}

/* In the grandchild: only async-signal-safe calls from here to exec. */
static _Noreturn void become_daemon(char *const *words, int diagnostics, int ready_fd)
{
    /* Out of the way first: a host without standard streams hands us descriptors 0 to 3. */
    ready_fd = fcntl(ready_fd, F_DUPFD_CLOEXEC, 10);
    if (diagnostics >= 0) {
        diagnostics = fcntl(diagnostics, F_DUPFD_CLOEXEC, 10);
    }
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    null = null >= 0 ? fcntl(null, F_DUPFD_CLOEXEC, 10) : null;
    if (null >= 0) {
        (void)dup2(null, STDIN_FILENO);
        (void)dup2(diagnostics >= 0 ? diagnostics : null, STDOUT_FILENO);
        (void)dup2(diagnostics >= 0 ? diagnostics : null, STDERR_FILENO);
    }
    (void)dup2(ready_fd, 3);
    (void)syscall(SYS_close_range, 4u, ~0u, 0u);
    (void)execv(words[0], words);
    static const char failed[] = "vexd could not be executed\n";
    (void)!write(3, failed, sizeof(failed) - 1);
    _exit(127);
}

/* Forks twice, so that the daemon is nobody's child and leaves no zombie. 0 or an errno. */
static int launch(char *const *words, int diagnostics, int ready_fd)
{
    pid_t child = fork();
    if (child < 0) {
        return errno;
    }
    if (child == 0) {
        (void)setsid();
        if (fork() == 0) {
            become_daemon(words, diagnostics, ready_fd);
        }
        _exit(0);
    }
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR) {
    }
    return 0;
}

/* Reads the daemon's line. */
static enum vex_status await_line(int fd, uint64_t deadline_ns, char *out_line,
                                  struct vex_error *error)
{
    size_t used = 0;
    for (;;) {
        uint64_t now_ns = vex_clock_ns();
        int wait_ms = now_ns < deadline_ns ? (int)((deadline_ns - now_ns) / 1000000u) + 1 : 0;
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        int polled = poll(&ready, 1, wait_ms);
        if (polled < 0 && errno == EINTR) {
            continue;
        }
        if (polled == 0) {
            return vex_error_set(error, VEX_ERR_TIMEOUT,
                                 "vexd was started but is not ready yet; a long log takes a while, "
                                 "see " DIAGNOSTICS_NAME " in the directory");
        }
        ssize_t got = read(fd, out_line + used, LINE_MAX_BYTES - 1 - used);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        used += got > 0 ? (size_t)got : 0;
        out_line[used] = 0;
        char *end = strchr(out_line, '\n');
        if (end) {
            *end = 0;
            return VEX_OK;
        }
        if (got <= 0 || used == LINE_MAX_BYTES - 1) {
            return vex_error_set(error, VEX_ERR_UNAVAILABLE,
                                 "vexd ended while starting, see " DIAGNOSTICS_NAME
                                 " in the directory");
        }
    }
}

static int open_diagnostics(const char *directory)
{
    char path[PATH_MAX];
    int length = snprintf(path, sizeof(path), "%s/" DIAGNOSTICS_NAME, directory);
    if (length < 0 || length >= (int)sizeof(path)) {
        return -1;
    }
    return open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
}

enum vex_status vex_spawn_daemon(const char *directory, const char *program,
                                 uint32_t idle_timeout_ms, uint64_t deadline_ns,
                                 struct vex_error *error)
{
    char path[PATH_MAX];
    enum vex_status status = vex_spawn_find(program, path, error);
    if (status != VEX_OK) {
        return vex_error_wrap(error, status, "no daemon serves the directory");
    }
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0) {
        return vex_error_os(error, VEX_ERR_UNAVAILABLE, errno, "start vexd: pipe");
    }
    char idle[32];
    (void)snprintf(idle, sizeof(idle), "%u", idle_timeout_ms);
    /* execv takes mutable words for historical reasons and does not change them. */
    char dir_word[PATH_MAX];
    (void)snprintf(dir_word, sizeof(dir_word), "--dir=%s", directory);
    char idle_word[64];
    (void)snprintf(idle_word, sizeof(idle_word), "--idle-timeout-ms=%s", idle);
    char embedded_word[] = "--embedded";
    char ready_word[] = "--ready-fd=3";
    char *words[] = {path, dir_word, embedded_word, idle_word, ready_word, NULL};
    int diagnostics = open_diagnostics(directory);
    int failure = launch(words, diagnostics, fds[1]);
    (void)close(fds[1]);
    if (diagnostics >= 0) {
        (void)close(diagnostics);
    }
    char line[LINE_MAX_BYTES] = {0};
    if (failure) {
        status = vex_error_os(error, VEX_ERR_UNAVAILABLE, failure, "start vexd: fork");
    } else {
        status = await_line(fds[0], deadline_ns, line, error);
    }
    (void)close(fds[0]);
    if (status != VEX_OK || strcmp(line, "ready") == 0) {
        return status;
    }
    unsigned number = 0;
    int text_at = 0;
    if (sscanf(line, "error %u %n", &number, &text_at) != 1 || number == VEX_OK || text_at == 0) {
        return vex_error_set(error, VEX_ERR_UNAVAILABLE, "vexd refuses to start: %s", line);
    }
    return vex_error_set(error, (enum vex_status)number, "vexd refuses to start: %s",
                         line + text_at);
}
