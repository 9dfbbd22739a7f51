/*
 * Frames and the body of a write, as a hostile or broken peer would send them. Every encoded write is
 * cut at every length and changed at every byte: what is still accepted must lead nowhere outside the
 * bytes that were given. They lie in a heap block of exactly their length, so that the address
 * sanitizer sees the first read beyond.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "shm/wire.h"
#include "tests/lib/random.h"

#define COUNT_OF(array) (sizeof(array) / sizeof(*(array)))
#define ITEMS_MAX 12u
#define DIM_MAX 9u
#define PAYLOAD_MAX 40u

static uint64_t seed;

/* ---- frames ---------------------------------------------------------------------------------- */

static const struct vex_frame_head good_head = {
    .magic = VEX_WIRE_MAGIC,
    .version = VEX_WIRE_VERSION,
    .op = VEX_OP_WRITE,
    .body_bytes = 4096,
    .status = 0,
    .request = 0x1122334455667788u,
};

static enum vex_status decode_head(const struct vex_frame_head *head, struct vex_frame_head *out,
                                   struct vex_error *error)
{
    uint8_t *bytes = malloc(VEX_WIRE_HEAD_BYTES);
    assert_non_null(bytes);
    memcpy(bytes, head, sizeof(*head));
    enum vex_status status = vex_frame_decode(out, bytes, error);
    free(bytes);
    return status;
}

static void assert_head_refused(const struct vex_frame_head *head, enum vex_status expected,
                                const char *word)
{
    struct vex_frame_head out;
    memset(&out, 0x5a, sizeof(out));
    struct vex_frame_head before = out;
    struct vex_error error;
    assert_int_equal(decode_head(head, &out, &error), expected);
    assert_int_equal(error.status, expected);
    assert_non_null(strstr(error.message, word));
    assert_memory_equal(&out, &before, sizeof(out));
    assert_int_equal(decode_head(head, &out, NULL), expected);
}

static void a_sound_frame_head_comes_back_as_it_was(void **state)
{
    (void)state;
    const uint32_t lengths[] = {0, 8, 4096, VEX_WIRE_BODY_MAX - VEX_WIRE_BODY_MAX % 8};
    for (size_t i = 0; i < COUNT_OF(lengths); i++) {
        struct vex_frame_head head = good_head;
        head.body_bytes = lengths[i];
        head.status = (uint32_t)i;
        struct vex_frame_head out;
        assert_int_equal(decode_head(&head, &out, NULL), VEX_OK);
        assert_memory_equal(&out, &head, sizeof(out));
    }
}

static void frames_with_another_magic_are_refused(void **state)
{
    (void)state;
    for (unsigned bit = 0; bit < 32; bit++) {
        struct vex_frame_head head = good_head;
        head.magic ^= 1u << bit;
        assert_head_refused(&head, VEX_ERR_PROTOCOL, "magic");
    }
}

static void frames_of_another_version_are_refused_as_such(void **state)
{
    (void)state;
    const uint16_t versions[] = {0, VEX_WIRE_VERSION + 1, UINT16_MAX};
    for (size_t i = 0; i < COUNT_OF(versions); i++) {
        struct vex_frame_head head = good_head;
        head.version = versions[i];
        assert_head_refused(&head, VEX_ERR_VERSION, "protocol");
    }
}

static void bodies_that_are_too_long_or_not_a_multiple_of_8_are_refused(void **state)
{
    (void)state;
    const uint32_t lengths[] = {
        1, 4, 7, 9, 4095, VEX_WIRE_BODY_MAX + 8 - VEX_WIRE_BODY_MAX % 8, UINT32_MAX - 7, UINT32_MAX,
    };
    for (size_t i = 0; i < COUNT_OF(lengths); i++) {
        struct vex_frame_head head = good_head;
        head.body_bytes = lengths[i];
        assert_head_refused(&head, VEX_ERR_PROTOCOL, "body");
    }
}

