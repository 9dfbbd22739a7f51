/*
 * The log's files over time: where a checkpoint lets it begin, trimming, using trimmed files again,
 * rotating, end marks, and disks without room.
 *
 * A log that is closed without a clean watermark is as good as one that was killed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <unistd.h>

#include "tests/lib/child.h"
#include "tests/lib/io_fault.h"
#include "tests/lib/io_memory.h"
#include "tests/lib/random.h"
#include "tests/lib/temp_dir.h"
#include "tests/unit/log_steps.h"

static uint64_t seed;
/* Header, four batches of one block, end mark. */
static const struct vex_log_options files_of_four = {uuid, 6 * BLOCK, 6 * BLOCK, {0, 0, 0}};

static struct vex_log_options starting_at(uint64_t file_number, uint64_t lsn)
{
    struct vex_log_options options = files_of_four;
    options.start = (struct vex_log_start){file_number, lsn, 0};
    return options;
}

static char *path_of(uint64_t number)
{
    static char path[64];
    (void)snprintf(path, sizeof(path), "log/%08llu.log", (unsigned long long)number);
    return path;
}

static uint8_t *bytes_of(struct vex_io *io, uint64_t number, size_t *out_bytes)
{
    uint8_t *data = vex_io_memory_bytes(io, path_of(number), out_bytes);
    assert_non_null(data);
    return data;
}

/* Through the disk's own calls, so also while the log has a thread at work. NULL if there is none; to be
 * freed. */
static uint8_t *read_file(struct vex_io *io, const char *path, size_t *out_bytes)
{
    struct vex_file file;
    uint64_t bytes = 0;
    if (io->ops->open_file(io, path, VEX_FILE_READ, &file) < 0) {
        return NULL;
    }
    assert_int_equal(io->ops->size(io, &file, &bytes), 0);
    uint8_t *data = malloc(bytes + 1);
    assert_non_null(data);
    int64_t got = io->ops->read(io, &file, data, bytes, 0);
    *out_bytes = (size_t)got;
    io->ops->close_file(io, &file);
    return data;
}

static bool exists(struct vex_io *io, const char *path)
{
    size_t bytes;
    uint8_t *data = read_file(io, path, &bytes);
    free(data);
    return data != NULL;
}

static bool has_file(struct vex_io *io, uint64_t number)
{
    return exists(io, path_of(number));
}

static bool is_zero(const uint8_t *bytes, size_t count)
{
    return count == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, count - 1) == 0);
}

static void append_batches(struct vex_log *log, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        append_batch(log, 1, 1);
    }
}

static void watermark(struct vex_log *log)
{
    assert_true(vex_log_watermark(log, false));
    finish(log);
}

/* Refused, and not a byte changed. */
static void check_refused(struct vex_io *io, const struct vex_log_options *options,
                          enum vex_status expected, const char *words)
{
    struct vex_io *before = vex_io_memory_clone(io);
    struct vex_log *log = NULL;
    struct vex_error error = {.status = VEX_OK};
    enum vex_status status = try_open(io, options, &log, NULL, &error);
    if (status != expected || !strstr(error.message, words)) {
        fail_msg("%s: '%s', not about '%s'", vex_base_status_name(status), error.message, words);
    }
    assert_true(vex_io_memory_equals(io, before));
    vex_io_close(before);
}

/* ---- where it begins ------------------------------------------------------------------------- */

static void a_log_made_behind_a_checkpoint_continues_its_numbers(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    struct vex_log_options options = starting_at(0, 41);
    struct vex_log *log = open_log(io, &options, NULL);
    assert_int_equal(vex_log_file_number(log), 1);
    append_batches(log, 6);
    assert_int_equal(vex_log_durable_lsn(log), 47);
    assert_int_equal(vex_log_file_number(log), 2);
    vex_log_close(log);
    for (uint64_t lsn = 41; lsn <= 47; lsn++) {
        options = starting_at(1, lsn);
        struct vex_log_recovery recovery;
        log = open_log(io, &options, &recovery);
        assert_int_equal(recovery.last_lsn, 47);
        assert_int_equal(recovery.records, 47 - lsn);
        struct vex_log_counters counters;
        vex_log_get_counters(log, &counters);
        assert_int_equal(counters.replay_bytes, (47 - lsn) * BLOCK);
        assert_int_equal(counters.batch_bytes, 0);
        vex_log_close(log);
    }
    vex_io_close(io);
}

static void a_log_that_does_not_reach_the_checkpoint_is_damaged(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    struct vex_log_options options = starting_at(0, 41);
    struct vex_log *log = open_log(io, &options, NULL);
    append_batches(log, 6);
    vex_log_close(log);
    options = starting_at(1, 48);
    check_refused(io, &options, VEX_ERR_CORRUPT, "the log ends before the checkpoint");
    options = starting_at(1, 40);
    check_refused(io, &options, VEX_ERR_CORRUPT, "does not continue the log before it");
    options = starting_at(3, 47);
    check_refused(io, &options, VEX_ERR_CORRUPT, "log/00000003.log: offset 0");
    options = starting_at(2, 44);
    check_refused(io, &options, VEX_ERR_CORRUPT, "does not continue the log before it");
    options = starting_at(2, 45);
    (void)recovered(io, &options, NULL);
    size_t bytes;
    struct vex_log_header header;
    memcpy(&header, bytes_of(io, 2, &bytes), sizeof(header));
    header.first_lsn = 0;
    vex_log_header_seal(&header);
    memcpy(bytes_of(io, 2, &bytes), &header, sizeof(header));
    check_refused(io, &options, VEX_ERR_CORRUPT, "does not continue the log before it");
    vex_io_close(io);
}

/* A torn tail that the checkpoint is said to hold was acknowledged. */
static void a_torn_batch_below_the_checkpoint_is_damage(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    struct vex_log_options options = starting_at(0, 0);
    struct vex_log *log = open_log(io, &options, NULL);
    append_batches(log, 3);
    vex_log_close(log);
    size_t bytes;
    bytes_of(io, 1, &bytes)[3 * BLOCK + 500] ^= 1;
    options = starting_at(1, 3);
    check_refused(io, &options, VEX_ERR_CORRUPT, "at LSN 3: the log ends before the checkpoint");
    options = starting_at(1, 2);
    assert_int_equal(recovered(io, &options, NULL), 2);
    vex_io_close(io);
}

