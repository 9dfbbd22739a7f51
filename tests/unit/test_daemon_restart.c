/*
 * What a start makes of a checkpoint: the registry as it was, also at its limits; and what it does when a
 * segment file is damaged: refuse, or serve the rest and leave the damage alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "tests/unit/daemon_rig.h"

#define QUIET_MS 3000u

enum { A, B, C };

static struct rig rig;

static int make_rig(void **state)
{
    (void)state;
    rig_make(&rig);
    rig.options.checkpoint_bytes = (uint64_t)1 << 40; /* only what a test asks for */
    rig_start(&rig);
    return 0;
}

static int remove_rig(void **state)
{
    (void)state;
    rig_remove(&rig);
    return 0;
}

static void restart(void)
{
    rig_stop(&rig);
    assert_int_equal(rig_count_shared(&rig), 0);
    rig_start(&rig);
    rig_expect_recovered(&rig);
}

/* ---- the registry ---------------------------------------------------------------------------- */

static uint64_t insert_without_id(uint32_t name)
{
    float vector[RIG_DIM] = {1};
    const struct vex_write_input input = {
        .collection_id = rig.ids[name],
        .kind = VEX_WRITE_INSERT,
        .count = 1,
        .dim = RIG_DIM,
        .vectors = vector,
    };
    struct vex_buffer buffer = {0};
    struct vex_ack_body ack = {0};
    assert_true(vex_write_encode(&buffer, &input));
    assert_int_equal(vex_coordinator_write(rig.coordinator, buffer.data, buffer.bytes, &ack, NULL),
                     VEX_OK);
    vex_buffer_deinit(&buffer);
    return ack.first_id;
}

static void counts_ids_and_names_are_what_they_were(void **state)
{
    (void)state;
    for (uint32_t name = A; name <= C; name++) {
        rig_create(&rig, name);
        rig_put(&rig, name, 0, 200, 1 + name);
        rig_delete(&rig, name, 180, 20);
    }
    uint32_t dropped_id = rig.ids[B];
    rig_drop(&rig, B);
    rig_commit(&rig);
    (void)rig_do(&rig, VEX_UPKEEP_CHECKPOINT, NULL);
    struct vex_stats_body before = rig_stats(&rig);
    restart();
    struct vex_stats_body after = rig_stats(&rig);
    assert_int_equal(after.replayed, 0);
    assert_int_equal(after.collections, 2);
    assert_int_equal(after.live_rows, before.live_rows);
    assert_int_equal(after.dead_rows, before.dead_rows);
    assert_int_equal(after.live_bytes, before.live_bytes);
    assert_int_equal(after.checkpoint_lsn, before.checkpoint_lsn);
    assert_int_equal(after.segment_files, before.segment_files);
    assert_int_equal(after.segment_bytes, before.segment_bytes);
    /* Its number is not given out again, its name is free. */
    rig_create(&rig, B);
    assert_true(rig.ids[B] > dropped_id && rig.ids[B] > rig.ids[C]);
    /* An update without a payload keeps the restored one: rig_put always brings its own, so look at ids. */
    assert_int_equal(insert_without_id(A), 200);
    assert_int_equal(insert_without_id(B), 0);
    rig_commit(&rig);
}

static void a_dropped_collection_of_the_log_stays_dropped(void **state)
{
    (void)state;
    rig_create(&rig, A);
    rig_put(&rig, A, 0, 100, 1);
    (void)rig_do(&rig, VEX_UPKEEP_CHECKPOINT, NULL);
    rig_drop(&rig, A);
    rig_create(&rig, A);
    rig_put(&rig, A, 50, 10, 2);
    rig_commit(&rig);
    restart();
    rig_drop(&rig, A);
    rig_commit(&rig);
    restart();
    rig_create(&rig, A);
    (void)rig_do(&rig, VEX_UPKEEP_CHECKPOINT, NULL);
    restart();
    assert_int_equal(rig_segments(&rig, A), 0);
    rig_put(&rig, A, 0, 10, 3);
    rig_commit(&rig);
    restart();
}

static void create_named(unsigned i)
{
    struct vex_create_body body = {.dim = 1 + i % 7, .metric = 1 + i % 3};
    (void)snprintf(body.name, sizeof(body.name), "n-%u", i);
    struct vex_ack_body ack;
    enum vex_status status = vex_coordinator_create(rig.coordinator, &body, &ack, NULL);
    if (status == VEX_ERR_BUSY) {
        rig_commit(&rig);
        status = vex_coordinator_create(rig.coordinator, &body, &ack, NULL);
    }
    assert_int_equal(status, VEX_OK);
}

