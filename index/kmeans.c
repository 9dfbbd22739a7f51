#include "index/kmeans.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/panic.h"
#include "index/lists.h"

#define SEED 0x6c697374732d7631u
#define STRIDE_OF_SEEDS 0x9e3779b97f4a7c15u
#define ITERATIONS 8u
#define SAMPLE_PER_LIST 64u
#define BLOCK_ROWS 32u /* assigned together: their keys stay in the nearest cache */
#define QUERY_LIMIT 127
#define FEW_SHARE 8u /* a list with less than this part of the mean gives its centre up */
#define ALIGNMENT 64u

struct kmeans {
    const struct vex_kmeans_input *input;
    const struct vex_graph_kernels *kernels;
    const struct vex_list_kernels *list_kernels;
    struct vex_code_space space;
    uint32_t places;
    float *centre; /* [padded], of all rows */
    uint8_t *signs;
    float *rotated; /* [padded] */
    int8_t *buffer; /* [padded] */
    uint32_t sample_count;
    int8_t *sample;   /* [sample_count][padded] */
    float *steps;     /* [sample_count]: what one of a byte is worth */
    uint32_t *owners; /* [rows]: list of each row, during training of each row of the sample */
    float *sums;      /* [lists][padded] */
    uint32_t *counts; /* [lists] */
    uint8_t *tiles;
    float *scales;
    float *squares;
    int8_t *block; /* [BLOCK_ROWS][padded] */
    int32_t *dots; /* [BLOCK_ROWS][places] */
    float *keys;   /* [places] */
    uint64_t random;
};

/* ---- memory ---------------------------------------------------------------------------------- */

static uint32_t sample_count_for(uint32_t rows, uint32_t lists)
{
    uint64_t wanted = (uint64_t)lists * SAMPLE_PER_LIST;
    return wanted < rows ? (uint32_t)wanted : rows;
}

static void *take(size_t count, size_t item_bytes)
{
    size_t bytes;
    if (!vex_multiply(count, item_bytes, &bytes) || bytes > SIZE_MAX - ALIGNMENT) {
        return NULL;
    }
    return aligned_alloc(ALIGNMENT, vex_round_up(bytes ? bytes : 1, ALIGNMENT));
}

uint64_t vex_kmeans_bytes(uint32_t rows_count, uint32_t lists, uint32_t dim)
{
    uint64_t padded = vex_code_padded(dim);
    uint64_t places = vex_lists_places(lists);
    uint64_t sample = sample_count_for(rows_count, lists);
    return sample * (padded + sizeof(float)) + places * padded * (1 + sizeof(float)) +
           (uint64_t)rows_count * 2 * sizeof(uint32_t) + places * BLOCK_ROWS * sizeof(int32_t) +
           padded * BLOCK_ROWS;
}

static void release(struct kmeans *kmeans)
{
    free(kmeans->centre);
    free(kmeans->signs);
    free(kmeans->rotated);
    free(kmeans->buffer);
    free(kmeans->sample);
    free(kmeans->steps);
    free(kmeans->owners);
    free(kmeans->sums);
    free(kmeans->counts);
    free(kmeans->tiles);
    free(kmeans->scales);
    free(kmeans->squares);
    free(kmeans->block);
    free(kmeans->dots);
    free(kmeans->keys);
}

static bool allocate(struct kmeans *kmeans)
{
    const struct vex_kmeans_input *input = kmeans->input;
    size_t padded = vex_code_padded(input->dim);
    size_t places = kmeans->places;
    kmeans->centre = take(padded, sizeof(float));
    kmeans->signs = take(vex_rotation_bytes((uint32_t)padded), 1);
    kmeans->rotated = take(padded, sizeof(float));
    kmeans->buffer = take(padded, 1);
    kmeans->sample = take((size_t)kmeans->sample_count * padded, 1);
    kmeans->steps = take(kmeans->sample_count, sizeof(float));
    kmeans->owners = take(input->rows_count, sizeof(uint32_t));
    kmeans->sums = take(places * padded, sizeof(float));
    kmeans->counts = take(places, sizeof(uint32_t));
    kmeans->tiles = take(places * padded, 1);
    kmeans->scales = take(places, sizeof(float));
    kmeans->squares = take(places, sizeof(float));
    kmeans->block = take(BLOCK_ROWS * padded, 1);
    kmeans->dots = take(BLOCK_ROWS * places, sizeof(int32_t));
    kmeans->keys = take(places, sizeof(float));
    return kmeans->centre && kmeans->signs && kmeans->rotated && kmeans->buffer && kmeans->sample &&
           kmeans->steps && kmeans->owners && kmeans->sums && kmeans->counts && kmeans->tiles &&
           kmeans->scales && kmeans->squares && kmeans->block && kmeans->dots && kmeans->keys;
}

