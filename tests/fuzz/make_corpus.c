/*
 * Writes the seeds of the fuzzers that have a binary format: small sound inputs, from which a fuzzer finds
 * the unsound ones. Run by hand after a format has changed, from the top of the tree:
 *
 *     build/release/bin/fuzz_make_corpus tests/fuzz/corpus
 *
 * Inputs that once broke something are kept beside the seeds under names of their own.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/panic.h"
#include "ioengine/checkpoint.h"
#include "ioengine/log.h"
#include "ioengine/manifest.h"
#include "ioengine/record.h"
#include "ioengine/segment_file.h"
#include "shm/layout.h"
#include "shm/wire.h"
#include "tests/lib/io_memory.h"

static const char *root;

static void save(const char *folder, const char *name, const void *data, size_t bytes)
{
    char path[512];
    (void)snprintf(path, sizeof(path), "%s/%s", root, folder);
    (void)mkdir(path, 0755);
    (void)snprintf(path, sizeof(path), "%s/%s/%s", root, folder, name);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(data, 1, bytes, file) != bytes || fclose(file) != 0) {
        perror(path);
        exit(1);
    }
}

static void append(struct vex_buffer *buffer, const void *data, size_t bytes)
{
    bool fits = vex_buffer_append(buffer, data, bytes);
    VEX_ASSERT(fits);
}

/* ---- wire ------------------------------------------------------------------------------------ */

static void save_write(const char *name, const struct vex_write_input *input)
{
    struct vex_buffer body = {0};
    bool encoded = vex_write_encode(&body, input);
    VEX_ASSERT(encoded);
    const struct vex_frame_head head = {
        .magic = VEX_WIRE_MAGIC,
        .version = VEX_WIRE_VERSION,
        .op = VEX_OP_WRITE,
        .body_bytes = (uint32_t)body.bytes,
        .request = 1,
    };
    struct vex_buffer frame = {0};
    append(&frame, &head, sizeof(head));
    append(&frame, body.data, body.bytes);
    save("wire", name, frame.data, frame.bytes);
    vex_buffer_deinit(&frame);
    vex_buffer_deinit(&body);
}

static void make_wire(void)
{
    const uint64_t ids[3] = {1, 500, VEX_ID_MAX};
    const float vectors[6] = {1, 2, 3, 4, 5, 6};
    const void *payloads[3] = {"one", NULL, ""};
    const size_t payload_bytes[3] = {3, 0, 0};
    struct vex_write_input input = {1, VEX_WRITE_INSERT, 3, 2, ids, vectors, NULL, NULL};
    save_write("insert", &input);
    input.ids = NULL;
    save_write("insert_auto_ids", &input);
    input.payloads = payloads;
    input.payload_bytes = payload_bytes;
    save_write("insert_auto_ids_payloads", &input);
    input.ids = ids;
    input.kind = VEX_WRITE_UPSERT;
    save_write("upsert_payloads", &input);
    input.kind = VEX_WRITE_UPDATE;
    save_write("update_payloads", &input);
    input = (struct vex_write_input){1, VEX_WRITE_DELETE, 3, 0, ids, NULL, NULL, NULL};
    save_write("delete", &input);
    save("wire", "name", "a-name_1.2", 11);
}

/* ---- log ------------------------------------------------------------------------------------- */

#define BLOCK_INPUT 128u /* as in fuzz_log.c */

static enum vex_status ignore(void *context, uint64_t lsn, uint16_t type, const uint8_t *body,
                              size_t bytes, struct vex_error *error)
{
    (void)context;
    (void)lsn;
    (void)type;
    (void)body;
    (void)bytes;
    (void)error;
    return VEX_OK;
}

static size_t append_file(struct vex_buffer *out, struct vex_io *io, const char *path)
{
    size_t bytes = 0;
    const uint8_t *file = vex_io_memory_bytes(io, path, &bytes);
    if (!file) {
        return 0;
    }
    for (size_t at = 0; at < bytes; at += VEX_BLOCK_BYTES) {
        append(out, file + at, BLOCK_INPUT);
    }
    return bytes / VEX_BLOCK_BYTES;
}

