"""Targets: class indices and distributions, and what the rows of either weigh."""

import math
import re
import sys
import threading
import tracemalloc

import numpy as np
import pytest
from cases import misaligned, read_only

from cysoftmax import (
    CrossEntropy,
    cross_entropy,
    cross_entropy_grad,
    cross_entropy_with_grad,
)

REAL = [np.float32, np.float64]
SIGNED = [np.int8, np.int16, np.int32, np.int64]
UNSIGNED = [np.uint8, np.uint16, np.uint32, np.uint64]
INTEGER = SIGNED + UNSIGNED
REDUCTIONS = ["mean", "sum", "none"]


def assert_same_bits(got, want):
    """The same dtype, shape and bits, but that a NaN may be any NaN."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    bits = np.dtype(f"i{want.dtype.itemsize}")
    same = np.ascontiguousarray(got).view(bits) == np.ascontiguousarray(want).view(bits)
    same |= np.isnan(got) & np.isnan(want)
    where = np.argwhere(~same)
    assert len(where) == 0, f"{len(where)} differ, first at {where[0]}"


def some_logits(shape, dtype=np.float64, seed=0):
    return (3 * np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


def some_labels(n_rows, n_classes, seed=0):
    return np.random.default_rng(seed).integers(0, n_classes, n_rows)


def some_masses(shape, seed=0):
    """Distributions that do not sum to one, with zeros in them."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 4, shape) * rng.random(shape)


def one_hot(labels, n_classes, dtype=np.float64):
    return (np.asarray(labels)[..., None] == np.arange(n_classes)).astype(dtype)


def reference(logits, masses):
    """The losses, their gradients and the weights of rows, in np.longdouble."""
    x, masses = np.asarray(logits, np.longdouble), np.asarray(masses, np.longdouble)
    d = x - x.max(axis=-1, keepdims=True)
    exps = np.exp(d)
    total = exps.sum(axis=-1, keepdims=True)
    counts = masses != 0
    terms = np.where(counts, masses, 0) * (np.log(total) - np.where(counts, d, 0))
    mass = masses.sum(axis=-1, keepdims=True)
    return terms.sum(axis=-1), mass * (exps / total) - masses, mass[..., 0]


def assert_close(got, want, ulp, size=None):
    """Within so many ulp of numbers of the given size, which is that of `want` if not given."""
    size = np.abs(want if size is None else size)
    eps = np.finfo(np.asarray(got).dtype).eps
    error = np.abs(np.asarray(got, np.longdouble) - want)
    assert np.all(error <= ulp * eps * size), float((error / (eps * size)).max())


# ---------------------------------------------------------------- class indices


@pytest.mark.parametrize("dtype", INTEGER)
@pytest.mark.parametrize("n_classes", [5, 100])
def test_labels_may_have_any_integer_dtype(n_classes, dtype, isa):
    logits, labels = some_logits((37, n_classes)), some_labels(37, n_classes)
    loss, grad = cross_entropy_with_grad(logits, labels.astype(dtype), reduction="none")
    losses, grads, _ = reference(logits, one_hot(labels, n_classes))
    assert_close(loss, losses, 2)
    assert_close(grad, grads, 2)


def in_columns(labels):
    columns = np.full((len(labels), 3), 99, labels.dtype)
    columns[:, 1] = labels
    return columns[:, 1]


LABEL_LAYOUTS = {
    "reversed": lambda y: y[::-1].copy()[::-1],
    "every_other": lambda y: np.repeat(y, 2)[::2],
    "in_columns": in_columns,
    "misaligned": misaligned,
    "read_only": read_only,
    "byte_swapped": lambda y: y.astype(y.dtype.newbyteorder()),
}


@pytest.mark.parametrize("dtype", INTEGER)
@pytest.mark.parametrize("layout", LABEL_LAYOUTS)
def test_labels_may_have_any_strides(layout, dtype):
    logits, labels = some_logits((37, 5)), some_labels(37, 5).astype(dtype)
    want = cross_entropy_with_grad(logits, labels, reduction="none")
    labels = LABEL_LAYOUTS[layout](labels)
    got = cross_entropy_with_grad(logits, labels, reduction="none")
    assert_same_bits(got.loss, want.loss)
    assert_same_bits(got.grad, want.grad)


