/*
 * The log, on a disk in memory that can be damaged by hand, behind one whose calls fail on demand, and on
 * both real backends.
 *
 * What is checked everywhere is one sentence: after whatever happened, recovery returns the records in
 * order without a hole, at least all that were reported durable, at most all that were submitted.
 *
 * Closing a log writes nothing (but takes the prepared file away), so a log that is closed without a
 * clean watermark is as good as one that was killed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/error.h"
#include "ioengine/log.h"
#include "ioengine/record.h"
#include "tests/lib/child.h"
#include "tests/lib/io_fault.h"
#include "tests/lib/io_memory.h"
#include "tests/lib/random.h"
#include "tests/lib/temp_dir.h"
#include "tests/unit/log_steps.h"

#define RECORD_BYTES_MAX (200u * 1024u)

static uint64_t seed;
static const struct vex_log_options small_files = {uuid, 2 * BLOCK, 8 * BLOCK, {0, 0, 0}};
static const struct vex_log_options large_files = {uuid, 64 * BLOCK, 64 * BLOCK, {0, 0, 0}};

static size_t random_body_bytes(struct vex_random *random)
{
    size_t most = vex_random_once_in(random, 20)  ? 60000
                  : vex_random_once_in(random, 4) ? 9000
                                                  : 300;
    return 8 * vex_random_below(random, most / 8);
}

/* ---- the three disks ------------------------------------------------------------------------- */

enum backend { BACKEND_MEMORY, BACKEND_SYNC, BACKEND_URING, BACKENDS_COUNT };

struct disk {
    enum backend backend;
    struct vex_temp_dir directory;
    struct vex_io *io;
};

static struct vex_temp_dir *made;

/* An assertion of the log ends this program; its files go first. Children have no such handler. */
static void clean_up_and_abort(int number)
{
    if (made) {
        vex_temp_dir_remove(made);
    }
    (void)signal(number, SIG_DFL);
    (void)raise(number);
}

/* False, with the reason printed, where the kernel refuses. */
static bool open_disk(struct disk *disk, enum backend backend)
{
    *disk = (struct disk){.backend = backend, .directory = {.fd = -1}};
    if (backend == BACKEND_MEMORY) {
        disk->io = vex_io_memory_open();
        return true;
    }
    vex_temp_dir_make(&disk->directory);
    made = &disk->directory;
    int result = backend == BACKEND_SYNC
                     ? vex_io_sync_open(disk->directory.fd, &disk->io)
                     : vex_io_uring_open(disk->directory.fd, buffers, VEX_LOG_BUFFERS, &disk->io);
    if (result < 0) {
        made = NULL;
        vex_temp_dir_remove(&disk->directory);
        printf("skipped: io_uring is refused here: %s\n", strerror(-result));
        assert_int_equal(backend, BACKEND_URING);
        return false;
    }
    assert_string_equal(disk->io->ops->name, backend == BACKEND_SYNC ? "sync" : "uring");
    return true;
}

/* As a new daemon finds it. */
static void reopen_disk(struct disk *disk)
{
    if (disk->backend == BACKEND_MEMORY) {
        return;
    }
    vex_io_close(disk->io);
    int result = disk->backend == BACKEND_SYNC
                     ? vex_io_sync_open(disk->directory.fd, &disk->io)
                     : vex_io_uring_open(disk->directory.fd, buffers, VEX_LOG_BUFFERS, &disk->io);
    assert_int_equal(result, 0);
}

static void close_disk(struct disk *disk)
{
    vex_io_close(disk->io);
    if (disk->backend != BACKEND_MEMORY) {
        made = NULL;
        vex_temp_dir_remove(&disk->directory);
    }
}

static void for_all_disks(void (*body)(struct disk *disk))
{
    for (int backend = 0; backend < BACKENDS_COUNT; backend++) {
        struct disk disk;
        if (open_disk(&disk, (enum backend)backend)) {
            body(&disk);
            close_disk(&disk);
        }
    }
}

/* ---- on every disk --------------------------------------------------------------------------- */

static void restart_often(struct disk *disk)
{
    struct vex_random random = vex_random_seeded(seed);
    uint64_t durable = 0;
    bool clean = false;
    for (int session = 0; session < 8; session++) {
        struct vex_log_recovery recovery;
        reopen_disk(disk);
        struct vex_log *log = open_log(disk->io, &small_files, &recovery);
        assert_int_equal(recovery.last_lsn, durable);
        assert_int_equal(recovery.torn_tails, 0);
        assert_int_equal(recovery.clean, clean);
        for (uint64_t batches = vex_random_below(&random, 12); batches > 0; batches--) {
            for (uint64_t records = 1 + vex_random_below(&random, 9); records > 0; records--) {
                append(log, random_body_bytes(&random));
            }
            commit(log);
        }
        durable = vex_log_durable_lsn(log);
        if (session % 3 == 1) {
            /* Dropped by closing: never committed. */
            append(log, 64);
        }
        clean = session % 3 == 2;
        if (clean) {
            assert_true(vex_log_watermark(log, true));
            finish(log);
        } else if (durable > 0 && session % 3 == 0 && vex_log_needs_watermark(log)) {
            assert_true(vex_log_watermark(log, false));
            finish(log);
        } else {
            clean = clean || (recovery.clean && durable == recovery.last_lsn);
        }
        vex_log_close(log);
    }
    reopen_disk(disk);
    assert_int_equal(recovered(disk->io, &small_files, NULL), durable);
    assert_true(durable > 100);
}

static void records_come_back_after_every_restart(void **state)
{
    (void)state;
    for_all_disks(restart_often);
}

static void switch_files_often(struct disk *disk)
{
    const struct vex_log_options tiny = {uuid, 3 * BLOCK, 5 * BLOCK, {0, 0, 0}};
    struct vex_log *log = open_log(disk->io, &tiny, NULL);
    for (int batch = 0; batch < 60; batch++) {
        append_batch(log, 1 + (unsigned)batch % 5, 1 + (size_t)(batch % 4 == 3));
    }
    uint64_t durable = vex_log_durable_lsn(log);
    struct vex_log_counters counters;
    vex_log_get_counters(log, &counters);
    assert_in_range(counters.commits, 60, durable);
    assert_int_equal(counters.records, durable);
    vex_log_close(log);
    reopen_disk(disk);
    assert_int_equal(recovered(disk->io, &tiny, NULL), durable);
    /* Other sizes apply to new files only. */
    reopen_disk(disk);
    log = open_log(disk->io, &large_files, NULL);
    append_batch(log, 2, 100);
    vex_log_close(log);
    reopen_disk(disk);
    assert_int_equal(recovered(disk->io, &tiny, NULL), durable + 2);
}

static void many_small_files_are_one_log(void **state)
{
    (void)state;
    for_all_disks(switch_files_often);
}

static void append_large_batches(struct disk *disk)
{
    struct vex_log *log = open_log(disk->io, &small_files, NULL);
    const size_t sizes[] = {100, 100000, 16, 70000, RECORD_BYTES_MAX, 8, RECORD_BYTES_MAX, 0};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        append(log, sizes[i] / 8 * 8);
        commit(log);
    }
    vex_log_close(log);
    reopen_disk(disk);
    assert_int_equal(recovered(disk->io, &small_files, NULL), COUNT_OF(sizes));
}

static void a_batch_larger_than_the_files_gets_a_file_that_holds_it(void **state)
{
    (void)state;
    for_all_disks(append_large_batches);
}

