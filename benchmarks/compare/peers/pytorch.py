"""PyTorch in eager mode."""

from functools import partial

import numpy as np


def to_numpy(result):
    if isinstance(result, tuple):
        return tuple(part.numpy() for part in result)
    return result.numpy()


class PyTorch:
    """Loss and gradient by autograd, into a new gradient or the old one, and without autograd."""

    package = "torch"
    modules = ("torch",)

    def __init__(self, n_threads):
        import torch

        torch.set_num_threads(n_threads)
        self.torch, self.functional = torch, torch.nn.functional

    def softmax(self, problem):
        x = self.torch.from_numpy(problem.logits)
        p = self.torch.zeros_like(x)
        yield partial(self.torch.softmax, x, problem.axis, out=p), to_numpy

    def masked_softmax(self, problem):
        x, hidden = (self.torch.from_numpy(a) for a in (problem.logits, ~problem.mask))
        work, p = self.torch.zeros_like(x), self.torch.zeros_like(x)

        def call():
            work.copy_(x).masked_fill_(hidden, -np.inf)
            return self.torch.softmax(work, problem.axis, out=p)

        def into_new_memory():
            return self.torch.softmax(x.masked_fill(hidden, -np.inf), problem.axis, out=p)

        yield call, to_numpy
        yield into_new_memory, to_numpy

    def softmax_vjp(self, problem):
        p, v = (self.torch.from_numpy(a) for a in (problem.probabilities, problem.vectors))
        backward = partial(self.torch._softmax_backward_data, v, p, problem.axis, p.dtype)
        yield backward, to_numpy
        yield partial(backward, grad_input=self.torch.zeros_like(p)), to_numpy

    def logsumexp(self, problem):
        x = self.torch.from_numpy(problem.logits)
        out = self.torch.zeros(tuple(problem.outer), dtype=x.dtype)
        yield partial(self.torch.logsumexp, x, problem.axis, out=out), to_numpy

    def cross_entropy(self, problem):
        x = self.torch.from_numpy(problem.logits)
        for loss in self.losses(problem, problem.labels):
            yield partial(loss, x), to_numpy

    def soft_loss(self, problem):
        x = self.torch.from_numpy(problem.logits)
        for loss in self.losses(problem, problem.distribution):
            yield partial(loss, x), to_numpy

    def cross_entropy_with_grad(self, problem):
        yield from self.by_autograd(problem, problem.labels)
        yield self.labels_by_hand(problem), to_numpy

    def label_smoothing(self, problem):
        yield from self.by_autograd(problem, problem.labels, label_smoothing=0.1)

    def soft_targets(self, problem):
        yield from self.by_autograd(problem, problem.distribution)
        yield self.masses_by_hand(problem, problem.distribution), to_numpy

    def one_hot(self, problem):
        """It takes masses as floats only."""
        masses = problem.one_hot.astype(problem.logits.dtype)
        yield from self.by_autograd(problem, masses)
        yield self.masses_by_hand(problem, masses), to_numpy

    def soft_gradient(self, problem):
        x, q = (self.torch.from_numpy(a) for a in (problem.logits, problem.distribution))
        grad = self.torch.zeros_like(x)

        def call():
            self.torch.softmax(x, problem.axis, out=grad)
            return grad.sub_(q).div_(problem.n_rows)

        yield call, to_numpy

    def losses(self, problem, target, **options):
        """Yield the loss as a function of the logits, for each way to say which axis is which."""
        y = self.torch.from_numpy(target)
        of = partial(self.functional.cross_entropy, **options)
        if problem.axis == 0:
            masses = y.ndim == problem.logits.ndim
            yield lambda x: of(x.T, y.T if masses else y)
            if not masses:  # or a mean over one image of masses is what it divides by
                yield lambda x: of(x[None], y[None])
        else:
            yield lambda x: of(x, y)

    def by_autograd(self, problem, target, **options):
        for loss in self.losses(problem, target, **options):
            for call in (self.into_new_memory, self.into_the_same_memory):
                x = self.torch.from_numpy(problem.logits).requires_grad_()
                yield partial(call, loss, x), to_numpy

    @staticmethod
    def into_new_memory(loss_of, x):
        x.grad = None
        loss = loss_of(x)
        loss.backward()
        return loss.detach(), x.grad

    @staticmethod
    def into_the_same_memory(loss_of, x):
        if x.grad is not None:
            x.grad.zero_()
        loss = loss_of(x)
        loss.backward()
        return loss.detach(), x.grad

    def labels_by_hand(self, problem):
        """log_softmax, the loss of it, and the gradient over it: no autograd, no new memory."""
        x, y = (self.torch.from_numpy(a) for a in (problem.logits, problem.labels))
        grad = self.torch.zeros_like(x)
        classes_second = grad.T if problem.axis == 0 else grad
        at = tuple(self.torch.from_numpy(a) for a in problem.at_labels)

        def call():
            self.torch.log_softmax(x, problem.axis, out=grad)
            loss = self.functional.nll_loss(classes_second, y)
            grad.exp_()
            grad[at] -= 1
            return loss, grad.div_(problem.n_rows)

        return call

    def masses_by_hand(self, problem, masses):
        x, q = (self.torch.from_numpy(a) for a in (problem.logits, masses))
        grad = self.torch.zeros_like(x)

        def call():
            self.torch.log_softmax(x, problem.axis, out=grad)
            loss = -self.torch.dot(grad.view(-1), q.view(-1)) / problem.n_rows
            return loss, grad.exp_().sub_(q).div_(problem.n_rows)

        return call
