# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
"""The mathematics of a row, and the loops over rows.

Arrays come in checked: native byte order, aligned, the class axis last, outputs that do
not overlap an input unless they are that input. What is left to find here is a bad label.

A row is worked on whole (`do_rows`), or sixteen rows side by side (`do_tiles`), or by blocks
of its classes (`long_rows`). Which one is a matter of speed: each gives a row the same bits.
Losses are summed by sixteens, in any of these ways.

The formula of a row with all its options, and the names of its parts, are at `Group`.
"""

cimport cython
cimport numpy as cnp
from cython.parallel cimport parallel, prange
from libc.math cimport INFINITY, NAN, frexp, isfinite, isinf, isnan, ldexp
from libc.stdint cimport PTRDIFF_MAX, int32_t, int64_t, uint16_t, uint64_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from cysoftmax._job cimport (
    BAD_LABEL, CYSOFTMAX_DEBUG, DISTRIBUTION, GRAD, IGNORED_LABEL, LABELS, LOG_SOFTMAX,
    LOGSUMEXP, LOSS, MASS, SOFTMAX, SPARSE, STATS, VARIANCE, VJP, Job,
    Rows, Total, Weights, add, copy_items, expect, fill_row, finish, in_line, load_halves,
    load_numbers, put_number, put_real, read_labels, real_at, row_at, store_row, total_of_groups,
    total_of_rows)
from cysoftmax._kernels cimport (
    CHUNK, TILE, TILES, Isa, Kernels, Carry, NextTiles, cache_size, fp_enter, fp_leave, fp_mode, isas)
from cysoftmax._threads cimport thread_count, thread_num

import os

import numpy as np

cnp.import_array()

CYTHON = cython.__version__
DEBUG = bool(CYSOFTMAX_DEBUG)   # built with Cython's checks on, and with `expect`

# ---------------------------------------------------------------- instruction sets

cdef const Isa *active = NULL


def available_isas():
    """Return the names of the instruction sets that this machine can run, best first."""
    names = []
    cdef int i = 0
    while isas[i].name != NULL:
        if isas[i].available():
            names.append(isas[i].name.decode())
        i += 1
    return names


def use_isa(name):
    """Use the instruction set of that name from now on; the best one if it is empty."""
    global active
    names = available_isas()
    if name and name not in names:
        raise ValueError(
            f"CYSOFTMAX_ISA must be one of {', '.join(names)} on this machine; got {name!r}")
    cdef int i = 0
    while isas[i].name.decode() != (name or names[0]):
        i += 1
    active = &isas[i]


def active_isa():
    """Return the name of the instruction set in use."""
    return active.name.decode()


use_isa(os.environ.get("CYSOFTMAX_ISA", ""))

# Outputs larger than this are stored past the caches: they would not stay there anyway.
# Half of the last level; hypervisors have been seen to report ten times what there is.
cdef ptrdiff_t STREAM_BYTES = min(max(cache_size(), <ptrdiff_t>1 << 22), <ptrdiff_t>1 << 25) // 2

cdef double LARGEST = np.finfo(np.float64).max

cdef enum:
    MOST_ROWS = TILES * TILE    # so many are worked on together, sixteen to a tile,
    TILE_BYTES = 1 << 19        # as long as what is kept of them stays in the L2 cache
    STREAM_ROW_BYTES = 256      # below, too many lines at the ends of rows are not whole
    TILES_BYTES = 1 << 15       # the tiles of contiguous classes should stay in the L1 cache
    TOGETHER_BYTES = 1 << 14    # and so should sixteen rows of exps
    FETCH_BYTES = 1 << 20   # rows are fetched early if they are not larger,
    LATE_BYTES = 1 << 21    # rows are stored late if they are not larger
    FETCH_AHEAD = 1 << 12   # and so many bytes before the next batch is needed
    LABELS_AT_ONCE = 512    # so many are checked at a time
    PAGE = 4096

# ---------------------------------------------------------------- a row and its target

# With d = x / temperature - max and A_c = class_weight_c ((1 - e) T_c + e sum(T) / K),
#
#   loss = s (a log(total) - sum A d) + w z lse^2
#   gradient of the loss = (b p - s A) / temperature,    b = s a + 2 w z lse
#
# In the names below: s `sample`, 1 - e `keep`, sum(T) `given`, e sum(T) / K `smooth`,
# class_weight_c T_c the `share` of class c, their sum `mass`, w = s mass `weight`,
# smooth times the sum of class weights `smooth_sum`, a = keep mass + smooth_sum.
cdef struct Group:              # rows that are worked on together, and what each boils down to
    ptrdiff_t first
    int n_rows, weights_step
    Weights *weights            # of each row; or with a step of 0 job.ones, of all of them
    char[MOST_ROWS] skipped     # nothing to compute: zeros
    char[MOST_ROWS] ignored     # has no loss, weight or gradient
    ptrdiff_t[MOST_ROWS] y      # its label
    double[MOST_ROWS] shift, coarse, fine, log_total
    double[MOST_ROWS] sharp_hi, sharp_lo    # sum of share times x - shift
    double[MOST_ROWS] even_hi, even_lo      # of class weight times x - shift, if smoothed
    double[MOST_ROWS] loss      # its loss, or its logsumexp, or 0
    double[MOST_ROWS] hi, lo    # what its exps are multiplied with

cdef struct Place:              # where one row is
    const char *x               # its logits, side by side
    char *e                     # its exps, or NULL
    char *a                     # the shares, if the target is a distribution
    const char *base            # the class weights of the classes that take part; NULL for ones
    const unsigned char *where  # which classes take part, or NULL for all


cdef inline ptrdiff_t chunks(ptrdiff_t n) noexcept nogil:
    """How many chunks, the pieces in which the kernels want their sums, n classes make."""
    return (n + CHUNK - 1) // CHUNK


cdef inline void open_group(Job *job, Group *g, ptrdiff_t first, int n_rows,
                            Weights *weights) noexcept nogil:
    """Read what there is of each row besides its logits: label, weight, scale; `weights` has room
    for what is special about them. A row whose label is out of range gets class 0, and the call
    an error in the end."""
    cdef ptrdiff_t any_sign = 0
    cdef int r
    g.first = first
    g.n_rows = n_rows
    g.weights = &job.ones
    g.weights_step = 0
    if job.weighted or job.scale.data != NULL or leaves_more(job):
        g.weights = weights
        g.weights_step = 1
        for r in range(n_rows):
            weights[r] = job.ones
    clear_rows(g, (n_rows + TILE - 1) // TILE * TILE,   # a tile has 16 rows whatever n_rows is
               job.tiles > 0 and n_rows % TILE == 0 and not job.weighted)
    if job.target_is == LABELS:
        read_labels(job, first, n_rows, g.y)
        for r in range(n_rows):
            any_sign |= g.y[r]
        for r in range(n_rows if any_sign < 0 else 0):
            if g.y[r] < 0:
                if g.y[r] == BAD_LABEL:
                    job.bad = 1
                g.ignored[r] = g.y[r] == IGNORED_LABEL
                g.y[r] = 0
    if job.weighted:
        for r in range(n_rows):
            if job.target_is == LABELS and job.class_weight != NULL:
                weights[r].share = weights[r].mass = real_at(job, job.class_weight, g.y[r])
            if job.sample.data != NULL:
                weights[r].sample = (<const double *>row_at(job, &job.sample, first + r))[0]
                g.ignored[r] |= weights[r].sample == 0
            weigh(job, g, r)
    if job.scale.data != NULL:
        for r in range(n_rows):
            weights[r].factor = factor_for(
                job, (<const double *>row_at(job, &job.scale, first + r))[0])


cdef inline Weights *weights_of(const Group *g, int r) noexcept nogil:
    return g.weights + r * g.weights_step


cdef inline void clear_rows(Group *g, int n, bint computed) noexcept nogil:
    """What n rows boil down to if nothing is found out about them, or all of it is `computed`."""
    cdef int r
    memset(g.skipped, 0, n)
    memset(g.ignored, 0, n)
    memset(g.loss, 0, n * sizeof(double))
    if computed:
        return
    memset(g.y, 0, n * sizeof(g.y[0]))
    memset(g.fine, 0, n * sizeof(double))
    memset(g.log_total, 0, n * sizeof(double))
    memset(g.hi, 0, n * sizeof(double))
    memset(g.lo, 0, n * sizeof(double))
    for r in range(n):
        g.coarse[r] = 1


cdef inline double factor_for(const Job *job, double scale) noexcept nogil:
    """What the gradient of a row with that scale is multiplied with."""
    scale /= job.divisor
    return scale if job.inv_temperature == NULL else within(scale / job.temperature * job.load_scale)


cdef inline void weigh(const Job *job, Group *g, int r) noexcept nogil:
    """Take note of what row r weighs."""
    cdef Weights *w = weights_of(g, r)
    if g.ignored[r]:
        w.share = w.mass = 0
    w.weight = w.sample * w.mass
    # The statistics of a row do not need its target.
    g.skipped[r] = g.ignored[r] and not job.what & STATS


