// The kernels of targets, masks, weights and sums for sixteen rows: the bits of the kernels for one
// row, also of NaN, infinite, huge and tiny numbers. (Any NaN is like any other.)

#include "harness.h"
#include "tests.h"

static const int MANY[] = {64, 65, 100, 1000, MAX_N};
enum { FEW_SIZES = 40, SIZES = FEW_SIZES + COUNT(MANY) };
static ptrdiff_t size(int i) { return i < FEW_SIZES ? i + 1 : MANY[i - FEW_SIZES]; }

// What the numbers of a row are like.
enum { SIGNED, MASSES, ZEROS, NANS, INFINITE, ENORMOUS, TINY, FILLINGS };

static void fill_like(const subject *s, int filling, uint64_t seed, double *x, ptrdiff_t n) {
    const double tiny = ldexp(1, s->t->min_exponent - 3);
    const ptrdiff_t some = (ptrdiff_t)(seed * 7 % (uint64_t)n);
    fill_signed(s, seed, x, n);
    for (ptrdiff_t i = 0; i < n; i++) {
        if (filling == MASSES) x[i] = i % 3 == 2 ? 0 : fabs(x[i]);
        if (filling == ZEROS && i % 2 == 0) x[i] = i % 4 == 0 ? 0 : -0.0;
        if (filling == ENORMOUS) x[i] = huge(s) * noise(&seed);
        if (filling == TINY) x[i] = tiny * noise(&seed);
    }
    if (filling == NANS) x[some] = NAN;
    if (filling == INFINITE) x[some] = seed % 2 ? HUGE_VAL : -HUGE_VAL;
    if (filling == INFINITE && seed % 3 == 0) x[n - 1 - some] = HUGE_VAL;
}

// Sixteen rows, and the tile of them.
typedef struct {
    ptrdiff_t n;
    void *rows[TILE], *tile;
} sixteen;

static void make_tile_of_rows(const subject *s, sixteen *a) {
    a->tile = reals(s, NULL, a->n * TILE);
    for (int r = 0; r < TILE; r++)
        for (ptrdiff_t c = 0; c < a->n; c++) put(s, a->tile, c * TILE + r, get(s, a->rows[r], c));
}

// Row r is like number r + first of the fillings.
static void make_sixteen(const subject *s, sixteen *a, ptrdiff_t n, int first) {
    static double x[MAX_N];
    a->n = n;
    for (int r = 0; r < TILE; r++) {
        fill_like(s, (r + first) % FILLINGS, (uint64_t)(n * TILE + r + 1000 * first), x, n);
        a->rows[r] = reals(s, x, n);
    }
    make_tile_of_rows(s, a);
}

static void *guarded_copy(const subject *s, const void *tile, ptrdiff_t n) {
    return memcpy(guarded(s, n * TILE, 0), tile, (size_t)(n * TILE * s->t->size));
}

// ---------------------------------------------------------------- sums

// Only the error of a finite sum matters.
static int same_sums(double hi, double lo, double hi_of_row, double lo_of_row) {
    return same_bits(hi, hi_of_row) && (!isfinite(hi) || same_bits(lo, lo_of_row));
}

void masses_of_sixteen_rows_are_those_of_each(const subject *s) {
    double hi[TILE], lo[TILE], high, low;
    sixteen a;
    for (int i = 0; i < SIZES; i++)
        for (int first = 0; first < FILLINGS; first++, release()) {
            make_sixteen(s, &a, size(i), first);
            const int any_0 = s->k->tile_sum(a.tile, a.n, hi, lo);
            int ok = 1, expected_0 = 0;
            for (int r = 0; r < TILE; r++) {
                s->k->sum(a.rows[r], a.n, &high, &low);
                ok &= same_sums(hi[r], lo[r], high, low);
                expected_0 |= high == 0;
            }
            CHECK(ok && !any_0 == !expected_0, a.n);
        }
}

