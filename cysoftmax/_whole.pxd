# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# What is done in a planned call, besides its loops: labels are checked, rows weighed before their
# gradients, losses and weights added up. Decides what a mean is divided by: the one decision that
# needs numbers of an array, and so is not in _plan.pxd. Touches the sums of all rows, and the
# weights of a plain row.

from cython.parallel cimport prange
from libc.math cimport NAN, fabs, isfinite, ldexp

from cysoftmax._block cimport factor_for
from cysoftmax._extremes cimport has_moderate_options, outside, wide_factor
from cysoftmax._job cimport Job, RowWeights, Sums
from cysoftmax._kernels cimport TILE, fp_enter, fp_leave, fp_mode
from cysoftmax._loops cimport walk, weigh_block
from cysoftmax._numbers cimport MOST_LABELS, read_labels
from cysoftmax._scratch cimport open_scratch, scratch_of
from cysoftmax._sums cimport count_sixteens, sum_rows, total_of_sixteens
from cysoftmax._what cimport LOSS
from cysoftmax._wide cimport Wide

cdef struct Outcome:
    Wide loss, weight               # the sums over all rows
    bint bad_label                  # a label was out of range; nothing else is meant then


# ---------------------------------------------------------------- sums over all rows

cdef inline Wide total_loss(const Job *job) noexcept nogil:
    """Add up the losses of all rows, in the one order."""
    cdef const Sums *sums = &job.sums
    if sums.losses != NULL:
        sum_rows(job, sums.losses, job.n_rows, sums.sixteens, sums.exponents)
    return total_of_sixteens(sums.sixteens, sums.exponents, count_sixteens(job.n_rows))


cdef inline Wide weight_of_all(const Job *job) noexcept nogil:
    """Add up the weights of all rows, likewise."""
    cdef double *sixteens = job.sums.sixteens + 2
    cdef int *exponents = job.sums.exponents + 1
    if job.sums.losses != NULL:
        sum_rows(job, job.sums.weights, job.n_rows, sixteens, exponents)
    return total_of_sixteens(sixteens, exponents, count_sixteens(job.n_rows))


cdef inline void keep_weights(const Job *job) noexcept nogil:
    """Store what each row weighs as the numbers of total_of_rows."""
    cdef double *numbers = job.sums.kept
    cdef Wide weight = Wide(1, 0)
    cdef ptrdiff_t i
    for i in range(job.n_rows):
        if job.plan.weighted:
            weight = job.sums.weights[i]
        numbers[i] = weight.part
        numbers[job.n_rows + i] = weight.exponent


cdef inline bint has_bad_labels(const Job *job) noexcept nogil:
    """Return whether a label is out of range that is not ignored."""
    cdef ptrdiff_t n_blocks = (job.n_rows + MOST_LABELS - 1) // MOST_LABELS, i
    cdef int n_threads = job.plan.n_threads, bad = 0
    if n_threads == 1:
        for i in range(n_blocks):
            bad |= has_bad_label(job, i)
    else:
        for i in prange(n_blocks, num_threads=n_threads, schedule="static"):
            bad |= has_bad_label(job, i)
    return bad != 0


cdef inline bint has_bad_label(const Job *job, ptrdiff_t block) noexcept nogil:
    """Return whether a block of labels has one."""
    cdef ptrdiff_t[MOST_LABELS] y
    cdef char[MOST_LABELS] ignored
    cdef ptrdiff_t first = block * MOST_LABELS
    return read_labels(job, first, <int>min(<ptrdiff_t>MOST_LABELS, job.n_rows - first), y,
                       ignored)


# ---------------------------------------------------------------- what a mean is divided by

cdef inline void fill_plain_weights(Job *job) noexcept nogil:
    """Fill in what a row weighs that no option treats differently."""
    cdef RowWeights *w = &job.plain_weights
    cdef double least = job.range.least_scale, most = job.range.most_scale
    cdef Wide factor
    w.sample = w.target_sum = w.label_mass = w.target_mass = w.weight = 1
    w.uniform_mass = w.uniform_total = w.surplus = 0
    if job.loss.smoothing != 0 and not job.plan.reads_rows:
        w.uniform_mass = job.loss.smoothing / job.n_classes
        w.uniform_total = w.uniform_mass * job.loss.class_sum
    w.rest_from = 0.5
    w.exponent = job.loss.class_exponent
    w.factor = factor_for(job, job.loss.grad_scale)
    w.factor_exponent = 0
    if job.plan.plain_rows:         # the factor is b, too
        least, most = job.range.least_factor, job.range.most_factor
    if job.loss.divisor.exponent != 0 or outside(w.factor, least, most):
        factor = wide_factor(job, job.loss.grad_scale)
        if factor.part != 0 and isfinite(factor.part):
            w.factor = ldexp(factor.part, job.range.middle)
            w.factor_exponent = factor.exponent - job.range.middle
    job.loss.moderate_options = has_moderate_options(job)


cdef enum:
    # A wrong expectation costs the whole call once more, the pass that is saved a fifth of it. So
    # a thousand rows are looked at, or one in 32: their mean is as near to 1 as the mean of all has
    # to be, unless the rounding errors of their masses favour one side.
    LOOKED_AT = 1024
    LOOK_AT_EACH = 32