cdef void prepare_row(Job *job, char *scratch, Group *g, int r, Place *p) noexcept nogil:
    """Read a row's mask and distribution: which classes take part, and what they weigh."""
    cdef Weights *w = weights_of(g, r)
    cdef ptrdiff_t i = g.first + r, n = job.n_classes, taking_part = n
    if g.skipped[r]:
        return
    if job.where.data != NULL:
        p.where = where_row(job, i, scratch + job.where_at)
        taking_part = count(p.where, n)
    if taking_part == 0:
        g.ignored[r] = 1
        weigh(job, g, r)
        g.skipped[r] = 1
        g.y[r] = 0
        return
    if job.target_is == DISTRIBUTION:
        p.a = scratch + job.target_at
        load_numbers(job, &job.target, i, p.a)
        w.given = w.mass = mass_of(job, p.a)
        g.ignored[r] |= w.given == 0 and all_zero(job, p.a)
        if job.class_weight != NULL:
            job.kernels.multiply(p.a, job.class_weight, n, p.a)
            w.mass = mass_of(job, p.a)
    elif job.target_is == SPARSE:
        weigh_entries(job, g, r)
    if job.smoothing != 0 and not g.ignored[r] and not job.what & MASS:
        w.smooth = job.smoothing * w.given / taking_part
        w.smooth_sum = w.smooth * job.class_sum
        if p.where != NULL:     # class_weight is never NULL then
            job.kernels.select(p.where, job.class_weight, n, 0, scratch + job.base_at)
            p.base = scratch + job.base_at
            w.smooth_sum = w.smooth * mass_of(job, p.base)
    weigh(job, g, r)


cdef inline const unsigned char *where_row(const Job *job, ptrdiff_t i,
                                           char *spare) noexcept nogil:
    cdef const char *place = row_at(job, &job.where, i)
    if job.where.step != 1:
        copy_items(place, job.where.step, job.n_classes, spare, 1, 1)
        place = spare
    return <const unsigned char *>place


cdef inline ptrdiff_t count(const unsigned char *where, ptrdiff_t n) noexcept nogil:
    cdef ptrdiff_t c, total = 0
    for c in range(n):
        total += where[c] != 0
    return total


cdef inline const char *load_row(const Job *job, const Rows *rows, ptrdiff_t i, char *spare,
                                 const unsigned char *where=NULL) noexcept nogil:
    """Row i as reals side by side: where it is, or copied to `spare`; with -inf where it does
    not take part."""
    cdef const char *place = row_at(job, rows, i)
    cdef ptrdiff_t c
    if not rows.direct:
        if rows.item == 2:
            load_halves(job, rows, place, spare)
        else:
            copy_items(place, rows.step, job.n_classes, spare, rows.item, rows.item)
        place = spare
    if job.load_scale != 1:
        for c in range(job.n_classes):
            put_real(job, spare, c, real_at(job, place, c) * job.load_scale)
        place = spare
    if where != NULL:
        job.kernels.select(where, place, job.n_classes, -INFINITY, spare)
        place = spare
    return place


cdef inline const char *load_logits(const Job *job, ptrdiff_t i, char *spare,
                                    const unsigned char *where, double *largest) noexcept nogil:
    """`load_row` of the logits, and the largest that takes part and is not NaN."""
    cdef const char *place
    if job.x.item == 2 and job.x.step == 2 and job.load_scale == 1 and where == NULL:
        largest[0] = load_halves(job, &job.x, row_at(job, &job.x, i), spare)
        return spare
    place = load_row(job, &job.x, i, spare, where)
    largest[0] = job.kernels.max(place, job.n_classes)
    return place


# ---------------------------------------------------------------- sums over a row

cdef struct Late:               # a row whose exps wait to be scaled and stored
    const char *e               # or NULL: there is none
    char *out
    double hi, lo

cdef struct Thread:             # what a thread keeps from one row to the next
    Carry line, variance_line    # of the two outputs
    int half                    # of its room for exps or tiles: which of the two is free
    Late late
    ptrdiff_t loaded            # tiles from this row on are there already, or -1
    ptrdiff_t edge              # the ends of columns that wait end at this row, or -1


cdef inline void write_scaled(const Job *job, Carry *line, const char *e, ptrdiff_t n, double hi,
                              double lo, char *out) noexcept nogil:
    if job.stream:
        job.kernels.stream(e, n, hi, lo, out, line)
    else:
        job.kernels.scale(e, n, hi, lo, NULL, 0, NULL, 0, out)


cdef inline void write_late(const Job *job, Thread *t, ptrdiff_t at, ptrdiff_t n) noexcept nogil:
    """n classes, `at` bytes into the row that waits."""
    write_scaled(job, &t.line, t.late.e + at, n, t.late.hi, t.late.lo, t.late.out + at)


cdef inline Total sum_of_exp(const Job *job, const char *x, double shift, const char *next,
                             char *e, Thread *t=NULL) noexcept nogil:
    """sum exp(d) over the classes; each exp goes to e, unless that is NULL. On the way, the row
    at `next` is fetched from memory, unless that is NULL, and a row of the thread that waits is
    written."""
    cdef Total total = Total(0, 0, 0)
    cdef double coarse, fine
    cdef ptrdiff_t b, at, n
    for b in range(chunks(job.n_classes)):
        at = b * CHUNK * job.itemsize
        n = min(<ptrdiff_t>CHUNK, job.n_classes - b * CHUNK)
        job.kernels.exp_sum(x + at, n, shift, job.inv_temperature, next + at if next != NULL else NULL,
                            e + at if e != NULL else NULL, &coarse, &fine)
        if b == 0:      # all there is, mostly
            total = Total(coarse, fine, 0)
        else:
            add(&total, coarse, fine)
        if t != NULL and t.late.e != NULL:
            write_late(job, t, at, n)
    if t != NULL:
        t.late.e = NULL
    finish(&total)
    return total


cdef inline double mass_of(const Job *job, const char *a) noexcept nogil:
    """The sum of a distribution's entries."""
    cdef Total total = Total(0, 0, 0)
    cdef double coarse, fine
    cdef ptrdiff_t b
    for b in range(chunks(job.n_classes)):
        job.kernels.sum(a + b * CHUNK * job.itemsize,
                        min(<ptrdiff_t>CHUNK, job.n_classes - b * CHUNK), &coarse, &fine)
        add(&total, coarse, fine)
    finish(&total)
    return total.coarse + total.fine


cdef Total dot(const Job *job, const char *a, const char *x, double shift,
               bint skip_zeros) noexcept nogil:
    """sum a (x - shift) as coarse + fine, all but exact; of ones where a is NULL."""
    cdef Total total = Total(0, 0, 0)
    cdef double hi, lo
    cdef ptrdiff_t b, at, n
    for b in range(chunks(job.n_classes)):
        at = b * CHUNK * job.itemsize
        n = min(<ptrdiff_t>CHUNK, job.n_classes - b * CHUNK)
        if a == NULL:
            job.kernels.diff_sum(x + at, n, shift, &hi, &lo)
        else:
            job.kernels.dot(a + at, x + at, n, shift, skip_zeros, &hi, &lo)
        add(&total, hi, lo)
    finish(&total)
    return total


cdef Total loss_dot(const Job *job, const char *a, const char *x, double shift) noexcept nogil:
    """`dot` without the zeros; in double, term by term, if a term or the sum overflows."""
    cdef Total total = dot(job, a, x, shift, True)
    cdef double weight = 1
    cdef ptrdiff_t c
    if isfinite(total.coarse):
        return total
    total = Total(0, 0, 0)
    for c in range(job.n_classes):
        if a != NULL:
            weight = real_at(job, a, c)
        add_term(job, &total, weight, x + c * job.itemsize, shift)
    return total


cdef inline void add_term(const Job *job, Total *total, double weight, const char *x,
                          double shift) noexcept nogil:
    cdef double hi, lo
    job.kernels.terms(&weight, x, &shift, 1, &hi, &lo)
    total.coarse += hi
    total.fine += lo


cdef inline bint all_zero(const Job *job, const char *a) noexcept nogil:
    cdef ptrdiff_t c
    for c in range(job.n_classes):
        if real_at(job, a, c) != 0:
            return False
    return True


# ---------------------------------------------------------------- sparse targets

# The non-zeros of a chunk of classes are put side by side, each in the lane it would have in
# the whole row. The zeros in between would change nothing, so the sums have the bits of the
# distribution that is written out.
cdef struct Packed:
    double[CHUNK] a, x          # room for reals of either size
    int n


cdef inline ptrdiff_t index_at(const Job *job, const char *indices, ptrdiff_t j) noexcept nogil:
    if job.index_item == 4:
        return (<const volatile int32_t *>indices)[j]
    return <ptrdiff_t>(<const volatile int64_t *>indices)[j]


cdef inline ptrdiff_t entry_bound(const Job *job, ptrdiff_t j) noexcept nogil:
    """indptr[j], which was checked, within the entries even if another thread changed it."""
    return max(<ptrdiff_t>0, min(index_at(job, job.indptr, j), job.n_entries))


cdef inline ptrdiff_t entry_at(Job *job, ptrdiff_t j, bint weighted, double *share) noexcept nogil:
    """The class of entry j, and what it holds, times the class weight if `weighted`. Checked
    before; a class that was changed since does no harm."""
    cdef ptrdiff_t c = index_at(job, job.entry_classes, j)
    if not 0 <= c < job.n_classes:
        job.bad = 1
        c = 0
    share[0] = real_at(job, job.entries, j)
    if weighted and job.class_weight != NULL:
        share[0] *= real_at(job, job.class_weight, c)
        if job.itemsize == 4:
            share[0] = <float>share[0]
    return c


