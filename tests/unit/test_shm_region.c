/*
 * Named shared memory as the kernel gives it. One case mounts a tiny file system over /dev/shm, in a
 * mount table of its own, to run out of memory for real; where that is forbidden it says so and is
 * skipped. All names carry a random UUID and are gone at the end, also after a failure.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "shm/region.h"
#include "tests/lib/child.h"
#include "tests/lib/temp_dir.h"

#define COUNT_OF(array) (sizeof(array) / sizeof(*(array)))
#define MIB (1u << 20)
#define HUGE_PAGE (2u * MIB)

static uint8_t uuid[VEX_UUID_BYTES];
static uint8_t other_uuid[VEX_UUID_BYTES];
static char name[VEX_REGION_NAME_MAX];

static int make_uuids(void **state)
{
    (void)state;
    /* Not from the seed: two runs at the same time must not share names. */
    if (getrandom(uuid, sizeof(uuid), 0) != (ssize_t)sizeof(uuid) ||
        getrandom(other_uuid, sizeof(other_uuid), 0) != (ssize_t)sizeof(other_uuid)) {
        return -1;
    }
    vex_region_segment_name(name, uuid, 1);
    return 0;
}

static int remove_all(void **state)
{
    (void)state;
    vex_region_unlink_all(uuid);
    vex_region_unlink_all(other_uuid);
    return 0;
}

static bool exists(const char *region_name)
{
    int fd = shm_open(region_name, O_RDONLY, 0);
    if (fd >= 0) {
        (void)close(fd);
    }
    return fd >= 0;
}

static struct stat stat_of(const char *region_name)
{
    struct stat info = {0};
    int fd = shm_open(region_name, O_RDONLY, 0);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &info), 0);
    (void)close(fd);
    return info;
}

static bool is_filled(const void *memory, int byte, size_t bytes)
{
    const uint8_t *at = memory;
    return bytes == 0 || (at[0] == byte && memcmp(at, at + 1, bytes - 1) == 0);
}

/* ---- names ----------------------------------------------------------------------------------- */

static void names_carry_the_uuid_and_the_number(void **state)
{
    (void)state;
    const uint8_t known[VEX_UUID_BYTES] = {0x00, 0x01, 0x0a, 0xff, 0x12, 0x34, 0x56, 0x78,
                                           0x9a, 0xbc, 0xde, 0xf0, 0x0f, 0xf0, 0x80, 0x7f};
    char text[VEX_REGION_NAME_MAX];
    vex_region_control_name(text, known);
    assert_string_equal(text, "/vexdb-00010aff123456789abcdef00ff0807f-ctl");
    vex_region_segment_name(text, known, 7);
    assert_string_equal(text, "/vexdb-00010aff123456789abcdef00ff0807f-seg-7");
    vex_region_segment_name(text, known, UINT64_MAX);
    assert_string_equal(text, "/vexdb-00010aff123456789abcdef00ff0807f-seg-18446744073709551615");
    vex_uuid_text(text, known);
    assert_string_equal(text, "00010aff-1234-5678-9abc-def00ff0807f");
}

static void the_key_is_the_directorys_as_much_as_the_instances(void **state)
{
    (void)state;
    struct vex_temp_dir first;
    struct vex_temp_dir second;
    vex_temp_dir_make(&first);
    vex_temp_dir_make(&second);
    char link[VEX_TEMP_PATH_MAX + 8];
    (void)snprintf(link, sizeof(link), "%s/link", second.path);
    assert_int_equal(symlink(first.path, link), 0);
    uint8_t keys[4][VEX_UUID_BYTES];
    assert_int_equal(vex_region_key(keys[0], uuid, first.path), 0);
    assert_int_equal(vex_region_key(keys[1], uuid, link), 0);
    assert_int_equal(vex_region_key(keys[2], uuid, second.path), 0);
    assert_int_equal(vex_region_key(keys[3], other_uuid, first.path), 0);
    /* One directory by two names is one instance; a copy is another. */
    assert_memory_equal(keys[0], keys[1], VEX_UUID_BYTES);
    assert_memory_not_equal(keys[0], keys[2], VEX_UUID_BYTES);
    assert_memory_not_equal(keys[0], keys[3], VEX_UUID_BYTES);
    vex_temp_dir_remove(&second);
    assert_int_equal(vex_region_key(keys[0], uuid, second.path), ENOENT);
    vex_temp_dir_remove(&first);
}

static void a_region_exists_from_its_creation_to_its_unlinking(void **state)
{
    (void)state;
    struct vex_region region;
    assert_false(vex_region_exists(name));
    assert_int_equal(vex_region_create(&region, name, 4096, 0, NULL), VEX_OK);
    assert_true(vex_region_exists(name));
    vex_region_unlink(name);
    assert_false(vex_region_exists(name));
    vex_region_close(&region);
}

