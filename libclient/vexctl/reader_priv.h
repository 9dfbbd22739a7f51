/*
 * Between the files of the reader. A format is opened by its own function, which fills in the
 * shape; the rows of the fixed formats (all but JSON lines) are then read by one function, because
 * they differ only in where a row starts and what its numbers are.
 */
#ifndef VEX_VEXCTL_READER_PRIV_H
#define VEX_VEXCTL_READER_PRIV_H

#include "libclient/vexctl/reader.h"

enum vex_element { VEX_ELEMENT_F4, VEX_ELEMENT_F8, VEX_ELEMENT_F2, VEX_ELEMENT_I1, VEX_ELEMENT_U1 };

/* Grows; indices are slots of the batch that is being read. */
struct vex_reader_buffers {
    float *vectors;
    uint64_t *ids;
    const void **payloads; /* filled when the batch is complete, for `blob` moves */
    size_t *payload_bytes; /* SIZE_MAX = no payload, until the batch is complete */
    size_t capacity;       /* rows */
    char *blob;            /* payload after payload */
    size_t blob_bytes;
    size_t blob_capacity;
};

struct vex_reader {
    const uint8_t *data;
    size_t bytes;
    enum vex_reader_format format;
    uint32_t dim;
    uint64_t rows_count;
    uint64_t row; /* the next one */
    bool refuse_zero;

    /* Fixed formats. */
    enum vex_element element;
    size_t data_offset;  /* of the first row */
    size_t prefix_bytes; /* of a row: its dim, in fvecs and bvecs */
    size_t row_bytes;    /* prefix included */

    /* JSON lines. */
    bool has_ids;
    size_t at;     /* offset of the next line */
    uint64_t line; /* its number, from 1 */

    struct vex_reader_buffers buffers;
};

size_t vex_element_bytes(enum vex_element element);
/* `dim` numbers at `from`, which may be unaligned. *out_place is the position of the bad one.
 * Errors: NOT_FINITE, LIMIT (a double that does not fit). */
enum vex_status vex_element_decode(enum vex_element element, const uint8_t *from, size_t dim,
                                   float *to, size_t *out_place);
bool vex_element_all_zero(const float *vector, size_t dim);

enum vex_status vex_reader_open_vecs(struct vex_reader *reader, struct vex_error *error);
enum vex_status vex_reader_open_npy(struct vex_reader *reader, struct vex_error *error);
enum vex_status vex_reader_open_jsonl(struct vex_reader *reader, struct vex_error *error);
/* Reads the next line that is not blank into `slot`. *out_bytes is what the row counts in a batch.
 */
enum vex_status vex_reader_read_line(struct vex_reader *reader, size_t slot, size_t *out_bytes,
                                     struct vex_error *error);
/* Moves over one line that is not blank; the caller knows that there is one. */
void vex_reader_skip_line(struct vex_reader *reader);

/* True if the bytes are rows of `element` behind int32 dims, as far as a few rows tell. */
bool vex_reader_looks_like_vecs(const uint8_t *data, size_t bytes, size_t element_bytes);
/* FORMAT: "not an npy file: <why>", and what it looks like instead. */
enum vex_status vex_reader_fail_foreign(const struct vex_reader *reader, struct vex_error *error,
                                        const char *why);
/* Room for `slot`, and for `more` bytes of blob. */
enum vex_status vex_reader_make_room(struct vex_reader *reader, size_t slot, size_t more,
                                     struct vex_error *error);

#endif
