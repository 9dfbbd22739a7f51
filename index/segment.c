#include "index/segment.h"

#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/panic.h"
#include "index/exact.h"

#define LINE_BYTES 64u
#define PAYLOAD_BYTES_BITS 20u /* of a payload reference: 1 + length */
#define NO_ROW 0u              /* in the hash and in links, which hold 1 + row */

_Static_assert(sizeof(struct vex_section) == 32, "on disk");
_Static_assert(sizeof(struct vex_segment_header) == 80 + 32 * VEX_SEGMENT_SECTIONS_MAX, "on disk");
_Static_assert(sizeof(struct vex_segment_header) <= VEX_SEGMENT_HEADER_BYTES, "on disk");
_Static_assert(VEX_PAYLOAD_MAX + 1 < 1u << PAYLOAD_BYTES_BITS, "a reference holds any length");

/* ---- layout ---------------------------------------------------------------------------------- */

static uint32_t hash_slots_for(uint32_t capacity_rows)
{
    uint32_t slots = 16;
    while (slots < 2 * capacity_rows) {
        slots *= 2;
    }
    return slots;
}

static void add_section(struct vex_segment_header *header, enum vex_section_kind kind,
                        uint32_t element_bytes, uint64_t count)
{
    struct vex_section *section = &header->sections[header->sections_count++];
    section->kind = kind;
    section->element_bytes = element_bytes;
    section->offset = header->image_bytes;
    section->bytes = count * element_bytes;
    header->image_bytes = vex_round_up(header->image_bytes + section->bytes, LINE_BYTES);
}

static void add_vector_sections(struct vex_segment_header *header,
                                const struct vex_segment_shape *shape)
{
    uint64_t rows = shape->capacity_rows;
    add_section(header, VEX_SECTION_VECTORS, vex_store_element_bytes(shape->storage),
                rows * header->stride_floats);
    if (shape->storage == VEX_STORAGE_INT8) {
        add_section(header, VEX_SECTION_SCALES, sizeof(float), rows);
    }
}

static struct vex_part_size part_size(enum vex_index_part part,
                                      const struct vex_segment_shape *shape)
{
    if (part < VEX_PART_GRAPH_HEAD) {
        return vex_codes_part_size(part, shape->dim);
    }
    if (part == VEX_PART_EFFORT) {
        bool is_tunable = shape->graph.m > 0 || shape->lists > 0;
        return is_tunable ? vex_effort_part_size() : (struct vex_part_size){0, 0};
    }
    if (part >= VEX_PART_LISTS_HEAD) {
        return shape->lists == 0 ? (struct vex_part_size){0, 0}
                                 : vex_lists_part_size(part, shape->lists, shape->dim);
    }
    if (shape->graph.m == 0) {
        return (struct vex_part_size){0, 0};
    }
    return vex_graph_part_size(part, &shape->graph, shape->dim, shape->capacity_rows);
}

static void add_index_sections(struct vex_segment_header *header,
                               const struct vex_segment_shape *shape)
{
    for (enum vex_index_part part = 0; part < VEX_PARTS_COUNT; part++) {
        struct vex_part_size size = part_size(part, shape);
        if (size.row_bytes) {
            add_section(header, VEX_SECTION_INDEX + part, size.row_bytes, shape->capacity_rows);
        } else if (size.bytes) {
            add_section(header, VEX_SECTION_INDEX + part, 1, size.bytes);
        }
    }
}

