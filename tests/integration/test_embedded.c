/*
 * Private daemons: vex_open starts one, many openers end up with the same one, it ends itself, and
 * each way in which starting can fail has its status and a message.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/integration/check.h"

#define NOBODY 65534

static struct vex_open_options spawning(uint32_t idle_timeout_ms)
{
    struct vex_open_options options = VEX_OPEN_OPTIONS_INIT;
    options.idle_timeout_ms = idle_timeout_ms;
    return options;
}

static struct vex_stats stats_of(struct vex_db *db)
{
    struct vex_stats stats = {.size = sizeof(stats)};
    assert_ok(vex_get_stats(db, &stats, sink));
    return stats;
}

struct ending {
    pid_t pid;
};

/* Also true of what nobody has collected yet: it is the child of some other process. */
static bool has_ended(void *context)
{
    char path[64];
    char state = 0;
    (void)snprintf(path, sizeof(path), "/proc/%d/stat", ((struct ending *)context)->pid);
    FILE *file = fopen(path, "r");
    bool known = file && fscanf(file, "%*d (%*[^)]) %c", &state) == 1;
    if (file) {
        (void)fclose(file);
    }
    return !known || state == 'Z';
}

static void assert_ends(uint32_t pid, uint32_t timeout_ms)
{
    struct ending ending = {(pid_t)pid};
    assert_true(vex_fixture_eventually(has_ended, &ending, timeout_ms));
}

/* ---- starting and ending --------------------------------------------------------------------- */

static void open_starts_a_private_daemon_and_makes_the_directory(void **state)
{
    struct vex_fixture *fixture = *state;
    char deep[VEX_FIXTURE_PATH_MAX + 32];
    (void)snprintf(deep, sizeof(deep), "%s/not/there/yet", fixture->directory);
    struct vex_open_options options = spawning(0);
    struct vex_db *db = NULL;
    assert_ok(vex_open(deep, &options, &db, sink));
    struct vex_stats stats = stats_of(db);
    assert_true(stats.embedded);
    assert_int_equal(stats.clients, 1);
    assert_int_not_equal(stats.daemon_pid, getpid());
    assert_int_equal(kill((pid_t)stats.daemon_pid, 0), 0);
    struct vex_collection *collection = vex_fixture_collection(db, "points", 2, VEX_METRIC_L2);
    const float vector[2] = {1, 2};
    assert_ok(vex_upsert(collection, 1, vector, 2, NULL, 0, NULL, sink));
    /* It is no child of ours. */
    assert_int_equal(waitpid(-1, NULL, WNOHANG) <= 0, 1);
    struct stat info;
    assert_int_equal(stat(deep, &info), 0);
    assert_int_equal(info.st_mode & 07, 0); /* nothing for strangers */
    assert_ok(vex_shutdown(db, sink));
    assert_ends(stats.daemon_pid, 1000);
    /* The next write starts the next one. */
    assert_ok(vex_upsert(collection, 2, vector, 2, NULL, 0, NULL, sink));
    struct vex_stats again = stats_of(db);
    assert_int_not_equal(again.daemon_pid, stats.daemon_pid);
    assert_int_equal(again.live_rows, 2);
    assert_ok(vex_shutdown(db, sink));
    assert_ends(again.daemon_pid, 1000);
    vex_collection_close(collection);
    vex_close(db);
}

static void open_uses_a_daemon_that_is_there(void **state)
{
    struct vex_fixture *fixture = *state;
    vex_fixture_start(fixture, NULL);
    struct vex_open_options options = spawning(10);
    struct vex_db *db = NULL;
    assert_ok(vex_open(fixture->directory, &options, &db, sink));
    struct vex_stats stats = stats_of(db);
    assert_int_equal(stats.daemon_pid, fixture->daemon);
    assert_false(stats.embedded);
    vex_close(db);
    vex_fixture_pause_ms(100);
    assert_true(vex_fixture_is_running(fixture)); /* the idle time-out is for private ones */
}

