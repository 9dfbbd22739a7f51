#include "index/code_scan.h"

#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/panic.h"
#include "index/code_bound.h"
#include "index/exact.h"

#define TILE_QUERIES_MIN 5u /* fewer are scanned one by one */
#define QUERIES_AT_ONCE 32u /* whose dot products with a tile stay in the first-level cache */
#define WALK_ROWS_MIN 8192u /* smaller graphs are scanned before they are walked */
#define WALK_K_MAX 256u
#define WALK_EF 10u
#define SAMPLE_ROWS_MIN 2048u
#define SAMPLE_STEP 16u /* of so many tiles one is looked at */
#define SEEDS_MAX 32u
#define PENDING_MAX 8u /* rows on their way from memory */
#define DOUBTS_MAX 64u
#define RANK_GROUP 4u

struct seed {
    float estimate;
    uint32_t row;
};

/* A row whose estimate is beyond the threshold, but not its bound: the threshold may sink below it. */
struct doubt {
    float rest; /* of `least`, all but the base */
    uint32_t row;
};

/* One query of a pass. */
struct course {
    struct vex_flat_query *flat;
    struct vex_code_bound bound;
    double threshold; /* of its terms */
    uint32_t pending[PENDING_MAX];
    uint32_t pending_count;
    uint32_t doubts_count;
    uint32_t seeds_count;
    uint32_t seeds_wanted;
    union {
        struct seed seeds[SEEDS_MAX]; /* ascending; before the scan */
        struct doubt doubts[DOUBTS_MAX];
    };
};

struct pass {
    const struct vex_view *view;
    uint32_t segment_index;
    const struct vex_segment *segment;
    const struct vex_scan_kernels *kernels;
    uint32_t rows;
    size_t count;
    bool is_sampling;
    struct course *courses;       /* [count] */
    struct vex_scan_terms *terms; /* [count] */
    const int8_t **values;        /* [count] */
    int8_t *bytes;                /* [count][padded] */
    float *rotated;               /* [padded] */
    uint8_t *tile;
    int32_t *dots; /* the larger of VEX_SCAN_ROWS and QUERIES_AT_ONCE tiles */
    struct vex_scan_rows *spread;
    uint8_t *walk; /* scratch of a walk */
};

uint32_t vex_code_scan_rows(const struct vex_view_segment *segment)
{
    const struct vex_codes *codes = &segment->segment->codes;
    uint32_t rows = codes->padded <= VEX_BOUND_PADDED_MAX ? codes->count : 0;
    return rows < segment->visible_rows ? rows : segment->visible_rows;
}

/* ---- scratch --------------------------------------------------------------------------------- */

static void *take(uint8_t **at, size_t bytes)
{
    void *taken = *at;
    *at += vex_round_up(bytes, 64);
    return taken;
}

static uint32_t walk_ef(uint32_t k)
{
    return k > WALK_EF ? k : WALK_EF;
}

size_t vex_code_scan_scratch_bytes(const struct vex_segment *segment, size_t count, uint32_t k)
{
    size_t padded = segment->codes.padded;
    size_t each = vex_round_up(sizeof(struct course), 64) + sizeof(struct vex_scan_terms) +
                  sizeof(int8_t *) + padded;
    return vex_round_up(count * each, 64) + 4 * 64 + padded * sizeof(float) +
           VEX_TILE_ROWS * padded + QUERIES_AT_ONCE * VEX_TILE_ROWS * sizeof(int32_t) +
           sizeof(struct vex_scan_rows) +
           (segment->graph.nodes_count ? vex_graph_scratch_bytes(segment->dim, walk_ef(k)) : 0);
}

