// The vocabulary of vec_scalar.h in AVX-512: F, DQ, VL and BW, which every CPU with AVX-512 has had
// since 2017.

// The compiler may use these instructions from here to V_END. The rest of the library is compiled
// for the baseline of the architecture.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512vl,avx512bw"))),        \
                             apply_to = function)
#define V_END _Pragma("clang attribute pop")
#elif defined(__GNUC__)
#pragma GCC target("avx512f,avx512dq,avx512vl,avx512bw")
#define V_END
#else
#define V_END
#endif

#include "begin.inc"
#include <immintrin.h>

#define V_JOINS 1

#ifdef CYSOFTMAX_F32

#define VEC_LANES 16
#define V_IN_FLIGHT 4
typedef __m512 vec;
typedef __mmask16 mask;

static inline vec v_set1(real a) { return _mm512_set1_ps(a); }
static inline vec v_load(const real *p) { return _mm512_loadu_ps(p); }
static inline void v_store(real *p, vec a) { _mm512_storeu_ps(p, a); }
static inline void v_stream(real *p, vec a) { _mm512_stream_ps(p, a); }
static inline vec v_load_doubles(const double *p) {
    const __m256 low = _mm512_cvtpd_ps(_mm512_loadu_pd(p));
    return _mm512_insertf32x8(_mm512_castps256_ps512(low), _mm512_cvtpd_ps(_mm512_loadu_pd(p + 8)),
                              1);
}
static inline void v_store_doubles(double *p, vec a) {
    _mm512_storeu_pd(p, _mm512_cvtps_pd(_mm512_castps512_ps256(a)));
    _mm512_storeu_pd(p + 8, _mm512_cvtps_pd(_mm512_extractf32x8_ps(a, 1)));
}
static inline mask v_first(ptrdiff_t n) { return (mask)((1u << n) - 1); }
static inline vec v_load_part(const real *p, ptrdiff_t n, real fill) {
    return _mm512_mask_loadu_ps(v_set1(fill), v_first(n), p);
}
static inline void v_store_part(real *p, vec a, ptrdiff_t n) {
    _mm512_mask_storeu_ps(p, v_first(n), a);
}
static inline vec v_add(vec a, vec b) { return _mm512_add_ps(a, b); }
static inline vec v_sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
static inline vec v_mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
static inline vec v_div(vec a, vec b) { return _mm512_div_ps(a, b); }
static inline vec v_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
// The instructions return their second operand if either is NaN.
static inline vec v_max(vec a, vec b) { return _mm512_max_ps(a, b); }
static inline vec v_min(vec a, vec b) { return _mm512_min_ps(a, b); }
static inline real v_largest(vec a) { return _mm512_reduce_max_ps(a); }
static inline mask v_lt(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
static inline mask v_nlt(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_NLT_UQ); }
static inline mask v_eq(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
static inline vec v_select(mask m, vec yes, vec no) { return _mm512_mask_blend_ps(m, no, yes); }
static inline vec v_keep(mask m, vec a) { return _mm512_maskz_mov_ps(m, a); }
static inline vec v_pow2(vec a) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a), 23));
}
static inline mask v_load_bools(const unsigned char *p, ptrdiff_t n) {
    __m128i bytes = _mm_maskz_loadu_epi8(v_first(n), p);
    return _mm_test_epi8_mask(bytes, bytes);
}
typedef struct {
    __m512d low, high;
} wide;
static inline wide w_set1(double a) { return (wide){_mm512_set1_pd(a), _mm512_set1_pd(a)}; }
static inline wide w_of(vec a) {
    return (wide){_mm512_cvtps_pd(_mm512_castps512_ps256(a)),
                  _mm512_cvtps_pd(_mm512_extractf32x8_ps(a, 1))};
}
static inline wide w_load(const real *p) {
    return (wide){_mm512_cvtps_pd(_mm256_loadu_ps(p)), _mm512_cvtps_pd(_mm256_loadu_ps(p + 8))};
}
static inline wide w_load_doubles(const double *p) {
    return (wide){_mm512_loadu_pd(p), _mm512_loadu_pd(p + 8)};
}
static inline void w_store_doubles(double *p, wide a) {
    _mm512_storeu_pd(p, a.low);
    _mm512_storeu_pd(p + 8, a.high);
}
static inline wide w_add(wide a, wide b) {
    return (wide){_mm512_add_pd(a.low, b.low), _mm512_add_pd(a.high, b.high)};
}
static inline wide w_sub(wide a, wide b) {
    return (wide){_mm512_sub_pd(a.low, b.low), _mm512_sub_pd(a.high, b.high)};
}
static inline wide w_fma(wide a, wide b, wide c) {
    return (wide){_mm512_fmadd_pd(a.low, b.low, c.low), _mm512_fmadd_pd(a.high, b.high, c.high)};
}
static inline wide w_unless_0(wide a, wide b) {
    const __m512d zero = _mm512_setzero_pd();
    return (wide){_mm512_maskz_mov_pd(_mm512_cmp_pd_mask(a.low, zero, _CMP_NEQ_UQ), b.low),
                  _mm512_maskz_mov_pd(_mm512_cmp_pd_mask(a.high, zero, _CMP_NEQ_UQ), b.high)};
}
static inline double w_sum16(const wide a[1]) {
    const __m512d both = _mm512_add_pd(a[0].low, a[0].high);
    __m256d t = _mm256_add_pd(_mm512_castpd512_pd256(both), _mm512_extractf64x4_pd(both, 1));
    __m128d s = _mm_add_pd(_mm256_castpd256_pd128(t), _mm256_extractf128_pd(t, 1));
    return _mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s)));
}
static inline vec v_load_half(const uint16_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
static inline void v_store_half(uint16_t *p, vec a) {
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
static inline void v_stream_half(uint16_t *p, vec a) {
    _mm256_stream_si256((__m256i *)p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
typedef __m512i vec_order;
static inline vec_order v_order(ptrdiff_t shift) {
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_add_epi32(lanes, _mm512_set1_epi32((int)shift));
}
static inline vec v_join(vec a, vec b, vec_order order) {
    return _mm512_permutex2var_ps(a, order, b);
}
static inline vec v_load_end(const real *p, ptrdiff_t begin) {
    return _mm512_maskz_loadu_ps((mask)~v_first(begin), p);
}
static inline vec v_zip_low(vec a, vec b) { return _mm512_unpacklo_ps(a, b); }
static inline vec v_zip_high(vec a, vec b) { return _mm512_unpackhi_ps(a, b); }
// Masked broadcasts from memory, which need no permutation.
static inline vec v_load_quarters(const real *p, ptrdiff_t step) {
    vec a = _mm512_castps128_ps512(_mm_loadu_ps(p));
    a = _mm512_mask_broadcast_f32x4(a, 0x00f0, _mm_loadu_ps(p + 4 * step));
    a = _mm512_mask_broadcast_f32x4(a, 0x0f00, _mm_loadu_ps(p + 8 * step));
    return _mm512_mask_broadcast_f32x4(a, 0xf000, _mm_loadu_ps(p + 12 * step));
}
static inline void v_store_quarters(real *p, ptrdiff_t step, vec a) {
    _mm_storeu_ps(p, _mm512_castps512_ps128(a));
    _mm_storeu_ps(p + 4 * step, _mm512_extractf32x4_ps(a, 1));
    _mm_storeu_ps(p + 8 * step, _mm512_extractf32x4_ps(a, 2));
    _mm_storeu_ps(p + 12 * step, _mm512_extractf32x4_ps(a, 3));
}
static inline void v_turn(vec a[4]) {
    const vec b = _mm512_shuffle_f32x4(a[0], a[1], 0x44),
              c = _mm512_shuffle_f32x4(a[0], a[1], 0xee);
    const vec d = _mm512_shuffle_f32x4(a[2], a[3], 0x44),
              e = _mm512_shuffle_f32x4(a[2], a[3], 0xee);
    a[0] = _mm512_shuffle_f32x4(b, d, 0x88);
    a[1] = _mm512_shuffle_f32x4(b, d, 0xdd);
    a[2] = _mm512_shuffle_f32x4(c, e, 0x88);
    a[3] = _mm512_shuffle_f32x4(c, e, 0xdd);
}
#define V_PERMUTES 1
typedef __m512i vec_places;
static inline vec_places v_load_places(const bits_t *p) { return _mm512_loadu_si512(p); }
static inline vec v_permute(vec a, vec_places from) { return _mm512_permutexvar_ps(from, a); }
static inline real v_sum16(const vec a[1]) {
    __m256 t = _mm256_add_ps(_mm512_castps512_ps256(a[0]), _mm512_extractf32x8_ps(a[0], 1));
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(t), _mm256_extractf128_ps(t, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

#else

#define VEC_LANES 8
#define V_IN_FLIGHT 4
typedef __m512d vec;
typedef __mmask8 mask;

static inline vec v_set1(real a) { return _mm512_set1_pd(a); }
static inline vec v_load(const real *p) { return _mm512_loadu_pd(p); }
static inline void v_store(real *p, vec a) { _mm512_storeu_pd(p, a); }
static inline void v_stream(real *p, vec a) { _mm512_stream_pd(p, a); }
static inline vec v_load_doubles(const double *p) { return v_load(p); }
static inline void v_store_doubles(double *p, vec a) { v_store(p, a); }
static inline mask v_first(ptrdiff_t n) { return (mask)((1u << n) - 1); }
static inline vec v_load_part(const real *p, ptrdiff_t n, real fill) {
    return _mm512_mask_loadu_pd(v_set1(fill), v_first(n), p);
}
static inline void v_store_part(real *p, vec a, ptrdiff_t n) {
    _mm512_mask_storeu_pd(p, v_first(n), a);
}
static inline vec v_add(vec a, vec b) { return _mm512_add_pd(a, b); }
static inline vec v_sub(vec a, vec b) { return _mm512_sub_pd(a, b); }
static inline vec v_mul(vec a, vec b) { return _mm512_mul_pd(a, b); }
static inline vec v_div(vec a, vec b) { return _mm512_div_pd(a, b); }
static inline vec v_fma(vec a, vec b, vec c) { return _mm512_fmadd_pd(a, b, c); }
static inline vec v_max(vec a, vec b) { return _mm512_max_pd(a, b); }
static inline vec v_min(vec a, vec b) { return _mm512_min_pd(a, b); }
static inline real v_largest(vec a) { return _mm512_reduce_max_pd(a); }
static inline mask v_lt(vec a, vec b) { return _mm512_cmp_pd_mask(a, b, _CMP_LT_OQ); }
static inline mask v_nlt(vec a, vec b) { return _mm512_cmp_pd_mask(a, b, _CMP_NLT_UQ); }
static inline mask v_eq(vec a, vec b) { return _mm512_cmp_pd_mask(a, b, _CMP_EQ_OQ); }
static inline vec v_select(mask m, vec yes, vec no) { return _mm512_mask_blend_pd(m, no, yes); }
static inline vec v_keep(mask m, vec a) { return _mm512_maskz_mov_pd(m, a); }
static inline vec v_pow2(vec a) {
    return _mm512_castsi512_pd(_mm512_slli_epi64(_mm512_castpd_si512(a), 52));
}
static inline mask v_load_bools(const unsigned char *p, ptrdiff_t n) {
    __m128i bytes = _mm_maskz_loadu_epi8(v_first(n), p);
    return (mask)_mm_test_epi8_mask(bytes, bytes);
}
static inline vec v_exponent(vec a) {
    return _mm512_cvtepi64_pd(_mm512_srli_epi64(_mm512_castpd_si512(a), 52));
}
typedef __m512i vec_order;
static inline vec_order v_order(ptrdiff_t shift) {
    return _mm512_add_epi64(_mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7), _mm512_set1_epi64(shift));
}
static inline vec v_join(vec a, vec b, vec_order order) {
    return _mm512_permutex2var_pd(a, order, b);
}
static inline vec v_load_end(const real *p, ptrdiff_t begin) {
    return _mm512_maskz_loadu_pd((mask)~v_first(begin), p);
}
static inline vec v_zip_low(vec a, vec b) { return _mm512_unpacklo_pd(a, b); }
static inline vec v_zip_high(vec a, vec b) { return _mm512_unpackhi_pd(a, b); }
static inline vec v_load_quarters(const real *p, ptrdiff_t step) {
    vec a = _mm512_castpd128_pd512(_mm_loadu_pd(p));
    a = _mm512_mask_broadcast_f64x2(a, 0x0c, _mm_loadu_pd(p + 2 * step));
    a = _mm512_mask_broadcast_f64x2(a, 0x30, _mm_loadu_pd(p + 4 * step));
    return _mm512_mask_broadcast_f64x2(a, 0xc0, _mm_loadu_pd(p + 6 * step));
}
static inline void v_store_quarters(real *p, ptrdiff_t step, vec a) {
    _mm_storeu_pd(p, _mm512_castpd512_pd128(a));
    _mm_storeu_pd(p + 2 * step, _mm512_extractf64x2_pd(a, 1));
    _mm_storeu_pd(p + 4 * step, _mm512_extractf64x2_pd(a, 2));
    _mm_storeu_pd(p + 6 * step, _mm512_extractf64x2_pd(a, 3));
}
static inline void v_turn(vec a[4]) {
    const vec b = _mm512_shuffle_f64x2(a[0], a[1], 0x44),
              c = _mm512_shuffle_f64x2(a[0], a[1], 0xee);
    const vec d = _mm512_shuffle_f64x2(a[2], a[3], 0x44),
              e = _mm512_shuffle_f64x2(a[2], a[3], 0xee);
    a[0] = _mm512_shuffle_f64x2(b, d, 0x88);
    a[1] = _mm512_shuffle_f64x2(b, d, 0xdd);
    a[2] = _mm512_shuffle_f64x2(c, e, 0x88);
    a[3] = _mm512_shuffle_f64x2(c, e, 0xdd);
}
static inline real v_sum16(const vec a[2]) {
    vec both = v_add(a[0], a[1]);
    __m256d t = _mm256_add_pd(_mm512_castpd512_pd256(both), _mm512_extractf64x4_pd(both, 1));
    __m128d s = _mm_add_pd(_mm256_castpd256_pd128(t), _mm256_extractf128_pd(t, 1));
    return _mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s)));
}

#endif

// A macro, because GCC 12 left out every call of an inline function: tests/check_prefetch.sh.
#define v_prefetch(p) _mm_prefetch((const char *)(p), _MM_HINT_T0)

static inline vec v_mul_error(vec a, vec b, vec product) {
#ifdef CYSOFTMAX_F32
    return _mm512_fmsub_ps(a, b, product);
#else
    return _mm512_fmsub_pd(a, b, product);
#endif
}
