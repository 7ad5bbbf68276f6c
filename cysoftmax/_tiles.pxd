# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# The way TILES: sixteen rows side by side, class by class (tile[c * 16 + row]): for few classes,
# and for strided ones. A part is a whole block of up to eight tiles. Each stage does one step for
# all tiles before the next, so that no row waits for its own numbers, and of strided classes a
# few cache lines that lie together are read or written at a time. Touches the tiles of one thread,
# and one block.

from libc.math cimport INFINITY, isfinite, isinf, isnan
from libc.string cimport memcpy, memset

from cysoftmax._formula cimport (
    MOST_ROWS, Block, lift_at, residual_mass, target_factor, uniform_factor,
    variance_weight, weigh_masses, weigh_whole_tile)
from cysoftmax._job cimport DISTRIBUTION, LABELS, SPARSE, VECTOR, Job, evenly_spaced, row_at
from cysoftmax._kernels cimport CHUNK, FEW, TILE, Gradient, Kernels, NextTiles
from cysoftmax._numbers cimport put_real, raise_reals, real_at
from cysoftmax._scratch cimport Scratch
from cysoftmax._sums cimport (
    Pair, Total, add, add_terms, chunk_size, chunks, count_sixteens, dot_in_double, finish,
    has_tiny_differences)
from cysoftmax._target cimport holds_small_numbers, lift_target, settle_row
from cysoftmax._tile_arrays cimport (
    load_array, load_entries, rows_adjacent, store_array, store_tile, tile_of)
from cysoftmax._what cimport GRAD, LOGSUMEXP, LOG_SOFTMAX, LOSS, SOFTMAX, STATS, VARIANCE, VJP
from cysoftmax._write cimport masked_value

cdef enum TileSum:                  # what total_tile sums
    MASSES                          # a
    PRODUCTS                        # a (x - shift), 0 where a is 0
    PLAIN_PRODUCTS                  # a x, whatever a is
    DIFFERENCES                     # a (x - shift), none positive; a is ones if NULL
    TINY_PRODUCTS                   # as PRODUCTS, in double


# ---------------------------------------------------------------- sums over the classes of a tile

cdef inline bint sum_chunk(const Job *job, TileSum what, const char *a, const char *x,
                           const double *shift, ptrdiff_t k, double *hi, double *lo) noexcept nogil:
    """Sum one chunk of the classes of a tile; of masses, return whether the sum of any row is 0."""
    cdef ptrdiff_t at = k * CHUNK * TILE * job.itemsize, n = chunk_size(job.n_classes, k)
    cdef int r
    if what == MASSES:
        return job.kernels.tile_sum(a + at, n, hi, lo)
    if what == DIFFERENCES:
        job.kernels.tile_diff_sum(a + at if a != NULL else NULL, x + at, n, shift, hi, lo)
    elif what == TINY_PRODUCTS:
        for r in range(TILE):
            hi[r] = dot_in_double(job, a + at + r * job.itemsize, x + at + r * job.itemsize, n,
                                  TILE, shift[r])
            lo[r] = 0
    else:
        job.kernels.tile_dot(a + at, x + at, n, shift, what == PRODUCTS, hi, lo)
    return False


cdef inline bint total_tile(const Job *job, TileSum what, const char *a, const char *x,
                            const double *shift, double *coarse, double *fine) noexcept nogil:
    """Sum all classes of each row of a tile, chunk by chunk, as coarse + fine; of masses, return
    whether a row may have the sum 0."""
    cdef double[TILE] hi, lo
    cdef Total total[TILE]
    cdef ptrdiff_t k
    cdef bint any_0 = sum_chunk(job, what, a, x, shift, 0, coarse, fine)
    if job.n_classes <= CHUNK:
        return any_0
    begin_totals(total, coarse, fine)
    for k in range(1, chunks(job.n_classes)):
        sum_chunk(job, what, a, x, shift, k, hi, lo)
        add_to_totals(total, hi, lo)
    finish_totals(total, coarse, fine)
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


# ---------------------------------------------------------------- open: masks and distributions

cdef inline void weigh_tiles(const Job *job, Scratch *s, Block *b) noexcept nogil:
    """Weigh the rows of a block, for their weights alone."""
    if job.plan.reads_rows and not labels_take_part(job, b):
        open_tiles(job, s, b, True)


cdef inline bint labels_take_part(const Job *job, const Block *b) noexcept nogil:
    """Return whether the label of each row is not masked: then no row is skipped, and with a mask
    alone nothing else has to be read."""
    cdef const char *place
    cdef int r, any_masked = 0
    if job.plan.has_dots or not evenly_spaced(job, b.first, b.n_rows):
        return False
    place = row_at(job, &job.where, b.first)
    for r in range(b.n_rows):
        any_masked |= place[b.label[r] * job.where.step] == 0
        place += job.where.outer[job.ndim - 1]
    return not any_masked