static void reserved_bits_are_refused(void **state)
{
    (void)state;
    for (unsigned bit = 0; bit < 64; bit++) {
        struct vex_frame_head head = good_head;
        head.reserved = (uint64_t)1 << bit;
        assert_head_refused(&head, VEX_ERR_PROTOCOL, "reserved");
    }
}

/* The largest batch that the limits allow must fit into a frame, whatever the mix of its parts. */
static void the_largest_allowed_batch_fits_into_a_frame(void **state)
{
    (void)state;
    uint64_t lengths = 4u * (uint64_t)VEX_BATCH_COUNT_MAX;
    uint64_t all = sizeof(struct vex_write_head) + VEX_BATCH_BYTES_MAX + lengths + 8;
    assert_true(all <= VEX_WIRE_BODY_MAX);
}

/* ---- writes: material ------------------------------------------------------------------------ */

struct sample {
    struct vex_write_input input;
    uint64_t ids[ITEMS_MAX];
    float vectors[ITEMS_MAX * DIM_MAX];
    uint8_t bytes[ITEMS_MAX][PAYLOAD_MAX];
    const void *payloads[ITEMS_MAX];
    size_t payload_bytes[ITEMS_MAX];
};

enum payload_mix { PAYLOADS_ABSENT, PAYLOADS_ALL, PAYLOADS_SOME, PAYLOADS_EMPTY, PAYLOAD_MIXES };

static void make_sample(struct sample *sample, struct vex_random *random, enum vex_write_kind kind,
                        bool auto_ids, enum payload_mix mix)
{
    memset(sample, 0, sizeof(*sample));
    uint32_t count = 1 + (uint32_t)vex_random_below(random, ITEMS_MAX);
    bool is_delete = kind == VEX_WRITE_DELETE;
    uint32_t dim = is_delete ? 0 : 1 + (uint32_t)vex_random_below(random, DIM_MAX);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t id = vex_random_next(random) >> vex_random_below(random, 64);
        sample->ids[i] = id > VEX_ID_MAX ? VEX_ID_MAX : id;
        bool empty = mix == PAYLOADS_EMPTY || vex_random_once_in(random, 5);
        bool none = mix == PAYLOADS_SOME && vex_random_once_in(random, 2);
        size_t bytes = empty ? 0 : vex_random_below(random, PAYLOAD_MAX + 1);
        vex_random_fill(random, sample->bytes[i], bytes);
        sample->payloads[i] = none ? NULL : sample->bytes[i];
        sample->payload_bytes[i] = none ? 0 : bytes;
    }
    for (uint32_t i = 0; i < count * dim; i++) {
        sample->vectors[i] = (float)vex_random_between(random, -100, 100);
    }
    sample->input = (struct vex_write_input){
        .collection_id = (uint32_t)vex_random_next(random),
        .kind = kind,
        .count = count,
        .dim = dim,
        .ids = auto_ids ? NULL : sample->ids,
        .vectors = is_delete ? NULL : sample->vectors,
        .payloads = is_delete || mix == PAYLOADS_ABSENT ? NULL : sample->payloads,
        .payload_bytes = sample->payload_bytes,
    };
}

/* The encoding in a heap block of exactly its length. */
static uint8_t *encode(const struct sample *sample, size_t *out_bytes)
{
    struct vex_buffer buffer = {0};
    assert_true(vex_write_encode(&buffer, &sample->input));
    uint8_t *exact = malloc(buffer.bytes);
    assert_non_null(exact);
    memcpy(exact, buffer.data, buffer.bytes);
    *out_bytes = buffer.bytes;
    vex_buffer_deinit(&buffer);
    return exact;
}

typedef void (*sample_check)(const struct sample *sample, uint8_t *bytes, size_t bytes_count,
                             struct vex_random *random);

