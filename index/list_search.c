#include "index/list_search.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "index/code_space.h"
#include "index/exact.h"
#include "index/fetch.h"

#define LINE_BYTES 64u
#define GROUP_MAX 1024u         /* queries that share a pass over the lists */
#define GROUP_BYTES (8u << 20)  /* of what they keep: it shall stay in some cache */
#define PROBE_QUERIES 16u       /* compared with the centres together */
#define CHUNK_ROWS_MAX 256u     /* of a list, estimated at once */
#define CHUNK_BYTES (32u << 10) /* of their tiles: they shall stay in the first cache */
#define TILE_QUERIES_MIN 3u     /* from which on tiles are worth making */
#define KEPT_LEAST 96u          /* rows near the front that a query keeps, besides 2 k */
#define RANK_GROUP 4u           /* vectors ranked together */
#define RANK_AHEAD 16u          /* vectors fetched ahead of being ranked */
#define ERROR_SIGMAS 3.0f       /* by which an estimate may be wrong */
#define FOLDS_PER_PROBE 3u      /* groups of keys for each list wanted, or more: few hold two */
#define FETCH_VALUES_MAX 256u
#define FETCH_BYTES_MAX (32u << 10)
#define BISECTIONS 20u
#define ROWS_PER_K 4u /* rows to visit, at least, for each row wanted */

/* A query under way. */
struct seeker {
    struct vex_code_target target;
    double norm;
    float slack; /* by which an estimate may be wrong */
    float limit; /* estimates from here on are out of reach */
    uint32_t count;
    float *distances; /* estimates of living rows within the limit, in no order */
    uint32_t *rows;
    uint32_t probes_count;
    uint32_t *probes; /* ascending */
};

struct hunt {
    const struct vex_list_search *search;
    const struct vex_segment *segment;
    const struct vex_lists *lists;
    const struct vex_codes *codes;
    const struct vex_list_kernels *kernels;
    struct vex_code_space space;
    struct vex_search_counters *counters;
    uint32_t visible_rows;
    uint32_t places;
    uint32_t probes_asked; /* lists to visit */
    uint32_t probes_max;   /* where the lists near a query are short */
    uint32_t kept_max;     /* rows a seeker keeps before it looks which still matter */
    uint32_t chunk_rows;
    uint32_t group; /* seekers there is room for */
    struct seeker *seekers;
    float *rotated;
    int8_t *values; /* [group][padded]: queries, rounded */
    int32_t *dots;
    float *keys;             /* [places] */
    float *found_keys;       /* [places] */
    uint32_t *found;         /* [places] */
    uint32_t *wanted_starts; /* [lists + 2]: of each list's queries in `wanted` */
    uint32_t *wanted;
    uint8_t *tiles;
    struct vex_row_factors factors;
    const uint8_t *ahead; /* codes that will be read next */
    size_t ahead_bytes;
};

/* ---- selecting ------------------------------------------------------------------------------- */

/*
 * A limit within which lie `wanted` of the values and at most `more` others, unless they are too close
 * together; found by doubling `width`, a guess, and then halving. `count` is a multiple of 16, padded with infinity.
 */
static float limit_for(const struct vex_list_kernels *kernels, const float *values, size_t count,
                       uint32_t wanted, uint32_t more, float width, uint32_t *out_within)
{
    float low = values[kernels->smallest(values, count)];
    width = width > FLT_MIN ? width : FLT_MIN;
    float high = low + width;
    uint32_t within = kernels->count_within(values, count, high);
    while (within < wanted && high < INFINITY) {
        low = high;
        width *= 2;
        high = low + width;
        within = kernels->count_within(values, count, high);
    }
    for (uint32_t i = 0; i < BISECTIONS && within > wanted + more; i++) {
        float middle = low + (high - low) / 2;
        uint32_t below = kernels->count_within(values, count, middle);
        if (below >= wanted) {
            high = middle;
            within = below;
        } else {
            low = middle;
        }
    }
    *out_within = within;
    return high;
}

/* ---- which lists ----------------------------------------------------------------------------- */

static uint32_t rows_of(const struct hunt *hunt, uint32_t list)
{
    struct vex_list_range range = vex_lists_range(hunt->lists, list);
    uint32_t visible = range.first < hunt->visible_rows ? hunt->visible_rows - range.first : 0;
    return range.count < visible ? range.count : visible;
}

