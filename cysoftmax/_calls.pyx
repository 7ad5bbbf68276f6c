# cython: language_level=3
"""The body of each public function: check the arguments, call the core, return the result.

The signatures and the documentation are in _api.py. This is compiled Python, because in
interpreted Python the checks of a small call would take longer than its arithmetic.
"""

cimport numpy as cnp
from libc.math cimport NAN

from cysoftmax cimport _core
from cysoftmax._arrays cimport (
    DOUBLE, class_last, compute_dtype, copy_if_overlapping, copy_to_out, shape_of, shape_without,
    workspace)
from cysoftmax._checks cimport (
    Options, check_axis, check_labels, check_logits, check_options, check_out, check_scale,
    check_target, check_threads, copy_overlapping_options, options_of_rows)
from cysoftmax._what cimport GRAD, LOG_SOFTMAX, LOGSUMEXP, LOSS, SOFTMAX, TOTALS, VARIANCE

import numpy as np

from cysoftmax._arrays import cast, convert  # the latter for _check_linear.py  # no-cython-lint
from cysoftmax._checks import (
    check_first_class, check_pair, check_reduction, make_options, raise_bad_label)
from cysoftmax._core import DefaultMode

cnp.import_array()


def softmax(logits, axis, temperature, where, out, n_threads):
    return rowwise(SOFTMAX, logits, axis, temperature, where, out, n_threads)


def log_softmax(logits, axis, temperature, where, out, n_threads):
    return rowwise(LOG_SOFTMAX, logits, axis, temperature, where, out, n_threads)


cdef rowwise(int what, logits, axis, temperature, where, out, n_threads, name="x", totals=None,
             dtype=None):
    """Return `softmax` or `log_softmax`, whichever ``what`` says; of a block of some of the classes
    if ``totals`` and ``dtype`` of all are given."""
    cdef cnp.ndarray x = check_logits(logits, name)
    cdef int along = check_axis(axis, x.ndim)
    cdef cnp.ndarray work, last_work
    n_threads = check_threads(n_threads)
    options = make_options(temperature=temperature, where=where)
    check_options(options, x, along, None)
    if out is not None:
        check_out(out, shape_of(x), x.descr)
    given = None if totals is None else check_block(x, along, totals, dtype)
    work = workspace(x, x.descr, out)
    if x.size:
        x, last_work = class_last(x, along), class_last(work, along)
        if out is not None:
            x = copy_if_overlapping(x, last_work)
            copy_overlapping_options(options, last_work)
        _core.rowwise(what, x, last_work, None, options, n_threads, None, given)
    return copy_to_out(work, out)


cdef cnp.ndarray one_class(cnp.ndarray x, int axis):
    """Return an array with the shape and layout of one class of x; nothing else of it is used."""
    if x.shape[axis]:
        return class_last(x, axis)[..., 0]
    return np.empty(shape_without(x, axis), x.dtype)


def logsumexp(logits, axis, keepdims, where, out, n_threads):
    cdef bint keep = keepdims
    cdef cnp.ndarray x = check_logits(logits)
    cdef int along = check_axis(axis, x.ndim)
    cdef cnp.ndarray work
    cdef cnp.dtype dtype = compute_dtype(x.descr)
    n_threads = check_threads(n_threads)
    options = make_options(where=where)
    check_options(options, x, along, None)
    rows = one_class(x, along)
    given = out
    if out is not None:
        shape = shape_of(x)
        check_out(out, shape[:along] + (1,) * keep + shape[along + 1:], dtype)
        given = np.asarray(out).squeeze(along) if keep else out
    work = workspace(rows, dtype, given)
    if x.size:
        x = class_last(x, along)
        if out is not None:
            x = copy_if_overlapping(x, work)
            copy_overlapping_options(options, work)
        _core.rowwise(LOGSUMEXP, x, None, work, options, n_threads)
    else:
        work[...] = -np.inf
    result = copy_to_out(work, given)
    if out is not None:
        return out
    return np.expand_dims(result, along) if keep else result


def cross_entropy(logits, target, axis, options, reduction, out, n_threads):
    return loss_and_derivatives(
        LOSS, logits, target, axis, options, reduction, 1.0, out, None, None, n_threads)[0]


def cross_entropy_grad(logits, target, axis, options, reduction, scale, out, n_threads):
    return loss_and_derivatives(
        GRAD, logits, target, axis, options, reduction, scale, None, out, None, n_threads)[1]


