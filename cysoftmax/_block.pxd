# cython: language_level=3, wraparound=False, cdivision=True, initializedcheck=False
# The rows of a block: the few numbers that the results of each need, and what each weighs. Touches
# arrays of one number a row; never sees a pointer to classes.
#
# With d = (x - shift) / temperature and A_c = class_weight_c ((1 - e) T_c + e sum(T) / K):
#
#   loss = s (a log(total) - sum A d) + w z lse^2                               (29)
#   gradient of the loss = (b p - s A) / temperature,   b = s a + 2 w z lse     (30)
#
# The numbers are those of docs/derivation.md. The names of the code:
#
#   sample          s, the weight of the row that the caller gives
#   smoothing       e; confidence = 1 - e
#   z_loss          z
#   target_sum      sum of T_c
#   target_mass     sum of class_weight_c T_c; each term is the mass of a class, label_mass that of
#                   the label
#   uniform_mass    e sum(T) / K, for K classes that are not masked
#   uniform_total   uniform_mass times the sum of the class weights
#   weight          w = s target_mass
#   all_mass        a = confidence target_mass + uniform_total
#   target_dot      sum of class_weight_c T_c (x_c - shift), as a sum of two doubles
#   uniform_dot     sum of class_weight_c (x_c - shift), likewise

from libc.string cimport memchr, memcpy, memset

from cysoftmax._job cimport TILES, Job, RowWeights, expect
from cysoftmax._kernels cimport MOST_TILES, TILE
from cysoftmax._what cimport STATS

cdef enum:
    MOST_ROWS = MOST_TILES * TILE       # of a block: as many as its tiles have at most

cdef struct Weights:                # RowWeights of each row, as arrays: loops become vectors
    double[MOST_ROWS] sample, label_mass, target_sum, target_mass, uniform_mass, uniform_total
    double[MOST_ROWS] weight, factor, rest_from, surplus

cdef struct Powers:                 # of two, beside what extreme numbers are made of: RowWeights
    int[MOST_ROWS] lift, exponent, weight_exponent, factor_exponent
    int[MOST_ROWS] raised           # what the finished gradient is multiplied with
    int[MOST_ROWS] loss             # what the loss is to be multiplied with

cdef struct Block:                  # of each row, the few numbers that its results need
    ptrdiff_t first                 # the first row
    int n_rows
    bint alike                      # all rows have the weights of the first
    Weights w
    char[MOST_ROWS] skipped         # nothing of the row is read: its outputs are constants
    char[MOST_ROWS] ignored         # the row has no loss, weight or gradient
    bint any_skipped, any_ignored
    char[MOST_ROWS] has_nan         # a logit is NaN; found out only where the shift is infinite
    ptrdiff_t[MOST_ROWS] label
    double[MOST_ROWS] shift         # the largest logit
    double[MOST_ROWS] coarse, fine  # total = coarse + fine = sum of exp(d)
    double[MOST_ROWS] log_total     # log(total)
    double[MOST_ROWS] target_dot_hi, target_dot_lo
    double[MOST_ROWS] uniform_dot_hi, uniform_dot_lo
    double[MOST_ROWS] entropy_dot, target_exp           # sum of exp(d) d, of T exp(d): STATS
    ptrdiff_t[MOST_ROWS] arg_max
    double[MOST_ROWS] loss          # or logsumexp, or 0
    double[MOST_ROWS] factor_hi, factor_lo              # what exps are multiplied with
    Powers powers                   # last: what is always used keeps its distances modulo 4096
    bint wide, raises, wide_losses  # whether there are powers of weights, gradients and losses


cdef inline int weights_of(const Block *b, int r) noexcept nogil:
    """Return the index of row r's weights among those of the block."""
    expect(0 <= r < b.n_rows)
    return 0 if b.alike else r


