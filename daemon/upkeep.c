#include "daemon/upkeep.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/panic.h"
#include "daemon/checkpoint.h"
#include "daemon/index_plan.h"
#include "daemon/merge.h"
#include "daemon/merge_pick.h"
#include "daemon/trace.h"
#include "daemon/worker.h"

#define MIB ((uint64_t)1 << 20)
#define TAIL_BYTES_MIN (32 * MIB) /* log behind the last checkpoint that is worth the next one */
#define TAIL_BYTES_MAX (256 * MIB)
#define TAIL_BYTES_QUIET (4 * MIB)
#define QUIET_MS 2000u
#define LOAD_ROWS_S 20000u /* about what two builders put into graphs */
#define LOAD_SAMPLE_MS 200u
#define LOAD_WAIT_MS 10000u
#define BACKOFF_MS 10000u /* after a job that failed */
#define REQUESTS_MAX 16u
/* On a machine whose cores are all busy, about a thirtieth of one is left to the worker: searches and commits do
 * not notice, and nothing stands still. Builders have to keep up with what is written, the one of small graphs
 * closely, or every search pays for it. */
#define WORKER_NICE 15
#define LARGE_BUILDER_NICE 6
#define SMALL_BUILDER_NICE 2

/* Builders, by what they build. */
enum { SMALL, LARGE };
#define BUILDERS VEX_UPKEEP_BUILDERS

enum running {
    RUNNING_NOTHING,
    RUNNING_TAKEN,
    RUNNING_CHECKPOINT,
    RUNNING_MERGE,
    RUNNING_BACKUP,
    RUNNING_RESERVE,
};

/* Of the request that is being carried out. */
enum stage { STAGE_NONE, STAGE_MERGES, STAGE_ROTATE, STAGE_FIRST, STAGE_SECOND, STAGE_BACKUP };

struct request {
    uint64_t ticket;
    struct vex_upkeep_body body;
};

struct backup_job {
    struct vex_store *store;
    const char *path;
    uint64_t lsn;
    uint64_t bytes;
    enum vex_status status;
    struct vex_error error;
};

struct merging {
    bool running;
    bool requested; /* by an operator */
    uint64_t pinned_generation;
    uint64_t started_ms;
    struct vex_merge_job job;
    struct vex_merge_claim claim;
};

struct vex_upkeep {
    uint8_t key[VEX_UUID_BYTES];
    uint64_t tail_bytes; /* 0 = by the amount of data */
    struct vex_publisher *publisher;
    struct vex_registry *registry;
    struct vex_store *store;
    struct vex_worker *worker;
    struct vex_worker
        *builders[BUILDERS]; /* of graphs, which can take minutes: workers of their own */

    enum running running;
    struct vex_checkpoint_job checkpoint;
    struct merging merge; /* the worker's */
    struct merging builds[BUILDERS];
    struct backup_job backup;
    uint64_t pinned_generation; /* while something runs */

    bool checkpoint_wanted; /* at the next rest */
    bool quarantine;
    bool checkpoint_failed;    /* the last one */
    bool reserve_made;         /* or tried to, since the start */
    unsigned checkpoints_owed; /* until what was replaced is off the disk: two are kept */
    uint64_t log_mark;         /* log bytes written when the newest checkpoint was taken */
    uint64_t log_mark_taken;   /* the same for the one under way */
    uint64_t quiet_since_ms;
    uint64_t checkpoint_not_before_ms;
    uint64_t merge_not_before_ms;
    uint32_t merge_slot; /* the collection to look at first: each has its turn */
    uint64_t now_ms;
    uint64_t looked_ms;

    struct request queue[REQUESTS_MAX]; /* the first one is being carried out if stage says so */
    unsigned queue_count;
    uint64_t next_ticket;
    enum stage stage;
    uint32_t stage_slot;    /* STAGE_MERGES: next collection to look at */
    uint64_t rotating_from; /* STAGE_ROTATE: log file to be left for a fresh one, 0 = none yet */
    struct vex_upkeep_answer answer; /* of the request being carried out */
    struct vex_upkeep_answer answers[REQUESTS_MAX];
    unsigned answers_count;
    struct vex_upkeep_counters counters;
};

/* ---- life ------------------------------------------------------------------------------------ */