/* ---- create and open ------------------------------------------------------------------------- */

static void a_new_region_is_zero_writable_and_aligned(void **state)
{
    (void)state;
    const uint64_t sizes[] = {1, VEX_PAGE_BYTES, VEX_PAGE_BYTES + 1, 3 * MIB, 5 * MIB + 12345};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        struct vex_region region;
        assert_int_equal(vex_region_create(&region, name, sizes[i], sizes[i], NULL), VEX_OK);
        assert_int_equal(region.bytes, sizes[i]);
        assert_string_equal(region.name, name);
        assert_int_equal((uintptr_t)region.memory % HUGE_PAGE, 0);
        assert_true(is_filled(region.memory, 0, sizes[i]));
        memset(region.memory, 0xa5, sizes[i]);
        assert_true(stat_of(name).st_size == (off_t)sizes[i]);
        assert_true(stat_of(name).st_blocks * 512 >= (off_t)sizes[i]);
        vex_region_close(&region);
        assert_null(region.memory);
        vex_region_unlink(name);
        assert_false(exists(name));
    }
}

static void the_mode_does_not_depend_on_the_umask(void **state)
{
    (void)state;
    const mode_t masks[] = {0, 022, 077, 0777};
    for (size_t i = 0; i < COUNT_OF(masks); i++) {
        mode_t before = umask(masks[i]);
        struct vex_region region;
        enum vex_status status = vex_region_create(&region, name, 4096, 0, NULL);
        (void)umask(before);
        assert_int_equal(status, VEX_OK);
        assert_int_equal(stat_of(name).st_mode & 07777, 0640);
        vex_region_close(&region);
        vex_region_unlink(name);
    }
}

static void a_name_that_is_taken_is_refused_and_left_alone(void **state)
{
    (void)state;
    struct vex_region first;
    struct vex_region second;
    struct vex_error error;
    assert_int_equal(vex_region_create(&first, name, 4096, 4096, NULL), VEX_OK);
    memset(first.memory, 0x11, 4096);
    assert_int_equal(vex_region_create(&second, name, 8192, 8192, &error), VEX_ERR_EXISTS);
    assert_non_null(strstr(error.message, name));
    assert_null(second.memory);
    assert_int_equal(stat_of(name).st_size, 4096);
    assert_true(is_filled(first.memory, 0x11, 4096));
    vex_region_close(&second);
    vex_region_close(&first);
}

static void sizes_that_no_system_has_are_refused_and_leave_no_name(void **state)
{
    (void)state;
    const uint64_t sizes[] = {UINT64_MAX, (uint64_t)1 << 63, INT64_MAX, UINT64_MAX - HUGE_PAGE};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        struct vex_region region;
        struct vex_error error;
        assert_int_not_equal(vex_region_create(&region, name, sizes[i], 0, &error), VEX_OK);
        assert_non_null(strstr(error.message, name));
        assert_null(region.memory);
        assert_false(exists(name));
    }
}

static void an_opened_region_shows_what_the_writer_stores(void **state)
{
    (void)state;
    struct vex_region writer;
    struct vex_region reader;
    struct vex_region second_writer;
    assert_int_equal(vex_region_create(&writer, name, 3 * MIB + 5, 3 * MIB + 5, NULL), VEX_OK);
    assert_int_equal(vex_region_open(&reader, name, false, NULL), VEX_OK);
    assert_int_equal(vex_region_open(&second_writer, name, true, NULL), VEX_OK);
    assert_int_equal(reader.bytes, writer.bytes);
    assert_int_equal((uintptr_t)reader.memory % HUGE_PAGE, 0);
    memset(writer.memory, 0x42, writer.bytes);
    assert_true(is_filled(reader.memory, 0x42, reader.bytes));
    memset(second_writer.memory, 0x24, 100);
    assert_true(is_filled(reader.memory, 0x24, 100));
    /* The name may go: mappings stay. */
    vex_region_unlink(name);
    assert_true(is_filled(reader.memory, 0x24, 100));
    vex_region_close(&second_writer);
    vex_region_close(&reader);
    vex_region_close(&writer);
}

static int store_through_a_reader(void *context)
{
    struct vex_region reader;
    (void)context;
    if (vex_region_open(&reader, name, false, NULL) != VEX_OK) {
        return 1;
    }
    *(volatile uint8_t *)reader.memory = 1;
    return 0;
}

static void a_reader_cannot_store(void **state)
{
    (void)state;
    struct vex_region writer;
    assert_int_equal(vex_region_create(&writer, name, 4096, 4096, NULL), VEX_OK);
    assert_int_equal(vex_child_run(store_through_a_reader, NULL), -SIGSEGV);
    assert_true(is_filled(writer.memory, 0, 4096));
    vex_region_close(&writer);
}