cdef inline void set_weights(Block *b, int r, const RowWeights *weights) noexcept nogil:
    """Store the weights of row r."""
    b.w.sample[r] = weights.sample
    b.w.label_mass[r] = weights.label_mass
    b.w.target_sum[r] = weights.target_sum
    b.w.target_mass[r] = weights.target_mass
    b.w.uniform_mass[r] = weights.uniform_mass
    b.w.uniform_total[r] = weights.uniform_total
    b.w.weight[r] = weights.weight
    b.w.factor[r] = weights.factor
    b.w.rest_from[r] = weights.rest_from
    b.w.surplus[r] = weights.surplus


cdef inline void open_weights(const Job *job, Block *b, int n) noexcept nogil:
    """Prepare a block, which is used again and again, for n rows: what no row changes is set here
    once. A tile has 16 rows even if there are fewer, whose numbers are computed, but not used."""
    cdef int r
    b.alike = job.plan.plain_rows
    memset(b.label, 0, n * sizeof(b.label[0]))
    memset(b.loss, 0, n * sizeof(double))
    b.wide = False
    for r in range(n if job.plan.way == TILES or not b.alike else 1):
        set_weights(b, r, &job.plain_weights)
    if job.plain_weights.exponent != 0 or job.plain_weights.factor_exponent != 0:
        widen(job, b)


cdef inline void widen(const Job *job, Block *b) noexcept nogil:
    """Prepare the powers of two of a block's rows."""
    cdef int r
    if b.wide:
        return
    b.wide = True
    for r in range(MOST_ROWS):
        b.powers.lift[r] = 0
        b.powers.exponent[r] = b.powers.weight_exponent[r] = job.plain_weights.exponent
        b.powers.factor_exponent[r] = job.plain_weights.factor_exponent


cdef inline void clear_rows(const Job *job, Block *b) noexcept nogil:
    """Set the numbers of a block's rows to what a row without logits has, unless all rows are
    computed."""
    cdef int n = b.n_rows, r
    b.any_skipped = b.any_ignored = b.raises = b.wide_losses = False
    memset(b.ignored, 0, n)
    memset(b.skipped, 0, n)
    if n % TILE != 0:
        memset(b.loss + n, 0, (TILE - n % TILE) * sizeof(double))
    if job.plan.way == TILES:
        return
    memset(b.label, 0, n * sizeof(b.label[0]))
    memset(b.fine, 0, n * sizeof(double))
    memset(b.log_total, 0, n * sizeof(double))
    memset(b.factor_hi, 0, n * sizeof(double))
    memset(b.factor_lo, 0, n * sizeof(double))
    for r in range(n):
        b.coarse[r] = 1


# ---------------------------------------------------------------- weights

cdef inline double factor_for(const Job *job, double scale) noexcept nogil:
    """Return what the gradient of a row with that scale is multiplied with."""
    return scale / job.loss.divisor.part / job.loss.temperature


cdef inline void weigh(const Job *job, Block *b, int r) noexcept nogil:
    """Compute the weight of row r from its sample weight and its target's mass."""
    cdef int i = weights_of(b, r)
    if b.ignored[r]:
        b.w.label_mass[i] = b.w.target_mass[i] = 0
    b.w.weight[i] = b.w.sample[i] * b.w.target_mass[i]
    # The statistics of a row do not need its target.
    b.skipped[r] = b.ignored[r] and not job.what & STATS
    b.any_ignored |= b.ignored[r]
    b.any_skipped |= b.skipped[r]


cdef inline void weigh_labels(const Job *job, Block *b) noexcept nogil:
    """Do that for all rows of a block whose label masses were read: without a branch, since rows
    may be ignored at random."""
    cdef int r
    job.doubles.clear(b.ignored, b.n_rows, b.w.label_mass)
    for r in range(b.n_rows):
        b.w.target_mass[r] = b.w.label_mass[r]
        b.w.weight[r] = b.w.sample[r] * b.w.label_mass[r]
    skip_ignored(job, b)


