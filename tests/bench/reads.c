/*
 * Reading at the disk's own rate; the idea is in reads.h.
 */
#include "tests/bench/reads.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/bench/common.h"
#include "tests/bench/crew.h"

#define BLOCK_BYTES (1u << 20)
#define ALIGNMENT 4096u

bool vex_reads_open(struct vex_reads *reads, const char *root, uint64_t bytes)
{
    (void)snprintf(reads->path, sizeof(reads->path), "%s/reads", root);
    reads->blocks = bytes / BLOCK_BYTES + 1;
    int fd = open(reads->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    float *block = vex_bench_alloc(1, BLOCK_BYTES);
    uint64_t seed = 1;
    bool sound = fd >= 0;
    for (uint64_t i = 0; i < reads->blocks && sound && !vex_bench_stopped(); i++) {
        /* Each block another: some disks store what they have seen before only once. */
        vex_data_fill(block, BLOCK_BYTES / sizeof(*block), &seed);
        sound = pwrite(fd, block, BLOCK_BYTES, (off_t)(i * BLOCK_BYTES)) == (ssize_t)BLOCK_BYTES;
    }
    sound = sound && fsync(fd) == 0;
    if (!sound) {
        (void)vex_bench_fail("%s: %s", reads->path, strerror(errno));
    }
    free(block);
    if (fd >= 0) {
        (void)close(fd);
    }
    return sound;
}

/* One measurement. */
struct reading {
    int fd;
    unsigned depth;
    uint64_t blocks;
    uint64_t file_blocks;
    struct reader {
        uint64_t start_ns;
        uint64_t end_ns;
    } readers[VEX_READS_DEPTH_MAX];
};

/* Every depth-th block, so that together they go through the file in order. */
static bool read_blocks(struct vex_crew *crew, void *context, unsigned index)
{
    struct reading *reading = context;
    void *block = NULL;
    if (posix_memalign(&block, ALIGNMENT, BLOCK_BYTES) != 0) {
        return vex_bench_fail("out of memory");
    }
    memset(block, 0, BLOCK_BYTES); /* its pages, before the clock runs */
    bool go = vex_crew_ready(crew);
    bool sound = true;
    reading->readers[index].start_ns = vex_bench_clock_ns();
    for (uint64_t i = index; go && sound && i < reading->blocks; i += reading->depth) {
        off_t offset = (off_t)(i % reading->file_blocks * BLOCK_BYTES);
        sound = pread(reading->fd, block, BLOCK_BYTES, offset) == (ssize_t)BLOCK_BYTES ||
                vex_bench_fail("read from the disk: %s", strerror(errno));
        go = !vex_bench_stopped();
    }
    reading->readers[index].end_ns = vex_bench_clock_ns();
    free(block);
    return sound;
}

bool vex_reads_measure(const struct vex_reads *reads, unsigned depth, uint64_t bytes,
                       double *out_rate)
{
    *out_rate = NAN;
    struct reading reading = {
        .fd = open(reads->path, O_RDONLY | O_DIRECT | O_CLOEXEC),
        .depth = depth,
        .blocks = bytes / BLOCK_BYTES + 1,
        .file_blocks = reads->blocks,
    };
    if (reading.fd < 0) {
        vex_bench_note("no O_DIRECT on this file system (%s)", strerror(errno));
        return true;
    }
    bool sound = vex_crew_run(depth, read_blocks, &reading);
    (void)close(reading.fd);
    uint64_t start_ns = UINT64_MAX;
    uint64_t end_ns = 0;
    for (unsigned i = 0; i < depth; i++) {
        const struct reader *reader = &reading.readers[i];
        start_ns = reader->start_ns < start_ns ? reader->start_ns : start_ns;
        end_ns = reader->end_ns > end_ns ? reader->end_ns : end_ns;
    }
    *out_rate = (double)reading.blocks * BLOCK_BYTES * 1e9 / (double)(end_ns - start_ns);
    return sound;
}
