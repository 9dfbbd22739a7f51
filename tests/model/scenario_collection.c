/*
 * A collection is dropped, and another one gets its place. The daemon drops collection 1, publishes,
 * and puts collection 2 into the place as soon as no slot can still see the first. One reader has a
 * handle of collection 1 and knows its place; the other one looks through the places, as one does who
 * opens or lists collections. A view is one word, whose value is the collection that it belongs to.
 */
#include <stddef.h>

#include "tests/model/scenarios.h"

#define READERS 2u

enum location {
    CURRENT,
    CATALOG,
    ID,
    FACTS,
    VIEW,
    SLOT,
    ROWS = SLOT + READERS, /* from 1 */
    LOCATIONS = ROWS + 3
};

static const char *const location_names[LOCATIONS] = {
    "current", "catalog", "id", "facts", "view", "slot 1", "slot 2", "(none)", "rows 1", "rows 2",
};
static const char *const thread_names[] = {"daemon", "reader 1", "reader 2"};

enum { ROWS_NONE, ROWS_WRITTEN, ROWS_GIVEN_BACK };

/* ---- the daemon ------------------------------------------------------------------------------ */

enum daemon_step { D_DROP, D_PUBLISH_DROP, D_SCAN, D_PUBLISH_NEW };
enum daemon_register { OLDEST, SCANNED };

/* bump_catalog and the store of an id before it, or wrongly behind it. */
static void set_id(struct machine *machine, enum access access, uint8_t id, uint8_t catalog)
{
    if (machine->flaws[FLAW_CATALOG_FIRST]) {
        machine_store(machine, ACCESS_CATALOG_STORE, CATALOG, catalog);
    }
    machine_store(machine, access, ID, id);
    if (!machine->flaws[FLAW_CATALOG_FIRST]) {
        machine_store(machine, ACCESS_CATALOG_STORE, CATALOG, catalog);
    }
}

/* vex_registry_apply: vex_control_set_view, then vex_control_add_collection. */
static void add_second(struct machine *machine)
{
    machine_data_write(machine, ROWS + 2, ROWS_WRITTEN);
    if (!machine->flaws[FLAW_ID_BEFORE_VIEW]) {
        machine_store(machine, ACCESS_VIEW_STORE, VIEW, 2);
    }
    if (!machine->flaws[FLAW_ID_BEFORE_FACTS]) {
        machine_data_write(machine, FACTS, 2);
    }
    set_id(machine, ACCESS_ID_ADD, 2, 2);
    if (machine->flaws[FLAW_ID_BEFORE_FACTS]) {
        machine_data_write(machine, FACTS, 2);
    }
    if (machine->flaws[FLAW_ID_BEFORE_VIEW]) {
        machine_store(machine, ACCESS_VIEW_STORE, VIEW, 2);
    }
}

static void scan(struct machine *machine)
{
    struct thread *daemon = machine_thread(machine);
    uint8_t *registers = daemon->registers;
    uint8_t pinned = machine_load(machine, ACCESS_SLOT_SCAN, SLOT + registers[SCANNED]);
    if (pinned != 0 && pinned < registers[OLDEST]) {
        registers[OLDEST] = pinned;
    }
    if (++registers[SCANNED] < READERS) {
        return;
    }
    if (registers[OLDEST] < 2) {
        registers[SCANNED] = 0;
        registers[OLDEST] = UINT8_MAX;
        return;
    }
    machine_data_write(machine, ROWS + 1, ROWS_GIVEN_BACK);
    add_second(machine);
    daemon->step = D_PUBLISH_NEW;
}