@pytest.mark.parametrize("dtype", INTEGER)
def test_labels_may_be_one_number_broadcast(dtype):
    logits = some_logits((4, 6, 5))
    labels = np.broadcast_to(np.array(3, dtype), (4, 6))
    assert_same_bits(
        cross_entropy_grad(logits, labels), cross_entropy_grad(logits, np.full((4, 6), 3))
    )


@pytest.mark.parametrize("axis", [0, 1, 2, -3])
def test_labels_have_the_shape_of_the_logits_without_the_axis(axis):
    logits = some_logits((3, 4, 5))
    last = np.moveaxis(logits, axis, -1)
    labels = some_labels(last.shape[:-1], last.shape[-1])
    for layout in np.ascontiguousarray, np.asfortranarray:
        loss, grad = cross_entropy_with_grad(logits, layout(labels), axis=axis, reduction="none")
        want = cross_entropy_with_grad(last.copy(), labels, reduction="none")
        assert_same_bits(loss, want.loss)
        assert_same_bits(np.moveaxis(grad, axis, -1), want.grad)


@pytest.mark.parametrize("dtype", [np.int16, np.uint32, np.int64, np.uint64])
@pytest.mark.parametrize("step", [1, 2])
def test_labels_are_read_without_a_cast_or_a_copy(step, dtype):
    n_rows = 200_000
    logits = np.broadcast_to(np.float32([1, 2]), (n_rows, 2))
    labels = np.zeros(step * n_rows, dtype)[::step]
    tracemalloc.start()
    try:
        cross_entropy(logits, labels)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < labels.itemsize * n_rows, peak


@pytest.mark.parametrize("label", [2, np.int8(2), np.uint64(2), np.array(2)])
def test_an_integer_serves_one_dimensional_logits(label):
    logits = some_logits(5)
    loss, grad = cross_entropy_with_grad(logits, label)
    want = cross_entropy_with_grad(logits[None], [2])
    assert loss == want.loss
    assert_same_bits(grad, want.grad[0])


@pytest.mark.parametrize(
    "dtype", [np.float16, np.float32, np.float64, np.longdouble, np.bool_, np.complex128, object]
)
@pytest.mark.parametrize("function", [cross_entropy, cross_entropy_grad, cross_entropy_with_grad])
def test_labels_that_are_not_integers_are_a_type_error(function, dtype):
    with pytest.raises(TypeError, match=r"^target must hold integers") as error:
        function(np.ones((2, 3)), np.array([1, 0]).astype(dtype))
    assert str(np.dtype(dtype)) in str(error.value)


@pytest.mark.parametrize("label", [1.0, True, np.float32(1), np.True_, "1"])
def test_a_label_of_one_row_that_is_not_an_integer_is_a_type_error(label):
    with pytest.raises(TypeError, match=r"^target must hold integers"):
        cross_entropy(np.ones(3), label)


# ---------------------------------------------------------------- distributions


@pytest.mark.parametrize(
    "dtype", [np.bool_, *INTEGER, np.float16, np.float32, np.float64, np.longdouble]
)
@pytest.mark.parametrize("logits_dtype", REAL)
def test_a_matrix_of_zeros_and_ones_may_have_any_real_dtype(logits_dtype, dtype, isa):
    logits, labels = some_logits((37, 9), logits_dtype), some_labels(37, 9)
    want = cross_entropy_with_grad(logits, labels, reduction="none")
    got = cross_entropy_with_grad(logits, one_hot(labels, 9, dtype), reduction="none")
    assert_same_bits(got.loss, want.loss)
    assert_same_bits(got.grad, want.grad)


@pytest.mark.parametrize("dtype", [*SIGNED, *UNSIGNED, np.float16, np.float32, np.float64])
def test_a_distribution_may_hold_any_real_numbers(dtype):
    logits = some_logits((20, 9))
    counts = np.random.default_rng(0).integers(0, 100, (20, 9))
    want = cross_entropy_with_grad(logits, counts.astype(np.float64))
    got = cross_entropy_with_grad(logits, counts.astype(dtype))
    assert got.loss == want.loss
    assert_same_bits(got.grad, want.grad)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [1, 2, 9, 40, 1500])
