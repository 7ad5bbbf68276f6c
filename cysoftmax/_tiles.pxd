# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# The way TILES: sixteen rows side by side, class by class (tile[c * 16 + row]): for few classes,
# and for strided ones. A part is a whole block of up to eight tiles. Each stage does one step for
# all tiles before the next, so that no row waits for its own numbers, and of strided classes a
# few cache lines that lie together are read or written at a time. Touches the tiles of one thread,
# and one block.

from libc.math cimport INFINITY
from libc.string cimport memcpy, memset

from cysoftmax._block cimport MOST_ROWS, Block
from cysoftmax._extremes cimport variance_weight
from cysoftmax._formula cimport numerator_of
from cysoftmax._given cimport take_shifts
from cysoftmax._job cimport LABELS, VECTOR, Job, evenly_spaced, row_at
from cysoftmax._kernels cimport TILE, NextTiles
from cysoftmax._numbers cimport put_real, raise_reals, real_at
from cysoftmax._scratch cimport Scratch
from cysoftmax._sums cimport count_sixteens
from cysoftmax._tile_arrays cimport load_array, rows_adjacent, store_array, store_tile, tile_of
from cysoftmax._tile_sums cimport note_nans, tile_stats, tile_sums
from cysoftmax._tile_targets cimport open_tiles, tile_dots, tile_gradient, weigh_rows_of_tile
from cysoftmax._what cimport GRAD, LOGSUMEXP, LOG_SOFTMAX, LOSS, SOFTMAX, STATS, VARIANCE, VJP
from cysoftmax._write cimport masked_value

# ---------------------------------------------------------------- load

cdef inline void load_tiles(const Job *job, Scratch *s, Block *b) noexcept nogil:
    """Load the logits of a block's rows, and their maxima, unless they were copied ahead."""
    cdef char *tiles = s.buffers[s.current]
    cdef int t, r
    if job.plan.reads_rows:
        open_tiles(job, s, b, job.plan.has_dots)
    if s.tiles_ready == b.first:
        for r in range(b.n_rows):
            b.shift[r] = real_at(job, s.largest, r, MOST_ROWS)
    else:
        load_array(job, s, &job.x, b, tiles, b.shift)
    if job.target_is == VECTOR:
        load_array(job, s, &job.target, b, s.target, b.shift)
    if job.where.data != NULL:
        for t in range(count_sixteens(b.n_rows)):
            mask_logits(job, s, b, t, tile_of(job, tiles, t))
    take_shifts(job, b, 0, b.n_rows)


cdef inline void mask_logits(const Job *job, Scratch *s, Block *b, int t,
                             char *tile) noexcept nogil:
    """Make the masked logits of a tile -inf. Only where that may be all of a row, what its mask
    leaves is counted, unless that was done before."""
    cdef int r, any_empty = 0
    job.kernels.tile_select(tile_of(job, s.mask_tiles, t), job.n_classes, tile,
                            b.shift + t * TILE)
    for r in range(t * TILE, min((t + 1) * TILE, b.n_rows)):
        any_empty |= b.shift[r] == -INFINITY
    if any_empty and not job.plan.has_dots:
        weigh_rows_of_tile(job, s, b, t)


cdef inline ptrdiff_t next_spaced_block(const Job *job, const Block *b) noexcept nogil:
    """Return where the thread's next block begins if it is to be loaded ahead; else -1."""
    cdef ptrdiff_t first = b.first + job.plan.block_rows
    cdef ptrdiff_t thread_rows = job.plan.thread_blocks * job.plan.block_rows
    if (job.plan.loads_ahead and first % thread_rows != 0
            and first + job.plan.block_rows <= job.n_rows
            and evenly_spaced(job, first, job.plan.block_rows)):
        return first
    return -1


