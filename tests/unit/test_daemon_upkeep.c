/*
 * Upkeep in this process: when checkpoints and merges happen and when not, requests, jobs that are given
 * up half way, and what a start makes of what they left.
 *
 * The worker is real, time is not (daemon_rig.h). Shared memory that no reader can see is given back after
 * every turn, so whatever a job reads without its pin shows under the address sanitizer.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "tests/lib/io_fault.h"
#include "tests/lib/random.h"
#include "tests/unit/daemon_rig.h"

#define QUIET_MS 3000u
#define BACKOFF_MS 11000u
#define ASKS_FOR_GRAPH 401u /* of rig_alter: hnsw, and an effort that takes a while */
#define COUNT_OF(array) (sizeof(array) / sizeof(*(array)))

enum { A, B, C };

static uint64_t seed;
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

/* ---- rules ----------------------------------------------------------------------------------- */

static void a_checkpoint_comes_when_the_tail_has_grown_and_not_before(void **state)
{
    (void)state;
    rig_stop(&rig);
    rig.options.checkpoint_bytes = 512 * 1024;
    rig_start(&rig);
    rig_create(&rig, A);
    while (rig_stats(&rig).log_bytes < 300 * 1024) {
        rig_put(&rig, A, 0, RIG_BATCH, 1 + (uint32_t)rig.staged_lsn);
        rig_commit(&rig);
    }
    rig_rest(&rig);
    assert_int_equal(rig_stats(&rig).checkpoints, 0);
    while (rig_stats(&rig).log_bytes < 700 * 1024) {
        rig_put(&rig, A, 0, RIG_BATCH, 1 + (uint32_t)rig.staged_lsn);
        rig_commit(&rig);
    }
    rig_rest(&rig);
    struct vex_stats_body stats = rig_stats(&rig);
    assert_int_equal(stats.checkpoints, 1);
    assert_int_equal(stats.checkpoint_lsn, rig.staged_lsn);
    rig_expect(&rig, true);
    /* One more, so that the log before the first can go; then silence. */
    rig_pass(&rig, QUIET_MS);
    rig_pass(&rig, QUIET_MS);
    uint64_t checkpoints = rig_stats(&rig).checkpoints;
    assert_in_range(checkpoints, 2, 4);
    for (int i = 0; i < 5; i++) {
        rig_pass(&rig, 60000);
    }
    assert_int_equal(rig_stats(&rig).checkpoints, checkpoints);
    assert_int_equal(rig_stats(&rig).log_file_bytes / (64 * 1024), 1);
    restart();
    assert_int_equal(rig_stats(&rig).replayed, 0);
}

static void nothing_happens_when_nothing_has_changed(void **state)
{
    (void)state;
    rig_pass(&rig, 60000);
    rig_pass(&rig, 60000);
    assert_int_equal(rig_stats(&rig).checkpoints, 0);
    assert_int_equal(rig_stats(&rig).merges, 0);
    rig_create(&rig, A);
    rig_put(&rig, A, 0, 10, 1);
    rig_commit(&rig);
    rig_pass(&rig, 60000);
    assert_int_equal(rig_stats(&rig).checkpoints, 0);
    restart();
    rig_pass(&rig, 60000);
    rig_pass(&rig, 60000);
    assert_int_equal(rig_stats(&rig).checkpoints, 0);
}

static void dead_rows_are_merged_away_and_two_checkpoints_follow(void **state)
{
    (void)state;
    rig_create(&rig, A);
    rig_put(&rig, A, 0, 300, 1);
    (void)rig_do(&rig, VEX_UPKEEP_CHECKPOINT, NULL);
    rig_delete(&rig, A, 0, 90);
    rig_commit(&rig);
    rig_rest(&rig);
    assert_int_equal(rig_stats(&rig).merges, 0);
    rig_delete(&rig, A, 90, 10);
    rig_commit(&rig);
    rig_rest(&rig);
    struct vex_stats_body stats = rig_stats(&rig);
    assert_int_equal(stats.merges, 1);
    assert_int_equal(stats.dead_rows, 0);
    assert_int_equal(stats.live_rows, 200);
    uint64_t checkpoints = stats.checkpoints;
    rig_expect(&rig, true);
    /* A tenth is enough when it is quiet. */
    rig_delete(&rig, A, 100, 21);
    rig_commit(&rig);
    rig_rest(&rig);
    assert_int_equal(rig_stats(&rig).merges, 1);
    for (int i = 0; i < 4; i++) {
        rig_pass(&rig, QUIET_MS);
    }
    stats = rig_stats(&rig);
    assert_int_equal(stats.merges, 2);
    assert_in_range(stats.checkpoints, checkpoints + 2, checkpoints + 6);
    assert_int_equal(stats.segment_files, 1);
    rig_expect(&rig, true);
    restart();
}

