/*
 * Instances for tests: directories, daemons and their end. The idea is in fixture.h.
 */
#include "tests/lib/fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shm/region.h"

#define START_TIMEOUT_MS 60000u
#define STOP_TIMEOUT_MS 30000u
#define WORDS_MAX 16
#define LINE_BYTES 512u
#define MANIFEST_BLOCK_BYTES 4096
#define UUID_OFFSET 16 /* in each block of the manifest */

/* ---- small things ---------------------------------------------------------------------------- */

_Noreturn void vex_fixture_die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)fflush(stdout);
    fprintf(stderr, "test environment: ");
    (void)vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    _exit(1);
}

uint64_t vex_fixture_now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

void vex_fixture_pause_ms(uint32_t ms)
{
    struct timespec left = {ms / 1000, (long)(ms % 1000) * 1000000};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
}

bool vex_fixture_eventually(bool (*condition)(void *context), void *context, uint32_t timeout_ms)
{
    uint64_t deadline_ms = vex_fixture_now_ms() + timeout_ms;
    while (!condition(context)) {
        if (vex_fixture_now_ms() >= deadline_ms) {
            return false;
        }
        vex_fixture_pause_ms(2);
    }
    return true;
}

const char *vex_fixture_vexd(void)
{
    const char *path = getenv("VEXD_PATH");
    if (!path || access(path, X_OK) != 0) {
        vex_fixture_die("VEXD_PATH must name the vexd to test, it is %s", path ? path : "not set");
    }
    return path;
}

static int exit_code_of(int status)
{
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

pid_t vex_fixture_fork(void)
{
    (void)fflush(NULL);
    pid_t parent = getpid();
    pid_t child = fork();
    if (child < 0) {
        vex_fixture_die("fork: %s", strerror(errno));
    }
    if (child == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) {
            _exit(1);
        }
    }
    return child;
}

/* False if the child has not ended within the time. */
static bool reap(pid_t child, uint32_t timeout_ms, int *out_code)
{
    uint64_t deadline_ms = vex_fixture_now_ms() + timeout_ms;
    for (;;) {
        int status = 0;
        pid_t ended = waitpid(child, &status, WNOHANG);
        if (ended == child) {
            *out_code = exit_code_of(status);
            return true;
        }
        if (ended < 0 && errno != EINTR) {
            vex_fixture_die("wait for process %d: %s", child, strerror(errno));
        }
        if (vex_fixture_now_ms() >= deadline_ms) {
            return false;
        }
        vex_fixture_pause_ms(1);
    }
}

int vex_fixture_await(pid_t child, uint32_t timeout_ms)
{
    int code = 0;
    if (!reap(child, timeout_ms, &code)) {
        fprintf(stderr, "process %d did not end within %u ms: killed\n", child, timeout_ms);
        (void)kill(child, SIGKILL);
        (void)reap(child, STOP_TIMEOUT_MS, &code);
        return -SIGKILL;
    }
    return code;
}

/* ---- the guardian ---------------------------------------------------------------------------- */

/* A daemon works in its instance's directory. The number alone may be another process's by now. */
static bool serves(long pid, const char *lock_path)
{
    char link[64];
    char here[VEX_FIXTURE_PATH_MAX] = {0};
    (void)snprintf(link, sizeof(link), "/proc/%ld/cwd", pid);
    ssize_t length = readlink(link, here, sizeof(here) - 1);
    return length > 0 && strncmp(here, lock_path, (size_t)length) == 0 &&
           strcmp(lock_path + length, "/LOCK") == 0;
}

static void kill_holder(const char *lock_path)
{
    FILE *file = fopen(lock_path, "r");
    long pid = 0;
    bool known = file && fscanf(file, "%ld", &pid) == 1 && pid > 1;
    if (file) {
        (void)fclose(file);
    }
    for (int i = 0; known && i < 5000 && serves(pid, lock_path); i++) {
        (void)kill((pid_t)pid, SIGKILL);
        vex_fixture_pause_ms(1);
    }
}

