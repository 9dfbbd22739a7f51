/*
 * Reading lists and ranking what they hold.
 *
 * Lists are read in the order in which they lie in memory, each once for all queries that want it. Two
 * ways lead to the products of a list's codes with queries: one query against rows as they lie, and, from
 * a few queries on, several against tiles. Either way an estimate costs less than the line that its code
 * is, so the next list is asked of memory meanwhile.
 */
#include "index/list_search_priv.h"

#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "index/exact.h"
#include "index/fetch.h"

#define TILE_QUERIES_MIN 3u /* from which on tiles are worth making */
#define RANK_AHEAD 16u      /* vectors fetched ahead of being ranked */
#define FETCH_VALUES_MAX 256u
#define FETCH_BYTES_MAX (32u << 10)

/* ---- estimates ------------------------------------------------------------------------------- */

static uint32_t pad_distances(struct vex_seeker *seeker)
{
    uint32_t places = (uint32_t)vex_round_up(seeker->count, VEX_LIST_TILE_ROWS);
    for (uint32_t i = seeker->count; i < places; i++) {
        seeker->distances[i] = INFINITY;
    }
    return places;
}

/* Without a branch, which would be a coin's toss. */
static void drop_beyond(struct vex_seeker *seeker, float limit)
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
static void thin_out(const struct vex_hunt *hunt, struct vex_seeker *seeker, uint32_t k)
{
    uint32_t places = pad_distances(seeker);
    uint32_t within;
    if (seeker->count >= k) {
        float kth =
            vex_limit_for(hunt->kernels, seeker->distances, places, k, 0, seeker->slack, &within);
        float limit = nextafterf(kth + seeker->slack, INFINITY);
        seeker->limit = limit < seeker->limit ? limit : seeker->limit;
    }
    drop_beyond(seeker, seeker->limit);
    if (seeker->count > hunt->kept_max) {
        /* More rows are alike than there is room for: the nearer half, and the first of equals. */
        places = pad_distances(seeker);
        float half = vex_limit_for(hunt->kernels, seeker->distances, places, hunt->kept_max / 2,
                                   hunt->kept_max / 4, seeker->slack, &within);
        seeker->limit = half;
        drop_beyond(seeker, nextafterf(half, INFINITY));
        seeker->count = seeker->count < hunt->kept_max ? seeker->count : hunt->kept_max;
    }
}

