/*
 * What an operator asks the daemon: how it is, and to do its background work now.
 *
 * A request for upkeep may take minutes, so it has no deadline: a connection that breaks ends it. It
 * counts as a change, because the daemon may go on without us: a lost reply is UNKNOWN_OUTCOME, which
 * is the truth about a backup directory that may or may not appear.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "libclient/client.h"
#include "shm/wire.h"

_Static_assert((int)VEX_JOB_CHECKPOINT == (int)VEX_UPKEEP_CHECKPOINT, "wire");
_Static_assert((int)VEX_JOB_MERGE == (int)VEX_UPKEEP_COMPACT, "wire");
_Static_assert((int)VEX_JOB_BACKUP == (int)VEX_UPKEEP_BACKUP, "wire");

/* ---- stats ----------------------------------------------------------------------------------- */

static void fill_stats(struct vex_stats *out, const struct vex_stats_body *body,
                       const uint8_t *uuid)
{
    *out = (struct vex_stats){
        .size = sizeof(*out),
        .daemon_pid = body->daemon_pid,
        .clients = body->clients,
        .collections = body->collections,
        .read_only = body->read_only != 0,
        .embedded = body->embedded != 0,
        .lsn = body->lsn,
        .generation = body->generation,
        .uptime_ms = body->uptime_ms,
        .live_rows = body->live_rows,
        .dead_rows = body->dead_rows,
        .shm_bytes = body->shm_bytes,
        .log_bytes = body->log_bytes,
        .log_file_bytes = body->log_file_bytes,
        .commits = body->commits,
        .records = body->records,
        .replayed = body->replayed,
        .torn_tails = body->torn_tails,
        .recovery_us = body->recovery_us,
        .checkpoint_lsn = body->checkpoint_lsn,
        .checkpoints = body->checkpoints,
        .checkpoint_failures = body->checkpoint_failures,
        .merges = body->merges,
        .merge_failures = body->merge_failures,
        .merged_bytes = body->merged_bytes,
        .segment_files = body->segment_files,
        .segment_bytes = body->segment_bytes,
        .reserve_bytes = body->reserve_bytes,
        .ingested_bytes = body->ingested_bytes,
        .written_bytes = body->written_bytes,
        .live_bytes = body->live_bytes,
        .quarantined = body->quarantined,
        .upkeep_running = (enum vex_upkeep_job)body->upkeep_running,
    };
    (void)snprintf(out->version, sizeof(out->version), "%.15s", body->version);
    (void)snprintf(out->io_backend, sizeof(out->io_backend), "%.15s", body->io_backend);
    (void)snprintf(out->upkeep_error, sizeof(out->upkeep_error), "%.95s", body->upkeep_error);
    vex_uuid_text(out->instance, uuid);
}

enum vex_status vex_get_stats(struct vex_db *db, struct vex_stats *out, struct vex_error *error)
{
    if (!out || out->size != sizeof(*out)) {
        return vex_error_set(error, VEX_ERR_INVALID, "stats: out is NULL or its size is not set");
    }
    struct attachment *attachment = NULL;
    enum vex_status status = vex_db_check(db, error);
    status = status == VEX_OK ? vex_db_ensure(db, &attachment, error) : status;
    if (status != VEX_OK) {
        return status;
    }
    struct vex_reply reply;
    status = vex_connection_call(attachment->connection, VEX_OP_STATS, NULL, 0, false,
                                 vex_db_deadline_ns(db), &reply, error);
    uint8_t uuid[VEX_UUID_BYTES];
    memcpy(uuid, attachment->uuid, sizeof(uuid));
    vex_db_done(db, attachment);
    if (status != VEX_OK) {
        return status;
    }
    struct vex_stats_body body;
    if (reply.body.bytes != sizeof(body)) {
        vex_buffer_deinit(&reply.body);
        return vex_error_set(error, VEX_ERR_PROTOCOL, "stats of a strange length");
    }
    memcpy(&body, reply.body.data, sizeof(body));
    vex_buffer_deinit(&reply.body);
    fill_stats(out, &body, uuid);
    return VEX_OK;
}

/* ---- upkeep ---------------------------------------------------------------------------------- */

static enum vex_status check_call(struct vex_db *db, const struct vex_upkeep_info *out_info,
                                  const char *what, struct vex_error *error)
{
    if (out_info && out_info->size != sizeof(*out_info)) {
        return vex_error_set(error, VEX_ERR_INVALID,
                             "%s: the size of out_info is %zu, expected %zu", what, out_info->size,
                             sizeof(*out_info));
    }
    return vex_db_check(db, error);
}

