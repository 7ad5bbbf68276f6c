"""What distributions weigh together, by which a mean is divided: whatever their order, exactly.

The logits are 0 for class 0 and -1000 for the others, so that log(sum(exp)) is 0, and one row alone
has a mass that is not on class 0: the mean loss is 1000 over the total mass.
"""

from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse

import cysoftmax

MASSES = {
    "probabilities": lambda rng, shape: rng.dirichlet(np.ones(shape[1]), shape[0]),
    "ones": lambda rng, shape: np.eye(shape[1])[rng.integers(0, shape[1], shape[0])],
    "many magnitudes": lambda rng, shape: 2.0 ** rng.uniform(-60, 0, shape),
    "of both signs": lambda rng, shape: rng.uniform(-0.4, 1, shape),
    "counts": lambda rng, shape: rng.integers(0, 50, shape).astype(float),
    "small": lambda rng, shape: rng.uniform(0, 1e-6, shape),
    "small in some rows": lambda rng, shape: (
        rng.uniform(0, 1, shape) * (2.0 ** -rng.integers(0, 40, (shape[0], 1)))
    ),
    "with empty rows": lambda rng, shape: (
        rng.uniform(0, 1, shape) * (rng.random((shape[0], 1)) < 0.5)
    ),
}


def one_row_off_class_0(masses):
    """Move the mass of all rows but the first to class 0; give that a mass of 1 on the last."""
    target = np.zeros_like(masses)
    target[:, 0] = masses.sum(axis=1, dtype=masses.dtype)
    target[0] = 0
    target[0, -1] = 1
    return target


def loss_of_mean(target, layout, n_threads):
    logits = np.full(target.shape, -1000, target.dtype)
    logits[:, 0] = 0
    if layout == "strided":
        target = np.repeat(target, 2, axis=1)[:, ::2]
    elif layout == "classes first":
        target, logits = np.asfortranarray(target), np.asfortranarray(logits)
    elif layout == "sparse":
        target = scipy.sparse.csr_array(target)
    loss = cysoftmax.cross_entropy(logits, target, n_threads=n_threads)
    assert cysoftmax.cross_entropy_with_grad(logits, target, n_threads=n_threads).loss == loss
    return loss


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 2), (17, 3), (200, 40), (40, 300), (3, 1024), (3, 1025)])
@pytest.mark.parametrize("kind", MASSES)
def test_a_mean_is_divided_by_the_exact_total(kind, shape, dtype):
    rng = np.random.default_rng(list(kind.encode()))
    target = one_row_off_class_0(MASSES[kind](rng, shape).astype(dtype))
    total = sum(map(Fraction, target.ravel().tolist()))
    for layout in ("contiguous", "strided", "classes first", "sparse"):
        for n_threads in (1, 2):
            loss = loss_of_mean(target, layout, n_threads)
            assert loss == pytest.approx(float(1000 / total), rel=2.0**-51), (layout, n_threads)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", MASSES)
def test_the_total_has_the_same_bits_in_every_layout_and_order(kind, dtype):
    rng = np.random.default_rng(list(kind.encode()))
    target = one_row_off_class_0(MASSES[kind](rng, (100, 40)).astype(dtype))
    expected = loss_of_mean(target, "contiguous", 1)
    for layout in ("strided", "classes first", "sparse"):
        assert loss_of_mean(target, layout, 2) == expected, layout
    # Class 0 split among classes whose logits are the same: the same masses in another order.
    logits = np.zeros((100, 40), dtype)
    logits[:, -1] = -1000
    spread = np.zeros_like(target)
    spread[np.arange(100), rng.integers(0, 39, 100)] = target[:, 0]
    spread[:, -1] = target[:, -1]
    again = np.roll(spread[:, :-1], 5, axis=1)
    pair = [
        cysoftmax.cross_entropy(logits, masses)
        for masses in (spread, np.column_stack([again, spread[:, -1]]))
    ]
    assert pair[0] == pair[1]
