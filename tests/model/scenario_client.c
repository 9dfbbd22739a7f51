/*
 * The same argument inside one client process: what libvex maps is let go when no slot of a thread
 * can still lead to it. Cache: a thread replaces a collection's cache of mappings twice and sweeps up
 * the old ones, while another one reads twice and a third makes a snapshot, which from then on does not
 * use the cache though its pin goes on. Attachment: a thread goes over to a new attachment and unmaps
 * the old one, while two threads read. References: two threads let go of a mapping.
 *
 * The replacing thread holds a lock there that keeps others from replacing, and frees nothing while its
 * own pin lasts; that only delays it, and is left out.
 */
#include <stddef.h>

#include "tests/model/scenarios.h"

static const char *const thread_names[] = {"replacer", "reader 1", "reader 2"};

enum { MAPPED_NOT, MAPPED, UNMAPPED };
#define SNAPSHOT_EPOCH 100u /* later than any */

static void free_mapping(struct machine *machine, uint32_t location)
{
    machine_data_write(machine, location, UNMAPPED);
}

/* ---- cache ----------------------------------------------------------------------------------- */

enum cache_location {
    EPOCH,
    CACHE,
    SLOT,
    SLOT_EPOCH = SLOT + 2,
    MAPPING = SLOT_EPOCH + 2, /* from 1 */
    CACHE_LOCATIONS = MAPPING + 4
};

static const char *const cache_names[CACHE_LOCATIONS] = {
    "epoch",        "cache",  "slot 1",    "slot 2",    "slot 1 epoch",
    "slot 2 epoch", "(none)", "mapping 1", "mapping 2", "mapping 3",
};

enum replacer_step { C_STORE, C_EPOCH, C_SWEEP, C_SWEEP_PINNED };
enum replacer_register { NEXT_CACHE, SWEPT_CACHE, SWEPT_SLOT, SWEEPS_LEFT };

/* passed_locked is through with a slot. What is not free yet waits for the next replacement, or for one
 * sweep more. */
static void sweep_on(struct machine *machine, bool passed)
{
    struct thread *replacer = machine_thread(machine);
    uint8_t *registers = replacer->registers;
    bool replaces = registers[NEXT_CACHE] <= 3;
    replacer->step = C_SWEEP;
    if (passed && ++registers[SWEPT_SLOT] < 2) {
        return;
    }
    registers[SWEPT_SLOT] = 0;
    if (passed) {
        free_mapping(machine, MAPPING + registers[SWEPT_CACHE]++);
        if (registers[SWEPT_CACHE] < registers[NEXT_CACHE] - 1) {
            return;
        }
    }
    replacer->step = replaces ? C_STORE : C_SWEEP;
    if (!replaces && (passed || registers[SWEEPS_LEFT]-- == 0)) {
        machine_end(machine);
    }
}

/* sweep_locked and passed_locked: cache c was replaced in epoch c + 1. The two loads are two steps,
 * because a reader may come between. */
static void sweep(struct machine *machine)
{
    struct thread *replacer = machine_thread(machine);
    const uint8_t *registers = replacer->registers;
    uint32_t reader = registers[SWEPT_SLOT];
    if (replacer->step == C_SWEEP_PINNED) {
        uint8_t began = machine_load(machine, ACCESS_EPOCH_PASSED, SLOT_EPOCH + reader);
        sweep_on(machine, began > registers[SWEPT_CACHE]);
    } else if (machine_load(machine, ACCESS_SLOT_PASSED, SLOT + reader) == 0) {
        sweep_on(machine, true);
    } else {
        replacer->step = C_SWEEP_PINNED;
    }
}

/* replace_cache */
static void replacer_step(struct machine *machine)
{
    struct thread *replacer = machine_thread(machine);
    uint8_t *registers = replacer->registers;
    uint8_t next = registers[NEXT_CACHE];
    bool swapped = machine->flaws[FLAW_EPOCH_BEFORE_CACHE];
    switch ((enum replacer_step)replacer->step) {
    case C_STORE:
        machine_data_write(machine, MAPPING + next, MAPPED);
        if (swapped) {
            (void)machine_add(machine, ACCESS_EPOCH_ADD, EPOCH, 1);
        } else {
            machine_store(machine, ACCESS_CACHE_STORE, CACHE, next);
        }
        replacer->step = C_EPOCH;
        break;
    case C_EPOCH:
        if (swapped) {
            machine_store(machine, ACCESS_CACHE_STORE, CACHE, next);
        } else {
            (void)machine_add(machine, ACCESS_EPOCH_ADD, EPOCH, 1);
        }
        registers[NEXT_CACHE]++;
        registers[SWEPT_SLOT] = 0;
        replacer->step = C_SWEEP;
        break;
    case C_SWEEP:
    case C_SWEEP_PINNED:
        sweep(machine);
        break;
    }
}

