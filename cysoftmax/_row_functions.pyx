# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
"""The functions of one row for compiled code: include/cysoftmax.h says what each does.

They are made of the kernels and sums of the way ROWS, without its options, plan and block of rows,
so their results have the bits of those of arrays. None allocates: where the numbers of a row are
strided they are copied to the stack, a chunk at a time, and exps wait in the output for their sum.
"""

from cpython.pycapsule cimport PyCapsule_GetName, PyCapsule_GetPointer, PyCapsule_New
from libc.math cimport NAN, isinf, isnan
from libc.stdint cimport uintptr_t

from cysoftmax._core cimport active
from cysoftmax._kernels cimport CHUNK, Doubles, Kernels, fp_enter, fp_mode, fp_restore
from cysoftmax._numbers cimport copy_items
from cysoftmax._sums cimport Pair, Total, add, chunk_size, chunks, finish

cdef extern from *:
    """
    // A number whose arithmetic is done before what follows, such as fp_restore: compilers do not
    // know that the mode changes what it gives.
    static inline float cysoftmax_settled_f32(double x) {
        volatile float settled = (float)x;
        return settled;
    }
    static inline double cysoftmax_settled_f64(double x) {
        volatile double settled = x;
        return settled;
    }
    """
    float settled_f32 "cysoftmax_settled_f32"(double x) noexcept nogil
    double settled_f64 "cysoftmax_settled_f64"(double x) noexcept nogil

cdef extern from "cysoftmax.h":
    const int CYSOFTMAX_ABI
    ctypedef struct Table "cysoftmax_table":    # the types are those of _row_functions.pxd
        int abi
        size_t n_bytes
        void *softmax_f32
        void *softmax_f64
        void *log_softmax_f32
        void *log_softmax_f64
        void *logsumexp_f32
        void *logsumexp_f64
        void *cross_entropy_f32
        void *cross_entropy_f64
        void *cross_entropy_grad_f32
        void *cross_entropy_grad_f64
        void *cross_entropy_with_grad_f32
        void *cross_entropy_with_grad_f64
        void *softmax_vjp_f32
        void *softmax_vjp_f64


# ---------------------------------------------------------------- rows

cdef struct Strided:                # the numbers of a row: reals
    char *first
    ptrdiff_t step                  # bytes from one to the next

cdef struct Row:
    const Kernels *kernels
    const Doubles *doubles
    ptrdiff_t n, item               # how many reals, of how many bytes
    Strided x                       # logits; p of a VJP
    Strided out


cdef inline Strided strided_f32(const float *first, ptrdiff_t stride) noexcept nogil:
    return Strided(<char *>first, stride * <ptrdiff_t>sizeof(float))


cdef inline Strided strided_f64(const double *first, ptrdiff_t stride) noexcept nogil:
    return Strided(<char *>first, stride * <ptrdiff_t>sizeof(double))


cdef inline Row row_f32(const float *x, ptrdiff_t n, ptrdiff_t stride, float *out,
                        ptrdiff_t out_stride) noexcept nogil:
    return Row(active.f32, active.doubles, n, sizeof(float), strided_f32(x, stride),
               strided_f32(out, out_stride))


cdef inline Row row_f64(const double *x, ptrdiff_t n, ptrdiff_t stride, double *out,
                        ptrdiff_t out_stride) noexcept nogil:
    return Row(active.f64, active.doubles, n, sizeof(double), strided_f64(x, stride),
               strided_f64(out, out_stride))


cdef inline double real_in(const Row *row, const char *place) noexcept nogil:
    """Return the real that is there."""
    return (<const float *>place)[0] if row.item == 4 else (<const double *>place)[0]


cdef inline char *place_of(const Strided *s, ptrdiff_t c) noexcept nogil:
    """Return where number c is."""
    return s.first + c * s.step


cdef inline bint fits(const Row *row, const Strided *s) noexcept nogil:
    """Return whether numbers are strided, but not more than have room in a buffer."""
    return s.step != row.item and row.n <= CHUNK


