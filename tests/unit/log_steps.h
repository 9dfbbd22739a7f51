/*
 * What the tests of the log have in common: opening one, appending to it, and checking what comes back.
 * The body of a record follows from its LSN, so replay needs no list to compare with.
 *
 * Functions are inline because not every test uses each of them.
 */
#ifndef VEX_TESTS_UNIT_LOG_STEPS_H
#define VEX_TESTS_UNIT_LOG_STEPS_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/error.h"
#include "ioengine/log.h"
#include "ioengine/record.h"

#define COUNT_OF(array) (sizeof(array) / sizeof(*(array)))
#define BLOCK VEX_BLOCK_BYTES

static struct vex_io_buffer buffers[VEX_LOG_BUFFERS];
static const uint8_t uuid[VEX_LOG_UUID_BYTES] = "an instance uuid";
/* ---- records --------------------------------------------------------------------------------- */

static inline uint16_t type_of(uint64_t lsn)
{
    return (uint16_t)(1 + lsn * 7 % 1000);
}

static inline void fill_body(uint8_t *body, size_t bytes, uint64_t lsn)
{
    for (size_t at = 0; at < bytes; at += 8) {
        uint64_t word = at == 0 ? lsn : vex_mix64(lsn + at);
        memcpy(body + at, &word, sizeof(word));
    }
}

struct replayed {
    uint64_t count;   /* LSN of the last one */
    uint64_t fail_at; /* refuse this LSN; 0 = none */
    const char *fault;
};

static inline enum vex_status replay(void *context, uint64_t lsn, uint16_t type,
                                     const uint8_t *body, size_t bytes, struct vex_error *error)
{
    struct replayed *replayed = context;
    if (lsn == replayed->fail_at) {
        return vex_error_set(error, VEX_ERR_NOMEM, "refused by the test");
    }
    replayed->count++;
    if (lsn != replayed->count) {
        replayed->fault = "LSNs are not dense";
    } else if (type != type_of(lsn)) {
        replayed->fault = "wrong type";
    } else if (bytes % 8 != 0 || (uintptr_t)body % 8 != 0) {
        replayed->fault = "body is not aligned";
    } else {
        uint8_t *expected = malloc(bytes ? bytes : 1);
        fill_body(expected, bytes, lsn);
        if (memcmp(expected, body, bytes) != 0) {
            replayed->fault = "wrong body";
        }
        free(expected);
    }
    return VEX_OK;
}

/* ---- opening --------------------------------------------------------------------------------- */

/* As the store would remember it: there is a log once its first file is there. */
static inline struct vex_log_options with_start(struct vex_io *io,
                                                const struct vex_log_options *options)
{
    struct vex_log_options started = *options;
    struct vex_file file;
    for (unsigned number = 1; number <= 2 && started.start.file_number == 0; number++) {
        char path[64];
        (void)snprintf(path, sizeof(path), "log/%08u.log", number);
        int result = io->ops->open_file(io, path, VEX_FILE_READ, &file);
        started.start.file_number = result == -ENOENT ? 0 : 1;
        if (result == 0) {
            io->ops->close_file(io, &file);
        }
    }
    return started;
}

static inline enum vex_status try_open(struct vex_io *io, const struct vex_log_options *options,
                                       struct vex_log **out_log,
                                       struct vex_log_recovery *out_recovery,
                                       struct vex_error *error)
{
    struct replayed replayed = {.count = options->start.lsn};
    struct vex_log_recovery recovery;
    const struct vex_log_options started = with_start(io, options);
    enum vex_status status =
        vex_log_open(io, buffers, &started, replay, &replayed, out_log, &recovery, error);
    if (replayed.fault) {
        fail_msg("LSN %llu: %s", (unsigned long long)replayed.count, replayed.fault);
    }
    if (status != VEX_OK) {
        assert_null(*out_log);
        return status;
    }
    assert_int_equal(recovery.records, replayed.count - options->start.lsn);
    assert_int_equal(recovery.last_lsn, replayed.count);
    assert_int_equal(vex_log_durable_lsn(*out_log), replayed.count);
    assert_int_equal(vex_log_submitted_lsn(*out_log), replayed.count);
    assert_int_equal(vex_log_next_lsn(*out_log), replayed.count + 1);
    assert_int_equal(vex_log_failure(*out_log), 0);
    assert_false(vex_log_in_flight(*out_log));
    assert_false(vex_log_has_staged(*out_log));
    if (out_recovery) {
        *out_recovery = recovery;
    }
    return VEX_OK;
}

