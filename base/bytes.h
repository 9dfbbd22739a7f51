/*
 * Sizes and bytes: checked arithmetic for lengths that arrive from outside, rounding, little-endian
 * access to unaligned memory, a growable buffer, one 64-bit hash. x86-64 and aarch64 are
 * little-endian; the formats are too, so loads and stores are copies (bytes.c refuses to compile
 * elsewhere).
 */
#ifndef VEX_BASE_BYTES_H
#define VEX_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* False on overflow; *out is then untouched. */
static inline bool vex_add(size_t a, size_t b, size_t *out)
{
    size_t sum;
    if (__builtin_add_overflow(a, b, &sum)) {
        return false;
    }
    *out = sum;
    return true;
}

static inline bool vex_multiply(size_t a, size_t b, size_t *out)
{
    size_t product;
    if (__builtin_mul_overflow(a, b, &product)) {
        return false;
    }
    *out = product;
    return true;
}

/* `unit` is a power of two; the caller knows that value + unit does not overflow. */
static inline uint64_t vex_round_up(uint64_t value, uint64_t unit)
{
    return (value + unit - 1) & ~(unit - 1);
}

static inline uint32_t vex_load_u32(const void *from)
{
    uint32_t value;
    memcpy(&value, from, sizeof(value));
    return value;
}

static inline uint64_t vex_load_u64(const void *from)
{
    uint64_t value;
    memcpy(&value, from, sizeof(value));
    return value;
}

/* XXH3 of `bytes` bytes at `data`. */
uint64_t vex_hash64(const void *data, size_t bytes, uint64_t seed);

/* Mixes one 64-bit key for hash tables (the finaliser of SplitMix64, Steele et al., OOPSLA
 * 2014). */
static inline uint64_t vex_mix64(uint64_t key)
{
    key = (key ^ (key >> 30)) * 0xbf58476d1ce4e5b9u;
    key = (key ^ (key >> 27)) * 0x94d049bb133111ebu;
    return key ^ (key >> 31);
}

/* Growable bytes. Zeroed is empty; vex_buffer_deinit accepts that too. */
struct vex_buffer {
    uint8_t *data;
    size_t bytes;    /* in use */
    size_t capacity; /* allocated */
};

/* Makes room for `more` bytes behind those in use. False if memory is short; nothing changed
 * then. */
bool vex_buffer_reserve(struct vex_buffer *buffer, size_t more);
bool vex_buffer_append(struct vex_buffer *buffer, const void *data, size_t bytes);
/* Drops the first `bytes` bytes. */
void vex_buffer_consume(struct vex_buffer *buffer, size_t bytes);
void vex_buffer_deinit(struct vex_buffer *buffer);

#endif
