"""The formulas of the contract in long double, row by row in spirit and plain in form.

Nothing here comes from the library. On x86-64 a long double has 64 bits of mantissa; the
errors below are some 1e-19 relative, which is 1/1000 of an ulp of float64. Arrays have the
class axis last.
"""

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
