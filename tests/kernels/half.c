// Numbers of 16 bits: IEEE's binary16 and bfloat16.

#include "harness.h"
#include "tests.h"

// IEEE's binary16 and bfloat16, as kernels.h numbers them.
static const struct {
    const char *name;
    int fraction_bits, bias;
    uint16_t infinity;
} SHORT_FLOATS[] = {{"half", 10, 15, 0x7c00}, {"bfloat16", 7, 127, 0x7f80}};

// The value of a pattern without its sign; for the pattern of infinity the next power of two, as if
// the exponents went on.
static double magnitude_of(unsigned pattern, int bfloat) {
    const int bits = SHORT_FLOATS[bfloat].fraction_bits, bias = SHORT_FLOATS[bfloat].bias;
    const int exponent = (int)(pattern >> bits), fraction = (int)(pattern & ((1u << bits) - 1));
    if (exponent == 0) return ldexp(fraction, 1 - bias - bits);
    return ldexp(fraction + (1 << bits), exponent - bias - bits);
}
static double value_of(uint16_t pattern, int bfloat) {
    const unsigned rest = pattern & 0x7fff, infinity = SHORT_FLOATS[bfloat].infinity;
    double value = rest < infinity ? magnitude_of(rest, bfloat) : rest > infinity ? NAN : HUGE_VAL;
    return pattern & 0x8000 ? -value : value;
}

void only_float32_has_numbers_of_16_bits(const subject *s) {
    const int has = s->t->size == 4;
    CHECK((s->k->widen != NULL) == has && (s->k->narrow != NULL) == has, 0);
}

#define CHECK_SHORT(ok, at) check(s, ok, __func__, "%s, at %#x", SHORT_FLOATS[bfloat].name, at)

void widen_is_exact_for_every_pattern(const subject *s) {
    for (int bfloat = 0; s->k->widen && bfloat < 2; bfloat++)
        for (unsigned first = 0; first < 0x10000; first += MAX_N, release()) {
            uint16_t *x = allocate(MAX_N * 2);
            void *out = reals(s, NULL, MAX_N);
            int ok = 1;
            for (unsigned i = 0; i < MAX_N; i++) x[i] = (uint16_t)(first + i);
            s->k->widen(x, MAX_N, bfloat, out);
            for (unsigned i = 0; i < MAX_N; i++)
                ok &= same_bits(get(s, out, i), value_of(x[i], bfloat));
            CHECK_SHORT(ok, first);
        }
}

void narrow_brings_every_pattern_back(const subject *s) {
    for (int bfloat = 0; s->k->narrow && bfloat < 2; bfloat++)
        for (unsigned first = 0; first < 0x10000; first += MAX_N, release()) {
            const uint16_t infinity = SHORT_FLOATS[bfloat].infinity;
            uint16_t *out = allocate(MAX_N * 2);
            void *x = reals(s, NULL, MAX_N);
            int ok = 1;
            for (unsigned i = 0; i < MAX_N; i++)
                put(s, x, i, value_of((uint16_t)(first + i), bfloat));
            s->k->narrow(x, MAX_N, bfloat, out);
            for (unsigned i = 0; i < MAX_N; i++) {
                const unsigned pattern = first + i;
                ok &= (pattern & 0x7fff) > infinity ? (out[i] & 0x7fff) > infinity
                                                    : out[i] == pattern;
            }
            CHECK_SHORT(ok, first);
        }
}