static void collect_while_in_flight(struct disk *disk)
{
    struct vex_log *log = open_log(disk->io, &large_files, NULL);
    assert_false(vex_log_commit(log));
    assert_false(vex_log_poll(log, true));
    append(log, 100 * 8);
    append(log, 8);
    assert_int_equal(vex_log_durable_lsn(log), 0);
    assert_int_equal(vex_log_submitted_lsn(log), 0);
    assert_true(vex_log_commit(log));
    assert_true(vex_log_in_flight(log));
    assert_false(vex_log_has_staged(log));
    assert_int_equal(vex_log_submitted_lsn(log), 2);
    /* The next batch collects; it is not submitted before this one is done. */
    for (int i = 0; i < 50; i++) {
        append(log, 400 * 8);
        assert_false(vex_log_commit(log));
    }
    assert_false(vex_log_watermark(log, false));
    assert_int_equal(vex_log_submitted_lsn(log), 2);
    assert_int_equal(vex_log_durable_lsn(log), 0);
    finish(log);
    assert_int_equal(vex_log_durable_lsn(log), 2);
    assert_true(vex_log_has_staged(log));
    assert_false(vex_log_watermark(log, false));
    commit(log);
    assert_int_equal(vex_log_durable_lsn(log), 52);
    /* Closing waits for what is in flight. */
    append(log, 8);
    assert_true(vex_log_commit(log));
    append(log, 8);
    vex_log_close(log);
    reopen_disk(disk);
    assert_int_equal(recovered(disk->io, &large_files, NULL), 53);
}

static void one_batch_is_in_flight_and_the_next_one_collects(void **state)
{
    (void)state;
    for_all_disks(collect_while_in_flight);
}

static void wait_by_descriptor(struct disk *disk)
{
    if (disk->backend == BACKEND_MEMORY) {
        return;
    }
    struct vex_log *log = open_log(disk->io, &large_files, NULL);
    for (int i = 0; i < 20; i++) {
        append(log, 8 * (size_t)(1 + i * 50));
        assert_true(vex_log_commit(log));
        while (!vex_log_poll(log, false)) {
            struct pollfd waiting = {disk->io->ops->event_fd(disk->io), POLLIN, 0};
            assert_int_equal(poll(&waiting, 1, 10000), 1);
        }
        assert_int_equal(vex_log_durable_lsn(log), i + 1);
        /* And it is quiet again, at the latest when the loop has looked once more: a loop that waits for
         * it does not spin while there is nothing to do. */
        assert_false(vex_log_poll(log, false));
        struct pollfd quiet = {disk->io->ops->event_fd(disk->io), POLLIN, 0};
        assert_int_equal(poll(&quiet, 1, 0), 0);
    }
    vex_log_close(log);
}

static void the_descriptor_is_readable_when_a_batch_is_done(void **state)
{
    (void)state;
    for_all_disks(wait_by_descriptor);
}

/* ---- room ------------------------------------------------------------------------------------ */

static void records_beyond_the_buffer_are_refused_or_wait(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    struct vex_log *log = open_log(io, &large_files, NULL);
    size_t most =
        VEX_LOG_BUFFER_BYTES - sizeof(struct vex_batch_header) - sizeof(struct vex_record_header);
    const size_t absurd[] = {
        most + 8,
        VEX_LOG_BUFFER_BYTES,
        2 * (size_t)VEX_LOG_BUFFER_BYTES,
        (size_t)UINT32_MAX + 1,
        SIZE_MAX / 2 + 1 - 8,
        SIZE_MAX - 7,
        SIZE_MAX - 15,
        SIZE_MAX - 71,
        SIZE_MAX - 79,
    };
    for (size_t i = 0; i < COUNT_OF(absurd); i++) {
        enum vex_status status = vex_log_room(log, absurd[i] / 8 * 8, false, NULL);
        if (status != VEX_ERR_LIMIT) {
            fail_msg("a record of %zu bytes: %s", absurd[i], vex_base_status_name(status));
        }
    }
    append(log, 8);
    assert_int_equal(vex_log_room(log, most, false, NULL), VEX_ERR_BUSY);
    assert_int_equal(vex_log_room(log, 100, false, NULL), VEX_OK);
    commit(log);
    append(log, most);
    assert_int_equal(vex_log_room(log, 8, false, NULL), VEX_ERR_BUSY);
    commit(log);
    vex_log_close(log);
    assert_int_equal(recovered(io, &large_files, NULL), 2);
    vex_io_close(io);
}

/* ---- watermarks ------------------------------------------------------------------------------ */

static void a_watermark_is_written_once_behind_the_last_batch(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    struct vex_log *log = open_log(io, &small_files, NULL);
    assert_false(vex_log_needs_watermark(log));
    assert_false(vex_log_watermark(log, false));
    append_batch(log, 3, 1);
    assert_true(vex_log_needs_watermark(log));
    assert_true(vex_log_watermark(log, false));
    finish(log);
    assert_false(vex_log_needs_watermark(log));
    assert_false(vex_log_watermark(log, false));
    /* It takes no LSN. */
    assert_int_equal(vex_log_next_lsn(log), 4);
    assert_int_equal(vex_log_durable_lsn(log), 3);
    append_batch(log, 1, 1);
    vex_log_close(log);
    /* After a kill the last batch is still unproven. */
    log = open_log(io, &small_files, NULL);
    assert_true(vex_log_needs_watermark(log));
    assert_true(vex_log_watermark(log, false));
    finish(log);
    vex_log_close(log);
    log = open_log(io, &small_files, NULL);
    assert_false(vex_log_needs_watermark(log));
    vex_log_close(log);
    vex_io_close(io);
}

static void only_an_orderly_end_is_called_clean(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    struct vex_log_recovery recovery;
    struct vex_log *log = open_log(io, &small_files, &recovery);
    assert_false(recovery.clean);
    assert_true(vex_log_watermark(log, true));
    finish(log);
    vex_log_close(log);
    log = open_log(io, &small_files, &recovery);
    assert_true(recovery.clean);
    append_batch(log, 1, 1);
    vex_log_close(log);
    log = open_log(io, &small_files, &recovery);
    assert_false(recovery.clean);
    append_batch(log, 1, 1);
    assert_true(vex_log_watermark(log, false));
    finish(log);
    vex_log_close(log);
    log = open_log(io, &small_files, &recovery);
    assert_false(recovery.clean);
    assert_true(vex_log_watermark(log, true));
    finish(log);
    vex_log_close(log);
    (void)recovered(io, &small_files, &recovery);
    assert_true(recovery.clean);
    vex_io_close(io);
}

static size_t file_count(struct vex_io *io)
{
    size_t count = 0;
    for (unsigned number = 1;; number++) {
        char path[64];
        size_t bytes;
        (void)snprintf(path, sizeof(path), "log/%08u.log", number);
        if (!vex_io_memory_bytes(io, path, &bytes)) {
            return count;
        }
        count++;
    }
}

static void watermarks_fit_into_any_end_of_a_file(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    const struct vex_log_options tiny = {uuid, 3 * BLOCK, 3 * BLOCK, {0, 0, 0}};
    struct vex_log *log = open_log(io, &tiny, NULL);
    for (int i = 0; i < 10; i++) {
        append_batch(log, 1, 1);
        assert_true(vex_log_watermark(log, false));
        finish(log);
        assert_int_equal(vex_log_failure(log), 0);
    }
    vex_log_close(log);
    assert_int_equal(file_count(io), 20);
    assert_int_equal(recovered(io, &tiny, NULL), 10);
    vex_io_close(io);
}

/* ---- counters and files ---------------------------------------------------------------------- */

static void counters_tell_what_is_on_disk(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    struct vex_log *log = open_log(io, &small_files, NULL);
    for (int i = 0; i < 10; i++) {
        append(log, 1000);
        append(log, 1000);
        commit(log);
    }
    struct vex_log_counters before;
    vex_log_get_counters(log, &before);
    vex_log_close(log);
    assert_int_equal(before.records, 20);
    assert_int_equal(before.record_bytes, 20 * (1000 + sizeof(struct vex_record_header)));
    uint64_t on_disk = 0;
    for (unsigned number = 1; number <= file_count(io); number++) {
        char path[64];
        size_t bytes;
        (void)snprintf(path, sizeof(path), "log/%08u.log", number);
        assert_non_null(vex_io_memory_bytes(io, path, &bytes));
        on_disk += bytes;
    }
    assert_int_equal(before.file_bytes, on_disk);
    log = open_log(io, &small_files, NULL);
    struct vex_log_counters after;
    vex_log_get_counters(log, &after);
    assert_int_equal(after.file_bytes, on_disk);
    assert_int_equal(after.record_bytes, before.record_bytes);
    assert_int_equal(after.records, 0);
    vex_log_close(log);
    vex_io_close(io);
}

