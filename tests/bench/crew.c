/*
 * Threads that start together; the idea is in crew.h.
 */
#include "tests/bench/crew.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/common.h"

enum gate { GATE_SHUT, GATE_OPEN, GATE_CANCELLED };

struct vex_crew {
    vex_crew_work work;
    void *context;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    enum gate gate;
    unsigned ready; /* at the gate, or ended before it */
    bool failed;
};

struct member {
    struct vex_crew *crew;
    pthread_t thread;
    unsigned index;
};

static void count_ready(struct vex_crew *crew)
{
    crew->ready++;
    (void)pthread_cond_broadcast(&crew->changed);
}

bool vex_crew_ready(struct vex_crew *crew)
{
    (void)pthread_mutex_lock(&crew->lock);
    count_ready(crew);
    while (crew->gate == GATE_SHUT) {
        (void)pthread_cond_wait(&crew->changed, &crew->lock);
    }
    bool go = crew->gate == GATE_OPEN;
    (void)pthread_mutex_unlock(&crew->lock);
    return go;
}

static void *member_main(void *argument)
{
    struct member *member = argument;
    struct vex_crew *crew = member->crew;
    bool worked = crew->work(crew, crew->context, member->index);
    (void)pthread_mutex_lock(&crew->lock);
    if (!worked) {
        crew->failed = true;
        count_ready(crew); /* it may have ended before the gate */
    }
    (void)pthread_mutex_unlock(&crew->lock);
    return NULL;
}

bool vex_crew_run(unsigned count, vex_crew_work work, void *context)
{
    struct vex_crew crew = {.work = work, .context = context};
    struct member *members = vex_bench_alloc(count, sizeof(*members));
    (void)pthread_mutex_init(&crew.lock, NULL);
    (void)pthread_cond_init(&crew.changed, NULL);
    unsigned started = 0;
    int failure = 0;
    while (started < count && failure == 0) {
        members[started] = (struct member){.crew = &crew, .index = started};
        failure = pthread_create(&members[started].thread, NULL, member_main, &members[started]);
        started += failure == 0;
    }
    (void)pthread_mutex_lock(&crew.lock);
    while (failure == 0 && crew.ready < count && !crew.failed) {
        (void)pthread_cond_wait(&crew.changed, &crew.lock);
    }
    crew.gate = failure || crew.failed ? GATE_CANCELLED : GATE_OPEN;
    (void)pthread_cond_broadcast(&crew.changed);
    (void)pthread_mutex_unlock(&crew.lock);
    for (unsigned i = 0; i < started; i++) {
        (void)pthread_join(members[i].thread, NULL);
    }
    (void)pthread_cond_destroy(&crew.changed);
    (void)pthread_mutex_destroy(&crew.lock);
    free(members);
    return failure ? vex_bench_fail("start a thread: %s", strerror(failure)) : !crew.failed;
}