def test_a_distribution_gets_its_cross_entropy_and_gradient(n_classes, dtype, isa):
    logits = some_logits((7, n_classes), dtype)
    target = some_masses((7, n_classes)) + 0.1
    target = (target / target.sum(axis=-1, keepdims=True)).astype(dtype)
    loss, grad = cross_entropy_with_grad(logits, target, reduction="none")
    losses, grads, _ = reference(logits, target)
    assert_close(loss, losses, 4, losses + (n_classes == 1))
    assert_close(grad, grads, 4, np.abs(grads) + target)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [1, 2, 9, 40, 1500])
def test_targets_that_do_not_sum_to_one_get_the_true_gradient(n_classes, dtype, isa):
    logits = some_logits((20, n_classes), dtype)
    target = some_masses((20, n_classes)).astype(dtype)
    loss, grad = cross_entropy_with_grad(logits, target, reduction="none")
    losses, grads, _ = reference(logits, target)
    assert_close(loss, losses, 4)
    assert_close(grad, grads, 4, np.abs(grads) + target)


def test_the_gradient_is_that_of_the_loss():
    logits, target = some_logits(9), some_masses(9)
    grad = cross_entropy_grad(logits, target, reduction="sum")
    for c in range(9):
        step = 1e-5 * (np.arange(9) == c)
        above = cross_entropy(logits + step, target, reduction="sum")
        below = cross_entropy(logits - step, target, reduction="sum")
        assert grad[c] == pytest.approx((above - below) / 2e-5, abs=1e-8)


TARGET_LAYOUTS = {
    "f_order": np.asfortranarray,
    "reversed": lambda t: t[::-1, ::-1].copy()[::-1, ::-1],
    "every_other": lambda t: np.repeat(np.repeat(t, 2, 0), 2, 1)[::2, ::2],
    "misaligned": lambda t: misaligned(t.ravel()).reshape(t.shape),
    "read_only": read_only,
    "byte_swapped": lambda t: t.astype(t.dtype.newbyteorder()),
}


@pytest.mark.parametrize("dtype", [np.bool_, np.int32, np.uint64, np.float16, *REAL])
@pytest.mark.parametrize("layout", TARGET_LAYOUTS)
def test_a_distribution_may_have_any_strides(layout, dtype):
    logits = some_logits((37, 9))
    target = (3 * some_masses((37, 9))).astype(dtype)
    want = cross_entropy_with_grad(logits, target, reduction="none")
    got = cross_entropy_with_grad(logits, TARGET_LAYOUTS[layout](target), reduction="none")
    assert_same_bits(got.loss, want.loss)
    assert_same_bits(got.grad, want.grad)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_distribution_has_the_shape_of_the_logits(axis):
    logits, target = some_logits((3, 4, 5)), some_masses((3, 4, 5))
    loss, grad = cross_entropy_with_grad(logits, target, axis=axis, reduction="none")
    want = cross_entropy_with_grad(
        np.moveaxis(logits, axis, -1).copy(), np.moveaxis(target, axis, -1), reduction="none"
    )
    assert_same_bits(loss, want.loss)
    assert_same_bits(np.moveaxis(grad, axis, -1), want.grad)


def test_a_distribution_may_be_one_row_broadcast():
    logits, row = some_logits((6, 5)), some_masses(5)
    target = np.broadcast_to(row, (6, 5))
    assert cross_entropy(logits, target) == cross_entropy(logits, target.copy())


# ---------------------------------------------------------------- one meaning, the same bits

SAME_SHAPES = [
    (n_rows, n_classes)
    for n_rows in (1, 5, 16, 35)
    for n_classes in (1, 2, 3, 7, 16, 17, 31, 32, 33, 48, 49, 64, 65, 112, 113)
] + [(200, 10), (160, 60), (48, 192), (48, 193), (3, 1024), (3, 1025), (2, 2500)]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", REAL)
def test_index_one_hot_and_distribution_give_the_same_bits(dtype, reduction, isa):
    for n_rows, n_classes in SAME_SHAPES:
        logits = some_logits((n_rows, n_classes), dtype)
        labels = some_labels(n_rows, n_classes)
        logits[0, labels[0]] += 30  # a confident row
        matrix = one_hot(labels, n_classes, bool)
        want = cross_entropy_with_grad(logits, labels, reduction=reduction)
        for target in matrix, matrix.astype(dtype), np.asfortranarray(matrix.astype(np.int32)):
            got = cross_entropy_with_grad(logits, target, reduction=reduction)
            assert_same_bits(got.loss, want.loss)
            assert_same_bits(got.grad, want.grad)