/* Calls `check` for encodings of all kinds and mixes of payloads. */
static void for_all_samples(unsigned rounds, sample_check check)
{
    struct vex_random random = vex_random_seeded(seed);
    for (unsigned round = 0; round < rounds; round++) {
        for (int kind = VEX_WRITE_INSERT; kind <= VEX_WRITE_DELETE; kind++) {
            for (int mix = 0; mix < PAYLOAD_MIXES; mix++) {
                for (int auto_ids = 0; auto_ids <= (kind == VEX_WRITE_INSERT); auto_ids++) {
                    struct sample sample;
                    make_sample(&sample, &random, (enum vex_write_kind)kind, auto_ids,
                                (enum payload_mix)mix);
                    size_t bytes_count;
                    uint8_t *bytes = encode(&sample, &bytes_count);
                    check(&sample, bytes, bytes_count, &random);
                    free(bytes);
                }
            }
        }
    }
}

/* Reads everything that a decoded write leads to, and sees that it lies within the bytes. */
static void assert_in_bounds(const struct vex_write *write, const uint8_t *bytes,
                             size_t bytes_count)
{
    const uint8_t *end = bytes + bytes_count;
    uint32_t count = write->head.count;
    assert_in_range(count, 1, VEX_BATCH_COUNT_MAX);
    assert_in_range(write->head.kind, VEX_WRITE_INSERT, VEX_WRITE_DELETE);
    uint64_t sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        sum += vex_write_id(write, i);
        assert_true(vex_write_id(write, i) <= VEX_ID_MAX);
    }
    if (write->ids) {
        assert_true(write->ids >= bytes && write->ids + 8 * (size_t)count <= end);
    }
    if (write->head.kind == VEX_WRITE_DELETE) {
        assert_null(write->vectors);
    } else {
        assert_in_range(write->head.dim, 1, VEX_DIM_MAX);
        size_t floats = (size_t)count * write->head.dim;
        assert_true((const uint8_t *)write->vectors >= bytes);
        assert_true((const uint8_t *)(write->vectors + floats) <= end);
        for (size_t i = 0; i < floats; i++) {
            uint32_t bits;
            memcpy(&bits, write->vectors + i, sizeof(bits));
            sum += bits;
        }
    }
    const uint8_t *at = write->payloads;
    uint64_t payload_bytes = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t length = vex_write_payload_bytes(write, i);
        if (length == VEX_NO_PAYLOAD) {
            continue;
        }
        assert_true(length <= VEX_PAYLOAD_MAX);
        assert_true(at >= bytes && length <= (size_t)(end - at));
        for (uint32_t j = 0; j < length; j++) {
            sum += at[j];
        }
        at += length;
        payload_bytes += length;
    }
    assert_int_equal(payload_bytes, write->payload_bytes);
    volatile uint64_t used = sum;
    (void)used;
}

/* ---- writes: cases --------------------------------------------------------------------------- */

static void check_round_trip(const struct sample *sample, uint8_t *bytes, size_t bytes_count,
                             struct vex_random *random)
{
    (void)random;
    const struct vex_write_input *input = &sample->input;
    struct vex_write write;
    assert_int_equal(bytes_count % 8, 0);
    assert_int_equal(vex_write_decode(&write, bytes, bytes_count, NULL), VEX_OK);
    assert_in_bounds(&write, bytes, bytes_count);
    assert_int_equal(write.head.collection_id, input->collection_id);
    assert_int_equal(write.head.kind, input->kind);
    assert_int_equal(write.head.count, input->count);
    assert_int_equal(write.head.dim, input->dim);
    if (!input->ids) {
        assert_null(write.ids);
        assert_int_equal(write.first_id, 0);
    }
    if (input->vectors) {
        assert_memory_equal(write.vectors, input->vectors,
                            (size_t)input->count * input->dim * sizeof(float));
    }
    const uint8_t *at = write.payloads;
    for (uint32_t i = 0; i < input->count; i++) {
        assert_int_equal(vex_write_id(&write, i), input->ids ? input->ids[i] : i);
        uint32_t length = vex_write_payload_bytes(&write, i);
        if (!input->payloads || !input->payloads[i]) {
            assert_int_equal(length, VEX_NO_PAYLOAD);
            continue;
        }
        assert_int_equal(length, input->payload_bytes[i]);
        assert_memory_equal(at, input->payloads[i], length);
        at += length;
    }
}

