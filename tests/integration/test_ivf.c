/*
 * Collections with inverted lists, through the library and with a real daemon: one query and a thousand at
 * once beside an exact search of the same snapshot; after deletes and replacements, with a tail that has no
 * lists, after compaction and after a restart, which finds the lists it had.
 */
#include <signal.h>
#include <string.h>

#define DIM 48u
#include "tests/integration/clustered.h"

#define ROWS 6000u
#define QUERIES 200u

static struct vex_collection *make(struct vex_db *db, const char *name, enum vex_metric metric,
                                   uint32_t lists)
{
    struct vex_collection_options options = VEX_COLLECTION_OPTIONS_INIT;
    options.dim = DIM;
    options.metric = metric;
    options.index = VEX_INDEX_IVF;
    options.lists = lists;
    return make_with(db, name, &options);
}

struct batch_hits {
    uint64_t ids[QUERIES][K];
    float distances[QUERIES][K];
    uint32_t counts[QUERIES];
    const char *mode;
    uint64_t rows_visited;
};

static void search(struct vex_collection *collection, struct vex_snapshot *snapshot, uint32_t batch,
                   bool exact, uint32_t nprobe, struct batch_hits *out)
{
    static float queries[QUERIES * DIM];
    for (uint32_t i = 0; i < QUERIES; i++) {
        make_vector(7 * i, 1000 + i, queries + (size_t)i * DIM);
    }
    struct vex_search_options options = VEX_SEARCH_OPTIONS_INIT;
    options.k = K;
    options.exact = exact;
    options.nprobe = nprobe;
    options.read.snapshot = snapshot;
    out->rows_visited = 0;
    for (uint32_t i = 0; i < QUERIES; i += batch) {
        struct vex_results results = {.size = sizeof(results),
                                      .ids = out->ids[i],
                                      .distances = out->distances[i],
                                      .counts = &out->counts[i]};
        struct vex_search_info info = {.size = sizeof(info)};
        assert_ok(vex_search(collection, queries + (size_t)i * DIM, batch, DIM, &options, &results,
                             &info, sink));
        assert_true(info.complete);
        out->mode = info.mode;
        out->rows_visited += info.rows_visited;
    }
}

/* Of one state: one by one, all at once, and exactly. What is found must be true. Returns the recall. */
static double recall(struct vex_collection *collection, uint32_t nprobe)
{
    static struct batch_hits truth;
    static struct batch_hits found;
    static struct batch_hits single;
    struct vex_snapshot *snapshot = NULL;
    assert_ok(vex_snapshot_open(collection, NULL, &snapshot, sink));
    search(collection, snapshot, QUERIES, true, 0, &truth);
    search(collection, snapshot, QUERIES, false, nprobe, &found);
    search(collection, snapshot, 1, false, nprobe, &single);
    assert_string_equal(truth.mode, "exact");
    assert_string_equal(found.mode, "ivf");
    unsigned same = 0;
    for (uint32_t q = 0; q < QUERIES; q++) {
        assert_int_equal(found.counts[q], K);
        assert_memory_equal(found.ids[q], single.ids[q], sizeof(found.ids[q]));
        assert_memory_equal(found.distances[q], single.distances[q], sizeof(found.distances[q]));
        for (uint32_t i = 0; i < K; i++) {
            struct vex_record record = {.size = sizeof(record)};
            assert_ok(vex_snapshot_get(snapshot, found.ids[q][i], &record, sink));
            /* Dot products fall, distances rise. */
            float step = i == 0 ? 0 : found.distances[q][i] - found.distances[q][i - 1];
            assert_true(truth.distances[q][0] > truth.distances[q][K - 1] ? step <= 0 : step >= 0);
            for (uint32_t j = 0; j < K; j++) {
                if (truth.ids[q][j] == found.ids[q][i]) {
                    assert_true(truth.distances[q][j] == found.distances[q][i]);
                    same++;
                }
            }
        }
    }
    vex_snapshot_close(snapshot);
    return (double)same / (QUERIES * K);
}

static void compact(struct vex_db *db, const char *name)
{
    struct vex_upkeep_info info = VEX_UPKEEP_INFO_INIT;
    assert_ok(vex_compact(db, name, NULL, &info, sink));
    assert_int_equal(info.segments_after, 1);
}

