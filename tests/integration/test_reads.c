/*
 * Reads: search, get, exists, count and snapshots; their refusals; and that every answer of a search
 * is brute force in double precision, ties by the lower id.
 */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/integration/check.h"
#include "tests/lib/random.h"

/* ---- brute force ----------------------------------------------------------------------------- */

/* The definition in vex.h; sums in another order than the library's, hence the tolerance below. */
static double key_of(enum vex_metric metric, const float *query, const float *vector, size_t dim)
{
    double l2 = 0;
    double dot = 0;
    double query_square = 0;
    double vector_square = 0;
    for (size_t i = 0; i < dim; i++) {
        double difference = (double)query[i] - (double)vector[i];
        l2 += difference * difference;
        dot += (double)query[i] * (double)vector[i];
        query_square += (double)query[i] * (double)query[i];
        vector_square += (double)vector[i] * (double)vector[i];
    }
    switch (metric) {
    case VEX_METRIC_L2:
        return l2;
    case VEX_METRIC_COSINE:
        return 1 - dot / (sqrt(query_square) * sqrt(vector_square));
    case VEX_METRIC_DOT:
        break;
    }
    return -dot;
}

struct near {
    double key;
    uint64_t id;
};

static int by_key_and_id(const void *a, const void *b)
{
    const struct near *x = a;
    const struct near *y = b;
    if (x->key != y->key) {
        return x->key < y->key ? -1 : 1;
    }
    return x->id < y->id ? -1 : x->id > y->id;
}

/* Fails unless the hits are the k nearest of `count` rows, where row i has id ids[i]. */
static void check_hits(enum vex_metric metric, const float *query, const float *vectors,
                       const uint64_t *ids, size_t count, size_t dim, uint32_t k,
                       const uint64_t *hits, const float *distances, uint32_t found)
{
    struct near *all = test_malloc((count + 1) * sizeof(*all));
    for (size_t i = 0; i < count; i++) {
        all[i] = (struct near){key_of(metric, query, vectors + i * dim, dim), ids[i]};
    }
    qsort(all, count, sizeof(*all), by_key_and_id);
    assert_int_equal(found, count < k ? count : k);
    for (uint32_t j = 0; j < k; j++) {
        double sign = metric == VEX_METRIC_DOT ? -1 : 1;
        if (j >= found) {
            assert_int_equal(hits[j], UINT64_MAX);
            assert_true(distances[j] == (float)(sign * (double)INFINITY));
            continue;
        }
        double tolerance = 1e-9 + fabs(all[j].key) * 1e-6;
        if (fabs(sign * (double)distances[j] - all[j].key) > tolerance) {
            fail_msg("hit %u: distance %g, true one %g", j, (double)distances[j],
                     sign * all[j].key);
        }
        size_t at = 0;
        while (at < count && ids[at] != hits[j]) {
            at++;
        }
        assert_true(at < count);
        double key = key_of(metric, query, vectors + at * dim, dim);
        /* Another id only where sums in another order cannot tell the two apart. */
        if (hits[j] != all[j].id && fabs(key - all[j].key) > 1e-12 * (1 + fabs(key))) {
            fail_msg("hit %u: id %llu at %.17g, the true one is %llu at %.17g", j,
                     (unsigned long long)hits[j], key, (unsigned long long)all[j].id, all[j].key);
        }
    }
    test_free(all);
}

struct hits {
    uint64_t *ids;
    float *distances;
    uint32_t *counts;
    struct vex_results results;
};

static struct hits hits_for(size_t queries, size_t k)
{
    struct hits hits = {
        .ids = test_malloc(queries * k * sizeof(*hits.ids)),
        .distances = test_malloc(queries * k * sizeof(*hits.distances)),
        .counts = test_malloc(queries * sizeof(*hits.counts)),
    };
    hits.results = (struct vex_results){
        .size = sizeof(hits.results),
        .ids = hits.ids,
        .distances = hits.distances,
        .counts = hits.counts,
    };
    return hits;
}

static void hits_free(struct hits *hits)
{
    test_free(hits->counts);
    test_free(hits->distances);
    test_free(hits->ids);
}

static struct vex_search_options k_of(uint32_t k)
{
    struct vex_search_options options = VEX_SEARCH_OPTIONS_INIT;
    options.k = k;
    return options;
}

/* ---- search ---------------------------------------------------------------------------------- */

static void insert_all(struct vex_collection *collection, const float *vectors, const uint64_t *ids,
                       size_t count, size_t dim)
{
    for (size_t at = 0; at < count; at += 1000) {
        struct vex_batch batch = VEX_BATCH_INIT;
        batch.count = count - at < 1000 ? count - at : 1000;
        batch.ids = ids + at;
        batch.vectors = vectors + at * dim;
        batch.dim = dim;
        assert_ok(vex_write(collection, VEX_WRITE_INSERT, &batch, NULL, sink));
    }
}

/* Several segments, duplicates (ties), numbers of queries and k on both sides of every limit inside
 * the library: heaps on the stack or not, one pass over the rows or several. */
