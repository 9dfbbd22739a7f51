#include "tests/model/machine.h"

#include <stdio.h>
#include <string.h>

#include "base/panic.h"

static bool acquires(uint8_t order)
{
    return order == ORDER_ACQUIRE || order == ORDER_ACQ_REL || order == ORDER_SEQ_CST;
}

static bool releases(uint8_t order)
{
    return order == ORDER_RELEASE || order == ORDER_ACQ_REL || order == ORDER_SEQ_CST;
}

static void join(struct view *view, const struct view *other)
{
    for (uint32_t i = 0; i < sizeof(view->seen); i++) {
        view->seen[i] = view->seen[i] > other->seen[i] ? view->seen[i] : other->seen[i];
    }
}

struct thread *machine_thread(struct machine *machine)
{
    return &machine->world->threads[machine->thread];
}

void machine_violation(struct machine *machine, const char *text)
{
    if (!machine->violation) {
        machine->violation = text;
    }
}

uint32_t machine_choose(struct machine *machine, uint32_t count)
{
    struct choices *choices = &machine->choices;
    uint32_t at = machine->chosen++;
    VEX_ASSERT(at < CHOICES_MAX);
    if (at == choices->count) {
        choices->taken[at] = 0;
        choices->count++;
    }
    choices->of[at] = (uint8_t)count;
    return choices->taken[at];
}

static void tell(struct machine *machine, enum access access, const char *what, uint32_t location,
                 uint8_t value, uint32_t newer)
{
    if (access != ACCESS_RELAXED && machine->used) {
        machine->used[access] = true;
    }
    if (!machine->tells) {
        return;
    }
    const char *function = access == ACCESS_RELAXED ? "" : model_accesses[access].function;
    (void)printf("  %-10s %-28s %s %s = %u", machine->thread_names[machine->thread], function, what,
                 machine->location_names[location], value);
    if (access != ACCESS_RELAXED || what[0] == 's') {
        (void)printf(" (%s)", model_order_names[machine->orders[access]]);
    }
    if (newer) {
        (void)printf(", not the newest");
    }
    (void)printf("\n");
}

/* Adds what a value carries to what the thread knows. */
static void acquire(struct thread *thread, const struct view *carried)
{
    join(&thread->view, carried);
    join(&thread->sure, carried);
}

/* Before a sequentially consistent load: stores that the thread is sure of precede it. */
static void take_place(struct world *world, const struct thread *thread)
{
    for (uint32_t i = 0; i < LOCATIONS_MAX; i++) {
        uint8_t at = world->placeless.seen[i];
        if (at != 0 && at <= thread->sure.seen[i]) {
            world->sequential.seen[i] = at;
            world->placeless.seen[i] = 0;
        }
    }
}

/* ---- atomic words ---------------------------------------------------------------------------- */

uint8_t machine_load(struct machine *machine, enum access access, uint32_t location)
{
    struct world *world = machine->world;
    struct view *view = &machine_thread(machine)->view;
    uint8_t order = machine->orders[access];
    uint8_t oldest = view->seen[location];
    if (order == ORDER_SEQ_CST) {
        take_place(world, machine_thread(machine));
    }
    if (order == ORDER_SEQ_CST && world->sequential.seen[location] > oldest) {
        oldest = world->sequential.seen[location];
    }
    uint32_t newest = world->counts[location] - 1u;
    uint32_t newer = machine->newest ? 0 : machine_choose(machine, newest - oldest + 1u);
    const struct stored *stored = &world->values[location][newest - newer];
    view->seen[location] = (uint8_t)(newest - newer);
    if (acquires(order)) {
        acquire(machine_thread(machine), &stored->view);
    }
    tell(machine, access, "loads", location, stored->value, newer);
    return stored->value;
}

/* The newest value, written by the thread whose turn it is; the one before it stands before it. */
static struct stored *append(struct machine *machine, uint8_t order, uint32_t location,
                             uint8_t value)
{
    struct world *world = machine->world;
    struct view *view = &machine_thread(machine)->view;
    VEX_ASSERT(world->counts[location] < VALUES_MAX);
    uint8_t at = world->counts[location]++;
    struct stored *stored = &world->values[location][at];
    *stored = (struct stored){.value = value};
    if (order == ORDER_SEQ_CST) {
        world->placeless.seen[location] = at;
    }
    view->seen[location] = at;
    machine_thread(machine)->sure.seen[location] = at;
    if (releases(order)) {
        stored->view = *view;
    }
    stored->view.seen[location] = at;
    return stored;
}

void machine_store(struct machine *machine, enum access access, uint32_t location, uint8_t value)
{
    (void)append(machine, machine->orders[access], location, value);
    tell(machine, access, "stores", location, value, 0);
}

static uint8_t modify(struct machine *machine, enum access access, uint32_t location, uint8_t value)
{
    struct world *world = machine->world;
    uint8_t order = machine->orders[access];
    const struct stored *read = &world->values[location][world->counts[location] - 1];
    if (acquires(order)) {
        acquire(machine_thread(machine), &read->view);
    }
    struct stored *stored = append(machine, order, location, value);
    const struct stored *before = stored - 1;
    join(&stored->view, &before->view); /* whoever began the release sequence */
    return before->value;
}

uint8_t machine_exchange(struct machine *machine, enum access access, uint32_t location,
                         uint8_t value)
{
    uint8_t before = modify(machine, access, location, value);
    tell(machine, access, "exchanges", location, value, 0);
    return before;
}

uint8_t machine_add(struct machine *machine, enum access access, uint32_t location, int difference)
{
    uint8_t value = (uint8_t)(machine_newest(machine, location) + difference);
    uint8_t before = modify(machine, access, location, value);
    tell(machine, access, "adds up to", location, value, 0);
    return before;
}

