#include "ioengine/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "ioengine/store_priv.h"

#define NUMBER_DIGITS 16u

/* ---- numbers --------------------------------------------------------------------------------- */

static int compare_numbers(const void *left, const void *right)
{
    const uint64_t *a = left;
    const uint64_t *b = right;
    return (*a > *b) - (*a < *b);
}

bool store_has_number(const uint64_t *numbers, size_t count, uint64_t number)
{
    return count > 0 && bsearch(&number, numbers, count, sizeof(*numbers), compare_numbers) != NULL;
}

uint64_t *store_copy_numbers(const uint64_t *numbers, size_t count)
{
    uint64_t *copy = calloc(count ? count : 1, sizeof(*copy));
    if (copy && count) {
        memcpy(copy, numbers, count * sizeof(*copy));
        qsort(copy, count, sizeof(*copy), compare_numbers);
    }
    return copy;
}

void store_kept_deinit(struct store_kept *kept)
{
    free(kept->segments);
    *kept = (struct store_kept){0};
}

/* ---- directories ----------------------------------------------------------------------------- */

/* True if the name is one that we give: digits as we print them, and the suffix. */
static bool parse_name(const char *name, const char *suffix, uint64_t *out_number)
{
    if (strspn(name, "0123456789abcdef") != NUMBER_DIGITS ||
        strcmp(name + NUMBER_DIGITS, suffix) != 0) {
        return false;
    }
    *out_number = strtoull(name, NULL, 16);
    return true;
}

static void note_name(void *context, const char *name)
{
    struct store_listing *listing = context;
    uint64_t number;
    bool fits = true;
    if (parse_name(name, listing->suffix, &number)) {
        fits = vex_buffer_append(&listing->numbers, &number, sizeof(number));
    } else if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0) {
        fits = vex_buffer_append(&listing->names, name, strlen(name) + 1);
    }
    listing->out_of_memory = listing->out_of_memory || !fits;
}

enum vex_status store_list(struct vex_io *io, const char *directory, const char *suffix,
                           struct store_listing *out, struct vex_error *error)
{
    *out = (struct store_listing){.suffix = suffix};
    int result = io->ops->list(io, directory, note_name, out);
    result = result == -ENOENT ? 0 : result;
    result = result == 0 && out->out_of_memory ? -ENOMEM : result;
    if (result < 0) {
        store_listing_deinit(out);
        return vex_error_os(error, vex_status_from_errno(-result), -result, "list %s/", directory);
    }
    if (out->numbers.bytes > 0) {
        qsort(out->numbers.data, store_listing_count(out), sizeof(uint64_t), compare_numbers);
    }
    return VEX_OK;
}

void store_listing_deinit(struct store_listing *listing)
{
    vex_buffer_deinit(&listing->numbers);
    vex_buffer_deinit(&listing->names);
}

size_t store_listing_count(const struct store_listing *listing)
{
    return listing->numbers.bytes / sizeof(uint64_t);
}

uint64_t store_listing_number(const struct store_listing *listing, size_t index)
{
    return vex_load_u64(listing->numbers.data + index * sizeof(uint64_t));
}

/* ---- the table of segment files -------------------------------------------------------------- */

size_t store_segments_count(const struct vex_store *store)
{
    return store->segments.bytes / sizeof(struct store_segment);
}

struct store_segment *store_segment_at(const struct vex_store *store, size_t index)
{
    return (struct store_segment *)(void *)store->segments.data + index;
}

/* `number` comes first in both. */
_Static_assert(offsetof(struct store_segment, number) == 0, "compared as a number");

struct store_segment *store_find_segment(const struct vex_store *store, uint64_t number)
{
    size_t count = store_segments_count(store);
    return count ? bsearch(&number, store->segments.data, count, sizeof(struct store_segment),
                           compare_numbers)
                 : NULL;
}