static void files_before_the_start_are_removed_whatever_they_are(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    struct vex_log *log = open_log(io, &files_of_four, NULL);
    append_batches(log, 15);
    vex_log_close(log);
    size_t bytes;
    bytes_of(io, 2, &bytes)[BLOCK + 9] ^= 1;
    vex_io_memory_put(io, path_of(1), "nonsense", 8);
    vex_io_memory_put(io, "log/spare", "nonsense", 8);
    vex_io_memory_put(io, "log/prepared", "nonsense", 8);
    /* A refusal removes nothing. */
    struct vex_log_options options = starting_at(3, 16);
    check_refused(io, &options, VEX_ERR_CORRUPT, "before the checkpoint");
    options = starting_at(3, 8);
    struct vex_log_recovery recovery;
    assert_int_equal(recovered(io, &options, &recovery), 15);
    assert_int_equal(recovery.records, 7);
    assert_false(has_file(io, 1) || has_file(io, 2));
    assert_true(has_file(io, 3) && has_file(io, 4));
    assert_false(exists(io, "log/spare"));
    assert_false(exists(io, "log/prepared"));
    vex_io_close(io);
}

static void what_a_crash_left_of_the_first_file_is_made_again(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    struct vex_log_options fresh = starting_at(0, 7);
    vex_log_close(open_log(io, &fresh, NULL));
    /* The manifest does not know of it. */
    struct vex_log *log = NULL;
    struct vex_log_recovery recovery;
    struct replayed replayed = {.count = 9};
    fresh.start.lsn = 9;
    assert_int_equal(vex_log_open(io, buffers, &fresh, replay, &replayed, &log, &recovery, NULL),
                     VEX_OK);
    append_batches(log, 1);
    assert_int_equal(vex_log_durable_lsn(log), 10);
    vex_log_close(log);
    /* Now it holds a record, so there was a log. */
    struct vex_io *before = vex_io_memory_clone(io);
    struct vex_error error = {.status = VEX_OK};
    assert_int_equal(vex_log_open(io, buffers, &fresh, replay, &replayed, &log, &recovery, &error),
                     VEX_ERR_CORRUPT);
    assert_non_null(strstr(error.message, "there should be no log yet"));
    assert_true(vex_io_memory_equals(io, before));
    vex_io_close(before);
    vex_io_close(io);
}

static void a_file_of_another_version_is_not_called_damaged(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    struct vex_log *log = open_log(io, &files_of_four, NULL);
    append_batches(log, 6);
    vex_log_close(log);
    for (unsigned number = 1; number <= 2; number++) {
        struct vex_io *copy = vex_io_memory_clone(io);
        size_t bytes;
        uint8_t *data = bytes_of(copy, number, &bytes);
        struct vex_log_header header;
        memcpy(&header, data, sizeof(header));
        header.version = VEX_LOG_VERSION + 1;
        memcpy(data, &header, sizeof(header));
        check_refused(copy, &files_of_four, VEX_ERR_CORRUPT, "header checksum");
        vex_log_header_seal(&header);
        memcpy(bytes_of(copy, number, &bytes), &header, sizeof(header));
        check_refused(copy, &files_of_four, VEX_ERR_VERSION, "log format version 3");
        check_refused(copy, &files_of_four, VEX_ERR_VERSION, path_of(number));
        vex_io_close(copy);
    }
    vex_io_close(io);
}

/* ---- end marks ------------------------------------------------------------------------------- */

static size_t end_mark_of(struct vex_io *io, uint64_t number)
{
    size_t bytes;
    const uint8_t *data = bytes_of(io, number, &bytes);
    struct vex_log_header file;
    memcpy(&file, data, sizeof(file));
    for (size_t at = BLOCK; at < bytes; at += BLOCK) {
        struct vex_batch_header header;
        memcpy(&header, data + at, sizeof(header));
        if (!vex_batch_fault(data + at, bytes - at, file.nonce) && header.flags == VEX_BATCH_END) {
            return at;
        }
    }
    return 0;
}

static void a_file_with_a_successor_ends_with_a_mark(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    struct vex_log *log = open_log(io, &files_of_four, NULL);
    append_batches(log, 9);
    append_batch(log, 1, 2);
    append_batch(log, 1, 2);
    uint64_t last = vex_log_file_number(log);
    assert_int_equal(last, 4);
    vex_log_close(log);
    assert_int_equal(end_mark_of(io, 1), 5 * BLOCK);
    assert_int_equal(end_mark_of(io, 2), 5 * BLOCK);
    assert_int_equal(end_mark_of(io, 3), 4 * BLOCK);
    assert_int_equal(end_mark_of(io, 4), 0);
    assert_int_equal(recovered(io, &files_of_four, NULL), 11);
    vex_io_close(io);
}

static void the_loss_of_the_newest_files_is_noticed(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    struct vex_log *log = open_log(io, &files_of_four, NULL);
    append_batches(log, 17);
    uint64_t last = vex_log_file_number(log);
    vex_log_close(log);
    for (uint64_t first_lost = last; first_lost > 1; first_lost--) {
        assert_true(vex_io_memory_drop(io, path_of(first_lost)));
        check_refused(io, &files_of_four, VEX_ERR_CORRUPT,
                      "the log file after this one is missing");
        check_refused(io, &files_of_four, VEX_ERR_CORRUPT, path_of(first_lost - 1));
    }
    vex_io_close(io);
}

/* The files that a crash leaves between the new file's directory entry and the first batch in it. */
static void make_interrupted_switch(struct vex_io *io)
{
    struct vex_log *log = open_log(io, &files_of_four, NULL);
    append_batches(log, 4);
    append_batch(log, 1, 2);
    vex_log_close(log);
    size_t bytes;
    memset(bytes_of(io, 2, &bytes) + BLOCK, 0, 2 * BLOCK);
}