uint8_t machine_newest(const struct machine *machine, uint32_t location)
{
    const struct world *world = machine->world;
    return world->values[location][world->counts[location] - 1].value;
}

/* ---- data ------------------------------------------------------------------------------------ */

void machine_data_read(struct machine *machine, uint32_t location, uint8_t low, uint8_t high)
{
    struct world *world = machine->world;
    struct thread *thread = machine_thread(machine);
    bool wrong = false;
    for (uint32_t i = thread->view.seen[location]; i < world->counts[location]; i++) {
        uint8_t value = world->values[location][i].value;
        wrong |= value < low || value > high;
    }
    thread->spoilt |= wrong;
    world->last_read[location][machine->thread] =
        ++thread->view.seen[LOCATIONS_MAX + machine->thread];
    if (machine->tells) {
        (void)printf("  %-10s %-28s reads %s%s\n", machine->thread_names[machine->thread], "",
                     machine->location_names[location], wrong ? ": may find anything" : "");
    }
}

void machine_data_write(struct machine *machine, uint32_t location, uint8_t value)
{
    struct world *world = machine->world;
    const struct view *view = &machine_thread(machine)->view;
    for (uint32_t i = 0; i < machine->threads_count; i++) {
        uint8_t read = world->last_read[location][i];
        if (i == machine->thread || read <= view->seen[LOCATIONS_MAX + i]) {
            continue;
        }
        if (read > world->threads[i].read_began) {
            world->threads[i].spoilt = 1;
        } else {
            machine_violation(machine, "memory is changed that may still be read");
        }
    }
    (void)append(machine, ORDER_RELAXED, location, value);
    tell(machine, ACCESS_RELAXED, "writes", location, value, 0);
}

void machine_read_begin(struct machine *machine)
{
    struct thread *thread = machine_thread(machine);
    thread->spoilt = 0;
    thread->read_began = thread->view.seen[LOCATIONS_MAX + machine->thread];
}

void machine_read_accept(struct machine *machine)
{
    if (machine_thread(machine)->spoilt) {
        machine_violation(machine, "a read of memory that was given back, or not written yet, "
                                   "is taken for true");
    }
    machine_read_begin(machine);
}

static void forget_reads(struct machine *machine, uint32_t thread, uint8_t since)
{
    for (uint32_t i = 0; i < machine->locations_count; i++) {
        uint8_t *read = &machine->world->last_read[i][thread];
        *read = *read > since ? 0 : *read;
    }
}

void machine_read_discard(struct machine *machine)
{
    forget_reads(machine, machine->thread, machine_thread(machine)->read_began);
    machine_read_begin(machine);
}

/* ---- life ------------------------------------------------------------------------------------ */

void machine_set(struct machine *machine, uint32_t location, uint8_t value)
{
    machine->world->counts[location] = 1;
    machine->world->values[location][0] = (struct stored){.value = value};
}

void machine_end(struct machine *machine)
{
    machine_thread(machine)->state = THREAD_ENDED;
}

/* What is left of a thread that has ended: reads that were taken for true. */
static void strip(struct machine *machine, uint32_t index)
{
    struct thread *thread = &machine->world->threads[index];
    if (thread->state == THREAD_DEAD) {
        forget_reads(machine, index, 0);
    }
    *thread = (struct thread){.state = thread->state};
    thread->read_began = UINT8_MAX - 1; /* all of its reads are older */
}

/* Drops what is older than `base`, and counts from there. */
static void forget_values(struct machine *machine, const struct view *base)
{
    struct world *world = machine->world;
    struct view *views[2 * THREADS_MAX + 2 + LOCATIONS_MAX * VALUES_MAX];
    uint32_t count = 0;
    for (uint32_t i = 0; i < machine->threads_count; i++) {
        views[count++] = &world->threads[i].view;
        views[count++] = &world->threads[i].sure;
    }
    views[count++] = &world->sequential;
    views[count++] = &world->placeless;
    for (uint32_t i = 0; i < machine->locations_count; i++) {
        struct stored *values = world->values[i];
        uint8_t gone = base->seen[i];
        world->counts[i] = (uint8_t)(world->counts[i] - gone);
        memmove(values, values + gone, world->counts[i] * sizeof(values[0]));
        for (uint32_t j = 0; j < world->counts[i]; j++) {
            views[count++] = &values[j].view;
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t j = 0; j < sizeof(base->seen); j++) {
            uint8_t seen = views[i]->seen[j];
            views[i]->seen[j] = (uint8_t)(seen > base->seen[j] ? seen - base->seen[j] : 0);
        }
    }
}

void machine_tidy(struct machine *machine)
{
    struct world *world = machine->world;
    struct view base;
    memset(&base, 0, sizeof(base));
    for (uint32_t i = 0; i < machine->locations_count; i++) {
        base.seen[i] = (uint8_t)(world->counts[i] - 1u);
    }
    for (uint32_t i = 0; i < machine->threads_count; i++) {
        const struct thread *thread = &world->threads[i];
        if (thread->state == THREAD_ENDED || thread->state == THREAD_DEAD) {
            if (thread->read_began != UINT8_MAX - 1) {
                strip(machine, i);
            }
            continue;
        }
        for (uint32_t j = 0; j < machine->locations_count; j++) {
            uint8_t seen = thread->view.seen[j];
            base.seen[j] = seen < base.seen[j] ? seen : base.seen[j];
        }
    }
    uint8_t any = 0;
    for (uint32_t i = 0; i < machine->locations_count; i++) {
        any |= base.seen[i];
    }
    if (any) {
        forget_values(machine, &base);
    }
}
