// exp and its sum, and the maximum that comes before them.

#include "harness.h"
#include "tests.h"

void max_is_the_largest_logit(const subject *s, const row *r) {
    CHECK_ROW(s->k->max(r->logits, r->n) == r->shift);
}

// It may be 0 only where the exact value rounds to 0: up to half of the smallest denormal.
void exp_is_within_one_ulp(const subject *s, const row *r) {
    const long double nothing = ldexpl(1, s->t->min_exponent - s->t->digits);
    double worst = 0;
    for (ptrdiff_t i = 0; i < r->n; i++) {
        double e = get(s, r->e, i);
        if (e != 0 || r->exact[i] > nothing)
            worst = max(worst, ulps(s->t, e, ldexpl(r->exact[i], s->t->exp_scale)));
    }
    WITHIN_ROW("e", worst, 1);
}

// At a large shift few reals, eight at most, lie between it and the logits whose exp is 0.
void no_exp_is_lost_between_two_reals(const subject *s) {
    const long double nothing = ldexpl(1, s->t->min_exponent - s->t->digits);
    const double unit = ldexp(1, 10), shift = ldexp(1.5, 9 + s->t->digits);
    double coarse, fine, inv_temperature[2], x[TILE];
    for (int i = 0; i < TILE; i++) x[i] = shift - i * unit;
    for (int steps = 1; steps <= 512; steps++, release()) {
        const double temperature = steps * unit / 64 / (s->t->size == 4 ? 104 : 746);
        void *e = reals(s, NULL, TILE);
        double worst = 0;
        make_inverse(temperature, inv_temperature);
        s->k->exp_sum(reals(s, x, TILE), TILE, shift, inv_temperature, NULL, e, &coarse, &fine);
        for (int i = 0; i < TILE; i++) {
            const long double exact = tempered_exp(-i * unit, temperature);
            if (get(s, e, i) != 0 || exact > nothing)
                worst = max(worst, ulps(s->t, get(s, e, i), ldexpl(exact, s->t->exp_scale)));
        }
        check_within(s, "e", worst, 1, __func__, "any", TILE, temperature);
    }
}

void exp_of_minus_infinity_is_zero(const subject *s, const row *r) {
    int ok = 1;
    for (ptrdiff_t i = 0; i < r->n; i++)
        if (r->x[i] == -HUGE_VAL) ok &= same_bits(get(s, r->e, i), 0);
    CHECK_ROW(ok);
}

// The terms are not rounded before they are added. If all have the same relative error, it can be
// twice as many ulp of a term as of the sum.
void sum_of_exp_is_within_its_bound(const subject *s, const row *r) {
    WITHIN_ROW("sum of exp", ulps(s->t, (long double)r->coarse + r->fine, r->sum), 0.6);
}

void coarse_is_a_multiple_of_its_unit(const subject *s, const row *r) {
    double units = ldexp(r->coarse, -s->t->coarse_unit);
    CHECK_ROW(units == floor(units));
}

void rest_of_a_confident_row_keeps_its_accuracy(const subject *s, const row *r) {
    if (!r->kind->margin) return;
    ptrdiff_t top = 0;
    while (r->x[top] != r->shift) top++;
    double rest = (r->coarse - 1) + r->fine;
    WITHIN_ROW("rest", ulps(s->t, rest, rest_of(r, top)), 4);
}

void sums_are_the_same_without_e_and_in_place(const subject *s, const row *r) {
    void *x = copy(s, r->logits, r->n);
    double coarse, fine;
    s->k->exp_sum(x, r->n, r->shift, r->inv_temperature, NULL, NULL, &coarse, &fine);
    CHECK_ROW(same_bits(coarse, r->coarse) && same_bits(fine, r->fine));
    s->k->exp_sum(x, r->n, r->shift, r->inv_temperature, NULL, x, &coarse, &fine);
    CHECK_ROW(same_bits(coarse, r->coarse) && same_bits(fine, r->fine));
    CHECK_ROW(same_reals(s, x, r->e, r->n));
}

void exp_sum_writes_nothing_else(const subject *s, const row *r) {
    double coarse, fine;
    void *out = guarded(s, r->n, r->n % 16);
    s->k->exp_sum(r->logits, r->n, r->shift, r->inv_temperature, NULL, out, &coarse, &fine);
    CHECK_ROW(canaries_live(s, out, r->n) && same_reals(s, out, r->e, r->n));
}

void the_row_prefetched_meanwhile_changes_nothing(const subject *s, const row *r) {
    double coarse, fine;
    void *e = reals(s, NULL, r->n), *next = copy(s, r->logits, r->n);
    s->k->exp_sum(r->logits, r->n, r->shift, r->inv_temperature, next, e, &coarse, &fine);
    CHECK_ROW(same_bits(coarse, r->coarse) && same_bits(fine, r->fine));
    CHECK_ROW(same_reals(s, e, r->e, r->n) && same_reals(s, next, r->logits, r->n));
}

