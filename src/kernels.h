// The table of kernels: what the Cython core may ask of an instruction set.
//
// A kernel knows contiguous reals. It allocates nothing, raises no error and keeps no state. The
// definitions are in rows.inc, lanes.inc, dots.inc, targets.inc, vjp.inc, convert.inc, half.inc,
// doubles.inc, one_hot.inc and merge.inc.
//
// Numbers in parentheses, as (21), are equations of docs/derivation.md. Shapes: (n,) is n reals
// side by side, (16,) one double for each of 16 rows unless another type is given. A tile (n, 16)
// holds the n classes of 16 rows class by class: tile[c * 16 + row].
//
//   x             logits
//   shift         the largest logit of the row, m in (17)
//   e             exps: exp((x - shift) / temperature). Where they are stored they have a further
//                 factor 2^EXP_SCALE, which the formulas below leave out: so no exp that can matter
//                 is a denormal before it is divided by the sum
//   coarse, fine  the sum of the exps is coarse + fine (24): coarse is a multiple of a fixed unit,
//                 summed without error; fine is the sum of what rounding to that unit leaves
//   hi, lo        one number as the unevaluated sum hi + lo
//   inv_temperature  (2,) doubles whose sum is 1 / temperature; NULL if the temperature is 1

#ifndef CYSOFTMAX_KERNELS_H
#define CYSOFTMAX_KERNELS_H

#include <float.h>
#include <stddef.h>
#include <stdint.h>

// The flags that end src/flags.txt prevent these, where they are the last.
#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__) ||           \
    defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) || defined(__NO_SIGNED_ZEROS__)
#error "cysoftmax needs IEEE arithmetic: compile it without -ffast-math and all that it implies"
#endif
// Every operation must round to its own type: x87 keeps more digits than a double has.
#if FLT_EVAL_METHOD != 0 || FLT_RADIX != 2 || FLT_MANT_DIG != 24 || DBL_MANT_DIG != 53
#error "cysoftmax needs float and double arithmetic that rounds to 24 and 53 bits, as SSE2 has"
#endif
_Static_assert(sizeof(1.0) == sizeof(double), "compile without -fsingle-precision-constant");

#if defined(__x86_64__) || defined(_M_X64)
#define CYSOFTMAX_X86 1
#elif defined(__aarch64__) || defined(_M_ARM64)
#define CYSOFTMAX_ARM 1
#endif

// The most classes that exp_sum, sum, diff_sum and dot take at a time: up to here `coarse` is exact
// in float32.
#define CYSOFTMAX_CHUNK 1024
// Rows in a tile.
#define CYSOFTMAX_TILE 16
// The most tiles that tiles_load and tiles_store take at a time.
#define CYSOFTMAX_TILES 8
// Up to this number of classes, a label is found by comparing every class with it. That costs less
// than sixteen scalar loads or stores, and lets no vector wait for scalar stores (store
// forwarding).
#define CYSOFTMAX_FEW 16

// The unfinished vec, one vector register, at the end of a streamed row (of 16-bit numbers, the
// unfinished cache line). It waits for the beginning of the next row, so that only whole vecs are
// streamed, with AVX-512 whole cache lines. A plain store to a part of a line would first have to
// read the line from memory, and the streamed stores after it would wait for that: write combining
// needs whole lines.
typedef struct {
    char bytes[64];
    void *place; // where the bytes belong
    ptrdiff_t n; // the number of bytes, 0 if nothing is unfinished
} cysoftmax_carry;

// What tile_exp_sum loads while it computes exps (double buffering).
//
// If `tiles` is NULL, it prefetches for each class c the 16 reals at x + c * stride. Otherwise it
// copies the next tiles and takes their maxima, as tiles_load does: one vec of logits for each vec
// of exps. While the exps of t tiles are computed, t tiles are copied; each call goes on where the
// one before it stopped.
typedef struct {
    const void *x;    // the first class; of a copy, the class that it has reached
    const void *also; // a prefetch only: 16 reals a class of other rows, too; or NULL
    ptrdiff_t stride; // reals from one class to the next
    void *tiles;      // where that class belongs in the first of the tiles
    ptrdiff_t pitch;  // reals from one tile to the next
    ptrdiff_t width;  // reals in a class, 16 for each tile
    ptrdiff_t at;     // the number of them that are copied already
    void *largest;    // (width,): the largest logit so far of each row
} cysoftmax_next_tiles;

