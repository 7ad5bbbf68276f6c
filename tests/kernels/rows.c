// What is made of the exps and logits of one row, class by class.

#include "harness.h"
#include "tests.h"

static double most_ulps(const subject *s) { return s->fused ? 2 : 4; }

void scale_makes_probabilities(const subject *s, const row *r) {
    void *out = reals(s, NULL, r->n);
    double hi, lo, worst = 0;
    divide(s, 1, r, &hi, &lo);
    s->k->scale(r->e, r->n, hi, lo, NULL, 0, NULL, 0, out);
    for (ptrdiff_t i = 0; i < r->n; i++)
        worst = max(worst, ulps(s->t, get(s, out, i), r->exact[i] / r->sum));
    WITHIN_ROW("probability", worst, most_ulps(s));
}

// In ulp of the larger term: the difference of the two may be small.
void scale_subtracts_the_weighted_target(const subject *s, const row *r) {
    static double a[MAX_N];
    void *out = reals(s, NULL, r->n);
    double hi, lo, worst = 0;
    const double weight = 0.328125;
    fill_weights(r->x, r->seed, a, r->n);
    divide(s, weight, r, &hi, &lo);
    s->k->scale(r->e, r->n, hi, lo, NULL, 0, reals(s, a, r->n), weight, out);
    for (ptrdiff_t i = 0; i < r->n; i++) {
        long double p = r->exact[i] / r->sum * weight, target = a[i] * weight;
        long double larger = p > target ? p : target;
        worst = max(worst, ulps(s->t, larger + (get(s, out, i) - (p - target)), larger));
    }
    WITHIN_ROW("gradient", worst, most_ulps(s));
}

// In ulp of the largest of the three terms.
void scale_subtracts_the_base(const subject *s, const row *r) {
    static double a[MAX_N], base[MAX_N];
    const double weight = 0.328125, base_weight = 0.171875;
    void *out = reals(s, NULL, r->n);
    double hi, lo, worst = 0;
    fill_weights(r->x, r->seed, a, r->n);
    divide(s, weight, r, &hi, &lo);
    for (int given = 0; given < 4; given++) {
        const int with_base = given & 1, with_target = given & 2;
        for (ptrdiff_t i = 0; i < r->n; i++) base[i] = with_base ? a[r->n - 1 - i] : 1;
        s->k->scale(r->e, r->n, hi, lo, with_base ? reals(s, base, r->n) : NULL, base_weight,
                    with_target ? reals(s, a, r->n) : NULL, weight, out);
        for (ptrdiff_t i = 0; i < r->n; i++) {
            double target = with_target ? a[i] * weight : 0, smooth = base[i] * base_weight;
            long double p = r->exact[i] / r->sum * weight, larger = max(target, smooth);
            if (p > larger) larger = p;
            long double error = get(s, out, i) - ((p - target) - smooth);
            worst = max(worst, ulps(s->t, larger + error, larger));
        }
    }
    WITHIN_ROW("gradient with base", worst, most_ulps(s) + 0.5);
}

void a_missing_base_is_all_ones_and_one_without_weight_is_nothing(const subject *s, const row *r) {
    static double ones[MAX_N], nothing[MAX_N];
    void *out = reals(s, NULL, r->n), *expected = reals(s, NULL, r->n);
    for (ptrdiff_t i = 0; i < r->n; i++) ones[i] = 1, nothing[i] = NAN;
    s->k->scale(r->e, r->n, 0.3, 1e-9, NULL, 0.1, NULL, 0, expected);
    s->k->scale(r->e, r->n, 0.3, 1e-9, reals(s, ones, r->n), 0.1, NULL, 0, out);
    CHECK_ROW(same_reals(s, out, expected, r->n));
    s->k->scale(r->e, r->n, 0.3, 1e-9, NULL, 0, NULL, 0, expected);
    s->k->scale(r->e, r->n, 0.3, 1e-9, reals(s, nothing, r->n), 0, NULL, 0, out);
    CHECK_ROW(same_reals(s, out, expected, r->n));
}

