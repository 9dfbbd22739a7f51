#include "index/parts.h"

#include <string.h>

#include "base/error.h"

enum vex_status vex_part_head(const struct vex_index_parts *parts, enum vex_index_part part,
                              const char *what, const struct vex_part_mark *expected,
                              void *out_head, size_t bytes, struct vex_error *error)
{
    struct vex_part_mark mark;
    memset(out_head, 0, bytes);
    if (!parts->start[part]) {
        return VEX_OK;
    }
    if (parts->bytes[part] < bytes) {
        return vex_error_set(error, VEX_ERR_CORRUPT, "%s: %llu bytes are less than a head", what,
                             (unsigned long long)parts->bytes[part]);
    }
    memcpy(out_head, parts->start[part], bytes);
    memcpy(&mark, out_head, sizeof(mark));
    if (mark.magic == 0) {
        return VEX_OK;
    }
    if (mark.magic != expected->magic) {
        return vex_error_set(error, VEX_ERR_CORRUPT, "%s: bad magic %08x", what, mark.magic);
    }
    if (mark.version != expected->version) {
        return vex_error_set(error, VEX_ERR_VERSION, "%s: version %u, this library reads %u", what,
                             mark.version, expected->version);
    }
    return VEX_OK;
}
