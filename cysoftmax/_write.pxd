# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# How the classes of a finished row leave: scaled, less the target, masked; in place, streamed past
# the caches, strided or rounded to 16 bits. And how the numbers of a block leave. Touches the
# outputs, the exps that are made into them, and the unfinished cache lines.

from libc.math cimport INFINITY, isfinite, ldexp
from libc.stdint cimport uint16_t

from cysoftmax._block cimport Block, target_factor, uniform_factor, weights_of
from cysoftmax._extremes cimport lift_at, narrow_loss, raised_by, variance_weight
from cysoftmax._formula cimport logsumexp_of
from cysoftmax._given cimport store_totals
from cysoftmax._job cimport DISTRIBUTION, LABELS, SPARSE, Array, Job, class_at, expect, row_at
from cysoftmax._kernels cimport TILE, Carry, Kernels
from cysoftmax._numbers cimport fill_classes, put_number, raise_reals, store_strided
from cysoftmax._scratch cimport Pending, Piece, Scratch, holds
from cysoftmax._sums cimport count_sixteens, sum_sixteens
from cysoftmax._target cimport minus_rest_at_entries, subtract_entries, subtract_label
from cysoftmax._what cimport LOG_SOFTMAX, LOSS, SOFTMAX, STATS, TOTALS, VJP
from cysoftmax._wide cimport Wide

# ---------------------------------------------------------------- exps times a factor

cdef inline void write_scaled(const Job *job, Carry *carry, const char *e, ptrdiff_t n,
                              double factor_hi, double factor_lo, char *out) noexcept nogil:
    """Store n exps times a factor, as reals side by side."""
    if job.plan.streamed:
        job.kernels.stream(e, n, factor_hi, factor_lo, out, carry)
    else:
        job.kernels.scale(e, n, factor_hi, factor_lo, NULL, 0, NULL, 0, out)


cdef inline void store_pending(const Job *job, Scratch *s, ptrdiff_t at,
                               ptrdiff_t n) noexcept nogil:
    """Store n classes of the pending row, from `at` bytes into it on."""
    cdef const Pending *p = &s.overlap.previous
    write_scaled(job, &s.out_carry, p.e + at, n, p.factor_hi, p.factor_lo, p.out + at)


cdef inline void close_scratch(const Job *job, Scratch *s) noexcept nogil:
    """End a thread: store the pending row and the unfinished cache lines."""
    if s.overlap.previous.e != NULL:
        store_pending(job, s, 0, job.n_classes)
        s.overlap.previous.e = NULL
    job.kernels.store_carry(&s.out_carry)
    job.kernels.store_carry(&s.variance_carry)


# ---------------------------------------------------------------- the outputs of a piece

cdef inline void write_piece(const Job *job, Scratch *s, const Block *b, int r,
                             Piece *p) noexcept nogil:
    """Store the output of a piece of row r, made of its exps or logits, which are overwritten.
    Labels have had minus_rest_at_labels."""
    cdef const Kernels *k = job.kernels
    cdef ptrdiff_t i = b.first + r
    cdef char *place = class_at(job, &job.out, i, p.begin)
    cdef char *row = p.e if job.plan.out_in_scratch else place
    cdef bint masked = p.mask != NULL and not stays_masked(job, b, r, p)
    cdef int raised = raised_by(b, r)
    if job.plan.scales_only and not masked and raised == 0:
        if job.out.contiguous:
            write_scaled(job, &s.out_carry, p.e, p.n, b.factor_hi[r], b.factor_lo[r], place)
            return
        if job.plan.out_streamed_16 and job.out.kind == c'e':
            k.stream_half(p.e, p.n, b.factor_hi[r], b.factor_lo[r], <uint16_t *>place,
                          &s.out_carry)
            return
    if job.what & VJP:          # (15)
        k.vjp(p.x, p.a, p.n, b.target_dot_hi[r], b.target_dot_lo[r], row)
    elif job.what & LOG_SOFTMAX:
        k.log(p.x, p.n, b.shift[r], job.loss.inv_temperature, b.log_total[r], row)
    elif job.plan.scales_only:
        k.scale(p.e, p.n, b.factor_hi[r], b.factor_lo[r], NULL, 0, NULL, 0, row)
    else:
        gradient(job, s, b, r, p, row)
    if raised != 0:
        raise_reals(job, row, p.n, 1, raised)
    if masked:
        k.select(p.mask, row, p.n, masked_value(job), row)
    store_row(job, &s.out_carry, &job.out, job.plan.out_streamed_16, place, p.n, row)


