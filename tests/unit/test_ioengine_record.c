/*
 * Bytes of the log: headers, batches, records. A checksum must find every changed bit; what passes the
 * checksum and is still nonsense (made here by sealing it again) must be refused for its lengths.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "ioengine/record.h"
#include "tests/lib/random.h"

#define COUNT_OF(array) (sizeof(array) / sizeof(*(array)))
#define BATCH_BYTES_MAX (64u * 1024u)
#define NONCE 0x1234567890abcdefu

static uint64_t seed;
static const uint8_t uuid[VEX_LOG_UUID_BYTES] = {9, 8, 7,  6,  5,  4,  3,  2,
                                                 1, 0, 11, 12, 13, 14, 15, 16};

/* ---- file header ----------------------------------------------------------------------------- */

static struct vex_log_header sound_header(void)
{
    struct vex_log_header header = {
        .magic = VEX_LOG_MAGIC,
        .version = VEX_LOG_VERSION,
        .file_number = 12,
        .first_lsn = 100,
        .previous_hash = 5,
        .nonce = NONCE,
        .file_bytes = 3 * VEX_BLOCK_BYTES,
        .created_ms = 1700000000000u,
    };
    memcpy(header.uuid, uuid, sizeof(uuid));
    vex_log_header_seal(&header);
    return header;
}

static void a_sealed_header_is_sound(void **state)
{
    (void)state;
    struct vex_log_header header = sound_header();
    assert_null(vex_log_header_fault(&header, uuid, 12));
}

static void every_changed_bit_of_a_header_is_found(void **state)
{
    (void)state;
    struct vex_log_header header = sound_header();
    uint8_t *bytes = (uint8_t *)&header;
    for (size_t bit = 0; bit < 8 * sizeof(header); bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_non_null(vex_log_header_fault(&header, uuid, 12));
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_null(vex_log_header_fault(&header, uuid, 12));
}

static void a_header_of_another_instance_or_number_is_refused(void **state)
{
    (void)state;
    struct vex_log_header header = sound_header();
    for (size_t i = 0; i < sizeof(uuid); i++) {
        uint8_t other[VEX_LOG_UUID_BYTES];
        memcpy(other, uuid, sizeof(other));
        other[i] ^= 1;
        assert_string_equal(vex_log_header_fault(&header, other, 12),
                            "belongs to another instance");
    }
    assert_non_null(vex_log_header_fault(&header, uuid, 11));
    assert_non_null(vex_log_header_fault(&header, uuid, 13));
}

static void a_header_of_another_version_is_told_from_damage(void **state)
{
    (void)state;
    struct vex_log_header header = sound_header();
    header.version = VEX_LOG_VERSION + 1;
    vex_log_header_seal(&header);
    assert_non_null(strstr(vex_log_header_fault(&header, uuid, 12), "version"));
}

static void impossible_file_sizes_are_refused(void **state)
{
    (void)state;
    const uint64_t sizes[] = {0, 1, 4096, 8192, 12287, 12289, (uint64_t)1 << 45, UINT64_MAX};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        struct vex_log_header header = sound_header();
        header.file_bytes = sizes[i];
        vex_log_header_seal(&header);
        assert_string_equal(vex_log_header_fault(&header, uuid, 12), "impossible file size");
    }
}

/* ---- batches --------------------------------------------------------------------------------- */

struct batch {
    uint8_t *data; /* of BATCH_BYTES_MAX */
    size_t payload_bytes;
    size_t total_bytes;
    uint32_t records;
};

static void make_batch(struct batch *batch)
{
    void *memory = NULL;
    assert_int_equal(posix_memalign(&memory, VEX_BLOCK_BYTES, BATCH_BYTES_MAX), 0);
    /* What is not written must be zeroed by the seal. */
    memset(memory, 0xcc, BATCH_BYTES_MAX);
    *batch = (struct batch){.data = memory};
}

