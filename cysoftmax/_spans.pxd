# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# The way SPANS: a row is cut into spans of SPAN classes, so that scratch does not grow with the
# row; threads may share the spans of a row. Each stage walks all spans of a block's rows before the
# next begins. A span is loaded anew in each stage, and its exps are computed a second time when
# they are written, unless they can wait in the output. Touches one span, and its chunks' sums.

from libc.math cimport INFINITY

from cysoftmax._block cimport MOST_ROWS, Block
from cysoftmax._given cimport take_shifts
from cysoftmax._job cimport LABELS, Job, class_at
from cysoftmax._kernels cimport CHUNK, TILE
from cysoftmax._piece cimport (
    RowTotals, add_sums, exp_chunks, finish_sums, load_again, load_piece, reduce_piece)
from cysoftmax._scratch cimport SPAN, Piece, Scratch
from cysoftmax._sums cimport ChunkSums, Total, chunks, count_sixteens
from cysoftmax._target cimport (
    RowMasses, add_masses, label_dots, minus_rest_at_labels, read_mask, sum_masses, weigh_row)
from cysoftmax._what cimport GRAD, LOSS, SOFTMAX, STATS, VARIANCE
from cysoftmax._write cimport skip_piece, write_piece, write_variance

cdef enum:
    SPAN_CHUNKS = SPAN // CHUNK

cdef enum Stage:
    WEIGH                           # open: masks and distributions
    LOAD
    REDUCE
    WRITE

cdef struct SpanBlock:              # a block of long rows
    Block block
    RowMasses[MOST_ROWS] masses
    RowTotals[MOST_ROWS] totals


cdef inline void open_spans(SpanBlock *sb) noexcept nogil:
    """Reset the totals of a block's rows."""
    cdef Total zero = Total(0, 0, 0)
    cdef int r
    for r in range(sb.block.n_rows):
        sb.block.shift[r] = -INFINITY
        sb.masses[r] = RowMasses(zero, zero, zero, 0, False)
        sb.totals[r] = RowTotals(zero, zero, zero, zero, zero)


cdef inline void walk_span(const Job *job, Scratch *s, const Block *b, Stage stage, ptrdiff_t u,
                           ChunkSums *sums, double *largest) noexcept nogil:
    """Do one stage for span u of a block: its sums go to the chunks at `sums`, its maximum to
    `largest`, its outputs to the arrays."""
    cdef int r = <int>(u // job.plan.n_spans)
    cdef ptrdiff_t begin = u % job.plan.n_spans * SPAN
    cdef Piece p = Piece(begin, min(<ptrdiff_t>SPAN, job.n_classes - begin), NULL, NULL, NULL,
                         NULL, NULL)
    if b.skipped[r]:
        if stage == WRITE:
            skip_piece(job, b, r, p.begin, p.n)
        return
    read_mask(job, s, b.first + r, &p)
    if stage == WEIGH:
        sum_masses(job, s, b.first + r, &p, sums)
    elif stage == LOAD:
        load_piece(job, s, b.first + r, &p, largest)
    elif stage == REDUCE:
        load_again(job, s, b, r, &p)
        if job.plan.exps_in_out:
            p.e = class_at(job, &job.out, b.first + r, p.begin)
        elif job.what & STATS:
            p.e = s.buffers[0]
        reduce_piece(job, s, b, r, &p, sums)
    else:
        write_span(job, s, b, r, &p)


cdef inline void write_span(const Job *job, Scratch *s, const Block *b, int r,
                            Piece *p) noexcept nogil:
    """Write the outputs of a span; its exps are in the output, or computed once more."""
    cdef ChunkSums[SPAN_CHUNKS] sums        # known already
    if job.plan.exps_in_out:
        p.e = class_at(job, &job.out, b.first + r, p.begin)
    else:
        load_again(job, s, b, r, p)
        p.e = <char *>p.x if job.plan.exps_over_logits else s.buffers[0]
        if job.what & (SOFTMAX | GRAD):
            exp_chunks(job, s, p, b.shift[r], sums)
    if job.what & VARIANCE:
        write_variance(job, s, b, r, p)
    minus_rest_at_labels(job, b, r, r + 1, p)
    write_piece(job, s, b, r, p)


cdef inline void join_span(const Job *job, SpanBlock *sb, Stage stage, ptrdiff_t u,
                           const ChunkSums *sums, double largest) noexcept nogil:
    """Add what a stage found in span u to its row: called for all spans in their order."""
    cdef int r = <int>(u // job.plan.n_spans)
    cdef ptrdiff_t n = chunks(min(
        <ptrdiff_t>SPAN, job.n_classes - u % job.plan.n_spans * SPAN))
    if sb.block.skipped[r]:
        return
    if stage == WEIGH:
        add_masses(job, &sb.masses[r], sums, n)
    elif stage == REDUCE:
        add_sums(job, &sb.block, r, &sb.totals[r], sums, n)
    elif stage == LOAD and largest > sb.block.shift[r]:
        sb.block.shift[r] = largest


cdef inline void end_stage(const Job *job, Scratch *s, SpanBlock *sb, Stage stage) noexcept nogil:
    """Compute what a stage leaves to be done for whole rows, after all of their spans."""
    cdef Block *b = &sb.block
    cdef int r, t
    for r in range(b.n_rows):
        if stage == WEIGH and not b.skipped[r]:
            weigh_row(job, b, r, &sb.masses[r])
        if b.skipped[r]:
            b.shift[r] = 0
            b.label[r] = 0
        elif stage == REDUCE:
            finish_sums(job, s, b, r, &sb.totals[r], NULL)
    if stage == LOAD:
        take_shifts(job, b, 0, b.n_rows)
    if stage == LOAD and job.what & LOSS and job.target_is == LABELS:
        for t in range(count_sixteens(b.n_rows)):
            r = t * TILE
            label_dots(job, s, b, r, min(r + TILE, b.n_rows))
