/*
 * What a power failure leaves. A cursor walks over a record and keeps two things: the tree of all that is
 * durable, and the list of effects that are not, one for each sector, length or name that an operation
 * changed. A sync moves effects from the list to the tree.
 *
 * At a crash point the effects are grouped: the versions of one sector, the lengths of one file, one change
 * of names. A state chooses from each group one version, or none. All combinations are numbered in mixed
 * radix if there are few enough; else the number of the state seeds a random choice. Groups whose every
 * version is what is on the disk anyway ("silent": zeros onto zeros) do not count as a choice, but they can
 * hold garbage like the others.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/lib/io_sim_priv.h"

#define SECTOR VEX_SIM_SECTOR_BYTES

enum effect_kind {
    EFFECT_SECTOR,
    EFFECT_SIZE,
    EFFECT_NAME,
};

struct effect {
    enum effect_kind kind;
    uint32_t node;       /* NAME: the directory, for ordered groups */
    uint64_t at;         /* SECTOR: its number; SIZE: the length */
    const uint8_t *data; /* SECTOR: NULL = zeros */
    size_t op;
    uint32_t group;
    uint32_t version; /* within its group, from 1 */
    bool stuck;       /* a sync of it has failed */
};

struct group {
    enum effect_kind kind;
    uint32_t node;
    uint64_t at;
    uint32_t versions;
    bool silent;
    uint32_t choice; /* version; 0 = none */
    bool garbage;
};

struct vex_sim_crash {
    struct sim *sim;
    struct vex_sim_limits limits;
    struct sim_tree durable;
    size_t position;
    struct effect *effects;
    size_t effects_count;
    size_t effects_capacity;
    bool grouped;
    struct group *groups;
    size_t groups_count;
    size_t groups_capacity;
    uint64_t combinations; /* 0 = too many */
    bool has_sectors;
};

static const uint8_t zero_sector[SECTOR];

/* ---- effects --------------------------------------------------------------------------------- */

static void add(struct vex_sim_crash *crash, struct effect effect)
{
    if (crash->effects_count == crash->effects_capacity) {
        crash->effects_capacity = crash->effects_capacity ? 2 * crash->effects_capacity : 64;
        crash->effects = realloc(crash->effects, crash->effects_capacity * sizeof(*crash->effects));
        sim_must(crash->effects, "out of memory");
    }
    effect.op = crash->position;
    crash->effects[crash->effects_count++] = effect;
}

static void add_write(struct vex_sim_crash *crash, const struct vex_sim_op *op)
{
    if (op->size != op->size_before) {
        add(crash, (struct effect){.kind = EFFECT_SIZE, .node = op->node, .at = op->size});
    }
    for (uint64_t at = 0; at < op->bytes; at += SECTOR) {
        add(crash, (struct effect){.kind = EFFECT_SECTOR,
                                   .node = op->node,
                                   .at = (op->offset + at) / SECTOR,
                                   .data = op->data ? op->data + at : NULL});
    }
}

static void add_truncation(struct vex_sim_crash *crash, const struct vex_sim_op *op)
{
    add(crash, (struct effect){.kind = EFFECT_SIZE, .node = op->node, .at = 0});
    for (uint64_t at = 0; at < op->size_before; at += SECTOR) {
        add(crash, (struct effect){.kind = EFFECT_SECTOR, .node = op->node, .at = at / SECTOR});
    }
}

static void apply_name(struct sim_tree *tree, const struct vex_sim_op *op)
{
    if (op->from_directory) {
        /* It may mean another file by now, if changes before this one did not happen. */
        const struct sim_entry *entry = sim_tree_find(tree, op->from_directory, op->from);
        if (entry && entry->node == op->node) {
            sim_tree_remove(tree, op->from_directory, op->from);
        }
    }
    if (op->to_directory) {
        sim_tree_set(tree, op->to_directory, op->to, op->node);
    }
}