/* Sizes cannot overflow: rows < 2^30, a row is at most 2^19 bytes, payloads at most 2^43. */
static bool lay_out(struct vex_segment_header *header, const struct vex_segment_shape *shape)
{
    if (shape->dim < 1 || shape->dim > VEX_DIM_MAX || shape->capacity_rows < 1 ||
        shape->capacity_rows > VEX_SEGMENT_ROWS_MAX ||
        shape->payload_capacity_bytes > (uint64_t)1 << 43 ||
        !vex_storage_is_known(shape->storage) || !vex_graph_shape_is_sound(&shape->graph) ||
        shape->lists > VEX_LISTS_MAX) {
        return false;
    }
    uint64_t rows = shape->capacity_rows;
    memset(header, 0, sizeof(*header));
    header->magic = VEX_SEGMENT_MAGIC;
    header->version = VEX_SEGMENT_VERSION;
    header->segment_id = shape->segment_id;
    header->collection_id = shape->collection_id;
    header->metric = shape->metric;
    header->dim = shape->dim;
    header->stride_floats = vex_store_stride(shape->storage, shape->dim);
    header->storage = shape->storage;
    header->capacity_rows = shape->capacity_rows;
    header->hash_slots = hash_slots_for(shape->capacity_rows);
    header->payload_capacity_bytes = shape->payload_capacity_bytes;
    header->image_bytes = VEX_SEGMENT_HEADER_BYTES;
    add_vector_sections(header, shape);
    add_section(header, VEX_SECTION_IDS, sizeof(uint64_t), rows);
    add_section(header, VEX_SECTION_NORMS, sizeof(float), rows);
    add_section(header, VEX_SECTION_PREVIOUS, sizeof(uint32_t), rows);
    add_section(header, VEX_SECTION_PAYLOAD_REFS, sizeof(uint64_t), rows);
    add_section(header, VEX_SECTION_HASH, sizeof(uint32_t), header->hash_slots);
    add_section(header, VEX_SECTION_PAYLOADS, 1, shape->payload_capacity_bytes);
    if (shape->codes || shape->graph.m > 0 || shape->lists > 0) {
        add_index_sections(header, shape);
    }
    /* The image ends on a page of its own: what is stored never changes under the writer. */
    header->image_bytes = vex_round_up(header->image_bytes, VEX_SEGMENT_PAGE_BYTES);
    header->deaths_offset = header->image_bytes;
    header->memory_bytes = header->deaths_offset + rows * sizeof(uint64_t);
    return true;
}

/* How much of a section `rows` rows use. */
static uint64_t used_bytes(const struct vex_section *section, uint32_t capacity_rows, uint32_t rows,
                           uint64_t payload_bytes)
{
    if (section->kind == VEX_SECTION_PAYLOADS) {
        return payload_bytes;
    }
    /* The hash, and parts of an index that are measured in bytes, are used from the start. */
    bool is_whole = section->kind == VEX_SECTION_HASH ||
                    (section->kind >= VEX_SECTION_INDEX && section->element_bytes == 1);
    return is_whole ? section->bytes : section->bytes / capacity_rows * rows;
}

/* Widens to pages, and joins the range before if they touch. */
static uint32_t add_range(struct vex_segment_range *ranges, uint32_t count, uint64_t offset,
                          uint64_t bytes)
{
    uint64_t start = offset & ~(uint64_t)(VEX_SEGMENT_PAGE_BYTES - 1);
    uint64_t end = vex_round_up(offset + bytes, VEX_SEGMENT_PAGE_BYTES);
    if (bytes == 0) {
        return count;
    }
    if (count && ranges[count - 1].offset + ranges[count - 1].bytes >= start) {
        ranges[count - 1].bytes = end - ranges[count - 1].offset;
        return count;
    }
    VEX_ASSERT(count < VEX_SEGMENT_RANGES_MAX);
    ranges[count] = (struct vex_segment_range){start, end - start};
    return count + 1;
}

uint32_t vex_segment_used_ranges(const struct vex_segment_shape *shape, uint32_t rows,
                                 uint64_t payload_bytes,
                                 struct vex_segment_range out[VEX_SEGMENT_RANGES_MAX],
                                 uint32_t *out_image_count)
{
    struct vex_segment_header header;
    bool fits = lay_out(&header, shape);
    VEX_ASSERT(fits && rows <= shape->capacity_rows &&
               payload_bytes <= shape->payload_capacity_bytes);
    uint32_t count = add_range(out, 0, 0, VEX_SEGMENT_HEADER_BYTES);
    for (uint32_t i = 0; i < header.sections_count; i++) {
        const struct vex_section *section = &header.sections[i];
        count = add_range(out, count, section->offset,
                          used_bytes(section, shape->capacity_rows, rows, payload_bytes));
    }
    *out_image_count = count;
    VEX_ASSERT(count < VEX_SEGMENT_RANGES_MAX);
    out[count] = (struct vex_segment_range){
        header.deaths_offset,
        vex_round_up((uint64_t)rows * sizeof(uint64_t), VEX_SEGMENT_PAGE_BYTES)};
    return count + 1;
}

