#include "tests/unit/daemon_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "index/index.h"
#include "shm/control.h"
#include "shm/region.h"

static const char *const names[RIG_NAMES] = {"a", "b", "c"};
static const enum vex_metric metrics[RIG_NAMES] = {VEX_METRIC_L2, VEX_METRIC_COSINE,
                                                   VEX_METRIC_DOT};

/* ---- life ------------------------------------------------------------------------------------ */

static struct rig *current;

/* An assertion of the daemon ends this program; what it made in memory and on disk goes first. */
static void clean_up_and_abort(int number)
{
    if (current) {
        vex_region_unlink_all(current->key);
        vex_temp_dir_remove(&current->directory);
    }
    (void)signal(number, SIG_DFL);
    (void)raise(number);
}

void rig_make(struct rig *rig)
{
    *rig = (struct rig){0};
    vex_temp_dir_make(&rig->directory);
    rig->options = (struct vex_coordinator_options){
        .log_file_bytes_min = 64 * 1024,
        .log_file_bytes_max = 64 * 1024,
    };
    rig_guard(rig);
}

void rig_guard(struct rig *rig)
{
    current = rig;
    (void)signal(SIGABRT, clean_up_and_abort);
}

void rig_remove(struct rig *rig)
{
    rig_stop(rig);
    assert_int_equal(rig_count_shared(rig), 0);
    current = NULL;
    assert_int_equal(chdir("/"), 0);
    vex_temp_dir_remove(&rig->directory);
}

/* The fault's table, but for closing: the coordinator closes one disk, which here is two. */
static struct vex_io_ops weak_ops;
static void (*close_fault)(struct vex_io *io);

static void close_both(struct vex_io *io)
{
    struct vex_io *behind = current->disk_behind;
    current->disk = NULL;
    close_fault(io);
    vex_io_close(behind);
}

static struct vex_io *put_fault_in_front(struct vex_io *io, void *context)
{
    struct rig *rig = context;
    rig->disk_behind = io;
    rig->disk = vex_io_fault_open(io, rig->decide, rig->decide_context);
    weak_ops = *rig->disk->ops;
    close_fault = weak_ops.close;
    weak_ops.close = close_both;
    rig->disk->ops = &weak_ops;
    return rig->disk;
}

void rig_weaken(struct rig *rig, vex_io_decide decide, void *context)
{
    rig->decide = decide;
    rig->decide_context = context;
    rig->options.wrap_io = decide ? put_fault_in_front : NULL;
    rig->options.wrap_context = rig;
}

enum vex_status rig_open(struct rig *rig, struct vex_error *error)
{
    assert_int_equal(fchdir(rig->directory.fd), 0);
    enum vex_status status =
        vex_coordinator_open(rig->directory.fd, &rig->options, &rig->coordinator, error);
    if (status == VEX_OK) {
        memcpy(rig->key, vex_coordinator_key(rig->coordinator), sizeof(rig->key));
        rig->now_ms = vex_clock_ms();
        rig->answers_count = 0;
    }
    return status;
}

void rig_start(struct rig *rig)
{
    struct vex_error error = {.status = VEX_OK};
    enum vex_status status = rig_open(rig, &error);
    if (status != VEX_OK) {
        fail_msg("open: %s: %s", vex_base_status_name(status), error.message);
    }
}

void rig_stop(struct rig *rig)
{
    vex_coordinator_close(rig->coordinator);
    rig->coordinator = NULL;
}

/* ---- mutations ------------------------------------------------------------------------------- */

static void make_vector(uint32_t id, uint32_t value, float vector[RIG_DIM])
{
    for (uint32_t i = 0; i < RIG_DIM; i++) {
        vector[i] = (float)(i + 1);
    }
    vector[0] = (float)value;
    vector[1] = (float)id;
}

/* 0 = none. */
static size_t make_payload(uint32_t id, uint32_t value, char payload[64])
{
    size_t bytes = (id * 7 + value) % 50;
    memset(payload, 'a' + (int)((id + value) % 26), bytes);
    return bytes;
}

