# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# What the target, the weights and the mask say about a row. Four verbs, each for labels,
# distributions and sparse rows: weigh (what the target weighs), dots (what the loss needs of the
# logits), minus_rest (before exps are scaled), subtract (after). Touches logits, exps and
# gradient of one row or piece, at the classes of its target.

from libc.string cimport memcpy

from cysoftmax._block cimport (
    MOST_ROWS, Block, clear_ignored, clear_rows, open_weights, skip_ignored, target_factor,
    weigh_labels, weigh_masses, weights_of)
from cysoftmax._extreme_targets cimport holds_small_numbers, settle_labels, settle_row
from cysoftmax._extremes cimport lift_at, take_scales
from cysoftmax._formula cimport residual_mass
from cysoftmax._given cimport forget_labels_elsewhere, ignore_masked_rows, weigh_given
from cysoftmax._job cimport (
    DISTRIBUTION, LABELS, ROWS, SPARSE, Job, class_at, expect)
from cysoftmax._kernels cimport CHUNK, TILE
from cysoftmax._numbers cimport (
    count, load_mask, load_masses, load_reals, logit_at, put_real, read_labels,
    read_per_row, real_at)
from cysoftmax._scratch cimport Piece, Scratch, holds
from cysoftmax._sparse cimport (
    Entries, add_entry_terms, dot_entries, entries_of, next_entry, sum_entries)
from cysoftmax._sums cimport (
    ChunkSums, Pair, Total, add_chunks, add_terms, chunk_size, chunks, diff_chunks, dot_chunks,
    sum_chunks, total_of)
from cysoftmax._what cimport GRAD

# ---------------------------------------------------------------- open: labels and weights

cdef inline void open_block(const Job *job, Block *b, ptrdiff_t first, int n_rows,
                            bint weigh_only, bint *bad) noexcept nogil:
    """Read what can be read of each row without its classes: label, weight, scale. A row whose
    label is out of range gets class 0, and the call an error in the end. With `weigh_only`, read
    only what the rows' weights need."""
    cdef int r
    b.first = first
    b.n_rows = n_rows
    if b.wide:                    # the block before had weights, or a factor, changed
        open_weights(job, b, MOST_ROWS)
    clear_rows(job, b)
    if job.target_is == LABELS and not (weigh_only and job.plan.labels_weigh_1):
        if read_labels(job, first, n_rows, b.label, b.ignored):
            bad[0] = True
    if job.sample.data != NULL:
        read_per_row(job, &job.sample, 0, first, n_rows, b.w.sample)
        if job.loss.sample_may_be_0:
            for r in range(n_rows):
                b.ignored[r] |= b.w.sample[r] == 0
    if job.labels_of_block:
        ignore_masked_rows(job, b)
    if job.plan.weighted and job.target_is == LABELS:
        if job.loss.class_weight == NULL:
            for r in range(n_rows):
                b.w.label_mass[r] = 1
        else:
            gather_class_weights(job, b)
        weigh_labels(job, b)
        if job.loss.smoothing == 0 or not job.plan.reads_rows:
            settle_labels(job, b)       # or else once it is known what is masked
        if job.labels_of_block:
            forget_labels_elsewhere(b)
    elif job.loss.sample_may_be_0:
        skip_ignored(job, b)
        clear_ignored(job, b, 0, n_rows)
    if job.scale.data != NULL and not weigh_only:
        read_per_row(job, &job.scale, 0, first, n_rows, b.w.factor)
        take_scales(job, b)


cdef inline void gather_class_weights(const Job *job, Block *b) noexcept nogil:
    """Look up the class weight of each label."""
    cdef int r
    if job.itemsize == 4:
        for r in range(b.n_rows):
            b.w.label_mass[r] = (<const float *>job.loss.class_weight)[b.label[r]]
    else:
        for r in range(b.n_rows):
            b.w.label_mass[r] = (<const double *>job.loss.class_weight)[b.label[r]]


# ---------------------------------------------------------------- open: masks and distributions

cdef inline void read_mask(const Job *job, Scratch *s, ptrdiff_t i, Piece *p) noexcept nogil:
    """Read a piece's mask, if there is one."""
    if job.where.data != NULL:
        p.mask = load_mask(job, i, p.begin, p.n, s.mask)