static void as_many_collections_as_there_may_be_come_back(void **state)
{
    (void)state;
    for (unsigned i = 0; i < VEX_COLLECTIONS_MAX; i++) {
        create_named(i);
    }
    rig_commit(&rig);
    (void)rig_do(&rig, VEX_UPKEEP_CHECKPOINT, NULL);
    for (int round = 0; round < 3; round++) {
        rig_stop(&rig);
        rig_start(&rig);
        assert_int_equal(rig_stats(&rig).replayed, round ? 2 : 0);
        assert_int_equal(rig_stats(&rig).collections, VEX_COLLECTIONS_MAX);
        struct vex_create_body body = {.dim = 1, .metric = VEX_METRIC_L2};
        (void)snprintf(body.name, sizeof(body.name), "one-more-%d", round);
        struct vex_ack_body ack;
        assert_int_equal(vex_coordinator_create(rig.coordinator, &body, &ack, NULL), VEX_ERR_LIMIT);
        if (round == 0) {
            struct vex_drop_body drop = {.name = "n-500"};
            assert_int_equal(vex_coordinator_drop(rig.coordinator, &drop, &ack, NULL), VEX_OK);
            assert_int_equal(vex_coordinator_create(rig.coordinator, &body, &ack, NULL), VEX_OK);
            rig_commit(&rig);
        }
    }
}

/* The instance as it would be after a crash now: nothing of the running daemon reaches it. */
static void crash(void)
{
    char command[1100];
    struct vex_temp_dir copy;
    vex_temp_dir_make(&copy);
    (void)snprintf(command, sizeof(command), "cp -r --sparse=always '%s/.' '%s'",
                   rig.directory.path, copy.path);
    assert_int_equal(system(command), 0);
    rig_stop(&rig);
    assert_int_equal(rig_count_shared(&rig), 0);
    assert_int_equal(chdir("/"), 0);
    vex_temp_dir_remove(&rig.directory);
    rig.directory = copy;
}

/* Checkpoints without a break, so that no merge begins. */
static void fill_the_list(void)
{
    uint64_t next;
    assert_int_equal(rig_ask(&rig, VEX_UPKEEP_CHECKPOINT, NULL, NULL, &next, NULL), VEX_OK);
    for (uint32_t i = 0; i < 254; i++) {
        uint64_t ticket = next;
        rig_put(&rig, A, i, 1, 1 + i);
        assert_int_equal(rig_ask(&rig, VEX_UPKEEP_CHECKPOINT, NULL, NULL, &next, NULL), VEX_OK);
        assert_int_equal(rig_await(&rig, ticket).status, VEX_OK);
    }
    struct vex_error error = {.status = VEX_OK};
    while (rig_segments(&rig, A) < 254) {
        uint64_t ticket = next;
        uint32_t id = 300 + rig_segments(&rig, A);
        rig_put(&rig, A, id, 1, 7);
        assert_int_equal(rig_ask(&rig, VEX_UPKEEP_CHECKPOINT, NULL, NULL, &next, NULL), VEX_OK);
        assert_int_equal(rig_await(&rig, ticket).status, VEX_OK);
    }
    assert_int_equal(rig_stats(&rig).merges, 0);
    assert_int_equal(rig_stage(&rig, &(struct rig_step){RIG_PUT, A, 900, 1, 9}, &error),
                     VEX_ERR_NO_SPACE);
    rig.answers_count = 0;
    rig_expect(&rig, true);
}

static void a_full_list_of_segments_comes_back(void **state)
{
    (void)state;
    rig_create(&rig, A);
    fill_the_list();
    restart();
    assert_int_equal(rig_segments(&rig, A), 254);
    /* Upkeep makes room. */
    rig_rest(&rig);
    assert_true(rig_segments(&rig, A) < 20);
    rig_put(&rig, A, 900, 10, 9);
    rig_commit(&rig);
    rig_expect(&rig, true);
}

/* What a merge had made room for must find room again, although the merge is not repeated. */
static void a_full_list_does_not_keep_what_came_after_a_merge_from_being_replayed(void **state)
{
    (void)state;
    rig_create(&rig, A);
    fill_the_list();
    rig_rest(&rig);
    assert_true(rig_stats(&rig).merges > 0);
    rig_put(&rig, A, 900, 20, 9);
    rig_put(&rig, A, 0, 40, 10);
    rig_delete(&rig, A, 100, 20);
    rig_commit(&rig);
    rig_expect(&rig, true);
    crash();
    rig_start(&rig);
    rig_expect_recovered(&rig);
    rig_rest(&rig);
    (void)rig_do(&rig, VEX_UPKEEP_COMPACT, NULL);
    restart();
}

