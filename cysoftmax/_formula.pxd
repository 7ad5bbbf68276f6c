# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# What a row is: from the sums over its classes to its loss and to the factor of its exps. Touches
# the few doubles of a block of rows; never sees a pointer to classes.
#
# With d = (x - shift) / temperature and A_c = class_weight_c ((1 - e) T_c + e sum(T) / K):
#
#   loss = s (a log(total) - sum A d) + w z lse^2                               (29)
#   gradient of the loss = (b p - s A) / temperature,   b = s a + 2 w z lse     (30)
#
# The numbers are those of docs/derivation.md. The names of the code:
#
#   sample          s, the weight of the row that the caller gives
#   smoothing       e; confidence = 1 - e
#   z_loss          z
#   target_sum      sum of T_c
#   target_mass     sum of class_weight_c T_c; each term is the mass of a class, label_mass that of
#                   the label
#   uniform_mass    e sum(T) / K, for K classes that are not masked
#   uniform_total   uniform_mass times the sum of the class weights
#   weight          w = s target_mass
#   all_mass        a = confidence target_mass + uniform_total
#   target_dot      sum of class_weight_c T_c (x_c - shift), as a sum of two doubles
#   uniform_dot     sum of class_weight_c (x_c - shift), likewise
#
# Weights, masses and factors that a double or a real cannot hold, or whose products they cannot
# hold, have a power of two beside them (section 15). What is about these alone comes last in each
# section; it is called only if the numbers of a block, or of a row, are not moderate.

from libc.math cimport INFINITY, NAN, fabs, isfinite, isinf, ldexp
from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memset

from cysoftmax._job cimport LABELS, TILES, Job, Range, RowWeights, expect
from cysoftmax._kernels cimport MOST_TILES, TILE
from cysoftmax._what cimport GRAD, LOGSUMEXP, LOG_SOFTMAX, LOSS, SOFTMAX, STATS
from cysoftmax._wide cimport NO_EXPONENT, Wide, exponent_of, narrow, over, plus, times, wide

cdef enum:
    MOST_ROWS = MOST_TILES * TILE       # of a block: as many as its tiles have at most

cdef extern from *:
    """
    #define CYSOFTMAX_LEAST 0x1p-1074
    """
    const double LEAST "CYSOFTMAX_LEAST"    # the smallest double above 0

cdef struct Weights:                # RowWeights of each row, as arrays: loops become vectors
    double[MOST_ROWS] sample, label_mass, target_sum, target_mass, uniform_mass, uniform_total
    double[MOST_ROWS] weight, factor, rest_from, surplus

cdef struct Powers:                 # of two, beside what extreme numbers are made of: RowWeights
    int[MOST_ROWS] lift, exponent, weight_exponent, factor_exponent
    int[MOST_ROWS] raised           # what the finished gradient is multiplied with
    int[MOST_ROWS] loss             # what the loss is to be multiplied with

cdef struct Block:                  # of each row, the few numbers that its results need
    ptrdiff_t first                 # the first row
    int n_rows
    bint alike                      # all rows have the weights of the first
    Weights w
    char[MOST_ROWS] skipped         # nothing of the row is read: its outputs are constants
    char[MOST_ROWS] ignored         # the row has no loss, weight or gradient
    bint any_skipped, any_ignored
    char[MOST_ROWS] has_nan         # a logit is NaN; found out only where the shift is infinite
    ptrdiff_t[MOST_ROWS] label
    double[MOST_ROWS] shift         # the largest logit
    double[MOST_ROWS] coarse, fine  # total = coarse + fine = sum of exp(d)
    double[MOST_ROWS] log_total     # log(total)
    double[MOST_ROWS] target_dot_hi, target_dot_lo
    double[MOST_ROWS] uniform_dot_hi, uniform_dot_lo
    double[MOST_ROWS] entropy_dot, target_exp           # sum of exp(d) d, of T exp(d): STATS
    ptrdiff_t[MOST_ROWS] arg_max
    double[MOST_ROWS] loss          # or logsumexp, or 0
    double[MOST_ROWS] factor_hi, factor_lo              # what exps are multiplied with
    Powers powers                   # last: what is always used keeps its distances modulo 4096
    bint wide, raises, wide_losses  # whether there are powers of weights, gradients and losses


cdef inline int weights_of(const Block *b, int r) noexcept nogil:
    """Return the index of row r's weights among those of the block."""
    expect(0 <= r < b.n_rows)
    return 0 if b.alike else r


cdef inline void set_weights(Block *b, int r, const RowWeights *weights) noexcept nogil:
    """Store the weights of row r."""
    b.w.sample[r] = weights.sample
    b.w.label_mass[r] = weights.label_mass
    b.w.target_sum[r] = weights.target_sum
    b.w.target_mass[r] = weights.target_mass
    b.w.uniform_mass[r] = weights.uniform_mass
    b.w.uniform_total[r] = weights.uniform_total
    b.w.weight[r] = weights.weight
    b.w.factor[r] = weights.factor
    b.w.rest_from[r] = weights.rest_from
    b.w.surplus[r] = weights.surplus


