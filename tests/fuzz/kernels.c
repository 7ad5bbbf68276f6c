// Kernels on arrays of any bits, for libFuzzer: `make fuzz`.
//
// An input is a few choices and then the bytes of every array, repeated as often as needed. Each
// instruction set gets the same arrays. What it computes must be what the others compute, to the
// bit; AddressSanitizer sees accesses beyond an array, for each ends where its allocation ends.
// What kernels.h requires of arguments holds here: lengths, labels in range, dot's finite shift.

#include "../kernels/harness.h"

typedef struct {
    const uint8_t *data;
    size_t size, next;
} source;

static uint8_t byte(source *in) { return in->size ? in->data[in->next++ % in->size] : 0; }
static int below(source *in, int n) { return (byte(in) | byte(in) << 8) % n; }

// Arrays of any bits.
static void *any_bytes(source *in, ptrdiff_t size) {
    uint8_t *p = allocate(size);
    for (ptrdiff_t i = 0; i < size; i++) p[i] = byte(in);
    return p;
}
static void *any_reals(const subject *s, source *in, ptrdiff_t n) {
    return any_bytes(in, n * s->t->size);
}
static double *any_doubles(source *in, ptrdiff_t n) {
    return any_bytes(in, n * (ptrdiff_t)sizeof(double));
}

// FNV-1a over the bits of results, where any NaN is like any other, and so is either zero.
static uint64_t digest;
static void add(double value) {
    uint64_t bits;
    value += 0.0;
    if (isnan(value)) value = NAN;
    memcpy(&bits, &value, sizeof bits);
    for (int i = 0; i < 8; i++) digest = (digest ^ (bits >> 8 * i & 0xff)) * 0x100000001b3u;
}
static void add_reals(const subject *s, const void *p, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++) add(get(s, p, i));
}
static void add_doubles(const double *p, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++) add(p[i]);
}

static double any_shift(const subject *s, source *in) {
    const double shift = *any_doubles(in, 1), most = s->t->size == 4 ? FLT_MAX : DBL_MAX;
    return fabs(shift) <= most ? shift : 0;
}

static const double *any_temperature(source *in, double inverse[2]) {
    static const double SOME[] = {1, 0x1p-60, 0x1p60, 0.7, 3};
    const double temperature = SOME[below(in, COUNT(SOME))];
    make_inverse(temperature, inverse);
    return temperature == 1 ? NULL : inverse;
}

// ---------------------------------------------------------------- one row

static void row_of_exps(const subject *s, source *in, ptrdiff_t n) {
    double inverse[2], coarse, fine;
    const void *x = any_reals(s, in, n), *base = any_reals(s, in, n), *a = any_reals(s, in, n);
    const double *few = any_doubles(in, 4), *inv = any_temperature(in, inverse);
    void *e = reals(s, NULL, n), *out = reals(s, NULL, n);
    const double shift = s->k->max(x, n);
    s->k->exp_sum(x, n, shift, inv, NULL, e, &coarse, &fine);
    add(shift), add(coarse), add(fine), add_reals(s, e, n);
    s->k->scale(e, n, few[0], few[1], base, few[2], a, few[3], out), add_reals(s, out, n);
    s->k->scale(e, n, few[0], few[1], NULL, few[2], NULL, 0, out), add_reals(s, out, n);
    s->k->variance(e, n, few[0], few[1], coarse, fine, few[2], out), add_reals(s, out, n);
    s->k->log(x, n, shift, inv, few[3], out), add_reals(s, out, n);
    void *one = at(s, e, below(in, (int)n));
    s->k->minus_rest(&one, &coarse, &fine, 1), s->k->subtract(one, few[0], few[1]);
    add_reals(s, e, n);
    add((double)s->k->index_of(x, n, below(in, 2) ? shift : few[0]));
}

