/*
 * Two small things that clients do without a pin. Wait: readers sleep on the futex until an LSN is
 * published or the daemon says that it goes; nobody may sleep for ever. Time does not pass, so the
 * slices in which libvex waits do not help. Ready: a client looks at a control region that is being
 * made, and at the two flags that everybody reads, revoked and heartbeat.
 */
#include <stddef.h>

#include "tests/model/scenarios.h"

static const char *const thread_names[] = {"daemon", "reader 1", "reader 2"};

/* ---- wait ------------------------------------------------------------------------------------ */

enum wait_location { VIEW, LSN, WAKE, STATE, WAIT_LOCATIONS };

static const char *const wait_names[WAIT_LOCATIONS] = {"view", "published_lsn", "wake", "state"};

enum { STATE_RUNNING, STATE_GONE };
enum daemon_step { D_FIRST, D_SECOND, D_FUTEX };
enum daemon_register { NEXT_LSN, WAKES, GOES };
enum reader_step { R_LOOK, R_SLEEP };
enum reader_register { WANTED, WAKE_SEEN };

static void store_wake(struct machine *machine)
{
    machine_store(machine, ACCESS_WAKE_STORE, WAKE, ++machine_thread(machine)->registers[WAKES]);
}

/* vex_control_set_view and vex_control_publish; or, after the last one, vex_control_set_state. */
static void change(struct machine *machine, bool goes)
{
    uint8_t lsn = machine_thread(machine)->registers[NEXT_LSN];
    if (goes) {
        machine_store(machine, ACCESS_STATE_STORE, STATE, STATE_GONE);
        return;
    }
    machine_store(machine, ACCESS_VIEW_STORE, VIEW, lsn);
    machine_store(machine, ACCESS_LSN_STORE, LSN, lsn);
}

/* The kernel: whoever sleeps runs. */
static void wake_sleepers(struct machine *machine)
{
    struct thread *daemon = machine_thread(machine);
    for (uint32_t i = 1; i < machine->threads_count; i++) {
        struct thread *reader = &machine->world->threads[i];
        reader->state = reader->state == THREAD_SLEEPS ? THREAD_RUNS : reader->state;
    }
    daemon->step = D_FIRST;
    if (daemon->registers[NEXT_LSN]++ == 3) {
        machine_end(machine);
    }
}

/* Publishes LSN 2, then either 3 or the end of the daemon; wake_waiters after each. */
static void wait_daemon_step(struct machine *machine)
{
    struct thread *daemon = machine_thread(machine);
    uint8_t *registers = daemon->registers;
    if (daemon->step == D_FUTEX) {
        wake_sleepers(machine);
        return;
    }
    if (daemon->step == D_FIRST) {
        registers[GOES] = registers[NEXT_LSN] == 3 && machine_choose(machine, 2) == 1;
    }
    bool wakes_early =
        machine->flaws[registers[GOES] ? FLAW_STATE_AFTER_WAKE : FLAW_WAKE_BEFORE_LSN];
    if (wakes_early == (daemon->step == D_FIRST)) {
        store_wake(machine);
    } else {
        change(machine, registers[GOES]);
    }
    daemon->step++;
}

/* vex_control_wait, one turn. What is found is read from a view, as find_view does. */
static void wait_reader_step(struct machine *machine)
{
    struct thread *reader = machine_thread(machine);
    uint8_t *registers = reader->registers;
    if (reader->step == R_SLEEP) { /* FUTEX_WAIT compares under a lock of the kernel */
        reader->step = R_LOOK;
        if (machine_newest(machine, WAKE) == registers[WAKE_SEEN]) {
            reader->state = THREAD_SLEEPS;
        }
        return;
    }
    bool late = machine->flaws[FLAW_WAKE_LOADED_LATE];
    if (!late) {
        registers[WAKE_SEEN] = machine_load(machine, ACCESS_WAKE_LOAD, WAKE);
    }
    uint8_t lsn = machine_load(machine, ACCESS_LSN_LOAD, LSN);
    if (lsn >= registers[WANTED]) {
        if (machine_load(machine, ACCESS_VIEW_LOAD, VIEW) < lsn) {
            machine_violation(machine, "a read's view does not cover the LSN it waited for");
        }
        machine_end(machine);
        return;
    }
    if (machine_load(machine, ACCESS_STATE_LOAD, STATE) == STATE_GONE) {
        machine_end(machine);
        return;
    }
    if (late) {
        registers[WAKE_SEEN] = machine_load(machine, ACCESS_WAKE_LOAD, WAKE);
    }
    reader->step = R_SLEEP;
}

static void begin_wait(struct machine *machine)
{
    for (uint32_t i = 0; i < WAIT_LOCATIONS; i++) {
        machine_set(machine, i, 0);
    }
    machine_set(machine, VIEW, 1);
    machine_set(machine, LSN, 1);
    machine->world->threads[0].registers[NEXT_LSN] = 2;
    machine->world->threads[1].registers[WANTED] = 2;
    machine->world->threads[2].registers[WANTED] = 3;
}

static void step_wait(struct machine *machine)
{
    if (machine->thread == 0) {
        wait_daemon_step(machine);
    } else {
        wait_reader_step(machine);
    }
}

const struct scenario scenario_wait = {
    .name = "wait",
    .what = "two readers sleep until an LSN is published, or the daemon goes",
    .threads_count = 3,
    .locations_count = WAIT_LOCATIONS,
    .location_names = wait_names,
    .thread_names = thread_names,
    .begin = begin_wait,
    .step = step_wait,
};

/* ---- ready ----------------------------------------------------------------------------------- */

enum ready_location { HEAD, READY, HEARTBEAT, REVOKED, READY_LOCATIONS };

static const char *const ready_names[READY_LOCATIONS] = {"head", "layout_hash", "heartbeat_ms",
                                                         "revoked"};

static void ready_daemon_step(struct machine *machine)
{
    if (machine->flaws[FLAW_READY_FIRST]) {
        machine_store(machine, ACCESS_READY_STORE, READY, 1);
        machine_data_write(machine, HEAD, 1);
    } else {
        machine_data_write(machine, HEAD, 1); /* vex_control_init */
        machine_store(machine, ACCESS_READY_STORE, READY, 1);
    }
    machine_store(machine, ACCESS_BEAT_STORE, HEARTBEAT, 1);
    machine_store(machine, ACCESS_REVOKE, REVOKED, 1);
    machine_end(machine);
}

/* vex_control_check; then is_stale and vex_attachment_is_over, whose answers are only flags. */
static void ready_reader_step(struct machine *machine)
{
    if (machine_load(machine, ACCESS_READY_LOAD, READY) != 0) {
        machine_data_read(machine, HEAD, 1, 1);
        machine_read_accept(machine);
    }
    (void)machine_load(machine, ACCESS_BEAT_LOAD, HEARTBEAT);
    (void)machine_load(machine, ACCESS_REVOKED_FLAG, REVOKED);
    machine_end(machine);
}

static void begin_ready(struct machine *machine)
{
    for (uint32_t i = 0; i < READY_LOCATIONS; i++) {
        machine_set(machine, i, 0);
    }
}

static void step_ready(struct machine *machine)
{
    if (machine->thread == 0) {
        ready_daemon_step(machine);
    } else {
        ready_reader_step(machine);
    }
}

const struct scenario scenario_ready = {
    .name = "ready",
    .what = "a client finds a control region that is being made",
    .threads_count = 3,
    .locations_count = READY_LOCATIONS,
    .location_names = ready_names,
    .thread_names = thread_names,
    .begin = begin_ready,
    .step = step_ready,
};
