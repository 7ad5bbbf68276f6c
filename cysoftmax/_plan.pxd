# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# Which way a call takes, how much scratch that needs, and the tuned numbers behind it.

from cysoftmax._job cimport DISTRIBUTION, Job, Rows, columns, in_a_row, scales_only, tile_bytes
from cysoftmax._kernels cimport CHUNK, Carry, TILE, TILES
from cysoftmax._what cimport GRAD, LOGSUMEXP, LOG_SOFTMAX, MASS, SOFTMAX, STATS, VARIANCE, VJP

cdef enum:
    MOST_ROWS = TILES * TILE    # so many are worked on together, sixteen to a tile,
    TILE_BYTES = 1 << 19        # as long as what is kept of them stays in the L2 cache
    STREAM_ROW_BYTES = 256      # below, too many lines at the ends of rows are not whole
    TILES_BYTES = 1 << 15       # the tiles of contiguous classes should stay in the L1 cache
    TOGETHER_BYTES = 1 << 14    # and so should sixteen rows of exps
    FETCH_BYTES = 1 << 20   # rows are fetched early if they are not larger,
    LATE_BYTES = 1 << 21    # rows are stored late if they are not larger
    FETCH_AHEAD = 1 << 12   # and so many bytes before the next batch is needed
    LABELS_AT_ONCE = 512    # so many are checked at a time
    PAGE = 4096

cdef struct Late:               # a row whose exps wait to be scaled and stored
    const char *e               # or NULL: there is none
    char *out
    double hi, lo

cdef struct Thread:             # what a thread keeps from one row to the next
    Carry line, variance_line    # of the two outputs
    int half                    # of its room for exps or tiles: which of the two is free
    Late late
    ptrdiff_t loaded            # tiles from this row on are there already, or -1
    ptrdiff_t edge              # the ends of columns that wait end at this row, or -1


cdef inline bint computed_apart(const Job *job, const Rows *rows) noexcept nogil:
    """Whether rows are computed elsewhere: a streamed line is stored once, and whole."""
    return not rows.direct or job.stream


cdef inline bint keeps_exps(const Job *job) noexcept nogil:
    """Whether a thread needs room for a row of exps, or for what is made of them."""
    if job.what & (SOFTMAX | GRAD | STATS):
        return True
    return job.out.data != NULL and (computed_apart(job, &job.out) or job.where.data != NULL)


cdef inline bint copies_logits(const Job *job) noexcept nogil:
    return not job.x.direct or job.where.data != NULL or job.load_scale != 1


cdef inline bint fits_tile(const Job *job, const Rows *rows) noexcept nogil:
    return rows.data == NULL or rows.item == job.itemsize and rows.step % rows.item == 0


cdef inline bint tiles_fill(const Job *job) noexcept nogil:
    """Whether there are rows enough: a tile takes as long as 5 short rows, or 15 of 400 bytes."""
    cdef ptrdiff_t as_rows = min(<ptrdiff_t>15, 4 + job.n_classes * job.itemsize // 32)
    return (job.n_rows + TILE - 1) // TILE * as_rows < job.n_rows


cdef inline bint tiled(const Job *job) noexcept nogil:
    """Whether sixteen rows at a time are faster: short rows unless they are few, or strided ones
    that fit."""
    if job.what & (VJP | MASS | STATS) or job.load_scale != 1 or job.prepared:
        return False
    if not (fits_tile(job, &job.x) and fits_tile(job, &job.out) and fits_tile(job, &job.variance)):
        return False
    if job.x.direct:
        return tiles_fill(job) and job.n_classes <= (
            job.kernels.tile_classes_read if job.out.data == NULL else job.kernels.tile_classes)
    return job.n_classes <= TILE_BYTES // (TILE * job.itemsize)


cdef inline int so_many_tiles(ptrdiff_t n_bytes, ptrdiff_t tile, int parts) noexcept:
    """How many are worked on together, if all that is kept of them has n_bytes; at least one."""
    return <int>max(<ptrdiff_t>1, min(<ptrdiff_t>TILES, n_bytes // (parts * tile)))


cdef inline void lay_out_scratch(Job *job) noexcept:
    """Room for what has to be put side by side, or kept until the sum is known."""
    cdef ptrdiff_t size = job.n_classes * job.itemsize, row = (size // PAGE + 2) * PAGE
    cdef ptrdiff_t at = (sizeof(Thread) + 63) // 64 * 64, tile
    cdef int parts = 1          # of what is kept of tiles
    job.e_at = at
    if tiled(job):
        tile = tile_bytes(job)
        if job.what & (LOG_SOFTMAX | VARIANCE):
            parts = 2
        job.tiles = so_many_tiles(TILE_BYTES if columns(job, &job.x) else TILES_BYTES, tile, parts)
        # The next ones beside them, if there is room, and most are in line.
        if columns(job, &job.x) and (parts + 1) * tile <= TILE_BYTES and (
                job.ndim == 1 or job.shape[job.ndim - 1] >= (
                    2 * TILE * so_many_tiles(TILE_BYTES, tile, parts + 1))):
            job.ahead = True
            job.tiles = so_many_tiles(TILE_BYTES, tile, parts + 1)
            job.half_bytes = job.tiles * tile
            at += job.half_bytes
        job.second_at = at + job.tiles * tile
        at += parts * job.tiles * tile
        job.largest_at = at
        if job.ahead:
            at += MOST_ROWS * job.itemsize
        job.edges_at = at
        if job.ahead and job.large and columns(job, &job.out):
            at += job.n_classes * 64
        job.together_at = at
        if job.large and in_a_row(job, &job.out):
            at += tile + 64
        job.scratch_bytes = (at // PAGE + 1) * PAGE
        return
    # A row's logarithm may wait for those of its group if nothing else but its loss needs it; or
    # its logsumexp, which may look at the logits again.
    job.logs_late = (job.z_loss == 0 and not job.what & (LOG_SOFTMAX | STATS)
                     and not (job.what & LOGSUMEXP and copies_logits(job)))
    job.together = 1
    job.exp_bytes = (size + 63) // 64 * 64
    if job.what & MASS or (
            job.exp_bytes * TILE <= TOGETHER_BYTES and not copies_logits(job)
            and job.target_is != DISTRIBUTION):
        job.together = TILE
    if job.x.step == job.x.item and size <= FETCH_BYTES:    # (of 16 bits: two rows for one)
        job.fetch_rows = job.together + FETCH_AHEAD // size
    if keeps_exps(job):
        job.late = (scales_only(job) and job.out.direct and not copies_logits(job)
                    and job.n_classes > CHUNK and size <= LATE_BYTES)
        job.half_bytes = job.together * job.exp_bytes + 2 * PAGE
        at += job.half_bytes * (1 + job.late)
    job.x_at = at
    if copies_logits(job):
        at += row
    job.target_at = at
    if job.target_is == DISTRIBUTION or job.what & VJP:
        at += row
    job.where_at = at
    if job.where.data != NULL and job.where.step != 1:
        at += row
    job.base_at = at
    if job.where.data != NULL and job.smoothing != 0:
        at += row
    job.variance_at = at
    if job.variance.data != NULL and computed_apart(job, &job.variance):
        at += row
    job.scratch_bytes = (at // PAGE + 1) * PAGE


cdef inline bint long_and_few(const Job *job, int n_threads) noexcept:
    return (n_threads > 1 and job.n_rows < 2 * n_threads and job.n_classes >= 4 * CHUNK
            and not job.what & (VJP | STATS | VARIANCE | MASS) and not job.prepared
            and not copies_logits(job) and (job.out.data == NULL or job.out.direct))
