# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# What one call is about: its arrays with their strides, its options, the plan by which it is
# computed, and where its losses are summed. Read-only once the loops have begun. Knows where a
# row lies; never reads a number of an array, and knows no formula.

from libc.stdint cimport uint64_t
from libc.stdlib cimport abort

from cysoftmax._kernels cimport Doubles, Kernels
from cysoftmax._wide cimport Wide

cdef extern from *:
    """
    #ifndef CYSOFTMAX_DEBUG
    #define CYSOFTMAX_DEBUG 0
    #endif
    """
    const bint CYSOFTMAX_DEBUG

cdef enum:
    MAX_DIMS = 64                   # NumPy's NPY_MAXDIMS
    MAX_ARRAYS = 10                 # those of a Job

cdef struct Array:
    char *data                      # NULL: there is no such array
    ptrdiff_t step                  # bytes from class to class
    ptrdiff_t item                  # bytes of one number
    int kind                        # 'd', 'f', 'e' (IEEE half), 'b' (bfloat16), 'i', 'u', '?'
    bint contiguous                 # rows are float32 or float64 side by side
    ptrdiff_t *outer                # bytes along the axes of the rows

cdef enum Target:
    NO_TARGET = 0                   # what clearing a Job leaves
    LABELS
    DISTRIBUTION
    SPARSE
    VECTOR                          # v of a VJP

cdef struct Sparse:                 # a sparse target: CSR
    Array entries                   # the non-zeros, of any dtype, side by side
    const char *classes             # the class of each: int32 or int64, as index_item says
    const char *indptr              # where those of a row begin, and where the last end
    ptrdiff_t index_item, n_entries

cdef struct Loss:                   # the options
    const char *class_weight        # as reals, or NULL for ones
    int class_exponent              # the caller's class weights are these times 2 to this power
    bint moderate_weights           # all class weights and sample weights lie in [2^-25, 2^25)
    bint moderate_options           # see has_moderate_options
    double class_sum                # their sum
    double smoothing, confidence    # label_smoothing, and 1 minus that
    double z_loss
    bint sample_may_be_0            # a row of sample weight 0 is ignored
    double temperature              # what logits are divided by
    double[2] inv_temperatures      # 1 / temperature as a sum of two doubles
    const double *inv_temperature   # these, or NULL for 1
    double grad_scale               # the scale of every gradient, if there is no array of them
    Wide divisor                    # the sum of the weights, if the loss is their mean
    bint ignores                    # labels with the bits of `ignore`, as 64 bits
    uint64_t ignore

cdef struct RowWeights:             # of one row; the quantities are defined in _formula.pxd
    double sample                   # s, its sample weight
    double label_mass               # class weight of its label
    double target_sum, target_mass  # sum T, and sum class_weight T
    double uniform_mass             # e sum(T) / K: what label smoothing gives to a class
    double uniform_total            # uniform_mass times the sum of the class weights
    double weight                   # w = s target_mass
    double factor                   # what its gradient is multiplied with, 1 / temperature included
    double rest_from, surplus       # see take_factors
    # Powers of two that extreme weights leave over (section 15 of docs/derivation.md); usually 0.
    # In a block, T and all masses may also have been multiplied by 2^lift, for which `exponent`
    # makes up, and `weight` may have a weight_exponent of its own.
    int exponent                    # s times any mass is to be multiplied by this power
    int factor_exponent             # and `factor` by this one

cdef enum Way:
    ROWS
    TILES
    SPANS

cdef struct Plan:                   # decided once per call, in _plan.pxd, where the reasons are
    Way way                         # how the classes are walked
    int n_threads
    int block_rows                  # rows of a block
    int part_rows                   # rows that are loaded, reduced and written together
    ptrdiff_t n_blocks
    ptrdiff_t thread_blocks         # consecutive blocks that one thread gets
    ptrdiff_t n_spans               # SPANS: how many a row is cut into
    bint by_mass                    # the target is a distribution, dense or sparse
    bint weighted                   # a row may weigh anything but 1, or be ignored
    bint reads_rows                 # more than a label, weight and scale has to be read of a row,
    bint has_dots                   # and its loss needs sums over the logits
    bint plain_masses               # rows weigh what their masses sum to, often 1
    bint counts_labels              # a row weighs 1, unless its label is ignored
    bint adds_label_weights         # weights of labels can be added without opening their rows
    bint labels_weigh_1             # a row's weight is its sample weight, whatever its label is
    bint exps_alone                 # no sum is needed but that of the exps
    bint has_surplus                # label smoothing or z-loss: b / (s confidence) is not the mass
    bint plain_rows                 # all rows have the weights Job.plain_weights
    bint scales_only                # the output is exps times a factor, except at the labels
    bint log_first                  # the output needs the logarithm of the sum
    bint sums_each_row              # losses are kept for each row, not for each sixteen
    bint exceeds_cache              # an output would not stay in the caches,
    bint streamed                   # so its rows are stored past them,
    bint out_streamed_16, variance_streamed_16      # or those of 16 bits are
    bint logits_in_scratch          # logits are copied as reals before they are worked on
    bint exps_in_scratch            # exps, or rows of the output, have room in scratch
    bint shares_spans               # SPANS: all threads work on one block, not each on its own
    bint exps_over_logits           # exps take the place of logits in scratch
    bint exps_in_out                # SPANS: exps wait in the output for their sum
    bint out_in_scratch, variance_in_scratch        # rows are computed there, then stored
    bint defers                     # exps of a row wait, and are stored during the next row
    bint loads_ahead                # the next block's tiles are copied during this one's exps
    bint x_adjacent, out_adjacent   # a class of neighbouring rows lies together, as reals
    bint x_row_by_row, out_row_by_row               # each row begins where the last one ends
    bint target_row_by_row          # so do the rows of a distribution of reals, and those of x
    bint rows_of_vjp                # ROWS: a VJP whose rows follow each other in each array
    bint columns_of_vjp             # TILES: one of which neighbouring rows are neighbours in each
    bint assembles                  # streamed tiles are put together as rows first
    ptrdiff_t rows_ahead            # how many rows ahead logits are prefetched; 0: they are not
    ptrdiff_t exp_stride            # bytes from one row of exps to the next
    ptrdiff_t tile_stride           # bytes from one tile to the next
    bint stages                     # TILES: numbers are converted on their way to or from a tile
    ptrdiff_t buffer_bytes          # of a buffer of exps or tiles
    ptrdiff_t scratch_bytes         # of one thread