// For each finite pattern: the middle between it and the next, and the float32 on either side of
// that, of both signs. The next of the largest is infinity, that of 0 the smallest denormal.
void narrow_rounds_to_nearest_and_ties_to_even(const subject *s) {
    for (int bfloat = 0; s->k->narrow && bfloat < 2; bfloat++)
        for (unsigned pattern = 0; pattern < SHORT_FLOATS[bfloat].infinity; pattern++) {
            const double low = magnitude_of(pattern, bfloat);
            const float half = (float)((low + magnitude_of(pattern + 1, bfloat)) / 2);
            const float x[] = {nextafterf(half, 0), half, nextafterf(half, HUGE_VALF)};
            const unsigned expected[] = {pattern, pattern + (pattern & 1), pattern + 1};
            float both[6];
            uint16_t out[6];
            int ok = 1;
            for (int i = 0; i < 3; i++) both[i] = x[i], both[i + 3] = -x[i];
            s->k->narrow(both, 6, bfloat, out);
            for (int i = 0; i < 3; i++)
                ok &= out[i] == expected[i] && out[i + 3] == (expected[i] | 0x8000);
            CHECK_SHORT(ok, pattern);
        }
}

// Also a NaN whose upper half alone would be infinity.
void narrow_keeps_nan_and_infinity_and_overflows_to_it(const subject *s) {
    static const uint32_t NANS[] = {0x7f800001, 0x7fc00000, 0x7fffffff, 0xff800001, 0xffffffff};
    static const float BIG[] = {HUGE_VALF, FLT_MAX};
    for (int bfloat = 0; s->k->narrow && bfloat < 2; bfloat++)
        for (ptrdiff_t n = 1; n <= SHORT; n++, release()) {
            const uint16_t infinity = SHORT_FLOATS[bfloat].infinity;
            uint16_t *out = allocate(n * 2);
            float *x = allocate(n * 4);
            int ok = 1;
            for (ptrdiff_t i = 0; i < n; i++) memcpy(x + i, &NANS[i % COUNT(NANS)], 4);
            s->k->narrow(x, n, bfloat, out);
            for (ptrdiff_t i = 0; i < n; i++) {
                const unsigned sign = NANS[i % COUNT(NANS)] >> 16 & 0x8000;
                ok &= (out[i] & 0x7fff) > infinity && (out[i] & 0x8000) == sign;
            }
            CHECK_SHORT(ok, (unsigned)n);
            for (ptrdiff_t i = 0; i < n; i++) x[i] = i % 3 ? BIG[i % 2] : -BIG[i % 2];
            s->k->narrow(x, n, bfloat, out);
            for (ptrdiff_t i = 0; i < n; i++)
                ok &= out[i] == (i % 3 ? infinity : (infinity | 0x8000));
            CHECK_SHORT(ok, (unsigned)n);
        }
}

void narrow_keeps_the_sign_of_what_becomes_zero(const subject *s) {
    static const float TINY[] = {0, -0.0f, FLT_TRUE_MIN, -FLT_TRUE_MIN, 0x1p-135f, -0x1p-135f};
    for (int bfloat = 0; s->k->narrow && bfloat < 2; bfloat++)
        for (ptrdiff_t n = 1; n <= SHORT; n++, release()) {
            uint16_t *out = allocate(n * 2);
            float *x = allocate(n * 4);
            int ok = 1;
            for (ptrdiff_t i = 0; i < n; i++) x[i] = TINY[i % COUNT(TINY)];
            s->k->narrow(x, n, bfloat, out);
            for (ptrdiff_t i = 0; i < n; i++) ok &= out[i] == (i % 2 ? 0x8000 : 0);
            CHECK_SHORT(ok, (unsigned)n);
        }
}

static void a_part_of_short_floats_gets_the_bits_of_the_whole(const subject *s, int bfloat,
                                                              ptrdiff_t n, int offset) {
    static float whole[MAX_N];
    static uint16_t patterns[MAX_N];
    uint64_t seed = (uint64_t)n;
    for (int i = 0; i < MAX_N; i++) whole[i] = (float)(noise(&seed) * 0x1p4);
    s->k->narrow(whole, MAX_N, bfloat, patterns);
    uint16_t *narrowed = (uint16_t *)guarded(s, n + 1, offset) + offset % 2;
    s->k->narrow(memcpy(allocate(n * 4), whole, (size_t)n * 4), n, bfloat, narrowed);
    int ok = memcmp(narrowed, patterns, (size_t)n * 2) == 0 && canaries_around(narrowed, n * 2);
    s->k->widen(patterns, MAX_N, bfloat, whole);
    float *widened = guarded(s, n, offset);
    s->k->widen(memcpy(allocate(n * 2), patterns, (size_t)n * 2), n, bfloat, widened);
    ok &= memcmp(widened, whole, (size_t)n * 4) == 0 && canaries_live(s, widened, n);
    CHECK_SHORT(ok, (unsigned)n);
}

