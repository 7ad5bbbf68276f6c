"""What cysoftmax.dask is made of: the graphs, and the tasks that they are made of.

Arrays of dask are cut into blocks along rows, classes or both. `blockwise` makes a task for each
block; its indices are the axes of the logits. Where no row is cut, a task does what the function of
the same name does for the rows of a block.

Otherwise a few numbers of each row are found first. `weights` is what its target and mask weigh:
unmasked, weight_sum, target_sum, target_mass and any_target, as in _given.pxd, and the weight w.
The state of a block has the four numbers of OnlineSoftmax, and two for the loss; `merged` has the
four numbers of all blocks, and the loss. From these and one block of logits, its output follows.

Class weights are divided by one power of two first, as the core does it (`prepare_class_weight`).
All of these numbers, losses and their divisor are in that unit; `Loss.unit` takes it back.

Such numbers lie along a last axis of blocks that dask does not know of: to dask, there is one entry
for each row (and block of classes), or for all rows together. It only ever passes these blocks on,
and without an index that is summed over, it fuses a task with the one that makes its logits.
"""

import functools
import math
import operator
from typing import NamedTuple

import dask.array as da  # type: ignore[import-not-found, unused-ignore]
import numpy as np

import cysoftmax
from cysoftmax import _calls
from cysoftmax._calls import make_options
from cysoftmax._checks import check_class_weight, check_weights

WEIGHTS = 6  # numbers of a row in `weights`


class Options(NamedTuple):
    """The numbers among the options of a loss, which each task is given."""

    axis: int
    ignore_index: int | None = None
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    temperature: float = 1.0
    n_threads: int | None = 1

    def keywords(self):
        """Return the options of a loss as the functions take them."""
        return {name: value for name, value in self._asdict().items() if name != "axis"}

    def as_numbers(self):
        """Return the options, which were checked, as numbers of Python."""
        label = None if self.ignore_index is None else operator.index(self.ignore_index)
        return Options(self.axis, label, *map(float, self[2:5]), self.n_threads)


# ---------------------------------------------------------------- arguments


def check_array(x, name, axis):
    """Return an array of dask, and its axis of the classes counted from the front."""
    if not isinstance(x, da.Array):
        raise TypeError(
            f"{name} must be a dask array; got {type(x).__name__} (the functions of cysoftmax "
            "itself take NumPy arrays)"
        )
    if any(math.isnan(size) for chunk in x.chunks for size in chunk):
        raise ValueError(f"{name} must have known chunks (.compute_chunk_sizes() finds them)")
    if x.ndim == 0:
        raise ValueError(f"{name} must have at least one dimension; got a scalar")
    as_array(x, name)
    cysoftmax.softmax(np.empty((0,) * x.ndim), axis=axis)  # checks the axis
    return x, range(x.ndim)[axis]


def as_array(value, name):
    """Return an argument as an array of dask or of NumPy."""
    if hasattr(value, "tocsr"):
        raise TypeError(f"{name} must not be sparse; got {type(value).__name__} (.toarray())")
    if isinstance(value, da.Array):
        refuse_mask(value._meta, name)
        return value
    return _calls.convert(value, name)


def refuse_mask(array, name):
    """Raise an error if an array of a chunk is masked."""
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(
            f"{name} must have no mask; got a dask array with masked chunks (da.ma.filled makes "
            "plain ones)"
        )


def check_call(name, x, axis, *arrays, **options):
    """Raise the error of a function for arguments of these dtypes, and for the values of those that
    are no dask arrays. The function is called with logits of no rows; arguments that broadcast have
    been given the shapes of the logits or of the rows before, by `like`."""
    n = x.shape[axis]
    if n == 0 and name not in ("softmax", "log_softmax", "logsumexp", "softmax_vjp"):
        raise ValueError(f"logits must have at least one class; got shape {x.shape}")

    def without_rows(value):
        if not isinstance(value, da.Array):
            return value
        return np.empty((0, n) if value.ndim == x.ndim else 0, value.dtype)

    class_weight = options.get("class_weight")
    if isinstance(class_weight, da.Array):
        refuse_mask(class_weight._meta, "class_weight")
        options["class_weight"] = np.ones(class_weight.shape, class_weight.dtype)
    options = {key: without_rows(value) for key, value in options.items()}
    getattr(cysoftmax, name)(np.empty((0, n), x.dtype), *map(without_rows, arrays), **options)


