/*
 * The command channel: frames between libvex and vexd over a SOCK_STREAM UNIX socket.
 *
 * A frame is a 32-byte head and a body of a bounded length that is a multiple of 8. Requests may be
 * pipelined; a reply carries its request's number, because a refusal can overtake a commit. A reply
 * whose status is not 0 has the error message as its body. A frame that breaks these rules ends the
 * connection: after it there is no way to tell where the next one begins.
 *
 * The body of a write is exactly what the log stores, so that the daemon copies it once: see struct
 * vex_write_head. Both directions are checked here, by pure functions on bytes.
 *
 * Thread-safety: pure functions.
 */
#ifndef VEX_SHM_WIRE_H
#define VEX_SHM_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vex/status.h>
#include <vex/types.h>

#include "base/bytes.h"
#include "shm/layout.h"

#define VEX_WIRE_MAGIC 0x57584556u /* "VEXW" */
#define VEX_WIRE_VERSION 1u
#define VEX_WIRE_HEAD_BYTES 32u
/* A full batch, its table of payload lengths, and the head. */
#define VEX_WIRE_BODY_MAX (VEX_BATCH_BYTES_MAX + 4u * VEX_BATCH_COUNT_MAX + VEX_PAGE_BYTES)

enum vex_op {
    VEX_OP_HELLO = 1, /* struct vex_hello -> struct vex_welcome, with a slot page's descriptor */
    VEX_OP_SLOT_PAGE = 2, /* empty -> empty, with a slot page's descriptor */
    VEX_OP_STATS = 3,     /* empty -> struct vex_stats_body */
    VEX_OP_SHUTDOWN = 4,  /* empty -> empty, then the connection closes */
    VEX_OP_CREATE = 5,    /* struct vex_create_body -> struct vex_ack_body */
    VEX_OP_DROP = 6,      /* struct vex_drop_body -> struct vex_ack_body */
    VEX_OP_WRITE = 7,     /* struct vex_write_head and arrays -> struct vex_ack_body */
    VEX_OP_UPKEEP = 8, /* struct vex_upkeep_body -> struct vex_upkeep_done_body, when it is done */
    VEX_OP_ALTER = 9,  /* struct vex_alter_body -> struct vex_ack_body */
    VEX_OP_INDEX = 10, /* struct vex_drop_body -> struct vex_index_body */
};

enum vex_upkeep_kind {
    VEX_UPKEEP_CHECKPOINT = 1,
    VEX_UPKEEP_COMPACT = 2, /* merge everything, drop dead rows, give memory and disk back */
    VEX_UPKEEP_ERASE = 3,   /* COMPACT, and what was deleted is in no file any more */
    VEX_UPKEEP_BACKUP = 4,  /* a checkpoint, linked or copied to `path` */
};

#define VEX_UPKEEP_PATH_MAX 1023u

struct vex_frame_head {
    uint32_t magic;
    uint16_t version;
    uint16_t op;
    uint32_t body_bytes; /* multiple of 8, at most VEX_WIRE_BODY_MAX */
    uint32_t status;     /* replies: enum vex_status; requests: 0 */
    uint64_t request;    /* chosen by the client, comes back in the reply */
    uint64_t reserved;   /* 0 */
};

struct vex_hello {
    uint64_t layout_hash;
    uint32_t pid; /* for people to read; liveness is the connection itself */
    uint32_t reserved;
};

struct vex_welcome {
    uint8_t uuid[VEX_UUID_BYTES];
    uint8_t key[VEX_UUID_BYTES]; /* of the names of the shared memory */
    uint32_t daemon_pid;
    uint32_t embedded;
};

struct vex_create_body {
    uint32_t collection_id; /* 0 in requests; the log stores the number given */
    uint32_t dim;
    uint32_t metric;
    uint32_t index;           /* enum vex_index_kind */
    uint32_t m;               /* of the graph; 0 = default, the log stores the number used */
    uint32_t ef_construction; /* as m */
    uint32_t storage;         /* enum vex_storage */
    uint32_t lists;           /* of a segment, 0 = by its size */
    char name[VEX_NAME_MAX + 1];
};