static void remove_shared_memory(const char *manifest_path)
{
    unsigned char manifest[2 * MANIFEST_BLOCK_BYTES] = {0};
    FILE *file = fopen(manifest_path, "r");
    if (!file) {
        return;
    }
    size_t got = fread(manifest, 1, sizeof(manifest), file);
    (void)fclose(file);
    char directory[VEX_FIXTURE_PATH_MAX];
    (void)snprintf(directory, sizeof(directory), "%.*s",
                   (int)(strlen(manifest_path) - strlen("/MANIFEST")), manifest_path);
    for (size_t block = 0; block + MANIFEST_BLOCK_BYTES <= got; block += MANIFEST_BLOCK_BYTES) {
        uint8_t key[VEX_UUID_BYTES];
        if (vex_region_key(key, manifest + block + UUID_OFFSET, directory) == 0) {
            vex_region_unlink_all(key);
        }
    }
}

static int clean_instance(const char *path, const struct stat *info, int type, struct FTW *walk)
{
    (void)info;
    (void)type;
    if (strcmp(path + walk->base, "LOCK") == 0) {
        kill_holder(path);
    } else if (strcmp(path + walk->base, "MANIFEST") == 0) {
        remove_shared_memory(path);
    }
    return 0;
}

static int remove_item(const char *path, const struct stat *info, int type, struct FTW *walk)
{
    (void)info;
    (void)type;
    (void)walk;
    if (remove(path) != 0 && errno == EBUSY) {
        (void)umount2(path, MNT_DETACH); /* a test mounted a file system there */
    }
    return 0;
}

static _Noreturn void guard(struct vex_fixture *fixture, int pipe_fd)
{
    (void)prctl(PR_SET_NAME, "test-guardian");
    (void)setsid();
    (void)signal(SIGINT, SIG_IGN);
    (void)signal(SIGTERM, SIG_IGN);
    /* An end of another fixture's pipe, or of whoever reads our output, is not ours to hold. */
    (void)dup2(pipe_fd, 3);
    (void)syscall(SYS_close_range, 4u, ~0u, 0u);
    char byte;
    ssize_t got;
    do {
        got = read(3, &byte, 1);
    } while (got < 0 && errno == EINTR);
    /* More than once, because a daemon may be starting in there just now. */
    for (int i = 0; i < 100 && access(fixture->root.path, F_OK) == 0; i++) {
        vex_fixture_pause_ms(i ? 50 : 0);
        (void)nftw(fixture->root.path, clean_instance, 16, FTW_PHYS);
        (void)nftw(fixture->root.path, remove_item, 16, FTW_DEPTH | FTW_PHYS);
    }
    _exit(access(fixture->root.path, F_OK) == 0);
}

void vex_fixture_init(struct vex_fixture *fixture)
{
    *fixture = (struct vex_fixture){.guard_fd = -1};
    (void)vex_fixture_vexd();
    vex_temp_dir_make(&fixture->root);
    char *real = realpath(fixture->root.path, NULL);
    if (!real || strlen(real) >= sizeof(fixture->root.path)) {
        vex_fixture_die("%s: %s", fixture->root.path, real ? "too long" : strerror(errno));
    }
    (void)snprintf(fixture->root.path, sizeof(fixture->root.path), "%s", real);
    free(real);
    (void)snprintf(fixture->directory, sizeof(fixture->directory), "%s/db", fixture->root.path);
    (void)snprintf(fixture->diagnostics, sizeof(fixture->diagnostics), "%s/vexd.err",
                   fixture->root.path);
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0) {
        vex_fixture_die("pipe: %s", strerror(errno));
    }
    (void)fflush(NULL);
    fixture->guardian = fork();
    if (fixture->guardian < 0) {
        vex_fixture_die("fork: %s", strerror(errno));
    }
    if (fixture->guardian == 0) {
        (void)close(fds[1]);
        guard(fixture, fds[0]);
    }
    (void)close(fds[0]);
    fixture->guard_fd = fds[1];
}

/* ---- the daemon ------------------------------------------------------------------------------ */

