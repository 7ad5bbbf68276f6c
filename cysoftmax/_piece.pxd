# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# A piece of a row, whether the whole of it (_rows.pxd) or a span (_spans.pxd): how it is loaded,
# and what is summed over it, chunk by chunk. Touches one piece, and for what is rarely needed the
# spans of a row once more. The sums of a row's chunks become its numbers here, in the one order.

from libc.math cimport INFINITY, isfinite, isinf, isnan

from cysoftmax._block cimport Block, weights_of
from cysoftmax._job cimport LABELS, Job
from cysoftmax._kernels cimport CHUNK
from cysoftmax._numbers cimport as_reals, load_logits, real_at
from cysoftmax._scratch cimport SPAN, Piece, Scratch
from cysoftmax._sums cimport (
    ChunkSums, Total, add_chunks, add_terms, chunk_size, chunks, dot_chunks, finish, total_of)
from cysoftmax._target cimport read_again, read_mask, target_dots, target_exp_dots, target_terms
from cysoftmax._what cimport GRAD, LOGSUMEXP, LOSS, SOFTMAX, STATS, VJP
from cysoftmax._write cimport store_pending

cdef struct RowTotals:              # of the chunks of one row; see ChunkSums
    Total exps, target_dot, uniform_dot, entropy_dot, target_exps

cdef enum:                          # what find_class looks for
    A_NAN
    A_MAXIMUM
    AN_UNMASKED


cdef inline void load_piece(const Job *job, Scratch *s, ptrdiff_t i, Piece *p,
                            double *largest) noexcept nogil:
    """Load the logits of a piece, -inf where its mask is 0, and the largest of them unless
    `largest` is NULL; of a VJP, both vectors."""
    if job.what & VJP:
        p.x = as_reals(job, &job.x, i, p.begin, p.n, s.logits)
        p.a = <char *>as_reals(job, &job.target, i, p.begin, p.n, s.target)
    else:
        p.x = load_logits(job, i, p.begin, p.n, p.mask, s.logits, largest)


cdef inline void exp_chunks(const Job *job, Scratch *s, const Piece *p, double shift,
                            ChunkSums *sums) noexcept nogil:
    """Sum exp(d) over each chunk of a piece; the exps go to p.e if an output or a sum needs them.
    Meanwhile the next row is prefetched, and the pending row is stored (see Overlap)."""
    cdef const char *next_row = s.overlap.next_row
    cdef char *e = p.e if job.what & (SOFTMAX | GRAD | STATS) else NULL
    cdef ptrdiff_t k, at, n
    for k in range(chunks(p.n)):
        at = k * CHUNK * job.itemsize
        n = chunk_size(p.n, k)
        job.kernels.exp_sum(
            p.x + at, n, shift, job.loss.inv_temperature,
            next_row + at if next_row != NULL else NULL, e + at if e != NULL else NULL,
            &sums[k].sum.exps.hi, &sums[k].sum.exps.lo)
        if s.overlap.previous.e != NULL:
            store_pending(job, s, at, n)
    s.overlap.previous.e = NULL


cdef inline bint needs_dots(const Job *job, const Block *b, int r) noexcept nogil:
    """Return whether the loss of row r may need sums over its logits besides that of the exps. (Of
    a label alone it needs a single logit.)"""
    return job.what & LOSS and job.plan.has_dots and not b.ignored[r]


cdef inline void reduce_piece(const Job *job, Scratch *s, const Block *b, int r, const Piece *p,
                              ChunkSums *sums) noexcept nogil:
    """Compute all sums over the chunks of a piece of row r. Dots come first: exps may be written
    over the logits."""
    if job.what & VJP:
        dot_chunks(job, p.a, p.x, p.n, NULL, &sums.sum.target_dot)
        return
    if needs_dots(job, b, r):
        target_dots(job, s, b, r, p, sums)
    exp_chunks(job, s, p, b.shift[r], sums)
    if job.what & STATS:
        dot_chunks(job, p.e, p.x, p.n, &b.shift[r], &sums.sum.entropy_dot)
        target_exp_dots(job, s, b, r, p, sums)


cdef inline void add_sums(const Job *job, const Block *b, int r, RowTotals *t,
                          const ChunkSums *sums, ptrdiff_t n) noexcept nogil:
    """Add what reduce_piece found in the next n chunks of row r."""
    if job.what & VJP:
        add_chunks(&t.target_dot, &sums.sum.target_dot, n)
        return
    add_chunks(&t.exps, &sums.sum.exps, n)
    if needs_dots(job, b, r):
        if job.target_is != LABELS:
            add_chunks(&t.target_dot, &sums.sum.target_dot, n)
        if b.w.uniform_mass[weights_of(b, r)] != 0:
            add_chunks(&t.uniform_dot, &sums.sum.uniform_dot, n)
    if job.what & STATS:
        add_chunks(&t.entropy_dot, &sums.sum.entropy_dot, n)
        add_chunks(&t.target_exps, &sums.sum.target_exps, n)


