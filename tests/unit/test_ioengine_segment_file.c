/*
 * Segment files: what was written is what is loaded, in its place and nowhere else; any changed bit is found
 * and named; and whatever fails while one is written, it is there whole or not at all. Headers are written
 * here by hand, too, from FORMAT.md.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/error.h"
#include "ioengine/segment_file.h"
#include "tests/lib/io_fault.h"
#include "tests/lib/io_memory.h"
#include "tests/lib/random.h"
#include "tests/lib/temp_dir.h"

#define COUNT_OF(array) (sizeof(array) / sizeof(*(array)))
#define BLOCK ((uint64_t)VEX_BLOCK_BYTES)
#define CHUNK ((uint64_t)VEX_SEGMENT_CHUNK_BYTES)
#define HEADER_STRUCT_BYTES 584u
#define MAGIC 0x47584556u

static uint64_t seed;
static const uint8_t uuid[16] = "an instance uuid";

/* ---- images ---------------------------------------------------------------------------------- */

static uint8_t *image_memory(uint64_t bytes)
{
    uint8_t *memory = mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(memory != MAP_FAILED);
    return memory;
}

static void image_free(uint8_t *memory, uint64_t bytes)
{
    assert_int_equal(munmap(memory, bytes ? bytes : 1), 0);
}

static void fill_image(uint8_t *image, const struct vex_segment_file *file)
{
    struct vex_random random = vex_random_seeded(seed + file->number);
    for (uint32_t i = 0; i < file->extents_count; i++) {
        vex_random_fill(&random, image + file->extents[i].offset, file->extents[i].bytes);
    }
}

static uint64_t data_bytes(const struct vex_segment_file *file)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < file->extents_count; i++) {
        bytes += file->extents[i].bytes;
    }
    return bytes;
}

/* From one block to pieces around the size of a chunk, with holes, and as many extents as there may be. */
static size_t shapes(struct vex_segment_file out[8])
{
    const struct vex_segment_file some[] = {
        {1, 7, 0, 0, {{0, 0}}},
        {2, 7, 5 * BLOCK + 100, 0, {{0, 0}}},
        {3, 0, BLOCK, 1, {{0, BLOCK}}},
        {4, UINT32_MAX, 4 * CHUNK, 1, {{BLOCK, CHUNK}}},
        {5, 1, 9 * CHUNK, 2, {{0, CHUNK + BLOCK}, {2 * CHUNK, 2 * CHUNK - BLOCK}}},
        {6, 1, 3 * CHUNK, 3, {{0, BLOCK}, {BLOCK, BLOCK}, {3 * CHUNK - 2 * BLOCK, 2 * BLOCK}}},
        {UINT64_MAX - 1, 9, 100 * BLOCK, VEX_SEGMENT_EXTENTS_MAX, {{0, 0}}},
    };
    memcpy(out, some, sizeof(some));
    struct vex_segment_file *many = &out[COUNT_OF(some) - 1];
    for (uint32_t i = 0; i < VEX_SEGMENT_EXTENTS_MAX; i++) {
        many->extents[i] = (struct vex_extent){(3 * i + 1) * BLOCK, (1 + i % 2) * BLOCK};
    }
    return COUNT_OF(some);
}

static void must_write(struct vex_io *io, const struct vex_segment_file *file)
{
    uint8_t *image = image_memory(file->image_bytes);
    fill_image(image, file);
    uint64_t bytes = 0;
    struct vex_error error = {.status = VEX_OK};
    if (vex_segment_file_write(io, uuid, file, image, NULL, &bytes, &error) != VEX_OK) {
        fail_msg("%s", error.message);
    }
    assert_int_equal(bytes, BLOCK + data_bytes(file));
    image_free(image, file->image_bytes);
}

static enum vex_status load_one(struct vex_io *io, const struct vex_segment_file *file,
                                uint8_t *memory, struct vex_error *error)
{
    struct vex_segment_load load = {
        .number = file->number,
        .tag = file->tag,
        .memory = memory,
        .image_bytes = file->image_bytes,
    };
    enum vex_status status = vex_segment_files_load(io, uuid, &load, 1, error);
    assert_int_equal(load.status, status);
    return status;
}

