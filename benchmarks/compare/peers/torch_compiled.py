"""PyTorch, compiled by torch.compile."""

import os
from functools import partial

from benchmarks.compare.peers.pytorch import to_numpy


class TorchCompile:
    """For one shape at a time, into memory that exists."""

    package = "torch"
    modules = ("torch",)

    def __init__(self, n_threads):
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # no processes that stay on
        import torch

        torch.set_num_threads(n_threads)
        self.torch, self.functional = torch, torch.nn.functional

    def compiled(self, function):
        self.torch.compiler.reset()  # or it would give up after some shapes
        return self.torch.compile(function, dynamic=False)

    def softmax(self, problem):
        x = self.torch.from_numpy(problem.logits)
        p = self.torch.zeros_like(x)

        def into(x, p):
            return p.copy_(self.torch.softmax(x, problem.axis))

        yield partial(self.compiled(into), x, p), to_numpy

    def cross_entropy_with_grad(self, problem):
        y, axis = self.torch.from_numpy(problem.labels), problem.axis

        def loss(x, y):
            return self.functional.cross_entropy(x.T if axis == 0 else x, y)

        def both(x, y, out):
            grad, value = self.torch.func.grad_and_value(loss)(x, y)
            return value, out.copy_(grad)

        x = self.torch.from_numpy(problem.logits)
        yield partial(self.compiled(both), x, y, self.torch.zeros_like(x)), to_numpy