void dots_of_sixteen_rows_are_those_of_each(const subject *s) {
    double hi[TILE], lo[TILE], shift[TILE], high, low;
    sixteen a, x;
    for (int i = 0; i < SIZES; i++)
        for (int first = 0; first < FILLINGS * FILLINGS; first++, release()) {
            make_sixteen(s, &a, size(i), first % FILLINGS);
            make_sixteen(s, &x, size(i), first / FILLINGS);
            for (int r = 0; r < TILE; r++)
                shift[r] = (r + first) % 3 ? s->k->max(x.rows[r], x.n) : 0;
            for (int shifted = 0; shifted < 2; shifted++) {
                int ok = 1;
                s->k->tile_dot(a.tile, x.tile, a.n, shifted ? shift : NULL, hi, lo);
                for (int r = 0; r < TILE; r++) {
                    const double *its = shifted ? &shift[r] : NULL;
                    s->k->dot(a.rows[r], x.rows[r], a.n, its, &high, &low);
                    ok &= same_sums(hi[r], lo[r], high, low);
                }
                CHECK(ok, a.n);
            }
            if (size(i) > 100 && first % FILLINGS == 2) first += FILLINGS - 3; // these are long
        }
}

void differences_of_sixteen_rows_are_those_of_each(const subject *s) {
    double hi[TILE], lo[TILE], shift[TILE], high, low;
    sixteen x, a;
    for (int i = 0; i < SIZES; i++)
        for (int first = 0; first < 2 * FILLINGS; first++, release()) {
            const int weighted = first % 2;
            int ok = 1;
            make_sixteen(s, &x, size(i), first / 2);
            make_sixteen(s, &a, size(i), first / 2 + 1);
            for (int r = 0; r < TILE; r++) shift[r] = s->k->max(x.rows[r], x.n);
            s->k->tile_diff_sum(weighted ? a.tile : NULL, x.tile, x.n, shift, hi, lo);
            for (int r = 0; r < TILE; r++) {
                s->k->diff_sum(weighted ? a.rows[r] : NULL, x.rows[r], x.n, shift[r], &high, &low);
                ok &= same_sums(hi[r], lo[r], high, low);
            }
            CHECK(ok, x.n);
        }
}

// ---------------------------------------------------------------- class by class

void the_vjp_of_sixteen_rows_is_that_of_each(const subject *s) {
    double hi[TILE], lo[TILE];
    sixteen p, v;
    for (int i = 0; i < SIZES; i++)
        for (int first = 0; first < FILLINGS; first++, release()) {
            make_sixteen(s, &p, size(i), first);
            make_sixteen(s, &v, size(i), (first + i) % FILLINGS);
            s->k->tile_dot(p.tile, v.tile, p.n, NULL, hi, lo);
            void *out = guarded_copy(s, p.tile, p.n), *row = reals(s, NULL, p.n);
            s->k->tile_vjp(out, v.tile, p.n, hi, lo);
            int ok = canaries_live(s, out, p.n * TILE);
            for (int r = 0; r < TILE; r++) {
                s->k->vjp(p.rows[r], v.rows[r], p.n, hi[r], lo[r], row);
                ok &= row_of_tile_is(s, out, r, row, p.n);
            }
            CHECK(ok, p.n);
        }
}

