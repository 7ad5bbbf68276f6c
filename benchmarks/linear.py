"""How long do loss and gradients of X @ W take, and how much longer than the products alone?

Both are timed in turns, in the same chunks of rows. NumPy's BLAS uses its own threads.
"""

from functools import cache

import numpy as np

from benchmarks import cases, timing
from benchmarks.shapes import DTYPES

# (rows, features, classes) by the number of logits.
SHAPES = {
    rows * classes: (rows, features, classes)
    for rows, features, classes in [(100_000, 50, 10), (8192, 64, 1000), (1024, 256, 10_000)]
}


class Problem:
    """Features, weights and labels of one shape, and an array for the gradient."""

    function = "linear_cross_entropy"

    def __init__(self, dtype, elements):
        n_rows, n_features, n_classes = SHAPES[elements]
        rng = np.random.default_rng(0)
        self.X = rng.standard_normal((n_rows, n_features)).astype(dtype)
        self.W = (rng.standard_normal((n_features, n_classes)) / n_features**0.5).astype(dtype)
        self.labels = rng.integers(0, n_classes, n_rows)
        self.out = {"W": np.zeros_like(self.W)}
        self.linear = cases.public(self.function)

    def call(self):
        return self.linear(self.X, self.W, self.labels, wrt=("W",), out=self.out)

    def products(self):
        from cysoftmax._linear import rows_of_chunk

        n = min(rows_of_chunk(*self.W.shape, True), len(self.X))
        logits, room = np.empty((n, self.W.shape[1]), self.X.dtype), np.empty_like(self.W)
        for k in range(0, len(self.X), n):
            x = self.X[k : k + n]
            p = np.matmul(x, self.W, out=logits[: len(x)])
            np.matmul(x.T, p, out=room)

    def check(self):
        """Raise AssertionError unless the call gives what SciPy gives in float64."""
        X, W = self.X.astype(np.float64), self.W.astype(np.float64)
        loss, G = cases.scipy_loss_and_gradient(X @ W, self.labels, None, len(X))
        got, eps = self.call(), np.finfo(self.X.dtype).eps
        np.testing.assert_allclose(got.loss, loss, rtol=100 * eps, err_msg=self.function)
        want = X.T @ G
        np.testing.assert_allclose(got.grad_W, want, rtol=0, atol=1000 * eps * np.abs(want).max())


@cache
def checked(dtype, elements):
    problem = Problem(dtype, elements)
    problem.check()
    return problem


class _Linear:
    params = (DTYPES, list(SHAPES))
    param_names = ("dtype", "elements")

    def setup(self, dtype, elements):
        self.problem = checked(dtype, elements)


class LinearCrossEntropy(_Linear):
    """Loss and gradient with respect to W, from class indices."""

    warmup_time, rounds, repeat = 0.05, 1, (3, 30, 0.3)

    def time_call(self, dtype, elements):
        self.problem.call()


class LinearCrossEntropyToProducts(_Linear):
    """Time over that of the same products alone."""

    unit = "of the products' time"

    def track_ratio(self, dtype, elements):
        ours, products = timing.shortest(self.problem.call, self.problem.products)
        return ours / products
