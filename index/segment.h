/*
 * A segment: a run of rows of one collection as one position-independent image.
 *
 * The image is the same bytes in shared memory and in a file: a header page with a table of
 * sections, then one section per column, each on a 64-byte line. Offsets, never pointers. Readers
 * that meet an unknown section kind pass over it, so codes, graphs, lists and attribute columns can
 * be added later without a new format. Behind the image, in memory only, lies the one part that
 * changes after a row has been written: the death LSNs.
 *
 * Rows are only appended, by the single writer; a view says how many of them a reader may see. A
 * row is dead for a reader when its death LSN is not 0 and not above the reader's LSN. The writer
 * may thus stage rows and deaths of records that are not yet durable: nobody sees them before a
 * view does.
 *
 * id -> row: an open-addressing table of the newest row per id, and from each row a link to the row
 * that held the id before it (always a lower number), for readers of older views.
 *
 * Everything here works on memory it is given and knows neither files nor shared memory. Readers do
 * not trust the bytes: vex_segment_attach copies and checks the header, and all numbers read later
 * (hash slots, links, payload references) are compared with these private values before use.
 *
 * Thread-safety: one writer (append, kill); any number of readers at the same time.
 */
#ifndef VEX_INDEX_SEGMENT_H
#define VEX_INDEX_SEGMENT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vex/status.h>
#include <vex/types.h>

#include "base/panic.h"
#include "index/effort.h"
#include "index/graph.h"
#include "index/lists.h"
#include "index/store.h"

#define VEX_SEGMENT_MAGIC 0x53584556u /* "VEXS" */
#define VEX_SEGMENT_VERSION 2u
#define VEX_SEGMENT_HEADER_BYTES 4096u
#define VEX_SEGMENT_SECTIONS_MAX 32u
#define VEX_SEGMENT_ROWS_MAX (1u << 30)

/* Kinds of section. Numbers are on disk: append only. */
enum vex_section_kind {
    VEX_SECTION_VECTORS = 1,  /* [capacity][stride] of the storage's elements, zero-padded rows */
    VEX_SECTION_IDS = 2,      /* u64[capacity] */
    VEX_SECTION_NORMS = 3,    /* float32[capacity]: Euclidean length of the row */
    VEX_SECTION_PREVIOUS = 4, /* u32[capacity]: 1 + the row that held this id before, 0 = none */
    VEX_SECTION_PAYLOAD_REFS = 5, /* u64[capacity]: offset << 20 | 1 + bytes; 0 = no payload */
    VEX_SECTION_PAYLOADS = 6,     /* bytes */
    VEX_SECTION_HASH = 7,         /* u32[slots]: 1 + newest row of the id, 0 = free */
    VEX_SECTION_SCALES = 8,       /* float32[capacity]: of the rows of int8, else none */
    VEX_SECTION_INDEX = 16,       /* + enum vex_index_part: only with codes, a graph, lists */
};

struct vex_section {
    uint32_t kind;
    uint32_t element_bytes;
    uint64_t offset; /* bytes from the start of the image */
    uint64_t bytes;
    uint64_t checksum; /* of a sealed section; 0 = not sealed */
};

struct vex_segment_header {
    uint32_t magic;
    uint32_t version;
    uint64_t segment_id;
    uint32_t collection_id;
    uint32_t metric;
    uint32_t dim;
    uint32_t stride_floats; /* coordinates of a row, padding to a 64-byte line included */
    uint32_t capacity_rows;
    uint32_t hash_slots; /* power of two, at least twice the capacity */
    uint64_t payload_capacity_bytes;
    uint64_t image_bytes;   /* the part that goes to disk */
    uint64_t deaths_offset; /* u64[capacity], in memory only, on the page behind the image */
    uint64_t memory_bytes;  /* image and deaths */
    uint32_t sections_count;
    uint32_t storage; /* enum vex_storage */
    struct vex_section sections[VEX_SEGMENT_SECTIONS_MAX];
};

