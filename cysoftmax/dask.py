"""The functions of cysoftmax for dask arrays, in blocks of rows, of classes or of both.

* ``softmax``, ``log_softmax``, ``logsumexp``;
* ``cross_entropy``, ``cross_entropy_grad``, ``cross_entropy_with_grad``;
* ``cross_entropy_grad_hess``, ``row_stats``, ``softmax_vjp``.

``import cysoftmax`` does not import this module, nor dask. Logits are dask arrays with known
chunks; targets and options may be dask or NumPy arrays. Results are lazy dask arrays with the
chunks of the logits; a reduced loss is one without dimensions. Options mean what they mean in the
functions of cysoftmax. There is no ``out``, and a target may not be sparse.

Where the logits are cut along rows only, results are those of the whole array, to the last bit.
Where the classes are cut, too, a task has the logits of one chunk, and of each of its rows a few
numbers from other tasks: a softmax 32 bytes for each chunk on the way to the sums and 32 on the way
back; a loss 48 bytes for each chunk on the way to the sums, after 48 bytes and the label or masses,
and its gradient 40 more. Dask may still move a chunk of logits that two tasks need to a worker that
has less to do. Error bounds are those of the functions. The largest class weight of each chunk must
be at least 2**-1000 of the largest of all, or 0. ``cross_entropy_grad_hess``, ``row_stats`` and
``softmax_vjp`` put the classes of each row together first: their logits do travel.

The loss of a row, times its weight, must be within the range of float64, or it becomes infinite or
0. For a mean, this is after all class weights are divided by a power of two, and all sample weights
if they are a NumPy array; so either of them may have any size.

A task runs on one thread, unless `n_threads` says more. Arguments are checked when the graph is
made; errors that only a task can see, such as labels that are out of range, are raised by
``compute``. An index that they name is one within a chunk.
"""

from __future__ import annotations  # the documentation is made without dask

from typing import Any, NamedTuple

import dask.array as da  # type: ignore[import-not-found, unused-ignore]

from cysoftmax import _dask
from cysoftmax._dask import Loss, Options

__all__ = [
    "cross_entropy",
    "cross_entropy_grad",
    "cross_entropy_grad_hess",
    "cross_entropy_with_grad",
    "log_softmax",
    "logsumexp",
    "row_stats",
    "softmax",
    "softmax_vjp",
]


class CrossEntropy(NamedTuple):
    """The result of `cross_entropy_with_grad`."""

    loss: da.Array
    grad: da.Array


class GradHess(NamedTuple):
    """The result of `cross_entropy_grad_hess`."""

    grad: da.Array
    hess: da.Array


class RowStats(NamedTuple):
    """The result of `row_stats`; `loss` and `target_prob` are None if no target was given."""

    logsumexp: da.Array
    loss: da.Array | None
    entropy: da.Array
    argmax: da.Array
    max_prob: da.Array
    target_prob: da.Array | None


def softmax(
    x: da.Array,
    /,
    *,
    axis: int = -1,
    temperature: float = 1.0,
    where: Any = None,
    n_threads: int | None = 1,
) -> da.Array:
    """
    Return the softmax along an axis, as cysoftmax.softmax does.

    Parameters
    ----------
    x : dask.array.Array
        Logits, in any chunks.
    axis : int, default -1
        The axis of the classes.
    temperature, where
        As of cysoftmax.softmax.
    n_threads : int, optional
        The largest number of threads of a task, by default 1.

    Returns
    -------
    dask.array.Array
        Of the shape, chunks and dtype (float64 for integers) of `x`.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> import cysoftmax.dask
    >>> x = da.from_array(np.log([[1.0, 2.0, 5.0], [4.0, 4.0, 8.0]]), chunks=(1, 2))
    >>> cysoftmax.dask.softmax(x).compute()
    array([[0.125, 0.25 , 0.625],
           [0.25 , 0.25 , 0.5  ]])
    """
    return _softmax("softmax", x, axis, temperature, where, n_threads)


