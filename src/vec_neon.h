// The vocabulary of vec_scalar.h in AArch64 NEON.

#include "begin.inc"
#include <arm_neon.h>

#define V_END

// NEON has no masked loads and stores: parts of a vec go through a buffer.
#define V_PARTS                                                                                    \
    static inline vec v_load_part(const real *p, ptrdiff_t n, real fill) {                         \
        real buffer[VEC_LANES];                                                                    \
        for (ptrdiff_t i = 0; i < VEC_LANES; i++) buffer[i] = i < n ? p[i] : fill;                 \
        return v_load(buffer);                                                                     \
    }                                                                                              \
    static inline void v_store_part(real *p, vec a, ptrdiff_t n) {                                 \
        real buffer[VEC_LANES];                                                                    \
        v_store(buffer, a);                                                                        \
        for (ptrdiff_t i = 0; i < n; i++) p[i] = buffer[i];                                        \
    }

#ifdef CYSOFTMAX_F32

#define VEC_LANES 4
#define V_IN_FLIGHT 4
typedef float32x4_t vec;
typedef uint32x4_t mask;

static inline vec v_set1(real a) { return vdupq_n_f32(a); }
static inline vec v_load(const real *p) { return vld1q_f32(p); }
static inline void v_store(real *p, vec a) { vst1q_f32(p, a); }
static inline void v_stream(real *p, vec a) { vst1q_f32(p, a); }
static inline vec v_load_doubles(const double *p) {
    return vcombine_f32(vcvt_f32_f64(vld1q_f64(p)), vcvt_f32_f64(vld1q_f64(p + 2)));
}
static inline void v_store_doubles(double *p, vec a) {
    vst1q_f64(p, vcvt_f64_f32(vget_low_f32(a)));
    vst1q_f64(p + 2, vcvt_f64_f32(vget_high_f32(a)));
}
V_PARTS
static inline vec v_add(vec a, vec b) { return vaddq_f32(a, b); }
static inline vec v_sub(vec a, vec b) { return vsubq_f32(a, b); }
static inline vec v_mul(vec a, vec b) { return vmulq_f32(a, b); }
static inline vec v_div(vec a, vec b) { return vdivq_f32(a, b); }
static inline vec v_fma(vec a, vec b, vec c) { return vfmaq_f32(c, a, b); }
// vmaxq would return NaN if either is NaN. A comparison with NaN is false, which selects b.
static inline vec v_max(vec a, vec b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
static inline vec v_min(vec a, vec b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
static inline real v_largest(vec a) { return vmaxvq_f32(a); }
static inline mask v_lt(vec a, vec b) { return vcltq_f32(a, b); }
static inline mask v_nlt(vec a, vec b) { return vmvnq_u32(vcltq_f32(a, b)); }
static inline mask v_eq(vec a, vec b) { return vceqq_f32(a, b); }
static inline vec v_select(mask m, vec yes, vec no) { return vbslq_f32(m, yes, no); }
static inline vec v_keep(mask m, vec a) { return vbslq_f32(m, a, v_set1(0)); }
static inline mask v_first(ptrdiff_t n) {
    uint32_t lanes[VEC_LANES];
    for (ptrdiff_t i = 0; i < VEC_LANES; i++) lanes[i] = i < n ? ~(uint32_t)0 : 0;
    return vld1q_u32(lanes);
}
static inline vec v_load_end(const real *p, ptrdiff_t begin) {
    real lanes[VEC_LANES] = {0};
    for (ptrdiff_t i = begin; i < VEC_LANES; i++) lanes[i] = p[i];
    return v_load(lanes);
}
static inline vec v_pow2(vec a) {
    return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(a), 23));
}
static inline mask v_load_bools(const unsigned char *p, ptrdiff_t n) {
    uint32_t lanes[VEC_LANES];
    for (ptrdiff_t i = 0; i < VEC_LANES; i++) lanes[i] = i < n && p[i] ? ~(uint32_t)0 : 0;
    return vld1q_u32(lanes);
}
typedef struct {
    float64x2_t low, high;
} wide;
static inline wide w_set1(double a) { return (wide){vdupq_n_f64(a), vdupq_n_f64(a)}; }
static inline wide w_of(vec a) {
    return (wide){vcvt_f64_f32(vget_low_f32(a)), vcvt_f64_f32(vget_high_f32(a))};
}
static inline wide w_load(const real *p) {
    return (wide){vcvt_f64_f32(vld1_f32(p)), vcvt_f64_f32(vld1_f32(p + 2))};
}
static inline wide w_load_doubles(const double *p) {
    return (wide){vld1q_f64(p), vld1q_f64(p + 2)};
}
static inline void w_store_doubles(double *p, wide a) {
    vst1q_f64(p, a.low);
    vst1q_f64(p + 2, a.high);
}
static inline wide w_add(wide a, wide b) {
    return (wide){vaddq_f64(a.low, b.low), vaddq_f64(a.high, b.high)};
}
static inline wide w_sub(wide a, wide b) {
    return (wide){vsubq_f64(a.low, b.low), vsubq_f64(a.high, b.high)};
}
static inline wide w_fma(wide a, wide b, wide c) {
    return (wide){vfmaq_f64(c.low, a.low, b.low), vfmaq_f64(c.high, a.high, b.high)};
}
static inline wide w_unless_0(wide a, wide b) {
    const float64x2_t zero = vdupq_n_f64(0);
    return (wide){vbslq_f64(vceqq_f64(a.low, zero), zero, b.low),
                  vbslq_f64(vceqq_f64(a.high, zero), zero, b.high)};
}
static inline double w_sum16(const wide a[4]) {
    const wide t = w_add(w_add(a[0], a[2]), w_add(a[1], a[3]));
    const float64x2_t s = vaddq_f64(t.low, t.high);
    return vgetq_lane_f64(s, 0) + vgetq_lane_f64(s, 1);
}
static inline vec v_load_half(const uint16_t *p) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}
static inline void v_store_half(uint16_t *p, vec a) {
    vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(a)));
}
static inline void v_stream_half(uint16_t *p, vec a) { v_store_half(p, a); }
static inline vec v_zip_low(vec a, vec b) { return vzip1q_f32(a, b); }
static inline vec v_zip_high(vec a, vec b) { return vzip2q_f32(a, b); }
#define V_PERMUTES 1
typedef uint8x16_t vec_places; // the place of each byte
static inline vec_places v_load_places(const bits_t *p) {
    const uint32x4_t first = vmulq_n_u32(vld1q_u32(p), 0x04040404);
    return vreinterpretq_u8_u32(vaddq_u32(first, vdupq_n_u32(0x03020100)));
}
static inline vec v_permute(vec a, vec_places from) {
    return vreinterpretq_f32_u8(vqtbl1q_u8(vreinterpretq_u8_f32(a), from));
}
static inline real v_sum16(const vec a[4]) {
    vec t = v_add(v_add(a[0], a[2]), v_add(a[1], a[3]));
    float32x2_t s = vadd_f32(vget_low_f32(t), vget_high_f32(t));
    return vget_lane_f32(s, 0) + vget_lane_f32(s, 1);
}