cdef inline void gradient(const Job *job, Scratch *s, const Block *b, int r, const Piece *p,
                          char *out) noexcept nogil:
    """Compute the gradient (30), (31) of a piece from its exps, which are overwritten."""
    cdef int i = weights_of(b, r)
    cdef bint has_target = job.loss.confidence != 0     # or else all of it is smoothed away
    cdef double base_weight = uniform_factor(b, i) if job.loss.smoothing != 0 else 0
    cdef char *a = NULL
    if job.target_is == DISTRIBUTION and has_target:
        a = p.a
        job.kernels.minus_rest_major(p.e, a, p.n, b.w.target_mass[i], b.w.rest_from[i],
                                     b.w.surplus[i], b.coarse[r], b.fine[r])
    elif job.target_is == SPARSE and has_target:
        minus_rest_at_entries(job, s, b, r, p)
    job.kernels.scale(p.e, p.n, b.factor_hi[r], b.factor_lo[r], p.base, base_weight, a,
                      target_factor(job, b, i), out)
    if job.target_is == SPARSE and has_target:
        subtract_entries(job, s, b, r, p, out)
    elif job.target_is == LABELS and has_target:
        subtract_label(job, b, r, p, out)


cdef inline void write_variance(const Job *job, Scratch *s, const Block *b, int r,
                                const Piece *p) noexcept nogil:
    """Store the diagonal of the Hessian (33) of a piece, made of its exps."""
    cdef int i = weights_of(b, r)
    cdef char *place = class_at(job, &job.variance, b.first + r, p.begin)
    cdef char *row = s.variance if job.plan.variance_in_scratch else place
    cdef double one = 1, hi, lo, weight
    cdef int raised
    job.doubles.divide(&one, &b.coarse[r], &b.fine[r], 1, &hi, &lo)
    weight = variance_weight(job, b, i, &raised)
    job.kernels.variance(p.e, p.n, hi, lo, b.coarse[r], b.fine[r], weight, row)
    if raised != 0:
        raise_reals(job, row, p.n, 1, raised)
    if p.mask != NULL:          # an exp of 0 is not enough in a row that is NaN
        job.kernels.select(p.mask, row, p.n, 0, row)
    store_row(job, &s.variance_carry, &job.variance, job.plan.variance_streamed_16, place, p.n,
              row)


cdef inline void store_row(const Job *job, Carry *carry, const Array *array, bint streamed_16,
                           char *place, ptrdiff_t n, char *row) noexcept nogil:
    """Store n reals, which may be overwritten, into an output from `place` on; nothing if they
    were computed there."""
    if streamed_16:
        job.kernels.narrow(row, n, array.kind == c'b', <uint16_t *>row)
        job.kernels.stream_short(<uint16_t *>row, n, <uint16_t *>place, carry)
    elif not array.contiguous:
        store_strided(job, array, place, array.step, n, row)
    elif job.plan.streamed:
        job.kernels.stream_copy(row, n, place, carry)


cdef inline void skip_piece(const Job *job, const Block *b, int r, ptrdiff_t begin,
                            ptrdiff_t n) noexcept nogil:
    """Store the outputs of n classes of a row of which nothing was read."""
    fill_classes(job, &job.out, b.first + r, begin, n, masked_value(job))
    fill_classes(job, &job.variance, b.first + r, begin, n, 0)


cdef inline double masked_value(const Job *job) noexcept nogil:
    """Return what an output has where a class is masked."""
    return -INFINITY if job.what & LOG_SOFTMAX else 0


