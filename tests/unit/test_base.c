/*
 * What everything else leans on: checked arithmetic at its edges, the growable buffer, the hash whose
 * values are on disk, status codes and error messages. Hash values are compared with published ones,
 * because a hash that is merely self-consistent would make old files unreadable unnoticed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/linger.h"
#include "base/panic.h"
#include "tests/lib/child.h"
#include "tests/lib/random.h"

#define COUNT_OF(array) (sizeof(array) / sizeof(*(array)))

static uint64_t seed;

/* ---- arithmetic ------------------------------------------------------------------------------ */

static const size_t edges[] = {
    0,
    1,
    2,
    3,
    255,
    4096,
    UINT32_MAX - 1u,
    UINT32_MAX,
    (size_t)UINT32_MAX + 1,
    ((size_t)1 << 63) - 1,
    (size_t)1 << 63,
    ((size_t)1 << 63) + 1,
    SIZE_MAX / 2,
    SIZE_MAX / 3,
    SIZE_MAX - 2,
    SIZE_MAX - 1,
    SIZE_MAX,
};

static void check_add(size_t a, size_t b)
{
    size_t out = 12345;
    bool fits = vex_add(a, b, &out);
    assert_int_equal(fits, b <= SIZE_MAX - a);
    assert_int_equal(out, fits ? a + b : 12345);
}

static void check_multiply(size_t a, size_t b)
{
    size_t out = 12345;
    bool fits = vex_multiply(a, b, &out);
    assert_int_equal(fits, a == 0 || b <= SIZE_MAX / a);
    assert_int_equal(out, fits ? a * b : 12345);
}

static void sums_and_products_that_overflow_are_refused_and_leave_the_output_alone(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(edges); i++) {
        for (size_t j = 0; j < COUNT_OF(edges); j++) {
            check_add(edges[i], edges[j]);
            check_multiply(edges[i], edges[j]);
        }
    }
    struct vex_random random = vex_random_seeded(seed);
    for (int i = 0; i < 100000; i++) {
        size_t a = vex_random_next(&random) >> vex_random_below(&random, 64);
        size_t b = vex_random_next(&random) >> vex_random_below(&random, 64);
        check_add(a, b);
        check_multiply(a, b);
    }
}

static void the_output_may_be_an_operand(void **state)
{
    (void)state;
    size_t value = 6;
    assert_true(vex_add(value, value, &value));
    assert_int_equal(value, 12);
    assert_true(vex_multiply(value, value, &value));
    assert_int_equal(value, 144);
}

static void rounding_up_gives_the_next_multiple(void **state)
{
    (void)state;
    for (unsigned bits = 0; bits < 32; bits++) {
        uint64_t unit = (uint64_t)1 << bits;
        assert_int_equal(vex_round_up(0, unit), 0);
        assert_int_equal(vex_round_up(1, unit), unit);
        assert_int_equal(vex_round_up(unit, unit), unit);
        assert_int_equal(vex_round_up(unit + 1, unit), unit == 1 ? 2 : 2 * unit);
        assert_int_equal(vex_round_up(7 * unit - 1, unit), unit == 1 ? 6 : 7 * unit);
    }
    assert_int_equal(vex_round_up(UINT64_MAX - 4095, 4096), UINT64_MAX - 4095);
}

static void numbers_are_little_endian_at_any_address(void **state)
{
    (void)state;
    uint8_t bytes[24];
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (uint8_t)(i + 1);
    }
    for (size_t at = 0; at < 8; at++) {
        uint64_t wide = 0;
        for (size_t i = 8; i-- > 0;) {
            wide = wide << 8 | bytes[at + i];
        }
        assert_int_equal(vex_load_u64(bytes + at), wide);
        assert_int_equal(vex_load_u32(bytes + at), (uint32_t)wide);
    }
}

/* ---- hashes ---------------------------------------------------------------------------------- */