enum vex_status vex_upkeep_open(const uint8_t *key, uint64_t tail_bytes,
                                struct vex_publisher *publisher, struct vex_registry *registry,
                                struct vex_store *store, struct vex_upkeep **out_upkeep,
                                struct vex_error *error)
{
    *out_upkeep = NULL;
    struct vex_upkeep *upkeep = calloc(1, sizeof(*upkeep));
    if (!upkeep) {
        return vex_error_set(error, VEX_ERR_NOMEM, "upkeep: out of memory");
    }
    memcpy(upkeep->key, key, sizeof(upkeep->key));
    upkeep->tail_bytes = tail_bytes;
    upkeep->publisher = publisher;
    upkeep->registry = registry;
    upkeep->store = store;
    upkeep->next_ticket = 1;
    upkeep->now_ms = upkeep->quiet_since_ms = vex_clock_ms();
    enum vex_status status = vex_worker_start(WORKER_NICE, &upkeep->worker, error);
    status = status == VEX_OK
                 ? vex_worker_start(SMALL_BUILDER_NICE, &upkeep->builders[SMALL], error)
                 : status;
    status = status == VEX_OK
                 ? vex_worker_start(LARGE_BUILDER_NICE, &upkeep->builders[LARGE], error)
                 : status;
    if (status != VEX_OK) {
        vex_worker_stop(upkeep->worker);
        vex_worker_stop(upkeep->builders[SMALL]);
        free(upkeep);
        return status;
    }
    *out_upkeep = upkeep;
    return VEX_OK;
}

static void give_up_merge(struct vex_upkeep *upkeep, struct merging *merging)
{
    if (merging->running) {
        if (merging->job.merged) {
            vex_home_destroy(merging->job.merged, true);
        }
        vex_registry_abort_merge(upkeep->registry, &merging->claim);
        merging->running = false;
    }
}

/* Ends the workers and takes what they have done into the books. */
static void stop_workers(struct vex_upkeep *upkeep)
{
    vex_worker_stop(upkeep->worker);
    upkeep->worker = NULL;
    for (unsigned i = 0; i < BUILDERS; i++) {
        vex_worker_stop(upkeep->builders[i]);
        upkeep->builders[i] = NULL;
    }
    if (upkeep->running == RUNNING_TAKEN || upkeep->running == RUNNING_CHECKPOINT) {
        vex_checkpoint_finish(&upkeep->checkpoint, upkeep->registry);
    }
    give_up_merge(upkeep, &upkeep->merge);
    for (unsigned i = 0; i < BUILDERS; i++) {
        give_up_merge(upkeep, &upkeep->builds[i]);
    }
    upkeep->running = RUNNING_NOTHING;
}

void vex_upkeep_close(struct vex_upkeep *upkeep)
{
    if (upkeep) {
        stop_workers(upkeep);
        free(upkeep);
    }
}

int vex_upkeep_event_fd(const struct vex_upkeep *upkeep)
{
    return vex_worker_event_fd(upkeep->worker);
}

int vex_upkeep_builder_event_fd(const struct vex_upkeep *upkeep, unsigned builder)
{
    VEX_ASSERT(builder < BUILDERS);
    return vex_worker_event_fd(upkeep->builders[builder]);
}

uint64_t vex_upkeep_oldest_pinned(const struct vex_upkeep *upkeep)
{
    uint64_t oldest = UINT64_MAX;
    if (upkeep->running != RUNNING_NOTHING) {
        oldest = upkeep->pinned_generation;
    }
    for (unsigned i = 0; i < BUILDERS; i++) {
        const struct merging *build = &upkeep->builds[i];
        if (build->running && build->pinned_generation < oldest) {
            oldest = build->pinned_generation;
        }
    }
    return oldest;
}

void vex_upkeep_set_quarantine(struct vex_upkeep *upkeep, bool quarantine)
{
    upkeep->quarantine = quarantine;
}

/* Segments are no longer named by anything new: two checkpoints from now on their files can go. */
static void owe_checkpoints(struct vex_upkeep *upkeep)
{
    /* A checkpoint that has been taken already still names the files. */
    bool taken = upkeep->running == RUNNING_TAKEN || upkeep->running == RUNNING_CHECKPOINT;
    upkeep->checkpoints_owed = taken ? 3 : 2;
}

void vex_upkeep_note_drop(struct vex_upkeep *upkeep)
{
    owe_checkpoints(upkeep);
}

static void pin(struct vex_upkeep *upkeep, enum running running)
{
    upkeep->running = running;
    upkeep->pinned_generation = vex_control_generation(vex_publisher_region(upkeep->publisher));
}

static void note_failure(struct vex_upkeep *upkeep, const char *what, const struct vex_error *error)
{
    vex_trace("%s failed: %s", what, error->message);
    (void)snprintf(upkeep->counters.last_error, sizeof(upkeep->counters.last_error), "%s: %.*s",
                   what, (int)(sizeof(upkeep->counters.last_error) - 16), error->message);
}

/* ---- answers ---------------------------------------------------------------------------------- */

static uint64_t count_segments(const struct vex_upkeep *upkeep, const char *name)
{
    uint64_t count = 0;
    for (uint32_t slot = 0; slot < VEX_PLACES_MAX; slot++) {
        const struct vex_live_collection *collection = vex_registry_at(upkeep->registry, slot);
        if (collection && (!name[0] || strcmp(collection->facts.name, name) == 0)) {
            count += collection->homes_count;
        }
    }
    return count;
}

