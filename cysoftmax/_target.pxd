# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# What labels, distributions and sparse rows say about a row, and what they do to its exps.

from libc.string cimport memset

from cysoftmax._formula cimport Group, factor_for, left_of, sharp_weight, weights_of
from cysoftmax._job cimport (
    BAD_LABEL, DISTRIBUTION, IGNORED_LABEL, Job, LABELS, SPARSE, Weights, expect, leaves_more,
    row_at)
from cysoftmax._kernels cimport TILE
from cysoftmax._numbers cimport count, load_numbers, put_real, read_labels, real_at, where_row
from cysoftmax._sparse cimport dot_of_entries, entry_at, entry_bound, weigh_entries
from cysoftmax._sums cimport Total, all_zero, loss_dot, mass_of
from cysoftmax._what cimport MASS, STATS

cdef struct Place:              # where one row is
    const char *x               # its logits, side by side
    char *e                     # its exps, or NULL
    char *a                     # the shares, if the target is a distribution
    const char *base            # the class weights of the classes that take part; NULL for ones
    const unsigned char *where  # which classes take part, or NULL for all


cdef inline void open_group(Job *job, Group *g, ptrdiff_t first, int n_rows,
                            Weights *weights) noexcept nogil:
    """Read what there is of each row besides its logits: label, weight, scale; `weights` has room
    for what is special about them. A row whose label is out of range gets class 0, and the call
    an error in the end."""
    cdef ptrdiff_t any_sign = 0
    cdef int r
    g.first = first
    g.n_rows = n_rows
    g.weights = &job.ones
    g.weights_step = 0
    if job.weighted or job.scale.data != NULL or leaves_more(job):
        g.weights = weights
        g.weights_step = 1
        for r in range(n_rows):
            weights[r] = job.ones
    clear_rows(g, (n_rows + TILE - 1) // TILE * TILE,   # a tile has 16 rows whatever n_rows is
               job.tiles > 0 and n_rows % TILE == 0 and not job.weighted)
    if job.target_is == LABELS:
        read_labels(job, first, n_rows, g.y)
        for r in range(n_rows):
            any_sign |= g.y[r]
        for r in range(n_rows if any_sign < 0 else 0):
            if g.y[r] < 0:
                if g.y[r] == BAD_LABEL:
                    job.bad = 1
                g.ignored[r] = g.y[r] == IGNORED_LABEL
                g.y[r] = 0
    if job.weighted:
        for r in range(n_rows):
            if job.target_is == LABELS and job.class_weight != NULL:
                weights[r].share = weights[r].mass = real_at(job, job.class_weight, g.y[r])
            if job.sample.data != NULL:
                weights[r].sample = (<const double *>row_at(job, &job.sample, first + r))[0]
                g.ignored[r] |= weights[r].sample == 0
            weigh(job, g, r)
    if job.scale.data != NULL:
        for r in range(n_rows):
            weights[r].factor = factor_for(
                job, (<const double *>row_at(job, &job.scale, first + r))[0])


cdef inline void clear_rows(Group *g, int n, bint computed) noexcept nogil:
    """What n rows boil down to if nothing is found out about them, or all of it is `computed`."""
    cdef int r
    memset(g.skipped, 0, n)
    memset(g.ignored, 0, n)
    memset(g.loss, 0, n * sizeof(double))
    if computed:
        return
    memset(g.y, 0, n * sizeof(g.y[0]))
    memset(g.fine, 0, n * sizeof(double))
    memset(g.log_total, 0, n * sizeof(double))
    memset(g.hi, 0, n * sizeof(double))
    memset(g.lo, 0, n * sizeof(double))
    for r in range(n):
        g.coarse[r] = 1


cdef inline void weigh(const Job *job, Group *g, int r) noexcept nogil:
    """Take note of what row r weighs."""
    cdef Weights *w = weights_of(g, r)
    if g.ignored[r]:
        w.share = w.mass = 0
    w.weight = w.sample * w.mass
    # The statistics of a row do not need its target.
    g.skipped[r] = g.ignored[r] and not job.what & STATS


