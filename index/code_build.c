#include "index/code_build.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "index/half.h"

#define SEED 0x76657864622d6731u
#define DRIFT_SHARE 0.1f /* of the mean length, by which a centre may be off and still be kept */
#define LONGER_BY 4.0f   /* than the longest of before a row may be */
#define LONGER_DOT 1.05f /* the same under dot, where what is longer has no rest */
#define UNIT_RATIO 2.0f  /* by which the mean of a factor may have moved from its unit */
#define BLUR_QUERIES 128u
#define BLUR_NEAR 16u
#define CHUNK_ROWS 64u /* between two pauses: a few milliseconds at most */

uint32_t vex_code_sample_count(const struct vex_segment_writer *writer)
{
    return writer->rows < VEX_CODE_SAMPLE_ROWS ? writer->rows : VEX_CODE_SAMPLE_ROWS;
}

uint32_t vex_code_sample_row(const struct vex_segment_writer *writer, uint32_t i)
{
    if (writer->rows <= VEX_CODE_SAMPLE_ROWS) {
        return i;
    }
    return (uint32_t)(vex_mix64(SEED + (i + 1) * 0x9e3779b97f4a7c15u) % writer->rows);
}

/* ---- before the first row -------------------------------------------------------------------- */

/* The longest row becomes 1; lengths beyond a float's own range are met halfway. */
static float find_scale(const struct vex_segment_writer *writer)
{
    float longest = 0;
    for (uint32_t row = 0; row < writer->rows; row++) {
        float norm = writer->segment.norms[row];
        longest = norm > longest ? norm : longest;
    }
    if (longest == 0) {
        return 1;
    }
    return longest < 0x1p-100f ? 0x1p100f : longest > 0x1p120f ? 0x1p-120f : 1 / longest;
}

static double row_scale(const struct vex_code_build *build, uint32_t row)
{
    if (build->segment->metric != VEX_METRIC_COSINE) {
        return (double)build->space.scale;
    }
    float norm = build->segment->norms[row];
    return norm > 0 ? 1 / (double)norm : 0;
}

static bool find_centre(struct vex_code_build *build)
{
    uint32_t dim = build->segment->dim;
    uint32_t count = vex_code_sample_count(build->writer);
    double *sums = calloc(dim, sizeof(*sums));
    float *buffer = malloc(dim * sizeof(*buffer));
    bool all = sums && buffer;
    for (uint32_t i = 0; i < count && all; i++) {
        uint32_t row = vex_code_sample_row(build->writer, i);
        const float *vector = vex_segment_row(build->segment, row, buffer);
        double scale = row_scale(build, row);
        for (uint32_t d = 0; d < dim; d++) {
            sums[d] += (double)vector[d] * scale;
        }
    }
    for (uint32_t d = 0; d < dim && all; d++) {
        build->centre[d] = (float)(sums[d] / count);
    }
    free(sums);
    free(buffer);
    return all;
}

static uint32_t pack_factors(const struct vex_code_build *build,
                             const struct vex_code_factors *factors)
{
    uint32_t add = vex_half_from_float(factors->add / build->head.add_unit);
    uint32_t rescale = vex_half_from_float(factors->rescale / build->head.rescale_unit);
    return add | rescale << 16;
}

static float positive_or_one(double value)
{
    return value > 0 && value < 1e30 ? (float)value : 1;
}

/* The rows of the sample as codes see them; NULL if memory is short. */
static float *rotate_sample(const struct vex_code_build *build, uint32_t count)
{
    size_t padded = build->space.rotation.padded;
    float *rotated = aligned_alloc(64, count * padded * sizeof(float));
    for (uint32_t i = 0; i < count && rotated; i++) {
        uint32_t row = vex_code_sample_row(build->writer, i);
        float *to = rotated + i * padded;
        vex_code_space_row(&build->space, vex_segment_row(build->segment, row, to),
                           build->segment->norms[row], to);
    }
    return rotated;
}

/* Units of the factors, so that half floats hold them wherever the data lies. */
static void find_units(struct vex_code_build *build, const float *rotated, uint32_t count,
                       uint8_t *code)
{
    size_t padded = build->space.rotation.padded;
    double add = 0;
    double rescale = 0;
    double length = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct vex_code_factors factors = vex_code_encode(
            build->space.kernels->graph, rotated + i * padded, (uint32_t)padded, code);
        add += (double)factors.add;
        rescale -= (double)factors.rescale;
        length += sqrt((double)factors.add);
    }
    build->head.add_unit = positive_or_one(add / count);
    build->head.rescale_unit = positive_or_one(rescale / count);
    build->head.mean_length = (float)(length / count);
}

struct near {
    float distance;
    uint32_t row;
};

