/*
 * Looking at a log and cutting it: the scan says what opening would, in more words, and changes nothing;
 * the repair keeps what is sound before the first damage, counts what goes, and leaves a log that opens.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "ioengine/log_scan.h"
#include "tests/lib/io_fault.h"
#include "tests/lib/io_memory.h"
#include "tests/lib/random.h"
#include "tests/unit/log_steps.h"

static uint64_t seed;
/* Header, four batches of one block, end mark. */
static const struct vex_log_options files_of_four = {uuid, 6 * BLOCK, 6 * BLOCK, {1, 0, 0}};

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

static void append_batches(struct vex_log *log, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        append_batch(log, 1, 1);
    }
}

/* Records 1 to 18 in five files: 4, 4, 4, 4, 2; then a watermark. */
#define RECORDS 18u
#define FILES 5u
static struct vex_io *make_log(void)
{
    struct vex_io *io = vex_io_memory_open();
    struct vex_log_options options = files_of_four;
    options.start.file_number = 0;
    struct vex_log *log = open_log(io, &options, NULL);
    append_batches(log, RECORDS);
    assert_int_equal(vex_log_file_number(log), FILES);
    assert_true(vex_log_watermark(log, false));
    finish(log);
    vex_log_close(log);
    return io;
}

/* ---- scanning -------------------------------------------------------------------------------- */

struct seen {
    uint64_t files;
    uint64_t batches;
    uint64_t end_marks;
    uint64_t watermarks;
    uint64_t stop_at_lsn;
    uint64_t offset; /* of the next batch */
    struct vex_log_file file;
    struct replayed replayed;
};

static enum vex_status see_file(void *context, const struct vex_log_file *file,
                                struct vex_error *error)
{
    (void)error;
    struct seen *seen = context;
    assert_int_equal(file->number, seen->file.number + 1);
    assert_int_equal(file->first_lsn, seen->replayed.count + 1);
    seen->file = *file;
    seen->files++;
    seen->offset = BLOCK;
    return VEX_OK;
}

static enum vex_status see_batch(void *context, const struct vex_log_batch *batch,
                                 struct vex_error *error)
{
    (void)error;
    struct seen *seen = context;
    assert_int_equal(batch->file_number, seen->file.number);
    assert_int_equal(batch->offset, seen->offset);
    assert_int_equal(batch->first_lsn, seen->replayed.count + 1);
    seen->offset += batch->bytes;
    seen->batches++;
    seen->end_marks += batch->flags == VEX_BATCH_END;
    seen->watermarks += batch->flags == VEX_BATCH_WATERMARK;
    return VEX_OK;
}

static enum vex_status see_record(void *context, uint64_t lsn, uint16_t type, const uint8_t *body,
                                  size_t bytes, struct vex_error *error)
{
    struct seen *seen = context;
    seen->replayed.fail_at = seen->stop_at_lsn;
    return replay(&seen->replayed, lsn, type, body, bytes, error);
}

static enum vex_status scan(struct vex_io *io, const struct vex_log_start *start, struct seen *seen,
                            struct vex_log_scan_result *result, struct vex_error *error)
{
    struct vex_log_visitor visitor = {seen, see_file, see_batch, see_record};
    struct vex_io *before = vex_io_memory_clone(io);
    enum vex_status status = vex_log_scan(io, uuid, start, &visitor, result, error);
    assert_true(vex_io_memory_equals(io, before));
    assert_null(seen->replayed.fault);
    vex_io_close(before);
    return status;
}

static void a_scan_passes_everything_in_order(void **state)
{
    (void)state;
    struct vex_io *io = make_log();
    struct seen seen = {0};
    struct vex_log_scan_result result;
    /* Records that the checkpoint holds are shown as well. */
    assert_int_equal(scan(io, &(struct vex_log_start){1, 10, 0}, &seen, &result, NULL), VEX_OK);
    assert_int_equal(result.end, VEX_LOG_END_WHOLE);
    assert_int_equal(result.file_number, FILES);
    assert_int_equal(result.offset, 4 * BLOCK);
    assert_int_equal(result.last_lsn, RECORDS);
    assert_int_equal(result.files, FILES);
    assert_int_equal(result.records, RECORDS);
    assert_int_equal(result.batches, RECORDS + FILES);
    assert_false(result.clean);
    assert_int_equal(seen.files, FILES);
    assert_int_equal(seen.batches, RECORDS + FILES);
    assert_int_equal(seen.end_marks, FILES - 1);
    assert_int_equal(seen.watermarks, 1);
    assert_int_equal(seen.replayed.count, RECORDS);
    /* From a later file on. */
    seen = (struct seen){.file.number = 2, .replayed.count = 8};
    assert_int_equal(scan(io, &(struct vex_log_start){3, 8, 0}, &seen, &result, NULL), VEX_OK);
    assert_int_equal(result.records, RECORDS - 8);
    vex_io_close(io);
}

