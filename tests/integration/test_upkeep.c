/*
 * Checkpoints, compaction, erasure and backups on request, through the library and with a real daemon: what is
 * in the instance stays the same, also after a restart; what was given up is given back; what was to be erased
 * is in no file; and a backup that was made while others wrote is the state at exactly the LSN it tells.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/integration/check.h"

#define DIM 64u
#define BATCH 500u

static struct vex_stats stats_of(struct vex_db *db)
{
    struct vex_stats stats = {.size = sizeof(stats)};
    assert_ok(vex_get_stats(db, &stats, sink));
    return stats;
}

/* A vector and a payload that belong to id and version, and to nothing else. */
static void make_row(uint64_t id, uint64_t version, float vector[DIM], char payload[64])
{
    for (uint32_t i = 0; i < DIM; i++) {
        vector[i] = (float)id + (float)version * 0.25f + (float)i * 1000.0f;
    }
    (void)snprintf(payload, 64, "id %llu, version %llu", (unsigned long long)id,
                   (unsigned long long)version);
}

static void put_rows(struct vex_collection *collection, uint64_t first, uint64_t count,
                     uint64_t version)
{
    static float vectors[BATCH][DIM];
    static char payloads[BATCH][64];
    static uint64_t ids[BATCH];
    static const void *payload[BATCH];
    static size_t payload_bytes[BATCH];
    for (uint64_t at = 0; at < count; at += BATCH) {
        size_t some = count - at < BATCH ? count - at : BATCH;
        for (size_t i = 0; i < some; i++) {
            ids[i] = first + at + i;
            make_row(ids[i], version, vectors[i], payloads[i]);
            payload[i] = payloads[i];
            payload_bytes[i] = strlen(payloads[i]);
        }
        struct vex_batch batch = {sizeof(batch), some,    ids,          vectors[0],
                                  DIM,           payload, payload_bytes};
        assert_ok(vex_write(collection, VEX_WRITE_UPSERT, &batch, NULL, sink));
    }
}

static void delete_rows(struct vex_collection *collection, uint64_t first, uint64_t count)
{
    static uint64_t ids[BATCH];
    for (uint64_t at = 0; at < count; at += BATCH) {
        size_t some = count - at < BATCH ? count - at : BATCH;
        for (size_t i = 0; i < some; i++) {
            ids[i] = first + at + i;
        }
        struct vex_batch batch = VEX_BATCH_INIT;
        batch.ids = ids;
        batch.count = some;
        assert_ok(vex_write(collection, VEX_WRITE_DELETE, &batch, NULL, sink));
    }
}

static void assert_row(struct vex_collection *collection, uint64_t id, uint64_t version)
{
    float vector[DIM];
    char payload[64];
    make_row(id, version, vector, payload);
    assert_holds(collection, id, vector, DIM, payload, strlen(payload));
}

/* ---- checkpoint ------------------------------------------------------------------------------ */

static void a_checkpoint_leaves_the_next_start_nothing_to_replay(void **state)
{
    struct vex_fixture *fixture = *state;
    struct vex_db *db = vex_fixture_open(fixture);
    struct vex_collection *rows = vex_fixture_collection(db, "rows", DIM, VEX_METRIC_L2);
    put_rows(rows, 0, 3000, 1);
    put_rows(rows, 1000, 500, 2);
    delete_rows(rows, 0, 100);
    uint64_t lsn = stats_of(db).lsn;
    struct vex_upkeep_info info = VEX_UPKEEP_INFO_INIT;
    assert_ok(vex_checkpoint(db, &info, sink));
    assert_int_equal(info.lsn, lsn);
    struct vex_stats stats = stats_of(db);
    assert_int_equal(stats.checkpoint_lsn, lsn);
    assert_true(stats.segment_files > 0 && stats.segment_bytes > 2900 * DIM * sizeof(float));
    put_rows(rows, 7000, 1, 3); /* behind it */
    vex_collection_close(rows);
    vex_close(db);
    assert_int_equal(vex_fixture_kill(fixture), -SIGKILL);
    vex_fixture_start(fixture, NULL);
    db = vex_fixture_open(fixture);
    rows = vex_fixture_collection(db, "rows", DIM, VEX_METRIC_L2);
    assert_int_equal(stats_of(db).replayed, 1);
    assert_int_equal(count_of(rows), 2901);
    for (uint64_t id = 100; id < 3000; id += 7) {
        assert_row(rows, id, id >= 1000 && id < 1500 ? 2 : 1);
    }
    assert_row(rows, 7000, 3);
    assert_false(exists_in(rows, 99));
    vex_collection_close(rows);
    vex_close(db);
}

