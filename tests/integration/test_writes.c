/*
 * Writes: what an insert, upsert, update and delete do, alone and in batches, what an
 * acknowledgement says, every refusal with its message, and that a refusal changes nothing.
 */
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "tests/integration/check.h"
#include "tests/lib/random.h"

struct bench {
    struct vex_db *db;
    struct vex_collection *points; /* dim 4, L2 */
};

static struct bench bench_of(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    return (struct bench){db, vex_fixture_collection(db, "points", 4, VEX_METRIC_L2)};
}

static void bench_end(struct bench *bench)
{
    vex_collection_close(bench->points);
    vex_close(bench->db);
}

/* Rows that tell one another apart. */
static const float *row(unsigned number)
{
    static _Thread_local float rows[8][4];
    float *out = rows[number % 8];
    for (unsigned i = 0; i < 4; i++) {
        out[i] = (float)number + (float)i / 4;
    }
    return out;
}

static struct vex_batch batch_of(const uint64_t *ids, const float *vectors, size_t count)
{
    struct vex_batch batch = VEX_BATCH_INIT;
    batch.count = count;
    batch.ids = ids;
    batch.vectors = vectors;
    batch.dim = vectors ? 4 : 0;
    return batch;
}

/* ---- single writes --------------------------------------------------------------------------- */

static void insert_takes_the_given_id_or_makes_one(void **state)
{
    struct bench bench = bench_of(state);
    struct vex_ack ack = VEX_ACK_INIT;
    uint64_t lsn = totals_of(bench.db).lsn;
    uint64_t id = 41;
    assert_ok(vex_insert(bench.points, &id, row(1), 4, "one", 3, &ack, sink));
    assert_int_equal(ack.size, sizeof(ack));
    assert_int_equal(ack.lsn, lsn + 1);
    assert_int_equal(ack.first_id, 41);
    assert_int_equal(ack.count, 1);
    assert_ok(vex_insert(bench.points, NULL, row(2), 4, NULL, 0, &ack, sink));
    assert_int_equal(ack.lsn, lsn + 2);
    assert_int_equal(ack.first_id, 42);
    assert_ok(vex_insert(bench.points, NULL, row(3), 4, "", 0, &ack, sink));
    assert_int_equal(ack.first_id, 43);
    assert_ok(vex_insert(bench.points, NULL, row(4), 4, NULL, 0, NULL, sink));
    assert_holds(bench.points, 41, row(1), 4, "one", 3);
    assert_holds(bench.points, 42, row(2), 4, NULL, 0);
    assert_holds(bench.points, 43, row(3), 4, "", 0);
    assert_holds(bench.points, 44, row(4), 4, NULL, 0);
    assert_int_equal(count_of(bench.points), 4);
    bench_end(&bench);
}

static void made_ids_begin_at_zero_and_are_not_made_again(void **state)
{
    struct bench bench = bench_of(state);
    struct vex_ack ack = VEX_ACK_INIT;
    assert_ok(vex_insert(bench.points, NULL, row(0), 4, NULL, 0, &ack, sink));
    assert_int_equal(ack.first_id, 0);
    assert_ok(vex_delete(bench.points, 0, NULL, sink));
    assert_ok(vex_insert(bench.points, NULL, row(1), 4, NULL, 0, &ack, sink));
    assert_int_equal(ack.first_id, 1);
    assert_int_equal(vex_fixture_stop(*state), 0);
    vex_fixture_start(*state, NULL);
    assert_ok(vex_delete(bench.points, 1, NULL, sink));
    assert_ok(vex_insert(bench.points, NULL, row(2), 4, NULL, 0, &ack, sink));
    assert_int_equal(ack.first_id, 2);
    bench_end(&bench);
}

static void insert_of_a_taken_id_is_refused(void **state)
{
    struct bench bench = bench_of(state);
    uint64_t id = 7;
    assert_ok(vex_insert(bench.points, &id, row(1), 4, "first", 5, NULL, sink));
    struct totals before = totals_of(bench.db);
    struct vex_ack ack = VEX_ACK_INIT;
    ack.lsn = 77;
    assert_refused(vex_insert(bench.points, &id, row(2), 4, "second", 6, &ack, sink),
                   VEX_ERR_EXISTS, "id 7 ");
    assert_non_null(strstr(check_error.message, "points"));
    assert_int_equal(ack.lsn, 77); /* untouched */
    assert_unchanged(bench.db, &before);
    assert_holds(bench.points, 7, row(1), 4, "first", 5);
    /* Once it is deleted it is free. */
    assert_ok(vex_delete(bench.points, 7, NULL, sink));
    assert_ok(vex_insert(bench.points, &id, row(3), 4, NULL, 0, NULL, sink));
    assert_holds(bench.points, 7, row(3), 4, NULL, 0);
    bench_end(&bench);
}

static void upsert_replaces_vector_and_payload(void **state)
{
    struct bench bench = bench_of(state);
    struct vex_ack ack = VEX_ACK_INIT;
    assert_ok(vex_upsert(bench.points, 5, row(1), 4, "first", 5, &ack, sink));
    assert_int_equal(ack.first_id, 5);
    assert_ok(vex_upsert(bench.points, 5, row(2), 4, "second", 6, NULL, sink));
    assert_holds(bench.points, 5, row(2), 4, "second", 6);
    assert_ok(vex_upsert(bench.points, 5, row(3), 4, NULL, 0, NULL, sink));
    assert_holds(bench.points, 5, row(3), 4, NULL, 0);
    assert_int_equal(count_of(bench.points), 1);
    bench_end(&bench);
}

