/*
 * The k best rows met so far: a binary max-heap in the caller's array, ordered by (key, id), so
 * that ties are broken by the lower id. Keys are doubles, smaller is nearer (a dot product is
 * negated). Thread-safety: one thread at a time.
 */
#ifndef VEX_INDEX_TOPK_H
#define VEX_INDEX_TOPK_H

#include <stdbool.h>
#include <stdint.h>

struct vex_candidate {
    double key;
    uint64_t id;
    uint32_t segment; /* position in the view */
    uint32_t row;
};

struct vex_topk {
    struct vex_candidate *heap; /* borrowed, room for k */
    uint32_t k;
    uint32_t count;
};

static inline void vex_topk_init(struct vex_topk *topk, struct vex_candidate *heap, uint32_t k)
{
    *topk = (struct vex_topk){heap, k, 0};
}

/* The key that a row must not exceed to get in; infinity while there is room. */
double vex_topk_threshold(const struct vex_topk *topk);
/* Offers a row; it gets in if it is better than the worst. */
void vex_topk_offer(struct vex_topk *topk, const struct vex_candidate *candidate);
/* Takes out what was offered from one segment. */
void vex_topk_drop(struct vex_topk *topk, uint32_t segment);
/* Sorts the heap nearest first; afterwards only reading is allowed. */
void vex_topk_finish(struct vex_topk *topk);

#endif
