#include "tests/crash/explore_steps.h"

#include <string.h>

#include "base/error.h"

#define STAGED_MAX 5u
#define BODY_BYTES_MAX (2048u * 8u)

static uint16_t type_of(uint64_t lsn)
{
    return (uint16_t)(1 + lsn * 7 % 1000);
}

static void mark(struct explore_life *life, uint64_t kind, uint64_t value)
{
    vex_io_sim_mark(life->io, kind, value);
}

/* ---- living ---------------------------------------------------------------------------------- */

void explore_begin(struct explore_life *life, uint64_t last_lsn)
{
    life->model->bounds.acked = life->model->bounds.submitted = last_lsn;
    life->model->life++;
    vex_io_sim_set_errors(life->io, life->model->error_odds);
    mark(life, EXPLORE_MARK_SUBMITTED, last_lsn);
    mark(life, EXPLORE_MARK_ACKED, last_lsn);
}

/* What the log calls durable is a promise from the moment it says so. */
static void note_durable(struct explore_life *life)
{
    uint64_t durable = vex_log_durable_lsn(life->log);
    if (durable != life->model->bounds.acked) {
        life->model->bounds.acked = durable;
        mark(life, EXPLORE_MARK_ACKED, durable);
    }
}

static void poll_log(struct explore_life *life, bool wait)
{
    if (!vex_log_poll(life->log, wait)) {
        return;
    }
    if (vex_log_failure(life->log) && life->model->error_odds == 0) {
        explore_fail("I5", "the log latched with errno %d, but the disk is fine",
                     vex_log_failure(life->log));
    }
    note_durable(life);
    if (!vex_log_failure(life->log)) {
        mark(life, EXPLORE_MARK_SETTLED, 0);
    }
}

static void commit(struct explore_life *life)
{
    if (!vex_log_in_flight(life->log) && vex_log_has_staged(life->log)) {
        life->model->bounds.submitted = vex_log_next_lsn(life->log) - 1;
        mark(life, EXPLORE_MARK_SUBMITTED, life->model->bounds.submitted);
        (void)vex_log_commit(life->log);
        note_durable(life);
    }
}

void explore_settle(struct explore_life *life)
{
    while ((vex_log_in_flight(life->log) || vex_log_has_staged(life->log)) &&
           !vex_log_failure(life->log)) {
        commit(life);
        poll_log(life, true);
    }
}

static void stage(struct explore_life *life)
{
    static uint64_t body[BODY_BYTES_MAX / 8];
    uint64_t lsn = vex_log_next_lsn(life->log);
    size_t bytes = explore_body_bytes(life->model->life, lsn);
    struct vex_error error = {.status = VEX_OK};
    if (lsn > EXPLORE_LSN_MAX) {
        return;
    }
    bool small = vex_random_once_in(life->random, 4);
    enum vex_status status = vex_log_room(life->log, bytes, small, &error);
    if (status == VEX_ERR_BUSY) {
        explore_settle(life);
        status = vex_log_room(life->log, bytes, small, &error);
    }
    if (status != VEX_OK && life->model->error_odds) {
        return;
    }
    if (status != VEX_OK) {
        explore_fail("I5", "no room for %zu bytes: %s", bytes, error.message);
    }
    for (size_t at = 0; at < bytes; at += 8) {
        body[at / 8] = explore_word(life->model->life, lsn, at);
    }
    life->model->lives[lsn] = life->model->life;
    struct vex_log_piece piece = {body, bytes};
    (void)vex_log_stage(life->log, type_of(lsn), &piece, 1);
}

void explore_watermark(struct explore_life *life, bool clean)
{
    explore_settle(life);
    if (clean) {
        life->model->bounds.clean = vex_log_durable_lsn(life->log);
        mark(life, EXPLORE_MARK_CLEAN, life->model->bounds.clean);
    }
    if (vex_log_watermark(life->log, clean)) {
        poll_log(life, true);
    }
}

void explore_step(struct explore_life *life)
{
    uint64_t records = 1 + vex_random_below(life->random, STAGED_MAX);
    for (uint64_t i = 0; i < records; i++) {
        stage(life);
    }
    commit(life);
    if (vex_random_once_in(life->random, 16)) {
        (void)vex_log_rotate(life->log);
    }
    switch (vex_random_below(life->random, 8)) {
    case 0:
        explore_watermark(life, false);
        break;
    case 1:
        explore_settle(life);
        break;
    case 2:
    case 3:
        poll_log(life, false);
        break;
    default:
        poll_log(life, true);
        break;
    }
}

