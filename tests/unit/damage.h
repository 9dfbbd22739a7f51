/*
 * Damage to the parts of an index in a segment's memory, as a disk or a stray store makes it, for tests of
 * what readers do then.
 */
#ifndef VEX_TESTS_UNIT_DAMAGE_H
#define VEX_TESTS_UNIT_DAMAGE_H

#include <string.h>

#include "index/segment.h"
#include "tests/lib/random.h"

enum damage { DAMAGE_ZEROES, DAMAGE_ONES, DAMAGE_NOISE, DAMAGE_FLIPS };

/* A part that may be written; NULL if the segment does not have it. */
static inline uint8_t *part_of(const struct vex_segment_writer *writer, enum vex_index_part part,
                               uint64_t *out_bytes)
{
    struct vex_index_parts parts;
    vex_segment_parts(writer, &parts);
    *out_bytes = parts.bytes[part];
    return parts.start[part] ? writer->base + (parts.start[part] - writer->base) : NULL;
}

static inline void damage_part(const struct vex_segment_writer *writer, struct vex_random *random,
                               enum vex_index_part part, enum damage damage)
{
    uint64_t count;
    uint8_t *bytes = part_of(writer, part, &count);
    if (!bytes) {
        return; /* of another index */
    }
    switch (damage) {
    case DAMAGE_ZEROES:
        memset(bytes, 0, count);
        break;
    case DAMAGE_ONES:
        memset(bytes, 0xff, count);
        break;
    case DAMAGE_NOISE:
        vex_random_fill(random, bytes, count);
        break;
    case DAMAGE_FLIPS:
        for (uint64_t flips = 0; flips < 1 + count / 100; flips++) {
            bytes[vex_random_below(random, count)] ^= (uint8_t)(1u << vex_random_below(random, 8));
        }
        break;
    }
}

#endif