cdef inline void open_weights(const Job *job, Block *b, int n) noexcept nogil:
    """Prepare a block, which is used again and again, for n rows: what no row changes is set here
    once. A tile has 16 rows even if there are fewer, whose numbers are computed, but not used."""
    cdef int r
    b.alike = job.plan.plain_rows
    memset(b.label, 0, n * sizeof(b.label[0]))
    memset(b.loss, 0, n * sizeof(double))
    b.wide = False
    for r in range(n if job.plan.way == TILES or not b.alike else 1):
        set_weights(b, r, &job.plain_weights)
    if job.plain_weights.exponent != 0 or job.plain_weights.factor_exponent != 0:
        widen(job, b)


cdef inline void widen(const Job *job, Block *b) noexcept nogil:
    """Prepare the powers of two of a block's rows."""
    cdef int r
    if b.wide:
        return
    b.wide = True
    for r in range(MOST_ROWS):
        b.powers.lift[r] = 0
        b.powers.exponent[r] = b.powers.weight_exponent[r] = job.plain_weights.exponent
        b.powers.factor_exponent[r] = job.plain_weights.factor_exponent


cdef inline void clear_rows(const Job *job, Block *b) noexcept nogil:
    """Set the numbers of a block's rows to what a row without logits has, unless all rows are
    computed."""
    cdef int n = b.n_rows, r
    b.any_skipped = b.any_ignored = b.raises = b.wide_losses = False
    memset(b.ignored, 0, n)
    memset(b.skipped, 0, n)
    if n % TILE != 0:
        memset(b.loss + n, 0, (TILE - n % TILE) * sizeof(double))
    if job.plan.way == TILES:
        return
    memset(b.label, 0, n * sizeof(b.label[0]))
    memset(b.fine, 0, n * sizeof(double))
    memset(b.log_total, 0, n * sizeof(double))
    memset(b.factor_hi, 0, n * sizeof(double))
    memset(b.factor_lo, 0, n * sizeof(double))
    for r in range(n):
        b.coarse[r] = 1


# ---------------------------------------------------------------- weights

cdef inline double factor_for(const Job *job, double scale) noexcept nogil:
    """Return what the gradient of a row with that scale is multiplied with."""
    return scale / job.loss.divisor.part / job.loss.temperature


cdef inline void weigh(const Job *job, Block *b, int r) noexcept nogil:
    """Compute the weight of row r from its sample weight and its target's mass."""
    cdef int i = weights_of(b, r)
    if b.ignored[r]:
        b.w.label_mass[i] = b.w.target_mass[i] = 0
    b.w.weight[i] = b.w.sample[i] * b.w.target_mass[i]
    # The statistics of a row do not need its target.
    b.skipped[r] = b.ignored[r] and not job.what & STATS
    b.any_ignored |= b.ignored[r]
    b.any_skipped |= b.skipped[r]


cdef inline void weigh_labels(const Job *job, Block *b) noexcept nogil:
    """Do that for all rows of a block whose label masses were read: without a branch, since rows
    may be ignored at random."""
    cdef int r, any_ignored = 0
    for r in range(b.n_rows):
        b.w.label_mass[r] *= 1 - b.ignored[r]
        b.w.target_mass[r] = b.w.label_mass[r]
        b.w.weight[r] = b.w.sample[r] * b.w.label_mass[r]
    for r in range(b.n_rows):
        any_ignored |= b.ignored[r]
    b.any_ignored = any_ignored
    if not job.what & STATS:
        memcpy(b.skipped, b.ignored, b.n_rows)
        b.any_skipped = any_ignored


cdef inline void weigh_masses(const Job *job, Block *b, int r, double unmasked, double weight_sum,
                              bint has_target, double target_sum, double target_mass,
                              bint any_target) noexcept nogil:
    """Compute what row r weighs, of which `unmasked` classes with the class weights `weight_sum`
    take part; of a distribution also the sums. A row whose classes are all masked is skipped; one
    whose distribution is all zeros is ignored."""
    cdef int i = weights_of(b, r)
    b.w.uniform_mass[i] = b.w.uniform_total[i] = 0
    if unmasked == 0:
        b.ignored[r] = True
        weigh(job, b, r)
        b.skipped[r] = b.any_skipped = True
        return
    if has_target:
        b.ignored[r] |= not any_target
        b.w.target_sum[i] = target_sum
        b.w.target_mass[i] = target_mass
    if job.loss.smoothing != 0 and not b.ignored[r]:
        b.w.uniform_mass[i] = job.loss.smoothing * b.w.target_sum[i] / unmasked
        b.w.uniform_total[i] = b.w.uniform_mass[i] * weight_sum
    weigh(job, b, r)