void subtract_is_scale_with_a_for_one_class(const subject *s, const row *r) {
    static const double TARGETS[] = {1, 0.7, -0.3};
    const double weight = 0.1, base_weight = 0.05;
    void *expected = reals(s, NULL, r->n), *a = reals(s, NULL, r->n);
    for (int k = 0; k < COUNT(TARGETS); k++) {
        const ptrdiff_t c = k * (r->n - 1) / (COUNT(TARGETS) - 1);
        void *out = guarded(s, r->n, 0);
        s->k->scale(r->e, r->n, 0.3, 1e-9, NULL, base_weight, NULL, 0, out);
        s->k->subtract(at(s, out, c), TARGETS[k], weight);
        put(s, a, c, TARGETS[k]);
        s->k->scale(r->e, r->n, 0.3, 1e-9, NULL, base_weight, a, weight, expected);
        put(s, a, c, 0);
        CHECK_ROW(same_reals(s, out, expected, r->n) && canaries_live(s, out, r->n));
    }
}

// Relative, also of 1 - p where p is all but 1. Rows of few classes can reach 5.4.
void variance_is_within_its_bound(const subject *s, const row *r) {
    const double weight = 0.328125;
    void *out = reals(s, NULL, r->n);
    double hi, lo, worst = 0;
    divide(s, 1, r, &hi, &lo);
    s->k->variance(r->e, r->n, hi, lo, r->coarse, r->fine, weight, out);
    for (ptrdiff_t i = 0; i < r->n; i++) {
        const long double e = r->exact[i];
        const long double rest = e > r->sum / 2 ? rest_of(r, i) : r->sum - e;
        const long double exact = e / r->sum * (rest / r->sum) * weight;
        worst = max(worst, ulps(s->t, get(s, out, i), exact));
    }
    WITHIN_ROW("variance", worst, s->fused ? 6 : 7);
}

void log_is_within_its_bound(const subject *s, const row *r) {
    void *out = reals(s, NULL, r->n);
    const double total = log_total(s, r->coarse, r->fine);
    double worst = 0;
    s->k->log(r->logits, r->n, r->shift, r->inv_temperature, total, out);
    for (ptrdiff_t i = 0; i < r->n; i++) {
        long double d = ((long double)r->x[i] - r->shift) / r->temperature;
        worst = max(worst, ulps(s->t, get(s, out, i), d - total));
    }
    WITHIN_ROW("log", worst, 1.01);
}

// x - shift overflows, or its product with the inverse temperature does.
void log_overflows_to_minus_infinity(const subject *s) {
    static double x[SHORT];
    double inv_temperature[2];
    make_inverse(1e-3, inv_temperature);
    for (ptrdiff_t n = 1; n <= SHORT; n++, release())
        for (int tempered = 0; tempered < 2; tempered++) {
            const double shift = tempered ? 0 : huge(s);
            void *out = reals(s, NULL, n);
            int ok = 1;
            for (ptrdiff_t i = 0; i < n; i++) x[i] = i % 2 ? -HUGE_VAL : -huge(s);
            s->k->log(reals(s, x, n), n, shift, tempered ? inv_temperature : NULL, 0.5, out);
            for (ptrdiff_t i = 0; i < n; i++) ok &= get(s, out, i) == -HUGE_VAL;
            CHECK(ok, n);
        }
}

void difference_is_exact(const subject *s, const row *r) {
    double hi, lo;
    int ok = 1;
    for (ptrdiff_t c = 0; c < r->n; c++) {
        difference(s, r->logits, c, r->shift, &hi, &lo);
        ok &= (long double)hi + lo == (long double)r->x[c] - r->shift;
    }
    CHECK_ROW(ok);
}

// x - shift overflows, or the product does: then the term is computed in double.
void terms_survive_overflow(const subject *s) {
    const double big = huge(s), x[] = {-big, -HUGE_VAL, -big, -HUGE_VAL, -big, -big};
    const double shift[] = {big, big, big, 3, 0, big / 2}, a[] = {1, 1, 0.25, 0.5, 3, 1.5};
    enum { N = COUNT(x) };
    double hi[N], lo[N];
    s->k->terms(a, reals(s, x, N), shift, N, hi, lo);
    for (int i = 0; i < N; i++) CHECK(hi[i] == a[i] * (x[i] - shift[i]) && lo[i] == 0, i);
    release();
}

