/*
 * libvex: search a VexDB instance in your own thread, write to it durably.
 *
 * An instance is a directory. Its writer daemon, vexd, is the only process that changes anything;
 * this library maps the snapshot that vexd publishes in shared memory, read-only, and searches it
 * in place. A read makes no system call, takes no lock and waits for nobody. A write travels to
 * vexd over a UNIX socket and returns once it is on disk and visible.
 *
 * THREADS    Handles may be used from any number of threads at once, except a struct vex_snapshot:
 *            it may move between threads but serves one at a time. Closing a handle while another
 *            thread still uses it is an error of the caller.
 * ROUNDING   Searches assume the default floating-point rounding mode of the calling thread.
 * FORK       A child must not use handles opened before fork(): every call on them returns
 *            VEX_ERR_INVALID there. Open the instance again in the child.
 * OWNERSHIP  What _open and _create hand out is given back with the matching _close. Pointers
 *            into a snapshot are valid until vex_snapshot_close(). Nothing is ever to be free()d by
 *            you.
 * ERRORS     Every call that can fail returns enum vex_status; the last argument, which may be
 *            NULL, receives the message. On failure handles become NULL and other outputs hold
 *            nothing of meaning.
 * OPTIONS    Option and result structs begin with their size, so that a program and a library that
 *            were not built for each other refuse instead of misreading. Start from the _INIT macro,
 *            or zero the struct and set `size`.
 * HYGIENE    No threads, no signal handlers, no output, no global state that needs set-up; one
 *            thread-local slot cache. Signals that interrupt a call restart it.
 *
 * DISTANCES  Smaller is nearer for VEX_METRIC_L2 (squared Euclidean distance) and VEX_METRIC_COSINE
 *            (1 - cosine); larger is nearer for VEX_METRIC_DOT (the dot product itself). Ranking is
 *            by the distance computed in double precision and then by the lower id, so that equal
 *            data gives equal answers on every processor; the value handed out is rounded to float.
 *
 * STORAGE    A collection keeps its vectors as float32, as given; as float16, each coordinate rounded to the
 *            nearest (one beyond 65504 is refused with VEX_ERR_LIMIT); or as int8, round(x / scale) with a
 *            scale for each vector, its largest magnitude over 127 (cut to 16 significant bits). The
 *            rounded vector *is* the vector from then on: whatever the index, candidates may be found by
 *            shorter codes, but they are ranked by the stored row in double precision, the distance handed
 *            out is that to the stored row, exact search is exact over the stored rows, and a get returns
 *            them. A vector that was read and is written again stays the same. Queries are not rounded.
 */
#ifndef VEX_VEX_H
#define VEX_VEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vex/status.h>
#include <vex/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Limits and the enums vex_metric, vex_index_kind, vex_storage and vex_write_kind are in <vex/types.h>. */

#define VEX_API __attribute__((visibility("default")))
#define VEX_MUST_CHECK __attribute__((warn_unused_result))

#define VEX_VERSION_MAJOR 0
#define VEX_VERSION_MINOR 1
#define VEX_VERSION_PATCH 0

struct vex_db;         /* a connection to one instance */
struct vex_collection; /* one collection of it */
struct vex_snapshot;   /* one immutable state of one collection */

/* ---- library ------------------------------------------------------------------------------- */

/* "0.1.0"; static storage. */
VEX_API const char *vex_version(void);
/* Short English text of a status code; static storage, never NULL. */
VEX_API const char *vex_status_text(enum vex_status status);
/* "VEX_ERR_NOT_FOUND" for VEX_ERR_NOT_FOUND and so on; static storage, never NULL. */
VEX_API const char *vex_status_name(enum vex_status status);
/* "l2", "cosine", "dot", or "unknown"; static storage. */
VEX_API const char *vex_metric_name(enum vex_metric metric);
/* "auto", "flat", "hnsw", "ivf", or "unknown". */
VEX_API const char *vex_index_name(enum vex_index_kind index);
/* "float32", "float16", "int8", or "unknown". */
VEX_API const char *vex_storage_name(enum vex_storage storage);
/* Name of the distance kernels chosen for this processor: "scalar", "avx2" or "avx512". The
 * environment variable VEX_ISA lowers the choice. Static storage. */
VEX_API const char *vex_isa_name(void);

