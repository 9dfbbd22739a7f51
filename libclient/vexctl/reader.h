/*
 * Import files: bytes in memory to rows of floats.
 *
 * One reader for all formats: fvecs, bvecs, npy and JSON lines. It works on bytes, opens no file
 * and prints nothing, so that a fuzzer can feed it. Whatever the bytes are, it returns rows that
 * are sound (finite floats, one dimension, ids within range) or an error that names row and byte
 * offset.
 *
 * Opening checks the shape of everything: header, length, the dimension of each row. Values are
 * checked as they are read; who wants the whole file judged before the first row is used reads it
 * twice.
 *
 * Thread-safety: a reader serves one thread at a time.
 */
#ifndef VEX_VEXCTL_READER_H
#define VEX_VEXCTL_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vex/status.h>
#include <vex/types.h>

enum vex_reader_format {
    VEX_READER_UNKNOWN,
    VEX_READER_FVECS, /* per row: int32 dim, dim x float32 */
    VEX_READER_BVECS, /* per row: int32 dim, dim x uint8 */
    VEX_READER_NPY,   /* numpy array, 1-d (one row) or 2-d */
    VEX_READER_JSONL, /* per line: {"id": .., "vector": [..], "payload": ..} */
};

struct vex_reader;

/* Valid until the next call with the same reader. */
struct vex_reader_rows {
    uint64_t first_row;
    size_t count;                /* 0 = the end */
    const float *vectors;        /* count x dim */
    const uint64_t *ids;         /* NULL = the file has none */
    const void *const *payloads; /* NULL = none of these rows has one */
    const size_t *payload_bytes;
    size_t bytes; /* vectors, ids and payloads of these rows, as a batch counts them */
};

/* By the word that --format takes ("fvecs"), or by a path's extension. UNKNOWN if it is none. */
enum vex_reader_format vex_reader_format_of_word(const char *word);
enum vex_reader_format vex_reader_format_of_path(const char *path);
/* What the bytes look like, for a message: "a gzip archive"; NULL if nothing is recognised. */
const char *vex_reader_sniff(const void *data, size_t bytes);

/*
 * `data` stays the caller's, and readable until the reader is closed. Its bytes may even change
 * meanwhile: then rows or errors are others, but nothing outside is touched. Errors: FORMAT (the
 * message says where), NOMEM.
 */
enum vex_status vex_reader_open_memory(const void *data, size_t bytes,
                                       enum vex_reader_format format,
                                       struct vex_reader **out_reader, struct vex_error *error);
/* NULL is allowed. */
void vex_reader_close(struct vex_reader *reader);

uint32_t vex_reader_dim(const struct vex_reader *reader);
uint64_t vex_reader_rows_count(const struct vex_reader *reader);
bool vex_reader_has_ids(const struct vex_reader *reader);
/* From now on a row of zeros is an error: it has no direction under cosine. */
void vex_reader_refuse_zero(struct vex_reader *reader);

/* The next rows: at most rows_max, and at most bytes_max bytes as a batch counts them, but at least
 * one. Errors: FORMAT, NOT_FINITE, ZERO_VECTOR, LIMIT, NOMEM. */
enum vex_status vex_reader_next(struct vex_reader *reader, size_t rows_max, size_t bytes_max,
                                struct vex_reader_rows *out, struct vex_error *error);
/* Goes on with `row`, at most the number of rows. */
enum vex_status vex_reader_seek(struct vex_reader *reader, uint64_t row, struct vex_error *error);

#endif
