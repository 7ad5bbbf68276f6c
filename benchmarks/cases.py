"""What is measured: shapes, logits whose rows repeat, and each function beside SciPy's formula.

Here live the inputs and the check that comes before any measurement; nothing is timed here.
"""

from functools import cache, cached_property, partial

import numpy as np
from scipy import special

import cysoftmax
from benchmarks.shapes import SHAPES

CHECKED = 1 << 20  # logits that SciPy is given; beyond that the rows repeat


def public(name):
    """Return a function of the library; asv shows n/a for a commit that has none of that name."""
    if not hasattr(cysoftmax, name):
        raise NotImplementedError(f"this commit has no {name}")
    return getattr(cysoftmax, name)


class Problem:
    """Logits, labels and vectors of one dtype and shape, the classes on `axis`, -1 or 0.

    The first `period` rows come again and again, so that SciPy need not compute the rest.
    """

    def __init__(self, dtype, shape, axis=-1):
        self.axis = axis
        self.n_rows, n_classes = shape
        self.period = self.n_rows
        while self.period % 2 == 0 and self.period * n_classes > CHECKED:
            self.period //= 2
        self._few = (self.period, n_classes)
        self._rng = np.random.default_rng(0)
        self.logits = self._repeated(self._rng.standard_normal(self._few) * 3, dtype)
        labels = self._rng.integers(0, n_classes, self.period)
        self.labels = np.tile(labels, self.n_rows // self.period)

    @cached_property
    def vectors(self):
        return self._repeated(self._rng.standard_normal(self._few), self.logits.dtype)

    def _repeated(self, rows, dtype):
        rows = np.tile(rows.astype(dtype), (self.n_rows // self.period, 1))
        return np.ascontiguousarray(np.moveaxis(rows, -1, self.axis))

    def by_rows(self, array):
        """Return an array with the rows first, a number as it is."""
        return np.moveaxis(array, self.axis, -1) if np.ndim(array) == 2 else array

    def scipy_way(self, name, n_rows=None, dtype=None):
        """Return a function without arguments: SciPy's way for the first rows, in their dtype."""
        x, y = self.by_rows(self.logits)[:n_rows], self.labels[:n_rows]
        v = self.by_rows(self.vectors)[:n_rows] if name == "softmax_vjp" else None
        if dtype is not None:
            x, v = x.astype(dtype), None if v is None else v.astype(dtype)
        return partial(SCIPY[name], x, y, v, self.n_rows)


# ---------------------------------------------------------------- SciPy's way
# Of logits, labels and vectors with the classes last, and the number of rows a mean is over.


def scipy_loss(x, y, v, n):
    return -np.mean(special.log_softmax(x, axis=-1)[np.arange(len(y)), y])


def scipy_gradient(x, y, v, n):
    p = special.softmax(x, axis=-1)
    p[np.arange(len(y)), y] -= 1
    p /= n
    return p


def scipy_loss_and_gradient(x, y, v, n):
    return scipy_loss(x, y, v, n), scipy_gradient(x, y, v, n)


def scipy_softmax(x, y, v, n):
    return special.softmax(x, axis=-1)


def scipy_log_softmax(x, y, v, n):
    return special.log_softmax(x, axis=-1)


def scipy_logsumexp(x, y, v, n):
    return special.logsumexp(x, axis=-1)


def scipy_vjp(p, y, v, n):
    return p * (v - np.sum(p * v, axis=-1, keepdims=True))


def scipy_grad_hess(x, y, v, n):
    p = special.softmax(x, axis=-1)
    hess = p * (1 - p)
    p[np.arange(len(y)), y] -= 1
    return p, hess


def scipy_row_stats(x, y, v, n):
    logs, p, rows = special.log_softmax(x, axis=-1), special.softmax(x, axis=-1), np.arange(len(y))
    entropy = -np.sum(p * logs, axis=-1)
    lse = special.logsumexp(x, axis=-1)
    return lse, -logs[rows, y], entropy, x.argmax(axis=-1), p.max(axis=-1), p[rows, y]


# Every function that computes, by its name: the one list from which all benchmarks have theirs.
SCIPY = {
    "cross_entropy_with_grad": scipy_loss_and_gradient,
    "cross_entropy": scipy_loss,
    "cross_entropy_grad": scipy_gradient,
    "cross_entropy_grad_hess": scipy_grad_hess,
    "row_stats": scipy_row_stats,
    "softmax": scipy_softmax,
    "log_softmax": scipy_log_softmax,
    "logsumexp": scipy_logsumexp,
    "softmax_vjp": scipy_vjp,
}


# ---------------------------------------------------------------- ours


REDUCED = ("cross_entropy", "cross_entropy_grad", "cross_entropy_with_grad")
OF_LOGITS = ("softmax", "log_softmax", "logsumexp")


def arguments(name, x, y, v):
    """Return what a function is given of logits, labels and vectors."""
    if name in OF_LOGITS:
        return (x,)
    return (x, v) if name == "softmax_vjp" else (x, y)


def prepared(name, problem):
    """Return a function without arguments that makes the call, into arrays already touched."""
    function, x = partial(public(name), axis=problem.axis), problem.logits
    v = problem.vectors if name == "softmax_vjp" else None
    call = partial(function, *arguments(name, x, problem.labels, v))
    if name in ("cross_entropy", "row_stats"):
        return call
    if name == "logsumexp":
        return partial(call, out=np.zeros(problem.n_rows, x.dtype))
    out = np.zeros_like(x)
    return partial(call, out=(out, np.zeros_like(x)) if name.endswith("grad_hess") else out)


def check(name, problem, result):
    """Raise AssertionError if a result is not that of SciPy, which is given float64."""
    expected = problem.scipy_way(name, problem.period, np.float64)()
    if not isinstance(result, tuple):
        result, expected = (result,), (expected,)
    tolerance = 32 * np.finfo(problem.logits.dtype).eps
    for ours, theirs in zip(result, expected, strict=True):
        ours = problem.by_rows(ours)
        if np.ndim(ours):
            repeated = ours.reshape(-1, problem.period, *ours.shape[1:])
            assert (repeated == repeated[0]).all(), f"{name}: the same row, another result"
            ours = ours[: problem.period]
        scale = np.max(np.abs(theirs))
        np.testing.assert_allclose(
            ours, theirs, rtol=tolerance, atol=tolerance * scale, err_msg=name
        )


@cache
def checked(name, dtype, elements, axis=-1):
    """Return a call as of `prepared`, its result checked.

    It is remembered: asv calls a benchmark's setup anew before every sample.
    """
    problem = Problem(dtype, SHAPES[elements], axis)
    call = prepared(name, problem)
    check(name, problem, call())
    return call