static void a_private_daemon_ends_when_idle_and_not_before(void **state)
{
    struct vex_fixture *fixture = *state;
    struct vex_open_options options = spawning(150);
    struct vex_db *db = NULL;
    assert_ok(vex_open(fixture->directory, &options, &db, sink));
    struct vex_stats stats = stats_of(db);
    struct ending ending = {(pid_t)stats.daemon_pid};
    assert_false(vex_fixture_eventually(has_ended, &ending, 500)); /* we are connected */
    vex_close(db);
    uint64_t start_ms = vex_fixture_now_ms();
    assert_ends(stats.daemon_pid, 5000);
    uint64_t took_ms = vex_fixture_now_ms() - start_ms;
    assert_true(took_ms >= 100 && took_ms < 3000);
    struct vex_open_options quiet = vex_fixture_open_options();
    assert_refused(vex_open(fixture->directory, &quiet, &db, sink), VEX_ERR_UNAVAILABLE, "");
}

/* What the race of openers tells each other. */
struct race {
    pthread_barrier_t start;
    _Atomic uint32_t pids[16];
};

#define RACERS 16

static int open_in_a_race(const struct vex_fixture *fixture, struct race *race, unsigned number)
{
    (void)pthread_barrier_wait(&race->start);
    struct vex_open_options options = spawning(2000);
    struct vex_db *db = NULL;
    struct vex_error error = {0};
    if (vex_open(fixture->directory, &options, &db, &error) != VEX_OK) {
        fprintf(stderr, "racer %u: %s\n", number, error.message);
        return 2;
    }
    struct vex_stats stats = {.size = sizeof(stats)};
    if (vex_get_stats(db, &stats, &error) != VEX_OK) {
        fprintf(stderr, "racer %u: %s\n", number, error.message);
        return 3;
    }
    atomic_store(&race->pids[number], stats.daemon_pid);
    struct vex_collection *collection = vex_fixture_collection(db, "points", 1, VEX_METRIC_L2);
    const float vector[1] = {(float)number};
    if (vex_upsert(collection, number, vector, 1, NULL, 0, NULL, &error) != VEX_OK) {
        fprintf(stderr, "racer %u: %s\n", number, error.message);
        return 4;
    }
    vex_collection_close(collection);
    vex_close(db);
    return 0;
}

static void racing_openers_end_up_with_one_daemon(void **state)
{
    struct vex_fixture *fixture = *state;
    struct race *race =
        mmap(NULL, sizeof(*race), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(race, MAP_FAILED);
    pthread_barrierattr_t shared;
    assert_int_equal(pthread_barrierattr_init(&shared), 0);
    assert_int_equal(pthread_barrierattr_setpshared(&shared, PTHREAD_PROCESS_SHARED), 0);
    assert_int_equal(pthread_barrier_init(&race->start, &shared, RACERS), 0);
    for (int round = 0; round < 4; round++) {
        pid_t racers[RACERS];
        for (unsigned i = 0; i < RACERS; i++) {
            racers[i] = vex_fixture_fork();
            if (racers[i] == 0) {
                _exit(open_in_a_race(fixture, race, i));
            }
        }
        for (unsigned i = 0; i < RACERS; i++) {
            assert_int_equal(vex_fixture_await(racers[i], 60000), 0);
        }
        for (unsigned i = 1; i < RACERS; i++) {
            assert_int_equal(atomic_load(&race->pids[i]), atomic_load(&race->pids[0]));
        }
        struct vex_db *db = vex_fixture_open(fixture);
        struct vex_collection *collection = vex_fixture_collection(db, "points", 1, VEX_METRIC_L2);
        assert_int_equal(count_of(collection), RACERS);
        vex_collection_close(collection);
        assert_ok(vex_shutdown(db, sink));
        vex_close(db);
        assert_ends(atomic_load(&race->pids[0]), 5000);
    }
    (void)munmap(race, sizeof(*race));
}

/* The idle time-out is so short that openers meet daemons in every phase of their end. */
static void open_meets_daemons_that_are_ending(void **state)
{
    struct vex_fixture *fixture = *state;
    uint32_t last_pid = 0;
    unsigned daemons = 0;
    for (uint64_t round = 0; round < 50; round++) {
        struct vex_open_options options = spawning(1 + (uint32_t)round % 3);
        struct vex_db *db = NULL;
        assert_ok(vex_open(fixture->directory, &options, &db, sink));
        struct vex_collection *collection = vex_fixture_collection(db, "points", 1, VEX_METRIC_L2);
        const float vector[1] = {(float)round};
        assert_ok(vex_upsert(collection, round, vector, 1, NULL, 0, NULL, sink));
        assert_int_equal(count_of(collection), round + 1);
        struct vex_stats stats = stats_of(db);
        daemons += stats.daemon_pid != last_pid;
        last_pid = stats.daemon_pid;
        vex_collection_close(collection);
        vex_close(db);
        struct timespec pause = {0, (long)(round * 200000 % 9000000)};
        (void)nanosleep(&pause, NULL);
    }
    assert_true(daemons > 5);
    assert_ends(last_pid, 5000);
}

/* Two handles of one process write in turn while the daemon comes and goes: nothing is lost. */
static void writes_start_a_daemon_whenever_there_is_none(void **state)
{
    struct vex_fixture *fixture = *state;
    struct vex_open_options options = spawning(5000);
    struct vex_db *dbs[2] = {NULL, NULL};
    struct vex_collection *collections[2];
    const float vector[1] = {1};
    for (int i = 0; i < 2; i++) {
        assert_ok(vex_open(fixture->directory, &options, &dbs[i], sink));
        collections[i] = vex_fixture_collection(dbs[i], "points", 1, VEX_METRIC_L2);
    }
    uint64_t id = 0;
    for (int round = 0; round < 12; round++) {
        for (int i = 0; i < 4; i++, id++) {
            assert_ok(vex_insert(collections[id % 2], &id, vector, 1, NULL, 0, NULL, sink));
        }
        struct vex_stats stats = stats_of(dbs[round % 2]);
        assert_ok(vex_shutdown(dbs[round % 2], sink));
        assert_ends(stats.daemon_pid, 2000);
    }
    assert_ok(vex_insert(collections[0], &id, vector, 1, NULL, 0, NULL, sink));
    assert_int_equal(count_of(collections[0]), id + 1);
    assert_ok(vex_shutdown(dbs[0], sink));
    for (int i = 0; i < 2; i++) {
        vex_collection_close(collections[i]);
        vex_close(dbs[i]);
    }
}

static char *make_slow_vexd(const struct vex_fixture *fixture)
{
    static char script[VEX_FIXTURE_PATH_MAX];
    (void)snprintf(script, sizeof(script), "%s/slow", fixture->root.path);
    FILE *file = fopen(script, "w");
    assert_non_null(file);
    fprintf(file, "#!/bin/sh\nsleep 1\nexec '%s' \"$@\"\n", vex_fixture_vexd());
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(script, 0700), 0);
    return script;
}