static void what_was_encoded_is_decoded(void **state)
{
    (void)state;
    for_all_samples(500, check_round_trip);
}

static void writes_are_appended_behind_what_is_in_the_buffer(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed);
    struct vex_buffer buffer = {0};
    size_t starts[20];
    struct sample samples[20];
    for (size_t i = 0; i < COUNT_OF(starts); i++) {
        make_sample(&samples[i], &random, VEX_WRITE_UPSERT, false, PAYLOADS_SOME);
        starts[i] = buffer.bytes;
        assert_true(vex_write_encode(&buffer, &samples[i].input));
    }
    for (size_t i = 0; i < COUNT_OF(starts); i++) {
        size_t end = i + 1 < COUNT_OF(starts) ? starts[i + 1] : buffer.bytes;
        check_round_trip(&samples[i], buffer.data + starts[i], end - starts[i], &random);
    }
    vex_buffer_deinit(&buffer);
}

static void assert_write_refused(const uint8_t *bytes, size_t bytes_count)
{
    struct vex_write out;
    memset(&out, 0x5a, sizeof(out));
    struct vex_write before = out;
    struct vex_error error = {.status = VEX_OK};
    enum vex_status status = vex_write_decode(&out, bytes, bytes_count, &error);
    if (status != VEX_ERR_PROTOCOL && status != VEX_ERR_LIMIT) {
        fail_msg("status %s for %zu bytes", vex_base_status_name(status), bytes_count);
    }
    assert_int_equal(error.status, status);
    assert_true(error.message[0] != 0);
    assert_memory_equal(&out, &before, sizeof(out));
}

static void check_truncations(const struct sample *sample, uint8_t *bytes, size_t bytes_count,
                              struct vex_random *random)
{
    (void)sample;
    (void)random;
    for (size_t cut = 0; cut < bytes_count; cut++) {
        uint8_t *shorter = malloc(cut ? cut : 1);
        assert_non_null(shorter);
        memcpy(shorter, bytes, cut);
        assert_write_refused(shorter, cut);
        free(shorter);
    }
}

static void every_truncation_of_a_write_is_refused(void **state)
{
    (void)state;
    for_all_samples(40, check_truncations);
}

static void check_extensions(const struct sample *sample, uint8_t *bytes, size_t bytes_count,
                             struct vex_random *random)
{
    (void)sample;
    (void)random;
    for (size_t more = 1; more <= 24; more++) {
        uint8_t *longer = calloc(1, bytes_count + more);
        assert_non_null(longer);
        memcpy(longer, bytes, bytes_count);
        assert_write_refused(longer, bytes_count + more);
        free(longer);
    }
}

static void bytes_behind_a_write_are_refused_even_if_they_are_zero(void **state)
{
    (void)state;
    for_all_samples(40, check_extensions);
}

static void check_corruptions(const struct sample *sample, uint8_t *bytes, size_t bytes_count,
                              struct vex_random *random)
{
    (void)sample;
    for (size_t at = 0; at < bytes_count; at++) {
        uint8_t kept = bytes[at];
        const uint8_t values[] = {0,
                                  1,
                                  0x7f,
                                  0x80,
                                  0xff,
                                  (uint8_t)(kept + 1),
                                  (uint8_t)(kept - 1),
                                  (uint8_t)(kept ^ 0x40),
                                  (uint8_t)vex_random_next(random)};
        for (size_t i = 0; i < COUNT_OF(values); i++) {
            bytes[at] = values[i];
            struct vex_write write;
            if (vex_write_decode(&write, bytes, bytes_count, NULL) == VEX_OK) {
                assert_in_bounds(&write, bytes, bytes_count);
            }
        }
        bytes[at] = kept;
    }
}

static void a_write_with_any_byte_changed_is_refused_or_stays_in_bounds(void **state)
{
    (void)state;
    for_all_samples(40, check_corruptions);
}

