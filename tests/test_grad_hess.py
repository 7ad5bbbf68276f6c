"""The gradient and the diagonal of the Hessian, for boosting and Newton's method."""

import bounds
import numpy as np
import pytest
import reference
from cases import (
    REAL,
    assert_formula,
    assert_same_bits,
    one_hot,
    some_labels,
    some_logits,
    some_masses,
)
from scipy import sparse

from cysoftmax import GradHess, cross_entropy_grad, cross_entropy_grad_hess

SHAPES = [(37, 2), (37, 10), (18, 33), (6, 130), (3, 1025)]


def weights(shape, seed=0):
    rng = np.random.default_rng(seed)
    class_weight = rng.uniform(0.2, 3, shape[-1]).astype(np.float32).astype(np.float64)
    return {"class_weight": class_weight, "sample_weight": rng.uniform(0.2, 3, shape[:-1])}


def some_of(options):
    """Each of the four choices of the two options."""
    yield {}
    yield options
    for name, value in options.items():
        yield {name: value}


def test_one_row_by_hand(isa):
    x = np.log(np.array([[1.0, 2, 5]]))  # p = 1/8, 1/4, 5/8
    got = cross_entropy_grad_hess(x, [1], class_weight=[5, 2, 7], sample_weight=[3])
    assert isinstance(got, GradHess)
    grad, hess = got
    assert got.grad is grad
    assert got.hess is hess
    np.testing.assert_allclose(grad, [[6 / 8, -18 / 4, 30 / 8]], rtol=1e-15)
    np.testing.assert_allclose(hess, [[6 * 7 / 64, 6 * 3 / 16, 6 * 15 / 64]], rtol=1e-15)
    grad, hess = cross_entropy_grad_hess(x, [[0, 0.5, 1.5]])
    np.testing.assert_allclose(grad, [[2 / 8, 0, 10 / 8 - 1.5]], rtol=1e-14, atol=1e-16)
    np.testing.assert_allclose(hess, [[2 * 7 / 64, 2 * 3 / 16, 2 * 15 / 64]], rtol=1e-15)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("shape", SHAPES)
def test_both_are_within_their_bounds(shape, axis, dtype, isa):
    for spread in 1, 10:
        x = spread * some_logits(shape, dtype)
        labels, masses = some_labels(shape[0], shape[1]), some_masses(shape)
        for options in some_of(weights(shape)):
            for target, matrix in (labels, one_hot(labels, shape[1])), (masses, masses):
                rows = reference.cross_entropy(x, matrix, **options)
                turned = target if target.ndim == 1 else np.moveaxis(target, -1, axis)
                logits = np.moveaxis(x, -1, axis).copy()
                got = cross_entropy_grad_hess(logits, turned, axis=axis, **options)
                grad, hess = (np.moveaxis(a, axis, -1) for a in got)
                assert_formula(0, grad, 0, rows.grad, rows.grad_size)
                error = np.abs(hess - rows.hess) / reference.ulp(rows.hess_size, dtype)
                assert error.max() <= bounds.HESS.on(isa)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [2, 3, 10, 33, 1000, 40_000])
