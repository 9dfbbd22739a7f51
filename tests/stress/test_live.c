/*
 * A live instance under the eyes of a model: one writer and four readers, and every single answer of a
 * search is compared with brute force over the state that the answer says it was taken from.
 *
 * With one writer, LSNs are predictable: one for each write call. The writer notes each operation in
 * memory that all processes share before it sends it. A reader notes the last acknowledged LSN A,
 * searches, and gets the LSN S of the state that was searched. Then
 *     A <= S <= the last LSN sent,  and S never goes back,
 * and the reader brings its own replica of the collection up to S and computes the answer itself: ids
 * and distances must be equal, bit for bit. They can be, because all values are small multiples of
 * 1/8: sums of their products are exact in any order, so only ties remain, and ties go by the id.
 *
 * Searches vary in k, in the number of queries, in whether they use the current state, an LSN to wait
 * for, or a snapshot that is kept while the writer goes on. Each metric has its turn, with a
 * collection of its own; beside it others come and go, so that memory is given back, and readers hold
 * on to snapshots of those, too: they must outlive the drop.
 *
 * test_live [--seconds N] [--threads]; with --threads all five are threads of one process with one
 * handle, which is what a thread sanitizer can look at.
 */
#include <getopt.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/lib/fixture.h"
#include "tests/lib/random.h"

#define READERS 4
#define IDS 3000u
#define DIM 32u
#define VECTORS 4096u /* different ones; ids share them, hence ties */
#define OPERATIONS_MAX (1u << 20)
#define ITEMS_MAX (1u << 24)
#define BATCH_MAX 400u
#define K_MAX (IDS + 50u)
#define QUERIES_MAX 4u
#define PAYLOAD_BYTES_MAX 44u
#define NOTHING UINT16_MAX /* no vector: the id is not there */

/* ---- what the processes share ---------------------------------------------------------------- */

struct item {
    uint16_t id;
    uint16_t vector;  /* which one; not for deletes */
    uint16_t payload; /* its tag; 0 = none given */
};

struct operation {
    uint32_t first_item;
    uint16_t items_count;
    uint16_t kind; /* enum vex_write_kind; 0 = did not touch the collection */
};

struct counts {
    _Atomic uint64_t searches;
    _Atomic uint64_t queries;
    _Atomic uint64_t of_snapshots;
    _Atomic uint64_t with_min_lsn;
    _Atomic uint64_t gets;
    _Atomic uint64_t of_dropped;
    _Atomic uint64_t writes;
    _Atomic uint64_t items;
};

struct shared {
    struct counts counts;
    /* Of one turn: */
    uint64_t first_lsn;    /* of operations[0] */
    _Atomic uint64_t sent; /* all operations up to here are noted */
    _Atomic uint64_t acknowledged;
    _Atomic bool writer_done;
    _Atomic uint64_t noise_number; /* of the other collection that is there, or was lately */
    _Atomic bool failed;
    struct operation operations[OPERATIONS_MAX];
    struct item items[ITEMS_MAX];
};

static float vectors[VECTORS][DIM];
static struct shared *shared;

struct turn {
    const struct vex_fixture *fixture;
    enum vex_metric metric;
    uint64_t seed;
    uint64_t end_ms;
    struct vex_db *common; /* with --threads */
};

static void make_vectors(uint64_t seed)
{
    struct vex_random random = vex_random_seeded(seed);
    for (size_t i = 0; i < VECTORS; i++) {
        /* Every other one on a coarser grid: more ties. */
        int steps = i % 2 ? 3 : 31;
        for (size_t d = 0; d < DIM; d++) {
            int step = (int)vex_random_below(&random, (uint64_t)steps) - steps / 2;
            vectors[i][d] = (float)step / 8.0f;
        }
        vectors[i][i % DIM] += 4; /* none is zero */
    }
}

static size_t payload_of(uint16_t tag, uint8_t *bytes)
{
    size_t count = 4 + tag % (PAYLOAD_BYTES_MAX - 3);
    for (size_t i = 0; i < count; i++) {
        bytes[i] = (uint8_t)(tag * 31u + i * 7u);
    }
    return count;
}

