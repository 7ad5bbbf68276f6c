# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# Sparse targets (CSR): the entries of a row, or of some of its classes. Touches the three arrays
# of the target. Entries were checked (classes in range and in order, none twice); whatever another
# thread makes of them since, no class outside of the range asked for is returned.

from libc.stdint cimport int32_t, int64_t
from libc.string cimport memset

from cysoftmax._job cimport Array, Job, expect
from cysoftmax._kernels cimport CHUNK
from cysoftmax._numbers cimport load_reals, narrow_real, number_at, put_real, real_at, wide_mass
from cysoftmax._scratch cimport Packed
from cysoftmax._sums cimport Pair, Total, add_term, chunks, pair_of

cdef struct Entries:                # those of classes begin ... begin + n - 1 of one row
    ptrdiff_t j, end                # the next entry, and the one after the last
    ptrdiff_t begin, n
    int lift                        # of the row: see RowWeights

cdef inline ptrdiff_t index_at(const Job *job, const char *indices, ptrdiff_t j) noexcept nogil:
    """Return number j of an index array, read once."""
    if job.sparse.index_item == 4:
        return (<const volatile int32_t *>indices)[j]
    return <ptrdiff_t>(<const volatile int64_t *>indices)[j]


cdef inline ptrdiff_t entry_bound(const Job *job, ptrdiff_t i) noexcept nogil:
    """Return indptr[i], within the entries even if another thread changed it."""
    expect(0 <= i <= job.n_rows)
    return max(<ptrdiff_t>0, min(index_at(job, job.sparse.indptr, i), job.sparse.n_entries))


cdef inline ptrdiff_t first_entry(const Job *job, ptrdiff_t begin, ptrdiff_t end, ptrdiff_t c,
                                  bint *bad) noexcept nogil:
    """Return the first of the entries begin ... end - 1 of a row whose class is c or more. If its
    neighbours contradict that, a class was changed during the search, which is then bad."""
    cdef ptrdiff_t low = begin, high = end, middle
    while low < high:
        middle = low + (high - low) // 2
        if index_at(job, job.sparse.classes, middle) < c:
            low = middle + 1
        else:
            high = middle
    if low > begin and not 0 <= index_at(job, job.sparse.classes, low - 1) < c:
        bad[0] = True
    if low < end and not c <= index_at(job, job.sparse.classes, low) < job.n_classes:
        bad[0] = True
    return low


cdef inline Entries entries_of(const Job *job, ptrdiff_t i, ptrdiff_t begin, ptrdiff_t n,
                               int lift, bint *bad) noexcept nogil:
    """Return the entries of n classes of row i, from class `begin` on."""
    cdef ptrdiff_t first = entry_bound(job, i), end = entry_bound(job, i + 1)
    if n == job.n_classes:
        return Entries(first, end, begin, n, lift)
    return Entries(first_entry(job, first, end, begin, bad),
                   first_entry(job, first, end, begin + n, bad), begin, n, lift)


cdef inline ptrdiff_t next_entry(const Job *job, Entries *e, bint weighted, double *mass,
                                 bint *bad) noexcept nogil:
    """Return the class, less `begin`, of the next entry and what it holds, times the class weight
    if `weighted`; or of a lifted row, its mass. One whose class was changed meanwhile belongs to
    the first class, and is bad."""
    cdef const Array *entries = &job.sparse.entries
    cdef ptrdiff_t c = index_at(job, job.sparse.classes, e.j) - e.begin
    cdef double real
    if not 0 <= c < e.n:
        bad[0] = True
        c = 0
    expect(0 <= e.j < job.sparse.n_entries)
    if e.lift != 0:
        real = number_at(job, entries, entries.data + e.j * entries.item)
        mass[0] = narrow_real(job, wide_mass(job, real, e.begin + c), e.lift)
        e.j += 1
        return c
    load_reals(job, entries, entries.data + e.j * entries.item, entries.item, 1, <char *>&real)
    mass[0] = real_at(job, <char *>&real, 0, 1)
    e.j += 1
    if weighted and job.loss.class_weight != NULL:
        mass[0] *= real_at(job, job.loss.class_weight, e.begin + c, job.n_classes)
        if job.itemsize == 4:
            mass[0] = <float>mass[0]
    return c


cdef inline ptrdiff_t pack(const Job *job, Entries *e, bint weighted, const char *x, Packed *p,
                           bint *bad) noexcept nogil:
    """Pack the next entries that belong to one chunk, with their logits unless x is NULL; return
    that chunk."""
    cdef char *a = <char *>p.a
    cdef char *logits = <char *>p.x
    cdef int used[16]
    cdef ptrdiff_t c, chunk = -1, before
    cdef double mass
    cdef int lane, slot
    memset(used, 0, sizeof(used))
    p.n = 0
    while e.j < e.end:
        before = e.j
        c = next_entry(job, e, weighted, &mass, bad)
        if chunk < 0:
            chunk = c // CHUNK
        lane = c % 16
        if c // CHUNK != chunk or used[lane] == CHUNK // 16:
            e.j = before
            break
        slot = 16 * used[lane] + lane
        used[lane] += 1
        if slot >= p.n:
            memset(a + p.n * job.itemsize, 0, 16 * job.itemsize)
            memset(logits + p.n * job.itemsize, 0, 16 * job.itemsize)
            p.n += 16
        put_real(job, a, slot, CHUNK, mass)
        if x != NULL:
            put_real(job, logits, slot, CHUNK, real_at(job, x, c, e.n))
    return chunk


cdef inline bint sum_entries(const Job *job, Entries e, bint weighted, Packed *p,
                             Pair *first, bint *bad) noexcept nogil:
    """Do what sum_chunks does for a distribution; return whether any entry is not zero."""
    cdef ptrdiff_t k
    cdef bint any_entry = False
    cdef int slot
    for k in range(chunks(e.n)):
        pair_of(first, k)[0] = Pair(0, 0)
    while e.j < e.end:
        k = pack(job, &e, weighted, NULL, p, bad)
        job.kernels.sum(p.a, p.n, &pair_of(first, k).hi, &pair_of(first, k).lo)
        for slot in range(p.n):
            any_entry |= real_at(job, <char *>p.a, slot, CHUNK) != 0
    return any_entry


cdef inline void dot_entries(const Job *job, Entries e, const char *x, double shift, Packed *p,
                             Pair *first, bint *bad) noexcept nogil:
    """Do what dot_chunks does for a distribution times the class weights."""
    cdef ptrdiff_t k
    for k in range(chunks(e.n)):
        pair_of(first, k)[0] = Pair(0, 0)
    while e.j < e.end:
        k = pack(job, &e, True, x, p, bad)
        job.kernels.dot(p.a, p.x, p.n, &shift, &pair_of(first, k).hi, &pair_of(first, k).lo)


cdef inline void add_entry_terms(const Job *job, Entries e, const char *x, double shift,
                                 Total *total, bint *bad) noexcept nogil:
    """Do what add_terms does for a distribution times the class weights."""
    cdef ptrdiff_t c
    cdef double mass
    while e.j < e.end:
        c = next_entry(job, &e, True, &mass, bad)
        add_term(job, mass, x + c * job.itemsize, shift, total)