static void nothing_but_numbered_files_is_left_or_looked_at(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    struct vex_log *log = open_log(io, &small_files, NULL);
    for (int i = 0; i < 12; i++) {
        append_batch(log, 1, 2);
    }
    vex_log_close(log);
    size_t bytes;
    assert_null(vex_io_memory_bytes(io, "log/prepared", &bytes));
    const char *const strays[] = {"log/notes.txt", "log/.log",     "log/x.log",    "log/1.log.bak",
                                  "log/1.lo",      "log/00000001", "log/prepared", "log/.hidden"};
    for (size_t i = 0; i < COUNT_OF(strays); i++) {
        vex_io_memory_put(io, strays[i], "stray", 5);
    }
    assert_int_equal(recovered(io, &small_files, NULL), 12);
    assert_null(vex_io_memory_bytes(io, "log/prepared", &bytes));
    assert_non_null(vex_io_memory_bytes(io, "log/notes.txt", &bytes));
    vex_io_close(io);
}

static void a_record_that_is_refused_at_replay_ends_recovery_and_changes_nothing(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    struct vex_log *log = open_log(io, &small_files, NULL);
    for (int i = 0; i < 6; i++) {
        append_batch(log, 3, 1);
    }
    vex_log_close(log);
    struct vex_io *before = vex_io_memory_clone(io);
    for (uint64_t lsn = 1; lsn <= 18; lsn++) {
        struct replayed replayed = {.fail_at = lsn};
        struct vex_log_recovery recovery;
        struct vex_error error = {.status = VEX_OK};
        const struct vex_log_options started = with_start(io, &small_files);
        assert_int_equal(
            vex_log_open(io, buffers, &started, replay, &replayed, &log, &recovery, &error),
            VEX_ERR_NOMEM);
        char where[32];
        (void)snprintf(where, sizeof(where), "LSN %llu", (unsigned long long)lsn);
        assert_non_null(strstr(error.message, where));
        assert_non_null(strstr(error.message, "log/0000000"));
        assert_non_null(strstr(error.message, "refused by the test"));
        assert_true(vex_io_memory_equals(io, before));
    }
    assert_int_equal(recovered(io, &small_files, NULL), 18);
    vex_io_close(before);
    vex_io_close(io);
}

static void closing_no_log_is_fine(void **state)
{
    (void)state;
    vex_log_close(NULL);
}

/* ---- torn tails ------------------------------------------------------------------------------ */

static const char first_file[] = "log/00000001.log";

/* Batches of different lengths in one file. `starts[i]` is where batch i begins; the last entry is the
 * end. Returns the number of records without those of the last batch. */
#define TAIL_BATCHES 5u
static uint64_t make_batches(struct vex_io *io, size_t starts[TAIL_BATCHES + 1])
{
    const size_t blocks[TAIL_BATCHES] = {1, 3, 2, 1, 4};
    struct vex_log *log = open_log(io, &large_files, NULL);
    starts[0] = BLOCK;
    uint64_t before_last = 0;
    for (size_t i = 0; i < TAIL_BATCHES; i++) {
        before_last = vex_log_durable_lsn(log);
        append_batch(log, 1 + (unsigned)i % 3, blocks[i]);
        starts[i + 1] = starts[i] + blocks[i] * BLOCK;
    }
    vex_log_close(log);
    return before_last;
}

static bool is_zero(const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (bytes[i] != 0) {
            return false;
        }
    }
    return true;
}

/* Recovers a damaged tail twice; then the log takes new records. `torn`: the beginning of a batch can
 * still be seen. */
static void check_torn(struct vex_io *io, uint64_t expected, size_t tail, bool torn,
                       const char *what)
{
    struct vex_log_recovery recovery;
    size_t bytes;
    const uint8_t *data;
    uint64_t last = recovered(io, &large_files, &recovery);
    if (last != expected || recovery.torn_tails != torn) {
        fail_msg("%s: %llu records instead of %llu, %llu torn tails", what,
                 (unsigned long long)last, (unsigned long long)expected,
                 (unsigned long long)recovery.torn_tails);
    }
    assert_false(recovery.clean);
    /* Erased, so that it cannot be mistaken for a batch after the next crash. */
    data = vex_io_memory_bytes(io, first_file, &bytes);
    assert_true(is_zero(data + tail, BLOCK));
    struct vex_io *before = vex_io_memory_clone(io);
    assert_int_equal(recovered(io, &large_files, &recovery), expected);
    assert_int_equal(recovery.torn_tails, 0);
    assert_true(vex_io_memory_equals(io, before));
    vex_io_close(before);
    struct vex_log *log = open_log(io, &large_files, NULL);
    append_batch(log, 2, 2);
    vex_log_close(log);
    assert_int_equal(recovered(io, &large_files, NULL), expected + 2);
}

static void a_torn_last_batch_is_dropped_wherever_it_is_torn(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed + 1);
    struct vex_io *io = vex_io_memory_open();
    size_t starts[TAIL_BATCHES + 1];
    uint64_t before_last = make_batches(io, starts);
    size_t tail = starts[TAIL_BATCHES - 1];
    size_t length = starts[TAIL_BATCHES] - tail;
    for (size_t sector = 0; sector < length; sector += 512) {
        struct {
            const char *name;
            size_t from;
            size_t bytes;
            bool garble;
        } tears[] = {
            {"the end is missing", sector, length - sector, false},
            {"the beginning is missing", 0, sector, false},
            {"one sector is missing", sector, 512, false},
            {"one sector is garbled", sector, 512, true},
            {"the end is garbled", sector, length - sector, true},
        };
        for (size_t i = 0; i < COUNT_OF(tears); i++) {
            struct vex_io *copy = vex_io_memory_clone(io);
            size_t bytes;
            uint8_t *at = vex_io_memory_bytes(copy, first_file, &bytes) + tail + tears[i].from;
            bool same = !tears[i].garble && is_zero(at, tears[i].bytes);
            if (tears[i].garble) {
                vex_random_fill(&random, at, tears[i].bytes);
            } else {
                memset(at, 0, tears[i].bytes);
            }
            if (!same) {
                check_torn(copy, before_last, tail, tears[i].from > 0, tears[i].name);
            }
            vex_io_close(copy);
        }
    }
    vex_io_close(io);
}

/* Sectors reach the disk in any order: every pattern of a small batch, many of a large one. */
static void any_subset_of_sectors_of_the_last_batch_is_a_torn_tail(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed + 2);
    struct vex_io *io = vex_io_memory_open();
    size_t starts[TAIL_BATCHES + 1];
    uint64_t before_last = make_batches(io, starts);
    size_t tail = starts[TAIL_BATCHES - 1];
    size_t sectors = (starts[TAIL_BATCHES] - tail) / 512;
    for (int round = 0; round < 150; round++) {
        struct vex_io *copy = vex_io_memory_clone(io);
        size_t bytes;
        uint8_t *data = vex_io_memory_bytes(copy, first_file, &bytes);
        bool changed = false;
        bool beginning = true;
        for (size_t sector = 0; sector < sectors; sector++) {
            uint8_t *at = data + tail + sector * 512;
            if (vex_random_once_in(&random, 2)) {
                changed = changed || !is_zero(at, 512);
                beginning = beginning && sector > 0;
                memset(at, 0, 512);
            }
        }
        if (changed) {
            check_torn(copy, before_last, tail, beginning, "a subset of sectors");
        }
        vex_io_close(copy);
    }
    vex_io_close(io);
}

static void a_torn_watermark_costs_no_record(void **state)
{
    (void)state;
    for (int clean = 0; clean <= 1; clean++) {
        for (size_t from = 0; from < 64; from += 8) {
            struct vex_io *io = vex_io_memory_open();
            size_t starts[TAIL_BATCHES + 1];
            (void)make_batches(io, starts);
            struct vex_log *log = open_log(io, &large_files, NULL);
            uint64_t all = vex_log_durable_lsn(log);
            assert_true(vex_log_watermark(log, clean));
            finish(log);
            vex_log_close(log);
            size_t bytes;
            uint8_t *data = vex_io_memory_bytes(io, first_file, &bytes);
            memset(data + starts[TAIL_BATCHES] + from, 0, 64 - from);
            check_torn(io, all, starts[TAIL_BATCHES], from == 56, "torn watermark");
            vex_io_close(io);
        }
    }
}