static void segments_of_one_size_are_merged(void **state)
{
    (void)state;
    rig_create(&rig, A);
    for (uint32_t i = 0; i < 3; i++) {
        rig_put(&rig, A, 100 * i, 100, 1 + i);
        (void)rig_do(&rig, VEX_UPKEEP_CHECKPOINT, NULL);
        rig_rest(&rig);
    }
    assert_int_equal(rig_stats(&rig).merges, 0);
    assert_int_equal(rig_segments(&rig, A), 3);
    rig_put(&rig, A, 300, 100, 4);
    (void)rig_do(&rig, VEX_UPKEEP_CHECKPOINT, NULL);
    rig_rest(&rig);
    assert_int_equal(rig_stats(&rig).merges, 1);
    assert_int_equal(rig_segments(&rig, A), 1);
    rig_expect(&rig, true);
    restart();
}

static void nothing_new_is_begun_while_a_request_waits_for_a_graph(void **state)
{
    (void)state;
    rig_create(&rig, A);
    rig_alter(&rig, A, ASKS_FOR_GRAPH);
    rig_put(&rig, A, 0, RIG_IDS, 1);
    rig_create(&rig, B);
    for (uint32_t i = 0; i < 4; i++) {
        rig_put(&rig, B, 100 * i, 100, 1 + i);
        if (i < 3) {
            (void)rig_do(&rig, VEX_UPKEEP_CHECKPOINT, NULL);
        }
    }
    rig_rest(&rig);
    uint64_t merges = rig_stats(&rig).merges;
    /* Each row is replaced, so that the graph has to be made anew; and B's tail is sealed, which makes four. */
    rig_put(&rig, A, 0, RIG_IDS, 2);
    (void)rig_do(&rig, VEX_UPKEEP_COMPACT, "a");
    assert_int_equal(rig_stats(&rig).merges, merges + 1);
    assert_int_equal(rig_segments(&rig, B), 4);
    rig_rest(&rig);
    assert_int_equal(rig_segments(&rig, B), 1);
    rig_expect(&rig, true);
    restart();
}

static void a_collection_without_a_living_row_has_no_segments_and_goes_on(void **state)
{
    (void)state;
    rig_create(&rig, A);
    rig_create(&rig, B);
    rig_put(&rig, A, 0, 200, 1);
    rig_put(&rig, B, 0, 200, 1);
    (void)rig_do(&rig, VEX_UPKEEP_CHECKPOINT, NULL);
    rig_delete(&rig, A, 0, 200);
    rig_commit(&rig);
    rig_rest(&rig);
    assert_int_equal(rig_segments(&rig, A), 0);
    rig_expect(&rig, true);
    restart();
    (void)rig_do(&rig, VEX_UPKEEP_COMPACT, NULL);
    restart();
    assert_int_equal(rig_segments(&rig, A), 0);
    rig_put(&rig, A, 50, 100, 2);
    rig_commit(&rig);
    rig_expect(&rig, true);
    restart();
}

static void the_files_of_a_dropped_collection_go_soon(void **state)
{
    (void)state;
    rig_create(&rig, A);
    rig_create(&rig, B);
    rig_put(&rig, A, 0, 300, 1);
    rig_put(&rig, B, 0, 300, 1);
    (void)rig_do(&rig, VEX_UPKEEP_CHECKPOINT, NULL);
    (void)rig_do(&rig, VEX_UPKEEP_CHECKPOINT, NULL);
    assert_int_equal(rig_stats(&rig).segment_files, 2);
    rig_drop(&rig, A);
    rig_commit(&rig);
    for (int i = 0; i < 4; i++) {
        rig_pass(&rig, QUIET_MS);
    }
    assert_int_equal(rig_stats(&rig).segment_files, 1);
    uint64_t checkpoints = rig_stats(&rig).checkpoints;
    rig_pass(&rig, 60000);
    assert_int_equal(rig_stats(&rig).checkpoints, checkpoints);
    restart();
}