cdef inline void prepare_row(Job *job, char *scratch, Group *g, int r, Place *p) noexcept nogil:
    """Read a row's mask and distribution: which classes take part, and what they weigh."""
    cdef Weights *w = weights_of(g, r)
    cdef ptrdiff_t i = g.first + r, n = job.n_classes, taking_part = n
    if g.skipped[r]:
        return
    if job.where.data != NULL:
        p.where = where_row(job, i, scratch + job.where_at)
        taking_part = count(p.where, n)
    if taking_part == 0:
        g.ignored[r] = 1
        weigh(job, g, r)
        g.skipped[r] = 1
        g.y[r] = 0
        return
    if job.target_is == DISTRIBUTION:
        p.a = scratch + job.target_at
        load_numbers(job, &job.target, i, p.a)
        w.given = w.mass = mass_of(job, p.a)
        g.ignored[r] |= w.given == 0 and all_zero(job, p.a)
        if job.class_weight != NULL:
            job.kernels.multiply(p.a, job.class_weight, n, p.a)
            w.mass = mass_of(job, p.a)
    elif job.target_is == SPARSE:
        weigh_entries(job, g, r)
    if job.smoothing != 0 and not g.ignored[r] and not job.what & MASS:
        w.smooth = job.smoothing * w.given / taking_part
        w.smooth_sum = w.smooth * job.class_sum
        if p.where != NULL:     # class_weight is never NULL then
            job.kernels.select(p.where, job.class_weight, n, 0, scratch + job.base_at)
            p.base = scratch + job.base_at
            w.smooth_sum = w.smooth * mass_of(job, p.base)
    weigh(job, g, r)


cdef inline void label_terms(const Job *job, Group *g, int begin, int end,
                             const char **x) noexcept nogil:
    """share (x - shift) of the labels of rows whose classes lie side by side."""
    cdef double[TILE] share, gathered       # what is gathered are reals
    cdef int r
    for r in range(begin, end):
        expect(0 <= g.y[r] < job.n_classes)
        share[r - begin] = weights_of(g, r).share
        put_real(job, <char *>gathered, r - begin,
                 real_at(job, x[r], g.y[r]) if share[r - begin] != 0 else 0)
    job.kernels.terms(share, gathered, g.shift + begin, end - begin, g.sharp_hi + begin,
                      g.sharp_lo + begin)


cdef inline void row_terms(Job *job, Group *g, int r, const Place *p) noexcept nogil:
    """What the loss of row r needs of its logits; a label's term is there already."""
    cdef Total total
    if job.target_is != LABELS:
        total = (loss_dot(job, p.a, p.x, g.shift[r]) if job.target_is == DISTRIBUTION
                 else dot_of_entries(job, g.first + r, p.x, g.shift[r]))
        g.sharp_hi[r] = total.coarse
        g.sharp_lo[r] = total.fine
    if weights_of(g, r).smooth != 0:
        total = loss_dot(job, p.base, p.x, g.shift[r])
        g.even_hi[r] = total.coarse
        g.even_lo[r] = total.fine


cdef inline void minus_rest_at_labels(const Job *job, const Group *g, int begin, int end,
                                char **e) noexcept nogil:
    """Before the exps are scaled: what has to be done for the labels. Where e is NULL there is
    nothing to do."""
    cdef void *exps[TILE]
    cdef const Weights *w
    cdef int r
    for r in range(begin, end):
        exps[r] = NULL
        w = weights_of(g, r)
        if e[r] != NULL and w.share >= w.half:
            exps[r] = e[r] + g.y[r] * job.itemsize
    job.kernels.minus_rest(exps + begin, g.coarse + begin, g.fine + begin, end - begin)


cdef inline void subtract(const Job *job, const Group *g, int r, double share,
                          char *grad) noexcept nogil:
    """And after the exps were scaled; grad is the entry of the gradient."""
    share = left_of(g, r, share)
    if share != 0:
        job.kernels.subtract(grad, share, sharp_weight(job, g, r))


cdef inline void subtract_label(const Job *job, const Group *g, int r, char *grad) noexcept nogil:
    subtract(job, g, r, weights_of(g, r).share, grad)


cdef inline void minus_rest_at_entries(Job *job, const Group *g, int r, char *e) noexcept nogil:
    """minus_rest_at_labels for a row with a sparse target."""
    cdef ptrdiff_t j, c
    cdef double share
    cdef void *place
    for j in range(entry_bound(job, g.first + r), entry_bound(job, g.first + r + 1)):
        c = entry_at(job, j, True, &share)
        if share >= weights_of(g, r).half:
            place = e + c * job.itemsize
            job.kernels.minus_rest(&place, &g.coarse[r], &g.fine[r], 1)


cdef inline void subtract_entries(Job *job, const Group *g, int r, char *grad) noexcept nogil:
    """subtract_label for each entry of a sparse target."""
    cdef ptrdiff_t j, c
    cdef double share
    for j in range(entry_bound(job, g.first + r), entry_bound(job, g.first + r + 1)):
        c = entry_at(job, j, True, &share)
        subtract(job, g, r, share, grad + c * job.itemsize)
