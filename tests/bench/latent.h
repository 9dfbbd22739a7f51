/*
 * Vectors that are made up, but not of noise alone: real ones lie near something that has far fewer
 * dimensions than they have values, and in clusters. In noise of 128 dimensions all rows are nearly
 * equally far from each other, and no index is of use.
 *
 * A row is the centre of one of many clusters plus a nearly Gaussian step, both in a space of `latent`
 * dimensions, carried into the `dim` values by a random linear map, plus a little noise in every value.
 * The seed alone decides, and rows are independent of each other, so that the first n of more are as good
 * as n of their own.
 *
 * Thread-safety: one thread.
 */
#ifndef VEX_BENCH_LATENT_H
#define VEX_BENCH_LATENT_H

#include <stddef.h>
#include <stdint.h>

#include "tests/bench/vectors.h"

#define VEX_LATENT_MAX 256u

struct vex_latent {
    uint32_t dim;
    uint32_t latent; /* 1..VEX_LATENT_MAX */
    float *map;      /* latent x dim */
    float *centres;  /* clusters x latent */
};

void vex_latent_init(struct vex_latent *model, uint32_t dim, uint32_t latent, uint64_t *seed);
/* Rows of the model; vex_vectors_free() frees them. */
void vex_latent_draw(const struct vex_latent *model, size_t rows, uint64_t *seed,
                     struct vex_vectors *out);
/* Accepts a zeroed struct. */
void vex_latent_deinit(struct vex_latent *model);

#endif
