#include "index/code_space.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "index/segment.h"

struct vex_code_space vex_code_space_of(const struct vex_segment *segment)
{
    return (struct vex_code_space){
        .metric = segment->metric,
        .dim = segment->dim,
        .scale = segment->codes.scale,
        .centre = segment->codes.centre,
        .rotation = segment->codes.rotation,
        .kernels = vex_kernels_get(),
    };
}

/* 0 for lengths that have no inverse: such a row lies at the origin. */
static float inverse_of(double length)
{
    double inverse = 1 / length;
    return inverse <= FLT_MAX ? (float)inverse : 0;
}

void vex_code_space_row(const struct vex_code_space *space, const float *row, float norm,
                        float *out)
{
    const struct vex_graph_kernels *kernels = space->kernels->graph;
    float scale = space->metric == VEX_METRIC_COSINE ? inverse_of(norm) : space->scale;
    kernels->centre(row, scale, space->centre, space->dim, space->rotation.padded, out);
    vex_rotation_apply(&space->rotation, kernels, out);
}

/* Only scaled: under dot it is the rows alone that are centred. */
static float rotate_dot_query(const struct vex_code_space *space, const float *query, float scale,
                              float *rotated)
{
    float along_centre = 0;
    for (uint32_t i = 0; i < space->dim; i++) {
        rotated[i] = query[i] * scale;
    }
    memset(rotated + space->dim, 0, (space->rotation.padded - space->dim) * sizeof(*rotated));
    space->kernels->dot_rows(rotated, space->centre, space->dim, 1, space->dim, &along_centre);
    vex_rotation_apply(&space->rotation, space->kernels->graph, rotated);
    return along_centre;
}

void vex_code_space_query(const struct vex_code_space *space, const struct vex_codes *codes,
                          const float *query, double query_norm, float *rotated, int8_t *values,
                          struct vex_code_target *out)
{
    const struct vex_graph_kernels *kernels = space->kernels->graph;
    uint32_t padded = space->rotation.padded;
    bool is_l2 = space->metric == VEX_METRIC_L2;
    double along_centre = 0;
    if (space->metric == VEX_METRIC_DOT) {
        along_centre = rotate_dot_query(space, query, inverse_of(query_norm), rotated);
    } else {
        kernels->centre(query, is_l2 ? space->scale : inverse_of(query_norm), space->centre,
                        space->dim, padded, rotated);
        vex_rotation_apply(&space->rotation, kernels, rotated);
    }
    float square = kernels->square_sum(rotated, padded);
    vex_code_query(kernels, rotated, padded, values, &out->code);
    out->code.add_unit = codes->add_unit;
    out->code.rescale_unit = codes->rescale_unit;
    out->code.base = square;
    out->length = sqrtf(square);
    out->key_offset = 0;
    switch (space->metric) {
    case VEX_METRIC_L2:
        out->key_scale = 1 / ((double)space->scale * space->scale);
        break;
    case VEX_METRIC_COSINE:
        out->key_scale = 0.5;
        break;
    case VEX_METRIC_DOT:
        out->key_scale = query_norm / (2 * (double)space->scale);
        out->key_offset = -2 * out->key_scale;
        /* All rows have length 1 here: what they add is in the base. */
        out->code.add_unit = 0;
        out->code.base = (float)(2 - 2 * along_centre);
        break;
    }
}
