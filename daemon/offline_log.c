/*
 * Looking into the log, and cutting it where it is damaged.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "daemon/offline_priv.h"
#include "daemon/report.h"
#include "ioengine/log_scan.h"
#include "ioengine/record.h"
#include "ioengine/store.h"
#include "shm/wire.h"

#define COUNT(fields) (sizeof(fields) / sizeof((fields)[0]))

/* ---- dump ------------------------------------------------------------------------------------ */

struct dump {
    struct vex_report report;
    uint64_t from_lsn;
};

static enum vex_status show_file(void *context, const struct vex_log_file *file,
                                 struct vex_error *error)
{
    (void)error;
    struct dump *dump = context;
    const struct vex_field fields[] = {
        VEX_TEXT("kind", "file"),
        VEX_NUMBER("number", file->number),
        VEX_NUMBER("bytes", file->bytes),
        VEX_NUMBER("first_lsn", file->first_lsn),
        VEX_NUMBER("created_ms", file->created_ms),
    };
    vex_report_item(&dump->report, fields, COUNT(fields), "file %llu: %llu bytes, from LSN %llu on",
                    (unsigned long long)file->number, (unsigned long long)file->bytes,
                    (unsigned long long)file->first_lsn);
    return VEX_OK;
}

static const char *batch_kind(const struct vex_log_batch *batch)
{
    if (batch->flags & VEX_BATCH_END) {
        return "end of the file";
    }
    if (batch->flags & VEX_BATCH_CLEAN) {
        return "orderly stop";
    }
    return batch->flags & VEX_BATCH_WATERMARK ? "watermark" : "records";
}

static enum vex_status show_batch(void *context, const struct vex_log_batch *batch,
                                  struct vex_error *error)
{
    (void)error;
    struct dump *dump = context;
    if (batch->first_lsn + batch->records_count <= dump->from_lsn) {
        return VEX_OK;
    }
    const char *kind = batch_kind(batch);
    const struct vex_field fields[] = {
        VEX_TEXT("kind", "batch"),
        VEX_NUMBER("file", batch->file_number),
        VEX_NUMBER("offset", batch->offset),
        VEX_NUMBER("bytes", batch->bytes),
        VEX_NUMBER("first_lsn", batch->first_lsn),
        VEX_NUMBER("records", batch->records_count),
        VEX_NUMBER("durable_lsn", batch->durable_lsn),
        VEX_TEXT("what", kind),
    };
    vex_report_item(&dump->report, fields, COUNT(fields),
                    "  batch at %llu: %llu bytes, LSN %llu, %llu records, durable up to %llu: %s",
                    (unsigned long long)batch->offset, (unsigned long long)batch->bytes,
                    (unsigned long long)batch->first_lsn, (unsigned long long)batch->records_count,
                    (unsigned long long)batch->durable_lsn, kind);
    return VEX_OK;
}

/* Fixed-size bodies: a shorter one shows as far as it goes. */
static void copy_body(void *into, size_t into_bytes, const uint8_t *body, size_t bytes)
{
    memset(into, 0, into_bytes);
    memcpy(into, body, bytes < into_bytes ? bytes : into_bytes);
}

