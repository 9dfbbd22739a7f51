/*
 * Handles under the conditions that vex.h promises to bear: many threads, several handles, fork, a
 * collection dropped under its readers, signals, a daemon that stops, is killed and comes back, and
 * directories with unusual names.
 */
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/integration/check.h"
#include "tests/lib/random.h"

#define DIM 8

/* All elements the same: a row that is torn or mixed up shows. */
static void fill(float *vector, float value)
{
    for (size_t i = 0; i < DIM; i++) {
        vector[i] = value;
    }
}

static enum vex_status put(struct vex_collection *collection, uint64_t id, float value,
                           struct vex_ack *ack, struct vex_error *error)
{
    float vector[DIM];
    fill(vector, value);
    return vex_upsert(collection, id, vector, DIM, NULL, 0, ack, error);
}

static enum vex_status look(struct vex_collection *collection, uint64_t id, float *out_value,
                            struct vex_error *error)
{
    float vector[DIM] = {0};
    enum vex_status status = vex_get(collection, id, NULL, vector, DIM, NULL, 0, NULL, error);
    for (size_t i = 1; i < DIM && status == VEX_OK; i++) {
        if (vector[i] != vector[0]) {
            return VEX_ERR_CORRUPT;
        }
    }
    *out_value = vector[0];
    return status;
}

static float value_of(struct vex_collection *collection, uint64_t id)
{
    float value = -1;
    assert_ok(look(collection, id, &value, sink));
    return value;
}

/* One nearest neighbour of a row that is all zeros. */
static enum vex_status search_one(struct vex_collection *collection, struct vex_search_info *info,
                                  struct vex_error *error)
{
    const float query[DIM] = {0};
    uint64_t id = 0;
    float distance = 0;
    uint32_t found = 0;
    struct vex_results results = {sizeof(results), &id, &distance, &found, NULL, NULL, NULL, 0};
    struct vex_search_options options = VEX_SEARCH_OPTIONS_INIT;
    options.k = 1;
    return vex_search(collection, query, 1, DIM, &options, &results, info, error);
}

/* ---- threads --------------------------------------------------------------------------------- */

#define THREADS_MAX 256

struct crew;

struct hand {
    struct crew *crew;
    unsigned number;
    pthread_t thread;
    enum vex_status status; /* the first failure */
    struct vex_error error;
    uint64_t done;
};

struct crew {
    struct vex_db *db;
    struct vex_collection *collection;
    pthread_barrier_t start;
    _Atomic bool stop;
    unsigned count;
    struct hand hands[THREADS_MAX];
};

static void crew_start(struct crew *crew, unsigned count, void *(*work)(void *hand))
{
    crew->count = count;
    atomic_store(&crew->stop, false);
    assert_int_equal(pthread_barrier_init(&crew->start, NULL, count), 0);
    for (unsigned i = 0; i < count; i++) {
        crew->hands[i] = (struct hand){.crew = crew, .number = i};
        assert_int_equal(pthread_create(&crew->hands[i].thread, NULL, work, &crew->hands[i]), 0);
    }
}

static void crew_join(struct crew *crew)
{
    for (unsigned i = 0; i < crew->count; i++) {
        assert_int_equal(pthread_join(crew->hands[i].thread, NULL), 0);
    }
    (void)pthread_barrier_destroy(&crew->start);
    for (unsigned i = 0; i < crew->count; i++) {
        if (crew->hands[i].status != VEX_OK) {
            fail_msg("thread %u: %s: %s", i, vex_status_name(crew->hands[i].status),
                     crew->hands[i].error.message);
        }
    }
}

#define WRITES_EACH 120

/* Even ones write and read back; odd ones read what the others write. */
static void *write_or_read(void *argument)
{
    struct hand *hand = argument;
    struct vex_collection *collection = hand->crew->collection;
    (void)pthread_barrier_wait(&hand->crew->start);
    for (unsigned i = 0; i < WRITES_EACH && hand->status == VEX_OK; i++) {
        uint64_t id = hand->number * 1000 + i % 40;
        float value = 0;
        if (hand->number % 2 == 0) {
            hand->status = put(collection, id, (float)i + 1, NULL, &hand->error);
            if (hand->status == VEX_OK) {
                hand->status = look(collection, id, &value, &hand->error);
            }
            if (hand->status == VEX_OK && value != (float)i + 1) {
                hand->status = VEX_ERR_CORRUPT; /* acknowledged, yet not seen */
            }
        } else {
            enum vex_status status = look(collection, id - 1000, &value, &hand->error);
            hand->status = status == VEX_ERR_NOT_FOUND ? VEX_OK : status;
            if (hand->status == VEX_OK) {
                hand->status = search_one(collection, NULL, &hand->error);
            }
        }
    }
    return NULL;
}

static void threads_share_one_handle(void **state)
{
    struct crew *crew = test_calloc(1, sizeof(*crew));
    crew->db = vex_fixture_open(*state);
    crew->collection = vex_fixture_collection(crew->db, "points", DIM, VEX_METRIC_L2);
    crew_start(crew, 16, write_or_read);
    crew_join(crew);
    assert_int_equal(count_of(crew->collection), 8 * 40);
    struct totals totals = totals_of(crew->db);
    assert_int_equal(totals.lsn, 1 + 8 * WRITES_EACH);
    vex_collection_close(crew->collection);
    vex_close(crew->db);
    test_free(crew);
}

/* The first read of each thread takes a slot; all have theirs at the same time. */
static void *read_together(void *argument)
{
    struct hand *hand = argument;
    (void)pthread_barrier_wait(&hand->crew->start);
    hand->status = search_one(hand->crew->collection, NULL, &hand->error);
    (void)pthread_barrier_wait(&hand->crew->start);
    float value = 0;
    if (hand->status == VEX_OK) {
        hand->status = look(hand->crew->collection, 1, &value, &hand->error);
    }
    return NULL;
}

