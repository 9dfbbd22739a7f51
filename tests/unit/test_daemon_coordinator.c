/*
 * The coordinator in this process: what it accepts, what it refuses without a trace, what it publishes
 * when, and what is there after a restart.
 *
 * What readers see is read here as a client would: by name, through the control region, the list of
 * segments and the segments, with nothing of the daemon's own knowledge. It is compared with a model, a
 * table of ids, that gets the same mutations.
 *
 * What may end the daemon by one of its assertions runs in a child, so that the others still run.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/error.h"
#include "daemon/coordinator.h"
#include "index/index.h"
#include "shm/control.h"
#include "shm/region.h"
#include "tests/lib/child.h"
#include "tests/lib/random.h"
#include "tests/lib/temp_dir.h"

#define COUNT_OF(array) (sizeof(array) / sizeof(*(array)))

static uint64_t seed;

/* ---- an instance ----------------------------------------------------------------------------- */

struct instance {
    struct vex_temp_dir directory;
    struct vex_coordinator *coordinator;
    uint8_t key[VEX_UUID_BYTES];
};

static const struct vex_coordinator_options options = {
    .io_backend = NULL, .log_file_bytes_min = 64 * 1024, .log_file_bytes_max = 1024 * 1024};

static void start(struct instance *instance)
{
    struct vex_error error = {.status = VEX_OK};
    enum vex_status status =
        vex_coordinator_open(instance->directory.fd, &options, &instance->coordinator, &error);
    if (status != VEX_OK) {
        fail_msg("open: %s: %s", vex_base_status_name(status), error.message);
    }
    memcpy(instance->key, vex_coordinator_key(instance->coordinator), VEX_UUID_BYTES);
}

static void stop(struct instance *instance)
{
    vex_coordinator_close(instance->coordinator);
    instance->coordinator = NULL;
}

static void restart(struct instance *instance)
{
    stop(instance);
    start(instance);
}

static struct instance *current;

/* An assertion of the daemon ends this program; what it made in memory and on disk goes first. Children
 * have no such handler. */
static void clean_up_and_abort(int number)
{
    if (current) {
        vex_region_unlink_all(current->key);
        vex_temp_dir_remove(&current->directory);
    }
    (void)signal(number, SIG_DFL);
    (void)raise(number);
}

static int make_instance(void **state)
{
    struct instance *instance = calloc(1, sizeof(*instance));
    assert_non_null(instance);
    vex_temp_dir_make(&instance->directory);
    assert_int_equal(fchdir(instance->directory.fd), 0);
    *state = instance;
    current = instance;
    start(instance);
    return 0;
}

static int remove_instance(void **state)
{
    struct instance *instance = *state;
    stop(instance);
    current = NULL;
    vex_region_unlink_all(instance->key);
    assert_int_equal(chdir("/"), 0);
    vex_temp_dir_remove(&instance->directory);
    free(instance);
    return 0;
}

/* Makes everything staged durable and published. */
static void settle(struct instance *instance)
{
    while (!vex_coordinator_idle(instance->coordinator)) {
        (void)vex_coordinator_commit(instance->coordinator);
        (void)vex_coordinator_poll(instance->coordinator, true);
        assert_int_equal(vex_coordinator_failure(instance->coordinator), 0);
    }
}

/* ---- mutations ------------------------------------------------------------------------------- */

static enum vex_status create(struct instance *instance, const char *name, uint32_t dim,
                              enum vex_metric metric, uint32_t *out_id, struct vex_error *error)
{
    struct vex_create_body body = {.dim = dim, .metric = metric};
    memcpy(body.name, name, strnlen(name, sizeof(body.name)));
    struct vex_ack_body ack = {0};
    enum vex_status status = vex_coordinator_create(instance->coordinator, &body, &ack, error);
    if (status == VEX_OK) {
        assert_int_equal(ack.count, 1);
        assert_true(ack.lsn > 0);
        *out_id = (uint32_t)ack.first_id;
    }
    return status;
}

static uint32_t make_collection(struct instance *instance, const char *name, uint32_t dim,
                                enum vex_metric metric)
{
    uint32_t id = 0;
    assert_int_equal(create(instance, name, dim, metric, &id, NULL), VEX_OK);
    assert_true(id > 0);
    return id;
}

static enum vex_status drop(struct instance *instance, const char *name, struct vex_error *error)
{
    struct vex_drop_body body = {0};
    memcpy(body.name, name, strnlen(name, sizeof(body.name)));
    struct vex_ack_body ack;
    return vex_coordinator_drop(instance->coordinator, &body, &ack, error);
}

/* A write as libvex encodes it. */
static enum vex_status write_items(struct instance *instance, const struct vex_write_input *input,
                                   struct vex_ack_body *out_ack, struct vex_error *error)
{
    struct vex_buffer buffer = {0};
    assert_true(vex_write_encode(&buffer, input));
    enum vex_status status =
        vex_coordinator_write(instance->coordinator, buffer.data, buffer.bytes, out_ack, error);
    if (status == VEX_ERR_BUSY) {
        settle(instance);
        status =
            vex_coordinator_write(instance->coordinator, buffer.data, buffer.bytes, out_ack, error);
    }
    vex_buffer_deinit(&buffer);
    return status;
}

#define ITEMS_MAX 16u
#define DIM 4u

/* One item of a batch: the vector is (value, id's low bits, 1, 2). */
struct item {
    uint64_t id;
    float value;
    const char *payload; /* NULL = none */
};

static void vector_of(const struct item *item, float vector[DIM])
{
    vector[0] = item->value;
    vector[1] = (float)(item->id % 1000);
    vector[2] = 1;
    vector[3] = 2;
}

static enum vex_status put(struct instance *instance, uint32_t collection, enum vex_write_kind kind,
                           const struct item *items, uint32_t count, struct vex_ack_body *out_ack)
{
    uint64_t ids[ITEMS_MAX];
    float vectors[ITEMS_MAX][DIM];
    const void *payloads[ITEMS_MAX];
    size_t payload_bytes[ITEMS_MAX];
    bool any_payload = false;
    assert_true(count <= ITEMS_MAX);
    for (uint32_t i = 0; i < count; i++) {
        ids[i] = items[i].id;
        vector_of(&items[i], vectors[i]);
        payloads[i] = items[i].payload;
        payload_bytes[i] = items[i].payload ? strlen(items[i].payload) : 0;
        any_payload = any_payload || items[i].payload;
    }
    bool is_delete = kind == VEX_WRITE_DELETE;
    const struct vex_write_input input = {
        .collection_id = collection,
        .kind = kind,
        .count = count,
        .dim = is_delete ? 0 : DIM,
        .ids = ids,
        .vectors = is_delete ? NULL : vectors[0],
        .payloads = is_delete || !any_payload ? NULL : payloads,
        .payload_bytes = payload_bytes,
    };
    struct vex_ack_body ack = {0};
    struct vex_error error = {.status = VEX_OK};
    enum vex_status status = write_items(instance, &input, &ack, &error);
    if (status == VEX_OK) {
        assert_int_equal(ack.count, count);
        assert_int_equal(ack.first_id, items[0].id);
    } else {
        assert_int_equal(error.status, status);
        assert_true(error.message[0] != 0);
    }
    if (out_ack) {
        *out_ack = ack;
    }
    return status;
}

static enum vex_status put_one(struct instance *instance, uint32_t collection,
                               enum vex_write_kind kind, uint64_t id, float value,
                               const char *payload)
{
    const struct item item = {id, value, payload};
    return put(instance, collection, kind, &item, 1, NULL);
}

/* ---- reading as a client --------------------------------------------------------------------- */

struct reader {
    struct vex_region control;
    uint64_t published_lsn;
    bool found;
    struct vex_collection_facts facts;
    struct vex_view_state state;
    struct vex_region regions[VEX_LIST_SEGMENTS_MAX];
    struct vex_segment segments[VEX_LIST_SEGMENTS_MAX];
    struct vex_view_segment parts[VEX_LIST_SEGMENTS_MAX];
    struct vex_view view;
};

static void open_segments(struct reader *reader, const uint8_t *key)
{
    struct vex_list_block list;
    assert_true(vex_control_list(reader->control.memory, reader->state.list_block,
                                 reader->state.list_id, &list));
    for (uint32_t i = 0; i < list.segments_count; i++) {
        char name[VEX_REGION_NAME_MAX];
        vex_region_segment_name(name, key, list.segments[i].segment_id);
        assert_int_equal(vex_region_open(&reader->regions[i], name, false, NULL), VEX_OK);
        struct vex_segment *segment = &reader->segments[i];
        assert_int_equal(
            vex_segment_attach(segment, reader->regions[i].memory, reader->regions[i].bytes, NULL),
            VEX_OK);
        assert_int_equal(segment->segment_id, list.segments[i].segment_id);
        assert_int_equal(segment->collection_id, reader->facts.id);
        assert_int_equal(segment->dim, reader->facts.dim);
        bool is_last = i + 1 == list.segments_count;
        uint32_t rows = is_last ? reader->state.tail_rows : list.segments[i].rows;
        assert_true(rows <= segment->capacity_rows);
        reader->parts[i] = (struct vex_view_segment){segment, rows};
    }
    reader->view.segments_count = list.segments_count;
}

/* Maps what is published of the collection of that name. */
static struct reader *open_reader(const struct instance *instance, const char *collection)
{
    struct reader *reader = calloc(1, sizeof(*reader));
    assert_non_null(reader);
    char name[VEX_REGION_NAME_MAX];
    vex_region_control_name(name, instance->key);
    assert_int_equal(vex_region_open(&reader->control, name, false, NULL), VEX_OK);
    const void *control = reader->control.memory;
    assert_int_equal(vex_control_check(control, reader->control.bytes, instance->key, NULL),
                     VEX_OK);
    reader->published_lsn = vex_control_published_lsn(control);
    for (uint32_t slot = 0; slot < VEX_PLACES_MAX && !reader->found; slot++) {
        if (vex_control_collection(control, slot, &reader->facts) &&
            strcmp(reader->facts.name, collection) == 0) {
            reader->found = true;
            assert_int_equal(vex_control_view(control, slot, reader->facts.id, &reader->state),
                             VEX_OK);
        }
    }
    reader->view.segments = reader->parts;
    reader->view.dim = reader->facts.dim;
    reader->view.metric = reader->facts.metric;
    reader->view.lsn = reader->state.lsn;
    if (reader->found && reader->state.list_id != 0) {
        open_segments(reader, instance->key);
    }
    return reader;
}

