/*
 * The store under the crash explorer: a toy map (explore_store.h) lives on log, checkpoints, trimming and
 * backups. Checkpoints, trimming and backups run on a second thread, so that they fall anywhere between the
 * log's own operations.
 *
 * Beyond what the log's explorer checks: a checkpoint that was reported as made is the one restored, the map
 * it gives is the map of its LSN, nothing falls back without damage, a backup that has its name is whole, and
 * the offline check finds nothing wrong after a crash and something wrong after damage.
 */
#include "tests/crash/explore_store.h"

#include <pthread.h>
#include <string.h>

#include "base/error.h"
#include "tests/crash/explore_steps.h"

#define BLOCK VEX_BLOCK_BYTES
#define BACKUPS_MAX 63u

static struct vex_io_buffer buffers[VEX_LOG_BUFFERS];
static const struct vex_store_options options = {
    .log_file_bytes_min = 4 * BLOCK, .log_file_bytes_max = 6 * BLOCK, .reserve_bytes = BLOCK};

/* ---- recovering ------------------------------------------------------------------------------ */

struct recovering {
    const struct explore_model *model;
    struct toy_opened *opened;
    bool is_restored;
};

static void compare_maps(const struct toy_map *found, const struct explore_model *model,
                         const char *what)
{
    struct toy_map expected = toy_at(model, found->lsn);
    if (memcmp(&expected, found, sizeof(expected)) != 0) {
        explore_fail("I2", "%s is not the map at LSN %llu", what, (unsigned long long)found->lsn);
    }
}

static enum vex_status restore(void *context, struct vex_store *store, uint64_t lsn,
                               const uint8_t *body, size_t bytes, struct vex_error *error)
{
    struct recovering *recovering = context;
    struct toy_saved *saved = &recovering->opened->saved;
    recovering->is_restored = false;
    if (lsn > recovering->model->bounds.submitted) {
        explore_fail("I2", "a checkpoint at LSN %llu, which was never submitted",
                     (unsigned long long)lsn);
    }
    enum vex_status status = toy_load(saved, store, lsn, body, bytes, error);
    if (status != VEX_OK) {
        return status;
    }
    compare_maps(&saved->map, recovering->model, "the checkpoint");
    recovering->opened->map = saved->map;
    recovering->is_restored = true;
    return VEX_OK;
}

static enum vex_status replay(void *context, uint64_t lsn, uint16_t type, const uint8_t *body,
                              size_t bytes, struct vex_error *error)
{
    struct recovering *recovering = context;
    struct toy_map *map = &recovering->opened->map;
    (void)error;
    if (!recovering->is_restored || lsn != map->lsn + 1) {
        explore_fail("I2", "LSN %llu is replayed behind LSN %llu", (unsigned long long)lsn,
                     (unsigned long long)map->lsn);
    }
    explore_check_record(recovering->model, lsn, type, body, bytes);
    toy_apply(map, recovering->model->lives[lsn], lsn);
    return VEX_OK;
}

void toy_open(struct vex_io *io, const struct explore_model *model, bool is_backup,
              struct toy_opened *out)
{
    *out = (struct toy_opened){.error = {.status = VEX_OK}};
    struct recovering recovering = {model, out, false};
    const struct vex_store_state state = {&recovering, restore, replay};
    enum vex_status status =
        vex_store_open(io, buffers, &options, &state, &out->store, &out->found, &out->error);
    if (status == VEX_ERR_CORRUPT) {
        return;
    }
    if (status != VEX_OK) {
        explore_fail("I1", "recovery fails: %s", out->error.message);
    }
    const struct vex_store_recovery *found = &out->found;
    if (found->log.last_lsn != out->map.lsn || found->checkpoint_lsn != out->saved.map.lsn) {
        explore_fail(
            "I2", "restored up to LSN %llu and replayed up to %llu, but %llu and %llu reported",
            (unsigned long long)out->saved.map.lsn, (unsigned long long)out->map.lsn,
            (unsigned long long)found->checkpoint_lsn, (unsigned long long)found->log.last_lsn);
    }
    compare_maps(&out->map, model, "what was recovered");
    if (!is_backup) {
        explore_check_recovery(&model->bounds, &found->log);
    }
}