cdef inline void open_tiles(const Job *job, Scratch *s, Block *b, bint weighs) noexcept nogil:
    """Load masks and distributions of a block's rows. If it `weighs`, sum what they weigh."""
    cdef double[MOST_ROWS] unused
    cdef int t
    if job.where.data != NULL:
        load_array(job, s, &job.where, b, s.mask_tiles, unused)
    if job.target_is == DISTRIBUTION:
        load_array(job, s, &job.target, b, s.target, unused)
    elif job.target_is == SPARSE:
        load_entries(job, s, b, s.target)
    if weighs:
        for t in range(count_sixteens(b.n_rows)):
            weigh_rows_of_tile(job, s, b, t)


cdef inline void weigh_rows_of_tile(const Job *job, Scratch *s, Block *b, int t) noexcept nogil:
    """Sum what the targets of sixteen rows weigh."""
    cdef char *target = tile_of(job, s.target, t)
    cdef double[TILE] unmasked, target_sum, target_mass, weight_sum, fine
    cdef bint any_0 = b.any_ignored or b.n_rows < (t + 1) * TILE
    cdef int begin = t * TILE, r
    for r in range(TILE):
        unmasked[r] = job.n_classes
        weight_sum[r] = job.loss.class_sum
    if job.where.data != NULL:
        any_0 |= total_tile(job, MASSES, tile_of(job, s.mask_tiles, t), NULL, NULL, unmasked, fine)
        if job.loss.smoothing != 0:
            total_tile(job, MASSES, base_of(job, s, t), NULL, NULL, weight_sum, fine)
            for r in range(TILE):
                weight_sum[r] += fine[r]
    if job.plan.by_mass:
        any_0 |= total_tile(job, MASSES, target, NULL, NULL, target_sum, fine)
        for r in range(TILE):
            target_sum[r] += fine[r]
            target_mass[r] = target_sum[r]
        if any_0:
            note_empty(job, b, t, target, target_sum)
        if job.loss.class_weight != NULL:
            job.kernels.tile_multiply(target, job.loss.class_weight, job.n_classes)
            total_tile(job, MASSES, target, NULL, NULL, target_mass, fine)
            for r in range(TILE):
                target_mass[r] += fine[r]
    if not any_0:
        weigh_whole_tile(job, b, begin, unmasked, weight_sum, target_sum, target_mass)
    else:
        for r in range(min(TILE, b.n_rows - begin)):
            weigh_masses(job, b, begin + r, unmasked[r], weight_sum[r], job.plan.by_mass,
                         target_sum[r], target_mass[r], True)
    if not is_moderate_tile(job, b, t):
        for r in range(min(TILE, b.n_rows - begin)):
            settle_row(job, b, begin + r, unmasked[r], weight_sum[r])
            if job.plan.by_mass and lift_at(b, begin + r) != 0:
                lift_target(job, s, b, begin + r, target + r * job.itemsize, TILE)


cdef inline bint is_moderate_tile(const Job *job, const Block *b, int t) noexcept nogil:
    """Return whether it is sure that is_moderate holds for all rows of a tile."""
    cdef double least = job.range.least_mass, most = job.range.most_mass
    cdef int begin = t * TILE, r, moderate = 1
    if not job.loss.moderate_weights:
        return False
    if job.plan.by_mass:            # not so if a sum overflowed and is NaN
        for r in range(TILE):
            moderate &= (least <= b.w.target_mass[begin + r]) & (
                b.w.target_mass[begin + r] < most)
        for r in range(TILE):
            moderate &= b.w.uniform_total[begin + r] < most
    return moderate


cdef inline void note_empty(const Job *job, Block *b, int t, const char *target,
                            const double *target_sum) noexcept nogil:
    """Mark those rows of a tile as ignored whose target is all zeros. (A sum of 0 is not enough:
    positive and negative entries may cancel.)"""
    cdef int r
    for r in range(min(TILE, b.n_rows - t * TILE)):
        if target_sum[r] == 0:
            b.ignored[t * TILE + r] |= not (
                has_entry(job, target, r)
                or holds_small_numbers(job, b.first + t * TILE + r))


cdef inline bint has_entry(const Job *job, const char *tile, int r) noexcept nogil:
    """Return whether row r of a tile has a number that is not 0."""
    cdef ptrdiff_t c
    for c in range(job.n_classes):
        if real_at(job, tile, c * TILE + r, job.n_classes * TILE) != 0:
            return True
    return False


cdef inline char *base_of(const Job *job, Scratch *s, int t) noexcept nogil:
    """Return the class weights of tile t as a tile, 0 where masked; NULL for ones."""
    if job.where.data == NULL:
        return s.class_weight
    if job.loss.class_weight == NULL:
        return tile_of(job, s.mask_tiles, t)
    memcpy(s.class_weight, tile_of(job, s.mask_tiles, t), job.n_classes * TILE * job.itemsize)
    job.kernels.tile_multiply(s.class_weight, job.loss.class_weight, job.n_classes)
    return s.class_weight


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


