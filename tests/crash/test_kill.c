/*
 * kill -9 under load, again and again, on one and the same directory: whatever was acknowledged is
 * there afterwards, byte for byte, whatever was refused is not, and what was on its way is there as a
 * whole or not at all.
 *
 * Four threads write, each with its own handle and its own ids: inserts, upserts, updates and
 * deletes, single and in batches, with and without payloads. A fifth one makes, fills, alters and drops
 * collections. Each keeps a model of what is acknowledged and remembers the one call that is on its
 * way. At a random moment the daemon is killed, sometimes it is stopped in order instead, sometimes
 * the next one is killed while it starts, too. Then every id of every range is read and compared: with
 * the model, or, if that call's outcome was unknown, with the model after that call. Log files are
 * small, so that kills meet their switching.
 *
 * What this cannot see is power failure: the page cache survives a killed process. That is for the
 * tests with a simulated disk.
 *
 * test_kill [--cycles N]
 */
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/fixture.h"
#include "tests/lib/random.h"

#define WRITERS 4u
#define IDS_EACH 150u
#define DIM 24u
#define BATCH_MAX 25u
#define PAYLOAD_MAX 6000u
#define KILL_WITHIN_US 200000u
#define NAME "points"

/* ---- the model ------------------------------------------------------------------------------- */

/* A row is known by two numbers, from which its bytes are made. */
struct row {
    uint32_t vector;  /* 0 = the id is not there */
    uint32_t payload; /* 0 = none */
};

struct call {
    enum vex_write_kind kind;
    uint32_t count;
    uint64_t ids[BATCH_MAX];
    struct row rows[BATCH_MAX]; /* payload 0 = none given */
};

enum fate { FATE_DONE, FATE_UNKNOWN };

struct writer {
    unsigned number;
    struct vex_random random;
    struct vex_db *db;
    struct vex_collection *collection;
    struct row rows[IDS_EACH]; /* acknowledged */
    struct call call;          /* of unknown outcome, if fate says so */
    enum fate fate;
    uint32_t last_number;
    pthread_t thread;
};

enum admin_step { ADMIN_CREATE, ADMIN_INSERT, ADMIN_ALTER, ADMIN_DROP };

struct admin {
    struct vex_random random;
    struct vex_db *db;
    struct vex_collection *collection;
    bool there;
    uint64_t rows;
    uint32_t ef;      /* ef_construction that is asked for */
    uint32_t next_ef; /* by the alter on its way */
    unsigned name_number;
    enum admin_step step;
    enum fate fate;
    pthread_t thread;
};

static struct {
    struct vex_fixture fixture;
    struct writer writers[WRITERS];
    struct admin admin;
    _Atomic bool ending; /* from here on calls may fail */
    _Atomic uint64_t acknowledged;
    _Atomic uint64_t items;
    uint64_t unknown_done;
    uint64_t unknown_not_done;
    uint64_t torn_tails;
    uint64_t log_file_bytes;
} run;

__attribute__((format(printf, 1, 2))) static _Noreturn void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "test_kill: ");
    (void)vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    _exit(1);
}

static void vector_of(uint32_t number, float *out)
{
    for (uint32_t d = 0; d < DIM; d++) {
        out[d] = (float)number + (float)d / 32;
    }
}

/* Sizes from nothing to several blocks of the log. */
static size_t payload_of(uint32_t number, uint8_t *out)
{
    size_t bytes = number % 7 == 0 ? 0 : number % 50 == 1 ? PAYLOAD_MAX : number % 300;
    for (size_t i = 0; i < bytes; i++) {
        out[i] = (uint8_t)(number * 13u + i);
    }
    return bytes;
}

static void apply(struct writer *writer, struct row *rows, const struct call *call)
{
    for (uint32_t i = 0; i < call->count; i++) {
        struct row *row = &rows[call->ids[i] - writer->number * IDS_EACH];
        if (call->kind == VEX_WRITE_DELETE) {
            *row = (struct row){0, 0};
            continue;
        }
        row->vector = call->rows[i].vector;
        if (call->kind != VEX_WRITE_UPDATE || call->rows[i].payload) {
            row->payload = call->rows[i].payload;
        }
    }
}

/* ---- writing --------------------------------------------------------------------------------- */

static bool is_among(const struct call *call, uint64_t id)
{
    for (uint32_t i = 0; i < call->count; i++) {
        if (call->ids[i] == id) {
            return true;
        }
    }
    return false;
}