bool store_add_segment(struct vex_store *store, uint64_t number, uint64_t bytes)
{
    struct store_segment *known = store_find_segment(store, number);
    if (known) {
        known->bytes = bytes;
        return true;
    }
    const struct store_segment segment = {number, bytes};
    if (!vex_buffer_append(&store->segments, &segment, sizeof(segment))) {
        return false;
    }
    /* Numbers grow, so it mostly stands where it belongs already. */
    for (size_t i = store_segments_count(store) - 1;
         i > 0 && store_segment_at(store, i - 1)->number > number; i--) {
        *store_segment_at(store, i) = *store_segment_at(store, i - 1);
        *store_segment_at(store, i - 1) = segment;
    }
    return true;
}

void store_count(struct vex_store *store)
{
    uint64_t bytes = 0;
    size_t count = store_segments_count(store);
    for (size_t i = 0; i < count; i++) {
        bytes += store_segment_at(store, i)->bytes;
    }
    (void)pthread_mutex_lock(&store->mutex);
    store->counters.segments = count;
    store->counters.segment_bytes = bytes;
    store->counters.checkpoint_lsn = store->kept_count ? store->kept[0].entry.lsn : 0;
    (void)pthread_mutex_unlock(&store->mutex);
}

bool store_has_failed(const struct vex_store *store)
{
    /* Written by the thread that asks. */
    return store->counters.failed;
}

/* ---- life ------------------------------------------------------------------------------------ */

enum vex_status vex_store_open(struct vex_io *io,
                               const struct vex_io_buffer buffers[VEX_LOG_BUFFERS],
                               const struct vex_store_options *options,
                               const struct vex_store_state *state, struct vex_store **out_store,
                               struct vex_store_recovery *out_recovery, struct vex_error *error)
{
    *out_store = NULL;
    struct vex_store *store = calloc(1, sizeof(*store));
    if (!store) {
        return vex_error_set(error, VEX_ERR_NOMEM, "store: out of memory");
    }
    store->io = io;
    store->reserve_wanted_bytes = vex_round_up(options->reserve_bytes, VEX_BLOCK_BYTES);
    (void)pthread_mutex_init(&store->mutex, NULL);
    enum vex_status status = store_recover(store, buffers, options, state, out_recovery, error);
    if (status != VEX_OK) {
        vex_store_close(store);
        return status;
    }
    *out_store = store;
    return VEX_OK;
}

void vex_store_close(struct vex_store *store)
{
    if (!store) {
        return;
    }
    vex_log_close(store->log);
    for (size_t i = 0; i < VEX_MANIFEST_CHECKPOINTS_MAX; i++) {
        store_kept_deinit(&store->kept[i]);
    }
    vex_buffer_deinit(&store->segments);
    (void)pthread_mutex_destroy(&store->mutex);
    free(store);
}

const uint8_t *vex_store_uuid(const struct vex_store *store)
{
    return store->uuid;
}

struct vex_io *vex_store_io(const struct vex_store *store)
{
    return store->io;
}

struct vex_log *vex_store_log(const struct vex_store *store)
{
    return store->log;
}

uint64_t vex_store_new_segment_number(struct vex_store *store)
{
    (void)pthread_mutex_lock(&store->mutex);
    uint64_t number = store->next_segment_number++;
    (void)pthread_mutex_unlock(&store->mutex);
    return number;
}

struct vex_store_cut vex_store_take_cut(const struct vex_store *store)
{
    return (struct vex_store_cut){
        .lsn = vex_log_next_lsn(store->log) - 1,
        .log_file = vex_log_file_number(store->log),
    };
}

void vex_store_get_counters(const struct vex_store *store, struct vex_store_counters *out)
{
    /* Locking changes nothing that a caller could see. */
    pthread_mutex_t *mutex = (pthread_mutex_t *)(uintptr_t)&store->mutex;
    (void)pthread_mutex_lock(mutex);
    *out = store->counters;
    (void)pthread_mutex_unlock(mutex);
}