static void must_load(struct vex_io *io, const struct vex_segment_file *file)
{
    uint8_t *expected = image_memory(file->image_bytes);
    uint8_t *memory = image_memory(file->image_bytes);
    fill_image(expected, file);
    struct vex_error error = {.status = VEX_OK};
    if (load_one(io, file, memory, &error) != VEX_OK) {
        fail_msg("%s", error.message);
    }
    /* What is not in an extent is still zero. */
    assert_memory_equal(memory, expected, file->image_bytes);
    image_free(memory, file->image_bytes);
    image_free(expected, file->image_bytes);
}

static bool same_file(const struct vex_segment_file *left, const struct vex_segment_file *right)
{
    return left->number == right->number && left->tag == right->tag &&
           left->image_bytes == right->image_bytes && left->extents_count == right->extents_count &&
           memcmp(left->extents, right->extents, left->extents_count * sizeof(left->extents[0])) ==
               0;
}

static void check_round_trips(struct vex_io *io)
{
    struct vex_segment_file files[8];
    size_t count = shapes(files);
    assert_int_equal(io->ops->make_directory(io, "segments"), 0);
    for (size_t i = 0; i < count; i++) {
        must_write(io, &files[i]);
    }
    for (size_t i = 0; i < count; i++) {
        struct vex_segment_file found;
        assert_int_equal(vex_segment_file_read_header(io, uuid, files[i].number, &found, NULL),
                         VEX_OK);
        assert_true(same_file(&found, &files[i]));
        assert_int_equal(vex_segment_file_verify(io, uuid, files[i].number, NULL), VEX_OK);
        must_load(io, &files[i]);
    }
}

/* ---- round trips ----------------------------------------------------------------------------- */

static void what_was_written_is_loaded(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    check_round_trips(io);
    vex_io_close(io);
}

static void what_was_written_is_loaded_by_real_backends(void **state)
{
    struct vex_temp_dir *directory = *state;
    const char *const backends[] = {"sync", "uring"};
    for (size_t i = 0; i < COUNT_OF(backends); i++) {
        struct vex_io *io = NULL;
        char note[256];
        struct vex_error error;
        enum vex_status status =
            vex_io_open(backends[i], directory->fd, NULL, 0, &io, note, &error);
        if (status == VEX_ERR_UNAVAILABLE) {
            print_message("%s\n", error.message);
            continue;
        }
        assert_int_equal(status, VEX_OK);
        check_round_trips(io);
        vex_io_close(io);
    }
}

/* Group after group, each file with an image of its own. */
static void many_files_are_loaded_at_once(void **state)
{
    struct vex_temp_dir *directory = *state;
    enum { COUNT = 150 };
    static struct vex_segment_load loads[COUNT];
    struct vex_io *io = NULL;
    char note[256];
    assert_int_equal(vex_io_open(NULL, directory->fd, NULL, 0, &io, note, NULL), VEX_OK);
    assert_int_equal(io->ops->make_directory(io, "segments"), 0);
    for (uint64_t i = 0; i < COUNT; i++) {
        const struct vex_segment_file file = {
            i + 1, (uint32_t)i, 4 * BLOCK, 2, {{0, BLOCK}, {2 * BLOCK, (1 + i % 2) * BLOCK}}};
        must_write(io, &file);
        loads[i] = (struct vex_segment_load){.number = i + 1,
                                             .tag = (uint32_t)i,
                                             .memory = image_memory(4 * BLOCK),
                                             .image_bytes = 4 * BLOCK};
    }
    /* Three are damaged in three ways; the others do not mind. */
    assert_int_equal(io->ops->unlink(io, "segments/0000000000000003.seg"), 0);
    loads[80].tag = 1;
    int fd = openat(directory->fd, "segments/0000000000000065.seg", O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "x", 1, 2 * VEX_BLOCK_BYTES + 5), 1);
    (void)close(fd);
    struct vex_error error;
    assert_int_equal(vex_segment_files_load(io, uuid, loads, COUNT, &error), VEX_ERR_CORRUPT);
    assert_non_null(strstr(error.message, "0000000000000003"));
    uint8_t *expected = image_memory(4 * BLOCK);
    for (uint64_t i = 0; i < COUNT; i++) {
        bool is_damaged = i == 2 || i == 80 || i == 0x65 - 1;
        assert_int_equal(loads[i].status, is_damaged ? VEX_ERR_CORRUPT : VEX_OK);
        const struct vex_segment_file file = {
            i + 1, (uint32_t)i, 4 * BLOCK, 2, {{0, BLOCK}, {2 * BLOCK, (1 + i % 2) * BLOCK}}};
        memset(expected, 0, 4 * BLOCK);
        fill_image(expected, &file);
        if (!is_damaged) {
            assert_memory_equal(loads[i].memory, expected, 4 * BLOCK);
        } else {
            char path[VEX_SEGMENT_PATH_BYTES];
            vex_segment_file_path(path, i + 1);
            assert_non_null(strstr(loads[i].error.message, path));
        }
        image_free(loads[i].memory, 4 * BLOCK);
    }
    assert_non_null(strstr(loads[0x65 - 1].error.message, "offset 8192"));
    image_free(expected, 4 * BLOCK);
    vex_io_close(io);
}

