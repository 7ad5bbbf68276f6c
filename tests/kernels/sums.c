// Sums over a row: sum, dot, terms, diff_sum; and vjp, which takes one of them.

#include "harness.h"
#include "tests.h"

// |error| of hi + lo in units of 2^(-2 digits) times the sum of magnitudes.
static double twice_the_digits(const subject *s, wide exact, long double size, double hi,
                               double lo) {
    double error = wide_error(exact, hi, lo);
    return error == 0 ? 0 : (double)(error / ldexpl(size, -2 * s->t->digits));
}

void sum_has_twice_the_digits(const subject *s, const row *r) {
    static double a[MAX_N];
    wide exact = {0, 0};
    long double size = 0;
    double hi, lo;
    fill_signed(s, r->seed, a, r->n);
    for (ptrdiff_t i = 0; i < r->n; i++) {
        wide_add(&exact, a[i]);
        size += fabs(a[i]);
    }
    s->k->sum(reals(s, a, r->n), r->n, &hi, &lo);
    WITHIN_ROW("sum (eps^2)", twice_the_digits(s, exact, size, hi, lo), 8);
}

// In float64 without FMA the error of a product is lost: its bound is that of one rounding a term.
static void check_dot(const subject *s, const row *r, const double *a, const double *shift,
                      const char *sentence) {
    wide exact = {0, 0};
    long double size = 0;
    double hi, lo;
    for (ptrdiff_t i = 0; i < r->n; i++) {
        if (shift && a[i] == 0) continue;
        const long double x = shift ? (long double)r->x[i] - *shift : (long double)r->x[i];
        wide_add_product(&exact, a[i], x);
        size += fabsl(a[i] * x);
    }
    s->k->dot(reals(s, a, r->n), r->logits, r->n, shift, &hi, &lo);
    const int lost = s->t->digits == 53 && !s->fused;
    const double bound = lost ? ldexp(1, s->t->digits) : 8;
    check_within(s, "dot (eps^2)", twice_the_digits(s, exact, size, hi, lo), bound, sentence,
                 r->kind->name, r->n, r->temperature);
}

void dot_has_twice_the_digits(const subject *s, const row *r) {
    static double a[MAX_N];
    if (r->kind->masked) return;
    fill_signed(s, r->seed, a, r->n);
    check_dot(s, r, a, NULL, __func__);
    check_dot(s, r, a, &r->shift, __func__);
}

void dot_skips_zeros_even_at_minus_infinity(const subject *s, const row *r) {
    static double a[MAX_N];
    fill_weights(r->x, r->seed, a, r->n);
    check_dot(s, r, a, &r->shift, __func__);
    for (ptrdiff_t i = 0; i < r->n; i++)
        if (a[i] == 0) a[i] = -0.0;
    check_dot(s, r, a, &r->shift, __func__);
}

void strided_dot_has_the_bits_of_dot(const subject *s, const row *r) {
    static double a[MAX_N], x[MAX_N], spread_a[2 * MAX_N], spread_x[3 * MAX_N];
    double want_hi, want_lo, hi, lo;
    const ptrdiff_t n = r->n, last = n - 1;
    fill_signed(s, r->seed, a, n);
    fill_signed(s, r->seed + 1, x, n);
    for (ptrdiff_t i = 0; i < n; i++) {
        spread_a[2 * (last - i)] = a[i];
        spread_x[3 * i] = x[i];
    }
    s->k->dot(reals(s, a, n), reals(s, x, n), n, NULL, &want_hi, &want_lo);
    char *as = reals(s, spread_a, 2 * last + 1), *xs = reals(s, spread_x, 3 * last + 1);
    s->k->strided_dot(as + 2 * last * s->t->size, -2 * s->t->size, xs, 3 * s->t->size, n, &hi, &lo);
    CHECK_ROW(same_bits(hi, want_hi) && same_bits(lo, want_lo));
}

void dot_with_mass_on_minus_infinity_is_minus_infinity(const subject *s) {
    static double a[SHORT], x[SHORT];
    const double shift = 8;
    double hi, lo;
    for (ptrdiff_t n = 1; n <= SHORT; n++)
        for (int shifted = 0; shifted < 2; shifted++, release()) {
            fill(s, &KINDS[0], (uint64_t)n, x, n);
            for (ptrdiff_t i = 0; i < n; i++) a[i] = 0.25;
            x[n * 2 / 3] = -HUGE_VAL;
            s->k->dot(reals(s, a, n), reals(s, x, n), n, shifted ? &shift : NULL, &hi, &lo);
            CHECK(hi == -HUGE_VAL, n);
        }
}

