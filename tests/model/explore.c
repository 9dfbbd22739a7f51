#include "tests/model/explore.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/panic.h"

#define DEPTH_MAX 256u
#define STATES_MAX ((size_t)1 << 26)
#define SOLO_STEPS_MAX 200u

/* What was done to get from one state to the next. */
struct move {
    uint32_t thread;
    bool is_death;
    struct choices choices;
};

struct frame {
    struct world world;
    struct move next; /* to try */
    bool exhausted;   /* all choices of that thread's step were tried */
    bool moved;       /* something can happen in this state */
};

struct search {
    const struct scenario *scenario;
    struct machine machine;
    struct frame *frames;
    size_t frames_count;
    uint64_t *seen; /* open addressing, 0 = free */
    size_t seen_capacity;
    struct exploration *out;
};

static void *allocate(size_t count, size_t bytes)
{
    void *memory = calloc(count, bytes);
    VEX_ASSERT(memory);
    return memory;
}

/* What is alive of it. */
static void copy(const struct scenario *scenario, struct world *to, const struct world *from)
{
    memcpy(to, from, offsetof(struct world, values));
    for (uint32_t i = 0; i < scenario->locations_count; i++) {
        memcpy(to->values[i], from->values[i], from->counts[i] * sizeof(from->values[i][0]));
    }
}

static uint64_t hash_of(const struct scenario *scenario, const struct world *world)
{
    uint64_t hash = vex_hash64(world, offsetof(struct world, values), 0);
    for (uint32_t i = 0; i < scenario->locations_count; i++) {
        hash = vex_hash64(world->values[i], world->counts[i] * sizeof(world->values[i][0]), hash);
    }
    return hash ? hash : 1;
}

static bool insert(uint64_t *seen, size_t capacity, uint64_t hash)
{
    size_t at = hash & (capacity - 1);
    while (seen[at] != 0) {
        if (seen[at] == hash) {
            return false;
        }
        at = (at + 1) & (capacity - 1);
    }
    seen[at] = hash;
    return true;
}

/* True if the state is new. */
static bool note(struct search *search, const struct world *world)
{
    uint64_t hash = hash_of(search->scenario, world);
    if (2 * search->out->states >= search->seen_capacity) {
        size_t capacity = 2 * search->seen_capacity;
        VEX_ASSERT(capacity <= STATES_MAX);
        uint64_t *seen = allocate(capacity, sizeof(*seen));
        for (size_t i = 0; i < search->seen_capacity; i++) {
            if (search->seen[i]) {
                (void)insert(seen, capacity, search->seen[i]);
            }
        }
        free(search->seen);
        search->seen = seen;
        search->seen_capacity = capacity;
    }
    bool is_new = insert(search->seen, search->seen_capacity, hash);
    search->out->states += is_new;
    return is_new;
}

static void make_step(struct machine *machine, const struct scenario *scenario, struct world *world,
                      const struct move *move)
{
    machine->world = world;
    machine->thread = move->thread;
    machine->choices = move->choices;
    machine->chosen = 0;
    machine->blocked = false;
    if (move->is_death) {
        world->threads[move->thread].state = THREAD_DEAD;
        world->deaths_left--;
        if (machine->tells) {
            (void)printf("  %-10s dies\n", machine->thread_names[move->thread]);
        }
    } else {
        scenario->step(machine);
    }
    if (!machine->blocked && !machine->violation) {
        machine_tidy(machine);
    }
}

/* Each reader that is about to try again comes to an end if nobody else moves any more. */
static void check_patience(struct search *search, const struct world *world)
{
    const struct scenario *scenario = search->scenario;
    for (uint32_t i = 1; scenario->attempt_step && i < scenario->threads_count; i++) {
        if (world->threads[i].state != THREAD_RUNS ||
            world->threads[i].step != scenario->attempt_step) {
            continue;
        }
        struct world alone;
        copy(scenario, &alone, world);
        search->machine.newest = true;
        uint32_t steps = 0;
        while (alone.threads[i].state == THREAD_RUNS && steps < SOLO_STEPS_MAX) {
            make_step(&search->machine, scenario, &alone, &(struct move){.thread = i});
            steps++;
        }
        search->machine.newest = false;
        if (steps == SOLO_STEPS_MAX) {
            machine_violation(&search->machine,
                              "a reader would wait for ever if the others stopped");
        }
    }
}

