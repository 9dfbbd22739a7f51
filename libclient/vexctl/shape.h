/*
 * The options that say how a collection is kept and searched: --index, --storage and their
 * parameters. Several verbs take them, each somewhere in its own table; here is what they are
 * called, what the help says of them and what they mean, once.
 */
#ifndef VEX_VEXCTL_SHAPE_H
#define VEX_VEXCTL_SHAPE_H

#include <vex/vex.h>

#include "libclient/vexctl/options.h"

enum vex_shape_option {
    VEX_SHAPE_INDEX,
    VEX_SHAPE_M,
    VEX_SHAPE_EF_CONSTRUCTION,
    VEX_SHAPE_LISTS,
    VEX_SHAPE_STORAGE, /* behind those on the index, which it is not one of */
    VEX_SHAPE_COUNT
};

/* clang-format off */
/* The rows of a table of options, from position `first` on: those on the index, and all of them. */
#define VEX_SHAPE_INDEX_OPTIONS(first) \
    [(first) + VEX_SHAPE_INDEX] = {"index", 0, "INDEX", \
        "auto (exact, and hnsw from 16,384 rows of a\n" \
        "segment on; the default), flat (always\n" \
        "exact), hnsw (a graph, approximate) or ivf\n" \
        "(lists, approximate)"}, \
    [(first) + VEX_SHAPE_M] = {"m", 0, "N", \
        "links per vector of the graph, 4 to 64; default 16"}, \
    [(first) + VEX_SHAPE_EF_CONSTRUCTION] = {"ef-construction", 0, "N", \
        "effort of building the graph, 8 to 4096;\n" \
        "default 200"}, \
    [(first) + VEX_SHAPE_LISTS] = {"lists", 0, "N", \
        "lists of an ivf segment, 1 to 65536; 0, the\n" \
        "default: by its size"}
#define VEX_SHAPE_OPTIONS(first) \
    VEX_SHAPE_INDEX_OPTIONS(first), \
    [(first) + VEX_SHAPE_STORAGE] = {"storage", 0, "STORAGE", \
        "of vectors: float32 (the default), float16\n" \
        "(up to 65504) or int8 (a scale for each\n" \
        "vector); cannot be altered later"}
/* clang-format on */

/*
 * `values` are those of the table from position `first` on. What was not given leaves the defaults
 * in *out alone. Error: INVALID.
 */
enum vex_status vex_shape_parse(const char *const *values, struct vex_collection_options *out,
                                struct vex_error *error);
/* The first of the options that was given, like "--index"; NULL = none. */
const char *vex_shape_given(const char *const *values);
/* EXISTS if `info` is of another shape than the options that were given say. `values` have been parsed into
 * `shape`. */
enum vex_status vex_shape_compare(const char *const *values,
                                  const struct vex_collection_options *shape,
                                  const struct vex_collection_info *info, struct vex_error *error);

#endif
