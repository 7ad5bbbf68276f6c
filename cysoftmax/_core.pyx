# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
"""The door of the core: arrays and options become a Job, which is planned and then done.

Arrays come in checked: in native byte order, aligned, with the class axis last; no output overlaps
an input unless it is that input. Only a label that is out of range is still to be found.

docs/design.md says how the files beside this one fit together.
"""

cimport cython
cimport numpy as cnp
from libc.math cimport NAN
from libc.stdint cimport uint64_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from cysoftmax._job cimport (
    CYSOFTMAX_DEBUG, DISTRIBUTION, LABELS, SPARSE, VECTOR, Array, Job, Loss, Range)
from cysoftmax._kernels cimport CHUNK, TILE, Doubles, cache_size, fp_enter, fp_leave, fp_mode, isas
from cysoftmax._loops cimport span_blocks_bytes
from cysoftmax._one_hot cimport OTHER, OneHot, find_labels, label_item, may_be_one_hot, take_labels
from cysoftmax._plan cimport make_plan
from cysoftmax._scratch cimport PAGE
from cysoftmax._sums cimport (
    Pair, Total, add, chunk_size, chunks, count_sixteens, sum_chunks, sum_sixteens, total_of,
    total_of_sixteens)
from cysoftmax._threads cimport thread_count
from cysoftmax._what cimport LOSS, STATS, VJP
from cysoftmax._whole cimport Outcome, divisor_of, do_call, fill_plain_weights
from cysoftmax._wide cimport Wide, narrow

import os

import numpy as np

cnp.import_array()

CYTHON = cython.__version__
DEBUG = bool(CYSOFTMAX_DEBUG)   # built with Cython's checks on, and with `expect`


# ---------------------------------------------------------------- instruction sets


active = NULL


def available_isas():
    """Return the names of the instruction sets that this machine can run, best first."""
    names = []
    cdef int i = 0
    while isas[i].name != NULL:
        if isas[i].available():
            names.append(isas[i].name.decode())
        i += 1
    return names


def use_isa(name):
    """Use the instruction set of that name from now on; the best one if it is empty."""
    global active
    names = available_isas()
    if name and name not in names:
        raise ValueError(
            f"CYSOFTMAX_ISA must be one of {', '.join(names)} on this machine; got {name!r}")
    cdef int i = 0
    while isas[i].name.decode() != (name or names[0]):
        i += 1
    active = &isas[i]


def active_isa():
    """Return the name of the instruction set in use."""
    return active.name.decode()


use_isa(os.environ.get("CYSOFTMAX_ISA", ""))


# Outputs larger than this are stored past the caches: they would not stay there anyway. A quarter
# of the last level, which has to hold the inputs, too, and on most machines is shared with other
# processes (Xeon of 48 MB, two cores: outputs of 10 to 13 MB take 0.7 to 0.9 of the time when they
# are streamed). Hypervisors have been seen to report ten times what there is.
cdef ptrdiff_t STREAM_BYTES = min(max(cache_size(), <ptrdiff_t>1 << 23), <ptrdiff_t>1 << 25) // 4


# ---------------------------------------------------------------- a whole call

cdef struct Call:
    Job job
    Outcome outcome
    fp_mode mode                    # of the caller
    char *labels                    # of a one-hot target, or NULL
    char[PAGE] few_labels           # the memory of those of a small call,
    char[16 * PAGE] small           # and of all else

# malloc takes longer than a few short rows do: one Call is kept for the next. Whoever takes it
# holds the GIL; a call that begins while another one computes has its own. It does not lie on the
# stack, because that of a thread may be as small as 64 KiB.
cdef Call *spare = NULL


cdef Call *begin_call() except NULL:
    """Return room for a call, and set the mode of floating-point arithmetic, in which options are
    looked at, too."""
    global spare
    cdef Call *call = spare
    spare = NULL
    if call == NULL:
        call = <Call *>malloc(sizeof(Call))
    if call == NULL:
        raise MemoryError(f"cannot allocate {sizeof(Call)} bytes for a call")
    call.labels = NULL
    call.mode = fp_enter()
    return call


cdef void end_call(Call *call) noexcept:
    """Restore the mode, and keep the room for the next call."""
    global spare
    fp_leave(call.mode)
    if call.labels != call.few_labels:
        free(call.labels)
    if spare == NULL:
        spare = call
    else:
        free(call)


