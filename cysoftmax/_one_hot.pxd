# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# A distribution, dense or sparse, whose rows each have one entry, which is 1: it says what labels
# say, with the same bits, and labels are faster in every way. So they are looked for before a call
# is planned; rows without an entry become labels that are ignored. Touches the target, and an array
# of labels.

from cython.parallel cimport prange
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from cysoftmax._job cimport DISTRIBUTION, LABELS, SPARSE, Array, Job, evenly_spaced, row_at
from cysoftmax._kernels cimport TILE, EntryLayout
from cysoftmax._numbers cimport MOST_LABELS
from cysoftmax._sparse cimport entry_bound, index_at

cdef enum OneHot:                   # what rows were found to be
    OTHER                           # not one-hot
    ALL_LABELS
    SOME_EMPTY                      # one-hot, or without an entry


cdef inline ptrdiff_t label_item(const Job *job) noexcept nogil:
    """Return the bytes of a label: few classes have labels that take little memory. The largest
    value is that of a row without an entry."""
    return 1 if job.n_classes <= 0xff else 4


cdef inline bint may_be_one_hot(const Job *job) noexcept nogil:
    """Return whether labels may be looked for: not in some of the classes of rows; nor where what
    each row weighs is kept, which has another form for labels, and is joined with others' weights.
    """
    return ((job.target_is == DISTRIBUTION or job.target_is == SPARSE)
            and job.n_classes <= 0x7fffffff and job.given.data == NULL and job.sums.kept == NULL)


cdef inline EntryLayout layout_of(const Job *job, const Array *entries) noexcept nogil:
    """Return how the entries of a target are laid out, and which of their bits mean 0 and 1."""
    cdef EntryLayout e
    e.item = entries.item
    e.step = entries.step
    e.row_step = entries.outer[job.ndim - 1] if job.target_is == DISTRIBUTION else entries.item
    e.digits = <uint64_t>-1 >> (64 - 8 * entries.item)
    if entries.kind == c'?':
        e.one = 0
    elif entries.kind == c'i' or entries.kind == c'u':
        e.one = 1
    else:
        e.digits >>= 1
        if entries.kind == c'd':
            e.one = <uint64_t>0x3ff << 52
        elif entries.kind == c'f':
            e.one = <uint64_t>0x7f << 23
        else:
            e.one = <uint64_t>0xf << 10 if entries.kind == c'e' else <uint64_t>0x7f << 7
    return e


cdef inline bint dense_labels(const Job *job, const EntryLayout *e, ptrdiff_t first, int n,
                              ptrdiff_t *y) noexcept nogil:
    """Find the labels of n dense rows from `first` on; -1 for a row without an entry. Return
    whether they are one-hot."""
    cdef int r
    if evenly_spaced(job, first, n):
        return job.doubles.one_hot(row_at(job, &job.target, first), e, n, job.n_classes, y)
    for r in range(n):
        if not job.doubles.one_hot(row_at(job, &job.target, first + r), e, 1, job.n_classes,
                                   y + r):
            return False
    return True


cdef inline bint sparse_labels(const Job *job, const EntryLayout *e, ptrdiff_t first, int n,
                               ptrdiff_t *y) noexcept nogil:
    """Do that for sparse rows. (A row with a stored 0 is not taken for one-hot, which is right but
    slow.)"""
    cdef ptrdiff_t[MOST_LABELS] unit        # 0 where an entry is 1
    cdef ptrdiff_t begin = entry_bound(job, first), end, c, j = begin
    cdef ptrdiff_t n_entries = entry_bound(job, first + n) - begin
    cdef int r
    if n_entries > n or not job.doubles.one_hot(
            job.sparse.entries.data + begin * e.item, e, max(<ptrdiff_t>0, n_entries), 1, unit):
        return False
    for r in range(n):
        end = entry_bound(job, first + r + 1)
        y[r] = -1
        if end != j:
            c = index_at(job, job.sparse.classes, j)
            if end - j != 1 or j - begin >= n_entries or unit[j - begin] < 0 or not (
                    0 <= c < job.n_classes):
                return False
            y[r] = c
        j = end
    return True


cdef inline OneHot store_labels(const Job *job, ptrdiff_t first, int n, const ptrdiff_t *y,
                                char *labels) noexcept nogil:
    """Store n labels; return whether any is -1."""
    cdef ptrdiff_t least = 0
    cdef int r
    if label_item(job) == 1:
        for r in range(n):
            (<uint8_t *>labels)[first + r] = <uint8_t>y[r]
    else:
        for r in range(n):
            (<uint32_t *>labels)[first + r] = <uint32_t>y[r]
    for r in range(n):
        least |= y[r]
    return SOME_EMPTY if least < 0 else ALL_LABELS


cdef inline OneHot find_some(const Job *job, ptrdiff_t first, ptrdiff_t end,
                             char *labels) noexcept nogil:
    """Find and store the labels of rows first ... end - 1."""
    cdef ptrdiff_t[MOST_LABELS] y
    cdef EntryLayout e = layout_of(
        job, &job.target if job.target_is == DISTRIBUTION else &job.sparse.entries)
    cdef OneHot found = ALL_LABELS
    cdef int n
    while first < end:
        n = <int>min(<ptrdiff_t>MOST_LABELS, end - first)
        if not (dense_labels(job, &e, first, n, y) if job.target_is == DISTRIBUTION
                else sparse_labels(job, &e, first, n, y)):
            return OTHER
        if store_labels(job, first, n, y, labels) == SOME_EMPTY:
            found = SOME_EMPTY
        first += n
    return found


cdef inline OneHot find_labels(const Job *job, int n_threads, char *labels) noexcept nogil:
    """Find and store the labels of all rows. Most targets that are not one-hot show it in their
    first rows, before threads begin."""
    cdef ptrdiff_t first = min(<ptrdiff_t>TILE, job.n_rows), part
    cdef int others = 0, empty = 0, t
    cdef OneHot found = find_some(job, 0, first, labels)
    if found == OTHER or first == job.n_rows:
        return found
    empty = found == SOME_EMPTY
    if n_threads == 1:
        found = find_some(job, first, job.n_rows, labels)
        others = found == OTHER
        empty |= found == SOME_EMPTY
    else:
        part = (job.n_rows - first + n_threads - 1) // n_threads
        for t in prange(n_threads, num_threads=n_threads, schedule="static"):
            found = find_some(job, min(first + t * part, job.n_rows),
                              min(first + (t + 1) * part, job.n_rows), labels)
            others += found == OTHER
            empty += found == SOME_EMPTY
    if others != 0:
        return OTHER
    return SOME_EMPTY if empty != 0 else ALL_LABELS


cdef inline void take_labels(Job *job, OneHot found, char *labels) noexcept nogil:
    """Make the labels that were found the target of a call."""
    cdef Array *target = &job.target
    cdef int d
    if job.target_is == SPARSE:
        target.outer = job.outer[job.n_arrays]
        job.n_arrays += 1
    job.target_is = LABELS
    target.data = labels
    target.item = label_item(job)
    target.step = 0
    target.kind = c'u'
    target.contiguous = False
    target.outer[job.ndim - 1] = target.item
    for d in range(job.ndim - 1, 0, -1):
        target.outer[d - 1] = target.outer[d] * job.shape[d]
    job.loss.ignores = found == SOME_EMPTY
    job.loss.ignore = 0xff if target.item == 1 else 0xffffffff
