/* No library to compare with. */
#include <stddef.h>

#include "tests/bench/index_peer.h"

const char *index_peer_name(void)
{
    return "none";
}

struct index_peer *index_peer_new(const float *rows, uint32_t count, uint32_t dim, int metric,
                                  uint32_t m, uint32_t ef_construction)
{
    (void)rows;
    (void)count;
    (void)dim;
    (void)metric;
    (void)m;
    (void)ef_construction;
    return NULL;
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

void index_peer_free(struct index_peer *peer)
{
    (void)peer;
}
