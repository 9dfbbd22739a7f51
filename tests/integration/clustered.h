/*
 * Collections of clustered rows, as real vectors are, for tests of what searches find. The test defines DIM
 * first. A row is made of its id and a version, 0 being the first of an id, so that nothing has to be
 * remembered.
 */
#ifndef VEX_TESTS_INTEGRATION_CLUSTERED_H
#define VEX_TESTS_INTEGRATION_CLUSTERED_H

#include "tests/integration/check.h"
#include "tests/lib/random.h"

#define CLUSTERS 40u
#define K 10u

static inline void make_vector(uint64_t id, uint64_t version, float *out)
{
    struct vex_random centre = vex_random_seeded(1 + id % CLUSTERS);
    struct vex_random own = vex_random_seeded(1000003u * (version + 1) + id);
    for (uint32_t i = 0; i < DIM; i++) {
        out[i] = (float)(vex_random_between(&centre, -1, 1) + vex_random_between(&own, -0.3, 0.3));
    }
}

static inline void write_rows(struct vex_collection *collection, uint64_t first, uint64_t count,
                              const float *vectors)
{
    uint64_t *ids = test_malloc(count * sizeof(*ids));
    for (uint64_t i = 0; i < count; i++) {
        ids[i] = first + i;
    }
    struct vex_batch batch = VEX_BATCH_INIT;
    batch.count = count;
    batch.ids = ids;
    batch.vectors = vectors;
    batch.dim = DIM;
    assert_ok(vex_write(collection, VEX_WRITE_UPSERT, &batch, NULL, sink));
    test_free(ids);
}

static inline void put(struct vex_collection *collection, uint64_t first, uint64_t count,
                       uint64_t version)
{
    float *vectors = test_malloc(count * DIM * sizeof(*vectors));
    for (uint64_t i = 0; i < count; i++) {
        make_vector(first + i, version, vectors + i * DIM);
    }
    write_rows(collection, first, count, vectors);
    test_free(vectors);
}

/* options->dim is DIM. */
static inline struct vex_collection *make_with(struct vex_db *db, const char *name,
                                               const struct vex_collection_options *options)
{
    assert_ok(vex_collection_create(db, name, options, sink));
    struct vex_collection *collection = NULL;
    assert_ok(vex_collection_open(db, name, &collection, sink));
    return collection;
}

struct hits {
    uint64_t ids[K];
    float distances[K];
    uint32_t count;
    const char *mode;
    bool complete;
};

/* options->k is K. */
static inline struct hits search_with(struct vex_collection *collection, const float *query,
                                      const struct vex_search_options *options)
{
    struct hits hits;
    struct vex_results results = {.size = sizeof(results),
                                  .ids = hits.ids,
                                  .distances = hits.distances,
                                  .counts = &hits.count};
    struct vex_search_info info = {.size = sizeof(info)};
    assert_ok(vex_search(collection, query, 1, DIM, options, &results, &info, sink));
    hits.mode = info.mode;
    hits.complete = info.complete;
    return hits;
}

#endif