/* ---- compaction ------------------------------------------------------------------------------ */

static uint64_t tree_bytes;

static int add_bytes(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    (void)path;
    (void)where;
    tree_bytes += kind == FTW_F ? (uint64_t)info->st_blocks * 512 : 0;
    return 0;
}

static uint64_t disk_usage(const char *directory)
{
    tree_bytes = 0;
    assert_int_equal(nftw(directory, add_bytes, 16, FTW_PHYS), 0);
    return tree_bytes;
}

static void compaction_gives_disk_and_memory_back(void **state)
{
    struct vex_fixture *fixture = *state;
    struct vex_db *db = vex_fixture_open(fixture);
    struct vex_collection *rows = vex_fixture_collection(db, "rows", DIM, VEX_METRIC_L2);
    struct vex_collection *others = vex_fixture_collection(db, "others", DIM, VEX_METRIC_L2);
    put_rows(rows, 0, 40000, 1);
    put_rows(others, 0, 500, 1);
    assert_ok(vex_checkpoint(db, NULL, sink));
    struct vex_stats before = stats_of(db);
    uint64_t disk_before = disk_usage(fixture->directory);
    delete_rows(rows, 0, 38000);
    struct vex_upkeep_info info = VEX_UPKEEP_INFO_INIT;
    assert_ok(vex_compact(db, "rows", NULL, &info, sink));
    assert_int_equal(info.segments_after, 1);
    assert_int_equal(info.lsn, stats_of(db).lsn);
    struct vex_stats after = stats_of(db);
    uint64_t row_bytes = DIM * sizeof(float);
    assert_true(before.shm_bytes - after.shm_bytes > 30000 * row_bytes);
    assert_true(before.segment_bytes - after.segment_bytes > 30000 * row_bytes);
    assert_true(disk_usage(fixture->directory) + 30000 * row_bytes < disk_before);
    assert_int_equal(after.dead_rows, 0);
    assert_int_equal(after.live_rows, 2500);
    assert_true(after.merges > before.merges);
    for (int life = 0; life < 2; life++) {
        assert_int_equal(count_of(rows), 2000);
        for (uint64_t id = 38000; id < 40000; id += 13) {
            assert_row(rows, id, 1);
        }
        assert_row(others, 499, 1);
        vex_collection_close(rows);
        vex_collection_close(others);
        vex_close(db);
        assert_int_equal(vex_fixture_stop(fixture), 0);
        vex_fixture_start(fixture, NULL);
        db = vex_fixture_open(fixture);
        rows = vex_fixture_collection(db, "rows", DIM, VEX_METRIC_L2);
        others = vex_fixture_collection(db, "others", DIM, VEX_METRIC_L2);
    }
    vex_collection_close(rows);
    vex_collection_close(others);
    vex_close(db);
}

static void a_snapshot_outlives_the_compaction(void **state)
{
    struct vex_fixture *fixture = *state;
    struct vex_db *db = vex_fixture_open(fixture);
    struct vex_collection *rows = vex_fixture_collection(db, "rows", DIM, VEX_METRIC_L2);
    put_rows(rows, 0, 1000, 1);
    struct vex_snapshot *snapshot = NULL;
    assert_ok(vex_snapshot_open(rows, NULL, &snapshot, sink));
    delete_rows(rows, 0, 999);
    assert_ok(vex_compact(db, NULL, NULL, NULL, sink));
    assert_int_equal(count_of(rows), 1);
    struct vex_record record = {.size = sizeof(record)};
    float vector[DIM];
    char payload[64];
    for (uint64_t id = 0; id < 1000; id++) {
        make_row(id, 1, vector, payload);
        assert_ok(vex_snapshot_get(snapshot, id, &record, sink));
        assert_memory_equal(record.vector, vector, sizeof(vector));
        assert_memory_equal(record.payload, payload, record.payload_bytes);
    }
    vex_snapshot_close(snapshot);
    vex_collection_close(rows);
    vex_close(db);
}

/* ---- erasure --------------------------------------------------------------------------------- */

static const void *marker;
static size_t marker_bytes;
static unsigned marker_files;