/* ---- damage ---------------------------------------------------------------------------------- */

static const struct vex_segment_file sample = {
    5, 1, 4 * CHUNK, 3, {{0, CHUNK + BLOCK}, {2 * CHUNK, 3 * BLOCK}, {3 * CHUNK, BLOCK}}};
static const char sample_path[] = "segments/0000000000000005.seg";

/* Header, verifying and loading agree on damage, and say where. */
static void assert_damaged(struct vex_io *io, const char *what)
{
    struct vex_error error = {.status = VEX_OK};
    uint8_t *memory = image_memory(sample.image_bytes);
    enum vex_status loaded = load_one(io, &sample, memory, &error);
    if (loaded != VEX_ERR_CORRUPT || !strstr(error.message, sample_path)) {
        fail_msg("loading with %s: %s (%s)", what, vex_base_status_name(loaded), error.message);
    }
    enum vex_status verified = vex_segment_file_verify(io, uuid, sample.number, &error);
    if (verified != VEX_ERR_CORRUPT || !strstr(error.message, sample_path)) {
        fail_msg("verifying with %s: %s (%s)", what, vex_base_status_name(verified), error.message);
    }
    image_free(memory, sample.image_bytes);
}

static void any_flipped_bit_is_found(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed + 9);
    struct vex_io *io = vex_io_memory_open();
    must_write(io, &sample);
    size_t bytes;
    uint8_t *file = vex_io_memory_bytes(io, sample_path, &bytes);
    for (size_t at = 0; at < bytes; at += at < VEX_BLOCK_BYTES ? 7 : VEX_BLOCK_BYTES / 2) {
        size_t where = at < VEX_BLOCK_BYTES ? at : at + vex_random_below(&random, BLOCK / 2);
        uint8_t mask = (uint8_t)(1u << vex_random_below(&random, 8));
        char what[64];
        (void)snprintf(what, sizeof(what), "bit of mask %u flipped at %zu", mask, where);
        file[where] ^= mask;
        assert_damaged(io, what);
        struct vex_segment_file found;
        assert_int_equal(vex_segment_file_read_header(io, uuid, sample.number, &found, NULL),
                         where < BLOCK ? VEX_ERR_CORRUPT : VEX_OK);
        file[where] ^= mask;
    }
    must_load(io, &sample);
    vex_io_close(io);
}

static void damage_is_named_by_the_chunk_it_is_in(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    must_write(io, &sample);
    size_t bytes;
    uint8_t *file = vex_io_memory_bytes(io, sample_path, &bytes);
    const uint64_t chunks[] = {BLOCK, BLOCK + CHUNK, 2 * BLOCK + CHUNK, 5 * BLOCK + CHUNK};
    for (size_t i = 0; i < COUNT_OF(chunks); i++) {
        struct vex_error error;
        char expected[64];
        (void)snprintf(expected, sizeof(expected), "%s: offset %llu:", sample_path,
                       (unsigned long long)chunks[i]);
        file[chunks[i] + BLOCK - 1] ^= 0x80;
        assert_int_equal(vex_segment_file_verify(io, uuid, sample.number, &error), VEX_ERR_CORRUPT);
        if (!strstr(error.message, expected)) {
            fail_msg("'%s' does not say '%s'", error.message, expected);
        }
        file[chunks[i] + BLOCK - 1] ^= 0x80;
    }
    vex_io_close(io);
}

/* Two blocks with the same content, had they been exchanged, would be exchanged for nothing; two chunks with
 * different ones must not. */
