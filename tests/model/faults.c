#include "tests/model/faults.h"

#include "tests/model/scenarios.h"

const struct model_flaw model_flaws[] = {
    {FLAW_SCAN_BEFORE_PUBLISH, &scenario_reclaim, "slots are scanned before `current` is stored"},
    {FLAW_BOUND_TOO_LOW, &scenario_reclaim, "memory is bound to the last generation that names it"},
    {FLAW_CURRENT_BEFORE_VIEW, &scenario_reclaim, "`current` is stored before the views"},
    {FLAW_PIN_WITHOUT_SECOND_LOOK, &scenario_reclaim, "a pin does not look at `current` again"},
    {FLAW_LSN_AFTER_VIEW, &scenario_reclaim, "a reader loads `published_lsn` behind the view"},
    {FLAW_BLOCK_REUSED_AT_ONCE, &scenario_reclaim, "a list block is used again while it is pinned"},
    {FLAW_DEAD_NOT_DROPPED, &scenario_reclaim, "the pin of a dead reader counts for ever"},
    {FLAW_HUNG_NOT_DROPPED, &scenario_cut, "the pin of a hung reader counts for ever"},
    {FLAW_NOT_TOUCHED, &scenario_cut, "revoking stores the flag and leaves the slots alone"},
    {FLAW_RAISED_BY_STORE, &scenario_cut, "a pin is raised by a plain store"},
    {FLAW_HOLD_WITHOUT_TOUCH, &scenario_cut, "a snapshot looks at the flag alone"},
    {FLAW_LOOK_BEFORE_UNPIN, &scenario_cut, "a reader looks at the flag before it clears its slot"},
    {FLAW_REVOKE_AFTER_FREE, &scenario_cut, "memory is given back before the page is revoked"},
    {FLAW_CELL_NOT_UNNAMED, &scenario_cell, "a cell keeps its sequence while it is written"},
    {FLAW_NO_LAST_LOOK, &scenario_cell, "a reader does not look at the sequence again"},
    {FLAW_RING_OF_ONE, &scenario_cell, "the ring has one cell"},
    {FLAW_WAKE_BEFORE_LSN, &scenario_wait, "the futex word changes before the LSN"},
    {FLAW_STATE_AFTER_WAKE, &scenario_wait, "the futex word changes before the state"},
    {FLAW_WAKE_LOADED_LATE, &scenario_wait, "a waiter loads the futex word behind the LSN"},
    {FLAW_ID_BEFORE_FACTS, &scenario_collection, "an id is stored before name and dimension"},
    {FLAW_ID_BEFORE_VIEW, &scenario_collection, "an id is stored before the first view"},
    {FLAW_PLACE_REUSED_AT_ONCE, &scenario_collection, "a place is used again while it is pinned"},
    {FLAW_CATALOG_FIRST, &scenario_collection, "the catalog's number changes before the ids"},
    {FLAW_READY_FIRST, &scenario_ready, "the layout hash is stored before the head"},
    {FLAW_EPOCH_BEFORE_CACHE, &scenario_cache, "the epoch begins before the cache is replaced"},
    {FLAW_CACHE_BEFORE_PIN, &scenario_cache, "a reader loads the cache before it pins"},
    {FLAW_SNAPSHOT_EPOCH_EARLY, &scenario_cache, "a snapshot leaves the cache before its last use"},
    {FLAW_ATTACHMENT_NOT_CHECKED, &scenario_attachment,
     "a pin does not look at the attachment again"},
    {FLAW_SLOTS_BEFORE_ATTACHMENT, &scenario_attachment, "slots are looked at before the new one"},
};
const size_t model_flaws_count = sizeof(model_flaws) / sizeof(model_flaws[0]);

#define FLAG "a flag: nothing is read because of it"
#define BY_VIEW "whoever has a view's number has acquired VIEW, which was stored later"
#define BY_CELL "the first look at the cell acquires the same"
#define BY_SLOT "the slot carries it: `vex_slot_page_revoke` touches it behind the store"

const struct model_spared model_spared[] = {
    {ACCESS_STATE_STORE, ORDER_RELAXED, JOINT_BOTH, ACCESS_RELAXED, FLAG},
    {ACCESS_STATE_LOAD, ORDER_RELAXED, JOINT_BOTH, ACCESS_RELAXED, FLAG},
    {ACCESS_BEAT_STORE, ORDER_RELAXED, JOINT_BOTH, ACCESS_RELAXED, FLAG},
    {ACCESS_BEAT_LOAD, ORDER_RELAXED, JOINT_BOTH, ACCESS_RELAXED, FLAG},
    {ACCESS_REVOKED_FLAG, ORDER_RELAXED, JOINT_BOTH, ACCESS_RELAXED, FLAG},
    {ACCESS_ID_REMOVE, ORDER_RELAXED, JOINT_BOTH, ACCESS_RELAXED,
     "GENERATION and CATALOG tell of it; nothing is read because of a 0"},
    {ACCESS_ID_CHECK, ORDER_RELAXED, JOINT_BOTH, ACCESS_RELAXED,
     "who asks for an id has acquired it where it was found"},
    {ACCESS_CELL_NAME, ORDER_RELAXED, JOINT_CELL, ACCESS_VIEW_STORE, BY_VIEW},
    {ACCESS_CELL_FIRST_LOOK, ORDER_RELAXED, JOINT_CELL, ACCESS_VIEW_LOAD, BY_VIEW},
    {ACCESS_CELL_LAST_LOOK, ORDER_RELAXED, JOINT_BOTH, ACCESS_RELAXED,
     "the loads before it acquire, so it stays behind them; nothing behind it needs it"},
    {ACCESS_VIEW_STORE, ORDER_RELAXED, JOINT_VIEW, ACCESS_CELL_FIRST_LOOK, BY_CELL},
    {ACCESS_VIEW_LOAD, ORDER_RELAXED, JOINT_VIEW, ACCESS_CELL_NAME, BY_CELL},
    {ACCESS_CURRENT_LOAD, ORDER_RELAXED, JOINT_BOTH, ACCESS_RELAXED,
     "a lower bound is all that is asked for"},
    {ACCESS_REVOKE, ORDER_RELAXED, JOINT_BOTH, ACCESS_RELAXED, BY_SLOT},
    {ACCESS_REVOKED_HOLD, ORDER_RELAXED, JOINT_BOTH, ACCESS_RELAXED, BY_SLOT},
    {ACCESS_REVOKED_LEAVE, ORDER_RELAXED, JOINT_BOTH, ACCESS_RELAXED, BY_SLOT},
    {ACCESS_EPOCH_LOAD, ORDER_ACQUIRE, JOINT_BOTH, ACCESS_RELAXED,
     "that it acquires is enough: slot and cache alone need the single order"},
    {ACCESS_EPOCH_ADD, ORDER_RELEASE, JOINT_BOTH, ACCESS_RELAXED,
     "that it releases is enough: slot and cache alone need the single order"},
};
const size_t model_spared_count = sizeof(model_spared) / sizeof(model_spared[0]);
