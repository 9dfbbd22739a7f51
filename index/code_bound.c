#include "index/code_bound.h"

#include <float.h>
#include <math.h>

#define U 0x1p-24
#define TERM_ROUND (16 * U)
#define BEHIND 0.99
#define UNDERFLOW 0x1p-60
#define UNIT_MIN 0x1p-100
#define UNIT_MAX 0x1p100
#define LENGTH_MIN 0x1p-126 /* of rows and queries that have a float as inverse */
#define LENGTH_MAX 0x1p126
#define STEP_MIN 0x1p-60
#define STEP_MAX 0x1p60
#define SQUARE_MAX 0x1p60
#define SINE_TYPICAL 0.107 /* of Gaussian coordinates in sixteen levels */
#define SLOPE_MAX 8.0

/* What the steps of the proof need of query and centre, in units. */
struct measures {
    double square; /* |q'|^2 */
    double coded;  /* |q^|^2 */
    double blur;   /* |q' - q^| */
    double centre; /* |c| */
    double tilt;
    double shift;
};

double vex_code_bound_tilt(const struct vex_rotation *rotation)
{
    unsigned log = 31u - (unsigned)__builtin_clz(rotation->padded);
    return rotation->rounds * (log + 8) * U + 4 * U;
}

static struct measures measure(const struct vex_code_space *space, const float *rotated,
                               const struct vex_code_query *code, double unit)
{
    double square = 0;
    double coded = 0;
    double blur = 0;
    double centre = 0;
    double scale = (double)code->scale;
    for (uint32_t i = 0; i < code->padded; i++) {
        double value = (double)rotated[i];
        double byte = code->values[i];
        double difference = value - scale * byte;
        square += value * value;
        coded += byte * byte;
        blur += difference * difference;
    }
    for (uint32_t i = 0; i < space->dim; i++) {
        centre += (double)space->centre[i] * (double)space->centre[i];
    }
    const double up = 1 + 1e-9; /* what these sums may have lost */
    return (struct measures){
        .square = square / unit,
        .coded = coded * scale * scale / unit * up,
        .blur = sqrt(blur / unit) * up,
        .centre = sqrt(centre / unit) * up,
        .tilt = vex_code_bound_tilt(&space->rotation),
        .shift = 2 * U,
    };
}

static double lowered(double term)
{
    return term - TERM_ROUND * fabs(term);
}

static bool is_between(double value, double least, double most)
{
    return value >= least && value <= most;
}

static bool is_covered(const struct vex_code_bound *bound, const struct vex_code_space *space,
                       const struct vex_codes *codes, double query_norm,
                       const struct measures *measures)
{
    bool by_length = bound->metric != VEX_METRIC_L2;
    double step = -(double)bound->fixed.ahead;
    return codes->padded <= VEX_BOUND_PADDED_MAX &&
           is_between((double)codes->add_unit, UNIT_MIN, UNIT_MAX) &&
           is_between((double)codes->rescale_unit, UNIT_MIN, UNIT_MAX) &&
           is_between((double)space->scale, LENGTH_MIN, LENGTH_MAX) &&
           (!by_length || is_between(query_norm, LENGTH_MIN, LENGTH_MAX)) &&
           (step == 0 || is_between(step, STEP_MIN, STEP_MAX)) && measures->square <= SQUARE_MAX &&
           measures->coded <= SQUARE_MAX && measures->blur <= SQUARE_MAX &&
           measures->centre <= SQUARE_MAX;
}

/* Step 5. */
static void place_distance(struct vex_code_bound *bound, const struct vex_code_space *space,
                           const struct measures *m, double unit)
{
    double scale = (double)space->scale;
    double spread = 4 * m->tilt + 2 * m->shift * m->centre;
    double loss = m->blur + spread;
    bound->fixed.by_add =
        (float)lowered(1 - (double)VEX_SPREAD_HALF - loss * (1 + (double)VEX_SPREAD_HALF));
    bound->constant = m->square * (1 - spread - 1e-9) - m->blur - 4 * m->shift * m->centre -
                      (1 + loss) * 2 * (double)VEX_SPREAD_FLOOR;
    if (bound->metric == VEX_METRIC_L2) {
        bound->key_scale = scale * scale / unit * (1 + (space->dim + 8) * 0x1p-52);
    } else {
        bound->key_scale = 2 * (1 + 4.1 * U) / unit;
        bound->key_offset = bound->key_scale * (space->dim + 8) * 0x1p-50 + 16 * U * U / unit;
    }
}

