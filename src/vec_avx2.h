// The vocabulary of vec_scalar.h in AVX2 with FMA and F16C.

// The compiler may use these instructions from here to V_END. The rest of the library is compiled
// for the baseline of the architecture.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#define V_END _Pragma("clang attribute pop")
#elif defined(__GNUC__)
#pragma GCC target("avx2,fma,f16c")
#define V_END
#else
#define V_END
#endif

#include "begin.inc"
#include <immintrin.h>

#define V_JOINS 1

#ifdef CYSOFTMAX_F32

#define VEC_LANES 8
#define V_IN_FLIGHT 4
typedef __m256 vec;
typedef __m256 mask;

static inline vec v_set1(real a) { return _mm256_set1_ps(a); }
static inline vec v_load(const real *p) { return _mm256_loadu_ps(p); }
static inline void v_store(real *p, vec a) { _mm256_storeu_ps(p, a); }
static inline void v_stream(real *p, vec a) { _mm256_stream_ps(p, a); }
static inline vec v_load_doubles(const double *p) {
    return _mm256_set_m128(_mm256_cvtpd_ps(_mm256_loadu_pd(p + 4)),
                           _mm256_cvtpd_ps(_mm256_loadu_pd(p)));
}
static inline void v_store_doubles(double *p, vec a) {
    _mm256_storeu_pd(p, _mm256_cvtps_pd(_mm256_castps256_ps128(a)));
    _mm256_storeu_pd(p + 4, _mm256_cvtps_pd(_mm256_extractf128_ps(a, 1)));
}
static inline __m256i v_first_bits(ptrdiff_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline vec v_load_part(const real *p, ptrdiff_t n, real fill) {
    __m256i first = v_first_bits(n);
    return _mm256_blendv_ps(v_set1(fill), _mm256_maskload_ps(p, first), _mm256_castsi256_ps(first));
}
static inline void v_store_part(real *p, vec a, ptrdiff_t n) {
    _mm256_maskstore_ps(p, v_first_bits(n), a);
}
static inline mask v_first(ptrdiff_t n) { return _mm256_castsi256_ps(v_first_bits(n)); }
static inline vec v_load_end(const real *p, ptrdiff_t begin) {
    const __m256i all = _mm256_set1_epi32(-1);
    return _mm256_maskload_ps(p, _mm256_xor_si256(v_first_bits(begin), all));
}
static inline vec v_add(vec a, vec b) { return _mm256_add_ps(a, b); }
static inline vec v_sub(vec a, vec b) { return _mm256_sub_ps(a, b); }
static inline vec v_mul(vec a, vec b) { return _mm256_mul_ps(a, b); }
static inline vec v_div(vec a, vec b) { return _mm256_div_ps(a, b); }
static inline vec v_fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
// The instructions return their second operand if either is NaN.
static inline vec v_max(vec a, vec b) { return _mm256_max_ps(a, b); }
static inline vec v_min(vec a, vec b) { return _mm256_min_ps(a, b); }
static inline real v_largest(vec a) {
    __m128 t = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    t = _mm_max_ps(t, _mm_movehl_ps(t, t));
    return _mm_cvtss_f32(_mm_max_ss(t, _mm_movehdup_ps(t)));
}
static inline mask v_lt(vec a, vec b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
static inline mask v_nlt(vec a, vec b) { return _mm256_cmp_ps(a, b, _CMP_NLT_UQ); }
static inline mask v_eq(vec a, vec b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
static inline vec v_select(mask m, vec yes, vec no) { return _mm256_blendv_ps(no, yes, m); }
static inline vec v_keep(mask m, vec a) { return _mm256_and_ps(m, a); }
static inline vec v_pow2(vec a) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a), 23));
}
static inline mask v_load_bools(const unsigned char *p, ptrdiff_t n) {
    uint64_t bytes = 0;
    memcpy(&bytes, p, (size_t)n);
    __m256i wide = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)bytes));
    return _mm256_castsi256_ps(_mm256_cmpgt_epi32(wide, _mm256_setzero_si256()));
}
typedef struct {
    __m256d low, high;
} wide;
static inline wide w_set1(double a) { return (wide){_mm256_set1_pd(a), _mm256_set1_pd(a)}; }
static inline wide w_of(vec a) {
    return (wide){_mm256_cvtps_pd(_mm256_castps256_ps128(a)),
                  _mm256_cvtps_pd(_mm256_extractf128_ps(a, 1))};
}
static inline wide w_load(const real *p) {
    return (wide){_mm256_cvtps_pd(_mm_loadu_ps(p)), _mm256_cvtps_pd(_mm_loadu_ps(p + 4))};
}
static inline wide w_load_doubles(const double *p) {
    return (wide){_mm256_loadu_pd(p), _mm256_loadu_pd(p + 4)};
}
static inline void w_store_doubles(double *p, wide a) {
    _mm256_storeu_pd(p, a.low);
    _mm256_storeu_pd(p + 4, a.high);
}
static inline wide w_add(wide a, wide b) {
    return (wide){_mm256_add_pd(a.low, b.low), _mm256_add_pd(a.high, b.high)};
}
static inline wide w_sub(wide a, wide b) {
    return (wide){_mm256_sub_pd(a.low, b.low), _mm256_sub_pd(a.high, b.high)};
}
static inline wide w_fma(wide a, wide b, wide c) {
    return (wide){_mm256_fmadd_pd(a.low, b.low, c.low), _mm256_fmadd_pd(a.high, b.high, c.high)};
}
static inline wide w_unless_0(wide a, wide b) {
    const __m256d zero = _mm256_setzero_pd();
    return (wide){_mm256_and_pd(_mm256_cmp_pd(a.low, zero, _CMP_NEQ_UQ), b.low),
                  _mm256_and_pd(_mm256_cmp_pd(a.high, zero, _CMP_NEQ_UQ), b.high)};
}
static inline double w_sum16(const wide a[2]) {
    const wide both = w_add(a[0], a[1]);
    __m256d t = _mm256_add_pd(both.low, both.high);
    __m128d s = _mm_add_pd(_mm256_castpd256_pd128(t), _mm256_extractf128_pd(t, 1));
    return _mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s)));
}
static inline vec v_load_half(const uint16_t *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
static inline void v_store_half(uint16_t *p, vec a) {
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
static inline void v_stream_half(uint16_t *p, vec a) {
    _mm_stream_si128((__m128i *)p, _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
// The first `shift` lanes of a are replaced by those of b; then all lanes are rotated by `shift`.
typedef struct {
    mask from_b;
    __m256i turn;
} vec_order;
static inline vec_order v_order(ptrdiff_t shift) {
    const __m256i lanes = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
                                           _mm256_set1_epi32((int)(shift)));
    return (vec_order){v_first(shift), _mm256_and_si256(lanes, _mm256_set1_epi32(7))};
}
static inline vec v_join(vec a, vec b, vec_order order) {
    return _mm256_permutevar8x32_ps(v_select(order.from_b, b, a), order.turn);
}
static inline vec v_zip_low(vec a, vec b) { return _mm256_unpacklo_ps(a, b); }
static inline vec v_zip_high(vec a, vec b) { return _mm256_unpackhi_ps(a, b); }
static inline vec v_load_quarters(const real *p, ptrdiff_t step) {
    return _mm256_set_m128(_mm_loadu_ps(p + 4 * step), _mm_loadu_ps(p));
}
static inline void v_store_quarters(real *p, ptrdiff_t step, vec a) {
    _mm_storeu_ps(p, _mm256_castps256_ps128(a));
    _mm_storeu_ps(p + 4 * step, _mm256_extractf128_ps(a, 1));
}
static inline void v_turn(vec a[2]) {
    const vec low = _mm256_permute2f128_ps(a[0], a[1], 0x20);
    a[1] = _mm256_permute2f128_ps(a[0], a[1], 0x31);
    a[0] = low;
}
#define V_PERMUTES 1
typedef __m256i vec_places;
static inline vec_places v_load_places(const bits_t *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}
static inline vec v_permute(vec a, vec_places from) { return _mm256_permutevar8x32_ps(a, from); }
static inline real v_sum16(const vec a[2]) {
    vec t = v_add(a[0], a[1]);
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(t), _mm256_extractf128_ps(t, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

#else

#define VEC_LANES 4
#define V_IN_FLIGHT 4
typedef __m256d vec;
typedef __m256d mask;

static inline vec v_set1(real a) { return _mm256_set1_pd(a); }
static inline vec v_load(const real *p) { return _mm256_loadu_pd(p); }
static inline void v_store(real *p, vec a) { _mm256_storeu_pd(p, a); }
static inline void v_stream(real *p, vec a) { _mm256_stream_pd(p, a); }
static inline vec v_load_doubles(const double *p) { return v_load(p); }
static inline void v_store_doubles(double *p, vec a) { v_store(p, a); }
static inline __m256i v_first_bits(ptrdiff_t n) {
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
}
static inline vec v_load_part(const real *p, ptrdiff_t n, real fill) {
    __m256i first = v_first_bits(n);
    return _mm256_blendv_pd(v_set1(fill), _mm256_maskload_pd(p, first), _mm256_castsi256_pd(first));
}
static inline void v_store_part(real *p, vec a, ptrdiff_t n) {
    _mm256_maskstore_pd(p, v_first_bits(n), a);
}
static inline mask v_first(ptrdiff_t n) { return _mm256_castsi256_pd(v_first_bits(n)); }
static inline vec v_load_end(const real *p, ptrdiff_t begin) {
    const __m256i all = _mm256_set1_epi32(-1);
    return _mm256_maskload_pd(p, _mm256_xor_si256(v_first_bits(begin), all));
}
static inline vec v_add(vec a, vec b) { return _mm256_add_pd(a, b); }
static inline vec v_sub(vec a, vec b) { return _mm256_sub_pd(a, b); }
static inline vec v_mul(vec a, vec b) { return _mm256_mul_pd(a, b); }
static inline vec v_div(vec a, vec b) { return _mm256_div_pd(a, b); }
static inline vec v_fma(vec a, vec b, vec c) { return _mm256_fmadd_pd(a, b, c); }
static inline vec v_max(vec a, vec b) { return _mm256_max_pd(a, b); }
static inline vec v_min(vec a, vec b) { return _mm256_min_pd(a, b); }
static inline real v_largest(vec a) {
    __m128d t = _mm_max_pd(_mm256_castpd256_pd128(a), _mm256_extractf128_pd(a, 1));
    return _mm_cvtsd_f64(_mm_max_sd(t, _mm_unpackhi_pd(t, t)));
}
static inline mask v_lt(vec a, vec b) { return _mm256_cmp_pd(a, b, _CMP_LT_OQ); }
static inline mask v_nlt(vec a, vec b) { return _mm256_cmp_pd(a, b, _CMP_NLT_UQ); }
static inline mask v_eq(vec a, vec b) { return _mm256_cmp_pd(a, b, _CMP_EQ_OQ); }
static inline vec v_select(mask m, vec yes, vec no) { return _mm256_blendv_pd(no, yes, m); }
static inline vec v_keep(mask m, vec a) { return _mm256_and_pd(m, a); }
static inline vec v_pow2(vec a) {
    return _mm256_castsi256_pd(_mm256_slli_epi64(_mm256_castpd_si256(a), 52));
}
static inline mask v_load_bools(const unsigned char *p, ptrdiff_t n) {
    uint32_t bytes = 0;
    memcpy(&bytes, p, (size_t)n);
    __m256i wide = _mm256_cvtepu8_epi64(_mm_cvtsi32_si128((int)bytes));
    return _mm256_castsi256_pd(_mm256_cmpgt_epi64(wide, _mm256_setzero_si256()));
}
// AVX2 has no conversion of 64-bit integers: the exponent is put into the fraction of 2^52.
static inline vec v_exponent(vec a) {
    __m256i exponent = _mm256_srli_epi64(_mm256_castpd_si256(a), 52);
    vec two52 = v_set1(0x1p52);
    return v_sub(_mm256_or_pd(_mm256_castsi256_pd(exponent), two52), two52);
}
typedef struct {
    mask from_b;
    __m256i turn;
} vec_order;
static inline vec_order v_order(ptrdiff_t shift) {
    const __m256i lanes = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
                                           _mm256_set1_epi32((int)(2 * shift)));
    return (vec_order){v_first(shift), _mm256_and_si256(lanes, _mm256_set1_epi32(7))};
}
static inline vec v_join(vec a, vec b, vec_order order) {
    const __m256 turned =
        _mm256_permutevar8x32_ps(_mm256_castpd_ps(v_select(order.from_b, b, a)), order.turn);
    return _mm256_castps_pd(turned);
}
static inline vec v_zip_low(vec a, vec b) { return _mm256_unpacklo_pd(a, b); }
static inline vec v_zip_high(vec a, vec b) { return _mm256_unpackhi_pd(a, b); }
static inline vec v_load_quarters(const real *p, ptrdiff_t step) {
    return _mm256_set_m128d(_mm_loadu_pd(p + 2 * step), _mm_loadu_pd(p));
}
static inline void v_store_quarters(real *p, ptrdiff_t step, vec a) {
    _mm_storeu_pd(p, _mm256_castpd256_pd128(a));
    _mm_storeu_pd(p + 2 * step, _mm256_extractf128_pd(a, 1));
}
static inline void v_turn(vec a[2]) {
    const vec low = _mm256_permute2f128_pd(a[0], a[1], 0x20);
    a[1] = _mm256_permute2f128_pd(a[0], a[1], 0x31);
    a[0] = low;
}
static inline real v_sum16(const vec a[4]) {
    vec t = v_add(v_add(a[0], a[2]), v_add(a[1], a[3]));
    __m128d s = _mm_add_pd(_mm256_castpd256_pd128(t), _mm256_extractf128_pd(t, 1));
    return _mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s)));
}

#endif

// A macro, because GCC 12 left out every call of an inline function: tests/check_prefetch.sh.
#define v_prefetch(p) _mm_prefetch((const char *)(p), _MM_HINT_T0)

static inline vec v_mul_error(vec a, vec b, vec product) {
#ifdef CYSOFTMAX_F32
    return _mm256_fmsub_ps(a, b, product);
#else
    return _mm256_fmsub_pd(a, b, product);
#endif
}