static void check_padding(const struct sample *sample, uint8_t *bytes, size_t bytes_count,
                          struct vex_random *random)
{
    (void)sample;
    (void)random;
    struct vex_write write;
    assert_int_equal(vex_write_decode(&write, bytes, bytes_count, NULL), VEX_OK);
    size_t used = (size_t)(write.payloads - bytes) + (size_t)write.payload_bytes;
    for (size_t at = used; at < bytes_count; at++) {
        bytes[at] = 1;
        assert_write_refused(bytes, bytes_count);
        bytes[at] = 0;
    }
}

static void padding_that_is_not_zero_is_refused(void **state)
{
    (void)state;
    for_all_samples(20, check_padding);
}

/* Heads that promise more than any body holds; the body has room for some of it. */
static void counts_and_dimensions_whose_product_is_absurd_are_refused(void **state)
{
    (void)state;
    const uint32_t counts[] = {1, 1000, VEX_BATCH_COUNT_MAX, VEX_BATCH_COUNT_MAX + 1, UINT32_MAX};
    const uint32_t dims[] = {1000, VEX_DIM_MAX, VEX_DIM_MAX + 1, UINT32_MAX};
    const uint16_t flags[] = {0, VEX_WRITE_AUTO_IDS, VEX_WRITE_PAYLOADS,
                              VEX_WRITE_AUTO_IDS | VEX_WRITE_PAYLOADS};
    uint8_t bytes[512] = {0};
    for (size_t i = 0; i < COUNT_OF(counts); i++) {
        for (size_t j = 0; j < COUNT_OF(dims); j++) {
            for (size_t k = 0; k < COUNT_OF(flags); k++) {
                struct vex_write_head head = {1, VEX_WRITE_INSERT, flags[k], counts[i], dims[j]};
                memcpy(bytes, &head, sizeof(head));
                assert_write_refused(bytes, sizeof(bytes));
            }
        }
    }
}

struct head_case {
    struct vex_write_head head;
    enum vex_status expected;
};

static void heads_that_make_no_sense_are_refused_by_name(void **state)
{
    (void)state;
    const struct head_case cases[] = {
        {{1, 0, 0, 1, 1}, VEX_ERR_PROTOCOL},
        {{1, 5, 0, 1, 1}, VEX_ERR_PROTOCOL},
        {{1, UINT16_MAX, 0, 1, 1}, VEX_ERR_PROTOCOL},
        {{1, VEX_WRITE_INSERT, 4, 1, 1}, VEX_ERR_PROTOCOL},
        {{1, VEX_WRITE_INSERT, 0x8000, 1, 1}, VEX_ERR_PROTOCOL},
        {{1, VEX_WRITE_INSERT, 0, 0, 1}, VEX_ERR_LIMIT},
        {{1, VEX_WRITE_INSERT, 0, VEX_BATCH_COUNT_MAX + 1, 1}, VEX_ERR_LIMIT},
        {{1, VEX_WRITE_INSERT, 0, 1, 0}, VEX_ERR_PROTOCOL},
        {{1, VEX_WRITE_INSERT, 0, 1, VEX_DIM_MAX + 1}, VEX_ERR_PROTOCOL},
        {{1, VEX_WRITE_UPSERT, VEX_WRITE_AUTO_IDS, 1, 1}, VEX_ERR_PROTOCOL},
        {{1, VEX_WRITE_UPDATE, VEX_WRITE_AUTO_IDS, 1, 1}, VEX_ERR_PROTOCOL},
        {{1, VEX_WRITE_DELETE, VEX_WRITE_AUTO_IDS, 1, 0}, VEX_ERR_PROTOCOL},
        {{1, VEX_WRITE_DELETE, VEX_WRITE_PAYLOADS, 1, 0}, VEX_ERR_PROTOCOL},
        {{1, VEX_WRITE_DELETE, 0, 1, 1}, VEX_ERR_PROTOCOL},
    };
    uint8_t bytes[64] = {0};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        memcpy(bytes, &cases[i].head, sizeof(cases[i].head));
        struct vex_write out;
        assert_int_equal(vex_write_decode(&out, bytes, sizeof(bytes), NULL), cases[i].expected);
    }
}

