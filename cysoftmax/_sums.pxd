# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# The order in which sums over chunks of classes, and over rows, are added up.

from libc.math cimport isfinite, isnan

from cysoftmax._job cimport Job
from cysoftmax._kernels cimport CHUNK, TILE
from cysoftmax._numbers cimport real_at

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


cdef inline ptrdiff_t chunks(ptrdiff_t n) noexcept nogil:
    """How many chunks, the pieces in which the kernels want their sums, n classes make."""
    return (n + CHUNK - 1) // CHUNK


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


cdef inline Total dot(const Job *job, const char *a, const char *x, double shift,
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


cdef inline Total loss_dot(const Job *job, const char *a, const char *x, double shift) noexcept nogil:
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


cdef inline ptrdiff_t first_nan(const Job *job, const char *x) noexcept nogil:
    """The first class whose logit is NaN, or n_classes."""
    cdef ptrdiff_t c
    for c in range(job.n_classes):
        if isnan(real_at(job, x, c)):
            return c
    return job.n_classes
