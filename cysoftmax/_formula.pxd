# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# From the sums of a row to its loss and to the factor of its exps. Sees no class.

from libc.float cimport DBL_MAX
from libc.math cimport INFINITY, NAN, isfinite, isinf

from cysoftmax._job cimport Job, Weights, leaves_more
from cysoftmax._plan cimport MOST_ROWS
from cysoftmax._sums cimport first_nan
from cysoftmax._what cimport GRAD, LOGSUMEXP, LOG_SOFTMAX, LOSS, SOFTMAX, STATS

# With d = x / temperature - max and A_c = class_weight_c ((1 - e) T_c + e sum(T) / K),
#
#   loss = s (a log(total) - sum A d) + w z lse^2
#   gradient of the loss = (b p - s A) / temperature,    b = s a + 2 w z lse
#
# In the names below: s `sample`, 1 - e `keep`, sum(T) `given`, e sum(T) / K `smooth`,
# class_weight_c T_c the `share` of class c, their sum `mass`, w = s mass `weight`,
# smooth times the sum of class weights `smooth_sum`, a = keep mass + smooth_sum.
cdef struct Group:              # rows that are worked on together, and what each boils down to
    ptrdiff_t first
    int n_rows, weights_step
    Weights *weights            # of each row; or with a step of 0 job.ones, of all of them
    char[MOST_ROWS] skipped     # nothing to compute: zeros
    char[MOST_ROWS] ignored     # has no loss, weight or gradient
    ptrdiff_t[MOST_ROWS] y      # its label
    double[MOST_ROWS] shift, coarse, fine, log_total
    double[MOST_ROWS] sharp_hi, sharp_lo    # sum of share times x - shift
    double[MOST_ROWS] even_hi, even_lo      # of class weight times x - shift, if smoothed
    double[MOST_ROWS] loss      # its loss, or its logsumexp, or 0
    double[MOST_ROWS] hi, lo    # what its exps are multiplied with


cdef inline Weights *weights_of(const Group *g, int r) noexcept nogil:
    return g.weights + r * g.weights_step


cdef inline double factor_for(const Job *job, double scale) noexcept nogil:
    """What the gradient of a row with that scale is multiplied with."""
    scale /= job.divisor
    return scale if job.inv_temperature == NULL else within(scale / job.temperature * job.load_scale)


cdef inline double log_sum_exp(const Job *job, const Group *g, int r) noexcept nogil:
    """Of the logits over the temperature."""
    return g.shift[r] / job.temperature + g.log_total[r]


cdef inline double total_mass(const Job *job, const Group *g, int r) noexcept nogil:
    """a, the sum of A."""
    cdef const Weights *w = weights_of(g, r)
    return job.keep * w.mass + w.smooth_sum


cdef inline double within(double value) noexcept nogil:
    """A tiny temperature can make a factor overflow: a large number then, but not NaN times 0."""
    return min(max(value, -DBL_MAX), DBL_MAX) if value == value else value


cdef inline void finish_group(const Job *job, Group *g) noexcept nogil:
    """From the sums of all rows to their logarithms and factors."""
    take_logs(job, g, 0, g.n_rows)
    take_factors(job, g, 0, g.n_rows)


cdef inline void take_logs(const Job *job, Group *g, int begin, int end) noexcept nogil:
    """log(total) of some rows."""
    if job.what & (LOG_SOFTMAX | LOGSUMEXP | LOSS | STATS) or job.z_loss != 0:
        job.doubles.log_total(g.coarse + begin, g.fine + begin, end - begin, g.log_total + begin)