def like(value, x, name, axis=None):
    """Return an option as a dask array with the shape and the chunks of x, without `axis` if that
    is given; None stays None."""
    if value is None:
        return None
    axes = [d for d in range(x.ndim) if d != axis]
    shape = tuple(x.shape[d] for d in axes)
    array = da.asarray(as_array(value, name))
    try:
        array = da.broadcast_to(array, shape)
    except ValueError:
        whose = "the logits" if axis is None else "the rows"
        raise ValueError(
            f"{name} must broadcast to the shape of {whose}, {shape}; got shape {array.shape}"
        ) from None
    return array.rechunk(tuple(x.chunks[d] for d in axes))


def target_like(target, x, axis):
    """Return a target as a dask array with the chunks of x, and whether it holds labels."""
    if target is None:
        raise TypeError("target must be class indices or a distribution; got None")
    array = as_array(target, "target")
    labels = array.ndim == x.ndim - 1
    rows = x.shape[:axis] + x.shape[axis + 1 :]
    if array.shape != (rows if labels else x.shape):
        raise ValueError(
            f"target must have shape {rows} (class indices) or {x.shape} (a distribution); got "
            f"{array.shape}"
        )
    if array.size == 0 and not hasattr(target, "dtype"):
        array = array.astype(np.intp)  # an empty list says nothing about its dtype
    return like(array, x, "target", axis if labels else None), labels


def vectors_like(v, p, axis):
    """Return vectors of softmax_vjp as an array of dask or NumPy with the shape and dtype of p."""
    array = as_array(v, "v")
    if isinstance(v, list | tuple):  # of Python numbers, which have no dtype of NumPy
        array = _calls.cast(array, p.dtype)
    if array.shape != p.shape:
        raise ValueError(f"v must have the shape of p, {p.shape}; got {array.shape}")
    array = like(array, p, "v")
    check_call("softmax_vjp", p, axis, array)
    return array


def prepare_class_weight(value, x, axis):
    """Return class weights as the core has them, in one chunk and the dtype computed in, and the
    exponent of the power of two by which they were divided, an int or a dask array."""
    if value is None:
        return None, 0
    if not isinstance(value, da.Array):
        weights, exponent = core_weights(as_array(value, "class_weight"), x.dtype)
        return da.from_array(weights, chunks=-1), exponent
    pair = value.rechunk(-1), ("class",)
    weights = blockwise(class_weights, ("class",), *pair, dtype=row_real(x.dtype), of=x.dtype)
    return weights, blockwise(class_exponent, (), *pair, of=x.dtype)


def core_weights(class_weight, dtype):
    """Return class weights as the core has them for logits of a dtype, and their exponent."""
    like = np.empty((0, len(class_weight)), dtype)
    return check_class_weight(class_weight, like, 1)[:2]


def class_weights(block, of):
    return core_weights(only(block), of)[0]


def class_exponent(block, of):
    return np.array(core_weights(only(block), of)[1])


def prepare_sample_weight(value, reduction):
    """Return sample weights; for a mean, divided by a power of two if they are far from 1, unless
    they are a dask array."""
    if value is None or isinstance(value, da.Array):
        return value
    weights = as_array(value, "sample_weight").astype(float)
    largest = check_weights(weights, "sample_weight")[2]
    if reduction != "mean" or largest == 0 or 2.0**-300 <= largest <= 2.0**300:
        return weights
    return np.ldexp(weights, -math.frexp(largest)[1])


def real(dtype):
    """Return the dtype of results of the shape of logits."""
    return np.dtype(np.float64) if dtype.kind in "iu" else dtype


def row_real(dtype):
    """Return the dtype of results with one number for each row."""
    return np.dtype(np.float64 if real(dtype).itemsize == 8 else np.float32)