static void close_reader(struct reader *reader)
{
    for (uint32_t i = 0; i < reader->view.segments_count; i++) {
        vex_region_close(&reader->regions[i]);
    }
    vex_region_close(&reader->control);
    free(reader);
}

/* The living row of an id, or NULL. */
static const float *look_up(const struct reader *reader, uint64_t id, const void **out_payload,
                            size_t *out_bytes)
{
    uint32_t part = 0;
    uint32_t row = 0;
    if (!vex_view_find(&reader->view, id, &part, &row)) {
        return NULL;
    }
    assert_true(vex_segment_payload(&reader->segments[part], row, out_payload, out_bytes));
    return vex_segment_vector(&reader->segments[part], row);
}

static void assert_absent(const struct reader *reader, uint64_t id)
{
    const void *payload;
    size_t bytes;
    assert_null(look_up(reader, id, &payload, &bytes));
}

static void assert_item(const struct reader *reader, uint64_t id, float value, const char *payload)
{
    const void *got = NULL;
    size_t bytes = 0;
    const float *vector = look_up(reader, id, &got, &bytes);
    if (!vector) {
        fail_msg("id %llu is not there", (unsigned long long)id);
    }
    float expected[DIM];
    vector_of(&(struct item){id, value, NULL}, expected);
    assert_memory_equal(vector, expected, sizeof(expected));
    assert_int_equal(got != NULL, payload != NULL);
    if (payload) {
        assert_int_equal(bytes, strlen(payload));
        assert_true(bytes == 0 || memcmp(got, payload, bytes) == 0);
    }
}

/* One look: what is published under an id. */
static void expect_item(const struct instance *instance, uint64_t id, float value,
                        const char *payload)
{
    struct reader *reader = open_reader(instance, "c");
    assert_true(reader->found);
    assert_item(reader, id, value, payload);
    close_reader(reader);
}

static void expect_absent(const struct instance *instance, uint64_t id)
{
    struct reader *reader = open_reader(instance, "c");
    assert_true(reader->found);
    assert_absent(reader, id);
    close_reader(reader);
}

static uint64_t live_rows(const struct instance *instance)
{
    struct reader *reader = open_reader(instance, "c");
    assert_true(reader->found);
    uint64_t count = reader->state.live_rows;
    uint64_t found = 0;
    for (uint32_t i = 0; i < reader->view.segments_count; i++) {
        for (uint32_t row = 0; row < reader->parts[i].visible_rows; row++) {
            found += vex_segment_alive(&reader->segments[i], row, reader->view.lsn);
        }
    }
    assert_int_equal(count, found);
    close_reader(reader);
    return count;
}

/* ---- what a refusal leaves ------------------------------------------------------------------- */

/* Everything that a refused mutation could have changed. */
struct footprint {
    struct vex_stats_body stats;
    uint64_t live;
};

static uint64_t insert_auto(struct instance *instance, uint32_t collection, uint32_t count,
                            enum vex_status *out_status)
{
    float vectors[ITEMS_MAX * DIM];
    for (size_t i = 0; i < COUNT_OF(vectors); i++) {
        vectors[i] = (float)(i + 1);
    }
    const struct vex_write_input input = {
        .collection_id = collection,
        .kind = VEX_WRITE_INSERT,
        .count = count,
        .dim = DIM,
        .vectors = vectors,
    };
    struct vex_ack_body ack = {0};
    *out_status = write_items(instance, &input, &ack, NULL);
    return ack.first_id;
}

static struct vex_stats_body stats_of(const struct instance *instance)
{
    struct vex_stats_body stats;
    memset(&stats, 0, sizeof(stats));
    vex_coordinator_stats(instance->coordinator, &stats);
    stats.written_bytes = 0; /* the next log file is being prepared in the background */
    return stats;
}

static struct footprint footprint_of(struct instance *instance)
{
    settle(instance);
    return (struct footprint){.stats = stats_of(instance), .live = live_rows(instance)};
}