static void place_scratch(struct pass *pass, void *scratch)
{
    uint8_t *at = scratch;
    size_t padded = pass->segment->codes.padded;
    pass->courses = take(&at, pass->count * sizeof(*pass->courses));
    pass->terms = take(&at, pass->count * sizeof(*pass->terms));
    pass->values = take(&at, pass->count * sizeof(*pass->values));
    pass->bytes = take(&at, pass->count * padded);
    pass->rotated = take(&at, padded * sizeof(float));
    pass->tile = take(&at, VEX_TILE_ROWS * padded);
    pass->dots = take(&at, QUERIES_AT_ONCE * VEX_TILE_ROWS * sizeof(int32_t));
    pass->spread = take(&at, sizeof(*pass->spread));
    pass->walk = at;
    memset(pass->dots, 0, QUERIES_AT_ONCE * VEX_TILE_ROWS * sizeof(int32_t));
}

/* ---- rows that are compared ------------------------------------------------------------------ */

static void renew_terms(struct pass *pass, size_t query)
{
    struct course *course = &pass->courses[query];
    double threshold = vex_flat_threshold(course->flat);
    if (threshold < course->threshold) {
        course->threshold = threshold;
        vex_code_bound_terms(&course->bound, threshold, &pass->terms[query]);
    }
}

/* Compares the first `count` pending rows, at most RANK_GROUP. */
static void settle(struct pass *pass, struct course *course, uint32_t count)
{
    const struct vex_segment *segment = pass->segment;
    uint32_t rows[RANK_GROUP];
    double keys[RANK_GROUP];
    for (uint32_t i = 0; i < RANK_GROUP; i++) {
        rows[i] = course->pending[i < count ? i : 0];
    }
    vex_exact_row_keys(segment, course->flat->query, course->flat->norm, rows, keys);
    for (uint32_t i = 0; i < count; i++) {
        struct vex_candidate candidate = {
            .key = keys[i],
            .id = segment->ids[course->pending[i]],
            .segment = pass->segment_index,
            .row = course->pending[i],
        };
        vex_topk_offer(course->flat->topk, &candidate);
    }
    course->pending_count -= count;
    memmove(course->pending, course->pending + count, course->pending_count * sizeof(uint32_t));
}

static void settle_all(struct pass *pass, struct course *course)
{
    while (course->pending_count > 0) {
        uint32_t count = course->pending_count;
        settle(pass, course, count < RANK_GROUP ? count : RANK_GROUP);
    }
}

static void add_pending(struct pass *pass, struct course *course, uint32_t row)
{
    const struct vex_segment *segment = pass->segment;
    if (!vex_segment_alive(segment, row, pass->view->lsn)) {
        return;
    }
    const uint8_t *stored = vex_segment_stored(segment, row);
    for (size_t at = 0; at < segment->row_bytes; at += 64) {
        __builtin_prefetch(stored + at);
    }
    course->pending[course->pending_count++] = row;
    if (course->pending_count == PENDING_MAX) {
        settle(pass, course, RANK_GROUP);
    }
}

/* ---- seeds ----------------------------------------------------------------------------------- */

static void add_seed(struct course *course, float estimate, uint32_t row)
{
    bool is_full = course->seeds_count == course->seeds_wanted;
    if (!(estimate < INFINITY) ||
        (is_full && !(estimate < course->seeds[course->seeds_count - 1].estimate))) {
        return;
    }
    uint32_t at = is_full ? course->seeds_count - 1 : course->seeds_count++;
    for (; at > 0 && course->seeds[at - 1].estimate > estimate; at--) {
        course->seeds[at] = course->seeds[at - 1];
    }
    course->seeds[at] = (struct seed){estimate, row};
}

static void add_seeds(struct pass *pass, size_t query, uint32_t first, uint32_t kept,
                      const int32_t *dots)
{
    struct course *course = &pass->courses[query];
    const struct vex_scan_terms *terms = &pass->terms[query];
    for (; kept; kept &= kept - 1) {
        uint32_t i = (uint32_t)__builtin_ctz(kept);
        float step = ((float)dots[i] - terms->middle) * terms->ahead;
        float estimate = pass->spread->add[i] * terms->by_add + pass->spread->along[i] * step;
        add_seed(course, estimate, first + i);
    }
    float worst = course->seeds_count == course->seeds_wanted
                      ? course->seeds[course->seeds_count - 1].estimate
                      : INFINITY;
    vex_code_bound_guess(&course->bound, worst, &pass->terms[query]);
}