/* Takes the `wanted` nearest lists of a query whose keys are known. Returns the rows in them. */
static uint64_t take_probes(struct hunt *hunt, struct seeker *seeker, uint32_t wanted)
{
    uint32_t within = 0;
    float limit;
    float width = seeker->target.length * seeker->target.length / 4;
    /* If so many groups of keys have one within a limit, at least so many keys are. */
    if (wanted <= hunt->places / FOLDS_PER_PROBE / VEX_FOLD) {
        uint32_t folds = (uint32_t)vex_round_up(hunt->places / VEX_FOLD, VEX_TILE_ROWS);
        hunt->kernels->fold(hunt->keys, hunt->places, hunt->found_keys);
        limit =
            limit_for(hunt->kernels, hunt->found_keys, folds, wanted, wanted / 8, width, &within);
    } else {
        limit =
            limit_for(hunt->kernels, hunt->keys, hunt->places, wanted, wanted / 8, width, &within);
    }
    within = hunt->kernels->places_within(hunt->keys, hunt->places, limit, hunt->found);
    /* Among these few, the exact number. */
    uint32_t places = (uint32_t)vex_round_up(within, VEX_TILE_ROWS);
    for (uint32_t i = 0; i < places; i++) {
        hunt->found_keys[i] = i < within ? hunt->keys[hunt->found[i]] : INFINITY;
    }
    if (within > wanted) {
        limit = limit_for(hunt->kernels, hunt->found_keys, places, wanted, 0, width, &within);
    }
    uint64_t rows = 0;
    seeker->probes_count = 0;
    for (uint32_t i = 0; i < places && seeker->probes_count < wanted; i++) {
        if (hunt->found_keys[i] <= limit && hunt->found[i] < hunt->lists->count) {
            seeker->probes[seeker->probes_count++] = hunt->found[i];
            rows += rows_of(hunt, hunt->found[i]);
        }
    }
    return rows;
}

/* As many lists as asked for, and so many that there are some times the rows wanted in them. */
static void choose_probes(struct hunt *hunt, struct seeker *seeker, uint32_t k)
{
    uint32_t wanted = hunt->probes_asked;
    uint64_t rows = take_probes(hunt, seeker, wanted);
    while (rows < (uint64_t)ROWS_PER_K * k && wanted < hunt->probes_max) {
        wanted = wanted < hunt->probes_max / 2 ? 2 * wanted : hunt->probes_max;
        rows = take_probes(hunt, seeker, wanted);
    }
    hunt->counters->rows_visited += rows;
}

static void prepare(struct hunt *hunt, size_t query, struct seeker *seeker)
{
    const struct vex_list_search *search = hunt->search;
    const struct vex_topk *topk = &search->topks[query];
    const float *values = search->queries + query * search->view->dim;
    int8_t *bytes = (int8_t *)(uintptr_t)seeker->target.code.values;
    seeker->norm = vex_exact_norm(values, search->view->dim);
    vex_code_space_query(&hunt->space, hunt->codes, values, seeker->norm, hunt->rotated, bytes,
                         &seeker->target);
    seeker->slack =
        ERROR_SIGMAS * hunt->lists->error_rms * seeker->target.length * hunt->codes->mean_length;
    seeker->count = 0;
    seeker->limit = INFINITY;
    double threshold = vex_topk_threshold(topk);
    if (threshold < INFINITY && seeker->target.key_scale > 0) {
        seeker->limit =
            (float)((threshold - seeker->target.key_offset) / seeker->target.key_scale) +
            seeker->slack;
    }
}

static int32_t sum_of(const int8_t *bytes, uint32_t count)
{
    int32_t sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        sum += bytes[i];
    }
    return sum;
}

