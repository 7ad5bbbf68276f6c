# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# Weights, masses, losses and factors that a double or a real cannot hold, or whose products they
# cannot hold: they have a power of two beside them (section 15 of docs/derivation.md). Most of it
# is called only if the numbers of a block, or of a row, are not moderate. Touches what _block.pxd
# has.

from libc.math cimport fabs, isfinite, ldexp
from libc.string cimport memset

from cysoftmax._block cimport (
    MOST_ROWS, Block, all_mass, factor_for, target_factor, uniform_factor, weights_of, widen)
from cysoftmax._job cimport LABELS, Job, Range
from cysoftmax._wide cimport NO_EXPONENT, Wide, exponent_of, narrow, over, plus, times, wide

# ---------------------------------------------------------------- weights

cdef inline bint outside(double number, double least, double most) noexcept nogil:
    """Return whether a number other than 0 lies outside of a range of magnitudes; True for NaN."""
    return number != 0 and not least <= fabs(number) < most


cdef inline bint any_outside(const Job *job, const double *numbers, int n, double least,
                             double most) noexcept nogil:
    """Return whether any of n numbers is `outside`."""
    return job.doubles.outside(numbers, n, least, most)


cdef inline bint is_moderate(const Job *job, const Block *b, int i) noexcept nogil:
    """Return whether no product of a row's weights and masses can over- or underflow."""
    cdef const Range *limits = &job.range
    cdef double mass = fabs(b.w.target_mass[i]), uniform = fabs(b.w.uniform_total[i])
    if mass == 0 and job.target_is == LABELS:   # that is no underflow: the class weighs nothing
        mass = uniform if uniform != 0 else 1
    return (limits.least_mass <= mass < limits.most_mass and uniform < limits.most_mass
            and not outside(b.w.sample[i], limits.least_sample, limits.most_sample))


cdef inline void settle(const Job *job, Block *b, int i, Wide target_sum, Wide target_mass,
                        int top, double unmasked, double weight_sum) noexcept nogil:
    """Compute the weights of a row with extreme ones: the powers of two of its sample weight and
    of its largest mass, which is below 2^top, become exponents. `weight_sum` is the sum of the
    class weights of its `unmasked` classes."""
    cdef Wide sample = wide(b.w.sample[i], 0), weight = times(sample, target_mass)
    cdef Wide uniform = times(wide(job.loss.smoothing / unmasked, 0), target_sum)
    cdef Wide uniform_total = times(uniform, wide(weight_sum, 0))
    cdef int lift = 0
    if job.loss.confidence == 0:
        top = exponent_of(uniform_total)
        target_mass.part = 0        # nothing is made of it but the weight
    elif job.loss.smoothing != 0:
        top = max(top, exponent_of(uniform_total))
    if top > NO_EXPONENT and outside(ldexp(1, top), job.range.least_mass, job.range.most_mass):
        lift = -top
    widen(job, b)
    b.powers.lift[i] = lift
    b.w.target_sum[i] = narrow(target_sum, lift)
    b.w.target_mass[i] = b.w.label_mass[i] = narrow(target_mass, lift)
    b.w.uniform_mass[i] = narrow(uniform, lift)
    b.w.uniform_total[i] = narrow(uniform_total, lift)
    b.w.sample[i] = sample.part
    b.powers.exponent[i] += sample.exponent - lift
    b.w.weight[i] = sample.part * b.w.target_mass[i]    # as `weigh` may compute it again
    b.powers.weight_exponent[i] = b.powers.exponent[i]
    if b.w.weight[i] == 0 or outside(b.w.weight[i], job.range.least_scale, job.range.most_scale):
        b.w.weight[i] = weight.part
        b.powers.weight_exponent[i] = job.plain_weights.exponent + weight.exponent


cdef inline Wide wide_factor(const Job *job, double scale) noexcept nogil:
    """Do what factor_for does."""
    return over(over(wide(scale, 0), job.loss.divisor), wide(job.loss.temperature, 0))


cdef inline void take_scales(const Job *job, Block *b) noexcept nogil:
    """Compute the factors of a block's rows, which are their scales so far."""
    cdef double scale[MOST_ROWS]
    cdef double least = job.range.least_scale, most = job.range.most_scale
    cdef bint extreme = job.loss.divisor.exponent != 0
    cdef Wide factor
    cdef int r
    for r in range(b.n_rows):
        scale[r] = b.w.factor[r]
        b.w.factor[r] = factor_for(job, scale[r])
    if not (extreme or b.wide or any_outside(job, b.w.factor, b.n_rows, least, most)):
        return
    widen(job, b)
    for r in range(b.n_rows):
        b.powers.factor_exponent[r] = 0
        if extreme or outside(b.w.factor[r], least, most):
            factor = wide_factor(job, scale[r])
            b.w.factor[r] = factor.part
            b.powers.factor_exponent[r] = factor.exponent


