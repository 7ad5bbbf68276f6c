"""JAX, compiled by XLA."""

import os
from functools import partial

import numpy as np


class JAX:
    """Compiled for the CPU, the arrays on its device; the loss in two forms."""

    package = "jax"
    modules = ("jax",)

    def __init__(self, n_threads):
        """The number of threads is that of the CPUs that the process may use: see `run`."""
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        import jax

        jax.config.update("jax_enable_x64", True)
        self.jax = jax

    def softmax(self, problem):
        yield self.compiled(partial(self.jax.nn.softmax, axis=problem.axis), problem.logits)

    def masked_softmax(self, problem):
        def by_where(x, mask):
            return self.jax.nn.softmax(self.jax.numpy.where(mask, x, -np.inf), axis=problem.axis)

        yield self.compiled(by_where, problem.logits, problem.mask)

    def softmax_vjp(self, problem):
        """With the probabilities that a softmax before has left."""
        _, backward = self.jax.vjp(
            partial(self.jax.nn.softmax, axis=problem.axis), self.jax.device_put(problem.logits)
        )
        yield self.compiled(lambda backward, v: backward(v)[0], backward, problem.vectors)

    def logsumexp(self, problem):
        yield self.compiled(partial(self.jax.nn.logsumexp, axis=problem.axis), problem.logits)

    def cross_entropy(self, problem):
        for loss in self.losses(problem.axis):
            yield self.compiled(loss, problem.logits, problem.labels)

    def cross_entropy_with_grad(self, problem):
        for loss in self.losses(problem.axis):
            both = self.jax.value_and_grad(loss)
            yield self.compiled(both, problem.logits, problem.labels)

    def soft_targets(self, problem):
        yield from self.of_masses(problem, problem.distribution)

    def one_hot(self, problem):
        yield from self.of_masses(problem, problem.one_hot)

    def label_smoothing(self, problem):
        axis = problem.axis

        def loss(x, y):
            logs = self.jax.nn.log_softmax(x, axis=axis)
            return -(
                0.9 * self.of_labels(logs, y, axis) + 0.1 * logs.mean(axis, keepdims=True)
            ).mean()

        both = self.jax.value_and_grad(loss)
        yield self.compiled(both, problem.logits, problem.labels)

    def losses(self, axis):
        def by_log_softmax(x, y):
            return -self.of_labels(self.jax.nn.log_softmax(x, axis=axis), y, axis).mean()

        def by_logsumexp(x, y):
            total = self.jax.nn.logsumexp(x, axis=axis, keepdims=True)
            return (total - self.of_labels(x, y, axis)).mean()

        return by_log_softmax, by_logsumexp

    def of_labels(self, array, y, axis):
        y = self.jax.numpy.expand_dims(y, axis)
        return self.jax.numpy.take_along_axis(array, y, axis=axis)

    def of_masses(self, problem, masses):
        def loss(x, q):
            return -(q * self.jax.nn.log_softmax(x, axis=problem.axis)).sum() / problem.n_rows

        yield self.compiled(self.jax.value_and_grad(loss), problem.logits, masses)

    def compiled(self, function, *args):
        function = self.jax.jit(function)
        args = [self.jax.device_put(arg) for arg in args]
        return lambda: self.jax.block_until_ready(function(*args)), self.to_numpy

    @staticmethod
    def to_numpy(result):
        return tuple(map(np.asarray, result)) if isinstance(result, tuple) else np.asarray(result)