static void apply(struct vex_sim_crash *crash, struct sim_tree *tree, const struct effect *effect)
{
    switch (effect->kind) {
    case EFFECT_SECTOR:
        sim_tree_write(tree, effect->node, effect->at * SECTOR, effect->data, SECTOR);
        break;
    case EFFECT_SIZE:
        sim_tree_resize(tree, effect->node, effect->at);
        break;
    case EFFECT_NAME:
        apply_name(tree, &crash->sim->ops[effect->op]);
        break;
    }
}

/* Whether a later write of the same is being synced, so that this version does not matter any more. */
static bool is_superseded(const struct vex_sim_crash *crash, size_t index)
{
    const struct effect *effect = &crash->effects[index];
    for (size_t i = index + 1; i < crash->effects_count; i++) {
        const struct effect *later = &crash->effects[i];
        if (!later->stuck && later->kind == effect->kind && later->node == effect->node &&
            (effect->kind == EFFECT_SIZE || later->at == effect->at)) {
            return true;
        }
    }
    return false;
}

static void sync_file(struct vex_sim_crash *crash, uint32_t node)
{
    size_t kept = 0;
    for (size_t i = 0; i < crash->effects_count; i++) {
        struct effect *effect = &crash->effects[i];
        if (effect->stuck && effect->node == node && is_superseded(crash, i)) {
            effect->stuck = false; /* the later one is applied after it */
        }
    }
    for (size_t i = 0; i < crash->effects_count; i++) {
        const struct effect *effect = &crash->effects[i];
        if (effect->kind != EFFECT_NAME && effect->node == node && !effect->stuck) {
            apply(crash, &crash->durable, effect);
        } else {
            crash->effects[kept++] = *effect;
        }
    }
    crash->effects_count = kept;
}

static void fail_sync(struct vex_sim_crash *crash, uint32_t node)
{
    for (size_t i = 0; i < crash->effects_count; i++) {
        struct effect *effect = &crash->effects[i];
        effect->stuck = effect->stuck || (effect->kind != EFFECT_NAME && effect->node == node);
    }
}

static void sync_directory(struct vex_sim_crash *crash, uint32_t directory)
{
    size_t kept = 0;
    for (size_t i = 0; i < crash->effects_count; i++) {
        const struct effect *effect = &crash->effects[i];
        const struct vex_sim_op *op = &crash->sim->ops[effect->op];
        if (effect->kind == EFFECT_NAME &&
            (op->from_directory == directory || op->to_directory == directory)) {
            apply(crash, &crash->durable, effect);
        } else {
            crash->effects[kept++] = *effect;
        }
    }
    crash->effects_count = kept;
}

/* The range that a durable write reports is on the disk, in place of every earlier version. */
static void complete(struct vex_sim_crash *crash, const struct vex_sim_op *op)
{
    const struct vex_sim_op *submit = &crash->sim->ops[op->submitted];
    if (op->result <= 0) {
        return;
    }
    uint64_t end = submit->offset + (uint64_t)op->result;
    if (sim_tree_size(&crash->durable, op->node) < end) {
        sim_tree_resize(&crash->durable, op->node, end);
    }
    size_t kept = 0;
    for (size_t i = 0; i < crash->effects_count; i++) {
        const struct effect *effect = &crash->effects[i];
        bool covered = effect->kind == EFFECT_SECTOR && effect->node == op->node &&
                       effect->op <= op->submitted && effect->at * SECTOR >= submit->offset &&
                       effect->at * SECTOR < end;
        if (covered && effect->op == op->submitted) {
            apply(crash, &crash->durable, effect);
        } else if (!covered) {
            crash->effects[kept++] = *effect;
        }
    }
    crash->effects_count = kept;
}