static void choose_call(struct writer *writer, struct call *call)
{
    struct vex_random *random = &writer->random;
    call->kind = (enum vex_write_kind)(1 + vex_random_below(random, 4));
    call->count = 0;
    uint32_t wanted =
        vex_random_once_in(random, 2) ? 1 : 1 + (uint32_t)vex_random_below(random, BATCH_MAX);
    for (uint32_t attempt = 0; attempt < 4 * wanted && call->count < wanted; attempt++) {
        uint32_t place = (uint32_t)vex_random_below(random, IDS_EACH);
        uint64_t id = writer->number * IDS_EACH + place;
        bool there = writer->rows[place].vector != 0;
        bool suits = call->kind == VEX_WRITE_UPSERT || there == (call->kind != VEX_WRITE_INSERT);
        bool unique = call->kind == VEX_WRITE_INSERT || call->kind == VEX_WRITE_DELETE;
        if (!suits || (unique && is_among(call, id))) {
            continue;
        }
        uint32_t number = ++writer->last_number;
        uint32_t payload = vex_random_once_in(random, 3) ? 0 : number;
        call->ids[call->count] = id;
        call->rows[call->count++] = (struct row){number, payload};
    }
}

static enum vex_status send_call(struct writer *writer, const struct call *call,
                                 struct vex_error *error)
{
    static _Thread_local float vectors[BATCH_MAX][DIM];
    static _Thread_local uint8_t bytes[BATCH_MAX][PAYLOAD_MAX];
    const void *payloads[BATCH_MAX];
    size_t payload_bytes[BATCH_MAX];
    for (uint32_t i = 0; i < call->count; i++) {
        vector_of(call->rows[i].vector, vectors[i]);
        payloads[i] = call->rows[i].payload ? bytes[i] : NULL;
        payload_bytes[i] = call->rows[i].payload ? payload_of(call->rows[i].payload, bytes[i]) : 0;
    }
    bool is_delete = call->kind == VEX_WRITE_DELETE;
    struct vex_batch batch = VEX_BATCH_INIT;
    batch.count = call->count;
    batch.ids = call->ids;
    batch.vectors = is_delete ? NULL : vectors[0];
    batch.dim = is_delete ? 0 : DIM;
    batch.payloads = is_delete ? NULL : payloads;
    batch.payload_bytes = is_delete ? NULL : payload_bytes;
    return vex_write(writer->collection, call->kind, &batch, NULL, error);
}

/* What a failed call means. Only the end of the daemon is an excuse. */
static enum fate fate_of(enum vex_status status, const struct vex_error *error, const char *who)
{
    if (!atomic_load(&run.ending)) {
        fail("%s: %s: %s, but nobody had killed the daemon", who, vex_status_name(status),
             error->message);
    }
    if (status != VEX_ERR_UNKNOWN_OUTCOME && status != VEX_ERR_UNAVAILABLE) {
        fail("%s: %s: %s", who, vex_status_name(status), error->message);
    }
    /* UNAVAILABLE promises that nothing has changed. */
    return status == VEX_ERR_UNKNOWN_OUTCOME ? FATE_UNKNOWN : FATE_DONE;
}

static void *write_until_the_end(void *argument)
{
    struct writer *writer = argument;
    writer->fate = FATE_DONE;
    for (;;) {
        struct vex_error error = {0};
        choose_call(writer, &writer->call);
        if (writer->call.count == 0) {
            continue;
        }
        enum vex_status status = send_call(writer, &writer->call, &error);
        if (status != VEX_OK) {
            writer->fate = fate_of(status, &error, "write");
            return NULL;
        }
        apply(writer, writer->rows, &writer->call);
        (void)atomic_fetch_add(&run.acknowledged, 1);
        (void)atomic_fetch_add(&run.items, writer->call.count);
    }
}

static void admin_name(const struct admin *admin, char *out)
{
    (void)snprintf(out, VEX_NAME_MAX, "temporary%u", admin->name_number);
}

/* Kind, M and ef_construction follow from one number, so that a mixture shows. */
static struct vex_alter_options alter_to(uint32_t ef)
{
    static const enum vex_index_kind kinds[] = {VEX_INDEX_AUTO, VEX_INDEX_FLAT, VEX_INDEX_HNSW};
    struct vex_alter_options options = VEX_ALTER_OPTIONS_INIT;
    options.changes = VEX_ALTER_INDEX | VEX_ALTER_M | VEX_ALTER_EF_CONSTRUCTION;
    options.index = kinds[ef % 3];
    options.m = VEX_HNSW_M_MIN + ef % 50;
    options.ef_construction = ef;
    return options;
}