/* ---- doubts ---------------------------------------------------------------------------------- */

/* Compares what is still in doubt under the present threshold, and empties the list. */
static void resolve_doubts(struct pass *pass, size_t query)
{
    struct course *course = &pass->courses[query];
    for (uint32_t i = 0; i < course->doubts_count; i++) {
        if (!(course->doubts[i].rest + pass->terms[query].base > 0)) {
            add_pending(pass, course, course->doubts[i].row);
            renew_terms(pass, query);
        }
    }
    course->doubts_count = 0;
}

/* Drops what is in doubt no more. */
static void sift_doubts(struct pass *pass, size_t query)
{
    struct course *course = &pass->courses[query];
    uint32_t kept = 0;
    for (uint32_t i = 0; i < course->doubts_count; i++) {
        if (!(course->doubts[i].rest + pass->terms[query].base > 0)) {
            course->doubts[kept++] = course->doubts[i];
        }
    }
    course->doubts_count = kept;
    if (kept > DOUBTS_MAX / 2) {
        resolve_doubts(pass, query);
    }
}

/* A row that the sieve kept: compared at once if its estimate is within the threshold, which it then
 * lowers in all likelihood. `at` is its place in the spread rows. */
static void add_kept(struct pass *pass, size_t query, uint32_t row, uint32_t at, int32_t dot)
{
    struct course *course = &pass->courses[query];
    const struct vex_scan_terms *terms = &pass->terms[query];
    const struct vex_scan_rows *rows = pass->spread;
    float v = (float)dot - terms->middle;
    float step = fminf(v * terms->ahead, v * terms->behind);
    float add = pass->segment->metric == VEX_METRIC_DOT ? 0 : rows->add[at];
    float estimate = terms->base + add + rows->along[at] * v * terms->ahead;
    if (!(estimate > 0)) {
        add_pending(pass, course, row);
        return;
    }
    if (course->doubts_count == DOUBTS_MAX) {
        sift_doubts(pass, query);
    }
    course->doubts[course->doubts_count++] = (struct doubt){
        .rest = rows->across[at] * terms->by_across + rows->add[at] * terms->by_add +
                rows->turn[at] * fmaxf(v * terms->by_turn, 0) + rows->along[at] * step,
        .row = row,
    };
}

/* ---- tiles ----------------------------------------------------------------------------------- */

static void take_kept(struct pass *pass, size_t query, uint32_t first, uint32_t count,
                      uint32_t kept, const int32_t *dots)
{
    struct course *course = &pass->courses[query];
    if ((uint32_t)__builtin_popcount(kept) > VEX_TILE_ROWS / 2) {
        vex_flat_rows(pass->view, pass->segment_index, first, count, course->flat, 1);
    } else {
        for (; kept; kept &= kept - 1) {
            uint32_t i = (uint32_t)__builtin_ctz(kept);
            add_kept(pass, query, first + i, i, dots[i]);
        }
    }
    renew_terms(pass, query);
}

static uint32_t low_bits(uint32_t count)
{
    return count < 32 ? (1u << count) - 1 : UINT32_MAX;
}

static void visit_tile(struct pass *pass, uint32_t first)
{
    const struct vex_codes *codes = &pass->segment->codes;
    const struct vex_scan_kernels *kernels = pass->kernels;
    uint32_t count = pass->rows - first < VEX_TILE_ROWS ? pass->rows - first : VEX_TILE_ROWS;
    uint32_t masks[QUERIES_AT_ONCE];
    kernels->spread(codes->factors + first, codes->angles + first, count, pass->spread);
    kernels->tile_pack(codes->codes + (size_t)first * (codes->padded / 2), codes->padded, count,
                       pass->tile);
    for (size_t q = 0; q < pass->count; q += QUERIES_AT_ONCE) {
        size_t some = pass->count - q < QUERIES_AT_ONCE ? pass->count - q : QUERIES_AT_ONCE;
        kernels->tile_dots(pass->tile, codes->padded, pass->values + q, some, pass->dots);
        kernels->sieve_tile(pass->terms + q, pass->spread, 0, pass->dots, some, masks);
        for (size_t i = 0; i < some; i++) {
            uint32_t kept = masks[i] & low_bits(count);
            if (kept && pass->is_sampling) {
                add_seeds(pass, q + i, first, kept, pass->dots + i * VEX_TILE_ROWS);
            } else if (kept) {
                take_kept(pass, q + i, first, count, kept, pass->dots + i * VEX_TILE_ROWS);
            }
        }
    }
}