/* ---- instance ------------------------------------------------------------------------------ */

struct vex_open_options {
    size_t size;
    bool no_spawn;            /* fail with VEX_ERR_UNAVAILABLE instead of starting a private vexd */
    uint32_t timeout_ms;      /* for start and connect; 0 = 30,000 */
    uint32_t idle_timeout_ms; /* a private vexd ends after so long without clients; 0 = 10,000 */
    const char *vexd_path;    /* the daemon program; NULL = $VEXD_PATH, beside libvex, or $PATH */
};
/* clang-format off */
#define VEX_OPEN_OPTIONS_INIT {sizeof(struct vex_open_options), false, 0, 0, NULL}
/* clang-format on */

/*
 * Opens the instance in directory `dir` (NULL = $VEXDB_DIR, else ~/.local/share/vexdb). When no
 * daemon serves it, a private one is started, creating the directory if need be; several processes
 * doing this at once end up with one daemon. Blocks until the daemon answers.
 * Errors: UNAVAILABLE, TIMEOUT, VERSION, PERMISSION, CORRUPT (the daemon refused the directory; the
 * message quotes it), NOMEM, INVALID.
 */
VEX_API VEX_MUST_CHECK enum vex_status vex_open(const char *dir,
                                                const struct vex_open_options *options,
                                                struct vex_db **out_db, struct vex_error *error);
/* Closes the connection. Close its collections and snapshots first. NULL is allowed. */
VEX_API void vex_close(struct vex_db *db);

/* What the daemon does in the background. */
enum vex_upkeep_job {
    VEX_JOB_NONE = 0,
    VEX_JOB_CHECKPOINT = 1,
    VEX_JOB_MERGE = 2,
    VEX_JOB_BACKUP = 4,
};

struct vex_stats {
    size_t size;
    uint32_t daemon_pid;
    uint32_t clients;
    uint32_t collections;
    bool read_only;      /* latched by an I/O error of the log */
    bool embedded;       /* started by a client, ends itself when idle */
    char version[16];    /* of the daemon */
    char io_backend[16]; /* "uring" or "sync" */
    char instance[40];   /* UUID in text form */
    uint64_t lsn;        /* last durable and published record */
    uint64_t generation; /* number of publications so far */
    uint64_t uptime_ms;
    uint64_t live_rows;
    uint64_t dead_rows;      /* rows deleted or replaced whose space is not yet reclaimed */
    uint64_t shm_bytes;      /* shared memory held by the instance */
    uint64_t log_bytes;      /* bytes of log records written since the directory was made */
    uint64_t log_file_bytes; /* size of the log files on disk, prepared space included */
    uint64_t commits;        /* group commits since the daemon started */
    uint64_t records;        /* records made durable since the daemon started */
    uint64_t replayed;       /* records replayed at its start */
    uint64_t torn_tails;     /* incomplete batches dropped at its start; none was acknowledged */
    uint64_t recovery_us;    /* from the daemon's start to being ready */
    uint64_t checkpoint_lsn; /* a start replays only the records behind it; 0 = no checkpoint yet */
    uint64_t checkpoints;    /* written since the daemon started, as are the next four */
    uint64_t checkpoint_failures;
    uint64_t merges; /* segments were rewritten without their dead rows */
    uint64_t merge_failures;
    uint64_t merged_bytes;   /* shared memory that merges wrote */
    uint64_t segment_files;  /* on disk */
    uint64_t segment_bytes;  /* their size */
    uint64_t reserve_bytes;  /* disk space kept for finishing a checkpoint; 0 = it was given up */
    uint64_t ingested_bytes; /* of the records accepted since the daemon started */
    uint64_t written_bytes;  /* to log, segment and checkpoint files since then */
    uint64_t live_bytes;     /* vectors and payloads of the live rows */
    uint64_t quarantined;    /* collections set aside because their files are damaged */
    enum vex_upkeep_job upkeep_running; /* background work under way */
    char upkeep_error[96];              /* why the last of it failed; empty = it did not */
};

/* Asks the daemon. `out->size` must be set. Errors: UNAVAILABLE, TIMEOUT, INVALID. */
VEX_API VEX_MUST_CHECK enum vex_status vex_get_stats(struct vex_db *db, struct vex_stats *out,
                                                     struct vex_error *error);
