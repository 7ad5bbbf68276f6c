// The kernels for sixteen rows at a time: every layout, and the bits of the kernels for one row.

#include "harness.h"
#include "tests.h"

// How 16 rows may lie in memory: `stride` reals from class to class, and from row to row
// between + n between_per_class for n classes; `jump` more before the last five.
static const struct {
    const char *name;
    ptrdiff_t stride, between, between_per_class;
    int disjoint; // so that they can be stored to
    ptrdiff_t jump;
} LAYOUTS[] = {
    {"packed rows", 1, 0, 1, 1, 0},
    {"packed rows of two arrays", 1, 0, 1, 1, 3},
    {"strided rows of two arrays", 2, 0, 2, 1, 7},
    {"rows with gaps", 1, 5, 1, 1, 0},
    {"every third class", 3, 1, 3, 1, 0},
    {"backwards", -1, 2, 1, 1, 0},
    {"side by side", 16, 1, 0, 1, 0},
    {"side by side with gaps", 19, 1, 0, 1, 0},
    {"every second of side by side", 35, 2, 0, 1, 0},
    {"each shifted by one class", 1, 1, 0, 0, 0},
    {"broadcast", 0, 1, 0, 0, 0},
};

// The 16 rows of a layout in a fresh array; returns it, and in *reach how many reals it has.
static void *lay_out(const subject *s, int layout, ptrdiff_t n, void **rows, ptrdiff_t *reach) {
    const ptrdiff_t stride = LAYOUTS[layout].stride;
    const ptrdiff_t between = LAYOUTS[layout].between + n * LAYOUTS[layout].between_per_class;
    *reach =
        LAYOUTS[layout].jump + (TILE - 1) * between + (n - 1) * (stride < 0 ? -stride : stride) + 1;
    void *memory = reals(s, NULL, *reach);
    uint64_t seed = (uint64_t)n;
    for (ptrdiff_t i = 0; i < *reach; i++) put(s, memory, i, noise(&seed));
    for (int r = 0; r < TILE; r++)
        rows[r] = at(s, memory,
                     r * between + (stride < 0 ? (1 - n) * stride : 0) +
                         (r > 10 ? LAYOUTS[layout].jump : 0));
    return memory;
}

void tile_load_gathers_every_layout(const subject *s) {
    double largest[TILE];
    void *rows[TILE];
    ptrdiff_t reach;
    for (int l = 0; l < COUNT(LAYOUTS); l++)
        for (ptrdiff_t n = 1; n <= SHORT; n++, release()) {
            int ok = 1;
            void *tile = guarded(s, n * TILE, 0);
            lay_out(s, l, n, rows, &reach);
            s->k->tile_load((const void *const *)rows, LAYOUTS[l].stride, n, tile, largest);
            for (int r = 0; r < TILE; r++) {
                double most = -HUGE_VAL;
                for (ptrdiff_t c = 0; c < n; c++) {
                    const double x = get(s, rows[r], c * LAYOUTS[l].stride);
                    ok &= get(s, tile, c * TILE + r) == x;
                    most = max(most, x);
                }
                ok &= largest[r] == most;
            }
            check(s, ok && canaries_live(s, tile, n * TILE), __func__, "%s, n = %td",
                  LAYOUTS[l].name, n);
        }
}

// Rows so short that several share a vector, at every offset from a cache line. A vector that
// reaches into the next row must not take its numbers for those of this one, and the last row
// has nothing behind it.
void rows_of_few_classes_are_loaded_from_nowhere_else(const subject *s) {
    double largest[TILE];
    void *rows[TILE];
    for (ptrdiff_t n = 1; n <= 4; n++)
        for (ptrdiff_t offset = 0; offset < 64 / s->t->size; offset++)
            for (int falling = 0; falling < 2; falling++, release()) {
                int ok = 1;
                void *x = at(s, reals(s, NULL, offset + n * TILE), offset);
                void *tile = guarded(s, n * TILE, 0);
                for (ptrdiff_t i = 0; i < n * TILE; i++)
                    put(s, x, i, i % 13 == 5 ? NAN : (double)(falling ? -i : i));
                for (int r = 0; r < TILE; r++) rows[r] = at(s, x, r * n);
                s->k->tile_load((const void *const *)rows, 1, n, tile, largest);
                for (int r = 0; r < TILE; r++)
                    ok &= row_of_tile_is(s, tile, r, rows[r], n) &&
                          largest[r] == s->k->max(rows[r], n);
                CHECK(ok && canaries_live(s, tile, n * TILE), n);
            }
}

