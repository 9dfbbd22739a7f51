#include "daemon/publisher.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/panic.h"

enum retired_kind { RETIRED_HOME, RETIRED_BLOCK, RETIRED_SLOT };

/* Invariant I5: generation 0 = not yet bound, because not yet published without it. */
struct retired {
    enum retired_kind kind;
    uint64_t generation;
    struct vex_home *home;
    uint32_t number; /* of the block or slot */
};

struct vex_publisher {
    uint8_t key[VEX_UUID_BYTES];
    struct vex_region control;
    uint64_t next_segment_id;
    uint64_t next_list_id;
    uint32_t blocks_allocated;     /* blocks below this have memory */
    struct vex_buffer free_blocks; /* u32 each */
    struct vex_buffer retired;     /* struct retired each */
    size_t retirable;              /* segments and blocks in existence */
    uint64_t shm_bytes;
    bool spares_readers; /* no holes */
};

static void mark_old_region_gone(const char *name, const uint8_t *key)
{
    struct vex_region old;
    if (vex_region_open(&old, name, true, NULL) != VEX_OK) {
        return;
    }
    if (vex_control_check(old.memory, old.bytes, key, NULL) == VEX_OK) {
        vex_control_set_state(old.memory, VEX_DAEMON_GONE);
    }
    vex_region_close(&old);
}

enum vex_status vex_publisher_open(const uint8_t *key, struct vex_publisher **out_publisher,
                                   struct vex_error *error)
{
    *out_publisher = NULL;
    struct vex_publisher *publisher = calloc(1, sizeof(*publisher));
    if (!publisher) {
        return vex_error_set(error, VEX_ERR_NOMEM, "publisher: out of memory");
    }
    memcpy(publisher->key, key, sizeof(publisher->key));
    /* A reader that still has a dead daemon's list maps by name, also while we replay: its numbers
     * must never name memory of ours. */
    if (getrandom(&publisher->next_segment_id, sizeof(publisher->next_segment_id), 0) !=
        (ssize_t)sizeof(publisher->next_segment_id)) {
        int failure = errno;
        free(publisher);
        return vex_error_os(error, VEX_ERR_IO, failure, "random number for segment names");
    }
    publisher->next_segment_id >>= 1; /* room to count */
    publisher->next_list_id = 1;
    char name[VEX_REGION_NAME_MAX];
    vex_region_control_name(name, key);
    mark_old_region_gone(name, key);
    vex_region_unlink_all(key);
    /* Under this name readers of the daemon before us would try to attach all through the replay. */
    char early_name[VEX_REGION_NAME_MAX + 8];
    (void)snprintf(early_name, sizeof(early_name), "%s-new", name);
    enum vex_status status = vex_region_create(&publisher->control, early_name,
                                               VEX_CONTROL_REGION_BYTES, VEX_LISTS_OFFSET, error);
    if (status != VEX_OK) {
        free(publisher);
        return status;
    }
    publisher->shm_bytes = VEX_LISTS_OFFSET;
    vex_control_init(publisher->control.memory, key, (uint32_t)getpid());
    *out_publisher = publisher;
    return VEX_OK;
}

enum vex_status vex_publisher_announce(struct vex_publisher *publisher, struct vex_error *error)
{
    char name[VEX_REGION_NAME_MAX];
    vex_region_control_name(name, publisher->key);
    return vex_region_rename(&publisher->control, name, error);
}

static void free_home(struct vex_publisher *publisher, struct vex_home *home)
{
    publisher->shm_bytes -= home->held_bytes;
    publisher->retirable--;
    vex_home_destroy(home, !publisher->spares_readers);
}

void vex_publisher_discard_home(struct vex_publisher *publisher, struct vex_home **home)
{
    free_home(publisher, *home);
    *home = NULL;
}

void vex_publisher_close(struct vex_publisher *publisher)
{
    if (!publisher) {
        return;
    }
    vex_control_set_state(publisher->control.memory, VEX_DAEMON_GONE);
    struct retired *items = (struct retired *)(void *)publisher->retired.data;
    for (size_t i = 0; i < publisher->retired.bytes / sizeof(*items); i++) {
        if (items[i].home) {
            /* Connected clients keep reading their last snapshot: only the name goes. */
            vex_home_destroy(items[i].home, false);
        }
    }
    vex_region_unlink(publisher->control.name);
    vex_region_close(&publisher->control);
    vex_buffer_deinit(&publisher->retired);
    vex_buffer_deinit(&publisher->free_blocks);
    free(publisher);
}

void *vex_publisher_region(struct vex_publisher *publisher)
{
    return publisher->control.memory;
}

/* Room to note the retirement of all there is and one thing more: asked for when the thing is made,
 * so that retiring never fails. */
static bool reserve_retirement(struct vex_publisher *publisher)
{
    size_t needed = (publisher->retirable + VEX_PLACES_MAX + 1) * sizeof(struct retired);
    return needed <= publisher->retired.bytes ||
           vex_buffer_reserve(&publisher->retired, needed - publisher->retired.bytes);
}

uint64_t vex_publisher_new_segment_id(struct vex_publisher *publisher)
{
    return publisher->next_segment_id++;
}

enum vex_status vex_publisher_adopt_home(struct vex_publisher *publisher, struct vex_home *home,
                                         struct vex_error *error)
{
    if (!reserve_retirement(publisher)) {
        return vex_error_set(error, VEX_ERR_NOMEM, "new segment: out of memory");
    }
    publisher->retirable++;
    publisher->shm_bytes += home->held_bytes;
    return VEX_OK;
}