/* Asks the daemon to stop after all accepted writes are on disk; returns when it has gone.
 * Readers keep their last snapshot. Errors: UNAVAILABLE, TIMEOUT. */
VEX_API VEX_MUST_CHECK enum vex_status vex_shutdown(struct vex_db *db, struct vex_error *error);
/* Waits until reads of this instance see record `lsn`. Errors: TIMEOUT, UNAVAILABLE, INVALID. */
VEX_API VEX_MUST_CHECK enum vex_status vex_wait(struct vex_db *db, uint64_t lsn,
                                                uint32_t timeout_ms, struct vex_error *error);

/*
 * Where `dir`, as given to vex_open (NULL = its default), leads: an absolute path, written to
 * out_path with its NUL. Nothing is opened or made. Errors: INVALID, BUFFER, NOMEM.
 */
VEX_API VEX_MUST_CHECK enum vex_status
vex_find_directory(const char *dir, char *out_path, size_t out_path_bytes, struct vex_error *error);
/* The daemon program that vex_open would start, `vexd_path` being that option or NULL. Errors:
 * UNAVAILABLE (there is none), BUFFER. */
VEX_API VEX_MUST_CHECK enum vex_status vex_find_vexd(const char *vexd_path, char *out_path,
                                                     size_t out_path_bytes,
                                                     struct vex_error *error);

/* ---- upkeep --------------------------------------------------------------------------------- */

/*
 * The daemon writes checkpoints and merges segments by itself. These calls ask for it now, and block
 * until it is done, however long that takes; reads and writes go on meanwhile. Several requests are
 * carried out one after the other. A request whose connection breaks may still be carried out; it is
 * harmless to repeat.
 */
struct vex_upkeep_info {
    size_t size;
    uint64_t lsn;             /* every record up to this one is in the checkpoint or the backup */
    uint64_t bytes;           /* of a backup */
    uint64_t rows_removed;    /* dead rows that a compaction left out */
    uint64_t segments_before; /* of the collections in question */
    uint64_t segments_after;
};
/* clang-format off */
#define VEX_UPKEEP_INFO_INIT {sizeof(struct vex_upkeep_info), 0, 0, 0, 0, 0}
/* clang-format on */

/*
 * Writes the state to segment files, so that the next start has nothing to replay. `out_info` may be
 * NULL. Errors: NO_SPACE, IO, READ_ONLY, CORRUPT (a collection is quarantined), BUSY (too many
 * requests wait), UNAVAILABLE, UNKNOWN_OUTCOME, NOMEM, INVALID.
 */
VEX_API VEX_MUST_CHECK enum vex_status
vex_checkpoint(struct vex_db *db, struct vex_upkeep_info *out_info, struct vex_error *error);

struct vex_compact_options {
    size_t size;
    /*
     * Also get rid of what was deleted or replaced before the call: no file of the instance holds
     * its bytes afterwards, the log included. Backups made earlier keep theirs, and a disk may keep
     * what it was told to give up: see its own means of erasing.
     */
    bool erase;
};
/* clang-format off */
#define VEX_COMPACT_OPTIONS_INIT {sizeof(struct vex_compact_options), false}
/* clang-format on */

/*
 * Merges the segments of a collection (NULL = of each one) without their dead rows, and gives the
 * memory and the disk space of the old ones back. `options` and `out_info` may be NULL. Errors: as
 * vex_checkpoint, and NO_COLLECTION.
 */
VEX_API VEX_MUST_CHECK enum vex_status vex_compact(struct vex_db *db, const char *collection,
                                                   const struct vex_compact_options *options,
                                                   struct vex_upkeep_info *out_info,
                                                   struct vex_error *error);
/*
 * Makes a checkpoint and a directory `path` with a copy of it that is itself an instance: to restore
 * it, copy it and open the copy. On the same file system its files are hard links, which cost
 * nothing; elsewhere they are copied. The directory appears under its name when it is whole. A
 * relative path is meant from this process's working directory; the directory that `path` is in must
 * exist, `path` must not, and it is the daemon that needs the permission to write there. Errors: as
 * vex_checkpoint, and EXISTS, PERMISSION, NOT_FOUND.
 */
