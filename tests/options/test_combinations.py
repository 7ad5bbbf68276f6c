"""One formula, whatever the target is, in every combination of the options."""

import itertools

import bounds
import numpy as np
import pytest
import reference
from cases import (
    REAL,
    REDUCTIONS,
    assert_formula,
    assert_same_bits,
    assert_same_results,
    one_hot,
    problem,
    results,
    some_labels,
    some_logits,
    some_masses,
    some_options,
    some_scale,
)
from scipy import sparse

from cysoftmax import _core, cross_entropy, cross_entropy_grad, cross_entropy_with_grad

# Rows in sixteens and not, whole and broken vecs, more than one block of classes.
SHAPES = [(19, 10, -1), (19, 10, 0), (5, 33, -1), (5, 130, -1), (5, 130, 0), (5, 1025, -1)]
SHAPES_FOR_EACH_ISA = [(19, 10, -1), (5, 33, -1)]
IGNORED = -100


def combinations(n_rows, n_classes):
    """Yield each combination of the options that change the rows, and what comes with it."""
    full = some_options((n_rows, n_classes))
    labels = some_labels(n_rows, n_classes)
    labels[2] = n_classes - 1
    full["where"][np.arange(n_rows - 1), labels[:-1]] = True
    for smoothing, z_loss, temperature, ignoring, *given in itertools.product(
        (0, 0.1, 1), (0, 1e-2), (1, 0.7, 3), (False, True), *[(False, True)] * 3
    ):
        names = itertools.compress(("class_weight", "sample_weight", "where"), given)
        options = {name: full[name] for name in names}
        options |= {"label_smoothing": smoothing, "z_loss": z_loss, "temperature": temperature}
        y = labels.copy()
        if ignoring:
            y[0] = IGNORED
        yield y, {"ignore_index": IGNORED} if ignoring else {}, options


def walk(n_rows, n_classes, axis, dtype):
    """Compare all targets and functions in every combination; return the largest errors.

    These are of losses and gradients, in ulp of the sum of the magnitudes of their terms.
    """
    last = some_logits((n_rows, n_classes), dtype)
    last[2, -1] += 30  # a confident row that is right
    last[3, 0] += 30
    x = np.ascontiguousarray(np.moveaxis(last, -1, axis))
    scales = {"one": 1.0, "rows": some_scale(last.shape)}
    worst_loss = worst_grad = 0
    for y, ignore, options in combinations(n_rows, n_classes):
        matrix = one_hot(y, n_classes, bool)
        rows = reference.cross_entropy(last, matrix, **options)
        turned = np.moveaxis(matrix, -1, axis)
        targets = [turned, turned.astype(np.int8, order="C"), turned.astype(dtype, order="F")]
        if axis == -1:
            targets.append(sparse.csr_array(matrix.astype(float)))
        if "where" in options:
            options = options | {"where": np.moveaxis(options["where"], -1, axis)}
        for reduction in REDUCTIONS:
            given = options | {"axis": axis, "reduction": reduction}
            for scale in scales.values():
                loss, grad = cross_entropy_with_grad(x, y, scale=scale, **given, **ignore)
                exact_loss, exact_grad, size = reference.reduced(rows, reduction, scale)
                error = np.abs(np.asarray(loss, np.longdouble) - exact_loss)
                error = np.max(error / reference.ulp(exact_loss, dtype))
                worst_loss = max(worst_loss, error)
                error = np.abs(np.moveaxis(grad, axis, -1) - exact_grad)
                worst_grad = max(worst_grad, np.max(error / reference.ulp(size, dtype)))
                assert (error[size == 0] == 0).all()

                want_loss, want_grad = np.asarray(loss).tobytes(), grad.tobytes()
                for target in (y, *targets):
                    more = given | (ignore if target is y else {})
                    if target is not y:
                        loss, grad = cross_entropy_with_grad(x, target, scale=scale, **more)
                        assert np.asarray(loss).tobytes() == want_loss, more
                        assert grad.tobytes() == want_grad, more
                    grad = cross_entropy_grad(x, target, scale=scale, **more)
                    assert grad.tobytes() == want_grad, more
            for target in (y, *targets):
                more = given | (ignore if target is y else {})
                loss = cross_entropy(x, target, **more)
                assert np.asarray(loss).tobytes() == want_loss, more
    return float(worst_loss), float(worst_grad)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("shape", SHAPES)
def test_all_targets_give_the_same_bits_and_the_formula_in_every_combination(shape, dtype):
    worst_loss, worst_grad = walk(*shape, dtype)
    assert worst_loss <= bounds.LOSS_WITH_OPTIONS.on(_core.active_isa())
    assert worst_grad <= bounds.GRAD_WITH_OPTIONS.on(_core.active_isa())


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("shape", SHAPES_FOR_EACH_ISA)
def test_every_instruction_set_follows_the_formula_in_every_combination(shape, dtype, isa):
    if isa == _core.available_isas()[0]:
        pytest.skip("the one of the test above")
    worst_loss, worst_grad = walk(*shape, dtype)
    assert worst_loss <= bounds.LOSS_WITH_OPTIONS.on(_core.active_isa())
    assert worst_grad <= bounds.GRAD_WITH_OPTIONS.on(_core.active_isa())


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("n_classes", [3, 40, 1100])
def test_a_distribution_gets_the_formula_with_all_options(n_classes, axis, dtype, isa):
    x = some_logits((19, n_classes), dtype)
    options = some_options(x.shape)
    target = some_masses(x.shape) * options["where"]
    scale = some_scale(x.shape)
    rows = reference.cross_entropy(x, target, **options)
    options["where"] = np.moveaxis(options["where"], -1, axis)
    turned, turned_target = (np.moveaxis(a, -1, axis).copy() for a in (x, target))
    for reduction in REDUCTIONS:
        got = results(turned, turned_target, axis=axis, reduction=reduction, scale=scale, **options)
        loss, grad, size = reference.reduced(rows, reduction, scale)
        assert_formula(got["loss"], np.moveaxis(got["grad"], axis, -1), loss, grad, size)
        assert_same_bits(got["loss alone"], got["loss"])
        assert_same_bits(got["grad alone"], got["grad"])
        if axis == -1:
            of_sparse = results(
                x, sparse.csr_array(target), reduction=reduction, scale=scale, **options
            )
            assert_same_results(of_sparse, got)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_threads", [1, 2, 7])
