// hnswlib behind a C interface: unit vectors and inner product for cosine, as its manual advises.
#include "tests/bench/index_peer.h"

#include <cmath>
#include <memory>
#include <vector>

#include <hnswlib/hnswlib.h>

struct index_peer {
    std::unique_ptr<hnswlib::SpaceInterface<float>> space;
    std::unique_ptr<hnswlib::HierarchicalNSW<float>> graph;
    std::vector<float> query;
    bool is_cosine;
    uint32_t dim;
};

static void scale_to_one(float *vector, uint32_t dim)
{
    double square = 0;
    for (uint32_t d = 0; d < dim; d++) {
        square += static_cast<double>(vector[d]) * vector[d];
    }
    float inverse = square > 0 ? static_cast<float>(1 / std::sqrt(square)) : 0;
    for (uint32_t d = 0; d < dim; d++) {
        vector[d] *= inverse;
    }
}

const char *index_peer_name(void)
{
    return "hnswlib";
}

index_peer *index_peer_new(const float *rows, uint32_t count, uint32_t dim, int metric, uint32_t m,
                           uint32_t ef_construction)
{
    auto peer = std::make_unique<index_peer>();
    peer->is_cosine = metric == 2;
    peer->dim = dim;
    if (metric == 1) {
        peer->space = std::make_unique<hnswlib::L2Space>(dim);
    } else {
        peer->space = std::make_unique<hnswlib::InnerProductSpace>(dim);
    }
    peer->graph = std::make_unique<hnswlib::HierarchicalNSW<float>>(peer->space.get(), count, m,
                                                                    ef_construction);
    for (uint32_t i = 0; i < count; i++) {
        peer->query.assign(rows + static_cast<size_t>(i) * dim,
                           rows + static_cast<size_t>(i + 1) * dim);
        if (peer->is_cosine) {
            scale_to_one(peer->query.data(), dim);
        }
        peer->graph->addPoint(peer->query.data(), i);
    }
    return peer.release();
}

void index_peer_search(index_peer *peer, const float *query, uint32_t k, uint32_t ef,
                       uint64_t *out_rows)
{
    const float *given = query;
    if (peer->is_cosine) {
        peer->query.assign(query, query + peer->dim);
        scale_to_one(peer->query.data(), peer->dim);
        given = peer->query.data();
    }
    peer->graph->setEf(ef < k ? k : ef);
    auto found = peer->graph->searchKnn(given, k);
    for (uint32_t i = 0; i < k; i++) {
        out_rows[i] = UINT64_MAX;
    }
    for (uint32_t i = static_cast<uint32_t>(found.size()); i-- > 0; found.pop()) {
        out_rows[i] = found.top().second;
    }
}

void index_peer_free(index_peer *peer)
{
    delete peer;
}
