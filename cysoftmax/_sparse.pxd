# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# Sparse targets: the entries of a row, packed into the lanes that they have in a whole row.

from libc.math cimport isfinite
from libc.stdint cimport int32_t, int64_t
from libc.string cimport memset

from cysoftmax._formula cimport Group, weights_of
from cysoftmax._job cimport Job, Weights
from cysoftmax._kernels cimport CHUNK
from cysoftmax._numbers cimport put_real, real_at
from cysoftmax._sums cimport Total, add, add_term, finish

# The non-zeros of a chunk of classes are put side by side, each in the lane it would have in
# the whole row. The zeros in between would change nothing, so the sums have the bits of the
# distribution that is written out.
cdef struct Packed:
    double[CHUNK] a, x          # room for reals of either size
    int n


cdef inline ptrdiff_t index_at(const Job *job, const char *indices, ptrdiff_t j) noexcept nogil:
    if job.index_item == 4:
        return (<const volatile int32_t *>indices)[j]
    return <ptrdiff_t>(<const volatile int64_t *>indices)[j]


cdef inline ptrdiff_t entry_bound(const Job *job, ptrdiff_t j) noexcept nogil:
    """indptr[j], which was checked, within the entries even if another thread changed it."""
    return max(<ptrdiff_t>0, min(index_at(job, job.indptr, j), job.n_entries))


cdef inline ptrdiff_t entry_at(Job *job, ptrdiff_t j, bint weighted, double *share) noexcept nogil:
    """The class of entry j, and what it holds, times the class weight if `weighted`. Checked
    before; a class that was changed since does no harm."""
    cdef ptrdiff_t c = index_at(job, job.entry_classes, j)
    if not 0 <= c < job.n_classes:
        job.bad = 1
        c = 0
    share[0] = real_at(job, job.entries, j)
    if weighted and job.class_weight != NULL:
        share[0] *= real_at(job, job.class_weight, c)
        if job.itemsize == 4:
            share[0] = <float>share[0]
    return c


cdef inline void pack(Job *job, ptrdiff_t *j, ptrdiff_t end, bint weighted, const char *x,
               Packed *p) noexcept nogil:
    """Pack entries from j on that belong to one chunk, with their logits unless x is NULL; j
    becomes the first that does not."""
    cdef char *a = <char *>p.a
    cdef char *logits = <char *>p.x
    cdef int used[16]
    cdef ptrdiff_t c, chunk = -1
    cdef double share
    cdef int lane, slot
    memset(used, 0, sizeof(used))
    p.n = 0
    while j[0] < end:
        c = entry_at(job, j[0], weighted, &share)
        if chunk < 0:
            chunk = c // CHUNK
        lane = c % 16
        if c // CHUNK != chunk or used[lane] == CHUNK // 16:
            return
        slot = 16 * used[lane] + lane
        used[lane] += 1
        if slot >= p.n:
            memset(a + p.n * job.itemsize, 0, 16 * job.itemsize)
            memset(logits + p.n * job.itemsize, 0, 16 * job.itemsize)
            p.n += 16
        put_real(job, a, slot, share)
        if x != NULL:
            put_real(job, logits, slot, real_at(job, x, c))
        j[0] += 1


cdef inline double mass_of_entries(Job *job, ptrdiff_t i, bint weighted) noexcept nogil:
    """mass_of for row i of a sparse target."""
    cdef ptrdiff_t j = entry_bound(job, i), end = entry_bound(job, i + 1)
    cdef Total total = Total(0, 0, 0)
    cdef Packed p
    cdef double hi, lo
    while j < end:
        pack(job, &j, end, weighted, NULL, &p)
        job.kernels.sum(p.a, p.n, &hi, &lo)
        add(&total, hi, lo)
    finish(&total)
    return total.coarse + total.fine


cdef inline Total dot_of_entries(Job *job, ptrdiff_t i, const char *x, double shift) noexcept nogil:
    """loss_dot for row i of a sparse target."""
    cdef ptrdiff_t j = entry_bound(job, i), end = entry_bound(job, i + 1), c
    cdef Total total = Total(0, 0, 0)
    cdef Packed p
    cdef double hi, lo, share
    while j < end:
        pack(job, &j, end, True, x, &p)
        job.kernels.dot(p.a, p.x, p.n, shift, True, &hi, &lo)
        add(&total, hi, lo)
    finish(&total)
    if isfinite(total.coarse):
        return total
    total = Total(0, 0, 0)
    for j in range(entry_bound(job, i), end):
        c = entry_at(job, j, True, &share)
        add_term(job, &total, share, x + c * job.itemsize, shift)
    return total


cdef inline void weigh_entries(Job *job, Group *g, int r) noexcept nogil:
    cdef Weights *w = weights_of(g, r)
    cdef ptrdiff_t i = g.first + r, j
    cdef double value
    cdef bint any_entry = False
    for j in range(entry_bound(job, i), entry_bound(job, i + 1)):
        entry_at(job, j, False, &value)
        any_entry |= value != 0
    g.ignored[r] |= not any_entry
    w.given = w.mass = mass_of_entries(job, i, False)
    if job.class_weight != NULL:
        w.mass = mass_of_entries(job, i, True)
