/*
 * The publisher owns the instance's shared memory: the control region, the segments, the list
 * blocks, and what has been unlinked but may still be read. It knows generations and pins, not what
 * rows mean.
 *
 * Life of a piece of memory: made (segment or block) -> named by a view that is published in
 * generation g -> left out of a later view, published in generation r -> retired with r -> given
 * back once no client's slot holds a generation below r.
 *
 * Thread-safety: the daemon's main thread.
 */
#ifndef VEX_DAEMON_PUBLISHER_H
#define VEX_DAEMON_PUBLISHER_H

#include <stdbool.h>
#include <stdint.h>

#include <vex/status.h>

#include "daemon/home.h"
#include "shm/control.h"
#include "shm/region.h"

struct vex_publisher;

/* Makes a fresh control region for the instance; one that a dead daemon left is marked gone, so
 * that its readers attach again, and unlinked with all its segments. Errors: NO_SPACE, PERMISSION,
 * NOMEM, IO. */
enum vex_status vex_publisher_open(const uint8_t *key, struct vex_publisher **out_publisher,
                                   struct vex_error *error);
/* Marks the instance gone, unlinks everything and frees it. Homes must have been retired before.
 * NULL is allowed. */
void vex_publisher_close(struct vex_publisher *publisher);

/* Puts the control region under the name that clients look for, once it is worth attaching to. */
enum vex_status vex_publisher_announce(struct vex_publisher *publisher, struct vex_error *error);

/* The mapped control region, for vex_control_* calls. */
void *vex_publisher_region(struct vex_publisher *publisher);

/* A new, empty segment; the publisher chooses its number. Errors: NO_SPACE, NOMEM, IO. */
enum vex_status vex_publisher_make_home(struct vex_publisher *publisher,
                                        struct vex_segment_shape *shape, struct vex_home **out_home,
                                        struct vex_error *error);
/* A number that no segment of this or an earlier daemon has. */
uint64_t vex_publisher_new_segment_id(struct vex_publisher *publisher);
/* Takes charge of a segment made elsewhere. Errors: NOMEM. */
enum vex_status vex_publisher_adopt_home(struct vex_publisher *publisher, struct vex_home *home,
                                         struct vex_error *error);
/* vex_home_trim has left `held_bytes` of it. */
void vex_publisher_note_trimmed(struct vex_publisher *publisher, struct vex_home *home,
                                uint64_t held_bytes);
/* Frees a segment that no view has named. Takes *home. */
void vex_publisher_discard_home(struct vex_publisher *publisher, struct vex_home **home);
/* Takes a list block whose memory is allocated. Errors: NO_SPACE. */
enum vex_status vex_publisher_take_block(struct vex_publisher *publisher, uint32_t *out_block,
                                         struct vex_error *error);
uint64_t vex_publisher_new_list_id(struct vex_publisher *publisher);

/*
 * Hands memory over that the generation to be published next no longer names. Takes *home. A
 * collection's slot in the control region is reused in the same way: `out_reusable_slot` of
 * vex_publisher_reclaim.
 */
void vex_publisher_retire_home(struct vex_publisher *publisher, struct vex_home **home);
void vex_publisher_retire_block(struct vex_publisher *publisher, uint32_t block);
void vex_publisher_retire_slot(struct vex_publisher *publisher, uint32_t slot);

/* Publishes. Everything retired since the last call is bound to this generation. */
void vex_publisher_publish(struct vex_publisher *publisher, uint64_t lsn);

/* Gives back what generations below `oldest_pinned` alone could see (UINT64_MAX = nobody reads).
 * Calls `reusable` for each collection slot that may be used again. */
void vex_publisher_reclaim(struct vex_publisher *publisher, uint64_t oldest_pinned,
                           void (*reusable)(void *context, uint32_t slot), void *context);
/* A reader was cut off in the middle of a read: it may touch memory that is given back, and a hole in a
 * full /dev/shm is SIGBUS. From now on memory goes when the last process unmaps it. */
void vex_publisher_spare_readers(struct vex_publisher *publisher);
bool vex_publisher_has_retired(const struct vex_publisher *publisher);
/* Shared memory held, retired and not yet reclaimed included. */
uint64_t vex_publisher_shm_bytes(const struct vex_publisher *publisher);

#endif