// 1 to 16 at a time, some of weight 1; where the weight is 0 the logit is NaN and counts for
// nothing.
void terms_are_what_dot_has_for_each_alone(const subject *s, const row *r) {
    static double a[MAX_N];
    double shift[TILE], hi[TILE + 1], lo[TILE + 1], high, low;
    void *gathered = reals(s, NULL, TILE);
    int ok = 1;
    fill_signed(s, r->seed, a, r->n);
    for (ptrdiff_t c = 0; c < r->n; c++)
        if (c % 5 < 3) a[c] = c % 5 == 0 ? 1 : c % 5 == 1 ? 0 : -0.0;
    void *as = reals(s, a, r->n);
    for (ptrdiff_t c = 0, count; c < r->n; c += count) {
        count = c % TILE + 1 < r->n - c ? c % TILE + 1 : r->n - c;
        for (ptrdiff_t i = 0; i < count; i++) {
            shift[i] = r->shift;
            put(s, gathered, i, a[c + i] == 0 ? NAN : r->x[c + i]);
        }
        hi[count] = lo[count] = -42;
        s->k->terms(a + c, gathered, shift, (int)count, hi, lo);
        ok &= hi[count] == -42 && lo[count] == -42;
        for (ptrdiff_t i = 0; i < count; i++) {
            s->k->dot(at(s, as, c + i), at(s, r->logits, c + i), 1, &r->shift, &high, &low);
            if (isinf(high)) low = 0; // where dot has NaN
            ok &= hi[i] == high && lo[i] == low;
        }
    }
    CHECK_ROW(ok);
}

// A term is rounded eight times on its way: itself, three times in a block, four in the tree.
// Without the errors of the sum of the blocks it would be 2.3.
void diff_sum_is_within_its_bound(const subject *s, const row *r) {
    wide exact = {0, 0};
    double hi, lo;
    int dead = 0;
    for (ptrdiff_t i = 0; i < r->n; i++) {
        dead |= r->x[i] == -HUGE_VAL;
        if (!dead) wide_add(&exact, (long double)r->x[i] - r->shift);
    }
    s->k->diff_sum(NULL, r->logits, r->n, r->shift, &hi, &lo);
    if (dead)
        CHECK_ROW(hi == -HUGE_VAL);
    else
        WITHIN_ROW("diff_sum", ulps(s->t, (long double)hi + lo, exact.hi + exact.lo), 2);
}

void diff_sum_is_infinite_or_nan_where_a_logit_is(const subject *s) {
    static double x[SHORT];
    double hi, lo;
    for (ptrdiff_t n = 1; n <= SHORT; n++)
        for (ptrdiff_t c = 0; c < n; c++, release()) {
            fill(s, &KINDS[0], (uint64_t)n, x, n);
            x[c] = -HUGE_VAL;
            s->k->diff_sum(NULL, reals(s, x, n), n, 8, &hi, &lo);
            CHECK(hi == -HUGE_VAL, n);
            x[c] = NAN;
            s->k->diff_sum(NULL, reals(s, x, n), n, 8, &hi, &lo);
            CHECK(isnan(hi), n);
        }
}

void vjp_is_within_its_bound(const subject *s, const row *r) {
    static double p[MAX_N], v[MAX_N];
    double hi, lo, worst = 0;
    fill_weights(r->x, r->seed, p, r->n);
    fill_signed(s, r->seed + 1, v, r->n);
    for (ptrdiff_t i = 0; i < r->n; i++) p[i] /= 0x1p9;
    void *ps = reals(s, p, r->n), *vs = reals(s, v, r->n), *out = reals(s, NULL, r->n);
    s->k->dot(vs, ps, r->n, NULL, &hi, &lo);
    s->k->vjp(ps, vs, r->n, hi, lo, out);
    for (ptrdiff_t i = 0; i < r->n; i++)
        worst = max(worst, ulps(s->t, get(s, out, i), p[i] * (((long double)v[i] - hi) - lo)));
    WITHIN_ROW("vjp", worst, 2.5);
}

// Fewer rows than are worked on together, as many, and more; into an array of their own, over p and
// over v.
void vjps_of_rows_are_those_of_each(const subject *s) {
    static const ptrdiff_t N_ROWS[] = {1, 2, 15, 16, 17, 18};
    static double p[18 * MAX_N], v[18 * MAX_N];
    double hi, lo;
    for (ptrdiff_t n = 1; n <= MAX_N; n = n < 70 || n == MAX_N ? n + 1 : n + 318)
        for (int i = 0; i < COUNT(N_ROWS); i++, release()) {
            const ptrdiff_t n_rows = N_ROWS[i], size = n_rows * n;
            if (size > 15 * MAX_N) continue;
            fill_signed(s, (uint64_t)n, p, size);
            fill_signed(s, (uint64_t)n + 1, v, size);
            if (n_rows > 1) v[n] = n % 3 == 0 ? NAN : n % 3 == 1 ? HUGE_VAL : -0.0;
            char *ps = reals(s, p, size), *vs = reals(s, v, size);
            char *expected = reals(s, NULL, size);
            for (ptrdiff_t r = 0; r < n_rows; r++) {
                s->k->dot(at(s, ps, r * n), at(s, vs, r * n), n, NULL, &hi, &lo);
                s->k->vjp(at(s, ps, r * n), at(s, vs, r * n), n, hi, lo, at(s, expected, r * n));
            }
            for (int place = 0; place < 3; place++) {
                char *out = guarded(s, size, n % 16);
                if (place > 0) memcpy(out, place == 1 ? ps : vs, (size_t)(size * s->t->size));
                s->k->rows_vjp(place == 1 ? out : ps, place == 2 ? out : vs, n, n_rows, out);
                int ok = canaries_live(s, out, size);
                for (ptrdiff_t c = 0; c < size; c++)
                    ok &= same_bits(get(s, out, c), get(s, expected, c));
                CHECK(ok, n);
            }
        }
}
