# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# Few long rows, each cut into spans of classes that threads share.

from libc.math cimport INFINITY
from libc.string cimport memset

from cysoftmax._formula cimport Group, finish_group, logsumexp_of, loss_of, weights_of
from cysoftmax._job cimport Job, row_at
from cysoftmax._kernels cimport CHUNK, TILE
from cysoftmax._sums cimport Total, add, chunks, finish
from cysoftmax._target cimport label_terms, minus_rest_at_labels, subtract_label
from cysoftmax._what cimport GRAD, LOGSUMEXP, LOG_SOFTMAX, LOSS, SOFTMAX
from cysoftmax._write cimport keep_numbers

cdef enum:
    LONG_SHARE = 16 * CHUNK

cdef struct Share:                  # one of the blocks into which long rows are cut
    ptrdiff_t row, begin, end       # the classes begin ... end - 1 of that row


cdef inline Share share_at(const Job *job, ptrdiff_t unit, ptrdiff_t shares) noexcept nogil:
    cdef Share s
    s.row = unit // shares
    s.begin = unit % shares * LONG_SHARE
    s.end = min(s.begin + LONG_SHARE, job.n_classes)
    return s


cdef inline void long_max(const Job *job, ptrdiff_t unit, ptrdiff_t shares,
                          double *largest) noexcept nogil:
    cdef Share s = share_at(job, unit, shares)
    largest[unit] = job.kernels.max(
        row_at(job, &job.x, s.row) + s.begin * job.itemsize, s.end - s.begin)


cdef inline void long_exp(const Job *job, ptrdiff_t unit, ptrdiff_t shares, const Group *groups,
                          double *sums) noexcept nogil:
    """The exps of one share, chunk by chunk; sums has a pair for each."""
    cdef Share s = share_at(job, unit, shares)
    cdef double shift = groups[s.row // TILE].shift[s.row % TILE]
    cdef ptrdiff_t b, c, at
    cdef char *e = NULL
    sums += 2 * (s.row * chunks(job.n_classes) + s.begin // CHUNK)
    for b in range(chunks(s.end - s.begin)):
        c = s.begin + b * CHUNK
        at = c * job.itemsize
        if job.what & (SOFTMAX | GRAD):
            e = row_at(job, &job.out, s.row) + at
        job.kernels.exp_sum(row_at(job, &job.x, s.row) + at, min(<ptrdiff_t>CHUNK, s.end - c),
                            shift, job.inv_temperature, NULL, e, sums, sums + 1)
        sums += 2


cdef inline void long_out(const Job *job, ptrdiff_t unit, ptrdiff_t shares,
                          const Group *groups) noexcept nogil:
    cdef Share s = share_at(job, unit, shares)
    cdef ptrdiff_t at = s.begin * job.itemsize, n = s.end - s.begin
    cdef char *out = row_at(job, &job.out, s.row) + at
    cdef const Group *g = &groups[s.row // TILE]
    cdef int r = s.row % TILE
    if g.skipped[r]:
        memset(out, 0, n * job.itemsize)
    elif job.what & LOG_SOFTMAX:
        job.kernels.log(row_at(job, &job.x, s.row) + at, n, g.shift[r], job.inv_temperature, g.log_total[r],
                        out)
    else:
        job.kernels.scale(out, n, g.hi[r], g.lo[r], NULL, 0, NULL, 0, out)


cdef inline void long_open(Job *job, Group *g, const double *largest, ptrdiff_t shares) noexcept nogil:
    """The maxima of a group's rows; and what the loss needs of the logits, which the output
    may be written over."""
    cdef const char *x[TILE]
    cdef int r
    cdef ptrdiff_t u
    for r in range(g.n_rows):
        x[r] = row_at(job, &job.x, g.first + r)
        g.shift[r] = -INFINITY
        for u in range((g.first + r) * shares, (g.first + r + 1) * shares):
            if largest[u] > g.shift[r]:
                g.shift[r] = largest[u]
    if job.what & LOSS:
        label_terms(job, g, 0, g.n_rows, x)


cdef inline void long_finish(Job *job, Group *g, const double *sums) noexcept nogil:
    """From the sums of the chunks to losses and factors."""
    cdef ptrdiff_t n_chunks = chunks(job.n_classes), c, i
    cdef char *e[TILE]
    cdef Total total
    cdef int r
    for r in range(g.n_rows):
        i = g.first + r
        total = Total(0, 0, 0)
        for c in range(i * n_chunks, (i + 1) * n_chunks):
            add(&total, sums[2 * c], sums[2 * c + 1])
        finish(&total)
        g.coarse[r] = total.coarse
        g.fine[r] = total.fine
    finish_group(job, g)
    for r in range(g.n_rows):
        i = g.first + r
        if job.what & LOGSUMEXP:
            g.loss[r] = logsumexp_of(job, row_at(job, &job.x, i), g.shift[r], g.log_total[r])
        elif job.what & LOSS and not g.ignored[r]:
            g.loss[r] = loss_of(job, g, r)
        keep_numbers(job, i, g.loss[r], weights_of(g, r).weight)
        if job.what & GRAD:
            e[r] = row_at(job, &job.out, i)
    if job.what & GRAD:
        minus_rest_at_labels(job, g, 0, g.n_rows, e)


cdef inline void long_close(Job *job, const Group *g) noexcept nogil:
    """What is left to do about the labels in a gradient."""
    cdef int r
    for r in range(g.n_rows):
        if not g.skipped[r]:
            subtract_label(job, g, r,
                           row_at(job, &job.out, g.first + r) + g.y[r] * job.itemsize)