static void open_or_fail(struct vex_io *io, const struct explore_model *model, bool is_backup,
                         struct toy_opened *out)
{
    toy_open(io, model, is_backup, out);
    if (!out->store) {
        explore_fail("I1", "recovery refuses: %s", out->error.message);
    }
    if (model->is_damaged) {
        return;
    }
    if (out->found.fell_back) {
        explore_fail("I7", "fell back without damage: %s", out->found.fault.message);
    }
    if (!is_backup && out->found.checkpoint_lsn < model->bounds.checkpoint) {
        explore_fail("I1", "the checkpoint at LSN %llu was made, the one at %llu is restored",
                     (unsigned long long)model->bounds.checkpoint,
                     (unsigned long long)out->found.checkpoint_lsn);
    }
}

static void check(struct vex_io *io, const struct explore_model *model,
                  struct explore_found *out_found)
{
    struct toy_opened opened;
    open_or_fail(io, model, false, &opened);
    const struct vex_log *log = vex_store_log(opened.store);
    if (vex_log_durable_lsn(log) != opened.map.lsn || vex_log_next_lsn(log) != opened.map.lsn + 1) {
        explore_fail("I2", "the open log is not where recovery ended");
    }
    vex_store_close(opened.store);
    *out_found = (struct explore_found){opened.found.log.last_lsn, opened.found.log.torn_tails};
}

static bool recovers(struct vex_io *io, const struct explore_model *model,
                     struct vex_error *out_refusal)
{
    struct toy_opened opened;
    toy_open(io, model, false, &opened);
    vex_store_close(opened.store);
    *out_refusal = opened.error;
    return opened.store != NULL;
}

/* ---- backups and the offline check ----------------------------------------------------------- */

static void backup_path(char out_path[32], uint32_t number)
{
    (void)snprintf(out_path, 32, "backup-%u", number);
}

static void check_backups(struct vex_io *io, const struct explore_model *model)
{
    for (uint32_t i = 0; i < model->backups_tried; i++) {
        char path[32];
        backup_path(path, i);
        struct vex_io *backup = vex_io_sim_clone_below(io, path);
        if (!backup) {
            if (model->bounds.backups >> i & 1) {
                explore_fail("I1", "%s was made and is not there", path);
            }
            continue;
        }
        struct toy_opened opened;
        open_or_fail(backup, model, true, &opened);
        if (opened.map.lsn != opened.saved.map.lsn) {
            explore_fail("I2", "%s has records behind its checkpoint", path);
        }
        vex_store_close(opened.store);
        backup->ops->close(backup);
    }
}

static void report(void *context, enum vex_status status, const char *path, const char *text)
{
    if (status != VEX_OK) {
        (void)snprintf(context, 256, "%s: %s", path, text);
    }
}

static void check_more(struct vex_io *io, const struct explore_model *model)
{
    char finding[256] = "";
    struct vex_error error = {.status = VEX_OK};
    if (vex_store_check(io, report, finding, &error) != VEX_OK) {
        explore_fail("I7", "the offline check finds fault after a crash: %s", finding);
    }
    check_backups(io, model);
}

/* ---- the other thread ------------------------------------------------------------------------ */

struct worker {
    struct vex_io *io;
    struct vex_store *store;
    struct explore_model *model;
    struct vex_random random;
    struct vex_store_cut cut;
    struct toy_map map;
    struct toy_saved saved; /* by the last checkpoint */
    pthread_t thread;
    bool is_running;
    bool is_over;
};

static void try_backup(struct worker *worker)
{
    if (worker->model->backups_tried == BACKUPS_MAX) {
        return;
    }
    uint32_t number = worker->model->backups_tried++;
    char path[32];
    backup_path(path, number);
    struct vex_error error = {.status = VEX_OK};
    uint64_t lsn = 0;
    uint64_t bytes = 0;
    if (!toy_worked(vex_store_backup(worker->store, path, NULL, &lsn, &bytes, &error), &error,
                    worker->model, "a backup")) {
        return;
    }
    if (lsn != worker->cut.lsn) {
        explore_fail("I2", "a backup up to LSN %llu, the newest checkpoint is at %llu",
                     (unsigned long long)lsn, (unsigned long long)worker->cut.lsn);
    }
    vex_io_sim_mark(worker->io, EXPLORE_MARK_BACKUP, number);
}