@pytest.mark.parametrize("scale", [0.0, 0.3, 1e-30, -1.0, -2.5])
@pytest.mark.parametrize("dtype", REAL)
def test_index_and_one_hot_give_the_same_bits_for_every_scale(dtype, scale, isa):
    for n_rows, n_classes in (20, 5), (4, 50):
        logits = some_logits((n_rows, n_classes), dtype)
        labels = some_labels(n_rows, n_classes)
        logits[1, :2] = -np.inf
        labels[1] = 2
        logits[2, labels[2]] += 1000  # all others underflow
        want = cross_entropy_grad(logits, labels, scale=scale)
        got = cross_entropy_grad(logits, one_hot(labels, n_classes), scale=scale)
        assert_same_bits(got, want)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("dtype", REAL)
def test_index_and_one_hot_give_the_same_bits_for_either_axis(dtype, axis, isa):
    for n_classes in 3, 40, 1100:
        logits = some_logits((20, n_classes), dtype)
        labels = some_labels(20, n_classes)
        target = one_hot(labels, n_classes)
        if axis == 0:
            logits, target = logits.T.copy(), target.T.copy()
        want = cross_entropy_with_grad(logits, labels, axis=axis, reduction="none")
        got = cross_entropy_with_grad(logits, target, axis=axis, reduction="none")
        assert_same_bits(got.loss, want.loss)
        assert_same_bits(got.grad, want.grad)


@pytest.mark.parametrize("dtype", REAL)
def test_index_and_one_hot_give_the_same_bits_for_long_rows_and_two_threads(dtype, isa):
    logits, labels = some_logits((2, 70_000), dtype), [69_999, 5]
    want = cross_entropy_with_grad(logits, labels, reduction="none", n_threads=2)
    got = cross_entropy_with_grad(logits, one_hot(labels, 70_000), reduction="none", n_threads=2)
    assert_same_bits(got.loss, want.loss)
    assert_same_bits(got.grad, want.grad)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", REAL)
def test_index_and_one_hot_give_the_same_special_values(dtype, reduction, isa):
    big = np.finfo(dtype).max
    rows = [
        [0, np.nan, 1, 2],
        [0, np.inf, 1, 2],
        [-np.inf] * 4,
        [0, -np.inf, 1, 2],
        [-np.inf, 0, -np.inf, -np.inf],
        [big, -big, 0, big],
        [0, -1e30, 1e30, 5],
        [1e-42, 0, 1e-42, 0],
    ]
    with np.errstate(over="ignore"):
        for label in range(4):
            for some in [[row] for row in rows] + [rows]:
                logits, labels = np.array(some, dtype), [label] * len(some)
                want = cross_entropy_with_grad(logits, labels, reduction=reduction)
                got = cross_entropy_with_grad(logits, one_hot(labels, 4), reduction=reduction)
                assert_same_bits(got.loss, want.loss)
                assert_same_bits(got.grad, want.grad)


# ---------------------------------------------------------------- weights of rows


@pytest.mark.parametrize("dtype", [np.bool_, np.int8, np.uint64, np.float16, *REAL])
@pytest.mark.parametrize("n_classes", [4, 50, 1100])
@pytest.mark.parametrize("logit", [0.5, np.nan, np.inf, -np.inf])
def test_a_row_of_zeros_is_ignored(logit, n_classes, dtype, isa):
    logits = some_logits((5, n_classes))
    target = one_hot([1, 2, 3, 0, 1], n_classes, dtype)
    rest = cross_entropy_with_grad(logits[[0, 2, 4]], target[[0, 2, 4]], reduction="mean")
    target[[1, 3]] = 0
    logits[[1, 3]] = logit
    for order in "CF":
        x = logits.copy(order=order)
        loss, grad = cross_entropy_with_grad(x, target, reduction="none")
        assert_same_bits(loss[[1, 3]], np.zeros(2))
        assert_same_bits(grad[[1, 3]], np.zeros((2, n_classes)))
        assert np.isfinite(loss).all()
        assert np.isfinite(grad).all()
        loss, grad = cross_entropy_with_grad(x, target)
        assert loss == rest.loss
        assert_same_bits(grad[[0, 2, 4]], rest.grad)
        assert_same_bits(grad[[1, 3]], np.zeros((2, n_classes)))


