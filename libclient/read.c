/*
 * Searches, gets, counts and snapshots: the arguments are checked, a reading is begun (view.c), the
 * index is asked, the answer is copied out, and only then the pin ends. If it turns out that the
 * pin had been revoked meanwhile, the answer is thrown away and the read is done again.
 */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "index/flat.h"
#include "index/kernels.h"
#include "libclient/client.h"
#include "libclient/scratch.h"

#define ATTEMPTS_MAX 3
#define STACK_CANDIDATES 512u /* heaps up to this size need no allocation */
#define STACK_QUERIES 64u
#define CANDIDATES_MAX (1u << 26) /* queries x k of one call */
#define SILENCE_MS 2000u          /* without a heartbeat for so long the daemon counts as gone */

static enum vex_status check_options(const struct vex_read_options *options,
                                     struct vex_error *error)
{
    if (options && options->size != sizeof(*options)) {
        return vex_error_set(error, VEX_ERR_INVALID, "read options: size is %zu, expected %zu",
                             options->size, sizeof(*options));
    }
    return VEX_OK;
}

static enum vex_status revoked(struct vex_error *error)
{
    return vex_error_set(
        error, VEX_ERR_UNAVAILABLE,
        "vexd has cut this client off and may have reused the memory that was read");
}

/* ---- a read, on a snapshot or on the current state ------------------------------------------- */

struct reader {
    struct reading *reading;
    const struct vex_collection_facts *facts;
    struct reading local; /* for reads without a snapshot */
};

/* What a kind of read does between pin and unpin. */
typedef enum vex_status (*read_step)(struct reader *reader, void *arguments,
                                     struct vex_error *error);

static enum vex_status read_snapshot(struct vex_snapshot *snapshot, read_step step, void *arguments,
                                     struct vex_error *error)
{
    struct reader reader;
    reader.reading = &snapshot->reading;
    reader.facts = &snapshot->facts;
    enum vex_status status = vex_db_check(snapshot->db, error);
    if (status != VEX_OK) {
        return status;
    }
    status = step(&reader, arguments, error);
    if (!vex_pin_holds(snapshot->reading.slot->page, snapshot->reading.slot->slot)) {
        return revoked(error);
    }
    return status;
}

static enum vex_status read_current(struct vex_collection *collection,
                                    const struct vex_read_options *options, read_step step,
                                    void *arguments, struct vex_error *error)
{
    struct reader reader; /* a few KiB: not worth zeroing for each read */
    reader.facts = &collection->facts;
    reader.reading = &reader.local;
    for (int attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
        enum vex_status status =
            vex_reading_begin(collection, true, options ? options->min_lsn : 0,
                              options ? options->timeout_ms : 0, &reader.local, error);
        if (status != VEX_OK) {
            return status;
        }
        status = step(&reader, arguments, error);
        if (vex_db_unpin(reader.local.slot)) {
            return status;
        }
    }
    return revoked(error);
}

static enum vex_status read_with(struct vex_collection *collection,
                                 const struct vex_read_options *options, read_step step,
                                 void *arguments, struct vex_error *error)
{
    enum vex_status status = check_options(options, error);
    if (status == VEX_OK && !collection) {
        status = vex_error_set(error, VEX_ERR_INVALID, "the collection handle is NULL");
    }
    status = status == VEX_OK ? vex_db_check(collection->db, error) : status;
    if (status != VEX_OK) {
        return status;
    }
    struct vex_snapshot *snapshot = options ? options->snapshot : NULL;
    if (!snapshot) {
        return read_current(collection, options, step, arguments, error);
    }
    if (snapshot->db != collection->db || snapshot->facts.id != collection->facts.id) {
        return vex_error_set(error, VEX_ERR_INVALID,
                             "the snapshot is of another collection than %s",
                             collection->facts.name);
    }
    if (snapshot->reading.lsn < options->min_lsn) {
        return vex_error_set(
            error, VEX_ERR_INVALID, "the snapshot is of LSN %llu, before min_lsn %llu",
            (unsigned long long)snapshot->reading.lsn, (unsigned long long)options->min_lsn);
    }
    return read_snapshot(snapshot, step, arguments, error);
}

/* ---- search ---------------------------------------------------------------------------------- */

struct search {
    const float *queries;
    size_t queries_count;
    const struct vex_search_options *options;
    struct vex_results *results;
    struct vex_topk *topks;
    struct vex_candidate *heaps;
    struct vex_search_info info;
    bool from_snapshot;
    bool wants_info;
};

