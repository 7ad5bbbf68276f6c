# cython: language_level=3, cdivision=True
"""Times of the functions of one row, and of the kernels that they call, in loops of C."""

cimport cysoftmax
from libc.math cimport INFINITY

from cysoftmax._core cimport active
from cysoftmax._kernels cimport Kernels

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec, tv_nsec
    int CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec *time)

cdef enum:
    CALLS = 5000

ctypedef void (*Call)(const double *x, ptrdiff_t n, double *out) noexcept nogil


cdef double now() noexcept nogil:
    cdef timespec time
    clock_gettime(CLOCK_MONOTONIC, &time)
    return 1e9 * time.tv_sec + time.tv_nsec


cdef void kernels_of_logsumexp(const double *x, ptrdiff_t n, double *out) noexcept nogil:
    cdef const Kernels *k = active.f64
    cdef double shift = k.max(x, n), coarse, fine
    k.exp_sum(x, n, shift, NULL, NULL, NULL, &coarse, &fine)
    active.doubles.log_total(&coarse, &fine, 1, out)
    out[0] += shift


cdef void kernels_of_softmax(const double *x, ptrdiff_t n, double *out) noexcept nogil:
    cdef const Kernels *k = active.f64
    cdef double shift = k.max(x, n), coarse, fine, hi, lo, one = 1
    k.exp_sum(x, n, shift, NULL, NULL, out, &coarse, &fine)
    active.doubles.divide(&one, &coarse, &fine, 1, &hi, &lo)
    k.scale(out, n, hi, lo, NULL, 0, NULL, 0, out)


cdef void logsumexp(const double *x, ptrdiff_t n, double *out) noexcept nogil:
    out[0] = cysoftmax.logsumexp_f64(x, n, 1)


cdef void strided_logsumexp(const double *x, ptrdiff_t n, double *out) noexcept nogil:
    out[0] = cysoftmax.logsumexp_f64(x, n, 3)


cdef void softmax(const double *x, ptrdiff_t n, double *out) noexcept nogil:
    cysoftmax.softmax_f64(x, n, 1, out, 1)


cdef double time_of(Call call, const double *x, ptrdiff_t n, double *out) noexcept nogil:
    """Return the nanoseconds of one of many calls."""
    cdef double begin = now()
    cdef int _i
    for _i in range(CALLS):
        call(x, n, out)
    return (now() - begin) / CALLS


def times(double[::1] x, ptrdiff_t n, int rounds):
    """Return the least times, in nanoseconds: of logsumexp's kernels, logsumexp, logsumexp of a
    strided row, softmax's kernels and softmax, for rows of n numbers, in turns."""
    cdef Call[5] calls = [
        kernels_of_logsumexp, logsumexp, strided_logsumexp, kernels_of_softmax, softmax]
    cdef double[5] least = [INFINITY, INFINITY, INFINITY, INFINITY, INFINITY]
    cdef double[1000] out
    cdef int _i, k
    if n > 1000 or 3 * n > x.shape[0]:
        raise ValueError("no room for such a row")
    with nogil:
        for _i in range(rounds):
            for k in range(5):
                least[k] = min(least[k], time_of(calls[k], &x[0], n, out))
    return list(least)
