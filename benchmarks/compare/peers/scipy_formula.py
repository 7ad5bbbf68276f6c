"""The formulas written with scipy.special, as in the other benchmarks."""

from functools import partial

import numpy as np
from scipy import special


class SciPy:
    """A function of ours is one or two calls of SciPy, and what NumPy adds to them."""

    package = "scipy"
    modules = ("scipy",)

    def __init__(self, n_threads):
        """There is nothing to set: scipy.special has one thread."""

    def softmax(self, problem):
        yield partial(special.softmax, problem.logits, axis=problem.axis), np.asarray

    def masked_softmax(self, problem):
        x, mask, hidden = problem.logits, problem.mask, problem.logits.dtype.type(-np.inf)
        call = lambda: special.softmax(np.where(mask, x, hidden), axis=problem.axis)  # noqa: E731
        yield call, np.asarray

    def logsumexp(self, problem):
        yield partial(special.logsumexp, problem.logits, axis=problem.axis), np.asarray

    def cross_entropy(self, problem):
        yield partial(self.loss, problem, problem.at_labels), np.asarray

    def cross_entropy_with_grad(self, problem):
        at, n = problem.at_labels, problem.n_rows

        def call():
            p = special.softmax(problem.logits, axis=problem.axis)
            p[at] -= 1
            p /= n
            return self.loss(problem, at), p

        yield call, tuple

    @staticmethod
    def loss(problem, at):
        return -np.mean(special.log_softmax(problem.logits, axis=problem.axis)[at])

    def soft_targets(self, problem):
        yield self.of_masses(problem, problem.distribution)

    def one_hot(self, problem):
        yield self.of_masses(problem, problem.one_hot)

    def of_masses(self, problem, masses):
        x, along, n = problem.logits, {"axis": problem.axis}, problem.n_rows

        def call():
            p = special.softmax(x, **along)
            p -= masses
            p /= n
            return -np.sum(masses * special.log_softmax(x, **along)) / n, p

        return call, tuple