cdef inline Strided packed(const Row *row, const Strided *s, char *buffer) noexcept nogil:
    """Return numbers copied to the buffer if they fit, or where they are."""
    if not fits(row, s):
        return s[0]
    copy_items(s.first, s.step, row.n, buffer, row.item, row.item)
    return Strided(buffer, row.item)


cdef inline Row pack(const Row *row, char *buffer) noexcept nogil:
    """Return the row to work on: its logits are `packed`, and its output is computed in the buffer
    if that fits."""
    cdef Row work = row[0]
    work.x = packed(row, &row.x, buffer)
    if fits(row, &row.out):
        work.out = Strided(buffer, row.item)
    return work


cdef inline void unpack(const Row *row, const Row *work) noexcept nogil:
    """Store the output that was computed in the buffer."""
    if work.out.first != row.out.first:
        copy_items(work.out.first, row.item, row.n, row.out.first, row.out.step, row.item)


# Some of the numbers: n of them, from number c on.

cdef inline char *some(const Row *row, const Strided *s, ptrdiff_t c, ptrdiff_t n,
                       char *buffer) noexcept nogil:
    """Return numbers side by side: where they are, or copied to the buffer."""
    if s.step == row.item:
        return place_of(s, c)
    copy_items(place_of(s, c), s.step, n, buffer, row.item, row.item)
    return buffer


cdef inline char *room(const Row *row, ptrdiff_t c, char *buffer) noexcept nogil:
    """Return where some of the output is computed: in its place, or in the buffer."""
    return place_of(&row.out, c) if row.out.step == row.item else buffer


cdef inline void put(const Row *row, ptrdiff_t c, ptrdiff_t n, const char *reals) noexcept nogil:
    """Store some of the output, unless it was computed in its place."""
    if reals != place_of(&row.out, c):
        copy_items(reals, row.item, n, place_of(&row.out, c), row.out.step, row.item)


# ---------------------------------------------------------------- what is computed of a row

cdef inline double largest(const Row *row, char *buffer) noexcept nogil:
    """Return the largest logit that is not NaN."""
    cdef double most, next_most
    cdef ptrdiff_t k, c, n
    if row.x.step == row.item:
        return row.kernels.max(row.x.first, row.n)
    most = row.kernels.max(buffer, 0)
    for k in range(chunks(row.n)):
        c = k * CHUNK
        n = chunk_size(row.n, k)
        next_most = row.kernels.max(some(row, &row.x, c, n, buffer), n)
        if next_most > most:
            most = next_most
    return most


cdef inline bint has_nan(const Row *row) noexcept nogil:
    """Return whether a logit is NaN."""
    cdef ptrdiff_t c
    for c in range(row.n):
        if isnan(real_in(row, place_of(&row.x, c))):
            return True
    return False


cdef inline Total sum_exps(const Row *row, double shift, bint keep, char *buffer) noexcept nogil:
    """Return the sum of exp(x - shift) (24); with `keep`, the exps go to the output."""
    cdef Total total = Total(0, 0, 0)
    cdef Pair pair
    cdef const char *x
    cdef char *e = NULL
    cdef ptrdiff_t k, c, n
    for k in range(chunks(row.n)):
        c = k * CHUNK
        n = chunk_size(row.n, k)
        x = some(row, &row.x, c, n, buffer)
        if keep:
            e = room(row, c, buffer)
        row.kernels.exp_sum(x, n, shift, NULL, NULL, e, &pair.hi, &pair.lo)
        add(&total, pair)
        if keep:
            put(row, c, n, e)
    finish(&total)
    return total


cdef inline double log_of(const Row *row, const Total *total) noexcept nogil:
    """Return the logarithm of a sum of exps (20)."""
    cdef double log
    row.doubles.log_total(&total.coarse, &total.fine, 1, &log)
    return log


