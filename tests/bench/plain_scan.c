/*
 * A plain scan; what it is for is in plain_scan.h.
 *
 * Four rows at a time, so that the query is loaded once for them and no addition waits for the one before
 * it; otherwise one after the other, as the memory gives them best.
 */
#include "tests/bench/plain_scan.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/bench/common.h"

#define HUGE_BYTES ((size_t)2 << 20)
#define ROWS 4u
#define AHEAD 2048u /* floats that are asked of the memory before they are needed */

/* Of ROWS rows one after the other. */
typedef void (*distance_function)(const float *query, const float *rows, uint32_t dim,
                                  float out[ROWS]);

typedef float four __attribute__((vector_size(16), aligned(4), may_alias));

/* As a tree: a chain of additions would cost more than the row. */
static inline float add_lanes(const float *lanes, uint32_t count)
{
    four sum = *(const four *)lanes;
    if (count == 8) {
        sum += *(const four *)(lanes + 4);
    }
    if (count == 16) {
        sum = (sum + *(const four *)(lanes + 4)) +
              (*(const four *)(lanes + 8) + *(const four *)(lanes + 12));
    }
    return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

/* clang-format off: it does not know what _Pragma belongs to. A compiler takes vectors apart before it
 * would inline or clone: so once for each kind of processor. */
#define DEFINE_DISTANCES(name, target, lanes, term)                                                \
    typedef float name##_lanes                                                                     \
        __attribute__((vector_size((lanes) * sizeof(float)), aligned(4), may_alias));              \
    target static void name(const float *query, const float *rows, uint32_t dim, float out[ROWS])  \
    {                                                                                              \
        name##_lanes sums[ROWS] = {0};                                                             \
        uint32_t d = 0;                                                                            \
        for (; d + (lanes) <= dim; d += (lanes)) {                                                 \
            name##_lanes q = *(const name##_lanes *)(query + d);                                   \
            _Pragma("GCC unroll 4") for (uint32_t i = 0; i < ROWS; i++)                            \
            {                                                                                      \
                const float *at = rows + (size_t)i * dim + d;                                      \
                __builtin_prefetch(at + AHEAD);                                                    \
                name##_lanes r = *(const name##_lanes *)at;                                        \
                sums[i] += term;                                                                   \
            }                                                                                      \
        }                                                                                          \
        for (uint32_t i = 0; i < ROWS; i++) {                                                      \
            out[i] = add_lanes((const float *)&sums[i], (lanes));                                  \
        }                                                                                          \
        for (; d < dim; d++) {                                                                     \
            for (uint32_t i = 0; i < ROWS; i++) {                                                  \
                float q = query[d];                                                                \
                float r = rows[(size_t)i * dim + d];                                               \
                out[i] += term;                                                                    \
            }                                                                                      \
        }                                                                                          \
    }
/* clang-format on */

#define L2_TERM ((q - r) * (q - r))
#define DOT_TERM (-(q * r))

DEFINE_DISTANCES(l2_plain, , 4u, L2_TERM)
DEFINE_DISTANCES(dot_plain, , 4u, DOT_TERM)
#if defined(__x86_64__)
DEFINE_DISTANCES(l2_avx2, __attribute__((target("avx2,fma"))), 8u, L2_TERM)
DEFINE_DISTANCES(dot_avx2, __attribute__((target("avx2,fma"))), 8u, DOT_TERM)
DEFINE_DISTANCES(l2_avx512, __attribute__((target("avx512f"))), 16u, L2_TERM)
DEFINE_DISTANCES(dot_avx512, __attribute__((target("avx512f"))), 16u, DOT_TERM)
#endif

static distance_function best_distance(enum vex_metric metric)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) {
        return metric == VEX_METRIC_L2 ? l2_avx512 : dot_avx512;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        return metric == VEX_METRIC_L2 ? l2_avx2 : dot_avx2;
    }
#endif
    return metric == VEX_METRIC_L2 ? l2_plain : dot_plain;
}

static void scale_to_one(float *row, uint32_t dim)
{
    double square = 0;
    for (uint32_t d = 0; d < dim; d++) {
        square += (double)row[d] * row[d];
    }
    float inverse = square > 0 ? (float)(1 / sqrt(square)) : 0;
    for (uint32_t d = 0; d < dim; d++) {
        row[d] *= inverse;
    }
}

bool vex_plain_scan_open(struct vex_plain_scan *scan, const struct vex_vectors *base,
                         enum vex_metric metric)
{
    size_t row_bytes = base->dim * sizeof(float);
    size_t wanted = base->rows * row_bytes;
    /* There are rows of zeros behind the last one, to fill its four. */
    size_t bytes = (wanted + (ROWS - 1) * row_bytes + HUGE_BYTES - 1) / HUGE_BYTES * HUGE_BYTES;
    void *rows = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (rows == MAP_FAILED) {
        return vex_bench_fail("%zu bytes of memory to scan: %s", bytes, strerror(errno));
    }
    /* Fails where the kernel knows no huge pages: then there are none. */
    (void)madvise(rows, bytes, MADV_HUGEPAGE);
    memcpy(rows, base->values, wanted);
    *scan = (struct vex_plain_scan){rows, bytes, base->rows, base->dim, metric};
    for (size_t i = 0; i < scan->count && metric == VEX_METRIC_COSINE; i++) {
        scale_to_one(scan->rows + i * scan->dim, scan->dim);
    }
    return true;
}

void vex_plain_scan_close(struct vex_plain_scan *scan)
{
    if (scan->rows) {
        (void)munmap(scan->rows, scan->bytes);
    }
    *scan = (struct vex_plain_scan){0};
}

static void offer(uint64_t row, float distance, uint32_t k, uint64_t *rows, float *distances)
{
    uint32_t at = k - 1;
    if (!(distance < distances[at])) {
        return;
    }
    for (; at > 0 && distance < distances[at - 1]; at--) {
        distances[at] = distances[at - 1];
        rows[at] = rows[at - 1];
    }
    distances[at] = distance;
    rows[at] = row;
}

void vex_plain_scan_search(const struct vex_plain_scan *scan, const float *query, uint32_t k,
                           uint64_t *out_rows, float *distances)
{
    distance_function distances_of = best_distance(scan->metric);
    for (uint32_t i = 0; i < k; i++) {
        out_rows[i] = UINT64_MAX;
        distances[i] = INFINITY;
    }
    for (size_t row = 0; row < scan->count; row += ROWS) {
        float found[ROWS];
        distances_of(query, scan->rows + row * scan->dim, scan->dim, found);
        for (size_t i = 0; i < ROWS && row + i < scan->count; i++) {
            offer(row + i, found[i], k, out_rows, distances);
        }
    }
}
