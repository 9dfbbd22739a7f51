#include "daemon/checkpoint.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/panic.h"
#include "daemon/trace.h"

/* ---- taking ---------------------------------------------------------------------------------- */

static void count_all(const struct vex_registry *registry, uint32_t *collections, size_t *homes)
{
    for (uint32_t slot = 0; slot < VEX_PLACES_MAX; slot++) {
        const struct vex_live_collection *collection = vex_registry_at(registry, slot);
        if (collection) {
            (*collections)++;
            *homes += collection->homes_count;
        }
    }
}

static void take_collection(struct vex_checkpoint_job *job,
                            const struct vex_live_collection *collection)
{
    struct vex_image_collection *taken = &job->collections[job->collections_count++];
    *taken = (struct vex_image_collection){
        .id = collection->facts.id,
        .dim = collection->facts.dim,
        .metric = collection->facts.metric,
        .index = (uint16_t)collection->facts.index,
        .storage = (uint16_t)collection->facts.storage,
        .m = collection->facts.m,
        .ef_construction = collection->facts.ef_construction,
        .lists = collection->facts.lists,
        .next_id = collection->next_id,
        .lsn = collection->lsn,
    };
    memcpy(taken->name, collection->facts.name, sizeof(taken->name));
    for (uint32_t i = 0; i < collection->homes_count; i++) {
        struct vex_home *home = collection->homes[i];
        VEX_ASSERT(home->sealed);
        job->homes[job->homes_count++] = (struct vex_checkpoint_home){home, home->file_number, 0};
        taken->homes_count++;
    }
}

enum vex_status vex_checkpoint_take(struct vex_checkpoint_job *job, struct vex_registry *registry,
                                    struct vex_store *store, struct vex_error *error)
{
    uint32_t collections = 0;
    size_t homes = 0;
    count_all(registry, &collections, &homes);
    *job = (struct vex_checkpoint_job){
        .store = store,
        .cut = vex_store_take_cut(store),
        .next_collection_id = vex_registry_next_id(registry),
        .collections = calloc(collections + 1, sizeof(*job->collections)),
        .homes = calloc(homes + 1, sizeof(*job->homes)),
        .recycle = true,
    };
    if (!job->collections || !job->homes) {
        free(job->collections);
        free(job->homes);
        return vex_error_set(error, VEX_ERR_NOMEM, "checkpoint: out of memory");
    }
    vex_registry_seal(registry);
    for (uint32_t slot = 0; slot < VEX_PLACES_MAX; slot++) {
        const struct vex_live_collection *collection = vex_registry_at(registry, slot);
        if (collection) {
            take_collection(job, collection);
        }
    }
    return VEX_OK;
}

void vex_checkpoint_finish(struct vex_checkpoint_job *job, struct vex_registry *registry)
{
    size_t at = 0;
    for (uint32_t i = 0; i < job->collections_count; i++) {
        struct vex_live_collection *collection =
            vex_registry_by_id(registry, job->collections[i].id);
        for (uint32_t k = 0; k < job->collections[i].homes_count; k++) {
            const struct vex_checkpoint_home *item = &job->homes[at++];
            item->home->file_number = item->file_number;
            if (item->held_bytes) {
                vex_registry_note_trimmed(registry, collection, item->home, item->held_bytes);
            }
        }
    }
    free(job->collections);
    free(job->homes);
    job->collections = NULL;
    job->homes = NULL;
}

/* ---- writing --------------------------------------------------------------------------------- */

static enum vex_status write_home(struct vex_checkpoint_job *job, uint32_t collection_id,
                                  struct vex_checkpoint_home *item, const struct vex_pace *pace)
{
    const struct vex_home *home = item->home;
    struct vex_segment_range ranges[VEX_SEGMENT_RANGES_MAX];
    uint32_t image_count = 0;
    (void)vex_segment_used_ranges(&home->shape, home->writer.rows, home->writer.payload_bytes,
                                  ranges, &image_count);
    struct vex_segment_file file = {
        .number = vex_store_new_segment_number(job->store),
        .tag = collection_id,
        .image_bytes = home->region.bytes,
        .extents_count = image_count,
    };
    for (uint32_t i = 0; i < image_count; i++) {
        file.extents[i] = (struct vex_extent){ranges[i].offset, ranges[i].bytes};
        job->written_bytes += ranges[i].bytes;
    }
    enum vex_status status =
        vex_store_write_segment(job->store, &file, home->region.memory, pace, &job->error);
    if (status == VEX_OK) {
        item->file_number = file.number;
        item->held_bytes = vex_home_trim(item->home);
    }
    return status;
}

