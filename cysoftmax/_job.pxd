# What one call is about: the arrays with their strides, the options, and how a number is read
# from an array or written to one. Included by _core.pyx, which says what is done with them.

from libc.stdint cimport (
    int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t)
from libc.stdlib cimport abort
from libc.string cimport memcpy

from cysoftmax._kernels cimport TILE, Doubles, Kernels

cdef extern from *:
    """
    #ifndef CYSOFTMAX_DEBUG
    #define CYSOFTMAX_DEBUG 0
    #endif
    """
    const bint CYSOFTMAX_DEBUG

cdef enum:                  # what is wanted
    SOFTMAX = 1
    LOG_SOFTMAX = 2
    LOGSUMEXP = 4
    LOSS = 8
    GRAD = 16
    VJP = 32
    MASS = 64               # of the weights of the rows, their sum alone
    VARIANCE = 128          # the diagonal of the Hessian
    STATS = 256
    MAX_DIMS = 64           # NumPy's NPY_MAXDIMS
    MAX_ARRAYS = 9          # those of a Job
    BAD_LABEL = -1
    IGNORED_LABEL = -2

cdef struct Rows:
    char *data                      # NULL: there is no such array
    ptrdiff_t step                  # bytes from class to class
    ptrdiff_t item                  # bytes of one number
    int kind                        # 'd', 'f', 'e' (IEEE half), 'b' (bfloat16), 'i' or 'u'
    bint direct                     # the kernels can work on its rows where they are
    ptrdiff_t *outer                # bytes along the axes of the rows

cdef enum Target:
    NO_TARGET = 0
    LABELS
    DISTRIBUTION
    SPARSE

cdef struct Weights:                # of one row; explained before Group in _core.pyx
    double sample, given, share, mass, smooth, smooth_sum, weight
    double factor               # what a gradient is multiplied with, 1 / temperature included
    double half, extra          # see half_of and extra_of

cdef struct Job:
    int what
    const Kernels *kernels
    const Doubles *doubles
    ptrdiff_t n_rows, n_classes, itemsize
    int ndim                        # axes of the rows, after joining what can be joined
    Rows x, out
    Rows variance                   # a second output, like out
    Rows result                     # what is one number a row: losses or logsumexp
    Rows stats                      # six float64 for each row, see write_stats
    Rows where                      # bytes: whether an entry takes part
    Rows sample, scale              # float64: a row's weight, and a factor of its gradient
    Rows target                     # labels or a distribution; of a vjp, v
    Target target_is
    const char *entries             # SPARSE: the non-zeros as reals
    const char *entry_classes       # the class of each: int32 or int64, as index_item says
    const char *indptr              # where those of a row begin, and where the last ends
    ptrdiff_t index_item, n_entries
    bint large                      # an output is: it would not stay in the caches
    bint stream                     # rows of it are stored past them
    double unit                     # the scale of every gradient, if there is no array of them
    double divisor                  # the sum of the weights, if the loss is their mean
    bint weighted                   # a row can weigh something else than 1
    bint prepared                   # there is more to read of a row than logits, label, weight
    bint ignores                    # labels with the bits of `ignore`, as 64 bits
    uint64_t ignore
    const char *class_weight        # as reals, or NULL for ones
    double class_sum                # the sum of these
    double smoothing, keep          # label_smoothing, and 1 minus that
    double z_loss
    double temperature              # of the logits times load_scale, a power of two
    double load_scale
    double[2] inv_temperatures                 # 1 / temperature in two parts
    const double *inv_temperature              # these, or NULL for 1
    double *losses                  # one for each row, or NULL, besides `result`
    double *weights                 # its weight, if `weighted`
    double *partial                 # hi, lo of the losses and weights of each 16 rows, or NULL
    int bad                         # set if a label was out of range
    ptrdiff_t e_at, x_at, target_at, where_at, base_at, variance_at     # where a thread's scratch
    ptrdiff_t together_at, second_at, largest_at    # has room for each; a Thread is
    ptrdiff_t edges_at, scratch_bytes       # at its beginning
    ptrdiff_t fetch_rows            # so many rows ahead are fetched, or none
    ptrdiff_t exp_bytes             # from one row of exps to the next
    ptrdiff_t half_bytes            # from one half of the room for exps or tiles to the other
    bint late                       # rows are stored while the next are worked on
    int together                    # so many rows are worked on at a time by do_rows
    bint logs_late                  # and the logarithms taken for a whole group
    int tiles                       # so many tiles of them by do_tiles; 0: none
    bint ahead                      # and the next ones are copied meanwhile
    int group_rows                  # so many rows are one unit of the loop over rows,
    ptrdiff_t share_rows            # and so many a thread's share of it
    int n_arrays                    # there are, of the arrays above
    Weights ones                    # of a row about which no option says anything; see fill_ones
    # What is as large as it could ever have to be; only what is used of it is ever filled.
    ptrdiff_t shape[MAX_DIMS]
    ptrdiff_t outer[MAX_ARRAYS][MAX_DIMS]   # of each array

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


