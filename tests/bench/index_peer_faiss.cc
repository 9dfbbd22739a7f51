// faiss as a module: its flat, HNSW and IVF-Flat indexes, with unit vectors and inner product for cosine.
// It and the BLAS below it are told to use one thread. No exception gets out.
#include "tests/bench/index_peer.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include <faiss/IndexFlat.h>
#include <faiss/IndexHNSW.h>
#include <faiss/IndexIVFFlat.h>
#include <faiss/utils/utils.h>
#include <omp.h>

extern "C" void openblas_set_num_threads(int count);
extern "C" char *openblas_get_corename(void);

#define TEXT_OF(number) #number
#define TEXT(number) TEXT_OF(number)

struct index_peer {
    index_peer_kind kind;
    bool is_cosine;
    uint32_t dim;
    std::unique_ptr<faiss::Index> quantizer; // of LISTS
    std::unique_ptr<faiss::Index> index;
    std::vector<float> scaled;
    std::vector<float> distances;
    std::vector<faiss::Index::idx_t> labels;
    uint64_t queries_counted;
};

namespace
{

const float *scale_to_one(index_peer *peer, const float *vectors, size_t count)
{
    if (!peer->is_cosine) {
        return vectors;
    }
    peer->scaled.assign(vectors, vectors + count * peer->dim);
    for (size_t i = 0; i < count; i++) {
        float *vector = peer->scaled.data() + i * peer->dim;
        double square = 0;
        for (uint32_t d = 0; d < peer->dim; d++) {
            square += static_cast<double>(vector[d]) * vector[d];
        }
        float inverse = square > 0 ? static_cast<float>(1 / std::sqrt(square)) : 0;
        for (uint32_t d = 0; d < peer->dim; d++) {
            vector[d] *= inverse;
        }
    }
    return peer->scaled.data();
}

// "GENERIC" is what it says of a build for any x86-64, which has SSE2 and nothing wider.
const char *describe()
{
    static std::string text;
    std::string options = faiss::get_compile_options();
    size_t generic = options.find("GENERIC");
    if (generic != std::string::npos) {
        options.replace(generic, 7, "GENERIC (an SSE2 build)");
    }
    while (!options.empty() && options.back() == ' ') {
        options.pop_back();
    }
    text = options + ", OpenBLAS with kernels for " + openblas_get_corename();
    return text.c_str();
}

bool can(index_peer_kind)
{
    return true;
}

void make_index(index_peer *peer, const index_peer_shape *shape)
{
    auto metric = shape->metric == 1 ? faiss::METRIC_L2 : faiss::METRIC_INNER_PRODUCT;
    int dim = static_cast<int>(shape->dim);
    switch (shape->kind) {
    case INDEX_PEER_FLAT:
        peer->index = std::make_unique<faiss::IndexFlat>(dim, metric);
        break;
    case INDEX_PEER_GRAPH: {
        auto graph =
            std::make_unique<faiss::IndexHNSWFlat>(dim, static_cast<int>(shape->m), metric);
        graph->hnsw.efConstruction = static_cast<int>(shape->ef_construction);
        peer->index = std::move(graph);
        break;
    }
    case INDEX_PEER_LISTS: {
        // Its guidelines say 4 to 16 times the root.
        double root = std::sqrt(static_cast<double>(shape->capacity));
        size_t lists = shape->lists ? shape->lists : static_cast<size_t>(std::ceil(4 * root));
        peer->quantizer = std::make_unique<faiss::IndexFlat>(dim, metric);
        peer->index = std::make_unique<faiss::IndexIVFFlat>(
            peer->quantizer.get(), shape->dim,
            std::min<size_t>(lists, std::max<size_t>(shape->capacity / 39, 1)), metric);
        break;
    }
    }
}

index_peer *open(const index_peer_shape *shape, const float *rows)
{
    try {
        omp_set_num_threads(1);
        openblas_set_num_threads(1);
        auto peer = std::make_unique<index_peer>();
        peer->kind = shape->kind;
        peer->is_cosine = shape->metric == 2;
        peer->dim = shape->dim;
        make_index(peer.get(), shape);
        if (!peer->index->is_trained) {
            peer->index->train(shape->capacity, scale_to_one(peer.get(), rows, shape->capacity));
            std::vector<float>().swap(peer->scaled);
        }
        return peer.release();
    } catch (const std::exception &) {
        return nullptr;
    }
}

bool add(index_peer *peer, const float *rows, uint32_t first, uint32_t count)
{
    try {
        const float *vectors = rows + static_cast<size_t>(first) * peer->dim;
        peer->index->add(count, scale_to_one(peer, vectors, count));
        return true;
    } catch (const std::exception &) {
        return false;
    }
}

void set_effort(index_peer *peer, uint32_t k, uint32_t effort)
{
    if (peer->kind == INDEX_PEER_GRAPH) {
        auto *graph = static_cast<faiss::IndexHNSWFlat *>(peer->index.get());
        graph->hnsw.efSearch = static_cast<int>(std::max(effort, k));
    }
    if (peer->kind == INDEX_PEER_LISTS) {
        static_cast<faiss::IndexIVFFlat *>(peer->index.get())->nprobe = effort;
    }
}

void search(index_peer *peer, const float *queries, size_t count, uint32_t k, uint32_t effort,
            uint64_t *out_rows)
{
    std::fill_n(out_rows, count * k, UINT64_MAX);
    try {
        set_effort(peer, k, effort);
        peer->queries_counted += count;
        peer->distances.resize(count * k);
        peer->labels.resize(count * k);
        peer->index->search(static_cast<faiss::Index::idx_t>(count),
                            scale_to_one(peer, queries, count), k, peer->distances.data(),
                            peer->labels.data());
        // Its label for nothing, -1, becomes ours.
        std::copy(peer->labels.begin(), peer->labels.end(), out_rows);
    } catch (const std::exception &) {
        // What was not found is missing from the recall.
    }
}

// The library counts by itself, always.
void count_distances(index_peer *peer, bool)
{
    peer->queries_counted = 0;
    faiss::hnsw_stats.reset();
    faiss::indexIVF_stats.reset();
}

uint64_t counted(index_peer *peer)
{
    switch (peer->kind) {
    case INDEX_PEER_FLAT:
        return peer->queries_counted * static_cast<uint64_t>(peer->index->ntotal);
    case INDEX_PEER_GRAPH:
        return faiss::hnsw_stats.n3;
    case INDEX_PEER_LISTS:
        return faiss::indexIVF_stats.ndis;
    }
    return 0;
}

uint64_t bytes(const index_peer *peer)
{
    auto rows = static_cast<uint64_t>(peer->index->ntotal);
    uint64_t sum = rows * peer->dim * sizeof(float);
    if (peer->kind == INDEX_PEER_GRAPH) {
        const auto &hnsw = static_cast<const faiss::IndexHNSWFlat *>(peer->index.get())->hnsw;
        sum += hnsw.neighbors.size() * sizeof(hnsw.neighbors[0]) +
               hnsw.offsets.size() * sizeof(hnsw.offsets[0]) +
               hnsw.levels.size() * sizeof(hnsw.levels[0]);
    }
    if (peer->kind == INDEX_PEER_LISTS) {
        const auto *lists = static_cast<const faiss::IndexIVFFlat *>(peer->index.get());
        sum += rows * sizeof(faiss::Index::idx_t) + lists->nlist * peer->dim * sizeof(float);
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
    "faiss",
    TEXT(FAISS_VERSION_MAJOR) "." TEXT(FAISS_VERSION_MINOR) "." TEXT(FAISS_VERSION_PATCH),
    describe,
    can,
    true,
    open,
    add,
    search,
    count_distances,
    counted,
    bytes,
    release,
};