/* What the collection is made with suits the same rule. */
#define EF_AT_FIRST 100u

static enum vex_status take_admin_step(struct admin *admin, struct vex_error *error)
{
    char name[VEX_NAME_MAX + 1];
    admin_name(admin, name);
    float vector[DIM];
    vector_of((uint32_t)admin->rows, vector);
    struct vex_collection_options options = VEX_COLLECTION_OPTIONS_INIT;
    options.dim = DIM;
    struct vex_alter_options asked = alter_to(EF_AT_FIRST);
    options.index = asked.index;
    options.m = asked.m;
    options.ef_construction = asked.ef_construction;
    struct vex_ack ack = VEX_ACK_INIT;
    enum vex_status status;
    switch (admin->step) {
    case ADMIN_CREATE:
        return vex_collection_create(admin->db, name, &options, error);
    case ADMIN_INSERT:
        if (!admin->collection &&
            vex_collection_open(admin->db, name, &admin->collection, error) != VEX_OK) {
            return VEX_ERR_UNAVAILABLE;
        }
        status = vex_insert(admin->collection, NULL, vector, DIM, NULL, 0, &ack, error);
        if (status == VEX_OK && ack.first_id != admin->rows) {
            fail("%s: row %llu got id %llu", name, (unsigned long long)admin->rows,
                 (unsigned long long)ack.first_id);
        }
        return status;
    case ADMIN_ALTER:
        asked = alter_to(admin->next_ef);
        return vex_collection_alter(admin->db, name, &asked, error);
    case ADMIN_DROP:
        break;
    }
    vex_collection_close(admin->collection);
    admin->collection = NULL;
    return vex_collection_drop(admin->db, name, error);
}

static void admin_step_done(struct admin *admin)
{
    admin->there = admin->step != ADMIN_DROP;
    if (admin->step == ADMIN_ALTER) {
        admin->ef = admin->next_ef;
        return;
    }
    admin->rows = admin->step == ADMIN_INSERT ? admin->rows + 1 : 0;
    admin->ef = admin->step == ADMIN_CREATE ? EF_AT_FIRST : admin->ef;
    admin->name_number += admin->step == ADMIN_DROP;
}

static void *administrate_until_the_end(void *argument)
{
    struct admin *admin = argument;
    admin->fate = FATE_DONE;
    for (;;) {
        struct vex_error error = {0};
        admin->step = !admin->there                           ? ADMIN_CREATE
                      : vex_random_once_in(&admin->random, 6) ? ADMIN_DROP
                      : vex_random_once_in(&admin->random, 3) ? ADMIN_ALTER
                                                              : ADMIN_INSERT;
        admin->next_ef =
            VEX_HNSW_EF_CONSTRUCTION_MIN + (uint32_t)vex_random_below(&admin->random, 4000);
        enum vex_status status = take_admin_step(admin, &error);
        if (status != VEX_OK) {
            admin->fate = fate_of(status, &error, "administration");
            return NULL;
        }
        admin_step_done(admin);
        (void)atomic_fetch_add(&run.acknowledged, 1);
    }
}

/* ---- checking -------------------------------------------------------------------------------- */

/* True if the id holds exactly this. */
static bool holds(struct vex_collection *collection, uint64_t id, const struct row *row)
{
    static uint8_t got[PAYLOAD_MAX];
    static uint8_t bytes[PAYLOAD_MAX];
    float vector[DIM];
    float wanted[DIM];
    struct vex_record record = {.size = sizeof(record)};
    struct vex_error error;
    enum vex_status status =
        vex_get(collection, id, NULL, vector, DIM, got, sizeof(got), &record, &error);
    if (status == VEX_ERR_NOT_FOUND || row->vector == 0) {
        return status == VEX_ERR_NOT_FOUND && row->vector == 0;
    }
    if (status != VEX_OK) {
        fail("id %llu: %s: %s", (unsigned long long)id, vex_status_name(status), error.message);
    }
    vector_of(row->vector, wanted);
    size_t payload_bytes = row->payload ? payload_of(row->payload, bytes) : 0;
    return memcmp(vector, wanted, sizeof(vector)) == 0 &&
           (record.payload != NULL) == (row->payload != 0) &&
           record.payload_bytes == payload_bytes && memcmp(got, bytes, payload_bytes) == 0;
}

