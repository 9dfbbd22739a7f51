/*
 * The control region: what a reader accepts, and that it sees whole states only. What needs an unlucky
 * moment is made by hand: a cell that the writer has begun and not finished, a ring that went round
 * while a reader was away. One case runs a writer and a reader as threads over one mapping.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "shm/control.h"
#include "shm/pin.h"
#include "tests/lib/child.h"
#include "tests/lib/random.h"

#define COUNT_OF(array) (sizeof(array) / sizeof(*(array)))
#define SECOND_NS 1000000000u

static uint64_t seed;
static const uint8_t key[VEX_UUID_BYTES] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

/* One region, mapped twice: as the daemon has it, and read-only as a client has it. */
struct mapping {
    int fd;
    void *writer;
    const void *reader;
};

static int map_region(void **state)
{
    struct mapping *mapping = calloc(1, sizeof(*mapping));
    assert_non_null(mapping);
    mapping->fd = memfd_create("test_shm_control", MFD_CLOEXEC);
    assert_true(mapping->fd >= 0);
    assert_int_equal(ftruncate(mapping->fd, VEX_CONTROL_REGION_BYTES), 0);
    mapping->writer =
        mmap(NULL, VEX_CONTROL_REGION_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, mapping->fd, 0);
    mapping->reader = mmap(NULL, VEX_CONTROL_REGION_BYTES, PROT_READ, MAP_SHARED, mapping->fd, 0);
    assert_ptr_not_equal(mapping->writer, MAP_FAILED);
    assert_ptr_not_equal(mapping->reader, MAP_FAILED);
    vex_control_init(mapping->writer, key, 4711);
    *state = mapping;
    return 0;
}

static int map_ready_region(void **state)
{
    int result = map_region(state);
    vex_control_ready(((struct mapping *)*state)->writer);
    return result;
}

static int unmap_region(void **state)
{
    struct mapping *mapping = *state;
    (void)munmap(mapping->writer, VEX_CONTROL_REGION_BYTES);
    (void)munmap((void *)(uintptr_t)mapping->reader, VEX_CONTROL_REGION_BYTES);
    (void)close(mapping->fd);
    free(mapping);
    return 0;
}

static struct vex_collection_entry *entry_of(void *region, uint32_t slot)
{
    uint8_t *entries = (uint8_t *)region + VEX_ENTRIES_OFFSET;
    return (struct vex_collection_entry *)(void *)entries + slot;
}

static struct vex_collection_facts facts_for(uint32_t id, const char *name)
{
    struct vex_collection_facts facts = {.id = id,
                                         .dim = 8,
                                         .metric = VEX_METRIC_DOT,
                                         .index = VEX_INDEX_HNSW,
                                         .m = 17,
                                         .ef_construction = 99,
                                         .storage = VEX_STORAGE_INT8,
                                         .lists = 1001};
    (void)snprintf(facts.name, sizeof(facts.name), "%s", name);
    return facts;
}

/* A state all of whose words follow from one number, so that a mixture shows. */
static struct vex_view_state state_for(uint64_t number)
{
    return (struct vex_view_state){
        .lsn = number,
        .list_id = number * 3 + 1,
        .live_rows = number * 5 + 2,
        .dead_rows = number * 7 + 3,
        .shm_bytes = number * 11 + 4,
        .list_block = (uint32_t)(number * 13 + 5),
        .tail_rows = (uint32_t)(number * 17 + 6),
    };
}

static bool is_whole(const struct vex_view_state *view)
{
    struct vex_view_state expected = state_for(view->lsn);
    return memcmp(view, &expected, sizeof(expected)) == 0;
}

static void assert_view(const void *region, uint32_t slot, uint32_t id, uint64_t number)
{
    struct vex_view_state view;
    struct vex_view_state expected = state_for(number);
    assert_int_equal(vex_control_view(region, slot, id, &view), VEX_OK);
    assert_memory_equal(&view, &expected, sizeof(view));
}

/* ---- readiness ------------------------------------------------------------------------------- */

static enum vex_status check(const void *region, uint64_t bytes, const uint8_t *wanted_key,
                             const char *word)
{
    struct vex_error error = {.status = VEX_OK};
    enum vex_status status = vex_control_check(region, bytes, wanted_key, &error);
    assert_int_equal(vex_control_check(region, bytes, wanted_key, NULL), status);
    assert_int_equal(error.status, status);
    if (word) {
        assert_non_null(strstr(error.message, word));
    }
    return status;
}

