"""What is measured: shapes, logits whose rows repeat, and each function beside SciPy's formula.

Here live the inputs and the check that comes before any measurement; nothing is timed here.
"""

import math
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
    """Logits, labels and whatever else the calls are given, of one dtype and shape.

    `shape` has the classes last; in the arrays they lie on `axis`. The first `period` rows come
    again and again, so that SciPy need not compute the rest.
    """

    def __init__(self, dtype, shape, axis=-1):
        self.axis = axis
        *self.outer, self.n_classes = shape
        self.n_rows = self.period = math.prod(self.outer)
        while self.period % 2 == 0 and self.period * self.n_classes > CHECKED:
            self.period //= 2
        self._few = (self.period, self.n_classes)
        self._rng = np.random.default_rng(0)
        self.logits = self.repeated(self._rng.standard_normal(self._few) * 3, dtype)
        self.labels = self.repeated(self._rng.integers(0, self.n_classes, self.period))

    @cached_property
    def vectors(self):
        return self.repeated(self._rng.standard_normal(self._few), self.logits.dtype)

    @cached_property
    def probabilities(self):
        x = self.by_rows(self.logits)[: self.period]
        return self.repeated(special.softmax(x.astype(np.float64), axis=-1), self.logits.dtype)

    @cached_property
    def one_hot(self):
        labels = self.labels.ravel()[: self.period]
        return self.repeated(labels[:, None] == np.arange(self.n_classes))

    @cached_property
    def distribution(self):
        """Masses of every class, which sum to one."""
        masses = np.random.default_rng(1).uniform(0.5, 2, self._few)
        masses /= masses.sum(axis=-1, keepdims=True)
        return self.repeated(masses, self.logits.dtype)

    @cached_property
    def mask(self):
        """True for three classes in four, the target among them."""
        mask = np.random.default_rng(2).random(self._few) < 0.75
        mask[np.arange(self.period), self.labels.ravel()[: self.period]] = True
        return self.repeated(mask)

    @property
    def at_labels(self):
        """The index of each row's label in an array of the shape of the logits."""
        index = list(np.ogrid[tuple(slice(length) for length in self.outer)])
        index.insert(self.axis % self.logits.ndim, self.labels)
        return tuple(index)

    def repeated(self, rows, dtype=None):
        """Return numbers or rows of classes, given for one period, for all rows, in their place."""
        rows = rows.astype(dtype or rows.dtype)
        rows = np.tile(rows, (self.n_rows // self.period, *(1 for _ in rows.shape[1:])))
        rows = rows.reshape(*self.outer, *rows.shape[1:])
        if rows.ndim < len(self.outer) + 1:
            return rows
        return np.ascontiguousarray(np.moveaxis(rows, -1, self.axis))

    def by_rows(self, array):
        """Return an array with the rows first, whatever their shape was; a number as it is."""
        if np.ndim(array) == self.logits.ndim:
            return np.moveaxis(array, self.axis, -1).reshape(-1, self.n_classes)
        return np.reshape(array, -1) if np.ndim(array) else array

    def scipy_way(self, name, n_rows=None, dtype=None):
        """Return a function without arguments: SciPy's way for the first rows, in their dtype."""
        backward = name == "softmax_vjp"
        x = self.by_rows(self.probabilities if backward else self.logits)[:n_rows]
        y, v = self.labels.ravel()[:n_rows], None
        if backward:
            v = self.by_rows(self.vectors)[:n_rows]
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
    if name == "softmax_vjp":
        call = partial(function, problem.probabilities, problem.vectors)
    else:
        call = partial(function, *arguments(name, x, problem.labels, None))
    if name in ("cross_entropy", "row_stats"):
        return call
    if name == "logsumexp":
        return partial(call, out=np.zeros(problem.outer, x.dtype))
    out = np.zeros_like(x)
    return partial(call, out=(out, np.zeros_like(x)) if name.endswith("grad_hess") else out)


def check(name, problem, result):
    """Raise AssertionError if a result is not that of SciPy, which is given float64."""
    expected = problem.scipy_way(name, problem.period, np.float64)()
    compare(name, problem, result, expected, 32 * np.finfo(problem.logits.dtype).eps)


def compare(name, problem, result, expected, tolerance):
    """Raise AssertionError if a result differs from the expected one of the first rows.

    The tolerance is relative to each number, and to the largest one.
    """
    if not isinstance(result, tuple):
        result, expected = (result,), (expected,)
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
