// The functions on doubles: logarithms, quotients and the sum of sixteen.

#include "harness.h"
#include "tests.h"

void log_total_is_within_one_ulp(const subject *s) {
    int i = 0;
    for (ptrdiff_t n = 1; i < 8000; n = n % 23 + 1) {
        double worst = 0, coarse[24], rest[24], log[24];
        for (ptrdiff_t k = 0; k < n; k++) {
            rest[k] = any_rest(i++);
            coarse[k] = 1 + (i % 3 == 0 && rest[k] < 1e15 ? i % 200 : 0);
        }
        log[n] = -42;
        s->isa->doubles->log_total(coarse, rest, n, log);
        for (ptrdiff_t k = 0; k < n; k++) {
            const double exact_rest = (coarse[k] - 1) + rest[k]; // its rounding is the sum's
            worst = max(worst, ulps(s->t, log[k], log1pl(exact_rest)));
        }
        WITHIN("log of total", worst, 1, n);
        CHECK(log[n] == -42, n);
        s->isa->doubles->log_total(coarse, rest, n, rest); // in place
        CHECK(memcmp(rest, log, (size_t)n * sizeof *log) == 0, n);
    }
}

void log_total_of_one_is_zero_and_of_nan_nan(const subject *s) {
    for (ptrdiff_t n = 1; n <= 20; n++) {
        double one[20], rest[20], log[20];
        int ok = 1;
        for (ptrdiff_t k = 0; k < n; k++) {
            one[k] = 1;
            rest[k] = k % 2 ? NAN : 0;
        }
        s->isa->doubles->log_total(one, rest, n, log);
        for (ptrdiff_t k = 0; k < n; k++) ok &= k % 2 ? isnan(log[k]) : same_bits(log[k], 0);
        CHECK(ok, n);
    }
}

// |weight - (hi + lo) (coarse + fine)| / |weight|, the large products exactly.
static double quotient_error(double weight, double coarse, double fine, double hi, double lo) {
    double p = hi * coarse, q = hi * fine;
    long double left = (long double)(weight - p) - q;
    left -= fma(hi, coarse, -p);
    left -= fma(hi, fine, -q);
    left -= (long double)lo * coarse + (long double)lo * fine;
    return (double)fabsl(left / weight);
}

void divide_has_twice_the_digits_with_fma(const subject *s) {
    double weight[24], coarse[24], fine[24], hi[24], lo[24];
    int i = 0;
    for (ptrdiff_t n = 1; i < 4000; n = n % 23 + 1) {
        double worst = 0;
        for (ptrdiff_t k = 0; k < n; k++) any_total(i++, &weight[k], &coarse[k], &fine[k]);
        hi[n] = lo[n] = -42;
        s->isa->doubles->divide(weight, coarse, fine, n, hi, lo);
        for (ptrdiff_t k = 0; k < n; k++)
            worst = max(worst, quotient_error(weight[k], coarse[k], fine[k], hi[k], lo[k]));
        WITHIN("divide (relative)", worst, s->fused ? 1e-28 : 0x1p-51, n);
        CHECK(hi[n] == -42 && lo[n] == -42, n);
    }
}

void divide_of_zero_is_zero(const subject *s) {
    double weight[20] = {0}, coarse[20], fine[20], hi[20], lo[20];
    for (int k = 0; k < 20; k++) coarse[k] = 1 + k, fine[k] = 1e-9;
    s->isa->doubles->divide(weight, coarse, fine, 20, hi, lo);
    for (int k = 0; k < 20; k++) CHECK(hi[k] == 0 && lo[k] == 0, k);
}

