/*
 * The memory that the model runs on: that of C17, without its out-of-thin-air values.
 *
 * A location is the list of values that it has had, oldest first. Each thread has a *view*: for each
 * location, the oldest of these values that it may still read. A load may return any value that is
 * not older than that, and the explorer tries each. So there are no store buffers and no reordering to
 * simulate: a thread that has not been told of a newer value simply may not see it.
 *
 * It follows what one step of a scenario may be. A load can be put off until the next thing its thread
 * does, because what it could have returned before it can still return then; so loads go with what
 * comes after them (not with what comes before: they may return more by then). Stores can go together, because whoever would have come between them still finds the
 * values before. Neither holds for sequentially consistent accesses and for read-modify-writes, nor
 * where the newest value is looked at; each of these begins a step or stands alone. The same goes for
 * data: a write that comes between a read and the next step spoils that read, wherever it is put.
 *
 * Telling is what orders are for. A value stored with release carries the view of the thread that
 * stored it; a load with acquire that returns it adds that view to its own. A read-modify-write also
 * carries what the value before it carried (a release sequence); a relaxed store of the same thread does
 * not, though C17 would let it: later standards have taken that back. Sequentially consistent accesses
 * do both, and they have a single order: a sequentially consistent load returns nothing older than the
 * stores that are known to come before it there. A store is known to when its thread, or one that knows
 * of it by acquiring, makes its next sequentially consistent load: not before, because what is weaker
 * may overtake the store. They are not made stronger than that.
 *
 * Plain bytes (rows, list blocks, names) are *data*. A read of data does not choose: it is wrong if
 * any of the values it may return is. A write of data is wrong if somebody may still be reading: if
 * the writer's view does not include a read that counts (machine_data_read keeps a clock for that).
 * A read of which that is said is spoilt; the scenario decides whether the reader notices.
 *
 * Left out: a store is always the newest of its location (no location here has two threads that store
 * blindly), loads do not return values that are stored later (no load of the protocol decides on a
 * store that another thread's load decides on).
 */
#ifndef VEX_TESTS_MODEL_MACHINE_H
#define VEX_TESTS_MODEL_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/model/accesses.h"

#define THREADS_MAX 3u
#define LOCATIONS_MAX (32u - THREADS_MAX) /* a view is a vector of 32 bytes */
#define VALUES_MAX 12u                    /* of one location, that somebody may still read */
#define REGISTERS_MAX 16u
#define CHOICES_MAX 12u /* of one step */

/* By location, then by thread the clock of its data reads. */
struct view {
    uint8_t seen[LOCATIONS_MAX + THREADS_MAX];
};

struct stored {
    struct view view;
    uint8_t value;
};

enum thread_state { THREAD_RUNS, THREAD_SLEEPS, THREAD_ENDED, THREAD_DEAD };

struct thread {
    struct view view;
    struct view sure; /* the part of it that follows from acquiring and from own stores */
    uint8_t state;
    uint8_t step;       /* what it does next, by the scenario's numbering */
    uint8_t spoilt;     /* the read under way may have seen anything */
    uint8_t read_began; /* clock at the begin of the read under way */
    uint8_t registers[REGISTERS_MAX];
};

struct world {
    struct thread threads[THREADS_MAX];
    struct view sequential; /* the newest store that has its place in the single order */
    struct view placeless;  /* the newest that has none yet, 0 = it has */
    uint8_t counts[LOCATIONS_MAX];
    uint8_t last_read[LOCATIONS_MAX][THREADS_MAX]; /* clocks, of data */
    uint8_t deaths_left;
    uint8_t padding[3];
    struct stored values[LOCATIONS_MAX][VALUES_MAX];
};

/* What a step decided, in the order in which it asked: a value of each load, a turn of events. */
struct choices {
    uint8_t count;
    uint8_t taken[CHOICES_MAX];
    uint8_t of[CHOICES_MAX]; /* how many there were */
};

