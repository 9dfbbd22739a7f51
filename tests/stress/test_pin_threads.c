/*
 * Pins, publication and reclamation with the real functions, as threads over one mapping, so that the
 * thread sanitizer relates all accesses.
 *
 * The writer keeps a pool of blocks. It fills a free one with a pattern, lets a list and a view name it,
 * publishes, retires the one before with the generation that no longer names it, scans the slots, and
 * poisons whatever may be reclaimed before it is filled again. Readers pin, take the view, follow it to
 * the list and to the block, and check every word. Patterns are plain memory: a reader that is still in
 * a block when it is poisoned is a wrong answer here and a data race to the sanitizer.
 *
 * The window in which a wrong protocol fails is the time that a store waits in the processor's buffer.
 * Before a reader pins it stores to memory that is in no cache: those stores queue up in front of the
 * pin's, and a pin that is not ordered before the load of the generation comes too late by their time.
 * That one shows without the sanitizer, whose own locks empty the buffer; a weak end of a pin or a weak
 * scan shows with it only.
 *
 * The second case is a page that is revoked: there the writer does not wait for pins. What is read may
 * change any time, so its words are atomic, and ordered as the system call that takes real memory back
 * would order them. What must hold is that a reader whose unpin succeeds had read a whole block.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "shm/control.h"
#include "shm/pin.h"
#include "tests/lib/random.h"

#define READERS_MAX 3u
#define BLOCKS 6u /* few, so that each is soon used again */
#define BLOCK_WORDS 32u
#define PAGES 400u
#define SLOT_IN_REGION 3u
#define COLLECTION_ID 1u
#define COLD_BYTES (32u << 20)
#define COLD_STORES 4u
#define POISON 0xdeaddeaddeaddeadu

static uint64_t duration_ns = 1500000000u;
/* One processor each, if there are so many: a reader that waits for one keeps its pin meanwhile. */
static uint32_t readers_count = 1;

struct block {
    uint64_t words[BLOCK_WORDS];
};

struct retired_block {
    uint32_t number;
    uint64_t generation;
};

struct world {
    void *region;
    struct vex_slot_page *pages; /* of PAGES; the first case uses one */
    _Atomic uint32_t page_now;
    struct block blocks[BLOCKS];
    _Atomic uint64_t atomic_words[BLOCKS][BLOCK_WORDS]; /* of the second case */
    atomic_bool stop;

    /* Writer only. */
    uint32_t free_blocks[BLOCKS];
    uint32_t free_count;
    struct retired_block retired[BLOCKS];
    uint32_t retired_count;
    uint64_t reused;
    uint64_t waited;
};

struct reader {
    struct world *world;
    uint32_t slot_index;
    uint8_t *cold;
    struct vex_random random;
    uint64_t reads;
    uint64_t refused; /* told at the end that the page was revoked */
    uint64_t changes; /* another block than the time before */
    const char *fault;
};

/* ---- what both cases share ------------------------------------------------------------------- */

static uint64_t pattern(uint64_t tag, uint32_t word)
{
    return vex_mix64(tag * BLOCK_WORDS + word);
}

static void *map_zeroed(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_ptr_not_equal(memory, MAP_FAILED);
    return memory;
}

static struct world *make_world(void)
{
    static const uint8_t uuid[VEX_UUID_BYTES] = {1};
    struct world *world = aligned_alloc(64, (sizeof(*world) + 63) / 64 * 64);
    assert_non_null(world);
    memset(world, 0, sizeof(*world));
    world->region = map_zeroed(VEX_CONTROL_REGION_BYTES);
    world->pages = map_zeroed(PAGES * sizeof(*world->pages));
    vex_control_init(world->region, uuid, 1);
    vex_control_ready(world->region);
    for (uint32_t i = 0; i < BLOCKS; i++) {
        world->free_blocks[world->free_count++] = i;
    }
    return world;
}

static void free_world(struct world *world)
{
    (void)munmap(world->region, VEX_CONTROL_REGION_BYTES);
    (void)munmap(world->pages, PAGES * sizeof(*world->pages));
    free(world);
}

