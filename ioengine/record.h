/*
 * Bytes of the log: file header, batch, record. Pure functions; FORMAT.md has the tables.
 *
 * A batch is what one group commit makes durable: a 64-byte header, records, zeros up to 4 KiB. Its
 * checksum covers all of it and is seeded with the file's random nonce, so that neither torn
 * sectors nor blocks left over from an earlier life of the disk pass. Each batch names the checksum
 * of the batch before it and the LSN that was durable when it was written: the first makes a hole
 * visible, the second proves to whoever reads it that all before it had been acknowledged. A batch also
 * says where it stands (file and block), so that a copy of it elsewhere is none.
 */
#ifndef VEX_IOENGINE_RECORD_H
#define VEX_IOENGINE_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ioengine/io.h"

#define VEX_LOG_MAGIC 0x4c584556u   /* "VEXL" */
#define VEX_BATCH_MAGIC 0x42584556u /* "VEXB" */
#define VEX_LOG_VERSION 2u
#define VEX_LOG_UUID_BYTES 16u
/* The header, one batch, and the block kept for the end mark. */
#define VEX_LOG_FILE_BLOCKS_MIN 3u

/* Magic, version and checksum keep their places in every version of the format. */
struct vex_log_header {
    uint32_t magic;
    uint32_t version;
    uint8_t uuid[VEX_LOG_UUID_BYTES];
    uint64_t file_number;
    uint64_t first_lsn;
    uint64_t previous_hash; /* checksum of the last batch before this file, end marks left out */
    uint64_t nonce;
    uint64_t file_bytes;
    uint64_t created_ms; /* wall clock, for people */
    uint64_t checksum;   /* of the fields above */
};

enum {
    VEX_BATCH_WATERMARK = 1, /* no records: says that durable_lsn is durable */
    VEX_BATCH_CLEAN = 2,     /* a watermark written by a daemon that stopped in order */
    VEX_BATCH_END = 4,       /* no records: the log goes on in the next file, which is there */
};

struct vex_batch_header {
    uint32_t magic;
    uint16_t version;
    uint16_t flags;
    uint32_t total_bytes;   /* header, records and padding: a multiple of VEX_BLOCK_BYTES */
    uint32_t payload_bytes; /* records */
    uint64_t first_lsn;
    uint32_t records_count;
    uint32_t block;         /* where it stands in the file, in units of VEX_BLOCK_BYTES */
    uint64_t previous_hash; /* end marks are not part of this chain */
    uint64_t durable_lsn;
    uint64_t file_number;
    uint64_t checksum; /* of everything, with this field 0, seeded with the file's nonce */
};

struct vex_record_header {
    uint32_t body_bytes; /* a multiple of 8 */
    uint16_t type;       /* meaning is the caller's */
    uint16_t reserved;
};

_Static_assert(sizeof(struct vex_log_header) == 80, "on disk");
_Static_assert(sizeof(struct vex_batch_header) == 64, "on disk");
_Static_assert(sizeof(struct vex_record_header) == 8, "on disk");

/* Computes and stores the checksum. */
void vex_log_header_seal(struct vex_log_header *header);
/* True if it is what a daemon of some version wrote: magic and checksum are right. */
bool vex_log_header_is_whole(const struct vex_log_header *header);
/* NULL, or what is wrong. Another version and another instance are told from damage by
 * vex_log_header_is_whole. */
const char *vex_log_header_fault(const struct vex_log_header *header, const uint8_t *uuid,
                                 uint64_t file_number);

/* Fills in magic, version, lengths and checksum of a batch whose records follow the header in
 * memory, zeroes the padding, and returns the total length. */
size_t vex_batch_seal(struct vex_batch_header *header, size_t payload_bytes, uint64_t nonce);
/* NULL if `bytes` bytes begin with a sound batch (checksum and record lengths included), else why
 * not. The caller checks the chain: first_lsn, previous_hash, file_number, block. */
const char *vex_batch_fault(const uint8_t *data, size_t bytes, uint64_t nonce);

/* Walks the records of a sound batch. */
struct vex_record_cursor {
    const uint8_t *at;
    const uint8_t *end;
    uint64_t lsn; /* of the record that next returns */
};
void vex_record_cursor_init(struct vex_record_cursor *cursor, const uint8_t *batch);
/* False at the end. */
bool vex_record_next(struct vex_record_cursor *cursor, uint64_t *out_lsn, uint16_t *out_type,
                     const uint8_t **out_body, size_t *out_bytes);

#endif
