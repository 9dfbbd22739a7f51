/*
 * RocksDB as the peer, through its C interface.
 *
 * Set up as somebody would who wants each write on disk and cares for speed: its defaults, and
 *   - each write synced, through the write-ahead log, which is flushed with each write;
 *   - as many background threads as there are cores;
 *   - no compression, since floats do not shrink and trying costs time;
 *   - logs used again, so that a sync need not record a new file size too. That starts to work once
 *     there are old logs, so a few are made first, as in a store that has run for a while.
 * Threads that write at the same time share a sync; that is its default.
 */
#include <endian.h>
#include <inttypes.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rocksdb/c.h>

#include "tests/bench/common.h"
#include "tests/bench/peer.h"

#define RECYCLED_LOGS 4
#define AGE_RECORD_BYTES (1u << 20)
#define AGE_RECORDS 64u /* one log's worth: the default write buffer */

struct vex_peer {
    rocksdb_t *db;
    rocksdb_options_t *options;
    rocksdb_writeoptions_t *write_options;
    _Atomic uint64_t next_key;
};

const char *vex_peer_name(void)
{
    return "rocksdb";
}

/* False, having said so and freed the message, if there is one. */
static bool check(char *message, const char *what)
{
    if (!message) {
        return true;
    }
    (void)vex_bench_fail("rocksdb: %s: %s", what, message);
    rocksdb_free(message);
    return false;
}

static void set_options(struct vex_peer *peer)
{
    peer->options = rocksdb_options_create();
    rocksdb_options_set_create_if_missing(peer->options, 1);
    rocksdb_options_set_error_if_exists(peer->options, 1);
    rocksdb_options_increase_parallelism(peer->options, (int)vex_cores_count());
    rocksdb_options_set_compression(peer->options, rocksdb_no_compression);
    rocksdb_options_set_manual_wal_flush(peer->options, 0);
    rocksdb_options_set_recycle_log_file_num(peer->options, RECYCLED_LOGS);
    peer->write_options = rocksdb_writeoptions_create();
    rocksdb_writeoptions_set_sync(peer->write_options, 1);
    rocksdb_writeoptions_disable_WAL(peer->write_options, 0);
}

/* Fills and ends as many logs as are used again. */
static bool age_logs(struct vex_peer *peer)
{
    rocksdb_writeoptions_t *unsynced = rocksdb_writeoptions_create();
    rocksdb_flushoptions_t *flush = rocksdb_flushoptions_create();
    char *value = vex_bench_alloc(1, AGE_RECORD_BYTES);
    memset(value, 0xa5, AGE_RECORD_BYTES);
    bool sound = true;
    for (unsigned i = 0; i < RECYCLED_LOGS * AGE_RECORDS && sound && !vex_bench_stopped(); i++) {
        char *message = NULL;
        rocksdb_put(peer->db, unsynced, "aging", 5, value, AGE_RECORD_BYTES, &message);
        sound = check(message, "put");
        if (sound && i % AGE_RECORDS == AGE_RECORDS - 1) {
            rocksdb_flush(peer->db, flush, &message);
            sound = check(message, "flush");
        }
    }
    free(value);
    rocksdb_flushoptions_destroy(flush);
    rocksdb_writeoptions_destroy(unsynced);
    return sound;
}

bool vex_peer_open(struct vex_peer **out_peer, const char *root)
{
    char path[PATH_MAX + 16];
    (void)snprintf(path, sizeof(path), "%s/rocksdb", root);
    struct vex_peer *peer = vex_bench_alloc(1, sizeof(*peer));
    set_options(peer);
    char *message = NULL;
    peer->db = rocksdb_open(peer->options, path, &message);
    if (!check(message, "open") || !age_logs(peer)) {
        vex_peer_close(peer);
        return false;
    }
    *out_peer = peer;
    return true;
}

void vex_peer_close(struct vex_peer *peer)
{
    if (!peer) {
        return;
    }
    if (peer->db) {
        rocksdb_close(peer->db);
    }
    rocksdb_writeoptions_destroy(peer->write_options);
    rocksdb_options_destroy(peer->options);
    free(peer);
}

bool vex_peer_insert(struct vex_peer *peer, size_t count, const void *values, size_t value_bytes)
{
    /* relaxed: a number that nobody else gets is all that is wanted. */
    uint64_t first = atomic_fetch_add_explicit(&peer->next_key, count, memory_order_relaxed);
    rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    for (size_t i = 0; i < count; i++) {
        uint64_t key = htobe64(first + i); /* its order is that of bytes */
        rocksdb_writebatch_put(batch, (const char *)&key, sizeof(key),
                               (const char *)values + i * value_bytes, value_bytes);
    }
    char *message = NULL;
    rocksdb_write(peer->db, peer->write_options, batch, &message);
    rocksdb_writebatch_destroy(batch);
    return check(message, "write");
}

/* As the options themselves say, not as they were meant. */
bool vex_peer_print(const struct vex_peer *peer)
{
    rocksdb_options_t *options = peer->options;
    struct vex_line line;
    vex_line_begin(&line, "peer");
    vex_line_text(&line, "peer", vex_peer_name());
    vex_line_text(&line, "version", VEX_BENCH_ROCKSDB_VERSION);
    char text[512];
    (void)snprintf(
        text, sizeof(text),
        "defaults and sync=%d disableWAL=%d manual_wal_flush=%d use_fsync=%d "
        "allow_concurrent_memtable_write=%d enable_pipelined_write=%d max_background_jobs=%d "
        "compression=%d write_buffer_size=%zu recycle_log_file_num=%zu, %d logs aged",
        rocksdb_writeoptions_get_sync(peer->write_options),
        rocksdb_writeoptions_get_disable_WAL(peer->write_options),
        rocksdb_options_get_manual_wal_flush(options), rocksdb_options_get_use_fsync(options),
        rocksdb_options_get_allow_concurrent_memtable_write(options),
        rocksdb_options_get_enable_pipelined_write(options),
        rocksdb_options_get_max_background_jobs(options), rocksdb_options_get_compression(options),
        rocksdb_options_get_write_buffer_size(options),
        rocksdb_options_get_recycle_log_file_num(options), RECYCLED_LOGS);
    vex_line_text(&line, "options", text);
    return vex_line_end(&line);
}
