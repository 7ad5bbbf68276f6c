# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# Numbers of any dtype and stride, to and from reals that lie side by side (float32 or float64: the
# dtype of computation), some or all classes of a row at a time. Also the labels. Touches the
# caller's arrays; knows no formula and no option but the mask and ignore_index.

from libc.math cimport INFINITY, ldexp
from libc.stdint cimport int16_t, int32_t, int64_t, int8_t, uint16_t, uint32_t, uint64_t, uint8_t
from libc.string cimport memcpy

from cysoftmax._job cimport Array, Job, class_at, evenly_spaced, expect, row_at
from cysoftmax._wide cimport Wide, narrow, times, wide

cdef enum:
    MOST_LABELS = 256               # that read_labels reads at a time

ctypedef fused integer:
    int8_t
    int16_t
    int32_t
    int64_t
    uint8_t
    uint16_t
    uint32_t
    uint64_t


# ---------------------------------------------------------------- reals side by side

cdef inline double real_at(const Job *job, const char *reals, ptrdiff_t c,
                           ptrdiff_t n) noexcept nogil:
    """Return number c of n reals."""
    expect(0 <= c < n)
    if job.itemsize == 4:
        return (<const float *>reals)[c]
    return (<const double *>reals)[c]


cdef inline void put_real(const Job *job, char *reals, ptrdiff_t c, ptrdiff_t n,
                          double value) noexcept nogil:
    """Store number c of n reals."""
    expect(0 <= c < n)
    if job.itemsize == 4:
        (<float *>reals)[c] = <float>value
    else:
        (<double *>reals)[c] = value


cdef inline void raise_reals(const Job *job, char *reals, ptrdiff_t n, ptrdiff_t stride,
                             int exponent) noexcept nogil:
    """Multiply n reals, `stride` reals apart, by a power of two. Those too large become infinite,
    those too small denormals or 0, each rounded once."""
    cdef ptrdiff_t c
    for c in range(n):
        put_real(job, reals, c * stride, n * stride,
                 ldexp(real_at(job, reals, c * stride, n * stride), exponent))


cdef inline bint all_finite(const double *values, int n) noexcept nogil:
    """Return whether n numbers are finite. (Adding 1 to the exponent of one that is not carries
    into its sign bit: a loop of integers, which becomes vectors.)"""
    cdef uint64_t bits, carries = 0
    cdef int r
    for r in range(n):
        memcpy(&bits, &values[r], sizeof(bits))
        carries |= (bits & (<uint64_t>-1 >> 1)) + (<uint64_t>1 << 52)
    return carries >> 63 == 0


# ---------------------------------------------------------------- from any array to reals

cdef inline void copy_items(const char *source, ptrdiff_t step, ptrdiff_t n, char *into,
                            ptrdiff_t into_step, ptrdiff_t item) noexcept nogil:
    """Copy n strided items of 1, 2, 4 or 8 bytes as they are."""
    cdef ptrdiff_t c
    for c in range(n):
        if item == 4:
            (<uint32_t *>(into + c * into_step))[0] = (<const uint32_t *>source)[0]
        elif item == 8:
            (<uint64_t *>(into + c * into_step))[0] = (<const uint64_t *>source)[0]
        elif item == 2:
            (<uint16_t *>(into + c * into_step))[0] = (<const uint16_t *>source)[0]
        else:
            into[c * into_step] = source[0]
        source += step


cdef inline double load_halves(const Job *job, const Array *array, const char *place,
                               ptrdiff_t step, ptrdiff_t n, char *into) noexcept nogil:
    """Widen n numbers of 16 bits to float32; return the largest that is not NaN.

    Strided ones are first gathered in the upper half of `into`: widening goes upwards, and
    reaches each of them only after it was read.
    """
    if step != 2:
        copy_items(place, step, n, into + 2 * n, 2, 2)
        place = into + 2 * n
    return job.float_kernels.widen(<const uint16_t *>place, n, array.kind == c'b', into)


cdef inline void load_reals(const Job *job, const Array *array, const char *place, ptrdiff_t step,
                            ptrdiff_t n, char *into) noexcept nogil:
    """Copy n numbers of any dtype, `step` bytes apart from `place` on, to reals side by side."""
    cdef ptrdiff_t size = job.itemsize
    if array.item == 2 and (array.kind == c'e' or array.kind == c'b'):
        if size == 4:
            load_halves(job, array, place, step, n, into)
        else:               # as float32 in the upper half, which is read as it is overwritten
            load_halves(job, array, place, step, n, into + 4 * n)
            job.kernels.convert(into + 4 * n, 4, c'f', 4, n, into)
    else:
        job.kernels.convert(place, step, array.kind, array.item, n, into)


