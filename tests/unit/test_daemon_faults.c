/*
 * A disk that fails at every point of a daemon's life: one history with everything in it (log files that
 * fill up, checkpoints, merges, an erasure, a backup, a drop, an orderly end, a restart) is run once for each
 * kind of call and each number of it, with that call failing in each of several ways.
 *
 * Whatever fails: what the daemon says is true. It answers with an error and goes on, or is read-only and
 * says so; what is published is a state at an LSN; after a start on a healthy disk every acknowledged record
 * is there, each whole, and the instance works. And nothing is left lying about.
 *
 * All points take minutes: a sample of them is run, all with VEX_TEST_FAULTS=all, and with
 * VEX_TEST_FAULTS=<call>,<n>,<way> that one alone. Where /dev/shm can be written to, the instances are there, and
 * not on a disk that really syncs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/error.h"
#include "tests/lib/child.h"
#include "tests/unit/daemon_rig.h"

#define BACKOFF_MS 11000u
#define QUIET_MS 3000u
#define SAMPLES 4u /* of the numbers of one kind of call, for each way */
#define COUNT_OF(array) (sizeof(array) / sizeof(*(array)))

enum { A, B, C };

static struct rig rig;

/* ---- what fails ------------------------------------------------------------------------------ */

static const struct way {
    const char *text;
    struct vex_io_decision decision;
    bool again;
    bool of_data_only; /* makes sense for WRITE and DURABLE alone */
    bool of_changes_only;
} ways[] = {
    {"EIO", {EIO, 0}, false, false, false},
    {"EIO from then on", {EIO, 0}, true, false, false},
    {"EIO, although it happened", {EIO, SIZE_MAX}, false, false, true},
    {"ENOSPC", {ENOSPC, 0}, false, false, true},
    {"ENOSPC from then on", {ENOSPC, 0}, true, false, true},
    {"EIO, torn", {EIO, 4096}, false, true, true},
    {"short", {0, 4096}, false, true, true},
};

static struct {
    enum vex_io_call call;
    uint64_t nth;
    const struct way *way;
    bool armed;
    bool happened;
    uint64_t counts[VEX_IO_CALLS_COUNT]; /* over all starts */
} fault;

/* Called under the disk's lock. */
static struct vex_io_decision decide(void *context, enum vex_io_call call, uint64_t nth,
                                     size_t bytes)
{
    (void)context;
    (void)nth;
    (void)bytes;
    uint64_t count = ++fault.counts[call];
    bool now = fault.armed && call == fault.call &&
               (count == fault.nth || (fault.way->again && count > fault.nth));
    if (!now) {
        return VEX_IO_PASS;
    }
    fault.happened = true;
    return fault.way->decision;
}

static bool changes_something(enum vex_io_call call)
{
    return call != VEX_IO_SIZE && call != VEX_IO_READ && call != VEX_IO_LIST && call != VEX_IO_REAP;
}

static bool makes_sense(enum vex_io_call call, const struct way *way)
{
    bool data = call == VEX_IO_WRITE || call == VEX_IO_DURABLE;
    /* A write may be short only where that can be reported. */
    bool reports = way->decision.error || call == VEX_IO_DURABLE;
    bool refusal = call == VEX_IO_SUBMIT && way->decision.bytes != 0;
    return (!way->of_data_only || data) && (!way->of_changes_only || changes_something(call)) &&
           reports && !refusal;
}

/* ---- one history ----------------------------------------------------------------------------- */

static void check_error(enum vex_status status, const struct vex_error *error)
{
    if (status != VEX_OK && (error->message[0] == 0 || error->status != status)) {
        fail_msg("an error that says nothing: %s", vex_base_status_name(status));
    }
}

static void expect_honest(void)
{
    struct vex_stats_body stats = rig_stats(&rig);
    assert_int_equal(stats.read_only, vex_coordinator_failure(rig.coordinator) != 0);
    rig_expect(&rig, false);
}

