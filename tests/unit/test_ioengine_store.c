/*
 * The store, on a disk in memory that can be damaged by hand, behind one whose calls fail on demand, and on
 * a real one for backups.
 *
 * The state that is kept here is a number: the LSN of the last record. Each record's body follows from its
 * LSN, each segment file's image from its number, and a checkpoint's body names its LSN and its segments; so
 * recovery can be checked to the byte without a list of what was done. One sentence holds everywhere: after
 * whatever happened, a start finds every record that was acknowledged, and begins at a checkpoint that was
 * made.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/error.h"
#include "ioengine/checkpoint.h"
#include "ioengine/log_scan.h"
#include "ioengine/manifest.h"
#include "ioengine/store.h"
#include "tests/lib/io_fault.h"
#include "tests/lib/io_memory.h"
#include "tests/lib/random.h"
#include "tests/lib/temp_dir.h"

#define COUNT_OF(array) (sizeof(array) / sizeof(*(array)))
#define BLOCK ((uint64_t)VEX_BLOCK_BYTES)
#define BODY_MAGIC 0x626f6479u
#define NAMED_MAX 8u
#define IMAGE_BYTES (4 * BLOCK)

static uint64_t seed;
static struct vex_io_buffer buffers[VEX_LOG_BUFFERS];
static const struct vex_store_options small = {64 * BLOCK, 64 * BLOCK, 0};
static const struct vex_store_options tiny_files = {8 * BLOCK, 8 * BLOCK, 0};
static const struct vex_store_options with_reserve = {64 * BLOCK, 64 * BLOCK, 16 * BLOCK};

/* ---- the state that is kept ------------------------------------------------------------------- */

struct body {
    uint64_t magic;
    uint64_t lsn;
    uint64_t count;
    uint64_t numbers[NAMED_MAX];
    uint64_t filler[900]; /* so that the file has more than one block */
};

struct app {
    uint64_t last_lsn;
    uint64_t restored_lsn;
    unsigned restores;
    enum vex_status refuse[2]; /* what the first calls of restore return */
    const char *fault;
};

static struct vex_segment_file segment_of(uint64_t number)
{
    return (struct vex_segment_file){
        number, (uint32_t)(number % 5), IMAGE_BYTES, 2, {{0, BLOCK}, {2 * BLOCK, BLOCK}}};
}

static void fill_image(uint8_t *image, uint64_t number)
{
    struct vex_random random = vex_random_seeded(seed + number);
    memset(image, 0, IMAGE_BYTES);
    vex_random_fill(&random, image, BLOCK);
    vex_random_fill(&random, image + 2 * BLOCK, BLOCK);
}

static uint8_t *new_image(void)
{
    void *image = NULL;
    assert_int_equal(posix_memalign(&image, VEX_BLOCK_BYTES, IMAGE_BYTES), 0);
    memset(image, 0, IMAGE_BYTES);
    return image;
}

static enum vex_status load_segments(struct app *app, struct vex_store *store,
                                     const struct body *body, struct vex_error *error)
{
    struct vex_segment_load loads[NAMED_MAX];
    uint8_t *expected = new_image();
    for (size_t i = 0; i < body->count; i++) {
        loads[i] = (struct vex_segment_load){.number = body->numbers[i],
                                             .tag = (uint32_t)(body->numbers[i] % 5),
                                             .memory = new_image(),
                                             .image_bytes = IMAGE_BYTES};
    }
    enum vex_status status = vex_segment_files_load(vex_store_io(store), vex_store_uuid(store),
                                                    loads, body->count, error);
    for (size_t i = 0; i < body->count; i++) {
        fill_image(expected, body->numbers[i]);
        if (status == VEX_OK && memcmp(expected, loads[i].memory, IMAGE_BYTES) != 0) {
            app->fault = "wrong image";
        }
        free(loads[i].memory);
    }
    free(expected);
    return status;
}

static enum vex_status restore(void *context, struct vex_store *store, uint64_t lsn,
                               const uint8_t *bytes, size_t bytes_count, struct vex_error *error)
{
    struct app *app = context;
    unsigned nth = app->restores++;
    if (nth < COUNT_OF(app->refuse) && app->refuse[nth] != VEX_OK) {
        return vex_error_set(error, app->refuse[nth], "refused by the test");
    }
    app->last_lsn = app->restored_lsn = lsn;
    if (!bytes) {
        app->fault = lsn ? "no body at an LSN" : app->fault;
        return VEX_OK;
    }
    struct body body;
    if (bytes_count != sizeof(body) || (uintptr_t)bytes % 8 != 0) {
        app->fault = "a body of another size, or not aligned";
        return VEX_OK;
    }
    memcpy(&body, bytes, sizeof(body));
    if (body.magic != BODY_MAGIC || body.lsn != lsn || body.count > NAMED_MAX) {
        app->fault = "another body";
        return VEX_OK;
    }
    return load_segments(app, store, &body, error);
}

static enum vex_status replay(void *context, uint64_t lsn, uint16_t type, const uint8_t *body,
                              size_t bytes, struct vex_error *error)
{
    (void)error;
    struct app *app = context;
    if (app->restores == 0) {
        app->fault = "replay before restore";
    }
    if (lsn != app->last_lsn + 1 || type != 7 || bytes != 8 ||
        vex_load_u64(body) != vex_mix64(lsn)) {
        app->fault = "a hole in the records";
    }
    app->last_lsn = lsn;
    return VEX_OK;
}

/* ---- an instance ------------------------------------------------------------------------------ */

struct instance {
    struct vex_io *io;
    struct vex_store *store;
    struct app app;
    struct vex_store_recovery recovery;
    uint64_t acknowledged;
    uint64_t named[NAMED_MAX]; /* of the newest checkpoint */
    size_t named_count;
};

static enum vex_status try_open(struct instance *instance, struct vex_io *io,
                                const struct vex_store_options *options, struct vex_error *error)
{
    instance->io = io;
    const struct vex_store_state state = {&instance->app, restore, replay};
    enum vex_status status =
        vex_store_open(io, buffers, options, &state, &instance->store, &instance->recovery, error);
    if (instance->app.fault) {
        fail_msg("recovery: %s", instance->app.fault);
    }
    assert_true((status == VEX_OK) == (instance->store != NULL));
    if (status == VEX_OK) {
        assert_int_equal(instance->recovery.checkpoint_lsn, instance->app.restored_lsn);
        assert_int_equal(instance->recovery.log.last_lsn, instance->app.last_lsn);
        assert_int_equal(vex_log_next_lsn(vex_store_log(instance->store)),
                         instance->app.last_lsn + 1);
        instance->acknowledged = instance->app.last_lsn;
    }
    return status;
}

static void open_with(struct instance *instance, struct vex_io *io,
                      const struct vex_store_options *options)
{
    *instance = (struct instance){0};
    struct vex_error error = {.status = VEX_OK};
    if (try_open(instance, io, options, &error) != VEX_OK) {
        fail_msg("%s: %s", vex_base_status_name(error.status), error.message);
    }
}

static void open_instance(struct instance *instance, struct vex_io *io)
{
    open_with(instance, io, &small);
}

static void close_instance(struct instance *instance)
{
    vex_store_close(instance->store);
    instance->store = NULL;
}

/* Durably, each in a batch of its own. */
static void append(struct instance *instance, unsigned count)
{
    struct vex_log *log = vex_store_log(instance->store);
    for (unsigned i = 0; i < count; i++) {
        uint64_t body = vex_mix64(vex_log_next_lsn(log));
        assert_int_equal(vex_log_room(log, sizeof(body), false, NULL), VEX_OK);
        (void)vex_log_stage(log, 7, &(struct vex_log_piece){&body, sizeof(body)}, 1);
        assert_true(vex_log_commit(log));
        assert_true(vex_log_poll(log, true));
        assert_int_equal(vex_log_failure(log), 0);
        instance->acknowledged++;
    }
    assert_int_equal(vex_log_durable_lsn(log), instance->acknowledged);
}

static enum vex_status write_segment(struct instance *instance, uint64_t *out_number,
                                     struct vex_error *error)
{
    uint64_t number = vex_store_new_segment_number(instance->store);
    struct vex_segment_file file = segment_of(number);
    uint8_t *image = new_image();
    fill_image(image, number);
    enum vex_status status = vex_store_write_segment(instance->store, &file, image, NULL, error);
    free(image);
    *out_number = number;
    return status;
}

static enum vex_status checkpoint(struct instance *instance, const uint64_t *numbers, size_t count,
                                  struct vex_error *error)
{
    struct vex_store_cut cut = vex_store_take_cut(instance->store);
    struct body body = {.magic = BODY_MAGIC, .lsn = cut.lsn, .count = count};
    for (size_t i = 0; i < count; i++) {
        body.numbers[i] = numbers[i];
    }
    enum vex_status status =
        vex_store_checkpoint(instance->store, &cut, numbers, count, &body, sizeof(body), error);
    if (status == VEX_OK) {
        memcpy(instance->named, body.numbers, sizeof(body.numbers));
        instance->named_count = count;
    }
    return status;
}

/* What the daemon does: two new segments, one of the old ones goes on, then what nothing needs is removed. */
static enum vex_status advance(struct instance *instance, struct vex_error *error)
{
    uint64_t numbers[3] = {0};
    size_t count = 0;
    if (instance->named_count > 0) {
        numbers[count++] = instance->named[instance->named_count - 1];
    }
    for (unsigned i = 0; i < 2; i++) {
        enum vex_status status = write_segment(instance, &numbers[count++], error);
        if (status != VEX_OK) {
            return status;
        }
    }
    enum vex_status status = checkpoint(instance, numbers, count, error);
    return status == VEX_OK ? vex_store_trim(instance->store, false, NULL, 0, error) : status;
}