cdef struct Sums:                   # what the loops write besides outputs
    Wide *losses                    # of each row, or NULL
    Wide *weights                   # of each row, beside losses; if `adds_weights`
    bint adds_weights               # rows can differ in weight, and their sum is wanted
    double *sixteens                # hi, lo of losses and of weights of each 16 rows, or NULL
    int *exponents                  # of losses and of weights, beside sixteens: powers of two
    double *kept                    # where keep_weights stores what each row weighs, or NULL

# Magnitudes within which no product of a row's numbers over- or underflows as a real.
cdef struct Range:
    double least_mass, most_mass        # of what a row's target weighs
    double least_factor, most_factor    # of what exps are multiplied with, times their sum
    double least_term, most_term        # of what masses and class weights are multiplied with
    int middle                          # the exponent of a factor that was outside of these
    double least_sample, most_sample    # of a sample weight
    double least_scale, most_scale      # of scale / (divisor temperature)
    double least_z_loss, most_z_loss    # of z_loss
    double least_loss                   # of a loss, and 1 / this is the largest

cdef struct Job:
    int what
    const Kernels *kernels
    const Kernels *float_kernels    # of float32: for numbers of 16 bits
    const Doubles *doubles
    ptrdiff_t n_rows, n_classes, itemsize
    int ndim                        # axes of the rows, after joining what can be joined
    int n_arrays                    # number of the arrays below that there are
    Array x, out
    Array variance                  # a second output, like out
    Array result                    # one number a row: losses or logsumexp
    Array stats                     # six float64 for each row, or the four of TOTALS
    Array given                     # what is known of rows of whose classes these are some:
    bint given_masses               # see _given.pxd
    bint labels_of_block            # the block is of the classes from first_class on,
    uint64_t first_class            # and labels are those of all classes, which weigh 1
    Array where                     # bytes: 0 where an entry is masked
    Array sample, scale             # float64: a row's weight, and a factor of its gradient
    Array target                    # labels, a distribution, or v of a VJP
    Target target_is
    bint checks_labels              # before anything is written
    Sparse sparse
    Loss loss
    Plan plan
    Sums sums
    Range range
    RowWeights plain_weights        # of a row that no option treats differently
    # Of the largest number of axes. fill_job clears all but these and plain_weights.
    ptrdiff_t shape[MAX_DIMS]
    ptrdiff_t outer[MAX_ARRAYS][MAX_DIMS]   # of each array


cdef inline void expect(bint condition) noexcept nogil:
    """In a debug build, abort where an index is outside of its array."""
    if CYSOFTMAX_DEBUG and not condition:
        abort()


cdef inline char *row_at(const Job *job, const Array *array, ptrdiff_t i) noexcept nogil:
    """Return where row i begins."""
    expect(0 <= i < job.n_rows)
    if job.ndim == 1:
        return array.data + i * array.outer[0]
    return row_among_axes(job, array, i)


cdef inline char *row_among_axes(const Job *job, const Array *array, ptrdiff_t i) noexcept nogil:
    cdef char *place = array.data
    cdef int d
    for d in range(job.ndim - 1, 0, -1):
        place += (i % job.shape[d]) * array.outer[d]
        i //= job.shape[d]
    return place + i * array.outer[0]


cdef inline char *class_at(const Job *job, const Array *array, ptrdiff_t i,
                           ptrdiff_t c) noexcept nogil:
    """Return where class c of row i is."""
    expect(0 <= c < job.n_classes)
    return row_at(job, array, i) + c * array.step


cdef inline bint evenly_spaced(const Job *job, ptrdiff_t first, ptrdiff_t n) noexcept nogil:
    """Return whether n rows from `first` on lie along one axis, each as far from the next."""
    return job.ndim == 1 or first % job.shape[job.ndim - 1] + n <= job.shape[job.ndim - 1]
