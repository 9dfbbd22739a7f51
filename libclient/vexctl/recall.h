/*
 * Measuring recall: how much of the true answer the index of a collection finds, by effort.
 *
 * The truth comes from exact search, on the very snapshot that is measured, so that writes may go
 * on meanwhile. Of it only two numbers a query are kept, how many true neighbours there are and
 * the distance of the last: a hit counts if it is as near as that one, whichever of several equal
 * rows it is. Hits carry distances by the same formula as the truth does, so equal means equal.
 */
#ifndef VEX_VEXCTL_RECALL_H
#define VEX_VEXCTL_RECALL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vex/vex.h>

#include "libclient/vexctl/queries.h"

#define VEX_EFFORTS_MAX 64u

/* What says how hard a search tries. */
enum vex_effort_kind {
    VEX_EFFORT_EF_SEARCH,
    VEX_EFFORT_NPROBE,
};

struct vex_measure {
    uint32_t effort;
    double recall;
    double margin; /* NaN = one query tells nothing about it */
    double us;     /* of a query */
    double rows_visited;
};

/* What is to be measured, borrowed from the caller; then, what was found. */
struct vex_recall {
    struct vex_collection *collection;
    struct vex_snapshot *snapshot;
    const struct vex_queries *queries;
    enum vex_metric metric;
    uint32_t k; /* 1..VEX_K_MAX - 1 */
    enum vex_effort_kind kind;
    double target;                    /* 0 = none */
    uint32_t wishes[VEX_EFFORTS_MAX]; /* efforts to measure; none = those of a ladder */
    size_t wishes_count;

    double exact_us;                              /* of an exact search, one query a call */
    const char *mode;                             /* of the searches measured; static storage */
    struct vex_measure measures[VEX_EFFORTS_MAX]; /* efforts ascending */
    size_t measures_count;

    /* The truth, by query: how far the true neighbours go, and how many there are. */
    float *reach;
    uint32_t *wanted;
    /* Room for one call. */
    uint64_t *ids;
    float *distances;
    uint32_t *counts;
    size_t capacity; /* queries */
};

/*
 * Measures the efforts wished for, each with one query a call. With a target and no wishes the steps of
 * a ladder are tried until one reaches the target; then the gap below it is halved until it is too
 * narrow to matter. Where every search is exact one measurement is all. Errors: INVALID (nothing can
 * be found, since the collection is empty), and those of vex_search.
 */
enum vex_status vex_recall_measure(struct vex_recall *recall, struct vex_error *error);
/* Accepts a zeroed struct. */
void vex_recall_deinit(struct vex_recall *recall);

/* "ef_search" or "nprobe". */
const char *vex_effort_name(enum vex_effort_kind kind);
/* Whether every search is exact, whatever the effort. */
bool vex_recall_is_scan(const struct vex_recall *recall);
/* The least effort that reaches the target; NULL = none did, or none is wanted or needed. */
const struct vex_measure *vex_recall_suggestion(const struct vex_recall *recall);

#endif
