// The floating-point mode of the calling thread. cysoftmax_fp_enter sets the default mode (round to
// nearest, denormals kept, no traps) and returns the mode and the exception flags that it found;
// cysoftmax_fp_restore restores both. So does cysoftmax_fp_leave, after a fence: other threads see
// this thread's streamed stores.

#ifndef CYSOFTMAX_FPMODE_H
#define CYSOFTMAX_FPMODE_H

#include <stdint.h>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
static inline uint64_t cysoftmax_fp_enter(void) {
    unsigned found = _mm_getcsr();
    if ((found & 0xffc0) != 0x1f80) _mm_setcsr(0x1f80); // the six lowest bits are flags
    return found;
}
static inline void cysoftmax_fp_restore(uint64_t found) { _mm_setcsr((unsigned)found); }
static inline void cysoftmax_fp_leave(uint64_t found) {
    _mm_sfence();
    cysoftmax_fp_restore(found);
}
#elif defined(__aarch64__) && defined(__GNUC__)
static inline uint64_t cysoftmax_fp_enter(void) {
    uint64_t mode, flags;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    __asm__ volatile("mrs %0, fpsr" : "=r"(flags));
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)0));
    return mode << 32 | (flags & 0xffffffff);
}
static inline void cysoftmax_fp_restore(uint64_t found) {
    __asm__ volatile("msr fpsr, %0" : : "r"(found & 0xffffffff));
    __asm__ volatile("msr fpcr, %0" : : "r"(found >> 32));
}
static inline void cysoftmax_fp_leave(uint64_t found) { cysoftmax_fp_restore(found); }
#else
static inline uint64_t cysoftmax_fp_enter(void) { return 0; }
static inline void cysoftmax_fp_restore(uint64_t found) { (void)found; }
static inline void cysoftmax_fp_leave(uint64_t found) { (void)found; }
#endif

#endif
