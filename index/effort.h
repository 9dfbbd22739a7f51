/*
 * What search effort is worth: the recall that was measured on a segment's own rows, by effort.
 *
 * How much an ef or an nprobe finds depends on the data so much (the ef for the same recall differs
 * tenfold between collections) that a user can hardly know it. So it is measured when an index has
 * been built (calibrate.h), stored beside it, and a search that names a recall looks it up here.
 *
 * A table has steps of ascending effort, each with the recall at k = 1, 10 and 100. The values are
 * on the careful side by one standard error of the sample. They are estimates: for queries that lie
 * among the rows as the rows do, and rows that are alive.
 *
 * Nothing in a table leads anywhere, and it need not be monotone: wrong numbers give a wrong effort
 * within bounds, nothing worse.
 *
 * Thread-safety: plain values.
 */
#ifndef VEX_INDEX_EFFORT_H
#define VEX_INDEX_EFFORT_H

#include <stdint.h>

#include <vex/status.h>

#include "index/parts.h"

#define VEX_EFFORT_MAGIC 0x45584556u /* "VEXE" */
#define VEX_EFFORT_VERSION 1u
#define VEX_EFFORT_STEPS_MAX 24u
#define VEX_EFFORT_COLUMNS 3u
#define VEX_EFFORT_K_MAX 100u /* of the last column */

/* What the efforts are. On disk: append only. */
enum vex_effort_unit {
    VEX_EFFORT_UNIT_EF = 1,
    VEX_EFFORT_UNIT_NPROBE = 2,
};

struct vex_effort_step {
    uint32_t effort;
    float recalls[VEX_EFFORT_COLUMNS]; /* by the column's k */
};

/* The section VEX_PART_EFFORT. On disk. */
struct vex_effort_block {
    uint32_t magic; /* 0: nothing was measured */
    uint32_t version;
    uint32_t unit;
    uint32_t steps_count;
    uint32_t samples_count;
    uint32_t reserved[11];
    struct vex_effort_step steps[VEX_EFFORT_STEPS_MAX];
};

/* A checked private copy. */
struct vex_effort_table {
    enum vex_effort_unit unit;
    uint32_t steps_count; /* 0: none */
    struct vex_effort_step steps[VEX_EFFORT_STEPS_MAX];
};

/* The k of a column. */
uint32_t vex_effort_column_k(uint32_t column);

struct vex_part_size vex_effort_part_size(void);
/* A table that is not there, or not measured, gives steps_count 0. Errors: CORRUPT, VERSION. */
enum vex_status vex_effort_attach(struct vex_effort_table *out, const struct vex_index_parts *parts,
                                  struct vex_error *error);

/*
 * The least effort whose recall at k is `recall` or more: between two steps by a straight line, which
 * lies below the curve; between two k in proportion; beyond the last k as k grows. The last step if
 * none is enough. 0 if the table is empty or of another unit.
 */
uint32_t vex_effort_for(const struct vex_effort_table *table, enum vex_effort_unit unit, uint32_t k,
                        double recall);

#endif