static void a_switch_interrupted_before_or_in_its_mark_is_finished(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed);
    struct vex_io *io = vex_io_memory_open();
    make_interrupted_switch(io);
    for (unsigned sectors = 0; sectors < 256; sectors++) {
        struct vex_io *copy = vex_io_memory_clone(io);
        size_t bytes;
        uint8_t *mark = bytes_of(copy, 1, &bytes) + 5 * BLOCK;
        for (unsigned sector = 0; sector < 8; sector++) {
            if (sectors & 1u << sector) {
                vex_random_fill(&random, mark + sector * 512, 512);
            }
        }
        struct vex_log_recovery recovery;
        assert_int_equal(recovered(copy, &files_of_four, &recovery), 4);
        assert_int_equal(recovery.torn_tails, 0);
        assert_int_equal(end_mark_of(copy, 1), 5 * BLOCK);
        assert_true(vex_io_memory_equals(copy, io)); /* the same mark as before */
        struct vex_log *log = open_log(copy, &files_of_four, NULL);
        append_batches(log, 2);
        vex_log_close(log);
        assert_int_equal(recovered(copy, &files_of_four, NULL), 6);
        vex_io_close(copy);
    }
    vex_io_close(io);
}

static void an_end_mark_that_is_missing_before_records_is_damage(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    struct vex_log *log = open_log(io, &files_of_four, NULL);
    append_batches(log, 10);
    vex_log_close(log);
    for (unsigned number = 1; number <= 2; number++) {
        struct vex_io *copy = vex_io_memory_clone(io);
        size_t bytes;
        memset(bytes_of(copy, number, &bytes) + 5 * BLOCK, 0, BLOCK);
        check_refused(copy, &files_of_four, VEX_ERR_CORRUPT, "end mark missing");
        check_refused(copy, &files_of_four, VEX_ERR_CORRUPT, path_of(number));
        /* Without records in the file behind it, it is what a crash leaves; but not with two files. */
        bytes_of(copy, number + 1, &bytes);
        memset(bytes_of(copy, number + 1, &bytes) + BLOCK, 0, 5 * BLOCK);
        if (number == 1) {
            check_refused(copy, &files_of_four, VEX_ERR_CORRUPT, "end mark missing");
        } else {
            assert_int_equal(recovered(copy, &files_of_four, NULL), 8);
        }
        vex_io_close(copy);
    }
    vex_io_close(io);
}

static void a_batch_in_the_block_of_the_end_mark_is_not_taken(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    struct vex_log *log = open_log(io, &files_of_four, NULL);
    append_batches(log, 4);
    append(log, 16);
    commit(log);
    vex_log_close(log);
    size_t bytes;
    uint8_t *first = bytes_of(io, 1, &bytes);
    struct vex_log_header file;
    memcpy(&file, first, sizeof(file));
    struct vex_batch_header header;
    memcpy(&header, first + 5 * BLOCK, sizeof(header));
    header.flags = VEX_BATCH_WATERMARK;
    memcpy(first + 5 * BLOCK, &header, sizeof(header));
    (void)vex_batch_seal((struct vex_batch_header *)(void *)(first + 5 * BLOCK), 0, file.nonce);
    check_refused(io, &files_of_four, VEX_ERR_CORRUPT, "kept for the end mark");
    vex_io_close(io);
}

/* A watermark takes no LSN: what follows a damaged one has the LSN that was expected in its place. */
static void records_behind_a_damaged_watermark_are_not_dropped(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    const struct vex_log_options options = {uuid, 20 * BLOCK, 20 * BLOCK, {0, 0, 0}};
    struct vex_log *log = open_log(io, &options, NULL);
    append_batches(log, 1);
    watermark(log);
    append_batches(log, 1);
    vex_log_close(log);
    size_t bytes;
    for (size_t at = 0; at < BLOCK; at += 64) {
        bytes_of(io, 1, &bytes)[2 * BLOCK + at] ^= 1;
        check_refused(io, &options, VEX_ERR_CORRUPT, "offset 8192, at LSN 2");
        bytes_of(io, 1, &bytes)[2 * BLOCK + at] ^= 1;
    }
    memset(bytes_of(io, 1, &bytes) + 2 * BLOCK, 0, BLOCK);
    check_refused(io, &options, VEX_ERR_CORRUPT, "offset 8192, at LSN 2");
    vex_io_close(io);
}

/* A client may have read the log and stored what it read. Here it meets the place where the same LSN is
 * expected again, inside a batch that was torn. */
static void a_copy_of_a_batch_inside_a_record_proves_nothing(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    const struct vex_log_options options = {uuid, 20 * BLOCK, 20 * BLOCK, {0, 0, 0}};
    struct vex_log *log = open_log(io, &options, NULL);
    append_batches(log, 1);
    watermark(log);
    static uint8_t body[3 * BLOCK];
    size_t bytes;
    const size_t before = sizeof(struct vex_batch_header) + sizeof(struct vex_record_header);
    memcpy(body + BLOCK - before, bytes_of(io, 1, &bytes) + 2 * BLOCK, BLOCK);
    assert_int_equal(vex_log_room(log, sizeof(body), false, NULL), VEX_OK);
    (void)vex_log_stage(log, 1, &(struct vex_log_piece){body, sizeof(body)}, 1);
    commit(log);
    vex_log_close(log);
    uint8_t *data = bytes_of(io, 1, &bytes);
    assert_memory_equal(data + 4 * BLOCK, data + 2 * BLOCK, BLOCK);
    data[5 * BLOCK + 100] ^= 1;
    struct vex_log_recovery recovery;
    assert_int_equal(recovered(io, &options, &recovery), 1);
    assert_int_equal(recovery.torn_tails, 1);
    /* Nor is it damage when the log has come to end right before it. */
    log = open_log(io, &options, NULL);
    append_batches(log, 1);
    vex_log_close(log);
    data = bytes_of(io, 1, &bytes);
    assert_memory_equal(data + 4 * BLOCK, data + 2 * BLOCK, BLOCK);
    assert_int_equal(recovered(io, &options, &recovery), 2);
    assert_int_equal(recovery.torn_tails, 0);
    log = open_log(io, &options, NULL);
    append_batches(log, 3);
    vex_log_close(log);
    assert_int_equal(recovered(io, &options, &recovery), 5);
    vex_io_close(io);
}

/* ---- trimming -------------------------------------------------------------------------------- */

static uint64_t file_bytes_of(struct vex_log *log)
{
    struct vex_log_counters counters;
    vex_log_get_counters(log, &counters);
    return counters.file_bytes;
}

