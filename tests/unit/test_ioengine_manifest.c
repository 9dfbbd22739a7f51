/*
 * The manifest: made once, found again, and never made anew over something that looks like an instance.
 * Slots are written here by hand, from FORMAT.md.
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
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/error.h"
#include "ioengine/manifest.h"
#include "tests/lib/io_fault.h"
#include "tests/lib/io_memory.h"
#include "tests/lib/random.h"
#include "tests/lib/temp_dir.h"

#define COUNT_OF(array) (sizeof(array) / sizeof(*(array)))
#define MAGIC 0x4d584556u
#define FILE_BYTES (2u * VEX_BLOCK_BYTES)
#define CHECKED_BYTES 4088u

static uint64_t seed;

/* ---- slots ----------------------------------------------------------------------------------- */

static void seal_slot(uint8_t *at)
{
    uint64_t checksum = vex_hash64(at, CHECKED_BYTES, MAGIC);
    memcpy(at + CHECKED_BYTES, &checksum, 8);
}

static void put_u64(uint8_t *at, size_t offset, uint64_t value)
{
    memcpy(at + offset, &value, sizeof(value));
}

/* With a log from file 4 on and two checkpoints, if there is more than one file. */
static void put_slot(uint8_t *at, uint32_t version, uint64_t sequence, uint8_t uuid_byte)
{
    const uint32_t magic = MAGIC;
    const uint32_t checkpoints_count = 2;
    memset(at, 0, VEX_BLOCK_BYTES);
    memcpy(at, &magic, 4);
    memcpy(at + 4, &version, 4);
    put_u64(at, 8, sequence);
    memset(at + 16, uuid_byte, 16);
    put_u64(at, 32, 1700000000000u + sequence);
    put_u64(at, 40, 4);   /* first log file */
    put_u64(at, 48, 100); /* its records are above this LSN */
    memcpy(at + 56, &checkpoints_count, 4);
    for (size_t i = 0; i < 2; i++) {
        uint8_t *checkpoint = at + 64 + 40 * i;
        put_u64(checkpoint, 0, 9 - i);        /* number */
        put_u64(checkpoint, 8, 200 - 50 * i); /* LSN */
        put_u64(checkpoint, 16, 6 - i);       /* log file */
        put_u64(checkpoint, 24, 4096);
        put_u64(checkpoint, 32, 0xabcdef);
    }
    seal_slot(at);
}

static enum vex_status decode(const uint8_t *data, size_t bytes, struct vex_manifest *out)
{
    /* Exactly as long as said. */
    uint8_t *exact = malloc(bytes ? bytes : 1);
    assert_non_null(exact);
    memcpy(exact, data, bytes);
    struct vex_manifest before;
    memset(&before, 0x5a, sizeof(before));
    *out = before;
    struct vex_error error = {.status = VEX_OK};
    enum vex_status status = vex_manifest_decode(out, NULL, exact, bytes, &error);
    free(exact);
    assert_int_equal(error.status, status);
    if (status != VEX_OK) {
        assert_memory_equal(out, &before, sizeof(before));
        assert_non_null(strstr(error.message, "MANIFEST"));
    }
    return status;
}

/* A slot is where its sequence says. */
static void the_newer_of_two_sound_slots_counts(void **state)
{
    (void)state;
    uint8_t data[FILE_BYTES];
    struct vex_manifest manifest;
    put_slot(data, 2, 8, 0xaa);
    put_slot(data + VEX_BLOCK_BYTES, 2, 9, 0xbb);
    assert_int_equal(decode(data, sizeof(data), &manifest), VEX_OK);
    assert_int_equal(manifest.sequence, 9);
    assert_int_equal(manifest.uuid[0], 0xbb);
    assert_int_equal(manifest.uuid[15], 0xbb);
    assert_int_equal(manifest.created_ms, 1700000000009u);
    assert_int_equal(manifest.log_file, 4);
    assert_int_equal(manifest.log_lsn, 100);
    assert_int_equal(manifest.checkpoints_count, 2);
    for (size_t i = 0; i < 2; i++) {
        const struct vex_manifest_checkpoint expected = {9 - i, 200 - 50 * i, 6 - i, 4096,
                                                         0xabcdef};
        assert_memory_equal(&manifest.checkpoints[i], &expected, sizeof(expected));
    }
    put_slot(data, 2, 10, 0xcc);
    assert_int_equal(decode(data, sizeof(data), &manifest), VEX_OK);
    assert_int_equal(manifest.uuid[0], 0xcc);
    put_slot(data, 2, 11, 0xdd); /* would be the newest in its own place */
    assert_int_equal(decode(data, sizeof(data), &manifest), VEX_OK);
    assert_int_equal(manifest.uuid[0], 0xbb);
}

