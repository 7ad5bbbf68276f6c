# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# Every "whether" and every tuned number of a call, decided once before its loops begin. Knows
# shapes, strides, options and sizes; reads no number of an array. No choice made here changes a
# bit of a result.
#
# The measurements are those of docs/performance.md and docs/notebook.md: AMD Zen 4 with AVX-512,
# two cores, GCC 12, least of many alternating runs.

from cysoftmax._block cimport MOST_ROWS
from cysoftmax._job cimport (
    DISTRIBUTION, LABELS, ROWS, SPANS, SPARSE, TILES, VECTOR, Array, Job, Plan)
from cysoftmax._kernels cimport CHUNK, TILE
from cysoftmax._scratch cimport PAGE, SPAN, Scratch, lay_out, tile_copies
from cysoftmax._sums cimport count_sixteens
from cysoftmax._tile_arrays cimport holds_reals, rows_adjacent, rows_follow
from cysoftmax._what cimport GRAD, LOGSUMEXP, LOG_SOFTMAX, LOSS, SOFTMAX, STATS, VARIANCE, VJP

cdef enum:
    # No thread gets more than 1 MiB of scratch, whatever the number of classes, the dtype or the
    # options; one page of the whole allocation is spent on alignment.
    MOST_SCRATCH = (1 << 20) - PAGE
    # A thread's tiles stay in the L2 cache if neighbouring rows are neighbours in memory (strided
    # classes); otherwise in the L1 cache: such rows cost no more when loaded one tile at a time.
    TILES_IN_L2 = 1 << 19
    TILES_IN_L1 = 1 << 15
    # The way ROWS loads and reduces sixteen rows together if their exps stay in the L1 cache. That
    # saves 2 to 3 % of the time of a few hundred classes.
    PART_IN_L1 = 1 << 14
    # Classes of a VJP whose rows follow each other, in float32; twice as many in float64: fewer are
    # faster as tiles (float32 from memory: 4 0.98 of the time, 6 1.1; float64 in the cache: 10 0.7,
    # 12 0.8, 16 0.95, but 16 from memory 1.35). Bytes of a row of others: longer ones are faster
    # one by one (before rows_vjp was: 20000 x 100 0.7 of the time, float64 0.65; 60000 x 32
    # float32 1.05).
    LEAST_VJP = 6
    TILE_BYTES_VJP = 128
    # Bytes of the rows of a VJP that are computed before they are streamed (65536 x 100: 0.9 of the
    # time of 8192, and of 16384).
    VJP_PART = 1 << 12
    # Classes whose cache lines fall into the same set of an L2 cache of LINES_APART bytes a way.
    # More are copied as tiles: 64 classes of 256 x 256 images 0.8 of the time, 21 1.2 (Ice Lake,
    # 20 lines a set).
    LINES_APART = 1 << 16
    MOST_IN_SET = 24
    # Bytes of a row: shorter ones end in too many unfinished cache lines to be streamed.
    STREAMED_ROW = 256
    # Bytes of a row: longer ones are not prefetched (256 x 128256: 0.87 of the time).
    PREFETCHED_ROW = 1 << 20
    # Bytes by which the prefetch is ahead of the next part (65536 x 100: 0.96 of the time).
    PREFETCH_AHEAD = 1 << 12


cdef inline void make_plan(Job *job, int n_threads, ptrdiff_t stream_bytes) noexcept:
    """Decide how a call is computed by at most n_threads. Outputs of stream_bytes or more would not
    stay in the caches."""
    cdef Plan *plan = &job.plan
    plan.n_threads = n_threads
    plan_rows_weights(job)
    plan_arrays(job, stream_bytes)
    plan.shares_spans = few_long_rows(job, n_threads)
    if plan.shares_spans:
        plan_spans(job)
    elif suits_tiles(job):
        plan_tiles(job)
    else:
        plan_rows(job)
    if scratch_needed(job) > MOST_SCRATCH and plan.way == TILES:
        plan.assembles = False          # strided logits, and an output of contiguous classes
        if scratch_needed(job) > MOST_SCRATCH:
            plan_rows(job)
    if scratch_needed(job) > MOST_SCRATCH and plan.way == ROWS:
        plan.defers = False
        if scratch_needed(job) > MOST_SCRATCH:
            plan_spans(job)
    plan.scratch_bytes = scratch_needed(job)
    plan.n_blocks = (job.n_rows + plan.block_rows - 1) // plan.block_rows
    if not plan.shares_spans:
        plan.n_threads = <int>max(<ptrdiff_t>1, min(<ptrdiff_t>n_threads, plan.n_blocks))
    plan.thread_blocks = (plan.n_blocks + plan.n_threads - 1) // plan.n_threads
    plan.sums_each_row = plan.block_rows % TILE != 0 or plan.way == SPANS


