# cython: language_level=3, cdivision=True
"""Times of the functions of one row, and of the kernels that they call, in loops of C."""

cimport cysoftmax
from libc.math cimport INFINITY
from libc.stdint cimport uint32_t

from cysoftmax._core cimport active
from cysoftmax._kernels cimport Kernels

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec, tv_nsec
    int CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec *time)

cdef enum:
    CALLS = 2000
    MOST = 1000                     # numbers of a row
    STRIDE = 3
    LABEL = 1

cdef uint32_t NEVER = 0xfff12345    # half of a NaN that no function returns

ctypedef void (*Call)(const void *x, ptrdiff_t n, void *out) noexcept nogil

cdef const Kernels *k               # of the dtype that is measured
cdef ptrdiff_t stride = 1           # of the rows of the functions, and of their outputs


cdef double now() noexcept nogil:
    cdef timespec time
    clock_gettime(CLOCK_MONOTONIC, &time)
    return 1e9 * time.tv_sec + time.tv_nsec


# ---------------------------------------------------------------- the kernels that a call needs

cdef inline void *at_label(void *row) noexcept nogil:
    return <char *>row + LABEL * (4 if k == active.f32 else 8)


cdef inline void divide(double coarse, double fine, void *out, ptrdiff_t n) noexcept nogil:
    cdef double one = 1, hi, lo
    active.doubles.divide(&one, &coarse, &fine, 1, &hi, &lo)
    k.scale(out, n, hi, lo, NULL, 0, NULL, 0, out)


cdef void softmax(const void *x, ptrdiff_t n, void *out) noexcept nogil:
    cdef double coarse, fine
    k.exp_sum(x, n, k.max(x, n), NULL, NULL, out, &coarse, &fine)
    divide(coarse, fine, out, n)


cdef void log_softmax(const void *x, ptrdiff_t n, void *out) noexcept nogil:
    cdef double shift = k.max(x, n), coarse, fine, log
    k.exp_sum(x, n, shift, NULL, NULL, NULL, &coarse, &fine)
    active.doubles.log_total(&coarse, &fine, 1, &log)
    k.log(x, n, shift, NULL, log, out)


cdef void logsumexp(const void *x, ptrdiff_t n, void *out) noexcept nogil:
    cdef double shift = k.max(x, n), coarse, fine, log
    k.exp_sum(x, n, shift, NULL, NULL, NULL, &coarse, &fine)
    active.doubles.log_total(&coarse, &fine, 1, &log)
    (<double *>out)[0] = shift + log


cdef inline double loss_and_grad(const void *x, ptrdiff_t n, void *out, bint loss) noexcept nogil:
    cdef double shift = k.max(x, n), one = 1, coarse, fine, log = 0, hi = 0, lo = 0
    cdef void *e
    if loss:
        k.terms(&one, at_label(<void *>x), &shift, 1, &hi, &lo)
    k.exp_sum(x, n, shift, NULL, NULL, out, &coarse, &fine)
    if loss:
        active.doubles.log_total(&coarse, &fine, 1, &log)
    if out != NULL:
        e = at_label(out)
        k.minus_rest(&e, &coarse, &fine, 1)
        divide(coarse, fine, out, n)
    return (log - hi) - lo


cdef void cross_entropy(const void *x, ptrdiff_t n, void *out) noexcept nogil:
    (<double *>out)[0] = loss_and_grad(x, n, NULL, True)


cdef void cross_entropy_grad(const void *x, ptrdiff_t n, void *out) noexcept nogil:
    loss_and_grad(x, n, out, False)


cdef void cross_entropy_with_grad(const void *x, ptrdiff_t n, void *out) noexcept nogil:
    (<double *>out)[MOST] = loss_and_grad(x, n, out, True)


cdef void softmax_vjp(const void *x, ptrdiff_t n, void *out) noexcept nogil:
    cdef double hi, lo
    k.dot(x, x, n, 0, False, &hi, &lo)
    k.vjp(x, x, n, hi, lo, out)


# ---------------------------------------------------------------- the calls

cdef void softmax_f32(const void *x, ptrdiff_t n, void *out) noexcept nogil:
    cysoftmax.softmax_f32(<float *>x, n, stride, <float *>out, stride)


cdef void softmax_f64(const void *x, ptrdiff_t n, void *out) noexcept nogil:
    cysoftmax.softmax_f64(<double *>x, n, stride, <double *>out, stride)


cdef void log_softmax_f32(const void *x, ptrdiff_t n, void *out) noexcept nogil:
    cysoftmax.log_softmax_f32(<float *>x, n, stride, <float *>out, stride)


cdef void log_softmax_f64(const void *x, ptrdiff_t n, void *out) noexcept nogil:
    cysoftmax.log_softmax_f64(<double *>x, n, stride, <double *>out, stride)