static void stage(enum rig_what what, uint32_t name, uint32_t first_id, uint32_t count,
                  uint32_t value)
{
    static struct rig_model model;
    rig_model_at(&rig, rig.staged_lsn, &model);
    if (model.exists[name] == (what == RIG_CREATE)) {
        return; /* what should have come before was refused */
    }
    const struct rig_step step = {what, name, first_id, count, value};
    for (uint32_t i = 0; what == RIG_DELETE && i < count; i++) {
        if (model.values[name][first_id + i] == 0) {
            return;
        }
    }
    struct vex_error error = {.status = VEX_OK};
    enum vex_status status = rig_stage(&rig, &step, &error);
    check_error(status, &error);
    assert_true(status == VEX_OK || status == VEX_ERR_NO_SPACE || status == VEX_ERR_IO ||
                status == VEX_ERR_READ_ONLY);
    if (status == VEX_ERR_READ_ONLY) {
        assert_int_equal(rig_stats(&rig).read_only, 1);
    }
}

static void put_many(uint32_t name, uint32_t first_id, uint32_t count, uint32_t value)
{
    for (uint32_t done = 0; done < count; done += RIG_BATCH) {
        stage(RIG_PUT, name, first_id + done, RIG_BATCH, value);
        if (done / RIG_BATCH % 3 == 2) {
            rig_turn(&rig);
        }
    }
    rig_turn(&rig);
}

static enum vex_status ask(enum vex_upkeep_kind kind, const char *path,
                           struct vex_upkeep_answer *out)
{
    uint64_t ticket = 0;
    struct vex_upkeep_answer answer = {.status = VEX_OK};
    struct vex_error error = {.status = VEX_OK};
    rig.now_ms += BACKOFF_MS;
    enum vex_status status = rig_ask(&rig, kind, NULL, path, &ticket, &error);
    check_error(status, &error);
    if (status == VEX_OK) {
        answer = rig_await(&rig, ticket);
        status = answer.status;
        check_error(status, &answer.error);
    }
    expect_honest();
    if (out) {
        *out = answer;
    }
    return status;
}

static uint64_t backup_lsn; /* 0 = none was made */

static void live(void)
{
    stage(RIG_CREATE, A, 0, 0, 0);
    stage(RIG_CREATE, B, 0, 0, 0);
    put_many(A, 0, 10 * RIG_BATCH, 1);
    put_many(B, 0, 2 * RIG_BATCH, 2);
    (void)ask(VEX_UPKEEP_CHECKPOINT, NULL, NULL);
    for (uint32_t i = 0; i < 5; i++) {
        stage(RIG_DELETE, A, 2 * i * RIG_BATCH, RIG_BATCH, 0);
    }
    put_many(A, 600, 3 * RIG_BATCH, 3);
    rig_rest(&rig); /* merges by dead share */
    (void)ask(VEX_UPKEEP_COMPACT, NULL, NULL);
    put_many(A, 100, 6 * RIG_BATCH, 4);
    struct vex_upkeep_answer answer;
    backup_lsn = 0;
    if (ask(VEX_UPKEEP_BACKUP, "backup-one", &answer) == VEX_OK) {
        backup_lsn = answer.done.lsn;
    }
    stage(RIG_ALTER, A, 0, 0, 2);
    stage(RIG_DROP, B, 0, 0, 0);
    stage(RIG_CREATE, B, 0, 0, 0);
    stage(RIG_ALTER, B, 0, 0, 7);
    put_many(B, 40, RIG_BATCH, 5);
    (void)ask(VEX_UPKEEP_ERASE, NULL, NULL);
    put_many(B, 300, RIG_BATCH, 6);
    rig_pass(&rig, QUIET_MS);
    vex_coordinator_settle(rig.coordinator);
    rig_turn(&rig);
    expect_honest();
}