cdef inline ptrdiff_t scratch_needed(const Job *job) noexcept:
    """Return the bytes of scratch of one thread, in whole pages."""
    cdef Scratch s
    if job.plan.way == ROWS and job.n_classes > MOST_SCRATCH * <ptrdiff_t>CHUNK:
        return job.n_classes            # too large in any case; no product below overflows
    return (lay_out(job, &s, 0) + sizeof(Scratch) + 64) // PAGE * PAGE + PAGE


# ---------------------------------------------------------------- what rows and arrays are like

cdef inline void plan_rows_weights(Job *job) noexcept:
    """Decide whether rows can differ in their weights, and what has to be known of them first."""
    cdef Plan *plan = &job.plan
    plan.by_mass = job.target_is == DISTRIBUTION or job.target_is == SPARSE
    plan.has_dots = plan.by_mass or job.loss.smoothing != 0
    plan.reads_rows = plan.by_mass or job.where.data != NULL or (
        job.loss.smoothing != 0 and job.loss.class_weight != NULL)
    plan.weighted = (plan.reads_rows or job.loss.class_weight != NULL or job.loss.ignores
                     or job.sample.data != NULL or job.labels_of_block)
    plan.plain_masses = plan.by_mass and not (
        job.loss.class_weight != NULL or job.sample.data != NULL or job.where.data != NULL
        or job.given_masses)
    plan.counts_labels = job.loss.ignores and not (
        job.labels_of_block or job.loss.class_weight != NULL or job.sample.data != NULL
        or plan.reads_rows)
    plan.adds_label_weights = (
        job.target_is == LABELS and job.loss.moderate_weights and job.loss.class_exponent == 0
        and not (plan.reads_rows or job.labels_of_block))
    plan.labels_weigh_1 = not (plan.reads_rows or job.loss.class_weight != NULL
                               or job.loss.ignores or job.labels_of_block)
    plan.exps_alone = not (plan.has_dots or job.what & (LOGSUMEXP | STATS | VJP))
    plan.has_surplus = job.loss.smoothing != 0 or job.loss.z_loss != 0
    plan.plain_rows = not (plan.weighted or plan.has_surplus or job.scale.data != NULL)
    plan.scales_only = job.what & SOFTMAX or (
        job.what & GRAD and job.target_is == LABELS and not plan.has_surplus)
    # Otherwise logarithms are taken for a whole block at once: no row waits for its own.
    plan.log_first = job.what & (LOG_SOFTMAX | STATS) or job.loss.z_loss != 0


cdef inline void plan_arrays(Job *job, ptrdiff_t stream_bytes) noexcept:
    """Decide how logits are read and outputs stored: what is copied, what is streamed."""
    cdef Plan *plan = &job.plan
    cdef ptrdiff_t row_bytes = job.n_classes * job.itemsize
    plan.exceeds_cache = job.out.data != NULL and job.n_rows * row_bytes >= stream_bytes
    plan.streamed = (plan.exceeds_cache and job.out.contiguous and row_bytes >= STREAMED_ROW)
    plan.out_streamed_16 = streams_16(job, &job.out)
    plan.variance_streamed_16 = streams_16(job, &job.variance)
    # A streamed cache line is stored once, and whole: its row is computed elsewhere before.
    plan.out_in_scratch = job.out.data != NULL and (not job.out.contiguous or plan.streamed)
    plan.variance_in_scratch = job.variance.data != NULL and (
        not job.variance.contiguous or plan.streamed)
    plan.logits_in_scratch = not job.x.contiguous or job.where.data != NULL
    plan.exps_in_scratch = job.what & (SOFTMAX | GRAD | STATS) or plan.out_in_scratch
    # Exps overwrite the copied logits, unless these are needed later: by statistics, or by a dot
    # product that overflowed and is summed again.
    plan.exps_over_logits = plan.logits_in_scratch and job.what & (SOFTMAX | GRAD) and not (
        job.what & LOSS and (plan.by_mass or job.loss.smoothing != 0))
    plan.exps_in_out = False
    plan.x_adjacent = rows_adjacent(job, &job.x) and holds_reals(job, &job.x)
    plan.out_adjacent = rows_adjacent(job, &job.out) and holds_reals(job, &job.out)
    plan.x_row_by_row = rows_follow(job, &job.x) and job.x.contiguous
    plan.out_row_by_row = rows_follow(job, &job.out) and job.out.contiguous
    plan.target_row_by_row = plan.x_row_by_row and job.target_is == DISTRIBUTION and (
        rows_follow(job, &job.target) and holds_reals(job, &job.target))
    plan.rows_of_vjp = (
        job.what & VJP and job.n_classes <= CHUNK and plan.x_row_by_row and plan.out_row_by_row
        and rows_follow(job, &job.target) and job.target.contiguous)
    plan.columns_of_vjp = (
        job.what & VJP and job.n_classes <= CHUNK and plan.x_adjacent and plan.out_adjacent
        and rows_adjacent(job, &job.target) and holds_reals(job, &job.target)
        and lines_of_a_set(job) <= MOST_IN_SET)


