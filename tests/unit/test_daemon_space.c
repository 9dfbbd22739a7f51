/*
 * A disk that is really full: small file systems in a private mount namespace, in a child; skipped where that
 * is not allowed.
 *
 * Inserts are refused, deletes and drops are not; and what they free comes back: a compaction finds enough
 * room for itself, and then inserts go on.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/error.h"
#include "tests/lib/child.h"
#include "tests/unit/daemon_rig.h"

#define DIM 1024u /* few rows, so that deletes find room in what is left for them */
#define BATCH 64u
#define QUIET_MS 3000u
#define BACKOFF_MS 11000u
#define MIB ((uint64_t)1 << 20)

static struct rig rig;

static bool mount_disk(unsigned mib)
{
    char options[32];
    (void)snprintf(options, sizeof(options), "size=%um", mib);
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("none", rig.directory.path, "tmpfs", 0, options) != 0) {
        printf("a small disk cannot be mounted here: %s\n", strerror(errno));
        return false;
    }
    (void)close(rig.directory.fd);
    rig.directory.fd = open(rig.directory.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(rig.directory.fd >= 0);
    return true;
}

static uint64_t free_bytes(void)
{
    struct statvfs info;
    assert_int_equal(fstatvfs(rig.directory.fd, &info), 0);
    return (uint64_t)info.f_bavail * info.f_frsize;
}

static void make_collection(const char *name)
{
    struct vex_create_body body = {.dim = DIM, .metric = VEX_METRIC_L2};
    struct vex_ack_body ack;
    (void)snprintf(body.name, sizeof(body.name), "%s", name);
    assert_int_equal(vex_coordinator_create(rig.coordinator, &body, &ack, NULL), VEX_OK);
    rig.ids[0] = (uint32_t)ack.first_id;
    rig_commit(&rig);
}

static enum vex_status put(enum vex_write_kind kind, uint64_t first_id, struct vex_error *error)
{
    static float vectors[BATCH * DIM];
    uint64_t ids[BATCH];
    for (uint32_t i = 0; i < BATCH; i++) {
        ids[i] = first_id + i;
        vectors[(size_t)i * DIM] = (float)(first_id + i);
    }
    bool is_delete = kind == VEX_WRITE_DELETE;
    const struct vex_write_input input = {
        .collection_id = rig.ids[0],
        .kind = kind,
        .count = BATCH,
        .dim = is_delete ? 0 : DIM,
        .ids = ids,
        .vectors = is_delete ? NULL : vectors,
    };
    struct vex_buffer buffer = {0};
    struct vex_ack_body ack;
    assert_true(vex_write_encode(&buffer, &input));
    enum vex_status status =
        vex_coordinator_write(rig.coordinator, buffer.data, buffer.bytes, &ack, error);
    if (status == VEX_ERR_BUSY) {
        rig_commit(&rig);
        status = vex_coordinator_write(rig.coordinator, buffer.data, buffer.bytes, &ack, error);
    }
    vex_buffer_deinit(&buffer);
    return status;
}

/* Until nothing more goes in, also not after upkeep has had its time. Returns the number of rows. */
static uint64_t fill(void)
{
    uint64_t id = 0;
    struct vex_error error = {.status = VEX_OK};
    for (int refused = 0; refused < 3;) {
        enum vex_status status = put(VEX_WRITE_INSERT, id, &error);
        assert_true(status == VEX_OK || status == VEX_ERR_NO_SPACE);
        id += status == VEX_OK ? BATCH : 0;
        rig_turn(&rig);
        if (rig_stats(&rig).upkeep_running || id / BATCH % 16 == 0) {
            rig_rest(&rig); /* the worker keeps up, as it does where the log is on a real disk */
        }
        if (status != VEX_OK) {
            refused++;
            rig_pass(&rig, BACKOFF_MS);
        }
    }
    assert_int_equal(rig_stats(&rig).read_only, 0);
    assert_int_equal(rig_stats(&rig).live_rows, id);
    return id;
}

static uint64_t first_kept;

static void delete_range(uint64_t first_id, uint64_t end)
{
    for (uint64_t id = first_id; id < end; id += BATCH) {
        struct vex_error error = {.status = VEX_OK};
        enum vex_status status = put(VEX_WRITE_DELETE, id, &error);
        if (status != VEX_OK) {
            fail_msg("delete of %llu: %s", (unsigned long long)id, error.message);
        }
        if (id / BATCH % 64 == 63) {
            rig_commit(&rig); /* few: each takes a block of what is left for them */
        }
    }
    rig_commit(&rig);
    rig_rest(&rig);
}

