#include "daemon/merge_pick.h"

#include "base/panic.h"

#define QUIET_MS 2000u
#define LONG_QUIET_MS 10000u
#define DEAD_SHARE_BUSY 3u /* one in so many rows */
#define DEAD_SHARE_QUIET 10u
#define RUN_MIN 4u /* segments of about one size that are merged */
/* A graph takes in newer rows if it is at most so many times their number: each row is then copied so often,
 * which takes a fraction of what its insertion did. */
#define SHARE_BUSY 8u
#define SHARE_QUIET 64u
#define SHARE_LONG_QUIET 1024u
#define SMALL_ROWS_MAX 32768u /* of a graph that takes in any number of rows */
#define TAIL_ROWS_MIN 1024u   /* a tail of fewer is scanned in less time than a graph is walked */
#define TAIL_SHARE 16u        /* of the small graph: its rows are copied for every tail */

uint32_t vex_merge_sealed_count(const struct vex_live_collection *collection)
{
    uint32_t count = collection->homes_count;
    return count && !collection->homes[count - 1]->sealed ? count - 1 : count;
}

static uint64_t living_rows(const struct vex_home *home)
{
    return home->writer.rows - home->dead_rows;
}

static bool has_graph(const struct vex_home *home)
{
    return home->shape.graph.m > 0;
}

/* Of graphs that are no levels themselves and not in `but`, which may be NULL. */
static uint64_t largest_graph_rows(const struct vex_live_collection *collection,
                                   const struct vex_merge_pick *but)
{
    uint64_t rows = 0;
    for (uint32_t i = 0; i < collection->homes_count; i++) {
        const struct vex_home *home = collection->homes[i];
        bool counts = has_graph(home) && !home->is_level &&
                      !(but && i >= but->first && i - but->first < but->count);
        rows = counts && living_rows(home) > rows ? living_rows(home) : rows;
    }
    return rows;
}

/* The collection as a whole decides whether searches walk: a small segment of a large collection is walked, too. */
static bool wants_graph(const struct vex_live_collection *collection)
{
    struct vex_index_plan plan = vex_index_plan_for(&collection->facts, collection->live_rows);
    return plan.graph.m > 0;
}

void vex_merge_pick_plan(struct vex_merge_pick *pick)
{
    const struct vex_live_collection *collection = pick->collection;
    uint64_t rows = 0;
    bool extends = false;
    for (uint32_t i = pick->first; i < pick->first + pick->count; i++) {
        rows += living_rows(collection->homes[i]);
        extends = extends || has_graph(collection->homes[i]);
    }
    bool follows = wants_graph(collection) && (rows >= TAIL_ROWS_MIN || extends);
    pick->index = vex_index_plan_for(&collection->facts, follows ? collection->live_rows : rows);
    bool is_bare = vex_index_plan_is_bare(&pick->index);
    pick->hand = is_bare                  ? VEX_HAND_WORKER
                 : rows <= SMALL_ROWS_MAX ? VEX_HAND_SMALL_BUILDER
                                          : VEX_HAND_LARGE_BUILDER;
    /* Others may have the larger graph under way: it stays large. Lists join no graph, even if there is one left
     * of an index that is not asked for any more. */
    pick->is_level = pick->index.graph.m > 0 && rows <= SMALL_ROWS_MAX &&
                     largest_graph_rows(collection, pick) > rows;
    if (pick->is_level) {
        pick->index = vex_index_plan_level(&pick->index);
    }
}

/* ---- rules ----------------------------------------------------------------------------------- */

static bool has_many_dead(const struct vex_home *home, uint32_t share)
{
    return home->dead_rows && (uint64_t)home->dead_rows * share >= home->writer.rows;
}

/* Segments with many dead rows from `start` on; neighbours that are as bad come along. */
static bool pick_dead(struct vex_merge_pick *pick, const struct vex_hour *hour, uint32_t start)
{
    const struct vex_live_collection *collection = pick->collection;
    uint32_t sealed = vex_merge_sealed_count(collection);
    uint32_t share = hour->quiet_ms >= QUIET_MS ? DEAD_SHARE_QUIET : DEAD_SHARE_BUSY;
    for (uint32_t i = start; i < sealed; i++) {
        const struct vex_home *home = collection->homes[i];
        if (home->claim || !has_many_dead(home, share)) {
            continue;
        }
        pick->first = i;
        pick->count = 1;
        while (i + pick->count < sealed && !collection->homes[i + pick->count]->claim &&
               has_many_dead(collection->homes[i + pick->count], DEAD_SHARE_QUIET)) {
            pick->count++;
        }
        return true;
    }
    return false;
}

/* A segment whose index is missing, or is not the one that is asked for any more: oldest first, which are the
 * largest, so that searches gain the most. */
static bool pick_unsuited(struct vex_merge_pick *pick, uint32_t start)
{
    const struct vex_live_collection *collection = pick->collection;
    uint32_t sealed = vex_merge_sealed_count(collection);
    for (uint32_t i = start; i < sealed; i++) {
        const struct vex_home *home = collection->homes[i];
        /* A level without a larger graph, whose rows are all dead by now, is what searches are left with. */
        bool is_left = home->is_level && largest_graph_rows(collection, NULL) == 0;
        if (!home->claim && (is_left || vex_index_is_due(&collection->facts, home))) {
            pick->first = i;
            pick->count = 1;
            return true;
        }
    }
    return false;
}

/* The longest run from the newest sealed segment on in which no segment is larger than all newer ones together,
 * and none is being merged. */