static void update_needs_the_id_and_keeps_a_payload_that_is_not_given(void **state)
{
    struct bench bench = bench_of(state);
    assert_ok(vex_upsert(bench.points, 5, row(1), 4, "kept", 4, NULL, sink));
    struct totals before = totals_of(bench.db);
    assert_refused(vex_update(bench.points, 6, row(2), 4, "new", 3, NULL, sink), VEX_ERR_NOT_FOUND,
                   "id 6 ");
    assert_non_null(strstr(check_error.message, "points"));
    assert_unchanged(bench.db, &before);
    assert_false(exists_in(bench.points, 6));
    assert_ok(vex_update(bench.points, 5, row(2), 4, NULL, 0, NULL, sink));
    assert_holds(bench.points, 5, row(2), 4, "kept", 4);
    assert_ok(vex_update(bench.points, 5, row(3), 4, "", 0, NULL, sink));
    assert_holds(bench.points, 5, row(3), 4, "", 0);
    assert_ok(vex_update(bench.points, 5, row(4), 4, NULL, 0, NULL, sink));
    assert_holds(bench.points, 5, row(4), 4, "", 0);
    assert_ok(vex_upsert(bench.points, 5, row(5), 4, NULL, 0, NULL, sink));
    assert_ok(vex_update(bench.points, 5, row(6), 4, NULL, 0, NULL, sink));
    assert_holds(bench.points, 5, row(6), 4, NULL, 0);
    assert_int_equal(count_of(bench.points), 1);
    bench_end(&bench);
}

static void delete_needs_the_id(void **state)
{
    struct bench bench = bench_of(state);
    assert_ok(vex_upsert(bench.points, 5, row(1), 4, NULL, 0, NULL, sink));
    struct vex_ack ack = VEX_ACK_INIT;
    assert_ok(vex_delete(bench.points, 5, &ack, sink));
    assert_int_equal(ack.count, 1);
    assert_int_equal(ack.first_id, 5);
    assert_false(exists_in(bench.points, 5));
    struct totals before = totals_of(bench.db);
    assert_refused(vex_delete(bench.points, 5, NULL, sink), VEX_ERR_NOT_FOUND, "id 5 ");
    assert_refused(vex_update(bench.points, 5, row(1), 4, NULL, 0, NULL, sink), VEX_ERR_NOT_FOUND,
                   "id 5 ");
    assert_unchanged(bench.db, &before);
    bench_end(&bench);
}

/* ---- batches --------------------------------------------------------------------------------- */

static void a_batch_is_one_record(void **state)
{
    struct bench bench = bench_of(state);
    uint64_t lsn = totals_of(bench.db).lsn;
    const uint64_t ids[3] = {30, 10, 20};
    float vectors[3][4];
    for (unsigned i = 0; i < 3; i++) {
        memcpy(vectors[i], row(i), sizeof(vectors[i]));
    }
    const void *payloads[3] = {"thirty", NULL, ""};
    const size_t payload_bytes[3] = {6, 99, 0}; /* the second is not looked at */
    struct vex_batch batch = batch_of(ids, vectors[0], 3);
    batch.payloads = payloads;
    batch.payload_bytes = payload_bytes;
    struct vex_ack ack = VEX_ACK_INIT;
    assert_ok(vex_write(bench.points, VEX_WRITE_INSERT, &batch, &ack, sink));
    assert_int_equal(ack.lsn, lsn + 1);
    assert_int_equal(ack.count, 3);
    assert_holds(bench.points, 30, row(0), 4, "thirty", 6);
    assert_holds(bench.points, 10, row(1), 4, NULL, 0);
    assert_holds(bench.points, 20, row(2), 4, "", 0);
    /* Made ids follow the largest one. */
    batch.ids = NULL;
    assert_ok(vex_write(bench.points, VEX_WRITE_INSERT, &batch, &ack, sink));
    assert_int_equal(ack.first_id, 31);
    assert_int_equal(ack.count, 3);
    assert_holds(bench.points, 33, row(2), 4, "", 0);
    batch.ids = ids;
    batch.vectors = NULL;
    batch.dim = 0;
    batch.payloads = NULL;
    assert_ok(vex_write(bench.points, VEX_WRITE_DELETE, &batch, &ack, sink));
    assert_int_equal(ack.lsn, lsn + 3);
    assert_int_equal(ack.count, 3);
    assert_int_equal(count_of(bench.points), 3);
    bench_end(&bench);
}

static void one_bad_item_refuses_the_whole_batch(void **state)
{
    struct bench bench = bench_of(state);
    assert_ok(vex_upsert(bench.points, 3, row(3), 4, "three", 5, NULL, sink));
    struct totals before = totals_of(bench.db);
    float vectors[4][4] = {{0}};
    const uint64_t ids[4] = {1, 2, 3, 4};
    struct vex_batch batch = batch_of(ids, vectors[0], 4);
    assert_refused(vex_write(bench.points, VEX_WRITE_INSERT, &batch, NULL, sink), VEX_ERR_EXISTS,
                   "item 2: id 3 ");
    const uint64_t some[3] = {3, 3000, 5};
    batch = batch_of(some, vectors[0], 3);
    assert_refused(vex_write(bench.points, VEX_WRITE_UPDATE, &batch, NULL, sink), VEX_ERR_NOT_FOUND,
                   "item 1: id 3000 ");
    batch = batch_of(some, NULL, 3);
    assert_refused(vex_write(bench.points, VEX_WRITE_DELETE, &batch, NULL, sink), VEX_ERR_NOT_FOUND,
                   "item 1: id 3000 ");
    assert_unchanged(bench.db, &before);
    assert_holds(bench.points, 3, row(3), 4, "three", 5);
    assert_false(exists_in(bench.points, 1));
    assert_false(exists_in(bench.points, 4));
    bench_end(&bench);
}