cdef inline void take_factors(const Job *job, Group *g, int begin, int end) noexcept nogil:
    """What the exps of some rows are multiplied with, and which classes are not just scaled."""
    cdef double weight[MOST_ROWS]
    cdef Weights *w
    cdef int r
    if job.what & SOFTMAX:
        for r in range(begin, end):
            weight[r] = 1
    elif job.what & GRAD:
        for r in range(begin, begin + 1 if g.weights_step == 0 else end):
            w = weights_of(g, r)
            weight[r] = w.sample * total_mass(job, g, r)
            if job.z_loss != 0:
                weight[r] += 2 * w.weight * job.z_loss * log_sum_exp(job, g, r)
            weight[r] *= w.factor
        for r in range(begin + 1, end if g.weights_step == 0 else 0):   # all weigh the same
            weight[r] = weight[begin]
        if job.inv_temperature != NULL:
            for r in range(begin, end):
                weight[r] = within(weight[r])
        if job.keep != 0 and (job.weighted or leaves_more(job)):
            for r in range(begin, end):
                w = weights_of(g, r)
                w.extra = extra_of(job, g, r)
                w.half = half_of(g, r)
    else:
        return
    job.doubles.divide(weight + begin, g.coarse + begin, g.fine + begin, end - begin,
                       g.hi + begin, g.lo + begin)


cdef inline double loss_of(const Job *job, const Group *g, int r) noexcept nogil:
    """s (a log(total) - sum A d) + w z lse^2. No term of it is negative."""
    cdef const Weights *w = weights_of(g, r)
    cdef double hi = g.sharp_hi[r], lo = g.sharp_lo[r], loss, lse
    if job.smoothing != 0:
        hi = job.keep * hi if job.keep != 0 else 0      # 0 times -inf is 0
        lo = job.keep * lo
        if w.smooth != 0:
            hi += w.smooth * g.even_hi[r]
            lo += w.smooth * g.even_lo[r]
    if job.inv_temperature != NULL:
        hi /= job.temperature
        lo = lo / job.temperature if isfinite(hi) else 0
    loss = w.sample * ((total_mass(job, g, r) * g.log_total[r] - hi) - lo)
    if job.z_loss != 0 and w.weight != 0:
        lse = log_sum_exp(job, g, r)
        loss += w.weight * job.z_loss * (lse * lse)
    return loss


cdef inline void take_losses(const Job *job, Group *g) noexcept nogil:
    """loss_of for all rows that are not ignored."""
    cdef int r
    if g.weights_step == 0 and job.inv_temperature == NULL:    # the same, in a loop that becomes vectors
        for r in range(g.n_rows):
            g.loss[r] = (g.log_total[r] - g.sharp_hi[r]) - g.sharp_lo[r]
        return
    for r in range(g.n_rows):
        if not g.ignored[r]:
            g.loss[r] = loss_of(job, g, r)


cdef inline double logsumexp_of(const Job *job, const char *x, double shift,
                                double log_total) noexcept nogil:
    """shift + log_total, where an infinite shift is the answer unless there is a NaN."""
    if isinf(shift):
        return NAN if first_nan(job, x) < job.n_classes else shift
    return shift + log_total


# A class that has half of the mass or more, and half of b, is given its gradient as b (p - 1) -
# (s A - b): see `minus_rest`. There b p - s A would cancel for a p near 1; elsewhere this form would.
# Its share then stands for (s A - b) / (keep s), so that all classes have keep s times something
# subtracted.


cdef inline double extra_of(const Job *job, const Group *g, int r) noexcept nogil:
    """b / (keep s) - mass."""
    cdef const Weights *w = weights_of(g, r)
    cdef double extra = w.smooth_sum
    if job.z_loss != 0 and w.sample != 0:
        extra += 2 * job.z_loss * w.weight / w.sample * log_sum_exp(job, g, r)
    return extra / job.keep


cdef inline double half_of(const Group *g, int r) noexcept nogil:
    """The share from which on a class is treated so."""
    cdef const Weights *w = weights_of(g, r)
    cdef double half = (w.mass + w.extra) / 2
    return max(half, w.mass / 2) if half > 0 else INFINITY


cdef inline double sharp_weight(const Job *job, const Group *g, int r) noexcept nogil:
    cdef const Weights *w = weights_of(g, r)
    return job.keep * w.sample * w.factor


cdef inline double left_of(const Group *g, int r, double share) noexcept nogil:
    """What stands for the share afterwards."""
    cdef const Weights *w = weights_of(g, r)
    if share >= w.half:
        return (share - w.mass) - w.extra
    return share