static void search_is_brute_force(void **state)
{
    enum { ROWS = 9000, DIM = 24, QUERIES = 130 };
    struct vex_db *db = vex_fixture_open(*state);
    struct vex_random random = vex_random_seeded(vex_random_announce(__func__));
    float *vectors = test_malloc(ROWS * DIM * sizeof(*vectors));
    uint64_t *ids = test_malloc(ROWS * sizeof(*ids));
    float *queries = test_malloc(QUERIES * DIM * sizeof(*queries));
    for (size_t i = 0; i < ROWS; i++) {
        ids[i] = vex_mix64(i + 1) >> 1;
        for (size_t d = 0; d < DIM; d++) {
            /* Few different values: many equal distances. */
            vectors[i * DIM + d] = i % 3 ? (float)((int)vex_random_below(&random, 5) - 2)
                                         : (float)vex_random_between(&random, -2, 2);
        }
        if (i > 100 && i % 7 == 0) {
            memcpy(vectors + i * DIM, vectors + (i - 100) * DIM, DIM * sizeof(*vectors));
        }
        vectors[i * DIM] += 0.5f; /* no zero vectors */
    }
    for (size_t i = 0; i < QUERIES * DIM; i++) {
        queries[i] = (float)((int)vex_random_below(&random, 5) - 2) + (i % DIM ? 0 : 0.25f);
    }
    static const struct {
        size_t queries;
        uint32_t k;
    } shapes[] = {{1, 1},  {1, 10},  {1, 512},      {1, 513},  {64, 8},       {64, 9},
                  {65, 1}, {130, 3}, {1, ROWS - 1}, {1, ROWS}, {2, ROWS + 5}, {1, VEX_K_MAX}};
    for (int metric = VEX_METRIC_L2; metric <= VEX_METRIC_DOT; metric++) {
        struct vex_collection *collection = vex_fixture_collection(
            db, vex_metric_name((enum vex_metric)metric), DIM, (enum vex_metric)metric);
        insert_all(collection, vectors, ids, ROWS, DIM);
        struct vex_collection_info shape = {.size = sizeof(shape)};
        assert_ok(vex_collection_describe(collection, &shape, sink));
        assert_true(shape.segments > 1);
        for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
            size_t count = shapes[s].queries;
            uint32_t k = shapes[s].k;
            struct hits hits = hits_for(count, k);
            struct vex_search_options options = k_of(k);
            struct vex_search_info info = {.size = sizeof(info)};
            assert_ok(
                vex_search(collection, queries, count, DIM, &options, &hits.results, &info, sink));
            assert_int_equal(info.count, count * (k < ROWS ? k : ROWS));
            assert_int_equal(info.rows_visited, count * ROWS);
            for (size_t q = 0; q<count; q += count> 8 ? 13 : 1) {
                check_hits((enum vex_metric)metric, queries + q * DIM, vectors, ids, ROWS, DIM, k,
                           hits.ids + q * k, hits.distances + q * k, hits.counts[q]);
            }
            hits_free(&hits);
        }
        vex_collection_close(collection);
    }
    test_free(queries);
    test_free(ids);
    test_free(vectors);
    vex_close(db);
}

static void search_says_what_it_did(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    struct vex_collection *collection = vex_fixture_collection(db, "points", 2, VEX_METRIC_L2);
    struct vex_search_info info = {.size = sizeof(info)};
    struct hits hits = hits_for(2, 10);
    const float queries[2][2] = {{0, 0}, {1, 1}};
    /* Nothing in it: no hit, which is a complete answer. */
    assert_ok(vex_search(collection, queries[0], 2, 2, NULL, &hits.results, &info, sink));
    assert_int_equal(info.count, 0);
    assert_true(info.complete);
    assert_false(info.stale);
    assert_string_equal(info.mode, "exact");
    assert_int_equal(info.rows_visited, 0);
    assert_int_equal(info.snapshot_lsn, totals_of(db).lsn);
    assert_int_equal(hits.counts[0], 0);
    for (size_t i = 0; i < 20; i++) {
        assert_int_equal(hits.ids[i], UINT64_MAX);
        assert_true(isinf(hits.distances[i]) && hits.distances[i] > 0);
    }
    struct vex_ack ack = VEX_ACK_INIT;
    for (uint64_t id = 1; id <= 3; id++) {
        const float vector[2] = {(float)id, 0};
        assert_ok(vex_insert(collection, &id, vector, 2, NULL, 0, &ack, sink));
    }
    assert_ok(vex_search(collection, queries[0], 2, 2, NULL, &hits.results, &info, sink));
    assert_int_equal(info.size, sizeof(info));
    assert_int_equal(info.count, 6);
    assert_int_equal(info.rows_visited, 6);
    assert_int_equal(info.snapshot_lsn, ack.lsn);
    assert_int_equal(hits.ids[0], 1);
    assert_true(hits.distances[2] == 9);
    assert_int_equal(hits.ids[10], 1);
    assert_true(hits.distances[10] == 1);
    /* Another collection's record moves the state forward, too. */
    struct vex_collection *other = vex_fixture_collection(db, "other", 2, VEX_METRIC_DOT);
    assert_ok(vex_search(collection, queries[0], 1, 2, NULL, &hits.results, &info, sink));
    assert_int_equal(info.snapshot_lsn, ack.lsn + 1);
    assert_ok(vex_search(other, queries[0], 1, 2, NULL, &hits.results, &info, sink));
    assert_true(isinf(hits.distances[9]) && hits.distances[9] < 0); /* dot: the other end */
    vex_collection_close(other);
    hits_free(&hits);
    vex_collection_close(collection);
    vex_close(db);
}