/* Ends the process, or the whole program if all are threads. */
__attribute__((format(printf, 1, 2))) static _Noreturn void give_up(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    atomic_store(&shared->failed, true);
    fprintf(stderr, "test_live: ");
    (void)vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    _exit(1);
}

static void must(enum vex_status status, const struct vex_error *error, const char *what)
{
    if (status != VEX_OK) {
        give_up("%s: %s: %s", what, vex_status_name(status), error->message);
    }
}

static uint64_t count_one(_Atomic uint64_t *counter, uint64_t more)
{
    /* relaxed: read when everybody has ended. */
    return atomic_fetch_add_explicit(counter, more, memory_order_relaxed);
}

/* ---- a replica of the collection ------------------------------------------------------------- */

struct replica {
    uint64_t lsn;
    uint32_t count;
    uint16_t vector[IDS]; /* NOTHING = not there */
    uint16_t payload[IDS];
};

static void replica_init(struct replica *replica)
{
    replica->lsn = shared->first_lsn - 1;
    replica->count = 0;
    memset(replica->vector, 0xff, sizeof(replica->vector));
    memset(replica->payload, 0, sizeof(replica->payload));
}

static void apply(struct replica *replica, const struct operation *operation)
{
    for (uint32_t i = 0; i < operation->items_count; i++) {
        const struct item *item = &shared->items[operation->first_item + i];
        bool there = replica->vector[item->id] != NOTHING;
        if (operation->kind == VEX_WRITE_DELETE) {
            replica->vector[item->id] = NOTHING;
            replica->count--;
            continue;
        }
        replica->count += !there;
        replica->vector[item->id] = item->vector;
        if (operation->kind != VEX_WRITE_UPDATE || item->payload) {
            replica->payload[item->id] = item->payload;
        }
    }
}

static void advance(struct replica *replica, uint64_t lsn)
{
    while (replica->lsn < lsn) {
        replica->lsn++;
        apply(replica, &shared->operations[replica->lsn - shared->first_lsn]);
    }
}

/* ---- the writer ------------------------------------------------------------------------------ */

struct writer {
    const struct turn *turn;
    struct vex_random random;
    struct replica state;
    struct vex_db *db;
    struct vex_collection *collection;
    struct vex_collection *noise; /* NULL = there is none now */
    uint32_t items_used;
    uint32_t operations_used;
};

/* An id that is there, or one that is not; false if none was found soon. */
static bool pick_id(struct writer *writer, bool there, uint16_t *out_id)
{
    for (int attempt = 0; attempt < 50; attempt++) {
        uint16_t id = (uint16_t)vex_random_below(&writer->random, IDS);
        if ((writer->state.vector[id] != NOTHING) == there) {
            *out_id = id;
            return true;
        }
    }
    return false;
}

static bool is_among(const struct item *items, uint32_t count, uint16_t id)
{
    for (uint32_t i = 0; i < count; i++) {
        if (items[i].id == id) {
            return true;
        }
    }
    return false;
}

static uint32_t pick_batch_size(struct vex_random *random)
{
    if (!vex_random_once_in(random, 3)) {
        return 1;
    }
    return 1 + (uint32_t)vex_random_below(random, vex_random_once_in(random, 20) ? BATCH_MAX : 30);
}