static enum vex_status stage_write(struct rig *rig, const struct rig_step *step,
                                   struct vex_ack_body *out_ack, struct vex_error *error)
{
    static float vectors[RIG_BATCH][RIG_DIM];
    static char texts[RIG_BATCH][64];
    uint64_t ids[RIG_BATCH];
    const void *payloads[RIG_BATCH];
    size_t payload_bytes[RIG_BATCH];
    assert_true(step->count <= RIG_BATCH && step->first_id + step->count <= RIG_IDS);
    for (uint32_t i = 0; i < step->count; i++) {
        ids[i] = step->first_id + i;
        make_vector(step->first_id + i, step->value, vectors[i]);
        payload_bytes[i] = make_payload(step->first_id + i, step->value, texts[i]);
        payloads[i] = payload_bytes[i] ? texts[i] : NULL;
    }
    bool is_delete = step->what == RIG_DELETE;
    const struct vex_write_input input = {
        .collection_id = rig->ids[step->name],
        .kind = is_delete ? VEX_WRITE_DELETE : VEX_WRITE_UPSERT,
        .count = step->count,
        .dim = is_delete ? 0 : RIG_DIM,
        .ids = ids,
        .vectors = is_delete ? NULL : vectors[0],
        .payloads = is_delete ? NULL : payloads,
        .payload_bytes = payload_bytes,
    };
    struct vex_buffer buffer = {0};
    assert_true(vex_write_encode(&buffer, &input));
    enum vex_status status =
        vex_coordinator_write(rig->coordinator, buffer.data, buffer.bytes, out_ack, error);
    vex_buffer_deinit(&buffer);
    return status;
}

/* What is asked for follows from the value: one kind of three, and an effort of its own. */
static struct vex_alter_body make_alter(uint32_t value)
{
    static const enum vex_index_kind kinds[] = {VEX_INDEX_AUTO, VEX_INDEX_FLAT, VEX_INDEX_HNSW};
    return (struct vex_alter_body){
        .changes = VEX_CHANGES_INDEX | VEX_CHANGES_EF_CONSTRUCTION,
        .index = value ? kinds[value % 3] : VEX_INDEX_AUTO,
        .ef_construction =
            value ? VEX_HNSW_EF_CONSTRUCTION_MIN + value : VEX_HNSW_EF_CONSTRUCTION_DEFAULT,
    };
}

static enum vex_status try_step(struct rig *rig, const struct rig_step *step,
                                struct vex_error *error)
{
    struct vex_ack_body ack = {0};
    enum vex_status status = VEX_OK;
    struct vex_create_body create = {.dim = RIG_DIM, .metric = metrics[step->name]};
    struct vex_drop_body drop = {0};
    struct vex_alter_body alter = make_alter(step->value);
    create.name[0] = drop.name[0] = alter.name[0] = names[step->name][0];
    switch (step->what) {
    case RIG_CREATE:
        status = vex_coordinator_create(rig->coordinator, &create, &ack, error);
        if (status == VEX_OK) {
            rig->ids[step->name] = (uint32_t)ack.first_id;
        }
        break;
    case RIG_DROP:
        status = vex_coordinator_drop(rig->coordinator, &drop, &ack, error);
        break;
    case RIG_ALTER:
        status = vex_coordinator_alter(rig->coordinator, &alter, &ack, error);
        break;
    case RIG_PUT:
    case RIG_DELETE:
        status = stage_write(rig, step, &ack, error);
        break;
    }
    if (status == VEX_OK) {
        assert_int_equal(ack.lsn, rig->staged_lsn + 1);
        assert_true(rig->staged_lsn < RIG_STEPS_MAX);
        rig->history[rig->staged_lsn++] = *step;
    }
    return status;
}

enum vex_status rig_stage(struct rig *rig, const struct rig_step *step, struct vex_error *error)
{
    enum vex_status status = try_step(rig, step, error);
    if (status == VEX_ERR_BUSY) {
        rig_commit(rig);
        status = try_step(rig, step, error);
    }
    return status;
}

static void must_stage(struct rig *rig, const struct rig_step *step)
{
    struct vex_error error = {.status = VEX_OK};
    enum vex_status status = rig_stage(rig, step, &error);
    if (status != VEX_OK) {
        fail_msg("mutation: %s: %s", vex_base_status_name(status), error.message);
    }
}

static void in_batches(struct rig *rig, struct rig_step step, uint32_t count)
{
    uint32_t end = step.first_id + count;
    for (; step.first_id < end; step.first_id += step.count) {
        uint32_t left = end - step.first_id;
        step.count = left < RIG_BATCH ? left : RIG_BATCH;
        must_stage(rig, &step);
    }
}

void rig_put(struct rig *rig, uint32_t name, uint32_t first_id, uint32_t count, uint32_t value)
{
    in_batches(rig, (struct rig_step){RIG_PUT, name, first_id, 0, value}, count);
}

