/*
 * Two lives of a daemon on one instance never use a name of shared memory twice: a reader that still holds
 * the first one's list of segments would map the second one's half-filled memory.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/publisher.h"

#define SEGMENTS 50u

static void segment_numbers_of_two_lives(uint64_t *out_ids, const uint8_t *key)
{
    struct vex_publisher *publisher = NULL;
    assert_int_equal(vex_publisher_open(key, &publisher, NULL), VEX_OK);
    for (unsigned i = 0; i < SEGMENTS; i++) {
        struct vex_segment_shape shape = {
            .collection_id = 1, .metric = VEX_METRIC_L2, .dim = 1, .capacity_rows = 1};
        struct vex_home *home = NULL;
        assert_int_equal(vex_publisher_make_home(publisher, &shape, &home, NULL), VEX_OK);
        out_ids[i] = home->writer.segment.segment_id;
        vex_publisher_discard_home(publisher, &home);
    }
    vex_publisher_close(publisher);
}

static void two_lives_share_no_segment_number(void **state)
{
    (void)state;
    uint8_t key[VEX_UUID_BYTES] = {0};
    const int64_t pid = getpid();
    memcpy(key, &pid, sizeof(pid));
    uint64_t first[SEGMENTS];
    uint64_t second[SEGMENTS];
    segment_numbers_of_two_lives(first, key);
    segment_numbers_of_two_lives(second, key);
    for (unsigned i = 0; i < SEGMENTS; i++) {
        for (unsigned j = 0; j < SEGMENTS; j++) {
            assert_int_not_equal(first[i], second[j]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_lives_share_no_segment_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
