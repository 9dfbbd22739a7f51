/*
 * Collections with a graph, through the library and with a real daemon: how much of the truth a search finds
 * beside an exact one of the same snapshot, that what it tells is true in any case (ids that live, their own
 * distances, in order, k of them), also while others write, after deletes, and after a restart, which must not
 * build anything again.
 */
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#define DIM 48u
#include "tests/integration/clustered.h"

#define ROWS 6000u
#define QUERIES 100u

static struct vex_collection *make(struct vex_db *db, const char *name, enum vex_metric metric,
                                   enum vex_index_kind index)
{
    struct vex_collection_options options = VEX_COLLECTION_OPTIONS_INIT;
    options.dim = DIM;
    options.metric = metric;
    options.index = index;
    return make_with(db, name, &options);
}

static struct hits search(struct vex_collection *collection, struct vex_snapshot *snapshot,
                          const float *query, bool exact, uint32_t ef_search)
{
    struct vex_search_options options = VEX_SEARCH_OPTIONS_INIT;
    options.k = K;
    options.exact = exact;
    options.ef_search = ef_search;
    options.read.snapshot = snapshot;
    return search_with(collection, query, &options);
}

/* Looks at one state twice: what the walk found must be true, and most of what the scan found. */
static unsigned compare(struct vex_collection *collection, const float *query, uint32_t ef_search)
{
    struct vex_snapshot *snapshot = NULL;
    assert_ok(vex_snapshot_open(collection, NULL, &snapshot, sink));
    struct hits truth = search(collection, snapshot, query, true, 0);
    struct hits found = search(collection, snapshot, query, false, ef_search);
    assert_string_equal(truth.mode, "exact");
    assert_string_equal(found.mode, "hnsw");
    assert_int_equal(found.count, truth.count);
    assert_true(found.complete);
    unsigned same = 0;
    for (uint32_t i = 0; i < found.count; i++) {
        struct vex_record record = {.size = sizeof(record)};
        assert_ok(vex_snapshot_get(snapshot, found.ids[i], &record, sink));
        assert_true(i == 0 || found.distances[i] >= found.distances[i - 1]);
        assert_true(found.distances[i] >= truth.distances[i]);
        for (uint32_t j = 0; j < truth.count; j++) {
            if (truth.ids[j] == found.ids[i]) {
                /* The same formula to the last bit. */
                assert_true(truth.distances[j] == found.distances[i]);
                same++;
            }
        }
    }
    vex_snapshot_close(snapshot);
    return same;
}

static double recall(struct vex_collection *collection, uint32_t ef_search)
{
    unsigned same = 0;
    for (uint64_t i = 0; i < QUERIES; i++) {
        float query[DIM];
        make_vector(7 * i, 1000 + i, query);
        same += compare(collection, query, ef_search);
    }
    return (double)same / (QUERIES * K);
}

static void compact(struct vex_db *db, const char *name)
{
    struct vex_upkeep_info info = VEX_UPKEEP_INFO_INIT;
    assert_ok(vex_compact(db, name, NULL, &info, sink));
    assert_int_equal(info.segments_after, 1);
}

static uint64_t merges_of(struct vex_db *db)
{
    struct vex_stats stats = {.size = sizeof(stats)};
    assert_ok(vex_get_stats(db, &stats, sink));
    return stats.merges;
}

/* ---- cases ----------------------------------------------------------------------------------- */

static void a_walk_finds_most_and_tells_the_truth(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    const enum vex_metric metrics[] = {VEX_METRIC_L2, VEX_METRIC_COSINE, VEX_METRIC_L2};
    const char *const names[] = {"l2", "cosine", "again"};
    for (int i = 0; i < 3; i++) {
        struct vex_collection *collection = make(db, names[i], metrics[i], VEX_INDEX_HNSW);
        put(collection, 0, ROWS, 0);
        float query[DIM];
        make_vector(3, 999, query);
        assert_string_equal(search(collection, NULL, query, false, 0).mode, "exact"); /* not yet */
        compact(db, names[i]);
        double narrow = recall(collection, K);
        double wide = recall(collection, 200);
        assert_true(wide >= 0.95 && wide >= narrow);
        vex_collection_close(collection);
    }
    vex_close(db);
}