static void add_record(struct batch *batch, uint16_t type, const void *body, uint32_t bytes)
{
    uint8_t *at = batch->data + sizeof(struct vex_batch_header) + batch->payload_bytes;
    struct vex_record_header header = {bytes, type, 0};
    memcpy(at, &header, sizeof(header));
    memcpy(at + sizeof(header), body, bytes);
    batch->payload_bytes += sizeof(header) + bytes;
    batch->records++;
}

static void seal(struct batch *batch)
{
    struct vex_batch_header *header = (struct vex_batch_header *)(void *)batch->data;
    *header = (struct vex_batch_header){
        .first_lsn = 40,
        .records_count = batch->records,
        .previous_hash = 3,
        .durable_lsn = 39,
        .file_number = 2,
    };
    batch->total_bytes = vex_batch_seal(header, batch->payload_bytes, NONCE);
}

/* Computes the checksum again, over whatever stands there: as vex_batch_seal, but without a say in the
 * lengths. Written from FORMAT.md. */
static void seal_as_it_is(uint8_t *data)
{
    struct vex_batch_header header;
    memcpy(&header, data, sizeof(header));
    header.checksum = 0;
    uint64_t head = vex_hash64(&header, sizeof(header), NONCE);
    header.checksum = vex_hash64(data + sizeof(header), header.total_bytes - sizeof(header), head);
    memcpy(data, &header, sizeof(header));
}

static void make_random_batch(struct batch *batch, struct vex_random *random)
{
    uint8_t body[3000];
    make_batch(batch);
    for (uint64_t records = vex_random_below(random, 12); records > 0; records--) {
        size_t bytes = 8 * vex_random_below(random, 1 + sizeof(body) / 8);
        vex_random_fill(random, body, bytes);
        add_record(batch, (uint16_t)vex_random_next(random), body, (uint32_t)bytes);
    }
    seal(batch);
}

static void a_sealed_batch_is_sound_and_gives_its_records_back(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed);
    for (int round = 0; round < 300; round++) {
        struct batch batch;
        make_random_batch(&batch, &random);
        assert_int_equal(batch.total_bytes % VEX_BLOCK_BYTES, 0);
        size_t used = sizeof(struct vex_batch_header) + batch.payload_bytes;
        assert_true(batch.total_bytes >= used);
        for (size_t at = used; at < batch.total_bytes; at++) {
            assert_int_equal(batch.data[at], 0);
        }
        assert_null(vex_batch_fault(batch.data, batch.total_bytes, NONCE));
        assert_null(vex_batch_fault(batch.data, BATCH_BYTES_MAX, NONCE));
        struct vex_record_cursor cursor;
        vex_record_cursor_init(&cursor, batch.data);
        const uint8_t *expected = batch.data + sizeof(struct vex_batch_header);
        uint64_t lsn;
        uint16_t type;
        const uint8_t *body;
        size_t bytes;
        uint64_t count = 0;
        while (vex_record_next(&cursor, &lsn, &type, &body, &bytes)) {
            struct vex_record_header header;
            memcpy(&header, expected, sizeof(header));
            assert_int_equal(lsn, 40 + count);
            assert_int_equal(type, header.type);
            assert_int_equal(bytes, header.body_bytes);
            assert_ptr_equal(body, expected + sizeof(header));
            assert_int_equal((uintptr_t)body % 8, 0);
            expected += sizeof(header) + bytes;
            count++;
        }
        assert_int_equal(count, batch.records);
        assert_false(vex_record_next(&cursor, &lsn, &type, &body, &bytes));
        free(batch.data);
    }
}

static void batches_that_just_fill_their_blocks_are_sound(void **state)
{
    (void)state;
    static uint8_t body[BATCH_BYTES_MAX];
    const size_t overhead = sizeof(struct vex_batch_header) + sizeof(struct vex_record_header);
    for (size_t blocks = 1; blocks <= 3; blocks++) {
        for (int delta = -8; delta <= 8; delta += 8) {
            struct batch batch;
            make_batch(&batch);
            size_t bytes = blocks * VEX_BLOCK_BYTES - overhead + (size_t)(delta + 8) - 8;
            add_record(&batch, 1, body, (uint32_t)bytes);
            seal(&batch);
            assert_int_equal(batch.total_bytes, (blocks + (delta > 0)) * VEX_BLOCK_BYTES);
            assert_null(vex_batch_fault(batch.data, batch.total_bytes, NONCE));
            free(batch.data);
        }
    }
}