static void a_repeated_id_is_refused_by_insert_and_delete(void **state)
{
    struct bench bench = bench_of(state);
    for (uint64_t id = 1; id <= 3; id++) {
        assert_ok(vex_upsert(bench.points, id, row(1), 4, NULL, 0, NULL, sink));
    }
    struct totals before = totals_of(bench.db);
    float vectors[3][4] = {{0}};
    const uint64_t fresh[3] = {8, 9, 8};
    struct vex_batch batch = batch_of(fresh, vectors[0], 3);
    assert_refused(vex_write(bench.points, VEX_WRITE_INSERT, &batch, NULL, sink), VEX_ERR_EXISTS,
                   "item 2: id 8 ");
    const uint64_t present[3] = {1, 2, 2};
    batch = batch_of(present, NULL, 3);
    assert_refused(vex_write(bench.points, VEX_WRITE_DELETE, &batch, NULL, sink), VEX_ERR_EXISTS,
                   "item 2: id 2 ");
    assert_unchanged(bench.db, &before);
    bench_end(&bench);
}

static void the_last_one_of_a_repeated_id_wins(void **state)
{
    struct bench bench = bench_of(state);
    float vectors[4][4];
    for (unsigned i = 0; i < 4; i++) {
        memcpy(vectors[i], row(i), sizeof(vectors[i]));
    }
    const uint64_t ids[4] = {1, 2, 1, 1};
    const void *payloads[4] = {"a", "b", "c", NULL};
    const size_t payload_bytes[4] = {1, 1, 1, 0};
    struct vex_batch batch = batch_of(ids, vectors[0], 4);
    batch.payloads = payloads;
    batch.payload_bytes = payload_bytes;
    assert_ok(vex_write(bench.points, VEX_WRITE_UPSERT, &batch, NULL, sink));
    assert_int_equal(count_of(bench.points), 2);
    assert_holds(bench.points, 1, row(3), 4, NULL, 0);
    assert_holds(bench.points, 2, row(1), 4, "b", 1);
    /* In an update the last item without a payload keeps the one that came before it. */
    assert_ok(vex_write(bench.points, VEX_WRITE_UPDATE, &batch, NULL, sink));
    assert_int_equal(count_of(bench.points), 2);
    assert_holds(bench.points, 1, row(3), 4, "c", 1);
    bench_end(&bench);
}

/*
 * An update may set a payload and keep it later in the same batch, so what it needs is not what the
 * state before it tells. Segments of 64 rows of dim 1024 fill up quickly with payloads; sizes vary so
 * that every kind of remainder is met.
 */
static void updates_that_set_and_keep_a_payload_in_one_batch_always_fit(void **state)
{
    struct vex_fixture *fixture = *state;
    enum { DIM = 1024, IDS = 40 };
    struct vex_db *db = vex_fixture_open(fixture);
    struct vex_collection *collection = vex_fixture_collection(db, "big", DIM, VEX_METRIC_L2);
    struct vex_random random = vex_random_seeded(vex_random_announce(__func__));
    float *vectors = test_calloc(2 * DIM, sizeof(*vectors));
    uint8_t *bytes = test_malloc(VEX_PAYLOAD_MAX);
    memset(bytes, 'p', VEX_PAYLOAD_MAX);
    for (uint64_t id = 0; id < IDS; id++) {
        vectors[0] = (float)id;
        assert_ok(vex_insert(collection, &id, vectors, DIM, NULL, 0, NULL, sink));
    }
    for (unsigned round = 0; round < 400; round++) {
        uint64_t id = vex_random_below(&random, IDS);
        const uint64_t ids[2] = {id, id};
        vectors[DIM] = (float)round;
        /* Sometimes more than there was, sometimes less. */
        size_t size = vex_random_once_in(&random, 3) ? 1 : 1 + vex_random_below(&random, 60000);
        const void *payloads[2] = {bytes, NULL};
        const size_t payload_bytes[2] = {size, 0};
        struct vex_batch batch = VEX_BATCH_INIT;
        batch.count = 2;
        batch.ids = ids;
        batch.vectors = vectors;
        batch.dim = DIM;
        batch.payloads = payloads;
        batch.payload_bytes = payload_bytes;
        assert_ok(vex_write(collection, VEX_WRITE_UPDATE, &batch, NULL, sink));
        assert_true(vex_fixture_is_running(fixture));
        assert_holds(collection, id, vectors + DIM, DIM, bytes, size);
    }
    test_free(bytes);
    test_free(vectors);
    vex_collection_close(collection);
    vex_close(db);
}

/* ---- refusals -------------------------------------------------------------------------------- */

static void values_that_are_not_finite_are_refused(void **state)
{
    struct bench bench = bench_of(state);
    static const float bad[] = {NAN, -NAN, INFINITY, -INFINITY};
    struct totals before = totals_of(bench.db);
    for (unsigned place = 0; place < 4; place++) {
        for (size_t i = 0; i < 4; i++) {
            float vector[4] = {1, 2, 3, 4};
            vector[place] = bad[i];
            assert_refused(vex_insert(bench.points, NULL, vector, 4, NULL, 0, NULL, sink),
                           VEX_ERR_NOT_FINITE, "item 0");
            assert_refused(vex_upsert(bench.points, 9, vector, 4, NULL, 0, NULL, sink),
                           VEX_ERR_NOT_FINITE, "item 0");
            assert_refused(vex_update(bench.points, 9, vector, 4, NULL, 0, NULL, sink),
                           VEX_ERR_NOT_FINITE, "item 0");
        }
    }
    float vectors[3][4] = {{0}};
    vectors[2][3] = NAN;
    const uint64_t ids[3] = {1, 2, 3};
    struct vex_batch batch = batch_of(ids, vectors[0], 3);
    assert_refused(vex_write(bench.points, VEX_WRITE_INSERT, &batch, NULL, sink),
                   VEX_ERR_NOT_FINITE, "item 2");
    assert_unchanged(bench.db, &before);
    bench_end(&bench);
}