static void must_advance(struct instance *instance, unsigned records)
{
    struct vex_error error = {.status = VEX_OK};
    append(instance, records);
    if (advance(instance, &error) != VEX_OK) {
        fail_msg("%s: %s", vex_base_status_name(error.status), error.message);
    }
}

static struct vex_store_counters counters_of(const struct instance *instance)
{
    struct vex_store_counters counters;
    vex_store_get_counters(instance->store, &counters);
    return counters;
}

/* ---- what is on the disk ---------------------------------------------------------------------- */

struct names {
    size_t count;
    char all[64][32];
};

static void note_name(void *context, const char *name)
{
    struct names *names = context;
    if (name[0] != '.') {
        assert_true(names->count < COUNT_OF(names->all));
        (void)snprintf(names->all[names->count++], sizeof(names->all[0]), "%.31s", name);
    }
}

static size_t files_in(struct vex_io *io, const char *directory)
{
    struct names names = {0};
    assert_int_equal(io->ops->list(io, directory, note_name, &names), 0);
    return names.count;
}

static bool is_there(struct vex_io *io, const char *path)
{
    size_t bytes;
    return vex_io_memory_bytes(io, path, &bytes) != NULL;
}

struct findings {
    size_t reports;
    size_t faults;
    char path[128]; /* of the first fault */
    char text[256];
};

static void note_finding(void *context, enum vex_status status, const char *path, const char *text)
{
    struct findings *findings = context;
    findings->reports++;
    assert_true(path[0] && text[0]);
    if (status != VEX_OK && findings->faults++ == 0) {
        (void)snprintf(findings->path, sizeof(findings->path), "%.127s", path);
        (void)snprintf(findings->text, sizeof(findings->text), "%.255s", text);
    }
}

static enum vex_status check(struct vex_io *io, struct findings *findings)
{
    *findings = (struct findings){0};
    struct vex_error error = {.status = VEX_OK};
    enum vex_status status = vex_store_check(io, note_finding, findings, &error);
    assert_true((status == VEX_OK) == (findings->faults == 0));
    assert_true(status == VEX_OK || (error.status == status && error.message[0]));
    return status;
}

static void assert_sound(struct vex_io *io)
{
    struct findings findings;
    if (check(io, &findings) != VEX_OK) {
        fail_msg("%s: %s", findings.path, findings.text);
    }
}

static void stop_in_order(struct instance *instance)
{
    struct vex_log *log = vex_store_log(instance->store);
    assert_true(vex_log_watermark(log, true));
    assert_true(vex_log_poll(log, true));
    close_instance(instance);
}

/* Two checkpoints (LSN 5 and 8), five segment files that they name, and records up to 10. */
static void make_sample(struct vex_io *io)
{
    struct instance instance;
    open_instance(&instance, io);
    must_advance(&instance, 2);
    must_advance(&instance, 3);
    must_advance(&instance, 3);
    append(&instance, 2);
    stop_in_order(&instance);
}

static struct vex_io *sample_disk(void)
{
    struct vex_io *io = vex_io_memory_open();
    make_sample(io);
    return io;
}

#define SAMPLE_LSN 10u
#define SAMPLE_NEWER "checkpoints/0000000000000003.ckpt"
#define SAMPLE_OLDER "checkpoints/0000000000000002.ckpt"

/* Starts, finds everything, goes on, and finds that as well. */
static void assert_goes_on(struct vex_io *io, uint64_t last_lsn)
{
    struct instance instance;
    open_instance(&instance, io);
    assert_int_equal(instance.app.last_lsn, last_lsn);
    must_advance(&instance, 1);
    must_advance(&instance, 1);
    close_instance(&instance);
    open_instance(&instance, io);
    assert_int_equal(instance.app.last_lsn, last_lsn + 2);
    assert_int_equal(instance.recovery.checkpoint_lsn, last_lsn + 2);
    assert_false(instance.recovery.fell_back);
    close_instance(&instance);
    assert_int_equal(files_in(io, "checkpoints"), 2);
    assert_sound(io);
}

/* ---- life ------------------------------------------------------------------------------------- */

static void a_new_instance_is_made_and_then_found(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    struct instance instance;
    uint8_t uuid[VEX_STORE_UUID_BYTES];
    open_instance(&instance, io);
    assert_int_equal(instance.app.restores, 1);
    assert_int_equal(instance.app.last_lsn, 0);
    assert_true(is_there(io, "MANIFEST") && is_there(io, "log/00000001.log"));
    assert_false(is_there(io, "RESERVE"));
    memcpy(uuid, vex_store_uuid(instance.store), sizeof(uuid));
    const struct vex_store_counters none = {0};
    struct vex_store_counters counters = counters_of(&instance);
    assert_memory_equal(&counters, &none, sizeof(none));
    append(&instance, 3);
    close_instance(&instance);
    open_instance(&instance, io);
    assert_int_equal(instance.app.last_lsn, 3);
    assert_memory_equal(vex_store_uuid(instance.store), uuid, sizeof(uuid));
    close_instance(&instance);
    assert_sound(io);
    vex_io_close(io);
}

static void a_start_begins_at_the_newest_checkpoint(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    struct instance instance;
    open_instance(&instance, io);
    for (unsigned round = 1; round <= 5; round++) {
        must_advance(&instance, 3);
        assert_int_equal(counters_of(&instance).checkpoint_lsn, instance.acknowledged);
        append(&instance, round);
        uint64_t acknowledged = instance.acknowledged;
        close_instance(&instance);
        open_instance(&instance, io);
        assert_int_equal(instance.app.restores, 1);
        assert_int_equal(instance.recovery.checkpoint_lsn, acknowledged - round);
        assert_int_equal(instance.app.last_lsn, acknowledged);
        assert_false(instance.recovery.fell_back);
        assert_int_equal(instance.recovery.removed_files, 0);
    }
    close_instance(&instance);
    assert_sound(io);
    vex_io_close(io);
}

static void the_log_goes_on_while_a_checkpoint_is_written(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    struct instance instance;
    open_instance(&instance, io);
    append(&instance, 4);
    struct vex_store_cut cut = vex_store_take_cut(instance.store);
    append(&instance, 4);
    struct body body = {.magic = BODY_MAGIC, .lsn = cut.lsn};
    assert_int_equal(vex_store_checkpoint(instance.store, &cut, NULL, 0, &body, sizeof(body), NULL),
                     VEX_OK);
    close_instance(&instance);
    open_instance(&instance, io);
    assert_int_equal(instance.recovery.checkpoint_lsn, 4);
    assert_int_equal(instance.app.last_lsn, 8);
    close_instance(&instance);
    vex_io_close(io);
}

static void a_checkpoint_that_goes_back_or_names_nothing_is_refused(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    struct instance instance;
    struct vex_error error;
    open_instance(&instance, io);
    must_advance(&instance, 4);
    struct vex_io *before = vex_io_memory_clone(io);
    struct vex_store_cut cut = vex_store_take_cut(instance.store);
    struct vex_store_cut old = cut;
    old.lsn--;
    assert_int_equal(vex_store_checkpoint(instance.store, &old, NULL, 0, "", 0, &error),
                     VEX_ERR_INVALID);
    old = cut;
    old.log_file = 0;
    assert_int_equal(vex_store_checkpoint(instance.store, &old, NULL, 0, "", 0, &error),
                     VEX_ERR_INVALID);
    const uint64_t numbers[] = {instance.named[0], 99};
    assert_int_equal(vex_store_checkpoint(instance.store, &cut, numbers, 2, "", 0, &error),
                     VEX_ERR_INVALID);
    assert_non_null(strstr(error.message, "segments/0000000000000063.seg"));
    assert_true(vex_io_memory_equals(io, before));
    /* Again at the same LSN is fine: a merge changes segments and no record. */
    assert_int_equal(checkpoint(&instance, instance.named, instance.named_count, &error), VEX_OK);
    close_instance(&instance);
    vex_io_close(before);
    vex_io_close(io);
}

static void bodies_of_all_sizes_come_back(void **state)
{
    (void)state;
    const size_t sizes[] = {0,
                            1,
                            8,
                            4016,
                            4017,
                            8112,
                            8113,
                            5000,
                            (1u << 20) - 80,
                            (1u << 20) - 72,
                            (2u << 20) + 4096 - 80};
    struct vex_random random = vex_random_seeded(seed + 3);
    const uint8_t uuid[16] = "an instance uuid";
    const uint64_t segments[3] = {3, 5, UINT64_MAX};
    struct vex_io *io = vex_io_memory_open();
    for (size_t i = 0; i < COUNT_OF(sizes) * 4; i++) {
        size_t body_bytes = sizes[i / 4];
        uint8_t *body = malloc(body_bytes ? body_bytes : 1);
        vex_random_fill(&random, body, body_bytes);
        const struct vex_checkpoint written = {i, 77 + i, 5, segments, i % 4, body, body_bytes};
        uint64_t bytes = 0;
        uint64_t hash = 0;
        assert_int_equal(vex_checkpoint_write(io, uuid, &written, &bytes, &hash, NULL), VEX_OK);
        struct vex_checkpoint_file file = {0};
        assert_int_equal(vex_checkpoint_read(io, uuid, i, &file, NULL), VEX_OK);
        assert_int_equal(file.bytes, bytes);
        assert_int_equal(file.hash, hash);
        assert_int_equal(file.checkpoint.lsn, written.lsn);
        assert_int_equal(file.checkpoint.log_file, 5);
        assert_int_equal(file.checkpoint.segments_count, i % 4);
        assert_memory_equal(file.checkpoint.segments, segments, i % 4 * 8);
        assert_int_equal(file.checkpoint.body_bytes, body_bytes);
        assert_memory_equal(file.checkpoint.body, body, body_bytes);
        vex_checkpoint_file_deinit(&file);
        char path[VEX_CHECKPOINT_PATH_BYTES];
        vex_checkpoint_path(path, i);
        assert_true(vex_io_memory_drop(io, path));
        free(body);
    }
    vex_io_close(io);
}