def log_softmax(
    x: da.Array,
    /,
    *,
    axis: int = -1,
    temperature: float = 1.0,
    where: Any = None,
    n_threads: int | None = 1,
) -> da.Array:
    """
    Return the logarithm of the softmax along an axis, as cysoftmax.log_softmax does.

    Parameters
    ----------
    x, axis, temperature, where, n_threads
        As of `softmax`.

    Returns
    -------
    dask.array.Array
        Of the shape, chunks and dtype (float64 for integers) of `x`.
    """
    return _softmax("log_softmax", x, axis, temperature, where, n_threads)


def _softmax(
    name: str, x: da.Array, axis: int, temperature: float, where: Any, n_threads: int | None
) -> da.Array:
    x, axis = _dask.check_array(x, "x", axis)
    where = _dask.like(where, x, "where")
    _dask.check_call(name, x, axis, where=where, temperature=temperature, n_threads=n_threads)
    index, rows = _dask.indices(x, axis)
    dtype = _dask.real(x.dtype)
    masks = _dask.optional(where, index)
    if not _dask.is_cut(x, axis):
        return _dask.blockwise(
            _dask.call_with, index, name, None, ("where",), None, axis, None, 1, None, x, index,
            *masks, dtype=dtype, temperature=temperature, n_threads=n_threads,
        )  # fmt: skip
    options = Options(axis, temperature=temperature, n_threads=n_threads).as_numbers()
    state = _dask.states(x, axis, where, options)
    return _dask.blockwise(
        _dask.softmax_of_block, index, x, index, state, rows, *masks,
        dtype=dtype, log=name == "log_softmax", options=options,
    )  # fmt: skip


def logsumexp(
    x: da.Array,
    /,
    *,
    axis: int = -1,
    keepdims: bool = False,
    where: Any = None,
    n_threads: int | None = 1,
) -> da.Array:
    """
    Return the logarithm of the sum of exponentials along an axis, as cysoftmax.logsumexp does.

    Parameters
    ----------
    x, axis, where, n_threads
        As of `softmax`.
    keepdims : bool, default False
        If True, the result keeps `axis`, with length 1.

    Returns
    -------
    dask.array.Array
        In nats, of the shape of `x` without `axis`.
    """
    x, axis = _dask.check_array(x, "x", axis)
    where = _dask.like(where, x, "where")
    _dask.check_call("logsumexp", x, axis, where=where, n_threads=n_threads)
    index, rows = _dask.indices(x, axis)
    dtype = _dask.row_real(x.dtype)
    if _dask.is_cut(x, axis):
        options = Options(axis, n_threads=n_threads)
        state = _dask.states(x, axis, where, options)
        result = _dask.blockwise(
            _dask.logsumexp_of_rows, rows, state, rows, _dask.real(x.dtype),
            None, dtype=dtype, options=options,
        )  # fmt: skip
    else:
        result = _dask.blockwise(
            _dask.call_with, rows, "logsumexp", None, ("where",), None, axis, None, 1, None, x,
            index, *_dask.optional(where, index), dtype=dtype, n_threads=n_threads,
        )  # fmt: skip
    return da.expand_dims(result, axis) if keepdims else result


def cross_entropy(
    logits: da.Array,
    target: Any,
    /,
    *,
    axis: int = -1,
    class_weight: Any = None,
    sample_weight: Any = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    temperature: float = 1.0,
    where: Any = None,
    reduction: str = "mean",
    n_threads: int | None = 1,
) -> da.Array:
    """
    Return the softmax cross-entropy loss, as cysoftmax.cross_entropy does.

    Parameters
    ----------
    logits : dask.array.Array
        Logits, in any chunks.
    target : dask.array.Array or array_like
        Class indices, of the shape of the rows, or a distribution, of the shape of the logits.
    axis : int, default -1
        The axis of the classes.
    class_weight, sample_weight, ignore_index, label_smoothing, z_loss, temperature, where
        As of cysoftmax.cross_entropy.
    reduction : {"mean", "sum", "none"}, default "mean"
        As of cysoftmax.cross_entropy.
    n_threads : int, optional
        The largest number of threads of a task, by default 1.

    Returns
    -------
    dask.array.Array
        In nats: of float64 without dimensions, or for "none" of the shape of the rows.

    Notes
    -----
    One task adds up the losses of all rows for "mean" and "sum", 8 bytes a row. If rows differ in
    weight, another one adds up these for "mean": 16 bytes a row, or 40 with a distribution and no
    option that weighs (where the classes are cut, 8).
    """
    loss = _loss(logits, target, axis, class_weight, sample_weight, ignore_index, label_smoothing,
                 z_loss, temperature, where, reduction, 1.0, n_threads)  # fmt: skip
    return loss.of(True, False)[0]