static void row_of_sums(const subject *s, source *in, ptrdiff_t n) {
    double hi, lo;
    const void *a = any_reals(s, in, n), *x = any_reals(s, in, n);
    void *out = reals(s, NULL, n);
    s->k->sum(a, n, &hi, &lo), add(hi), add(lo);
    s->k->diff_sum(NULL, x, n, s->k->max(x, n), &hi, &lo), add(hi), add(lo);
    const double shift = any_shift(s, in);
    s->k->dot(a, x, n, below(in, 2) ? &shift : NULL, &hi, &lo), add(hi), add(lo);
    s->k->vjp(a, x, n, hi, lo, out), add_reals(s, out, n);
    s->k->rows_vjp(a, x, 1 + n / 20, n / (1 + n / 20), out);
    add_reals(s, out, n / (1 + n / 20) * (1 + n / 20));
    s->k->multiply(a, x, n, out), add_reals(s, out, n);
    s->k->select(any_bytes(in, n), x, n, *any_doubles(in, 1), out), add_reals(s, out, n);
    s->k->fill(*any_doubles(in, 1), n, out, below(in, 2)), add_reals(s, out, n);
}

static void row_of_numbers(const subject *s, source *in, ptrdiff_t n) {
    static const struct {
        int kind, item;
    } NUMBERS[] = {{'i', 1}, {'i', 2}, {'i', 4}, {'i', 8}, {'u', 1}, {'u', 2}, {'u', 4},
                   {'u', 8}, {'f', 4}, {'d', 8}, {'?', 1}, {'?', 2}, {'?', 4}, {'?', 8}};
    void *out = reals(s, NULL, n);
    const int which = below(in, COUNT(NUMBERS)), item = NUMBERS[which].item;
    const ptrdiff_t step = item * (1 + below(in, 3)), size = step * (n - 1) + item;
    const char *numbers = any_bytes(in, size);
    s->k->convert(numbers, step, NUMBERS[which].kind, item, n, out), add_reals(s, out, n);
    s->k->convert(numbers + size - item, -step, NUMBERS[which].kind, item, n, out);
    add_reals(s, out, n);
    if (!s->k->widen) return;
    uint16_t *halves = any_bytes(in, 2 * n);
    add(s->k->widen(halves, n, below(in, 2), out)), add_reals(s, out, n);
    s->k->narrow(any_reals(s, in, n), n, below(in, 2), halves);
    for (ptrdiff_t i = 0; i < n; i++) { // which NaN it is does not matter
        const int nan = (halves[i] & 0x7fff) > 0x7c00;
        add(nan ? 0x7fff : halves[i]);
    }
}

// Rows that follow each other in one array, stored past the caches.
static void streamed_rows(const subject *s, source *in, ptrdiff_t n) {
    enum { ROWS = 3 };
    const ptrdiff_t offset = below(in, 20);
    void *out = reals(s, NULL, offset + ROWS * n);
    const double *few = any_doubles(in, 2);
    cysoftmax_carry carry = {.n = 0};
    for (int r = 0; r < ROWS; r++) {
        const void *row = any_reals(s, in, n);
        if (below(in, 2))
            s->k->stream(row, n, few[0], few[1], at(s, out, offset + r * n), &carry);
        else
            s->k->stream_copy(row, n, at(s, out, offset + r * n), &carry);
    }
    s->k->store_carry(&carry);
    add_reals(s, out, offset + ROWS * n);
}

// ---------------------------------------------------------------- sixteen rows

