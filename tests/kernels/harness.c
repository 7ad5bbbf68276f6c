// What harness.h declares.

#include "harness.h"
#include <stdarg.h>

const dtype DTYPES[N_DTYPES] = {
    {"float32", 4, 24, -126, 40, -14},
    {"float64", 8, 53, -1022, 192, -43},
};

subject subject_of(const cysoftmax_isa *isa, int t) {
    return (subject){isa, t == 0 ? isa->f32 : isa->f64, &DTYPES[t], strcmp(isa->name, "scalar")};
}

// ---------------------------------------------------------------- checks

long passed, failed;

static struct {
    const char *what;
    double worst;
} errors[32]; // the largest seen of each kind, in the unit of its check

// Failures of a test are printed up to here; all are counted.
enum { MAX_REPORTS = 3 };
static struct {
    const char *sentence;
    int count;
} reports[128];

static int worth_reporting(const char *sentence) {
    int i = 0;
    while (reports[i].sentence && strcmp(reports[i].sentence, sentence)) i++;
    reports[i].sentence = sentence;
    return ++reports[i].count <= MAX_REPORTS;
}

void forget_reports(void) { memset(reports, 0, sizeof reports); }

void check(const subject *s, int ok, const char *sentence, const char *format, ...) {
    va_list values;
    if (ok)
        passed++;
    else
        failed++;
    if (ok || !worth_reporting(sentence)) return;
    printf("FAILED %s %s: %s: ", s->isa->name, s->t->name, sentence);
    va_start(values, format);
    vprintf(format, values);
    va_end(values);
    printf("\n");
}

void check_within(const subject *s, const char *what, double error, double bound,
                  const char *sentence, const char *row, ptrdiff_t n, double temperature) {
    int i = 0;
    while (errors[i].what && strcmp(errors[i].what, what)) i++;
    errors[i].what = what;
    if (error > errors[i].worst) errors[i].worst = error;
    check(s, error <= bound, sentence, "%s row, n = %td, temperature %g: error of %s is %.4g", row,
          n, temperature, what, error);
}

void print_errors(const subject *s) {
    printf("%s %s, largest errors:", s->isa->name, s->t->name);
    for (int i = 0; i < COUNT(errors) && errors[i].what; i++) {
        printf("%s %s %.3g", i ? "," : "", errors[i].what, errors[i].worst);
        errors[i].what = NULL;
        errors[i].worst = 0;
    }
    printf("\n");
}

double ulps(const dtype *t, long double got, long double exact) {
    int exponent;
    if (got == exact) return 0;
    frexpl(exact, &exponent);
    if (exact == 0 || exponent <= t->min_exponent) exponent = t->min_exponent + 1;
    double error = (double)(fabsl(got - exact) / ldexpl(1, exponent - t->digits));
    return error >= 0 ? error : HUGE_VAL;
}

int same_bits(double a, double b) {
    return memcmp(&a, &b, sizeof a) == 0 || (isnan(a) && isnan(b));
}

// ---------------------------------------------------------------- arrays of reals

static void *pool[128];
static int pooled;

void *allocate(ptrdiff_t size) {
    void *p = pooled < COUNT(pool) ? malloc((size_t)(size > 0 ? size : 1)) : NULL;
    if (!p) abort();
    return pool[pooled++] = p;
}

void *reals(const subject *s, const double *values, ptrdiff_t n) {
    void *p = allocate(n * s->t->size);
    for (ptrdiff_t i = 0; i < n; i++) put(s, p, i, values ? values[i] : 0);
    return p;
}
void *copy(const subject *s, const void *p, ptrdiff_t n) {
    return memcpy(reals(s, NULL, n), p, (size_t)(n * s->t->size));
}
void release(void) {
    while (pooled > 0) free(pool[--pooled]);
}
int same_reals(const subject *s, const void *a, const void *b, ptrdiff_t n) {
    return memcmp(a, b, (size_t)(n * s->t->size)) == 0;
}

enum { GUARD = 64, CANARY = 0xA5 };
static _Alignas(64) unsigned char arena[3 * GUARD + MAX_N * TILE * 8];

void *guarded(const subject *s, ptrdiff_t n, ptrdiff_t offset) {
    memset(arena, CANARY, (size_t)(2 * GUARD + (offset + n) * s->t->size));
    return arena + GUARD + offset * s->t->size;
}
int canaries_around(const void *out, ptrdiff_t size) {
    const unsigned char *begin = out, *end = begin + size;
    for (int i = 0; i < GUARD; i++)
        if (begin[-1 - i] != CANARY || end[i] != CANARY) return 0;
    return 1;
}
int canaries_live(const subject *s, const void *out, ptrdiff_t n) {
    return canaries_around(out, n * s->t->size);
}