// A stride of 0 is one vector for all classes.
void the_vjp_of_rows_side_by_side_is_that_of_tiles(const subject *s) {
    double hi[TILE], lo[TILE], largest[CYSOFTMAX_TILES * TILE];
    for (int i = 0; i < SIZES; i++)
        for (int n_tiles = 1; n_tiles <= CYSOFTMAX_TILES && size(i) <= 128;
             n_tiles += 3, release()) {
            const ptrdiff_t n = size(i), width = n_tiles * TILE, pitch = n * TILE + 3;
            const ptrdiff_t p_stride = width + 1, v_stride = n_tiles == 4 ? 0 : width + 6;
            const ptrdiff_t room = n_tiles * pitch, v_room = (n - 1) * v_stride + width;
            uint64_t seed = (uint64_t)n;
            char *p = reals(s, NULL, n * p_stride), *v = reals(s, NULL, v_room);
            char *p_tiles = reals(s, NULL, room), *v_tiles = reals(s, NULL, room);
            for (ptrdiff_t j = 0; j < n * p_stride; j++) put(s, p, j, noise(&seed));
            for (ptrdiff_t j = 0; j < v_room; j++) put(s, v, j, j % 29 == 5 ? NAN : noise(&seed));
            put(s, v, 0, HUGE_VAL);
            s->k->tiles_load(p, p_stride, n, n_tiles, p_tiles, pitch, largest);
            s->k->tiles_load(v, v_stride, n, n_tiles, v_tiles, pitch, largest);
            char *out = guarded(s, room, 0);
            s->k->tiles_vjp(p, p_stride, v, v_stride, n, n_tiles, out, pitch);
            int ok = canaries_live(s, out, room);
            for (int t = 0; t < n_tiles; t++) {
                char *tile = at(s, p_tiles, t * pitch), *vector = at(s, v_tiles, t * pitch);
                s->k->tile_dot(tile, vector, n, NULL, hi, lo);
                s->k->tile_vjp(tile, vector, n, hi, lo);
                for (ptrdiff_t c = 0; c < n * TILE; c++)
                    ok &= same_bits(get(s, out, t * pitch + c), get(s, tile, c));
            }
            CHECK(ok, n);
        }
}

// Values of the first class, the middle and the last; both zeros, NaN, and what is not there.
void places_in_sixteen_rows_are_those_in_each(const subject *s) {
    double value[TILE];
    ptrdiff_t index[TILE];
    sixteen x;
    for (int i = 0; i < SIZES; i++)
        for (int first = 0; first < FILLINGS; first++, release()) {
            make_sixteen(s, &x, size(i), first);
            for (int kind = 0; kind < 7; kind++) {
                const double others[] = {0, -0.0, NAN, 42.4242};
                int ok = 1;
                for (int r = 0; r < TILE; r++) {
                    const int k = (kind + r) % 7;
                    value[r] = k < 3 ? get(s, x.rows[r], k * (x.n - 1) / 2) : others[k - 3];
                }
                s->k->tile_index_of(x.tile, x.n, value, index);
                for (int r = 0; r < TILE; r++)
                    ok &= index[r] == s->k->index_of(x.rows[r], x.n, value[r]);
                CHECK(ok, x.n);
            }
        }
}

void weights_of_classes_multiply_sixteen_rows_as_each(const subject *s) {
    static double weights[MAX_N];
    sixteen a;
    for (int i = 0; i < SIZES; i++)
        for (int first = 0; first < FILLINGS; first++, release()) {
            make_sixteen(s, &a, size(i), first);
            fill_like(s, (first + i) % FILLINGS, (uint64_t)i, weights, a.n);
            void *weight = reals(s, weights, a.n), *row = reals(s, NULL, a.n);
            void *out = guarded_copy(s, a.tile, a.n);
            s->k->tile_multiply(out, weight, a.n);
            int ok = canaries_live(s, out, a.n * TILE);
            for (int r = 0; r < TILE; r++) {
                s->k->multiply(a.rows[r], weight, a.n, row);
                ok &= row_of_tile_is(s, out, r, row, a.n);
            }
            CHECK(ok, a.n);
        }
}

// ---------------------------------------------------------------- masks

// What is not 0 is true: also NaN, infinite and tiny numbers. The second row is masked as a whole.
static void make_masks(const subject *s, sixteen *mask, ptrdiff_t n, unsigned char *bytes) {
    static const double TRUTH[] = {1, 0, NAN, 0, 0.5, -0.0, -HUGE_VAL, 0, -1, 0, 0};
    mask->n = n;
    for (int r = 0; r < TILE; r++) {
        mask->rows[r] = reals(s, NULL, n);
        for (ptrdiff_t c = 0; c < n; c++) {
            double value = r == 1 ? 0 : TRUTH[(c * 3 + r) % COUNT(TRUTH)];
            if (c % 5 == 4 && r != 1) value = ldexp(1, s->t->min_exponent - 3);
            put(s, mask->rows[r], c, value);
            bytes[r * n + c] = value != 0;
        }
    }
    make_tile_of_rows(s, mask);
}

