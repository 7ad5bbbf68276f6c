# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
"""The mathematics of a row, and the loops over rows.

Arrays come in checked: native byte order, aligned, the class axis last, outputs that do
not overlap an input unless they are that input. What is left to find here is a bad label.

A row is worked on whole (`do_row`), or sixteen rows at a time (`do_tile`), or by blocks of
its classes (`long_rows`). Which one is a matter of speed: each gives a row the same bits.
Rows come in groups of 16, over which alone losses are summed.
"""

cimport cython
cimport numpy as cnp
from cython.parallel cimport parallel, prange
from libc.math cimport INFINITY, NAN, isinf
from libc.stdint cimport (
    PTRDIFF_MAX, int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t,
    uint64_t, uintptr_t)
from libc.stdlib cimport abort, free, malloc
from libc.string cimport memcpy, memset

from cysoftmax._kernels cimport (
    CHUNK, TILE, Doubles, Isa, Kernels, cache_size, fp_enter, fp_leave, fp_mode, isas)
from cysoftmax._threads cimport thread_count, thread_num

import os

import numpy as np

cnp.import_array()

cdef extern from *:
    """
    #ifndef CYSOFTMAX_DEBUG
    #define CYSOFTMAX_DEBUG 0
    #endif
    """
    bint CYSOFTMAX_DEBUG

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

# ---------------------------------------------------------------- a job

cdef enum:
    SOFTMAX = 1
    LOG_SOFTMAX = 2
    LOGSUMEXP = 4
    LOSS = 8
    GRAD = 16
    VJP = 32
    MASS = 64               # the weight of each row, in place of its loss
    MAX_DIMS = 64           # NumPy's NPY_MAXDIMS
    TILE_CLASSES = 32       # so many contiguous classes still go sixteen rows at a time
    TILE_BYTES = 1 << 19    # a tile of strided classes should stay in the L2 cache
    STREAM_ROW_BYTES = 512      # below, too many lines at the ends of rows are not whole
    TOGETHER_BYTES = 1 << 14    # sixteen rows of exps should stay in the L1 cache
    FETCH_BYTES = 1 << 18   # the next row is fetched early if rows are not larger
    LABELS = 512            # so many are checked at a time
    PAGE = 4096

cdef struct Rows:
    char *data                      # NULL: there is no such array
    ptrdiff_t step                  # bytes from class to class
    ptrdiff_t outer[MAX_DIMS]       # bytes along the axes of the rows

cdef struct Job:
    int what
    const Kernels *kernels
    const Doubles *doubles
    ptrdiff_t n_rows, n_classes, itemsize
    int ndim                        # axes of the rows, after joining what can be joined
    ptrdiff_t shape[MAX_DIMS]
    Rows x, out, target             # of a vjp, target is v
    Rows result                     # what is one number a row: losses or logsumexp
    int target_kind                 # 'i', 'u', 'f' for a distribution; 'I', 'U' for labels
    int target_size                 # its item's size in bytes
    bint stream
    double weight                   # what the gradient is multiplied with
    double *losses                  # one for each row, or NULL, besides `result`
    double *partial                 # hi, lo of each group's sum of losses, or NULL
    int bad                         # set if a label was out of range
    ptrdiff_t x_at, target_at       # where a thread's scratch has a row for either; the row
    ptrdiff_t scratch_bytes         # of the output is at its beginning; bytes of one thread
    ptrdiff_t exp_bytes             # from one row of exps to the next
    int together                    # so many rows are worked on by do_rows

cdef struct Total:                  # of a row, in natural units
    double coarse, fine, error


cdef inline void expect(bint condition) noexcept nogil:
    """In a debug build, stop at once where an index is outside of its array."""
    if CYSOFTMAX_DEBUG and not condition:
        abort()


cdef inline char *row_at(const Job *job, const Rows *rows, ptrdiff_t i) noexcept nogil:
    """Where row i begins."""
    expect(0 <= i < job.n_rows)
    cdef char *place = rows.data
    cdef int d
    if job.ndim == 1:
        return place + i * rows.outer[0]
    for d in range(job.ndim - 1, 0, -1):
        place += (i % job.shape[d]) * rows.outer[d]
        i //= job.shape[d]
    return place + i * rows.outer[0]


# ---------------------------------------------------------------- sums

cdef inline double two_sum(double a, double b, double *error) noexcept nogil:
    cdef double s = a + b
    cdef double part = s - a
    error[0] = (a - (s - part)) + (b - part)
    return s


cdef inline void add(Total *total, double coarse, double fine) noexcept nogil:
    """Add one block of classes; total.coarse, total.fine and total.error are kept apart."""
    cdef double e1, e2
    total.coarse = two_sum(total.coarse, coarse, &e1)
    total.fine = two_sum(total.fine, fine, &e2)
    total.error += e1 + e2


cdef inline void finish(Total *total) noexcept nogil:
    total.fine += total.error


cdef void add_up(const double *values, ptrdiff_t n, double *hi, double *lo) noexcept nogil:
    """hi + lo = the sum of the values, with the rounding errors in lo."""
    cdef double error
    cdef ptrdiff_t i
    hi[0] = lo[0] = 0
    for i in range(n):
        hi[0] = two_sum(hi[0], values[i], &error)
        lo[0] += error


