/*
 * Fuzzes a reader of the control region: a sound region with two collections is changed at any words, and
 * everything a client asks of it is asked. What is answered must be within the documented bounds. The
 * region is large and stays between inputs, so each change is taken back.
 *
 *   byte 0    slot to ask for; byte 1 block to ask for
 *   then      changes: u8 where (0 control page, 1 an entry, 2 a list block), u8 which, u16 offset, u64
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/panic.h"
#include "shm/control.h"
#include "shm/pin.h"

#define CHANGES_MAX 64u
#define CHANGE_BYTES 12u
#define ENTRIES 4u
#define BLOCKS 4u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t uuid[VEX_UUID_BYTES] = {7};
static uint8_t *region;

struct change {
    size_t offset;
    uint64_t before;
};

static void make_region(void)
{
    void *memory = NULL;
    int failure = posix_memalign(&memory, VEX_PAGE_BYTES, VEX_CONTROL_REGION_BYTES);
    VEX_ASSERT(failure == 0);
    memset(memory, 0, VEX_CONTROL_REGION_BYTES);
    region = memory;
    vex_control_init(region, uuid, 1);
    for (uint32_t slot = 0; slot < 2; slot++) {
        struct vex_list_block *block = vex_control_list_block(region, slot);
        block->list_id = slot + 1;
        block->segments_count = 3;
        const struct vex_view_state view = {.lsn = 5, .list_id = slot + 1, .list_block = slot};
        vex_control_set_view(region, slot, &view);
        const struct vex_collection_facts facts = {.id = slot + 1,
                                                   .dim = 8,
                                                   .metric = VEX_METRIC_L2,
                                                   .m = 16,
                                                   .ef_construction = 200,
                                                   .name = "name"};
        vex_control_add_collection(region, slot, &facts);
    }
    (void)vex_control_publish(region, 5);
    vex_control_ready(region);
}

static size_t offset_of(const uint8_t *change)
{
    size_t offset = (size_t)change[2] | (size_t)change[3] << 8;
    switch (change[0] % 3) {
    case 0:
        return offset % 192;
    case 1:
        return VEX_ENTRIES_OFFSET + change[1] % ENTRIES * sizeof(struct vex_collection_entry) +
               offset % (sizeof(struct vex_collection_entry) - 8);
    default:
        return VEX_LISTS_OFFSET + change[1] % BLOCKS * sizeof(struct vex_list_block) +
               offset % (sizeof(struct vex_list_block) - 8);
    }
}

static void ask(uint32_t slot, uint32_t block)
{
    struct vex_error error = {.status = VEX_OK};
    enum vex_status status = vex_control_check(region, VEX_CONTROL_REGION_BYTES, uuid, &error);
    VEX_ASSERT(status == error.status);
    (void)vex_control_check(region, VEX_PAGE_BYTES, uuid, NULL);
    (void)vex_control_state(region);
    (void)vex_control_generation(region);
    (void)vex_control_catalog(region);
    bool there = vex_control_wait(region, 6, 0);
    VEX_ASSERT(there == (vex_control_published_lsn(region) >= 6));
    struct vex_collection_facts facts;
    for (uint32_t i = 0; i < ENTRIES; i++) {
        if (vex_control_collection(region, i, &facts)) {
            VEX_ASSERT(facts.id != 0 && facts.dim >= 1 && facts.dim <= VEX_DIM_MAX);
            VEX_ASSERT(facts.metric >= VEX_METRIC_L2 && facts.metric <= VEX_METRIC_DOT);
            VEX_ASSERT(memchr(facts.name, 0, sizeof(facts.name)));
        }
    }
    struct vex_view_state view = {0};
    struct vex_list_block list;
    /* One that never holds still takes long, so only one is asked for. */
    if (vex_control_collection(region, slot, &facts) &&
        vex_control_view(region, slot, facts.id, &view) == VEX_OK &&
        vex_control_list(region, view.list_block, view.list_id, &list)) {
        VEX_ASSERT(list.list_id == view.list_id);
        VEX_ASSERT(list.segments_count <= VEX_LIST_SEGMENTS_MAX);
    }
    if (vex_control_list(region, block, 1, &list)) {
        VEX_ASSERT(block < VEX_LIST_BLOCKS_MAX && list.segments_count <= VEX_LIST_SEGMENTS_MAX);
    }
}

/* Slots of a client that writes what it likes: the answer never protects less than it should. */
static void fuzz_slots(const uint8_t *data, size_t size)
{
    static struct vex_slot_page page;
    memset(&page, 0, sizeof(page));
    uint64_t least = UINT64_MAX;
    for (size_t i = 0; i < VEX_SLOTS_PER_PAGE && (i + 1) * 8 <= size; i++) {
        uint64_t pinned;
        memcpy(&pinned, data + 8 * i, sizeof(pinned));
        vex_pin_enter(&page.slots[i], pinned);
        least = pinned != 0 && pinned < least ? pinned : least;
    }
    VEX_ASSERT(vex_slot_page_oldest(&page, 1000) <= least);
    VEX_ASSERT(vex_slot_page_oldest(&page, UINT64_MAX) == least);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) {
        return 0;
    }
    if (!region) {
        make_region();
    }
    uint32_t slot = data[0] % ENTRIES;
    uint32_t block = data[1] < 200 ? data[1] % BLOCKS : VEX_LIST_BLOCKS_MAX - 202 + data[1];
    data += 2;
    size -= 2;
    fuzz_slots(data, size);
    struct change changes[CHANGES_MAX];
    size_t count = 0;
    for (; size >= CHANGE_BYTES && count < CHANGES_MAX; count++) {
        changes[count].offset = offset_of(data);
        memcpy(&changes[count].before, region + changes[count].offset, sizeof(uint64_t));
        memcpy(region + changes[count].offset, data + 4, sizeof(uint64_t));
        data += CHANGE_BYTES;
        size -= CHANGE_BYTES;
    }
    ask(slot, block);
    while (count-- > 0) {
        memcpy(region + changes[count].offset, &changes[count].before, sizeof(uint64_t));
    }
    return 0;
}