void masks_select_in_sixteen_rows_what_they_do_in_each(const subject *s) {
    static const double FILLS[] = {0, -HUGE_VAL, 1.5};
    double largest[TILE];
    sixteen x, mask;
    for (int i = 0; i < SIZES; i++)
        for (int first = 0; first < FILLINGS; first++, release()) {
            const ptrdiff_t n = size(i);
            const double fill = FILLS[first % COUNT(FILLS)];
            unsigned char *bytes = allocate(n * TILE);
            void *row = reals(s, NULL, n);
            int ok = 1;
            make_sixteen(s, &x, n, first);
            make_masks(s, &mask, n, bytes);
            void *before = copy(s, mask.tile, n * TILE), *out = guarded_copy(s, x.tile, n);
            s->k->tile_select(mask.tile, n, out, largest);
            for (int r = 0; r < TILE; r++) {
                s->k->select(bytes + r * n, x.rows[r], n, -HUGE_VAL, row);
                ok &= row_of_tile_is(s, out, r, row, n) && largest[r] == s->k->max(row, n);
            }
            CHECK(ok && canaries_live(s, out, n * TILE), n);
            out = guarded_copy(s, x.tile, n);
            s->k->tile_mask(mask.tile, n, fill, out);
            for (int r = 0; r < TILE; r++) {
                s->k->select(bytes + r * n, x.rows[r], n, fill, row);
                ok &= row_of_tile_is(s, out, r, row, n);
            }
            CHECK(ok && canaries_live(s, out, n * TILE), n);
            CHECK(same_reals(s, mask.tile, before, n * TILE), n);
        }
}

void without_a_mask_nothing_changes_and_maxima_are_those_of_each_row(const subject *s) {
    double largest[TILE];
    sixteen x;
    for (int i = 0; i < SIZES; i++)
        for (int first = 0; first < FILLINGS; first++, release()) {
            make_sixteen(s, &x, size(i), first);
            void *out = guarded_copy(s, x.tile, x.n);
            s->k->tile_select(NULL, x.n, out, largest);
            int ok = same_reals(s, out, x.tile, x.n * TILE) && canaries_live(s, out, x.n * TILE);
            for (int r = 0; r < TILE; r++) ok &= largest[r] == s->k->max(x.rows[r], x.n);
            CHECK(ok, x.n);
        }
}

void skipped_rows_and_no_others_are_filled(const subject *s) {
    static const double FILLS[] = {0, NAN, -HUGE_VAL};
    sixteen x;
    for (int i = 0; i < SIZES; i++)
        for (int pattern = 0; pattern < 8; pattern++, release()) {
            const double fill = FILLS[pattern % COUNT(FILLS)];
            char skipped[TILE];
            make_sixteen(s, &x, size(i), pattern % FILLINGS);
            void *out = guarded_copy(s, x.tile, x.n), *row = reals(s, NULL, x.n);
            for (int r = 0; r < TILE; r++)
                skipped[r] = pattern == 0 ? 0 : pattern == 1 ? 1 : (r * pattern + i) % 3 == 0;
            s->k->tile_skip(skipped, x.n, fill, out);
            s->k->fill(fill, x.n, row, 0);
            int ok = canaries_live(s, out, x.n * TILE);
            for (int r = 0; r < TILE; r++)
                ok &= row_of_tile_is(s, out, r, skipped[r] ? row : x.rows[r], x.n);
            CHECK(ok, x.n);
        }
}

// ---------------------------------------------------------------- labels

// Labels that reach the first and the last class.
static void some_labels(ptrdiff_t n, int i, ptrdiff_t *y) {
    for (int r = 0; r < TILE; r++) y[r] = (r * 7 + i) % n;
    y[3] = 0;
    y[4] = n - 1;
}

