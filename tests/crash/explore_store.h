/*
 * The toy on top of the store: a small map from keys to values, in four parts. The value of a key is that of
 * the last record that names it, and which key a record names follows from life and LSN, so the map at any
 * LSN follows from the model.
 *
 * A checkpoint holds part 0 in its body and each other part in a segment file of its own, whose image is two
 * extents with a gap: values first, then a pattern that follows from the file's number. A part that has not
 * changed keeps the segment file of the checkpoint before.
 */
#ifndef VEX_TESTS_CRASH_EXPLORE_STORE_H
#define VEX_TESTS_CRASH_EXPLORE_STORE_H

#include "ioengine/store.h"
#include "tests/crash/explore.h"

#define TOY_PARTS 4u
#define TOY_KEYS 8u /* of a part */

struct toy_map {
    uint64_t lsn;
    uint64_t values[TOY_PARTS][TOY_KEYS]; /* 0 = no such key */
};

/* A map, and where a checkpoint has put its parts. */
struct toy_saved {
    struct toy_map map;
    uint64_t segments[TOY_PARTS]; /* [0] is 0: in the body. 0 = never saved */
};

/* explore_toy.c */
void toy_apply(struct toy_map *map, uint32_t life, uint64_t lsn);
struct toy_map toy_at(const struct explore_model *model, uint64_t lsn);
/* Whether something succeeded. If not, the disk must have failed. */
bool toy_worked(enum vex_status status, const struct vex_error *error,
                const struct explore_model *model, const char *what);
/* Writes the segment files that *saved has not got, then the checkpoint, which is *saved then. `trim_before`:
 * trims in between, keeping the new files. False if the disk failed. */
bool toy_save(struct vex_store *store, const struct explore_model *model,
              const struct vex_store_cut *cut, const struct toy_map *map, bool trim_before,
              struct toy_saved *saved);
/* vex_store_state.restore without context: body NULL gives an empty map. */
enum vex_status toy_load(struct toy_saved *out, struct vex_store *store, uint64_t lsn,
                         const uint8_t *body, size_t bytes, struct vex_error *error);

/* explore_store.c */
struct toy_opened {
    struct vex_store *store; /* NULL = refused as damaged; `error` says why */
    struct vex_store_recovery found;
    struct vex_error error;
    struct toy_saved saved; /* of the checkpoint */
    struct toy_map map;
};
/* Opens, and compares with the model within its bounds. `is_backup`: a backup knows no later bounds. */
void toy_open(struct vex_io *io, const struct explore_model *model, bool is_backup,
              struct toy_opened *out);

/* explore_store_damage.c */
enum explore_verdict toy_damage(struct vex_io *image, const struct explore_model *model,
                                struct vex_io *recorded, size_t position, struct vex_random *random,
                                char out_what[160]);

#endif