static enum vex_status out_of_memory(struct vex_checkpoint_job *job)
{
    return vex_error_set(&job->error, VEX_ERR_NOMEM, "checkpoint: out of memory");
}

static enum vex_status add_home(struct vex_checkpoint_job *job, struct vex_buffer *body,
                                const struct vex_checkpoint_home *item)
{
    const struct vex_home *home = item->home;
    struct vex_image_home image = {
        .file_number = item->file_number,
        .capacity_rows = home->shape.capacity_rows,
        .rows = home->writer.rows,
        .payload_capacity_bytes = home->shape.payload_capacity_bytes,
        .payload_bytes = home->writer.payload_bytes,
        .graph_m = home->shape.graph.m,
        .graph_ef_construction = home->shape.graph.ef_construction,
        .codes = home->shape.codes,
        .lists = home->shape.lists,
    };
    return vex_image_add_home(body, &image, &home->writer.segment, job->cut.lsn)
               ? VEX_OK
               : out_of_memory(job);
}

static enum vex_status write_all(struct vex_checkpoint_job *job, struct vex_buffer *body,
                                 uint64_t *numbers, const struct vex_pace *pace)
{
    if (!vex_image_begin(body, job->collections_count, job->next_collection_id)) {
        return out_of_memory(job);
    }
    size_t at = 0;
    for (uint32_t i = 0; i < job->collections_count; i++) {
        const struct vex_image_collection *collection = &job->collections[i];
        if (!vex_image_add_collection(body, collection)) {
            return out_of_memory(job);
        }
        for (uint32_t k = 0; k < collection->homes_count; k++, at++) {
            struct vex_checkpoint_home *item = &job->homes[at];
            enum vex_status status =
                item->file_number ? VEX_OK : write_home(job, collection->id, item, pace);
            status = status == VEX_OK ? add_home(job, body, item) : status;
            if (status != VEX_OK) {
                return status;
            }
            numbers[at] = item->file_number;
        }
    }
    return VEX_OK;
}

/* Files of segments that were merged or dropped before any checkpoint named them: on a full disk this one needs
 * their room. What cannot be removed is no reason not to try. */
static void remove_leftovers(const struct vex_checkpoint_job *job, uint64_t *numbers)
{
    size_t count = 0;
    for (size_t i = 0; i < job->homes_count; i++) {
        if (job->homes[i].file_number) {
            numbers[count++] = job->homes[i].file_number;
        }
    }
    (void)vex_store_trim(job->store, job->recycle, numbers, count, NULL);
}

void vex_checkpoint_run(void *argument, const struct vex_pace *pace)
{
    struct vex_checkpoint_job *job = argument;
    struct vex_buffer body = {0};
    uint64_t *numbers = calloc(job->homes_count + 1, sizeof(*numbers));
    if (numbers && job->leftovers) {
        remove_leftovers(job, numbers);
    }
    job->status = numbers ? write_all(job, &body, numbers, pace) : out_of_memory(job);
    if (job->status == VEX_OK) {
        job->status = vex_store_checkpoint(job->store, &job->cut, numbers, job->homes_count,
                                           body.data, body.bytes, &job->error);
    }
    if (job->status == VEX_OK) {
        job->written_bytes += body.bytes;
        job->status = vex_store_trim(job->store, job->recycle, NULL, 0, &job->error);
    }
    if (job->status != VEX_ERR_READ_ONLY) {
        /* Also after a failure: what it was given up for is removed, and inserts must not have the room. */
        vex_store_refill_reserve(job->store);
    }
    free(numbers);
    vex_buffer_deinit(&body);
}

/* ---- restoring ------------------------------------------------------------------------------- */

struct pending_home {
    struct vex_live_collection *collection;
    struct vex_home *home;
    struct vex_image_home image;
    const uint8_t *dead; /* bitmap within the body */
};

struct pending {
    struct pending_home *homes;
    struct vex_segment_load *loads;
    size_t count;
    size_t capacity;
    /* Of allocating their memory. */
    enum vex_status status;
    struct vex_error error;
};