/* Chooses what the next write does and notes it. NULL if the choice leads nowhere. */
static struct operation *note_operation(struct writer *writer)
{
    struct vex_random *random = &writer->random;
    uint32_t wanted = pick_batch_size(random);
    if (writer->operations_used == OPERATIONS_MAX || writer->items_used + wanted > ITEMS_MAX) {
        return NULL;
    }
    uint64_t choice = vex_random_below(random, 100);
    /* Grows to about two thirds of the ids and stays there. */
    bool is_full = writer->state.count > IDS * 2 / 3;
    enum vex_write_kind kind = choice < 30   ? (is_full ? VEX_WRITE_DELETE : VEX_WRITE_INSERT)
                               : choice < 60 ? VEX_WRITE_UPDATE
                               : choice < 80 ? VEX_WRITE_UPSERT
                               : choice < 90 ? VEX_WRITE_INSERT
                                             : VEX_WRITE_DELETE;
    struct item *items = &shared->items[writer->items_used];
    uint32_t count = 0;
    for (uint32_t i = 0; i < wanted; i++) {
        uint16_t id = 0;
        bool found = kind == VEX_WRITE_UPSERT ? pick_id(writer, vex_random_once_in(random, 2), &id)
                                              : pick_id(writer, kind != VEX_WRITE_INSERT, &id);
        bool unique = kind == VEX_WRITE_INSERT || kind == VEX_WRITE_DELETE;
        if (!found || (unique && is_among(items, count, id))) {
            continue;
        }
        uint16_t tag = vex_random_once_in(random, 3) ? (uint16_t)vex_random_next(random) : 0;
        items[count++] = (struct item){
            .id = id,
            .vector = (uint16_t)vex_random_below(random, VECTORS),
            .payload = kind == VEX_WRITE_DELETE ? 0 : tag,
        };
    }
    struct operation *operation = &shared->operations[writer->operations_used];
    *operation = (struct operation){writer->items_used, (uint16_t)count, (uint16_t)kind};
    return count ? operation : NULL;
}

/* Everything noted so far for the next LSN becomes visible to the readers. Returns that LSN. */
static uint64_t announce(struct writer *writer)
{
    uint64_t lsn = shared->first_lsn + writer->operations_used++;
    writer->state.lsn = lsn;
    atomic_store_explicit(&shared->sent, lsn, memory_order_release);
    return lsn;
}

static void acknowledge(uint64_t lsn)
{
    atomic_store_explicit(&shared->acknowledged, lsn, memory_order_release);
    (void)count_one(&shared->counts.writes, 1);
}

static void send_operation(struct writer *writer, const struct operation *operation)
{
    static _Thread_local float rows[BATCH_MAX][DIM];
    static _Thread_local uint8_t bytes[BATCH_MAX][PAYLOAD_BYTES_MAX];
    uint64_t ids[BATCH_MAX];
    const void *payloads[BATCH_MAX];
    size_t payload_bytes[BATCH_MAX];
    for (uint32_t i = 0; i < operation->items_count; i++) {
        const struct item *item = &shared->items[operation->first_item + i];
        ids[i] = item->id;
        memcpy(rows[i], vectors[item->vector], sizeof(rows[i]));
        payloads[i] = item->payload ? bytes[i] : NULL;
        payload_bytes[i] = item->payload ? payload_of(item->payload, bytes[i]) : 0;
    }
    bool is_delete = operation->kind == VEX_WRITE_DELETE;
    struct vex_batch batch = VEX_BATCH_INIT;
    batch.count = operation->items_count;
    batch.ids = ids;
    batch.vectors = is_delete ? NULL : rows[0];
    batch.dim = is_delete ? 0 : DIM;
    batch.payloads = is_delete ? NULL : payloads;
    batch.payload_bytes = is_delete ? NULL : payload_bytes;
    uint64_t lsn = announce(writer);
    struct vex_ack ack = VEX_ACK_INIT;
    struct vex_error error;
    must(vex_write(writer->collection, (enum vex_write_kind)operation->kind, &batch, &ack, &error),
         &error, "write");
    if (ack.lsn != lsn || ack.count != operation->items_count) {
        give_up("write %llu was acknowledged as %llu", (unsigned long long)lsn,
                (unsigned long long)ack.lsn);
    }
    acknowledge(lsn);
    (void)count_one(&shared->counts.items, operation->items_count);
}

static void noise_name(const struct turn *turn, char *out, size_t bytes)
{
    (void)snprintf(out, bytes, "noise-%s-%llu", vex_metric_name(turn->metric),
                   (unsigned long long)atomic_load(&shared->noise_number));
}