static inline struct vex_log *open_log(struct vex_io *io, const struct vex_log_options *options,
                                       struct vex_log_recovery *out_recovery)
{
    struct vex_log *log = NULL;
    struct vex_error error = {.status = VEX_OK};
    enum vex_status status = try_open(io, options, &log, out_recovery, &error);
    if (status != VEX_OK) {
        fail_msg("%s: %s", vex_base_status_name(status), error.message);
    }
    return log;
}

/* Opens, counts, closes. */
static inline uint64_t recovered(struct vex_io *io, const struct vex_log_options *options,
                                 struct vex_log_recovery *out_recovery)
{
    struct vex_log_recovery recovery;
    vex_log_close(open_log(io, options, &recovery));
    if (out_recovery) {
        *out_recovery = recovery;
    }
    return recovery.last_lsn;
}

/* ---- appending ------------------------------------------------------------------------------- */

/* Hands the record over in three pieces. The caller has asked for room. */
static inline void stage(struct vex_log *log, size_t bytes)
{
    uint64_t lsn = vex_log_next_lsn(log);
    uint8_t *body = malloc(bytes ? bytes : 1);
    assert_non_null(body);
    fill_body(body, bytes, lsn);
    size_t first = bytes / 3;
    size_t second = bytes / 5;
    const struct vex_log_piece pieces[] = {
        {body, first}, {body + first, second}, {body + first + second, bytes - first - second}};
    assert_int_equal(vex_log_stage(log, type_of(lsn), pieces, COUNT_OF(pieces)), lsn);
    assert_true(vex_log_has_staged(log));
    free(body);
}

static inline void finish(struct vex_log *log)
{
    assert_true(vex_log_in_flight(log));
    assert_true(vex_log_poll(log, true));
    assert_false(vex_log_in_flight(log));
}

/* Room for a record; where the open batch is in its way, that one goes first. */
static inline enum vex_status make_room(struct vex_log *log, size_t bytes, struct vex_error *error)
{
    enum vex_status status = vex_log_room(log, bytes, false, error);
    if (status == VEX_ERR_BUSY) {
        (void)vex_log_poll(log, true);
        assert_true(vex_log_commit(log));
        (void)vex_log_poll(log, true);
        status = vex_log_room(log, bytes, false, error);
        assert_int_not_equal(status, VEX_ERR_BUSY);
    }
    return status;
}

static inline void append(struct vex_log *log, size_t bytes)
{
    struct vex_error error = {.status = VEX_OK};
    if (make_room(log, bytes, &error) != VEX_OK) {
        fail_msg("no room for %zu bytes: %s", bytes, error.message);
    }
    stage(log, bytes);
}

static inline void commit(struct vex_log *log)
{
    uint64_t last = vex_log_next_lsn(log) - 1;
    assert_true(vex_log_commit(log));
    assert_int_equal(vex_log_submitted_lsn(log), last);
    finish(log);
    assert_int_equal(vex_log_failure(log), 0);
    assert_int_equal(vex_log_durable_lsn(log), last);
}

/* A batch of `records` records that needs `blocks` blocks. */
static inline void append_batch(struct vex_log *log, unsigned records, size_t blocks)
{
    size_t room = blocks * BLOCK - sizeof(struct vex_batch_header);
    size_t body = room / records / 8 * 8 - sizeof(struct vex_record_header);
    for (unsigned i = 0; i < records; i++) {
        append(log, body);
    }
    commit(log);
}

static inline int make_buffers(void **state)
{
    (void)state;
    return vex_log_buffers_init(buffers, NULL) == VEX_OK ? 0 : -1;
}

static inline int free_buffers(void **state)
{
    (void)state;
    vex_log_buffers_deinit(buffers);
    vex_log_buffers_deinit(buffers);
    return 0;
}

#endif
