/*
 * Another index for a collection that lives, through the library and with a real daemon: durable when it is
 * acknowledged, built in the background while others search and write, and done when the status says so.
 * Whatever index a segment has meanwhile, what a search tells is true.
 */
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#define DIM 32u
#include "tests/integration/clustered.h"

#define ROWS 4000u
#define NAME "c"
#define BUILT_WITHIN_MS 60000u

/* A collection of ROWS rows in one segment that is sealed. */
static struct vex_collection *make_filled(struct vex_db *db, enum vex_index_kind index)
{
    struct vex_collection_options options = VEX_COLLECTION_OPTIONS_INIT;
    options.dim = DIM;
    options.index = index;
    struct vex_collection *collection = make_with(db, NAME, &options);
    put(collection, 0, ROWS, 0);
    assert_ok(vex_compact(db, NAME, NULL, NULL, sink));
    return collection;
}

static void alter(struct vex_db *db, enum vex_index_kind index, uint32_t m, uint32_t ef)
{
    struct vex_alter_options options = VEX_ALTER_OPTIONS_INIT;
    options.changes =
        VEX_ALTER_INDEX | (m ? VEX_ALTER_M : 0u) | (ef ? VEX_ALTER_EF_CONSTRUCTION : 0u);
    options.index = index;
    options.m = m;
    options.ef_construction = ef;
    assert_ok(vex_collection_alter(db, NAME, &options, sink));
}

static struct vex_index_status look(struct vex_db *db)
{
    struct vex_index_status status = {.size = sizeof(status)};
    assert_ok(vex_collection_index_status(db, NAME, &status, sink));
    assert_true(status.segments_indexed + status.segments_other <= status.segments);
    assert_true(status.segments_other <= status.segments_waiting);
    assert_true(status.rows_indexed + status.rows_other <= status.rows);
    assert_int_equal(status.rows_indexed > 0, status.segments_indexed > 0);
    assert_int_equal(status.rows_other > 0, status.segments_other > 0);
    return status;
}

static bool is_done(void *context)
{
    struct vex_index_status status = look(context);
    return status.segments_waiting == 0 && status.build_rows == 0;
}

static void await_index(struct vex_db *db)
{
    assert_true(vex_fixture_eventually(is_done, db, BUILT_WITHIN_MS));
}

static struct hits search(struct vex_collection *collection, struct vex_snapshot *snapshot,
                          const float *query, bool exact)
{
    struct vex_search_options options = VEX_SEARCH_OPTIONS_INIT;
    options.k = K;
    options.exact = exact;
    options.ef_search = exact ? 0 : 200;
    options.read.snapshot = snapshot;
    return search_with(collection, query, &options);
}

/* One state, searched twice: how many of the true neighbours the index finds; the rest is checked here. */
static unsigned compare(struct vex_collection *collection, uint64_t number)
{
    float query[DIM];
    make_vector(7 * number, 5000 + number, query);
    struct vex_snapshot *snapshot = NULL;
    assert_ok(vex_snapshot_open(collection, NULL, &snapshot, sink));
    struct hits truth = search(collection, snapshot, query, true);
    struct hits found = search(collection, snapshot, query, false);
    assert_int_equal(truth.count, K);
    assert_int_equal(found.count, K);
    unsigned same = 0;
    for (uint32_t i = 0; i < K; i++) {
        struct vex_record record = {.size = sizeof(record)};
        assert_ok(vex_snapshot_get(snapshot, found.ids[i], &record, sink));
        assert_true(found.distances[i] >= truth.distances[i]);
        assert_true(i == 0 || found.distances[i] >= found.distances[i - 1]);
        for (uint32_t j = 0; j < K; j++) {
            same += truth.ids[j] == found.ids[i];
        }
    }
    vex_snapshot_close(snapshot);
    return same;
}

static const char *mode_of(struct vex_collection *collection)
{
    float query[DIM];
    make_vector(3, 999, query);
    return search(collection, NULL, query, false).mode;
}