// What rows are scaled with: each has a factor of its own.
typedef struct {
    double hi[CYSOFTMAX_TILES * TILE], lo[CYSOFTMAX_TILES * TILE];
} row_factors;

static const row_factors *some_factors(void) {
    static row_factors f;
    for (int r = 0; r < COUNT(f.hi); r++) {
        f.hi[r] = 0.01 + r / 7.0;
        f.lo[r] = f.hi[r] * 0x1p-55;
    }
    return &f;
}

static void check_tile_store(const subject *s, int layout, ptrdiff_t n, int n_rows, int scaled) {
    const ptrdiff_t stride = LAYOUTS[layout].stride;
    const row_factors *f = some_factors();
    void *rows[TILE], *tile = reals(s, NULL, n * TILE);
    ptrdiff_t reach;
    uint64_t seed = 7;
    for (ptrdiff_t i = 0; i < n * TILE; i++) put(s, tile, i, noise(&seed));
    void *memory = lay_out(s, layout, n, rows, &reach), *before = copy(s, memory, reach);
    void *stored = copy(s, tile, n * TILE);
    if (scaled) s->k->tile_scale(stored, n, f->hi, f->lo);
    for (int r = 0; r < n_rows; r++)
        for (ptrdiff_t c = 0; c < n; c++) put(s, rows[r], c * stride, get(s, stored, c * TILE + r));
    void *expected = copy(s, memory, reach);
    memcpy(memory, before, (size_t)(reach * s->t->size));
    for (int r = n_rows; r < TILE; r++) rows[r] = rows[0];
    s->k->tile_store(tile, n, scaled ? f->hi : NULL, f->lo, rows, stride, n_rows);
    check(s, same_reals(s, memory, expected, reach), "tile_store_scatters_and_writes_nothing_else",
          "%s, n = %td, %d rows", LAYOUTS[layout].name, n, n_rows);
}

void tile_store_scatters_and_writes_nothing_else(const subject *s) {
    for (int l = 0; l < COUNT(LAYOUTS); l++)
        for (ptrdiff_t n = 1; n <= SHORT && LAYOUTS[l].disjoint; n++)
            for (int n_rows = 1; n_rows <= TILE; n_rows += n > 20 && n_rows < 15 ? 7 : 1, release())
                for (int scaled = 0; scaled < 2; scaled++)
                    check_tile_store(s, l, n, n_rows, scaled);
}

// Sixteen rows that follow each other; or all but the last do, which lies `apart`.
static void check_short_store(const subject *s, ptrdiff_t n, ptrdiff_t offset, int apart,
                              int scaled) {
    const row_factors *f = some_factors();
    const ptrdiff_t reach = (TILE + (apart ? 2 : 0)) * n;
    void *rows[TILE], *tile = reals(s, NULL, n * TILE);
    uint64_t seed = (uint64_t)(n + offset);
    for (ptrdiff_t i = 0; i < n * TILE; i++) put(s, tile, i, i % 11 == 3 ? NAN : noise(&seed));
    void *stored = copy(s, tile, n * TILE), *before = copy(s, tile, n * TILE);
    if (scaled) s->k->tile_scale(stored, n, f->hi, f->lo);
    void *out = guarded(s, reach, offset);
    for (ptrdiff_t i = 0; i < reach; i++) put(s, out, i, 42);
    for (int r = 0; r < TILE; r++) rows[r] = at(s, out, r * n);
    if (apart) rows[TILE - 1] = at(s, out, (TILE + 1) * n);
    s->k->tile_store(tile, n, scaled ? f->hi : NULL, f->lo, rows, 1, TILE);
    int ok = canaries_live(s, out, reach) && same_reals(s, tile, before, n * TILE);
    for (int r = 0; r < TILE; r++) ok &= row_of_tile_is(s, stored, r, rows[r], n);
    for (ptrdiff_t i = (TILE - 1) * n; i < (TILE + 1) * n && apart; i++) ok &= get(s, out, i) == 42;
    check(s, ok, "rows_of_few_classes_are_stored_nowhere_else", "n = %td, offset %td", n, offset);
}