def cross_entropy_with_grad(logits, target, axis, options, reduction, scale, out, n_threads):
    return loss_and_derivatives(
        LOSS | GRAD, logits, target, axis, options, reduction, scale, None, out, None,
        n_threads)[:2]


def cross_entropy_grad_hess(logits, target, axis, options, out, n_threads):
    grad, hess = check_pair(out)
    return loss_and_derivatives(
        GRAD | VARIANCE, logits, target, axis, options, "sum", 1.0, None, grad, hess,
        n_threads)[1:]


cdef tuple loss_and_derivatives(
    int what, logits, target, axis, options, reduction, scale, losses, grad, hess,
    n_threads
):
    """Return the loss, its gradient and the diagonal of its Hessian.

    Gradient and Hessian are None unless ``what`` has the bits GRAD and VARIANCE; without LOSS,
    the loss means nothing. ``losses``, ``grad`` and
    ``hess`` are the caller's arrays for them, or None. ``options`` come from make_options.
    """
    cdef cnp.ndarray x = check_logits(logits, "logits")
    cdef int along = check_axis(axis, x.ndim)
    cdef cnp.ndarray rows
    cdef cnp.dtype dtype = compute_dtype(x.descr)  # of the losses
    n_threads = check_threads(n_threads)
    if x.shape[along] == 0:
        raise ValueError(f"logits must have at least one class; got shape {shape_of(x)}")
    target, labels = check_target(target, x, along)
    check_options(options, x, along, target if labels else None)
    check_reduction(reduction)
    scale = check_scale(scale, x, along)
    if losses is not None:
        if reduction != "none":
            raise ValueError(f"out is for reduction='none'; got reduction={reduction!r}")
        check_out(losses, shape_without(x, along), dtype)
    if grad is not None:
        check_out(grad, shape_of(x), x.descr)
    if hess is not None:
        check_out(hess, shape_of(x), x.descr)
    loss_of_each = grad_work = hess_work = None
    if what & LOSS and reduction == "none":
        loss_of_each = workspace(one_class(x, along), dtype, losses)
    if what & GRAD:
        grad_work = workspace(x, x.descr, grad)
    if what & VARIANCE:
        hess_work = workspace(x, x.descr, hess)

    loss = NAN if reduction == "mean" else 0.0
    if x.size:
        last_grad = class_last(grad_work, along) if what & GRAD else None
        last_hess = class_last(hess_work, along) if what & VARIANCE else None
        rows = class_last(x, along)
        kept = losses is not None or grad is not None or hess is not None
        if kept:
            for out in (loss_of_each, last_grad, last_hess):
                rows = copy_if_overlapping(rows, out)
                target = copy_if_overlapping(target, out)
                scale = copy_if_overlapping(scale, out)
                copy_overlapping_options(options, out)
        loss = _core.cross_entropy(
            what, rows, target, last_grad, loss_of_each, last_hess, scale, reduction == "mean",
            kept, options, n_threads)
        if loss is None:
            raise_bad_label(target, x.shape[along], options)
    return (
        loss if loss_of_each is None else copy_to_out(loss_of_each, losses),
        copy_to_out(grad_work, grad) if what & GRAD else None,
        copy_to_out(hess_work, hess) if what & VARIANCE else None,
    )


def check_loss_of_chunks(shape, dtype, target, options, reduction, scale, outs, n_threads):
    """Check what a loss is given beside logits that come in chunks of rows, later; return it as
    loss_of_chunk wants it: target, options, scale and divisor; and the number of threads.

    The divisor is the total weight of the rows of a mean, otherwise 1, as a float and an exponent
    of two. Inputs that overlap one of the arrays `outs` are copied.
    """
    cdef cnp.ndarray x = np.broadcast_to(np.zeros((), dtype), shape)    # nothing of it is read
    n_threads = check_threads(n_threads)
    target, labels = check_target(target, x, 1)
    check_options(options, x, 1, target if labels else None)
    if not isinstance(reduction, str) or reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be 'mean' or 'sum'; got {reduction!r}")
    scale = check_scale(scale, x, 1)
    for out in outs:
        target = copy_if_overlapping(target, out, False)
        scale = copy_if_overlapping(scale, out, False)
        copy_overlapping_options(options, out)
    # One pass over labels is short; threads of OpenMP would be in the way of BLAS's afterwards.
    threads = 1 if labels else n_threads
    divisor = (1.0, 0) if reduction == "sum" else (0.0, 0)
    if x.size:
        divisor = _core.total_weight(x, target, options, reduction == "mean", threads)
        if divisor is None:
            raise_bad_label(target, x.shape[1], options)
    return target, options, scale, divisor, n_threads