// ---------------------------------------------------------------- inputs

double noise(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (double)((int64_t)(*state >> 11) - ((int64_t)1 << 52)) * 0x1p-52;
}

// Spreads are powers of two, so that the product is exact and one rounding is left.
const kind KINDS[N_KINDS] = {
    {"near", 0, 8, 0, 0},
    {"far", 0, 128, 0, 0},
    {"underflowing", 0, 1024, 0, 0},
    {"flat", 3, 0, 0, 0},
    {"minute", 1, 0x1p-18, 0, 0},
    {"masked", 0, 16, 0, 1},
    {"1e8", 1e8, 64, 0, 0},
    {"-2^31", -0x1p31, 512, 0, 0},
    {"2^29", 0x1p29, 512, 0, 0},
    {"2^58", 0x1p58, 1024, 0, 0},
    {"2^60", 0x1p60, 1024, 0, 0},
    {"2^62", 0x1p62, 2048, 0, 0},
    {"confident by 5", 0, 4, 5, 0},
    {"confident by 10", 0, 16, 10, 1},
    {"confident by 20", 100, 1, 20, 0},
    {"confident by 40", 0, 32, 40, 0},
    {"confident by 80", 0, 4, 80, 0},
    {"equal but one by 0.3", 0, 0, 0x1.3cfa88p-2, 0},
    {"equal but one by 1.03", 0, 0, 0x1.08e365de21cdp+0, 0},
    {"equal but one by 21.7", 0, 0, 21.6697006, 0}, // every rounding goes the same way
    {"equal but one by 48.3", 0, 0, 48.2663002, 0},
    {"equal but one by 73", 0, 0, 72.9898987, 0},
};

static const int LONG[LENGTHS - SHORT] = {127, 128, 129, 257, 1000, MAX_N};
ptrdiff_t length(int i) { return i < SHORT ? i + 1 : LONG[i - SHORT]; }

void fill(const subject *s, const kind *kind, uint64_t seed, double *x, ptrdiff_t n) {
    const ptrdiff_t top = (ptrdiff_t)(seed * 7 % (uint64_t)n);
    noise(&seed);
    for (ptrdiff_t i = 0; i < n; i++) {
        double u = noise(&seed);
        x[i] = kind->margin ? -fabs(kind->spread * u) - kind->margin : kind->spread * u;
        if (kind->margin && i == top) x[i] = 0;
        x[i] += kind->offset;
        if (kind->masked && i != top && i % 3 == 1) x[i] = -HUGE_VAL;
        if (s->t->size == 4) x[i] = (float)x[i];
    }
}

void fill_weights(const double *x, uint64_t seed, double *a, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++) {
        double u = floor(fabs(noise(&seed)) * 0x1p20) * 0x1p-20;
        a[i] = i % 3 == 2 || x[i] == -HUGE_VAL ? 0 : u;
    }
}

void fill_signed(const subject *s, uint64_t seed, double *a, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++) {
        a[i] = noise(&seed) * ((i & 1) ? 0x1p10 : 0x1p-3);
        if (s->t->size == 4) a[i] = (float)a[i];
    }
}

double some_temperature(int i) {
    static const double TEMPERATURES[] = {0.3, 3, 1e3, 1e-3};
    return TEMPERATURES[i % COUNT(TEMPERATURES)];
}

void make_inverse(double temperature, double inv_temperature[2]) {
    inv_temperature[0] = 1 / temperature;
    inv_temperature[1] = -fma(inv_temperature[0], temperature, -1) / temperature;
}

static unsigned char mask_byte(ptrdiff_t i) {
    static const unsigned char BYTES[] = {1, 0, 2, 0, 0x80, 0xff, 0, 0x40, 0, 0, 1};
    return BYTES[i % COUNT(BYTES)];
}
unsigned char *mask_bytes(ptrdiff_t offset, ptrdiff_t n) {
    unsigned char *bytes = allocate(offset + n);
    for (ptrdiff_t i = 0; i < offset + n; i++) bytes[i] = mask_byte(i);
    return bytes + offset;
}

double huge(const subject *s) { return s->t->size == 4 ? FLT_MAX : DBL_MAX; }

// ---------------------------------------------------------------- the reference

void wide_add(wide *sum, long double b) {
    long double s = sum->hi + b, part = s - sum->hi;
    sum->lo += (sum->hi - (s - part)) + (b - part);
    sum->hi = s;
}
void wide_add_product(wide *sum, long double a, long double b) {
    long double product = a * b;
    wide_add(sum, product);
    wide_add(sum, fmal(a, b, -product));
}
double wide_error(wide exact, double hi, double lo) {
    long double error = fabsl(((exact.hi - hi) + exact.lo) - lo);
    return error >= 0 ? (double)error : HUGE_VAL;
}

