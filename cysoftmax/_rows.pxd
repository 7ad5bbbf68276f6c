# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# The way ROWS: each row is one piece, its classes lie along the vector. A part is one row, or
# sixteen if their exps stay in the L1 cache. Touches the scratch of one thread, and one block.

from cysoftmax._block cimport Block, weights_of
from cysoftmax._extremes cimport lift_at, raised_by
from cysoftmax._given cimport take_shifts
from cysoftmax._job cimport LABELS, Job, row_at
from cysoftmax._piece cimport RowTotals, add_sums, finish_sums, load_piece, reduce_piece
from cysoftmax._scratch cimport Pending, Piece, Scratch, apart_from
from cysoftmax._sums cimport Total, add, chunks, finish
from cysoftmax._target cimport (
    RowMasses, add_masses, label_dots, minus_rest_at_labels, read_again, read_mask, sum_masses,
    weigh_row)
from cysoftmax._what cimport LOSS, VARIANCE
from cysoftmax._write cimport skip_piece, write_piece, write_variance

cdef inline void weigh_rows(const Job *job, Scratch *s, Block *b, int begin,
                            int end) noexcept nogil:
    """Read masks and distributions of rows, one after the other: what they weigh."""
    cdef ptrdiff_t i
    cdef RowMasses masses
    cdef Piece *p
    cdef int r
    for r in range(begin, end):
        p = &s.pieces[r - begin]
        p[0] = Piece(0, job.n_classes, NULL, NULL, NULL, NULL, NULL)
        if b.skipped[r] or not job.plan.reads_rows:
            continue
        i = b.first + r
        masses = RowMasses(Total(0, 0, 0), Total(0, 0, 0), Total(0, 0, 0), 0, False)
        read_mask(job, s, i, p)
        sum_masses(job, s, i, p, s.sums)
        add_masses(job, &masses, s.sums, chunks(job.n_classes))
        weigh_row(job, b, r, &masses)
        if lift_at(b, weights_of(b, r)) != 0:
            read_again(job, s, b, r, p)


cdef inline void load_rows(const Job *job, Scratch *s, Block *b, int begin, int end) noexcept nogil:
    """Load the logits of rows, and their maxima; give each a place for its exps."""
    cdef char *exps = NULL
    cdef Piece *p
    cdef int r
    weigh_rows(job, s, b, begin, end)
    for r in range(begin, end):
        p = &s.pieces[r - begin]
        if b.skipped[r]:
            b.shift[r] = 0
            b.label[r] = 0
            continue
        load_piece(job, s, b.first + r, p, &b.shift[r])
        if job.plan.exps_over_logits:
            p.e = <char *>p.x
            continue
        if exps == NULL and job.plan.exps_in_scratch:
            exps = apart_from(s.buffers[s.current], p.x)
        if exps != NULL:
            p.e = exps + (r - begin) * job.plan.exp_stride
    take_shifts(job, b, begin, end)


cdef inline void reduce_rows(const Job *job, Scratch *s, Block *b, int begin,
                             int end) noexcept nogil:
    """Compute the sums of rows. Not in one loop with load_rows: no exp then waits for the maximum
    of its own row."""
    cdef int r
    if job.what & LOSS and job.target_is == LABELS:
        label_dots(job, s, b, begin, end)
    for r in range(begin, end):
        if b.skipped[r]:
            continue
        if job.plan.rows_ahead > 0:
            s.overlap.next_row = row_at(
                job, &job.x, min(b.first + r + job.plan.rows_ahead, job.n_rows - 1))
        reduce_row(job, s, b, r, &s.pieces[r - begin])


cdef inline void reduce_row(const Job *job, Scratch *s, Block *b, int r,
                            const Piece *p) noexcept nogil:
    """Compute the sums of one row."""
    cdef RowTotals totals
    cdef Total zero = Total(0, 0, 0), total
    cdef ptrdiff_t k
    reduce_piece(job, s, b, r, p, s.sums)
    if job.plan.exps_alone:     # as below, without the other sums: 1.4 % of 1000 classes
        total = Total(s.sums.sum.exps.hi, s.sums.sum.exps.lo, 0)
        for k in range(1, chunks(job.n_classes)):
            add(&total, s.sums[k].sum.exps)
        finish(&total)
        b.coarse[r] = total.coarse
        b.fine[r] = total.fine
        return
    totals = RowTotals(zero, zero, zero, zero, zero)
    add_sums(job, b, r, &totals, s.sums, chunks(job.n_classes))
    finish_sums(job, s, b, r, &totals, p)


cdef inline void write_rows(const Job *job, Scratch *s, Block *b, int begin,
                            int end) noexcept nogil:
    """Write the outputs of rows. With `defers`, a part is one row: its exps become pending."""
    cdef Piece *p
    cdef int r
    if job.out.data == NULL:
        return
    if job.what & VARIANCE:
        for r in range(begin, end):
            if not b.skipped[r]:
                write_variance(job, s, b, r, &s.pieces[r - begin])
    minus_rest_at_labels(job, b, begin, end, s.pieces)
    for r in range(begin, end):
        p = &s.pieces[r - begin]
        if b.skipped[r]:
            skip_piece(job, b, r, 0, job.n_classes)
        elif job.plan.defers and raised_by(b, r) == 0:
            s.overlap.previous = Pending(p.e, row_at(job, &job.out, b.first + r), b.factor_hi[r],
                                         b.factor_lo[r])
            s.current = 1 - s.current
        else:
            write_piece(job, s, b, r, p)


# ---------------------------------------------------------------- rows of a VJP

cdef inline void write_rows_of_vjp(const Job *job, Scratch *s, ptrdiff_t index) noexcept nogil:
    """Write one block of rows of a VJP (15) that follow each other in all three arrays."""
    cdef ptrdiff_t first = index * job.plan.block_rows, n = job.n_classes
    cdef ptrdiff_t n_rows = min(<ptrdiff_t>job.plan.block_rows, job.n_rows - first)
    cdef const char *p = row_at(job, &job.x, first)
    cdef char *place = row_at(job, &job.out, first)
    cdef char *out = apart_from(s.buffers[0], p) if job.plan.streamed else place
    job.kernels.rows_vjp(p, row_at(job, &job.target, first), n, n_rows, out)
    if job.plan.streamed:
        job.kernels.stream_copy(out, n_rows * n, place, &s.out_carry)
