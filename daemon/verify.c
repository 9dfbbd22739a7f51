#include "daemon/verify.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/error.h"
#include "index/exact.h"
#include "index/index.h"
#include "index/segment.h"

/* Of the norm kept with a row and the one computed here: both are rounded, once. */
#define NORM_TOLERANCE 1e-6

VEX_PRINTF(2, 3) static void note(struct vex_verify_result *out, const char *format, ...)
{
    if (out->faults++ == 0) {
        va_list arguments;
        va_start(arguments, format);
        (void)vsnprintf(out->first_fault, sizeof(out->first_fault), format, arguments);
        va_end(arguments);
    }
}

static void check_vector(const struct vex_segment *segment, uint32_t home, uint32_t row,
                         struct vex_verify_result *out)
{
    double norm = vex_exact_row_norm(segment, row);
    double kept = (double)segment->norms[row];
    /* Of vectors whose norm is no float, the two are infinite alike. */
    bool close = isinf((float)norm) ? isinf(kept) : fabs(norm - kept) <= NORM_TOLERANCE * norm;
    if (!isfinite(norm)) {
        note(out, "segment %u, row %u (id %llu): the vector is not finite", home, row,
             (unsigned long long)segment->ids[row]);
    } else if (!close && norm > 0x1p-100) {
        note(out, "segment %u, row %u (id %llu): norm %g, but the vector's is %g", home, row,
             (unsigned long long)segment->ids[row], kept, norm);
    }
}

static void check_payload(const struct vex_home *home, uint32_t number, uint32_t row,
                          struct vex_verify_result *out)
{
    const struct vex_segment *segment = &home->writer.segment;
    const void *payload = NULL;
    size_t bytes = 0;
    bool inside = vex_segment_payload(segment, row, &payload, &bytes);
    if (inside && payload) {
        uint64_t offset = (uint64_t)((const uint8_t *)payload - segment->payloads);
        inside =
            offset <= home->writer.payload_bytes && bytes <= home->writer.payload_bytes - offset;
    }
    if (!inside) {
        note(out, "segment %u, row %u (id %llu): the payload leads outside", number, row,
             (unsigned long long)segment->ids[row]);
    }
    out->payload_bytes += inside ? bytes : 0;
}

static void check_live_row(const struct vex_live_collection *collection, uint32_t number,
                           uint32_t row, struct vex_verify_result *out)
{
    const struct vex_home *home = collection->homes[number];
    uint64_t id = home->writer.segment.ids[row];
    struct vex_location found;
    if (id > VEX_ID_MAX || id >= collection->next_id) {
        note(out, "segment %u, row %u: id %llu is out of bounds", number, row,
             (unsigned long long)id);
    } else if (!vex_registry_get_offset(collection, id, &found)) {
        note(out, "segment %u, row %u: id %llu is there and is not found", number, row,
             (unsigned long long)id);
    } else if (found.home != number || found.row != row) {
        note(out, "id %llu is alive twice: segment %u, row %u and segment %u, row %u",
             (unsigned long long)id, number, row, found.home, found.row);
    }
    check_vector(&home->writer.segment, number, row, out);
    check_payload(home, number, row, out);
}

static void check_home(const struct vex_live_collection *collection, uint32_t number,
                       struct vex_verify_result *out)
{
    const struct vex_home *home = collection->homes[number];
    const struct vex_segment *segment = &home->writer.segment;
    uint32_t dead = 0;
    if (home->writer.rows > segment->capacity_rows ||
        home->writer.payload_bytes > segment->payload_capacity_bytes ||
        segment->dim != collection->facts.dim || segment->storage != collection->facts.storage ||
        segment->collection_id != collection->facts.id) {
        note(out, "segment %u: its shape is not the collection's", number);
        return;
    }
    for (uint32_t row = 0; row < home->writer.rows; row++) {
        if (vex_segment_death(segment, row) != 0) {
            dead++;
        } else {
            out->live_rows++;
            check_live_row(collection, number, row, out);
        }
    }
    if (dead != home->dead_rows) {
        note(out, "segment %u: %u dead rows, but %u are counted", number, dead, home->dead_rows);
    }
    out->dead_rows += dead;
}

static void check_index(const struct vex_home *home, uint32_t number, struct vex_verify_result *out)
{
    struct vex_error error;
    if (home->shape.codes && home->writer.segment.codes.count != home->writer.rows) {
        note(out, "segment %u: it has %u codes and %u rows", number,
             home->writer.segment.codes.count, home->writer.rows);
    }
    if (home->shape.lists > 0 && home->writer.segment.lists.rows != home->writer.rows) {
        note(out, "segment %u: its lists have %u rows, it has %u", number,
             home->writer.segment.lists.rows, home->writer.rows);
    } else if (vex_index_ivf.validate(&home->writer.segment, &error) != VEX_OK) {
        note(out, "segment %u: %s", number, error.message);
    }
    if (home->shape.graph.m == 0) {
        return;
    }
    if (home->writer.segment.graph.nodes_count != home->writer.rows) {
        note(out, "segment %u: its graph has %u nodes, it has %u rows", number,
             home->writer.segment.graph.nodes_count, home->writer.rows);
    } else if (vex_index_hnsw.validate(&home->writer.segment, &error) != VEX_OK) {
        note(out, "segment %u: %s", number, error.message);
    }
}

void vex_verify_collection(const struct vex_live_collection *collection,
                           struct vex_verify_result *out)
{
    *out = (struct vex_verify_result){.segments = collection->homes_count};
    for (uint32_t i = 0; i < collection->homes_count; i++) {
        check_home(collection, i, out);
        check_index(collection->homes[i], i, out);
    }
    if (out->live_rows != collection->live_rows || out->dead_rows != collection->dead_rows) {
        note(out, "%llu live and %llu dead rows, but %llu and %llu are counted",
             (unsigned long long)out->live_rows, (unsigned long long)out->dead_rows,
             (unsigned long long)collection->live_rows, (unsigned long long)collection->dead_rows);
    }
}