def loss_of_chunk(cnp.ndarray logits, Py_ssize_t begin, target, options, scale, divisor,
                  bint with_grad):
    """Return what the rows from `begin` on add to a loss, and with `with_grad` write its gradient
    over their logits; on this thread. The rest is as check_loss_of_chunks returns it."""
    cdef Py_ssize_t end = begin + logits.shape[0]
    if isinstance(target, tuple):
        data, classes, indptr = target
        target = data, classes, indptr[begin:end + 1]
    else:
        target = target[begin:end]
    loss = _core.cross_entropy(
        LOSS | GRAD if with_grad else LOSS, logits, target, logits if with_grad else None, None,
        None, scale if isinstance(scale, float) else scale[begin:end], False, False,
        options_of_rows(options, begin, end), 1, divisor)
    if loss is None:
        raise_bad_label(target, logits.shape[1], options)
    return loss


def losses_and_grad(bint with_loss, bint with_grad, logits, target, axis, options, scale, divisor,
                    n_threads):
    """Return the losses of rows as float64 of their shape, and the gradient of their sum over the
    divisor, a float and an exponent of two; each None unless it is wanted."""
    cdef cnp.ndarray x = check_logits(logits, "logits")
    cdef int along = check_axis(axis, x.ndim)
    target, labels = check_target(target, x, along)
    check_options(options, x, along, target if labels else None)
    scale = check_scale(scale, x, along)
    losses = np.empty(shape_without(x, along)) if with_loss else None
    grad = workspace(x, x.descr, None) if with_grad else None
    if x.size:
        loss = _core.cross_entropy(
            (LOSS if with_loss else 0) | (GRAD if with_grad else 0), class_last(x, along), target,
            class_last(grad, along) if with_grad else None, losses, None, scale, False, False,
            options, check_threads(n_threads), divisor)
        if loss is None:
            raise_bad_label(target, x.shape[along], options)
    return losses, grad


def weights_of_targets(shape, dtype, target, axis, options):
    """Return what each row of logits of that shape weighs: numbers of which total_of_rows finds the
    sum of all rows, as an array of shape (2, *rows)."""
    cdef cnp.ndarray x = np.broadcast_to(np.zeros((), dtype), shape)    # nothing of it is read
    cdef int along = check_axis(axis, x.ndim)
    target, labels = check_target(target, x, along)
    check_options(options, x, along, target if labels else None)
    weights = _core.weights_of_rows(class_last(x, along), target, options)
    if weights is None:
        raise_bad_label(target, x.shape[along], options)
    return weights.reshape(len(weights), *shape_without(x, along))


def total_of_rows(numbers):
    """Return the sum of one number of each row, in the order of all rows, as a float and an
    exponent of two. `numbers` has the shape (1, *rows), or is what weights_of_targets returned for
    all rows."""
    numbers = np.ascontiguousarray(numbers, np.float64)
    return _core.total_of_rows(numbers.reshape(len(numbers), -1))


def weight_and_divisor(numbers, plain_masses, dtype):
    """Return total_of_rows of what all rows weigh, and what the gradient of the mean of their
    losses is divided by, likewise: with `plain_masses`, targets are distributions whose masses are
    all that is weighed."""
    weight = total_of_rows(numbers)
    if not plain_masses:
        return weight, weight
    return weight, _core.divisor_of_distributions(weight, numbers[0].size, np.dtype(dtype).itemsize)


def apart(array, outs):
    """Return an array, or a copy of it if it overlaps one of the arrays `outs`."""
    for out in outs:
        array = copy_if_overlapping(array, out, False)
    return array


# ---------------------------------------------------------------- blocks of some of the classes

# What is known of rows, their totals, is a float64 array of shape (4, *rows), and with what their
# target weighs one of shape (9, *rows): the numbers that _given.pxd lists.


def totals_of_block(block, axis, temperature, where, n_threads):
    """Return the totals of the rows of a block, its dtype, and the temperature as a float."""
    cdef cnp.ndarray x = check_logits(block, "block")
    cdef int along = check_axis(axis, x.ndim)
    n_threads = check_threads(n_threads)
    options = make_options(temperature=temperature, where=where)
    check_options(options, x, along, None)
    totals = np.empty((4, *shape_without(x, along)))
    if x.size:
        _core.rowwise(LOGSUMEXP | TOTALS, class_last(x, along), None, None, options, n_threads,
                      np.moveaxis(totals, 0, -1))
    else:
        totals[0] = -np.inf
        totals[1:] = 0
    return totals, x.descr, 1.0 if options is None else options.temperature