void the_extent_of_weights_is_found_at_any_place(const subject *s) {
    static const double PUT[] = {1e-300, 0, -0.0, 1e300, -1e-300, NAN, INFINITY, -INFINITY};
    double found[3];
    for (ptrdiff_t n = 1; n <= 40; n++)
        for (ptrdiff_t at = 0; at < n; at++, release()) {
            double *x = allocate(n * (ptrdiff_t)sizeof *x);
            for (int put = 0; put < COUNT(PUT); put++) {
                double least = INFINITY, above_0 = INFINITY, most = 0;
                int good = 1;
                for (ptrdiff_t i = 0; i < n; i++) {
                    x[i] = i == at ? PUT[put] : 1 + (double)i / 64;
                    good &= x[i] >= 0 && x[i] < INFINITY;
                    least = fmin(x[i], least);
                    above_0 = x[i] == 0 ? above_0 : fmin(x[i], above_0);
                    most = fmax(x[i], most);
                }
                CHECK(s->isa->doubles->extent(x, n, found) == good, n);
                CHECK(!good || (found[0] == least && found[1] == above_0 && found[2] == most), n);
            }
        }
}

void a_number_outside_of_a_range_is_found_at_any_place(const subject *s) {
    static const double GOOD[] = {0.25, -0.25, 1, 3.999, -3.999, 0, -0.0};
    static const double BAD[] = {0.249, -0.249, 4, -4, 1e300, 5e-324, INFINITY, -INFINITY, NAN};
    for (ptrdiff_t n = 0; n <= 40; n++) {
        double x[41];
        for (ptrdiff_t k = 0; k < n; k++) x[k] = GOOD[(k + n) % 7];
        x[n] = NAN;
        CHECK(!s->isa->doubles->outside(x, n, 0.25, 4), n);
        for (ptrdiff_t k = 0; k < n; k++) {
            const double good = x[k];
            x[k] = BAD[(k + n) % 9];
            CHECK(s->isa->doubles->outside(x, n, 0.25, 4), n);
            x[k] = good;
        }
    }
}

// Powers of two of both signs, many orders of magnitude apart: their sum is known exactly.
void sixteen_numbers_add_up_to_twice_the_digits(const subject *s) {
    for (int apart = 0; apart <= 90; apart++) {
        double numbers[TILE], tree[TILE], sums[2];
        long double sum = 0;
        for (int k = 0; k < TILE; k++) {
            numbers[k] = ldexp(k % 3 == 2 ? -1 : 1, (7 * k + apart) % 16 * apart / 16);
            tree[k] = numbers[k];
        }
        for (int half = TILE / 2; half > 0; half /= 2)
            for (int k = 0; k < half; k++) tree[k] += tree[k + half];
        s->isa->doubles->add_up(numbers, 1, sums);
        for (int k = 0; k < TILE; k++) sum += numbers[k] - (k == 0 ? (long double)sums[0] : 0);
        CHECK(sums[0] == tree[0], apart);
        // 91 bits apart at most: long double has 64, so compare where that is enough.
        if (apart <= 56) CHECK((long double)sums[1] == sum, apart);
    }
    double odd[2 * TILE] = {1, INFINITY}, both[6];
    odd[TILE] = odd[2 * TILE - 1] = 1;
    s->isa->doubles->add_up(odd, 2, both);
    CHECK(both[0] == INFINITY && both[4] == 2 && both[5] == 0, 0);
    odd[5] = NAN;
    s->isa->doubles->add_up(odd, 2, both);
    CHECK(isnan(both[0]) && both[4] == 2, 0);
}

void labels_that_are_ignored_or_out_of_range_become_zero(const subject *s) {
    static const ptrdiff_t LABELS[] = {0, 6, 3, -1, 7, -100, PTRDIFF_MIN, PTRDIFF_MAX, 5};
    ptrdiff_t y[41];
    char ignored[41];
    for (ptrdiff_t n = 0; n <= 40; n++)
        for (int i = 0; i < 2 * COUNT(LABELS) + 1; i++) { // the last one: none is ignored or bad
            const int ignores = i < COUNT(LABELS), plain = i == 2 * COUNT(LABELS);
            const ptrdiff_t ignore = LABELS[i % COUNT(LABELS)];
            int expected = 0, ok = 1;
            ptrdiff_t before[41];
            for (ptrdiff_t r = 0; r <= n; r++) {
                before[r] = y[r] = LABELS[plain ? r % 3 : (r * 5 + n) % COUNT(LABELS)];
                ignored[r] = 42;
            }
            const int bad = s->isa->doubles->check_labels(y, n, 7, ignores, ignore, ignored);
            for (ptrdiff_t r = 0; r < n; r++) {
                const int outside = before[r] < 0 || before[r] >= 7;
                const int is_ignored = ignores && before[r] == ignore;
                expected |= outside && !is_ignored;
                ok &= ignored[r] == is_ignored && y[r] == (outside || is_ignored ? 0 : before[r]);
            }
            CHECK(ok && !bad == !expected && ignored[n] == 42 && y[n] == before[n], n);
        }
}

