# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
"""The mathematics of a row, and the loops over rows.

Arrays come in checked: native byte order, aligned, the class axis last, outputs that do
not overlap an input unless they are that input. What is left to find here is a bad label.

A row is worked on whole (`do_rows`), or sixteen rows side by side (`do_tiles`), or by blocks
of its classes (`long_rows`). Which one is a matter of speed: each gives a row the same bits.
Losses are summed by sixteens, in any of these ways.

The formula of a row with all its options, and the names of its parts, are at `Group`.
"""

cimport cython
cimport numpy as cnp
from cython.parallel cimport parallel, prange
from libc.math cimport NAN, frexp, ldexp
from libc.stdint cimport PTRDIFF_MAX, uint64_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from cysoftmax._formula cimport Group, factor_for, weights_of
from cysoftmax._job cimport (
    BAD_LABEL, CYSOFTMAX_DEBUG, DISTRIBUTION, Job, LABELS, Rows, SPARSE, Weights, leaves_more)
from cysoftmax._kernels cimport Isa, TILE, cache_size, fp_enter, fp_leave, fp_mode, isas
from cysoftmax._numbers cimport number, read_labels
from cysoftmax._plan cimport (
    LABELS_AT_ONCE, MOST_ROWS, PAGE, STREAM_ROW_BYTES, lay_out_scratch, long_and_few)
from cysoftmax._rows cimport do_rows, do_vjp, sum_of_exp
from cysoftmax._spans cimport (
    LONG_SHARE, long_close, long_exp, long_finish, long_max, long_open, long_out)
from cysoftmax._sums cimport chunks, mass_of, total_of_groups, total_of_rows
from cysoftmax._target cimport open_group
from cysoftmax._threads cimport thread_count, thread_num
from cysoftmax._tiles cimport do_tiles
from cysoftmax._what cimport GRAD, LOSS, MASS, SOFTMAX, STATS, VJP
from cysoftmax._write cimport begin_thread, end_thread, keep_numbers

import os

import numpy as np

cnp.import_array()

CYTHON = cython.__version__
DEBUG = bool(CYSOFTMAX_DEBUG)   # built with Cython's checks on, and with `expect`


# ---------------------------------------------------------------- instruction sets


cdef const Isa *active = NULL


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


# Outputs larger than this are stored past the caches: they would not stay there anyway.
# Half of the last level; hypervisors have been seen to report ten times what there is.
cdef ptrdiff_t STREAM_BYTES = min(max(cache_size(), <ptrdiff_t>1 << 22), <ptrdiff_t>1 << 25) // 2


# ---------------------------------------------------------------- loops over rows


cdef void do_group(Job *job, char *scratch, ptrdiff_t first) noexcept nogil:
    """One unit of the loop: job.group_rows rows from `first` on."""
    cdef int n_rows = <int>min(<ptrdiff_t>job.group_rows, job.n_rows - first), r
    if job.what & VJP:
        for r in range(n_rows):
            do_vjp(job, scratch, first + r)
        return
    cdef Group g
    cdef Weights[MOST_ROWS] weights
    open_group(job, &g, first, n_rows, weights)
    if job.tiles > 0:
        do_tiles(job, scratch, &g)
    else:
        do_rows(job, scratch, &g)
    keep_group(job, &g)