// The rounding of the quotient is corrected: where d is large it is an error of many ulp.
long double tempered_exp(long double d, double temperature) {
    const long double quotient = d / temperature;
    if (isinf(quotient)) return 0;
    return expl(quotient) * (1 + fmal(-quotient, temperature, d) / temperature);
}

long double rest_of(const row *r, ptrdiff_t c) {
    wide sum = {0, 0};
    for (ptrdiff_t i = 0; i < r->n; i++)
        if (i != c) wide_add(&sum, r->exact[i]);
    return sum.hi + sum.lo;
}

void make_row(const subject *s, row *r, const kind *kind, ptrdiff_t n, double temperature) {
    r->kind = kind;
    r->n = n;
    r->temperature = temperature;
    r->inv_temperature = temperature == 1 ? NULL : r->inverse;
    make_inverse(temperature, r->inverse);
    r->seed = (uint64_t)((kind - KINDS) * 5000 + n);
    fill(s, kind, r->seed, r->x, n);
    r->shift = -HUGE_VAL;
    for (ptrdiff_t i = 0; i < n; i++) r->shift = max(r->shift, r->x[i]);
    for (ptrdiff_t i = 0; i < n; i++)
        r->exact[i] = tempered_exp((long double)r->x[i] - r->shift, temperature);
    r->sum = rest_of(r, -1);
    r->logits = reals(s, r->x, n);
    r->e = reals(s, NULL, n);
    s->k->exp_sum(r->logits, n, r->shift, r->inv_temperature, NULL, r->e, &r->coarse, &r->fine);
}

void divide(const subject *s, double weight, const row *r, double *hi, double *lo) {
    s->isa->doubles->divide(&weight, &r->coarse, &r->fine, 1, hi, lo);
}

void difference(const subject *s, const void *x, ptrdiff_t c, double shift, double *hi,
                double *lo) {
    const double one = 1;
    s->k->terms(&one, (const char *)x + c * s->t->size, &shift, 1, hi, lo);
}

void minus_rest(const subject *s, void *e, ptrdiff_t c, ptrdiff_t step, double coarse,
                double fine) {
    void *place = at(s, e, c * step);
    s->k->minus_rest(&place, &coarse, &fine, 1);
}

double log_total(const subject *s, double coarse, double fine) {
    double log;
    s->isa->doubles->log_total(&coarse, &fine, 1, &log);
    return log;
}

void make_tile(const subject *s, tile16 *t, ptrdiff_t n, int broken,
               const double *inv_temperature) {
    static double x[MAX_N];
    t->n = n;
    t->inv_temperature = inv_temperature;
    for (int r = 0; r < TILE; r++) {
        fill(s, &KINDS[(r + n) % N_KINDS], (uint64_t)(n * TILE + r), x, n);
        if (broken && r == 5) x[n - 1] = NAN;
        t->rows[r] = reals(s, x, n);
    }
    t->tile = guarded(s, n * TILE, 0);
    s->k->tile_load((const void *const *)t->rows, 1, n, t->tile, t->shift);
    t->logits = copy(s, t->tile, n * TILE);
}

int row_of_tile_is(const subject *s, const void *tile, int r, const void *row, ptrdiff_t n) {
    for (ptrdiff_t c = 0; c < n; c++)
        if (!same_bits(get(s, tile, c * TILE + r), get(s, row, c))) return 0;
    return 1;
}

// ---------------------------------------------------------------- doubles

double any_rest(int i) {
    uint64_t seed = (uint64_t)i;
    noise(&seed);
    double u = 1 + fabs(noise(&seed)) / 2;
    if (i % 4 == 0) return ldexp(u, i / 4 % 1040 - 1000); // every magnitude
    if (i % 4 == 1) return ldexp(u, i / 4 % 12 - 6);      // near the ends of the reduction
    if (i % 4 == 2) return 0x1.a827999fcef32p-2 + noise(&seed) * 0x1p-40; // sqrt(2) - 1
    return i % 8 == 3 ? ldexp(1, i / 8 % 40) - 1 : i % 16 == 7 ? 0 : DBL_TRUE_MIN;
}

void any_total(int i, double *weight, double *coarse, double *fine) {
    static const double WEIGHTS[] = {1, -1, 0.1, 3e-10, 65536, -7.3};
    uint64_t seed = (uint64_t)i;
    noise(&seed);
    *weight = WEIGHTS[i % COUNT(WEIGHTS)];
    *coarse = 1 + floor(ldexp(fabs(noise(&seed)), 14 + i % 20)) * 0x1p-14;
    *fine = noise(&seed) * (i % 2 ? 0x1p-12 : 0x1p-43);
}
