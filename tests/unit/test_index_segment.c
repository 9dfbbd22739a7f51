/*
 * Segments against an oracle that keeps every version of every id with its birth and its death, so that
 * any past view can be asked again after all that followed. And segments whose bytes are damaged: what
 * vex_segment_attach accepts must be safe to search, whatever lies behind the header. Images lie in
 * heap blocks of exactly their length, where the address sanitizer sees the first byte beyond.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "index/index.h"
#include "index/segment.h"
#include "tests/lib/random.h"

#define COUNT_OF(array) (sizeof(array) / sizeof(*(array)))

static uint64_t seed;

/* ---- material -------------------------------------------------------------------------------- */

struct image {
    struct vex_segment_writer writer;
    void *memory;
    uint64_t bytes;
};

static void *aligned_memory(uint64_t bytes)
{
    void *memory = NULL;
    assert_int_equal(posix_memalign(&memory, 4096, bytes), 0);
    return memory;
}

static void make_image(struct image *image, const struct vex_segment_shape *shape)
{
    image->bytes = vex_segment_memory_bytes(shape);
    assert_true(image->bytes > 0);
    image->memory = aligned_memory(image->bytes);
    memset(image->memory, 0, image->bytes);
    vex_segment_create(&image->writer, shape, image->memory);
}

static struct vex_segment_shape shape_of(uint32_t dim, uint32_t rows, uint64_t payload_bytes)
{
    return (struct vex_segment_shape){
        .segment_id = 77,
        .collection_id = 5,
        .metric = VEX_METRIC_L2,
        .dim = dim,
        .capacity_rows = rows,
        .payload_capacity_bytes = payload_bytes,
    };
}

/* ---- histories ------------------------------------------------------------------------------- */

#define HISTORY_ROWS 3000u
#define IDS_MAX 60u
#define PAYLOAD_MAX 50u

struct version {
    uint64_t id;
    uint64_t death; /* 0 = alive */
    float first;    /* first value of the vector */
    bool has_payload;
    uint8_t payload[PAYLOAD_MAX];
    size_t payload_bytes;
};

struct oracle {
    struct version versions[HISTORY_ROWS]; /* by row */
    uint32_t rows;
    struct {
        uint32_t rows;
        uint64_t lsn;
    } views[2 * HISTORY_ROWS];
    uint32_t views_count;
};

/* What the interface promises for one id in one view. */
static enum vex_find expected_find(const struct oracle *oracle, uint64_t id, uint32_t visible,
                                   uint64_t lsn, uint32_t *out_row)
{
    for (uint32_t row = visible; row-- > 0;) {
        const struct version *version = &oracle->versions[row];
        if (version->id != id) {
            continue;
        }
        if (version->death != 0 && version->death <= lsn) {
            return VEX_FIND_DEAD;
        }
        *out_row = row;
        return VEX_FIND_ALIVE;
    }
    return VEX_FIND_NONE;
}

static void check_view(const struct oracle *oracle, const struct vex_segment *segment,
                       const uint64_t *ids, uint32_t visible, uint64_t lsn)
{
    for (uint32_t i = 0; i < IDS_MAX; i++) {
        uint32_t expected_row = UINT32_MAX;
        uint32_t row = UINT32_MAX;
        enum vex_find expected = expected_find(oracle, ids[i], visible, lsn, &expected_row);
        enum vex_find found = vex_segment_find(segment, ids[i], visible, lsn, &row);
        if (found != expected || row != expected_row) {
            fail_msg("id %llu in view (%u rows, lsn %llu): %d row %u instead of %d row %u",
                     (unsigned long long)ids[i], visible, (unsigned long long)lsn, (int)found, row,
                     (int)expected, expected_row);
        }
        if (found != VEX_FIND_ALIVE) {
            continue;
        }
        const struct version *version = &oracle->versions[row];
        assert_true(vex_segment_vector(segment, row)[0] == version->first);
        const void *payload;
        size_t bytes;
        assert_true(vex_segment_payload(segment, row, &payload, &bytes));
        assert_int_equal(payload != NULL, version->has_payload);
        assert_int_equal(bytes, version->payload_bytes);
        if (bytes) {
            assert_memory_equal(payload, version->payload, bytes);
        }
    }
}