/* ---- one query ------------------------------------------------------------------------------- */

/* Rows of one query, at most VEX_SCAN_ROWS. */
static void visit_run(struct pass *pass, uint32_t first, uint32_t count)
{
    const struct vex_codes *codes = &pass->segment->codes;
    uint32_t masks[VEX_SCAN_ROWS / VEX_TILE_ROWS];
    uint32_t words = (count + VEX_TILE_ROWS - 1) / VEX_TILE_ROWS;
    uint32_t kept = 0;
    pass->kernels->dots(pass->values[0], codes->codes + (size_t)first * (codes->padded / 2),
                        codes->padded, count, pass->dots);
    pass->kernels->spread(codes->factors + first, codes->angles + first, count, pass->spread);
    pass->kernels->sieve(&pass->terms[0], pass->spread, pass->dots, count, masks);
    masks[words - 1] &= low_bits(count - (words - 1) * VEX_TILE_ROWS);
    for (uint32_t i = 0; i < words; i++) {
        kept += (uint32_t)__builtin_popcount(masks[i]);
    }
    if (kept > count / 2) {
        vex_flat_rows(pass->view, pass->segment_index, first, count, pass->courses[0].flat, 1);
    } else {
        for (uint32_t i = 0; i < words; i++) {
            for (uint32_t word = masks[i]; word; word &= word - 1) {
                uint32_t at = i * VEX_TILE_ROWS + (uint32_t)__builtin_ctz(word);
                add_kept(pass, 0, first + at, at, pass->dots[at]);
            }
        }
    }
    renew_terms(pass, 0);
}

static void sample_run(struct pass *pass, uint32_t first)
{
    const struct vex_codes *codes = &pass->segment->codes;
    uint32_t mask;
    pass->kernels->dots(pass->values[0], codes->codes + (size_t)first * (codes->padded / 2),
                        codes->padded, VEX_TILE_ROWS, pass->dots);
    pass->kernels->spread(codes->factors + first, codes->angles + first, VEX_TILE_ROWS,
                          pass->spread);
    pass->kernels->sieve(&pass->terms[0], pass->spread, pass->dots, VEX_TILE_ROWS, &mask);
    if (mask) {
        add_seeds(pass, 0, first, mask, pass->dots);
    }
}

/* ---- limits ---------------------------------------------------------------------------------- */

/* Takes the k-th best of what has been offered as limit, and the offers back. */
static void keep_limit_only(struct pass *pass, struct vex_flat_query *flat)
{
    flat->limit = vex_flat_threshold(flat);
    vex_topk_drop(flat->topk, pass->segment_index);
}

static void walk(struct pass *pass, struct vex_flat_query *flat)
{
    struct vex_graph_counters counters = {0};
    struct vex_graph_query question = {
        .segment = pass->segment,
        .segment_index = pass->segment_index,
        .visible_rows = pass->view->segments[pass->segment_index].visible_rows,
        .lsn = pass->view->lsn,
        .query = flat->query,
        .ef = walk_ef(flat->topk->k),
        .scratch = pass->walk,
    };
    (void)vex_graph_search(&question, flat->topk, &counters);
    keep_limit_only(pass, flat);
}

/* A walk keeps what it meets in order, which for a large k is more work than the scan that it shortens. */
static bool wants_walk(const struct pass *pass)
{
    uint32_t k = pass->courses[0].flat->topk->k;
    return pass->segment->graph.nodes_count && pass->rows >= WALK_ROWS_MIN && k <= WALK_K_MAX;
}