/* ---- trimming --------------------------------------------------------------------------------- */

static void what_no_kept_checkpoint_needs_is_removed(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    struct instance instance;
    open_instance(&instance, io);
    for (unsigned round = 0; round < 6; round++) {
        must_advance(&instance, 2);
        /* Three of the newest and, one of them shared, three of the one before. */
        size_t expected = round == 0 ? 2 : round == 1 ? 4 : 5;
        assert_int_equal(files_in(io, "segments"), expected);
        assert_int_equal(files_in(io, "checkpoints"), round == 0 ? 1 : 2);
        struct vex_store_counters counters = counters_of(&instance);
        assert_int_equal(counters.segments, expected);
        assert_int_equal(counters.segment_bytes, expected * 3 * BLOCK);
        assert_int_equal(counters.checkpoints, round + 1);
        assert_true(counters.written_bytes > 0);
    }
    close_instance(&instance);
    assert_sound(io);
    vex_io_close(io);
}

/* Numbers of the first and the last log file. */
static void find_log_files(struct vex_io *io, uint64_t *out_first, uint64_t *out_last)
{
    struct names names = {0};
    assert_int_equal(io->ops->list(io, "log", note_name, &names), 0);
    *out_first = UINT64_MAX;
    *out_last = 0;
    for (size_t i = 0; i < names.count; i++) {
        uint64_t number = strtoull(names.all[i], NULL, 10);
        if (number > 0) {
            *out_first = number < *out_first ? number : *out_first;
            *out_last = number > *out_last ? number : *out_last;
        }
    }
}

/* Of either checkpoint, that is: the older one must be good for a start at any time. */
static void log_files_go_when_no_kept_checkpoint_needs_them(void **state)
{
    (void)state;
    for (int recycle = 0; recycle < 2; recycle++) {
        struct vex_io *io = vex_io_memory_open();
        struct instance instance;
        uint64_t first;
        uint64_t last;
        for (uint64_t round = 1; round <= 6; round++) {
            open_with(&instance, io, &tiny_files);
            append(&instance, 20);
            assert_int_equal(advance(&instance, NULL), VEX_OK);
            assert_int_equal(vex_store_trim(instance.store, recycle, NULL, 0, NULL), VEX_OK);
            append(&instance, 9);
            uint64_t acknowledged = instance.acknowledged;
            close_instance(&instance); /* and with it the thread that makes log files ahead */
            struct vex_io *copy = vex_io_memory_clone(io);
            struct instance second;
            find_log_files(copy, &first, &last);
            assert_true(last > round);
            assert_true(round == 1 ? first == 1 : first > 1 && last - first < 12);
            char path[VEX_CHECKPOINT_PATH_BYTES];
            vex_checkpoint_path(path, round);
            assert_true(vex_io_memory_drop(copy, path));
            open_with(&second, copy, &tiny_files);
            assert_int_equal(second.recovery.checkpoint_lsn, round == 1 ? 0 : (round - 1) * 29 - 9);
            assert_int_equal(second.app.last_lsn, acknowledged);
            close_instance(&second);
            vex_io_close(copy);
        }
        assert_sound(io);
        assert_goes_on(io, 6 * 29);
        vex_io_close(io);
    }
}

static void segments_to_be_kept_stay(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    struct instance instance;
    open_instance(&instance, io);
    must_advance(&instance, 1);
    uint64_t early[3];
    for (size_t i = 0; i < COUNT_OF(early); i++) {
        assert_int_equal(write_segment(&instance, &early[i], NULL), VEX_OK);
    }
    const uint64_t keep[] = {early[2], early[0]}; /* in any order */
    assert_int_equal(vex_store_trim(instance.store, false, keep, 2, NULL), VEX_OK);
    assert_int_equal(files_in(io, "segments"), 2 + 2);
    assert_int_equal(checkpoint(&instance, keep, 2, NULL), VEX_OK);
    const uint64_t gone = early[1];
    assert_int_equal(checkpoint(&instance, &gone, 1, NULL), VEX_ERR_INVALID);
    close_instance(&instance);
    open_instance(&instance, io);
    close_instance(&instance);
    vex_io_close(io);
}

static void what_a_crash_left_is_removed(void **state)
{
    (void)state;
    struct vex_io *io = sample_disk();
    struct vex_io *before = vex_io_memory_clone(io);
    const char *const left[] = {
        "segments/00000000000000aa.seg",         "segments/00000000000000ab.seg.new",
        "checkpoints/00000000000000ac.ckpt",     "checkpoints/0000000000000001.ckpt",
        "checkpoints/00000000000000ad.ckpt.new",
    };
    for (size_t i = 0; i < COUNT_OF(left); i++) {
        vex_io_memory_put(io, left[i], "junk", 4);
    }
    assert_sound(io);
    struct instance instance;
    open_instance(&instance, io);
    assert_int_equal(instance.recovery.removed_files, COUNT_OF(left));
    /* Numbers that were seen are not given again. */
    assert_int_equal(vex_store_new_segment_number(instance.store), 0xab);
    assert_int_equal(vex_store_new_segment_number(instance.store), 0xac);
    close_instance(&instance);
    assert_true(vex_io_memory_equals(io, before));
    /* Other people's files stay. */
    vex_io_memory_put(io, "segments/notes.txt", "x", 1);
    vex_io_memory_put(io, "segments/1.seg", "x", 1);
    open_instance(&instance, io);
    assert_int_equal(instance.recovery.removed_files, 0);
    close_instance(&instance);
    assert_true(is_there(io, "segments/notes.txt") && is_there(io, "segments/1.seg"));
    vex_io_close(before);
    vex_io_close(io);
}

static void numbers_are_above_all_that_exist(void **state)
{
    (void)state;
    struct vex_io *io = sample_disk();
    struct instance instance;
    struct names names = {0};
    uint64_t highest = 0;
    assert_int_equal(io->ops->list(io, "segments", note_name, &names), 0);
    for (size_t i = 0; i < names.count; i++) {
        uint64_t number = strtoull(names.all[i], NULL, 16);
        highest = number > highest ? number : highest;
    }
    open_instance(&instance, io);
    for (uint64_t i = 1; i <= 3; i++) {
        assert_int_equal(vex_store_new_segment_number(instance.store), highest + i);
    }
    close_instance(&instance);
    /* One that is named, but lost, counts, too. */
    assert_true(vex_io_memory_drop(io, "segments/0000000000000006.seg"));
    open_instance(&instance, io);
    assert_true(instance.recovery.fell_back);
    assert_int_equal(vex_store_new_segment_number(instance.store), highest + 1);
    close_instance(&instance);
    vex_io_close(io);
}

/* ---- damage ----------------------------------------------------------------------------------- */

/* Starts from the older checkpoint, says why, removes nothing, and is healed by the next checkpoint. */
static void assert_falls_back(struct vex_io *io, const char *named_in_fault)
{
    struct vex_io *before = vex_io_memory_clone(io);
    struct instance instance;
    open_instance(&instance, io);
    assert_true(instance.recovery.fell_back);
    assert_int_equal(instance.recovery.checkpoint_lsn, 5);
    assert_int_equal(instance.app.last_lsn, SAMPLE_LSN);
    if (!strstr(instance.recovery.fault.message, named_in_fault)) {
        fail_msg("'%s' does not name %s", instance.recovery.fault.message, named_in_fault);
    }
    assert_int_equal(vex_store_trim(instance.store, false, NULL, 0, NULL), VEX_OK);
    assert_int_equal(instance.recovery.removed_files, 0);
    assert_true(vex_io_memory_equals(io, before));
    vex_io_close(before);
    close_instance(&instance);
    assert_goes_on(io, SAMPLE_LSN);
    vex_io_close(io);
}

static void a_damaged_checkpoint_is_passed_over(void **state)
{
    (void)state;
    struct vex_io *base = sample_disk();
    size_t bytes;
    assert_non_null(vex_io_memory_bytes(base, SAMPLE_NEWER, &bytes));
    for (size_t at = 0; at < bytes; at += 97) {
        struct vex_io *io = vex_io_memory_clone(base);
        vex_io_memory_bytes(io, SAMPLE_NEWER, &bytes)[at] ^= 1;
        assert_falls_back(io, SAMPLE_NEWER);
    }
    struct vex_io *io = vex_io_memory_clone(base);
    assert_true(vex_io_memory_drop(io, SAMPLE_NEWER));
    assert_falls_back(io, SAMPLE_NEWER);
    const size_t lengths[] = {0, 5, BLOCK - 1, BLOCK, bytes - 1};
    for (size_t i = 0; i < COUNT_OF(lengths); i++) {
        io = vex_io_memory_clone(base);
        uint8_t *copy = malloc(bytes);
        memcpy(copy, vex_io_memory_bytes(io, SAMPLE_NEWER, &bytes), bytes);
        vex_io_memory_put(io, SAMPLE_NEWER, copy, lengths[i]);
        assert_falls_back(io, SAMPLE_NEWER);
        free(copy);
    }
    vex_io_close(base);
}

/* Sound by itself, but not the one that was meant: a restored copy, or a misdirected write. Even of the same
 * size and LSN. */
