"""What other libraries are given to do, by name: a function of ours, and the option of its call.

A plain function is a task of its own name, with labels if it needs a target.
"""

from typing import NamedTuple

import numpy as np

from benchmarks import cases, options


class UnsuitableError(Exception):
    """Says why a library is left out for one problem."""


class Task(NamedTuple):
    function: str
    option: str = "labels"


TASKS = {name: Task(name) for name in cases.SCIPY} | {
    "soft_targets": Task(options.BOTH, "distribution"),
    "one_hot": Task(options.BOTH, "one-hot"),
    "label_smoothing": Task(options.BOTH, "label_smoothing"),
    "soft_loss": Task("cross_entropy", "distribution"),
    "soft_gradient": Task("cross_entropy_grad", "distribution"),
    "masked_softmax": Task("softmax", "where"),
}


def ours(name, problem):
    """Return our call for a task, its result checked."""
    function, option = TASKS[name]
    return options.checked_call(option, problem, function)


def check(name, problem, result):
    """Raise AssertionError if a library's result is not SciPy's, which is given float64.

    The bound leaves room for a plain sum of a long row in the dtype of the logits, and for the
    subtraction of 1 from a probability.
    """
    function, option = TASKS[name]
    eps = np.finfo(problem.logits.dtype).eps
    exact = options.expected(option, problem, function)
    names = ("the loss", "the gradient")
    if not isinstance(exact, tuple):
        names, result, exact = ("the result",), (result,), (exact,)
    for part, theirs, expected in zip(names, result, exact, strict=True):
        bound = 2000 * eps * np.abs(expected) + 32 * eps * np.max(np.abs(expected))
        blocks = [theirs]
        if np.ndim(theirs):
            rows = problem.by_rows(theirs)
            assert len(rows) == problem.n_rows, f"{part} has the shape {np.shape(theirs)}"
            blocks = np.split(rows, problem.n_rows // problem.period)
        for block in blocks:
            error = np.abs(block - expected)
            assert error.shape == bound.shape, f"{part} has the shape {np.shape(theirs)}"
            if not (error <= bound).all():  # with a NaN too
                raise AssertionError(f"{part} is off by up to {np.max(error):.3g}")


def checked_ways(name, problem, peer):
    """Return the calls of all ways of a library to do a task, each of them checked."""
    calls = []
    for call, as_ours in getattr(peer, name)(problem):
        check(name, problem, as_ours(call()))
        calls.append(call)
    return calls
