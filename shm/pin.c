#include "shm/pin.h"

uint64_t vex_slot_page_oldest(const struct vex_slot_page *page, uint64_t current)
{
    uint64_t oldest = UINT64_MAX;
    for (uint32_t i = 0; i < VEX_SLOTS_PER_PAGE; i++) {
        /* pairs: PIN with vex_pin and vex_unpin. */
        uint64_t pinned = atomic_load_explicit(&page->slots[i].pinned, memory_order_seq_cst);
        if (pinned > current) {
            return 1;
        }
        if (pinned != 0 && pinned < oldest) {
            oldest = pinned;
        }
    }
    return oldest;
}

void vex_slot_page_revoke(struct vex_slot_page *page)
{
    /* pairs: REVOKED with vex_unpin and vex_pin_holds. */
    atomic_store_explicit(&page->revoked, 1, memory_order_seq_cst);
    for (uint32_t i = 0; i < VEX_SLOTS_PER_PAGE; i++) {
        /* pairs: PIN with vex_unpin and vex_pin_holds: each of these either comes first, and its
         * reads are over, or comes later, and then sees the word stored above. See pin.h. */
        (void)atomic_fetch_or_explicit(&page->slots[i].pinned, 0, memory_order_acq_rel);
    }
}

bool vex_slot_page_is_revoked(const struct vex_slot_page *page)
{
    /* pairs: REVOKED with vex_slot_page_revoke. */
    return atomic_load_explicit(&page->revoked, memory_order_acquire) != 0;
}
