# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# The memory of one thread: buffers for what has to lie side by side or wait for the sum, and what
# the thread remembers from one block to the next. Knows sizes; computes nothing.

from libc.stdint cimport uintptr_t

from cysoftmax._block cimport MOST_ROWS, Block, open_weights
from cysoftmax._job cimport DISTRIBUTION, ROWS, SPANS, SPARSE, TILES, VECTOR, Job
from cysoftmax._kernels cimport CHUNK, TILE, Carry, NextTiles
from cysoftmax._numbers cimport put_real, real_at
from cysoftmax._sums cimport ChunkSums, chunks, count_sixteens
from cysoftmax._what cimport LOG_SOFTMAX, STATS, VARIANCE

cdef enum:
    PAGE = 4096
    SPAN = 1 << 14                  # classes of a span: 16 chunks

cdef struct Piece:                  # some or all classes of one row, as reals side by side
    ptrdiff_t begin, n              # classes begin ... begin + n - 1
    const char *x                   # their logits; p of a VJP
    char *e                         # their exps, or room for what is made of them; or NULL
    char *a                         # class_weight T, if the target is a distribution; v of a VJP
    const char *base                # class weights, 0 where masked; NULL for ones
    const unsigned char *mask       # 0 where a class is masked; or NULL

cdef struct Pending:                # exps that wait to be multiplied and stored
    const char *e                   # or NULL: there are none
    char *out
    double factor_hi, factor_lo

# The non-zeros of a chunk of classes of a sparse target are put side by side, each in the lane that
# it has in the whole row. The zeros in between would change nothing: the sums have the bits of the
# same distribution with its zeros.
cdef struct Packed:
    double[CHUNK] a, x              # masses and logits; room for reals of either size
    int n

# The memory is idle while exps are computed, and the arithmetic while a row is stored. So, while
# the exps of one part are computed, the next part is loaded and the previous one stored.
cdef struct Overlap:
    const char *next_row            # ROWS: logits to be prefetched, or NULL
    NextTiles next_tiles            # TILES: rows to be prefetched, or copied to the other buffer
    Pending previous                # ROWS: a row of several chunks, stored in turns with them

cdef struct Scratch:
    Block block                     # of ROWS and TILES: the numbers of the rows
    char *buffers[2]                # of exps or tiles: one is current, the other waits or fills
    int current
    # A row or span of each, or tiles: reals, and of the mask of a row bytes.
    char *logits
    char *target
    char *class_weight
    char *variance
    char *mask
    char *mask_tiles
    char *second                    # tiles of logits that are kept, or of the variance
    char *largest                   # the maxima of the tiles that are copied ahead
    char *staging                   # a block as rows, or one class of it: see _tile_arrays.pxd
    char *column_carries            # the unfinished cache line of each class of tiles
    ChunkSums *sums                 # of the chunks of a row
    Packed *packed                  # some entries of a sparse row
    Piece pieces[TILE]              # of the rows that are worked on together
    Overlap overlap
    # The current buffer has the tiles from this row on, or -1. (While columns of a VJP are stored:
    # the next block begins there, of which nothing is copied.)
    ptrdiff_t tiles_ready
    ptrdiff_t carried_to            # column_carries end before this row, or -1
    Carry out_carry, variance_carry     # the unfinished cache line of each output
    bint bad_label                  # a label was out of range


cdef inline bint holds(const Piece *p, ptrdiff_t c) noexcept nogil:
    """Return whether class c is one of the piece's."""
    return p.begin <= c < p.begin + p.n


cdef inline char *take(uintptr_t *memory, ptrdiff_t n_bytes) noexcept nogil:
    """Return the next n_bytes of the memory, which begin and end at a multiple of 64."""
    cdef uintptr_t place = memory[0]
    memory[0] += (n_bytes + 63) // 64 * 64
    return <char *>place


cdef inline ptrdiff_t lay_out(const Job *job, Scratch *s, uintptr_t memory) noexcept nogil:
    """Set the pointers of a thread's scratch to the memory behind it; return the bytes taken."""
    cdef uintptr_t end = memory
    s.buffers[0] = s.buffers[1] = NULL
    if job.plan.way == TILES:
        lay_out_tiles(job, s, &end)
    else:
        lay_out_rows(job, s, &end)
    return <ptrdiff_t>(end - memory)


