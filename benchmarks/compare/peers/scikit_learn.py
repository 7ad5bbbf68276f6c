"""scikit-learn's own loops over the rows, in Cython."""

from functools import partial

import numpy as np

from benchmarks.tasks import UnsuitableError


class ScikitLearn:
    """The loops of its linear models and of its boosting, into arrays of ours.

    They return a loss for each row and do not divide the gradient, which is left out of the time.
    """

    package = "scikit-learn"
    modules = ("sklearn",)

    def __init__(self, n_threads):
        from sklearn._loss import HalfMultinomialLoss

        self.loss_for, self.n_threads = HalfMultinomialLoss, n_threads

    def cross_entropy(self, problem):
        loss, args, losses = self.prepared(problem)
        call = partial(loss.loss, *args, loss_out=losses, n_threads=self.n_threads)
        yield call, np.mean

    def cross_entropy_with_grad(self, problem):
        loss, args, losses = self.prepared(problem)
        grad = np.zeros_like(problem.logits)
        call = partial(
            loss.loss_gradient, *args, loss_out=losses, gradient_out=grad, n_threads=self.n_threads
        )
        yield call, lambda result: (result[0].mean(), result[1] / problem.n_rows)

    def prepared(self, problem):
        """Return its object, labels and logits, and an array for the losses."""
        if problem.axis != -1:
            raise UnsuitableError("the classes must be last")
        x = problem.logits
        y = problem.labels.astype(x.dtype)
        return self.loss_for(n_classes=x.shape[1]), (y, x), np.zeros(problem.n_rows, x.dtype)