static _Noreturn void become_vexd(const struct vex_fixture *fixture, const char *const *words,
                                  int ready_fd)
{
    char directory[VEX_FIXTURE_PATH_MAX + 16];
    char path[VEX_FIXTURE_PATH_MAX];
    char ready[] = "--ready-fd=3";
    char *all[WORDS_MAX + 4] = {path, directory, ready};
    (void)snprintf(path, sizeof(path), "%s", vex_fixture_vexd());
    (void)snprintf(directory, sizeof(directory), "--dir=%s", fixture->directory);
    size_t count = 3;
    for (; words && *words && count < WORDS_MAX + 3; words++) {
        all[count++] = strdup(*words);
    }
    int diagnostics = open(fixture->diagnostics, O_WRONLY | O_CREAT | O_APPEND, 0640);
    if (diagnostics < 0 || dup2(diagnostics, STDERR_FILENO) < 0 ||
        dup2(diagnostics, STDOUT_FILENO) < 0) {
        _exit(126);
    }
    if (ready_fd == 3) {
        (void)fcntl(3, F_SETFD, 0);
    } else {
        (void)dup2(ready_fd, 3);
    }
    (void)syscall(SYS_close_range, 4u, ~0u, 0u);
    /* An assertion that fails is seen by the exit code; nobody reads the core file. */
    (void)setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    (void)execv(path, all);
    _exit(127);
}

/* Reads one line; false at the end of the file or of the time. */
static bool read_line(int fd, char *line, size_t bytes, uint32_t timeout_ms)
{
    uint64_t deadline_ms = vex_fixture_now_ms() + timeout_ms;
    size_t used = 0;
    while (used < bytes - 1 && vex_fixture_now_ms() < deadline_ms) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        if (poll(&ready, 1, (int)timeout_ms) <= 0) {
            continue;
        }
        ssize_t got = read(fd, line + used, 1);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return false;
        }
        if (line[used] == '\n') {
            line[used] = 0;
            return true;
        }
        used++;
    }
    return false;
}

static void print_diagnostics(const char *path)
{
    FILE *file = fopen(path, "r");
    char line[LINE_BYTES];
    fprintf(stderr, "---- %s\n", path);
    while (file && fgets(line, sizeof(line), file)) {
        fputs(line, stderr);
    }
    fprintf(stderr, "----\n");
    if (file) {
        (void)fclose(file);
    }
}

enum vex_status vex_fixture_try_start(struct vex_fixture *fixture, const char *const *words,
                                      int *out_exit_code, struct vex_error *error)
{
    struct vex_error ignored;
    error = error ? error : &ignored;
    *error = (struct vex_error){0};
    int fds[2];
    if (fixture->daemon != 0 || pipe2(fds, O_CLOEXEC) != 0) {
        vex_fixture_die("start vexd: one runs already, or no pipe");
    }
    pid_t pid = vex_fixture_fork();
    if (pid == 0) {
        become_vexd(fixture, words, fds[1]);
    }
    (void)close(fds[1]);
    char line[LINE_BYTES] = {0};
    bool answered = read_line(fds[0], line, sizeof(line), START_TIMEOUT_MS);
    (void)close(fds[0]);
    if (answered && strcmp(line, "ready") == 0) {
        fixture->daemon = pid;
        return VEX_OK;
    }
    int code = vex_fixture_await(pid, STOP_TIMEOUT_MS);
    if (out_exit_code) {
        *out_exit_code = code;
    }
    unsigned number = 0;
    int text_at = 0;
    if (!answered || sscanf(line, "error %u %n", &number, &text_at) != 1 || text_at == 0) {
        print_diagnostics(fixture->diagnostics);
        vex_fixture_die("vexd neither started nor said why; exit code %d, line '%s'", code, line);
    }
    error->status = (enum vex_status)number;
    (void)snprintf(error->message, sizeof(error->message), "%.247s", line + text_at);
    return error->status;
}

void vex_fixture_start(struct vex_fixture *fixture, const char *const *words)
{
    struct vex_error error;
    uint64_t deadline_ms = vex_fixture_now_ms() + START_TIMEOUT_MS;
    enum vex_status status;
    do {
        status = vex_fixture_try_start(fixture, words, NULL, &error);
    } while (status == VEX_ERR_BUSY && vex_fixture_now_ms() < deadline_ms);
    if (status != VEX_OK) {
        vex_fixture_die("vexd does not start: %s", error.message);
    }
}

void vex_fixture_start_and_kill(struct vex_fixture *fixture, const char *const *words,
                                uint32_t after_us)
{
    int fds[2];
    if (fixture->daemon != 0 || pipe2(fds, O_CLOEXEC) != 0) {
        vex_fixture_die("start vexd: one runs already, or no pipe");
    }
    pid_t pid = vex_fixture_fork();
    if (pid == 0) {
        become_vexd(fixture, words, fds[1]);
    }
    (void)close(fds[1]);
    (void)usleep(after_us);
    (void)kill(pid, SIGKILL);
    (void)vex_fixture_await(pid, STOP_TIMEOUT_MS);
    (void)close(fds[0]);
}

