"""The public functions: documentation, checks, and one call of the core each."""

from typing import NamedTuple

import numpy as np

from cysoftmax import _core
from cysoftmax._checks import (
    apart_from,
    as_array,
    check_axis,
    check_logits,
    check_not_yet,
    check_number,
    check_out,
    check_target,
    raise_bad_label,
    workspace,
)

SOFTMAX, LOG_SOFTMAX, LOGSUMEXP = 1, 2, 4  # as in _core.pyx


class CrossEntropy(NamedTuple):
    """What `cross_entropy_with_grad` returns."""

    loss: "float | np.ndarray"
    grad: np.ndarray


def _rowwise(what, x, axis, out, n_threads):
    """softmax and log_softmax: an array of the shape of x."""
    x = check_logits(x)
    axis = check_axis(axis, x.ndim)
    if out is not None:
        check_out(out, x.shape, x.dtype)
    work = workspace(x, out)
    if x.size:
        x = apart_from(x, work)
        _core.rowwise(what, np.moveaxis(x, axis, -1), np.moveaxis(work, axis, -1), n_threads)
    if out is None or out is work:
        return work
    out[...] = work
    return out


def softmax(x, /, *, axis=-1, temperature=1.0, where=None, out=None, n_threads=None):
    check_not_yet(temperature=(temperature, 1.0), where=(where, None))
    return _rowwise(SOFTMAX, x, axis, out, n_threads)


def log_softmax(x, /, *, axis=-1, temperature=1.0, where=None, out=None, n_threads=None):
    check_not_yet(temperature=(temperature, 1.0), where=(where, None))
    return _rowwise(LOG_SOFTMAX, x, axis, out, n_threads)


def _per_row(x, axis, values, keepdims, out):
    """Bring one float64 a row into an array of x's dtype and layout, without the axis."""
    shape = x.shape[:axis] + x.shape[axis + 1 :]
    if out is None:
        some_class = x[(slice(None),) * axis + (0,)] if x.shape[axis] else np.empty(shape, x.dtype)
        out = np.empty_like(some_class, subok=False)
        if keepdims:
            out = np.expand_dims(out, axis)
    (out.squeeze(axis) if keepdims else out)[...] = values.reshape(shape)
    return out


def logsumexp(x, /, *, axis=-1, keepdims=False, where=None, out=None, n_threads=None):
    check_not_yet(where=(where, None))
    x = check_logits(x)
    axis = check_axis(axis, x.ndim)
    rows = x.shape[:axis] + x.shape[axis + 1 :]
    if out is not None:
        check_out(out, x.shape[:axis] + (1,) * keepdims + x.shape[axis + 1 :], x.dtype)
    if x.size:
        values = _core.rowwise(LOGSUMEXP, np.moveaxis(x, axis, -1), None, n_threads)
    else:
        values = np.full(rows, -np.inf)
    return _per_row(x, axis, values, keepdims, out)


def _cross_entropy(
    logits, target, axis, reduction, scale, losses, grad, want_loss, want_grad, n_threads
):
    """Loss and gradient, either or both; ``losses`` and ``grad`` are the caller's or None."""
    x = check_logits(logits, "logits")
    axis = check_axis(axis, x.ndim)
    target, labels = check_target(target, x, axis)
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none'; got {reduction!r}")
    if x.shape[axis] == 0:
        raise ValueError(f"logits must have at least one class; got shape {x.shape}")
    if np.ndim(scale) > 0:
        raise NotImplementedError("scale with one number per row is not implemented yet")
    scale = check_number(scale, "scale")
    rows = x.shape[:axis] + x.shape[axis + 1 :]
    if losses is not None:
        if reduction != "none":
            raise ValueError(f"out is for reduction='none'; got reduction={reduction!r}")
        check_out(losses, rows, x.dtype)
    work = None
    if want_grad:
        if grad is not None:
            check_out(grad, x.shape, x.dtype)
        work = workspace(x, grad)
    if x.size == 0:
        return _no_rows(x, axis, reduction, losses, grad if grad is not None else work)

    last = np.moveaxis(x, axis, -1)
    if work is not None and work is grad:
        last, target = apart_from(last, np.moveaxis(work, axis, -1)), apart_from(target, work)
        if labels and not _core.check_labels(last, target, n_threads):
            raise_bad_label(target, x.shape[axis])
    total_weight = x.size // x.shape[axis]
    if reduction == "mean" and not labels:
        total_weight = _core.fixed_sum(_core.row_masses(last, target, n_threads))
    weight = scale
    if reduction == "mean":
        weight = scale / total_weight if total_weight else 0.0
    result = _core.cross_entropy(
        last,
        target,
        labels,
        None if work is None else np.moveaxis(work, axis, -1),
        weight,
        want_loss,
        reduction == "none",
        n_threads,
    )
    if result is None:
        raise_bad_label(target, x.shape[axis])
    loss = None
    if want_loss and reduction == "none":
        loss = _per_row(x, axis, result, False, losses)
    elif want_loss:
        loss = result if reduction == "sum" else _mean(result, total_weight)
    if grad is not None and grad is not work:
        grad[...] = work
        work = grad
    return loss, work