static void more_threads_read_than_a_page_has_slots(void **state)
{
    struct crew *crew = test_calloc(1, sizeof(*crew));
    crew->db = vex_fixture_open(*state);
    crew->collection = vex_fixture_collection(crew->db, "points", DIM, VEX_METRIC_L2);
    assert_ok(put(crew->collection, 1, 1, NULL, sink));
    static const unsigned counts[] = {63, 64, 65, 250, 250};
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        crew_start(crew, counts[i], read_together);
        crew_join(crew);
    }
    vex_collection_close(crew->collection);
    vex_close(crew->db);
    test_free(crew);
}

/* Threads that need a new page of slots while others have replies under way on the same socket. */
static void *ask_and_read(void *argument)
{
    struct hand *hand = argument;
    struct vex_stats stats = {.size = sizeof(stats)};
    (void)pthread_barrier_wait(&hand->crew->start);
    for (unsigned i = 0; i < 20 && hand->status == VEX_OK; i++) {
        hand->status = hand->number % 2 ? search_one(hand->crew->collection, NULL, &hand->error)
                                        : vex_get_stats(hand->crew->db, &stats, &hand->error);
    }
    (void)pthread_barrier_wait(&hand->crew->start); /* nobody ends before all have a slot */
    return NULL;
}

static void new_readers_and_other_calls_do_not_disturb_each_other(void **state)
{
    struct crew *crew = test_calloc(1, sizeof(*crew));
    for (int round = 0; round < 5; round++) {
        crew->db = vex_fixture_open(*state);
        crew->collection = vex_fixture_collection(crew->db, "points", DIM, VEX_METRIC_L2);
        crew_start(crew, 250, ask_and_read);
        crew_join(crew);
        vex_collection_close(crew->collection);
        vex_close(crew->db);
    }
    test_free(crew);
}

/* A snapshot takes a slot, too; that is the cheap way to the limit. */
static void the_limit_of_slots_is_refused_by_name(void **state)
{
    enum { MOST = 64 * 63 };
    struct vex_db *db = vex_fixture_open(*state);
    struct vex_collection *collection = vex_fixture_collection(db, "points", DIM, VEX_METRIC_L2);
    assert_ok(put(collection, 1, 1, NULL, sink)); /* and this thread's own slot */
    assert_true(value_of(collection, 1) == 1);
    struct vex_snapshot **snapshots = test_calloc(MOST, sizeof(struct vex_snapshot *));
    for (size_t i = 0; i < MOST - 1; i++) {
        assert_ok(vex_snapshot_open(collection, NULL, &snapshots[i], sink));
    }
    assert_refused(vex_snapshot_open(collection, NULL, &snapshots[MOST - 1], sink), VEX_ERR_LIMIT,
                   "4032");
    assert_null(snapshots[MOST - 1]);
    assert_true(value_of(collection, 1) == 1);
    assert_ok(put(collection, 1, 2, NULL, sink));
    vex_snapshot_close(snapshots[17]);
    assert_ok(vex_snapshot_open(collection, NULL, &snapshots[17], sink));
    for (size_t i = 0; i < MOST - 1; i++) {
        vex_snapshot_close(snapshots[i]);
    }
    test_free(snapshots);
    vex_collection_close(collection);
    vex_close(db);
}

static void handles_of_one_thread_do_not_mix(void **state)
{
    enum { HANDLES = 9, INSTANCES = 3 }; /* more than a thread keeps at hand */
    struct vex_fixture others[INSTANCES];
    const struct vex_fixture *fixtures[INSTANCES] = {*state, &others[1], &others[2]};
    for (int i = 1; i < INSTANCES; i++) {
        vex_fixture_init(&others[i]);
        vex_fixture_start(&others[i], NULL);
    }
    struct vex_db *dbs[HANDLES];
    struct vex_collection *collections[HANDLES];
    for (int i = 0; i < HANDLES; i++) {
        dbs[i] = vex_fixture_open(fixtures[i % INSTANCES]);
        collections[i] = vex_fixture_collection(dbs[i], "points", DIM, VEX_METRIC_L2);
    }
    for (int round = 0; round < 200; round++) {
        int writer = round * 5 % HANDLES;
        float value = (float)(round * INSTANCES + writer % INSTANCES);
        assert_ok(put(collections[writer], 1, value, NULL, sink));
        for (int i = writer % INSTANCES; i < HANDLES; i += INSTANCES) {
            assert_true(value_of(collections[i], 1) == value);
        }
        for (int i = 0; i < HANDLES && round >= HANDLES; i++) {
            assert_int_equal((int)value_of(collections[i], 1) % INSTANCES, i % INSTANCES);
        }
    }
    for (int i = 0; i < HANDLES; i++) {
        vex_collection_close(collections[i]);
        vex_close(dbs[i]);
    }
    for (int i = 1; i < INSTANCES; i++) {
        assert_int_equal(vex_fixture_deinit(&others[i]), 0);
    }
}

/* ---- fork ------------------------------------------------------------------------------------ */

static bool is_fork_refusal(enum vex_status status, const struct vex_error *error)
{
    return status == VEX_ERR_INVALID && strstr(error->message, "fork");
}