uint64_t vex_segment_memory_bytes(const struct vex_segment_shape *shape)
{
    struct vex_segment_header header;
    return lay_out(&header, shape) ? header.memory_bytes : 0;
}

/* ---- writing --------------------------------------------------------------------------------- */

void vex_segment_create(struct vex_segment_writer *writer, const struct vex_segment_shape *shape,
                        void *memory)
{
    struct vex_segment_header header;
    bool fits = lay_out(&header, shape);
    VEX_ASSERT(fits);
    memcpy(memory, &header, sizeof(header));
    memset(writer, 0, sizeof(*writer));
    writer->base = memory;
    enum vex_status status =
        vex_segment_attach(&writer->segment, memory, header.memory_bytes, NULL);
    VEX_ASSERT(status == VEX_OK);
}

bool vex_segment_has_room(const struct vex_segment_writer *writer, uint64_t rows,
                          uint64_t payload_bytes)
{
    const struct vex_segment *segment = &writer->segment;
    return rows <= segment->capacity_rows - writer->rows &&
           payload_bytes <= segment->payload_capacity_bytes - writer->payload_bytes;
}

/* The writer's own way to memory that readers see as const. */
static void *writable(struct vex_segment_writer *writer, const void *column)
{
    return writer->base + ((const uint8_t *)column - (const uint8_t *)writer->base);
}

/* The slot that holds `id`, or the free one where it belongs. The table is at most half full. */
static uint32_t slot_of(const struct vex_segment_writer *writer, uint64_t id)
{
    const struct vex_segment *segment = &writer->segment;
    uint32_t mask = segment->hash_slots - 1;
    uint32_t slot = (uint32_t)vex_mix64(id) & mask;
    for (;;) {
        /* relaxed: only this thread stores to the table. */
        uint32_t entry = atomic_load_explicit(&segment->hash[slot], memory_order_relaxed);
        if (entry == NO_ROW || segment->ids[entry - 1] == id) {
            return slot;
        }
        slot = (slot + 1) & mask;
    }
}

/* Where the next row's vector goes. */
static void *next_vector(struct vex_segment_writer *writer)
{
    return writable(writer, vex_segment_stored(&writer->segment, writer->rows));
}

static void set_scale(struct vex_segment_writer *writer, float scale)
{
    if (writer->segment.scales) {
        float *scales = writable(writer, writer->segment.scales);
        scales[writer->rows] = scale;
    }
}

/* Appends the row whose vector is in its place already. */
static uint32_t append(struct vex_segment_writer *writer, uint64_t id, float norm,
                       const void *payload, size_t payload_bytes)
{
    const struct vex_segment *segment = &writer->segment;
    uint32_t row = writer->rows;
    uint64_t *ids = writable(writer, segment->ids);
    ids[row] = id;
    float *norms = writable(writer, segment->norms);
    norms[row] = norm;
    if (payload) {
        uint8_t *payloads = writable(writer, segment->payloads);
        memcpy(payloads + writer->payload_bytes, payload, payload_bytes);
        uint64_t *refs = writable(writer, segment->payload_refs);
        refs[row] = writer->payload_bytes << PAYLOAD_BYTES_BITS | (payload_bytes + 1);
        writer->payload_bytes += payload_bytes;
    }
    uint32_t slot = slot_of(writer, id);
    _Atomic uint32_t *hash = writable(writer, segment->hash);
    uint32_t *previous = writable(writer, segment->previous);
    /* relaxed: only this thread stores to the table. */
    previous[row] = atomic_load_explicit(&hash[slot], memory_order_relaxed);
    writer->rows = row + 1;
    /* pairs: SEGMENT_HASH with vex_segment_find: carries ids[row] and previous[row]. */
    atomic_store_explicit(&hash[slot], row + 1, memory_order_release);
    return row;
}

uint32_t vex_segment_append(struct vex_segment_writer *writer, uint64_t id, const float *vector,
                            const void *payload, size_t payload_bytes)
{
    const struct vex_segment *segment = &writer->segment;
    VEX_ASSERT(vex_segment_has_room(writer, 1, payload ? payload_bytes : 0));
    set_scale(writer, vex_store_round(segment->storage, vector, segment->dim, next_vector(writer)));
    float norm = (float)vex_exact_row_norm(segment, writer->rows);
    return append(writer, id, norm, payload, payload_bytes);
}

