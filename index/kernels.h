/*
 * Distance kernels: one query against a run of rows, so that the query stays in registers and the
 * call through a pointer is paid once per block.
 *
 * One const table per instruction set, one file each (kernels_scalar.c, kernels_avx2.c,
 * kernels_avx512.c). The table is chosen once from cpuid and XCR0; the environment variable VEX_ISA
 * (scalar, avx2, avx512, avx512vnni) lowers the choice so that tests can run every level on one machine.
 *
 * The float kernels only *filter*: sums are in single precision and in an order of the kernel's
 * choice. For n = dim terms every kernel stays within the bound of recursive summation,
 *     |computed - exact| <= (n + 3) * 2^-24 / (1 - (n + 3) * 2^-24) * sum |terms|
 * (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 4.2; fused operations
 * only tighten it) plus n * FLT_MIN for underflow. Ranking is done by vex_l2_f64 and vex_dot_f64,
 * plain C in a fixed order with contraction off: the same bits on every processor.
 *
 * Rows are `stride` floats apart (stride >= dim). No alignment is required; 64 bytes is faster.
 * Kernels read exactly `dim` floats of a row and of the query, never beyond. Thread-safety: pure
 * functions.
 */
#ifndef VEX_INDEX_KERNELS_H
#define VEX_INDEX_KERNELS_H

#include <stdbool.h>
#include <stddef.h>

#include "index/graph_kernels.h"
#include "index/scan_kernels.h"
#include "index/store_kernels.h"

typedef void (*vex_rows_kernel)(const float *query, const float *rows, size_t stride, size_t count,
                                size_t dim, float *out);

struct vex_kernels {
    const char *name;         /* "scalar", "avx2", "avx512", "avx512vnni" */
    vex_rows_kernel l2_rows;  /* out[i] = sum over d of (query[d] - rows[i * stride + d])^2 */
    vex_rows_kernel dot_rows; /* out[i] = sum over d of query[d] * rows[i * stride + d] */
    bool (*all_finite)(const float *values, size_t count); /* false if any is NaN or infinite */
    /* Ranking, four rows at a time: the bits of vex_l2_f64 and vex_dot_f64. out_squares[i] is the dot
     * product of a row with itself, NULL if not wanted. */
    void (*l2_f64_four)(const float *query, const float *const rows[4], size_t dim, double out[4]);
    void (*dot_f64_four)(const float *query, const float *const rows[4], size_t dim,
                         double out_dots[4], double *out_squares);
    const struct vex_graph_kernels *graph;
    const struct vex_store_kernels *half; /* rows of halves, of bytes: store.h */
    const struct vex_store_kernels *int8;
    const struct vex_scan_kernels *scan;
};

/* The best table this processor can run, lowered by VEX_ISA. Never NULL; the same at every call. */
const struct vex_kernels *vex_kernels_get(void);
/* The table of that name, or NULL if unknown or if this processor cannot run it. For tests. */
const struct vex_kernels *vex_kernels_by_name(const char *name);

extern const struct vex_kernels vex_kernels_scalar;
#if defined(__x86_64__)
extern const struct vex_kernels vex_kernels_avx2;
extern const struct vex_kernels vex_kernels_avx512; /* graph and scan kernels of AVX2 */
extern const struct vex_kernels vex_kernels_avx512vnni;
#endif

/* Double precision, four interleaved partial sums in a fixed order. */
double vex_l2_f64(const float *a, const float *b, size_t dim);
double vex_dot_f64(const float *a, const float *b, size_t dim);

#endif