static void *work(void *argument)
{
    struct worker *worker = argument;
    struct vex_error error = {.status = VEX_OK};
    uint64_t whim = vex_random_next(&worker->random);
    if (toy_save(worker->store, worker->model, &worker->cut, &worker->map, whim % 4 == 0,
                 &worker->saved)) {
        vex_io_sim_mark(worker->io, EXPLORE_MARK_CHECKPOINT, worker->cut.lsn);
        worker->model->bounds.checkpoint = worker->cut.lsn;
        if ((whim >> 24) % 4 == 0) {
            try_backup(worker);
        }
    }
    if ((whim >> 8) % 4 != 0) {
        (void)toy_worked(vex_store_trim(worker->store, (whim >> 16) % 3 != 0, NULL, 0, &error),
                         &error, worker->model, "trimming");
    }
    vex_store_refill_reserve(worker->store);
    worker->is_over = true;
    return NULL;
}

static void join_worker(struct worker *worker)
{
    if (worker->is_running) {
        (void)pthread_join(worker->thread, NULL);
        worker->is_running = false;
    }
}

/* ---- living ---------------------------------------------------------------------------------- */

struct toy_life {
    struct explore_life life;
    struct worker worker;
    bool has_cut; /* taken, not used yet: its batch may not be durable */
};

static void begin_life(struct toy_life *toy)
{
    struct toy_opened opened;
    open_or_fail(toy->life.io, toy->life.model, false, &opened);
    toy->life.log = vex_store_log(opened.store);
    toy->worker = (struct worker){
        .io = toy->life.io,
        .store = opened.store,
        .model = toy->life.model,
        .random = vex_random_seeded(vex_random_next(toy->life.random)),
        .saved = opened.saved,
    };
    toy->has_cut = false;
    explore_begin(&toy->life, opened.map.lsn);
}

static void end_life(struct toy_life *toy)
{
    join_worker(&toy->worker);
    if (vex_random_once_in(toy->life.random, 2)) {
        explore_watermark(&toy->life, true);
    }
    vex_store_close(toy->worker.store);
}

static void take_cut(struct toy_life *toy)
{
    struct worker *worker = &toy->worker;
    if (vex_log_has_staged(toy->life.log) || worker->is_running) {
        return;
    }
    struct vex_store_cut cut = vex_store_take_cut(worker->store);
    if (cut.lsn > toy->life.model->bounds.checkpoint) {
        worker->cut = cut;
        worker->map = toy_at(toy->life.model, cut.lsn);
        toy->has_cut = true;
    }
}

static void use_cut(struct toy_life *toy)
{
    struct worker *worker = &toy->worker;
    if (worker->is_running && worker->is_over) {
        join_worker(worker);
    }
    if (toy->has_cut && !worker->is_running &&
        vex_log_durable_lsn(toy->life.log) >= worker->cut.lsn) {
        toy->has_cut = false;
        worker->is_over = false;
        worker->is_running = pthread_create(&worker->thread, NULL, work, worker) == 0;
    }
}

static void live(struct vex_io *io, struct explore_model *model, struct vex_random *random,
                 unsigned steps)
{
    struct toy_life toy = {.life = {io, NULL, model, random}};
    begin_life(&toy);
    for (unsigned i = 0; i < steps; i++) {
        explore_step(&toy.life);
        if (!toy.has_cut && vex_random_once_in(random, 3)) {
            take_cut(&toy);
        }
        use_cut(&toy);
        if (vex_random_once_in(random, 24) && model->error_odds == 0) {
            end_life(&toy);
            begin_life(&toy);
        }
    }
    end_life(&toy);
}

int main(int argc, char **argv)
{
    static const struct explore_app app = {
        .name = "explore_store",
        .steps = 36,
        .depth_two_one_in = 1500,
        .check = check,
        .check_more = check_more,
        .live = live,
        .damage = toy_damage,
        .recovers = recovers,
    };
    struct vex_error error;
    if (vex_log_buffers_init(buffers, &error) != VEX_OK) {
        return 2;
    }
    int result = explore_main(argc, argv, &app);
    vex_log_buffers_deinit(buffers);
    return result;
}
