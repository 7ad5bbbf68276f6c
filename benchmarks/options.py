"""What does each option of the loss cost, and each way to give a target?

An option that a commit does not know yet raises NotImplementedError or a TypeError there; asv
shows n/a. price.py prints the same prices in one run, as a table.
"""

from functools import cache, partial

import numpy as np
from scipy import sparse, special

from benchmarks import cases, timing
from benchmarks.shapes import PRICED

BOTH = "cross_entropy_with_grad"
IGNORED = -100


def ignoring(problem, share):
    """Return the labels, a share of them at random replaced by the index that is ignored."""
    labels = problem.labels.ravel()[: problem.period]
    ignored = np.random.default_rng(3).random(problem.period) < share
    return problem.repeated(np.where(ignored, IGNORED, labels))


def weights(problem, number):
    return np.random.default_rng(4).uniform(0.5, 2, number).astype(problem.logits.dtype)


def row_weights(problem):
    return problem.repeated(weights(problem, problem.period))


def csr(problem):
    """Return the one-hot target as a sparse matrix of one entry a row."""
    if problem.logits.ndim != 2 or problem.axis != -1:
        raise NotImplementedError("a sparse target has two dimensions, the classes last")
    ones = np.ones(problem.n_rows, problem.logits.dtype)
    indptr = np.arange(problem.n_rows + 1)
    return sparse.csr_array((ones, problem.labels, indptr), problem.logits.shape)


# Each way to give a target that is not the labels, as a function of the problem.
TARGETS = {
    "one-hot": lambda problem: problem.one_hot,
    "distribution": lambda problem: problem.distribution,
    "CSR": csr,
    "ignore 30 %": partial(ignoring, share=0.3),
}
# The arguments of each option, as a function of the problem.
KEYWORDS = {
    "where": lambda problem: {"where": problem.mask},
    "label_smoothing": lambda problem: {"label_smoothing": 0.1},
    "z_loss": lambda problem: {"z_loss": 1e-4},
    "class_weight": lambda problem: {"class_weight": weights(problem, problem.n_classes)},
    "sample_weight": lambda problem: {"sample_weight": row_weights(problem)},
    "ignore 30 %": lambda problem: {"ignore_index": IGNORED},
    "ignore none": lambda problem: {"ignore_index": IGNORED},
    "temperature": lambda problem: {"temperature": 2.0},
    "scale": lambda problem: {"scale": row_weights(problem)},
    # Or the gradient of a mean over many rows would be below the least float16.
    "float16": lambda problem: {"reduction": "sum"},
}
OPTIONS = list(dict.fromkeys(["labels", *TARGETS, *KEYWORDS]))
# Functions other than the loss, whose price is compared with it.
FUNCTIONS = ["cross_entropy_grad_hess", "row_stats", "softmax_vjp"]


def logits_of(option, problem):
    return problem.logits.astype(np.float16) if option == "float16" else problem.logits


def target_of(option, problem):
    return TARGETS[option](problem) if option in TARGETS else problem.labels


def keywords(option, problem):
    """Return the keyword arguments that turn an option on."""
    return KEYWORDS[option](problem) if option in KEYWORDS else {}


def prepared(option, problem, function=BOTH):
    """Return a function without arguments: the call with an option, into touched arrays."""
    if option == "labels":
        return cases.prepared(function, problem)
    x = logits_of(option, problem)
    args = (x,) if function in cases.OF_LOGITS else (x, target_of(option, problem))
    options = keywords(option, problem)
    if function != "cross_entropy":
        options["out"] = np.zeros_like(x)
    return partial(cases.public(function), *args, axis=problem.axis, **options)


# ---------------------------------------------------------------- the check before the time