/* A list whose identity is the tag and whose only segment is the block; a view that names it. */
static uint64_t publish_block(struct world *world, uint32_t number, uint64_t tag)
{
    struct vex_list_block *list = vex_control_list_block(world->region, number);
    list->segments_count = 1;
    list->segments[0] = (struct vex_list_segment){number, BLOCK_WORDS, 0};
    list->list_id = tag;
    const struct vex_view_state view = {
        .lsn = tag, .list_id = tag, .list_block = number, .tail_rows = BLOCK_WORDS};
    vex_control_set_view(world->region, SLOT_IN_REGION, &view);
    if (tag == 1) {
        const struct vex_collection_facts facts = {.id = COLLECTION_ID,
                                                   .dim = 1,
                                                   .metric = VEX_METRIC_L2,
                                                   .index = VEX_INDEX_AUTO,
                                                   .m = 16,
                                                   .ef_construction = 200,
                                                   .name = "c"};
        vex_control_add_collection(world->region, SLOT_IN_REGION, &facts);
    }
    return vex_control_publish(world->region, tag);
}

/* The stores that a pin must not wait behind unnoticed. */
static void store_to_cold_memory(struct reader *reader)
{
    for (uint32_t i = 0; i < COLD_STORES; i++) {
        size_t line = vex_random_below(&reader->random, COLD_BYTES / 64);
        *(volatile uint64_t *)(void *)(reader->cold + 64 * line) = line;
    }
}

/* Pins and finds the block that the current view names. */
static bool enter(struct reader *reader, uint64_t *generation, uint32_t *out_block,
                  uint64_t *out_tag)
{
    struct world *world = reader->world;
    struct vex_slot *slot = &world->pages[0].slots[reader->slot_index];
    store_to_cold_memory(reader);
    vex_pin_enter(slot, *generation);
    *generation = vex_pin_refresh(world->region, slot, *generation);
    struct vex_view_state view;
    struct vex_list_block list;
    if (vex_control_view(world->region, SLOT_IN_REGION, COLLECTION_ID, &view) != VEX_OK) {
        reader->fault = "no view";
        return false;
    }
    if (!vex_control_list(world->region, view.list_block, view.list_id, &list) ||
        list.segments_count != 1 || list.segments[0].segment_id >= BLOCKS) {
        reader->fault = "the list of a pinned view is not the one it named";
        return false;
    }
    *out_block = (uint32_t)list.segments[0].segment_id;
    *out_tag = view.list_id;
    return true;
}

static void run_readers(struct world *world, struct reader *readers, void *(*body)(void *),
                        void (*write)(struct world *))
{
    pthread_t threads[READERS_MAX];
    for (uint32_t i = 0; i < readers_count; i++) {
        readers[i] = (struct reader){
            .world = world,
            .slot_index = i * 31,
            .cold = map_zeroed(COLD_BYTES),
            .random = vex_random_seeded(i + 1),
        };
        /* The pages exist, their lines are in no cache. */
        for (size_t at = 0; at < COLD_BYTES; at += 4096) {
            readers[i].cold[at] = 1;
        }
        assert_int_equal(pthread_create(&threads[i], NULL, body, &readers[i]), 0);
    }
    write(world);
    atomic_store(&world->stop, true);
    for (uint32_t i = 0; i < readers_count; i++) {
        (void)pthread_join(threads[i], NULL);
        (void)munmap(readers[i].cold, COLD_BYTES);
    }
}

static void report(const struct world *world, const struct reader *readers)
{
    for (uint32_t i = 0; i < readers_count; i++) {
        printf("reader %u: %llu reads, %llu changes, %llu refused\n", i,
               (unsigned long long)readers[i].reads, (unsigned long long)readers[i].changes,
               (unsigned long long)readers[i].refused);
    }
    printf("writer: %llu blocks used again, %llu times none was free\n",
           (unsigned long long)world->reused, (unsigned long long)world->waited);
    for (uint32_t i = 0; i < readers_count; i++) {
        if (readers[i].fault) {
            fail_msg("reader %u: %s", i, readers[i].fault);
        }
        assert_true(readers[i].reads > 100);
        assert_true(readers[i].changes > 10);
    }
    assert_true(world->reused > 100);
}

