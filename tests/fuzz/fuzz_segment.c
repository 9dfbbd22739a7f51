/*
 * Fuzzes what a reader does with a segment that somebody else wrote: a sound one is made, some of its
 * bytes are changed, and if it can still be attached, everything in it is looked up, searched and read.
 * All of it must end, and stay within memory that is exactly as long as the segment.
 *
 *   byte 0    dim - 1, of 32
 *   byte 1    capacity - 1, of 64
 *   byte 2    payload bytes per row, of 16; bit 4: with codes; bit 5: with a graph and a table of
 *             efforts; bit 6: the changes come after it was attached
 *   byte 3    low 2 bits: metric; bit 2: the header is changed again after it was attached;
 *             bit 3: the rest is an image itself, from its first byte; bits 4 and 5: storage
 *   byte 4    rows
 *   then      changes: u16 where (above 0x8000: in the body), u8 length, bytes
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/panic.h"
#include "index/index.h"
#include "index/segment.h"

#define QUERIES 2u
#define K 7u

/* Of byte 3, and of byte 2 above it. */
enum {
    CLEAR_HEADER = 4,
    IS_IMAGE = 8,
    WITH_CODES = 16 << 8,
    WITH_GRAPH = 32 << 8,
    CHANGE_LATE = 64 << 8,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
    const uint8_t *at;
    size_t left;
};

static uint8_t take_byte(struct input *input)
{
    if (input->left == 0) {
        return 0;
    }
    input->left--;
    return *input->at++;
}

/* ---- making ---------------------------------------------------------------------------------- */

struct image {
    uint8_t *memory;
    uint64_t bytes;
};

/* As measured, but by hand: so few rows are not. */
static void write_efforts(struct vex_segment_writer *writer)
{
    struct vex_effort_block block = {
        .magic = VEX_EFFORT_MAGIC,
        .version = VEX_EFFORT_VERSION,
        .unit = VEX_EFFORT_UNIT_EF,
        .steps_count = 3,
        .steps = {{1, {0.3f, 0.2f, 0.1f}}, {9, {0.9f, 0.8f, 0.7f}}, {40, {1, 1, 0.9f}}},
    };
    struct vex_index_parts parts;
    vex_segment_parts(writer, &parts);
    VEX_ASSERT(parts.bytes[VEX_PART_EFFORT] == sizeof(block));
    memcpy(writer->base + (parts.start[VEX_PART_EFFORT] - writer->base), &block, sizeof(block));
}

static void build_index(struct vex_segment_writer *writer, const struct vex_segment_shape *shape)
{
    enum vex_status status = VEX_OK;
    if (shape->graph.m) {
        status = vex_index_hnsw.build(writer, shape, NULL, NULL, NULL);
        write_efforts(writer);
    } else {
        status = vex_index_flat.build(writer, shape, NULL, NULL, NULL);
    }
    VEX_ASSERT(status == VEX_OK);
}

static void make_image(struct image *image, struct input *input, unsigned *out_flags)
{
    struct vex_segment_shape shape = {.segment_id = 1, .collection_id = 1};
    shape.dim = 1 + take_byte(input) % 32u;
    shape.capacity_rows = 1 + take_byte(input) % 64u;
    unsigned more_flags = take_byte(input);
    uint32_t payload_bytes = more_flags % 16u;
    shape.payload_capacity_bytes = (uint64_t)shape.capacity_rows * payload_bytes;
    *out_flags = take_byte(input) | more_flags << 8;
    shape.metric = (enum vex_metric)(1 + *out_flags % 4 % 3);
    shape.storage = (enum vex_storage)(*out_flags / 16 % 4 % 3);
    shape.codes = (*out_flags & WITH_CODES) != 0;
    shape.graph.m = *out_flags & WITH_GRAPH ? 4 : 0;
    shape.graph.ef_construction = 20;
    uint32_t rows = take_byte(input) % (shape.capacity_rows + 1);
    image->bytes = vex_segment_memory_bytes(&shape);
    VEX_ASSERT(image->bytes > 0);
    void *memory = NULL;
    int failure = posix_memalign(&memory, 4096, image->bytes);
    VEX_ASSERT(failure == 0);
    memset(memory, 0, image->bytes);
    image->memory = memory;
    struct vex_segment_writer writer;
    vex_segment_create(&writer, &shape, memory);
    for (uint32_t row = 0; row < rows; row++) {
        float vector[32];
        for (uint32_t d = 0; d < shape.dim; d++) {
            vector[d] = (float)((row * 7 + d * 3) % 11) - 5;
        }
        vector[0] += 0.5f;
        (void)vex_segment_append(&writer, row / 2, vector, row % 3 ? vector : NULL,
                                 payload_bytes < 4 * shape.dim ? payload_bytes : 0);
        if (row % 4 == 1) {
            vex_segment_kill(&writer, row, row + 1);
        }
    }
    if (rows > 0) {
        build_index(&writer, &shape);
    }
}