VEX_API VEX_MUST_CHECK enum vex_status vex_backup(struct vex_db *db, const char *path,
                                                  struct vex_upkeep_info *out_info,
                                                  struct vex_error *error);

/* ---- collections --------------------------------------------------------------------------- */

struct vex_collection_options {
    size_t size;
    uint32_t dim; /* 1..VEX_DIM_MAX */
    enum vex_metric metric;
    enum vex_index_kind index;
    /* Of the graph, as HNSW's users know them (Malkov and Yashunin, 2018); 0 = default: 16 and 200. More of
     * either: better graphs, slower building; M also costs memory. */
    uint32_t m;
    uint32_t ef_construction;
    /* What is kept of each vector, see STORAGE; for as long as the collection lives. */
    enum vex_storage storage;
    uint32_t lists; /* into which IVF divides a segment, at most VEX_LISTS_MAX; 0 = by its size */
};
/* clang-format off */
#define VEX_COLLECTION_OPTIONS_INIT \
    {sizeof(struct vex_collection_options), 0, VEX_METRIC_L2, VEX_INDEX_AUTO, 0, 0, \
     VEX_STORAGE_FLOAT32, 0}
/* clang-format on */

struct vex_collection_info {
    size_t size;
    char name[VEX_NAME_MAX + 1];
    uint32_t id; /* never reused within an instance */
    uint32_t dim;
    enum vex_metric metric;
    enum vex_index_kind index;
    uint32_t m;
    uint32_t ef_construction;
    enum vex_storage storage;
    uint32_t lists; /* 0 = by the size of the segment */
    uint32_t segments;
    uint32_t graphs;    /* segments that have one so far; told by vex_collection_describe only */
    uint64_t count;     /* live vectors */
    uint64_t dead;      /* dead rows still held */
    uint64_t shm_bytes; /* shared memory of its segments */
    uint64_t lsn;       /* last record that changed it */
};

/*
 * Names are 1..VEX_NAME_MAX bytes of letters, digits, '_', '-' and '.', not starting with '.'.
 * Durable when it returns. Errors: INVALID, DIM, EXISTS, LIMIT, NO_SPACE, READ_ONLY, UNAVAILABLE,
 * UNKNOWN_OUTCOME.
 */
VEX_API VEX_MUST_CHECK enum vex_status
vex_collection_create(struct vex_db *db, const char *name,
                      const struct vex_collection_options *options, struct vex_error *error);

/* What vex_collection_alter changes. */
enum vex_alter {
    VEX_ALTER_INDEX = 1,
    VEX_ALTER_M = 2,
    VEX_ALTER_EF_CONSTRUCTION = 4,
    VEX_ALTER_LISTS = 8,
};

struct vex_alter_options {
    size_t size;
    uint32_t
        changes; /* VEX_ALTER_... ORed: which of the following count; the rest stays as it is */
    /* As in struct vex_collection_options, 0 for the default included. */
    enum vex_index_kind index;
    uint32_t m;
    uint32_t ef_construction;
    uint32_t lists;
};
/* clang-format off */
#define VEX_ALTER_OPTIONS_INIT {sizeof(struct vex_alter_options), 0, VEX_INDEX_AUTO, 0, 0, 0}
/* clang-format on */

/*
 * Asks for another index, durably. What it takes is done in the background, segment by segment, while
 * reads and writes go on: a segment is searched by the index that it has until it is replaced.
 * vex_collection_index_status tells how far that is, and vex_compact does it at once. Errors: INVALID
 * (nothing to change, or out of bounds), NO_COLLECTION, CORRUPT (quarantined), NO_SPACE, READ_ONLY,
 * UNAVAILABLE, UNKNOWN_OUTCOME.
 */
VEX_API VEX_MUST_CHECK enum vex_status vex_collection_alter(struct vex_db *db, const char *name,
                                                            const struct vex_alter_options *options,
                                                            struct vex_error *error);

struct vex_index_status {
    size_t size;
    enum vex_index_kind index; /* asked for, as are the next three */
    uint32_t m;
    uint32_t ef_construction;
    uint32_t lists;
    uint32_t segments;
    uint32_t segments_indexed; /* with the index that is asked for */
    uint32_t segments_other;   /* with another one: searched by it until it is replaced */
    uint32_t
        segments_waiting; /* to be built or replaced in the background, segments_other included */
    /* Dead rows included. What has no index is scanned: the newest rows, small segments, all of flat. */
    uint64_t rows;
    uint64_t rows_indexed;
    uint64_t rows_other;
    uint64_t build_rows; /* of what is being built for it now; 0 = nothing is */
    uint64_t build_ms;   /* since that began */
    bool busy_elsewhere; /* builders, of which there are two, work for other collections */
};