void vex_publisher_note_trimmed(struct vex_publisher *publisher, struct vex_home *home,
                                uint64_t held_bytes)
{
    publisher->shm_bytes -= home->held_bytes - held_bytes;
    home->held_bytes = held_bytes;
}

enum vex_status vex_publisher_make_home(struct vex_publisher *publisher,
                                        struct vex_segment_shape *shape, struct vex_home **out_home,
                                        struct vex_error *error)
{
    shape->segment_id = vex_publisher_new_segment_id(publisher);
    struct vex_home *home = NULL;
    enum vex_status status = vex_home_create(publisher->key, shape, true, &home, error);
    if (status == VEX_OK) {
        status = vex_publisher_adopt_home(publisher, home, error);
        if (status != VEX_OK) {
            vex_home_destroy(home, true);
        }
    }
    if (status != VEX_OK) {
        *out_home = NULL;
        return status;
    }
    vex_segment_create(&home->writer, shape, home->region.memory);
    *out_home = home;
    return VEX_OK;
}

enum vex_status vex_publisher_take_block(struct vex_publisher *publisher, uint32_t *out_block,
                                         struct vex_error *error)
{
    struct vex_buffer *free_blocks = &publisher->free_blocks;
    /* Room for every block to come back. */
    size_t blocks_bytes = (publisher->blocks_allocated + 1) * sizeof(uint32_t);
    if (!reserve_retirement(publisher) ||
        (free_blocks->bytes < blocks_bytes &&
         !vex_buffer_reserve(free_blocks, blocks_bytes - free_blocks->bytes))) {
        return vex_error_set(error, VEX_ERR_NOMEM, "list block: out of memory");
    }
    if (free_blocks->bytes) {
        free_blocks->bytes -= sizeof(uint32_t);
        *out_block = vex_load_u32(free_blocks->data + free_blocks->bytes);
        return VEX_OK;
    }
    uint32_t block = publisher->blocks_allocated;
    if (block == VEX_LIST_BLOCKS_MAX) {
        return vex_error_set(error, VEX_ERR_NO_SPACE,
                             "all %u segment lists are in use: a reader holds an old snapshot open",
                             VEX_LIST_BLOCKS_MAX);
    }
    enum vex_status status = vex_region_allocate(
        &publisher->control, VEX_LISTS_OFFSET + (uint64_t)block * VEX_PAGE_BYTES, VEX_PAGE_BYTES,
        error);
    if (status == VEX_OK) {
        publisher->blocks_allocated++;
        publisher->retirable++;
        publisher->shm_bytes += VEX_PAGE_BYTES;
        *out_block = block;
    }
    return status;
}

static void return_block(struct vex_publisher *publisher, uint32_t block)
{
    bool noted = vex_buffer_append(&publisher->free_blocks, &block, sizeof(block));
    VEX_ASSERT(noted); /* vex_publisher_take_block reserved the room */
}

uint64_t vex_publisher_new_list_id(struct vex_publisher *publisher)
{
    return publisher->next_list_id++;
}

static void retire(struct vex_publisher *publisher, const struct retired *item)
{
    bool noted = vex_buffer_append(&publisher->retired, item, sizeof(*item));
    VEX_ASSERT(noted);
}

void vex_publisher_retire_home(struct vex_publisher *publisher, struct vex_home **home)
{
    retire(publisher, &(struct retired){RETIRED_HOME, 0, *home, 0});
    *home = NULL;
}

void vex_publisher_retire_block(struct vex_publisher *publisher, uint32_t block)
{
    retire(publisher, &(struct retired){RETIRED_BLOCK, 0, NULL, block});
}

void vex_publisher_retire_slot(struct vex_publisher *publisher, uint32_t slot)
{
    retire(publisher, &(struct retired){RETIRED_SLOT, 0, NULL, slot});
}

void vex_publisher_publish(struct vex_publisher *publisher, uint64_t lsn)
{
    uint64_t generation = vex_control_publish(publisher->control.memory, lsn);
    struct retired *items = (struct retired *)(void *)publisher->retired.data;
    size_t count = publisher->retired.bytes / sizeof(*items);
    /* Unbound items are the newest: walk back from the end. */
    for (size_t i = count; i > 0 && items[i - 1].generation == 0; i--) {
        items[i - 1].generation = generation;
    }
}

void vex_publisher_reclaim(struct vex_publisher *publisher, uint64_t oldest_pinned,
                           void (*reusable)(void *context, uint32_t slot), void *context)
{
    struct retired *items = (struct retired *)(void *)publisher->retired.data;
    size_t count = publisher->retired.bytes / sizeof(*items);
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        struct retired item = items[i];
        /* A pin of generation p protects what was retired in a generation above p. */
        if (item.generation == 0 || item.generation > oldest_pinned) {
            items[kept++] = item;
            continue;
        }
        switch (item.kind) {
        case RETIRED_HOME:
            free_home(publisher, item.home);
            break;
        case RETIRED_BLOCK:
            return_block(publisher, item.number);
            break;
        case RETIRED_SLOT:
            reusable(context, item.number);
            break;
        }
    }
    publisher->retired.bytes = kept * sizeof(*items);
}

void vex_publisher_spare_readers(struct vex_publisher *publisher)
{
    publisher->spares_readers = true;
}

bool vex_publisher_has_retired(const struct vex_publisher *publisher)
{
    return publisher->retired.bytes > 0;
}

uint64_t vex_publisher_shm_bytes(const struct vex_publisher *publisher)
{
    return publisher->shm_bytes;
}