static void a_region_is_busy_until_it_is_ready(void **state)
{
    struct mapping *mapping = *state;
    assert_int_equal(check(mapping->reader, VEX_CONTROL_REGION_BYTES, key, "starting"),
                     VEX_ERR_BUSY);
    vex_control_ready(mapping->writer);
    assert_int_equal(check(mapping->reader, VEX_CONTROL_REGION_BYTES, key, NULL), VEX_OK);
    assert_int_equal(vex_control_state(mapping->reader), VEX_DAEMON_RUNNING);
    assert_int_equal(vex_control_published_lsn(mapping->reader), 0);
    /* Generation 0 in a slot means idle, so the first one must not be 0. */
    assert_true(vex_control_generation(mapping->reader) > 0);
}

static void zeroed_memory_is_not_ready(void **state)
{
    struct mapping *mapping = *state;
    memset(mapping->writer, 0, VEX_CONTROL_REGION_BYTES);
    assert_int_equal(check(mapping->reader, VEX_CONTROL_REGION_BYTES, key, NULL), VEX_ERR_BUSY);
}

static void a_region_of_another_layout_is_refused_with_the_remedy(void **state)
{
    struct mapping *mapping = *state;
    struct vex_control *control = mapping->writer;
    atomic_store(&control->layout_hash, vex_layout_hash() ^ 1);
    control->version = VEX_LAYOUT_VERSION + 1;
    assert_int_equal(check(mapping->reader, VEX_CONTROL_REGION_BYTES, key, "libvex"),
                     VEX_ERR_VERSION);
    /* Another layout may also be smaller. */
    assert_int_equal(check(mapping->reader, VEX_PAGE_BYTES, key, "layout"), VEX_ERR_VERSION);
}

static void memory_that_is_no_control_region_is_refused(void **state)
{
    struct mapping *mapping = *state;
    struct vex_control *control = mapping->writer;
    control->magic ^= 0x100;
    assert_int_equal(check(mapping->reader, VEX_CONTROL_REGION_BYTES, key, "magic"),
                     VEX_ERR_CORRUPT);
}

static void the_region_of_another_instance_is_refused(void **state)
{
    struct mapping *mapping = *state;
    for (size_t i = 0; i < VEX_UUID_BYTES; i++) {
        uint8_t other[VEX_UUID_BYTES];
        memcpy(other, key, sizeof(other));
        other[i] ^= 0x80;
        assert_int_equal(check(mapping->reader, VEX_CONTROL_REGION_BYTES, other, "instance"),
                         VEX_ERR_CORRUPT);
    }
}

static void a_region_that_is_too_short_is_refused(void **state)
{
    struct mapping *mapping = *state;
    const uint64_t lengths[] = {
        0, 1, VEX_PAGE_BYTES - 1, VEX_PAGE_BYTES, VEX_LISTS_OFFSET, VEX_CONTROL_REGION_BYTES - 1};
    for (size_t i = 0; i < COUNT_OF(lengths); i++) {
        assert_int_equal(check(mapping->reader, lengths[i], key, "region"), VEX_ERR_CORRUPT);
    }
    assert_int_equal(check(mapping->reader, VEX_CONTROL_REGION_BYTES + 1, key, NULL), VEX_OK);
}

static void the_layout_hash_is_not_zero_and_the_same_each_time(void **state)
{
    (void)state;
    assert_true(vex_layout_hash() != 0);
    assert_int_equal(vex_layout_hash(), vex_layout_hash());
}

/* ---- collections ----------------------------------------------------------------------------- */

static void a_collection_is_found_while_it_is_there(void **state)
{
    struct mapping *mapping = *state;
    const uint32_t slots[] = {0, 1, 500, VEX_PLACES_MAX - 1};
    struct vex_collection_facts found;
    for (size_t i = 0; i < COUNT_OF(slots); i++) {
        assert_false(vex_control_collection(mapping->reader, slots[i], &found));
        uint64_t catalog = vex_control_catalog(mapping->reader);
        char name[VEX_NAME_MAX + 1];
        memset(name, 'a' + (int)i, VEX_NAME_MAX);
        name[VEX_NAME_MAX] = 0;
        struct vex_collection_facts facts = facts_for(100 + (uint32_t)i, name);
        facts.dim = i == 0 ? 1 : i == 1 ? VEX_DIM_MAX : 77;
        vex_control_add_collection(mapping->writer, slots[i], &facts);
        assert_int_not_equal(vex_control_catalog(mapping->reader), catalog);
        assert_true(vex_control_collection(mapping->reader, slots[i], &found));
        assert_int_equal(found.id, facts.id);
        assert_int_equal(found.dim, facts.dim);
        assert_int_equal(found.metric, facts.metric);
        assert_int_equal(found.index, facts.index);
        assert_int_equal(found.m, facts.m);
        assert_int_equal(found.ef_construction, facts.ef_construction);
        assert_int_equal(found.storage, facts.storage);
        assert_int_equal(found.lists, facts.lists);
        assert_string_equal(found.name, name);
    }
    for (size_t i = 0; i < COUNT_OF(slots); i++) {
        uint64_t catalog = vex_control_catalog(mapping->reader);
        vex_control_remove_collection(mapping->writer, slots[i]);
        assert_int_not_equal(vex_control_catalog(mapping->reader), catalog);
        assert_false(vex_control_collection(mapping->reader, slots[i], &found));
        for (size_t j = i + 1; j < COUNT_OF(slots); j++) {
            assert_true(vex_control_collection(mapping->reader, slots[j], &found));
        }
    }
}

