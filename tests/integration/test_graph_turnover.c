/*
 * A collection with a graph in which every id is replaced five times, in random order, some by way of a
 * delete, while two threads search: graphs are extended and healed all the time, and what the searches say
 * must be true, and in the end as good as from a graph that was built at once.
 *
 * Each id has a number that goes up with every write: odd, and it is there with the vector of that number;
 * even, and it is deleted. The writer notes a number before it sends the write and once more when that is
 * acknowledged. An answer must then be, to its distance, the vector of a number between the last one
 * acknowledged before the search and the last one sent before its end; every id at most once, and k of them.
 */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>

#include "tests/integration/check.h"
#include "tests/lib/random.h"

#define DIM 32u
#define IDS 20000u
#define SURFACE_DIM 16u
#define TURNOVERS 5u
#define BATCH 250u
#define K 10u
#define QUERIES 1000u
#define READERS 2u
#define EF 16u
#define COMPACTIONS 4u /* of each turnover: all is merged, however busy the machine is */

struct shared {
    struct vex_fixture *fixture;
    _Atomic uint32_t sent[IDS];
    _Atomic uint32_t done[IDS];
    _Atomic bool ending;
    _Atomic uint64_t searches;
    _Atomic uint64_t walks;
};

/* Points of a bent surface of few dimensions, with some noise. */
static void make_vector(uint64_t id, uint32_t number, float *out)
{
    struct vex_random own = vex_random_seeded(1000003u * (uint64_t)(number + 1) + id);
    struct vex_random surface = vex_random_seeded(1);
    double place[SURFACE_DIM];
    for (uint32_t i = 0; i < SURFACE_DIM; i++) {
        place[i] = vex_random_between(&own, -1, 1);
    }
    for (uint32_t i = 0; i < DIM; i++) {
        double sum = vex_random_between(&own, -0.1, 0.1);
        for (uint32_t j = 0; j < SURFACE_DIM; j++) {
            sum += place[j] * vex_random_between(&surface, -1, 1);
        }
        out[i] = (float)tanh(sum);
    }
}

static float distance(const float *a, const float *b)
{
    double sum = 0;
    for (uint32_t i = 0; i < DIM; i++) {
        double difference = (double)a[i] - (double)b[i];
        sum += difference * difference;
    }
    return (float)sum;
}

struct hits {
    uint64_t ids[K];
    float distances[K];
    uint32_t count;
    const char *mode;
};

static struct hits search(struct vex_collection *collection, const float *query, bool exact)
{
    struct hits hits = {0};
    struct vex_search_options options = VEX_SEARCH_OPTIONS_INIT;
    options.k = K;
    options.exact = exact;
    options.ef_search = exact ? 0 : EF;
    struct vex_results results = {.size = sizeof(results),
                                  .ids = hits.ids,
                                  .distances = hits.distances,
                                  .counts = &hits.count};
    struct vex_search_info info = {.size = sizeof(info)};
    struct vex_error error;
    if (vex_search(collection, query, 1, DIM, &options, &results, &info, &error) != VEX_OK) {
        vex_fixture_die("search: %s", error.message);
    }
    hits.mode = info.mode;
    return hits;
}

/* ---- readers --------------------------------------------------------------------------------- */

static void check_hit(const float *query, uint64_t id, float found, uint32_t first, uint32_t last)
{
    for (uint32_t number = first | 1; number <= last; number += 2) {
        float vector[DIM];
        make_vector(id, number, vector);
        if (fabsf(distance(query, vector) - found) <= 1e-5f * found) {
            return;
        }
    }
    vex_fixture_die("id %llu at %.9g is none of its vectors %u to %u", (unsigned long long)id,
                    (double)found, first, last);
}

static void check_answer(struct shared *shared, const float *query, const struct hits *hits,
                         const uint32_t *done)
{
    if (hits->count != K) {
        vex_fixture_die("%u answers instead of %u", hits->count, K);
    }
    for (uint32_t i = 0; i < K; i++) {
        uint64_t id = hits->ids[i];
        if (id >= IDS) {
            vex_fixture_die("no such id: %llu", (unsigned long long)id);
        }
        for (uint32_t other = 0; other < i; other++) {
            if (hits->ids[other] == id) {
                vex_fixture_die("id %llu twice", (unsigned long long)id);
            }
        }
        check_hit(query, id, hits->distances[i], done[id], atomic_load(&shared->sent[id]));
    }
}

static void *read_on(void *argument)
{
    struct shared *shared = argument;
    struct vex_db *db = vex_fixture_open(shared->fixture);
    struct vex_collection *collection = vex_fixture_collection(db, "turned", DIM, VEX_METRIC_L2);
    uint32_t *done = malloc(IDS * sizeof(*done));
    struct vex_random random = vex_random_seeded((uintptr_t)&db);
    while (done && !atomic_load(&shared->ending)) {
        float query[DIM];
        make_vector(vex_random_below(&random, IDS), 1000001, query);
        for (uint32_t id = 0; id < IDS; id++) {
            done[id] = atomic_load(&shared->done[id]);
        }
        struct hits hits = search(collection, query, false);
        check_answer(shared, query, &hits, done);
        atomic_fetch_add(&shared->searches, 1);
        atomic_fetch_add(&shared->walks, strcmp(hits.mode, "hnsw") == 0);
        vex_fixture_pause_ms(1); /* the builder stands back for those who work */
    }
    free(done);
    vex_collection_close(collection);
    vex_close(db);
    return NULL;
}

/* ---- writer ---------------------------------------------------------------------------------- */

