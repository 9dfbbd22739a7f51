/*
 * A collection of the user's own vectors whose every id is replaced, several times, while it is searched;
 * then it is compared with one that has been built afresh from the same rows.
 *
 * Each time, the vectors are dealt out anew among the ids: the set of vectors stays the same, so that
 * nothing but age can make searches worse, while no id keeps what it had. All versions of an id are
 * known beforehand, with the numbers of the batches that bring and replace them. So whatever a search finds
 * can be judged: the distance that it hands out must be that of a version which can have been alive while it
 * ran, that is, one not replaced before the search began and sent before it ended.
 */
#ifndef VEX_BENCH_TURNOVER_H
#define VEX_BENCH_TURNOVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vex/vex.h>

#include "tests/bench/bench.h"

struct vex_turnover_options {
    const struct vex_bench_value *base;
    const struct vex_bench_value *query;
    const struct vex_bench_value *dir;
    const struct vex_bench_value *efforts;
    size_t rows_max; /* of the base */
    enum vex_metric metric;
    enum vex_index_kind index;
    uint64_t turnovers; /* at least 1 */
    size_t batch_rows;
    uint64_t passes;
    double still_s; /* the background is at rest when nothing happened for so long */
    double rest_s;  /* at most, before things are taken as they are */
};

/* Prints the lines; false after saying why, also if a search found what was dead. */
bool vex_turnover_run(const struct vex_turnover_options *options);

#endif