cdef void pack(Job *job, ptrdiff_t *j, ptrdiff_t end, bint weighted, const char *x,
               Packed *p) noexcept nogil:
    """Pack entries from j on that belong to one chunk, with their logits unless x is NULL; j
    becomes the first that does not."""
    cdef char *a = <char *>p.a
    cdef char *logits = <char *>p.x
    cdef int used[16]
    cdef ptrdiff_t c, chunk = -1
    cdef double share
    cdef int lane, slot
    memset(used, 0, sizeof(used))
    p.n = 0
    while j[0] < end:
        c = entry_at(job, j[0], weighted, &share)
        if chunk < 0:
            chunk = c // CHUNK
        lane = c % 16
        if c // CHUNK != chunk or used[lane] == CHUNK // 16:
            return
        slot = 16 * used[lane] + lane
        used[lane] += 1
        if slot >= p.n:
            memset(a + p.n * job.itemsize, 0, 16 * job.itemsize)
            memset(logits + p.n * job.itemsize, 0, 16 * job.itemsize)
            p.n += 16
        put_real(job, a, slot, share)
        if x != NULL:
            put_real(job, logits, slot, real_at(job, x, c))
        j[0] += 1


cdef double mass_of_entries(Job *job, ptrdiff_t i, bint weighted) noexcept nogil:
    """mass_of for row i of a sparse target."""
    cdef ptrdiff_t j = entry_bound(job, i), end = entry_bound(job, i + 1)
    cdef Total total = Total(0, 0, 0)
    cdef Packed p
    cdef double hi, lo
    while j < end:
        pack(job, &j, end, weighted, NULL, &p)
        job.kernels.sum(p.a, p.n, &hi, &lo)
        add(&total, hi, lo)
    finish(&total)
    return total.coarse + total.fine


cdef Total dot_of_entries(Job *job, ptrdiff_t i, const char *x, double shift) noexcept nogil:
    """loss_dot for row i of a sparse target."""
    cdef ptrdiff_t j = entry_bound(job, i), end = entry_bound(job, i + 1), c
    cdef Total total = Total(0, 0, 0)
    cdef Packed p
    cdef double hi, lo, share
    while j < end:
        pack(job, &j, end, True, x, &p)
        job.kernels.dot(p.a, p.x, p.n, shift, True, &hi, &lo)
        add(&total, hi, lo)
    finish(&total)
    if isfinite(total.coarse):
        return total
    total = Total(0, 0, 0)
    for j in range(entry_bound(job, i), end):
        c = entry_at(job, j, True, &share)
        add_term(job, &total, share, x + c * job.itemsize, shift)
    return total


cdef void weigh_entries(Job *job, Group *g, int r) noexcept nogil:
    cdef Weights *w = weights_of(g, r)
    cdef ptrdiff_t i = g.first + r, j
    cdef double value
    cdef bint any_entry = False
    for j in range(entry_bound(job, i), entry_bound(job, i + 1)):
        entry_at(job, j, False, &value)
        any_entry |= value != 0
    g.ignored[r] |= not any_entry
    w.given = w.mass = mass_of_entries(job, i, False)
    if job.class_weight != NULL:
        w.mass = mass_of_entries(job, i, True)


# ---------------------------------------------------------------- from the sums to the loss

cdef inline double log_sum_exp(const Job *job, const Group *g, int r) noexcept nogil:
    """Of the logits over the temperature."""
    return g.shift[r] / job.temperature + g.log_total[r]


cdef inline double total_mass(const Job *job, const Group *g, int r) noexcept nogil:
    """a, the sum of A."""
    cdef const Weights *w = weights_of(g, r)
    return job.keep * w.mass + w.smooth_sum


cdef inline double within(double value) noexcept nogil:
    """A tiny temperature can make a factor overflow: a large number then, but not NaN times 0."""
    return min(max(value, -LARGEST), LARGEST) if value == value else value


cdef inline void finish_group(const Job *job, Group *g) noexcept nogil:
    """From the sums of all rows to their logarithms and factors."""
    take_logs(job, g, 0, g.n_rows)
    take_factors(job, g, 0, g.n_rows)


cdef inline void take_logs(const Job *job, Group *g, int begin, int end) noexcept nogil:
    """log(total) of some rows."""
    if job.what & (LOG_SOFTMAX | LOGSUMEXP | LOSS | STATS) or job.z_loss != 0:
        job.doubles.log_total(g.coarse + begin, g.fine + begin, end - begin, g.log_total + begin)


cdef inline void take_factors(const Job *job, Group *g, int begin, int end) noexcept nogil:
    """What the exps of some rows are multiplied with, and which classes are not just scaled."""
    cdef double weight[MOST_ROWS]
    cdef Weights *w
    cdef int r
    if job.what & SOFTMAX:
        for r in range(begin, end):
            weight[r] = 1
    elif job.what & GRAD:
        for r in range(begin, begin + 1 if g.weights_step == 0 else end):
            w = weights_of(g, r)
            weight[r] = w.sample * total_mass(job, g, r)
            if job.z_loss != 0:
                weight[r] += 2 * w.weight * job.z_loss * log_sum_exp(job, g, r)
            weight[r] *= w.factor
        for r in range(begin + 1, end if g.weights_step == 0 else 0):   # all weigh the same
            weight[r] = weight[begin]
        if job.inv_temperature != NULL:
            for r in range(begin, end):
                weight[r] = within(weight[r])
        if job.keep != 0 and (job.weighted or leaves_more(job)):
            for r in range(begin, end):
                w = weights_of(g, r)
                w.extra = extra_of(job, g, r)
                w.half = half_of(g, r)
    else:
        return
    job.doubles.divide(weight + begin, g.coarse + begin, g.fine + begin, end - begin,
                       g.hi + begin, g.lo + begin)


cdef inline void label_terms(const Job *job, Group *g, int begin, int end,
                             const char **x) noexcept nogil:
    """share (x - shift) of the labels of rows whose classes lie side by side."""
    cdef double[TILE] share, gathered       # what is gathered are reals
    cdef int r
    for r in range(begin, end):
        expect(0 <= g.y[r] < job.n_classes)
        share[r - begin] = weights_of(g, r).share
        put_real(job, <char *>gathered, r - begin,
                 real_at(job, x[r], g.y[r]) if share[r - begin] != 0 else 0)
    job.kernels.terms(share, gathered, g.shift + begin, end - begin, g.sharp_hi + begin,
                      g.sharp_lo + begin)


cdef inline void row_terms(Job *job, Group *g, int r, const Place *p) noexcept nogil:
    """What the loss of row r needs of its logits; a label's term is there already."""
    cdef Total total
    if job.target_is != LABELS:
        total = (loss_dot(job, p.a, p.x, g.shift[r]) if job.target_is == DISTRIBUTION
                 else dot_of_entries(job, g.first + r, p.x, g.shift[r]))
        g.sharp_hi[r] = total.coarse
        g.sharp_lo[r] = total.fine
    if weights_of(g, r).smooth != 0:
        total = loss_dot(job, p.base, p.x, g.shift[r])
        g.even_hi[r] = total.coarse
        g.even_lo[r] = total.fine


cdef inline double loss_of(const Job *job, const Group *g, int r) noexcept nogil:
    """s (a log(total) - sum A d) + w z lse^2. No term of it is negative."""
    cdef const Weights *w = weights_of(g, r)
    cdef double hi = g.sharp_hi[r], lo = g.sharp_lo[r], loss, lse
    if job.smoothing != 0:
        hi = job.keep * hi if job.keep != 0 else 0      # 0 times -inf is 0
        lo = job.keep * lo
        if w.smooth != 0:
            hi += w.smooth * g.even_hi[r]
            lo += w.smooth * g.even_lo[r]
    if job.inv_temperature != NULL:
        hi /= job.temperature
        lo = lo / job.temperature if isfinite(hi) else 0
    loss = w.sample * ((total_mass(job, g, r) * g.log_total[r] - hi) - lo)
    if job.z_loss != 0 and w.weight != 0:
        lse = log_sum_exp(job, g, r)
        loss += w.weight * job.z_loss * (lse * lse)
    return loss


cdef inline void take_losses(const Job *job, Group *g) noexcept nogil:
    """loss_of for all rows that are not ignored."""
    cdef int r
    if g.weights_step == 0 and job.inv_temperature == NULL:    # the same, in a loop that becomes vectors
        for r in range(g.n_rows):
            g.loss[r] = (g.log_total[r] - g.sharp_hi[r]) - g.sharp_lo[r]
        return
    for r in range(g.n_rows):
        if not g.ignored[r]:
            g.loss[r] = loss_of(job, g, r)


cdef inline double logsumexp_of(const Job *job, const char *x, double shift,
                                double log_total) noexcept nogil:
    """shift + log_total, where an infinite shift is the answer unless there is a NaN."""
    if isinf(shift):
        return NAN if first_nan(job, x) < job.n_classes else shift
    return shift + log_total


cdef inline ptrdiff_t first_nan(const Job *job, const char *x) noexcept nogil:
    """The first class whose logit is NaN, or n_classes."""
    cdef ptrdiff_t c
    for c in range(job.n_classes):
        if isnan(real_at(job, x, c)):
            return c
    return job.n_classes


# ---------------------------------------------------------------- from the exps to the gradient

# A class that has half of the mass or more, and half of b, is given its gradient as b (p - 1) -
# (s A - b): see `minus_rest`. There b p - s A would cancel for a p near 1; elsewhere this form would.
# Its share then stands for (s A - b) / (keep s), so that all classes have keep s times something
# subtracted.

cdef inline double extra_of(const Job *job, const Group *g, int r) noexcept nogil:
    """b / (keep s) - mass."""
    cdef const Weights *w = weights_of(g, r)
    cdef double extra = w.smooth_sum
    if job.z_loss != 0 and w.sample != 0:
        extra += 2 * job.z_loss * w.weight / w.sample * log_sum_exp(job, g, r)
    return extra / job.keep