static void another_checkpoint_under_its_name_is_passed_over(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        struct vex_io *io = sample_disk();
        struct vex_manifest manifest;
        struct vex_checkpoint_file file;
        uint64_t bytes;
        uint64_t hash;
        assert_int_equal(vex_manifest_open(io, &manifest, NULL), VEX_OK);
        assert_int_equal(vex_checkpoint_read(io, manifest.uuid, 3, &file, NULL), VEX_OK);
        struct vex_checkpoint other = file.checkpoint;
        uint8_t *body = malloc(other.body_bytes);
        memcpy(body, other.body, other.body_bytes);
        body[other.body_bytes - 1] ^= i == 0;
        other.body = body;
        other.lsn += i == 1;
        other.body_bytes -= i == 2 ? 8 : 0;
        assert_int_equal(vex_checkpoint_write(io, manifest.uuid, &other, &bytes, &hash, NULL),
                         VEX_OK);
        vex_checkpoint_file_deinit(&file);
        free(body);
        assert_falls_back(io, SAMPLE_NEWER);
    }
}

/* Segment 6 belongs to the newest checkpoint alone. */
static void a_damaged_or_missing_segment_is_passed_over_with_its_checkpoint(void **state)
{
    (void)state;
    const char path[] = "segments/0000000000000006.seg";
    struct vex_io *base = sample_disk();
    size_t bytes;
    for (size_t block = 0; block < 3; block++) {
        struct vex_io *io = vex_io_memory_clone(base);
        vex_io_memory_bytes(io, path, &bytes)[block * BLOCK + 9] ^= 8;
        assert_falls_back(io, path);
    }
    struct vex_io *io = vex_io_memory_clone(base);
    assert_true(vex_io_memory_drop(io, path));
    assert_falls_back(io, path);
    vex_io_close(base);
}

static void damage_to_both_checkpoints_is_refused(void **state)
{
    (void)state;
    struct vex_io *io = sample_disk();
    size_t bytes;
    vex_io_memory_bytes(io, SAMPLE_NEWER, &bytes)[100] ^= 1;
    vex_io_memory_bytes(io, SAMPLE_OLDER, &bytes)[100] ^= 1;
    struct vex_io *before = vex_io_memory_clone(io);
    struct instance instance = {0};
    struct vex_error error;
    assert_int_equal(try_open(&instance, io, &small, &error), VEX_ERR_CORRUPT);
    assert_non_null(strstr(error.message, SAMPLE_NEWER));
    assert_int_equal(instance.app.restores, 0);
    assert_true(vex_io_memory_equals(io, before));
    vex_io_close(before);
    vex_io_close(io);
}

/* A damaged older one is no reason to stop, but nothing is removed until it is replaced. Segment 3 is the
 * older one's alone. */
static void damage_to_the_older_checkpoint_is_survived(void **state)
{
    (void)state;
    for (int missing = 0; missing < 2; missing++) {
        struct vex_io *io = sample_disk();
        struct instance instance;
        size_t bytes;
        if (missing) {
            assert_true(vex_io_memory_drop(io, "segments/0000000000000003.seg"));
        } else {
            vex_io_memory_bytes(io, SAMPLE_OLDER, &bytes)[100] ^= 1;
        }
        vex_io_memory_put(io, "segments/0000000000000001.seg", "x", 1);
        struct vex_io *before = vex_io_memory_clone(io);
        open_instance(&instance, io);
        assert_false(instance.recovery.fell_back);
        assert_int_equal(instance.recovery.checkpoint_lsn, 8);
        assert_int_equal(vex_store_trim(instance.store, false, NULL, 0, NULL), VEX_OK);
        assert_true(vex_io_memory_equals(io, before));
        close_instance(&instance);
        assert_goes_on(io, SAMPLE_LSN);
        vex_io_close(before);
        vex_io_close(io);
    }
}

/* With one checkpoint the log still has everything, so it alone will do. */
static void the_only_checkpoint_can_be_done_without(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    struct instance instance;
    open_instance(&instance, io);
    must_advance(&instance, 4);
    append(&instance, 2);
    close_instance(&instance);
    size_t bytes;
    vex_io_memory_bytes(io, "checkpoints/0000000000000001.ckpt", &bytes)[100] ^= 1;
    open_instance(&instance, io);
    assert_true(instance.recovery.fell_back);
    assert_int_equal(instance.recovery.checkpoint_lsn, 0);
    assert_int_equal(instance.app.last_lsn, 6);
    close_instance(&instance);
    assert_goes_on(io, 6);
    vex_io_close(io);
}

static void what_the_caller_cannot_restore_is_passed_over(void **state)
{
    (void)state;
    const struct {
        enum vex_status first;
        enum vex_status second;
        enum vex_status expected;
        unsigned restores;
    } cases[] = {
        {VEX_ERR_CORRUPT, VEX_OK, VEX_OK, 2},
        {VEX_ERR_IO, VEX_OK, VEX_OK, 2},
        {VEX_ERR_CORRUPT, VEX_ERR_IO, VEX_ERR_CORRUPT, 2},
        {VEX_ERR_IO, VEX_ERR_CORRUPT, VEX_ERR_IO, 2},
        {VEX_ERR_NOMEM, VEX_OK, VEX_ERR_NOMEM, 1},
        {VEX_ERR_CORRUPT, VEX_ERR_NOMEM, VEX_ERR_NOMEM, 2},
        {VEX_ERR_NO_SPACE, VEX_OK, VEX_ERR_NO_SPACE, 1},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct vex_io *io = sample_disk();
        struct vex_error error = {.status = VEX_OK};
        struct instance instance = {.app.refuse = {cases[i].first, cases[i].second}};
        assert_int_equal(try_open(&instance, io, &small, &error), cases[i].expected);
        assert_int_equal(instance.app.restores, cases[i].restores);
        if (cases[i].expected == VEX_OK) {
            assert_true(instance.recovery.fell_back);
            assert_int_equal(instance.recovery.checkpoint_lsn, 5);
            assert_int_equal(instance.app.last_lsn, SAMPLE_LSN);
        } else {
            assert_non_null(strstr(error.message, "refused by the test"));
        }
        close_instance(&instance);
        vex_io_close(io);
    }
}

/* The manifest says that there was a log. */
static void a_log_that_is_gone_is_damage(void **state)
{
    (void)state;
    struct vex_io *io = sample_disk();
    struct instance instance = {0};
    struct vex_error error;
    assert_true(vex_io_memory_drop(io, "log/00000001.log"));
    struct vex_io *before = vex_io_memory_clone(io);
    assert_int_equal(try_open(&instance, io, &small, &error), VEX_ERR_CORRUPT);
    assert_true(vex_io_memory_equals(io, before));
    vex_io_close(before);
    vex_io_close(io);
}

/* For tools: as a start would find it. */
static void where_the_log_begins_is_told(void **state)
{
    (void)state;
    struct vex_io *io = sample_disk();
    struct vex_io *empty = vex_io_memory_open();
    uint8_t uuid[VEX_STORE_UUID_BYTES];
    struct vex_log_start start = {0};
    struct vex_log_scan_result result;
    struct vex_error error;
    const struct vex_log_visitor nobody = {0};
    size_t bytes;
    assert_int_equal(vex_store_read_log_start(empty, uuid, &start, &error), VEX_ERR_NOT_FOUND);
    struct vex_io *before = vex_io_memory_clone(io);
    assert_int_equal(vex_store_read_log_start(io, uuid, &start, NULL), VEX_OK);
    assert_int_equal(start.lsn, 8);
    assert_int_equal(vex_log_scan(io, uuid, &start, &nobody, &result, NULL), VEX_OK);
    assert_int_equal(result.last_lsn, SAMPLE_LSN);
    assert_true(vex_io_memory_equals(io, before));
    assert_true(vex_io_memory_drop(io, "segments/0000000000000006.seg"));
    assert_int_equal(vex_store_read_log_start(io, uuid, &start, NULL), VEX_OK);
    assert_int_equal(start.lsn, 5);
    assert_int_equal(vex_log_scan(io, uuid, &start, &nobody, &result, NULL), VEX_OK);
    assert_int_equal(result.last_lsn, SAMPLE_LSN);
    vex_io_memory_bytes(io, SAMPLE_OLDER, &bytes)[50] ^= 1;
    assert_int_equal(vex_store_read_log_start(io, uuid, &start, &error), VEX_ERR_CORRUPT);
    assert_non_null(strstr(error.message, "segments/0000000000000006.seg"));
    vex_io_close(before);
    vex_io_close(empty);
    vex_io_close(io);
}

/* Three checkpoints (LSN 20, 40, 60, the first one gone), records up to 80, several log files between them. */
static struct vex_io *disk_with_many_log_files(struct vex_manifest *out_manifest)
{
    struct vex_io *io = vex_io_memory_open();
    struct instance instance;
    open_with(&instance, io, &tiny_files);
    for (unsigned round = 0; round < 3; round++) {
        append(&instance, 20);
        assert_int_equal(advance(&instance, NULL), VEX_OK);
    }
    append(&instance, 20);
    close_instance(&instance);
    assert_int_equal(vex_manifest_open(io, out_manifest, NULL), VEX_OK);
    assert_true(out_manifest->checkpoints[0].log_file > out_manifest->log_file + 1);
    return io;
}

/* The first batch of a log file. */
static void damage_log_file(struct vex_io *io, uint64_t number, char *out_path, size_t path_bytes)
{
    size_t bytes;
    (void)snprintf(out_path, path_bytes, "log/%08llu.log", (unsigned long long)number);
    assert_non_null(vex_io_memory_bytes(io, out_path, &bytes));
    vex_io_memory_bytes(io, out_path, &bytes)[BLOCK + 70] ^= 1;
}

