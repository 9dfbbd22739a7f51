/* Where the chunks of a segment file are, shared by segment_file.c (writing, header) and segment_load.c
 * (reading). */
#ifndef VEX_IOENGINE_SEGMENT_FILE_PRIV_H
#define VEX_IOENGINE_SEGMENT_FILE_PRIV_H

#include "ioengine/segment_file.h"

struct segment_chunk {
    uint64_t index; /* of its checksum */
    uint64_t image_offset;
    uint64_t file_offset;
    size_t bytes;
};

/* Walks the chunks of a file in order. */
struct segment_chunks {
    const struct vex_segment_file *file;
    uint32_t extent;
    uint64_t done; /* of that extent */
    uint64_t index;
    uint64_t file_offset;
};

void segment_chunks_init(struct segment_chunks *chunks, const struct vex_segment_file *file,
                         uint64_t header_bytes);
bool segment_chunks_next(struct segment_chunks *chunks, struct segment_chunk *out);

/* Two chunks with the same bytes have different checksums, so that one in the other's place is noticed. */
static inline uint64_t segment_chunk_seed(const struct segment_chunk *chunk)
{
    return chunk->image_offset;
}

/* An open file and its header. Zeroed with file.fd -1 is closed. */
struct segment_reader {
    struct vex_file file;
    struct vex_segment_file_header header;
    void *memory; /* that the header points into */
};

/* Errors as vex_segment_file_read_header. */
enum vex_status segment_reader_open(struct segment_reader *reader, struct vex_io *io,
                                    const uint8_t *uuid, uint64_t number, struct vex_error *error);
void segment_reader_close(struct segment_reader *reader, struct vex_io *io);

#endif
