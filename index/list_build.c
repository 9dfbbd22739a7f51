#include "index/list_build.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/panic.h"
#include "index/exact.h"
#include "index/half.h"
#include "index/lists.h"

#define PAUSE_ROWS 64u
#define ALIGNMENT 64u
#define CALIBRATION_QUERIES 64u
#define CALIBRATION_ROWS 64u /* neighbours in its list that a query is compared with */

struct list_build {
    struct vex_segment_writer *writer;
    struct vex_code_build codes;
    struct vex_lists lists; /* in the segment's sections */
    uint8_t *tiles;
    float *scales;
    float *squares;
    float *rotated;
    float *query; /* a row, decoded */
    float *mean;
    int8_t *buffer;
    const struct vex_build_pace *pace;
    uint32_t longest;
};

static void *writable(const struct vex_segment_writer *writer, const void *at)
{
    return writer->base + ((const uint8_t *)at - writer->base);
}

/* False if the segment has no room for lists. */
static bool find_lists(const struct vex_segment_writer *writer, uint32_t lists,
                       struct vex_lists *out)
{
    struct vex_index_parts parts;
    uint32_t dim = writer->segment.dim;
    vex_segment_parts(writer, &parts);
    if (lists == 0 || !parts.start[VEX_PART_LISTS_HEAD] ||
        parts.bytes[VEX_PART_LISTS] < vex_lists_part_size(VEX_PART_LISTS, lists, dim).bytes) {
        return false;
    }
    vex_lists_place(out, parts.start[VEX_PART_LISTS], lists, vex_code_padded(dim));
    out->rows = writer->rows;
    return true;
}

void vex_lists_arrange(struct vex_segment_writer *writer, const uint32_t *starts, uint32_t lists)
{
    struct vex_lists place = {0};
    bool has_room = find_lists(writer, lists, &place);
    VEX_ASSERT(has_room && starts[lists] == writer->rows);
    memcpy(writable(writer, place.starts), starts, ((size_t)lists + 1) * sizeof(*starts));
}

static bool is_arranged(const struct vex_lists *lists)
{
    bool is_sound = lists->starts[0] == 0 && lists->starts[lists->count] == lists->rows;
    for (uint32_t i = 0; i < lists->count && is_sound; i++) {
        is_sound = lists->starts[i] <= lists->starts[i + 1];
    }
    return is_sound;
}

/* ---- centres --------------------------------------------------------------------------------- */

static void begin_places(struct list_build *build)
{
    uint32_t places = vex_lists_places(build->lists.count);
    build->tiles = writable(build->writer, build->lists.centres.tiles);
    build->scales = writable(build->writer, build->lists.centres.scales);
    build->squares = writable(build->writer, build->lists.centres.squares);
    memset(build->tiles, VEX_CENTRE_MIDDLE, (size_t)places * build->lists.padded);
    for (uint32_t i = 0; i < places; i++) {
        build->scales[i] = 0;
        build->squares[i] = i < build->lists.count ? 0 : INFINITY;
    }
}

static void add_to_mean(struct list_build *build)
{
    float *restrict mean = build->mean;
    const float *restrict rotated = build->rotated;
    for (uint32_t d = 0; d < build->lists.padded; d++) {
        mean[d] += rotated[d];
    }
}

static void end_list(struct list_build *build, uint32_t list, uint32_t rows)
{
    uint32_t padded = build->lists.padded;
    const struct vex_graph_kernels *kernels = build->codes.space.kernels->graph;
    build->longest = rows > build->longest ? rows : build->longest;
    if (rows == 0) {
        return;
    }
    for (uint32_t d = 0; d < padded; d++) {
        build->mean[d] /= (float)rows;
    }
    build->scales[list] =
        vex_centre_round(kernels, build->mean, padded, list, build->buffer, build->tiles);
    bool has_lengths = build->writer->segment.metric != VEX_METRIC_DOT;
    build->squares[list] = has_lengths ? kernels->square_sum(build->mean, padded) : 0;
}

static bool write_list(struct list_build *build, uint32_t list)
{
    uint32_t first = build->lists.starts[list];
    uint32_t end = build->lists.starts[list + 1];
    memset(build->mean, 0, build->lists.padded * sizeof(float));
    for (uint32_t row = first; row < end; row++) {
        vex_code_build_row(&build->codes, row, build->rotated);
        add_to_mean(build);
        if ((row + 1) % PAUSE_ROWS == 0 && build->pace &&
            !build->pace->pause(build->pace->context)) {
            return false;
        }
    }
    end_list(build, list, end - first);
    return true;
}

/* ---- error of estimates ---------------------------------------------------------------------- */

struct error_sum {
    double squares;
    double terms;
};