cdef inline double all_mass(const Job *job, const Block *b, int i) noexcept nogil:
    """Return a, the sum of A."""
    return job.loss.confidence * b.w.target_mass[i] + b.w.uniform_total[i]


cdef inline void weigh_whole_tile(const Job *job, Block *b, int begin, const double *unmasked,
                                  const double *weight_sum, const double *target_sum,
                                  const double *target_mass) noexcept nogil:
    """Do what weigh_masses does for the sixteen rows of a tile, none of which is ignored: in loops
    that become vectors."""
    cdef int r
    if job.plan.by_mass:
        for r in range(TILE):
            b.w.target_sum[begin + r] = target_sum[r]
            b.w.target_mass[begin + r] = target_mass[r]
    if job.loss.smoothing != 0:
        for r in range(TILE):
            b.w.uniform_mass[begin + r] = (
                job.loss.smoothing * b.w.target_sum[begin + r] / unmasked[r])
            b.w.uniform_total[begin + r] = b.w.uniform_mass[begin + r] * weight_sum[r]
    for r in range(TILE):
        b.w.weight[begin + r] = b.w.sample[begin + r] * b.w.target_mass[begin + r]


# ---------------------------------------------------------------- extreme weights

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


# ---------------------------------------------------------------- logarithms and losses

cdef inline double log_sum_exp(const Job *job, const Block *b, int r) noexcept nogil:
    """Return lse, of the logits over the temperature."""
    return b.shift[r] / job.loss.temperature + b.log_total[r]


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
    cdef double[2] choice
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
    choice[1] = 0
    if b.any_ignored:
        for r in range(b.n_rows):   # without a branch
            choice[0] = b.loss[r]
            b.loss[r] = choice[b.ignored[r]]


cdef inline bint all_finite(const double *values, int n) noexcept nogil:
    """Return whether n numbers are finite. (Adding 1 to the exponent of one that is not carries
    into its sign bit: a loop of integers, which becomes vectors.)"""
    cdef uint64_t bits, carries = 0
    cdef int r
    for r in range(n):
        memcpy(&bits, &values[r], sizeof(bits))
        carries |= (bits & (<uint64_t>-1 >> 1)) + (<uint64_t>1 << 52)
    return carries >> 63 == 0


cdef inline void losses_of(const Job *job, Block *b) noexcept nogil:
    """Compute (29) for all rows of a block, whatever they weigh."""
    cdef double[MOST_ROWS] hi, lo, lse
    cdef double confidence = job.loss.confidence, temperature = job.loss.temperature
    cdef double z_loss = job.loss.z_loss
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
    for r in range(n):
        b.loss[r] = b.w.sample[r] * (
            (confidence * b.w.target_mass[r] + b.w.uniform_total[r]) * b.log_total[r]
            - hi[r] - lo[r])
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


# ---------------------------------------------------------------- extreme losses

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
    cdef double confidence = job.loss.confidence
    cdef int r
    for r in range(begin, end):
        numerator[r] = b.w.sample[r] * (
            confidence * b.w.target_mass[r] + b.w.uniform_total[r])
    if job.loss.z_loss != 0:
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
    return max(half, b.w.target_mass[i] / 2) if half > 0 else INFINITY


cdef inline void rest_thresholds(const Job *job, Block *b, int begin, int end) noexcept nogil:
    """Compute rest_threshold for rows begin ... end - 1: in loops that become vectors, unless a sum
    is negative. (A threshold below every mass does for a sum of 0: no mass is above it.)"""
    cdef uint64_t bits, signs = 0
    cdef double half
    cdef int r
    for r in range(begin, end):
        half = (b.w.target_mass[r] + b.w.surplus[r]) / 2
        memcpy(&bits, &half, sizeof(bits))
        signs |= bits
        b.w.rest_from[r] = max(max(half, b.w.target_mass[r] / 2), LEAST)
    if signs >> 63:
        for r in range(begin, end):
            b.w.rest_from[r] = rest_threshold(b, r)


cdef inline double residual_mass(const Block *b, int i, double mass) noexcept nogil:
    """Return what of a class' mass is left to be subtracted after minus_rest."""
    if mass >= b.w.rest_from[i]:
        return (mass - b.w.target_mass[i]) - b.w.surplus[i]
    return mass


cdef inline double target_factor(const Job *job, const Block *b, int i) noexcept nogil:
    """Return what masses are multiplied with before they are subtracted."""
    return job.loss.confidence * b.w.sample[i] * b.w.factor[i]


cdef inline double uniform_factor(const Block *b, int i) noexcept nogil:
    """Return what class weights are multiplied with before they are subtracted."""
    return b.w.uniform_mass[i] * b.w.sample[i] * b.w.factor[i]


# ---------------------------------------------------------------- extreme factors

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


# ---------------------------------------------------------------- once sums are known

cdef inline void finish_part(const Job *job, Block *b, int begin, int end) noexcept nogil:
    """Compute what the outputs of some rows need of their sums: factors, and logarithms if the
    outputs depend on them."""
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