static void save_log(const char *name, unsigned flags, unsigned batches, uint64_t file_bytes)
{
    static const uint8_t uuid[VEX_LOG_UUID_BYTES] = "fuzzing instance";
    static const uint8_t body[16] = "body of a record";
    const struct vex_log_options options = {uuid, file_bytes, file_bytes, {0, 0, 0}};
    struct vex_io_buffer buffers[VEX_LOG_BUFFERS];
    struct vex_io *io = vex_io_memory_open();
    struct vex_log *log = NULL;
    struct vex_log_recovery recovery;
    enum vex_status status = vex_log_buffers_init(buffers, NULL);
    VEX_ASSERT(status == VEX_OK);
    status = vex_log_open(io, buffers, &options, ignore, NULL, &log, &recovery, NULL);
    VEX_ASSERT(status == VEX_OK);
    for (unsigned batch = 0; batch < batches; batch++) {
        for (unsigned record = 0; record <= batch % 3; record++) {
            status = vex_log_room(log, sizeof(body), false, NULL);
            VEX_ASSERT(status == VEX_OK);
            (void)vex_log_stage(log, 7, &(struct vex_log_piece){body, record ? 8 : 16}, 1);
        }
        (void)vex_log_commit(log);
        (void)vex_log_poll(log, true);
    }
    if (vex_log_watermark(log, batches % 2)) {
        (void)vex_log_poll(log, true);
    }
    vex_log_close(log);
    struct vex_buffer seed = {0};
    const uint8_t head[2] = {(uint8_t)flags, 0};
    append(&seed, head, sizeof(head));
    size_t first = append_file(&seed, io, "log/00000001.log");
    if (append_file(&seed, io, "log/00000002.log") > 0) {
        seed.data[1] = (uint8_t)first;
    }
    save("log", name, seed.data, seed.bytes);
    vex_buffer_deinit(&seed);
    vex_io_close(io);
    vex_log_buffers_deinit(buffers);
}

static void make_log(void)
{
    save_log("empty", 0, 0, 4 * VEX_BLOCK_BYTES);
    save_log("one_file", 0, 3, 8 * VEX_BLOCK_BYTES);
    save_log("one_file_sealed", 0x1f, 4, 8 * VEX_BLOCK_BYTES);
    save_log("two_files", 0, 5, 5 * VEX_BLOCK_BYTES);
    save_log("two_files_sealed", 0x1f, 5, 5 * VEX_BLOCK_BYTES);
    save_log("batches_sealed_unchained", 0x05, 3, 8 * VEX_BLOCK_BYTES);
}

/* ---- segment, manifest, control -------------------------------------------------------------- */

static void make_segment(void)
{
    const uint8_t plain[] = {7, 31, 8, 0, 20};
    const uint8_t cosine[] = {31, 63, 0, 1, 63};
    const uint8_t taken_back[] = {0, 0, 1, 6, 1};
    const uint8_t header_changed[] = {7, 31, 8, 0, 20, 0x18, 0, 4, 9, 0, 0, 0};
    const uint8_t body_changed[] = {7,    31,   8,    2,    20, 0, 0x80, 8,
                                    0xff, 0xff, 0xff, 0xff, 0,  0, 0xc0, 0x7f};
    save("segment", "plain", plain, sizeof(plain));
    save("segment", "cosine", cosine, sizeof(cosine));
    save("segment", "taken_back", taken_back, sizeof(taken_back));
    save("segment", "header_changed", header_changed, sizeof(header_changed));
    save("segment", "body_changed", body_changed, sizeof(body_changed));
    const uint8_t raw[] = {0, 0, 0, 8, 0, 0x56, 0x45, 0x58, 0x53, 1, 0, 0, 0};
    save("segment", "raw", raw, sizeof(raw));
    const uint8_t codes[] = {7, 31, 8 | 16, 0, 20};
    const uint8_t graph[] = {31, 63, 32, 1, 63};
    const uint8_t graph_changed[] = {7,    40,   32,   0,    40, 0, 0x82, 8,
                                     0xff, 0xff, 0xff, 0xff, 0,  0, 0xc0, 0x7f};
    const uint8_t graph_changed_late[] = {7,    40,   32 | 64, 0,    40, 0, 0x84, 8,
                                          0xff, 0xff, 0xff,    0xff, 0,  0, 0xc0, 0x7f};
    save("segment", "codes", codes, sizeof(codes));
    save("segment", "graph", graph, sizeof(graph));
    save("segment", "graph_changed", graph_changed, sizeof(graph_changed));
    save("segment", "graph_changed_late", graph_changed_late, sizeof(graph_changed_late));
}