static int look_for_marker(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    (void)where;
    if (kind != FTW_F || info->st_size == 0) {
        return 0;
    }
    size_t bytes = (size_t)info->st_size;
    char *content = test_malloc(bytes);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t used = 0;
    ssize_t got = 1;
    while (fd >= 0 && got > 0 && used < bytes) {
        got = read(fd, content + used, bytes - used);
        used += got > 0 ? (size_t)got : 0;
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    marker_files += memmem(content, used, marker, marker_bytes) != NULL;
    test_free(content);
    return 0;
}

static unsigned files_with(const char *directory, const void *what, size_t bytes)
{
    marker = what;
    marker_bytes = bytes;
    marker_files = 0;
    assert_int_equal(nftw(directory, look_for_marker, 16, FTW_PHYS), 0);
    return marker_files;
}

enum { DELETED, REPLACED, DROPPED, KEPT, SECRETS };

static const char *const secret_payloads[SECRETS] = {"deleted-3f1c8a", "replaced-77d0e4",
                                                     "dropped-b85a12", "kept-0c9e6f"};

/* 48 bytes that no other vector here has. */
static void make_secret(int number, float vector[DIM])
{
    for (uint32_t i = 0; i < DIM; i++) {
        vector[i] = (float)(number + 1) * 3.14159f + (float)i * 0.0271828f;
    }
}

static void put_secret(struct vex_collection *collection, int number)
{
    float vector[DIM];
    make_secret(number, vector);
    assert_ok(vex_upsert(collection, 1000000u + (unsigned)number, vector, DIM,
                         secret_payloads[number], strlen(secret_payloads[number]), NULL, sink));
}

static unsigned files_with_secret(const struct vex_fixture *fixture, int number)
{
    float vector[DIM];
    make_secret(number, vector);
    return files_with(fixture->directory, secret_payloads[number],
                      strlen(secret_payloads[number])) +
           files_with(fixture->directory, vector, 48);
}

static void erased_bytes_are_in_no_file(void **state)
{
    struct vex_fixture *fixture = *state;
    struct vex_db *db = vex_fixture_open(fixture);
    struct vex_collection *rows = vex_fixture_collection(db, "rows", DIM, VEX_METRIC_L2);
    struct vex_collection *gone = vex_fixture_collection(db, "gone", DIM, VEX_METRIC_L2);
    put_rows(rows, 0, 2000, 1);
    put_secret(rows, DELETED);
    put_secret(rows, REPLACED);
    put_secret(rows, KEPT);
    put_secret(gone, DROPPED);
    assert_ok(vex_checkpoint(db, NULL, sink)); /* in segment files as well as in the log */
    put_rows(rows, 2000, 2000, 1);
    assert_ok(vex_delete(rows, 1000000u + DELETED, NULL, sink));
    put_rows(rows, 1000000u + REPLACED, 1, 2);
    assert_ok(vex_collection_drop(db, "gone", sink));
    vex_collection_close(gone);
    for (int number = 0; number < SECRETS; number++) {
        assert_true(files_with_secret(fixture, number) >= 2);
    }
    struct vex_compact_options options = VEX_COMPACT_OPTIONS_INIT;
    options.erase = true;
    struct vex_upkeep_info info = VEX_UPKEEP_INFO_INIT;
    assert_ok(vex_compact(db, NULL, &options, &info, sink));
    for (int life = 0; life < 2; life++) {
        assert_int_equal(files_with_secret(fixture, DELETED), 0);
        assert_int_equal(files_with_secret(fixture, REPLACED), 0);
        assert_int_equal(files_with_secret(fixture, DROPPED), 0);
        assert_true(files_with_secret(fixture, KEPT) >= 2);
        assert_int_equal(count_of(rows), 4002);
        assert_row(rows, 1000000u + REPLACED, 2);
        assert_row(rows, 3999, 1);
        put_rows(rows, 5000, 1, 1); /* the log goes on */
        delete_rows(rows, 5000, 1);
        vex_collection_close(rows);
        vex_close(db);
        assert_int_equal(life ? vex_fixture_stop(fixture) : vex_fixture_kill(fixture),
                         life ? 0 : -SIGKILL);
        vex_fixture_start(fixture, NULL);
        db = vex_fixture_open(fixture);
        rows = vex_fixture_collection(db, "rows", DIM, VEX_METRIC_L2);
    }
    vex_collection_close(rows);
    vex_close(db);
}

/* ---- backup ---------------------------------------------------------------------------------- */

static void restore(const char *backup, const char *directory)
{
    pid_t child = vex_fixture_fork();
    if (child == 0) {
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
        (void)dup2(null, STDOUT_FILENO);
        (void)execl(vex_fixture_vexd(), "vexd", "--restore", backup, "--dir", directory,
                    (char *)NULL);
        _exit(127);
    }
    assert_int_equal(vex_fixture_await(child, 60000), 0);
}

#define WRITERS 3
#define WRITER_IDS 60u
#define STEPS_MAX 100000u

struct step {
    uint64_t lsn;
    uint64_t id;
    uint64_t version; /* 0 = deleted */
};

struct writer {
    struct vex_collection *collection;
    uint64_t first_id;
    atomic_bool *stop;
    struct step *steps;
    size_t steps_count;
    enum vex_status status;
};

/* Upserts, and every fifth time a delete of what was written four steps before. */
static void *write_on(void *argument)
{
    struct writer *writer = argument;
    float vector[DIM];
    char payload[64];
    /* relaxed: only ends the loop. */
    while (writer->status == VEX_OK && writer->steps_count < STEPS_MAX &&
           !atomic_load_explicit(writer->stop, memory_order_relaxed)) {
        uint64_t number = writer->steps_count;
        struct step step = {.id = writer->first_id + number % WRITER_IDS, .version = number + 1};
        struct vex_ack ack = VEX_ACK_INIT;
        if (number % 5 == 4) {
            step.id = writer->steps[number - 4].id;
            step.version = 0;
            writer->status = vex_delete(writer->collection, step.id, &ack, NULL);
        } else {
            make_row(step.id, step.version, vector, payload);
            writer->status = vex_upsert(writer->collection, step.id, vector, DIM, payload,
                                        strlen(payload), &ack, NULL);
        }
        step.lsn = ack.lsn;
        writer->steps[writer->steps_count++] = step;
    }
    return NULL;
}

static void assert_state_at(struct vex_collection *collection, const struct writer *writer,
                            uint64_t lsn)
{
    uint64_t versions[WRITER_IDS] = {0};
    for (size_t i = 0; i < writer->steps_count && writer->steps[i].lsn <= lsn; i++) {
        versions[writer->steps[i].id - writer->first_id] = writer->steps[i].version;
    }
    for (uint64_t i = 0; i < WRITER_IDS; i++) {
        if (versions[i]) {
            assert_row(collection, writer->first_id + i, versions[i]);
        } else {
            assert_false(exists_in(collection, writer->first_id + i));
        }
    }
}

#define BACKUPS 4
#define STEPS_BETWEEN 150u /* written before the next backup is asked for */

static void check_restored(const char *backup, uint64_t lsn, const struct writer *writers)
{
    struct vex_fixture restored;
    vex_fixture_init(&restored);
    restore(backup, restored.directory);
    vex_fixture_start(&restored, NULL);
    struct vex_db *db = vex_fixture_open(&restored);
    assert_int_equal(stats_of(db).lsn, lsn);
    struct vex_collection *rows = vex_fixture_collection(db, "rows", DIM, VEX_METRIC_L2);
    for (int i = 0; i < WRITERS; i++) {
        assert_state_at(rows, &writers[i], lsn);
    }
    put_rows(rows, 777777, 1, 1); /* it is a whole instance */
    assert_int_equal(stats_of(db).lsn, lsn + 1);
    vex_collection_close(rows);
    vex_close(db);
    assert_int_equal(vex_fixture_deinit(&restored), 0);
}

static void a_backup_is_the_state_at_its_lsn(void **state)
{
    struct vex_fixture *fixture = *state;
    struct vex_db *db = vex_fixture_open(fixture);
    struct vex_collection *rows = vex_fixture_collection(db, "rows", DIM, VEX_METRIC_L2);
    atomic_bool stop = false;
    struct writer writers[WRITERS] = {0};
    pthread_t threads[WRITERS];
    for (int i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){
            .collection = rows,
            .first_id = 1000u * (unsigned)i,
            .stop = &stop,
            .steps = test_malloc(STEPS_MAX * sizeof(struct step)),
        };
        assert_int_equal(pthread_create(&threads[i], NULL, write_on, &writers[i]), 0);
    }
    char paths[BACKUPS][VEX_FIXTURE_PATH_MAX + 32];
    struct vex_upkeep_info infos[BACKUPS];
    for (int i = 0; i < BACKUPS; i++) {
        assert_ok(vex_wait(db, stats_of(db).lsn + STEPS_BETWEEN, 60000, sink));
        infos[i] = (struct vex_upkeep_info)VEX_UPKEEP_INFO_INIT;
        (void)snprintf(paths[i], sizeof(paths[i]), "%s/backup-%d", fixture->root.path, i);
        uint64_t before = stats_of(db).lsn;
        assert_ok(vex_backup(db, paths[i], &infos[i], sink));
        assert_true(infos[i].lsn >= before);
        assert_true(infos[i].bytes > 0);
        if (i % 2) {
            assert_ok(vex_compact(db, NULL, NULL, NULL, sink));
        }
    }
    /* relaxed: only ends the loops. */
    atomic_store_explicit(&stop, true, memory_order_relaxed);
    for (int i = 0; i < WRITERS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(writers[i].status, VEX_OK);
        assert_true(writers[i].steps_count > 0);
    }
    uint64_t last = stats_of(db).lsn;
    assert_true(infos[0].lsn < infos[BACKUPS - 1].lsn && infos[BACKUPS - 1].lsn <= last);
    for (int i = 0; i < WRITERS; i++) {
        assert_state_at(rows, &writers[i], last);
    }
    vex_collection_close(rows);
    vex_close(db);
    /* The instance goes on without its newest state: only the backups count. */
    for (int i = 0; i < BACKUPS; i++) {
        check_restored(paths[i], infos[i].lsn, writers);
    }
    for (int i = 0; i < WRITERS; i++) {
        test_free(writers[i].steps);
    }
}