def test_a_row_of_negative_zeros_is_ignored_too(isa):
    target = np.array([[-0.0, 0.0, -0.0], [0, 1, 0]])
    logits = np.array([[np.nan, 1, 2], [0, 1, 2]])
    loss, grad = cross_entropy_with_grad(logits, target)
    assert loss == cross_entropy(logits[1], 1)
    assert_same_bits(grad[0], np.zeros(3))


def test_an_ignored_row_overwrites_what_out_held():
    out = np.full((2, 3), 7.0)
    cross_entropy_grad(np.full((2, 3), np.nan), np.zeros((2, 3)), out=out)
    assert_same_bits(out, np.zeros((2, 3)))
    out = np.full(2, 7.0)
    cross_entropy(np.full((2, 3), np.nan), np.zeros((2, 3)), reduction="none", out=out)
    assert_same_bits(out, np.zeros(2))


@pytest.mark.parametrize("dtype", REAL)
def test_the_mean_divides_by_the_sum_of_the_weights(dtype, isa):
    logits, target = some_logits((40, 6), dtype), some_masses((40, 6)).astype(dtype)
    target[3] = 0
    losses, grads, weights = reference(logits, target)
    loss, grad = cross_entropy_with_grad(logits, target)
    assert loss == pytest.approx(float(losses.sum() / weights.sum()), rel=4e-7)
    assert_close(grad, grads / weights.sum(), 4, (np.abs(grads) + target) / weights.sum())
    if dtype is np.float64:
        assert loss == pytest.approx(float(losses.sum() / weights.sum()), rel=1e-15)


def test_a_row_of_twice_the_mass_counts_twice():
    logits, labels = some_logits((3, 4)), [1, 3, 0]
    twice = cross_entropy(logits, one_hot(labels, 4) * [[1], [2], [1]])
    assert twice == pytest.approx(cross_entropy(logits[[0, 1, 1, 2]], [1, 3, 3, 0]), rel=1e-15)


@pytest.mark.parametrize("dtype", REAL)
def test_the_mean_over_nothing_is_nan_with_gradient_zero(dtype):
    logits, target = np.full((3, 4), np.nan, dtype), np.zeros((3, 4))
    loss, grad = cross_entropy_with_grad(logits, target)
    assert type(loss) is float
    assert math.isnan(loss)
    assert math.isnan(cross_entropy(logits, target))
    assert_same_bits(grad, np.zeros((3, 4), dtype))
    assert_same_bits(cross_entropy_grad(logits, target), np.zeros((3, 4), dtype))


@pytest.mark.parametrize("shape", [(0, 4), (3, 0, 4)])
def test_the_mean_over_no_rows_is_nan(shape):
    logits = np.empty(shape)
    for target in np.empty(shape[:-1], int), np.empty(shape):
        loss, grad = cross_entropy_with_grad(logits, target)
        assert math.isnan(loss)
        assert grad.shape == shape
        assert math.isnan(cross_entropy(logits, target))
        assert cross_entropy_grad(logits, target).shape == shape


@pytest.mark.parametrize("shape", [(0, 4), (3, 0, 4)])
def test_the_sum_over_no_rows_is_zero(shape):
    loss, grad = cross_entropy_with_grad(
        np.empty(shape), np.empty(shape[:-1], int), reduction="sum"
    )
    assert (loss, grad.shape) == (0.0, shape)
    loss = cross_entropy(np.empty(shape), np.empty(shape), reduction="none")
    assert loss.shape == shape[:-1]


def test_the_sum_over_ignored_rows_is_zero():
    loss, grad = cross_entropy_with_grad(np.full((3, 4), np.nan), np.zeros((3, 4)), reduction="sum")
    assert loss == 0
    assert_same_bits(grad, np.zeros((3, 4)))


