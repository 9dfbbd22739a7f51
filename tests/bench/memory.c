/*
 * Summing a buffer as fast as the memory gives it. Eight independent sums, so that the latency of
 * an addition hides nothing; integer additions, so that the sum has one value however it is
 * grouped.
 */
#include "tests/bench/memory.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "tests/bench/common.h"

#define STEP_BYTES 512u /* every loop below takes so much at a time */
#define PAGE_BYTES 4096u

static uint64_t sum_plain(const uint64_t *words, size_t count)
{
    uint64_t sums[8] = {0};
    for (size_t i = 0; i < count; i += 8) {
        for (size_t j = 0; j < 8; j++) {
            sums[j] += words[i + j];
        }
    }
    return sums[0] + sums[1] + sums[2] + sums[3] + sums[4] + sums[5] + sums[6] + sums[7];
}

#if defined(__x86_64__)

__attribute__((target("avx2"))) static uint64_t sum_avx2(const uint64_t *words, size_t count)
{
    __m256i sums[8];
    for (size_t j = 0; j < 8; j++) {
        sums[j] = _mm256_setzero_si256();
    }
    for (size_t i = 0; i < count; i += 32) {
#pragma GCC unroll 8
        for (size_t j = 0; j < 8; j++) {
            const __m256i *at = (const __m256i *)(const void *)(words + i + 4 * j);
            sums[j] = _mm256_add_epi64(sums[j], _mm256_load_si256(at));
        }
    }
    uint64_t parts[4];
    for (size_t j = 1; j < 8; j++) {
        sums[0] = _mm256_add_epi64(sums[0], sums[j]);
    }
    memcpy(parts, &sums[0], sizeof(parts));
    return parts[0] + parts[1] + parts[2] + parts[3];
}

__attribute__((target("avx512f"))) static uint64_t sum_avx512(const uint64_t *words, size_t count)
{
    __m512i sums[8];
    for (size_t j = 0; j < 8; j++) {
        sums[j] = _mm512_setzero_si512();
    }
    for (size_t i = 0; i < count; i += 64) {
#pragma GCC unroll 8
        for (size_t j = 0; j < 8; j++) {
            sums[j] = _mm512_add_epi64(sums[j], _mm512_load_si512(words + i + 8 * j));
        }
    }
    for (size_t j = 1; j < 8; j++) {
        sums[0] = _mm512_add_epi64(sums[0], sums[j]);
    }
    /* Not _mm512_reduce_add_epi64: its last addition is a signed one, and sums wrap. */
    uint64_t parts[8];
    memcpy(parts, &sums[0], sizeof(parts));
    return parts[0] + parts[1] + parts[2] + parts[3] + parts[4] + parts[5] + parts[6] + parts[7];
}

#endif

struct loads {
    const char *name;
    uint64_t (*sum)(const uint64_t *words, size_t count);
};

static struct loads best_loads(void)
{
#if defined(__x86_64__)
    /* These ask the operating system's part (XCR0) too. */
    if (__builtin_cpu_supports("avx512f")) {
        return (struct loads){"avx512", sum_avx512};
    }
    if (__builtin_cpu_supports("avx2")) {
        return (struct loads){"avx2", sum_avx2};
    }
#endif
    return (struct loads){"plain", sum_plain};
}

const char *vex_memory_loads(void)
{
    return best_loads().name;
}

bool vex_memory_open(struct vex_memory *memory, size_t bytes)
{
    _Static_assert(PAGE_BYTES % STEP_BYTES == 0, "whole steps in a page");
    bytes = (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    void *words = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (words == MAP_FAILED) {
        return vex_bench_fail("%zu bytes of memory to read: %s", bytes, strerror(errno));
    }
    /* Fails where the kernel knows no huge pages: then there are none. */
    (void)madvise(words, bytes, MADV_NOHUGEPAGE);
    *memory = (struct vex_memory){.words = words, .bytes = bytes};
    /* Written, or all of it would be one page of zeros. */
    for (size_t i = 0; i < bytes / sizeof(*memory->words); i++) {
        memory->words[i] = i * UINT64_C(0x9e3779b97f4a7c15);
        memory->sum += memory->words[i];
    }
    return true;
}

void vex_memory_close(struct vex_memory *memory)
{
    if (memory->words) {
        (void)munmap(memory->words, memory->bytes);
    }
    *memory = (struct vex_memory){0};
}

bool vex_memory_read(const struct vex_memory *memory)
{
    uint64_t sum = best_loads().sum(memory->words, memory->bytes / sizeof(*memory->words));
    return sum == memory->sum || vex_bench_fail("the memory read made a wrong sum");
}