cdef inline bint stays_masked(const Job *job, const Block *b, int r,
                              const Piece *p) noexcept nogil:
    """Return whether masked entries get the right value from their logit of -inf alone."""
    if job.what & LOG_SOFTMAX:
        return isfinite(b.log_total[r])
    if not 0 < b.factor_hi[r] < INFINITY:
        return False
    if job.what & SOFTMAX:
        return True
    return job.target_is == LABELS and job.loss.smoothing == 0 and (
        not holds(p, b.label[r]) or p.mask[b.label[r] - p.begin])


# ---------------------------------------------------------------- the numbers of a block

cdef inline void store_block(const Job *job, Block *b) noexcept nogil:
    """Store losses, logsumexps and statistics of a block's rows where they are wanted, and add
    losses and weights to their sums."""
    cdef int r
    store_sums(job, b)
    if job.result.data != NULL:
        for r in range(b.n_rows):
            put_number(job, &job.result, row_at(job, &job.result, b.first + r), narrow_loss(b, r))
    if job.what & STATS:
        for r in range(b.n_rows):
            store_stats(job, b, r)
    elif job.what & TOTALS:
        for r in range(b.n_rows):
            store_totals(job, b, r)


cdef inline void store_sums(const Job *job, Block *b) noexcept nogil:
    """Store losses and weights of a block's rows: each, or the sums of sixteen rows."""
    cdef ptrdiff_t n = count_sixteens(b.n_rows)
    cdef double *sums
    cdef int *exponents
    cdef int r, i
    if job.sums.losses != NULL:
        for r in range(b.n_rows):
            i = weights_of(b, r)
            job.sums.losses[b.first + r] = Wide(
                b.loss[r], b.powers.loss[r] if b.wide_losses else 0)
            if job.sums.adds_weights:
                job.sums.weights[b.first + r] = Wide(
                    b.w.weight[i], b.powers.weight_exponent[i] if b.wide else 0)
    if job.sums.sixteens == NULL or job.sums.losses != NULL:
        return
    expect(b.first % TILE == 0)
    sums = job.sums.sixteens + b.first // TILE * 4
    exponents = job.sums.exponents + b.first // TILE * 2
    if job.what & LOSS and b.n_rows == 1 and not b.wide_losses and isfinite(b.loss[0]):
        sums[0] = b.loss[0] + 0.        # which is what the tree makes of it: 0 of -0
        sums[1] = 0
    elif job.what & LOSS:
        sum_sixteens(job, b.loss, &b.powers.loss[0] if b.wide_losses else NULL, n, sums,
                     exponents)
    if not job.sums.adds_weights:
        return
    for r in range(b.n_rows, <int>n * TILE):
        b.w.weight[r] = 0
    sum_sixteens(job, b.w.weight, &b.powers.weight_exponent[0] if b.wide else NULL, n, sums + 2,
                 exponents + 1)


cdef inline void store_stats(const Job *job, const Block *b, int r) noexcept nogil:
    """Store logsumexp, entropy (34), argmax, max_prob, loss and target_prob of row r."""
    cdef double *stats = <double *>row_at(job, &job.stats, b.first + r)
    cdef double total = b.coarse[r] + b.fine[r], unit = job.kernels.exp_unit
    if b.skipped[r]:
        stats[0], stats[1], stats[2], stats[3], stats[4], stats[5] = -INFINITY, 0, -1, 0, 0, 0
        return
    stats[0] = logsumexp_of(job, b, r)
    # In this order, so that a tiny temperature leaves no denormal.
    stats[1] = b.log_total[r] - (b.entropy_dot[r] / job.loss.temperature / unit) / total
    stats[2] = b.arg_max[r]
    stats[3] = 1 / total
    stats[4] = narrow_loss(b, r)
    stats[5] = 0 if b.ignored[r] else ldexp(b.target_exp[r] / unit / total,
                                            -lift_at(b, weights_of(b, r)))