/* One record that does not concern the collection under test. */
static void make_noise(struct writer *writer)
{
    struct vex_error error;
    char name[64];
    if (writer->operations_used == OPERATIONS_MAX) {
        return;
    }
    shared->operations[writer->operations_used] = (struct operation){0};
    uint64_t lsn = announce(writer);
    if (!writer->noise) {
        (void)atomic_fetch_add(&shared->noise_number, 1);
        noise_name(writer->turn, name, sizeof(name));
        struct vex_collection_options options = VEX_COLLECTION_OPTIONS_INIT;
        options.dim = DIM;
        must(vex_collection_create(writer->db, name, &options, &error), &error, "create");
        must(vex_collection_open(writer->db, name, &writer->noise, &error), &error, "open");
    } else if (vex_random_once_in(&writer->random, 5)) {
        noise_name(writer->turn, name, sizeof(name));
        vex_collection_close(writer->noise);
        writer->noise = NULL;
        must(vex_collection_drop(writer->db, name, &error), &error, "drop");
    } else {
        must(vex_insert(writer->noise, NULL, vectors[0], DIM, NULL, 0, NULL, &error), &error,
             "insert");
    }
    acknowledge(lsn);
}

static void write_until_the_end(const struct turn *turn)
{
    struct writer *writer = calloc(1, sizeof(*writer));
    if (!writer) {
        give_up("out of memory");
    }
    writer->turn = turn;
    writer->random = vex_random_seeded(turn->seed);
    writer->db = turn->common ? turn->common : vex_fixture_open(turn->fixture);
    writer->collection =
        vex_fixture_collection(writer->db, vex_metric_name(turn->metric), DIM, turn->metric);
    replica_init(&writer->state);
    while (vex_fixture_now_ms() < turn->end_ms && !atomic_load(&shared->failed)) {
        if (vex_random_once_in(&writer->random, 12)) {
            make_noise(writer);
            continue;
        }
        struct operation *operation = note_operation(writer);
        if (operation) {
            writer->items_used += operation->items_count;
            apply(&writer->state, operation);
            send_operation(writer, operation);
        }
    }
    atomic_store(&shared->writer_done, true);
    vex_collection_close(writer->noise);
    vex_collection_close(writer->collection);
    if (!turn->common) {
        vex_close(writer->db);
    }
    free(writer);
}

/* ---- a reader -------------------------------------------------------------------------------- */

struct near {
    double key;
    uint64_t id;
};

struct reader {
    const struct turn *turn;
    unsigned number;
    struct vex_random random;
    struct vex_db *db;
    struct vex_collection *collection;
    struct replica now;
    struct vex_snapshot *snapshot; /* NULL = none is kept */
    struct replica then;           /* what it must hold */
    struct vex_snapshot *noise; /* of a collection that may have been dropped since; NULL = none */
    uint64_t noise_rows;
    uint64_t last_lsn;
    struct near all[IDS];
    uint64_t ids[QUERIES_MAX * K_MAX];
    float distances[QUERIES_MAX * K_MAX];
};

static double dot(const float *a, const float *b)
{
    double sum = 0;
    for (size_t d = 0; d < DIM; d++) {
        sum += (double)a[d] * (double)b[d];
    }
    return sum;
}

static double key_of(enum vex_metric metric, const float *query, const float *row)
{
    switch (metric) {
    case VEX_METRIC_L2: {
        double sum = 0;
        for (size_t d = 0; d < DIM; d++) {
            double difference = (double)query[d] - (double)row[d];
            sum += difference * difference;
        }
        return sum;
    }
    case VEX_METRIC_COSINE:
        return 1 - dot(query, row) / (sqrt(dot(query, query)) * sqrt(dot(row, row)));
    case VEX_METRIC_DOT:
        break;
    }
    return -dot(query, row);
}

static int by_key_and_id(const void *a, const void *b)
{
    const struct near *x = a;
    const struct near *y = b;
    if (x->key != y->key) {
        return x->key < y->key ? -1 : 1;
    }
    return x->id < y->id ? -1 : x->id > y->id;
}