def test_the_hessian_keeps_its_accuracy_in_confident_rows(n_classes, dtype, isa):
    x = some_logits((16, n_classes), dtype) / 3
    labels = np.full(16, n_classes // 2)
    x[np.arange(16), labels] = np.linspace(10, 80, 16)
    for given in labels, (labels + 1) % n_classes, one_hot(labels, n_classes):
        matrix = given if given.ndim == 2 else one_hot(given, n_classes)
        rows = reference.cross_entropy(x, matrix)
        grad, hess = cross_entropy_grad_hess(x, given)
        assert reference.error_in_ulp(hess, rows.hess) <= bounds.HESS.on(isa)
        assert_formula(0, grad, 0, rows.grad, rows.grad)
        assert (hess[:, n_classes // 2] > 0).all()


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_gradient_is_that_of_the_sum_of_the_losses(shape, dtype, isa):
    x, options = some_logits(shape, dtype), weights(shape)
    labels, masses = some_labels(shape[0], shape[1]), some_masses(shape)
    for target in labels, masses, sparse.csr_array(masses):
        want = cross_entropy_grad(x, target, reduction="sum", **options)
        got = cross_entropy_grad_hess(x, target, **options).grad
        unit = np.finfo(dtype).eps * np.max(np.abs(want), axis=-1, keepdims=True)
        assert (np.abs(got - want) <= 4 * unit).all()


@pytest.mark.parametrize("kind", [tuple, list])
def test_out_is_a_pair_of_arrays(kind):
    x, target = some_logits((20, 5)), some_labels(20, 5)
    pair = np.empty_like(x), np.empty_like(x)
    got = cross_entropy_grad_hess(x, target, out=kind(pair))
    assert got.grad is pair[0]
    assert got.hess is pair[1]
    for result, want in zip(got, cross_entropy_grad_hess(x, target), strict=True):
        assert_same_bits(result, want)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [4, 40, 1100])
def test_rows_of_weight_zero_and_rows_of_zeros_leave_no_trace(n_classes, dtype, isa):
    x = some_logits((20, n_classes), dtype)
    x[[2, 5]] = np.nan
    matrix, weight = one_hot(some_labels(20, n_classes), n_classes), np.ones(20)
    weight[2], matrix[5] = 0, 0
    for target in matrix, sparse.csr_array(matrix):
        for logits in x, np.asfortranarray(x):
            for result in cross_entropy_grad_hess(logits, target, sample_weight=weight):
                assert_same_bits(result[[2, 5]], np.zeros((2, n_classes), dtype))
                assert np.isfinite(result).all()


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [4, 40, 1100])
def test_special_values_are_those_of_the_formula(n_classes, dtype, isa):
    x = some_logits((20, n_classes), dtype)
    x[0, 1], x[1, 2], x[2], x[3, 3] = np.nan, np.inf, -np.inf, -np.inf
    for target in np.zeros(20, int), one_hot(np.zeros(20, int), n_classes):
        for result in cross_entropy_grad_hess(x, target):
            assert np.isnan(result[:3]).all()
            assert np.isfinite(result[3:]).all()
            assert result[3, 3] == 0
    one = cross_entropy_grad_hess(np.full((20, 1), 3, dtype), np.zeros(20, int))
    for result in one:
        assert_same_bits(np.abs(result), np.zeros((20, 1), dtype))
    empty = cross_entropy_grad_hess(np.empty((0, 4), dtype), np.empty(0, int))
    for result in empty:
        assert result.shape == (0, 4)


# ---------------------------------------------------------------- errors

X, Y = np.zeros((3, 4)), np.array([0, 1, 2])


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (TypeError, r"^out must be a pair .*; got ndarray", {"out": np.zeros((3, 4))}),
        (TypeError, r"^out must be a pair .*; got ", {"out": 1.0}),
        (TypeError, r"^out must be a pair .*; got ", {"out": (np.zeros((3, 4)),)}),
        (TypeError, r"^out must be a pair .*; got ", {"out": (np.zeros((3, 4)),) * 3}),
        (ValueError, r"^out.* must have shape \(3, 4\); got .*\(4, 3\)",
         {"out": (np.zeros((3, 4)), np.zeros((4, 3)))}),
        (ValueError, r"^out.* must have shape \(3, 4\); got .*\(3,\)",
         {"out": (np.zeros(3), np.zeros((3, 4)))}),
        (TypeError, r"^out.* must have dtype float64; got float32",
         {"out": (np.zeros((3, 4)), np.zeros((3, 4), np.float32))}),
        (TypeError, r"^out must be .*; got ", {"out": (np.zeros((3, 4)), None)}),
        (TypeError, r"^out must be .*; got ", {"out": ([], np.zeros((3, 4)))}),
        (ValueError, r"^class_weight must .*; got .*\(3,\)", {"class_weight": np.ones(3)}),
        (ValueError, r"^sample_weight must .*; got .*\(4,\)", {"sample_weight": np.ones(4)}),
        (ValueError, r"^sample_weight must .*; got -1", {"sample_weight": [1, -1, 1]}),
        (ValueError, r"^axis must .*; got 2", {"axis": 2}),
        (ValueError, r"^n_threads must .*; got 0", {"n_threads": 0}),
        (TypeError, r"reduction", {"reduction": "sum"}),
        (TypeError, r"where", {"where": None}),
    ],
)  # fmt: skip
def test_a_wrong_argument_has_its_error(error, message, options):
    with pytest.raises(error, match=message):
        cross_entropy_grad_hess(X, Y, **options)


def test_a_pair_that_is_read_only_or_the_same_array_twice_is_a_value_error():
    read_only, array = np.zeros((3, 4)), np.zeros((3, 4))
    read_only.flags.writeable = False
    for pair in (read_only, array), (array, read_only):
        with pytest.raises(ValueError, match=r"^out.* must be writeable; got a read-only array"):
            cross_entropy_grad_hess(X, Y, out=pair)
    memory = np.zeros((5, 4))
    for pair in (array, array), (array, array[:]), (memory[:3], memory[2:]):
        with pytest.raises(ValueError, match=r"^out must .*"):
            cross_entropy_grad_hess(X, Y, out=pair)