@pytest.mark.parametrize("n_classes", [3, 40])
@pytest.mark.parametrize("dtype", REAL)
def test_a_class_without_target_mass_contributes_nothing_at_logit_minus_inf(dtype, n_classes, isa):
    logits = some_logits((20, n_classes), dtype)
    target = some_masses((20, n_classes)).astype(dtype)
    target[:, 1] = 0
    target[:, 0] = 1
    logits[:, 1] = -np.inf
    loss, grad = cross_entropy_with_grad(logits, target, reduction="none")
    others = np.arange(n_classes) != 1
    losses, grads, _ = reference(logits[:, others], target[:, others])
    assert_close(loss, losses, 4)
    assert_close(grad[:, others], grads, 4, np.abs(grads) + target[:, others])
    assert_same_bits(grad[:, 1], np.zeros(20, dtype))


# ---------------------------------------------------------------- reductions and scale


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("distribution", [False, True])
def test_the_loss_follows_the_reduction(distribution, dtype, isa):
    logits = some_logits((4, 10, 6), dtype)
    target = some_masses((4, 10, 6)) if distribution else some_labels((4, 10), 6)
    masses = target if distribution else one_hot(target, 6)
    losses, _, weights = reference(logits, masses.astype(dtype))
    rel = 8 * float(np.finfo(dtype).eps)
    none = cross_entropy(logits, target, reduction="none")
    assert none.shape == (4, 10)
    assert none.dtype == dtype
    np.testing.assert_allclose(none, losses.astype(np.float64), rtol=rel)
    total = cross_entropy(logits, target, reduction="sum")
    assert type(total) is float
    assert total == pytest.approx(float(losses.sum()), rel=rel)
    mean = cross_entropy(logits, target)
    assert type(mean) is float
    assert mean == pytest.approx(float(losses.sum() / weights.sum()), rel=rel)
    assert mean == cross_entropy(logits, target, reduction="mean")


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("distribution", [False, True])
def test_the_gradient_follows_the_reduction(distribution, dtype, isa):
    logits = some_logits((4, 10, 6), dtype)
    target = some_masses((4, 10, 6)) if distribution else some_labels((4, 10), 6)
    masses = (target if distribution else one_hot(target, 6)).astype(dtype)
    _, grads, weights = reference(logits, masses)
    size = np.abs(grads) + masses
    none = cross_entropy_grad(logits, target, reduction="none")
    assert_close(none, grads, 4, size)
    assert_same_bits(cross_entropy_grad(logits, target, reduction="sum"), none)
    mean = cross_entropy_grad(logits, target)
    assert_close(mean, grads / weights.sum(), 4, size / weights.sum())


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [5, 60])
def test_loss_and_gradient_together_are_what_they_are_alone(n_classes, dtype, reduction, isa):
    logits = some_logits((40, n_classes), dtype)
    for target in some_labels(40, n_classes), some_masses((40, n_classes)):
        both = cross_entropy_with_grad(logits, target, reduction=reduction)
        assert isinstance(both, CrossEntropy)
        assert_same_bits(both.loss, cross_entropy(logits, target, reduction=reduction))
        assert_same_bits(both.grad, cross_entropy_grad(logits, target, reduction=reduction))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", REAL)
def test_scale_multiplies_the_gradient(dtype, reduction, isa):
    logits = some_logits((20, 6), dtype)
    for target in some_labels(20, 6), some_masses((20, 6)):
        plain = cross_entropy_with_grad(logits, target, reduction=reduction)
        for scale in 4, 0.125, -2, np.float32(1024), np.int16(8), np.array(0.5):
            loss, grad = cross_entropy_with_grad(logits, target, reduction=reduction, scale=scale)
            assert_same_bits(loss, plain.loss)
            np.testing.assert_array_equal(grad, plain.grad * dtype(scale))
            alone = cross_entropy_grad(logits, target, reduction=reduction, scale=scale)
            assert_same_bits(alone, grad)
        grad = cross_entropy_grad(logits, target, reduction=reduction, scale=0.3)
        size = np.abs(plain.grad) + np.abs(plain.grad).max()
        assert_close(grad, 0.3 * np.longdouble(plain.grad), 4, size)


# ---------------------------------------------------------------- labels out of range