/* Compares the answer to one query with brute force over `state`. */
static void check_answer(struct reader *reader, const struct replica *state, const float *query,
                         uint32_t k, const uint64_t *ids, const float *distances, uint32_t found)
{
    enum vex_metric metric = reader->turn->metric;
    uint32_t count = 0;
    for (uint32_t id = 0; id < IDS; id++) {
        if (state->vector[id] != NOTHING) {
            reader->all[count++] =
                (struct near){key_of(metric, query, vectors[state->vector[id]]), id};
        }
    }
    qsort(reader->all, count, sizeof(reader->all[0]), by_key_and_id);
    if (count != state->count || found != (count < k ? count : k)) {
        give_up("reader %u, LSN %llu: %u hits of %u rows, k is %u", reader->number,
                (unsigned long long)state->lsn, found, count, k);
    }
    for (uint32_t j = 0; j < k; j++) {
        double sign = metric == VEX_METRIC_DOT ? -1 : 1;
        uint64_t id = j < found ? reader->all[j].id : UINT64_MAX;
        double key = j < found ? reader->all[j].key : (double)INFINITY;
        float distance = (float)(sign * key);
        if (ids[j] != id || memcmp(&distances[j], &distance, sizeof(distance)) != 0) {
            /* -0 and 0 are the same distance. */
            if (ids[j] == id && distances[j] == 0 && distance == 0) {
                continue;
            }
            give_up(
                "reader %u, %s, LSN %llu, k %u: hit %u is id %llu at %.9g, should be id %llu at "
                "%.9g",
                reader->number, vex_metric_name(metric), (unsigned long long)state->lsn, k, j,
                (unsigned long long)ids[j], (double)distances[j], (unsigned long long)id,
                (double)distance);
        }
    }
}

static uint32_t pick_k(struct vex_random *random)
{
    if (vex_random_once_in(random, 40)) {
        return 1 + (uint32_t)vex_random_below(random, K_MAX);
    }
    return 1 + (uint32_t)vex_random_below(random, vex_random_once_in(random, 4) ? 100 : 10);
}

/* The state that an answer of LSN `lsn` must have been taken from. */
static const struct replica *state_at(struct reader *reader, uint64_t lsn, bool of_snapshot,
                                      uint64_t least)
{
    uint64_t most = atomic_load_explicit(&shared->sent, memory_order_acquire);
    if (of_snapshot) {
        if (lsn != reader->then.lsn) {
            give_up("reader %u: a snapshot of LSN %llu answers as of %llu", reader->number,
                    (unsigned long long)reader->then.lsn, (unsigned long long)lsn);
        }
        return &reader->then;
    }
    if (lsn < least || lsn > most || lsn < reader->last_lsn) {
        give_up("reader %u: LSN %llu, must be within %llu and %llu, and was %llu before",
                reader->number, (unsigned long long)lsn, (unsigned long long)least,
                (unsigned long long)most, (unsigned long long)reader->last_lsn);
    }
    reader->last_lsn = lsn;
    advance(&reader->now, lsn);
    return &reader->now;
}

