/*
 * The ring of view cells, word for word, without pins: the daemon sets views 2 to VIEWS in a ring of
 * two, so that readers are lapped, while two readers take the view that is current. Each store of the
 * daemon is a step of its own here, because it may stop for ever after any of them, and a reader that
 * is left alone then must still come to an end.
 *
 * The rows that a view shows, its own here, stand for everything written before the view is set.
 */
#include <stddef.h>

#include "tests/model/scenarios.h"

#define VIEWS 4u
#define WORDS 7u
#define CELL_LOCATIONS (1u + WORDS)

enum location { VIEW, CELLS, ROWS = CELLS + 2 * CELL_LOCATIONS, LOCATIONS = ROWS + VIEWS + 1 };

static const char *const location_names[LOCATIONS] = {
    "view",
    "cell 0 sequence",
    "cell 0 lsn",
    "cell 0 list_id",
    "cell 0 live_rows",
    "cell 0 dead_rows",
    "cell 0 shm_bytes",
    "cell 0 list_block",
    "cell 0 tail_rows",
    "cell 1 sequence",
    "cell 1 lsn",
    "cell 1 list_id",
    "cell 1 live_rows",
    "cell 1 dead_rows",
    "cell 1 shm_bytes",
    "cell 1 list_block",
    "cell 1 tail_rows",
    "(none)",
    "rows 1",
    "rows 2",
    "rows 3",
    "rows 4",
};
static const char *const thread_names[] = {"daemon", "reader 1", "reader 2"};

/* In the order in which both sides go through them. */
static const enum access setters[WORDS] = {
    ACCESS_CELL_SET_LSN,   ACCESS_CELL_SET_LIST_ID, ACCESS_CELL_SET_LIVE, ACCESS_CELL_SET_DEAD,
    ACCESS_CELL_SET_BYTES, ACCESS_CELL_SET_BLOCK,   ACCESS_CELL_SET_TAIL,
};
static const enum access getters[WORDS] = {
    ACCESS_CELL_GET_LSN,   ACCESS_CELL_GET_LIST_ID, ACCESS_CELL_GET_LIVE, ACCESS_CELL_GET_DEAD,
    ACCESS_CELL_GET_BYTES, ACCESS_CELL_GET_BLOCK,   ACCESS_CELL_GET_TAIL,
};

static uint32_t cell_of(const struct machine *machine, uint32_t sequence)
{
    return CELLS + (machine->flaws[FLAW_RING_OF_ONE] ? 0 : sequence % 2u) * CELL_LOCATIONS;
}

/* vex_control_set_view; the rows were written before. */
static void daemon_step(struct machine *machine)
{
    struct thread *daemon = machine_thread(machine);
    uint8_t sequence = daemon->registers[0];
    uint32_t cell = cell_of(machine, sequence);
    uint32_t word = daemon->step;
    daemon->step++;
    if (word == 0) {
        machine_data_write(machine, ROWS + sequence, 1);
        if (!machine->flaws[FLAW_CELL_NOT_UNNAMED]) {
            machine_store(machine, ACCESS_CELL_UNNAME, cell, 0);
        }
    } else if (word <= WORDS) {
        machine_store(machine, setters[word - 1], cell + word, sequence);
    } else if (word == WORDS + 1) {
        machine_store(machine, ACCESS_CELL_NAME, cell, sequence);
    } else {
        machine_store(machine, ACCESS_VIEW_STORE, VIEW, sequence);
        daemon->step = 0;
        if (daemon->registers[0]++ == VIEWS) {
            machine_end(machine);
        }
    }
}

#define ATTEMPT 1u /* the only step of a reader */

/* vex_control_view and read_cell. A failed attempt is a step of its own. */
static void reader_step(struct machine *machine)
{
    uint8_t sequence = machine_load(machine, ACCESS_VIEW_LOAD, VIEW);
    uint32_t cell = cell_of(machine, sequence);
    if (machine_load(machine, ACCESS_CELL_FIRST_LOOK, cell) != sequence) {
        return;
    }
    bool whole = true;
    for (uint32_t i = 0; i < WORDS; i++) {
        whole &= machine_load(machine, getters[i], cell + 1 + i) == sequence;
    }
    if (!machine->flaws[FLAW_NO_LAST_LOOK] &&
        machine_load(machine, ACCESS_CELL_LAST_LOOK, cell) != sequence) {
        return;
    }
    if (!whole) {
        machine_violation(machine, "a view is seen half written");
    }
    machine_data_read(machine, ROWS + sequence, 1, 1);
    machine_read_accept(machine);
    machine_end(machine);
}

static void begin(struct machine *machine)
{
    for (uint32_t i = 0; i < LOCATIONS; i++) {
        machine_set(machine, i, 0);
    }
    machine_set(machine, ROWS + 1, 1);
    machine_set(machine, VIEW, 1);
    uint32_t cell = cell_of(machine, 1);
    for (uint32_t i = 0; i < CELL_LOCATIONS; i++) {
        machine_set(machine, cell + i, 1);
    }
    machine->world->threads[0].registers[0] = 2;
    machine->world->threads[1].step = ATTEMPT;
    machine->world->threads[2].step = ATTEMPT;
}

static void step(struct machine *machine)
{
    if (machine->thread == 0) {
        daemon_step(machine);
    } else {
        reader_step(machine);
    }
}

const struct scenario scenario_cell = {
    .name = "cell",
    .what = "every word of a view's cell, readers that are lapped, a daemon that stops half-way",
    .threads_count = 3,
    .locations_count = LOCATIONS,
    .attempt_step = ATTEMPT,
    .location_names = location_names,
    .thread_names = thread_names,
    .begin = begin,
    .step = step,
};
