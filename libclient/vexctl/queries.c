/*
 * How queries are drawn; see queries.h for the three ways and when each is taken.
 *
 * Choosing some of a known number of things in one pass, each equally likely: take the next one
 * with the probability "still wanted / still to come" (selection sampling). It needs no list of
 * what was taken and keeps the order.
 */
#include "libclient/vexctl/queries.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "libclient/vexctl/context.h"
#include "libclient/vexctl/fault.h"
#include "libclient/vexctl/file.h"
#include "libclient/vexctl/reader.h"

#define FLOATS_MAX ((size_t)1 << 30) /* of all queries together: 4 GiB */
#define READ_ROWS 4096u
#define READ_BYTES (64u << 20)
/* Guessing ids. */
#define PROBES 65536u
#define PROBES_BEYOND 256u
#define DENSITY_MIN (1.0 / 256)
#define COVERED_MIN 0.8
/* Neighbourhoods. */
#define PLACES 16u
#define REACH 16.0f /* how far outside of the data a random place is, in largest components */
#define PLACE_MAX 1e30f

/* ---- chance ---------------------------------------------------------------------------------- */

/* Steele, Lea and Flood's SplitMix64: sound enough for drawing, and the same everywhere. */
static uint64_t draw_u64(uint64_t *state)
{
    uint64_t mixed = *state += 0x9e3779b97f4a7c15u;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebu;
    return mixed ^ (mixed >> 31);
}

/* Within 0 and, excluded, 1. */
static double draw_unit(uint64_t *state)
{
    return (double)(draw_u64(state) >> 11) * 0x1p-53;
}

/* Whether the next of `left` things is one of the `wanted`; 0 and all are certain. */
static bool draw_next(uint64_t *state, uint64_t wanted, uint64_t left)
{
    return draw_unit(state) * (double)left < (double)wanted;
}

/* ---- rows of a snapshot ---------------------------------------------------------------------- */

struct draw {
    struct vex_collection *collection;
    struct vex_snapshot *snapshot;
    uint64_t chance;
    uint64_t rows_count; /* living ones */
    struct vex_queries *queries;
    size_t wanted;
    float *place; /* a query of the drawing itself */
    uint64_t *near_ids;
    float *near_distances;
    uint32_t near_count;
};

/* Takes the row `id`; false if there is none. Other failures are left in *status. */
static bool take_row(struct draw *draw, uint64_t id, enum vex_status *status,
                     struct vex_error *error)
{
    struct vex_record record = {.size = sizeof(record)};
    *status = vex_snapshot_get(draw->snapshot, id, &record, error);
    if (*status != VEX_OK) {
        *status = *status == VEX_ERR_NOT_FOUND ? VEX_OK : *status;
        return false;
    }
    struct vex_queries *queries = draw->queries;
    memcpy(queries->vectors + queries->count * queries->dim, record.vector,
           queries->dim * sizeof(float));
    queries->ids[queries->count++] = id;
    return true;
}

/* The rows nearest to `place`, as many as a search can give. */
static enum vex_status find_near(struct draw *draw, struct vex_error *error)
{
    struct vex_search_options how = VEX_SEARCH_OPTIONS_INIT;
    how.k = draw->rows_count < VEX_K_MAX ? (uint32_t)draw->rows_count : VEX_K_MAX;
    how.exact = true;
    how.read.snapshot = draw->snapshot;
    struct vex_results results = {
        .size = sizeof(results),
        .ids = draw->near_ids,
        .distances = draw->near_distances,
        .counts = &draw->near_count,
    };
    enum vex_status status = vex_search(draw->collection, draw->place, 1, draw->queries->dim, &how,
                                        &results, NULL, error);
    if (status == VEX_OK && draw->near_count == 0) {
        status = vex_fault(error, VEX_ERR_CORRUPT,
                           "a search for all of %" PRIu64 " rows found none", draw->rows_count);
    }
    return status;
}

static int compare_ids(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left;
    uint64_t b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

/* Few enough to list. In the order of ids, so that what is drawn depends on the data alone. */
static enum vex_status draw_listed(struct draw *draw, struct vex_error *error)
{
    draw->queries->drawn = "rows";
    enum vex_status status = find_near(draw, error);
    if (status != VEX_OK) {
        return status;
    }
    qsort(draw->near_ids, draw->near_count, sizeof(uint64_t), compare_ids);
    for (uint32_t i = 0; i < draw->near_count && status == VEX_OK; i++) {
        if (draw_next(&draw->chance, draw->wanted - draw->queries->count, draw->near_count - i)) {
            (void)take_row(draw, draw->near_ids[i], &status, error);
        }
    }
    return status;
}

/* How many of `probes` ids from `from` on, below `end`, have a row. */
static enum vex_status probe(struct draw *draw, uint64_t from, uint64_t end, uint32_t probes,
                             uint32_t *out_found, struct vex_error *error)
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < probes; i++) {
        struct vex_record record = {.size = sizeof(record)};
        uint64_t id = from + draw_u64(&draw->chance) % (end - from);
        enum vex_status status = vex_snapshot_get(draw->snapshot, id, &record, error);
        if (status != VEX_OK && status != VEX_ERR_NOT_FOUND) {
            return status;
        }
        found += status == VEX_OK;
    }
    *out_found = found;
    return VEX_OK;
}