static struct vex_search_info search_for_recall(struct vex_collection *collection,
                                                const float *query, float recall_wanted,
                                                uint32_t ef_search, uint64_t ids[K])
{
    float distances[K];
    uint32_t count = 0;
    struct vex_results results = {
        .size = sizeof(results), .ids = ids, .distances = distances, .counts = &count};
    struct vex_search_options options = VEX_SEARCH_OPTIONS_INIT;
    struct vex_search_info info = {.size = sizeof(info)};
    options.k = K;
    options.recall = recall_wanted;
    options.ef_search = ef_search;
    assert_ok(vex_search(collection, query, 1, DIM, &options, &results, &info, sink));
    assert_int_equal(count, K);
    return info;
}

static void a_recall_becomes_the_effort_that_was_measured(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    struct vex_collection *collection = make(db, "asked", VEX_METRIC_L2, VEX_INDEX_HNSW);
    float query[DIM];
    uint64_t ids[K];
    uint64_t same_ids[K];
    make_vector(3, 999, query);
    put(collection, 0, ROWS, 0);
    assert_int_equal(search_for_recall(collection, query, 0.9f, 0, ids).ef_search, 0);
    compact(db, "asked");
    struct vex_search_info little = search_for_recall(collection, query, 0.5f, 0, ids);
    struct vex_search_info much = search_for_recall(collection, query, 0.999f, 0, ids);
    assert_in_range(little.ef_search, K, much.ef_search - 1);
    assert_true(little.rows_visited < much.rows_visited);
    struct vex_search_info same = search_for_recall(collection, query, 0, much.ef_search, same_ids);
    assert_int_equal(same.ef_search, much.ef_search);
    assert_int_equal(same.rows_visited, much.rows_visited);
    assert_memory_equal(ids, same_ids, sizeof(ids));
    vex_collection_close(collection);
    vex_close(db);
}

/* Inner products have no triangle inequality; recall is lower, truth is not. */
static void a_walk_by_dot_product_tells_the_truth(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    struct vex_collection *collection = make(db, "dot", VEX_METRIC_DOT, VEX_INDEX_HNSW);
    put(collection, 0, ROWS, 0);
    compact(db, "dot");
    double found = 0;
    for (uint64_t i = 0; i < QUERIES; i++) {
        float query[DIM];
        make_vector(7 * i, 1000 + i, query);
        struct hits truth = search(collection, NULL, query, true, 0);
        struct hits hits = search(collection, NULL, query, false, 200);
        assert_string_equal(hits.mode, "hnsw");
        assert_int_equal(hits.count, K);
        for (uint32_t j = 0; j < K; j++) {
            assert_true(hits.distances[j] <= truth.distances[j]);
            for (uint32_t t = 0; t < K; t++) {
                found += hits.ids[j] == truth.ids[t];
            }
        }
    }
    assert_true(found / (QUERIES * K) >= 0.8);
    vex_collection_close(collection);
    vex_close(db);
}

