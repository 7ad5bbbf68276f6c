# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# The way TILES: sixteen rows side by side, class by class (tile[c * 16 + row]): for few classes,
# and for strided ones. A part is a whole block of up to eight tiles. Each stage does one step for
# all tiles before the next, so that no row waits for its own numbers, and of strided classes a
# few cache lines that lie together are read or written at a time. Touches the tiles of one thread,
# and one block.

from libc.math cimport INFINITY, isinf, isnan
from libc.stdint cimport uintptr_t
from libc.string cimport memcpy, memset

from cysoftmax._formula cimport MOST_ROWS, Block, weights_of
from cysoftmax._job cimport Array, Job, evenly_spaced, expect, row_at
from cysoftmax._kernels cimport CHUNK, TILE, Kernels, NextTiles
from cysoftmax._numbers cimport put_real, real_at
from cysoftmax._scratch cimport Scratch
from cysoftmax._sums cimport Pair, Total, add, chunk_size, chunks, count_sixteens, finish
from cysoftmax._target cimport subtract_target
from cysoftmax._what cimport GRAD, LOGSUMEXP, LOG_SOFTMAX, LOSS, VARIANCE

cdef inline char *tile_of(const Job *job, char *tiles, int t) noexcept nogil:
    """Return tile t of those that are worked on together."""
    return tiles + t * job.plan.tile_stride


# ---------------------------------------------------------------- load

cdef inline void load_tiles(const Job *job, Scratch *s, Block *b) noexcept nogil:
    """Load the logits of a block's rows, and their maxima, unless they were copied ahead."""
    cdef char *tiles = s.buffers[s.current]
    cdef bint adjacent = job.plan.x_adjacent and evenly_spaced(job, b.first, b.n_rows)
    cdef int full = b.n_rows // TILE, t, r
    cdef const char *x[TILE]
    if s.tiles_ready == b.first:
        for r in range(b.n_rows):
            b.shift[r] = real_at(job, s.largest, r, MOST_ROWS)
        return
    if adjacent:
        job.kernels.tiles_load(row_at(job, &job.x, b.first), job.x.step // job.itemsize,
                               job.n_classes, full, tiles, job.plan.tile_stride // job.itemsize,
                               b.shift)
    for t in range(full if adjacent else 0, <int>count_sixteens(b.n_rows)):
        rows_of_tile(job, &job.x, b, t * TILE, x)
        job.kernels.tile_load(<const void **>x, job.x.step // job.itemsize, job.n_classes,
                              tile_of(job, tiles, t), b.shift + t * TILE)


cdef inline void rows_of_tile(const Job *job, const Array *array, const Block *b, int begin,
                              const char **place) noexcept nogil:
    """Return where the sixteen rows of a tile begin; missing ones are the first row again."""
    cdef const char *first = row_at(job, array, b.first + begin)
    cdef ptrdiff_t step = array.outer[job.ndim - 1]
    cdef int r
    if b.n_rows - begin >= TILE and evenly_spaced(job, b.first + begin, TILE):
        for r in range(TILE):
            place[r] = first + r * step
    else:
        for r in range(TILE):
            place[r] = row_at(job, array, b.first + begin + (r if begin + r < b.n_rows else 0))