static void chunks_in_each_others_places_are_found(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    const struct vex_segment_file file = {5, 1, 4 * CHUNK, 2, {{0, BLOCK}, {2 * CHUNK, BLOCK}}};
    must_write(io, &file);
    size_t bytes;
    uint8_t *data = vex_io_memory_bytes(io, sample_path, &bytes);
    uint8_t swap[VEX_BLOCK_BYTES];
    memcpy(swap, data + BLOCK, BLOCK);
    memcpy(data + BLOCK, data + 2 * BLOCK, BLOCK);
    memcpy(data + 2 * BLOCK, swap, BLOCK);
    assert_int_equal(vex_segment_file_verify(io, uuid, 5, NULL), VEX_ERR_CORRUPT);
    vex_io_close(io);
}

static void a_file_of_another_size_is_damaged(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    must_write(io, &sample);
    size_t bytes;
    uint8_t *file = vex_io_memory_bytes(io, sample_path, &bytes);
    uint8_t *copy = calloc(1, bytes + BLOCK);
    memcpy(copy, file, bytes);
    const size_t lengths[] = {0,         1,         600,           4095,      4096,         4097,
                              2 * BLOCK, bytes - 1, bytes - BLOCK, bytes + 1, bytes + BLOCK};
    for (size_t i = 0; i < COUNT_OF(lengths); i++) {
        char what[64];
        (void)snprintf(what, sizeof(what), "%zu of %zu bytes", lengths[i], bytes);
        vex_io_memory_put(io, sample_path, copy, lengths[i]);
        assert_damaged(io, what);
    }
    free(copy);
    vex_io_close(io);
}

static void a_file_in_the_wrong_place_is_damage(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    struct vex_segment_file wanted = sample;
    uint8_t *memory = image_memory(sample.image_bytes);
    must_write(io, &sample);
    wanted.tag++;
    assert_int_equal(load_one(io, &wanted, memory, NULL), VEX_ERR_CORRUPT);
    wanted = sample;
    wanted.image_bytes -= BLOCK;
    assert_int_equal(load_one(io, &wanted, memory, NULL), VEX_ERR_CORRUPT);
    const uint8_t other[16] = "another instance";
    assert_int_equal(vex_segment_file_verify(io, other, sample.number, NULL), VEX_ERR_CORRUPT);
    assert_int_equal(io->ops->rename(io, sample_path, "segments/0000000000000006.seg"), 0);
    assert_int_equal(vex_segment_file_verify(io, uuid, 6, NULL), VEX_ERR_CORRUPT);
    assert_int_equal(vex_segment_file_verify(io, uuid, 5, NULL), VEX_ERR_NOT_FOUND);
    assert_int_equal(load_one(io, &sample, memory, NULL), VEX_ERR_CORRUPT);
    image_free(memory, sample.image_bytes);
    vex_io_close(io);
}

/* ---- headers written by hand ----------------------------------------------------------------- */

struct hand {
    uint32_t magic, version;
    uint64_t number;
    uint32_t tag, extents_count;
    uint64_t image_bytes, chunks_count, header_bytes;
    struct vex_extent extents[VEX_SEGMENT_EXTENTS_MAX];
};

static void put_header(uint8_t *at, const struct hand *hand, size_t bytes)
{
    memset(at, 0, HEADER_STRUCT_BYTES);
    memcpy(at, &hand->magic, 4);
    memcpy(at + 4, &hand->version, 4);
    memcpy(at + 8, uuid, 16);
    memcpy(at + 24, &hand->number, 8);
    memcpy(at + 32, &hand->tag, 4);
    memcpy(at + 36, &hand->extents_count, 4);
    memcpy(at + 40, &hand->image_bytes, 8);
    memcpy(at + 48, &hand->chunks_count, 8);
    memcpy(at + 56, &hand->header_bytes, 8);
    memcpy(at + 72, hand->extents, sizeof(hand->extents));
    uint64_t checksum = vex_hash64(at, HEADER_STRUCT_BYTES, MAGIC);
    checksum = vex_hash64(at + HEADER_STRUCT_BYTES, bytes - HEADER_STRUCT_BYTES, checksum);
    memcpy(at + 64, &checksum, 8);
}

static const struct hand sound = {
    MAGIC, 1, 5, 1, 2, 4 * BLOCK, 2, BLOCK, {{0, BLOCK}, {2 * BLOCK, 2 * BLOCK}}};

static enum vex_status decode(const struct hand *hand, uint64_t file_bytes)
{
    static uint64_t page[VEX_BLOCK_BYTES / 8];
    memset(page, 0, sizeof(page));
    put_header((uint8_t *)page, hand, sizeof(page));
    struct vex_segment_file_header header;
    uint64_t need = 0;
    enum vex_status status = vex_segment_file_header_decode(
        &header, &need, uuid, 5, (uint8_t *)page, sizeof(page), file_bytes, NULL);
    assert_true(need == 0 || (status == VEX_ERR_CORRUPT && need <= file_bytes));
    return status;
}

