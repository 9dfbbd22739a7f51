/*
 * Building and searching for a comparison; what for is in sides.h.
 */
#include "tests/bench/sides.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/common.h"

#define BATCH_BYTES (4u << 20)
#define ADD_ROWS 1000u /* of a library's index between two looks at whether to stop */

static double seconds_since(uint64_t start_ns)
{
    return (double)(vex_bench_clock_ns() - start_ns) * 1e-9;
}

/* ---- ours ------------------------------------------------------------------------------------ */

static bool import(struct vex_ours *ours, const struct vex_vectors *base)
{
    uint32_t dim = base->dim;
    size_t batch_rows = BATCH_BYTES / (dim * sizeof(float) + sizeof(uint64_t)) + 1;
    uint64_t *ids = vex_bench_alloc(batch_rows, sizeof(*ids));
    bool sound = true;
    for (size_t row = 0; row < base->rows && sound; row += batch_rows) {
        size_t left = base->rows - row;
        struct vex_batch batch = VEX_BATCH_INIT;
        batch.count = left < batch_rows ? left : batch_rows;
        batch.ids = ids;
        batch.vectors = base->values + row * dim;
        batch.dim = dim;
        for (size_t i = 0; i < batch.count; i++) {
            ids[i] = row + i;
        }
        struct vex_error error;
        sound = vex_write(ours->collection, VEX_WRITE_INSERT, &batch, NULL, &error) == VEX_OK ||
                vex_bench_fail("import of the rows from %zu on: %s", row, error.message);
        sound = sound && !vex_bench_stopped();
    }
    free(ids);
    return sound;
}

bool vex_ours_build(struct vex_ours *ours, const char *name,
                    const struct vex_collection_options *options, const struct vex_vectors *base)
{
    struct vex_db *db = ours->instance->db;
    struct vex_build *build = &ours->build;
    struct vex_error error;
    if (vex_collection_create(db, name, options, &error) != VEX_OK ||
        vex_collection_open(db, name, &ours->collection, &error) != VEX_OK) {
        return vex_bench_fail("collection %s: %s", name, error.message);
    }
    double start_s = vex_instance_daemon_seconds(ours->instance);
    uint64_t start_ns = vex_bench_clock_ns();
    if (!import(ours, base)) {
        return false;
    }
    build->import_s = seconds_since(start_ns);
    start_ns = vex_bench_clock_ns();
    if (vex_compact(db, name, NULL, NULL, &error) != VEX_OK) {
        return vex_bench_fail("compact %s: %s", name, error.message);
    }
    build->build_s = seconds_since(start_ns);
    build->cpu_s = vex_instance_daemon_seconds(ours->instance) - start_s;
    vex_instance_settle(ours->instance);
    ours->info = (struct vex_collection_info){.size = sizeof(ours->info)};
    if (vex_collection_describe(ours->collection, &ours->info, &error) != VEX_OK) {
        return vex_bench_fail("describe %s: %s", name, error.message);
    }
    build->bytes = ours->info.shm_bytes;
    build->segments = ours->info.segments;
    return !vex_bench_stopped();
}

static void make_room(struct vex_ours *ours, size_t queries)
{
    if (queries > ours->room) {
        free(ours->distances);
        free(ours->counts);
        ours->distances = vex_bench_alloc(queries * ours->k, sizeof(*ours->distances));
        ours->counts = vex_bench_alloc(queries, sizeof(*ours->counts));
        ours->room = queries;
    }
}

struct vex_search_options vex_ours_options(const struct vex_ours *ours, uint64_t effort)
{
    struct vex_search_options how = ours->how;
    how.k = ours->k;
    how.ef_search = ours->info.index == VEX_INDEX_HNSW ? (uint32_t)effort : 0;
    how.nprobe = ours->info.index == VEX_INDEX_IVF ? (uint32_t)effort : 0;
    return how;
}

bool vex_ours_search(struct vex_ours *ours, size_t first, size_t count,
                     const struct vex_search_options *how, uint64_t *found,
                     struct vex_search_info *out_info)
{
    make_room(ours, count);
    struct vex_results results = {
        .size = sizeof(results),
        .ids = found,
        .distances = ours->distances,
        .counts = ours->counts,
    };
    *out_info = (struct vex_search_info){.size = sizeof(*out_info)};
    uint32_t dim = ours->queries->dim;
    struct vex_error error;
    return vex_search(ours->collection, ours->queries->values + first * dim, count, dim, how,
                      &results, out_info, &error) == VEX_OK ||
           vex_bench_fail("search: %s", error.message);
}

