/* The log's inside, shared by log.c (appending), log_files.c (which files there are, switching,
 * trimming), log_prepare.c (the next file), log_scan.c (reading), log_recover.c and log_repair.c. */
#ifndef VEX_IOENGINE_LOG_PRIV_H
#define VEX_IOENGINE_LOG_PRIV_H

#include <pthread.h>

#include "base/bytes.h"
#include "ioengine/log.h"
#include "ioengine/log_scan.h"
#include "ioengine/record.h"

#define PREPARED_PATH VEX_LOG_DIRECTORY "/prepared"
#define SPARE_PATH VEX_LOG_DIRECTORY "/spare"
#define LOG_PATH_MAX 64u

enum preparation {
    PREPARATION_NONE,
    PREPARATION_RUNNING,
    PREPARATION_READY,
    PREPARATION_FAILED,
};

enum spare {
    SPARE_NONE,
    SPARE_MOVING, /* somebody renames or removes it, without holding the mutex */
    SPARE_READY,
};

/* A file without a name in the log yet. */
struct log_prepared {
    struct vex_file file;
    /* A second descriptor, given up right before the directory is synced under the new name: without
     * it, a process that has run out of descriptors would latch the log there. */
    struct vex_file reserve;
    uint64_t bytes;
    bool recycled; /* behind the header there are bytes of an earlier life */
    bool zeroed;   /* every byte was written */
};

struct log_request {
    uint64_t bytes;     /* wanted */
    uint64_t bytes_min; /* if the disk has no room for more */
    bool bare;          /* blocks will do, no zeros */
};

struct log_file_entry {
    uint64_t number;
    uint64_t bytes;
};

/* All files and the one after the current. Guarded by the mutex: the log's thread, its helper and
 * whoever trims share it. */
struct log_files {
    pthread_mutex_t mutex;
    pthread_cond_t changed;    /* of `state` */
    struct vex_buffer entries; /* struct log_file_entry, ascending; the last is the current one */
    uint64_t bytes;            /* of all of them */
    uint64_t zeroed_bytes;     /* written to prepare files */

    enum preparation state;
    struct log_request request;
    struct log_prepared prepared;
    int failure; /* errno */

    bool recycling;
    enum spare spare;
    uint64_t spare_bytes;
    uint64_t spare_bytes_min; /* smaller ones are of no use */

    pthread_t thread; /* the helper: made when first needed */
    bool helper_asked;
    bool started;
    bool stop;
};

struct vex_log {
    struct vex_io *io;
    uint8_t uuid[VEX_LOG_UUID_BYTES];
    uint64_t file_bytes_min;
    uint64_t file_bytes_max;
    uint64_t typical_batch_bytes; /* of late */

    struct vex_file file; /* the one appended to */
    uint64_t file_number;
    uint64_t file_bytes;
    uint64_t file_offset; /* where the next batch goes */
    uint64_t nonce;
    bool rotate;   /* the next batch goes to a new file */
    uint8_t *page; /* one block for headers and end marks */

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
    uint64_t batch_bytes;
    uint64_t replay_bytes;
    struct log_files files;
};

/* Where the walk stands, or ended, in one file. */
struct log_position {
    uint64_t file_number; /* 0 = before the first file */
    uint64_t file_bytes;
    uint64_t nonce;
    uint64_t offset; /* of the next batch, or of the end mark */
    uint64_t next_lsn;
    uint64_t previous_hash;
    uint64_t batches; /* in this file, the end mark included */
    bool ended;       /* there is an end mark, at `offset` */
};

enum log_damage {
    LOG_DAMAGE_NONE,
    LOG_DAMAGE_FOREIGN,   /* a file of another instance; records where there should be no log */
    LOG_DAMAGE_FILE,      /* a file is missing or of no use: the log ends in the one before it */
    LOG_DAMAGE_LENGTH,    /* a file is shorter than its header says */
    LOG_DAMAGE_BATCH,     /* at damage_at */
    LOG_DAMAGE_END_MARK,  /* missing at damage_at, though the log goes on in the next file */
    LOG_DAMAGE_SUCCESSOR, /* missing, though there is an end mark at damage_at */
    LOG_DAMAGE_SHORT,     /* the log ends before the checkpoint */
};