bool vex_sim_crash_step(struct vex_sim_crash *crash)
{
    if (crash->position == crash->sim->ops_count) {
        return false;
    }
    const struct vex_sim_op *op = &crash->sim->ops[crash->position];
    if (op->node) {
        sim_tree_ensure_node(&crash->durable, op->node, op->kind == VEX_SIM_MAKE_DIRECTORY);
    }
    switch (op->kind) {
    case VEX_SIM_WRITE:
    case VEX_SIM_SUBMIT:
        add_write(crash, op);
        break;
    case VEX_SIM_TRUNCATE:
        add_truncation(crash, op);
        break;
    case VEX_SIM_CREATE:
    case VEX_SIM_RENAME:
    case VEX_SIM_UNLINK:
    case VEX_SIM_LINK:
    case VEX_SIM_MAKE_DIRECTORY:
        add(crash,
            (struct effect){.kind = EFFECT_NAME,
                            .node = op->to_directory ? op->to_directory : op->from_directory});
        break;
    case VEX_SIM_SYNC:
        sync_file(crash, op->node);
        break;
    case VEX_SIM_SYNC_FAILED:
        fail_sync(crash, op->node);
        break;
    case VEX_SIM_SYNC_DIRECTORY:
        sync_directory(crash, op->node);
        break;
    case VEX_SIM_COMPLETE:
        complete(crash, op);
        break;
    case VEX_SIM_MARK:
        break;
    }
    crash->position++;
    crash->grouped = false;
    return true;
}

/* ---- groups ---------------------------------------------------------------------------------- */

static bool is_silent(const struct vex_sim_crash *crash, const struct effect *effect)
{
    const struct sim_content *content = sim_tree_node(&crash->durable, effect->node)->content;
    uint64_t at = effect->at * SECTOR;
    uint64_t size = content ? content->bytes : 0;
    const uint8_t *there = at + SECTOR <= size ? content->data + at : zero_sector;
    return memcmp(there, effect->data ? effect->data : zero_sector, SECTOR) == 0;
}

static struct group *group_of(struct vex_sim_crash *crash, const struct effect *effect)
{
    bool alone = effect->kind == EFFECT_NAME && !crash->limits.ordered;
    uint64_t at = effect->kind == EFFECT_SECTOR ? effect->at : 0;
    for (size_t i = crash->groups_count; !alone && i-- > 0;) {
        struct group *group = &crash->groups[i];
        if (group->kind == effect->kind && group->node == effect->node && group->at == at) {
            return group;
        }
    }
    if (crash->groups_count == crash->groups_capacity) {
        crash->groups_capacity = crash->groups_capacity ? 2 * crash->groups_capacity : 64;
        crash->groups = realloc(crash->groups, crash->groups_capacity * sizeof(*crash->groups));
        sim_must(crash->groups, "out of memory");
    }
    struct group *group = &crash->groups[crash->groups_count++];
    *group = (struct group){.kind = effect->kind, .node = effect->node, .at = at, .silent = true};
    return group;
}

static void group_effects(struct vex_sim_crash *crash)
{
    crash->groups_count = 0;
    crash->has_sectors = false;
    for (size_t i = 0; i < crash->effects_count; i++) {
        struct effect *effect = &crash->effects[i];
        struct group *group = group_of(crash, effect);
        effect->group = (uint32_t)(group - crash->groups);
        effect->version = ++group->versions;
        group->silent = group->silent && effect->kind == EFFECT_SECTOR && is_silent(crash, effect);
        crash->has_sectors = crash->has_sectors || effect->kind == EFFECT_SECTOR;
    }
    crash->combinations = 1;
    for (size_t i = 0; i < crash->groups_count && crash->combinations; i++) {
        const struct group *group = &crash->groups[i];
        crash->combinations *= group->silent ? 1 : group->versions + 1;
        if (crash->combinations > crash->limits.exhaustive_states) {
            crash->combinations = 0;
        }
    }
    crash->grouped = true;
}

static uint64_t choices(const struct vex_sim_crash *crash)
{
    return crash->combinations ? crash->combinations : 2u + crash->limits.random_states;
}

