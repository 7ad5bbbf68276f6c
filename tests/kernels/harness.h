// What the tests of the kernels share: the subject of a test, checks, arrays of reals, inputs,
// and the reference in long double. The tests are listed in tests.h.
//
// Numbers travel as double, which holds every float; `get` and `put` are the only places that
// know the dtype. The arrays that kernels read end where their allocation ends, so that
// AddressSanitizer sees a read beyond them.

#ifndef CYSOFTMAX_TESTS_HARNESS_H
#define CYSOFTMAX_TESTS_HARNESS_H

#include "kernels.h"
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(LDBL_MANT_DIG >= 64, "the reference needs more digits than double has");

enum { MAX_N = CYSOFTMAX_CHUNK, TILE = CYSOFTMAX_TILE };
#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

// ---------------------------------------------------------------- what is tested

typedef struct {
    const char *name;
    ptrdiff_t size;
    int digits;       // bits of the significand
    int min_exponent; // 2^min_exponent is the smallest normal number
    int exp_scale;    // exp comes times 2^exp_scale
    int coarse_unit;  // `coarse` is a multiple of 2^coarse_unit
} dtype;

enum { N_DTYPES = 2 };
extern const dtype DTYPES[N_DTYPES];

typedef struct {
    const cysoftmax_isa *isa;
    const cysoftmax_kernels *k;
    const dtype *t;
    int fused; // v_fma rounds once: every instruction set but scalar
} subject;

subject subject_of(const cysoftmax_isa *isa, int t);

// ---------------------------------------------------------------- checks

extern long passed, failed;

// Count a check, and report it if it failed: `sentence` is the name of the test.
void check(const subject *s, int ok, const char *sentence, const char *format, ...);
// Check error <= bound, and remember the largest error of each `what`.
void check_within(const subject *s, const char *what, double error, double bound,
                  const char *sentence, const char *row, ptrdiff_t n, double temperature);
void print_errors(const subject *s); // the largest of each kind; forgets them
void forget_reports(void);

#define CHECK(ok, n) check(s, ok, __func__, "n = %td", (ptrdiff_t)(n))
#define CHECK_ROW(ok)                                                                              \
    check(s, ok, __func__, "%s row, n = %td, temperature %g", r->kind->name, r->n, r->temperature)
#define WITHIN(what, error, bound, n) check_within(s, what, error, bound, __func__, "any", n, 1)
#define WITHIN_ROW(what, error, bound)                                                             \
    check_within(s, what, error, bound, __func__, r->kind->name, r->n, r->temperature)

static inline double max(double a, double b) { return a > b ? a : b; }

// |got - exact| in units of the last place of `exact`; infinite for a NaN.
double ulps(const dtype *t, long double got, long double exact);
// Also true of any two NaNs.
int same_bits(double a, double b);

// ---------------------------------------------------------------- arrays of reals

static inline double get(const subject *s, const void *p, ptrdiff_t i) {
    return s->t->size == 4 ? (double)((const float *)p)[i] : ((const double *)p)[i];
}
static inline void put(const subject *s, void *p, ptrdiff_t i, double value) {
    if (s->t->size == 4)
        ((float *)p)[i] = (float)value;
    else
        ((double *)p)[i] = value;
}
static inline void *at(const subject *s, void *p, ptrdiff_t i) {
    return (char *)p + i * s->t->size;
}

// Memory that lasts until the next release().
void *allocate(ptrdiff_t size);
void release(void);
// n reals, 0 if `values` is NULL.
void *reals(const subject *s, const double *values, ptrdiff_t n);
void *copy(const subject *s, const void *p, ptrdiff_t n);
int same_reals(const subject *s, const void *a, const void *b, ptrdiff_t n);

// An output of n reals with canaries on both sides, `offset` reals after a multiple of 64 bytes.
// There is one: each call takes the memory of the one before.
void *guarded(const subject *s, ptrdiff_t n, ptrdiff_t offset);
int canaries_around(const void *out, ptrdiff_t size);
int canaries_live(const subject *s, const void *out, ptrdiff_t n);