void rows_of_few_classes_are_stored_nowhere_else(const subject *s) {
    for (ptrdiff_t n = 1; n <= 4; n++)
        for (ptrdiff_t offset = 0; offset < 64 / s->t->size; offset++)
            for (int k = 0; k < 4; k++, release()) check_short_store(s, n, offset, k % 2, k / 2);
}

// Tiles side by side, stored all at once, or `some` at a time.
static void store_tiles(const subject *s, const char *tiles, ptrdiff_t pitch, ptrdiff_t n,
                        int n_tiles, int some, int scaled, char *out, ptrdiff_t stride,
                        void *edges) {
    const row_factors *f = some_factors();
    for (int t = 0; t < n_tiles; t += some) {
        const int now = t + some < n_tiles ? some : n_tiles - t;
        s->k->tiles_store(tiles + t * pitch * s->t->size, pitch, n, now,
                          scaled ? f->hi + t * TILE : NULL, f->lo + t * TILE,
                          out + t * TILE * s->t->size, stride, edges, t > 0, t + now < n_tiles);
    }
}

// At every offset from a cache line.
void tiles_store_undoes_tiles_load_and_writes_nothing_else(const subject *s) {
    for (ptrdiff_t n = 1; n <= 5; n += 2)
        for (int n_tiles = 1; n_tiles <= 5; n_tiles++)
            for (ptrdiff_t offset = 0; offset < 64 / s->t->size; offset++, release()) {
                const ptrdiff_t width = n_tiles * TILE, pitch = n * TILE + 3, stride = width + 5;
                const ptrdiff_t reach = (n - 1) * stride + width;
                void *x = reals(s, NULL, reach), *tiles = reals(s, NULL, n_tiles * pitch);
                void *edges = reals(s, NULL, n * 64 / s->t->size);
                double largest[CYSOFTMAX_TILES * TILE];
                uint64_t seed = (uint64_t)offset;
                int ok = 1;
                for (ptrdiff_t i = 0; i < reach; i++) put(s, x, i, noise(&seed));
                s->k->tiles_load(x, stride, n, n_tiles, tiles, pitch, largest);
                for (ptrdiff_t c = 0; c < n; c++)
                    for (ptrdiff_t r = 0; r < width; r++)
                        ok &= get(s, x, c * stride + r) ==
                              get(s, tiles, r / TILE * pitch + c * TILE + r % TILE);
                char *stored = copy(s, tiles, n_tiles * pitch);
                for (int i = 0; i <= 2 * n_tiles + 1; i++) {
                    const int scaled = i > n_tiles, some = i % (n_tiles + 1);
                    void *out = guarded(s, reach, offset);
                    for (int t = 0; t < n_tiles && i == n_tiles + 1; t++)
                        s->k->tile_scale(stored + t * pitch * s->t->size, n,
                                         some_factors()->hi + t * TILE,
                                         some_factors()->lo + t * TILE);
                    for (ptrdiff_t j = 0; j < reach; j++) put(s, out, j, 42);
                    store_tiles(s, tiles, pitch, n, n_tiles, some > 0 ? some : n_tiles, scaled, out,
                                stride, some > 0 ? edges : NULL);
                    ok &= canaries_live(s, out, reach);
                    for (ptrdiff_t j = 0; j < reach; j++) {
                        const ptrdiff_t c = j / stride, r = j % stride;
                        const ptrdiff_t place = r / TILE * pitch + c * TILE + r % TILE;
                        ok &= get(s, out, j) == (r < width ? get(s, stored, place) : 42);
                    }
                }
                CHECK(ok, n);
            }
}