static void trimming_removes_what_is_below_and_never_the_current_file(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    struct vex_log *log = open_log(io, &files_of_four, NULL);
    append_batches(log, 18);
    assert_int_equal(vex_log_file_number(log), 5);
    assert_int_equal(file_bytes_of(log), 5 * 6 * BLOCK);
    vex_log_trim(log, 0, false);
    vex_log_trim(log, 1, false);
    assert_true(has_file(io, 1));
    vex_log_trim(log, 3, false);
    assert_false(has_file(io, 1) || has_file(io, 2));
    assert_true(has_file(io, 3));
    assert_int_equal(file_bytes_of(log), 3 * 6 * BLOCK);
    vex_log_trim(log, 1000, false);
    assert_false(has_file(io, 3) || has_file(io, 4));
    assert_true(has_file(io, 5));
    assert_int_equal(file_bytes_of(log), 6 * BLOCK);
    append_batches(log, 5);
    assert_int_equal(vex_log_file_number(log), 6);
    vex_log_close(log);
    struct vex_log_options options = starting_at(5, 16);
    assert_int_equal(recovered(io, &options, NULL), 23);
    /* What recovery has read can be trimmed as well. */
    log = open_log(io, &options, NULL);
    assert_int_equal(file_bytes_of(log), 2 * 6 * BLOCK);
    vex_log_trim(log, 6, true);
    assert_false(has_file(io, 5));
    vex_log_close(log);
    vex_io_close(io);
}

/* Bytes behind the end of the newest file tell that it was used before. */
static bool is_recycled(struct vex_io *io, uint64_t number)
{
    size_t bytes;
    uint8_t *data = read_file(io, path_of(number), &bytes);
    assert_non_null(data);
    bool zero = is_zero(data + bytes - BLOCK, BLOCK);
    free(data);
    return !zero;
}

static void a_trimmed_file_is_used_again_and_its_old_batches_are_nothing(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    struct vex_log *log = open_log(io, &files_of_four, NULL);
    append_batches(log, 5);
    uint64_t lsn = 4;
    unsigned recycled = 0;
    for (unsigned round = 0; round < 40; round++) {
        uint64_t current = vex_log_file_number(log);
        vex_log_trim(log, current, true);
        lsn = vex_log_durable_lsn(log);
        append_batches(log, 1 + round % 6);
        uint64_t number = vex_log_file_number(log);
        recycled += number > current && is_recycled(io, number);
        uint64_t durable = vex_log_durable_lsn(log);
        if (round % 3 == 2) {
            vex_log_close(log);
            struct vex_log_options options = starting_at(current, lsn);
            struct vex_log_recovery recovery;
            log = open_log(io, &options, &recovery);
            assert_int_equal(recovery.last_lsn, durable);
            assert_int_equal(recovery.torn_tails, 0);
        }
    }
    assert_true(recycled >= 5);
    vex_log_close(log);
    vex_io_close(io);
}

/* Under its old name it would be a file of the log: unless the new one is sure, it is not kept. */
static void a_trimmed_file_is_kept_only_once_the_directory_is_synced(void **state)
{
    (void)state;
    for (int fails = 0; fails <= 1; fails++) {
        struct vex_io *memory = vex_io_memory_open();
        struct vex_io_fault_plan plan = {VEX_IO_SYNC_DIRECTORY, 0, true, {EIO, 0}, false};
        struct vex_io *io = vex_io_fault_open(memory, vex_io_fault_planned, &plan);
        struct vex_log *log = open_log(io, &files_of_four, NULL);
        append_batches(log, 5);
        plan.nth = fails ? vex_io_fault_count(io, VEX_IO_SYNC_DIRECTORY) + 1 : 0;
        vex_log_trim(log, 2, true);
        assert_int_equal(plan.happened, fails);
        assert_int_equal(exists(memory, "log/spare"), !fails);
        assert_false(has_file(memory, 1));
        plan.nth = 0;
        append_batches(log, 1);
        vex_log_close(log);
        assert_false(exists(memory, "log/spare"));
        assert_false(exists(memory, "log/prepared"));
        vex_io_close(io);
        vex_io_close(memory);
    }
}

/* Recycles until the newest file has stale batches behind its end; one batch is in it. */
static uint64_t make_recycled(struct vex_io *io, uint64_t *out_start_lsn)
{
    struct vex_log *log = open_log(io, &files_of_four, NULL);
    uint64_t number = 1;
    do {
        uint64_t full = number;
        while (number == full) {
            *out_start_lsn = vex_log_durable_lsn(log);
            append_batches(log, 1);
            number = vex_log_file_number(log);
        }
        vex_log_trim(log, number, true);
    } while (!is_recycled(io, number));
    vex_log_close(log);
    return number;
}

static void recovery_erases_the_one_block_at_the_end_of_a_recycled_file(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    uint64_t lsn;
    uint64_t number = make_recycled(io, &lsn);
    size_t bytes;
    assert_false(is_zero(bytes_of(io, number, &bytes) + 2 * BLOCK, BLOCK));
    struct vex_io *before = vex_io_memory_clone(io);
    struct vex_log_options options = starting_at(number, lsn);
    struct vex_log_recovery recovery;
    assert_int_equal(recovered(io, &options, &recovery), lsn + 1);
    assert_int_equal(recovery.torn_tails, 0);
    const uint8_t *data = bytes_of(io, number, &bytes);
    const uint8_t *old = bytes_of(before, number, &bytes);
    assert_memory_equal(data, old, 2 * BLOCK);
    assert_true(is_zero(data + 2 * BLOCK, BLOCK));
    assert_memory_equal(data + 3 * BLOCK, old + 3 * BLOCK, bytes - 3 * BLOCK);
    vex_io_close(before);
    before = vex_io_memory_clone(io);
    assert_int_equal(recovered(io, &options, NULL), lsn + 1);
    assert_true(vex_io_memory_equals(io, before));
    vex_io_close(before);
    vex_io_close(io);
}