def formula(
    x, target, *, class_weight=None, sample_weight=None, ignore_index=None, label_smoothing=0.0,
    z_loss=0.0, temperature=1.0, where=None, scale=1.0, reduction="mean",
):  # fmt: skip
    """Return loss and gradient with SciPy, in float64, every option in its place.

    The target is given as class indices or as a matrix of masses.
    """
    x = x.astype(np.float64) / temperature
    if where is not None:
        x = np.where(where, x, -np.inf)
    takes_part = np.isfinite(x)
    s = np.ones(len(x)) if sample_weight is None else sample_weight.astype(np.float64)
    c = np.ones(x.shape[1]) if class_weight is None else class_weight
    if target.ndim == 1:
        s = np.where(target == ignore_index, 0, s)
        target = target[:, None] == np.arange(x.shape[1])
    w = s * (c * target).sum(axis=1)
    smooth = (1 - label_smoothing) * target
    smooth += label_smoothing / takes_part.sum(axis=1, keepdims=True)
    a = np.where(takes_part, c * smooth, 0)
    lse = special.logsumexp(x, axis=1)
    logs = np.where(a == 0, 0, special.log_softmax(x, axis=1))  # 0 * -inf is 0
    losses = -s * (a * logs).sum(axis=1)
    losses += w * z_loss * lse**2
    p = special.softmax(x, axis=1)
    grad = s[:, None] * (a.sum(axis=1, keepdims=True) * p - a)
    grad += (2 * z_loss * w * lse)[:, None] * p
    divisor = w.sum() if reduction == "mean" else 1.0
    grad *= (np.asarray(scale) / (temperature * divisor))[..., None]
    return losses.sum() / divisor, grad


def expected(option, problem, function=BOTH):
    """Return the result of a call for the first rows, in float64."""
    if option == "labels":
        return problem.scipy_way(function, problem.period, np.float64)()

    def first(value):
        """What belongs to a row, for one period of them."""
        if np.shape(value) in (problem.logits.shape, tuple(problem.outer)):
            return problem.by_rows(value)[: problem.period]
        return value

    x = first(logits_of(option, problem))
    options = {name: first(value) for name, value in keywords(option, problem).items()}
    if function == "softmax":
        assert options.keys() == {"where"}
        return special.softmax(np.where(options["where"], x.astype(np.float64), -np.inf), axis=1)
    target = target_of("labels" if option == "CSR" else option, problem)
    loss, grad = formula(x, first(target), **options)
    repeats = problem.n_rows // problem.period
    if options.get("reduction") == "sum":
        loss *= repeats
    else:
        grad /= repeats
    return {"cross_entropy": loss, "cross_entropy_grad": grad}.get(function, (loss, grad))


def check(option, problem, result, function=BOTH):
    """Raise AssertionError if our result with an option is not that of SciPy, in float64."""
    exact = expected(option, problem, function)
    tolerance = 64 * np.finfo(logits_of(option, problem).dtype).eps
    cases.compare(option, problem, result, exact, tolerance)


def checked_call(option, problem, function=BOTH):
    """Return the call with an option, its result checked."""
    try:
        call = prepared(option, problem, function)
        result = call()
    except TypeError as error:
        raise NotImplementedError(f"{option}: {error}") from None
    check(option, problem, result, function)
    return call


# ---------------------------------------------------------------- benchmarks


@cache
def problem_of(elements):
    return cases.Problem("float32", *PRICED[elements])


@cache
def checked(option, elements):
    """Return the call of an option or a function; remembered, as `cases.checked` is."""
    if option in FUNCTIONS:
        return checked_call("labels", problem_of(elements), option)
    return checked_call(option, problem_of(elements))


class Options:
    """Loss and gradient with an option, and its price beside labels without any, in float32."""

    params = ([*OPTIONS, *FUNCTIONS], list(PRICED))
    param_names = ("option", "elements")
    warmup_time = 0.05
    rounds = 1
    repeat = (3, 30, 0.3)
    version = "2"  # float32 alone, at other shapes

    def setup(self, option, elements):
        self.call = checked(option, elements)

    def time_loss_and_gradient(self, option, elements):
        self.call()

    def track_price(self, option, elements):
        with_it, without = timing.shortest(self.call, checked("labels", elements))
        return with_it / without

    track_price.unit = "times the plain call"
