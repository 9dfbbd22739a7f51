/*
 * The few words that every part of VexDB shares with its users: limits, metrics, kinds of write.
 */
#ifndef VEX_TYPES_H
#define VEX_TYPES_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Limits, all checked with VEX_ERR_LIMIT or a more precise code. */
#define VEX_DIM_MAX 65535u
#define VEX_NAME_MAX 63u                /* bytes of a collection name, without the NUL */
#define VEX_PAYLOAD_MAX (64u * 1024u)   /* bytes of one payload */
#define VEX_BATCH_BYTES_MAX (16u << 20) /* vectors, ids and payloads of one batch together */
#define VEX_BATCH_COUNT_MAX (1u << 20)  /* items in one batch */
#define VEX_K_MAX 65536u                /* neighbours per query */
#define VEX_QUERIES_MAX (1u << 20)      /* queries per call */
#define VEX_COLLECTIONS_MAX 1024u       /* collections in one instance */
#define VEX_ID_MAX (UINT64_MAX - 1)     /* largest id; UINT64_MAX never names a vector */

/* The numbers are in the log and on the wire: append only. */
enum vex_metric {
    VEX_METRIC_L2 = 1,
    VEX_METRIC_COSINE = 2,
    VEX_METRIC_DOT = 3,
};

/* How a collection is searched. As above: append only. */
enum vex_index_kind {
    VEX_INDEX_AUTO = 0, /* exact; as VEX_INDEX_HNSW in segments of 16,384 rows and more */
    VEX_INDEX_FLAT = 1, /* every search is exact */
    VEX_INDEX_HNSW = 2, /* a graph per segment: approximate, see ef_search */
    VEX_INDEX_IVF = 3,  /* lists of near rows per segment: approximate, see nprobe */
};

/* What is kept of a vector. As above: append only. */
enum vex_storage {
    VEX_STORAGE_FLOAT32 = 0, /* every bit */
    VEX_STORAGE_FLOAT16 = 1, /* rounded to half floats */
    VEX_STORAGE_INT8 = 2,    /* rounded to 8-bit integers of one scale per vector */
};

#define VEX_HNSW_M_MIN 4u
#define VEX_HNSW_M_MAX 64u
#define VEX_HNSW_M_DEFAULT 16u
#define VEX_HNSW_EF_CONSTRUCTION_MIN 8u
#define VEX_HNSW_EF_CONSTRUCTION_MAX 4096u
#define VEX_HNSW_EF_CONSTRUCTION_DEFAULT 200u
#define VEX_EF_SEARCH_MAX 65536u
#define VEX_LISTS_MAX 65536u /* of one segment; also the most that a search may probe */

/* As above: append only. */
enum vex_write_kind {
    VEX_WRITE_INSERT = 1, /* id must be free: VEX_ERR_EXISTS */
    VEX_WRITE_UPSERT = 2, /* replaces what is there: vector and payload */
    VEX_WRITE_UPDATE = 3, /* id must exist: VEX_ERR_NOT_FOUND; a NULL payload keeps the old one */
    VEX_WRITE_DELETE = 4, /* id must exist: VEX_ERR_NOT_FOUND; no vectors, no payloads */
};

#ifdef __cplusplus
}
#endif
#endif