/* Forged as well as stale bytes can be: everything but the nonce is that of the next batch. */
static void a_batch_of_another_nonce_is_never_taken_for_the_next_one(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    uint64_t lsn;
    uint64_t number = make_recycled(io, &lsn);
    struct vex_log_options options = starting_at(number, lsn);
    for (unsigned what = 0; what < 32; what++) {
        struct vex_io *copy = vex_io_memory_clone(io);
        size_t bytes;
        uint8_t *data = bytes_of(copy, number, &bytes);
        struct vex_batch_header last;
        memcpy(&last, data + BLOCK, sizeof(last));
        uint8_t *at = data + 2 * BLOCK;
        memcpy(at, data + BLOCK, BLOCK); /* one record in it */
        struct vex_batch_header *header = (struct vex_batch_header *)(void *)at;
        header->first_lsn = lsn + 2 - (what & 1);
        header->previous_hash = last.checksum ^ (what >> 1 & 1);
        header->block = 2 + (what >> 2 & 1);
        header->file_number = number - (what >> 3 & 1);
        header->durable_lsn = what >> 4 & 1 ? lsn + 1 : lsn;
        (void)vex_batch_seal(header, header->payload_bytes, 12345);
        struct vex_log_recovery recovery;
        assert_int_equal(recovered(copy, &options, &recovery), lsn + 1);
        /* Told from a torn batch by any field that does not fit; else it cannot be told. */
        assert_int_equal(recovery.torn_tails, (what & 15) == 0);
        assert_true(is_zero(bytes_of(copy, number, &bytes) + 2 * BLOCK, BLOCK));
        vex_io_close(copy);
    }
    vex_io_close(io);
}

/* The reason for erasing: parts of a torn batch and of a later one, both dropped, must not be whole
 * together. */
static void a_dropped_batch_does_not_come_back_through_a_later_torn_one(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    const struct vex_log_options options = {uuid, 20 * BLOCK, 20 * BLOCK, {0, 0, 0}};
    struct vex_log *log = open_log(io, &options, NULL);
    append_batches(log, 1);
    vex_log_close(log);
    struct vex_io *whole = vex_io_memory_clone(io);
    log = open_log(whole, &options, NULL);
    append_batch(log, 1, 3);
    vex_log_close(log);
    size_t bytes;
    const uint8_t *written = bytes_of(whole, 1, &bytes) + 2 * BLOCK;
    /* Two of three blocks arrive; the batch is dropped. */
    memcpy(bytes_of(io, 1, &bytes) + 2 * BLOCK, written, 2 * BLOCK);
    assert_int_equal(recovered(io, &options, NULL), 1);
    /* Of the next one, which has the third block in common, only that arrives. */
    memcpy(bytes_of(io, 1, &bytes) + 4 * BLOCK, written + 2 * BLOCK, BLOCK);
    assert_int_equal(recovered(io, &options, NULL), 1);
    vex_io_close(whole);
    vex_io_close(io);
}

/* One flipped bit in each block of each file, some of them recycled: damage, or of no consequence. */
static void a_flipped_bit_anywhere_loses_nothing_silently(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed + 1);
    struct vex_io *io = vex_io_memory_open();
    uint64_t lsn;
    uint64_t first = make_recycled(io, &lsn);
    struct vex_log_options options = starting_at(first, lsn);
    struct vex_log *log = open_log(io, &options, NULL);
    append_batches(log, 2);
    append_batch(log, 3, 2);
    append_batches(log, 5);
    vex_log_trim(log, vex_log_file_number(log) - 1, true);
    append_batches(log, 3);
    first = vex_log_file_number(log) - 1;
    watermark(log);
    uint64_t last = vex_log_file_number(log);
    uint64_t durable = vex_log_durable_lsn(log);
    vex_log_close(log);
    /* A start of which the first file holds something below as well. */
    size_t bytes;
    struct vex_log_header header;
    while (has_file(io, first - 1)) {
        first--;
    }
    memcpy(&header, bytes_of(io, first, &bytes), sizeof(header));
    options = starting_at(first, header.first_lsn);
    unsigned refused = 0;
    unsigned harmless = 0;
    for (uint64_t number = first; number <= last; number++) {
        (void)bytes_of(io, number, &bytes);
        for (size_t at = 0; at < bytes; at += 128) {
            struct vex_io *copy = vex_io_memory_clone(io);
            bytes_of(copy, number, &bytes)[at + vex_random_below(&random, 128)] ^=
                (uint8_t)(1u << vex_random_below(&random, 8));
            struct vex_log *opened = NULL;
            enum vex_status status = try_open(copy, &options, &opened, NULL, NULL);
            if (status == VEX_OK) {
                assert_int_equal(vex_log_durable_lsn(opened), durable);
                vex_log_close(opened);
                harmless++;
            } else {
                assert_int_equal(status, VEX_ERR_CORRUPT);
                refused++;
            }
            vex_io_close(copy);
        }
    }
    assert_true(refused > 100 && harmless > 50);
    vex_io_close(io);
}

/* ---- rotating -------------------------------------------------------------------------------- */

static bool anywhere_on_disk(struct vex_io *io, uint64_t lsn)
{
    uint64_t word = vex_mix64(lsn + 8); /* the second one of the record's body */
    bool found = false;
    for (uint64_t number = 0; number < 60; number++) {
        const char *path = number == 0   ? "log/spare"
                           : number == 1 ? "log/prepared"
                                         : path_of(number - 1);
        size_t bytes;
        uint8_t *data = read_file(io, path, &bytes);
        found = found || (data && memmem(data, bytes, &word, sizeof(word)));
        free(data);
    }
    return found;
}

static void the_batch_after_a_rotation_is_in_a_new_file(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    struct vex_log *log = open_log(io, &files_of_four, NULL);
    append_batches(log, 1);
    assert_int_equal(vex_log_file_number(log), 1);
    assert_true(vex_log_rotate(log));
    assert_int_equal(vex_log_file_number(log), 1);
    append_batches(log, 1);
    assert_int_equal(vex_log_file_number(log), 2);
    append_batches(log, 1);
    assert_int_equal(vex_log_file_number(log), 2);
    /* With a batch in flight and one that collects. */
    append(log, 8);
    assert_true(vex_log_commit(log));
    append(log, 8);
    assert_true(vex_log_rotate(log));
    append(log, 8);
    finish(log);
    assert_int_equal(vex_log_file_number(log), 2);
    commit(log);
    assert_int_equal(vex_log_file_number(log), 3);
    assert_true(vex_log_rotate(log));
    watermark(log);
    assert_int_equal(vex_log_file_number(log), 4);
    vex_log_close(log);
    assert_int_equal(recovered(io, &files_of_four, NULL), 6);
    vex_io_close(io);
}