cdef inline void divide_exps(const Row *row, const Total *total, char *buffer) noexcept nogil:
    """Divide the exps in the output by their sum."""
    cdef double one = 1, hi, lo
    cdef char *e
    cdef ptrdiff_t k, c, n
    row.doubles.divide(&one, &total.coarse, &total.fine, 1, &hi, &lo)
    for k in range(chunks(row.n)):
        c = k * CHUNK
        n = chunk_size(row.n, k)
        e = some(row, &row.out, c, n, buffer)
        row.kernels.scale(e, n, hi, lo, NULL, 0, NULL, 0, e)
        put(row, c, n, e)


cdef inline void fill(const Row *row, double value, char *buffer) noexcept nogil:
    """Store one number for all classes."""
    cdef char *place
    cdef ptrdiff_t k, c, n
    for k in range(chunks(row.n)):
        c = k * CHUNK
        n = chunk_size(row.n, k)
        place = room(row, c, buffer)
        row.kernels.fill(value, n, place, False)
        put(row, c, n, place)


# ---------------------------------------------------------------- the functions

cdef void softmax(const Row *row) noexcept nogil:
    cdef double[CHUNK] reals
    cdef char *buffer = <char *>reals
    cdef Row work = pack(row, buffer)
    cdef Total total = sum_exps(&work, largest(&work, buffer), True, buffer)
    divide_exps(&work, &total, buffer)
    unpack(row, &work)


cdef void log_softmax(const Row *row) noexcept nogil:
    cdef double[CHUNK] reals
    cdef char *buffer = <char *>reals
    cdef Row work = pack(row, buffer)
    cdef double shift = largest(&work, buffer), log
    cdef Total total = sum_exps(&work, shift, False, buffer)
    cdef const char *x
    cdef char *out
    cdef ptrdiff_t k, c, n
    log = log_of(&work, &total)
    for k in range(chunks(work.n)):
        c = k * CHUNK
        n = chunk_size(work.n, k)
        x = some(&work, &work.x, c, n, buffer)
        out = room(&work, c, buffer)
        work.kernels.log(x, n, shift, NULL, log, out)       # (18)
        put(&work, c, n, out)
    unpack(row, &work)


cdef double logsumexp(const Row *row) noexcept nogil:
    cdef double[CHUNK] reals
    cdef char *buffer = <char *>reals
    cdef Row work = pack(row, buffer)
    cdef double shift = largest(&work, buffer)
    cdef Total total
    if isinf(shift):
        return NAN if has_nan(&work) else shift
    total = sum_exps(&work, shift, False, buffer)
    return shift + log_of(&work, &total)


cdef double cross_entropy(const Row *row, ptrdiff_t label, bint with_loss,
                          bint with_grad) noexcept nogil:
    """Return the loss (19), and store its gradient (21), whichever of them is wanted."""
    cdef double[CHUNK] reals
    cdef char *buffer = <char *>reals
    cdef Row work = pack(row, buffer)
    cdef double shift, one = 1, hi = 0, lo = 0, loss = NAN
    cdef Total total
    cdef void *e
    if not 0 <= label < work.n:
        if with_grad:
            fill(&work, NAN, buffer)
    else:
        shift = largest(&work, buffer)
        if with_loss:               # before exps may overwrite the logits
            work.kernels.terms(&one, place_of(&work.x, label), &shift, 1, &hi, &lo)
        total = sum_exps(&work, shift, with_grad, buffer)
        if with_loss:
            loss = (log_of(&work, &total) - hi) - lo
        if with_grad:
            e = place_of(&work.out, label)
            work.kernels.minus_rest(&e, &total.coarse, &total.fine, 1)
            divide_exps(&work, &total, buffer)
    if with_grad:
        unpack(row, &work)
    return loss


cdef enum:
    HALF = CHUNK // 2               # of two rows, as many have room in a buffer as chunks of one


