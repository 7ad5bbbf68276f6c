"""How far from the exact result? Compared with long double, in units in the last place (ulp)."""

import importlib.util
from pathlib import Path

import numpy as np

from benchmarks import cases
from benchmarks.shapes import DTYPES
from cysoftmax import _core


def of_the_tests(name):
    """Return a module of the tests that imports nothing of the library: one for all commits."""
    path = Path(__file__).parents[1] / "tests" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reference, bounds = of_the_tests("reference"), of_the_tests("bounds")  # the formulas, the promises

INSTRUCTION_SETS = _core.available_isas()
N_LOGITS = 20_000  # of each kind of rows


def use(instruction_set):
    """Use an instruction set from now on, if this machine has it."""
    if instruction_set not in _core.available_isas():
        raise NotImplementedError(f"this machine has no {instruction_set}")
    _core.use_isa(instruction_set)


def kinds_of_rows(dtype, n_classes):
    """Yield logits that are hard in different ways."""
    normal = np.random.default_rng(0).standard_normal((max(2, N_LOGITS // n_classes), n_classes))
    yield (normal * 3).astype(dtype)  # usual
    yield (normal * 30).astype(dtype)  # far apart
    yield (normal * 3 + 1e4).astype(dtype)  # far from zero
    confident = normal.copy()
    confident[:, 0] += 20
    yield confident.astype(dtype)
    yield np.round(normal).astype(dtype)  # many that are equal


def softmax_error(x, y):
    return reference.error_in_ulp(cases.public("softmax")(x), reference.softmax(x))


def log_softmax_error(x, y):
    return reference.error_in_ulp(cases.public("log_softmax")(x), reference.log_softmax(x))


def logsumexp_error(x, y):
    exact = reference.logsumexp(x)
    larger = np.maximum(np.abs(exact), np.abs(x.max(axis=-1)))  # of the two parts, which may cancel
    error = np.abs(cases.public("logsumexp")(x) - exact) / reference.ulp(larger, x.dtype)
    return float(error.max())


def loss_error(x, y):
    losses = cases.public("cross_entropy")(x, y, reduction="none")
    return reference.error_in_ulp(losses, reference.losses(x, y))


def gradient_error(x, y):
    grad = cases.public("cross_entropy_grad")(x, y, reduction="none")
    return reference.error_in_ulp(grad, reference.gradients(x, y))


def vjp_error(x, y):
    p = cases.public("softmax")(x)
    v = np.ascontiguousarray(x[:, ::-1])
    wide_p, wide_v = p.astype(reference.LONG), v.astype(reference.LONG)
    total = np.sum(wide_p * wide_v, axis=-1, keepdims=True)
    exact = wide_p * (wide_v - total)
    larger = wide_p * np.maximum(np.abs(wide_v), np.abs(total))  # of the two, which may cancel
    error = np.abs(cases.public("softmax_vjp")(p, v) - exact) / reference.ulp(larger, x.dtype)
    return float(error.max())


def hessian_error(x, y):
    _, e, rest, _ = reference.parts(x)
    others = np.where(e == 1, rest, 1 + rest - e)  # no subtraction where it would cancel
    _, hess = cases.public("cross_entropy_grad_hess")(x, y)
    return reference.error_in_ulp(hess, e * others / (1 + rest) ** 2)


ERRORS = {
    "softmax": softmax_error,
    "log_softmax": log_softmax_error,
    "logsumexp": logsumexp_error,
    "cross_entropy": loss_error,
    "cross_entropy_grad": gradient_error,
    "cross_entropy_grad_hess": hessian_error,
    "softmax_vjp": vjp_error,
}


class Accuracy:
    """The largest error over several kinds of rows, for each instruction set."""

    params = (list(bounds.BOUNDS), INSTRUCTION_SETS, DTYPES, [10, 1000])
    param_names = ("function", "instruction set", "dtype", "classes")
    unit = "ulp"

    def setup(self, function, instruction_set, dtype, classes):
        use(instruction_set)
        cases.public(function)

    def track_max_ulp(self, function, instruction_set, dtype, classes):
        labels = np.random.default_rng(1).integers(0, classes, N_LOGITS)
        return max(
            ERRORS[function](x, np.where(labels[: len(x)] < classes // 2, 0, labels[: len(x)]))
            for x in kinds_of_rows(dtype, classes)
        )
