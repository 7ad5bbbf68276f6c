# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# Arrays of any dtype and layout, to and from tiles (tile[c * 16 + row]): the rows of a block.
# Rows of reals go straight; other numbers are converted in a staging buffer, which they leave and
# enter as the longest runs that lie side by side: classes of sixteen rows, or rows of a class.
# Touches the caller's arrays and the tiles of one thread; knows no formula.

from libc.stdint cimport int32_t, int64_t, uint64_t, uintptr_t
from libc.string cimport memcpy, memset

from cysoftmax._block cimport Block
from cysoftmax._job cimport Array, Job, evenly_spaced, row_at
from cysoftmax._kernels cimport TILE
from cysoftmax._numbers cimport load_reals, store_strided
from cysoftmax._scratch cimport Scratch
from cysoftmax._sparse cimport entry_bound
from cysoftmax._sums cimport count_sixteens

cdef inline char *tile_of(const Job *job, char *tiles, int t) noexcept nogil:
    """Return tile t of those that are worked on together."""
    return tiles + t * job.plan.tile_stride


cdef inline bint holds_reals(const Job *job, const Array *array) noexcept nogil:
    """Return whether an array holds reals, at multiples of their size."""
    return (array.data != NULL and (array.kind == c'f' or array.kind == c'd')
            and array.item == job.itemsize and array.step % array.item == 0)


cdef inline bint rows_adjacent(const Job *job, const Array *array) noexcept nogil:
    """Return whether neighbouring rows are neighbours in memory, so that one class of many rows is
    contiguous."""
    return (array.data != NULL and array.step != array.item
            and array.outer[job.ndim - 1] == array.item)


cdef inline bint rows_follow(const Job *job, const Array *array) noexcept nogil:
    """Return whether each row begins where the one before it ends."""
    return (array.data != NULL and job.ndim == 1 and array.step == array.item
            and array.outer[0] == job.n_classes * array.item)


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


# ---------------------------------------------------------------- to tiles

