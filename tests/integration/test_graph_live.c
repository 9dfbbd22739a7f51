/*
 * Rows arrive steadily in a collection with a graph: each is found by the next search, and the daemon keeps what
 * searches have to scan short without ever being left in peace for it: tails get graphs, small graphs join. In
 * silence one graph is left.
 */
#include "tests/integration/check.h"
#include "tests/lib/random.h"

#define DIM 24u
#define FIRST_ROWS 20000u
#define LATER_ROWS 16000u
#define BATCH 40u
#define PAUSE_MS 10u
#define K 10u
#define FOUND_LEAST 0.99
#define KEEP_UP_MS 60000u
#define TAIL_MOST 2048u
#define SEGMENTS_MOST 6u

struct stage {
    struct vex_db *db;
    struct vex_collection *collection;
    uint64_t rows;
};

static void make_vector(uint64_t id, float *out)
{
    struct vex_random random = vex_random_seeded(id + 1);
    struct vex_random cluster = vex_random_seeded(id % 61 + 1000000);
    for (uint32_t i = 0; i < DIM; i++) {
        out[i] = (float)(vex_random_between(&cluster, -1, 1) + vex_random_between(&random, -1, 1));
    }
}

static void write_rows(struct stage *stage, uint32_t count)
{
    float *vectors = test_malloc(count * DIM * sizeof(*vectors));
    for (uint32_t i = 0; i < count; i++) {
        make_vector(stage->rows + i, vectors + (size_t)i * DIM);
    }
    struct vex_batch batch = VEX_BATCH_INIT;
    batch.count = count;
    batch.vectors = vectors;
    batch.dim = DIM;
    assert_ok(vex_write(stage->collection, VEX_WRITE_INSERT, &batch, NULL, sink));
    stage->rows += count;
    test_free(vectors);
}

/* Whether a search for a row's own vector finds it. */
static bool is_found(const struct stage *stage, uint64_t id)
{
    float query[DIM];
    uint64_t ids[K];
    float distances[K];
    uint32_t count = 0;
    make_vector(id, query);
    struct vex_search_options options = VEX_SEARCH_OPTIONS_INIT;
    options.k = K;
    struct vex_results results = {
        .size = sizeof(results), .ids = ids, .distances = distances, .counts = &count};
    struct vex_search_info info = {.size = sizeof(info)};
    assert_ok(vex_search(stage->collection, query, 1, DIM, &options, &results, &info, sink));
    assert_string_equal(info.mode, "hnsw");
    assert_int_equal(count, K);
    for (uint32_t i = 1; i < K; i++) {
        assert_true(distances[i] >= distances[i - 1]);
        for (uint32_t j = 0; j < i; j++) {
            assert_int_not_equal(ids[i], ids[j]);
        }
    }
    return ids[0] == id && distances[0] == 0;
}

static struct vex_index_status status_of(const struct stage *stage)
{
    struct vex_index_status status = {.size = sizeof(status)};
    assert_ok(vex_collection_index_status(stage->db, "live", &status, sink));
    return status;
}

/* As long as a row comes now and then, it is never quiet for the daemon. */
static bool keeps_up(void *context)
{
    struct stage *stage = context;
    write_rows(stage, 1);
    assert_true(is_found(stage, stage->rows - 1)); /* it is in the tail */
    struct vex_index_status status = status_of(stage);
    return status.rows - status.rows_indexed < TAIL_MOST && status.segments <= SEGMENTS_MOST;
}

static bool is_one_graph(void *context)
{
    struct vex_index_status status = status_of(context);
    return status.rows - status.rows_indexed < TAIL_MOST && status.segments_indexed == 1 &&
           status.build_rows == 0;
}

static void what_arrives_is_found_at_once_and_soon_in_a_graph(void **state)
{
    struct stage stage = {.db = vex_fixture_open(*state)};
    struct vex_collection_options options = VEX_COLLECTION_OPTIONS_INIT;
    options.dim = DIM;
    options.index = VEX_INDEX_HNSW;
    options.ef_construction = 100;
    assert_ok(vex_collection_create(stage.db, "live", &options, sink));
    assert_ok(vex_collection_open(stage.db, "live", &stage.collection, sink));
    write_rows(&stage, FIRST_ROWS);
    struct vex_upkeep_info info = VEX_UPKEEP_INFO_INIT;
    assert_ok(vex_compact(stage.db, "live", NULL, &info, sink));
    struct vex_random random = vex_random_seeded(5);
    uint32_t found = 0;
    uint32_t asked = 0;
    while (stage.rows < FIRST_ROWS + LATER_ROWS) {
        write_rows(&stage, BATCH);
        found += is_found(&stage, stage.rows - 1 - vex_random_below(&random, BATCH));
        found += is_found(&stage, vex_random_below(&random, stage.rows));
        asked += 2;
        vex_fixture_pause_ms(PAUSE_MS);
    }
    assert_true(found >= FOUND_LEAST * asked);
    assert_true(vex_fixture_eventually(keeps_up, &stage, KEEP_UP_MS));
    assert_true(vex_fixture_eventually(is_one_graph, &stage, KEEP_UP_MS));
    found = 0;
    for (uint32_t i = 0; i < 1000; i++) {
        found += is_found(&stage, vex_random_below(&random, stage.rows));
    }
    assert_true(found >= FOUND_LEAST * 1000);
    vex_collection_close(stage.collection);
    vex_close(stage.db);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_daemon(what_arrives_is_found_at_once_and_soon_in_a_graph),
    };
    return run_cases("graph_live", tests);
}