static void show_write(struct dump *dump, uint64_t lsn, const uint8_t *body, size_t bytes)
{
    static const char *const kinds[] = {
        [VEX_WRITE_INSERT] = "insert",
        [VEX_WRITE_UPSERT] = "upsert",
        [VEX_WRITE_UPDATE] = "update",
        [VEX_WRITE_DELETE] = "delete",
    };
    struct vex_write write;
    struct vex_error fault = {.status = VEX_OK};
    if (vex_write_decode(&write, body, bytes, &fault) != VEX_OK) {
        const struct vex_field fields[] = {
            VEX_TEXT("kind", "record"),
            VEX_NUMBER("lsn", lsn),
            VEX_TEXT("what", "write"),
            VEX_TEXT("fault", fault.message),
        };
        vex_report_item(&dump->report, fields, COUNT(fields), "    %llu: write: %s",
                        (unsigned long long)lsn, fault.message);
        return;
    }
    const char *kind =
        write.head.kind < COUNT(kinds) && kinds[write.head.kind] ? kinds[write.head.kind] : "write";
    const struct vex_field fields[] = {
        VEX_TEXT("kind", "record"),
        VEX_NUMBER("lsn", lsn),
        VEX_TEXT("what", kind),
        VEX_NUMBER("collection", write.head.collection_id),
        VEX_NUMBER("count", write.head.count),
        VEX_NUMBER("first_id", vex_write_id(&write, 0)),
        VEX_NUMBER("dim", write.head.dim),
        VEX_NUMBER("payload_bytes", write.payload_bytes),
    };
    vex_report_item(&dump->report, fields, COUNT(fields),
                    "    %llu: %s of %u in collection %u, id %llu%s, %llu bytes of payload",
                    (unsigned long long)lsn, kind, write.head.count, write.head.collection_id,
                    (unsigned long long)vex_write_id(&write, 0),
                    write.head.count > 1 ? " and others" : "",
                    (unsigned long long)write.payload_bytes);
}

static void show_other(struct dump *dump, uint64_t lsn, const char *what, uint32_t collection,
                       const char *name)
{
    const struct vex_field fields[] = {
        VEX_TEXT("kind", "record"),           VEX_NUMBER("lsn", lsn), VEX_TEXT("what", what),
        VEX_NUMBER("collection", collection), VEX_TEXT("name", name),
    };
    vex_report_item(&dump->report, fields, COUNT(fields), "    %llu: %s of collection %u, %s",
                    (unsigned long long)lsn, what, collection, name);
}

static enum vex_status show_record(void *context, uint64_t lsn, uint16_t type, const uint8_t *body,
                                   size_t bytes, struct vex_error *error)
{
    (void)error;
    struct dump *dump = context;
    struct vex_create_body create;
    struct vex_drop_body drop;
    struct vex_alter_body alter;
    if (lsn < dump->from_lsn) {
        return VEX_OK;
    }
    switch (type) {
    case VEX_OP_WRITE:
        show_write(dump, lsn, body, bytes);
        break;
    case VEX_OP_CREATE:
        copy_body(&create, sizeof(create), body, bytes);
        create.name[sizeof(create.name) - 1] = 0;
        show_other(dump, lsn, "create", create.collection_id, create.name);
        break;
    case VEX_OP_DROP:
        copy_body(&drop, sizeof(drop), body, bytes);
        drop.name[sizeof(drop.name) - 1] = 0;
        show_other(dump, lsn, "drop", drop.collection_id, drop.name);
        break;
    case VEX_OP_ALTER:
        copy_body(&alter, sizeof(alter), body, bytes);
        alter.name[sizeof(alter.name) - 1] = 0;
        show_other(dump, lsn, "alter", alter.collection_id, alter.name);
        break;
    default:
        show_other(dump, lsn, "record of an unknown type", 0, "");
        break;
    }
    return VEX_OK;
}

static const char *end_text(const struct vex_log_scan_result *result, enum vex_status status)
{
    if (status != VEX_OK) {
        return "damage";
    }
    if (result->end == VEX_LOG_END_TORN) {
        return "torn tail, never acknowledged";
    }
    return result->clean ? "orderly stop" : "whole batch";
}