static void search_refuses_what_it_cannot_answer(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    struct vex_collection *points = vex_fixture_collection(db, "points", 2, VEX_METRIC_L2);
    struct vex_collection *angles = vex_fixture_collection(db, "angles", 2, VEX_METRIC_COSINE);
    const float query[2] = {1, 2};
    const float zero[4] = {1, 2, 0, -0.0f};
    float bad[6] = {1, 2, 3, 4, 5, NAN};
    struct hits hits = hits_for(3, 10);
    struct vex_results *results = &hits.results;
    struct vex_search_options options = k_of(10);

    assert_refused(vex_search(NULL, query, 1, 2, NULL, results, NULL, sink), VEX_ERR_INVALID,
                   "NULL");
    assert_refused(vex_search(points, NULL, 1, 2, NULL, results, NULL, sink), VEX_ERR_INVALID,
                   "queries");
    assert_refused(vex_search(points, query, 1, 2, NULL, NULL, NULL, sink), VEX_ERR_INVALID,
                   "results");
    assert_refused(vex_search(points, query, 1, 3, NULL, results, NULL, sink), VEX_ERR_DIM,
                   "dimension 3");
    assert_non_null(strstr(check_error.message, "points"));
    assert_refused(vex_search(points, query, 1, 0, NULL, results, NULL, sink), VEX_ERR_DIM,
                   "dimension 0");
    assert_refused(vex_search(points, bad, 3, 2, NULL, results, NULL, sink), VEX_ERR_NOT_FINITE,
                   "query 2");
    bad[5] = -INFINITY;
    assert_refused(vex_search(points, bad, 3, 2, NULL, results, NULL, sink), VEX_ERR_NOT_FINITE,
                   "query 2");
    assert_refused(vex_search(angles, zero, 2, 2, NULL, results, NULL, sink), VEX_ERR_ZERO_VECTOR,
                   "query 1");
    assert_non_null(strstr(check_error.message, "angles"));
    assert_ok(vex_search(points, zero, 2, 2, NULL, results, NULL, sink));

    options.k = 0;
    assert_refused(vex_search(points, query, 1, 2, &options, results, NULL, sink), VEX_ERR_LIMIT,
                   "k is 0");
    options.k = VEX_K_MAX + 1;
    assert_refused(vex_search(points, query, 1, 2, &options, results, NULL, sink), VEX_ERR_LIMIT,
                   "65537");
    options.k = UINT32_MAX;
    assert_refused(vex_search(points, query, 1, 2, &options, results, NULL, sink), VEX_ERR_LIMIT,
                   "4294967295");
    options.k = 1;
    assert_refused(vex_search(points, query, 0, 2, &options, results, NULL, sink), VEX_ERR_LIMIT,
                   "0 queries");
    assert_refused(vex_search(points, query, VEX_QUERIES_MAX + 1, 2, &options, results, NULL, sink),
                   VEX_ERR_LIMIT, "1048577");
    assert_refused(vex_search(points, query, SIZE_MAX, 2, &options, results, NULL, sink),
                   VEX_ERR_LIMIT, "queries");
    options.k = VEX_K_MAX;
    assert_refused(vex_search(points, query, 1025, 2, &options, results, NULL, sink), VEX_ERR_LIMIT,
                   "1025");

    options = k_of(10);
    options.size -= 8;
    assert_refused(vex_search(points, query, 1, 2, &options, results, NULL, sink), VEX_ERR_INVALID,
                   "size");
    options = k_of(10);
    options.read.size = 0;
    assert_refused(vex_search(points, query, 1, 2, &options, results, NULL, sink), VEX_ERR_INVALID,
                   "size");
    struct vex_results broken = *results;
    broken.size++;
    assert_refused(vex_search(points, query, 1, 2, NULL, &broken, NULL, sink), VEX_ERR_INVALID,
                   "size");
    for (int missing = 0; missing < 3; missing++) {
        broken = *results;
        broken.ids = missing == 0 ? NULL : broken.ids;
        broken.distances = missing == 1 ? NULL : broken.distances;
        broken.counts = missing == 2 ? NULL : broken.counts;
        assert_refused(vex_search(points, query, 1, 2, NULL, &broken, NULL, sink), VEX_ERR_INVALID,
                       "result array");
    }
    options = k_of(10);
    options.payloads = true;
    assert_refused(vex_search(points, query, 1, 2, &options, results, NULL, sink), VEX_ERR_INVALID,
                   "result array");
    struct vex_search_info info = {.size = 3};
    assert_refused(vex_search(points, query, 1, 2, NULL, results, &info, sink), VEX_ERR_INVALID,
                   "info");
    hits_free(&hits);
    vex_collection_close(angles);
    vex_collection_close(points);
    vex_close(db);
}