cdef void look_for_labels(Call *call, int n_threads) noexcept:
    """Let labels take the place of a one-hot target. (Without memory for them it stays.)"""
    cdef Job *job = &call.job
    cdef ptrdiff_t n_bytes = job.n_rows * label_item(job)
    cdef OneHot found
    if not may_be_one_hot(job):
        return
    call.labels = call.few_labels
    if n_bytes > <ptrdiff_t>sizeof(call.few_labels):
        call.labels = <char *>malloc(n_bytes)
    if call.labels != NULL:
        with nogil:
            found = find_labels(job, n_threads, call.labels)
        if found != OTHER:
            take_labels(job, found, call.labels)


cdef int compute(Call *call, n_threads, bint sums, bint mean) except -1:
    """Plan a call, give it memory, and do it. With `sums`, losses are added up, and for their
    `mean` weights, too."""
    cdef Job *job = &call.job
    cdef char *memory = call.small
    cdef ptrdiff_t n_bytes, sums_bytes = 0, n_sixteens = count_sixteens(job.n_rows)
    cdef int most_threads = thread_count(n_threads, job.n_rows * job.n_classes)
    call.outcome = Outcome(Wide(0, 0), Wide(0, 0), False)
    look_for_labels(call, most_threads)
    make_plan(job, most_threads, STREAM_BYTES)
    job.plan.sums_each_row |= job.sums.kept != NULL
    fill_plain_weights(job)
    n_bytes = job.plan.n_threads * job.plan.scratch_bytes + PAGE
    n_bytes += span_blocks_bytes(job)
    if sums:
        sums_bytes = n_sixteens * (4 * sizeof(double) + 2 * sizeof(int))
        if job.plan.sums_each_row:
            sums_bytes += 2 * job.n_rows * sizeof(Wide)
    n_bytes += sums_bytes
    if n_bytes > <ptrdiff_t>sizeof(call.small):
        memory = <char *>malloc(n_bytes)
        if memory == NULL:
            raise MemoryError(
                f"cannot allocate {n_bytes} bytes for scratch and the numbers of each row")
    if sums:
        job.sums.sixteens = <double *>(memory + n_bytes - sums_bytes)
        job.sums.exponents = <int *>(job.sums.sixteens + 4 * n_sixteens)
        memset(job.sums.exponents, 0, 2 * n_sixteens * sizeof(int))
    if sums and job.plan.sums_each_row:
        job.sums.losses = <Wide *>(job.sums.exponents + 2 * n_sixteens)
        job.sums.weights = job.sums.losses + job.n_rows
    with nogil:
        do_call(job, memory + (PAGE - <uintptr_t>memory % PAGE), sums, mean, &call.outcome)
    if memory != call.small:
        free(memory)
    return 0


# ---------------------------------------------------------------- from Python


cdef int read_dtype(Array *array, cnp.ndarray source) except -1:
    """Note where an array lies and of what its numbers are."""
    cdef char kind = (<cnp.dtype>cnp.PyArray_DESCR(source)).kind
    array.data = cnp.PyArray_BYTES(source)
    array.item = array.step = cnp.PyArray_ITEMSIZE(source)
    if kind == c"f":
        array.kind = c"d" if array.item == 8 else c"f" if array.item == 4 else c"e"
    elif kind == c"V":              # the only dtype of that kind which is let in
        array.kind = c"b"
    elif kind == c"b":
        array.kind = c"?"
    else:
        array.kind = c"i" if kind == c"i" else c"u"
    return 0


cdef int read_strides(Job *job, Array *array, cnp.ndarray source, bint per_class) except -1:
    """Note an array with its strides; without an axis of classes if not `per_class`."""
    cdef int ndim = cnp.PyArray_NDIM(source) - per_class, d
    read_dtype(array, source)
    array.step = cnp.PyArray_STRIDE(source, ndim) if per_class else 0
    array.contiguous = per_class and array.kind in (c"d", c"f") and array.step == array.item
    array.outer = job.outer[job.n_arrays]
    job.n_arrays += 1
    for d in range(ndim):
        array.outer[d] = cnp.PyArray_STRIDE(source, d)
    return 0


cdef void join_axes(Job *job, int ndim, cnp.npy_intp *shape) noexcept:
    """Join neighbouring axes of rows that every array strides through as one."""
    cdef int d, a, k = -1
    cdef bint joined
    for d in range(ndim):
        if shape[d] == 1:
            continue
        joined = k >= 0
        for a in range(job.n_arrays):
            joined = joined and job.outer[a][k] == job.outer[a][d] * shape[d]
        if not joined:
            k += 1
            job.shape[k] = 1
        job.shape[k] *= shape[d]
        for a in range(job.n_arrays):
            job.outer[a][k] = job.outer[a][d]
    if k < 0:                       # a single row
        k = 0
        job.shape[0] = 1
        for a in range(job.n_arrays):
            job.outer[a][0] = 0
    job.ndim = k + 1