static void finish_request(struct vex_upkeep *upkeep, enum vex_status status,
                           const struct vex_error *error)
{
    upkeep->answer.ticket = upkeep->queue[0].ticket;
    upkeep->answer.status = status;
    if (status != VEX_OK) {
        upkeep->answer.error = *error;
    }
    upkeep->answer.done.segments_after = count_segments(upkeep, upkeep->queue[0].body.name);
    upkeep->answers[upkeep->answers_count++] = upkeep->answer;
    upkeep->queue_count--;
    memmove(&upkeep->queue[0], &upkeep->queue[1], upkeep->queue_count * sizeof(upkeep->queue[0]));
    upkeep->stage = STAGE_NONE;
    upkeep->checkpoint_wanted = false;
    /* What is still being built for it is nobody's request now, least of all the next one's. */
    upkeep->merge.requested = false;
    for (unsigned i = 0; i < BUILDERS; i++) {
        upkeep->builds[i].requested = false;
    }
}

/* ---- checkpoints ----------------------------------------------------------------------------- */

static uint64_t log_bytes(const struct vex_upkeep *upkeep)
{
    struct vex_log_counters counters;
    vex_log_get_counters(vex_store_log(upkeep->store), &counters);
    return counters.replay_bytes + counters.batch_bytes;
}

static uint64_t tail_bytes_wanted(const struct vex_upkeep *upkeep)
{
    if (upkeep->tail_bytes) {
        return upkeep->tail_bytes;
    }
    uint64_t bytes = vex_publisher_shm_bytes(upkeep->publisher) / 4;
    bytes = bytes < TAIL_BYTES_MIN ? TAIL_BYTES_MIN : bytes;
    return bytes > TAIL_BYTES_MAX ? TAIL_BYTES_MAX : bytes;
}

static bool is_quiet(const struct vex_upkeep *upkeep)
{
    return upkeep->now_ms - upkeep->quiet_since_ms >= QUIET_MS;
}

static bool checkpoint_is_due(const struct vex_upkeep *upkeep)
{
    if (upkeep->quarantine || upkeep->now_ms < upkeep->checkpoint_not_before_ms) {
        return false;
    }
    uint64_t tail = log_bytes(upkeep) - upkeep->log_mark;
    return tail >= tail_bytes_wanted(upkeep) ||
           (is_quiet(upkeep) && (tail >= TAIL_BYTES_QUIET || upkeep->checkpoints_owed));
}

/* Nothing is staged that is not sealed, so the registry's state is the state at the last LSN. */
void vex_upkeep_at_rest(struct vex_upkeep *upkeep)
{
    if (!upkeep->checkpoint_wanted || upkeep->running != RUNNING_NOTHING) {
        return;
    }
    upkeep->checkpoint_wanted = false;
    struct vex_error error;
    enum vex_status status =
        vex_checkpoint_take(&upkeep->checkpoint, upkeep->registry, upkeep->store, &error);
    if (status != VEX_OK) {
        note_failure(upkeep, "checkpoint", &error);
        upkeep->checkpoint_not_before_ms = upkeep->now_ms + BACKOFF_MS;
        if (upkeep->stage != STAGE_NONE) {
            finish_request(upkeep, status, &error);
        }
        return;
    }
    upkeep->checkpoint.leftovers = upkeep->checkpoint_failed;
    upkeep->checkpoint.recycle =
        upkeep->stage == STAGE_NONE || upkeep->queue[0].body.kind != VEX_UPKEEP_ERASE;
    upkeep->log_mark_taken = log_bytes(upkeep);
    pin(upkeep, RUNNING_TAKEN);
}

static void start_taken(struct vex_upkeep *upkeep)
{
    struct vex_log *log = vex_store_log(upkeep->store);
    if (vex_log_failure(log)) {
        vex_checkpoint_finish(&upkeep->checkpoint, upkeep->registry);
        upkeep->running = RUNNING_NOTHING;
    } else if (vex_log_durable_lsn(log) >= upkeep->checkpoint.cut.lsn) {
        upkeep->running = RUNNING_CHECKPOINT;
        vex_worker_run(upkeep->worker, vex_checkpoint_run, &upkeep->checkpoint);
    }
}

static bool wrote_segments(const struct vex_checkpoint_job *job)
{
    for (size_t i = 0; i < job->homes_count; i++) {
        if (job->homes[i].held_bytes) {
            return true;
        }
    }
    return false;
}