static void find_probes(struct hunt *hunt, size_t first, uint32_t count)
{
    const struct vex_lists *lists = hunt->lists;
    for (uint32_t i = 0; i < count; i += PROBE_QUERIES) {
        uint32_t some = count - i < PROBE_QUERIES ? count - i : PROBE_QUERIES;
        const int8_t *queries[PROBE_QUERIES];
        for (uint32_t j = 0; j < some; j++) {
            prepare(hunt, first + i + j, &hunt->seekers[i + j]);
            queries[j] = hunt->seekers[i + j].target.code.values;
        }
        hunt->kernels->tile_dots(lists->centres.tiles, hunt->places / VEX_TILE_ROWS, lists->padded,
                                 queries, some, hunt->dots, hunt->places);
        for (uint32_t j = 0; j < some; j++) {
            struct seeker *seeker = &hunt->seekers[i + j];
            hunt->kernels->centre_keys(
                hunt->dots + (size_t)j * hunt->places, lists->centres.scales,
                lists->centres.squares, hunt->places, -2 * seeker->target.code.scale,
                VEX_CENTRE_MIDDLE * sum_of(queries[j], lists->padded), hunt->keys);
            choose_probes(hunt, seeker, hunt->search->topks[first + i + j].k);
        }
    }
}

/* ---- estimates ------------------------------------------------------------------------------- */

static uint32_t pad_distances(struct seeker *seeker)
{
    uint32_t places = (uint32_t)vex_round_up(seeker->count, VEX_TILE_ROWS);
    for (uint32_t i = seeker->count; i < places; i++) {
        seeker->distances[i] = INFINITY;
    }
    return places;
}

/* Without a branch, which would be a coin's toss. */
static void drop_beyond(struct seeker *seeker, float limit)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < seeker->count; i++) {
        float distance = seeker->distances[i];
        seeker->distances[kept] = distance;
        seeker->rows[kept] = seeker->rows[i];
        kept += distance < limit;
    }
    seeker->count = kept;
}

/* Keeps what may still be among the k nearest. */
static void thin_out(const struct hunt *hunt, struct seeker *seeker, uint32_t k)
{
    uint32_t places = pad_distances(seeker);
    uint32_t within;
    if (seeker->count >= k) {
        float kth =
            limit_for(hunt->kernels, seeker->distances, places, k, 0, seeker->slack, &within);
        float limit = nextafterf(kth + seeker->slack, INFINITY);
        seeker->limit = limit < seeker->limit ? limit : seeker->limit;
    }
    drop_beyond(seeker, seeker->limit);
    if (seeker->count > hunt->kept_max) {
        /* More rows are alike than there is room for: the nearer half, and the first of equals. */
        places = pad_distances(seeker);
        float half = limit_for(hunt->kernels, seeker->distances, places, hunt->kept_max / 2,
                               hunt->kept_max / 4, seeker->slack, &within);
        seeker->limit = half;
        drop_beyond(seeker, nextafterf(half, INFINITY));
        seeker->count = seeker->count < hunt->kept_max ? seeker->count : hunt->kept_max;
    }
}

/* Takes the rows of a chunk that are near enough. */
static void take_rows(const struct hunt *hunt, struct seeker *seeker, const int32_t *dots,
                      struct vex_list_range chunk, uint32_t k)
{
    seeker->count += hunt->kernels->near_rows(
        &seeker->target.code, dots, hunt->factors, chunk.count, seeker->limit, chunk.first,
        seeker->distances + seeker->count, seeker->rows + seeker->count);
    if (seeker->count > hunt->kept_max) {
        thin_out(hunt, seeker, k);
    }
}

/* The next list is asked of memory bit by bit while this one is served: all at once would have to wait. */
static void plan_ahead(struct hunt *hunt, struct vex_list_range list)
{
    size_t code_bytes = hunt->codes->padded / 2;
    size_t bytes = list.count * code_bytes;
    hunt->ahead = hunt->codes->codes + (size_t)list.first * code_bytes;
    hunt->ahead_bytes = bytes < FETCH_BYTES_MAX ? bytes : FETCH_BYTES_MAX;
    size_t rows = list.count < CHUNK_ROWS_MAX ? list.count : CHUNK_ROWS_MAX;
    vex_fetch(hunt->codes->factors + list.first, rows * sizeof(*hunt->codes->factors));
    vex_fetch(&hunt->segment->deaths[list.first], rows * sizeof(uint64_t));
}

static void fetch_ahead(struct hunt *hunt, size_t bytes)
{
    bytes = bytes < hunt->ahead_bytes ? bytes : hunt->ahead_bytes;
    vex_fetch(hunt->ahead, bytes);
    hunt->ahead += bytes;
    hunt->ahead_bytes -= bytes;
}