enum cache_reader_step { R_EPOCH, R_ENTER, R_CACHE, R_LEAVE };
enum cache_reader_register { READS_LEFT, IS_SNAPSHOT, FOUND };

/* find_view and the read; vex_snapshot_open ends its use of the cache while the pin goes on. */
static void use_cache(struct machine *machine)
{
    struct thread *reader = machine_thread(machine);
    uint32_t epoch = SLOT_EPOCH + machine->thread - 1;
    uint8_t *registers = reader->registers;
    bool early = machine->flaws[FLAW_CACHE_BEFORE_PIN];
    if (!early) {
        registers[FOUND] = machine_load(machine, ACCESS_CACHE_LOAD, CACHE);
    }
    if (registers[IS_SNAPSHOT] && machine->flaws[FLAW_SNAPSHOT_EPOCH_EARLY]) {
        machine_store(machine, ACCESS_EPOCH_SNAPSHOT, epoch, SNAPSHOT_EPOCH);
    }
    machine_data_read(machine, MAPPING + registers[FOUND], MAPPED, MAPPED);
    machine_read_accept(machine);
    if (registers[IS_SNAPSHOT] && !machine->flaws[FLAW_SNAPSHOT_EPOCH_EARLY]) {
        machine_store(machine, ACCESS_EPOCH_SNAPSHOT, epoch, SNAPSHOT_EPOCH);
    }
    reader->step = R_LEAVE;
}

/* vex_db_pin around vex_pin_enter. */
static void cache_reader_step(struct machine *machine)
{
    struct thread *reader = machine_thread(machine);
    uint32_t reader_index = machine->thread - 1;
    uint32_t slot = SLOT + reader_index;
    switch ((enum cache_reader_step)reader->step) {
    case R_EPOCH:
        if (machine->flaws[FLAW_CACHE_BEFORE_PIN]) {
            reader->registers[FOUND] = machine_load(machine, ACCESS_CACHE_LOAD, CACHE);
        }
        machine_store(machine, ACCESS_EPOCH_PIN, SLOT_EPOCH + reader_index,
                      machine_load(machine, ACCESS_EPOCH_LOAD, EPOCH));
        reader->step = R_ENTER;
        break;
    case R_ENTER:
        (void)machine_exchange(machine, ACCESS_SLOT_ENTER, slot, 1);
        reader->step = R_CACHE;
        break;
    case R_CACHE:
        use_cache(machine);
        break;
    case R_LEAVE:
        (void)machine_exchange(machine, ACCESS_SLOT_LEAVE, slot, 0);
        reader->step = R_EPOCH;
        if (--reader->registers[READS_LEFT] == 0) {
            machine_end(machine);
        }
        break;
    }
}

static void begin_cache(struct machine *machine)
{
    for (uint32_t i = 0; i < CACHE_LOCATIONS; i++) {
        machine_set(machine, i, 0);
    }
    machine_set(machine, EPOCH, 1);
    machine_set(machine, CACHE, 1);
    machine_set(machine, MAPPING + 1, MAPPED);
    struct thread *threads = machine->world->threads;
    threads[0].registers[NEXT_CACHE] = 2;
    threads[0].registers[SWEPT_CACHE] = 1;
    threads[0].registers[SWEEPS_LEFT] = 1;
    threads[1].registers[READS_LEFT] = 2;
    threads[2].registers[READS_LEFT] = 1;
    threads[2].registers[IS_SNAPSHOT] = 1;
}

static void step_cache(struct machine *machine)
{
    if (machine->thread == 0) {
        replacer_step(machine);
    } else {
        cache_reader_step(machine);
    }
}

const struct scenario scenario_cache = {
    .name = "cache",
    .what = "a client replaces its mappings while others read and make a snapshot",
    .threads_count = 3,
    .locations_count = CACHE_LOCATIONS,
    .location_names = cache_names,
    .thread_names = thread_names,
    .begin = begin_cache,
    .step = step_cache,
};

/* ---- attachment ------------------------------------------------------------------------------ */

enum attachment_location {
    ATTACHED,
    OLD_SLOT, /* of reader 1 and 2, in the pages of attachment 1 */
    REGION = OLD_SLOT + 2,
    ATTACHMENT_LOCATIONS = REGION + 3
};

static const char *const attachment_names[ATTACHMENT_LOCATIONS] = {
    "attachment", "old slot 1", "old slot 2", "(none)", "region 1", "region 2",
};

enum { A_REPLACE, A_LOOK };
enum attachment_register { LOOKED, LOOKS_LEFT };

static void replace_attachment(struct machine *machine)
{
    machine_data_write(machine, REGION + 2, MAPPED);
    machine_store(machine, ACCESS_ATTACHMENT_STORE, ATTACHED, 2);
}