/* In the child. 0, or which call did not do what it should. */
static int use_inherited(const struct vex_fixture *fixture, struct vex_db *db,
                         struct vex_collection *collection, struct vex_snapshot *snapshot)
{
    struct vex_error error = {0};
    struct vex_stats stats = {.size = sizeof(stats)};
    struct vex_collection_info info = {.size = sizeof(info)};
    struct vex_collection_options options = VEX_COLLECTION_OPTIONS_INIT;
    options.dim = 2;
    struct vex_record record = {.size = sizeof(record)};
    struct vex_collection *opened = NULL;
    struct vex_snapshot *taken = NULL;
    uint64_t number = 0;
    size_t count = 0;
    float value = 0;
    bool there = false;
#define MUST_REFUSE(number, call)                                                                  \
    if (!is_fork_refusal(call, &error)) {                                                          \
        fprintf(stderr, "after fork: %s: '%s'\n", #call, error.message);                           \
        return number;                                                                             \
    }                                                                                              \
    memset(&error, 0, sizeof(error))
    MUST_REFUSE(10, vex_get_stats(db, &stats, &error));
    MUST_REFUSE(11, vex_shutdown(db, &error));
    MUST_REFUSE(12, vex_wait(db, 1, 10, &error));
    MUST_REFUSE(13, vex_collection_create(db, "x", &options, &error));
    MUST_REFUSE(14, vex_collection_drop(db, "points", &error));
    MUST_REFUSE(15, vex_collection_list(db, NULL, 0, &count, &error));
    MUST_REFUSE(16, vex_collection_open(db, "points", &opened, &error));
    MUST_REFUSE(17, vex_collection_describe(collection, &info, &error));
    MUST_REFUSE(18, put(collection, 1, 5, NULL, &error));
    MUST_REFUSE(19, vex_delete(collection, 1, NULL, &error));
    MUST_REFUSE(20, look(collection, 1, &value, &error));
    MUST_REFUSE(21, vex_exists(collection, 1, NULL, &there, &error));
    MUST_REFUSE(22, vex_count(collection, NULL, &number, &error));
    MUST_REFUSE(23, search_one(collection, NULL, &error));
    MUST_REFUSE(24, vex_snapshot_open(collection, NULL, &taken, &error));
    MUST_REFUSE(25, vex_snapshot_get(snapshot, 1, &record, &error));
#undef MUST_REFUSE
    struct vex_db *own = vex_fixture_open(fixture);
    struct vex_collection *mine = vex_fixture_collection(own, "points", DIM, VEX_METRIC_L2);
    if (look(mine, 1, &value, &error) != VEX_OK || value != 1) {
        return 30;
    }
    if (put(mine, 2, 2, NULL, &error) != VEX_OK || look(mine, 2, &value, &error) != VEX_OK ||
        value != 2) {
        return 31;
    }
    vex_snapshot_close(snapshot);
    vex_collection_close(collection);
    vex_close(db);
    if (look(mine, 2, &value, &error) != VEX_OK) {
        return 32;
    }
    vex_collection_close(mine);
    vex_close(own);
    return 0;
}

static void a_child_opens_its_own_and_the_parent_goes_on(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    struct vex_collection *collection = vex_fixture_collection(db, "points", DIM, VEX_METRIC_L2);
    assert_ok(put(collection, 1, 1, NULL, sink));
    assert_true(value_of(collection, 1) == 1);
    struct vex_snapshot *snapshot = NULL;
    assert_ok(vex_snapshot_open(collection, NULL, &snapshot, sink));
    pid_t child = vex_fixture_fork();
    if (child == 0) {
        _exit(use_inherited(*state, db, collection, snapshot));
    }
    assert_int_equal(vex_fixture_await(child, 20000), 0);
    assert_true(value_of(collection, 2) == 2);
    assert_ok(put(collection, 3, 3, NULL, sink));
    assert_true(value_of(collection, 3) == 3);
    struct vex_record record = {.size = sizeof(record)};
    assert_ok(vex_snapshot_get(snapshot, 1, &record, sink));
    assert_refused(vex_snapshot_get(snapshot, 2, &record, sink), VEX_ERR_NOT_FOUND, "id 2 ");
    vex_snapshot_close(snapshot);
    vex_collection_close(collection);
    vex_close(db);
}

static void *work_until_stopped(void *argument)
{
    struct hand *hand = argument;
    struct vex_collection *collection = hand->crew->collection;
    (void)pthread_barrier_wait(&hand->crew->start);
    while (!atomic_load(&hand->crew->stop) && hand->status == VEX_OK) {
        float value = 0;
        switch (hand->number % 3) {
        case 0:
            hand->status = put(collection, 100 + hand->number, 1, NULL, &hand->error);
            break;
        case 1:
            hand->status = look(collection, 1, &value, &hand->error);
            break;
        default: {
            struct vex_snapshot *snapshot = NULL;
            hand->status = vex_snapshot_open(collection, NULL, &snapshot, &hand->error);
            vex_snapshot_close(snapshot);
            break;
        }
        }
        hand->done++;
    }
    return NULL;
}

/* Locks may be held by threads that the child does not have. Ours are not; those of a sanitizer's
 * allocator are. */
static void fork_is_possible_in_the_middle_of_everything(void **state)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    print_message(
        "skipped: the allocator of the sanitizer does not survive fork() among threads\n");
    skip();
#endif
    struct crew *crew = test_calloc(1, sizeof(*crew));
    crew->db = vex_fixture_open(*state);
    crew->collection = vex_fixture_collection(crew->db, "points", DIM, VEX_METRIC_L2);
    assert_ok(put(crew->collection, 1, 1, NULL, sink));
    crew_start(crew, 6, work_until_stopped);
    for (int i = 0; i < 30; i++) {
        struct vex_snapshot *snapshot = NULL;
        assert_ok(vex_snapshot_open(crew->collection, NULL, &snapshot, sink));
        pid_t child = vex_fixture_fork();
        if (child == 0) {
            _exit(use_inherited(*state, crew->db, crew->collection, snapshot));
        }
        assert_int_equal(vex_fixture_await(child, 20000), 0);
        vex_snapshot_close(snapshot);
    }
    atomic_store(&crew->stop, true);
    crew_join(crew);
    vex_collection_close(crew->collection);
    vex_close(crew->db);
    test_free(crew);
}

static bool one_client_is_left(void *context)
{
    struct vex_stats stats = {.size = sizeof(stats)};
    return vex_get_stats(context, &stats, NULL) == VEX_OK && stats.clients == 1;
}

/* A child that lives on holds a copy of the parent's socket, which it never asked for. */
static void a_closed_handle_is_closed_in_spite_of_a_child(void **state)
{
    struct vex_db *witness = vex_fixture_open(*state);
    struct vex_db *db = vex_fixture_open(*state);
    pid_t child = vex_fixture_fork();
    if (child == 0) {
        vex_fixture_pause_ms(60000);
        _exit(0);
    }
    assert_false(vex_fixture_eventually(one_client_is_left, witness, 20));
    vex_close(db);
    bool left = vex_fixture_eventually(one_client_is_left, witness, 3000);
    (void)kill(child, SIGKILL);
    (void)vex_fixture_await(child, 5000);
    assert_true(left);
    vex_close(witness);
}