/* The first id that differs from `rows`, or UINT64_MAX. */
static uint64_t first_difference(struct vex_collection *collection, const struct writer *writer,
                                 const struct row *rows)
{
    for (uint32_t i = 0; i < IDS_EACH; i++) {
        uint64_t id = writer->number * IDS_EACH + i;
        if (!holds(collection, id, &rows[i])) {
            return id;
        }
    }
    return UINT64_MAX;
}

/* Decides what became of the call on its way, and checks that it happened as a whole or not. */
static void check_writer(struct vex_collection *collection, struct writer *writer)
{
    uint64_t difference = first_difference(collection, writer, writer->rows);
    if (writer->fate == FATE_DONE) {
        if (difference != UINT64_MAX) {
            fail("id %llu is not as it was acknowledged", (unsigned long long)difference);
        }
        return;
    }
    writer->fate = FATE_DONE;
    if (difference == UINT64_MAX) {
        run.unknown_not_done++;
        return;
    }
    struct row after[IDS_EACH];
    memcpy(after, writer->rows, sizeof(after));
    apply(writer, after, &writer->call);
    uint64_t second = first_difference(collection, writer, after);
    if (second != UINT64_MAX) {
        fail("a batch of kind %d with %u items is half there: id %llu is not as before it, id %llu "
             "not as after it",
             (int)writer->call.kind, writer->call.count, (unsigned long long)difference,
             (unsigned long long)second);
    }
    memcpy(writer->rows, after, sizeof(after));
    run.unknown_done++;
}

/* The ef_construction asked for, with which all else must agree. */
static uint32_t asked_ef(struct vex_collection *collection)
{
    struct vex_error error;
    struct vex_collection_info info = {.size = sizeof(info)};
    if (vex_collection_describe(collection, &info, &error) != VEX_OK) {
        fail("describe: %s", error.message);
    }
    const struct vex_alter_options all = alter_to(info.ef_construction);
    if (info.index != all.index || info.m != all.m) {
        fail("%s is altered by half: index %s, M %u, ef_construction %u", info.name,
             vex_index_name(info.index), info.m, info.ef_construction);
    }
    return info.ef_construction;
}

static void check_admin(struct vex_db *db, struct admin *admin)
{
    char name[VEX_NAME_MAX + 1];
    struct vex_error error;
    struct vex_collection *collection = NULL;
    uint64_t rows = 0;
    admin_name(admin, name);
    bool there = vex_collection_open(db, name, &collection, &error) == VEX_OK;
    if (there && vex_count(collection, NULL, &rows, &error) != VEX_OK) {
        fail("%s: %s", name, error.message);
    }
    uint32_t ef = there ? asked_ef(collection) : 0;
    vex_collection_close(collection);
    bool as_before = there == admin->there && rows == admin->rows && (!there || ef == admin->ef);
    if (admin->fate == FATE_UNKNOWN) {
        struct admin after = *admin;
        admin_step_done(&after);
        bool as_after = there == after.there && rows == after.rows && (!there || ef == after.ef);
        run.unknown_done += !as_before && as_after;
        run.unknown_not_done += as_before;
        if (!as_before && as_after) {
            admin_step_done(admin);
            as_before = true;
        }
        admin->fate = FATE_DONE;
    }
    if (!as_before) {
        fail("%s: %s with %llu rows and ef_construction %u, should be %s with %llu and %u", name,
             there ? "there" : "not there", (unsigned long long)rows, ef,
             admin->there ? "there" : "not there", (unsigned long long)admin->rows, admin->ef);
    }
    size_t count = 0;
    if (vex_collection_list(db, NULL, 0, &count, &error) != VEX_OK || count != 1u + admin->there) {
        fail("%zu collections instead of %u", count, 1u + admin->there);
    }
}

static void check_everything(void)
{
    struct vex_db *db = vex_fixture_open(&run.fixture);
    struct vex_collection *collection = vex_fixture_collection(db, NAME, DIM, VEX_METRIC_L2);
    uint64_t expected = 0;
    for (unsigned i = 0; i < WRITERS; i++) {
        check_writer(collection, &run.writers[i]);
        for (uint32_t j = 0; j < IDS_EACH; j++) {
            expected += run.writers[i].rows[j].vector != 0;
        }
    }
    check_admin(db, &run.admin);
    uint64_t count = 0;
    struct vex_error error;
    struct vex_stats stats = {.size = sizeof(stats)};
    if (vex_count(collection, NULL, &count, &error) != VEX_OK ||
        vex_get_stats(db, &stats, &error) != VEX_OK) {
        fail("%s", error.message);
    }
    if (count != expected || stats.live_rows != expected + run.admin.rows) {
        fail("%llu rows counted (%llu in all), %llu expected", (unsigned long long)count,
             (unsigned long long)stats.live_rows, (unsigned long long)expected);
    }
    run.torn_tails += stats.torn_tails;
    run.log_file_bytes = stats.log_file_bytes;
    vex_collection_close(collection);
    vex_close(db);
}

