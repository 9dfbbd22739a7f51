/*
 * What the parts of the builder share: graph_build.c (phases), graph_insert.c (one insertion),
 * graph_extend.c (links of an older graph), graph_freeze.c (the finished graph).
 *
 * Nodes have numbers of the builder's own: place in a random order of the rows. A layer is then the
 * first so many nodes, and a node has one number and one set of bytes in all its layers.
 */
#ifndef VEX_INDEX_GRAPH_BUILD_PRIV_H
#define VEX_INDEX_GRAPH_BUILD_PRIV_H

#include <stdatomic.h>

#include "index/graph_build.h"

#define VEX_BUILD_ENTRIES 4u
#define VEX_BUILD_CANDIDATES_MAX 768u

struct vex_near {
    float distance;
    uint32_t node;
};

struct vex_node_lock {
    _Atomic uint8_t held;
};

/* A layer under construction. Rows are longer than a node's links in the end, so that not every new
 * link to a full node means choosing again. */
struct vex_build_layer {
    uint32_t nodes_count;
    uint32_t links;        /* in the end */
    uint32_t row_links;    /* room in a row */
    uint32_t insert_first; /* nodes to be inserted; the others have the links they had before */
    uint32_t insert_end;
    uint32_t *rows; /* NULL: topmost */
    uint16_t *degrees;
    struct vex_node_lock *locks; /* guards row and degree of a node; NODE_LINKS */
};

/* The older graph, and how its rows and nodes are numbered now. */
struct vex_build_origin {
    struct vex_graph_origin from;
    uint32_t rows;        /* of the new segment that were in it: the first; 0: no origin */
    uint32_t *old_row_of; /* [rows] */
    uint32_t *node_of;    /* by old row; UINT32_MAX: dead */
    uint32_t *upper_of;   /* [upper_count]: number in the old upper layers of the first nodes */
    uint32_t upper_count;
    uint32_t new_end; /* nodes from upper_count up to here are new */
    bool codes_kept;
};

struct vex_graph_build {
    struct vex_segment_writer *writer;
    const struct vex_segment *segment;
    struct vex_graph_shape shape;
    struct vex_code_build codes;
    const struct vex_graph_kernels *kernels;
    uint32_t nodes_count;
    uint32_t layers_count;
    uint32_t *row_of; /* row of each node */
    int8_t *bytes;    /* [nodes_count][bytes_stride]: what distances between nodes are taken of */
    uint32_t bytes_stride;
    bool fine;           /* floats in the place of the bytes: bytes would blur, see code_set.h */
    float bytes_inverse; /* of the size of one step of a byte */
    float rest_limit;    /* square of the length of all rows under dot */
    float rest_mean;     /* of the rest under dot, see code_space.h */
    struct vex_build_layer layers[VEX_GRAPH_LAYERS_MAX];
    struct vex_build_origin origin;
    uint32_t phase;
    _Atomic uint32_t next_node; /* of the phase, to be handed out */
    _Atomic uint64_t cpu_ns;
    struct vex_graph_head head; /* written last */
};

struct vex_graph_worker {
    struct vex_graph_build *build;
    struct vex_beam beam;
    struct vex_score_batch *batch;
    uint8_t *seen; /* by node: equal to `seen_mark` = met in this walk */
    uint8_t seen_mark;
    struct vex_near *expanded; /* [expanded_max] */
    uint32_t expanded_count;
    uint32_t expanded_max;
    struct vex_near *candidates; /* [candidates_max] */
    uint32_t candidates_max;
    uint8_t *states; /* of candidates while links are chosen */
    float *rotated;
    uint32_t *links; /* a row's worth */
};

/* ---- graph_insert.c -------------------------------------------------------------------------- */

static inline const int8_t *vex_build_bytes(const struct vex_graph_build *build, uint32_t node)
{
    return build->bytes + (size_t)node * build->bytes_stride;
}

void vex_build_mark_none_seen(struct vex_graph_worker *worker);
/* out[i] = squared distance between `node` and nodes[i], in units of the build's own. */
void vex_build_distances(const struct vex_graph_build *build, uint32_t node, const uint32_t *nodes,
                         uint32_t count, float *out);
/* Nodes of `layer` near `node`, found by way of the layers above; returns how many. */
uint32_t vex_build_entries(struct vex_graph_worker *worker, uint32_t node, uint32_t layer,
                           uint32_t out[VEX_BUILD_ENTRIES]);
/* Leaves the nearest nodes in the worker's beam and what was expanded in `expanded`. */
void vex_build_walk(struct vex_graph_worker *worker, uint32_t node, uint32_t layer,
                    const uint32_t *entries, uint32_t entries_count, uint32_t capacity);
void vex_build_insert(struct vex_graph_worker *worker, uint32_t node, uint32_t layer);
/* Chooses `links` of the worker's candidates, or all if they are fewer; returns how many. */
uint32_t vex_build_choose(struct vex_graph_worker *worker, uint32_t count, uint32_t links,
                          uint32_t *out);
/* Brings a row down to its links in the end. */
void vex_build_trim(struct vex_graph_worker *worker, uint32_t node, uint32_t layer);

/* ---- graph_extend.c -------------------------------------------------------------------------- */

/* Numbers the nodes so that `from` can be extended, if that is worth it: else changes nothing. Errors:
 * NOMEM. */
enum vex_status vex_build_plan_extension(struct vex_graph_build *build,
                                         const struct vex_graph_origin *from,
                                         struct vex_error *error);
void vex_build_origin_free(struct vex_build_origin *origin);
/* Gives a node the links that it had. */
void vex_build_adopt(struct vex_graph_worker *worker, uint32_t node);
/* Gives a row the code that it had. False if there is none to be kept. */
bool vex_build_adopt_code(const struct vex_graph_build *build, uint32_t row);

/* ---- graph_freeze.c -------------------------------------------------------------------------- */

/* One thread: links what cannot be reached; fills the head's counts. */
void vex_build_repair(struct vex_graph_worker *worker);
/* One thread: error of the estimates. */
void vex_build_calibrate(struct vex_graph_worker *worker);
/* Writes one node into all sections that have it. */
void vex_build_freeze(struct vex_graph_build *build, uint32_t node);

#endif