static enum vex_status end_checkpoint(struct vex_upkeep *upkeep, struct vex_error *error)
{
    struct vex_checkpoint_job *job = &upkeep->checkpoint;
    enum vex_status status = job->status;
    upkeep->checkpoint_failed = status != VEX_OK;
    if (status == VEX_OK) {
        bool news = wrote_segments(job) || upkeep->log_mark_taken != upkeep->log_mark;
        upkeep->log_mark = upkeep->log_mark_taken;
        upkeep->checkpoints_owed -= upkeep->checkpoints_owed > 0;
        if (news && upkeep->checkpoints_owed == 0) {
            upkeep->checkpoints_owed = 1; /* then the log before this one can go, too */
        }
        upkeep->counters.checkpoints++;
        upkeep->counters.last_error[0] = 0;
        upkeep->answer.done.lsn = job->cut.lsn;
    } else {
        *error = job->error;
        upkeep->counters.checkpoint_failures++;
        upkeep->checkpoint_not_before_ms = upkeep->now_ms + BACKOFF_MS;
        note_failure(upkeep, "checkpoint", error);
    }
    vex_checkpoint_finish(job, upkeep->registry);
    return status;
}

void vex_upkeep_last_checkpoint(struct vex_upkeep *upkeep)
{
    struct vex_log *log = vex_store_log(upkeep->store);
    uint64_t tail = log_bytes(upkeep) - upkeep->log_mark;
    if (upkeep->quarantine || vex_log_failure(log) || tail < TAIL_BYTES_QUIET) {
        return;
    }
    stop_workers(upkeep);
    upkeep->stage = STAGE_NONE;
    upkeep->checkpoint_wanted = true;
    vex_upkeep_at_rest(upkeep);
    if (upkeep->running == RUNNING_TAKEN) {
        struct vex_error error;
        vex_checkpoint_run(&upkeep->checkpoint, NULL);
        upkeep->running = RUNNING_NOTHING;
        (void)end_checkpoint(upkeep, &error);
    }
}

/* ---- merges ---------------------------------------------------------------------------------- */

static bool is_building(const struct vex_upkeep *upkeep)
{
    return upkeep->builds[SMALL].running || upkeep->builds[LARGE].running;
}

static unsigned builder_of(enum vex_hand hand)
{
    return hand == VEX_HAND_LARGE_BUILDER ? LARGE : SMALL;
}

static void start_merge(struct vex_upkeep *upkeep, const struct vex_merge_pick *pick,
                        bool requested)
{
    bool builds = pick->hand != VEX_HAND_WORKER;
    unsigned builder = builder_of(pick->hand);
    struct merging *merging = builds ? &upkeep->builds[builder] : &upkeep->merge;
    struct vex_merge_job *job = &merging->job;
    vex_merge_job_init(job, upkeep->key, vex_publisher_new_segment_id(upkeep->publisher),
                       pick->collection, pick->first, pick->count,
                       vex_log_next_lsn(vex_store_log(upkeep->store)) - 1);
    job->shape.graph = pick->index.graph;
    job->is_level = pick->is_level;
    job->wants_lists = pick->index.lists;
    job->lists_wanted = pick->index.lists_wanted;
    vex_registry_begin_merge(upkeep->registry, &merging->claim, pick->collection, pick->first,
                             pick->count);
    merging->running = true;
    merging->requested = requested;
    merging->started_ms = upkeep->now_ms;
    merging->pinned_generation = vex_control_generation(vex_publisher_region(upkeep->publisher));
    if (!builds) {
        pin(upkeep, RUNNING_MERGE);
    }
    vex_worker_run(builds ? upkeep->builders[builder] : upkeep->worker, vex_merge_run, job);
}

/*
 * Whether rows arrive faster than builders can follow. Then a graph of the first of them would be extended over and
 * over, and all of it costs more than one graph over all of them when the load is over; so builders wait, for a
 * while. A collection that was not looked at before counts as one that is being loaded.
 */
static bool is_loading(struct vex_live_collection *collection, uint64_t now_ms)
{
    struct vex_arrivals *arrivals = &collection->arrivals;
    uint64_t elapsed_ms = now_ms - arrivals->sampled_ms;
    if (arrivals->sampled_ms != 0 && elapsed_ms < LOAD_SAMPLE_MS) {
        return arrivals->is_load && now_ms - arrivals->since_ms < LOAD_WAIT_MS;
    }
    uint64_t rows = collection->appended_rows - arrivals->rows_at_sample;
    bool is_load = arrivals->sampled_ms == 0 || rows * 1000 >= LOAD_ROWS_S * elapsed_ms;
    if (is_load && !arrivals->is_load) {
        arrivals->since_ms = now_ms;
    }
    arrivals->is_load = is_load;
    arrivals->sampled_ms = now_ms;
    arrivals->rows_at_sample = collection->appended_rows;
    return is_load && now_ms - arrivals->since_ms < LOAD_WAIT_MS;
}