static void the_largest_number_is_not_an_id(void **state)
{
    (void)state;
    const uint64_t ids[] = {0, VEX_ID_MAX, UINT64_MAX};
    struct vex_write_input input = {1, VEX_WRITE_DELETE, 2, 0, ids, NULL, NULL, NULL};
    struct vex_buffer buffer = {0};
    struct vex_write write;
    assert_true(vex_write_encode(&buffer, &input));
    assert_int_equal(vex_write_decode(&write, buffer.data, buffer.bytes, NULL), VEX_OK);
    input.count = 3;
    buffer.bytes = 0;
    assert_true(vex_write_encode(&buffer, &input));
    assert_int_equal(vex_write_decode(&write, buffer.data, buffer.bytes, NULL), VEX_ERR_LIMIT);
    vex_buffer_deinit(&buffer);
}

/* The log stores the first id that was given out; a log is bytes from outside like any other. */
static void ids_given_out_never_run_past_the_largest_id(void **state)
{
    (void)state;
    const float vectors[3] = {1, 2, 3};
    const struct vex_write_input input = {1, VEX_WRITE_INSERT, 3, 1, NULL, vectors, NULL, NULL};
    struct vex_buffer buffer = {0};
    assert_true(vex_write_encode(&buffer, &input));
    struct vex_write write;
    const uint64_t fine[] = {0, 1, VEX_ID_MAX - 2};
    for (size_t i = 0; i < COUNT_OF(fine); i++) {
        memcpy(buffer.data + sizeof(struct vex_write_head), &fine[i], sizeof(fine[i]));
        assert_int_equal(vex_write_decode(&write, buffer.data, buffer.bytes, NULL), VEX_OK);
        assert_int_equal(vex_write_id(&write, 2), fine[i] + 2);
    }
    const uint64_t beyond[] = {VEX_ID_MAX - 1, VEX_ID_MAX, UINT64_MAX};
    for (size_t i = 0; i < COUNT_OF(beyond); i++) {
        memcpy(buffer.data + sizeof(struct vex_write_head), &beyond[i], sizeof(beyond[i]));
        assert_write_refused(buffer.data, buffer.bytes);
    }
    vex_buffer_deinit(&buffer);
}

static void payloads_may_have_the_largest_size_and_no_more(void **state)
{
    (void)state;
    static uint8_t payload[VEX_PAYLOAD_MAX + 1];
    vex_random_fill(&(struct vex_random){seed}, payload, sizeof(payload));
    const uint64_t id = 3;
    const float vector = 1;
    const void *payloads[] = {payload};
    size_t length = VEX_PAYLOAD_MAX;
    const struct vex_write_input input = {1,   VEX_WRITE_UPSERT, 1,        1,
                                          &id, &vector,          payloads, &length};
    struct vex_buffer buffer = {0};
    struct vex_write write;
    assert_true(vex_write_encode(&buffer, &input));
    assert_int_equal(vex_write_decode(&write, buffer.data, buffer.bytes, NULL), VEX_OK);
    assert_memory_equal(write.payloads, payload, VEX_PAYLOAD_MAX);
    length++;
    buffer.bytes = 0;
    assert_true(vex_write_encode(&buffer, &input));
    assert_int_equal(vex_write_decode(&write, buffer.data, buffer.bytes, NULL), VEX_ERR_LIMIT);
    vex_buffer_deinit(&buffer);
}

static void noise_is_refused_or_stays_in_bounds(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed);
    for (int round = 0; round < 20000; round++) {
        size_t bytes_count = vex_random_below(&random, 200);
        uint8_t *bytes = malloc(bytes_count ? bytes_count : 1);
        assert_non_null(bytes);
        vex_random_fill(&random, bytes, bytes_count);
        if (bytes_count >= sizeof(struct vex_write_head)) {
            /* Small numbers get further. */
            struct vex_write_head head = {
                1, (uint16_t)vex_random_below(&random, 6), (uint16_t)vex_random_below(&random, 4),
                (uint32_t)vex_random_below(&random, 4), (uint32_t)vex_random_below(&random, 4)};
            memcpy(bytes, &head, sizeof(head));
        }
        struct vex_write write;
        if (vex_write_decode(&write, bytes, bytes_count, NULL) == VEX_OK) {
            assert_in_bounds(&write, bytes, bytes_count);
        }
        free(bytes);
    }
}

