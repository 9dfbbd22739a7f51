#include "base/linger.h"

#include <sched.h>

#include "base/clock.h"

#define BUDGET_MIN_NS 20000u
/* A single long wait, when a client pauses, should not undo what many short ones have shown. */
#define LEARNED_MAX_NS (4u * VEX_LINGER_WAIT_MAX_NS)
#define WEIGHT 8u
#define SKIP_MIN 16u
#define SKIP_MAX 4096u

void vex_linger_init(struct vex_linger *linger, unsigned cores_count)
{
    *linger = (struct vex_linger){
        .alone = cores_count < 2,
        .typical_ns = LEARNED_MAX_NS, /* to be earned */
        .skip_next = SKIP_MIN,
    };
}

unsigned vex_linger_cores(void)
{
    cpu_set_t cores;
    /* Fails on machines with more cores than the set has bits. */
    return sched_getaffinity(0, sizeof(cores), &cores) == 0 ? (unsigned)CPU_COUNT(&cores)
                                                            : CPU_SETSIZE;
}

uint64_t vex_linger_budget_ns(const struct vex_linger *linger)
{
    if (linger->alone || linger->skip || linger->typical_ns > VEX_LINGER_WAIT_MAX_NS) {
        return 0;
    }
    uint64_t budget_ns = 2 * linger->typical_ns;
    budget_ns = budget_ns < BUDGET_MIN_NS ? BUDGET_MIN_NS : budget_ns;
    return budget_ns < VEX_LINGER_WAIT_MAX_NS ? budget_ns : VEX_LINGER_WAIT_MAX_NS;
}

void vex_linger_learn_wait(struct vex_linger *linger, uint64_t wait_ns)
{
    wait_ns = wait_ns < LEARNED_MAX_NS ? wait_ns : LEARNED_MAX_NS;
    linger->typical_ns = (linger->typical_ns * (WEIGHT - 1) + wait_ns) / WEIGHT;
    if (linger->skip) {
        linger->skip--;
    } else if (linger->skip_next > SKIP_MIN) {
        linger->skip_next--; /* slowly: a crowd comes back */
    }
}

bool vex_linger_learn_yield(struct vex_linger *linger, uint64_t yield_ns)
{
    if (yield_ns <= VEX_LINGER_YIELD_MAX_NS) {
        return true;
    }
    linger->skip = linger->skip_next;
    linger->skip_next = linger->skip_next < SKIP_MAX ? 2 * linger->skip_next : SKIP_MAX;
    return false;
}

void vex_linger_begin(struct vex_linger *linger)
{
    linger->start_ns = linger->now_ns = vex_clock_ns();
    linger->until_ns = linger->start_ns + vex_linger_budget_ns(linger);
}

bool vex_linger_more(struct vex_linger *linger)
{
    if (linger->skip || linger->now_ns >= linger->until_ns) {
        return false;
    }
    (void)sched_yield();
    uint64_t before_ns = linger->now_ns;
    linger->now_ns = vex_clock_ns();
    return vex_linger_learn_yield(linger, linger->now_ns - before_ns);
}

void vex_linger_end(struct vex_linger *linger)
{
    vex_linger_learn_wait(linger, vex_clock_ns() - linger->start_ns);
}
