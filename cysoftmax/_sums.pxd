# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# The order in which everything is added up: classes by chunks, and chunks in order; rows by
# sixteens, and sixteens in order. Reals go in, pairs of doubles come out. Knows no option.

from libc.math cimport isfinite, ldexp

from cysoftmax._job cimport Job
from cysoftmax._kernels cimport CHUNK, TILE
from cysoftmax._numbers cimport real_at
from cysoftmax._wide cimport NO_EXPONENT, Wide, exponent_of, wide, without_exponent

cdef struct Pair:                   # a sum as the kernels return it: hi + lo
    double hi, lo

cdef struct Masses:                 # of one chunk of one row's classes: what the target weighs
    Pair target_sum, target_mass    # T and class_weight T
    Pair weight_sum                 # class_weight, of the classes that are not masked
    ptrdiff_t unmasked              # how many of the classes are not masked
    ptrdiff_t any_target            # whether T is not 0 for any of them

cdef struct Reduced:                # and what is summed once the maximum is known
    Pair exps                       # exp(d), d = (x - shift) / temperature
    Pair target_dot, uniform_dot    # class_weight T d and class_weight d, both times temperature
    Pair entropy_dot                # exp(d) d
    Pair target_exps                # T exp(d)

cdef union ChunkSums:               # the one is added up before the other is needed
    Masses mass
    Reduced sum

cdef struct Total:                  # a sum of pairs: coarse + fine, once finish was called
    double coarse, fine, error


cdef inline ptrdiff_t chunks(ptrdiff_t n) noexcept nogil:
    """Return the number of chunks of n classes."""
    return (n + CHUNK - 1) // CHUNK


cdef inline ptrdiff_t chunk_size(ptrdiff_t n, ptrdiff_t k) noexcept nogil:
    """Return the number of classes in chunk k of n classes."""
    return min(<ptrdiff_t>CHUNK, n - k * CHUNK)


# ---------------------------------------------------------------- of one row

cdef inline Pair *pair_of(const Pair *first, ptrdiff_t k) noexcept nogil:
    """Return the pair of chunk k, given the same pair of the first chunk."""
    return <Pair *>(<const char *>first + k * <ptrdiff_t>sizeof(ChunkSums))


cdef inline double two_sum(double a, double b, double *error) noexcept nogil:
    """Return a + b rounded, and its rounding error in `error` (Knuth's two-sum)."""
    cdef double s = a + b
    cdef double part = s - a
    error[0] = (a - (s - part)) + (b - part)
    return s


cdef inline void add(Total *total, Pair pair) noexcept nogil:
    """Add the pair of the next chunk."""
    cdef double e1, e2
    total.coarse = two_sum(total.coarse, pair.hi, &e1)
    total.fine = two_sum(total.fine, pair.lo, &e2)
    total.error += e1 + e2


cdef inline void finish(Total *total) noexcept nogil:
    """Put the rounding errors of all additions into `fine`."""
    total.fine += total.error


cdef inline double total_of(Total *total) noexcept nogil:
    """Return a sum of chunks, once all were added."""
    finish(total)
    return total.coarse + total.fine


cdef inline void sum_chunks(const Job *job, const char *a, ptrdiff_t n,
                            Pair *first) noexcept nogil:
    """Sum each chunk of n reals; `first` is the pair of the first chunk."""
    cdef Pair *sums
    cdef ptrdiff_t k
    for k in range(chunks(n)):
        sums = pair_of(first, k)
        job.kernels.sum(a + k * CHUNK * job.itemsize, chunk_size(n, k), &sums.hi, &sums.lo)


cdef inline void dot_chunks(const Job *job, const char *a, const char *x, ptrdiff_t n,
                            const double *shift, Pair *first) noexcept nogil:
    """Sum a (x - shift), or a x if `shift` is NULL, over each chunk of n classes, all but exactly;
    see the kernel."""
    cdef Pair *sums
    cdef ptrdiff_t k, at
    for k in range(chunks(n)):
        sums = pair_of(first, k)
        at = k * CHUNK * job.itemsize
        job.kernels.dot(a + at, x + at, chunk_size(n, k), shift, &sums.hi, &sums.lo)


cdef inline void diff_chunks(const Job *job, const char *a, const char *x, ptrdiff_t n,
                             double shift, Pair *first) noexcept nogil:
    """Sum a (x - shift), where no term is positive, over each chunk of n classes; a is ones if
    NULL."""
    cdef Pair *sums
    cdef ptrdiff_t k, at
    for k in range(chunks(n)):
        sums = pair_of(first, k)
        at = k * CHUNK * job.itemsize
        job.kernels.diff_sum(a + at if a != NULL else NULL, x + at, chunk_size(n, k), shift,
                             &sums.hi, &sums.lo)


cdef inline void add_chunks(Total *total, const Pair *first, ptrdiff_t n) noexcept nogil:
    """Add the pairs of the next n chunks."""
    cdef ptrdiff_t k
    for k in range(n):
        add(total, pair_of(first, k)[0])


