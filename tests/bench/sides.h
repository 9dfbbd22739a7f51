/*
 * Who takes part in a comparison of searches: collections of ours, searched through libvex, and libraries
 * that hold the same vectors in this process. Both are built from a file of vectors, with what that took
 * in time and memory, and then run all queries, in calls of one or of many.
 *
 * Thread-safety: one thread.
 */
#ifndef VEX_BENCH_SIDES_H
#define VEX_BENCH_SIDES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vex/vex.h>

#include "tests/bench/contest.h"
#include "tests/bench/index_peer.h"
#include "tests/bench/instance.h"
#include "tests/bench/vectors.h"

/* What building took. */
struct vex_build {
    double import_s; /* of the calls that handed the vectors over; NAN = part of building */
    double build_s;  /* from then on until the index is there */
    double cpu_s;    /* of all that; of the daemon, its log and checkpoints included */
    uint64_t bytes;  /* of memory, vectors included */
    uint64_t segments;
};

/* ---- ours ------------------------------------------------------------------------------------ */

struct vex_ours {
    struct vex_instance *instance;
    const struct vex_vectors *queries;
    uint32_t k;
    size_t batch; /* queries of one call */
    struct vex_search_options
        how; /* of the contest's searches; an effort goes where `index` has it */
    struct vex_collection *collection;
    struct vex_collection_info info; /* once built */
    struct vex_build build;
    float *distances; /* room for what a call hands out */
    uint32_t *counts;
    size_t room; /* queries */
};

/* Makes a collection, imports the rows with their numbers as ids, and returns when they are in one
 * segment with its index. The fields down to `how` are set before. */
bool vex_ours_build(struct vex_ours *ours, const char *name,
                    const struct vex_collection_options *options, const struct vex_vectors *base);
/* `how`, with the effort where this index has it. */
struct vex_search_options vex_ours_options(const struct vex_ours *ours, uint64_t effort);
/* `count` queries from `first` on in one call; `found` gets k ids for each, UINT64_MAX = none. */
bool vex_ours_search(struct vex_ours *ours, size_t first, size_t count,
                     const struct vex_search_options *how, uint64_t *found,
                     struct vex_search_info *out_info);
/* A vex_contest_search; `context` is a struct vex_ours. */
bool vex_ours_search_all(void *context, struct vex_contest_point *point, bool counting,
                         uint64_t *found);
/* Accepts a zeroed struct. */
void vex_ours_close(struct vex_ours *ours);

/* ---- theirs ---------------------------------------------------------------------------------- */

struct vex_theirs {
    const struct index_peer_library *library;
    const struct vex_vectors *queries;
    uint32_t k;
    size_t batch;
    struct index_peer_shape shape;
    struct index_peer *peer;
    struct vex_build build;
};

/* The fields down to `shape` are set before; its dimension and capacity come from the base. */
bool vex_theirs_build(struct vex_theirs *theirs, const struct vex_vectors *base);
/* A vex_contest_search; `context` is a struct vex_theirs. */
bool vex_theirs_search_all(void *context, struct vex_contest_point *point, bool counting,
                           uint64_t *found);
/* Accepts a zeroed struct. */
void vex_theirs_close(struct vex_theirs *theirs);

/* Loads a library, or says that it was not there when this program was built. */
bool vex_theirs_load(struct vex_theirs *theirs, const char *name);
/* The line that says which library it is. */
bool vex_theirs_print(const struct vex_theirs *theirs);

#endif