static void *write_one(void *argument)
{
    struct vex_collection *collection = argument;
    const float vector[1] = {2};
    return vex_upsert(collection, 2, vector, 1, NULL, 0, NULL, NULL) == VEX_OK ? NULL : argument;
}

/* One thread's write starts a daemon, which takes a second; another thread reads all the while. */
static void reads_do_not_wait_for_a_daemon_that_starts(void **state)
{
    struct vex_fixture *fixture = *state;
    struct vex_open_options options = spawning(5000);
    options.vexd_path = make_slow_vexd(fixture);
    struct vex_db *db = NULL;
    assert_ok(vex_open(fixture->directory, &options, &db, sink));
    struct vex_collection *collection = vex_fixture_collection(db, "points", 1, VEX_METRIC_L2);
    const float vector[1] = {1};
    assert_ok(vex_upsert(collection, 1, vector, 1, NULL, 0, NULL, sink));
    assert_int_equal(count_of(collection), 1);
    assert_ok(vex_shutdown(db, sink));
    assert_int_equal(count_of(collection), 1);
    pthread_t writer;
    uint64_t start_ms = vex_fixture_now_ms();
    assert_int_equal(pthread_create(&writer, NULL, write_one, collection), 0);
    unsigned reads = 0;
    unsigned slow = 0; /* a few may meet a busy machine */
    while (vex_fixture_now_ms() - start_ms < 900) {
        uint64_t before_ms = vex_fixture_now_ms();
        assert_true(exists_in(collection, 1));
        slow += vex_fixture_now_ms() - before_ms >= 40;
        reads++;
    }
    void *failed = NULL;
    assert_int_equal(pthread_join(writer, &failed), 0);
    assert_null(failed);
    assert_int_equal(count_of(collection), 2);
    assert_ok(vex_shutdown(db, sink));
    vex_collection_close(collection);
    vex_close(db);
    if (slow > 6) {
        fail_msg("%u of %u reads in 0.9 s took 40 ms or more", slow, reads);
    }
}

#define CHAOS_PROCESSES 4
#define CHAOS_MS 3000
#define CHAOS_IDS 100000