cdef inline void read_target(const Job *job, Scratch *s, ptrdiff_t i, Piece *p) noexcept nogil:
    """Read a piece's distribution T into p.a, and the class weights that label smoothing needs."""
    cdef const char *place
    if job.loss.class_weight != NULL:
        p.base = job.loss.class_weight + p.begin * job.itemsize
    if p.mask != NULL and job.loss.smoothing != 0:
        if p.base == NULL:
            job.kernels.fill(1, p.n, s.class_weight, False)
            p.base = s.class_weight
        job.kernels.select(p.mask, p.base, p.n, 0, s.class_weight)
        p.base = s.class_weight
    if job.target_is == DISTRIBUTION:
        p.a = s.target
        place = class_at(job, &job.target, i, p.begin)
        if job.target.contiguous and job.target.item == job.itemsize:
            memcpy(p.a, place, p.n * job.itemsize)
        else:
            load_reals(job, &job.target, place, job.target.step, p.n, p.a)


cdef inline void read_again(const Job *job, Scratch *s, const Block *b, int r,
                            Piece *p) noexcept nogil:
    """Read a piece's distribution times the class weights, once it is known what row r weighs."""
    cdef int lift = lift_at(b, weights_of(b, r))
    read_target(job, s, b.first + r, p)
    if lift != 0 and p.a != NULL:
        load_masses(job, b.first + r, p.begin, p.n, lift, p.a, 1)
    else:
        weigh_target(job, p)


cdef inline void weigh_target(const Job *job, Piece *p) noexcept nogil:
    """Multiply a piece's distribution with the class weights: T becomes class_weight T."""
    if p.a != NULL and job.loss.class_weight != NULL:
        job.kernels.multiply(p.a, job.loss.class_weight + p.begin * job.itemsize, p.n, p.a)


cdef inline void sum_masses(const Job *job, Scratch *s, ptrdiff_t i, Piece *p,
                            ChunkSums *sums) noexcept nogil:
    """Read a piece's target, and sum what it weighs, chunk by chunk."""
    cdef Entries entries
    cdef ptrdiff_t k, at
    read_target(job, s, i, p)
    for k in range(chunks(p.n)):
        at = k * CHUNK
        sums[k].mass.unmasked = chunk_size(p.n, k)
        if p.mask != NULL:
            sums[k].mass.unmasked = count(p.mask + at, chunk_size(p.n, k))
    if job.target_is == DISTRIBUTION:
        sum_chunks(job, p.a, p.n, &sums.mass.target_sum)
        for k in range(chunks(p.n)):
            # If the sum is 0, so is the largest entry, unless positive and negative ones cancel.
            sums[k].mass.any_target = (
                sums[k].mass.target_sum.hi != 0 or sums[k].mass.target_sum.lo != 0
                or job.kernels.max(p.a + k * CHUNK * job.itemsize, chunk_size(p.n, k)) != 0)
        weigh_target(job, p)
        if job.loss.class_weight != NULL:
            sum_chunks(job, p.a, p.n, &sums.mass.target_mass)
    elif job.target_is == SPARSE:
        entries = entries_of(job, i, p.begin, p.n, 0, &s.bad_label)
        sums[0].mass.any_target = sum_entries(
            job, entries, False, s.packed, &sums.mass.target_sum, &s.bad_label)
        for k in range(1, chunks(p.n)):
            sums[k].mass.any_target = False
        if job.loss.class_weight != NULL:
            sum_entries(job, entries, True, s.packed, &sums.mass.target_mass, &s.bad_label)
    if p.mask != NULL and job.loss.smoothing != 0:
        sum_chunks(job, p.base, p.n, &sums.mass.weight_sum)


cdef struct RowMasses:                 # what the target of one row weighs; see ChunkSums
    Total target_sum, target_mass, weight_sum
    ptrdiff_t unmasked
    bint any_target