// ---------------------------------------------------------------- inputs

// In [-1, 1), a multiple of 2^-52 (Knuth's linear congruential generator, MMIX).
double noise(uint64_t *state);

typedef struct {
    const char *name;
    double offset, spread; // logits are offset + spread * noise
    double margin;         // > 0: one logit is larger than each of the others by at least this
    int masked;            // every third is -inf
} kind;

enum { N_KINDS = 22 };
extern const kind KINDS[N_KINDS];

// The lengths of rows: 1 ... SHORT, then a few up to MAX_N.
enum { SHORT = 70, LENGTHS = SHORT + 6 };
ptrdiff_t length(int i);

void fill(const subject *s, const kind *kind, uint64_t seed, double *x, ptrdiff_t n);
// Multiples of 2^-20 in [0, 1), every third of them 0, and where x is -inf.
void fill_weights(const double *x, uint64_t seed, double *a, ptrdiff_t n);
// Of both signs and many magnitudes.
void fill_signed(const subject *s, uint64_t seed, double *a, ptrdiff_t n);
// offset + n bytes of a mask, from `offset` on: any byte but 0 is true.
unsigned char *mask_bytes(ptrdiff_t offset, ptrdiff_t n);

// The temperature of the i-th of many cases.
double some_temperature(int i);
// 1 / temperature as a sum of two doubles.
void make_inverse(double temperature, double inv_temperature[2]);

// The largest finite real.
double huge(const subject *s);

// ---------------------------------------------------------------- the reference

// An unevaluated sum of two: twice the digits of a long double.
typedef struct {
    long double hi, lo;
} wide;

void wide_add(wide *sum, long double b);
void wide_add_product(wide *sum, long double a, long double b);
double wide_error(wide exact, double hi, double lo);

// exp(d / temperature)
long double tempered_exp(long double d, double temperature);

// A row of logits, what it should give, and what exp_sum made of it.
typedef struct {
    const kind *kind;
    ptrdiff_t n;
    double x[MAX_N], shift, temperature, inverse[2];
    const double *inv_temperature; // `inverse`, or NULL where the temperature is 1
    long double exact[MAX_N], sum; // exp((x - shift) / temperature), and its sum
    void *logits, *e;
    double coarse, fine;
    uint64_t seed;
} row;

void make_row(const subject *s, row *r, const kind *kind, ptrdiff_t n, double temperature);
// The sum of `exact` over all classes but c, rest_c of docs/derivation.md; all classes if c is -1.
long double rest_of(const row *r, ptrdiff_t c);

// Kernels, called for one row: weight / (coarse + fine); x[c] - shift; minus rest_c in place of
// e[c * step]; log(coarse + fine).
void divide(const subject *s, double weight, const row *r, double *hi, double *lo);
void difference(const subject *s, const void *x, ptrdiff_t c, double shift, double *hi, double *lo);
void minus_rest(const subject *s, void *e, ptrdiff_t c, ptrdiff_t step, double coarse, double fine);
double log_total(const subject *s, double coarse, double fine);

// 16 rows of all kinds, one of them with a NaN if `broken`, and what goes with them.
typedef struct {
    ptrdiff_t n;
    void *rows[TILE], *tile, *logits; // `logits` is the tile as loaded
    const double *inv_temperature;
    double shift[TILE], coarse[TILE], fine[TILE], log[TILE], hi[TILE], lo[TILE];
} tile16;

void make_tile(const subject *s, tile16 *t, ptrdiff_t n, int broken, const double *inv_temperature);

// Whether row r of a tile has the bits of a row; any NaN is like any other.
int row_of_tile_is(const subject *s, const void *tile, int r, const void *row, ptrdiff_t n);

// Inputs of the functions on doubles: a sum of all exps but the largest, of any magnitude or 0; and
// a total with a weight to divide by it.
double any_rest(int i);
void any_total(int i, double *weight, double *coarse, double *fine);

#endif