cdef inline bint has_exponents(const Block *b, int i) noexcept nogil:
    """Return whether there are powers of two beside the weights of a row."""
    return b.wide and (
        b.powers.exponent[i] | b.powers.weight_exponent[i] | b.powers.factor_exponent[i]) != 0


cdef inline int exponent_at(const Block *b, int i) noexcept nogil:
    """Return the power of two that s times any mass of a row is to be multiplied with."""
    return b.powers.exponent[i] if b.wide else 0


cdef inline int lift_at(const Block *b, int i) noexcept nogil:
    """Return the power of two that the masses of a row have been multiplied with."""
    return b.powers.lift[i] if b.wide else 0


cdef inline Wide wide_sample(const Block *b, int i) noexcept nogil:
    """Return s of a row, times the power of two that its masses lack."""
    return wide(b.w.sample[i], exponent_at(b, i))


cdef inline Wide wide_weight(const Block *b, int i) noexcept nogil:
    """Return the weight of a row."""
    return wide(b.w.weight[i], b.powers.weight_exponent[i] if b.wide else 0)


# ---------------------------------------------------------------- losses

cdef inline Wide wide_log_sum_exp(const Job *job, const Block *b, int r) noexcept nogil:
    """Do what log_sum_exp does."""
    return plus(over(wide(b.shift[r], 0), wide(job.loss.temperature, 0)), wide(b.log_total[r], 0))


cdef inline Wide wide_loss(const Job *job, const Block *b, int r) noexcept nogil:
    """Do what loss_of does."""
    cdef int i = weights_of(b, r)
    cdef Wide loss = times(wide(all_mass(job, b, i), 0), wide(b.log_total[r], 0)), lse, penalty
    cdef double hi = b.target_dot_hi[r], lo = b.target_dot_lo[r]
    if job.loss.smoothing != 0:
        hi = job.loss.confidence * hi if job.loss.confidence != 0 else 0
        lo = job.loss.confidence * lo
        hi += b.w.uniform_mass[i] * b.uniform_dot_hi[r] if b.w.uniform_mass[i] != 0 else 0
        lo += b.w.uniform_mass[i] * b.uniform_dot_lo[r] if b.w.uniform_mass[i] != 0 else 0
    loss = plus(loss, over(wide(-hi, 0), wide(job.loss.temperature, 0)))
    if isfinite(hi):
        loss = plus(loss, over(wide(-lo, 0), wide(job.loss.temperature, 0)))
    loss = times(loss, wide_sample(b, i))
    if job.loss.z_loss != 0 and b.w.weight[i] != 0:
        lse = wide_log_sum_exp(job, b, r)
        penalty = times(wide_weight(b, i), wide(job.loss.z_loss, 0))
        loss = plus(loss, times(penalty, times(lse, lse)))
    return loss


cdef inline void take_wide_losses(const Job *job, Block *b) noexcept nogil:
    """Compute the extreme losses of a block once more; one that a double does not hold gets an
    exponent."""
    cdef double least = job.range.least_loss
    cdef bint all_rows = job.loss.z_loss != 0 and (
        outside(job.loss.z_loss, job.range.least_z_loss, job.range.most_z_loss))
    cdef Wide loss
    cdef int r
    if not (all_rows or b.wide) and (
            job.itemsize == 4       # a double holds any loss made of float32 and moderate weights
            or not any_outside(job, b.loss, b.n_rows, least, 1 / least)):
        return
    for r in range(b.n_rows):
        if b.ignored[r] or not (all_rows or has_exponents(b, weights_of(b, r))
                                or outside(b.loss[r], least, 1 / least)):
            continue
        loss = wide_loss(job, b, r)
        b.loss[r] = narrow(loss, 0)
        if loss.part == 0 or least <= b.loss[r] <= 1 / least:
            continue
        if not b.wide_losses:
            memset(b.powers.loss, 0, sizeof(b.powers.loss))
            b.wide_losses = True
        b.loss[r] = loss.part
        b.powers.loss[r] = loss.exponent


cdef inline double narrow_loss(const Block *b, int r) noexcept nogil:
    """Return the loss of row r as a double."""
    return ldexp(b.loss[r], b.powers.loss[r]) if b.wide_losses else b.loss[r]


# ---------------------------------------------------------------- factors

cdef inline bint has_moderate_options(const Job *job) noexcept nogil:
    """Return whether label smoothing leaves factors moderate if weights and masses are."""
    return job.loss.confidence >= 1. / 16 and not outside(
        job.loss.smoothing / job.n_classes, 1. / (1 << 20), 2)