cdef inline double half_of(const Group *g, int r) noexcept nogil:
    """The share from which on a class is treated so."""
    cdef const Weights *w = weights_of(g, r)
    cdef double half = (w.mass + w.extra) / 2
    return max(half, w.mass / 2) if half > 0 else INFINITY


cdef inline bint leaves_more(const Job *job) noexcept nogil:
    """Whether b / (keep s) can be anything but the mass."""
    return job.smoothing != 0 or job.z_loss != 0


cdef inline double sharp_weight(const Job *job, const Group *g, int r) noexcept nogil:
    cdef const Weights *w = weights_of(g, r)
    return job.keep * w.sample * w.factor


cdef inline void minus_rest_at_labels(const Job *job, const Group *g, int begin, int end,
                                char **e) noexcept nogil:
    """Before the exps are scaled: what has to be done for the labels. Where e is NULL there is
    nothing to do."""
    cdef void *exps[TILE]
    cdef const Weights *w
    cdef int r
    for r in range(begin, end):
        exps[r] = NULL
        w = weights_of(g, r)
        if e[r] != NULL and w.share >= w.half:
            exps[r] = e[r] + g.y[r] * job.itemsize
    job.kernels.minus_rest(exps + begin, g.coarse + begin, g.fine + begin, end - begin)


cdef inline double left_of(const Group *g, int r, double share) noexcept nogil:
    """What stands for the share afterwards."""
    cdef const Weights *w = weights_of(g, r)
    if share >= w.half:
        return (share - w.mass) - w.extra
    return share


cdef inline void subtract(const Job *job, const Group *g, int r, double share,
                          char *grad) noexcept nogil:
    """And after the exps were scaled; grad is the entry of the gradient."""
    share = left_of(g, r, share)
    if share != 0:
        job.kernels.subtract(grad, share, sharp_weight(job, g, r))


cdef inline void subtract_label(const Job *job, const Group *g, int r, char *grad) noexcept nogil:
    subtract(job, g, r, weights_of(g, r).share, grad)


cdef inline void minus_rest_at_entries(Job *job, const Group *g, int r, char *e) noexcept nogil:
    """minus_rest_at_labels for a row with a sparse target."""
    cdef ptrdiff_t j, c
    cdef double share
    cdef void *place
    for j in range(entry_bound(job, g.first + r), entry_bound(job, g.first + r + 1)):
        c = entry_at(job, j, True, &share)
        if share >= weights_of(g, r).half:
            place = e + c * job.itemsize
            job.kernels.minus_rest(&place, &g.coarse[r], &g.fine[r], 1)


cdef inline void subtract_entries(Job *job, const Group *g, int r, char *grad) noexcept nogil:
    """subtract_label for each entry of a sparse target."""
    cdef ptrdiff_t j, c
    cdef double share
    for j in range(entry_bound(job, g.first + r), entry_bound(job, g.first + r + 1)):
        c = entry_at(job, j, True, &share)
        subtract(job, g, r, share, grad + c * job.itemsize)


cdef void gradient(Job *job, const Group *g, int r, const Place *p, char *out) noexcept nogil:
    """From the exps of a row, which are overwritten, its gradient."""
    cdef const Weights *w = weights_of(g, r)
    cdef double base_weight = w.smooth * w.sample * w.factor
    cdef bint sharp = job.keep != 0     # or else all of the target is smoothed away
    cdef char *a = NULL
    if job.target_is == DISTRIBUTION and sharp:
        a = p.a
        job.kernels.minus_rest_major(p.e, a, job.n_classes, w.mass, w.half, w.extra,
                                  g.coarse[r], g.fine[r])
    elif job.target_is == SPARSE and sharp:
        minus_rest_at_entries(job, g, r, p.e)
    job.kernels.scale(p.e, job.n_classes, g.hi[r], g.lo[r], p.base, base_weight, a,
                      sharp_weight(job, g, r), out)
    if job.target_is == SPARSE and sharp:
        subtract_entries(job, g, r, out)
    elif job.target_is == LABELS and sharp:
        subtract_label(job, g, r, out + g.y[r] * job.itemsize)


cdef inline bint streams_short(const Job *job, const Rows *rows) noexcept nogil:
    """Whether rows of 16 bits are stored past the caches."""
    return (job.large and rows.item == 2 and rows.step == 2
            and 2 * job.n_classes >= STREAM_ROW_BYTES)


cdef inline void deliver(const Job *job, Carry *line, const Rows *rows, ptrdiff_t i,
                         char *row) noexcept nogil:
    """Put a row into its place there, unless it was computed there."""
    cdef ptrdiff_t n = job.n_classes
    if streams_short(job, rows):
        job.kernels.narrow(row, n, rows.kind == c'b', <uint16_t *>row)
        job.kernels.stream_short(<uint16_t *>row, n, <uint16_t *>row_at(job, rows, i), line)
    elif not rows.direct:
        store_row(job, rows, i, row)
    elif job.stream:
        job.kernels.stream_copy(row, n, row_at(job, rows, i), line)


cdef inline bint computed_apart(const Job *job, const Rows *rows) noexcept nogil:
    """Whether rows are computed elsewhere: a streamed line is stored once, and whole."""
    return not rows.direct or job.stream


cdef inline bint stays_masked(const Job *job, const Group *g, int r,
                              const Place *p) noexcept nogil:
    """Whether a logit of -inf alone makes an entry that does not take part what it should be."""
    if job.what & LOG_SOFTMAX:
        return isfinite(g.log_total[r])
    if not 0 < g.hi[r] < INFINITY:
        return False
    return job.what & SOFTMAX or (
        job.target_is == LABELS and job.smoothing == 0 and p.where[g.y[r]])


cdef inline double filling(const Job *job) noexcept nogil:
    """What an output has where a class does not take part."""
    return -INFINITY if job.what & LOG_SOFTMAX else 0


cdef inline bint scales_only(const Job *job) noexcept nogil:
    """Whether an output is nothing but exps times a factor."""
    return job.what & SOFTMAX or (
        job.what & GRAD and job.target_is == LABELS and not leaves_more(job))


cdef void write_row(Job *job, Thread *t, const Group *g, int r, const Place *p) noexcept nogil:
    """The output of row r."""
    cdef const Kernels *k = job.kernels
    cdef ptrdiff_t n = job.n_classes, i = g.first + r
    cdef bint masked = p.where != NULL and not stays_masked(job, g, r, p)
    cdef char *row = p.e if computed_apart(job, &job.out) else row_at(job, &job.out, i)
    if scales_only(job) and job.out.direct and not masked:
        write_scaled(job, &t.line, p.e, n, g.hi[r], g.lo[r], row_at(job, &job.out, i))
        return
    if scales_only(job) and not masked and job.out.kind == c'e' and streams_short(job, &job.out):
        k.stream_half(p.e, n, g.hi[r], g.lo[r], <uint16_t *>row_at(job, &job.out, i), &t.line)
        return
    if job.what & LOG_SOFTMAX:
        k.log(p.x, n, g.shift[r], job.inv_temperature, g.log_total[r], row)
    elif scales_only(job):
        k.scale(p.e, n, g.hi[r], g.lo[r], NULL, 0, NULL, 0, row)
    else:
        gradient(job, g, r, p, row)
    if masked:
        k.select(p.where, row, n, filling(job), row)
    deliver(job, &t.line, &job.out, i, row)


cdef void write_variance(const Job *job, char *scratch, const Group *g, int r,
                         const Place *p) noexcept nogil:
    cdef char *row = scratch + job.variance_at
    cdef double one = 1, hi, lo
    if not computed_apart(job, &job.variance):
        row = row_at(job, &job.variance, g.first + r)
    job.doubles.divide(&one, &g.coarse[r], &g.fine[r], 1, &hi, &lo)
    job.kernels.variance(p.e, job.n_classes, hi, lo, g.coarse[r], g.fine[r],
                         weights_of(g, r).weight, row)
    deliver(job, &(<Thread *>scratch).variance_line, &job.variance, g.first + r, row)


cdef inline void keep_numbers(const Job *job, ptrdiff_t i, double loss,
                              double weight) noexcept nogil:
    """Store what row i amounts to wherever it is wanted."""
    if job.losses != NULL:
        job.losses[i] = loss
        if job.weighted:
            job.weights[i] = weight
    if job.result.data != NULL:
        put_number(job, &job.result, row_at(job, &job.result, i), loss)


# ---------------------------------------------------------------- statistics

cdef void write_stats(Job *job, const Group *g, int r, const Place *p) noexcept nogil:
    """logsumexp, entropy, argmax, max_prob, loss and target_prob of a row."""
    cdef double *stats = <double *>row_at(job, &job.stats, g.first + r)
    cdef double total = g.coarse[r] + g.fine[r], target = 0
    cdef Total spread
    if g.skipped[r]:
        stats[0], stats[1], stats[2], stats[3], stats[4], stats[5] = -INFINITY, 0, -1, 0, 0, 0
        return
    stats[0] = logsumexp_of(job, p.x, g.shift[r] / job.temperature, g.log_total[r])
    # -sum p log p, where log p = d - log(total): neither term is negative.
    spread = dot(job, p.e, p.x, g.shift[r], True)
    stats[1] = g.log_total[r] - (
        (spread.coarse + spread.fine) / job.kernels.unit / job.temperature) / total
    stats[2] = arg_max(job, g, r, p)
    stats[3] = 1 / total
    if job.target_is == LABELS:
        target = real_at(job, p.e, g.y[r])
    elif job.target_is == DISTRIBUTION:
        spread = dot(job, p.a, p.e, 0, True)
        target = spread.coarse + spread.fine
    elif job.target_is == SPARSE:
        spread = dot_of_entries(job, g.first + r, p.e, 0)
        target = spread.coarse + spread.fine
    stats[4] = g.loss[r]
    stats[5] = 0 if g.ignored[r] else target / job.kernels.unit / total