static void tile_of_exps(const subject *s, source *in, ptrdiff_t n) {
    double inverse[2], largest[TILE], coarse[TILE], fine[TILE], residue[TILE];
    const void *rows[TILE];
    const ptrdiff_t stride = 1 + below(in, 3);
    const double *hi = any_doubles(in, TILE), *lo = any_doubles(in, TILE);
    const double *weight = any_doubles(in, TILE), *inv = any_temperature(in, inverse);
    void *tile = reals(s, NULL, n * TILE), *e = reals(s, NULL, n * TILE);
    void *out = reals(s, NULL, n * TILE), *places[TILE];
    for (int r = 0; r < TILE; r++) rows[r] = any_reals(s, in, (n - 1) * stride + 1);
    for (int r = 0; r < TILE; r++) places[r] = reals(s, NULL, (n - 1) * stride + 1);
    s->k->tile_load(rows, stride, n, tile, largest), add_doubles(largest, TILE);
    s->k->tile_select(below(in, 2) ? any_reals(s, in, n * TILE) : NULL, n, tile, largest);
    add_reals(s, tile, n * TILE), add_doubles(largest, TILE);
    memcpy(e, tile, (size_t)(n * TILE * s->t->size));
    s->k->tile_exp_sum(e, n, largest, inv, NULL, coarse, fine), add_reals(s, e, n * TILE);
    add_doubles(coarse, TILE), add_doubles(fine, TILE);
    s->k->tile_variance(e, n, hi, lo, coarse, fine, weight, out), add_reals(s, out, n * TILE);
    memset(residue, 0, sizeof residue);
    void *masses = any_reals(s, in, n * TILE);
    const cysoftmax_gradient g = {.hi = hi,
                                  .lo = lo,
                                  .coarse = coarse,
                                  .fine = fine,
                                  .rest_from = any_doubles(in, TILE),
                                  .target_mass = any_doubles(in, TILE),
                                  .surplus = residue,
                                  .target_weight = weight,
                                  .a = masses,
                                  .base = below(in, 2) ? any_reals(s, in, n * TILE) : NULL,
                                  .base_weight = below(in, 2) ? any_doubles(in, TILE) : NULL};
    s->k->tile_gradient(e, n, &g), add_reals(s, e, n * TILE);
    const int n_rows = 1 + below(in, TILE);
    s->k->tile_store(e, n, below(in, 2) ? hi : NULL, lo, places, stride, n_rows);
    for (int r = 0; r < n_rows; r++) add_reals(s, places[r], (n - 1) * stride + 1);
    s->k->tile_log(tile, n, largest, inv, hi), add_reals(s, tile, n * TILE);
}

static void tile_of_sums(const subject *s, source *in, ptrdiff_t n) {
    double hi[TILE], lo[TILE];
    ptrdiff_t index[TILE];
    void *a = any_reals(s, in, n * TILE), *x = any_reals(s, in, n * TILE);
    const double *shift = any_doubles(in, TILE);
    add(s->k->tile_sum(a, n, hi, lo)), add_doubles(hi, TILE), add_doubles(lo, TILE);
    s->k->tile_dot(a, x, n, below(in, 2) ? shift : NULL, hi, lo);
    add_doubles(hi, TILE), add_doubles(lo, TILE);
    s->k->tile_index_of(x, n, shift, index);
    for (int r = 0; r < TILE; r++) add((double)index[r]);
    s->k->tile_vjp(a, x, n, hi, lo), add_reals(s, a, n * TILE);
    s->k->tile_multiply(a, any_reals(s, in, n), n), add_reals(s, a, n * TILE);
    s->k->tile_scale(a, n, any_doubles(in, TILE), any_doubles(in, TILE));
    add_reals(s, a, n * TILE);
    s->k->tile_mask(any_reals(s, in, n * TILE), n, *any_doubles(in, 1), a);
    s->k->tile_skip(any_bytes(in, TILE), n, *any_doubles(in, 1), a), add_reals(s, a, n * TILE);
}

static void adjacent_tiles(const subject *s, source *in, ptrdiff_t n) {
    const int n_tiles = 1 + below(in, CYSOFTMAX_TILES), edged = below(in, 2);
    const ptrdiff_t width = (ptrdiff_t)n_tiles * TILE, stride = width + below(in, 9);
    const ptrdiff_t reach = (n - 1) * stride + width, pitch = n * TILE;
    double largest[CYSOFTMAX_TILES * TILE];
    const double *hi = any_doubles(in, width), *lo = any_doubles(in, width);
    void *tiles = reals(s, NULL, pitch * n_tiles), *out = reals(s, NULL, reach);
    s->k->tiles_load(any_reals(s, in, reach), stride, n, n_tiles, tiles, pitch, largest);
    add_doubles(largest, width), add_reals(s, tiles, pitch * n_tiles);
    s->k->tiles_vjp(any_reals(s, in, reach), stride, any_reals(s, in, reach), stride, n, n_tiles,
                    tiles, pitch);
    add_reals(s, tiles, pitch * n_tiles);
    s->k->tiles_store(tiles, pitch, n, n_tiles, below(in, 2) ? hi : NULL, lo, out, stride,
                      edged ? allocate(64 * n) : NULL, 0, 0);
    add_reals(s, out, reach);
}