/* ---- names ----------------------------------------------------------------------------------- */

static const char *fault_of(const char *name)
{
    char array[VEX_NAME_MAX + 1] = {0};
    assert_true(strlen(name) < sizeof(array));
    memcpy(array, name, strlen(name));
    return vex_name_fault(array, sizeof(array));
}

static void plain_names_are_fine(void **state)
{
    (void)state;
    const char *const names[] = {
        "a",         "Z",
        "0",         "_",
        "-",         "documents",
        "a.b",       "a..",
        "v1.2-rc_3", "0123456789012345678901234567890123456789012345678901234567890.2"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        assert_null(fault_of(names[i]));
    }
}

static void every_other_byte_in_a_name_is_refused(void **state)
{
    (void)state;
    const char *allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";
    for (int byte = 1; byte < 256; byte++) {
        const char first[] = {(char)byte, 'x', 0};
        const char later[] = {'x', (char)byte, 0};
        bool is_allowed = strchr(allowed, byte) != NULL;
        assert_int_equal(fault_of(later) == NULL, is_allowed);
        assert_int_equal(fault_of(first) == NULL, is_allowed && byte != '.');
    }
}

static void names_without_an_end_or_without_a_letter_are_refused(void **state)
{
    (void)state;
    char full[VEX_NAME_MAX + 1];
    memset(full, 'x', sizeof(full));
    assert_non_null(vex_name_fault(full, sizeof(full)));
    full[VEX_NAME_MAX] = 0;
    assert_null(vex_name_fault(full, sizeof(full)));
    assert_non_null(vex_name_fault("", 1));
    assert_non_null(vex_name_fault("x", 1));
    assert_null(vex_name_fault("x", 2));
    char longer[100];
    memset(longer, 'x', sizeof(longer));
    longer[99] = 0;
    assert_non_null(vex_name_fault(longer, sizeof(longer)));
    longer[VEX_NAME_MAX] = 0;
    assert_null(vex_name_fault(longer, sizeof(longer)));
}

int main(void)
{
    seed = vex_random_announce("test_shm_wire");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sound_frame_head_comes_back_as_it_was),
        cmocka_unit_test(frames_with_another_magic_are_refused),
        cmocka_unit_test(frames_of_another_version_are_refused_as_such),
        cmocka_unit_test(bodies_that_are_too_long_or_not_a_multiple_of_8_are_refused),
        cmocka_unit_test(reserved_bits_are_refused),
        cmocka_unit_test(the_largest_allowed_batch_fits_into_a_frame),
        cmocka_unit_test(what_was_encoded_is_decoded),
        cmocka_unit_test(writes_are_appended_behind_what_is_in_the_buffer),
        cmocka_unit_test(every_truncation_of_a_write_is_refused),
        cmocka_unit_test(bytes_behind_a_write_are_refused_even_if_they_are_zero),
        cmocka_unit_test(a_write_with_any_byte_changed_is_refused_or_stays_in_bounds),
        cmocka_unit_test(padding_that_is_not_zero_is_refused),
        cmocka_unit_test(counts_and_dimensions_whose_product_is_absurd_are_refused),
        cmocka_unit_test(heads_that_make_no_sense_are_refused_by_name),
        cmocka_unit_test(the_largest_number_is_not_an_id),
        cmocka_unit_test(ids_given_out_never_run_past_the_largest_id),
        cmocka_unit_test(payloads_may_have_the_largest_size_and_no_more),
        cmocka_unit_test(noise_is_refused_or_stays_in_bounds),
        cmocka_unit_test(plain_names_are_fine),
        cmocka_unit_test(every_other_byte_in_a_name_is_refused),
        cmocka_unit_test(names_without_an_end_or_without_a_letter_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
