"""What a good programmer writes without the options: our softmax or log_softmax, and NumPy.

They are "by hand" in the tables, and show whether an option earns its place.
"""

from functools import partial

import numpy as np

import cysoftmax


class ByHand:
    """The two halves of a task, one of which has our threads, and the other one thread."""

    version = "(cysoftmax and NumPy)"
    modules = ("numpy",)

    def __init__(self, n_threads=1):
        """There is nothing to set: ours takes what it may."""

    def soft_loss(self, problem):
        yield from self.loss_of(problem, problem.distribution)

    def soft_gradient(self, problem):
        q, n = problem.distribution, problem.n_rows
        grad = np.zeros_like(q)

        def call():
            cysoftmax.softmax(problem.logits, axis=problem.axis, out=grad)
            np.subtract(grad, q, out=grad)
            return np.multiply(grad, 1 / n, out=grad)

        yield call, np.asarray

    def soft_targets(self, problem):
        yield from self.loss_and_gradient_of(problem, problem.distribution)

    def one_hot(self, problem):
        yield from self.loss_and_gradient_of(problem, problem.one_hot)

    def label_smoothing(self, problem):
        smooth = problem.one_hot * (1 - 0.1) + 0.1 / problem.n_classes
        yield from self.loss_and_gradient_of(problem, smooth.astype(problem.logits.dtype))

    def loss_of(self, problem, q):
        logs = np.zeros_like(problem.logits)

        def call(total):
            cysoftmax.log_softmax(problem.logits, axis=problem.axis, out=logs)
            return -total() / problem.n_rows

        yield partial(call, partial(np.vdot, q, logs)), np.asarray
        yield partial(call, lambda: np.multiply(logs, q, out=logs).sum()), np.asarray

    def loss_and_gradient_of(self, problem, q):
        """log_softmax, the loss of it, and the gradient over it: one exp for NumPy."""
        n, masses = problem.n_rows, q.astype(problem.logits.dtype, copy=False)
        logs, grad = np.zeros_like(problem.logits), np.zeros_like(problem.logits)
        along = {"axis": problem.axis}

        def by_exp():
            cysoftmax.log_softmax(problem.logits, out=grad, **along)
            loss = -np.vdot(masses, grad) / n
            np.exp(grad, out=grad)
            np.subtract(grad, masses, out=grad)
            return loss, np.multiply(grad, 1 / n, out=grad)

        def by_both():
            cysoftmax.log_softmax(problem.logits, out=logs, **along)
            loss = -np.vdot(masses, logs) / n
            cysoftmax.softmax(problem.logits, out=grad, **along)
            np.subtract(grad, masses, out=grad)
            return loss, np.multiply(grad, 1 / n, out=grad)

        yield by_exp, tuple
        yield by_both, tuple

    def masked_softmax(self, problem):
        x, mask = problem.logits, problem.mask
        p, hidden = np.zeros_like(x), ~mask
        along = {"axis": problem.axis}

        def by_where():
            np.copyto(p, -np.inf)
            np.copyto(p, x, where=mask)
            return cysoftmax.softmax(p, out=p, **along)

        def by_putmask():
            np.copyto(p, x)
            np.putmask(p, hidden, -np.inf)
            return cysoftmax.softmax(p, out=p, **along)

        def into_new_memory():
            return cysoftmax.softmax(np.where(mask, x, x.dtype.type(-np.inf)), out=p, **along)

        for call in (by_where, by_putmask, into_new_memory):
            yield call, np.asarray

    def softmax_vjp(self, problem):
        p, v, axis = problem.probabilities, problem.vectors, problem.axis
        out = np.zeros_like(p)

        def by_sum():
            np.multiply(p, v, out=out)
            return finish(out.sum(axis=axis, keepdims=True))

        def by_vecdot():
            return finish(np.expand_dims(np.vecdot(p, v, axis=axis), axis))

        def by_product():  # of BLAS, which sums short rows faster than NumPy does
            np.multiply(p, v, out=out)
            return finish(out @ ones)

        def finish(sums):
            np.subtract(v, sums, out=out)
            return np.multiply(out, p, out=out)

        yield by_sum, np.asarray
        yield by_vecdot, np.asarray
        if axis == -1:
            ones = np.ones((problem.n_classes, 1), p.dtype)
            yield by_product, np.asarray