def blockwise(task, index, *pairs, dtype=np.float64, **more):
    """Return da.blockwise without trying the task on empty arrays. Blocks along an index that is
    summed over are given in lists."""
    meta = np.empty((0,) * len(index), dtype)
    summed = {i for of in pairs[1::2] if of is not None for i in of} - set(index)
    return da.blockwise(
        task, index, *pairs, dtype=dtype, meta=meta, align_arrays=False,
        concatenate=None if summed else True, **more,
    )  # fmt: skip


def only(block):
    """Return the only block of what may be a list of one."""
    while isinstance(block, list):
        (block,) = block
    refuse_mask(block, "each argument")
    return block


def indices(x, axis):
    """Return the indices of logits, and those of their rows."""
    index = tuple(f"axis {d}" for d in range(x.ndim))
    return index, index[:axis] + index[axis + 1 :]


def whole(array):
    """Return a small array, or None, as arguments of blockwise: the same in each task."""
    if array is None:
        return None, None
    return blockwise(only, (), array.rechunk(-1), ("all",)), ()


def optional(array, index):
    return (array, None if array is None else index)


def last(numbers):
    """Return numbers of rows as the core has them, with their axis in front."""
    return np.moveaxis(numbers, -1, 0)


# ---------------------------------------------------------------- no row is cut


def call(name, *arrays, **options):
    """Do what the function of that name does; the tuples that it returns stay tuples."""
    return getattr(cysoftmax, name)(*map(only, arrays), **options)


def of_chunk(task):
    """Make a task say in its errors that the index of a value is one within a chunk."""

    @functools.wraps(task)
    def call(*arguments, **more):
        try:
            return task(*arguments, **more)
        except (IndexError, ValueError) as error:
            if " at index " not in str(error):
                raise
            raise type(error)(f"{error}; the index is the one within a chunk") from None

    return call


@of_chunk
def call_with(name, names, axis, first, *arrays, **options):
    """Do what the function does, given arrays as the options of those names, which may be None."""
    arrays = [only(array) for array in arrays]
    given = {n: a for n, a in zip(names, arrays[first:], strict=True) if a is not None}
    return getattr(cysoftmax, name)(*arrays[:first], axis=axis, **given, **options)


def item(block, k):
    return only(block)[k]


def items(both, x, axis, dtypes, of_rows):
    """Return the arrays of the blocks of tuples, one for each dtype; None where that is None."""
    index, rows = indices(x, axis)
    return [
        None
        if dtype is None
        else blockwise(item, rows if by_row else index, both, index, dtype=dtype, k=k)
        for k, (dtype, by_row) in enumerate(zip(dtypes, of_rows, strict=True))
    ]


@of_chunk
def loss_and_grad(x, target, where, class_weight, sample_weight, scale, divisor, with_loss,
                  with_grad, options):  # fmt: skip
    """Compute the losses of some rows, and the gradient of their sum over the divisor."""
    part, exponent = only(divisor)[-2:]
    given = options_of(options, class_weight, sample_weight, where, options.ignore_index)
    return _calls.losses_and_grad(
        with_loss, with_grad, only(x), only(target), options.axis, given, only(scale),
        (float(part), int(exponent)), options.n_threads,
    )  # fmt: skip


def options_of(options, class_weight, sample_weight, where, ignore_index=None, **changed):
    """Return the options of a task as the core takes them."""
    options = options._replace(**changed)
    return make_options(
        class_weight=only(class_weight), sample_weight=only(sample_weight), where=only(where),
        ignore_index=ignore_index, label_smoothing=options.label_smoothing, z_loss=options.z_loss,
        temperature=options.temperature,
    )  # fmt: skip


@of_chunk
def weights_of_chunk(target, where, class_weight, sample_weight, options, labels, n_classes,
                     of):  # fmt: skip
    """Find what each row of a chunk weighs, for `add_weights`."""
    target = only(target)
    shape = list(target.shape)
    if labels:
        shape.insert(options.axis, n_classes)
    given = options_of(options, class_weight, sample_weight, where, options.ignore_index)
    return _calls.weights_of_targets(shape, of, target, options.axis, given)


