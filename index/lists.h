/*
 * Inverted lists of a sealed segment: its rows in the order of clusters, and where each cluster ends.
 *
 * A merge clusters the rows first (kmeans.h) and appends them list by list, so a list is a range of
 * rows: its codes, factors, ids, deaths and vectors lie side by side, and nothing names rows one by
 * one. Beside the codes, which any segment may have (code_set.h), lists take a few bytes a row: for
 * each list a centre, the mean of its rows as codes see them (code_space.h), rounded to seven bits a
 * dimension with a scale of its own and kept as tiles (list_kernels.h), and its square.
 *
 * A query goes to the lists with the smallest key
 *
 *     |q - c|^2 - |q|^2 = |c|^2 - 2 <q, c>      (under dot: - 2 <q, c>)
 *
 * Numbers are bounded at attach and starts when they are read, so damaged bytes cost answers, never
 * safety (I8). Thread-safety: lists are immutable. Building writes them once, the head last.
 */
#ifndef VEX_INDEX_LISTS_H
#define VEX_INDEX_LISTS_H

#include <stdbool.h>
#include <stdint.h>

#include <vex/status.h>
#include <vex/types.h>

#include "index/code_set.h"
#include "index/list_kernels.h"

struct vex_segment;

#define VEX_LISTS_MAGIC 0x4c584556u /* "VEXL" */
#define VEX_LISTS_VERSION 1u
/* Rows from which on lists are worth having: below, a scan of the codes takes microseconds. */
#define VEX_LISTS_ROWS_MIN 1024u
#define VEX_CENTRE_LIMIT 63  /* of a rounded coordinate */
#define VEX_CENTRE_MIDDLE 64 /* the byte that stands for 0 */

/* The section VEX_PART_LISTS_HEAD. On disk. */
struct vex_lists_head {
    uint32_t magic; /* 0: not built */
    uint32_t version;
    uint32_t count;
    uint32_t rows;
    uint32_t padded;
    float error_rms;  /* of an estimate, as a share of both lengths */
    uint32_t longest; /* rows of the longest list */
    uint32_t reserved[9];
};

/* Centres: [tiles] of bytes and for each place, of which there are whole tiles, two floats. A place
 * without a centre has a square of infinity. */
struct vex_centres {
    const uint8_t *tiles;
    const float *scales;
    const float *squares;
};

/* Checked lists: pointers into the image and private copies of what bounds them. */
struct vex_lists {
    uint32_t count; /* 0: none */
    uint32_t rows;
    uint32_t padded;
    float error_rms;
    struct vex_centres centres;
    const uint32_t *starts; /* [count + 1] */
};

/* How many lists suit so many rows, if nobody has asked for a number; `wanted` = 0 asks for that.
 * At least 1. */
uint32_t vex_lists_count_for(uint32_t rows, uint32_t wanted);
/* Places of centres: whole tiles. */
uint32_t vex_lists_places(uint32_t count);
/* Of a part of the lists. */
struct vex_part_size vex_lists_part_size(enum vex_index_part part, uint32_t count, uint32_t dim);

/* Where parts for `count` lists lie, which are large enough. */
void vex_lists_place(struct vex_lists *out, const uint8_t *lists, uint32_t count, uint32_t padded);
/* Rounds a centre into its place of the tiles; returns its scale. */
float vex_centre_round(const struct vex_graph_kernels *kernels, const float *values,
                       uint32_t padded, uint32_t place, int8_t *buffer, uint8_t *tiles);

/*
 * Checks the parts of a segment whose codes are attached and fills *out; lists that are not built
 * yet, or not there, give count 0. Errors: CORRUPT, VERSION.
 */
enum vex_status vex_lists_attach(struct vex_lists *out, const struct vex_index_parts *parts,
                                 const struct vex_codes *codes, struct vex_error *error);

/* The rows of a list, never beyond the rows there are, whatever the bytes say. */
struct vex_list_range {
    uint32_t first;
    uint32_t count;
};
struct vex_list_range vex_lists_range(const struct vex_lists *lists, uint32_t list);

/* Reads all of it. Errors: CORRUPT. */
enum vex_status vex_lists_validate(const struct vex_segment *segment, struct vex_error *error);

#endif