cdef int fill_target(Job *job, target, int row_ndim) except -1:
    """Note what the target is: labels (an array without the axis of classes), a distribution for
    each row, or the arrays (data, indices, indptr) of a sparse one."""
    cdef cnp.ndarray array
    if target is None:
        return 0
    if isinstance(target, tuple):
        data, classes, indptr = target
        job.target_is = SPARSE
        job.sparse.classes = cnp.PyArray_BYTES(classes)
        job.sparse.indptr = cnp.PyArray_BYTES(indptr)
        job.sparse.index_item = cnp.PyArray_ITEMSIZE(indptr)
        job.sparse.n_entries = cnp.PyArray_SIZE(data)
        read_dtype(&job.sparse.entries, data)
        return 0
    array = target
    if job.what & VJP:
        job.target_is = VECTOR
    else:
        job.target_is = LABELS if cnp.PyArray_NDIM(array) == row_ndim else DISTRIBUTION
    read_strides(job, &job.target, array, job.target_is != LABELS)
    return 0


cdef int fill_loss(Job *job, options) except -1:
    """Note the options: Options of _checks.pyx, which live until the end, or None."""
    cdef Loss *loss = &job.loss
    cdef Pair sums
    cdef Total total = Total(0, 0, 0)
    cdef double one = 1, zero = 0
    cdef ptrdiff_t k
    loss.confidence = loss.temperature = 1
    loss.grad_scale = 1
    loss.divisor = Wide(1, 0)
    loss.moderate_weights = True
    loss.class_sum = job.n_classes
    if options is None:
        return 0
    if options.class_weight is not None:
        loss.class_weight = cnp.PyArray_BYTES(options.class_weight)
        loss.class_exponent = options.class_exponent
        for k in range(chunks(job.n_classes)):
            sum_chunks(job, loss.class_weight + k * CHUNK * job.itemsize,
                       chunk_size(job.n_classes, k), &sums)
            add(&total, sums)
        loss.class_sum = total_of(&total)
    loss.moderate_weights = options.moderate
    if options.sample_weight is not None:
        read_strides(job, &job.sample, options.sample_weight, False)
        loss.sample_may_be_0 = options.sample_may_be_0
    if options.ignore_index is not None:
        loss.ignores = True
        loss.ignore = <uint64_t>(options.ignore_index % 2**64)
    loss.smoothing = options.label_smoothing
    loss.confidence = 1 - loss.smoothing
    loss.z_loss = options.z_loss
    if options.where is not None:
        read_strides(job, &job.where, options.where, True)
    loss.temperature = options.temperature
    if loss.temperature != 1:
        job.doubles.divide(&one, &loss.temperature, &zero, 1, &loss.inv_temperatures[0],
                           &loss.inv_temperatures[1])
        loss.inv_temperature = loss.inv_temperatures
    return 0


# Magnitudes that need no exponents of their own. In a float32, 2^-80 / 2^40 still has all of its
# digits, and 2^80 times 2^40 does not overflow; in a float64 there is more room, which class
# weights may need.
cdef Range FLOAT_RANGE, DOUBLE_RANGE
for_both = {
    "least_sample": 2.0**-25, "most_sample": 2.0**25, "least_mass": 2.0**-25,
    "most_mass": 2.0**40, "least_scale": 2.0**-500, "most_scale": 2.0**500,
    "least_z_loss": 2.0**-100, "most_z_loss": 2.0**100, "least_loss": 2.0**-800,
}
FLOAT_RANGE = dict(
    for_both, least_factor=2.0**-80, most_factor=2.0**80, least_term=2.0**-120,
    most_term=2.0**86, middle=40)
DOUBLE_RANGE = dict(
    for_both, least_factor=2.0**-800, most_factor=2.0**800, least_term=2.0**-1000,
    most_term=2.0**900, middle=400)
del for_both