static struct vex_collection_facts asked_for(uint32_t number)
{
    struct vex_collection_facts facts = facts_for(9, "x");
    facts.index = (enum vex_index_kind)(number % 4);
    facts.m = VEX_HNSW_M_MIN + number % (VEX_HNSW_M_MAX - VEX_HNSW_M_MIN + 1);
    facts.ef_construction = VEX_HNSW_EF_CONSTRUCTION_MAX - number % 4000;
    facts.lists = (number * 17) % (VEX_LISTS_MAX + 1);
    return facts;
}

static void another_index_is_asked_for(void **state)
{
    struct mapping *mapping = *state;
    struct vex_collection_facts facts = facts_for(9, "x");
    vex_control_add_collection(mapping->writer, 3, &facts);
    uint64_t catalog = vex_control_catalog(mapping->reader);
    for (uint32_t number = 0; number < 5000; number++) {
        const struct vex_collection_facts wanted = asked_for(number);
        struct vex_collection_facts found;
        vex_control_set_index(mapping->writer, 3, &wanted);
        assert_true(vex_control_collection(mapping->reader, 3, &found));
        assert_int_equal(found.index, wanted.index);
        assert_int_equal(found.m, wanted.m);
        assert_int_equal(found.ef_construction, wanted.ef_construction);
        assert_int_equal(found.lists, wanted.lists);
        assert_int_equal(found.id, facts.id);
        assert_int_equal(found.dim, facts.dim);
        assert_int_equal(found.metric, facts.metric);
        assert_int_equal(found.storage, facts.storage);
        assert_string_equal(found.name, "x");
    }
    assert_int_equal(vex_control_catalog(mapping->reader), catalog);
}

static void a_reused_slot_shows_the_new_collection_only(void **state)
{
    struct mapping *mapping = *state;
    struct vex_view_state view;
    for (uint32_t id = 1; id <= 40; id++) {
        struct vex_collection_facts facts = facts_for(id, id % 2 ? "odd" : "even-and-longer");
        struct vex_view_state first = state_for(1000 * id);
        vex_control_set_view(mapping->writer, 7, &first);
        vex_control_add_collection(mapping->writer, 7, &facts);
        struct vex_collection_facts found;
        assert_true(vex_control_collection(mapping->reader, 7, &found));
        assert_string_equal(found.name, facts.name);
        assert_view(mapping->reader, 7, id, 1000 * id);
        assert_int_equal(vex_control_view(mapping->reader, 7, id - 1, &view), VEX_ERR_GONE);
        assert_int_equal(vex_control_view(mapping->reader, 7, id + 1, &view), VEX_ERR_GONE);
        vex_control_remove_collection(mapping->writer, 7);
        assert_int_equal(vex_control_view(mapping->reader, 7, id, &view), VEX_ERR_GONE);
    }
}

static void damaged_facts_of_a_collection_are_refused(void **state)
{
    struct mapping *mapping = *state;
    struct vex_collection_facts facts = facts_for(9, "x");
    struct vex_collection_facts found;
    vex_control_add_collection(mapping->writer, 3, &facts);
    struct vex_collection_entry *entry = entry_of(mapping->writer, 3);
    const uint32_t bad_dims[] = {0, VEX_DIM_MAX + 1, UINT32_MAX};
    for (size_t i = 0; i < COUNT_OF(bad_dims); i++) {
        entry->dim = bad_dims[i];
        assert_false(vex_control_collection(mapping->reader, 3, &found));
    }
    entry->dim = 8;
    const uint32_t bad_metrics[] = {0, 4, UINT32_MAX};
    for (size_t i = 0; i < COUNT_OF(bad_metrics); i++) {
        entry->metric = bad_metrics[i];
        assert_false(vex_control_collection(mapping->reader, 3, &found));
    }
    entry->metric = VEX_METRIC_L2;
    const struct {
        uint64_t index, m, ef_construction, lists;
    } bad_tunings[] = {{4, 16, 100, 0},
                       {255, 16, 100, 0},
                       {VEX_INDEX_HNSW, 3, 100, 0},
                       {VEX_INDEX_HNSW, 16, 5000, 0},
                       {VEX_INDEX_HNSW, 16, 100, VEX_LISTS_MAX + 1}};
    for (size_t i = 0; i < COUNT_OF(bad_tunings); i++) {
        /* relaxed: one thread. */
        atomic_store_explicit(&entry->tuning,
                              bad_tunings[i].index << VEX_TUNING_INDEX_SHIFT |
                                  bad_tunings[i].m << VEX_TUNING_M_SHIFT |
                                  bad_tunings[i].ef_construction << VEX_TUNING_EF_SHIFT |
                                  bad_tunings[i].lists << VEX_TUNING_LISTS_SHIFT,
                              memory_order_relaxed);
        assert_false(vex_control_collection(mapping->reader, 3, &found));
    }
    vex_control_set_index(mapping->writer, 3, &facts);
    entry->storage = 3;
    assert_false(vex_control_collection(mapping->reader, 3, &found));
    entry->storage = VEX_STORAGE_FLOAT16;
    memset(entry->name, 'n', sizeof(entry->name));
    assert_true(vex_control_collection(mapping->reader, 3, &found));
    assert_int_equal(strnlen(found.name, sizeof(found.name)), VEX_NAME_MAX);
}

