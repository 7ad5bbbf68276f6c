"""The other libraries, each at its best: their calls for a problem of `cases`.

A method has the name of our function and yields ways to compute the same with that library: a
call without arguments, into memory already touched where the library can be given any, and how to
make of what it returns what our function returns. The fastest way is the one that counts. A
library is imported when its class is called, and works on the number of threads it is given.
"""

import importlib.metadata
import importlib.util
import os
from functools import partial

import numpy as np


class UnsuitableError(Exception):
    """Says why a library is left out for one problem."""


def as_it_is(result):
    return result


class NumPy:
    """The formula by hand: one exp, everything large in place."""

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

        yield call, as_it_is

    def logsumexp(self, problem):
        call = partial(self.shifted_log, problem, np.zeros_like(problem.logits))
        yield call, lambda parts: np.add(*parts).reshape(problem.outer)

    def cross_entropy(self, problem):
        work, at = np.zeros_like(problem.logits), problem.at_labels

        def call():
            shift, log_total = self.shifted_log(problem, work)
            return np.mean(log_total + shift - problem.logits[at].reshape(shift.shape))

        yield call, as_it_is

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

        yield call, as_it_is

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


class SciPy:
    """The formula with scipy.special, as in the other benchmarks."""

    package = "scipy"
    modules = ("scipy",)

    def __init__(self, n_threads):
        """There is nothing to set: scipy.special has one thread."""

    def softmax(self, problem):
        yield self.way("softmax", problem)

    def logsumexp(self, problem):
        yield self.way("logsumexp", problem)

    def cross_entropy(self, problem):
        yield self.way("cross_entropy", problem)

    def cross_entropy_with_grad(self, problem):
        yield self.way("cross_entropy_with_grad", problem)

    @staticmethod
    def way(name, problem):
        def in_its_layout(result):
            """SciPy was given the rows first, and strided."""
            if isinstance(result, tuple):
                return tuple(in_its_layout(part) for part in result)
            return np.moveaxis(result, -1, problem.axis) if np.ndim(result) == 2 else result

        return problem.scipy_way(name), in_its_layout


class PyTorch:
    """Eager mode: autograd, into a new gradient or the old one, and the two halves by hand."""

    package = "torch"
    modules = ("torch",)

    def __init__(self, n_threads):
        import torch

        torch.set_num_threads(n_threads)
        self.torch, self.functional = torch, torch.nn.functional

    def softmax(self, problem):
        x = self.torch.from_numpy(problem.logits)
        p = self.torch.zeros_like(x)
        yield partial(self.torch.softmax, x, problem.axis, out=p), self.to_numpy

    def masked_softmax(self, problem):
        x, hidden = (self.torch.from_numpy(a) for a in (problem.logits, ~problem.mask))
        work, p = self.torch.zeros_like(x), self.torch.zeros_like(x)

        def call():
            work.copy_(x).masked_fill_(hidden, -np.inf)
            return self.torch.softmax(work, problem.axis, out=p)

        yield call, self.to_numpy
        yield (
            lambda: self.torch.softmax(x.masked_fill(hidden, -np.inf), problem.axis, out=p),
            self.to_numpy,
        )

    def softmax_vjp(self, problem):
        p, v = (self.torch.from_numpy(a) for a in (problem.probabilities, problem.vectors))
        backward = partial(self.torch._softmax_backward_data, v, p, problem.axis, p.dtype)
        yield backward, self.to_numpy
        yield partial(backward, grad_input=self.torch.zeros_like(p)), self.to_numpy

    def logsumexp(self, problem):
        x = self.torch.from_numpy(problem.logits)
        out = self.torch.zeros(tuple(problem.outer), dtype=x.dtype)
        yield partial(self.torch.logsumexp, x, problem.axis, out=out), self.to_numpy

    def cross_entropy(self, problem):
        x = self.torch.from_numpy(problem.logits)
        for loss in self.losses(problem, problem.labels):
            yield partial(loss, x), self.to_numpy

    def soft_loss(self, problem):
        x = self.torch.from_numpy(problem.logits)
        for loss in self.losses(problem, problem.distribution):
            yield partial(loss, x), self.to_numpy

    def cross_entropy_with_grad(self, problem):
        yield from self.by_autograd(problem, problem.labels)
        yield self.labels_by_hand(problem), self.to_numpy

    def label_smoothing(self, problem):
        yield from self.by_autograd(problem, problem.labels, label_smoothing=0.1)

    def soft_targets(self, problem):
        yield from self.by_autograd(problem, problem.distribution)
        yield self.masses_by_hand(problem, problem.distribution), self.to_numpy

    def one_hot(self, problem):
        """It takes masses as floats only."""
        masses = problem.one_hot.astype(problem.logits.dtype)
        yield from self.by_autograd(problem, masses)
        yield self.masses_by_hand(problem, masses), self.to_numpy

    def soft_gradient(self, problem):
        x, q = (self.torch.from_numpy(a) for a in (problem.logits, problem.distribution))
        grad = self.torch.zeros_like(x)

        def call():
            self.torch.softmax(x, problem.axis, out=grad)
            return grad.sub_(q).div_(problem.n_rows)

        yield call, self.to_numpy

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
                yield partial(call, loss, x), self.to_numpy

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

    @staticmethod
    def to_numpy(result):
        if isinstance(result, tuple):
            return tuple(part.numpy() for part in result)
        return result.numpy()


