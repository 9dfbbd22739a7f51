/*
 * Graph index of a sealed segment: approximate search by walking from neighbour to neighbour.
 *
 * The segment's rows are the nodes. Each has a fixed number of links to near and not so near others
 * (built as in Vamana, Subramanya et al., NeurIPS 2019, one pass, alpha 1.1), and a code of four
 * bits a dimension (codes.h). A search keeps the ef nearest nodes it has met in order, expands the
 * nearest unexpanded ones, scores their links by the codes, and at the end ranks what is in front
 * by the vectors themselves, in double precision: distances are exact, only the set may miss some.
 *
 * Why codes: a walk is limited by the cache lines it moves, and a code is an eighth of the vector.
 * Why factors on the links: what an estimate needs besides the code (two half floats) comes with the
 * line that named the node, not from a line of its own.
 *
 * Entry: a random thirty-second of the nodes has a small graph of its own, a thirty-second of those
 * again, until at most 512 are left, which are all scored. Without it, clustered data leaves the
 * walk in the wrong cluster.
 *
 * Sections in the image, all position-independent, all checked at attach (I8): a head, rows of links,
 * and the upper layers; codes and their factors are those of code_set.h. Numbers read later, above all nodes named by links, are bounded when they are read, and a walk has a limit of
 * steps: damaged bytes cost answers, never safety.
 *
 * Thread-safety: a graph is immutable; searches share nothing but it. Building: graph_build.h.
 */
#ifndef VEX_INDEX_GRAPH_H
#define VEX_INDEX_GRAPH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vex/status.h>
#include <vex/types.h>

#include "index/code_set.h"
#include "index/topk.h"

struct vex_segment;

#define VEX_GRAPH_MAGIC 0x47584556u /* "VEXG" */
#define VEX_GRAPH_VERSION 2u
#define VEX_GRAPH_LAYERS_MAX 8u
#define VEX_GRAPH_M_MAX 64u
#define VEX_GRAPH_M_DEFAULT 16u
#define VEX_GRAPH_EF_CONSTRUCTION_MAX 4096u
#define VEX_GRAPH_EF_CONSTRUCTION_DEFAULT 150u
#define VEX_GRAPH_EF_SEARCH_MAX 65536u
#define VEX_GRAPH_EF_SEARCH_DEFAULT 64u

/* What a user chooses. m = 0: no graph. */
struct vex_graph_shape {
    uint32_t m;               /* links of a node are 2 m, rounded up to 16; above, m */
    uint32_t ef_construction; /* nodes that an insertion considers */
};

/* The section VEX_PART_GRAPH_HEAD. On disk. */
struct vex_graph_head {
    uint32_t magic; /* 0: not built */
    uint32_t version;
    uint32_t nodes_count;
    uint32_t links;
    uint32_t upper_links;
    uint32_t padded;
    uint32_t layers_count;
    uint32_t ef_construction;
    float error_rms; /* of an estimate, as a share of both lengths */
    float mean_degree;
    uint32_t reached; /* nodes that a walk can reach */
    uint32_t reserved[5];
};

struct vex_graph_layer {
    uint32_t nodes_count;
    uint32_t links;
    size_t row_bytes;     /* u32 nodes[links], then u32 factors[links] */
    const uint8_t *rows;  /* NULL: the topmost layer, all of which is scored */
    const uint8_t *codes; /* [nodes_count][padded / 2] */
    const uint32_t *factors;
};

/* A checked graph: pointers into the image and private copies of what bounds them. */
struct vex_graph {
    uint32_t nodes_count; /* 0: none */
    uint32_t padded;
    uint32_t layers_count;
    float error_rms;
    const uint32_t *entries; /* node of layer 0 of each node of layer 1; above, numbers agree */
    struct vex_graph_layer layers[VEX_GRAPH_LAYERS_MAX];
};

/* ---- layout: for segment.c and the builder --------------------------------------------------- */

bool vex_graph_shape_is_sound(const struct vex_graph_shape *shape);
uint32_t vex_graph_links(const struct vex_graph_shape *shape);
/* Links of a node in the upper layers, from those in the base layer. */
uint32_t vex_graph_upper_links(uint32_t links);
/* Of a part of the graph. */
struct vex_part_size vex_graph_part_size(enum vex_index_part part,
                                         const struct vex_graph_shape *shape, uint32_t dim,
                                         uint32_t nodes_count);
/* How many nodes each layer has; returns how many layers, at least 2. */
uint32_t vex_graph_layers(uint32_t nodes_count, uint32_t out_nodes[VEX_GRAPH_LAYERS_MAX]);

/* Where the layers of a graph of so many nodes lie in the parts, which are large enough. */
void vex_graph_place(struct vex_graph *out, const struct vex_index_parts *parts,
                     uint32_t nodes_count, uint32_t links, uint32_t padded);

/*
 * Checks the parts of a segment with `capacity_rows` rows, whose codes are attached, and fills *out; a
 * graph that is not built yet, or not there, gives nodes_count 0. Errors: CORRUPT, VERSION.
 */
enum vex_status vex_graph_attach(struct vex_graph *out, const struct vex_index_parts *parts,
                                 const struct vex_codes *codes, uint32_t capacity_rows,
                                 struct vex_error *error);

/* ---- search ---------------------------------------------------------------------------------- */

/* Memory for one search at a time, to be used again for the next one. */
size_t vex_graph_scratch_bytes(uint32_t dim, uint32_t ef);

struct vex_graph_query {
    const struct vex_segment *segment; /* with a graph */
    uint32_t segment_index;            /* for the candidates */
    uint32_t visible_rows;
    uint64_t lsn;
    const float *query; /* finite, and not zero under cosine */
    uint32_t ef;        /* at least topk->k is used */
    uint32_t ef_first; /* 0 = ef; less: a short walk, if topk is full and nothing speaks for more */
    void *scratch;     /* aligned to 64, of vex_graph_scratch_bytes(dim, max of ef and k) */
};

struct vex_graph_counters {
    uint64_t steps;  /* nodes expanded in the base layer */
    uint64_t scored; /* codes compared */
    uint64_t ranked; /* vectors compared */
};

/*
 * Offers the nearest rows found to `topk`, which may hold those of other segments already. Returns
 * how many living, visible rows the walk held in the end: if that is less than k, rows may be
 * missing that a scan would find.
 *
 * With ef_first, if topk is full: what of this segment belongs to the k best is expected to be little.
 * A walk that keeps ef_first nodes is enough unless half of them are nearer than the k-th best, by
 * their estimates and be they dead or alive: then there may be more behind them, and a longer walk is
 * made. If it is enough, k is returned.
 */
uint32_t vex_graph_search(const struct vex_graph_query *query, struct vex_topk *topk,
                          struct vex_graph_counters *counters);

/* ---- checks ---------------------------------------------------------------------------------- */

/* Reads every link of the graph. Errors: CORRUPT (a link leads outside, a node is not reachable
 * that should be), NOMEM. */
enum vex_status vex_graph_validate(const struct vex_segment *segment, struct vex_error *error);

#endif