cdef extern from *:
    """
    #define CYSOFTMAX_SUM_TOLERANCE_32 0x1p-29
    #define CYSOFTMAX_SUM_TOLERANCE_64 0x1p-55
    """
    const double SUM_TOLERANCE_32 "CYSOFTMAX_SUM_TOLERANCE_32"      # 1/32 ulp of a float32
    const double SUM_TOLERANCE_64 "CYSOFTMAX_SUM_TOLERANCE_64"      # lost in the sum of all

cdef inline Wide divisor_of(Wide weight, ptrdiff_t n_rows, ptrdiff_t itemsize) noexcept nogil:
    """Return what the gradient of a mean is divided by, if plain distributions have that weight
    together: the number of rows, if each sums to 1 but for the rounding of its masses."""
    cdef double most = n_rows * SUM_TOLERANCE_32 if itemsize == 4 else 0
    if weight.exponent == 0 and fabs(weight.part - n_rows) <= most:
        return Wide(n_rows, 0)
    return weight


cdef inline void set_divisor(Job *job, Wide divisor) noexcept nogil:
    job.loss.divisor = divisor
    fill_plain_weights(job)


cdef inline bint may_sum_to_1(const Job *job, char *memory) noexcept nogil:
    """Return whether the weight of plain distributions may be expected to be the number of rows,
    as that of some of them is: then no pass of its own is spent on it. Not if the output takes the
    place of logits or target, which would be missing if that was wrong."""
    cdef double tolerance = SUM_TOLERANCE_32 if job.itemsize == 4 else SUM_TOLERANCE_64
    cdef ptrdiff_t rows = job.plan.block_rows, i = 0, seen = 0
    cdef ptrdiff_t each = max(<ptrdiff_t>1, min(<ptrdiff_t>LOOK_AT_EACH, job.n_rows // LOOKED_AT))
    cdef double more = 0            # than 1, that the rows looked at weigh
    cdef fp_mode mode
    if not job.plan.plain_masses or job.plan.sums_each_row or job.n_rows < 4 * LOOKED_AT:
        return False
    if job.out.data == job.x.data or job.out.data == job.target.data:
        return False
    mode = fp_enter()
    open_scratch(job, scratch_of(job, memory, 0))
    while (i + 1) * rows <= job.n_rows:
        weigh_block(job, scratch_of(job, memory, 0), i)
        more += surplus_of_sixteens(job, i * rows // TILE, rows // TILE)
        seen += rows
        if i == 0 and not fabs(more) <= rows * 2.**-20:
            break                   # as most targets show that do not sum to 1
        i += each
    fp_leave(mode)
    return fabs(more) <= seen * tolerance


cdef inline double surplus_of_sixteens(const Job *job, ptrdiff_t g, ptrdiff_t n) noexcept nogil:
    """Return how much more than 1 each the rows of n sixteens weigh together; NaN if that is not
    what their sums say."""
    cdef const double *sums = job.sums.sixteens + 4 * g + 2
    cdef const int *exponents = job.sums.exponents + 2 * g + 1
    cdef double more = 0
    cdef ptrdiff_t k
    for k in range(n):
        if exponents[2 * k] != 0:
            return NAN
        more += (sums[4 * k] - TILE) + sums[4 * k + 1]
    return more


cdef inline bint weigh_all(Job *job, char *memory, Outcome *outcome) noexcept nogil:
    """Find what all rows weigh; return whether there is something to compute: their weight is not
    0, and no label is out of range."""
    if job.plan.weighted:
        outcome.bad_label = walk(job, memory, True)
        if outcome.bad_label:
            return False
        outcome.weight = weight_of_all(job)
    if job.sums.kept != NULL:
        keep_weights(job)
    if outcome.weight.part == 0 and job.plan.labels_weigh_1:     # the labels were not read
        job.plan.labels_weigh_1 = False
        outcome.bad_label = walk(job, memory, True)
    return outcome.weight.part != 0


# ---------------------------------------------------------------- a whole call

cdef inline void do_call(Job *job, char *memory, bint sums, bint mean,
                         Outcome *outcome) noexcept nogil:
    """Do a planned call. The gradient of a mean needs the sum of the weights beforehand; nothing is
    written if that is 0, or if a label is out of range. If nothing is wanted (`what` is 0), that
    sum is all that is found."""
    cdef bint weighs_first = mean and (job.out.data != NULL or job.what == 0), guesses
    outcome.weight = Wide(job.n_rows, 0)
    job.sums.adds_weights = mean and job.plan.weighted
    if job.checks_labels and not (
            weighs_first and job.plan.weighted and not job.plan.labels_weigh_1):
        outcome.bad_label = has_bad_labels(job)
        if outcome.bad_label:
            return
    guesses = weighs_first and job.out.data != NULL and may_sum_to_1(job, memory)
    if guesses:
        set_divisor(job, outcome.weight)
    elif weighs_first:
        if not weigh_all(job, memory, outcome):
            return
        if job.plan.plain_masses:
            set_divisor(job, divisor_of(outcome.weight, job.n_rows, job.itemsize))
        else:
            set_divisor(job, outcome.weight)
        job.sums.adds_weights = False
    if job.what == 0:
        return
    outcome.bad_label = walk(job, memory, False)
    if sums and job.sums.adds_weights:
        outcome.weight = weight_of_all(job)
    if sums and job.what & LOSS:
        outcome.loss = total_loss(job)
    if guesses and outcome.weight.part != 0 and (
            divisor_of(outcome.weight, job.n_rows, job.itemsize).part != job.n_rows):
        set_divisor(job, outcome.weight)
        job.sums.adds_weights = False
        outcome.bad_label |= walk(job, memory, False)
