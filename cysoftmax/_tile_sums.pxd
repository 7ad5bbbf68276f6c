# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# What is summed over the classes of sixteen rows, chunk by chunk, and what is looked for among
# them. Touches one tile of each kind, and the numbers of its rows.

from libc.math cimport INFINITY, isfinite, isinf, isnan
from libc.string cimport memset

from cysoftmax._block cimport Block
from cysoftmax._job cimport LABELS, Job
from cysoftmax._kernels cimport CHUNK, TILE, NextTiles
from cysoftmax._numbers cimport all_finite, real_at
from cysoftmax._scratch cimport Scratch
from cysoftmax._sums cimport (
    Pair, Total, add, add_terms, chunk_size, chunks, finish)
from cysoftmax._tile_arrays cimport tile_of

cdef enum TileSum:                  # what total_tile sums
    MASSES                          # a
    PRODUCTS                        # a (x - shift), 0 where a is 0; a x if shift is NULL
    DIFFERENCES                     # a (x - shift), none positive; a is ones if NULL


# ---------------------------------------------------------------- sums

cdef inline void sum_chunk(const Job *job, TileSum what, const char *a, const char *x,
                           const double *shift, ptrdiff_t k, double *hi, double *lo) noexcept nogil:
    """Sum one chunk of the classes of a tile."""
    cdef ptrdiff_t at = k * CHUNK * TILE * job.itemsize, n = chunk_size(job.n_classes, k)
    if what == MASSES:
        job.kernels.tile_sum(a + at, n, hi, lo)
    elif what == DIFFERENCES:
        job.kernels.tile_diff_sum(a + at if a != NULL else NULL, x + at, n, shift, hi, lo)
    else:
        job.kernels.tile_dot(a + at, x + at, n, shift, hi, lo)


cdef inline void total_tile(const Job *job, TileSum what, const char *a, const char *x,
                            const double *shift, double *coarse, double *fine) noexcept nogil:
    """Sum all classes of each row of a tile, chunk by chunk, as coarse + fine."""
    cdef double[TILE] hi, lo
    cdef Total total[TILE]
    cdef ptrdiff_t k
    sum_chunk(job, what, a, x, shift, 0, coarse, fine)
    if job.n_classes <= CHUNK:
        return
    begin_totals(total, coarse, fine)
    for k in range(1, chunks(job.n_classes)):
        sum_chunk(job, what, a, x, shift, k, hi, lo)
        add_to_totals(total, hi, lo)
    finish_totals(total, coarse, fine)


cdef inline bint total_masses(const Job *job, const char *a, double *total) noexcept nogil:
    """Sum all classes of each row of a tile; return whether a row may have the sum 0."""
    cdef double[TILE] fine
    cdef int r
    if job.n_classes <= CHUNK:
        return job.kernels.tile_sum(a, job.n_classes, total, NULL)
    total_tile(job, MASSES, a, NULL, NULL, total, fine)
    for r in range(TILE):
        total[r] += fine[r]
    return True


cdef inline void begin_totals(Total *total, const double *hi, const double *lo) noexcept nogil:
    """Begin the totals of sixteen rows with the sums of their first chunk."""
    cdef int r
    for r in range(TILE):
        total[r] = Total(hi[r], lo[r], 0)


cdef inline void add_to_totals(Total *total, const double *hi, const double *lo) noexcept nogil:
    """Add the sums of the next chunk."""
    cdef int r
    for r in range(TILE):
        add(&total[r], Pair(hi[r], lo[r]))


cdef inline void finish_totals(Total *total, double *coarse, double *fine) noexcept nogil:
    """Return the totals of sixteen rows."""
    cdef int r
    for r in range(TILE):
        finish(&total[r])
        coarse[r] = total[r].coarse
        fine[r] = total[r].fine


