/*
 * Publishing, pinning, giving back, cutting off: the heart of the protocol.
 *
 * The daemon publishes views 2 to VIEWS; view n is published in generation n with LSN n, and its list,
 * in a block that may have held another, names segment n alone. After each publication it looks at the
 * slots and gives back what it may: the segment's bytes change, the block is filled again by a later
 * list. Meanwhile it may drop a session: of a reader that died, of one that lives, is in the middle of
 * a read, or will never move again. The cell of a view is one word here; scenario_cell.c has it in full.
 *
 * Reader one begins anew for each read, reader two holds a snapshot and reads from it twice. What may go
 * wrong with them (deaths, sessions dropped) and how much they read is what the two variants differ in.
 */
#include <stddef.h>

#include "tests/model/scenarios.h"

#define VIEWS 3u
#define BLOCKS 3u
#define READERS 2u

enum location {
    CURRENT,
    LSN,
    VIEW,
    CELL_SEQUENCE, /* of 2 */
    CELL_LIST = CELL_SEQUENCE + 2,
    SLOT = CELL_LIST + 2,
    REVOKED = SLOT + READERS,
    BLOCK = REVOKED + READERS,
    SEGMENT = BLOCK + BLOCKS, /* from 1 */
    LOCATIONS = SEGMENT + VIEWS + 1
};

static const char *const location_names[LOCATIONS] = {
    "current", "published_lsn", "view",   "cell 0 sequence", "cell 1 sequence", "cell 0",
    "cell 1",  "slot 1",        "slot 2", "revoked 1",       "revoked 2",       "block 0",
    "block 1", "block 2",       "(none)", "segment 1",       "segment 2",       "segment 3",
};
static const char *const thread_names[] = {"daemon", "reader 1", "reader 2"};

enum { SEGMENT_EMPTY, SEGMENT_WRITTEN, SEGMENT_GIVEN_BACK };

/* A cell's content as one word. */
static uint8_t list_of(uint32_t view, uint32_t block)
{
    return (uint8_t)(view * 8 + block);
}

/* ---- the daemon ------------------------------------------------------------------------------ */

enum daemon_step { D_PUBLISH, D_CURRENT, D_SCAN, D_REVOKE, D_TOUCH, D_FREE, D_LAST_SCAN };

enum daemon_register {
    NEXT_VIEW,
    FREE_BLOCKS,  /* bits */
    RETIRED,      /* bit n: segment and block of view n, bound to generation n + 1 */
    OLDEST,       /* pin of this scan */
    SCANNED,      /* reader of this scan */
    DROPPED,      /* bits */
    CUTS_LEFT,    /* sessions of living readers that may be dropped */
    FINAL,        /* the last scan */
    LATE,         /* FLAW_REVOKE_AFTER_FREE: bits */
    BLOCK_OF_VIEW /* from 1 */
};

static void set_view(struct machine *machine, uint8_t view, uint8_t block)
{
    uint32_t cell = view % 2u;
    machine_store(machine, ACCESS_CELL_UNNAME, CELL_SEQUENCE + cell, 0);
    machine_store(machine, ACCESS_CELL_SET_BLOCK, CELL_LIST + cell, list_of(view, block));
    machine_store(machine, ACCESS_CELL_NAME, CELL_SEQUENCE + cell, view);
    machine_store(machine, ACCESS_VIEW_STORE, VIEW, view);
    machine_store(machine, ACCESS_LSN_STORE, LSN, view);
}

static void begin_scan(struct thread *daemon)
{
    daemon->registers[OLDEST] = UINT8_MAX;
    daemon->registers[SCANNED] = 0;
    daemon->step = D_SCAN;
}

