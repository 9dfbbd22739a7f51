#include "tests/crash/fibers.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <ucontext.h>

#include "tests/lib/random.h"

#define FIBERS_MAX 8u
#define STACK_BYTES (256u * 1024u)
#define WAITS_MAX 1000000u

enum fiber_state {
    FIBER_FREE,
    FIBER_READY,
    FIBER_WAITING, /* for `waits_for` */
    FIBER_OVER,
};

struct fiber {
    enum fiber_state state;
    ucontext_t context;
    void *stack;
    void *(*main)(void *argument);
    void *argument;
    void *result;
    const pthread_cond_t *waits_for;
};

/* Number 0 is the thread that the program began with. */
static struct fiber fibers[FIBERS_MAX] = {{.state = FIBER_READY}};
static unsigned running;
static struct vex_random whim;
static struct vex_random noise;
static uint32_t switch_odds;
static uint64_t clock_ns;

/* What --wrap makes of the names. */
int __wrap_pthread_create(pthread_t *out_thread, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *argument);
int __wrap_pthread_join(pthread_t thread, void **out_result);
int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex);
int __wrap_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex);
int __wrap_pthread_cond_signal(pthread_cond_t *condition);
int __wrap_pthread_cond_broadcast(pthread_cond_t *condition);
int __wrap_pthread_sigmask(int how, const sigset_t *set, sigset_t *out_set);
ssize_t __wrap_getrandom(void *into, size_t bytes, unsigned flags);
int __wrap_clock_gettime(clockid_t clock, struct timespec *out_time);
int __wrap_nanosleep(const struct timespec *duration, struct timespec *out_left);
int __real_pthread_mutex_unlock(pthread_mutex_t *mutex);

static void broken(const char *what)
{
    (void)fprintf(stderr, "fibers: %s\n", what);
    abort();
}

/* ---- switching ------------------------------------------------------------------------------- */

/* The next one, in turn, that can go on; the running one last. */
static void give_way(void)
{
    unsigned from = running;
    for (unsigned i = 1; i <= FIBERS_MAX; i++) {
        unsigned next = (from + i) % FIBERS_MAX;
        if (fibers[next].state == FIBER_READY) {
            if (next != from) {
                running = next;
                (void)swapcontext(&fibers[from].context, &fibers[next].context);
            }
            return;
        }
    }
    broken("deadlock: every thread waits");
}

void fibers_step(void *context)
{
    (void)context;
    if (switch_odds && vex_random_once_in(&whim, switch_odds)) {
        give_way();
    }
}

void fibers_reset(uint64_t seed, uint32_t odds)
{
    if (running != 0 || fibers_left() != 0) {
        broken("threads of a closed engine are left");
    }
    whim = vex_random_seeded(seed);
    noise = vex_random_seeded(~seed);
    switch_odds = odds;
    clock_ns = 1700000000u * UINT64_C(1000000000);
}

unsigned fibers_left(void)
{
    unsigned left = 0;
    for (unsigned i = 1; i < FIBERS_MAX; i++) {
        left += fibers[i].state != FIBER_FREE;
    }
    return left;
}

/* ---- threads --------------------------------------------------------------------------------- */

static void begin(void)
{
    struct fiber *self = &fibers[running];
    self->result = self->main(self->argument);
    self->state = FIBER_OVER;
    give_way();
}

int __wrap_pthread_create(pthread_t *out_thread, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *argument)
{
    (void)attributes;
    unsigned number = 1;
    while (number < FIBERS_MAX && fibers[number].state != FIBER_FREE) {
        number++;
    }
    if (number == FIBERS_MAX) {
        broken("too many threads: some are never joined");
    }
    struct fiber *fiber = &fibers[number];
    if (!fiber->stack) {
        fiber->stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
        if (fiber->stack == MAP_FAILED || getcontext(&fiber->context) != 0) {
            broken("no stack");
        }
    }
    fiber->main = start;
    fiber->argument = argument;
    fiber->context.uc_stack = (stack_t){.ss_sp = fiber->stack, .ss_size = STACK_BYTES};
    fiber->context.uc_link = NULL;
    makecontext(&fiber->context, begin, 0);
    fiber->state = FIBER_READY;
    *out_thread = number;
    return 0;
}

int __wrap_pthread_join(pthread_t thread, void **out_result)
{
    if (thread == 0 || thread >= FIBERS_MAX || fibers[thread].state == FIBER_FREE) {
        broken("join of a thread that is not there");
    }
    struct fiber *fiber = &fibers[thread];
    for (unsigned tries = 0; fiber->state != FIBER_OVER; tries++) {
        if (tries > WAITS_MAX) {
            broken("deadlock: a thread that is to be joined never ends");
        }
        give_way();
    }
    if (out_result) {
        *out_result = fiber->result;
    }
    fiber->state = FIBER_FREE;
    return 0;
}

/* ---- waiting --------------------------------------------------------------------------------- */

int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex)
{
    /* All fibers are one thread to the C library: only a normal mutex can be had this way. */
    for (unsigned tries = 0; pthread_mutex_trylock(mutex) == EBUSY; tries++) {
        if (tries > WAITS_MAX) {
            broken("deadlock: a mutex is never unlocked");
        }
        give_way();
    }
    return 0;
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex)
{
    int result = __real_pthread_mutex_unlock(mutex);
    fibers_step(NULL);
    return result;
}

int __wrap_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex)
{
    struct fiber *self = &fibers[running];
    (void)__real_pthread_mutex_unlock(mutex);
    self->state = FIBER_WAITING;
    self->waits_for = condition;
    give_way();
    return __wrap_pthread_mutex_lock(mutex);
}

static int wake(const pthread_cond_t *condition, bool all)
{
    for (unsigned i = 0; i < FIBERS_MAX; i++) {
        if (fibers[i].state == FIBER_WAITING && fibers[i].waits_for == condition) {
            fibers[i].state = FIBER_READY;
            if (!all) {
                break;
            }
        }
    }
    return 0;
}

int __wrap_pthread_cond_signal(pthread_cond_t *condition)
{
    return wake(condition, false);
}

int __wrap_pthread_cond_broadcast(pthread_cond_t *condition)
{
    return wake(condition, true);
}

/* ---- the world outside ----------------------------------------------------------------------- */

int __wrap_pthread_sigmask(int how, const sigset_t *set, sigset_t *out_set)
{
    (void)how;
    (void)set;
    if (out_set) {
        (void)sigemptyset(out_set);
    }
    return 0;
}

ssize_t __wrap_getrandom(void *into, size_t bytes, unsigned flags)
{
    (void)flags;
    vex_random_fill(&noise, into, bytes);
    return (ssize_t)bytes;
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *out_time)
{
    (void)clock;
    clock_ns += 1000;
    out_time->tv_sec = (time_t)(clock_ns / 1000000000u);
    out_time->tv_nsec = (long)(clock_ns % 1000000000u);
    return 0;
}

int __wrap_nanosleep(const struct timespec *duration, struct timespec *out_left)
{
    (void)out_left;
    clock_ns += (uint64_t)duration->tv_sec * 1000000000u + (uint64_t)duration->tv_nsec;
    give_way();
    return 0;
}