static void slots_are_equal_if_they_say_the_same(void **state)
{
    (void)state;
    uint8_t data[FILE_BYTES];
    struct vex_manifest manifest;
    bool equal = false;
    put_slot(data, 2, 8, 0xaa);
    put_slot(data + VEX_BLOCK_BYTES, 2, 9, 0xaa);
    put_u64(data, 32, 1700000000009u);
    seal_slot(data);
    assert_int_equal(vex_manifest_decode(&manifest, &equal, data, sizeof(data), NULL), VEX_OK);
    assert_true(equal);
    for (size_t offset = 16; offset < 56; offset += 8) {
        put_slot(data, 2, 8, 0xaa);
        put_u64(data, 32, 1700000000009u);
        data[offset] ^= 1;
        seal_slot(data);
        assert_int_equal(vex_manifest_decode(&manifest, &equal, data, sizeof(data), NULL), VEX_OK);
        assert_false(equal);
    }
    data[100] ^= 1; /* and one that is not sound */
    assert_int_equal(vex_manifest_decode(&manifest, &equal, data, sizeof(data), NULL), VEX_OK);
    assert_false(equal);
}

/* The whole block is covered, not only the bytes that mean something. */
static void a_torn_slot_leaves_the_other_one(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed);
    uint8_t data[FILE_BYTES];
    struct vex_manifest manifest;
    for (size_t torn = 0; torn < 2; torn++) {
        put_slot(data, 2, torn == 0 ? 10 : 8, 0xaa);
        put_slot(data + VEX_BLOCK_BYTES, 2, 9, 0xbb);
        for (size_t bit = 0; bit < 8 * VEX_BLOCK_BYTES; bit += bit < 8 * 160 ? 1 : 61) {
            uint8_t *byte = data + torn * VEX_BLOCK_BYTES + bit / 8;
            uint8_t mask = (uint8_t)(1u << bit % 8);
            *byte ^= mask;
            assert_non_null(vex_manifest_slot_fault(data + torn * VEX_BLOCK_BYTES, torn));
            assert_int_equal(decode(data, sizeof(data), &manifest), VEX_OK);
            assert_int_equal(manifest.uuid[0], torn == 0 ? 0xbb : 0xaa);
            /* Then the other one too. */
            uint8_t *other =
                data + (1 - torn) * VEX_BLOCK_BYTES + vex_random_below(&random, VEX_BLOCK_BYTES);
            *other ^= 0x10;
            assert_int_equal(decode(data, sizeof(data), &manifest), VEX_ERR_CORRUPT);
            *other ^= 0x10;
            *byte ^= mask;
        }
    }
}

/* Also beside one of ours, which would take the instance back in time. */
static void a_manifest_of_another_version_is_refused_as_such(void **state)
{
    (void)state;
    uint8_t data[FILE_BYTES] = {0};
    struct vex_manifest manifest;
    put_slot(data + VEX_BLOCK_BYTES, 3, 1, 0xaa);
    assert_int_equal(decode(data, sizeof(data), &manifest), VEX_ERR_VERSION);
    put_slot(data, 2, 2, 0xaa);
    assert_int_equal(decode(data, sizeof(data), &manifest), VEX_ERR_VERSION);
    put_slot(data, 0, 2, 0xaa);
    assert_int_equal(decode(data, sizeof(data), &manifest), VEX_ERR_VERSION);
}

static void a_file_that_is_cut_has_the_slots_it_still_has(void **state)
{
    (void)state;
    uint8_t data[FILE_BYTES];
    struct vex_manifest manifest;
    put_slot(data, 2, 8, 0xaa);
    put_slot(data + VEX_BLOCK_BYTES, 2, 9, 0xbb);
    const size_t lengths[] = {0, 1, 143, 4088, 4095};
    for (size_t i = 0; i < COUNT_OF(lengths); i++) {
        assert_int_equal(decode(data, lengths[i], &manifest), VEX_ERR_CORRUPT);
    }
    const size_t one_slot[] = {4096, 4097, 4144, 8191};
    for (size_t i = 0; i < COUNT_OF(one_slot); i++) {
        assert_int_equal(decode(data, one_slot[i], &manifest), VEX_OK);
        assert_int_equal(manifest.sequence, 8);
    }
}