void rig_delete(struct rig *rig, uint32_t name, uint32_t first_id, uint32_t count)
{
    in_batches(rig, (struct rig_step){RIG_DELETE, name, first_id, 0, 0}, count);
}

void rig_create(struct rig *rig, uint32_t name)
{
    must_stage(rig, &(struct rig_step){RIG_CREATE, name, 0, 0, 0});
}

void rig_drop(struct rig *rig, uint32_t name)
{
    must_stage(rig, &(struct rig_step){RIG_DROP, name, 0, 0, 0});
}

void rig_alter(struct rig *rig, uint32_t name, uint32_t value)
{
    must_stage(rig, &(struct rig_step){RIG_ALTER, name, 0, 0, value});
}

/* ---- the loop -------------------------------------------------------------------------------- */

static void note_acknowledged(struct rig *rig)
{
    uint64_t durable = vex_coordinator_durable_lsn(rig->coordinator);
    if (durable > rig->acknowledged_lsn) {
        rig->acknowledged_lsn = durable;
    }
}

void rig_turn(struct rig *rig)
{
    struct vex_coordinator *coordinator = rig->coordinator;
    rig->now_ms++; /* it looks for work once in a millisecond */
    if (vex_coordinator_commit(coordinator)) {
        vex_coordinator_upkeep(coordinator, rig->now_ms); /* as in the server: it is on its way */
    }
    (void)vex_coordinator_poll(coordinator, true);
    note_acknowledged(rig);
    vex_coordinator_upkeep(coordinator, rig->now_ms);
    struct vex_upkeep_answer answer;
    while (vex_coordinator_take_answer(coordinator, &answer)) {
        for (unsigned i = 0; i < rig->answers_count; i++) {
            assert_int_not_equal(rig->answers[i].ticket, answer.ticket);
        }
        assert_true(rig->answers_count < 64);
        rig->answers[rig->answers_count++] = answer;
    }
    vex_coordinator_reclaim(coordinator, UINT64_MAX);
}

void rig_commit(struct rig *rig)
{
    struct vex_coordinator *coordinator = rig->coordinator;
    while (!vex_coordinator_idle(coordinator) && !vex_coordinator_failure(coordinator)) {
        (void)vex_coordinator_commit(coordinator);
        (void)vex_coordinator_poll(coordinator, true);
    }
    note_acknowledged(rig);
}

/* Until the worker has news, or a moment. */
static void await_worker(const struct rig *rig)
{
    struct pollfd item = {vex_coordinator_upkeep_fd(rig->coordinator), POLLIN, 0};
    (void)poll(&item, 1, 2);
}

void rig_rest(struct rig *rig)
{
    uint64_t started_ms = vex_clock_ms();
    for (int idle_turns = 0; idle_turns < 3;) {
        rig_turn(rig);
        if (rig_stats(rig).upkeep_running) {
            idle_turns = 0;
            await_worker(rig);
        } else {
            idle_turns++;
        }
        assert_true(vex_clock_ms() - started_ms < RIG_TURNS_MS);
    }
}

void rig_pass(struct rig *rig, uint64_t ms)
{
    rig_rest(rig);
    rig->now_ms += ms;
    rig_rest(rig);
}

struct vex_stats_body rig_stats(const struct rig *rig)
{
    struct vex_stats_body stats;
    memset(&stats, 0, sizeof(stats));
    vex_coordinator_stats(rig->coordinator, &stats);
    return stats;
}

enum vex_status rig_ask(struct rig *rig, enum vex_upkeep_kind kind, const char *name,
                        const char *path, uint64_t *out_ticket, struct vex_error *error)
{
    struct vex_upkeep_body body = {.kind = kind};
    (void)snprintf(body.name, sizeof(body.name), "%s", name ? name : "");
    (void)snprintf(body.path, sizeof(body.path), "%s", path ? path : "");
    return vex_coordinator_request(rig->coordinator, &body, out_ticket, error);
}

struct vex_upkeep_answer rig_await(struct rig *rig, uint64_t ticket)
{
    uint64_t started_ms = vex_clock_ms();
    for (;;) {
        for (unsigned i = 0; i < rig->answers_count; i++) {
            if (rig->answers[i].ticket == ticket) {
                struct vex_upkeep_answer answer = rig->answers[i];
                rig->answers[i] = rig->answers[--rig->answers_count];
                return answer;
            }
        }
        rig_turn(rig);
        if (rig->answers_count == 0) {
            await_worker(rig);
        }
        if (vex_clock_ms() - started_ms > RIG_TURNS_MS) {
            fail_msg("request %llu is never answered", (unsigned long long)ticket);
        }
    }
}