static struct vex_collection_info describe(struct vex_collection *collection)
{
    struct vex_collection_info info = {.size = sizeof(info)};
    assert_ok(vex_collection_describe(collection, &info, sink));
    return info;
}

/* ---- cases ----------------------------------------------------------------------------------- */

static void the_old_index_serves_until_the_new_one_is_there(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    struct vex_collection *collection = make_filled(db, VEX_INDEX_FLAT);
    struct vex_snapshot *before = NULL;
    assert_ok(vex_snapshot_open(collection, NULL, &before, sink));
    assert_string_equal(mode_of(collection), "exact");
    assert_int_equal(look(db).segments_indexed, 0);
    assert_int_equal(look(db).segments_waiting, 0);

    alter(db, VEX_INDEX_HNSW, 0, 0);
    /* A handle that was there before tells it, too. */
    assert_int_equal(describe(collection).index, VEX_INDEX_HNSW);
    await_index(db);
    struct vex_index_status status = look(db);
    assert_int_equal(status.index, VEX_INDEX_HNSW);
    assert_int_equal(status.segments_indexed, 1);
    assert_int_equal(status.rows_indexed, ROWS);
    assert_string_equal(mode_of(collection), "hnsw");

    /* As large a graph takes a while: what is asked for is told at once, what serves is the old one. */
    alter(db, VEX_INDEX_HNSW, 48, 1000);
    status = look(db);
    assert_int_equal(status.m, 48);
    assert_int_equal(status.ef_construction, 1000);
    assert_int_equal(status.segments_indexed, 0);
    assert_int_equal(status.segments_other, 1);
    assert_int_equal(status.segments_waiting, 1);
    assert_string_equal(mode_of(collection), "hnsw");
    uint64_t shm_bytes = describe(collection).shm_bytes;
    await_index(db);
    assert_int_equal(look(db).segments_indexed, 1);
    assert_true(describe(collection).shm_bytes > shm_bytes); /* three times the links */

    alter(db, VEX_INDEX_FLAT, 0, 0);
    await_index(db);
    status = look(db);
    assert_int_equal(status.segments_indexed + status.segments_other, 0);
    assert_int_equal(status.m, 48); /* kept for the day when it is asked for again */
    assert_string_equal(mode_of(collection), "exact");
    assert_int_equal(describe(collection).graphs, 0);

    /* What was opened first still is what it was. */
    float query[DIM];
    make_vector(3, 999, query);
    assert_string_equal(search(collection, before, query, false).mode, "exact");
    vex_snapshot_close(before);
    assert_int_equal(count_of(collection), ROWS);
    vex_collection_close(collection);
    vex_close(db);
}

/* Under automatic choice so few rows have no graph, and keep one that they have. */
static void what_is_asked_for_counts_with_the_rows_there_are(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    struct vex_collection *collection = make_filled(db, VEX_INDEX_AUTO);
    alter(db, VEX_INDEX_AUTO, 20, 0);
    await_index(db);
    assert_int_equal(look(db).segments_indexed, 0);
    alter(db, VEX_INDEX_HNSW, 20, 0);
    assert_ok(vex_compact(db, NAME, NULL, NULL, sink)); /* now, not when it comes to it */
    assert_int_equal(look(db).segments_indexed, 1);
    alter(db, VEX_INDEX_AUTO, 20, 0);
    assert_int_equal(look(db).segments_indexed, 1);
    assert_int_equal(look(db).segments_waiting, 0);
    alter(db, VEX_INDEX_FLAT, 0, 0);
    assert_ok(vex_compact(db, NAME, NULL, NULL, sink));
    assert_int_equal(look(db).segments_other, 0);
    assert_int_equal(describe(collection).graphs, 0);
    vex_collection_close(collection);
    vex_close(db);
}