/* The daemon before the last one ended in order, the last one did not. */
static void a_torn_tail_behind_a_clean_end_is_not_clean(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    struct vex_log *log = open_log(io, &large_files, NULL);
    append_batch(log, 2, 1);
    assert_true(vex_log_watermark(log, true));
    finish(log);
    append_batch(log, 2, 2);
    vex_log_close(log);
    size_t bytes;
    uint8_t *data = vex_io_memory_bytes(io, first_file, &bytes);
    data[3 * BLOCK + 1000] ^= 1;
    struct vex_log_recovery recovery;
    assert_int_equal(recovered(io, &large_files, &recovery), 2);
    assert_int_equal(recovery.torn_tails, 1);
    assert_false(recovery.clean);
    vex_io_close(io);
}

static void an_interrupted_erasure_is_done_again(void **state)
{
    (void)state;
    const struct {
        enum vex_io_call call;
        size_t bytes;
    } interruptions[] = {{VEX_IO_WRITE, 0},        {VEX_IO_WRITE, BLOCK}, {VEX_IO_WRITE, 2 * BLOCK},
                         {VEX_IO_WRITE, SIZE_MAX}, {VEX_IO_SYNC, 0},      {VEX_IO_SYNC, 1}};
    for (size_t i = 0; i < COUNT_OF(interruptions); i++) {
        struct vex_io *io = vex_io_memory_open();
        size_t starts[TAIL_BATCHES + 1];
        uint64_t before_last = make_batches(io, starts);
        size_t bytes;
        vex_io_memory_bytes(io, first_file, &bytes)[starts[TAIL_BATCHES] - 100] ^= 1;
        /* The first sync is of what is read, the second of what was erased. */
        uint64_t nth = interruptions[i].call == VEX_IO_SYNC ? 2 : 1;
        struct vex_io_fault_plan plan = {
            interruptions[i].call, nth, false, {EIO, interruptions[i].bytes}, false};
        struct vex_io *fault = vex_io_fault_open(io, vex_io_fault_planned, &plan);
        struct vex_log *log = NULL;
        struct vex_error error = {.status = VEX_OK};
        assert_int_equal(try_open(fault, &large_files, &log, NULL, &error), VEX_ERR_IO);
        assert_true(plan.happened);
        assert_non_null(strstr(error.message, first_file));
        vex_io_close(fault);
        assert_int_equal(recovered(io, &large_files, NULL), before_last);
        vex_io_close(io);
    }
}

/* ---- damage ---------------------------------------------------------------------------------- */

/* Refused by name, place and cause; not a byte changed. */
static void check_refused(struct vex_io *io, const struct vex_log_options *options,
                          enum vex_status expected, const char *path, long long offset)
{
    struct vex_io *before = vex_io_memory_clone(io);
    struct vex_log *log = NULL;
    struct vex_error error = {.status = VEX_OK};
    enum vex_status status = try_open(io, options, &log, NULL, &error);
    if (status != expected) {
        if (status == VEX_OK) {
            vex_log_close(log);
        }
        fail_msg("%s at offset %lld: %s: %s", path, offset, vex_base_status_name(status),
                 error.message);
    }
    if (!strstr(error.message, path)) {
        fail_msg("'%s' does not name %s", error.message, path);
    }
    char where[32];
    (void)snprintf(where, sizeof(where), "offset %lld,", offset);
    if (offset >= 0 && !strstr(error.message, where)) {
        fail_msg("'%s' does not say %s", error.message, where);
    }
    assert_true(vex_io_memory_equals(io, before));
    vex_io_close(before);
}

static void a_changed_byte_before_the_last_batch_is_damage(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed + 3);
    struct vex_io *io = vex_io_memory_open();
    size_t starts[TAIL_BATCHES + 1];
    (void)make_batches(io, starts);
    for (size_t batch = 0; batch + 1 < TAIL_BATCHES; batch++) {
        size_t length = starts[batch + 1] - starts[batch];
        for (size_t i = 0; i < 64 + 40; i++) {
            size_t at = i < 64 ? i : vex_random_below(&random, length);
            size_t bytes;
            uint8_t *data = vex_io_memory_bytes(io, first_file, &bytes);
            uint8_t good = data[starts[batch] + at];
            data[starts[batch] + at] ^= (uint8_t)(1u << vex_random_below(&random, 8));
            check_refused(io, &large_files, VEX_ERR_CORRUPT, first_file, (long long)starts[batch]);
            vex_io_memory_bytes(io, first_file, &bytes)[starts[batch] + at] = good;
        }
    }
    (void)recovered(io, &large_files, NULL);
    vex_io_close(io);
}

static void whole_batches_that_vanished_are_damage(void **state)
{
    (void)state;
    for (size_t first = 0; first + 1 < TAIL_BATCHES; first++) {
        for (size_t last = first; last + 1 < TAIL_BATCHES; last++) {
            struct vex_io *io = vex_io_memory_open();
            size_t starts[TAIL_BATCHES + 1];
            (void)make_batches(io, starts);
            size_t bytes;
            uint8_t *data = vex_io_memory_bytes(io, first_file, &bytes);
            memset(data + starts[first], 0, starts[last + 1] - starts[first]);
            check_refused(io, &large_files, VEX_ERR_CORRUPT, first_file, (long long)starts[first]);
            vex_io_close(io);
        }
    }
}

/* The watermark proves that what stands before it was acknowledged. */
static void damage_to_the_last_batch_shows_once_a_watermark_follows(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed + 4);
    for (int round = 0; round < 60; round++) {
        struct vex_io *io = vex_io_memory_open();
        size_t starts[TAIL_BATCHES + 1];
        (void)make_batches(io, starts);
        struct vex_log *log = open_log(io, &large_files, NULL);
        assert_true(vex_log_watermark(log, round % 2));
        finish(log);
        vex_log_close(log);
        size_t tail = starts[TAIL_BATCHES - 1];
        size_t bytes;
        uint8_t *data = vex_io_memory_bytes(io, first_file, &bytes);
        if (round == 0) {
            memset(data + tail, 0, starts[TAIL_BATCHES] - tail);
        } else {
            data[tail + vex_random_below(&random, starts[TAIL_BATCHES] - tail)] ^= 0x20;
        }
        check_refused(io, &large_files, VEX_ERR_CORRUPT, first_file, (long long)tail);
        vex_io_close(io);
    }
}

/* A batch written to the wrong place has a right checksum and does not continue the chain. */
static void a_batch_in_the_place_of_another_is_damage(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    struct vex_log *log = open_log(io, &large_files, NULL);
    for (int i = 0; i < 6; i++) {
        append_batch(log, 2, 1);
    }
    vex_log_close(log);
    for (size_t target = 1; target <= 5; target++) {
        for (size_t source = 1; source <= 6; source++) {
            if (source == target) {
                continue;
            }
            struct vex_io *copy = vex_io_memory_clone(io);
            size_t bytes;
            uint8_t *data = vex_io_memory_bytes(copy, first_file, &bytes);
            memcpy(data + target * BLOCK, data + source * BLOCK, BLOCK);
            check_refused(copy, &large_files, VEX_ERR_CORRUPT, first_file,
                          (long long)(target * BLOCK));
            vex_io_close(copy);
        }
    }
    vex_io_close(io);
}

static const struct vex_log_options middling_files = {uuid, 5 * BLOCK, 8 * BLOCK, {0, 0, 0}};

/* Each with batches of two blocks in it. */
static uint64_t make_many_files(struct vex_io *io)
{
    struct vex_log *log = open_log(io, &middling_files, NULL);
    for (int i = 0; i < 20; i++) {
        append_batch(log, 2, 2);
    }
    uint64_t durable = vex_log_durable_lsn(log);
    vex_log_close(log);
    assert_true(file_count(io) >= 5);
    return durable;
}