uint64_t vex_sim_crash_states(struct vex_sim_crash *crash)
{
    if (!crash->grouped) {
        group_effects(crash);
    }
    return choices(crash) + (crash->has_sectors ? crash->limits.garbage_states : 0);
}

static void choose_by_number(struct vex_sim_crash *crash, uint64_t number)
{
    for (size_t i = 0; i < crash->groups_count; i++) {
        struct group *group = &crash->groups[i];
        group->choice = 0;
        if (!group->silent) {
            group->choice = (uint32_t)(number % (group->versions + 1));
            number /= group->versions + 1;
        }
    }
}

/* Some states keep nearly everything, some nearly nothing, some about half. */
static void choose_at_random(struct vex_sim_crash *crash, struct vex_random *random, bool garbage)
{
    uint64_t kept = 1 + 6 * vex_random_below(random, 3) / 2; /* of 8: 1, 4, 7 */
    uint64_t odds = garbage ? 2 + vex_random_below(random, 12) : 0;
    for (size_t i = 0; i < crash->groups_count; i++) {
        struct group *group = &crash->groups[i];
        bool keep = vex_random_below(random, 8) < kept;
        group->choice =
            keep ? group->versions
                 : (uint32_t)vex_random_below(random, group->versions + (kept == 4 ? 1u : 0u));
        group->garbage =
            garbage && group->kind == EFFECT_SECTOR && vex_random_once_in(random, odds);
    }
}

static void choose(struct vex_sim_crash *crash, uint64_t state, struct vex_random *random)
{
    sim_must(state < vex_sim_crash_states(crash), "no such state");
    for (size_t i = 0; i < crash->groups_count; i++) {
        crash->groups[i].garbage = false;
    }
    if (crash->combinations && state < crash->combinations) {
        choose_by_number(crash, state);
    } else if (!crash->combinations && state < 2) {
        for (size_t i = 0; i < crash->groups_count; i++) {
            crash->groups[i].choice = state ? crash->groups[i].versions : 0;
        }
    } else {
        choose_at_random(crash, random, state >= choices(crash));
    }
}

/* ---- images ---------------------------------------------------------------------------------- */

/* Zeros, noise, or what another file held: the disk may have had it in this place before. */
static void fill_with_garbage(struct vex_sim_crash *crash, struct vex_random *random, uint32_t node,
                              uint8_t sector[SECTOR])
{
    memset(sector, 0, SECTOR);
    uint64_t kind = vex_random_below(random, 4);
    if (kind == 1) {
        vex_random_fill(random, sector, SECTOR);
    } else if (kind >= 2) {
        for (unsigned tries = 0; tries < 16; tries++) {
            const struct vex_sim_op *op =
                &crash->sim->ops[vex_random_below(random, crash->position)];
            if (op->data && op->node != node) {
                memcpy(sector, op->data + SECTOR * vex_random_below(random, op->bytes / SECTOR),
                       SECTOR);
                return;
            }
        }
    }
}

static bool is_chosen(const struct vex_sim_crash *crash, const struct effect *effect)
{
    const struct group *group = &crash->groups[effect->group];
    return effect->kind == EFFECT_NAME ? effect->version <= group->choice
                                       : effect->version == group->choice;
}

struct vex_io *vex_sim_crash_image(struct vex_sim_crash *crash, uint64_t state)
{
    struct vex_random random = vex_random_seeded(
        vex_mix64(crash->limits.seed + vex_mix64(crash->position) + vex_mix64(~state)));
    choose(crash, state, &random);
    struct sim_tree tree;
    sim_tree_copy_all(&tree, &crash->durable);
    /* Lengths first: sectors are cut off at the end of the file. */
    for (unsigned pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < crash->effects_count; i++) {
            const struct effect *effect = &crash->effects[i];
            if ((effect->kind == EFFECT_SIZE) == (pass == 0) && is_chosen(crash, effect)) {
                apply(crash, &tree, effect);
            }
        }
    }
    for (size_t i = 0; i < crash->groups_count; i++) {
        const struct group *group = &crash->groups[i];
        if (group->garbage) {
            uint8_t sector[SECTOR];
            fill_with_garbage(crash, &random, group->node, sector);
            sim_tree_write(&tree, group->node, group->at * SECTOR, sector, SECTOR);
        }
    }
    return sim_open_tree(&tree);
}

