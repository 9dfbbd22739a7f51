/*
 * "A read makes no system call": a thread warms up, forbids itself every system call but the write
 * that reports its end and the exit, and then searches, gets and counts 100,000 times. The kernel
 * kills the process at the first call that is not allowed (seccomp, SECCOMP_RET_KILL_PROCESS).
 *
 * Each case runs in a child process. The control case shows that the filter does kill.
 */
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/integration/check.h"

#define READS 100000
#define ROWS 500
#define DIM 16
#define END_WORD "done"
#define EXIT_SKIPPED 77

#if defined(__x86_64__)
#define THIS_ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define THIS_ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

/* From here on the calling thread may end itself and the process, and write to `report_fd`. */
static bool forbid_system_calls(int report_fd)
{
#define OFFSET(field) ((uint32_t)offsetof(struct seccomp_data, field))
#define ALLOW_IF(number)                                                                           \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(number), 0, 1),                                 \
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, OFFSET(arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, THIS_ARCHITECTURE, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, OFFSET(nr)),
        ALLOW_IF(SYS_exit),
        ALLOW_IF(SYS_exit_group),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_write, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, OFFSET(args[0])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)report_fd, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    const struct sock_fprog filter = {sizeof(program) / sizeof(program[0]), program};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter) == 0;
}

struct quiet {
    struct vex_collection *collection;
    struct vex_collection *graph; /* NULL = there is none */
    struct vex_snapshot *snapshot;
    int report_fd;
    void (*work)(struct quiet *quiet);
};

/* In the quiet thread: there is no way out but this, and no printing. */
static _Noreturn void end_with(int code)
{
    (void)syscall(SYS_exit_group, code);
    __builtin_unreachable();
}

/* One of each kind of read; ends the process if an answer is wrong. */
static void read_once(struct quiet *quiet, uint64_t number)
{
    uint64_t id = number % ROWS;
    float query[DIM];
    for (size_t i = 0; i < DIM; i++) {
        query[i] = (float)id;
    }
    uint64_t ids[10];
    float distances[10];
    uint32_t found = 0;
    char payload[8];
    const void *payloads[10];
    size_t payload_bytes[10];
    char buffer[100];
    struct vex_results results = {.size = sizeof(results),
                                  .ids = ids,
                                  .distances = distances,
                                  .counts = &found,
                                  .payloads = payloads,
                                  .payload_bytes = payload_bytes,
                                  .payload_buffer = buffer,
                                  .payload_buffer_bytes = sizeof(buffer)};
    struct vex_search_options options = VEX_SEARCH_OPTIONS_INIT;
    options.payloads = true;
    options.read.snapshot = number % 3 ? NULL : quiet->snapshot;
    float vector[DIM];
    struct vex_record record = {.size = sizeof(record)};
    bool there = false;
    uint64_t count = 0;
    if (vex_search(quiet->collection, query, 1, DIM, &options, &results, NULL, NULL) != VEX_OK ||
        found != 10 || ids[0] != id || payload_bytes[0] != 2) {
        end_with(10);
    }
    if (vex_get(quiet->collection, id, NULL, vector, DIM, payload, sizeof(payload), &record,
                NULL) != VEX_OK ||
        vector[DIM - 1] != (float)id) {
        end_with(11);
    }
    if (vex_exists(quiet->collection, id + ROWS / 2, NULL, &there, NULL) != VEX_OK ||
        there != (id < ROWS / 2)) {
        end_with(12);
    }
    if (vex_count(quiet->collection, NULL, &count, NULL) != VEX_OK || count != ROWS) {
        end_with(13);
    }
    if (vex_snapshot_get(quiet->snapshot, id, &record, NULL) != VEX_OK || record.id != id) {
        end_with(14);
    }
}

static void read_many_times(struct quiet *quiet)
{
    for (uint64_t i = 0; i < READS; i++) {
        read_once(quiet, i);
    }
}

static void make_a_system_call(struct quiet *quiet)
{
    (void)quiet;
    (void)syscall(SYS_getppid);
}

