#include "ioengine/record.h"

#include <string.h>

#include "base/bytes.h"

void vex_log_header_seal(struct vex_log_header *header)
{
    header->checksum = vex_hash64(header, offsetof(struct vex_log_header, checksum), VEX_LOG_MAGIC);
}

bool vex_log_header_is_whole(const struct vex_log_header *header)
{
    return header->magic == VEX_LOG_MAGIC &&
           header->checksum ==
               vex_hash64(header, offsetof(struct vex_log_header, checksum), VEX_LOG_MAGIC);
}

const char *vex_log_header_fault(const struct vex_log_header *header, const uint8_t *uuid,
                                 uint64_t file_number)
{
    if (header->magic != VEX_LOG_MAGIC) {
        return "not a log file (bad magic)";
    }
    if (!vex_log_header_is_whole(header)) {
        return "header checksum does not match";
    }
    if (header->version != VEX_LOG_VERSION) {
        return "written by another format version";
    }
    if (memcmp(header->uuid, uuid, VEX_LOG_UUID_BYTES) != 0) {
        return "belongs to another instance";
    }
    if (header->file_number != file_number) {
        return "name and content disagree about the file's number";
    }
    if (header->file_bytes % VEX_BLOCK_BYTES != 0 ||
        header->file_bytes < VEX_LOG_FILE_BLOCKS_MIN * VEX_BLOCK_BYTES ||
        header->file_bytes / VEX_BLOCK_BYTES > UINT32_MAX) {
        return "impossible file size";
    }
    return NULL;
}

static uint64_t batch_checksum(const struct vex_batch_header *header, const uint8_t *data,
                               uint64_t nonce)
{
    struct vex_batch_header zeroed = *header;
    zeroed.checksum = 0;
    uint64_t head = vex_hash64(&zeroed, sizeof(zeroed), nonce);
    return vex_hash64(data + sizeof(zeroed), header->total_bytes - sizeof(zeroed), head);
}

size_t vex_batch_seal(struct vex_batch_header *header, size_t payload_bytes, uint64_t nonce)
{
    uint8_t *data = (uint8_t *)header;
    size_t used = sizeof(*header) + payload_bytes;
    size_t total = (size_t)vex_round_up(used, VEX_BLOCK_BYTES);
    memset(data + used, 0, total - used);
    header->magic = VEX_BATCH_MAGIC;
    header->version = VEX_LOG_VERSION;
    header->total_bytes = (uint32_t)total;
    header->payload_bytes = (uint32_t)payload_bytes;
    header->checksum = batch_checksum(header, data, nonce);
    return total;
}

static bool records_fit(const struct vex_batch_header *header, const uint8_t *data)
{
    const uint8_t *at = data + sizeof(*header);
    size_t left = header->payload_bytes;
    for (uint32_t i = 0; i < header->records_count; i++) {
        struct vex_record_header record;
        if (left < sizeof(record)) {
            return false;
        }
        memcpy(&record, at, sizeof(record));
        left -= sizeof(record);
        if (record.body_bytes > left || record.body_bytes % 8 != 0) {
            return false;
        }
        left -= record.body_bytes;
        at += sizeof(record) + record.body_bytes;
    }
    return left == 0;
}

const char *vex_batch_fault(const uint8_t *data, size_t bytes, uint64_t nonce)
{
    struct vex_batch_header header;
    if (bytes < VEX_BLOCK_BYTES) {
        return "file ends inside a batch";
    }
    memcpy(&header, data, sizeof(header));
    if (header.magic != VEX_BATCH_MAGIC) {
        return "bad batch magic";
    }
    if (header.version != VEX_LOG_VERSION) {
        return "batch of another format version";
    }
    if (header.total_bytes > bytes || header.total_bytes < VEX_BLOCK_BYTES ||
        header.total_bytes % VEX_BLOCK_BYTES != 0 ||
        header.payload_bytes > header.total_bytes - sizeof(header)) {
        return "impossible batch length";
    }
    if (batch_checksum(&header, data, nonce) != header.checksum) {
        return "batch checksum does not match";
    }
    if (header.flags & VEX_BATCH_END &&
        (header.records_count || header.total_bytes != VEX_BLOCK_BYTES)) {
        return "end mark with records";
    }
    return records_fit(&header, data) ? NULL : "records do not fill their batch";
}

void vex_record_cursor_init(struct vex_record_cursor *cursor, const uint8_t *batch)
{
    struct vex_batch_header header;
    memcpy(&header, batch, sizeof(header));
    cursor->at = batch + sizeof(header);
    cursor->end = cursor->at + header.payload_bytes;
    cursor->lsn = header.first_lsn;
}

bool vex_record_next(struct vex_record_cursor *cursor, uint64_t *out_lsn, uint16_t *out_type,
                     const uint8_t **out_body, size_t *out_bytes)
{
    struct vex_record_header record;
    if (cursor->at >= cursor->end) {
        return false;
    }
    memcpy(&record, cursor->at, sizeof(record));
    *out_lsn = cursor->lsn++;
    *out_type = record.type;
    *out_body = cursor->at + sizeof(record);
    *out_bytes = record.body_bytes;
    cursor->at += sizeof(record) + record.body_bytes;
    return true;
}