/* Opens, writes a little and closes, over and over; notes what was acknowledged. */
static int write_in_chaos(const struct vex_fixture *fixture, unsigned number,
                          _Atomic uint8_t *acknowledged, uint64_t end_ms)
{
    uint64_t id = (uint64_t)number * CHAOS_IDS;
    struct vex_error error = {0};
    while (vex_fixture_now_ms() < end_ms) {
        struct vex_open_options options = spawning(20);
        struct vex_db *db = NULL;
        enum vex_status status = vex_open(fixture->directory, &options, &db, &error);
        struct vex_collection *collection = NULL;
        if (status == VEX_OK) {
            struct vex_collection_options shape = VEX_COLLECTION_OPTIONS_INIT;
            shape.dim = 1;
            status = vex_collection_create(db, "points", &shape, &error);
            status = status == VEX_OK || status == VEX_ERR_EXISTS
                         ? vex_collection_open(db, "points", &collection, &error)
                         : status;
        }
        for (int i = 0; i < 5 && status == VEX_OK; i++, id++) {
            const float vector[1] = {(float)id};
            status = vex_insert(collection, &id, vector, 1, NULL, 0, NULL, &error);
            atomic_store(&acknowledged[id], status == VEX_OK);
        }
        /* A daemon that is killed while it starts, answers or writes. */
        if (status != VEX_OK && status != VEX_ERR_UNAVAILABLE &&
            status != VEX_ERR_UNKNOWN_OUTCOME) {
            fprintf(stderr, "process %u: %s: %s\n", number, vex_status_name(status), error.message);
            return 1;
        }
        vex_collection_close(collection);
        vex_close(db);
    }
    return 0;
}

static void kill_whoever_serves(const struct vex_fixture *fixture)
{
    char path[VEX_FIXTURE_PATH_MAX + 8];
    (void)snprintf(path, sizeof(path), "%s/LOCK", fixture->directory);
    FILE *file = fopen(path, "r");
    long pid = 0;
    if (file && fscanf(file, "%ld", &pid) == 1 && pid > 1) {
        char link[64];
        char here[VEX_FIXTURE_PATH_MAX] = {0};
        (void)snprintf(link, sizeof(link), "/proc/%ld/cwd", pid);
        if (readlink(link, here, sizeof(here) - 1) > 0 && strcmp(here, fixture->directory) == 0) {
            (void)kill((pid_t)pid, SIGKILL);
        }
    }
    if (file) {
        (void)fclose(file);
    }
}

static void nothing_is_lost_when_daemons_are_killed_and_started_by_many(void **state)
{
    struct vex_fixture *fixture = *state;
    size_t bytes = (size_t)CHAOS_PROCESSES * CHAOS_IDS;
    _Atomic uint8_t *acknowledged =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(acknowledged, MAP_FAILED);
    uint64_t end_ms = vex_fixture_now_ms() + CHAOS_MS;
    pid_t children[CHAOS_PROCESSES];
    for (unsigned i = 0; i < CHAOS_PROCESSES; i++) {
        children[i] = vex_fixture_fork();
        if (children[i] == 0) {
            _exit(write_in_chaos(fixture, i, acknowledged, end_ms));
        }
    }
    unsigned kills = 0;
    for (; vex_fixture_now_ms() < end_ms; kills++) {
        vex_fixture_pause_ms(30 + kills * 37 % 190);
        kill_whoever_serves(fixture);
    }
    for (unsigned i = 0; i < CHAOS_PROCESSES; i++) {
        assert_int_equal(vex_fixture_await(children[i], 60000), 0);
    }
    struct vex_open_options options = spawning(1000);
    struct vex_db *db = NULL;
    assert_ok(vex_open(fixture->directory, &options, &db, sink));
    struct vex_collection *collection = vex_fixture_collection(db, "points", 1, VEX_METRIC_L2);
    unsigned checked = 0;
    for (uint64_t id = 0; id < bytes; id++) {
        if (atomic_load(&acknowledged[id])) {
            const float vector[1] = {(float)id};
            assert_holds(collection, id, vector, 1, NULL, 0);
            checked++;
        }
    }
    assert_true(checked > 10 && kills > 5);
    vex_collection_close(collection);
    assert_ok(vex_shutdown(db, sink));
    vex_close(db);
    (void)munmap((void *)(uintptr_t)acknowledged, bytes);
}