cdef inline void add_terms(const Job *job, const char *a, const char *x, ptrdiff_t n,
                           ptrdiff_t stride, double shift, Total *total) noexcept nogil:
    """Add a (x - shift) for each of n classes, `stride` reals apart, in double: where a sum of
    chunks overflowed. a is ones if NULL."""
    cdef double weight = 1
    cdef ptrdiff_t c
    for c in range(n):
        if a != NULL:
            weight = real_at(job, a, c * stride, n * stride)
        add_term(job, weight, x + c * stride * job.itemsize, shift, total)


cdef inline void add_term(const Job *job, double weight, const char *x, double shift,
                          Total *total) noexcept nogil:
    """Add weight (x - shift) for one logit."""
    cdef double hi, lo
    job.kernels.terms(&weight, x, &shift, 1, &hi, &lo)
    total.coarse += hi
    total.fine += lo


# ---------------------------------------------------------------- of all rows

cdef inline ptrdiff_t count_sixteens(ptrdiff_t n) noexcept nogil:
    """Return the number of sixteens of n rows, the last one perhaps not full."""
    return (n + TILE - 1) // TILE


# A sum of sixteen rows is a pair of doubles (every second pair of `sums`) times a power of two
# (every second of `exponents`, all of them 0 before). The power is 0 unless the rows have some, or
# the sum would overflow: then they are first made smaller than 1.

cdef inline void sum_sixteens(const Job *job, const double *values, const int *powers,
                              ptrdiff_t n, double *sums, int *exponents) noexcept nogil:
    """Sum n sixteens of numbers, each times its power of two unless `powers` is NULL."""
    cdef double lost = 0
    cdef ptrdiff_t g
    job.doubles.add_up(values, n, sums)
    for g in range(n):
        lost += sums[4 * g] - sums[4 * g]
    if powers == NULL and lost == 0:
        return
    for g in range(n):
        sum_wide_sixteen(job, values + g * TILE, powers + g * TILE if powers != NULL else NULL,
                         sums + 4 * g, exponents + 2 * g)


cdef inline void sum_wide_sixteen(const Job *job, const double *values, const int *powers,
                                  double *sum, int *exponent) noexcept nogil:
    """Sum sixteen numbers again if they have powers, or their sum overflowed."""
    cdef double[TILE] scaled
    cdef double[4] pair
    cdef int top = NO_EXPONENT, any_power = 0, power, r
    exponent[0] = 0
    for r in range(TILE):
        power = powers[r] if powers != NULL and values[r] != 0 else 0
        any_power |= power
        top = max(top, exponent_of(wide(values[r], power)))
        if not isfinite(values[r]):
            return
    if top == NO_EXPONENT or (any_power == 0 and isfinite(sum[0])):
        return
    for r in range(TILE):
        scaled[r] = ldexp(values[r], (powers[r] if powers != NULL else 0) - top)
    job.doubles.add_up(scaled, 1, pair)
    sum[0] = pair[0]
    sum[1] = pair[1]
    exponent[0] = top


cdef inline Wide total_of_sixteens(const double *sums, const int *exponents,
                                   ptrdiff_t n) noexcept nogil:
    """Return the total of the sums of n sixteens."""
    cdef double hi = 0, lo = 0, error
    cdef int any_exponent = 0
    cdef ptrdiff_t g
    for g in range(n):
        hi = two_sum(hi, sums[4 * g], &error)
        lo += error + sums[4 * g + 1]
        any_exponent |= exponents[2 * g]
    if any_exponent != 0 or not isfinite(hi):
        return wide_total_of_sixteens(sums, exponents, n, finite_sum(hi, lo))
    return Wide(hi + lo, 0)


cdef inline Wide wide_total_of_sixteens(const double *sums, const int *exponents, ptrdiff_t n,
                                        double total) noexcept nogil:
    """Return the total if a sum has a power of two, or if the total overflowed; `total` if a sum is
    infinite or NaN."""
    cdef double hi = 0, lo = 0, error
    cdef int top = NO_EXPONENT
    cdef ptrdiff_t g
    for g in range(n):
        if not isfinite(sums[4 * g]):
            return Wide(total, 0)
        top = max(top, exponent_of(wide(sums[4 * g], exponents[2 * g])))
    top += 64                       # there are fewer than 2^64 sums
    for g in range(n):
        hi = two_sum(hi, ldexp(sums[4 * g], exponents[2 * g] - top), &error)
        lo += error + ldexp(sums[4 * g + 1], exponents[2 * g] - top)
    return without_exponent(wide(hi + lo, top))


cdef inline void sum_rows(const Job *job, const Wide *rows, ptrdiff_t n, double *sums,
                          int *exponents) noexcept nogil:
    """Sum each sixteen of n rows."""
    cdef double[TILE] some
    cdef int[TILE] powers
    cdef ptrdiff_t g, i
    cdef int r
    for g in range(count_sixteens(n)):
        for r in range(TILE):
            i = g * TILE + r
            some[r] = rows[i].part if i < n else 0
            powers[r] = rows[i].exponent if i < n else 0
        sum_sixteens(job, some, powers, 1, sums + 4 * g, exponents + 2 * g)


cdef inline double finite_sum(double hi, double lo) noexcept nogil:
    """Return hi + lo, or hi if that is infinite: its error lo is then NaN."""
    return hi if hi - hi != 0 and hi == hi else hi + lo