cdef inline void add_masses(const Job *job, RowMasses *m, const ChunkSums *sums,
                            ptrdiff_t n) noexcept nogil:
    """Add what sum_masses found in the next n chunks."""
    cdef ptrdiff_t k
    for k in range(n):
        m.unmasked += sums[k].mass.unmasked
    if job.plan.by_mass:
        for k in range(n):
            m.any_target |= sums[k].mass.any_target
        add_chunks(&m.target_sum, &sums.mass.target_sum, n)
        if job.loss.class_weight != NULL:
            add_chunks(&m.target_mass, &sums.mass.target_mass, n)
    if job.where.data != NULL and job.loss.smoothing != 0:
        add_chunks(&m.weight_sum, &sums.mass.weight_sum, n)


cdef inline void weigh_row(const Job *job, Block *b, int r, RowMasses *m) noexcept nogil:
    """Compute what row r weighs, once all of its masses were added."""
    cdef double weight_sum = job.loss.class_sum, target_sum, target_mass
    if job.given_masses:
        weigh_given(job, b, r)
        return
    if job.where.data != NULL:
        weight_sum = total_of(&m.weight_sum)
    target_sum = target_mass = total_of(&m.target_sum)
    if job.loss.class_weight != NULL:
        target_mass = total_of(&m.target_mass)
    weigh_masses(job, b, r, m.unmasked, weight_sum, job.plan.by_mass, target_sum, target_mass,
                 m.any_target or holds_small_numbers(job, b.first + r))
    settle_row(job, b, r, m.unmasked, weight_sum)


cdef inline Entries piece_entries(const Job *job, Scratch *s, const Block *b, int r,
                                  const Piece *p) noexcept nogil:
    """Return the entries of a sparse target in a piece of row r."""
    return entries_of(job, b.first + r, p.begin, p.n, lift_at(b, weights_of(b, r)), &s.bad_label)


# ---------------------------------------------------------------- dots: what the loss needs

cdef inline void label_dots(const Job *job, const Scratch *s, Block *b, int begin,
                            int end) noexcept nogil:
    """Compute label mass times (logit - shift) of at most 16 rows: their target_dot. A label
    without mass counts for nothing, whatever its logit is."""
    cdef double[TILE] mass, logits      # the logits are reals
    cdef double logit
    cdef int r
    for r in range(begin, end):
        expect(0 <= b.label[r] < job.n_classes)
        mass[r - begin] = 0 if b.skipped[r] else b.w.label_mass[weights_of(b, r)]
        logit = 0
        if mass[r - begin] != 0 and job.plan.way == ROWS:
            logit = real_at(job, s.pieces[r - begin].x, b.label[r], job.n_classes)
        elif mass[r - begin] != 0:
            logit = logit_at(job, b.first + r, b.label[r])
        put_real(job, <char *>logits, r - begin, TILE, logit)
    job.kernels.terms(mass, logits, b.shift + begin, end - begin, b.target_dot_hi + begin,
                      b.target_dot_lo + begin)


cdef inline void target_dots(const Job *job, Scratch *s, const Block *b, int r, const Piece *p,
                             ChunkSums *sums) noexcept nogil:
    """Sum masses times (x - shift), unless the target is a label, and with label smoothing class
    weights times (x - shift), over each chunk of a piece."""
    if job.target_is == DISTRIBUTION:
        dot_chunks(job, p.a, p.x, p.n, &b.shift[r], &sums.sum.target_dot)
    elif job.target_is == SPARSE:
        dot_entries(job, piece_entries(job, s, b, r, p), p.x, b.shift[r], s.packed,
                    &sums.sum.target_dot, &s.bad_label)
    if b.w.uniform_mass[weights_of(b, r)] != 0:
        diff_chunks(job, p.base, p.x, p.n, b.shift[r], &sums.sum.uniform_dot)


cdef inline void target_terms(const Job *job, Scratch *s, const Block *b, int r, const Piece *p,
                              Total *total) noexcept nogil:
    """Add masses times (x - shift) of a piece term by term: where target_dots overflowed."""
    if job.target_is == DISTRIBUTION:
        add_terms(job, p.a, p.x, p.n, 1, b.shift[r], total)
    elif job.target_is == SPARSE:
        add_entry_terms(job, piece_entries(job, s, b, r, p), p.x, b.shift[r], total, &s.bad_label)


