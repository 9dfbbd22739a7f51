/*
 * vexbench start: how long the daemon takes from nothing to its first answer, beside what the disk
 * needs to hand over as many bytes.
 *
 * A round ends the daemon, drops its files from the page cache, starts it again and waits for its
 * word that it is ready, then for a first search. It is started here and not through vex_open, so
 * that the clock runs from exec and the library's own way of starting it is not in the figure; the
 * program is the one that the library found. Then the same number of bytes is read from another
 * file on the same disk, at once and one block after the other. Rounds follow one another and
 * medians are printed, since disks change their pace.
 *
 * With --kill the daemon ends by SIGKILL, just after the last acknowledgement. What it then finds
 * differs from what it would leave behind by itself, and a second kill would find something else
 * again; so each of these rounds has an instance of its own.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <vex/vex.h>

#include "tests/bench/bench.h"
#include "tests/bench/common.h"
#include "tests/bench/instance.h"
#include "tests/bench/reads.h"
#include "tests/bench/space.h"

#define COLLECTION "start"
#define K 10u
#define IDLE_TIMEOUT_WORD "--idle-timeout-ms=20000"
#define END_POLL_NS 2000000
#define END_POLLS_MAX 15000

enum { ROWS, DIM, ROUNDS, KILL, INSTANCE, DIR };

static const struct vex_bench_option options[] = {
    [ROWS] = {"rows", VEX_BENCH_COUNT, "N", "1000000", 1, 1e9, "vectors in the instance"},
    [DIM] = {"dim", VEX_BENCH_COUNT, "D", "128", 1, VEX_DIM_MAX, "their dimension"},
    [ROUNDS] = {"rounds", VEX_BENCH_COUNT, "N", "3", 1, 1000, "rounds"},
    [KILL] = {"kill", VEX_BENCH_FLAG, NULL, NULL, 0, 0,
              "kill the daemon after the import instead of stopping it"},
    [INSTANCE] = {"instance", VEX_BENCH_TEXT, "DIR", NULL, 0, 0,
                  "take this instance instead of making one; it is stopped and started, and stays"},
    [DIR] = VEX_BENCH_OPTION_DIR,
    {0},
};

static const unsigned depths[] = {VEX_READS_DEPTH_MAX, 1};
#define DEPTHS (sizeof depths / sizeof *depths)

struct start {
    const struct vex_bench_value *values;
    struct vex_instance instance;
    char program[PATH_MAX];              /* vexd's */
    char collection[VEX_NAME_MAX + 1];   /* that is searched */
    struct vex_collection_info contents; /* of it */
    struct vex_reads reads;
    bool killed;                /* the last daemon was, and none has started since */
    pid_t child;                /* the daemon, if it was started here; 0 = it was not */
    struct vex_samples stop_s;  /* until the process has ended */
    struct vex_samples ready_s; /* since exec */
    struct vex_samples answer_s;
    struct vex_samples cpu_s; /* the daemon's, until it is ready */
    struct vex_samples read_bytes;
    struct vex_samples replayed;
    struct vex_samples disk_rates[DEPTHS]; /* bytes a second */
    struct vex_samples limits;
    struct vex_samples ratios;
    uint64_t disk_bytes;
};

/* ---- the end of a daemon --------------------------------------------------------------------- */

/* The lock goes with the process; by then nothing of it is left to wait for. */
static bool await_end(struct start *start)
{
    if (start->child > 0) {
        (void)waitpid(start->child, NULL, 0);
        start->child = 0;
    }
    char path[PATH_MAX + 16];
    (void)snprintf(path, sizeof(path), "%s/LOCK", start->instance.directory);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        return vex_bench_fail("%s: %s", path, strerror(errno));
    }
    bool free = false;
    for (int i = 0; i < END_POLLS_MAX && !free && !vex_bench_stopped(); i++) {
        free = flock(fd, LOCK_EX | LOCK_NB) == 0;
        if (!free) {
            (void)nanosleep(&(struct timespec){0, END_POLL_NS}, NULL);
        }
    }
    (void)close(fd);
    return free || vex_bench_stopped() || vex_bench_fail("vexd has not ended: %s is held", path);
}

static bool end_daemon(struct start *start, bool by_kill)
{
    uint64_t start_ns = vex_bench_clock_ns();
    if (by_kill) {
        if (kill((pid_t)start->instance.daemon_pid, SIGKILL) != 0) {
            return vex_bench_fail("kill vexd: %s", strerror(errno));
        }
        start->killed = true;
        vex_close(start->instance.db);
        start->instance.db = NULL;
    } else if (!vex_instance_stop(&start->instance)) {
        return false;
    }
    if (!await_end(start)) {
        return false;
    }
    vex_samples_add(&start->stop_s, (double)(vex_bench_clock_ns() - start_ns) * 1e-9);
    return true;
}