/* ---- views ----------------------------------------------------------------------------------- */

static void a_view_is_what_was_set_last_however_often_the_ring_went_round(void **state)
{
    struct mapping *mapping = *state;
    struct vex_collection_facts facts = facts_for(5, "x");
    vex_control_add_collection(mapping->writer, 2, &facts);
    for (uint64_t number = 1; number <= 5 * VEX_VIEW_RING + 3; number++) {
        struct vex_view_state view = state_for(number);
        vex_control_set_view(mapping->writer, 2, &view);
        assert_view(mapping->reader, 2, 5, number);
    }
}

static void views_of_two_collections_do_not_touch(void **state)
{
    struct mapping *mapping = *state;
    const uint32_t slots[] = {0, 1, VEX_PLACES_MAX - 2, VEX_PLACES_MAX - 1};
    uint64_t newest[COUNT_OF(slots)];
    for (size_t i = 0; i < COUNT_OF(slots); i++) {
        struct vex_collection_facts facts = facts_for(10 + (uint32_t)i, "x");
        newest[i] = i;
        struct vex_view_state view = state_for(newest[i]);
        vex_control_set_view(mapping->writer, slots[i], &view);
        vex_control_add_collection(mapping->writer, slots[i], &facts);
    }
    struct vex_random random = vex_random_seeded(seed);
    for (int round = 0; round < 500; round++) {
        size_t which = vex_random_below(&random, COUNT_OF(slots));
        newest[which] = vex_random_below(&random, 1000000);
        struct vex_view_state view = state_for(newest[which]);
        vex_control_set_view(mapping->writer, slots[which], &view);
        for (size_t i = 0; i < COUNT_OF(slots); i++) {
            assert_view(mapping->reader, slots[i], 10 + (uint32_t)i, newest[i]);
        }
    }
}

/* A daemon that died at any store of vex_control_set_view: the view before is still the whole truth. */
static void a_cell_that_was_begun_and_never_finished_is_not_seen(void **state)
{
    struct mapping *mapping = *state;
    struct vex_collection_facts facts = facts_for(5, "x");
    vex_control_add_collection(mapping->writer, 2, &facts);
    struct vex_collection_entry *entry = entry_of(mapping->writer, 2);
    for (uint64_t number = 1; number <= 2 * VEX_VIEW_RING; number++) {
        struct vex_view_state view = state_for(number);
        vex_control_set_view(mapping->writer, 2, &view);
        struct vex_view_cell *next = &entry->views[(number + 1) % VEX_VIEW_RING];
        struct vex_view_cell kept;
        memcpy(&kept, next, sizeof(kept));
        atomic_store(&next->sequence, 0);
        assert_view(mapping->reader, 2, 5, number);
        atomic_store(&next->lsn, 999);
        atomic_store(&next->list_id, 888);
        assert_view(mapping->reader, 2, 5, number);
        /* Complete, but not named yet. */
        atomic_store(&next->sequence, number + 1);
        assert_view(mapping->reader, 2, 5, number);
        memcpy(next, &kept, sizeof(kept));
    }
}

/* What a reader sees whose cell is overwritten for ever: it gives up instead of returning a mixture. */
static void a_cell_that_never_belongs_to_the_view_ends_the_search(void **state)
{
    struct mapping *mapping = *state;
    struct vex_collection_facts facts = facts_for(5, "x");
    vex_control_add_collection(mapping->writer, 2, &facts);
    struct vex_view_state view = state_for(1);
    vex_control_set_view(mapping->writer, 2, &view);
    struct vex_collection_entry *entry = entry_of(mapping->writer, 2);
    const uint64_t others[] = {0, 2, 1 + VEX_VIEW_RING, UINT64_MAX};
    for (size_t i = 0; i < COUNT_OF(others); i++) {
        atomic_store(&entry->views[1].sequence, others[i]);
        assert_int_equal(vex_control_view(mapping->reader, 2, 5, &view), VEX_ERR_CORRUPT);
    }
    /* Any number in `view` leads into the ring. */
    const uint64_t wild[] = {UINT64_MAX, (uint64_t)1 << 63, 12345};
    for (size_t i = 0; i < COUNT_OF(wild); i++) {
        atomic_store(&entry->view, wild[i]);
        assert_int_equal(vex_control_view(mapping->reader, 2, 5, &view), VEX_ERR_CORRUPT);
    }
}

