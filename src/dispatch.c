// The instruction sets that are compiled in, and whether this machine can run each of them. A new
// one needs its vec_*.h, two kernels_*.c, and a row in the table.

#include "kernels.h"

#if defined(_MSC_VER)
#include <immintrin.h>
#include <intrin.h>
#elif CYSOFTMAX_X86
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <unistd.h>
#endif

#define DECLARE(isa)                                                                               \
    extern const cysoftmax_kernels cysoftmax_##isa##_f32, cysoftmax_##isa##_f64;                   \
    extern const cysoftmax_doubles cysoftmax_##isa##_doubles;
#define ROW(isa)                                                                                   \
    {#isa, has_##isa, &cysoftmax_##isa##_f32, &cysoftmax_##isa##_f64, &cysoftmax_##isa##_doubles}

DECLARE(scalar)
static int has_scalar(void) { return 1; }

#if CYSOFTMAX_X86
DECLARE(avx2)
DECLARE(avx512)
#if defined(__GNUC__)
// These ask CPUID and, by XGETBV, whether the operating system saves the registers.
static int has_avx2(void) {
    unsigned a, b, c = 0, d; // F16C by CPUID: clang's builtin does not know it
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
static int has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
}
#else
// Whether EBX of CPUID leaf 7 has all bits of `features`, and XCR0 (the registers that the
// operating system saves) all bits of `state`.
static int has(unsigned features, unsigned state) {
    int leaf[4];
    __cpuid(leaf, 1);
    const unsigned common = 1u << 12 | 1u << 27 | 1u << 29; // FMA, OSXSAVE, F16C
    if (((unsigned)leaf[2] & common) != common) return 0;
    if ((_xgetbv(0) & state) != state) return 0;
    __cpuidex(leaf, 7, 0);
    return ((unsigned)leaf[1] & features) == features;
}
static int has_avx2(void) { return has(1u << 5, 0x6); }
static int has_avx512(void) { return has(1u << 16 | 1u << 17 | 1u << 30 | 1u << 31, 0xe6); }
#endif
#elif CYSOFTMAX_ARM
DECLARE(neon)
static int has_neon(void) { return 1; } // part of the base architecture
#endif

const cysoftmax_isa cysoftmax_isas[] = {
#if CYSOFTMAX_X86
    ROW(avx512),
    ROW(avx2),
#elif CYSOFTMAX_ARM
    ROW(neon),
#endif
    ROW(scalar),
    {NULL, NULL, NULL, NULL, NULL},
};

ptrdiff_t cysoftmax_cache_size(void) {
#if defined(_SC_LEVEL3_CACHE_SIZE)
    long level3 = sysconf(_SC_LEVEL3_CACHE_SIZE), level2 = sysconf(_SC_LEVEL2_CACHE_SIZE);
    if (level3 > 0) return level3;
    if (level2 > 0) return level2;
#endif
    return 0;
}