static void a_scan_without_visitors_only_judges(void **state)
{
    (void)state;
    struct vex_io *io = make_log();
    struct vex_log_scan_result result;
    const struct vex_log_start start = {1, 0, 0};
    assert_int_equal(vex_log_scan(io, uuid, &start, NULL, &result, NULL), VEX_OK);
    assert_int_equal(result.records, RECORDS);
    vex_io_close(io);
    /* No log yet. */
    io = vex_io_memory_open();
    assert_int_equal(vex_log_scan(io, uuid, &(struct vex_log_start){0, 5, 0}, NULL, &result, NULL),
                     VEX_OK);
    assert_int_equal(result.file_number, 0);
    assert_int_equal(result.last_lsn, 5);
    vex_io_close(io);
}

static void a_visitor_can_end_the_scan(void **state)
{
    (void)state;
    struct vex_io *io = make_log();
    struct seen seen = {.stop_at_lsn = 7};
    struct vex_log_scan_result result;
    struct vex_error error = {.status = VEX_OK};
    assert_int_equal(scan(io, &(struct vex_log_start){1, 0, 0}, &seen, &result, &error),
                     VEX_ERR_NOMEM);
    assert_non_null(strstr(error.message, "LSN 7"));
    assert_int_equal(result.last_lsn, 6);
    vex_io_close(io);
}

static void a_scan_tells_torn_from_damaged_and_where(void **state)
{
    (void)state;
    struct vex_io *io = make_log();
    const struct vex_log_start start = {1, 0, 0};
    size_t bytes;
    struct vex_log_scan_result result;
    struct vex_error error = {.status = VEX_OK};
    uint8_t *data = bytes_of(io, FILES, &bytes);
    data[3 * BLOCK + 1000] ^= 1; /* the watermark */
    struct seen seen = {0};
    assert_int_equal(scan(io, &start, &seen, &result, NULL), VEX_OK);
    assert_int_equal(result.end, VEX_LOG_END_TORN);
    assert_int_equal(result.offset, 3 * BLOCK);
    bytes_of(io, 3, &bytes)[2 * BLOCK + 1000] ^= 1;
    seen = (struct seen){0};
    assert_int_equal(scan(io, &start, &seen, &result, &error), VEX_ERR_CORRUPT);
    assert_int_equal(result.end, VEX_LOG_END_DAMAGE);
    assert_int_equal(result.file_number, 3);
    assert_int_equal(result.offset, 2 * BLOCK);
    assert_int_equal(result.last_lsn, 9);
    assert_string_equal(error.message, "log/00000003.log: offset 8192, at LSN 10: batch checksum "
                                       "does not match");
    assert_int_equal(seen.replayed.count, 9);
    vex_io_close(io);
}

/* ---- repairing ------------------------------------------------------------------------------- */

static struct vex_log_repair_report repaired(struct vex_io *io, const struct vex_log_start *start)
{
    struct vex_log_repair_report report;
    struct vex_error error = {.status = VEX_OK};
    enum vex_status status = vex_log_repair(io, uuid, start, &report, &error);
    if (status != VEX_OK) {
        fail_msg("%s: %s", vex_base_status_name(status), error.message);
    }
    struct vex_io *before = vex_io_memory_clone(io);
    struct vex_log_repair_report again;
    assert_int_equal(vex_log_repair(io, uuid, start, &again, NULL), VEX_OK);
    assert_false(again.changed);
    assert_int_equal(again.last_lsn, report.last_lsn);
    assert_int_equal(again.lost_lsns, 0);
    assert_true(vex_io_memory_equals(io, before));
    vex_io_close(before);
    return report;
}

/* It opens, holds what it should, and takes records that are there after the next start. */
static void check_goes_on(struct vex_io *io, const struct vex_log_start *start, uint64_t last)
{
    struct vex_log_options options = files_of_four;
    options.start = *start;
    struct vex_log *log = open_log(io, &options, NULL);
    assert_int_equal(vex_log_durable_lsn(log), last);
    append_batches(log, 7);
    vex_log_close(log);
    assert_int_equal(recovered(io, &options, NULL), last + 7);
}

