/*
 * Collections that keep less than what they are given, through the library and with a real daemon. The
 * stored row is the vector: what is read back is near what was written, and everything else (exact
 * search, distances of a walk, merges, starts) is held to what is read back, to the bit. Brute force is
 * written here, from the contract: double precision, four interleaved sums, ties by id.
 */
#include <math.h>
#include <signal.h>

#define DIM 70u
#include "tests/integration/clustered.h"

#define ROWS 6000u
#define QUERIES 30u

static const enum vex_storage storages[] = {VEX_STORAGE_FLOAT32, VEX_STORAGE_FLOAT16,
                                            VEX_STORAGE_INT8};
static const enum vex_metric metrics[] = {VEX_METRIC_L2, VEX_METRIC_COSINE, VEX_METRIC_DOT};

static struct vex_collection *make(struct vex_db *db, const char *name, enum vex_metric metric,
                                   enum vex_index_kind index, enum vex_storage storage)
{
    struct vex_collection_options options = VEX_COLLECTION_OPTIONS_INIT;
    options.dim = DIM;
    options.metric = metric;
    options.index = index;
    options.storage = storage;
    struct vex_collection *collection = make_with(db, name, &options);
    struct vex_collection_info info = {.size = sizeof(info)};
    assert_ok(vex_collection_describe(collection, &info, sink));
    assert_int_equal(info.storage, storage);
    return collection;
}

static void compact(struct vex_db *db, const char *name)
{
    struct vex_upkeep_info info = VEX_UPKEEP_INFO_INIT;
    assert_ok(vex_compact(db, name, NULL, &info, sink));
    assert_int_equal(info.segments_after, 1);
}

static float *read_all(struct vex_collection *collection, uint64_t count)
{
    float *vectors = test_malloc(count * DIM * sizeof(*vectors));
    for (uint64_t id = 0; id < count; id++) {
        assert_ok(vex_get(collection, id, NULL, vectors + id * DIM, DIM, NULL, 0, NULL, sink));
    }
    return vectors;
}

/* ---- brute force ----------------------------------------------------------------------------- */

