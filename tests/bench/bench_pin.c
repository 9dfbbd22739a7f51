/*
 * vexbench pin: what it costs to begin and end a read.
 *
 * vex_count is the cheapest call that pins, looks at the view and unpins; vex_exists adds one look
 * into an id table. Beside them, in turns on the same core, two loops that say what the machine
 * does: a pair of atomic exchanges, which is what a pin cannot do without, and the clock.
 *
 * With threads, each one runs the same loop on a core of its own and on the same collection handle.
 * Readers share no line that any of them writes, so the cost must not grow; `vs_one` says so. Lines
 * shared by accident hurt at times only, depending on where memory happened to lie: every turn has
 * new threads, hence new slots, and `vs_one_p90` shows what the median hides.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include <vex/vex.h>

#include "tests/bench/bench.h"
#include "tests/bench/common.h"
#include "tests/bench/crew.h"
#include "tests/bench/instance.h"

#define CALLS 10000u /* in a batch: the clock's own cost vanishes */
#define SLICES 10u   /* the loops take turns */
#define SLICE_BATCHES_MIN 5u
#define DIM 8u

enum { SECONDS, THREADS, ROWS, DIR };

static const struct vex_bench_option options[] = {
    [SECONDS] = {"seconds", VEX_BENCH_SECONDS, "S", "2", 0.001, 3600, "length of the measurement"},
    [THREADS] = {"threads", VEX_BENCH_COUNT, "N", "1", 1, 256,
                 "then with so many threads at once, too"},
    [ROWS] = {"rows", VEX_BENCH_COUNT, "N", "1000", 1, 100000000, "rows of the collection"},
    [DIR] = VEX_BENCH_OPTION_DIR,
    {0},
};

enum loop { LOOP_COUNT, LOOP_EXISTS, LOOP_EXCHANGES, LOOP_CLOCK, LOOPS };

static const char *const loop_names[LOOPS] = {
    [LOOP_COUNT] = "count",
    [LOOP_EXISTS] = "exists",
    [LOOP_EXCHANGES] = "exchanges",
    [LOOP_CLOCK] = "clock",
};

/* One loop, run by all threads at once. */
struct turn {
    struct vex_collection *collection;
    uint64_t rows;
    enum loop loop;
    uint64_t duration_ns;
    struct vex_samples *samples_ns; /* of each thread: a batch's time by its calls */
};

/* ---- the loops: each one is CALLS calls ------------------------------------------------------ */

static bool loop_count(struct vex_collection *collection, uint64_t rows)
{
    uint64_t wrong = 0;
    for (unsigned i = 0; i < CALLS; i++) {
        uint64_t count = 0;
        wrong += vex_count(collection, NULL, &count, NULL) != VEX_OK || count != rows;
    }
    return wrong == 0;
}

static bool loop_exists(struct vex_collection *collection, uint64_t rows)
{
    uint64_t wrong = 0;
    uint64_t id = 0;
    for (unsigned i = 0; i < CALLS; i++) {
        bool exists = false;
        wrong += vex_exists(collection, id, NULL, &exists, NULL) != VEX_OK || !exists;
        id += 617; /* a prime, so that neighbours are not asked one after the other */
        id = id < rows ? id : id % rows;
    }
    return wrong == 0;
}

static bool loop_exchanges(void)
{
    _Alignas(64) _Atomic uint64_t word = 0;
    uint64_t sum = 0;
    for (unsigned i = 0; i < CALLS; i++) {
        /* As a pin and its end do, on a line of their own; nobody else looks. */
        sum += atomic_exchange_explicit(&word, i + 1, memory_order_seq_cst);
        sum += atomic_exchange_explicit(&word, 0, memory_order_acq_rel);
    }
    return sum == (uint64_t)CALLS * (CALLS + 1) / 2;
}

static bool loop_clock(void)
{
    uint64_t before_ns = 0;
    for (unsigned i = 0; i < CALLS; i++) {
        uint64_t now_ns = vex_bench_clock_ns();
        if (now_ns < before_ns) {
            return false;
        }
        before_ns = now_ns;
    }
    return true;
}

static bool run_loop(const struct turn *turn)
{
    switch (turn->loop) {
    case LOOP_COUNT:
        return loop_count(turn->collection, turn->rows);
    case LOOP_EXISTS:
        return loop_exists(turn->collection, turn->rows);
    case LOOP_EXCHANGES:
        return loop_exchanges();
    case LOOP_CLOCK:
    case LOOPS:
        break;
    }
    return loop_clock();
}