// ---------------------------------------------------------------- minus_rest

// Where the rest is smaller than a normal number, exps in it may have been rounded to 0.
void minus_rest_leaves_minus_the_rest(const subject *s, const row *r) {
    const ptrdiff_t places[] = {0, r->n / 2, r->n - 1, (ptrdiff_t)(r->seed * 7 % (uint64_t)r->n)};
    const long double normal = ldexpl(1, s->t->min_exponent);
    void *out = reals(s, NULL, r->n);
    double hi, lo, worst = 0, worst_scaled = 0;
    divide(s, 1, r, &hi, &lo);
    for (int k = 0; k < COUNT(places); k++) {
        const ptrdiff_t c = places[k];
        const long double rest = rest_of(r, c);
        void *e = copy(s, r->e, r->n);
        minus_rest(s, e, c, 1, r->coarse, r->fine);
        if (rest > normal)
            worst = max(worst, ulps(s->t, get(s, e, c), -ldexpl(rest, s->t->exp_scale)));
        s->k->scale(e, r->n, hi, lo, NULL, 0, NULL, 0, out);
        worst_scaled = max(worst_scaled, ulps(s->t, get(s, out, c), -rest / r->sum));
        put(s, e, c, get(s, r->e, c));
        CHECK_ROW(same_reals(s, e, r->e, r->n));
    }
    WITHIN_ROW("minus rest e", worst, 4);
    WITHIN_ROW("minus rest probability", worst_scaled, 5);
}

void minus_rest_takes_steps(const subject *s, const row *r) {
    const ptrdiff_t n = r->n < 64 ? r->n : 64, c = n / 3;
    void *e = copy(s, r->e, r->n), *strided = reals(s, NULL, n * TILE);
    for (ptrdiff_t i = 0; i < n; i++) put(s, strided, i * TILE, get(s, e, i));
    void *expected = copy(s, strided, n * TILE);
    minus_rest(s, e, c, 1, r->coarse, r->fine);
    put(s, expected, c * TILE, get(s, e, c));
    minus_rest(s, strided, c, TILE, r->coarse, r->fine);
    CHECK_ROW(same_reals(s, strided, expected, n * TILE));
}

// How the mass of a distribution may lie: `major` on one class (on two, if `twice`), `minor` on
// each of the others; and `surplus`, what smoothing and z-loss add to the factor b of
// docs/derivation.md.
static const struct {
    double major, minor;
    int twice;
    double surplus;
} MASSES[] = {{1, 0, 0, 0},      {0.5, 0, 1, 0},    {0.75, 0.125, 0, 0}, {0.25, 0.03125, 1, 0},
              {2, 0.5, 0, 0},    {1, 0, 0, 0.0625}, {1, 0, 0, 1},        {1, 0, 0, 1.0625},
              {0.5, 0, 1, -0.5}, {1, 0.25, 0, -0.3}};

void minus_rest_major_treats_what_has_half_of_the_mass(const subject *s, const row *r) {
    for (int m = 0; m < COUNT(MASSES); m++) {
        void *a = reals(s, NULL, r->n), *e = copy(s, r->e, r->n);
        const double surplus = MASSES[m].surplus;
        double mass = 0;
        for (ptrdiff_t i = 0; i < r->n; i++) {
            int major = i == r->n / 2 || (MASSES[m].twice && i == r->n / 3);
            put(s, a, i, major ? MASSES[m].major : MASSES[m].minor);
            mass += get(s, a, i);
        }
        const double rest_from = mass + surplus > 0 ? (mass + surplus) / 2 : HUGE_VAL;
        void *expected_a = copy(s, a, r->n), *expected_e = copy(s, e, r->n);
        for (ptrdiff_t i = 0; i < r->n; i++) {
            if (get(s, a, i) < rest_from) continue;
            minus_rest(s, expected_e, i, 1, r->coarse, r->fine);
            put(s, expected_a, i, (get(s, a, i) - mass) - surplus);
        }
        s->k->minus_rest_major(e, a, r->n, mass, rest_from, surplus, r->coarse, r->fine);
        CHECK_ROW(same_reals(s, e, expected_e, r->n) && same_reals(s, a, expected_a, r->n));
    }
}