// Rows side by side, at every offset from a cache line, and one after a gap; copied, or made of
// exps.
static void check_short_rows(const subject *s, ptrdiff_t n, ptrdiff_t offset, int made) {
    enum { N_ROWS = 4, LONGEST = 70 };
    static uint16_t rows[N_ROWS * LONGEST], expected[N_ROWS * LONGEST + 1];
    static float e[N_ROWS * LONGEST], scaled[LONGEST];
    const size_t size = (size_t)(N_ROWS * n + 1) * 2;
    uint16_t *out = (uint16_t *)guarded(s, (offset + N_ROWS * n) / 2 + 1, 0) + offset;
    cysoftmax_carry carry = {{0}, NULL, 0};
    uint64_t seed = (uint64_t)n;
    memcpy(expected, out, size);
    for (ptrdiff_t i = 0; i < N_ROWS * n; i++) {
        rows[i] = (uint16_t)(i * 40503);
        e[i] = (float)(noise(&seed) * 0x1p40);
    }
    for (ptrdiff_t r = 0; r < N_ROWS; r++) {
        const ptrdiff_t place = r * n + (r == N_ROWS - 1);
        if (made) {
            s->k->scale(e + r * n, n, 0.3, 1e-9, NULL, 0, NULL, 0, scaled);
            s->k->narrow(scaled, n, 0, expected + place);
            s->k->stream_half(e + r * n, n, 0.3, 1e-9, out + place, &carry);
        } else {
            memcpy(expected + place, rows + r * n, (size_t)n * 2);
            s->k->stream_short(rows + r * n, n, out + place, &carry);
        }
    }
    s->k->store_carry(&carry);
    CHECK(memcmp(out, expected, size) == 0 && canaries_around(out, (ptrdiff_t)size), n);
}

void short_rows_are_streamed_whole_and_alone(const subject *s) {
    for (ptrdiff_t n = 1; s->k->stream_short && n <= 70; n++)
        for (ptrdiff_t offset = 0; offset < 32; offset++)
            for (int made = 0; made < 2; made++) check_short_rows(s, n, offset, made);
}

void widen_returns_the_maximum(const subject *s) {
    static float wide[MAX_N];
    static uint16_t x[MAX_N];
    for (int bfloat = 0; s->k->widen && bfloat < 2; bfloat++)
        for (ptrdiff_t n = 0; n <= SHORT; n++)
            for (int kind = 0; kind < 3; kind++) { // of any sign, all negative, no number at all
                const uint16_t sign = kind > 0 ? 0x8000 : 0, nan = 0x7fff;
                for (ptrdiff_t i = 0; i < n; i++)
                    x[i] = kind == 2 || i % 5 == 3 ? nan : (uint16_t)((i + n) * 40503 | sign);
                const double largest = s->k->widen(x, n, bfloat, wide);
                CHECK_SHORT(largest == s->k->max(wide, n), (unsigned)n);
            }
}

void short_floats_of_every_length_are_stored_whole_and_alone(const subject *s) {
    for (int bfloat = 0; s->k->widen && bfloat < 2; bfloat++)
        for (ptrdiff_t n = 0; n <= SHORT; n++)
            for (int offset = 0; offset <= TILE; offset++, release())
                a_part_of_short_floats_gets_the_bits_of_the_whole(s, bfloat, n, offset);
}