static uint32_t live_row_of(const struct oracle *oracle, uint64_t id)
{
    uint32_t row = UINT32_MAX;
    return expected_find(oracle, id, oracle->rows, UINT64_MAX, &row) == VEX_FIND_ALIVE ? row
                                                                                       : UINT32_MAX;
}

/* One record: some mutations at one LSN. */
static void apply_record(struct image *image, struct oracle *oracle, const uint64_t *ids,
                         struct vex_random *random, uint64_t lsn)
{
    uint32_t dim = image->writer.segment.dim;
    for (uint64_t items = 1 + vex_random_below(random, 6); items > 0; items--) {
        /* Few ids take most of the changes: long chains. */
        uint64_t id = ids[vex_random_below(random, vex_random_once_in(random, 3) ? IDS_MAX : 4)];
        uint32_t old = live_row_of(oracle, id);
        if (old != UINT32_MAX) {
            vex_segment_kill(&image->writer, old, lsn);
            oracle->versions[old].death = lsn;
        }
        if ((old != UINT32_MAX && vex_random_once_in(random, 3)) || oracle->rows == HISTORY_ROWS) {
            continue;
        }
        struct version *version = &oracle->versions[oracle->rows];
        version->id = id;
        version->first = (float)vex_random_unit(random);
        version->has_payload = vex_random_once_in(random, 2);
        version->payload_bytes =
            version->has_payload ? vex_random_below(random, PAYLOAD_MAX + 1) : 0;
        vex_random_fill(random, version->payload, version->payload_bytes);
        float vector[64] = {version->first};
        assert_true(vex_segment_has_room(&image->writer, 1, version->payload_bytes));
        uint32_t row = vex_segment_append(&image->writer, id, vector,
                                          version->has_payload ? version->payload : NULL,
                                          version->payload_bytes);
        assert_int_equal(row, oracle->rows);
        assert_true(dim <= COUNT_OF(vector));
        oracle->rows++;
    }
}

static void run_history(uint64_t history_seed, uint32_t dim)
{
    struct vex_random random = vex_random_seeded(history_seed);
    struct oracle *oracle = calloc(1, sizeof(*oracle));
    assert_non_null(oracle);
    struct image image;
    struct vex_segment_shape shape =
        shape_of(dim, HISTORY_ROWS, (uint64_t)HISTORY_ROWS * PAYLOAD_MAX);
    make_image(&image, &shape);
    struct vex_segment reader;
    assert_int_equal(vex_segment_attach(&reader, image.memory, image.bytes, NULL), VEX_OK);
    uint64_t ids[IDS_MAX];
    for (uint32_t i = 0; i < IDS_MAX; i++) {
        /* Small ones, large ones, and neighbours of a power of two. */
        ids[i] = i % 3 == 0 ? i : i % 3 == 1 ? VEX_ID_MAX - i : ((uint64_t)1 << i) + i;
    }
    uint64_t lsn = 0;
    while (oracle->rows < HISTORY_ROWS && oracle->views_count < COUNT_OF(oracle->views)) {
        lsn++;
        apply_record(&image, oracle, ids, &random, lsn);
        oracle->views[oracle->views_count].rows = oracle->rows;
        oracle->views[oracle->views_count].lsn = lsn;
        oracle->views_count++;
        if (vex_random_once_in(&random, 50)) {
            /* An older view while the writer is ahead of it. */
            uint32_t view = (uint32_t)vex_random_below(&random, oracle->views_count);
            check_view(oracle, &reader, ids, oracle->views[view].rows, oracle->views[view].lsn);
        }
    }
    assert_true(oracle->views_count > 300);
    check_view(oracle, &reader, ids, 0, 0);
    for (uint32_t view = 0; view < oracle->views_count; view++) {
        check_view(oracle, &reader, ids, oracle->views[view].rows, oracle->views[view].lsn);
    }
    check_view(oracle, &reader, ids, oracle->rows, UINT64_MAX);
    free(image.memory);
    free(oracle);
}

static void every_past_view_answers_as_it_did(void **state)
{
    (void)state;
    for (uint32_t round = 0; round < 3; round++) {
        run_history(seed + round, round == 0 ? 1 : round == 1 ? 16 : 17);
    }
}

