/*
 * The log alone under the crash explorer: stage, commit, watermark, restart, in files as small as they can
 * be, so that most batches meet the end of one.
 */
#include <string.h>

#include "base/error.h"
#include "ioengine/log.h"
#include "ioengine/log_scan.h"
#include "ioengine/record.h"
#include "tests/crash/explore.h"
#include "tests/crash/explore_steps.h"

#define BLOCK VEX_BLOCK_BYTES
#define FIRST_PATH VEX_LOG_DIRECTORY "/00000001.log"

static struct vex_io_buffer buffers[VEX_LOG_BUFFERS];
static const uint8_t uuid[VEX_LOG_UUID_BYTES] = "an instance uuid";

/* ---- recovering ------------------------------------------------------------------------------ */

struct replayed {
    const struct explore_model *model;
    uint64_t count;
};

static enum vex_status replay(void *context, uint64_t lsn, uint16_t type, const uint8_t *body,
                              size_t bytes, struct vex_error *error)
{
    struct replayed *replayed = context;
    (void)error;
    if (lsn != ++replayed->count) {
        explore_fail("I2", "LSN %llu is replayed as number %llu", (unsigned long long)lsn,
                     (unsigned long long)replayed->count);
    }
    explore_check_record(replayed->model, lsn, type, body, bytes);
    return VEX_OK;
}

/* NULL if it is refused as damaged. */
static struct vex_log *try_open(struct vex_io *io, const struct explore_model *model,
                                struct vex_log_recovery *out_found, struct vex_error *error)
{
    struct replayed replayed = {.model = model};
    struct vex_log *log = NULL;
    /* In the store the manifest says whether there is a log. */
    size_t bytes;
    const struct vex_log_options options = {
        .uuid = uuid,
        .file_bytes_min = 3 * BLOCK,
        .file_bytes_max = 8 * BLOCK,
        .start = {.file_number = vex_io_sim_bytes(io, FIRST_PATH, &bytes) ? 1 : 0}};
    enum vex_status status =
        vex_log_open(io, buffers, &options, replay, &replayed, &log, out_found, error);
    if (status == VEX_ERR_CORRUPT) {
        return NULL;
    }
    if (status != VEX_OK) {
        explore_fail("I1", "recovery fails: %s", error->message);
    }
    if (out_found->last_lsn != replayed.count || out_found->records != replayed.count) {
        explore_fail("I2", "%llu records replayed, but %llu up to LSN %llu reported",
                     (unsigned long long)replayed.count, (unsigned long long)out_found->records,
                     (unsigned long long)out_found->last_lsn);
    }
    explore_check_recovery(&model->bounds, out_found);
    return log;
}

static struct vex_log *open_log(struct vex_io *io, const struct explore_model *model,
                                struct vex_log_recovery *out_found)
{
    struct vex_error error = {.status = VEX_OK};
    struct vex_log *log = try_open(io, model, out_found, &error);
    if (!log) {
        explore_fail("I1", "recovery refuses: %s", error.message);
    }
    return log;
}

static void check(struct vex_io *io, const struct explore_model *model,
                  struct explore_found *out_found)
{
    struct vex_log_recovery found;
    struct vex_log *log = open_log(io, model, &found);
    if (vex_log_durable_lsn(log) != found.last_lsn || vex_log_next_lsn(log) != found.last_lsn + 1 ||
        vex_log_in_flight(log) || vex_log_failure(log)) {
        explore_fail("I2", "the open log is not where recovery ended");
    }
    vex_log_close(log);
    *out_found = (struct explore_found){found.last_lsn, found.torn_tails};
}

/* ---- living ---------------------------------------------------------------------------------- */

static void begin_life(struct explore_life *life)
{
    struct vex_log_recovery found;
    life->log = open_log(life->io, life->model, &found);
    explore_begin(life, found.last_lsn);
}

static void end_life(struct explore_life *life)
{
    if (vex_random_once_in(life->random, 2)) {
        explore_watermark(life, true);
    }
    vex_log_close(life->log); /* which may still wait for a batch */
}

static void live(struct vex_io *io, struct explore_model *model, struct vex_random *random,
                 unsigned steps)
{
    struct explore_life life = {io, NULL, model, random};
    begin_life(&life);
    for (unsigned i = 0; i < steps; i++) {
        explore_step(&life);
        if (vex_random_once_in(random, 16) && model->error_odds == 0) {
            end_life(&life);
            begin_life(&life);
        }
    }
    end_life(&life);
}