// With an inverse temperature x - shift is found in another way: an exp may be rounded to the other
// side.
void an_inverse_temperature_of_one_changes_a_last_bit_at_most(const subject *s, const row *r) {
    const double one[2] = {1, 0}, total = log_total(s, r->coarse, r->fine);
    double coarse, fine, worst = 0;
    void *expected = reals(s, NULL, r->n), *out = reals(s, NULL, r->n);
    s->k->exp_sum(r->logits, r->n, r->shift, NULL, NULL, expected, &coarse, &fine);
    s->k->exp_sum(r->logits, r->n, r->shift, one, NULL, out, &coarse, &fine);
    for (ptrdiff_t i = 0; i < r->n; i++)
        worst = max(worst, ulps(s->t, get(s, out, i), get(s, expected, i)));
    WITHIN_ROW("e with an inverse temperature of one", worst, 1);
    s->k->log(r->logits, r->n, r->shift, NULL, total, expected);
    s->k->log(r->logits, r->n, r->shift, one, total, out);
    CHECK_ROW(same_reals(s, out, expected, r->n));
}

void the_place_of_a_row_changes_no_bit(const subject *s) {
    for (ptrdiff_t n = 1; n <= 5 * 64 + 3; n += n < 130 ? 1 : 31) {
        uint64_t seed = (uint64_t)n;
        void *expected_e = reals(s, NULL, n), *x = reals(s, NULL, n);
        double coarse, fine, expected_coarse, expected_fine;
        for (ptrdiff_t i = 0; i < n; i++) put(s, x, i, 9 * noise(&seed));
        const double largest = s->k->max(x, n);
        s->k->exp_sum(x, n, largest, NULL, NULL, expected_e, &expected_coarse, &expected_fine);
        for (ptrdiff_t offset = 0; offset <= 64 / s->t->size; offset++) {
            void *e = reals(s, NULL, n), *moved = at(s, reals(s, NULL, n + offset), offset);
            memcpy(moved, x, (size_t)(n * s->t->size));
            CHECK(s->k->max(moved, n) == largest, n);
            s->k->exp_sum(moved, n, largest, NULL, NULL, e, &coarse, &fine);
            CHECK(same_bits(coarse, expected_coarse) && same_bits(fine, expected_fine), n);
            CHECK(same_reals(s, e, expected_e, n), n);
        }
        release();
    }
}

void max_ignores_nan(const subject *s) {
    static double x[SHORT];
    for (ptrdiff_t n = 1; n <= SHORT; n++)
        for (ptrdiff_t c = 0; c < n; c++, release()) {
            double largest = -HUGE_VAL;
            fill(s, &KINDS[0], (uint64_t)n, x, n);
            x[c] = NAN;
            for (ptrdiff_t i = 0; i < n; i++) largest = max(x[i], largest);
            CHECK(s->k->max(reals(s, x, n), n) == largest, n);
            for (ptrdiff_t i = 0; i < n; i++) x[i] = i == c ? 5 : NAN;
            CHECK(s->k->max(reals(s, x, n), n) == 5, n);
        }
}

void max_of_nothing_is_minus_infinity(const subject *s) {
    static double nan[SHORT], dead[SHORT];
    for (ptrdiff_t n = 0; n <= SHORT; n++, release()) {
        for (ptrdiff_t i = 0; i < n; i++) nan[i] = NAN, dead[i] = -HUGE_VAL;
        CHECK(s->k->max(reals(s, nan, n), n) == -HUGE_VAL, n);
        CHECK(s->k->max(reals(s, dead, n), n) == -HUGE_VAL, n);
    }
}

// NaN or +inf anywhere, or -inf everywhere (then the shift is -inf).
void sum_of_exp_is_nan_where_softmax_is(const subject *s) {
    static const double BAD[] = {NAN, HUGE_VAL, -HUGE_VAL};
    static double x[SHORT];
    double coarse, fine, inv_temperature[2];
    for (ptrdiff_t n = 1; n <= SHORT; n++)
        for (int b = 0; b < 2 * COUNT(BAD); b++, release()) {
            const double bad = BAD[b / 2];
            fill(s, &KINDS[0], (uint64_t)n, x, n);
            make_inverse(some_temperature((int)n), inv_temperature);
            ptrdiff_t c = n * 5 / 7;
            for (ptrdiff_t i = 0; i < n; i++)
                if (i == c || bad == -HUGE_VAL) x[i] = bad;
            void *logits = reals(s, x, n), *e = reals(s, NULL, n);
            s->k->exp_sum(logits, n, s->k->max(logits, n), b % 2 ? inv_temperature : NULL, NULL, e,
                          &coarse, &fine);
            CHECK(isnan(coarse + fine) && isnan(get(s, e, c)), n);
        }
}