/* From the log, from a checkpoint, and from both. */
static void what_was_altered_stays_altered(void **state)
{
    (void)state;
    rig_create(&rig, A);
    rig_create(&rig, B);
    rig_alter(&rig, A, 10);
    rig_put(&rig, A, 0, 100, 1);
    rig_alter(&rig, A, 11);
    rig_commit(&rig);
    crash();
    rig_start(&rig);
    rig_expect_recovered(&rig);
    rig_alter(&rig, B, 12);
    (void)rig_do(&rig, VEX_UPKEEP_CHECKPOINT, NULL);
    assert_int_equal(rig_stats(&rig).checkpoint_lsn, rig.staged_lsn);
    restart();
    assert_int_equal(rig_stats(&rig).replayed, 0);
    rig_alter(&rig, A, 13);
    rig_drop(&rig, B);
    rig_create(&rig, B);
    rig_commit(&rig);
    crash();
    rig_start(&rig);
    rig_expect_recovered(&rig);
    assert_int_equal(rig_stats(&rig).replayed, 3);
}

/* ---- damage ---------------------------------------------------------------------------------- */

static void segment_path(char path[600], const char *name)
{
    (void)snprintf(path, 600, "%s/segments/%s", rig.directory.path, name);
}

/* The segment files are written in the order of the collections, so the second is B's. */
#define FILE_OF_B "0000000000000002.seg"

enum damage { FLIP, TRUNCATE, REMOVE, REPLACE, DAMAGES };

static void do_damage(enum damage damage)
{
    char path[600];
    char other[600];
    char command[1300];
    segment_path(path, FILE_OF_B);
    segment_path(other, "0000000000000001.seg");
    (void)snprintf(command, sizeof(command), "cp '%s' '%s/saved'", path, rig.directory.path);
    assert_int_equal(system(command), 0);
    if (damage == FLIP) {
        int fd = open(path, O_RDWR | O_CLOEXEC);
        uint8_t byte;
        assert_true(fd >= 0);
        assert_int_equal(pread(fd, &byte, 1, 9000), 1);
        byte ^= 4;
        assert_int_equal(pwrite(fd, &byte, 1, 9000), 1);
        assert_int_equal(close(fd), 0);
    } else if (damage == TRUNCATE) {
        assert_int_equal(truncate(path, 8192), 0);
    } else if (damage == REMOVE) {
        assert_int_equal(unlink(path), 0);
    } else {
        (void)snprintf(command, sizeof(command), "cp '%s' '%s'", other, path);
        assert_int_equal(system(command), 0);
    }
}

static void undo_damage(void)
{
    char path[600];
    char command[1300];
    segment_path(path, FILE_OF_B);
    (void)snprintf(command, sizeof(command), "cp '%s/saved' '%s'", rig.directory.path, path);
    assert_int_equal(system(command), 0);
}

static void make_three(void)
{
    for (uint32_t name = A; name <= C; name++) {
        rig_create(&rig, name);
        rig_put(&rig, name, 0, 100, 1 + name);
    }
    rig_commit(&rig);
    /* Two, so that both kept checkpoints need the files. */
    (void)rig_do(&rig, VEX_UPKEEP_CHECKPOINT, NULL);
    (void)rig_do(&rig, VEX_UPKEEP_CHECKPOINT, NULL);
    rig_put(&rig, B, 200, 30, 5);
    rig_delete(&rig, B, 0, 10);
    rig_commit(&rig);
    rig_stop(&rig);
    assert_int_equal(rig_count_files(&rig, "segments", ".seg"), 3);
}

static void a_start_refuses_and_says_what_and_how(void)
{
    struct vex_error error = {.status = VEX_OK};
    assert_int_equal(rig_open(&rig, &error), VEX_ERR_CORRUPT);
    if (!strstr(error.message, "segments/" FILE_OF_B) || !strstr(error.message, "--quarantine") ||
        !strstr(error.message, "collection b")) {
        fail_msg("not helpful: %s", error.message);
    }
}