BAD_LABELS = [  # shape of the logits, axis, the bad labels, the position of the first
    ((7, 10), -1, {(3,): 12}, (3,)),
    ((7, 10), -1, {(0,): 10}, (0,)),
    ((7, 10), -1, {(6,): -1}, (6,)),
    ((7, 10), -1, {(6,): 11, (2,): -4}, (2,)),
    ((40, 100), -1, {(39,): 100, (17,): 101, (18,): -1}, (17,)),
    ((2, 3, 10), 2, {(1, 2): 10, (0, 2): 99}, (0, 2)),
    ((2, 10, 3), 1, {(1, 2): 10, (1, 0): -2}, (1, 0)),
    ((10, 2, 3), 0, {(1, 1): 15}, (1, 1)),
]
FUNCTIONS = [cross_entropy, cross_entropy_grad, cross_entropy_with_grad]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(("shape", "axis", "bad", "first"), BAD_LABELS)
def test_a_bad_label_is_named_with_its_position_value_and_range(
    shape, axis, bad, first, function, isa
):
    logits = some_logits(shape)
    last = np.moveaxis(logits, axis, -1)
    n_classes = last.shape[-1]
    labels = some_labels(last.shape[:-1], n_classes)
    for place, value in bad.items():
        labels[place] = value
    value = labels[first]
    message = f"target must lie in [0, {n_classes}); got {value} at index {first}"
    with pytest.raises(IndexError, match="^" + re.escape(message) + "$"):
        function(logits, labels, axis=axis)
    with pytest.raises(IndexError, match="^" + re.escape(message) + "$"):
        function(logits, np.asfortranarray(labels.astype(np.int8)), axis=axis, reduction="none")


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("label", [-1, 3, 2**40, -(2**63), 2**64 - 1, 10**30, -(10**30)])
def test_a_bad_label_of_one_row_is_named(label, function):
    with pytest.raises(IndexError, match=rf"^target must lie in \[0, 3\); got {label}\b"):
        function(np.ones(3), label)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(("n_rows", "n_classes"), [(1, 140_000), (3, 50_000), (300, 500)])
@pytest.mark.parametrize("n_threads", [1, 2])
def test_a_bad_label_is_found_by_every_number_of_threads(n_threads, n_rows, n_classes, function):
    logits = np.zeros((n_rows, n_classes), np.float32)
    labels = np.zeros(n_rows, int)
    for bad in -1, n_classes:
        labels[-1] = bad
        with pytest.raises(IndexError, match=rf"got {bad} at index \({n_rows - 1},\)"):
            function(logits, labels, n_threads=n_threads)


@pytest.mark.parametrize("dtype", SIGNED)
@pytest.mark.parametrize("n_classes", [5, 100, 1000])
def test_negative_labels_never_wrap(n_classes, dtype, isa):
    logits = some_logits((20, n_classes))
    for bad in -1, -2, -n_classes, -100, -n_classes - 1, np.iinfo(dtype).min:
        if bad < np.iinfo(dtype).min:
            continue
        labels = np.zeros(20, dtype)
        labels[13] = bad
        for function in FUNCTIONS:
            with pytest.raises(IndexError, match=rf"got {bad} at index \(13,\)"):
                function(logits, labels)


WIDE_LABELS = [(dtype, np.iinfo(dtype).max) for dtype in INTEGER] + [
    (np.int16, 1001),
    (np.uint16, 2**15),
    (np.uint32, 2**31),
    (np.int64, 2**32),
    (np.int64, 2**32 + 1),
    (np.int64, -(2**32) + 1),
    (np.uint64, 2**32 + 1),
    (np.uint64, 2**63),
    (np.uint64, 2**63 + 1),
    (np.uint64, 2**64 - 5),
]


@pytest.mark.parametrize("n_classes", [5, 100])
@pytest.mark.parametrize(("dtype", "bad"), WIDE_LABELS)
def test_no_label_is_truncated_into_the_range(dtype, bad, n_classes, isa):
    logits, labels = some_logits((20, n_classes)), np.zeros(20, dtype)
    labels[13] = bad
    for function in FUNCTIONS:
        with pytest.raises(IndexError, match=rf"got {bad} at index \(13,\)"):
            function(logits, labels)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_labels_of_eight_bits_serve_more_classes_than_they_can_number(dtype):
    logits, labels = some_logits((20, 300)), np.full(20, 100, dtype)
    assert cross_entropy(logits, labels) == cross_entropy(logits, labels.astype(int))