static void tile_sums_are_those_of_the_rows(const subject *s, tile16 *t) {
    void *e = reals(s, NULL, t->n);
    double coarse, fine;
    void *ahead = copy(s, t->logits, t->n * TILE);
    cysoftmax_next_tiles next = {.x = ahead, .also = ahead, .stride = TILE};
    s->k->tile_exp_sum(t->tile, t->n, t->shift, t->inv_temperature, &next, t->coarse, t->fine);
    CHECK(same_reals(s, ahead, t->logits, t->n * TILE), t->n);
    CHECK(canaries_live(s, t->tile, t->n * TILE), t->n);
    for (int r = 0; r < TILE; r++) {
        CHECK(t->shift[r] == s->k->max(t->rows[r], t->n), t->n);
        s->k->exp_sum(t->rows[r], t->n, t->shift[r], t->inv_temperature, NULL, e, &coarse, &fine);
        CHECK(same_bits(t->coarse[r], coarse) && same_bits(t->fine[r], fine), t->n);
        CHECK(row_of_tile_is(s, t->tile, r, e, t->n), t->n);
        t->log[r] = log_total(s, coarse, fine);
    }
}

// One class in each of the first rows; every third row has NULL.
static void minus_rest_of_several_is_that_of_each_and_passes_over_null(const subject *s,
                                                                       const tile16 *t) {
    void *e = copy(s, t->tile, t->n * TILE), *expected = copy(s, t->tile, t->n * TILE);
    for (int n_rows = 0; n_rows <= TILE; n_rows++) {
        void *places[TILE];
        for (int r = 0; r < TILE; r++)
            places[r] = r % 3 == 1 ? NULL : at(s, e, (r + n_rows) % t->n * TILE + r);
        memcpy(e, t->tile, (size_t)(t->n * TILE * s->t->size));
        memcpy(expected, t->tile, (size_t)(t->n * TILE * s->t->size));
        s->k->minus_rest(places, t->coarse, t->fine, n_rows);
        for (int r = 0; r < n_rows; r++)
            if (r % 3 != 1)
                minus_rest(s, at(s, expected, r), (r + n_rows) % t->n, TILE, t->coarse[r],
                           t->fine[r]);
        CHECK(same_reals(s, e, expected, t->n * TILE), t->n);
    }
}

static void tile_outputs_are_those_of_the_rows(const subject *s, tile16 *t) {
    void *e = copy(s, t->tile, t->n * TILE), *out = reals(s, NULL, t->n), *row = copy(s, out, t->n);
    void *variance = reals(s, NULL, t->n * TILE);
    double ones[TILE], weight[TILE];
    for (int r = 0; r < TILE; r++) ones[r] = 1, weight[r] = 0.1 * r;
    s->isa->doubles->divide(ones, t->coarse, t->fine, TILE, t->hi, t->lo);
    s->k->tile_variance(t->tile, t->n, t->hi, t->lo, t->coarse, t->fine, weight, variance);
    CHECK(same_reals(s, t->tile, e, t->n * TILE), t->n);
    s->k->tile_scale(t->tile, t->n, t->hi, t->lo);
    s->k->tile_log(t->logits, t->n, t->shift, t->inv_temperature, t->log);
    CHECK(canaries_live(s, t->tile, t->n * TILE), t->n);
    for (int r = 0; r < TILE; r++) {
        for (ptrdiff_t c = 0; c < t->n; c++) put(s, row, c, get(s, e, c * TILE + r));
        s->k->scale(row, t->n, t->hi[r], t->lo[r], NULL, 0, NULL, 0, out);
        CHECK(row_of_tile_is(s, t->tile, r, out, t->n), t->n);
        s->k->log(t->rows[r], t->n, t->shift[r], t->inv_temperature, t->log[r], out);
        CHECK(row_of_tile_is(s, t->logits, r, out, t->n), t->n);
        s->k->variance(row, t->n, t->hi[r], t->lo[r], t->coarse[r], t->fine[r], weight[r], out);
        CHECK(row_of_tile_is(s, variance, r, out, t->n), t->n);
    }
}

