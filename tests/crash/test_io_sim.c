/*
 * The simulated disk's model, one rule at a time: what a crash may leave, counted over all states of a crash
 * point. If the model were too kind, the explorers above it would find nothing and look well.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/io_sim.h"

#define SECTOR VEX_SIM_SECTOR_BYTES
#define BLOCK VEX_BLOCK_BYTES

static _Alignas(BLOCK) uint8_t block[BLOCK];

static struct vex_io *open_recorded(void)
{
    struct vex_io *io = vex_io_sim_open();
    vex_io_sim_record(io);
    return io;
}

static struct vex_file open_file(struct vex_io *io, const char *path, enum vex_file_mode mode)
{
    struct vex_file file;
    assert_int_equal(io->ops->open_file(io, path, mode, &file), 0);
    return file;
}

static void write_block(struct vex_io *io, const struct vex_file *file, uint8_t value)
{
    memset(block, value, sizeof(block));
    assert_int_equal(io->ops->write(io, file, block, sizeof(block), 0), 0);
}

/* A file of one block, durable with its name. */
static struct vex_file make_durable(struct vex_io *io, const char *path, uint8_t value)
{
    struct vex_file file = open_file(io, path, VEX_FILE_CREATE);
    write_block(io, &file, value);
    assert_int_equal(io->ops->sync(io, &file), 0);
    assert_int_equal(io->ops->sync_directory(io, "."), 0);
    return file;
}

/* What the states behind the last operation have in common. */
struct outcome {
    uint64_t states;
    uint64_t with[2];       /* in which "a", "b" is there */
    uint64_t with_both;     /* both of them */
    uint64_t sectors[8][4]; /* how often sector i of "a" is all 0, 1, 2, other */
    uint64_t sizes[2];      /* of "a": 0, one block */
};

static void note_sectors(struct outcome *outcome, const uint8_t *data)
{
    for (size_t i = 0; i < 8; i++) {
        const uint8_t *sector = data + i * SECTOR;
        bool same = memcmp(sector, sector + 1, SECTOR - 1) == 0;
        outcome->sectors[i][same && sector[0] <= 2 ? sector[0] : 3]++;
    }
}

static struct outcome look(struct vex_io *io, const struct vex_sim_limits *limits)
{
    struct outcome outcome = {0};
    struct vex_sim_crash *crash = vex_sim_crash_open(io, limits);
    while (vex_sim_crash_step(crash)) {
    }
    outcome.states = vex_sim_crash_states(crash);
    for (uint64_t state = 0; state < outcome.states; state++) {
        struct vex_io *image = vex_sim_crash_image(crash, state);
        struct vex_file file;
        bool there[2];
        for (size_t i = 0; i < 2; i++) {
            there[i] = image->ops->open_file(image, i ? "b" : "a", VEX_FILE_READ, &file) == 0;
            outcome.with[i] += there[i];
            if (there[i]) {
                image->ops->close_file(image, &file);
            }
        }
        outcome.with_both += there[0] && there[1];
        size_t bytes = 0;
        const uint8_t *data = there[0] ? vex_io_sim_bytes(image, "a", &bytes) : NULL;
        if (data && bytes == BLOCK) {
            note_sectors(&outcome, data);
        }
        if (there[0]) {
            outcome.sizes[bytes == BLOCK]++;
        }
        image->ops->close(image);
    }
    vex_sim_crash_close(crash);
    return outcome;
}

static const struct vex_sim_limits exhaustive = {.exhaustive_states = 4096};

static void close_all(struct vex_io *io, struct vex_file *file)
{
    io->ops->close_file(io, file);
    io->ops->close(io);
}

/* ---- data ------------------------------------------------------------------------------------ */

static void synced_data_stays(void **state)
{
    (void)state;
    struct vex_io *io = open_recorded();
    struct vex_file file = make_durable(io, "a", 1);
    struct outcome outcome = look(io, &exhaustive);
    assert_int_equal(outcome.states, 1);
    for (size_t i = 0; i < 8; i++) {
        assert_int_equal(outcome.sectors[i][1], 1);
    }
    close_all(io, &file);
}

