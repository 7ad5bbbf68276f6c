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

from libc.math cimport INFINITY, NAN, isfinite, isinf
from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memset

from cysoftmax._job cimport TILES, Job, RowWeights, expect
from cysoftmax._kernels cimport MOST_TILES, TILE
from cysoftmax._what cimport GRAD, LOGSUMEXP, LOG_SOFTMAX, LOSS, SOFTMAX, STATS

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
    for r in range(n if job.plan.way == TILES or not b.alike else 1):
        set_weights(b, r, &job.plain_weights)


cdef inline void clear_rows(const Job *job, Block *b) noexcept nogil:
    """Set the numbers of a block's rows to what a row without logits has, unless all rows are
    computed."""
    cdef int n = b.n_rows, r
    b.any_skipped = b.any_ignored = False
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
    return scale / job.loss.divisor / job.loss.temperature


cdef inline void weigh(const Job *job, Block *b, int r) noexcept nogil:
    """Compute the weight of row r from its sample weight and its target's mass."""
    cdef int i = weights_of(b, r)
    if b.ignored[r]:
        b.w.label_mass[i] = b.w.target_mass[i] = 0
    b.w.weight[i] = b.w.sample[i] * b.w.target_mass[i]
    # The statistics of a row do not need its target.
    b.skipped[r] = b.ignored[r] and not job.what & STATS


cdef inline void weigh_labels(const Job *job, Block *b) noexcept nogil:
    """Do that for all rows of a block whose label masses were read: without a branch, since rows
    may be ignored at random."""
    cdef int r
    for r in range(b.n_rows):
        b.w.label_mass[r] *= 1 - b.ignored[r]
        b.w.target_mass[r] = b.w.label_mass[r]
        b.w.weight[r] = b.w.sample[r] * b.w.label_mass[r]
    if not job.what & STATS:
        memcpy(b.skipped, b.ignored, b.n_rows)


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
        b.skipped[r] = True
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


cdef inline void note_ignored(Block *b) noexcept nogil:
    """Find out whether any row of a block is ignored or skipped, once all are weighed."""
    cdef int r, ignored = 0, skipped = 0
    for r in range(b.n_rows):
        ignored |= b.ignored[r]
    for r in range(b.n_rows):
        skipped |= b.skipped[r]
    b.any_ignored = ignored
    b.any_skipped = skipped


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
        else:
            numerators_of(job, b, begin, end, numerator)
        if not b.alike and job.loss.confidence != 0:
            if job.plan.has_surplus:
                for r in range(begin, end):
                    b.w.surplus[r] = surplus_of(job, b, r)
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
    if job.plan.weighted:
        note_ignored(b)
    if job.what & LOSS:
        take_losses(job, b)
    elif job.what & LOGSUMEXP:
        for r in range(b.n_rows):
            b.loss[r] = logsumexp_of(job, b, r)
