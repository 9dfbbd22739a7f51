/* The checkpoint's body: what goes in comes out, and nothing else is believed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/image.h"

#define ROWS 130u
#define DIM 5u
#define LSN 50u

struct sample {
    void *memory;
    struct vex_segment_writer writer;
    struct vex_segment_shape shape;
};

/* Every third row is dead: half of those at LSN 50, half later. */
static struct sample make_sample(void)
{
    struct sample sample = {
        .shape = {.segment_id = 7,
                  .collection_id = 3,
                  .metric = VEX_METRIC_L2,
                  .dim = DIM,
                  .capacity_rows = 200,
                  .payload_capacity_bytes = 1000},
    };
    uint64_t bytes = vex_segment_memory_bytes(&sample.shape);
    sample.memory = aligned_alloc(4096, vex_round_up(bytes, 4096));
    assert_non_null(sample.memory);
    memset(sample.memory, 0, bytes);
    vex_segment_create(&sample.writer, &sample.shape, sample.memory);
    for (uint32_t row = 0; row < ROWS; row++) {
        const float vector[DIM] = {(float)row, 1, 2, 3, 4};
        (void)vex_segment_append(&sample.writer, 1000 + row, vector, "ab", row % 3);
        if (row % 3 == 0) {
            vex_segment_kill(&sample.writer, row, row % 2 ? LSN : LSN + 1);
        }
    }
    return sample;
}

static struct vex_buffer make_body(const struct sample *sample)
{
    struct vex_buffer body = {0};
    struct vex_image_collection collection = {.id = 3,
                                              .dim = DIM,
                                              .metric = VEX_METRIC_L2,
                                              .homes_count = 1,
                                              .next_id = 1130,
                                              .lsn = 49,
                                              .m = 16,
                                              .ef_construction = 200,
                                              .index = VEX_INDEX_IVF,
                                              .storage = VEX_STORAGE_INT8,
                                              .lists = 300};
    memcpy(collection.name, "points", 7);
    struct vex_image_home home = {
        .file_number = 99,
        .capacity_rows = sample->shape.capacity_rows,
        .rows = ROWS,
        .payload_capacity_bytes = 1000,
        .payload_bytes = sample->writer.payload_bytes,
    };
    assert_true(vex_image_begin(&body, 1, 8));
    assert_true(vex_image_add_collection(&body, &collection));
    assert_true(vex_image_add_home(&body, &home, &sample->writer.segment, LSN));
    return body;
}

/* Reads a body of one collection with one segment. */
static enum vex_status read_body(const uint8_t *data, size_t bytes, struct vex_image_home *home,
                                 const uint8_t **dead)
{
    struct vex_image_cursor cursor;
    struct vex_image_head head;
    struct vex_image_collection collection;
    enum vex_status status = vex_image_read_head(&cursor, data, bytes, &head, NULL);
    for (uint32_t i = 0; status == VEX_OK && i < head.collections_count; i++) {
        status = vex_image_read_collection(&cursor, &collection, NULL);
        for (uint32_t k = 0; status == VEX_OK && k < collection.homes_count; k++) {
            status = vex_image_read_home(&cursor, home, dead, NULL);
        }
    }
    return status == VEX_OK ? vex_image_read_end(&cursor, NULL) : status;
}