#define SLOT_INPUT 160u /* as in fuzz_manifest.c */

static void make_manifest(void)
{
    struct vex_io *io = vex_io_memory_open();
    struct vex_manifest manifest;
    enum vex_status status = vex_manifest_open(io, &manifest, NULL);
    VEX_ASSERT(status == VEX_OK);
    size_t bytes;
    uint8_t seed[1 + 2 * SLOT_INPUT] = {3};
    uint8_t *first = seed + 1;
    uint8_t *second = first + SLOT_INPUT;
    memcpy(first, vex_io_memory_bytes(io, "MANIFEST", &bytes), SLOT_INPUT);
    save("manifest", "one_slot", seed, sizeof(seed));
    memcpy(second, vex_io_memory_bytes(io, "MANIFEST", &bytes) + VEX_BLOCK_BYTES, SLOT_INPUT);
    save("manifest", "two_slots", seed, sizeof(seed));
    manifest.log_file = 2;
    manifest.log_lsn = 5;
    manifest.checkpoints_count = 2;
    manifest.checkpoints[0] = (struct vex_manifest_checkpoint){4, 20, 3, 4096, 1};
    manifest.checkpoints[1] = (struct vex_manifest_checkpoint){3, 5, 2, 8192, 2};
    status = vex_manifest_write(io, &manifest, NULL);
    VEX_ASSERT(status == VEX_OK);
    memcpy(second, vex_io_memory_bytes(io, "MANIFEST", &bytes) + VEX_BLOCK_BYTES, SLOT_INPUT);
    save("manifest", "slots_differ", seed, sizeof(seed));
    memcpy(first, vex_io_memory_bytes(io, "MANIFEST", &bytes), SLOT_INPUT);
    save("manifest", "checkpoints", seed, sizeof(seed));
    second[4] = 3; /* the version */
    save("manifest", "other_version", seed, sizeof(seed));
    seed[0] = 4 | 3 | 8 * 20;
    save("manifest", "cut", seed, sizeof(seed));
    vex_io_close(io);
}

/* ---- checkpoint and segment files ------------------------------------------------------------ */

static const uint8_t store_uuid[16] = "fuzzing instance";

static void save_file(const char *folder, const char *name, uint8_t flags, struct vex_io *io,
                      const char *path)
{
    struct vex_buffer seed = {0};
    size_t bytes;
    const uint8_t *file = vex_io_memory_bytes(io, path, &bytes);
    const uint8_t head[2] = {flags, (uint8_t)(bytes / VEX_BLOCK_BYTES - 1)};
    append(&seed, head, sizeof(head));
    append(&seed, file, bytes);
    /* The rest is zero anyway, if the fuzzer makes the checksum right. */
    while (flags && seed.bytes > 2 && seed.data[seed.bytes - 1] == 0) {
        seed.bytes--;
    }
    save(folder, name, seed.data, seed.bytes);
    vex_buffer_deinit(&seed);
}