def cross_entropy_grad(
    logits: da.Array,
    target: Any,
    /,
    *,
    axis: int = -1,
    class_weight: Any = None,
    sample_weight: Any = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    temperature: float = 1.0,
    where: Any = None,
    reduction: str = "mean",
    scale: Any = 1.0,
    n_threads: int | None = 1,
) -> da.Array:
    """
    Return the gradient of `cross_entropy` with respect to the logits.

    Parameters
    ----------
    logits, target, axis
        As of `cross_entropy`.
    class_weight, sample_weight, ignore_index, label_smoothing, z_loss, temperature, where
        As of cysoftmax.cross_entropy.
    reduction : {"mean", "sum", "none"}, default "mean"
        As of cysoftmax.cross_entropy.
    scale : float or array, default 1.0
        Multiplies the gradient: one number, or one for each row.
    n_threads : int, optional
        As of `cross_entropy`.

    Returns
    -------
    dask.array.Array
        Of the shape, chunks and dtype (float64 for integers) of the logits.
    """
    loss = _loss(logits, target, axis, class_weight, sample_weight, ignore_index, label_smoothing,
                 z_loss, temperature, where, reduction, scale, n_threads)  # fmt: skip
    return loss.of(False, True)[1]


def cross_entropy_with_grad(
    logits: da.Array,
    target: Any,
    /,
    *,
    axis: int = -1,
    class_weight: Any = None,
    sample_weight: Any = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    temperature: float = 1.0,
    where: Any = None,
    reduction: str = "mean",
    scale: Any = 1.0,
    n_threads: int | None = 1,
) -> CrossEntropy:
    """
    Return the loss and its gradient.

    Computed together, as in ``dask.compute(loss, grad)``, they share all of their tasks.

    Parameters
    ----------
    logits, target, axis
        As of `cross_entropy`.
    class_weight, sample_weight, ignore_index, label_smoothing, z_loss, temperature, where
        As of cysoftmax.cross_entropy.
    reduction : {"mean", "sum", "none"}, default "mean"
        As of cysoftmax.cross_entropy.
    scale, n_threads
        As of `cross_entropy_grad`.

    Returns
    -------
    CrossEntropy
        A named tuple of `loss` and `grad`.
    """
    loss = _loss(logits, target, axis, class_weight, sample_weight, ignore_index, label_smoothing,
                 z_loss, temperature, where, reduction, scale, n_threads)  # fmt: skip
    return CrossEntropy(*loss.of(True, True))


def _loss(
    logits: da.Array,
    target: Any,
    axis: int,
    class_weight: Any,
    sample_weight: Any,
    ignore_index: int | None,
    label_smoothing: float,
    z_loss: float,
    temperature: float,
    where: Any,
    reduction: str,
    scale: Any,
    n_threads: int | None,
) -> Loss:
    logits, axis = _dask.check_array(logits, "logits", axis)
    options = Options(axis, ignore_index, label_smoothing, z_loss, temperature, n_threads)
    return Loss(logits, target, where, class_weight, sample_weight, scale, reduction, options)


def cross_entropy_grad_hess(
    logits: da.Array,
    target: Any,
    /,
    *,
    axis: int = -1,
    class_weight: Any = None,
    sample_weight: Any = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    where: Any = None,
    n_threads: int | None = 1,
) -> GradHess:
    """
    Return the gradient of the sum of the losses and the diagonal of its Hessian.

    Parameters
    ----------
    logits, target, axis, n_threads
        As of `cross_entropy`.
    class_weight, sample_weight, ignore_index, label_smoothing, where
        As of cysoftmax.cross_entropy_grad_hess.

    Returns
    -------
    GradHess
        A named tuple of `grad` and `hess`.

    Notes
    -----
    All classes of a row are put into one chunk first, if they are in several.
    """
    x, axis = _dask.check_array(logits, "logits", axis)
    options = {"ignore_index": ignore_index, "label_smoothing": label_smoothing}
    arrays = {"class_weight": class_weight, "sample_weight": sample_weight, "where": where}
    both, x = _of_whole_rows(
        "cross_entropy_grad_hess", x, target, axis, arrays, n_threads, **options
    )
    dtype = _dask.real(x.dtype)
    return GradHess(*_dask.items(both, x, axis, (dtype, dtype), (False, False)))