static void hashes_have_their_published_values(void **state)
{
    (void)state;
    /* XXH3-64 of nothing, from the test vectors of xxHash. */
    assert_int_equal(vex_hash64("", 0, 0), 0x2d06800538d394c2u);
    /* First outputs of SplitMix64 for the seed 0. */
    assert_int_equal(vex_mix64(0x9e3779b97f4a7c15u), 0xe220a8397b1dcdafu);
    assert_int_equal(vex_mix64(2 * 0x9e3779b97f4a7c15u), 0x6e789e6aa1b965f4u);
}

static void a_hash_depends_on_every_bit_and_on_its_seed(void **state)
{
    (void)state;
    uint8_t data[300];
    struct vex_random random = vex_random_seeded(seed);
    vex_random_fill(&random, data, sizeof(data));
    for (size_t bytes = 1; bytes <= sizeof(data); bytes += 23) {
        uint64_t hash = vex_hash64(data, bytes, 7);
        assert_int_not_equal(hash, vex_hash64(data, bytes, 8));
        assert_int_not_equal(hash, vex_hash64(data, bytes - 1, 7));
        for (size_t bit = 0; bit < 8 * bytes; bit++) {
            data[bit / 8] ^= (uint8_t)(1u << bit % 8);
            assert_int_not_equal(hash, vex_hash64(data, bytes, 7));
            data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        assert_int_equal(hash, vex_hash64(data, bytes, 7));
    }
}

/* ---- buffer ---------------------------------------------------------------------------------- */

static void a_buffer_holds_what_was_appended_and_not_consumed(void **state)
{
    (void)state;
    static uint8_t shadow[1 << 16];
    uint8_t piece[700];
    size_t shadow_bytes = 0;
    struct vex_buffer buffer = {0};
    struct vex_random random = vex_random_seeded(seed);
    for (int i = 0; i < 5000; i++) {
        size_t bytes = vex_random_below(&random, sizeof(piece));
        if (vex_random_below(&random, 5) < 3 && shadow_bytes + bytes <= sizeof(shadow)) {
            vex_random_fill(&random, piece, bytes);
            assert_true(vex_buffer_append(&buffer, piece, bytes));
            memcpy(shadow + shadow_bytes, piece, bytes);
            shadow_bytes += bytes;
        } else {
            bytes = bytes > shadow_bytes ? shadow_bytes : bytes;
            vex_buffer_consume(&buffer, bytes);
            shadow_bytes -= bytes;
            memmove(shadow, shadow + bytes, shadow_bytes);
        }
        assert_int_equal(buffer.bytes, shadow_bytes);
        assert_true(buffer.capacity >= buffer.bytes);
        if (shadow_bytes) {
            assert_memory_equal(buffer.data, shadow, shadow_bytes);
        }
    }
    vex_buffer_deinit(&buffer);
}

static void appending_nothing_to_nothing_is_fine(void **state)
{
    (void)state;
    struct vex_buffer buffer = {0};
    assert_true(vex_buffer_append(&buffer, NULL, 0));
    assert_true(vex_buffer_reserve(&buffer, 0));
    vex_buffer_consume(&buffer, 0);
    assert_int_equal(buffer.bytes, 0);
    vex_buffer_deinit(&buffer);
    vex_buffer_deinit(&buffer);
    assert_null(buffer.data);
}

static void reserved_room_takes_appends_without_moving(void **state)
{
    (void)state;
    struct vex_buffer buffer = {0};
    assert_true(vex_buffer_reserve(&buffer, 5000));
    assert_true(buffer.capacity >= 5000);
    const uint8_t *before = buffer.data;
    for (int i = 0; i < 5000; i++) {
        assert_true(vex_buffer_append(&buffer, &i, 1));
    }
    assert_ptr_equal(buffer.data, before);
    vex_buffer_deinit(&buffer);
}

#ifdef __SANITIZE_THREAD__
/* Impossible sizes are asked for on purpose below; this sanitizer ends the program by default. */
__attribute__((visibility("default"))) const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "allocator_may_return_null=1";
}
#endif

