"""The formulas written with NumPy."""

from functools import partial

import numpy as np


class NumPy:
    """One exp, everything large in place."""

    package = "numpy"
    modules = ("numpy",)

    def __init__(self, n_threads):
        """There is nothing to set: these ufuncs have one thread."""

    def softmax(self, problem):
        x, p, along = problem.logits, np.zeros_like(problem.logits), self.along(problem)

        def call():
            np.subtract(x, x.max(**along), out=p)
            np.exp(p, out=p)
            return np.divide(p, p.sum(**along), out=p)

        yield call, np.asarray

    def logsumexp(self, problem):
        call = partial(self.shifted_log, problem, np.zeros_like(problem.logits))
        yield call, lambda parts: np.add(*parts).reshape(problem.outer)

    def cross_entropy(self, problem):
        work, at = np.zeros_like(problem.logits), problem.at_labels

        def call():
            shift, log_total = self.shifted_log(problem, work)
            return np.mean(log_total + shift - problem.logits[at].reshape(shift.shape))

        yield call, np.asarray

    def cross_entropy_with_grad(self, problem):
        x, p, along = problem.logits, np.zeros_like(problem.logits), self.along(problem)
        at, n = problem.at_labels, problem.n_rows

        def call():
            np.subtract(x, x.max(**along), out=p)
            of_labels = p[at]
            np.exp(p, out=p)
            total = p.sum(**along)
            loss = np.mean(np.log(total).reshape(of_labels.shape) - of_labels)
            np.divide(p, total * n, out=p)
            p[at] -= 1 / n
            return loss, p

        yield call, tuple

    def soft_targets(self, problem):
        yield self.of_masses(problem, problem.distribution)

    def one_hot(self, problem):
        yield self.of_masses(problem, problem.one_hot)

    def label_smoothing(self, problem):
        masses = problem.one_hot * 0.9 + 0.1 / problem.n_classes
        yield self.of_masses(problem, masses.astype(problem.logits.dtype))

    def of_masses(self, problem, masses):
        """Loss and gradient of masses that sum to one."""
        x, along, n = problem.logits, self.along(problem), problem.n_rows
        p, work = np.zeros_like(x), np.zeros_like(x)
        q = masses.astype(x.dtype) / n

        def call():
            np.subtract(x, x.max(**along), out=p)
            np.multiply(p, q, out=work)
            of_masses = work.sum()
            np.exp(p, out=p)
            total = p.sum(**along)
            np.divide(p, total * n, out=p)
            return np.mean(np.log(total)) - of_masses, np.subtract(p, q, out=p)

        return call, tuple

    def masked_softmax(self, problem):
        x, mask, along = problem.logits, problem.mask, self.along(problem)
        p = np.zeros_like(x)

        def call():
            np.copyto(p, -np.inf)
            np.copyto(p, x, where=mask)
            np.subtract(p, p.max(**along), out=p)
            np.exp(p, out=p)
            return np.divide(p, p.sum(**along), out=p)

        yield call, np.asarray

    @staticmethod
    def along(problem):
        return {"axis": problem.axis, "keepdims": True}

    def shifted_log(self, problem, work):
        """Return the maximum of each row, and the logarithm of the sum of exp(x - maximum)."""
        along = self.along(problem)
        shift = problem.logits.max(**along)
        np.subtract(problem.logits, shift, out=work)
        np.exp(work, out=work)
        return shift, np.log(work.sum(**along))
