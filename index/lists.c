#include "index/lists.h"

#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "index/segment.h"

#define LISTS_PER_ROOT 4.0 /* lists, for each square root of the rows */
#define ROWS_PER_LIST_MIN 16u
#define LINE_BYTES 64u

_Static_assert(sizeof(struct vex_lists_head) == 64, "on disk");

uint32_t vex_lists_count_for(uint32_t rows, uint32_t wanted)
{
    uint32_t most = rows / ROWS_PER_LIST_MIN;
    uint32_t count = wanted ? wanted : (uint32_t)(LISTS_PER_ROOT * sqrt((double)rows));
    most = most < VEX_LISTS_MAX ? most : VEX_LISTS_MAX;
    count = count < most ? count : most;
    return count < 1 ? 1 : count;
}

uint32_t vex_lists_places(uint32_t count)
{
    return (uint32_t)vex_round_up(count, VEX_LIST_TILE_ROWS);
}

/* Offsets in the section: tiles, scales, squares, starts. All but the last are whole lines. */
struct lists_layout {
    uint64_t scales;
    uint64_t squares;
    uint64_t starts;
    uint64_t bytes;
};

static struct lists_layout lay_out(uint32_t count, uint32_t padded)
{
    uint64_t places = vex_lists_places(count);
    struct lists_layout layout = {.scales = places * padded};
    layout.squares = layout.scales + places * sizeof(float);
    layout.starts = layout.squares + places * sizeof(float);
    layout.bytes =
        vex_round_up(layout.starts + ((uint64_t)count + 1) * sizeof(uint32_t), LINE_BYTES);
    return layout;
}

struct vex_part_size vex_lists_part_size(enum vex_index_part part, uint32_t count, uint32_t dim)
{
    if (part == VEX_PART_LISTS_HEAD) {
        return (struct vex_part_size){0, sizeof(struct vex_lists_head)};
    }
    return (struct vex_part_size){0, lay_out(count, vex_code_padded(dim)).bytes};
}

void vex_lists_place(struct vex_lists *out, const uint8_t *lists, uint32_t count, uint32_t padded)
{
    struct lists_layout layout = lay_out(count, padded);
    out->count = count;
    out->padded = padded;
    out->centres.tiles = lists;
    out->centres.scales = (const void *)(lists + layout.scales);
    out->centres.squares = (const void *)(lists + layout.squares);
    out->starts = (const void *)(lists + layout.starts);
}

float vex_centre_round(const struct vex_graph_kernels *kernels, const float *values,
                       uint32_t padded, uint32_t place, int8_t *buffer, uint8_t *tiles)
{
    float largest = kernels->max_abs(values, padded);
    float inverse = largest > 0 ? (float)VEX_CENTRE_LIMIT / largest : 0;
    if (!(inverse < INFINITY)) {
        inverse = 0;
    }
    (void)kernels->quantise(values, padded, inverse, VEX_CENTRE_LIMIT, buffer);
    uint8_t *tile = tiles + place / VEX_LIST_TILE_ROWS * vex_list_tile_bytes(padded);
    uint8_t *row = tile + (size_t)(place % VEX_LIST_TILE_ROWS) * 4;
    for (uint32_t d = 0; d < padded; d += 4) {
        for (uint32_t i = 0; i < 4; i++) {
            row[(size_t)d * VEX_LIST_TILE_ROWS + i] = (uint8_t)(buffer[d + i] + VEX_CENTRE_MIDDLE);
        }
    }
    return inverse > 0 ? largest / (float)VEX_CENTRE_LIMIT : 0;
}

static const char *head_fault(const struct vex_lists_head *head,
                              const struct vex_index_parts *parts, const struct vex_codes *codes)
{
    if (codes->count == 0) {
        return "their rows have no codes";
    }
    if (head->rows != codes->count || head->padded != codes->padded) {
        return "they are not of these rows";
    }
    if (head->count < 1 || head->count > VEX_LISTS_MAX) {
        return "their number is out of bounds";
    }
    if (!(head->error_rms >= 0)) {
        return "their error is not a number";
    }
    if (parts->bytes[VEX_PART_LISTS] < lay_out(head->count, head->padded).bytes) {
        return "a section is missing or too short";
    }
    return NULL;
}

enum vex_status vex_lists_attach(struct vex_lists *out, const struct vex_index_parts *parts,
                                 const struct vex_codes *codes, struct vex_error *error)
{
    struct vex_lists_head head;
    memset(out, 0, sizeof(*out));
    enum vex_status status = vex_part_head(
        parts, VEX_PART_LISTS_HEAD, "lists",
        &(struct vex_part_mark){VEX_LISTS_MAGIC, VEX_LISTS_VERSION}, &head, sizeof(head), error);
    if (status != VEX_OK || head.magic == 0) {
        return status;
    }
    const char *fault = head_fault(&head, parts, codes);
    if (fault) {
        return vex_error_set(error, VEX_ERR_CORRUPT, "lists: %s", fault);
    }
    out->rows = head.rows;
    out->error_rms = head.error_rms;
    vex_lists_place(out, parts->start[VEX_PART_LISTS], head.count, head.padded);
    return VEX_OK;
}

struct vex_list_range vex_lists_range(const struct vex_lists *lists, uint32_t list)
{
    uint32_t first = lists->starts[list];
    uint32_t end = lists->starts[list + 1];
    end = end < lists->rows ? end : lists->rows;
    first = first < end ? first : end;
    return (struct vex_list_range){first, end - first};
}

enum vex_status vex_lists_validate(const struct vex_segment *segment, struct vex_error *error)
{
    const struct vex_lists *lists = &segment->lists;
    unsigned long long id = segment->segment_id;
    if (lists->count == 0) {
        return VEX_OK;
    }
    if (lists->starts[0] != 0 || lists->starts[lists->count] != lists->rows) {
        return vex_error_set(error, VEX_ERR_CORRUPT,
                             "segment %llu: its lists do not cover its rows", id);
    }
    for (uint32_t i = 0; i < vex_lists_places(lists->count); i++) {
        bool is_list = i < lists->count;
        if (is_list && lists->starts[i] > lists->starts[i + 1]) {
            return vex_error_set(error, VEX_ERR_CORRUPT,
                                 "segment %llu: list %u ends before it begins", id, i);
        }
        bool is_sound =
            isfinite(lists->centres.scales[i]) && isfinite(lists->centres.squares[i]) == is_list;
        for (uint32_t d = 0; d < lists->padded && is_sound; d++) {
            is_sound = lists->centres.tiles[(uint64_t)i * lists->padded + d] <
                       VEX_CENTRE_MIDDLE + VEX_CENTRE_LIMIT + 1;
        }
        if (!is_sound) {
            return vex_error_set(error, VEX_ERR_CORRUPT,
                                 "segment %llu: the centre of list %u is out of bounds", id, i);
        }
    }
    return VEX_OK;
}
