#include "tests/lib/child.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int vex_child_run(int (*body)(void *context), void *context)
{
    (void)fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) {
        perror("fork");
        abort();
    }
    if (pid == 0) {
        /* An expected abort leaves no core file behind. */
        (void)setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        /* The test framework's handlers would jump back into the parent's code. */
        const int caught[] = {SIGFPE, SIGILL, SIGSEGV, SIGBUS, SIGSYS, SIGABRT};
        for (size_t i = 0; i < sizeof(caught) / sizeof(*caught); i++) {
            (void)signal(caught[i], SIG_DFL);
        }
        /* A failed assertion of cmocka ends the child instead of going on with the next test in it. */
        (void)setenv("CMOCKA_TEST_ABORT", "1", 1);
        int code = body(context);
        (void)fflush(NULL);
        _exit(code);
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) {
            perror("waitpid");
            abort();
        }
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}