cdef int fill_job(Job *job, int what, cnp.ndarray x, object out, object target,
                  object options=None, object result=None, object variance=None,
                  object scale=None, object stats=None, object given=None,
                  object first_class=None) except -1:
    """Note all that a call is about; None is an array or option that there is not."""
    cdef int ndim = cnp.PyArray_NDIM(x) - 1
    memset(job, 0, <char *>&job.plain_weights - <char *>job)
    job.what = what
    read_strides(job, &job.x, x, True)
    job.itemsize = 8 if job.x.item == 8 else 4
    job.kernels = active.f64 if job.itemsize == 8 else active.f32
    job.float_kernels = active.f32
    job.doubles = active.doubles
    job.range = DOUBLE_RANGE if job.itemsize == 8 else FLOAT_RANGE
    job.n_classes = cnp.PyArray_DIM(x, ndim)
    job.n_rows = cnp.PyArray_SIZE(x) // job.n_classes
    fill_target(job, target, ndim)
    fill_loss(job, options)
    if out is not None:
        read_strides(job, &job.out, out, True)
    if variance is not None:
        read_strides(job, &job.variance, variance, True)
    if result is not None:
        if cnp.PyArray_NDIM(result) != ndim:
            raise RuntimeError("result must have one number for each row")
        read_strides(job, &job.result, result, False)
    if isinstance(scale, cnp.ndarray):
        read_strides(job, &job.scale, scale, False)
    elif scale is not None:
        job.loss.grad_scale = scale
    if stats is not None:
        read_strides(job, &job.stats, stats, True)
    if given is not None:
        read_strides(job, &job.given, given, True)
        job.given_masses = given.shape[ndim] > 4
    if first_class is not None:
        job.labels_of_block = True
        job.first_class = first_class
    join_axes(job, ndim, cnp.PyArray_DIMS(x))
    return 0


# ---------------------------------------------------------------- what _calls.pyx calls

cdef int rowwise(int what, cnp.ndarray x, out, result, options, n_threads, totals=None,
                 given=None) except -1:
    """Compute softmax or log_softmax into `out`, logsumexp into `result`, or what store_totals
    stores into `totals`. For `given` see _given.pxd; its classes lie along the last axis."""
    cdef Call *call = begin_call()
    try:
        fill_job(&call.job, what, x, out, None, options, result, None, None, totals, given)
        compute(call, n_threads, False, False)
    finally:
        end_call(call)
    return 0


cdef int vjp(cnp.ndarray p, cnp.ndarray v, cnp.ndarray out, n_threads) except -1:
    """Compute p * (v - sum(p * v)) into `out`."""
    cdef Call *call = begin_call()
    try:
        fill_job(&call.job, VJP, p, out, v)
        compute(call, n_threads, False, False)
    finally:
        end_call(call)
    return 0


cdef bint row_stats(cnp.ndarray x, target, cnp.ndarray stats, options, n_threads) except -1:
    """Compute the six numbers of store_stats into stats[..., :]; return whether the labels were
    good."""
    cdef Call *call = begin_call()
    try:
        fill_job(&call.job, STATS | (LOSS if target is not None else 0), x, None, target, options,
                 None, None, None, stats)
        compute(call, n_threads, False, False)
        return not call.outcome.bad_label
    finally:
        end_call(call)


cdef int merge(cnp.ndarray a, cnp.ndarray b, double temperature, cnp.ndarray out) except -1:
    """Compute what is known of the rows of a and b together; each (4, n), contiguous float64."""
    cdef const Doubles *doubles = active.doubles
    cdef double[2] inverse
    cdef double one = 1, zero = 0
    cdef ptrdiff_t n = cnp.PyArray_SIZE(out) // 4
    cdef fp_mode mode = fp_enter()
    with nogil:
        doubles.divide(&one, &temperature, &zero, 1, &inverse[0], &inverse[1])
        doubles.merge(<double *>cnp.PyArray_DATA(a), <double *>cnp.PyArray_DATA(b), n, inverse,
                      <double *>cnp.PyArray_DATA(out))
    fp_leave(mode)
    return 0


cdef tuple total_weight(cnp.ndarray x, target, options, bint mean, n_threads, given=None,
                        first_class=None):
    """Return what the loss of some rows is divided by, as a float and an exponent of two: of a
    `mean` the sum of their weights, otherwise 1; or None if a label was out of range. Of x, only
    the shape and the dtype matter. For the rest see cross_entropy."""
    cdef Call *call = begin_call()
    try:
        fill_job(&call.job, 0, x, None, target, options, None, None, None, None, given,
                 first_class)
        call.job.checks_labels = call.job.target_is == LABELS
        compute(call, n_threads, mean, mean)
        if call.outcome.bad_label:
            return None
        if not mean:
            return 1.0, 0
        return call.outcome.weight.part, call.outcome.weight.exponent
    finally:
        end_call(call)