static void unsynced_sectors_come_in_every_combination(void **state)
{
    (void)state;
    struct vex_io *io = open_recorded();
    struct vex_file file = make_durable(io, "a", 1);
    write_block(io, &file, 2);
    struct outcome outcome = look(io, &exhaustive);
    assert_int_equal(outcome.states, 256);
    for (size_t i = 0; i < 8; i++) {
        assert_int_equal(outcome.sectors[i][1], 128);
        assert_int_equal(outcome.sectors[i][2], 128);
    }
    close_all(io, &file);
}

static void many_unsynced_sectors_are_sampled_and_torn(void **state)
{
    (void)state;
    static const struct vex_sim_limits few = {
        .exhaustive_states = 16, .random_states = 200, .garbage_states = 200};
    struct vex_io *io = open_recorded();
    struct vex_file file = make_durable(io, "a", 1);
    write_block(io, &file, 2);
    struct outcome outcome = look(io, &few);
    assert_int_equal(outcome.states, 402);
    for (size_t i = 0; i < 8; i++) {
        assert_true(outcome.sectors[i][1] > 40 && outcome.sectors[i][2] > 40);
        assert_true(outcome.sectors[i][0] > 0 && outcome.sectors[i][3] > 0);
    }
    close_all(io, &file);
}

static void a_failed_sync_is_not_made_good_by_another(void **state)
{
    (void)state;
    struct vex_io *io = open_recorded();
    struct vex_file file = make_durable(io, "a", 1);
    write_block(io, &file, 2);
    vex_io_sim_set_errors(io, 1);
    assert_true(io->ops->sync(io, &file) < 0);
    vex_io_sim_set_errors(io, 0);
    assert_int_equal(io->ops->sync(io, &file), 0);
    assert_int_equal(look(io, &exhaustive).states, 256);
    write_block(io, &file, 2);
    assert_int_equal(io->ops->sync(io, &file), 0);
    assert_int_equal(look(io, &exhaustive).states, 1);
    close_all(io, &file);
}

static void a_durable_write_makes_its_range_durable_when_reaped(void **state)
{
    (void)state;
    struct vex_io *io = open_recorded();
    struct vex_file file = make_durable(io, "a", 1);
    int64_t result = 0;
    memset(block, 2, sizeof(block));
    assert_int_equal(io->ops->submit(io, &file, block, sizeof(block), 0), 0);
    assert_int_equal(look(io, &exhaustive).states, 256);
    assert_int_equal(io->ops->reap(io, true, &result), 1);
    assert_int_equal(result, BLOCK);
    struct outcome outcome = look(io, &exhaustive);
    assert_int_equal(outcome.states, 1);
    assert_int_equal(outcome.sectors[7][2], 1);
    close_all(io, &file);
}

static void a_short_durable_write_makes_only_its_part_durable(void **state)
{
    (void)state;
    struct vex_io *io = open_recorded();
    struct vex_file file = make_durable(io, "a", 1);
    const struct vex_sim_habits habits = {.seed = 1, .short_odds = 1};
    int64_t result = 0;
    vex_io_sim_set_habits(io, &habits);
    memset(block, 2, sizeof(block));
    assert_int_equal(io->ops->submit(io, &file, block, sizeof(block), 0), 0);
    assert_int_equal(io->ops->reap(io, true, &result), 1);
    assert_true(result >= 0 && result < BLOCK);
    assert_int_equal(look(io, &exhaustive).states, UINT64_C(1) << (8 - result / SECTOR));
    close_all(io, &file);
}

/* ---- lengths and names ----------------------------------------------------------------------- */

