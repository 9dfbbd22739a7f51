/*
 * Building the graph of a segment whose rows are all there.
 *
 * Everything is worked out in private memory and written into the segment's sections at the end; the
 * head goes last, so that a segment has its graph whole or not at all.
 *
 * The work is a row of phases, each of which may be shared by several threads:
 *
 *     vex_graph_build_new(writer, &build, error);
 *     do {
 *         every thread: vex_graph_build_work(build, worker, pace);     (and meet here)
 *     } while (vex_graph_build_next(build));
 *     vex_graph_build_end(build, &report);
 *
 * A phase hands its nodes out by an atomic counter. With one thread the result depends on nothing
 * but the rows; with more it also depends on their timing, because insertions see each other.
 *
 * Thread-safety: vex_graph_build_work by one thread per worker; all else by one thread, while no
 * work is under way.
 */
#ifndef VEX_INDEX_GRAPH_BUILD_H
#define VEX_INDEX_GRAPH_BUILD_H

#include <stdbool.h>
#include <stdint.h>

#include <vex/status.h>

#include "index/code_build.h"

struct vex_graph_build;
struct vex_graph_worker;

/*
 * An older segment whose graph may be extended: its living rows as of `lsn` are the first rows of the
 * new segment, in order. It stays as it is for as long as the build.
 */
struct vex_graph_origin {
    const struct vex_segment *segment;
    uint32_t rows; /* that it has */
    uint64_t lsn;
};

struct vex_graph_report {
    uint32_t nodes_count;
    uint32_t reached;  /* by links from the topmost layer */
    uint32_t inserted; /* the others have kept their links */
    bool codes_kept;   /* those of the origin */
    float mean_degree;
    float error_rms; /* of an estimate, as a share of both lengths */
    uint64_t cpu_ns; /* of all workers */
};

/* Private memory that a build of this shape takes. */
uint64_t vex_graph_build_bytes(const struct vex_segment_shape *shape);

/* `writer` is borrowed, has at least one row and a shape with an index, and gets no more rows.
 * `origin` NULL: built from the start, as it is if the origin is not worth extending. Errors: NOMEM,
 * INVALID. */
enum vex_status vex_graph_build_new(struct vex_segment_writer *writer,
                                    const struct vex_graph_shape *shape,
                                    const struct vex_graph_origin *origin,
                                    struct vex_graph_build **out_build, struct vex_error *error);
/* Errors: NOMEM. */
enum vex_status vex_graph_worker_new(struct vex_graph_build *build,
                                     struct vex_graph_worker **out_worker, struct vex_error *error);
/* Takes part in the present phase until nothing is left of it. False: `pace` gave up. */
bool vex_graph_build_work(struct vex_graph_build *build, struct vex_graph_worker *worker,
                          const struct vex_build_pace *pace);
/* To the next phase. False if there is none. */
bool vex_graph_build_next(struct vex_graph_build *build);
/* After the last phase: writes the head and attaches the graph to the writer's segment. */
void vex_graph_build_end(struct vex_graph_build *build, struct vex_graph_report *out_report);
/* NULL is allowed. */
void vex_graph_worker_free(struct vex_graph_worker *worker);
void vex_graph_build_free(struct vex_graph_build *build);

/* All of the above in this thread. out_report may be NULL. Errors: NOMEM, INVALID, UNAVAILABLE
 * (`pace` gave up: the segment has no graph). */
enum vex_status vex_graph_extend(struct vex_segment_writer *writer,
                                 const struct vex_graph_shape *shape,
                                 const struct vex_graph_origin *origin,
                                 const struct vex_build_pace *pace,
                                 struct vex_graph_report *out_report, struct vex_error *error);
/* From the start. */
enum vex_status vex_graph_build(struct vex_segment_writer *writer,
                                const struct vex_graph_shape *shape,
                                const struct vex_build_pace *pace,
                                struct vex_graph_report *out_report, struct vex_error *error);

#endif