/* Looks for merges for those who have nothing to do; `worker`: the worker is one of them. A tail is sealed here only
 * if somebody can take it in. */
static void start_due_merge(struct vex_upkeep *upkeep, bool worker)
{
    if (upkeep->now_ms < upkeep->merge_not_before_ms) {
        return;
    }
    const struct vex_hour now = {
        .quiet_ms = upkeep->now_ms - upkeep->quiet_since_ms,
        .is_free = {[VEX_HAND_WORKER] = worker,
                    [VEX_HAND_SMALL_BUILDER] = !upkeep->builds[SMALL].running,
                    [VEX_HAND_LARGE_BUILDER] = !upkeep->builds[LARGE].running},
    };
    for (uint32_t i = 0; i < VEX_PLACES_MAX; i++) {
        uint32_t slot = (upkeep->merge_slot + i) % VEX_PLACES_MAX;
        struct vex_live_collection *collection = vex_registry_at(upkeep->registry, slot);
        if (!collection || collection->quarantined) {
            continue;
        }
        struct vex_hour hour = now;
        if (is_loading(collection, upkeep->now_ms)) {
            hour.is_free[VEX_HAND_SMALL_BUILDER] = hour.is_free[VEX_HAND_LARGE_BUILDER] = false;
        }
        if (vex_merge_wants_tail(collection, &hour)) {
            vex_registry_seal_tail(collection);
        }
        struct vex_merge_pick pick;
        if (vex_merge_pick_due(&pick, collection, &hour)) {
            /* One that does not fit the memory must not keep the others from giving theirs back. */
            upkeep->merge_slot = slot + 1;
            start_merge(upkeep, &pick, false);
            return;
        }
    }
}

static enum vex_status end_merge(struct vex_upkeep *upkeep, struct merging *merging,
                                 struct vex_error *error)
{
    struct vex_merge_job *job = &merging->job;
    uint64_t rows_before = 0;
    for (uint32_t i = 0; i < job->sources_count; i++) {
        rows_before += job->sources[i]->writer.rows;
    }
    uint64_t rows_after = job->merged ? job->merged->writer.rows : 0;
    uint64_t bytes = job->merged ? job->merged->held_bytes : 0;
    enum vex_status status = job->status;
    if (job->merged) {
        job->merged->is_level = job->is_level;
    }
    if (status != VEX_OK) {
        *error = job->error;
        vex_registry_abort_merge(upkeep->registry, &merging->claim);
    } else if (!vex_registry_end_merge(upkeep->registry, &merging->claim, &job->merged, error)) {
        status = error->status;
        if (job->merged) {
            vex_home_destroy(job->merged, true);
        }
    }
    job->merged = NULL;
    merging->running = false;
    if (status != VEX_OK) {
        if (status != VEX_ERR_GONE) {
            upkeep->counters.merge_failures++;
            upkeep->merge_not_before_ms = upkeep->now_ms + BACKOFF_MS;
            note_failure(upkeep, "merge", error);
        }
        return status;
    }
    upkeep->counters.merges++;
    upkeep->counters.merged_bytes += bytes;
    upkeep->counters.last_error[0] = 0;
    owe_checkpoints(upkeep);
    if (merging->requested) {
        upkeep->answer.done.rows_removed += rows_before - rows_after;
    }
    return VEX_OK;
}

/* ---- the reserve ----------------------------------------------------------------------------- */

/* A disk that fills up before the first checkpoint would leave no room for one, and nothing that is deleted
 * would ever come back. Small instances are spared. */
static bool reserve_is_due(const struct vex_upkeep *upkeep)
{
    return !upkeep->reserve_made && log_bytes(upkeep) - upkeep->log_mark >= TAIL_BYTES_QUIET;
}

static void run_reserve(void *argument, const struct vex_pace *pace)
{
    (void)pace;
    vex_store_refill_reserve(argument);
}

static void start_reserve(struct vex_upkeep *upkeep)
{
    upkeep->reserve_made = true;
    pin(upkeep, RUNNING_RESERVE);
    vex_worker_run(upkeep->worker, run_reserve, upkeep->store);
}

/* ---- requests -------------------------------------------------------------------------------- */

static void run_backup(void *argument, const struct vex_pace *pace)
{
    struct backup_job *job = argument;
    job->status =
        vex_store_backup(job->store, job->path, pace, &job->lsn, &job->bytes, &job->error);
}