/* The next thing to try in a state; false if there is nothing left. */
static bool next_move(const struct search *search, struct frame *frame)
{
    const struct scenario *scenario = search->scenario;
    struct move *next = &frame->next;
    for (; next->thread < scenario->threads_count; next->thread++) {
        uint8_t state = frame->world.threads[next->thread].state;
        if (state == THREAD_RUNS && !frame->exhausted) {
            return true;
        }
        bool alive = state == THREAD_RUNS || state == THREAD_SLEEPS;
        if (alive && !next->is_death && scenario->may_die[next->thread] &&
            frame->world.deaths_left) {
            next->is_death = true;
            return true;
        }
        next->is_death = false;
        next->choices.count = 0;
        frame->exhausted = false;
    }
    return false;
}

/* After a step: the choices that come next, like the digits of a number. */
static void count_on(struct frame *frame, const struct choices *made)
{
    struct choices *next = &frame->next.choices;
    *next = *made;
    while (next->count && next->taken[next->count - 1] + 1 >= next->of[next->count - 1]) {
        next->count--;
    }
    if (next->count) {
        next->taken[next->count - 1]++;
    }
    frame->exhausted = next->count == 0;
}

static bool all_ended(const struct scenario *scenario, const struct world *world)
{
    for (uint32_t i = 0; i < scenario->threads_count; i++) {
        if (world->threads[i].state == THREAD_RUNS || world->threads[i].state == THREAD_SLEEPS) {
            return false;
        }
    }
    return true;
}

/* The moves on the stack once more, this time told. */
static void tell_way(const struct search *search, const struct move *moves, size_t moves_count)
{
    struct machine machine = search->machine;
    struct world *world = allocate(1, sizeof(*world));
    const char *violation = machine.violation;
    machine.violation = NULL;
    machine.used = NULL;
    machine.world = world;
    world->deaths_left = search->scenario->deaths_max;
    search->scenario->begin(&machine);
    machine.tells = true;
    for (size_t i = 0; i < moves_count; i++) {
        make_step(&machine, search->scenario, world, &moves[i]);
    }
    (void)printf("  => %s\n", violation);
    free(world);
}

static void push(struct search *search, const struct world *world)
{
    VEX_ASSERT(search->frames_count < DEPTH_MAX);
    struct frame *frame = &search->frames[search->frames_count++];
    copy(search->scenario, &frame->world, world);
    frame->next = (struct move){0};
    frame->exhausted = false;
    frame->moved = false;
    if (search->frames_count > search->out->depth_max) {
        search->out->depth_max = search->frames_count;
    }
}

/* Tries one move of the state on top. */
static void advance(struct search *search, struct world *scratch, struct move *moves)
{
    struct frame *frame = &search->frames[search->frames_count - 1];
    if (!next_move(search, frame)) {
        if (!frame->moved && !all_ended(search->scenario, &frame->world)) {
            machine_violation(&search->machine, "somebody waits for ever: nothing can happen");
        }
        search->frames_count--;
        return;
    }
    struct move move = frame->next;
    copy(search->scenario, scratch, &frame->world);
    make_step(&search->machine, search->scenario, scratch, &move);
    search->out->steps++;
    moves[search->frames_count - 1] = move;
    moves[search->frames_count - 1].choices = search->machine.choices;
    if (!move.is_death) {
        count_on(frame, &search->machine.choices);
    }
    if (search->machine.violation || search->machine.blocked) {
        return;
    }
    frame->moved |= !move.is_death;
    if (note(search, scratch)) {
        check_patience(search, scratch);
        push(search, scratch);
    }
}

void model_explore(const struct scenario *scenario, const struct machine *rules, bool tells,
                   bool *used, struct exploration *out)
{
    *out = (struct exploration){0};
    struct search search = {.scenario = scenario, .machine = *rules, .out = out};
    struct world *scratch = allocate(1, sizeof(*scratch));
    struct move *moves = allocate(DEPTH_MAX, sizeof(*moves));
    search.frames = allocate(DEPTH_MAX, sizeof(*search.frames));
    search.seen_capacity = 1 << 12;
    search.seen = allocate(search.seen_capacity, sizeof(*search.seen));
    struct machine *machine = &search.machine;
    machine->threads_count = scenario->threads_count;
    machine->locations_count = scenario->locations_count;
    machine->location_names = scenario->location_names;
    machine->thread_names = scenario->thread_names;
    machine->used = used;
    machine->world = scratch;
    scratch->deaths_left = scenario->deaths_max;
    scenario->begin(machine);
    (void)note(&search, scratch);
    push(&search, scratch);
    size_t moves_count = 0;
    while (search.frames_count && !machine->violation) {
        moves_count = search.frames_count;
        advance(&search, scratch, moves);
    }
    out->violation = machine->violation;
    if (tells && out->violation) {
        /* Without the last move, if it led nowhere. */
        tell_way(&search, moves, search.frames_count ? moves_count : moves_count - 1);
    }
    free(search.seen);
    free(search.frames);
    free(moves);
    free(scratch);
}