static void a_zero_vector_is_refused_under_cosine_only(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    static const float zero[4] = {0, -0.0f, 0, 0};
    static const float least[4] = {0, 0, 1e-45f, 0};
    for (int metric = VEX_METRIC_L2; metric <= VEX_METRIC_DOT; metric++) {
        struct vex_collection *collection = vex_fixture_collection(
            db, vex_metric_name((enum vex_metric)metric), 4, (enum vex_metric)metric);
        struct totals before = totals_of(db);
        if (metric == VEX_METRIC_COSINE) {
            assert_refused(vex_upsert(collection, 6, zero, 4, NULL, 0, NULL, sink),
                           VEX_ERR_ZERO_VECTOR, "cosine");
            const float rows[3][4] = {{1}, {0}, {1}};
            const uint64_t ids[3] = {1, 2, 3};
            struct vex_batch batch = batch_of(ids, rows[0], 3);
            assert_refused(vex_write(collection, VEX_WRITE_INSERT, &batch, NULL, sink),
                           VEX_ERR_ZERO_VECTOR, "item 1");
            assert_unchanged(db, &before);
        } else {
            assert_ok(vex_upsert(collection, 6, zero, 4, NULL, 0, NULL, sink));
            assert_holds(collection, 6, zero, 4, NULL, 0);
        }
        assert_ok(vex_upsert(collection, 7, least, 4, NULL, 0, NULL, sink));
        vex_collection_close(collection);
    }
    vex_close(db);
}

static void shapes_that_do_not_fit_are_refused(void **state)
{
    struct bench bench = bench_of(state);
    assert_ok(vex_upsert(bench.points, 1, row(1), 4, NULL, 0, NULL, sink));
    struct totals before = totals_of(bench.db);
    const float vectors[2][4] = {{1}, {2}};
    const uint64_t ids[2] = {1, 2};
    const void *payloads[2] = {"a", "b"};
    const size_t payload_bytes[2] = {1, 1};
    struct vex_batch good = batch_of(ids, vectors[0], 2);
    struct vex_batch batch = good;
    struct vex_ack ack = {0};

    assert_refused(vex_insert(bench.points, NULL, vectors[0], 3, NULL, 0, NULL, sink), VEX_ERR_DIM,
                   "dimension 3");
    assert_non_null(strstr(check_error.message, "points"));
    assert_refused(vex_upsert(bench.points, 1, vectors[0], 0, NULL, 0, NULL, sink), VEX_ERR_DIM,
                   "dimension 0");
    assert_refused(vex_update(bench.points, 1, vectors[0], 5, NULL, 0, NULL, sink), VEX_ERR_DIM,
                   "dimension 5");
    assert_refused(vex_upsert(bench.points, 1, NULL, 4, NULL, 0, NULL, sink), VEX_ERR_INVALID,
                   "vectors");

    assert_refused(vex_write(bench.points, VEX_WRITE_INSERT, NULL, NULL, sink), VEX_ERR_INVALID,
                   "batch");
    assert_refused(vex_write(NULL, VEX_WRITE_INSERT, &good, NULL, sink), VEX_ERR_INVALID,
                   "collection");
    batch.size = sizeof(batch) - 8;
    assert_refused(vex_write(bench.points, VEX_WRITE_UPSERT, &batch, NULL, sink), VEX_ERR_INVALID,
                   "size");
    assert_refused(vex_write(bench.points, VEX_WRITE_UPSERT, &good, &ack, sink), VEX_ERR_INVALID,
                   "size");
    assert_refused(vex_write(bench.points, (enum vex_write_kind)0, &good, NULL, sink),
                   VEX_ERR_INVALID, "kind 0");
    assert_refused(vex_write(bench.points, (enum vex_write_kind)5, &good, NULL, sink),
                   VEX_ERR_INVALID, "kind 5");

    batch = good;
    batch.count = 0;
    assert_refused(vex_write(bench.points, VEX_WRITE_UPSERT, &batch, NULL, sink), VEX_ERR_LIMIT,
                   "0 items");
    batch.count = VEX_BATCH_COUNT_MAX + 1;
    assert_refused(vex_write(bench.points, VEX_WRITE_UPSERT, &batch, NULL, sink), VEX_ERR_LIMIT,
                   "1048577");
    batch.count = SIZE_MAX;
    assert_refused(vex_write(bench.points, VEX_WRITE_UPSERT, &batch, NULL, sink), VEX_ERR_LIMIT,
                   "items");
    batch = good;
    batch.ids = NULL;
    assert_refused(vex_write(bench.points, VEX_WRITE_UPSERT, &batch, NULL, sink), VEX_ERR_INVALID,
                   "ids");
    assert_refused(vex_write(bench.points, VEX_WRITE_UPDATE, &batch, NULL, sink), VEX_ERR_INVALID,
                   "ids");
    batch = good;
    batch.payloads = payloads;
    assert_refused(vex_write(bench.points, VEX_WRITE_UPSERT, &batch, NULL, sink), VEX_ERR_INVALID,
                   "payload_bytes");
    batch.payload_bytes = payload_bytes;
    assert_refused(vex_write(bench.points, VEX_WRITE_DELETE, &batch, NULL, sink), VEX_ERR_INVALID,
                   "delete");
    batch = batch_of(NULL, NULL, 2);
    assert_refused(vex_write(bench.points, VEX_WRITE_DELETE, &batch, NULL, sink), VEX_ERR_INVALID,
                   "ids");
    batch = batch_of(ids, NULL, 2);
    batch.dim = 4;
    assert_refused(vex_write(bench.points, VEX_WRITE_DELETE, &batch, NULL, sink), VEX_ERR_INVALID,
                   "delete");
    assert_unchanged(bench.db, &before);
    assert_holds(bench.points, 1, row(1), 4, NULL, 0);
    bench_end(&bench);
}