enum vex_status vex_upkeep_request(struct vex_upkeep *upkeep, const struct vex_upkeep_body *body,
                                   uint64_t *out_ticket, struct vex_error *error)
{
    if (body->kind < VEX_UPKEEP_CHECKPOINT || body->kind > VEX_UPKEEP_BACKUP ||
        memchr(body->path, 0, sizeof(body->path)) == NULL) {
        return vex_error_set(error, VEX_ERR_INVALID, "unknown upkeep request");
    }
    if (body->kind == VEX_UPKEEP_BACKUP && body->path[0] == 0) {
        return vex_error_set(error, VEX_ERR_INVALID, "backup: no path given");
    }
    if (body->name[0] && (vex_name_fault(body->name, sizeof(body->name)) ||
                          !vex_registry_by_name(upkeep->registry, body->name))) {
        return vex_error_set(error, VEX_ERR_NO_COLLECTION, "no collection %.63s", body->name);
    }
    if (upkeep->quarantine) {
        return vex_error_set(error, VEX_ERR_CORRUPT,
                             "a collection is quarantined because its files are damaged; drop it, "
                             "or restore a backup, first");
    }
    if (upkeep->queue_count + upkeep->answers_count >= REQUESTS_MAX) {
        return vex_error_set(error, VEX_ERR_BUSY, "%u upkeep requests are waiting already",
                             REQUESTS_MAX);
    }
    struct request *request = &upkeep->queue[upkeep->queue_count++];
    request->ticket = upkeep->next_ticket++;
    request->body = *body;
    *out_ticket = request->ticket;
    return VEX_OK;
}

bool vex_upkeep_take_answer(struct vex_upkeep *upkeep, struct vex_upkeep_answer *out)
{
    if (upkeep->answers_count == 0) {
        return false;
    }
    *out = upkeep->answers[0];
    upkeep->answers_count--;
    memmove(&upkeep->answers[0], &upkeep->answers[1],
            upkeep->answers_count * sizeof(upkeep->answers[0]));
    return true;
}

static void begin_request(struct vex_upkeep *upkeep)
{
    const struct vex_upkeep_body *body = &upkeep->queue[0].body;
    upkeep->answer = (struct vex_upkeep_answer){0};
    upkeep->answer.done.segments_before = count_segments(upkeep, body->name);
    upkeep->stage_slot = 0;
    switch ((enum vex_upkeep_kind)body->kind) {
    case VEX_UPKEEP_COMPACT:
    case VEX_UPKEEP_ERASE:
        vex_registry_seal(upkeep->registry);
        upkeep->stage = STAGE_MERGES;
        break;
    case VEX_UPKEEP_CHECKPOINT:
    case VEX_UPKEEP_BACKUP:
        upkeep->stage = STAGE_FIRST;
        break;
    }
}

/* Starts with the next collection that has anything to merge. False if there is none left. */
static bool start_requested_merge(struct vex_upkeep *upkeep)
{
    const char *name = upkeep->queue[0].body.name;
    for (; upkeep->stage_slot < VEX_PLACES_MAX; upkeep->stage_slot++) {
        struct vex_merge_pick pick = {.collection =
                                          vex_registry_at(upkeep->registry, upkeep->stage_slot)};
        if (!pick.collection || (name[0] && strcmp(pick.collection->facts.name, name) != 0)) {
            continue;
        }
        pick.count = vex_merge_sealed_count(pick.collection);
        uint64_t dead = 0;
        for (uint32_t i = 0; i < pick.count; i++) {
            dead += pick.collection->homes[i]->dead_rows;
        }
        vex_merge_pick_plan(&pick);
        bool unsuited =
            pick.count == 1 && vex_index_is_due(&pick.collection->facts, pick.collection->homes[0]);
        if (pick.count > 1 || dead || unsuited) {
            upkeep->stage_slot++;
            start_merge(upkeep, &pick, true);
            return true;
        }
    }
    return false;
}

static void want_checkpoint(struct vex_upkeep *upkeep)
{
    upkeep->checkpoint_wanted = true;
}

/* The log file that holds what is to be erased must not be the one that goes on. Nor one that the log moved to by
 * itself: that may be used again, with what is to be erased as its old bytes. */
static void rotate(struct vex_upkeep *upkeep)
{
    struct vex_log *log = vex_store_log(upkeep->store);
    if (upkeep->rotating_from && vex_log_file_number(log) != upkeep->rotating_from) {
        upkeep->stage = STAGE_FIRST;
        want_checkpoint(upkeep);
        return;
    }
    if (!vex_log_rotate(log)) {
        if (vex_log_in_flight(log) || vex_log_has_staged(log)) {
            return; /* once more after the commit */
        }
        struct vex_error error;
        (void)vex_error_set(&error, VEX_ERR_NO_SPACE, "no room for a new log file");
        finish_request(upkeep, VEX_ERR_NO_SPACE, &error);
        return;
    }
    upkeep->rotating_from = vex_log_file_number(log);
    /* The next batch makes the change; without one staged or in flight, this is it. */
    (void)vex_log_watermark(log, true);
}

