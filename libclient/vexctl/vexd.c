/*
 * Running vexd and passing on what it says: see the header. The exit codes that vexd ends with are its own
 * (vexd --help); what they mean is the same as one of vexctl's each.
 */
#include "libclient/vexctl/vexd.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>

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
    /* posix_spawn takes mutable words for historical reasons and does not change them. */
    int failure = posix_spawn(&child, program, NULL, NULL, (char *const *)(uintptr_t)all, environ);
    if (failure) {
        (void)vex_fault(&error, VEX_ERR_UNAVAILABLE, "start %.150s: %s", program,
                        strerror(failure));
        return vex_context_fail(&error);
    }
    return await(child, program);
}
