/*
 * What list_search.c (which lists, memory) and list_visit.c (estimates, ranking) share. Nobody else
 * includes this.
 *
 * A hunt is one search of a segment's lists; a seeker is one query of it.
 */
#ifndef VEX_INDEX_LIST_SEARCH_PRIV_H
#define VEX_INDEX_LIST_SEARCH_PRIV_H

#include "index/code_space.h"
#include "index/list_search.h"

#define VEX_LIST_LINE_BYTES 64u
#define VEX_LIST_CHUNK_ROWS_MAX 256u /* of a list, estimated at once */
#define VEX_LIST_RANK_GROUP 4u       /* vectors ranked together */

/* A query under way. */
struct vex_seeker {
    struct vex_code_target target;
    double norm;
    float slack; /* by which an estimate may be wrong */
    float limit; /* estimates from here on are out of reach */
    uint32_t count;
    float *distances; /* estimates of living rows within the limit, in no order */
    uint32_t *rows;
    uint32_t probes_count;
    uint32_t *probes; /* ascending */
};

struct vex_hunt {
    const struct vex_list_search *search;
    const struct vex_segment *segment;
    const struct vex_lists *lists;
    const struct vex_codes *codes;
    const struct vex_list_kernels *kernels;
    struct vex_code_space space;
    struct vex_search_counters *counters;
    uint32_t visible_rows;
    uint32_t places;
    uint32_t probes_asked; /* lists to visit */
    uint32_t probes_max;   /* where the lists near a query are short */
    uint32_t kept_max;     /* rows a seeker keeps before it looks which still matter */
    uint32_t chunk_rows;
    uint32_t group; /* seekers there is room for */
    struct vex_seeker *seekers;
    float *rotated;
    int8_t *values; /* [group][padded]: queries, rounded */
    int32_t *dots;
    float *keys;             /* [places] */
    float *found_keys;       /* [places] */
    uint32_t *found;         /* [places] */
    uint32_t *wanted_starts; /* [lists + 2]: of each list's queries in `wanted` */
    uint32_t *wanted;
    uint8_t *tiles;
    struct vex_row_factors factors;
    const uint8_t *ahead; /* codes that will be read next */
    size_t ahead_bytes;
};

/*
 * A limit within which lie `wanted` of the values and at most `more` others, unless they are too close
 * together; found by doubling `width`, a guess, and then halving. `count` is a multiple of 16, padded with infinity.
 */
float vex_limit_for(const struct vex_list_kernels *kernels, const float *values, size_t count,
                    uint32_t wanted, uint32_t more, float width, uint32_t *out_within);
/* The rows of a list that a search may see. Read once: under a reader whose memory was taken away, a
 * second reading may say something else. */
struct vex_list_range vex_hunt_range(const struct vex_hunt *hunt, uint32_t list);

/* Estimates the rows of the lists that `count` seekers want, of which the first is query number `first`. */
void vex_hunt_visit(struct vex_hunt *hunt, size_t first, uint32_t count);
/* Ranks what is within reach and offers it to their topks. */
void vex_hunt_finish(struct vex_hunt *hunt, size_t first, uint32_t count);

#endif