def add_weights(blocks, plain_masses, of):
    """Add the weights of all rows in the order of the core (27): a float and an exponent, and those
    of what the gradient is divided by."""
    return np.ravel(_calls.weight_and_divisor(np.block(blocks), plain_masses, of)).astype(float)


def flat(blocks):
    """Return the blocks in nested lists, in order."""
    if not isinstance(blocks, list):
        return [blocks]
    return [block for some in blocks for block in flat(some)]


def add_losses(blocks, divisor):
    """Add the losses of all rows in the order of the core (27), and divide by the divisor."""
    total, power = _calls.total_of_rows(np.block(blocks)[None])
    part, exponent = only(divisor)[:2]
    with np.errstate(all="ignore"):
        return np.array(np.ldexp(total / part, power - int(exponent)) if part != 0 else np.nan)


# ---------------------------------------------------------------- rows are cut


@of_chunk
def weigh_labels(labels, class_weight, sample_weight, options, n_classes):
    """Compute `weights` of rows that have labels and no mask."""
    labels, class_weight = only(labels), only(class_weight)
    check_labels(labels, n_classes, options.ignore_index)
    numbers = np.empty((*labels.shape, WEIGHTS))
    ignored = np.zeros(labels.shape, bool)
    if options.ignore_index is not None:
        ignored = labels == options.ignore_index
    numbers[..., 0] = numbers[..., 1] = n_classes
    numbers[..., 2] = numbers[..., 3] = 1
    if class_weight is not None:
        numbers[..., 1] = class_weight.sum(dtype=float)
        numbers[..., 3] = class_weight[np.where(ignored, 0, labels)]
    return settle(numbers, ignored, sample_weight)


def check_labels(labels, n_classes, ignore_index):
    """Raise an error unless all labels lie in [0, n_classes) or are ignored."""
    if labels.dtype.kind not in "iu":
        raise TypeError(f"target must hold integers; got dtype {labels.dtype}")
    bad = (labels < 0) | (labels >= n_classes)
    if ignore_index is not None:
        bad &= labels != ignore_index
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        at = f" at index {where}" if where else ""
        raise IndexError(f"target must lie in [0, {n_classes}); got {labels[where]}{at}")


def settle(numbers, ignored, sample_weight):
    """Finish `weights`: whether a row counts, and its weight."""
    sample = np.ones(numbers.shape[:-1])
    if sample_weight is not None:
        sample = only(sample_weight).astype(float)
        check_weights(sample, "sample_weight")
    numbers[..., 4] = ~ignored & (numbers[..., 0] != 0) & (sample != 0)
    numbers[..., 5] = np.where(numbers[..., 4] != 0, sample * numbers[..., 3], 0)
    return numbers


def masses_of_block(target, labels, where, class_weight, first, shape, axis):
    """Return the first five of `weights` for the classes of one block, as (*rows, 5)."""
    rows = shape[:axis] + shape[axis + 1 :]
    n = shape[axis]
    omega = np.ones(n) if class_weight is None else class_weight.astype(float)
    numbers = np.empty((*rows, 5))
    numbers[..., 0], numbers[..., 1] = n, omega.sum()
    if where is not None:
        mask = np.moveaxis(where, axis, -1)
        numbers[..., 0], numbers[..., 1] = mask.sum(-1), mask @ omega
    if labels:
        inside = (target >= first) & (target < first + n)
        numbers[..., 2] = numbers[..., 4] = inside
        numbers[..., 3] = 0
        numbers[inside, 3] = omega[target[inside].astype(np.int64) - first]
    else:
        masses = np.moveaxis(target, axis, -1)
        numbers[..., 2] = masses.sum(-1, dtype=float)
        numbers[..., 3] = (masses * omega).sum(-1, dtype=float)
        numbers[..., 4] = masses.any(-1)
    return numbers


def weigh_block(target, where, class_weight, first, labels, axis):
    """Compute what the target and the mask of a block weigh."""
    shape = only(where if where is not None else target).shape
    numbers = masses_of_block(
        only(target), labels, only(where), only(class_weight), int(only(first)[0]), shape, axis
    )
    return numbers[..., None, :]


