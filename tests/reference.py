"""The formulas of the contract in long double, row by row in spirit and plain in form.

Nothing here comes from the library. On x86-64 a long double has 64 bits of mantissa; the
errors below are some 1e-19 relative, which is 1/1000 of an ulp of float64. Arrays have the
class axis last.
"""

from typing import NamedTuple

import numpy as np

LONG = np.longdouble


def parts(x):
    """Return x - max, exp of that, and the sum of the exps without one of the largest."""
    x = np.asarray(x).astype(LONG)
    top = np.argmax(x, axis=-1, keepdims=True)
    shift = np.take_along_axis(x, top, -1)
    d = x - shift
    e = np.exp(d)
    others = e.copy()
    np.put_along_axis(others, top, 0, -1)
    return d, e, np.sum(others, axis=-1, keepdims=True), shift


def softmax(x):
    _, e, rest, _ = parts(x)
    return e / (1 + rest)


def log_softmax(x):
    d, _, rest, _ = parts(x)
    return d - np.log1p(rest)


def logsumexp(x):
    _, _, rest, shift = parts(x)
    return (shift + np.log1p(rest))[..., 0]


def losses(x, labels):
    """Return the loss of each row for class indices."""
    return -np.take_along_axis(log_softmax(x), labels[..., None], -1)[..., 0]


def gradients(x, labels):
    """Return the gradient of each row's own loss; at the target, minus the others over all."""
    _, e, rest, _ = parts(x)
    p = e / (1 + rest)
    others = e.copy()
    np.put_along_axis(others, labels[..., None], 0, -1)
    target = -np.sum(others, axis=-1, keepdims=True) / (1 + rest)
    np.put_along_axis(p, labels[..., None], target, -1)
    return p


def distribution(x, target):
    """Return each row's loss and gradient for a distribution that need not sum to one."""
    d, e, rest, _ = parts(x)
    t = np.asarray(target).astype(LONG)
    mass = np.sum(t, axis=-1, keepdims=True)
    terms = np.where(t == 0, 0, t * np.where(t == 0, 0, np.log1p(rest) - d))
    return np.sum(terms, axis=-1), mass * e / (1 + rest) - t


def ulp(reference, dtype):
    """Return the spacing of `dtype` at the reference, as long double."""
    near = np.abs(reference).astype(dtype)
    return np.spacing(np.maximum(near, np.finfo(dtype).tiny)).astype(LONG)


def error_in_ulp(result, reference, dtype=None):
    """Return the largest error of a result, in units of the last place of `dtype`."""
    result = np.asarray(result)
    error = np.abs(result.astype(LONG) - reference)
    return float(np.max(error / ulp(reference, dtype or result.dtype), initial=0))


# ---------------------------------------------------------------- the options


def over_others(values):
    """Return for each class the sum of the values of all the others, none of them negative.

    The total less a value that is not the largest is at least half of the total, so nothing
    cancels; for (one of) the largest the others are added up.
    """
    top = np.argmax(values, axis=-1, keepdims=True)
    largest = np.take_along_axis(values, top, -1)
    rest = values.copy()
    np.put_along_axis(rest, top, 0, -1)
    rest = np.sum(rest, axis=-1, keepdims=True)
    others = largest + rest - values
    np.put_along_axis(others, top, rest, -1)
    return others


class Tempered(NamedTuple):
    """What the options of a softmax make of rows; per class but for the last three."""

    d: np.ndarray  # (x - max) / temperature; all NaN for a row with a NaN or +inf, or of -inf
    e: np.ndarray  # exp(d)
    others: np.ndarray  # the sum of e over the other classes
    log_total: np.ndarray
    total: np.ndarray
    lse: np.ndarray


def tempered(x, temperature=1, where=None):
    x, temperature = np.asarray(x).astype(LONG), LONG(temperature)
    x = x if where is None else np.where(where, x, -np.inf)
    shift = np.max(x, axis=-1, keepdims=True)
    with np.errstate(all="ignore"):
        d = np.where(np.isfinite(shift), (x - shift) / temperature, np.nan)
        e = np.exp(d)
        others = over_others(e)
        rest = np.take_along_axis(others, np.argmax(e, axis=-1, keepdims=True), -1)
        log_total = np.log1p(rest)
        return Tempered(d, e, others, log_total, 1 + rest, shift / temperature + log_total)