// What tile_gradient needs of 16 rows: (16,) each, but for tiles.
typedef struct {
    const double *hi, *lo;               // what exps are multiplied with
    const double *coarse, *fine;         // the sum of the exps
    const double *rest_from;             // the smallest mass of a class for which (31) is used,
    const double *target_mass, *surplus; // and what that class' mass is then reduced by
    const double *target_weight;         // what masses are multiplied with before
                                         // they are subtracted
    const ptrdiff_t *label;              // the class that has the whole mass, or NULL
    const double *label_mass;
    void *a;                   // a tile: the mass of each class, or NULL
    const void *base;          // a tile, or NULL: all ones
    const double *base_weight; // or NULL: no base is subtracted
} cysoftmax_gradient;

// Entries that one_hot reads as unsigned integers.
typedef struct {
    ptrdiff_t item;     // bytes of an entry: 1, 2, 4 or 8
    ptrdiff_t step;     // bytes from class to class,
    ptrdiff_t row_step; // and from row to row
    uint64_t one;       // the pattern of a 1; or 0 if each entry that is not 0 counts as 1
    uint64_t digits;    // the bits of which a 0 has none: all but a sign
} cysoftmax_entries;

// `real` is the dtype of the table, float or double; a pointer to void points to reals.
typedef struct {
    double exp_unit; // 2^EXP_SCALE
    /* The largest number of contiguous classes for which tiles are faster than rows: if exps are
       stored as outputs, and if they are only summed. */
    ptrdiff_t tile_classes, tile_classes_read;

    /* ---- One row. All arrays are (n,) unless a shape is given. ---- */

    /* Return the largest x[i] that is not NaN; -inf if there is none. */
    double (*max)(const void *x, ptrdiff_t n);
    /* coarse + fine = sum of exp((x - shift) / temperature), (23) to (27) and (32); n is at most
       CYSOFTMAX_CHUNK. Each exp is stored to e, unless e is NULL. `next` is prefetched meanwhile,
       unless it is NULL. */
    void (*exp_sum)(const void *x, ptrdiff_t n, double shift, const double *inv_temperature,
                    const void *next, void *e, double *coarse, double *fine);
    /* out = e (hi + lo) - base base_weight - a weight: a gradient (30) for hi + lo = b / total.
       A base of NULL is all ones, an a of NULL all zeros. */
    void (*scale)(const void *e, ptrdiff_t n, double hi, double lo, const void *base,
                  double base_weight, const void *a, double weight, void *out);
    /* out = e (hi + lo), and out = row, with streamed stores. The end of a row may stay in `carry`
       until the next call or store_carry. */
    void (*stream)(const void *e, ptrdiff_t n, double hi, double lo, void *out,
                   cysoftmax_carry *carry);
    void (*stream_copy)(const void *row, ptrdiff_t n, void *out, cysoftmax_carry *carry);
    void (*store_carry)(cysoftmax_carry *carry);
    /* *out -= a weight for one real, with the bits of `scale` for a class with that a. */
    void (*subtract)(void *out, double a, double weight);
    /* out = weight p (1 - p) (33) for p = e (hi + lo) and hi + lo = 1 / (coarse + fine) */
    void (*variance)(const void *e, ptrdiff_t n, double hi, double lo, double coarse, double fine,
                     double weight, void *out);
    /* out = (x - shift) / temperature - log_total (18) */
    void (*log)(const void *x, ptrdiff_t n, double shift, const double *inv_temperature,
                double log_total, void *out);
    /* hi + lo = sum of a, in twice the digits of a real; n is at most CYSOFTMAX_CHUNK. */
    void (*sum)(const void *a, ptrdiff_t n, double *hi, double *lo);
    /* hi + lo = sum of a (x - shift) for x <= shift and a >= 0, or of x - shift if a is NULL; where
       a is 0 so is the term. n is at most CYSOFTMAX_CHUNK. */
    void (*diff_sum)(const void *a, const void *x, ptrdiff_t n, double shift, double *hi,
                     double *lo);
    /* hi + lo = sum of a (x - *shift), the second sum of (19), in twice the digits of a real; the
       shift is finite, and n at most CYSOFTMAX_CHUNK. The term of a class with a = 0 is 0 whatever
       its x is, -inf and NaN included. If shift is NULL: the sum of a x, for any a and x. */
    void (*dot)(const void *a, const void *x, ptrdiff_t n, const double *shift, double *hi,
                double *lo);
    /* What `dot` computes without a shift, of numbers that are a_step and x_step bytes apart. */
    void (*strided_dot)(const void *a, ptrdiff_t a_step, const void *x, ptrdiff_t x_step,
                        ptrdiff_t n, double *hi, double *lo);
    /* out = p (v - hi - lo) (15), where hi + lo is the dot product of p and v */
    void (*vjp)(const void *p, const void *v, ptrdiff_t n, double hi, double lo, void *out);
    /* out = p (v - sum of p v) for n_rows rows that follow each other; in place if out is p or v.
       n is at most CYSOFTMAX_CHUNK. */
    void (*rows_vjp)(const void *p, const void *v, ptrdiff_t n, ptrdiff_t n_rows, void *out);
    /* hi[i] + lo[i] = a[i] (x[i] - shift[i]) for n <= 16 rows, x[i] the logit of one class of row
       i; a, shift, hi, lo: (n,) doubles. Each has the bits that dot gives for this term alone, with
       its shift. */
    void (*terms)(const double *a, const void *x, const double *shift, int n, double *hi,
                  double *lo);
    /* *e[i] = -(the sum of the other exps of row i), so that `scale` makes p - 1 of it without a
       cancellation (21). e: (n,) pointers, of which a NULL is skipped; coarse, fine: (n,) doubles.
     */
    void (*minus_rest)(void *const *e, const double *coarse, const double *fine, int n);
    /* For a row whose target is a distribution a with the sum `mass`: each class with
       a[c] >= rest_from gets e[c] = -(the sum of the other exps), and a[c] -= mass + surplus, which
       leaves the residual mass. */
    void (*minus_rest_major)(void *e, void *a, ptrdiff_t n, double mass, double rest_from,
                             double surplus, double coarse, double fine);
    /* Return the first i with x[i] == value, or n if there is none. */
    ptrdiff_t (*index_of)(const void *x, ptrdiff_t n, double value);
    /* out = where ? x : fill; where: (n,) bytes, true if not 0 */
    void (*select)(const unsigned char *where, const void *x, ptrdiff_t n, double fill, void *out);
    /* out = value; with streamed stores if `stream` */
    void (*fill)(double value, ptrdiff_t n, void *out, int stream);
    /* out = a b */
    void (*multiply)(const void *a, const void *b, ptrdiff_t n, void *out);
    /* out = n numbers, `step` bytes apart from source on, as reals. The kind is 'i' (signed), 'u'
       (unsigned), 'f' (float), 'd' (double) or '?' (a truth value: 1 if not 0), `item` the bytes of
       one number. out may overlap the source if each number is read before its place is
       written, going upwards. */
    void (*convert)(const void *source, ptrdiff_t step, int kind, ptrdiff_t item, ptrdiff_t n,
                    void *out);

    /* ---- Numbers of 16 bits: bfloat16 if `bfloat`, else IEEE's binary16. NULL in float64. ---- */

    /* out = x, exactly; return what `max` returns for out. */
    double (*widen)(const uint16_t *x, ptrdiff_t n, int bfloat, void *out);
    /* out = x, rounded to nearest, ties to even */
    void (*narrow)(const void *x, ptrdiff_t n, int bfloat, uint16_t *out);
    /* out = row, and out = e (hi + lo) rounded to binary16, with streamed stores; `carry` as in
       `stream`. */
    void (*stream_short)(const uint16_t *row, ptrdiff_t n, uint16_t *out, cysoftmax_carry *carry);
    void (*stream_half)(const void *e, ptrdiff_t n, double hi, double lo, uint16_t *out,
                        cysoftmax_carry *carry);

    /* ---- Sixteen rows. shift, coarse, fine, hi, lo, log_total, weight, largest: (16,). ---- */

    /* tile (n, 16) = class c of row r, which is at rows[r] + c * stride; largest[r] is what `max`
       returns for row r. All 16 rows must be readable. */
    void (*tile_load)(const void *const *rows, ptrdiff_t stride, ptrdiff_t n, void *tile,
                      double *largest);
    /* The converse for the first n_rows rows. What is stored is tile (hi + lo), or the tile as it
       is if hi is NULL. */
    void (*tile_store)(const void *tile, ptrdiff_t n, const double *hi, const double *lo,
                       void *const *rows, ptrdiff_t stride, int n_rows);
    /* Load n_tiles tiles of rows that lie side by side: class c of row r is x[c * stride + r], for
       r < 16 n_tiles. Tile t is at tiles + t * pitch; largest: (16 n_tiles,). */
    void (*tiles_load)(const void *x, ptrdiff_t stride, ptrdiff_t n, int n_tiles, void *tiles,
                       ptrdiff_t pitch, double *largest);
    /* The converse; hi, lo: (16 n_tiles,), or NULL. With streamed stores unless `edges` is NULL.
       edges: 64 bytes for each class, where the unfinished vec at the end of the class waits. If
       the next call is for the rows that follow these side by side, `follow` is true here and
       `precede` there. */
    void (*tiles_store)(const void *tiles, ptrdiff_t pitch, ptrdiff_t n, int n_tiles,
                        const double *hi, const double *lo, void *x, ptrdiff_t stride, void *edges,
                        int precede, int follow);
    /* What exp_sum does for each row, in place; with its bits. `next` is loaded meanwhile, unless
       it is NULL. */
    void (*tile_exp_sum)(void *tile, ptrdiff_t n, const double *shift,
                         const double *inv_temperature, cysoftmax_next_tiles *next, double *coarse,
                         double *fine);
    /* x[r] = class y[r] of row r; y, x: (16,) */
    void (*tile_gather)(const void *tile, ptrdiff_t n, const ptrdiff_t *y, void *x);
    /* What minus_rest does, for class y[r] of each row r with mass[r] >= rest_from[r]. gathered:
       (16,), the exps of these classes. */
    void (*tile_minus_rest)(void *tile, const ptrdiff_t *y, const void *gathered,
                            const double *mass, const double *rest_from, const double *coarse,
                            const double *fine);
    /* tile = tile (hi + lo) */
    void (*tile_scale)(void *tile, ptrdiff_t n, const double *hi, const double *lo);
    /* What `subtract` does for class y[r] of each row r, if mass[r] != 0. */
    void (*tile_subtract)(void *tile, const ptrdiff_t *y, const double *mass, const double *weight);
    /* What minus_rest or minus_rest_major, `scale` and `subtract` do for each row, in place of its
       exps; a is overwritten. Labels only for at most
       CYSOFTMAX_FEW classes. */
    void (*tile_gradient)(void *e, ptrdiff_t n, const cysoftmax_gradient *g);
    /* What sum, dot, diff_sum, vjp and index_of do for each row; vjp in place of p. n is at most
       CYSOFTMAX_CHUNK for the sums. tile_sum returns whether any hi is 0; if lo is NULL, hi becomes
       hi + lo. */
    int (*tile_sum)(const void *a, ptrdiff_t n, double *hi, double *lo);
    void (*tile_dot)(const void *a, const void *x, ptrdiff_t n, const double *shift, double *hi,
                     double *lo);
    void (*tile_diff_sum)(const void *a, const void *x, ptrdiff_t n, const double *shift,
                          double *hi, double *lo);
    void (*tile_vjp)(void *p, const void *v, ptrdiff_t n, const double *hi, const double *lo);
    /* What rows_vjp does, for n_tiles tiles of rows that lie side by side: class c of row r is at
       p[c * p_stride + r] and v[c * v_stride + r]. The results are stored as tiles, as tiles_load
       stores them. */
    void (*tiles_vjp)(const void *p, ptrdiff_t p_stride, const void *v, ptrdiff_t v_stride,
                      ptrdiff_t n, int n_tiles, void *tiles, ptrdiff_t pitch);
    void (*tile_index_of)(const void *x, ptrdiff_t n, const double *value, ptrdiff_t *index);
    /* Multiply class c of each row with weights[c]; weights: (n,). */
    void (*tile_multiply)(void *a, const void *weights, ptrdiff_t n);
    /* x = where ? x : -inf for a tile `where`, true if not 0, unless that is NULL; largest[r] is
       then what `max` returns. */
    void (*tile_select)(const void *where, ptrdiff_t n, void *x, double *largest);
    /* tile = where ? tile : value; and tile = value for each row r with skipped[r] != 0. */
    void (*tile_mask)(const void *where, ptrdiff_t n, double value, void *tile);
    void (*tile_skip)(const char *skipped, ptrdiff_t n, double value, void *tile);
    /* What variance and log do for each row; out: (n, 16). */
    void (*tile_variance)(const void *tile, ptrdiff_t n, const double *hi, const double *lo,
                          const double *coarse, const double *fine, const double *weight,
                          void *out);
    void (*tile_log)(void *tile, ptrdiff_t n, const double *shift, const double *inv_temperature,
                     const double *log_total);
} cysoftmax_kernels;