static void pending_deinit(struct pending *pending)
{
    for (size_t i = 0; i < pending->count; i++) {
        if (pending->homes[i].home) {
            vex_home_destroy(pending->homes[i].home, true);
        }
    }
    free(pending->homes);
    free(pending->loads);
}

static enum vex_status make_memory(const struct vex_checkpoint_restore *restore,
                                   struct pending_home *item, struct vex_error *error)
{
    struct vex_segment_shape shape = {
        .segment_id = vex_publisher_new_segment_id(restore->publisher),
        .collection_id = item->collection->facts.id,
        .metric = item->collection->facts.metric,
        .storage = item->collection->facts.storage,
        .dim = item->collection->facts.dim,
        .capacity_rows = item->image.capacity_rows,
        .payload_capacity_bytes = item->image.payload_capacity_bytes,
        .codes = item->image.codes != 0,
        .graph = {item->image.graph_m, item->image.graph_ef_construction},
        .lists = item->image.lists,
    };
    if (vex_segment_memory_bytes(&shape) == 0) {
        return vex_error_set(error, VEX_ERR_CORRUPT, "checkpoint: a segment's shape is impossible");
    }
    return vex_home_create(restore->key, &shape, false, &item->home, error);
}

static enum vex_status read_homes(const struct vex_checkpoint_restore *restore,
                                  struct vex_image_cursor *cursor,
                                  struct vex_live_collection *collection, uint32_t homes_count,
                                  struct pending *pending, struct vex_error *error)
{
    for (uint32_t i = 0; i < homes_count; i++) {
        if (pending->count == pending->capacity) {
            size_t capacity = pending->capacity ? 2 * pending->capacity : 64;
            struct pending_home *homes = reallocarray(pending->homes, capacity, sizeof(*homes));
            pending->homes = homes ? homes : pending->homes;
            if (!homes) {
                return vex_error_set(error, VEX_ERR_NOMEM, "checkpoint: out of memory");
            }
            pending->capacity = capacity;
        }
        struct pending_home *item = &pending->homes[pending->count];
        *item = (struct pending_home){.collection = collection};
        enum vex_status status = vex_image_read_home(cursor, &item->image, &item->dead, error);
        if (status == VEX_OK) {
            pending->count++;
            status = make_memory(restore, item, error);
        }
        if (status != VEX_OK) {
            return status;
        }
    }
    return VEX_OK;
}

static enum vex_status read_collections(const struct vex_checkpoint_restore *restore,
                                        struct vex_image_cursor *cursor,
                                        const struct vex_image_head *head, struct pending *pending,
                                        struct vex_error *error)
{
    for (uint32_t i = 0; i < head->collections_count; i++) {
        struct vex_image_collection image;
        enum vex_status status = vex_image_read_collection(cursor, &image, error);
        if (status != VEX_OK) {
            return status;
        }
        if (image.id >= head->next_collection_id ||
            vex_registry_by_id(restore->registry, image.id) ||
            vex_registry_by_name(restore->registry, image.name) ||
            vex_registry_can_create(restore->registry, NULL) != VEX_OK) {
            return vex_error_set(error, VEX_ERR_CORRUPT,
                                 "checkpoint: collection %.63s stands twice", image.name);
        }
        const struct vex_collection_facts facts = vex_image_facts(&image);
        struct vex_live_collection *collection =
            vex_registry_create(restore->registry, &facts, image.lsn);
        collection->next_id = image.next_id;
        status = read_homes(restore, cursor, collection, image.homes_count, pending, error);
        if (status != VEX_OK) {
            return status;
        }
    }
    vex_registry_set_next_collection_id(restore->registry, head->next_collection_id);
    return vex_image_read_end(cursor, error);
}

/* Runs beside the reading: the kernel clears pages about twice as fast as a disk delivers them. A read that
 * gets ahead allocates its pages itself, or fails where this fails, too. */
static void *allocate_all(void *argument)
{
    struct pending *pending = argument;
    pending->status = VEX_OK;
    for (size_t i = 0; i < pending->count && pending->status == VEX_OK; i++) {
        const struct pending_home *item = &pending->homes[i];
        pending->status = vex_home_allocate(item->home, item->image.rows, item->image.payload_bytes,
                                            &pending->error);
    }
    return NULL;
}