/* Asks the daemon. `out->size` must be set. Errors: NO_COLLECTION, UNAVAILABLE, TIMEOUT, INVALID. */
VEX_API VEX_MUST_CHECK enum vex_status vex_collection_index_status(struct vex_db *db,
                                                                   const char *name,
                                                                   struct vex_index_status *out,
                                                                   struct vex_error *error);
/* Removes a collection and everything in it, durably. Open snapshots of it stay readable.
 * Errors: NO_COLLECTION, READ_ONLY, UNAVAILABLE, UNKNOWN_OUTCOME. */
VEX_API VEX_MUST_CHECK enum vex_status vex_collection_drop(struct vex_db *db, const char *name,
                                                           struct vex_error *error);
/*
 * Fills up to `capacity` entries in name order and sets *out_count to the number there are, which
 * may be larger. `infos[i].size` must be set in each entry. infos may be NULL if capacity is 0.
 */
VEX_API VEX_MUST_CHECK enum vex_status vex_collection_list(struct vex_db *db,
                                                           struct vex_collection_info *infos,
                                                           size_t capacity, size_t *out_count,
                                                           struct vex_error *error);
/* Errors: NO_COLLECTION, INVALID, NOMEM. */
VEX_API VEX_MUST_CHECK enum vex_status vex_collection_open(struct vex_db *db, const char *name,
                                                           struct vex_collection **out_collection,
                                                           struct vex_error *error);
VEX_API void vex_collection_close(struct vex_collection *collection);
/* `out->size` must be set. Errors: GONE, INVALID. */
VEX_API VEX_MUST_CHECK enum vex_status vex_collection_describe(struct vex_collection *collection,
                                                               struct vex_collection_info *out,
                                                               struct vex_error *error);

/* ---- writes -------------------------------------------------------------------------------- */

/*
 * Items of one write. All arrays have `count` entries and stay the caller's. One batch is one
 * record of the log: all of it happens or nothing, and it becomes visible at once. The same id may
 * stand in an upsert or update batch more than once; the last one wins. In an insert or delete
 * batch a repeated id is an error.
 */
struct vex_batch {
    size_t size;
    size_t count;                /* 1..VEX_BATCH_COUNT_MAX */
    const uint64_t *ids;         /* 0..VEX_ID_MAX; NULL = the coordinator numbers them (inserts) */
    const float *vectors;        /* count x dim, row after row; NULL for deletes */
    size_t dim;                  /* of the vectors; must be the collection's; 0 for deletes */
    const void *const *payloads; /* NULL = none; an entry may be NULL */
    const size_t *payload_bytes; /* with payloads; each at most VEX_PAYLOAD_MAX */
};
/* clang-format off */
#define VEX_BATCH_INIT {sizeof(struct vex_batch), 0, NULL, NULL, 0, NULL, NULL}
/* clang-format on */

/* What an acknowledgement says. Acknowledged means: on disk, and visible to every read that starts
 * afterwards, in any process. */
struct vex_ack {
    size_t size;
    uint64_t lsn;      /* pass it as min_lsn to see at least this write */
    uint64_t first_id; /* of the ids made by the coordinator: first_id .. first_id + count - 1 */
    uint64_t count;
};
/* clang-format off */
#define VEX_ACK_INIT {sizeof(struct vex_ack), 0, 0, 0}
/* clang-format on */

/*
 * Sends one batch and blocks until it is acknowledged; threads that write at the same time share
 * group commits. `out_ack` may be NULL. On any error but UNKNOWN_OUTCOME nothing has changed.
 * Errors: INVALID, DIM, NOT_FINITE, ZERO_VECTOR (cosine), LIMIT, EXISTS, NOT_FOUND, GONE, NO_SPACE,
 * READ_ONLY, UNAVAILABLE, UNKNOWN_OUTCOME, NOMEM. The message names the item and its id.
 */
