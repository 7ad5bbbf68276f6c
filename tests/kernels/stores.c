// Outputs of every length at every offset from a cache line: a row is stored whole, nothing beside
// it is, and it may be stored over its input.

#include "harness.h"
#include "tests.h"

// Three rows side by side, whose ends share cache lines, and one after a gap; scaled or copied.
static void rows_are_streamed_whole_and_alone(const subject *s, ptrdiff_t n, ptrdiff_t offset,
                                              int scaled) {
    enum { N_ROWS = 4 };
    cysoftmax_carry carry = {{0}, NULL, 0};
    void *rows = reals(s, NULL, N_ROWS * n), *expected = reals(s, NULL, N_ROWS * n + 1);
    void *out = guarded(s, N_ROWS * n + 1, offset);
    uint64_t seed = (uint64_t)(n + offset);
    for (ptrdiff_t i = 0; i < N_ROWS * n; i++)
        put(s, rows, i,
            !scaled && i % 7 == 2   ? NAN
            : !scaled && i % 7 == 3 ? -INFINITY
                                    : 1 + noise(&seed));
    memcpy(expected, out, (size_t)((N_ROWS * n + 1) * s->t->size));
    for (ptrdiff_t r = 0; r < N_ROWS; r++) {
        const void *row = at(s, rows, r * n);
        const ptrdiff_t place = r * n + (r == N_ROWS - 1);
        if (scaled) {
            s->k->scale(row, n, 0.3, 1e-9, NULL, 0, NULL, 0, at(s, expected, place));
            s->k->stream(row, n, 0.3, 1e-9, at(s, out, place), &carry);
        } else {
            memcpy(at(s, expected, place), row, (size_t)(n * s->t->size));
            s->k->stream_copy(row, n, at(s, out, place), &carry);
        }
    }
    s->k->store_carry(&carry);
    CHECK(same_reals(s, out, expected, N_ROWS * n + 1), n);
    CHECK(canaries_live(s, out, N_ROWS * n + 1), n);
}

void rows_of_every_length_are_streamed_whole_and_alone(const subject *s) {
    for (ptrdiff_t n = 1; n <= SHORT; n++)
        for (ptrdiff_t offset = 0; offset <= TILE; offset++, release())
            for (int scaled = 0; scaled < 2; scaled++)
                rows_are_streamed_whole_and_alone(s, n, offset, scaled);
}

void fill_stores_whole_and_alone(const subject *s) {
    for (ptrdiff_t n = 1; n <= SHORT; n++)
        for (ptrdiff_t offset = 0; offset <= TILE; offset++)
            for (int stream = 0; stream < 2; stream++) {
                void *out = guarded(s, n, offset);
                int same = 1;
                s->k->fill(-1.5, n, out, stream);
                for (ptrdiff_t i = 0; i < n; i++) same &= get(s, out, i) == -1.5;
                CHECK(same && canaries_live(s, out, n), n);
            }
}

static void store_scaled(const subject *s, const void *a, const void *b, ptrdiff_t n, void *out) {
    (void)b;
    s->k->scale(a, n, 0.3, 1e-9, NULL, 0, NULL, 0, out);
}
static void store_gradient(const subject *s, const void *a, const void *b, ptrdiff_t n, void *out) {
    s->k->scale(a, n, 0.3, 1e-9, NULL, 0, b, 0.7, out);
}
static void store_less_base(const subject *s, const void *a, const void *b, ptrdiff_t n,
                            void *out) {
    s->k->scale(a, n, 0.3, 1e-9, b, 0.1, NULL, 0, out);
}
static void store_less_ones(const subject *s, const void *a, const void *b, ptrdiff_t n,
                            void *out) {
    s->k->scale(a, n, 0.3, 1e-9, NULL, 0.1, b, 0.7, out);
}
static void store_less_both(const subject *s, const void *a, const void *b, ptrdiff_t n,
                            void *out) {
    s->k->scale(a, n, 0.3, 1e-9, b, 0.1, b, 0.7, out);
}
static void store_variance(const subject *s, const void *a, const void *b, ptrdiff_t n, void *out) {
    (void)b;
    s->k->variance(a, n, 0.3, 1e-9, 3.25, 1e-6, 0.7, out);
}
static void store_log(const subject *s, const void *a, const void *b, ptrdiff_t n, void *out) {
    (void)b;
    s->k->log(a, n, 1.5, NULL, 0.7, out);
}
static void store_tempered_log(const subject *s, const void *a, const void *b, ptrdiff_t n,
                               void *out) {
    double inv_temperature[2];
    (void)b;
    make_inverse(0.3, inv_temperature);
    s->k->log(a, n, 1.5, inv_temperature, 0.7, out);
}
static void store_vjp(const subject *s, const void *a, const void *b, ptrdiff_t n, void *out) {
    s->k->vjp(a, b, n, 0.3, 1e-9, out);
}
static void store_select(const subject *s, const void *a, const void *b, ptrdiff_t n, void *out) {
    (void)b;
    s->k->select(mask_bytes(3, n), a, n, -1.5, out);
}
static void store_multiply(const subject *s, const void *a, const void *b, ptrdiff_t n, void *out) {
    s->k->multiply(a, b, n, out);
}

typedef void storing(const subject *s, const void *a, const void *b, ptrdiff_t n, void *out);
static storing *const STORES[] = {store_scaled,    store_gradient,     store_less_base,
                                  store_less_ones, store_less_both,    store_variance,
                                  store_log,       store_tempered_log, store_vjp,
                                  store_select,    store_multiply};

// Outputs at every offset from a cache line; the inputs are not aligned.
static void every_alignment_gets_the_same_bits_and_no_others(const subject *s, storing *store,
                                                             const void *a, const void *b,
                                                             ptrdiff_t n) {
    void *expected = reals(s, NULL, n);
    int same = 1, alive = 1;
    store(s, a, b, n, expected);
    for (ptrdiff_t offset = 0; offset <= 64 / s->t->size; offset++) {
        void *out = guarded(s, n, offset);
        store(s, a, b, n, out);
        same &= same_reals(s, out, expected, n);
        alive &= canaries_live(s, out, n);
    }
    CHECK(same, n);
    CHECK(alive, n);
}

static void an_output_may_replace_an_input(const subject *s, storing *store, const void *a,
                                           const void *b, ptrdiff_t n) {
    void *expected = reals(s, NULL, n), *in_a = copy(s, a, n), *in_b = copy(s, b, n);
    store(s, a, b, n, expected);
    store(s, in_a, b, n, in_a);
    CHECK(same_reals(s, in_a, expected, n), n);
    store(s, a, in_b, n, in_b);
    CHECK(same_reals(s, in_b, expected, n), n);
}

void outputs_are_stored_whole_and_alone(const subject *s) {
    static double a[SHORT + 1], b[SHORT + 1];
    for (ptrdiff_t n = 1; n <= SHORT; n++)
        for (int i = 0; i < COUNT(STORES); i++, release()) {
            fill(s, &KINDS[0], (uint64_t)n, a, n + 1);
            fill(s, &KINDS[0], (uint64_t)n + 100, b, n + 1);
            void *as = at(s, reals(s, a, n + 1), 1), *bs = at(s, reals(s, b, n + 1), 1);
            every_alignment_gets_the_same_bits_and_no_others(s, STORES[i], as, bs, n);
            an_output_may_replace_an_input(s, STORES[i], as, bs, n);
        }
}
