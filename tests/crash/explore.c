/*
 * The driver of the crash explorer.
 *
 * One seed is one life of the application on a recording disk, followed by every crash point of that record
 * and, at each, the states that io_sim.h describes. On each state the application recovers and is checked:
 *
 *   I1  every acknowledged record is there
 *   I2  what is there is what some prefix of the submitted records makes: no hole, nothing half, nothing old
 *   I3  recovering once more changes nothing, neither state nor bytes
 *   I4  the same holds if the power fails again, during recovery or in the short life after it (depth 2);
 *       also if the first time the process died alone, so that recovery read what only the cache had
 *   I5  after recovery the application works, stops in order, and all of it is there
 *   I6  damage to acknowledged data is refused, and refused again, never passed over
 *   I7  where nothing was under way, nothing is reported as torn; without damage, nothing as damaged
 *
 * Every fourth life is on a disk that fails now and then, before the power does: an error must never be
 * taken for success.
 *
 * I1, I2 and I7 are checked on every state, I3 on every second; I4, I5 and I6 on a sample that follows from
 * the seed, since each costs many recoveries. Everything follows from the seed, so "seed:point:state", which
 * a failure prints, is all that --replay needs.
 */
#include "tests/crash/explore_priv.h"

#include <errno.h>
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define JOBS_MAX 64u

struct explorer explorer = {.states_wanted = 100000};

int __real_clock_gettime(clockid_t clock, struct timespec *out_time);

/* ---- failing --------------------------------------------------------------------------------- */

static void print_place(char *out, size_t bytes)
{
    const struct explore_place *here = &explorer.here;
    char state[24] = "k";
    char second[64] = "";
    if (here->state != EXPLORE_KILLED) {
        (void)snprintf(state, sizeof(state), "%llu", (unsigned long long)here->state);
    }
    if (here->second) {
        (void)snprintf(second, sizeof(second), ":%llu:%llu", (unsigned long long)here->second_point,
                       (unsigned long long)here->second_state);
    }
    (void)snprintf(out, bytes, "%llu:%llu:%s%s", (unsigned long long)here->seed,
                   (unsigned long long)here->point, state, second);
}

void explore_fail(const char *check, const char *format, ...)
{
    char text[512];
    char place[128];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    print_place(place, sizeof(place));
    (void)printf("%s: FAULT %s after %llu states: %s%s%s\n", explorer.app->name,
                 explorer.is_damaged ? "I6" : check, (unsigned long long)explorer.counts.states,
                 text, explorer.is_damaged ? "; damage: " : "",
                 explorer.is_damaged ? explorer.damage : "");
    (void)printf("%s: --replay %s%s%s%s\n", explorer.app->name, place,
                 explorer.is_thin ? " --thin" : "", explorer.is_failing ? " --errors" : "",
                 explorer.is_ordered ? " --ordered" : "");
    (void)fflush(stdout);
    _exit(1);
}

static void on_signal(int number)
{
    (void)signal(number, SIG_DFL);
    explore_fail(number == SIGALRM ? "hang" : "abort", "signal %d", number);
}

static void on_stop(int number)
{
    (void)number;
    explorer.is_stopped = 1;
}

/* ---- jobs ------------------------------------------------------------------------------------ */

static uint64_t now_ns(void)
{
    struct timespec now;
    (void)__real_clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* One process: every `jobs`-th seed. */
static void run_job(uint64_t first_seed, unsigned jobs, int out_fd)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* Memory goes round instead of back to the kernel: most of the time would go texplorer.here. */
    (void)mallopt(M_MMAP_THRESHOLD, 64 << 20);
    (void)mallopt(M_TRIM_THRESHOLD, 256 << 20);
    explorer.states_wanted /= jobs;
    (void)signal(SIGALRM, on_signal);
    (void)signal(SIGABRT, on_signal);
    (void)signal(SIGSEGV, on_signal);
    (void)signal(SIGBUS, on_signal);
    for (uint64_t seed = first_seed;
         explorer.counts.states < explorer.states_wanted && !explorer.is_stopped; seed += jobs) {
        explore_seed(seed);
    }
    if (write(out_fd, &explorer.counts, sizeof(explorer.counts)) !=
        (ssize_t)sizeof(explorer.counts)) {
        _exit(2);
    }
    _exit(0);
}

static void add_counts(const struct explore_counts *from)
{
    explorer.counts.seeds += from->seeds;
    explorer.counts.failing_seeds += from->failing_seeds;
    explorer.counts.states += from->states;
    explorer.counts.points += from->points;
    explorer.counts.second_states += from->second_states;
    explorer.counts.second_points += from->second_points;
    explorer.counts.kills += from->kills;
    explorer.counts.further_lives += from->further_lives;
    explorer.counts.damages += from->damages;
}