/* One walk (log_scan.c), and what it found. */
struct log_scan {
    struct vex_io *io;
    const uint8_t *uuid;
    struct vex_log_start start;
    const struct vex_log_visitor *visitor;
    struct vex_error *error;
    const char *remedy; /* appended to what is said about damage */

    uint64_t last_number;      /* highest file there is, 0 = none */
    struct vex_buffer numbers; /* uint64_t: of the files from the start on, in any order */
    struct vex_buffer
        leftovers;             /* uint64_t: of those below it; all of them if there is no log yet */
    struct vex_buffer entries; /* struct log_file_entry: the files read */
    char path[LOG_PATH_MAX];   /* the file at hand ... */
    uint8_t *data;             /* ... read whole */
    uint64_t data_bytes;
    uint64_t data_capacity;

    struct log_position at;
    struct log_position before; /* the end of the file before */
    enum log_damage damage;
    struct log_position damage_at;
    bool torn;  /* the log ends before a torn batch */
    bool dirty; /* the block at the end is not zero */
    bool clean;
    uint64_t proven_lsn;
    uint64_t batches;
    uint64_t records;
    uint64_t record_bytes;
    uint64_t replay_bytes;
};

/* log_files.c */
void log_file_path(char *out_path, uint64_t file_number);
/* Header of a file that begins behind `position`, sealed, as one block at `page`. */
void log_make_header(uint8_t *page, const uint8_t *uuid, uint64_t file_number,
                     const struct log_position *position, uint64_t file_bytes, uint64_t *out_nonce);
/* The block that ends a file at `position`. Always the same for the same position. */
void log_make_end_mark(uint8_t *page, const struct log_position *position);
/* Writes one block durably. */
int log_write_block(struct vex_io *io, const struct vex_file *file, const uint8_t *page,
                    uint64_t offset);
/* Makes the prepared file the current one. 0 or a negative errno, which must latch the log. */
int log_switch_file(struct vex_log *log);

/* log_prepare.c */
void log_files_init(struct log_files *files);
void log_files_deinit(struct vex_log *log);
/* Makes a zero-filled file at PREPARED_PATH. 0 or a negative errno. */
int log_make_prepared(struct vex_io *io, const struct log_request *request,
                      struct log_prepared *out_prepared);
/* Zeros from `offset` to `end`, durably. 0 or a negative errno. */
int log_write_zeros(struct vex_io *io, const struct vex_file *file, uint64_t offset, uint64_t end);
/* Size of the file after the current one. */
uint64_t log_next_file_bytes(const struct vex_log *log, uint64_t at_least);
/* Has the next file prepared, if none is ready, on its way, or was refused. */
void log_prepare(struct vex_log *log);
/* Returns when a file of at least `bytes` is ready. 0 or a negative errno. */
int log_await_prepared(struct vex_log *log, uint64_t bytes, bool small);
/* As log_await_prepared, and the file holds no old bytes. Ends recycling. */
int log_await_fresh(struct vex_log *log, uint64_t bytes);
/* The last attempt failed: the disk is full, and a watermark is not worth another one. */
bool log_preparation_failed(struct vex_log *log);
/* The size of file that a batch needs: header, batch, end mark. Without `small` it is not one of those
 * that are made on a full disk for records that give space back. */
uint64_t log_file_bytes_for(const struct vex_log *log, uint64_t batch_bytes, bool small);
/* A file that takes any small batch is ready, or one is on its way. */
bool log_preparation_assured(struct vex_log *log);
/* A file of at least `bytes` is ready. */
bool log_has_prepared(struct vex_log *log, uint64_t bytes);

/* log_scan.c. The caller fills in the first fields of a zeroed struct. */
enum vex_status log_scan_run(struct log_scan *scan);
void log_scan_deinit(struct log_scan *scan);
/* Reads a file whole into scan->data. NOT_FOUND, IO, NOMEM. */
enum vex_status log_scan_read_file(struct log_scan *scan, uint64_t file_number);
/* The highest LSN that sound batches of the file at hand, from `offset` on, hold or name. */
uint64_t log_scan_highest_lsn(const struct log_scan *scan, uint64_t file_number, uint64_t nonce,
                              uint64_t offset);

/* log_recover.c: fills everything up to `submitted_lsn`. */
enum vex_status log_recover(struct vex_log *log, const struct vex_log_start *start,
                            vex_log_replay replay, void *context,
                            struct vex_log_recovery *out_recovery, struct vex_error *error);

#endif
