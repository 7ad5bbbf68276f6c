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
    some_mask,
    some_masses,
)
from scipy import sparse

from cysoftmax import GradHess, cross_entropy_grad, cross_entropy_grad_hess

SHAPES = [(37, 2), (37, 10), (18, 33), (6, 130), (3, 1025)]


def weights(shape, seed=0):
    rng = np.random.default_rng(seed)
    class_weight = rng.uniform(0.2, 3, shape[-1]).astype(np.float32).astype(np.float64)
    return {"class_weight": class_weight, "sample_weight": rng.uniform(0.2, 3, shape[:-1])}


def every_option(shape, seed=0):
    """All options but ignore_index."""
    return weights(shape, seed) | {"label_smoothing": 0.1, "where": some_mask(shape, seed)}


def some_of(options):
    """None of the options, all of them, and each alone."""
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
        for options in some_of(every_option(shape)):
            for target, matrix in (labels, one_hot(labels, shape[1])), (masses, masses):
                rows = reference.cross_entropy(x, matrix, **options)
                turned = target if target.ndim == 1 else np.moveaxis(target, -1, axis)
                logits = np.moveaxis(x, -1, axis).copy()
                more = options
                if "where" in options:
                    more = options | {"where": np.moveaxis(options["where"], -1, axis)}
                got = cross_entropy_grad_hess(logits, turned, axis=axis, **more)
                grad, hess = (np.moveaxis(a, axis, -1) for a in got)
                assert_formula(0, grad, 0, rows.grad, rows.grad_size)
                error = np.abs(hess - rows.hess) / reference.ulp(rows.hess_size, dtype)
                assert error.max() <= bounds.HESS.on(isa)
                assert (hess[rows.hess_size == 0] == 0).all()


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
    x, options = some_logits(shape, dtype), every_option(shape)
    labels, masses = some_labels(shape[0], shape[1]), some_masses(shape)
    for target in labels, masses, sparse.csr_array(masses):
        want = cross_entropy_grad(x, target, reduction="sum", **options)
        got = cross_entropy_grad_hess(x, target, **options).grad
        unit = np.finfo(dtype).eps * np.max(np.abs(want), axis=-1, keepdims=True)
        assert (np.abs(got - want) <= 4 * unit).all()


@pytest.mark.parametrize("shape", [(6, 5), (6, 40), (20, 3)])
def test_the_hessian_is_the_second_derivative_of_the_loss(shape, isa):
    """By differences of the loss of the reference, in long double."""
    x, h = some_logits(shape), np.longdouble(2) ** -14
    labels, masses = some_labels(shape[0], shape[1]), some_masses(shape)
    for options in some_of(every_option(shape)):
        for matrix in one_hot(labels, shape[1]), masses:
            if "where" in options:  # otherwise the loss is inf
                matrix = matrix * options["where"]
            got = cross_entropy_grad_hess(x, matrix, **options).hess
            for c in range(shape[1]):
                step = h * (np.arange(shape[1]) == c)
                moved = [x.astype(np.longdouble) + k * step for k in (-1, 0, 1)]
                below, here, above = (loss_of(z, matrix, options) for z in moved)
                want = (below - 2 * here + above) / h**2
                np.testing.assert_allclose(got[:, c], want.astype(float), rtol=1e-6, atol=1e-7)


def loss_of(x, matrix, options):
    """The loss of each row, of long doubles."""
    return reference.cross_entropy(x, matrix, **options).loss


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [4, 40, 1100, 70_000])
def test_masked_entries_are_zero_even_in_a_row_that_is_nan(n_classes, dtype, isa):
    n_rows = 20 if n_classes < 70_000 else 3
    x, where = some_logits((n_rows, n_classes), dtype), some_mask((n_rows, n_classes))
    where[:, 0], where[1] = True, False
    x[0, 0], x[2, 0] = np.nan, np.inf
    for junk in np.nan, np.inf, np.finfo(dtype).max:
        x[~where] = junk
        labels = np.zeros(n_rows, int)
        for target in (
            labels,
            one_hot(labels, n_classes),
            sparse.csr_array(one_hot(labels, n_classes)),
        ):
            for logits in x, np.asfortranarray(x):
                for result in cross_entropy_grad_hess(logits, target, where=where):
                    assert (result[~where] == 0).all()
                    assert np.isnan(result[0][where[0]]).all()
                    assert np.isnan(result[2][where[2]]).all()
                    assert np.isfinite(result[3:]).all()


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [4, 40, 1100, 70_000])
def test_ignored_labels_leave_no_trace(n_classes, dtype, isa):
    n_rows = 20 if n_classes < 70_000 else 3
    ignored = np.arange(n_rows) % 2 == 1
    x, labels = some_logits((n_rows, n_classes), dtype), some_labels(n_rows, n_classes)
    x[ignored], labels[ignored] = np.nan, -100
    for options in {}, {"label_smoothing": 0.1}:
        want = cross_entropy_grad_hess(x[~ignored], labels[~ignored], **options)
        for logits in x, np.asfortranarray(x):
            got = cross_entropy_grad_hess(logits, labels, ignore_index=-100, **options)
            for result, exact in zip(got, want, strict=True):
                assert_same_bits(result[~ignored], exact)
                assert_same_bits(result[ignored], np.zeros_like(result[ignored]))


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
        (TypeError, r"z_loss", {"z_loss": 0.1}),
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