/* ---- pinned memory is left alone ------------------------------------------------------------- */

static void *read_pinned(void *context)
{
    struct reader *reader = context;
    struct world *world = reader->world;
    uint64_t generation = vex_control_generation(world->region);
    uint64_t tag_before = 0;
    while (!atomic_load(&world->stop) && !reader->fault) {
        uint32_t number = 0;
        uint64_t tag = 0;
        if (!enter(reader, &generation, &number, &tag)) {
            break;
        }
        const struct block *block = &world->blocks[number];
        /* Twice: the second look is later than a scan that missed the pin. */
        for (int look = 0; look < 2; look++) {
            for (uint32_t word = 0; word < BLOCK_WORDS; word++) {
                if (block->words[word] != pattern(tag, word)) {
                    reader->fault = block->words[word] == POISON ? "pinned memory was given back"
                                                                 : "pinned memory was used again";
                }
            }
        }
        if (!vex_unpin(&world->pages[0], &world->pages[0].slots[reader->slot_index])) {
            reader->fault = "revoked without a reason";
        }
        reader->reads++;
        reader->changes += tag != tag_before;
        if (tag < tag_before) {
            reader->fault = "a view older than one seen before";
        }
        tag_before = tag;
    }
    return NULL;
}

/* Poisons and frees what no slot can see. */
static void reclaim(struct world *world, uint64_t current)
{
    uint64_t oldest = vex_slot_page_oldest(&world->pages[0], current);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < world->retired_count; i++) {
        struct retired_block item = world->retired[i];
        if (item.generation > oldest) {
            world->retired[kept++] = item;
            continue;
        }
        struct block *block = &world->blocks[item.number];
        for (uint32_t word = 0; word < BLOCK_WORDS; word++) {
            block->words[word] = POISON;
        }
        vex_control_list_block(world->region, item.number)->list_id = 0;
        world->free_blocks[world->free_count++] = item.number;
    }
    world->retired_count = kept;
}

static void write_blocks(struct world *world)
{
    uint64_t deadline_ns = vex_clock_ns() + duration_ns;
    uint64_t tag = 1;
    uint64_t current = vex_control_generation(world->region);
    uint32_t named = BLOCKS - 1; /* by the current view */
    for (uint64_t turn = 0; turn % 64 != 0 || vex_clock_ns() < deadline_ns; turn++) {
        if (world->free_count == 0) {
            world->waited++;
            (void)sched_yield();
            reclaim(world, current);
            continue;
        }
        /* The one that was given back last: whoever is still in it is caught. */
        uint32_t number = world->free_blocks[--world->free_count];
        tag++;
        for (uint32_t word = 0; word < BLOCK_WORDS; word++) {
            world->blocks[number].words[word] = pattern(tag, word);
        }
        current = publish_block(world, number, tag);
        world->retired[world->retired_count++] = (struct retired_block){named, current};
        named = number;
        reclaim(world, current);
        world->reused = tag;
    }
}

static void what_a_reader_has_pinned_is_not_given_back(void **state)
{
    (void)state;
    struct world *world = make_world();
    struct reader readers[READERS_MAX];
    /* The first view is there before the readers are. */
    world->free_count--;
    for (uint32_t word = 0; word < BLOCK_WORDS; word++) {
        world->blocks[BLOCKS - 1].words[word] = pattern(1, word);
    }
    (void)publish_block(world, BLOCKS - 1, 1);
    run_readers(world, readers, read_pinned, write_blocks);
    report(world, readers);
    free_world(world);
}

/* ---- a revoked page -------------------------------------------------------------------------- */

static bool is_whole(struct world *world, uint32_t number, uint64_t tag)
{
    bool whole = number < BLOCKS;
    for (uint32_t word = 0; whole && word < BLOCK_WORDS; word++) {
        whole = atomic_load_explicit(&world->atomic_words[number][word], memory_order_acquire) ==
                pattern(tag, word);
    }
    return whole;
}

