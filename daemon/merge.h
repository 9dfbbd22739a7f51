/*
 * A merge: adjacent sealed segments of one collection become one of exactly the right size, without the rows
 * that are dead. The work of compaction; which segments are worth it is decided in upkeep.c.
 *
 * If the result is to have a graph and a source has one, the largest of them is extended: its rows are copied
 * first, and keep their links (index/graph_build.h). If it is to have lists, its rows are clustered first
 * and copied list by list (merge_lists.h).
 *
 * It runs beside the main thread. Sealed segments do not change but for deaths, and a row counts as dead only
 * if its death is not above the LSN at which the merge was begun: deaths after that are carried over by
 * vex_registry_end_merge. Nothing is written to disk; the next checkpoint does that, and until then a crash
 * finds the old segments' files.
 *
 * Thread-safety: one job by one thread. The sources stay alive as long as the job. vex_merge_smallest belongs to
 * the main thread.
 */
#ifndef VEX_DAEMON_MERGE_H
#define VEX_DAEMON_MERGE_H

#include <stdint.h>

#include <vex/status.h>

#include "daemon/home.h"
#include "daemon/registry.h"
#include "index/graph_build.h"
#include "ioengine/segment_file.h"

struct vex_merge_job {
    uint8_t key[VEX_UUID_BYTES];
    uint64_t lsn;
    struct vex_segment_shape
        shape; /* number, collection, metric, dim; the job fills in the sizes */
    struct vex_home *sources[VEX_LIST_SEGMENTS_MAX];
    uint32_t sources_count;
    bool is_level; /* the graph will soon be part of a larger one: what it finds is not measured */
    bool wants_lists;      /* if there are rows enough for them */
    uint32_t lists_wanted; /* how many; 0 = by the number of rows */
    /* Out. */
    enum vex_status status; /* NO_SPACE, NOMEM, IO; UNAVAILABLE: told to give up */
    struct vex_error error;
    struct vex_home *merged;       /* NULL if no row is alive */
    struct vex_graph_report graph; /* of the result; nodes_count 0: it has none */
};

/* A merge of `count` segments of the collection from `first` on, as of the staged `lsn`; its result gets the number
 * `segment_id` and no index. Main thread. */
void vex_merge_job_init(struct vex_merge_job *job, const uint8_t *key, uint64_t segment_id,
                        const struct vex_live_collection *collection, uint32_t first,
                        uint32_t count, uint64_t lsn);
/* A vex_work. */
void vex_merge_run(void *job, const struct vex_pace *pace);

/*
 * For a replay that meets a full list of segments: merges those adjacent ones that have the fewest rows, here
 * and now, as of the last record replayed. The daemon before had merged, too, but no checkpoint knew of it.
 * Errors: as the job's.
 */
enum vex_status vex_merge_smallest(const uint8_t *key, struct vex_publisher *publisher,
                                   struct vex_registry *registry,
                                   struct vex_live_collection *collection, uint64_t lsn,
                                   struct vex_error *error);

#endif