/* Takes the rows of a chunk that are near enough. */
static void take_rows(const struct vex_hunt *hunt, struct vex_seeker *seeker, const int32_t *dots,
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
static void plan_ahead(struct vex_hunt *hunt, struct vex_list_range list)
{
    size_t code_bytes = hunt->codes->padded / 2;
    size_t bytes = list.count * code_bytes;
    hunt->ahead = hunt->codes->codes + (size_t)list.first * code_bytes;
    hunt->ahead_bytes = bytes < FETCH_BYTES_MAX ? bytes : FETCH_BYTES_MAX;
    size_t rows = list.count < VEX_LIST_CHUNK_ROWS_MAX ? list.count : VEX_LIST_CHUNK_ROWS_MAX;
    vex_fetch(hunt->codes->factors + list.first, rows * sizeof(*hunt->codes->factors));
    vex_fetch(&hunt->segment->deaths[list.first], rows * sizeof(uint64_t));
}

static void fetch_ahead(struct vex_hunt *hunt, size_t bytes)
{
    bytes = bytes < hunt->ahead_bytes ? bytes : hunt->ahead_bytes;
    vex_fetch(hunt->ahead, bytes);
    hunt->ahead += bytes;
    hunt->ahead_bytes -= bytes;
}

static void estimate_few(struct vex_hunt *hunt, size_t first, const uint32_t *wanted,
                         uint32_t count, struct vex_list_range chunk)
{
    const struct vex_codes *codes = hunt->codes;
    const struct vex_scan_kernels *scan = vex_kernels_get()->scan;
    for (uint32_t i = 0; i < count; i++) {
        struct vex_seeker *seeker = &hunt->seekers[wanted[i]];
        scan->dots(seeker->target.code.values,
                   codes->codes + (size_t)chunk.first * (codes->padded / 2), codes->padded,
                   chunk.count, hunt->dots);
        take_rows(hunt, seeker, hunt->dots, chunk, hunt->search->topks[first + wanted[i]].k);
    }
}

static void estimate_many(struct vex_hunt *hunt, size_t first, const uint32_t *wanted,
                          uint32_t count, struct vex_list_range chunk)
{
    const struct vex_codes *codes = hunt->codes;
    uint32_t tiles_count = (chunk.count + VEX_LIST_TILE_ROWS - 1) / VEX_LIST_TILE_ROWS;
    for (uint32_t t = 0; t < tiles_count; t++) {
        uint32_t row = t * VEX_LIST_TILE_ROWS;
        uint32_t left = chunk.count - row;
        hunt->kernels->tile_codes(codes->codes + ((size_t)chunk.first + row) * (codes->padded / 2),
                                  codes->padded,
                                  left < VEX_LIST_TILE_ROWS ? left : VEX_LIST_TILE_ROWS,
                                  hunt->tiles + t * vex_list_tile_bytes(codes->padded));
    }
    size_t step =
        vex_round_up(hunt->ahead_bytes / (1 + count / VEX_LIST_RANK_GROUP), VEX_LIST_LINE_BYTES);
    for (uint32_t i = 0; i < count; i += VEX_LIST_RANK_GROUP) {
        uint32_t some = count - i < VEX_LIST_RANK_GROUP ? count - i : VEX_LIST_RANK_GROUP;
        const int8_t *queries[VEX_LIST_RANK_GROUP];
        for (uint32_t j = i + VEX_LIST_RANK_GROUP; j < count && j < i + 2 * VEX_LIST_RANK_GROUP;
             j++) {
            const struct vex_seeker *next = &hunt->seekers[wanted[j]];
            vex_fetch(next, sizeof(*next));
            vex_fetch(hunt->values + (size_t)wanted[j] * codes->padded,
                      codes->padded < FETCH_VALUES_MAX ? codes->padded : FETCH_VALUES_MAX);
        }
        for (uint32_t j = 0; j < some; j++) {
            queries[j] = hunt->seekers[wanted[i + j]].target.code.values;
        }
        fetch_ahead(hunt, step);
        hunt->kernels->tile_dots(hunt->tiles, tiles_count, codes->padded, queries, some, hunt->dots,
                                 VEX_LIST_CHUNK_ROWS_MAX);
        for (uint32_t j = 0; j < some; j++) {
            take_rows(hunt, &hunt->seekers[wanted[i + j]], hunt->dots + j * VEX_LIST_CHUNK_ROWS_MAX,
                      chunk, hunt->search->topks[first + wanted[i + j]].k);
        }
    }
}

/* A dead row is infinitely far: looked at once for all queries, and in none of their loops. */
static void prepare_factors(const struct vex_hunt *hunt, struct vex_list_range chunk)
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
static void visit_list(struct vex_hunt *hunt, size_t first, uint32_t list, const uint32_t *wanted,
                       uint32_t count)
{
    struct vex_list_range range = vex_hunt_range(hunt, list);
    for (uint32_t row = 0; row < range.count; row += hunt->chunk_rows) {
        struct vex_list_range chunk = {range.first + row, range.count - row};
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
void vex_hunt_visit(struct vex_hunt *hunt, size_t first, uint32_t count)
{
    uint32_t lists = hunt->lists->count;
    uint32_t *starts = hunt->wanted_starts;
    memset(starts, 0, ((size_t)lists + 2) * sizeof(*starts));
    for (uint32_t i = 0; i < count; i++) {
        const struct vex_seeker *seeker = &hunt->seekers[i];
        for (uint32_t j = 0; j < seeker->probes_count; j++) {
            starts[seeker->probes[j] + 2]++;
        }
    }
    for (uint32_t list = 2; list < lists + 2; list++) {
        starts[list] += starts[list - 1];
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct vex_seeker *seeker = &hunt->seekers[i];
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

static void fetch_row(const struct vex_hunt *hunt, uint32_t row)
{
    vex_fetch(vex_segment_stored(hunt->segment, row), hunt->segment->row_bytes);
}

/* About the k nearest: once they are ranked, the others are mostly refused at once. */
static void put_nearest_rows_first(struct vex_seeker *seeker)
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
static void line_up(const struct vex_hunt *hunt, struct vex_seeker *seeker, uint32_t k)
{
    thin_out(hunt, seeker, k);
    put_nearest_rows_first(seeker);
    for (uint32_t i = 0; i < seeker->count && i < RANK_AHEAD; i++) {
        fetch_row(hunt, seeker->rows[i]);
    }
}

static void rank_group(const struct vex_hunt *hunt, const struct vex_seeker *seeker,
                       const float *query, const uint32_t *numbers, uint32_t count,
                       struct vex_topk *topk)
{
    const struct vex_segment *segment = hunt->segment;
    uint32_t rows[VEX_LIST_RANK_GROUP];
    double keys[VEX_LIST_RANK_GROUP];
    for (uint32_t i = 0; i < VEX_LIST_RANK_GROUP; i++) {
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
static void rank(const struct vex_hunt *hunt, const struct vex_seeker *seeker, const float *query,
                 struct vex_topk *topk)
{
    const struct vex_code_target *target = &seeker->target;
    uint32_t numbers[VEX_LIST_RANK_GROUP];
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
        if (count == VEX_LIST_RANK_GROUP) {
            rank_group(hunt, seeker, query, numbers, count, topk);
            count = 0;
        }
    }
    if (count > 0) {
        rank_group(hunt, seeker, query, numbers, count, topk);
    }
}

/* Lists and rows are told apart by numbers in single precision, which a query may be too far away for. */
static bool can_be_estimated(const struct vex_seeker *seeker)
{
    return isfinite(seeker->target.code.base) && isfinite(seeker->target.code.scale);
}

/* Whether rows are alive that a query has not ranked though it wants more than it has. */
static bool has_missed_rows(const struct vex_hunt *hunt, const struct vex_seeker *seeker)
{
    uint32_t rows = hunt->lists->rows < hunt->visible_rows ? hunt->lists->rows : hunt->visible_rows;
    uint32_t living = 0;
    if (seeker->probes_count < hunt->lists->count) {
        return true;
    }
    for (uint32_t row = 0; row < rows; row++) {
        living += vex_segment_alive(hunt->segment, row, hunt->search->view->lsn);
    }
    return seeker->count < living;
}

/* Too few rows are alive in the lists that were visited, or could be told apart. The hunt still lies in the view's scratch, so a
 * scan must find its own. */
static void scan_instead(const struct vex_hunt *hunt, const float *query, struct vex_topk *topk)
{
    struct vex_view view = *hunt->search->view;
    view.effort = NULL;
    hunt->counters->rescans++;
    vex_topk_drop(topk, hunt->search->segment);
    vex_flat_scan(&view, hunt->search->segment, query, 1, topk, hunt->counters);
}

void vex_hunt_finish(struct vex_hunt *hunt, size_t first, uint32_t count)
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
        if (!can_be_estimated(&hunt->seekers[i]) ||
            (topk->count < topk->k && has_missed_rows(hunt, &hunt->seekers[i]))) {
            scan_instead(hunt, query, topk);
        }
    }
}