static void ids_that_never_were_are_not_found(void **state)
{
    (void)state;
    struct image image;
    struct vex_segment_shape shape = shape_of(2, 100, 0);
    make_image(&image, &shape);
    const float vector[2] = {1, 2};
    uint32_t row;
    for (uint64_t id = 0; id < 1000; id++) {
        assert_int_equal(vex_segment_find(&image.writer.segment, id, 100, UINT64_MAX, &row),
                         VEX_FIND_NONE);
    }
    for (uint64_t id = 0; id < 100; id++) {
        (void)vex_segment_append(&image.writer, id * 7, vector, NULL, 0);
    }
    for (uint64_t id = 0; id < 1000; id++) {
        enum vex_find found = vex_segment_find(&image.writer.segment, id, 100, UINT64_MAX, &row);
        assert_int_equal(found, id % 7 == 0 && id < 700 ? VEX_FIND_ALIVE : VEX_FIND_NONE);
    }
    free(image.memory);
}

/* ---- rows ------------------------------------------------------------------------------------ */

static void a_full_segment_has_no_room_and_finds_all_its_rows(void **state)
{
    (void)state;
    const uint32_t capacities[] = {1, 2, 7, 8, 9, 63, 64, 65, 1000};
    for (size_t i = 0; i < COUNT_OF(capacities); i++) {
        uint32_t rows = capacities[i];
        struct image image;
        struct vex_segment_shape shape = shape_of(3, rows, rows);
        make_image(&image, &shape);
        for (uint32_t row = 0; row < rows; row++) {
            assert_true(vex_segment_has_room(&image.writer, rows - row, rows - row));
            assert_false(vex_segment_has_room(&image.writer, rows - row + 1, 0));
            assert_false(vex_segment_has_room(&image.writer, 1, rows - row + 1));
            const float vector[3] = {(float)row, 1, 2};
            uint8_t byte = (uint8_t)row;
            assert_int_equal(vex_segment_append(&image.writer, row * 1000, vector, &byte, 1), row);
        }
        assert_true(vex_segment_has_room(&image.writer, 0, 0));
        assert_false(vex_segment_has_room(&image.writer, 1, 0));
        assert_false(vex_segment_has_room(&image.writer, UINT64_MAX, 0));
        assert_false(vex_segment_has_room(&image.writer, 0, UINT64_MAX));
        for (uint32_t row = 0; row < rows; row++) {
            uint32_t found = UINT32_MAX;
            assert_int_equal(vex_segment_find(&image.writer.segment, row * 1000, rows, 0, &found),
                             VEX_FIND_ALIVE);
            assert_int_equal(found, row);
        }
        free(image.memory);
    }
}

static void rows_are_padded_with_zeros_and_have_their_length(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed);
    const uint32_t dims[] = {1, 2, 15, 16, 17, 33, 100};
    for (size_t i = 0; i < COUNT_OF(dims); i++) {
        uint32_t dim = dims[i];
        struct image image;
        struct vex_segment_shape shape = shape_of(dim, 20, 0);
        make_image(&image, &shape);
        const struct vex_segment *segment = &image.writer.segment;
        assert_int_equal(segment->stride_floats % 16, 0);
        for (uint32_t row = 0; row < 20; row++) {
            float vector[100];
            long double sum = 0;
            for (uint32_t d = 0; d < dim; d++) {
                vector[d] = (float)vex_random_between(&random, -10, 10);
                sum += (long double)vector[d] * vector[d];
            }
            (void)vex_segment_append(&image.writer, row, vector, NULL, 0);
            const float *stored = vex_segment_vector(segment, row);
            assert_int_equal((uintptr_t)stored % 64, 0);
            assert_memory_equal(stored, vector, dim * sizeof(float));
            for (uint32_t d = dim; d < segment->stride_floats; d++) {
                assert_true(stored[d] == 0);
            }
            assert_true(fabs((double)segment->norms[row] - sqrt((double)sum)) <=
                        1e-6 * sqrt((double)sum));
            assert_int_equal(segment->ids[row], row);
        }
        free(image.memory);
    }
}