static bool shm_is_small(void *context)
{
    struct vex_stats stats = {.size = sizeof(stats)};
    return vex_get_stats(context, &stats, NULL) == VEX_OK && stats.shm_bytes < 6u << 20;
}

/* The pins of a process end with it, whatever it was doing. */
static void a_killed_reader_keeps_no_memory(void **state)
{
    struct vex_fixture *fixture = *state;
    struct vex_db *db = vex_fixture_open(fixture);
    struct vex_collection *collection = vex_fixture_collection(db, "large", 1024, VEX_METRIC_L2);
    float *many = test_calloc(3000 * 1024, sizeof(*many));
    struct vex_batch batch = VEX_BATCH_INIT;
    batch.count = 3000;
    batch.vectors = many;
    batch.dim = 1024;
    assert_ok(vex_write(collection, VEX_WRITE_INSERT, &batch, NULL, sink));
    test_free(many);
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    pid_t child = vex_fixture_fork();
    if (child == 0) {
        struct vex_db *own = vex_fixture_open(fixture);
        struct vex_collection *mine = vex_fixture_collection(own, "large", 1024, VEX_METRIC_L2);
        struct vex_snapshot *snapshot = NULL;
        bool opened = vex_snapshot_open(mine, NULL, &snapshot, NULL) == VEX_OK;
        (void)!write(fds[1], opened ? "y" : "n", 1);
        vex_fixture_pause_ms(60000);
        _exit(0);
    }
    char answer = 0;
    assert_int_equal(read(fds[0], &answer, 1), 1);
    assert_int_equal(answer, 'y');
    assert_ok(vex_collection_drop(db, "large", sink));
    assert_int_equal(kill(child, SIGSTOP), 0); /* hangs, but lives: its memory stays */
    assert_false(vex_fixture_eventually(shm_is_small, db, 200));
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(vex_fixture_await(child, 5000), -SIGKILL);
    assert_true(vex_fixture_eventually(shm_is_small, db, 5000));
    (void)close(fds[0]);
    (void)close(fds[1]);
    vex_collection_close(collection);
    vex_close(db);
}

/* ---- dropped under its readers --------------------------------------------------------------- */

static void *read_until_gone(void *argument)
{
    struct hand *hand = argument;
    (void)pthread_barrier_wait(&hand->crew->start);
    enum vex_status status = VEX_OK;
    while (status == VEX_OK) {
        float value = 0;
        status = hand->number % 2 ? search_one(hand->crew->collection, NULL, &hand->error)
                                  : look(hand->crew->collection, 7, &value, &hand->error);
        if (status == VEX_OK && hand->number % 2 == 0 && value != 7) {
            status = VEX_ERR_CORRUPT;
        }
        hand->done++;
    }
    hand->status = status == VEX_ERR_GONE ? VEX_OK : status;
    return NULL;
}

static void readers_of_a_dropped_collection_get_gone_and_nothing_else(void **state)
{
    struct crew *crew = test_calloc(1, sizeof(*crew));
    struct vex_db *dropper = vex_fixture_open(*state);
    crew->db = vex_fixture_open(*state);
    for (int round = 0; round < 15; round++) {
        struct vex_collection *made = vex_fixture_collection(dropper, "short", DIM, VEX_METRIC_L2);
        for (uint64_t id = 0; id < 20; id++) {
            assert_ok(put(made, id, (float)id, NULL, sink));
        }
        crew->collection = vex_fixture_collection(crew->db, "short", DIM, VEX_METRIC_L2);
        crew_start(crew, 4, read_until_gone);
        vex_fixture_pause_ms(5);
        assert_ok(vex_collection_drop(dropper, "short", sink));
        vex_collection_close(made);
        /* Its place and memory are taken again at once. */
        struct vex_collection *next = vex_fixture_collection(dropper, "next", DIM, VEX_METRIC_L2);
        for (uint64_t id = 0; id < 20; id++) {
            assert_ok(put(next, id, -1, NULL, sink));
        }
        crew_join(crew);
        vex_collection_close(next);
        assert_ok(vex_collection_drop(dropper, "next", sink));
        vex_collection_close(crew->collection);
    }
    vex_close(crew->db);
    vex_close(dropper);
    test_free(crew);
}

/* ---- signals --------------------------------------------------------------------------------- */

static _Atomic unsigned signals_seen;

static void count_signal(int number)
{
    (void)number;
    (void)atomic_fetch_add(&signals_seen, 1);
}

static void signals_do_not_disturb_calls(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    struct vex_collection *collection = vex_fixture_collection(db, "points", DIM, VEX_METRIC_L2);
    struct sigaction action = {.sa_handler = count_signal}; /* no SA_RESTART */
    struct sigaction before;
    assert_int_equal(sigaction(SIGALRM, &action, &before), 0);
    const struct itimerval often = {{0, 300}, {0, 300}};
    assert_int_equal(setitimer(ITIMER_REAL, &often, NULL), 0);
    atomic_store(&signals_seen, 0);
    uint64_t deadline_ms = vex_fixture_now_ms() + 700;
    float value = 0;
    while (vex_fixture_now_ms() < deadline_ms) {
        assert_ok(put(collection, 1, ++value, NULL, sink));
        assert_true(value_of(collection, 1) == value);
        struct vex_db *another = NULL;
        struct vex_open_options options = vex_fixture_open_options();
        assert_ok(vex_open(((struct vex_fixture *)*state)->directory, &options, &another, sink));
        vex_close(another);
    }
    struct totals totals = totals_of(db);
    assert_refused(vex_wait(db, totals.lsn + 1, 50, sink), VEX_ERR_TIMEOUT, "LSN");
    const struct itimerval never = {{0, 0}, {0, 0}};
    assert_int_equal(setitimer(ITIMER_REAL, &never, NULL), 0);
    assert_int_equal(sigaction(SIGALRM, &before, NULL), 0);
    assert_true(atomic_load(&signals_seen) > 100);
    vex_collection_close(collection);
    vex_close(db);
}