#else

#define VEC_LANES 2
#define V_IN_FLIGHT 4
typedef float64x2_t vec;
typedef uint64x2_t mask;

static inline vec v_set1(real a) { return vdupq_n_f64(a); }
static inline vec v_load(const real *p) { return vld1q_f64(p); }
static inline void v_store(real *p, vec a) { vst1q_f64(p, a); }
static inline void v_stream(real *p, vec a) { vst1q_f64(p, a); }
static inline vec v_load_doubles(const double *p) { return v_load(p); }
static inline void v_store_doubles(double *p, vec a) { v_store(p, a); }
V_PARTS
static inline vec v_add(vec a, vec b) { return vaddq_f64(a, b); }
static inline vec v_sub(vec a, vec b) { return vsubq_f64(a, b); }
static inline vec v_mul(vec a, vec b) { return vmulq_f64(a, b); }
static inline vec v_div(vec a, vec b) { return vdivq_f64(a, b); }
static inline vec v_fma(vec a, vec b, vec c) { return vfmaq_f64(c, a, b); }
static inline vec v_max(vec a, vec b) { return vbslq_f64(vcgtq_f64(a, b), a, b); }
static inline vec v_min(vec a, vec b) { return vbslq_f64(vcltq_f64(a, b), a, b); }
static inline real v_largest(vec a) { return vmaxvq_f64(a); }
static inline mask v_lt(vec a, vec b) { return vcltq_f64(a, b); }
static inline mask v_nlt(vec a, vec b) {
    return veorq_u64(vcltq_f64(a, b), vdupq_n_u64(~(uint64_t)0));
}
static inline mask v_eq(vec a, vec b) { return vceqq_f64(a, b); }
static inline vec v_select(mask m, vec yes, vec no) { return vbslq_f64(m, yes, no); }
static inline vec v_keep(mask m, vec a) { return vbslq_f64(m, a, v_set1(0)); }
static inline mask v_first(ptrdiff_t n) {
    uint64_t lanes[VEC_LANES];
    for (ptrdiff_t i = 0; i < VEC_LANES; i++) lanes[i] = i < n ? ~(uint64_t)0 : 0;
    return vld1q_u64(lanes);
}
static inline vec v_load_end(const real *p, ptrdiff_t begin) {
    real lanes[VEC_LANES] = {0};
    for (ptrdiff_t i = begin; i < VEC_LANES; i++) lanes[i] = p[i];
    return v_load(lanes);
}
static inline vec v_pow2(vec a) {
    return vreinterpretq_f64_u64(vshlq_n_u64(vreinterpretq_u64_f64(a), 52));
}
static inline mask v_load_bools(const unsigned char *p, ptrdiff_t n) {
    uint64_t lanes[VEC_LANES];
    for (ptrdiff_t i = 0; i < VEC_LANES; i++) lanes[i] = i < n && p[i] ? ~(uint64_t)0 : 0;
    return vld1q_u64(lanes);
}
static inline vec v_exponent(vec a) {
    return vcvtq_f64_u64(vshrq_n_u64(vreinterpretq_u64_f64(a), 52));
}
static inline vec v_zip_low(vec a, vec b) { return vzip1q_f64(a, b); }
static inline vec v_zip_high(vec a, vec b) { return vzip2q_f64(a, b); }
static inline real v_sum16(const vec a[8]) {
    vec s = v_add(v_add(v_add(a[0], a[4]), v_add(a[2], a[6])),
                  v_add(v_add(a[1], a[5]), v_add(a[3], a[7])));
    return vgetq_lane_f64(s, 0) + vgetq_lane_f64(s, 1);
}

#endif

// A vec has 16 bytes, one quarter.
static inline vec v_load_quarters(const real *p, ptrdiff_t step) {
    (void)step;
    return v_load(p);
}
static inline void v_store_quarters(real *p, ptrdiff_t step, vec a) {
    (void)step;
    v_store(p, a);
}
static inline void v_turn(vec a[1]) { (void)a; }

// A macro, because GCC 12 left out every call of an inline function: tests/check_prefetch.sh.
#if defined(__GNUC__)
#define v_prefetch(p) __builtin_prefetch(p)
#else
#define v_prefetch(p) ((void)(p))
#endif

static inline vec v_mul_error(vec a, vec b, vec product) {
    return v_fma(a, b, v_sub(v_set1(0), product));
}