static void a_buffer_keeps_what_it_has_when_there_is_no_memory_for_more(void **state)
{
    (void)state;
    struct vex_buffer buffer = {0};
    assert_true(vex_buffer_append(&buffer, "kept", 4));
    struct vex_buffer before = buffer;
    const size_t impossible[] = {SIZE_MAX,       SIZE_MAX - 3,    SIZE_MAX - 4,
                                 SIZE_MAX / 2,   (size_t)1 << 63, ((size_t)1 << 63) - 4,
                                 (size_t)1 << 62};
    for (size_t i = 0; i < COUNT_OF(impossible); i++) {
        assert_false(vex_buffer_reserve(&buffer, impossible[i]));
        assert_memory_equal(&buffer, &before, sizeof(buffer));
        assert_memory_equal(buffer.data, "kept", 4);
    }
    vex_buffer_deinit(&buffer);
}

/* ---- status codes ---------------------------------------------------------------------------- */

static void every_status_has_a_number_a_name_and_a_text_of_its_own(void **state)
{
    (void)state;
    static const struct {
        enum vex_status status;
        int number;
        const char *name;
    } table[] = {
#define ROW(name, number, text) {VEX_##name, number, "VEX_" #name},
        VEX_STATUS_TABLE(ROW)
#undef ROW
    };
    for (size_t i = 0; i < COUNT_OF(table); i++) {
        /* Dense from 0, so that a table indexed by them is possible and a number used twice shows. */
        assert_int_equal(table[i].number, i);
        assert_int_equal(table[i].status, table[i].number);
        assert_string_equal(vex_base_status_name(table[i].status), table[i].name);
        assert_true(strlen(vex_base_status_text(table[i].status)) > 0);
        for (size_t j = 0; j < i; j++) {
            assert_string_not_equal(vex_base_status_text(table[i].status),
                                    vex_base_status_text(table[j].status));
        }
    }
    enum vex_status unknown = (enum vex_status)COUNT_OF(table);
    assert_string_equal(vex_base_status_text(unknown), "unknown status");
    assert_string_equal(vex_base_status_name(unknown), "VEX_ERR_UNKNOWN");
}

/* They are on the wire and in exit codes of scripts: changing one breaks whoever wrote it down. */
static void numbers_of_statuses_are_fixed(void **state)
{
    (void)state;
    assert_int_equal(VEX_OK, 0);
    assert_int_equal(VEX_ERR_INVALID, 1);
    assert_int_equal(VEX_ERR_DIM, 2);
    assert_int_equal(VEX_ERR_NOT_FINITE, 3);
    assert_int_equal(VEX_ERR_ZERO_VECTOR, 4);
    assert_int_equal(VEX_ERR_LIMIT, 5);
    assert_int_equal(VEX_ERR_BUFFER, 6);
    assert_int_equal(VEX_ERR_NO_COLLECTION, 7);
    assert_int_equal(VEX_ERR_NOT_FOUND, 8);
    assert_int_equal(VEX_ERR_EXISTS, 9);
    assert_int_equal(VEX_ERR_NOMEM, 10);
    assert_int_equal(VEX_ERR_NO_SPACE, 11);
    assert_int_equal(VEX_ERR_IO, 12);
    assert_int_equal(VEX_ERR_CORRUPT, 13);
    assert_int_equal(VEX_ERR_FORMAT, 14);
    assert_int_equal(VEX_ERR_UNAVAILABLE, 15);
    assert_int_equal(VEX_ERR_UNKNOWN_OUTCOME, 16);
    assert_int_equal(VEX_ERR_TIMEOUT, 17);
    assert_int_equal(VEX_ERR_PROTOCOL, 18);
    assert_int_equal(VEX_ERR_VERSION, 19);
    assert_int_equal(VEX_ERR_BUSY, 20);
    assert_int_equal(VEX_ERR_READ_ONLY, 21);
    assert_int_equal(VEX_ERR_GONE, 22);
    assert_int_equal(VEX_ERR_PERMISSION, 23);
}

static void errno_values_become_the_status_a_caller_can_act_on(void **state)
{
    (void)state;
    assert_int_equal(vex_status_from_errno(ENOSPC), VEX_ERR_NO_SPACE);
    assert_int_equal(vex_status_from_errno(EDQUOT), VEX_ERR_NO_SPACE);
    assert_int_equal(vex_status_from_errno(ENOMEM), VEX_ERR_NOMEM);
    assert_int_equal(vex_status_from_errno(EACCES), VEX_ERR_PERMISSION);
    assert_int_equal(vex_status_from_errno(EPERM), VEX_ERR_PERMISSION);
    assert_int_equal(vex_status_from_errno(EIO), VEX_ERR_IO);
    assert_int_equal(vex_status_from_errno(0), VEX_ERR_IO);
}