static void rotating_and_trimming_leaves_no_old_bytes(void **state)
{
    (void)state;
    for (unsigned phase = 0; phase < 12; phase++) {
        struct vex_io *io = vex_io_memory_open();
        struct vex_log *log = open_log(io, &files_of_four, NULL);
        /* Old bytes in current, prepared and spare files, in all combinations. */
        for (unsigned i = 0; i < 13 + phase; i++) {
            append_batches(log, 1);
            vex_log_trim(log, vex_log_file_number(log), true);
        }
        uint64_t last_old = vex_log_durable_lsn(log);
        assert_true(anywhere_on_disk(io, last_old));
        assert_true(vex_log_rotate(log));
        append_batches(log, 1 + phase % 5);
        vex_log_trim(log, vex_log_file_number(log), false);
        for (uint64_t lsn = 1; lsn <= last_old; lsn++) {
            assert_false(anywhere_on_disk(io, lsn));
        }
        append_batches(log, 10);
        vex_log_close(log);
        vex_io_close(io);
    }
}

/* ---- disks without room ---------------------------------------------------------------------- */

/* A disk in memory on which no file can grow beyond `largest`. One at a time. */
static struct {
    const struct vex_io_ops *inner;
    struct vex_io_ops ops;
    uint64_t largest;
    int error;
    bool cannot_tell; /* it has no way to allocate blocks */
    unsigned refusals;
    unsigned writes_refused;
} small_disk;

static int small_disk_allocate(struct vex_io *io, const struct vex_file *file, uint64_t bytes)
{
    if (small_disk.cannot_tell) {
        return -EOPNOTSUPP;
    }
    if (bytes > small_disk.largest) {
        small_disk.refusals++;
        return -small_disk.error;
    }
    return small_disk.inner->allocate(io, file, bytes);
}

static int small_disk_write(struct vex_io *io, const struct vex_file *file, const void *from,
                            size_t bytes, uint64_t offset)
{
    uint64_t size = 0;
    (void)small_disk.inner->size(io, file, &size);
    if (offset + bytes > size && offset + bytes > small_disk.largest) {
        small_disk.writes_refused++;
        return -small_disk.error;
    }
    return small_disk.inner->write(io, file, from, bytes, offset);
}

static struct vex_io *open_small_disk(void)
{
    struct vex_io *io = vex_io_memory_open();
    memset(&small_disk, 0, sizeof(small_disk));
    small_disk.inner = io->ops;
    small_disk.ops = *io->ops;
    small_disk.ops.allocate = small_disk_allocate;
    small_disk.ops.write = small_disk_write;
    small_disk.largest = UINT64_MAX;
    small_disk.error = ENOSPC;
    io->ops = &small_disk.ops;
    return io;
}

/* 64 blocks, of which 8 are left for small writes. */
static const struct vex_log_options files_of_64 = {uuid, 64 * BLOCK, 64 * BLOCK, {0, 0, 0}};

static unsigned append_until_refused(struct vex_log *log, bool small, enum vex_status expected)
{
    unsigned count = 0;
    struct vex_error error = {.status = VEX_OK};
    while (vex_log_room(log, 8, small, &error) == VEX_OK) {
        stage(log, 8);
        commit(log);
        assert_true(++count < 200);
    }
    assert_int_equal(error.status, expected);
    assert_int_equal(vex_log_failure(log), 0);
    return count;
}

static void a_full_disk_keeps_what_is_left_for_writes_that_give_space_back(void **state)
{
    (void)state;
    const int errors[] = {ENOSPC, EDQUOT};
    for (size_t i = 0; i < COUNT_OF(errors) * 2; i++) {
        struct vex_io *io = open_small_disk();
        small_disk.error = errors[i / 2];
        small_disk.cannot_tell = i % 2;
        struct vex_log *log = open_log(io, &files_of_64, NULL);
        small_disk.largest = 0;
        unsigned inserts = append_until_refused(log, false, VEX_ERR_NO_SPACE);
        /* 62 blocks for batches; while the first attempt is under way, more may be taken. */
        assert_in_range(inserts, 54, 62);
        unsigned deletes = append_until_refused(log, true, VEX_ERR_NO_SPACE);
        assert_int_equal(inserts + deletes, 62);
        assert_false(vex_log_watermark(log, false));
        assert_false(vex_log_watermark(log, true));
        /* Space was given back. */
        small_disk.largest = UINT64_MAX;
        append_batches(log, 3);
        assert_int_equal(vex_log_file_number(log), 2);
        vex_log_close(log);
        assert_int_equal(recovered(io, &files_of_64, NULL), 65);
        vex_io_close(io);
    }
}

static void
inserts_are_refused_before_the_last_blocks_once_the_disk_is_known_to_be_full(void **state)
{
    (void)state;
    struct vex_io *io = open_small_disk();
    struct vex_log *log = open_log(io, &files_of_64, NULL);
    small_disk.largest = 0;
    append_batches(log, 40); /* half full: the attempt to prepare the next file has been made */
    (void)usleep(20000);
    unsigned more = append_until_refused(log, false, VEX_ERR_NO_SPACE);
    assert_int_equal(40 + more, 54);
    /* A watermark does not take from what is left; the one of an orderly shutdown may. */
    assert_false(vex_log_watermark(log, false));
    assert_true(vex_log_watermark(log, true));
    finish(log);
    assert_int_equal(append_until_refused(log, true, VEX_ERR_NO_SPACE), 7);
    assert_true(small_disk.refusals > 0);
    assert_int_equal(small_disk.writes_refused, 0);
    vex_log_close(log);
    vex_io_close(io);
}