def test_long_rows_get_the_formula_with_all_options(n_threads, dtype, isa):
    x, labels, options = problem((2, 70_000), dtype)
    scale = options.pop("scale")
    matrix = one_hot(labels, 70_000)
    got = results(x, labels, reduction="none", scale=scale, n_threads=n_threads, **options)
    for target in matrix, sparse.csr_array(matrix):
        assert_same_results(
            results(x, target, reduction="none", scale=scale, n_threads=n_threads, **options), got
        )
    rows = reference.cross_entropy(x, matrix, **options)
    loss, grad, size = reference.reduced(rows, "none", scale)
    assert_formula(got["loss"], got["grad"], loss, grad, size)


def test_the_gradient_is_the_slope_of_the_loss_with_all_options_at_once():
    x = some_logits((4, 6))
    options = some_options(x.shape)
    options["where"][0] = [True, True, False, True, True, True]
    target = some_masses(x.shape, 1) * options["where"]
    labels = [0, 5, 3, -100]
    for given, more in (target, {}), (labels, {"ignore_index": -100}):
        for reduction in "mean", "sum":
            chosen = options | {"reduction": reduction} | more
            chosen["where"] = chosen["where"] | one_hot(labels, 6, bool)
            grad = cross_entropy_grad(x, given, scale=1.7, **chosen)
            slope = np.zeros_like(x)
            for place in np.ndindex(x.shape):
                step = np.zeros_like(x)
                step[place] = 1e-5
                above = cross_entropy(x + step, given, **chosen)
                slope[place] = 1.7 * (above - cross_entropy(x - step, given, **chosen)) / 2e-5
            assert np.abs(grad).max() > 0.1
            np.testing.assert_allclose(grad, slope, rtol=1e-7, atol=1e-9)


# ---------------------------------------------------------------- options one by one, by hand

# p = (1/8, 1/4, 5/8)
X = np.log(np.array([[1.0, 2, 5]]))
P = np.array([[1 / 8, 1 / 4, 5 / 8]])
MATRIX = np.array([[0, 1, 0]])


@pytest.mark.parametrize(
    ("options", "loss", "grad"),
    [
        ({"class_weight": [5, 2, 7]}, 2 * np.log(4), 2 * (P - MATRIX)),
        ({"sample_weight": [3]}, 3 * np.log(4), 3 * (P - MATRIX)),
        ({"sample_weight": 3}, 3 * np.log(4), 3 * (P - MATRIX)),
        (
            {"label_smoothing": 0.75},
            np.log(8) / 4 + np.log(4) / 2 + np.log(8 / 5) / 4,
            P - [1 / 4, 1 / 2, 1 / 4],
        ),
        (
            {"label_smoothing": 0.75, "class_weight": [4, 1, 0]},
            np.log(8) + np.log(4) / 2,
            1.5 * P - [1, 1 / 2, 0],
        ),
        ({"z_loss": 0.5}, np.log(4) + np.log(8) ** 2 / 2, (1 + np.log(8)) * P - MATRIX),
        ({"temperature": 0.5}, np.log(30 / 4), 2 * (np.array([[1, 4, 25]]) / 30 - MATRIX)),
        ({"where": [True, True, False]}, np.log(3 / 2), [[1 / 3, -1 / 3, 0]]),
        (
            {"where": [True, True, False], "label_smoothing": 0.5},
            0.75 * np.log(3 / 2) + 0.25 * np.log(3),
            [[1 / 3 - 1 / 4, 2 / 3 - 3 / 4, 0]],
        ),
        ({"scale": [-2]}, np.log(4), -2 * (P - MATRIX)),
    ],
)
def test_one_row_by_hand(options, loss, grad, isa):
    for target in [1], MATRIX, sparse.csr_array(MATRIX):
        got = results(X, target, reduction="sum", **options)
        assert got["loss"] == pytest.approx(loss, rel=1e-15)
        np.testing.assert_allclose(got["grad"], grad, rtol=1e-14, atol=1e-16)


def test_the_mean_divides_by_the_weights_of_unsmoothed_targets(isa):
    x, labels = np.repeat(X, 3, axis=0), [1, 1, 2]
    for target in labels, one_hot(labels, 3), sparse.csr_array(one_hot(labels, 3)):
        options = {"class_weight": [9, 2, 5], "sample_weight": [1, 3, 0]}
        loss, grad = cross_entropy_with_grad(x, target, **options)
        assert loss == pytest.approx(np.log(4), rel=1e-15)
        np.testing.assert_allclose(
            grad, np.outer([2 / 8, 6 / 8, 0], [1 / 8, -3 / 4, 5 / 8]), rtol=1e-14
        )
        total = cross_entropy(x, target, label_smoothing=0.3, reduction="sum", **options)
        mean = cross_entropy(x, target, label_smoothing=0.3, **options)
        assert mean == pytest.approx(total / 8, rel=1e-15)
