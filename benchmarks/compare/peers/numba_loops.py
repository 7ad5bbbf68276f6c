"""numba: the plain loops over rows and classes, compiled with fastmath and in parallel."""

from functools import cache, partial

import numpy as np

from benchmarks.tasks import UnsuitableError


@cache
def compiled():
    """Return softmax and loss with gradient of an array with the classes last.

    numba takes the first threading layer that works: TBB, if it is installed, then OpenMP.
    """
    from numba import njit, prange

    @njit(fastmath=True)
    def exps_of_row(x, i, exps):
        shift = x[i, 0]
        for j in range(1, x.shape[1]):
            shift = max(shift, x[i, j])
        total = x.dtype.type(0)
        for j in range(x.shape[1]):
            exps[i, j] = np.exp(x[i, j] - shift)
            total += exps[i, j]
        return shift, total

    @njit(parallel=True, fastmath=True)
    def softmax(x, p):
        n_classes = x.shape[1]
        for i in prange(x.shape[0]):
            _, total = exps_of_row(x, i, p)
            scale = 1 / total
            for j in range(n_classes):
                p[i, j] *= scale
        return p

    @njit(parallel=True, fastmath=True)
    def loss_and_gradient(x, y, grad):
        n_rows, n_classes = x.shape
        loss = 0.0
        for i in prange(n_rows):
            shift, total = exps_of_row(x, i, grad)
            loss += np.log(total) - (x[i, y[i]] - shift)
            scale = 1 / (total * n_rows)
            for j in range(n_classes):
                grad[i, j] *= scale
            grad[i, y[i]] -= x.dtype.type(1 / n_rows)
        return loss / n_rows, grad

    return softmax, loss_and_gradient


class Numba:
    """What a programmer gets from two loops, into arrays of ours."""

    package = "numba"
    modules = ("numba",)

    def __init__(self, n_threads):
        import numba

        numba.set_num_threads(n_threads)

    def softmax(self, problem):
        loops, _ = compiled()
        yield partial(loops, self.logits(problem), np.zeros_like(problem.logits)), np.asarray

    def cross_entropy_with_grad(self, problem):
        _, loops = compiled()
        args = self.logits(problem), problem.labels, np.zeros_like(problem.logits)
        yield partial(loops, *args), tuple

    @staticmethod
    def logits(problem):
        if problem.axis != -1:
            raise UnsuitableError("the loops are written for the classes last")
        return problem.logits