/* A right checksum makes no right content. */
static void content_that_makes_no_sense_is_no_slot(void **state)
{
    (void)state;
    const struct {
        size_t offset;
        uint64_t value;
    } changes[] = {
        {8, 0},
        {8, UINT64_MAX},
        {8, UINT64_MAX - 1},
        {56, 3},
        {56, UINT32_MAX},
        {40, 6},
        {48, 151},
        {48, UINT64_MAX},
        {64, 8},
        {64, 7},
        {64, UINT64_MAX},
        {64 + 8, 149},
        {64 + 16, 4},
        {104, 0},
        {104, 9},
        {104 + 8, 99},
        {104 + 8, UINT64_MAX},
        {104 + 16, 3},
        {104 + 16, 7},
    };
    for (size_t i = 0; i < COUNT_OF(changes); i++) {
        uint8_t data[FILE_BYTES] = {0};
        struct vex_manifest manifest;
        put_slot(data, 2, 8, 0xaa);
        assert_null(vex_manifest_slot_fault(data, 0));
        put_u64(data, changes[i].offset, changes[i].value);
        seal_slot(data);
        if (decode(data, sizeof(data), &manifest) != VEX_ERR_CORRUPT) {
            fail_msg("accepted: %llu at %zu", (unsigned long long)changes[i].value,
                     changes[i].offset);
        }
    }
}

static void noise_is_no_manifest(void **state)
{
    (void)state;
    struct vex_random random = vex_random_seeded(seed + 1);
    uint8_t data[FILE_BYTES];
    struct vex_manifest manifest;
    for (int round = 0; round < 300; round++) {
        vex_random_fill(&random, data, sizeof(data));
        if (round % 2) {
            const uint32_t magic = MAGIC;
            memcpy(data, &magic, sizeof(magic));
        }
        assert_int_equal(decode(data, sizeof(data), &manifest), VEX_ERR_CORRUPT);
    }
}

/* ---- on a disk ------------------------------------------------------------------------------- */

static void assert_is_version_4(const uint8_t *uuid)
{
    assert_int_equal(uuid[6] >> 4, 4);
    assert_int_equal(uuid[8] >> 6, 2);
}

static void an_instance_is_made_once_and_then_found(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    struct vex_io *other = vex_io_memory_open();
    struct vex_manifest made;
    struct vex_manifest found;
    struct vex_manifest another;
    assert_int_equal(vex_manifest_open(io, &made, NULL), VEX_OK);
    assert_is_version_4(made.uuid);
    assert_true(made.created_ms > 1600000000000u);
    size_t bytes = 0;
    assert_non_null(vex_io_memory_bytes(io, "MANIFEST", &bytes));
    assert_int_equal(bytes, FILE_BYTES);
    assert_null(vex_io_memory_bytes(io, "MANIFEST.new", &bytes));
    for (int i = 0; i < 3; i++) {
        assert_int_equal(vex_manifest_open(io, &found, NULL), VEX_OK);
        assert_memory_equal(&found, &made, sizeof(made));
    }
    assert_int_equal(vex_manifest_open(other, &another, NULL), VEX_OK);
    assert_memory_not_equal(another.uuid, made.uuid, sizeof(made.uuid));
    vex_io_close(other);
    vex_io_close(io);
}

static void a_manifest_left_half_made_is_made_again(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    struct vex_manifest manifest;
    static uint8_t noise[3 * VEX_BLOCK_BYTES];
    memset(noise, 0x77, sizeof(noise));
    vex_io_memory_put(io, "MANIFEST.new", noise, sizeof(noise));
    assert_int_equal(vex_manifest_open(io, &manifest, NULL), VEX_OK);
    struct vex_manifest found;
    assert_int_equal(vex_manifest_open(io, &found, NULL), VEX_OK);
    assert_memory_equal(&found, &manifest, sizeof(manifest));
    vex_io_close(io);
}

