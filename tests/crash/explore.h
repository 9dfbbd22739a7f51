/*
 * The crash explorer: what it expects of an application on top of the storage engine, and what it offers.
 *
 * An application is a toy whose state follows from which records it has seen: record number LSN, written by
 * life number G, has a body that is a function of (G, LSN). The model therefore is one number per LSN. The
 * driver (explore.c) lets the application live on a recording disk, then crashes that disk in every way
 * and lets it recover; the application compares what it finds with the model.
 */
#ifndef VEX_TESTS_CRASH_EXPLORE_H
#define VEX_TESTS_CRASH_EXPLORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vex/status.h>

#include "tests/lib/io_sim.h"
#include "tests/lib/random.h"

#define EXPLORE_LSN_MAX 600u
#define EXPLORE_NO_LSN UINT64_MAX
#define EXPLORE_ANY_LSN (UINT64_MAX - 1)

/* What may be found after a crash: at least the records up to `acked`, at most those up to `submitted`,
 * no hole; an orderly end only at `clean`. */
struct explore_bounds {
    uint64_t acked;
    uint64_t submitted;
    uint64_t clean;      /* EXPLORE_NO_LSN = no orderly end was written yet */
    uint64_t checkpoint; /* LSN of the newest checkpoint that was reported as made */
    uint64_t checkpoints_made;
    uint64_t backups; /* a bit for each that was reported as made */
};

struct explore_model {
    struct explore_bounds bounds;
    uint32_t backups_tried;
    uint32_t error_odds; /* of the disk, in this life once it has begun; 0 = it is fine */
    bool is_damaged;     /* on purpose: falling back to an older checkpoint is right */
    uint32_t life;       /* the current or last one */
    uint32_t lives[EXPLORE_LSN_MAX + 1]; /* which life wrote the record, by LSN */
};

struct explore_found {
    uint64_t last_lsn;
    uint64_t torn_tails;
};

/* Marks in the record; they move the bounds of the crash points behind them. */
enum {
    EXPLORE_MARK_SUBMITTED = 1,
    EXPLORE_MARK_ACKED,
    EXPLORE_MARK_CLEAN,   /* an orderly end is about to be written at this LSN */
    EXPLORE_MARK_SETTLED, /* a batch is durable and no other on its way */
    EXPLORE_MARK_CHECKPOINT,
    EXPLORE_MARK_BACKUP,
};

/* What planted damage must lead to. */
enum explore_verdict {
    EXPLORE_NOTHING_DAMAGED,
    EXPLORE_MUST_REFUSE,
    EXPLORE_MUST_SURVIVE, /* there is a second copy, or another way */
    EXPLORE_EITHER,       /* but nothing may be lost in silence */
};

struct explore_app {
    const char *name;
    unsigned steps;            /* of a life */
    unsigned depth_two_one_in; /* one in so many states */
    /* Recovers, compares with the model, and closes again. Faults go to explore_fail. */
    void (*check)(struct vex_io *io, const struct explore_model *model,
                  struct explore_found *out_found);
    /* More, on a sample of the disks that were recovered from; may be NULL. */
    void (*check_more)(struct vex_io *io, const struct explore_model *model);
    /* Recovers (checking as above), works for a number of steps, and ends in order or not. */
    void (*live)(struct vex_io *io, struct explore_model *model, struct vex_random *random,
                 unsigned steps);
    /* Damages acknowledged data on `image`, a crash of `recorded` before operation number `position`.
     * The text says what was done. */
    enum explore_verdict (*damage)(struct vex_io *image, const struct explore_model *model,
                                   struct vex_io *recorded, size_t position,
                                   struct vex_random *random, char out_what[160]);
    /* False if recovery refuses the disk as damaged, and why; else what it found has been compared as in
     * check. */
    bool (*recovers)(struct vex_io *io, const struct explore_model *model,
                     struct vex_error *out_refusal);
    /* Accepts the loss on a disk that is refused; afterwards it must recover. May be NULL. */
    void (*repair)(struct vex_io *io, const struct explore_model *model);
};

int explore_main(int argc, char **argv, const struct explore_app *app);

/* Ends the process: prints check ("I1".."I7"), text, and how to have the state again. */
_Noreturn void explore_fail(const char *check, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* ---- bodies ---------------------------------------------------------------------------------- */

/* The body of a record, in words; its length follows, too. */
static inline uint64_t explore_word(uint32_t life, uint64_t lsn, uint64_t index)
{
    return vex_mix64(((uint64_t)life << 40) ^ (lsn << 20) ^ index);
}

/* Mostly small; some fill several blocks. */
static inline size_t explore_body_bytes(uint32_t life, uint64_t lsn)
{
    uint64_t draw = vex_mix64(explore_word(life, lsn, 0) + 1);
    uint64_t words = draw % 12 == 0 ? 200 + (draw >> 8) % 1500 : 1 + (draw >> 8) % 60;
    return (size_t)words * 8u;
}

#endif