static void *be_quiet(void *argument)
{
    struct quiet *quiet = argument;
    for (uint64_t i = 0; i < 3; i++) {
        read_once(quiet, i);
    }
    if (quiet->graph) {
        const float query[DIM] = {1};
        uint64_t ids[10];
        float distances[10];
        uint32_t found = 0;
        struct vex_results results = {
            .size = sizeof(results), .ids = ids, .distances = distances, .counts = &found};
        struct vex_search_options exact = VEX_SEARCH_OPTIONS_INIT;
        exact.exact = true;
        (void)!vex_search(quiet->graph, query, 1, DIM, NULL, &results, NULL, NULL);
        (void)!vex_search(quiet->graph, query, 1, DIM, &exact, &results, NULL, NULL);
    }
    if (!forbid_system_calls(quiet->report_fd)) {
        _exit(22);
    }
    quiet->work(quiet);
    (void)!write(quiet->report_fd, END_WORD, sizeof(END_WORD));
    end_with(0);
}

static void fill(struct vex_collection *collection)
{
    for (uint64_t id = 0; id < ROWS; id++) {
        float vector[DIM];
        for (size_t i = 0; i < DIM; i++) {
            vector[i] = (float)id;
        }
        assert_ok(vex_insert(collection, &id, vector, DIM, "pp", 2, NULL, sink));
    }
}

/* Exit code of a child whose thread does `work` in silence; *out_reported says whether it came to its
 * end. */
static int run_quietly(const struct vex_fixture *fixture, void (*work)(struct quiet *quiet),
                       bool *out_reported)
{
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    pid_t child = vex_fixture_fork();
    if (child == 0) {
        (void)close(fds[0]);
        (void)setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        struct vex_db *db = vex_fixture_open(fixture);
        struct quiet quiet = {
            .collection = vex_fixture_collection(db, "points", DIM, VEX_METRIC_L2),
            .report_fd = fds[1],
            .work = work,
        };
        (void)!vex_collection_open(db, "graph", &quiet.graph, NULL); /* if there is one */
        pthread_t thread;
        if (vex_snapshot_open(quiet.collection, NULL, &quiet.snapshot, NULL) != VEX_OK ||
            pthread_create(&thread, NULL, be_quiet, &quiet) != 0) {
            _exit(20);
        }
        (void)pthread_join(thread, NULL); /* the thread ends the process */
        _exit(21);
    }
    (void)close(fds[1]);
    char word[sizeof(END_WORD)] = {0};
    *out_reported = read(fds[0], word, sizeof(word)) == sizeof(word) && strcmp(word, END_WORD) == 0;
    (void)close(fds[0]);
    return vex_fixture_await(child, 100000);
}

static void a_system_call_is_noticed(void **state)
{
    struct vex_fixture *fixture = *state;
    struct vex_db *db = vex_fixture_open(fixture);
    struct vex_collection *collection = vex_fixture_collection(db, "points", DIM, VEX_METRIC_L2);
    fill(collection);
    bool reported = true;
    int code = run_quietly(fixture, make_a_system_call, &reported);
    vex_collection_close(collection);
    vex_close(db);
    assert_false(reported);
    assert_int_equal(code, -SIGSYS);
}

static void a_read_makes_no_system_call(void **state)
{
    struct vex_fixture *fixture = *state;
    struct vex_db *db = vex_fixture_open(fixture);
    struct vex_collection *collection = vex_fixture_collection(db, "points", DIM, VEX_METRIC_L2);
    fill(collection);
    bool reported = false;
    int code = run_quietly(fixture, read_many_times, &reported);
    vex_collection_close(collection);
    vex_close(db);
    assert_int_equal(code, 0);
    assert_true(reported);
}

#define GRAPH_ROWS 2000u
#define WALKS 100000u

/* Searches of a graph, some of them exact, by the codes. Scratch memory is there after the first of each. */
static void walk_many_times(struct quiet *quiet)
{
    for (uint64_t i = 0; i < WALKS; i++) {
        float query[DIM];
        for (size_t d = 0; d < DIM; d++) {
            query[d] = (float)((i * 7 + d * 13) % 101);
        }
        uint64_t ids[10];
        float distances[10];
        uint32_t found = 0;
        struct vex_results results = {
            .size = sizeof(results), .ids = ids, .distances = distances, .counts = &found};
        struct vex_search_options options = VEX_SEARCH_OPTIONS_INIT;
        options.exact = i % 10 == 0;
        if (vex_search(quiet->graph, query, 1, DIM, &options, &results, NULL, NULL) != VEX_OK ||
            found != 10) {
            end_with(15);
        }
    }
}