/* ---- instruction by instruction -------------------------------------------------------------- */

#define STEPPED_VIEWS (VEX_VIEW_RING + 3u)
/* The thread sanitizer's atomic operations are calls of thousands of instructions. */
#ifdef __SANITIZE_THREAD__
#define STEPPING_ENDS false
#else
#define STEPPING_ENDS true
#endif

/* Sets one view more, one instruction at a time, as seen by a tracer. */
static _Noreturn void set_view_traced(void *region)
{
    struct vex_view_state view = state_for(STEPPED_VIEWS);
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) {
        _exit(VEX_CHILD_SKIPPED);
    }
    (void)raise(SIGSTOP);
    vex_control_set_view(region, 2, &view);
    _exit(0);
}

/* What the reader gets who loaded `sequence` a moment ago: nothing, or the whole view of that number. */
static const char *stale_read_fault(struct mapping *mapping, uint64_t sequence)
{
    struct vex_collection_entry *entry = entry_of(mapping->writer, 2);
    uint64_t current = atomic_load(&entry->view);
    struct vex_view_state view;
    atomic_store(&entry->view, sequence);
    enum vex_status status = vex_control_view(mapping->reader, 2, 5, &view);
    atomic_store(&entry->view, current);
    if (status == VEX_OK && (!is_whole(&view) || view.lsn != sequence)) {
        return "a reader that was overtaken took a mixture for a view";
    }
    return NULL;
}

static const char *current_read_fault(const struct mapping *mapping)
{
    struct vex_view_state view;
    if (vex_control_view(mapping->reader, 2, 5, &view) != VEX_OK) {
        return "no view";
    }
    bool known = view.lsn == STEPPED_VIEWS || view.lsn == STEPPED_VIEWS - 1;
    return known && is_whole(&view) ? NULL : "a view that is neither the old nor the new one";
}

/* At every instruction of the writer: it may die there, and a reader may come there. */
static void no_instruction_of_setting_a_view_leaves_a_mixture(void **state)
{
    if (!STEPPING_ENDS) {
        skip();
    }
    struct mapping *mapping = *state;
    struct vex_collection_facts facts = facts_for(5, "x");
    vex_control_add_collection(mapping->writer, 2, &facts);
    for (uint64_t number = 1; number < STEPPED_VIEWS; number++) {
        struct vex_view_state view = state_for(number);
        vex_control_set_view(mapping->writer, 2, &view);
    }
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        set_view_traced(mapping->writer);
    }
    const char *fault = NULL;
    int status = 0;
    unsigned steps = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    while (WIFSTOPPED(status) && !fault && steps < 20000) {
        if (ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) != 0 ||
            waitpid(child, &status, 0) != child) {
            fault = "the child cannot be stepped";
            break;
        }
        /* The cell that is being overwritten is that of a whole ring ago. */
        fault = stale_read_fault(mapping, STEPPED_VIEWS - VEX_VIEW_RING);
        fault = fault ? fault : current_read_fault(mapping);
        steps++;
    }
    if (!WIFEXITED(status)) {
        (void)kill(child, SIGKILL);
        (void)waitpid(child, NULL, 0);
    } else if (WEXITSTATUS(status) == VEX_CHILD_SKIPPED) {
        printf("stepping a child is forbidden here\n");
        skip();
    }
    if (fault) {
        fail_msg("instruction %u: %s", steps, fault);
    }
    assert_true(steps > 20);
    assert_view(mapping->reader, 2, 5, STEPPED_VIEWS);
}

struct race {
    struct mapping *mapping;
    atomic_bool stop;
    uint64_t written;
};

static void *set_views(void *context)
{
    struct race *race = context;
    uint64_t number = 1;
    while (!atomic_load(&race->stop)) {
        struct vex_view_state view = state_for(++number);
        vex_control_set_view(race->mapping->writer, 2, &view);
    }
    race->written = number;
    return NULL;
}