static enum vex_status check_queries(const struct vex_collection *collection, const float *queries,
                                     size_t queries_count, size_t dim, struct vex_error *error)
{
    if (dim != collection->facts.dim) {
        return vex_error_set(error, VEX_ERR_DIM, "queries of dimension %zu, collection %s has %u",
                             dim, collection->facts.name, collection->facts.dim);
    }
    for (size_t i = 0; i < queries_count; i++) {
        const float *query = queries + i * dim;
        if (!vex_kernels_get()->all_finite(query, dim)) {
            return vex_error_set(error, VEX_ERR_NOT_FINITE, "query %zu holds NaN or infinity", i);
        }
        if (collection->facts.metric == VEX_METRIC_COSINE && vex_dot_f64(query, query, dim) == 0) {
            return vex_error_set(error, VEX_ERR_ZERO_VECTOR,
                                 "query %zu is a zero vector, which has no direction; collection "
                                 "%s measures by cosine",
                                 i, collection->facts.name);
        }
    }
    return VEX_OK;
}

static enum vex_status check_effort(const struct vex_search_options *options,
                                    struct vex_error *error)
{
    if (options->ef_search > VEX_EF_SEARCH_MAX) {
        return vex_error_set(error, VEX_ERR_LIMIT, "ef_search is %u; it must be within 1 to %u",
                             options->ef_search, VEX_EF_SEARCH_MAX);
    }
    if (options->nprobe > VEX_LISTS_MAX) {
        return vex_error_set(error, VEX_ERR_LIMIT, "nprobe is %u; it must be within 1 to %u",
                             options->nprobe, VEX_LISTS_MAX);
    }
    if (!(options->recall >= 0 && options->recall < 1)) { /* not a number, too */
        return vex_error_set(error, VEX_ERR_INVALID,
                             "recall is %g; it must be above 0 and below 1; `exact` finds all",
                             (double)options->recall);
    }
    if (options->recall > 0 && (options->ef_search || options->nprobe)) {
        return vex_error_set(error, VEX_ERR_INVALID,
                             "recall is asked for, and ef_search or nprobe as well; give one");
    }
    return VEX_OK;
}

static enum vex_status check_search(const struct vex_collection *collection, const float *queries,
                                    size_t queries_count, size_t dim,
                                    const struct vex_search_options *options,
                                    const struct vex_results *results, struct vex_error *error)
{
    if (!collection || !queries || !results) {
        return vex_error_set(error, VEX_ERR_INVALID,
                             "search: collection, queries or results is NULL");
    }
    if (options->size != sizeof(*options) || results->size != sizeof(*results)) {
        return vex_error_set(error, VEX_ERR_INVALID,
                             "search: the size of options or results is not set");
    }
    enum vex_status status = check_effort(options, error);
    if (status != VEX_OK) {
        return status;
    }
    if (options->k == 0 || options->k > VEX_K_MAX) {
        return vex_error_set(error, VEX_ERR_LIMIT, "k is %u; it must be within 1 to %u", options->k,
                             VEX_K_MAX);
    }
    if (queries_count == 0 || queries_count > VEX_QUERIES_MAX ||
        queries_count * options->k > CANDIDATES_MAX) {
        return vex_error_set(error, VEX_ERR_LIMIT,
                             "%zu queries with k = %u in one call; 1 to %u queries, and at most %u "
                             "hits in all",
                             queries_count, options->k, VEX_QUERIES_MAX, CANDIDATES_MAX);
    }
    if (!results->ids || !results->distances || !results->counts ||
        (options->payloads && (!results->payloads || !results->payload_bytes ||
                               (results->payload_buffer_bytes && !results->payload_buffer)))) {
        return vex_error_set(error, VEX_ERR_INVALID, "search: a result array is missing");
    }
    return check_queries(collection, queries, queries_count, dim, error);
}

static enum vex_status corrupt_payload(uint64_t id, struct vex_error *error)
{
    return vex_error_set(error, VEX_ERR_CORRUPT, "the payload of id %llu leads outside its segment",
                         (unsigned long long)id);
}