/* ---- a daemon that goes and comes ------------------------------------------------------------ */

static unsigned open_descriptors(void)
{
    DIR *directory = opendir("/proc/self/fd");
    assert_non_null(directory);
    unsigned count = 0;
    while (readdir(directory)) {
        count++;
    }
    (void)closedir(directory);
    return count;
}

struct expected_value {
    struct vex_collection *collection;
    uint64_t id;
    float value;
};

static bool sees_value(void *context)
{
    const struct expected_value *expected = context;
    float value = 0;
    return look(expected->collection, expected->id, &value, NULL) == VEX_OK &&
           value == expected->value;
}

static void handles_outlive_a_killed_daemon(void **state)
{
    struct vex_fixture *fixture = *state;
    struct vex_db *reader_db = vex_fixture_open(fixture);
    struct vex_db *writer_db = vex_fixture_open(fixture);
    struct vex_collection *writer = vex_fixture_collection(writer_db, "points", DIM, VEX_METRIC_L2);
    struct vex_collection *reader = vex_fixture_collection(reader_db, "points", DIM, VEX_METRIC_L2);
    assert_ok(put(writer, 1, 1, NULL, sink));
    assert_true(value_of(reader, 1) == 1);
    struct vex_snapshot *snapshot = NULL;
    assert_ok(vex_snapshot_open(reader, NULL, &snapshot, sink));
    unsigned descriptors = 0;
    for (int round = 2; round < 14; round++) {
        assert_int_equal(vex_fixture_kill(fixture), -SIGKILL);
        for (int i = 0; i < 20; i++) { /* the last state, while it is down */
            assert_true(value_of(reader, 1) == (float)round - 1);
            assert_int_equal(count_of(reader), 1);
            assert_ok(search_one(reader, NULL, sink));
        }
        vex_fixture_start(fixture, NULL);
        struct vex_ack ack = VEX_ACK_INIT;
        assert_ok(put(writer, 1, (float)round, &ack, sink));
        /* At once with its LSN, and soon without. */
        struct vex_read_options read = VEX_READ_OPTIONS_INIT;
        read.min_lsn = ack.lsn;
        float vector[DIM];
        assert_ok(vex_get(reader, 1, &read, vector, DIM, NULL, 0, NULL, sink));
        assert_true(vector[0] == (float)round);
        struct vex_search_info info = {.size = sizeof(info)};
        assert_ok(search_one(reader, &info, sink));
        assert_false(info.stale);
        assert_int_equal(info.snapshot_lsn, ack.lsn);
        struct vex_record record = {.size = sizeof(record)};
        assert_ok(vex_snapshot_get(snapshot, 1, &record, sink));
        assert_true(record.vector[0] == 1); /* of the first daemon */
        if (round == 4) {
            descriptors = open_descriptors();
        }
    }
    assert_int_equal(open_descriptors(), descriptors);
    vex_snapshot_close(snapshot);
    vex_collection_close(reader);
    vex_collection_close(writer);
    vex_close(writer_db);
    vex_close(reader_db);
}

static bool says_stale(void *context)
{
    struct vex_search_info info = {.size = sizeof(info)};
    return search_one(context, &info, NULL) == VEX_OK && info.stale;
}

static void a_search_says_that_the_daemon_was_killed(void **state)
{
    struct vex_fixture *fixture = *state;
    struct vex_db *db = vex_fixture_open(fixture);
    struct vex_collection *collection = vex_fixture_collection(db, "points", DIM, VEX_METRIC_L2);
    assert_ok(put(collection, 1, 1, NULL, sink));
    assert_false(says_stale(collection));
    (void)vex_fixture_kill(fixture);
    assert_true(vex_fixture_eventually(says_stale, collection, 3000));
    vex_collection_close(collection);
    vex_close(db);
}

/* An acknowledgement promises it to every read that starts afterwards: also to a handle that has just
 * tried in vain to reach a daemon. */
static void an_acknowledged_write_is_seen_across_a_restart(void **state)
{
    struct vex_fixture *fixture = *state;
    struct vex_db *reader_db = vex_fixture_open(fixture);
    struct vex_collection *reader = vex_fixture_collection(reader_db, "points", DIM, VEX_METRIC_L2);
    for (int round = 1; round <= 5; round++) {
        struct vex_db *db = vex_fixture_open(fixture);
        struct vex_collection *writer = vex_fixture_collection(db, "points", DIM, VEX_METRIC_L2);
        assert_ok(put(writer, 1, (float)round, NULL, sink));
        assert_true(value_of(reader, 1) == (float)round);
        vex_collection_close(writer);
        vex_close(db);
        assert_int_equal(vex_fixture_stop(fixture), 0);
        assert_true(value_of(reader, 1) == (float)round); /* notices that it is gone */
        vex_fixture_start(fixture, NULL);
    }
    vex_collection_close(reader);
    vex_close(reader_db);
}

static void *wait_for_lsn(void *argument)
{
    struct hand *hand = argument;
    struct vex_read_options read = VEX_READ_OPTIONS_INIT;
    read.min_lsn = hand->done;
    read.timeout_ms = 20000;
    float vector[DIM];
    (void)pthread_barrier_wait(&hand->crew->start);
    hand->status = hand->number ? vex_get(hand->crew->collection, 1, &read, vector, DIM, NULL, 0,
                                          NULL, &hand->error)
                                : vex_wait(hand->crew->db, read.min_lsn, 20000, &hand->error);
    return NULL;
}

