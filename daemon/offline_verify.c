/*
 * Verifying: first every file, as the check does, then the instance opened as a daemon opens it, and every
 * row of it. Runs on a scratch copy, since opening an instance changes it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "daemon/coordinator.h"
#include "daemon/offline_priv.h"
#include "daemon/report.h"
#include "daemon/verify.h"
#include "ioengine/store.h"

struct findings {
    uint64_t damaged; /* files */
    struct vex_error first;
};

static void note_finding(void *context, enum vex_status status, const char *path, const char *text)
{
    struct findings *findings = context;
    if (status != VEX_OK) {
        fprintf(stderr, "vexd: %s: %s\n", path, text);
        if (findings->damaged++ == 0) {
            (void)vex_error_set(&findings->first, VEX_ERR_CORRUPT, "%s: %s", path, text);
        }
    }
}

static enum vex_status check_files(struct findings *findings, struct vex_error *error)
{
    struct vex_io *io = NULL;
    enum vex_status status = offline_io_open(&io, error);
    if (status == VEX_OK) {
        status = vex_store_check(io, note_finding, findings, error);
        vex_io_close(io);
    }
    return findings->damaged ? VEX_OK : status; /* what is damaged is judged at the end */
}

static void tell_collection(struct vex_report *report, const struct vex_live_collection *collection,
                            const struct vex_verify_result *result)
{
    const struct vex_field fields[] = {
        VEX_TEXT("name", collection->facts.name),
        VEX_BOOL("sound", result->faults == 0),
        VEX_NUMBER("live_rows", result->live_rows),
        VEX_NUMBER("dead_rows", result->dead_rows),
        VEX_NUMBER("segments", result->segments),
        VEX_NUMBER("payload_bytes", result->payload_bytes),
        VEX_NUMBER("faults", result->faults),
        VEX_TEXT("first_fault", result->first_fault),
    };
    vex_report_item(report, fields, sizeof(fields) / sizeof(fields[0]),
                    "%-8s collection %s: %llu rows live, %llu dead, %llu segment%s%s%s",
                    result->faults ? "DAMAGED" : "ok", collection->facts.name,
                    (unsigned long long)result->live_rows, (unsigned long long)result->dead_rows,
                    (unsigned long long)result->segments, result->segments == 1 ? "" : "s",
                    result->faults ? "; " : "", result->first_fault);
}

static uint64_t verify_collections(struct vex_report *report, const struct vex_registry *registry)
{
    uint64_t faults = 0;
    for (uint32_t slot = 0; slot < VEX_PLACES_MAX; slot++) {
        const struct vex_live_collection *collection = vex_registry_at(registry, slot);
        if (collection) {
            struct vex_verify_result result;
            vex_verify_collection(collection, &result);
            tell_collection(report, collection, &result);
            faults += result.faults;
        }
    }
    return faults;
}

static enum vex_status judge(const struct findings *findings, uint64_t faults,
                             struct vex_error *error)
{
    if (faults) {
        return vex_error_set(error, VEX_ERR_CORRUPT, "%llu rows or counts are wrong",
                             (unsigned long long)faults);
    }
    if (findings->damaged) {
        *error = findings->first;
        return vex_error_wrap(error, VEX_ERR_CORRUPT, "it opens, but %llu files are damaged",
                              (unsigned long long)findings->damaged);
    }
    return VEX_OK;
}

static enum vex_status report_on(struct vex_coordinator *coordinator,
                                 const struct vex_offline_options *options,
                                 const struct findings *findings, struct vex_error *error)
{
    struct vex_stats_body stats = {0};
    vex_coordinator_stats(coordinator, &stats);
    struct vex_report report = {.to = stdout, .json = options->json};
    vex_report_begin(&report, "collections");
    uint64_t faults = verify_collections(&report, vex_coordinator_registry(coordinator));
    enum vex_status status = judge(findings, faults, error);
    const struct vex_field fields[] = {
        VEX_BOOL("sound", status == VEX_OK),
        VEX_NUMBER("lsn", stats.lsn),
        VEX_NUMBER("checkpoint_lsn", stats.checkpoint_lsn),
        VEX_NUMBER("replayed", stats.replayed),
        VEX_NUMBER("torn_tails", stats.torn_tails),
        VEX_NUMBER("live_rows", stats.live_rows),
        VEX_NUMBER("dead_rows", stats.dead_rows),
        VEX_NUMBER("damaged_files", findings->damaged),
        VEX_NUMBER("recovery_us", stats.recovery_us),
    };
    bool printed = vex_report_end(
        &report, fields, sizeof(fields) / sizeof(fields[0]),
        "%s: LSN %llu, %llu records replayed behind the checkpoint, opened in %.3f s",
        status == VEX_OK ? "sound" : "NOT SOUND", (unsigned long long)stats.lsn,
        (unsigned long long)stats.replayed, (double)stats.recovery_us / 1e6);
    return printed || status != VEX_OK
               ? status
               : vex_error_set(error, VEX_ERR_IO, "standard output: %s", strerror(errno));
}

enum vex_status offline_verify(const struct vex_offline_options *options, struct vex_error *error)
{
    struct findings findings = {0};
    struct vex_coordinator *coordinator = NULL;
    const struct vex_coordinator_options how = {.io_backend = "sync"};
    enum vex_status status = check_files(&findings, error);
    if (status == VEX_OK) {
        status = vex_coordinator_open(AT_FDCWD, &how, &coordinator, error);
    }
    if (status == VEX_OK) {
        status = report_on(coordinator, options, &findings, error);
    }
    vex_coordinator_close(coordinator);
    return status;
}