/* It is found by checking, but costs nothing: the newest checkpoint needs none of it, and a repair must not
 * take what is behind it. */
static void damage_to_the_log_before_the_newest_checkpoint_does_not_matter(void **state)
{
    (void)state;
    struct vex_manifest manifest;
    struct vex_io *base = disk_with_many_log_files(&manifest);
    struct instance instance;
    struct findings findings;
    char path[64];
    uint8_t uuid[VEX_STORE_UUID_BYTES];
    struct vex_log_start start;
    struct vex_log_repair_report report;
    for (uint64_t number = manifest.log_file; number < manifest.checkpoints[0].log_file; number++) {
        for (int what = 0; what < 3; what++) {
            struct vex_io *io = vex_io_memory_clone(base);
            damage_log_file(io, number, path, sizeof(path));
            if (what == 1) {
                assert_true(vex_io_memory_drop(io, path));
            }
            assert_int_equal(check(io, &findings), VEX_ERR_CORRUPT);
            assert_string_equal(findings.path, path);
            if (what == 2) {
                assert_int_equal(vex_store_read_log_start(io, uuid, &start, NULL), VEX_OK);
                assert_int_equal(vex_log_repair(io, uuid, &start, &report, NULL), VEX_OK);
                assert_false(report.changed);
            }
            open_with(&instance, io, &tiny_files);
            assert_false(instance.recovery.fell_back);
            assert_int_equal(instance.app.last_lsn, 80);
            close_instance(&instance);
            assert_goes_on(io, 80);
            vex_io_close(io);
        }
    }
    vex_io_close(base);
}

/* What was accepted as lost is, the checkpoint is not, and the log goes on. */
static void an_instance_goes_on_after_its_log_was_repaired(void **state)
{
    (void)state;
    struct vex_manifest manifest;
    struct vex_io *io = disk_with_many_log_files(&manifest);
    struct instance instance = {0};
    struct findings findings;
    char path[64];
    uint8_t uuid[VEX_STORE_UUID_BYTES];
    struct vex_log_start start;
    struct vex_log_repair_report report;
    damage_log_file(io, manifest.checkpoints[0].log_file, path, sizeof(path));
    assert_int_equal(check(io, &findings), VEX_ERR_CORRUPT);
    assert_string_equal(findings.path, path);
    assert_int_equal(try_open(&instance, io, &tiny_files, NULL), VEX_ERR_CORRUPT);
    assert_int_equal(vex_store_read_log_start(io, uuid, &start, NULL), VEX_OK);
    assert_memory_equal(uuid, manifest.uuid, sizeof(uuid));
    assert_int_equal(start.lsn, 60);
    assert_int_equal(vex_log_repair(io, uuid, &start, &report, NULL), VEX_OK);
    assert_true(report.changed);
    open_with(&instance, io, &tiny_files);
    assert_int_equal(instance.recovery.checkpoint_lsn, 60);
    assert_int_equal(instance.app.last_lsn, report.last_lsn);
    close_instance(&instance);
    assert_goes_on(io, report.last_lsn);
    vex_io_close(io);
}

/* ---- failing calls ---------------------------------------------------------------------------- */

static const struct vex_io_decision decisions[] = {
    {EIO, 0}, {ENOSPC, 0}, {EIO, SIZE_MAX}, {ENOSPC, VEX_BLOCK_BYTES}};

typedef void (*one_failure)(struct vex_io *inner, enum vex_io_call call, uint64_t nth,
                            struct vex_io_decision decision, bool *out_happened);

/* Each call of each kind fails once, in each way. */
static size_t fail_each_call(struct vex_io *base, one_failure run)
{
    size_t happened_count = 0;
    for (int call = 0; call < VEX_IO_CALLS_COUNT; call++) {
        bool happened = true;
        for (uint64_t nth = 1; happened; nth++) {
            assert_true(nth < 100);
            for (size_t i = 0; i < COUNT_OF(decisions); i++) {
                struct vex_io *inner = vex_io_memory_clone(base);
                run(inner, (enum vex_io_call)call, nth, decisions[i], &happened);
                happened_count += happened;
                vex_io_close(inner);
            }
        }
    }
    return happened_count;
}

static void fail_one_while_opening(struct vex_io *inner, enum vex_io_call call, uint64_t nth,
                                   struct vex_io_decision decision, bool *out_happened)
{
    bool is_new = !is_there(inner, "MANIFEST");
    struct vex_io_fault_plan plan = {call, nth, false, decision, false};
    struct vex_io *io = vex_io_fault_open(inner, vex_io_fault_planned, &plan);
    struct instance instance = {0};
    struct vex_error error = {.status = VEX_OK};
    enum vex_status status = try_open(&instance, io, &with_reserve, &error);
    *out_happened = plan.happened;
    /* Some failures are not worth stopping for: the reserve, leftovers, an older checkpoint. */
    assert_true(plan.happened || status == VEX_OK);
    if (status == VEX_OK) {
        assert_int_equal(instance.app.last_lsn, is_new ? 0 : SAMPLE_LSN);
    } else if (status != VEX_ERR_NO_SPACE && status != VEX_ERR_IO) {
        fail_msg("%s %llu: %s: %s", vex_io_call_name(call), (unsigned long long)nth,
                 vex_base_status_name(status), error.message);
    }
    close_instance(&instance);
    vex_io_close(io);
    assert_goes_on(inner, is_new ? 0 : SAMPLE_LSN);
}

static void a_new_instance_survives_any_failing_call(void **state)
{
    (void)state;
    struct vex_io *base = vex_io_memory_open();
    assert_true(fail_each_call(base, fail_one_while_opening) > 50);
    vex_io_close(base);
}

static void a_start_survives_any_failing_call(void **state)
{
    (void)state;
    struct vex_io *base = sample_disk();
    vex_io_memory_put(base, "segments/00000000000000aa.seg", "junk", 4);
    vex_io_memory_put(base, "checkpoints/00000000000000ad.ckpt.new", "junk", 4);
    assert_true(fail_each_call(base, fail_one_while_opening) > 50);
    vex_io_close(base);
}

/* After it: the old checkpoint or the new one, every record, and the same again on a second start. */
static void assert_old_or_new(struct vex_io *inner, uint64_t old_lsn, uint64_t new_lsn)
{
    struct instance instance;
    open_instance(&instance, inner);
    assert_int_equal(instance.app.last_lsn, new_lsn);
    uint64_t found = instance.recovery.checkpoint_lsn;
    assert_true(found == old_lsn || found == new_lsn);
    assert_false(instance.recovery.fell_back);
    close_instance(&instance);
    struct vex_io *before = vex_io_memory_clone(inner);
    open_instance(&instance, inner);
    assert_int_equal(instance.recovery.checkpoint_lsn, found);
    assert_int_equal(instance.app.last_lsn, new_lsn);
    close_instance(&instance);
    assert_true(vex_io_memory_equals(inner, before));
    vex_io_close(before);
    assert_goes_on(inner, new_lsn);
}

static void fail_one_while_advancing(struct vex_io *inner, enum vex_io_call call, uint64_t nth,
                                     struct vex_io_decision decision, bool *out_happened)
{
    struct vex_io_fault_plan plan = {call, 0, false, decision, false};
    struct vex_io *io = vex_io_fault_open(inner, vex_io_fault_planned, &plan);
    struct instance instance;
    open_with(&instance, io, &with_reserve);
    vex_store_refill_reserve(instance.store);
    append(&instance, 3);
    plan.nth = vex_io_fault_count(io, call) + nth;
    struct vex_error error = {.status = VEX_OK};
    enum vex_status status = advance(&instance, &error);
    *out_happened = plan.happened;
    plan.nth = 0;
    /* ENOSPC may be cured by the reserve. */
    assert_true(plan.happened || status == VEX_OK);
    assert_true(status == VEX_OK || error.message[0]);
    struct vex_store_counters counters = counters_of(&instance);
    assert_int_equal(counters.failed, status == VEX_ERR_READ_ONLY);
    append(&instance, 1);   /* the log is not concerned */
    if (status != VEX_OK) { /* the daemon tries again later */
        enum vex_status again = advance(&instance, &error);
        assert_int_equal(again, counters.failed ? VEX_ERR_READ_ONLY : VEX_OK);
    }
    uint64_t acknowledged = instance.acknowledged;
    uint64_t checkpoint_lsn = counters_of(&instance).checkpoint_lsn;
    close_instance(&instance);
    vex_io_close(io);
    if (counters.failed) {
        open_instance(&instance, inner);
        assert_int_equal(instance.app.last_lsn, acknowledged);
        assert_true(instance.recovery.checkpoint_lsn == 8 ||
                    instance.recovery.checkpoint_lsn == acknowledged - 1);
        close_instance(&instance);
        assert_goes_on(inner, acknowledged);
    } else {
        assert_old_or_new(inner, checkpoint_lsn, acknowledged);
    }
}

static void a_checkpoint_survives_any_failing_call(void **state)
{
    (void)state;
    struct vex_io *base = sample_disk();
    assert_true(fail_each_call(base, fail_one_while_advancing) > 100);
    vex_io_close(base);
}

/* As if the machine had stopped there: the store does not even get to clean up. */
static void fail_all_from_here(struct vex_io *inner, enum vex_io_call call, uint64_t nth,
                               struct vex_io_decision decision, bool *out_happened)
{
    struct vex_io_fault_plan plan = {call, 0, true, decision, false};
    struct vex_io *io = vex_io_fault_open(inner, vex_io_fault_planned, &plan);
    struct instance instance;
    open_with(&instance, io, &small);
    append(&instance, 3);
    plan.nth = vex_io_fault_count(io, call) + nth;
    (void)advance(&instance, NULL);
    *out_happened = plan.happened;
    uint64_t acknowledged = instance.acknowledged;
    close_instance(&instance);
    vex_io_close(io);
    assert_old_or_new(inner, 8, acknowledged);
}

