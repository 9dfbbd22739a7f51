/*
 * Which vector each id has when, for a run that replaces all of them several times: decided beforehand, so
 * that whatever a search finds meanwhile can be judged.
 *
 * Version 0 of id i is row i of the base. Each later one deals all rows out anew, and reaches the ids in
 * batches, in an order of its own. Batches are numbered from 1 through the whole run: a version is there
 * from the batch that brings it to the batch that brings the next one.
 *
 * Thread-safety: nothing changes once it is made.
 */
#ifndef VEX_BENCH_VERSIONS_H
#define VEX_BENCH_VERSIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vex_versions {
    uint64_t count; /* replacements + 1 */
    size_t rows;
    uint32_t *vectors; /* count x rows, by version and id: a row of the base */
    uint32_t *order;   /* count x rows: ids, as they are reached; none of version 0 */
    uint32_t *batches; /* count x rows, by version and id: what brings it; 0 of version 0 */
    uint32_t batches_count;
};

void vex_versions_make(struct vex_versions *versions, size_t rows, uint64_t replacements,
                       size_t batch_rows);
/* Whether a search may have met this version of the id, if `acknowledged` batches were so before it began
 * and `sent` had been sent when it ended. */
bool vex_versions_can_live(const struct vex_versions *versions, uint64_t version, uint64_t id,
                           uint32_t acknowledged, uint32_t sent);
/* Accepts a zeroed struct. */
void vex_versions_deinit(struct vex_versions *versions);

#endif