// ---------------------------------------------------------------- the few numbers of rows

static void doubles_of_rows(const subject *s, source *in, ptrdiff_t n) {
    const cysoftmax_doubles *d = s->isa->doubles;
    const double *a = any_doubles(in, n), *b = any_doubles(in, n), *c = any_doubles(in, n);
    double *hi = allocate(n * (ptrdiff_t)sizeof *hi), *lo = allocate(n * (ptrdiff_t)sizeof *lo);
    const cysoftmax_masses masses = {a, b, c, 0.9};
    ptrdiff_t *y = any_bytes(in, n * (ptrdiff_t)sizeof *y);
    char *ignored = allocate(n);
    double found[3];
    d->log_total(a, b, n, hi), add_doubles(hi, n);
    d->divide(a, b, c, n, hi, lo), add_doubles(hi, n), add_doubles(lo, n);
    add(d->outside(a, n, 0x1p-80, 0x1p80));
    if (d->extent(a, n, found)) add_doubles(found, 3);
    d->numerators(&masses, below(in, 2) ? c : NULL, n, hi), add_doubles(hi, n);
    d->losses(&masses, a, b, c, n, hi), add_doubles(hi, n);
    add(d->rest_thresholds(a, b, n, lo)), add_doubles(lo, n);
    const ptrdiff_t n_classes = 1 + below(in, 1000);
    add(d->check_labels(y, n, n_classes, below(in, 2), below(in, 2) ? -1 : y[0], ignored));
    for (ptrdiff_t i = 0; i < n; i++) {
        if (y[i] < 0 || y[i] >= n_classes) abort(); // a label out of range would be an index
        add((double)y[i]), add(ignored[i]);
    }
    d->clear(ignored, n, hi), add_doubles(hi, n);
    const ptrdiff_t item = (ptrdiff_t)1 << below(in, 4), gap = below(in, 2),
                    some = 1 + n_classes % 9;
    const cysoftmax_entries e = {item, item * (1 + gap), item * (some + below(in, 2)) * (1 + gap),
                                 below(in, 2), (uint64_t)-1 >> below(in, 9)};
    const int found = d->one_hot(any_bytes(in, n * (some + 1) * (1 + gap) * item), &e, n, some, y);
    for (ptrdiff_t i = 0; i < n; i++)
        if (found && (y[i] < -1 || y[i] >= some)) abort();
    add(found);
}

typedef void kernels_on(const subject *s, source *in, ptrdiff_t n);
static const struct {
    kernels_on *run;
    int most;
} WAYS[] = {
    {row_of_exps, MAX_N}, {row_of_sums, MAX_N}, {row_of_numbers, MAX_N}, {streamed_rows, 300},
    {tile_of_exps, 40},   {tile_of_sums, 40},   {adjacent_tiles, 40},    {doubles_of_rows, TILE},
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint64_t want = 0;
    int several = 0;
    for (const cysoftmax_isa *isa = cysoftmax_isas; isa->name; isa++) {
        if (!isa->available()) continue;
        source in = {data, size, 0};
        const subject s = subject_of(isa, below(&in, N_DTYPES));
        const int way = below(&in, COUNT(WAYS));
        digest = 0xcbf29ce484222325u;
        WAYS[way].run(&s, &in, 1 + below(&in, WAYS[way].most));
        release();
        if (!s.fused) continue;
        if (several++ && digest != want) {
            fprintf(stderr, "%s has other bits, way %d\n", isa->name, way);
            abort();
        }
        want = digest;
    }
    return 0;
}