static void a_backup_appears_where_it_was_asked_for(void **state)
{
    struct vex_fixture *fixture = *state;
    struct vex_db *db = vex_fixture_open(fixture);
    struct vex_collection *rows = vex_fixture_collection(db, "rows", DIM, VEX_METRIC_L2);
    put_rows(rows, 0, 10, 1);
    char here[PATH_MAX];
    struct stat info;
    assert_non_null(getcwd(here, sizeof(here)));
    assert_int_equal(chdir(fixture->root.path), 0);
    assert_ok(vex_backup(db, "relative/", NULL, sink));
    assert_int_equal(stat("relative/MANIFEST", &info), 0);
    assert_refused(vex_backup(db, "./relative", NULL, sink), VEX_ERR_EXISTS, "relative");
    assert_int_equal(chdir(here), 0);
    assert_refused(vex_backup(db, NULL, NULL, sink), VEX_ERR_INVALID, "path");
    assert_refused(vex_backup(db, "", NULL, sink), VEX_ERR_INVALID, "path");
    static char far[2000];
    memset(far, 'x', sizeof(far) - 1);
    assert_refused(vex_backup(db, far, NULL, sink), VEX_ERR_INVALID, "bytes");
    char missing[VEX_FIXTURE_PATH_MAX + 32];
    (void)snprintf(missing, sizeof(missing), "%s/not/there", fixture->root.path);
    struct vex_error error = {0};
    assert_int_not_equal(vex_backup(db, missing, NULL, &error), VEX_OK);
    assert_non_null(strstr(error.message, "not/there"));
    assert_row(rows, 9, 1);
    vex_collection_close(rows);
    vex_close(db);
}