static uint32_t segments_with_lists(struct vex_collection *collection)
{
    struct vex_collection_info info = {.size = sizeof(info)};
    assert_ok(vex_collection_describe(collection, &info, sink));
    return info.graphs;
}

/* ---- cases ----------------------------------------------------------------------------------- */

static void lists_find_most_and_tell_the_truth(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    const enum vex_metric metrics[] = {VEX_METRIC_L2, VEX_METRIC_COSINE, VEX_METRIC_DOT};
    const char *const names[] = {"l2", "cosine", "dot"};
    for (uint32_t i = 0; i < 3; i++) {
        struct vex_collection *collection = make(db, names[i], metrics[i], i == 1 ? 100 : 0);
        put(collection, 0, ROWS, 0);
        assert_int_equal(segments_with_lists(collection), 0);
        compact(db, names[i]);
        assert_int_equal(segments_with_lists(collection), 1);
        double few = recall(collection, 1);
        double many = recall(collection, 60);
        assert_true(many >= 0.97 && many >= few);
        vex_collection_close(collection);
    }
    vex_close(db);
}

static void more_lists_are_more_work(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    struct vex_collection *collection = make(db, "c", VEX_METRIC_L2, 50);
    put(collection, 0, ROWS, 0);
    compact(db, "c");
    static struct batch_hits hits;
    search(collection, NULL, QUERIES, false, 1, &hits);
    uint64_t one = hits.rows_visited;
    search(collection, NULL, QUERIES, false, 20, &hits);
    assert_true(hits.rows_visited > 8 * one);
    search(collection, NULL, QUERIES, false, 50, &hits);
    assert_int_equal(hits.rows_visited, (uint64_t)QUERIES * ROWS);
    vex_collection_close(collection);
    vex_close(db);
}

static void a_recall_that_is_asked_for_becomes_a_number_of_lists(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    struct vex_collection *collection = make(db, "c", VEX_METRIC_L2, 0);
    put(collection, 0, ROWS, 0);
    compact(db, "c");
    static struct batch_hits truth;
    search(collection, NULL, QUERIES, true, 0, &truth);
    const float shares[] = {0.5f, 0.9f, 0.99f};
    uint64_t visited = 0;
    for (size_t i = 0; i < 3; i++) {
        double same = 0;
        uint64_t rows = 0;
        for (uint32_t q = 0; q < QUERIES; q++) {
            float query[DIM];
            uint64_t ids[K];
            float distances[K];
            uint32_t count = 0;
            make_vector(7 * q, 1000 + q, query);
            struct vex_search_options options = VEX_SEARCH_OPTIONS_INIT;
            options.k = K;
            options.recall = shares[i];
            struct vex_results results = {
                .size = sizeof(results), .ids = ids, .distances = distances, .counts = &count};
            struct vex_search_info info = {.size = sizeof(info)};
            assert_ok(vex_search(collection, query, 1, DIM, &options, &results, &info, sink));
            rows += info.rows_visited;
            for (uint32_t j = 0; j < K * K; j++) {
                same += ids[j / K] == truth.ids[q][j % K];
            }
        }
        assert_true(same / (QUERIES * K) >= (double)shares[i] - 0.03);
        assert_true(rows > visited && rows < (uint64_t)QUERIES * ROWS);
        visited = rows;
    }
    vex_collection_close(collection);
    vex_close(db);
}

static void few_rows_have_no_lists(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    struct vex_collection *collection = make(db, "c", VEX_METRIC_L2, 0);
    put(collection, 0, 500, 0);
    compact(db, "c");
    static struct batch_hits hits;
    search(collection, NULL, QUERIES, false, 0, &hits);
    assert_string_equal(hits.mode, "exact");
    vex_collection_close(collection);
    vex_close(db);
}

static void replaced_and_deleted_rows_are_never_found_and_k_are(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    struct vex_collection *collection = make(db, "c", VEX_METRIC_L2, 0);
    put(collection, 0, ROWS, 0);
    compact(db, "c");
    /* A third replaced, in a tail without lists; a third deleted. */
    put(collection, 0, ROWS / 3, 1);
    for (uint64_t id = ROWS / 3; id < ROWS / 3 * 2; id++) {
        assert_ok(vex_delete(collection, id, NULL, sink));
    }
    assert_true(recall(collection, 60) >= 0.97);
    /* The rows anew, in lists of their own order. */
    compact(db, "c");
    assert_int_equal(segments_with_lists(collection), 1);
    assert_true(recall(collection, 60) >= 0.97);
    vex_collection_close(collection);
    vex_close(db);
}