static void a_sound_log_needs_no_repair(void **state)
{
    (void)state;
    struct vex_io *io = make_log();
    struct vex_io *before = vex_io_memory_clone(io);
    struct vex_log_repair_report report = repaired(io, &(struct vex_log_start){1, 0, 0});
    assert_false(report.changed);
    assert_int_equal(report.last_lsn, RECORDS);
    assert_int_equal(report.lost_lsns, 0);
    assert_false(report.more_possible);
    assert_true(vex_io_memory_equals(io, before));
    vex_io_close(before);
    vex_io_close(io);
}

static void a_log_is_cut_at_the_first_damaged_batch(void **state)
{
    (void)state;
    struct vex_io *io = make_log();
    const struct vex_log_start start = {1, 0, 0};
    for (uint64_t lsn = 1; lsn <= RECORDS; lsn++) {
        struct vex_io *copy = vex_io_memory_clone(io);
        uint64_t number = 1 + (lsn - 1) / 4;
        size_t bytes;
        bytes_of(copy, number, &bytes)[(1 + (lsn - 1) % 4) * BLOCK + 99] ^= 1;
        struct vex_log_repair_report report = repaired(copy, &start);
        assert_true(report.changed);
        assert_int_equal(report.damage.status, VEX_ERR_CORRUPT);
        assert_non_null(strstr(report.damage.message, path_of(number)));
        assert_int_equal(report.last_lsn, lsn - 1);
        assert_int_equal(report.lost_lsns, RECORDS - (lsn - 1));
        assert_false(report.more_possible);
        assert_int_equal(report.files_removed, FILES - number);
        check_goes_on(copy, &start, lsn - 1);
        vex_io_close(copy);
    }
    vex_io_close(io);
}

static void a_damaged_end_mark_costs_nothing(void **state)
{
    (void)state;
    struct vex_io *io = make_log();
    const struct vex_log_start start = {1, 0, 0};
    struct vex_io *copy = vex_io_memory_clone(io);
    size_t bytes;
    for (uint64_t number = 1; number < FILES; number++) {
        memset(bytes_of(copy, number, &bytes) + 5 * BLOCK, (int)number - 1, BLOCK);
    }
    struct vex_log_repair_report report = repaired(copy, &start);
    assert_true(report.changed);
    assert_int_equal(report.last_lsn, RECORDS);
    assert_int_equal(report.lost_lsns, 0);
    assert_false(report.more_possible);
    assert_true(vex_io_memory_equals(copy, io));
    vex_io_close(copy);
    vex_io_close(io);
}

static void a_missing_file_ends_the_log_before_it(void **state)
{
    (void)state;
    struct vex_io *io = make_log();
    const struct vex_log_start start = {1, 0, 0};
    for (uint64_t number = 1; number <= FILES; number++) {
        struct vex_io *copy = vex_io_memory_clone(io);
        assert_true(vex_io_memory_drop(copy, path_of(number)));
        struct vex_log_repair_report report = repaired(copy, &start);
        assert_true(report.changed && report.more_possible);
        assert_int_equal(report.last_lsn, 4 * (number - 1));
        assert_int_equal(report.files_removed, FILES - number);
        /* Of the last file nothing else tells. */
        assert_int_equal(report.lost_lsns, number == FILES ? 0 : RECORDS - 4 * (number - 1));
        check_goes_on(copy, &start, report.last_lsn);
        vex_io_close(copy);
    }
    vex_io_close(io);
}

static void a_damaged_header_ends_the_log_before_it(void **state)
{
    (void)state;
    struct vex_io *io = make_log();
    const struct vex_log_start start = {1, 0, 0};
    for (uint64_t number = 1; number <= FILES; number++) {
        struct vex_io *copy = vex_io_memory_clone(io);
        size_t bytes;
        bytes_of(copy, number, &bytes)[50] ^= 1;
        struct vex_log_repair_report report = repaired(copy, &start);
        assert_true(report.changed && report.more_possible);
        assert_int_equal(report.last_lsn, 4 * (number - 1));
        check_goes_on(copy, &start, report.last_lsn);
        vex_io_close(copy);
    }
    vex_io_close(io);
}

