"""The formulas of the contract in mpmath, whose numbers have any exponent: for extreme weights.

A row is a list of classes, each of them with the number of times that it occurs. Nothing here
comes from the library, and nothing is a difference of nearly equal numbers.
"""

from functools import cache
from typing import NamedTuple

import mpmath
import numpy as np

MP = mpmath.mp.clone()
MP.prec = 120


def number(value):
    """A number as it is, without another rounding."""
    return MP.mpf(value if isinstance(value, int) else float(value))


class Row(NamedTuple):
    """Loss, weight and s a of a row; of each class, the gradient, its largest term, the Hessian."""

    loss: object
    weight: object
    mass: object
    grad: list
    size: list
    hess: list


def row(x, target, counts, class_weight=None, sample_weight=1, label_smoothing=0, z_loss=0,
        temperature=1, where=None, tiny=0):  # fmt: skip
    """Return the Row. A probability counts as `tiny` in `size` if it is smaller."""
    n = range(len(x))
    where = [True] * len(x) if where is None else where
    omega = [number(1)] * len(x) if class_weight is None else [number(c) for c in class_weight]
    T, s, e = [number(t) for t in target], number(sample_weight), number(label_smoothing)
    z, tau = number(z_loss), number(temperature)
    if s == 0 or not any(T) or not any(where):
        return Row(*[number(0)] * 3, *[[number(0)] * len(x)] * 3)
    shift = max(number(x[c]) for c in n if where[c])
    d = [(number(x[c]) - shift) / tau if where[c] else -MP.inf for c in n]
    exps = [MP.exp(v) for v in d]

    def total(values):
        return MP.fsum(counts[c] * values[c] for c in n)

    def others(values, c):
        rest = MP.fsum(counts[k] * values[k] for k in n if k != c)
        return rest + (counts[c] - 1) * values[c]

    S, top = total(exps), exps.index(1)
    log_total = MP.log1p(others(exps, top))
    K = sum(counts[c] for c in n if where[c])
    A = [omega[c] * ((1 - e) * T[c] + (e * total(T) / K if where[c] else 0)) for c in n]
    a, w, lse = total(A), s * total([omega[c] * T[c] for c in n]), shift / tau + log_total
    loss = s * MP.fsum(counts[c] * A[c] * (log_total - d[c]) for c in n if A[c] != 0)
    push = 2 * w * z * lse
    grad, size, hess = [], [], []
    for c in n:
        pull = s * (others(A, c) * exps[c] - A[c] * others(exps, c)) / S
        most = max((s * a + abs(push)) * max(exps[c] / S, tiny), s * A[c])
        grad.append((pull + push * exps[c] / S) / tau if where[c] else number(0))
        size.append(most / tau if where[c] else number(0))
        hess.append(s * a * exps[c] * others(exps, c) / S**2)
    return Row(loss + w * z * lse**2, w, s * a, grad, size, hess)


def reduced(rows, reduction, scales):
    """Return loss (of each row if not reduced), gradients and their sizes for a reduction."""
    factors = [number(scale) for scale in scales]
    loss = [r.loss for r in rows]
    if reduction != "none":
        loss = MP.fsum(loss)
    if reduction == "mean":
        weight = MP.fsum(r.weight for r in rows)
        loss, factors = loss / weight, [f / weight for f in factors]
    pairs = list(zip(rows, factors, strict=True))
    grad = [[f * g for g in r.grad] for r, f in pairs]
    return loss, grad, [[abs(f) * g for g in r.size] for r, f in pairs]


class Limits(NamedTuple):
    """The largest number of a dtype, its smallest normal one, and its epsilon."""

    largest: object
    tiny: object
    eps: object


@cache
def limits(dtype):
    """Return the Limits of a dtype."""
    if dtype.name == "bfloat16":  # whose finfo NumPy does not know
        two = number(2)
        return Limits(two**128 * (1 - two**-8), two**-126, two**-7)
    info = np.finfo(dtype)
    return Limits(number(info.max), number(info.tiny), number(info.eps))


def assert_close(got, want, size, dtype, ulps, message):
    """`got` differs from `want` by at most that many ulp of `size`; beyond the dtype it is
    infinite."""
    largest, tiny, eps = limits(dtype)
    got, tolerance = float(got), ulps * eps * max(tiny, size)
    if abs(want) > largest + tolerance:
        assert got == (np.inf if want > 0 else -np.inf), f"{message}: {got}, not {want}"
    elif abs(want) < largest - tolerance or np.isfinite(got):
        assert np.isfinite(got), f"{message}: {got}, not {want}"
        error = abs(number(got) - want) / tolerance * ulps
        assert error <= ulps, f"{message}: {got}, not {MP.nstr(want, 17)}; {MP.nstr(error, 4)} ulp"