cdef inline bint has_moderate_factors(const Job *job, const Block *b, int begin, int end,
                                      const double *numerator) noexcept nogil:
    """Return whether it is sure that no row has extreme factors: factors in [2^-25, 2^14] times
    sample weights in [2^-25, 2^25] times masses in [2^-29, 2^41] stay in [2^-80, 2^80]."""
    cdef double least = 1. / (1 << 25), most = 1 << 14
    cdef int n = end - begin
    if b.wide or not job.loss.moderate_options:
        return False
    if job.scale.data == NULL:
        if outside(b.w.factor[begin], least, most):
            return False
    elif any_outside(job, b.w.factor + begin, n, least, most):
        return False
    return job.loss.z_loss == 0 or not any_outside(
        job, numerator + begin, n, job.range.least_factor, job.range.most_factor)


cdef inline bint has_extreme_factors(const Job *job, const Block *b, int r,
                                     double numerator) noexcept nogil:
    """Return whether b or a factor of the target, times that of the gradient, is so large or small
    for row r that a product with an exp or a mass may over- or underflow as a real."""
    cdef double least = job.range.least_term, most = job.range.most_term
    if has_exponents(b, r) or outside(
            numerator, job.range.least_factor, job.range.most_factor):
        return True
    return job.plan.has_surplus and (outside(target_factor(job, b, r), least, most)
                                     or outside(uniform_factor(b, r), least, most * (1 << 24)))


cdef inline void narrow_factors(const Job *job, Block *b, int begin, int end,
                                double *numerator) noexcept nogil:
    """Make the extreme factors of some rows moderate."""
    cdef int r
    for r in range(begin, end):
        if has_extreme_factors(job, b, r, numerator[r]) and not b.ignored[r]:
            numerator[r] = narrow_factor(job, b, r, numerator[r])


cdef inline double narrow_factor(const Job *job, Block *b, int r,
                                 double numerator) noexcept nogil:
    """Change the factor of row r's gradient by a power of two that makes its terms moderate, unless
    they are, and return b times the factor; the rest of the power becomes `raised`."""
    cdef Wide sample = wide_sample(b, r), push = Wide(0, 0), pull, both, uniform
    cdef Wide factor = wide(b.w.factor[r], b.powers.factor_exponent[r] if b.wide else 0)
    cdef int top, raised = 0
    if factor.part == 0 or not isfinite(factor.part):
        return numerator
    pull = times(sample, wide(all_mass(job, b, r), 0))
    if job.loss.z_loss != 0 and b.w.weight[r] != 0:
        push = times(times(times(wide(2, 0), wide_weight(b, r)), wide(job.loss.z_loss, 0)),
                     wide_log_sum_exp(job, b, r))
    both = times(plus(pull, push), factor)
    uniform = times(times(sample, wide(b.w.uniform_mass[r], 0)), factor)
    # The largest of the terms of an entry, or more; masses may cancel, but are about 1.
    top = max(max(exponent_of(push), exponent_of(pull)), exponent_of(sample)) + factor.exponent
    if outside(ldexp(1, top), job.range.least_factor, job.range.most_factor) or (
            uniform.part != 0 and uniform.exponent < -job.range.middle):
        raised = top - job.range.middle
        set_raised(b, r, raised)
        widen(job, b)               # so that the next block begins with factors of its own
    b.w.factor[r] = ldexp(factor.part, factor.exponent + exponent_at(b, r) - raised)
    return narrow(both, -raised)


cdef inline void set_raised(Block *b, int r, int exponent) noexcept nogil:
    """Note what the finished gradient of row r is to be multiplied with."""
    if not b.raises:
        memset(b.powers.raised, 0, sizeof(b.powers.raised))
        b.raises = True
    b.powers.raised[r] = exponent


cdef inline int raised_by(const Block *b, int r) noexcept nogil:
    """Return the power of two that the finished gradient of row r is to be multiplied with."""
    return b.powers.raised[r] if b.raises else 0


cdef inline double wide_surplus(const Job *job, const Block *b, int r) noexcept nogil:
    """Do what surplus_of does. It may be infinite: then (31) is used for no class."""
    cdef Wide push = times(times(wide(2, 0), wide(job.loss.z_loss, 0)),
                           wide(b.w.target_mass[r], 0))
    push = plus(wide(b.w.uniform_total[r], 0), times(push, wide_log_sum_exp(job, b, r)))
    return narrow(over(push, wide(job.loss.confidence, 0)), 0)


cdef inline double variance_weight(const Job *job, const Block *b, int i,
                                   int *raised) noexcept nogil:
    """Return s a, the factor of a row's second derivatives, and the power of two that they are to
    be multiplied with afterwards."""
    cdef double weight = b.w.sample[i] * all_mass(job, b, i)
    cdef Wide extreme
    raised[0] = 0
    if exponent_at(b, i) == 0 and not outside(
            weight, job.range.least_factor, job.range.most_factor):
        return weight
    extreme = times(wide_sample(b, i), wide(all_mass(job, b, i), 0))
    if extreme.part == 0 or not isfinite(extreme.part):
        return weight
    raised[0] = extreme.exponent - job.range.middle
    return narrow(extreme, -raised[0])
