"""What does each option of the loss cost?

An option that a commit does not know yet raises NotImplementedError or a TypeError there; asv
shows n/a.
"""

from functools import cache, partial

import numpy as np
from scipy import sparse, special

from benchmarks import cases, timing
from benchmarks.shapes import DTYPES, SHAPES


def keywords(option, problem):
    """Return the keyword arguments that turn an option on."""
    rng = np.random.default_rng(1)
    n_rows, n_classes = problem.logits.shape
    values = {
        "class_weight": lambda: rng.uniform(0.5, 2, n_classes),
        "sample_weight": lambda: rng.uniform(0.5, 2, n_rows),
        "ignore_index": lambda: 0,
        "label_smoothing": lambda: 0.1,
        "z_loss": lambda: 1e-4,
        "temperature": lambda: 2.0,
        "where": lambda: allowed(problem),
        "scale": lambda: rng.uniform(0.5, 2, n_rows),
    }
    return {option: values[option]()} if option in values else {}


def allowed(problem):
    """Return a mask that keeps three classes in four, the target among them."""
    where = np.random.default_rng(2).random(problem.logits.shape) < 0.75
    where[np.arange(problem.n_rows), problem.labels] = True
    return where


def one_hot(problem, dtype):
    return np.eye(problem.logits.shape[1], dtype=dtype)[problem.labels]


TARGETS = {  # ways to give the same target
    "0/1 matrix": lambda problem: one_hot(problem, bool),
    "distribution": lambda problem: one_hot(problem, problem.logits.dtype),
    "CSR": lambda problem: sparse.csr_array(one_hot(problem, problem.logits.dtype)),
}
OPTIONS = [
    "none",
    "class_weight",
    "sample_weight",
    "ignore_index",
    "label_smoothing",
    "z_loss",
    "temperature",
    "where",
    "scale",
    *TARGETS,
]


def formula(
    x, y, *, class_weight=None, sample_weight=None, ignore_index=None, label_smoothing=0.0,
    z_loss=0.0, temperature=1.0, where=None, scale=1.0,
):  # fmt: skip
    """Return the mean loss and its gradient with SciPy, in float64, every option in its place."""
    x = x.astype(np.float64) / temperature
    if where is not None:
        x = np.where(where, x, -np.inf)
    takes_part = np.isfinite(x)
    target = np.eye(x.shape[1])[y]
    s = np.ones(len(x)) if sample_weight is None else sample_weight
    c = np.ones(x.shape[1]) if class_weight is None else class_weight
    if ignore_index is not None:
        s = np.where(y == ignore_index, 0, s)
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
    grad *= (np.asarray(scale) / (temperature * w.sum()))[..., None]
    return losses.sum() / w.sum(), grad


@cache
def checked(option, dtype, elements):
    """Return the call with an option, its result checked; remembered, as `cases.checked` is."""
    problem = cases.Problem(dtype, SHAPES[elements])
    x, y = problem.logits, problem.labels
    target = TARGETS[option](problem) if option in TARGETS else y
    options = keywords(option, problem)
    function = cases.public("cross_entropy_with_grad")
    call = partial(function, x, target, out=np.zeros_like(x), **options)
    try:
        loss, grad = call()
    except TypeError as error:
        raise NotImplementedError(f"{option}: {error}") from None
    expected_loss, expected_grad = formula(x, y, **options)
    tolerance = 64 * np.finfo(x.dtype).eps
    np.testing.assert_allclose(loss, expected_loss, rtol=tolerance, err_msg=option)
    scale = np.max(np.abs(expected_grad))
    np.testing.assert_allclose(
        grad, expected_grad, rtol=tolerance, atol=tolerance * scale, err_msg=option
    )
    return call


class Options:
    """Loss and gradient with an option, and their price beside the call without any."""

    params = (OPTIONS, DTYPES, [32768 * 10, 8192 * 1000])
    param_names = ("option", "dtype", "elements")
    warmup_time = 0.05
    rounds = 1
    repeat = (3, 30, 0.3)

    def setup(self, option, dtype, elements):
        self.call = checked(option, dtype, elements)

    def time_loss_and_gradient(self, option, dtype, elements):
        self.call()

    def track_price(self, option, dtype, elements):
        with_it, without = timing.shortest(self.call, checked("none", dtype, elements))
        return with_it / without

    track_price.unit = "times the plain call"