/* ---- its beginning --------------------------------------------------------------------------- */

static bool find_program(struct start *start)
{
    char link[64];
    (void)snprintf(link, sizeof(link), "/proc/%u/exe", start->instance.daemon_pid);
    ssize_t length = readlink(link, start->program, sizeof(start->program) - 1);
    if (length < 0) {
        return vex_bench_fail("find vexd: %s: %s", link, strerror(errno));
    }
    start->program[length] = 0;
    return true;
}

/* In the child: only async-signal-safe calls. */
static _Noreturn void become_daemon(char *const *words, int ready_fd)
{
    (void)setsid(); /* Ctrl-C is for us: we stop it in order */
    int null = open("/dev/null", O_RDWR);
    (void)dup2(null, STDIN_FILENO);
    (void)dup2(null, STDOUT_FILENO);
    (void)dup2(null, STDERR_FILENO);
    (void)fcntl(ready_fd, F_SETFD, 0);
    (void)execv(words[0], words);
    static const char failed[] = "vexd could not be executed\n";
    (void)!write(ready_fd, failed, sizeof(failed) - 1);
    _exit(127);
}

static bool await_ready(int fd)
{
    char line[512];
    size_t bytes = 0;
    ssize_t got;
    while (bytes < sizeof(line) - 1 && (bytes == 0 || line[bytes - 1] != '\n')) {
        got = read(fd, line + bytes, sizeof(line) - 1 - bytes);
        if (got == 0 || (got < 0 && errno != EINTR)) {
            break;
        }
        bytes += got > 0 ? (size_t)got : 0;
    }
    line[bytes] = 0;
    line[strcspn(line, "\n")] = 0;
    return strcmp(line, "ready") == 0 ||
           vex_bench_fail("vexd did not start: %s", bytes ? line : "it ended without a word");
}

/* False with `child` set if it runs but is not ready. */
static bool launch(struct start *start)
{
    char dir_word[PATH_MAX + 16];
    char ready_word[32];
    char embedded_word[] = "--embedded";
    char idle_word[] = IDLE_TIMEOUT_WORD;
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0) {
        return vex_bench_fail("pipe: %s", strerror(errno));
    }
    (void)snprintf(dir_word, sizeof(dir_word), "--dir=%s", start->instance.directory);
    (void)snprintf(ready_word, sizeof(ready_word), "--ready-fd=%d", fds[1]);
    char *words[] = {start->program, dir_word, embedded_word, idle_word, ready_word, NULL};
    start->child = fork();
    if (start->child == 0) {
        become_daemon(words, fds[1]);
    }
    (void)close(fds[1]);
    bool ready =
        start->child > 0 ? await_ready(fds[0]) : vex_bench_fail("start vexd: %s", strerror(errno));
    (void)close(fds[0]);
    return ready;
}

static bool connect_to_child(struct start *start)
{
    struct vex_open_options open_options = VEX_OPEN_OPTIONS_INIT;
    open_options.no_spawn = true;
    struct vex_error error;
    return vex_open(start->instance.directory, &open_options, &start->instance.db, &error) ==
               VEX_OK ||
           vex_bench_fail("open %s: %s", start->instance.directory, error.message);
}

static bool search_once(struct start *start)
{
    uint64_t ids[K];
    float distances[K];
    uint32_t found = 0;
    uint64_t seed = 2;
    float *query = vex_bench_alloc(start->contents.dim, sizeof(*query));
    vex_data_fill(query, start->contents.dim, &seed);
    struct vex_search_options search = VEX_SEARCH_OPTIONS_INIT;
    search.k = K;
    struct vex_results results = {
        .size = sizeof(results), .ids = ids, .distances = distances, .counts = &found};
    struct vex_collection *collection = NULL;
    struct vex_error error;
    bool sound =
        vex_collection_open(start->instance.db, start->collection, &collection, &error) == VEX_OK &&
        vex_search(collection, query, 1, start->contents.dim, &search, &results, NULL, &error) ==
            VEX_OK;
    uint64_t expected = start->contents.count < K ? start->contents.count : K;
    if (!sound) {
        (void)vex_bench_fail("search %s: %s", start->collection, error.message);
    } else if (found != expected) {
        sound = vex_bench_fail("search %s: %u hits after the start, not %llu", start->collection,
                               found, (unsigned long long)expected);
    }
    vex_collection_close(collection);
    free(query);
    return sound;
}