static void a_right_checksum_makes_no_right_header(void **state)
{
    (void)state;
    assert_int_equal(decode(&sound, 4 * BLOCK), VEX_OK);
    assert_int_equal(decode(&sound, 5 * BLOCK), VEX_ERR_CORRUPT);
    struct hand hand = sound;
    hand.version = 2;
    assert_int_equal(decode(&hand, 4 * BLOCK), VEX_ERR_VERSION);
#define REFUSED(change)                                                                            \
    do {                                                                                           \
        hand = sound;                                                                              \
        hand.change;                                                                               \
        if (decode(&hand, 4 * BLOCK) != VEX_ERR_CORRUPT) {                                         \
            fail_msg("accepted: %s", #change);                                                     \
        }                                                                                          \
    } while (0)
    REFUSED(magic++);
    REFUSED(number++);
    REFUSED(extents_count = 1);
    REFUSED(extents_count = 3);
    REFUSED(extents_count = 33);
    REFUSED(extents_count = UINT32_MAX);
    REFUSED(image_bytes = 4 * BLOCK - 1);
    REFUSED(image_bytes = UINT64_MAX);
    REFUSED(image_bytes = 0);
    REFUSED(chunks_count = 1);
    REFUSED(chunks_count = 3);
    REFUSED(chunks_count = UINT64_MAX);
    REFUSED(header_bytes = 0);
    REFUSED(header_bytes = 2 * BLOCK);
    REFUSED(header_bytes = UINT64_MAX - BLOCK + 1);
    REFUSED(header_bytes = BLOCK + 1);
    REFUSED(extents[0].offset = 1);
    REFUSED(extents[0].bytes = 0);
    REFUSED(extents[0].bytes = BLOCK - 1);
    REFUSED(extents[0].bytes = UINT64_MAX - BLOCK + 1);
    REFUSED(extents[0].bytes = 3 * BLOCK);
    REFUSED(extents[1].offset = 0);
    REFUSED(extents[1].offset = 3 * BLOCK);
    REFUSED(extents[1].offset = UINT64_MAX - BLOCK + 1);
#undef REFUSED
}

/* 500 chunks: their checksums do not fit the first block. The data are a hole. */
static void a_header_of_several_blocks_is_read(void **state)
{
    struct vex_temp_dir *directory = *state;
    enum { CHUNKS = 500, HEADER_BYTES = 2 * VEX_BLOCK_BYTES };
    static uint64_t pages[HEADER_BYTES / 8];
    uint8_t *zeros = image_memory(CHUNK);
    const struct hand hand = {
        MAGIC, 1, 5, 1, 1, CHUNKS * CHUNK, CHUNKS, HEADER_BYTES, {{0, CHUNKS * CHUNK}}};
    for (uint64_t i = 0; i < CHUNKS; i++) {
        uint64_t checksum = vex_hash64(zeros, CHUNK, i * CHUNK);
        memcpy((uint8_t *)pages + HEADER_STRUCT_BYTES + 8 * i, &checksum, 8);
    }
    put_header((uint8_t *)pages, &hand, sizeof(pages));
    struct vex_io *io = NULL;
    assert_int_equal(vex_io_sync_open(directory->fd, &io), 0);
    assert_int_equal(io->ops->make_directory(io, "segments"), 0);
    int fd = openat(directory->fd, sample_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, pages, sizeof(pages), 0), sizeof(pages));
    assert_int_equal(ftruncate(fd, HEADER_BYTES + CHUNKS * (off_t)CHUNK), 0);
    struct vex_segment_file found;
    struct vex_error error = {.status = VEX_OK};
    assert_int_equal(vex_segment_file_read_header(io, uuid, 5, &found, NULL), VEX_OK);
    assert_int_equal(found.extents[0].bytes, CHUNKS * CHUNK);
    if (vex_segment_file_verify(io, uuid, 5, &error) != VEX_OK) {
        fail_msg("%s", error.message);
    }
    /* A checksum in the second block, then a byte far behind. */
    assert_int_equal(pwrite(fd, "x", 1, HEADER_BYTES - 900), 1);
    assert_int_equal(vex_segment_file_read_header(io, uuid, 5, &found, NULL), VEX_ERR_CORRUPT);
    assert_int_equal(pwrite(fd, (uint8_t *)pages + HEADER_BYTES - 900, 1, HEADER_BYTES - 900), 1);
    assert_int_equal(pwrite(fd, "x", 1, HEADER_BYTES + 499 * (off_t)CHUNK + 77), 1);
    assert_int_equal(vex_segment_file_verify(io, uuid, 5, &error), VEX_ERR_CORRUPT);
    assert_int_equal(ftruncate(fd, HEADER_BYTES - VEX_BLOCK_BYTES), 0);
    assert_int_equal(vex_segment_file_read_header(io, uuid, 5, &found, NULL), VEX_ERR_CORRUPT);
    (void)close(fd);
    image_free(zeros, CHUNK);
    vex_io_close(io);
}