static void assert_no_trace(struct instance *instance, const struct footprint *before)
{
    assert_true(vex_coordinator_idle(instance->coordinator));
    assert_false(vex_coordinator_commit(instance->coordinator));
    struct vex_stats_body stats = stats_of(instance);
    assert_memory_equal(&stats, &before->stats, sizeof(stats));
    assert_int_equal(live_rows(instance), before->live);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void a_new_instance_is_ready_and_empty(void **state)
{
    struct instance *instance = *state;
    struct reader *reader = open_reader(instance, "c");
    assert_false(reader->found);
    assert_int_equal(reader->published_lsn, 0);
    assert_int_equal(vex_control_state(reader->control.memory), VEX_DAEMON_RUNNING);
    close_reader(reader);
    assert_true(vex_coordinator_idle(instance->coordinator));
    assert_false(vex_coordinator_commit(instance->coordinator));
    assert_false(vex_coordinator_poll(instance->coordinator, true));
    assert_false(vex_coordinator_has_retired(instance->coordinator));
    assert_int_equal(vex_coordinator_durable_lsn(instance->coordinator), 0);
}

static void closing_no_coordinator_is_fine(void **state)
{
    (void)state;
    vex_coordinator_close(NULL);
}

static void closing_marks_the_memory_gone_and_takes_its_names(void **state)
{
    struct instance *instance = *state;
    uint32_t c = make_collection(instance, "c", DIM, VEX_METRIC_L2);
    assert_int_equal(put_one(instance, c, VEX_WRITE_INSERT, 1, 1, NULL), VEX_OK);
    settle(instance);
    struct reader *reader = open_reader(instance, "c");
    stop(instance);
    /* A client that is still attached learns it, and can read on. */
    assert_int_equal(vex_control_state(reader->control.memory), VEX_DAEMON_GONE);
    assert_item(reader, 1, 1, NULL);
    char name[VEX_REGION_NAME_MAX];
    vex_region_control_name(name, instance->key);
    struct vex_region region;
    assert_int_equal(vex_region_open(&region, name, false, NULL), VEX_ERR_NOT_FOUND);
    assert_int_equal(vex_region_open(&region, reader->regions[0].name, false, NULL),
                     VEX_ERR_NOT_FOUND);
    close_reader(reader);
    start(instance);
    expect_item(instance, 1, 1, NULL);
}

static void staged_records_are_committed_by_closing(void **state)
{
    struct instance *instance = *state;
    uint32_t c = make_collection(instance, "c", DIM, VEX_METRIC_L2);
    assert_int_equal(put_one(instance, c, VEX_WRITE_INSERT, 1, 1, "x"), VEX_OK);
    restart(instance);
    expect_item(instance, 1, 1, "x");
    assert_int_equal(vex_coordinator_durable_lsn(instance->coordinator), 2);
}

/* ---- nothing before it is durable ------------------------------------------------------------ */

static void nothing_is_published_before_it_is_durable(void **state)
{
    struct instance *instance = *state;
    uint32_t c = make_collection(instance, "c", DIM, VEX_METRIC_L2);
    struct reader *reader = open_reader(instance, "c");
    assert_false(reader->found);
    close_reader(reader);
    settle(instance);
    assert_int_equal(put_one(instance, c, VEX_WRITE_INSERT, 1, 10, "old"), VEX_OK);
    settle(instance);

    /* Three mutations of one batch: a new row, a replaced one, and its death. */
    uint64_t generation = vex_coordinator_generation(instance->coordinator);
    struct vex_ack_body ack;
    const struct item two = {2, 20, NULL};
    assert_int_equal(put(instance, c, VEX_WRITE_INSERT, &two, 1, &ack), VEX_OK);
    assert_int_equal(put_one(instance, c, VEX_WRITE_UPSERT, 1, 11, "new"), VEX_OK);
    for (int step = 0; step < 2; step++) {
        /* Staged, then submitted: the same for readers. */
        assert_true(vex_coordinator_durable_lsn(instance->coordinator) < ack.lsn);
        assert_int_equal(vex_coordinator_generation(instance->coordinator), generation);
        assert_int_equal(live_rows(instance), 1);
        expect_item(instance, 1, 10, "old");
        expect_absent(instance, 2);
        if (step == 0) {
            assert_true(vex_coordinator_commit(instance->coordinator));
        }
    }
    /* Staged behind the batch in flight: not part of what it will show. */
    assert_int_equal(put_one(instance, c, VEX_WRITE_DELETE, 2, 0, NULL), VEX_OK);
    assert_int_equal(put_one(instance, c, VEX_WRITE_INSERT, 3, 30, NULL), VEX_OK);
    assert_false(vex_coordinator_commit(instance->coordinator));
    assert_true(vex_coordinator_poll(instance->coordinator, true));
    assert_int_equal(vex_coordinator_durable_lsn(instance->coordinator), ack.lsn + 1);
    assert_true(vex_coordinator_generation(instance->coordinator) > generation);
    expect_item(instance, 1, 11, "new");
    expect_item(instance, 2, 20, NULL);
    expect_absent(instance, 3);
    assert_int_equal(live_rows(instance), 2);
    settle(instance);
    expect_absent(instance, 2);
    expect_item(instance, 3, 30, NULL);
    assert_int_equal(live_rows(instance), 2);
}

static enum vex_status alter(struct instance *instance, const char *name,
                             const struct vex_alter_body *asked, struct vex_error *error)
{
    struct vex_alter_body body = *asked;
    memcpy(body.name, name, strnlen(name, sizeof(body.name)));
    struct vex_ack_body ack;
    return vex_coordinator_alter(instance->coordinator, &body, &ack, error);
}

static void expect_m(const struct instance *instance, uint32_t m)
{
    struct reader *reader = open_reader(instance, "c");
    assert_true(reader->found);
    assert_int_equal(reader->facts.m, m);
    close_reader(reader);
}

static void another_index_is_published_when_it_is_durable(void **state)
{
    struct instance *instance = *state;
    const struct vex_alter_body to_20 = {.changes = VEX_CHANGES_M, .m = 20};
    const struct vex_alter_body to_30 = {.changes = VEX_CHANGES_M, .m = 30};
    const struct vex_alter_body back = {.changes = VEX_CHANGES_M};
    (void)make_collection(instance, "c", DIM, VEX_METRIC_L2);
    assert_true(vex_coordinator_commit(instance->coordinator));
    /* Behind the batch in flight, which shows the collection as it was created. */
    assert_int_equal(alter(instance, "c", &to_20, NULL), VEX_OK);
    assert_true(vex_coordinator_poll(instance->coordinator, true));
    expect_m(instance, VEX_HNSW_M_DEFAULT);
    assert_true(vex_coordinator_commit(instance->coordinator));
    assert_int_equal(alter(instance, "c", &to_30, NULL), VEX_OK);
    expect_m(instance, VEX_HNSW_M_DEFAULT);
    assert_true(vex_coordinator_poll(instance->coordinator, true));
    expect_m(instance, 20);
    settle(instance);
    expect_m(instance, 30);
    restart(instance);
    expect_m(instance, 30);
    assert_int_equal(alter(instance, "c", &back, NULL), VEX_OK);
    settle(instance);
    expect_m(instance, VEX_HNSW_M_DEFAULT);
}

static void an_alter_that_cannot_be_leaves_no_trace(void **state)
{
    struct instance *instance = *state;
    (void)make_collection(instance, "c", DIM, VEX_METRIC_L2);
    settle(instance);
    uint64_t lsn = vex_coordinator_staged_lsn(instance->coordinator);
    const struct {
        struct vex_alter_body body;
        const char *says;
    } cases[] = {
        {{.changes = 0, .m = 20}, "nothing to change"},
        {{.changes = VEX_CHANGES_ALL + 1}, "nothing known"},
        {{.changes = VEX_CHANGES_INDEX, .index = 4}, "unknown kind of index"},
        {{.changes = VEX_CHANGES_INDEX, .index = UINT32_MAX}, "unknown kind of index"},
        {{.changes = VEX_CHANGES_M, .m = VEX_HNSW_M_MAX + 1}, "M is not within"},
        {{.changes = VEX_CHANGES_EF_CONSTRUCTION, .ef_construction = 7}, "ef_construction is not"},
        {{.changes = VEX_CHANGES_LISTS, .lists = VEX_LISTS_MAX + 1}, "number of lists"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct vex_error error = {.status = VEX_OK};
        assert_int_equal(alter(instance, "c", &cases[i].body, &error), VEX_ERR_INVALID);
        assert_non_null(strstr(error.message, "alter c: "));
        assert_non_null(strstr(error.message, cases[i].says));
    }
    const struct vex_alter_body sound = {.changes = VEX_CHANGES_M, .m = 20};
    struct vex_error error = {.status = VEX_OK};
    assert_int_equal(alter(instance, "d", &sound, &error), VEX_ERR_NO_COLLECTION);
    struct vex_alter_body endless = sound;
    memset(endless.name, 'c', sizeof(endless.name));
    struct vex_ack_body ack;
    assert_int_equal(vex_coordinator_alter(instance->coordinator, &endless, &ack, &error),
                     VEX_ERR_NO_COLLECTION);
    assert_int_equal(vex_coordinator_staged_lsn(instance->coordinator), lsn);
    expect_m(instance, VEX_HNSW_M_DEFAULT);
}

/* Large enough to be submitted before its rows are made. */
static uint64_t insert_large(struct instance *instance, uint32_t collection, uint32_t count)
{
    float *vectors = calloc(count, DIM * sizeof(float));
    assert_non_null(vectors);
    const struct vex_write_input input = {
        .collection_id = collection,
        .kind = VEX_WRITE_INSERT,
        .count = count,
        .dim = DIM,
        .vectors = vectors,
    };
    struct vex_ack_body ack = {0};
    assert_int_equal(write_items(instance, &input, &ack, NULL), VEX_OK);
    assert_int_equal(ack.count, count);
    free(vectors);
    return ack.lsn;
}

static void a_large_write_shows_what_was_sealed_with_it_and_nothing_later(void **state)
{
    struct instance *instance = *state;
    const uint32_t large = 8192;
    uint32_t c = make_collection(instance, "c", DIM, VEX_METRIC_L2);
    assert_int_equal(put_one(instance, c, VEX_WRITE_INSERT, 1, 10, NULL), VEX_OK);
    settle(instance);

    assert_int_equal(put_one(instance, c, VEX_WRITE_INSERT, 2, 20, NULL), VEX_OK);
    uint64_t lsn = insert_large(instance, c, large);
    /* On its way, though nobody said commit, with what was staged before it. */
    assert_false(vex_coordinator_commit(instance->coordinator));
    assert_false(vex_coordinator_idle(instance->coordinator));
    assert_int_equal(live_rows(instance), 1);
    assert_int_equal(put_one(instance, c, VEX_WRITE_DELETE, 1, 0, NULL), VEX_OK);
    uint64_t last = insert_large(instance, c, large); /* the disk is taken: waits its turn */
    assert_true(vex_coordinator_poll(instance->coordinator, true));
    assert_int_equal(vex_coordinator_durable_lsn(instance->coordinator), lsn);
    expect_item(instance, 1, 10, NULL);
    expect_item(instance, 2, 20, NULL);
    assert_int_equal(live_rows(instance), large + 2);
    assert_true(vex_coordinator_commit(instance->coordinator));
    settle(instance);
    assert_int_equal(vex_coordinator_durable_lsn(instance->coordinator), last);
    expect_absent(instance, 1);
    assert_int_equal(live_rows(instance), 2 * large + 1);
    restart(instance);
    assert_int_equal(live_rows(instance), 2 * large + 1);
}

static void an_open_view_stays_what_it_was(void **state)
{
    struct instance *instance = *state;
    uint32_t c = make_collection(instance, "c", DIM, VEX_METRIC_L2);
    for (uint64_t id = 0; id < 50; id++) {
        assert_int_equal(put_one(instance, c, VEX_WRITE_INSERT, id, 1, "first"), VEX_OK);
    }
    settle(instance);
    struct reader *reader = open_reader(instance, "c");
    for (uint64_t id = 0; id < 50; id += 2) {
        assert_int_equal(put_one(instance, c, VEX_WRITE_UPDATE, id, 2, NULL), VEX_OK);
        assert_int_equal(put_one(instance, c, VEX_WRITE_DELETE, id + 1, 0, NULL), VEX_OK);
        assert_int_equal(put_one(instance, c, VEX_WRITE_INSERT, id + 100, 3, NULL), VEX_OK);
        settle(instance);
    }
    for (uint64_t id = 0; id < 50; id++) {
        assert_item(reader, id, 1, "first");
        assert_absent(reader, id + 100);
    }
    close_reader(reader);
}

/* ---- what the kinds mean --------------------------------------------------------------------- */

static void each_kind_does_what_it_says_whether_the_id_exists_or_not(void **state)
{
    struct instance *instance = *state;
    uint32_t c = make_collection(instance, "c", DIM, VEX_METRIC_L2);
    const struct {
        enum vex_write_kind kind;
        enum vex_status if_absent;
        enum vex_status if_present;
    } table[] = {
        {VEX_WRITE_INSERT, VEX_OK, VEX_ERR_EXISTS},
        {VEX_WRITE_UPSERT, VEX_OK, VEX_OK},
        {VEX_WRITE_UPDATE, VEX_ERR_NOT_FOUND, VEX_OK},
        {VEX_WRITE_DELETE, VEX_ERR_NOT_FOUND, VEX_OK},
    };
    uint64_t id = 0;
    for (size_t i = 0; i < COUNT_OF(table); i++) {
        /* Never there, deleted before; there, and there again after a delete. */
        for (int history = 0; history < 4; history++) {
            id++;
            bool present = history >= 2;
            if (history >= 1) {
                assert_int_equal(put_one(instance, c, VEX_WRITE_INSERT, id, 1, "old"), VEX_OK);
            }
            if (history == 1 || history == 3) {
                assert_int_equal(put_one(instance, c, VEX_WRITE_DELETE, id, 0, NULL), VEX_OK);
            }
            if (history == 3) {
                assert_int_equal(put_one(instance, c, VEX_WRITE_INSERT, id, 1, "old"), VEX_OK);
            }
            struct footprint before = footprint_of(instance);
            enum vex_status expected = present ? table[i].if_present : table[i].if_absent;
            assert_int_equal(put_one(instance, c, table[i].kind, id, 2, "new"), expected);
            if (expected != VEX_OK) {
                assert_no_trace(instance, &before);
                if (present) {
                    expect_item(instance, id, 1, "old");
                } else {
                    expect_absent(instance, id);
                }
                continue;
            }
            settle(instance);
            bool deleted = table[i].kind == VEX_WRITE_DELETE;
            assert_int_equal(live_rows(instance), before.live + (deleted   ? UINT64_MAX
                                                                 : present ? 0
                                                                           : 1));
            if (deleted) {
                expect_absent(instance, id);
            } else {
                expect_item(instance, id, 2, "new");
            }
        }
    }
}

static void an_update_without_a_payload_keeps_the_old_one_and_an_upsert_does_not(void **state)
{
    struct instance *instance = *state;
    uint32_t c = make_collection(instance, "c", DIM, VEX_METRIC_L2);
    const char *const payloads[] = {NULL, "", "kept"};
    for (size_t i = 0; i < COUNT_OF(payloads); i++) {
        uint64_t id = 10 * (i + 1);
        assert_int_equal(put_one(instance, c, VEX_WRITE_INSERT, id, 1, payloads[i]), VEX_OK);
        for (int version = 2; version < 6; version++) {
            assert_int_equal(put_one(instance, c, VEX_WRITE_UPDATE, id, (float)version, NULL),
                             VEX_OK);
            settle(instance);
            expect_item(instance, id, (float)version, payloads[i]);
        }
        assert_int_equal(put_one(instance, c, VEX_WRITE_UPDATE, id, 7, "changed"), VEX_OK);
        assert_int_equal(put_one(instance, c, VEX_WRITE_UPDATE, id, 8, NULL), VEX_OK);
        settle(instance);
        expect_item(instance, id, 8, "changed");
        restart(instance);
        expect_item(instance, id, 8, "changed");
        assert_int_equal(put_one(instance, c, VEX_WRITE_UPDATE, id, 9, ""), VEX_OK);
        settle(instance);
        expect_item(instance, id, 9, "");
        assert_int_equal(put_one(instance, c, VEX_WRITE_UPSERT, id, 10, NULL), VEX_OK);
        settle(instance);
        expect_item(instance, id, 10, NULL);
    }
}

/* Mixed: some items bring a payload, some keep theirs, in one batch. */
static void one_batch_may_keep_some_payloads_and_change_others(void **state)
{
    struct instance *instance = *state;
    uint32_t c = make_collection(instance, "c", DIM, VEX_METRIC_L2);
    const struct item first[] = {{1, 1, "one"}, {2, 1, NULL}, {3, 1, "three"}, {4, 1, "four"}};
    const struct item second[] = {{4, 2, NULL}, {3, 2, "drei"}, {2, 2, "zwei"}, {1, 2, NULL}};
    assert_int_equal(put(instance, c, VEX_WRITE_INSERT, first, 4, NULL), VEX_OK);
    assert_int_equal(put(instance, c, VEX_WRITE_UPDATE, second, 4, NULL), VEX_OK);
    settle(instance);
    for (int round = 0; round < 2; round++) {
        expect_item(instance, 1, 2, "one");
        expect_item(instance, 2, 2, "zwei");
        expect_item(instance, 3, 2, "drei");
        expect_item(instance, 4, 2, "four");
        restart(instance);
    }
}

static void a_batch_happens_whole_or_not_at_all(void **state)
{
    struct instance *instance = *state;
    uint32_t c = make_collection(instance, "c", DIM, VEX_METRIC_L2);
    const struct item there[] = {{5, 1, "five"}, {6, 1, "six"}};
    assert_int_equal(put(instance, c, VEX_WRITE_INSERT, there, 2, NULL), VEX_OK);
    struct footprint before = footprint_of(instance);
    const struct {
        enum vex_write_kind kind;
        enum vex_status expected;
        struct item items[3];
    } batches[] = {
        {VEX_WRITE_INSERT, VEX_ERR_EXISTS, {{1, 9, "x"}, {2, 9, "x"}, {5, 9, "x"}}},
        {VEX_WRITE_INSERT, VEX_ERR_EXISTS, {{5, 9, NULL}, {1, 9, NULL}, {2, 9, NULL}}},
        {VEX_WRITE_INSERT, VEX_ERR_EXISTS, {{1, 9, NULL}, {2, 9, NULL}, {1, 9, NULL}}},
        {VEX_WRITE_UPDATE, VEX_ERR_NOT_FOUND, {{5, 9, "x"}, {6, 9, "x"}, {7, 9, "x"}}},
        {VEX_WRITE_UPDATE, VEX_ERR_NOT_FOUND, {{7, 9, NULL}, {5, 9, NULL}, {6, 9, NULL}}},
        {VEX_WRITE_DELETE, VEX_ERR_NOT_FOUND, {{5, 0, NULL}, {6, 0, NULL}, {7, 0, NULL}}},
        {VEX_WRITE_INSERT, VEX_ERR_NOT_FINITE, {{1, 9, NULL}, {2, NAN, NULL}, {3, 9, NULL}}},
        {VEX_WRITE_UPSERT, VEX_ERR_NOT_FINITE, {{5, 9, NULL}, {6, INFINITY, NULL}, {3, 9, NULL}}},
        {VEX_WRITE_UPDATE, VEX_ERR_NOT_FINITE, {{5, 9, NULL}, {6, 9, NULL}, {6, -INFINITY, NULL}}},
    };
    for (size_t i = 0; i < COUNT_OF(batches); i++) {
        assert_int_equal(put(instance, c, batches[i].kind, batches[i].items, 3, NULL),
                         batches[i].expected);
        assert_no_trace(instance, &before);
        expect_item(instance, 5, 1, "five");
        expect_item(instance, 6, 1, "six");
    }
    /* A delete that names an id twice deletes nothing either. */
    const struct item twice[] = {{5, 0, NULL}, {5, 0, NULL}};
    assert_int_not_equal(put(instance, c, VEX_WRITE_DELETE, twice, 2, NULL), VEX_OK);
    assert_no_trace(instance, &before);
    restart(instance);
    expect_item(instance, 5, 1, "five");
    assert_int_equal(live_rows(instance), 2);
}

static void the_last_of_equal_ids_in_an_upsert_counts(void **state)
{
    struct instance *instance = *state;
    uint32_t c = make_collection(instance, "c", DIM, VEX_METRIC_L2);
    const struct item items[] = {{1, 1, "a"}, {1, 2, NULL}, {2, 3, "b"}, {1, 4, "c"}, {2, 5, NULL}};
    for (int round = 0; round < 3; round++) {
        assert_int_equal(put(instance, c, VEX_WRITE_UPSERT, items, 5, NULL), VEX_OK);
        settle(instance);
        expect_item(instance, 1, 4, "c");
        expect_item(instance, 2, 5, NULL);
        assert_int_equal(live_rows(instance), 2);
        restart(instance);
        expect_item(instance, 1, 4, "c");
        expect_item(instance, 2, 5, NULL);
        assert_int_equal(live_rows(instance), 2);
    }
}

static void writes_that_do_not_suit_the_collection_leave_no_trace(void **state)
{
    struct instance *instance = *state;
    uint32_t c = make_collection(instance, "c", DIM, VEX_METRIC_COSINE);
    assert_int_equal(put_one(instance, c, VEX_WRITE_INSERT, 1, 1, NULL), VEX_OK);
    struct footprint before = footprint_of(instance);
    const uint64_t ids[2] = {7, 8};
    const float vectors[2 * (DIM + 1)] = {1, 2, 3, 4, 0, 0, 0, 0, 1, 1};
    struct vex_write_input input = {c, VEX_WRITE_UPSERT, 2, DIM, ids, vectors, NULL, NULL};
    struct vex_ack_body ack;
    struct vex_error error;

    /* The second vector is zero, and has no direction. */
    assert_int_equal(write_items(instance, &input, &ack, &error), VEX_ERR_ZERO_VECTOR);
    assert_non_null(strstr(error.message, "item 1"));
    assert_no_trace(instance, &before);

    const uint32_t dims[] = {1, DIM - 1, DIM + 1};
    for (size_t i = 0; i < COUNT_OF(dims); i++) {
        input.dim = dims[i];
        assert_int_equal(write_items(instance, &input, &ack, &error), VEX_ERR_DIM);
        assert_non_null(strstr(error.message, "c"));
        assert_no_trace(instance, &before);
    }
    input.dim = DIM;
    const uint32_t collections[] = {0, c + 1, UINT32_MAX};
    for (size_t i = 0; i < COUNT_OF(collections); i++) {
        input.collection_id = collections[i];
        assert_int_equal(write_items(instance, &input, &ack, &error), VEX_ERR_GONE);
        assert_no_trace(instance, &before);
    }
}

static void bodies_that_are_no_writes_leave_no_trace(void **state)
{
    struct instance *instance = *state;
    uint32_t c = make_collection(instance, "c", DIM, VEX_METRIC_L2);
    assert_int_equal(put_one(instance, c, VEX_WRITE_INSERT, 1, 1, "x"), VEX_OK);
    struct footprint before = footprint_of(instance);
    const uint64_t id = 2;
    const float vector[DIM] = {1, 2, 3, 4};
    const void *payloads[] = {"payload"};
    const size_t payload_bytes[] = {7};
    const struct vex_write_input input = {c,   VEX_WRITE_INSERT, 1,        DIM,
                                          &id, vector,           payloads, payload_bytes};
    struct vex_buffer buffer = {0};
    assert_true(vex_write_encode(&buffer, &input));
    struct vex_ack_body ack;
    for (size_t bytes = 0; bytes < buffer.bytes; bytes += 8) {
        struct vex_error error = {.status = VEX_OK};
        enum vex_status status =
            vex_coordinator_write(instance->coordinator, buffer.data, bytes, &ack, &error);
        assert_true(status == VEX_ERR_PROTOCOL || status == VEX_ERR_LIMIT);
        assert_int_equal(error.status, status);
        assert_no_trace(instance, &before);
    }
    vex_buffer_deinit(&buffer);
}

/* ---- ids given out --------------------------------------------------------------------------- */

static void ids_are_given_out_above_the_largest_one_used(void **state)
{
    struct instance *instance = *state;
    uint32_t c = make_collection(instance, "c", DIM, VEX_METRIC_L2);
    enum vex_status status;
    assert_int_equal(insert_auto(instance, c, 1, &status), 0);
    assert_int_equal(status, VEX_OK);
    assert_int_equal(insert_auto(instance, c, 5, &status), 1);
    assert_int_equal(put_one(instance, c, VEX_WRITE_INSERT, 100, 1, NULL), VEX_OK);
    assert_int_equal(put_one(instance, c, VEX_WRITE_INSERT, 50, 1, NULL), VEX_OK);
    assert_int_equal(insert_auto(instance, c, 2, &status), 101);
    /* What was refused takes none, what was deleted comes not again, also across a restart. */
    assert_int_equal(put_one(instance, c, VEX_WRITE_UPDATE, 500, 1, NULL), VEX_ERR_NOT_FOUND);
    assert_int_equal(put_one(instance, c, VEX_WRITE_UPSERT, 600, NAN, NULL), VEX_ERR_NOT_FINITE);
    assert_int_equal(put_one(instance, c, VEX_WRITE_DELETE, 102, 0, NULL), VEX_OK);
    restart(instance);
    assert_int_equal(insert_auto(instance, c, 3, &status), 103);
    restart(instance);
    assert_int_equal(insert_auto(instance, c, 1, &status), 106);
    settle(instance);
    assert_int_equal(live_rows(instance), 13);
}

static void ids_given_out_are_those_that_replay_gives(void **state)
{
    struct instance *instance = *state;
    uint32_t c = make_collection(instance, "c", DIM, VEX_METRIC_L2);
    struct vex_random random = vex_random_seeded(seed);
    uint64_t next = 0;
    for (int round = 0; round < 60; round++) {
        enum vex_status status;
        uint32_t count = 1 + (uint32_t)vex_random_below(&random, ITEMS_MAX);
        assert_int_equal(insert_auto(instance, c, count, &status), next);
        assert_int_equal(status, VEX_OK);
        next += count;
        if (round % 20 == 19) {
            restart(instance);
        }
    }
    settle(instance);
    struct reader *reader = open_reader(instance, "c");
    const void *payload;
    size_t bytes;
    for (uint64_t id = 0; id < next; id++) {
        assert_non_null(look_up(reader, id, &payload, &bytes));
    }
    assert_int_equal(reader->state.live_rows, next);
    close_reader(reader);
}

/* ---- in a child ------------------------------------------------------------------------------ */

struct child_run {
    struct instance *instance;
    void (*body)(struct instance *instance);
    bool abandon; /* end without closing, as if killed */
};

static int run_child(void *context)
{
    struct child_run *run = context;
    start(run->instance);
    run->body(run->instance);
    if (!run->abandon) {
        stop(run->instance);
    }
    return 0;
}

/* Lets a child serve the instance for a while: a ring belongs to the process that made it. 0 if all went
 * well. The instance runs here again afterwards. */
static int in_child(struct instance *instance, void (*body)(struct instance *instance),
                    bool abandon)
{
    struct child_run run = {instance, body, abandon};
    stop(instance);
    int code = vex_child_run(run_child, &run);
    start(instance);
    return code;
}

/* Ids above the largest one are not ids, and never go round to 0. */
static void use_up_the_ids(struct instance *instance)
{
    uint32_t c = make_collection(instance, "c", DIM, VEX_METRIC_L2);
    enum vex_status status = VEX_OK;
    assert_int_equal(put_one(instance, c, VEX_WRITE_INSERT, 0, 1, "zero"), VEX_OK);
    assert_int_equal(put_one(instance, c, VEX_WRITE_INSERT, VEX_ID_MAX - 3, 1, NULL), VEX_OK);
    (void)insert_auto(instance, c, 4, &status);
    assert_int_equal(status, VEX_ERR_LIMIT);
    /* Three are left, and can be had. */
    assert_int_equal(insert_auto(instance, c, 3, &status), VEX_ID_MAX - 2);
    assert_int_equal(status, VEX_OK);
    struct footprint before = footprint_of(instance);
    for (uint32_t count = 1; count <= 3; count++) {
        (void)insert_auto(instance, c, count, &status);
        assert_int_equal(status, VEX_ERR_LIMIT);
        assert_no_trace(instance, &before);
    }
    expect_item(instance, 0, 1, "zero");
    expect_absent(instance, UINT64_MAX);
}

static void ids_end_at_the_largest_one(void **state)
{
    assert_int_equal(in_child(*state, use_up_the_ids, false), 0);
}

/* One id twice in an update: the second keeps the payload that the first one brings. Refusing such a batch
 * is fine as well; taking it and breaking an own promise is not. */
static void update_twice(struct instance *instance, uint32_t c, const struct item *items,
                         const char *kept)
{
    struct footprint before = footprint_of(instance);
    enum vex_status status = put(instance, c, VEX_WRITE_UPDATE, items, 2, NULL);
    if (status != VEX_OK) {
        assert_no_trace(instance, &before);
        return;
    }
    settle(instance);
    expect_item(instance, items[1].id, items[1].value, kept);
    restart(instance);
    expect_item(instance, items[1].id, items[1].value, kept);
}

/* The second row needs more room than the payload that was there when the batch came. */
static void keep_a_larger_payload(struct instance *instance)
{
    uint32_t c = make_collection(instance, "c", DIM, VEX_METRIC_L2);
    /* A segment holds 16384 rows of this dim, and here two bytes of payload for each: one of these
     * payloads fits, two do not. */
    static char large[20001];
    memset(large, 'x', sizeof(large) - 1);
    assert_int_equal(put_one(instance, c, VEX_WRITE_INSERT, 1, 1, "y"), VEX_OK);
    const struct item items[] = {{1, 2, large}, {1, 3, NULL}};
    update_twice(instance, c, items, large);
}

static void an_update_may_keep_a_larger_payload_from_its_own_batch(void **state)
{
    assert_int_equal(in_child(*state, keep_a_larger_payload, false), 0);
}

/* The second row needs less room than it seemed when the batch came. */
static void keep_a_smaller_payload(struct instance *instance)
{
    uint32_t c = make_collection(instance, "c", DIM, VEX_METRIC_L2);
    static char large[60001];
    memset(large, 'x', sizeof(large) - 1);
    /* A segment holds 16384 rows of this dim, and as many of these payloads as the first write brought
     * on average; few rows with much in them fill it to just below one more. */
    assert_int_equal(put_one(instance, c, VEX_WRITE_INSERT, 1, 1, "123456789"), VEX_OK);
    uint64_t capacity = 10u * 16384u;
    uint64_t used = 9;
    assert_int_equal(put_one(instance, c, VEX_WRITE_INSERT, 2, 1, large), VEX_OK);
    used += sizeof(large) - 1;
    while (capacity - used >= sizeof(large) - 1) {
        assert_int_equal(put_one(instance, c, VEX_WRITE_UPSERT, 2, 1, large), VEX_OK);
        used += sizeof(large) - 1;
    }
    const struct item items[] = {{2, 2, "small"}, {2, 3, NULL}};
    update_twice(instance, c, items, "small");
}

static void an_update_may_keep_a_smaller_payload_from_its_own_batch(void **state)
{
    assert_int_equal(in_child(*state, keep_a_smaller_payload, false), 0);
}

/* ---- collections ----------------------------------------------------------------------------- */

static void collections_are_refused_for_what_is_wrong_with_them(void **state)
{
    struct instance *instance = *state;
    (void)make_collection(instance, "c", DIM, VEX_METRIC_L2);
    struct footprint before = footprint_of(instance);
    char unterminated[VEX_NAME_MAX + 1];
    memset(unterminated, 'n', sizeof(unterminated));
    const struct {
        const char *name;
        uint32_t dim;
        uint32_t metric;
        enum vex_status expected;
    } cases[] = {
        {"", 4, VEX_METRIC_L2, VEX_ERR_INVALID},
        {".x", 4, VEX_METRIC_L2, VEX_ERR_INVALID},
        {"a/b", 4, VEX_METRIC_L2, VEX_ERR_INVALID},
        {"\xc3\xa4", 4, VEX_METRIC_L2, VEX_ERR_INVALID},
        {unterminated, 4, VEX_METRIC_L2, VEX_ERR_INVALID},
        {"d", 0, VEX_METRIC_L2, VEX_ERR_DIM},
        {"d", VEX_DIM_MAX + 1, VEX_METRIC_L2, VEX_ERR_DIM},
        {"d", UINT32_MAX, VEX_METRIC_L2, VEX_ERR_DIM},
        {"d", 4, 0, VEX_ERR_INVALID},
        {"d", 4, 4, VEX_ERR_INVALID},
        {"d", 4, UINT32_MAX, VEX_ERR_INVALID},
        {"c", 4, VEX_METRIC_L2, VEX_ERR_EXISTS},
        {"c", 5, VEX_METRIC_DOT, VEX_ERR_EXISTS},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        uint32_t id;
        struct vex_error error = {.status = VEX_OK};
        assert_int_equal(create(instance, cases[i].name, cases[i].dim,
                                (enum vex_metric)cases[i].metric, &id, &error),
                         cases[i].expected);
        assert_int_equal(error.status, cases[i].expected);
        assert_no_trace(instance, &before);
    }
    const char *const missing[] = {"d", "", "C", "c2", unterminated};
    for (size_t i = 0; i < COUNT_OF(missing); i++) {
        struct vex_error error = {.status = VEX_OK};
        assert_int_equal(drop(instance, missing[i], &error), VEX_ERR_NO_COLLECTION);
        assert_int_equal(error.status, VEX_ERR_NO_COLLECTION);
        assert_no_trace(instance, &before);
    }
}

static void a_dropped_collection_is_gone_and_its_name_is_free(void **state)
{
    struct instance *instance = *state;
    uint32_t before = 0;
    for (int round = 0; round < 6; round++) {
        uint32_t c = make_collection(instance, "c", DIM, VEX_METRIC_L2);
        assert_true(c > before);
        before = c;
        for (uint64_t id = 0; id < 10; id++) {
            assert_int_equal(put_one(instance, c, VEX_WRITE_INSERT, id, (float)round, "x"), VEX_OK);
        }
        if (round % 2 == 0) {
            settle(instance);
            expect_item(instance, 9, (float)round, "x");
        }
        assert_int_equal(drop(instance, "c", NULL), VEX_OK);
        /* The number is dead at once, before the drop is durable. */
        assert_int_equal(put_one(instance, c, VEX_WRITE_INSERT, 77, 1, NULL), VEX_ERR_GONE);
        assert_int_equal(put_one(instance, c, VEX_WRITE_DELETE, 1, 0, NULL), VEX_ERR_GONE);
        assert_int_equal(drop(instance, "c", NULL), VEX_ERR_NO_COLLECTION);
        uint32_t again = make_collection(instance, "c", DIM, VEX_METRIC_DOT);
        assert_true(again > c);
        before = again;
        assert_int_equal(put_one(instance, again, VEX_WRITE_INSERT, 5, 50, NULL), VEX_OK);
        settle(instance);
        for (int look = 0; look < 2; look++) {
            expect_item(instance, 5, 50, NULL);
            expect_absent(instance, 9);
            assert_int_equal(live_rows(instance), 1);
            restart(instance);
        }
        assert_int_equal(drop(instance, "c", NULL), VEX_OK);
        settle(instance);
        struct reader *reader = open_reader(instance, "c");
        assert_false(reader->found);
        close_reader(reader);
        if (round % 3 == 0) {
            restart(instance);
        }
    }
}

/* All in one batch of the log: nothing of it was ever published. */
static void a_collection_may_come_and_go_within_one_batch(void **state)
{
    struct instance *instance = *state;
    for (int round = 0; round < 3; round++) {
        uint32_t c = make_collection(instance, "brief", DIM, VEX_METRIC_L2);
        assert_int_equal(put_one(instance, c, VEX_WRITE_INSERT, 1, 1, "x"), VEX_OK);
        assert_int_equal(drop(instance, "brief", NULL), VEX_OK);
        c = make_collection(instance, "brief", DIM, VEX_METRIC_L2);
        assert_int_equal(drop(instance, "brief", NULL), VEX_OK);
        settle(instance);
        vex_coordinator_reclaim(instance->coordinator, UINT64_MAX);
        assert_false(vex_coordinator_has_retired(instance->coordinator));
        struct reader *reader = open_reader(instance, "brief");
        assert_false(reader->found);
        close_reader(reader);
        if (round == 1) {
            restart(instance);
        }
    }
    assert_int_equal(stats_of(instance).collections, 0);
}

static void numbers_of_collections_are_not_reused_across_restarts(void **state)
{
    struct instance *instance = *state;
    uint32_t first = make_collection(instance, "a", DIM, VEX_METRIC_L2);
    assert_int_equal(drop(instance, "a", NULL), VEX_OK);
    restart(instance);
    uint32_t second = make_collection(instance, "a", DIM, VEX_METRIC_L2);
    assert_true(second > first);
    /* A client that still has the old number hits nobody else's collection. */
    assert_int_equal(put_one(instance, first, VEX_WRITE_INSERT, 1, 1, NULL), VEX_ERR_GONE);
}

static void an_instance_holds_so_many_collections_and_no_more(void **state)
{
    struct instance *instance = *state;
    char name[16];
    uint32_t id;
    for (unsigned i = 0; i < VEX_COLLECTIONS_MAX; i++) {
        (void)snprintf(name, sizeof(name), "n%u", i);
        (void)make_collection(instance, name, 1 + i, VEX_METRIC_DOT);
    }
    for (int round = 0; round < 2; round++) {
        settle(instance);
        uint64_t lsn = vex_coordinator_durable_lsn(instance->coordinator);
        assert_int_equal(create(instance, "more", 1, VEX_METRIC_L2, &id, NULL), VEX_ERR_LIMIT);
        assert_true(vex_coordinator_idle(instance->coordinator));
        assert_int_equal(vex_coordinator_durable_lsn(instance->coordinator), lsn);
        restart(instance);
    }
    struct reader *reader = open_reader(instance, "n1023");
    assert_true(reader->found);
    assert_int_equal(reader->facts.dim, 1024);
    close_reader(reader);
    assert_int_equal(drop(instance, "n500", NULL), VEX_OK);
    settle(instance);
    /* The place is free once nobody can read it any more. */
    vex_coordinator_reclaim(instance->coordinator, UINT64_MAX);
    (void)make_collection(instance, "more", 1, VEX_METRIC_L2);
    assert_int_equal(create(instance, "and-more", 1, VEX_METRIC_L2, &id, NULL), VEX_ERR_LIMIT);
    restart(instance);
    assert_int_equal(stats_of(instance).collections, VEX_COLLECTIONS_MAX);
}

/* A dropped collection keeps its place while an old pin may still see it, and there are some places more
 * than collections for that. */
static void places_of_dropped_collections_come_back_when_nobody_sees_them(void **state)
{
    struct instance *instance = *state;
    char name[16];
    uint32_t id;
    for (unsigned i = 0; i < VEX_COLLECTIONS_MAX; i++) {
        (void)snprintf(name, sizeof(name), "n%u", i);
        (void)make_collection(instance, name, 1, VEX_METRIC_L2);
    }
    settle(instance);
    uint64_t pinned = vex_coordinator_generation(instance->coordinator);
    unsigned replaced = 0;
    enum vex_status status = VEX_OK;
    for (; status == VEX_OK && replaced < VEX_PLACES_MAX; replaced++) {
        (void)snprintf(name, sizeof(name), "n%u", replaced);
        assert_int_equal(drop(instance, name, NULL), VEX_OK);
        settle(instance);
        vex_coordinator_reclaim(instance->coordinator, pinned);
        status = create(instance, name, 1, VEX_METRIC_L2, &id, NULL);
        settle(instance);
    }
    assert_int_equal(status, VEX_ERR_NO_SPACE);
    assert_int_equal(replaced, VEX_PLACES_MAX - VEX_COLLECTIONS_MAX + 1);
    vex_coordinator_reclaim(instance->coordinator, UINT64_MAX);
    (void)make_collection(instance, name, 1, VEX_METRIC_L2);
    settle(instance);
    assert_int_equal(stats_of(instance).collections, VEX_COLLECTIONS_MAX);
    struct reader *reader = open_reader(instance, name);
    assert_true(reader->found);
    close_reader(reader);
    restart(instance);
    assert_int_equal(stats_of(instance).collections, VEX_COLLECTIONS_MAX);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static bool region_exists(const struct instance *instance, uint64_t segment_id)
{
    char name[VEX_REGION_NAME_MAX];
    struct vex_region region;
    vex_region_segment_name(name, instance->key, segment_id);
    enum vex_status status = vex_region_open(&region, name, false, NULL);
    vex_region_close(&region);
    return status == VEX_OK;
}

static void retired_segments_are_given_back_when_no_pin_needs_them(void **state)
{
    struct instance *instance = *state;
    uint32_t c = make_collection(instance, "c", DIM, VEX_METRIC_L2);
    for (uint64_t id = 0; id < 20; id++) {
        assert_int_equal(put_one(instance, c, VEX_WRITE_INSERT, id, 1, "x"), VEX_OK);
    }
    settle(instance);
    struct reader *reader = open_reader(instance, "c");
    uint64_t segment_id = reader->segments[0].segment_id;
    uint64_t pinned = vex_coordinator_generation(instance->coordinator);
    uint64_t with = stats_of(instance).shm_bytes;

    assert_int_equal(drop(instance, "c", NULL), VEX_OK);
    vex_coordinator_reclaim(instance->coordinator, UINT64_MAX);
    assert_true(region_exists(instance, segment_id));
    settle(instance);
    assert_true(vex_coordinator_has_retired(instance->coordinator));
    uint64_t dropped = vex_coordinator_generation(instance->coordinator);
    assert_true(dropped > pinned);

    /* As long as somebody is pinned where it could be seen. */
    for (uint64_t oldest = 1; oldest < dropped; oldest++) {
        vex_coordinator_reclaim(instance->coordinator, oldest);
        assert_true(vex_coordinator_has_retired(instance->coordinator));
        assert_true(region_exists(instance, segment_id));
        assert_item(reader, 7, 1, "x");
    }
    assert_int_equal(stats_of(instance).shm_bytes, with);
    vex_coordinator_reclaim(instance->coordinator, dropped);
    assert_false(vex_coordinator_has_retired(instance->coordinator));
    assert_false(region_exists(instance, segment_id));
    assert_true(stats_of(instance).shm_bytes < with);
    /* Whoever still maps it reads zeros, not a crash. */
    assert_true(vex_segment_vector(&reader->segments[0], 0)[0] == 0);
    close_reader(reader);
}

static void memory_of_many_dropped_collections_comes_back(void **state)
{
    struct instance *instance = *state;
    settle(instance);
    uint64_t empty = 0;
    for (int round = 0; round < 40; round++) {
        uint32_t c = make_collection(instance, "c", DIM, VEX_METRIC_L2);
        for (uint64_t id = 0; id < 5; id++) {
            assert_int_equal(put_one(instance, c, VEX_WRITE_INSERT, id, 1, "x"), VEX_OK);
        }
        settle(instance);
        assert_int_equal(drop(instance, "c", NULL), VEX_OK);
        settle(instance);
        vex_coordinator_reclaim(instance->coordinator, UINT64_MAX);
        /* The block that holds the list stays allocated and is used again. */
        empty = round == 0 ? stats_of(instance).shm_bytes : empty;
        assert_int_equal(stats_of(instance).shm_bytes, empty);
    }
    restart(instance);
    assert_int_equal(stats_of(instance).collections, 0);
    assert_int_equal(stats_of(instance).live_rows, 0);
}

static void put_wide(struct instance *instance, uint32_t collection, uint32_t dim, uint64_t id,
                     size_t payload_bytes)
{
    float *vector = calloc(dim, sizeof(float));
    char *payload = malloc(payload_bytes ? payload_bytes : 1);
    assert_true(vector && payload);
    vector[0] = (float)id;
    vector[dim - 1] = 1;
    memset(payload, 'a' + (int)(id % 26), payload_bytes);
    const void *payloads[] = {payload};
    const struct vex_write_input input = {
        .collection_id = collection,
        .kind = VEX_WRITE_UPSERT,
        .count = 1,
        .dim = dim,
        .ids = &id,
        .vectors = vector,
        .payloads = payload_bytes ? payloads : NULL,
        .payload_bytes = &payload_bytes,
    };
    struct vex_ack_body ack;
    assert_int_equal(write_items(instance, &input, &ack, NULL), VEX_OK);
    free(payload);
    free(vector);
}

/* Rows that fill many segments, with payloads that fill them earlier than their rows do. */
static void a_collection_of_many_segments_is_whole(void **state)
{
    struct instance *instance = *state;
    const uint32_t dim = 2000;
    uint32_t c = make_collection(instance, "c", dim, VEX_METRIC_L2);
    struct vex_random random = vex_random_seeded(seed);
    size_t lengths[300];
    for (uint64_t id = 0; id < 300; id++) {
        size_t most = vex_random_once_in(&random, 10) ? 30000 : 100;
        lengths[id] = id % 5 == 0 ? 0 : vex_random_below(&random, most);
        put_wide(instance, c, dim, id, lengths[id]);
        if (id % 40 == 39) {
            settle(instance);
        }
    }
    settle(instance);
    for (int look = 0; look < 2; look++) {
        struct reader *reader = open_reader(instance, "c");
        assert_true(reader->view.segments_count >= 4);
        for (uint64_t id = 0; id < 300; id++) {
            const void *payload;
            size_t bytes;
            const float *vector = look_up(reader, id, &payload, &bytes);
            assert_non_null(vector);
            assert_true(vector[0] == (float)id && vector[dim - 1] == 1);
            assert_int_equal(bytes, lengths[id]);
            for (size_t i = 0; i < bytes; i++) {
                assert_int_equal(((const char *)payload)[i], 'a' + (int)(id % 26));
            }
        }
        close_reader(reader);
        restart(instance);
    }
}

static void put_many(struct instance *instance, uint32_t collection, uint32_t dim,
                     uint64_t first_id, uint32_t count)
{
    float *vectors = calloc((size_t)count * dim, sizeof(float));
    uint64_t *ids = calloc(count, sizeof(*ids));
    assert_true(vectors && ids);
    for (uint32_t i = 0; i < count; i++) {
        ids[i] = first_id + i;
        vectors[(size_t)i * dim] = (float)ids[i];
    }
    const struct vex_write_input input = {
        .collection_id = collection,
        .kind = VEX_WRITE_INSERT,
        .count = count,
        .dim = dim,
        .ids = ids,
        .vectors = vectors,
    };
    struct vex_ack_body ack;
    assert_int_equal(write_items(instance, &input, &ack, NULL), VEX_OK);
    free(ids);
    free(vectors);
}

/* The end of one segment takes the first rows of a batch; the next segment is as large as the rest. */
static void a_batch_may_begin_in_one_segment_and_go_on_in_the_next(void **state)
{
    struct instance *instance = *state;
    const uint32_t dim = 1024;
    uint32_t c = make_collection(instance, "c", dim, VEX_METRIC_L2);
    const uint32_t counts[] = {10, 300, 1, 500, 700, 1, 1, 900};
    uint64_t total = 0;
    for (size_t i = 0; i < COUNT_OF(counts); i++) {
        put_many(instance, c, dim, total, counts[i]);
        total += counts[i];
        if (i % 2) {
            settle(instance);
        }
    }
    settle(instance);
    for (int look = 0; look < 2; look++) {
        struct reader *reader = open_reader(instance, "c");
        assert_int_equal(reader->state.live_rows, total);
        for (uint64_t id = 0; id < total; id++) {
            const void *payload;
            size_t bytes;
            const float *vector = look_up(reader, id, &payload, &bytes);
            assert_true(vector && vector[0] == (float)id);
        }
        close_reader(reader);
        restart(instance);
    }
}

/* Segments are sized in rows; a payload must not be taken for what all rows will have. */
static void one_large_payload_does_not_reserve_as_much_for_every_row(void **state)
{
    struct instance *instance = *state;
    uint32_t c = make_collection(instance, "c", 1, VEX_METRIC_L2);
    settle(instance);
    uint64_t before = stats_of(instance).shm_bytes;
    put_wide(instance, c, 1, 1, 4096);
    settle(instance);
    uint64_t taken = stats_of(instance).shm_bytes - before;
    if (taken > 64u << 20) {
        fail_msg("a vector of 4 bytes with 4096 bytes of payload took %llu MiB of shared memory",
                 (unsigned long long)(taken >> 20));
    }
}

static void statistics_count_what_there_is(void **state)
{
    struct instance *instance = *state;
    uint32_t c = make_collection(instance, "c", DIM, VEX_METRIC_L2);
    (void)make_collection(instance, "other", 9, VEX_METRIC_DOT);
    for (uint64_t id = 0; id < 10; id++) {
        assert_int_equal(put_one(instance, c, VEX_WRITE_INSERT, id, 1, NULL), VEX_OK);
    }
    assert_int_equal(put_one(instance, c, VEX_WRITE_UPSERT, 3, 1, NULL), VEX_OK);
    assert_int_equal(put_one(instance, c, VEX_WRITE_DELETE, 4, 0, NULL), VEX_OK);
    settle(instance);
    for (int look = 0; look < 2; look++) {
        struct vex_stats_body stats = stats_of(instance);
        assert_int_equal(stats.collections, 2);
        assert_int_equal(stats.live_rows, 9);
        assert_int_equal(stats.dead_rows, 2);
        assert_int_equal(stats.lsn, 14);
        assert_int_equal(stats.read_only, 0);
        assert_int_equal(stats.replayed, look == 0 ? 0 : 14);
        assert_int_equal(stats.torn_tails, 0);
        assert_true(stats.io_backend[0] != 0);
        assert_int_equal(stats.generation, vex_coordinator_generation(instance->coordinator));
        restart(instance);
    }
}

static void a_quiet_moment_covers_the_last_acknowledgement(void **state)
{
    struct instance *instance = *state;
    assert_false(vex_coordinator_wants_settling(instance->coordinator));
    uint32_t c = make_collection(instance, "c", DIM, VEX_METRIC_L2);
    assert_false(vex_coordinator_wants_settling(instance->coordinator));
    settle(instance);
    assert_true(vex_coordinator_wants_settling(instance->coordinator));
    uint64_t generation = vex_coordinator_generation(instance->coordinator);
    vex_coordinator_settle(instance->coordinator);
    /* A mutation that comes while the watermark is on its way is neither lost nor shown early. */
    assert_int_equal(put_one(instance, c, VEX_WRITE_INSERT, 1, 1, NULL), VEX_OK);
    expect_absent(instance, 1);
    assert_true(vex_coordinator_poll(instance->coordinator, true));
    expect_absent(instance, 1);
    assert_int_equal(vex_coordinator_generation(instance->coordinator), generation);
    settle(instance);
    expect_item(instance, 1, 1, NULL);
    vex_coordinator_settle(instance->coordinator);
    settle(instance);
    assert_false(vex_coordinator_wants_settling(instance->coordinator));
}

/* ---- failures -------------------------------------------------------------------------------- */

/* A limit on the size of files makes the next durable write fail for good. */
static void fail_a_durable_write(struct instance *instance)
{
    uint32_t c = make_collection(instance, "c", DIM, VEX_METRIC_L2);
    assert_int_equal(put_one(instance, c, VEX_WRITE_INSERT, 1, 10, "kept"), VEX_OK);
    settle(instance);
    uint64_t durable = vex_coordinator_durable_lsn(instance->coordinator);
    (void)signal(SIGXFSZ, SIG_IGN);
    const struct rlimit limit = {4096, 4096};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    assert_int_equal(put_one(instance, c, VEX_WRITE_UPSERT, 1, 11, "lost"), VEX_OK);
    assert_int_equal(put_one(instance, c, VEX_WRITE_INSERT, 2, 20, NULL), VEX_OK);
    assert_true(vex_coordinator_commit(instance->coordinator));
    assert_true(vex_coordinator_poll(instance->coordinator, true));
    assert_int_equal(vex_coordinator_failure(instance->coordinator), EFBIG);
    for (int round = 0; round < 3; round++) {
        assert_int_equal(vex_coordinator_durable_lsn(instance->coordinator), durable);
        assert_int_equal(put_one(instance, c, VEX_WRITE_INSERT, 3, 30, NULL), VEX_ERR_READ_ONLY);
        assert_int_equal(drop(instance, "c", NULL), VEX_ERR_READ_ONLY);
        uint32_t id;
        assert_int_equal(create(instance, "d", 1, VEX_METRIC_L2, &id, NULL), VEX_ERR_READ_ONLY);
        assert_false(vex_coordinator_commit(instance->coordinator));
        assert_false(vex_coordinator_poll(instance->coordinator, true));
        expect_item(instance, 1, 10, "kept");
        expect_absent(instance, 2);
    }
    assert_int_equal(stats_of(instance).read_only, 1);
    struct reader *reader = open_reader(instance, "c");
    assert_int_equal(vex_control_state(reader->control.memory), VEX_DAEMON_READ_ONLY);
    close_reader(reader);
}

static void a_failed_log_makes_the_instance_read_only_until_a_restart(void **state)
{
    struct instance *instance = *state;
    assert_int_equal(in_child(instance, fail_a_durable_write, false), 0);
    expect_item(instance, 1, 10, "kept");
    expect_absent(instance, 2);
    struct reader *reader = open_reader(instance, "c");
    uint32_t c = reader->facts.id;
    close_reader(reader);
    assert_int_equal(put_one(instance, c, VEX_WRITE_INSERT, 2, 21, NULL), VEX_OK);
    settle(instance);
    expect_item(instance, 2, 21, NULL);
}

static int fill_shared_memory(void *context)
{
    struct instance *instance = context;
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("none", "/dev/shm", "tmpfs", 0, "size=6m") != 0) {
        printf("a small /dev/shm cannot be mounted here: %s\n", strerror(errno));
        return VEX_CHILD_SKIPPED;
    }
    start(instance);
    uint32_t c = make_collection(instance, "c", DIM, VEX_METRIC_L2);
    char payload[3000];
    memset(payload, 'p', sizeof(payload) - 1);
    payload[sizeof(payload) - 1] = 0;
    uint64_t count = 0;
    enum vex_status status = VEX_OK;
    while (status == VEX_OK && count < 10000) {
        status = put_one(instance, c, VEX_WRITE_INSERT, count, 1, payload);
        count += status == VEX_OK;
    }
    assert_int_equal(status, VEX_ERR_NO_SPACE);
    assert_true(count > 100);
    struct footprint before = footprint_of(instance);
    assert_int_equal(before.live, count);
    assert_int_equal(put_one(instance, c, VEX_WRITE_INSERT, count, 1, payload), VEX_ERR_NO_SPACE);
    assert_int_equal(put_one(instance, c, VEX_WRITE_UPDATE, 1, 2, payload), VEX_ERR_NO_SPACE);
    assert_no_trace(instance, &before);
    expect_item(instance, 1, 1, payload);
    /* Deletes need no room. A drop gives all of it back. */
    assert_int_equal(put_one(instance, c, VEX_WRITE_DELETE, 1, 0, NULL), VEX_OK);
    assert_int_equal(drop(instance, "c", NULL), VEX_OK);
    settle(instance);
    vex_coordinator_reclaim(instance->coordinator, UINT64_MAX);
    c = make_collection(instance, "c", DIM, VEX_METRIC_L2);
    for (uint64_t id = 0; id < count / 2; id++) {
        assert_int_equal(put_one(instance, c, VEX_WRITE_INSERT, id, 3, payload), VEX_OK);
    }
    settle(instance);
    expect_item(instance, 1, 3, payload);
    /* What was refused must not be in the log: it would not fit at the next start either. */
    restart(instance);
    expect_item(instance, 1, 3, payload);
    stop(instance);
    return 0;
}

static void full_shared_memory_refuses_writes_and_loses_nothing(void **state)
{
    struct instance *instance = *state;
    stop(instance);
    int code = vex_child_run(fill_shared_memory, instance);
    start(instance);
    if (code == VEX_CHILD_SKIPPED) {
        skip();
    }
    assert_int_equal(code, 0);
}

/* ---- histories ------------------------------------------------------------------------------- */

#define MODEL_IDS 4096u
#define MODEL_PAYLOAD 60u

struct model_item {
    bool alive;
    float value;
    bool has_payload;
    char payload[MODEL_PAYLOAD];
};

struct model {
    uint64_t lsn;
    uint32_t collection; /* 0 = none */
    uint32_t next_collection;
    uint64_t next_auto;
    uint64_t live;
    struct model_item items[MODEL_IDS];
};

struct operation {
    enum { OPERATION_WRITE, OPERATION_AUTO, OPERATION_CREATE, OPERATION_DROP } what;
    enum vex_write_kind kind;
    uint32_t count;
    struct item items[ITEMS_MAX];
    char payloads[ITEMS_MAX][MODEL_PAYLOAD];
};

static bool stands_before(const struct operation *operation, uint32_t item)
{
    for (uint32_t i = 0; i < item; i++) {
        if (operation->items[i].id == operation->items[item].id) {
            return true;
        }
    }
    return false;
}

/* The next operation follows from the random numbers and the model alone. */
static void choose_operation(const struct model *model, struct vex_random *random,
                             struct operation *operation)
{
    memset(operation, 0, sizeof(*operation));
    if (model->collection == 0) {
        operation->what = OPERATION_CREATE;
        return;
    }
    if (vex_random_once_in(random, 150)) {
        operation->what = OPERATION_DROP;
        return;
    }
    operation->count =
        1 + (uint32_t)vex_random_below(random, vex_random_once_in(random, 2) ? 1 : 8);
    if (vex_random_once_in(random, 12) && model->next_auto + ITEMS_MAX < MODEL_IDS) {
        operation->what = OPERATION_AUTO;
        return;
    }
    operation->what = OPERATION_WRITE;
    operation->kind = (enum vex_write_kind)(1 + vex_random_below(random, 4));
    bool may_repeat = operation->kind == VEX_WRITE_UPSERT;
    for (uint32_t i = 0; i < operation->count; i++) {
        struct item *item = &operation->items[i];
        do {
            item->id = vex_random_below(random, vex_random_once_in(random, 10) ? 300 : 40);
        } while (!may_repeat && stands_before(operation, i));
        /* Make updates and deletes likely to meet something, and inserts to meet nothing. */
        bool wants_alive =
            operation->kind == VEX_WRITE_UPDATE || operation->kind == VEX_WRITE_DELETE;
        for (uint64_t step = 0; step < 40 && !vex_random_once_in(random, 40); step++) {
            bool fits = model->items[item->id].alive == wants_alive || may_repeat;
            if (fits && (may_repeat || !stands_before(operation, i))) {
                break;
            }
            item->id = (item->id + 1) % 300;
        }
        while (!may_repeat && stands_before(operation, i)) {
            item->id = (item->id + 1) % 300;
        }
        item->value = (float)vex_random_below(random, 100000);
        if (vex_random_once_in(random, 2)) {
            size_t length = vex_random_below(random, MODEL_PAYLOAD);
            memset(operation->payloads[i], 'a' + (int)vex_random_below(random, 26), length);
            item->payload = operation->payloads[i];
        }
    }
}

static enum vex_status expected_status(const struct model *model, const struct operation *operation)
{
    if (operation->what != OPERATION_WRITE) {
        return VEX_OK;
    }
    for (uint32_t i = 0; i < operation->count; i++) {
        bool alive = model->items[operation->items[i].id].alive;
        if (operation->kind == VEX_WRITE_INSERT && alive) {
            return VEX_ERR_EXISTS;
        }
        if ((operation->kind == VEX_WRITE_UPDATE || operation->kind == VEX_WRITE_DELETE) &&
            !alive) {
            return VEX_ERR_NOT_FOUND;
        }
    }
    return VEX_OK;
}

static void model_put(struct model *model, uint64_t id, float value, bool keep, const char *payload)
{
    struct model_item *item = &model->items[id];
    model->live += !item->alive;
    item->alive = true;
    item->value = value;
    if (!keep) {
        item->has_payload = payload != NULL;
        (void)snprintf(item->payload, sizeof(item->payload), "%s", payload ? payload : "");
    }
    if (id >= model->next_auto) {
        model->next_auto = id + 1;
    }
}

/* Vectors that insert_auto makes. */
static float auto_value(uint32_t item)
{
    return (float)(item * DIM + 1);
}

static void model_apply(struct model *model, const struct operation *operation)
{
    model->lsn++;
    switch (operation->what) {
    case OPERATION_CREATE:
        model->collection = model->next_collection++;
        return;
    case OPERATION_DROP:
        model->collection = 0;
        model->next_auto = 0;
        model->live = 0;
        memset(model->items, 0, sizeof(model->items));
        return;
    case OPERATION_AUTO:
        for (uint32_t i = 0; i < operation->count; i++) {
            model_put(model, model->next_auto, auto_value(i), false, NULL);
        }
        return;
    case OPERATION_WRITE:
        break;
    }
    for (uint32_t i = 0; i < operation->count; i++) {
        const struct item *item = &operation->items[i];
        if (operation->kind == VEX_WRITE_DELETE) {
            model->items[item->id].alive = false;
            model->live--;
        } else {
            bool keep = operation->kind == VEX_WRITE_UPDATE && !item->payload;
            model_put(model, item->id, item->value, keep, item->payload);
        }
    }
}

static enum vex_status perform(struct instance *instance, const struct model *model,
                               const struct operation *operation)
{
    uint32_t id = 0;
    enum vex_status status = VEX_OK;
    switch (operation->what) {
    case OPERATION_CREATE:
        status = create(instance, "c", DIM, VEX_METRIC_L2, &id, NULL);
        assert_int_equal(id, model->next_collection);
        return status;
    case OPERATION_DROP:
        return drop(instance, "c", NULL);
    case OPERATION_AUTO:
        assert_int_equal(insert_auto(instance, model->collection, operation->count, &status),
                         model->next_auto);
        return status;
    case OPERATION_WRITE:
        break;
    }
    return put(instance, model->collection, operation->kind, operation->items, operation->count,
               NULL);
}

static void compare_with_model(const struct instance *instance, const struct model *model)
{
    struct reader *reader = open_reader(instance, "c");
    assert_int_equal(reader->found, model->collection != 0);
    assert_int_equal(reader->published_lsn, model->lsn);
    if (reader->found) {
        assert_int_equal(reader->facts.id, model->collection);
        assert_int_equal(reader->state.live_rows, model->live);
        for (uint64_t id = 0; id < MODEL_IDS; id++) {
            const struct model_item *item = &model->items[id];
            const void *payload = NULL;
            size_t bytes = 0;
            const float *vector = look_up(reader, id, &payload, &bytes);
            if ((vector != NULL) != item->alive || (vector && vector[0] != item->value) ||
                (vector &&
                 ((payload != NULL) != item->has_payload || bytes != strlen(item->payload) ||
                  (bytes && memcmp(payload, item->payload, bytes) != 0)))) {
                fail_msg("LSN %llu: id %llu: %s", (unsigned long long)model->lsn,
                         (unsigned long long)id,
                         !vector       ? "is missing"
                         : item->alive ? "has another value or payload"
                                       : "is there although it was deleted");
            }
        }
    }
    close_reader(reader);
}

/* What a session in a child tells its parent, which outlives it. */
struct progress {
    uint64_t acknowledged;
    uint64_t staged;
};

static struct {
    struct progress *progress; /* shared */
    struct model model;        /* at the beginning of the session */
    uint64_t session_seed;
    unsigned operations;
} history;

static void run_session(struct instance *instance)
{
    struct vex_random random = vex_random_seeded(history.session_seed);
    struct vex_random pace = vex_random_seeded(history.session_seed ^ 0xabcdef);
    struct model *model = &history.model;
    for (unsigned i = 0; i < history.operations; i++) {
        struct operation operation;
        choose_operation(model, &random, &operation);
        enum vex_status expected = expected_status(model, &operation);
        assert_int_equal(perform(instance, model, &operation), expected);
        if (expected == VEX_OK) {
            model_apply(model, &operation);
            history.progress->staged = model->lsn;
        }
        if (vex_random_once_in(&pace, 6)) {
            (void)vex_coordinator_commit(instance->coordinator);
        }
        if (vex_random_once_in(&pace, 4)) {
            (void)vex_coordinator_poll(instance->coordinator, vex_random_once_in(&pace, 2));
            history.progress->acknowledged = vex_coordinator_durable_lsn(instance->coordinator);
        }
        if (vex_random_once_in(&pace, 30)) {
            settle(instance);
            history.progress->acknowledged = vex_coordinator_durable_lsn(instance->coordinator);
            compare_with_model(instance, model);
        }
        if (vex_random_once_in(&pace, 20)) {
            vex_coordinator_reclaim(instance->coordinator, UINT64_MAX);
        }
    }
}

/* The model as it was at an LSN of the session that has just run. */
static void replay_model(struct model *model, uint64_t lsn)
{
    struct vex_random random = vex_random_seeded(history.session_seed);
    while (model->lsn < lsn) {
        struct operation operation;
        choose_operation(model, &random, &operation);
        if (expected_status(model, &operation) == VEX_OK) {
            model_apply(model, &operation);
        }
    }
}

static void random_histories_survive_closing_and_killing(void **state)
{
    struct instance *instance = *state;
    history.progress = mmap(NULL, sizeof(*history.progress), PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(history.progress, MAP_FAILED);
    memset(&history.model, 0, sizeof(history.model));
    history.model.next_collection = 1;
    struct vex_random random = vex_random_seeded(seed);
    for (int session = 0; session < 10; session++) {
        history.session_seed = vex_random_next(&random);
        history.operations = 50 + (unsigned)vex_random_below(&random, 250);
        *history.progress = (struct progress){history.model.lsn, history.model.lsn};
        bool abandon = session % 3 != 0;
        assert_int_equal(in_child(instance, run_session, abandon), 0);
        uint64_t recovered = vex_coordinator_durable_lsn(instance->coordinator);
        assert_in_range(recovered, history.progress->acknowledged, history.progress->staged);
        if (!abandon) {
            assert_int_equal(recovered, history.progress->staged);
        }
        replay_model(&history.model, recovered);
        compare_with_model(instance, &history.model);
    }
    assert_true(history.model.lsn > 500);
    (void)munmap(history.progress, sizeof(*history.progress));
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, make_instance, remove_instance)

int main(void)
{
    seed = vex_random_announce("test_daemon_coordinator");
    (void)signal(SIGABRT, clean_up_and_abort);
    const struct CMUnitTest tests[] = {
        CASE(a_new_instance_is_ready_and_empty),
        cmocka_unit_test(closing_no_coordinator_is_fine),
        CASE(closing_marks_the_memory_gone_and_takes_its_names),
        CASE(staged_records_are_committed_by_closing),
        CASE(nothing_is_published_before_it_is_durable),
        CASE(another_index_is_published_when_it_is_durable),
        CASE(an_alter_that_cannot_be_leaves_no_trace),
        CASE(a_large_write_shows_what_was_sealed_with_it_and_nothing_later),
        CASE(an_open_view_stays_what_it_was),
        CASE(each_kind_does_what_it_says_whether_the_id_exists_or_not),
        CASE(an_update_without_a_payload_keeps_the_old_one_and_an_upsert_does_not),
        CASE(one_batch_may_keep_some_payloads_and_change_others),
        CASE(a_batch_happens_whole_or_not_at_all),
        CASE(the_last_of_equal_ids_in_an_upsert_counts),
        CASE(writes_that_do_not_suit_the_collection_leave_no_trace),
        CASE(bodies_that_are_no_writes_leave_no_trace),
        CASE(ids_are_given_out_above_the_largest_one_used),
        CASE(ids_given_out_are_those_that_replay_gives),
        CASE(ids_end_at_the_largest_one),
        CASE(an_update_may_keep_a_larger_payload_from_its_own_batch),
        CASE(an_update_may_keep_a_smaller_payload_from_its_own_batch),
        CASE(collections_are_refused_for_what_is_wrong_with_them),
        CASE(a_dropped_collection_is_gone_and_its_name_is_free),
        CASE(a_collection_may_come_and_go_within_one_batch),
        CASE(numbers_of_collections_are_not_reused_across_restarts),
        CASE(an_instance_holds_so_many_collections_and_no_more),
        CASE(places_of_dropped_collections_come_back_when_nobody_sees_them),
        CASE(retired_segments_are_given_back_when_no_pin_needs_them),
        CASE(memory_of_many_dropped_collections_comes_back),
        CASE(a_collection_of_many_segments_is_whole),
        CASE(a_batch_may_begin_in_one_segment_and_go_on_in_the_next),
        CASE(one_large_payload_does_not_reserve_as_much_for_every_row),
        CASE(statistics_count_what_there_is),
        CASE(a_quiet_moment_covers_the_last_acknowledgement),
        CASE(a_failed_log_makes_the_instance_read_only_until_a_restart),
        CASE(full_shared_memory_refuses_writes_and_loses_nothing),
        CASE(random_histories_survive_closing_and_killing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