static void print_counts(uint64_t started_ns)
{
    double seconds = (double)(now_ns() - started_ns) / 1e9;
    const struct explore_counts *all = &explorer.counts;
    (void)printf("%s: %llu states (%llu of them at depth 2) at %llu + %llu crash points of %llu "
                 "seeds (%llu with errors), %llu kills, %llu further lives, %llu planted damages; "
                 "%.1f s, %.0f "
                 "states/s\n",
                 explorer.app->name, (unsigned long long)all->states,
                 (unsigned long long)all->second_states, (unsigned long long)all->points,
                 (unsigned long long)all->second_points, (unsigned long long)all->seeds,
                 (unsigned long long)all->failing_seeds, (unsigned long long)all->kills,
                 (unsigned long long)all->further_lives, (unsigned long long)all->damages, seconds,
                 (double)all->states / seconds);
}

static int run_jobs(uint64_t first_seed, unsigned jobs)
{
    uint64_t started_ns = now_ns();
    int ends[JOBS_MAX];
    for (unsigned i = 0; i < jobs; i++) {
        int pipes[2];
        if (pipe(pipes) != 0) {
            return 2;
        }
        (void)fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            (void)close(pipes[0]);
            run_job(first_seed + i, jobs, pipes[1]);
        }
        (void)close(pipes[1]);
        ends[i] = pipes[0];
        if (child < 0) {
            return 2;
        }
    }
    int result = 0;
    for (unsigned i = 0; i < jobs; i++) {
        struct explore_counts theirs;
        if (read(ends[i], &theirs, sizeof(theirs)) == (ssize_t)sizeof(theirs)) {
            add_counts(&theirs);
        } else {
            result = 1;
        }
        (void)close(ends[i]);
    }
    while (wait(NULL) > 0 || errno == EINTR) {
    }
    print_counts(started_ns);
    if (result == 0 && !explorer.is_failing &&
        (explorer.counts.second_states == 0 || explorer.counts.damages == 0)) {
        (void)printf("%s: too few states for all checks to have happened\n", explorer.app->name);
        return 1;
    }
    return result;
}

static int replay(const char *text)
{
    unsigned long long numbers[5] = {0};
    char state[24] = "";
    int given = sscanf(text, "%llu:%llu:%23[k0-9]:%llu:%llu", &numbers[0], &numbers[1], state,
                       &numbers[3], &numbers[4]);
    if (given != 3 && given != 5) {
        (void)fprintf(stderr,
                      "--replay wants what a failure printed: seed:point:state[:point:state]\n");
        return 2;
    }
    numbers[2] = state[0] == 'k' ? EXPLORE_KILLED : strtoull(state, NULL, 10);
    explorer.wanted = (struct explore_place){numbers[0], numbers[1], numbers[2],
                                             numbers[3], numbers[4], given == 5};
    explorer.is_replay = true;
    explore_seed(explorer.wanted.seed);
    (void)printf("%s: no fault\n", explorer.app->name);
    return 0;
}

int explore_main(int argc, char **argv, const struct explore_app *explored)
{
    static const struct option options[] = {{"seed", required_argument, NULL, 's'},
                                            {"states", required_argument, NULL, 'n'},
                                            {"jobs", required_argument, NULL, 'j'},
                                            {"replay", required_argument, NULL, 'r'},
                                            {"ordered", no_argument, NULL, 'o'},
                                            {"thin", no_argument, NULL, 't'},
                                            {"errors", no_argument, NULL, 'e'},
                                            {"forever", no_argument, NULL, 'f'},
                                            {0}};
    explorer.app = explored;
    uint64_t first_seed = 1;
    unsigned jobs = 1;
    const char *place = NULL;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (option) {
        case 's':
            first_seed = strtoull(optarg, NULL, 0);
            break;
        case 'n':
            explorer.states_wanted = strtoull(optarg, NULL, 0);
            break;
        case 'j':
            jobs = (unsigned)strtoul(optarg, NULL, 0);
            break;
        case 'r':
            place = optarg;
            break;
        case 'o':
            explorer.is_ordered = true;
            break;
        case 'e':
            explorer.is_failing = true;
            break;
        case 't':
            explorer.is_thin = true;
            break;
        case 'f':
            explorer.states_wanted = UINT64_MAX;
            first_seed = now_ns() + (uint64_t)getpid();
            break;
        default:
            return 2;
        }
    }
    if (jobs < 1 || jobs > JOBS_MAX) {
        (void)fprintf(stderr, "--jobs wants 1 to %u\n", JOBS_MAX);
        return 2;
    }
    (void)signal(SIGINT, on_stop);
    (void)signal(SIGTERM, on_stop);
    return place ? replay(place) : run_jobs(first_seed, jobs);
}