static void change_image(struct image *image, struct input *input)
{
    while (input->left >= 4) {
        uint64_t where = take_byte(input);
        where |= (uint64_t)take_byte(input) << 8;
        /* The header is dense in its first bytes, the body everywhere. */
        if (where & 0x8000) {
            uint64_t body_bytes = image->bytes - VEX_SEGMENT_HEADER_BYTES;
            where = VEX_SEGMENT_HEADER_BYTES + (where & 0x7fff) * 8 % body_bytes;
        } else {
            where %= sizeof(struct vex_segment_header);
        }
        for (uint8_t length = take_byte(input) % 64; length > 0 && input->left; length--) {
            if (where < image->bytes) {
                image->memory[where++] = take_byte(input);
            }
        }
    }
}

/* An image that is nothing but the input. */
static void take_image(struct image *image, const struct input *input)
{
    void *memory = NULL;
    int failure = posix_memalign(&memory, 4096, input->left ? input->left : 1);
    VEX_ASSERT(failure == 0);
    memcpy(memory, input->at, input->left);
    *image = (struct image){memory, input->left};
}

/* ---- reading --------------------------------------------------------------------------------- */

static void touch(const struct image *image, const void *from, uint64_t bytes)
{
    const uint8_t *at = from;
    VEX_ASSERT(at >= image->memory && (uint64_t)(at - image->memory) <= image->bytes);
    VEX_ASSERT(bytes <= image->bytes - (uint64_t)(at - image->memory));
    volatile uint8_t sum = 0;
    for (uint64_t i = 0; i < bytes; i++) {
        sum = (uint8_t)(sum + at[i]);
    }
}

static void find_all(const struct image *image, const struct vex_segment *segment, uint32_t visible)
{
    for (uint32_t row = 0; row < segment->capacity_rows && row < 200; row++) {
        uint32_t found = 0;
        const void *payload;
        size_t bytes;
        if (vex_segment_find(segment, segment->ids[row], visible, row, &found) == VEX_FIND_ALIVE) {
            VEX_ASSERT(found < visible);
        }
        (void)vex_segment_find(segment, row, visible, UINT64_MAX, &found);
        if (vex_segment_payload(segment, row, &payload, &bytes) && payload) {
            touch(image, payload, bytes);
        }
    }
}

static void search(const struct vex_segment *segment, uint32_t visible, enum vex_metric metric,
                   const struct vex_index *index, const struct vex_effort *effort)
{
    float *queries = calloc((size_t)QUERIES * segment->dim, sizeof(float));
    VEX_ASSERT(queries);
    for (uint32_t d = 0; d < segment->dim; d++) {
        queries[d] = 1;
        queries[segment->dim + d] = (float)d - 3.5f;
    }
    struct vex_candidate heaps[QUERIES][K];
    struct vex_topk topks[QUERIES];
    for (unsigned i = 0; i < QUERIES; i++) {
        vex_topk_init(&topks[i], heaps[i], K);
    }
    const struct vex_view_segment part = {segment, visible};
    const struct vex_view view = {&part, 1, segment->dim, metric, 20, effort};
    struct vex_search_counters counters = {0};
    enum vex_status status = index->search(&view, queries, QUERIES, topks, &counters, NULL);
    VEX_ASSERT(status == VEX_OK);
    for (unsigned i = 0; i < QUERIES; i++) {
        vex_topk_finish(&topks[i]);
        VEX_ASSERT(topks[i].count <= K);
        for (uint32_t j = 0; j < topks[i].count; j++) {
            VEX_ASSERT(topks[i].heap[j].row < visible);
        }
    }
    free(queries);
}