static bool pick_run(struct vex_merge_pick *pick)
{
    const struct vex_live_collection *collection = pick->collection;
    uint32_t sealed = vex_merge_sealed_count(collection);
    uint64_t rows = 0;
    uint32_t count = 0;
    while (count < sealed) {
        const struct vex_home *home = collection->homes[sealed - 1 - count];
        if (home->claim || (count > 0 && home->writer.rows > rows)) {
            break;
        }
        rows += home->writer.rows;
        count++;
    }
    pick->first = sealed - count;
    pick->count = count;
    return count >= RUN_MIN;
}

/* ---- levels ---------------------------------------------------------------------------------- */

static uint64_t share_of(const struct vex_hour *hour)
{
    return hour->quiet_ms >= LONG_QUIET_MS ? SHARE_LONG_QUIET
           : hour->quiet_ms >= QUIET_MS    ? SHARE_QUIET
                                           : SHARE_BUSY;
}

/* Whether a graph takes in so many newer rows. `small` rows: it takes in any number. */
static bool takes_in(const struct vex_home *home, uint64_t rows, uint64_t share, uint64_t small)
{
    uint64_t own = living_rows(home);
    return !home->claim && own + rows <= VEX_SEGMENT_ROWS_MAX &&
           ((own <= small && own + rows <= SMALL_ROWS_MAX) || own <= share * rows ||
            rows >= SMALL_ROWS_MAX);
}

static uint64_t small_rows(const struct vex_live_collection *collection)
{
    uint64_t small = largest_graph_rows(collection, NULL) / SHARE_BUSY;
    return small < SMALL_ROWS_MAX ? small : SMALL_ROWS_MAX;
}

/* Older segments join those before `end`, of which there are `rows` rows and pick->count, as long as they take
 * them in. */
static void join_older(struct vex_merge_pick *pick, uint64_t rows, uint64_t share, uint64_t small)
{
    while (pick->first > 0) {
        const struct vex_home *older = pick->collection->homes[pick->first - 1];
        if (!takes_in(older, rows, share, small)) {
            break;
        }
        rows += living_rows(older);
        pick->first--;
        pick->count++;
    }
}

/* Sealed tails without a graph, and the graph that takes them in. */
static bool pick_tails(struct vex_merge_pick *pick, const struct vex_hour *hour)
{
    const struct vex_live_collection *collection = pick->collection;
    uint32_t sealed = vex_merge_sealed_count(collection);
    uint64_t rows = 0;
    pick->first = sealed;
    while (pick->first > 0) {
        const struct vex_home *home = collection->homes[pick->first - 1];
        if (home->claim || has_graph(home) || rows + living_rows(home) > VEX_SEGMENT_ROWS_MAX) {
            break;
        }
        rows += living_rows(home);
        pick->first--;
    }
    pick->count = sealed - pick->first;
    if (pick->count == 0) {
        return false;
    }
    join_older(pick, rows, share_of(hour), small_rows(collection));
    vex_merge_pick_plan(pick);
    return pick->index.graph.m > 0;
}

/* A graph, and the larger one that takes it in: newest first. */
static bool pick_graphs(struct vex_merge_pick *pick, const struct vex_hour *hour)
{
    const struct vex_live_collection *collection = pick->collection;
    for (uint32_t i = vex_merge_sealed_count(collection); i-- > 1;) {
        const struct vex_home *home = collection->homes[i];
        if (home->claim || !has_graph(home)) {
            continue;
        }
        pick->first = i;
        pick->count = 1;
        join_older(pick, living_rows(home), share_of(hour), 0);
        if (pick->count > 1) {
            return true;
        }
    }
    return false;
}

/* ---- choice ---------------------------------------------------------------------------------- */

static bool can_begin(struct vex_merge_pick *pick, const struct vex_hour *hour)
{
    vex_merge_pick_plan(pick);
    return hour->is_free[pick->hand];
}

bool vex_merge_pick_due(struct vex_merge_pick *pick, struct vex_live_collection *collection,
                        const struct vex_hour *hour)
{
    *pick = (struct vex_merge_pick){.collection = collection};
    for (uint32_t start = 0; pick_dead(pick, hour, start); start = pick->first + pick->count) {
        if (can_begin(pick, hour)) {
            return true;
        }
    }
    if (wants_graph(collection)) {
        if ((pick_graphs(pick, hour) && can_begin(pick, hour)) ||
            (pick_tails(pick, hour) && can_begin(pick, hour))) {
            return true;
        }
    }
    if (pick_run(pick) && can_begin(pick, hour)) {
        return true;
    }
    for (uint32_t start = 0; pick_unsuited(pick, start); start = pick->first + 1) {
        if (can_begin(pick, hour)) {
            return true;
        }
    }
    return false;
}

bool vex_merge_wants_tail(const struct vex_live_collection *collection, const struct vex_hour *hour)
{
    uint32_t sealed = vex_merge_sealed_count(collection);
    if (sealed == collection->homes_count || !hour->is_free[VEX_HAND_SMALL_BUILDER] ||
        !wants_graph(collection)) {
        return false;
    }
    uint64_t rows = living_rows(collection->homes[sealed]);
    const struct vex_home *before = sealed > 0 ? collection->homes[sealed - 1] : NULL;
    bool grows = before && living_rows(before) <= small_rows(collection);
    uint64_t least = grows ? living_rows(before) / TAIL_SHARE : 0;
    return rows >= TAIL_ROWS_MIN && rows >= least;
}
