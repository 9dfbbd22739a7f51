#include "libclient/vexctl/shape.h"

#include <inttypes.h>

#include "libclient/vexctl/fault.h"
#include "libclient/vexctl/parse.h"

static const char *const names[VEX_SHAPE_COUNT] = {
    [VEX_SHAPE_INDEX] = "--index",
    [VEX_SHAPE_M] = "--m",
    [VEX_SHAPE_EF_CONSTRUCTION] = "--ef-construction",
    [VEX_SHAPE_LISTS] = "--lists",
    [VEX_SHAPE_STORAGE] = "--storage",
};

/* A number into a field of 32 bits; text == NULL leaves it. */
static enum vex_status parse_u32(enum vex_shape_option option, const char *text, uint32_t least,
                                 uint32_t most, uint32_t *out, struct vex_error *error)
{
    uint64_t value = *out;
    enum vex_status status = vex_parse_option(names[option], text, least, most, &value, error);
    *out = (uint32_t)value;
    return status;
}

enum vex_status vex_shape_parse(const char *const *values, struct vex_collection_options *out,
                                struct vex_error *error)
{
    /* Both stand in the order of the numbers. */
    static const char *const indexes[] = {"auto", "flat", "hnsw", "ivf", NULL};
    static const char *const storages[] = {"float32", "float16", "int8", NULL};
    size_t index = out->index;
    size_t storage = out->storage;
    enum vex_status status = VEX_OK;
    if (values[VEX_SHAPE_INDEX]) {
        status = vex_parse_choice(names[VEX_SHAPE_INDEX], values[VEX_SHAPE_INDEX], indexes, &index,
                                  error);
    }
    if (status == VEX_OK && values[VEX_SHAPE_STORAGE]) {
        status = vex_parse_choice(names[VEX_SHAPE_STORAGE], values[VEX_SHAPE_STORAGE], storages,
                                  &storage, error);
    }
    if (status == VEX_OK) {
        status = parse_u32(VEX_SHAPE_M, values[VEX_SHAPE_M], VEX_HNSW_M_MIN, VEX_HNSW_M_MAX,
                           &out->m, error);
    }
    if (status == VEX_OK) {
        status = parse_u32(VEX_SHAPE_EF_CONSTRUCTION, values[VEX_SHAPE_EF_CONSTRUCTION],
                           VEX_HNSW_EF_CONSTRUCTION_MIN, VEX_HNSW_EF_CONSTRUCTION_MAX,
                           &out->ef_construction, error);
    }
    if (status == VEX_OK) {
        status = parse_u32(VEX_SHAPE_LISTS, values[VEX_SHAPE_LISTS], 0, VEX_LISTS_MAX, &out->lists,
                           error);
    }
    out->index = (enum vex_index_kind)index;
    out->storage = (enum vex_storage)storage;
    return status;
}

const char *vex_shape_given(const char *const *values)
{
    for (size_t i = 0; i < VEX_SHAPE_COUNT; i++) {
        if (values[i]) {
            return names[i];
        }
    }
    return NULL;
}

enum vex_status vex_shape_compare(const char *const *values,
                                  const struct vex_collection_options *shape,
                                  const struct vex_collection_info *info, struct vex_error *error)
{
    const bool differs[VEX_SHAPE_COUNT] = {
        [VEX_SHAPE_INDEX] = shape->index != info->index,
        [VEX_SHAPE_M] = shape->m != info->m,
        [VEX_SHAPE_EF_CONSTRUCTION] = shape->ef_construction != info->ef_construction,
        [VEX_SHAPE_LISTS] = shape->lists != info->lists,
        [VEX_SHAPE_STORAGE] = shape->storage != info->storage,
    };
    for (size_t i = 0; i < VEX_SHAPE_COUNT; i++) {
        if (values[i] && differs[i]) {
            return vex_fault(error, VEX_ERR_EXISTS,
                             "the collection '%s' exists, and not with %s %s; 'coll show' tells",
                             info->name, names[i], values[i]);
        }
    }
    return VEX_OK;
}