@of_chunk
def add_masses(blocks, labels, sample_weight, options, n_classes):
    """Compute `weights` from what the blocks of rows weigh."""
    total = sum(block[..., 0, :] for block in flat(blocks))
    ignored = total[..., 4] == 0
    if labels is not None:
        labels = only(labels)
        check_labels(labels, n_classes, options.ignore_index)
        if options.ignore_index is not None:
            ignored |= labels == options.ignore_index
    numbers = np.empty((*total.shape[:-1], WEIGHTS))
    numbers[..., :5] = total
    return settle(numbers, ignored, sample_weight)


def weights_alone(weights):
    """Return w of each row as weights_of_chunk returns it."""
    return only(weights)[None, ..., 5]


def totals_of(x, where, axis, temperature, n_threads):
    """Compute the four numbers of OnlineSoftmax for the rows of a block."""
    return _calls.totals_of_block(x, axis, temperature, where, n_threads)[0]


def state_of_block(x, where, options):
    """Compute the state of a block."""
    totals = totals_of(x, where, options.axis, options.temperature, options.n_threads)
    return np.moveaxis(totals, 0, -1)[..., None, :]


def state_and_dots(x, where, target, weights, class_weight, first, options, labels):
    """Compute the state of a block, and what the loss needs of its classes: sum A (base - x) /
    temperature, where base is the largest logit (0 if that is infinite), and sum A."""
    where, target, class_weight = only(where), only(target), only(class_weight)
    weights, first, axis = only(weights), int(only(first)[0]), options.axis
    totals = totals_of(x, where, axis, options.temperature, options.n_threads)
    base = np.where(np.isfinite(totals[0]), totals[0], 0)
    counts = weights[..., 4] != 0
    numbers = np.zeros((*base.shape, 1, 6))
    numbers[..., 0, :4] = np.moveaxis(totals, 0, -1)
    if x.shape[axis] == 0:
        return numbers
    if labels and options.label_smoothing == 0:
        inside = counts & (target >= first) & (target < first + x.shape[axis])
        place = np.expand_dims(np.where(inside, target.astype(np.int64) - first, 0), axis)
        logit = np.take_along_axis(x, place, axis).astype(float).squeeze(axis)
        if where is not None:
            logit[~np.take_along_axis(where, place, axis).squeeze(axis)] = -np.inf
        mass = np.where(inside, weights[..., 3], 0)
        with np.errstate(all="ignore"):
            dots = np.where(mass != 0, mass * ((base - logit) / options.temperature), 0)
    else:
        given = np.concatenate([[base], np.ones((1, *base.shape)), np.zeros((2, *base.shape)),
                                last(in_unit_of(class_weight, weights))])  # fmt: skip
        dots = np.zeros(base.shape)
        _calls.loss_of_block(
            False, given, real(x.dtype), np.moveaxis(x, axis, -1), -1,
            target_of_block(target, labels, first, x.shape, axis, ~counts),
            options_of(options, class_weight, None, moved(where, axis), z_loss=0.0), 1.0,
            (1.0, 0), dots, None, options.n_threads,
        )  # fmt: skip
        part = masses_of_block(target, labels, where, class_weight, first, x.shape, axis)
        mass = np.where(counts, mass_of_all(part[..., 3], part[..., 1], weights, options), 0)
    numbers[..., 0, 4], numbers[..., 0, 5] = dots, mass
    return numbers


def in_unit_of(class_weight, weights):
    """Return the first five of `weights`, with the masses in the unit that the core chooses for the
    class weights of a block: it divides them by a power of two if all of them are small."""
    weights = weights[..., :5].copy()
    exponent = 0 if class_weight is None else core_weights(class_weight, class_weight.dtype)[1]
    if exponent != 0:
        masses = weights[..., [1, 3]]
        with np.errstate(all="ignore"):
            weights[..., [1, 3]] = np.ldexp(masses, -exponent)
        if (np.isfinite(masses) & ~np.isfinite(weights[..., [1, 3]])).any():
            raise ValueError(
                "class_weight must have in each chunk of classes a weight of 2**-1000 of the "
                f"largest or more, or only zeros; got {class_weight.max()} as the largest of a "
                "chunk (of weights divided by a power of two)"
            )
    return weights