static void a_walk_makes_no_system_call(void **state)
{
    struct vex_fixture *fixture = *state;
    struct vex_db *db = vex_fixture_open(fixture);
    struct vex_collection *points = vex_fixture_collection(db, "points", DIM, VEX_METRIC_L2);
    fill(points);
    struct vex_collection_options options = VEX_COLLECTION_OPTIONS_INIT;
    options.dim = DIM;
    options.index = VEX_INDEX_HNSW;
    assert_ok(vex_collection_create(db, "graph", &options, sink));
    struct vex_collection *graph = NULL;
    assert_ok(vex_collection_open(db, "graph", &graph, sink));
    for (uint64_t id = 0; id < GRAPH_ROWS; id++) {
        float vector[DIM];
        for (size_t d = 0; d < DIM; d++) {
            vector[d] = (float)((id * 31 + d * id) % 103);
        }
        assert_ok(vex_insert(graph, &id, vector, DIM, NULL, 0, NULL, sink));
    }
    assert_ok(vex_compact(db, "graph", NULL, NULL, sink));
    struct vex_search_info info = {.size = sizeof(info)};
    uint64_t ids[10];
    float distances[10];
    uint32_t found = 0;
    struct vex_results results = {
        .size = sizeof(results), .ids = ids, .distances = distances, .counts = &found};
    const float query[DIM] = {1};
    assert_ok(vex_search(graph, query, 1, DIM, NULL, &results, &info, sink));
    assert_string_equal(info.mode, "hnsw");
    bool reported = false;
    int code = run_quietly(fixture, walk_many_times, &reported);
    vex_collection_close(graph);
    vex_collection_close(points);
    vex_close(db);
    assert_int_equal(code, 0);
    assert_true(reported);
}

static void *write_elsewhere(void *argument)
{
    struct vex_collection *collection = argument;
    float vector[DIM] = {0};
    for (unsigned i = 0; i < 400; i++) {
        vector[0] = (float)i;
        /* Rows of another collection, and far more than one segment of them. */
        enum vex_status status = vex_upsert(collection, i % 50, vector, DIM, NULL, 0, NULL, NULL);
        if (status != VEX_OK) {
            return argument;
        }
    }
    return NULL;
}

/* Publications go by all the while: they must not make a reader call the kernel either. */
static void a_read_makes_no_system_call_while_others_write(void **state)
{
    struct vex_fixture *fixture = *state;
    struct vex_db *db = vex_fixture_open(fixture);
    struct vex_collection *collection = vex_fixture_collection(db, "points", DIM, VEX_METRIC_L2);
    struct vex_collection *other = vex_fixture_collection(db, "other", DIM, VEX_METRIC_L2);
    fill(collection);
    pthread_t writer;
    assert_int_equal(pthread_create(&writer, NULL, write_elsewhere, other), 0);
    bool reported = false;
    int code = run_quietly(fixture, read_many_times, &reported);
    void *failed = NULL;
    assert_int_equal(pthread_join(writer, &failed), 0);
    vex_collection_close(other);
    vex_collection_close(collection);
    vex_close(db);
    assert_null(failed);
    assert_int_equal(code, 0);
    assert_true(reported);
}

static bool filters_are_allowed(void)
{
    pid_t child = vex_fixture_fork();
    if (child == 0) {
        end_with(forbid_system_calls(STDOUT_FILENO) ? 0 : EXIT_SKIPPED);
    }
    return vex_fixture_await(child, 10000) == 0;
}

int main(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    printf("skipped: a sanitizer makes system calls of its own\n");
    return EXIT_SKIPPED;
#endif
    if (!filters_are_allowed()) {
        printf("skipped: this kernel or sandbox refuses seccomp filters\n");
        return EXIT_SKIPPED;
    }
    const struct CMUnitTest tests[] = {
        with_daemon(a_system_call_is_noticed),
        with_daemon(a_read_makes_no_system_call),
        with_daemon(a_walk_makes_no_system_call),
        with_daemon(a_read_makes_no_system_call_while_others_write),
    };
    return run_cases("no system call", tests);
}
