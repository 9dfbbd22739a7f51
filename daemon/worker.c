#include "daemon/worker.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/panic.h"

#define SLEEP_MAX_NS (50u * 1000000u)
#define NS_PER_US 1000u

struct vex_worker {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    vex_work work; /* NULL = nothing to do; guarded by the mutex */
    void *job;
    bool ended;   /* guarded: the job is over and vex_worker_finished has not said so */
    bool running; /* main thread: a job was handed over and not taken back */
    int event_fd;
    _Atomic bool quitting;
    _Atomic bool polite;
    int nice;                  /* of its thread */
    uint64_t slice_started_ns; /* worker */
};

static bool pause_between_pieces(void *context, uint64_t bytes)
{
    (void)bytes;
    struct vex_worker *worker = context;
    /* relaxed: nothing is handed over with the flags. */
    if (atomic_load_explicit(&worker->quitting, memory_order_relaxed)) {
        return false;
    }
    uint64_t worked_ns = vex_clock_ns() - worker->slice_started_ns;
    /* relaxed: as above. */
    if (atomic_load_explicit(&worker->polite, memory_order_relaxed)) {
        (void)usleep(
            (useconds_t)((worked_ns < SLEEP_MAX_NS ? worked_ns : SLEEP_MAX_NS) / NS_PER_US));
    }
    worker->slice_started_ns = vex_clock_ns();
    return true;
}

static void *worker_main(void *argument)
{
    struct vex_worker *worker = argument;
    const struct vex_pace pace = {pause_between_pieces, worker};
    /* Only this thread, in Linux. Without the permission it just competes. */
    (void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), worker->nice);
    (void)pthread_mutex_lock(&worker->mutex);
    /* relaxed: changed under the mutex. */
    while (!atomic_load_explicit(&worker->quitting, memory_order_relaxed)) {
        if (!worker->work || worker->ended) {
            (void)pthread_cond_wait(&worker->changed, &worker->mutex);
            continue;
        }
        vex_work work = worker->work;
        void *job = worker->job;
        (void)pthread_mutex_unlock(&worker->mutex);
        worker->slice_started_ns = vex_clock_ns();
        work(job, &pace);
        (void)pthread_mutex_lock(&worker->mutex);
        worker->work = NULL;
        worker->ended = true;
        (void)eventfd_write(worker->event_fd, 1);
    }
    (void)pthread_mutex_unlock(&worker->mutex);
    return NULL;
}

enum vex_status vex_worker_start(int nice, struct vex_worker **out_worker, struct vex_error *error)
{
    *out_worker = NULL;
    struct vex_worker *worker = calloc(1, sizeof(*worker));
    if (!worker) {
        return vex_error_set(error, VEX_ERR_NOMEM, "worker: out of memory");
    }
    worker->nice = nice;
    worker->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (worker->event_fd < 0) {
        int failure = errno;
        free(worker);
        return vex_error_os(error, VEX_ERR_IO, failure, "worker: event descriptor");
    }
    (void)pthread_mutex_init(&worker->mutex, NULL);
    (void)pthread_cond_init(&worker->changed, NULL);
    /* Signals are for the thread that serves. */
    sigset_t all;
    sigset_t before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int failure = pthread_create(&worker->thread, NULL, worker_main, worker);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failure) {
        (void)close(worker->event_fd);
        free(worker);
        return vex_error_os(error, VEX_ERR_NOMEM, failure, "worker: thread");
    }
    *out_worker = worker;
    return VEX_OK;
}

void vex_worker_stop(struct vex_worker *worker)
{
    if (!worker) {
        return;
    }
    (void)pthread_mutex_lock(&worker->mutex);
    /* relaxed: the mutex orders it for the waiting thread; a running one only has to see it in time. */
    atomic_store_explicit(&worker->quitting, true, memory_order_relaxed);
    (void)pthread_cond_broadcast(&worker->changed);
    (void)pthread_mutex_unlock(&worker->mutex);
    (void)pthread_join(worker->thread, NULL);
    (void)pthread_cond_destroy(&worker->changed);
    (void)pthread_mutex_destroy(&worker->mutex);
    (void)close(worker->event_fd);
    free(worker);
}

int vex_worker_event_fd(const struct vex_worker *worker)
{
    return worker->event_fd;
}

bool vex_worker_is_running(const struct vex_worker *worker)
{
    return worker->running;
}

void vex_worker_run(struct vex_worker *worker, vex_work work, void *job)
{
    VEX_ASSERT(!worker->running);
    worker->running = true;
    (void)pthread_mutex_lock(&worker->mutex);
    worker->work = work;
    worker->job = job;
    (void)pthread_cond_broadcast(&worker->changed);
    (void)pthread_mutex_unlock(&worker->mutex);
}

bool vex_worker_finished(struct vex_worker *worker)
{
    if (!worker->running) {
        return false;
    }
    (void)pthread_mutex_lock(&worker->mutex);
    bool ended = worker->ended;
    worker->ended = false;
    (void)pthread_mutex_unlock(&worker->mutex);
    if (ended) {
        eventfd_t ignored;
        (void)eventfd_read(worker->event_fd, &ignored);
        worker->running = false;
    }
    return ended;
}

void vex_worker_set_polite(struct vex_worker *worker, bool polite)
{
    /* relaxed: a hint. */
    atomic_store_explicit(&worker->polite, polite, memory_order_relaxed);
}