/* A failure that is over is forgotten, unless the instance has become read-only. */
static void expect_going_on(void)
{
    if (rig_stats(&rig).read_only || fault.way->again || (fault.armed && !fault.happened)) {
        return;
    }
    rig.now_ms += BACKOFF_MS;
    rig_put(&rig, A, 700, RIG_BATCH, 7);
    rig_commit(&rig);
    assert_int_equal(rig_stats(&rig).read_only, 0);
    assert_int_equal(rig.acknowledged_lsn, rig.staged_lsn);
    enum vex_status status = ask(VEX_UPKEEP_CHECKPOINT, NULL, NULL);
    /* The manifest is the one thing that is not written again. */
    if (status == VEX_ERR_READ_ONLY) {
        assert_true(rig_stats(&rig).upkeep_error[0] != 0);
    } else {
        assert_int_equal(status, VEX_OK);
    }
}

/* ---- afterwards ------------------------------------------------------------------------------ */

static void expect_clean(void)
{
    assert_int_equal(rig_count_files(&rig, "segments", ".tmp"), 0);
    assert_int_equal(rig_count_files(&rig, "checkpoints", ".tmp"), 0);
    assert_int_equal(rig_count_files(&rig, ".", ".part"), 0);
    assert_true(rig_count_files(&rig, "checkpoints", ".ckpt") <= 2);
}