static void the_index_says_when_there_is_a_graph(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    float query[DIM];
    make_vector(3, 999, query);
    const struct {
        const char *name;
        enum vex_index_kind index;
        uint64_t rows;
        const char *mode;
    } cases[] = {
        {"flat", VEX_INDEX_FLAT, ROWS, "exact"},
        {"small", VEX_INDEX_HNSW, 500, "exact"},
        {"medium", VEX_INDEX_AUTO, ROWS, "exact"},
        {"large", VEX_INDEX_AUTO, 17000, "hnsw"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct vex_collection *collection = make(db, cases[i].name, VEX_METRIC_L2, cases[i].index);
        struct vex_collection_info info = {.size = sizeof(info)};
        assert_ok(vex_collection_describe(collection, &info, sink));
        assert_int_equal(info.index, cases[i].index);
        assert_int_equal(info.m, 16);
        assert_int_equal(info.ef_construction, 200);
        put(collection, 0, cases[i].rows, 0);
        compact(db, cases[i].name);
        assert_string_equal(search(collection, NULL, query, false, 0).mode, cases[i].mode);
        vex_collection_close(collection);
    }
    struct vex_collection_options options = VEX_COLLECTION_OPTIONS_INIT;
    options.dim = DIM;
    options.m = VEX_HNSW_M_MAX + 1;
    assert_refused(vex_collection_create(db, "bad", &options, sink), VEX_ERR_INVALID, "M 65");
    options.m = 0;
    options.ef_construction = 7;
    assert_refused(vex_collection_create(db, "bad", &options, sink), VEX_ERR_INVALID,
                   "ef_construction 7");
    options.ef_construction = 0;
    options.index = (enum vex_index_kind)4;
    assert_refused(vex_collection_create(db, "bad", &options, sink), VEX_ERR_INVALID, "index 4");
    options.index = VEX_INDEX_AUTO;
    options.storage = (enum vex_storage)3;
    assert_refused(vex_collection_create(db, "bad", &options, sink), VEX_ERR_INVALID, "storage 3");
    options.storage = VEX_STORAGE_FLOAT32;
    options.lists = VEX_LISTS_MAX + 1;
    assert_refused(vex_collection_create(db, "bad", &options, sink), VEX_ERR_INVALID,
                   "65537 lists");
    vex_close(db);
}

static void the_dead_are_never_found_and_k_are(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    struct vex_collection *collection = make(db, "c", VEX_METRIC_L2, VEX_INDEX_HNSW);
    put(collection, 0, ROWS, 0);
    compact(db, "c");
    /* Whole clusters die, and every other row of the rest; some are replaced. */
    for (uint64_t id = 0; id < ROWS; id++) {
        if (id % CLUSTERS < 10 || id % 2) {
            assert_ok(vex_delete(collection, id, NULL, sink));
        }
    }
    put(collection, 0, 50, 1);
    for (uint64_t i = 0; i < QUERIES; i++) {
        float query[DIM];
        make_vector(i, 1000 + i, query); /* also from dead clusters */
        struct hits hits = search(collection, NULL, query, false, 64);
        assert_string_equal(hits.mode, "hnsw");
        assert_int_equal(hits.count, K);
        for (uint32_t j = 0; j < K; j++) {
            uint64_t id = hits.ids[j];
            assert_true(id < 50 || (id % CLUSTERS >= 10 && id % 2 == 0));
            assert_true(exists_in(collection, id));
        }
    }
    assert_true(recall(collection, 200) >= 0.95);
    vex_collection_close(collection);
    vex_close(db);
}

static void a_restart_finds_its_graphs(void **state)
{
    struct vex_fixture *fixture = *state;
    struct vex_db *db = vex_fixture_open(fixture);
    struct vex_collection *collection = make(db, "c", VEX_METRIC_COSINE, VEX_INDEX_HNSW);
    put(collection, 0, ROWS, 0);
    struct vex_collection_info info = {.size = sizeof(info)};
    assert_ok(vex_collection_describe(collection, &info, sink));
    assert_int_equal(info.graphs, 0);
    compact(db, "c");
    assert_ok(vex_collection_describe(collection, &info, sink));
    assert_int_equal(info.graphs, 1);
    put(collection, 0, 100, 1); /* behind the checkpoint */
    struct hits before[QUERIES];
    float queries[QUERIES][DIM];
    for (uint64_t i = 0; i < QUERIES; i++) {
        make_vector(7 * i, 1000 + i, queries[i]);
        before[i] = search(collection, NULL, queries[i], false, 50);
    }
    vex_collection_close(collection);
    vex_close(db);
    for (int round = 0; round < 2; round++) {
        if (round == 0) {
            assert_int_equal(vex_fixture_stop(fixture), 0);
        } else {
            assert_int_equal(vex_fixture_kill(fixture), -SIGKILL);
        }
        vex_fixture_start(fixture, NULL);
        db = vex_fixture_open(fixture);
        assert_ok(vex_collection_open(db, "c", &collection, sink));
        assert_ok(vex_collection_describe(collection, &info, sink));
        assert_int_equal(info.index, VEX_INDEX_HNSW);
        assert_int_equal(info.graphs, 1);
        for (uint64_t i = 0; i < QUERIES; i++) {
            struct hits after = search(collection, NULL, queries[i], false, 50);
            assert_string_equal(after.mode, "hnsw");
            /* Deterministic for a given state. */
            assert_memory_equal(after.ids, before[i].ids, sizeof(after.ids));
            assert_memory_equal(after.distances, before[i].distances, sizeof(after.distances));
        }
        assert_int_equal(merges_of(db), 0);
        vex_collection_close(collection);
        vex_close(db);
    }
}

struct churn {
    struct vex_fixture *fixture;
    _Atomic bool ending;
};

static void *rewrite(void *argument)
{
    struct churn *churn = argument;
    struct vex_db *db = vex_fixture_open(churn->fixture);
    struct vex_collection *collection = NULL;
    assert_ok(vex_collection_open(db, "c", &collection, sink));
    for (uint64_t version = 1; !atomic_load(&churn->ending); version++) {
        put(collection, version * 500 % ROWS, 500, version);
    }
    vex_collection_close(collection);
    vex_close(db);
    return NULL;
}

/* Graphs are built, replaced and thrown away meanwhile; every comparison is of one snapshot. */
static void recall_holds_while_others_write(void **state)
{
    struct churn churn = {.fixture = *state};
    struct vex_db *db = vex_fixture_open(*state);
    struct vex_collection *collection = make(db, "c", VEX_METRIC_L2, VEX_INDEX_HNSW);
    put(collection, 0, ROWS, 0);
    compact(db, "c");
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, rewrite, &churn), 0);
    unsigned same = 0;
    unsigned compared = 0;
    uint64_t merges = merges_of(db);
    uint64_t started_ms = vex_fixture_now_ms();
    while (vex_fixture_now_ms() - started_ms < 4000 ||
           (merges_of(db) == merges && vex_fixture_now_ms() - started_ms < 20000)) {
        float query[DIM];
        make_vector(7 * (uint64_t)compared, 1000 + compared, query);
        struct vex_snapshot *snapshot = NULL;
        assert_ok(vex_snapshot_open(collection, NULL, &snapshot, sink));
        struct hits truth = search(collection, snapshot, query, true, 0);
        struct hits found = search(collection, snapshot, query, false, 100);
        assert_int_equal(found.count, K);
        for (uint32_t i = 0; i < K; i++) {
            struct vex_record record = {.size = sizeof(record)};
            assert_ok(vex_snapshot_get(snapshot, found.ids[i], &record, sink));
            for (uint32_t j = 0; j < K; j++) {
                same += truth.ids[j] == found.ids[i];
            }
        }
        vex_snapshot_close(snapshot);
        compared++;
    }
    atomic_store(&churn.ending, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(merges_of(db) > merges);
    assert_true(same >= 0.95 * K * compared);
    vex_collection_close(collection);
    vex_close(db);
}

