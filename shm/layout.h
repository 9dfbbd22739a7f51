/*
 * What the processes share, byte for byte: the control region and the slot pages. LAYOUT.md says it
 * in prose. Included by shm/ only, and by whoever needs a size.
 *
 * Rules: no pointers, no libc objects, offsets and _Atomic words only. Each shared word says who
 * writes it and what it carries. The ready word `layout_hash` is stored last and read first.
 *
 * Control region:   page 0          struct vex_control
 *                   then            struct vex_collection_entry [VEX_PLACES_MAX]
 *                   then            list blocks of 4 KiB: the segment lists that views name
 * Slot page:        struct vex_slot_page, one or more per client, made by the daemon, mapped
 * writable by
 *                   that one client only.
 */
#ifndef VEX_SHM_LAYOUT_H
#define VEX_SHM_LAYOUT_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <vex/types.h>

#define VEX_CONTROL_MAGIC 0x43584556u /* "VEXC" */
#define VEX_LAYOUT_VERSION 1u
#define VEX_PAGE_BYTES 4096u
#define VEX_UUID_BYTES 16u

#define VEX_VIEW_RING 16u /* views kept per collection; a reader that is lapped starts again */
#define VEX_LIST_SEGMENTS_MAX 254u /* segments of one collection */
#define VEX_LIST_BLOCKS_MAX (4u * VEX_COLLECTIONS_MAX)
#define VEX_SLOTS_PER_PAGE 63u
/* More places than collections: a dropped one keeps its place while an old pin can still see it. */
#define VEX_PLACES_MAX (VEX_COLLECTIONS_MAX + VEX_COLLECTIONS_MAX / 4u)

enum vex_daemon_state {
    VEX_DAEMON_RUNNING = 1,
    VEX_DAEMON_READ_ONLY = 2, /* log failed: reads go on, writes are refused */
    VEX_DAEMON_GONE = 3,      /* stopped, or replaced by a newer daemon: attach again */
};

struct vex_control {
    _Atomic uint64_t layout_hash; /* writer: daemon, last. CONTROL_READY. 0 = not ready */
    uint32_t magic;
    uint32_t version;
    uint8_t key[VEX_UUID_BYTES]; /* of the instance, see region.h */
    uint64_t region_bytes;
    uint32_t collections_max;
    uint32_t daemon_pid;
    uint8_t padding0[16];

    /* One line that every read loads. */
    _Atomic uint64_t current;       /* writer: daemon. GENERATION. Number of publications */
    _Atomic uint64_t published_lsn; /* writer: daemon. PUBLISHED_LSN. Covered by all views */
    _Atomic uint32_t state;         /* writer: daemon. DAEMON_STATE. enum vex_daemon_state */
    _Atomic uint32_t wake;          /* writer: daemon. Futex word: changes with each publication */
    uint8_t padding1[40];

    _Atomic uint64_t catalog; /* writer: daemon. CATALOG. Changes when a collection comes or goes */
    _Atomic uint64_t
        heartbeat_ms; /* writer: daemon, every half second. HEARTBEAT. Monotonic time */
    uint8_t padding2[48];
    uint8_t reserved[VEX_PAGE_BYTES - 192];
};

/* One state of a collection. Each word is atomic because a lapped reader may read while it
 * changes. */
struct vex_view_cell {
    _Atomic uint64_t
        sequence;             /* writer: daemon. VIEW_CELL. Which view this is; 0 = being written */
    _Atomic uint64_t lsn;     /* deaths up to here count */
    _Atomic uint64_t list_id; /* identity of the segment list; never reused */
    _Atomic uint64_t live_rows;
    _Atomic uint64_t dead_rows;
    _Atomic uint64_t shm_bytes;
    _Atomic uint32_t list_block; /* which block holds the list */
    _Atomic uint32_t tail_rows;  /* visible rows of the last segment of the list */
    uint64_t padding;
};

/* enum vex_index_kind, M, ef_construction and lists in a tuning word. */
#define VEX_TUNING_INDEX_SHIFT 0u
#define VEX_TUNING_M_SHIFT 8u
#define VEX_TUNING_EF_SHIFT 16u
#define VEX_TUNING_LISTS_SHIFT 32u

struct vex_collection_entry {
    _Atomic uint32_t id; /* writer: daemon. COLLECTION_ID. 0 = free; stored after what follows */
    uint32_t dim;
    uint32_t metric;
    uint32_t storage; /* enum vex_storage */
    char name[VEX_NAME_MAX + 1];
    _Atomic uint64_t view; /* writer: daemon. VIEW. Sequence of the current view, 0 = none yet */
    /* writer: daemon. The index that is asked for, which may change: kind, M, ef_construction and lists in
     * VEX_TUNING_ bits of one word, so that a reader never sees half a change. */
    _Atomic uint64_t tuning;
    uint8_t reserved[160];
    struct vex_view_cell views[VEX_VIEW_RING];
};

struct vex_list_segment {
    uint64_t segment_id;
    uint32_t rows; /* visible rows, if it is not the last of the list */
    uint32_t reserved;
};

/* Immutable from the moment a view names it until no pin can see it. */
struct vex_list_block {
    uint64_t list_id;
    uint32_t segments_count;
    uint32_t reserved;
    struct vex_list_segment segments[VEX_LIST_SEGMENTS_MAX];
    uint8_t padding[16];
};

struct vex_slot {
    _Atomic uint64_t pinned; /* writer: the one thread that owns it. PIN. Generation, 0 = idle */
    uint8_t padding[56];
};

struct vex_slot_page {
    _Atomic uint32_t
        revoked; /* writer: daemon. REVOKED. 1 = pins here no longer protect anything */
    uint8_t padding[60];
    struct vex_slot slots[VEX_SLOTS_PER_PAGE];
};

#define VEX_ENTRIES_OFFSET VEX_PAGE_BYTES
#define VEX_LISTS_OFFSET (VEX_ENTRIES_OFFSET + VEX_PLACES_MAX * sizeof(struct vex_collection_entry))
#define VEX_CONTROL_REGION_BYTES                                                                   \
    (VEX_LISTS_OFFSET + VEX_LIST_BLOCKS_MAX * sizeof(struct vex_list_block))

_Static_assert(sizeof(struct vex_control) == VEX_PAGE_BYTES, "layout");
_Static_assert(offsetof(struct vex_control, current) == 64, "layout");
_Static_assert(offsetof(struct vex_control, catalog) == 128, "layout");
_Static_assert(sizeof(struct vex_view_cell) == 64, "layout");
_Static_assert(sizeof(struct vex_collection_entry) == 256 + 64 * VEX_VIEW_RING, "layout");
_Static_assert(offsetof(struct vex_collection_entry, view) == 80, "layout");
_Static_assert(sizeof(struct vex_list_block) == VEX_PAGE_BYTES, "layout");
_Static_assert(sizeof(struct vex_slot_page) == VEX_PAGE_BYTES, "layout");
_Static_assert(VEX_LISTS_OFFSET % VEX_PAGE_BYTES == 0, "layout");
_Static_assert(sizeof(_Atomic uint64_t) == 8 && sizeof(_Atomic uint32_t) == 4, "lock-free words");

#endif
