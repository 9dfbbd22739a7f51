/*
 * Queries to measure with: living rows of a snapshot, drawn at random, or rows of a file.
 *
 * The library finds rows by id and by nearness, and lists none. So up to VEX_K_MAX rows are listed
 * by one exact search for all of them, and each is equally likely. Of more rows, ids are guessed
 * where they lie close together, as numbered ones do; that is as good. Where they do not, as hashed
 * ones, rows are drawn from large neighbourhoods of random places: nearly every row can turn up,
 * but not equally likely, and the result says so. In both of the latter a row may come twice.
 */
#ifndef VEX_VEXCTL_QUERIES_H
#define VEX_VEXCTL_QUERIES_H

#include <stddef.h>
#include <stdint.h>

#include <vex/vex.h>

struct vex_queries {
    size_t count;
    size_t dim;
    float *vectors;    /* count x dim */
    uint64_t *ids;     /* of the rows that the queries are; NULL = they are from a file */
    const char *drawn; /* "rows", "ids", "neighbourhoods", "file": how, see above; static storage */
};

/*
 * Draws `count` living rows, or all of them if there are not more than VEX_K_MAX and `count`. The same seed
 * draws the same rows of the same snapshot. Errors: INVALID (there are less than two rows), LIMIT (too many
 * to hold), and what reading a snapshot can give.
 */
enum vex_status vex_queries_draw(struct vex_collection *collection, struct vex_snapshot *snapshot,
                                 size_t count, uint64_t seed, struct vex_queries *out,
                                 struct vex_error *error);
/*
 * Draws `count` rows of a file, or all of them if it has not more; in the order of the file. `format` is
 * a word as of --format, NULL = by the path. Errors: as of a reader, INVALID (the format is not known, the
 * file is empty), LIMIT.
 */
enum vex_status vex_queries_read(const char *path, const char *format, size_t count, uint64_t seed,
                                 struct vex_queries *out, struct vex_error *error);
/* Accepts a zeroed struct. */
void vex_queries_deinit(struct vex_queries *queries);

#endif
