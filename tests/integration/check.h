/*
 * Words for tests of the public library: a call that must succeed, a call that must be refused.
 *
 * A refusal is part of the contract, so assert_refused looks at all of it: the status, the same
 * status in the error, a message of one line that names what it is about, and that the same call
 * without an error struct is refused alike. It makes the call twice; a refused call has changed
 * nothing, so that is no loss. Calls are written with `sink` as their last argument. A call that
 * succeeds leaves the error struct alone.
 *
 * A header of static functions and macros, because the place of an assertion is the macro's.
 */
#ifndef VEX_TESTS_INTEGRATION_CHECK_H
#define VEX_TESTS_INTEGRATION_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <vex/vex.h>

#include "tests/lib/fixture.h"

static _Thread_local struct vex_error check_error;
static _Thread_local struct vex_error *sink;

#define assert_ok(call)                                                                            \
    do {                                                                                           \
        memset(&check_error, 0, sizeof(check_error));                                              \
        sink = &check_error;                                                                       \
        enum vex_status status_ = (call);                                                          \
        if (status_ != VEX_OK) {                                                                   \
            fail_msg("%s: %s: %s", #call, vex_status_name(status_), check_error.message);          \
        }                                                                                          \
        if (check_error.status != VEX_OK || check_error.message[0]) {                              \
            fail_msg("%s succeeded and wrote the error '%s'", #call, check_error.message);         \
        }                                                                                          \
    } while (0)

#define assert_refused(call, expected, word)                                                       \
    do {                                                                                           \
        memset(&check_error, 0, sizeof(check_error));                                              \
        sink = &check_error;                                                                       \
        enum vex_status status_ = (call);                                                          \
        if (status_ != (expected)) {                                                               \
            fail_msg("%s: %s instead of %s: %s", #call, vex_status_name(status_),                  \
                     vex_status_name(expected), check_error.message);                              \
        }                                                                                          \
        check_message(#call, (expected), (word));                                                  \
        sink = NULL;                                                                               \
        status_ = (call);                                                                          \
        if (status_ != (expected)) {                                                               \
            fail_msg("%s without an error struct: %s", #call, vex_status_name(status_));           \
        }                                                                                          \
    } while (0)

static inline void check_message(const char *call, enum vex_status expected, const char *word)
{
    const char *message = check_error.message;
    size_t length = strnlen(message, sizeof(check_error.message));
    if (check_error.status != expected) {
        fail_msg("%s: the error says %s", call, vex_status_name(check_error.status));
    }
    if (length == 0 || length == sizeof(check_error.message) || strchr(message, '\n') ||
        message[length - 1] == '.') {
        fail_msg("%s: not a message of one line: '%s'", call, message);
    }
    if (!strstr(message, word)) {
        fail_msg("%s: '%s' does not name '%s'", call, message, word);
    }
}

/* VEX_TEST_FILTER=<pattern> runs the cases whose name matches, with * and ? as in file names. */
#define run_cases(name, tests)                                                                     \
    (cmocka_set_test_filter(getenv("VEX_TEST_FILTER")),                                            \
     cmocka_run_group_tests_name((name), (tests), NULL, NULL))

/* ---- an instance with its daemon, for cmocka's setup and teardown ----------------------------- */

static inline int setup_directory(void **state)
{
    struct vex_fixture *fixture = test_calloc(1, sizeof(*fixture));
    vex_fixture_init(fixture);
    *state = fixture;
    return 0;
}

static inline int setup_daemon(void **state)
{
    (void)setup_directory(state);
    vex_fixture_start(*state, NULL);
    return 0;
}

static inline int teardown(void **state)
{
    int result = vex_fixture_deinit(*state);
    test_free(*state);
    return result;
}

#define with_daemon(test) cmocka_unit_test_setup_teardown(test, setup_daemon, teardown)
#define with_directory(test) cmocka_unit_test_setup_teardown(test, setup_directory, teardown)

/* ---- what must not change -------------------------------------------------------------------- */

struct totals {
    uint64_t lsn;
    uint64_t live_rows;
    uint64_t dead_rows;
    uint32_t collections;
};

static inline struct totals totals_of(struct vex_db *db)
{
    struct vex_stats stats = {.size = sizeof(stats)};
    assert_ok(vex_get_stats(db, &stats, sink));
    return (struct totals){stats.lsn, stats.live_rows, stats.dead_rows, stats.collections};
}

static inline void assert_unchanged(struct vex_db *db, const struct totals *before)
{
    struct totals now = totals_of(db);
    assert_int_equal(now.lsn, before->lsn);
    assert_int_equal(now.live_rows, before->live_rows);
    assert_int_equal(now.dead_rows, before->dead_rows);
    assert_int_equal(now.collections, before->collections);
}

static inline uint64_t count_of(struct vex_collection *collection)
{
    uint64_t count = UINT64_MAX;
    assert_ok(vex_count(collection, NULL, &count, sink));
    return count;
}

static inline bool exists_in(struct vex_collection *collection, uint64_t id)
{
    bool there = false;
    assert_ok(vex_exists(collection, id, NULL, &there, sink));
    return there;
}

/* Fails unless `id` is there with exactly these bytes; `payload` NULL: it must have none. */
static inline void assert_holds(struct vex_collection *collection, uint64_t id, const float *vector,
                                size_t dim, const void *payload, size_t payload_bytes)
{
    float *got = test_malloc(dim * sizeof(*got));
    void *bytes = test_malloc(VEX_PAYLOAD_MAX);
    struct vex_record record = {.size = sizeof(record)};
    assert_ok(vex_get(collection, id, NULL, got, dim, bytes, VEX_PAYLOAD_MAX, &record, sink));
    assert_memory_equal(got, vector, dim * sizeof(*got));
    assert_int_equal(record.id, id);
    assert_int_equal(record.payload_bytes, payload_bytes);
    assert_ptr_equal(record.payload, payload ? bytes : NULL);
    if (payload) {
        assert_memory_equal(bytes, payload, payload_bytes);
    }
    test_free(bytes);
    test_free(got);
}

#endif
