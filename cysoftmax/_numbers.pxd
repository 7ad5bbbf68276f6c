# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# How numbers are read from arrays of any dtype and strides, and written to them; labels, too.
# Knows no formula.

from libc.math cimport INFINITY
from libc.stdint cimport int16_t, int32_t, int64_t, int8_t, uint16_t, uint32_t, uint64_t, uint8_t
from libc.string cimport memcpy

from cysoftmax._job cimport BAD_LABEL, IGNORED_LABEL, Job, Rows, expect, in_line, row_at

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


cdef inline const unsigned char *where_row(const Job *job, ptrdiff_t i,
                                           char *spare) noexcept nogil:
    cdef const char *place = row_at(job, &job.where, i)
    if job.where.step != 1:
        copy_items(place, job.where.step, job.n_classes, spare, 1, 1)
        place = spare
    return <const unsigned char *>place


cdef inline ptrdiff_t count(const unsigned char *where, ptrdiff_t n) noexcept nogil:
    cdef ptrdiff_t c, total = 0
    for c in range(n):
        total += where[c] != 0
    return total


cdef inline const char *load_row(const Job *job, const Rows *rows, ptrdiff_t i, char *spare,
                                 const unsigned char *where=NULL) noexcept nogil:
    """Row i as reals side by side: where it is, or copied to `spare`; with -inf where it does
    not take part."""
    cdef const char *place = row_at(job, rows, i)
    cdef ptrdiff_t c
    if not rows.direct:
        if rows.item == 2:
            load_halves(job, rows, place, spare)
        else:
            copy_items(place, rows.step, job.n_classes, spare, rows.item, rows.item)
        place = spare
    if job.load_scale != 1:
        for c in range(job.n_classes):
            put_real(job, spare, c, real_at(job, place, c) * job.load_scale)
        place = spare
    if where != NULL:
        job.kernels.select(where, place, job.n_classes, -INFINITY, spare)
        place = spare
    return place


cdef inline const char *load_logits(const Job *job, ptrdiff_t i, char *spare,
                                    const unsigned char *where, double *largest) noexcept nogil:
    """`load_row` of the logits, and the largest that takes part and is not NaN."""
    cdef const char *place
    if job.x.item == 2 and job.x.step == 2 and job.load_scale == 1 and where == NULL:
        largest[0] = load_halves(job, &job.x, row_at(job, &job.x, i), spare)
        return spare
    place = load_row(job, &job.x, i, spare, where)
    largest[0] = job.kernels.max(place, job.n_classes)
    return place


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