static void a_missing_file_before_the_last_is_damage(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    (void)make_many_files(io);
    size_t files = file_count(io);
    for (unsigned number = 1; number < files; number++) {
        struct vex_io *copy = vex_io_memory_clone(io);
        char path[64];
        (void)snprintf(path, sizeof(path), "log/%08u.log", number);
        assert_true(vex_io_memory_drop(copy, path));
        check_refused(copy, &small_files, VEX_ERR_CORRUPT, path, -1);
        vex_io_close(copy);
    }
    vex_io_close(io);
}

static void the_tail_of_a_file_that_is_not_the_last_is_never_torn(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    (void)make_many_files(io);
    size_t files = file_count(io);
    for (unsigned number = 1; number < files; number++) {
        for (int how = 0; how < 4; how++) {
            struct vex_io *copy = vex_io_memory_clone(io);
            char path[64];
            (void)snprintf(path, sizeof(path), "log/%08u.log", number);
            size_t bytes;
            uint8_t *data = vex_io_memory_bytes(copy, path, &bytes);
            size_t end = bytes;
            while (end > BLOCK && is_zero(data + end - BLOCK, BLOCK)) {
                end -= BLOCK;
            }
            assert_true(end >= 4 * BLOCK);
            /* Batches are two blocks long here, and the end mark stands behind the last one. */
            if (how == 0) {
                data[end - BLOCK + 30] ^= 1;
            } else if (how == 1) {
                memset(data + end - BLOCK, 0, BLOCK);
            } else if (how == 2) {
                data[end - 3 * BLOCK + 70] ^= 1;
            } else {
                memset(data + end - 3 * BLOCK, 0, 3 * BLOCK);
            }
            check_refused(copy, &small_files, VEX_ERR_CORRUPT, path, -1);
            vex_io_close(copy);
        }
    }
    vex_io_close(io);
}

static void files_that_do_not_belong_together_are_refused(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    struct vex_io *other = vex_io_memory_open();
    (void)make_many_files(io);
    (void)make_many_files(other);
    size_t files = file_count(io);
    for (unsigned number = 1; number < files; number++) {
        char path[64];
        (void)snprintf(path, sizeof(path), "log/%08u.log", number);
        /* The same number of the same instance, from another life of the directory. */
        struct vex_io *copy = vex_io_memory_clone(io);
        size_t bytes;
        const uint8_t *data = vex_io_memory_bytes(other, path, &bytes);
        vex_io_memory_put(copy, path, data, bytes);
        struct vex_log *log = NULL;
        assert_int_equal(try_open(copy, &small_files, &log, NULL, NULL), VEX_ERR_CORRUPT);
        vex_io_close(copy);
        /* Another number. */
        char next[64];
        (void)snprintf(next, sizeof(next), "log/%08u.log", number + 1);
        copy = vex_io_memory_clone(io);
        data = vex_io_memory_bytes(io, next, &bytes);
        vex_io_memory_put(copy, path, data, bytes);
        check_refused(copy, &small_files, VEX_ERR_CORRUPT, path, 0);
        vex_io_close(copy);
    }
    vex_io_close(other);
    vex_io_close(io);
}

static void the_log_of_another_instance_is_refused(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    (void)make_many_files(io);
    const uint8_t other[VEX_LOG_UUID_BYTES] = "another instance";
    const struct vex_log_options options = {other, 2 * BLOCK, 8 * BLOCK, {0, 0, 0}};
    check_refused(io, &options, VEX_ERR_CORRUPT, first_file, 0);
    vex_io_close(io);
}

static void a_damaged_file_header_is_refused(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    (void)make_many_files(io);
    size_t files = file_count(io);
    for (unsigned number = 1; number <= files; number += (unsigned)files - 1) {
        char path[64];
        (void)snprintf(path, sizeof(path), "log/%08u.log", number);
        for (size_t at = 0; at < sizeof(struct vex_log_header); at++) {
            struct vex_io *copy = vex_io_memory_clone(io);
            size_t bytes;
            vex_io_memory_bytes(copy, path, &bytes)[at] ^= 4;
            struct vex_log *log = NULL;
            struct vex_error error = {.status = VEX_OK};
            enum vex_status status = try_open(copy, &small_files, &log, NULL, &error);
            assert_true(status == VEX_ERR_CORRUPT || status == VEX_ERR_VERSION);
            assert_non_null(strstr(error.message, path));
            vex_io_close(copy);
        }
    }
    vex_io_close(io);
}

static void a_file_that_was_cut_is_damage(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    size_t starts[TAIL_BATCHES + 1];
    (void)make_batches(io, starts);
    size_t bytes;
    const uint8_t *data = vex_io_memory_bytes(io, first_file, &bytes);
    const size_t lengths[] = {
        0,        1, 80, BLOCK - 1, BLOCK, 2 * BLOCK, starts[3], starts[3] + 512, bytes - BLOCK,
        bytes - 1};
    for (size_t i = 0; i < COUNT_OF(lengths); i++) {
        struct vex_io *copy = vex_io_memory_clone(io);
        vex_io_memory_put(copy, first_file, data, lengths[i]);
        check_refused(copy, &large_files, VEX_ERR_CORRUPT, first_file, -1);
        vex_io_close(copy);
    }
    vex_io_close(io);
}

/* Two daemons that went on from the same state, as after a restored backup: a batch of the one has the
 * LSN that is next in the other, and the same nonce, but not the same batch before it. */
static void a_batch_of_another_history_does_not_continue_this_one(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    struct vex_log *log = open_log(io, &large_files, NULL);
    append_batch(log, 2, 1);
    vex_log_close(log);
    struct vex_io *other = vex_io_memory_clone(io);
    log = open_log(io, &large_files, NULL);
    append(log, 64);
    commit(log);
    vex_log_close(log);
    log = open_log(other, &large_files, NULL);
    append(log, 72);
    commit(log);
    append_batch(log, 1, 1);
    append_batch(log, 1, 1);
    vex_log_close(log);
    size_t bytes;
    const uint8_t *theirs = vex_io_memory_bytes(other, first_file, &bytes);
    uint8_t *ours = vex_io_memory_bytes(io, first_file, &bytes);
    memcpy(ours + 3 * BLOCK, theirs + 3 * BLOCK, 2 * BLOCK);
    check_refused(io, &large_files, VEX_ERR_CORRUPT, first_file, 3 * BLOCK);
    /* With nothing behind it, it may be taken for a tail or for damage, but not for the next batch. */
    ours = vex_io_memory_bytes(io, first_file, &bytes);
    memset(ours + 4 * BLOCK, 0, BLOCK);
    log = NULL;
    enum vex_status status = try_open(io, &large_files, &log, NULL, NULL);
    if (status == VEX_OK) {
        assert_int_equal(vex_log_durable_lsn(log), 3);
        vex_log_close(log);
    } else {
        assert_int_equal(status, VEX_ERR_CORRUPT);
    }
    vex_io_close(other);
    vex_io_close(io);
}

/* Headers with a right checksum that say something else than the files around them. */
static void file_headers_that_do_not_continue_the_log_are_refused(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    (void)make_many_files(io);
    size_t files = file_count(io);
    for (unsigned number = 1; number <= files; number++) {
        char path[64];
        (void)snprintf(path, sizeof(path), "log/%08u.log", number);
        for (int field = 0; field < 6; field++) {
            struct vex_io *copy = vex_io_memory_clone(io);
            size_t bytes;
            uint8_t *data = vex_io_memory_bytes(copy, path, &bytes);
            struct vex_log_header header;
            memcpy(&header, data, sizeof(header));
            header.first_lsn += field == 0;
            header.first_lsn -= field == 1;
            header.previous_hash ^= field == 2;
            header.file_bytes += field == 3 ? BLOCK : 0;
            header.file_number += field == 4;
            header.nonce ^= field == 5;
            vex_log_header_seal(&header);
            memcpy(data, &header, sizeof(header));
            if (field == 5 && number == files) {
                /* Nothing in it is sound under another nonce: a tail, and here all that is lost. */
                vex_io_close(copy);
                continue;
            }
            struct vex_log *log = NULL;
            struct vex_error error = {.status = VEX_OK};
            enum vex_status status = try_open(copy, &middling_files, &log, NULL, &error);
            if (status != VEX_ERR_CORRUPT) {
                fail_msg("%s, field %d: %s", path, field, vex_base_status_name(status));
            }
            assert_non_null(strstr(error.message, path));
            vex_io_close(copy);
        }
    }
    vex_io_close(io);
}

