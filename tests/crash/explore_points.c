/*
 * Exploring one seed: a life of the application on a recording disk, then every crash point of the record,
 * and at each of them the states of the disk. What is checked is listed in explore.c.
 */
#include "tests/crash/explore_priv.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/crash/fibers.h"

#define HANG_SECONDS 60u
#define SECOND_STEPS 4u
#define DAMAGED_STEPS 12u
#define FURTHER_LIFE_ONE_IN 16u
#define MORE_ONE_IN 8u
#define REPAIR_ONE_IN 8u
#define KILL_ONE_IN 6u /* points, not states */
#define DAMAGES_AT_A_POINT 5u
#define THINNER 2u

/* ---- states ---------------------------------------------------------------------------------- */

static uint64_t draw(uint64_t salt)
{
    return vex_mix64(explorer.here.seed * 31 +
                     vex_mix64(explorer.here.point * 7 + vex_mix64(explorer.here.state + salt)));
}

static void reset_world(uint64_t salt, uint32_t odds)
{
    fibers_reset(draw(salt), odds);
}

static struct vex_sim_limits limits_at(unsigned depth)
{
    bool many = depth == 1 && !explorer.is_thin;
    struct vex_sim_limits limits = {
        .exhaustive_states = many ? 4096 : 32,
        .random_states = many ? 64 : 6,
        .garbage_states = many ? 64 : 6,
        .ordered = explorer.is_ordered,
        .seed = explorer.here.seed,
    };
    return limits;
}

static bool is_mark(struct vex_io *io, size_t position, size_t ops_count)
{
    return position < ops_count && vex_io_sim_op(io, position)->kind == VEX_SIM_MARK;
}

static void move_bounds(struct explore_bounds *bounds, const struct vex_sim_op *op)
{
    if (op->kind != VEX_SIM_MARK) {
        return;
    }
    switch (op->mark) {
    case EXPLORE_MARK_SUBMITTED:
        bounds->submitted = op->value;
        break;
    case EXPLORE_MARK_ACKED:
        bounds->acked = op->value;
        break;
    case EXPLORE_MARK_CLEAN:
        bounds->clean = op->value;
        break;
    case EXPLORE_MARK_CHECKPOINT:
        bounds->checkpoint = op->value;
        bounds->checkpoints_made++;
        break;
    case EXPLORE_MARK_BACKUP:
        bounds->backups |= UINT64_C(1) << op->value;
        break;
    default:
        break;
    }
}

/* I1, I2, I7 and I3. */
static struct explore_found check_image(struct vex_io *image, const struct explore_model *model,
                                        bool settled, bool twice)
{
    struct explore_found found = {0};
    explorer.app->check(image, model, &found);
    explorer.counts.states++;
    if (settled && found.torn_tails) {
        explore_fail("I7", "nothing was being written, but a torn tail is reported");
    }
    if (twice) {
        struct vex_io *before = vex_io_sim_clone(image);
        struct explore_found again = {0};
        explorer.app->check(image, model, &again);
        if (again.last_lsn != found.last_lsn) {
            explore_fail("I3", "recovered up to LSN %llu, then up to %llu",
                         (unsigned long long)found.last_lsn, (unsigned long long)again.last_lsn);
        }
        if (!vex_io_sim_equals(before, image)) {
            explore_fail("I3", "recovering once more changes bytes on the disk");
        }
        before->ops->close(before);
    }
    return found;
}

/* I5. `image` has been recovered from. */
static void live_on(struct vex_io *image, const struct explore_model *model, unsigned steps)
{
    struct explore_model *further = malloc(sizeof(*further));
    *further = *model;
    further->error_odds = 0;
    struct vex_random random = vex_random_seeded(draw(5));
    reset_world(6, 8);
    explorer.app->live(image, further, &random, steps);
    reset_world(7, 0);
    struct explore_found found = {0};
    explorer.app->check(image, further, &found);
    explorer.counts.further_lives++;
    free(further);
}

static void print_replayed(struct vex_sim_crash *crash, uint64_t state)
{
    if (explorer.is_replay && state < vex_sim_crash_states(crash)) {
        vex_sim_crash_print(crash, state, stdout);
        (void)fflush(stdout);
    }
}

