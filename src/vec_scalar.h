// The vocabulary of the kernels, one real at a time. This file defines each word; the other vec_*.h
// define the same words with vectors. It also sets the dtype: a translation unit defines
// CYSOFTMAX_F32 or nothing (float64) before the include.

#include "begin.inc"

#define V_END       // stands at the end of a translation unit
#define VEC_LANES 1 // reals in a vec; divides 16

// The number of vecs whose exps are computed together, found by measurement: a power of two, and no
// more than 64 reals.
#define V_IN_FLIGHT 8

typedef real vec;
typedef bits_t mask; // all bits or none

static inline vec v_set1(real a) { return a; }
static inline vec v_load(const real *p) { return *p; }
static inline void v_store(real *p, vec a) { *p = a; }

// Load VEC_LANES doubles, rounded to reals; store reals as doubles.
static inline vec v_load_doubles(const double *p) { return (real)*p; }
static inline void v_store_doubles(double *p, vec a) { *p = (double)a; }

// A streamed store (non-temporal): it need not keep the line in the cache. p is aligned to a vec.
static inline void v_stream(real *p, vec a) { *p = a; }

#ifdef CYSOFTMAX_F32
// A wide holds VEC_LANES doubles: the numbers of a vec. w_fma(a, b, c): a b + c, rounded once, or
// twice as in v_fma. w_unless_0(a, b): b, or 0 where a is 0. w_sum16: what v_sum16 does for vecs.
typedef double wide;
static inline wide w_set1(double a) { return a; }
static inline wide w_of(vec a) { return (double)a; }
static inline wide w_load(const real *p) { return (double)*p; }
static inline wide w_load_doubles(const double *p) { return *p; }
static inline void w_store_doubles(double *p, wide a) { *p = a; }
static inline wide w_add(wide a, wide b) { return a + b; }
static inline wide w_sub(wide a, wide b) { return a - b; }
static inline wide w_fma(wide a, wide b, wide c) { return a * b + c; }
static inline wide w_unless_0(wide a, wide b) { return a == 0 ? 0 : b; }
static inline double w_sum16(const wide a[16]) {
    double t[16];
    for (int l = 0; l < 16; l++) t[l] = a[l];
    for (int step = 8; step > 0; step /= 2)
        for (int l = 0; l < step; l++) t[l] += t[l + step];
    return t[0];
}
#endif

// Load or store the first n <= VEC_LANES reals; the other lanes are `fill`, or are not written.
static inline vec v_load_part(const real *p, ptrdiff_t n, real fill) { return n > 0 ? *p : fill; }
static inline void v_store_part(real *p, vec a, ptrdiff_t n) {
    if (n > 0) *p = a;
}

// Load the lanes from `begin` on; the others are 0 and are not read.
static inline vec v_load_end(const real *p, ptrdiff_t begin) { return begin < 1 ? *p : 0; }

// True in the first n lanes.
static inline mask v_first(ptrdiff_t n) { return -(bits_t)(n > 0); }

static inline vec v_add(vec a, vec b) { return a + b; }
static inline vec v_sub(vec a, vec b) { return a - b; }
static inline vec v_mul(vec a, vec b) { return a * b; }
static inline vec v_div(vec a, vec b) { return a / b; }

// a b + c, rounded once; in this file alone it is rounded twice, the only difference in bits
// between `scalar` and the other instruction sets.
static inline vec v_fma(vec a, vec b, vec c) { return a * b + c; }

// a b - product exactly, for product = v_mul(a, b) (Dekker, A floating-point technique for
// extending the available precision, 1971; with fused multiply-add, one operation).
#ifdef CYSOFTMAX_F32
static inline vec v_mul_error(vec a, vec b, vec product) {
    return (real)((double)a * (double)b - (double)product);
}
#else
static inline vec v_mul_error(vec a, vec b, vec product) {
    const real a_up = a * 0x1.0000002p27, b_up = b * 0x1.0000002p27; // by 2^27 + 1
    const real a_high = a_up - (a_up - a), b_high = b_up - (b_up - b);
    const real a_low = a - a_high, b_low = b - b_high;
    if (!(a_up - a_up == 0 && b_up - b_up == 0))
        return 0; // a part overflowed: the error is unknown
    return ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low;
}
#endif

// The larger and the smaller of a and b, and b if either is NaN.
static inline vec v_max(vec a, vec b) { return a > b ? a : b; }
static inline vec v_min(vec a, vec b) { return a < b ? a : b; }

// The largest lane; none is NaN.
static inline real v_largest(vec a) { return a; }

static inline mask v_lt(vec a, vec b) { return -(bits_t)(a < b); }     // false if unordered
static inline mask v_nlt(vec a, vec b) { return (bits_t)(a < b) - 1; } // true if unordered
static inline mask v_eq(vec a, vec b) { return -(bits_t)(a == b); }
static inline vec v_select(mask m, vec yes, vec no) { return m ? yes : no; }