/* A fresh UUID would make all that is there another instance's. */
static void files_of_an_instance_without_a_manifest_are_no_new_instance(void **state)
{
    (void)state;
    const char *const paths[] = {"log/00000001.log", "segments/0000000000000001.seg",
                                 "checkpoints/0000000000000001.ckpt"};
    for (size_t i = 0; i < COUNT_OF(paths); i++) {
        struct vex_io *io = vex_io_memory_open();
        struct vex_manifest manifest;
        struct vex_error error;
        vex_io_memory_put(io, paths[i], "x", 1);
        assert_int_equal(vex_manifest_open(io, &manifest, &error), VEX_ERR_CORRUPT);
        assert_non_null(strstr(error.message, "MANIFEST"));
        size_t bytes;
        assert_null(vex_io_memory_bytes(io, "MANIFEST", &bytes));
        /* What is left by a start that was killed early is no file of an instance yet. */
        (void)vex_io_memory_drop(io, paths[i]);
        vex_io_memory_put(io, "log/prepared", "x", 1);
        vex_io_memory_put(io, "segments/0000000000000001.seg.new", "x", 1);
        assert_int_equal(vex_manifest_open(io, &manifest, NULL), VEX_OK);
        vex_io_close(io);
    }
}

/* If it cannot be told whether there are files, nothing is made. */
static void a_directory_that_cannot_be_listed_is_no_new_instance(void **state)
{
    (void)state;
    const int failures[] = {EIO, EACCES, EMFILE, ENOMEM};
    for (size_t i = 0; i < COUNT_OF(failures); i++) {
        for (uint64_t nth = 1; nth <= 3; nth++) {
            struct vex_io *inner = vex_io_memory_open();
            struct vex_io_fault_plan plan = {VEX_IO_LIST, nth, true, {failures[i], 0}, false};
            struct vex_io *io = vex_io_fault_open(inner, vex_io_fault_planned, &plan);
            struct vex_manifest manifest;
            size_t bytes;
            assert_int_not_equal(vex_manifest_open(io, &manifest, NULL), VEX_OK);
            assert_true(plan.happened);
            assert_null(vex_io_memory_bytes(inner, "MANIFEST", &bytes));
            vex_io_close(io);
            vex_io_close(inner);
        }
    }
}

/* No log directory at all is how every instance begins. */
static void a_missing_log_directory_is_a_new_instance(void **state)
{
    (void)state;
    struct vex_io *inner = vex_io_memory_open();
    struct vex_io_fault_plan plan = {VEX_IO_LIST, 1, true, {ENOENT, 0}, false};
    struct vex_io *io = vex_io_fault_open(inner, vex_io_fault_planned, &plan);
    struct vex_manifest manifest;
    assert_int_equal(vex_manifest_open(io, &manifest, NULL), VEX_OK);
    vex_io_close(io);
    vex_io_close(inner);
}

/* Each call fails once, with or without effect: an error, and afterwards either the same instance as a
 * manifest that was complete says, or a new one. */
static void any_failing_call_is_an_error_that_the_next_start_survives(void **state)
{
    (void)state;
    for (int call = 0; call < VEX_IO_CALLS_COUNT; call++) {
        for (uint64_t nth = 1; nth <= 3; nth++) {
            const struct vex_io_decision decisions[] = {
                {EIO, 0}, {ENOSPC, 0}, {EIO, SIZE_MAX}, {EIO, VEX_BLOCK_BYTES}};
            for (size_t i = 0; i < COUNT_OF(decisions); i++) {
                struct vex_io *inner = vex_io_memory_open();
                struct vex_io_fault_plan plan = {(enum vex_io_call)call, nth, false, decisions[i],
                                                 false};
                struct vex_io *io = vex_io_fault_open(inner, vex_io_fault_planned, &plan);
                struct vex_manifest first;
                struct vex_error error = {.status = VEX_OK};
                enum vex_status status = vex_manifest_open(io, &first, &error);
                bool is_parent = call == VEX_IO_SYNC_DIRECTORY && nth == 2;
                if (plan.happened && !is_parent) {
                    assert_int_equal(status,
                                     decisions[i].error == ENOSPC ? VEX_ERR_NO_SPACE : VEX_ERR_IO);
                    assert_int_equal(error.os_errno, decisions[i].error);
                } else {
                    assert_int_equal(status, VEX_OK);
                }
                struct vex_manifest second;
                struct vex_manifest third;
                assert_int_equal(vex_manifest_open(inner, &second, NULL), VEX_OK);
                assert_int_equal(vex_manifest_open(inner, &third, NULL), VEX_OK);
                assert_memory_equal(&second, &third, sizeof(second));
                if (status == VEX_OK) {
                    assert_memory_equal(&first, &second, sizeof(second));
                }
                vex_io_close(io);
                vex_io_close(inner);
            }
        }
    }
}