static void a_death_counts_from_its_lsn_on(void **state)
{
    (void)state;
    struct image image;
    struct vex_segment_shape shape = shape_of(1, 4, 0);
    make_image(&image, &shape);
    const float vector = 1;
    (void)vex_segment_append(&image.writer, 9, &vector, NULL, 0);
    const struct vex_segment *segment = &image.writer.segment;
    assert_true(vex_segment_alive(segment, 0, 0));
    assert_true(vex_segment_alive(segment, 0, UINT64_MAX));
    vex_segment_kill(&image.writer, 0, 10);
    assert_int_equal(vex_segment_death(segment, 0), 10);
    assert_true(vex_segment_alive(segment, 0, 9));
    assert_false(vex_segment_alive(segment, 0, 10));
    assert_false(vex_segment_alive(segment, 0, UINT64_MAX));
    free(image.memory);
}

static void payloads_come_back_byte_for_byte(void **state)
{
    (void)state;
    static uint8_t bytes[VEX_PAYLOAD_MAX];
    struct vex_random random = vex_random_seeded(seed);
    vex_random_fill(&random, bytes, sizeof(bytes));
    const size_t lengths[] = {0, 1, 7, 8, 4095, VEX_PAYLOAD_MAX - 1, VEX_PAYLOAD_MAX};
    struct image image;
    struct vex_segment_shape shape = shape_of(1, 20, 300000);
    make_image(&image, &shape);
    const float vector = 1;
    uint32_t rows = 0;
    for (size_t i = 0; i < COUNT_OF(lengths); i++) {
        (void)vex_segment_append(&image.writer, rows++, &vector, NULL, 123);
        (void)vex_segment_append(&image.writer, rows++, &vector, bytes, lengths[i]);
    }
    for (uint32_t row = 0; row < rows; row++) {
        const void *payload = bytes;
        size_t length = 1;
        assert_true(vex_segment_payload(&image.writer.segment, row, &payload, &length));
        if (row % 2 == 0) {
            assert_null(payload);
            assert_int_equal(length, 0);
        } else {
            /* One of length 0 is not the same as none. */
            assert_non_null(payload);
            assert_int_equal(length, lengths[row / 2]);
            assert_true(length == 0 || memcmp(payload, bytes, length) == 0);
        }
    }
    free(image.memory);
}

static void payload_references_that_lead_outside_are_refused(void **state)
{
    (void)state;
    struct image image;
    struct vex_segment_shape shape = shape_of(1, 4, 1000);
    make_image(&image, &shape);
    const float vector = 1;
    (void)vex_segment_append(&image.writer, 1, &vector, "x", 1);
    uint64_t *refs = (uint64_t *)(uintptr_t)image.writer.segment.payload_refs;
    const struct {
        uint64_t offset;
        uint64_t bytes;
        bool sound;
    } cases[] = {
        {0, 0, true},
        {0, 1000, true},
        {999, 1, true},
        {1000, 0, true},
        {1000, 1, false},
        {999, 2, false},
        {0, 1001, false},
        {1001, 0, false},
        {((uint64_t)1 << 44) - 1, 1, false},
        {((uint64_t)1 << 44) - 1, VEX_PAYLOAD_MAX, false},
        {0, VEX_PAYLOAD_MAX + 1, false},
        {0, (1u << 20) - 2, false},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        refs[0] = cases[i].offset << 20 | (cases[i].bytes + 1);
        const void *payload;
        size_t bytes;
        bool sound = vex_segment_payload(&image.writer.segment, 0, &payload, &bytes);
        assert_int_equal(sound, cases[i].sound);
    }
    free(image.memory);
}

/* Even a segment large enough to hold it: more than VEX_PAYLOAD_MAX was never written. */
static void payload_references_beyond_the_limit_are_refused(void **state)
{
    (void)state;
    struct image image;
    struct vex_segment_shape shape = shape_of(1, 4, 1u << 20);
    make_image(&image, &shape);
    const float vector = 1;
    (void)vex_segment_append(&image.writer, 1, &vector, "x", 1);
    uint64_t *refs = (uint64_t *)(uintptr_t)image.writer.segment.payload_refs;
    const void *payload;
    size_t bytes;
    refs[0] = VEX_PAYLOAD_MAX + 1;
    assert_true(vex_segment_payload(&image.writer.segment, 0, &payload, &bytes));
    refs[0] = VEX_PAYLOAD_MAX + 2;
    assert_false(vex_segment_payload(&image.writer.segment, 0, &payload, &bytes));
    free(image.memory);
}