static void a_disk_with_little_room_gets_smaller_files(void **state)
{
    (void)state;
    const uint64_t mib = 1u << 20;
    const struct vex_log_options options = {uuid, 4 * mib, 16 * mib, {0, 0, 0}};
    for (unsigned i = 0; i < 3; i++) {
        struct vex_io *io = open_small_disk();
        struct vex_log *log = open_log(io, &options, NULL);
        small_disk.largest = (i == 0 ? 3 : i == 1 ? 1 : 2) * mib;
        uint64_t first = file_bytes_of(log);
        assert_int_equal(first, 4 * mib);
        append(log, (size_t)(3 * mib + mib / 2));
        commit(log);
        append(log, (size_t)(mib / 2 + 4096)); /* does not fit */
        commit(log);
        assert_int_equal(vex_log_file_number(log), 2);
        assert_int_equal(file_bytes_of(log) - first, (i == 1 ? 1 : 2) * mib);
        /* A write that needs more than there is gets nothing. */
        assert_int_equal(vex_log_room(log, 3 * mib, false, NULL), VEX_ERR_NO_SPACE);
        /* One that gives space back gets by with less than others. */
        small_disk.largest = 100 * 1024;
        while (vex_log_room(log, 8, false, NULL) == VEX_OK) {
            stage(log, 8);
            commit(log);
        }
        assert_int_equal(vex_log_file_number(log), 2);
        uint64_t before = file_bytes_of(log);
        while (vex_log_file_number(log) == 2) {
            assert_int_equal(vex_log_room(log, 8, true, NULL), VEX_OK);
            stage(log, 8);
            commit(log);
        }
        assert_int_equal(file_bytes_of(log) - before, 64 * 1024);
        /* Others do not use that up, once the attempt to make another file has failed. */
        (void)vex_log_room(log, 8, false, NULL);
        (void)usleep(20000);
        assert_int_equal(vex_log_room(log, 8, false, NULL), VEX_ERR_NO_SPACE);
        vex_log_close(log);
        vex_io_close(io);
    }
}

/* ---- threads and descriptors ----------------------------------------------------------------- */

static unsigned threads_count(void)
{
    unsigned count = 0;
    DIR *tasks = opendir("/proc/self/task");
    assert_non_null(tasks);
    while (readdir(tasks)) {
        count++;
    }
    (void)closedir(tasks);
    return count - 2;
}

static void the_helper_thread_exists_only_once_a_file_is_prepared_ahead(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    unsigned before = threads_count();
    struct vex_log *log = open_log(io, &files_of_four, NULL);
    append_batches(log, 1);
    assert_int_equal(threads_count(), before);
    append_batches(log, 3);
    assert_int_equal(threads_count(), before + 1);
    vex_log_close(log);
    log = open_log(io, &files_of_four, NULL);
    assert_int_equal(threads_count(), before);
    vex_log_close(log);
    vex_io_close(io);
}

/* A file is ready. Then the process uses up its descriptors, and the switch has to do without. */
static int switch_without_descriptors(void *context)
{
    const struct vex_temp_dir *directory = context;
    struct vex_io *io = NULL;
    if (vex_io_sync_open(directory->fd, &io) < 0) {
        return 1;
    }
    struct vex_log *log = open_log(io, &files_of_four, NULL);
    append_batches(log, 4);
    if (vex_log_room(log, 8, false, NULL) != VEX_OK) {
        return 2;
    }
    struct rlimit limit;
    (void)getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_cur < 256 ? limit.rlim_cur : 256;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    int taken = 0;
    while (dup(0) >= 0) {
        taken++;
    }
    if (taken == 0) {
        return 3;
    }
    stage(log, 8);
    if (!vex_log_commit(log) || !vex_log_poll(log, true)) {
        return 4;
    }
    if (vex_log_failure(log) || vex_log_file_number(log) != 2) {
        return 5;
    }
    /* The two descriptors that a switch gives back are those that the next file takes. */
    for (int i = 0; i < 20; i++) {
        if (vex_log_room(log, 8, false, NULL) != VEX_OK) {
            return 6;
        }
        stage(log, 8);
        if (!vex_log_commit(log) || !vex_log_poll(log, true) || vex_log_failure(log)) {
            return 7;
        }
    }
    return vex_log_file_number(log) > 5 ? 0 : 8;
}

static void running_out_of_descriptors_at_a_switch_does_not_latch(void **state)
{
    (void)state;
    struct vex_temp_dir directory;
    vex_temp_dir_make(&directory);
    int result = vex_child_run(switch_without_descriptors, &directory);
    vex_temp_dir_remove(&directory);
    assert_int_equal(result, 0);
}

struct trimmer {
    struct vex_log *log;
    _Atomic uint64_t below; /* relaxed: a number, nothing hangs on it */
    _Atomic bool stop;      /* relaxed: as above */
};

static void *trim_all_the_time(void *context)
{
    struct trimmer *trimmer = context;
    struct vex_random random = vex_random_seeded(seed + 7);
    /* relaxed: see the struct */
    while (!atomic_load_explicit(&trimmer->stop, memory_order_relaxed)) {
        /* relaxed: see the struct */
        uint64_t below = atomic_load_explicit(&trimmer->below, memory_order_relaxed);
        vex_log_trim(trimmer->log, below, vex_random_below(&random, 4) != 0);
        (void)usleep((useconds_t)vex_random_below(&random, 300));
    }
    return NULL;
}

static void trimming_from_another_thread_disturbs_nothing(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed + 8);
    struct vex_io *io = vex_io_memory_open();
    struct vex_log *log = open_log(io, &files_of_four, NULL);
    struct trimmer trimmer = {.log = log};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, trim_all_the_time, &trimmer), 0);
    uint64_t file = 1;
    uint64_t lsn = 0;
    for (unsigned i = 0; i < 1500; i++) {
        if (vex_random_once_in(&random, 40)) {
            (void)vex_log_rotate(log);
        }
        if (i % 5 == 0) {
            file = vex_log_file_number(log);
            lsn = vex_log_durable_lsn(log);
            /* relaxed: see the struct */
            atomic_store_explicit(&trimmer.below, file, memory_order_relaxed);
        }
        append_batch(log, 1, 1 + vex_random_below(&random, 3));
        while (i % 5 == 0 && file_bytes_of(log) > (uint64_t)30 * 6 * BLOCK) {
            (void)usleep(100);
        }
    }
    /* relaxed: see the struct */
    atomic_store_explicit(&trimmer.stop, true, memory_order_relaxed);
    (void)pthread_join(thread, NULL);
    uint64_t durable = vex_log_durable_lsn(log);
    vex_log_close(log);
    struct vex_log_options options = starting_at(file, lsn);
    assert_int_equal(recovered(io, &options, NULL), durable);
    vex_io_close(io);
}

/* ---- lives with failures --------------------------------------------------------------------- */

struct chance {
    struct vex_random random;
    uint64_t odds; /* one call in so many fails; 0 = none */
};