/* ---- rows as bytes --------------------------------------------------------------------------- */

/* In a fixed, but for this purpose random, sequence. */
static uint32_t next_random(struct kmeans *kmeans, uint32_t below)
{
    kmeans->random += STRIDE_OF_SEEDS;
    return (uint32_t)(vex_mix64(kmeans->random) % below);
}

/* The sample takes one row of each of so many equal stretches. */
static uint32_t sample_row(const struct kmeans *kmeans, uint32_t i)
{
    uint64_t rows = kmeans->input->rows_count;
    uint64_t first = rows * i / kmeans->sample_count;
    uint64_t end = rows * (i + 1) / kmeans->sample_count;
    return (uint32_t)(first + vex_mix64(SEED + i * STRIDE_OF_SEEDS) % (end - first));
}

/* The longest row becomes 1, as in the code build: squares stay in range. */
static void find_scale(struct kmeans *kmeans)
{
    const struct vex_kmeans_input *input = kmeans->input;
    float longest = 0;
    for (uint32_t i = 0; i < kmeans->sample_count; i++) {
        float norm = 0;
        (void)input->row(input->context, sample_row(kmeans, i), kmeans->rotated, &norm);
        longest = norm > longest && norm < INFINITY ? norm : longest;
    }
    kmeans->space.scale = longest < 0x1p-100f  ? 0x1p100f
                          : longest > 0x1p120f ? 0x1p-120f
                                               : 1 / longest;
}

static void find_centre(struct kmeans *kmeans)
{
    const struct vex_kmeans_input *input = kmeans->input;
    uint32_t count =
        kmeans->sample_count < VEX_CODE_SAMPLE_ROWS ? kmeans->sample_count : VEX_CODE_SAMPLE_ROWS;
    memset(kmeans->centre, 0, kmeans->space.rotation.padded * sizeof(float));
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = (uint32_t)((uint64_t)i * kmeans->sample_count / count);
        float norm = 0;
        const float *row =
            input->row(input->context, sample_row(kmeans, at), kmeans->rotated, &norm);
        float scale = input->metric == VEX_METRIC_COSINE ? 1 / norm : kmeans->space.scale;
        scale = scale < INFINITY ? scale / (float)count : 0;
        for (uint32_t d = 0; d < input->dim; d++) {
            kmeans->centre[d] += row[d] * scale;
        }
    }
}

/* Returns what one of a byte is worth. */
static float round_row(struct kmeans *kmeans, uint32_t row, int8_t *out)
{
    float norm = 0;
    const float *values = kmeans->input->row(kmeans->input->context, row, kmeans->rotated, &norm);
    uint32_t padded = kmeans->space.rotation.padded;
    vex_code_space_row(&kmeans->space, values, norm, kmeans->rotated);
    float largest = kmeans->kernels->max_abs(kmeans->rotated, padded);
    float inverse = largest > 0 ? (float)QUERY_LIMIT / largest : 0;
    inverse = inverse < INFINITY ? inverse : 0;
    (void)kmeans->kernels->quantise(kmeans->rotated, padded, inverse, QUERY_LIMIT, out);
    return inverse > 0 ? largest / (float)QUERY_LIMIT : 0;
}

static bool may_go_on(const struct kmeans *kmeans)
{
    const struct vex_build_pace *pace = kmeans->input->pace;
    return !pace || pace->pause(pace->context);
}

static bool round_sample(struct kmeans *kmeans)
{
    size_t padded = kmeans->space.rotation.padded;
    for (uint32_t i = 0; i < kmeans->sample_count; i++) {
        kmeans->steps[i] = round_row(kmeans, sample_row(kmeans, i), kmeans->sample + i * padded);
        if (i % (16 * BLOCK_ROWS) == 0 && !may_go_on(kmeans)) {
            return false;
        }
    }
    return true;
}

/* ---- centres --------------------------------------------------------------------------------- */

static void set_centre(struct kmeans *kmeans, uint32_t list, const float *values)
{
    uint32_t padded = kmeans->space.rotation.padded;
    kmeans->scales[list] =
        vex_centre_round(kmeans->kernels, values, padded, list, kmeans->buffer, kmeans->tiles);
    kmeans->squares[list] = kmeans->kernels->square_sum(values, padded);
}