/* Raises the numbers of some ids by `step`, all being odd then, or all even. */
static void write_ids(struct shared *shared, struct vex_collection *collection, const uint64_t *ids,
                      uint32_t count, uint32_t step)
{
    static float vectors[BATCH * DIM];
    bool removes = false;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t number = atomic_load(&shared->sent[ids[i]]) + step;
        removes = number % 2 == 0;
        make_vector(ids[i], number, vectors + i * DIM);
        atomic_store(&shared->sent[ids[i]], number);
    }
    struct vex_batch batch = VEX_BATCH_INIT;
    batch.count = count;
    batch.ids = ids;
    if (!removes) {
        batch.vectors = vectors;
        batch.dim = DIM;
    }
    assert_ok(
        vex_write(collection, removes ? VEX_WRITE_DELETE : VEX_WRITE_UPSERT, &batch, NULL, sink));
    for (uint32_t i = 0; i < count; i++) {
        atomic_store(&shared->done[ids[i]], atomic_load(&shared->sent[ids[i]]));
    }
}

static void compact(struct vex_db *db, const char *name)
{
    struct vex_upkeep_info info = VEX_UPKEEP_INFO_INIT;
    assert_ok(vex_compact(db, name, NULL, &info, sink));
    assert_int_equal(info.segments_after, 1);
}

static void turn_over(struct shared *shared, struct vex_db *db, struct vex_collection *collection,
                      struct vex_random *random)
{
    uint64_t *ids = test_malloc(IDS * sizeof(*ids));
    for (uint64_t id = 0; id < IDS; id++) {
        uint64_t other = vex_random_below(random, id + 1);
        ids[id] = ids[other];
        ids[other] = id;
    }
    for (uint32_t first = 0; first < IDS; first += BATCH) {
        if (first / BATCH % 4 == 0) {
            write_ids(shared, collection, ids + first, BATCH, 1);
            write_ids(shared, collection, ids + first, BATCH, 1);
        } else {
            write_ids(shared, collection, ids + first, BATCH, 2);
        }
        if ((first / BATCH + 1) % (IDS / BATCH / COMPACTIONS) == 0) {
            compact(db, "turned");
        }
    }
    test_free(ids);
}

/* ---- what is left ---------------------------------------------------------------------------- */

static double recall(struct vex_collection *collection)
{
    unsigned hits = 0;
    for (uint64_t i = 0; i < QUERIES; i++) {
        float query[DIM];
        make_vector(i, 1000001, query);
        struct hits truth = search(collection, query, true);
        struct hits found = search(collection, query, false);
        for (uint32_t j = 0; j < K; j++) {
            hits += found.distances[j] <= truth.distances[K - 1];
        }
    }
    return hits / (double)(QUERIES * K);
}

static struct vex_collection *make(struct vex_db *db, const char *name)
{
    struct vex_collection_options options = VEX_COLLECTION_OPTIONS_INIT;
    options.dim = DIM;
    options.metric = VEX_METRIC_L2;
    options.index = VEX_INDEX_HNSW;
    assert_ok(vex_collection_create(db, name, &options, sink));
    struct vex_collection *collection = NULL;
    assert_ok(vex_collection_open(db, name, &collection, sink));
    return collection;
}

/* The same rows, in a collection that has its graph from one build. */
static struct vex_collection *make_fresh(struct shared *shared, struct vex_db *db)
{
    struct vex_collection *fresh = make(db, "fresh");
    for (uint64_t first = 0; first < IDS; first += BATCH) {
        uint64_t ids[BATCH];
        for (uint32_t i = 0; i < BATCH; i++) {
            ids[i] = first + i;
        }
        write_ids(shared, fresh, ids, BATCH, 0);
    }
    compact(db, "fresh");
    return fresh;
}

static void fill(struct shared *shared, struct vex_db *db, struct vex_collection *collection)
{
    for (uint64_t first = 0; first < IDS; first += BATCH) {
        uint64_t ids[BATCH];
        for (uint32_t i = 0; i < BATCH; i++) {
            ids[i] = first + i;
        }
        write_ids(shared, collection, ids, BATCH, 1);
    }
    compact(db, "turned");
}

static void five_turnovers_leave_a_graph_as_good_as_new(void **state)
{
    struct shared *shared = test_calloc(1, sizeof(*shared));
    struct vex_random random = vex_random_seeded(1);
    pthread_t readers[READERS];
    shared->fixture = *state;
    struct vex_db *db = vex_fixture_open(*state);
    struct vex_collection *collection = make(db, "turned");
    fill(shared, db, collection);
    for (unsigned i = 0; i < READERS; i++) {
        assert_int_equal(pthread_create(&readers[i], NULL, read_on, shared), 0);
    }
    for (unsigned round = 0; round < TURNOVERS; round++) {
        turn_over(shared, db, collection, &random);
    }
    atomic_store(&shared->ending, true);
    for (unsigned i = 0; i < READERS; i++) {
        assert_int_equal(pthread_join(readers[i], NULL), 0);
    }
    double turned = recall(collection);
    struct vex_collection *fresh_one = make_fresh(shared, db);
    double fresh = recall(fresh_one);
    print_message("recall %.4f, built at once %.4f, searches %llu\n", turned, fresh,
                  (unsigned long long)atomic_load(&shared->searches));
    assert_true(fresh > 0.8 && turned >= fresh - 0.005);
    assert_true(atomic_load(&shared->walks) > 0);
    assert_int_equal(count_of(collection), IDS);
    vex_collection_close(fresh_one);
    vex_collection_close(collection);
    vex_close(db);
    test_free(shared);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_daemon(five_turnovers_leave_a_graph_as_good_as_new),
    };
    return run_cases("graph_turnover", tests);
}