static void a_checkpoint_survives_a_disk_that_stays_broken(void **state)
{
    (void)state;
    struct vex_io *base = sample_disk();
    assert_true(fail_each_call(base, fail_all_from_here) > 100);
    vex_io_close(base);
}

/* ---- the reserve ------------------------------------------------------------------------------ */

/* A disk that is full until the reserve has been given up. */
struct full_disk {
    struct vex_io *inner;
    bool full;
    unsigned refused;
};

static struct vex_io_decision decide_full(void *context, enum vex_io_call call, uint64_t nth,
                                          size_t bytes)
{
    (void)nth;
    (void)bytes;
    struct full_disk *disk = context;
    bool takes_space = call == VEX_IO_ALLOCATE || call == VEX_IO_WRITE;
    if (disk->full && takes_space && is_there(disk->inner, "RESERVE")) {
        disk->refused++;
        return (struct vex_io_decision){ENOSPC, 0};
    }
    return VEX_IO_PASS;
}

static void the_reserve_lets_a_checkpoint_finish(void **state)
{
    (void)state;
    for (int with_segments = 0; with_segments < 2; with_segments++) {
        struct vex_io *inner = vex_io_memory_open();
        struct full_disk disk = {inner, false, 0};
        struct vex_io *io = vex_io_fault_open(inner, decide_full, &disk);
        struct instance instance;
        open_with(&instance, io, &with_reserve);
        assert_false(is_there(inner, "RESERVE")); /* not before it may be needed */
        vex_store_refill_reserve(instance.store);
        size_t bytes;
        assert_non_null(vex_io_memory_bytes(inner, "RESERVE", &bytes));
        assert_int_equal(bytes, 16 * BLOCK);
        assert_int_equal(counters_of(&instance).reserve_bytes, 16 * BLOCK);
        append(&instance, 2);
        disk.full = true;
        struct vex_error error = {.status = VEX_OK};
        enum vex_status status =
            with_segments ? advance(&instance, &error) : checkpoint(&instance, NULL, 0, &error);
        if (status != VEX_OK) {
            fail_msg("%s", error.message);
        }
        assert_int_equal(disk.refused, 1);
        assert_false(is_there(inner, "RESERVE"));
        assert_int_equal(counters_of(&instance).reserve_bytes, 0);
        disk.full = false;
        vex_store_refill_reserve(instance.store);
        assert_true(is_there(inner, "RESERVE"));
        assert_int_equal(counters_of(&instance).reserve_bytes, 16 * BLOCK);
        close_instance(&instance);
        open_instance(&instance, inner); /* not wanted any more */
        assert_false(is_there(inner, "RESERVE"));
        close_instance(&instance);
        vex_io_close(io);
        vex_io_close(inner);
    }
}

static void a_full_disk_without_reserve_changes_nothing(void **state)
{
    (void)state;
    struct vex_io *inner = sample_disk();
    struct vex_io_fault_plan plan = {VEX_IO_ALLOCATE, 0, true, {ENOSPC, 0}, false};
    struct vex_io *io = vex_io_fault_open(inner, vex_io_fault_planned, &plan);
    struct instance instance;
    open_instance(&instance, io);
    plan.nth = 1;
    struct vex_io *before = vex_io_memory_clone(inner);
    struct vex_error error;
    uint64_t number;
    assert_int_equal(write_segment(&instance, &number, &error), VEX_ERR_NO_SPACE);
    assert_int_equal(checkpoint(&instance, NULL, 0, &error), VEX_ERR_NO_SPACE);
    assert_non_null(strstr(error.message, "checkpoints/"));
    assert_true(vex_io_memory_equals(inner, before));
    assert_false(counters_of(&instance).failed);
    /* A reserve that cannot be had does not keep the instance from starting. */
    close_instance(&instance);
    open_with(&instance, io, &with_reserve);
    assert_int_equal(counters_of(&instance).reserve_bytes, 0);
    assert_false(is_there(inner, "RESERVE"));
    close_instance(&instance);
    vex_io_close(before);
    vex_io_close(io);
    vex_io_close(inner);
}

static void a_reserve_is_written_where_blocks_cannot_be_asked_for(void **state)
{
    (void)state;
    struct vex_io *inner = vex_io_memory_open();
    struct vex_io_fault_plan plan = {VEX_IO_ALLOCATE, 1, true, {EOPNOTSUPP, 0}, false};
    struct vex_io *io = vex_io_fault_open(inner, vex_io_fault_planned, &plan);
    struct instance instance;
    open_with(&instance, io, &with_reserve);
    vex_store_refill_reserve(instance.store);
    size_t bytes;
    assert_non_null(vex_io_memory_bytes(inner, "RESERVE", &bytes));
    assert_int_equal(bytes, 16 * BLOCK);
    must_advance(&instance, 2);
    close_instance(&instance);
    vex_io_close(io);
    vex_io_close(inner);
}

/* ---- checking --------------------------------------------------------------------------------- */

/* Flips one bit in each block of a file from `at` on. */
static void flip_each_block(struct vex_io *io, const char *path, size_t at, size_t bytes,
                            size_t *out_count)
{
    static struct vex_random random;
    size_t all;
    uint8_t *data = vex_io_memory_bytes(io, path, &all);
    assert_non_null(data);
    for (; at < bytes; at += BLOCK) {
        size_t where = at + vex_random_below(&random, BLOCK);
        uint8_t mask = (uint8_t)(1u << vex_random_below(&random, 8));
        struct findings findings;
        data[where] ^= mask;
        struct vex_io *before = vex_io_memory_clone(io);
        if (check(io, &findings) == VEX_OK || strcmp(findings.path, path) != 0) {
            fail_msg("%s: a bit flipped at %zu: found in '%s': %s", path, where, findings.path,
                     findings.text);
        }
        assert_true(vex_io_memory_equals(io, before));
        vex_io_close(before);
        data[where] ^= mask;
        *out_count += 1;
    }
}

/* Every block of every file that a start would believe. Not the log's unused end, and not its last, empty
 * batch, whose damage looks like tearing and costs nothing. */
static void checking_finds_any_flipped_bit(void **state)
{
    (void)state;
    struct vex_io *io = sample_disk();
    assert_sound(io);
    const char *const directories[] = {"checkpoints", "segments"};
    size_t flipped = 0;
    size_t bytes;
    flip_each_block(io, "MANIFEST", 0, 2 * BLOCK, &flipped);
    flip_each_block(io, "log/00000001.log", BLOCK, (1 + SAMPLE_LSN) * BLOCK, &flipped);
    for (size_t d = 0; d < COUNT_OF(directories); d++) {
        struct names names = {0};
        assert_int_equal(io->ops->list(io, directories[d], note_name, &names), 0);
        for (size_t i = 0; i < names.count; i++) {
            char path[64];
            (void)snprintf(path, sizeof(path), "%s/%s", directories[d], names.all[i]);
            assert_non_null(vex_io_memory_bytes(io, path, &bytes));
            flip_each_block(io, path, 0, bytes, &flipped);
        }
    }
    assert_int_equal(flipped, 2 + SAMPLE_LSN + 2 * 2 + 5 * 3);
    assert_sound(io);
    vex_io_close(io);
}

static void checking_finds_what_is_missing(void **state)
{
    (void)state;
    const char *const paths[] = {"MANIFEST", SAMPLE_NEWER, SAMPLE_OLDER,
                                 "segments/0000000000000006.seg", "log/00000001.log"};
    struct vex_io *base = sample_disk();
    for (size_t i = 0; i < COUNT_OF(paths); i++) {
        struct vex_io *io = vex_io_memory_clone(base);
        struct findings findings;
        assert_true(vex_io_memory_drop(io, paths[i]));
        assert_int_not_equal(check(io, &findings), VEX_OK);
        assert_string_equal(findings.path, paths[i]);
        vex_io_close(io);
    }
    vex_io_close(base);
}

static void checking_reports_a_disk_that_cannot_be_read(void **state)
{
    (void)state;
    struct vex_io *inner = sample_disk();
    const enum vex_io_call calls[] = {VEX_IO_OPEN_FILE, VEX_IO_SIZE, VEX_IO_READ, VEX_IO_LIST};
    for (size_t i = 0; i < COUNT_OF(calls); i++) {
        for (uint64_t nth = 1; nth < 20; nth++) {
            struct vex_io_fault_plan plan = {calls[i], nth, false, {EIO, 0}, false};
            struct vex_io *io = vex_io_fault_open(inner, vex_io_fault_planned, &plan);
            struct findings findings;
            enum vex_status status = check(io, &findings);
            assert_int_equal(status, plan.happened ? VEX_ERR_IO : VEX_OK);
            vex_io_close(io);
        }
    }
    vex_io_close(inner);
}

/* Findings that are no faults are told, too: all that is there, and what does not belong. */
static void checking_tells_of_every_file(void **state)
{
    (void)state;
    struct vex_io *io = sample_disk();
    struct findings findings;
    assert_int_equal(check(io, &findings), VEX_OK);
    assert_int_equal(findings.reports, 1 + 2 + 5 + 1);
    const char *const others[] = {"log/prepared",
                                  "log/00000000.log",
                                  "log/notes",
                                  "segments/00000000000000aa.seg",
                                  "segments/00000000000000aa.seg.new",
                                  "checkpoints/0000000000000001.ckpt"};
    for (size_t i = 0; i < COUNT_OF(others); i++) {
        vex_io_memory_put(io, others[i], "x", 1);
    }
    assert_int_equal(check(io, &findings), VEX_OK);
    assert_int_equal(findings.reports, 1 + 2 + 5 + 1 + COUNT_OF(others));
    vex_io_close(io);
}