static void test_round_trip(void **state)
{
    (void)state;
    struct sample sample = make_sample();
    struct vex_buffer body = make_body(&sample);
    struct vex_image_cursor cursor;
    struct vex_image_head head;
    struct vex_image_collection collection;
    struct vex_image_home home;
    const uint8_t *dead = NULL;
    assert_int_equal(vex_image_read_head(&cursor, body.data, body.bytes, &head, NULL), VEX_OK);
    assert_int_equal(head.collections_count, 1);
    assert_int_equal(head.next_collection_id, 8);
    assert_int_equal(vex_image_read_collection(&cursor, &collection, NULL), VEX_OK);
    assert_string_equal(collection.name, "points");
    assert_int_equal(collection.next_id, 1130);
    struct vex_collection_facts facts = vex_image_facts(&collection);
    assert_int_equal(facts.index, VEX_INDEX_IVF);
    assert_int_equal(facts.storage, VEX_STORAGE_INT8);
    assert_int_equal(facts.lists, 300);
    assert_int_equal(vex_image_read_home(&cursor, &home, &dead, NULL), VEX_OK);
    assert_int_equal(home.file_number, 99);
    uint32_t dead_rows = 0;
    for (uint32_t row = 0; row < ROWS; row++) {
        bool is_dead = vex_load_u64(dead + row / 64 * 8) >> row % 64 & 1;
        assert_int_equal(is_dead, row % 6 == 3);
        dead_rows += is_dead;
    }
    assert_int_equal(home.dead_rows, dead_rows);
    assert_int_equal(vex_image_read_end(&cursor, NULL), VEX_OK);
    vex_buffer_deinit(&body);
    free(sample.memory);
}

static void test_cut_short(void **state)
{
    (void)state;
    struct sample sample = make_sample();
    struct vex_buffer body = make_body(&sample);
    struct vex_image_home home;
    const uint8_t *dead = NULL;
    for (size_t bytes = 0; bytes < body.bytes; bytes++) {
        /* A copy of exactly this size, so that a sanitizer sees a read behind it. */
        uint8_t *copy = malloc(bytes + 1);
        memcpy(copy, body.data, bytes);
        assert_int_equal(read_body(copy, bytes, &home, &dead), VEX_ERR_CORRUPT);
        free(copy);
    }
    assert_true(vex_buffer_append(&body, "12345678", 8));
    assert_int_equal(read_body(body.data, body.bytes, &home, &dead), VEX_ERR_CORRUPT);
    vex_buffer_deinit(&body);
    free(sample.memory);
}

static void test_out_of_bounds(void **state)
{
    (void)state;
    struct sample sample = make_sample();
    struct vex_buffer body = make_body(&sample);
    struct vex_image_home home;
    const uint8_t *dead = NULL;
    const size_t collection_at = sizeof(struct vex_image_head);
    const size_t home_at = collection_at + sizeof(struct vex_image_collection);
    const size_t bitmap_at = home_at + sizeof(struct vex_image_home);
    const struct {
        size_t at;
        uint32_t value;
        enum vex_status status;
    } changes[] = {
        {offsetof(struct vex_image_head, version), 3, VEX_ERR_VERSION},
        {offsetof(struct vex_image_head, collections_count), 1025, VEX_ERR_CORRUPT},
        {offsetof(struct vex_image_head, collections_count), 0, VEX_ERR_CORRUPT},
        {collection_at + offsetof(struct vex_image_collection, id), 0, VEX_ERR_CORRUPT},
        {collection_at + offsetof(struct vex_image_collection, dim), 0, VEX_ERR_CORRUPT},
        {collection_at + offsetof(struct vex_image_collection, dim), 1u << 20, VEX_ERR_CORRUPT},
        {collection_at + offsetof(struct vex_image_collection, metric), 9, VEX_ERR_CORRUPT},
        {collection_at + offsetof(struct vex_image_collection, index), 4, VEX_ERR_CORRUPT},
        {collection_at + offsetof(struct vex_image_collection, index), 3u << 16, VEX_ERR_CORRUPT},
        {collection_at + offsetof(struct vex_image_collection, lists), VEX_LISTS_MAX + 1,
         VEX_ERR_CORRUPT},
        {collection_at + offsetof(struct vex_image_collection, m), 65, VEX_ERR_CORRUPT},
        {collection_at + offsetof(struct vex_image_collection, ef_construction), 7,
         VEX_ERR_CORRUPT},
        {collection_at + offsetof(struct vex_image_collection, homes_count), 255, VEX_ERR_CORRUPT},
        {collection_at + offsetof(struct vex_image_collection, name), 0x2f2f2f2f, VEX_ERR_CORRUPT},
        {home_at + offsetof(struct vex_image_home, rows), 0, VEX_ERR_CORRUPT},
        {home_at + offsetof(struct vex_image_home, rows), 201, VEX_ERR_CORRUPT},
        {home_at + offsetof(struct vex_image_home, capacity_rows), 129, VEX_ERR_CORRUPT},
        {home_at + offsetof(struct vex_image_home, payload_bytes), 1001, VEX_ERR_CORRUPT},
        {home_at + offsetof(struct vex_image_home, dead_rows), 0, VEX_ERR_CORRUPT},
        {home_at + offsetof(struct vex_image_home, dead_rows), 21, VEX_ERR_CORRUPT},
        {home_at + offsetof(struct vex_image_home, dead_rows), ROWS + 1, VEX_ERR_CORRUPT},
        {bitmap_at, 0, VEX_ERR_CORRUPT},
        {bitmap_at + 20, 0xffffffff, VEX_ERR_CORRUPT},
    };
    assert_int_equal(read_body(body.data, body.bytes, &home, &dead), VEX_OK);
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        uint32_t before = vex_load_u32(body.data + changes[i].at);
        memcpy(body.data + changes[i].at, &changes[i].value, 4);
        assert_int_equal(read_body(body.data, body.bytes, &home, &dead), changes[i].status);
        memcpy(body.data + changes[i].at, &before, 4);
    }
    vex_buffer_deinit(&body);
    free(sample.memory);
}