static void a_file_that_was_cut_keeps_what_it_still_holds(void **state)
{
    (void)state;
    struct vex_io *io = make_log();
    const struct vex_log_start start = {1, 0, 0};
    for (uint64_t number = 1; number <= FILES; number++) {
        for (size_t length = 0; length < 6 * BLOCK; length += 1000) {
            struct vex_io *copy = vex_io_memory_clone(io);
            size_t bytes;
            const uint8_t *data = bytes_of(io, number, &bytes);
            vex_io_memory_put(copy, path_of(number), data, length);
            struct vex_log_repair_report report = repaired(copy, &start);
            assert_true(report.changed && report.more_possible);
            uint64_t whole = length / BLOCK == 0 ? 0 : length / BLOCK - 1;
            uint64_t held = number == FILES ? 2 : 4;
            uint64_t kept = 4 * (number - 1) + (whole < held ? whole : held);
            if (whole >= held) {
                kept = RECORDS; /* only the end mark, or nothing, was cut away */
            }
            assert_int_equal(report.last_lsn, kept);
            check_goes_on(copy, &start, kept);
            vex_io_close(copy);
        }
    }
    vex_io_close(io);
}

/* New records must have numbers that the checkpoint does not hold. */
static void a_log_cut_below_the_checkpoint_begins_anew_behind_it(void **state)
{
    (void)state;
    struct vex_io *io = make_log();
    for (uint64_t lsn = 9; lsn <= RECORDS; lsn++) {
        struct vex_io *copy = vex_io_memory_clone(io);
        const struct vex_log_start start = {3, lsn, 0};
        size_t bytes;
        bytes_of(copy, 3, &bytes)[BLOCK + 1] ^= 1; /* LSN 9 */
        struct vex_log_repair_report report = repaired(copy, &start);
        assert_true(report.changed);
        assert_int_equal(report.last_lsn, lsn);
        assert_int_equal(report.lost_lsns, RECORDS - lsn);
        assert_false(report.more_possible);
        check_goes_on(copy, &start, lsn);
        vex_io_close(copy);
    }
    const struct vex_log_start beyond = {2, 100, 0};
    struct vex_log_repair_report report = repaired(io, &beyond);
    assert_true(report.changed && report.more_possible);
    assert_int_equal(report.last_lsn, 100);
    check_goes_on(io, &beyond, 100);
    vex_io_close(io);
}

static void the_log_of_another_instance_or_version_is_not_repaired(void **state)
{
    (void)state;
    for (unsigned what = 0; what < 3; what++) {
        struct vex_io *io = make_log();
        size_t bytes;
        uint8_t *data = bytes_of(io, 2, &bytes);
        struct vex_log_header header;
        memcpy(&header, data, sizeof(header));
        header.version += what == 0;
        header.uuid[3] ^= what == 1;
        vex_log_header_seal(&header);
        memcpy(data, &header, sizeof(header));
        struct vex_io *before = vex_io_memory_clone(io);
        struct vex_log_repair_report report;
        struct vex_error error = {.status = VEX_OK};
        const struct vex_log_start start = {what == 2 ? 0 : 1, 0, 0};
        enum vex_status status = vex_log_repair(io, uuid, &start, &report, &error);
        assert_int_equal(status, what == 0 ? VEX_ERR_VERSION : VEX_ERR_CORRUPT);
        assert_int_equal(error.status, status);
        assert_true(vex_io_memory_equals(io, before));
        vex_io_close(before);
        vex_io_close(io);
    }
}

static void damage_log(struct vex_io *io, struct vex_random *random)
{
    for (uint64_t i = 1 + vex_random_below(random, 3); i > 0; i--) {
        uint64_t number = 1 + vex_random_below(random, FILES);
        size_t bytes = 0;
        uint8_t *data = vex_io_memory_bytes(io, path_of(number), &bytes);
        if (!data || bytes == 0) {
            continue;
        }
        switch (vex_random_below(random, 8)) {
        case 0:
            (void)vex_io_memory_drop(io, path_of(number));
            break;
        case 1: {
            uint8_t *copy = malloc(bytes);
            memcpy(copy, data, bytes);
            vex_io_memory_put(io, path_of(number), copy, vex_random_below(random, bytes));
            free(copy);
            break;
        }
        case 2: {
            size_t at = vex_random_below(random, bytes / BLOCK + 1) * BLOCK;
            memset(data + (at < bytes ? at : 0), 0, bytes - at < BLOCK ? bytes - at : BLOCK);
            break;
        }
        default:
            data[vex_random_below(random, bytes)] ^= (uint8_t)(1u << vex_random_below(random, 8));
        }
    }
}