/* ---- requests -------------------------------------------------------------------------------- */

static void fill(void)
{
    for (uint32_t name = A; name <= C; name++) {
        rig_create(&rig, name);
        rig_put(&rig, name, 0, 200, 1 + name);
    }
    (void)rig_do(&rig, VEX_UPKEEP_CHECKPOINT, NULL);
    for (uint32_t name = A; name <= C; name++) {
        rig_put(&rig, name, 150, 200, 10 + name);
        rig_delete(&rig, name, 0, 20);
    }
}

static void requests_are_answered_once_each_and_in_order(void **state)
{
    (void)state;
    fill();
    uint64_t tickets[16];
    struct vex_error error = {.status = VEX_OK};
    for (unsigned i = 0; i < 16; i++) {
        static const enum vex_upkeep_kind kinds[] = {VEX_UPKEEP_COMPACT, VEX_UPKEEP_CHECKPOINT,
                                                     VEX_UPKEEP_BACKUP, VEX_UPKEEP_ERASE};
        char path[32];
        (void)snprintf(path, sizeof(path), "backup-%u", i);
        enum vex_upkeep_kind kind = kinds[i % 4];
        assert_int_equal(rig_ask(&rig, kind, i % 8 == 0 ? "b" : NULL,
                                 kind == VEX_UPKEEP_BACKUP ? path : NULL, &tickets[i], &error),
                         VEX_OK);
    }
    uint64_t ignored;
    assert_int_equal(rig_ask(&rig, VEX_UPKEEP_CHECKPOINT, NULL, NULL, &ignored, &error),
                     VEX_ERR_BUSY);
    while (rig.answers_count < 16) {
        rig_turn(&rig);
        (void)usleep(500);
    }
    for (unsigned i = 0; i < 16; i++) {
        assert_int_equal(rig.answers[i].ticket, tickets[i]);
        if (rig.answers[i].status != VEX_OK) {
            fail_msg("request %u: %s", i, rig.answers[i].error.message);
        }
    }
    assert_int_equal(rig_stats(&rig).dead_rows, 0);
    rig_expect(&rig, true);
    restart();
}

static void requests_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    rig_create(&rig, A);
    rig_commit(&rig);
    uint64_t ticket;
    struct vex_error error;
    assert_int_equal(rig_ask(&rig, (enum vex_upkeep_kind)0, NULL, NULL, &ticket, &error),
                     VEX_ERR_INVALID);
    assert_int_equal(rig_ask(&rig, (enum vex_upkeep_kind)5, NULL, NULL, &ticket, &error),
                     VEX_ERR_INVALID);
    assert_int_equal(rig_ask(&rig, VEX_UPKEEP_BACKUP, NULL, "", &ticket, &error), VEX_ERR_INVALID);
    assert_int_equal(rig_ask(&rig, VEX_UPKEEP_COMPACT, "b", NULL, &ticket, &error),
                     VEX_ERR_NO_COLLECTION);
    struct vex_upkeep_body body = {.kind = VEX_UPKEEP_BACKUP};
    memset(body.path, 'p', sizeof(body.path));
    assert_int_equal(vex_coordinator_request(rig.coordinator, &body, &ticket, &error),
                     VEX_ERR_INVALID);
    body = (struct vex_upkeep_body){.kind = VEX_UPKEEP_COMPACT};
    memset(body.name, 'n', sizeof(body.name));
    assert_int_equal(vex_coordinator_request(rig.coordinator, &body, &ticket, &error),
                     VEX_ERR_NO_COLLECTION);
    rig_rest(&rig);
    assert_int_equal(rig.answers_count, 0);
}