static struct vex_io_decision decide_by_chance(void *context, enum vex_io_call call, uint64_t nth,
                                               size_t bytes)
{
    (void)call;
    (void)nth;
    struct chance *chance = context;
    if (chance->odds == 0 || !vex_random_once_in(&chance->random, chance->odds)) {
        return VEX_IO_PASS;
    }
    const int errors[] = {EIO, ENOSPC, EIO};
    size_t some = vex_random_once_in(&chance->random, 2)
                      ? 0
                      : (size_t)vex_random_below(&chance->random, bytes + 1);
    return (struct vex_io_decision){errors[vex_random_below(&chance->random, COUNT_OF(errors))],
                                    some};
}

struct life {
    uint64_t file; /* the checkpoint's start */
    uint64_t lsn;
    uint64_t acknowledged;
    uint64_t submitted;
};

static void live(struct vex_log *log, struct vex_random *random, struct life *life)
{
    for (uint64_t steps = vex_random_below(random, 40); steps > 0; steps--) {
        switch (vex_random_below(random, 8)) {
        case 0:
            life->file = vex_log_file_number(log);
            life->lsn = vex_log_durable_lsn(log);
            vex_log_trim(log, life->file, vex_random_below(random, 3) != 0);
            break;
        case 1:
            (void)vex_log_rotate(log);
            break;
        case 2:
            if (vex_log_watermark(log, vex_random_once_in(random, 2))) {
                (void)vex_log_poll(log, true);
            }
            break;
        default:
            for (uint64_t records = vex_random_below(random, 4); records > 0; records--) {
                size_t bytes = 8 * vex_random_below(random, 2000);
                if (vex_log_room(log, bytes, vex_random_once_in(random, 3), NULL) == VEX_OK) {
                    stage(log, bytes);
                }
            }
            if (vex_log_commit(log)) {
                life->submitted = vex_log_submitted_lsn(log);
                (void)vex_log_poll(log, true);
            }
        }
        life->acknowledged = vex_log_durable_lsn(log);
    }
}

static void long_lives_with_trimming_and_failures_lose_nothing(void **state)
{
    (void)state;
    for (uint64_t round = 0; round < 150; round++) {
        struct vex_io *memory = vex_io_memory_open();
        struct chance chance = {vex_random_seeded(seed + round), 0};
        struct vex_random random = vex_random_seeded(seed + 1000 + round);
        struct life life = {0};
        for (int session = 0; session < 10; session++) {
            struct vex_io *io = vex_io_fault_open(memory, decide_by_chance, &chance);
            chance.odds = session == 0 ? 0 : 20 + 40 * (round % 5);
            struct vex_log_options options = starting_at(life.file, life.lsn);
            struct vex_log *log = NULL;
            enum vex_status status = try_open(io, &options, &log, NULL, NULL);
            if (status == VEX_ERR_CORRUPT) {
                fail_msg("life %llu, session %d: damage", (unsigned long long)round, session);
            }
            if (status != VEX_OK) {
                /* A recovery that failed is repeated. */
                chance.odds = 0;
                log = open_log(io, &options, NULL);
            }
            assert_in_range(vex_log_durable_lsn(log), life.acknowledged, life.submitted);
            life.acknowledged = life.submitted = vex_log_durable_lsn(log);
            life.file = life.file ? life.file : 1;
            live(log, &random, &life);
            vex_log_close(log);
            vex_io_close(io);
        }
        struct vex_log_options options = starting_at(life.file, life.lsn);
        assert_in_range(recovered(memory, &options, NULL), life.acknowledged, life.submitted);
        vex_io_close(memory);
    }
}

int main(void)
{
    seed = vex_random_announce("test_ioengine_log_files");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_log_made_behind_a_checkpoint_continues_its_numbers),
        cmocka_unit_test(a_log_that_does_not_reach_the_checkpoint_is_damaged),
        cmocka_unit_test(a_torn_batch_below_the_checkpoint_is_damage),
        cmocka_unit_test(files_before_the_start_are_removed_whatever_they_are),
        cmocka_unit_test(what_a_crash_left_of_the_first_file_is_made_again),
        cmocka_unit_test(a_file_of_another_version_is_not_called_damaged),
        cmocka_unit_test(a_file_with_a_successor_ends_with_a_mark),
        cmocka_unit_test(the_loss_of_the_newest_files_is_noticed),
        cmocka_unit_test(a_switch_interrupted_before_or_in_its_mark_is_finished),
        cmocka_unit_test(an_end_mark_that_is_missing_before_records_is_damage),
        cmocka_unit_test(a_batch_in_the_block_of_the_end_mark_is_not_taken),
        cmocka_unit_test(records_behind_a_damaged_watermark_are_not_dropped),
        cmocka_unit_test(a_copy_of_a_batch_inside_a_record_proves_nothing),
        cmocka_unit_test(trimming_removes_what_is_below_and_never_the_current_file),
        cmocka_unit_test(a_trimmed_file_is_used_again_and_its_old_batches_are_nothing),
        cmocka_unit_test(a_trimmed_file_is_kept_only_once_the_directory_is_synced),
        cmocka_unit_test(recovery_erases_the_one_block_at_the_end_of_a_recycled_file),
        cmocka_unit_test(a_batch_of_another_nonce_is_never_taken_for_the_next_one),
        cmocka_unit_test(a_dropped_batch_does_not_come_back_through_a_later_torn_one),
        cmocka_unit_test(a_flipped_bit_anywhere_loses_nothing_silently),
        cmocka_unit_test(the_batch_after_a_rotation_is_in_a_new_file),
        cmocka_unit_test(rotating_and_trimming_leaves_no_old_bytes),
        cmocka_unit_test(a_full_disk_keeps_what_is_left_for_writes_that_give_space_back),
        cmocka_unit_test(
            inserts_are_refused_before_the_last_blocks_once_the_disk_is_known_to_be_full),
        cmocka_unit_test(a_disk_with_little_room_gets_smaller_files),
        cmocka_unit_test(the_helper_thread_exists_only_once_a_file_is_prepared_ahead),
        cmocka_unit_test(running_out_of_descriptors_at_a_switch_does_not_latch),
        cmocka_unit_test(trimming_from_another_thread_disturbs_nothing),
        cmocka_unit_test(long_lives_with_trimming_and_failures_lose_nothing),
    };
    return cmocka_run_group_tests(tests, make_buffers, free_buffers);
}