cdef inline void keep_group(const Job *job, const Group *g) noexcept nogil:
    """Store what the rows of a group amount to wherever it is wanted: sums, of sixteen rows."""
    cdef double[TILE] weight
    cdef double *sums
    cdef int r, t, i
    if job.losses != NULL or job.result.data != NULL:
        for r in range(g.n_rows):
            keep_numbers(job, g.first + r, g.loss[r], weights_of(g, r).weight)
    if job.partial == NULL:
        return
    for t in range((g.n_rows + TILE - 1) // TILE):
        r = t * TILE
        sums = job.partial + (g.first + r) // TILE * 4
        job.doubles.add_up(g.loss + r, sums, sums + 1)
        if job.weighted:
            for i in range(TILE):
                weight[i] = weights_of(g, r + i).weight if r + i < g.n_rows else 0
            job.doubles.add_up(weight, sums + 2, sums + 3)


cdef int run(Job *job, int n_threads) except -1:
    """All rows, in groups that the threads share out among themselves."""
    cdef ptrdiff_t n_tiles = (job.n_rows + TILE - 1) // TILE, n_groups, share, g
    cdef char[4 * PAGE] small       # malloc takes longer than a few short rows do
    cdef ptrdiff_t n_bytes
    cdef char *scratch
    cdef char *memory = small
    cdef fp_mode mode = 0

    if job.n_classes > PTRDIFF_MAX // (8 * TILE * n_threads * job.itemsize):
        raise MemoryError(f"scratch for rows of {job.n_classes} classes cannot be had")
    lay_out_scratch(job)
    job.group_rows = TILE
    if job.tiles > 0:
        job.tiles = <int>max(<ptrdiff_t>1, min(<ptrdiff_t>job.tiles, n_tiles // n_threads))
        job.group_rows = job.tiles * TILE
    elif 1 < n_threads and job.n_rows < 64 * n_threads:
        job.group_rows = 1      # the losses of all rows are then kept
    n_groups = (job.n_rows + job.group_rows - 1) // job.group_rows
    n_threads = <int>max(<ptrdiff_t>1, min(<ptrdiff_t>n_threads, n_groups))
    share = (n_groups + n_threads - 1) // n_threads     # of a thread, one after the other
    job.share_rows = share * job.group_rows
    n_bytes = n_threads * job.scratch_bytes + PAGE
    if n_bytes > <ptrdiff_t>sizeof(small):
        memory = <char *>malloc(n_bytes)
        if memory == NULL:
            raise MemoryError(f"{n_bytes} bytes of scratch cannot be had")
    scratch = memory + (PAGE - <uintptr_t>memory % PAGE)

    if n_threads == 1:
        with nogil:
            mode = fp_enter()
            begin_thread(scratch)
            for g in range(n_groups):
                do_group(job, scratch, g * job.group_rows)
            end_thread(job, scratch)
            fp_leave(mode)
    else:
        with nogil, parallel(num_threads=n_threads):
            mode = fp_enter()
            begin_thread(scratch + thread_num() * job.scratch_bytes)
            for g in prange(n_groups, schedule="static", chunksize=share):
                do_group(job, scratch + thread_num() * job.scratch_bytes, g * job.group_rows)
            end_thread(job, scratch + thread_num() * job.scratch_bytes)
            fp_leave(mode)
    if memory != small:
        free(memory)
    return 0


# ---------------------------------------------------------------- few long rows


cdef int long_rows(Job *job, int n_threads) except -1:
    """Fewer rows than threads: each pass is shared out by blocks of classes. Contiguous
    classes and labels only; the exps wait in the output for their sum."""
    cdef ptrdiff_t shares = (job.n_classes + LONG_SHARE - 1) // LONG_SHARE, n = job.n_rows
    cdef ptrdiff_t n_units = shares * n, n_groups = (n + TILE - 1) // TILE, u, g
    cdef double *largest = <double *>malloc(
        sizeof(double) * (n_units + 2 * n * chunks(job.n_classes)))
    cdef Group *groups = <Group *>malloc(
        n_groups * (sizeof(Group) + TILE * sizeof(Weights)))
    cdef Weights *weights = <Weights *>(groups + n_groups)
    cdef double *sums = largest + n_units
    cdef fp_mode mode = 0
    if largest == NULL or groups == NULL:
        free(largest)
        free(groups)
        raise MemoryError("the sums of the blocks of long rows cannot be had")
    with nogil:
        with parallel(num_threads=n_threads):
            mode = fp_enter()
            for u in prange(n_units, schedule="static"):
                long_max(job, u, shares, largest)
            fp_leave(mode)
        for g in range(n_groups):
            open_group(job, &groups[g], g * TILE, <int>min(<ptrdiff_t>TILE, n - g * TILE),
                       weights + g * TILE)
            long_open(job, &groups[g], largest, shares)
        with parallel(num_threads=n_threads):
            mode = fp_enter()
            for u in prange(n_units, schedule="static"):
                long_exp(job, u, shares, groups, sums)
            fp_leave(mode)
        mode = fp_enter()
        for g in range(n_groups):
            long_finish(job, &groups[g], sums)
        fp_leave(mode)
        if job.out.data != NULL:
            with parallel(num_threads=n_threads):
                mode = fp_enter()
                for u in prange(n_units, schedule="static"):
                    long_out(job, u, shares, groups)
                fp_leave(mode)
        if job.what & GRAD and leaves_more(job):
            mode = fp_enter()
            for g in range(n_groups):
                long_close(job, &groups[g])
            fp_leave(mode)
    free(largest)
    free(groups)
    return 0


# ---------------------------------------------------------------- from Python


cdef int describe(Job *job, Rows *rows, cnp.ndarray array, bint per_class) except -1:
    """Take down an array's strides; without an axis of classes if not `per_class`."""
    cdef int ndim = cnp.PyArray_NDIM(array) - per_class, d
    cdef char kind = (<cnp.dtype>cnp.PyArray_DESCR(array)).kind
    rows.data = cnp.PyArray_BYTES(array)
    rows.item = cnp.PyArray_ITEMSIZE(array)
    rows.step = cnp.PyArray_STRIDE(array, ndim) if per_class else 0
    rows.outer = job.outer[job.n_arrays]
    job.n_arrays += 1
    for d in range(ndim):
        rows.outer[d] = cnp.PyArray_STRIDE(array, d)
    if kind == c"f":
        rows.kind = c"d" if rows.item == 8 else c"f" if rows.item == 4 else c"e"
    elif kind == c"V":              # the only dtype of that kind which is let in
        rows.kind = c"b"
    else:
        rows.kind = c"i" if kind == c"i" else c"u"
    rows.direct = per_class and rows.kind in (c"d", c"f") and rows.step == rows.item
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


cdef int set_target(Job *job, target, int row_ndim) except -1:
    """Take down labels (an array without the axis of classes), a distribution for each row, or
    the arrays (data, indices, indptr) of a sparse one."""
    cdef cnp.ndarray array
    if target is None:
        return 0
    if isinstance(target, tuple):
        data, classes, indptr = target
        job.target_is = SPARSE
        job.entries = cnp.PyArray_BYTES(data)
        job.n_entries = cnp.PyArray_SIZE(data)
        job.entry_classes = cnp.PyArray_BYTES(classes)
        job.indptr = cnp.PyArray_BYTES(indptr)
        job.index_item = cnp.PyArray_ITEMSIZE(indptr)
        return 0
    array = target
    job.target_is = LABELS if cnp.PyArray_NDIM(array) == row_ndim else DISTRIBUTION
    describe(job, &job.target, array, job.target_is == DISTRIBUTION)
    return 0


cdef int set_options(Job *job, options) except -1:
    """Take down what the named tuple Options of _checks.pyx has, which lives until the end."""
    cdef double one = 1, zero = 0, largest = ldexp(1, 127 if job.itemsize == 4 else 1023)
    cdef int exponent
    job.keep = job.temperature = job.load_scale = 1
    job.class_sum = job.n_classes
    if options is None:
        return 0
    class_weight, sample_weight, ignore_index, smoothing, z_loss, temperature, where = options
    if class_weight is not None:
        job.class_weight = cnp.PyArray_BYTES(class_weight)
        job.class_sum = mass_of(job, job.class_weight)
    if sample_weight is not None:
        describe(job, &job.sample, sample_weight, False)
    if ignore_index is not None:
        job.ignores = True
        job.ignore = <uint64_t>(ignore_index % 2**64)
    job.weighted = job.class_weight != NULL or job.sample.data != NULL or job.ignores
    job.smoothing = smoothing
    job.keep = 1 - job.smoothing
    job.z_loss = z_loss
    if where is not None:
        describe(job, &job.where, where, True)
    job.temperature = temperature
    if job.temperature != 1:
        if job.temperature > ldexp(1, 64):  # then differences of logits could overflow
            job.temperature = 2 * frexp(job.temperature, &exponent)
            job.load_scale = ldexp(1, 1 - exponent)
        job.doubles.divide(&one, &job.temperature, &zero, 1, &job.inv_temperatures[0], &job.inv_temperatures[1])
        if not job.inv_temperatures[0] < largest:      # differences of denormals are then still too small
            job.inv_temperatures[:] = [largest, 0]
        job.inv_temperature = job.inv_temperatures
    return 0


cdef int set_up(Job *job, int what, cnp.ndarray x, object out, object target, object options=None,
                object result=None, object variance=None, object scale=None,
                object stats=None) except -1:
    cdef int ndim = cnp.PyArray_NDIM(x) - 1
    memset(job, 0, <char *>&job.ones - <char *>job)
    job.what = what
    describe(job, &job.x, x, True)
    job.itemsize = 8 if job.x.item == 8 else 4
    job.kernels = active.f64 if job.itemsize == 8 else active.f32
    job.doubles = active.doubles
    job.unit = job.divisor = 1
    job.n_classes = cnp.PyArray_DIM(x, ndim)
    job.n_rows = cnp.PyArray_SIZE(x) // job.n_classes
    set_target(job, target, ndim)
    set_options(job, options)
    if out is not None:
        describe(job, &job.out, out, True)
        job.large = job.n_rows * job.n_classes * job.itemsize >= STREAM_BYTES
        job.stream = (job.out.direct and job.n_classes * job.itemsize >= STREAM_ROW_BYTES
                      and job.large)
    if variance is not None:
        describe(job, &job.variance, variance, True)
    if result is not None:
        if cnp.PyArray_NDIM(result) != ndim:
            raise RuntimeError("result must have one number for each row")
        describe(job, &job.result, result, False)
    if isinstance(scale, cnp.ndarray):
        describe(job, &job.scale, scale, False)
    elif scale is not None:
        job.unit = scale
    if stats is not None:
        describe(job, &job.stats, stats, True)
    job.prepared = (job.where.data != NULL or job.smoothing != 0
                    or job.target_is in (DISTRIBUTION, SPARSE))
    job.weighted |= job.prepared
    join_axes(job, ndim, cnp.PyArray_DIMS(x))
    return 0


cdef void fill_ones(Job *job) noexcept:
    """What a row weighs if nothing is said about it."""
    cdef Weights *w = &job.ones
    w.sample = w.given = w.share = w.mass = w.weight = 1
    w.smooth = w.smooth_sum = w.extra = 0
    w.half = 0.5
    w.factor = factor_for(job, job.unit)


cdef int do_all(Job *job, int threads) except -1:
    """All rows, in the way that suits them."""
    fill_ones(job)
    if long_and_few(job, threads):
        return long_rows(job, threads)
    return run(job, threads)


cdef inline int threads_for(const Job *job, n_threads) except -1:
    return thread_count(n_threads, job.n_rows * job.n_classes)


cdef int rowwise(int what, cnp.ndarray x, out, result, options, n_threads) except -1:
    """Compute softmax or log_softmax into `out`, or logsumexp into `result`."""
    cdef Job job
    cdef fp_mode mode = fp_enter()      # also for what is done about the options
    try:
        set_up(&job, what, x, out, None, options, result)
        do_all(&job, threads_for(&job, n_threads))
    finally:
        fp_leave(mode)
    return 0


cdef int vjp(cnp.ndarray p, cnp.ndarray v, cnp.ndarray out, n_threads) except -1:
    """Compute p * (v - sum(p * v)) into `out`."""
    cdef Job job
    cdef fp_mode mode = fp_enter()
    try:
        set_up(&job, VJP, p, out, v)
        do_all(&job, threads_for(&job, n_threads))
    finally:
        fp_leave(mode)
    return 0


cdef bint row_stats(cnp.ndarray x, target, cnp.ndarray stats, options, n_threads) except -1:
    """Compute the six numbers of write_stats into stats[..., :]; return whether the labels were
    good."""
    cdef Job job
    cdef fp_mode mode = fp_enter()
    try:
        set_up(&job, STATS | (LOSS if target is not None else 0), x, None, target, options, None,
               None, None, stats)
        do_all(&job, threads_for(&job, n_threads))
    finally:
        fp_leave(mode)
    return not job.bad


cdef bint check_labels(cnp.ndarray x, cnp.ndarray target, options, n_threads) except -1:
    """Return whether all labels lie in [0, n_classes) or are ignored."""
    cdef Job job
    cdef fp_mode mode = fp_enter()
    try:
        set_up(&job, 0, x, None, target, options)
    finally:
        fp_leave(mode)
    cdef ptrdiff_t n_blocks = (job.n_rows + LABELS_AT_ONCE - 1) // LABELS_AT_ONCE, b
    cdef int threads = thread_count(n_threads, job.n_rows)
    if threads == 1:
        with nogil:
            for b in range(n_blocks):
                check_block(&job, b)
    else:
        for b in prange(n_blocks, nogil=True, num_threads=threads, schedule="static"):
            check_block(&job, b)
    return not job.bad


cdef void check_block(Job *job, ptrdiff_t block) noexcept nogil:
    cdef ptrdiff_t[LABELS_AT_ONCE] y
    cdef ptrdiff_t first = block * LABELS_AT_ONCE
    cdef int n = <int>min(<ptrdiff_t>LABELS_AT_ONCE, job.n_rows - first), r, bad = 0
    read_labels(job, first, n, y)
    for r in range(n):
        bad |= y[r] == BAD_LABEL
    if bad:
        job.bad = 1


cdef int add_rows(Job *job, n_threads, double *loss, double *weight) except -1:
    """Do all rows; add up their losses and their weights, in the one order."""
    cdef int threads = threads_for(job, n_threads)
    cdef ptrdiff_t n = job.n_rows, n_sixteens = (n + TILE - 1) // TILE
    cdef bint by_row = long_and_few(job, threads) or n < 64 * threads
    cdef double *numbers = <double *>malloc(sizeof(double) * (2 * n if by_row else 4 * n_sixteens))
    if numbers == NULL:
        raise MemoryError("one number for each row cannot be had")
    if by_row:
        job.losses = numbers
        job.weights = numbers + n
    else:
        job.partial = numbers
    try:
        do_all(job, threads)
        weight[0] = n
        if by_row:
            loss[0] = total_of_rows(job, job.losses, n)
            if job.weighted:
                weight[0] = total_of_rows(job, job.weights, n)
        else:
            loss[0] = total_of_groups(numbers, n_sixteens)
            if job.weighted:
                weight[0] = total_of_groups(numbers + 2, n_sixteens)
    finally:
        free(numbers)
    return 0


cdef cross_entropy(int what, cnp.ndarray x, target, out, result, variance, scale, bint mean,
                   options, n_threads):
    """Compute the gradient times `scale` into `out`, the diagonal of the Hessian into
    `variance`, each row's loss into `result`, where these are not None: what is wanted of LOSS,
    GRAD and VARIANCE.

    Returns the sum of the losses, or their `mean` (to which the gradient then belongs), or
    None if a label was out of range.
    """
    cdef Job job, weighing
    cdef double loss = 0, weight = 0
    cdef fp_mode mode = fp_enter()      # also for what is left to do after the loop
    try:
        set_up(&job, what, x, out, target, options, result, variance, scale)
        if mean and out is not None:        # needs the sum of the weights beforehand
            weight = job.n_rows
            if job.weighted:
                weighing = job
                weighing.what = MASS
                weighing.out.data = weighing.result.data = NULL
                add_rows(&weighing, n_threads, &loss, &weight)
                if weighing.bad:
                    return None
            if weight == 0:
                out[...] = 0
                return NAN
            job.divisor = weight
        add_rows(&job, n_threads, &loss, &weight)
        if job.bad:
            return None
        if mean:
            return loss / weight if weight != 0 else NAN
        return loss
    finally:
        fp_leave(mode)


cdef class DefaultMode:
    """A context in which floating-point arithmetic has its default mode; after it, mode and
    flags are as they were before."""

    cdef fp_mode found

    def __enter__(self):
        self.found = fp_enter()

    def __exit__(self, *error):
        fp_leave(self.found)


def exp_of(cnp.ndarray x, double maximum=0.0):
    """Return exp(x - maximum) for contiguous x <= maximum as the kernels compute it before
    anything else is done with it, in float64; for the tests of its error."""
    cdef Job job
    set_up(&job, SOFTMAX, x.reshape(1, -1), None, None)
    cdef cnp.ndarray exps = np.empty_like(x)
    sum_of_exp(&job, cnp.PyArray_BYTES(x), maximum, NULL, cnp.PyArray_BYTES(exps))
    return exps.astype(np.float64) / job.kernels.unit