/* Blocks that were part of another file once, behind the end: the nonce tells them apart. */
static void a_stale_batch_behind_the_end_is_ignored(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    struct vex_io *other = vex_io_memory_open();
    size_t starts[TAIL_BATCHES + 1];
    (void)make_batches(io, starts);
    (void)make_batches(other, starts);
    uint64_t all = recovered(io, &large_files, NULL);
    size_t bytes;
    const uint8_t *stale = vex_io_memory_bytes(other, first_file, &bytes);
    for (size_t gap = 0; gap < 3; gap++) {
        for (size_t batch = 0; batch < TAIL_BATCHES; batch++) {
            struct vex_io *copy = vex_io_memory_clone(io);
            uint8_t *data = vex_io_memory_bytes(copy, first_file, &bytes);
            memcpy(data + starts[TAIL_BATCHES] + gap * BLOCK, stale + starts[batch],
                   starts[batch + 1] - starts[batch]);
            check_torn(copy, all, starts[TAIL_BATCHES], false, "stale batch");
            vex_io_close(copy);
        }
    }
    vex_io_close(other);
    vex_io_close(io);
}

/* ---- failing durable writes ------------------------------------------------------------------ */

/* A script for the durable writes: decision i for the i-th of them, then PASS. */
struct script {
    const struct vex_io_decision *decisions;
    size_t count;
    uint64_t seen; /* durable writes so far */
};

static struct vex_io_decision follow_script(void *context, enum vex_io_call call, uint64_t nth,
                                            size_t bytes)
{
    (void)bytes;
    struct script *script = context;
    if (call != VEX_IO_DURABLE) {
        return VEX_IO_PASS;
    }
    script->seen = nth;
    return nth <= script->count ? script->decisions[nth - 1] : VEX_IO_PASS;
}

struct scripted {
    struct vex_io *memory;
    struct vex_io *io;
    struct script script;
    struct vex_log *log;
};

static void open_scripted(struct scripted *scripted, const struct vex_io_decision *decisions,
                          size_t count)
{
    scripted->memory = vex_io_memory_open();
    scripted->script = (struct script){decisions, count, 0};
    scripted->io = vex_io_fault_open(scripted->memory, follow_script, &scripted->script);
    scripted->log = open_log(scripted->io, &large_files, NULL);
}

static uint64_t close_scripted(struct scripted *scripted)
{
    vex_log_close(scripted->log);
    vex_io_close(scripted->io);
    uint64_t last = recovered(scripted->memory, &large_files, NULL);
    vex_io_close(scripted->memory);
    return last;
}

static void a_short_write_is_completed_wherever_it_was_cut(void **state)
{
    (void)state;
    for (size_t cut = 0; cut <= 9 * BLOCK; cut += 512) {
        const struct vex_io_decision decision = {0, cut};
        struct scripted scripted;
        open_scripted(&scripted, &decision, 1);
        append_batch(scripted.log, 3, 9);
        assert_int_equal(scripted.script.seen, cut == 9 * BLOCK ? 1 : 2);
        append_batch(scripted.log, 1, 1);
        assert_int_equal(close_scripted(&scripted), 4);
    }
}

static void several_short_writes_of_one_batch_are_completed(void **state)
{
    (void)state;
    struct vex_io_decision decisions[10];
    for (size_t i = 0; i < COUNT_OF(decisions); i++) {
        decisions[i] = (struct vex_io_decision){0, i % 3 ? BLOCK : BLOCK + 512};
    }
    struct scripted scripted;
    open_scripted(&scripted, decisions, COUNT_OF(decisions));
    append_batch(scripted.log, 2, 12);
    append_batch(scripted.log, 2, 3);
    assert_int_equal(close_scripted(&scripted), 4);
}

static void interrupted_writes_are_tried_again(void **state)
{
    (void)state;
    const int errors[] = {EINTR, EAGAIN};
    for (size_t i = 0; i < COUNT_OF(errors); i++) {
        struct vex_io_decision decisions[10];
        for (size_t j = 0; j < COUNT_OF(decisions); j++) {
            decisions[j] = (struct vex_io_decision){errors[i], 0};
        }
        struct scripted scripted;
        open_scripted(&scripted, decisions, COUNT_OF(decisions));
        append_batch(scripted.log, 2, 3);
        assert_int_equal(scripted.script.seen, 11);
        assert_int_equal(close_scripted(&scripted), 2);
    }
}

/* From here on: no write reaches the disk, no LSN becomes durable, and the reason is told. */
static void assert_latched(struct vex_log *log, struct vex_io *io, int os_errno, uint64_t durable)
{
    struct vex_error error = {.status = VEX_OK};
    uint64_t submits = vex_io_fault_count(io, VEX_IO_SUBMIT);
    assert_int_equal(vex_log_failure(log), os_errno);
    assert_false(vex_log_in_flight(log));
    for (int i = 0; i < 3; i++) {
        assert_int_equal(vex_log_room(log, 8, false, &error), VEX_ERR_READ_ONLY);
        assert_int_equal(error.status, VEX_ERR_READ_ONLY);
        assert_int_equal(error.os_errno, os_errno);
        assert_false(vex_log_commit(log));
        assert_false(vex_log_watermark(log, false));
        assert_false(vex_log_watermark(log, true));
        assert_false(vex_log_needs_watermark(log));
        assert_false(vex_log_poll(log, true));
        assert_int_equal(vex_log_durable_lsn(log), durable);
        assert_int_equal(vex_log_failure(log), os_errno);
    }
    assert_int_equal(vex_io_fault_count(io, VEX_IO_SUBMIT), submits);
}

static void storms_of_interruptions_end(void **state)
{
    (void)state;
    const struct vex_io_decision storms[] = {{EINTR, 0}, {EAGAIN, 0}, {0, 0}, {0, 511}};
    for (size_t i = 0; i < COUNT_OF(storms); i++) {
        struct vex_io_decision decisions[1000];
        for (size_t j = 0; j < COUNT_OF(decisions); j++) {
            decisions[j] = storms[i];
        }
        struct scripted scripted;
        open_scripted(&scripted, decisions, COUNT_OF(decisions));
        append(scripted.log, 5000);
        assert_true(vex_log_commit(scripted.log));
        assert_true(vex_log_poll(scripted.log, true));
        assert_true(scripted.script.seen < 100);
        assert_latched(scripted.log, scripted.io, storms[i].error ? storms[i].error : EIO, 0);
        assert_int_equal(close_scripted(&scripted), 0);
    }
}

static void any_other_failure_is_final_and_never_tried_again(void **state)
{
    (void)state;
    const int errors[] = {EIO, ENOSPC, EDQUOT, EROFS, EBADF, EINVAL, ENOMEM, EPERM, ENXIO};
    const size_t written[] = {0, BLOCK, 3 * BLOCK, SIZE_MAX};
    for (size_t i = 0; i < COUNT_OF(errors); i++) {
        for (size_t j = 0; j < COUNT_OF(written); j++) {
            const struct vex_io_decision decisions[] = {
                VEX_IO_PASS, {0, BLOCK}, {errors[i], written[j]}};
            struct scripted scripted;
            open_scripted(&scripted, decisions, COUNT_OF(decisions));
            append_batch(scripted.log, 2, 1);
            append(scripted.log, 5 * BLOCK);
            assert_true(vex_log_commit(scripted.log));
            append(scripted.log, 8);
            assert_true(vex_log_poll(scripted.log, true));
            assert_latched(scripted.log, scripted.io, errors[i], 2);
            assert_int_equal(scripted.script.seen, 3);
            /* The batch is there if all of it was written, and was never promised. */
            uint64_t last = close_scripted(&scripted);
            assert_int_equal(last, written[j] == SIZE_MAX ? 3 : 2);
        }
    }
}