/*
 * Looks for an end of the ids below which they lie close together and make up nearly all rows;
 * *out_end = 0 if there is none.
 */
static enum vex_status find_end(struct draw *draw, uint64_t *out_end, struct vex_error *error)
{
    uint64_t end = draw->rows_count;
    uint32_t found = 1;
    enum vex_status status = VEX_OK;
    while (found && status == VEX_OK && end < UINT64_MAX / 4) {
        status = probe(draw, end, 2 * end, PROBES_BEYOND, &found, error);
        end = found ? 2 * end : end;
    }
    if (status == VEX_OK) {
        status = probe(draw, 0, end, PROBES, &found, error);
    }
    double density = (double)found / PROBES;
    bool covered = density * (double)end >= COVERED_MIN * (double)draw->rows_count;
    *out_end = density >= DENSITY_MIN && covered ? end : 0;
    return status;
}

static enum vex_status draw_numbered(struct draw *draw, uint64_t end, struct vex_error *error)
{
    draw->queries->drawn = "ids";
    enum vex_status status = VEX_OK;
    while (draw->queries->count < draw->wanted && status == VEX_OK) {
        (void)take_row(draw, draw_u64(&draw->chance) % end, &status, error);
    }
    return status;
}

/* A point in a random direction, outside of data whose largest component is `largest`. */
static void go_outside(struct draw *draw, float largest)
{
    float reach = fminf(REACH * (largest > 0 ? largest : 1), PLACE_MAX);
    for (size_t i = 0; i < draw->queries->dim; i++) {
        draw->place[i] = (float)(2 * draw_unit(&draw->chance) - 1) * reach;
    }
    draw->place[0] = draw->place[0] != 0 ? draw->place[0] : reach;
}

/* To a random one of the rows found near the last place. */
static enum vex_status go_to_row(struct draw *draw, float *largest, struct vex_error *error)
{
    struct vex_record record = {.size = sizeof(record)};
    uint64_t id = draw->near_ids[draw_u64(&draw->chance) % draw->near_count];
    enum vex_status status = vex_snapshot_get(draw->snapshot, id, &record, error);
    for (size_t i = 0; i < draw->queries->dim && status == VEX_OK; i++) {
        draw->place[i] = record.vector[i];
        *largest = fmaxf(*largest, fabsf(record.vector[i]));
    }
    return status;
}

/* Each place begins outside, in a direction of its own, and moves to a row: the rim of the data
 * leads into all parts of it. */
static enum vex_status draw_near_places(struct draw *draw, struct vex_error *error)
{
    draw->queries->drawn = "neighbourhoods";
    float largest = 0;
    enum vex_status status = VEX_OK;
    for (size_t place = 0; place < PLACES && status == VEX_OK; place++) {
        go_outside(draw, largest);
        status = find_near(draw, error);
        status = status == VEX_OK ? go_to_row(draw, &largest, error) : status;
        status = status == VEX_OK ? find_near(draw, error) : status;
        size_t until = draw->wanted * (place + 1) / PLACES;
        while (draw->queries->count < until && status == VEX_OK) {
            uint64_t id = draw->near_ids[draw_u64(&draw->chance) % draw->near_count];
            (void)take_row(draw, id, &status, error);
        }
    }
    return status;
}

static enum vex_status draw_rows(struct draw *draw, struct vex_error *error)
{
    size_t near_max = draw->rows_count < VEX_K_MAX ? (size_t)draw->rows_count : VEX_K_MAX;
    draw->near_ids = vex_context_alloc(near_max, sizeof(*draw->near_ids));
    draw->near_distances = vex_context_alloc(near_max, sizeof(*draw->near_distances));
    draw->place = vex_context_alloc(draw->queries->dim, sizeof(*draw->place));
    go_outside(draw, 0);
    enum vex_status status;
    if (draw->rows_count <= VEX_K_MAX) {
        status = draw_listed(draw, error);
    } else {
        uint64_t end = 0;
        status = find_end(draw, &end, error);
        if (status == VEX_OK) {
            status = end ? draw_numbered(draw, end, error) : draw_near_places(draw, error);
        }
    }
    free(draw->near_ids);
    free(draw->near_distances);
    free(draw->place);
    return status;
}