struct vex_upkeep_answer rig_do(struct rig *rig, enum vex_upkeep_kind kind, const char *name)
{
    uint64_t ticket = 0;
    struct vex_error error = {.status = VEX_OK};
    if (rig_ask(rig, kind, name, NULL, &ticket, &error) != VEX_OK) {
        fail_msg("request: %s", error.message);
    }
    struct vex_upkeep_answer answer = rig_await(rig, ticket);
    if (answer.status != VEX_OK) {
        fail_msg("request: %s: %s", vex_base_status_name(answer.status), answer.error.message);
    }
    return answer;
}

/* ---- comparing ------------------------------------------------------------------------------- */

void rig_model_at(const struct rig *rig, uint64_t lsn, struct rig_model *out)
{
    memset(out, 0, sizeof(*out));
    assert_true(lsn <= rig->staged_lsn);
    for (uint64_t i = 0; i < lsn; i++) {
        const struct rig_step *step = &rig->history[i];
        switch (step->what) {
        case RIG_CREATE:
        case RIG_DROP:
            out->exists[step->name] = step->what == RIG_CREATE;
            out->asked[step->name] = 0;
            memset(out->values[step->name], 0, sizeof(out->values[step->name]));
            break;
        case RIG_ALTER:
            out->asked[step->name] = step->value;
            break;
        case RIG_PUT:
        case RIG_DELETE:
            for (uint32_t k = 0; k < step->count; k++) {
                out->values[step->name][step->first_id + k] = step->value;
            }
            break;
        }
    }
}

struct reader {
    struct vex_region control;
    bool found;
    struct vex_collection_facts facts;
    struct vex_view_state state;
    struct vex_region regions[VEX_LIST_SEGMENTS_MAX];
    struct vex_segment segments[VEX_LIST_SEGMENTS_MAX];
    struct vex_view_segment parts[VEX_LIST_SEGMENTS_MAX];
    struct vex_view view;
};

static void open_segments(const struct rig *rig, struct reader *reader)
{
    struct vex_list_block list;
    assert_true(vex_control_list(reader->control.memory, reader->state.list_block,
                                 reader->state.list_id, &list));
    for (uint32_t i = 0; i < list.segments_count; i++) {
        char name[VEX_REGION_NAME_MAX];
        vex_region_segment_name(name, rig->key, list.segments[i].segment_id);
        assert_int_equal(vex_region_open(&reader->regions[i], name, false, NULL), VEX_OK);
        struct vex_segment *segment = &reader->segments[i];
        assert_int_equal(
            vex_segment_attach(segment, reader->regions[i].memory, reader->regions[i].bytes, NULL),
            VEX_OK);
        assert_int_equal(segment->collection_id, reader->facts.id);
        bool is_last = i + 1 == list.segments_count;
        uint32_t rows = is_last ? reader->state.tail_rows : list.segments[i].rows;
        assert_true(rows <= segment->capacity_rows);
        reader->parts[i] = (struct vex_view_segment){segment, rows};
        reader->view.segments_count = i + 1;
    }
}