/* What was said to be a backup is an instance with every record up to its LSN. */
static void expect_backup(const char *path, uint64_t lsn)
{
    static struct rig other;
    other = rig;
    other.coordinator = NULL;
    other.staged_lsn = other.acknowledged_lsn = lsn;
    (void)snprintf(other.directory.path, sizeof(other.directory.path), "%.50s/%s",
                   rig.directory.path, path);
    other.directory.fd = open(other.directory.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(other.directory.fd >= 0);
    rig_start(&other);
    assert_int_equal(vex_coordinator_durable_lsn(other.coordinator), lsn);
    rig_expect(&other, true);
    rig_stop(&other);
    assert_int_equal(rig_count_shared(&other), 0);
    assert_int_equal(close(other.directory.fd), 0);
    assert_int_equal(fchdir(rig.directory.fd), 0);
}

static void live_on_a_healthy_disk(void)
{
    rig_weaken(&rig, NULL, NULL);
    fault.armed = false;
    rig_start(&rig);
    rig_expect_recovered(&rig);
    stage(RIG_CREATE, A, 0, 0, 0);
    stage(RIG_CREATE, C, 0, 0, 0);
    rig_put(&rig, A, 900, RIG_BATCH, 8);
    rig_put(&rig, C, 0, RIG_BATCH, 9);
    struct vex_upkeep_answer answer;
    assert_int_equal(ask(VEX_UPKEEP_COMPACT, NULL, NULL), VEX_OK);
    enum vex_status status = ask(VEX_UPKEEP_BACKUP, "backup-two", &answer);
    assert_int_equal(status, VEX_OK);
    uint64_t second_lsn = answer.done.lsn;
    if (backup_lsn == 0) {
        /* Made anew, whatever the failed attempt left. It may have got its name after all. */
        status = ask(VEX_UPKEEP_BACKUP, "backup-one", &answer);
        assert_true(status == VEX_OK || status == VEX_ERR_EXISTS);
        backup_lsn = status == VEX_OK ? answer.done.lsn : 0;
    }
    assert_int_equal(rig.acknowledged_lsn, rig.staged_lsn);
    rig_stop(&rig);
    assert_int_equal(rig_count_shared(&rig), 0);
    rig_start(&rig);
    rig_expect_recovered(&rig);
    expect_clean();
    rig_stop(&rig);
    expect_backup("backup-two", second_lsn);
    if (backup_lsn) {
        expect_backup("backup-one", backup_lsn);
    }
}

static int live_with_fault(void *context)
{
    (void)context;
    rig_make(&rig);
    rig_weaken(&rig, decide, NULL);
    rig.options.checkpoint_bytes = (uint64_t)1 << 40;
    rig.options.io_backend = "sync";
    struct vex_error error = {.status = VEX_OK};
    enum vex_status status = rig_open(&rig, &error);
    check_error(status, &error);
    if (status == VEX_OK) {
        live();
        expect_going_on();
        rig_stop(&rig);
        assert_int_equal(rig_count_shared(&rig), 0);
        status = rig_open(&rig, &error);
        check_error(status, &error);
        if (status == VEX_OK) {
            rig_expect_recovered(&rig);
            rig_stop(&rig);
        }
    }
    live_on_a_healthy_disk();
    rig_remove(&rig);
    return fault.happened ? 0 : 3; /* how many calls there are varies a little with the threads */
}

/* ---- the matrix ------------------------------------------------------------------------------ */

static uint64_t *counted; /* shared: calls of each kind in a history without a fault */

static int live_without_fault(void *context)
{
    (void)context;
    fault.way = &ways[1]; /* without the steps that come after a failure that is over */
    fault.armed = false;
    (void)live_with_fault(NULL);
    memcpy(counted, fault.counts, sizeof(fault.counts));
    return 0;
}

struct totals {
    unsigned tried;
    unsigned missed;
    unsigned failed;
};

static void try_one(enum vex_io_call call, uint64_t nth, const struct way *way,
                    struct totals *totals)
{
    fault.call = call;
    fault.nth = nth;
    fault.way = way;
    fault.armed = true;
    fault.happened = false;
    int code = vex_child_run(live_with_fault, NULL);
    totals->tried++;
    totals->missed += code == 3;
    if (code != 0 && code != 3) {
        totals->failed++;
        (void)fprintf(
            stderr, "FAULT: %s number %llu: %s: child ended with %d; VEX_TEST_FAULTS=%d,%llu,%d\n",
            vex_io_call_name(call), (unsigned long long)nth, way->text, code, (int)call,
            (unsigned long long)nth, (int)(way - ways));
    }
}

static void try_kind(enum vex_io_call call, size_t way, bool all, struct totals *totals)
{
    uint64_t count = counted[call];
    uint64_t step = all || count <= SAMPLES ? 1 : count / SAMPLES;
    /* Other ways begin elsewhere, so that together they meet more points. */
    uint64_t first = 1 + (all ? 0 : (way * 5 + (uint64_t)call * 3) % step);
    for (uint64_t nth = first; nth <= count; nth += step) {
        try_one(call, nth, &ways[way], totals);
    }
}

static void every_call_may_fail(void **state)
{
    (void)state;
    const char *given = getenv("VEX_TEST_FAULTS");
    struct totals totals = {0};
    unsigned call = 0;
    unsigned long long nth = 0;
    unsigned way = 0;
    assert_int_equal(vex_child_run(live_without_fault, NULL), 0);
    if (given && sscanf(given, "%u,%llu,%u", &call, &nth, &way) == 3) {
        assert_true(call < VEX_IO_CALLS_COUNT && way < COUNT_OF(ways));
        try_one((enum vex_io_call)call, nth, &ways[way], &totals);
        assert_int_equal(totals.failed, 0);
        return;
    }
    uint64_t points = 0;
    for (call = 0; call < VEX_IO_CALLS_COUNT; call++) {
        for (way = 0; way < COUNT_OF(ways); way++) {
            if (makes_sense((enum vex_io_call)call, &ways[way])) {
                points += counted[call];
                try_kind((enum vex_io_call)call, way, given && strcmp(given, "all") == 0, &totals);
            }
        }
    }
    printf("%u of %llu points tried, %u of them not reached\n", totals.tried,
           (unsigned long long)points, totals.missed);
    assert_int_equal(totals.failed, 0);
    assert_true(totals.missed < totals.tried / 5);
}

int main(void)
{
    if (!getenv("TMPDIR") && access("/dev/shm", W_OK) == 0) {
        (void)setenv("TMPDIR", "/dev/shm", 1);
    }
    counted = mmap(NULL, VEX_IO_CALLS_COUNT * sizeof(*counted), PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (counted == MAP_FAILED) {
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_call_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