cdef inline void tile_sums(const Job *job, Block *b, int begin, char *tile,
                           NextTiles *next_tiles) noexcept nogil:
    """Sum exp(d) for each row of a tile, chunk by chunk; exps take the place of the logits."""
    cdef double[TILE] coarse, fine
    cdef Total total[TILE]
    cdef ptrdiff_t k
    job.kernels.tile_exp_sum(
        tile, chunk_size(job.n_classes, 0), b.shift + begin, job.loss.inv_temperature,
        next_tiles if next_tiles.x != NULL else NULL, b.coarse + begin, b.fine + begin)
    if job.n_classes <= CHUNK:
        return
    begin_totals(total, b.coarse + begin, b.fine + begin)
    for k in range(1, chunks(job.n_classes)):
        job.kernels.tile_exp_sum(
            tile + k * CHUNK * TILE * job.itemsize, chunk_size(job.n_classes, k),
            b.shift + begin, job.loss.inv_temperature,
            next_tiles if next_tiles.tiles != NULL else NULL, coarse, fine)
        add_to_totals(total, coarse, fine)
    finish_totals(total, b.coarse + begin, b.fine + begin)


cdef inline void mend_dots(const Job *job, const Block *b, int t, const char *a, const char *x,
                           double *hi, double *lo) noexcept nogil:
    """Sum again, term by term in double, the dots that overflowed."""
    cdef Total total
    cdef int r
    if all_finite(hi, TILE):
        return
    for r in range(min(TILE, b.n_rows - t * TILE)):
        if isfinite(hi[r]) or b.ignored[t * TILE + r]:
            continue
        total = Total(0, 0, 0)
        add_terms(job, a + r * job.itemsize if a != NULL else NULL, x + r * job.itemsize,
                  job.n_classes, TILE, b.shift[t * TILE + r], &total)
        finish(&total)
        hi[r] = total.coarse
        lo[r] = total.fine


# ---------------------------------------------------------------- statistics, NaN

cdef inline void tile_stats(const Job *job, Scratch *s, Block *b, int t,
                            const char *e) noexcept nogil:
    """Compute what statistics need besides the sums of the exps of sixteen rows."""
    cdef const char *x = tile_of(job, s.second, t)
    cdef double[TILE] zero, fine
    cdef int begin = t * TILE, r
    total_tile(job, PRODUCTS, e, x, b.shift + begin, b.entropy_dot + begin, fine)
    for r in range(TILE):
        b.entropy_dot[begin + r] += fine[r]
    if job.plan.by_mass:
        memset(zero, 0, sizeof(zero))
        total_tile(job, PRODUCTS, tile_of(job, s.target, t), e, zero, b.target_exp + begin, fine)
        for r in range(TILE):
            b.target_exp[begin + r] += fine[r]
    elif job.target_is == LABELS:
        for r in range(TILE):
            b.target_exp[begin + r] = real_at(
                job, e, b.label[begin + r] * TILE + r, job.n_classes * TILE)
    job.kernels.tile_index_of(x, job.n_classes, b.shift + begin, b.arg_max + begin)
    for r in range(min(TILE, b.n_rows - begin)):
        if isnan(b.coarse[begin + r]) or isnan(b.fine[begin + r]):
            nan_arg_max(job, s, b, t, r, x)


cdef inline void nan_arg_max(const Job *job, Scratch *s, Block *b, int t, int r,
                             const char *x) noexcept nogil:
    """Find the argmax of a row whose sum is NaN: the first NaN; or without one, if all logits are
    -inf, the first class that is not masked."""
    cdef const char *mask
    cdef ptrdiff_t c = first_nan(job, x, r)
    if c < job.n_classes:
        b.arg_max[t * TILE + r] = c
    elif job.where.data != NULL and b.shift[t * TILE + r] == -INFINITY:
        mask = tile_of(job, s.mask_tiles, t)
        c = 0
        while c < job.n_classes and real_at(job, mask, c * TILE + r, job.n_classes * TILE) == 0:
            c += 1
        b.arg_max[t * TILE + r] = c


cdef inline void note_nans(const Job *job, Block *b, int begin, const char *tile) noexcept nogil:
    """Find out whether rows of a tile that have an infinite maximum also have a NaN."""
    cdef ptrdiff_t c
    cdef int r
    for r in range(min(TILE, b.n_rows - begin)):
        if isinf(b.shift[begin + r]):
            c = first_nan(job, tile, r)
            b.has_nan[begin + r] = c < job.n_classes


cdef inline ptrdiff_t first_nan(const Job *job, const char *tile, int r) noexcept nogil:
    """Return the first class of row r of a tile that is NaN, or n_classes."""
    cdef ptrdiff_t c
    for c in range(job.n_classes):
        if isnan(real_at(job, tile, c * TILE + r, job.n_classes * TILE)):
            return c
    return job.n_classes