struct vex_drop_body {
    uint32_t collection_id; /* as above */
    uint32_t reserved;
    char name[VEX_NAME_MAX + 1];
};

enum {
    VEX_CHANGES_INDEX = 1,
    VEX_CHANGES_M = 2,
    VEX_CHANGES_EF_CONSTRUCTION = 4,
    VEX_CHANGES_LISTS = 8,
    VEX_CHANGES_ALL = 15,
};

/* The index that a collection is to have. The log stores all four values as they are afterwards. */
struct vex_alter_body {
    uint32_t collection_id; /* 0 in requests */
    uint32_t changes;       /* VEX_CHANGES_...: what was asked for; in requests the rest is 0 */
    uint32_t index;         /* this and the next ones as in struct vex_create_body */
    uint32_t m;
    uint32_t ef_construction;
    uint32_t lists;
    char name[VEX_NAME_MAX + 1];
};

/* How far the index of a collection is. */
struct vex_index_body {
    uint32_t index; /* the index that is asked for, as in struct vex_create_body */
    uint32_t m;
    uint32_t ef_construction;
    uint32_t lists;
    uint32_t segments;
    uint32_t segments_indexed; /* with the index that is asked for */
    uint32_t segments_other;   /* with another one, which is to be replaced */
    uint32_t segments_waiting; /* to be built or rebuilt, those of segments_other included */
    uint64_t rows;             /* of all segments, dead ones included, as are the next two */
    uint64_t rows_indexed;
    uint64_t rows_other;
    uint64_t build_rows;     /* of the segment being built for this collection; 0 = none is */
    uint64_t build_ms;       /* since it began */
    uint32_t busy_elsewhere; /* 1 = the builder works for another collection */
    uint32_t reserved;
};

struct vex_ack_body {
    uint64_t lsn;
    uint64_t first_id;
    uint64_t count;
};

struct vex_upkeep_body {
    uint32_t kind; /* enum vex_upkeep_kind */
    uint32_t reserved;
    char name[VEX_NAME_MAX + 1];        /* COMPACT, ERASE: one collection; empty = all */
    char path[VEX_UPKEEP_PATH_MAX + 1]; /* BACKUP: absolute, or relative to the instance */
};

struct vex_upkeep_done_body {
    uint64_t lsn;          /* of the checkpoint: every record up to it is in the segment files */
    uint64_t bytes;        /* of a backup */
    uint64_t rows_removed; /* dead rows that left */
    uint64_t segments_before;
    uint64_t segments_after;
};

struct vex_stats_body {
    uint32_t daemon_pid;
    uint32_t clients;
    uint32_t collections;
    uint32_t read_only;
    uint32_t embedded;
    uint32_t reserved;
    char version[16];
    char io_backend[16];
    uint64_t lsn;
    uint64_t generation;
    uint64_t uptime_ms;
    uint64_t live_rows;
    uint64_t dead_rows;
    uint64_t shm_bytes;
    uint64_t log_bytes;
    uint64_t log_file_bytes;
    uint64_t commits;
    uint64_t records;
    uint64_t replayed;
    uint64_t torn_tails;
    uint64_t recovery_us;    /* from the start to being ready */
    uint64_t checkpoint_lsn; /* of the newest checkpoint, 0 = none */
    uint64_t checkpoints;    /* since the start, as what follows */
    uint64_t checkpoint_failures;
    uint64_t merges;
    uint64_t merge_failures;
    uint64_t merged_bytes; /* of memory */
    uint64_t segment_files;
    uint64_t segment_bytes; /* of the files */
    uint64_t reserve_bytes;
    uint64_t ingested_bytes; /* of records accepted */
    uint64_t written_bytes;  /* to log, segment and checkpoint files */
    uint64_t live_bytes;     /* what the live rows would need alone */
    uint64_t quarantined;    /* collections */
    uint64_t upkeep_running; /* enum vex_upkeep_kind, 0 = none */
    char upkeep_error[96];   /* why the last job failed, empty = it did not */
};

enum {
    VEX_WRITE_AUTO_IDS = 1, /* one u64 first id instead of an array */
    VEX_WRITE_PAYLOADS = 2, /* the array of payload lengths is there */
};