/* ---- messages -------------------------------------------------------------------------------- */

static void a_message_says_what_it_was_told(void **state)
{
    (void)state;
    struct vex_error error = {VEX_OK, 77, "old"};
    assert_int_equal(vex_error_set(&error, VEX_ERR_DIM, "dim %u of %s", 3u, "words"), VEX_ERR_DIM);
    assert_int_equal(error.status, VEX_ERR_DIM);
    assert_int_equal(error.os_errno, 0);
    assert_string_equal(error.message, "dim 3 of words");

    assert_int_equal(vex_error_os(&error, VEX_ERR_IO, ENOSPC, "write %s", "a file"), VEX_ERR_IO);
    assert_int_equal(error.status, VEX_ERR_IO);
    assert_int_equal(error.os_errno, ENOSPC);
    assert_string_equal(error.message, "write a file: No space left on device");

    assert_int_equal(vex_error_wrap(&error, VEX_ERR_IO, "open %d", 41), VEX_ERR_IO);
    assert_int_equal(error.os_errno, ENOSPC);
    assert_string_equal(error.message, "open 41: write a file: No space left on device");
}

static void an_unknown_errno_has_a_text_too(void **state)
{
    (void)state;
    struct vex_error error;
    assert_int_equal(vex_error_os(&error, VEX_ERR_IO, 99999, "call"), VEX_ERR_IO);
    assert_string_equal(error.message, "call: unknown error");
}

static void no_message_is_made_where_none_is_wanted(void **state)
{
    (void)state;
    assert_int_equal(vex_error_set(NULL, VEX_ERR_DIM, "%s", "x"), VEX_ERR_DIM);
    assert_int_equal(vex_error_os(NULL, VEX_ERR_IO, EIO, "%s", "x"), VEX_ERR_IO);
    assert_int_equal(vex_error_wrap(NULL, VEX_ERR_GONE, "%s", "x"), VEX_ERR_GONE);
}

/* Something behind the message would show a write over its end. */
struct guarded {
    struct vex_error error;
    uint8_t guard[64];
};

static void check_guarded(const struct guarded *guarded)
{
    assert_non_null(memchr(guarded->error.message, 0, sizeof(guarded->error.message)));
    for (size_t i = 0; i < sizeof(guarded->guard); i++) {
        assert_int_equal(guarded->guard[i], 0xee);
    }
}

static void long_messages_are_cut_and_terminated(void **state)
{
    (void)state;
    char text[600];
    for (size_t length = 200; length < sizeof(text); length++) {
        memset(text, 'x', length);
        text[length] = 0;
        struct guarded guarded;
        memset(&guarded, 0xee, sizeof(guarded));
        (void)vex_error_set(&guarded.error, VEX_ERR_IO, "%s", text);
        check_guarded(&guarded);
        size_t kept = strlen(guarded.error.message);
        assert_int_equal(kept, length < 247 ? length : 247);
        (void)vex_error_os(&guarded.error, VEX_ERR_IO, EIO, "%s", text);
        check_guarded(&guarded);
        (void)vex_error_wrap(&guarded.error, VEX_ERR_IO, "%s", text);
        check_guarded(&guarded);
    }
}

static void wrapping_many_times_keeps_the_outermost_context(void **state)
{
    (void)state;
    struct guarded guarded;
    memset(&guarded, 0xee, sizeof(guarded));
    (void)vex_error_os(&guarded.error, VEX_ERR_CORRUPT, EIO, "inside");
    for (int i = 0; i < 300; i++) {
        (void)vex_error_wrap(&guarded.error, VEX_ERR_CORRUPT, "level %d", i);
        check_guarded(&guarded);
    }
    assert_int_equal(guarded.error.os_errno, EIO);
    assert_memory_equal(guarded.error.message, "level 299: level 298: ", 22);
}

