// The table of kernels: what the Cython core may ask of an instruction set.
//
// A kernel knows contiguous reals. It allocates nothing, raises nothing, calls nothing
// and keeps no state; each definition is in rows.inc, lanes.inc or doubles.inc.
//
// exp is always exp(x - shift), and comes multiplied by 2^EXP_SCALE, so that no exp of
// interest is a denormal before it has been divided by the sum. A sum is a pair: `coarse`
// (a multiple of a fixed unit, summed without error) plus `fine` (what was left over).
//
// `inv_temperature` is 1 / temperature as a sum of two doubles, by which x - shift is multiplied
// wherever an exp or a logarithm is made of it; NULL stands for 1.

#ifndef CYSOFTMAX_KERNELS_H
#define CYSOFTMAX_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#error "cysoftmax needs IEEE arithmetic: do not compile it with -ffast-math or -ffinite-math-only"
#endif

#if defined(__x86_64__) || defined(_M_X64)
#define CYSOFTMAX_X86 1
#elif defined(__aarch64__) || defined(_M_ARM64)
#define CYSOFTMAX_ARM 1
#endif

// exp_sum takes at most so many classes at a time: then `coarse` is exact in float32.
#define CYSOFTMAX_CHUNK 1024
// Rows in a tile, which holds their logits class by class: tile[c * 16 + row].
#define CYSOFTMAX_TILE 16
// tiles_load and tiles_store take at most so many of them.
#define CYSOFTMAX_TILES 8

// The beginning of a vec of which the rest is in the next row: it waits for that, so that whole
// vecs are streamed, and with AVX-512 whole lines of the cache. A part of one would have to be
// fetched from memory first, and what is streamed next would wait for it.
typedef struct {
    char bytes[64];
    void *place; // where they belong
    ptrdiff_t n; // so many bytes; 0: none
} cysoftmax_carry;

// What is to be seen to while exps of a tile are computed. If `tiles` is NULL, 16 reals at
// x + c * stride are fetched for each class c. Otherwise as many tiles as are being worked on are
// copied, as tiles_load does it, with their maxima: a vec of them for each vec of exps, and the
// next tile goes on where this one stops.
typedef struct {
    const void *x;    // the first class; of a copy, the one that it has come to
    ptrdiff_t stride; // reals from one class to the next
    void *tiles;      // that class in the first tile
    ptrdiff_t pitch;  // reals from one tile to the next
    ptrdiff_t width;  // reals of a class, 16 for each tile
    ptrdiff_t at;     // so many of them have been copied already
    void *largest;    // as many reals: what is larger in x takes their place
} cysoftmax_next_tiles;