static enum vex_status ask(struct vex_db *db, const struct vex_upkeep_body *body,
                           struct vex_upkeep_info *out_info, struct vex_error *error)
{
    struct attachment *attachment = NULL;
    enum vex_status status = vex_db_ensure(db, &attachment, error);
    if (status != VEX_OK) {
        return status;
    }
    struct vex_reply reply;
    status = vex_connection_call(attachment->connection, VEX_OP_UPKEEP, body, sizeof(*body), true,
                                 0, &reply, error);
    vex_db_done(db, attachment);
    if (status == VEX_ERR_UNKNOWN_OUTCOME) {
        return vex_error_set(error, status,
                             "the connection to vexd broke; what was asked for may or may not be "
                             "done, and can be asked for again");
    }
    if (status != VEX_OK) {
        return status;
    }
    struct vex_upkeep_done_body done;
    if (reply.body.bytes != sizeof(done)) {
        vex_buffer_deinit(&reply.body);
        return vex_error_set(error, VEX_ERR_PROTOCOL, "an answer of a strange length");
    }
    memcpy(&done, reply.body.data, sizeof(done));
    vex_buffer_deinit(&reply.body);
    if (out_info) {
        *out_info = (struct vex_upkeep_info){
            .size = sizeof(*out_info),
            .lsn = done.lsn,
            .bytes = done.bytes,
            .rows_removed = done.rows_removed,
            .segments_before = done.segments_before,
            .segments_after = done.segments_after,
        };
    }
    return VEX_OK;
}

enum vex_status vex_checkpoint(struct vex_db *db, struct vex_upkeep_info *out_info,
                               struct vex_error *error)
{
    struct vex_upkeep_body body = {.kind = VEX_UPKEEP_CHECKPOINT};
    enum vex_status status = check_call(db, out_info, "checkpoint", error);
    return status == VEX_OK ? ask(db, &body, out_info, error) : status;
}

static enum vex_status check_compact(const char *collection,
                                     const struct vex_compact_options *options,
                                     struct vex_error *error)
{
    if (options && options->size != sizeof(*options)) {
        return vex_error_set(error, VEX_ERR_INVALID, "compact options: size is %zu, expected %zu",
                             options->size, sizeof(*options));
    }
    /* A name that is none would come out as another one, or as all collections, when it is cut. */
    if (collection && (!collection[0] || strlen(collection) > VEX_NAME_MAX)) {
        return vex_error_set(error, VEX_ERR_NO_COLLECTION, "no collection '%.63s'", collection);
    }
    return VEX_OK;
}

enum vex_status vex_compact(struct vex_db *db, const char *collection,
                            const struct vex_compact_options *options,
                            struct vex_upkeep_info *out_info, struct vex_error *error)
{
    struct vex_upkeep_body body = {
        .kind = options && options->erase ? VEX_UPKEEP_ERASE : VEX_UPKEEP_COMPACT,
    };
    enum vex_status status = check_call(db, out_info, "compact", error);
    status = status == VEX_OK ? check_compact(collection, options, error) : status;
    if (status != VEX_OK) {
        return status;
    }
    if (collection) {
        memcpy(body.name, collection, strlen(collection));
    }
    return ask(db, &body, out_info, error);
}

/* Into body->path, absolute and without slashes at the end. */
static enum vex_status set_path(struct vex_upkeep_body *body, const char *path,
                                struct vex_error *error)
{
    if (!path || !path[0]) {
        return vex_error_set(error, VEX_ERR_INVALID, "backup: no path given");
    }
    char *absolute = NULL;
    enum vex_status status = vex_db_absolute(path, &absolute, error);
    if (status != VEX_OK) {
        return status;
    }
    size_t length = strlen(absolute);
    while (length > 1 && absolute[length - 1] == '/') {
        length--;
    }
    if (length < sizeof(body->path)) {
        memcpy(body->path, absolute, length);
    } else {
        status = vex_error_set(error, VEX_ERR_INVALID, "backup: a path of %zu bytes, at most %u",
                               length, VEX_UPKEEP_PATH_MAX);
    }
    free(absolute);
    return status;
}

enum vex_status vex_backup(struct vex_db *db, const char *path, struct vex_upkeep_info *out_info,
                           struct vex_error *error)
{
    struct vex_upkeep_body body = {.kind = VEX_UPKEEP_BACKUP};
    enum vex_status status = check_call(db, out_info, "backup", error);
    status = status == VEX_OK ? set_path(&body, path, error) : status;
    return status == VEX_OK ? ask(db, &body, out_info, error) : status;
}