static void an_effort_out_of_bounds_is_refused(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    struct vex_collection *collection = make(db, "c", VEX_METRIC_L2, VEX_INDEX_HNSW);
    float query[DIM] = {1};
    struct hits hits;
    struct vex_results results = {.size = sizeof(results),
                                  .ids = hits.ids,
                                  .distances = hits.distances,
                                  .counts = &hits.count};
    struct vex_search_options options = VEX_SEARCH_OPTIONS_INIT;
    options.ef_search = VEX_EF_SEARCH_MAX + 1;
    assert_refused(vex_search(collection, query, 1, DIM, &options, &results, NULL, sink),
                   VEX_ERR_LIMIT, "ef_search");
    options.ef_search = 0;
    options.nprobe = VEX_LISTS_MAX + 1;
    assert_refused(vex_search(collection, query, 1, DIM, &options, &results, NULL, sink),
                   VEX_ERR_LIMIT, "nprobe");
    options.nprobe = 0;
    static const float shares[] = {1, 1.5f, -0.1f, INFINITY, NAN};
    for (size_t i = 0; i < sizeof(shares) / sizeof(shares[0]); i++) {
        options.recall = shares[i];
        assert_refused(vex_search(collection, query, 1, DIM, &options, &results, NULL, sink),
                       VEX_ERR_INVALID, "recall");
    }
    options.recall = 0.9f;
    assert_ok(vex_search(collection, query, 1, DIM, &options, &results, NULL, sink));
    options.ef_search = 100;
    assert_refused(vex_search(collection, query, 1, DIM, &options, &results, NULL, sink),
                   VEX_ERR_INVALID, "give one");
    options.ef_search = 0;
    options.nprobe = 10;
    assert_refused(vex_search(collection, query, 1, DIM, &options, &results, NULL, sink),
                   VEX_ERR_INVALID, "give one");
    vex_collection_close(collection);
    vex_close(db);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_daemon(a_walk_finds_most_and_tells_the_truth),
        with_daemon(a_recall_becomes_the_effort_that_was_measured),
        with_daemon(a_walk_by_dot_product_tells_the_truth),
        with_daemon(the_index_says_when_there_is_a_graph),
        with_daemon(the_dead_are_never_found_and_k_are),
        with_daemon(a_restart_finds_its_graphs),
        with_daemon(recall_holds_while_others_write),
        with_daemon(an_effort_out_of_bounds_is_refused),
    };
    return run_cases("graph", tests);
}
