# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# Sixteen rows side by side: few classes, and strided ones.

from libc.math cimport INFINITY, isinf
from libc.stdint cimport uintptr_t
from libc.string cimport memcpy, memset

from cysoftmax._formula cimport Group, finish_group, logsumexp_of, take_losses, weights_of
from cysoftmax._job cimport (
    Job, LABELS, Rows, columns, expect, in_a_row, in_line, leaves_more, row_at, scales_only,
    tile_bytes, tile_of)
from cysoftmax._kernels cimport CHUNK, Kernels, NextTiles, TILE
from cysoftmax._numbers cimport load_row, put_real, real_at
from cysoftmax._plan cimport MOST_ROWS, Thread
from cysoftmax._sums cimport Total, add, chunks, finish
from cysoftmax._target cimport subtract_label
from cysoftmax._what cimport GRAD, LOGSUMEXP, LOG_SOFTMAX, LOSS, VARIANCE

cdef inline void do_tiles(Job *job, char *scratch, Group *g) noexcept nogil:
    """A group's rows, sixteen side by side; the same formulas as in do_rows. Step by step for all
    tiles, so that no row waits for its own numbers; of strided classes, a few lines of the cache
    that lie one after the other are then read and written at a time."""
    cdef const Kernels *k = job.kernels
    cdef ptrdiff_t n = job.n_classes, size = job.itemsize
    cdef int n_tiles = (g.n_rows + TILE - 1) // TILE, t, r
    cdef Thread *thread = <Thread *>scratch
    cdef char *tiles = scratch + job.e_at + thread.half * job.half_bytes
    cdef char *second = scratch + job.second_at     # logits for log_softmax, or the variance
    cdef char *outputs = second if job.what & LOG_SOFTMAX else tiles
    cdef double[MOST_ROWS] share, gathered    # of the labels; what is gathered are reals
    cdef bint line = in_line(job, g.first, g.n_rows)
    cdef bint in_columns = line and columns(job, &job.out)
    cdef bint variance_in_columns = line and columns(job, &job.variance)
    cdef bint scaled = scaled_late(job, in_columns)
    cdef NextTiles next
    if job.what & (LOSS | GRAD):
        label_shares(job, g, n_tiles * TILE, share)

    load_tiles(job, scratch, g, n_tiles, tiles)
    for t in range(n_tiles):
        r = t * TILE
        if job.what & LOG_SOFTMAX:
            memcpy(tile_of(job, second, t), tile_of(job, tiles, t), n * TILE * size)
        if job.what & LOSS:
            k.tile_gather(tile_of(job, tiles, t), g.y + r, <char *>gathered + r * size)
    next = begin_next(job, scratch, g)  # from here on, the thread's half is that of the next tiles
    for t in range(n_tiles):
        if in_a_row(job, &job.x):
            next.x = row_at(job, &job.x, min(g.first + t * TILE + job.group_rows, job.n_rows - 1))
        tile_sums(job, g, t * TILE, tile_of(job, tiles, t), &next)
    finish_group(job, g)

    if job.what & LOSS:
        for t in range(n_tiles):
            r = t * TILE
            k.terms(share + r, <char *>gathered + r * size, g.shift + r, TILE, g.sharp_hi + r,
                    g.sharp_lo + r)
        take_losses(job, g)
    elif job.what & LOGSUMEXP:
        for r in range(g.n_rows):
            g.loss[r] = g.shift[r] + g.log_total[r]
            if isinf(g.shift[r]):
                g.loss[r] = logsumexp_of(job, load_row(job, &job.x, g.first + r, tiles),
                                         g.shift[r], g.log_total[r])
    if job.out.data == NULL:
        return
    for t in range(n_tiles if job.what & GRAD else 0):  # long before they are needed
        k.tile_gather(tile_of(job, tiles, t), g.y + t * TILE, <char *>gathered + t * TILE * size)
    for t in range(n_tiles):
        r = t * TILE
        if job.what & VARIANCE:
            tile_variance(job, g, r, tile_of(job, tiles, t), tile_of(job, second, t))
            if not variance_in_columns:
                store_tile(job, &job.variance, g, r, tile_of(job, second, t), False, NULL)
        write_tile(job, g, r, <char *>gathered + r * size, scaled, tile_of(job, outputs, t))
        if not in_columns:
            store_tile(job, &job.out, g, r, tile_of(job, outputs, t), scaled, scratch)
    if variance_in_columns:
        store_columns(job, &job.variance, g, n_tiles, second, False, NULL)
    if in_columns:
        store_columns(job, &job.out, g, n_tiles, outputs, scaled, scratch)