static void every_changed_bit_of_a_batch_is_found(void **state)
{
    (void)state;
    struct batch batch;
    make_batch(&batch);
    add_record(&batch, 7, "01234567", 8);
    add_record(&batch, 7, "0123456789abcdef", 16);
    seal(&batch);
    assert_int_equal(batch.total_bytes, VEX_BLOCK_BYTES);
    for (size_t bit = 0; bit < 8 * batch.total_bytes; bit++) {
        batch.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_non_null(vex_batch_fault(batch.data, batch.total_bytes, NONCE));
        batch.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_null(vex_batch_fault(batch.data, batch.total_bytes, NONCE));
    free(batch.data);
}

static void missing_sectors_of_a_batch_are_found(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed + 1);
    for (int round = 0; round < 20; round++) {
        struct batch batch;
        make_random_batch(&batch, &random);
        for (size_t at = 0; at < batch.total_bytes; at += 512) {
            uint8_t kept[512];
            memcpy(kept, batch.data + at, sizeof(kept));
            memset(batch.data + at, 0, sizeof(kept));
            bool changed = memcmp(kept, batch.data + at, sizeof(kept)) != 0;
            bool refused = vex_batch_fault(batch.data, batch.total_bytes, NONCE) != NULL;
            assert_int_equal(refused, changed);
            memcpy(batch.data + at, kept, sizeof(kept));
        }
        free(batch.data);
    }
}

static void a_batch_of_another_life_of_the_file_is_refused(void **state)
{
    (void)state;
    struct batch batch;
    make_batch(&batch);
    add_record(&batch, 7, "01234567", 8);
    seal(&batch);
    for (unsigned bit = 0; bit < 64; bit++) {
        assert_non_null(vex_batch_fault(batch.data, batch.total_bytes, NONCE ^ (uint64_t)1 << bit));
    }
    free(batch.data);
}

static void a_batch_that_is_cut_is_refused_at_every_length(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed + 2);
    struct batch batch;
    do {
        make_random_batch(&batch, &random);
        if (batch.total_bytes < 3 * VEX_BLOCK_BYTES) {
            free(batch.data);
            batch.data = NULL;
        }
    } while (!batch.data);
    for (size_t bytes = 0; bytes < batch.total_bytes; bytes += bytes < 100 ? 1 : 97) {
        uint8_t *exact = malloc(bytes ? bytes : 1);
        assert_non_null(exact);
        memcpy(exact, batch.data, bytes);
        assert_non_null(vex_batch_fault(exact, bytes, NONCE));
        free(exact);
    }
    free(batch.data);
}