void numbers_of_labels_are_gathered(const subject *s) {
    ptrdiff_t y[TILE];
    sixteen x;
    for (int i = 0; i < SIZES; i++)
        for (int first = 0; first < FILLINGS; first++, release()) {
            int ok = 1;
            make_sixteen(s, &x, size(i), first);
            some_labels(x.n, first, y);
            void *out = guarded(s, TILE, 0);
            s->k->tile_gather(x.tile, x.n, y, out);
            for (int r = 0; r < TILE; r++) ok &= same_bits(get(s, out, r), get(s, x.rows[r], y[r]));
            CHECK(ok && canaries_live(s, out, TILE), x.n);
        }
}

void masses_of_labels_are_subtracted_in_sixteen_rows_as_in_each(const subject *s) {
    static const double MASS[] = {1, 0, 0.7, -0.3, -0.0, NAN, 1e-30, -1e-300};
    static const double WEIGHT[] = {0.3, -2, 0, 1e30, -0.0, HUGE_VAL};
    double mass[TILE], weight[TILE];
    ptrdiff_t y[TILE];
    sixteen x;
    for (int i = 0; i < SIZES; i++)
        for (int first = 0; first < FILLINGS; first++, release()) {
            int ok = 1;
            make_sixteen(s, &x, size(i), first);
            some_labels(x.n, first, y);
            void *out = guarded_copy(s, x.tile, x.n);
            for (int r = 0; r < TILE; r++) {
                mass[r] = MASS[(r + first) % COUNT(MASS)];
                weight[r] = WEIGHT[(r + i) % COUNT(WEIGHT)];
            }
            s->k->tile_subtract(out, y, mass, weight);
            for (int r = 0; r < TILE; r++) {
                if (mass[r] != 0) s->k->subtract(at(s, x.rows[r], y[r]), mass[r], weight[r]);
                ok &= row_of_tile_is(s, out, r, x.rows[r], x.n);
            }
            CHECK(ok && canaries_live(s, out, x.n * TILE), x.n);
        }
}

// ---------------------------------------------------------------- gradients

// Exps of sixteen rows of all kinds and what goes with them; arrays that a gradient may take.
typedef struct {
    sixteen e, a, base;
    double hi[TILE], lo[TILE], coarse[TILE], fine[TILE];
    double rest_from[TILE], target_mass[TILE], surplus[TILE], target_weight[TILE];
    double label_mass[TILE], base_weight[TILE];
    ptrdiff_t label[TILE];
    cysoftmax_gradient g;
} gradients;

static void make_exps(const subject *s, gradients *t, ptrdiff_t n, int variant) {
    static const double WEIGHTS[] = {1, 0.3, -2, 0, 1e-30, 7, -0.0, -1e-300};
    double weight[TILE], inverse[2];
    tile16 x;
    make_inverse(0.3, inverse);
    make_tile(s, &x, n, variant % 2, variant % 3 == 2 ? inverse : NULL);
    s->k->tile_exp_sum(x.tile, n, x.shift, x.inv_temperature, NULL, t->coarse, t->fine);
    t->e.n = n;
    for (int r = 0; r < TILE; r++) {
        t->e.rows[r] = x.rows[r];
        for (ptrdiff_t c = 0; c < n; c++) put(s, x.rows[r], c, get(s, x.tile, c * TILE + r));
        weight[r] = WEIGHTS[(r + variant) % COUNT(WEIGHTS)];
        t->target_weight[r] = WEIGHTS[(r * 3 + variant) % COUNT(WEIGHTS)];
        t->base_weight[r] = WEIGHTS[(r * 2 + variant) % COUNT(WEIGHTS)];
    }
    t->e.tile = copy(s, x.tile, n * TILE);
    s->isa->doubles->divide(weight, t->coarse, t->fine, TILE, t->hi, t->lo);
}

static void make_base(const subject *s, sixteen *base, ptrdiff_t n) {
    static double x[MAX_N];
    base->n = n;
    for (int r = 0; r < TILE; r++) {
        fill_like(s, MASSES, (uint64_t)(n + r), x, n);
        base->rows[r] = reals(s, x, n);
    }
    make_tile_of_rows(s, base);
}