/* As many queries as one call takes. */
static void a_million_queries_fit_into_one_call(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    struct vex_collection *points = vex_fixture_collection(db, "points", 1, VEX_METRIC_L2);
    for (uint64_t id = 0; id < 4; id++) {
        const float vector[1] = {(float)id};
        assert_ok(vex_insert(points, &id, vector, 1, NULL, 0, NULL, sink));
    }
    struct hits hits = hits_for(VEX_QUERIES_MAX, 1);
    float *queries = test_malloc(VEX_QUERIES_MAX * sizeof(*queries));
    for (size_t i = 0; i < VEX_QUERIES_MAX; i++) {
        queries[i] = (float)(i % 4) + 0.125f;
    }
    struct vex_search_options options = k_of(1);
    assert_ok(vex_search(points, queries, VEX_QUERIES_MAX, 1, &options, &hits.results, NULL, sink));
    for (size_t i = 0; i < VEX_QUERIES_MAX; i++) {
        if (hits.ids[i] != i % 4 || hits.counts[i] != 1 || hits.distances[i] != 0.015625f) {
            fail_msg("query %zu: id %llu", i, (unsigned long long)hits.ids[i]);
        }
    }
    test_free(queries);
    hits_free(&hits);
    vex_collection_close(points);
    vex_close(db);
}