/* vex_publisher_take_block, write_list, vex_control_set_view; vex_control_publish up to its LSN. */
static void publish(struct machine *machine)
{
    struct thread *daemon = machine_thread(machine);
    uint8_t *registers = daemon->registers;
    uint8_t view = registers[NEXT_VIEW];
    uint8_t block = 0;
    while (!(registers[FREE_BLOCKS] & 1u << block)) {
        block++;
    }
    registers[FREE_BLOCKS] &= (uint8_t) ~(1u << block);
    registers[BLOCK_OF_VIEW + view - 1] = block;
    registers[RETIRED] |= (uint8_t)(1u << (view - 1));
    if (machine->flaws[FLAW_CURRENT_BEFORE_VIEW]) {
        machine_store(machine, ACCESS_CURRENT_STORE, CURRENT, view);
    }
    machine_data_write(machine, SEGMENT + view, SEGMENT_WRITTEN);
    machine_data_write(machine, BLOCK + block, view);
    set_view(machine, view, block);
    daemon->step = D_CURRENT;
    if (machine->flaws[FLAW_SCAN_BEFORE_PUBLISH]) {
        begin_scan(daemon);
    }
}

/* vex_control_publish, and what follows it without a choice. */
static void store_current(struct machine *machine)
{
    struct thread *daemon = machine_thread(machine);
    uint8_t *registers = daemon->registers;
    uint8_t view = registers[NEXT_VIEW];
    if (!machine->flaws[FLAW_CURRENT_BEFORE_VIEW]) {
        machine_store(machine, ACCESS_CURRENT_STORE, CURRENT, view);
    }
    if (machine->flaws[FLAW_BLOCK_REUSED_AT_ONCE]) {
        registers[FREE_BLOCKS] |= (uint8_t)(1u << registers[BLOCK_OF_VIEW + view - 2]);
    }
    if (machine->flaws[FLAW_SCAN_BEFORE_PUBLISH]) {
        daemon->step = D_FREE;
        return;
    }
    begin_scan(daemon);
}

/* vex_publisher_reclaim, then the next publication. */
static void give_back(struct machine *machine)
{
    struct thread *daemon = machine_thread(machine);
    uint8_t *registers = daemon->registers;
    for (uint32_t view = 1; view < VIEWS; view++) {
        uint32_t generation = view + (machine->flaws[FLAW_BOUND_TOO_LOW] ? 0 : 1);
        if (registers[RETIRED] & 1u << view && generation <= registers[OLDEST]) {
            registers[RETIRED] &= (uint8_t) ~(1u << view);
            registers[FREE_BLOCKS] |= (uint8_t)(1u << registers[BLOCK_OF_VIEW + view - 1]);
            machine_data_write(machine, SEGMENT + view, SEGMENT_GIVEN_BACK);
        }
    }
    for (uint32_t i = 0; i < READERS; i++) {
        if (registers[LATE] & 1u << i) {
            machine_store(machine, ACCESS_REVOKE, REVOKED + i, 1);
        }
    }
    registers[LATE] = 0;
    if (registers[FINAL]) {
        if (registers[RETIRED]) {
            machine_violation(machine, "memory is never given back, though nobody reads it");
        }
        machine_end(machine);
    } else if (registers[NEXT_VIEW]++ == VIEWS) {
        daemon->step = D_LAST_SCAN;
    } else {
        publish(machine);
    }
}

static void scan_next(struct machine *machine)
{
    struct thread *daemon = machine_thread(machine);
    uint8_t *registers = daemon->registers;
    do {
        registers[SCANNED]++;
    } while (registers[SCANNED] < READERS && registers[DROPPED] & 1u << registers[SCANNED]);
    daemon->step = D_SCAN;
    if (registers[SCANNED] < READERS) {
        return;
    }
    if (machine->flaws[FLAW_SCAN_BEFORE_PUBLISH] && !registers[FINAL]) {
        daemon->step = D_CURRENT;
        return;
    }
    give_back(machine);
}

/* Whether the session of this reader is dropped rather than its slot looked at. */
static bool drops(struct machine *machine, uint32_t reader)
{
    uint8_t *registers = machine_thread(machine)->registers;
    uint8_t state = machine->world->threads[reader + 1].state;
    bool dead = state == THREAD_DEAD && !machine->flaws[FLAW_DEAD_NOT_DROPPED];
    bool cut = state == THREAD_RUNS && registers[CUTS_LEFT] > 0 &&
               !(registers[FINAL] && machine->flaws[FLAW_HUNG_NOT_DROPPED]);
    if ((!dead && !cut) || (!registers[FINAL] && machine_choose(machine, 2) == 0)) {
        return false;
    }
    registers[CUTS_LEFT] = (uint8_t)(registers[CUTS_LEFT] - (dead ? 0 : 1));
    return true;
}