static void search_and_check(struct reader *reader)
{
    struct vex_random *random = &reader->random;
    struct vex_search_options options = VEX_SEARCH_OPTIONS_INIT;
    options.k = pick_k(random);
    size_t queries_count =
        vex_random_once_in(random, 4) ? 1 + vex_random_below(random, QUERIES_MAX) : 1;
    float queries[QUERIES_MAX][DIM];
    for (size_t i = 0; i < queries_count; i++) {
        /* Often exactly a row: distance 0, and all its twins tie. */
        memcpy(queries[i], vectors[vex_random_below(random, VECTORS)], sizeof(queries[i]));
        queries[i][0] += vex_random_once_in(random, 2) ? 0 : 0.125f;
    }
    bool of_snapshot = reader->snapshot && vex_random_once_in(random, 2);
    uint64_t least = atomic_load_explicit(&shared->acknowledged, memory_order_acquire);
    if (of_snapshot) {
        options.read.snapshot = reader->snapshot;
    } else if (vex_random_once_in(random, 5)) {
        /* What is on its way only now: the search has to wait for it. */
        least = options.read.min_lsn = atomic_load_explicit(&shared->sent, memory_order_acquire);
        options.read.timeout_ms = 30000;
        (void)count_one(&shared->counts.with_min_lsn, 1);
    }
    uint32_t found[QUERIES_MAX];
    struct vex_results results = {
        .size = sizeof(results),
        .ids = reader->ids,
        .distances = reader->distances,
        .counts = found,
    };
    struct vex_search_info info = {.size = sizeof(info)};
    struct vex_error error;
    must(vex_search(reader->collection, queries[0], queries_count, DIM, &options, &results, &info,
                    &error),
         &error, "search");
    const struct replica *state = state_at(reader, info.snapshot_lsn, of_snapshot, least);
    if (!info.complete) {
        give_up("reader %u: an answer that is incomplete", reader->number);
    }
    for (size_t i = 0; i < queries_count; i++) {
        check_answer(reader, state, queries[i], options.k, reader->ids + i * options.k,
                     reader->distances + i * options.k, found[i]);
    }
    (void)count_one(&shared->counts.searches, 1);
    (void)count_one(&shared->counts.queries, queries_count);
    (void)count_one(&shared->counts.of_snapshots, of_snapshot);
}

/* One id and the count, through the snapshot that is kept. */
static void get_and_check(struct reader *reader)
{
    if (!reader->snapshot) {
        return;
    }
    uint16_t id = (uint16_t)vex_random_below(&reader->random, IDS);
    struct vex_record record = {.size = sizeof(record)};
    struct vex_error error;
    enum vex_status status = vex_snapshot_get(reader->snapshot, id, &record, &error);
    bool there = reader->then.vector[id] != NOTHING;
    if (status != (there ? VEX_OK : VEX_ERR_NOT_FOUND)) {
        give_up("reader %u: get of id %u: %s", reader->number, id, vex_status_name(status));
    }
    uint8_t bytes[PAYLOAD_BYTES_MAX];
    uint16_t tag = reader->then.payload[id];
    size_t payload_bytes = there && tag ? payload_of(tag, bytes) : 0;
    if (there &&
        (memcmp(record.vector, vectors[reader->then.vector[id]], sizeof(vectors[0])) != 0 ||
         record.payload_bytes != payload_bytes || !record.payload != !tag ||
         (tag && memcmp(record.payload, bytes, payload_bytes) != 0))) {
        give_up("reader %u: id %u holds something else", reader->number, id);
    }
    struct vex_read_options read = VEX_READ_OPTIONS_INIT;
    read.snapshot = reader->snapshot;
    uint64_t count = 0;
    must(vex_count(reader->collection, &read, &count, &error), &error, "count");
    if (count != reader->then.count) {
        give_up("reader %u: %llu rows counted, there are %u", reader->number,
                (unsigned long long)count, reader->then.count);
    }
    (void)count_one(&shared->counts.gets, 1);
}

static void change_snapshot(struct reader *reader)
{
    struct vex_error error;
    vex_snapshot_close(reader->snapshot);
    reader->snapshot = NULL;
    if (vex_random_once_in(&reader->random, 3)) {
        return;
    }
    uint64_t least = atomic_load_explicit(&shared->acknowledged, memory_order_acquire);
    must(vex_snapshot_open(reader->collection, NULL, &reader->snapshot, &error), &error,
         "snapshot");
    reader->then = *state_at(reader, vex_snapshot_lsn(reader->snapshot), false, least);
}

/* All rows of the other collections are the same, with ids from 0 up. */
static void check_noise(struct reader *reader)
{
    for (uint64_t id = 0; id <= reader->noise_rows; id++) {
        struct vex_record record = {.size = sizeof(record)};
        enum vex_status status = vex_snapshot_get(reader->noise, id, &record, NULL);
        bool there = id < reader->noise_rows;
        if (status != (there ? VEX_OK : VEX_ERR_NOT_FOUND) ||
            (there && memcmp(record.vector, vectors[0], sizeof(vectors[0])) != 0)) {
            give_up("reader %u: row %llu of %llu of a snapshot that was dropped: %s",
                    reader->number, (unsigned long long)id, (unsigned long long)reader->noise_rows,
                    vex_status_name(status));
        }
    }
    (void)count_one(&shared->counts.of_dropped, 1);
}