/* Fills the payload arrays; without a snapshot the bytes are copied, in the order of the hits. */
static enum vex_status hand_out_payloads(struct reader *reader, struct search *search,
                                         struct vex_error *error)
{
    struct vex_results *results = search->results;
    uint32_t k = search->options->k;
    size_t needed = 0;
    for (size_t i = 0; i < search->queries_count; i++) {
        const struct vex_topk *topk = &search->topks[i];
        for (uint32_t j = 0; j < k; j++) {
            size_t at = i * k + j;
            results->payloads[at] = NULL;
            results->payload_bytes[at] = 0;
            if (j >= topk->count) {
                continue;
            }
            const struct vex_candidate *hit = &topk->heap[j];
            if (!vex_segment_payload(reader->reading->segments[hit->segment].segment, hit->row,
                                     &results->payloads[at], &results->payload_bytes[at])) {
                return corrupt_payload(hit->id, error);
            }
            if (search->from_snapshot || !results->payloads[at]) {
                continue;
            }
            if (results->payload_bytes[at] == 0) {
                results->payloads[at] = ""; /* needs no room, and is not "none" */
                continue;
            }
            if (results->payload_bytes[at] <= results->payload_buffer_bytes &&
                needed <= results->payload_buffer_bytes - results->payload_bytes[at]) {
                uint8_t *copy = (uint8_t *)results->payload_buffer + needed;
                memcpy(copy, results->payloads[at], results->payload_bytes[at]);
                results->payloads[at] = copy;
            }
            needed += results->payload_bytes[at];
        }
    }
    if (needed > results->payload_buffer_bytes) {
        return vex_error_set(error, VEX_ERR_BUFFER,
                             "the hits' payloads need %zu bytes, payload_buffer has %zu", needed,
                             results->payload_buffer_bytes);
    }
    return VEX_OK;
}

static void hand_out_hits(const struct reader *reader, struct search *search)
{
    bool is_dot = reader->facts->metric == VEX_METRIC_DOT;
    struct vex_results *results = search->results;
    uint32_t k = search->options->k;
    for (size_t i = 0; i < search->queries_count; i++) {
        const struct vex_topk *topk = &search->topks[i];
        for (uint32_t j = 0; j < k; j++) {
            bool found = j < topk->count;
            double key = found ? topk->heap[j].key : INFINITY;
            results->ids[i * k + j] = found ? topk->heap[j].id : UINT64_MAX;
            results->distances[i * k + j] = (float)(is_dot ? -key : key);
        }
        results->counts[i] = topk->count;
        search->info.complete &= topk->count == k || topk->count == reader->reading->live_rows;
        search->info.count += topk->count;
    }
}

/* A clock reading, without a system call: only for those who ask. */
static bool is_stale(const struct attachment *attachment)
{
    uint64_t beat_ms = vex_control_heartbeat_ms(attachment->control.memory);
    return vex_attachment_is_stale(attachment) || vex_clock_ms() > beat_ms + SILENCE_MS;
}

/* The index that serves an approximate search of a view; NULL if all of it would be scanned. Graphs go before
 * lists: where the index of a collection has been changed there may be both. */
static const struct vex_index *index_of(const struct vex_view *view)
{
    const struct vex_index *index = NULL;
    for (uint32_t i = 0; i < view->segments_count; i++) {
        if (view->segments[i].segment->graph.nodes_count) {
            return &vex_index_hnsw;
        }
        if (view->segments[i].segment->lists.count) {
            index = &vex_index_ivf;
        }
    }
    return index;
}

static enum vex_status scan_view(struct vex_view *view, const struct search *search,
                                 struct vex_search_counters *counters, struct vex_error *error)
{
    struct vex_effort effort = {
        .scratch_bytes = vex_flat_scratch_bytes(view, search->queries_count, search->options->k),
    };
    if (effort.scratch_bytes > 0) {
        effort.scratch = vex_scratch_take(effort.scratch_bytes);
        if (!effort.scratch) {
            return vex_error_set(error, VEX_ERR_NOMEM, "search: out of memory");
        }
        view->effort = &effort;
    }
    return vex_index_flat.search(view, search->queries, search->queries_count, search->topks,
                                 counters, error);
}