/* The nearest rows of the sample that are not the same, ascending; returns how many. */
static uint32_t nearest_others(const struct vex_code_build *build, const float *rotated,
                               uint32_t count, uint32_t query, float *distances,
                               struct near out[BLUR_NEAR])
{
    size_t padded = build->space.rotation.padded;
    uint32_t found = 0;
    build->space.kernels->l2_rows(rotated + query * padded, rotated, padded, count, padded,
                                  distances);
    for (uint32_t i = 0; i < count; i++) {
        if (!(distances[i] > 0) ||
            (found == BLUR_NEAR && distances[i] >= out[BLUR_NEAR - 1].distance)) {
            continue;
        }
        uint32_t at = found < BLUR_NEAR ? found++ : BLUR_NEAR - 1;
        for (; at > 0 && out[at - 1].distance > distances[i]; at--) {
            out[at] = out[at - 1];
        }
        out[at] = (struct near){distances[i], i};
    }
    return found;
}

static int compare_floats(const void *a, const void *b)
{
    const float *left = a;
    const float *right = b;
    return (*left > *right) - (*left < *right);
}

struct blur_scratch {
    float distances[VEX_CODE_SAMPLE_ROWS];
    float shares[BLUR_QUERIES];
    struct vex_score_batch batch;
};

static void find_blur(struct vex_code_build *build, const float *rotated, uint32_t count,
                      uint8_t *code, int8_t *values, struct blur_scratch *scratch)
{
    const struct vex_graph_kernels *kernels = build->space.kernels->graph;
    uint32_t padded = build->space.rotation.padded;
    uint32_t shares_count = 0;
    for (uint32_t i = 0; i < count && i < BLUR_QUERIES; i++) {
        struct near near[BLUR_NEAR];
        uint32_t found = nearest_others(build, rotated, count, i, scratch->distances, near);
        if (found < BLUR_NEAR || !(near[found - 1].distance > near[0].distance)) {
            continue;
        }
        const float *query = rotated + (size_t)i * padded;
        struct vex_code_query code_query;
        struct vex_code_factors factors =
            vex_code_encode(kernels, rotated + (size_t)near[0].row * padded, padded, code);
        vex_code_query(kernels, query, padded, values, &code_query);
        code_query.base = kernels->square_sum(query, padded);
        code_query.add_unit = build->head.add_unit;
        code_query.rescale_unit = build->head.rescale_unit;
        scratch->batch.count = 1;
        scratch->batch.nodes[0] = 0;
        scratch->batch.factors[0] = pack_factors(build, &factors);
        kernels->score(&code_query, code, &scratch->batch);
        float off = fabsf(scratch->batch.distances[0] - near[0].distance);
        scratch->shares[shares_count++] = off / (near[found - 1].distance - near[0].distance);
    }
    if (shares_count > 0) {
        qsort(scratch->shares, shares_count, sizeof(float), compare_floats);
        build->head.blur = scratch->shares[shares_count / 2];
    }
}

/* Units and blur, from the sample. False if memory is short. */
static bool measure(struct vex_code_build *build)
{
    uint32_t padded = build->space.rotation.padded;
    uint32_t count = vex_code_sample_count(build->writer);
    float *rotated = rotate_sample(build, count);
    uint8_t *code = aligned_alloc(64, vex_round_up(padded / 2, 64));
    int8_t *values = aligned_alloc(64, padded);
    struct blur_scratch *scratch = aligned_alloc(64, vex_round_up(sizeof(struct blur_scratch), 64));
    bool all = rotated && code && values && scratch;
    if (all) {
        find_units(build, rotated, count, code);
        find_blur(build, rotated, count, code, values, scratch);
    }
    free(rotated);
    free(code);
    free(values);
    free(scratch);
    return all;
}

static void *writable(const struct vex_segment_writer *writer, const uint8_t *part)
{
    return writer->base + (part - writer->base);
}

static void place(struct vex_code_build *build, const struct vex_index_parts *parts)
{
    struct vex_segment_writer *writer = build->writer;
    uint32_t padded = vex_code_padded(writer->segment.dim);
    build->centre = writable(writer, parts->start[VEX_PART_CODES_ROTATION]);
    build->signs = (uint8_t *)(build->centre + padded);
    build->codes = writable(writer, parts->start[VEX_PART_CODES]);
    build->factors = writable(writer, parts->start[VEX_PART_CODE_FACTORS]);
    build->angles = writable(writer, parts->start[VEX_PART_CODE_ANGLES]);
    build->space = (struct vex_code_space){
        .metric = writer->segment.metric,
        .dim = writer->segment.dim,
        .scale = 1,
        .centre = build->centre,
        .rotation = {build->signs, padded, vex_rotation_rounds(padded)},
        .kernels = vex_kernels_get(),
    };
}

enum vex_status vex_code_build_begin(struct vex_code_build *build,
                                     struct vex_segment_writer *writer, struct vex_error *error)
{
    struct vex_index_parts parts;
    vex_segment_parts(writer, &parts);
    if (writer->rows == 0 || !parts.start[VEX_PART_CODES_HEAD]) {
        return vex_error_set(error, VEX_ERR_INVALID,
                             "codes: segment %llu has no rows, or was not laid out for codes",
                             (unsigned long long)writer->segment.segment_id);
    }
    *build = (struct vex_code_build){.writer = writer, .segment = &writer->segment};
    place(build, &parts);
    vex_rotation_make(SEED, build->space.rotation.padded, build->signs);
    if (writer->segment.metric != VEX_METRIC_COSINE) {
        build->space.scale = find_scale(writer);
    }
    if (!find_centre(build) || !measure(build)) {
        return vex_error_set(error, VEX_ERR_NOMEM, "codes: out of memory for rows of dim %u",
                             writer->segment.dim);
    }
    return VEX_OK;
}