/* ---- backups ---------------------------------------------------------------------------------- */

struct disk {
    struct vex_temp_dir directory;
    struct vex_io *io;
    struct vex_io *fault; /* in front of it, passing all on unless `plan` says otherwise */
    struct vex_io_fault_plan plan;
    struct instance instance;
};

/* A running instance with the sample on a real disk. */
static int make_disk(void **state)
{
    static struct disk disk;
    disk = (struct disk){0};
    vex_temp_dir_make(&disk.directory);
    assert_int_equal(vex_io_sync_open(disk.directory.fd, &disk.io), 0);
    disk.fault = vex_io_fault_open(disk.io, vex_io_fault_planned, &disk.plan);
    make_sample(disk.io);
    open_instance(&disk.instance, disk.fault);
    *state = &disk;
    return 0;
}

/* For what is done many times over; links work there as well. */
static int make_ram_disk(void **state)
{
    const char *given = getenv("TMPDIR");
    char *before = given ? strdup(given) : NULL;
    if (access("/dev/shm", W_OK) == 0) {
        (void)setenv("TMPDIR", "/dev/shm", 1);
    }
    int result = make_disk(state);
    if (before) {
        (void)setenv("TMPDIR", before, 1);
    } else {
        (void)unsetenv("TMPDIR");
    }
    free(before);
    return result;
}

static int remove_disk(void **state)
{
    struct disk *disk = *state;
    close_instance(&disk->instance);
    vex_io_close(disk->fault);
    vex_io_close(disk->io);
    vex_temp_dir_remove(&disk->directory);
    return 0;
}

static bool exists(const struct disk *disk, const char *path)
{
    struct stat info;
    return fstatat(disk->directory.fd, path, &info, AT_SYMLINK_NOFOLLOW) == 0;
}

static enum vex_status back_up(struct disk *disk, const char *path, struct vex_error *error)
{
    uint64_t lsn = 0;
    uint64_t bytes = 0;
    enum vex_status status =
        vex_store_backup(disk->instance.store, path, NULL, &lsn, &bytes, error);
    if (status == VEX_OK) {
        assert_int_equal(lsn, 8);
        /* three segments, the checkpoint, the manifest */
        assert_int_equal(bytes, (3 * 3 + 2 + 2) * BLOCK);
    }
    return status;
}

static void must_back_up(struct disk *disk, const char *path)
{
    struct vex_error error = {.status = VEX_OK};
    if (back_up(disk, path, &error) != VEX_OK) {
        fail_msg("%s: %s", vex_base_status_name(error.status), error.message);
    }
    char part[128];
    (void)snprintf(part, sizeof(part), "%s.part", path);
    assert_false(exists(disk, part));
}