static void estimate_few(struct hunt *hunt, size_t first, const uint32_t *wanted, uint32_t count,
                         struct vex_list_range chunk)
{
    const struct vex_codes *codes = hunt->codes;
    for (uint32_t i = 0; i < count; i++) {
        struct seeker *seeker = &hunt->seekers[wanted[i]];
        hunt->kernels->row_dots(codes->codes + (size_t)chunk.first * (codes->padded / 2),
                                codes->padded, chunk.count, seeker->target.code.values, hunt->dots);
        take_rows(hunt, seeker, hunt->dots, chunk, hunt->search->topks[first + wanted[i]].k);
    }
}

static void estimate_many(struct hunt *hunt, size_t first, const uint32_t *wanted, uint32_t count,
                          struct vex_list_range chunk)
{
    const struct vex_codes *codes = hunt->codes;
    uint32_t tiles_count = (chunk.count + VEX_TILE_ROWS - 1) / VEX_TILE_ROWS;
    for (uint32_t t = 0; t < tiles_count; t++) {
        uint32_t row = t * VEX_TILE_ROWS;
        uint32_t left = chunk.count - row;
        hunt->kernels->tile_codes(codes->codes + ((size_t)chunk.first + row) * (codes->padded / 2),
                                  codes->padded, left < VEX_TILE_ROWS ? left : VEX_TILE_ROWS,
                                  hunt->tiles + t * vex_tile_bytes(codes->padded));
    }
    size_t step = vex_round_up(hunt->ahead_bytes / (1 + count / RANK_GROUP), LINE_BYTES);
    for (uint32_t i = 0; i < count; i += RANK_GROUP) {
        uint32_t some = count - i < RANK_GROUP ? count - i : RANK_GROUP;
        const int8_t *queries[RANK_GROUP];
        for (uint32_t j = i + RANK_GROUP; j < count && j < i + 2 * RANK_GROUP; j++) {
            const struct seeker *next = &hunt->seekers[wanted[j]];
            vex_fetch(next, sizeof(*next));
            vex_fetch(hunt->values + (size_t)wanted[j] * codes->padded,
                      codes->padded < FETCH_VALUES_MAX ? codes->padded : FETCH_VALUES_MAX);
        }
        for (uint32_t j = 0; j < some; j++) {
            queries[j] = hunt->seekers[wanted[i + j]].target.code.values;
        }
        fetch_ahead(hunt, step);
        hunt->kernels->tile_dots(hunt->tiles, tiles_count, codes->padded, queries, some, hunt->dots,
                                 CHUNK_ROWS_MAX);
        for (uint32_t j = 0; j < some; j++) {
            take_rows(hunt, &hunt->seekers[wanted[i + j]], hunt->dots + j * CHUNK_ROWS_MAX, chunk,
                      hunt->search->topks[first + wanted[i + j]].k);
        }
    }
}

/* A dead row is infinitely far: looked at once for all queries, and in none of their loops. */
static void prepare_factors(const struct hunt *hunt, struct vex_list_range chunk)
{
    uint64_t lsn = hunt->search->view->lsn;
    hunt->kernels->row_factors(&hunt->seekers[0].target.code, hunt->codes->factors + chunk.first,
                               chunk.count, hunt->factors);
    for (uint32_t i = 0; i < chunk.count; i++) {
        bool is_alive = vex_segment_alive(hunt->segment, chunk.first + i, lsn);
        hunt->factors.add[i] = is_alive ? hunt->factors.add[i] : INFINITY;
    }
}

/* Serves the queries that want a list. */
static void visit_list(struct hunt *hunt, size_t first, uint32_t list, const uint32_t *wanted,
                       uint32_t count)
{
    struct vex_list_range range = vex_lists_range(hunt->lists, list);
    uint32_t rows = rows_of(hunt, list);
    for (uint32_t row = 0; row < rows; row += hunt->chunk_rows) {
        struct vex_list_range chunk = {range.first + row, rows - row};
        chunk.count = chunk.count < hunt->chunk_rows ? chunk.count : hunt->chunk_rows;
        prepare_factors(hunt, chunk);
        if (count < TILE_QUERIES_MIN) {
            estimate_few(hunt, first, wanted, count, chunk);
        } else {
            estimate_many(hunt, first, wanted, count, chunk);
        }
    }
}

