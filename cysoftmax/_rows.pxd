# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# Rows that lie along the vector, one after the other.

from libc.math cimport INFINITY
from libc.stdint cimport uintptr_t

from cysoftmax._formula cimport Group, logsumexp_of, loss_of, take_factors, take_logs, take_losses
from cysoftmax._job cimport Job, LABELS, row_at
from cysoftmax._kernels cimport CHUNK, TILE
from cysoftmax._numbers cimport fill_row, load_logits, load_row
from cysoftmax._plan cimport Late, PAGE, Thread, computed_apart, keeps_exps
from cysoftmax._sums cimport Total, add, chunks, dot, finish
from cysoftmax._target cimport Place, label_terms, minus_rest_at_labels, prepare_row, row_terms
from cysoftmax._what cimport GRAD, LOGSUMEXP, LOSS, MASS, SOFTMAX, STATS, VARIANCE
from cysoftmax._write cimport deliver, filling, write_late, write_row, write_stats, write_variance

cdef inline Total sum_of_exp(const Job *job, const char *x, double shift, const char *next,
                             char *e, Thread *t=NULL) noexcept nogil:
    """sum exp(d) over the classes; each exp goes to e, unless that is NULL. On the way, the row
    at `next` is fetched from memory, unless that is NULL, and a row of the thread that waits is
    written."""
    cdef Total total = Total(0, 0, 0)
    cdef double coarse, fine
    cdef ptrdiff_t b, at, n
    for b in range(chunks(job.n_classes)):
        at = b * CHUNK * job.itemsize
        n = min(<ptrdiff_t>CHUNK, job.n_classes - b * CHUNK)
        job.kernels.exp_sum(x + at, n, shift, job.inv_temperature, next + at if next != NULL else NULL,
                            e + at if e != NULL else NULL, &coarse, &fine)
        if b == 0:      # all there is, mostly
            total = Total(coarse, fine, 0)
        else:
            add(&total, coarse, fine)
        if t != NULL and t.late.e != NULL:
            write_late(job, t, at, n)
    if t != NULL:
        t.late.e = NULL
    finish(&total)
    return total


cdef inline char *offset_from(char *scratch, const char *x) noexcept nogil:
    """Half a page away from x modulo a page: a load of x that has the same low address bits
    as a store still under way would have to wait for it (3.5 times slower when measured)."""
    return scratch + ((<uintptr_t>x + PAGE // 2 - <uintptr_t>scratch) % PAGE & ~<uintptr_t>63)


cdef inline const char *early(const Job *job, ptrdiff_t i) noexcept nogil:
    """The row that is to be fetched while row i is worked on, or NULL."""
    if job.fetch_rows == 0:
        return NULL
    return row_at(job, &job.x, min(i + job.fetch_rows, job.n_rows - 1))


# The memory is idle while exps are computed, and the arithmetic while a row is stored. So the
# exps of a row of several chunks wait, and are stored in turns with the chunks of the next row.


cdef inline void do_rows(Job *job, char *scratch, Group *g) noexcept nogil:
    """A group's rows, one after the other: outputs are written, or wait, and losses are left in
    the group."""
    cdef Place[TILE] p
    cdef int begin = 0
    while begin < g.n_rows:
        rows_together(job, scratch, g, begin, min(begin + job.together, g.n_rows), p)
        begin += job.together
    if job.logs_late and not job.what & MASS:
        take_logs(job, g, 0, g.n_rows)
        if job.what & LOSS:
            take_losses(job, g)
        elif job.what & LOGSUMEXP:
            take_logsumexps(job, g, 0, g.n_rows, p)


cdef inline void take_logsumexps(const Job *job, Group *g, int begin, int end,
                                 const Place *p) noexcept nogil:
    cdef int r
    for r in range(begin, end):
        g.loss[r] = -INFINITY
        if not g.skipped[r]:
            g.loss[r] = logsumexp_of(job, p[r].x, g.shift[r], g.log_total[r])


cdef inline void rows_together(Job *job, char *scratch, Group *g, int begin, int end,
                               Place *p) noexcept nogil:
    """So many rows that their exps stay in the L1 cache; in three steps, so that the few numbers
    of all of them are worked on together."""
    cdef const char *x[TILE]
    cdef char *e[TILE]
    cdef Thread *t = <Thread *>scratch
    cdef Total total
    cdef char *exps = NULL
    cdef int r

    for r in range(begin, end):
        p[r] = Place(NULL, NULL, NULL, job.class_weight, NULL)
        if job.prepared:
            prepare_row(job, scratch, g, r, &p[r])
        if g.skipped[r]:
            g.shift[r] = 0
            g.y[r] = 0
        if g.skipped[r] or job.what & MASS:
            continue
        p[r].x = load_logits(job, g.first + r, scratch + job.x_at, p[r].where, &g.shift[r])
        if exps == NULL and keeps_exps(job):
            exps = offset_from(scratch + job.e_at + t.half * job.half_bytes, p[r].x)
        if exps != NULL:
            p[r].e = exps + (r - begin) * job.exp_bytes
    if job.what & MASS:
        return

    for r in range(begin, end):     # not in one loop: no exp waits for its own row's maximum
        if g.skipped[r]:
            continue
        total = sum_of_exp(job, p[r].x, g.shift[r], early(job, g.first + r), (
            p[r].e if job.what & (SOFTMAX | GRAD | STATS) else NULL), t)
        g.coarse[r] = total.coarse
        g.fine[r] = total.fine

    if not job.logs_late:
        take_logs(job, g, begin, end)
        if job.what & LOGSUMEXP:
            take_logsumexps(job, g, begin, end, p)
    take_factors(job, g, begin, end)
    if job.target_is == LABELS:
        for r in range(begin, end):
            x[r] = p[r].x
            e[r] = p[r].e
        if job.what & LOSS:
            label_terms(job, g, begin, end, x)
    if job.what & LOSS and job.prepared:
        for r in range(begin, end):
            if not g.ignored[r]:
                row_terms(job, g, r, &p[r])
    if job.what & VARIANCE:
        for r in range(begin, end):
            if not g.skipped[r]:
                write_variance(job, scratch, g, r, &p[r])
    if job.what & GRAD and job.target_is == LABELS and job.keep != 0:
        minus_rest_at_labels(job, g, begin, end, e)

    for r in range(begin, end):
        if job.what & LOSS and not job.logs_late and not g.ignored[r]:
            g.loss[r] = loss_of(job, g, r)
        if job.what & STATS:
            write_stats(job, g, r, &p[r])
        elif g.skipped[r]:
            fill_row(job, &job.out, g.first + r, filling(job))
            fill_row(job, &job.variance, g.first + r, 0)
        elif job.late:          # it is the only row of its batch
            t.late = Late(p[r].e, row_at(job, &job.out, g.first + r), g.hi[r], g.lo[r])
            t.half = 1 - t.half
        elif job.out.data != NULL:
            write_row(job, t, g, r, &p[r])


cdef inline void do_vjp(Job *job, char *scratch, ptrdiff_t i) noexcept nogil:
    """Row i of p * (v - sum(p v))."""
    cdef const char *p = load_row(job, &job.x, i, scratch + job.x_at)
    cdef const char *v = load_row(job, &job.target, i, scratch + job.target_at)
    cdef char *row = scratch + job.e_at
    cdef Total s = dot(job, v, p, 0, False)
    if not computed_apart(job, &job.out):
        row = row_at(job, &job.out, i)
    job.kernels.vjp(p, v, job.n_classes, s.coarse, s.fine, row)
    deliver(job, &(<Thread *>scratch).line, &job.out, i, row)