/* The segment that rows are still written to is built as well; the next rows go to another one. */
static void the_newest_rows_get_their_index_too(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    struct vex_collection *collection = vex_fixture_collection(db, NAME, DIM, VEX_METRIC_L2);
    put(collection, 0, ROWS, 0);
    alter(db, VEX_INDEX_HNSW, 0, 0);
    assert_int_equal(look(db).segments_waiting, 1);
    put(collection, ROWS, 10, 0);
    await_index(db);
    struct vex_index_status status = look(db);
    assert_int_equal(status.segments, 2);
    assert_int_equal(status.segments_indexed, 1);
    assert_int_equal(status.rows_indexed, ROWS);
    assert_int_equal(status.rows, ROWS + 10);
    assert_string_equal(mode_of(collection), "hnsw");
    assert_int_equal(count_of(collection), ROWS + 10);
    /* Asking again seals nothing: ten rows are not worth it. */
    alter(db, VEX_INDEX_HNSW, 0, 0);
    put(collection, ROWS + 10, 10, 0);
    assert_int_equal(look(db).segments, 2);
    vex_collection_close(collection);
    vex_close(db);
}

struct others {
    struct vex_fixture *fixture;
    _Atomic bool ending;
    _Atomic uint64_t rounds;
};

static void *rewrite(void *argument)
{
    struct others *others = argument;
    struct vex_db *db = vex_fixture_open(others->fixture);
    struct vex_collection *collection = NULL;
    assert_ok(vex_collection_open(db, NAME, &collection, sink));
    for (uint64_t version = 1; !atomic_load(&others->ending); version++) {
        put(collection, version * 100 % ROWS, 100, version);
        (void)atomic_fetch_add(&others->rounds, 1);
        vex_fixture_pause_ms(2);
    }
    vex_collection_close(collection);
    vex_close(db);
    return NULL;
}

static void altered_again_and_again_while_others_search_and_write(void **state)
{
    static const struct {
        enum vex_index_kind index;
        uint32_t m;
        uint32_t ef;
    } wishes[] = {
        {VEX_INDEX_HNSW, 16, 100}, {VEX_INDEX_FLAT, 0, 0},   {VEX_INDEX_HNSW, 8, 50},
        {VEX_INDEX_HNSW, 24, 50},  {VEX_INDEX_AUTO, 32, 60}, {VEX_INDEX_HNSW, 16, 40},
    };
    struct others others = {.fixture = *state};
    struct vex_db *db = vex_fixture_open(*state);
    struct vex_collection *collection = make_filled(db, VEX_INDEX_FLAT);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, rewrite, &others), 0);
    unsigned same = 0;
    unsigned compared = 0;
    for (size_t i = 0; i < sizeof(wishes) / sizeof(wishes[0]); i++) {
        alter(db, wishes[i].index, wishes[i].m, wishes[i].ef);
        /* Some are replaced before they are fulfilled. */
        uint64_t until_ms = vex_fixture_now_ms() + (i % 2 ? 100 : 1500);
        do {
            same += compare(collection, compared);
            compared++;
            assert_int_equal(describe(collection).index, wishes[i].index);
        } while (vex_fixture_now_ms() < until_ms);
    }
    atomic_store(&others.ending, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(atomic_load(&others.rounds) > 20);
    assert_true(same >= 0.95 * K * compared);
    await_index(db);
    assert_int_equal(look(db).segments_other, 0);
    assert_int_equal(count_of(collection), ROWS);
    for (uint64_t id = 0; id < ROWS; id += 37) {
        assert_true(exists_in(collection, id));
    }
    vex_collection_close(collection);
    vex_close(db);
}