// Store an entry of `item` bytes.
static void put_entry(void *place, ptrdiff_t item, uint64_t entry) {
    const uint8_t a = (uint8_t)entry;
    const uint16_t b = (uint16_t)entry;
    const uint32_t c = (uint32_t)entry;
    if (item == 1) memcpy(place, &a, 1);
    if (item == 2) memcpy(place, &b, 2);
    if (item == 4) memcpy(place, &c, 4);
    if (item == 8) memcpy(place, &entry, 8);
}

// Rows of n entries, in memory with `gap` further entries behind each row and each entry.
static void one_hot_rows(const subject *s, ptrdiff_t item, ptrdiff_t n_rows, ptrdiff_t n,
                         ptrdiff_t row_gap, ptrdiff_t gap) {
    static unsigned char memory[8 * 70 * 3 * 140];
    const uint64_t one = item == 4 ? 0x3f800000 : 1, sign = (uint64_t)1 << (8 * item - 1);
    const cysoftmax_entries e = {item, item * (1 + gap), item * ((1 + gap) * n + row_gap), one,
                                 sign - 1};
    ptrdiff_t y[71], want[71];
    int ok = 1;
    memset(memory, 0xff, sizeof memory);
    for (ptrdiff_t r = 0; r < n_rows; r++) {
        want[r] = r % 7 == 3 ? -1 : (5 * r + n) % n;
        for (ptrdiff_t c = 0; c < n; c++)
            put_entry(memory + r * e.row_step + c * e.step, item,
                      c == want[r]  ? one
                      : (r + c) % 5 ? 0
                                    : sign);
    }
    y[n_rows] = 42;
    CHECK(s->isa->doubles->one_hot(memory, &e, n_rows, n, y), n);
    for (ptrdiff_t r = 0; r < n_rows; r++) ok &= y[r] == want[r];
    CHECK(ok && y[n_rows] == 42, n);
    for (ptrdiff_t r = 0; r < n_rows; r++) { // another entry, or one that is not 1
        const ptrdiff_t c = want[r] < 0 ? 0 : want[r], other = (c + n / 2) % n;
        unsigned char *row = memory + r * e.row_step;
        put_entry(row + c * e.step, item, one + 1);
        CHECK(!s->isa->doubles->one_hot(memory, &e, n_rows, n, y), n);
        put_entry(row + c * e.step, item, one);
        put_entry(row + other * e.step, item, one);
        CHECK(!s->isa->doubles->one_hot(memory, &e, n_rows, n, y) == (other != c), n);
        put_entry(row + other * e.step, item, other == c && want[r] >= 0 ? one : 0);
        put_entry(row + c * e.step, item, want[r] < 0 ? 0 : one);
    }
}

void labels_of_one_hot_rows_are_found(const subject *s) {
    for (ptrdiff_t item = 1; item <= 8; item *= 2)
        for (ptrdiff_t n = 1; n <= 140; n = n < 6 ? n + 1 : n * 2 + n % 3)
            for (ptrdiff_t n_rows = 0; n_rows <= 70; n_rows += 14)
                for (int apart = 0; apart < 3; apart++)
                    one_hot_rows(s, item, n_rows, n, apart > 0, apart > 1);
    const unsigned char truth[] = {0, 2, 255, 0};
    const cysoftmax_entries bools = {1, 1, 2, 0, 0xff};
    ptrdiff_t y[2];
    CHECK(s->isa->doubles->one_hot(truth, &bools, 2, 2, y) && y[0] == 1 && y[1] == 0, 0);
}