/* Visits the probes of all seekers, list by list, in the order in which they lie in memory. */
static void visit_lists(struct hunt *hunt, size_t first, uint32_t count)
{
    uint32_t lists = hunt->lists->count;
    uint32_t *starts = hunt->wanted_starts;
    memset(starts, 0, ((size_t)lists + 2) * sizeof(*starts));
    for (uint32_t i = 0; i < count; i++) {
        const struct seeker *seeker = &hunt->seekers[i];
        for (uint32_t j = 0; j < seeker->probes_count; j++) {
            starts[seeker->probes[j] + 2]++;
        }
    }
    for (uint32_t list = 2; list < lists + 2; list++) {
        starts[list] += starts[list - 1];
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct seeker *seeker = &hunt->seekers[i];
        for (uint32_t j = 0; j < seeker->probes_count; j++) {
            hunt->wanted[starts[seeker->probes[j] + 1]++] = i;
        }
    }
    for (uint32_t list = 0; list < lists; list++) {
        uint32_t wanted = starts[list + 1] - starts[list];
        if (list + 1 < lists && starts[list + 2] > starts[list + 1]) {
            plan_ahead(hunt, vex_lists_range(hunt->lists, list + 1));
        }
        if (wanted > 0) {
            visit_list(hunt, first, list, hunt->wanted + starts[list], wanted);
            fetch_ahead(hunt, FETCH_BYTES_MAX);
        }
    }
}

/* ---- ranking --------------------------------------------------------------------------------- */

static void fetch_row(const struct hunt *hunt, uint32_t row)
{
    vex_fetch(vex_segment_stored(hunt->segment, row), hunt->segment->row_bytes);
}

/* About the k nearest: once they are ranked, the others are mostly refused at once. */
static void put_nearest_rows_first(struct seeker *seeker)
{
    float bound = seeker->limit - seeker->slack;
    uint32_t nearer = 0;
    for (uint32_t i = 0; i < seeker->count; i++) {
        float distance = seeker->distances[i];
        uint32_t row = seeker->rows[i];
        seeker->distances[i] = seeker->distances[nearer];
        seeker->rows[i] = seeker->rows[nearer];
        seeker->distances[nearer] = distance;
        seeker->rows[nearer] = row;
        nearer += distance <= bound;
    }
}

/* Leaves what is worth ranking and asks memory for the first vectors. */
static void line_up(const struct hunt *hunt, struct seeker *seeker, uint32_t k)
{
    thin_out(hunt, seeker, k);
    put_nearest_rows_first(seeker);
    for (uint32_t i = 0; i < seeker->count && i < RANK_AHEAD; i++) {
        fetch_row(hunt, seeker->rows[i]);
    }
}

static void rank_group(const struct hunt *hunt, const struct seeker *seeker, const float *query,
                       const uint32_t *numbers, uint32_t count, struct vex_topk *topk)
{
    const struct vex_segment *segment = hunt->segment;
    uint32_t rows[RANK_GROUP];
    double keys[RANK_GROUP];
    for (uint32_t i = 0; i < RANK_GROUP; i++) {
        rows[i] = numbers[i < count ? i : 0];
    }
    vex_exact_row_keys(segment, query, seeker->norm, rows, keys);
    for (uint32_t i = 0; i < count; i++) {
        if (keys[i] > vex_topk_threshold(topk)) {
            continue; /* its id, a line of memory of its own, does not matter */
        }
        struct vex_candidate candidate = {
            .key = keys[i],
            .id = segment->ids[numbers[i]],
            .segment = hunt->search->segment,
            .row = numbers[i],
        };
        vex_topk_offer(topk, &candidate);
    }
}

/*
 * In no order: whoever is left has an estimate within reach of the k-th best estimate, which is nearly
 * all that ordering by estimates could tell.
 */
static void rank(const struct hunt *hunt, const struct seeker *seeker, const float *query,
                 struct vex_topk *topk)
{
    const struct vex_code_target *target = &seeker->target;
    uint32_t numbers[RANK_GROUP];
    uint32_t count = 0;
    for (uint32_t i = 0; i < seeker->count; i++) {
        if (i + RANK_AHEAD < seeker->count) {
            fetch_row(hunt, seeker->rows[i + RANK_AHEAD]);
        }
        double nearest =
            target->key_scale * ((double)seeker->distances[i] - (double)seeker->slack) +
            target->key_offset;
        if (nearest > vex_topk_threshold(topk)) {
            continue;
        }
        numbers[count++] = seeker->rows[i];
        if (count == RANK_GROUP) {
            rank_group(hunt, seeker, query, numbers, count, topk);
            count = 0;
        }
    }
    if (count > 0) {
        rank_group(hunt, seeker, query, numbers, count, topk);
    }
}