static void a_missing_region_is_not_found(void **state)
{
    (void)state;
    struct vex_region region;
    struct vex_error error;
    assert_int_equal(vex_region_open(&region, name, false, &error), VEX_ERR_NOT_FOUND);
    assert_non_null(strstr(error.message, name));
    assert_null(region.memory);
    vex_region_close(&region);
    vex_region_unlink(name);
}

static void an_empty_object_is_refused(void **state)
{
    (void)state;
    int fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0640);
    assert_true(fd >= 0);
    (void)close(fd);
    struct vex_region region;
    struct vex_error error;
    assert_int_equal(vex_region_open(&region, name, false, &error), VEX_ERR_CORRUPT);
    assert_non_null(strstr(error.message, name));
    assert_null(region.memory);
}

/* ---- giving back ----------------------------------------------------------------------------- */

static void punching_gives_the_memory_back_and_readers_read_zeros(void **state)
{
    (void)state;
    const uint64_t sizes[] = {VEX_PAGE_BYTES, 4 * MIB, 4 * MIB + VEX_PAGE_BYTES, 3 * MIB + 17};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        struct vex_region writer;
        struct vex_region reader;
        assert_int_equal(vex_region_create(&writer, name, sizes[i], sizes[i], NULL), VEX_OK);
        assert_int_equal(vex_region_open(&reader, name, false, NULL), VEX_OK);
        memset(writer.memory, 0x77, sizes[i]);
        assert_true(is_filled(reader.memory, 0x77, sizes[i]));
        assert_true(stat_of(name).st_blocks > 0);
        vex_region_punch(&writer);
        assert_int_equal(stat_of(name).st_blocks, 0);
        assert_int_equal(stat_of(name).st_size, sizes[i]);
        assert_true(is_filled(reader.memory, 0, sizes[i]));
        vex_region_close(&reader);
        vex_region_close(&writer);
        vex_region_unlink(name);
    }
}

static void closing_and_punching_what_is_not_mapped_is_fine(void **state)
{
    (void)state;
    struct vex_region region = {0};
    vex_region_punch(&region);
    vex_region_close(&region);
    vex_region_close(&region);
}

static void memory_is_allocated_where_it_is_asked_for(void **state)
{
    (void)state;
    struct vex_region region;
    assert_int_equal(vex_region_create(&region, name, 8 * MIB, MIB, NULL), VEX_OK);
    assert_int_equal(stat_of(name).st_blocks * 512, MIB);
    assert_int_equal(vex_region_allocate(&region, 4 * MIB, 64 * 1024, NULL), VEX_OK);
    assert_int_equal(stat_of(name).st_blocks * 512, MIB + 64 * 1024);
    /* Asking again is free, and keeps what is there. */
    memset(region.memory, 0x66, MIB);
    assert_int_equal(vex_region_allocate(&region, 0, MIB, NULL), VEX_OK);
    assert_true(is_filled(region.memory, 0x66, MIB));
    assert_int_equal(stat_of(name).st_blocks * 512, MIB + 64 * 1024);
    assert_int_equal(stat_of(name).st_size, 8 * MIB);
    vex_region_close(&region);
}

static void allocating_in_a_region_that_somebody_removed_is_an_error(void **state)
{
    (void)state;
    struct vex_region region;
    struct vex_error error;
    assert_int_equal(vex_region_create(&region, name, MIB, 0, NULL), VEX_OK);
    vex_region_unlink(name);
    assert_int_not_equal(vex_region_allocate(&region, 0, 4096, &error), VEX_OK);
    assert_non_null(strstr(error.message, name));
    vex_region_close(&region);
}

static void all_names_of_an_instance_are_removed_and_no_others(void **state)
{
    (void)state;
    char control_name[VEX_REGION_NAME_MAX];
    char other_name[VEX_REGION_NAME_MAX];
    vex_region_control_name(control_name, uuid);
    vex_region_control_name(other_name, other_uuid);
    struct vex_region region;
    for (uint64_t number = 1; number <= 20; number++) {
        char segment_name[VEX_REGION_NAME_MAX];
        vex_region_segment_name(segment_name, uuid, number * number * number);
        assert_int_equal(vex_region_create(&region, segment_name, 4096, 0, NULL), VEX_OK);
        vex_region_close(&region);
    }
    assert_int_equal(vex_region_create(&region, control_name, 4096, 0, NULL), VEX_OK);
    vex_region_close(&region);
    assert_int_equal(vex_region_create(&region, other_name, 4096, 0, NULL), VEX_OK);
    vex_region_close(&region);
    vex_region_unlink_all(uuid);
    assert_false(exists(control_name));
    DIR *directory = opendir("/dev/shm");
    assert_non_null(directory);
    struct dirent *item;
    while ((item = readdir(directory))) {
        assert_null(strstr(item->d_name, control_name + sizeof("/vexdb-") - 1));
    }
    (void)closedir(directory);
    assert_true(exists(other_name));
}