void what_is_marked_is_cleared_even_if_it_is_nan(const subject *s) {
    double values[41];
    char which[41];
    for (ptrdiff_t n = 0; n <= 40; n++) {
        int ok = 1;
        for (ptrdiff_t r = 0; r <= n; r++) {
            values[r] = r % 5 == 0 ? NAN : r % 5 == 1 ? INFINITY : -(double)r;
            which[r] = (char)((r + n) % 3 ? 0 : 1 + r % 2);
        }
        s->isa->doubles->clear(which, n, values);
        for (ptrdiff_t r = 0; r <= n; r++) {
            const int cleared = r < n && which[r];
            ok &= cleared      ? same_bits(values[r], 0)
                  : r % 5 == 0 ? isnan(values[r])
                               : values[r] == (r % 5 == 1 ? INFINITY : -(double)r);
        }
        CHECK(ok, n);
    }
}

void formulas_of_rows_are_those_written_down(const subject *s) {
    enum { MOST = 40 };
    double v[7][MOST], b[MOST + 1], plain[MOST], loss[MOST + 1], from[MOST + 1];
    for (ptrdiff_t n = 1; n <= MOST; n++) {
        const cysoftmax_masses m = {v[0], v[1], v[2], 0.9};
        uint64_t seed = (uint64_t)n;
        int ok = 1, negative = 0;
        for (int k = 0; k < 7; k++)
            for (ptrdiff_t r = 0; r < n; r++)
                v[k][r] = k == 1 && n % 2 ? fabs(noise(&seed)) : noise(&seed);
        for (ptrdiff_t r = 0; r < n && n % 2; r++) v[6][r] = r % 4 ? fabs(v[6][r]) : -v[1][r];
        b[n] = loss[n] = from[n] = -42;
        s->isa->doubles->numerators(&m, v[3], n, b);
        s->isa->doubles->numerators(&m, NULL, n, plain);
        s->isa->doubles->losses(&m, v[3], v[4], v[5], n, loss);
        const int any = s->isa->doubles->rest_thresholds(v[1], v[6], n, from);
        for (ptrdiff_t r = 0; r < n; r++) {
            const double a = 0.9 * v[1][r] + v[2][r], half = (v[1][r] + v[6][r]) / 2;
            negative |= half < 0;
            ok &= same_bits(plain[r], v[0][r] * a) && same_bits(b[r], v[0][r] * a * v[3][r]) &&
                  same_bits(loss[r], v[0][r] * (a * v[3][r] - v[4][r] - v[5][r])) &&
                  from[r] == max(max(half, v[1][r] / 2), 0x1p-1074);
        }
        CHECK(ok && !any == !negative, n);
        CHECK(b[n] == -42 && loss[n] == -42 && from[n] == -42, n);
    }
}

// Of each row, a has two classes, 0 and -k / 8, and b one, 1 - k: the sums of the three exps.
void merged_sums_are_those_of_all_classes(const subject *s) {
    const double one[2] = {1, 0};
    for (ptrdiff_t n = 1; n <= 40; n++) {
        double a[4 * 40] = {0}, b[4 * 40] = {0}, out[4 * 40 + 1], worst = 0;
        for (ptrdiff_t k = 0; k < n; k++) {
            a[n + k] = b[n + k] = 1;
            a[2 * n + k] = exp((double)-k / 8);
            b[k] = (double)(1 - k);
        }
        out[4 * n] = -42;
        s->isa->doubles->merge(a, b, n, one, out);
        for (ptrdiff_t k = 0; k < n; k++) {
            const long double f = expl((long double)-fabs(b[k])), rest = a[2 * n + k];
            const long double exact = k == 0 ? f * (1 + rest) : rest + f;
            const long double got = (out[n + k] - 1) + (long double)out[2 * n + k];
            worst = max(worst, (double)fabsl((got - exact) / exact));
            CHECK(out[k] == (k == 0 ? 1 : 0), n);
        }
        WITHIN("merge (relative)", worst, 0x1p-53, n);
        CHECK(out[4 * n] == -42, n);
    }
}