static void daemon_step(struct machine *machine)
{
    struct thread *daemon = machine_thread(machine);
    switch ((enum daemon_step)daemon->step) {
    case D_DROP: /* vex_control_remove_collection */
        set_id(machine, ACCESS_ID_REMOVE, 0, 1);
        daemon->step = D_PUBLISH_DROP;
        break;
    case D_PUBLISH_DROP:
        machine_store(machine, ACCESS_CURRENT_STORE, CURRENT, 2);
        daemon->registers[OLDEST] = UINT8_MAX;
        daemon->step = D_SCAN;
        if (machine->flaws[FLAW_PLACE_REUSED_AT_ONCE]) {
            add_second(machine);
            daemon->step = D_PUBLISH_NEW;
        }
        break;
    case D_SCAN:
        scan(machine);
        break;
    case D_PUBLISH_NEW:
        machine_store(machine, ACCESS_CURRENT_STORE, CURRENT, 3);
        machine_end(machine);
        break;
    }
}

/* ---- readers --------------------------------------------------------------------------------- */

enum reader_step { R_ENTER, R_REFRESH, R_READ };
enum reader_register { READS_LEFT };

static void leave(struct machine *machine, uint32_t slot)
{
    (void)machine_exchange(machine, ACCESS_SLOT_LEAVE, slot, 0);
    machine_read_accept(machine);
    struct thread *reader = machine_thread(machine);
    reader->step = R_ENTER;
    if (--reader->registers[READS_LEFT] == 0) {
        machine_end(machine);
    }
}

/* vex_control_view of collection `id`, then its rows. */
static void read_view(struct machine *machine, uint8_t id)
{
    if (machine_load(machine, ACCESS_ID_CHECK, ID) != id) {
        return; /* GONE */
    }
    if (machine_load(machine, ACCESS_VIEW_LOAD, VIEW) != id) {
        machine_violation(machine, "a reader is shown the view of another collection");
    }
    machine_data_read(machine, ROWS + id, ROWS_WRITTEN, ROWS_WRITTEN);
}

/* vex_control_catalog, vex_control_collection of the one place, and a read of what is found. */
static void look_through(struct machine *machine)
{
    uint8_t catalog = machine_load(machine, ACCESS_CATALOG_LOAD, CATALOG);
    uint8_t id = machine_load(machine, ACCESS_ID_FIND, ID);
    if ((catalog >= 1 && id == 1) || (catalog == 2 && id != 2)) {
        machine_violation(machine, "a catalog is older than its number");
    }
    if (id != 0) {
        machine_data_read(machine, FACTS, id, id);
        read_view(machine, id);
    }
}

static void reader_step(struct machine *machine)
{
    struct thread *reader = machine_thread(machine);
    uint32_t slot = SLOT + machine->thread - 1;
    switch ((enum reader_step)reader->step) {
    case R_ENTER:
        machine_read_begin(machine);
        (void)machine_exchange(machine, ACCESS_SLOT_ENTER, slot, 1);
        reader->step = R_REFRESH;
        break;
    case R_REFRESH: {
        uint8_t current = machine_load(machine, ACCESS_CURRENT_REFRESH, CURRENT);
        if (current > 1) {
            (void)machine_exchange(machine, ACCESS_SLOT_RAISE, slot, current);
        }
        reader->step = R_READ;
        break;
    }
    case R_READ:
        if (machine->thread == 1) {
            read_view(machine, 1);
        } else {
            look_through(machine);
        }
        leave(machine, slot);
        break;
    }
}

static void begin(struct machine *machine)
{
    for (uint32_t i = 0; i < LOCATIONS; i++) {
        machine_set(machine, i, 0);
    }
    machine_set(machine, CURRENT, 1);
    machine_set(machine, ID, 1);
    machine_set(machine, FACTS, 1);
    machine_set(machine, VIEW, 1);
    machine_set(machine, ROWS + 1, ROWS_WRITTEN);
    machine->world->threads[1].registers[READS_LEFT] = 2;
    machine->world->threads[2].registers[READS_LEFT] = 2;
}

static void step(struct machine *machine)
{
    if (machine->thread == 0) {
        daemon_step(machine);
    } else {
        reader_step(machine);
    }
}

const struct scenario scenario_collection = {
    .name = "collection",
    .what = "a collection is dropped and its place is used again",
    .threads_count = 1 + READERS,
    .locations_count = LOCATIONS,
    .location_names = location_names,
    .thread_names = thread_names,
    .begin = begin,
    .step = step,
};