def _mean(total, weight):
    return total / weight if weight else float("nan")


def _no_rows(x, axis, reduction, losses, grad):
    if reduction == "none":
        return _per_row(x, axis, np.empty(0), False, losses), grad
    return (float("nan") if reduction == "mean" else 0.0), grad


def _check_options(
    class_weight, sample_weight, ignore_index, label_smoothing, z_loss, temperature, where
):
    check_not_yet(
        class_weight=(class_weight, None),
        sample_weight=(sample_weight, None),
        ignore_index=(ignore_index, None),
        label_smoothing=(label_smoothing, 0.0),
        z_loss=(z_loss, 0.0),
        temperature=(temperature, 1.0),
        where=(where, None),
    )


def cross_entropy(
    logits,
    target,
    /,
    *,
    axis=-1,
    class_weight=None,
    sample_weight=None,
    ignore_index=None,
    label_smoothing=0.0,
    z_loss=0.0,
    temperature=1.0,
    where=None,
    reduction="mean",
    out=None,
    n_threads=None,
):
    _check_options(
        class_weight, sample_weight, ignore_index, label_smoothing, z_loss, temperature, where
    )
    loss, _ = _cross_entropy(
        logits, target, axis, reduction, 1.0, out, None, True, False, n_threads
    )
    return loss


def cross_entropy_grad(
    logits,
    target,
    /,
    *,
    axis=-1,
    class_weight=None,
    sample_weight=None,
    ignore_index=None,
    label_smoothing=0.0,
    z_loss=0.0,
    temperature=1.0,
    where=None,
    reduction="mean",
    n_threads=None,
    scale=1.0,
    out=None,
):
    _check_options(
        class_weight, sample_weight, ignore_index, label_smoothing, z_loss, temperature, where
    )
    _, grad = _cross_entropy(
        logits, target, axis, reduction, scale, None, out, False, True, n_threads
    )
    return grad


def cross_entropy_with_grad(
    logits,
    target,
    /,
    *,
    axis=-1,
    class_weight=None,
    sample_weight=None,
    ignore_index=None,
    label_smoothing=0.0,
    z_loss=0.0,
    temperature=1.0,
    where=None,
    reduction="mean",
    n_threads=None,
    scale=1.0,
    out=None,
):
    _check_options(
        class_weight, sample_weight, ignore_index, label_smoothing, z_loss, temperature, where
    )
    return CrossEntropy(
        *_cross_entropy(logits, target, axis, reduction, scale, None, out, True, True, n_threads)
    )


def softmax_vjp(p, v, /, *, axis=-1, out=None, n_threads=None):
    p = check_logits(p, "p")
    v = as_array(v, "v")
    if v.dtype != p.dtype:
        raise TypeError(f"v must have the dtype of p, {p.dtype}; got {v.dtype}")
    if v.shape != p.shape:
        raise ValueError(f"v must have the shape of p, {p.shape}; got {v.shape}")
    axis = check_axis(axis, p.ndim)
    if out is not None:
        check_out(out, p.shape, p.dtype)
    work = workspace(p, out)
    if p.size:
        _core.vjp(
            np.moveaxis(apart_from(p, work), axis, -1),
            np.moveaxis(apart_from(v, work), axis, -1),
            np.moveaxis(work, axis, -1),
            n_threads,
        )
    if out is None or out is work:
        return work
    out[...] = work
    return out