static void a_message_is_never_taken_for_a_format(void **state)
{
    (void)state;
    struct vex_error error;
    (void)vex_error_set(&error, VEX_ERR_IO, "%s", "100%n%s%x");
    (void)vex_error_wrap(&error, VEX_ERR_IO, "file %s", "%d%n");
    assert_string_equal(error.message, "file %d%n: 100%n%s%x");
}

/* ---- assertions and time --------------------------------------------------------------------- */

static int break_a_promise(void *context)
{
    (void)freopen("/dev/null", "w", stderr);
    VEX_ASSERT(context != NULL);
    return 0;
}

static void a_broken_promise_ends_the_program(void **state)
{
    (void)state;
    int kept = 1;
    assert_int_equal(vex_child_run(break_a_promise, &kept), 0);
    assert_int_equal(vex_child_run(break_a_promise, NULL), -SIGABRT);
}

static void deep_checks_cost_nothing_where_they_are_off(void **state)
{
    (void)state;
    int looked = 0;
    VEX_CHECK_DEEP(++looked > 0);
#ifdef VEX_DEEP_CHECKS
    assert_int_equal(looked, 1);
#else
    assert_int_equal(looked, 0);
#endif
}

static void time_never_runs_backwards(void **state)
{
    (void)state;
    uint64_t before = vex_clock_ns();
    for (int i = 0; i < 10000; i++) {
        uint64_t now = vex_clock_ns();
        assert_true(now >= before);
        before = now;
    }
    assert_true(vex_clock_ms() >= before / 1000000u);
}

/* ---- lingering ------------------------------------------------------------------------------- */

static struct vex_linger linger_after(unsigned cores_count, uint64_t wait_ns)
{
    struct vex_linger linger;
    vex_linger_init(&linger, cores_count);
    for (int i = 0; i < 100; i++) {
        vex_linger_learn_wait(&linger, wait_ns);
    }
    return linger;
}

static void nobody_lingers_before_waits_have_been_short(void **state)
{
    (void)state;
    struct vex_linger linger;
    vex_linger_init(&linger, 2);
    assert_int_equal(vex_linger_budget_ns(&linger), 0);
    vex_linger_learn_wait(&linger, 80000);
    assert_int_equal(vex_linger_budget_ns(&linger), 0);
    vex_linger_begin(&linger);
    assert_false(vex_linger_more(&linger));
}

static void lingering_is_for_waits_that_are_short(void **state)
{
    (void)state;
    const struct vex_linger disk = linger_after(2, 80000);
    assert_in_range(vex_linger_budget_ns(&disk), 150000, 170000);
    const struct vex_linger instant = linger_after(2, 0);
    assert_in_range(vex_linger_budget_ns(&instant), 1, VEX_LINGER_WAIT_MAX_NS / 10);
    const struct vex_linger limit = linger_after(2, VEX_LINGER_WAIT_MAX_NS);
    assert_in_range(vex_linger_budget_ns(&limit), 1, VEX_LINGER_WAIT_MAX_NS);
    const struct vex_linger slow_disk = linger_after(2, 3300000);
    assert_int_equal(vex_linger_budget_ns(&slow_disk), 0);
    const struct vex_linger idle = linger_after(2, UINT64_MAX);
    assert_int_equal(vex_linger_budget_ns(&idle), 0);
}

static void nobody_lingers_on_a_single_core(void **state)
{
    (void)state;
    const struct vex_linger linger = linger_after(1, 80000);
    assert_int_equal(vex_linger_budget_ns(&linger), 0);
    assert_true(vex_linger_cores() >= 1);
}

static void one_pause_is_forgiven_and_many_are_not(void **state)
{
    (void)state;
    struct vex_linger linger = linger_after(2, 80000);
    vex_linger_learn_wait(&linger, 500000000);
    assert_true(vex_linger_budget_ns(&linger) > 0);
    for (int i = 0; i < 4; i++) {
        vex_linger_learn_wait(&linger, 500000000);
    }
    assert_int_equal(vex_linger_budget_ns(&linger), 0);
    for (int i = 0; i < 20; i++) {
        vex_linger_learn_wait(&linger, 80000);
    }
    assert_true(vex_linger_budget_ns(&linger) > 0);
}