static void change_noise(struct reader *reader)
{
    struct vex_error error;
    struct vex_collection *collection = NULL;
    char name[64];
    vex_snapshot_close(reader->noise);
    reader->noise = NULL;
    noise_name(reader->turn, name, sizeof(name));
    if (vex_collection_open(reader->db, name, &collection, &error) != VEX_OK) {
        return; /* just not there */
    }
    enum vex_status status = vex_snapshot_open(collection, NULL, &reader->noise, &error);
    struct vex_read_options read = VEX_READ_OPTIONS_INIT;
    read.snapshot = reader->noise;
    if (status == VEX_OK) {
        must(vex_count(collection, &read, &reader->noise_rows, &error), &error, "count");
    } else if (status != VEX_ERR_GONE) {
        must(status, &error, "snapshot");
    }
    vex_collection_close(collection);
}

static void open_again(struct reader *reader)
{
    vex_snapshot_close(reader->noise);
    reader->noise = NULL;
    vex_snapshot_close(reader->snapshot);
    reader->snapshot = NULL;
    vex_collection_close(reader->collection);
    if (!reader->turn->common && vex_random_once_in(&reader->random, 3)) {
        vex_close(reader->db);
        reader->db = vex_fixture_open(reader->turn->fixture);
    }
    struct vex_error error;
    must(vex_collection_open(reader->db, vex_metric_name(reader->turn->metric), &reader->collection,
                             &error),
         &error, "open");
}

static void read_until_the_end(const struct turn *turn, unsigned number)
{
    struct reader *reader = calloc(1, sizeof(*reader));
    if (!reader) {
        give_up("out of memory");
    }
    reader->turn = turn;
    reader->number = number;
    reader->random = vex_random_seeded(turn->seed * 31 + number);
    reader->db = turn->common ? turn->common : vex_fixture_open(turn->fixture);
    reader->collection =
        vex_fixture_collection(reader->db, vex_metric_name(turn->metric), DIM, turn->metric);
    replica_init(&reader->now);
    bool is_last = false;
    while (!is_last && !atomic_load(&shared->failed)) {
        is_last = atomic_load(&shared->writer_done); /* one more, of the final state */
        switch (vex_random_below(&reader->random, 40)) {
        case 0:
        case 1:
            change_snapshot(reader);
            break;
        case 2:
            if (vex_random_once_in(&reader->random, 10)) {
                open_again(reader);
            }
            break;
        case 3:
        case 4:
        case 5:
        case 6:
            get_and_check(reader);
            break;
        case 7:
            change_noise(reader);
            break;
        case 8:
        case 9:
            if (reader->noise) {
                check_noise(reader);
            }
            break;
        default:
            break;
        }
        search_and_check(reader);
    }
    vex_snapshot_close(reader->noise);
    vex_snapshot_close(reader->snapshot);
    vex_collection_close(reader->collection);
    if (!turn->common) {
        vex_close(reader->db);
    }
    free(reader);
}

/* ---- one turn -------------------------------------------------------------------------------- */

struct member {
    const struct turn *turn;
    unsigned number; /* READERS = the writer */
    pthread_t thread;
    pid_t child;
};

static void *work(void *argument)
{
    const struct member *member = argument;
    if (member->number == READERS) {
        write_until_the_end(member->turn);
    } else {
        read_until_the_end(member->turn, member->number);
    }
    return NULL;
}

/* The collection of the turn exists before anybody starts; its LSN is the base of all others. */
static void begin_turn(const struct turn *turn)
{
    struct vex_db *db = vex_fixture_open(turn->fixture);
    vex_collection_close(
        vex_fixture_collection(db, vex_metric_name(turn->metric), DIM, turn->metric));
    struct vex_stats stats = {.size = sizeof(stats)};
    struct vex_error error;
    must(vex_get_stats(db, &stats, &error), &error, "stats");
    vex_close(db);
    shared->first_lsn = stats.lsn + 1;
    atomic_store(&shared->sent, stats.lsn);
    atomic_store(&shared->acknowledged, stats.lsn);
    atomic_store(&shared->writer_done, false);
    atomic_store(&shared->noise_number, 0);
}

