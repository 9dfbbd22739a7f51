#include "daemon/home.h"

#include <numa.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/error.h"

enum vex_status vex_home_allocate(struct vex_home *home, uint32_t rows, uint64_t payload_bytes,
                                  struct vex_error *error)
{
    struct vex_segment_range ranges[VEX_SEGMENT_RANGES_MAX];
    uint32_t image_count = 0;
    uint32_t count =
        vex_segment_used_ranges(&home->shape, rows, payload_bytes, ranges, &image_count);
    enum vex_status status = VEX_OK;
    for (uint32_t i = 0; i < count && status == VEX_OK; i++) {
        status = vex_region_allocate(&home->region, ranges[i].offset, ranges[i].bytes, error);
        home->held_bytes += ranges[i].bytes;
    }
    return status;
}

enum vex_status vex_home_create(const uint8_t *key, const struct vex_segment_shape *shape,
                                bool allocate, struct vex_home **out_home, struct vex_error *error)
{
    *out_home = NULL;
    uint64_t bytes = vex_segment_memory_bytes(shape);
    if (bytes == 0) {
        return vex_error_set(error, VEX_ERR_LIMIT, "a segment of %u rows is out of bounds",
                             shape->capacity_rows);
    }
    bytes = vex_round_up(bytes, VEX_PAGE_BYTES);
    struct vex_home *home = calloc(1, sizeof(*home));
    if (!home) {
        return vex_error_set(error, VEX_ERR_NOMEM, "new segment: out of memory");
    }
    char name[VEX_REGION_NAME_MAX];
    vex_region_segment_name(name, key, shape->segment_id);
    enum vex_status status = vex_region_create(&home->region, name, bytes, 0, error);
    if (status != VEX_OK) {
        free(home);
        return status;
    }
    /* Readers run on every node: spread the pages before they exist. One node: nothing to do. */
    if (numa_available() >= 0 && numa_num_configured_nodes() > 1) {
        numa_interleave_memory(home->region.memory, bytes, numa_all_nodes_ptr);
    }
    home->shape = *shape;
    if (allocate) {
        status = vex_region_allocate(&home->region, 0, bytes, error);
        home->held_bytes = bytes;
    }
    if (status != VEX_OK) {
        vex_home_destroy(home, true);
        return status;
    }
    *out_home = home;
    return VEX_OK;
}

void vex_home_destroy(struct vex_home *home, bool punch)
{
    vex_region_unlink(home->region.name);
    /* A client that maps it but reads nothing any more must not keep the memory. */
    if (punch) {
        vex_region_punch(&home->region);
    }
    vex_region_close(&home->region);
    free(home);
}

uint64_t vex_home_trim(struct vex_home *home)
{
    struct vex_segment_range ranges[VEX_SEGMENT_RANGES_MAX];
    uint32_t image_count = 0;
    uint32_t count = vex_segment_used_ranges(&home->shape, home->writer.rows,
                                             home->writer.payload_bytes, ranges, &image_count);
    uint64_t end = 0;
    uint64_t held = 0;
    for (uint32_t i = 0; i < count; i++) {
        vex_region_punch_range(&home->region, end, ranges[i].offset - end);
        end = ranges[i].offset + ranges[i].bytes;
        held += ranges[i].bytes;
    }
    vex_region_punch_range(&home->region, end, home->region.bytes - end);
    return held;
}