def row_stats(
    logits: da.Array,
    target: Any = None,
    /,
    *,
    axis: int = -1,
    ignore_index: int | None = None,
    where: Any = None,
    temperature: float = 1.0,
    n_threads: int | None = 1,
) -> RowStats:
    """
    Return six statistics of each row, as cysoftmax.row_stats does.

    Parameters
    ----------
    logits, target, axis, n_threads
        As of `cross_entropy`. The target may be None.
    ignore_index, where, temperature
        As of cysoftmax.row_stats.

    Returns
    -------
    RowStats
        A named tuple of arrays of the shape of the rows.

    Notes
    -----
    All classes of a row are put into one chunk first, if they are in several.
    """
    x, axis = _dask.check_array(logits, "logits", axis)
    options = {"ignore_index": ignore_index, "temperature": temperature}
    stats, x = _of_whole_rows("row_stats", x, target, axis, {"where": where}, n_threads, **options)
    dtype = _dask.row_real(x.dtype)
    of_target = None if target is None else dtype
    dtypes = dtype, of_target, dtype, int, dtype, of_target
    return RowStats(*_dask.items(stats, x, axis, dtypes, (True,) * 6))


def _of_whole_rows(
    name: str,
    x: da.Array,
    target: Any,
    axis: int,
    arrays: dict[str, Any],
    n_threads: int | None,
    **options: Any,
) -> tuple[da.Array, da.Array]:
    """Return what a function gives for blocks of whole rows, and the logits in these blocks."""
    x = x.rechunk({axis: -1})
    index, rows = _dask.indices(x, axis)
    pairs: list[Any] = [x, index]
    targets = []
    if target is not None or name != "row_stats":
        target, labels = _dask.target_like(target, x, axis)
        targets = [target]
        pairs += [target, rows if labels else index]
    checked = dict(options, n_threads=n_threads)
    for option, value in arrays.items():
        if option == "class_weight":
            checked[option] = value
            array = None if value is None else da.asarray(_dask.as_array(value, option))
            pairs += _dask.whole(array)
        else:
            of_rows = option == "sample_weight"
            checked[option] = _dask.like(value, x, option, axis if of_rows else None)
            pairs += _dask.optional(checked[option], rows if of_rows else index)
    _dask.check_call(name, x, axis, *targets, **checked)
    result = _dask.blockwise(
        _dask.call_with, index, name, None, tuple(arrays), None, axis, None,
        1 if target is None else 2, None, *pairs, dtype=_dask.real(x.dtype), n_threads=n_threads,
        **options,
    )  # fmt: skip
    return result, x


def softmax_vjp(p: da.Array, v: Any, /, *, axis: int = -1, n_threads: int | None = 1) -> da.Array:
    """
    Return the softmax Jacobian times a vector, ``p * (v - sum(p * v))`` along an axis.

    Parameters
    ----------
    p : dask.array.Array
        Probabilities.
    v : dask.array.Array or array_like
        One vector for each row, of the shape and dtype of `p`.
    axis, n_threads
        As of `softmax`.

    Returns
    -------
    dask.array.Array
        Of the shape and dtype of `p`.

    Notes
    -----
    All classes of a row are put into one chunk first, if they are in several.
    """
    p, axis = _dask.check_array(p, "p", axis)
    p = p.rechunk({axis: -1})
    v = _dask.vectors_like(v, p, axis)
    index, _ = _dask.indices(p, axis)
    return _dask.blockwise(
        _dask.call, index, "softmax_vjp", None, p, index, v, index,
        dtype=_dask.real(p.dtype), axis=axis, n_threads=n_threads,
    )  # fmt: skip