/* ---- checking -------------------------------------------------------------------------------- */

void explore_check_record(const struct explore_model *model, uint64_t lsn, uint16_t type,
                          const uint8_t *body, size_t bytes)
{
    if (lsn > model->bounds.submitted) {
        explore_fail("I2", "LSN %llu was never submitted", (unsigned long long)lsn);
    }
    uint32_t life = model->lives[lsn];
    bool same = bytes == explore_body_bytes(life, lsn) && type == type_of(lsn);
    for (size_t at = 0; same && at < bytes; at += 8) {
        uint64_t word;
        memcpy(&word, body + at, sizeof(word));
        same = word == explore_word(life, lsn, at);
    }
    if (!same) {
        explore_fail("I2", "LSN %llu is not what life %u wrote", (unsigned long long)lsn, life);
    }
}

void explore_check_recovery(const struct explore_bounds *bounds,
                            const struct vex_log_recovery *found)
{
    if (found->last_lsn < bounds->acked) {
        explore_fail("I1", "LSN %llu was acknowledged, the log ends at %llu",
                     (unsigned long long)bounds->acked, (unsigned long long)found->last_lsn);
    }
    if (found->last_lsn > bounds->submitted) {
        explore_fail("I2", "LSN %llu was submitted last, the log ends at %llu",
                     (unsigned long long)bounds->submitted, (unsigned long long)found->last_lsn);
    }
    if (found->clean && found->last_lsn != bounds->clean && bounds->clean != EXPLORE_ANY_LSN) {
        explore_fail("I2", "reported as stopped in order at LSN %llu",
                     (unsigned long long)found->last_lsn);
    }
}

/* ---- damaging -------------------------------------------------------------------------------- */

/* Since when the file has had its name: before that it may have been another file of the log. */
static size_t named_at(struct vex_io *recorded, size_t position, uint32_t node)
{
    size_t at = 0;
    for (size_t i = 0; i < position; i++) {
        const struct vex_sim_op *op = vex_io_sim_op(recorded, i);
        at = op->kind == VEX_SIM_RENAME && op->node == node ? i : at;
    }
    return at;
}

static bool is_log_file(struct vex_io *recorded, size_t position, uint32_t node)
{
    for (size_t i = 0; i < position; i++) {
        const struct vex_sim_op *op = vex_io_sim_op(recorded, i);
        if (op->kind == VEX_SIM_SUBMIT && op->node == node) {
            return true;
        }
    }
    return false;
}

/* A durable write that was reaped with success, or an end mark, which is written and synced. */
static bool is_lasting(struct vex_io *recorded, size_t position, size_t index,
                       struct explore_write *out)
{
    const struct vex_sim_op *op = vex_io_sim_op(recorded, index);
    if (op->kind == VEX_SIM_COMPLETE && op->result > 0) {
        *out = (struct explore_write){op->node, vex_io_sim_op(recorded, op->submitted)->offset,
                                      (uint64_t)op->result};
        return true;
    }
    if (op->kind == VEX_SIM_WRITE && op->data && op->offset > 0 &&
        is_log_file(recorded, position, op->node)) {
        *out = (struct explore_write){op->node, op->offset, op->bytes};
        return true;
    }
    return false;
}

bool explore_followed_write(struct vex_io *recorded, size_t position, struct vex_random *random,
                            struct explore_write *out_write, struct explore_write *out_last)
{
    size_t settled = 0;
    size_t before = 0;
    for (size_t i = 0; i < position; i++) {
        const struct vex_sim_op *op = vex_io_sim_op(recorded, i);
        if (op->kind == VEX_SIM_MARK && op->mark == EXPLORE_MARK_SETTLED) {
            before = settled;
            settled = i;
        }
    }
    uint64_t seen = 0;
    struct explore_write write;
    for (size_t i = 0; i < position; i++) {
        if (!is_lasting(recorded, position, i, &write)) {
            continue;
        }
        *out_last = write;
        if (i < before && i > named_at(recorded, position, write.node) &&
            vex_random_once_in(random, ++seen)) {
            *out_write = write;
        }
    }
    return seen > 0;
}