static void waiting_goes_on_over_a_restart(void **state)
{
    struct vex_fixture *fixture = *state;
    struct crew *crew = test_calloc(1, sizeof(*crew));
    crew->db = vex_fixture_open(fixture);
    crew->collection = vex_fixture_collection(crew->db, "points", DIM, VEX_METRIC_L2);
    struct vex_db *db = vex_fixture_open(fixture);
    struct vex_collection *writer = vex_fixture_collection(db, "points", DIM, VEX_METRIC_L2);
    for (int orderly = 0; orderly < 2; orderly++) {
        struct vex_ack ack = VEX_ACK_INIT;
        assert_ok(put(writer, 1, 1, &ack, sink));
        crew->count = 3;
        assert_int_equal(pthread_barrier_init(&crew->start, NULL, crew->count + 1), 0);
        for (unsigned i = 0; i < crew->count; i++) {
            crew->hands[i] = (struct hand){.crew = crew, .number = i, .done = ack.lsn + 2};
            assert_int_equal(
                pthread_create(&crew->hands[i].thread, NULL, wait_for_lsn, &crew->hands[i]), 0);
        }
        (void)pthread_barrier_wait(&crew->start);
        vex_fixture_pause_ms(20);
        (void)(orderly ? vex_fixture_stop(fixture) : vex_fixture_kill(fixture));
        vex_fixture_pause_ms(20);
        vex_fixture_start(fixture, NULL);
        assert_ok(put(writer, 1, 2, &ack, sink));
        assert_ok(put(writer, 1, 3, &ack, sink));
        uint64_t start_ms = vex_fixture_now_ms();
        crew_join(crew);
        assert_true(vex_fixture_now_ms() - start_ms < 5000);
    }
    vex_collection_close(writer);
    vex_close(db);
    vex_collection_close(crew->collection);
    vex_close(crew->db);
    test_free(crew);
}

/* Reads of a stopped instance answer from its last state, also where a handle has not yet looked at
 * all of it. What cannot be had any more is unavailable, and nobody's damage. */
static void a_stopped_instance_is_never_called_damaged(void **state)
{
    struct vex_fixture *fixture = *state;
    for (int killed = 0; killed < 2; killed++) {
        struct vex_db *db = vex_fixture_open(fixture);
        struct vex_db *other = vex_fixture_open(fixture);
        char name[16];
        (void)snprintf(name, sizeof(name), "points%d", killed);
        struct vex_collection *writer = vex_fixture_collection(other, name, DIM, VEX_METRIC_L2);
        struct vex_collection *lagging = vex_fixture_collection(db, name, DIM, VEX_METRIC_L2);
        struct vex_collection *unread = vex_fixture_collection(db, name, DIM, VEX_METRIC_L2);
        assert_ok(put(writer, 1, 1, NULL, sink));
        assert_true(value_of(lagging, 1) == 1);
        float *many = test_calloc(40000 * DIM, sizeof(*many));
        struct vex_batch batch = VEX_BATCH_INIT;
        batch.count = 40000;
        batch.vectors = many;
        batch.dim = DIM;
        assert_ok(vex_write(writer, VEX_WRITE_INSERT, &batch, NULL, sink)); /* a new segment */
        test_free(many);
        vex_collection_close(writer);
        vex_close(other);
        if (killed) {
            (void)vex_fixture_kill(fixture);
        } else {
            assert_int_equal(vex_fixture_stop(fixture), 0);
        }
        struct vex_collection *const handles[2] = {lagging, unread};
        for (int i = 0; i < 2; i++) {
            float value = 0;
            enum vex_status status = look(handles[i], 1, &value, &check_error);
            if (status != VEX_OK && status != VEX_ERR_UNAVAILABLE) {
                fail_msg("%s handle of a %s instance: %s: %s", i ? "unread" : "lagging",
                         killed ? "killed" : "stopped", vex_status_name(status),
                         check_error.message);
            }
            assert_true(status != VEX_OK || value == 1);
        }
        vex_fixture_start(fixture, NULL);
        struct expected_value expected = {lagging, 1, 1};
        assert_true(vex_fixture_eventually(sees_value, &expected, 3000));
        expected.collection = unread;
        assert_true(vex_fixture_eventually(sees_value, &expected, 3000));
        assert_int_equal(count_of(unread), 40001);
        vex_collection_close(unread);
        vex_collection_close(lagging);
        vex_close(db);
    }
}

static void *read_and_stay(void *argument)
{
    struct hand *hand = argument;
    float value = 0;
    hand->status = look(hand->crew->collection, 1, &value, &hand->error);
    (void)pthread_barrier_wait(&hand->crew->start);
    while (!atomic_load(&hand->crew->stop)) {
        vex_fixture_pause_ms(1);
    }
    return NULL;
}

/* All slots of the first page belong to threads that have read once and now do other things; a new
 * thread has none, and cannot ask the old daemon for a page. */
static void a_new_thread_reads_after_a_restart(void **state)
{
    struct vex_fixture *fixture = *state;
    struct crew *crew = test_calloc(1, sizeof(*crew));
    crew->db = vex_fixture_open(fixture);
    crew->collection = vex_fixture_collection(crew->db, "points", DIM, VEX_METRIC_L2);
    assert_ok(put(crew->collection, 1, 1, NULL, sink));
    vex_fixture_pause_ms(1);
    /* This thread took one slot when it opened the collection. */
    crew->count = 62;
    assert_int_equal(pthread_barrier_init(&crew->start, NULL, crew->count + 1), 0);
    for (unsigned i = 0; i < crew->count; i++) {
        crew->hands[i] = (struct hand){.crew = crew, .number = i};
        assert_int_equal(
            pthread_create(&crew->hands[i].thread, NULL, read_and_stay, &crew->hands[i]), 0);
    }
    (void)pthread_barrier_wait(&crew->start);
    (void)vex_fixture_kill(fixture);
    vex_fixture_start(fixture, NULL);
    struct crew *second = test_calloc(1, sizeof(*second));
    second->db = crew->db;
    second->collection = crew->collection;
    crew_start(second, 1, read_together);
    enum vex_status status = VEX_OK;
    assert_int_equal(pthread_join(second->hands[0].thread, NULL), 0);
    status = second->hands[0].status;
    (void)pthread_barrier_destroy(&second->start);
    atomic_store(&crew->stop, true);
    crew_join(crew);
    if (status != VEX_OK) {
        fail_msg("%s: %s", vex_status_name(status), second->hands[0].error.message);
    }
    test_free(second);
    vex_collection_close(crew->collection);
    vex_close(crew->db);
    test_free(crew);
}