/* Walks the graphs that there are, visits the lists, scans the rest; or scans everything. */
static enum vex_status search_view(const struct reader *reader, struct search *search,
                                   struct vex_search_counters *counters, struct vex_error *error)
{
    const struct vex_search_options *options = search->options;
    struct vex_view view = reader->reading->view;
    const struct vex_index *index = options->exact ? NULL : index_of(&view);
    search->info.mode = index ? index->name : "exact";
    search->info.ef_search = 0;
    if (!index) {
        return scan_view(&view, search, counters, error);
    }
    uint64_t rows = reader->reading->live_rows + reader->reading->dead_rows;
    struct vex_effort effort = {
        .recall = (double)options->recall,
        .dead_share = rows ? (double)reader->reading->dead_rows / (double)rows : 0,
        .ef = options->ef_search,
        .nprobe = options->nprobe,
    };
    view.effort = &effort;
    if (index == &vex_index_ivf) {
        effort.scratch_bytes = vex_ivf_scratch_bytes(&view, search->queries_count, options->k);
    } else {
        search->info.ef_search = vex_effort_ef(&view, options->k);
        effort.scratch_bytes =
            vex_effort_scratch_bytes(view.dim, search->info.ef_search, options->k);
    }
    effort.scratch = vex_scratch_take(effort.scratch_bytes);
    if (!effort.scratch) {
        return vex_error_set(error, VEX_ERR_NOMEM, "search: out of memory");
    }
    return index->search(&view, search->queries, search->queries_count, search->topks, counters,
                         error);
}

static enum vex_status search_step(struct reader *reader, void *arguments, struct vex_error *error)
{
    struct search *search = arguments;
    uint32_t k = search->options->k;
    for (size_t i = 0; i < search->queries_count; i++) {
        vex_topk_init(&search->topks[i], search->heaps + i * k, k);
    }
    struct vex_search_counters counters = {0};
    enum vex_status status = search_view(reader, search, &counters, error);
    if (status != VEX_OK) {
        return status;
    }
    search->info = (struct vex_search_info){
        .size = sizeof(search->info),
        .complete = true,
        .stale = search->wants_info && is_stale(reader->reading->attachment),
        .mode = search->info.mode,
        .ef_search = search->info.ef_search,
        .snapshot_lsn = reader->reading->lsn,
        .rows_visited = counters.rows_visited,
    };
    for (size_t i = 0; i < search->queries_count; i++) {
        vex_topk_finish(&search->topks[i]);
    }
    hand_out_hits(reader, search);
    return search->options->payloads ? hand_out_payloads(reader, search, error) : VEX_OK;
}

/* The common small search needs no allocation, hence no system call. */
static enum vex_status with_scratch(struct vex_collection *collection, struct search *search,
                                    struct vex_error *error)
{
    struct vex_candidate stack_heaps[STACK_CANDIDATES];
    struct vex_topk stack_topks[STACK_QUERIES];
    size_t candidates = search->queries_count * search->options->k;
    bool small = candidates <= STACK_CANDIDATES && search->queries_count <= STACK_QUERIES;
    search->heaps = small ? stack_heaps : malloc(candidates * sizeof(*search->heaps));
    search->topks = small ? stack_topks : malloc(search->queries_count * sizeof(*search->topks));
    enum vex_status status =
        search->heaps && search->topks
            ? read_with(collection, &search->options->read, search_step, search, error)
            : vex_error_set(error, VEX_ERR_NOMEM, "search: out of memory for %zu hits", candidates);
    if (!small) {
        free(search->heaps);
        free(search->topks);
    }
    return status;
}

enum vex_status vex_search(struct vex_collection *collection, const float *queries,
                           size_t queries_count, size_t dim,
                           const struct vex_search_options *options, struct vex_results *results,
                           struct vex_search_info *out_info, struct vex_error *error)
{
    static const struct vex_search_options defaults = VEX_SEARCH_OPTIONS_INIT;
    options = options ? options : &defaults;
    if (out_info && out_info->size != sizeof(*out_info)) {
        return vex_error_set(error, VEX_ERR_INVALID, "search info: its size is not set");
    }
    enum vex_status status =
        check_search(collection, queries, queries_count, dim, options, results, error);
    if (status != VEX_OK) {
        return status;
    }
    struct search search = {
        .queries = queries,
        .queries_count = queries_count,
        .options = options,
        .results = results,
        .from_snapshot = options->read.snapshot != NULL,
        .wants_info = out_info != NULL,
    };
    status = with_scratch(collection, &search, error);
    if (status == VEX_OK && out_info) {
        *out_info = search.info;
    }
    return status;
}

/* ---- one vector ------------------------------------------------------------------------------ */

struct get {
    uint64_t id;
    struct vex_record record; /* pointing into the snapshot; `vector` is left to the steps */
    const struct vex_segment *segment;
    uint32_t row;
    struct vex_snapshot *snapshot; /* NULL: copies are wanted */
    float *vector;                 /* copies, NULL = not wanted */
    void *payload;
    size_t payload_capacity;
};