/* A server program has closed its standard streams; the pipe to the new daemon gets their numbers. */
static void a_program_without_standard_streams_can_open(void **state)
{
    struct vex_fixture *fixture = *state;
    static const int closed[][3] = {{1, 0, 0}, {0, 1, 0}, {1, 1, 0}, {1, 1, 1}};
    for (size_t i = 0; i < sizeof(closed) / sizeof(closed[0]); i++) {
        pid_t child = vex_fixture_fork();
        if (child == 0) {
            for (int fd = 0; fd < 3; fd++) {
                if (closed[i][fd]) {
                    (void)close(fd);
                }
            }
            struct vex_open_options options = spawning(0);
            struct vex_db *db = NULL;
            struct vex_error error = {0};
            enum vex_status status = vex_open(fixture->directory, &options, &db, &error);
            if (status == VEX_OK) {
                status = vex_shutdown(db, &error);
            }
            vex_close(db);
            _exit((int)status);
        }
        int code = vex_fixture_await(child, 40000);
        if (code != 0) {
            fail_msg("with standard streams %d%d%d closed: %s", closed[i][0], closed[i][1],
                     closed[i][2], code > 0 ? vex_status_name((enum vex_status)code) : "killed");
        }
    }
}

/* ---- failures -------------------------------------------------------------------------------- */

static void no_spawn_starts_nothing(void **state)
{
    struct vex_fixture *fixture = *state;
    struct vex_open_options options = spawning(0);
    options.no_spawn = true;
    struct vex_db *db = NULL;
    assert_refused(vex_open(fixture->directory, &options, &db, sink), VEX_ERR_UNAVAILABLE,
                   fixture->directory);
    assert_null(db);
    assert_int_not_equal(access(fixture->directory, F_OK), 0);
}

static void a_second_daemon_is_refused(void **state)
{
    struct vex_fixture *fixture = *state;
    vex_fixture_start(fixture, NULL);
    pid_t first = fixture->daemon;
    fixture->daemon = 0;
    int code = 0;
    struct vex_error error = {0};
    enum vex_status status = vex_fixture_try_start(fixture, NULL, &code, &error);
    fixture->daemon = first;
    assert_int_equal(status, VEX_ERR_BUSY);
    assert_int_equal(code, 3);
    char pid[32];
    (void)snprintf(pid, sizeof(pid), "%d", first);
    assert_non_null(strstr(error.message, pid));
    assert_non_null(strstr(error.message, "serves this directory"));
    /* The first one did not notice. */
    struct vex_db *db = vex_fixture_open(fixture);
    assert_int_equal(stats_of(db).daemon_pid, first);
    vex_close(db);
}

/* Somebody else's daemon has the directory and reads a long log: there is nobody to connect to yet. */
static void open_beside_a_daemon_that_starts_says_so(void **state)
{
    struct vex_fixture *fixture = *state;
    char lock[VEX_FIXTURE_PATH_MAX + 8];
    assert_int_equal(mkdir(fixture->directory, 0750), 0);
    (void)snprintf(lock, sizeof(lock), "%s/LOCK", fixture->directory);
    int fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    assert_true(fd >= 0);
    assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
    struct vex_open_options options = spawning(100);
    options.timeout_ms = 600;
    struct vex_db *db = NULL;
    uint64_t start_ms = vex_fixture_now_ms();
    assert_refused(vex_open(fixture->directory, &options, &db, sink), VEX_ERR_TIMEOUT, "vexd");
    uint64_t took_ms = vex_fixture_now_ms() - start_ms;
    assert_true(took_ms >= 2 * 500 && took_ms < 10000);
    assert_int_equal(close(fd), 0);
    assert_ok(vex_open(fixture->directory, &options, &db, sink));
    assert_ok(vex_shutdown(db, sink));
    vex_close(db);
}

static void a_missing_program_is_named(void **state)
{
    struct vex_fixture *fixture = *state;
    struct vex_open_options options = spawning(0);
    struct vex_db *db = NULL;
    options.vexd_path = "/nowhere/vexd";
    assert_refused(vex_open(fixture->directory, &options, &db, sink), VEX_ERR_UNAVAILABLE,
                   "/nowhere/vexd");
    options.vexd_path = fixture->root.path; /* a directory */
    assert_refused(vex_open(fixture->directory, &options, &db, sink), VEX_ERR_UNAVAILABLE,
                   fixture->root.path);
    options.vexd_path = NULL;
    char *vexd = strdup(vex_fixture_vexd());
    assert_int_equal(setenv("VEXD_PATH", "/nowhere/else/vexd", 1), 0);
    assert_refused(vex_open(fixture->directory, &options, &db, sink), VEX_ERR_UNAVAILABLE,
                   "/nowhere/else/vexd");
    /* The option goes before the environment. */
    options.vexd_path = vexd;
    assert_ok(vex_open(fixture->directory, &options, &db, sink));
    assert_ok(vex_shutdown(db, sink));
    vex_close(db);
    assert_int_equal(setenv("VEXD_PATH", vexd, 1), 0);
    free(vexd);
}

