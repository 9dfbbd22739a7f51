/*
 * The row by row check: silent on whatever the registry makes, and each kind of wrong content is found, in a
 * registry that is damaged by hand, one thing at a time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/merge.h"
#include "daemon/verify.h"

#define DIM 3u
#define ROWS 50u

struct bench {
    uint8_t key[VEX_UUID_BYTES];
    struct vex_publisher *publisher;
    struct vex_registry *registry;
    struct vex_live_collection *collection;
    uint64_t lsn;
};

static void put(struct bench *bench, uint64_t id, float value)
{
    const float vector[DIM] = {value, 2, -value};
    const char payload[] = "payload";
    const uint32_t bytes = sizeof(payload);
    struct vex_location old;
    bool there = vex_registry_get_offset(bench->collection, id, &old);
    assert_int_equal(vex_registry_reserve(bench->registry, bench->collection, 1, &bytes, NULL),
                     VEX_OK);
    vex_registry_update_offset(bench->registry, bench->collection, id, vector, payload, bytes,
                               there ? &old : NULL, ++bench->lsn);
}

static void drop(struct bench *bench, uint64_t id)
{
    struct vex_location location;
    assert_true(vex_registry_get_offset(bench->collection, id, &location));
    vex_registry_mark_deleted(bench->registry, bench->collection, location, ++bench->lsn);
}

/* Two segments; ids 0..ROWS-1 in the first, of which some are replaced in the second and some deleted. */
static int make_bench(void **state)
{
    struct bench *bench = calloc(1, sizeof(*bench));
    assert_non_null(bench);
    const int64_t pid = getpid();
    memcpy(bench->key, &pid, sizeof(pid));
    assert_int_equal(vex_publisher_open(bench->key, &bench->publisher, NULL), VEX_OK);
    assert_int_equal(vex_registry_open(bench->publisher, &bench->registry, NULL), VEX_OK);
    const struct vex_collection_facts facts = {.id = 1,
                                               .dim = DIM,
                                               .metric = VEX_METRIC_L2,
                                               .m = 16,
                                               .ef_construction = 200,
                                               .name = "points"};
    bench->collection = vex_registry_create(bench->registry, &facts, ++bench->lsn);
    for (uint32_t id = 0; id < ROWS; id++) {
        put(bench, id, (float)id);
    }
    vex_registry_seal(bench->registry);
    for (uint32_t id = 0; id < ROWS; id += 5) {
        put(bench, id, (float)id + 0.5f);
    }
    drop(bench, 1);
    drop(bench, 5);
    *state = bench;
    return 0;
}

static int remove_bench(void **state)
{
    struct bench *bench = *state;
    vex_registry_close(bench->registry);
    vex_publisher_close(bench->publisher);
    vex_region_unlink_all(bench->key);
    free(bench);
    return 0;
}

static struct vex_segment *segment_of(struct bench *bench, uint32_t number)
{
    assert_true(bench->collection->homes_count > number);
    return &bench->collection->homes[number]->writer.segment;
}

/* A column's word, to be changed behind the registry's back: readers have it as constant. */
static void overwrite(uintptr_t at, const void *bytes, size_t count)
{
    memcpy((void *)at, bytes, count);
}

static void finds(struct bench *bench, const char *word)
{
    struct vex_verify_result result;
    vex_verify_collection(bench->collection, &result);
    assert_true(result.faults > 0);
    if (!strstr(result.first_fault, word)) {
        fail_msg("'%s' does not name '%s'", result.first_fault, word);
    }
}

static bool never_rest(void *context, uint64_t bytes)
{
    (void)context;
    (void)bytes;
    return true;
}

static void sound_content_is_sound(void **state)
{
    struct bench *bench = *state;
    struct vex_verify_result result;
    vex_verify_collection(bench->collection, &result);
    assert_string_equal(result.first_fault, "");
    assert_int_equal(result.faults, 0);
    assert_int_equal(result.segments, 2);
    assert_int_equal(result.live_rows, ROWS - 2);
    assert_int_equal(result.dead_rows, ROWS / 5 + 2);
    assert_int_equal(result.payload_bytes, (ROWS - 2) * sizeof("payload"));
}

