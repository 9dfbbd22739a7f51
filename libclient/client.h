/*
 * libvex's inside: the structs behind the public handles, and how a read gets at rows.
 *
 * A read pins the attachment's current generation, takes the collection's view, and finds the
 * view's segments already mapped in the collection's cache; only when the list of segments has
 * changed does it map, under a lock. Caches are replaced, never changed; an old one is freed once
 * every slot has left the generation in which it was replaced, by the same argument that protects
 * the daemon's memory.
 */
#ifndef VEX_LIBCLIENT_CLIENT_H
#define VEX_LIBCLIENT_CLIENT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <vex/vex.h>

#include "index/index.h"
#include "libclient/attachment.h"

struct vex_db {
    char *directory;
    struct vex_open_options options;
    char *vexd_path; /* owned copy of options.vexd_path */
    uint32_t fork_count;
    _Atomic(struct attachment *) current; /* writer: under `lock`. ATTACHMENT */
    _Atomic uint64_t epoch;               /* EPOCH. Counts the caches replaced so far */
    pthread_mutex_t lock;
    struct attachment *old;          /* let go, freed at vex_close */
    _Atomic uint64_t hangs_until_ns; /* no attempt to attach for a read before */
};

/* A segment mapped into this process; shared by caches and snapshots. */
struct mapped_segment {
    _Atomic uint32_t references;
    struct vex_region region;
    struct vex_segment segment;
};

struct view_cache {
    uint64_t serial; /* of the attachment */
    uint32_t slot;   /* of the collection in the control region */
    uint64_t list_id;
    uint32_t count;
    struct mapped_segment *mapped[VEX_LIST_SEGMENTS_MAX];
    /* The same segments as a view wants them; the rows of the last one come with each view. */
    struct vex_view_segment segments[VEX_LIST_SEGMENTS_MAX];
    uint64_t replaced_in; /* epoch of the database, once replaced */
    struct view_cache *next;
};

struct vex_collection {
    struct vex_db *db;
    struct vex_collection_facts facts;
    _Atomic(struct view_cache *) cache; /* writer: under `lock`. VIEW_CACHE */
    pthread_mutex_t lock;
    struct view_cache *replaced;
    _Atomic uint64_t sweep_after_ns; /* when to look through `replaced` again; 0 = it is empty */
};

/* One read under way, or the state that a snapshot holds. */
struct reading {
    struct attachment *attachment;
    struct reader_slot *slot;
    struct view_cache *cache;
    struct vex_view view;
    struct vex_view_segment segments[VEX_LIST_SEGMENTS_MAX];
    uint64_t live_rows;
    uint64_t dead_rows;
    uint64_t shm_bytes;
    uint64_t lsn; /* every record up to here is in the view */
    bool over;    /* vex_attachment_is_over, as of the pin */
};

/* A vector that a snapshot has handed out and that the segment does not hold as floats. */
struct decoded_vector {
    struct decoded_vector *next;
    float values[];
};

struct vex_snapshot {
    struct vex_db *db;
    struct vex_collection_facts facts;
    struct reading reading;
    struct mapped_segment *mapped[VEX_LIST_SEGMENTS_MAX];
    struct decoded_vector *decoded; /* freed when it is closed */
};

/* INVALID if the handle came out of a fork. */
enum vex_status vex_db_check(const struct vex_db *db, struct vex_error *error);
/* Makes sure that a daemon answers; starts one if the options allow. The attachment serves for
 * calls until vex_db_done. */
enum vex_status vex_db_ensure(struct vex_db *db, struct attachment **out_attachment,
                              struct vex_error *error);
void vex_db_done(struct vex_db *db, struct attachment *attachment);
/* When a call that begins now and changes nothing gives up waiting. */
uint64_t vex_db_deadline_ns(const struct vex_db *db);
/* A path that stays the same when the working directory changes; *out_path is to be free()d. Errors:
 * INVALID, NOMEM. */
enum vex_status vex_db_absolute(const char *path, char **out_path, struct vex_error *error);
/* If the current attachment is over: attaches to its successor if there is one; never starts one. */
void vex_db_try_attach(struct vex_db *db);
/* Pins the current attachment in the thread's own slot, or in a new one if `own` is false. */
enum vex_status vex_db_pin(struct vex_db *db, bool own, struct attachment **out_attachment,
                           struct reader_slot **out_slot, struct vex_error *error);
/* False: what was read since the pin cannot be trusted. */
bool vex_db_unpin(struct reader_slot *slot);
/* True if every reader, of whichever attachment, is idle or began in `epoch` or later. False also if
 * that cannot be told without waiting. */
bool vex_db_passed(struct vex_db *db, uint64_t epoch);
/* True if `attachment` is not the current one any more. */
bool vex_db_has_replaced(struct vex_db *db, const struct attachment *attachment);

/* Begins a read of the current state that covers `min_lsn`. Errors: GONE, TIMEOUT, NOMEM, CORRUPT,
 * UNAVAILABLE. */
enum vex_status vex_reading_begin(struct vex_collection *collection, bool own_slot,
                                  uint64_t min_lsn, uint32_t timeout_ms, struct reading *out,
                                  struct vex_error *error);
void vex_cache_free(struct view_cache *cache);
void vex_mapped_release(struct mapped_segment *mapped);

#endif