static bool measure_start(struct start *start)
{
    if (!vex_space_drop_cache(start->instance.directory)) {
        return false;
    }
    uint64_t start_ns = vex_bench_clock_ns();
    bool sound = launch(start);
    uint64_t ready_ns = vex_bench_clock_ns();
    if (!sound) {
        return false;
    }
    start->killed = false;
    start->instance.daemon_pid = (uint32_t)start->child;
    vex_samples_add(&start->cpu_s, vex_instance_daemon_seconds(&start->instance));
    uint64_t bytes = vex_process_io(start->instance.daemon_pid).read_bytes;
    /* Not what was asked of the daemon, but it costs microseconds. */
    if (!connect_to_child(start) || !search_once(start)) {
        return false;
    }
    uint64_t answer_ns = vex_bench_clock_ns();
    struct vex_stats stats;
    if (!vex_instance_stats(&start->instance, &stats)) {
        return false;
    }
    vex_samples_add(&start->ready_s, (double)(ready_ns - start_ns) * 1e-9);
    vex_samples_add(&start->answer_s, (double)(answer_ns - start_ns) * 1e-9);
    vex_samples_add(&start->read_bytes, (double)bytes);
    vex_samples_add(&start->replayed, (double)stats.replayed);
    return true;
}

/* ---- rounds ---------------------------------------------------------------------------------- */

/*
 * As many bytes as the daemon read in this round. What is read second may find the blocks in some
 * cache below this system, so the two change places; the better one is the limit.
 */
static bool measure_disk(struct start *start)
{
    size_t round = start->ready_s.count - 1;
    double bytes = start->read_bytes.values[round];
    double rates[DEPTHS] = {0};
    for (size_t i = 0; i < DEPTHS; i++) {
        size_t which = round % 2 == 0 ? i : DEPTHS - 1 - i;
        if (!vex_reads_measure(&start->reads, depths[which], (uint64_t)bytes, &rates[which])) {
            return false;
        }
        vex_samples_add(&start->disk_rates[which], rates[which]);
    }
    double limit = fmax(rates[0], rates[1]);
    vex_samples_add(&start->limits, limit);
    vex_samples_add(&start->ratios, bytes / start->ready_s.values[round] / limit);
    return true;
}

static bool fill(struct start *start)
{
    struct vex_collection *collection = NULL;
    uint64_t seed = 1;
    (void)snprintf(start->collection, sizeof(start->collection), COLLECTION);
    uint32_t dim = (uint32_t)start->values[DIM].count;
    bool sound =
        vex_instance_collection(start->instance.db, COLLECTION, dim, VEX_METRIC_L2, &collection) &&
        vex_instance_fill(collection, dim, start->values[ROWS].count, &seed);
    vex_collection_close(collection);
    return sound;
}

/* Of a taken instance: the first of its collections that has something in it. */
static bool choose_collection(struct start *start)
{
    size_t count = 0;
    struct vex_error error;
    if (vex_collection_list(start->instance.db, NULL, 0, &count, &error) != VEX_OK) {
        return vex_bench_fail("list the collections: %s", error.message);
    }
    struct vex_collection_info *infos = vex_bench_alloc(count, sizeof(*infos));
    for (size_t i = 0; i < count; i++) {
        infos[i].size = sizeof(infos[i]);
    }
    size_t found = 0;
    bool sound = vex_collection_list(start->instance.db, infos, count, &found, &error) == VEX_OK ||
                 vex_bench_fail("list the collections: %s", error.message);
    for (size_t i = 0; sound && i < count && i < found && !start->collection[0]; i++) {
        if (infos[i].count > 0) {
            (void)snprintf(start->collection, sizeof(start->collection), "%s", infos[i].name);
        }
    }
    free(infos);
    return sound && (start->collection[0] ||
                     vex_bench_fail("%s holds no vectors", start->instance.directory));
}

static bool describe(struct start *start)
{
    struct vex_collection *collection = NULL;
    struct vex_error error;
    start->contents = (struct vex_collection_info){.size = sizeof(start->contents)};
    bool sound = (vex_collection_open(start->instance.db, start->collection, &collection, &error) ==
                      VEX_OK &&
                  vex_collection_describe(collection, &start->contents, &error) == VEX_OK) ||
                 vex_bench_fail("collection %s: %s", start->collection, error.message);
    vex_collection_close(collection);
    return sound;
}

static bool prepare(struct start *start)
{
    const struct vex_bench_value *taken = &start->values[INSTANCE];
    bool sound = taken->given
                     ? vex_instance_take(&start->instance, &start->values[DIR], taken->text) &&
                           choose_collection(start)
                     : vex_instance_open(&start->instance, &start->values[DIR]) && fill(start);
    if (sound && start->instance.in_memory) {
        return vex_bench_fail(
            "%s is in memory (%s): no start from there is cold; give a --dir on a "
            "disk",
            start->instance.root, start->instance.file_system);
    }
    return sound && describe(start) && find_program(start);
}

