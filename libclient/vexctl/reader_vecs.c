/*
 * fvecs and bvecs: rows that each begin with their dimension as a little-endian int32, and no
 * header.
 *
 * A file without a header has no magic, so the dims are all there is to check: each one is looked
 * at, which also finds a file that was cut short or joined wrongly. A float file read as bytes, or
 * the other way round, shows in the second row.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "libclient/vexctl/fault.h"
#include "libclient/vexctl/reader_priv.h"

#define DIM_BYTES 4u
#define ROWS_LOOKED_AT 4

static uint32_t load_dim(const uint8_t *from)
{
    uint32_t dim;
    memcpy(&dim, from, sizeof(dim));
    return dim;
}

bool vex_reader_looks_like_vecs(const uint8_t *data, size_t bytes, size_t element_bytes)
{
    if (bytes < DIM_BYTES) {
        return false;
    }
    uint32_t dim = load_dim(data);
    if (dim == 0 || dim > VEX_DIM_MAX) {
        return false;
    }
    size_t row_bytes = DIM_BYTES + dim * element_bytes;
    size_t at = 0;
    for (int row = 0; row < ROWS_LOOKED_AT && at < bytes; row++) {
        if (bytes - at < row_bytes || load_dim(data + at) != dim) {
            return false;
        }
        at += row_bytes;
    }
    return true;
}

static enum vex_status check_row(const struct vex_reader *reader, uint64_t row, size_t at,
                                 struct vex_error *error)
{
    char why[160];
    size_t left = reader->bytes - at;
    uint32_t dim = left < DIM_BYTES ? reader->dim : load_dim(reader->data + at);
    if (dim != reader->dim) {
        (void)snprintf(why, sizeof(why),
                       "row %" PRIu64 " (byte %zu) has dimension %" PRId32
                       ", the rows before it have %" PRIu32,
                       row, at, (int32_t)dim, reader->dim);
    } else if (left < reader->row_bytes) {
        (void)snprintf(why, sizeof(why),
                       "row %" PRIu64 " (byte %zu) is cut short: %zu of its %zu bytes are there",
                       row, at, left, reader->row_bytes);
    } else {
        return VEX_OK;
    }
    /* What follows good rows is damage; only a first or second row tells of another format. */
    return row < 2 ? vex_reader_fail_foreign(reader, error, why)
                   : vex_fault(error, VEX_ERR_FORMAT, "%s", why);
}

enum vex_status vex_reader_open_vecs(struct vex_reader *reader, struct vex_error *error)
{
    reader->element = reader->format == VEX_READER_FVECS ? VEX_ELEMENT_F4 : VEX_ELEMENT_U1;
    if (reader->bytes < DIM_BYTES) {
        return vex_reader_fail_foreign(reader, error,
                                       "row 0 (byte 0) is cut short within its dimension");
    }
    uint32_t dim = load_dim(reader->data);
    if (dim == 0 || dim > VEX_DIM_MAX) {
        char why[100];
        (void)snprintf(why, sizeof(why),
                       "row 0 (byte 0) has dimension %" PRId32 ", allowed are 1 to %u",
                       (int32_t)dim, VEX_DIM_MAX);
        return vex_reader_fail_foreign(reader, error, why);
    }
    reader->dim = dim;
    reader->prefix_bytes = DIM_BYTES;
    reader->row_bytes = DIM_BYTES + dim * vex_element_bytes(reader->element);
    uint64_t row = 0;
    for (size_t at = 0; at < reader->bytes; at += reader->row_bytes) {
        enum vex_status status = check_row(reader, row, at, error);
        if (status != VEX_OK) {
            return status;
        }
        row++;
    }
    reader->rows_count = row;
    return VEX_OK;
}