bool vex_ours_search_all(void *context, struct vex_contest_point *point, bool counting,
                         uint64_t *found)
{
    struct vex_ours *ours = context;
    struct vex_search_options how = vex_ours_options(ours, point->effort);
    struct vex_search_info info = {.mode = "none"};
    uint64_t visited = 0;
    size_t queries = ours->queries->rows;
    for (size_t first = 0; first < queries; first += ours->batch) {
        size_t count = queries - first < ours->batch ? queries - first : ours->batch;
        if (!vex_ours_search(ours, first, count, &how, found + first * ours->k, &info)) {
            return false;
        }
        visited += info.rows_visited;
    }
    if (counting) {
        point->mode = info.mode;
        point->visited = (double)visited / (double)queries;
    }
    return true;
}

void vex_ours_close(struct vex_ours *ours)
{
    vex_collection_close(ours->collection);
    free(ours->distances);
    free(ours->counts);
    *ours = (struct vex_ours){0};
}

/* ---- theirs ---------------------------------------------------------------------------------- */

bool vex_theirs_load(struct vex_theirs *theirs, const char *name)
{
    /* Its own choice for this processor, whatever the environment is set to, or with as little as we have. */
    if (strncmp(vex_isa_name(), "avx512", strlen("avx512")) == 0) {
        (void)unsetenv("OPENBLAS_CORETYPE");
    } else {
        (void)setenv("OPENBLAS_CORETYPE", "Haswell", 1);
    }
    theirs->library = index_peer_load(name, vex_isa_name());
    return theirs->library ||
           vex_bench_fail("--peers %s: this program was built without %s; install it "
                          "('scripts/install-deps --peers'), configure again and build",
                          name, name);
}

bool vex_theirs_print(const struct vex_theirs *theirs)
{
    struct vex_line line;
    vex_line_begin(&line, "peer");
    vex_line_text(&line, "peer", theirs->library->name);
    vex_line_text(&line, "version", theirs->library->version);
    vex_line_text(&line, "compiled", theirs->library->describe());
    return vex_line_end(&line);
}

static bool add_rows(struct vex_theirs *theirs, const struct vex_vectors *base)
{
    uint32_t rows = (uint32_t)base->rows;
    const struct index_peer_library *library = theirs->library;
    theirs->peer = library->open(&theirs->shape, base->values);
    if (!theirs->peer) {
        return vex_bench_fail("%s: no memory for an index of %u rows, or it refused them",
                              library->name, rows);
    }
    for (uint32_t first = 0; first < rows; first += ADD_ROWS) {
        uint32_t count = rows - first < ADD_ROWS ? rows - first : ADD_ROWS;
        if (vex_bench_stopped()) {
            return false;
        }
        if (!library->add(theirs->peer, base->values, first, count)) {
            return vex_bench_fail("%s does not take the rows from %u on", library->name, first);
        }
    }
    return true;
}

bool vex_theirs_build(struct vex_theirs *theirs, const struct vex_vectors *base)
{
    vex_bench_note("building the index of %s", theirs->library->name);
    theirs->shape.dim = base->dim;
    theirs->shape.capacity = (uint32_t)base->rows;
    uint64_t start_ns = vex_bench_clock_ns();
    double start_s = vex_bench_thread_seconds();
    if (!add_rows(theirs, base)) {
        return false;
    }
    theirs->build = (struct vex_build){
        .import_s = NAN,
        .build_s = seconds_since(start_ns),
        .cpu_s = vex_bench_thread_seconds() - start_s,
        .bytes = theirs->library->bytes(theirs->peer),
        .segments = 1,
    };
    return true;
}

bool vex_theirs_search_all(void *context, struct vex_contest_point *point, bool counting,
                           uint64_t *found)
{
    static const char *const modes[] = {
        [INDEX_PEER_FLAT] = "exact", [INDEX_PEER_GRAPH] = "hnsw", [INDEX_PEER_LISTS] = "ivf"};
    struct vex_theirs *theirs = context;
    const struct vex_vectors *queries = theirs->queries;
    if (counting) {
        theirs->library->count(theirs->peer, true);
    }
    for (size_t first = 0; first < queries->rows; first += theirs->batch) {
        size_t left = queries->rows - first;
        theirs->library->search(theirs->peer, queries->values + first * queries->dim,
                                left < theirs->batch ? left : theirs->batch, theirs->k,
                                (uint32_t)point->effort, found + first * theirs->k);
    }
    if (counting) {
        point->mode = modes[theirs->shape.kind];
        point->visited = (double)theirs->library->counted(theirs->peer) / (double)queries->rows;
        theirs->library->count(theirs->peer, false);
    }
    return true;
}

void vex_theirs_close(struct vex_theirs *theirs)
{
    if (theirs->peer) {
        theirs->library->free(theirs->peer);
    }
    *theirs = (struct vex_theirs){0};
}