cdef void softmax_vjp(const Row *row, const Strided *v) noexcept nogil:
    cdef double[CHUNK] reals
    cdef char *p_buffer = <char *>reals
    cdef char *v_buffer = <char *>(reals + HALF)
    cdef bint side_by_side = row.x.step == row.item and v.step == row.item
    cdef Total total = Total(0, 0, 0)
    cdef Pair pair
    cdef const char *p
    cdef char *out
    cdef ptrdiff_t k, c, n
    for k in range(chunks(row.n)):
        c = k * CHUNK
        n = chunk_size(row.n, k)
        if side_by_side:
            row.kernels.dot(place_of(v, c), place_of(&row.x, c), n, NULL, &pair.hi, &pair.lo)
        else:
            row.kernels.strided_dot(place_of(v, c), v.step, place_of(&row.x, c), row.x.step, n,
                                    &pair.hi, &pair.lo)
        add(&total, pair)
    finish(&total)
    for k in range((row.n + HALF - 1) // HALF):
        c = k * HALF
        n = min(<ptrdiff_t>HALF, row.n - c)
        p = some(row, &row.x, c, n, p_buffer)
        out = room(row, c, p_buffer)
        row.kernels.vjp(p, some(row, v, c, n, v_buffer), n, total.coarse, total.fine, out)  # (15)
        put(row, c, n, out)


# ---------------------------------------------------------------- for each dtype

cdef void softmax_f32(const float *x, ptrdiff_t n, ptrdiff_t stride, float *out,
                      ptrdiff_t out_stride) noexcept nogil:
    cdef Row row = row_f32(x, n, stride, out, out_stride)
    cdef fp_mode mode = fp_enter()
    softmax(&row)
    fp_restore(mode)


cdef void log_softmax_f32(const float *x, ptrdiff_t n, ptrdiff_t stride, float *out,
                          ptrdiff_t out_stride) noexcept nogil:
    cdef Row row = row_f32(x, n, stride, out, out_stride)
    cdef fp_mode mode = fp_enter()
    log_softmax(&row)
    fp_restore(mode)


cdef float logsumexp_f32(const float *x, ptrdiff_t n, ptrdiff_t stride) noexcept nogil:
    cdef Row row = row_f32(x, n, stride, NULL, 1)
    cdef fp_mode mode = fp_enter()
    cdef float result = settled_f32(logsumexp(&row))
    fp_restore(mode)
    return result


cdef float cross_entropy_f32(const float *x, ptrdiff_t n, ptrdiff_t stride,
                             ptrdiff_t label) noexcept nogil:
    cdef Row row = row_f32(x, n, stride, NULL, 1)
    cdef fp_mode mode = fp_enter()
    cdef float loss = settled_f32(cross_entropy(&row, label, True, False))
    fp_restore(mode)
    return loss


cdef void cross_entropy_grad_f32(const float *x, ptrdiff_t n, ptrdiff_t stride, ptrdiff_t label,
                                 float *grad, ptrdiff_t grad_stride) noexcept nogil:
    cdef Row row = row_f32(x, n, stride, grad, grad_stride)
    cdef fp_mode mode = fp_enter()
    cross_entropy(&row, label, False, True)
    fp_restore(mode)


cdef float cross_entropy_with_grad_f32(const float *x, ptrdiff_t n, ptrdiff_t stride,
                                       ptrdiff_t label, float *grad,
                                       ptrdiff_t grad_stride) noexcept nogil:
    cdef Row row = row_f32(x, n, stride, grad, grad_stride)
    cdef fp_mode mode = fp_enter()
    cdef float loss = settled_f32(cross_entropy(&row, label, True, True))
    fp_restore(mode)
    return loss


cdef void softmax_vjp_f32(const float *p, ptrdiff_t n, ptrdiff_t stride, const float *v,
                          ptrdiff_t v_stride, float *out, ptrdiff_t out_stride) noexcept nogil:
    cdef Row row = row_f32(p, n, stride, out, out_stride)
    cdef Strided vector = strided_f32(v, v_stride)
    cdef fp_mode mode = fp_enter()
    softmax_vjp(&row, &vector)
    fp_restore(mode)


cdef void softmax_f64(const double *x, ptrdiff_t n, ptrdiff_t stride, double *out,
                      ptrdiff_t out_stride) noexcept nogil:
    cdef Row row = row_f64(x, n, stride, out, out_stride)
    cdef fp_mode mode = fp_enter()
    softmax(&row)
    fp_restore(mode)


cdef void log_softmax_f64(const double *x, ptrdiff_t n, ptrdiff_t stride, double *out,
                          ptrdiff_t out_stride) noexcept nogil:
    cdef Row row = row_f64(x, n, stride, out, out_stride)
    cdef fp_mode mode = fp_enter()
    log_softmax(&row)
    fp_restore(mode)


cdef double logsumexp_f64(const double *x, ptrdiff_t n, ptrdiff_t stride) noexcept nogil:
    cdef Row row = row_f64(x, n, stride, NULL, 1)
    cdef fp_mode mode = fp_enter()
    cdef double result = settled_f64(logsumexp(&row))
    fp_restore(mode)
    return result


cdef double cross_entropy_f64(const double *x, ptrdiff_t n, ptrdiff_t stride,
                              ptrdiff_t label) noexcept nogil:
    cdef Row row = row_f64(x, n, stride, NULL, 1)
    cdef fp_mode mode = fp_enter()
    cdef double loss = settled_f64(cross_entropy(&row, label, True, False))
    fp_restore(mode)
    return loss


cdef void cross_entropy_grad_f64(const double *x, ptrdiff_t n, ptrdiff_t stride, ptrdiff_t label,
                                 double *grad, ptrdiff_t grad_stride) noexcept nogil:
    cdef Row row = row_f64(x, n, stride, grad, grad_stride)
    cdef fp_mode mode = fp_enter()
    cross_entropy(&row, label, False, True)
    fp_restore(mode)


cdef double cross_entropy_with_grad_f64(const double *x, ptrdiff_t n, ptrdiff_t stride,
                                        ptrdiff_t label, double *grad,
                                        ptrdiff_t grad_stride) noexcept nogil:
    cdef Row row = row_f64(x, n, stride, grad, grad_stride)
    cdef fp_mode mode = fp_enter()
    cdef double loss = settled_f64(cross_entropy(&row, label, True, True))
    fp_restore(mode)
    return loss


cdef void softmax_vjp_f64(const double *p, ptrdiff_t n, ptrdiff_t stride, const double *v,
                          ptrdiff_t v_stride, double *out, ptrdiff_t out_stride) noexcept nogil:
    cdef Row row = row_f64(p, n, stride, out, out_stride)
    cdef Strided vector = strided_f64(v, v_stride)
    cdef fp_mode mode = fp_enter()
    softmax_vjp(&row, &vector)
    fp_restore(mode)


# ---------------------------------------------------------------- from Python

cdef Table table
table.abi = CYSOFTMAX_ABI
table.n_bytes = sizeof(Table)
table.softmax_f32 = <void *>softmax_f32
table.softmax_f64 = <void *>softmax_f64
table.log_softmax_f32 = <void *>log_softmax_f32
table.log_softmax_f64 = <void *>log_softmax_f64
table.logsumexp_f32 = <void *>logsumexp_f32
table.logsumexp_f64 = <void *>logsumexp_f64
table.cross_entropy_f32 = <void *>cross_entropy_f32
table.cross_entropy_f64 = <void *>cross_entropy_f64
table.cross_entropy_grad_f32 = <void *>cross_entropy_grad_f32
table.cross_entropy_grad_f64 = <void *>cross_entropy_grad_f64
table.cross_entropy_with_grad_f32 = <void *>cross_entropy_with_grad_f32
table.cross_entropy_with_grad_f64 = <void *>cross_entropy_with_grad_f64
table.softmax_vjp_f32 = <void *>softmax_vjp_f32
table.softmax_vjp_f64 = <void *>softmax_vjp_f64

TABLE = PyCapsule_New(&table, "cysoftmax._row_functions.TABLE", NULL)


def address_in(capsule):
    """Return the address that a capsule holds."""
    return <uintptr_t>PyCapsule_GetPointer(capsule, PyCapsule_GetName(capsule))