/* Serves A and C, not B. */
static void expect_without_b(void)
{
    static struct rig_step steps[RIG_STEPS_MAX];
    memcpy(steps, rig.history, sizeof(steps));
    for (uint64_t i = 0; i < rig.staged_lsn; i++) {
        if (rig.history[i].name == B) {
            rig.history[i] = (struct rig_step){RIG_DROP, B, 0, 0, 0};
        }
    }
    rig_expect(&rig, true);
    memcpy(rig.history, steps, sizeof(steps));
}

static void expect_b_is_out_of_reach(uint32_t id_of_b)
{
    struct vex_error error = {.status = VEX_OK};
    uint64_t ticket;
    uint32_t id = rig.ids[B];
    rig.ids[B] = id_of_b;
    assert_int_equal(rig_stage(&rig, &(struct rig_step){RIG_PUT, B, 0, 1, 9}, &error),
                     VEX_ERR_CORRUPT);
    assert_int_equal(rig_stage(&rig, &(struct rig_step){RIG_DELETE, B, 50, 1, 0}, &error),
                     VEX_ERR_CORRUPT);
    rig.ids[B] = id;
    assert_int_equal(rig_stage(&rig, &(struct rig_step){RIG_CREATE, B, 0, 0, 0}, &error),
                     VEX_ERR_EXISTS);
    for (uint32_t kind = VEX_UPKEEP_CHECKPOINT; kind <= VEX_UPKEEP_BACKUP; kind++) {
        assert_int_equal(rig_ask(&rig, (enum vex_upkeep_kind)kind, NULL, "backup", &ticket, &error),
                         VEX_ERR_CORRUPT);
        assert_non_null(strstr(error.message, "quarantine"));
    }
}

static void start_in_quarantine(void)
{
    uint64_t acknowledged = rig.acknowledged_lsn;
    rig.options.quarantine = true;
    rig_start(&rig);
    assert_int_equal(vex_coordinator_durable_lsn(rig.coordinator), acknowledged);
    assert_int_equal(rig_stats(&rig).quarantined, 1);
    expect_without_b();
}

static void the_rest_is_served_and_what_was_damaged_comes_back(void **state)
{
    (void)state;
    make_three();
    for (enum damage damage = FLIP; damage < DAMAGES; damage++) {
        rig.options.quarantine = false;
        rig.options.checkpoint_bytes = 64 * 1024;
        do_damage(damage);
        a_start_refuses_and_says_what_and_how();
        start_in_quarantine();
        expect_b_is_out_of_reach(rig.ids[B]);
        uint64_t log_bytes = rig_stats(&rig).log_bytes;
        for (uint32_t i = 0; i < 20; i++) {
            rig_put(&rig, A, 100, RIG_BATCH, 20 + i + damage);
            rig_turn(&rig);
        }
        rig_delete(&rig, C, 10 * damage, 10);
        rig_commit(&rig);
        rig_pass(&rig, QUIET_MS);
        rig_pass(&rig, QUIET_MS);
        assert_int_equal(rig_stats(&rig).checkpoints, 0);
        assert_true(rig_stats(&rig).log_bytes > log_bytes + 100 * 1024);
        expect_without_b();
        rig_stop(&rig);
        start_in_quarantine(); /* once more, with what was written meanwhile */
        rig_stop(&rig);
        undo_damage();
        rig.options.quarantine = damage % 2 != 0; /* does not matter any more */
        rig_start(&rig);
        assert_int_equal(rig_stats(&rig).quarantined, 0);
        rig_expect_recovered(&rig);
        rig_stop(&rig);
        /* No checkpoint of this start may have replaced the files. */
        assert_int_equal(rig_count_files(&rig, "segments", FILE_OF_B), 1);
    }
    rig.options.checkpoint_bytes = (uint64_t)1 << 40;
    rig_start(&rig);
    (void)rig_do(&rig, VEX_UPKEEP_COMPACT, NULL);
    restart();
}

static void dropping_what_is_damaged_ends_the_quarantine(void **state)
{
    (void)state;
    make_three();
    do_damage(FLIP);
    start_in_quarantine();
    rig_drop(&rig, B);
    rig_commit(&rig);
    assert_int_equal(rig_stats(&rig).quarantined, 0);
    rig_create(&rig, B);
    rig_put(&rig, B, 5, 10, 3);
    (void)rig_do(&rig, VEX_UPKEEP_COMPACT, NULL);
    assert_true(rig_stats(&rig).checkpoints >= 2);
    assert_int_equal(rig_count_files(&rig, "segments", FILE_OF_B), 0);
    rig.options.quarantine = false;
    restart();
}

