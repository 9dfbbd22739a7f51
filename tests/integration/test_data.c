/*
 * Real data: each set is imported in full through the library, all its queries are answered, and the
 * answers are compared with the ground truth that came with the set.
 *
 * Which of several equally near rows stands in the ground truth, and how its author rounded, is not
 * ours to know. So a differing id is accepted if, computed here in double precision, it is as near as
 * the true neighbour, within one part in a million of the ground truth's distance.
 *
 * VEX_DATA_DIR names the directory with the sets (debian-packages, mnist784, sift10k: base, query,
 * groundtruth and groundtruth_dist as fvecs, bvecs and ivecs). Without it the test is skipped.
 */
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "tests/integration/check.h"

#define K 10u
#define IMPORT_BYTES (8u << 20)
#define TOLERANCE 1e-6
#define CANCELLATION 1e-14 /* what 1 - cosine loses of its digits when the cosine is near 1 */
#define EXIT_SKIPPED 77

struct set {
    const char *name;
    const char *suffix; /* of base and query: fvecs or bvecs */
    enum vex_metric metric;
    uint32_t rows;
    uint32_t dim;
};

static const struct set sets[] = {
    {"sift10k", "bvecs", VEX_METRIC_L2, 9000, 128},
    {"debian-packages", "fvecs", VEX_METRIC_COSINE, 62666, 256},
    {"mnist784", "bvecs", VEX_METRIC_L2, 60000, 784},
};

static const char *data_directory;

/* ---- files ----------------------------------------------------------------------------------- */

/* Rows of a file in the vecs formats, as floats or as 32-bit numbers. */
struct rows {
    uint32_t count;
    uint32_t dim;
    void *values; /* count x dim, 4 bytes each */
};

static struct rows read_rows(const char *set, const char *name, bool of_bytes)
{
    char path[4096];
    (void)snprintf(path, sizeof(path), "%s/%s/%s", data_directory, set, name);
    FILE *file = fopen(path, "rb");
    struct stat info;
    int32_t dim = 0;
    if (!file || fstat(fileno(file), &info) != 0 || fread(&dim, sizeof(dim), 1, file) != 1 ||
        dim < 1 || dim > (int32_t)VEX_DIM_MAX) {
        fail_msg("%s cannot be read", path);
    }
    size_t value_bytes = of_bytes ? 1 : 4;
    size_t row_bytes = sizeof(dim) + (size_t)dim * value_bytes;
    assert_int_equal((size_t)info.st_size % row_bytes, 0);
    struct rows rows = {(uint32_t)((size_t)info.st_size / row_bytes), (uint32_t)dim, NULL};
    rows.values = malloc((size_t)rows.count * rows.dim * 4);
    uint8_t *row = malloc(row_bytes);
    assert_true(rows.values && row);
    rewind(file);
    for (uint32_t i = 0; i < rows.count; i++) {
        assert_int_equal(fread(row, 1, row_bytes, file), row_bytes);
        assert_memory_equal(row, &dim, sizeof(dim));
        const uint8_t *values = row + sizeof(dim);
        if (of_bytes) {
            float *out = (float *)rows.values + (size_t)i * rows.dim;
            for (uint32_t d = 0; d < rows.dim; d++) {
                out[d] = values[d];
            }
        } else {
            memcpy((uint8_t *)rows.values + (size_t)i * rows.dim * 4, values, rows.dim * 4);
        }
    }
    free(row);
    (void)fclose(file);
    return rows;
}

static struct rows read_vectors(const struct set *set, const char *what)
{
    char name[64];
    (void)snprintf(name, sizeof(name), "%s.%s", what, set->suffix);
    struct rows rows = read_rows(set->name, name, set->suffix[0] == 'b');
    assert_int_equal(rows.dim, set->dim);
    return rows;
}

/* ---- checking -------------------------------------------------------------------------------- */

static double distance_of(const struct set *set, const float *a, const float *b)
{
    double l2 = 0;
    double dot = 0;
    double a_square = 0;
    double b_square = 0;
    for (uint32_t d = 0; d < set->dim; d++) {
        double difference = (double)a[d] - (double)b[d];
        l2 += difference * difference;
        dot += (double)a[d] * (double)b[d];
        a_square += (double)a[d] * (double)a[d];
        b_square += (double)b[d] * (double)b[d];
    }
    return set->metric == VEX_METRIC_L2 ? l2 : 1 - dot / (sqrt(a_square) * sqrt(b_square));
}

static void import_rows(struct vex_collection *collection, const struct set *set,
                        const struct rows *base)
{
    size_t step = IMPORT_BYTES / (set->dim * sizeof(float));
    uint64_t *ids = malloc(step * sizeof(*ids));
    assert_non_null(ids);
    for (size_t at = 0; at < base->count; at += step) {
        struct vex_batch batch = VEX_BATCH_INIT;
        batch.count = base->count - at < step ? base->count - at : step;
        batch.ids = ids;
        batch.vectors = (const float *)base->values + at * set->dim;
        batch.dim = set->dim;
        for (size_t i = 0; i < batch.count; i++) {
            ids[i] = at + i;
        }
        assert_ok(vex_write(collection, VEX_WRITE_INSERT, &batch, NULL, sink));
    }
    free(ids);
}