/* ---- the second crash ------------------------------------------------------------------------ */

static void explore_second_point(struct vex_sim_crash *crash, const struct explore_model *model,
                                 bool recovered)
{
    uint64_t states = vex_sim_crash_states(crash);
    /* What the first crash tore is rightly reported until recovery has dealt with it. */
    bool settled = recovered && vex_sim_crash_is_settled(crash) && model->error_odds == 0;
    explorer.counts.second_points++;
    explorer.here.second_point = vex_sim_crash_position(crash);
    print_replayed(crash, explorer.wanted.second_state);
    for (uint64_t state = 0; state < states; state++) {
        if (explorer.is_replay && explorer.wanted.second_state != state) {
            continue;
        }
        explorer.here.second_state = state;
        reset_world(100 + explorer.here.second_point * 1000 + state, 0);
        struct vex_io *image = vex_sim_crash_image(crash, state);
        (void)check_image(image, model, settled, state % 4 == 0);
        image->ops->close(image);
        explorer.counts.second_states++;
    }
}

/* A second life and its crash points. `first` operations are the first life's. Until recovery is over the
 * first life's model holds: while a torn batch is erased it may for a moment be whole again, and nobody has
 * been told otherwise. */
static void explore_second_life(struct vex_io *io, const struct explore_model *model, size_t first)
{
    struct explore_model *second = malloc(sizeof(*second));
    *second = *model;
    second->error_odds = 0;
    struct explore_bounds bounds = model->bounds;
    struct vex_random random = vex_random_seeded(draw(8));
    struct vex_sim_habits habits = {.step = fibers_step, .seed = draw(9), .pending_odds = 3};
    reset_world(10, 4);
    vex_io_sim_set_habits(io, &habits);
    explorer.app->live(io, second, &random, SECOND_STEPS);
    explorer.here.second = true;
    struct vex_sim_limits limits = limits_at(2);
    struct vex_sim_crash *crash = vex_sim_crash_open(io, &limits);
    size_t ops_count = vex_io_sim_ops_count(io);
    bool recovered = false;
    do {
        size_t position = vex_sim_crash_position(crash);
        if (position > first) {
            const struct vex_sim_op *op = vex_io_sim_op(io, position - 1);
            move_bounds(&bounds, op);
            recovered = recovered || op->kind == VEX_SIM_MARK;
        }
        bool wanted = position >= first && !is_mark(io, position, ops_count) &&
                      (!explorer.is_replay || explorer.wanted.second_point == position);
        if (wanted) {
            second->bounds = bounds;
            explore_second_point(crash, recovered ? second : model, recovered);
        }
    } while (vex_sim_crash_step(crash));
    vex_sim_crash_close(crash);
    explorer.here.second = false;
    free(second);
}

/* I4, for a state. */
static void explore_depth_two(struct vex_sim_crash *crash, const struct explore_model *model,
                              uint64_t state)
{
    struct vex_io *image = vex_sim_crash_image(crash, state);
    vex_io_sim_record(image);
    explore_second_life(image, model, 0);
    image->ops->close(image);
}

/* I4, if first the process dies alone: what recovery reads then may be only in the cache. */
static void explore_kill(struct vex_sim_crash *crash, const struct explore_model *model)
{
    explorer.here.state = EXPLORE_KILLED;
    struct vex_io *killed = vex_sim_crash_killed(crash);
    explore_second_life(killed, model, vex_sim_crash_position(crash));
    killed->ops->close(killed);
    explorer.counts.kills++;
}

/* ---- the first crash ------------------------------------------------------------------------- */

/* Second lives are what costs most. */
static uint64_t thinned(uint64_t one_in)
{
    return explorer.is_thin ? THINNER * one_in : one_in;
}

/* Whether a state of this sample is looked at. */
static bool is_sampled(uint64_t salt, uint64_t one_in)
{
    return explorer.is_replay || draw(salt) % one_in == 0;
}