static void a_collection_may_go_while_it_is_worked_on(void **state)
{
    (void)state;
    static const enum vex_upkeep_kind kinds[] = {VEX_UPKEEP_COMPACT, VEX_UPKEEP_ERASE,
                                                 VEX_UPKEEP_CHECKPOINT};
    fill();
    for (unsigned round = 0; round < 24; round++) {
        uint64_t ticket;
        assert_int_equal(
            rig_ask(&rig, kinds[round % 3], round % 2 ? "a" : NULL, NULL, &ticket, NULL), VEX_OK);
        for (unsigned turn = 0; turn < round / 3; turn++) {
            rig_turn(&rig);
        }
        rig_drop(&rig, A);
        if (round % 4 == 3) {
            rig_turn(&rig);
        }
        rig_create(&rig, A);
        rig_put(&rig, A, 0, 64, 100 + round);
        assert_int_equal(rig_await(&rig, ticket).status, VEX_OK);
        rig_delete(&rig, A, 0, 16);
        rig_commit(&rig);
        rig_expect(&rig, true);
    }
    assert_int_equal(rig_stats(&rig).merge_failures, 0);
    restart();
}

/* ---- a failing log --------------------------------------------------------------------------- */

static _Atomic bool log_fails;

static struct vex_io_decision fail_log(void *context, enum vex_io_call call, uint64_t nth,
                                       size_t bytes)
{
    (void)context;
    (void)nth;
    (void)bytes;
    /* relaxed: asked by the thread that sets it, or of no interest. */
    bool now = atomic_load_explicit(&log_fails, memory_order_relaxed);
    return call == VEX_IO_DURABLE && now ? (struct vex_io_decision){EIO, 0} : VEX_IO_PASS;
}

static void set_log_fails(bool fails)
{
    /* relaxed: as above. */
    atomic_store_explicit(&log_fails, fails, memory_order_relaxed);
}

static void requests_are_answered_when_the_log_fails(void **state)
{
    (void)state;
    static const enum vex_upkeep_kind kinds[] = {VEX_UPKEEP_CHECKPOINT, VEX_UPKEEP_COMPACT,
                                                 VEX_UPKEEP_ERASE, VEX_UPKEEP_BACKUP};
    fill();
    rig_weaken(&rig, fail_log, NULL);
    for (unsigned round = 0; round < 4 * 7; round++) {
        set_log_fails(false);
        rig_stop(&rig);
        rig_start(&rig);
        rig_expect_recovered(&rig);
        uint64_t tickets[3];
        char path[32];
        (void)snprintf(path, sizeof(path), "backup-%u", round);
        for (unsigned i = 0; i < 3; i++) {
            assert_int_equal(rig_ask(&rig, i ? VEX_UPKEEP_CHECKPOINT : kinds[round % 4], NULL,
                                     !i && round % 4 == 3 ? path : NULL, &tickets[i], NULL),
                             VEX_OK);
        }
        for (unsigned turn = 0; turn < round / 4; turn++) {
            rig_turn(&rig);
        }
        set_log_fails(true);
        rig_put(&rig, A, 300, 20, 50 + round);
        (void)vex_coordinator_commit(rig.coordinator);
        /* The request's turn comes while the batch is in flight. */
        vex_coordinator_upkeep(rig.coordinator, rig.now_ms);
        for (unsigned i = 0; i < 3; i++) {
            struct vex_upkeep_answer answer = rig_await(&rig, tickets[i]);
            assert_true(answer.status == VEX_OK || answer.status == VEX_ERR_READ_ONLY);
            if (answer.status != VEX_OK) {
                assert_true(answer.error.message[0] != 0);
            }
        }
        assert_int_equal(rig_stats(&rig).read_only, 1);
        rig_expect(&rig, false);
    }
    set_log_fails(false);
    restart();
}

/* ---- given up half way ----------------------------------------------------------------------- */

