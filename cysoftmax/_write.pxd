# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# How a finished row leaves: in place, streamed, rounded to 16 bits or masked; its statistics.

from libc.math cimport INFINITY, isfinite, isnan
from libc.stdint cimport uint16_t

from cysoftmax._formula cimport Group, logsumexp_of, sharp_weight, weights_of
from cysoftmax._job cimport DISTRIBUTION, Job, LABELS, Rows, SPARSE, Weights, row_at, scales_only
from cysoftmax._kernels cimport Carry, Kernels
from cysoftmax._numbers cimport put_number, real_at, store_row
from cysoftmax._plan cimport STREAM_ROW_BYTES, Thread, computed_apart
from cysoftmax._sparse cimport dot_of_entries
from cysoftmax._sums cimport Total, dot, first_nan
from cysoftmax._target cimport Place, minus_rest_at_entries, subtract_entries, subtract_label
from cysoftmax._what cimport LOG_SOFTMAX, SOFTMAX

cdef inline void write_scaled(const Job *job, Carry *line, const char *e, ptrdiff_t n, double hi,
                              double lo, char *out) noexcept nogil:
    if job.stream:
        job.kernels.stream(e, n, hi, lo, out, line)
    else:
        job.kernels.scale(e, n, hi, lo, NULL, 0, NULL, 0, out)


cdef inline void write_late(const Job *job, Thread *t, ptrdiff_t at, ptrdiff_t n) noexcept nogil:
    """n classes, `at` bytes into the row that waits."""
    write_scaled(job, &t.line, t.late.e + at, n, t.late.hi, t.late.lo, t.late.out + at)


cdef inline void begin_thread(char *scratch) noexcept nogil:
    cdef Thread *t = <Thread *>scratch
    t.line.n = t.variance_line.n = 0
    t.half = 0
    t.late.e = NULL
    t.loaded = t.edge = -1


cdef inline void end_thread(const Job *job, char *scratch) noexcept nogil:
    cdef Thread *t = <Thread *>scratch
    if t.late.e != NULL:
        write_late(job, t, 0, job.n_classes)
    job.kernels.store_carry(&t.line)
    job.kernels.store_carry(&t.variance_line)


cdef inline void gradient(Job *job, const Group *g, int r, const Place *p, char *out) noexcept nogil:
    """From the exps of a row, which are overwritten, its gradient."""
    cdef const Weights *w = weights_of(g, r)
    cdef double base_weight = w.smooth * w.sample * w.factor
    cdef bint sharp = job.keep != 0     # or else all of the target is smoothed away
    cdef char *a = NULL
    if job.target_is == DISTRIBUTION and sharp:
        a = p.a
        job.kernels.minus_rest_major(p.e, a, job.n_classes, w.mass, w.half, w.extra,
                                  g.coarse[r], g.fine[r])
    elif job.target_is == SPARSE and sharp:
        minus_rest_at_entries(job, g, r, p.e)
    job.kernels.scale(p.e, job.n_classes, g.hi[r], g.lo[r], p.base, base_weight, a,
                      sharp_weight(job, g, r), out)
    if job.target_is == SPARSE and sharp:
        subtract_entries(job, g, r, out)
    elif job.target_is == LABELS and sharp:
        subtract_label(job, g, r, out + g.y[r] * job.itemsize)


cdef inline bint streams_short(const Job *job, const Rows *rows) noexcept nogil:
    """Whether rows of 16 bits are stored past the caches."""
    return (job.large and rows.item == 2 and rows.step == 2
            and 2 * job.n_classes >= STREAM_ROW_BYTES)


cdef inline void deliver(const Job *job, Carry *line, const Rows *rows, ptrdiff_t i,
                         char *row) noexcept nogil:
    """Put a row into its place there, unless it was computed there."""
    cdef ptrdiff_t n = job.n_classes
    if streams_short(job, rows):
        job.kernels.narrow(row, n, rows.kind == c'b', <uint16_t *>row)
        job.kernels.stream_short(<uint16_t *>row, n, <uint16_t *>row_at(job, rows, i), line)
    elif not rows.direct:
        store_row(job, rows, i, row)
    elif job.stream:
        job.kernels.stream_copy(row, n, row_at(job, rows, i), line)


cdef inline bint stays_masked(const Job *job, const Group *g, int r,
                              const Place *p) noexcept nogil:
    """Whether a logit of -inf alone makes an entry that does not take part what it should be."""
    if job.what & LOG_SOFTMAX:
        return isfinite(g.log_total[r])
    if not 0 < g.hi[r] < INFINITY:
        return False
    return job.what & SOFTMAX or (
        job.target_is == LABELS and job.smoothing == 0 and p.where[g.y[r]])


