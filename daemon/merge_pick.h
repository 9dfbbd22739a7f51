/*
 * Which segments of a collection are worth a merge, and by whom. Only rules; the work is merge.c's, the
 * bookkeeping upkeep.c's.
 *
 *  - Many dead rows (a third; a tenth when it is quiet): those segments alone.
 *  - Where the result has no index: four or more segments of about one size, newest first, so that the number of
 *    segments grows with the logarithm of the data.
 *  - Where searches walk, levels: one large graph, one small one that takes in every sealed tail, and a short tail
 *    that is scanned. A scan costs a search more per row than a walk, so tails are sealed early; extending a graph
 *    copies all its rows, so a large one is not extended for a few. The small graph joins the large one when it is
 *    an eighth of it or has 32 thousand rows, or when it is quiet.
 *
 * What is in the small graph is inserted twice, first with a quarter of the effort: it is searched for seconds, and
 * such a walk ends by what the large graph found.
 *
 * Graphs have two builders, so that the large one's minutes do not hold up the small one's moments.
 *
 * Thread-safety: the daemon's main thread.
 */
#ifndef VEX_DAEMON_MERGE_PICK_H
#define VEX_DAEMON_MERGE_PICK_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/index_plan.h"
#include "daemon/registry.h"

/* Who carries a merge out. */
enum vex_hand {
    VEX_HAND_WORKER,        /* no index to build: copying */
    VEX_HAND_SMALL_BUILDER, /* moments to seconds */
    VEX_HAND_LARGE_BUILDER, /* minutes, perhaps */
};
#define VEX_HANDS 3u

/* What the choice depends on besides the collection. */
struct vex_hour {
    uint64_t quiet_ms; /* since the last commit */
    bool is_free[VEX_HANDS];
};

struct vex_merge_pick {
    struct vex_live_collection *collection;
    uint32_t first;
    uint32_t count;
    struct vex_index_plan index; /* of the segment that they become */
    enum vex_hand hand;
    bool is_level; /* there is a larger graph, which will take in the one that they get */
};

/* Sets index and hand for the segments named. */
void vex_merge_pick_plan(struct vex_merge_pick *pick);
/* Of a collection: how many segments get no more rows. */
uint32_t vex_merge_sealed_count(const struct vex_live_collection *collection);
/* What is due for a collection and can begin now: false if nothing. */
bool vex_merge_pick_due(struct vex_merge_pick *pick, struct vex_live_collection *collection,
                        const struct vex_hour *hour);
/* Whether the tail has enough rows to be worth a place in a graph, and somebody who gives it one. */
bool vex_merge_wants_tail(const struct vex_live_collection *collection,
                          const struct vex_hour *hour);

#endif