cdef inline double number_at(const Job *job, const Array *array, const char *place) noexcept nogil:
    """Return one number of any dtype: a float64 as it is, whatever the reals are."""
    cdef double real
    if array.kind == c'd':
        return (<const double *>place)[0]
    load_reals(job, array, place, array.item, 1, <char *>&real)
    return real_at(job, <char *>&real, 0, 1)


cdef inline Wide wide_real(const Job *job, double number) noexcept nogil:
    """Return a number with the digits of a real, whatever its exponent is."""
    cdef Wide real = wide(number, 0)
    if job.itemsize == 4:
        real.part = <float>real.part
    return real


cdef inline Wide wide_mass(const Job *job, double target, ptrdiff_t c) noexcept nogil:
    """Return T times the weight of class c."""
    cdef Wide mass = wide_real(job, target)
    if job.loss.class_weight == NULL:
        return mass
    return times(mass, wide(real_at(job, job.loss.class_weight, c, job.n_classes), 0))


cdef inline double narrow_real(const Job *job, Wide number, int more) noexcept nogil:
    """Return a number times 2^more, rounded to a real."""
    cdef double value = narrow(number, more)
    return <float>value if job.itemsize == 4 else value


cdef inline void load_masses(const Job *job, ptrdiff_t i, ptrdiff_t begin, ptrdiff_t n, int lift,
                             char *into, ptrdiff_t stride) noexcept nogil:
    """Store class_weight T 2^lift for n classes of a distribution, as reals `stride` apart."""
    cdef char *place = class_at(job, &job.target, i, begin)
    cdef double target
    cdef ptrdiff_t c
    for c in range(n):
        target = number_at(job, &job.target, place + c * job.target.step)
        put_real(job, into, c * stride, n * stride,
                 narrow_real(job, wide_mass(job, target, begin + c), lift))


cdef inline const char *as_reals(const Job *job, const Array *array, ptrdiff_t i,
                                 ptrdiff_t begin, ptrdiff_t n, char *spare) noexcept nogil:
    """Return n classes of row i, from class `begin` on, as reals side by side: where they are if
    they lie so, or else copied to `spare`."""
    cdef const char *place = class_at(job, array, i, begin)
    if array.contiguous and array.item == job.itemsize:
        return place
    load_reals(job, array, place, array.step, n, spare)
    return spare


cdef inline const char *load_logits(const Job *job, ptrdiff_t i, ptrdiff_t begin, ptrdiff_t n,
                                    const unsigned char *mask, char *spare,
                                    double *largest) noexcept nogil:
    """Return logits as as_reals does, and -inf where the mask is 0; `largest`, unless it is NULL,
    becomes the largest of them that is not NaN."""
    cdef const char *x
    cdef double widened
    if job.x.item == 2 and mask == NULL:
        widened = load_halves(job, &job.x, class_at(job, &job.x, i, begin), job.x.step, n,
                              spare)
        if largest != NULL:
            largest[0] = widened
        return spare
    x = as_reals(job, &job.x, i, begin, n, spare)
    if mask != NULL:
        job.kernels.select(mask, x, n, -INFINITY, spare)
        x = spare
    if largest != NULL:
        largest[0] = job.kernels.max(x, n)
    return x


cdef inline double logit_at(const Job *job, ptrdiff_t i, ptrdiff_t c) noexcept nogil:
    """Return one logit as load_logits has it."""
    cdef double real
    if job.where.data != NULL and class_at(job, &job.where, i, c)[0] == 0:
        return -INFINITY
    load_reals(job, &job.x, class_at(job, &job.x, i, c), job.x.item, 1, <char *>&real)
    return real_at(job, <char *>&real, 0, 1)


cdef inline const unsigned char *load_mask(const Job *job, ptrdiff_t i, ptrdiff_t begin,
                                           ptrdiff_t n, char *spare) noexcept nogil:
    """Return n bytes of the mask of row i side by side, where they are or copied to `spare`."""
    cdef const char *place = class_at(job, &job.where, i, begin)
    if job.where.step != 1:
        copy_items(place, job.where.step, n, spare, 1, 1)
        place = spare
    return <const unsigned char *>place


cdef inline ptrdiff_t count(const unsigned char *mask, ptrdiff_t n) noexcept nogil:
    """Return how many of n bytes are not 0."""
    cdef ptrdiff_t c, total = 0
    for c in range(n):
        total += mask[c] != 0
    return total


cdef inline void read_per_row(const Job *job, const Array *array, ptrdiff_t at, ptrdiff_t first,
                              int n, double *values) noexcept nogil:
    """Read the float64 that lies `at` bytes into each of n rows of an array."""
    cdef const char *place = row_at(job, array, first) + at
    cdef ptrdiff_t step = array.outer[job.ndim - 1]
    cdef int r
    if evenly_spaced(job, first, n) and step == sizeof(double):
        memcpy(values, place, n * sizeof(double))
    elif evenly_spaced(job, first, n):
        for r in range(n):
            values[r] = (<const double *>(place + r * step))[0]
    else:
        for r in range(n):
            values[r] = (<const double *>(row_at(job, array, first + r) + at))[0]


