#include "daemon/merge.h"

#include "base/error.h"
#include "base/panic.h"

#define SLICE_BYTES (1u << 20)

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
    uint64_t row_bytes = (uint64_t)segment->stride_floats * sizeof(float);
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

void vex_merge_run(void *argument, const struct vex_pace *pace)
{
    struct vex_merge_job *job = argument;
    uint64_t rows = 0;
    job->merged = NULL;
    job->status = VEX_OK;
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
    struct vex_home *merged = NULL;
    job->status = vex_home_create(job->key, &job->shape, true, &merged, &job->error);
    if (job->status != VEX_OK) {
        return;
    }
    vex_segment_create(&merged->writer, &job->shape, merged->region.memory);
    for (uint32_t i = 0; i < job->sources_count; i++) {
        if (!copy_live(&merged->writer, job->sources[i], job->lsn, pace)) {
            vex_home_destroy(merged, true);
            job->status = vex_error_set(&job->error, VEX_ERR_UNAVAILABLE, "the daemon is stopping");
            return;
        }
    }
    job->merged = merged;
}
