# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# The parallel loops. Either each block of rows belongs to one thread; or, with few long rows,
# blocks are done one after the other, and all threads share the spans of each. Knows the stages of
# a block and their order; leaves the classes to the three ways.

from cython.parallel cimport parallel, prange
from libc.string cimport memcpy

from cysoftmax._block cimport Block, open_weights
from cysoftmax._formula cimport finish_block, finish_part
from cysoftmax._job cimport ROWS, SPANS, TILES, Job
from cysoftmax._kernels cimport TILE, fp_enter, fp_leave, fp_mode
from cysoftmax._numbers cimport read_labels, read_per_row
from cysoftmax._rows cimport (
    load_rows, reduce_rows, weigh_rows, write_rows, write_rows_of_vjp)
from cysoftmax._scratch cimport Scratch, open_scratch, scratch_of
from cysoftmax._spans cimport (
    LOAD, REDUCE, SPAN_CHUNKS, WEIGH, WRITE, SpanBlock, Stage, end_stage, join_span, open_spans,
    walk_span)
from cysoftmax._sums cimport ChunkSums, count_sixteens, sum_sixteens
from cysoftmax._target cimport gather_class_weights, open_block
from cysoftmax._threads cimport thread_num
from cysoftmax._tile_targets cimport weigh_tiles
from cysoftmax._tiles cimport (
    load_tiles, reduce_tiles, skip_tiles, skips_all, takes_columns, write_columns_of_vjp,
    write_tiles)
from cysoftmax._what cimport VJP
from cysoftmax._write cimport close_scratch, store_block, store_sums

# ---------------------------------------------------------------- blocks of rows

cdef inline void do_block(const Job *job, Scratch *s, ptrdiff_t index) noexcept nogil:
    """Take one block of rows through the four stages: open, load, reduce, write. (A VJP of rows or
    columns of reals is one kernel.)"""
    cdef Block *b = &s.block
    cdef char *tiles
    cdef int begin = 0, end
    if job.plan.rows_of_vjp and job.plan.way == ROWS:
        write_rows_of_vjp(job, s, index)
        return
    open_block_at(job, s, b, index, False)
    if job.plan.way == TILES and skips_all(b):
        skip_tiles(job, s, b)
    elif job.plan.columns_of_vjp and job.plan.way == TILES and takes_columns(job, b):
        write_columns_of_vjp(job, s, b)
    elif job.plan.way == TILES:
        tiles = s.buffers[s.current]    # reduce_tiles makes the next block's buffer the current one
        load_tiles(job, s, b)
        reduce_tiles(job, s, b, tiles)
        finish_part(job, b, 0, b.n_rows)
        write_tiles(job, s, b, tiles)
    else:
        while begin < b.n_rows:
            end = min(begin + job.plan.part_rows, b.n_rows)
            load_rows(job, s, b, begin, end)
            reduce_rows(job, s, b, begin, end)
            finish_part(job, b, begin, end)
            write_rows(job, s, b, begin, end)
            begin = end
    finish_block(job, b)
    store_block(job, b)


cdef inline void weigh_block(const Job *job, Scratch *s, ptrdiff_t index) noexcept nogil:
    """Open one block of rows, for its weights alone."""
    cdef Block *b = &s.block
    cdef int r
    if job.plan.counts_labels and not job.plan.sums_each_row:
        count_labels(job, s, index)
        return
    if job.plan.adds_label_weights and not job.plan.sums_each_row:
        add_label_weights(job, s, index)
        return
    open_block_at(job, s, b, index, True)
    if job.plan.way == TILES:
        weigh_tiles(job, s, b)
    else:
        for r in range(b.n_rows):
            weigh_rows(job, s, b, r, r + 1)
    store_sums(job, b)


cdef inline void count_labels(const Job *job, Scratch *s, ptrdiff_t index) noexcept nogil:
    """Count the rows of each sixteen of a block that are not ignored: their weight."""
    cdef Block *b = &s.block
    cdef ptrdiff_t first = index * job.plan.block_rows
    cdef int n = <int>min(<ptrdiff_t>job.plan.block_rows, job.n_rows - first), r, ignored
    cdef double *sums = job.sums.sixteens + first // TILE * 4
    cdef int g
    if read_labels(job, first, n, b.label, b.ignored):
        s.bad_label = True
    for g in range(count_sixteens(n)):
        ignored = 0
        for r in range(g * TILE, min((g + 1) * TILE, n)):
            ignored += b.ignored[r]
        sums[4 * g + 2] = min(TILE, n - g * TILE) - ignored
        sums[4 * g + 3] = 0


