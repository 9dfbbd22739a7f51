#include "index/effort.h"

#include <math.h>
#include <string.h>

#include "base/error.h"

#define BEYOND_MAX 4.0 /* times the largest effort that was measured */

_Static_assert(sizeof(struct vex_effort_step) == 16, "on disk");
_Static_assert(sizeof(struct vex_effort_block) == 64 + 16 * VEX_EFFORT_STEPS_MAX, "on disk");

uint32_t vex_effort_column_k(uint32_t column)
{
    static const uint32_t ks[VEX_EFFORT_COLUMNS] = {1, 10, VEX_EFFORT_K_MAX};
    return ks[column];
}

struct vex_part_size vex_effort_part_size(void)
{
    return (struct vex_part_size){0, sizeof(struct vex_effort_block)};
}

/* ---- attach ---------------------------------------------------------------------------------- */

static const char *block_fault(const struct vex_effort_block *block)
{
    if (block->unit != VEX_EFFORT_UNIT_EF && block->unit != VEX_EFFORT_UNIT_NPROBE) {
        return "its unit is unknown";
    }
    if (block->steps_count > VEX_EFFORT_STEPS_MAX) {
        return "it has too many steps";
    }
    uint32_t before = 0;
    for (uint32_t i = 0; i < block->steps_count; i++) {
        const struct vex_effort_step *step = &block->steps[i];
        if (step->effort <= before || step->effort > INT32_MAX) {
            return "its efforts do not ascend";
        }
        before = step->effort;
        for (uint32_t column = 0; column < VEX_EFFORT_COLUMNS; column++) {
            if (!(step->recalls[column] >= 0 && step->recalls[column] <= 1)) {
                return "a recall is not within 0 to 1";
            }
        }
    }
    return NULL;
}

enum vex_status vex_effort_attach(struct vex_effort_table *out, const struct vex_index_parts *parts,
                                  struct vex_error *error)
{
    struct vex_effort_block block;
    memset(out, 0, sizeof(*out));
    enum vex_status status =
        vex_part_head(parts, VEX_PART_EFFORT, "effort",
                      &(struct vex_part_mark){VEX_EFFORT_MAGIC, VEX_EFFORT_VERSION}, &block,
                      sizeof(block), error);
    if (status != VEX_OK || block.magic == 0) {
        return status;
    }
    const char *fault = block_fault(&block);
    if (fault) {
        return vex_error_set(error, VEX_ERR_CORRUPT, "effort: %s", fault);
    }
    out->unit = (enum vex_effort_unit)block.unit;
    out->steps_count = block.steps_count;
    memcpy(out->steps, block.steps, block.steps_count * sizeof(block.steps[0]));
    return VEX_OK;
}

/* ---- looking up ------------------------------------------------------------------------------ */

static double effort_at(const struct vex_effort_table *table, uint32_t column, double recall)
{
    const struct vex_effort_step *steps = table->steps;
    for (uint32_t i = 0; i < table->steps_count; i++) {
        double reached = (double)steps[i].recalls[column];
        if (reached < recall) {
            continue;
        }
        if (i == 0) {
            return steps[0].effort;
        }
        /* The step before did not reach it, so this one is above that one. */
        double before = (double)steps[i - 1].recalls[column];
        double share = (recall - before) / (reached - before);
        return steps[i - 1].effort + share * (steps[i].effort - steps[i - 1].effort);
    }
    /* Misses fall about as fast as effort rises. */
    const struct vex_effort_step *last = &steps[table->steps_count - 1];
    double beyond = (1 - (double)last->recalls[column]) / (1 - recall);
    return last->effort * (beyond < BEYOND_MAX ? beyond : BEYOND_MAX);
}

uint32_t vex_effort_for(const struct vex_effort_table *table, enum vex_effort_unit unit, uint32_t k,
                        double recall)
{
    if (table->steps_count == 0 || table->unit != unit) {
        return 0;
    }
    uint32_t column = 0;
    while (column + 1 < VEX_EFFORT_COLUMNS && vex_effort_column_k(column) < k) {
        column++;
    }
    double effort = effort_at(table, column, recall);
    uint32_t column_k = vex_effort_column_k(column);
    if (k > column_k) {
        effort *= (double)k / column_k;
    } else if (k < column_k && column > 0) {
        uint32_t least_k = vex_effort_column_k(column - 1);
        double least = effort_at(table, column - 1, recall);
        effort = least + (effort - least) * (k - least_k) / (column_k - least_k);
    }
    return effort < INT32_MAX ? (uint32_t)ceil(effort) : INT32_MAX;
}