/* ---- requests -------------------------------------------------------------------------------- */

static void wrong_requests_change_nothing(void **state)
{
    struct vex_fixture *fixture = *state;
    struct vex_db *db = vex_fixture_open(fixture);
    struct vex_upkeep_info small = {.size = sizeof(small) - 8};
    struct vex_compact_options options = {.size = 1};
    uint64_t before = stats_of(db).checkpoints;
    assert_refused(vex_checkpoint(NULL, NULL, sink), VEX_ERR_INVALID, "NULL");
    assert_refused(vex_checkpoint(db, &small, sink), VEX_ERR_INVALID, "size");
    assert_refused(vex_compact(db, NULL, NULL, &small, sink), VEX_ERR_INVALID, "size");
    assert_refused(vex_compact(db, NULL, &options, NULL, sink), VEX_ERR_INVALID, "size");
    assert_refused(vex_compact(db, "none", NULL, NULL, sink), VEX_ERR_NO_COLLECTION, "none");
    assert_refused(vex_compact(db, "", NULL, NULL, sink), VEX_ERR_NO_COLLECTION, "''");
    char name[VEX_NAME_MAX + 2];
    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = 0;
    assert_refused(vex_compact(db, name, NULL, NULL, sink), VEX_ERR_NO_COLLECTION, "nnn");
    assert_refused(vex_backup(db, "/tmp/unused", &small, sink), VEX_ERR_INVALID, "size");
    assert_int_equal(stats_of(db).checkpoints, before);
    vex_close(db);
}