# ---------------------------------------------------------------- from reals to any array

cdef inline void store_strided(const Job *job, const Array *array, char *place, ptrdiff_t step,
                               ptrdiff_t n, char *reals) noexcept nogil:
    """Store n reals, which may be overwritten, `step` bytes apart from `place` on: rounded to 16
    bits if the array has such numbers."""
    if array.item == 2 and step == 2:
        job.kernels.narrow(reals, n, array.kind == c'b', <uint16_t *>place)
    else:
        if array.item == 2:
            job.kernels.narrow(reals, n, array.kind == c'b', <uint16_t *>reals)
        copy_items(reals, array.item, n, place, step, array.item)


cdef inline void put_number(const Job *job, const Array *array, char *place,
                            double value) noexcept nogil:
    """Store one number."""
    cdef float single = <float>value
    if array.kind == c'd':
        (<double *>place)[0] = value
    elif array.kind == c'f':
        (<float *>place)[0] = single
    else:
        job.kernels.narrow(&single, 1, array.kind == c'b', <uint16_t *>place)


cdef inline void fill_classes(const Job *job, const Array *array, ptrdiff_t i, ptrdiff_t begin,
                              ptrdiff_t n, double value) noexcept nogil:
    """Store one number for n classes of row i, if there is such an array."""
    cdef ptrdiff_t c
    cdef char *place
    if array.data == NULL:
        return
    place = class_at(job, array, i, begin)
    if array.contiguous:
        job.kernels.fill(value, n, place, job.plan.streamed)
        return
    for c in range(n):
        put_number(job, array, place + c * array.step, value)


# ---------------------------------------------------------------- labels

cdef inline bint labels_as(integer kind, const Job *job, ptrdiff_t first, int n, ptrdiff_t *y,
                           char *ignored) noexcept nogil:
    """Do what read_labels does for labels of the type of `kind`. Each is read once, so that another
    thread that changes it cannot make a checked label into another one."""
    cdef const char *place = row_at(job, &job.target, first)
    cdef ptrdiff_t step = job.target.outer[job.ndim - 1]
    cdef bint spaced = evenly_spaced(job, first, n)
    cdef int r
    if sizeof(integer) == sizeof(y[0]) and spaced and step == <ptrdiff_t>sizeof(y[0]):
        memcpy(y, place, n * step)  # of a size that no compiler knows: a call, which reads once
    else:
        for r in range(n):
            if not spaced:
                place = row_at(job, &job.target, first + r)
            y[r] = <ptrdiff_t>(<const volatile integer *>place)[0]
            place += step
    expect(n <= MOST_LABELS)
    if job.labels_of_block:
        return place_labels(job, y, n, <integer>(-1) < 0, ignored)
    return job.doubles.check_labels(
        y, n, job.n_classes, job.loss.ignores, <ptrdiff_t>job.loss.ignore, ignored)


cdef inline bint place_labels(const Job *job, ptrdiff_t *y, int n, bint signed,
                              char *ignored) noexcept nogil:
    """Make labels of all classes those of a block of them: -1 if it does not have that class.
    Return whether any is negative."""
    cdef uint64_t first = job.first_class, n_classes = job.n_classes, label
    cdef bint bad = False
    cdef int r
    for r in range(n):
        label = <uint64_t>y[r]
        ignored[r] = job.loss.ignores & (label == job.loss.ignore)
        bad |= signed & (y[r] < 0) & (ignored[r] == 0)
        y[r] = <ptrdiff_t>(label - first) if label - first < n_classes else -1
    return bad


cdef inline bint read_labels(const Job *job, ptrdiff_t first, int n, ptrdiff_t *y,
                             char *ignored) noexcept nogil:
    """Read the labels of n <= MOST_LABELS rows into y, and which of them are `ignored`; return
    whether any is out of range. That one, and those ignored, become class 0."""
    cdef bint signed = job.target.kind == c'i'
    if job.target.item == 8:
        if signed:
            return labels_as(<int64_t>0, job, first, n, y, ignored)
        return labels_as(<uint64_t>0, job, first, n, y, ignored)
    if job.target.item == 4:
        if signed:
            return labels_as(<int32_t>0, job, first, n, y, ignored)
        return labels_as(<uint32_t>0, job, first, n, y, ignored)
    if job.target.item == 2:
        if signed:
            return labels_as(<int16_t>0, job, first, n, y, ignored)
        return labels_as(<uint16_t>0, job, first, n, y, ignored)
    if signed:
        return labels_as(<int8_t>0, job, first, n, y, ignored)
    return labels_as(<uint8_t>0, job, first, n, y, ignored)