/* ---- writing --------------------------------------------------------------------------------- */

static struct vex_manifest with_checkpoint(const struct vex_manifest *manifest)
{
    struct vex_manifest next = *manifest;
    next.log_file = 1;
    next.checkpoints_count = 1;
    next.checkpoints[0] = (struct vex_manifest_checkpoint){1, 77, 2, 4096, 5};
    return next;
}

static bool same_content(const struct vex_manifest *left, struct vex_manifest right)
{
    right.sequence = left->sequence;
    return memcmp(left, &right, sizeof(right)) == 0;
}

/* So that damage to one slot, later, takes nothing back. */
static void a_write_puts_the_same_into_both_slots(void **state)
{
    (void)state;
    struct vex_io *io = vex_io_memory_open();
    struct vex_manifest made;
    assert_int_equal(vex_manifest_open(io, &made, NULL), VEX_OK);
    struct vex_manifest written = with_checkpoint(&made);
    assert_int_equal(vex_manifest_write(io, &written, NULL), VEX_OK);
    assert_int_equal(written.sequence, made.sequence + 2);
    for (size_t slot = 0; slot < 2; slot++) {
        struct vex_io *copy = vex_io_memory_clone(io);
        size_t bytes;
        uint8_t *file = vex_io_memory_bytes(copy, "MANIFEST", &bytes);
        assert_int_equal(bytes, FILE_BYTES);
        assert_null(vex_manifest_slot_fault(file, 0));
        assert_null(vex_manifest_slot_fault(file + VEX_BLOCK_BYTES, 1));
        file[slot * VEX_BLOCK_BYTES + 70] ^= 4;
        struct vex_manifest found;
        bool equal = true;
        assert_int_equal(vex_manifest_open(copy, &found, NULL), VEX_OK);
        assert_true(same_content(&written, found));
        /* Opening has mended it. */
        file = vex_io_memory_bytes(copy, "MANIFEST", &bytes);
        assert_int_equal(vex_manifest_decode(&found, &equal, file, bytes, NULL), VEX_OK);
        assert_true(equal);
        assert_true(same_content(&written, found));
        vex_io_close(copy);
    }
    vex_io_close(io);
}

/* Whatever fails, and however much of it was written: old or new, and a second start finds the same. */
static void a_failing_write_leaves_the_old_or_the_new_content(void **state)
{
    (void)state;
    const size_t some_bytes[] = {0, 512, VEX_BLOCK_BYTES, SIZE_MAX};
    struct vex_io *base = vex_io_memory_open();
    struct vex_manifest made;
    assert_int_equal(vex_manifest_open(base, &made, NULL), VEX_OK);
    bool seen_old = false;
    bool seen_new = false;
    for (int call = 0; call < VEX_IO_CALLS_COUNT; call++) {
        for (uint64_t nth = 1; nth <= 2; nth++) {
            for (size_t i = 0; i < COUNT_OF(some_bytes); i++) {
                struct vex_io *inner = vex_io_memory_clone(base);
                struct vex_io_fault_plan plan = {
                    (enum vex_io_call)call, nth, false, {EIO, some_bytes[i]}, false};
                struct vex_io *io = vex_io_fault_open(inner, vex_io_fault_planned, &plan);
                struct vex_manifest written = with_checkpoint(&made);
                enum vex_status status = vex_manifest_write(io, &written, NULL);
                assert_int_equal(status, plan.happened ? VEX_ERR_IO : VEX_OK);
                struct vex_manifest found;
                struct vex_manifest again;
                assert_int_equal(vex_manifest_open(inner, &found, NULL), VEX_OK);
                assert_int_equal(vex_manifest_open(inner, &again, NULL), VEX_OK);
                assert_memory_equal(&found, &again, sizeof(found));
                bool is_new = same_content(&written, found);
                assert_true(is_new || same_content(&made, found));
                assert_true(is_new || status != VEX_OK);
                seen_old = seen_old || !is_new;
                seen_new = seen_new || (is_new && status != VEX_OK);
                vex_io_close(io);
                vex_io_close(inner);
            }
        }
    }
    assert_true(seen_old);
    assert_true(seen_new);
    vex_io_close(base);
}