cdef inline void expect(bint condition) noexcept nogil:
    """In a debug build, stop at once where an index is outside of its array."""
    if CYSOFTMAX_DEBUG and not condition:
        abort()


cdef inline char *row_at(const Job *job, const Rows *rows, ptrdiff_t i) noexcept nogil:
    """Where row i begins."""
    expect(0 <= i < job.n_rows)
    if job.ndim == 1:
        return rows.data + i * rows.outer[0]
    return row_among_axes(job, rows, i)


cdef inline char *row_among_axes(const Job *job, const Rows *rows, ptrdiff_t i) noexcept nogil:
    cdef char *place = rows.data
    cdef int d
    for d in range(job.ndim - 1, 0, -1):
        place += (i % job.shape[d]) * rows.outer[d]
        i //= job.shape[d]
    return place + i * rows.outer[0]


cdef inline bint in_line(const Job *job, ptrdiff_t first, ptrdiff_t n) noexcept nogil:
    """Whether n rows from there on lie along one axis, each as far from the next."""
    return job.ndim == 1 or first % job.shape[job.ndim - 1] + n <= job.shape[job.ndim - 1]


# ---------------------------------------------------------------- rows of numbers

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


cdef inline void copy_items(const char *source, ptrdiff_t step, ptrdiff_t n, char *target,
                            ptrdiff_t target_step, ptrdiff_t item) noexcept nogil:
    """Copy n strided items of 1, 2, 4 or 8 bytes as they are."""
    cdef ptrdiff_t c
    for c in range(n):
        if item == 4:
            (<uint32_t *>(target + c * target_step))[0] = (<const uint32_t *>source)[0]
        elif item == 8:
            (<uint64_t *>(target + c * target_step))[0] = (<const uint64_t *>source)[0]
        elif item == 2:
            (<uint16_t *>(target + c * target_step))[0] = (<const uint16_t *>source)[0]
        else:
            target[c * target_step] = source[0]
        source += step


cdef inline void load_numbers(const Job *job, const Rows *rows, ptrdiff_t i,
                              char *into) noexcept nogil:
    """Row i of numbers of any kind, as reals side by side."""
    cdef const void *p = row_at(job, rows, i)
    cdef ptrdiff_t step = rows.step, n = job.n_classes, size = job.itemsize
    if rows.direct and rows.item == size:
        memcpy(into, p, n * size)
    elif rows.kind == c'f':
        convert[float](<const float *>p, step, n, into, size, size)
    elif rows.kind == c'd':
        convert[double](<const double *>p, step, n, into, size, size)
    elif rows.kind == c'i':
        if rows.item == 1:
            convert[int8_t](<const int8_t *>p, step, n, into, size, size)
        elif rows.item == 2:
            convert[int16_t](<const int16_t *>p, step, n, into, size, size)
        elif rows.item == 4:
            convert[int32_t](<const int32_t *>p, step, n, into, size, size)
        else:
            convert[int64_t](<const int64_t *>p, step, n, into, size, size)
    elif rows.kind == c'u':
        if rows.item == 1:
            convert[uint8_t](<const uint8_t *>p, step, n, into, size, size)
        elif rows.item == 2:
            convert[uint16_t](<const uint16_t *>p, step, n, into, size, size)
        elif rows.item == 4:
            convert[uint32_t](<const uint32_t *>p, step, n, into, size, size)
        else:
            convert[uint64_t](<const uint64_t *>p, step, n, into, size, size)
    else:
        load_halves(job, rows, <const char *>p, into)


cdef inline double load_halves(const Job *job, const Rows *rows, const char *place,
                               char *into) noexcept nogil:
    """Numbers of 16 bits, as float32; returns what `max` does for them. Those that do not lie side
    by side are first put into the upper half of `into`: widening from there overtakes them at the
    very end only."""
    cdef ptrdiff_t n = job.n_classes
    if rows.step != 2:
        copy_items(place, rows.step, n, into + 2 * n, 2, 2)
        place = into + 2 * n
    return job.kernels.widen(<const uint16_t *>place, n, rows.kind == c'b', into)


cdef inline void store_row(const Job *job, const Rows *rows, ptrdiff_t i,
                           char *row) noexcept nogil:
    """Put reals that lie side by side, which may be overwritten, into row i."""
    cdef char *place = row_at(job, rows, i)
    cdef ptrdiff_t n = job.n_classes
    if rows.item == 2 and rows.step == 2:
        job.kernels.narrow(row, n, rows.kind == c'b', <uint16_t *>place)
    else:
        if rows.item == 2:
            job.kernels.narrow(row, n, rows.kind == c'b', <uint16_t *>row)
        copy_items(row, rows.item, n, place, rows.step, rows.item)