cdef inline void target_exp_dots(const Job *job, Scratch *s, const Block *b, int r,
                                 const Piece *p, ChunkSums *sums) noexcept nogil:
    """Sum masses times exps over each chunk of a piece: total times the target's probability."""
    cdef double zero = 0
    cdef ptrdiff_t k, c
    if job.target_is == DISTRIBUTION:
        dot_chunks(job, p.a, p.e, p.n, &zero, &sums.sum.target_exps)
    elif job.target_is == SPARSE:
        dot_entries(job, piece_entries(job, s, b, r, p), p.e, 0, s.packed,
                    &sums.sum.target_exps, &s.bad_label)
    else:
        for k in range(chunks(p.n)):
            sums[k].sum.target_exps = Pair(0, 0)
        if job.target_is == LABELS and holds(p, b.label[r]):
            c = b.label[r] - p.begin
            sums[c // CHUNK].sum.target_exps.hi = real_at(job, p.e, c, p.n)


# ---------------------------------------------------------------- minus_rest: before the scaling

cdef inline void minus_rest_at_labels(const Job *job, const Block *b, int begin, int end,
                                      const Piece *pieces) noexcept nogil:
    """Replace the exp of each label by minus the sum of the others (21), if (31) is used for it
    and its piece holds it: the factor b / total then makes b (p - 1) of it. Does nothing
    unless the output is a gradient and the target a label. Takes up to sixteen rows at once."""
    cdef void *exps[TILE]
    cdef int i
    cdef const Piece *p
    cdef int r
    if not (job.what & GRAD and job.target_is == LABELS and job.loss.confidence != 0):
        return
    for r in range(begin, end):
        p = &pieces[r - begin]
        i = weights_of(b, r)
        exps[r - begin] = NULL
        if p.e != NULL and b.w.label_mass[i] >= b.w.rest_from[i] and holds(p, b.label[r]):
            exps[r - begin] = p.e + (b.label[r] - p.begin) * job.itemsize
    job.kernels.minus_rest(exps, b.coarse + begin, b.fine + begin, end - begin)


cdef inline void minus_rest_at_entries(const Job *job, Scratch *s, const Block *b, int r,
                                       const Piece *p) noexcept nogil:
    """Do what minus_rest_at_labels does for each entry of a sparse target."""
    cdef Entries entries = piece_entries(job, s, b, r, p)
    cdef ptrdiff_t c
    cdef double mass
    cdef void *place
    while entries.j < entries.end:
        c = next_entry(job, &entries, True, &mass, &s.bad_label)
        if mass >= b.w.rest_from[weights_of(b, r)]:
            place = p.e + c * job.itemsize
            job.kernels.minus_rest(&place, &b.coarse[r], &b.fine[r], 1)


# ---------------------------------------------------------------- subtract: after the scaling

cdef inline void subtract_target(const Job *job, const Block *b, int r, double mass,
                                 char *grad) noexcept nogil:
    """Subtract what is left of a class' mass from its entry of the gradient, in place."""
    cdef int i = weights_of(b, r)
    mass = residual_mass(b, i, mass)
    if mass != 0:
        job.kernels.subtract(grad, mass, target_factor(job, b, i))


cdef inline void subtract_label(const Job *job, const Block *b, int r, const Piece *p,
                                char *grad) noexcept nogil:
    """Subtract the label's mass from the gradient of a piece, if that holds the label."""
    if holds(p, b.label[r]):
        subtract_target(job, b, r, b.w.label_mass[weights_of(b, r)],
                        grad + (b.label[r] - p.begin) * job.itemsize)


cdef inline void subtract_entries(const Job *job, Scratch *s, const Block *b, int r,
                                  const Piece *p, char *grad) noexcept nogil:
    """Subtract the mass of each entry of a sparse target from the gradient of a piece."""
    cdef Entries entries = piece_entries(job, s, b, r, p)
    cdef ptrdiff_t c
    cdef double mass
    while entries.j < entries.end:
        c = next_entry(job, &entries, True, &mass, &s.bad_label)
        subtract_target(job, b, r, mass, grad + c * job.itemsize)