/* A program that is no vexd: it says nothing and ends, or says something strange. */
static void a_program_that_is_no_vexd_is_unavailable(void **state)
{
    struct vex_fixture *fixture = *state;
    struct vex_open_options options = spawning(0);
    struct vex_db *db = NULL;
    options.vexd_path = "/bin/true";
    assert_refused(vex_open(fixture->directory, &options, &db, sink), VEX_ERR_UNAVAILABLE, "vexd");
    char script[VEX_FIXTURE_PATH_MAX];
    (void)snprintf(script, sizeof(script), "%s/liar", fixture->root.path);
    FILE *file = fopen(script, "w");
    assert_non_null(file);
    fprintf(file, "#!/bin/sh\necho nonsense >&3\n");
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(script, 0700), 0);
    options.vexd_path = script;
    assert_refused(vex_open(fixture->directory, &options, &db, sink), VEX_ERR_UNAVAILABLE,
                   "nonsense");
    assert_null(db);
}

static void a_path_that_is_no_directory_is_refused(void **state)
{
    struct vex_fixture *fixture = *state;
    struct vex_open_options options = spawning(0);
    struct vex_db *db = NULL;
    FILE *file = fopen(fixture->directory, "w");
    assert_non_null(file);
    assert_int_equal(fclose(file), 0);
    uint64_t start_ms = vex_fixture_now_ms();
    assert_refused(vex_open(fixture->directory, &options, &db, sink), VEX_ERR_IO, "ot a directory");
    char below[VEX_FIXTURE_PATH_MAX + 8];
    (void)snprintf(below, sizeof(below), "%s/db", fixture->directory);
    assert_refused(vex_open(below, &options, &db, sink), VEX_ERR_IO, "ot a directory");
    assert_true(vex_fixture_now_ms() - start_ms < 10000);
}

#define OUT_OF_REACH 102

/* In a child, because permissions do not bind the superuser. 0, or the status that was not right. */
static int open_as_nobody(const char *directory)
{
    if (geteuid() == 0 &&
        (setresgid(NOBODY, NOBODY, NOBODY) != 0 || setresuid(NOBODY, NOBODY, NOBODY) != 0)) {
        return 100;
    }
    /* A tree below a private home: this user cannot even start the daemon. */
    const char *program = getenv("VEXD_PATH");
    if (program && access(program, X_OK) != 0) {
        return OUT_OF_REACH;
    }
    struct vex_open_options options = spawning(100);
    struct vex_db *db = NULL;
    struct vex_error error = {0};
    enum vex_status status = vex_open(directory, &options, &db, &error);
    vex_close(db);
    if (status != VEX_ERR_PERMISSION || !strstr(error.message, "ermission denied")) {
        fprintf(stderr, "%s: %s: '%s'\n", directory, vex_status_name(status), error.message);
        return 101;
    }
    return 0;
}

static void a_directory_that_may_not_be_written_is_refused(void **state)
{
    struct vex_fixture *fixture = *state;
    if (geteuid() == 0 && access("/proc/self/exe", X_OK) != 0) {
        skip();
    }
    assert_int_equal(chmod(fixture->root.path, 0755), 0);
    assert_int_equal(mkdir(fixture->directory, 0555), 0);
    char below[VEX_FIXTURE_PATH_MAX + 8];
    (void)snprintf(below, sizeof(below), "%s/db", fixture->directory);
    const char *const paths[2] = {fixture->directory, below};
    for (int i = 0; i < 2; i++) {
        pid_t child = vex_fixture_fork();
        if (child == 0) {
            _exit(open_as_nobody(paths[i]));
        }
        int outcome = vex_fixture_await(child, 40000);
        if (outcome == OUT_OF_REACH) {
            (void)chmod(fixture->directory, 0755);
            skip();
        }
        assert_int_equal(outcome, 0);
    }
    assert_int_equal(chmod(fixture->directory, 0755), 0);
}