static void a_restart_finds_its_lists(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    struct vex_collection *collection = make(db, "c", VEX_METRIC_COSINE, 0);
    put(collection, 0, ROWS, 0);
    compact(db, "c");
    static struct batch_hits before;
    static struct batch_hits after;
    search(collection, NULL, QUERIES, false, 20, &before);
    vex_collection_close(collection);
    vex_close(db);
    assert_int_equal(vex_fixture_kill(*state), -SIGKILL);
    vex_fixture_start(*state, NULL);
    db = vex_fixture_open(*state);
    assert_ok(vex_collection_open(db, "c", &collection, sink));
    assert_int_equal(segments_with_lists(collection), 1);
    search(collection, NULL, QUERIES, false, 20, &after);
    assert_memory_equal(before.ids, after.ids, sizeof(before.ids));
    assert_memory_equal(before.distances, after.distances, sizeof(before.distances));
    vex_collection_close(collection);
    vex_close(db);
}

static bool has_index(void *context)
{
    static struct batch_hits hits;
    const void *const *words = context;
    search((struct vex_collection *)(uintptr_t)words[0], NULL, QUERIES, false, 20, &hits);
    return strcmp(hits.mode, words[1]) == 0;
}

static void alter(struct vex_db *db, enum vex_index_kind index)
{
    struct vex_alter_options options = VEX_ALTER_OPTIONS_INIT;
    options.changes = VEX_ALTER_INDEX;
    options.index = index;
    assert_ok(vex_collection_alter(db, "c", &options, sink));
}

/* From lists to a graph and back, while it serves. */
static void lists_become_a_graph_and_lists_again(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    struct vex_collection *collection = make(db, "c", VEX_METRIC_L2, 0);
    put(collection, 0, ROWS, 0);
    compact(db, "c");
    const enum vex_index_kind kinds[] = {VEX_INDEX_HNSW, VEX_INDEX_IVF, VEX_INDEX_FLAT};
    const char *const modes[] = {"hnsw", "ivf", "exact"};
    for (size_t i = 0; i < 3; i++) {
        const void *words[] = {collection, modes[i]};
        alter(db, kinds[i]);
        assert_true(vex_fixture_eventually(has_index, words, 60000));
        if (kinds[i] == VEX_INDEX_IVF) {
            assert_true(recall(collection, 60) >= 0.97);
        }
    }
    vex_collection_close(collection);
    vex_close(db);
}

/* Rows that are halves or bytes are clustered, coded and ranked as what they stand for. */
static void lists_are_for_every_storage(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    const enum vex_storage kinds[] = {VEX_STORAGE_FLOAT16, VEX_STORAGE_INT8};
    const char *const names[] = {"halves", "bytes"};
    for (size_t i = 0; i < 2; i++) {
        struct vex_collection_options options = VEX_COLLECTION_OPTIONS_INIT;
        options.dim = DIM;
        options.metric = VEX_METRIC_COSINE;
        options.index = VEX_INDEX_IVF;
        options.storage = kinds[i];
        assert_ok(vex_collection_create(db, names[i], &options, sink));
        struct vex_collection *collection = NULL;
        assert_ok(vex_collection_open(db, names[i], &collection, sink));
        put(collection, 0, ROWS, 0);
        compact(db, names[i]);
        assert_int_equal(segments_with_lists(collection), 1);
        assert_true(recall(collection, 60) >= 0.97);
        vex_collection_close(collection);
    }
    vex_close(db);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_daemon(lists_find_most_and_tell_the_truth),
        with_daemon(more_lists_are_more_work),
        with_daemon(a_recall_that_is_asked_for_becomes_a_number_of_lists),
        with_daemon(few_rows_have_no_lists),
        with_daemon(replaced_and_deleted_rows_are_never_found_and_k_are),
        with_daemon(a_restart_finds_its_lists),
        with_daemon(lists_become_a_graph_and_lists_again),
        with_daemon(lists_are_for_every_storage),
    };
    return run_cases("ivf", tests);
}