static void explore_state(struct vex_sim_crash *crash, const struct explore_model *model,
                          uint64_t state, bool settled)
{
    explorer.here.state = state;
    reset_world(1, 0);
    struct vex_io *image = vex_sim_crash_image(crash, state);
    struct explore_found found = check_image(image, model, settled, is_sampled(2, 2));
    if (explorer.app->check_more && is_sampled(12, MORE_ONE_IN)) {
        reset_world(13, 0);
        explorer.app->check_more(image, model);
    }
    if (is_sampled(3, FURTHER_LIFE_ONE_IN)) {
        struct explore_model bound = *model;
        bound.bounds.acked = bound.bounds.submitted = found.last_lsn;
        live_on(image, &bound, SECOND_STEPS);
    }
    image->ops->close(image);
    if (explorer.is_replay ? explorer.wanted.second
                           : is_sampled(4, thinned(explorer.app->depth_two_one_in))) {
        explore_depth_two(crash, model, state);
    }
}

/* Repairs, and repairs again after each way in which the power can fail meanwhile. */
static void explore_repair(struct vex_io *image, const struct explore_model *model)
{
    struct explore_model *less = malloc(sizeof(*less));
    *less = *model;
    less->bounds.acked = 0;
    less->bounds.clean = EXPLORE_ANY_LSN;
    reset_world(600, 0);
    vex_io_sim_record(image);
    explorer.app->repair(image, model);
    struct vex_sim_limits limits = limits_at(2);
    struct vex_sim_crash *crash = vex_sim_crash_open(image, &limits);
    bool is_explored = is_sampled(601, REPAIR_ONE_IN);
    while (is_explored && vex_sim_crash_step(crash)) {
        uint64_t states = vex_sim_crash_states(crash);
        for (uint64_t state = 0; state < states; state++) {
            struct vex_error refusal = {.status = VEX_OK};
            struct vex_io *torn = vex_sim_crash_image(crash, state);
            reset_world(602 + state, 0);
            if (!explorer.app->recovers(torn, less, &refusal)) {
                explorer.app->repair(torn, less);
            }
            torn->ops->close(torn);
            explorer.counts.states++;
            explorer.counts.second_states++;
        }
        explorer.counts.second_points++;
    }
    vex_sim_crash_close(crash);
    free(less);
}

/* Recovers from damage twice: the first refusal must not have made it good, or worse. */
static void check_damaged(struct vex_io *image, const struct explore_model *model,
                          enum explore_verdict verdict, uint64_t salt)
{
    struct vex_io *before = vex_io_sim_clone(image);
    bool recovered = false;
    for (unsigned tries = 1; tries <= 2; tries++) {
        reset_world(salt, 0);
        struct vex_error refusal = {.status = VEX_OK};
        recovered = explorer.app->recovers(image, model, &refusal);
        if (recovered && verdict == EXPLORE_MUST_REFUSE) {
            explore_fail("I6", "passed over at attempt %u", tries);
        }
        if (!recovered && verdict == EXPLORE_MUST_SURVIVE) {
            explore_fail("I6", "refused at attempt %u: %s", tries, refusal.message);
        }
        /* Leftovers may be gone; what is there is as it was. */
        if (!recovered && !vex_io_sim_is_within(image, before)) {
            explore_fail("I6", "refused, but files were changed");
        }
    }
    before->ops->close(before);
    if (recovered) {
        struct explore_model damaged = *model;
        damaged.is_damaged = true;
        live_on(image, &damaged, DAMAGED_STEPS);
    } else if (explorer.app->repair) {
        explore_repair(image, model);
    }
}

/* I6. */
static void explore_damage(struct vex_sim_crash *crash, struct vex_io *recorded,
                           const struct explore_model *model)
{
    unsigned count = explorer.is_thin ? 2 * DAMAGES_AT_A_POINT : DAMAGES_AT_A_POINT;
    for (unsigned i = 0; i < count; i++) {
        explorer.here.state = 0;
        struct vex_random random = vex_random_seeded(draw(300 + i));
        struct vex_io *image = vex_sim_crash_image(crash, 0);
        reset_world(400 + i, 0);
        enum explore_verdict verdict = explorer.app->damage(
            image, model, recorded, vex_sim_crash_position(crash), &random, explorer.damage);
        if (verdict != EXPLORE_NOTHING_DAMAGED) {
            explorer.is_damaged = true;
            check_damaged(image, model, verdict, 500 + i);
            explorer.is_damaged = false;
            explorer.counts.damages++;
        }
        image->ops->close(image);
    }
}

