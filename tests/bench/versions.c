/*
 * Dealing out vectors anew, again and again; what it is for is in versions.h.
 */
#include "tests/bench/versions.h"

#include <stdlib.h>

#include "tests/bench/common.h"

static void make_version(struct vex_versions *versions, uint64_t version, size_t batch_rows,
                         uint64_t *numbers, uint64_t *seed)
{
    size_t rows = versions->rows;
    size_t at = version * rows;
    vex_data_shuffle(numbers, rows, seed);
    for (size_t i = 0; i < rows; i++) {
        versions->vectors[at + i] = (uint32_t)numbers[i];
    }
    vex_data_shuffle(numbers, rows, seed);
    for (size_t i = 0; i < rows; i++) {
        uint32_t batch = versions->batches_count + 1 + (uint32_t)(i / batch_rows);
        versions->order[at + i] = (uint32_t)numbers[i];
        versions->batches[at + numbers[i]] = batch;
    }
    versions->batches_count += (uint32_t)((rows + batch_rows - 1) / batch_rows);
}

void vex_versions_make(struct vex_versions *versions, size_t rows, uint64_t replacements,
                       size_t batch_rows)
{
    uint64_t seed = 1;
    uint64_t *numbers = vex_bench_alloc(rows, sizeof(*numbers));
    *versions = (struct vex_versions){.count = replacements + 1, .rows = rows};
    versions->vectors = vex_bench_alloc(versions->count * rows, sizeof(uint32_t));
    versions->order = vex_bench_alloc(versions->count * rows, sizeof(uint32_t));
    versions->batches = vex_bench_alloc(versions->count * rows, sizeof(uint32_t));
    for (size_t i = 0; i < rows; i++) {
        versions->vectors[i] = (uint32_t)i;
    }
    for (uint64_t version = 1; version < versions->count; version++) {
        make_version(versions, version, batch_rows, numbers, &seed);
    }
    free(numbers);
}

bool vex_versions_can_live(const struct vex_versions *versions, uint64_t version, uint64_t id,
                           uint32_t acknowledged, uint32_t sent)
{
    size_t at = version * versions->rows + id;
    bool is_last = version + 1 == versions->count;
    return versions->batches[at] <= sent &&
           (is_last || versions->batches[at + versions->rows] > acknowledged);
}

void vex_versions_deinit(struct vex_versions *versions)
{
    free(versions->vectors);
    free(versions->order);
    free(versions->batches);
    *versions = (struct vex_versions){0};
}