static enum vex_status load_all(struct pending *pending, struct vex_store *store,
                                struct vex_error *error)
{
    pending->loads = calloc(pending->count + 1, sizeof(*pending->loads));
    if (!pending->loads) {
        return vex_error_set(error, VEX_ERR_NOMEM, "checkpoint: out of memory");
    }
    for (size_t i = 0; i < pending->count; i++) {
        pending->loads[i] = (struct vex_segment_load){
            .number = pending->homes[i].image.file_number,
            .tag = pending->homes[i].collection->facts.id,
            .memory = pending->homes[i].home->region.memory,
            .image_bytes = pending->homes[i].home->region.bytes,
        };
    }
    pthread_t thread;
    bool beside = pthread_create(&thread, NULL, allocate_all, pending) == 0;
    if (!beside) {
        (void)allocate_all(pending);
    }
    /* Each load has its own status. */
    (void)vex_segment_files_load(vex_store_io(store), vex_store_uuid(store), pending->loads,
                                 pending->count, NULL);
    if (beside) {
        (void)pthread_join(thread, NULL);
    }
    if (pending->status != VEX_OK && error) {
        *error = pending->error;
    }
    return pending->status;
}

/* Errors go to the collection if it may be set aside, else to the caller. */
static enum vex_status judge_loads(struct vex_checkpoint_restore *restore, struct pending *pending,
                                   struct vex_error *error)
{
    for (size_t i = 0; i < pending->count; i++) {
        struct vex_live_collection *collection = pending->homes[i].collection;
        const struct vex_segment_load *load = &pending->loads[i];
        if (load->status == VEX_OK) {
            continue;
        }
        /* What the disk cannot read is as good as damaged. */
        bool damage = load->status == VEX_ERR_CORRUPT || load->status == VEX_ERR_IO;
        if (!damage) {
            return vex_error_set(error, load->status, "%s", load->error.message);
        }
        if (!restore->quarantine) {
            return vex_error_set(error, load->status,
                                 "%s; it belongs to collection %s (restore a backup, or start vexd "
                                 "with --quarantine to serve the other collections)",
                                 load->error.message, collection->facts.name);
        }
        vex_trace("collection %s is quarantined: %s", collection->facts.name, load->error.message);
        restore->quarantined += !collection->quarantined;
        collection->quarantined = true;
    }
    return VEX_OK;
}

/* 1 stands for "before everything": no reader of this daemon asks for an older state. */
static void restore_deaths(struct pending_home *item)
{
    struct vex_segment_writer *writer = &item->home->writer;
    for (uint32_t row = 0; item->dead && row < writer->rows; row++) {
        uint64_t word = vex_load_u64(item->dead + row / 64 * sizeof(word));
        if (word >> row % 64 & 1) {
            vex_segment_kill(writer, row, 1);
        }
    }
    item->home->dead_rows = item->image.dead_rows;
}

static enum vex_status attach_homes(struct vex_checkpoint_restore *restore, struct pending *pending,
                                    struct vex_error *error)
{
    for (size_t i = 0; i < pending->count; i++) {
        struct pending_home *item = &pending->homes[i];
        if (item->collection->quarantined) {
            continue;
        }
        enum vex_status status =
            vex_segment_restore(&item->home->writer, &item->home->shape, item->image.rows,
                                item->image.payload_bytes, item->home->region.memory, error);
        if (status != VEX_OK) {
            return vex_error_wrap(error, status, "segment file %016llx",
                                  (unsigned long long)item->image.file_number);
        }
        restore_deaths(item);
        item->home->file_number = item->image.file_number;
        status = vex_registry_add_restored(restore->registry, item->collection, item->home, error);
        if (status != VEX_OK) {
            return status;
        }
        item->home = NULL; /* the registry's now */
    }
    return VEX_OK;
}

enum vex_status vex_checkpoint_restore(struct vex_checkpoint_restore *restore,
                                       struct vex_store *store, uint64_t lsn, const uint8_t *body,
                                       size_t bytes, struct vex_error *error)
{
    (void)lsn;
    struct vex_image_cursor cursor;
    struct vex_image_head head;
    struct pending pending = {0};
    enum vex_status status = vex_image_read_head(&cursor, body, bytes, &head, error);
    if (status == VEX_OK) {
        status = read_collections(restore, &cursor, &head, &pending, error);
    }
    status = status == VEX_OK ? load_all(&pending, store, error) : status;
    status = status == VEX_OK ? judge_loads(restore, &pending, error) : status;
    status = status == VEX_OK ? attach_homes(restore, &pending, error) : status;
    pending_deinit(&pending);
    return status;
}