static void shapes_out_of_bounds_have_no_size(void **state)
{
    (void)state;
    struct vex_segment_shape shape = shape_of(8, 100, 1000);
    assert_true(vex_segment_memory_bytes(&shape) > 8 * 100 * sizeof(float) + 1000);
    const struct vex_segment_shape bad[] = {
        shape_of(0, 1, 0),
        shape_of(VEX_DIM_MAX + 1, 1, 0),
        shape_of(UINT32_MAX, 1, 0),
        shape_of(1, 0, 0),
        shape_of(1, VEX_SEGMENT_ROWS_MAX + 1, 0),
        shape_of(1, UINT32_MAX, 0),
        shape_of(1, 1, ((uint64_t)1 << 43) + 1),
        shape_of(1, 1, UINT64_MAX),
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        assert_int_equal(vex_segment_memory_bytes(&bad[i]), 0);
    }
    /* The largest of all: its size does not overflow. */
    shape = shape_of(VEX_DIM_MAX, VEX_SEGMENT_ROWS_MAX, (uint64_t)1 << 43);
    uint64_t bytes = vex_segment_memory_bytes(&shape);
    assert_true(bytes > (uint64_t)VEX_SEGMENT_ROWS_MAX * 65536u * sizeof(float));
    assert_true(bytes < (uint64_t)1 << 49);
}

/* ---- damaged images -------------------------------------------------------------------------- */

static uint64_t touch(const void *from, uint64_t bytes)
{
    uint64_t sum = 0;
    for (uint64_t i = 0; i < bytes; i++) {
        sum += ((const uint8_t *)from)[i];
    }
    return sum;
}

static void assert_within(const struct image *image, const void *from, uint64_t bytes)
{
    const uint8_t *start = image->memory;
    const uint8_t *at = from;
    assert_true(at >= start && (uint64_t)(at - start) <= image->bytes);
    assert_true(bytes <= image->bytes - (uint64_t)(at - start));
    volatile uint64_t used = touch(from, bytes);
    (void)used;
}

/* Does everything that a reader does, over all rows that the header promises. */
static void read_everything(const struct image *image, const struct vex_segment *segment,
                            struct vex_random *random)
{
    uint64_t rows = segment->capacity_rows;
    assert_within(image, segment->vectors, rows * segment->stride_floats * sizeof(float));
    assert_within(image, segment->ids, rows * 8);
    assert_within(image, segment->norms, rows * 4);
    assert_within(image, segment->previous, rows * 4);
    assert_within(image, segment->payload_refs, rows * 8);
    assert_within(image, (const void *)(uintptr_t)segment->hash, (uint64_t)segment->hash_slots * 4);
    assert_within(image, (const void *)(uintptr_t)segment->deaths, rows * 8);
    assert_within(image, segment->payloads, segment->payload_capacity_bytes);
    for (uint32_t row = 0; row < rows; row++) {
        const void *payload;
        size_t bytes;
        if (vex_segment_payload(segment, row, &payload, &bytes) && payload) {
            assert_within(image, payload, bytes);
        }
    }
    for (int i = 0; i < 50; i++) {
        uint32_t row = UINT32_MAX;
        uint32_t visible = (uint32_t)vex_random_below(random, rows + 1);
        uint64_t id =
            i % 2 ? vex_random_below(random, 40) : segment->ids[vex_random_below(random, rows)];
        uint64_t lsn = vex_random_next(random) >> vex_random_below(random, 64);
        if (vex_segment_find(segment, id, visible, lsn, &row) == VEX_FIND_ALIVE) {
            assert_true(row < visible);
        }
    }
    float *queries = calloc(2, segment->dim * sizeof(float));
    assert_non_null(queries);
    for (uint32_t d = 0; d < 2 * segment->dim; d++) {
        queries[d] = (float)vex_random_between(random, -1, 1);
    }
    for (int metric = VEX_METRIC_L2; metric <= VEX_METRIC_DOT; metric++) {
        struct vex_candidate heaps[2][10];
        struct vex_topk topks[2];
        vex_topk_init(&topks[0], heaps[0], 10);
        vex_topk_init(&topks[1], heaps[1], 1);
        struct vex_view_segment part = {segment, (uint32_t)vex_random_below(random, rows + 1)};
        struct vex_view view = {
            &part, 1, segment->dim, (enum vex_metric)metric, vex_random_below(random, 100), NULL};
        struct vex_search_counters counters = {0};
        assert_int_equal(vex_index_flat.search(&view, queries, 2, topks, &counters, NULL), VEX_OK);
        for (int i = 0; i < 2; i++) {
            vex_topk_finish(&topks[i]);
            assert_true(topks[i].count <= topks[i].k);
            for (uint32_t j = 0; j < topks[i].count; j++) {
                assert_true(topks[i].heap[j].row < part.visible_rows);
            }
        }
        uint32_t found_segment;
        uint32_t row = 0;
        if (vex_view_find(&view, 3, &found_segment, &row)) {
            assert_true(row < part.visible_rows);
        }
    }
    free(queries);
}

