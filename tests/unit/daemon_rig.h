/*
 * A coordinator in this process with a model beside it: what the tests of the daemon's storage side share.
 *
 * The rig plays the server: it commits, polls, gives upkeep its turns and collects answers. Time is the
 * rig's own, so that pauses cost nothing. Every mutation that was staged is noted under its LSN, so the
 * state at any LSN can be told; what is published is read as a client would, through the control region
 * and the segments, and compared with it.
 *
 * A row's payload follows from its id and value; some rows have none.
 */
#ifndef VEX_TESTS_UNIT_DAEMON_RIG_H
#define VEX_TESTS_UNIT_DAEMON_RIG_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/coordinator.h"
#include "tests/lib/io_fault.h"
#include "tests/lib/temp_dir.h"

#define RIG_NAMES 3u /* collections "a", "b" and "c", one of each metric */
#define RIG_IDS 1024u
#define RIG_DIM 64u
#define RIG_BATCH 32u
#define RIG_STEPS_MAX 8192u
#define RIG_TURNS_MS 120000u /* what takes longer in real time has got stuck */

enum rig_what { RIG_CREATE, RIG_DROP, RIG_ALTER, RIG_PUT, RIG_DELETE };

/* One mutation. Values are not 0; of an alter it is what is asked for, up to 4000. */
struct rig_step {
    enum rig_what what;
    uint32_t name; /* below RIG_NAMES */
    uint32_t first_id;
    uint32_t count; /* up to RIG_BATCH */
    uint32_t value;
};

struct rig_model {
    bool exists[RIG_NAMES];
    uint32_t asked[RIG_NAMES];           /* by the last alter; 0 = there was none */
    uint32_t values[RIG_NAMES][RIG_IDS]; /* 0 = absent */
};

struct rig {
    struct vex_temp_dir directory;
    struct vex_coordinator_options options;
    struct vex_coordinator *coordinator;
    uint8_t key[16];
    struct vex_io *disk; /* the vex_io_fault in front, if there is one */
    struct vex_io *disk_behind;
    vex_io_decide decide;
    void *decide_context;
    uint64_t now_ms;
    uint32_t ids[RIG_NAMES];                /* of the collections */
    struct rig_step history[RIG_STEPS_MAX]; /* by LSN - 1 */
    uint64_t staged_lsn;
    uint64_t acknowledged_lsn;
    struct vex_upkeep_answer answers[64];
    unsigned answers_count;
};

void rig_make(struct rig *rig);
/* Also in a child: what the rig made goes when an assertion ends the process. */
void rig_guard(struct rig *rig);
/* Stops it if it runs; fails if it left shared memory behind. */
void rig_remove(struct rig *rig);

/* From the next start on, the disk fails as `decide` says. */
void rig_weaken(struct rig *rig, vex_io_decide decide, void *context);
enum vex_status rig_open(struct rig *rig, struct vex_error *error);
void rig_start(struct rig *rig); /* must work */
void rig_stop(struct rig *rig);

/* Stages a mutation, making room in the log if it must. OK: it is in the history. */
enum vex_status rig_stage(struct rig *rig, const struct rig_step *step, struct vex_error *error);
/* Several batches, each of which must be taken. */
void rig_put(struct rig *rig, uint32_t name, uint32_t first_id, uint32_t count, uint32_t value);
void rig_delete(struct rig *rig, uint32_t name, uint32_t first_id, uint32_t count);
void rig_create(struct rig *rig, uint32_t name);
void rig_drop(struct rig *rig, uint32_t name);
void rig_alter(struct rig *rig, uint32_t name, uint32_t value);

/* One turn of the loop. */
void rig_turn(struct rig *rig);
/* Commits until nothing is staged or in flight, without a turn for upkeep. */
void rig_commit(struct rig *rig);
/* Turns until no job runs and none is due at this time. */
void rig_rest(struct rig *rig);
/* Lets `ms` pass in silence, then rests. */
void rig_pass(struct rig *rig, uint64_t ms);

struct vex_stats_body rig_stats(const struct rig *rig);

enum vex_status rig_ask(struct rig *rig, enum vex_upkeep_kind kind, const char *name,
                        const char *path, uint64_t *out_ticket, struct vex_error *error);
/* The answer to a ticket, with turns until it comes. */
struct vex_upkeep_answer rig_await(struct rig *rig, uint64_t ticket);
/* Asks and waits; must be OK. */
struct vex_upkeep_answer rig_do(struct rig *rig, enum vex_upkeep_kind kind, const char *name);

void rig_model_at(const struct rig *rig, uint64_t lsn, struct rig_model *out);
/* What is published is the model at the published LSN; with `all`, nothing staged is missing. */
void rig_expect(struct rig *rig, bool all);
/* How many segments the published list of a collection has. */
uint32_t rig_segments(const struct rig *rig, uint32_t name);
/* After a start: no less than was acknowledged, no more than was staged, each record whole. What was not there
 * is not in the history any more. */
void rig_expect_recovered(struct rig *rig);
/* Files in a directory of the instance whose names end so. */
unsigned rig_count_files(const struct rig *rig, const char *directory, const char *suffix);
/* Regions of shared memory under this instance's key. */
unsigned rig_count_shared(const struct rig *rig);

#endif