cdef inline double filling(const Job *job) noexcept nogil:
    """What an output has where a class does not take part."""
    return -INFINITY if job.what & LOG_SOFTMAX else 0


cdef inline void write_row(Job *job, Thread *t, const Group *g, int r, const Place *p) noexcept nogil:
    """The output of row r."""
    cdef const Kernels *k = job.kernels
    cdef ptrdiff_t n = job.n_classes, i = g.first + r
    cdef bint masked = p.where != NULL and not stays_masked(job, g, r, p)
    cdef char *row = p.e if computed_apart(job, &job.out) else row_at(job, &job.out, i)
    if scales_only(job) and job.out.direct and not masked:
        write_scaled(job, &t.line, p.e, n, g.hi[r], g.lo[r], row_at(job, &job.out, i))
        return
    if scales_only(job) and not masked and job.out.kind == c'e' and streams_short(job, &job.out):
        k.stream_half(p.e, n, g.hi[r], g.lo[r], <uint16_t *>row_at(job, &job.out, i), &t.line)
        return
    if job.what & LOG_SOFTMAX:
        k.log(p.x, n, g.shift[r], job.inv_temperature, g.log_total[r], row)
    elif scales_only(job):
        k.scale(p.e, n, g.hi[r], g.lo[r], NULL, 0, NULL, 0, row)
    else:
        gradient(job, g, r, p, row)
    if masked:
        k.select(p.where, row, n, filling(job), row)
    deliver(job, &t.line, &job.out, i, row)


cdef inline void write_variance(const Job *job, char *scratch, const Group *g, int r,
                         const Place *p) noexcept nogil:
    cdef char *row = scratch + job.variance_at
    cdef double one = 1, hi, lo
    if not computed_apart(job, &job.variance):
        row = row_at(job, &job.variance, g.first + r)
    job.doubles.divide(&one, &g.coarse[r], &g.fine[r], 1, &hi, &lo)
    job.kernels.variance(p.e, job.n_classes, hi, lo, g.coarse[r], g.fine[r],
                         weights_of(g, r).weight, row)
    deliver(job, &(<Thread *>scratch).variance_line, &job.variance, g.first + r, row)


cdef inline void keep_numbers(const Job *job, ptrdiff_t i, double loss,
                              double weight) noexcept nogil:
    """Store what row i amounts to wherever it is wanted."""
    if job.losses != NULL:
        job.losses[i] = loss
        if job.weighted:
            job.weights[i] = weight
    if job.result.data != NULL:
        put_number(job, &job.result, row_at(job, &job.result, i), loss)


cdef inline void write_stats(Job *job, const Group *g, int r, const Place *p) noexcept nogil:
    """logsumexp, entropy, argmax, max_prob, loss and target_prob of a row."""
    cdef double *stats = <double *>row_at(job, &job.stats, g.first + r)
    cdef double total = g.coarse[r] + g.fine[r], target = 0
    cdef Total spread
    if g.skipped[r]:
        stats[0], stats[1], stats[2], stats[3], stats[4], stats[5] = -INFINITY, 0, -1, 0, 0, 0
        return
    stats[0] = logsumexp_of(job, p.x, g.shift[r] / job.temperature, g.log_total[r])
    # -sum p log p, where log p = d - log(total): neither term is negative.
    spread = dot(job, p.e, p.x, g.shift[r], True)
    stats[1] = g.log_total[r] - (
        (spread.coarse + spread.fine) / job.kernels.unit / job.temperature) / total
    stats[2] = arg_max(job, g, r, p)
    stats[3] = 1 / total
    if job.target_is == LABELS:
        target = real_at(job, p.e, g.y[r])
    elif job.target_is == DISTRIBUTION:
        spread = dot(job, p.a, p.e, 0, True)
        target = spread.coarse + spread.fine
    elif job.target_is == SPARSE:
        spread = dot_of_entries(job, g.first + r, p.e, 0)
        target = spread.coarse + spread.fine
    stats[4] = g.loss[r]
    stats[5] = 0 if g.ignored[r] else target / job.kernels.unit / total


cdef inline ptrdiff_t arg_max(const Job *job, const Group *g, int r,
                              const Place *p) noexcept nogil:
    """The first of the largest logits that take part, and the first NaN if there is one."""
    cdef ptrdiff_t c
    if isnan(g.coarse[r]) or isnan(g.fine[r]):
        c = first_nan(job, p.x)
        if c < job.n_classes:
            return c
        if p.where != NULL and g.shift[r] == -INFINITY:
            c = 0
            while c < job.n_classes - 1 and not p.where[c]:
                c += 1
            return c
    return job.kernels.index_of(p.x, job.n_classes, g.shift[r])
