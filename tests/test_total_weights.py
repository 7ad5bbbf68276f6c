"""What all rows weigh together, by which a mean is divided."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse

import cysoftmax
from cysoftmax import _calls

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


def layouts(target):
    """Yield the same numbers as they may lie in memory."""
    yield "contiguous", target
    yield "strided", np.repeat(target, 2, axis=1)[:, ::2]
    yield "classes first", np.asfortranarray(target)
    yield "rows apart", np.repeat(target, 3, axis=0)[::3]
    if target.dtype != np.float16:  # SciPy has no sparse ones
        yield "sparse", scipy.sparse.csr_array(target)


def total(target, dtype, n_threads=1):
    """Return the total mass as the core finds it, exactly."""
    part, exponent = _calls.check_loss_of_chunks(
        target.shape, dtype, target, _calls.make_options(), "mean", 1.0, (), n_threads
    )[3]
    return Fraction(part) * Fraction(2) ** exponent


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 2), (17, 3), (200, 40), (40, 300), (3, 1024), (3, 1025)])
@pytest.mark.parametrize("kind", MASSES)
def test_the_total_is_right_and_has_the_same_bits_in_every_layout(kind, shape, dtype):
    rng = np.random.default_rng(list(kind.encode()))
    target = MASSES[kind](rng, shape).astype(dtype)
    expected = sum(map(Fraction, target.ravel().tolist()))
    found = total(target, dtype)
    assert abs(found - expected) <= expected * Fraction(2) ** -51
    for layout, same in layouts(target):
        for n_threads in (1, 2):
            assert total(same, dtype, n_threads) == found, (layout, n_threads)


WEIGHTS = {
    "plain": lambda rng, shape: {},
    "class_weight": lambda rng, shape: {"class_weight": rng.uniform(0, 3, shape[1])},
    "sample_weight": lambda rng, shape: {"sample_weight": rng.uniform(0, 3, shape[0])},
    "extreme": lambda rng, shape: {"sample_weight": 2.0 ** rng.uniform(-1070, 1000, shape[0])},
    "where": lambda rng, shape: {"where": rng.random(shape) < 0.9},
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 2), (200, 40), (70, 1025)])
@pytest.mark.parametrize("options", WEIGHTS)
@pytest.mark.parametrize("kind", ["labels", *MASSES])
def test_rows_cut_anywhere_have_the_total_of_all(kind, options, shape, dtype):
    rng = np.random.default_rng(list(kind.encode()))
    if kind == "labels":
        target = rng.integers(0, shape[1], shape[0])
    else:
        target = MASSES[kind](rng, shape).astype(dtype)
    given = WEIGHTS[options](rng, shape)

    def weights(begin, end):
        some = {n: a if n == "class_weight" else a[begin:end] for n, a in given.items()}
        return _calls.weights_of_targets(
            (end - begin, shape[1]), dtype, target[begin:end], 1, _calls.make_options(**some)
        )

    want = _calls.check_loss_of_chunks(
        shape, dtype, target, _calls.make_options(**given), "mean", 1.0, (), 1
    )[3]
    for n_cuts in (0, 1, 9):
        cuts = [0, *np.sort(rng.integers(0, shape[0] + 1, n_cuts)), shape[0]]
        parts = [weights(begin, end) for begin, end in pairwise(cuts)]
        assert _calls.total_of_rows(np.concatenate(parts, axis=1)) == want


@pytest.mark.parametrize("of", [np.bool_, np.int8, np.uint16, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_total_of_any_dtype_is_that_of_reals(dtype, of):
    target = np.eye(40)[np.random.default_rng(0).integers(0, 40, 300)].astype(of)
    for layout, same in layouts(target):
        assert total(same, dtype) == 300, layout
    if np.issubdtype(of, np.floating):
        target = (np.random.default_rng(1).uniform(0, 1, (100, 40))).astype(of)
        for layout, same in layouts(target):
            assert total(same, dtype) == total(target.astype(dtype), dtype), layout


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", MASSES)
def test_a_mean_is_that_of_its_rows_over_the_total(kind, dtype):
    """Also without a gradient, where weights are added up in the same pass as losses."""
    rng = np.random.default_rng(list(kind.encode()))
    target, logits = MASSES[kind](rng, (100, 40)).astype(dtype), rng.normal(size=(100, 40))
    logits = logits.astype(dtype)
    loss = cysoftmax.cross_entropy(logits, target)
    whole = cysoftmax.cross_entropy(logits, target, reduction="sum")
    assert loss == pytest.approx(whole / float(total(target, dtype)), rel=2.0**-51)
    for _, same in layouts(target):
        for n_threads in (1, 2):
            assert cysoftmax.cross_entropy(logits, same, n_threads=n_threads) == loss
            assert cysoftmax.cross_entropy_with_grad(logits, same, n_threads=n_threads).loss == loss


def sum_to_1_but(rows, masses):
    """Probabilities, of which some rows are replaced."""

    def make(rng, shape):
        target = rng.dirichlet(np.ones(shape[1]), shape[0])
        target[rows] = masses
        return target

    return make


# Rows that are looked at sum to 1, and so a mean may be divided by the number of rows before the
# sum of all is known. An array that takes the place of the logits is not: it has what is right.
EXPECTED_TO_SUM_TO_1 = {
    "they all do": sum_to_1_but(slice(0), 0),
    "one does not": sum_to_1_but(-1, 0.5),
    "one at the beginning does not": sum_to_1_but(17, 0.5),
    "rounding errors favour one side": lambda rng, shape: np.full(shape, np.float32(1 / 5)),
    "nearly": sum_to_1_but(-1, 1 / 5 + 1e-6),
    "most are empty": sum_to_1_but(slice(20, None), 0),
    "most are small": sum_to_1_but(slice(20, None), 1e-30),
    "one is NaN": sum_to_1_but(77, np.nan),
    "they cancel": sum_to_1_but(slice(100, 200), -1 / 5),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", EXPECTED_TO_SUM_TO_1)
def test_a_wrong_guess_of_the_weight_is_not_to_be_seen(kind, dtype):
    rng = np.random.default_rng(0)
    shape = 33_000, 5
    logits = rng.standard_normal(shape).astype(dtype)
    target = EXPECTED_TO_SUM_TO_1[kind](rng, shape).astype(dtype)
    loss = cysoftmax.cross_entropy(logits, target)
    in_place = cysoftmax.cross_entropy_grad(logits, target, out=logits.copy())
    weights = target.astype(float).sum(axis=1)
    for layout, same in layouts(target):
        for n_threads in (1, 2):
            for x in logits, np.asfortranarray(logits):
                got = cysoftmax.cross_entropy_with_grad(x, same, n_threads=n_threads)
                assert np.array_equal([got.loss], [loss], equal_nan=True), layout
                assert np.array_equal(got.grad, in_place, equal_nan=True), layout
                x = x.copy(order="K")
                got = cysoftmax.cross_entropy_with_grad(x, same, out=x, n_threads=n_threads)
                assert np.array_equal(got.grad, in_place, equal_nan=True), layout
    rows = cysoftmax.cross_entropy_grad(logits, target, reduction="none")
    np.testing.assert_allclose(in_place, rows / weights.sum(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_total_of_0_is_found_where_the_number_of_rows_was_expected(dtype):
    logits = np.random.default_rng(0).standard_normal((33_000, 4)).astype(dtype)
    target = np.full((33_000, 4), 0.25, dtype)
    target[-1] = [-32_999, 0, 0, 0]
    for x in logits, np.asfortranarray(logits):
        got = cysoftmax.cross_entropy_with_grad(x, target)
        assert np.isnan(got.loss)
        assert not got.grad.any()


def test_a_weight_near_the_number_of_rows_counts_as_that():
    logits = np.random.default_rng(0).standard_normal((5000, 4)).astype(np.float32)
    target = np.full((5000, 4), 0.25, np.float32)
    divided_by_5000 = cysoftmax.cross_entropy_grad(
        logits, target, reduction="sum", scale=1 / 5000
    )  # fmt: skip
    for ulps, near in (
        (0, True),
        (16, True),
        (600, True),
        (650, False),
    ):  # 2^-29 of 5000: 625 of them
        target[4999, 0] = 0.25 + ulps * 2.0**-26
        grad = cysoftmax.cross_entropy_grad(logits, target)
        assert np.array_equal(grad[:4999], divided_by_5000[:4999]) == near
        loss = cysoftmax.cross_entropy(logits, target, reduction="sum")
        exact = Fraction(loss) / (5000 + Fraction(ulps, 2**26))
        assert abs(Fraction(cysoftmax.cross_entropy(logits, target)) - exact) <= exact / 2**51
