// The hash of everything that the kernels compute from fixed inputs. Inputs come from an integer
// generator and are made without a rounding that could depend on the machine; tests/bits.txt has
// the hash of all instruction sets with FMA.

#include "harness.h"
#include "tests.h"

// FNV-1a, 64 bits, over the bytes of each number as a double, lowest first.
static void hash(uint64_t *h, double value) {
    uint64_t bits;
    value += 0.0;                  // which zero a maximum is does not matter
    if (isnan(value)) value = NAN; // nor which NaN it is
    memcpy(&bits, &value, sizeof bits);
    for (int i = 0; i < 8; i++) *h = (*h ^ (bits >> 8 * i & 0xff)) * 0x100000001b3u;
}
static void hash_reals(const subject *s, uint64_t *h, const void *p, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++) hash(h, get(s, p, i));
}
static void hash_pair(uint64_t *h, const double *hi, const double *lo, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++) {
        hash(h, hi[i]);
        hash(h, lo[i]);
    }
}

static void hash_row(const subject *s, uint64_t *h, const kind *kind, ptrdiff_t n) {
    static double x[MAX_N];
    void *e = reals(s, NULL, n), *out = reals(s, NULL, n);
    double coarse, fine, log, hi, lo, weight = 1;
    fill(s, kind, (uint64_t)n, x, n);
    const void *logits = reals(s, x, n);
    const double shift = s->k->max(logits, n);
    hash(h, shift);
    s->k->exp_sum(logits, n, shift, NULL, NULL, e, &coarse, &fine);
    hash_pair(h, &coarse, &fine, 1);
    hash_reals(s, h, e, n);
    s->isa->doubles->divide(&weight, &coarse, &fine, 1, &hi, &lo);
    hash_pair(h, &hi, &lo, 1);
    s->k->scale(e, n, hi, lo, NULL, 0, NULL, 0, out);
    hash_reals(s, h, out, n);
    s->k->log(logits, n, shift, NULL, log = log_total(s, coarse, fine), out);
    hash(h, log);
    hash_reals(s, h, out, n);
    minus_rest(s, e, n / 2, 1, coarse, fine);
    hash_reals(s, h, e, n);
}

static void hash_tempered_row(const subject *s, uint64_t *h, const kind *kind, ptrdiff_t n) {
    static double x[MAX_N];
    void *e = reals(s, NULL, n), *out = reals(s, NULL, n);
    double coarse, fine, hi, lo, weight = 1, inv_temperature[2];
    fill(s, kind, (uint64_t)n, x, n);
    make_inverse(some_temperature((int)n), inv_temperature);
    const void *logits = reals(s, x, n);
    const double shift = s->k->max(logits, n);
    s->k->exp_sum(logits, n, shift, inv_temperature, NULL, e, &coarse, &fine);
    hash_pair(h, &coarse, &fine, 1);
    hash_reals(s, h, e, n);
    s->isa->doubles->divide(&weight, &coarse, &fine, 1, &hi, &lo);
    s->k->variance(e, n, hi, lo, coarse, fine, 0.7, out);
    hash_reals(s, h, out, n);
    s->k->log(logits, n, shift, inv_temperature, log_total(s, coarse, fine), out);
    hash_reals(s, h, out, n);
    s->k->diff_sum(NULL, logits, n, shift, &hi, &lo);
    hash_pair(h, &hi, &lo, 1);
}

static void hash_target(const subject *s, uint64_t *h, const kind *kind, ptrdiff_t n) {
    static double x[MAX_N], a[MAX_N], v[MAX_N];
    const double four = 4;
    double mass, hi, lo;
    fill(s, kind, (uint64_t)n + 1, x, n);
    fill_weights(x, (uint64_t)n + 2, a, n);
    fill_signed(s, (uint64_t)n + 3, v, n);
    void *e = reals(s, v, n), *target = reals(s, a, n), *out = reals(s, NULL, n);
    s->k->sum(target, n, &mass, &lo);
    hash_pair(h, &mass, &lo, 1);
    s->k->dot(target, reals(s, x, n), n, &four, &hi, &lo);
    hash_pair(h, &hi, &lo, 1);
    difference(s, target, n - 1, 0.3, &hi, &lo);
    hash_pair(h, &hi, &lo, 1);
    s->k->dot(e, target, n, NULL, &hi, &lo);
    hash_pair(h, &hi, &lo, 1);
    s->k->vjp(target, e, n, hi, lo, out);
    hash_reals(s, h, out, n);
    s->k->minus_rest_major(e, target, n, mass, mass > 0 ? mass / 2 : HUGE_VAL, 0, mass, 1e-6);
    hash_reals(s, h, target, n);
    s->k->scale(e, n, 0.7, 1e-10, NULL, 0, target, 0.3, out);
    hash_reals(s, h, out, n);
    s->k->scale(e, n, 0.7, 1e-10, NULL, 0.1, target, 0.3, out);
    hash_reals(s, h, out, n);
    s->k->scale(e, n, 0.7, 1e-10, reals(s, v, n), 0.1, NULL, 0, out);
    s->k->subtract(out, 0.7, 0.3);
    hash_reals(s, h, out, n);
}