static double dot_of(const float *a, const float *b)
{
    double sums[4] = {0};
    for (uint32_t d = 0; d < DIM; d++) {
        double product = (double)a[d] * (double)b[d];
        sums[d % 4] += product;
    }
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

static double key_of(enum vex_metric metric, const float *query, const float *row)
{
    double sums[4] = {0};
    if (metric == VEX_METRIC_DOT) {
        return -dot_of(query, row);
    }
    if (metric == VEX_METRIC_COSINE) {
        return 1 - dot_of(query, row) / (sqrt(dot_of(query, query)) * sqrt(dot_of(row, row)));
    }
    for (uint32_t d = 0; d < DIM; d++) {
        double difference = (double)query[d] - (double)row[d];
        double square = difference * difference;
        sums[d % 4] += square;
    }
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

struct truth {
    uint64_t ids[K];
    float distances[K];
    double keys[K];
    uint32_t count;
};

static void brute_force(enum vex_metric metric, const float *rows, uint64_t count,
                        const float *query, struct truth *out)
{
    out->count = 0;
    for (uint64_t id = 0; id < count; id++) {
        double key = key_of(metric, query, rows + id * DIM);
        uint32_t at = out->count;
        while (at > 0 && key < out->keys[at - 1]) {
            at--;
        }
        if (at == K) {
            continue;
        }
        out->count += out->count < K;
        for (uint32_t i = out->count - 1; i > at; i--) {
            out->keys[i] = out->keys[i - 1];
            out->ids[i] = out->ids[i - 1];
        }
        out->keys[at] = key;
        out->ids[at] = id;
    }
    for (uint32_t i = 0; i < out->count; i++) {
        out->distances[i] = (float)(metric == VEX_METRIC_DOT ? -out->keys[i] : out->keys[i]);
    }
}

static struct hits search(struct vex_collection *collection, const float *query, bool exact)
{
    struct vex_search_options options = VEX_SEARCH_OPTIONS_INIT;
    options.k = K;
    options.exact = exact;
    options.ef_search = exact ? 0 : 200;
    return search_with(collection, query, &options);
}

/* Exact search is brute force over `rows`; a walk finds most of it and says the same distances. Returns
 * how many of the walk's hits are true. */
static unsigned check_searches(struct vex_collection *collection, enum vex_metric metric,
                               const float *rows, uint64_t count)
{
    unsigned same = 0;
    for (uint64_t i = 0; i < QUERIES; i++) {
        float query[DIM];
        struct truth truth;
        make_vector(7 * i, 1000 + i, query);
        brute_force(metric, rows, count, query, &truth);
        struct hits exact = search(collection, query, true);
        assert_string_equal(exact.mode, "exact");
        assert_int_equal(exact.count, K);
        assert_memory_equal(exact.ids, truth.ids, sizeof(truth.ids));
        assert_memory_equal(exact.distances, truth.distances, sizeof(truth.distances));
        struct hits found = search(collection, query, false);
        assert_int_equal(found.count, K);
        for (uint32_t j = 0; j < K; j++) {
            double key = key_of(metric, query, rows + found.ids[j] * DIM);
            float distance = (float)(metric == VEX_METRIC_DOT ? -key : key);
            assert_memory_equal(&distance, &found.distances[j], sizeof(distance));
            same += key <= truth.keys[K - 1];
        }
    }
    return same;
}

/* ---- cases ----------------------------------------------------------------------------------- */

static void check_near(enum vex_storage storage, const float *given, const float *kept)
{
    float largest = 0;
    for (uint32_t d = 0; d < DIM; d++) {
        largest = fabsf(given[d]) > largest ? fabsf(given[d]) : largest;
    }
    for (uint32_t d = 0; d < DIM; d++) {
        double error = fabs((double)given[d] - (double)kept[d]);
        double most = 0;
        if (storage == VEX_STORAGE_FLOAT16) {
            most = fabs((double)given[d]) * 0x1p-11 + 0x1p-25;
        } else if (storage == VEX_STORAGE_INT8) {
            most = (double)largest / 127 * 0.51;
        }
        assert_true(error <= most);
    }
}

/* The next merge takes over what the last one built. */
static void check_after_changes(struct vex_db *db, const char *name,
                                struct vex_collection *collection, enum vex_metric metric)
{
    put(collection, 0, 200, 1);
    put(collection, ROWS, 300, 0);
    compact(db, name);
    float *rows = read_all(collection, ROWS + 300);
    unsigned same = check_searches(collection, metric, rows, ROWS + 300);
    assert_true(same >= QUERIES * K * 9 / 10);
    test_free(rows);
}

static void what_is_kept_is_near_and_searched_as_it_is(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    for (size_t s = 0; s < sizeof(storages) / sizeof(storages[0]); s++) {
        for (size_t m = 0; m < sizeof(metrics) / sizeof(metrics[0]); m++) {
            for (int graph = 0; graph < 2; graph++) {
                char name[32];
                (void)snprintf(name, sizeof(name), "c%zu%zu%d", s, m, graph);
                struct vex_collection *collection = make(
                    db, name, metrics[m], graph ? VEX_INDEX_HNSW : VEX_INDEX_FLAT, storages[s]);
                put(collection, 0, ROWS, 0);
                float *before = read_all(collection, ROWS);
                for (uint64_t id = 0; id < ROWS; id++) {
                    float given[DIM];
                    make_vector(id, 0, given);
                    check_near(storages[s], given, before + id * DIM);
                }
                (void)check_searches(collection, metrics[m], before, ROWS);
                compact(db, name);
                float *after = read_all(collection, ROWS);
                assert_memory_equal(before, after, ROWS * DIM * sizeof(float));
                unsigned same = check_searches(collection, metrics[m], after, ROWS);
                assert_true(same >= QUERIES * K * 9 / 10);
                test_free(before);
                test_free(after);
                check_after_changes(db, name, collection, metrics[m]);
                vex_collection_close(collection);
            }
        }
    }
    vex_close(db);
}

static void what_was_read_can_be_written_again(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    for (size_t s = 0; s < sizeof(storages) / sizeof(storages[0]); s++) {
        const char *name = vex_storage_name(storages[s]);
        struct vex_collection *collection =
            make(db, name, VEX_METRIC_L2, VEX_INDEX_AUTO, storages[s]);
        put(collection, 0, 500, 0);
        float *once = read_all(collection, 500);
        write_rows(collection, 0, 500, once);
        float *twice = read_all(collection, 500);
        assert_memory_equal(once, twice, 500 * DIM * sizeof(float));
        test_free(once);
        test_free(twice);
        vex_collection_close(collection);
    }
    vex_close(db);
}

/* The log has what was given, a checkpoint has what was kept: both must come to the same rows. */
static void starts_and_crashes_bring_the_same_rows_back(void **state)
{
    struct vex_fixture *fixture = *state;
    struct vex_db *db = vex_fixture_open(fixture);
    float *rows[2];
    for (int i = 0; i < 2; i++) {
        const char *name = vex_storage_name(storages[i + 1]);
        struct vex_collection *collection =
            make(db, name, VEX_METRIC_COSINE, VEX_INDEX_HNSW, storages[i + 1]);
        put(collection, 0, ROWS, 0);
        compact(db, name);
        put(collection, 100, 300, 1); /* behind the checkpoint of the compaction */
        rows[i] = read_all(collection, ROWS);
        vex_collection_close(collection);
    }
    vex_close(db);
    for (int round = 0; round < 3; round++) {
        if (round == 0) {
            assert_int_equal(vex_fixture_stop(fixture), 0);
        } else {
            assert_int_equal(vex_fixture_kill(fixture), -SIGKILL);
        }
        vex_fixture_start(fixture, NULL);
        db = vex_fixture_open(fixture);
        for (int i = 0; i < 2; i++) {
            struct vex_collection *collection = NULL;
            assert_ok(
                vex_collection_open(db, vex_storage_name(storages[i + 1]), &collection, sink));
            struct vex_collection_info info = {.size = sizeof(info)};
            assert_ok(vex_collection_describe(collection, &info, sink));
            assert_int_equal(info.storage, storages[i + 1]);
            assert_int_equal(info.count, ROWS);
            assert_int_equal(info.graphs, 1);
            float *again = read_all(collection, ROWS);
            assert_memory_equal(again, rows[i], ROWS * DIM * sizeof(float));
            unsigned same = check_searches(collection, VEX_METRIC_COSINE, again, ROWS);
            assert_true(same >= QUERIES * K * 9 / 10);
            test_free(again);
            vex_collection_close(collection);
        }
        if (round == 1) {
            struct vex_upkeep_info info = VEX_UPKEEP_INFO_INIT;
            assert_ok(vex_checkpoint(db, &info, sink));
        }
        vex_close(db);
    }
    test_free(rows[0]);
    test_free(rows[1]);
}

static void vectors_of_a_snapshot_stay_until_it_is_closed(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    struct vex_collection *collection =
        make(db, "c", VEX_METRIC_L2, VEX_INDEX_AUTO, VEX_STORAGE_INT8);
    put(collection, 0, 200, 0);
    float *kept = read_all(collection, 200);
    struct vex_snapshot *snapshot = NULL;
    struct vex_record records[200];
    assert_ok(vex_snapshot_open(collection, NULL, &snapshot, sink));
    put(collection, 0, 200, 1);
    compact(db, "c");
    for (uint64_t id = 0; id < 200; id++) {
        records[id] = (struct vex_record){.size = sizeof(records[id])};
        assert_ok(vex_snapshot_get(snapshot, id, &records[id], sink));
    }
    for (uint64_t id = 0; id < 200; id++) {
        assert_int_equal(records[id].dim, DIM);
        assert_memory_equal(records[id].vector, kept + id * DIM, DIM * sizeof(float));
    }
    vex_snapshot_close(snapshot);
    test_free(kept);
    vex_collection_close(collection);
    vex_close(db);
}

static enum vex_status insert(struct vex_collection *collection, uint64_t id, const float *vector,
                              struct vex_error *error)
{
    return vex_upsert(collection, id, vector, DIM, NULL, 0, NULL, error);
}

static void what_a_storage_cannot_hold_is_refused(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    struct vex_collection *halves =
        make(db, "halves", VEX_METRIC_L2, VEX_INDEX_AUTO, VEX_STORAGE_FLOAT16);
    struct vex_collection *bytes =
        make(db, "bytes", VEX_METRIC_COSINE, VEX_INDEX_AUTO, VEX_STORAGE_INT8);
    struct vex_collection *directions =
        make(db, "directions", VEX_METRIC_COSINE, VEX_INDEX_AUTO, VEX_STORAGE_FLOAT16);
    float vector[DIM] = {0};
    vector[33] = 65504;
    assert_ok(insert(halves, 1, vector, sink));
    vector[33] = 65505;
    assert_refused(insert(halves, 7, vector, sink), VEX_ERR_LIMIT, "coordinate 33 is 65505");
    assert_refused(insert(halves, 7, vector, sink), VEX_ERR_LIMIT, "(id 7)");
    assert_ok(insert(bytes, 1, vector, sink));
    vector[33] = 1e-8f;
    assert_ok(insert(halves, 2, vector, sink)); /* a zero vector has distances */
    assert_refused(insert(directions, 1, vector, sink), VEX_ERR_ZERO_VECTOR, "rounding");
    assert_ok(insert(bytes, 1, vector, sink));
    vector[33] = 1e-40f;
    assert_refused(insert(bytes, 2, vector, sink), VEX_ERR_ZERO_VECTOR, "rounding");
    vector[33] = 3e38f;
    assert_ok(insert(bytes, 3, vector, sink));
    float kept[DIM];
    assert_ok(vex_get(bytes, 3, NULL, kept, DIM, NULL, 0, NULL, sink));
    assert_true(isfinite(kept[33]) && kept[33] > 2.99e38f && kept[33] <= 3e38f);
    uint64_t count = 0;
    assert_ok(vex_count(halves, NULL, &count, sink));
    assert_int_equal(count, 2);
    vex_collection_close(halves);
    vex_collection_close(bytes);
    vex_collection_close(directions);
    vex_close(db);
}

/* Memory is the reason to keep less. */
static void less_is_kept_in_less_memory(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    uint64_t memory[3];
    for (size_t s = 0; s < sizeof(storages) / sizeof(storages[0]); s++) {
        const char *name = vex_storage_name(storages[s]);
        struct vex_collection *collection =
            make(db, name, VEX_METRIC_L2, VEX_INDEX_FLAT, storages[s]);
        put(collection, 0, ROWS, 0);
        compact(db, name);
        struct vex_collection_info info = {.size = sizeof(info)};
        assert_ok(vex_collection_describe(collection, &info, sink));
        memory[s] = info.shm_bytes / ROWS;
        vex_collection_close(collection);
    }
    /* Rows end on a line of 64 bytes: 320, 192, and 128 with a scale. */
    assert_true(memory[0] - memory[1] >= 120 && memory[1] - memory[2] >= 55);
    vex_close(db);
}

static int set_up(void **state)
{
    static struct vex_fixture fixture;
    vex_fixture_init(&fixture);
    vex_fixture_start(&fixture, NULL);
    *state = &fixture;
    return 0;
}

static int tear_down(void **state)
{
    return vex_fixture_deinit(*state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_kept_is_near_and_searched_as_it_is, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(what_was_read_can_be_written_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(starts_and_crashes_bring_the_same_rows_back, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(vectors_of_a_snapshot_stay_until_it_is_closed, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(what_a_storage_cannot_hold_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(less_is_kept_in_less_memory, set_up, tear_down),
    };
    return run_cases("test_storage", tests);
}