cdef inline void load_array(const Job *job, Scratch *s, const Array *array, const Block *b,
                            char *tiles, double *largest) noexcept nogil:
    """Load the rows of a block as tiles, and the largest of each row."""
    cdef bint reals = holds_reals(job, array)
    cdef bint adjacent = rows_adjacent(job, array) and evenly_spaced(job, b.first, b.n_rows)
    cdef int full = b.n_rows // TILE if adjacent else 0, t, r
    cdef const char *rows[TILE]
    cdef ptrdiff_t stride = array.step // job.itemsize
    if full > 0 and reals:
        job.kernels.tiles_load(row_at(job, array, b.first), stride, job.n_classes, full, tiles,
                               job.plan.tile_stride // job.itemsize, largest)
    elif full > 0:
        convert_classes(job, s, array, b, full, tiles)
        for t in range(full):
            job.kernels.tile_select(NULL, job.n_classes, tile_of(job, tiles, t),
                                    largest + t * TILE)
    if not reals and full * TILE < b.n_rows:
        convert_rows(job, s, array, b, full * TILE)
    for t in range(full, <int>count_sixteens(b.n_rows)):
        if reals:
            rows_of_tile(job, array, b, t * TILE, rows)
        else:
            for r in range(TILE):
                rows[r] = staged_row(job, s, t * TILE + (r if t * TILE + r < b.n_rows else 0))
        job.kernels.tile_load(<const void **>rows, stride if reals else 1, job.n_classes,
                              tile_of(job, tiles, t), largest + t * TILE)


cdef inline char *staged_row(const Job *job, Scratch *s, int r) noexcept nogil:
    """Return the place of row r of a block in the staging buffer."""
    return s.staging + r * job.n_classes * job.itemsize


cdef inline void convert_classes(const Job *job, Scratch *s, const Array *array, const Block *b,
                                 int n_tiles, char *tiles) noexcept nogil:
    """Load tiles of numbers of which each class lies side by side, class by class."""
    cdef const char *place = row_at(job, array, b.first)
    cdef ptrdiff_t c, at, n_bytes = TILE * job.itemsize
    cdef int t
    for c in range(job.n_classes):
        load_reals(job, array, place + c * array.step, array.item, n_tiles * TILE, s.staging)
        for t in range(n_tiles):
            at = t * job.plan.tile_stride + c * n_bytes
            if job.itemsize == 4:
                memcpy(tiles + at, s.staging + t * n_bytes, TILE * 4)
            else:
                memcpy(tiles + at, s.staging + t * n_bytes, TILE * 8)


cdef inline void convert_rows(const Job *job, Scratch *s, const Array *array, const Block *b,
                              int begin) noexcept nogil:
    """Convert the rows of a block from `begin` on to rows of reals, one after the other."""
    cdef ptrdiff_t n = job.n_classes
    cdef int r
    if rows_follow(job, array):
        load_reals(job, array, row_at(job, array, b.first + begin), array.step,
                   (b.n_rows - begin) * n, staged_row(job, s, begin))
        return
    for r in range(begin, b.n_rows):
        load_reals(job, array, row_at(job, array, b.first + r), array.step, n,
                   staged_row(job, s, r))


ctypedef fused index_type:
    int32_t
    int64_t


ctypedef fused real_type:
    float
    double


cdef inline void load_entries(const Job *job, Scratch *s, const Block *b,
                              char *tiles) noexcept nogil:
    """Load the rows of a sparse target as tiles."""
    memset(tiles, 0, count_sixteens(b.n_rows) * job.plan.tile_stride)
    if job.itemsize == 4:
        load_entries_as(<float *>tiles, job, s, b)
    else:
        load_entries_as(<double *>tiles, job, s, b)


cdef inline void load_entries_as(real_type *tiles, const Job *job, Scratch *s,
                                 const Block *b) noexcept nogil:
    if job.sparse.index_item == 4:
        scatter_entries(<const int32_t *>job.sparse.classes, tiles, job, s, b)
    else:
        scatter_entries(<const int64_t *>job.sparse.classes, tiles, job, s, b)


cdef inline void scatter_entries(const index_type *classes, real_type *tiles, const Job *job,
                                 Scratch *s, const Block *b) noexcept nogil:
    """Store the entries of a block's rows into tiles of zeros. Entries of neighbouring rows follow
    each other: unless they are reals, they are converted together, as many as the staging buffer
    takes."""
    cdef const Array *entries = &job.sparse.entries
    cdef ptrdiff_t room = job.n_classes * job.plan.block_rows, n_classes = job.n_classes
    cdef ptrdiff_t j = entry_bound(job, b.first), begin = j, ready = j, end, c
    cdef ptrdiff_t last = max(j, entry_bound(job, b.first + b.n_rows))
    cdef const real_type *values = <const real_type *>s.staging     # of the entries begin ... ready
    cdef ptrdiff_t pitch = job.plan.tile_stride // <ptrdiff_t>sizeof(real_type)
    cdef int r, is_outside, any_bad = 0
    cdef real_type *place
    if holds_reals(job, entries):
        values, ready = <const real_type *>entries.data + j, last
    for r in range(b.n_rows):
        place = tiles + r // TILE * pitch + r % TILE
        end = min(last, entry_bound(job, b.first + r + 1))
        while j < end:
            if j >= ready:
                begin, ready = j, j + min(room, last - j)
                load_reals(job, entries, entries.data + j * entries.item, entries.item,
                           ready - begin, s.staging)
            c = <ptrdiff_t>(<const volatile index_type *>classes)[j]
            is_outside = <uint64_t>c >= <uint64_t>n_classes
            any_bad |= is_outside
            c = 0 if is_outside else c                 # changed since it was checked
            place[c * TILE] = values[j - begin]
            j += 1
    if any_bad:
        s.bad_label = True


# ---------------------------------------------------------------- from tiles

cdef inline void store_array(const Job *job, Scratch *s, const Array *array, const Block *b,
                             char *tiles, bint scaled, bint streams) noexcept nogil:
    """Store tiles into the rows of a block, each `scaled` on the way or as it is. With `streams`,
    large outputs are stored past the caches."""
    cdef bint reals = holds_reals(job, array)
    cdef bint adjacent = rows_adjacent(job, array) and evenly_spaced(job, b.first, b.n_rows)
    cdef int full = b.n_rows // TILE if adjacent and (reals or not scaled) else 0, t
    if full > 0 and reals:
        store_adjacent(job, array, b, full, tiles, scaled, s if streams else NULL)
    elif full > 0:
        narrow_classes(job, s, array, b, full, tiles)
    for t in range(full, <int>count_sixteens(b.n_rows)):
        store_tile(job, s, array, b, t * TILE, tile_of(job, tiles, t), scaled,
                   streams and not adjacent)


cdef inline void store_tile(const Job *job, Scratch *s, const Array *array, const Block *b,
                            int begin, char *tile, bint scaled, bint streams) noexcept nogil:
    """Store one tile. Streamed rows that follow each other are first put together, with the
    alignment that they have in the output, so that whole cache lines are stored."""
    cdef bint reals = holds_reals(job, array)
    cdef bint assembled = streams and reals and job.plan.assembles
    cdef ptrdiff_t away, stride = array.step // job.itemsize if reals else 1
    cdef const double *factor_hi = b.factor_hi + begin
    cdef int n_rows = min(TILE, b.n_rows - begin), r
    cdef char *place[TILE]
    cdef char *rows[TILE]
    rows_of_tile(job, array, b, begin, <const char **>place)
    if reals and not assembled:
        job.kernels.tile_store(tile, job.n_classes, factor_hi if scaled else NULL,
                               b.factor_lo + begin, <void **>place, stride, n_rows)
        return
    away = <uintptr_t>place[0] % 64 if assembled else 0
    for r in range(TILE):
        rows[r] = s.staging + away + r * job.n_classes * job.itemsize
    job.kernels.tile_store(tile, job.n_classes, factor_hi if scaled else NULL,
                           b.factor_lo + begin, <void **>rows, stride, n_rows)
    if assembled:
        job.kernels.stream_copy(rows[0], n_rows * job.n_classes, place[0], &s.out_carry)
    else:
        store_staged(job, s, array, n_rows, place)


cdef inline void store_staged(const Job *job, Scratch *s, const Array *array, int n_rows,
                              char *const *place) noexcept nogil:
    """Store the rows of reals in the staging buffer as other numbers, or misaligned."""
    cdef ptrdiff_t n = job.n_classes
    cdef int r
    if rows_follow(job, array) and place[n_rows - 1] == place[0] + (n_rows - 1) * n * array.item:
        store_strided(job, array, place[0], array.step, n_rows * n, s.staging)
        return
    for r in range(n_rows):
        store_strided(job, array, place[r], array.step, n, s.staging + r * n * job.itemsize)


cdef inline void narrow_classes(const Job *job, Scratch *s, const Array *array, const Block *b,
                                int n_tiles, const char *tiles) noexcept nogil:
    """Store tiles as numbers of which each class lies side by side, class by class."""
    cdef char *place = row_at(job, array, b.first)
    cdef ptrdiff_t c, at, n_bytes = TILE * job.itemsize
    cdef int t
    for c in range(job.n_classes):
        for t in range(n_tiles):
            at = t * job.plan.tile_stride + c * n_bytes
            if job.itemsize == 4:
                memcpy(s.staging + t * n_bytes, tiles + at, TILE * 4)
            else:
                memcpy(s.staging + t * n_bytes, tiles + at, TILE * 8)
        store_strided(job, array, place + c * array.step, array.item, n_tiles * TILE, s.staging)


cdef inline void store_adjacent(const Job *job, const Array *array, const Block *b, int n_tiles,
                                char *tiles, bint scaled, Scratch *s) noexcept nogil:
    """Store tiles into rows of which each class lies together. With a scratch, large outputs are
    streamed: the cache lines that this block shares with the next wait there, one a class."""
    cdef const double *factor_hi = b.factor_hi
    cdef char *carries = NULL
    cdef bint precede = False, follow = False
    if s != NULL and job.plan.exceeds_cache:
        carries = s.column_carries
        precede = s.carried_to == b.first
        follow = s.tiles_ready >= 0 and evenly_spaced(job, s.tiles_ready - 1, 2)
        s.carried_to = s.tiles_ready if follow else -1
    job.kernels.tiles_store(tiles, job.plan.tile_stride // job.itemsize, job.n_classes, n_tiles,
                            factor_hi if scaled else NULL, b.factor_lo,
                            row_at(job, array, b.first), array.step // job.itemsize, carries,
                            precede, follow)