void tile_variance_writes_nothing_else(const subject *s) {
    static double each[TILE];
    for (int r = 0; r < TILE; r++) each[r] = 0.25 + r;
    for (ptrdiff_t n = 1; n <= SHORT; n++, release()) {
        void *tile = reals(s, NULL, n * TILE), *expected = reals(s, NULL, n * TILE);
        void *out = guarded(s, n * TILE, 0);
        uint64_t seed = (uint64_t)n;
        for (ptrdiff_t i = 0; i < n * TILE; i++) put(s, tile, i, noise(&seed));
        s->k->tile_variance(tile, n, each, each, each, each, each, expected);
        s->k->tile_variance(tile, n, each, each, each, each, each, out);
        CHECK(same_reals(s, out, expected, n * TILE) && canaries_live(s, out, n * TILE), n);
    }
}

// While the sums of n_tiles tiles are taken, the next tiles are copied.
static void check_next_tiles(const subject *s, tile16 *t, int n_tiles) {
    const ptrdiff_t n = t->n, width = n_tiles * TILE, pitch = n * TILE + 3, stride = width + 5;
    const ptrdiff_t reach = (n - 1) * stride + width, room = n_tiles * pitch;
    char *x = reals(s, NULL, reach);
    void *expected = reals(s, NULL, room), *copied = reals(s, NULL, room);
    void *largest = reals(s, NULL, width);
    double coarse[TILE], fine[TILE], loaded[CYSOFTMAX_TILES * TILE];
    uint64_t seed = (uint64_t)n;
    int ok = 1;
    for (ptrdiff_t i = 0; i < reach; i++) put(s, x, i, i % 7 == 3 ? NAN : noise(&seed));
    for (ptrdiff_t i = 0; i < width; i++) put(s, largest, i, -INFINITY);
    s->k->tiles_load(x, stride, n, n_tiles, expected, pitch, loaded);
    cysoftmax_next_tiles next = {x, NULL, stride, copied, pitch, width, 0, largest};
    for (int i = 0; i < n_tiles; i++) {
        void *tile = copy(s, t->logits, n * TILE);
        s->k->tile_exp_sum(tile, n, t->shift, t->inv_temperature, &next, coarse, fine);
        ok &= same_reals(s, tile, t->tile, n * TILE);
        for (int r = 0; r < TILE; r++)
            ok &= same_bits(coarse[r], t->coarse[r]) && same_bits(fine[r], t->fine[r]);
    }
    for (ptrdiff_t i = 0; i < width; i++) {
        double most = -HUGE_VAL;
        for (ptrdiff_t c = 0; c < n; c++)
            if (get(s, x, c * stride + i) > most) most = get(s, x, c * stride + i);
        ok &= get(s, largest, i) == most && loaded[i] == most;
    }
    CHECK(ok && same_reals(s, copied, expected, room), n);
}

void tiles_agree_with_rows_to_the_last_bit(const subject *s) {
    tile16 t;
    double inv_temperature[2];
    for (int i = 0; i < LENGTHS; i++)
        for (int k = 0; k < 4; k++, release()) {
            const int broken = k % 2, tempered = k / 2;
            make_inverse(some_temperature(i), inv_temperature);
            make_tile(s, &t, length(i), broken, tempered ? inv_temperature : NULL);
            tile_sums_are_those_of_the_rows(s, &t);
            check_next_tiles(s, &t, 1 + i % 5);
            minus_rest_of_several_is_that_of_each_and_passes_over_null(s, &t);
            tile_outputs_are_those_of_the_rows(s, &t);
        }
}
