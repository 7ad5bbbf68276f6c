# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# What a row is: from the sums over its classes to its loss (29) and to the factor of its exps (30);
# _block.pxd has both, and the names. Touches the few doubles of a block of rows; never sees a
# pointer to classes.

from libc.math cimport INFINITY, NAN, isfinite, isinf
from libc.string cimport memcpy

from cysoftmax._block cimport MOST_ROWS, Block, all_mass, log_sum_exp, weights_of
from cysoftmax._extremes cimport (
    has_moderate_factors, narrow_factors, set_raised, take_wide_losses, wide_surplus)
from cysoftmax._given cimport take_totals
from cysoftmax._job cimport Job
from cysoftmax._kernels cimport MassesOfRows
from cysoftmax._numbers cimport all_finite
from cysoftmax._what cimport GRAD, LOGSUMEXP, LOG_SOFTMAX, LOSS, SOFTMAX, STATS

cdef extern from *:
    """
    #define CYSOFTMAX_LEAST 0x1p-1074
    """
    const double LEAST "CYSOFTMAX_LEAST"    # the smallest double above 0


# ---------------------------------------------------------------- logarithms and losses

cdef inline void take_logs(const Job *job, Block *b, int begin, int end) noexcept nogil:
    """Compute log(total) of rows begin ... end - 1, if anything needs it."""
    if job.what & (LOG_SOFTMAX | LOGSUMEXP | LOSS | STATS) or job.loss.z_loss != 0:
        job.doubles.log_total(b.coarse + begin, b.fine + begin, end - begin, b.log_total + begin)


cdef inline double loss_of(const Job *job, const Block *b, int r) noexcept nogil:
    """Return the loss (29) of row r. None of its terms is negative."""
    cdef int i = weights_of(b, r)
    cdef double hi = b.target_dot_hi[r], lo = b.target_dot_lo[r], loss, lse
    if job.loss.smoothing != 0:
        hi = job.loss.confidence * hi if job.loss.confidence != 0 else 0    # 0 times -inf is 0
        lo = job.loss.confidence * lo
        hi += b.w.uniform_mass[i] * b.uniform_dot_hi[r] if b.w.uniform_mass[i] != 0 else 0
        lo += b.w.uniform_mass[i] * b.uniform_dot_lo[r] if b.w.uniform_mass[i] != 0 else 0
    if job.loss.inv_temperature != NULL:
        hi /= job.loss.temperature
        lo = lo / job.loss.temperature if isfinite(hi) else 0
    loss = b.w.sample[i] * ((all_mass(job, b, i) * b.log_total[r] - hi) - lo)
    if job.loss.z_loss != 0 and b.w.weight[i] != 0:
        lse = log_sum_exp(job, b, r)
        loss += b.w.weight[i] * job.loss.z_loss * (lse * lse)
    return loss


cdef inline void take_losses(const Job *job, Block *b) noexcept nogil:
    """Compute the losses of all rows, 0 for those that are ignored: loss_of in loops that become
    vectors, and for what those do not find finite once more by itself."""
    cdef int r
    if b.alike and job.loss.inv_temperature == NULL:
        for r in range(b.n_rows):
            b.loss[r] = (b.log_total[r] - b.target_dot_hi[r]) - b.target_dot_lo[r]
        return
    if b.alike:
        for r in range(b.n_rows):
            b.loss[r] = loss_of(job, b, r)
        return
    losses_of(job, b)
    if not all_finite(b.loss, b.n_rows):
        for r in range(b.n_rows):
            if not isfinite(b.loss[r]):
                b.loss[r] = 0 if b.ignored[r] else loss_of(job, b, r)
    take_wide_losses(job, b)
    if b.any_ignored:
        job.doubles.clear(b.ignored, b.n_rows, b.loss)


cdef inline MassesOfRows masses_from(const Job *job, const Block *b, int begin) noexcept nogil:
    """Return what the rows of a block weigh, from row `begin` on."""
    cdef MassesOfRows masses
    masses.sample = &b.w.sample[begin]
    masses.target = &b.w.target_mass[begin]
    masses.uniform = &b.w.uniform_total[begin]
    masses.confidence = job.loss.confidence
    return masses


cdef inline void losses_of(const Job *job, Block *b) noexcept nogil:
    """Compute (29) for all rows of a block, whatever they weigh."""
    cdef double[MOST_ROWS] hi, lo, lse
    cdef double confidence = job.loss.confidence, temperature = job.loss.temperature
    cdef double z_loss = job.loss.z_loss
    cdef MassesOfRows masses
    cdef int n = b.n_rows, r
    memcpy(hi, b.target_dot_hi, n * sizeof(double))
    memcpy(lo, b.target_dot_lo, n * sizeof(double))
    if job.loss.smoothing != 0:
        for r in range(n):
            hi[r] = confidence * hi[r] + b.w.uniform_mass[r] * b.uniform_dot_hi[r]
            lo[r] = confidence * lo[r] + b.w.uniform_mass[r] * b.uniform_dot_lo[r]
    if job.loss.inv_temperature != NULL:
        for r in range(n):
            hi[r] /= temperature
            lo[r] /= temperature
    masses = masses_from(job, b, 0)
    job.doubles.losses(&masses, b.log_total, hi, lo, n, b.loss)
    if z_loss != 0:
        for r in range(n):
            lse[r] = b.shift[r]
        if job.loss.inv_temperature != NULL:
            for r in range(n):
                lse[r] /= temperature
        for r in range(n):
            lse[r] += b.log_total[r]
            b.loss[r] += b.w.weight[r] * z_loss * (lse[r] * lse[r])