/* Number of ids that differ from the ground truth; fails if one of them is not as near. */
static unsigned check_query(const struct set *set, const struct rows *base, const float *query,
                            const int32_t *truth, const float *truth_distances, const uint64_t *ids,
                            const float *distances)
{
    unsigned differing = 0;
    for (uint32_t j = 0; j < K; j++) {
        assert_true(ids[j] < base->count);
        const float *row = (const float *)base->values + ids[j] * set->dim;
        double distance = distance_of(set, query, row);
        double limit = TOLERANCE * fabs((double)truth_distances[j]) + CANCELLATION;
        if (fabs((double)distances[j] - distance) > limit + 1e-7 * fabs(distance)) {
            fail_msg("hit %u: distance %.9g, computed here %.9g", j, (double)distances[j],
                     distance);
        }
        if (ids[j] == (uint64_t)truth[j]) {
            continue;
        }
        differing++;
        const float *true_row = (const float *)base->values + (size_t)truth[j] * set->dim;
        double true_distance = distance_of(set, query, true_row);
        if (fabs(distance - true_distance) > limit) {
            fail_msg("hit %u: id %llu at %.12g instead of id %d at %.12g", j,
                     (unsigned long long)ids[j], distance, truth[j], true_distance);
        }
    }
    return differing;
}

static void check_set(struct vex_fixture *fixture, const struct set *set)
{
    struct rows base = read_vectors(set, "base");
    struct rows queries = read_vectors(set, "query");
    struct rows truth = read_rows(set->name, "groundtruth.ivecs", false);
    struct rows truth_distances = read_rows(set->name, "groundtruth_dist.fvecs", false);
    assert_int_equal(base.count, set->rows);
    assert_int_equal(truth.count, queries.count);
    assert_int_equal(truth_distances.count, queries.count);
    assert_true(truth.dim >= K && truth_distances.dim == truth.dim);

    struct vex_db *db = vex_fixture_open(fixture);
    struct vex_collection *collection =
        vex_fixture_collection(db, set->name, set->dim, set->metric);
    uint64_t start_ms = vex_fixture_now_ms();
    import_rows(collection, set, &base);
    uint64_t import_ms = vex_fixture_now_ms() - start_ms;
    assert_int_equal(count_of(collection), base.count);

    uint64_t *ids = malloc((size_t)queries.count * K * sizeof(*ids));
    float *distances = malloc((size_t)queries.count * K * sizeof(*distances));
    uint32_t *counts = malloc(queries.count * sizeof(*counts));
    assert_true(ids && distances && counts);
    struct vex_results results = {sizeof(results), ids, distances, counts, NULL, NULL, NULL, 0};
    struct vex_search_options options = VEX_SEARCH_OPTIONS_INIT;
    options.k = K;
    start_ms = vex_fixture_now_ms();
    assert_ok(vex_search(collection, queries.values, queries.count, set->dim, &options, &results,
                         NULL, sink));
    uint64_t search_ms = vex_fixture_now_ms() - start_ms;

    unsigned differing = 0;
    for (uint32_t q = 0; q < queries.count; q++) {
        assert_int_equal(counts[q], K);
        differing += check_query(set, &base, (const float *)queries.values + (size_t)q * set->dim,
                                 (const int32_t *)truth.values + (size_t)q * truth.dim,
                                 (const float *)truth_distances.values + (size_t)q * truth.dim,
                                 ids + (size_t)q * K, distances + (size_t)q * K);
    }
    printf("test_data: %s: %u x %u, %s: %u queries checked, %u of %u ids differ (all as near), "
           "import %llu ms, search %llu ms (%s)\n",
           set->name, base.count, set->dim, vex_metric_name(set->metric), queries.count, differing,
           queries.count * K, (unsigned long long)import_ms, (unsigned long long)search_ms,
           vex_isa_name());
    free(counts);
    free(distances);
    free(ids);
    vex_collection_close(collection);
    vex_close(db);
    free(truth_distances.values);
    free(truth.values);
    free(queries.values);
    free(base.values);
}

static void every_set_agrees_with_its_ground_truth(void **state)
{
    for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++) {
        check_set(*state, &sets[i]);
    }
}

int main(void)
{
    data_directory = getenv("VEX_DATA_DIR");
    if (!data_directory || !*data_directory) {
        printf("skipped: VEX_DATA_DIR does not name a directory with vector sets\n");
        return EXIT_SKIPPED;
    }
    const struct CMUnitTest tests[] = {with_daemon(every_set_agrees_with_its_ground_truth)};
    return run_cases("data", tests);
}
