/*
 * A library that the index is compared with, behind one interface in C.
 *
 * Each is a module of its own that is loaded when it is asked for: vexbench then neither needs them to
 * start nor has their code beside ours, and one library can be there twice, compiled for processors of
 * two kinds, without the linker taking the inline functions of one for those of the other.
 *
 * Thread-safety: one thread. A library is told to use no more than that either.
 */
#ifndef VEX_TESTS_BENCH_INDEX_PEER_H
#define VEX_TESTS_BENCH_INDEX_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct index_peer;

/* The numbers are those of enum vex_index_kind; `metric` below is as enum vex_metric. */
enum index_peer_kind { INDEX_PEER_FLAT = 1, INDEX_PEER_GRAPH = 2, INDEX_PEER_LISTS = 3 };

struct index_peer_shape {
    enum index_peer_kind kind;
    int metric;
    uint32_t dim;
    uint32_t capacity;        /* rows */
    uint32_t m;               /* GRAPH */
    uint32_t ef_construction; /* GRAPH */
    uint32_t lists;           /* LISTS; 0 = by the number of rows */
};

struct index_peer_library {
    const char *name;
    const char *version;
    /* How it was compiled, for which processor, and what it computes with. */
    const char *(*describe)(void);
    bool (*can)(enum index_peer_kind kind);
    bool takes_batches; /* has a call for many queries */
    /*
     * An empty one. `rows` are all that will be added, in case it must learn from them before, which it
     * may do here. NULL = no memory, or the library refused.
     */
    struct index_peer *(*open)(const struct index_peer_shape *shape, const float *rows);
    /* Adds rows `first` to first + count - 1 of those; false if there is no room or no memory. */
    bool (*add)(struct index_peer *peer, const float *rows, uint32_t first, uint32_t count);
    /* Fills out_rows[count * k], nearest first or not; what is missing is UINT64_MAX. All queries in one
     * call of the library, if it has such a call. `effort` is as its users know it. */
    void (*search)(struct index_peer *peer, const float *queries, size_t count, uint32_t k,
                   uint32_t effort, uint64_t *out_rows);
    /* Searches that count the distances they compute may be slower: not while time is measured. */
    void (*count)(struct index_peer *peer, bool counting);
    uint64_t (*counted)(struct index_peer *peer);
    /* Memory that vectors, labels and links take. */
    uint64_t (*bytes)(const struct index_peer *peer);
    void (*free)(struct index_peer *peer); /* NULL is allowed */
};

/*
 * Loads one by name: "hnswlib" or "faiss". `isa` is what the kernels it will be compared with use, as
 * vex_isa_name() says: a library that was compiled twice comes with the instructions that these may use.
 * NULL if it was not there when this program was built.
 */
const struct index_peer_library *index_peer_load(const char *name, const char *isa);

#ifdef __cplusplus
}
#endif

#endif
