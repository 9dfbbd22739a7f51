#include "index/list_search.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/error.h"
#include "index/exact.h"
#include "index/list_search_priv.h"

#define GROUP_MAX 1024u         /* queries that share a pass over the lists */
#define GROUP_BYTES (8u << 20)  /* of what they keep: it shall stay in some cache */
#define PROBE_QUERIES 16u       /* compared with the centres together */
#define CHUNK_BYTES (32u << 10) /* of their tiles: they shall stay in the first cache */
#define KEPT_LEAST 96u          /* rows near the front that a query keeps, besides 2 k */
#define ERROR_SIGMAS 3.0f       /* by which an estimate may be wrong */
#define FOLDS_PER_PROBE 3u      /* groups of keys for each list wanted, or more: few hold two */
#define BISECTIONS 20u
#define ROWS_PER_K 4u /* rows to visit, at least, for each row wanted */

/* ---- selecting ------------------------------------------------------------------------------- */

float vex_limit_for(const struct vex_list_kernels *kernels, const float *values, size_t count,
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

struct vex_list_range vex_hunt_range(const struct vex_hunt *hunt, uint32_t list)
{
    struct vex_list_range range = vex_lists_range(hunt->lists, list);
    uint32_t visible = range.first < hunt->visible_rows ? hunt->visible_rows - range.first : 0;
    range.count = range.count < visible ? range.count : visible;
    return range;
}

/* Takes the `wanted` nearest lists of a query whose keys are known. Returns the rows in them. */
static uint64_t take_probes(struct vex_hunt *hunt, struct vex_seeker *seeker, uint32_t wanted)
{
    uint32_t within = 0;
    float limit;
    float width = seeker->target.length * seeker->target.length / 4;
    /* If so many groups of keys have one within a limit, at least so many keys are. */
    if (wanted <= hunt->places / FOLDS_PER_PROBE / VEX_LIST_FOLD) {
        uint32_t folds = (uint32_t)vex_round_up(hunt->places / VEX_LIST_FOLD, VEX_LIST_TILE_ROWS);
        hunt->kernels->fold(hunt->keys, hunt->places, hunt->found_keys);
        limit = vex_limit_for(hunt->kernels, hunt->found_keys, folds, wanted, wanted / 8, width,
                              &within);
    } else {
        limit = vex_limit_for(hunt->kernels, hunt->keys, hunt->places, wanted, wanted / 8, width,
                              &within);
    }
    within = hunt->kernels->places_within(hunt->keys, hunt->places, limit, hunt->found);
    /* Among these few, the exact number. */
    uint32_t places = (uint32_t)vex_round_up(within, VEX_LIST_TILE_ROWS);
    for (uint32_t i = 0; i < places; i++) {
        hunt->found_keys[i] = i < within ? hunt->keys[hunt->found[i]] : INFINITY;
    }
    if (within > wanted) {
        limit = vex_limit_for(hunt->kernels, hunt->found_keys, places, wanted, 0, width, &within);
    }
    uint64_t rows = 0;
    seeker->probes_count = 0;
    for (uint32_t i = 0; i < places && seeker->probes_count < wanted; i++) {
        if (hunt->found_keys[i] <= limit && hunt->found[i] < hunt->lists->count) {
            seeker->probes[seeker->probes_count++] = hunt->found[i];
            rows += vex_hunt_range(hunt, hunt->found[i]).count;
        }
    }
    return rows;
}

/* As many lists as asked for, and so many that there are some times the rows wanted in them. */
static void choose_probes(struct vex_hunt *hunt, struct vex_seeker *seeker, uint32_t k)
{
    uint32_t wanted = hunt->probes_asked;
    uint64_t rows = take_probes(hunt, seeker, wanted);
    while (rows < (uint64_t)ROWS_PER_K * k && wanted < hunt->probes_max) {
        wanted = wanted < hunt->probes_max / 2 ? 2 * wanted : hunt->probes_max;
        rows = take_probes(hunt, seeker, wanted);
    }
    hunt->counters->rows_visited += rows;
}

static void prepare(struct vex_hunt *hunt, size_t query, struct vex_seeker *seeker)
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

static void find_probes(struct vex_hunt *hunt, size_t first, uint32_t count)
{
    const struct vex_lists *lists = hunt->lists;
    for (uint32_t i = 0; i < count; i += PROBE_QUERIES) {
        uint32_t some = count - i < PROBE_QUERIES ? count - i : PROBE_QUERIES;
        const int8_t *queries[PROBE_QUERIES];
        for (uint32_t j = 0; j < some; j++) {
            prepare(hunt, first + i + j, &hunt->seekers[i + j]);
            queries[j] = hunt->seekers[i + j].target.code.values;
        }
        hunt->kernels->tile_dots(lists->centres.tiles, hunt->places / VEX_LIST_TILE_ROWS,
                                 lists->padded, queries, some, hunt->dots, hunt->places);
        for (uint32_t j = 0; j < some; j++) {
            struct vex_seeker *seeker = &hunt->seekers[i + j];
            hunt->kernels->centre_keys(
                hunt->dots + (size_t)j * hunt->places, lists->centres.scales,
                lists->centres.squares, hunt->places, -2 * seeker->target.code.scale,
                VEX_CENTRE_MIDDLE * sum_of(queries[j], lists->padded), hunt->keys);
            choose_probes(hunt, seeker, hunt->search->topks[first + i + j].k);
        }
    }
}

/* ---- memory ---------------------------------------------------------------------------------- */

static size_t take(size_t *used, size_t bytes)
{
    size_t offset = *used;
    *used += vex_round_up(bytes, VEX_LIST_LINE_BYTES);
    return offset;
}

static size_t largest(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Measures first, with `base` NULL, and then places. */
static size_t place(struct vex_hunt *hunt, uint8_t *base)
{
    uint32_t padded = hunt->codes->padded;
    uint32_t kept_room = hunt->kept_max + VEX_LIST_CHUNK_ROWS_MAX + VEX_LIST_TILE_ROWS;
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
    PLACE(hunt->dots, largest((size_t)PROBE_QUERIES * hunt->places,
                              (size_t)VEX_LIST_RANK_GROUP * VEX_LIST_CHUNK_ROWS_MAX) *
                          sizeof(int32_t));
    PLACE(hunt->keys, hunt->places * sizeof(float));
    PLACE(hunt->found, hunt->places * sizeof(uint32_t));
    PLACE(hunt->found_keys, hunt->places * sizeof(float));
    PLACE(hunt->wanted_starts, ((size_t)hunt->lists->count + 2) * sizeof(uint32_t));
    PLACE(hunt->wanted, (size_t)hunt->group * hunt->probes_max * sizeof(uint32_t));
    PLACE(hunt->tiles, vex_list_tile_bytes(padded) * (hunt->chunk_rows / VEX_LIST_TILE_ROWS));
    PLACE(hunt->factors.add, VEX_LIST_CHUNK_ROWS_MAX * sizeof(float));
    PLACE(hunt->factors.rescale, VEX_LIST_CHUNK_ROWS_MAX * sizeof(float));
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

static void measure(struct vex_hunt *hunt, uint32_t k)
{
    const struct vex_lists *lists = hunt->lists;
    uint64_t rows_wanted = (uint64_t)2 * ROWS_PER_K * k;
    hunt->places = vex_lists_places(lists->count);
    hunt->probes_asked = least(probes_asked(hunt->search, k), lists->count);
    hunt->probes_max =
        least(hunt->probes_asked + rows_wanted * lists->count / lists->rows + 1, lists->count);
    hunt->kept_max = KEPT_LEAST + 2 * k;
    hunt->chunk_rows = CHUNK_BYTES / hunt->codes->padded;
    hunt->chunk_rows -= hunt->chunk_rows % VEX_LIST_TILE_ROWS;
    hunt->chunk_rows =
        hunt->chunk_rows < VEX_LIST_TILE_ROWS ? VEX_LIST_TILE_ROWS : hunt->chunk_rows;
    hunt->chunk_rows = least(hunt->chunk_rows, VEX_LIST_CHUNK_ROWS_MAX);
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

static struct vex_hunt begin(const struct vex_list_search *search)
{
    const struct vex_view_segment *part = &search->view->segments[search->segment];
    return (struct vex_hunt){
        .search = search,
        .segment = part->segment,
        .lists = &part->segment->lists,
        .codes = &part->segment->codes,
        .kernels = vex_list_kernels_get(),
        .space = vex_code_space_of(part->segment),
        .visible_rows = part->visible_rows,
    };
}

static void search_group(struct vex_hunt *hunt, size_t first, uint32_t count)
{
    find_probes(hunt, first, count);
    vex_hunt_visit(hunt, first, count);
    vex_hunt_finish(hunt, first, count);
}

size_t vex_lists_scratch_bytes(const struct vex_view *view, uint32_t segment, size_t queries_count,
                               uint32_t k)
{
    struct vex_list_search search = {
        .view = view,
        .segment = segment,
        .queries_count = queries_count,
    };
    struct vex_hunt hunt = begin(&search);
    measure(&hunt, k);
    return place(&hunt, NULL);
}

enum vex_status vex_lists_search(const struct vex_list_search *search,
                                 struct vex_search_counters *counters, struct vex_error *error)
{
    const struct vex_effort *effort = search->view->effort;
    struct vex_hunt hunt = begin(search);
    hunt.counters = counters;
    if (search->queries_count == 0) {
        return VEX_OK;
    }
    measure(&hunt, largest_k(search));
    size_t needed = place(&hunt, NULL);
    bool is_given = effort && effort->scratch && effort->scratch_bytes >= needed;
    uint8_t *memory = is_given ? effort->scratch : aligned_alloc(VEX_LIST_LINE_BYTES, needed);
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