/* ---- cycles ---------------------------------------------------------------------------------- */

static void start_threads(void)
{
    atomic_store(&run.ending, false);
    for (unsigned i = 0; i < WRITERS; i++) {
        if (pthread_create(&run.writers[i].thread, NULL, write_until_the_end, &run.writers[i])) {
            fail("no thread");
        }
    }
    if (pthread_create(&run.admin.thread, NULL, administrate_until_the_end, &run.admin)) {
        fail("no thread");
    }
}

static void join_threads(void)
{
    for (unsigned i = 0; i < WRITERS; i++) {
        (void)pthread_join(run.writers[i].thread, NULL);
    }
    (void)pthread_join(run.admin.thread, NULL);
}

static void open_handles(uint64_t seed)
{
    for (unsigned i = 0; i < WRITERS; i++) {
        struct writer *writer = &run.writers[i];
        writer->number = i;
        writer->random = vex_random_seeded(seed + i);
        writer->db = vex_fixture_open(&run.fixture);
        writer->collection = vex_fixture_collection(writer->db, NAME, DIM, VEX_METRIC_L2);
    }
    run.admin.random = vex_random_seeded(seed + WRITERS);
    run.admin.db = vex_fixture_open(&run.fixture);
}

static void close_handles(void)
{
    for (unsigned i = 0; i < WRITERS; i++) {
        vex_collection_close(run.writers[i].collection);
        vex_close(run.writers[i].db);
    }
    vex_collection_close(run.admin.collection);
    vex_close(run.admin.db);
}

static void one_cycle(struct vex_random *random, const char *const *words)
{
    start_threads();
    (void)usleep((useconds_t)vex_random_below(random, KILL_WITHIN_US));
    atomic_store(&run.ending, true);
    if (vex_random_once_in(random, 8)) {
        int code = vex_fixture_stop(&run.fixture);
        if (code != 0) {
            fail("vexd ended with %d when asked to stop", code);
        }
    } else if (vex_fixture_kill(&run.fixture) != -SIGKILL) {
        fail("vexd had ended before it was killed; see its diagnostics");
    }
    join_threads();
    while (vex_random_once_in(random, 4)) {
        vex_fixture_start_and_kill(&run.fixture, words, (uint32_t)vex_random_below(random, 30000));
    }
    vex_fixture_start(&run.fixture, words);
    check_everything();
}

int main(int count, char **arguments)
{
    static const struct option known[] = {{"cycles", required_argument, NULL, 'c'},
                                          {NULL, 0, NULL, 0}};
    static const char *const words[] = {"--log-file-mib=1", "--checkpoint-mib=1", NULL};
    unsigned long cycles = 25;
    int option;
    while ((option = getopt_long(count, arguments, "", known, NULL)) != -1) {
        if (option != 'c') {
            fprintf(stderr, "usage: test_kill [--cycles N]\n");
            return 2;
        }
        cycles = strtoul(optarg, NULL, 10);
    }
    uint64_t seed = vex_random_announce("test_kill");
    struct vex_random random = vex_random_seeded(seed);
    vex_fixture_init(&run.fixture);
    vex_fixture_start(&run.fixture, words);
    open_handles(seed);
    struct vex_stats stats = {.size = sizeof(stats)};
    if (vex_get_stats(run.admin.db, &stats, NULL) != VEX_OK) {
        fail("no statistics");
    }
    for (unsigned long cycle = 0; cycle < cycles; cycle++) {
        one_cycle(&random, words);
    }
    close_handles();
    int result = vex_fixture_deinit(&run.fixture);
    printf("test_kill: %lu cycles on %s: %llu acknowledged writes (%llu items) all there; unknown "
           "outcomes: %llu had happened, %llu had not; %llu torn tails; %llu MiB of log files\n",
           cycles, stats.io_backend, (unsigned long long)atomic_load(&run.acknowledged),
           (unsigned long long)atomic_load(&run.items), (unsigned long long)run.unknown_done,
           (unsigned long long)run.unknown_not_done, (unsigned long long)run.torn_tails,
           (unsigned long long)run.log_file_bytes >> 20);
    return result;
}