static void a_reader_beside_a_writer_sees_whole_states_in_order(void **state)
{
    /* One mapping: the thread sanitizer does not relate two. */
    struct race race = {.mapping = *state};
    const void *region = race.mapping->writer;
    struct vex_collection_facts facts = facts_for(5, "x");
    struct vex_view_state first = state_for(1);
    vex_control_set_view(race.mapping->writer, 2, &first);
    vex_control_add_collection(race.mapping->writer, 2, &facts);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, set_views, &race), 0);
    uint64_t before = 0;
    uint64_t changes = 0;
    bool in_order = true;
    bool whole = true;
    bool answered = true;
    uint64_t deadline_ns = vex_clock_ns() + SECOND_NS / 2;
    while (vex_clock_ns() < deadline_ns && in_order && whole && answered) {
        struct vex_view_state view;
        answered = vex_control_view(region, 2, 5, &view) == VEX_OK;
        whole = is_whole(&view);
        in_order = view.lsn >= before;
        changes += view.lsn != before;
        before = view.lsn;
    }
    atomic_store(&race.stop, true);
    (void)pthread_join(thread, NULL);
    assert_true(answered);
    assert_true(whole);
    assert_true(in_order);
    assert_true(changes > 1);
    assert_view(region, 2, 5, race.written);
}

/* ---- lists ----------------------------------------------------------------------------------- */

static void a_list_is_copied_if_it_is_the_one_asked_for(void **state)
{
    struct mapping *mapping = *state;
    const uint32_t blocks[] = {0, 1, VEX_LIST_BLOCKS_MAX - 1};
    struct vex_list_block copy;
    for (size_t i = 0; i < COUNT_OF(blocks); i++) {
        struct vex_list_block *block = vex_control_list_block(mapping->writer, blocks[i]);
        assert_true((uint8_t *)(block + 1) <=
                    (uint8_t *)mapping->writer + VEX_CONTROL_REGION_BYTES);
        block->list_id = 50 + i;
        block->segments_count = VEX_LIST_SEGMENTS_MAX;
        for (uint32_t s = 0; s < VEX_LIST_SEGMENTS_MAX; s++) {
            block->segments[s] = (struct vex_list_segment){s + 1000 * i, s, 0};
        }
        assert_true(vex_control_list(mapping->reader, blocks[i], 50 + i, &copy));
        assert_memory_equal(&copy, block, sizeof(copy));
        assert_false(vex_control_list(mapping->reader, blocks[i], 49 + i, &copy));
        assert_false(vex_control_list(mapping->reader, blocks[i], 0, &copy));
    }
}

static void lists_that_lead_outside_are_refused(void **state)
{
    struct mapping *mapping = *state;
    struct vex_list_block copy;
    assert_false(vex_control_list(mapping->reader, VEX_LIST_BLOCKS_MAX, 1, &copy));
    assert_false(vex_control_list(mapping->reader, UINT32_MAX, 1, &copy));
    struct vex_list_block *block = vex_control_list_block(mapping->writer, 4);
    block->list_id = 1;
    const uint32_t counts[] = {VEX_LIST_SEGMENTS_MAX + 1, UINT32_MAX};
    for (size_t i = 0; i < COUNT_OF(counts); i++) {
        block->segments_count = counts[i];
        assert_false(vex_control_list(mapping->reader, 4, 1, &copy));
    }
}

/* ---- publishing and waiting ------------------------------------------------------------------ */

static void each_publication_has_its_own_generation(void **state)
{
    struct mapping *mapping = *state;
    uint64_t before = vex_control_generation(mapping->reader);
    const uint64_t lsns[] = {0, 1, 1, 7, UINT64_MAX};
    for (size_t i = 0; i < COUNT_OF(lsns); i++) {
        uint64_t generation = vex_control_publish(mapping->writer, lsns[i]);
        assert_int_equal(generation, before + 1);
        assert_int_equal(vex_control_generation(mapping->reader), generation);
        assert_int_equal(vex_control_published_lsn(mapping->reader), lsns[i]);
        before = generation;
    }
}

static void waiting_for_what_is_there_does_not_wait(void **state)
{
    struct mapping *mapping = *state;
    (void)vex_control_publish(mapping->writer, 10);
    assert_true(vex_control_wait(mapping->reader, 10, 0));
    assert_true(vex_control_wait(mapping->reader, 0, 0));
    assert_true(vex_control_wait(mapping->reader, 3, UINT64_MAX));
    /* Also when the daemon has gone meanwhile: the state that was asked for is there. */
    vex_control_set_state(mapping->writer, VEX_DAEMON_GONE);
    assert_true(vex_control_wait(mapping->reader, 10, UINT64_MAX));
}

static void waiting_ends_at_the_deadline(void **state)
{
    struct mapping *mapping = *state;
    assert_false(vex_control_wait(mapping->reader, 1, 0));
    assert_false(vex_control_wait(mapping->reader, 1, vex_clock_ns()));
    uint64_t start_ns = vex_clock_ns();
    uint64_t deadline_ns = start_ns + SECOND_NS / 20;
    assert_false(vex_control_wait(mapping->reader, 1, deadline_ns));
    assert_true(vex_clock_ns() >= deadline_ns);
    assert_true(vex_clock_ns() < start_ns + 5 * (uint64_t)SECOND_NS);
}