cdef inline void add_label_weights(const Job *job, Scratch *s, ptrdiff_t index) noexcept nogil:
    """Add up the weights, all of moderate size, of the rows of a block that have labels: what
    open_block and store_sums find, without what outputs need besides."""
    cdef Block *b = &s.block
    cdef ptrdiff_t first = index * job.plan.block_rows, g = first // TILE
    cdef int n = <int>min(<ptrdiff_t>job.plan.block_rows, job.n_rows - first), r
    b.n_rows = n
    if not job.plan.labels_weigh_1 and read_labels(job, first, n, b.label, b.ignored):
        s.bad_label = True
    if job.loss.class_weight != NULL:
        gather_class_weights(job, b)
    if job.sample.data == NULL:
        memcpy(b.w.weight, b.w.label_mass, n * sizeof(double))
    else:
        read_per_row(job, &job.sample, 0, first, n, b.w.weight)
        for r in range(n if job.loss.class_weight != NULL else 0):
            b.w.weight[r] *= b.w.label_mass[r]
    if job.loss.ignores:
        job.doubles.clear(b.ignored, n, b.w.weight)
    for r in range(n, <int>count_sixteens(n) * TILE):
        b.w.weight[r] = 0
    sum_sixteens(job, b.w.weight, NULL, count_sixteens(n), job.sums.sixteens + 4 * g + 2,
                 job.sums.exponents + 2 * g + 1)


cdef inline void open_block_at(const Job *job, Scratch *s, Block *b, ptrdiff_t index,
                               bint weigh_only) noexcept nogil:
    """Open the block of that index."""
    cdef ptrdiff_t first = index * job.plan.block_rows
    open_block(job, b, first, <int>min(<ptrdiff_t>job.plan.block_rows, job.n_rows - first),
               weigh_only, &s.bad_label)


cdef inline void do_blocks(const Job *job, char *memory, bint weigh_only) noexcept nogil:
    """Do all blocks, each of which is one thread's. With `weigh_only`, only add up what the rows
    weigh."""
    cdef ptrdiff_t i
    cdef fp_mode mode = 0
    if job.plan.n_threads == 1:
        mode = fp_enter()
        for i in range(job.plan.n_blocks):
            do_or_weigh(job, memory, 0, i, weigh_only)
        close_scratch(job, scratch_of(job, memory, 0))
        fp_leave(mode)
        return
    with parallel(num_threads=job.plan.n_threads):
        mode = fp_enter()
        for i in prange(job.plan.n_blocks, schedule="static", chunksize=job.plan.thread_blocks):
            do_or_weigh(job, memory, thread_num(), i, weigh_only)
        close_scratch(job, scratch_of(job, memory, thread_num()))
        fp_leave(mode)


cdef inline void do_or_weigh(const Job *job, char *memory, int thread, ptrdiff_t i,
                             bint weigh_only) noexcept nogil:
    if job.plan.way == SPANS:
        do_span_block(job, memory, thread, i, weigh_only)
    elif weigh_only:
        weigh_block(job, scratch_of(job, memory, thread), i)
    else:
        do_block(job, scratch_of(job, memory, thread), i)


# ---------------------------------------------------------------- spans of long rows

cdef inline ptrdiff_t spans_of_round(const Job *job) noexcept nogil:
    """Return how many spans are walked before their sums are added: one; or if threads share them,
    enough that the barrier costs little, and few enough that the sums take little memory."""
    if not job.plan.shares_spans:
        return 1
    return min(job.plan.n_spans * min(job.n_rows, <ptrdiff_t>job.plan.block_rows),
               <ptrdiff_t>(16 * job.plan.n_threads + 32))


cdef inline ptrdiff_t span_bytes(const Job *job) noexcept nogil:
    """Return the bytes of memory of a block of spans, and of the sums of a round."""
    return (sizeof(SpanBlock) + spans_of_round(job) * (
        SPAN_CHUNKS * sizeof(ChunkSums) + sizeof(double)) + 63) // 64 * 64


cdef inline ptrdiff_t span_blocks_bytes(const Job *job) noexcept nogil:
    """Return the bytes of memory of all blocks of spans that are worked on at a time."""
    if job.plan.way != SPANS:
        return 0
    return span_bytes(job) * (1 if job.plan.shares_spans else job.plan.n_threads)