/* A mapped segment: pointers into it and private, checked copies of what bounds them. */
struct vex_segment {
    uint64_t segment_id;
    uint32_t collection_id;
    enum vex_metric metric;
    enum vex_storage storage;
    uint32_t dim;
    uint32_t stride_floats;
    uint32_t row_bytes; /* from one row to the next */
    uint32_t capacity_rows;
    uint32_t hash_slots;
    uint64_t payload_capacity_bytes;
    uint64_t memory_bytes;
    const void *vectors; /* rows as they are stored, see store.h */
    const float *scales; /* of rows of int8; NULL = rows have none */
    const uint64_t *ids;
    const float *norms;
    const uint32_t *previous;
    const uint64_t *payload_refs;
    const uint8_t *payloads;
    const _Atomic uint32_t *hash;
    const _Atomic uint64_t *deaths;
    struct vex_codes codes;         /* count 0: none, or not built when this was attached */
    struct vex_graph graph;         /* nodes_count 0: as above */
    struct vex_effort_table effort; /* steps_count 0: as above */
    struct vex_lists lists;         /* count 0: as above */
};

struct vex_segment_shape {
    uint64_t segment_id;
    uint32_t collection_id;
    enum vex_metric metric;
    enum vex_storage storage;
    uint32_t dim;
    uint32_t capacity_rows;
    uint64_t payload_capacity_bytes;
    bool codes;                   /* room for codes; a graph has them anyway */
    struct vex_graph_shape graph; /* m = 0: no graph, and no sections for one */
    uint32_t lists;               /* how many; 0: none, and no sections for them */
};

/* Memory that a segment of this shape needs, or 0 if the shape is out of bounds. */
uint64_t vex_segment_memory_bytes(const struct vex_segment_shape *shape);

/* The writer's end. `segment` may be used for reading too. */
struct vex_segment_writer {
    struct vex_segment segment;
    uint8_t *base;          /* borrowed: stays mapped, writable, as long as the writer */
    uint32_t rows;          /* appended so far */
    uint64_t payload_bytes; /* used so far */
};

/* Lays an empty segment out in `memory`, which is zero-filled and as large as memory_bytes says. */
void vex_segment_create(struct vex_segment_writer *writer, const struct vex_segment_shape *shape,
                        void *memory);
bool vex_segment_has_room(const struct vex_segment_writer *writer, uint64_t rows,
                          uint64_t payload_bytes);
/*
 * Appends one row and makes it the newest of its id. The caller has checked that there is room,
 * that the vector is finite, of the right dim, and can be stored (vex_store_overflow); it is rounded
 * to the segment's storage. payload == NULL: none. Returns the row.
 */
uint32_t vex_segment_append(struct vex_segment_writer *writer, uint64_t id, const float *vector,
                            const void *payload, size_t payload_bytes);
/* Sets the death of a live row. `lsn` is not 0 and above every published one. */
void vex_segment_kill(struct vex_segment_writer *writer, uint32_t row, uint64_t lsn);
/* Appends a copy of a row of another segment of the same dim; there is room for it. */
uint32_t vex_segment_append_row(struct vex_segment_writer *writer, const struct vex_segment *from,
                                uint32_t row);

/* Where the parts of an index lie in the image: for building them. Empty where the shape has none. */
void vex_segment_parts(const struct vex_segment_writer *writer, struct vex_index_parts *out);
/* Attaches the writer's segment once more: what has been built is there from then on. */
void vex_segment_attach_again(struct vex_segment_writer *writer);

/* A range of a segment's memory; both are multiples of VEX_SEGMENT_PAGE_BYTES. */
struct vex_segment_range {
    uint64_t offset;
    uint64_t bytes;
};

#define VEX_SEGMENT_PAGE_BYTES 4096u
#define VEX_SEGMENT_RANGES_MAX 24u