cdef inline void plan_ahead(const Job *job, Scratch *s, const Block *b) noexcept nogil:
    """Plan what is loaded while this block's exps are computed: rows that follow each other are
    prefetched, strided ones copied into the other buffer, which becomes the current one. (Strided
    classes are often a power of two apart, and then compete for a few sets of the cache: as many
    lines as a prefetch of the whole block would need do not stay there.)"""
    cdef ptrdiff_t next_block = b.first + job.plan.block_rows
    cdef ptrdiff_t thread_rows = job.plan.thread_blocks * job.plan.block_rows
    cdef int r
    s.overlap.next_tiles = NextTiles(NULL, TILE, NULL, 0, 0, 0, NULL)
    s.tiles_ready = -1
    if (job.plan.loads_ahead and next_block % thread_rows != 0
            and next_block + job.plan.block_rows <= job.n_rows
            and evenly_spaced(job, next_block, job.plan.block_rows)):
        s.tiles_ready = next_block
        s.current = 1 - s.current
        for r in range(job.plan.block_rows):
            put_real(job, s.largest, r, MOST_ROWS, -INFINITY)
        s.overlap.next_tiles = NextTiles(
            row_at(job, &job.x, next_block), job.x.step // job.itemsize, s.buffers[s.current],
            job.plan.tile_stride // job.itemsize, job.plan.block_rows, 0, s.largest)


# ---------------------------------------------------------------- reduce

cdef inline void reduce_tiles(const Job *job, Scratch *s, Block *b, char *tiles) noexcept nogil:
    """Compute the sums of a block's rows; exps take the place of the logits in the tiles. The
    logits of labels are gathered long before they are used: a vector load right after the scalar
    stores would stall (store forwarding fails)."""
    cdef double[MOST_ROWS] mass, gathered       # what is gathered are reals
    cdef int n_tiles = <int>count_sixteens(b.n_rows), t, r
    cdef char *tile
    if job.what & LOSS:
        label_masses(job, b, n_tiles * TILE, mass)
    for t in range(n_tiles):
        tile = tile_of(job, tiles, t)
        if job.what & LOG_SOFTMAX:
            memcpy(tile_of(job, s.second, t), tile, job.n_classes * TILE * job.itemsize)
        if job.what & LOSS:
            job.kernels.tile_gather(tile, b.label + t * TILE,
                                    <char *>gathered + t * TILE * job.itemsize)
        if job.what & LOGSUMEXP:
            note_nans(job, b, t * TILE, tile)
    plan_ahead(job, s, b)
    for t in range(n_tiles):
        if job.plan.x_row_by_row:
            s.overlap.next_tiles.x = row_at(
                job, &job.x, min(b.first + t * TILE + job.plan.block_rows, job.n_rows - 1))
        tile_sums(job, b, t * TILE, tile_of(job, tiles, t), &s.overlap.next_tiles)
    if job.what & LOSS:
        for t in range(n_tiles):
            r = t * TILE
            job.kernels.terms(mass + r, <char *>gathered + r * job.itemsize, b.shift + r, TILE,
                              b.target_dot_hi + r, b.target_dot_lo + r)


cdef inline void label_masses(const Job *job, const Block *b, int n, double *mass) noexcept nogil:
    """Return the masses of n labels, even if the block has fewer rows."""
    cdef int r
    for r in range(n):
        expect(0 <= b.label[r] < job.n_classes)
        mass[r] = 1
    if b.weights_step != 0:
        for r in range(n):
            mass[r] = weights_of(b, r).label_mass if r < b.n_rows else 0


cdef inline void note_nans(const Job *job, Block *b, int begin, const char *tile) noexcept nogil:
    """Find out whether rows of a tile that have an infinite maximum also have a NaN."""
    cdef ptrdiff_t c
    cdef int r
    for r in range(min(TILE, b.n_rows - begin)):
        if not isinf(b.shift[begin + r]):
            continue
        b.has_nan[begin + r] = False
        for c in range(job.n_classes):
            b.has_nan[begin + r] |= isnan(
                real_at(job, tile, c * TILE + r, job.n_classes * TILE))


cdef inline void tile_sums(const Job *job, Block *b, int begin, char *tile,
                           NextTiles *next_tiles) noexcept nogil:
    """Sum exp(d) for each row of a tile, chunk by chunk; exps take the place of the logits."""
    cdef double[TILE] coarse, fine
    cdef Total total[TILE]
    cdef ptrdiff_t k
    cdef int r
    job.kernels.tile_exp_sum(
        tile, chunk_size(job.n_classes, 0), b.shift + begin, job.loss.inv_temperature,
        next_tiles if next_tiles.x != NULL else NULL, b.coarse + begin, b.fine + begin)
    if job.n_classes <= CHUNK:
        return
    for r in range(TILE):
        total[r] = Total(b.coarse[begin + r], b.fine[begin + r], 0)
    for k in range(1, chunks(job.n_classes)):
        job.kernels.tile_exp_sum(
            tile + k * CHUNK * TILE * job.itemsize, chunk_size(job.n_classes, k),
            b.shift + begin, job.loss.inv_temperature,
            next_tiles if next_tiles.tiles != NULL else NULL, coarse, fine)
        for r in range(TILE):
            add(&total[r], Pair(coarse[r], fine[r]))
    for r in range(TILE):
        finish(&total[r])
        b.coarse[begin + r] = total[r].coarse
        b.fine[begin + r] = total[r].fine


# ---------------------------------------------------------------- write

cdef inline void write_tiles(const Job *job, Scratch *s, const Block *b,
                             char *tiles) noexcept nogil:
    """Write the outputs of a block's rows. Exps are scaled while they are stored, if nothing is
    subtracted or cleared afterwards and whole vectors are stored."""
    cdef const Kernels *k = job.kernels
    cdef char *outputs = s.second if job.what & LOG_SOFTMAX else tiles
    cdef bint spaced = evenly_spaced(job, b.first, b.n_rows)
    cdef bint out_adjacent = spaced and job.plan.out_adjacent
    cdef bint variance_adjacent = spaced and job.plan.variance_adjacent
    cdef bint scaled = job.plan.scales_only and not job.plan.weighted and (
        out_adjacent or job.out.contiguous)
    cdef double[MOST_ROWS] gathered         # reals
    cdef int n_tiles = <int>count_sixteens(b.n_rows), t, r
    if job.out.data == NULL:
        return
    if job.what & GRAD:     # long before they are needed
        for t in range(n_tiles):
            k.tile_gather(tile_of(job, tiles, t), b.label + t * TILE,
                          <char *>gathered + t * TILE * job.itemsize)
    for t in range(n_tiles):
        r = t * TILE
        if job.what & VARIANCE:
            tile_variance(job, b, r, tile_of(job, tiles, t), tile_of(job, s.second, t))
            if not variance_adjacent:
                store_tile(job, &job.variance, b, r, tile_of(job, s.second, t), False, NULL)
        finish_tile(job, b, r, <char *>gathered + r * job.itemsize, scaled,
                    tile_of(job, outputs, t))
        if not out_adjacent:
            store_tile(job, &job.out, b, r, tile_of(job, outputs, t), scaled, s)
    if variance_adjacent:
        store_adjacent(job, &job.variance, b, s.second, False, NULL)
    if out_adjacent:
        store_adjacent(job, &job.out, b, outputs, scaled, s)


cdef inline void finish_tile(const Job *job, const Block *b, int begin, const char *gathered,
                             bint scaled, char *tile) noexcept nogil:
    """Make the output of a tile's rows of their exps or logits, in place; but for the scaling, if
    they are to be `scaled` while they are stored. The exps of the labels were gathered."""
    cdef const Kernels *k = job.kernels
    cdef char[TILE] uses_rest
    cdef int r, n_rows = min(TILE, b.n_rows - begin)
    if job.what & LOG_SOFTMAX:
        k.tile_log(tile, job.n_classes, b.shift + begin, job.loss.inv_temperature,
                   b.log_total + begin)
    else:
        if job.what & GRAD:
            memset(uses_rest, 1, TILE)      # a label of mass 1 has more than half of 1
            if b.weights_step != 0:
                for r in range(n_rows):
                    uses_rest[r] = (
                        weights_of(b, begin + r).label_mass >= weights_of(b, begin + r).rest_from)
            k.tile_minus_rest(tile, b.label + begin, gathered, uses_rest, b.coarse + begin,
                              b.fine + begin)
        if not scaled:
            k.tile_scale(tile, job.n_classes, b.factor_hi + begin, b.factor_lo + begin)
    if job.what & GRAD and job.plan.has_surplus:
        for r in range(n_rows):
            subtract_target(job, b, begin + r, weights_of(b, begin + r).label_mass,
                            tile + (b.label[begin + r] * TILE + r) * job.itemsize)
    clear_skipped(job, b, begin, tile)


cdef inline void clear_skipped(const Job *job, const Block *b, int begin,
                               char *tile) noexcept nogil:
    """Store zeros into a tile for the rows that are skipped."""
    cdef ptrdiff_t c
    cdef int r
    if not job.plan.weighted:
        return
    for r in range(min(TILE, b.n_rows - begin)):
        if b.skipped[begin + r]:
            for c in range(job.n_classes):
                put_real(job, tile, c * TILE + r, job.n_classes * TILE, 0)


cdef inline void tile_variance(const Job *job, const Block *b, int begin, const char *tile,
                               char *variance) noexcept nogil:
    """Compute the diagonal of the Hessian (33) of a tile's rows from their exps."""
    cdef double[TILE] one, hi, lo, weight
    cdef int r
    for r in range(TILE):       # a tile has 16 rows whatever n_rows is
        one[r] = 1
        weight[r] = weights_of(b, begin + r).weight if begin + r < b.n_rows else 0
    job.doubles.divide(one, b.coarse + begin, b.fine + begin, TILE, hi, lo)
    job.kernels.tile_variance(tile, job.n_classes, hi, lo, b.coarse + begin, b.fine + begin,
                              weight, variance)
    clear_skipped(job, b, begin, variance)


cdef inline void store_tile(const Job *job, const Array *array, const Block *b, int begin,
                            char *tile, bint scaled, Scratch *s) noexcept nogil:
    """Store a tile into its rows, `scaled` on the way or as it is. With a scratch, large outputs
    are streamed: rows that follow each other are first put together there, with the alignment
    that they have in the output, so that whole cache lines are stored."""
    cdef bint assembled = s != NULL and job.plan.assembles
    cdef const double *factor_hi = NULL
    cdef ptrdiff_t away = 0
    cdef int n_rows = min(TILE, b.n_rows - begin), r
    cdef char *place[TILE]
    rows_of_tile(job, array, b, begin, <const char **>place)
    if assembled:
        away = <uintptr_t>s.assembled + <uintptr_t>place[0] % 64
        away -= <uintptr_t>place[0]
        for r in range(TILE):
            place[r] += away
    if scaled:
        factor_hi = b.factor_hi + begin
    job.kernels.tile_store(tile, job.n_classes, factor_hi, b.factor_lo + begin, <void **>place,
                           array.step // job.itemsize, n_rows)
    if assembled:
        job.kernels.stream_copy(place[0], n_rows * job.n_classes, place[0] - away, &s.out_carry)


cdef inline void store_adjacent(const Job *job, const Array *array, const Block *b, char *tiles,
                                bint scaled, Scratch *s) noexcept nogil:
    """Store tiles into rows of which each class lies together. With a scratch, large outputs are
    streamed: the cache lines that this block shares with the next wait there, one a class."""
    cdef const double *factor_hi = NULL
    cdef char *carries = NULL
    cdef bint precede = False, follow = False
    cdef int full = b.n_rows // TILE
    if scaled:
        factor_hi = &b.factor_hi[0]
    if s != NULL and job.plan.exceeds_cache:
        carries = s.column_carries
        precede = s.carried_to == b.first
        follow = s.tiles_ready >= 0 and evenly_spaced(job, s.tiles_ready - 1, 2)
        s.carried_to = s.tiles_ready if follow else -1
    job.kernels.tiles_store(tiles, job.plan.tile_stride // job.itemsize, job.n_classes, full,
                            factor_hi, b.factor_lo, row_at(job, array, b.first),
                            array.step // job.itemsize, carries, precede, follow)
    if full < <int>count_sixteens(b.n_rows):
        store_tile(job, array, b, full * TILE, tile_of(job, tiles, full), scaled, NULL)