// ---------------------------------------------------------------- index_of, select, multiply

// The value stands once in the row; then there and everywhere after it. Other classes are NaN.
static int every_place_is_found(const subject *s, ptrdiff_t n, double value) {
    void *x = reals(s, NULL, n);
    uint64_t seed = (uint64_t)n;
    for (ptrdiff_t i = 0; i < n; i++) put(s, x, i, i % 7 == 3 ? NAN : 2 + noise(&seed));
    int ok = s->k->index_of(x, n, value) == n;
    for (ptrdiff_t c = 0; c < n; c++) {
        const double other = get(s, x, c);
        put(s, x, c, value);
        ok &= s->k->index_of(x, n, value) == c;
        put(s, x, c, other);
    }
    for (ptrdiff_t c = n - 1; c >= 0; c--) {
        put(s, x, c, value);
        ok &= s->k->index_of(x, n, value) == c;
    }
    return ok;
}

void index_of_returns_the_first_place_or_n(const subject *s) {
    static const double VALUES[] = {0.75, -HUGE_VAL, HUGE_VAL, 0};
    for (int i = 0; i < LENGTHS; i++, release())
        for (int v = 0; v < COUNT(VALUES); v++)
            CHECK(every_place_is_found(s, length(i), VALUES[v]), length(i));
    CHECK(s->k->index_of(reals(s, NULL, 0), 0, 0) == 0, 0);
    release();
}

void index_of_takes_one_zero_for_the_other_and_never_finds_nan(const subject *s) {
    static double x[MAX_N];
    for (int i = 0; i < LENGTHS; i++, release()) {
        const ptrdiff_t n = length(i);
        for (ptrdiff_t c = 0; c < n; c++) x[c] = c == n - 1 ? -0.0 : NAN;
        const void *row = reals(s, x, n);
        CHECK(s->k->index_of(row, n, 0) == n - 1, n);
        CHECK(s->k->index_of(row, n, NAN) == n, n);
    }
}

// NaN is kept where the byte is true, and leaves no trace where it is not.
void select_takes_x_where_the_byte_is_not_zero(const subject *s) {
    static const double FILLS[] = {-HUGE_VAL, 0, 1.5};
    for (ptrdiff_t n = 0; n <= SHORT; n++)
        for (ptrdiff_t offset = 0; offset <= TILE; offset++, release()) {
            const double fill = FILLS[(n + offset) % COUNT(FILLS)];
            const unsigned char *where = mask_bytes(offset, n);
            void *x = reals(s, NULL, n), *expected = reals(s, NULL, n);
            uint64_t seed = (uint64_t)n;
            for (ptrdiff_t i = 0; i < n; i++) {
                put(s, x, i, where[i] == 0 || i % 5 == 2 ? NAN : noise(&seed));
                put(s, expected, i, where[i] ? get(s, x, i) : fill);
            }
            void *out = guarded(s, n, offset);
            s->k->select(where, x, n, fill, out);
            CHECK(same_reals(s, out, expected, n) && canaries_live(s, out, n), n);
        }
}

void multiply_is_rounded_once(const subject *s, const row *r) {
    static double a[MAX_N];
    void *out = reals(s, NULL, r->n), *expected = reals(s, NULL, r->n);
    fill_signed(s, r->seed, a, r->n);
    for (ptrdiff_t i = 0; i < r->n; i++) put(s, expected, i, a[i] * r->x[i]);
    s->k->multiply(reals(s, a, r->n), r->logits, r->n, out);
    CHECK_ROW(same_reals(s, out, expected, r->n));
}