/* ---- failures -------------------------------------------------------------------------------- */

static void extents_that_break_the_rules_are_refused(void **state)
{
    (void)state;
    const struct vex_segment_file files[] = {
        {1, 0, BLOCK, 1, {{0, 0}}},
        {1, 0, 2 * BLOCK, 1, {{1, BLOCK}}},
        {1, 0, 2 * BLOCK, 1, {{0, BLOCK + 512}}},
        {1, 0, BLOCK, 1, {{0, 2 * BLOCK}}},
        {1, 0, BLOCK, 1, {{BLOCK, BLOCK}}},
        {1, 0, 3 * BLOCK, 2, {{0, 2 * BLOCK}, {BLOCK, BLOCK}}},
        {1, 0, 3 * BLOCK, 2, {{BLOCK, BLOCK}, {0, BLOCK}}},
        {1, 0, UINT64_MAX, 1, {{UINT64_MAX - BLOCK + 1, BLOCK}}},
        {1, 0, 3 * BLOCK, VEX_SEGMENT_EXTENTS_MAX + 1, {{0, BLOCK}}},
    };
    struct vex_io *io = vex_io_memory_open();
    struct vex_io *before = vex_io_memory_clone(io);
    uint8_t *image = image_memory(4 * BLOCK);
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        uint64_t bytes;
        struct vex_error error;
        assert_int_equal(vex_segment_file_write(io, uuid, &files[i], image, NULL, &bytes, &error),
                         VEX_ERR_INVALID);
        assert_true(vex_io_memory_equals(io, before));
    }
    image_free(image, 4 * BLOCK);
    vex_io_close(before);
    vex_io_close(io);
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

static void writing_pauses_and_can_be_given_up(void **state)
{
    (void)state;
    uint8_t *image = image_memory(sample.image_bytes);
    fill_image(image, &sample);
    for (unsigned pauses = 0; pauses <= 4; pauses++) {
        struct vex_io *io = vex_io_memory_open();
        struct vex_io *before = vex_io_memory_clone(io);
        struct patience patience = {pauses, 0};
        const struct vex_pace pace = {be_patient, &patience};
        uint64_t bytes;
        enum vex_status status =
            vex_segment_file_write(io, uuid, &sample, image, &pace, &bytes, NULL);
        if (pauses < 4) { /* there are four chunks */
            assert_int_equal(status, VEX_ERR_UNAVAILABLE);
            assert_true(vex_io_memory_equals(io, before));
        } else {
            assert_int_equal(status, VEX_OK);
            assert_int_equal(patience.bytes, data_bytes(&sample));
        }
        vex_io_close(before);
        vex_io_close(io);
    }
    image_free(image, sample.image_bytes);
}

