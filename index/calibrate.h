/*
 * Measures what search effort is worth on a segment whose index has just been built (effort.h).
 *
 * The queries are some of the segment's own rows, against exact search over all the others. That a
 * row is in the graph flatters the graph: the walk then only has to find the row itself, whose links
 * are the answer (an ef of 10 gave 0.91 instead of 0.87 on 62,666 text embeddings). So the sampled
 * rows are taken out first: they count as dead, and every link to one of them is bent back to the
 * node that it starts from, for as long as the measurement takes. What is left is searched for
 * vectors that it has never seen. Noise added to rows would do instead, but how much and in which
 * directions is a guess about the data; this is none.
 *
 * Thread-safety: as the writer, which nobody else may be looking at.
 */
#ifndef VEX_INDEX_CALIBRATE_H
#define VEX_INDEX_CALIBRATE_H

#include "index/index.h"

/* Rows below which nothing is measured: the sample would be too small, and effort costs little. */
#define VEX_CALIBRATE_ROWS_MIN 1024u

/*
 * Writes the segment's table and attaches it. `index` is the one that was built, `unit` what its effort
 * is. Nothing happens if the segment has fewer rows than it takes, or no room for a table. Errors:
 * NOMEM, UNAVAILABLE (`pace` gave up).
 */
enum vex_status vex_calibrate(struct vex_segment_writer *writer, const struct vex_index *index,
                              enum vex_effort_unit unit, const struct vex_build_pace *pace,
                              struct vex_error *error);

#endif