static void explore_point(struct vex_sim_crash *crash, struct vex_io *recorded,
                          const struct explore_model *model, bool has_settled)
{
    uint64_t states = vex_sim_crash_states(crash);
    bool settled = vex_sim_crash_is_settled(crash) && model->error_odds == 0;
    explorer.counts.points++;
    print_replayed(crash, explorer.wanted.state);
    for (uint64_t state = 0; state < states; state++) {
        if (!explorer.is_replay || explorer.wanted.state == state) {
            explore_state(crash, model, state, settled);
        }
    }
    if (has_settled && model->error_odds == 0 &&
        (!explorer.is_replay || explorer.wanted.state == 0)) {
        explore_damage(crash, recorded, model);
    }
    explorer.here.state = EXPLORE_KILLED;
    if (model->error_odds) {
        return; /* what a failed sync left in the cache is not modelled */
    }
    if (explorer.is_replay ? explorer.wanted.state == EXPLORE_KILLED
                           : is_sampled(14, thinned(KILL_ONE_IN))) {
        explore_kill(crash, model);
    }
}

/* ---- seeds ----------------------------------------------------------------------------------- */

static void explore_record(struct vex_io *io, struct explore_model *model)
{
    struct vex_sim_limits limits = limits_at(1);
    struct vex_sim_crash *crash = vex_sim_crash_open(io, &limits);
    struct explore_bounds bounds = {.clean = EXPLORE_NO_LSN};
    size_t ops_count = vex_io_sim_ops_count(io);
    do {
        size_t position = vex_sim_crash_position(crash);
        bool has_settled = false;
        if (position > 0) {
            const struct vex_sim_op *op = vex_io_sim_op(io, position - 1);
            move_bounds(&bounds, op);
            has_settled = op->kind == VEX_SIM_MARK &&
                          (op->mark == EXPLORE_MARK_SETTLED || op->mark == EXPLORE_MARK_CHECKPOINT);
        }
        /* In front of a mark the disk is as behind it, and less is promised. */
        if (!is_mark(io, position, ops_count) &&
            (!explorer.is_replay || explorer.wanted.point == position)) {
            (void)alarm(HANG_SECONDS);
            explorer.here.point = position;
            model->bounds = bounds;
            explore_point(crash, io, model, has_settled);
        }
    } while (vex_sim_crash_step(crash) && !explorer.is_stopped &&
             explorer.counts.states < explorer.states_wanted);
    vex_sim_crash_close(crash);
}

void explore_seed(uint64_t seed)
{
    explorer.here = (struct explore_place){.seed = seed};
    (void)alarm(HANG_SECONDS);
    struct vex_random random = vex_random_seeded(seed);
    struct vex_io *io = vex_io_sim_open();
    struct vex_sim_habits habits = {
        .step = fibers_step,
        .seed = draw(30),
        .short_odds = seed % 2 ? 6 : 0,
        .again_odds = seed % 2 ? 8 : 0,
        .pending_odds = 3,
        .no_links = seed % 8 >= 4,
    };
    reset_world(31, 4);
    vex_io_sim_set_habits(io, &habits);
    vex_io_sim_record(io);
    struct explore_model *model = calloc(1, sizeof(*model));
    model->bounds.clean = EXPLORE_NO_LSN;
    bool errors = explorer.is_failing || seed % 4 == 3;
    model->error_odds = errors ? 25 + 50 * (uint32_t)(seed / 4 % 4) : 0;
    explorer.counts.failing_seeds += model->error_odds != 0;
    explorer.app->live(io, model, &random, explorer.app->steps);
    explore_record(io, model);
    free(model);
    io->ops->close(io);
    explorer.counts.seeds++;
}
