/* The library that graphs are compared with: hnswlib, if it was there at build time. */
#ifndef VEX_TESTS_BENCH_INDEX_PEER_H
#define VEX_TESTS_BENCH_INDEX_PEER_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct index_peer;

const char *index_peer_name(void);
/* An empty one for `capacity` rows; `metric` as enum vex_metric. NULL if there is no such library,
 * or no memory. */
struct index_peer *index_peer_open(uint32_t capacity, uint32_t dim, int metric, uint32_t m,
                                   uint32_t ef_construction);
/* False if there is no room or no memory. */
bool index_peer_add(struct index_peer *peer, uint32_t row, const float *vector);
/* open, and add of every row. */
struct index_peer *index_peer_new(const float *rows, uint32_t count, uint32_t dim, int metric,
                                  uint32_t m, uint32_t ef_construction);
/* Fills out_rows[k], nearest first or not; what is missing is UINT64_MAX. */
void index_peer_search(struct index_peer *peer, const float *query, uint32_t k, uint32_t ef,
                       uint64_t *out_rows);
/* Searches that count the distances they compute are slower: not while time is measured. */
void index_peer_count(struct index_peer *peer, bool counting);
uint64_t index_peer_counted(void);
/* Memory that vectors, labels and links take. */
uint64_t index_peer_bytes(const struct index_peer *peer);
void index_peer_free(struct index_peer *peer);

#ifdef __cplusplus
}
#endif

#endif