/* Lengths that were changed and then sealed again: the checksum is right, the batch is not. */
static void lengths_that_do_not_fit_are_refused_under_a_right_checksum(void **state)
{
    (void)state;
    const struct {
        uint32_t total_bytes;
        uint32_t payload_bytes;
        uint32_t records;
        uint32_t first_body;
        bool sound;
    } cases[] = {
        {4096, 20, 1, 12, false},
        {4096, 9, 1, 1, false},
        {4096, 40, 2, 8, true},
        {4096, 40, 1, 8, false},
        {4096, 40, 3, 8, false},
        {4096, 40, 0, 8, false},
        {4096, 40, UINT32_MAX, 8, false},
        {4096, 48, 2, 8, false},
        {4096, 32, 2, 8, false},
        {4096, 0, 2, 8, false},
        {4096, 0, 0, 8, true},
        {4096, 40, 2, 9, false},
        {4096, 40, 2, 4, false},
        {4096, 40, 2, 16, false},
        {4096, 40, 2, 24, false},
        {4096, 40, 2, 32, false},
        {4096, 40, 1, 32, true},
        {4096, 40, 2, UINT32_MAX - 7, false},
        {4096, 40, 2, UINT32_MAX, false},
        {4096, 4032, 2, 8, false},
        {4096, 4033, 2, 8, false},
        {4096, UINT32_MAX, 2, 8, false},
        {8192, 40, 2, 8, true},
        {8192, 4096, 2, 8, false},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct batch batch;
        make_batch(&batch);
        memset(batch.data, 0, BATCH_BYTES_MAX);
        add_record(&batch, 7, "01234567", 8);
        add_record(&batch, 7, "0123456789abcdef", 16);
        seal(&batch);
        struct vex_batch_header header;
        memcpy(&header, batch.data, sizeof(header));
        header.total_bytes = cases[i].total_bytes;
        header.payload_bytes = cases[i].payload_bytes;
        header.records_count = cases[i].records;
        memcpy(batch.data, &header, sizeof(header));
        memcpy(batch.data + sizeof(header), &cases[i].first_body, sizeof(uint32_t));
        seal_as_it_is(batch.data);
        const char *fault = vex_batch_fault(batch.data, 8192, NONCE);
        if ((fault == NULL) != cases[i].sound) {
            fail_msg("case %zu: %s", i, fault ? fault : "accepted");
        }
        free(batch.data);
    }
}

static void total_lengths_out_of_bounds_are_refused_before_they_are_read(void **state)
{
    (void)state;
    const uint32_t totals[] = {
        0, 1, 64, 4095, 4097, 6000, 8193, 12288, UINT32_MAX, UINT32_MAX - 4095, 1u << 31};
    for (size_t i = 0; i < COUNT_OF(totals); i++) {
        uint8_t *exact = calloc(1, 8192);
        assert_non_null(exact);
        const struct vex_batch_header header = {
            .magic = VEX_BATCH_MAGIC, .version = VEX_LOG_VERSION, .total_bytes = totals[i]};
        memcpy(exact, &header, sizeof(header));
        assert_string_equal(vex_batch_fault(exact, 8192, NONCE), "impossible batch length");
        free(exact);
    }
}

static void watermarks_are_batches_without_records(void **state)
{
    (void)state;
    struct batch batch;
    make_batch(&batch);
    seal(&batch);
    assert_int_equal(batch.total_bytes, VEX_BLOCK_BYTES);
    assert_null(vex_batch_fault(batch.data, VEX_BLOCK_BYTES, NONCE));
    struct vex_record_cursor cursor;
    uint64_t lsn;
    uint16_t type;
    const uint8_t *body;
    size_t bytes;
    vex_record_cursor_init(&cursor, batch.data);
    assert_false(vex_record_next(&cursor, &lsn, &type, &body, &bytes));
    free(batch.data);
}

int main(void)
{
    seed = vex_random_announce("test_ioengine_record");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sealed_header_is_sound),
        cmocka_unit_test(every_changed_bit_of_a_header_is_found),
        cmocka_unit_test(a_header_of_another_instance_or_number_is_refused),
        cmocka_unit_test(a_header_of_another_version_is_told_from_damage),
        cmocka_unit_test(impossible_file_sizes_are_refused),
        cmocka_unit_test(a_sealed_batch_is_sound_and_gives_its_records_back),
        cmocka_unit_test(batches_that_just_fill_their_blocks_are_sound),
        cmocka_unit_test(every_changed_bit_of_a_batch_is_found),
        cmocka_unit_test(missing_sectors_of_a_batch_are_found),
        cmocka_unit_test(a_batch_of_another_life_of_the_file_is_refused),
        cmocka_unit_test(a_batch_that_is_cut_is_refused_at_every_length),
        cmocka_unit_test(lengths_that_do_not_fit_are_refused_under_a_right_checksum),
        cmocka_unit_test(total_lengths_out_of_bounds_are_refused_before_they_are_read),
        cmocka_unit_test(watermarks_are_batches_without_records),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