cdef inline void weigh_masses(const Job *job, Block *b, int r, double unmasked, double weight_sum,
                              bint has_target, double target_sum, double target_mass,
                              bint any_target) noexcept nogil:
    """Compute what row r weighs, of which `unmasked` classes with the class weights `weight_sum`
    take part; of a distribution also the sums. A row whose classes are all masked is skipped; one
    whose distribution is all zeros is ignored."""
    cdef int i = weights_of(b, r)
    b.w.uniform_mass[i] = b.w.uniform_total[i] = 0
    if unmasked == 0:
        b.ignored[r] = True
        weigh(job, b, r)
        b.skipped[r] = b.any_skipped = True
        return
    if has_target:
        b.ignored[r] |= not any_target
        b.w.target_sum[i] = target_sum
        b.w.target_mass[i] = target_mass
    if job.loss.smoothing != 0 and not b.ignored[r]:
        b.w.uniform_mass[i] = job.loss.smoothing * b.w.target_sum[i] / unmasked
        b.w.uniform_total[i] = b.w.uniform_mass[i] * weight_sum
    weigh(job, b, r)


cdef inline void weigh_whole_tile(const Job *job, Block *b, int begin, const double *unmasked,
                                  const double *weight_sum, const double *target_sum,
                                  const double *target_mass) noexcept nogil:
    """Do what weigh_masses does for the sixteen rows of a tile, in none of which all is masked, and
    of which those without a target were ignored: without a branch, in loops that become vectors."""
    cdef int r
    if job.plan.by_mass:
        for r in range(TILE):
            b.w.target_sum[begin + r] = target_sum[r]
            b.w.target_mass[begin + r] = target_mass[r]
    if job.loss.smoothing != 0:
        for r in range(TILE):
            b.w.uniform_mass[begin + r] = (
                job.loss.smoothing * b.w.target_sum[begin + r] / unmasked[r])
            b.w.uniform_total[begin + r] = b.w.uniform_mass[begin + r] * weight_sum[r]
    if b.any_ignored:
        clear_ignored(job, b, begin, begin + TILE)
    for r in range(TILE):
        b.w.weight[begin + r] = b.w.sample[begin + r] * b.w.target_mass[begin + r]


cdef inline void clear_ignored(const Job *job, Block *b, int begin, int end) noexcept nogil:
    """Make the masses and the weight of ignored rows 0."""
    cdef const char *ignored = &b.ignored[begin]
    job.doubles.clear(ignored, end - begin, &b.w.target_mass[begin])
    job.doubles.clear(ignored, end - begin, &b.w.uniform_mass[begin])
    job.doubles.clear(ignored, end - begin, &b.w.uniform_total[begin])
    job.doubles.clear(ignored, end - begin, &b.w.weight[begin])


cdef inline void skip_ignored(const Job *job, Block *b) noexcept nogil:
    """Note that the ignored rows of a block are skipped, unless statistics want them: these do not
    need the target of a row."""
    b.any_ignored = memchr(b.ignored, True, b.n_rows) != NULL
    if b.any_ignored and not job.what & STATS:
        memcpy(b.skipped, b.ignored, b.n_rows)
        b.any_skipped = True


cdef inline double all_mass(const Job *job, const Block *b, int i) noexcept nogil:
    """Return a, the sum of A."""
    return job.loss.confidence * b.w.target_mass[i] + b.w.uniform_total[i]


cdef inline double target_factor(const Job *job, const Block *b, int i) noexcept nogil:
    """Return what masses are multiplied with before they are subtracted."""
    return job.loss.confidence * b.w.sample[i] * b.w.factor[i]


cdef inline double uniform_factor(const Block *b, int i) noexcept nogil:
    """Return what class weights are multiplied with before they are subtracted."""
    return b.w.uniform_mass[i] * b.w.sample[i] * b.w.factor[i]


cdef inline double log_sum_exp(const Job *job, const Block *b, int r) noexcept nogil:
    """Return lse, of the logits over the temperature."""
    return b.shift[r] / job.loss.temperature + b.log_total[r]