def test_nothing_is_ignored_by_default():
    with pytest.raises(IndexError, match="got -100 at index"):
        cross_entropy(np.ones((2, 3)), [0, -100])


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize(("n_rows", "n_classes"), [(40, 4), (5, 60), (300, 500), (2, 80_000)])
@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("function", [cross_entropy_grad, cross_entropy_with_grad])
def test_out_is_untouched_after_a_bad_label(function, n_threads, n_rows, n_classes, dtype, isa):
    logits = some_logits((n_rows, n_classes), dtype)
    before = logits.copy()
    labels = np.zeros(n_rows, int)
    labels[-1] = n_classes
    out = np.full_like(logits, 7)
    with pytest.raises(IndexError, match=r"^target must lie in"):
        function(logits, labels, out=out, n_threads=n_threads)
    assert (out == 7).all()
    with pytest.raises(IndexError, match=r"^target must lie in"):
        function(logits, labels, out=logits, n_threads=n_threads)
    assert_same_bits(logits, before)


@pytest.mark.parametrize("n_classes", [4, 60])
def test_a_strided_out_is_untouched_after_a_bad_label(n_classes):
    memory = np.full((20, 2 * n_classes + 1), 7.0)
    labels = np.zeros(20, int)
    labels[-1] = -1
    for out in memory[:, ::2][:, :n_classes], misaligned(memory[:, :n_classes].ravel()):
        with pytest.raises(IndexError, match=r"^target must lie in"):
            cross_entropy_grad(some_logits((20, n_classes)), labels, out=out.reshape(20, n_classes))
        assert (out == 7).all()
    assert (memory == 7).all()


@pytest.mark.parametrize(("n_rows", "n_classes"), [(40, 4), (5, 60)])
def test_the_out_of_losses_is_untouched_after_a_bad_label(n_rows, n_classes):
    labels, out = np.zeros(n_rows, int), np.full(n_rows, 7.0)
    labels[-1] = -1
    with pytest.raises(IndexError, match=r"^target must lie in"):
        cross_entropy(some_logits((n_rows, n_classes)), labels, reduction="none", out=out)
    assert (out == 7).all()


@pytest.mark.parametrize(("n_rows", "n_classes"), [(3000, 8), (400, 64), (1, 70_000)])
@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("beyond", ["just", "far"])
def test_a_label_changed_during_the_call_never_leads_outside(beyond, n_threads, n_rows, n_classes):
    logits = some_logits((n_rows, n_classes))
    labels = some_labels(n_rows, n_classes)
    row, good = n_rows // 2, int(labels[n_rows // 2])
    bad = n_classes * (n_rows - row) + 3 if beyond == "just" else -(2**45)
    losses, grads = cross_entropy_with_grad(logits, labels, reduction="none")
    room = np.full(n_rows * n_classes + 64, 7.0)  # the bad label's place is in here, too
    out = room[32:-32].reshape(n_rows, n_classes)
    done = threading.Event()
    # One label in many places: a copy, which needs no GIL, makes it bad and good in turn.
    many = np.lib.stride_tricks.as_strided(labels[row:], (2**16,), (0,))
    flips = np.resize([bad, good], many.shape)

    def flip():
        while not done.is_set():
            np.copyto(many, flips)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread = threading.Thread(target=flip)
    thread.start()
    results, messages = 0, []
    try:
        for attempt in range(200):
            try:
                loss, grad = cross_entropy_with_grad(
                    logits,
                    labels,
                    reduction="none",
                    out=out if attempt % 2 else None,
                    n_threads=n_threads,
                )
            except IndexError as error:
                messages.append(str(error))
            else:
                assert_same_bits(loss, losses)
                assert_same_bits(grad, grads)
                results += 1
            assert (room[:32] == 7).all()
            assert (room[-32:] == 7).all()
    finally:
        done.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert results + len(messages) == 200
    assert all(m.startswith(f"target must lie in [0, {n_classes}); ") for m in messages)