static int end_daemon(struct vex_fixture *fixture, int signal_number)
{
    if (fixture->daemon == 0) {
        return 0;
    }
    (void)kill(fixture->daemon, SIGCONT);
    (void)kill(fixture->daemon, signal_number);
    int code = vex_fixture_await(fixture->daemon, STOP_TIMEOUT_MS);
    fixture->daemon = 0;
    return code;
}

int vex_fixture_stop(struct vex_fixture *fixture)
{
    return end_daemon(fixture, SIGTERM);
}

int vex_fixture_kill(struct vex_fixture *fixture)
{
    return end_daemon(fixture, SIGKILL);
}

bool vex_fixture_is_running(struct vex_fixture *fixture)
{
    siginfo_t info = {0};
    return fixture->daemon != 0 &&
           waitid(P_PID, (id_t)fixture->daemon, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid == 0;
}

/* True if a sanitizer or an assertion spoke. */
static bool complains(const char *path)
{
    static const char *const words[] = {"Sanitizer", "runtime error:", "assertion failed:"};
    FILE *file = fopen(path, "r");
    char line[LINE_BYTES];
    bool found = false;
    while (file && !found && fgets(line, sizeof(line), file)) {
        for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
            found = found || strstr(line, words[i]);
        }
    }
    if (file) {
        (void)fclose(file);
    }
    if (found) {
        print_diagnostics(path);
    }
    return found;
}

static int count_complaints(const char *path, const struct stat *info, int type, struct FTW *walk)
{
    (void)info;
    const char *name = path + walk->base;
    bool is_diagnostics = strcmp(name, "vexd.log") == 0 || strcmp(name, "vexd.err") == 0;
    return type == FTW_F && is_diagnostics && complains(path) ? 1 : 0;
}

int vex_fixture_deinit(struct vex_fixture *fixture)
{
    int result = 0;
    if (fixture->daemon != 0) {
        int code = vex_fixture_stop(fixture);
        if (code != 0) {
            fprintf(stderr, "vexd ended with %d\n", code);
            print_diagnostics(fixture->diagnostics);
            result = 1;
        }
    }
    if (nftw(fixture->root.path, count_complaints, 16, FTW_PHYS) > 0) {
        result = 1;
    }
    /* A byte, not the end of the pipe: a child of the test may still hold the other end. */
    (void)!write(fixture->guard_fd, "", 1);
    (void)close(fixture->guard_fd);
    (void)close(fixture->root.fd);
    if (vex_fixture_await(fixture->guardian, STOP_TIMEOUT_MS) != 0) {
        fprintf(stderr, "%s could not be removed\n", fixture->root.path);
        result = 1;
    }
    return result;
}

/* ---- clients --------------------------------------------------------------------------------- */

struct vex_open_options vex_fixture_open_options(void)
{
    struct vex_open_options options = VEX_OPEN_OPTIONS_INIT;
    options.no_spawn = true;
    options.timeout_ms = START_TIMEOUT_MS;
    return options;
}

struct vex_db *vex_fixture_open(const struct vex_fixture *fixture)
{
    struct vex_open_options options = vex_fixture_open_options();
    struct vex_db *db = NULL;
    struct vex_error error;
    if (vex_open(fixture->directory, &options, &db, &error) != VEX_OK) {
        vex_fixture_die("open %s: %s", fixture->directory, error.message);
    }
    return db;
}

struct vex_collection *vex_fixture_collection(struct vex_db *db, const char *name, uint32_t dim,
                                              enum vex_metric metric)
{
    struct vex_collection_options options = VEX_COLLECTION_OPTIONS_INIT;
    options.dim = dim;
    options.metric = metric;
    options.index = VEX_INDEX_FLAT; /* what tests compare with is exact */
    struct vex_collection *collection = NULL;
    struct vex_error error;
    enum vex_status status = vex_collection_create(db, name, &options, &error);
    if (status == VEX_OK || status == VEX_ERR_EXISTS) {
        status = vex_collection_open(db, name, &collection, &error);
    }
    if (status != VEX_OK) {
        vex_fixture_die("collection %s: %s", name, error.message);
    }
    return collection;
}
