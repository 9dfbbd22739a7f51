/*
 * Which index a segment is to have: what its collection asks for, made out by how many rows there are.
 *
 * Collections may be altered, so a segment may have another index than the one that is asked for now. It
 * serves searches as well as before until upkeep has replaced it; all that upkeep has to know is which
 * segments those are, and it asks here, so that a kind of index is described in one place.
 *
 * Thread-safety: pure functions; what they are given is the main thread's.
 */
#ifndef VEX_DAEMON_INDEX_PLAN_H
#define VEX_DAEMON_INDEX_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/home.h"
#include "shm/control.h"

/* The index of a segment that is about to be made. */
struct vex_index_plan {
    struct vex_graph_shape graph; /* m = 0: none */
    bool lists;
    uint32_t lists_wanted; /* 0 = by the number of rows */
};

/* For a segment of so many living rows. */
struct vex_index_plan vex_index_plan_for(const struct vex_collection_facts *facts, uint64_t rows);
/* The same for rows that will soon be inserted into a larger graph: with a quarter of the effort. */
struct vex_index_plan vex_index_plan_level(const struct vex_index_plan *plan);
/* True if it is no index at all: the segment will be scanned. */
bool vex_index_plan_is_bare(const struct vex_index_plan *plan);

enum vex_index_fit {
    VEX_FIT_BARE,  /* it has none */
    VEX_FIT_ASKED, /* the one that is asked for */
    VEX_FIT_OTHER, /* another kind, or other parameters */
};

enum vex_index_fit vex_index_fit_of(const struct vex_collection_facts *facts,
                                    const struct vex_segment_shape *shape);
/* The same for a segment that lives: a graph on its way into a larger one, and built with less effort for that, is as
 * asked as long as graphs are. */
enum vex_index_fit vex_index_fit_of_home(const struct vex_collection_facts *facts,
                                         const struct vex_home *home);
/* True if graphs of these shapes are the same but for their rows: as many links, chosen with the same effort. */
bool vex_index_same_graph(const struct vex_graph_shape *a, const struct vex_graph_shape *b);
/* True if a sealed segment is to be made anew for the sake of its index alone. Afterwards it is not. */
bool vex_index_is_due(const struct vex_collection_facts *facts, const struct vex_home *home);

#endif