// a, or 0 where the mask is false.
static inline vec v_keep(mask m, vec a) {
    bits_t bits;
    memcpy(&bits, &a, sizeof a);
    bits &= m;
    memcpy(&a, &bits, sizeof a);
    return a;
}

// The low mantissa bits of a, shifted into the exponent: v_pow2(MAGIC + b) is
// 2^(b - EXP_BIAS) for MAGIC = 1.5 * 2^MANTISSA_BITS and an integer 0 < b < 2 EXP_BIAS.
static inline vec v_pow2(vec a) {
    bits_t bits;
    memcpy(&bits, &a, sizeof a);
    bits <<= MANTISSA_BITS;
    memcpy(&a, &bits, sizeof a);
    return a;
}

// The biased exponent of a normal a > 0, as a real.
static inline vec v_exponent(vec a) {
    bits_t bits;
    memcpy(&bits, &a, sizeof a);
    return (real)(bits >> MANTISSA_BITS);
}

// An instruction set for which a load that crosses a cache line is expensive defines V_JOINS, and
// v_join(a, b, v_order(shift)): the VEC_LANES reals from place `shift` <= VEC_LANES on in a
// followed by b.

// A vec is made of quarters of 16 bytes, or is one real. Within each quarter, interleave a and b as
// a0 b0 a1 b1 ...: their lower halves, and their upper halves.
static inline vec v_zip_low(vec a, vec b) {
    (void)b;
    return a;
}
static inline vec v_zip_high(vec a, vec b) {
    (void)a;
    return b;
}

// Load or store a vec whose quarter i is at p + i QUARTER step, for QUARTER reals in a quarter.
static inline vec v_load_quarters(const real *p, ptrdiff_t step) {
    (void)step;
    return *p;
}
static inline void v_store_quarters(real *p, ptrdiff_t step, vec a) {
    (void)step;
    *p = a;
}

// Of as many vecs as a vec has quarters: exchange quarter j of a[i] with quarter i of a[j].
static inline void v_turn(vec a[1]) { (void)a; }

// Where a quarter has four reals, V_PERMUTES is defined, and v_permute(a, v_load_places(p)): lane
// p[i] of a in each lane i.

// True where a byte is not 0, of the first n <= VEC_LANES bytes; false in the other lanes.
static inline mask v_load_bools(const unsigned char *p, ptrdiff_t n) {
    return -(bits_t)(n > 0 && *p);
}

#ifdef CYSOFTMAX_F32
// Load VEC_LANES numbers of IEEE's binary16, exactly; store reals rounded to nearest, ties to even.
static inline vec v_load_half(const uint16_t *p) {
    const uint32_t sign = (uint32_t)(*p & 0x8000) << 16;
    uint32_t bits = (uint32_t)(*p & 0x7fff) << 13;
    float a;
    if (bits >= 0x0f800000) {
        bits += 0x70000000; // inf and NaN
    } else {                // 2^(127 - 15), the difference of the biases; also right for denormals
        memcpy(&a, &bits, sizeof a);
        a *= 0x1p112f;
        memcpy(&bits, &a, sizeof a);
    }
    bits |= sign;
    memcpy(&a, &bits, sizeof a);
    return a;
}
static inline void v_store_half(uint16_t *p, vec a) {
    uint32_t bits;
    memcpy(&bits, &a, sizeof a);
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    bits &= 0x7fffffff;
    if (bits > 0x7f800000) {
        bits = 0x7e00; // NaN
    } else if (bits >= 0x47800000) {
        bits = 0x7c00; // 2^16 and more: infinity
    } else if (bits >= 0x38800000) {
        bits = (bits + 0xfff + (bits >> 13 & 1) - 0x38000000) >> 13;
    } else { // a denormal, below 2^-14: adding 1/2 rounds it to a multiple of 2^-24
        memcpy(&a, &bits, sizeof a);
        a += 0.5f;
        memcpy(&bits, &a, sizeof a);
        bits -= 0x3f000000;
    }
    *p = (uint16_t)(bits | sign);
}
static inline void v_stream_half(uint16_t *p, vec a) { v_store_half(p, a); }
#endif

// The sum of 16 lanes in the tree (27): lane l + lane l + 8 first, then + 4, + 2, + 1.
static inline real v_sum16(const vec a[16]) {
    real t[16];
    for (int l = 0; l < 16; l++) t[l] = a[l];
    for (int step = 8; step > 0; step /= 2)
        for (int l = 0; l < step; l++) t[l] += t[l + step];
    return t[0];
}

// Start to load the cache line of p (software prefetch).
static inline void v_prefetch(const void *p) { (void)p; }
