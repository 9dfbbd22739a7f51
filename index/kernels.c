/*
 * Choosing the kernels, and the double-precision functions that rank.
 *
 * A level needs two answers: the processor has the instructions (cpuid), and the operating system
 * saves their registers on a context switch (XCR0, read by xgetbv). The second is forgotten easily
 * and is not implied: some hypervisors and kernels switch AVX-512 off there only.
 *
 * VEX_ISA can lower the level but never raise it: what the processor cannot run is passed over, and
 * an unknown name is as if it were not set. It is read at the first call of vex_kernels_get and
 * never again, so a process scores alike from beginning to end. (As with every getenv, a program
 * that calls setenv in another thread at that very moment is at fault.)
 *
 * The ranking functions are compiled for the baseline processor, without contraction into fused
 * operations, and add in an order that is written down: partial sum j takes the terms j, j + 4, j +
 * 8,
 * ... in turn, then (0 + 1) + (2 + 3). Four sums hide the latency of addition and fit two SSE2
 * registers, and no compiler may change their order.
 */
#include "index/kernels.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#ifdef __FAST_MATH__
#error "Reordered sums rank differently on every compiler; build without -ffast-math."
#endif

#define PARTIAL_SUMS 4

struct level {
    const struct vex_kernels *kernels;
    bool (*can_run)(void);
};

#if defined(__x86_64__)

/* Register files that the operating system saves: bits of XCR0. */
#define XCR0_AVX 0x06u    /* SSE, upper halves of ymm */
#define XCR0_AVX512 0xe6u /* and mask registers, upper halves of zmm, zmm16 to zmm31 */

static bool has_all(unsigned set, unsigned wanted)
{
    return (set & wanted) == wanted;
}

/* True if leaf 1 has the wanted bits in ecx and the wanted register files are saved. */
static bool can_use_registers(unsigned wanted_features, unsigned wanted_xcr0)
{
    unsigned eax;
    unsigned ebx;
    unsigned ecx;
    unsigned edx;
    if (!__get_cpuid_count(1, 0, &eax, &ebx, &ecx, &edx) ||
        !has_all(ecx, bit_OSXSAVE | wanted_features)) {
        return false;
    }
    /* The intrinsic would need -mxsave for the whole file. Without OSXSAVE this would trap. */
    __asm__ volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
    return has_all(eax, wanted_xcr0);
}

static bool has_extended_features(unsigned wanted)
{
    unsigned eax;
    unsigned ebx;
    unsigned ecx;
    unsigned edx;
    return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && has_all(ebx, wanted);
}

static bool has_vnni(void)
{
    unsigned eax;
    unsigned ebx;
    unsigned ecx;
    unsigned edx;
    return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && has_all(ecx, bit_AVX512VNNI);
}

static bool can_run_avx2(void)
{
    return can_use_registers(bit_AVX | bit_FMA | bit_F16C, XCR0_AVX) &&
           has_extended_features(bit_AVX2);
}

static bool can_run_avx512(void)
{
    return can_use_registers(bit_AVX | bit_FMA | bit_F16C, XCR0_AVX512) &&
           has_extended_features(bit_AVX2 | bit_AVX512F | bit_AVX512BW | bit_AVX512DQ |
                                 bit_AVX512VL);
}

static bool can_run_avx512vnni(void)
{
    return can_run_avx512() && has_vnni();
}

#endif

static bool can_run_always(void)
{
    return true;
}

/* Best first; the last one always runs. */
static const struct level levels[] = {
#if defined(__x86_64__)
    {&vex_kernels_avx512vnni, can_run_avx512vnni},
    {&vex_kernels_avx512, can_run_avx512},
    {&vex_kernels_avx2, can_run_avx2},
#endif
    {&vex_kernels_scalar, can_run_always},
};
#define LEVELS_COUNT (sizeof levels / sizeof *levels)

/* Place in `levels`, or LEVELS_COUNT if unknown. */
static size_t find_level(const char *name)
{
    size_t i = 0;
    while (i < LEVELS_COUNT && strcmp(levels[i].kernels->name, name) != 0) {
        i++;
    }
    return i;
}

static const struct vex_kernels *choose(const char *highest)
{
    size_t i = highest ? find_level(highest) : 0;
    if (i == LEVELS_COUNT) {
        i = 0;
    }
    while (!levels[i].can_run()) {
        i++;
    }
    return levels[i].kernels;
}

const struct vex_kernels *vex_kernels_get(void)
{
    /* relaxed: the pointer carries nothing but itself, the tables are constants of the program. The
     * exchange makes the first of several simultaneous choices the only one. */
    static _Atomic(const struct vex_kernels *) chosen;
    const struct vex_kernels *kernels = atomic_load_explicit(&chosen, memory_order_relaxed);
    if (kernels) {
        return kernels;
    }
    const struct vex_kernels *mine = choose(getenv("VEX_ISA"));
    /* relaxed: as above. */
    return atomic_compare_exchange_strong_explicit(&chosen, &kernels, mine, memory_order_relaxed,
                                                   memory_order_relaxed)
               ? mine
               : kernels;
}

const struct vex_kernels *vex_kernels_by_name(const char *name)
{
    size_t i = find_level(name);
    return i < LEVELS_COUNT && levels[i].can_run() ? levels[i].kernels : NULL;
}

static double total(const double sums[PARTIAL_SUMS])
{
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

double vex_l2_f64(const float *a, const float *b, size_t dim)
{
    double sums[PARTIAL_SUMS] = {0};
    size_t d = 0;
    for (; dim - d >= PARTIAL_SUMS; d += PARTIAL_SUMS) {
        for (size_t j = 0; j < PARTIAL_SUMS; j++) {
            double difference = (double)a[d + j] - (double)b[d + j];
            sums[j] += difference * difference;
        }
    }
    for (size_t j = 0; j < dim - d; j++) {
        double difference = (double)a[d + j] - (double)b[d + j];
        sums[j] += difference * difference;
    }
    return total(sums);
}

double vex_dot_f64(const float *a, const float *b, size_t dim)
{
    double sums[PARTIAL_SUMS] = {0};
    size_t d = 0;
    for (; dim - d >= PARTIAL_SUMS; d += PARTIAL_SUMS) {
        for (size_t j = 0; j < PARTIAL_SUMS; j++) {
            sums[j] += (double)a[d + j] * (double)b[d + j];
        }
    }
    for (size_t j = 0; j < dim - d; j++) {
        sums[j] += (double)a[d + j] * (double)b[d + j];
    }
    return total(sums);
}