/* Whatever happened to it: the scan and opening agree, and the repair keeps what the scan found. */
static void any_damage_is_repaired(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed);
    struct vex_io *sound = make_log();
    unsigned damaged = 0;
    for (unsigned round = 0; round < 600; round++) {
        struct vex_io *io = vex_io_memory_clone(sound);
        damage_log(io, &random);
        const struct vex_log_start start = {1, vex_random_below(&random, RECORDS), 0};
        struct seen seen = {0};
        struct vex_log_scan_result result;
        enum vex_status verdict = scan(io, &start, &seen, &result, NULL);
        struct vex_io *copy = vex_io_memory_clone(io);
        struct vex_log_options options = files_of_four;
        options.start = start;
        struct vex_log *log = NULL;
        enum vex_status status = try_open(copy, &options, &log, NULL, NULL);
        assert_int_equal(status, verdict);
        if (log) {
            assert_int_equal(vex_log_durable_lsn(log), result.last_lsn);
        }
        vex_log_close(log);
        vex_io_close(copy);
        struct vex_log_repair_report report = repaired(io, &start);
        assert_int_equal(report.changed, verdict != VEX_OK);
        damaged += report.changed;
        assert_true(report.last_lsn >= start.lsn && report.last_lsn <= RECORDS);
        assert_true(report.last_lsn >= result.last_lsn);
        assert_true(report.last_lsn + report.lost_lsns <= RECORDS);
        check_goes_on(io, &start, report.last_lsn);
        vex_io_close(io);
    }
    assert_true(damaged > 300);
    vex_io_close(sound);
}

/* Each call fails once; after that the repair is run again, and ends where an undisturbed one ends. */
static void an_interrupted_repair_is_finished_by_the_next_one(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed + 1);
    struct vex_io *sound = make_log();
    unsigned interrupted = 0;
    for (unsigned round = 0; round < 8; round++) {
        struct vex_io *damaged = vex_io_memory_clone(sound);
        damage_log(damaged, &random);
        const struct vex_log_start start = {1, round % 3 == 0 ? vex_random_below(&random, 12) : 0,
                                            0};
        struct vex_io *undisturbed = vex_io_memory_clone(damaged);
        uint64_t kept = repaired(undisturbed, &start).last_lsn;
        vex_io_close(undisturbed);
        for (int call = 0; call < VEX_IO_CALLS_COUNT; call++) {
            bool happened = true;
            for (uint64_t nth = 1; happened; nth++) {
                struct vex_io *io = vex_io_memory_clone(damaged);
                struct vex_io_fault_plan plan = {
                    (enum vex_io_call)call, nth, nth % 2, {EIO, nth % 3 ? 0 : BLOCK}, false};
                struct vex_io *fault = vex_io_fault_open(io, vex_io_fault_planned, &plan);
                struct vex_log_repair_report report;
                (void)vex_log_repair(fault, uuid, &start, &report, NULL);
                happened = plan.happened;
                interrupted += happened;
                vex_io_close(fault);
                uint64_t last = repaired(io, &start).last_lsn;
                /* A file that could not be read counts for nothing, but is not cut away for it. */
                assert_int_equal(last, kept);
                vex_io_close(io);
            }
        }
        vex_io_close(damaged);
    }
    assert_true(interrupted > 100);
    vex_io_close(sound);
}

int main(void)
{
    seed = vex_random_announce("test_ioengine_log_repair");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_scan_passes_everything_in_order),
        cmocka_unit_test(a_scan_without_visitors_only_judges),
        cmocka_unit_test(a_visitor_can_end_the_scan),
        cmocka_unit_test(a_scan_tells_torn_from_damaged_and_where),
        cmocka_unit_test(a_sound_log_needs_no_repair),
        cmocka_unit_test(a_log_is_cut_at_the_first_damaged_batch),
        cmocka_unit_test(a_damaged_end_mark_costs_nothing),
        cmocka_unit_test(a_missing_file_ends_the_log_before_it),
        cmocka_unit_test(a_damaged_header_ends_the_log_before_it),
        cmocka_unit_test(a_file_that_was_cut_keeps_what_it_still_holds),
        cmocka_unit_test(a_log_cut_below_the_checkpoint_begins_anew_behind_it),
        cmocka_unit_test(the_log_of_another_instance_or_version_is_not_repaired),
        cmocka_unit_test(any_damage_is_repaired),
        cmocka_unit_test(an_interrupted_repair_is_finished_by_the_next_one),
    };
    return cmocka_run_group_tests(tests, make_buffers, free_buffers);
}
