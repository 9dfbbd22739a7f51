/*
 * Building the lists of a segment whose rows have been appended in the order of lists.
 *
 *     vex_lists_arrange(writer, clusters->starts, lists);    when the rows are there
 *     vex_lists_build(writer, lists, pace, error);           codes, centres, head
 *
 * Codes are written row by row anyway, and a row as codes see it is what a centre is the mean of: so
 * centres are worked out on the way, from the rows that are in the lists in the end.
 *
 * Thread-safety: one thread.
 */
#ifndef VEX_INDEX_LIST_BUILD_H
#define VEX_INDEX_LIST_BUILD_H

#include <stdint.h>

#include <vex/status.h>

#include "index/code_build.h"

/* Notes where lists begin. `writer` has a shape with so many lists, and all its rows. */
void vex_lists_arrange(struct vex_segment_writer *writer, const uint32_t *starts, uint32_t lists);

/* Writes codes and lists and attaches them to the writer's segment. Errors: INVALID (no room for
 * lists, or not arranged), NOMEM, UNAVAILABLE (`pace` gave up: the segment has none). */
enum vex_status vex_lists_build(struct vex_segment_writer *writer, uint32_t lists,
                                const struct vex_build_pace *pace, struct vex_error *error);

#endif