/* The descriptors of this process that are sockets. */
static unsigned find_sockets(int *fds, unsigned most)
{
    unsigned count = 0;
    for (int fd = 0; fd < 1024 && count < most; fd++) {
        struct stat info;
        if (fstat(fd, &info) == 0 && S_ISSOCK(info.st_mode)) {
            fds[count++] = fd;
        }
    }
    return count;
}

static bool snapshot_is_lost(void *context)
{
    struct vex_record record = {.size = sizeof(record)};
    return vex_snapshot_get(context, 1, &record, NULL) == VEX_ERR_UNAVAILABLE;
}

/* When the connection ends the daemon stops honouring the client's pins, and may use the memory for
 * something else: a snapshot must say so instead of reading on. Everything else finds back. */
static void a_client_that_was_cut_off_comes_back(void **state)
{
    struct vex_fixture *fixture = *state;
    struct vex_db *witness = vex_fixture_open(fixture);
    int before[64];
    int after[64];
    unsigned before_count = find_sockets(before, 64);
    struct vex_db *db = vex_fixture_open(fixture);
    assert_int_equal(find_sockets(after, 64), before_count + 1);
    unsigned at = 0;
    while (at < before_count && after[at] == before[at]) {
        at++;
    }
    struct vex_collection *collection = vex_fixture_collection(db, "points", DIM, VEX_METRIC_L2);
    assert_ok(put(collection, 1, 1, NULL, sink));
    struct vex_snapshot *snapshot = NULL;
    assert_ok(vex_snapshot_open(collection, NULL, &snapshot, sink));
    struct vex_record record = {.size = sizeof(record)};
    assert_ok(vex_snapshot_get(snapshot, 1, &record, sink));
    assert_int_equal(shutdown(after[at], SHUT_RDWR), 0);
    assert_true(vex_fixture_eventually(snapshot_is_lost, snapshot, 5000));
    assert_refused(vex_snapshot_get(snapshot, 1, &record, sink), VEX_ERR_UNAVAILABLE, "cut");
    for (float value = 2; value < 10; value++) {
        assert_true(value_of(collection, 1) == value - 1);
        assert_ok(put(collection, 1, value, NULL, sink));
    }
    struct vex_search_info info = {.size = sizeof(info)};
    assert_ok(search_one(collection, &info, sink));
    assert_false(info.stale);
    vex_snapshot_close(snapshot);
    assert_ok(vex_snapshot_open(collection, NULL, &snapshot, sink));
    assert_ok(vex_snapshot_get(snapshot, 1, &record, sink));
    assert_true(record.vector[0] == 9);
    vex_snapshot_close(snapshot);
    vex_collection_close(collection);
    vex_close(db);
    assert_true(vex_fixture_eventually(one_client_is_left, witness, 5000));
    vex_close(witness);
}

/* Stops the daemon in the middle of everything; lets it go on when told to, or after a while, so that a
 * call that waits for ever fails its test and no others. */
struct hang {
    pid_t daemon;
    _Atomic bool over;
    pthread_t thread;
};

static void *end_hang(void *argument)
{
    struct hang *hang = argument;
    for (int i = 0; i < 400 && !atomic_load(&hang->over); i++) {
        vex_fixture_pause_ms(10);
    }
    (void)kill(hang->daemon, SIGCONT);
    return NULL;
}

static void hang_begin(struct hang *hang, const struct vex_fixture *fixture)
{
    hang->daemon = fixture->daemon;
    atomic_store(&hang->over, false);
    assert_int_equal(kill(hang->daemon, SIGSTOP), 0);
    assert_int_equal(pthread_create(&hang->thread, NULL, end_hang, hang), 0);
}

static void hang_end(struct hang *hang)
{
    atomic_store(&hang->over, true);
    assert_int_equal(pthread_join(hang->thread, NULL), 0);
}

static void open_keeps_its_time_out_with_a_daemon_that_hangs(void **state)
{
    struct vex_fixture *fixture = *state;
    struct vex_open_options options = vex_fixture_open_options();
    options.timeout_ms = 200;
    struct hang hang;
    hang_begin(&hang, fixture);
    struct vex_db *db = NULL;
    uint64_t start_ms = vex_fixture_now_ms();
    enum vex_status status = vex_open(fixture->directory, &options, &db, &check_error);
    uint64_t took_ms = vex_fixture_now_ms() - start_ms;
    hang_end(&hang);
    vex_close(db);
    if (status != VEX_ERR_TIMEOUT || took_ms > 3000) {
        fail_msg("%s after %llu ms", vex_status_name(status), (unsigned long long)took_ms);
    }
}

static void questions_to_a_daemon_that_hangs_time_out(void **state)
{
    struct vex_fixture *fixture = *state;
    struct vex_open_options options = vex_fixture_open_options();
    options.timeout_ms = 200;
    for (int i = 0; i < 2; i++) {
        struct vex_db *db = NULL;
        assert_ok(vex_open(fixture->directory, &options, &db, sink));
        struct hang hang;
        hang_begin(&hang, fixture);
        struct vex_stats stats = {.size = sizeof(stats)};
        uint64_t start_ms = vex_fixture_now_ms();
        enum vex_status status =
            i ? vex_shutdown(db, &check_error) : vex_get_stats(db, &stats, &check_error);
        uint64_t took_ms = vex_fixture_now_ms() - start_ms;
        hang_end(&hang);
        vex_close(db);
        if (status != VEX_ERR_TIMEOUT || took_ms > 3000) {
            fail_msg("%s: %s after %llu ms", i ? "shutdown" : "statistics", vex_status_name(status),
                     (unsigned long long)took_ms);
        }
    }
    int code = vex_fixture_await(fixture->daemon, 10000); /* it was asked to, and can now */
    fixture->daemon = 0;
    assert_int_equal(code, 0);
}

/* ---- directories ----------------------------------------------------------------------------- */

