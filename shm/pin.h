/*
 * Pins: how a reader keeps what it reads alive, and how the daemon learns what it may reuse.
 *
 * Each reading thread owns one slot. Pinning stores a generation there and then loads the current
 * generation; both are sequentially consistent, as are the daemon's store of a new generation and
 * its scan of the slots. In the single total order of these four, either the scan sees the pin, or
 * the pin's load sees the new generation; the forbidden interleaving is the one where both miss
 * each other, and a reader goes on to use what the daemon gives back.
 *
 * What a generation r unlinked (a segment, a list block, a collection's slot) is given back when
 * every slot is 0 or >= r. A stale slot value is harmless: it is lower than the truth, and keeps
 * more alive.
 *
 * A read-modify-write is used for pinning: on x86 it costs half of a store and a fence, and thread
 * sanitizers do not understand fences. Scheme: epoch-based reclamation (Fraser, Practical
 * Lock-Freedom, 2004, section 5.2.3) with the epoch being the generation.
 *
 * When the daemon stops honouring a client's pins (it lost the connection) it sets the page's
 * `revoked` first; the reader looks at it after its last access and throws the answer away. A load
 * alone would not do: no order keeps it behind the reads of rows, which are plain, on every processor.
 * So both sides change the slot as well, the reader between its reads and its look, the daemon
 * between its store and giving anything back, though the daemon changes nothing in it. One of the two
 * comes first. If it is the reader's, the daemon has seen its reads end; if it is the daemon's, the
 * reader sees the page revoked. That only holds along an unbroken chain of read-modify-writes, so a
 * plain store to a slot is not made. tests/model tries all of this.
 */
#ifndef VEX_SHM_PIN_H
#define VEX_SHM_PIN_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/layout.h"

/*
 * Pins, in two steps. Enter stores `generation`, any value that has been current, in the calling
 * thread's slot: from here on nothing that is retired later is given back. Refresh raises the slot
 * to the current generation and returns it; what is reached from loads made after it is protected
 * by the raised value, and what the lower value protected in between has not been reached yet. Pins
 * do not nest.
 */
static inline void vex_pin_enter(struct vex_slot *slot, uint64_t generation)
{
    /* pairs: PIN with vex_slot_page_oldest. */
    (void)atomic_exchange_explicit(&slot->pinned, generation, memory_order_seq_cst);
}

static inline uint64_t vex_pin_refresh(const struct vex_control *control, struct vex_slot *slot,
                                       uint64_t generation)
{
    /* pairs: GENERATION with vex_control_publish: everything published up to here is visible
     * now. */
    uint64_t current = atomic_load_explicit(&control->current, memory_order_seq_cst);
    if (current != generation) {
        /* relaxed: a scan that still sees the lower value keeps more alive. Not a store: that would
         * hide from vex_unpin that the daemon has been here (vex_slot_page_revoke). */
        (void)atomic_exchange_explicit(&slot->pinned, current, memory_order_relaxed);
    }
    return current;
}

/* In the middle of a pin: false if the page was revoked, so that what has been read up to now may have
 * been overwritten. From any thread that uses the pin. */
static inline bool vex_pin_holds(const struct vex_slot_page *page, struct vex_slot *slot)
{
    /* pairs: PIN with vex_slot_page_revoke: changes nothing, and stands between the reads before it
     * and the look behind it. */
    (void)atomic_fetch_or_explicit(&slot->pinned, 0, memory_order_acq_rel);
    /* pairs: REVOKED with vex_slot_page_revoke. */
    return atomic_load_explicit(&page->revoked, memory_order_acquire) == 0;
}

/* Ends the pin. False if the page was revoked: what was read may have been overwritten. */
static inline bool vex_unpin(struct vex_slot_page *page, struct vex_slot *slot)
{
    /* pairs: PIN with vex_slot_page_oldest: all reads are done before the slot is seen idle. Also with
     * vex_slot_page_revoke: the acquire half brings `revoked`, if that was here before. */
    (void)atomic_exchange_explicit(&slot->pinned, 0, memory_order_acq_rel);
    /* pairs: REVOKED with vex_slot_page_revoke. */
    return atomic_load_explicit(&page->revoked, memory_order_acquire) == 0;
}

/* Daemon: the oldest generation pinned on this page, UINT64_MAX if none. A value above `current` is
 * a client's lie or damage, and counts as pinning everything. */
uint64_t vex_slot_page_oldest(const struct vex_slot_page *page, uint64_t current);
/* Daemon: from now on the pins of this page are not honoured. */
void vex_slot_page_revoke(struct vex_slot_page *page);
/* A flag, for deciding what to do next. It says nothing about what has been read: see vex_pin_holds. */
bool vex_slot_page_is_revoked(const struct vex_slot_page *page);

#endif