static void closing_in_the_middle_of_a_job_loses_nothing(void **state)
{
    (void)state;
    static const enum vex_upkeep_kind kinds[] = {VEX_UPKEEP_CHECKPOINT, VEX_UPKEEP_COMPACT,
                                                 VEX_UPKEEP_ERASE, VEX_UPKEEP_BACKUP};
    struct vex_random random = vex_random_seeded(seed);
    fill();
    for (unsigned round = 0; round < 48; round++) {
        uint64_t ticket;
        char path[32];
        (void)snprintf(path, sizeof(path), "backup-%u", round);
        rig_put(&rig, round % 3, (uint32_t)vex_random_below(&random, 900), 100, 1000 + round);
        assert_int_equal(
            rig_ask(&rig, kinds[round % 4], NULL, round % 4 == 3 ? path : NULL, &ticket, NULL),
            VEX_OK);
        unsigned turns = (unsigned)vex_random_below(&random, 9);
        for (unsigned turn = 0; turn < turns; turn++) {
            rig_turn(&rig);
            (void)usleep((useconds_t)vex_random_below(&random, 400));
        }
        if (vex_random_once_in(&random, 2)) {
            rig_put(&rig, round % 3, 0, 50, 2000 + round);
        }
        rig_stop(&rig);
        assert_int_equal(rig_count_shared(&rig), 0);
        rig_start(&rig);
        assert_int_equal(vex_coordinator_durable_lsn(rig.coordinator), rig.staged_lsn);
        rig_expect_recovered(&rig);
        assert_int_equal(rig_count_files(&rig, "segments", ".tmp"), 0);
        assert_int_equal(rig_count_files(&rig, "checkpoints", ".tmp"), 0);
        assert_int_equal(rig_count_files(&rig, "log", "spare"), 0);
    }
    (void)rig_do(&rig, VEX_UPKEEP_COMPACT, NULL);
    assert_int_equal(rig_stats(&rig).segment_files, 3);
    assert_int_equal(rig_count_files(&rig, "segments", ".seg"), 3);
    assert_int_equal(rig_count_files(&rig, "checkpoints", ".ckpt"), 2);
}

/* ---- erasing --------------------------------------------------------------------------------- */

#define SECRET 987654u /* the value of what is to be erased */

/* Vectors of SECRET in one file. */
static unsigned count_secrets_in(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file) {
        return 0; /* removed meanwhile */
    }
    static float words[1 << 20];
    size_t count = fread(words, sizeof(words[0]), sizeof(words) / sizeof(words[0]), file);
    unsigned found = 0;
    for (size_t i = 0; i + 3 < count; i++) {
        found += words[i] == (float)SECRET && words[i + 2] == 3.0f && words[i + 3] == 4.0f;
    }
    (void)fclose(file);
    return found;
}

static unsigned count_secrets(void)
{
    static const char *const folders[] = {"log", "segments", "checkpoints"};
    unsigned found = 0;
    for (size_t i = 0; i < COUNT_OF(folders); i++) {
        char path[1024];
        (void)snprintf(path, sizeof(path), "%s/%s", rig.directory.path, folders[i]);
        DIR *entries = opendir(path);
        assert_non_null(entries);
        const struct dirent *entry;
        while ((entry = readdir(entries))) {
            (void)snprintf(path, sizeof(path), "%s/%s/%s", rig.directory.path, folders[i],
                           entry->d_name);
            found += count_secrets_in(path);
        }
        (void)closedir(entries);
    }
    return found;
}

/* Writes go on for some turns, so that the log is anywhere in its file, with one that is used again ready behind
 * it, when it is to leave that file. Then silence: nothing writes over what was in the next one. */
static void erased_rows_are_in_no_file_however_the_log_stands(void **state)
{
    (void)state;
    rig_create(&rig, A);
    for (uint32_t round = 0; round < 48; round++) {
        for (uint32_t i = 0; i < 3; i++) {
            rig_put(&rig, A, 0, 256, SECRET);
            rig_commit(&rig);
            (void)rig_do(&rig, VEX_UPKEEP_CHECKPOINT, NULL);
        }
        for (uint32_t i = 0; i < round % 16; i++) {
            rig_put(&rig, A, 0, 1, SECRET);
            rig_commit(&rig);
        }
        rig_delete(&rig, A, 0, 256);
        rig_commit(&rig);
        rig_rest(&rig);
        uint64_t ticket;
        assert_int_equal(rig_ask(&rig, VEX_UPKEEP_ERASE, NULL, NULL, &ticket, NULL), VEX_OK);
        for (uint32_t turn = 0; turn < 2 + round / 12; turn++) {
            rig_put(&rig, A, 400, 1, 1 + turn);
            (void)vex_coordinator_commit(rig.coordinator);
            /* Staged while the batch before is in flight. */
            rig_put(&rig, A, 400, RIG_BATCH, 2 + turn);
            rig_turn(&rig);
            (void)usleep(500);
        }
        assert_int_equal(rig_await(&rig, ticket).status, VEX_OK);
        assert_int_equal(count_secrets(), 0);
    }
}