/* The drop is in the log, the damaged file in both checkpoints. */
static void a_drop_ends_the_quarantine_also_when_it_is_replayed(void **state)
{
    (void)state;
    make_three();
    do_damage(TRUNCATE);
    start_in_quarantine();
    rig_drop(&rig, B);
    rig_commit(&rig);
    rig_stop(&rig);
    rig_start(&rig);
    assert_int_equal(rig_stats(&rig).quarantined, 0);
    rig_expect_recovered(&rig);
    (void)rig_do(&rig, VEX_UPKEEP_CHECKPOINT, NULL);
    (void)rig_do(&rig, VEX_UPKEEP_CHECKPOINT, NULL);
    rig.options.quarantine = false;
    restart();
}

/* What a bad sector looks like. Of the second collection's file, which has more rows than the others', every
 * read of the vectors fails. */
#define LARGE_READ (64u * 1024u) /* of log files, no more than this at once */

static struct vex_io_decision fail_large_reads(void *context, enum vex_io_call call, uint64_t nth,
                                               size_t bytes)
{
    (void)nth;
    bool *failed = context;
    if (call == VEX_IO_READ && bytes > LARGE_READ && bytes < 4 * LARGE_READ) {
        *failed = true;
        return (struct vex_io_decision){EIO, 0};
    }
    return VEX_IO_PASS;
}

static void a_file_that_cannot_be_read_is_quarantined(void **state)
{
    (void)state;
    make_three();
    rig_start(&rig);
    rig_put(&rig, B, 300, 200, 3);
    (void)rig_do(&rig, VEX_UPKEEP_COMPACT, "b");
    rig_stop(&rig);
    bool failed = false;
    struct vex_error error = {.status = VEX_OK};
    rig_weaken(&rig, fail_large_reads, &failed);
    assert_int_equal(rig_open(&rig, &error), VEX_ERR_IO);
    assert_true(failed);
    assert_non_null(strstr(error.message, "collection b"));
    assert_non_null(strstr(error.message, "--quarantine"));
    start_in_quarantine();
    rig_pass(&rig, QUIET_MS);
    assert_int_equal(rig_stats(&rig).checkpoints, 0);
    rig_stop(&rig);
    rig_weaken(&rig, NULL, NULL);
    rig_start(&rig);
    rig_expect_recovered(&rig);
}

/* With --quarantine always given: a collection is set aside only if no checkpoint has it whole. */
static void an_older_checkpoint_is_better_than_a_quarantine(void **state)
{
    (void)state;
    make_three();
    rig_start(&rig);
    rig_put(&rig, B, 300, 200, 3);
    (void)rig_do(&rig, VEX_UPKEEP_CHECKPOINT, NULL);
    rig_stop(&rig);
    /* The newest segment file: the older checkpoint does not need it, and the log has what is in it. */
    char path[512];
    (void)snprintf(path, sizeof(path), "%s/segments", rig.directory.path);
    struct dirent **entries = NULL;
    int count = scandir(path, &entries, NULL, alphasort);
    assert_true(count > 2);
    (void)snprintf(path, sizeof(path), "%s/segments/%.100s", rig.directory.path,
                   entries[count - 1]->d_name);
    for (int i = 0; i < count; i++) {
        free(entries[i]);
    }
    free(entries);
    assert_int_equal(truncate(path, 4096), 0);
    for (unsigned quarantine = 0; quarantine < 2; quarantine++) {
        rig.options.quarantine = quarantine != 0;
        rig_start(&rig);
        assert_int_equal(rig_stats(&rig).quarantined, 0);
        rig_expect_recovered(&rig);
        rig_stop(&rig);
    }
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, make_rig, remove_rig)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(counts_ids_and_names_are_what_they_were),
        CASE(a_dropped_collection_of_the_log_stays_dropped),
        CASE(as_many_collections_as_there_may_be_come_back),
        CASE(what_was_altered_stays_altered),
        CASE(a_full_list_of_segments_comes_back),
        CASE(a_full_list_does_not_keep_what_came_after_a_merge_from_being_replayed),
        CASE(the_rest_is_served_and_what_was_damaged_comes_back),
        CASE(dropping_what_is_damaged_ends_the_quarantine),
        CASE(a_drop_ends_the_quarantine_also_when_it_is_replayed),
        CASE(a_file_that_cannot_be_read_is_quarantined),
        CASE(an_older_checkpoint_is_better_than_a_quarantine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
