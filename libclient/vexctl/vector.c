/*
 * JSON numbers to floats. JSON has no NaN and no infinity, so what can go wrong is the type, the
 * number of components and a value beyond a 32-bit float's range.
 */
#include "libclient/vexctl/vector.h"

#include <float.h>
#include <stdlib.h>

#include <vex/types.h>

#include "libclient/vexctl/fault.h"

enum vex_status vex_vector_measure(const json_t *array, size_t *out_dim, struct vex_error *error)
{
    if (!json_is_array(array)) {
        return vex_fault(error, VEX_ERR_FORMAT, "a vector must be an array of numbers");
    }
    size_t dim = json_array_size(array);
    if (dim == 0 || dim > VEX_DIM_MAX) {
        return vex_fault(error, VEX_ERR_LIMIT, "a vector of %zu numbers; allowed are 1 to %u", dim,
                         VEX_DIM_MAX);
    }
    *out_dim = dim;
    return VEX_OK;
}

enum vex_status vex_vector_fill(const json_t *array, float *out, struct vex_error *error)
{
    for (size_t i = 0; i < json_array_size(array); i++) {
        const json_t *item = json_array_get(array, i);
        if (!json_is_number(item)) {
            return vex_fault(error, VEX_ERR_FORMAT, "component %zu is not a number", i);
        }
        double value = json_number_value(item);
        if (value > (double)FLT_MAX || value < -(double)FLT_MAX) {
            return vex_fault(error, VEX_ERR_LIMIT, "component %zu: %g does not fit a 32-bit float",
                             i, value);
        }
        out[i] = (float)value;
    }
    return VEX_OK;
}

enum vex_status vex_vector_from_json(const json_t *array, float **out_vector, size_t *out_dim,
                                     struct vex_error *error)
{
    size_t dim = 0;
    enum vex_status status = vex_vector_measure(array, &dim, error);
    if (status != VEX_OK) {
        return status;
    }
    float *vector = malloc(dim * sizeof(*vector));
    if (!vector) {
        return vex_fault(error, VEX_ERR_NOMEM, "out of memory for %zu numbers", dim);
    }
    status = vex_vector_fill(array, vector, error);
    if (status != VEX_OK) {
        free(vector);
        return status;
    }
    *out_vector = vector;
    *out_dim = dim;
    return VEX_OK;
}