static void limits_of_ids_payloads_and_batches_are_kept(void **state)
{
    struct bench bench = bench_of(state);
    struct totals before = totals_of(bench.db);
    const uint64_t never = UINT64_MAX;
    uint8_t *bytes = test_calloc(1, VEX_PAYLOAD_MAX + 1);
    assert_refused(vex_insert(bench.points, &never, row(1), 4, NULL, 0, NULL, sink), VEX_ERR_LIMIT,
                   "item 0");
    assert_refused(vex_upsert(bench.points, never, row(1), 4, NULL, 0, NULL, sink), VEX_ERR_LIMIT,
                   "item 0");
    assert_refused(vex_delete(bench.points, never, NULL, sink), VEX_ERR_LIMIT, "item 0");
    assert_refused(vex_upsert(bench.points, 1, row(1), 4, bytes, VEX_PAYLOAD_MAX + 1, NULL, sink),
                   VEX_ERR_LIMIT, "65537");
    assert_refused(vex_upsert(bench.points, 1, row(1), 4, bytes, SIZE_MAX, NULL, sink),
                   VEX_ERR_LIMIT, "payload");
    test_free(bytes);

    /* One byte over in payloads; then in vectors alone. */
    enum { COUNT = 300 };
    static const float vectors[COUNT][4];
    const void *payloads[COUNT];
    size_t payload_bytes[COUNT];
    uint64_t ids[COUNT];
    bytes = test_calloc(1, VEX_PAYLOAD_MAX);
    size_t left = VEX_BATCH_BYTES_MAX - COUNT * (sizeof(vectors[0]) + sizeof(ids[0]));
    for (size_t i = 0; i < COUNT; i++) {
        ids[i] = i;
        payloads[i] = bytes;
        payload_bytes[i] = left < VEX_PAYLOAD_MAX ? left : VEX_PAYLOAD_MAX;
        left -= payload_bytes[i];
    }
    struct vex_batch batch = batch_of(ids, vectors[0], COUNT);
    batch.payloads = payloads;
    batch.payload_bytes = payload_bytes;
    payload_bytes[COUNT - 1]++;
    assert_refused(vex_write(bench.points, VEX_WRITE_INSERT, &batch, NULL, sink), VEX_ERR_LIMIT,
                   "16777217");
    assert_unchanged(bench.db, &before);
    payload_bytes[COUNT - 1]--;
    assert_ok(vex_write(bench.points, VEX_WRITE_INSERT, &batch, NULL, sink));
    assert_int_equal(count_of(bench.points), COUNT);
    test_free(bytes);

    struct vex_collection *wide = vex_fixture_collection(bench.db, "wide", 4096, VEX_METRIC_DOT);
    before = totals_of(bench.db);
    float *many = test_calloc(1024 * 4096, sizeof(float));
    batch = batch_of(NULL, many, 1023);
    batch.dim = 4096;
    assert_ok(vex_write(wide, VEX_WRITE_INSERT, &batch, NULL, sink));
    before = totals_of(bench.db);
    batch.count = 1024; /* 16 MiB of vectors, and the ids come on top */
    assert_refused(vex_write(wide, VEX_WRITE_INSERT, &batch, NULL, sink), VEX_ERR_LIMIT, "split");
    assert_unchanged(bench.db, &before);
    test_free(many);
    vex_collection_close(wide);
    bench_end(&bench);
}

static void a_refusal_names_the_item_and_its_id(void **state)
{
    struct bench bench = bench_of(state);
    struct vex_collection *cosine =
        vex_fixture_collection(bench.db, "angles", 4, VEX_METRIC_COSINE);
    float vectors[3][4] = {{1}, {1}, {1}};
    const uint64_t ids[3] = {100, 200, 300};
    const void *payloads[3] = {NULL, "x", NULL};
    const size_t payload_bytes[3] = {0, VEX_PAYLOAD_MAX + 1, 0};
    struct vex_batch batch = batch_of(ids, vectors[0], 3);
    batch.payloads = payloads;
    batch.payload_bytes = payload_bytes;
    assert_refused(vex_write(bench.points, VEX_WRITE_INSERT, &batch, NULL, sink), VEX_ERR_LIMIT,
                   "item 1");
    assert_non_null(strstr(check_error.message, "200"));
    batch.payloads = NULL;
    vectors[1][2] = NAN;
    assert_refused(vex_write(bench.points, VEX_WRITE_INSERT, &batch, NULL, sink),
                   VEX_ERR_NOT_FINITE, "item 1");
    assert_non_null(strstr(check_error.message, "200"));
    memset(vectors[1], 0, sizeof(vectors[1]));
    assert_refused(vex_write(cosine, VEX_WRITE_INSERT, &batch, NULL, sink), VEX_ERR_ZERO_VECTOR,
                   "item 1");
    assert_non_null(strstr(check_error.message, "200"));
    vex_collection_close(cosine);
    bench_end(&bench);
}