/* ---- damage ---------------------------------------------------------------------------------- */

static enum explore_verdict damage(struct vex_io *image, const struct explore_model *model,
                                   struct vex_io *recorded, size_t position,
                                   struct vex_random *random, char out_what[160])
{
    (void)model;
    struct explore_write write;
    struct explore_write last = {0};
    char path[64];
    if (!explore_followed_write(recorded, position, random, &write, &last) ||
        !vex_io_sim_path(image, write.node, path, sizeof(path))) {
        return EXPLORE_NOTHING_DAMAGED;
    }
    uint64_t kind = vex_random_below(random, 8);
    if (kind == 0 && (write.node != last.node || strcmp(path, FIRST_PATH) != 0)) {
        (void)snprintf(out_what, 160, "%s is missing", path);
        return vex_io_sim_drop(image, path) ? EXPLORE_MUST_REFUSE : EXPLORE_NOTHING_DAMAGED;
    }
    size_t bytes = 0;
    uint8_t *data = vex_io_sim_bytes(image, path, &bytes);
    uint64_t offset = write.offset;
    uint64_t within = vex_random_below(random, write.bytes);
    if (kind == 1) {
        uint64_t bit = vex_random_below(random, sizeof(struct vex_log_header) * 8);
        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        (void)snprintf(out_what, 160, "%s: bit %llu of the header is flipped", path,
                       (unsigned long long)bit);
    } else if (kind <= 3) {
        memset(data + (offset + within) / BLOCK * BLOCK, 0, BLOCK);
        (void)snprintf(out_what, 160, "%s: the block at %llu is zero", path,
                       (unsigned long long)((offset + within) / BLOCK * BLOCK));
    } else {
        data[offset + within] ^= (uint8_t)(1u << vex_random_below(random, 8));
        (void)snprintf(out_what, 160, "%s: a bit at %llu is flipped", path,
                       (unsigned long long)(offset + within));
    }
    return EXPLORE_MUST_REFUSE;
}

static bool recovers(struct vex_io *io, const struct explore_model *model,
                     struct vex_error *out_refusal)
{
    struct vex_log_recovery found;
    struct vex_log *log = try_open(io, model, &found, out_refusal);
    vex_log_close(log);
    return log != NULL;
}

static void repair(struct vex_io *io, const struct explore_model *model)
{
    const struct vex_log_start start = {.file_number = 1};
    struct vex_log_scan_result sound;
    struct vex_log_repair_report report;
    struct vex_error error = {.status = VEX_OK};
    (void)vex_log_scan(io, uuid, &start, NULL, &sound, &error);
    if (vex_log_repair(io, uuid, &start, &report, &error) != VEX_OK || !report.changed) {
        explore_fail("I6", "repair does not help: %s", error.message);
    }
    struct explore_model less = *model;
    less.bounds.acked = 0;
    less.bounds.clean = EXPLORE_ANY_LSN;
    struct vex_log_recovery found;
    struct vex_log *log = open_log(io, &less, &found);
    vex_log_close(log);
    uint64_t known = report.last_lsn + report.lost_lsns;
    if (report.last_lsn < sound.last_lsn) {
        explore_fail("I6", "repaired up to LSN %llu, though all is sound up to %llu",
                     (unsigned long long)report.last_lsn, (unsigned long long)sound.last_lsn);
    }
    if (found.last_lsn != report.last_lsn || known > model->bounds.submitted ||
        (!report.more_possible && known < model->bounds.acked)) {
        explore_fail("I6",
                     "repaired up to LSN %llu with %llu lost, opened up to %llu, of %llu "
                     "acknowledged",
                     (unsigned long long)report.last_lsn, (unsigned long long)report.lost_lsns,
                     (unsigned long long)found.last_lsn, (unsigned long long)model->bounds.acked);
    }
}

int main(int argc, char **argv)
{
    static const struct explore_app app = {
        .name = "explore_log",
        .steps = 24,
        .depth_two_one_in = 200,
        .check = check,
        .live = live,
        .damage = damage,
        .recovers = recovers,
        .repair = repair,
    };
    struct vex_error error;
    if (vex_log_buffers_init(buffers, &error) != VEX_OK) {
        return 2;
    }
    int result = explore_main(argc, argv, &app);
    vex_log_buffers_deinit(buffers);
    return result;
}
