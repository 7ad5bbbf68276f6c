"""Weights of classes and of rows, and the scale of gradients."""

import numpy as np
import pytest
from calls import each_call, inputs
from cases import (
    REAL,
    REDUCTIONS,
    assert_same_bits,
    assert_same_results,
    one_hot,
    problem,
    results,
    some_labels,
    some_logits,
    some_scale,
)

import cysoftmax
from cysoftmax import cross_entropy, cross_entropy_grad


@pytest.mark.parametrize("n_classes", [3, 40, 1100])
@pytest.mark.parametrize("dtype", REAL)
def test_a_class_of_weight_zero_has_loss_and_gradient_zero(dtype, n_classes, isa):
    x, weight = some_logits((20, n_classes), dtype), np.ones(n_classes)
    weight[1] = 0
    labels = np.resize([0, 1, 2], 20)
    x[4, 1] = -np.inf  # 0 times inf is 0
    zero = labels == 1
    got = results(x, labels, class_weight=weight, reduction="none", z_loss=0.1)
    for name, result in got.items():
        assert (result[zero] == 0).all(), name
        assert np.isfinite(result).all(), name
    kept = results(x[~zero], labels[~zero], z_loss=0.1)
    got = results(x, labels, class_weight=weight, z_loss=0.1)
    assert got["loss"] == pytest.approx(kept["loss"], rel=1e-6)
    np.testing.assert_allclose(got["grad"][~zero], kept["grad"], rtol=1e-6)


@pytest.mark.parametrize("n_classes", [3, 40])
def test_a_row_whose_class_has_weight_zero_is_not_ignored(n_classes, isa):
    x, weight = some_logits((20, n_classes)), np.ones(n_classes)
    weight[1] = 0
    x[3, 2] = np.nan
    for target in np.ones(20, int), one_hot(np.ones(20, int), n_classes):
        got = results(x, target, class_weight=weight, reduction="none")
        for name, result in got.items():
            assert np.isnan(result[3]).all(), name
            assert (np.delete(result, 3, 0) == 0).all(), name
    smooth = cross_entropy(x, np.ones(20, int), class_weight=weight, label_smoothing=0.5,
                           reduction="sum", where=~np.isnan(x))  # fmt: skip
    assert smooth > 0


@pytest.mark.parametrize("value", [[1, 2, 3], (1.0, 2.0, 3.0), np.array([1, 2, 3], np.uint8),
                                   np.float32([1, 2, 3]), np.float16([1, 2, 3])])  # fmt: skip
def test_weights_may_be_of_any_real_dtype(value):
    x, labels = some_logits((3, 3)), [0, 2, 1]
    for name in "class_weight", "sample_weight":
        got = results(x, labels, **{name: value})
        assert_same_results(got, results(x, labels, **{name: np.array([1.0, 2, 3])}))
    got = results(x, labels, scale=value)
    assert_same_results(got, results(x, labels, scale=np.array([1.0, 2, 3])))


def test_class_weight_is_rounded_to_the_dtype_of_computation(isa):
    x, labels = some_logits((20, 9), np.float32), some_labels(20, 9)
    weight = np.random.default_rng(0).uniform(0.1, 1, 9)
    for smoothing in 0, 0.1:
        got = results(x, labels, class_weight=weight, label_smoothing=smoothing)
        rounded = weight.astype(np.float32)
        want = results(x, labels, class_weight=rounded, label_smoothing=smoothing)
        assert_same_results(got, want)


@pytest.mark.parametrize("dtype", REAL)
@each_call(lambda call: "sample_weight" in call.takes)
def test_bools_are_weights_of_rows_that_keep_or_ignore_them(call, dtype, isa):
    keep = np.arange(20) % 3 != 0
    for options in (), "all":
        given = inputs(call, (20, 7), dtype, options)
        given["logits"] = np.where(keep[:, None], given["logits"], np.nan)
        for more in map(call.keywords, call.reductions):
            want = call(given | more, sample_weight=keep.astype(float))
            for mask in keep, keep.tolist(), np.repeat(keep, 2)[::2]:
                assert_same_results(call(given | more, sample_weight=mask), want)
            for result in want.values():
                assert np.isfinite(result).all()
                if np.ndim(result):
                    assert_same_bits(result[~keep], np.zeros_like(result[~keep]))
            one = call(given | more, sample_weight=1)
            assert_same_results(call(given | more, sample_weight=True), one)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("name", ["sample_weight", "scale"])
def test_weights_and_scales_of_rows_are_broadcast(name, axis):
    x = some_logits((3, 4, 5))
    rows = x.shape[:axis] + x.shape[axis + 1 :]
    labels = some_labels(rows, x.shape[axis])
    rng = np.random.default_rng(0)
    for shape in (), (1,), (rows[1],), (rows[0], 1), (1, rows[1]), rows:
        value = rng.uniform(0.1, 2, shape)
        got = results(x, labels, axis=axis, **{name: value})
        want = results(x, labels, axis=axis, **{name: np.broadcast_to(value, rows).copy()})
        assert_same_results(got, want, shape)


@pytest.mark.parametrize("dtype", REAL)
def test_weights_of_rows_and_scale_are_not_rounded_to_float32(dtype, isa):
    x, labels = some_logits((20, 9), dtype), some_labels(20, 9)
    weight = 1 + np.arange(20) / 2**40
    total = cross_entropy(x, labels, sample_weight=weight, reduction="sum")
    rows = cross_entropy(x.astype(np.float64), labels, reduction="none")
    gain = total - cross_entropy(x, labels, reduction="sum")
    assert gain == pytest.approx(np.sum(rows * (weight - 1)), rel=1e-3)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("shape", [(37, 3), (37, 10), (18, 33), (6, 130), (5, 1025)])
def test_powers_of_two_in_scale_are_exact(shape, dtype, reduction, isa):
    x, target, options = problem(shape, dtype)
    powers = 2.0 ** np.random.default_rng(0).integers(-3, 4, shape[0])
    powers[::3] *= -1
    options["scale"] = 1.0
    plain = results(x, target, reduction=reduction, **options)
    options["scale"] = powers
    got = results(x, target, reduction=reduction, **options)
    assert_same_bits(got["loss"], plain["loss"])
    np.testing.assert_array_equal(got["grad"], plain["grad"] * powers[:, None].astype(dtype))


def test_scale_of_rows_is_that_of_each_row_alone(isa):
    x, labels = some_logits((20, 9), np.float32), some_labels(20, 9)
    scale = some_scale(x.shape)
    got = cross_entropy_grad(x, labels, reduction="sum", scale=scale)
    for i in range(20):
        want = cross_entropy_grad(x[i], labels[i], reduction="sum", scale=scale[i])
        assert_same_bits(got[i], want)


def test_a_large_scale_or_a_small_weight_changes_the_gradient_by_no_other_factor():
    x, y = np.array([[0.0, 1.0]]), [0]
    plain = cysoftmax.cross_entropy_grad(x, y)
    np.testing.assert_allclose(
        cysoftmax.cross_entropy_grad(x, y, scale=1e308), plain * 1e308, rtol=1e-15
    )
    np.testing.assert_allclose(
        cysoftmax.cross_entropy_grad(x, y, sample_weight=1e-307), plain, rtol=1e-13
    )
    assert np.all(np.isinf(cysoftmax.cross_entropy_grad(x, y, scale=np.inf)))