static enum vex_status find(struct reader *reader, struct get *get, struct vex_error *error)
{
    uint32_t segment_index = 0;
    if (!vex_view_find(&reader->reading->view, get->id, &segment_index, &get->row)) {
        return vex_error_set(error, VEX_ERR_NOT_FOUND, "id %llu is not in collection %s",
                             (unsigned long long)get->id, reader->facts->name);
    }
    get->segment = reader->reading->segments[segment_index].segment;
    get->record = (struct vex_record){
        .size = sizeof(get->record),
        .id = get->id,
        .dim = reader->facts->dim,
        .lsn = reader->reading->lsn,
    };
    return vex_segment_payload(get->segment, get->row, &get->record.payload,
                               &get->record.payload_bytes)
               ? VEX_OK
               : corrupt_payload(get->id, error);
}

/* Room for a vector that lasts as long as the snapshot; NULL if memory is short. */
static float *decoded_room(struct vex_snapshot *snapshot)
{
    struct decoded_vector *decoded =
        malloc(sizeof(*decoded) + snapshot->facts.dim * sizeof(decoded->values[0]));
    if (!decoded) {
        return NULL;
    }
    decoded->next = snapshot->decoded;
    snapshot->decoded = decoded;
    return decoded->values;
}

static enum vex_status point_step(struct reader *reader, void *arguments, struct vex_error *error)
{
    struct get *get = arguments;
    enum vex_status status = find(reader, get, error);
    if (status != VEX_OK) {
        return status;
    }
    float *room = NULL;
    if (get->segment->storage != VEX_STORAGE_FLOAT32) {
        room = decoded_room(get->snapshot);
        if (!room) {
            return vex_error_set(error, VEX_ERR_NOMEM, "get: out of memory for a vector");
        }
    }
    get->record.vector = vex_segment_row(get->segment, get->row, room);
    return VEX_OK;
}

static enum vex_status copy_step(struct reader *reader, void *arguments, struct vex_error *error)
{
    struct get *get = arguments;
    enum vex_status status = find(reader, get, error);
    if (status != VEX_OK) {
        return status;
    }
    struct vex_record *record = &get->record;
    if (get->payload && record->payload_bytes > get->payload_capacity) {
        return vex_error_set(
            error, VEX_ERR_BUFFER, "the payload of id %llu has %zu bytes, the buffer %zu",
            (unsigned long long)get->id, record->payload_bytes, get->payload_capacity);
    }
    if (get->vector) {
        vex_store_decode(get->segment->storage, vex_segment_stored(get->segment, get->row),
                         vex_segment_scale(get->segment, get->row), 0, record->dim, get->vector);
    }
    record->vector = get->vector;
    if (get->payload && record->payload) {
        memcpy(get->payload, record->payload, record->payload_bytes);
    }
    if (record->payload) {
        record->payload = get->payload;
    }
    return VEX_OK;
}

enum vex_status vex_snapshot_get(struct vex_snapshot *snapshot, uint64_t id, struct vex_record *out,
                                 struct vex_error *error)
{
    if (!snapshot || !out || out->size != sizeof(*out)) {
        return vex_error_set(error, VEX_ERR_INVALID,
                             "get: snapshot or out is NULL, or its size is not set");
    }
    struct get get = {.id = id, .snapshot = snapshot};
    enum vex_status status = read_snapshot(snapshot, point_step, &get, error);
    if (status == VEX_OK) {
        *out = get.record;
    }
    return status;
}

enum vex_status vex_get(struct vex_collection *collection, uint64_t id,
                        const struct vex_read_options *options, float *vector, size_t vector_dim,
                        void *payload, size_t payload_capacity, struct vex_record *out,
                        struct vex_error *error)
{
    if (!collection || (out && out->size != sizeof(*out))) {
        return vex_error_set(error, VEX_ERR_INVALID,
                             "get: the collection is NULL, or the size of out is not set");
    }
    if (vector && vector_dim != collection->facts.dim) {
        return vex_error_set(error, VEX_ERR_DIM,
                             "get: room for dimension %zu, collection %s has %u", vector_dim,
                             collection->facts.name, collection->facts.dim);
    }
    struct get get = {
        .id = id,
        .vector = vector,
        .payload = payload,
        .payload_capacity = payload_capacity,
    };
    enum vex_status status = read_with(collection, options, copy_step, &get, error);
    if (status == VEX_OK && out) {
        *out = get.record;
    }
    return status;
}

