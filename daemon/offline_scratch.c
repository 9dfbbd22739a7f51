/*
 * A task on a scratch copy, in a process of its own: whatever becomes of that process, a damaged file that
 * brings it down included, its parent clears up: the copy, and the shared memory that is named after it.
 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "daemon/clone.h"
#include "daemon/offline_priv.h"
#include "shm/region.h"

static volatile sig_atomic_t worker; /* the process that a signal to this one is passed on to */
static volatile sig_atomic_t was_interrupted;

static void pass_on(int number)
{
    was_interrupted = 1;
    if (worker > 0) {
        (void)kill((pid_t)worker, number);
    }
}

static const int ending_signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
#define ENDING_SIGNALS (sizeof(ending_signals) / sizeof(ending_signals[0]))

static void handle_signals(void (*handler)(int number))
{
    struct sigaction action = {.sa_handler = handler};
    for (size_t i = 0; i < ENDING_SIGNALS; i++) {
        (void)sigaction(ending_signals[i], &action, NULL);
    }
}

static enum vex_status judge_end(int state, struct vex_error *error)
{
    if (WIFEXITED(state)) {
        return vex_error_set(error, VEX_ERR_IO, "the working process ended without a result");
    }
    int number = WTERMSIG(state);
    for (size_t i = 0; i < ENDING_SIGNALS; i++) {
        if (number == ending_signals[i]) {
            return vex_error_set(error, VEX_ERR_UNAVAILABLE, "interrupted");
        }
    }
    if (number == SIGKILL) {
        return vex_error_set(error, VEX_ERR_NOMEM, "the working process was killed");
    }
    return vex_error_set(error, VEX_ERR_CORRUPT, "vexd ended by signal %d (%s) on this instance",
                         number, strsignal(number));
}

static enum vex_status await(pid_t child, int results, struct vex_error *error)
{
    struct vex_error result;
    size_t used = 0;
    ssize_t got;
    while ((got = read(results, (char *)&result + used, sizeof(result) - used)) != 0) {
        if (got < 0 && errno != EINTR) {
            break;
        }
        used += got > 0 ? (size_t)got : 0;
    }
    int state = 0;
    while (waitpid(child, &state, 0) < 0 && errno == EINTR) {
    }
    if (!WIFEXITED(state) || used != sizeof(result)) {
        return judge_end(state, error);
    }
    *error = result;
    return result.status;
}

static _Noreturn void work(const char *scratch, int results,
                           enum vex_status (*task)(const struct vex_offline_options *options,
                                                   struct vex_error *error),
                           const struct vex_offline_options *options)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    struct vex_error error = {.status = VEX_OK};
    enum vex_status status = chdir(scratch) == 0 ? task(options, &error)
                                                 : vex_error_os(&error, VEX_ERR_IO, errno,
                                                                "enter the scratch directory");
    error.status = status;
    (void)fflush(NULL);
    (void)!write(results, &error, sizeof(error));
    exit(0);
}

static enum vex_status run_in(const char *scratch,
                              enum vex_status (*task)(const struct vex_offline_options *options,
                                                      struct vex_error *error),
                              const struct vex_offline_options *options, struct vex_error *error)
{
    int results[2];
    if (pipe(results) != 0) {
        return vex_error_os(error, VEX_ERR_IO, errno, "pipe");
    }
    sigset_t ending;
    sigset_t before;
    (void)sigemptyset(&ending);
    for (size_t i = 0; i < ENDING_SIGNALS; i++) {
        (void)sigaddset(&ending, ending_signals[i]);
    }
    (void)sigprocmask(SIG_BLOCK, &ending, &before);
    pid_t child = fork();
    if (child == 0) {
        (void)close(results[0]);
        handle_signals(SIG_DFL);
        (void)sigprocmask(SIG_SETMASK, &before, NULL);
        work(scratch, results[1], task, options);
    }
    int failure = errno;
    worker = child;
    handle_signals(pass_on);
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
    (void)close(results[1]);
    enum vex_status status = child < 0 ? vex_error_os(error, VEX_ERR_NOMEM, failure, "fork")
                                       : await(child, results[0], error);
    (void)close(results[0]);
    worker = 0;
    return status;
}

/* What an instance in the scratch directory has in shared memory, if its process was ended. */
static void clear_memory(const char *scratch)
{
    struct vex_io *io = NULL;
    struct vex_manifest manifest;
    uint8_t key[VEX_UUID_BYTES];
    char path[PATH_MAX + 16];
    (void)snprintf(path, sizeof(path), "%s/" VEX_MANIFEST_PATH, scratch);
    if (offline_io_open(&io, NULL) == VEX_OK &&
        offline_read_manifest(io, path, &manifest, NULL) == VEX_OK &&
        vex_region_key(key, manifest.uuid, scratch) == 0) {
        vex_region_unlink_all(key);
    }
    vex_io_close(io);
}

enum vex_status offline_in_scratch(
    enum vex_status (*task)(const struct vex_offline_options *options, struct vex_error *error),
    const struct vex_offline_options *options, struct vex_error *error)
{
    char here[PATH_MAX];
    char scratch[PATH_MAX];
    if (!getcwd(here, sizeof(here))) {
        return vex_error_os(error, VEX_ERR_IO, errno, "working directory");
    }
    /* From here on a signal must not end this process before it has cleared up. */
    handle_signals(pass_on);
    enum vex_status status = vex_clone_make_scratch(here, scratch, error);
    if (status != VEX_OK) {
        return status;
    }
    status = vex_clone_fill(here, scratch, true, error);
    if (status == VEX_OK && was_interrupted) {
        status = vex_error_set(error, VEX_ERR_UNAVAILABLE, "interrupted");
    } else if (status == VEX_OK) {
        status = run_in(scratch, task, options, error);
        clear_memory(scratch);
    } else if (status == VEX_ERR_NOT_FOUND) {
        status = VEX_ERR_CORRUPT; /* there are parts of an instance, but no manifest */
    }
    if (!vex_clone_clear(scratch)) {
        fprintf(stderr, "vexd: the scratch directory %s could not be removed\n", scratch);
    }
    return status;
}