cdef inline void label_shares(const Job *job, const Group *g, int n,
                              double *share) noexcept nogil:
    """What the labels weigh, of n rows even if the group has less."""
    cdef int r
    for r in range(n):
        expect(job.target_is == LABELS and 0 <= g.y[r] < job.n_classes)
        share[r] = 1
    for r in range(n if g.weights_step != 0 else 0):
        share[r] = g.weights[r].share if r < g.n_rows else 0


cdef inline NextTiles begin_next(const Job *job, char *scratch, const Group *g) noexcept nogil:
    """What the exps of a group's tiles are to see to: rows in a row are fetched, and the columns
    that come next copied to the other half of the thread's room. (A fetch of so many would not do:
    columns a power of two apart all belong into the same few places of a cache.)"""
    cdef NextTiles next = NextTiles(NULL, TILE, NULL, 0, 0, 0, NULL)
    cdef Thread *thread = <Thread *>scratch
    cdef ptrdiff_t first = g.first + job.group_rows
    cdef int r
    thread.loaded = -1
    if (job.ahead and first % job.share_rows != 0
            and first + job.group_rows <= job.n_rows and in_line(job, first, job.group_rows)):
        thread.loaded = first
        thread.half = 1 - thread.half
        for r in range(job.group_rows):
            put_real(job, scratch + job.largest_at, r, -INFINITY)
        next = NextTiles(row_at(job, &job.x, first), job.x.step // job.itemsize,
                    scratch + job.e_at + thread.half * job.half_bytes,
                    tile_bytes(job) // job.itemsize, job.group_rows, 0, scratch + job.largest_at)
    return next


cdef inline void tile_sums(const Job *job, Group *g, int begin, char *tile,
                           NextTiles *next) noexcept nogil:
    """sum exp(d) for each row of a tile, chunk by chunk."""
    cdef double[TILE] coarse, fine
    cdef Total total[TILE]
    cdef ptrdiff_t b
    cdef int r
    job.kernels.tile_exp_sum(tile, min(job.n_classes, <ptrdiff_t>CHUNK), g.shift + begin, job.inv_temperature,
                             next if next.x != NULL else NULL, g.coarse + begin, g.fine + begin)
    if job.n_classes <= CHUNK:
        return
    for r in range(TILE):
        total[r] = Total(g.coarse[begin + r], g.fine[begin + r], 0)
    for b in range(1, chunks(job.n_classes)):
        job.kernels.tile_exp_sum(tile + b * CHUNK * TILE * job.itemsize,
                                 min(<ptrdiff_t>CHUNK, job.n_classes - b * CHUNK),
                                 g.shift + begin, job.inv_temperature, next if next.tiles != NULL else NULL,
                                 coarse, fine)
        for r in range(TILE):
            add(&total[r], coarse[r], fine[r])
    for r in range(TILE):
        finish(&total[r])
        g.coarse[begin + r] = total[r].coarse
        g.fine[begin + r] = total[r].fine


cdef inline void load_tiles(const Job *job, char *scratch, Group *g, int n_tiles,
                            char *tiles) noexcept nogil:
    """The logits, and the largest of each row, unless they are there already."""
    cdef bint beside = in_line(job, g.first, g.n_rows) and columns(job, &job.x)
    cdef int full = g.n_rows // TILE, t, r
    cdef const char *x[TILE]
    if (<Thread *>scratch).loaded == g.first:
        for r in range(g.n_rows):
            g.shift[r] = real_at(job, scratch + job.largest_at, r)
        return
    if beside:
        job.kernels.tiles_load(row_at(job, &job.x, g.first), job.x.step // job.itemsize,
                               job.n_classes, full, tiles, tile_bytes(job) // job.itemsize,
                               g.shift)
    for t in range(full if beside else 0, n_tiles):
        rows_of(job, &job.x, g, t * TILE, x)
        job.kernels.tile_load(<const void **>x, job.x.step // job.itemsize, job.n_classes,
                              tile_of(job, tiles, t), g.shift + t * TILE)


cdef inline void rows_of(const Job *job, const Rows *rows, const Group *g, int begin,
                         const char **place) noexcept nogil:
    """Where the rows of a tile begin; one that is not full is filled up with its first row."""
    cdef const char *first = row_at(job, rows, g.first + begin)
    cdef ptrdiff_t step = rows.outer[job.ndim - 1]
    cdef int r
    if g.n_rows - begin >= TILE and in_line(job, g.first + begin, TILE):
        for r in range(TILE):
            place[r] = first + r * step
    else:
        for r in range(TILE):
            place[r] = row_at(job, rows, g.first + begin + (r if begin + r < g.n_rows else 0))


cdef inline bint scaled_late(const Job *job, bint in_columns) noexcept nogil:
    """Whether exps are scaled on their way from the tiles: nothing comes after that, and they are
    not stored one by one."""
    return scales_only(job) and not job.weighted and (in_columns or job.out.direct)


cdef inline void write_tile(const Job *job, const Group *g, int begin, const char *gathered,
                            bint scaled, char *tile) noexcept nogil:
    """The output of the rows of a tile, in place of their exps or logits; to be `scaled` later, or
    done. The exps of the labels were gathered."""
    cdef const Kernels *k = job.kernels
    cdef ptrdiff_t n = job.n_classes
    cdef char[TILE] excluded
    cdef int r, n_rows = min(TILE, g.n_rows - begin)
    if job.what & LOG_SOFTMAX:
        k.tile_log(tile, n, g.shift + begin, job.inv_temperature, g.log_total + begin)
    else:
        if job.what & GRAD:
            memset(excluded, 1, TILE)   # a label that weighs 1 has more than half of 1
            for r in range(n_rows if g.weights_step != 0 else 0):
                excluded[r] = g.weights[begin + r].share >= g.weights[begin + r].half
            k.tile_minus_rest(tile, g.y + begin, gathered, excluded, g.coarse + begin, g.fine + begin)
        if not scaled:
            k.tile_scale(tile, n, g.hi + begin, g.lo + begin)
    if job.what & GRAD and leaves_more(job):
        for r in range(n_rows):
            subtract_label(job, g, begin + r,
                           tile + (g.y[begin + r] * TILE + r) * job.itemsize)
    clear_skipped(job, g, begin, tile)


cdef inline void clear_skipped(const Job *job, const Group *g, int begin,
                               char *tile) noexcept nogil:
    """Zeros in a tile for the rows that are skipped."""
    cdef ptrdiff_t c
    cdef int r
    for r in range(min(TILE, g.n_rows - begin) if job.weighted else 0):
        for c in range(job.n_classes if g.skipped[begin + r] else 0):
            put_real(job, tile, c * TILE + r, 0)


cdef inline void store_tile(const Job *job, const Rows *rows, const Group *g, int begin, char *tile,
                     bint scaled, char *scratch) noexcept nogil:
    """Put a tile into its rows, `scaled` on the way or as it is. With `scratch`, large outputs are
    streamed: rows in a row are first put together there, to lie in lines of the cache as the
    output does."""
    cdef bint together = scratch != NULL and job.large and in_a_row(job, rows)
    cdef const double *hi = NULL
    cdef ptrdiff_t away = 0
    cdef int n_rows = min(TILE, g.n_rows - begin), r
    cdef char *place[TILE]
    rows_of(job, rows, g, begin, <const char **>place)
    if together:
        away = <uintptr_t>scratch + job.together_at + <uintptr_t>place[0] % 64
        away -= <uintptr_t>place[0]
        for r in range(TILE):
            place[r] += away
    if scaled:
        hi = g.hi + begin
    job.kernels.tile_store(tile, job.n_classes, hi, g.lo + begin, <void **>place,
                           rows.step // job.itemsize, n_rows)
    if together:
        job.kernels.stream_copy(place[0], n_rows * job.n_classes, place[0] - away,
                                &(<Thread *>scratch).line)


cdef inline void store_columns(const Job *job, const Rows *rows, const Group *g, int n_tiles, char *tiles,
                        bint scaled, char *scratch) noexcept nogil:
    """Put tiles into rows that lie side by side. With `scratch`, large outputs are streamed: ends
    of lines that the next group will have the rest of wait there for it."""
    cdef Thread *thread
    cdef const double *hi = NULL
    cdef char *edges = NULL
    cdef bint precede = False, follow = False
    cdef int full = g.n_rows // TILE
    if scaled:
        hi = &g.hi[0]
    if scratch != NULL and job.large:
        thread = <Thread *>scratch
        edges = scratch + job.edges_at
        precede = thread.edge == g.first
        follow = thread.loaded >= 0 and in_line(job, thread.loaded - 1, 2)
        thread.edge = thread.loaded if follow else -1
    job.kernels.tiles_store(tiles, tile_bytes(job) // job.itemsize, job.n_classes, full, hi, g.lo,
                            row_at(job, rows, g.first), rows.step // job.itemsize, edges, precede,
                            follow)
    if full < n_tiles:
        store_tile(job, rows, g, full * TILE, tile_of(job, tiles, full), scaled, NULL)


cdef inline void tile_variance(const Job *job, const Group *g, int begin, const char *tile,
                               char *variance) noexcept nogil:
    cdef double[TILE] one, hi, lo, weight
    cdef int r
    for r in range(TILE):       # a tile has 16 rows whatever n_rows is
        one[r] = 1
        weight[r] = weights_of(g, begin + r).weight if begin + r < g.n_rows else 0
    job.doubles.divide(one, g.coarse + begin, g.fine + begin, TILE, hi, lo)
    job.kernels.tile_variance(tile, job.n_classes, hi, lo, g.coarse + begin, g.fine + begin, weight,
                              variance)
    clear_skipped(job, g, begin, variance)