// Half of mass and surplus is where a class is heavy from, if that is positive.
static void make_rest_from(gradients *t, int r, int variant) {
    static const double SURPLUS[] = {0, 0.0625, 0, 1, -0.5, 0, -0.9};
    t->surplus[r] = SURPLUS[(r + variant) % COUNT(SURPLUS)];
    const double all = t->target_mass[r] + t->surplus[r];
    t->rest_from[r] = all > 0 ? all / 2 : HUGE_VAL;
}

static void make_gradient(gradients *t, int variant) {
    t->g = (cysoftmax_gradient){t->hi,        t->lo,          t->coarse,  t->fine,
                                t->rest_from, t->target_mass, t->surplus, t->target_weight,
                                NULL,         NULL,           NULL,       NULL,
                                NULL};
    if (variant % 3 > 0) t->g.base_weight = t->base_weight;
    if (variant % 3 > 1) t->g.base = t->base.tile;
}

// What `scale` makes of the exps of row r.
static void scale_row(const subject *s, const gradients *t, int r, const void *e, const void *a,
                      void *out) {
    s->k->scale(e, t->e.n, t->hi[r], t->lo[r], t->g.base ? t->base.rows[r] : NULL,
                t->g.base_weight ? t->base_weight[r] : 0, a, t->target_weight[r], out);
}

static int gradient_of_label_is(const subject *s, const gradients *t, const void *tile, int r) {
    const int heavy = t->label_mass[r] >= t->rest_from[r];
    const double left = (t->label_mass[r] - t->target_mass[r]) - t->surplus[r];
    const double mass = heavy ? left : t->label_mass[r];
    void *e = copy(s, t->e.rows[r], t->e.n), *out = reals(s, NULL, t->e.n);
    if (heavy) minus_rest(s, e, t->label[r], 1, t->coarse[r], t->fine[r]);
    scale_row(s, t, r, e, NULL, out);
    if (mass != 0) s->k->subtract(at(s, out, t->label[r]), mass, t->target_weight[r]);
    return row_of_tile_is(s, tile, r, out, t->e.n);
}

// In one kernel, and in the steps that more than CYSOFTMAX_FEW classes take.
static void check_gradients_of_labels(const subject *s, gradients *t, int steps) {
    double mass[TILE];
    const ptrdiff_t n = t->e.n;
    void *out = guarded_copy(s, t->e.tile, n), *gathered = reals(s, NULL, TILE);
    t->g.label = steps ? NULL : t->label;
    t->g.label_mass = steps ? NULL : t->label_mass;
    for (int r = 0; r < TILE; r++) {
        const double left = (t->label_mass[r] - t->target_mass[r]) - t->surplus[r];
        mass[r] = t->label_mass[r] >= t->rest_from[r] ? left : t->label_mass[r];
    }
    if (steps) {
        s->k->tile_gather(out, n, t->label, gathered);
        s->k->tile_minus_rest(out, t->label, gathered, t->label_mass, t->rest_from, t->coarse,
                              t->fine);
    }
    s->k->tile_gradient(out, n, &t->g);
    if (steps) s->k->tile_subtract(out, t->label, mass, t->target_weight);
    int ok = canaries_live(s, out, n * TILE);
    for (int r = 0; r < TILE; r++) ok &= gradient_of_label_is(s, t, out, r);
    check(s, ok, "gradients_of_sixteen_labels_are_those_of_each", "n = %td, %s", n,
          steps ? "step by step" : "at once");
}

void gradients_of_sixteen_labels_are_those_of_each(const subject *s) {
    static const double MASS[] = {1, 0, 0.7, 1e-300, 2.5, 0.4, 1, -0.0};
    static gradients t;
    for (int i = 0; i < SIZES; i++)
        for (int variant = 0; variant < 12; variant++)
            for (int steps = size(i) > CYSOFTMAX_FEW; steps < 2; steps++, release()) {
                make_exps(s, &t, size(i), variant);
                make_base(s, &t.base, size(i));
                make_gradient(&t, variant);
                some_labels(size(i), variant, t.label);
                for (int r = 0; r < TILE; r++) { // of some rows the label has a part of the mass
                    t.label_mass[r] = MASS[(r + variant) % COUNT(MASS)];
                    t.target_mass[r] = t.label_mass[r] * (r % 5 == 4 ? 3 : 1);
                    make_rest_from(&t, r, variant);
                }
                check_gradients_of_labels(s, &t, steps);
            }
}