static void a_directory_may_have_a_long_name(void **state)
{
    struct vex_fixture *fixture = *state;
    char part[120];
    memset(part, 'l', sizeof(part));
    part[sizeof(part) - 1] = 0;
    (void)snprintf(fixture->directory, sizeof(fixture->directory), "%.200s/%s/%s/db",
                   fixture->root.path, part, part);
    vex_fixture_start(fixture, NULL);
    struct vex_db *db = vex_fixture_open(fixture);
    struct vex_collection *collection = vex_fixture_collection(db, "points", DIM, VEX_METRIC_L2);
    assert_ok(put(collection, 1, 1, NULL, sink));
    (void)vex_fixture_kill(fixture);
    vex_fixture_start(fixture, NULL);
    assert_true(value_of(collection, 1) == 1);
    vex_collection_close(collection);
    vex_close(db);
}

static void a_relative_directory_is_meant_as_of_opening(void **state)
{
    struct vex_fixture *fixture = *state;
    vex_fixture_start(fixture, NULL);
    char *here = getcwd(NULL, 0);
    assert_non_null(here);
    assert_int_equal(chdir(fixture->root.path), 0);
    struct vex_open_options options = vex_fixture_open_options();
    struct vex_db *db = NULL;
    assert_ok(vex_open("db", &options, &db, sink));
    struct vex_collection *collection = vex_fixture_collection(db, "points", DIM, VEX_METRIC_L2);
    assert_int_equal(chdir("/"), 0);
    assert_ok(put(collection, 1, 1, NULL, sink));
    assert_int_equal(vex_fixture_stop(fixture), 0);
    vex_fixture_start(fixture, NULL);
    assert_ok(put(collection, 1, 2, NULL, sink)); /* attaches again, from elsewhere */
    assert_true(value_of(collection, 1) == 2);
    assert_int_equal(chdir(here), 0);
    free(here);
    vex_collection_close(collection);
    vex_close(db);
}

static void copy_tree(const char *from, const char *to)
{
    char command[2 * VEX_FIXTURE_PATH_MAX + 32];
    (void)snprintf(command, sizeof(command), "cp -a '%s' '%s'", from, to);
    assert_int_equal(system(command), 0);
}

/* A backup is a copy of the directory. Whoever opens both at once gets either two instances or a clear
 * refusal, never one that reads from the other. */
static void a_copy_of_the_directory_is_another_instance(void **state)
{
    struct vex_fixture *fixture = *state;
    vex_fixture_start(fixture, NULL);
    struct vex_db *db = vex_fixture_open(fixture);
    struct vex_collection *collection = vex_fixture_collection(db, "points", DIM, VEX_METRIC_L2);
    assert_ok(put(collection, 1, 1, NULL, sink));
    assert_int_equal(vex_fixture_stop(fixture), 0);
    struct vex_fixture copy;
    vex_fixture_init(&copy);
    copy_tree(fixture->directory, copy.directory);
    vex_fixture_start(fixture, NULL);
    assert_ok(put(collection, 1, 2, NULL, sink));

    struct vex_error error = {0};
    enum vex_status status = vex_fixture_try_start(&copy, NULL, NULL, &error);
    if (status == VEX_OK) {
        struct vex_db *copy_db = vex_fixture_open(&copy);
        struct vex_collection *copied =
            vex_fixture_collection(copy_db, "points", DIM, VEX_METRIC_L2);
        assert_true(value_of(copied, 1) == 1);
        assert_ok(put(copied, 1, 3, NULL, sink));
        assert_true(value_of(copied, 1) == 3);
        vex_collection_close(copied);
        vex_close(copy_db);
    }
    /* The original is as it was, for those who had it open and for newcomers. */
    assert_true(value_of(collection, 1) == 2);
    assert_ok(put(collection, 1, 4, NULL, sink));
    assert_true(value_of(collection, 1) == 4);
    struct vex_db *late = vex_fixture_open(fixture);
    struct vex_collection *again = vex_fixture_collection(late, "points", DIM, VEX_METRIC_L2);
    assert_true(value_of(again, 1) == 4);
    vex_collection_close(again);
    vex_close(late);
    assert_int_equal(vex_fixture_deinit(&copy), 0);
    assert_true(value_of(collection, 1) == 4);
    assert_ok(put(collection, 1, 5, NULL, sink));
    assert_true(value_of(collection, 1) == 5);
    vex_collection_close(collection);
    vex_close(db);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_daemon(threads_share_one_handle),
        with_daemon(more_threads_read_than_a_page_has_slots),
        with_daemon(new_readers_and_other_calls_do_not_disturb_each_other),
        with_daemon(the_limit_of_slots_is_refused_by_name),
        with_daemon(handles_of_one_thread_do_not_mix),
        with_daemon(a_child_opens_its_own_and_the_parent_goes_on),
        with_daemon(fork_is_possible_in_the_middle_of_everything),
        with_daemon(a_closed_handle_is_closed_in_spite_of_a_child),
        with_daemon(a_killed_reader_keeps_no_memory),
        with_daemon(readers_of_a_dropped_collection_get_gone_and_nothing_else),
        with_daemon(signals_do_not_disturb_calls),
        with_daemon(handles_outlive_a_killed_daemon),
        with_daemon(a_search_says_that_the_daemon_was_killed),
        with_daemon(an_acknowledged_write_is_seen_across_a_restart),
        with_daemon(waiting_goes_on_over_a_restart),
        with_daemon(a_stopped_instance_is_never_called_damaged),
        with_daemon(a_new_thread_reads_after_a_restart),
        with_daemon(a_client_that_was_cut_off_comes_back),
        with_daemon(open_keeps_its_time_out_with_a_daemon_that_hangs),
        with_daemon(questions_to_a_daemon_that_hangs_time_out),
        with_directory(a_directory_may_have_a_long_name),
        with_directory(a_relative_directory_is_meant_as_of_opening),
        with_directory(a_copy_of_the_directory_is_another_instance),
    };
    return run_cases("handles", tests);
}
