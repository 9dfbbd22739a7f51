/*
 * What the explorer's applications do with a log, and the marks they leave in the disk's record meanwhile.
 */
#ifndef VEX_TESTS_CRASH_EXPLORE_STEPS_H
#define VEX_TESTS_CRASH_EXPLORE_STEPS_H

#include "ioengine/log.h"
#include "tests/crash/explore.h"

struct explore_life {
    struct vex_io *io;
    struct vex_log *log;
    struct explore_model *model;
    struct vex_random *random;
};

/* A life begins behind `last_lsn`, which recovery found. */
void explore_begin(struct explore_life *life, uint64_t last_lsn);
/* Stages a few records, commits if it can, and perhaps waits, or writes a watermark. */
void explore_step(struct explore_life *life);
/* Commits and waits until nothing is on its way. */
void explore_settle(struct explore_life *life);
void explore_watermark(struct explore_life *life, bool clean);

/* A record that recovery replays. */
void explore_check_record(const struct explore_model *model, uint64_t lsn, uint16_t type,
                          const uint8_t *body, size_t bytes);
/* What recovery says about the log as a whole. */
void explore_check_recovery(const struct explore_bounds *bounds,
                            const struct vex_log_recovery *found);
/* A range of a log file. */
struct explore_write {
    uint32_t node;
    uint64_t offset;
    uint64_t bytes;
};
/* A write that is durable and that another batch followed, both of them before operation `position` and since
 * its file got its present name: one at random; false if there is none. *out_last: the last durable write. */
bool explore_followed_write(struct vex_io *recorded, size_t position, struct vex_random *random,
                            struct explore_write *out_write, struct explore_write *out_last);

#endif
