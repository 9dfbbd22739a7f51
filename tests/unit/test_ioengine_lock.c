/*
 * The ring keeps the instance's lock: a process that was killed is not gone before its last write is.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

#include <cmocka.h>

#include "ioengine/io.h"

static void the_ring_holds_the_lock_beyond_its_descriptor(void **state)
{
    (void)state;
    struct vex_io *io = NULL;
    int result = vex_io_uring_open(AT_FDCWD, NULL, 0, &io);
    if (result < 0) {
        print_message("no io_uring here: errno %d\n", -result);
        skip();
    }
    FILE *file = tmpfile();
    assert_non_null(file);
    char path[64];
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fileno(file));
    int lock = open(path, O_RDWR | O_CLOEXEC);
    int other = open(path, O_RDWR | O_CLOEXEC);
    assert_true(lock >= 0 && other >= 0);
    assert_int_equal(flock(lock, LOCK_EX | LOCK_NB), 0);
    assert_int_equal(io->ops->hold_lock(io, lock), 0);
    (void)close(lock);
    assert_int_equal(flock(other, LOCK_EX | LOCK_NB), -1);
    assert_int_equal(errno, EWOULDBLOCK);
    vex_io_close(io);
    int taken = flock(other, LOCK_EX | LOCK_NB);
    for (int attempt = 0; taken != 0 && attempt < 1000; attempt++) {
        (void)usleep(1000);
        taken = flock(other, LOCK_EX | LOCK_NB);
    }
    assert_int_equal(taken, 0);
    (void)close(other);
    (void)fclose(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_ring_holds_the_lock_beyond_its_descriptor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