static struct reader *open_reader(const struct rig *rig, uint32_t name)
{
    struct reader *reader = calloc(1, sizeof(*reader));
    assert_non_null(reader);
    char region[VEX_REGION_NAME_MAX];
    vex_region_control_name(region, rig->key);
    assert_int_equal(vex_region_open(&reader->control, region, false, NULL), VEX_OK);
    const void *control = reader->control.memory;
    for (uint32_t slot = 0; slot < VEX_PLACES_MAX && !reader->found; slot++) {
        if (vex_control_collection(control, slot, &reader->facts) &&
            strcmp(reader->facts.name, names[name]) == 0) {
            reader->found = true;
            assert_int_equal(vex_control_view(control, slot, reader->facts.id, &reader->state),
                             VEX_OK);
        }
    }
    if (reader->found) {
        assert_int_equal(reader->facts.metric, metrics[name]);
        assert_int_equal(reader->facts.dim, RIG_DIM);
        reader->view.segments = reader->parts;
        reader->view.dim = reader->facts.dim;
        reader->view.metric = reader->facts.metric;
        reader->view.lsn = reader->state.lsn;
        if (reader->state.list_id != 0) {
            open_segments(rig, reader);
        }
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

static void expect_row(const struct reader *reader, uint32_t id, uint32_t value)
{
    uint32_t part = 0;
    uint32_t row = 0;
    bool found = vex_view_find(&reader->view, id, &part, &row);
    if (found != (value != 0)) {
        fail_msg("%s: id %u %s", reader->facts.name, id,
                 found ? "is there although it was deleted" : "is missing");
    }
    if (!found) {
        return;
    }
    float expected[RIG_DIM];
    make_vector(id, value, expected);
    assert_memory_equal(vex_segment_vector(&reader->segments[part], row), expected,
                        sizeof(expected));
    char text[64];
    size_t expected_bytes = make_payload(id, value, text);
    const void *payload = NULL;
    size_t bytes = 0;
    assert_true(vex_segment_payload(&reader->segments[part], row, &payload, &bytes));
    assert_int_equal(bytes, expected_bytes);
    assert_true(bytes == 0 || memcmp(payload, text, bytes) == 0);
}

static void expect_collection(const struct rig *rig, const struct rig_model *model, uint32_t name)
{
    struct reader *reader = open_reader(rig, name);
    assert_int_equal(reader->found, model->exists[name]);
    if (reader->found) {
        const struct vex_alter_body asked = make_alter(model->asked[name]);
        assert_int_equal(reader->facts.index, asked.index);
        assert_int_equal(reader->facts.ef_construction, asked.ef_construction);
    }
    uint64_t live = 0;
    for (uint32_t id = 0; reader->found && id < RIG_IDS; id++) {
        expect_row(reader, id, model->values[name][id]);
        live += model->values[name][id] != 0;
    }
    uint64_t alive = 0;
    for (uint32_t i = 0; i < reader->view.segments_count; i++) {
        for (uint32_t row = 0; row < reader->parts[i].visible_rows; row++) {
            alive += vex_segment_alive(&reader->segments[i], row, reader->view.lsn);
        }
    }
    assert_int_equal(alive, live);
    assert_int_equal(reader->state.live_rows, live);
    close_reader(reader);
}

void rig_expect(struct rig *rig, bool all)
{
    static struct rig_model model;
    char region[VEX_REGION_NAME_MAX];
    struct vex_region control;
    vex_region_control_name(region, rig->key);
    assert_int_equal(vex_region_open(&control, region, false, NULL), VEX_OK);
    uint64_t lsn = vex_control_published_lsn(control.memory);
    vex_region_close(&control);
    if (all) {
        assert_int_equal(lsn, rig->staged_lsn);
    }
    assert_true(lsn >= rig->acknowledged_lsn);
    rig_model_at(rig, lsn, &model);
    for (uint32_t name = 0; name < RIG_NAMES; name++) {
        expect_collection(rig, &model, name);
    }
}

uint32_t rig_segments(const struct rig *rig, uint32_t name)
{
    struct reader *reader = open_reader(rig, name);
    uint32_t count = reader->view.segments_count;
    close_reader(reader);
    return count;
}

void rig_expect_recovered(struct rig *rig)
{
    uint64_t lsn = vex_coordinator_durable_lsn(rig->coordinator);
    assert_in_range(lsn, rig->acknowledged_lsn, rig->staged_lsn);
    rig->staged_lsn = rig->acknowledged_lsn = lsn;
    rig_expect(rig, true);
    for (uint32_t name = 0; name < RIG_NAMES; name++) {
        struct reader *reader = open_reader(rig, name);
        rig->ids[name] = reader->facts.id;
        close_reader(reader);
    }
}

/* ---- what is left lying about ---------------------------------------------------------------- */

static unsigned count_names(const char *path, const char *part, bool at_end)
{
    DIR *directory = opendir(path);
    unsigned count = 0;
    struct dirent *entry;
    while (directory && (entry = readdir(directory))) {
        size_t length = strlen(entry->d_name);
        size_t part_length = strlen(part);
        if (at_end
                ? length >= part_length && strcmp(entry->d_name + length - part_length, part) == 0
                : strstr(entry->d_name, part) != NULL) {
            count++;
        }
    }
    if (directory) {
        (void)closedir(directory);
    }
    return count;
}

unsigned rig_count_files(const struct rig *rig, const char *directory, const char *suffix)
{
    char path[512];
    (void)snprintf(path, sizeof(path), "%s/%s", rig->directory.path, directory);
    return count_names(path, suffix, true);
}

unsigned rig_count_shared(const struct rig *rig)
{
    char name[VEX_REGION_NAME_MAX];
    vex_region_control_name(name, rig->key);
    char *end = strstr(name, "-ctl");
    assert_non_null(end);
    *end = 0;
    return count_names("/dev/shm", name[0] == '/' ? name + 1 : name, false);
}
