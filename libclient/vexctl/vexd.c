/*
 * Running vexd and passing on what it says: see the header. The exit codes that vexd ends with are its own
 * (vexd --help); what they mean is the same as one of vexctl's each.
 */
#include "libclient/vexctl/vexd.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libclient/vexctl/fault.h"

extern char **environ;

static enum vex_exit exit_of(int code)
{
    switch (code) {
    case 0:
        return VEX_EXIT_OK;
    case 2:
        return VEX_EXIT_USAGE;
    case 3: /* a vexd serves the directory */
    case 7: /* the target exists */
        return VEX_EXIT_CONFLICT;
    case 4:
        return VEX_EXIT_CORRUPT;
    case 5:
        return VEX_EXIT_NOT_FOUND;
    case 6:
        return VEX_EXIT_NO_SPACE;
    case 8:
        return VEX_EXIT_DENIED;
    default:
        return VEX_EXIT_FAILED;
    }
}

/* Everything that vexd says of itself, up to a length that it never reaches. */
static size_t listen(int fd, char *text, size_t capacity)
{
    size_t bytes = 0;
    char rest[512];
    for (;;) {
        bool full = bytes + 1 >= capacity;
        ssize_t got =
            full ? read(fd, rest, sizeof(rest)) : read(fd, text + bytes, capacity - 1 - bytes);
        if (got <= 0 && !(got < 0 && errno == EINTR)) {
            text[bytes] = 0;
            return bytes;
        }
        bytes += got > 0 && !full ? (size_t)got : 0;
    }
}

/* Its lines, each as vexctl would say it. */
static void repeat(enum vex_exit code, char *text)
{
    static const char prefix[] = "vexd: ";
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        bool own = strncmp(line, prefix, sizeof(prefix) - 1) == 0;
        (void)vex_context_say(code, NULL, own ? line + sizeof(prefix) - 1 : line);
    }
}

/* Ctrl-C reaches both; vexd decides what it means and vexctl tells how vexd ended. */
static enum vex_exit await(pid_t child, const char *program)
{
    int state = 0;
    pid_t waited;
    while ((waited = waitpid(child, &state, 0)) < 0 && errno == EINTR) {
    }
    struct vex_error error = {0};
    if (waited < 0) {
        (void)vex_fault(&error, VEX_ERR_IO, "wait for %.150s: %s", program, strerror(errno));
        return vex_context_fail(&error);
    }
    if (WIFSIGNALED(state)) {
        (void)vex_fault(&error, VEX_ERR_IO, "%.150s was ended by signal %d", program,
                        WTERMSIG(state));
        return vex_context_fail(&error);
    }
    return exit_of(WEXITSTATUS(state));
}

/* 0 or an errno. `errors_fd`: where its standard error leads, -1 = to ours. */
static int start(pid_t *out_child, const char *program, const char *const *words, int errors_fd)
{
    posix_spawn_file_actions_t actions;
    int failure = posix_spawn_file_actions_init(&actions);
    if (failure) {
        return failure;
    }
    if (errors_fd >= 0) {
        failure = posix_spawn_file_actions_adddup2(&actions, errors_fd, STDERR_FILENO);
    }
    if (!failure) {
        /* posix_spawn takes mutable words for historical reasons and does not change them. */
        failure = posix_spawn(out_child, program, &actions, NULL, (char *const *)(uintptr_t)words,
                              environ);
    }
    (void)posix_spawn_file_actions_destroy(&actions);
    return failure;
}

enum vex_exit vex_vexd_run(const struct vex_context *context, const char *directory,
                           const char *const *words)
{
    struct vex_error error = {0};
    char program[PATH_MAX];
    char path[PATH_MAX];
    if (vex_find_vexd(NULL, program, sizeof(program), &error) != VEX_OK ||
        vex_find_directory(directory ? directory : context->directory, path, sizeof(path),
                           &error) != VEX_OK) {
        return vex_context_fail(&error);
    }
    const char *all[VEX_VEXD_WORDS_MAX + 5] = {program, "--dir", path};
    size_t count = 3;
    for (size_t i = 0; words[i]; i++) {
        all[count++] = words[i];
    }
    if (context->json) {
        all[count++] = "--json";
    }
    pid_t child;
    int ends[2] = {-1, -1};
    int failure = context->json && pipe2(ends, O_CLOEXEC) != 0 ? errno : 0;
    failure = failure ? failure : start(&child, program, all, ends[1]);
    if (failure) {
        (void)vex_fault(&error, VEX_ERR_UNAVAILABLE, "start %.150s: %s", program,
                        strerror(failure));
        return vex_context_fail(&error);
    }
    if (!context->json) {
        return await(child, program);
    }
    static char text[64u << 10];
    (void)close(ends[1]);
    size_t bytes = listen(ends[0], text, sizeof(text));
    (void)close(ends[0]);
    enum vex_exit code = await(child, program);
    if (bytes) {
        repeat(code, text);
    }
    return code;
}