/* Starts what the request being carried out needs next. Its results lead to advance_request. */
static void step_request(struct vex_upkeep *upkeep)
{
    switch (upkeep->stage) {
    case STAGE_NONE:
        begin_request(upkeep);
        step_request(upkeep);
        break;
    case STAGE_MERGES:
        /* What the builder does may be ours, or claim segments that we want. */
        if (!is_building(upkeep) && !start_requested_merge(upkeep)) {
            upkeep->stage =
                upkeep->queue[0].body.kind == VEX_UPKEEP_ERASE ? STAGE_ROTATE : STAGE_FIRST;
            upkeep->rotating_from = 0;
            step_request(upkeep);
        }
        break;
    case STAGE_ROTATE:
        rotate(upkeep);
        break;
    case STAGE_FIRST:
    case STAGE_SECOND:
        want_checkpoint(upkeep);
        break;
    case STAGE_BACKUP:
        upkeep->backup = (struct backup_job){
            .store = upkeep->store,
            .path = upkeep->queue[0].body.path,
        };
        pin(upkeep, RUNNING_BACKUP);
        vex_worker_run(upkeep->worker, run_backup, &upkeep->backup);
        break;
    }
}

static void advance_request(struct vex_upkeep *upkeep, enum running what, enum vex_status status,
                            const struct vex_error *error)
{
    if (status != VEX_OK && !(what == RUNNING_MERGE && status == VEX_ERR_GONE)) {
        finish_request(upkeep, status, error);
        return;
    }
    uint32_t kind = upkeep->queue[0].body.kind;
    if (what == RUNNING_BACKUP) {
        upkeep->answer.done.lsn = upkeep->backup.lsn;
        upkeep->answer.done.bytes = upkeep->backup.bytes;
        finish_request(upkeep, VEX_OK, NULL);
    } else if (what == RUNNING_CHECKPOINT && upkeep->stage == STAGE_FIRST) {
        upkeep->stage = kind == VEX_UPKEEP_BACKUP ? STAGE_BACKUP : STAGE_SECOND;
        if (kind == VEX_UPKEEP_CHECKPOINT) {
            finish_request(upkeep, VEX_OK, NULL);
        }
    } else if (what == RUNNING_CHECKPOINT && upkeep->stage == STAGE_SECOND) {
        finish_request(upkeep, VEX_OK, NULL);
    }
}

/* ---- the turn -------------------------------------------------------------------------------- */

static void take_result(struct vex_upkeep *upkeep)
{
    enum running what = upkeep->running;
    struct vex_error error = {0};
    enum vex_status status = VEX_OK;
    bool requested = upkeep->stage != STAGE_NONE;
    switch (what) {
    case RUNNING_CHECKPOINT:
        status = end_checkpoint(upkeep, &error);
        break;
    case RUNNING_MERGE:
        requested = upkeep->merge.requested;
        status = end_merge(upkeep, &upkeep->merge, &error);
        break;
    case RUNNING_BACKUP:
        status = upkeep->backup.status;
        error = upkeep->backup.error;
        break;
    case RUNNING_RESERVE:
        break;
    case RUNNING_NOTHING:
    case RUNNING_TAKEN:
        VEX_ASSERT(false);
    }
    upkeep->running = RUNNING_NOTHING;
    if (requested && what != RUNNING_RESERVE) {
        advance_request(upkeep, what, status, &error);
    }
}

static void take_graph(struct vex_upkeep *upkeep, struct merging *build)
{
    struct vex_error error = {0};
    bool requested = build->requested && upkeep->stage != STAGE_NONE;
    enum vex_status status = end_merge(upkeep, build, &error);
    if (requested) {
        advance_request(upkeep, RUNNING_MERGE, status, &error);
    }
}

static void refuse_all(struct vex_upkeep *upkeep)
{
    struct vex_error error;
    (void)vex_error_os(&error, VEX_ERR_READ_ONLY, vex_log_failure(vex_store_log(upkeep->store)),
                       "the log failed, nothing is written until a restart");
    while (upkeep->queue_count) {
        finish_request(upkeep, VEX_ERR_READ_ONLY, &error);
    }
}

static void look_for_work(struct vex_upkeep *upkeep)
{
    if (reserve_is_due(upkeep)) {
        start_reserve(upkeep);
    } else if (checkpoint_is_due(upkeep)) {
        want_checkpoint(upkeep);
    } else if (upkeep->queue_count == 0) {
        /* A request waits until all builders are done, so nothing new is begun before it. */
        start_due_merge(upkeep, true);
    }
}

/* Graphs do not wait for the worker, whose checkpoints take long; only what was requested goes before them. */
static void look_for_graphs(struct vex_upkeep *upkeep)
{
    if (upkeep->now_ms != upkeep->looked_ms && upkeep->queue_count == 0 &&
        !vex_log_failure(vex_store_log(upkeep->store))) {
        upkeep->looked_ms = upkeep->now_ms;
        start_due_merge(upkeep, false);
    }
}