static void hash_elements(const subject *s, uint64_t *h, const kind *kind, ptrdiff_t n) {
    static double x[MAX_N], a[MAX_N];
    double shift[TILE], hi[TILE], lo[TILE];
    void *gathered = reals(s, NULL, TILE);
    const int few = n < TILE ? (int)n : TILE;
    fill(s, kind, (uint64_t)n + 4, x, n);
    fill_signed(s, (uint64_t)n + 5, a, n);
    void *logits = reals(s, x, n), *out = reals(s, NULL, n);
    for (int i = 0; i < few; i++) {
        shift[i] = x[0];
        put(s, gathered, i, x[n - 1 - i]);
    }
    s->k->terms(a, gathered, shift, few, hi, lo);
    hash_pair(h, hi, lo, few);
    hash(h, (double)s->k->index_of(logits, n, s->k->max(logits, n)));
    s->k->select(mask_bytes(0, n), logits, n, 0.3, out);
    hash_reals(s, h, out, n);
    s->k->multiply(reals(s, a, n), logits, n, out);
    hash_reals(s, h, out, n);
}

static void hash_tile(const subject *s, uint64_t *h, ptrdiff_t n, const double *inv_temperature) {
    tile16 t;
    void *rows[TILE], *variance = reals(s, NULL, n * TILE);
    make_tile(s, &t, n, 0, inv_temperature);
    s->k->tile_exp_sum(t.tile, n, t.shift, inv_temperature, NULL, t.coarse, t.fine);
    hash_pair(h, t.coarse, t.fine, TILE);
    hash_reals(s, h, t.tile, n * TILE);
    s->k->tile_variance(t.tile, n, t.fine, t.coarse, t.coarse, t.fine, t.coarse, variance);
    hash_reals(s, h, variance, n * TILE);
    s->k->tile_scale(t.tile, n, t.coarse, t.fine);
    s->k->tile_log(t.logits, n, t.shift, inv_temperature, t.coarse);
    for (int r = 0; r < TILE; r++) rows[r] = t.rows[r];
    s->k->tile_store(t.tile, n, NULL, NULL, rows, 1, TILE);
    for (int r = 0; r < TILE; r++) hash_reals(s, h, rows[r], n);
    hash_reals(s, h, t.logits, n * TILE);
}

// Every pattern of 16 bits as float32, and a row of float32 rounded to 16 bits.
static void hash_short_floats(const subject *s, uint64_t *h) {
    static double a[MAX_N];
    uint16_t patterns[MAX_N];
    void *out = reals(s, NULL, MAX_N);
    fill_signed(s, 6, a, MAX_N);
    for (int bfloat = 0; s->k->widen && bfloat < 2; bfloat++) {
        for (unsigned first = 0; first < 0x10000; first += MAX_N) {
            for (unsigned i = 0; i < MAX_N; i++) patterns[i] = (uint16_t)(first + i);
            s->k->widen(patterns, MAX_N, bfloat, out);
            hash_reals(s, h, out, MAX_N);
        }
        s->k->narrow(reals(s, a, MAX_N), MAX_N, bfloat, patterns);
        for (int i = 0; i < MAX_N; i++) hash(h, patterns[i]);
    }
    release();
}

static void hash_doubles(const subject *s, uint64_t *h) {
    const double one = 1;
    for (int i = 0; i < 4000; i++) {
        double weight, coarse, fine, hi, lo, z = any_rest(i);
        any_total(i, &weight, &coarse, &fine);
        s->isa->doubles->divide(&weight, &coarse, &fine, 1, &hi, &lo);
        s->isa->doubles->log_total(&one, &z, 1, &z);
        hash_pair(h, &hi, &lo, 1);
        hash(h, z);
    }
}

uint64_t hash_of_results(const cysoftmax_isa *isa) {
    uint64_t h = 0xcbf29ce484222325u;
    double inv_temperature[2];
    for (int t = 0; t < N_DTYPES; t++) {
        const subject s = subject_of(isa, t);
        for (int i = 0; i < LENGTHS; i++, release()) {
            for (int k = 0; k < N_KINDS; k++, release()) {
                hash_row(&s, &h, &KINDS[k], length(i));
                hash_tempered_row(&s, &h, &KINDS[k], length(i));
                hash_target(&s, &h, &KINDS[k], length(i));
                hash_elements(&s, &h, &KINDS[k], length(i));
            }
            make_inverse(some_temperature(i), inv_temperature);
            hash_tile(&s, &h, length(i), NULL);
            hash_tile(&s, &h, length(i), inv_temperature);
        }
        hash_short_floats(&s, &h);
        hash_doubles(&s, &h);
    }
    return h;
}
