# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# What _target.pxd does for a row or piece, for the sixteen rows of a tile: what masks, targets and
# class weights say. Weigh, dots, and minus_rest, the scaling and subtract in one: the gradient.
# Touches the tiles of one thread.

from libc.string cimport memcpy, memset

from cysoftmax._block cimport (
    MOST_ROWS, Block, skip_ignored, target_factor, uniform_factor, weigh_masses,
    weigh_whole_tile)
from cysoftmax._extreme_targets cimport holds_small_numbers, lift_target, settle_row
from cysoftmax._extremes cimport any_outside, lift_at
from cysoftmax._formula cimport residual_mass
from cysoftmax._given cimport weigh_given
from cysoftmax._job cimport DISTRIBUTION, LABELS, SPARSE, Job, evenly_spaced, row_at
from cysoftmax._kernels cimport FEW, TILE, Gradient, Kernels
from cysoftmax._numbers cimport real_at
from cysoftmax._scratch cimport Scratch
from cysoftmax._sums cimport count_sixteens
from cysoftmax._tile_arrays cimport load_array, load_entries, tile_of
from cysoftmax._tile_sums cimport (
    DIFFERENCES, PRODUCTS, mend_dots, total_masses, total_tile)
from cysoftmax._what cimport VJP

# ---------------------------------------------------------------- weigh

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
        if job.plan.by_mass and not job.given_masses:
            skip_ignored(job, b)    # those without a target


cdef inline void weigh_rows_of_tile(const Job *job, Scratch *s, Block *b, int t) noexcept nogil:
    """Sum what the targets of sixteen rows weigh."""
    cdef char *target = tile_of(job, s.target, t)
    cdef double[TILE] unmasked, weight_sum, target_sum, target_mass
    cdef bint any_0 = b.n_rows < (t + 1) * TILE
    cdef int begin = t * TILE, r
    if job.given_masses:
        if job.loss.class_weight != NULL:
            job.kernels.tile_multiply(target, job.loss.class_weight, job.n_classes)
        for r in range(min(TILE, b.n_rows - begin)):
            weigh_given(job, b, begin + r)
        return
    for r in range(TILE):
        unmasked[r] = job.n_classes
        weight_sum[r] = job.loss.class_sum
    if job.where.data != NULL:
        any_0 |= total_masses(job, tile_of(job, s.mask_tiles, t), unmasked)
        if job.loss.smoothing != 0:
            total_masses(job, base_of(job, s, t), weight_sum)
    if job.plan.by_mass:
        if total_masses(job, target, target_sum):
            any_0 |= leaves_sums_of_0(job, b, t, target, target_sum)
        memcpy(target_mass, target_sum, sizeof(target_sum))
        if job.loss.class_weight != NULL:
            job.kernels.tile_multiply(target, job.loss.class_weight, job.n_classes)
            total_masses(job, target, target_mass)
            for r in range(TILE):
                any_0 |= target_mass[r] == 0
    if not any_0:
        weigh_whole_tile(job, b, begin, unmasked, weight_sum, target_sum, target_mass)
        if is_moderate_tile(job, b, begin):
            return
    else:
        for r in range(min(TILE, b.n_rows - begin)):
            weigh_masses(job, b, begin + r, unmasked[r], weight_sum[r], job.plan.by_mass,
                         target_sum[r], target_mass[r], True)
    for r in range(min(TILE, b.n_rows - begin)):
        settle_row(job, b, begin + r, unmasked[r], weight_sum[r])
        if job.plan.by_mass and lift_at(b, begin + r) != 0:
            lift_target(job, s, b, begin + r, target + r * job.itemsize, TILE)


cdef inline bint is_moderate_tile(const Job *job, const Block *b, int begin) noexcept nogil:
    """Return whether is_moderate holds for all sixteen rows from `begin` on, but those ignored,
    none of whose masses is 0."""
    cdef double most = job.range.most_mass
    return job.loss.moderate_weights and not (
        any_outside(job, b.w.target_mass + begin, TILE, job.range.least_mass, most)
        or (job.loss.smoothing != 0 and any_outside(job, b.w.uniform_total + begin, TILE, 0, most)))


cdef inline bint leaves_sums_of_0(const Job *job, Block *b, int t, const char *target,
                                  const double *target_sum) noexcept nogil:
    """Mark those rows of a tile as ignored whose target is all zeros; return whether others sum to
    0. (Positive and negative entries may cancel.)"""
    cdef int begin = t * TILE, r
    cdef bint any_other = False
    for r in range(min(TILE, b.n_rows - begin)):
        if target_sum[r] != 0 or b.ignored[begin + r]:
            continue
        if has_entry(job, target, r) or holds_small_numbers(job, b.first + begin + r):
            any_other = True
        else:
            b.ignored[begin + r] = True
    return any_other


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


# ---------------------------------------------------------------- dots

cdef inline void tile_dots(const Job *job, Scratch *s, Block *b, int t,
                           const char *x) noexcept nogil:
    """Sum masses times (x - shift), unless the target is a label, and with label smoothing class
    weights times (x - shift); of a VJP, the products of both vectors."""
    cdef const double *shift = b.shift + t * TILE
    cdef double *dot = b.target_dot_hi + t * TILE
    cdef const char *target = tile_of(job, s.target, t)
    cdef const char *base
    if job.what & VJP:
        total_tile(job, PRODUCTS, target, x, NULL, dot, b.target_dot_lo + t * TILE)
        return
    if job.plan.by_mass:
        total_tile(job, PRODUCTS, target, x, shift, dot, b.target_dot_lo + t * TILE)
        mend_dots(job, b, t, target, x, dot, b.target_dot_lo + t * TILE)
    if job.loss.smoothing != 0:
        base = base_of(job, s, t)
        dot = b.uniform_dot_hi + t * TILE
        total_tile(job, DIFFERENCES, base, x, shift, dot, b.uniform_dot_lo + t * TILE)
        mend_dots(job, b, t, base, x, dot, b.uniform_dot_lo + t * TILE)


# ---------------------------------------------------------------- gradient

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