cdef cnp.ndarray weights_of_rows(cnp.ndarray x, target, options):
    """Return what each row weighs as the numbers of total_of_rows, (2, n_rows), or None if a label
    was out of range. Of x, only the shape and the dtype matter."""
    cdef cnp.ndarray numbers
    cdef Call *call = begin_call()
    try:
        fill_job(&call.job, 0, x, None, target, options)
        call.job.checks_labels = call.job.target_is == LABELS
        numbers = np.empty((2, call.job.n_rows))
        call.job.sums.kept = <double *>cnp.PyArray_DATA(numbers)
        compute(call, 1, True, True)
        if call.outcome.bad_label:
            return None
        return numbers
    finally:
        end_call(call)


cdef tuple total_of_rows(cnp.ndarray numbers):
    """Return the sum of one number of each of all rows, as a float and an exponent of two: in the
    order, and so with the bits, of a call that has all of these rows.

    `numbers`, contiguous float64 of shape (k, n_rows), holds the number of each row; and if k is 2,
    the exponent of the power of two that it is to be multiplied by.
    """
    cdef ptrdiff_t n = numbers.shape[1], n_sixteens = count_sixteens(n), g, i
    cdef cnp.ndarray all_sums = np.zeros((n_sixteens, 4))
    cdef cnp.ndarray all_exponents = np.zeros((n_sixteens, 2), np.intc)
    cdef const double *values = <const double *>cnp.PyArray_DATA(numbers)
    cdef double *sums = <double *>cnp.PyArray_DATA(all_sums)
    cdef int *exponents = <int *>cnp.PyArray_DATA(all_exponents)
    cdef double[TILE] some
    cdef int[TILE] powers
    cdef bint has_powers = numbers.shape[0] == 2
    cdef Call *call = begin_call()
    cdef Wide total
    cdef int r
    call.job.doubles = active.doubles
    for g in range(n_sixteens):
        for r in range(TILE):
            i = g * TILE + r
            some[r] = values[i] if i < n else 0
            powers[r] = <int>values[n + i] if i < n and has_powers else 0
        sum_sixteens(&call.job, some, powers, 1, sums + 4 * g, exponents + 2 * g)
    total = total_of_sixteens(sums, exponents, n_sixteens)
    end_call(call)
    return total.part, total.exponent


cdef tuple divisor_of_distributions(tuple weight, ptrdiff_t n_rows, ptrdiff_t itemsize):
    """Return what the gradient of the mean over plain distributions with that weight is divided by,
    as a float and an exponent."""
    cdef Wide divisor = divisor_of(Wide(weight[0], weight[1]), n_rows, itemsize)
    return divisor.part, divisor.exponent


cdef cross_entropy(int what, cnp.ndarray x, target, out, result, variance, scale, bint mean,
                   bint kept, options, n_threads, tuple divisor=None, given=None,
                   first_class=None):
    """Compute the gradient times `scale` into `out`, the diagonal of the Hessian into
    `variance`, each row's loss into `result`, where these are not None: what is wanted of LOSS,
    GRAD and VARIANCE.

    Returns the sum of the losses, or their `mean` (to which the gradient then belongs), or
    None if a label was out of range. Then nothing is written into arrays that are `kept`. If these
    rows are a part of those of a mean, `divisor` is the total_weight of all rows, by which the sum
    and its gradient are divided, and `mean` is False. For `given` see _given.pxd; the target is
    then a distribution, or with `first_class` the labels of rows that have more classes than x,
    which begins with that one. The loss of these needs the label of each row in x.
    """
    cdef Call *call = begin_call()
    cdef Wide whole = Wide(1, 0)
    try:
        fill_job(&call.job, what, x, out, target, options, result, variance, scale, None, given,
                 first_class)
        call.job.checks_labels = kept and call.job.target_is == LABELS
        if divisor is not None:
            whole.part, whole.exponent = divisor
            call.job.loss.divisor = whole
        compute(call, n_threads, what & LOSS or mean, mean)
        if call.outcome.bad_label:
            return None
        if not mean:
            call.outcome.weight = whole
        if call.outcome.weight.part != 0:
            return narrow(Wide(call.outcome.loss.part / call.outcome.weight.part,
                               call.outcome.loss.exponent - call.outcome.weight.exponent), 0)
        if out is not None:
            out[...] = 0
        return NAN
    finally:
        end_call(call)


cdef class DefaultMode:
    """A context in which floating-point arithmetic has its default mode; after it, mode and
    flags are as they were before."""

    cdef fp_mode found

    def __enter__(self):
        self.found = fp_enter()

    def __exit__(self, *error):
        fp_leave(self.found)
