/*
 * Kernels of the graph index: codes of four bits a dimension, the walk's scores and its beam.
 *
 * A kernel takes a list (a batch of nodes, a vector's worth of dimensions), never a single pair, so
 * that a call through a pointer costs nothing beside its work. There is one const table per
 * instruction set, named by the same level as the distance kernels (kernels.h) and reached through
 * them.
 *
 * Codes: a vector of `padded` dimensions (a multiple of 128) is packed 128 dimensions at a time into
 * 64 bytes, one cache line: byte j of a line holds the value of dimension j in its low half and that
 * of dimension 64 + j in its high half. The value u of 0..15 stands for u - 7.5 steps. Unpacking is
 * a mask and a shift, and a line meets two lines of an eight-bit query.
 *
 * Integer results are the same on every level. Estimates are floats whose last bits may differ
 * between levels, but one level gives the same node the same estimate whatever batch it is in: the
 * beam recognises a node it already holds by that.
 *
 * All memory handed in is aligned to 64 bytes and padded as said below. Thread-safety: pure functions
 * on what they are given.
 */
#ifndef VEX_INDEX_GRAPH_KERNELS_H
#define VEX_INDEX_GRAPH_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#define VEX_CODE_CHUNK_DIMS 128u
#define VEX_CODE_CHUNK_BYTES 64u
#define VEX_CODE_MIDDLE 7.5f /* what the code value 0 lies below zero, in steps */
#define VEX_LINKS_MAX 192u   /* of a node; rows are a multiple of VEX_LINKS_STEP */
#define VEX_LINKS_STEP 16u
#define VEX_EXPAND_COUNT 2u /* nodes expanded at once */
#define VEX_BATCH_MAX (VEX_EXPAND_COUNT * VEX_LINKS_MAX)
#define VEX_BATCH_PAD 16u             /* arrays of a batch and a beam are longer by this */
#define VEX_NODE_EXPANDED 0x80000000u /* set in a beam's node once its links have been followed */
#define VEX_ROTATION_ROUNDS_MAX 4u

/* A query as the walk sees it: distance = base + add + rescale * (scale * dot + offset). */
struct vex_code_query {
    const int8_t *values; /* [padded] */
    uint32_t padded;
    float scale;
    float offset;
    float base;
    float add_unit; /* what the half-precision factors of a node are multiples of */
    float rescale_unit;
};

/* Nodes to be scored together. */
struct vex_score_batch {
    uint32_t count;
    uint32_t nodes[VEX_BATCH_MAX + VEX_BATCH_PAD];
    uint32_t factors[VEX_BATCH_MAX + VEX_BATCH_PAD]; /* half floats: low add, high rescale */
    _Alignas(64) float distances[VEX_BATCH_MAX + VEX_BATCH_PAD];
};

/* The nearest nodes met, ascending. Behind `count`, up to capacity + VEX_BATCH_PAD, distances are
 * infinite. */
struct vex_beam {
    float *distances;
    uint32_t *nodes;
    uint32_t capacity;
    uint32_t count;
    uint32_t cursor; /* every node before it is expanded */
    const uint8_t
        *rows; /* links of the nodes, to be fetched ahead of their expansion; NULL: none */
    size_t row_bytes;
};

struct vex_graph_kernels {
    /* out[i] = scale * in[i] - centre[i] for i < dim; 0 up to padded. */
    void (*centre)(const float *in, float scale, const float *centre, size_t dim, size_t padded,
                   float *out);
    /* Flips the sign of values[i] if bit i is set; `count` is a multiple of 16. */
    void (*flip)(float *values, const uint8_t *bits, size_t count);
    /* Fast Hadamard transform of a power of two of values, at least 64, scaled to keep lengths. */
    void (*hadamard)(float *values, size_t count);
    /* (a, b) becomes (a + b, a - b) / sqrt 2 for the two halves; half a multiple of 16. */
    void (*butterfly)(float *values, size_t half);
    float (*max_abs)(const float *values, size_t count);
    float (*square_sum)(const float *values, size_t count);
    /* For h = the code of values / step: out[0] = <values, h>, out[1] = <h, h>, h in steps. */
    void (*code_fit)(const float *values, size_t padded, float inverse_step, float out[2]);
    void (*code_pack)(const float *values, size_t padded, float inverse_step, uint8_t *out);
    /* out[i] = round(values[i] * inverse), within -limit..limit (limit <= 127). Returns the sum. */
    int32_t (*quantise)(const float *values, size_t count, float inverse, int limit, int8_t *out);
    /* Fills distances of the batch from the nodes' codes; every node is below the codes' count. */
    void (*score)(const struct vex_code_query *query, const uint8_t *codes,
                  struct vex_score_batch *batch);
    /* Puts what is nearer than the beam's last into the beam, and asks memory for the links of what
     * lands near the front. */
    void (*offer)(struct vex_beam *beam, const struct vex_score_batch *batch);
    /* out[i] = |query - base[nodes[i]]|^2 of bytes within -63..63; `bytes` a multiple of 64. */
    void (*bytes_l2)(const int8_t *query, const int8_t *base, size_t bytes, const uint32_t *nodes,
                     size_t count, float *out);
};

/* How near the front a node must land for its links to be fetched at once. */
#define VEX_BEAM_FETCH_AHEAD 2u

extern const struct vex_graph_kernels vex_graph_kernels_scalar;
#if defined(__x86_64__)
extern const struct vex_graph_kernels vex_graph_kernels_avx2;
extern const struct vex_graph_kernels vex_graph_kernels_avx512; /* needs VNNI */
#endif

#endif