class JAX:
    """Compiled by XLA for the CPU, the arrays on its device; the loss in two forms."""

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

    def logsumexp(self, problem):
        yield self.compiled(partial(self.jax.nn.logsumexp, axis=problem.axis), problem.logits)

    def cross_entropy(self, problem):
        for loss in self.losses(problem.axis):
            yield self.compiled(loss, problem.logits, problem.labels)

    def cross_entropy_with_grad(self, problem):
        for loss in self.losses(problem.axis):
            both = self.jax.value_and_grad(loss)
            yield self.compiled(both, problem.logits, problem.labels)

    def losses(self, axis):
        def of_labels(array, y):
            y = self.jax.numpy.expand_dims(y, axis)
            return self.jax.numpy.take_along_axis(array, y, axis=axis)

        def by_log_softmax(x, y):
            return -of_labels(self.jax.nn.log_softmax(x, axis=axis), y).mean()

        def by_logsumexp(x, y):
            total = self.jax.nn.logsumexp(x, axis=axis, keepdims=True)
            return (total - of_labels(x, y)).mean()

        return by_log_softmax, by_logsumexp

    def compiled(self, function, *arrays):
        function = self.jax.jit(function)
        arrays = [self.jax.device_put(array) for array in arrays]
        return lambda: self.jax.block_until_ready(function(*arrays)), self.to_numpy

    @staticmethod
    def to_numpy(result):
        return tuple(map(np.asarray, result)) if isinstance(result, tuple) else np.asarray(result)


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
        if problem.axis == 0:
            raise UnsuitableError("the classes must be last")
        x = problem.logits
        y = problem.labels.astype(x.dtype)
        return self.loss_for(n_classes=x.shape[1]), (y, x), np.zeros(problem.n_rows, x.dtype)


class ONNXRuntime:
    """A model of one node, its input and output bound to arrays of ours."""

    package = "onnxruntime"
    modules = ("onnxruntime", "onnx")

    def __init__(self, n_threads):
        import onnx
        import onnxruntime

        self.helper, self.runtime = onnx.helper, onnxruntime
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = n_threads
        # Its threads spin while a model runs, but not on into the next library's turn.
        self.options.add_session_config_entry("session.force_spinning_stop", "1")
        self.options.inter_op_num_threads = 1

    def softmax(self, problem):
        x, p = problem.logits, np.zeros_like(problem.logits)
        session = self.runtime.InferenceSession(
            self.model(x, problem.axis), self.options, providers=["CPUExecutionProvider"]
        )
        bound = session.io_binding()
        # Named with dtype and address, so that nothing is copied into memory of the runtime's own.
        bound.bind_input("x", "cpu", 0, x.dtype.type, x.shape, x.ctypes.data)
        bound.bind_output("p", "cpu", 0, p.dtype.type, p.shape, p.ctypes.data)

        def call():
            session.run_with_iobinding(bound)
            return p  # which lives as long as the call, then

        yield call, as_it_is

    def model(self, x, axis):
        dtype = self.helper.np_dtype_to_tensor_dtype(x.dtype)
        graph = self.helper.make_graph(
            [self.helper.make_node("Softmax", ["x"], ["p"], axis=axis)],
            "softmax",
            [self.helper.make_tensor_value_info("x", dtype, x.shape)],
            [self.helper.make_tensor_value_info("p", dtype, x.shape)],
        )
        opsets = [self.helper.make_opsetid("", 13)]
        return self.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


PEERS = {
    "NumPy": NumPy,
    "SciPy": SciPy,
    "PyTorch": PyTorch,
    "JAX": JAX,
    "scikit-learn": ScikitLearn,
    "ONNX Runtime": ONNXRuntime,
}


def installed(n_threads):
    """Return the libraries that are there, their versions, and the names of the missing ones."""
    there, versions, missing = {}, {}, []
    for name, peer in PEERS.items():
        if any(importlib.util.find_spec(module) is None for module in peer.modules):
            missing.append(name)
        else:
            there[name] = peer(n_threads)
            versions[name] = importlib.metadata.version(peer.package)
    return there, versions, missing