/* ---- extremes -------------------------------------------------------------------------------- */

static void the_largest_id_is_usable_and_nothing_is_made_above_it(void **state)
{
    struct vex_fixture *fixture = *state;
    struct bench bench = bench_of(state);
    struct vex_ack ack = VEX_ACK_INIT;
    uint64_t id = VEX_ID_MAX - 1;
    assert_ok(vex_insert(bench.points, &id, row(1), 4, NULL, 0, NULL, sink));
    /* There is one left. */
    assert_ok(vex_insert(bench.points, NULL, row(2), 4, NULL, 0, &ack, sink));
    assert_int_equal(ack.first_id, VEX_ID_MAX);
    assert_holds(bench.points, VEX_ID_MAX, row(2), 4, NULL, 0);
    struct totals before = totals_of(bench.db);
    assert_refused(vex_insert(bench.points, NULL, row(3), 4, NULL, 0, NULL, sink), VEX_ERR_LIMIT,
                   "ids");
    assert_refused(vex_insert(bench.points, NULL, row(3), 4, NULL, 0, NULL, sink), VEX_ERR_LIMIT,
                   "ids");
    assert_unchanged(bench.db, &before);
    assert_true(vex_fixture_is_running(fixture));
    id = 0;
    assert_ok(vex_insert(bench.points, &id, row(4), 4, NULL, 0, NULL, sink));
    assert_holds(bench.points, 0, row(4), 4, NULL, 0);
    bench_end(&bench);
}

/* As above, when the largest id itself was given by the user. */
static void no_id_is_made_after_the_largest_was_given(void **state)
{
    struct vex_fixture *fixture = *state;
    struct bench bench = bench_of(state);
    uint64_t id = VEX_ID_MAX;
    assert_ok(vex_insert(bench.points, &id, row(1), 4, NULL, 0, NULL, sink));
    struct totals before = totals_of(bench.db);
    for (int i = 0; i < 3; i++) {
        assert_refused(vex_insert(bench.points, NULL, row(2), 4, NULL, 0, NULL, sink),
                       VEX_ERR_LIMIT, "ids");
    }
    assert_unchanged(bench.db, &before);
    assert_true(vex_fixture_is_running(fixture));
    bench_end(&bench);
}

static void payloads_of_every_size_come_back(void **state)
{
    struct vex_fixture *fixture = *state;
    struct bench bench = bench_of(state);
    static const size_t sizes[] = {0, 1, 7, 8, 9, 4095, 4096, VEX_PAYLOAD_MAX - 1, VEX_PAYLOAD_MAX};
    uint8_t *bytes = test_malloc(VEX_PAYLOAD_MAX);
    for (size_t i = 0; i < VEX_PAYLOAD_MAX; i++) {
        bytes[i] = (uint8_t)(i * 7 + i / 256);
    }
    for (uint64_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        assert_ok(vex_insert(bench.points, &i, row(0), 4, bytes, sizes[i], NULL, sink));
    }
    for (int restarts = 0; restarts < 3; restarts++) {
        for (uint64_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            assert_holds(bench.points, i, row(0), 4, bytes, sizes[i]);
        }
        if (restarts == 0) {
            assert_int_equal(vex_fixture_stop(fixture), 0);
        } else {
            (void)vex_fixture_kill(fixture);
        }
        vex_fixture_start(fixture, NULL);
    }
    test_free(bytes);
    bench_end(&bench);
}

/* Shared memory is allocated at once; a guess about payloads to come must not claim all of it. */
static void one_large_payload_does_not_claim_a_gigabyte(void **state)
{
    struct vex_db *db = vex_fixture_open(*state);
    struct vex_collection *collection = vex_fixture_collection(db, "small", 1, VEX_METRIC_L2);
    uint8_t *bytes = test_calloc(1, VEX_PAYLOAD_MAX);
    const float vector[1] = {1};
    assert_ok(vex_upsert(collection, 1, vector, 1, bytes, VEX_PAYLOAD_MAX, NULL, sink));
    struct vex_collection_info info = {.size = sizeof(info)};
    assert_ok(vex_collection_describe(collection, &info, sink));
    if (info.shm_bytes > 256u << 20) {
        fail_msg("one row with a payload of 64 KiB takes %llu MiB of shared memory",
                 (unsigned long long)info.shm_bytes >> 20);
    }
    test_free(bytes);
    vex_collection_close(collection);
    vex_close(db);
}

static void vectors_of_the_largest_and_smallest_dimension(void **state)
{
    struct vex_fixture *fixture = *state;
    struct vex_db *db = vex_fixture_open(fixture);
    struct vex_random random = vex_random_seeded(vex_random_announce(__func__));
    static const uint32_t dims[] = {1, 2, 15, 16, 17, VEX_DIM_MAX};
    float *vectors = test_malloc(3 * (size_t)VEX_DIM_MAX * sizeof(float));
    for (size_t i = 0; i < 3 * (size_t)VEX_DIM_MAX; i++) {
        vectors[i] = (float)vex_random_between(&random, -1, 1);
    }
    for (int metric = VEX_METRIC_L2; metric <= VEX_METRIC_DOT; metric++) {
        for (size_t d = 0; d < sizeof(dims) / sizeof(dims[0]); d++) {
            char name[64];
            (void)snprintf(name, sizeof(name), "%s%u", vex_metric_name((enum vex_metric)metric),
                           dims[d]);
            struct vex_collection *collection =
                vex_fixture_collection(db, name, dims[d], (enum vex_metric)metric);
            struct vex_batch batch = VEX_BATCH_INIT;
            batch.count = 3;
            batch.vectors = vectors;
            batch.dim = dims[d];
            assert_ok(vex_write(collection, VEX_WRITE_INSERT, &batch, NULL, sink));
            for (uint64_t id = 0; id < 3; id++) {
                assert_holds(collection, id, vectors + id * dims[d], dims[d], NULL, 0);
            }
            uint64_t hit = 0;
            float distance = 0;
            uint32_t found = 0;
            struct vex_results results = {
                sizeof(results), &hit, &distance, &found, NULL, NULL, NULL, 0};
            struct vex_search_options options = VEX_SEARCH_OPTIONS_INIT;
            options.k = 1;
            assert_ok(vex_search(collection, vectors, 1, dims[d], &options, &results, NULL, sink));
            assert_int_equal(found, 1);
            if (metric == VEX_METRIC_L2) {
                assert_int_equal(hit, 0);
                assert_true(distance == 0);
            }
            vex_collection_close(collection);
        }
    }
    test_free(vectors);
    vex_close(db);
}