static bool take_turn(struct vex_crew *crew, void *context, unsigned index)
{
    const struct turn *turn = context;
    (void)vex_core_take(index);
    bool sound = run_loop(turn); /* warm; and the thread gets its slot */
    if (!vex_crew_ready(crew)) {
        return true;
    }
    uint64_t start_ns = vex_bench_clock_ns();
    uint64_t before_ns = start_ns;
    for (unsigned i = 0;
         sound && (i < SLICE_BATCHES_MIN || before_ns - start_ns < turn->duration_ns); i++) {
        sound = run_loop(turn);
        uint64_t now_ns = vex_bench_clock_ns();
        vex_samples_add(&turn->samples_ns[index], (double)(now_ns - before_ns) / CALLS);
        before_ns = now_ns;
    }
    return sound ||
           vex_bench_fail("loop %s: a call failed or gave a wrong answer", loop_names[turn->loop]);
}

/* ---- the run --------------------------------------------------------------------------------- */

/* What one thread alone needed. */
struct alone {
    double ns;
    double p90_ns;
};

/* By one thread `alone` is set, by more it is compared with. */
static bool print_loop(enum loop loop, unsigned threads, struct vex_samples *samples_ns,
                       struct alone *alone)
{
    struct vex_samples medians = {0};
    struct vex_samples all = {0};
    for (unsigned i = 0; i < threads; i++) {
        vex_samples_add(&medians, vex_samples_median(&samples_ns[i]));
        vex_samples_append(&all, &samples_ns[i]);
    }
    struct alone now = {vex_samples_median(&all), vex_samples_quantile(&all, 0.9)};
    if (threads == 1) {
        *alone = now;
    }
    struct vex_line line;
    vex_line_begin(&line, loop_names[loop]);
    vex_line_count(&line, "threads", threads);
    vex_line_count(&line, "batches", all.count);
    vex_line_count(&line, "batch_calls", CALLS);
    vex_line_real(&line, "ns", now.ns);
    vex_line_real(&line, "ns_least", vex_samples_quantile(&all, 0));
    vex_line_real(&line, "ns_p90", now.p90_ns);
    vex_line_real(&line, "ns_slowest_thread", vex_samples_quantile(&medians, 1));
    vex_line_real(&line, "vs_one", now.ns / alone->ns);
    vex_line_real(&line, "vs_one_p90", now.p90_ns / alone->p90_ns);
    vex_samples_deinit(&all);
    vex_samples_deinit(&medians);
    return vex_line_end(&line);
}

/* All loops with so many threads. */
static bool measure(struct vex_collection *collection, const struct vex_bench_value *values,
                    unsigned threads, struct alone alone[LOOPS])
{
    double turn_seconds = values[SECONDS].seconds / (SLICES * (double)LOOPS);
    struct vex_samples *samples_ns = vex_bench_alloc(LOOPS * threads, sizeof(*samples_ns));
    bool sound = true;
    for (unsigned i = 0; i < SLICES * LOOPS && sound && !vex_bench_stopped(); i++) {
        struct turn turn = {
            .collection = collection,
            .rows = values[ROWS].count,
            .loop = (enum loop)(i % LOOPS),
            .duration_ns = (uint64_t)(turn_seconds * 1e9),
            .samples_ns = samples_ns + i % LOOPS * threads,
        };
        sound = vex_crew_run(threads, take_turn, &turn);
    }
    for (unsigned loop = 0; loop < LOOPS && sound && !vex_bench_stopped(); loop++) {
        sound = print_loop((enum loop)loop, threads, samples_ns + loop * threads, &alone[loop]);
    }
    for (unsigned i = 0; i < LOOPS * threads; i++) {
        vex_samples_deinit(&samples_ns[i]);
    }
    free(samples_ns);
    return sound;
}

static bool run(const struct vex_bench_value *values)
{
    struct vex_instance instance;
    if (!vex_instance_open(&instance, &values[DIR])) {
        return false;
    }
    unsigned threads = (unsigned)values[THREADS].count;
    if (threads > vex_cores_count()) {
        vex_bench_note("%u threads on %u cores: they share", threads, vex_cores_count());
    }
    struct vex_collection *collection = NULL;
    uint64_t seed = 1;
    struct alone alone[LOOPS] = {0};
    bool measured = vex_instance_collection(instance.db, "pin", DIM, VEX_METRIC_L2, &collection) &&
                    vex_instance_fill(collection, DIM, values[ROWS].count, &seed) &&
                    measure(collection, values, 1, alone) &&
                    (threads == 1 || measure(collection, values, threads, alone));
    vex_collection_close(collection);
    vex_instance_close(&instance);
    return measured;
}

const struct vex_bench vex_bench_pin = {
    "pin",
    "nanoseconds to begin and end a read",
    options,
    run,
};