static void a_backend_that_fails_latches_the_log(void **state)
{
    (void)state;
    const enum vex_io_call calls[] = {VEX_IO_SUBMIT, VEX_IO_REAP};
    for (size_t i = 0; i < COUNT_OF(calls); i++) {
        struct vex_io *memory = vex_io_memory_open();
        struct vex_io_fault_plan plan = {calls[i], 2, false, {ENODEV, 0}, false};
        struct vex_io *io = vex_io_fault_open(memory, vex_io_fault_planned, &plan);
        struct vex_log *log = open_log(io, &large_files, NULL);
        append_batch(log, 2, 1);
        append(log, 8);
        assert_true(vex_log_commit(log));
        (void)vex_log_poll(log, true);
        assert_true(plan.happened);
        assert_latched(log, io, ENODEV, 2);
        vex_log_close(log);
        vex_io_close(io);
        assert_in_range(recovered(memory, &large_files, NULL), 2, 3);
        vex_io_close(memory);
    }
}

/* ---- failing preparation --------------------------------------------------------------------- */

struct full_disk {
    bool full;
    int error;
};

static struct vex_io_decision refuse_when_full(void *context, enum vex_io_call call, uint64_t nth,
                                               size_t bytes)
{
    (void)nth;
    (void)bytes;
    const struct full_disk *disk = context;
    return disk->full && call == VEX_IO_WRITE ? (struct vex_io_decision){disk->error, 0}
                                              : VEX_IO_PASS;
}

static void a_full_disk_refuses_room_and_takes_records_again_later(void **state)
{
    (void)state;
    const struct {
        int error;
        enum vex_status expected;
    } cases[] = {{ENOSPC, VEX_ERR_NO_SPACE}, {EDQUOT, VEX_ERR_NO_SPACE}, {EIO, VEX_ERR_IO}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct vex_io *memory = vex_io_memory_open();
        struct full_disk disk = {false, cases[i].error};
        struct vex_io *io = vex_io_fault_open(memory, refuse_when_full, &disk);
        const struct vex_log_options options = {uuid, 4 * BLOCK, 4 * BLOCK, {0, 0, 0}};
        struct vex_log *log = open_log(io, &options, NULL);
        disk.full = true;
        /* What fits into the file at hand is taken: it was filled before. */
        append_batch(log, 1, 1);
        append_batch(log, 1, 1);
        struct vex_error error = {.status = VEX_OK};
        for (int attempt = 0; attempt < 3; attempt++) {
            assert_int_equal(vex_log_room(log, 8, false, &error), cases[i].expected);
            assert_int_equal(error.os_errno, cases[i].error);
            assert_int_equal(vex_log_next_lsn(log), 3);
            assert_int_equal(vex_log_failure(log), 0);
            assert_false(vex_log_commit(log));
        }
        /* A watermark is left out, which is no failure. */
        assert_false(vex_log_watermark(log, true));
        assert_int_equal(vex_log_failure(log), 0);
        disk.full = false;
        append_batch(log, 2, 1);
        append_batch(log, 2, 1);
        vex_log_close(log);
        vex_io_close(io);
        assert_int_equal(recovered(memory, &options, NULL), 6);
        vex_io_close(memory);
    }
}

/* A record has been staged, and a file for it is ready. Then a larger one asks for a larger file, which
 * the disk refuses: the first one must keep what it was promised. */
static int refuse_the_second_record(void *context)
{
    (void)context;
    struct vex_io *memory = vex_io_memory_open();
    struct full_disk disk = {false, ENOSPC};
    struct vex_io *io = vex_io_fault_open(memory, refuse_when_full, &disk);
    const struct vex_log_options options = {uuid, 2 * BLOCK, 4 * BLOCK, {0, 0, 0}};
    struct vex_log *log = open_log(io, &options, NULL);
    append_batch(log, 1, 1);
    append(log, 8);
    disk.full = true;
    enum vex_status status = vex_log_room(log, 20 * BLOCK, false, NULL);
    if (status != VEX_ERR_NO_SPACE && status != VEX_ERR_BUSY) {
        return 1;
    }
    disk.full = false; /* the switch itself writes a header */
    if (!vex_log_commit(log) || !vex_log_poll(log, true) || vex_log_failure(log)) {
        return 2;
    }
    if (vex_log_durable_lsn(log) != 2) {
        return 3;
    }
    vex_log_close(log);
    vex_io_close(io);
    uint64_t last = recovered(memory, &options, NULL);
    vex_io_close(memory);
    return last == 2 ? 0 : 4;
}

static void a_refused_record_takes_nothing_from_the_one_staged_before_it(void **state)
{
    (void)state;
    /* In a child: an assertion of the log would end this program. */
    assert_int_equal(vex_child_run(refuse_the_second_record, NULL), 0);
}

/* ---- the helper thread ----------------------------------------------------------------------- */

/* The daemon blocks the signals that stop it and reads them from a descriptor. A thread of the log that
 * does not block them would take them instead, and die of them. */
static int signal_yourself(void *context)
{
    (void)context;
    struct vex_io *io = vex_io_memory_open();
    struct vex_log *log = open_log(io, &small_files, NULL);
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
    (void)kill(getpid(), SIGTERM);
    (void)kill(getpid(), SIGINT);
    append_batch(log, 1, 5);
    (void)usleep(20000);
    sigset_t waiting;
    (void)sigpending(&waiting);
    bool both = sigismember(&waiting, SIGTERM) == 1 && sigismember(&waiting, SIGINT) == 1;
    vex_log_close(log);
    vex_io_close(io);
    return both ? 0 : 1;
}

static void the_helper_thread_takes_no_signals(void **state)
{
    (void)state;
    assert_int_equal(vex_child_run(signal_yourself, NULL), 0);
}

/* ---- every call fails once ------------------------------------------------------------------- */

struct outcome {
    uint64_t acknowledged;
    uint64_t submitted;
};

/* Appends until something fails. */
static void append_session(struct vex_io *io, unsigned batches, struct outcome *outcome)
{
    struct vex_log *log = NULL;
    if (try_open(io, &small_files, &log, NULL, NULL) != VEX_OK) {
        return;
    }
    for (unsigned i = 0; i < batches && !vex_log_failure(log); i++) {
        const size_t sizes[] = {3 * BLOCK, 16, 6000, 40, 10 * BLOCK};
        for (unsigned j = 0; j <= i % 3; j++) {
            size_t bytes = sizes[(i + j) % COUNT_OF(sizes)];
            if (vex_log_room(log, bytes, false, NULL) == VEX_OK) {
                stage(log, bytes);
            }
        }
        if (vex_log_commit(log)) {
            outcome->submitted = vex_log_submitted_lsn(log);
            (void)vex_log_poll(log, true);
        }
        outcome->acknowledged = vex_log_durable_lsn(log);
        if (i % 4 == 3 && vex_log_watermark(log, false)) {
            (void)vex_log_poll(log, true);
            assert_int_equal(vex_log_durable_lsn(log), outcome->acknowledged);
        }
    }
    if (vex_log_watermark(log, true)) {
        (void)vex_log_poll(log, true);
    }
    vex_log_close(log);
}