// `real` stands for the dtype of the table, float or double.
typedef struct {
    ptrdiff_t itemsize;
    double unit; // 2^EXP_SCALE
    /* Up to so many contiguous classes go faster sixteen rows at a time; and if only read. */
    ptrdiff_t tile_classes, tile_classes_read;
    /* The largest x[i] that is not NaN; -inf if there is none. */
    double (*max)(const void *x, ptrdiff_t n);
    /* coarse + fine = sum of exp(x - shift), n <= CYSOFTMAX_CHUNK; each exp goes to e, unless
       that is NULL. Meanwhile the n reals at `next` are fetched, unless that is NULL. */
    void (*exp_sum)(const void *x, ptrdiff_t n, double shift, const double *inv_temperature,
                    const void *next, void *e, double *coarse, double *fine);
    /* out = e (hi + lo) - base base_weight - a weight, where e is from exp_sum. base may be NULL
       for ones, and a NULL for zeros. */
    void (*scale)(const void *e, ptrdiff_t n, double hi, double lo, const void *base,
                  double base_weight, const void *a, double weight, void *out);
    /* The same with nothing to subtract, and a copy; both past the caches. The end of a row may
       stay in `line`. */
    void (*stream)(const void *e, ptrdiff_t n, double hi, double lo, void *out,
                   cysoftmax_carry *line);
    void (*stream_copy)(const void *row, ptrdiff_t n, void *out, cysoftmax_carry *line);
    /* Store what is in `line`. */
    void (*store_carry)(cysoftmax_carry *line);
    /* *out -= a weight, as scale does it for a class with a != 0 */
    void (*subtract)(void *out, double a, double weight);
    /* out = weight p (1 - p), p = e (hi + lo) for hi + lo = 1 / (coarse + fine) */
    void (*variance)(const void *e, ptrdiff_t n, double hi, double lo, double coarse, double fine,
                     double weight, void *out);
    /* out = (x - shift) - log_total */
    void (*log)(const void *x, ptrdiff_t n, double shift, const double *inv_temperature,
                double log_total, void *out);
    /* hi + lo = sum of a, n <= CYSOFTMAX_CHUNK */
    void (*sum)(const void *a, ptrdiff_t n, double *hi, double *lo);
    /* hi + lo = sum of x - shift, n <= CYSOFTMAX_CHUNK, none of the terms positive */
    void (*diff_sum)(const void *x, ptrdiff_t n, double shift, double *hi, double *lo);
    /* hi + lo = sum of a (x - shift), n <= CYSOFTMAX_CHUNK; with `skip_zeros`, x counts for
       nothing where a is 0, even if it is -inf */
    void (*dot)(const void *a, const void *x, ptrdiff_t n, double shift, int skip_zeros, double *hi,
                double *lo);
    /* out = p (v - hi - lo) */
    void (*vjp)(const void *p, const void *v, ptrdiff_t n, double hi, double lo, void *out);
    /* hi[i] + lo[i] = a[i] (x[i] - shift[i]) for n <= 16 gathered logits: what dot has for a row of
       this term alone. Where a[i] is 0, so is the term, whatever x[i] is. */
    void (*terms)(const double *a, const void *x, const double *shift, int n, double *hi,
                  double *lo);
    /* The exp at e[i] becomes minus the sum of the others of its row, n times, so that scale makes
       p - 1 of it without a cancellation. Nothing is done where e[i] is NULL. */
    void (*minus_rest)(void *const *e, const double *coarse, const double *fine, int n);
    /* The same for each class that has at least half of mass + extra in the distribution a, whose
       sum is mass; a[c] becomes a[c] - mass - extra. */
    void (*minus_rest_major)(void *e, void *a, ptrdiff_t n, double mass, double half, double extra,
                             double coarse, double fine);
    /* The first i with x[i] == value, or n if there is none. */
    ptrdiff_t (*index_of)(const void *x, ptrdiff_t n, double value);
    /* out = where ? x : fill */
    void (*select)(const unsigned char *where, const void *x, ptrdiff_t n, double fill, void *out);
    /* out = value; past the caches if `stream` */
    void (*fill)(double value, ptrdiff_t n, void *out, int stream);
    /* out = a b */
    void (*multiply)(const void *a, const void *b, ptrdiff_t n, void *out);
    /* Between reals and numbers of 16 bits, IEEE's or bfloat16; float32 only. widen returns what
       max would of them. */
    double (*widen)(const uint16_t *x, ptrdiff_t n, int bfloat, void *out);
    void (*narrow)(const void *x, ptrdiff_t n, int bfloat, uint16_t *out);
    /* What stream_copy is for reals. */
    void (*stream_short)(const uint16_t *row, ptrdiff_t n, uint16_t *out, cysoftmax_carry *line);
    /* What stream is for reals; IEEE's only. */
    void (*stream_half)(const void *e, ptrdiff_t n, double hi, double lo, uint16_t *out,
                        cysoftmax_carry *line);

    /* The same for 16 rows at once. rows[i] is the first class of row i and the next class
       is `stride` reals on; all 16 must be readable, the first n_rows are written. `largest` is
       what max says of each; what is stored is first scaled, unless hi is NULL. */
    void (*tile_load)(const void *const *rows, ptrdiff_t stride, ptrdiff_t n, void *tile,
                      double *largest);
    void (*tile_store)(const void *tile, ptrdiff_t n, const double *hi, const double *lo,
                       void *const *rows, ptrdiff_t stride, int n_rows);
    /* The same for n_tiles of 16 rows, all of which lie side by side from x on: class c of row r
       at x[c * stride + r]. A tile begins `pitch` reals after the one before it. */
    void (*tiles_load)(const void *x, ptrdiff_t stride, ptrdiff_t n, int n_tiles, void *tiles,
                       ptrdiff_t pitch, double *largest);
    /* Past the caches, unless `edges` is NULL. The end of each class waits there, in 64 bytes, if
       the tiles beside these `follow`, and is taken from there if those before them `precede`. */
    void (*tiles_store)(const void *tiles, ptrdiff_t pitch, ptrdiff_t n, int n_tiles,
                        const double *hi, const double *lo, void *x, ptrdiff_t stride, void *edges,
                        int precede, int follow);
    /* Meanwhile `next` is seen to, unless that is NULL. */
    void (*tile_exp_sum)(void *tile, ptrdiff_t n, const double *shift,
                         const double *inv_temperature, cysoftmax_next_tiles *next, double *coarse,
                         double *fine);
    /* x[r] = class y[r] of row r */
    void (*tile_gather)(const void *tile, const ptrdiff_t *y, void *x);
    /* What `minus_rest` does, for class y[r] of each row r, which was gathered; nothing where
       `wanted` is 0. */
    void (*tile_minus_rest)(void *tile, const ptrdiff_t *y, const void *gathered,
                            const char *wanted, const double *coarse, const double *fine);
    void (*tile_scale)(void *tile, ptrdiff_t n, const double *hi, const double *lo);
    void (*tile_variance)(const void *tile, ptrdiff_t n, const double *hi, const double *lo,
                          const double *coarse, const double *fine, const double *weight,
                          void *out);
    void (*tile_log)(void *tile, ptrdiff_t n, const double *shift, const double *inv_temperature,
                     const double *log_total);
} cysoftmax_kernels;

// Elementwise arithmetic on doubles, for the handful of numbers that a row boils down to.
typedef struct {
    /* log = log(coarse + fine), for sums of exps */
    void (*log_total)(const double *coarse, const double *fine, ptrdiff_t n, double *log);
    /* hi + lo = weight / (coarse + fine), to about 2^-100 */
    void (*divide)(const double *weight, const double *coarse, const double *fine, ptrdiff_t n,
                   double *hi, double *lo);
    /* hi + lo = the sum of sixteen numbers, with the rounding errors in lo */
    void (*add_up)(const double *sixteen, double *hi, double *lo);
} cysoftmax_doubles;

typedef struct {
    const char *name;
    int (*available)(void);
    const cysoftmax_kernels *f32, *f64;
    const cysoftmax_doubles *doubles;
} cysoftmax_isa;

// The instruction sets compiled in, best first; the last is `scalar`, then {NULL}.
extern const cysoftmax_isa cysoftmax_isas[];

// The number of bytes in the last-level cache, or 0 if the machine does not tell.
ptrdiff_t cysoftmax_cache_size(void);

#endif