cdef inline SpanBlock *span_block(const Job *job, char *memory, int thread) noexcept nogil:
    """Return the memory of a block, which is one thread's, or that of all if they share it."""
    cdef char *shared = memory + job.plan.n_threads * job.plan.scratch_bytes
    return <SpanBlock *>(shared + thread * span_bytes(job))


cdef inline void do_span_block(const Job *job, char *memory, int thread, ptrdiff_t index,
                               bint weigh_only) noexcept nogil:
    """Take one block of long rows through the four stages: each for all spans, then the next."""
    cdef Scratch *s = scratch_of(job, memory, thread)
    cdef SpanBlock *sb = span_block(job, memory, thread)
    open_weights(job, &sb.block, <int>min(<ptrdiff_t>job.plan.block_rows, job.n_rows))
    open_block_at(job, s, &sb.block, index, weigh_only)
    open_spans(sb)
    if job.plan.reads_rows:
        do_stage(job, memory, thread, WEIGH)
    if weigh_only:
        store_sums(job, &sb.block)
        return
    if not job.what & VJP:
        do_stage(job, memory, thread, LOAD)
    do_stage(job, memory, thread, REDUCE)
    finish_part(job, &sb.block, 0, sb.block.n_rows)
    finish_block(job, &sb.block)
    if job.out.data != NULL:
        do_stage(job, memory, thread, WRITE)
    store_block(job, &sb.block)


cdef inline void do_stage(const Job *job, char *memory, int thread, Stage stage) noexcept nogil:
    """Do one stage for all spans of a block, in rounds; after each, sums are added in order."""
    cdef SpanBlock *sb = span_block(job, memory, thread)
    cdef ChunkSums *sums = <ChunkSums *>(sb + 1)
    cdef ptrdiff_t n = job.plan.n_spans * sb.block.n_rows, size = spans_of_round(job)
    cdef double *largest = <double *>(sums + size * SPAN_CHUNKS)
    cdef ptrdiff_t first = 0, end, u
    while first < n:
        end = min(first + size, n)
        if job.plan.shares_spans:
            share_spans(job, memory, stage, first, end, sums, largest)
        else:
            for u in range(first, end):
                walk_span(job, scratch_of(job, memory, thread), &sb.block, stage, u,
                          sums + (u - first) * SPAN_CHUNKS, largest + (u - first))
        for u in range(first, end):
            join_span(job, sb, stage, u, sums + (u - first) * SPAN_CHUNKS, largest[u - first])
        first = end
    end_stage(job, scratch_of(job, memory, thread), sb, stage)


cdef inline void share_spans(const Job *job, char *memory, Stage stage, ptrdiff_t first,
                             ptrdiff_t end, ChunkSums *sums, double *largest) noexcept nogil:
    """Do one stage for some spans of the block that all threads share."""
    cdef ptrdiff_t u
    cdef fp_mode mode = 0
    with parallel(num_threads=job.plan.n_threads):
        mode = fp_enter()
        for u in prange(first, end, schedule="static"):
            walk_span(job, scratch_of(job, memory, thread_num()),
                      &span_block(job, memory, 0).block, stage, u,
                      sums + (u - first) * SPAN_CHUNKS, largest + (u - first))
        close_scratch(job, scratch_of(job, memory, thread_num()))
        fp_leave(mode)


cdef inline void do_shared_spans(const Job *job, char *memory, bint weigh_only) noexcept nogil:
    """Do all blocks, one after the other, the spans of which all threads share."""
    cdef ptrdiff_t i
    cdef fp_mode mode = fp_enter()
    for i in range(job.plan.n_blocks):
        do_span_block(job, memory, 0, i, weigh_only)
    fp_leave(mode)


# ---------------------------------------------------------------- all rows

cdef inline bint walk(const Job *job, char *memory, bint weigh_only) noexcept nogil:
    """Do all rows in the way that the plan says; return whether a label was out of range."""
    cdef bint bad = False
    cdef int t
    for t in range(job.plan.n_threads):
        open_scratch(job, scratch_of(job, memory, t))
    if job.plan.shares_spans:
        do_shared_spans(job, memory, weigh_only)
    else:
        do_blocks(job, memory, weigh_only)
    for t in range(job.plan.n_threads):
        bad |= scratch_of(job, memory, t).bad_label
    return bad