cdef void logsumexp_f32(const void *x, ptrdiff_t n, void *out) noexcept nogil:
    (<double *>out)[0] = cysoftmax.logsumexp_f32(<float *>x, n, stride)


cdef void logsumexp_f64(const void *x, ptrdiff_t n, void *out) noexcept nogil:
    (<double *>out)[0] = cysoftmax.logsumexp_f64(<double *>x, n, stride)


cdef void cross_entropy_f32(const void *x, ptrdiff_t n, void *out) noexcept nogil:
    (<double *>out)[0] = cysoftmax.cross_entropy_f32(<float *>x, n, stride, LABEL)


cdef void cross_entropy_f64(const void *x, ptrdiff_t n, void *out) noexcept nogil:
    (<double *>out)[0] = cysoftmax.cross_entropy_f64(<double *>x, n, stride, LABEL)


cdef void cross_entropy_grad_f32(const void *x, ptrdiff_t n, void *out) noexcept nogil:
    cysoftmax.cross_entropy_grad_f32(<float *>x, n, stride, LABEL, <float *>out, stride)


cdef void cross_entropy_grad_f64(const void *x, ptrdiff_t n, void *out) noexcept nogil:
    cysoftmax.cross_entropy_grad_f64(<double *>x, n, stride, LABEL, <double *>out, stride)


cdef void cross_entropy_with_grad_f32(const void *x, ptrdiff_t n, void *out) noexcept nogil:
    (<double *>out)[MOST] = cysoftmax.cross_entropy_with_grad_f32(
        <float *>x, n, stride, LABEL, <float *>out, stride)


cdef void cross_entropy_with_grad_f64(const void *x, ptrdiff_t n, void *out) noexcept nogil:
    (<double *>out)[MOST] = cysoftmax.cross_entropy_with_grad_f64(
        <double *>x, n, stride, LABEL, <double *>out, stride)


cdef void softmax_vjp_f32(const void *x, ptrdiff_t n, void *out) noexcept nogil:
    cysoftmax.softmax_vjp_f32(<float *>x, n, stride, <float *>x, stride, <float *>out, stride)


cdef void softmax_vjp_f64(const void *x, ptrdiff_t n, void *out) noexcept nogil:
    cysoftmax.softmax_vjp_f64(<double *>x, n, stride, <double *>x, stride, <double *>out, stride)


# ---------------------------------------------------------------- times

cdef enum:
    FUNCTIONS = 7

NAMES = ("softmax", "log_softmax", "logsumexp", "cross_entropy", "cross_entropy_grad",
         "cross_entropy_with_grad", "softmax_vjp")

cdef Call[FUNCTIONS] KERNELS = [
    softmax, log_softmax, logsumexp, cross_entropy, cross_entropy_grad, cross_entropy_with_grad,
    softmax_vjp]
cdef Call[FUNCTIONS] SINGLE = [
    softmax_f32, log_softmax_f32, logsumexp_f32, cross_entropy_f32, cross_entropy_grad_f32,
    cross_entropy_with_grad_f32, softmax_vjp_f32]
cdef Call[FUNCTIONS] DOUBLE = [
    softmax_f64, log_softmax_f64, logsumexp_f64, cross_entropy_f64, cross_entropy_grad_f64,
    cross_entropy_with_grad_f64, softmax_vjp_f64]


cdef double time_of(Call call, const void *x, ptrdiff_t n, void *out) noexcept nogil:
    """Return the nanoseconds of one of many calls. Each has to wait for a result of the one before:
    the processor may not begin it earlier, as it would with kernels alone."""
    cdef double begin = now()
    cdef int _i
    for _i in range(CALLS):
        call(x, n + ((<const uint32_t *>out)[0] == NEVER), out)
    return (now() - begin) / CALLS


def times(x, ptrdiff_t n, int rounds):
    """Return the least times of each function, in nanoseconds, for rows of n of the numbers x, in
    turns: of its kernels, of a call, and of a call with strided rows."""
    global k, stride
    cdef bint single = x.dtype == "float32"
    cdef const unsigned char[::1] memory = x.view("uint8")
    cdef double[STRIDE * MOST + 1] out
    cdef double[FUNCTIONS][3] least
    cdef int f, way, _i
    if n > MOST or STRIDE * n > len(x):
        raise ValueError("no room for such a row")
    k = active.f32 if single else active.f64
    for f in range(FUNCTIONS):
        least[f][0] = least[f][1] = least[f][2] = INFINITY
    for _i in range(rounds):
        for f in range(FUNCTIONS):
            for way in range(3):
                stride = STRIDE if way == 2 else 1
                least[f][way] = min(least[f][way], time_of(
                    KERNELS[f] if way == 0 else SINGLE[f] if single else DOUBLE[f],
                    &memory[0], n, out))
    return {name: (least[f][0], least[f][1], least[f][2]) for f, name in enumerate(NAMES)}