def merge_totals(a, b, temperature):
    """Return the totals of rows of which two sets of classes have the totals a and b."""
    merged = np.empty(a.shape)
    _core.merge(a, b, temperature, merged)
    return merged


cdef check_block(cnp.ndarray x, int axis, totals, dtype):
    """Return totals as the core wants them: with the axis of the classes last. Raise an error
    unless a block has their rows and the dtype."""
    if x.descr != dtype:
        raise TypeError(f"block must have the dtype of the blocks before, {dtype}; got {x.dtype}")
    if shape_without(x, axis) != totals.shape[1:]:
        raise ValueError(
            f"block must have rows of shape {totals.shape[1:]} (its shape without axis={axis}); "
            f"got shape {shape_of(x)}")
    return class_last(totals, 0)


def softmax_of_block(bint log, totals, dtype, block, axis, temperature, where, out, n_threads):
    """Return the softmax of a block, or with `log` its logarithm, with the totals of all."""
    return rowwise(LOG_SOFTMAX if log else SOFTMAX, block, axis, temperature, where, out,
                   n_threads, "block", totals, dtype)


def logsumexp_of_totals(totals, dtype, temperature):
    """Return the logsumexp of rows over the temperature."""
    cdef cnp.ndarray result = np.empty(totals.shape[1:], compute_dtype(dtype))
    options = make_options(temperature=temperature)
    x = np.broadcast_to(np.zeros((), dtype), (*totals.shape[1:], 1))    # nothing of it is used
    check_options(options, x, x.ndim - 1, None)
    if x.size:
        _core.rowwise(LOGSUMEXP, x, None, result, options, None, None, np.moveaxis(totals, 0, -1))
    return result


def loss_of_block(bint grad, given, dtype, block, axis, target, options, scale, divisor, losses,
                  out, n_threads):
    """Return the sum of the losses of rows over the divisor, and store each into the float array
    `losses` unless that is None; or with `grad`, return the gradient of a block.

    The block is an array of logits that was checked, or with `grad` what a caller gave; the target
    holds the masses of its classes: dense with the axis of the classes last, or as the tuple of
    check_sparse. `scale` is a float, or an array over the rows.
    """
    cdef cnp.ndarray x = check_logits(block, "block")
    cdef int along = check_axis(axis, x.ndim)
    n_threads = check_threads(n_threads)
    given = check_block(x, along, given, dtype)
    check_options(options, x, along, None)
    work = last_work = None
    if grad:
        scale = check_scale(scale, x, along)
        if out is not None:
            check_out(out, shape_of(x), x.descr)
        work = workspace(x, x.descr, out)
        last_work = class_last(work, along)
    loss = 0.0
    if x.size:
        x = class_last(x, along)
        if out is not None:
            x = copy_if_overlapping(x, last_work)
            target = copy_if_overlapping(target, last_work)
            scale = copy_if_overlapping(scale, last_work)
            copy_overlapping_options(options, last_work)
        loss = _core.cross_entropy(GRAD if grad else LOSS, x, target, last_work, losses, None,
                                   scale, False, False, options, n_threads, divisor, given)
    elif divisor[0] == 0:
        loss = np.nan
    return copy_to_out(work, out) if grad else loss


def loss_of_labels(totals, dtype, temperature, logits, sample_weight, z_loss, reduction):
    """Return the loss of rows, given the totals of all classes and the logit of each label."""
    cdef cnp.ndarray x = logits[..., None]
    cdef bint mean = check_reduction(reduction) == "mean"
    labels = np.broadcast_to(np.int8(0), logits.shape)      # classes of x
    options = make_options(temperature=temperature, sample_weight=sample_weight, z_loss=z_loss)
    check_options(options, x, x.ndim - 1, labels)
    losses = np.empty(logits.shape, compute_dtype(dtype)) if reduction == "none" else None
    loss = NAN if mean else 0.0
    if x.size:
        loss = _core.cross_entropy(LOSS, x, labels, None, losses, None, 1.0, mean, False, options,
                                   None, None, class_last(totals, 0), 0)
    return loss if losses is None else losses