cdef inline void tile_dots(const Job *job, Scratch *s, Block *b, int t,
                           const char *x) noexcept nogil:
    """Sum masses times (x - shift), unless the target is a label, and with label smoothing class
    weights times (x - shift); of a VJP, the products of both vectors."""
    cdef const double *shift = b.shift + t * TILE
    cdef double *dot = b.target_dot_hi + t * TILE
    cdef double[TILE] zero
    cdef const char *target = tile_of(job, s.target, t)
    cdef const char *base
    if job.what & VJP:
        memset(zero, 0, sizeof(zero))
        total_tile(job, PLAIN_PRODUCTS, target, x, zero, dot, b.target_dot_lo + t * TILE)
        return
    if job.plan.by_mass:
        total_tile(job, PRODUCTS, target, x, shift, dot, b.target_dot_lo + t * TILE)
        mend_dots(job, b, t, target, x, dot, b.target_dot_lo + t * TILE)
    if job.loss.smoothing != 0:
        base = base_of(job, s, t)
        dot = b.uniform_dot_hi + t * TILE
        total_tile(job, DIFFERENCES, base, x, shift, dot, b.uniform_dot_lo + t * TILE)
        mend_dots(job, b, t, base, x, dot, b.uniform_dot_lo + t * TILE)


cdef inline void mend_dots(const Job *job, const Block *b, int t, const char *a, const char *x,
                           double *hi, double *lo) noexcept nogil:
    """Sum again, term by term in double, the dots that overflowed."""
    cdef double lost = 0
    cdef Total total
    cdef int r
    for r in range(TILE):
        lost += hi[r] - hi[r]
    if lost == 0:
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


cdef inline void tile_stats(const Job *job, Scratch *s, Block *b, int t,
                            const char *e) noexcept nogil:
    """Compute what statistics need besides the sums of the exps of sixteen rows."""
    cdef const char *x = tile_of(job, s.second, t)
    cdef double[TILE] zero, fine
    cdef int begin = t * TILE, r
    total_tile(job, TINY_PRODUCTS if has_tiny_differences(job) else PRODUCTS, e, x,
               b.shift + begin, b.entropy_dot + begin, fine)
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


cdef inline void tile_gradient(const Job *job, Scratch *s, const Block *b, int t,
                               const char *gathered, bint scaled, char *e) noexcept nogil:
    """Compute the gradient (30), (31) of a tile's rows in place of their exps."""
    cdef const Kernels *k = job.kernels
    cdef Gradient g
    cdef double[TILE] target_weight, base_weight, mass
    cdef int begin = t * TILE, w = 0 if b.alike else begin, r
    cdef bint labels = job.target_is == LABELS and job.loss.confidence != 0
    cdef bint compares = labels and job.n_classes <= FEW and not scaled
    if labels and not compares:
        k.tile_minus_rest(e, b.label + begin, gathered, b.w.label_mass + w, b.w.rest_from + w,
                          b.coarse + begin, b.fine + begin)
    if scaled:
        return
    for r in range(TILE):
        target_weight[r] = target_factor(job, b, w + r)
    memset(&g, 0, sizeof(g))
    g.hi, g.lo = &b.factor_hi[begin], &b.factor_lo[begin]
    g.coarse, g.fine = &b.coarse[begin], &b.fine[begin]
    g.rest_from = &b.w.rest_from[w]
    g.target_mass, g.surplus = &b.w.target_mass[w], &b.w.surplus[w]
    g.target_weight = target_weight
    if compares:
        g.label, g.label_mass = &b.label[begin], &b.w.label_mass[w]
    elif job.plan.by_mass and job.loss.confidence != 0:     # or else all of it is smoothed away
        g.a = tile_of(job, s.target, t)
    if job.loss.smoothing != 0:
        for r in range(TILE):
            base_weight[r] = uniform_factor(b, begin + r)
        g.base_weight = base_weight
        g.base = base_of(job, s, t)
    k.tile_gradient(e, job.n_classes, &g)
    if labels and job.plan.has_surplus and not compares:
        for r in range(TILE):
            mass[r] = residual_mass(b, begin + r, b.w.label_mass[begin + r])
        k.tile_subtract(e, b.label + begin, mass, target_weight)


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
    cdef double[2] choice
    cdef int t, r
    choice[1] = 0
    for t in range(count_sixteens(b.n_rows)):
        job.kernels.tile_skip(b.skipped + t * TILE, job.n_classes, 0, tile_of(job, tiles, t))
    for r in range(b.n_rows):       # without a branch
        choice[0] = b.factor_hi[r]
        b.factor_hi[r] = choice[b.skipped[r]]
        choice[0] = b.factor_lo[r]
        b.factor_lo[r] = choice[b.skipped[r]]


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
    cdef double[TILE] one, hi, lo, weight
    cdef int[TILE] raised
    cdef int begin = t * TILE, w = 0 if b.alike else begin, r
    for r in range(TILE):
        one[r] = 1
        weight[r] = variance_weight(job, b, w + r, &raised[r])
    job.doubles.divide(one, b.coarse + begin, b.fine + begin, TILE, hi, lo)
    job.kernels.tile_variance(tile, job.n_classes, hi, lo, b.coarse + begin, b.fine + begin,
                              weight, variance)
    raise_rows(job, variance, raised)
    clear_tile(job, s, b, t, 0, variance)
