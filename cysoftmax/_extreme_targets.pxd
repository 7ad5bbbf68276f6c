# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# Rows whose target, class weights and sample weight are extreme (_extremes.pxd): their targets are
# read and summed once more, with powers of two. Touches the target of one row; no logit.

from libc.math cimport isfinite

from cysoftmax._block cimport Block, weights_of
from cysoftmax._extremes cimport any_outside, is_moderate, settle
from cysoftmax._job cimport DISTRIBUTION, LABELS, SPARSE, Array, Job, Range, class_at
from cysoftmax._numbers cimport load_masses, number_at, put_real, wide_mass, wide_real
from cysoftmax._scratch cimport Scratch
from cysoftmax._sparse cimport Entries, entries_of, entry_bound, index_at, next_entry
from cysoftmax._sums cimport two_sum
from cysoftmax._wide cimport NO_EXPONENT, Wide, exponent_of, narrow, wide

cdef inline void settle_labels(const Job *job, Block *b) noexcept nogil:
    """Settle the extreme weights of a block whose targets are labels, before masks are read."""
    cdef int r
    cdef const Range *limits = &job.range
    if job.loss.moderate_weights:
        return
    if (any_outside(job, b.w.sample, b.n_rows, limits.least_sample, limits.most_sample)
            or any_outside(job, b.w.label_mass, b.n_rows, limits.least_mass, limits.most_mass)):
        for r in range(b.n_rows):
            settle_row(job, b, r, job.n_classes, job.loss.class_sum)


cdef inline void settle_row(const Job *job, Block *b, int r, double unmasked,
                            double weight_sum) noexcept nogil:
    """Settle the weights of row r if they are extreme. `weight_sum` is the sum of the class weights
    of its `unmasked` classes."""
    cdef int i = weights_of(b, r)
    cdef Wide mass
    if b.ignored[r] or not (job.plan.by_mass or job.target_is == LABELS):
        return
    if is_moderate(job, b, i):
        return
    if job.target_is == LABELS:
        mass = wide(b.w.label_mass[i], 0)
        settle(job, b, i, wide(1, 0), mass, exponent_of(mass), unmasked, weight_sum)
    else:
        settle_target(job, b, r, unmasked, weight_sum)


cdef inline void settle_target(const Job *job, Block *b, int r, double unmasked,
                               double weight_sum) noexcept nogil:
    """Settle the weights of a row whose target is a distribution, dense or sparse. Its numbers are
    summed once more, times powers of two that make the largest about 1. A row that is not finite
    stays as it is."""
    cdef int top_sum = NO_EXPONENT, top_mass = NO_EXPONENT
    cdef double target, sum = 0, mass = 0, sum_error = 0, mass_error = 0, error
    cdef ptrdiff_t i = b.first + r, n = count_numbers(job, i), k, c
    for k in range(n):
        target = target_number(job, i, k, &c)
        if not isfinite(target):
            return
        top_sum = max(top_sum, exponent_of(wide_real(job, target)))
        top_mass = max(top_mass, exponent_of(wide_mass(job, target, c)))
    for k in range(n if top_sum != NO_EXPONENT else 0):
        target = target_number(job, i, k, &c)
        sum = two_sum(sum, narrow(wide_real(job, target), -top_sum), &error)
        sum_error += error
        if top_mass != NO_EXPONENT:
            mass = two_sum(mass, narrow(wide_mass(job, target, c), -top_mass), &error)
            mass_error += error
    settle(job, b, weights_of(b, r), wide(sum + sum_error, top_sum),
           wide(mass + mass_error, top_mass), top_mass, unmasked, weight_sum)


cdef inline double target_number(const Job *job, ptrdiff_t i, ptrdiff_t k,
                                 ptrdiff_t *c) noexcept nogil:
    """Return number k of those that the target of row i stores, and its class."""
    cdef const Array *entries = &job.sparse.entries
    cdef ptrdiff_t j
    c[0] = k
    if job.target_is == DISTRIBUTION:
        return number_at(job, &job.target, class_at(job, &job.target, i, k))
    j = min(entry_bound(job, i) + k, job.sparse.n_entries - 1)
    c[0] = index_at(job, job.sparse.classes, j)
    if not 0 <= c[0] < job.n_classes:   # changed during the call, which is noticed elsewhere
        c[0] = 0
    return number_at(job, entries, entries.data + j * entries.item)


cdef inline ptrdiff_t count_numbers(const Job *job, ptrdiff_t i) noexcept nogil:
    """Return how many numbers the target of row i stores."""
    if job.target_is == DISTRIBUTION:
        return job.n_classes
    return max(<ptrdiff_t>0, entry_bound(job, i + 1) - entry_bound(job, i))


cdef inline bint holds_small_numbers(const Job *job, ptrdiff_t i) noexcept nogil:
    """Return whether a target whose reals are all 0 holds numbers that are too small for a real."""
    cdef const Array *numbers = &job.target
    cdef ptrdiff_t k, c
    if job.target_is == SPARSE:
        numbers = &job.sparse.entries
    if not job.plan.by_mass or numbers.kind != c'd' or job.itemsize == 8:
        return False
    for k in range(count_numbers(job, i)):
        if target_number(job, i, k, &c) != 0:
            return True
    return False


cdef inline void lift_target(const Job *job, Scratch *s, const Block *b, int r, char *into,
                             ptrdiff_t stride) noexcept nogil:
    """Store the masses of row r, which is lifted, as reals `stride` apart, where zeros are or other
    numbers of the target."""
    cdef Entries entries
    cdef double mass
    cdef ptrdiff_t c
    if job.target_is == DISTRIBUTION:
        load_masses(job, b.first + r, 0, job.n_classes, b.powers.lift[r], into, stride)
        return
    entries = entries_of(job, b.first + r, 0, job.n_classes, b.powers.lift[r], &s.bad_label)
    while entries.j < entries.end:
        c = next_entry(job, &entries, True, &mass, &s.bad_label)
        put_real(job, into, c * stride, job.n_classes * stride, mass)