static enum vex_status exists_step(struct reader *reader, void *arguments, struct vex_error *error)
{
    (void)error;
    struct get *get = arguments;
    uint32_t segment_index = 0;
    uint32_t row = 0;
    get->record.dim = vex_view_find(&reader->reading->view, get->id, &segment_index, &row);
    return VEX_OK;
}

enum vex_status vex_exists(struct vex_collection *collection, uint64_t id,
                           const struct vex_read_options *options, bool *out_exists,
                           struct vex_error *error)
{
    if (!out_exists) {
        return vex_error_set(error, VEX_ERR_INVALID, "exists: out_exists is NULL");
    }
    struct get get = {.id = id};
    enum vex_status status = read_with(collection, options, exists_step, &get, error);
    if (status == VEX_OK) {
        *out_exists = get.record.dim != 0;
    }
    return status;
}

static enum vex_status count_step(struct reader *reader, void *arguments, struct vex_error *error)
{
    (void)error;
    *(uint64_t *)arguments = reader->reading->live_rows;
    return VEX_OK;
}

enum vex_status vex_count(struct vex_collection *collection, const struct vex_read_options *options,
                          uint64_t *out_count, struct vex_error *error)
{
    if (!out_count) {
        return vex_error_set(error, VEX_ERR_INVALID, "count: out_count is NULL");
    }
    uint64_t count = 0;
    enum vex_status status = read_with(collection, options, count_step, &count, error);
    if (status == VEX_OK) {
        *out_count = count;
    }
    return status;
}

/* ---- snapshots ------------------------------------------------------------------------------- */

enum vex_status vex_snapshot_open(struct vex_collection *collection,
                                  const struct vex_read_options *options,
                                  struct vex_snapshot **out_snapshot, struct vex_error *error)
{
    if (!out_snapshot) {
        return vex_error_set(error, VEX_ERR_INVALID, "out_snapshot is NULL");
    }
    *out_snapshot = NULL;
    enum vex_status status = check_options(options, error);
    if (status == VEX_OK && (!collection || (options && options->snapshot))) {
        status = vex_error_set(error, VEX_ERR_INVALID,
                               "snapshot: the collection is NULL, or a snapshot was given to copy");
    }
    status = status == VEX_OK ? vex_db_check(collection->db, error) : status;
    if (status != VEX_OK) {
        return status;
    }
    struct vex_snapshot *snapshot = calloc(1, sizeof(*snapshot));
    if (!snapshot) {
        return vex_error_set(error, VEX_ERR_NOMEM, "snapshot: out of memory");
    }
    snapshot->db = collection->db;
    snapshot->facts = collection->facts;
    status = vex_reading_begin(collection, false, options ? options->min_lsn : 0,
                               options ? options->timeout_ms : 0, &snapshot->reading, error);
    if (status != VEX_OK) {
        free(snapshot);
        return status;
    }
    /* The cache may be replaced from now on; the mappings stay as long as the snapshot. */
    struct reading *reading = &snapshot->reading;
    for (uint32_t i = 0; i < reading->cache->count; i++) {
        struct mapped_segment *mapped = reading->cache->mapped[i];
        /* relaxed: the pin keeps the cache, and with it this reference, alive. */
        (void)atomic_fetch_add_explicit(&mapped->references, 1, memory_order_relaxed);
        snapshot->mapped[i] = mapped;
    }
    reading->cache = NULL;
    /* pairs: SLOT_EPOCH with vex_attachment_passed: it holds no cache from here on. */
    atomic_store_explicit(&reading->slot->epoch, UINT64_MAX - 1, memory_order_release);
    *out_snapshot = snapshot;
    return VEX_OK;
}

void vex_snapshot_close(struct vex_snapshot *snapshot)
{
    if (!snapshot) {
        return;
    }
    if (vex_db_check(snapshot->db, NULL) == VEX_OK) {
        for (uint32_t i = 0; i < snapshot->reading.view.segments_count; i++) {
            vex_mapped_release(snapshot->mapped[i]);
        }
        (void)vex_db_unpin(snapshot->reading.slot);
        vex_attachment_give_slot(snapshot->reading.slot);
    }
    while (snapshot->decoded) {
        struct decoded_vector *decoded = snapshot->decoded;
        snapshot->decoded = decoded->next;
        free(decoded);
    }
    free(snapshot);
}

uint64_t vex_snapshot_lsn(const struct vex_snapshot *snapshot)
{
    return snapshot ? snapshot->reading.lsn : 0;
}

const char *vex_isa_name(void)
{
    return vex_kernels_get()->name;
}