static uint64_t processor_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

/* The mapping is read-only: were the futex call refused for that, the wait would spin. */
static void waiting_sleeps_also_over_a_read_only_mapping(void **state)
{
    struct mapping *mapping = *state;
    uint64_t before_ns = processor_ns();
    assert_false(vex_control_wait(mapping->reader, 1, vex_clock_ns() + SECOND_NS / 5));
    assert_true(processor_ns() - before_ns < SECOND_NS / 20);
}

enum waking { WAKE_BY_LSN, WAKE_BY_GONE, WAKE_TOO_EARLY_FIRST };

struct waker {
    void *region;
    enum waking how;
};

static void *wake_up(void *context)
{
    struct waker *waker = context;
    (void)usleep(20000);
    if (waker->how == WAKE_BY_GONE) {
        vex_control_set_state(waker->region, VEX_DAEMON_GONE);
        return NULL;
    }
    if (waker->how == WAKE_TOO_EARLY_FIRST) {
        for (uint64_t lsn = 1; lsn < 10; lsn++) {
            (void)vex_control_publish(waker->region, lsn);
            (void)usleep(1000);
        }
        /* A state that is not the end does not end the wait either. */
        vex_control_set_state(waker->region, VEX_DAEMON_READ_ONLY);
        (void)usleep(1000);
    }
    (void)vex_control_publish(waker->region, 10);
    return NULL;
}

static void waiting_ends_when_the_lsn_comes_or_the_daemon_goes(void **state)
{
    const struct {
        enum waking how;
        bool expected;
    } cases[] = {
        {WAKE_BY_LSN, true},
        {WAKE_TOO_EARLY_FIRST, true},
        {WAKE_BY_GONE, false},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        if (i > 0) {
            (void)unmap_region(state);
            (void)map_ready_region(state);
        }
        struct mapping *mapping = *state;
        struct waker waker = {mapping->writer, cases[i].how};
        pthread_t thread;
        uint64_t start_ns = vex_clock_ns();
        assert_int_equal(pthread_create(&thread, NULL, wake_up, &waker), 0);
        bool came = vex_control_wait(mapping->reader, 10, start_ns + 20 * (uint64_t)SECOND_NS);
        uint64_t took_ns = vex_clock_ns() - start_ns;
        (void)pthread_join(thread, NULL);
        assert_int_equal(came, cases[i].expected);
        assert_true(took_ns < 10 * (uint64_t)SECOND_NS);
    }
}

static void a_beat_tells_the_time(void **state)
{
    struct mapping *mapping = *state;
    assert_int_equal(vex_control_heartbeat_ms(mapping->reader), 0);
    uint64_t before_ms = vex_clock_ms();
    vex_control_beat(mapping->writer);
    assert_in_range(vex_control_heartbeat_ms(mapping->reader), before_ms, vex_clock_ms());
}

/* ---- slots ----------------------------------------------------------------------------------- */

static void the_oldest_pin_of_a_page_is_found(void **state)
{
    (void)state;
    struct vex_slot_page *page = aligned_alloc(VEX_PAGE_BYTES, sizeof(*page));
    assert_non_null(page);
    memset(page, 0, sizeof(*page));
    assert_int_equal(vex_slot_page_oldest(page, 100), UINT64_MAX);
    vex_pin_enter(&page->slots[0], 40);
    vex_pin_enter(&page->slots[VEX_SLOTS_PER_PAGE - 1], 30);
    assert_int_equal(vex_slot_page_oldest(page, 100), 30);
    vex_pin_enter(&page->slots[17], 100);
    assert_int_equal(vex_slot_page_oldest(page, 100), 30);
    assert_true(vex_unpin(page, &page->slots[VEX_SLOTS_PER_PAGE - 1]));
    assert_int_equal(vex_slot_page_oldest(page, 100), 40);
    assert_true(vex_unpin(page, &page->slots[0]));
    assert_int_equal(vex_slot_page_oldest(page, 100), 100);
    assert_true(vex_unpin(page, &page->slots[17]));
    assert_int_equal(vex_slot_page_oldest(page, 100), UINT64_MAX);
    free(page);
}

static void a_pin_of_the_future_protects_everything(void **state)
{
    (void)state;
    struct vex_slot_page *page = aligned_alloc(VEX_PAGE_BYTES, sizeof(*page));
    assert_non_null(page);
    memset(page, 0, sizeof(*page));
    vex_pin_enter(&page->slots[5], UINT64_MAX);
    assert_int_equal(vex_slot_page_oldest(page, 100), 1);
    vex_pin_enter(&page->slots[5], 101);
    assert_int_equal(vex_slot_page_oldest(page, 100), 1);
    free(page);
}