/* The daemon has ended: what it left is what the next one finds. */
static bool prepare_reads(struct start *start)
{
    start->disk_bytes = vex_space_disk_bytes(start->instance.directory);
    return vex_reads_open(&start->reads, start->instance.root, start->disk_bytes);
}

static void end_round(struct start *start)
{
    if (!start->instance.db && start->child > 0) {
        /* It did not get ready, or was not to be reached. */
        (void)kill(start->child, SIGKILL);
        start->killed = true;
        (void)await_end(start);
    }
    if (start->killed) {
        /* What it had in shared memory is given back by the next one alone. */
        (void)vex_instance_connect(&start->instance, &start->instance.db);
        start->killed = false;
    }
    (void)vex_instance_stop(&start->instance);
    if (start->child > 0) {
        (void)await_end(start);
    }
    vex_instance_close(&start->instance);
}

static bool run_killed(struct start *start)
{
    bool sound = prepare(start) && end_daemon(start, true) && prepare_reads(start) &&
                 measure_start(start) && measure_disk(start);
    end_round(start);
    return sound;
}

static bool run_rounds(struct start *start)
{
    uint64_t rounds = start->values[ROUNDS].count;
    bool by_kill = start->values[KILL].given;
    bool sound = by_kill || (prepare(start) && end_daemon(start, false) && prepare_reads(start));
    for (uint64_t round = 0; round < rounds && sound && !vex_bench_stopped(); round++) {
        vex_bench_note("round %llu of %llu", (unsigned long long)round + 1,
                       (unsigned long long)rounds);
        sound = by_kill ? run_killed(start)
                        : measure_start(start) && end_daemon(start, false) && measure_disk(start);
    }
    end_round(start);
    return sound && !vex_bench_stopped();
}

/* ---- the line -------------------------------------------------------------------------------- */

static bool print(struct start *start)
{
    double row_bytes = (double)start->contents.dim * sizeof(float);
    double read_bytes = vex_samples_median(&start->read_bytes);
    double limit = vex_samples_median(&start->limits);
    struct vex_line line;
    vex_line_begin(&line, start->values[KILL].given ? "after_kill" : "after_stop");
    vex_line_count(&line, "rows", start->contents.count);
    vex_line_count(&line, "dim", start->contents.dim);
    vex_line_real(&line, "vector_mib", (double)start->contents.count * row_bytes / 0x1p20);
    vex_line_real(&line, "disk_mib", (double)start->disk_bytes / 0x1p20);
    vex_line_count(&line, "rounds", start->ready_s.count);
    vex_line_real(&line, "stop_s", vex_samples_median(&start->stop_s));
    vex_line_spread(&line, "ready_s", &start->ready_s);
    vex_line_real(&line, "answer_s", vex_samples_median(&start->answer_s));
    vex_line_real(&line, "daemon_cpu_s", vex_samples_median(&start->cpu_s));
    vex_line_real(&line, "replayed", vex_samples_median(&start->replayed));
    vex_line_real(&line, "read_mib", read_bytes / 0x1p20);
    for (size_t i = 0; i < DEPTHS; i++) {
        char key[32];
        (void)snprintf(key, sizeof(key), "disk_gb_s_depth_%u", depths[i]);
        vex_line_real(&line, key, vex_samples_median(&start->disk_rates[i]) * 1e-9);
    }
    vex_line_real(&line, "limit_s", read_bytes / limit);
    vex_line_spread(&line, "ratio", &start->ratios);
    return vex_line_end(&line);
}

static bool run(const struct vex_bench_value *values)
{
    if (values[KILL].given && values[INSTANCE].given) {
        return vex_bench_fail("--kill makes an instance for each round: it does not go with "
                              "--instance");
    }
    struct start *start = vex_bench_alloc(1, sizeof(*start));
    start->values = values;
    bool measured = run_rounds(start) && print(start);
    struct vex_samples *samples[] = {
        &start->stop_s,   &start->ready_s,    &start->answer_s,      &start->cpu_s,
        &start->replayed, &start->read_bytes, &start->disk_rates[0], &start->disk_rates[1],
        &start->limits,   &start->ratios,
    };
    for (size_t i = 0; i < sizeof(samples) / sizeof(samples[0]); i++) {
        vex_samples_deinit(samples[i]);
    }
    free(start);
    return measured;
}

const struct vex_bench vex_bench_start = {
    "start",
    "a cold start beside the disk's own rate",
    options,
    run,
};
