#include "index/code_set.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/error.h"

_Static_assert(sizeof(struct vex_codes_head) == 64, "on disk");

struct vex_part_size vex_codes_part_size(enum vex_index_part part, uint32_t dim)
{
    uint32_t padded = vex_code_padded(dim);
    const struct vex_part_size sizes[VEX_PARTS_COUNT] = {
        [VEX_PART_CODES_HEAD] = {0, sizeof(struct vex_codes_head)},
        [VEX_PART_CODES_ROTATION] = {0,
                                     (uint64_t)padded * sizeof(float) + vex_rotation_bytes(padded)},
        [VEX_PART_CODES] = {padded / 2, 0},
        [VEX_PART_CODE_FACTORS] = {sizeof(uint32_t), 0},
        [VEX_PART_CODE_ANGLES] = {sizeof(uint16_t), 0},
    };
    return sizes[part];
}

static bool is_positive(float value)
{
    return value > 0 && isfinite(value);
}

static const char *head_fault(const struct vex_codes_head *head,
                              const struct vex_index_parts *parts, uint32_t dim,
                              uint32_t capacity_rows)
{
    if (head->count < 1 || head->count > capacity_rows) {
        return "they are more than the rows";
    }
    if (head->padded != vex_code_padded(dim)) {
        return "their length does not fit the dimension";
    }
    if (!is_positive(head->scale) || !is_positive(head->add_unit) ||
        !is_positive(head->rescale_unit) || !(head->mean_length >= 0) || !(head->blur >= 0)) {
        return "their scales are not numbers";
    }
    for (enum vex_index_part part = VEX_PART_CODES_ROTATION; part <= VEX_PART_CODE_ANGLES; part++) {
        struct vex_part_size size = vex_codes_part_size(part, dim);
        uint64_t needed = size.row_bytes ? (uint64_t)size.row_bytes * head->count : size.bytes;
        if (parts->bytes[part] < needed) {
            return "a section is missing or too short";
        }
    }
    return NULL;
}

enum vex_status vex_codes_attach(struct vex_codes *out, const struct vex_index_parts *parts,
                                 uint32_t dim, uint32_t capacity_rows, struct vex_error *error)
{
    struct vex_codes_head head;
    memset(out, 0, sizeof(*out));
    enum vex_status status = vex_part_head(
        parts, VEX_PART_CODES_HEAD, "codes",
        &(struct vex_part_mark){VEX_CODES_MAGIC, VEX_CODES_VERSION}, &head, sizeof(head), error);
    if (status != VEX_OK || head.magic == 0) {
        return status;
    }
    const char *fault = head_fault(&head, parts, dim, capacity_rows);
    if (fault) {
        return vex_error_set(error, VEX_ERR_CORRUPT, "codes: %s", fault);
    }
    const uint8_t *rotation = parts->start[VEX_PART_CODES_ROTATION];
    *out = (struct vex_codes){
        .count = head.count,
        .padded = head.padded,
        .scale = head.scale,
        .add_unit = head.add_unit,
        .rescale_unit = head.rescale_unit,
        .mean_length = head.mean_length,
        .blur = head.blur,
        .centre = (const void *)rotation,
        .rotation = {rotation + head.padded * sizeof(float), head.padded,
                     vex_rotation_rounds(head.padded)},
        .codes = parts->start[VEX_PART_CODES],
        .factors = (const void *)parts->start[VEX_PART_CODE_FACTORS],
        .angles = (const void *)parts->start[VEX_PART_CODE_ANGLES],
    };
    return VEX_OK;
}