/* A socket that this user may not connect to is no daemon to replace. */
static void a_daemon_of_somebody_else_is_refused(void **state)
{
    struct vex_fixture *fixture = *state;
    if (geteuid() != 0) {
        skip();
    }
    assert_int_equal(chmod(fixture->root.path, 0755), 0);
    assert_int_equal(mkdir(fixture->directory, 0755), 0);
    vex_fixture_start(fixture, NULL);
    pid_t child = vex_fixture_fork();
    if (child == 0) {
        _exit(open_as_nobody(fixture->directory));
    }
    assert_int_equal(vex_fixture_await(child, 40000), 0);
    assert_true(vex_fixture_is_running(fixture));
}

static void write_garbage(const char *directory, const char *name, off_t at, size_t bytes)
{
    char path[VEX_FIXTURE_PATH_MAX + 32];
    (void)snprintf(path, sizeof(path), "%s/%s", directory, name);
    int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    char *garbage = test_malloc(bytes);
    memset(garbage, 0xa5, bytes);
    assert_int_equal(pwrite(fd, garbage, bytes, at), bytes);
    test_free(garbage);
    assert_int_equal(close(fd), 0);
}

/* vex_open hands on what the daemon says about a directory that it refuses. */
static void damage_is_reported_and_not_repaired(void **state)
{
    struct vex_fixture *fixture = *state;
    struct vex_open_options options = spawning(0);
    struct vex_db *db = NULL;
    assert_ok(vex_open(fixture->directory, &options, &db, sink));
    struct vex_collection *collection = vex_fixture_collection(db, "points", 2, VEX_METRIC_L2);
    const float vector[2] = {1, 2};
    for (uint64_t id = 0; id < 20; id++) {
        assert_ok(vex_insert(collection, &id, vector, 2, NULL, 0, NULL, sink));
    }
    vex_collection_close(collection);
    assert_ok(vex_shutdown(db, sink));
    vex_close(db);
    struct vex_fixture copy;
    vex_fixture_init(&copy);
    char command[2 * VEX_FIXTURE_PATH_MAX + 32];
    (void)snprintf(command, sizeof(command), "cp -a '%s' '%s'", fixture->directory, copy.directory);
    assert_int_equal(system(command), 0);

    write_garbage(fixture->directory, "log/00000001.log", 3 * 4096 + 100, 64);
    for (int i = 0; i < 2; i++) {
        assert_refused(vex_open(fixture->directory, &options, &db, sink), VEX_ERR_CORRUPT,
                       "log/00000001.log");
        assert_non_null(strstr(check_error.message, "LSN"));
    }
    write_garbage(copy.directory, "MANIFEST", 0, 8192);
    assert_refused(vex_open(copy.directory, &options, &db, sink), VEX_ERR_CORRUPT, "MANIFEST");
    (void)snprintf(command, sizeof(command), "%s/MANIFEST", copy.directory);
    assert_int_equal(unlink(command), 0);
    assert_refused(vex_open(copy.directory, &options, &db, sink), VEX_ERR_CORRUPT, "MANIFEST");
    assert_int_equal(vex_fixture_deinit(&copy), 0);
}

/* Whoever waited for a slow start may have given up; the daemon serves all the same. */
static void a_daemon_whose_starter_has_gone_serves(void **state)
{
    struct vex_fixture *fixture = *state;
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    (void)close(fds[0]); /* nobody reads "ready" */
    pid_t child = vex_fixture_fork();
    if (child == 0) {
        char directory[VEX_FIXTURE_PATH_MAX + 16];
        char ready[32];
        (void)snprintf(directory, sizeof(directory), "--dir=%s", fixture->directory);
        (void)snprintf(ready, sizeof(ready), "--ready-fd=%d", fds[1]);
        int null = open("/dev/null", O_WRONLY);
        (void)dup2(null, STDERR_FILENO);
        (void)execl(vex_fixture_vexd(), "vexd", directory, ready, (char *)NULL);
        _exit(127);
    }
    (void)close(fds[1]);
    fixture->daemon = child;
    struct vex_open_options options = vex_fixture_open_options();
    struct vex_db *db = NULL;
    enum vex_status status = VEX_ERR_UNAVAILABLE;
    for (int i = 0; i < 2000 && status != VEX_OK && vex_fixture_is_running(fixture); i++) {
        status = vex_open(fixture->directory, &options, &db, &check_error);
        vex_fixture_pause_ms(2);
    }
    if (!vex_fixture_is_running(fixture)) {
        int code = vex_fixture_await(fixture->daemon, 1000);
        fixture->daemon = 0;
        fail_msg("vexd ended with %d", code);
    }
    assert_int_equal(status, VEX_OK);
    vex_close(db);
}

