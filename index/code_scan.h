/*
 * Exact search of a segment by its codes: all codes are scanned, and only rows that the bound of
 * code_bound.h cannot leave out are compared as vectors. The answer is that of comparing all rows.
 *
 * How few rows remain depends on the threshold, which is the k-th best key known. So a good one is
 * found first: by a walk if the segment has a graph, else from the best estimates among rows picked
 * from all over it. What is found there only sets the limit and is forgotten again, because the scan
 * meets the same rows.
 *
 * A single query scans codes in the order of memory, as fast as memory gives them. Several share each
 * tile of rows (scan_kernels.h). Where codes leave too much, as among rows that are all alike, a run
 * of rows is handed to the scan of vectors.
 *
 * Thread-safety: as index.h.
 */
#ifndef VEX_INDEX_CODE_SCAN_H
#define VEX_INDEX_CODE_SCAN_H

#include "index/flat.h"

#define VEX_CODE_SCAN_GROUP 256u /* queries that share a pass */

/* How many rows of a segment of a view, from the first on, can be scanned by codes. */
uint32_t vex_code_scan_rows(const struct vex_view_segment *segment);
/* Scratch for so many queries, at most VEX_CODE_SCAN_GROUP, with this k. */
size_t vex_code_scan_scratch_bytes(const struct vex_segment *segment, size_t count, uint32_t k);
/* Offers those rows to every query; lowers limits. `scratch` is aligned to 64. */
void vex_code_scan(const struct vex_view *view, uint32_t segment, struct vex_flat_query *queries,
                   size_t count, void *scratch);

#endif