/* The first segment once more, with a graph. */
static void add_graph(struct bench *bench)
{
    struct vex_merge_job job = {
        .lsn = bench->lsn,
        .shape = {.segment_id = vex_publisher_new_segment_id(bench->publisher),
                  .collection_id = 1,
                  .metric = VEX_METRIC_L2,
                  .dim = DIM,
                  .graph = {16, 50}},
        .sources_count = 1,
    };
    memcpy(job.key, bench->key, sizeof(job.key));
    job.sources[0] = bench->collection->homes[0];
    struct vex_merge_claim claim;
    vex_registry_begin_merge(bench->registry, &claim, bench->collection, 0, 1);
    vex_merge_run(&job, &(struct vex_pace){never_rest, NULL});
    assert_int_equal(job.status, VEX_OK);
    assert_true(vex_registry_end_merge(bench->registry, &claim, &job.merged, NULL));
    assert_true(segment_of(bench, 0)->graph.nodes_count > 0);
}

static void a_link_of_a_graph_that_leads_outside_is_found(void **state)
{
    struct bench *bench = *state;
    add_graph(bench);
    struct vex_verify_result result;
    vex_verify_collection(bench->collection, &result);
    assert_string_equal(result.first_fault, "");
    const uint32_t beyond = 1u << 29;
    overwrite((uintptr_t)segment_of(bench, 0)->graph.layers[0].rows, &beyond, sizeof(beyond));
    finds(bench, "segment 0");
}

static void a_row_whose_id_is_another_is_found(void **state)
{
    const uint64_t id = 7777777;
    overwrite((uintptr_t)&segment_of(*state, 0)->ids[3], &id, sizeof(id));
    finds(*state, "7777777");
}

static void an_id_that_lives_twice_is_found(void **state)
{
    struct bench *bench = *state;
    uint64_t none = 0; /* row 10 of the first segment was replaced in the second */
    overwrite((uintptr_t)&segment_of(bench, 0)->deaths[10], &none, sizeof(none));
    finds(bench, "alive twice");
}

static void a_lost_way_from_id_to_row_is_found(void **state)
{
    struct vex_segment *segment = segment_of(*state, 0);
    const uint32_t nothing = 0;
    for (uint32_t i = 0; i < segment->hash_slots; i++) {
        overwrite((uintptr_t)&segment->hash[i], &nothing, sizeof(nothing));
    }
    finds(*state, "not found");
}

static void a_payload_outside_is_found(void **state)
{
    struct vex_segment *segment = segment_of(*state, 0);
    const uint64_t far = (segment->payload_capacity_bytes << 20) | 9;
    overwrite((uintptr_t)&segment->payload_refs[2], &far, sizeof(far));
    finds(*state, "payload");
}

static void a_payload_behind_those_in_use_is_found(void **state)
{
    struct bench *bench = *state;
    const uint64_t unused = (bench->collection->homes[0]->writer.payload_bytes << 20) | 9;
    overwrite((uintptr_t)&segment_of(bench, 0)->payload_refs[2], &unused, sizeof(unused));
    finds(bench, "payload");
}

static void a_wrong_vector_is_found(void **state)
{
    const float other = 1000;
    overwrite((uintptr_t)vex_segment_vector(segment_of(*state, 0), 2), &other, sizeof(other));
    finds(*state, "norm");
}

static void a_vector_that_is_not_finite_is_found(void **state)
{
    const uint32_t nan = 0x7fc00000;
    overwrite((uintptr_t)vex_segment_vector(segment_of(*state, 0), 2), &nan, sizeof(nan));
    finds(*state, "not finite");
}

static void a_death_that_is_not_counted_is_found(void **state)
{
    const uint64_t death = 1;
    overwrite((uintptr_t)&segment_of(*state, 0)->deaths[2], &death, sizeof(death));
    finds(*state, "are counted");
}

static void wrong_counts_are_found(void **state)
{
    struct bench *bench = *state;
    bench->collection->live_rows++;
    finds(bench, "are counted");
    bench->collection->live_rows--;
    bench->collection->homes[0]->dead_rows++;
    finds(bench, "are counted");
}

static void an_id_that_would_be_given_out_again_is_found(void **state)
{
    struct bench *bench = *state;
    bench->collection->next_id = 10;
    finds(bench, "out of bounds");
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, make_bench, remove_bench)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(sound_content_is_sound),
        CASE(a_link_of_a_graph_that_leads_outside_is_found),
        CASE(a_row_whose_id_is_another_is_found),
        CASE(an_id_that_lives_twice_is_found),
        CASE(a_lost_way_from_id_to_row_is_found),
        CASE(a_payload_outside_is_found),
        CASE(a_payload_behind_those_in_use_is_found),
        CASE(a_wrong_vector_is_found),
        CASE(a_vector_that_is_not_finite_is_found),
        CASE(a_death_that_is_not_counted_is_found),
        CASE(wrong_counts_are_found),
        CASE(an_id_that_would_be_given_out_again_is_found),
    };
    return cmocka_run_group_tests_name("daemon/verify", tests, NULL, NULL);
}