/*
 * Head of a write. Behind it, without gaps:
 *   u64 ids[count], or u64 first_id with VEX_WRITE_AUTO_IDS (0 in requests)
 *   float vectors[count][dim], not for deletes (dim 0)
 *   u32 payload_bytes[count] with VEX_WRITE_PAYLOADS; UINT32_MAX = no payload
 *   the payloads, one after the other
 *   zeros up to a multiple of 8
 */
struct vex_write_head {
    uint32_t collection_id;
    uint16_t kind; /* enum vex_write_kind */
    uint16_t flags;
    uint32_t count;
    uint32_t dim;
};

_Static_assert(sizeof(struct vex_frame_head) == VEX_WIRE_HEAD_BYTES, "wire");
_Static_assert(sizeof(struct vex_hello) == 16, "wire");
_Static_assert(sizeof(struct vex_welcome) == 40, "wire");
_Static_assert(sizeof(struct vex_create_body) == 96, "wire and log");
_Static_assert(sizeof(struct vex_drop_body) == 72, "wire and log");
_Static_assert(sizeof(struct vex_alter_body) == 88, "wire and log");
_Static_assert(sizeof(struct vex_index_body) == 80, "wire");
_Static_assert(sizeof(struct vex_ack_body) == 24, "wire");
_Static_assert(sizeof(struct vex_upkeep_body) == 1096, "wire");
_Static_assert(sizeof(struct vex_upkeep_done_body) == 40, "wire");
_Static_assert(sizeof(struct vex_stats_body) == 368, "wire");
_Static_assert(sizeof(struct vex_write_head) == 16, "wire and log");

/* A checked write, pointing into the bytes it was decoded from. */
struct vex_write {
    struct vex_write_head head;
    const uint8_t *ids; /* u64 each, maybe unaligned; NULL with VEX_WRITE_AUTO_IDS */
    uint64_t first_id;
    const float *vectors;           /* NULL for deletes */
    const uint8_t *payload_lengths; /* u32 each; NULL without VEX_WRITE_PAYLOADS */
    const uint8_t *payloads;
    uint64_t payload_bytes; /* of all */
};

static inline uint64_t vex_write_id(const struct vex_write *write, uint32_t item)
{
    return write->ids ? vex_load_u64(write->ids + 8 * (size_t)item) : write->first_id + item;
}

#define VEX_NO_PAYLOAD UINT32_MAX

static inline uint32_t vex_write_payload_bytes(const struct vex_write *write, uint32_t item)
{
    return write->payload_lengths ? vex_load_u32(write->payload_lengths + 4 * (size_t)item)
                                  : VEX_NO_PAYLOAD;
}

/* Frame head from bytes. Errors: PROTOCOL (magic, length, reserved bits), VERSION. */
enum vex_status vex_frame_decode(struct vex_frame_head *out, const uint8_t *bytes,
                                 struct vex_error *error);
/*
 * Checks shapes and lengths of a write, not ids or values. `bytes` is 8-aligned. Errors: PROTOCOL
 * (not what a libvex sends), LIMIT (count, payload length, id above VEX_ID_MAX).
 */
enum vex_status vex_write_decode(struct vex_write *out, const uint8_t *bytes, size_t bytes_count,
                                 struct vex_error *error);

/* What vex_write_encode makes of a caller's arrays. Lengths above VEX_PAYLOAD_MAX etc. are the
 * caller's to check before. */
struct vex_write_input {
    uint32_t collection_id;
    enum vex_write_kind kind;
    uint32_t count;
    uint32_t dim;
    const uint64_t *ids; /* NULL = VEX_WRITE_AUTO_IDS */
    const float *vectors;
    const void *const *payloads; /* NULL = none */
    const size_t *payload_bytes;
};

/* Appends the encoded write. False if memory is short. */
bool vex_write_encode(struct vex_buffer *out, const struct vex_write_input *input);

/* NULL, or what is wrong with a collection name. `bytes` is the size of the array. */
const char *vex_name_fault(const char *name, size_t bytes);

#endif