static void anonymous_pages_cannot_be_resized_by_either_side(void **state)
{
    (void)state;
    void *memory = NULL;
    int fd = vex_region_anonymous("test", VEX_PAGE_BYTES, &memory);
    assert_true(fd >= 0);
    memset(memory, 0x31, VEX_PAGE_BYTES);
    void *peer = mmap(NULL, VEX_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(peer, MAP_FAILED);
    assert_true(is_filled(peer, 0x31, VEX_PAGE_BYTES));
    assert_int_equal(ftruncate(fd, 0), -1);
    assert_int_equal(ftruncate(fd, 2 * VEX_PAGE_BYTES), -1);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
    (void)munmap(peer, VEX_PAGE_BYTES);
    (void)munmap(memory, VEX_PAGE_BYTES);
    (void)close(fd);
}

/* ---- no space -------------------------------------------------------------------------------- */

#define EXPECT(condition)                                                                          \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            printf("line %d: %s\n", __LINE__, #condition);                                         \
            return 1;                                                                              \
        }                                                                                          \
    } while (0)

static int run_out_of_memory(void *context)
{
    (void)context;
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("none", "/dev/shm", "tmpfs", 0, "size=256k") != 0) {
        printf("a tiny /dev/shm cannot be mounted here: %s\n", strerror(errno));
        return VEX_CHILD_SKIPPED;
    }
    struct vex_region region;
    struct vex_error error = {.status = VEX_OK};
    EXPECT(vex_region_create(&region, name, MIB, MIB, &error) == VEX_ERR_NO_SPACE);
    EXPECT(error.status == VEX_ERR_NO_SPACE && error.os_errno == ENOSPC);
    EXPECT(region.memory == NULL);
    EXPECT(!exists(name));
    /* Object, need, what there is, remedy. */
    EXPECT(strstr(error.message, name));
    EXPECT(strstr(error.message, "1048576"));
    EXPECT(strstr(error.message, "262144"));
    EXPECT(strstr(error.message, "remount"));

    EXPECT(vex_region_create(&region, name, MIB, 128 * 1024, &error) == VEX_OK);
    memset(region.memory, 0x5c, 128 * 1024);
    EXPECT(vex_region_allocate(&region, 128 * 1024, 512 * 1024, &error) == VEX_ERR_NO_SPACE);
    EXPECT(is_filled(region.memory, 0x5c, 128 * 1024));
    EXPECT(vex_region_allocate(&region, 128 * 1024, 64 * 1024, &error) == VEX_OK);
    memset((uint8_t *)region.memory + 128 * 1024, 0x5d, 64 * 1024);

    /* A region given back makes room for the next. */
    char second_name[VEX_REGION_NAME_MAX];
    vex_region_segment_name(second_name, uuid, 2);
    struct vex_region second;
    EXPECT(vex_region_create(&second, second_name, 192 * 1024, 192 * 1024, &error) ==
           VEX_ERR_NO_SPACE);
    vex_region_punch(&region);
    EXPECT(vex_region_create(&second, second_name, 192 * 1024, 192 * 1024, &error) == VEX_OK);
    vex_region_close(&second);
    vex_region_close(&region);
    return 0;
}

static void running_out_of_memory_is_an_error_and_leaves_nothing_behind(void **state)
{
    (void)state;
    int code = vex_child_run(run_out_of_memory, NULL);
    if (code == VEX_CHILD_SKIPPED) {
        skip();
    }
    assert_int_equal(code, 0);
}

#define CASE(test) cmocka_unit_test_teardown(test, remove_all)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(names_carry_the_uuid_and_the_number),
        CASE(the_key_is_the_directorys_as_much_as_the_instances),
        CASE(a_region_exists_from_its_creation_to_its_unlinking),
        CASE(a_new_region_is_zero_writable_and_aligned),
        CASE(the_mode_does_not_depend_on_the_umask),
        CASE(a_name_that_is_taken_is_refused_and_left_alone),
        CASE(sizes_that_no_system_has_are_refused_and_leave_no_name),
        CASE(an_opened_region_shows_what_the_writer_stores),
        CASE(a_reader_cannot_store),
        CASE(a_missing_region_is_not_found),
        CASE(an_empty_object_is_refused),
        CASE(punching_gives_the_memory_back_and_readers_read_zeros),
        CASE(closing_and_punching_what_is_not_mapped_is_fine),
        CASE(memory_is_allocated_where_it_is_asked_for),
        CASE(allocating_in_a_region_that_somebody_removed_is_an_error),
        CASE(all_names_of_an_instance_are_removed_and_no_others),
        CASE(anonymous_pages_cannot_be_resized_by_either_side),
        CASE(running_out_of_memory_is_an_error_and_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, make_uuids, remove_all);
}