static void a_pin_follows_the_current_generation(void **state)
{
    struct mapping *mapping = *state;
    struct vex_slot_page *page = aligned_alloc(VEX_PAGE_BYTES, sizeof(*page));
    assert_non_null(page);
    memset(page, 0, sizeof(*page));
    uint64_t old = vex_control_generation(mapping->reader);
    uint64_t current = vex_control_publish(mapping->writer, 1);
    vex_pin_enter(&page->slots[1], old);
    assert_int_equal(vex_slot_page_oldest(page, current), old);
    assert_int_equal(vex_pin_refresh(mapping->reader, &page->slots[1], old), current);
    assert_int_equal(vex_slot_page_oldest(page, current), current);
    assert_int_equal(vex_pin_refresh(mapping->reader, &page->slots[1], current), current);
    assert_true(vex_unpin(page, &page->slots[1]));
    free(page);
}

static void a_reader_on_a_revoked_page_is_told_at_the_end(void **state)
{
    (void)state;
    struct vex_slot_page *page = aligned_alloc(VEX_PAGE_BYTES, sizeof(*page));
    assert_non_null(page);
    memset(page, 0, sizeof(*page));
    vex_pin_enter(&page->slots[1], 3);
    assert_false(vex_slot_page_is_revoked(page));
    vex_slot_page_revoke(page);
    assert_true(vex_slot_page_is_revoked(page));
    assert_false(vex_unpin(page, &page->slots[1]));
    free(page);
}

/* The daemon goes through all slots when it revokes a page, and a reader through its own when it looks
 * in the middle of a pin: neither may change what is pinned. */
static void looking_after_a_pin_and_revoking_leave_the_slots_as_they_are(void **state)
{
    (void)state;
    struct vex_slot_page *page = aligned_alloc(VEX_PAGE_BYTES, sizeof(*page));
    assert_non_null(page);
    memset(page, 0, sizeof(*page));
    vex_pin_enter(&page->slots[0], 7);
    vex_pin_enter(&page->slots[VEX_SLOTS_PER_PAGE - 1], 5);
    assert_true(vex_pin_holds(page, &page->slots[0]));
    assert_int_equal(vex_slot_page_oldest(page, 100), 5);
    vex_slot_page_revoke(page);
    assert_false(vex_pin_holds(page, &page->slots[0]));
    assert_false(vex_pin_holds(page, &page->slots[VEX_SLOTS_PER_PAGE - 1]));
    assert_int_equal(vex_slot_page_oldest(page, 100), 5);
    assert_false(vex_unpin(page, &page->slots[VEX_SLOTS_PER_PAGE - 1]));
    assert_int_equal(vex_slot_page_oldest(page, 100), 7);
    free(page);
}

#define READY(test) cmocka_unit_test_setup_teardown(test, map_ready_region, unmap_region)

int main(void)
{
    seed = vex_random_announce("test_shm_control");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_region_is_busy_until_it_is_ready, map_region,
                                        unmap_region),
        READY(zeroed_memory_is_not_ready),
        READY(a_region_of_another_layout_is_refused_with_the_remedy),
        READY(memory_that_is_no_control_region_is_refused),
        READY(the_region_of_another_instance_is_refused),
        READY(a_region_that_is_too_short_is_refused),
        cmocka_unit_test(the_layout_hash_is_not_zero_and_the_same_each_time),
        READY(a_collection_is_found_while_it_is_there),
        READY(another_index_is_asked_for),
        READY(a_reused_slot_shows_the_new_collection_only),
        READY(damaged_facts_of_a_collection_are_refused),
        READY(a_view_is_what_was_set_last_however_often_the_ring_went_round),
        READY(views_of_two_collections_do_not_touch),
        READY(a_cell_that_was_begun_and_never_finished_is_not_seen),
        READY(a_cell_that_never_belongs_to_the_view_ends_the_search),
        READY(no_instruction_of_setting_a_view_leaves_a_mixture),
        READY(a_reader_beside_a_writer_sees_whole_states_in_order),
        READY(a_list_is_copied_if_it_is_the_one_asked_for),
        READY(lists_that_lead_outside_are_refused),
        READY(each_publication_has_its_own_generation),
        READY(waiting_for_what_is_there_does_not_wait),
        READY(waiting_ends_at_the_deadline),
        READY(waiting_sleeps_also_over_a_read_only_mapping),
        READY(waiting_ends_when_the_lsn_comes_or_the_daemon_goes),
        READY(a_beat_tells_the_time),
        cmocka_unit_test(the_oldest_pin_of_a_page_is_found),
        cmocka_unit_test(a_pin_of_the_future_protects_everything),
        READY(a_pin_follows_the_current_generation),
        cmocka_unit_test(a_reader_on_a_revoked_page_is_told_at_the_end),
        cmocka_unit_test(looking_after_a_pin_and_revoking_leave_the_slots_as_they_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