/* replace_attachment; vex_attachment_hibernate at once, and once more. */
static void attachment_replacer_step(struct machine *machine)
{
    struct thread *replacer = machine_thread(machine);
    uint8_t *registers = replacer->registers;
    bool first = machine->flaws[FLAW_SLOTS_BEFORE_ATTACHMENT];
    if (replacer->step == A_REPLACE) {
        replacer->step = A_LOOK;
        if (!first) {
            replace_attachment(machine);
            return;
        }
    }
    if (machine_load(machine, ACCESS_SLOT_PASSED, OLD_SLOT + registers[LOOKED]) != 0) {
        registers[LOOKED] = 0;
        if (registers[LOOKS_LEFT]-- == 0) {
            machine_end(machine);
        }
        return;
    }
    if (++registers[LOOKED] == 2) {
        if (first) {
            replace_attachment(machine);
        }
        free_mapping(machine, REGION + 1);
        machine_end(machine);
    }
}

enum attachment_reader_step { P_ENTER, P_CHECK, P_LEAVE };

/* vex_db_pin. The slots of attachment 2 are looked at by nobody here. */
static void attachment_reader_step(struct machine *machine)
{
    struct thread *reader = machine_thread(machine);
    uint32_t slot = OLD_SLOT + machine->thread - 1;
    uint8_t *attached = &reader->registers[1];
    switch ((enum attachment_reader_step)reader->step) {
    case P_ENTER:
        if (*attached == 0) {
            *attached = machine_load(machine, ACCESS_ATTACHMENT_LOAD, ATTACHED);
            return;
        }
        if (*attached == 1) {
            (void)machine_exchange(machine, ACCESS_SLOT_ENTER, slot, 1);
        }
        reader->step = P_CHECK;
        break;
    case P_CHECK: {
        uint8_t now = *attached;
        if (!machine->flaws[FLAW_ATTACHMENT_NOT_CHECKED]) {
            now = machine_load(machine, ACCESS_ATTACHMENT_LOAD, ATTACHED);
        }
        if (now == *attached) {
            machine_data_read(machine, REGION + now, MAPPED, MAPPED);
            machine_read_accept(machine);
            reader->registers[0]--;
        }
        reader->step = P_LEAVE;
        break;
    }
    case P_LEAVE:
        if (*attached == 1) {
            (void)machine_exchange(machine, ACCESS_SLOT_LEAVE, slot, 0);
        }
        *attached = 0;
        reader->step = P_ENTER;
        if (reader->registers[0] == 0) {
            machine_end(machine);
        }
        break;
    }
}

static void begin_attachment(struct machine *machine)
{
    for (uint32_t i = 0; i < ATTACHMENT_LOCATIONS; i++) {
        machine_set(machine, i, 0);
    }
    machine_set(machine, ATTACHED, 1);
    machine_set(machine, REGION + 1, MAPPED);
    machine->world->threads[0].registers[LOOKS_LEFT] = 1;
    machine->world->threads[1].registers[0] = 2;
    machine->world->threads[2].registers[0] = 2;
}

static void step_attachment(struct machine *machine)
{
    if (machine->thread == 0) {
        attachment_replacer_step(machine);
    } else {
        attachment_reader_step(machine);
    }
}

const struct scenario scenario_attachment = {
    .name = "attachment",
    .what = "a client goes over to a new daemon while others read",
    .threads_count = 3,
    .locations_count = ATTACHMENT_LOCATIONS,
    .location_names = attachment_names,
    .thread_names = thread_names,
    .begin = begin_attachment,
    .step = step_attachment,
};

/* ---- references ------------------------------------------------------------------------------ */

enum reference_location { REFERENCES, MEMORY, REFERENCE_LOCATIONS };

static const char *const reference_names[REFERENCE_LOCATIONS] = {"references", "mapping"};

/* A read, then vex_mapped_release. */
static void step_references(struct machine *machine)
{
    machine_data_read(machine, MEMORY, MAPPED, MAPPED);
    machine_read_accept(machine);
    if (machine_add(machine, ACCESS_MAPPED_RELEASE, REFERENCES, -1) == 1) {
        free_mapping(machine, MEMORY);
    }
    machine_end(machine);
}

static void begin_references(struct machine *machine)
{
    machine_set(machine, REFERENCES, 3);
    machine_set(machine, MEMORY, MAPPED);
}

const struct scenario scenario_references = {
    .name = "references",
    .what = "three threads let go of a mapping",
    .threads_count = 3,
    .locations_count = REFERENCE_LOCATIONS,
    .location_names = reference_names,
    .thread_names = thread_names,
    .begin = begin_references,
    .step = step_references,
};
