#include "daemon/merge.h"

#include <string.h>

#include "base/error.h"
#include "base/panic.h"
#include "daemon/index_plan.h"
#include "daemon/merge_lists.h"
#include "index/calibrate.h"
#include "index/index.h"

#define SLICE_BYTES (1u << 20)
#define SMALLEST_COUNT 16u /* segments that vex_merge_smallest makes one of */

static void count_live(const struct vex_home *home, uint64_t lsn, uint64_t *rows,
                       uint64_t *payload_bytes)
{
    const struct vex_segment *segment = &home->writer.segment;
    for (uint32_t row = 0; row < home->writer.rows; row++) {
        if (vex_segment_alive(segment, row, lsn)) {
            const void *payload;
            size_t bytes = 0;
            bool sound = vex_segment_payload(segment, row, &payload, &bytes);
            VEX_ASSERT(sound);
            *payload_bytes += bytes;
            (*rows)++;
        }
    }
}

static bool rest(const struct vex_pace *pace, uint64_t bytes)
{
    return pace->pause(pace->context, bytes);
}

/* False if it was told to give up. */
static bool copy_live(struct vex_segment_writer *to, const struct vex_home *from, uint64_t lsn,
                      const struct vex_pace *pace)
{
    const struct vex_segment *segment = &from->writer.segment;
    uint64_t row_bytes = segment->row_bytes;
    uint64_t slice = 0;
    for (uint32_t row = 0; row < from->writer.rows; row++) {
        if (!vex_segment_alive(segment, row, lsn)) {
            continue;
        }
        (void)vex_segment_append_row(to, segment, row);
        slice += row_bytes;
        if (slice >= SLICE_BYTES) {
            if (!rest(pace, slice)) {
                return false;
            }
            slice = 0;
        }
    }
    return true;
}

struct build_pause {
    const struct vex_pace *pace;
};

static bool pause_build(void *context)
{
    const struct build_pause *pause = context;
    return rest(pause->pace, 0);
}

static bool build_index(struct vex_merge_job *job, struct vex_home *merged,
                        const struct vex_home *largest, const struct vex_pace *pace)
{
    struct build_pause pause = {pace};
    const struct vex_build_pace build_pace = {pause_build, &pause};
    if (largest || job->is_level) {
        const struct vex_segment *old = largest ? &largest->writer.segment : NULL;
        const struct vex_graph_origin origin = {old, largest ? largest->writer.rows : 0, job->lsn};
        job->status = vex_graph_extend(&merged->writer, &job->shape.graph, largest ? &origin : NULL,
                                       &build_pace, &job->graph, &job->error);
        if (job->status == VEX_OK && !job->is_level) {
            job->status = vex_calibrate(&merged->writer, &vex_index_hnsw, VEX_EFFORT_UNIT_EF,
                                        &build_pace, &job->error);
        }
        return job->status == VEX_OK;
    }
    const struct vex_index *index = job->shape.graph.m ? &vex_index_hnsw
                                    : job->shape.lists ? &vex_index_ivf
                                                       : &vex_index_flat;
    job->status = index->build(&merged->writer, &job->shape, &build_pace, &job->graph, &job->error);
    return job->status == VEX_OK;
}

/* The source whose graph the result's can begin with; NULL if there is none, or none is wanted. One that was built
 * with another effort is none: its links would stay, and pass for what is asked for now. */
static struct vex_home *find_largest_graph(const struct vex_merge_job *job)
{
    struct vex_home *largest = NULL;
    uint32_t nodes = 0;
    for (uint32_t i = 0; i < job->sources_count && job->shape.graph.m; i++) {
        uint32_t count = job->sources[i]->writer.segment.graph.nodes_count;
        if (count > nodes &&
            vex_index_same_graph(&job->sources[i]->shape.graph, &job->shape.graph)) {
            largest = job->sources[i];
            nodes = count;
        }
    }
    return largest;
}

/* The rows of `first`, unless it is NULL, before all others. False if it was told to give up. */
static bool copy_sources(const struct vex_merge_job *job, struct vex_home *merged,
                         const struct vex_home *first, const struct vex_pace *pace)
{
    bool going_on = !first || copy_live(&merged->writer, first, job->lsn, pace);
    for (uint32_t i = 0; i < job->sources_count && going_on; i++) {
        if (job->sources[i] != first) {
            going_on = copy_live(&merged->writer, job->sources[i], job->lsn, pace);
        }
    }
    return going_on;
}

