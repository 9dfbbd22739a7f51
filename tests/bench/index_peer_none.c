/* No library to compare with. */
#include <stddef.h>

#include "tests/bench/index_peer.h"

const char *index_peer_name(void)
{
    return "none";
}

struct index_peer *index_peer_open(uint32_t capacity, uint32_t dim, int metric, uint32_t m,
                                   uint32_t ef_construction)
{
    (void)capacity;
    (void)dim;
    (void)metric;
    (void)m;
    (void)ef_construction;
    return NULL;
}

bool index_peer_add(struct index_peer *peer, uint32_t row, const float *vector)
{
    (void)peer;
    (void)row;
    (void)vector;
    return false;
}

struct index_peer *index_peer_new(const float *rows, uint32_t count, uint32_t dim, int metric,
                                  uint32_t m, uint32_t ef_construction)
{
    (void)rows;
    return index_peer_open(count, dim, metric, m, ef_construction);
}

void index_peer_search(struct index_peer *peer, const float *query, uint32_t k, uint32_t ef,
                       uint64_t *out_rows)
{
    (void)peer;
    (void)query;
    (void)k;
    (void)ef;
    (void)out_rows;
}

void index_peer_count(struct index_peer *peer, bool counting)
{
    (void)peer;
    (void)counting;
}

uint64_t index_peer_counted(void)
{
    return 0;
}

uint64_t index_peer_bytes(const struct index_peer *peer)
{
    (void)peer;
    return 0;
}

void index_peer_free(struct index_peer *peer)
{
    (void)peer;
}