cdef inline void take_sums(const Job *job, Block *b, int r, RowTotals *t) noexcept nogil:
    """Store the totals of row r in its block."""
    if job.what & VJP or (job.what & LOSS and job.plan.by_mass):
        finish(&t.target_dot)
        b.target_dot_hi[r] = t.target_dot.coarse
        b.target_dot_lo[r] = t.target_dot.fine
    if job.what & VJP:
        return
    finish(&t.exps)
    b.coarse[r] = t.exps.coarse
    b.fine[r] = t.exps.fine
    if job.loss.smoothing != 0:
        finish(&t.uniform_dot)
        b.uniform_dot_hi[r] = t.uniform_dot.coarse
        b.uniform_dot_lo[r] = t.uniform_dot.fine
    if job.what & STATS:
        b.entropy_dot[r] = total_of(&t.entropy_dot)
        b.target_exp[r] = total_of(&t.target_exps)


# ---------------------------------------------------------------- what is rarely needed

# These walk the classes of a row once more. `whole` is the row's piece; if it is NULL, the row is
# loaded span by span.

cdef inline Piece load_span(const Job *job, Scratch *s, const Block *b, int r,
                            ptrdiff_t begin) noexcept nogil:
    """Load mask, target and logits of the span of row r that begins at class `begin`."""
    cdef Piece p = Piece(begin, min(<ptrdiff_t>SPAN, job.n_classes - begin), NULL, NULL, NULL,
                         NULL, NULL)
    read_mask(job, s, b.first + r, &p)
    load_again(job, s, b, r, &p)
    return p


cdef inline void load_again(const Job *job, Scratch *s, const Block *b, int r,
                            Piece *p) noexcept nogil:
    """Load target and logits of a piece whose mask was read, once the row's maximum is known."""
    read_again(job, s, b, r, p)
    load_piece(job, s, b.first + r, p, NULL)


cdef inline ptrdiff_t find_class(const Job *job, Scratch *s, const Block *b, int r,
                                 const Piece *whole, int sought) noexcept nogil:
    """Return the first class of row r whose logit is NaN, or is the largest, or is not masked;
    n_classes if there is none."""
    cdef ptrdiff_t begin = 0, c
    cdef Piece p
    if whole != NULL:
        return first_class(job, whole, sought, b.shift[r])
    while begin < job.n_classes:
        p = load_span(job, s, b, r, begin)
        c = first_class(job, &p, sought, b.shift[r])
        if c < p.n:
            return begin + c
        begin += p.n
    return job.n_classes


cdef inline ptrdiff_t first_class(const Job *job, const Piece *p, int sought,
                                  double shift) noexcept nogil:
    """Find a class as find_class does, within one piece: return its index there, or p.n."""
    cdef ptrdiff_t c
    if sought == A_MAXIMUM:
        return job.kernels.index_of(p.x, p.n, shift)
    for c in range(p.n):
        if sought == AN_UNMASKED and p.mask[c] != 0:
            return c
        if sought == A_NAN and isnan(real_at(job, p.x, c, p.n)):
            return c
    return p.n


cdef inline ptrdiff_t find_arg_max(const Job *job, Scratch *s, const Block *b, int r,
                                   const Piece *whole) noexcept nogil:
    """Return the first of the largest logits that are not masked, or the first NaN."""
    cdef ptrdiff_t c
    if isnan(b.coarse[r]) or isnan(b.fine[r]):
        c = find_class(job, s, b, r, whole, A_NAN)
        if c < job.n_classes:
            return c
        if job.where.data != NULL and b.shift[r] == -INFINITY:
            return find_class(job, s, b, r, whole, AN_UNMASKED)
    return find_class(job, s, b, r, whole, A_MAXIMUM)


cdef inline void finish_sums(const Job *job, Scratch *s, Block *b, int r, RowTotals *t,
                             const Piece *whole) noexcept nogil:
    """Store the totals of row r in its block. A dot that overflowed is summed again, term by term
    in double. If the maximum is infinite, look for a NaN; for statistics, find the argmax."""
    cdef bint dots = needs_dots(job, b, r)
    cdef bint target_lost = dots and not isfinite(t.target_dot.coarse)
    cdef bint uniform_lost = dots and not isfinite(t.uniform_dot.coarse)
    if target_lost or uniform_lost:
        sum_lost_dots(job, s, b, r, whole, &t.target_dot if target_lost else NULL,
                      &t.uniform_dot if uniform_lost else NULL)
    take_sums(job, b, r, t)
    if job.what & (LOGSUMEXP | STATS):
        if isinf(b.shift[r]):
            b.has_nan[r] = find_class(job, s, b, r, whole, A_NAN) < job.n_classes
        if job.what & STATS:
            b.arg_max[r] = find_arg_max(job, s, b, r, whole)


cdef inline void sum_lost_dots(const Job *job, Scratch *s, const Block *b, int r,
                               const Piece *whole, Total *target_dot,
                               Total *uniform_dot) noexcept nogil:
    """Sum the dots of row r term by term, each unless it is NULL."""
    cdef ptrdiff_t begin = 0
    cdef Piece p
    if target_dot != NULL:
        target_dot[0] = Total(0, 0, 0)
    if uniform_dot != NULL:
        uniform_dot[0] = Total(0, 0, 0)
    while begin < job.n_classes:
        p = whole[0] if whole != NULL else load_span(job, s, b, r, begin)
        if target_dot != NULL:
            target_terms(job, s, b, r, &p, target_dot)
        if uniform_dot != NULL:
            add_terms(job, p.base, p.x, p.n, 1, b.shift[r], uniform_dot)
        begin += p.n