static void touch_index(const struct image *image, const struct vex_segment *segment)
{
    const struct vex_codes *codes = &segment->codes;
    const struct vex_graph *graph = &segment->graph;
    VEX_ASSERT(codes->count <= segment->capacity_rows && graph->nodes_count <= codes->count);
    if (codes->count) {
        touch(image, codes->codes, (uint64_t)codes->count * codes->padded / 2);
        touch(image, codes->factors, (uint64_t)codes->count * sizeof(uint32_t));
        touch(image, codes->angles, (uint64_t)codes->count * sizeof(uint16_t));
        touch(image, codes->centre, segment->dim * sizeof(float));
        touch(image, codes->rotation.signs, vex_rotation_bytes(codes->padded));
    }
    for (uint32_t i = 0; i < graph->layers_count; i++) {
        const struct vex_graph_layer *layer = &graph->layers[i];
        if (layer->rows) {
            touch(image, layer->rows, layer->nodes_count * layer->row_bytes);
        }
        touch(image, layer->codes, (uint64_t)layer->nodes_count * graph->padded / 2);
        touch(image, layer->factors, (uint64_t)layer->nodes_count * sizeof(uint32_t));
    }
    if (graph->nodes_count) {
        touch(image, graph->entries, graph->layers[1].nodes_count * sizeof(uint32_t));
    }
}

/* Walks may miss what damaged links do not lead to, but must end and tell of nobody who is not there. */
static void walk(const struct vex_segment *segment, uint32_t visible)
{
    static const struct vex_effort efforts[] = {
        {.ef = 1}, {.ef = 300}, {.recall = 0.5}, {.recall = 0.99, .dead_share = 0.9}};
    for (size_t i = 0; i < sizeof(efforts) / sizeof(*efforts); i++) {
        search(segment, visible, segment->metric, &vex_index_hnsw, &efforts[i]);
    }
}

static void read_everything(const struct image *image, const struct vex_segment *segment)
{
    uint64_t rows = segment->capacity_rows;
    VEX_ASSERT(rows >= 1 && segment->dim >= 1 && segment->dim <= segment->stride_floats);
    touch(image, segment->vectors, rows * segment->row_bytes);
    VEX_ASSERT((segment->scales != NULL) == (segment->storage == VEX_STORAGE_INT8));
    touch(image, segment->scales ? segment->scales : segment->norms, rows * 4);
    touch(image, segment->ids, rows * 8);
    touch(image, segment->norms, rows * 4);
    touch(image, segment->previous, rows * 4);
    touch(image, segment->payload_refs, rows * 8);
    touch(image, (const void *)(uintptr_t)segment->hash, (uint64_t)segment->hash_slots * 4);
    touch(image, (const void *)(uintptr_t)segment->deaths, rows * 8);
    touch(image, segment->payloads, segment->payload_capacity_bytes);
    const uint32_t visible[] = {0, segment->capacity_rows / 2, segment->capacity_rows};
    for (size_t i = 0; i < sizeof(visible) / sizeof(*visible); i++) {
        find_all(image, segment, visible[i]);
        search(segment, visible[i], segment->metric, &vex_index_flat, NULL);
        walk(segment, visible[i]);
    }
    touch_index(image, segment);
    enum vex_status status = vex_index_hnsw.validate(segment, NULL);
    VEX_ASSERT(status == VEX_OK || status == VEX_ERR_CORRUPT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size};
    struct image image;
    unsigned flags;
    make_image(&image, &input, &flags);
    if (flags & IS_IMAGE) {
        free(image.memory);
        take_image(&image, &input);
    } else if (!(flags & CHANGE_LATE)) {
        change_image(&image, &input);
    }
    struct vex_segment segment;
    struct vex_error error = {.status = VEX_OK};
    enum vex_status status = vex_segment_attach(&segment, image.memory, image.bytes, &error);
    if (status == VEX_OK) {
        /* Taken back by its owner after it was attached. */
        if (flags & CHANGE_LATE) {
            change_image(&image, &input);
        }
        if (flags & CLEAR_HEADER) {
            memset(image.memory, 0, VEX_SEGMENT_HEADER_BYTES);
        }
        read_everything(&image, &segment);
    } else {
        VEX_ASSERT(error.status == status && error.message[0]);
        VEX_ASSERT(status == VEX_ERR_CORRUPT || status == VEX_ERR_VERSION);
    }
    free(image.memory);
    return 0;
}