cdef inline void plan_ahead(const Job *job, Scratch *s, const Block *b) noexcept nogil:
    """Plan what is loaded while this block's exps are computed: rows that follow each other are
    prefetched, strided ones copied into the other buffer, which becomes the current one. (Strided
    classes are often a power of two apart, and then compete for a few sets of the cache: as many
    lines as a prefetch of the whole block would need do not stay there.)"""
    cdef ptrdiff_t next_block = next_spaced_block(job, b)
    cdef int r
    s.overlap.next_tiles = NextTiles(NULL, NULL, TILE, NULL, 0, 0, 0, NULL)
    s.tiles_ready = -1
    if next_block >= 0:
        s.tiles_ready = next_block
        s.current = 1 - s.current
        for r in range(job.plan.block_rows):
            put_real(job, s.largest, r, MOST_ROWS, -INFINITY)
        s.overlap.next_tiles = NextTiles(
            row_at(job, &job.x, next_block), NULL, job.x.step // job.itemsize, s.buffers[s.current],
            job.plan.tile_stride // job.itemsize, job.plan.block_rows, 0, s.largest)


# ---------------------------------------------------------------- reduce

cdef inline void reduce_tiles(const Job *job, Scratch *s, Block *b, char *tiles) noexcept nogil:
    """Compute the sums of a block's rows; exps take the place of the logits in the tiles. The
    logits of labels are gathered long before they are used: a vector load right after the scalar
    stores would stall (store forwarding fails)."""
    cdef double[MOST_ROWS] gathered             # reals
    cdef int n_tiles = <int>count_sixteens(b.n_rows), t, r
    cdef bint labels = job.what & LOSS and job.target_is == LABELS
    cdef char *tile
    for t in range(n_tiles):
        tile = tile_of(job, tiles, t)
        if job.what & (LOG_SOFTMAX | STATS):
            memcpy(tile_of(job, s.second, t), tile, job.n_classes * TILE * job.itemsize)
        if labels:
            job.kernels.tile_gather(tile, job.n_classes, b.label + t * TILE,
                                    <char *>gathered + t * TILE * job.itemsize)
        if job.what & VJP or (job.what & LOSS and job.plan.has_dots):
            tile_dots(job, s, b, t, tile)
        if job.what & (LOGSUMEXP | STATS):
            note_nans(job, b, t * TILE, tile)
    if job.what & VJP:
        return
    plan_ahead(job, s, b)
    for t in range(n_tiles):
        if job.plan.x_row_by_row:
            s.overlap.next_tiles.x = row_at(
                job, &job.x, min(b.first + t * TILE + job.plan.block_rows, job.n_rows - 1))
        if job.plan.target_row_by_row:
            s.overlap.next_tiles.also = row_at(
                job, &job.target, min(b.first + t * TILE + job.plan.block_rows, job.n_rows - 1))
        tile_sums(job, b, t * TILE, tile_of(job, tiles, t), &s.overlap.next_tiles)
    if labels:
        for t in range(n_tiles):
            r = t * TILE
            job.kernels.terms(
                b.w.label_mass + (0 if b.alike else r), <char *>gathered + r * job.itemsize,
                b.shift + r, TILE, b.target_dot_hi + r, b.target_dot_lo + r)
    if job.what & STATS:
        for t in range(n_tiles):
            tile_stats(job, s, b, t, tile_of(job, tiles, t))


# ---------------------------------------------------------------- write

cdef inline void write_tiles(const Job *job, Scratch *s, Block *b,
                             char *tiles) noexcept nogil:
    """Write the outputs of a block's rows. Exps are scaled while they are stored, if nothing is
    subtracted or cleared afterwards and whole vectors are stored."""
    cdef char *outputs = s.second if job.what & LOG_SOFTMAX else tiles
    cdef bint spaced = evenly_spaced(job, b.first, b.n_rows)
    cdef bint out_adjacent = spaced and rows_adjacent(job, &job.out)
    cdef bint scaled = job.plan.scales_only and not (is_cleared(job, b) or b.raises) and (
        (spaced and job.plan.out_adjacent) or job.out.step == job.out.item)
    cdef double[MOST_ROWS] gathered         # reals
    cdef int n_tiles = <int>count_sixteens(b.n_rows), t
    if job.out.data == NULL:
        return
    if job.what & GRAD and job.target_is == LABELS:     # long before they are needed
        for t in range(n_tiles):
            job.kernels.tile_gather(tile_of(job, tiles, t), job.n_classes, b.label + t * TILE,
                                    <char *>gathered + t * TILE * job.itemsize)
    if b.any_skipped and scaled:
        skip_exps(job, b, tiles)
    for t in range(n_tiles):
        if job.what & VARIANCE:
            tile_variance(job, s, b, t, tile_of(job, tiles, t), tile_of(job, s.second, t))
        finish_tile(job, s, b, t, <char *>gathered + t * TILE * job.itemsize, scaled,
                    tile_of(job, outputs, t))
        if not out_adjacent:
            store_tile(job, s, &job.out, b, t * TILE, tile_of(job, outputs, t), scaled, True)
    if job.what & VARIANCE:
        store_array(job, s, &job.variance, b, s.second, False, False)
    if out_adjacent:
        store_array(job, s, &job.out, b, outputs, scaled, True)


cdef inline bint skips_all(const Block *b) noexcept nogil:
    """Return whether all rows of a block are skipped."""
    cdef int r, skipped = 0
    if not b.any_skipped:
        return False
    for r in range(b.n_rows):
        skipped += b.skipped[r]
    return skipped == b.n_rows


cdef inline void skip_tiles(const Job *job, Scratch *s, Block *b) noexcept nogil:
    """Store the outputs of a block of skipped rows, of which nothing was read. (Its logits may have
    been copied ahead; that is forgotten.)"""
    cdef char *tiles = s.buffers[s.current]
    cdef int n_tiles = <int>count_sixteens(b.n_rows), t
    s.tiles_ready = -1
    if job.out.data == NULL:
        return
    for t in range(n_tiles):
        memset(tile_of(job, tiles, t), 0, job.n_classes * TILE * job.itemsize)
    if job.what & VARIANCE:
        store_array(job, s, &job.variance, b, tiles, False, False)
    if masked_value(job) != 0:
        for t in range(n_tiles):
            job.kernels.tile_skip(b.skipped + t * TILE, job.n_classes, masked_value(job),
                                  tile_of(job, tiles, t))
    store_array(job, s, &job.out, b, tiles, False, True)


cdef inline void finish_tile(const Job *job, Scratch *s, const Block *b, int t,
                             const char *gathered, bint scaled, char *tile) noexcept nogil:
    """Make the output of a tile's rows of their exps or logits, in place; but for the scaling, if
    they are to be `scaled` while they are stored. The exps of the labels were gathered."""
    cdef int begin = t * TILE
    if job.what & VJP:
        job.kernels.tile_vjp(tile, tile_of(job, s.target, t), job.n_classes,
                             b.target_dot_hi + begin, b.target_dot_lo + begin)
    elif job.what & LOG_SOFTMAX:
        job.kernels.tile_log(tile, job.n_classes, b.shift + begin, job.loss.inv_temperature,
                             b.log_total + begin)
    elif job.what & GRAD:
        tile_gradient(job, s, b, t, gathered, scaled, tile)
    elif not scaled:
        job.kernels.tile_scale(tile, job.n_classes, b.factor_hi + begin, b.factor_lo + begin)
    if b.raises:
        raise_rows(job, tile, b.powers.raised + begin)
    if not scaled:
        clear_tile(job, s, b, t, masked_value(job), tile)


cdef inline void raise_rows(const Job *job, char *tile, const int *raised) noexcept nogil:
    """Multiply each row of a tile by a power of two."""
    cdef int r
    for r in range(TILE):
        if raised[r] != 0:
            raise_reals(job, tile + r * job.itemsize, job.n_classes, TILE, raised[r])


cdef inline bint is_cleared(const Job *job, const Block *b) noexcept nogil:
    """Return whether masked entries of a block have to be overwritten once they are computed:
    unless the exps of 0 that they have give the right value."""
    cdef int r
    if job.where.data == NULL:
        return False
    if not job.what & SOFTMAX:
        return True
    for r in range(b.n_rows):
        if not 0 < b.factor_hi[r] < INFINITY:
            return True
    return False


cdef inline void skip_exps(const Job *job, Block *b, char *tiles) noexcept nogil:
    """Make the exps of skipped rows 0, and what they are multiplied with: so they are stored as 0
    with the others."""
    cdef int t
    for t in range(count_sixteens(b.n_rows)):
        job.kernels.tile_skip(b.skipped + t * TILE, job.n_classes, 0, tile_of(job, tiles, t))
    job.doubles.clear(b.skipped, b.n_rows, b.factor_hi)
    job.doubles.clear(b.skipped, b.n_rows, b.factor_lo)


cdef inline void clear_tile(const Job *job, Scratch *s, const Block *b, int t, double value,
                            char *tile) noexcept nogil:
    """Store the value that masked entries and skipped rows have into a tile."""
    if job.where.data != NULL:
        job.kernels.tile_mask(tile_of(job, s.mask_tiles, t), job.n_classes, value, tile)
    if b.any_skipped:
        job.kernels.tile_skip(b.skipped + t * TILE, job.n_classes, value, tile)


cdef inline void tile_variance(const Job *job, Scratch *s, const Block *b, int t,
                               const char *tile, char *variance) noexcept nogil:
    """Compute the diagonal of the Hessian (33) of a tile's rows from their exps."""
    cdef double[TILE] one, hi_of_each, lo_of_each, weight
    cdef const double *hi = hi_of_each
    cdef const double *lo = lo_of_each
    cdef int[TILE] raised
    cdef int begin = t * TILE, w = 0 if b.alike else begin, r
    for r in range(TILE):
        one[r] = 1
        if r == 0 or not b.alike:
            weight[r] = variance_weight(job, b, w + r, &raised[r])
        else:
            weight[r], raised[r] = weight[0], raised[0]
    if b.alike and not b.wide and numerator_of(job, b) == 1:  # the factors are 1 / total
        hi, lo = b.factor_hi + begin, b.factor_lo + begin
    else:
        job.doubles.divide(one, b.coarse + begin, b.fine + begin, TILE, hi_of_each, lo_of_each)
    job.kernels.tile_variance(tile, job.n_classes, hi, lo, b.coarse + begin, b.fine + begin,
                              weight, variance)
    raise_rows(job, variance, raised)
    clear_tile(job, s, b, t, 0, variance)


# ---------------------------------------------------------------- columns of a VJP

cdef inline bint takes_columns(const Job *job, const Block *b) noexcept nogil:
    """Return whether the rows of a block of a VJP lie side by side, in whole tiles."""
    return b.n_rows % TILE == 0 and evenly_spaced(job, b.first, b.n_rows)


cdef inline void write_columns_of_vjp(const Job *job, Scratch *s, const Block *b) noexcept nogil:
    """Write a block of rows of a VJP (15) that lie side by side in all three arrays."""
    cdef int n_tiles = <int>count_sixteens(b.n_rows)
    s.tiles_ready = next_spaced_block(job, b)       # for which unfinished cache lines are to wait
    job.kernels.tiles_vjp(
        row_at(job, &job.x, b.first), job.x.step // job.itemsize,
        row_at(job, &job.target, b.first), job.target.step // job.itemsize,
        job.n_classes, n_tiles, s.buffers[0], job.plan.tile_stride // job.itemsize)
    store_array(job, s, &job.out, b, s.buffers[0], False, True)
    s.tiles_ready = -1