/* reclaim() of the server, one client's page. */
static void scan(struct machine *machine)
{
    struct thread *daemon = machine_thread(machine);
    uint8_t *registers = daemon->registers;
    uint32_t reader = registers[SCANNED];
    if (registers[DROPPED] & 1u << reader) {
        scan_next(machine);
        return;
    }
    if (drops(machine, reader)) {
        daemon->step = D_REVOKE;
        if (machine->flaws[FLAW_REVOKE_AFTER_FREE]) {
            registers[LATE] |= (uint8_t)(1u << reader);
            daemon->step = D_TOUCH;
        }
        return;
    }
    machine->newest = registers[FINAL];
    uint8_t pinned = machine_load(machine, ACCESS_SLOT_SCAN, SLOT + reader);
    machine->newest = false;
    if (pinned != 0 && pinned < registers[OLDEST]) {
        registers[OLDEST] = pinned;
    }
    scan_next(machine);
}

/* vex_slot_page_revoke after its store. */
static void touch(struct machine *machine)
{
    uint8_t *registers = machine_thread(machine)->registers;
    if (!machine->flaws[FLAW_NOT_TOUCHED]) {
        (void)machine_add(machine, ACCESS_SLOT_TOUCH, SLOT + registers[SCANNED], 0);
    }
    registers[DROPPED] |= (uint8_t)(1u << registers[SCANNED]);
    scan_next(machine);
}

/* Nothing more to publish: when the readers have ended, or the last of them is cut off, all that was
 * retired must come back. */
static void begin_last_scan(struct machine *machine)
{
    struct thread *daemon = machine_thread(machine);
    uint8_t *registers = daemon->registers;
    uint32_t hung = 0;
    for (uint32_t i = 0; i < READERS; i++) {
        hung +=
            machine->world->threads[i + 1].state == THREAD_RUNS && !(registers[DROPPED] & 1u << i);
    }
    machine->blocked = hung > registers[CUTS_LEFT];
    registers[FINAL] = 1;
    begin_scan(daemon);
}

static void daemon_step(struct machine *machine)
{
    struct thread *daemon = machine_thread(machine);
    switch ((enum daemon_step)daemon->step) {
    case D_PUBLISH:
        publish(machine);
        break;
    case D_CURRENT:
        store_current(machine);
        break;
    case D_SCAN:
        scan(machine);
        break;
    case D_REVOKE:
        machine_store(machine, ACCESS_REVOKE, REVOKED + daemon->registers[SCANNED], 1);
        daemon->step = D_TOUCH;
        break;
    case D_TOUCH:
        touch(machine);
        break;
    case D_FREE:
        give_back(machine);
        break;
    case D_LAST_SCAN:
        begin_last_scan(machine);
        break;
    }
}

/* ---- readers --------------------------------------------------------------------------------- */

enum reader_step { R_ENTER, R_REFRESH, R_RAISE, R_READ, R_LOOK, R_HELD, R_LEAVE };

enum reader_register {
    LAST_GENERATION, /* 0 = no slot yet */
    PINNED,
    READ_LSN,
    SEQUENCE,
    LIST,
    READS_LEFT,
    IS_SNAPSHOT,
    REVOKED_SEEN /* FLAW_LOOK_BEFORE_UNPIN */
};

static uint32_t slot_of(const struct machine *machine)
{
    return SLOT + machine->thread - 1;
}

static uint32_t revoked_of(const struct machine *machine)
{
    return REVOKED + machine->thread - 1;
}

/* take_locked when it has no slot yet, then vex_pin_enter. */
static void enter(struct machine *machine)
{
    struct thread *reader = machine_thread(machine);
    uint8_t *registers = reader->registers;
    if (registers[LAST_GENERATION] == 0) {
        registers[LAST_GENERATION] = machine_load(machine, ACCESS_CURRENT_LOAD, CURRENT);
    }
    machine_read_begin(machine);
    (void)machine_exchange(machine, ACCESS_SLOT_ENTER, slot_of(machine),
                           registers[LAST_GENERATION]);
    registers[PINNED] = registers[LAST_GENERATION];
    reader->step = machine->flaws[FLAW_PIN_WITHOUT_SECOND_LOOK] ? R_READ : R_REFRESH;
}