// A distribution of the classes of a row: one, two or three of them have most of it, or none has;
// nothing at all, zeros of both signs, NaN, an infinity, negative numbers.
static void fill_distribution(int what, ptrdiff_t n, double *a) {
    const ptrdiff_t one = n / 3, two = n - 1;
    for (ptrdiff_t c = 0; c < n; c++) {
        a[c] = what == 2 || what == 9 ? 0.25 : what == 3 ? 0x1p-6 * (double)(c % 4) : 0;
        if (what == 5) a[c] = c % 2 ? 0 : -0.0;
        if (what == 6 && c % 3 == 0) a[c] = -0x1p-5;
    }
    if (what == 0 || what == 6) a[one] = 1;
    if (what == 1 || what == 8) a[one] = a[two] = 0.5;
    if (what == 3) a[two] = 0.75;
    if (what == 7) a[one] = NAN;
    if (what == 8 && n > 5) a[n / 2] = 0.5;
    if (what == 9) a[two] = HUGE_VAL;
}
enum { DISTRIBUTIONS = 10 };

static void make_distributions(const subject *s, gradients *t, ptrdiff_t n, int variant) {
    static double a[MAX_N];
    double lo;
    t->a.n = n;
    for (int r = 0; r < TILE; r++) {
        fill_distribution((r + variant) % DISTRIBUTIONS, n, a);
        t->a.rows[r] = reals(s, a, n);
        s->k->sum(t->a.rows[r], n, &t->target_mass[r], &lo);
        make_rest_from(t, r, variant / DISTRIBUTIONS);
    }
    make_tile_of_rows(s, &t->a);
    t->g.a = t->a.tile;
}

void gradients_of_sixteen_distributions_are_those_of_each(const subject *s) {
    static gradients t;
    for (int i = 0; i < SIZES; i++)
        for (int variant = 0; variant < 5 * DISTRIBUTIONS; variant++, release()) {
            const ptrdiff_t n = size(i);
            make_exps(s, &t, n, variant);
            make_base(s, &t.base, n);
            make_gradient(&t, variant);
            make_distributions(s, &t, n, variant);
            void *out = guarded_copy(s, t.e.tile, n), *row = reals(s, NULL, n);
            s->k->tile_gradient(out, n, &t.g);
            int ok = canaries_live(s, out, n * TILE);
            for (int r = 0; r < TILE; r++) {
                s->k->minus_rest_major(t.e.rows[r], t.a.rows[r], n, t.target_mass[r],
                                       t.rest_from[r], t.surplus[r], t.coarse[r], t.fine[r]);
                scale_row(s, &t, r, t.e.rows[r], t.a.rows[r], row);
                ok &= row_of_tile_is(s, out, r, row, n);
            }
            CHECK(ok, n);
            if (n > 100) variant += 2; // these are long
        }
}

void gradients_without_a_target_are_scaled_less_the_base(const subject *s) {
    static gradients t;
    for (int i = 0; i < SIZES; i++)
        for (int variant = 0; variant < 12; variant++, release()) {
            const ptrdiff_t n = size(i);
            make_exps(s, &t, n, variant);
            make_base(s, &t.base, n);
            make_gradient(&t, variant);
            void *out = guarded_copy(s, t.e.tile, n), *row = reals(s, NULL, n);
            s->k->tile_gradient(out, n, &t.g);
            int ok = canaries_live(s, out, n * TILE);
            for (int r = 0; r < TILE; r++) {
                scale_row(s, &t, r, t.e.rows[r], NULL, row);
                ok &= row_of_tile_is(s, out, r, row, n);
            }
            CHECK(ok, n);
        }
}