/* Where single precision overflows or vanishes the ranking in double precision still holds. */
static void extreme_values_are_ranked(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    static const float vectors[8][2] = {
        {FLT_MAX, FLT_MAX}, {FLT_MAX, -FLT_MAX}, {1e30f, 1e-30f}, {1e-30f, 2e-30f},
        {1e-38f, -1e-38f},  {1e-45f, 0},         {1, 1},          {-FLT_MAX, 1e20f},
    };
    static const float queries[5][2] = {
        {FLT_MAX, FLT_MAX}, {1e-45f, 1e-45f}, {1e-30f, 1e-30f}, {1e30f, -1e30f}, {-1, 1}};
    static const uint64_t ids[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    for (int metric = VEX_METRIC_L2; metric <= VEX_METRIC_DOT; metric++) {
        struct vex_collection *collection = vex_fixture_collection(
            db, vex_metric_name((enum vex_metric)metric), 2, (enum vex_metric)metric);
        insert_all(collection, vectors[0], ids, 8, 2);
        for (uint32_t k = 1; k <= 8; k += 7) {
            struct hits hits = hits_for(5, k);
            struct vex_search_options options = k_of(k);
            assert_ok(
                vex_search(collection, queries[0], 5, 2, &options, &hits.results, NULL, sink));
            for (size_t q = 0; q < 5; q++) {
                assert_int_equal(hits.counts[q], k);
                double last = -INFINITY;
                for (uint32_t j = 0; j < k; j++) {
                    uint64_t id = hits.ids[q * k + j];
                    assert_true(id < 8);
                    double key = key_of((enum vex_metric)metric, queries[q], vectors[id], 2);
                    assert_true(key >= last - 1e-12 * fabs(last));
                    last = key;
                }
                /* The first hit is the nearest of all. */
                double first =
                    key_of((enum vex_metric)metric, queries[q], vectors[hits.ids[q * k]], 2);
                for (size_t i = 0; i < 8; i++) {
                    double key = key_of((enum vex_metric)metric, queries[q], vectors[i], 2);
                    assert_true(first <= key + 1e-12 * fabs(key));
                }
            }
            hits_free(&hits);
        }
        vex_collection_close(collection);
    }
    vex_close(db);
}

/* ---- payloads of hits ------------------------------------------------------------------------ */

static void search_hands_out_payloads(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    struct vex_collection *points = vex_fixture_collection(db, "points", 1, VEX_METRIC_L2);
    static const char *const texts[4] = {"zero", NULL, "", "three"};
    for (uint64_t id = 0; id < 4; id++) {
        const float vector[1] = {(float)id};
        assert_ok(vex_insert(points, &id, vector, 1, texts[id], texts[id] ? strlen(texts[id]) : 0,
                             NULL, sink));
    }
    const float query[1] = {-1};
    struct hits hits = hits_for(1, 6);
    const void *payloads[6];
    size_t payload_bytes[6];
    char buffer[9];
    hits.results.payloads = payloads;
    hits.results.payload_bytes = payload_bytes;
    hits.results.payload_buffer = buffer;
    struct vex_search_options options = k_of(6);
    options.payloads = true;
    for (size_t room = 0; room < 9; room++) {
        hits.results.payload_buffer_bytes = room;
        memset(buffer, '#', sizeof(buffer));
        assert_refused(vex_search(points, query, 1, 1, &options, &hits.results, NULL, sink),
                       VEX_ERR_BUFFER, "9 bytes");
        for (size_t i = room; i < sizeof(buffer); i++) {
            assert_int_equal(buffer[i], '#'); /* nothing behind the room that was given */
        }
    }
    hits.results.payload_buffer_bytes = 9;
    assert_ok(vex_search(points, query, 1, 1, &options, &hits.results, NULL, sink));
    assert_int_equal(hits.counts[0], 4);
    for (uint64_t id = 0; id < 6; id++) {
        bool any = id < 4 && texts[id];
        assert_int_equal(payload_bytes[id], any ? strlen(texts[id]) : 0);
        if (any) {
            assert_non_null(payloads[id]);
            assert_memory_equal(payloads[id], texts[id], strlen(texts[id]));
        } else {
            assert_null(payloads[id]);
        }
    }
    /* From a snapshot they are not copied. */
    struct vex_snapshot *snapshot = NULL;
    assert_ok(vex_snapshot_open(points, NULL, &snapshot, sink));
    options.read.snapshot = snapshot;
    hits.results.payload_buffer = NULL;
    hits.results.payload_buffer_bytes = 0;
    assert_ok(vex_search(points, query, 1, 1, &options, &hits.results, NULL, sink));
    struct vex_record record = {.size = sizeof(record)};
    assert_ok(vex_snapshot_get(snapshot, 3, &record, sink));
    assert_ptr_equal(payloads[3], record.payload);
    assert_memory_equal(payloads[3], "three", 5);
    assert_null(payloads[1]);
    assert_non_null(payloads[2]);
    assert_int_equal(payload_bytes[2], 0);
    assert_null(payloads[4]);
    vex_snapshot_close(snapshot);
    hits_free(&hits);
    vex_collection_close(points);
    vex_close(db);
}

/* An empty payload is not the same as none, and needs no room. */
static void empty_payloads_need_no_buffer(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    struct vex_collection *points = vex_fixture_collection(db, "points", 1, VEX_METRIC_L2);
    const float vector[1] = {1};
    assert_ok(vex_upsert(points, 1, vector, 1, "", 0, NULL, sink));
    assert_ok(vex_upsert(points, 2, vector, 1, NULL, 0, NULL, sink));
    struct hits hits = hits_for(1, 2);
    const void *payloads[2];
    size_t payload_bytes[2];
    hits.results.payloads = payloads;
    hits.results.payload_bytes = payload_bytes;
    struct vex_search_options options = k_of(2);
    options.payloads = true;
    assert_ok(vex_search(points, vector, 1, 1, &options, &hits.results, NULL, sink));
    assert_int_equal(hits.ids[0], 1);
    assert_int_equal(payload_bytes[0], 0);
    assert_non_null(payloads[0]);
    assert_null(payloads[1]);
    hits_free(&hits);
    vex_collection_close(points);
    vex_close(db);
}

/* ---- one vector ------------------------------------------------------------------------------ */

static void get_copies_what_is_wanted(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    struct vex_collection *points = vex_fixture_collection(db, "points", 2, VEX_METRIC_L2);
    const float vector[2] = {1, 2};
    struct vex_ack ack = VEX_ACK_INIT;
    assert_ok(vex_upsert(points, 5, vector, 2, "payload", 7, &ack, sink));
    float got[2] = {0};
    char bytes[8] = "#######";
    struct vex_record record = {.size = sizeof(record)};
    assert_ok(vex_get(points, 5, NULL, got, 2, bytes, 7, &record, sink));
    assert_int_equal(record.size, sizeof(record));
    assert_int_equal(record.id, 5);
    assert_ptr_equal(record.vector, got);
    assert_int_equal(record.dim, 2);
    assert_ptr_equal(record.payload, bytes);
    assert_int_equal(record.payload_bytes, 7);
    assert_int_equal(record.lsn, ack.lsn);
    assert_memory_equal(got, vector, sizeof(got));
    assert_memory_equal(bytes, "payload", 7);

    assert_ok(vex_get(points, 5, NULL, got, 2, NULL, 0, NULL, sink)); /* the vector only */
    assert_ok(vex_get(points, 5, NULL, NULL, 0, bytes, 7, &record, sink));
    assert_null(record.vector);
    assert_ok(vex_get(points, 5, NULL, NULL, 0, NULL, 0, &record, sink));
    assert_null(record.vector);
    assert_null(record.payload);
    assert_int_equal(record.payload_bytes, 7); /* so a caller can ask how much room it needs */

    memset(got, 0, sizeof(got));
    memset(bytes, '#', 7);
    assert_refused(vex_get(points, 5, NULL, got, 2, bytes, 6, &record, sink), VEX_ERR_BUFFER,
                   "7 bytes");
    assert_non_null(strstr(check_error.message, "id 5"));
    assert_true(got[0] == 0 && got[1] == 0);
    assert_memory_equal(bytes, "#######", 7);
    assert_refused(vex_get(points, 6, NULL, got, 2, bytes, 7, &record, sink), VEX_ERR_NOT_FOUND,
                   "id 6 ");
    assert_non_null(strstr(check_error.message, "points"));
    assert_refused(vex_get(points, UINT64_MAX, NULL, got, 2, bytes, 7, &record, sink),
                   VEX_ERR_NOT_FOUND, "18446744073709551615");
    assert_refused(vex_get(points, 5, NULL, got, 3, NULL, 0, NULL, sink), VEX_ERR_DIM,
                   "dimension 3");
    assert_refused(vex_get(points, 5, NULL, got, 1, NULL, 0, NULL, sink), VEX_ERR_DIM,
                   "dimension 1");
    record.size = 0;
    assert_refused(vex_get(points, 5, NULL, got, 2, NULL, 0, &record, sink), VEX_ERR_INVALID,
                   "size");
    struct vex_read_options options = VEX_READ_OPTIONS_INIT;
    options.size = 1;
    assert_refused(vex_get(points, 5, &options, got, 2, NULL, 0, NULL, sink), VEX_ERR_INVALID,
                   "size");
    vex_collection_close(points);
    vex_close(db);
}

static void exists_and_count_follow_the_writes(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    struct vex_collection *points = vex_fixture_collection(db, "points", 1, VEX_METRIC_L2);
    const float vector[1] = {1};
    struct vex_read_options options = VEX_READ_OPTIONS_INIT;
    options.size += 8;
    bool there = true;
    uint64_t count = 9;
    assert_refused(vex_exists(points, 1, NULL, NULL, sink), VEX_ERR_INVALID, "out_exists");
    assert_refused(vex_exists(points, 1, &options, &there, sink), VEX_ERR_INVALID, "size");
    assert_refused(vex_count(points, NULL, NULL, sink), VEX_ERR_INVALID, "out_count");
    assert_refused(vex_count(points, &options, &count, sink), VEX_ERR_INVALID, "size");
    assert_int_equal(count, 9);
    for (unsigned round = 1; round <= 200; round++) {
        assert_false(exists_in(points, 1));
        assert_int_equal(count_of(points), 0);
        assert_ok(vex_upsert(points, 1, vector, 1, NULL, 0, NULL, sink));
        assert_true(exists_in(points, 1));
        assert_int_equal(count_of(points), 1);
        assert_ok(vex_delete(points, 1, NULL, sink));
    }
    assert_false(exists_in(points, UINT64_MAX));
    vex_collection_close(points);
    vex_close(db);
}

/* ---- snapshots ------------------------------------------------------------------------------- */

/* Everything that can be read of the snapshot of snapshots_keep_their_state. */
static void check_snapshot(struct vex_collection *points, struct vex_snapshot *snapshot,
                           uint64_t lsn, const float *vector_of_3)
{
    struct vex_read_options read = VEX_READ_OPTIONS_INIT;
    read.snapshot = snapshot;
    uint64_t count = 0;
    assert_ok(vex_count(points, &read, &count, sink));
    assert_int_equal(count, 10);
    bool there = false;
    assert_ok(vex_exists(points, 3, &read, &there, sink));
    assert_true(there);
    assert_ok(vex_exists(points, 100, &read, &there, sink));
    assert_false(there);
    struct vex_record record = {.size = sizeof(record)};
    assert_ok(vex_snapshot_get(snapshot, 3, &record, sink));
    assert_ptr_equal(record.vector, vector_of_3); /* the very same bytes */
    assert_true(record.vector[0] == 3);
    assert_int_equal(record.payload_bytes, 5);
    assert_memory_equal(record.payload, "three", 5);
    assert_int_equal(record.lsn, lsn);
    assert_int_equal(vex_snapshot_lsn(snapshot), lsn);
    float got[1] = {0};
    assert_ok(vex_get(points, 9, &read, got, 1, NULL, 0, NULL, sink));
    assert_true(got[0] == 9);
    assert_refused(vex_snapshot_get(snapshot, 100, &record, sink), VEX_ERR_NOT_FOUND, "id 100 ");
    struct vex_search_options options = k_of(20);
    options.read = read;
    struct vex_search_info info = {.size = sizeof(info)};
    struct hits hits = hits_for(1, 20);
    const float query[1] = {0};
    assert_ok(vex_search(points, query, 1, 1, &options, &hits.results, &info, sink));
    assert_int_equal(info.count, 10);
    assert_int_equal(info.snapshot_lsn, lsn);
    for (uint64_t i = 0; i < 10; i++) {
        assert_int_equal(hits.ids[i], i);
    }
    hits_free(&hits);
}

static void snapshots_keep_their_state(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    struct vex_db *other = vex_fixture_open(*state);
    struct vex_collection *points = vex_fixture_collection(db, "points", 1, VEX_METRIC_L2);
    for (uint64_t id = 0; id < 10; id++) {
        const float vector[1] = {(float)id};
        assert_ok(vex_insert(points, &id, vector, 1, id == 3 ? "three" : NULL, id == 3 ? 5 : 0,
                             NULL, sink));
    }
    uint64_t lsn = totals_of(db).lsn;
    struct vex_snapshot *snapshot = NULL;
    assert_ok(vex_snapshot_open(points, NULL, &snapshot, sink));
    struct vex_record record = {.size = sizeof(record)};
    assert_ok(vex_snapshot_get(snapshot, 3, &record, sink));
    check_snapshot(points, snapshot, lsn, record.vector);

    const float moved[1] = {-5};
    assert_ok(vex_update(points, 3, moved, 1, "moved", 5, NULL, sink));
    assert_ok(vex_delete(points, 9, NULL, sink));
    assert_ok(vex_upsert(points, 100, moved, 1, NULL, 0, NULL, sink));
    check_snapshot(points, snapshot, lsn, record.vector);
    /* Enough for new segments. */
    float *many = test_calloc(300000, sizeof(*many));
    struct vex_batch batch = VEX_BATCH_INIT;
    batch.count = 100000;
    batch.vectors = many;
    batch.dim = 1;
    for (int i = 0; i < 3; i++) {
        assert_ok(vex_write(points, VEX_WRITE_INSERT, &batch, NULL, sink));
    }
    test_free(many);
    check_snapshot(points, snapshot, lsn, record.vector);
    assert_int_equal(count_of(points), 300010);

    assert_ok(vex_collection_drop(other, "points", sink));
    check_snapshot(points, snapshot, lsn, record.vector);
    uint64_t count = 0;
    assert_refused(vex_count(points, NULL, &count, sink), VEX_ERR_GONE, "points");
    /* What is made afterwards does not take its memory. */
    struct vex_collection *next = vex_fixture_collection(other, "points", 1, VEX_METRIC_L2);
    for (uint64_t id = 0; id < 50; id++) {
        assert_ok(vex_insert(next, &id, moved, 1, "other", 5, NULL, sink));
    }
    check_snapshot(points, snapshot, lsn, record.vector);
    vex_collection_close(next);
    vex_close(other);
    vex_snapshot_close(snapshot);
    vex_collection_close(points);
    vex_close(db);
}

/* Memory of a dropped collection is given back once no snapshot needs it. */
static bool shm_is_small(void *context)
{
    struct vex_stats stats = {.size = sizeof(stats)};
    return vex_get_stats(context, &stats, NULL) == VEX_OK && stats.shm_bytes < 8u << 20;
}

static void a_closed_snapshot_gives_its_memory_back(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    struct vex_collection *points = vex_fixture_collection(db, "points", 1024, VEX_METRIC_L2);
    float *many = test_calloc(4000 * 1024, sizeof(*many));
    struct vex_batch batch = VEX_BATCH_INIT;
    batch.count = 4000;
    batch.vectors = many;
    batch.dim = 1024;
    assert_ok(vex_write(points, VEX_WRITE_INSERT, &batch, NULL, sink));
    test_free(many);
    struct vex_snapshot *snapshot = NULL;
    assert_ok(vex_snapshot_open(points, NULL, &snapshot, sink));
    assert_ok(vex_collection_drop(db, "points", sink));
    assert_false(vex_fixture_eventually(shm_is_small, db, 150));
    struct vex_record record = {.size = sizeof(record)};
    assert_ok(vex_snapshot_get(snapshot, 3999, &record, sink));
    vex_snapshot_close(snapshot);
    assert_true(vex_fixture_eventually(shm_is_small, db, 10000));
    vex_collection_close(points);
    vex_close(db);
}

static void snapshots_refuse_what_is_not_theirs(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    struct vex_db *second = vex_fixture_open(*state);
    struct vex_collection *points = vex_fixture_collection(db, "points", 1, VEX_METRIC_L2);
    struct vex_collection *same = vex_fixture_collection(db, "points", 1, VEX_METRIC_L2);
    struct vex_collection *others = vex_fixture_collection(db, "others", 1, VEX_METRIC_L2);
    struct vex_collection *far = vex_fixture_collection(second, "points", 1, VEX_METRIC_L2);
    struct vex_snapshot *const untouched = (void *)db;
    struct vex_snapshot *snapshot = untouched;
    struct vex_read_options read = VEX_READ_OPTIONS_INIT;
    assert_refused(vex_snapshot_open(points, NULL, NULL, sink), VEX_ERR_INVALID, "out_snapshot");
    read.size = 2;
    assert_refused(vex_snapshot_open(points, &read, &snapshot, sink), VEX_ERR_INVALID, "size");
    assert_null(snapshot);
    read = (struct vex_read_options)VEX_READ_OPTIONS_INIT;
    read.min_lsn = 1000000;
    read.timeout_ms = 20;
    assert_refused(vex_snapshot_open(points, &read, &snapshot, sink), VEX_ERR_TIMEOUT, "1000000");
    assert_null(snapshot);
    read.min_lsn = 0;
    assert_ok(vex_snapshot_open(points, &read, &snapshot, sink));
    read.snapshot = snapshot;
    struct vex_snapshot *copy = NULL;
    assert_refused(vex_snapshot_open(points, &read, &copy, sink), VEX_ERR_INVALID, "snapshot");

    uint64_t count = 0;
    assert_refused(vex_count(others, &read, &count, sink), VEX_ERR_INVALID, "others");
    assert_refused(vex_count(far, &read, &count, sink), VEX_ERR_INVALID, "points");
    assert_ok(vex_count(same, &read, &count, sink)); /* another handle of the same collection */
    read.min_lsn = vex_snapshot_lsn(snapshot);
    assert_ok(vex_count(points, &read, &count, sink));
    read.min_lsn++;
    assert_refused(vex_count(points, &read, &count, sink), VEX_ERR_INVALID, "min_lsn");
    struct vex_record record = {.size = 1};
    assert_refused(vex_snapshot_get(snapshot, 1, &record, sink), VEX_ERR_INVALID, "size");
    assert_refused(vex_snapshot_get(snapshot, 1, NULL, sink), VEX_ERR_INVALID, "out");
    /* It outlives the handle it was made from. */
    vex_collection_close(points);
    record.size = sizeof(record);
    assert_refused(vex_snapshot_get(snapshot, 1, &record, sink), VEX_ERR_NOT_FOUND, "id 1 ");
    vex_snapshot_close(snapshot);
    vex_collection_close(far);
    vex_collection_close(others);
    vex_collection_close(same);
    vex_close(second);
    vex_close(db);
}

/* ---- reading one's own writes ---------------------------------------------------------------- */

static void min_lsn_waits_and_times_out(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    struct vex_collection *points = vex_fixture_collection(db, "points", 1, VEX_METRIC_L2);
    const float vector[1] = {1};
    struct vex_ack ack = VEX_ACK_INIT;
    assert_ok(vex_upsert(points, 1, vector, 1, NULL, 0, &ack, sink));
    struct vex_read_options read = VEX_READ_OPTIONS_INIT;
    read.min_lsn = ack.lsn;
    read.timeout_ms = 1;
    uint64_t count = 0;
    assert_ok(vex_count(points, &read, &count, sink));
    assert_int_equal(count, 1);
    read.min_lsn = ack.lsn + 1;
    read.timeout_ms = 50;
    struct hits hits = hits_for(1, 10);
    struct vex_search_options options = k_of(10);
    options.read = read;
    bool there = false;
    uint64_t start_ms = vex_fixture_now_ms();
    assert_refused(vex_count(points, &read, &count, sink), VEX_ERR_TIMEOUT, "LSN");
    assert_refused(vex_exists(points, 1, &read, &there, sink), VEX_ERR_TIMEOUT, "LSN");
    assert_refused(vex_get(points, 1, &read, NULL, 0, NULL, 0, NULL, sink), VEX_ERR_TIMEOUT, "LSN");
    assert_refused(vex_search(points, vector, 1, 1, &options, &hits.results, NULL, sink),
                   VEX_ERR_TIMEOUT, "LSN");
    uint64_t took_ms = vex_fixture_now_ms() - start_ms;
    assert_true(took_ms >= 8 * 49 && took_ms < 10000);
    hits_free(&hits);
    vex_collection_close(points);
    vex_close(db);
}

/* Two processes take turns: one writes and tells the LSN, the other reads with it and must see that
 * very write, at once. */
static void another_process_sees_an_acknowledged_write(void **state)
{
    enum { ROUNDS = 500 };
    struct vex_fixture *fixture = *state;
    struct vex_db *db = vex_fixture_open(fixture);
    struct vex_collection *points = vex_fixture_collection(db, "points", 1, VEX_METRIC_L2);
    int to_child[2];
    int to_parent[2];
    assert_int_equal(pipe(to_child), 0);
    assert_int_equal(pipe(to_parent), 0);
    pid_t child = vex_fixture_fork();
    if (child == 0) {
        struct vex_db *own = vex_fixture_open(fixture);
        struct vex_collection *seen = vex_fixture_collection(own, "points", 1, VEX_METRIC_L2);
        for (uint64_t round = 0; round < ROUNDS; round++) {
            uint64_t lsn = 0;
            if (read(to_child[0], &lsn, sizeof(lsn)) != sizeof(lsn)) {
                _exit(2);
            }
            struct vex_read_options options = VEX_READ_OPTIONS_INIT;
            options.min_lsn = round % 2 ? lsn : 0; /* acknowledged: needs no min_lsn either */
            float got[1] = {-1};
            struct vex_record record = {.size = sizeof(record)};
            if (vex_get(seen, 7, &options, got, 1, NULL, 0, &record, NULL) != VEX_OK ||
                got[0] != (float)round || record.lsn < lsn) {
                _exit(3);
            }
            if (write(to_parent[1], "", 1) != 1) {
                _exit(4);
            }
        }
        vex_collection_close(seen);
        vex_close(own);
        _exit(0);
    }
    (void)close(to_child[0]);
    (void)close(to_parent[1]);
    char byte = 0;
    for (uint64_t round = 0; round < ROUNDS; round++) {
        const float vector[1] = {(float)round};
        struct vex_ack ack = VEX_ACK_INIT;
        assert_ok(vex_upsert(points, 7, vector, 1, NULL, 0, &ack, sink));
        assert_int_equal(write(to_child[1], &ack.lsn, sizeof(ack.lsn)), sizeof(ack.lsn));
        if (read(to_parent[0], &byte, 1) != 1) {
            break;
        }
    }
    assert_int_equal(vex_fixture_await(child, 20000), 0);
    (void)close(to_child[1]);
    (void)close(to_parent[0]);
    vex_collection_close(points);
    vex_close(db);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_daemon(search_is_brute_force),
        with_daemon(search_says_what_it_did),
        with_daemon(search_refuses_what_it_cannot_answer),
        with_daemon(a_million_queries_fit_into_one_call),
        with_daemon(extreme_values_are_ranked),
        with_daemon(search_hands_out_payloads),
        with_daemon(empty_payloads_need_no_buffer),
        with_daemon(get_copies_what_is_wanted),
        with_daemon(exists_and_count_follow_the_writes),
        with_daemon(snapshots_keep_their_state),
        with_daemon(a_closed_snapshot_gives_its_memory_back),
        with_daemon(snapshots_refuse_what_is_not_theirs),
        with_daemon(min_lsn_waits_and_times_out),
        with_daemon(another_process_sees_an_acknowledged_write),
    };
    return run_cases("reads", tests);
}