/* ---- the program ----------------------------------------------------------------------------- */

/* Exit code of vexd with these words; its output goes to `out`. */
static int run_vexd(const char *const *words, char *out, size_t bytes)
{
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    pid_t child = vex_fixture_fork();
    if (child == 0) {
        char *all[8] = {strdup("vexd")};
        for (size_t i = 0; i < 6 && words[i]; i++) {
            all[i + 1] = strdup(words[i]);
        }
        (void)dup2(fds[1], STDOUT_FILENO);
        (void)dup2(fds[1], STDERR_FILENO);
        (void)execv(vex_fixture_vexd(), all);
        _exit(127);
    }
    (void)close(fds[1]);
    size_t used = 0;
    ssize_t got;
    while (used < bytes - 1 && (got = read(fds[0], out + used, bytes - 1 - used)) > 0) {
        used += (size_t)got;
    }
    out[used] = 0;
    (void)close(fds[0]);
    return vex_fixture_await(child, 20000);
}

static void wrong_usage_is_explained(void **state)
{
    struct vex_fixture *fixture = *state;
    char directory[VEX_FIXTURE_PATH_MAX + 16];
    (void)snprintf(directory, sizeof(directory), "--dir=%s", fixture->directory);
    static const char *const bad[][2] = {
        {"--idle-timeout-ms=0", "--idle-timeout-ms"},
        {"--idle-timeout-ms=x", "--idle-timeout-ms"},
        {"--idle-timeout-ms=-5", "--idle-timeout-ms"},
        {"--idle-timeout-ms=99999999999", "--idle-timeout-ms"},
        {"--log-file-mib=0", "--log-file-mib"},
        {"--log-file-mib=4097", "--log-file-mib"},
        {"--log-file-mib=", "--log-file-mib"},
        {"--ready-fd=-1", "--ready-fd"},
        {"--frobnicate", "--help"},
        {"word", "--dir"},
    };
    char out[4096];
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const char *const words[] = {directory, bad[i][0], NULL};
        int code = run_vexd(words, out, sizeof(out));
        if (code != 2 || !strstr(out, bad[i][1])) {
            fail_msg("vexd %s: %d: %s", bad[i][0], code, out);
        }
    }
    assert_int_equal(run_vexd((const char *const[]){NULL}, out, sizeof(out)), 2);
    assert_non_null(strstr(out, "--dir"));
    assert_int_equal(run_vexd((const char *const[]){"--version", NULL}, out, sizeof(out)), 0);
    assert_non_null(strstr(out, vex_version()));
    assert_int_equal(run_vexd((const char *const[]){"--help", NULL}, out, sizeof(out)), 0);
    assert_non_null(strstr(out, "exit codes"));
    const char *const strange[] = {directory, "--io=carrier-pigeon", NULL};
    assert_int_equal(run_vexd(strange, out, sizeof(out)), 1);
    assert_non_null(strstr(out, "carrier-pigeon"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_directory(open_starts_a_private_daemon_and_makes_the_directory),
        with_directory(open_uses_a_daemon_that_is_there),
        with_directory(a_private_daemon_ends_when_idle_and_not_before),
        with_directory(racing_openers_end_up_with_one_daemon),
        with_directory(open_meets_daemons_that_are_ending),
        with_directory(writes_start_a_daemon_whenever_there_is_none),
        with_directory(reads_do_not_wait_for_a_daemon_that_starts),
        with_directory(nothing_is_lost_when_daemons_are_killed_and_started_by_many),
        with_directory(a_program_without_standard_streams_can_open),
        with_directory(no_spawn_starts_nothing),
        with_directory(a_second_daemon_is_refused),
        with_directory(open_beside_a_daemon_that_starts_says_so),
        with_directory(a_missing_program_is_named),
        with_directory(a_program_that_is_no_vexd_is_unavailable),
        with_directory(a_path_that_is_no_directory_is_refused),
        with_directory(a_directory_that_may_not_be_written_is_refused),
        with_directory(a_daemon_of_somebody_else_is_refused),
        with_directory(damage_is_reported_and_not_repaired),
        with_directory(a_daemon_whose_starter_has_gone_serves),
        with_directory(wrong_usage_is_explained),
    };
    return run_cases("embedded", tests);
}