// What n rows weigh, (n,) each: their sample weights; a = confidence target + uniform, the mass of
// all their classes.
typedef struct {
    const double *sample, *target, *uniform;
    double confidence;
} cysoftmax_masses;

// Arithmetic on arrays of doubles (n,), the few numbers that each row has.
typedef struct {
    /* log = log(coarse + fine) for sums of exps whose largest is 1 (20) */
    void (*log_total)(const double *coarse, const double *fine, ptrdiff_t n, double *log);
    /* hi + lo = weight / (coarse + fine), to about 2^-100 */
    void (*divide)(const double *weight, const double *coarse, const double *fine, ptrdiff_t n,
                   double *hi, double *lo);
    /* Return whether any x[i] that is not 0 lies outside of least <= |x[i]| < most; a NaN does. */
    int (*outside)(const double *x, ptrdiff_t n, double least, double most);
    /* found: the smallest, the smallest that is not 0 (infinity if there is none) and the largest
       of n > 0 numbers. Return whether all of them are finite and >= 0; only then does `found`
       hold. */
    int (*extent)(const double *x, ptrdiff_t n, double found[3]);
    /* The sums of n sixteens of numbers, in the tree of (27): sums[4 i] = sum i, and sums[4 i + 1]
       = the sum of its rounding errors; n is at most CYSOFTMAX_TILES. */
    void (*add_up)(const double *numbers, ptrdiff_t n, double *sums);
    /* ignored[r] = whether y[r] is `ignore`, if it `ignores` any; then y[r] = 0 for these labels
       and for those outside of 0 ... n_classes - 1. Return whether one of the latter is not
       ignored. ignored: (n,) */
    int (*check_labels)(ptrdiff_t *y, ptrdiff_t n, ptrdiff_t n_classes, int ignores,
                        ptrdiff_t ignore, char *ignored);
    /* y[r] = the class of the entry of row r that is 1, or -1 if there is none; y: (n_rows,).
       Return whether all other entries of the rows, which have n each, are 0; otherwise y is
       undefined. */
    int (*one_hot)(const void *entries, const cysoftmax_entries *e, ptrdiff_t n_rows, ptrdiff_t n,
                   ptrdiff_t *y);
    /* values[r] = 0 where which[r] is not 0; which: (n,) */
    void (*clear)(const char *which, ptrdiff_t n, double *values);
    /* b = sample a factor: (30) without z-loss; without a factor if that is NULL. */
    void (*numerators)(const cysoftmax_masses *masses, const double *factor, ptrdiff_t n,
                       double *b);
    /* loss = sample (a log_total - hi - lo): (29) without z-loss */
    void (*losses)(const cysoftmax_masses *masses, const double *log_total, const double *hi,
                   const double *lo, ptrdiff_t n, double *loss);
    /* from = the smallest mass of a class for which (31) is used: half of mass + surplus, at least
       half of mass, above 0. Return whether any mass + surplus is negative, for which this does not
       hold. */
    int (*rest_thresholds)(const double *mass, const double *surplus, ptrdiff_t n, double *from);
    /* What is known of two disjoint sets of classes of n rows becomes what is known of their union
       (43). a, b, out: (4, n): the largest logit, and coarse, fine and low, whose sum is that of
       the exps. A row without logits has the maximum -inf and the sum 0. */
    void (*merge)(const double *a, const double *b, ptrdiff_t n, const double *inv_temperature,
                  double *out);
} cysoftmax_doubles;

typedef struct {
    const char *name;
    int (*available)(void);
    const cysoftmax_kernels *f32, *f64;
    const cysoftmax_doubles *doubles;
} cysoftmax_isa;

// The instruction sets compiled in, best first; the last is `scalar`, then {NULL}.
extern const cysoftmax_isa cysoftmax_isas[];

// Return the number of bytes in the last-level cache, or 0 if the machine does not tell.
ptrdiff_t cysoftmax_cache_size(void);

#endif