static void set_centre_to_sample(struct kmeans *kmeans, uint32_t list, uint32_t i)
{
    uint32_t padded = kmeans->space.rotation.padded;
    const int8_t *bytes = kmeans->sample + (size_t)i * padded;
    for (uint32_t d = 0; d < padded; d++) {
        kmeans->rotated[d] = (float)bytes[d] * kmeans->steps[i];
    }
    set_centre(kmeans, list, kmeans->rotated);
}

static void place_first_centres(struct kmeans *kmeans)
{
    uint32_t lists = kmeans->input->lists;
    memset(kmeans->tiles, VEX_CENTRE_MIDDLE,
           (size_t)kmeans->places * kmeans->space.rotation.padded);
    for (uint32_t list = 0; list < kmeans->places; list++) {
        kmeans->scales[list] = 0;
        kmeans->squares[list] = INFINITY;
    }
    for (uint32_t list = 0; list < lists; list++) {
        uint64_t first = (uint64_t)list * kmeans->sample_count / lists;
        uint64_t end = (uint64_t)(list + 1) * kmeans->sample_count / lists;
        uint32_t at = (uint32_t)first + next_random(kmeans, (uint32_t)(end - first));
        set_centre_to_sample(kmeans, list, at);
    }
}

/* The nearest centres of some rows. The rows' own squares are the same for all centres. */
static void assign_block(struct kmeans *kmeans, const int8_t *rows, const float *steps,
                         uint32_t count, uint32_t *out)
{
    uint32_t padded = kmeans->space.rotation.padded;
    const int8_t *queries[BLOCK_ROWS];
    for (uint32_t i = 0; i < count; i++) {
        queries[i] = rows + (size_t)i * padded;
    }
    kmeans->list_kernels->tile_dots(kmeans->tiles, kmeans->places / VEX_LIST_TILE_ROWS, padded,
                                    queries, count, kmeans->dots, kmeans->places);
    for (uint32_t i = 0; i < count; i++) {
        int32_t sum = 0;
        for (uint32_t d = 0; d < padded; d++) {
            sum += queries[i][d];
        }
        kmeans->list_kernels->centre_keys(kmeans->dots + (size_t)i * kmeans->places, kmeans->scales,
                                          kmeans->squares, kmeans->places, -2 * steps[i],
                                          VEX_CENTRE_MIDDLE * sum, kmeans->keys);
        uint32_t nearest = kmeans->list_kernels->smallest(kmeans->keys, kmeans->places);
        out[i] = nearest < kmeans->input->lists ? nearest : 0;
    }
}

static bool assign_sample(struct kmeans *kmeans)
{
    size_t padded = kmeans->space.rotation.padded;
    for (uint32_t i = 0; i < kmeans->sample_count; i += BLOCK_ROWS) {
        uint32_t left = kmeans->sample_count - i;
        assign_block(kmeans, kmeans->sample + i * padded, kmeans->steps + i,
                     left < BLOCK_ROWS ? left : BLOCK_ROWS, kmeans->owners + i);
        if (!may_go_on(kmeans)) {
            return false;
        }
    }
    return true;
}

static void sum_up(struct kmeans *kmeans)
{
    size_t padded = kmeans->space.rotation.padded;
    memset(kmeans->sums, 0, kmeans->places * padded * sizeof(float));
    memset(kmeans->counts, 0, kmeans->places * sizeof(uint32_t));
    for (uint32_t i = 0; i < kmeans->sample_count; i++) {
        float *restrict sums = kmeans->sums + kmeans->owners[i] * padded;
        const int8_t *restrict bytes = kmeans->sample + i * padded;
        float step = kmeans->steps[i];
        for (size_t d = 0; d < padded; d++) {
            sums[d] += (float)bytes[d] * step;
        }
        kmeans->counts[kmeans->owners[i]]++;
    }
}

/*
 * A row of a full list: rows are drawn until one is of a list above the mean, which a full list is the
 * likelier to be the fuller it is. Without one (all lists alike) any row will do.
 */
static uint32_t draw_row(struct kmeans *kmeans)
{
    uint64_t mean = kmeans->sample_count / kmeans->input->lists;
    uint32_t row = 0;
    for (uint32_t attempt = 0; attempt < 64; attempt++) {
        row = next_random(kmeans, kmeans->sample_count);
        if (kmeans->counts[kmeans->owners[row]] > mean + mean / 2) {
            break;
        }
    }
    return row;
}

static void move_centres(struct kmeans *kmeans, bool is_last)
{
    size_t padded = kmeans->space.rotation.padded;
    uint32_t few = kmeans->sample_count / kmeans->input->lists / FEW_SHARE;
    for (uint32_t list = 0; list < kmeans->input->lists; list++) {
        uint32_t count = kmeans->counts[list];
        if (count == 0 || (count < few && !is_last)) {
            set_centre_to_sample(kmeans, list, draw_row(kmeans));
            continue;
        }
        float *sums = kmeans->sums + list * padded;
        for (size_t d = 0; d < padded; d++) {
            sums[d] /= (float)count;
        }
        set_centre(kmeans, list, sums);
    }
}