class Rows(NamedTuple):
    """The full formula of each row, and the sizes in which errors are measured.

    The size of a gradient is that of what it is the difference of. A probability below the
    smallest normal number is a denormal, so sizes count it as that number.
    """

    loss: np.ndarray
    weight: np.ndarray
    grad: np.ndarray
    grad_size: np.ndarray
    hess: np.ndarray  # the Hessian's diagonal, if neither z_loss nor temperature are given
    hess_size: np.ndarray


def cross_entropy(
    x,
    target,
    class_weight=None,
    sample_weight=None,
    label_smoothing=0,
    z_loss=0,
    temperature=1,
    where=None,
):
    """Return the Rows for a target that is a distribution; a row of zeros is ignored."""
    t = np.asarray(target).astype(LONG)
    where = np.broadcast_to(True if where is None else where, t.shape)
    c = LONG(1) if class_weight is None else np.asarray(class_weight).astype(LONG)
    s = np.asarray(1 if sample_weight is None else sample_weight).astype(LONG)
    s = np.broadcast_to(s, t.shape[:-1])[..., None]
    smoothing, z_loss, temperature = LONG(label_smoothing), LONG(z_loss), LONG(temperature)

    ignored = ~t.any(-1, keepdims=True) | (s == 0) | ~where.any(-1, keepdims=True)
    d, e, others, log_total, total, lse = tempered(
        np.where(ignored, 0, x), temperature, where | ignored
    )
    tiny = np.finfo(x.dtype).tiny
    n_classes = np.sum(where | ignored, axis=-1, keepdims=True)
    smooth = (1 - smoothing) * t + smoothing * np.sum(t, axis=-1, keepdims=True) * where / n_classes
    A = c * smooth
    a = np.sum(A, axis=-1, keepdims=True)
    w = s * np.sum(c * t, axis=-1, keepdims=True)
    with np.errstate(all="ignore"):
        terms = np.where((A == 0) & ~np.isnan(d), 0, A * (log_total - d))
        penalty = np.where(z_loss == 0, 0, w * z_loss * lse**2)
        loss = s * np.sum(terms, axis=-1, keepdims=True) + penalty
        # a p - A = ((a - A) e - A (total - e)) / total
        pull = s * (over_others(A) * e - A * others) / total
        push = np.where(z_loss == 0, 0, 2 * z_loss * w * lse) * e / total
        grad = (pull + push) / temperature
        pushed = s * a + 2 * np.where(z_loss == 0, 0, z_loss * w * np.abs(lse))
        size = np.maximum(pushed * np.maximum(e / total, tiny), s * A) / temperature
        hess = s * a * e * others / total**2
    keep = where & ~ignored
    return Rows(
        np.where(ignored, 0, loss)[..., 0],
        np.where(ignored, 0, w)[..., 0],
        np.where(keep, grad, 0),
        np.where(keep, size, 0),
        np.where(keep, hess, 0),
        np.where(keep, np.maximum(hess, s * a * tiny), 0),
    )


def reduced(rows, reduction, scale=1):
    """Return loss, gradient and its size for a reduction; a mean over nothing has gradient 0."""
    factor = np.broadcast_to(np.asarray(scale).astype(LONG), rows.loss.shape)[..., None]
    if reduction == "none":
        return rows.loss, factor * rows.grad, np.abs(factor) * rows.grad_size
    loss = np.sum(rows.loss)
    if reduction == "mean":
        weight = np.sum(rows.weight)
        if weight == 0:
            return LONG("nan"), 0 * rows.grad_size, 0 * rows.grad_size
        loss, factor = loss / weight, factor / weight
    return loss, factor * rows.grad, np.abs(factor) * rows.grad_size


class RowStats(NamedTuple):
    logsumexp: np.ndarray
    entropy: np.ndarray
    max_prob: np.ndarray
    target_prob: np.ndarray


def row_stats(x, target, temperature=1, where=None):
    """Return what is known of rows in which `where` leaves something; 0 log 0 is 0."""
    d, e, _, log_total, total, lse = tempered(x, temperature, where)
    terms = np.where(e == 0, 0, e * (log_total - np.where(e == 0, 0, d)))
    return RowStats(
        lse[..., 0],
        np.sum(terms / total, axis=-1),
        1 / total[..., 0],
        np.sum(np.asarray(target).astype(LONG) * e / total, axis=-1),
    )
