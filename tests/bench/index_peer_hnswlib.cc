// hnswlib as a module: unit vectors and inner product for cosine, as its manual advises.
// It is header-only, so the compiler's options decide which instructions it uses; the module is built
// once for the processor at hand and once with no more than AVX2. No exception gets out.
#include "tests/bench/index_peer.h"

#include <cmath>
#include <exception>
#include <memory>
#include <vector>

#include <hnswlib/hnswlib.h>

struct index_peer {
    std::unique_ptr<hnswlib::SpaceInterface<float>> space;
    std::unique_ptr<hnswlib::HierarchicalNSW<float>> graph;
    std::vector<float> scaled;
    bool is_cosine;
    uint32_t dim;
};

namespace
{

// The library has no place for them in a distance function.
hnswlib::DISTFUNC<float> counted_function;
uint64_t distances_counted;

float count_distance(const void *a, const void *b, const void *dim)
{
    distances_counted++;
    return counted_function(a, b, dim);
}

const float *scale_to_one(index_peer *peer, const float *vector)
{
    if (!peer->is_cosine) {
        return vector;
    }
    double square = 0;
    for (uint32_t d = 0; d < peer->dim; d++) {
        square += static_cast<double>(vector[d]) * vector[d];
    }
    float inverse = square > 0 ? static_cast<float>(1 / std::sqrt(square)) : 0;
    peer->scaled.resize(peer->dim);
    for (uint32_t d = 0; d < peer->dim; d++) {
        peer->scaled[d] = vector[d] * inverse;
    }
    return peer->scaled.data();
}

const char *describe()
{
#if defined(__AVX512F__)
    return "compiled for this processor, with AVX-512";
#elif defined(__AVX2__) && defined(__FMA__)
    return "compiled with AVX2 and FMA";
#else
    return "compiled for this processor, without AVX2";
#endif
}

bool can(index_peer_kind kind)
{
    return kind == INDEX_PEER_GRAPH;
}

index_peer *open(const index_peer_shape *shape, const float *)
{
    try {
        auto peer = std::make_unique<index_peer>();
        peer->is_cosine = shape->metric == 2;
        peer->dim = shape->dim;
        if (shape->metric == 1) {
            peer->space = std::make_unique<hnswlib::L2Space>(shape->dim);
        } else {
            peer->space = std::make_unique<hnswlib::InnerProductSpace>(shape->dim);
        }
        peer->graph = std::make_unique<hnswlib::HierarchicalNSW<float>>(
            peer->space.get(), shape->capacity, shape->m, shape->ef_construction);
        return peer.release();
    } catch (const std::exception &) {
        return nullptr;
    }
}

bool add(index_peer *peer, const float *rows, uint32_t first, uint32_t count)
{
    try {
        for (uint32_t row = first; row < first + count; row++) {
            const float *vector = rows + static_cast<size_t>(row) * peer->dim;
            peer->graph->addPoint(scale_to_one(peer, vector), row);
        }
        return true;
    } catch (const std::exception &) {
        return false;
    }
}

void search(index_peer *peer, const float *queries, size_t count, uint32_t k, uint32_t effort,
            uint64_t *out_rows)
{
    for (size_t i = 0; i < count * k; i++) {
        out_rows[i] = UINT64_MAX;
    }
    try {
        peer->graph->setEf(effort < k ? k : effort);
        for (size_t q = 0; q < count; q++) {
            auto found = peer->graph->searchKnn(scale_to_one(peer, queries + q * peer->dim), k);
            for (size_t i = found.size(); i-- > 0; found.pop()) {
                out_rows[q * k + i] = found.top().second;
            }
        }
    } catch (const std::exception &) {
        // What was not found is missing from the recall.
    }
}

void count_distances(index_peer *peer, bool counting)
{
    counted_function = peer->space->get_dist_func();
    peer->graph->fstdistfunc_ = counting ? count_distance : counted_function;
    distances_counted = 0;
}

uint64_t counted(index_peer *)
{
    return distances_counted;
}

uint64_t bytes(const index_peer *peer)
{
    const auto &graph = *peer->graph;
    uint64_t sum = graph.cur_element_count * (graph.size_data_per_element_ + sizeof(void *));
    for (size_t i = 0; i < graph.cur_element_count; i++) {
        sum += graph.element_levels_[i] * graph.size_links_per_element_;
    }
    return sum;
}

void release(index_peer *peer)
{
    delete peer;
}

} // namespace

extern "C" __attribute__((visibility("default")))
const struct index_peer_library index_peer_library;
const struct index_peer_library index_peer_library = {
    "hnswlib", VEX_BENCH_HNSWLIB_VERSION, describe, can,   false,   open, add,
    search,    count_distances,           counted,  bytes, release,
};