/* Sound, an instance by itself, and one that goes on, with every record up to the checkpoint. */
static void assert_is_backup(struct disk *disk, const char *path)
{
    int fd = openat(disk->directory.fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    struct vex_io *io = NULL;
    struct instance instance;
    assert_int_equal(vex_io_sync_open(fd, &io), 0);
    assert_sound(io);
    assert_int_equal(files_in(io, "segments"), 3);
    open_instance(&instance, io);
    assert_int_equal(instance.recovery.checkpoint_lsn, 8);
    assert_int_equal(instance.app.last_lsn, 8);
    assert_memory_equal(vex_store_uuid(instance.store), vex_store_uuid(disk->instance.store), 16);
    append(&instance, 3);
    close_instance(&instance);
    assert_goes_on(io, 11);
    vex_io_close(io);
    (void)close(fd);
}

static void a_backup_is_an_instance(void **state)
{
    struct disk *disk = *state;
    must_back_up(disk, "first");
    must_back_up(disk, "second");
    struct stat info;
    assert_int_equal(fstatat(disk->directory.fd, "first/segments/0000000000000006.seg", &info, 0),
                     0);
    assert_int_equal(info.st_nlink, 3);
    assert_is_backup(disk, "first");
    /* The original goes on, and a second one is as good as the first. */
    must_advance(&disk->instance, 2);
    must_advance(&disk->instance, 2);
    assert_is_backup(disk, "second");
    assert_sound(disk->io);
}

static void a_backup_of_a_backup_is_an_instance(void **state)
{
    struct disk *disk = *state;
    must_back_up(disk, "first");
    int fd = openat(disk->directory.fd, "first", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    struct vex_io *io = NULL;
    struct instance instance;
    uint64_t lsn;
    uint64_t bytes;
    assert_int_equal(vex_io_sync_open(fd, &io), 0);
    open_instance(&instance, io);
    assert_int_equal(vex_store_backup(instance.store, "../second", NULL, &lsn, &bytes, NULL),
                     VEX_OK);
    close_instance(&instance);
    vex_io_close(io);
    (void)close(fd);
    assert_is_backup(disk, "second");
}

/* A backup has one checkpoint and no log before it, so there is nothing to fall back to. */
static void a_backup_with_a_damaged_checkpoint_is_refused(void **state)
{
    struct disk *disk = *state;
    must_back_up(disk, "first");
    int fd = openat(disk->directory.fd, "first", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    struct vex_io *io = NULL;
    struct vex_error error;
    assert_int_equal(vex_io_sync_open(fd, &io), 0);
    assert_int_equal(io->ops->unlink(io, SAMPLE_NEWER), 0);
    for (unsigned attempt = 0; attempt < 2; attempt++) {
        struct instance instance = {0};
        assert_int_equal(try_open(&instance, io, &small, &error), VEX_ERR_CORRUPT);
        assert_non_null(strstr(error.message, SAMPLE_NEWER));
    }
    vex_io_close(io);
    (void)close(fd);
}

static void files_are_copied_where_links_cannot_be_had(void **state)
{
    struct disk *disk = *state;
    const int failures[] = {EXDEV, EPERM, EMLINK, EOPNOTSUPP};
    for (size_t i = 0; i < COUNT_OF(failures); i++) {
        char path[32];
        char segment[96];
        struct stat info;
        (void)snprintf(path, sizeof(path), "copy%zu", i);
        (void)snprintf(segment, sizeof(segment), "%s/segments/0000000000000006.seg", path);
        disk->plan = (struct vex_io_fault_plan){VEX_IO_LINK, 1, true, {failures[i], 0}, false};
        must_back_up(disk, path);
        assert_true(disk->plan.happened);
        disk->plan.nth = 0;
        assert_int_equal(fstatat(disk->directory.fd, segment, &info, 0), 0);
        assert_int_equal(info.st_nlink, 1);
        assert_is_backup(disk, path);
    }
}

static void what_is_there_is_not_overwritten(void **state)
{
    struct disk *disk = *state;
    struct vex_error error;
    int fd = openat(disk->directory.fd, "file", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    (void)close(fd);
    assert_int_equal(mkdirat(disk->directory.fd, "empty", 0700), 0);
    must_back_up(disk, "backup");
    const char *const paths[] = {"file", "empty", "backup", ".", "segments", "MANIFEST"};
    for (size_t i = 0; i < COUNT_OF(paths); i++) {
        assert_int_equal(back_up(disk, paths[i], &error), VEX_ERR_EXISTS);
        char part[32];
        (void)snprintf(part, sizeof(part), "%s.part", paths[i]);
        assert_false(exists(disk, part));
    }
    assert_is_backup(disk, "backup");
    /* An instance that has the name of an unfinished backup. */
    assert_int_equal(mkdirat(disk->directory.fd, "other.part", 0700), 0);
    static const char *const files[] = {"other.part/LOCK", "other.part/MANIFEST"};
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        fd = openat(disk->directory.fd, files[i], O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
        (void)close(fd);
    }
    assert_int_equal(back_up(disk, "other", &error), VEX_ERR_EXISTS);
    assert_true(exists(disk, "other.part/MANIFEST"));
}

static void impossible_paths_are_refused(void **state)
{
    struct disk *disk = *state;
    struct vex_error error;
    static char longest[2000];
    memset(longest, 'x', sizeof(longest) - 1);
    assert_int_equal(back_up(disk, "", &error), VEX_ERR_INVALID);
    assert_int_equal(back_up(disk, "backup/", &error), VEX_ERR_INVALID);
    assert_int_equal(back_up(disk, longest, &error), VEX_ERR_INVALID);
    assert_int_equal(back_up(disk, "daily.part", &error), VEX_ERR_INVALID);
    assert_int_equal(back_up(disk, "nowhere/backup", &error), VEX_ERR_IO);
    assert_non_null(strstr(error.message, "nowhere/backup.part"));
    assert_int_equal(back_up(disk, "MANIFEST/backup", &error), VEX_ERR_EXISTS);
    char absolute[VEX_TEMP_PATH_MAX + 32];
    (void)snprintf(absolute, sizeof(absolute), "%s/absolute", disk->directory.path);
    must_back_up(disk, absolute);
    assert_is_backup(disk, "absolute");
}

static void without_a_checkpoint_there_is_nothing_to_back_up(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    struct instance instance;
    uint64_t lsn;
    uint64_t bytes;
    open_instance(&instance, io);
    append(&instance, 1);
    assert_int_equal(vex_store_backup(instance.store, "backup", NULL, &lsn, &bytes, NULL),
                     VEX_ERR_INVALID);
    close_instance(&instance);
    vex_io_close(io);
}

static void leftovers_of_an_earlier_attempt_are_replaced(void **state)
{
    struct disk *disk = *state;
    struct vex_io *io = disk->io;
    const char *const directories[] = {"b.part", "b.part/segments", "b.part/checkpoints"};
    const char *const files[] = {"b.part/segments/0000000000000006.seg",
                                 "b.part/segments/0000000000000099.seg",
                                 "b.part/segments/0000000000000099.seg.new",
                                 "b.part/checkpoints/0000000000000001.ckpt",
                                 "b.part/MANIFEST",
                                 "b.part/MANIFEST.new"};
    for (size_t i = 0; i < COUNT_OF(directories); i++) {
        assert_int_equal(io->ops->make_directory(io, directories[i]), 0);
    }
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        struct vex_file file;
        assert_int_equal(io->ops->open_file(io, files[i], VEX_FILE_CREATE, &file), 0);
        io->ops->close_file(io, &file);
    }
    must_back_up(disk, "b");
    assert_false(exists(disk, "b/MANIFEST.new"));
    assert_is_backup(disk, "b");
}

struct patience {
    unsigned pauses;
    uint64_t bytes;
};

static bool be_patient(void *context, uint64_t bytes)
{
    struct patience *patience = context;
    patience->bytes += bytes;
    return patience->pauses-- > 0;
}

static void a_backup_can_be_given_up(void **state)
{
    struct disk *disk = *state;
    for (int links = 0; links < 2; links++) {
        disk->plan =
            (struct vex_io_fault_plan){VEX_IO_LINK, links ? 0 : 1, true, {EXDEV, 0}, false};
        for (unsigned pauses = 0; pauses <= 4; pauses++) {
            struct patience patience = {pauses, 0};
            const struct vex_pace pace = {be_patient, &patience};
            uint64_t lsn;
            uint64_t bytes;
            const char *path = links ? "linked" : "copied";
            enum vex_status status =
                vex_store_backup(disk->instance.store, path, &pace, &lsn, &bytes, NULL);
            assert_int_equal(status, pauses < 4 ? VEX_ERR_UNAVAILABLE : VEX_OK);
            assert_true(exists(disk, path) == (pauses == 4));
            assert_true(patience.bytes == 0 || !links);
        }
    }
    disk->plan.nth = 0;
    assert_is_backup(disk, "linked");
    assert_is_backup(disk, "copied");
}

/* Whole or not there, with links and with copies; and the instance does not mind. */
static void a_backup_survives_any_failing_call(void **state)
{
    struct disk *disk = *state;
    unsigned number = 0;
    size_t happened_count = 0;
    for (int call = 0; call < VEX_IO_CALLS_COUNT; call++) {
        bool happened = true;
        for (uint64_t nth = 1; happened && nth < 40; nth++) {
            const struct vex_io_decision some[] = {{EIO, 0}, {ENOSPC, 0}, {EIO, SIZE_MAX}};
            for (size_t i = 0; i < COUNT_OF(some); i++) {
                char path[32];
                struct vex_error error = {.status = VEX_OK};
                (void)snprintf(path, sizeof(path), "backup%u", number++);
                disk->plan = (struct vex_io_fault_plan){
                    (enum vex_io_call)call,
                    vex_io_fault_count(disk->fault, (enum vex_io_call)call) + nth, false, some[i],
                    false};
                enum vex_status status = back_up(disk, path, &error);
                happened = disk->plan.happened;
                happened_count += happened;
                disk->plan.nth = 0;
                assert_true(happened || status == VEX_OK);
                if (status != VEX_OK) {
                    assert_int_equal(status,
                                     some[i].error == ENOSPC ? VEX_ERR_NO_SPACE : VEX_ERR_IO);
                }
                if (!exists(disk, path)) {
                    assert_int_not_equal(status, VEX_OK);
                    must_back_up(disk, path);
                }
            }
        }
    }
    assert_true(happened_count > 60);
    for (unsigned i = 0; i < number; i += 7) {
        char path[32];
        (void)snprintf(path, sizeof(path), "backup%u", i);
        assert_is_backup(disk, path);
    }
    must_advance(&disk->instance, 1);
    assert_sound(disk->io);
}

/* ---- two threads ------------------------------------------------------------------------------ */

struct worker {
    struct instance *instance;
    struct vex_store_cut cut;
    const char *fault;
};

static void *work(void *context)
{
    struct worker *worker = context;
    struct vex_store *store = worker->instance->store;
    uint8_t *image = new_image();
    for (unsigned round = 0; round < 20 && !worker->fault; round++) {
        uint64_t number = vex_store_new_segment_number(store);
        struct vex_segment_file file = segment_of(number);
        struct body body = {
            .magic = BODY_MAGIC, .lsn = worker->cut.lsn, .count = 1, .numbers = {number}};
        fill_image(image, number);
        if (vex_store_write_segment(store, &file, image, NULL, NULL) != VEX_OK ||
            vex_store_checkpoint(store, &worker->cut, &number, 1, &body, sizeof(body), NULL) !=
                VEX_OK ||
            vex_store_trim(store, true, NULL, 0, NULL) != VEX_OK) {
            worker->fault = "the worker failed";
        }
    }
    free(image);
    return NULL;
}

static void checkpoints_run_beside_the_log(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    struct instance instance;
    open_instance(&instance, io);
    append(&instance, 3);
    struct worker worker = {&instance, vex_store_take_cut(instance.store), NULL};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, work, &worker), 0);
    uint64_t written = 0;
    for (unsigned i = 0; i < 40; i++) {
        append(&instance, 1);
        (void)vex_store_new_segment_number(instance.store);
        struct vex_store_counters counters = counters_of(&instance);
        assert_true(counters.written_bytes >= written);
        written = counters.written_bytes;
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_null(worker.fault);
    assert_int_equal(counters_of(&instance).checkpoints, 20);
    close_instance(&instance);
    open_instance(&instance, io);
    assert_int_equal(instance.recovery.checkpoint_lsn, 3);
    assert_int_equal(instance.app.last_lsn, 43);
    close_instance(&instance);
    vex_io_close(io);
}

#define ON_RAM_DISK(test) cmocka_unit_test_setup_teardown(test, make_ram_disk, remove_disk)
#define ON_DISK(test) cmocka_unit_test_setup_teardown(test, make_disk, remove_disk)

int main(void)
{
    seed = vex_random_announce("test_ioengine_store");
    if (vex_log_buffers_init(buffers, NULL) != VEX_OK) {
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_instance_is_made_and_then_found),
        cmocka_unit_test(a_start_begins_at_the_newest_checkpoint),
        cmocka_unit_test(the_log_goes_on_while_a_checkpoint_is_written),
        cmocka_unit_test(a_checkpoint_that_goes_back_or_names_nothing_is_refused),
        cmocka_unit_test(bodies_of_all_sizes_come_back),
        cmocka_unit_test(what_no_kept_checkpoint_needs_is_removed),
        cmocka_unit_test(log_files_go_when_no_kept_checkpoint_needs_them),
        cmocka_unit_test(segments_to_be_kept_stay),
        cmocka_unit_test(what_a_crash_left_is_removed),
        cmocka_unit_test(numbers_are_above_all_that_exist),
        cmocka_unit_test(a_damaged_checkpoint_is_passed_over),
        cmocka_unit_test(another_checkpoint_under_its_name_is_passed_over),
        cmocka_unit_test(a_damaged_or_missing_segment_is_passed_over_with_its_checkpoint),
        cmocka_unit_test(damage_to_both_checkpoints_is_refused),
        cmocka_unit_test(damage_to_the_older_checkpoint_is_survived),
        cmocka_unit_test(the_only_checkpoint_can_be_done_without),
        cmocka_unit_test(what_the_caller_cannot_restore_is_passed_over),
        cmocka_unit_test(a_log_that_is_gone_is_damage),
        cmocka_unit_test(where_the_log_begins_is_told),
        cmocka_unit_test(damage_to_the_log_before_the_newest_checkpoint_does_not_matter),
        cmocka_unit_test(an_instance_goes_on_after_its_log_was_repaired),
        cmocka_unit_test(a_new_instance_survives_any_failing_call),
        cmocka_unit_test(a_start_survives_any_failing_call),
        cmocka_unit_test(a_checkpoint_survives_any_failing_call),
        cmocka_unit_test(a_checkpoint_survives_a_disk_that_stays_broken),
        cmocka_unit_test(the_reserve_lets_a_checkpoint_finish),
        cmocka_unit_test(a_full_disk_without_reserve_changes_nothing),
        cmocka_unit_test(a_reserve_is_written_where_blocks_cannot_be_asked_for),
        cmocka_unit_test(checking_finds_any_flipped_bit),
        cmocka_unit_test(checking_finds_what_is_missing),
        cmocka_unit_test(checking_reports_a_disk_that_cannot_be_read),
        cmocka_unit_test(checking_tells_of_every_file),
        ON_DISK(a_backup_is_an_instance),
        ON_DISK(a_backup_of_a_backup_is_an_instance),
        ON_DISK(a_backup_with_a_damaged_checkpoint_is_refused),
        ON_DISK(files_are_copied_where_links_cannot_be_had),
        ON_DISK(what_is_there_is_not_overwritten),
        ON_DISK(impossible_paths_are_refused),
        cmocka_unit_test(without_a_checkpoint_there_is_nothing_to_back_up),
        ON_DISK(leftovers_of_an_earlier_attempt_are_replaced),
        ON_DISK(a_backup_can_be_given_up),
        ON_RAM_DISK(a_backup_survives_any_failing_call),
        cmocka_unit_test(checkpoints_run_beside_the_log),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    vex_log_buffers_deinit(buffers);
    return failed;
}