static void end_turn(const struct turn *turn)
{
    struct vex_db *db = vex_fixture_open(turn->fixture);
    struct vex_error error;
    must(vex_collection_drop(db, vex_metric_name(turn->metric), &error), &error, "drop");
    vex_close(db);
}

static int take_turn(struct turn *turn, bool as_threads)
{
    struct member members[READERS + 1];
    int result = 0;
    begin_turn(turn);
    turn->common = as_threads ? vex_fixture_open(turn->fixture) : NULL;
    for (unsigned i = 0; i <= READERS; i++) {
        members[i] = (struct member){.turn = turn, .number = i};
        if (as_threads) {
            if (pthread_create(&members[i].thread, NULL, work, &members[i]) != 0) {
                give_up("no thread");
            }
        } else if ((members[i].child = vex_fixture_fork()) == 0) {
            (void)work(&members[i]);
            _exit(0);
        }
    }
    for (unsigned i = 0; i <= READERS; i++) {
        if (as_threads) {
            (void)pthread_join(members[i].thread, NULL);
        } else if (vex_fixture_await(members[i].child, 600000) != 0) {
            fprintf(stderr, "test_live: %s %u failed\n", i < READERS ? "reader" : "writer", i);
            result = 1;
        }
    }
    vex_close(turn->common);
    if (result == 0) {
        end_turn(turn);
    }
    return result;
}

/* ---- the program ----------------------------------------------------------------------------- */

static unsigned long long total(const _Atomic uint64_t *counter)
{
    return (unsigned long long)atomic_load(counter);
}

int main(int count, char **words)
{
    static const struct option known[] = {
        {"seconds", required_argument, NULL, 's'},
        {"threads", no_argument, NULL, 't'},
        {NULL, 0, NULL, 0},
    };
    unsigned long seconds = 10;
    bool as_threads = false;
    int option;
    while ((option = getopt_long(count, words, "", known, NULL)) != -1) {
        switch (option) {
        case 's':
            seconds = strtoul(optarg, NULL, 10);
            break;
        case 't':
            as_threads = true;
            break;
        default:
            fprintf(stderr, "usage: test_live [--seconds N] [--threads]\n");
            return 2;
        }
    }
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (shared == MAP_FAILED) {
        perror("test_live: shared memory");
        return 1;
    }
    uint64_t seed = vex_random_announce("test_live");
    make_vectors(seed);
    struct vex_fixture fixture;
    vex_fixture_init(&fixture);
    /* Checkpoints and merges all the time. */
    static const char *const options[] = {"--log-file-mib=1", "--checkpoint-mib=1", NULL};
    vex_fixture_start(&fixture, options);
    int result = 0;
    for (int metric = VEX_METRIC_L2; metric <= VEX_METRIC_DOT && result == 0; metric++) {
        struct turn turn = {
            .fixture = &fixture,
            .metric = (enum vex_metric)metric,
            .seed = seed + (uint64_t)metric,
            .end_ms = vex_fixture_now_ms() + seconds * 1000 / 3,
        };
        result = take_turn(&turn, as_threads);
    }
    result |= vex_fixture_deinit(&fixture);
    const struct counts *counts = &shared->counts;
    printf(
        "test_live: %s in %lu s: %llu searches of %d %s (%llu queries, %llu searches of kept "
        "snapshots, %llu with min_lsn), %llu gets, %llu looks at dropped collections, %llu writes "
        "(%llu items)\n",
        result ? "FAILED" : "all answers right", seconds, total(&counts->searches), READERS,
        as_threads ? "threads" : "processes", total(&counts->queries), total(&counts->of_snapshots),
        total(&counts->with_min_lsn), total(&counts->gets), total(&counts->of_dropped),
        total(&counts->writes), total(&counts->items));
    return result;
}