static bool train(struct kmeans *kmeans)
{
    place_first_centres(kmeans);
    for (uint32_t iteration = 0; iteration < ITERATIONS; iteration++) {
        if (!assign_sample(kmeans)) {
            return false;
        }
        sum_up(kmeans);
        move_centres(kmeans, iteration + 2 >= ITERATIONS);
    }
    return true;
}

/* ---- all rows -------------------------------------------------------------------------------- */

static bool assign_rows(struct kmeans *kmeans)
{
    size_t padded = kmeans->space.rotation.padded;
    uint32_t rows = kmeans->input->rows_count;
    float steps[BLOCK_ROWS];
    for (uint32_t row = 0; row < rows; row += BLOCK_ROWS) {
        uint32_t count = rows - row < BLOCK_ROWS ? rows - row : BLOCK_ROWS;
        for (uint32_t i = 0; i < count; i++) {
            steps[i] = round_row(kmeans, row + i, kmeans->block + i * padded);
        }
        assign_block(kmeans, kmeans->block, steps, count, kmeans->owners + row);
        if (!may_go_on(kmeans)) {
            return false;
        }
    }
    return true;
}

static bool order_rows(const struct kmeans *kmeans, struct vex_clusters *out)
{
    uint32_t lists = kmeans->input->lists;
    uint32_t rows = kmeans->input->rows_count;
    out->starts = calloc((size_t)lists + 2, sizeof(uint32_t));
    out->order = malloc((size_t)rows * sizeof(uint32_t));
    if (!out->starts || !out->order) {
        return false;
    }
    /* Counted two places on, so that filling moves each start to where the next list begins. */
    for (uint32_t row = 0; row < rows; row++) {
        out->starts[kmeans->owners[row] + 2]++;
    }
    for (uint32_t list = 2; list < lists + 2; list++) {
        out->starts[list] += out->starts[list - 1];
    }
    for (uint32_t row = 0; row < rows; row++) {
        out->order[out->starts[kmeans->owners[row] + 1]++] = row;
    }
    return true;
}

static void begin(struct kmeans *kmeans)
{
    const struct vex_kmeans_input *input = kmeans->input;
    uint32_t padded = vex_code_padded(input->dim);
    kmeans->random = SEED;
    kmeans->space = (struct vex_code_space){
        .metric = input->metric,
        .dim = input->dim,
        .scale = 1,
        .centre = kmeans->centre,
        .rotation = {kmeans->signs, padded, vex_rotation_rounds(padded)},
        .kernels = vex_kernels_get(),
    };
    vex_rotation_make(SEED, padded, kmeans->signs);
    find_scale(kmeans);
    find_centre(kmeans);
}

enum vex_status vex_kmeans_run(const struct vex_kmeans_input *input, struct vex_clusters *out,
                               struct vex_error *error)
{
    VEX_ASSERT(input->rows_count > 0 && input->lists > 0 && input->lists <= input->rows_count &&
               input->lists <= VEX_LISTS_MAX);
    struct kmeans kmeans = {
        .input = input,
        .kernels = vex_kernels_get()->graph,
        .list_kernels = vex_list_kernels_get(),
        .places = vex_lists_places(input->lists),
        .sample_count = sample_count_for(input->rows_count, input->lists),
    };
    *out = (struct vex_clusters){NULL, NULL};
    enum vex_status status = VEX_OK;
    if (!allocate(&kmeans)) {
        status = vex_error_set(error, VEX_ERR_NOMEM, "lists: out of memory for clustering %u rows",
                               input->rows_count);
    } else {
        begin(&kmeans);
        if (!round_sample(&kmeans) || !train(&kmeans) || !assign_rows(&kmeans)) {
            status = vex_error_set(error, VEX_ERR_UNAVAILABLE, "lists: given up while clustering");
        } else if (!order_rows(&kmeans, out)) {
            vex_clusters_deinit(out);
            status =
                vex_error_set(error, VEX_ERR_NOMEM, "lists: out of memory for the order of %u rows",
                              input->rows_count);
        }
    }
    release(&kmeans);
    return status;
}

void vex_clusters_deinit(struct vex_clusters *clusters)
{
    free(clusters->order);
    free(clusters->starts);
    *clusters = (struct vex_clusters){NULL, NULL};
}