/* vex_pin_refresh */
static void refresh(struct machine *machine)
{
    struct thread *reader = machine_thread(machine);
    uint8_t *registers = reader->registers;
    uint8_t current = machine_load(machine, ACCESS_CURRENT_REFRESH, CURRENT);
    reader->step = R_READ;
    if (current != registers[LAST_GENERATION]) {
        registers[PINNED] = registers[LAST_GENERATION] = current;
        if (machine->flaws[FLAW_RAISED_BY_STORE]) {
            machine_store(machine, ACCESS_RELAXED, slot_of(machine), current);
        } else {
            reader->step = R_RAISE;
        }
    }
}

/* vex_control_view. False if a cell was being written. */
static bool find_view(struct machine *machine)
{
    uint8_t *registers = machine_thread(machine)->registers;
    uint8_t sequence = machine_load(machine, ACCESS_VIEW_LOAD, VIEW);
    uint32_t cell = sequence % 2u;
    registers[SEQUENCE] = sequence;
    if (machine_load(machine, ACCESS_CELL_FIRST_LOOK, CELL_SEQUENCE + cell) != sequence) {
        return false;
    }
    registers[LIST] = machine_load(machine, ACCESS_CELL_GET_BLOCK, CELL_LIST + cell);
    if (machine_load(machine, ACCESS_CELL_LAST_LOOK, CELL_SEQUENCE + cell) != sequence) {
        return false;
    }
    if (registers[LIST] / 8u != sequence) {
        machine_violation(machine, "a view is seen half written");
    }
    return true;
}

static void read_list_and_rows(struct machine *machine)
{
    const uint8_t *registers = machine_thread(machine)->registers;
    uint8_t view = registers[SEQUENCE];
    machine_data_read(machine, BLOCK + registers[LIST] % 8u, view, view);
    machine_data_read(machine, SEGMENT + view, SEGMENT_WRITTEN, SEGMENT_WRITTEN);
}

/* The read is over and the page was not revoked: the answer goes to the caller. */
static void accept(struct machine *machine)
{
    const uint8_t *registers = machine_thread(machine)->registers;
    if (registers[READ_LSN] > registers[SEQUENCE]) {
        machine_violation(machine, "a read's view does not cover the LSN that it reports");
    }
    if (registers[PINNED] > registers[SEQUENCE]) {
        machine_violation(machine, "a read's view is older than the generation it pinned");
    }
    machine_read_accept(machine);
}

static void unpin(struct machine *machine)
{
    struct thread *reader = machine_thread(machine);
    if (machine->flaws[FLAW_LOOK_BEFORE_UNPIN]) {
        reader->registers[REVOKED_SEEN] =
            machine_load(machine, ACCESS_REVOKED_LEAVE, revoked_of(machine));
    }
    (void)machine_exchange(machine, ACCESS_SLOT_LEAVE, slot_of(machine), 0);
    reader->step = R_LOOK;
    if (reader->registers
            [IS_SNAPSHOT]) { /* vex_snapshot_close: nothing was read since the last look */
        machine_read_discard(machine);
        machine_end(machine);
    }
}

/* vex_pin_holds up to its look, after each read of a snapshot. */
static void hold(struct machine *machine)
{
    if (!machine->flaws[FLAW_HOLD_WITHOUT_TOUCH]) {
        (void)machine_add(machine, ACCESS_SLOT_HOLD, slot_of(machine), 0);
    }
    machine_thread(machine)->step = R_HELD;
}

/* try_begin behind its pin, then the read itself up to where the pin ends or is looked after. */
static void read_once(struct machine *machine)
{
    uint8_t *registers = machine_thread(machine)->registers;
    if (!machine->flaws[FLAW_LSN_AFTER_VIEW]) {
        registers[READ_LSN] = machine_load(machine, ACCESS_LSN_LOAD, LSN);
    }
    if (!find_view(machine)) {
        return; /* once more, in the next step */
    }
    if (machine->flaws[FLAW_LSN_AFTER_VIEW]) {
        registers[READ_LSN] = machine_load(machine, ACCESS_LSN_LOAD, LSN);
    }
    read_list_and_rows(machine);
    if (registers[IS_SNAPSHOT]) {
        hold(machine);
    } else {
        unpin(machine);
    }
}

