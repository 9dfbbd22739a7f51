/* The library that index_bench compares with: hnswlib, if it was there at build time. */
#ifndef VEX_TESTS_BENCH_INDEX_PEER_H
#define VEX_TESTS_BENCH_INDEX_PEER_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct index_peer;

const char *index_peer_name(void);
/* `metric` as enum vex_metric. NULL if there is no such library. */
struct index_peer *index_peer_new(const float *rows, uint32_t count, uint32_t dim, int metric,
                                  uint32_t m, uint32_t ef_construction);
/* Fills out_rows[k], nearest first or not; what is missing is UINT64_MAX. */
void index_peer_search(struct index_peer *peer, const float *query, uint32_t k, uint32_t ef,
                       uint64_t *out_rows);
void index_peer_free(struct index_peer *peer);

#ifdef __cplusplus
}
#endif

#endif
