// hnswlib behind a C interface: unit vectors and inner product for cosine, as its manual advises.
// No exception gets out.
#include "tests/bench/index_peer.h"

#include <cmath>
#include <exception>
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

// The library has no place for them in a distance function.
static hnswlib::DISTFUNC<float> counted_function;
static uint64_t counted;

static float count_distance(const void *a, const void *b, const void *dim)
{
    counted++;
    return counted_function(a, b, dim);
}

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

index_peer *index_peer_open(uint32_t capacity, uint32_t dim, int metric, uint32_t m,
                            uint32_t ef_construction)
{
    try {
        auto peer = std::make_unique<index_peer>();
        peer->is_cosine = metric == 2;
        peer->dim = dim;
        if (metric == 1) {
            peer->space = std::make_unique<hnswlib::L2Space>(dim);
        } else {
            peer->space = std::make_unique<hnswlib::InnerProductSpace>(dim);
        }
        peer->graph = std::make_unique<hnswlib::HierarchicalNSW<float>>(peer->space.get(), capacity,
                                                                        m, ef_construction);
        return peer.release();
    } catch (const std::exception &) {
        return nullptr;
    }
}

bool index_peer_add(index_peer *peer, uint32_t row, const float *vector)
{
    try {
        peer->query.assign(vector, vector + peer->dim);
        if (peer->is_cosine) {
            scale_to_one(peer->query.data(), peer->dim);
        }
        peer->graph->addPoint(peer->query.data(), row);
        return true;
    } catch (const std::exception &) {
        return false;
    }
}

index_peer *index_peer_new(const float *rows, uint32_t count, uint32_t dim, int metric, uint32_t m,
                           uint32_t ef_construction)
{
    index_peer *peer = index_peer_open(count, dim, metric, m, ef_construction);
    for (uint32_t i = 0; i < count && peer; i++) {
        if (!index_peer_add(peer, i, rows + static_cast<size_t>(i) * dim)) {
            delete peer;
            peer = nullptr;
        }
    }
    return peer;
}

void index_peer_search(index_peer *peer, const float *query, uint32_t k, uint32_t ef,
                       uint64_t *out_rows)
{
    for (uint32_t i = 0; i < k; i++) {
        out_rows[i] = UINT64_MAX;
    }
    try {
        const float *given = query;
        if (peer->is_cosine) {
            peer->query.assign(query, query + peer->dim);
            scale_to_one(peer->query.data(), peer->dim);
            given = peer->query.data();
        }
        peer->graph->setEf(ef < k ? k : ef);
        auto found = peer->graph->searchKnn(given, k);
        for (uint32_t i = static_cast<uint32_t>(found.size()); i-- > 0; found.pop()) {
            out_rows[i] = found.top().second;
        }
    } catch (const std::exception &) {
        // What was not found is missing from the recall.
    }
}

void index_peer_count(index_peer *peer, bool counting)
{
    counted_function = peer->space->get_dist_func();
    peer->graph->fstdistfunc_ = counting ? count_distance : counted_function;
    counted = 0;
}

uint64_t index_peer_counted(void)
{
    return counted;
}

uint64_t index_peer_bytes(const index_peer *peer)
{
    const auto &graph = *peer->graph;
    uint64_t bytes = graph.cur_element_count * (graph.size_data_per_element_ + sizeof(void *));
    for (size_t i = 0; i < graph.cur_element_count; i++) {
        bytes += graph.element_levels_[i] * graph.size_links_per_element_;
    }
    return bytes;
}

void index_peer_free(index_peer *peer)
{
    delete peer;
}