def moved(where, axis):
    return None if where is None else np.moveaxis(where, axis, -1)


def mass_of_all(target_mass, weight_sum, weights, options):
    """Return a, the sum of A (28), over classes that have these masses."""
    with np.errstate(all="ignore"):
        uniform = options.label_smoothing * weights[..., 2] / weights[..., 0] * weight_sum
    smoothed = uniform if options.label_smoothing != 0 else 0
    return (1 - options.label_smoothing) * target_mass + smoothed


def target_of_block(target, labels, first, shape, axis, ignored):
    """Return the target of a block as the core takes it."""
    if labels:
        return entries_of_labels(target, first, shape[axis], ignored)
    target = np.moveaxis(target, axis, -1)
    kept = target.dtype.kind in "biu" or target.dtype in (np.float32, np.float64)
    return target if kept else target.astype(np.float32)


def entries_of_labels(labels, first_class, n_classes, ignored):
    """Return labels as the arrays of a sparse target of n_classes classes from first_class on: one
    entry for each row whose label is among them, unless it is ignored."""
    inside = (labels >= first_class) & (labels < first_class + n_classes) & ~ignored
    classes = labels[inside].astype(np.int64) - first_class
    indptr = np.zeros(labels.size + 1, np.int64)
    np.cumsum(inside.ravel(), out=indptr[1:])
    return np.ones(len(classes), bool), classes, indptr


def merge(blocks, options):
    """Compute the totals of rows from the states of their blocks."""
    merged = functools.reduce(
        lambda a, b: _calls.merge_totals(a, b, options.temperature),
        [np.ascontiguousarray(last(block[..., 0, :4])) for block in flat(blocks)],
    )
    return np.moveaxis(merged, 0, -1)


def loss_of(merged):
    return merged[..., 4]


def times_unit(losses, unit):
    """Multiply losses by the power of two by which class weights were divided."""
    with np.errstate(all="ignore"):
        return np.ldexp(losses, -int(only(unit)[1]))


def unit_of(exponent):
    """Return what the sum of losses is divided by, as a float and an exponent."""
    return np.array([1.0, -int(only(exponent))])


def merge_with_loss(blocks, weights, sample_weight, options):
    """Compute the totals of rows and their losses (29), from states that have dots."""
    weights = only(weights)
    numbers = np.empty((*weights.shape[:-1], 5))
    numbers[..., :4] = merge(blocks, options)
    shift, coarse, fine, low = last(numbers[..., :4])
    with np.errstate(all="ignore"):
        log_total = np.log1p((coarse - 1) + (fine + low))
        loss = mass_of_all(weights[..., 3], weights[..., 1], weights, options) * log_total
        for block in flat(blocks):
            largest, dots, mass = (block[..., 0, k] for k in (0, 4, 5))
            base = np.where(np.isfinite(largest), largest, 0)
            loss += dots + np.where(mass != 0, mass * ((shift - base) / options.temperature), 0)
        if sample_weight is not None:
            loss *= only(sample_weight)
        if options.z_loss != 0:
            lse = shift / options.temperature + log_total
            loss += weights[..., 5] * options.z_loss * lse**2
    numbers[..., 4] = np.where(weights[..., 4] != 0, loss, 0)
    return numbers


def softmax_of_block(x, state, where, log, options):
    totals = last(only(state))
    return _calls.softmax_of_block(
        log, totals, real(x.dtype), x, options.axis, options.temperature, only(where), None,
        options.n_threads,
    )  # fmt: skip


def logsumexp_of_rows(state, dtype, options):
    return _calls.logsumexp_of_totals(last(only(state)), dtype, options.temperature)