enum vex_status offline_log_dump(const struct vex_offline_options *options, struct vex_error *error)
{
    struct vex_io *io = NULL;
    struct vex_manifest manifest;
    enum vex_status status = offline_io_open(&io, error);
    if (status == VEX_OK) {
        status = offline_read_manifest(io, VEX_MANIFEST_PATH, &manifest, error);
    }
    if (status != VEX_OK) {
        vex_io_close(io);
        return status;
    }
    struct dump dump = {{.to = stdout, .json = options->json}, options->from_lsn};
    const struct vex_log_visitor visitor = {&dump, show_file, show_batch,
                                            options->records ? show_record : NULL};
    const struct vex_log_start start = {
        .file_number = manifest.log_file,
        .lsn = manifest.checkpoints_count ? manifest.checkpoints[0].lsn : manifest.log_lsn,
    };
    struct vex_log_scan_result result = {0};
    vex_report_begin(&dump.report, "log");
    status = vex_log_scan(io, manifest.uuid, &start, &visitor, &result, error);
    vex_io_close(io);
    const char *end = end_text(&result, status);
    const struct vex_field fields[] = {
        VEX_NUMBER("checkpoint_lsn", start.lsn), VEX_NUMBER("last_lsn", result.last_lsn),
        VEX_NUMBER("files", result.files),       VEX_NUMBER("batches", result.batches),
        VEX_NUMBER("records", result.records),   VEX_NUMBER("end_file", result.file_number),
        VEX_NUMBER("end_offset", result.offset), VEX_TEXT("end", end),
    };
    bool printed = vex_report_end(
        &dump.report, fields, COUNT(fields),
        "end: %s, file %llu at %llu, LSN %llu; checkpoint at LSN %llu; %llu records in %llu files",
        end, (unsigned long long)result.file_number, (unsigned long long)result.offset,
        (unsigned long long)result.last_lsn, (unsigned long long)start.lsn,
        (unsigned long long)result.records, (unsigned long long)result.files);
    return printed || status != VEX_OK
               ? status
               : vex_error_set(error, VEX_ERR_IO, "standard output: %s", strerror(errno));
}

/* ---- repair ---------------------------------------------------------------------------------- */

static void tell_repair(const struct vex_offline_options *options,
                        const struct vex_log_repair_report *found)
{
    struct vex_report report = {.to = stdout, .json = options->json};
    const struct vex_field fields[] = {
        VEX_BOOL("damaged", found->changed),
        VEX_BOOL("changed", found->changed && options->accept_loss),
        VEX_TEXT("damage", found->changed ? found->damage.message : ""),
        VEX_NUMBER("last_lsn", found->last_lsn),
        VEX_NUMBER("lost_records", found->lost_lsns),
        VEX_BOOL("more_possible", found->more_possible),
        VEX_NUMBER("files_removed", found->files_removed),
    };
    vex_report_begin(&report, NULL);
    if (!found->changed) {
        (void)vex_report_end(&report, fields, COUNT(fields),
                             "the log is sound up to LSN %llu: nothing to repair",
                             (unsigned long long)found->last_lsn);
        return;
    }
    if (!options->json) {
        vex_report_item(&report, NULL, 0, "damage: %s", found->damage.message);
    }
    (void)vex_report_end(&report, fields, COUNT(fields),
                         "%s: the log goes on behind LSN %llu; %llu records %s%s, %llu files",
                         options->accept_loss ? "repaired" : "a repair would do this",
                         (unsigned long long)found->last_lsn, (unsigned long long)found->lost_lsns,
                         options->accept_loss ? "are lost" : "would be lost",
                         found->more_possible ? " and perhaps more that nobody can count" : "",
                         (unsigned long long)found->files_removed);
}

enum vex_status offline_log_repair(const struct vex_offline_options *options,
                                   struct vex_error *error)
{
    struct vex_io *io = NULL;
    uint8_t uuid[VEX_STORE_UUID_BYTES];
    struct vex_log_start start = {0};
    struct vex_log_repair_report found = {0};
    enum vex_status status = offline_io_open(&io, error);
    status = status == VEX_OK ? vex_store_read_log_start(io, uuid, &start, error) : status;
    if (status == VEX_OK && start.file_number == 0) { /* the log is yet to be made */
        found.last_lsn = start.lsn;
    } else if (status == VEX_OK) {
        status = vex_log_repair(io, uuid, &start, &found, error);
    }
    vex_io_close(io);
    if (status != VEX_OK) {
        return status;
    }
    tell_repair(options, &found);
    if (!found.changed || options->accept_loss) {
        return VEX_OK;
    }
    return vex_error_set(error, VEX_ERR_CORRUPT,
                         "the log is damaged and nothing was changed; to cut it there, say "
                         "--accept-loss");
}