static void vectors_come_back_bit_by_bit(void **state)
{
    struct bench bench = bench_of(state);
    const float odd[4] = {-0.0f, 1e-45f, FLT_MAX, -FLT_MAX};
    const float small[4] = {FLT_MIN, -FLT_MIN / 2, FLT_EPSILON, 16777217.0f};
    assert_ok(vex_upsert(bench.points, 1, odd, 4, NULL, 0, NULL, sink));
    assert_ok(vex_upsert(bench.points, 2, small, 4, NULL, 0, NULL, sink));
    assert_holds(bench.points, 1, odd, 4, NULL, 0);
    assert_holds(bench.points, 2, small, 4, NULL, 0);
    assert_int_equal(vex_fixture_stop(*state), 0);
    vex_fixture_start(*state, NULL);
    assert_holds(bench.points, 1, odd, 4, NULL, 0);
    assert_holds(bench.points, 2, small, 4, NULL, 0);
    bench_end(&bench);
}

static void the_largest_batch_goes_in_and_out(void **state)
{
    struct vex_fixture *fixture = *state;
    struct vex_db *db = vex_fixture_open(fixture);
    struct vex_collection *collection = vex_fixture_collection(db, "many", 1, VEX_METRIC_L2);
    uint64_t *ids = test_malloc(VEX_BATCH_COUNT_MAX * sizeof(*ids));
    float *vectors = test_malloc(VEX_BATCH_COUNT_MAX * sizeof(*vectors));
    const void **payloads = test_calloc(VEX_BATCH_COUNT_MAX, sizeof(*payloads));
    size_t *payload_bytes = test_calloc(VEX_BATCH_COUNT_MAX, sizeof(*payload_bytes));
    for (size_t i = 0; i < VEX_BATCH_COUNT_MAX; i++) {
        ids[i] = i * 3;
        vectors[i] = (float)i;
    }
    payloads[5] = "five";
    payload_bytes[5] = 4;
    struct vex_batch batch = VEX_BATCH_INIT;
    batch.count = VEX_BATCH_COUNT_MAX;
    batch.ids = ids;
    batch.vectors = vectors;
    batch.dim = 1;
    batch.payloads = payloads;
    batch.payload_bytes = payload_bytes;
    struct vex_ack ack = VEX_ACK_INIT;
    assert_ok(vex_write(collection, VEX_WRITE_INSERT, &batch, &ack, sink));
    assert_int_equal(ack.count, VEX_BATCH_COUNT_MAX);
    assert_int_equal(count_of(collection), VEX_BATCH_COUNT_MAX);
    assert_holds(collection, ids[VEX_BATCH_COUNT_MAX - 1], vectors + VEX_BATCH_COUNT_MAX - 1, 1,
                 NULL, 0);
    assert_holds(collection, 15, vectors + 5, 1, "five", 4);
    batch.vectors = NULL;
    batch.dim = 0;
    batch.payloads = NULL;
    assert_ok(vex_write(collection, VEX_WRITE_DELETE, &batch, NULL, sink));
    assert_int_equal(count_of(collection), 0);
    (void)vex_fixture_kill(fixture);
    vex_fixture_start(fixture, NULL);
    assert_int_equal(count_of(collection), 0);
    struct vex_collection_info info = {.size = sizeof(info)};
    assert_ok(vex_collection_describe(collection, &info, sink));
    assert_int_equal(info.dead, VEX_BATCH_COUNT_MAX);
    test_free(payload_bytes);
    test_free(payloads);
    test_free(vectors);
    test_free(ids);
    vex_collection_close(collection);
    vex_close(db);
}

/* ---- against a model ------------------------------------------------------------------------- */

#define MODEL_IDS 60
#define MODEL_PAYLOAD_MAX 300

struct model_row {
    bool there;
    float vector[4];
    int payload_bytes; /* -1 = none */
    uint8_t payload[MODEL_PAYLOAD_MAX];
};

struct model {
    struct model_row rows[MODEL_IDS];
};

static void check_model(struct vex_collection *collection, const struct model *model)
{
    uint64_t count = 0;
    for (uint64_t id = 0; id < MODEL_IDS; id++) {
        const struct model_row *row_ = &model->rows[id];
        assert_int_equal(exists_in(collection, id), row_->there);
        if (row_->there) {
            count++;
            assert_holds(collection, id, row_->vector, 4,
                         row_->payload_bytes < 0 ? NULL : row_->payload,
                         row_->payload_bytes < 0 ? 0 : (size_t)row_->payload_bytes);
        }
    }
    assert_int_equal(count_of(collection), count);
}

#define MODEL_BATCH_MAX 12