def grad_of_block(x, merged, weights, target, where, sample_weight, scale, class_weight, first,
                  divisor, options, labels):  # fmt: skip
    """Compute the gradient with respect to a block of logits."""
    weights, first = only(weights), int(only(first)[0])
    part, exponent = only(divisor)[-2:]
    class_weight = only(class_weight)
    given = np.concatenate([last(only(merged)[..., :4]), last(in_unit_of(class_weight, weights))])
    options_here = options_of(options, class_weight, sample_weight, where)
    ignored = weights[..., 4] == 0
    return _calls.loss_of_block(
        True, given, real(x.dtype), x, options.axis,
        target_of_block(only(target), labels, first, x.shape, options.axis, ignored),
        options_here, only(scale), (float(part), int(exponent)), None,
        None, options.n_threads,
    )  # fmt: skip


# ---------------------------------------------------------------- graphs


def is_cut(x, axis):
    """Return whether the classes of a row are in several blocks."""
    return x.numblocks[axis] > 1


def first_classes(x, axis):
    """Return the index of the first class of each block, as an array with one in each block."""
    return da.from_array(np.cumsum([0, *x.chunks[axis][:-1]]), chunks=1)


def one(size):
    """The length of a block that has one number in place of classes or rows."""
    return 1


def of_blocks(task, index, axis, /, *pairs, **more):
    """Return the array of what `task` finds of the rows of each block."""
    return blockwise(task, index, *pairs, adjust_chunks={index[axis]: one}, **more)


def states(x, axis, where, options):
    """Return the merged state of rows, (*rows, 4)."""
    index, rows = indices(x, axis)
    parts = of_blocks(
        state_of_block, index, axis, x, index, *optional(where, index), options=options
    )
    return blockwise(
        merge, rows, parts, index, options=options,
    )  # fmt: skip