static void make_filled_image(struct image *image, struct vex_random *random)
{
    struct vex_segment_shape shape = shape_of(10, 40, 500);
    make_image(image, &shape);
    for (uint32_t row = 0; row < 30; row++) {
        float vector[10];
        for (int d = 0; d < 10; d++) {
            vector[d] = (float)vex_random_between(random, -1, 1);
        }
        (void)vex_segment_append(&image->writer, row / 2, vector, vector, row % 16);
        if (row % 3 == 0) {
            vex_segment_kill(&image->writer, row, row + 1);
        }
    }
}

struct field {
    const char *name;
    size_t offset;
    size_t bytes;
    bool checked; /* no other value is sound in an image that is otherwise unchanged */
};

#define FIELD(name, checked)                                                                       \
    {                                                                                              \
#name, offsetof(struct vex_segment_header, name),                                          \
            sizeof(((struct vex_segment_header *)0)->name), checked                                \
    }
#define SECTION_FIELD(i, name, checked)                                                            \
    {                                                                                              \
        "section " #i " " #name, offsetof(struct vex_segment_header, sections[i].name),            \
            sizeof(((struct vex_segment_header *)0)->sections[i].name), checked                    \
    }
#define SECTION(i)                                                                                 \
    SECTION_FIELD(i, kind, true), SECTION_FIELD(i, element_bytes, true),                           \
        SECTION_FIELD(i, offset, false), SECTION_FIELD(i, bytes, true)

static const struct field fields[] = {
    FIELD(magic, true),
    FIELD(version, true),
    FIELD(metric, false),
    FIELD(dim, false),
    FIELD(stride_floats, true),
    FIELD(capacity_rows, true),
    FIELD(hash_slots, true),
    FIELD(payload_capacity_bytes, true),
    FIELD(image_bytes, false),
    FIELD(deaths_offset, true),
    FIELD(memory_bytes, true),
    FIELD(sections_count, false),
    SECTION(0),
    SECTION(1),
    SECTION(2),
    SECTION(3),
    SECTION(4),
    SECTION(5),
    SECTION(6),
};

static uint64_t load_field(const struct image *image, const struct field *field)
{
    const uint8_t *at = (const uint8_t *)image->memory + field->offset;
    return field->bytes == 4 ? vex_load_u32(at) : vex_load_u64(at);
}

static void store_field(struct image *image, const struct field *field, uint64_t value)
{
    memcpy((uint8_t *)image->memory + field->offset, &value, field->bytes);
}

/* Attaches; if that succeeds, uses all of it. True if it was refused. */
static bool is_refused_or_safe(const struct image *image, struct vex_random *random)
{
    struct vex_segment segment;
    memset(&segment, 0x5a, sizeof(segment));
    struct vex_segment before = segment;
    struct vex_error error = {.status = VEX_OK};
    enum vex_status status = vex_segment_attach(&segment, image->memory, image->bytes, &error);
    if (status == VEX_OK) {
        read_everything(image, &segment, random);
        return false;
    }
    assert_true(status == VEX_ERR_CORRUPT || status == VEX_ERR_VERSION);
    assert_int_equal(error.status, status);
    assert_memory_equal(&segment, &before, sizeof(segment));
    return true;
}