struct disk {
    unsigned mib;
    uint64_t log_file_bytes_max; /* 0 = as usual */
    uint64_t kept_percent;
    bool by_itself; /* no request: the rules alone */
};

static void compact(const struct disk *disk, uint64_t *kept)
{
    uint64_t ticket;
    if (disk->by_itself) {
        for (int i = 0; i < 4 || (i < 12 && free_bytes() <= disk->mib * MIB / 4); i++) {
            rig_pass(&rig, BACKOFF_MS);
        }
        return;
    }
    assert_int_equal(rig_ask(&rig, VEX_UPKEEP_COMPACT, NULL, NULL, &ticket, NULL), VEX_OK);
    struct vex_upkeep_answer answer = rig_await(&rig, ticket);
    if (answer.status == VEX_ERR_NO_SPACE && disk->kept_percent > 10) {
        /* What lives must fit beside what was, into the reserve if nowhere else: less of it does. */
        assert_non_null(strstr(answer.error.message, "segments/"));
        uint64_t fewer = *kept / 8 / BATCH * BATCH;
        uint64_t first = rig_stats(&rig).live_rows;
        delete_range(first_kept, first_kept + first - fewer);
        *kept = fewer;
        /* A job that began before the deletes may still fail, and the request with it. */
        for (int i = 0; i < 4; i++) {
            rig_pass(&rig, BACKOFF_MS);
            assert_int_equal(rig_ask(&rig, VEX_UPKEEP_COMPACT, NULL, NULL, &ticket, NULL), VEX_OK);
            answer = rig_await(&rig, ticket);
            if (answer.status != VEX_ERR_NO_SPACE) {
                break;
            }
        }
        assert_int_equal(answer.status, VEX_OK);
    } else if (answer.status != VEX_OK) {
        fail_msg("compaction: %s", answer.error.message);
    }
}

static void start_anew(void)
{
    struct vex_drop_body drop = {.name = "a"};
    struct vex_ack_body ack;
    assert_int_equal(vex_coordinator_drop(rig.coordinator, &drop, &ack, NULL), VEX_OK);
    make_collection("a");
}

static int fill_delete_and_go_on(void *context)
{
    const struct disk *disk = context;
    rig_guard(&rig);
    if (!mount_disk(disk->mib)) {
        return VEX_CHILD_SKIPPED;
    }
    rig.options.log_file_bytes_min = 0;
    rig.options.log_file_bytes_max = disk->log_file_bytes_max;
    rig_start(&rig);
    make_collection("a");
    for (int round = 0; round < 3; round++) {
        uint64_t rows = fill();
        uint64_t kept = rows * disk->kept_percent / 100 / BATCH * BATCH;
        first_kept = rows - kept;
        delete_range(0, first_kept);
        compact(disk, &kept);
        assert_int_equal(rig_stats(&rig).live_rows, kept);
        assert_int_equal(rig_stats(&rig).dead_rows, 0);
        assert_true(free_bytes() > disk->mib * MIB / 4);
        assert_int_equal(put(VEX_WRITE_INSERT, rows, NULL), VEX_OK);
        rig_commit(&rig);
        rig_stop(&rig);
        rig_start(&rig);
        assert_int_equal(rig_stats(&rig).live_rows, kept + BATCH);
        start_anew();
    }
    rig_stop(&rig);
    assert_int_equal(rig_count_shared(&rig), 0);
    return 0;
}

static void expect_ok(const struct disk *disk)
{
    struct disk copy = *disk;
    rig_make(&rig);
    int code = vex_child_run(fill_delete_and_go_on, &copy);
    vex_temp_dir_remove(&rig.directory);
    if (code == VEX_CHILD_SKIPPED) {
        skip();
    }
    assert_int_equal(code, 0);
}

static void a_disk_that_is_full_of_log_can_be_compacted(void **state)
{
    (void)state;
    expect_ok(&(struct disk){40, 4 * MIB, 5, false});
}

static void a_disk_that_is_full_of_segments_can_be_compacted(void **state)
{
    (void)state;
    expect_ok(&(struct disk){160, 0, 5, false});
}

static void a_compaction_may_need_more_than_the_reserve(void **state)
{
    (void)state;
    expect_ok(&(struct disk){160, 0, 40, false});
}

static void a_full_disk_recovers_by_itself_from_deletes(void **state)
{
    (void)state;
    expect_ok(&(struct disk){160, 0, 5, true});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_disk_that_is_full_of_log_can_be_compacted),
        cmocka_unit_test(a_disk_that_is_full_of_segments_can_be_compacted),
        cmocka_unit_test(a_compaction_may_need_more_than_the_reserve),
        cmocka_unit_test(a_full_disk_recovers_by_itself_from_deletes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