cdef inline void put_number(const Job *job, const Rows *rows, char *place,
                            double value) noexcept nogil:
    cdef float single = <float>value
    if rows.kind == c'd':
        (<double *>place)[0] = value
    elif rows.kind == c'f':
        (<float *>place)[0] = single
    else:
        job.kernels.narrow(&single, 1, rows.kind == c'b', <uint16_t *>place)


cdef inline void fill_row(const Job *job, const Rows *rows, ptrdiff_t i,
                          double value) noexcept nogil:
    """The same number for every class of row i, if there is such an array."""
    cdef ptrdiff_t c
    cdef char *place
    if rows.data == NULL:
        return
    place = row_at(job, rows, i)
    if rows.direct:
        job.kernels.fill(value, job.n_classes, place, job.stream)
        return
    for c in range(job.n_classes):
        put_number(job, rows, place + c * rows.step, value)


cdef inline double real_at(const Job *job, const char *reals, ptrdiff_t c) noexcept nogil:
    expect(0 <= c)
    if job.itemsize == 4:
        return (<const float *>reals)[c]
    return (<const double *>reals)[c]


cdef inline void put_real(const Job *job, char *reals, ptrdiff_t c, double value) noexcept nogil:
    if job.itemsize == 4:
        (<float *>reals)[c] = <float>value
    else:
        (<double *>reals)[c] = value


# ---------------------------------------------------------------- labels

cdef inline void labels_as(integer kind, const Job *job, ptrdiff_t first, int n,
                           ptrdiff_t *y) noexcept nogil:
    """The labels of n rows. Each is read once, so that another thread that changes it cannot
    make a checked label into another one."""
    cdef uint64_t label, signs = 0, last = <uint64_t>job.n_classes - 1
    cdef const char *place = row_at(job, &job.target, first)
    cdef ptrdiff_t step = job.target.outer[job.ndim - 1]
    cdef bint line = in_line(job, first, n)
    cdef int r
    if sizeof(integer) == sizeof(y[0]) and line and step == <ptrdiff_t>sizeof(y[0]):
        memcpy(y, place, n * step)  # of a size that no compiler knows: a call, which reads once
    else:
        for r in range(n):
            if not line:
                place = row_at(job, &job.target, first + r)
            y[r] = <ptrdiff_t>(<const volatile integer *>place)[0]
            place += step
    # As 64 bits. The highest is set in a label that is negative, or in its distance from the last
    # class if it lies beyond that.
    for r in range(n):
        label = <uint64_t>y[r]
        signs |= label | (last - label)
    if signs >> 63 == 0 and not job.ignores:
        return
    for r in range(n):
        label = <uint64_t>y[r]
        if job.ignores and label == job.ignore:
            y[r] = IGNORED_LABEL
        elif label > last:
            y[r] = BAD_LABEL


cdef inline void read_labels(const Job *job, ptrdiff_t first, int n, ptrdiff_t *y) noexcept nogil:
    cdef bint signed = job.target.kind == c'i'
    if job.target.item == 8:
        if signed:
            labels_as(<int64_t>0, job, first, n, y)
        else:
            labels_as(<uint64_t>0, job, first, n, y)
    elif job.target.item == 4:
        if signed:
            labels_as(<int32_t>0, job, first, n, y)
        else:
            labels_as(<uint32_t>0, job, first, n, y)
    elif job.target.item == 2:
        if signed:
            labels_as(<int16_t>0, job, first, n, y)
        else:
            labels_as(<uint16_t>0, job, first, n, y)
    elif signed:
        labels_as(<int8_t>0, job, first, n, y)
    else:
        labels_as(<uint8_t>0, job, first, n, y)


# ---------------------------------------------------------------- sums

cdef struct Total:                  # of a row, in natural units
    double coarse, fine, error


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


cdef inline double total_of_groups(const double *partial, ptrdiff_t n_groups) noexcept nogil:
    """The sum over all sixteens of rows of hi + lo, in order; the next pair is 4 numbers on."""
    cdef double hi = 0, lo = 0, error
    cdef ptrdiff_t g
    for g in range(n_groups):
        hi = two_sum(hi, partial[4 * g], &error)
        lo += error + partial[4 * g + 1]
    return finite_sum(hi, lo)


cdef inline double total_of_rows(const Job *job, const double *values,
                                 ptrdiff_t n) noexcept nogil:
    """The same of the numbers of the rows: groups of 16 first."""
    cdef double[TILE] some
    cdef double hi = 0, lo = 0, error, group, group_error
    cdef ptrdiff_t g, r
    for g in range((n + TILE - 1) // TILE):
        for r in range(TILE):
            some[r] = values[g * TILE + r] if g * TILE + r < n else 0
        job.doubles.add_up(some, &group, &group_error)
        hi = two_sum(hi, group, &error)
        lo += error + group_error
    return finite_sum(hi, lo)


cdef inline double finite_sum(double hi, double lo) noexcept nogil:
    """hi + lo; an infinite hi has a lo that is NaN."""
    return hi if hi - hi != 0 and hi == hi else hi + lo