static double estimate(const struct vex_codes *codes, const struct vex_code_query *query,
                       uint32_t row)
{
    int32_t dot;
    vex_kernels_get()->scan->dots(query->values, codes->codes + (size_t)row * (codes->padded / 2),
                                  codes->padded, 1, &dot);
    double add = (double)vex_half_to_float((uint16_t)codes->factors[row]) * (double)query->add_unit;
    double rescale = (double)vex_half_to_float((uint16_t)(codes->factors[row] >> 16)) *
                     (double)query->rescale_unit;
    return (double)query->base + add +
           rescale * ((double)query->scale * (double)dot + (double)query->offset);
}

static void measure_query(struct list_build *build, uint32_t row, struct vex_list_range list,
                          struct error_sum *sum)
{
    const struct vex_segment *segment = &build->writer->segment;
    const float *query = vex_segment_row(segment, row, build->query);
    double norm = vex_exact_norm(query, segment->dim);
    struct vex_code_target target;
    vex_code_space_query(&build->codes.space, &segment->codes, query, norm, build->rotated,
                         build->buffer, &target);
    double unit = (double)target.length * (double)segment->codes.mean_length;
    if (!(unit > 0) || !(target.key_scale > 0)) {
        return;
    }
    uint32_t count = list.count < CALIBRATION_ROWS ? list.count : CALIBRATION_ROWS;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t other = list.first + i;
        if (other == row) {
            continue;
        }
        double truth =
            (vex_exact_row_key(segment, query, norm, other) - target.key_offset) / target.key_scale;
        double error = (estimate(&segment->codes, &target.code, other) - truth) / unit;
        if (isfinite(error)) {
            sum->squares += error * error;
            sum->terms += 1;
        }
    }
}

/* Between rows of one list, which are what queries and their answers are like. */
static float measure_error(struct list_build *build)
{
    struct error_sum sum = {0, 0};
    for (uint32_t i = 0; i < CALIBRATION_QUERIES && i < build->lists.count; i++) {
        uint32_t list = (uint32_t)((uint64_t)i * build->lists.count / CALIBRATION_QUERIES);
        if (build->lists.count < CALIBRATION_QUERIES) {
            list = i;
        }
        struct vex_list_range range = vex_lists_range(&build->lists, list);
        if (range.count > 0) {
            measure_query(build, range.first + range.count / 2, range, &sum);
        }
    }
    return sum.terms > 0 ? (float)sqrt(sum.squares / sum.terms) : 0;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static void write_head(struct list_build *build)
{
    struct vex_segment_writer *writer = build->writer;
    struct vex_lists_head head = {
        .magic = VEX_LISTS_MAGIC,
        .version = VEX_LISTS_VERSION,
        .count = build->lists.count,
        .rows = writer->rows,
        .padded = build->lists.padded,
        .error_rms = measure_error(build),
        .longest = build->longest,
    };
    struct vex_index_parts parts;
    vex_segment_parts(writer, &parts);
    memcpy(writable(writer, parts.start[VEX_PART_LISTS_HEAD]), &head, sizeof(head));
    vex_segment_attach_again(writer);
}

static enum vex_status write_lists(struct list_build *build, struct vex_error *error)
{
    begin_places(build);
    for (uint32_t list = 0; list < build->lists.count; list++) {
        if (!write_list(build, list)) {
            return vex_error_set(error, VEX_ERR_UNAVAILABLE, "lists: given up while building");
        }
    }
    vex_code_build_end(&build->codes);
    write_head(build);
    return VEX_OK;
}

enum vex_status vex_lists_build(struct vex_segment_writer *writer, uint32_t lists,
                                const struct vex_build_pace *pace, struct vex_error *error)
{
    struct list_build build = {.writer = writer, .pace = pace};
    if (!find_lists(writer, lists, &build.lists) || writer->rows == 0 ||
        !is_arranged(&build.lists)) {
        return vex_error_set(error, VEX_ERR_INVALID,
                             "lists: the rows of segment %llu are not in the order of lists",
                             (unsigned long long)writer->segment.segment_id);
    }
    enum vex_status status = vex_code_build_begin(&build.codes, writer, error);
    if (status != VEX_OK) {
        return status;
    }
    size_t bytes = build.lists.padded * sizeof(float);
    build.rotated = aligned_alloc(ALIGNMENT, bytes);
    build.mean = aligned_alloc(ALIGNMENT, bytes);
    build.query = aligned_alloc(ALIGNMENT, bytes);
    build.buffer = aligned_alloc(ALIGNMENT, build.lists.padded);
    status = build.rotated && build.mean && build.query && build.buffer
                 ? write_lists(&build, error)
                 : vex_error_set(error, VEX_ERR_NOMEM, "lists: out of memory for rows of dim %u",
                                 writer->segment.dim);
    free(build.rotated);
    free(build.mean);
    free(build.query);
    free(build.buffer);
    return status;
}