static void every_header_field_out_of_bounds_is_refused(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed);
    struct image image;
    make_filled_image(&image, &random);
    assert_false(is_refused_or_safe(&image, &random));
    for (size_t i = 0; i < COUNT_OF(fields); i++) {
        const struct field *field = &fields[i];
        uint64_t good = load_field(&image, field);
        uint64_t most = field->bytes == 4 ? UINT32_MAX : UINT64_MAX;
        const uint64_t values[] = {
            0,
            1,
            good - 1,
            good + 1,
            good / 2,
            good * 2,
            good - 64,
            good + 64,
            good + 4096,
            most,
            most - 1,
            most / 2,
            most / 2 + 1,
            most - good,
            ~good,
            good | (most / 2 + 1),
            (uint64_t)1 << 30,
            image.bytes,
            image.bytes - 64,
            image.bytes + 64,
            vex_random_next(&random),
        };
        for (size_t j = 0; j < COUNT_OF(values); j++) {
            uint64_t value = values[j] & most;
            if (value == good) {
                continue;
            }
            store_field(&image, field, value);
            bool refused = is_refused_or_safe(&image, &random);
            if (field->checked && !refused) {
                fail_msg("%s = %llu instead of %llu was accepted", field->name,
                         (unsigned long long)value, (unsigned long long)good);
            }
        }
        store_field(&image, field, good);
    }
    assert_false(is_refused_or_safe(&image, &random));
    free(image.memory);
}

static void metrics_and_dimensions_have_bounds(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed);
    struct image image;
    make_filled_image(&image, &random);
    struct vex_segment_header *header = image.memory;
    const uint32_t metrics[] = {0, 4, UINT32_MAX};
    for (size_t i = 0; i < COUNT_OF(metrics); i++) {
        header->metric = metrics[i];
        assert_true(is_refused_or_safe(&image, &random));
    }
    header->metric = VEX_METRIC_DOT;
    /* A row of 10 is 16 floats long, and so are those of other dims. */
    const uint32_t dims[] = {0, 17, 32, VEX_DIM_MAX, VEX_DIM_MAX + 1, UINT32_MAX, UINT32_MAX - 14};
    for (size_t i = 0; i < COUNT_OF(dims); i++) {
        header->dim = dims[i];
        assert_true(is_refused_or_safe(&image, &random));
    }
    header->dim = 10;
    header->sections_count = VEX_SEGMENT_SECTIONS_MAX + 1;
    assert_true(is_refused_or_safe(&image, &random));
    for (uint32_t count = 0; count < 7; count++) {
        header->sections_count = count;
        assert_true(is_refused_or_safe(&image, &random));
    }
    /* Kinds that this version does not know are passed over. */
    header->sections_count = VEX_SEGMENT_SECTIONS_MAX;
    header->sections[20] = (struct vex_section){99, 3, UINT64_MAX, UINT64_MAX, 0};
    assert_false(is_refused_or_safe(&image, &random));
    free(image.memory);
}

static void memory_shorter_than_the_header_says_is_refused(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed);
    struct image image;
    make_filled_image(&image, &random);
    uint64_t whole = image.bytes;
    const uint64_t lengths[] = {0, 1, 79, 80, 4095, 4096, 5000, whole / 2, whole - 8, whole - 1};
    for (size_t i = 0; i < COUNT_OF(lengths); i++) {
        void *shorter = aligned_memory(lengths[i] ? lengths[i] : 1);
        memcpy(shorter, image.memory, lengths[i]);
        struct image cut = {.memory = shorter, .bytes = lengths[i]};
        assert_true(is_refused_or_safe(&cut, &random));
        free(shorter);
    }
    free(image.memory);
}

static void any_header_byte_may_be_damaged(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed);
    struct image image;
    make_filled_image(&image, &random);
    uint8_t *bytes = image.memory;
    for (size_t at = 0; at < 80 + 8 * sizeof(struct vex_section); at++) {
        uint8_t good = bytes[at];
        for (unsigned bit = 0; bit < 8; bit++) {
            bytes[at] = good ^ (uint8_t)(1u << bit);
            (void)is_refused_or_safe(&image, &random);
        }
        bytes[at] = good;
    }
    for (int round = 0; round < 20000; round++) {
        uint8_t kept[4096];
        memcpy(kept, bytes, sizeof(kept));
        for (uint64_t changes = 1 + vex_random_below(&random, 4); changes > 0; changes--) {
            const struct field *field = &fields[vex_random_below(&random, COUNT_OF(fields))];
            uint64_t value = load_field(&image, field);
            value += (uint64_t)64 * vex_random_below(&random, 9) - 256;
            store_field(&image, field,
                        vex_random_once_in(&random, 4) ? vex_random_next(&random) : value);
        }
        (void)is_refused_or_safe(&image, &random);
        memcpy(bytes, kept, sizeof(kept));
    }
    free(image.memory);
}