/* The stored ranges hold everything: zeroing the rest and reading back gives the same segment. */
static void test_used_ranges(void **state)
{
    (void)state;
    struct sample sample = make_sample();
    uint64_t bytes = vex_round_up(vex_segment_memory_bytes(&sample.shape), 4096);
    uint8_t *copy = aligned_alloc(4096, bytes);
    memset(copy, 0, bytes);
    struct vex_segment_range ranges[VEX_SEGMENT_RANGES_MAX];
    uint32_t image_count = 0;
    uint32_t count = vex_segment_used_ranges(&sample.shape, ROWS, sample.writer.payload_bytes,
                                             ranges, &image_count);
    assert_int_equal(count, image_count + 1);
    uint64_t end = 0;
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(ranges[i].offset % 4096, 0);
        assert_int_equal(ranges[i].bytes % 4096, 0);
        assert_true(ranges[i].offset >= end);
        end = ranges[i].offset + ranges[i].bytes;
        assert_true(end <= bytes);
        if (i < image_count) {
            memcpy(copy + ranges[i].offset, (uint8_t *)sample.memory + ranges[i].offset,
                   ranges[i].bytes);
        }
    }
    struct vex_segment_writer restored;
    struct vex_segment_shape shape = sample.shape;
    shape.segment_id = 8;
    assert_int_equal(
        vex_segment_restore(&restored, &shape, ROWS, sample.writer.payload_bytes, copy, NULL),
        VEX_OK);
    assert_int_equal(restored.segment.segment_id, 8);
    for (uint32_t row = 0; row < ROWS; row++) {
        uint32_t found = UINT32_MAX;
        assert_int_equal(vex_segment_find(&restored.segment, 1000 + row, ROWS, UINT64_MAX, &found),
                         VEX_FIND_ALIVE);
        assert_int_equal(found, row);
        assert_memory_equal(vex_segment_vector(&restored.segment, row),
                            vex_segment_vector(&sample.writer.segment, row), DIM * sizeof(float));
        const void *payload;
        size_t payload_bytes;
        assert_true(vex_segment_payload(&restored.segment, row, &payload, &payload_bytes));
        assert_int_equal(payload_bytes, row % 3);
        assert_memory_equal(payload, "ab", payload_bytes);
    }
    shape.dim++;
    assert_int_equal(
        vex_segment_restore(&restored, &shape, ROWS, sample.writer.payload_bytes, copy, NULL),
        VEX_ERR_CORRUPT);
    free(copy);
    free(sample.memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_cut_short),
        cmocka_unit_test(test_out_of_bounds),
        cmocka_unit_test(test_used_ranges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