/* ---- at the same time ------------------------------------------------------------------------ */

static void random_step(struct vex_random *random, uint32_t value)
{
    static struct rig_model model;
    uint32_t name = (uint32_t)vex_random_below(random, RIG_NAMES);
    rig_model_at(&rig, rig.staged_lsn, &model);
    if (!model.exists[name]) {
        rig_create(&rig, name);
        return;
    }
    uint32_t id = (uint32_t)vex_random_below(random, 600);
    uint32_t count = 1 + (uint32_t)vex_random_below(random, RIG_BATCH);
    if (vex_random_once_in(random, 150)) {
        rig_drop(&rig, name);
    } else if (vex_random_once_in(random, 40)) {
        rig_alter(&rig, name, 1 + value % 4000);
    } else if (vex_random_once_in(random, 3)) {
        while (id < RIG_IDS && model.values[name][id] == 0) {
            id++;
        }
        uint32_t run = 0;
        while (run < count && id + run < RIG_IDS && model.values[name][id + run]) {
            run++;
        }
        if (run) {
            rig_delete(&rig, name, id, run);
        }
    } else {
        rig_put(&rig, name, id, count, value);
    }
}

static void random_request(struct vex_random *random)
{
    uint64_t ticket;
    enum vex_upkeep_kind kind = (enum vex_upkeep_kind)(1 + vex_random_below(random, 3));
    const char *name = vex_random_once_in(random, 2) ? NULL : "b";
    enum vex_status status = rig_ask(&rig, kind, name, NULL, &ticket, NULL);
    assert_true(status == VEX_OK || status == VEX_ERR_BUSY || status == VEX_ERR_NO_COLLECTION);
    rig.answers_count = 0;
}

static void writes_and_jobs_go_on_at_the_same_time(void **state)
{
    (void)state;
    rig_stop(&rig);
    rig.options.checkpoint_bytes = 128 * 1024;
    rig_start(&rig);
    struct vex_random random = vex_random_seeded(seed);
    for (uint32_t i = 0; i < 2500; i++) {
        random_step(&random, 1 + i);
        if (vex_random_once_in(&random, 3)) {
            rig_turn(&rig);
            rig.answers_count = 0;
        }
        if (vex_random_once_in(&random, 40)) {
            random_request(&random);
        }
        if (vex_random_once_in(&random, 50)) {
            rig.now_ms += QUIET_MS;
        }
        if (vex_random_once_in(&random, 100)) {
            rig_expect(&rig, false);
        }
        if (vex_random_once_in(&random, 400)) {
            rig_stop(&rig);
            assert_int_equal(rig_count_shared(&rig), 0);
            rig_start(&rig);
            assert_int_equal(vex_coordinator_durable_lsn(rig.coordinator), rig.staged_lsn);
            rig_expect_recovered(&rig);
        }
    }
    rig.answers_count = 0;
    rig_rest(&rig);
    rig_expect(&rig, true);
    struct vex_stats_body stats = rig_stats(&rig);
    assert_int_equal(stats.checkpoint_failures, 0);
    assert_int_equal(stats.merge_failures, 0);
    restart();
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, make_rig, remove_rig)

int main(void)
{
    seed = vex_random_announce("test_daemon_upkeep");
    const struct CMUnitTest tests[] = {
        CASE(a_checkpoint_comes_when_the_tail_has_grown_and_not_before),
        CASE(nothing_happens_when_nothing_has_changed),
        CASE(dead_rows_are_merged_away_and_two_checkpoints_follow),
        CASE(segments_of_one_size_are_merged),
        CASE(nothing_new_is_begun_while_a_request_waits_for_a_graph),
        CASE(a_collection_without_a_living_row_has_no_segments_and_goes_on),
        CASE(the_files_of_a_dropped_collection_go_soon),
        CASE(requests_are_answered_once_each_and_in_order),
        CASE(requests_that_make_no_sense_are_refused),
        CASE(a_collection_may_go_while_it_is_worked_on),
        CASE(requests_are_answered_when_the_log_fails),
        CASE(closing_in_the_middle_of_a_job_loses_nothing),
        CASE(erased_rows_are_in_no_file_however_the_log_stands),
        CASE(writes_and_jobs_go_on_at_the_same_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