/*
 * The parts of the memory that carry data when the first `rows` rows and `payload_bytes` bytes of payloads
 * are used: ascending, not touching each other. What lies between them is zero. The image's parts come
 * first, `*out_image_count` of them; the last one is the deaths. Returns how many.
 */
uint32_t vex_segment_used_ranges(const struct vex_segment_shape *shape, uint32_t rows,
                                 uint64_t payload_bytes,
                                 struct vex_segment_range out[VEX_SEGMENT_RANGES_MAX],
                                 uint32_t *out_image_count);

/*
 * A writer for an image that was stored with `rows` rows and `payload_bytes` bytes of payloads and has been
 * read back into `memory`, whose deaths are zero. The shape must be the image's, except for the number:
 * the segment gets the shape's. Errors: CORRUPT, VERSION.
 */
enum vex_status vex_segment_restore(struct vex_segment_writer *writer,
                                    const struct vex_segment_shape *shape, uint32_t rows,
                                    uint64_t payload_bytes, void *memory, struct vex_error *error);

/*
 * Checks an image of `bytes` bytes at `memory` and fills *out with pointers into it. Errors:
 * CORRUPT, VERSION. A valid header makes every later access by this interface stay inside the
 * memory.
 */
enum vex_status vex_segment_attach(struct vex_segment *out, const void *memory, uint64_t bytes,
                                   struct vex_error *error);

/* A row as it is stored, and what its coordinates are to be multiplied with. */
static inline const void *vex_segment_stored(const struct vex_segment *segment, uint32_t row)
{
    return (const uint8_t *)segment->vectors + (size_t)row * segment->row_bytes;
}

static inline float vex_segment_scale(const struct vex_segment *segment, uint32_t row)
{
    return segment->scales ? segment->scales[row] : 1;
}

/* Of a segment that stores floats. */
static inline const float *vex_segment_vector(const struct vex_segment *segment, uint32_t row)
{
    VEX_ASSERT(segment->storage == VEX_STORAGE_FLOAT32);
    return vex_segment_stored(segment, row);
}

/* A row as floats, whatever the storage: in place, or decoded into `buffer` of dim floats. */
static inline const float *vex_segment_row(const struct vex_segment *segment, uint32_t row,
                                           float *buffer)
{
    if (segment->storage == VEX_STORAGE_FLOAT32) {
        return vex_segment_stored(segment, row);
    }
    vex_store_decode(segment->storage, vex_segment_stored(segment, row),
                     vex_segment_scale(segment, row), 0, segment->dim, buffer);
    return buffer;
}

/* relaxed: a view's LSN was acquired after the deaths it covers were stored; later ones are above
 * it and leave the row alive either way. */
static inline uint64_t vex_segment_death(const struct vex_segment *segment, uint32_t row)
{
    /* relaxed: see above. */
    return atomic_load_explicit(&segment->deaths[row], memory_order_relaxed);
}

static inline bool vex_segment_alive(const struct vex_segment *segment, uint32_t row, uint64_t lsn)
{
    uint64_t death = vex_segment_death(segment, row);
    return death == 0 || death > lsn;
}

enum vex_find {
    VEX_FIND_NONE,  /* the id never was in this segment, as far as this view goes */
    VEX_FIND_ALIVE, /* *out_row is it */
    VEX_FIND_DEAD,  /* its newest visible row is dead: older segments need not be asked */
};

/* Finds `id` among the first `visible_rows` rows as of `lsn`. */
enum vex_find vex_segment_find(const struct vex_segment *segment, uint64_t id,
                               uint32_t visible_rows, uint64_t lsn, uint32_t *out_row);

/* The payload of a row: NULL and 0 if none. False if the reference leads outside (damaged
 * memory). */
bool vex_segment_payload(const struct vex_segment *segment, uint32_t row, const void **out_payload,
                         size_t *out_bytes);

#endif