static void make_checkpoint(void)
{
    const uint64_t segments[] = {1, 2, 9};
    struct vex_io *io = vex_io_memory_open();
    struct vex_checkpoint checkpoint = {7, 100, 3, NULL, 0, NULL, 0};
    uint64_t bytes;
    uint64_t hash;
    char path[VEX_CHECKPOINT_PATH_BYTES];
    vex_checkpoint_path(path, checkpoint.number);
    enum vex_status status = vex_checkpoint_write(io, store_uuid, &checkpoint, &bytes, &hash, NULL);
    VEX_ASSERT(status == VEX_OK);
    save_file("checkpoint", "empty", 0, io, path);
    checkpoint.segments = segments;
    checkpoint.segments_count = 3;
    checkpoint.body = (const uint8_t *)"the state of somebody";
    checkpoint.body_bytes = 21;
    status = vex_checkpoint_write(io, store_uuid, &checkpoint, &bytes, &hash, NULL);
    VEX_ASSERT(status == VEX_OK);
    uint8_t *file = vex_io_memory_bytes(io, path, &bytes);
    memset(file + bytes - sizeof(hash), 0, sizeof(hash));
    save_file("checkpoint", "small", 1, io, path);
    file[48] = 0xff; /* more segments than there is room for */
    file[49] = 0xff;
    save_file("checkpoint", "many_segments", 3, io, path);
    file[48] = 3;
    file[49] = 0;
    file[4] = 2;
    save_file("checkpoint", "other_version", 3, io, path);
    vex_io_close(io);
}

static void make_segment_file(void)
{
    const struct vex_segment_file shape = {
        7,
        5,
        12 * VEX_BLOCK_BYTES,
        2,
        {{0, VEX_BLOCK_BYTES}, {8 * VEX_BLOCK_BYTES, 2 * VEX_BLOCK_BYTES}}};
    struct vex_io *io = vex_io_memory_open();
    void *image = NULL;
    int failure = posix_memalign(&image, VEX_BLOCK_BYTES, (size_t)shape.image_bytes);
    VEX_ASSERT(failure == 0);
    memset(image, 0, (size_t)shape.image_bytes);
    memcpy(image, "image", 5);
    uint64_t bytes;
    char path[VEX_SEGMENT_PATH_BYTES];
    vex_segment_file_path(path, shape.number);
    enum vex_status status =
        vex_segment_file_write(io, store_uuid, &shape, image, NULL, &bytes, NULL);
    VEX_ASSERT(status == VEX_OK);
    save_file("segment_file", "two_extents", 3, io, path);
    size_t file_bytes;
    uint8_t *file = vex_io_memory_bytes(io, path, &file_bytes);
    file[73] ^= 0x10; /* an extent elsewhere */
    save_file("segment_file", "moved_extent", 3, io, path);
    file[73] ^= 0x30; /* and over the other one */
    save_file("segment_file", "far_extent", 3, io, path);
    file[36] = 33; /* extents */
    save_file("segment_file", "many_extents", 1, io, path);
    save_file("segment_file", "cut", 1 | 4, io, path);
    free(image);
    vex_io_close(io);
}

static void save_change(const char *name, uint8_t slot, uint8_t where, uint8_t which,
                        uint16_t offset, uint64_t value)
{
    uint8_t seed[2 + 12] = {slot, 0, where, which};
    memcpy(seed + 4, &offset, sizeof(offset));
    memcpy(seed + 6, &value, sizeof(value));
    save("control", name, seed, sizeof(seed));
}

static void make_control(void)
{
    const uint8_t sound[2] = {1, 1};
    save("control", "sound", sound, sizeof(sound));
    save_change("not_ready", 0, 0, 0, 0, 0);
    save_change("other_magic", 0, 0, 0, 8, 1);
    save_change("state_gone", 0, 0, 0, 80, VEX_DAEMON_GONE);
    save_change("id", 0, 1, 0, 0, 77);
    save_change("dim", 0, 1, 0, 4, UINT32_MAX);
    save_change("view", 0, 1, 0, offsetof(struct vex_collection_entry, view), 2);
    save_change("cell_block", 0, 1, 0, offsetof(struct vex_collection_entry, views[1].list_block),
                UINT64_MAX);
    save_change("list_count", 0, 2, 0, offsetof(struct vex_list_block, segments_count), 255);
    save_change("list_id", 1, 2, 1, 0, 9);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        (void)fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
        return 2;
    }
    root = argv[1];
    make_wire();
    make_log();
    make_segment();
    make_segment_file();
    make_manifest();
    make_checkpoint();
    make_control();
    return 0;
}