/* ---- on a real disk -------------------------------------------------------------------------- */

static enum vex_status open_on_disk(int directory_fd, struct vex_manifest *out,
                                    struct vex_error *error)
{
    struct vex_io *io = NULL;
    assert_int_equal(vex_io_sync_open(directory_fd, &io), 0);
    enum vex_status status = vex_manifest_open(io, out, error);
    vex_io_close(io);
    return status;
}

static void a_real_directory_keeps_its_instance(void **state)
{
    struct vex_temp_dir *directory = *state;
    struct vex_manifest made;
    struct vex_manifest found;
    assert_int_equal(open_on_disk(directory->fd, &made, NULL), VEX_OK);
    assert_int_equal(open_on_disk(directory->fd, &found, NULL), VEX_OK);
    assert_memory_equal(&found, &made, sizeof(made));
    assert_int_equal(faccessat(directory->fd, "MANIFEST.new", F_OK, 0), -1);
}

static off_t file_bytes(int directory_fd, const char *path)
{
    struct stat info;
    assert_int_equal(fstatat(directory_fd, path, &info, 0), 0);
    return info.st_size;
}

/* Direct reading ends at a block; a file need not. */
static void a_manifest_cut_at_any_length_is_damaged_or_still_sound(void **state)
{
    struct vex_temp_dir *directory = *state;
    const off_t lengths[] = {8191, 8190, 6000, 4608, 4097, 4096, 4095, 600, 48, 1, 0};
    struct vex_manifest made;
    assert_int_equal(open_on_disk(directory->fd, &made, NULL), VEX_OK);
    for (size_t i = 0; i < COUNT_OF(lengths); i++) {
        int fd = openat(directory->fd, "MANIFEST", O_RDWR | O_CLOEXEC);
        assert_true(fd >= 0);
        assert_int_equal(ftruncate(fd, lengths[i]), 0);
        (void)close(fd);
        struct vex_manifest found;
        struct vex_error error = {.status = VEX_OK};
        enum vex_status status = open_on_disk(directory->fd, &found, &error);
        enum vex_status expected = lengths[i] >= VEX_BLOCK_BYTES ? VEX_OK : VEX_ERR_CORRUPT;
        if (status != expected) {
            fail_msg("cut to %lld bytes: %s (%s)", (long long)lengths[i],
                     vex_base_status_name(status), error.message);
        }
        if (status == VEX_OK) {
            assert_memory_equal(found.uuid, made.uuid, sizeof(made.uuid));
        }
        if (status == VEX_OK) { /* and is whole again */
            assert_int_equal(file_bytes(directory->fd, "MANIFEST"), FILE_BYTES);
        }
    }
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
    seed = vex_random_announce("test_ioengine_manifest");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_newer_of_two_sound_slots_counts),
        cmocka_unit_test(slots_are_equal_if_they_say_the_same),
        cmocka_unit_test(a_torn_slot_leaves_the_other_one),
        cmocka_unit_test(a_manifest_of_another_version_is_refused_as_such),
        cmocka_unit_test(a_file_that_is_cut_has_the_slots_it_still_has),
        cmocka_unit_test(content_that_makes_no_sense_is_no_slot),
        cmocka_unit_test(noise_is_no_manifest),
        cmocka_unit_test(an_instance_is_made_once_and_then_found),
        cmocka_unit_test(a_manifest_left_half_made_is_made_again),
        cmocka_unit_test(files_of_an_instance_without_a_manifest_are_no_new_instance),
        cmocka_unit_test(a_directory_that_cannot_be_listed_is_no_new_instance),
        cmocka_unit_test(a_missing_log_directory_is_a_new_instance),
        cmocka_unit_test(any_failing_call_is_an_error_that_the_next_start_survives),
        cmocka_unit_test(a_write_puts_the_same_into_both_slots),
        cmocka_unit_test(a_failing_write_leaves_the_old_or_the_new_content),
        ON_DISK(a_real_directory_keeps_its_instance),
        ON_DISK(a_manifest_cut_at_any_length_is_damaged_or_still_sound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