def grad_of_labels(totals, dtype, temperature, block, target, first_class, axis, sample_weight,
                   ignore_index, z_loss, where, reduction, scale, out, n_threads):
    """Return the gradient of the loss of rows, given the totals and the labels of all classes, with
    respect to a block that begins with the class `first_class`."""
    cdef cnp.ndarray x = check_logits(block, "block"), work, last_work
    cdef int along = check_axis(axis, x.ndim)
    cdef bint mean = check_reduction(reduction) == "mean"
    cdef Options options = make_options(
        temperature=temperature, sample_weight=sample_weight, ignore_index=ignore_index,
        z_loss=z_loss, where=where)
    n_threads = check_threads(n_threads)
    given = check_block(x, along, totals, dtype)
    first = check_first_class(first_class)
    labels = check_labels(target, x, along)
    check_options(options, x, along, labels)
    scale = check_scale(scale, x, along)
    if out is not None:
        check_out(out, shape_of(x), x.descr)
    work = workspace(x, x.descr, out)
    x, last_work = class_last(x, along), class_last(work, along)
    divisor = (1.0, 0)
    if mean and (where is not None or not x.size):
        mean = False
        divisor = total_weight_of_labels(given, dtype, labels, options, first)
    if divisor is not None and x.size:
        if out is not None:
            x = copy_if_overlapping(x, last_work)
            labels = copy_if_overlapping(labels, last_work)
            scale = copy_if_overlapping(scale, last_work)
            copy_overlapping_options(options, last_work)
        if _core.cross_entropy(GRAD, x, labels, last_work, None, None, scale, mean,
                               out is not None, options, n_threads, divisor, given,
                               first) is None:
            divisor = None
    if divisor is None:
        raise_bad_label(labels, None, options)
    return copy_to_out(work, out)


cdef total_weight_of_labels(given, dtype, labels, Options options, first_class):
    """Return the weight of the rows of which `given` holds the totals; None if a label is negative.
    The mask of a block says nothing about it."""
    x = np.broadcast_to(np.zeros((), dtype), (*labels.shape, 1))        # nothing of it is read
    if not x.size:
        return 0.0, 0
    mask = None
    if options is not None:
        mask, options.where = options.where, None
    weight = _core.total_weight(x, labels, options, True, 1, given, first_class)
    if options is not None:
        options.where = mask
    return weight


def row_stats(logits, target, axis, options, n_threads):
    cdef cnp.ndarray x = check_logits(logits, "logits")
    cdef int along = check_axis(axis, x.ndim)
    n_threads = check_threads(n_threads)
    if x.shape[along] == 0:
        raise ValueError(f"logits must have at least one class; got shape {shape_of(x)}")
    labels = False
    if target is not None:
        target, labels = check_target(target, x, along)
    check_options(options, x, along, target if labels else None)
    # The layout of one class of x, with the six numbers of a row side by side.
    rows = one_class(x, along)
    like = np.broadcast_to(rows[..., None], (*shape_of(rows), 6))
    stats = workspace(like, DOUBLE, None)
    if x.size and not _core.row_stats(class_last(x, along), target, stats, options, n_threads):
        raise_bad_label(target, x.shape[along], options)
    dtype = compute_dtype(x.descr)
    with DefaultMode(), np.errstate(all="ignore"):  # numbers beyond the range become infinite
        logsumexp, entropy, argmax, max_prob, loss, target_prob = [
            stats[..., k].astype(np.intp if k == 2 else dtype, order="K") for k in range(6)
        ]
    if target is None:
        loss = target_prob = None
    return logsumexp, loss, entropy, argmax, max_prob, target_prob


def softmax_vjp(probabilities, vectors, axis, out, n_threads):
    cdef cnp.ndarray p = check_logits(probabilities, "p")
    cdef cnp.ndarray v = check_logits(vectors, "v")
    cdef cnp.ndarray work, last_work
    cdef int along
    if isinstance(vectors, (list, tuple)):  # of Python numbers, which have no dtype of NumPy
        v = cast(v, p.dtype)
    if v.dtype != p.dtype:
        raise TypeError(f"v must have the dtype of p, {p.dtype}; got {v.dtype}")
    if shape_of(v) != shape_of(p):
        raise ValueError(f"v must have the shape of p, {shape_of(p)}; got {shape_of(v)}")
    along = check_axis(axis, p.ndim)
    n_threads = check_threads(n_threads)
    if out is not None:
        check_out(out, shape_of(p), p.descr)
    work = workspace(p, p.descr, out)
    if p.size:
        p, v, last_work = class_last(p, along), class_last(v, along), class_last(work, along)
        if out is not None:
            p = copy_if_overlapping(p, last_work)
            v = copy_if_overlapping(v, last_work)
        _core.vjp(p, v, last_work, n_threads)
    return copy_to_out(work, out)