VEX_API VEX_MUST_CHECK enum vex_status vex_write(struct vex_collection *collection,
                                                 enum vex_write_kind kind,
                                                 const struct vex_batch *batch,
                                                 struct vex_ack *out_ack, struct vex_error *error);

/* One vector. `id` points at the id to use; NULL lets the coordinator make one (see out_ack). */
VEX_API VEX_MUST_CHECK enum vex_status vex_insert(struct vex_collection *collection,
                                                  const uint64_t *id, const float *vector,
                                                  size_t dim, const void *payload,
                                                  size_t payload_bytes, struct vex_ack *out_ack,
                                                  struct vex_error *error);
VEX_API VEX_MUST_CHECK enum vex_status vex_upsert(struct vex_collection *collection, uint64_t id,
                                                  const float *vector, size_t dim,
                                                  const void *payload, size_t payload_bytes,
                                                  struct vex_ack *out_ack, struct vex_error *error);
VEX_API VEX_MUST_CHECK enum vex_status vex_update(struct vex_collection *collection, uint64_t id,
                                                  const float *vector, size_t dim,
                                                  const void *payload, size_t payload_bytes,
                                                  struct vex_ack *out_ack, struct vex_error *error);
VEX_API VEX_MUST_CHECK enum vex_status vex_delete(struct vex_collection *collection, uint64_t id,
                                                  struct vex_ack *out_ack, struct vex_error *error);

/* ---- reads --------------------------------------------------------------------------------- */

struct vex_read_options {
    size_t size;
    uint64_t min_lsn;              /* see at least this record; 0 = whatever is current */
    uint32_t timeout_ms;           /* for min_lsn; 0 = 5,000 */
    struct vex_snapshot *snapshot; /* read this state instead of the current one; NULL = current */
};
/* clang-format off */
#define VEX_READ_OPTIONS_INIT {sizeof(struct vex_read_options), 0, 0, NULL}
/* clang-format on */

/*
 * A snapshot is one state of one collection, kept until it is closed: several reads see the same
 * rows, and the pointers handed out stay valid. It holds memory in the daemon: close it soon.
 * Errors: GONE, TIMEOUT, NOMEM, UNAVAILABLE.
 */
VEX_API VEX_MUST_CHECK enum vex_status vex_snapshot_open(struct vex_collection *collection,
                                                         const struct vex_read_options *options,
                                                         struct vex_snapshot **out_snapshot,
                                                         struct vex_error *error);
VEX_API void vex_snapshot_close(struct vex_snapshot *snapshot);
/* Every record up to this one is in the snapshot, and none after it. */
VEX_API uint64_t vex_snapshot_lsn(const struct vex_snapshot *snapshot);

struct vex_search_options {
    size_t size;
    uint32_t k;    /* neighbours wanted, 1..VEX_K_MAX */
    bool payloads; /* also hand out payloads, see struct vex_results */
    bool exact;    /* as if every row were looked at, whatever the index and what follows here */
    /*
     * How many candidates a graph search keeps, as HNSW's users know it: more finds more of the true
     * neighbours and takes longer. 0 = 64; never less than k.
     */
    uint32_t ef_search;
    /* How many lists of each segment an IVF search reads, at most VEX_LISTS_MAX: more finds more and takes
     * longer. 0 = 64. Like ef_search it is without effect where the index is another one. */
    uint32_t nprobe;
    /*
     * Instead of the two above, which must be 0 then: the share of the true neighbours to aim at, above 0
     * and below 1. The effort follows from what was measured on the collection's own rows when the index
     * was built. It is an estimate, on the careful side, for queries that lie as the rows do: the mean over many, not a
     * promise for each. Where nothing was measured (fewer than 1,024 rows) the effort is generous; where
     * no measured effort was enough, it is estimated beyond the largest one, up to four times that. 0 = not asked for.
     */
    float recall;
    struct vex_read_options read;
};
/* clang-format off */
#define VEX_SEARCH_OPTIONS_INIT \
    {sizeof(struct vex_search_options), 10, false, false, 0, 0, 0, VEX_READ_OPTIONS_INIT}
/* clang-format on */