uint32_t vex_segment_append_row(struct vex_segment_writer *writer, const struct vex_segment *from,
                                uint32_t row)
{
    VEX_ASSERT(from->dim == writer->segment.dim && from->storage == writer->segment.storage);
    const void *payload = NULL;
    size_t payload_bytes = 0;
    bool sound = vex_segment_payload(from, row, &payload, &payload_bytes);
    VEX_ASSERT(sound && vex_segment_has_room(writer, 1, payload_bytes));
    memcpy(next_vector(writer), vex_segment_stored(from, row), from->row_bytes);
    set_scale(writer, vex_segment_scale(from, row));
    return append(writer, from->ids[row], from->norms[row], payload, payload_bytes);
}

void vex_segment_kill(struct vex_segment_writer *writer, uint32_t row, uint64_t lsn)
{
    VEX_ASSERT(row < writer->rows && lsn != 0);
    VEX_ASSERT(vex_segment_death(&writer->segment, row) == 0);
    _Atomic uint64_t *deaths = writable(writer, writer->segment.deaths);
    /* relaxed: publishing the view that covers `lsn` orders this store for its readers. */
    atomic_store_explicit(&deaths[row], lsn, memory_order_relaxed);
}

/* ---- reading --------------------------------------------------------------------------------- */

static const void *section_start(const struct vex_segment_header *header, const uint8_t *base,
                                 enum vex_section_kind kind, uint64_t element_bytes, uint64_t count)
{
    for (uint32_t i = 0; i < header->sections_count; i++) {
        const struct vex_section *section = &header->sections[i];
        if (section->kind != kind) {
            continue;
        }
        bool sound = section->element_bytes == element_bytes && section->offset % LINE_BYTES == 0 &&
                     section->offset >= VEX_SEGMENT_HEADER_BYTES &&
                     section->offset <= header->image_bytes &&
                     section->bytes <= header->image_bytes - section->offset &&
                     section->bytes == count * element_bytes;
        return sound ? base + section->offset : NULL;
    }
    return NULL;
}

/* Places of an index's parts; what is missing or leads outside stays empty. */
static void find_parts(const struct vex_segment_header *header, const uint8_t *base,
                       struct vex_index_parts *out)
{
    *out = (struct vex_index_parts){0};
    for (uint32_t i = 0; i < header->sections_count; i++) {
        const struct vex_section *section = &header->sections[i];
        uint32_t part = section->kind - VEX_SECTION_INDEX;
        if (section->kind < VEX_SECTION_INDEX || part >= VEX_PARTS_COUNT ||
            section->offset % LINE_BYTES != 0 || section->offset < VEX_SEGMENT_HEADER_BYTES ||
            section->offset > header->image_bytes ||
            section->bytes > header->image_bytes - section->offset) {
            continue;
        }
        out->start[part] = base + section->offset;
        out->bytes[part] = section->bytes;
    }
}

void vex_segment_parts(const struct vex_segment_writer *writer, struct vex_index_parts *out)
{
    struct vex_segment_header header;
    memcpy(&header, writer->base, sizeof(header));
    find_parts(&header, writer->base, out);
}

void vex_segment_attach_again(struct vex_segment_writer *writer)
{
    enum vex_status status =
        vex_segment_attach(&writer->segment, writer->base, writer->segment.memory_bytes, NULL);
    VEX_ASSERT(status == VEX_OK);
}

static enum vex_status attach_index(struct vex_segment *segment,
                                    const struct vex_segment_header *header, const uint8_t *base,
                                    struct vex_error *error)
{
    struct vex_index_parts parts;
    find_parts(header, base, &parts);
    enum vex_status status =
        vex_codes_attach(&segment->codes, &parts, header->dim, header->capacity_rows, error);
    if (status == VEX_OK) {
        status = vex_graph_attach(&segment->graph, &parts, &segment->codes, header->capacity_rows,
                                  error);
    }
    status = status == VEX_OK ? vex_effort_attach(&segment->effort, &parts, error) : status;
    if (status == VEX_OK) {
        status = vex_lists_attach(&segment->lists, &parts, &segment->codes, error);
    }
    return status == VEX_OK ? status
                            : vex_error_wrap(error, status, "segment %llu",
                                             (unsigned long long)header->segment_id);
}

