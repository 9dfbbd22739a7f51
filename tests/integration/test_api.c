/*
 * The library itself, instances and collections: every function of vex.h that is not a read or a
 * write of vectors, each documented refusal, and that a refusal changes nothing.
 */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/integration/check.h"

/* ---- library --------------------------------------------------------------------------------- */

static void the_version_is_the_one_of_the_header(void **state)
{
    (void)state;
    char expected[32];
    (void)snprintf(expected, sizeof(expected), "%d.%d.%d", VEX_VERSION_MAJOR, VEX_VERSION_MINOR,
                   VEX_VERSION_PATCH);
    assert_string_equal(vex_version(), expected);
}

static void every_status_has_its_name_and_text(void **state)
{
    (void)state;
#define CHECK(name, number, text)                                                                  \
    assert_int_equal(VEX_##name, number);                                                          \
    assert_string_equal(vex_status_name(VEX_##name), "VEX_" #name);                                \
    assert_string_equal(vex_status_text(VEX_##name), text);
    VEX_STATUS_TABLE(CHECK)
#undef CHECK
    assert_non_null(vex_status_name((enum vex_status)9999));
    assert_non_null(vex_status_text((enum vex_status)9999));
    assert_non_null(vex_status_text((enum vex_status) - 1));
}

static void metrics_and_kernels_have_names(void **state)
{
    (void)state;
    assert_string_equal(vex_metric_name(VEX_METRIC_L2), "l2");
    assert_string_equal(vex_metric_name(VEX_METRIC_COSINE), "cosine");
    assert_string_equal(vex_metric_name(VEX_METRIC_DOT), "dot");
    assert_string_equal(vex_metric_name((enum vex_metric)0), "unknown");
    const char *isa = vex_isa_name();
    assert_true(strcmp(isa, "scalar") == 0 || strcmp(isa, "avx2") == 0 ||
                strcmp(isa, "avx512") == 0 || strcmp(isa, "avx512vnni") == 0);
    assert_string_equal(vex_index_name(VEX_INDEX_AUTO), "auto");
    assert_string_equal(vex_index_name(VEX_INDEX_FLAT), "flat");
    assert_string_equal(vex_index_name(VEX_INDEX_HNSW), "hnsw");
    assert_string_equal(vex_index_name(VEX_INDEX_IVF), "ivf");
    assert_string_equal(vex_index_name((enum vex_index_kind)4), "unknown");
    assert_string_equal(vex_storage_name(VEX_STORAGE_FLOAT32), "float32");
    assert_string_equal(vex_storage_name(VEX_STORAGE_FLOAT16), "float16");
    assert_string_equal(vex_storage_name(VEX_STORAGE_INT8), "int8");
    assert_string_equal(vex_storage_name((enum vex_storage)3), "unknown");
}

/* ---- opening --------------------------------------------------------------------------------- */

static void open_refuses_bad_arguments(void **state)
{
    struct vex_fixture *fixture = *state;
    struct vex_open_options options = vex_fixture_open_options();
    struct vex_db *const untouched = (void *)fixture;
    struct vex_db *db = untouched;
    assert_refused(vex_open(fixture->directory, &options, NULL, sink), VEX_ERR_INVALID, "out_db");
    assert_refused(vex_open("", &options, &db, sink), VEX_ERR_INVALID, "directory");
    assert_null(db);
    for (int i = 0; i < 2; i++) {
        db = untouched;
        options.size = sizeof(options) + (i ? (size_t)8 : (size_t)-8);
        assert_refused(vex_open(fixture->directory, &options, &db, sink), VEX_ERR_INVALID,
                       "options");
        assert_null(db);
    }
    options = vex_fixture_open_options();
    char *longest = test_malloc(2 * PATH_MAX);
    memset(longest, 'd', 2 * PATH_MAX);
    longest[0] = '/';
    longest[2 * PATH_MAX - 1] = 0;
    assert_refused(vex_open(longest, &options, &db, sink), VEX_ERR_INVALID, "too long");
    assert_null(db);
    test_free(longest);
    vex_close(NULL);
}

static void open_without_a_daemon_is_unavailable_and_makes_nothing(void **state)
{
    struct vex_fixture *fixture = *state;
    struct vex_open_options options = vex_fixture_open_options();
    struct vex_db *db = NULL;
    assert_refused(vex_open(fixture->directory, &options, &db, sink), VEX_ERR_UNAVAILABLE,
                   fixture->directory);
    assert_int_not_equal(access(fixture->directory, F_OK), 0);
    assert_int_equal(mkdir(fixture->directory, 0700), 0);
    assert_refused(vex_open(fixture->directory, &options, &db, sink), VEX_ERR_UNAVAILABLE,
                   fixture->directory);
    assert_int_equal(rmdir(fixture->directory), 0); /* fails if anything is in it */
}

static void a_missing_directory_name_means_the_environment(void **state)
{
    struct vex_fixture *fixture = *state;
    struct vex_open_options options = vex_fixture_open_options();
    struct vex_db *db = NULL;
    assert_int_equal(setenv("VEXDB_DIR", fixture->directory, 1), 0);
    assert_ok(vex_open(NULL, &options, &db, sink));
    struct vex_stats stats = {.size = sizeof(stats)};
    assert_ok(vex_get_stats(db, &stats, sink));
    assert_int_equal(stats.daemon_pid, fixture->daemon);
    vex_close(db);
    /* Without it, the home directory; without that there is nothing to go by. */
    char *home = getenv("HOME") ? strdup(getenv("HOME")) : NULL;
    assert_int_equal(unsetenv("VEXDB_DIR"), 0);
    assert_int_equal(setenv("HOME", fixture->root.path, 1), 0);
    assert_refused(vex_open(NULL, &options, &db, sink), VEX_ERR_UNAVAILABLE, "/.local/share/vexdb");
    assert_int_equal(unsetenv("HOME"), 0);
    assert_refused(vex_open(NULL, &options, &db, sink), VEX_ERR_INVALID, "VEXDB_DIR");
    if (home) {
        (void)setenv("HOME", home, 1);
        free(home);
    }
}

/* Handles of a program that never wrote anything. */
static void calls_without_a_handle_are_refused(void **state)
{
    (void)state;
    struct vex_stats stats = {.size = sizeof(stats)};
    struct vex_collection_options options = VEX_COLLECTION_OPTIONS_INIT;
    options.dim = 2;
    struct vex_collection_info info = {.size = sizeof(info)};
    struct vex_collection *collection = NULL;
    struct vex_snapshot *snapshot = NULL;
    struct vex_record record = {.size = sizeof(record)};
    size_t count = 0;
    uint64_t rows = 0;
    bool there = false;
    const float vector[2] = {1, 2};
    assert_refused(vex_get_stats(NULL, &stats, sink), VEX_ERR_INVALID, "NULL");
    assert_refused(vex_shutdown(NULL, sink), VEX_ERR_INVALID, "NULL");
    assert_refused(vex_wait(NULL, 1, 1, sink), VEX_ERR_INVALID, "NULL");
    assert_refused(vex_collection_create(NULL, "c", &options, sink), VEX_ERR_INVALID, "NULL");
    assert_refused(vex_collection_drop(NULL, "c", sink), VEX_ERR_INVALID, "NULL");
    assert_refused(vex_collection_list(NULL, NULL, 0, &count, sink), VEX_ERR_INVALID, "NULL");
    assert_refused(vex_collection_open(NULL, "c", &collection, sink), VEX_ERR_INVALID, "NULL");
    assert_refused(vex_collection_describe(NULL, &info, sink), VEX_ERR_INVALID, "NULL");
    assert_refused(vex_insert(NULL, NULL, vector, 2, NULL, 0, NULL, sink), VEX_ERR_INVALID, "NULL");
    assert_refused(vex_upsert(NULL, 1, vector, 2, NULL, 0, NULL, sink), VEX_ERR_INVALID, "NULL");
    assert_refused(vex_update(NULL, 1, vector, 2, NULL, 0, NULL, sink), VEX_ERR_INVALID, "NULL");
    assert_refused(vex_delete(NULL, 1, NULL, sink), VEX_ERR_INVALID, "NULL");
    assert_refused(vex_snapshot_open(NULL, NULL, &snapshot, sink), VEX_ERR_INVALID, "NULL");
    assert_refused(vex_snapshot_get(NULL, 1, &record, sink), VEX_ERR_INVALID, "NULL");
    assert_refused(vex_get(NULL, 1, NULL, NULL, 0, NULL, 0, &record, sink), VEX_ERR_INVALID,
                   "NULL");
    assert_refused(vex_exists(NULL, 1, NULL, &there, sink), VEX_ERR_INVALID, "NULL");
    assert_refused(vex_count(NULL, NULL, &rows, sink), VEX_ERR_INVALID, "NULL");
    vex_collection_close(NULL);
    vex_snapshot_close(NULL);
}

/* ---- statistics ------------------------------------------------------------------------------ */

static struct vex_stats stats_of(struct vex_db *db)
{
    struct vex_stats stats = {.size = sizeof(stats)};
    assert_ok(vex_get_stats(db, &stats, sink));
    assert_int_equal(stats.size, sizeof(stats));
    return stats;
}

static void check_uuid(const char *text)
{
    static const char pattern[] = "xxxxxxxx-xxxx-4xxx-yxxx-xxxxxxxxxxxx";
    assert_int_equal(strlen(text), strlen(pattern));
    for (size_t i = 0; pattern[i]; i++) {
        switch (pattern[i]) {
        case 'x':
            assert_non_null(strchr("0123456789abcdef", text[i]));
            break;
        case 'y':
            assert_non_null(strchr("89ab", text[i]));
            break;
        default:
            assert_int_equal(text[i], pattern[i]);
        }
    }
}

static void stats_tell_what_happened(void **state)
{
    struct vex_fixture *fixture = *state;
    struct vex_db *db = vex_fixture_open(fixture);
    struct vex_stats fresh = stats_of(db);
    assert_int_equal(fresh.daemon_pid, fixture->daemon);
    assert_int_equal(fresh.clients, 1);
    assert_int_equal(fresh.collections, 0);
    assert_false(fresh.read_only);
    assert_false(fresh.embedded);
    assert_string_equal(fresh.version, vex_version());
    assert_true(strcmp(fresh.io_backend, "uring") == 0 || strcmp(fresh.io_backend, "sync") == 0);
    check_uuid(fresh.instance);
    assert_int_equal(fresh.lsn, 0);
    assert_int_equal(fresh.records, 0);
    assert_int_equal(fresh.commits, 0);
    assert_int_equal(fresh.replayed, 0);
    assert_int_equal(fresh.torn_tails, 0);
    assert_int_equal(fresh.live_rows, 0);
    assert_true(fresh.shm_bytes > 0);
    assert_true(fresh.log_file_bytes > 0);

    struct vex_db *second = vex_fixture_open(fixture);
    struct vex_collection *collection = vex_fixture_collection(second, "points", 4, VEX_METRIC_L2);
    const float vector[4] = {1, 2, 3, 4};
    for (uint64_t id = 0; id < 5; id++) {
        assert_ok(vex_insert(collection, &id, vector, 4, "payload", 7, NULL, sink));
    }
    assert_ok(vex_upsert(collection, 0, vector, 4, NULL, 0, NULL, sink));
    assert_ok(vex_delete(collection, 1, NULL, sink));
    struct vex_stats busy = stats_of(db);
    assert_int_equal(busy.clients, 2);
    assert_int_equal(busy.collections, 1);
    assert_int_equal(busy.lsn, 8);
    assert_int_equal(busy.records, 8);
    assert_true(busy.commits >= 1 && busy.commits <= 8);
    assert_int_equal(busy.live_rows, 4);
    assert_int_equal(busy.dead_rows, 2);
    assert_true(busy.generation > fresh.generation);
    assert_true(busy.uptime_ms >= fresh.uptime_ms);
    assert_true(busy.shm_bytes > fresh.shm_bytes);
    assert_true(busy.log_bytes >= fresh.log_bytes + 6 * 16);
    assert_string_equal(busy.instance, fresh.instance);
    vex_collection_close(collection);
    vex_close(second);
    vex_close(db);

    assert_int_equal(vex_fixture_stop(fixture), 0);
    vex_fixture_start(fixture, NULL);
    db = vex_fixture_open(fixture);
    struct vex_stats again = stats_of(db);
    assert_int_equal(again.replayed, 8);
    assert_int_equal(again.lsn, 8);
    assert_int_equal(again.records, 0);
    assert_int_equal(again.live_rows, 4);
    assert_int_equal(again.dead_rows, 2);
    assert_int_equal(again.collections, 1);
    assert_int_equal(again.torn_tails, 0);
    assert_int_equal(again.log_bytes, busy.log_bytes);
    assert_string_equal(again.instance, fresh.instance);
    assert_refused(vex_get_stats(db, NULL, sink), VEX_ERR_INVALID, "size");
    again.size = sizeof(again) - 8;
    assert_refused(vex_get_stats(db, &again, sink), VEX_ERR_INVALID, "size");
    vex_close(db);
}

/* ---- collections ----------------------------------------------------------------------------- */

static enum vex_status create(struct vex_db *db, const char *name, uint32_t dim,
                              enum vex_metric metric, struct vex_error *error)
{
    struct vex_collection_options options = VEX_COLLECTION_OPTIONS_INIT;
    options.dim = dim;
    options.metric = metric;
    return vex_collection_create(db, name, &options, error);
}

static void create_refuses_bad_names(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    char over[66];
    memset(over, 'n', sizeof(over));
    over[64] = 0; /* one more than the limit */
    static const char *const bad[] = {"",     ".hidden",  ".", "..",   "a b",  "a/b",     "a\n",
                                      "a\tb", "\xc3\xa9", "*", "a\\b", "\x01", "name\x7f"};
    struct totals before = totals_of(db);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_refused(create(db, bad[i], 2, VEX_METRIC_L2, sink), VEX_ERR_INVALID,
                       "collection name");
    }
    assert_refused(create(db, over, 2, VEX_METRIC_L2, sink), VEX_ERR_INVALID, "63");
    assert_refused(create(db, NULL, 2, VEX_METRIC_L2, sink), VEX_ERR_INVALID, "NULL");
    assert_unchanged(db, &before);
    over[63] = 0;
    assert_ok(create(db, over, 2, VEX_METRIC_L2, sink));
    assert_ok(create(db, "AZaz09_-.", 2, VEX_METRIC_L2, sink));
    assert_ok(create(db, "-", 2, VEX_METRIC_L2, sink));
    struct vex_collection *collection = NULL;
    assert_ok(vex_collection_open(db, over, &collection, sink));
    vex_collection_close(collection);
    vex_close(db);
}

static void create_refuses_bad_shapes(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    struct totals before = totals_of(db);
    struct vex_collection_options options = VEX_COLLECTION_OPTIONS_INIT;
    options.dim = 2;
    assert_refused(create(db, "c", 0, VEX_METRIC_L2, sink), VEX_ERR_DIM, "0");
    assert_refused(create(db, "c", VEX_DIM_MAX + 1, VEX_METRIC_L2, sink), VEX_ERR_DIM, "65536");
    assert_refused(create(db, "c", UINT32_MAX, VEX_METRIC_L2, sink), VEX_ERR_DIM, "4294967295");
    assert_refused(create(db, "c", 2, (enum vex_metric)0, sink), VEX_ERR_INVALID, "metric 0");
    assert_refused(create(db, "c", 2, (enum vex_metric)4, sink), VEX_ERR_INVALID, "metric 4");
    assert_refused(vex_collection_create(db, "c", NULL, sink), VEX_ERR_INVALID, "options");
    options.size += 8;
    assert_refused(vex_collection_create(db, "c", &options, sink), VEX_ERR_INVALID, "size");
    options.size = 0;
    assert_refused(vex_collection_create(db, "c", &options, sink), VEX_ERR_INVALID, "size");
    assert_unchanged(db, &before);
    struct vex_collection *collection = NULL;
    assert_refused(vex_collection_open(db, "c", &collection, sink), VEX_ERR_NO_COLLECTION, "c");
    vex_close(db);
}

static void a_collection_is_made_once(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    assert_ok(create(db, "twice", 3, VEX_METRIC_COSINE, sink));
    struct totals before = totals_of(db);
    assert_refused(create(db, "twice", 3, VEX_METRIC_COSINE, sink), VEX_ERR_EXISTS, "twice");
    assert_refused(create(db, "twice", 4, VEX_METRIC_L2, sink), VEX_ERR_EXISTS, "twice");
    assert_unchanged(db, &before);
    struct vex_collection *collection = NULL;
    assert_ok(vex_collection_open(db, "twice", &collection, sink));
    struct vex_collection_info info = {.size = sizeof(info)};
    assert_ok(vex_collection_describe(collection, &info, sink));
    assert_string_equal(info.name, "twice");
    assert_int_equal(info.dim, 3);
    assert_int_equal(info.metric, VEX_METRIC_COSINE);
    assert_int_equal(info.count, 0);
    assert_int_equal(info.segments, 0);
    assert_int_equal(info.lsn, before.lsn);
    vex_collection_close(collection);
    vex_close(db);
}

static void open_and_drop_name_a_missing_collection(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    struct totals before = totals_of(db);
    struct vex_collection *const untouched = (void *)db;
    struct vex_collection *collection = untouched;
    char endless[300];
    memset(endless, 'x', sizeof(endless));
    endless[sizeof(endless) - 1] = 0;
    assert_refused(vex_collection_open(db, "nowhere", &collection, sink), VEX_ERR_NO_COLLECTION,
                   "nowhere");
    assert_null(collection);
    assert_refused(vex_collection_open(db, endless, &collection, sink), VEX_ERR_NO_COLLECTION,
                   "xxxx");
    assert_refused(vex_collection_open(db, "", &collection, sink), VEX_ERR_NO_COLLECTION, "");
    assert_refused(vex_collection_open(db, NULL, &collection, sink), VEX_ERR_INVALID, "NULL");
    assert_refused(vex_collection_open(db, "c", NULL, sink), VEX_ERR_INVALID, "out_collection");
    assert_refused(vex_collection_drop(db, "nowhere", sink), VEX_ERR_NO_COLLECTION, "nowhere");
    assert_refused(vex_collection_drop(db, "a b", sink), VEX_ERR_NO_COLLECTION, "a b");
    assert_refused(vex_collection_drop(db, endless, sink), VEX_ERR_NO_COLLECTION, "xxxx");
    assert_refused(vex_collection_drop(db, NULL, sink), VEX_ERR_NO_COLLECTION, "NULL");
    assert_unchanged(db, &before);
    vex_close(db);
}

/* All calls on a handle whose collection is gone. */
static void assert_gone(struct vex_collection *collection, const char *name)
{
    const float vector[2] = {1, 2};
    struct vex_batch batch = VEX_BATCH_INIT;
    batch.count = 1;
    batch.vectors = vector;
    batch.dim = 2;
    struct vex_collection_info info = {.size = sizeof(info)};
    struct vex_snapshot *snapshot = NULL;
    struct vex_record record = {.size = sizeof(record)};
    uint64_t rows = 0;
    uint64_t hit_ids[10];
    float distances[10];
    uint32_t found = 0;
    bool there = false;
    struct vex_results results = {sizeof(results), hit_ids, distances, &found, NULL, NULL, NULL, 0};
    assert_refused(vex_collection_describe(collection, &info, sink), VEX_ERR_GONE, name);
    assert_refused(vex_count(collection, NULL, &rows, sink), VEX_ERR_GONE, name);
    assert_refused(vex_exists(collection, 1, NULL, &there, sink), VEX_ERR_GONE, name);
    assert_refused(vex_get(collection, 1, NULL, NULL, 0, NULL, 0, &record, sink), VEX_ERR_GONE,
                   name);
    assert_refused(vex_search(collection, vector, 1, 2, NULL, &results, NULL, sink), VEX_ERR_GONE,
                   name);
    assert_refused(vex_snapshot_open(collection, NULL, &snapshot, sink), VEX_ERR_GONE, name);
    assert_null(snapshot);
    assert_refused(vex_write(collection, VEX_WRITE_INSERT, &batch, NULL, sink), VEX_ERR_GONE,
                   "collection");
    assert_refused(vex_upsert(collection, 1, vector, 2, NULL, 0, NULL, sink), VEX_ERR_GONE,
                   "collection");
    assert_refused(vex_update(collection, 1, vector, 2, NULL, 0, NULL, sink), VEX_ERR_GONE,
                   "collection");
    assert_refused(vex_delete(collection, 1, NULL, sink), VEX_ERR_GONE, "collection");
}

static void a_dropped_collection_is_gone_for_every_handle(void **state)
{
    struct vex_fixture *fixture = *state;
    struct vex_db *db = vex_fixture_open(fixture);
    struct vex_db *other = vex_fixture_open(fixture);
    struct vex_collection *mine = vex_fixture_collection(db, "doomed", 2, VEX_METRIC_L2);
    struct vex_collection *read = vex_fixture_collection(other, "doomed", 2, VEX_METRIC_L2);
    struct vex_collection *never_read = vex_fixture_collection(other, "doomed", 2, VEX_METRIC_L2);
    const float vector[2] = {1, 2};
    assert_ok(vex_upsert(mine, 1, vector, 2, "p", 1, NULL, sink));
    assert_int_equal(count_of(read), 1);
    struct vex_collection_info before = {.size = sizeof(before)};
    assert_ok(vex_collection_describe(mine, &before, sink));
    assert_ok(vex_collection_drop(db, "doomed", sink));
    assert_gone(mine, "doomed");
    assert_gone(read, "doomed");
    assert_gone(never_read, "doomed");
    /* A successor of the same name is another collection. */
    struct vex_collection *next = vex_fixture_collection(db, "doomed", 2, VEX_METRIC_L2);
    struct vex_collection_info after = {.size = sizeof(after)};
    assert_ok(vex_collection_describe(next, &after, sink));
    assert_true(after.id > before.id);
    assert_int_equal(count_of(next), 0);
    assert_gone(read, "doomed");
    vex_collection_close(next);
    vex_collection_close(never_read);
    vex_collection_close(read);
    vex_collection_close(mine);
    /* The number is not given again after a restart either. */
    assert_ok(vex_collection_drop(db, "doomed", sink));
    assert_int_equal(vex_fixture_stop(fixture), 0);
    vex_fixture_start(fixture, NULL);
    next = vex_fixture_collection(db, "doomed", 2, VEX_METRIC_L2);
    struct vex_collection_info last = {.size = sizeof(last)};
    assert_ok(vex_collection_describe(next, &last, sink));
    assert_true(last.id > after.id);
    vex_collection_close(next);
    vex_close(other);
    vex_close(db);
}

static void list_is_in_name_order_and_bounded_by_its_capacity(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    static const char *const made[] = {"zebra", "B", "a", "_", "a.1", "10", "9"};
    static const char *const sorted[] = {"10", "9", "B", "_", "a", "a.1", "zebra"};
    size_t count = 77;
    assert_ok(vex_collection_list(db, NULL, 0, &count, sink));
    assert_int_equal(count, 0);
    for (size_t i = 0; i < 7; i++) {
        assert_ok(create(db, made[i], (uint32_t)i + 1, VEX_METRIC_DOT, sink));
    }
    struct vex_collection_info infos[9];
    memset(infos, 0x55, sizeof(infos));
    for (size_t i = 0; i < 9; i++) {
        infos[i].size = sizeof(infos[i]);
    }
    assert_ok(vex_collection_list(db, infos, 3, &count, sink));
    assert_int_equal(count, 7);
    for (size_t i = 0; i < 3; i++) {
        assert_string_equal(infos[i].name, sorted[i]);
    }
    assert_int_equal(infos[3].dim, 0x55555555); /* beyond the capacity: untouched */
    assert_ok(vex_collection_list(db, infos, 9, &count, sink));
    assert_int_equal(count, 7);
    for (size_t i = 0; i < 7; i++) {
        assert_string_equal(infos[i].name, sorted[i]);
        assert_int_equal(infos[i].metric, VEX_METRIC_DOT);
        assert_int_equal(infos[i].count, 0);
        size_t at = 0;
        while (strcmp(made[at], sorted[i]) != 0) {
            at++;
        }
        assert_int_equal(infos[i].dim, at + 1);
        assert_int_equal(infos[i].id, at + 1);
    }
    infos[2].size = 1;
    assert_refused(vex_collection_list(db, infos, 9, &count, sink), VEX_ERR_INVALID, "entry 2");
    assert_refused(vex_collection_list(db, infos, 1, NULL, sink), VEX_ERR_INVALID, "out_count");
    assert_refused(vex_collection_list(db, NULL, 1, &count, sink), VEX_ERR_INVALID, "infos");
    vex_close(db);
}

static void describe_follows_the_writes(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    struct vex_collection *collection = vex_fixture_collection(db, "points", 2, VEX_METRIC_L2);
    struct vex_collection_info info = {.size = sizeof(info)};
    const float vector[2] = {1, 2};
    struct vex_ack ack = VEX_ACK_INIT;
    for (uint64_t id = 10; id < 20; id++) {
        assert_ok(vex_insert(collection, &id, vector, 2, NULL, 0, &ack, sink));
    }
    assert_ok(vex_collection_describe(collection, &info, sink));
    assert_int_equal(info.size, sizeof(info));
    assert_int_equal(info.count, 10);
    assert_int_equal(info.dead, 0);
    assert_int_equal(info.segments, 1);
    assert_int_equal(info.lsn, ack.lsn);
    assert_true(info.shm_bytes >= 10 * 2 * sizeof(float));
    assert_ok(vex_delete(collection, 12, &ack, sink));
    assert_ok(vex_update(collection, 13, vector, 2, NULL, 0, &ack, sink));
    assert_ok(vex_collection_describe(collection, &info, sink));
    assert_int_equal(info.count, 9);
    assert_int_equal(info.dead, 2);
    assert_int_equal(info.lsn, ack.lsn);
    /* A record of another collection does not concern this one. */
    assert_ok(create(db, "other", 2, VEX_METRIC_L2, sink));
    struct vex_collection_info later = {.size = sizeof(later)};
    assert_ok(vex_collection_describe(collection, &later, sink));
    assert_int_equal(later.lsn, info.lsn);
    later.size--;
    assert_refused(vex_collection_describe(collection, &later, sink), VEX_ERR_INVALID, "size");
    assert_refused(vex_collection_describe(collection, NULL, sink), VEX_ERR_INVALID, "out");
    vex_collection_close(collection);
    vex_close(db);
}

static void create_numbered(struct vex_db *db, unsigned number)
{
    char name[32];
    (void)snprintf(name, sizeof(name), "c%04u", number);
    assert_ok(create(db, name, 2, VEX_METRIC_L2, sink));
}

static void an_instance_holds_its_limit_of_collections(void **state)
{
    struct vex_fixture *fixture = *state;
    struct vex_db *db = vex_fixture_open(fixture);
    for (unsigned i = 0; i < VEX_COLLECTIONS_MAX; i++) {
        create_numbered(db, i);
    }
    struct totals before = totals_of(db);
    assert_int_equal(before.collections, VEX_COLLECTIONS_MAX);
    assert_refused(create(db, "straw", 2, VEX_METRIC_L2, sink), VEX_ERR_LIMIT, "1024");
    assert_unchanged(db, &before);
    size_t count = 0;
    assert_ok(vex_collection_list(db, NULL, 0, &count, sink));
    assert_int_equal(count, VEX_COLLECTIONS_MAX);
    /* Room is back with the acknowledgement of a drop, again and again. */
    for (unsigned i = 0; i < 20; i++) {
        char name[32];
        (void)snprintf(name, sizeof(name), "c%04u", i * 50);
        assert_ok(vex_collection_drop(db, name, sink));
        create_numbered(db, 2000 + i);
    }
    assert_refused(create(db, "straw", 2, VEX_METRIC_L2, sink), VEX_ERR_LIMIT, "1024");
    struct vex_collection *last = vex_fixture_collection(db, "c2019", 2, VEX_METRIC_L2);
    const float vector[2] = {1, 2};
    assert_ok(vex_upsert(last, 5, vector, 2, NULL, 0, NULL, sink));
    assert_int_equal(vex_fixture_stop(fixture), 0);
    vex_fixture_start(fixture, NULL);
    assert_int_equal(count_of(last), 1);
    assert_ok(vex_collection_list(db, NULL, 0, &count, sink));
    assert_int_equal(count, VEX_COLLECTIONS_MAX);
    assert_refused(create(db, "straw", 2, VEX_METRIC_L2, sink), VEX_ERR_LIMIT, "1024");
    vex_collection_close(last);
    vex_close(db);
}

/* The dropped one's place in shared memory is kept for the snapshot; that costs no place in the
 * instance. */
static void a_snapshot_does_not_take_the_place_of_a_dropped_collection(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    for (unsigned i = 0; i < VEX_COLLECTIONS_MAX; i++) {
        create_numbered(db, i);
    }
    struct vex_collection *held = vex_fixture_collection(db, "c0007", 2, VEX_METRIC_L2);
    struct vex_snapshot *snapshot = NULL;
    assert_ok(vex_snapshot_open(held, NULL, &snapshot, sink));
    assert_ok(vex_collection_drop(db, "c0007", sink));
    enum vex_status status = create(db, "straw", 2, VEX_METRIC_L2, &check_error);
    if (status != VEX_OK) {
        fail_msg("with 1023 collections and a snapshot: '%s'", check_error.message);
    }
    /* It lies in a place beyond the first 1024, where it must be found, too. */
    size_t count = 0;
    assert_ok(vex_collection_list(db, NULL, 0, &count, sink));
    assert_int_equal(count, VEX_COLLECTIONS_MAX);
    struct vex_collection *straw = vex_fixture_collection(db, "straw", 2, VEX_METRIC_L2);
    const float vector[2] = {1, 2};
    assert_ok(vex_upsert(straw, 5, vector, 2, NULL, 0, NULL, sink));
    assert_int_equal(count_of(straw), 1);
    vex_collection_close(straw);
    vex_snapshot_close(snapshot);
    vex_collection_close(held);
    vex_close(db);
}

/* ---- waiting and stopping -------------------------------------------------------------------- */

static void wait_sees_published_records_and_times_out_on_others(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    struct vex_collection *collection = vex_fixture_collection(db, "points", 2, VEX_METRIC_L2);
    const float vector[2] = {1, 2};
    struct vex_ack ack = VEX_ACK_INIT;
    assert_ok(vex_upsert(collection, 1, vector, 2, NULL, 0, &ack, sink));
    assert_ok(vex_wait(db, 0, 0, sink));
    assert_ok(vex_wait(db, ack.lsn, 0, sink));
    uint64_t start_ms = vex_fixture_now_ms();
    char number[32];
    (void)snprintf(number, sizeof(number), "%llu", (unsigned long long)ack.lsn + 1);
    assert_refused(vex_wait(db, ack.lsn + 1, 60, sink), VEX_ERR_TIMEOUT, number);
    uint64_t took_ms = vex_fixture_now_ms() - start_ms;
    assert_true(took_ms >= 2 * 60 - 2 && took_ms < 5000); /* made twice */
    assert_refused(vex_wait(db, UINT64_MAX, 1, sink), VEX_ERR_TIMEOUT, "LSN");
    vex_collection_close(collection);
    vex_close(db);
}

struct later {
    struct vex_collection *collection;
    uint32_t after_ms;
    enum vex_status status;
};

static void *write_later(void *argument)
{
    struct later *later = argument;
    vex_fixture_pause_ms(later->after_ms);
    const float vector[2] = {3, 4};
    later->status = vex_upsert(later->collection, 2, vector, 2, NULL, 0, NULL, NULL);
    return NULL;
}

static void wait_wakes_up_with_the_write(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    struct vex_db *writer = vex_fixture_open(*state);
    struct vex_collection *collection = vex_fixture_collection(writer, "p", 2, VEX_METRIC_L2);
    struct totals now = totals_of(db);
    struct later later = {collection, 50, VEX_ERR_INVALID};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, write_later, &later), 0);
    uint64_t start_ms = vex_fixture_now_ms();
    assert_ok(vex_wait(db, now.lsn + 1, 20000, sink));
    assert_true(vex_fixture_now_ms() - start_ms < 10000);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(later.status, VEX_OK);
    vex_collection_close(collection);
    vex_close(writer);
    vex_close(db);
}

/* What the names of the instance's shared memory begin with: as this process has mapped it. */
static void learn_shared_memory(char *out_prefix, size_t bytes)
{
    FILE *file = fopen("/proc/self/maps", "r");
    assert_non_null(file);
    char line[512];
    out_prefix[0] = 0;
    while (fgets(line, sizeof(line), file)) {
        char *name = strstr(line, "/dev/shm/vexdb-");
        char *end = name ? strstr(name, "-ctl") : NULL;
        if (end) {
            (void)snprintf(out_prefix, bytes, "%.*s", (int)(end - name) - 9, name + 9);
        }
    }
    (void)fclose(file);
    assert_true(strlen(out_prefix) > 10);
}

static unsigned count_shared_memory(const char *prefix)
{
    DIR *directory = opendir("/dev/shm");
    assert_non_null(directory);
    struct dirent *item;
    unsigned count = 0;
    while ((item = readdir(directory))) {
        count += strncmp(item->d_name, prefix, strlen(prefix)) == 0;
    }
    (void)closedir(directory);
    return count;
}

static void shutdown_returns_when_the_daemon_has_gone(void **state)
{
    struct vex_fixture *fixture = *state;
    struct vex_db *db = vex_fixture_open(fixture);
    struct vex_collection *collection = vex_fixture_collection(db, "points", 2, VEX_METRIC_L2);
    const float vector[2] = {1, 2};
    assert_ok(vex_upsert(collection, 1, vector, 2, NULL, 0, NULL, sink));
    struct vex_stats stats = stats_of(db);
    char prefix[128];
    learn_shared_memory(prefix, sizeof(prefix));
    assert_int_equal(count_shared_memory(prefix), 2);
    assert_ok(vex_shutdown(db, sink));
    int code = vex_fixture_await(fixture->daemon, 1000);
    fixture->daemon = 0;
    assert_int_equal(code, 0);
    assert_int_equal(count_shared_memory(prefix), 0);
    assert_refused(vex_shutdown(db, sink), VEX_ERR_UNAVAILABLE, "");
    assert_refused(vex_get_stats(db, &stats, sink), VEX_ERR_UNAVAILABLE, "");
    /* What was written is there for the next daemon, and this handle finds it. */
    vex_fixture_start(fixture, NULL);
    assert_int_equal(count_of(collection), 1);
    assert_ok(vex_upsert(collection, 2, vector, 2, NULL, 0, NULL, sink));
    assert_int_equal(count_of(collection), 2);
    vex_collection_close(collection);
    vex_close(db);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_version_is_the_one_of_the_header),
        cmocka_unit_test(every_status_has_its_name_and_text),
        cmocka_unit_test(metrics_and_kernels_have_names),
        with_daemon(open_refuses_bad_arguments),
        with_directory(open_without_a_daemon_is_unavailable_and_makes_nothing),
        with_daemon(a_missing_directory_name_means_the_environment),
        cmocka_unit_test(calls_without_a_handle_are_refused),
        with_daemon(stats_tell_what_happened),
        with_daemon(create_refuses_bad_names),
        with_daemon(create_refuses_bad_shapes),
        with_daemon(a_collection_is_made_once),
        with_daemon(open_and_drop_name_a_missing_collection),
        with_daemon(a_dropped_collection_is_gone_for_every_handle),
        with_daemon(list_is_in_name_order_and_bounded_by_its_capacity),
        with_daemon(describe_follows_the_writes),
        with_daemon(an_instance_holds_its_limit_of_collections),
        with_daemon(a_snapshot_does_not_take_the_place_of_a_dropped_collection),
        with_daemon(wait_sees_published_records_and_times_out_on_others),
        with_daemon(wait_wakes_up_with_the_write),
        with_daemon(shutdown_returns_when_the_daemon_has_gone),
    };
    return run_cases("api", tests);
}