class Loss:
    """The graphs of a loss and its gradient."""

    def __init__(self, x, target, where, class_weight, sample_weight, scale, reduction, options):
        self.x, self.axis, self.reduction = x, options.axis, reduction
        self.index, self.rows = indices(x, self.axis)
        self.classes = self.index[self.axis]
        self.target, self.labels = target_like(target, x, self.axis)
        self.where = like(where, x, "where")
        sample = like(sample_weight, x, "sample_weight", self.axis)
        if np.ndim(as_array(scale, "scale")) != 0 or isinstance(scale, da.Array):
            scale = like(scale, x, "scale", self.axis)
        check_call(
            "cross_entropy_grad", x, self.axis, self.target, where=self.where,
            class_weight=class_weight, sample_weight=sample, scale=scale, reduction=reduction,
            **options.keywords(),
        )  # fmt: skip
        self.options = options.as_numbers()
        self.scale = scale if isinstance(scale, da.Array) else float(scale)
        self.class_weight, self.exponent = prepare_class_weight(class_weight, x, self.axis)
        sample_weight = prepare_sample_weight(sample_weight, reduction)
        self.sample_weight = like(sample_weight, x, "sample_weight", self.axis)
        self.cut = is_cut(x, self.axis)

    # What tasks are given, with the indices.

    @property
    def of_target(self):
        return self.target, self.rows if self.labels else self.index

    @property
    def of_where(self):
        return optional(self.where, self.index)

    @property
    def of_sample_weight(self):
        return optional(self.sample_weight, self.rows)

    @property
    def of_scale(self):
        return self.scale, self.rows if isinstance(self.scale, da.Array) else None

    @property
    def all_class_weights(self):
        return whole(self.class_weight)

    @property
    def by_class(self):
        """Class weights in blocks of classes, and the first class of each block."""
        weights = self.class_weight
        if weights is not None:
            weights = weights.rechunk((self.x.chunks[self.axis],))
        first = first_classes(self.x, self.axis)
        return (*optional(weights, (self.classes,)), first, (self.classes,))

    @property
    def of_weights(self):
        return self.weights, self.rows

    # Weights.

    @functools.cached_property
    def weights(self):
        """`weights` of all rows that are cut."""
        options = {"options": self.options, "n_classes": self.x.shape[self.axis]}
        if self.labels and self.where is None:
            return blockwise(
                weigh_labels, self.rows, *self.of_target, *self.all_class_weights,
                *self.of_sample_weight, **options,
            )  # fmt: skip
        parts = of_blocks(
            weigh_block, self.index, self.axis, *self.of_target, *self.of_where, *self.by_class,
            labels=self.labels, axis=self.axis,
        )  # fmt: skip
        labels = self.target if self.labels else None
        return blockwise(
            add_masses, self.rows, parts, self.index,
            *optional(labels, self.rows), *self.of_sample_weight, **options,
        )  # fmt: skip

    @functools.cached_property
    def divisor(self):
        """What losses and gradients are divided by: the sum of the weights of all rows, as a float
        and an exponent; for gradients, perhaps another float and exponent behind these."""
        weighing = self.where, self.class_weight, self.sample_weight, self.options.ignore_index
        plain = all(option is None for option in weighing)
        if not self.cut and self.labels and plain:
            return self.constant(float(math.prod(self.target.shape)))
        n_classes = self.x.shape[self.axis]
        if self.cut:
            weights = blockwise(weights_alone, self.rows, *self.of_weights)
        else:
            weights = blockwise(
                weights_of_chunk, self.rows, *self.of_target, *self.of_where,
                *self.all_class_weights, *self.of_sample_weight, options=self.options,
                labels=self.labels, n_classes=n_classes, of=real(self.x.dtype),
            )  # fmt: skip
        return blockwise(
            add_weights, (), weights, self.rows, plain_masses=plain and not self.labels,
            of=real(self.x.dtype),
        )  # fmt: skip

    @functools.cached_property
    def unit(self):
        """What a sum of losses is divided by, as a float and an exponent."""
        if isinstance(self.exponent, da.Array):
            return blockwise(unit_of, (), self.exponent, ())
        return self.constant(1.0, -self.exponent)

    @staticmethod
    def constant(number, exponent=0):
        return blockwise(np.array, (), [number, float(exponent)], None)

    # Loss and gradient.

    def of(self, with_loss, with_grad):
        """Return the loss and the gradient, each None unless it is wanted."""
        divisor = (self.divisor if self.reduction == "mean" else self.unit), ()
        if self.cut:
            losses = blockwise(loss_of, self.rows, self.merged, self.rows) if with_loss else None
            grad = self.grad_of_blocks(divisor) if with_grad else None
        else:
            both = blockwise(
                loss_and_grad, self.index, self.x, self.index, *self.of_target, *self.of_where,
                *self.all_class_weights, *self.of_sample_weight, *self.of_scale,
                *divisor, dtype=real(self.x.dtype), options=self.options, with_loss=with_loss,
                with_grad=with_grad,
            )  # fmt: skip
            dtypes = np.float64 if with_loss else None, real(self.x.dtype) if with_grad else None
            losses, grad = items(both, self.x, self.axis, dtypes, (True, False))
        if losses is None:
            return None, grad
        if self.reduction == "none":
            if isinstance(self.exponent, da.Array) or self.exponent != 0:
                losses = blockwise(times_unit, self.rows, losses, self.rows, self.unit, ())
            return losses.astype(row_real(self.x.dtype)), grad
        return blockwise(add_losses, (), losses, self.rows, *divisor), grad

    @functools.cached_property
    def merged(self):
        """The totals and the losses of rows that are cut, (*rows, 5)."""
        parts = of_blocks(
            state_and_dots, self.index, self.axis, self.x, self.index, *self.of_where,
            *self.of_target, *self.of_weights, *self.by_class, options=self.options,
            labels=self.labels,
        )  # fmt: skip
        return blockwise(
            merge_with_loss, self.rows, parts, self.index,
            *self.of_weights, *self.of_sample_weight, options=self.options,
        )  # fmt: skip

    def grad_of_blocks(self, divisor):
        return blockwise(
            grad_of_block, self.index, self.x, self.index, self.merged, self.rows,
            *self.of_weights, *self.of_target, *self.of_where, *self.of_sample_weight,
            *self.of_scale, *self.by_class, *divisor, dtype=real(self.x.dtype),
            options=self.options, labels=self.labels,
        )  # fmt: skip