static const char *header_fault(const struct vex_segment_header *header, uint64_t bytes)
{
    if (header->metric < VEX_METRIC_L2 || header->metric > VEX_METRIC_DOT) {
        return "unknown metric";
    }
    if (!vex_storage_is_known(header->storage)) {
        return "unknown storage";
    }
    if (header->dim < 1 || header->dim > VEX_DIM_MAX ||
        header->stride_floats != vex_store_stride(header->storage, header->dim)) {
        return "dimension or stride out of bounds";
    }
    if (header->capacity_rows < 1 || header->capacity_rows > VEX_SEGMENT_ROWS_MAX ||
        header->hash_slots != hash_slots_for(header->capacity_rows)) {
        return "row or hash capacity out of bounds";
    }
    if (header->payload_capacity_bytes > (uint64_t)1 << 43) {
        return "payload capacity out of bounds";
    }
    if (header->memory_bytes > bytes || header->image_bytes > header->memory_bytes ||
        header->deaths_offset < header->image_bytes || header->deaths_offset % LINE_BYTES != 0 ||
        header->deaths_offset > header->memory_bytes ||
        header->memory_bytes - header->deaths_offset != header->capacity_rows * sizeof(uint64_t)) {
        return "sizes do not fit together";
    }
    if (header->sections_count > VEX_SEGMENT_SECTIONS_MAX) {
        return "too many sections";
    }
    return NULL;
}

enum vex_status vex_segment_attach(struct vex_segment *out, const void *memory, uint64_t bytes,
                                   struct vex_error *error)
{
    if (bytes < VEX_SEGMENT_HEADER_BYTES) {
        return vex_error_set(error, VEX_ERR_CORRUPT, "segment: %llu bytes are less than a header",
                             (unsigned long long)bytes);
    }
    /* A private copy: the bytes may change under us if the memory is taken back. */
    struct vex_segment_header header;
    memcpy(&header, memory, sizeof(header));
    if (header.magic != VEX_SEGMENT_MAGIC) {
        return vex_error_set(error, VEX_ERR_CORRUPT, "segment: bad magic %08x", header.magic);
    }
    if (header.version != VEX_SEGMENT_VERSION) {
        return vex_error_set(error, VEX_ERR_VERSION, "segment: version %u, this library reads %u",
                             header.version, VEX_SEGMENT_VERSION);
    }
    const char *fault = header_fault(&header, bytes);
    if (fault) {
        return vex_error_set(error, VEX_ERR_CORRUPT, "segment %llu: %s",
                             (unsigned long long)header.segment_id, fault);
    }
    const uint8_t *base = memory;
    uint64_t rows = header.capacity_rows;
    uint32_t element_bytes = vex_store_element_bytes(header.storage);
    bool is_scaled = header.storage == VEX_STORAGE_INT8;
    struct vex_segment segment = {
        .segment_id = header.segment_id,
        .collection_id = header.collection_id,
        .metric = (enum vex_metric)header.metric,
        .storage = (enum vex_storage)header.storage,
        .dim = header.dim,
        .stride_floats = header.stride_floats,
        .row_bytes = header.stride_floats * element_bytes,
        .capacity_rows = header.capacity_rows,
        .hash_slots = header.hash_slots,
        .payload_capacity_bytes = header.payload_capacity_bytes,
        .memory_bytes = header.memory_bytes,
        .vectors = section_start(&header, base, VEX_SECTION_VECTORS, element_bytes,
                                 rows * header.stride_floats),
        .scales = is_scaled ? section_start(&header, base, VEX_SECTION_SCALES, sizeof(float), rows)
                            : NULL,
        .ids = section_start(&header, base, VEX_SECTION_IDS, sizeof(uint64_t), rows),
        .norms = section_start(&header, base, VEX_SECTION_NORMS, sizeof(float), rows),
        .previous = section_start(&header, base, VEX_SECTION_PREVIOUS, sizeof(uint32_t), rows),
        .payload_refs =
            section_start(&header, base, VEX_SECTION_PAYLOAD_REFS, sizeof(uint64_t), rows),
        .payloads =
            section_start(&header, base, VEX_SECTION_PAYLOADS, 1, header.payload_capacity_bytes),
        .hash = section_start(&header, base, VEX_SECTION_HASH, sizeof(uint32_t), header.hash_slots),
        .deaths = (const _Atomic uint64_t *)(const void *)(base + header.deaths_offset),
    };
    if (!segment.vectors || !segment.ids || !segment.norms || !segment.previous ||
        !segment.payload_refs || !segment.payloads || !segment.hash ||
        (is_scaled && !segment.scales)) {
        return vex_error_set(error, VEX_ERR_CORRUPT,
                             "segment %llu: a section is missing or out of bounds",
                             (unsigned long long)header.segment_id);
    }
    enum vex_status status = attach_index(&segment, &header, base, error);
    if (status == VEX_OK) {
        *out = segment;
    }
    return status;
}