void vex_upkeep_turn(struct vex_upkeep *upkeep, uint64_t now_ms, bool busy)
{
    upkeep->now_ms = now_ms;
    if (busy) {
        upkeep->quiet_since_ms = now_ms;
    }
    vex_worker_set_polite(upkeep->worker, busy);
    /* While both have work, more is written than built: to rest would make it worse. */
    vex_worker_set_polite(upkeep->builders[LARGE], busy && !upkeep->builds[SMALL].running);
    if (vex_worker_finished(upkeep->worker)) {
        take_result(upkeep);
    }
    for (unsigned i = 0; i < BUILDERS; i++) {
        if (vex_worker_finished(upkeep->builders[i])) {
            take_graph(upkeep, &upkeep->builds[i]);
        }
    }
    if (upkeep->running == RUNNING_TAKEN) {
        start_taken(upkeep);
    }
    if (upkeep->running != RUNNING_NOTHING) {
        look_for_graphs(upkeep);
        return;
    }
    if (vex_log_failure(vex_store_log(upkeep->store))) {
        upkeep->checkpoint_wanted = false; /* no batch is sealed any more: that rest never comes */
        refuse_all(upkeep);
    } else if (upkeep->checkpoint_wanted) {
        return;
    } else if (upkeep->queue_count && !(upkeep->stage == STAGE_MERGES && is_building(upkeep))) {
        step_request(upkeep);
    } else if (now_ms != upkeep->looked_ms) { /* not in every turn: one may take 10 us */
        upkeep->looked_ms = now_ms;
        look_for_work(upkeep);
    }
}

/* ---- looking --------------------------------------------------------------------------------- */

static bool is_merging(const struct merging *merging, const struct vex_live_collection *collection)
{
    return merging->running && merging->claim.collection == collection;
}

static void look_at_merging(const struct vex_upkeep *upkeep, const struct merging *merging,
                            struct vex_index_body *out)
{
    for (uint32_t i = 0; i < merging->job.sources_count; i++) {
        out->build_rows += merging->job.sources[i]->writer.rows;
    }
    uint64_t ms = upkeep->now_ms - merging->started_ms;
    out->build_ms = ms > out->build_ms ? ms : out->build_ms;
}

static void look_at_home(const struct vex_collection_facts *facts, const struct vex_home *home,
                         struct vex_index_body *out)
{
    uint32_t rows = home->writer.rows;
    enum vex_index_fit fit = vex_index_fit_of_home(facts, home);
    out->segments++;
    out->rows += rows;
    out->segments_indexed += fit == VEX_FIT_ASKED;
    out->rows_indexed += fit == VEX_FIT_ASKED ? rows : 0;
    out->segments_other += fit == VEX_FIT_OTHER;
    out->rows_other += fit == VEX_FIT_OTHER ? rows : 0;
}

void vex_upkeep_index_status(const struct vex_upkeep *upkeep,
                             const struct vex_live_collection *collection,
                             struct vex_index_body *out)
{
    const struct vex_collection_facts *facts = &collection->facts;
    *out = (struct vex_index_body){
        .index = facts->index,
        .m = facts->m,
        .ef_construction = facts->ef_construction,
        .lists = facts->lists,
    };
    for (uint32_t i = 0; i < collection->homes_count; i++) {
        look_at_home(facts, collection->homes[i], out);
    }
    for (uint32_t i = 0; i < vex_merge_sealed_count(collection); i++) {
        out->segments_waiting += vex_index_is_due(facts, collection->homes[i]);
    }
    bool is_elsewhere = false;
    for (unsigned i = 0; i < BUILDERS; i++) {
        if (is_merging(&upkeep->builds[i], collection)) {
            look_at_merging(upkeep, &upkeep->builds[i], out);
        }
        is_elsewhere = is_elsewhere || upkeep->builds[i].running;
    }
    bool is_here = out->build_rows > 0;
    if (is_merging(&upkeep->merge, collection)) {
        look_at_merging(upkeep, &upkeep->merge, out);
    }
    out->busy_elsewhere = is_elsewhere && !is_here;
}

void vex_upkeep_get_counters(const struct vex_upkeep *upkeep, struct vex_upkeep_counters *out)
{
    *out = upkeep->counters;
    out->running = 0;
    if (upkeep->running == RUNNING_TAKEN || upkeep->running == RUNNING_CHECKPOINT ||
        upkeep->running == RUNNING_RESERVE) {
        out->running = VEX_UPKEEP_CHECKPOINT;
    } else if (upkeep->running == RUNNING_MERGE || is_building(upkeep)) {
        out->running = VEX_UPKEEP_COMPACT;
    } else if (upkeep->running == RUNNING_BACKUP) {
        out->running = VEX_UPKEEP_BACKUP;
    }
}