/*
 * Caller's arrays for the hits of `queries_count` queries; hit j of query i is at [i * k + j],
 * nearest first. Unused places get id UINT64_MAX and distance infinity (dot: -infinity). Payloads:
 * with options.payloads, payloads[] and payload_bytes[] are filled (NULL and 0 = the hit has none).
 * With a snapshot they point into it. Without one they are copied to payload_buffer; when it is too
 * small the call fails with VEX_ERR_BUFFER and the message says how many bytes are needed.
 */
struct vex_results {
    size_t size;
    uint64_t *ids;    /* queries_count * k */
    float *distances; /* queries_count * k */
    uint32_t *counts; /* queries_count: hits found, less than k only if the collection has less */
    const void **payloads; /* queries_count * k, or NULL */
    size_t *payload_bytes; /* queries_count * k, or NULL */
    void *payload_buffer;
    size_t payload_buffer_bytes;
};

struct vex_search_info {
    size_t size;
    uint64_t count;        /* hits over all queries */
    bool complete;         /* true: each query got k rows, or all there are */
    bool stale;            /* true: the daemon is gone or silent, the snapshot may be old */
    const char *mode;      /* "exact", "hnsw" (a graph was walked) or "ivf"; static storage */
    uint64_t snapshot_lsn; /* the state that was searched */
    uint64_t rows_visited; /* rows compared, over all queries; of a graph, in compressed form */
    uint32_t ef_search;    /* as used, also for a recall: the largest over segments; 0 = no graph */
};

/*
 * The k nearest vectors to each of `queries_count` queries of `dim` floats, row after row.
 * `out_info` may be NULL. Errors: INVALID, DIM, NOT_FINITE, ZERO_VECTOR, LIMIT, BUFFER, GONE,
 * TIMEOUT (min_lsn), CORRUPT (shared memory does not hold what it should), NOMEM.
 */
VEX_API VEX_MUST_CHECK enum vex_status
vex_search(struct vex_collection *collection, const float *queries, size_t queries_count,
           size_t dim, const struct vex_search_options *options, struct vex_results *results,
           struct vex_search_info *out_info, struct vex_error *error);

/* What a stored vector looks like. From vex_snapshot_get() the pointers lead into the snapshot. */
struct vex_record {
    size_t size;
    uint64_t id;
    const float
        *vector; /* dim floats: those given, or what the collection's storage keeps of them */
    size_t dim;
    const void *payload; /* NULL = none */
    size_t payload_bytes;
    uint64_t lsn; /* the snapshot that was read */
};

/*
 * Zero-copy, but for vectors stored as something else than float32: those are decoded into memory that is
 * the snapshot's until it is closed, dim floats for each call. To read many of them, vex_get with
 * options.snapshot takes a buffer of yours. `out->size` must be set. Errors: NOT_FOUND, INVALID, CORRUPT,
 * NOMEM.
 */
VEX_API VEX_MUST_CHECK enum vex_status vex_snapshot_get(struct vex_snapshot *snapshot, uint64_t id,
                                                        struct vex_record *out,
                                                        struct vex_error *error);
/*
 * Copies: `vector` (NULL = not wanted) must hold the collection's dim floats, given as vector_dim;
 * `payload` (NULL = not wanted) holds payload_capacity bytes. Then `out`, which may be NULL, points
 * at these buffers. Errors: NOT_FOUND, DIM, BUFFER (payload larger than payload_capacity; nothing
 * was copied and the message says how many bytes are needed), GONE, TIMEOUT, CORRUPT.
 */
VEX_API VEX_MUST_CHECK enum vex_status vex_get(struct vex_collection *collection, uint64_t id,
                                               const struct vex_read_options *options,
                                               float *vector, size_t vector_dim, void *payload,
                                               size_t payload_capacity, struct vex_record *out,
                                               struct vex_error *error);
/* Errors: GONE, TIMEOUT, CORRUPT. */
VEX_API VEX_MUST_CHECK enum vex_status vex_exists(struct vex_collection *collection, uint64_t id,
                                                  const struct vex_read_options *options,
                                                  bool *out_exists, struct vex_error *error);
/* Live vectors. Errors: GONE, TIMEOUT. */
VEX_API VEX_MUST_CHECK enum vex_status vex_count(struct vex_collection *collection,
                                                 const struct vex_read_options *options,
                                                 uint64_t *out_count, struct vex_error *error);

#ifdef __cplusplus
}
#endif
#endif