static void finish(struct hunt *hunt, size_t first, uint32_t count)
{
    const struct vex_list_search *search = hunt->search;
    if (count > 0) {
        line_up(hunt, &hunt->seekers[0], search->topks[first].k);
    }
    for (uint32_t i = 0; i < count; i++) {
        struct vex_topk *topk = &search->topks[first + i];
        const float *query = search->queries + (first + i) * search->view->dim;
        /* The next one's vectors come while this one's are ranked. */
        if (i + 1 < count) {
            line_up(hunt, &hunt->seekers[i + 1], search->topks[first + i + 1].k);
        }
        rank(hunt, &hunt->seekers[i], query, topk);
        if (topk->count < topk->k && hunt->seekers[i].probes_count < hunt->lists->count) {
            hunt->counters->rescans++;
            vex_topk_drop(topk, search->segment);
            vex_flat_scan(search->view, search->segment, query, 1, topk, hunt->counters);
        }
    }
}

/* ---- memory ---------------------------------------------------------------------------------- */

static size_t take(size_t *used, size_t bytes)
{
    size_t offset = *used;
    *used += vex_round_up(bytes, LINE_BYTES);
    return offset;
}

static size_t largest(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Measures first, with `base` NULL, and then places. */
static size_t place(struct hunt *hunt, uint8_t *base)
{
    uint32_t padded = hunt->codes->padded;
    uint32_t kept_room = hunt->kept_max + CHUNK_ROWS_MAX + VEX_TILE_ROWS;
    size_t used = 0;
#define PLACE(pointer, bytes)                                                                      \
    do {                                                                                           \
        size_t offset = take(&used, bytes);                                                        \
        if (base) {                                                                                \
            (pointer) = (void *)(base + offset);                                                   \
        }                                                                                          \
    } while (0)
    PLACE(hunt->seekers, hunt->group * sizeof(*hunt->seekers));
    PLACE(hunt->rotated, padded * sizeof(float));
    PLACE(hunt->dots,
          largest((size_t)PROBE_QUERIES * hunt->places, (size_t)RANK_GROUP * CHUNK_ROWS_MAX) *
              sizeof(int32_t));
    PLACE(hunt->keys, hunt->places * sizeof(float));
    PLACE(hunt->found, hunt->places * sizeof(uint32_t));
    PLACE(hunt->found_keys, hunt->places * sizeof(float));
    PLACE(hunt->wanted_starts, ((size_t)hunt->lists->count + 2) * sizeof(uint32_t));
    PLACE(hunt->wanted, (size_t)hunt->group * hunt->probes_max * sizeof(uint32_t));
    PLACE(hunt->tiles, vex_tile_bytes(padded) * (hunt->chunk_rows / VEX_TILE_ROWS));
    PLACE(hunt->factors.add, CHUNK_ROWS_MAX * sizeof(float));
    PLACE(hunt->factors.rescale, CHUNK_ROWS_MAX * sizeof(float));
    PLACE(hunt->values, (size_t)hunt->group * padded);
#undef PLACE
    for (uint32_t i = 0; i < hunt->group; i++) {
        size_t distances = take(&used, kept_room * sizeof(float));
        size_t rows = take(&used, kept_room * sizeof(uint32_t));
        size_t probes = take(&used, hunt->probes_max * sizeof(uint32_t));
        if (base) {
            hunt->seekers[i].target.code.values = hunt->values + (size_t)i * padded;
            hunt->seekers[i].distances = (void *)(base + distances);
            hunt->seekers[i].rows = (void *)(base + rows);
            hunt->seekers[i].probes = (void *)(base + probes);
        }
    }
    return used;
}

static uint32_t least(uint64_t a, uint64_t b)
{
    return (uint32_t)(a < b ? a : b);
}

/* For want of a table: what these recalls took on real data (60,000 to 400,000 rows), and some more. */
static uint32_t usual_probes(double recall)
{
    return recall <= 0.9 ? 48 : recall <= 0.95 ? 80 : recall <= 0.99 ? 192 : 512;
}

static uint32_t probes_asked(const struct vex_list_search *search, uint32_t k)
{
    const struct vex_effort *effort = search->view->effort;
    if (effort && effort->recall > 0) {
        const struct vex_segment *segment = search->view->segments[search->segment].segment;
        uint32_t measured =
            vex_effort_for(&segment->effort, VEX_EFFORT_UNIT_NPROBE, k, effort->recall);
        return measured ? measured : usual_probes(effort->recall);
    }
    return effort && effort->nprobe ? effort->nprobe : VEX_LISTS_PROBE_DEFAULT;
}

static void measure(struct hunt *hunt, uint32_t k)
{
    const struct vex_lists *lists = hunt->lists;
    uint64_t rows_wanted = (uint64_t)2 * ROWS_PER_K * k;
    hunt->places = vex_lists_places(lists->count);
    hunt->probes_asked = least(probes_asked(hunt->search, k), lists->count);
    hunt->probes_max =
        least(hunt->probes_asked + rows_wanted * lists->count / lists->rows + 1, lists->count);
    hunt->kept_max = KEPT_LEAST + 2 * k;
    hunt->chunk_rows = CHUNK_BYTES / hunt->codes->padded;
    hunt->chunk_rows -= hunt->chunk_rows % VEX_TILE_ROWS;
    hunt->chunk_rows = hunt->chunk_rows < VEX_TILE_ROWS ? VEX_TILE_ROWS : hunt->chunk_rows;
    hunt->chunk_rows = least(hunt->chunk_rows, CHUNK_ROWS_MAX);
    hunt->group = 1;
    size_t one = place(hunt, NULL);
    hunt->group = 2;
    size_t each = place(hunt, NULL) - one;
    hunt->group = least(largest(GROUP_BYTES / each, 1), GROUP_MAX);
    hunt->group = least(hunt->group, hunt->search->queries_count);
}

static uint32_t largest_k(const struct vex_list_search *search)
{
    uint32_t k = 0;
    for (size_t i = 0; i < search->queries_count; i++) {
        k = search->topks[i].k > k ? search->topks[i].k : k;
    }
    return k;
}

bool vex_lists_can_serve(const struct vex_segment *segment)
{
    return segment->lists.count > 0 && segment->codes.blur <= VEX_CODES_BLUR_MAX;
}

static struct hunt begin(const struct vex_list_search *search)
{
    const struct vex_view_segment *part = &search->view->segments[search->segment];
    return (struct hunt){
        .search = search,
        .segment = part->segment,
        .lists = &part->segment->lists,
        .codes = &part->segment->codes,
        .kernels = vex_list_kernels_get(),
        .space = vex_code_space_of(part->segment),
        .visible_rows = part->visible_rows,
    };
}

static void search_group(struct hunt *hunt, size_t first, uint32_t count)
{
    find_probes(hunt, first, count);
    visit_lists(hunt, first, count);
    finish(hunt, first, count);
}

size_t vex_lists_scratch_bytes(const struct vex_view *view, uint32_t segment, size_t queries_count,
                               uint32_t k)
{
    struct vex_list_search search = {
        .view = view,
        .segment = segment,
        .queries_count = queries_count,
    };
    struct hunt hunt = begin(&search);
    measure(&hunt, k);
    return place(&hunt, NULL);
}

enum vex_status vex_lists_search(const struct vex_list_search *search,
                                 struct vex_search_counters *counters, struct vex_error *error)
{
    const struct vex_effort *effort = search->view->effort;
    struct hunt hunt = begin(search);
    hunt.counters = counters;
    if (search->queries_count == 0) {
        return VEX_OK;
    }
    measure(&hunt, largest_k(search));
    size_t needed = place(&hunt, NULL);
    bool is_given = effort && effort->scratch && effort->scratch_bytes >= needed;
    uint8_t *memory = is_given ? effort->scratch : aligned_alloc(LINE_BYTES, needed);
    if (!memory) {
        return vex_error_set(error, VEX_ERR_NOMEM, "search: out of memory for %u queries at once",
                             hunt.group);
    }
    (void)place(&hunt, memory);
    for (size_t first = 0; first < search->queries_count; first += hunt.group) {
        search_group(&hunt, first, least(search->queries_count - first, hunt.group));
    }
    if (!is_given) {
        free(memory);
    }
    return VEX_OK;
}