static struct vex_sim_op copy_op(const struct vex_sim_op *from)
{
    struct vex_sim_op op = *from;
    if (op.data) {
        uint8_t *data = malloc((size_t)op.bytes);
        sim_must(data, "out of memory");
        memcpy(data, op.data, (size_t)op.bytes);
        op.data = data;
    }
    return op;
}

struct vex_io *vex_sim_crash_killed(struct vex_sim_crash *crash)
{
    struct sim_tree tree;
    sim_tree_copy_all(&tree, &crash->durable);
    for (size_t i = 0; i < crash->effects_count; i++) {
        apply(crash, &tree, &crash->effects[i]);
    }
    struct vex_io *io = sim_open_tree(&tree);
    struct sim *self = sim_of(io);
    sim_tree_copy_all(&self->base, &crash->sim->base);
    self->recording = true;
    self->ops_capacity = crash->position + 64;
    self->ops = malloc(self->ops_capacity * sizeof(*self->ops));
    sim_must(self->ops, "out of memory");
    for (size_t i = 0; i < crash->position; i++) {
        self->ops[self->ops_count++] = copy_op(&crash->sim->ops[i]);
    }
    return io;
}

/* ---- life ------------------------------------------------------------------------------------ */

struct vex_sim_crash *vex_sim_crash_open(struct vex_io *io, const struct vex_sim_limits *limits)
{
    struct vex_sim_crash *crash = calloc(1, sizeof(*crash));
    sim_must(crash, "out of memory");
    crash->sim = sim_of(io);
    sim_must(crash->sim->recording, "nothing was recorded");
    crash->limits = *limits;
    sim_tree_copy_all(&crash->durable, &crash->sim->base);
    return crash;
}

void vex_sim_crash_close(struct vex_sim_crash *crash)
{
    sim_tree_deinit(&crash->durable);
    free(crash->effects);
    free(crash->groups);
    free(crash);
}

size_t vex_sim_crash_position(const struct vex_sim_crash *crash)
{
    return crash->position;
}

bool vex_sim_crash_is_settled(const struct vex_sim_crash *crash)
{
    return crash->effects_count == 0;
}

static void print_effect(const struct vex_sim_crash *crash, const struct effect *effect, FILE *out)
{
    static const char *const kinds[] = {"sector", "length", "name"};
    const struct group *group = &crash->groups[effect->group];
    if (group->silent && !group->garbage) {
        return;
    }
    (void)fprintf(out, "        op %zu: %s %llu of node %u: %s\n", effect->op, kinds[effect->kind],
                  (unsigned long long)effect->at, effect->node,
                  group->garbage             ? "garbage"
                  : is_chosen(crash, effect) ? "on the disk"
                                             : "lost");
}

void vex_sim_crash_print(struct vex_sim_crash *crash, uint64_t state, FILE *out)
{
    struct vex_random random = vex_random_seeded(
        vex_mix64(crash->limits.seed + vex_mix64(crash->position) + vex_mix64(~state)));
    choose(crash, state, &random);
    for (size_t i = 0; i < crash->position; i++) {
        vex_io_sim_print_op(&crash->sim->io, i, out);
    }
    (void)fprintf(out, "      power fails here; not durable:\n");
    for (size_t i = 0; i < crash->effects_count; i++) {
        print_effect(crash, &crash->effects[i], out);
    }
}
