/*
 * How long to look for an event before going to sleep for it.
 *
 * To sleep and be woken costs tens of microseconds, on a virtual machine above all, where an idle
 * core is handed back to the host. When what is awaited takes no longer than that, such as a write
 * of a fast disk, half of the time is lost. So whoever waits lingers first: it looks, gives the core
 * to anyone who wants it, looks again, for about as long as such waits have taken lately.
 *
 * Giving the core away is not mere courtesy. The kernel finishes a durable write in a worker bound
 * to one core, and somebody who looks without a pause keeps that worker from running.
 *
 * Nobody lingers when waits have been long (the sleep is lost in them), on a single core (the awaited
 * one needs it), or once giving the core away took long: then others have use for it, and a sleeper
 * that is woken gets a core sooner than one who keeps yielding.
 *
 * Thread-safety: one thread at a time.
 */
#ifndef VEX_BASE_LINGER_H
#define VEX_BASE_LINGER_H

#include <stdbool.h>
#include <stdint.h>

#define VEX_LINGER_WAIT_MAX_NS 300000u /* waits that are longer are slept through from the start */
#define VEX_LINGER_YIELD_MAX_NS 40000u /* a core given away for longer is wanted by others */

struct vex_linger {
    bool alone;          /* on one core */
    uint64_t typical_ns; /* moving average of the waits */
    uint32_t skip;       /* waits to sleep through, others needing the core */
    uint32_t skip_next;  /* how many when that happens again */
    uint64_t start_ns;   /* of the wait under way */
    uint64_t until_ns;
    uint64_t now_ns;
};

void vex_linger_init(struct vex_linger *linger, unsigned cores_count);
/* Cores that this thread may run on. */
unsigned vex_linger_cores(void);

/* A wait begins. */
void vex_linger_begin(struct vex_linger *linger);
/* Gives the core away once. False when it is time to sleep. */
bool vex_linger_more(struct vex_linger *linger);
/* The wait is over, however it went, and is learned from. Left out where a wait is only a part of what
 * counts: then vex_linger_learn_wait is told about the whole. */
void vex_linger_end(struct vex_linger *linger);

/* The decisions behind these, without a clock. 0 = sleep at once. */
uint64_t vex_linger_budget_ns(const struct vex_linger *linger);
void vex_linger_learn_wait(struct vex_linger *linger, uint64_t wait_ns);
/* False if the core was away for so long that others need it. */
bool vex_linger_learn_yield(struct vex_linger *linger, uint64_t yield_ns);

#endif
