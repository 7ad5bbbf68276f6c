# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# Rows of which a call has only some of the classes. What is known of such a row is kept for later
# (TOTALS), or was merged with what is known of its other classes and comes back as Job.given: the
# maximum and the sum of all classes take the place of those that the call finds, and with
# `given_masses` also what the target weighs. Touches the numbers of a block.
#
# Of each row, as float64:
#   0          the largest logit; NaN if any logit is NaN, -inf if all are masked
#   1, 2, 3    coarse, fine and low, whose sum is that of the exps; 0 if all logits are masked
#   4          how many classes are not masked
#   5          the sum of their class weights
#   6, 7       target_sum and target_mass, as in _block.pxd
#   8          whether any entry of the target is not 0

from libc.math cimport INFINITY, NAN, isfinite, isnan

from cysoftmax._block cimport MOST_ROWS, Block, weigh_masses
from cysoftmax._job cimport Job, row_at
from cysoftmax._numbers cimport read_per_row


cdef inline double given_at(const Job *job, const Block *b, int r, int k) noexcept nogil:
    """Return number k of what is known of row r."""
    return (<const double *>(row_at(job, &job.given, b.first + r) + k * job.given.step))[0]


cdef inline void read_given(const Job *job, const Block *b, int begin, int end, int k,
                            double *numbers) noexcept nogil:
    """Read number k of what is known of rows begin ... end - 1."""
    read_per_row(job, &job.given, k * job.given.step, b.first + begin, end - begin, numbers)


cdef inline void ignore_masked_rows(const Job *job, Block *b) noexcept nogil:
    """Ignore the rows of which all classes are masked."""
    cdef double[MOST_ROWS] shift, coarse
    cdef int r
    read_given(job, b, 0, b.n_rows, 0, shift)
    read_given(job, b, 0, b.n_rows, 1, coarse)
    for r in range(b.n_rows):
        b.ignored[r] |= (shift[r] == -INFINITY) & (coarse[r] == 0)


cdef inline void forget_labels_elsewhere(Block *b) noexcept nogil:
    """Give the labels of other blocks no mass here. What the rows weigh remains."""
    cdef int r
    for r in range(b.n_rows):
        b.w.label_mass[r] = 0 if b.label[r] < 0 else b.w.label_mass[r]
        b.label[r] = 0 if b.label[r] < 0 else b.label[r]


cdef inline void take_shifts(const Job *job, Block *b, int begin, int end) noexcept nogil:
    """Replace the maxima of these classes by those of all."""
    cdef double[MOST_ROWS] shift
    cdef int r
    if job.given.data == NULL:
        return
    read_given(job, b, begin, end, 0, shift)
    for r in range(begin, end):
        b.shift[r] = b.shift[r] if b.skipped[r] else shift[r - begin]


cdef inline void take_totals(const Job *job, Block *b, int begin, int end) noexcept nogil:
    """Replace the sums of the exps of these classes by those of all."""
    cdef double[MOST_ROWS] coarse, fine, low
    cdef int r
    if job.given.data == NULL:
        return
    read_given(job, b, begin, end, 1, coarse)
    read_given(job, b, begin, end, 2, fine)
    read_given(job, b, begin, end, 3, low)
    for r in range(begin, end):
        b.coarse[r] = b.coarse[r] if b.skipped[r] else coarse[r - begin]
        b.fine[r] = b.fine[r] if b.skipped[r] else fine[r - begin] + low[r - begin]


cdef inline void weigh_given(const Job *job, Block *b, int r) noexcept nogil:
    """Compute what row r weighs from what its target weighs in all classes."""
    weigh_masses(job, b, r, given_at(job, b, r, 4), given_at(job, b, r, 5), True,
                 given_at(job, b, r, 6), given_at(job, b, r, 7), given_at(job, b, r, 8) != 0)


cdef inline void store_totals(const Job *job, const Block *b, int r) noexcept nogil:
    """Store the first four numbers of row r."""
    cdef char *place = row_at(job, &job.stats, b.first + r)
    cdef ptrdiff_t step = job.stats.step
    cdef double shift = b.shift[r], coarse = b.coarse[r], fine = b.fine[r]
    if b.skipped[r]:
        shift, coarse, fine = -INFINITY, 0, 0
    elif not isfinite(shift):
        shift = NAN if b.has_nan[r] else shift
        coarse, fine = NAN, 0
    elif isnan(coarse) or isnan(fine):
        shift, coarse, fine = NAN, NAN, 0
    (<double *>place)[0] = shift
    (<double *>(place + step))[0] = coarse
    (<double *>(place + 2 * step))[0] = fine
    (<double *>(place + 3 * step))[0] = 0