static enum vex_status make_room(uint32_t dim, size_t count, bool with_ids, struct vex_queries *out,
                                 struct vex_error *error)
{
    if (count > FLOATS_MAX / dim) {
        return vex_fault(error, VEX_ERR_LIMIT,
                         "%zu queries of %" PRIu32 " numbers are too many to hold; at most %zu",
                         count, dim, FLOATS_MAX / dim);
    }
    *out = (struct vex_queries){
        .dim = dim,
        .vectors = vex_context_alloc(count * dim, sizeof(*out->vectors)),
        .ids = with_ids ? vex_context_alloc(count, sizeof(*out->ids)) : NULL,
    };
    return VEX_OK;
}

enum vex_status vex_queries_draw(struct vex_collection *collection, struct vex_snapshot *snapshot,
                                 size_t count, uint64_t seed, struct vex_queries *out,
                                 struct vex_error *error)
{
    struct draw draw = {
        .collection = collection, .snapshot = snapshot, .chance = seed, .queries = out};
    struct vex_collection_info info = {.size = sizeof(info)};
    struct vex_read_options read = VEX_READ_OPTIONS_INIT;
    read.snapshot = snapshot;
    enum vex_status status = vex_collection_describe(collection, &info, error);
    if (status == VEX_OK) {
        status = vex_count(collection, &read, &draw.rows_count, error);
    }
    if (status != VEX_OK) {
        return status;
    }
    if (draw.rows_count < 2) {
        return vex_fault(error, VEX_ERR_INVALID,
                         "collection %.63s holds %" PRIu64
                         " rows; rows as queries leave themselves out, which takes two at least",
                         info.name, draw.rows_count);
    }
    draw.wanted =
        draw.rows_count <= VEX_K_MAX && draw.rows_count < count ? (size_t)draw.rows_count : count;
    status = make_room(info.dim, draw.wanted, true, out, error);
    return status == VEX_OK ? draw_rows(&draw, error) : status;
}

/* ---- rows of a file -------------------------------------------------------------------------- */

static enum vex_status read_rows(struct vex_reader *reader, size_t wanted, uint64_t chance,
                                 struct vex_queries *out, struct vex_error *error)
{
    out->drawn = "file";
    uint64_t left = vex_reader_rows_count(reader);
    while (left > 0 && out->count < wanted) {
        struct vex_reader_rows rows;
        enum vex_status status = vex_reader_next(reader, READ_ROWS, READ_BYTES, &rows, error);
        if (status != VEX_OK) {
            return status;
        }
        for (size_t i = 0; i < rows.count && left > 0; i++, left--) {
            if (draw_next(&chance, wanted - out->count, left)) {
                memcpy(out->vectors + out->count++ * out->dim, rows.vectors + i * out->dim,
                       out->dim * sizeof(float));
            }
        }
        left = rows.count ? left : 0;
    }
    return VEX_OK;
}

static enum vex_status read_queries(struct vex_reader *reader, size_t count, uint64_t seed,
                                    struct vex_queries *out, struct vex_error *error)
{
    uint64_t rows_count = vex_reader_rows_count(reader);
    if (rows_count == 0) {
        return vex_fault(error, VEX_ERR_INVALID, "there are no rows in it");
    }
    size_t wanted = rows_count < count ? (size_t)rows_count : count;
    enum vex_status status = make_room(vex_reader_dim(reader), wanted, false, out, error);
    return status == VEX_OK ? read_rows(reader, wanted, seed, out, error) : status;
}

enum vex_status vex_queries_read(const char *path, const char *format, size_t count, uint64_t seed,
                                 struct vex_queries *out, struct vex_error *error)
{
    enum vex_reader_format known =
        format ? vex_reader_format_of_word(format) : vex_reader_format_of_path(path);
    if (known == VEX_READER_UNKNOWN) {
        return vex_fault(error, VEX_ERR_INVALID,
                         "'%.80s' does not tell the format; --format fvecs, bvecs, npy or jsonl",
                         format ? format : path);
    }
    struct vex_file file = {0};
    enum vex_status status = vex_file_map(path, &file, error);
    if (status != VEX_OK) {
        return status;
    }
    struct vex_reader *reader = NULL;
    status = vex_reader_open_memory(file.data, file.bytes, known, &reader, error);
    if (status == VEX_OK) {
        status = read_queries(reader, count, seed, out, error);
    }
    vex_reader_close(reader);
    vex_file_unmap(&file);
    return status == VEX_OK ? VEX_OK : vex_fault_in(error, path);
}

void vex_queries_deinit(struct vex_queries *queries)
{
    free(queries->vectors);
    free(queries->ids);
    *queries = (struct vex_queries){0};
}