static void a_failing_write_leaves_nothing_of_that_name(void **state)
{
    (void)state;
    uint8_t *image = image_memory(sample.image_bytes);
    fill_image(image, &sample);
    size_t happened = 0;
    for (int call = 0; call < VEX_IO_CALLS_COUNT; call++) {
        for (uint64_t nth = 1; nth <= 6; nth++) {
            const struct vex_io_decision decisions[] = {
                {EIO, 0}, {ENOSPC, 0}, {ENOSPC, 3 * VEX_BLOCK_BYTES}, {EIO, SIZE_MAX}};
            for (size_t i = 0; i < COUNT_OF(decisions); i++) {
                struct vex_io *inner = vex_io_memory_open();
                struct vex_io *before = vex_io_memory_clone(inner);
                struct vex_io_fault_plan plan = {(enum vex_io_call)call, nth, false, decisions[i],
                                                 false};
                struct vex_io *io = vex_io_fault_open(inner, vex_io_fault_planned, &plan);
                uint64_t bytes;
                struct vex_error error = {.status = VEX_OK};
                enum vex_status status =
                    vex_segment_file_write(io, uuid, &sample, image, NULL, &bytes, &error);
                happened += plan.happened;
                if (plan.happened) {
                    assert_int_equal(status,
                                     decisions[i].error == ENOSPC ? VEX_ERR_NO_SPACE : VEX_ERR_IO);
                    assert_int_equal(error.os_errno, decisions[i].error);
                    assert_true(vex_io_memory_equals(inner, before));
                } else {
                    assert_int_equal(status, VEX_OK);
                    must_load(inner, &sample);
                }
                vex_io_close(io);
                vex_io_close(before);
                vex_io_close(inner);
            }
        }
    }
    /* open, allocate, five writes, sync, rename, sync of the directory */
    assert_int_equal(happened, 4 * 10);
    image_free(image, sample.image_bytes);
}

/* Where blocks cannot be had beforehand, writing finds out. */
static void a_disk_that_cannot_allocate_is_written_all_the_same(void **state)
{
    (void)state;
    struct vex_io *inner = vex_io_memory_open();
    struct vex_io_fault_plan plan = {VEX_IO_ALLOCATE, 1, true, {EOPNOTSUPP, 0}, false};
    struct vex_io *io = vex_io_fault_open(inner, vex_io_fault_planned, &plan);
    must_write(io, &sample);
    assert_true(plan.happened);
    must_load(io, &sample);
    vex_io_close(io);
    vex_io_close(inner);
}

static void a_failing_read_is_an_error_and_no_damage(void **state)
{
    (void)state;
    struct vex_io *inner = vex_io_memory_open();
    must_write(inner, &sample);
    const enum vex_io_call calls[] = {VEX_IO_OPEN_FILE, VEX_IO_SIZE, VEX_IO_READ};
    size_t happened = 0;
    for (size_t i = 0; i < COUNT_OF(calls); i++) {
        for (uint64_t nth = 1; nth <= 6; nth++) {
            struct vex_io_fault_plan plan = {calls[i], nth, false, {EIO, 0}, false};
            struct vex_io *io = vex_io_fault_open(inner, vex_io_fault_planned, &plan);
            uint8_t *memory = image_memory(sample.image_bytes);
            struct vex_error error = {.status = VEX_OK};
            enum vex_status status = load_one(io, &sample, memory, &error);
            assert_int_equal(status, plan.happened ? VEX_ERR_IO : VEX_OK);
            assert_true(!plan.happened || strstr(error.message, sample_path));
            happened += plan.happened;
            plan.happened = false;
            image_free(memory, sample.image_bytes);
            vex_io_close(io);
        }
    }
    assert_int_equal(happened, 1 + 1 + 5);
    vex_io_close(inner);
}

static int make_directory(void **state)
{
    static struct vex_temp_dir directory;
    vex_temp_dir_make(&directory);
    *state = &directory;
    return 0;
}

static int remove_directory(void **state)
{
    vex_temp_dir_remove(*state);
    return 0;
}

#define ON_DISK(test) cmocka_unit_test_setup_teardown(test, make_directory, remove_directory)

int main(void)
{
    seed = vex_random_announce("test_ioengine_segment_file");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_is_loaded),
        ON_DISK(what_was_written_is_loaded_by_real_backends),
        ON_DISK(many_files_are_loaded_at_once),
        cmocka_unit_test(any_flipped_bit_is_found),
        cmocka_unit_test(damage_is_named_by_the_chunk_it_is_in),
        cmocka_unit_test(chunks_in_each_others_places_are_found),
        cmocka_unit_test(a_file_of_another_size_is_damaged),
        cmocka_unit_test(a_file_in_the_wrong_place_is_damage),
        cmocka_unit_test(a_right_checksum_makes_no_right_header),
        ON_DISK(a_header_of_several_blocks_is_read),
        cmocka_unit_test(extents_that_break_the_rules_are_refused),
        cmocka_unit_test(writing_pauses_and_can_be_given_up),
        cmocka_unit_test(a_failing_write_leaves_nothing_of_that_name),
        cmocka_unit_test(a_disk_that_cannot_allocate_is_written_all_the_same),
        cmocka_unit_test(a_failing_read_is_an_error_and_no_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