/* What a reader meets whose memory was given back, or that another program scribbled over. */
static void a_sound_header_over_any_body_is_safe_to_search(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed);
    for (int round = 0; round < 300; round++) {
        struct image image;
        make_filled_image(&image, &random);
        struct vex_segment segment;
        assert_int_equal(vex_segment_attach(&segment, image.memory, image.bytes, NULL), VEX_OK);
        uint8_t *body = (uint8_t *)image.memory + VEX_SEGMENT_HEADER_BYTES;
        uint64_t body_bytes = image.bytes - VEX_SEGMENT_HEADER_BYTES;
        switch (round % 5) {
        case 0:
            memset(body, 0, body_bytes);
            break;
        case 1:
            memset(body, 0xff, body_bytes);
            break;
        case 2:
            memset(body, 0x01, body_bytes);
            break;
        case 3:
            vex_random_fill(&random, body, body_bytes);
            break;
        default:
            for (int i = 0; i < 100; i++) {
                body[vex_random_below(&random, body_bytes)] = (uint8_t)vex_random_next(&random);
            }
            break;
        }
        read_everything(&image, &segment, &random);
        /* The header may have gone as well by now: what was copied from it counts. */
        memset(image.memory, 0, VEX_SEGMENT_HEADER_BYTES);
        read_everything(&image, &segment, &random);
        free(image.memory);
    }
}

/* Links that run in a circle, and a table without a free slot. */
static void damaged_links_and_tables_end(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed);
    struct image image;
    struct vex_segment_shape shape = shape_of(1, 1000, 0);
    make_image(&image, &shape);
    const struct vex_segment *segment = &image.writer.segment;
    uint32_t *hash = (uint32_t *)(uintptr_t)segment->hash;
    uint32_t *previous = (uint32_t *)(uintptr_t)segment->previous;
    uint32_t row;
    for (uint32_t i = 0; i < segment->hash_slots; i++) {
        hash[i] = 1 + i % 1000;
    }
    assert_int_equal(vex_segment_find(segment, 5, 1000, 0, &row), VEX_FIND_NONE);
    for (uint32_t i = 0; i < 1000; i++) {
        previous[i] = 1 + (i + 1) % 1000;
    }
    assert_int_equal(vex_segment_find(segment, 0, 0, 0, &row), VEX_FIND_NONE);
    for (uint32_t i = 0; i < 1000; i++) {
        previous[i] = i;
    }
    assert_int_equal(vex_segment_find(segment, 0, 0, 0, &row), VEX_FIND_NONE);
    for (uint32_t i = 0; i < 1000; i++) {
        previous[i] = i + 1;
    }
    assert_int_equal(vex_segment_find(segment, 0, 0, 0, &row), VEX_FIND_NONE);
    read_everything(&image, segment, &random);
    free(image.memory);
}

int main(void)
{
    seed = vex_random_announce("test_index_segment");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_past_view_answers_as_it_did),
        cmocka_unit_test(ids_that_never_were_are_not_found),
        cmocka_unit_test(a_full_segment_has_no_room_and_finds_all_its_rows),
        cmocka_unit_test(rows_are_padded_with_zeros_and_have_their_length),
        cmocka_unit_test(a_death_counts_from_its_lsn_on),
        cmocka_unit_test(payloads_come_back_byte_for_byte),
        cmocka_unit_test(payload_references_that_lead_outside_are_refused),
        cmocka_unit_test(payload_references_beyond_the_limit_are_refused),
        cmocka_unit_test(shapes_out_of_bounds_have_no_size),
        cmocka_unit_test(every_header_field_out_of_bounds_is_refused),
        cmocka_unit_test(metrics_and_dimensions_have_bounds),
        cmocka_unit_test(memory_shorter_than_the_header_says_is_refused),
        cmocka_unit_test(any_header_byte_may_be_damaged),
        cmocka_unit_test(a_sound_header_over_any_body_is_safe_to_search),
        cmocka_unit_test(damaged_links_and_tables_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
