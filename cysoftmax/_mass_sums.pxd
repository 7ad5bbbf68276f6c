# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# What plain distributions weigh together: the sum of all masses, which does not depend on their
# order. So it is taken from the target as it lies in memory, with no regard to rows and classes:
# contiguous or strided, dense or sparse. Touches the target alone.
#
# Each sixteen of rows has a sum of its own. If its masses are not what this sum is made for, which
# depends on them alone, the weights of its rows are added up instead (_write.pxd).

from cysoftmax._job cimport DISTRIBUTION, Array, Job, row_at
from cysoftmax._kernels cimport TILE
from cysoftmax._numbers cimport count, load_reals
from cysoftmax._sparse cimport entry_bound
from cysoftmax._sums cimport count_sixteens, two_sum
from cysoftmax._tile_arrays cimport holds_reals, rows_follow

cdef enum:
    CONVERTED = 256                 # numbers that are converted at a time


cdef inline bint add_some(const Job *job, const Array *array, const char *place, ptrdiff_t step,
                          ptrdiff_t n, double *sums) noexcept nogil:
    """Add n masses of an array, `step` bytes apart from `place` on; return what add_masses does."""
    cdef double[CONVERTED] room     # reals
    cdef ptrdiff_t some
    cdef bint good = True
    if holds_reals(job, array) and step == array.item:
        return job.kernels.add_masses(place, n, sums)
    if array.kind == c'?' and step == 1:
        sums[0] += count(<const unsigned char *>place, n)
        return True
    while n > 0:
        some = min(n, <ptrdiff_t>CONVERTED)
        load_reals(job, array, place, step, some, <char *>room)
        good &= job.kernels.add_masses(room, some, sums)
        place += some * step
        n -= some
    return good


cdef inline bint add_dense(const Job *job, ptrdiff_t first, int n_rows,
                           double *sums) noexcept nogil:
    """Add the masses of dense rows: in runs as long as they lie side by side."""
    cdef const Array *target = &job.target
    cdef const char *place = row_at(job, target, first)
    cdef bint good = True
    cdef ptrdiff_t i
    if rows_follow(job, target):
        return add_some(job, target, place, target.step, n_rows * job.n_classes, sums)
    for i in range(first, first + n_rows):
        good &= add_some(job, target, row_at(job, target, i), target.step, job.n_classes, sums)
    return good


cdef inline bint take_sum(const Job *job, int n_rows, bint good, const double *sums,
                          double *pair) noexcept nogil:
    """Store what add_masses found for n_rows rows as a pair of doubles, and return True; or return
    False, and leave the pair as it is, if the masses are not what that is for."""
    cdef double hi, lo
    hi = two_sum(sums[0], sums[1] + sums[2], &lo)
    # Of n float32 masses, n 2^-53 at most was lost by rounding (of masses below 2^-29 alone): 2^-41
    # of this sum, and of probabilities n / 16 2^-53.
    if not (good and hi >= n_rows * job.n_classes * (1. / 4096)):
        return False
    pair[0] = hi
    pair[1] = lo
    return True


cdef inline bint add_masses_of(const Job *job, ptrdiff_t first, int n_rows,
                               double *sums) noexcept nogil:
    """Add the masses of up to sixteen rows; return what add_masses does."""
    cdef const Array *entries = &job.sparse.entries
    cdef ptrdiff_t begin, end
    if job.target_is == DISTRIBUTION:
        return add_dense(job, first, n_rows, sums)
    begin = entry_bound(job, first)
    end = max(begin, entry_bound(job, first + n_rows))
    return add_some(job, entries, entries.data + begin * entries.item, entries.item, end - begin,
                    sums)


cdef inline bint sum_masses_of_sixteen(const Job *job, ptrdiff_t first, int n_rows,
                                       double *pair) noexcept nogil:
    """Sum the masses of up to sixteen rows, if take_sum takes it."""
    cdef double[3] sums
    sums[0] = sums[1] = sums[2] = 0
    return take_sum(job, n_rows, add_masses_of(job, first, n_rows, sums), sums, pair)


cdef inline bint sum_masses_of_tile(const Job *job, const char *tile, double *pair) noexcept nogil:
    """Do that for the sixteen rows of a tile."""
    cdef double[3] sums
    sums[0] = sums[1] = sums[2] = 0
    return take_sum(job, TILE, job.kernels.add_masses(tile, TILE * job.n_classes, sums), sums, pair)


cdef inline bint sum_masses_of_rows(const Job *job, ptrdiff_t first, ptrdiff_t n_rows,
                                    double *sums, int *exponents) noexcept nogil:
    """Do that for each sixteen of n rows; return whether it was possible for all."""
    cdef bint good = True
    cdef ptrdiff_t g, n
    for g in range(count_sixteens(n_rows)):
        n = min(<ptrdiff_t>TILE, n_rows - g * TILE)
        if sum_masses_of_sixteen(job, first + g * TILE, <int>n, sums + 4 * g):
            exponents[2 * g] = 0
        else:
            good = False
    return good
