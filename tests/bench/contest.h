/*
 * Several ways of searching the same vectors, or one alone, measured in turns and compared at equal
 * recall: a rate means nothing without its recall, and an effort of one side is not that of another.
 *
 * Every pass runs all queries with each effort of each side, the sides taking turns. Time is the
 * thread's own processor time, which leaves out that it had to wait for a core; what a neighbour does
 * to the caches stays in, and hits all sides of a pass alike. So each pass makes its own ratios, of the
 * first side to each other one, and the median of these is the figure.
 *
 * Thread-safety: one thread, which is pinned to a core meanwhile.
 */
#ifndef VEX_BENCH_CONTEST_H
#define VEX_BENCH_CONTEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/bench/bench.h"
#include "tests/bench/common.h"
#include "tests/bench/recall.h"

#define VEX_CONTEST_SIDES 4
#define VEX_CONTEST_TARGETS 2

/* One effort of one side. */
struct vex_contest_point {
    uint64_t effort; /* 0 = there is none to choose */
    const char *mode;
    double recall;
    double visited; /* rows a query */
    struct vex_samples rates;
    struct vex_samples shares; /* of a core that the thread got */
};

/* Runs all queries, with the effort of the point, and puts what they found into `found`: k rows a query,
 * UINT64_MAX = none. `counting` means that it is not measured and is to set the point's mode and visited.
 * False after saying why. */
typedef bool vex_contest_search(void *context, struct vex_contest_point *point, bool counting,
                                uint64_t *found);

struct vex_contest_side {
    const char *name;
    vex_contest_search *search_all;
    void *context;
    uint64_t batch;      /* queries of one call, for the line */
    double asked_recall; /* in place of an effort, for the line; NAN = there are efforts */
    /* From here on the contest's own. */
    struct vex_contest_point points[VEX_BENCH_LIST_MAX];
    struct vex_recall_point last[VEX_BENCH_LIST_MAX]; /* in the last pass */
    size_t points_count;
    struct vex_samples at_target[VEX_CONTEST_TARGETS];
    double at_recall[VEX_CONTEST_TARGETS];
    struct vex_samples ratios[VEX_CONTEST_TARGETS]; /* of the first side's rate to this one's */
};

struct vex_contest {
    const struct vex_truth *truth;
    uint64_t *found; /* k rows a query */
    struct vex_contest_side sides[VEX_CONTEST_SIDES];
    size_t sides_count;
};

/* One more side, at most as many as there is room for, like `side`. False after saying that its efforts do
 * not rise. */
bool vex_contest_add(struct vex_contest *contest, const struct vex_contest_side *side,
                     const struct vex_bench_value *efforts);
bool vex_contest_run(struct vex_contest *contest, uint64_t passes);
/* A line for each effort, then, for each side but the first, one for each recall that they are compared
 * at. */
bool vex_contest_print(struct vex_contest *contest);
/* Begins a line with what the vectors are. */
void vex_contest_line(const struct vex_truth *truth, struct vex_line *line, const char *what);
/* Accepts a zeroed struct. */
void vex_contest_deinit(struct vex_contest *contest);

#endif