/* ---- keeping older ones ---------------------------------------------------------------------- */

static bool is_near(float value, float before)
{
    return value <= before * UNIT_RATIO && value * UNIT_RATIO >= before;
}

/* How far the centre of the rows has moved from the older one, in units of `scale`. */
static float drift(const struct vex_code_build *build, const struct vex_codes *from, float scale)
{
    double square = 0;
    for (uint32_t d = 0; d < build->segment->dim; d++) {
        double difference = (double)build->centre[d] * (double)scale - (double)from->centre[d];
        square += difference * difference;
    }
    return (float)sqrt(square);
}

bool vex_code_build_keep(struct vex_code_build *build, const struct vex_codes *from)
{
    uint32_t padded = build->space.rotation.padded;
    struct vex_codes_head *head = &build->head;
    if (from->count == 0 || from->padded != padded ||
        memcmp(from->rotation.signs, build->signs, vex_rotation_bytes(padded)) != 0) {
        return false;
    }
    /* All lengths are in units of the longest row: those found here in those of before. */
    float scale = from->scale / build->space.scale;
    float scale_max = build->segment->metric == VEX_METRIC_DOT ? LONGER_DOT : LONGER_BY;
    if (!(scale <= scale_max) || !is_near(head->add_unit * scale * scale, from->add_unit) ||
        !is_near(head->rescale_unit * scale, from->rescale_unit) ||
        drift(build, from, scale) > DRIFT_SHARE * from->mean_length) {
        return false;
    }
    memcpy(build->centre, from->centre, build->segment->dim * sizeof(*build->centre));
    build->space.scale = from->scale;
    head->add_unit = from->add_unit;
    head->rescale_unit = from->rescale_unit;
    head->mean_length *= scale;
    return true;
}

void vex_code_build_copy(const struct vex_code_build *build, uint32_t row,
                         const struct vex_codes *from, uint32_t old)
{
    size_t code_bytes = build->space.rotation.padded / 2;
    memcpy(build->codes + row * code_bytes, from->codes + old * code_bytes, code_bytes);
    build->factors[row] = from->factors[old];
    build->angles[row] = from->angles[old];
}

/* ---- rows ------------------------------------------------------------------------------------ */

/* Whether dividing by its length left a row where it should be, up to the rounding of a float. */
static bool is_normalised(const struct vex_code_build *build, float norm)
{
    return build->segment->metric != VEX_METRIC_COSINE || (norm >= 0x1p-126f && norm <= 0x1p126f);
}

void vex_code_build_row(struct vex_code_build *build, uint32_t row, float *rotated)
{
    uint32_t padded = build->space.rotation.padded;
    vex_code_space_row(&build->space, vex_segment_row(build->segment, row, rotated),
                       build->segment->norms[row], rotated);
    struct vex_code_factors factors = vex_code_encode(build->space.kernels->graph, rotated, padded,
                                                      build->codes + (size_t)row * (padded / 2));
    build->factors[row] = pack_factors(build, &factors);
    build->angles[row] = is_normalised(build, build->segment->norms[row])
                             ? vex_half_at_least(factors.sine)
                             : VEX_ANGLE_UNKNOWN;
}

void vex_code_build_end(struct vex_code_build *build)
{
    struct vex_index_parts parts;
    struct vex_segment_writer *writer = build->writer;
    struct vex_codes_head *head = &build->head;
    vex_segment_parts(writer, &parts);
    head->magic = VEX_CODES_MAGIC;
    head->version = VEX_CODES_VERSION;
    head->count = writer->rows;
    head->padded = build->space.rotation.padded;
    head->seed = SEED;
    head->scale = build->space.scale;
    memcpy(writable(writer, parts.start[VEX_PART_CODES_HEAD]), head, sizeof(*head));
    vex_segment_attach_again(writer);
}

enum vex_status vex_code_build(struct vex_segment_writer *writer, const struct vex_build_pace *pace,
                               struct vex_error *error)
{
    struct vex_code_build build;
    enum vex_status status = vex_code_build_begin(&build, writer, error);
    if (status != VEX_OK) {
        return status;
    }
    float *rotated = aligned_alloc(64, build.space.rotation.padded * sizeof(float));
    if (!rotated) {
        return vex_error_set(error, VEX_ERR_NOMEM, "codes: out of memory");
    }
    for (uint32_t row = 0; row < writer->rows && status == VEX_OK; row++) {
        vex_code_build_row(&build, row, rotated);
        if ((row + 1) % CHUNK_ROWS == 0 && pace && !pace->pause(pace->context)) {
            status = vex_error_set(error, VEX_ERR_UNAVAILABLE, "codes: given up while building");
        }
    }
    free(rotated);
    if (status == VEX_OK) {
        vex_code_build_end(&build);
    }
    return status;
}