static void a_killed_daemon_remembers_what_was_asked_for(void **state)
{
    struct vex_fixture *fixture = *state;
    struct vex_db *db = vex_fixture_open(fixture);
    struct vex_collection *collection = make_filled(db, VEX_INDEX_FLAT);
    for (uint32_t round = 0; round < 4; round++) {
        /* Acknowledged, then killed: at once, in the middle of building, and when it is done. */
        uint32_t m = 20 + 16 * round;
        alter(db, VEX_INDEX_HNSW, m > 64 ? 64 : m, 100 + round);
        vex_fixture_pause_ms(round == 1 ? 150 : 0);
        if (round == 2) {
            await_index(db);
        }
        assert_int_equal(vex_fixture_kill(fixture), -SIGKILL);
        vex_fixture_start(fixture, NULL);
        assert_int_equal(describe(collection).index, VEX_INDEX_HNSW);
        assert_int_equal(describe(collection).ef_construction, 100 + round);
        await_index(db);
        assert_int_equal(look(db).ef_construction, 100 + round);
        assert_int_equal(look(db).segments_indexed, 1);
        assert_string_equal(mode_of(collection), "hnsw");
        assert_int_equal(count_of(collection), ROWS);
        (void)compare(collection, round);
    }
    /* A checkpoint knows it, too, and nothing is built twice. */
    assert_ok(vex_checkpoint(db, NULL, sink));
    assert_int_equal(vex_fixture_kill(fixture), -SIGKILL);
    vex_fixture_start(fixture, NULL);
    assert_int_equal(describe(collection).ef_construction, 103);
    assert_int_equal(look(db).segments_indexed, 1);
    assert_int_equal(look(db).segments_waiting, 0);
    struct vex_stats stats = {.size = sizeof(stats)};
    assert_ok(vex_get_stats(db, &stats, sink));
    assert_int_equal(stats.merges, 0);
    assert_int_equal(stats.replayed, 0);
    vex_collection_close(collection);
    vex_close(db);
}

static void what_cannot_be_asked_for_is_refused(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    struct vex_collection *collection = vex_fixture_collection(db, NAME, DIM, VEX_METRIC_L2);
    struct totals before = totals_of(db);
    struct vex_alter_options options = VEX_ALTER_OPTIONS_INIT;
    options.m = 20;
    assert_refused(vex_collection_alter(db, NAME, &options, sink), VEX_ERR_INVALID,
                   "nothing to change");
    options.changes = 16;
    assert_refused(vex_collection_alter(db, NAME, &options, sink), VEX_ERR_INVALID,
                   "nothing known");
    options.changes = VEX_ALTER_M;
    options.m = VEX_HNSW_M_MAX + 1;
    assert_refused(vex_collection_alter(db, NAME, &options, sink), VEX_ERR_INVALID, "M 65");
    options.m = 20;
    assert_refused(vex_collection_alter(db, "other", &options, sink), VEX_ERR_NO_COLLECTION,
                   "other");
    assert_refused(vex_collection_alter(db, "", &options, sink), VEX_ERR_NO_COLLECTION, "no coll");
    assert_refused(vex_collection_alter(db, NULL, &options, sink), VEX_ERR_NO_COLLECTION, "NULL");
    assert_refused(vex_collection_alter(db, NAME, NULL, sink), VEX_ERR_INVALID, "NULL");
    options.size--;
    assert_refused(vex_collection_alter(db, NAME, &options, sink), VEX_ERR_INVALID, "size");
    options.size++;
    options.changes = VEX_ALTER_INDEX;
    options.index = (enum vex_index_kind)9;
    assert_refused(vex_collection_alter(db, NAME, &options, sink), VEX_ERR_INVALID, "index 9");
    struct vex_index_status status = {.size = sizeof(status)};
    assert_refused(vex_collection_index_status(db, "other", &status, sink), VEX_ERR_NO_COLLECTION,
                   "other");
    status.size--;
    assert_refused(vex_collection_index_status(db, NAME, &status, sink), VEX_ERR_INVALID, "size");
    assert_refused(vex_collection_index_status(db, NAME, NULL, sink), VEX_ERR_INVALID, "NULL");
    assert_unchanged(db, &before);
    assert_int_equal(describe(collection).m, VEX_HNSW_M_DEFAULT);
    vex_collection_close(collection);
    vex_close(db);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_daemon(the_old_index_serves_until_the_new_one_is_there),
        with_daemon(what_is_asked_for_counts_with_the_rows_there_are),
        with_daemon(the_newest_rows_get_their_index_too),
        with_daemon(altered_again_and_again_while_others_search_and_write),
        with_daemon(a_killed_daemon_remembers_what_was_asked_for),
        with_daemon(what_cannot_be_asked_for_is_refused),
    };
    return run_cases("alter", tests);
}