enum vex_status vex_segment_restore(struct vex_segment_writer *writer,
                                    const struct vex_segment_shape *shape, uint32_t rows,
                                    uint64_t payload_bytes, void *memory, struct vex_error *error)
{
    struct vex_segment_header expected;
    struct vex_segment_header header;
    if (!lay_out(&expected, shape) || rows > shape->capacity_rows ||
        payload_bytes > shape->payload_capacity_bytes) {
        return vex_error_set(error, VEX_ERR_CORRUPT, "segment: a shape out of bounds");
    }
    memcpy(&header, memory, sizeof(header));
    header.segment_id = shape->segment_id;
    if (memcmp(&header, &expected, sizeof(header)) != 0) {
        return vex_error_set(
            error, header.version != VEX_SEGMENT_VERSION ? VEX_ERR_VERSION : VEX_ERR_CORRUPT,
            "segment: the stored header is not that of its collection");
    }
    memcpy(memory, &header, sizeof(header));
    memset(writer, 0, sizeof(*writer));
    writer->base = memory;
    writer->rows = rows;
    writer->payload_bytes = payload_bytes;
    return vex_segment_attach(&writer->segment, memory, header.memory_bytes, error);
}

enum vex_find vex_segment_find(const struct vex_segment *segment, uint64_t id,
                               uint32_t visible_rows, uint64_t lsn, uint32_t *out_row)
{
    uint32_t mask = segment->hash_slots - 1;
    uint32_t slot = (uint32_t)vex_mix64(id) & mask;
    uint32_t entry = NO_ROW;
    /* Bounded by the table size: damaged memory may hold no free slot. */
    for (uint32_t probes = 0;; probes++) {
        /* pairs: SEGMENT_HASH with vex_segment_append. */
        entry = atomic_load_explicit(&segment->hash[slot], memory_order_acquire);
        if (entry == NO_ROW || entry > segment->capacity_rows || probes > mask) {
            return VEX_FIND_NONE;
        }
        if (segment->ids[entry - 1] == id) {
            break;
        }
        slot = (slot + 1) & mask;
    }
    /* Rows staged after our view come first; links lead strictly down, so this ends. */
    while (entry > visible_rows) {
        uint32_t older = segment->previous[entry - 1];
        if (older == NO_ROW || older >= entry) {
            return VEX_FIND_NONE;
        }
        entry = older;
    }
    if (!vex_segment_alive(segment, entry - 1, lsn)) {
        return VEX_FIND_DEAD;
    }
    *out_row = entry - 1;
    return VEX_FIND_ALIVE;
}

bool vex_segment_payload(const struct vex_segment *segment, uint32_t row, const void **out_payload,
                         size_t *out_bytes)
{
    uint64_t ref = segment->payload_refs[row];
    uint64_t bytes_plus_one = ref & ((1u << PAYLOAD_BYTES_BITS) - 1);
    if (bytes_plus_one == 0) {
        *out_payload = NULL;
        *out_bytes = 0;
        return true;
    }
    uint64_t offset = ref >> PAYLOAD_BYTES_BITS;
    uint64_t bytes = bytes_plus_one - 1;
    if (offset > segment->payload_capacity_bytes ||
        bytes > segment->payload_capacity_bytes - offset || bytes > VEX_PAYLOAD_MAX) {
        return false;
    }
    *out_payload = segment->payloads + offset;
    *out_bytes = (size_t)bytes;
    return true;
}