/* Step 6. Twice the bound on the inner product, so that it has the scale of step 5. */
static void place_dot(struct vex_code_bound *bound, const struct vex_code_space *space,
                      const float *query, double query_norm, const struct measures *m, double unit)
{
    double query_scale = (double)(float)(1 / query_norm);
    double along_centre = 0;
    double length = sqrt(m->square);
    for (uint32_t i = 0; i < space->dim; i++) {
        along_centre += (double)query[i] * (double)space->centre[i];
    }
    double loss = m->blur + 2.1 * m->tilt * length;
    bound->fixed.by_add = (float)lowered(-loss * (1 + (double)VEX_SPREAD_HALF));
    bound->constant = -2 * along_centre * query_scale / unit - m->blur - 2.1 * m->tilt * length -
                      2.2 * m->shift * m->centre * length -
                      (1 + loss) * 2 * (double)VEX_SPREAD_FLOOR;
    bound->key_scale = 2 * query_scale * (double)space->scale / unit;
}

void vex_code_bound_init(struct vex_code_bound *bound, const struct vex_code_space *space,
                         const struct vex_codes *codes, const float *query, double query_norm,
                         const float *rotated, const struct vex_code_target *target)
{
    double unit = (double)codes->add_unit;
    double step = (double)target->code.scale * (double)codes->rescale_unit / unit;
    struct measures measures = measure(space, rotated, &target->code, unit);
    int64_t sum = 0;
    for (uint32_t i = 0; i < codes->padded; i++) {
        sum += target->code.values[i];
    }
    *bound = (struct vex_code_bound){
        .metric = space->metric,
        .dim = space->dim,
        .square = measures.square,
        .length = sqrt(measures.coded),
        .fixed = {.middle = VEX_CODE_MIDDLE * (float)sum,
                  .ahead = (float)-step,
                  .behind = (float)(-step * BEHIND)},
    };
    if (space->metric == VEX_METRIC_DOT) {
        place_dot(bound, space, query, query_norm, &measures, unit);
    } else {
        place_distance(bound, space, &measures, unit);
    }
    bound->is_usable = is_covered(bound, space, codes, query_norm, &measures);
}

/* Where rows of typical length at the threshold meet the tangent: the cotangent of the angle between
 * query and code. */
static double slope_at(const struct vex_code_bound *bound, double threshold)
{
    double cosine = bound->metric == VEX_METRIC_DOT
                        ? (bound->constant - threshold) / (2 * bound->length)
                        : (1 + bound->square - threshold) / (2 * bound->length);
    if (!(cosine > 0)) {
        return 0;
    }
    double angle = (cosine < 1 ? acos(cosine) : 0) + SINE_TYPICAL;
    double slope = 1 / tan(angle);
    return slope > 0 ? fmin(slope, SLOPE_MAX) : 0;
}

void vex_code_bound_terms(const struct vex_code_bound *bound, double key,
                          struct vex_scan_terms *out)
{
    *out = bound->fixed;
    double threshold = key * bound->key_scale + bound->key_offset;
    if (bound->metric != VEX_METRIC_DOT && threshold < bound->key_offset) {
        threshold = bound->key_offset; /* a cosine beyond 1, by rounding */
    }
    /* Under dot the threshold is a negated product, large where nothing is near. */
    double base = bound->constant - threshold;
    double slope = slope_at(bound, threshold);
    out->base = (float)(lowered(base) - 0x1p-48 * fabs(threshold) - UNDERFLOW);
    out->by_across = (float)lowered(-2 * bound->length * sqrt(1 + slope * slope));
    out->by_turn = (float)(-(double)bound->fixed.ahead * slope);
    if (!bound->is_usable || !(fabs(base) <= SQUARE_MAX)) {
        out->base = -INFINITY;
    }
}

void vex_code_bound_guess(const struct vex_code_bound *bound, float threshold,
                          struct vex_scan_terms *out)
{
    *out = bound->fixed;
    out->by_add = bound->metric == VEX_METRIC_DOT ? 0 : 1;
    out->behind = out->ahead;
    out->by_across = 0;
    out->by_turn = 0;
    out->base = -threshold;
}