cdef inline void lay_out_tiles(const Job *job, Scratch *s, uintptr_t *end) noexcept nogil:
    cdef ptrdiff_t tiles = job.plan.block_rows // TILE * job.plan.tile_stride
    s.buffers[0] = s.buffers[1] = take(end, tiles)
    s.target = s.mask_tiles = s.class_weight = NULL
    if job.plan.loads_ahead:
        s.buffers[1] = take(end, tiles)
        s.largest = take(end, MOST_ROWS * job.itemsize)
    # Without loads_ahead no line is carried to the next block, and nothing is stored here.
    s.column_carries = take(end, job.n_classes * 64 if (
        job.plan.loads_ahead and job.plan.exceeds_cache and job.plan.out_adjacent) else 0)
    if job.what & (LOG_SOFTMAX | VARIANCE | STATS):
        s.second = take(end, tiles)
    if job.plan.by_mass or job.target_is == VECTOR:
        s.target = take(end, tiles)
    if job.where.data != NULL:
        s.mask_tiles = take(end, tiles)
    if job.loss.smoothing != 0 and job.loss.class_weight != NULL:
        s.class_weight = take(end, job.plan.tile_stride)
    if job.plan.stages or job.plan.assembles:
        s.staging = take(end, max(tiles, MOST_ROWS * job.itemsize) + 64)


cdef inline int tile_copies(const Job *job) noexcept nogil:
    """Return how many buffers of tiles a block has, without one that is loaded ahead."""
    cdef int copies = 1
    if job.what & (LOG_SOFTMAX | VARIANCE | STATS):
        copies += 1
    if job.where.data != NULL:
        copies += 1
    if job.plan.by_mass or job.target_is == VECTOR:
        copies += 1
    if job.plan.stages:
        copies += 1
    return copies


cdef inline void lay_out_rows(const Job *job, Scratch *s, uintptr_t *end) noexcept nogil:
    cdef ptrdiff_t n = job.n_classes, reals
    if job.plan.way == SPANS:
        n = min(n, <ptrdiff_t>SPAN)
    reals = n * job.itemsize
    if job.plan.exps_in_scratch and not job.plan.exps_over_logits:
        s.buffers[0] = s.buffers[1] = take(end, job.plan.buffer_bytes)
        if job.plan.defers:
            s.buffers[1] = take(end, job.plan.buffer_bytes)
    if job.plan.logits_in_scratch:
        s.logits = take(end, reals)
    if job.target_is == DISTRIBUTION or job.target_is == VECTOR:
        s.target = take(end, reals)
    if job.target_is == SPARSE:
        s.packed = <Packed *>take(end, sizeof(Packed))
    if job.where.data != NULL:
        if job.where.step != 1:
            s.mask = take(end, n)
        if job.loss.smoothing != 0:
            s.class_weight = take(end, reals)
    if job.plan.variance_in_scratch:
        s.variance = take(end, reals)
    if job.plan.way == ROWS:
        s.sums = <ChunkSums *>take(end, chunks(n) * sizeof(ChunkSums))


cdef inline Scratch *scratch_of(const Job *job, char *memory, int thread) noexcept nogil:
    """Return the scratch of a thread, within that of all threads."""
    return <Scratch *>(memory + thread * job.plan.scratch_bytes)


cdef inline void open_scratch(const Job *job, Scratch *s) noexcept nogil:
    """Begin a thread: nothing waits, nothing was loaded ahead."""
    cdef ptrdiff_t c
    cdef int r
    lay_out(job, s, <uintptr_t>s + (sizeof(Scratch) + 63) // 64 * 64)
    if job.plan.way != SPANS:
        open_weights(job, &s.block, <int>min(
            <ptrdiff_t>job.plan.block_rows, count_sixteens(job.n_rows) * TILE))
    if job.plan.way == TILES and s.class_weight != NULL:
        for c in range(job.n_classes):
            for r in range(TILE):
                put_real(job, s.class_weight, c * TILE + r, job.n_classes * TILE,
                         real_at(job, job.loss.class_weight, c, job.n_classes))
    s.current = 0
    s.overlap.next_row = NULL
    s.overlap.previous.e = NULL
    s.tiles_ready = s.carried_to = -1
    s.out_carry.n = s.variance_carry.n = 0
    s.bad_label = False


cdef inline char *apart_from(char *buffer, const char *x) noexcept nogil:
    """Return a place in a buffer with a spare page, half a page from x modulo a page. A load of
    x whose low address bits equal those of a store still under way would wait for it (4K aliasing:
    3.5 times slower when measured)."""
    return buffer + ((<uintptr_t>x + PAGE // 2 - <uintptr_t>buffer) % PAGE & ~<uintptr_t>63)