/* vex_unpin behind its exchange, and the next read's pin. */
static void look(struct machine *machine)
{
    struct thread *reader = machine_thread(machine);
    uint8_t revoked = machine->flaws[FLAW_LOOK_BEFORE_UNPIN]
                          ? reader->registers[REVOKED_SEEN]
                          : machine_load(machine, ACCESS_REVOKED_LEAVE, revoked_of(machine));
    if (revoked) {
        machine_read_discard(machine);
        machine_end(machine);
        return;
    }
    accept(machine);
    if (--reader->registers[READS_LEFT] == 0) {
        machine_end(machine);
        return;
    }
    enter(machine);
}

/* vex_pin_holds from its look on, and the next read from the snapshot. */
static void look_after(struct machine *machine)
{
    struct thread *reader = machine_thread(machine);
    if (machine_load(machine, ACCESS_REVOKED_HOLD, revoked_of(machine)) != 0) {
        unpin(machine);
        return;
    }
    accept(machine);
    if (--reader->registers[READS_LEFT] == 0) {
        unpin(machine);
        return;
    }
    read_list_and_rows(machine);
    hold(machine);
}

static void reader_step(struct machine *machine)
{
    struct thread *reader = machine_thread(machine);
    switch ((enum reader_step)reader->step) {
    case R_ENTER:
        enter(machine);
        break;
    case R_REFRESH:
        refresh(machine);
        break;
    case R_RAISE: /* still vex_pin_refresh */
        (void)machine_exchange(machine, ACCESS_SLOT_RAISE, slot_of(machine),
                               reader->registers[PINNED]);
        reader->step = R_READ;
        break;
    case R_READ:
        read_once(machine);
        break;
    case R_LOOK:
        look(machine);
        break;
    case R_HELD:
        look_after(machine);
        break;
    case R_LEAVE:
        unpin(machine);
        break;
    }
}

/* ---- together -------------------------------------------------------------------------------- */

static void begin(struct machine *machine)
{
    for (uint32_t i = 0; i < LOCATIONS; i++) {
        machine_set(machine, i, 0);
    }
    machine_set(machine, CURRENT, 1);
    machine_set(machine, LSN, 1);
    machine_set(machine, VIEW, 1);
    machine_set(machine, CELL_SEQUENCE + 1, 1);
    machine_set(machine, CELL_LIST + 1, list_of(1, 0));
    machine_set(machine, BLOCK, 1);
    machine_set(machine, SEGMENT + 1, SEGMENT_WRITTEN);
    uint8_t *daemon = machine->world->threads[0].registers;
    daemon[NEXT_VIEW] = 2;
    daemon[FREE_BLOCKS] = (1u << BLOCKS) - 2u;
    for (uint32_t i = 1; i <= READERS; i++) {
        machine->world->threads[i].registers[READS_LEFT] = 2;
    }
    machine->world->threads[2].registers[IS_SNAPSHOT] = 1;
}

static void begin_cut(struct machine *machine)
{
    begin(machine);
    machine->world->threads[0].registers[CUTS_LEFT] = 1;
}

static void step(struct machine *machine)
{
    if (machine->thread == 0) {
        daemon_step(machine);
    } else {
        reader_step(machine);
    }
}

const struct scenario scenario_reclaim = {
    .name = "reclaim",
    .what = "publish, pin, give back; two readers, one with a snapshot; one may die",
    .threads_count = 1 + READERS,
    .locations_count = LOCATIONS,
    .deaths_max = 1,
    .may_die = {false, true, true},
    .attempt_step = R_READ,
    .location_names = location_names,
    .thread_names = thread_names,
    .begin = begin,
    .step = step,
};

const struct scenario scenario_cut = {
    .name = "cut",
    .what = "as reclaim without deaths; the session of one living reader is dropped at any moment",
    .threads_count = 1 + READERS,
    .locations_count = LOCATIONS,
    .deaths_max = 0,
    .may_die = {false, true, true},
    .attempt_step = R_READ,
    .location_names = location_names,
    .thread_names = thread_names,
    .begin = begin_cut,
    .step = step,
};