static bool wants_sample(const struct pass *pass)
{
    uint32_t k = pass->courses[0].flat->topk->k;
    return pass->rows >= SAMPLE_ROWS_MIN && k + 2 <= SEEDS_MAX;
}

static void sample(struct pass *pass)
{
    pass->is_sampling = true;
    for (size_t q = 0; q < pass->count; q++) {
        struct course *course = &pass->courses[q];
        uint32_t k = course->flat->topk->k;
        course->seeds_wanted = k + k / 2 + 2 < SEEDS_MAX ? k + k / 2 + 2 : SEEDS_MAX;
        vex_code_bound_guess(&course->bound, INFINITY, &pass->terms[q]);
    }
    for (uint32_t first = 0; pass->rows - first >= VEX_TILE_ROWS;) {
        if (pass->count == 1) {
            sample_run(pass, first);
        } else {
            visit_tile(pass, first);
        }
        uint32_t left = pass->rows - first;
        first += left < SAMPLE_STEP * VEX_TILE_ROWS ? left : SAMPLE_STEP * VEX_TILE_ROWS;
    }
    for (size_t q = 0; q < pass->count; q++) {
        struct course *course = &pass->courses[q];
        for (uint32_t i = 0; i < course->seeds_count; i++) {
            add_pending(pass, course, course->seeds[i].row);
        }
        settle_all(pass, course);
        keep_limit_only(pass, course->flat);
    }
    pass->is_sampling = false;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static void start_courses(struct pass *pass, struct vex_flat_query *queries)
{
    struct vex_code_space space = vex_code_space_of(pass->segment);
    const struct vex_codes *codes = &pass->segment->codes;
    for (size_t q = 0; q < pass->count; q++) {
        struct vex_code_target target;
        struct course *course = &pass->courses[q];
        int8_t *values = pass->bytes + q * codes->padded;
        vex_code_space_query(&space, codes, queries[q].query, queries[q].norm, pass->rotated,
                             values, &target);
        pass->values[q] = values;
        course->flat = &queries[q];
        course->pending_count = 0;
        course->doubts_count = 0;
        course->seeds_count = 0;
        vex_code_bound_init(&course->bound, &space, codes, queries[q].query, queries[q].norm,
                            pass->rotated, &target);
    }
}

static void scan_pass(struct pass *pass, struct vex_flat_query *queries, void *scratch)
{
    place_scratch(pass, scratch);
    start_courses(pass, queries);
    if (wants_walk(pass)) {
        for (size_t q = 0; q < pass->count; q++) {
            walk(pass, &queries[q]);
        }
    } else if (wants_sample(pass)) {
        sample(pass);
    }
    for (size_t q = 0; q < pass->count; q++) {
        pass->courses[q].threshold = vex_flat_threshold(&queries[q]);
        vex_code_bound_terms(&pass->courses[q].bound, pass->courses[q].threshold, &pass->terms[q]);
    }
    uint32_t run = pass->count == 1 ? VEX_SCAN_ROWS : VEX_TILE_ROWS;
    for (uint32_t first = 0; first < pass->rows;) {
        uint32_t count = pass->rows - first < run ? pass->rows - first : run;
        if (pass->count == 1) {
            visit_run(pass, first, count);
        } else {
            visit_tile(pass, first);
        }
        first += count;
    }
    for (size_t q = 0; q < pass->count; q++) {
        resolve_doubts(pass, q);
        settle_all(pass, &pass->courses[q]);
    }
}

void vex_code_scan(const struct vex_view *view, uint32_t segment, struct vex_flat_query *queries,
                   size_t count, void *scratch)
{
    size_t step = count < TILE_QUERIES_MIN ? 1 : count;
    VEX_ASSERT(count <= VEX_CODE_SCAN_GROUP);
    for (size_t q = 0; q < count; q += step) {
        struct pass pass = {
            .view = view,
            .segment_index = segment,
            .segment = view->segments[segment].segment,
            .kernels = vex_kernels_get()->scan,
            .rows = vex_code_scan_rows(&view->segments[segment]),
            .count = step,
        };
        scan_pass(&pass, queries + q, scratch);
    }
}