/* What a batch makes of the model, or the status with which it must be refused. */
static enum vex_status apply_to_model(struct model *model, enum vex_write_kind kind,
                                      const struct vex_batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        bool there = model->rows[batch->ids[i]].there;
        if (kind == VEX_WRITE_INSERT && there) {
            return VEX_ERR_EXISTS;
        }
        if ((kind == VEX_WRITE_UPDATE || kind == VEX_WRITE_DELETE) && !there) {
            return VEX_ERR_NOT_FOUND;
        }
        for (size_t j = 0; j < i; j++) {
            if (batch->ids[i] == batch->ids[j] &&
                (kind == VEX_WRITE_INSERT || kind == VEX_WRITE_DELETE)) {
                return VEX_ERR_EXISTS;
            }
        }
    }
    for (size_t i = 0; i < batch->count; i++) {
        struct model_row *row_ = &model->rows[batch->ids[i]];
        row_->there = kind != VEX_WRITE_DELETE;
        if (!row_->there) {
            continue;
        }
        memcpy(row_->vector, batch->vectors + 4 * i, sizeof(row_->vector));
        if (batch->payloads[i]) {
            row_->payload_bytes = (int)batch->payload_bytes[i];
            memcpy(row_->payload, batch->payloads[i], batch->payload_bytes[i]);
        } else if (kind != VEX_WRITE_UPDATE) {
            row_->payload_bytes = -1;
        }
    }
    return VEX_OK;
}

static void random_batches_do_what_a_model_says(void **state)
{
    struct vex_fixture *fixture = *state;
    struct bench bench = bench_of(state);
    struct vex_random random = vex_random_seeded(vex_random_announce(__func__));
    struct model *model = test_calloc(1, sizeof(*model));
    unsigned refused = 0;
    for (unsigned round = 0; round < 1500; round++) {
        uint64_t ids[MODEL_BATCH_MAX];
        float vectors[MODEL_BATCH_MAX][4];
        uint8_t bytes[MODEL_BATCH_MAX][MODEL_PAYLOAD_MAX];
        const void *payloads[MODEL_BATCH_MAX];
        size_t payload_bytes[MODEL_BATCH_MAX];
        size_t count = 1 + vex_random_below(&random, vex_random_once_in(&random, 2) ? 2 : 12);
        for (size_t i = 0; i < count; i++) {
            ids[i] = vex_random_below(&random, MODEL_IDS);
            for (size_t d = 0; d < 4; d++) {
                vectors[i][d] = (float)vex_random_between(&random, -9, 9);
            }
            payload_bytes[i] = vex_random_below(&random, MODEL_PAYLOAD_MAX);
            vex_random_fill(&random, bytes[i], payload_bytes[i]);
            payloads[i] = vex_random_once_in(&random, 2) ? bytes[i] : NULL;
        }
        enum vex_write_kind kind = (enum vex_write_kind)(1 + vex_random_below(&random, 4));
        struct vex_batch batch = batch_of(ids, vectors[0], count);
        batch.payloads = payloads;
        batch.payload_bytes = payload_bytes;
        enum vex_status expected = apply_to_model(model, kind, &batch);
        if (kind == VEX_WRITE_DELETE) {
            batch = batch_of(ids, NULL, count);
        }
        enum vex_status status = vex_write(bench.points, kind, &batch, NULL, &check_error);
        if ((status == VEX_OK) != (expected == VEX_OK)) {
            fail_msg("round %u: %s instead of %s: %s", round, vex_status_name(status),
                     vex_status_name(expected), check_error.message);
        }
        refused += status != VEX_OK;
        if (round % 300 == 299) {
            check_model(bench.points, model);
            if (round % 600 == 599) {
                assert_int_equal(vex_fixture_stop(fixture), 0);
            } else {
                (void)vex_fixture_kill(fixture);
            }
            vex_fixture_start(fixture, NULL);
            check_model(bench.points, model);
        }
    }
    assert_true(refused > 100 && refused < 1400);
    test_free(model);
    bench_end(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_daemon(insert_takes_the_given_id_or_makes_one),
        with_daemon(made_ids_begin_at_zero_and_are_not_made_again),
        with_daemon(insert_of_a_taken_id_is_refused),
        with_daemon(upsert_replaces_vector_and_payload),
        with_daemon(update_needs_the_id_and_keeps_a_payload_that_is_not_given),
        with_daemon(delete_needs_the_id),
        with_daemon(a_batch_is_one_record),
        with_daemon(one_bad_item_refuses_the_whole_batch),
        with_daemon(a_repeated_id_is_refused_by_insert_and_delete),
        with_daemon(the_last_one_of_a_repeated_id_wins),
        with_daemon(updates_that_set_and_keep_a_payload_in_one_batch_always_fit),
        with_daemon(values_that_are_not_finite_are_refused),
        with_daemon(a_zero_vector_is_refused_under_cosine_only),
        with_daemon(shapes_that_do_not_fit_are_refused),
        with_daemon(limits_of_ids_payloads_and_batches_are_kept),
        with_daemon(a_refusal_names_the_item_and_its_id),
        with_daemon(the_largest_id_is_usable_and_nothing_is_made_above_it),
        with_daemon(no_id_is_made_after_the_largest_was_given),
        with_daemon(payloads_of_every_size_come_back),
        with_daemon(one_large_payload_does_not_claim_a_gigabyte),
        with_daemon(vectors_of_the_largest_and_smallest_dimension),
        with_daemon(vectors_come_back_bit_by_bit),
        with_daemon(the_largest_batch_goes_in_and_out),
        with_daemon(random_batches_do_what_a_model_says),
    };
    return run_cases("writes", tests);
}