cdef inline ptrdiff_t lines_of_a_set(const Job *job) noexcept:
    """Return how many classes of a row of strided classes compete for one set of the L2 cache."""
    cdef ptrdiff_t apart = job.x.step if job.x.step > 0 else -job.x.step, power = 1
    while power < LINES_APART and apart % (2 * power) == 0:
        power *= 2
    return job.n_classes * power // LINES_APART


cdef inline bint streams_16(const Job *job, const Array *array) noexcept:
    """Return whether rows of 16 bits are stored past the caches."""
    return (array.data != NULL and job.plan.exceeds_cache and array.item == 2 and array.step == 2
            and 2 * job.n_classes >= STREAMED_ROW)


# ---------------------------------------------------------------- rows

cdef inline void plan_rows(Job *job) noexcept:
    """Plan the way ROWS: blocks of sixteen rows, or of one if there are few for the threads."""
    cdef Plan *plan = &job.plan
    cdef ptrdiff_t row_bytes = job.n_classes * job.itemsize
    cdef bint target_copied = job.target_is == DISTRIBUTION or (
        job.target_is == VECTOR and not job.target.contiguous)
    plan.way = ROWS
    plan.loads_ahead = plan.assembles = False
    if plan.rows_of_vjp:
        plan_rows_of_vjp(job)
        return
    plan.exp_stride = (row_bytes + 63) // 64 * 64
    plan.block_rows = TILE
    if 1 < plan.n_threads and job.n_rows < 64 * plan.n_threads:
        plan.block_rows = 1
    plan.part_rows = 1
    if (plan.exp_stride * TILE <= PART_IN_L1 and not plan.logits_in_scratch
            and not target_copied):
        plan.part_rows = TILE
    plan.buffer_bytes = plan.part_rows * plan.exp_stride + PAGE         # see apart_from
    plan.rows_ahead = 0
    # (row_bytes counts 16-bit logits as float32: a prefetch covers two of their rows.)
    if job.x.step == job.x.item and row_bytes <= PREFETCHED_ROW:
        plan.rows_ahead = plan.part_rows + PREFETCH_AHEAD // row_bytes
    # Exps of rows of several chunks wait, and are stored while those of the next row are computed:
    # 0.83 to 0.92 of the time of 1024 x 32000.
    plan.defers = (plan.scales_only and job.out.contiguous and not plan.logits_in_scratch
                   and job.n_classes > CHUNK)


