#include "daemon/merge_lists.h"

#include <stdlib.h>

#include "base/error.h"
#include "base/panic.h"
#include "index/list_build.h"

#define SLICE_BYTES (1u << 20)

struct clustering {
    const struct vex_merge_job *job;
    const struct vex_row_place *places;
    const struct vex_pace *pace;
};

static const float *clustered_row(void *context, uint32_t i, float *buffer, float *out_norm)
{
    const struct clustering *clustering = context;
    struct vex_row_place place = clustering->places[i];
    const struct vex_segment *segment = &clustering->job->sources[place.source]->writer.segment;
    *out_norm = segment->norms[place.row];
    return vex_segment_row(segment, place.row, buffer);
}

static bool pause_clustering(void *context)
{
    const struct clustering *clustering = context;
    return clustering->pace->pause(clustering->pace->context, 0);
}

static void list_places(const struct vex_merge_job *job, struct vex_row_order *order)
{
    uint32_t count = 0;
    for (uint32_t source = 0; source < job->sources_count; source++) {
        const struct vex_segment_writer *writer = &job->sources[source]->writer;
        for (uint32_t row = 0; row < writer->rows; row++) {
            if (vex_segment_alive(&writer->segment, row, job->lsn)) {
                VEX_ASSERT(count < order->rows_count);
                order->places[count++] = (struct vex_row_place){source, row};
            }
        }
    }
    VEX_ASSERT(count == order->rows_count);
}

enum vex_status vex_row_order_make(const struct vex_merge_job *job, uint32_t rows_count,
                                   uint32_t lists, const struct vex_pace *pace,
                                   struct vex_row_order *out, struct vex_error *error)
{
    *out = (struct vex_row_order){.rows_count = rows_count, .lists = lists};
    out->places = malloc((size_t)rows_count * sizeof(*out->places));
    if (!out->places) {
        return vex_error_set(error, VEX_ERR_NOMEM, "lists: out of memory for %u rows", rows_count);
    }
    list_places(job, out);
    struct clustering clustering = {job, out->places, pace};
    const struct vex_build_pace build_pace = {pause_clustering, &clustering};
    const struct vex_kmeans_input input = {
        .rows_count = rows_count,
        .dim = job->shape.dim,
        .metric = job->shape.metric,
        .lists = lists,
        .row = clustered_row,
        .context = &clustering,
        .pace = &build_pace,
    };
    enum vex_status status = vex_kmeans_run(&input, &out->clusters, error);
    if (status != VEX_OK) {
        vex_row_order_deinit(out);
    }
    return status;
}

bool vex_row_order_copy(const struct vex_row_order *order, const struct vex_merge_job *job,
                        struct vex_segment_writer *to, const struct vex_pace *pace)
{
    uint64_t row_bytes = to->segment.row_bytes;
    uint64_t slice = 0;
    for (uint32_t i = 0; i < order->rows_count; i++) {
        struct vex_row_place place = order->places[order->clusters.order[i]];
        (void)vex_segment_append_row(to, &job->sources[place.source]->writer.segment, place.row);
        slice += row_bytes;
        if (slice >= SLICE_BYTES) {
            if (!pace->pause(pace->context, slice)) {
                return false;
            }
            slice = 0;
        }
    }
    vex_lists_arrange(to, order->clusters.starts, order->lists);
    return true;
}

void vex_row_order_deinit(struct vex_row_order *order)
{
    free(order->places);
    vex_clusters_deinit(&order->clusters);
    *order = (struct vex_row_order){0};
}