/* With all sizes known. */
static void make_merged(struct vex_merge_job *job, const struct vex_row_order *order,
                        const struct vex_pace *pace)
{
    struct vex_home *merged = NULL;
    job->status = vex_home_create(job->key, &job->shape, true, &merged, &job->error);
    if (job->status != VEX_OK) {
        return;
    }
    vex_segment_create(&merged->writer, &job->shape, merged->region.memory);
    const struct vex_home *largest = find_largest_graph(job);
    bool is_copied = order->places ? vex_row_order_copy(order, job, &merged->writer, pace)
                                   : copy_sources(job, merged, largest, pace);
    if (!is_copied) {
        vex_home_destroy(merged, true);
        job->status = vex_error_set(&job->error, VEX_ERR_UNAVAILABLE, "the daemon is stopping");
        return;
    }
    if (!build_index(job, merged, largest, pace)) {
        vex_home_destroy(merged, true);
        return;
    }
    job->merged = merged;
}

void vex_merge_run(void *argument, const struct vex_pace *pace)
{
    struct vex_merge_job *job = argument;
    uint64_t rows = 0;
    job->merged = NULL;
    job->status = VEX_OK;
    job->graph = (struct vex_graph_report){0};
    job->shape.payload_capacity_bytes = 0;
    for (uint32_t i = 0; i < job->sources_count; i++) {
        count_live(job->sources[i], job->lsn, &rows, &job->shape.payload_capacity_bytes);
    }
    if (rows == 0) {
        return;
    }
    if (rows > VEX_SEGMENT_ROWS_MAX) {
        job->status = vex_error_set(&job->error, VEX_ERR_LIMIT, "a segment holds at most %u rows",
                                    VEX_SEGMENT_ROWS_MAX);
        return;
    }
    job->shape.capacity_rows = (uint32_t)rows;
    job->shape.codes = rows >= VEX_CODES_ROWS_MIN;
    struct vex_row_order order = {0};
    if (job->wants_lists && rows >= VEX_LISTS_ROWS_MIN) {
        job->shape.lists = vex_lists_count_for((uint32_t)rows, job->lists_wanted);
        job->status =
            vex_row_order_make(job, (uint32_t)rows, job->shape.lists, pace, &order, &job->error);
    }
    if (job->status == VEX_OK) {
        make_merged(job, &order, pace);
    }
    vex_row_order_deinit(&order);
}

void vex_merge_job_init(struct vex_merge_job *job, const uint8_t *key, uint64_t segment_id,
                        const struct vex_live_collection *collection, uint32_t first,
                        uint32_t count, uint64_t lsn)
{
    *job = (struct vex_merge_job){
        .lsn = lsn,
        .shape =
            {
                .segment_id = segment_id,
                .collection_id = collection->facts.id,
                .metric = collection->facts.metric,
                .storage = collection->facts.storage,
                .dim = collection->facts.dim,
            },
        .sources_count = count,
    };
    memcpy(job->key, key, sizeof(job->key));
    memcpy(job->sources, &collection->homes[first], count * sizeof(job->sources[0]));
}

/* ---- at once --------------------------------------------------------------------------------- */

static uint32_t find_smallest(const struct vex_live_collection *collection, uint32_t count)
{
    uint64_t fewest = UINT64_MAX;
    uint32_t found = 0;
    for (uint32_t first = 0; first + count <= collection->homes_count; first++) {
        uint64_t rows = 0;
        for (uint32_t i = first; i < first + count; i++) {
            rows += collection->homes[i]->writer.rows;
        }
        if (rows < fewest) {
            fewest = rows;
            found = first;
        }
    }
    return found;
}

static bool never_rest(void *context, uint64_t bytes)
{
    (void)context;
    (void)bytes;
    return true;
}

enum vex_status vex_merge_smallest(const uint8_t *key, struct vex_publisher *publisher,
                                   struct vex_registry *registry,
                                   struct vex_live_collection *collection, uint64_t lsn,
                                   struct vex_error *error)
{
    uint32_t count =
        collection->homes_count < SMALLEST_COUNT ? collection->homes_count : SMALLEST_COUNT;
    uint32_t first = find_smallest(collection, count);
    struct vex_merge_job job;
    vex_merge_job_init(&job, key, vex_publisher_new_segment_id(publisher), collection, first, count,
                       lsn);
    vex_merge_run(&job, &(struct vex_pace){never_rest, NULL});
    if (job.status != VEX_OK) {
        if (error) {
            *error = job.error;
        }
        return job.status;
    }
    struct vex_error fault = {.status = VEX_OK};
    struct vex_merge_claim claim;
    vex_registry_begin_merge(registry, &claim, collection, first, count);
    if (!vex_registry_end_merge(registry, &claim, &job.merged, &fault)) {
        if (job.merged) {
            vex_home_destroy(job.merged, true);
        }
        if (error) {
            *error = fault;
        }
        return fault.status;
    }
    return VEX_OK;
}
