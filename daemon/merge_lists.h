/*
 * The order of rows in a merge whose result is to have inverted lists: list by list (index/lists.h).
 *
 * The living rows of all sources are clustered where they are, before there is any memory for the result;
 * the copy then follows the clusters. Nothing is taken over from lists that sources have: clustering anew
 * costs a fraction of what a graph costs, and old centres would be those of rows that are gone.
 *
 * Thread-safety: as the merge.
 */
#ifndef VEX_DAEMON_MERGE_LISTS_H
#define VEX_DAEMON_MERGE_LISTS_H

#include <stdint.h>

#include "daemon/merge.h"
#include "index/kmeans.h"

/* A row of a source. */
struct vex_row_place {
    uint32_t source;
    uint32_t row;
};

struct vex_row_order {
    struct vex_row_place *places; /* NULL: the order of the sources will do */
    struct vex_clusters clusters; /* of places */
    uint32_t rows_count;
    uint32_t lists;
};

/* `rows_count` rows of the job's sources are alive. Errors: NOMEM, UNAVAILABLE (told to give up). */
enum vex_status vex_row_order_make(const struct vex_merge_job *job, uint32_t rows_count,
                                   uint32_t lists, const struct vex_pace *pace,
                                   struct vex_row_order *out, struct vex_error *error);
/* Appends the rows and notes where lists begin. False if it was told to give up. */
bool vex_row_order_copy(const struct vex_row_order *order, const struct vex_merge_job *job,
                        struct vex_segment_writer *to, const struct vex_pace *pace);
/* Zeroed is allowed. */
void vex_row_order_deinit(struct vex_row_order *order);

#endif