static void length_and_name_of_a_new_file_are_lost_apart(void **state)
{
    (void)state;
    struct vex_io *io = open_recorded();
    struct vex_file file = open_file(io, "a", VEX_FILE_CREATE);
    write_block(io, &file, 0); /* zeros on nothing: no choice but the length */
    struct outcome outcome = look(io, &exhaustive);
    assert_int_equal(outcome.states, 4);
    assert_int_equal(outcome.with[0], 2);
    assert_int_equal(outcome.sizes[0], 1);
    assert_int_equal(outcome.sizes[1], 1);
    assert_int_equal(io->ops->sync(io, &file), 0);
    outcome = look(io, &exhaustive);
    assert_int_equal(outcome.states, 2);
    assert_int_equal(outcome.with[0], 1);
    assert_int_equal(outcome.sizes[1], 1);
    close_all(io, &file);
}

static void a_rename_is_one_change(void **state)
{
    (void)state;
    struct vex_io *io = open_recorded();
    struct vex_file file = make_durable(io, "a", 1);
    assert_int_equal(io->ops->rename(io, "a", "b"), 0);
    struct outcome outcome = look(io, &exhaustive);
    assert_int_equal(outcome.states, 2);
    assert_int_equal(outcome.with[0], 1);
    assert_int_equal(outcome.with[1], 1);
    assert_int_equal(outcome.with_both, 0);
    assert_int_equal(io->ops->sync_directory(io, "."), 0);
    outcome = look(io, &exhaustive);
    assert_int_equal(outcome.states, 1);
    assert_int_equal(outcome.with[1], 1);
    close_all(io, &file);
}

static void names_change_in_order_only_if_asked(void **state)
{
    (void)state;
    struct vex_sim_limits ordered = exhaustive;
    ordered.ordered = true;
    struct vex_io *io = open_recorded();
    struct vex_file file = make_durable(io, "a", 1);
    assert_int_equal(io->ops->link(io, "a", "b"), 0);
    assert_int_equal(io->ops->unlink(io, "a"), 0);
    struct outcome outcome = look(io, &exhaustive);
    assert_int_equal(outcome.states, 4); /* also: neither name */
    assert_int_equal(outcome.with_both, 1);
    outcome = look(io, &ordered);
    assert_int_equal(outcome.states, 3);
    assert_int_equal(outcome.with[0], 2);
    assert_int_equal(outcome.with[1], 2);
    close_all(io, &file);
}

static void a_killed_process_leaves_everything_visible_and_nothing_durable(void **state)
{
    (void)state;
    struct vex_io *io = open_recorded();
    struct vex_file file = make_durable(io, "a", 1);
    write_block(io, &file, 2);
    struct vex_sim_crash *crash = vex_sim_crash_open(io, &exhaustive);
    while (vex_sim_crash_step(crash)) {
    }
    struct vex_io *killed = vex_sim_crash_killed(crash);
    vex_sim_crash_close(crash);
    size_t bytes = 0;
    assert_int_equal(vex_io_sim_bytes(killed, "a", &bytes)[0], 2);
    assert_int_equal(look(killed, &exhaustive).states, 256);
    struct vex_file again = open_file(killed, "a", VEX_FILE_READ);
    assert_int_equal(killed->ops->sync(killed, &again), 0);
    assert_int_equal(look(killed, &exhaustive).states, 1);
    close_all(killed, &again);
    close_all(io, &file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(synced_data_stays),
        cmocka_unit_test(unsynced_sectors_come_in_every_combination),
        cmocka_unit_test(many_unsynced_sectors_are_sampled_and_torn),
        cmocka_unit_test(a_failed_sync_is_not_made_good_by_another),
        cmocka_unit_test(a_durable_write_makes_its_range_durable_when_reaped),
        cmocka_unit_test(a_short_durable_write_makes_only_its_part_durable),
        cmocka_unit_test(length_and_name_of_a_new_file_are_lost_apart),
        cmocka_unit_test(a_rename_is_one_change),
        cmocka_unit_test(names_change_in_order_only_if_asked),
        cmocka_unit_test(a_killed_process_leaves_everything_visible_and_nothing_durable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
