/*
 * Made-up vectors of low intrinsic dimension; the model is in latent.h.
 */
#include "tests/bench/latent.h"

#include <math.h>
#include <stdlib.h>

#include "tests/bench/common.h"

#define CLUSTERS 256u
#define UNIFORMS 4u /* in a sum that stands for a Gaussian */
/* Steps against the distance of centres: clusters overlap, so that a graph has no islands. */
#define STEP 0.6f
/* Of a value whose own standard deviation is near 1. */
#define NOISE 0.1f

/* Nearly Gaussian, of variance 1. */
static float bell(const float *uniforms)
{
    float sum = 0;
    for (unsigned i = 0; i < UNIFORMS; i++) {
        sum += uniforms[i];
    }
    return sum * sqrtf(3.0f / UNIFORMS);
}

static float *make_bells(size_t count, uint64_t *seed)
{
    float *bells = vex_bench_alloc(count, sizeof(*bells));
    for (size_t i = 0; i < count; i++) {
        float uniforms[UNIFORMS];
        vex_data_fill(uniforms, UNIFORMS, seed);
        bells[i] = bell(uniforms);
    }
    return bells;
}

void vex_latent_init(struct vex_latent *model, uint32_t dim, uint32_t latent, uint64_t *seed)
{
    *model = (struct vex_latent){.dim = dim, .latent = latent};
    model->map = make_bells((size_t)latent * dim, seed);
    model->centres = make_bells((size_t)CLUSTERS * latent, seed);
    float scale = 1 / sqrtf((float)latent);
    for (size_t i = 0; i < (size_t)latent * dim; i++) {
        model->map[i] *= scale;
    }
}

/* `random` has UNIFORMS for each latent dimension, one that chooses the cluster, and one for each value. */
static void make_row(const struct vex_latent *model, const float *random, float *row)
{
    const float *noise = random + (size_t)model->latent * UNIFORMS + 1;
    uint32_t cluster = (uint32_t)((noise[-1] * 0.5f + 0.5f) * CLUSTERS) % CLUSTERS;
    const float *centre = model->centres + (size_t)cluster * model->latent;
    for (uint32_t d = 0; d < model->dim; d++) {
        row[d] = NOISE * noise[d];
    }
    for (uint32_t i = 0; i < model->latent; i++) {
        float place = centre[i] + STEP * bell(random + (size_t)i * UNIFORMS);
        const float *direction = model->map + (size_t)i * model->dim;
        for (uint32_t d = 0; d < model->dim; d++) {
            row[d] += place * direction[d];
        }
    }
}

void vex_latent_draw(const struct vex_latent *model, size_t rows, uint64_t *seed,
                     struct vex_vectors *out)
{
    *out = (struct vex_vectors){.rows = rows, .dim = model->dim};
    out->values = vex_bench_alloc(rows * model->dim, sizeof(*out->values));
    size_t random_count = (size_t)model->latent * UNIFORMS + 1 + model->dim;
    float *random = vex_bench_alloc(random_count, sizeof(*random));
    for (size_t i = 0; i < rows && !vex_bench_stopped(); i++) {
        vex_data_fill(random, random_count, seed);
        make_row(model, random, out->values + i * model->dim);
    }
    free(random);
}

void vex_latent_deinit(struct vex_latent *model)
{
    free(model->map);
    free(model->centres);
    *model = (struct vex_latent){0};
}