/* Each is a change of the protocol that the model must find; see faults.c. */
enum flaw {
    FLAW_NONE,
    FLAW_SCAN_BEFORE_PUBLISH,
    FLAW_BOUND_TOO_LOW,
    FLAW_NOT_TOUCHED,
    FLAW_RAISED_BY_STORE,
    FLAW_HOLD_WITHOUT_TOUCH,
    FLAW_LOOK_BEFORE_UNPIN,
    FLAW_REVOKE_AFTER_FREE,
    FLAW_CURRENT_BEFORE_VIEW,
    FLAW_PIN_WITHOUT_SECOND_LOOK,
    FLAW_LSN_AFTER_VIEW,
    FLAW_DEAD_NOT_DROPPED,
    FLAW_HUNG_NOT_DROPPED,
    FLAW_BLOCK_REUSED_AT_ONCE,
    FLAW_CELL_NOT_UNNAMED,
    FLAW_NO_LAST_LOOK,
    FLAW_RING_OF_ONE,
    FLAW_WAKE_BEFORE_LSN,
    FLAW_WAKE_LOADED_LATE,
    FLAW_STATE_AFTER_WAKE,
    FLAW_ID_BEFORE_FACTS,
    FLAW_ID_BEFORE_VIEW,
    FLAW_PLACE_REUSED_AT_ONCE,
    FLAW_CATALOG_FIRST,
    FLAW_READY_FIRST,
    FLAW_EPOCH_BEFORE_CACHE,
    FLAW_CACHE_BEFORE_PIN,
    FLAW_SNAPSHOT_EPOCH_EARLY,
    FLAW_ATTACHMENT_NOT_CHECKED,
    FLAW_SLOTS_BEFORE_ATTACHMENT,
    FLAWS_COUNT
};

struct machine {
    uint8_t orders[ACCESSES_COUNT + 1]; /* the last: of what is relaxed */
    bool flaws[FLAWS_COUNT];
    uint32_t threads_count;
    uint32_t locations_count;
    struct world *world; /* the step changes it in place */
    /* Of the step being made: */
    uint32_t thread;
    struct choices choices;
    uint32_t chosen;       /* how many it has asked for so far */
    bool newest;           /* loads return the newest value only */
    bool blocked;          /* it cannot be made now */
    const char *violation; /* what went wrong, NULL = nothing */
    bool tells;            /* print what happens */
    bool *used;            /* by access: made by some step, NULL = nobody asks */
    const char *const *location_names;
    const char *const *thread_names;
};

struct thread *machine_thread(struct machine *machine);
/* One of `count` alternatives; the explorer tries all. */
uint32_t machine_choose(struct machine *machine, uint32_t count);

uint8_t machine_load(struct machine *machine, enum access access, uint32_t location);
void machine_store(struct machine *machine, enum access access, uint32_t location, uint8_t value);
/* Stores and returns the value before. */
uint8_t machine_exchange(struct machine *machine, enum access access, uint32_t location,
                         uint8_t value);
uint8_t machine_add(struct machine *machine, enum access access, uint32_t location, int difference);
/* What everybody agrees on: the newest value. For the kernel, and for first values. */
uint8_t machine_newest(const struct machine *machine, uint32_t location);

/* A read of plain bytes, which must be within `low` to `high`; otherwise the read is spoilt. */
void machine_data_read(struct machine *machine, uint32_t location, uint8_t low, uint8_t high);
void machine_data_write(struct machine *machine, uint32_t location, uint8_t value);
void machine_read_begin(struct machine *machine);
/* The reader takes what it read for true; a violation if it is spoilt. From now on the reads count
 * for good: who changes what they saw must know that they are over. */
void machine_read_accept(struct machine *machine);
/* The reader throws away what it read since it began. */
void machine_read_discard(struct machine *machine);

/* Before the first step: the only value of a location, which everybody knows. */
void machine_set(struct machine *machine, uint32_t location, uint8_t value);
void machine_end(struct machine *machine);
void machine_violation(struct machine *machine, const char *text);
/* Forgets values that nobody can read any more, so that equal states look equal. */
void machine_tidy(struct machine *machine);

#endif