/* The view alone leads to the block: lists are plain memory, which a revoked reader may see change. */
static void *read_revocable(void *context)
{
    struct reader *reader = context;
    struct world *world = reader->world;
    uint64_t generation = vex_control_generation(world->region);
    uint64_t tag_before = 0;
    while (!atomic_load(&world->stop) && !reader->fault) {
        struct vex_slot_page *page = &world->pages[atomic_load(&world->page_now)];
        struct vex_slot *slot = &page->slots[reader->slot_index];
        store_to_cold_memory(reader);
        vex_pin_enter(slot, generation);
        generation = vex_pin_refresh(world->region, slot, generation);
        struct vex_view_state view;
        bool whole =
            vex_control_view(world->region, SLOT_IN_REGION, COLLECTION_ID, &view) == VEX_OK &&
            is_whole(world, view.list_block, view.list_id) &&
            is_whole(world, view.list_block, view.list_id);
        if (!vex_unpin(page, slot)) {
            reader->refused++;
            continue;
        }
        if (!whole) {
            reader->fault = "a page that was not revoked gave a broken answer";
        }
        reader->reads++;
        reader->changes += view.list_id != tag_before;
        tag_before = view.list_id;
    }
    return NULL;
}

static void fill_atomic(struct world *world, uint32_t number, uint64_t tag)
{
    for (uint32_t word = 0; word < BLOCK_WORDS; word++) {
        atomic_store_explicit(&world->atomic_words[number][word], tag ? pattern(tag, word) : POISON,
                              memory_order_release);
    }
}

static void publish_atomic(struct world *world, uint32_t number, uint64_t tag)
{
    fill_atomic(world, number, tag);
    const struct vex_view_state view = {.lsn = tag, .list_id = tag, .list_block = number};
    vex_control_set_view(world->region, SLOT_IN_REGION, &view);
    (void)vex_control_publish(world->region, tag);
}

/* Readers get a new page, the old one is revoked, and what only its pins protected is gone at once. */
static void write_and_revoke(struct world *world)
{
    uint64_t tag = 1;
    uint32_t named = 0;
    for (uint32_t page = 0; page + 1 < PAGES; page++) {
        uint64_t pause_until_ns = vex_clock_ns() + duration_ns / PAGES;
        publish_atomic(world, (named + 1) % BLOCKS, ++tag);
        atomic_store(&world->page_now, page + 1);
        vex_slot_page_revoke(&world->pages[page]);
        /* Pins of the new page count, and may be of the generation before. */
        uint64_t current = vex_control_generation(world->region);
        while (vex_slot_page_oldest(&world->pages[page + 1], current) < current) {
            world->waited++;
            (void)sched_yield();
        }
        fill_atomic(world, named, 0);
        named = (named + 1) % BLOCKS;
        world->reused++;
        while (vex_clock_ns() < pause_until_ns) {
        }
    }
}

static void a_reader_that_is_not_told_otherwise_has_read_whole_blocks(void **state)
{
    (void)state;
    struct world *world = make_world();
    struct reader readers[READERS_MAX];
    fill_atomic(world, 0, 1);
    (void)publish_block(world, 0, 1);
    run_readers(world, readers, read_revocable, write_and_revoke);
    report(world, readers);
    uint64_t refused = 0;
    for (uint32_t i = 0; i < readers_count; i++) {
        refused += readers[i].refused;
    }
    assert_true(refused > 0);
    free_world(world);
}

int main(void)
{
    const char *seconds = getenv("VEX_STRESS_SECONDS");
    if (seconds && *seconds) {
        duration_ns = strtoull(seconds, NULL, 10) * 1000000000u;
    }
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    if (processors > 2) {
        readers_count = processors > READERS_MAX ? READERS_MAX : (uint32_t)processors - 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_reader_has_pinned_is_not_given_back),
        cmocka_unit_test(a_reader_that_is_not_told_otherwise_has_read_whole_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
