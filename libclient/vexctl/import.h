/*
 * Loading the rows of a reader into a collection, in two passes.
 *
 * The first judges everything that can be judged without writing: each value, ids given twice, ids
 * that are taken. The second writes. So a bad file changes nothing, and what can still stop a load
 * half-way is the daemon, the disk, another writer, or a signal. Then every batch before is
 * durable, and the result says from which row to go on.
 */
#ifndef VEX_VEXCTL_IMPORT_H
#define VEX_VEXCTL_IMPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vex/vex.h>

#include "libclient/vexctl/lines.h"
#include "libclient/vexctl/reader.h"

struct vex_import {
    struct vex_reader *reader;
    struct vex_lines *lines;  /* NULL = no payload file */
    enum vex_write_kind kind; /* insert or upsert */
    uint64_t row_first;       /* rows row_first to row_end - 1 are loaded */
    uint64_t row_end;
    uint64_t id_first; /* id of row 0, if the file has no ids */
    size_t batch_rows; /* 0 = by bytes alone */
};

struct vex_import_result {
    uint64_t rows;   /* durable */
    uint64_t unsure; /* rows behind them whose batch may or may not be */
    uint64_t batches;
    uint64_t bytes; /* of vectors, ids and payloads, durable */
    uint64_t lsn;   /* of the last batch */
    double seconds;
    bool interrupted; /* by SIGINT or SIGTERM, between two batches */
};

/* `collection` may be NULL if it is yet to be created. Errors: those of the reader, EXISTS, LIMIT.
 */
enum vex_status vex_import_check(const struct vex_import *import, struct vex_collection *collection,
                                 struct vex_error *error);
/* *out is filled on failure too. Errors: those of the reader and of vex_write(). An interruption is
 * no error. */
enum vex_status vex_import_load(const struct vex_import *import, struct vex_collection *collection,
                                struct vex_import_result *out, struct vex_error *error);

#endif