static void *ask_for_a_checkpoint(void *argument)
{
    static _Thread_local struct vex_error error;
    return (void *)(intptr_t)vex_checkpoint(argument, NULL, &error);
}

static void requests_of_several_threads_are_all_carried_out(void **state)
{
    struct vex_fixture *fixture = *state;
    struct vex_db *db = vex_fixture_open(fixture);
    struct vex_collection *rows = vex_fixture_collection(db, "rows", DIM, VEX_METRIC_L2);
    put_rows(rows, 0, 1000, 1);
    pthread_t threads[8];
    uint64_t before = stats_of(db).checkpoints;
    for (size_t i = 0; i < 8; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, ask_for_a_checkpoint, db), 0);
    }
    for (size_t i = 0; i < 8; i++) {
        void *result = NULL;
        assert_int_equal(pthread_join(threads[i], &result), 0);
        assert_int_equal((intptr_t)result, VEX_OK);
    }
    assert_true(stats_of(db).checkpoints >= before + 8);
    vex_collection_close(rows);
    vex_close(db);
}

static void a_lost_answer_is_an_unknown_outcome(void **state)
{
    struct vex_fixture *fixture = *state;
    struct vex_db *db = vex_fixture_open(fixture);
    assert_int_equal(kill(fixture->daemon, SIGSTOP), 0);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, ask_for_a_checkpoint, db), 0);
    vex_fixture_pause_ms(200); /* for the request to be on its way */
    assert_int_equal(vex_fixture_kill(fixture), -SIGKILL);
    void *result = NULL;
    assert_int_equal(pthread_join(thread, &result), 0);
    assert_int_equal((intptr_t)result, VEX_ERR_UNKNOWN_OUTCOME);
    assert_refused(vex_checkpoint(db, NULL, sink), VEX_ERR_UNAVAILABLE, "");
    vex_close(db);
}

static void paths_are_told(void **state)
{
    struct vex_fixture *fixture = *state;
    char path[PATH_MAX];
    char here[PATH_MAX];
    assert_ok(vex_find_vexd(NULL, path, sizeof(path), sink));
    assert_string_equal(path, vex_fixture_vexd());
    assert_refused(vex_find_vexd("/no/vexd", path, sizeof(path), sink), VEX_ERR_UNAVAILABLE,
                   "/no/vexd");
    assert_refused(vex_find_vexd(NULL, path, 3, sink), VEX_ERR_BUFFER, "bytes");
    assert_refused(vex_find_vexd(NULL, NULL, 0, sink), VEX_ERR_INVALID, "NULL");
    assert_ok(vex_find_directory(fixture->directory, path, sizeof(path), sink));
    assert_string_equal(path, fixture->directory);
    assert_non_null(getcwd(here, sizeof(here)));
    assert_ok(vex_find_directory("some/where", path, sizeof(path), sink));
    assert_memory_equal(path, here, strlen(here));
    assert_string_equal(path + strlen(here), "/some/where");
    assert_refused(vex_find_directory("", path, sizeof(path), sink), VEX_ERR_INVALID, "empty");
    assert_refused(vex_find_directory("/a/b", path, 4, sink), VEX_ERR_BUFFER, "5 bytes");
    assert_refused(vex_find_directory("/a/b", NULL, 0, sink), VEX_ERR_INVALID, "NULL");
    struct stat info;
    assert_int_equal(stat("some", &info), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_daemon(a_checkpoint_leaves_the_next_start_nothing_to_replay),
        with_daemon(compaction_gives_disk_and_memory_back),
        with_daemon(a_snapshot_outlives_the_compaction),
        with_daemon(erased_bytes_are_in_no_file),
        with_daemon(a_backup_is_the_state_at_its_lsn),
        with_daemon(a_backup_appears_where_it_was_asked_for),
        with_daemon(wrong_requests_change_nothing),
        with_daemon(requests_of_several_threads_are_all_carried_out),
        with_daemon(a_lost_answer_is_an_unknown_outcome),
        with_directory(paths_are_told),
    };
    return run_cases("upkeep", tests);
}
