# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# What one call is about: its arrays with their strides, and its options. Reads no number.

from libc.stdint cimport uint64_t
from libc.stdlib cimport abort

from cysoftmax._kernels cimport Doubles, Kernels, TILE
from cysoftmax._what cimport GRAD, SOFTMAX

cdef extern from *:
    """
    #ifndef CYSOFTMAX_DEBUG
    #define CYSOFTMAX_DEBUG 0
    #endif
    """
    const bint CYSOFTMAX_DEBUG

cdef enum:
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


cdef inline bint columns(const Job *job, const Rows *rows) noexcept nogil:
    """Whether rows in line lie side by side, each class of many of them in one piece."""
    return (rows.data != NULL and rows.step != job.itemsize
            and rows.outer[job.ndim - 1] == job.itemsize)


cdef inline bint in_a_row(const Job *job, const Rows *rows) noexcept nogil:
    """Whether each row begins where the one before it ends."""
    return job.ndim == 1 and rows.direct and rows.outer[0] == job.n_classes * job.itemsize


cdef inline ptrdiff_t tile_bytes(const Job *job) noexcept nogil:
    """From one tile to the next: an odd number of lines of 64 bytes, so that their classes do not
    compete for the same place in a cache."""
    return (job.n_classes | 1) * TILE * job.itemsize


cdef inline char *tile_of(const Job *job, char *tiles, int t) noexcept nogil:
    """One of those that are worked on together."""
    return tiles + t * tile_bytes(job)


cdef inline bint leaves_more(const Job *job) noexcept nogil:
    """Whether b / (keep s) can be anything but the mass."""
    return job.smoothing != 0 or job.z_loss != 0


cdef inline bint scales_only(const Job *job) noexcept nogil:
    """Whether an output is nothing but exps times a factor."""
    return job.what & SOFTMAX or (
        job.what & GRAD and job.target_is == LABELS and not leaves_more(job))