cdef inline ptrdiff_t arg_max(const Job *job, const Group *g, int r,
                              const Place *p) noexcept nogil:
    """The first of the largest logits that take part, and the first NaN if there is one."""
    cdef ptrdiff_t c
    if isnan(g.coarse[r]) or isnan(g.fine[r]):
        c = first_nan(job, p.x)
        if c < job.n_classes:
            return c
        if p.where != NULL and g.shift[r] == -INFINITY:
            c = 0
            while c < job.n_classes - 1 and not p.where[c]:
                c += 1
            return c
    return job.kernels.index_of(p.x, job.n_classes, g.shift[r])


# ---------------------------------------------------------------- row by row

cdef inline char *offset_from(char *scratch, const char *x) noexcept nogil:
    """Half a page away from x modulo a page: a load of x that has the same low address bits
    as a store still under way would have to wait for it (3.5 times slower when measured)."""
    return scratch + ((<uintptr_t>x + PAGE // 2 - <uintptr_t>scratch) % PAGE & ~<uintptr_t>63)


cdef inline const char *early(const Job *job, ptrdiff_t i) noexcept nogil:
    """The row that is to be fetched while row i is worked on, or NULL."""
    if job.fetch_rows == 0:
        return NULL
    return row_at(job, &job.x, min(i + job.fetch_rows, job.n_rows - 1))


# The memory is idle while exps are computed, and the arithmetic while a row is stored. So the
# exps of a row of several chunks wait, and are stored in turns with the chunks of the next row.

cdef void do_rows(Job *job, char *scratch, Group *g) noexcept nogil:
    """A group's rows, one after the other: outputs are written, or wait, and losses are left in
    the group."""
    cdef Place[TILE] p
    cdef int begin = 0
    while begin < g.n_rows:
        rows_together(job, scratch, g, begin, min(begin + job.together, g.n_rows), p)
        begin += job.together
    if job.logs_late and not job.what & MASS:
        take_logs(job, g, 0, g.n_rows)
        if job.what & LOSS:
            take_losses(job, g)
        elif job.what & LOGSUMEXP:
            take_logsumexps(job, g, 0, g.n_rows, p)


cdef inline void take_logsumexps(const Job *job, Group *g, int begin, int end,
                                 const Place *p) noexcept nogil:
    cdef int r
    for r in range(begin, end):
        g.loss[r] = -INFINITY
        if not g.skipped[r]:
            g.loss[r] = logsumexp_of(job, p[r].x, g.shift[r], g.log_total[r])


cdef inline void rows_together(Job *job, char *scratch, Group *g, int begin, int end,
                               Place *p) noexcept nogil:
    """So many rows that their exps stay in the L1 cache; in three steps, so that the few numbers
    of all of them are worked on together."""
    cdef const char *x[TILE]
    cdef char *e[TILE]
    cdef Thread *t = <Thread *>scratch
    cdef Total total
    cdef char *exps = NULL
    cdef int r

    for r in range(begin, end):
        p[r] = Place(NULL, NULL, NULL, job.class_weight, NULL)
        if job.prepared:
            prepare_row(job, scratch, g, r, &p[r])
        if g.skipped[r]:
            g.shift[r] = 0
            g.y[r] = 0
        if g.skipped[r] or job.what & MASS:
            continue
        p[r].x = load_logits(job, g.first + r, scratch + job.x_at, p[r].where, &g.shift[r])
        if exps == NULL and keeps_exps(job):
            exps = offset_from(scratch + job.e_at + t.half * job.half_bytes, p[r].x)
        if exps != NULL:
            p[r].e = exps + (r - begin) * job.exp_bytes
    if job.what & MASS:
        return

    for r in range(begin, end):     # not in one loop: no exp waits for its own row's maximum
        if g.skipped[r]:
            continue
        total = sum_of_exp(job, p[r].x, g.shift[r], early(job, g.first + r), (
            p[r].e if job.what & (SOFTMAX | GRAD | STATS) else NULL), t)
        g.coarse[r] = total.coarse
        g.fine[r] = total.fine

    if not job.logs_late:
        take_logs(job, g, begin, end)
        if job.what & LOGSUMEXP:
            take_logsumexps(job, g, begin, end, p)
    take_factors(job, g, begin, end)
    if job.target_is == LABELS:
        for r in range(begin, end):
            x[r] = p[r].x
            e[r] = p[r].e
        if job.what & LOSS:
            label_terms(job, g, begin, end, x)
    if job.what & LOSS and job.prepared:
        for r in range(begin, end):
            if not g.ignored[r]:
                row_terms(job, g, r, &p[r])
    if job.what & VARIANCE:
        for r in range(begin, end):
            if not g.skipped[r]:
                write_variance(job, scratch, g, r, &p[r])
    if job.what & GRAD and job.target_is == LABELS and job.keep != 0:
        minus_rest_at_labels(job, g, begin, end, e)

    for r in range(begin, end):
        if job.what & LOSS and not job.logs_late and not g.ignored[r]:
            g.loss[r] = loss_of(job, g, r)
        if job.what & STATS:
            write_stats(job, g, r, &p[r])
        elif g.skipped[r]:
            fill_row(job, &job.out, g.first + r, filling(job))
            fill_row(job, &job.variance, g.first + r, 0)
        elif job.late:          # it is the only row of its batch
            t.late = Late(p[r].e, row_at(job, &job.out, g.first + r), g.hi[r], g.lo[r])
            t.half = 1 - t.half
        elif job.out.data != NULL:
            write_row(job, t, g, r, &p[r])


cdef void do_vjp(Job *job, char *scratch, ptrdiff_t i) noexcept nogil:
    """Row i of p * (v - sum(p v))."""
    cdef const char *p = load_row(job, &job.x, i, scratch + job.x_at)
    cdef const char *v = load_row(job, &job.target, i, scratch + job.target_at)
    cdef char *row = scratch + job.e_at
    cdef Total s = dot(job, v, p, 0, False)
    if not computed_apart(job, &job.out):
        row = row_at(job, &job.out, i)
    job.kernels.vjp(p, v, job.n_classes, s.coarse, s.fine, row)
    deliver(job, &(<Thread *>scratch).line, &job.out, i, row)


# ---------------------------------------------------------------- sixteen rows

cdef inline ptrdiff_t tile_bytes(const Job *job) noexcept nogil:
    """From one tile to the next: an odd number of lines of 64 bytes, so that their classes do not
    compete for the same place in a cache."""
    return (job.n_classes | 1) * TILE * job.itemsize


cdef inline char *tile_of(const Job *job, char *tiles, int t) noexcept nogil:
    """One of those that are worked on together."""
    return tiles + t * tile_bytes(job)


cdef inline bint columns(const Job *job, const Rows *rows) noexcept nogil:
    """Whether rows in line lie side by side, each class of many of them in one piece."""
    return (rows.data != NULL and rows.step != job.itemsize
            and rows.outer[job.ndim - 1] == job.itemsize)


cdef inline bint in_a_row(const Job *job, const Rows *rows) noexcept nogil:
    """Whether each row begins where the one before it ends."""
    return job.ndim == 1 and rows.direct and rows.outer[0] == job.n_classes * job.itemsize


cdef void do_tiles(Job *job, char *scratch, Group *g) noexcept nogil:
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


cdef void store_tile(const Job *job, const Rows *rows, const Group *g, int begin, char *tile,
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


cdef void store_columns(const Job *job, const Rows *rows, const Group *g, int n_tiles, char *tiles,
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


# ---------------------------------------------------------------- loops over rows

cdef inline bint keeps_exps(const Job *job) noexcept nogil:
    """Whether a thread needs room for a row of exps, or for what is made of them."""
    if job.what & (SOFTMAX | GRAD | STATS):
        return True
    return job.out.data != NULL and (computed_apart(job, &job.out) or job.where.data != NULL)


cdef inline bint copies_logits(const Job *job) noexcept nogil:
    return not job.x.direct or job.where.data != NULL or job.load_scale != 1


cdef inline bint fits_tile(const Job *job, const Rows *rows) noexcept nogil:
    return rows.data == NULL or rows.item == job.itemsize and rows.step % rows.item == 0


cdef inline bint tiles_fill(const Job *job) noexcept nogil:
    """Whether there are rows enough: a tile takes as long as 5 short rows, or 15 of 400 bytes."""
    cdef ptrdiff_t as_rows = min(<ptrdiff_t>15, 4 + job.n_classes * job.itemsize // 32)
    return (job.n_rows + TILE - 1) // TILE * as_rows < job.n_rows


cdef inline bint tiled(const Job *job) noexcept nogil:
    """Whether sixteen rows at a time are faster: short rows unless they are few, or strided ones
    that fit."""
    if job.what & (VJP | MASS | STATS) or job.load_scale != 1 or job.prepared:
        return False
    if not (fits_tile(job, &job.x) and fits_tile(job, &job.out) and fits_tile(job, &job.variance)):
        return False
    if job.x.direct:
        return tiles_fill(job) and job.n_classes <= (
            job.kernels.tile_classes_read if job.out.data == NULL else job.kernels.tile_classes)
    return job.n_classes <= TILE_BYTES // (TILE * job.itemsize)


cdef void do_group(Job *job, char *scratch, ptrdiff_t first) noexcept nogil:
    """One unit of the loop: job.group_rows rows from `first` on."""
    cdef int n_rows = <int>min(<ptrdiff_t>job.group_rows, job.n_rows - first), r
    if job.what & VJP:
        for r in range(n_rows):
            do_vjp(job, scratch, first + r)
        return
    cdef Group g
    cdef Weights[MOST_ROWS] weights
    open_group(job, &g, first, n_rows, weights)
    if job.tiles > 0:
        do_tiles(job, scratch, &g)
    else:
        do_rows(job, scratch, &g)
    keep_group(job, &g)


cdef inline void keep_group(const Job *job, const Group *g) noexcept nogil:
    """Store what the rows of a group amount to wherever it is wanted: sums, of sixteen rows."""
    cdef double[TILE] weight
    cdef double *sums
    cdef int r, t, i
    if job.losses != NULL or job.result.data != NULL:
        for r in range(g.n_rows):
            keep_numbers(job, g.first + r, g.loss[r], weights_of(g, r).weight)
    if job.partial == NULL:
        return
    for t in range((g.n_rows + TILE - 1) // TILE):
        r = t * TILE
        sums = job.partial + (g.first + r) // TILE * 4
        job.doubles.add_up(g.loss + r, sums, sums + 1)
        if job.weighted:
            for i in range(TILE):
                weight[i] = weights_of(g, r + i).weight if r + i < g.n_rows else 0
            job.doubles.add_up(weight, sums + 2, sums + 3)


cdef inline int so_many_tiles(ptrdiff_t n_bytes, ptrdiff_t tile, int parts) noexcept:
    """How many are worked on together, if all that is kept of them has n_bytes; at least one."""
    return <int>max(<ptrdiff_t>1, min(<ptrdiff_t>TILES, n_bytes // (parts * tile)))


cdef void lay_out_scratch(Job *job) noexcept:
    """Room for what has to be put side by side, or kept until the sum is known."""
    cdef ptrdiff_t size = job.n_classes * job.itemsize, row = (size // PAGE + 2) * PAGE
    cdef ptrdiff_t at = (sizeof(Thread) + 63) // 64 * 64, tile
    cdef int parts = 1          # of what is kept of tiles
    job.e_at = at
    if tiled(job):
        tile = tile_bytes(job)
        if job.what & (LOG_SOFTMAX | VARIANCE):
            parts = 2
        job.tiles = so_many_tiles(TILE_BYTES if columns(job, &job.x) else TILES_BYTES, tile, parts)
        # The next ones beside them, if there is room, and most are in line.
        if columns(job, &job.x) and (parts + 1) * tile <= TILE_BYTES and (
                job.ndim == 1 or job.shape[job.ndim - 1] >= (
                    2 * TILE * so_many_tiles(TILE_BYTES, tile, parts + 1))):
            job.ahead = True
            job.tiles = so_many_tiles(TILE_BYTES, tile, parts + 1)
            job.half_bytes = job.tiles * tile
            at += job.half_bytes
        job.second_at = at + job.tiles * tile
        at += parts * job.tiles * tile
        job.largest_at = at
        if job.ahead:
            at += MOST_ROWS * job.itemsize
        job.edges_at = at
        if job.ahead and job.large and columns(job, &job.out):
            at += job.n_classes * 64
        job.together_at = at
        if job.large and in_a_row(job, &job.out):
            at += tile + 64
        job.scratch_bytes = (at // PAGE + 1) * PAGE
        return
    # A row's logarithm may wait for those of its group if nothing else but its loss needs it; or
    # its logsumexp, which may look at the logits again.
    job.logs_late = (job.z_loss == 0 and not job.what & (LOG_SOFTMAX | STATS)
                     and not (job.what & LOGSUMEXP and copies_logits(job)))
    job.together = 1
    job.exp_bytes = (size + 63) // 64 * 64
    if job.what & MASS or (
            job.exp_bytes * TILE <= TOGETHER_BYTES and not copies_logits(job)
            and job.target_is != DISTRIBUTION):
        job.together = TILE
    if job.x.step == job.x.item and size <= FETCH_BYTES:    # (of 16 bits: two rows for one)
        job.fetch_rows = job.together + FETCH_AHEAD // size
    if keeps_exps(job):
        job.late = (scales_only(job) and job.out.direct and not copies_logits(job)
                    and job.n_classes > CHUNK and size <= LATE_BYTES)
        job.half_bytes = job.together * job.exp_bytes + 2 * PAGE
        at += job.half_bytes * (1 + job.late)
    job.x_at = at
    if copies_logits(job):
        at += row
    job.target_at = at
    if job.target_is == DISTRIBUTION or job.what & VJP:
        at += row
    job.where_at = at
    if job.where.data != NULL and job.where.step != 1:
        at += row
    job.base_at = at
    if job.where.data != NULL and job.smoothing != 0:
        at += row
    job.variance_at = at
    if job.variance.data != NULL and computed_apart(job, &job.variance):
        at += row
    job.scratch_bytes = (at // PAGE + 1) * PAGE


cdef inline void begin_thread(char *scratch) noexcept nogil:
    cdef Thread *t = <Thread *>scratch
    t.line.n = t.variance_line.n = 0
    t.half = 0
    t.late.e = NULL
    t.loaded = t.edge = -1


cdef inline void end_thread(const Job *job, char *scratch) noexcept nogil:
    cdef Thread *t = <Thread *>scratch
    if t.late.e != NULL:
        write_late(job, t, 0, job.n_classes)
    job.kernels.store_carry(&t.line)
    job.kernels.store_carry(&t.variance_line)


cdef int run(Job *job, int n_threads) except -1:
    """All rows, in groups that the threads share out among themselves."""
    cdef ptrdiff_t n_tiles = (job.n_rows + TILE - 1) // TILE, n_groups, share, g
    cdef char[4 * PAGE] small       # malloc takes longer than a few short rows do
    cdef ptrdiff_t n_bytes
    cdef char *scratch
    cdef char *memory = small
    cdef fp_mode mode = 0

    if job.n_classes > PTRDIFF_MAX // (8 * TILE * n_threads * job.itemsize):
        raise MemoryError(f"scratch for rows of {job.n_classes} classes cannot be had")
    lay_out_scratch(job)
    job.group_rows = TILE
    if job.tiles > 0:
        job.tiles = <int>max(<ptrdiff_t>1, min(<ptrdiff_t>job.tiles, n_tiles // n_threads))
        job.group_rows = job.tiles * TILE
    elif 1 < n_threads and job.n_rows < 64 * n_threads:
        job.group_rows = 1      # the losses of all rows are then kept
    n_groups = (job.n_rows + job.group_rows - 1) // job.group_rows
    n_threads = <int>max(<ptrdiff_t>1, min(<ptrdiff_t>n_threads, n_groups))
    share = (n_groups + n_threads - 1) // n_threads     # of a thread, one after the other
    job.share_rows = share * job.group_rows
    n_bytes = n_threads * job.scratch_bytes + PAGE
    if n_bytes > <ptrdiff_t>sizeof(small):
        memory = <char *>malloc(n_bytes)
        if memory == NULL:
            raise MemoryError(f"{n_bytes} bytes of scratch cannot be had")
    scratch = memory + (PAGE - <uintptr_t>memory % PAGE)

    if n_threads == 1:
        with nogil:
            mode = fp_enter()
            begin_thread(scratch)
            for g in range(n_groups):
                do_group(job, scratch, g * job.group_rows)
            end_thread(job, scratch)
            fp_leave(mode)
    else:
        with nogil, parallel(num_threads=n_threads):
            mode = fp_enter()
            begin_thread(scratch + thread_num() * job.scratch_bytes)
            for g in prange(n_groups, schedule="static", chunksize=share):
                do_group(job, scratch + thread_num() * job.scratch_bytes, g * job.group_rows)
            end_thread(job, scratch + thread_num() * job.scratch_bytes)
            fp_leave(mode)
    if memory != small:
        free(memory)
    return 0


# ---------------------------------------------------------------- few long rows

cdef enum:
    LONG_SHARE = 16 * CHUNK

cdef struct Share:                  # one of the blocks into which long rows are cut
    ptrdiff_t row, begin, end       # the classes begin ... end - 1 of that row


cdef inline Share share_at(const Job *job, ptrdiff_t unit, ptrdiff_t shares) noexcept nogil:
    cdef Share s
    s.row = unit // shares
    s.begin = unit % shares * LONG_SHARE
    s.end = min(s.begin + LONG_SHARE, job.n_classes)
    return s


cdef inline void long_max(const Job *job, ptrdiff_t unit, ptrdiff_t shares,
                          double *largest) noexcept nogil:
    cdef Share s = share_at(job, unit, shares)
    largest[unit] = job.kernels.max(
        row_at(job, &job.x, s.row) + s.begin * job.itemsize, s.end - s.begin)


cdef inline void long_exp(const Job *job, ptrdiff_t unit, ptrdiff_t shares, const Group *groups,
                          double *sums) noexcept nogil:
    """The exps of one share, chunk by chunk; sums has a pair for each."""
    cdef Share s = share_at(job, unit, shares)
    cdef double shift = groups[s.row // TILE].shift[s.row % TILE]
    cdef ptrdiff_t b, c, at
    cdef char *e = NULL
    sums += 2 * (s.row * chunks(job.n_classes) + s.begin // CHUNK)
    for b in range(chunks(s.end - s.begin)):
        c = s.begin + b * CHUNK
        at = c * job.itemsize
        if job.what & (SOFTMAX | GRAD):
            e = row_at(job, &job.out, s.row) + at
        job.kernels.exp_sum(row_at(job, &job.x, s.row) + at, min(<ptrdiff_t>CHUNK, s.end - c),
                            shift, job.inv_temperature, NULL, e, sums, sums + 1)
        sums += 2


cdef inline void long_out(const Job *job, ptrdiff_t unit, ptrdiff_t shares,
                          const Group *groups) noexcept nogil:
    cdef Share s = share_at(job, unit, shares)
    cdef ptrdiff_t at = s.begin * job.itemsize, n = s.end - s.begin
    cdef char *out = row_at(job, &job.out, s.row) + at
    cdef const Group *g = &groups[s.row // TILE]
    cdef int r = s.row % TILE
    if g.skipped[r]:
        memset(out, 0, n * job.itemsize)
    elif job.what & LOG_SOFTMAX:
        job.kernels.log(row_at(job, &job.x, s.row) + at, n, g.shift[r], job.inv_temperature, g.log_total[r],
                        out)
    else:
        job.kernels.scale(out, n, g.hi[r], g.lo[r], NULL, 0, NULL, 0, out)


cdef void long_open(Job *job, Group *g, const double *largest, ptrdiff_t shares) noexcept nogil:
    """The maxima of a group's rows; and what the loss needs of the logits, which the output
    may be written over."""
    cdef const char *x[TILE]
    cdef int r
    cdef ptrdiff_t u
    for r in range(g.n_rows):
        x[r] = row_at(job, &job.x, g.first + r)
        g.shift[r] = -INFINITY
        for u in range((g.first + r) * shares, (g.first + r + 1) * shares):
            if largest[u] > g.shift[r]:
                g.shift[r] = largest[u]
    if job.what & LOSS:
        label_terms(job, g, 0, g.n_rows, x)


cdef void long_finish(Job *job, Group *g, const double *sums) noexcept nogil:
    """From the sums of the chunks to losses and factors."""
    cdef ptrdiff_t n_chunks = chunks(job.n_classes), c, i
    cdef char *e[TILE]
    cdef Total total
    cdef int r
    for r in range(g.n_rows):
        i = g.first + r
        total = Total(0, 0, 0)
        for c in range(i * n_chunks, (i + 1) * n_chunks):
            add(&total, sums[2 * c], sums[2 * c + 1])
        finish(&total)
        g.coarse[r] = total.coarse
        g.fine[r] = total.fine
    finish_group(job, g)
    for r in range(g.n_rows):
        i = g.first + r
        if job.what & LOGSUMEXP:
            g.loss[r] = logsumexp_of(job, row_at(job, &job.x, i), g.shift[r], g.log_total[r])
        elif job.what & LOSS and not g.ignored[r]:
            g.loss[r] = loss_of(job, g, r)
        keep_numbers(job, i, g.loss[r], weights_of(g, r).weight)
        if job.what & GRAD:
            e[r] = row_at(job, &job.out, i)
    if job.what & GRAD:
        minus_rest_at_labels(job, g, 0, g.n_rows, e)


cdef void long_close(Job *job, const Group *g) noexcept nogil:
    """What is left to do about the labels in a gradient."""
    cdef int r
    for r in range(g.n_rows):
        if not g.skipped[r]:
            subtract_label(job, g, r,
                           row_at(job, &job.out, g.first + r) + g.y[r] * job.itemsize)


cdef int long_rows(Job *job, int n_threads) except -1:
    """Fewer rows than threads: each pass is shared out by blocks of classes. Contiguous
    classes and labels only; the exps wait in the output for their sum."""
    cdef ptrdiff_t shares = (job.n_classes + LONG_SHARE - 1) // LONG_SHARE, n = job.n_rows
    cdef ptrdiff_t n_units = shares * n, n_groups = (n + TILE - 1) // TILE, u, g
    cdef double *largest = <double *>malloc(
        sizeof(double) * (n_units + 2 * n * chunks(job.n_classes)))
    cdef Group *groups = <Group *>malloc(
        n_groups * (sizeof(Group) + TILE * sizeof(Weights)))
    cdef Weights *weights = <Weights *>(groups + n_groups)
    cdef double *sums = largest + n_units
    cdef fp_mode mode = 0
    if largest == NULL or groups == NULL:
        free(largest)
        free(groups)
        raise MemoryError("the sums of the blocks of long rows cannot be had")
    with nogil:
        with parallel(num_threads=n_threads):
            mode = fp_enter()
            for u in prange(n_units, schedule="static"):
                long_max(job, u, shares, largest)
            fp_leave(mode)
        for g in range(n_groups):
            open_group(job, &groups[g], g * TILE, <int>min(<ptrdiff_t>TILE, n - g * TILE),
                       weights + g * TILE)
            long_open(job, &groups[g], largest, shares)
        with parallel(num_threads=n_threads):
            mode = fp_enter()
            for u in prange(n_units, schedule="static"):
                long_exp(job, u, shares, groups, sums)
            fp_leave(mode)
        mode = fp_enter()
        for g in range(n_groups):
            long_finish(job, &groups[g], sums)
        fp_leave(mode)
        if job.out.data != NULL:
            with parallel(num_threads=n_threads):
                mode = fp_enter()
                for u in prange(n_units, schedule="static"):
                    long_out(job, u, shares, groups)
                fp_leave(mode)
        if job.what & GRAD and leaves_more(job):
            mode = fp_enter()
            for g in range(n_groups):
                long_close(job, &groups[g])
            fp_leave(mode)
    free(largest)
    free(groups)
    return 0


# ---------------------------------------------------------------- from Python

cdef int describe(Job *job, Rows *rows, cnp.ndarray array, bint per_class) except -1:
    """Take down an array's strides; without an axis of classes if not `per_class`."""
    cdef int ndim = cnp.PyArray_NDIM(array) - per_class, d
    cdef char kind = (<cnp.dtype>cnp.PyArray_DESCR(array)).kind
    rows.data = cnp.PyArray_BYTES(array)
    rows.item = cnp.PyArray_ITEMSIZE(array)
    rows.step = cnp.PyArray_STRIDE(array, ndim) if per_class else 0
    rows.outer = job.outer[job.n_arrays]
    job.n_arrays += 1
    for d in range(ndim):
        rows.outer[d] = cnp.PyArray_STRIDE(array, d)
    if kind == c"f":
        rows.kind = c"d" if rows.item == 8 else c"f" if rows.item == 4 else c"e"
    elif kind == c"V":              # the only dtype of that kind which is let in
        rows.kind = c"b"
    else:
        rows.kind = c"i" if kind == c"i" else c"u"
    rows.direct = per_class and rows.kind in (c"d", c"f") and rows.step == rows.item
    return 0


cdef void join_axes(Job *job, int ndim, cnp.npy_intp *shape) noexcept:
    """Join neighbouring axes of rows that every array strides through as one."""
    cdef int d, a, k = -1
    cdef bint joined
    for d in range(ndim):
        if shape[d] == 1:
            continue
        joined = k >= 0
        for a in range(job.n_arrays):
            joined = joined and job.outer[a][k] == job.outer[a][d] * shape[d]
        if not joined:
            k += 1
            job.shape[k] = 1
        job.shape[k] *= shape[d]
        for a in range(job.n_arrays):
            job.outer[a][k] = job.outer[a][d]
    if k < 0:                       # a single row
        k = 0
        job.shape[0] = 1
        for a in range(job.n_arrays):
            job.outer[a][0] = 0
    job.ndim = k + 1


cdef int set_target(Job *job, target, int row_ndim) except -1:
    """Take down labels (an array without the axis of classes), a distribution for each row, or
    the arrays (data, indices, indptr) of a sparse one."""
    cdef cnp.ndarray array
    if target is None:
        return 0
    if isinstance(target, tuple):
        data, classes, indptr = target
        job.target_is = SPARSE
        job.entries = cnp.PyArray_BYTES(data)
        job.n_entries = cnp.PyArray_SIZE(data)
        job.entry_classes = cnp.PyArray_BYTES(classes)
        job.indptr = cnp.PyArray_BYTES(indptr)
        job.index_item = cnp.PyArray_ITEMSIZE(indptr)
        return 0
    array = target
    job.target_is = LABELS if cnp.PyArray_NDIM(array) == row_ndim else DISTRIBUTION
    describe(job, &job.target, array, job.target_is == DISTRIBUTION)
    return 0


cdef int set_options(Job *job, options) except -1:
    """Take down what the named tuple Options of _checks.pyx has, which lives until the end."""
    cdef double one = 1, zero = 0, largest = ldexp(1, 127 if job.itemsize == 4 else 1023)
    cdef int exponent
    job.keep = job.temperature = job.load_scale = 1
    job.class_sum = job.n_classes
    if options is None:
        return 0
    class_weight, sample_weight, ignore_index, smoothing, z_loss, temperature, where = options
    if class_weight is not None:
        job.class_weight = cnp.PyArray_BYTES(class_weight)
        job.class_sum = mass_of(job, job.class_weight)
    if sample_weight is not None:
        describe(job, &job.sample, sample_weight, False)
    if ignore_index is not None:
        job.ignores = True
        job.ignore = <uint64_t>(ignore_index % 2**64)
    job.weighted = job.class_weight != NULL or job.sample.data != NULL or job.ignores
    job.smoothing = smoothing
    job.keep = 1 - job.smoothing
    job.z_loss = z_loss
    if where is not None:
        describe(job, &job.where, where, True)
    job.temperature = temperature
    if job.temperature != 1:
        if job.temperature > ldexp(1, 64):  # then differences of logits could overflow
            job.temperature = 2 * frexp(job.temperature, &exponent)
            job.load_scale = ldexp(1, 1 - exponent)
        job.doubles.divide(&one, &job.temperature, &zero, 1, &job.inv_temperatures[0], &job.inv_temperatures[1])
        if not job.inv_temperatures[0] < largest:      # differences of denormals are then still too small
            job.inv_temperatures[:] = [largest, 0]
        job.inv_temperature = job.inv_temperatures
    return 0


cdef int set_up(Job *job, int what, cnp.ndarray x, object out, object target, object options=None,
                object result=None, object variance=None, object scale=None,
                object stats=None) except -1:
    cdef int ndim = cnp.PyArray_NDIM(x) - 1
    memset(job, 0, <char *>&job.ones - <char *>job)
    job.what = what
    describe(job, &job.x, x, True)
    job.itemsize = 8 if job.x.item == 8 else 4
    job.kernels = active.f64 if job.itemsize == 8 else active.f32
    job.doubles = active.doubles
    job.unit = job.divisor = 1
    job.n_classes = cnp.PyArray_DIM(x, ndim)
    job.n_rows = cnp.PyArray_SIZE(x) // job.n_classes
    set_target(job, target, ndim)
    set_options(job, options)
    if out is not None:
        describe(job, &job.out, out, True)
        job.large = job.n_rows * job.n_classes * job.itemsize >= STREAM_BYTES
        job.stream = (job.out.direct and job.n_classes * job.itemsize >= STREAM_ROW_BYTES
                      and job.large)
    if variance is not None:
        describe(job, &job.variance, variance, True)
    if result is not None:
        if cnp.PyArray_NDIM(result) != ndim:
            raise RuntimeError("result must have one number for each row")
        describe(job, &job.result, result, False)
    if isinstance(scale, cnp.ndarray):
        describe(job, &job.scale, scale, False)
    elif scale is not None:
        job.unit = scale
    if stats is not None:
        describe(job, &job.stats, stats, True)
    job.prepared = (job.where.data != NULL or job.smoothing != 0
                    or job.target_is in (DISTRIBUTION, SPARSE))
    job.weighted |= job.prepared
    join_axes(job, ndim, cnp.PyArray_DIMS(x))
    return 0


cdef void fill_ones(Job *job) noexcept:
    """What a row weighs if nothing is said about it."""
    cdef Weights *w = &job.ones
    w.sample = w.given = w.share = w.mass = w.weight = 1
    w.smooth = w.smooth_sum = w.extra = 0
    w.half = 0.5
    w.factor = factor_for(job, job.unit)


cdef inline bint long_and_few(const Job *job, int n_threads) noexcept:
    return (n_threads > 1 and job.n_rows < 2 * n_threads and job.n_classes >= 4 * CHUNK
            and not job.what & (VJP | STATS | VARIANCE | MASS) and not job.prepared
            and not copies_logits(job) and (job.out.data == NULL or job.out.direct))


cdef int do_all(Job *job, int threads) except -1:
    """All rows, in the way that suits them."""
    fill_ones(job)
    if long_and_few(job, threads):
        return long_rows(job, threads)
    return run(job, threads)


cdef inline int threads_for(const Job *job, n_threads) except -1:
    return thread_count(n_threads, job.n_rows * job.n_classes)


cdef int rowwise(int what, cnp.ndarray x, out, result, options, n_threads) except -1:
    """Compute softmax or log_softmax into `out`, or logsumexp into `result`."""
    cdef Job job
    cdef fp_mode mode = fp_enter()      # also for what is done about the options
    try:
        set_up(&job, what, x, out, None, options, result)
        do_all(&job, threads_for(&job, n_threads))
    finally:
        fp_leave(mode)
    return 0


cdef int vjp(cnp.ndarray p, cnp.ndarray v, cnp.ndarray out, n_threads) except -1:
    """Compute p * (v - sum(p * v)) into `out`."""
    cdef Job job
    cdef fp_mode mode = fp_enter()
    try:
        set_up(&job, VJP, p, out, v)
        do_all(&job, threads_for(&job, n_threads))
    finally:
        fp_leave(mode)
    return 0


cdef bint row_stats(cnp.ndarray x, target, cnp.ndarray stats, options, n_threads) except -1:
    """Compute the six numbers of write_stats into stats[..., :]; return whether the labels were
    good."""
    cdef Job job
    cdef fp_mode mode = fp_enter()
    try:
        set_up(&job, STATS | (LOSS if target is not None else 0), x, None, target, options, None,
               None, None, stats)
        do_all(&job, threads_for(&job, n_threads))
    finally:
        fp_leave(mode)
    return not job.bad


cdef bint check_labels(cnp.ndarray x, cnp.ndarray target, options, n_threads) except -1:
    """Return whether all labels lie in [0, n_classes) or are ignored."""
    cdef Job job
    cdef fp_mode mode = fp_enter()
    try:
        set_up(&job, 0, x, None, target, options)
    finally:
        fp_leave(mode)
    cdef ptrdiff_t n_blocks = (job.n_rows + LABELS_AT_ONCE - 1) // LABELS_AT_ONCE, b
    cdef int threads = thread_count(n_threads, job.n_rows)
    if threads == 1:
        with nogil:
            for b in range(n_blocks):
                check_block(&job, b)
    else:
        for b in prange(n_blocks, nogil=True, num_threads=threads, schedule="static"):
            check_block(&job, b)
    return not job.bad


cdef void check_block(Job *job, ptrdiff_t block) noexcept nogil:
    cdef ptrdiff_t[LABELS_AT_ONCE] y
    cdef ptrdiff_t first = block * LABELS_AT_ONCE
    cdef int n = <int>min(<ptrdiff_t>LABELS_AT_ONCE, job.n_rows - first), r, bad = 0
    read_labels(job, first, n, y)
    for r in range(n):
        bad |= y[r] == BAD_LABEL
    if bad:
        job.bad = 1


cdef int add_rows(Job *job, n_threads, double *loss, double *weight) except -1:
    """Do all rows; add up their losses and their weights, in the one order."""
    cdef int threads = threads_for(job, n_threads)
    cdef ptrdiff_t n = job.n_rows, n_sixteens = (n + TILE - 1) // TILE
    cdef bint by_row = long_and_few(job, threads) or n < 64 * threads
    cdef double *numbers = <double *>malloc(sizeof(double) * (2 * n if by_row else 4 * n_sixteens))
    if numbers == NULL:
        raise MemoryError("one number for each row cannot be had")
    if by_row:
        job.losses = numbers
        job.weights = numbers + n
    else:
        job.partial = numbers
    try:
        do_all(job, threads)
        weight[0] = n
        if by_row:
            loss[0] = total_of_rows(job, job.losses, n)
            if job.weighted:
                weight[0] = total_of_rows(job, job.weights, n)
        else:
            loss[0] = total_of_groups(numbers, n_sixteens)
            if job.weighted:
                weight[0] = total_of_groups(numbers + 2, n_sixteens)
    finally:
        free(numbers)
    return 0


cdef cross_entropy(int what, cnp.ndarray x, target, out, result, variance, scale, bint mean,
                   options, n_threads):
    """Compute the gradient times `scale` into `out`, the diagonal of the Hessian into
    `variance`, each row's loss into `result`, where these are not None: what is wanted of LOSS,
    GRAD and VARIANCE.

    Returns the sum of the losses, or their `mean` (to which the gradient then belongs), or
    None if a label was out of range.
    """
    cdef Job job, weighing
    cdef double loss = 0, weight = 0
    cdef fp_mode mode = fp_enter()      # also for what is left to do after the loop
    try:
        set_up(&job, what, x, out, target, options, result, variance, scale)
        if mean and out is not None:        # needs the sum of the weights beforehand
            weight = job.n_rows
            if job.weighted:
                weighing = job
                weighing.what = MASS
                weighing.out.data = weighing.result.data = NULL
                add_rows(&weighing, n_threads, &loss, &weight)
                if weighing.bad:
                    return None
            if weight == 0:
                out[...] = 0
                return NAN
            job.divisor = weight
        add_rows(&job, n_threads, &loss, &weight)
        if job.bad:
            return None
        if mean:
            return loss / weight if weight != 0 else NAN
        return loss
    finally:
        fp_leave(mode)


cdef class DefaultMode:
    """A context in which floating-point arithmetic has its default mode; after it, mode and
    flags are as they were before."""

    cdef fp_mode found

    def __enter__(self):
        self.found = fp_enter()

    def __exit__(self, *error):
        fp_leave(self.found)


def exp_of(cnp.ndarray x, double maximum=0.0):
    """Return exp(x - maximum) for contiguous x <= maximum as the kernels compute it before
    anything else is done with it, in float64; for the tests of its error."""
    cdef Job job
    set_up(&job, SOFTMAX, x.reshape(1, -1), None, None)
    cdef cnp.ndarray exps = np.empty_like(x)
    sum_of_exp(&job, cnp.PyArray_BYTES(x), maximum, NULL, cnp.PyArray_BYTES(exps))
    return exps.astype(np.float64) / job.kernels.unit