cdef double total_of_groups(const double *partial, ptrdiff_t n_groups) noexcept nogil:
    """The sum over all groups of hi + lo, in order."""
    cdef double hi = 0, lo = 0, error
    cdef ptrdiff_t g
    for g in range(n_groups):
        hi = two_sum(hi, partial[2 * g], &error)
        lo += error + partial[2 * g + 1]
    return hi if isinf(hi) else hi + lo


cdef double total_of_rows(const double *values, ptrdiff_t n) noexcept nogil:
    """The same of the numbers of the rows: groups of 16 first."""
    cdef double hi = 0, lo = 0, error, group, group_error
    cdef ptrdiff_t g
    for g in range((n + TILE - 1) // TILE):
        add_up(values + g * TILE, min(<ptrdiff_t>TILE, n - g * TILE), &group, &group_error)
        hi = two_sum(hi, group, &error)
        lo += error + group_error
    return hi if isinf(hi) else hi + lo


# ---------------------------------------------------------------- loading

ctypedef fused integer:
    int8_t
    int16_t
    int32_t
    int64_t
    uint8_t
    uint16_t
    uint32_t
    uint64_t

ctypedef fused number:
    integer
    float
    double


cdef inline void convert(const number *source, ptrdiff_t step, ptrdiff_t n, char *target,
                         ptrdiff_t target_step, ptrdiff_t itemsize) noexcept nogil:
    """Copy n strided numbers to strided reals of the given size."""
    cdef ptrdiff_t c
    for c in range(n):
        if itemsize == 4:
            (<float *>(target + c * target_step))[0] = <float>source[0]
        else:
            (<double *>(target + c * target_step))[0] = <double>source[0]
        source = <const number *>(<const char *>source + step)


cdef void load_distribution(const Job *job, ptrdiff_t i, char *into) noexcept nogil:
    """Row i of a target that is a distribution, as contiguous reals of the logits' dtype."""
    cdef const void *p = row_at(job, &job.target, i)
    cdef ptrdiff_t step = job.target.step, n = job.n_classes, size = job.itemsize
    if job.target_kind == c'f':
        if job.target_size == 4:
            convert[float](<const float *>p, step, n, into, size, size)
        else:
            convert[double](<const double *>p, step, n, into, size, size)
    elif job.target_kind == c'i':
        if job.target_size == 1:
            convert[int8_t](<const int8_t *>p, step, n, into, size, size)
        elif job.target_size == 2:
            convert[int16_t](<const int16_t *>p, step, n, into, size, size)
        elif job.target_size == 4:
            convert[int32_t](<const int32_t *>p, step, n, into, size, size)
        else:
            convert[int64_t](<const int64_t *>p, step, n, into, size, size)
    else:
        if job.target_size == 1:
            convert[uint8_t](<const uint8_t *>p, step, n, into, size, size)
        elif job.target_size == 2:
            convert[uint16_t](<const uint16_t *>p, step, n, into, size, size)
        elif job.target_size == 4:
            convert[uint32_t](<const uint32_t *>p, step, n, into, size, size)
        else:
            convert[uint64_t](<const uint64_t *>p, step, n, into, size, size)


cdef inline void copy_reals(const char *source, ptrdiff_t step, ptrdiff_t n, char *target,
                            ptrdiff_t target_step, ptrdiff_t itemsize) noexcept nogil:
    if itemsize == 4:
        convert[float](<const float *>source, step, n, target, target_step, itemsize)
    else:
        convert[double](<const double *>source, step, n, target, target_step, itemsize)


cdef inline void keep_number(const Job *job, ptrdiff_t i, double value) noexcept nogil:
    """Store what row i amounts to wherever it is wanted."""
    cdef char *place
    if job.losses != NULL:
        job.losses[i] = value
    if job.result.data != NULL:
        place = row_at(job, &job.result, i)
        if job.itemsize == 4:
            (<float *>place)[0] = <float>value
        else:
            (<double *>place)[0] = value


cdef inline const char *contiguous(const Job *job, const Rows *rows, ptrdiff_t i,
                                   char *spare) noexcept nogil:
    """Row i with its reals side by side: where it is, or copied to `spare`."""
    cdef const char *place = row_at(job, rows, i)
    if rows.step == job.itemsize:
        return place
    copy_reals(place, rows.step, job.n_classes, spare, job.itemsize, job.itemsize)
    return spare


cdef inline void labels_as(integer kind, const Job *job, ptrdiff_t first, int n,
                           ptrdiff_t *y) noexcept nogil:
    """The labels of n rows, -1 where one is out of range. Each is read once, so that another
    thread that changes it cannot make a checked label into another one."""
    cdef integer label
    cdef int r
    for r in range(n):
        label = (<const volatile integer *>row_at(job, &job.target, first + r))[0]
        # As unsigned, a negative number is larger than any number of classes.
        y[r] = <ptrdiff_t>label if <uint64_t>label < <uint64_t>job.n_classes else -1


cdef void read_labels(const Job *job, ptrdiff_t first, int n, ptrdiff_t *y) noexcept nogil:
    cdef bint signed = job.target_kind == c'I'
    if job.target_size == 8:
        if signed:
            labels_as(<int64_t>0, job, first, n, y)
        else:
            labels_as(<uint64_t>0, job, first, n, y)
    elif job.target_size == 4:
        if signed:
            labels_as(<int32_t>0, job, first, n, y)
        else:
            labels_as(<uint32_t>0, job, first, n, y)
    elif job.target_size == 2:
        if signed:
            labels_as(<int16_t>0, job, first, n, y)
        else:
            labels_as(<uint16_t>0, job, first, n, y)
    elif signed:
        labels_as(<int8_t>0, job, first, n, y)
    else:
        labels_as(<uint8_t>0, job, first, n, y)


# ---------------------------------------------------------------- one row

cdef inline ptrdiff_t chunks(ptrdiff_t n) noexcept nogil:
    """How many chunks, the pieces in which the kernels want their sums, n classes make."""
    return (n + CHUNK - 1) // CHUNK


cdef struct Group:              # up to 16 rows, and what each of them boils down to
    ptrdiff_t first
    int n_rows
    ptrdiff_t[TILE] y           # its label
    double[TILE] mass           # what its target sums to: 1 for a label
    double[TILE] shift, coarse, fine, log_total
    double[TILE] hi, lo         # what its exps are multiplied with
    double[TILE] loss           # its loss, or its logsumexp, or 0


cdef inline bint distribution(const Job *job) noexcept nogil:
    """Whether the target is a distribution for each row."""
    return job.target_kind in (c'i', c'u', c'f')


cdef inline void open_group(Job *job, Group *g, ptrdiff_t first, int n_rows) noexcept nogil:
    """Read the labels of the rows. A row whose label is out of range gets class 0, and the call
    an error in the end."""
    cdef int r
    g.first = first
    g.n_rows = n_rows
    for r in range(TILE):       # a tile has 16 rows whatever n_rows is
        g.y[r] = 0
        g.mass[r] = g.coarse[r] = 1
        g.fine[r] = g.log_total[r] = g.hi[r] = g.lo[r] = g.loss[r] = 0
    if job.target_kind in (c'I', c'U'):
        read_labels(job, first, n_rows, g.y)
        for r in range(n_rows):
            if g.y[r] < 0:
                job.bad = 1
                g.y[r] = 0


cdef inline void finish_group(const Job *job, Group *g) noexcept nogil:
    """From the sums: log(total) = log(1 + rest) and weight / total. The largest term is exactly
    1, and rest what else there is, to full relative accuracy however small it is."""
    cdef double weight[TILE]
    cdef int r
    if job.what & (LOG_SOFTMAX | LOGSUMEXP | LOSS):
        for r in range(g.n_rows):
            g.log_total[r] = (g.coarse[r] - 1) + g.fine[r]
        job.doubles.log1p(g.log_total, g.n_rows)
    if job.what & (SOFTMAX | GRAD):
        for r in range(g.n_rows):
            weight[r] = g.mass[r] * job.weight
        job.doubles.divide(weight, g.coarse, g.fine, g.n_rows, g.hi, g.lo)


cdef inline double loss_of(const Job *job, const Group *g, int r, const char *x) noexcept nogil:
    """log(total) - (x - shift), for the label's logit x; neither part is negative."""
    cdef double hi, lo
    expect(0 <= g.y[r] < job.n_classes)
    job.kernels.difference(x, 0, g.shift[r], &hi, &lo)
    return (g.log_total[r] - hi) - lo


cdef inline double expected_loss(const Job *job, const Group *g, int r, const char *x,
                                 const char *a) noexcept nogil:
    """The same for a distribution: mass log(total) - sum a (x - shift)."""
    cdef Total expected = dot(job, a, x, g.shift[r], True)
    if not -INFINITY < expected.coarse < INFINITY:
        expected = careful_dot(job, a, x, g.shift[r])
    return (g.mass[r] * g.log_total[r] - expected.coarse) - expected.fine


cdef inline Total sum_of_exp(const Job *job, const char *x, double shift, const char *next,
                             char *e) noexcept nogil:
    """sum exp(x - shift) over the classes; each exp goes to e, unless that is NULL. The row at
    `next` is fetched from memory on the way, unless that is NULL."""
    cdef Total total = Total(0, 0, 0)
    cdef double coarse, fine
    cdef ptrdiff_t b, at
    for b in range(chunks(job.n_classes)):
        at = b * CHUNK * job.itemsize
        job.kernels.exp_sum(x + at, min(<ptrdiff_t>CHUNK, job.n_classes - b * CHUNK), shift,
                            next + at if next != NULL else NULL,
                            e + at if e != NULL else NULL, &coarse, &fine)
        add(&total, coarse, fine)
    finish(&total)
    return total


cdef inline double log_of(const Job *job, Total total) noexcept nogil:
    """log(total) of a single row; see finish_group."""
    cdef double rest = (total.coarse - 1) + total.fine
    job.doubles.log1p(&rest, 1)
    return rest


cdef inline double logsumexp_of(const Job *job, const char *x, double shift,
                                double log_total) noexcept nogil:
    """shift + log_total, where an infinite shift is the answer unless there is a NaN."""
    cdef double hi = 0, lo
    cdef ptrdiff_t c
    if isinf(shift):
        for c in range(job.n_classes):
            job.kernels.difference(x, c, 0, &hi, &lo)
            if hi != hi:
                return hi
        return shift
    return shift + log_total


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
    """sum a (x - shift) as coarse + fine, all but exact; see `difference` in kernels.h."""
    cdef Total total = Total(0, 0, 0)
    cdef double hi, lo
    cdef ptrdiff_t b, at
    for b in range(chunks(job.n_classes)):
        at = b * CHUNK * job.itemsize
        job.kernels.dot(a + at, x + at, min(<ptrdiff_t>CHUNK, job.n_classes - b * CHUNK), shift,
                        skip_zeros, &hi, &lo)
        add(&total, hi, lo)
    finish(&total)
    return total


cdef Total careful_dot(const Job *job, const char *a, const char *x,
                       double shift) noexcept nogil:
    """`dot` for a row in which x - shift overflows: in double, term by term."""
    cdef Total total = Total(0, 0, 0)
    cdef double weight, hi, lo
    cdef ptrdiff_t c
    for c in range(job.n_classes):
        job.kernels.difference(a, c, 0, &weight, &lo)
        if weight != 0:
            job.kernels.difference(x, c, shift, &hi, &lo)
            total.coarse += weight * hi
    return total


cdef inline bint all_zero(const Job *job, const char *a) noexcept nogil:
    cdef double hi, lo
    cdef ptrdiff_t c
    for c in range(job.n_classes):
        job.kernels.difference(a, c, 0, &hi, &lo)
        if hi != 0:
            return False
    return True


cdef inline void store_row(const Job *job, ptrdiff_t i, const char *row) noexcept nogil:
    """Copy a row of scratch to a strided output."""
    copy_reals(row, job.itemsize, job.n_classes, row_at(job, &job.out, i), job.out.step,
               job.itemsize)


cdef inline void fill_row(const Job *job, ptrdiff_t i) noexcept nogil:
    """Zeros for the gradient of a row without a target."""
    cdef ptrdiff_t c
    cdef char *place
    if job.out.data != NULL:
        place = row_at(job, &job.out, i)
        for c in range(job.n_classes):
            memset(place + c * job.out.step, 0, job.itemsize)


cdef inline char *offset_from(char *scratch, const char *x) noexcept nogil:
    """Half a page away from x modulo a page: a load of x that has the same low address bits
    as a store still under way would have to wait for it (3.5 times slower when measured)."""
    return scratch + ((<uintptr_t>x + PAGE // 2 - <uintptr_t>scratch) % PAGE & ~<uintptr_t>63)


cdef inline const char *next_row(const Job *job, ptrdiff_t i) noexcept nogil:
    """The row after row i, if it is worth fetching while that one is worked on: if it is read
    where it is, and both fit into the L2 cache."""
    if i + 1 == job.n_rows or job.x.step != job.itemsize or (
            job.n_classes > FETCH_BYTES // job.itemsize):
        return NULL
    return row_at(job, &job.x, i + 1)


cdef void do_rows(Job *job, char *scratch, Group *g) noexcept nogil:
    """A group's rows, one after the other: outputs are written, losses left in the group.

    In three steps, so that the few numbers of all its rows are worked on together.
    """
    cdef const Kernels *k = job.kernels
    cdef const char *x[TILE]
    cdef char *e[TILE]
    cdef char *a = NULL
    cdef char *out
    cdef ptrdiff_t n = job.n_classes
    cdef Total total
    cdef int r

    if distribution(job):                       # then the group is one row
        a = scratch + job.target_at
        load_distribution(job, g.first, a)
        g.mass[0] = mass_of(job, a)
        if job.what & MASS or g.mass[0] == 0 and all_zero(job, a):
            g.loss[0] = g.mass[0]
            fill_row(job, g.first)
            return

    for r in range(g.n_rows):
        x[r] = contiguous(job, &job.x, g.first + r, scratch + job.x_at)
        e[r] = NULL
        if job.what & (SOFTMAX | GRAD):
            e[r] = offset_from(scratch, x[0]) + r * job.exp_bytes
        g.shift[r] = k.max(x[r], n)
        total = sum_of_exp(job, x[r], g.shift[r], next_row(job, g.first + r), e[r])
        g.coarse[r] = total.coarse
        g.fine[r] = total.fine
    finish_group(job, g)
    for r in range(g.n_rows):
        if job.what & LOGSUMEXP:
            g.loss[r] = logsumexp_of(job, x[r], g.shift[r], g.log_total[r])
        elif job.what & LOSS and a == NULL:
            g.loss[r] = loss_of(job, g, r, x[r] + g.y[r] * job.itemsize)
        elif job.what & LOSS:
            g.loss[r] = expected_loss(job, g, r, x[r], a)
        if job.out.data == NULL:
            continue
        out = row_at(job, &job.out, g.first + r)
        if job.out.step != job.itemsize:
            out = scratch
        if job.what & LOG_SOFTMAX:
            k.log(x[r], n, g.shift[r], g.log_total[r], out, job.stream)
        else:
            if a != NULL:
                k.exclude_major(e[r], a, n, g.mass[r], g.coarse[r], g.fine[r])
            elif job.what & GRAD:
                k.exclude(e[r], g.y[r], 1, g.coarse[r], g.fine[r])
            if job.out.step != job.itemsize:
                out = e[r]
            k.scale(e[r], n, g.hi[r], g.lo[r], a, job.weight, out, job.stream)
        if job.out.step != job.itemsize:
            store_row(job, g.first + r, out)


cdef void do_vjp(Job *job, char *scratch, ptrdiff_t i) noexcept nogil:
    """Row i of p * (v - sum(p v))."""
    cdef const char *p = contiguous(job, &job.x, i, scratch + job.x_at)
    cdef const char *v = contiguous(job, &job.target, i, scratch + job.target_at)
    cdef char *out = scratch
    cdef Total s = dot(job, v, p, 0, False)
    if job.out.step == job.itemsize:
        out = row_at(job, &job.out, i)
    job.kernels.vjp(p, v, job.n_classes, s.coarse, s.fine, out, job.stream)
    if job.out.step != job.itemsize:
        store_row(job, i, out)


# ---------------------------------------------------------------- sixteen rows

cdef void do_tile(Job *job, char *tile, Group *g) noexcept nogil:
    """A group's rows side by side; the same formulas as in do_rows."""
    cdef const Kernels *k = job.kernels
    cdef const void *x[TILE]
    cdef void *out[TILE]
    cdef Total total[TILE]
    cdef ptrdiff_t n = job.n_classes, step = job.itemsize, b
    cdef char *logits = tile + n * TILE * step      # kept for log_softmax
    cdef int r

    for r in range(TILE):       # a tile that is not full is filled up with its first row
        x[r] = row_at(job, &job.x, g.first + (r if r < g.n_rows else 0))
    k.tile_load(x, job.x.step // step, n, tile)
    k.tile_max(tile, n, g.shift)
    if job.what & LOG_SOFTMAX:
        memcpy(logits, tile, n * TILE * step)

    k.tile_exp_sum(tile, min(n, <ptrdiff_t>CHUNK), g.shift, g.coarse, g.fine)
    if n > CHUNK:
        for r in range(TILE):
            total[r] = Total(g.coarse[r], g.fine[r], 0)
        for b in range(1, chunks(n)):
            k.tile_exp_sum(tile + b * CHUNK * TILE * step, min(<ptrdiff_t>CHUNK, n - b * CHUNK),
                           g.shift, g.coarse, g.fine)
            for r in range(TILE):
                add(&total[r], g.coarse[r], g.fine[r])
        for r in range(TILE):
            finish(&total[r])
            g.coarse[r] = total[r].coarse
            g.fine[r] = total[r].fine
    finish_group(job, g)

    if job.what & LOSS:
        for r in range(g.n_rows):
            g.loss[r] = loss_of(job, g, r, <const char *>x[r] + g.y[r] * job.x.step)
    elif job.what & LOGSUMEXP:
        for r in range(g.n_rows):
            g.loss[r] = g.shift[r] + g.log_total[r]
            if isinf(g.shift[r]):
                g.loss[r] = logsumexp_of(job, contiguous(job, &job.x, g.first + r, tile),
                                         g.shift[r], g.log_total[r])
    if job.out.data == NULL:
        return
    if job.what & LOG_SOFTMAX:
        tile = logits
        k.tile_log(tile, n, g.shift, g.log_total)
    else:
        if job.what & GRAD:
            for r in range(g.n_rows):
                k.exclude(tile + r * step, g.y[r], TILE, g.coarse[r], g.fine[r])
        k.tile_scale(tile, n, g.hi, g.lo)
    for r in range(g.n_rows):
        out[r] = row_at(job, &job.out, g.first + r)
    for r in range(g.n_rows, TILE):
        out[r] = out[0]
    k.tile_store(tile, n, out, job.out.step // step, g.n_rows)


# ---------------------------------------------------------------- loops over rows

cdef inline bint tiled(const Job *job) noexcept nogil:
    """Whether sixteen rows at a time are faster: short rows, or strided ones that fit."""
    if job.what & (VJP | MASS) or distribution(job):
        return False
    if job.x.step % job.itemsize or (job.out.data != NULL and job.out.step % job.itemsize):
        return False
    if job.x.step == job.itemsize:
        return job.n_classes <= TILE_CLASSES
    return job.n_classes <= TILE_BYTES // (TILE * job.itemsize)


cdef void do_group(Job *job, char *scratch, ptrdiff_t group, int group_rows) noexcept nogil:
    """One unit of the loop: 16 rows, or 1 where there are few."""
    cdef double[TILE] loss
    cdef ptrdiff_t first = group * group_rows
    cdef int n_rows = <int>min(<ptrdiff_t>group_rows, job.n_rows - first), r
    if job.what & VJP:
        for r in range(n_rows):
            do_vjp(job, scratch, first + r)
        return
    cdef Group g
    if tiled(job):
        open_group(job, &g, first, n_rows)
        do_tile(job, scratch, &g)
        memcpy(loss, g.loss, sizeof(loss))
    else:
        r = 0
        while r < n_rows:
            open_group(job, &g, first + r, min(job.together, n_rows - r))
            do_rows(job, scratch, &g)
            memcpy(loss + r, g.loss, g.n_rows * sizeof(double))
            r += job.together
    if job.losses != NULL or job.result.data != NULL:
        for r in range(n_rows):
            keep_number(job, first + r, loss[r])
    if job.partial != NULL:
        add_up(loss, n_rows, job.partial + 2 * group, job.partial + 2 * group + 1)


cdef void lay_out_scratch(Job *job) noexcept:
    """Room for what has to be put side by side, or kept until the sum is known."""
    cdef ptrdiff_t row = (job.n_classes * job.itemsize // PAGE + 2) * PAGE
    if tiled(job):
        job.scratch_bytes = (2 * TILE * job.n_classes * job.itemsize // PAGE + 1) * PAGE
        return
    cdef bint keeps_exps = job.what & (SOFTMAX | GRAD) != 0
    job.x_at = 0
    job.together = 1
    job.exp_bytes = (job.n_classes * job.itemsize + 63) // 64 * 64
    if (job.exp_bytes * TILE <= TOGETHER_BYTES and not distribution(job)
            and job.x.step == job.itemsize
            and (job.out.data == NULL or job.out.step == job.itemsize)):
        job.together = TILE
    if job.out.data != NULL and (keeps_exps or job.out.step != job.itemsize):
        job.x_at += row if job.together == 1 else TILE * job.exp_bytes + 2 * PAGE
    job.target_at = job.x_at
    if job.x.step != job.itemsize:
        job.target_at += row
    job.scratch_bytes = job.target_at
    if distribution(job) or job.what & VJP:
        job.scratch_bytes += row


cdef int run(Job *job, int n_threads) except -1:
    """All rows, in groups that the threads share out among themselves."""
    # Rows of the few are shared out one by one; their losses are then all kept.
    cdef int group_rows = 1 if job.n_rows < 64 * n_threads and not tiled(job) else TILE
    cdef ptrdiff_t n_groups = (job.n_rows + group_rows - 1) // group_rows, g
    cdef char *scratch
    cdef char *memory
    cdef fp_mode mode = 0

    if job.n_classes > PTRDIFF_MAX // (4 * TILE * n_threads * job.itemsize):
        raise MemoryError(f"scratch for rows of {job.n_classes} classes cannot be had")
    lay_out_scratch(job)
    memory = <char *>malloc(n_threads * job.scratch_bytes + PAGE)
    if memory == NULL:
        raise MemoryError(f"{n_threads * job.scratch_bytes} bytes of scratch cannot be had")
    scratch = memory + (PAGE - <uintptr_t>memory % PAGE)

    if n_threads == 1:
        with nogil:
            mode = fp_enter()
            for g in range(n_groups):
                do_group(job, scratch, g, group_rows)
            fp_leave(mode)
    else:
        with nogil, parallel(num_threads=n_threads):
            mode = fp_enter()
            for g in prange(n_groups, schedule="static"):
                do_group(job, scratch + thread_num() * job.scratch_bytes, g, group_rows)
            fp_leave(mode)
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


cdef inline void long_exp(const Job *job, ptrdiff_t unit, ptrdiff_t shares, double shift,
                          double *sums) noexcept nogil:
    """The exps of one share, chunk by chunk; sums has a pair for each."""
    cdef Share s = share_at(job, unit, shares)
    cdef ptrdiff_t b, c, at
    cdef char *e = NULL
    for b in range(chunks(s.end - s.begin)):
        c = s.begin + b * CHUNK
        at = c * job.itemsize
        if job.what & (SOFTMAX | GRAD):
            e = row_at(job, &job.out, s.row) + at
        job.kernels.exp_sum(row_at(job, &job.x, s.row) + at, min(<ptrdiff_t>CHUNK, s.end - c),
                            shift, NULL, e, sums, sums + 1)
        sums += 2


cdef inline void long_out(const Job *job, ptrdiff_t unit, ptrdiff_t shares, double shift,
                          double hi, double lo) noexcept nogil:
    cdef Share s = share_at(job, unit, shares)
    cdef ptrdiff_t at = s.begin * job.itemsize
    cdef char *out = row_at(job, &job.out, s.row) + at
    if job.what & LOG_SOFTMAX:
        job.kernels.log(row_at(job, &job.x, s.row) + at, s.end - s.begin, shift, hi, out, False)
    else:
        job.kernels.scale(out, s.end - s.begin, hi, lo, NULL, 0, out, False)


cdef int long_rows(Job *job, int n_threads) except -1:
    """Fewer rows than threads: each pass is shared out by blocks of classes. Contiguous
    classes and labels only; the exps wait in the output for their sum."""
    cdef ptrdiff_t shares = (job.n_classes + LONG_SHARE - 1) // LONG_SHARE
    cdef ptrdiff_t n_chunks = chunks(job.n_classes), n = job.n_rows
    cdef ptrdiff_t n_units = shares * n, u, r, c
    cdef ptrdiff_t size = sizeof(double) * (n_units + n * (4 + 2 * n_chunks))
    cdef double *largest = <double *>malloc(size + n * sizeof(ptrdiff_t))
    if largest == NULL:
        raise MemoryError("the sums of the blocks of long rows cannot be had")
    cdef double *shift = largest + n_units
    cdef double *hi = shift + n
    cdef double *lo = hi + n
    cdef double *loss = lo + n
    cdef double *sums = loss + n
    cdef ptrdiff_t *y = <ptrdiff_t *>(<char *>largest + size)
    cdef Total total
    cdef fp_mode mode = 0
    with nogil:
        with parallel(num_threads=n_threads):
            mode = fp_enter()
            for u in prange(n_units, schedule="static"):
                long_max(job, u, shares, largest)
            fp_leave(mode)
        for r in range(job.n_rows):
            shift[r] = -INFINITY
            for u in range(r * shares, (r + 1) * shares):
                if largest[u] > shift[r]:
                    shift[r] = largest[u]
        for r in range(job.n_rows):
            loss[r] = y[r] = 0
            if job.target_kind:
                read_labels(job, r, 1, &y[r])
            if y[r] < 0:
                job.bad = 1
                y[r] = 0
            if job.what & LOSS:         # before the output, which may be the logits
                job.kernels.difference(row_at(job, &job.x, r), y[r], shift[r], &loss[r], &lo[r])
        with parallel(num_threads=n_threads):
            mode = fp_enter()
            for u in prange(n_units, schedule="static"):
                long_exp(job, u, shares, shift[u // shares],
                         sums + 2 * (u // shares * n_chunks + u % shares * (LONG_SHARE // CHUNK)))
            fp_leave(mode)
        mode = fp_enter()
        for r in range(job.n_rows):
            total = Total(0, 0, 0)
            for c in range(r * n_chunks, (r + 1) * n_chunks):
                add(&total, sums[2 * c], sums[2 * c + 1])
            finish(&total)
            if job.what & (LOG_SOFTMAX | LOGSUMEXP | LOSS):
                hi[r] = log_of(job, total)
            if job.what & LOGSUMEXP:
                loss[r] = logsumexp_of(job, row_at(job, &job.x, r), shift[r], hi[r])
            elif job.what & LOSS:
                loss[r] = (hi[r] - loss[r]) - lo[r]
            keep_number(job, r, loss[r])
            if job.what & (SOFTMAX | GRAD):
                job.doubles.divide(&job.weight, &total.coarse, &total.fine, 1, &hi[r], &lo[r])
            if job.what & GRAD:
                job.kernels.exclude(row_at(job, &job.out, r), y[r], 1, total.coarse, total.fine)
        fp_leave(mode)
        if job.out.data != NULL:
            with parallel(num_threads=n_threads):
                mode = fp_enter()
                for u in prange(n_units, schedule="static"):
                    long_out(job, u, shares, shift[u // shares], hi[u // shares],
                             lo[u // shares])
                fp_leave(mode)
    free(largest)
    return 0


# ---------------------------------------------------------------- from Python

cdef int describe(Rows *rows, cnp.ndarray array, bint per_class) except -1:
    """Take down an array's strides; without an axis of classes if not `per_class`."""
    cdef int ndim = cnp.PyArray_NDIM(array) - per_class, d
    rows.data = cnp.PyArray_BYTES(array)
    rows.step = cnp.PyArray_STRIDE(array, ndim) if per_class else 0
    for d in range(ndim):
        rows.outer[d] = cnp.PyArray_STRIDE(array, d)
    return 0


cdef void join_axes(Job *job, int ndim, cnp.npy_intp *shape) noexcept:
    """Join neighbouring axes of rows that every array strides through as one."""
    cdef Rows *arrays[4]
    arrays[0], arrays[1], arrays[2], arrays[3] = &job.x, &job.out, &job.target, &job.result
    cdef int d, a, k = -1
    cdef bint joined
    for d in range(ndim):
        if shape[d] == 1:
            continue
        joined = k >= 0
        for a in range(4):
            if joined and arrays[a].data != NULL:
                joined = arrays[a].outer[k] == arrays[a].outer[d] * shape[d]
        if not joined:
            k += 1
            job.shape[k] = 1
        job.shape[k] *= shape[d]
        for a in range(4):
            arrays[a].outer[k] = arrays[a].outer[d]
    job.ndim = k + 1
    if job.ndim == 0:
        job.ndim = 1
        job.shape[0] = 1


cdef int set_up(Job *job, int what, cnp.ndarray x, object out, object target,
                bint labels, object result=None) except -1:
    cdef int ndim = cnp.PyArray_NDIM(x) - 1
    cdef int kind
    memset(job, 0, sizeof(Job))
    job.what = what
    job.itemsize = cnp.PyArray_ITEMSIZE(x)
    job.kernels = active.f32 if job.itemsize == 4 else active.f64
    job.doubles = active.doubles
    job.weight = 1
    job.n_classes = cnp.PyArray_DIM(x, ndim)
    job.n_rows = cnp.PyArray_SIZE(x) // job.n_classes
    describe(&job.x, x, True)
    if out is not None:
        describe(&job.out, out, True)
        job.stream = (job.out.step == job.itemsize
                      and job.n_classes * job.itemsize >= STREAM_ROW_BYTES
                      and job.n_rows * job.n_classes * job.itemsize >= STREAM_BYTES)
    if result is not None:
        if cnp.PyArray_NDIM(result) != ndim:
            raise RuntimeError("result must have one number for each row")
        describe(&job.result, result, False)
    if target is not None:
        describe(&job.target, target, not labels)
        kind = ord(target.dtype.kind)
        if kind == c'b':
            kind = c'u'
        job.target_kind = kind - 32 if labels else kind     # upper case
        job.target_size = cnp.PyArray_ITEMSIZE(target)
    join_axes(job, ndim, cnp.PyArray_DIMS(x))
    return 0


cdef inline bint long_and_few(const Job *job, int n_threads) noexcept:
    return (n_threads > 1 and job.n_rows < 2 * n_threads and job.n_classes >= 4 * CHUNK
            and not job.what & VJP and job.target_kind not in (c'i', c'u', c'f')
            and job.x.step == job.itemsize
            and (job.out.data == NULL or job.out.step == job.itemsize))


def rowwise(int what, cnp.ndarray x, out, result, n_threads):
    """Compute softmax or log_softmax into `out`, or logsumexp into `result`."""
    cdef Job job
    set_up(&job, what, x, out, None, False, result)
    cdef int threads = thread_count(n_threads, job.n_rows * job.n_classes)
    if long_and_few(&job, threads):
        long_rows(&job, threads)
    else:
        run(&job, threads)


def vjp(cnp.ndarray p, cnp.ndarray v, cnp.ndarray out, n_threads):
    """Compute p * (v - sum(p * v)) into `out`."""
    cdef Job job
    set_up(&job, VJP, p, out, v, False)
    run(&job, thread_count(n_threads, job.n_rows * job.n_classes))


def check_labels(cnp.ndarray x, cnp.ndarray target, n_threads):
    """Return whether all labels lie in [0, n_classes)."""
    cdef Job job
    set_up(&job, 0, x, None, target, True)
    cdef ptrdiff_t n_blocks = (job.n_rows + LABELS - 1) // LABELS, b
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
    cdef ptrdiff_t[LABELS] y
    cdef int n = <int>min(<ptrdiff_t>LABELS, job.n_rows - block * LABELS), r, bad = 0
    read_labels(job, block * LABELS, n, y)
    for r in range(n):
        bad |= y[r] < 0
    if bad:
        job.bad = 1


cdef double total_mass(cnp.ndarray x, cnp.ndarray target, n_threads) except? -1:
    """The sum of all entries of a target that is a distribution."""
    cdef Job job
    set_up(&job, MASS, x, None, target, False)
    return total_loss(&job, thread_count(n_threads, job.n_rows * job.n_classes))


cdef double total_loss(Job *job, int threads) except? -1:
    """Do all rows; return the sum of their losses, in the one order."""
    cdef ptrdiff_t n_groups = (job.n_rows + TILE - 1) // TILE
    cdef bint is_long = long_and_few(job, threads)
    cdef bint by_row = is_long or job.n_rows < 64 * threads
    cdef double *numbers = <double *>malloc(
        sizeof(double) * (job.n_rows if by_row else 2 * n_groups))
    if numbers == NULL:
        raise MemoryError("one number for each row cannot be had")
    if by_row:
        job.losses = numbers
    else:
        job.partial = numbers
    try:
        if is_long:
            long_rows(job, threads)
        else:
            run(job, threads)
        return total_of_rows(numbers, job.n_rows) if by_row else total_of_groups(
            numbers, n_groups)
    finally:
        free(numbers)


def cross_entropy(cnp.ndarray x, cnp.ndarray target, bint labels, out, result, double scale,
                  bint mean, bint want_loss, n_threads):
    """Compute the gradient times `scale` into `out`, each row's loss into `result`, where
    these are not None.

    Returns the sum of the losses, or their `mean` (to which the gradient then belongs), or
    None if a label was out of range.
    """
    cdef Job job
    cdef int what = (LOSS if want_loss else 0) | (GRAD if out is not None else 0)
    cdef double total, weight = 1
    cdef fp_mode mode = fp_enter()      # also for what is left to do after the loop
    try:
        set_up(&job, what, x, out, target, labels, result)
        job.weight = scale
        if mean:
            weight = job.n_rows if labels else total_mass(x, target, n_threads)
            job.weight = scale / weight if weight != 0 else 0
        total = total_loss(&job, thread_count(n_threads, job.n_rows * job.n_classes))
        if job.bad:
            return None
        if mean:
            return total / weight if weight != 0 else NAN
        return total
    finally:
        fp_leave(mode)


def exp_of(cnp.ndarray x):
    """Return exp(x) for contiguous x <= 0 as the kernels compute it before anything else is
    done with it, in float64; for the tests of its error."""
    cdef Job job
    set_up(&job, SOFTMAX, x.reshape(1, -1), None, None, False, None)
    cdef cnp.ndarray exps = np.empty_like(x)
    sum_of_exp(&job, cnp.PyArray_BYTES(x), 0, NULL, cnp.PyArray_BYTES(exps))
    return np.ldexp(exps.astype(np.float64), -40 if job.itemsize == 4 else -192)