/* Two sessions with one failing call in them; true if it came to it. */
static bool check_one_failure(enum vex_io_call call, uint64_t nth, struct vex_io_decision decision,
                              bool again)
{
    struct vex_io *memory = vex_io_memory_open();
    struct vex_io_fault_plan plan = {call, nth, again, decision, false};
    struct vex_io *io = vex_io_fault_open(memory, vex_io_fault_planned, &plan);
    struct outcome outcome = {0};
    append_session(io, 7, &outcome);
    append_session(io, 4, &outcome);
    vex_io_close(io);
    uint64_t last = recovered(memory, &small_files, NULL);
    if (last < outcome.acknowledged || last > outcome.submitted) {
        fail_msg("%s number %llu failing with %d (%zu bytes): recovered %llu, acknowledged %llu, "
                 "submitted %llu",
                 vex_io_call_name(call), (unsigned long long)nth, decision.error, decision.bytes,
                 (unsigned long long)last, (unsigned long long)outcome.acknowledged,
                 (unsigned long long)outcome.submitted);
    }
    assert_int_equal(recovered(memory, &small_files, NULL), last);
    struct vex_log *log = open_log(memory, &small_files, NULL);
    append_batch(log, 2, 2);
    vex_log_close(log);
    assert_int_equal(recovered(memory, &small_files, NULL), last + 2);
    vex_io_close(memory);
    return plan.happened;
}

static void any_failing_call_leaves_what_was_acknowledged(void **state)
{
    (void)state;
    unsigned failures = 0;
    const struct vex_io_decision decisions[] = {
        {EIO, 0}, {EIO, SIZE_MAX}, {EIO, BLOCK}, {ENOSPC, 0}};
    for (int call = 0; call < VEX_IO_CALLS_COUNT; call++) {
        /* Each of the first calls, then fewer: they repeat themselves. */
        for (uint64_t nth = 1; nth <= 60; nth += 1 + nth / 8) {
            bool happened = false;
            for (size_t i = 0; i < COUNT_OF(decisions); i++) {
                happened |= check_one_failure((enum vex_io_call)call, nth, decisions[i], false);
                failures += happened;
            }
            if (!happened) {
                break;
            }
        }
    }
    assert_true(failures > 200);
}

static void calls_that_keep_failing_leave_what_was_acknowledged(void **state)
{
    (void)state;
    for (int call = 0; call < VEX_IO_CALLS_COUNT; call++) {
        for (uint64_t nth = 1; nth <= 12; nth += 1 + nth / 4) {
            (void)check_one_failure((enum vex_io_call)call, nth, (struct vex_io_decision){EIO, 0},
                                    true);
        }
    }
}

/* ---- all together ---------------------------------------------------------------------------- */

struct chance {
    struct vex_random random;
    uint64_t odds; /* one durable write in so many fails or is short */
};

static struct vex_io_decision decide_by_chance(void *context, enum vex_io_call call, uint64_t nth,
                                               size_t bytes)
{
    (void)nth;
    struct chance *chance = context;
    if (call != VEX_IO_DURABLE || !vex_random_once_in(&chance->random, chance->odds)) {
        return VEX_IO_PASS;
    }
    size_t some = vex_random_below(&chance->random, bytes + 1);
    const int errors[] = {0, 0, EINTR, EAGAIN, EIO};
    return (struct vex_io_decision){errors[vex_random_below(&chance->random, COUNT_OF(errors))],
                                    some};
}

static void long_lives_with_random_failures_lose_nothing(void **state)
{
    (void)state;
    for (uint64_t life = 0; life < 12; life++) {
        struct vex_io *memory = vex_io_memory_open();
        struct chance chance = {vex_random_seeded(seed + life), 5};
        struct vex_random random = vex_random_seeded(seed + 100 + life);
        uint64_t acknowledged = 0;
        uint64_t submitted = 0;
        for (int session = 0; session < 12; session++) {
            struct vex_io *io = vex_io_fault_open(memory, decide_by_chance, &chance);
            struct vex_log *log = open_log(io, &small_files, NULL);
            assert_in_range(vex_log_durable_lsn(log), acknowledged, submitted);
            acknowledged = submitted = vex_log_durable_lsn(log);
            for (uint64_t batches = vex_random_below(&random, 15); batches > 0; batches--) {
                for (uint64_t records = vex_random_below(&random, 5); records > 0; records--) {
                    size_t bytes = random_body_bytes(&random) / 4 / 8 * 8;
                    if (vex_log_room(log, bytes, false, NULL) == VEX_OK) {
                        stage(log, bytes);
                    }
                }
                if (vex_log_commit(log)) {
                    submitted = vex_log_submitted_lsn(log);
                    (void)vex_log_poll(log, true);
                }
                assert_true(vex_log_durable_lsn(log) >= acknowledged);
                acknowledged = vex_log_durable_lsn(log);
            }
            vex_log_close(log);
            vex_io_close(io);
        }
        assert_in_range(recovered(memory, &small_files, NULL), acknowledged, submitted);
        vex_io_close(memory);
    }
}

int main(void)
{
    seed = vex_random_announce("test_ioengine_log");
    (void)signal(SIGABRT, clean_up_and_abort);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_come_back_after_every_restart),
        cmocka_unit_test(many_small_files_are_one_log),
        cmocka_unit_test(a_batch_larger_than_the_files_gets_a_file_that_holds_it),
        cmocka_unit_test(one_batch_is_in_flight_and_the_next_one_collects),
        cmocka_unit_test(the_descriptor_is_readable_when_a_batch_is_done),
        cmocka_unit_test(records_beyond_the_buffer_are_refused_or_wait),
        cmocka_unit_test(a_watermark_is_written_once_behind_the_last_batch),
        cmocka_unit_test(only_an_orderly_end_is_called_clean),
        cmocka_unit_test(watermarks_fit_into_any_end_of_a_file),
        cmocka_unit_test(counters_tell_what_is_on_disk),
        cmocka_unit_test(nothing_but_numbered_files_is_left_or_looked_at),
        cmocka_unit_test(a_record_that_is_refused_at_replay_ends_recovery_and_changes_nothing),
        cmocka_unit_test(closing_no_log_is_fine),
        cmocka_unit_test(a_torn_last_batch_is_dropped_wherever_it_is_torn),
        cmocka_unit_test(any_subset_of_sectors_of_the_last_batch_is_a_torn_tail),
        cmocka_unit_test(a_torn_watermark_costs_no_record),
        cmocka_unit_test(a_torn_tail_behind_a_clean_end_is_not_clean),
        cmocka_unit_test(an_interrupted_erasure_is_done_again),
        cmocka_unit_test(a_changed_byte_before_the_last_batch_is_damage),
        cmocka_unit_test(whole_batches_that_vanished_are_damage),
        cmocka_unit_test(damage_to_the_last_batch_shows_once_a_watermark_follows),
        cmocka_unit_test(a_batch_in_the_place_of_another_is_damage),
        cmocka_unit_test(a_missing_file_before_the_last_is_damage),
        cmocka_unit_test(the_tail_of_a_file_that_is_not_the_last_is_never_torn),
        cmocka_unit_test(files_that_do_not_belong_together_are_refused),
        cmocka_unit_test(the_log_of_another_instance_is_refused),
        cmocka_unit_test(a_damaged_file_header_is_refused),
        cmocka_unit_test(a_file_that_was_cut_is_damage),
        cmocka_unit_test(a_batch_of_another_history_does_not_continue_this_one),
        cmocka_unit_test(file_headers_that_do_not_continue_the_log_are_refused),
        cmocka_unit_test(a_stale_batch_behind_the_end_is_ignored),
        cmocka_unit_test(a_short_write_is_completed_wherever_it_was_cut),
        cmocka_unit_test(several_short_writes_of_one_batch_are_completed),
        cmocka_unit_test(interrupted_writes_are_tried_again),
        cmocka_unit_test(storms_of_interruptions_end),
        cmocka_unit_test(any_other_failure_is_final_and_never_tried_again),
        cmocka_unit_test(a_backend_that_fails_latches_the_log),
        cmocka_unit_test(a_full_disk_refuses_room_and_takes_records_again_later),
        cmocka_unit_test(a_refused_record_takes_nothing_from_the_one_staged_before_it),
        cmocka_unit_test(the_helper_thread_takes_no_signals),
        cmocka_unit_test(any_failing_call_leaves_what_was_acknowledged),
        cmocka_unit_test(calls_that_keep_failing_leave_what_was_acknowledged),
        cmocka_unit_test(long_lives_with_random_failures_lose_nothing),
    };
    return cmocka_run_group_tests(tests, make_buffers, free_buffers);
}
