/*
 * A vector as a JSON array: for the command line and for the lines of a JSON lines file.
 */
#ifndef VEX_VEXCTL_VECTOR_H
#define VEX_VEXCTL_VECTOR_H

#include <jansson.h>
#include <stddef.h>

#include <vex/status.h>

/* Number of components of an array that may be a vector. Errors: FORMAT (not an array), LIMIT
 * (empty or too long). */
enum vex_status vex_vector_measure(const json_t *array, size_t *out_dim, struct vex_error *error);
/* The components, dim as measured. Errors: FORMAT (not a number), LIMIT (does not fit a float). */
enum vex_status vex_vector_fill(const json_t *array, float *out, struct vex_error *error);
/* Both; *out_vector is to be freed. Errors as above, and NOMEM. */
enum vex_status vex_vector_from_json(const json_t *array, float **out_vector, size_t *out_dim,
                                     struct vex_error *error);

#endif
