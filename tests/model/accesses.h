/*
 * The ordered accesses of the protocol, one line each: a name for the model, the file, the function,
 * the pair, the kind of access and its order. test_accesses.py compares this table with the sources
 * and with the tables of pairs in the READMEs, so it cannot fall behind: an access that is added,
 * removed, moved to another function or given another order fails there until the model follows.
 *
 * The lines of one function stand in the order of the source. Relaxed accesses promise nothing; two of
 * them are listed, without a pair, because it matters that they are there and of which kind they are.
 */
#ifndef VEX_TESTS_MODEL_ACCESSES_H
#define VEX_TESTS_MODEL_ACCESSES_H

/* X(name, file, function, pair, kind, order) */
#define MODEL_ACCESSES(X)                                                                          \
    X(READY_STORE, "shm/control.c", "vex_control_ready", "CONTROL_READY", STORE, RELEASE)          \
    X(READY_LOAD, "shm/control.c", "vex_control_check", "CONTROL_READY", LOAD, ACQUIRE)            \
    X(WAKE_STORE, "shm/control.c", "wake_waiters", "WAKE", STORE, RELEASE)                         \
    X(WAKE_LOAD, "shm/control.c", "vex_control_wait", "WAKE", LOAD, ACQUIRE)                       \
    X(STATE_STORE, "shm/control.c", "vex_control_set_state", "DAEMON_STATE", STORE, RELEASE)       \
    X(STATE_LOAD, "shm/control.c", "vex_control_state", "DAEMON_STATE", LOAD, ACQUIRE)             \
    X(BEAT_STORE, "shm/control.c", "vex_control_beat", "HEARTBEAT", STORE, RELEASE)                \
    X(BEAT_LOAD, "shm/control.c", "vex_control_heartbeat_ms", "HEARTBEAT", LOAD, ACQUIRE)          \
    X(CATALOG_STORE, "shm/control.c", "bump_catalog", "CATALOG", STORE, RELEASE)                   \
    X(CATALOG_LOAD, "shm/control.c", "vex_control_catalog", "CATALOG", LOAD, ACQUIRE)              \
    X(ID_ADD, "shm/control.c", "vex_control_add_collection", "COLLECTION_ID", STORE, RELEASE)      \
    X(ID_REMOVE, "shm/control.c", "vex_control_remove_collection", "COLLECTION_ID", STORE,         \
      RELEASE)                                                                                     \
    X(ID_FIND, "shm/control.c", "vex_control_collection", "COLLECTION_ID", LOAD, ACQUIRE)          \
    X(ID_CHECK, "shm/control.c", "vex_control_view", "COLLECTION_ID", LOAD, ACQUIRE)               \
    X(CELL_UNNAME, "shm/control.c", "vex_control_set_view", "-", STORE, RELAXED)                   \
    X(CELL_SET_LSN, "shm/control.c", "vex_control_set_view", "VIEW_CELL", STORE, RELEASE)          \
    X(CELL_SET_LIST_ID, "shm/control.c", "vex_control_set_view", "VIEW_CELL", STORE, RELEASE)      \
    X(CELL_SET_LIVE, "shm/control.c", "vex_control_set_view", "VIEW_CELL", STORE, RELEASE)         \
    X(CELL_SET_DEAD, "shm/control.c", "vex_control_set_view", "VIEW_CELL", STORE, RELEASE)         \
    X(CELL_SET_BYTES, "shm/control.c", "vex_control_set_view", "VIEW_CELL", STORE, RELEASE)        \
    X(CELL_SET_BLOCK, "shm/control.c", "vex_control_set_view", "VIEW_CELL", STORE, RELEASE)        \
    X(CELL_SET_TAIL, "shm/control.c", "vex_control_set_view", "VIEW_CELL", STORE, RELEASE)         \
    X(CELL_NAME, "shm/control.c", "vex_control_set_view", "VIEW_CELL", STORE, RELEASE)             \
    X(CELL_FIRST_LOOK, "shm/control.c", "read_cell", "VIEW_CELL", LOAD, ACQUIRE)                   \
    X(CELL_GET_LSN, "shm/control.c", "read_cell", "VIEW_CELL", LOAD, ACQUIRE)                      \
    X(CELL_GET_LIST_ID, "shm/control.c", "read_cell", "VIEW_CELL", LOAD, ACQUIRE)                  \
    X(CELL_GET_LIVE, "shm/control.c", "read_cell", "VIEW_CELL", LOAD, ACQUIRE)                     \
    X(CELL_GET_DEAD, "shm/control.c", "read_cell", "VIEW_CELL", LOAD, ACQUIRE)                     \
    X(CELL_GET_BYTES, "shm/control.c", "read_cell", "VIEW_CELL", LOAD, ACQUIRE)                    \
    X(CELL_GET_BLOCK, "shm/control.c", "read_cell", "VIEW_CELL", LOAD, ACQUIRE)                    \
    X(CELL_GET_TAIL, "shm/control.c", "read_cell", "VIEW_CELL", LOAD, ACQUIRE)                     \
    X(CELL_LAST_LOOK, "shm/control.c", "read_cell", "VIEW_CELL", LOAD, ACQUIRE)                    \
    X(VIEW_STORE, "shm/control.c", "vex_control_set_view", "VIEW", STORE, RELEASE)                 \
    X(VIEW_LOAD, "shm/control.c", "vex_control_view", "VIEW", LOAD, ACQUIRE)                       \
    X(LSN_STORE, "shm/control.c", "vex_control_publish", "PUBLISHED_LSN", STORE, RELEASE)          \
    X(LSN_LOAD, "shm/control.c", "vex_control_published_lsn", "PUBLISHED_LSN", LOAD, ACQUIRE)      \
    X(CURRENT_STORE, "shm/control.c", "vex_control_publish", "GENERATION", STORE, SEQ_CST)         \
    X(CURRENT_LOAD, "shm/control.c", "vex_control_generation", "GENERATION", LOAD, ACQUIRE)        \
    X(CURRENT_REFRESH, "shm/pin.h", "vex_pin_refresh", "GENERATION", LOAD, SEQ_CST)                \
    X(SLOT_RAISE, "shm/pin.h", "vex_pin_refresh", "-", RMW, RELAXED)                               \
    X(SLOT_SCAN, "shm/pin.c", "vex_slot_page_oldest", "PIN", LOAD, SEQ_CST)                        \
    X(REVOKE, "shm/pin.c", "vex_slot_page_revoke", "REVOKED", STORE, SEQ_CST)                      \
    X(SLOT_TOUCH, "shm/pin.c", "vex_slot_page_revoke", "PIN", RMW, ACQ_REL)                        \
    X(SLOT_ENTER, "shm/pin.h", "vex_pin_enter", "PIN", RMW, SEQ_CST)                               \
    X(SLOT_HOLD, "shm/pin.h", "vex_pin_holds", "PIN", RMW, ACQ_REL)                                \
    X(SLOT_LEAVE, "shm/pin.h", "vex_unpin", "PIN", RMW, ACQ_REL)                                   \
    X(SLOT_PASSED, "libclient/attachment.c", "passed_locked", "PIN", LOAD, SEQ_CST)                \
    X(REVOKED_FLAG, "shm/pin.c", "vex_slot_page_is_revoked", "REVOKED", LOAD, ACQUIRE)             \
    X(REVOKED_HOLD, "shm/pin.h", "vex_pin_holds", "REVOKED", LOAD, ACQUIRE)                        \
    X(REVOKED_LEAVE, "shm/pin.h", "vex_unpin", "REVOKED", LOAD, ACQUIRE)                           \
    X(EPOCH_PASSED, "libclient/attachment.c", "passed_locked", "SLOT_EPOCH", LOAD, ACQUIRE)        \
    X(EPOCH_LOAD, "libclient/db.c", "vex_db_pin", "EPOCH", LOAD, SEQ_CST)                          \
    X(EPOCH_PIN, "libclient/db.c", "vex_db_pin", "SLOT_EPOCH", STORE, RELEASE)                     \
    X(EPOCH_SNAPSHOT, "libclient/read.c", "vex_snapshot_open", "SLOT_EPOCH", STORE, RELEASE)       \
    X(CACHE_LOAD, "libclient/view.c", "cache_of", "VIEW_CACHE", LOAD, SEQ_CST)                     \
    X(CACHE_STORE, "libclient/view.c", "replace_cache", "VIEW_CACHE", STORE, SEQ_CST)              \
    X(EPOCH_ADD, "libclient/view.c", "replace_cache", "EPOCH", RMW, SEQ_CST)                       \
    X(ATTACHMENT_LOAD, "libclient/db.c", "current_of", "ATTACHMENT", LOAD, SEQ_CST)                \
    X(ATTACHMENT_STORE, "libclient/db.c", "replace_attachment", "ATTACHMENT", STORE, SEQ_CST)      \
    X(MAPPED_RELEASE, "libclient/view.c", "vex_mapped_release", "MAPPED_REFERENCES", RMW, ACQ_REL)

/* ACCESS_RELAXED is none of the table: a write of plain bytes, for instance. */
enum access {
#define NAME(name, file, function, pair, kind, order) ACCESS_##name,
    MODEL_ACCESSES(NAME)
#undef NAME
        ACCESSES_COUNT,
    ACCESS_RELAXED = ACCESSES_COUNT
};

enum access_kind { KIND_LOAD, KIND_STORE, KIND_RMW };
enum order { ORDER_RELAXED, ORDER_ACQUIRE, ORDER_RELEASE, ORDER_ACQ_REL, ORDER_SEQ_CST };

struct access_info {
    const char *name;
    const char *file;
    const char *function;
    const char *pair;
    enum access_kind kind;
    enum order order;
};

extern const struct access_info model_accesses[ACCESSES_COUNT];
extern const char *const model_order_names[];

#endif
