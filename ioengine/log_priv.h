/* The log's inside, shared by log.c (appending), log_files.c (files and their preparation) and
 * log_recover.c. */
#ifndef VEX_IOENGINE_LOG_PRIV_H
#define VEX_IOENGINE_LOG_PRIV_H

#include <pthread.h>

#include "ioengine/log.h"
#include "ioengine/record.h"

#define PREPARED_PATH VEX_LOG_DIRECTORY "/prepared"
#define LOG_PATH_MAX 64u

enum preparation {
    PREPARATION_NONE,
    PREPARATION_RUNNING,
    PREPARATION_READY,
    PREPARATION_FAILED,
};

/* The file after the current one. Guarded by the mutex. */
struct log_preparer {
    pthread_t thread;
    bool started;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool stop;
    enum preparation state;
    uint64_t bytes; /* size asked for, or of the file that is ready */
    struct vex_file file;
    int failure; /* errno */
};

struct vex_log {
    struct vex_io *io;
    uint8_t uuid[VEX_LOG_UUID_BYTES];
    uint64_t file_bytes_max;

    struct vex_file file; /* the one appended to */
    uint64_t file_number;
    uint64_t file_bytes;
    uint64_t file_offset; /* where the next batch goes */
    uint64_t nonce;
    uint64_t files_bytes; /* of all files */

    uint8_t *buffers[VEX_LOG_BUFFERS];
    unsigned open;     /* index of the buffer that collects */
    size_t open_bytes; /* records in it, without the batch header */
    uint32_t open_records;
    uint64_t next_lsn;

    bool in_flight;
    const uint8_t *flight_data;
    size_t flight_bytes;
    size_t flight_done; /* after short writes */
    unsigned flight_attempts;
    uint64_t submitted_lsn;
    uint64_t durable_lsn;
    uint64_t proven_lsn; /* durable_lsn of the last batch submitted */
    uint64_t previous_hash;
    int failure; /* errno that latched the log */

    uint64_t commits;
    uint64_t records;
    uint64_t record_bytes;
    struct log_preparer preparer;
};

/* log_files.c */
void log_file_path(char *out_path, uint64_t file_number);
int log_preparer_start(struct vex_log *log);
void log_preparer_stop(struct vex_log *log);
/* Asks for a file of at least `bytes`, if none is ready or on its way. */
void log_prepare(struct vex_log *log, uint64_t bytes);
/* Blocks until a file of at least `bytes` is ready. 0 or a negative errno. */
int log_await_prepared(struct vex_log *log, uint64_t bytes);
/* True if the last attempt failed: the disk is full, and a watermark is not worth another one. */
bool log_preparation_failed(struct vex_log *log);
/* True if a file of at least `bytes` is ready. */
bool log_has_prepared(struct vex_log *log, uint64_t bytes);
/* Makes the prepared file the current one. 0 or a negative errno, which must latch the log. */
int log_switch_file(struct vex_log *log);

/* log_recover.c: fills everything up to `submitted_lsn`. */
enum vex_status log_recover(struct vex_log *log, vex_log_replay replay, void *context,
                            struct vex_log_recovery *out_recovery, struct vex_error *error);

#endif