cdef inline void plan_rows_of_vjp(Job *job) noexcept:
    """Plan a VJP whose rows follow each other: blocks of few rows, which are read, computed and
    stored in turns."""
    cdef Plan *plan = &job.plan
    cdef ptrdiff_t row_bytes = job.n_classes * job.itemsize
    plan.block_rows = <int>max(<ptrdiff_t>1, min(
        min(<ptrdiff_t>MOST_ROWS, job.n_rows // plan.n_threads), VJP_PART // row_bytes))
    plan.defers = False
    plan.streamed = plan.exps_in_scratch = plan.exceeds_cache
    plan.buffer_bytes = plan.block_rows * row_bytes + PAGE


# ---------------------------------------------------------------- tiles

cdef inline bint suits_tiles(const Job *job) noexcept:
    """Return whether sixteen rows at a time are faster: short rows, unless they are few, or strided
    ones that fit."""
    if not rows_fill_tiles(job):
        return False
    if job.x.step == job.x.item and job.what & VJP:     # no exps, whose sums sixteen rows share
        if job.plan.rows_of_vjp:
            return job.n_classes < LEAST_VJP * job.itemsize // 4
        return job.n_classes * job.itemsize <= TILE_BYTES_VJP
    if job.x.step == job.x.item:
        return job.n_classes <= (
            job.kernels.tile_classes_read if job.out.data == NULL else job.kernels.tile_classes)
    return job.n_classes <= TILES_IN_L2 // (TILE * job.itemsize)


cdef inline bint rows_fill_tiles(const Job *job) noexcept:
    """Return whether there are rows enough. A partly filled tile costs as much as a full one: as
    much as 5 single rows of a few classes, or 15 single rows of 400 bytes; or 10 strided ones,
    which have to be copied."""
    cdef ptrdiff_t most = 15 if job.x.step == job.x.item else 10
    cdef ptrdiff_t as_rows = min(most, 4 + job.n_classes * job.itemsize // 32)
    return count_sixteens(job.n_rows) * as_rows < job.n_rows


cdef inline void plan_tiles(Job *job) noexcept:
    """Plan the way TILES: blocks of as many tiles as stay in their cache. Of adjacent rows, the
    tiles of the next block are copied ahead if there is room for two blocks, and if most blocks
    lie along one axis (most blocks of small images cross the border of an image)."""
    cdef Plan *plan = &job.plan
    cdef ptrdiff_t n_tiles = count_sixteens(job.n_rows)
    cdef int copies, tiles
    cdef bint adjacent = rows_adjacent(job, &job.x)
    plan.way = TILES
    plan.stages = job.target_is == SPARSE or converts(job, &job.x) or converts(
        job, &job.out) or converts(job, &job.variance) or converts(job, &job.where) or (
            (job.target_is == DISTRIBUTION or job.target_is == VECTOR)
            and converts(job, &job.target))
    copies = tile_copies(job)
    plan.defers = False
    # An odd number of cache lines: the classes of tiles then do not compete for the same sets.
    plan.tile_stride = (job.n_classes | 1) * TILE * job.itemsize
    tiles = tiles_that_fit(job, TILES_IN_L2 if adjacent else TILES_IN_L1, copies)
    plan.loads_ahead = plan.x_adjacent and (copies + 1) * plan.tile_stride <= TILES_IN_L2 and (
        job.ndim == 1 or job.shape[job.ndim - 1] >= (
            2 * TILE * tiles_that_fit(job, TILES_IN_L2, copies + 1)))
    if plan.loads_ahead:
        tiles = tiles_that_fit(job, TILES_IN_L2, copies + 1)
    plan.assembles = plan.exceeds_cache and plan.out_row_by_row
    tiles = <int>max(<ptrdiff_t>1, min(<ptrdiff_t>tiles, n_tiles // plan.n_threads))
    plan.block_rows = plan.part_rows = tiles * TILE


cdef inline bint converts(const Job *job, const Array *array) noexcept:
    """Return whether there is such an array, whose numbers are not reals."""
    return array.data != NULL and not holds_reals(job, array)


cdef inline int tiles_that_fit(const Job *job, ptrdiff_t n_bytes, int copies) noexcept:
    """Return how many tiles have room in n_bytes, `copies` times over; at least one."""
    return <int>max(<ptrdiff_t>1, min(<ptrdiff_t>(MOST_ROWS // TILE),
                                      n_bytes // (copies * job.plan.tile_stride)))


# ---------------------------------------------------------------- spans

cdef inline bint few_long_rows(const Job *job, int n_threads) noexcept:
    """Return whether threads share rows: there are fewer than two rows for each thread, and a row
    has at least four chunks. If exps are then computed twice, only if at least half of the threads
    would have no row."""
    if n_threads == 1 or job.n_classes < 4 * CHUNK:
        return False
    if job.out.data == NULL or job.what & (LOG_SOFTMAX | VJP) or exps_can_wait_in_out(job):
        return job.n_rows < 2 * n_threads
    return 2 * job.n_rows <= n_threads


cdef inline bint exps_can_wait_in_out(const Job *job) noexcept:
    """Return whether the output has room for exps until their sum is known. Not if the logits are
    read again after that: they may be in the same memory."""
    return (job.what & (SOFTMAX | GRAD) and job.out.contiguous
            and not job.plan.logits_in_scratch and not job.plan.reads_rows
            and not job.what & VARIANCE)


cdef inline void plan_spans(Job *job) noexcept:
    """Plan the way SPANS: blocks of one row; if threads share them, of rows enough for about four
    spans a thread."""
    cdef Plan *plan = &job.plan
    plan.way = SPANS
    plan.defers = plan.loads_ahead = plan.assembles = False
    plan.part_rows = 1
    plan.n_spans = (job.n_classes + SPAN - 1) // SPAN
    plan.block_rows = 1
    if plan.shares_spans:
        plan.block_rows = <int>max(<ptrdiff_t>1, min(
            <ptrdiff_t>MOST_ROWS, (4 * plan.n_threads + plan.n_spans - 1) // plan.n_spans))
    plan.buffer_bytes = SPAN * job.itemsize
    plan.exps_in_out = exps_can_wait_in_out(job)
    if plan.exps_in_out:
        plan.streamed = plan.out_in_scratch = plan.exps_in_scratch = False