cdef inline double logsumexp_of(const Job *job, const Block *b, int r) noexcept nogil:
    """Return the logsumexp of row r. If the shift is infinite, that is the shift, or NaN if a logit
    is NaN."""
    if b.skipped[r]:
        return -INFINITY
    if isinf(b.shift[r]):
        return NAN if b.has_nan[r] else b.shift[r]
    return log_sum_exp(job, b, r)


# ---------------------------------------------------------------- factors of the exps

# A class with half of the target's mass or more, and with half of b, has a p near 1 when the row
# is confident: there b p - s A cancels. Its gradient is computed by (31),
#
#   b p - s A = (b - s A) - b rest / total,     rest = total - exp(d),
#
# which minus_rest prepares: it puts -rest in place of the exp, so that the factor b / total makes
# -b rest / total of it. What is left to be subtracted is the residual mass, mass - b / (s
# confidence), and for all classes alike the uniform part of A. In the plain case, the gradient
# p - y of a label, b = s A = 1: then p - 1 = -rest / total (21), and nothing is left. For the
# other classes (31) would cancel, and (30) does not.

cdef inline void take_factors(const Job *job, Block *b, int begin, int end) noexcept nogil:
    """Compute factor = b / total (30) of rows begin ... end - 1, as factor_hi + factor_lo; of rows
    with weights of their own also `surplus` and `rest_from`."""
    cdef double numerator[MOST_ROWS]
    cdef int r
    if job.what & SOFTMAX:
        for r in range(begin, end):
            numerator[r] = 1
    elif job.what & GRAD:
        if b.alike:
            numerator[begin] = numerator_of(job, b)
            for r in range(begin + 1, end):
                numerator[r] = numerator[begin]
            for r in range(begin, end if b.wide else begin):
                set_raised(b, r, b.powers.factor_exponent[0])
        else:
            numerators_of(job, b, begin, end, numerator)
            if not has_moderate_factors(job, b, begin, end, numerator):
                narrow_factors(job, b, begin, end, numerator)
        if not b.alike and job.loss.confidence != 0:
            if job.plan.has_surplus:
                for r in range(begin, end):
                    b.w.surplus[r] = surplus_of(job, b, r)
                if not all_finite(b.w.surplus + begin, end - begin):
                    for r in range(begin, end):
                        if not isfinite(b.w.surplus[r]):
                            b.w.surplus[r] = wide_surplus(job, b, r)
            rest_thresholds(job, b, begin, end)
    else:
        return
    job.doubles.divide(numerator + begin, b.coarse + begin, b.fine + begin, end - begin,
                       b.factor_hi + begin, b.factor_lo + begin)


cdef inline double numerator_of(const Job *job, const Block *b) noexcept nogil:
    """Return b (30) times the factor of the gradient of a row whose weights are those of all."""
    return b.w.sample[0] * all_mass(job, b, 0) * b.w.factor[0]


cdef inline void numerators_of(const Job *job, const Block *b, int begin, int end,
                               double *numerator) noexcept nogil:
    """Do that for rows that differ in their weights, in loops that become vectors."""
    cdef MassesOfRows masses = masses_from(job, b, begin)
    cdef int r
    if job.loss.z_loss == 0:
        job.doubles.numerators(&masses, b.w.factor + begin, end - begin, numerator + begin)
        return
    job.doubles.numerators(&masses, NULL, end - begin, numerator + begin)
    for r in range(begin, end):
        numerator[r] += 2 * b.w.weight[r] * job.loss.z_loss * log_sum_exp(job, b, r)
    for r in range(begin, end):
        numerator[r] *= b.w.factor[r]


cdef inline double surplus_of(const Job *job, const Block *b, int r) noexcept nogil:
    """Return b / (s confidence) - target_mass: what label smoothing and z-loss add."""
    cdef double surplus = b.w.uniform_total[r]
    if job.loss.z_loss != 0:
        surplus += 2 * job.loss.z_loss * b.w.target_mass[r] * log_sum_exp(job, b, r)
    return surplus / job.loss.confidence


cdef inline double rest_threshold(const Block *b, int i) noexcept nogil:
    """Return the smallest mass of a class for which (31) is used."""
    cdef double half = (b.w.target_mass[i] + b.w.surplus[i]) / 2
    return max(max(half, b.w.target_mass[i] / 2), LEAST) if half >= 0 else INFINITY


cdef inline void rest_thresholds(const Job *job, Block *b, int begin, int end) noexcept nogil:
    """Compute rest_threshold for rows begin ... end - 1."""
    cdef int r
    if job.doubles.rest_thresholds(
            b.w.target_mass + begin, b.w.surplus + begin, end - begin, b.w.rest_from + begin):
        for r in range(begin, end):
            b.w.rest_from[r] = rest_threshold(b, r)


cdef inline double residual_mass(const Block *b, int i, double mass) noexcept nogil:
    """Return what of a class' mass is left to be subtracted after minus_rest."""
    if mass >= b.w.rest_from[i]:
        return (mass - b.w.target_mass[i]) - b.w.surplus[i]
    return mass


# ---------------------------------------------------------------- once sums are known

cdef inline void finish_part(const Job *job, Block *b, int begin, int end) noexcept nogil:
    """Compute what the outputs of some rows need of their sums: factors, and logarithms if the
    outputs depend on them."""
    take_totals(job, b, begin, end)
    if job.plan.log_first:
        take_logs(job, b, begin, end)
    take_factors(job, b, begin, end)


cdef inline void finish_block(const Job *job, Block *b) noexcept nogil:
    """Compute what is left once all sums of a block are known: logarithms, and losses or
    logsumexps."""
    cdef int r
    if not job.plan.log_first:
        take_logs(job, b, 0, b.n_rows)
    if job.what & LOSS:
        take_losses(job, b)
    elif job.what & LOGSUMEXP:
        for r in range(b.n_rows):
            b.loss[r] = logsumexp_of(job, b, r)
