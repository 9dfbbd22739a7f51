#include "index/topk.h"

#include <math.h>

static bool is_worse(const struct vex_candidate *a, const struct vex_candidate *b)
{
    return a->key > b->key || (a->key == b->key && a->id > b->id);
}

static void swap(struct vex_candidate *a, struct vex_candidate *b)
{
    struct vex_candidate held = *a;
    *a = *b;
    *b = held;
}

static void sift_down(struct vex_candidate *heap, uint32_t count, uint32_t at)
{
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= count) {
            return;
        }
        if (child + 1 < count && is_worse(&heap[child + 1], &heap[child])) {
            child++;
        }
        if (!is_worse(&heap[child], &heap[at])) {
            return;
        }
        swap(&heap[child], &heap[at]);
        at = child;
    }
}

static void sift_up(struct vex_candidate *heap, uint32_t at)
{
    while (at > 0) {
        uint32_t parent = (at - 1) / 2;
        if (!is_worse(&heap[at], &heap[parent])) {
            return;
        }
        swap(&heap[at], &heap[parent]);
        at = parent;
    }
}

double vex_topk_threshold(const struct vex_topk *topk)
{
    return topk->count < topk->k ? INFINITY : topk->heap[0].key;
}

void vex_topk_offer(struct vex_topk *topk, const struct vex_candidate *candidate)
{
    if (topk->count < topk->k) {
        topk->heap[topk->count] = *candidate;
        sift_up(topk->heap, topk->count);
        topk->count++;
    } else if (is_worse(&topk->heap[0], candidate)) {
        topk->heap[0] = *candidate;
        sift_down(topk->heap, topk->count, 0);
    }
}

void vex_topk_drop(struct vex_topk *topk, uint32_t segment)
{
    uint32_t kept = topk->count;
    topk->count = 0;
    /* Slots are filled from the front, never ahead of what is read. */
    for (uint32_t i = 0; i < kept; i++) {
        struct vex_candidate candidate = topk->heap[i];
        if (candidate.segment != segment) {
            vex_topk_offer(topk, &candidate);
        }
    }
}

void vex_topk_finish(struct vex_topk *topk)
{
    for (uint32_t count = topk->count; count > 1; count--) {
        swap(&topk->heap[0], &topk->heap[count - 1]);
        sift_down(topk->heap, count - 1, 0);
    }
}