/* Waits that are slept through once a core was given away for too long. */
static unsigned waits_skipped(struct vex_linger *linger)
{
    unsigned skipped = 0;
    for (; vex_linger_budget_ns(linger) == 0; skipped++) {
        assert_true(skipped < 100000);
        vex_linger_learn_wait(linger, 80000);
    }
    return skipped;
}

static void a_core_that_others_want_is_left_to_them_for_longer_each_time(void **state)
{
    (void)state;
    struct vex_linger linger = linger_after(2, 80000);
    assert_true(vex_linger_learn_yield(&linger, VEX_LINGER_YIELD_MAX_NS));
    assert_true(vex_linger_budget_ns(&linger) > 0);
    unsigned before = 0;
    for (int i = 0; i < 5; i++) {
        assert_false(vex_linger_learn_yield(&linger, VEX_LINGER_YIELD_MAX_NS + 1));
        unsigned skipped = waits_skipped(&linger);
        assert_true(skipped > before);
        before = skipped;
    }
    for (int i = 0; i < 40; i++) {
        assert_false(vex_linger_learn_yield(&linger, UINT64_MAX));
    }
    assert_true(waits_skipped(&linger) < 10000); /* but never for ever */
}

static void lingering_ends_with_its_budget(void **state)
{
    (void)state;
    struct vex_linger linger = linger_after(2, 80000);
    uint64_t start_ns = vex_clock_ns();
    vex_linger_begin(&linger);
    unsigned looks = 0;
    while (vex_linger_more(&linger)) {
        looks++;
    }
    /* Whatever the load: it ends at the budget, or because the core was away. */
    bool in_time = vex_clock_ns() - start_ns >= 160000;
    assert_true(in_time || linger.skip > 0);
    assert_true(looks > 0 || linger.skip > 0);
    vex_linger_end(&linger);
    assert_false(vex_linger_more(&linger));
}

int main(void)
{
    seed = vex_random_announce("test_base");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_and_products_that_overflow_are_refused_and_leave_the_output_alone),
        cmocka_unit_test(the_output_may_be_an_operand),
        cmocka_unit_test(rounding_up_gives_the_next_multiple),
        cmocka_unit_test(numbers_are_little_endian_at_any_address),
        cmocka_unit_test(hashes_have_their_published_values),
        cmocka_unit_test(a_hash_depends_on_every_bit_and_on_its_seed),
        cmocka_unit_test(a_buffer_holds_what_was_appended_and_not_consumed),
        cmocka_unit_test(appending_nothing_to_nothing_is_fine),
        cmocka_unit_test(reserved_room_takes_appends_without_moving),
        cmocka_unit_test(a_buffer_keeps_what_it_has_when_there_is_no_memory_for_more),
        cmocka_unit_test(every_status_has_a_number_a_name_and_a_text_of_its_own),
        cmocka_unit_test(numbers_of_statuses_are_fixed),
        cmocka_unit_test(errno_values_become_the_status_a_caller_can_act_on),
        cmocka_unit_test(a_message_says_what_it_was_told),
        cmocka_unit_test(an_unknown_errno_has_a_text_too),
        cmocka_unit_test(no_message_is_made_where_none_is_wanted),
        cmocka_unit_test(long_messages_are_cut_and_terminated),
        cmocka_unit_test(wrapping_many_times_keeps_the_outermost_context),
        cmocka_unit_test(a_message_is_never_taken_for_a_format),
        cmocka_unit_test(a_broken_promise_ends_the_program),
        cmocka_unit_test(deep_checks_cost_nothing_where_they_are_off),
        cmocka_unit_test(time_never_runs_backwards),
        cmocka_unit_test(nobody_lingers_before_waits_have_been_short),
        cmocka_unit_test(lingering_is_for_waits_that_are_short),
        cmocka_unit_test(nobody_lingers_on_a_single_core),
        cmocka_unit_test(one_pause_is_forgiven_and_many_are_not),
        cmocka_unit_test(a_core_that_others_want_is_left_to_them_for_longer_each_time),
        cmocka_unit_test(lingering_ends_with_its_budget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
