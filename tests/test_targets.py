"""Targets: class indices and distributions, and what the rows of either weigh."""

import math
import re
import tracemalloc

import numpy as np
import pytest
import reference
from cases import (
    INTEGER,
    LAYOUTS,
    LOSSES,
    REAL,
    REDUCTIONS,
    SIGNED,
    assert_same_bits,
    one_hot,
    some_labels,
    some_logits,
)

from cysoftmax import (
    cross_entropy,
    cross_entropy_grad,
    cross_entropy_grad_hess,
    cross_entropy_with_grad,
    row_stats,
)


def some_masses(shape, seed=0):
    """Distributions that do not sum to one, with zeros in them, of all digits."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 4, shape) * rng.random(shape)


def exact(logits, masses):
    """The losses, their gradients and the weights of rows, in long double."""
    rows = reference.cross_entropy(np.asarray(logits), masses)
    return rows.loss, rows.grad, rows.weight


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
    losses, grads, _ = exact(logits, one_hot(labels, n_classes))
    assert_close(loss, losses, 2)
    assert_close(grad, grads, 2)


@pytest.mark.parametrize("dtype", INTEGER)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_labels_may_have_any_strides(layout, dtype):
    logits, labels = some_logits((37, 5)), some_labels(37, 5).astype(dtype)
    want = cross_entropy_with_grad(logits, labels, reduction="none")
    labels = LAYOUTS[layout](labels)
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


@pytest.mark.parametrize("dtype", [*INTEGER, np.float16, np.float32, np.float64])
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
    losses, grads, _ = exact(logits, target)
    assert_close(loss, losses, 4, losses + (n_classes == 1))
    assert_close(grad, grads, 4, np.abs(grads) + target)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [1, 2, 9, 40, 1500])
def test_targets_that_do_not_sum_to_one_get_the_true_gradient(n_classes, dtype, isa):
    logits = some_logits((20, n_classes), dtype)
    target = some_masses((20, n_classes)).astype(dtype)
    loss, grad = cross_entropy_with_grad(logits, target, reduction="none")
    losses, grads, _ = exact(logits, target)
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


@pytest.mark.parametrize("dtype", [np.bool_, np.int32, np.uint64, np.float16, *REAL])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_distribution_may_have_any_strides(layout, dtype):
    logits = some_logits((37, 9))
    target = (3 * some_masses((37, 9))).astype(dtype)
    want = cross_entropy_with_grad(logits, target, reduction="none")
    got = cross_entropy_with_grad(logits, LAYOUTS[layout](target), reduction="none")
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
    losses, grads, weights = exact(logits, target)
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
    losses, grads, _ = exact(logits[:, others], target[:, others])
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
    losses, _, weights = exact(logits, masses.astype(dtype))
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
    _, grads, weights = exact(logits, masses)
    size = np.abs(grads) + masses
    none = cross_entropy_grad(logits, target, reduction="none")
    assert_close(none, grads, 4, size)
    assert_same_bits(cross_entropy_grad(logits, target, reduction="sum"), none)
    mean = cross_entropy_grad(logits, target)
    assert_close(mean, grads / weights.sum(), 4, size / weights.sum())


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
FUNCTIONS = [*LOSSES, cross_entropy_grad_hess, row_stats]


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
    if value == -1:
        message += " (ignore_index=-1 ignores such rows)"
    with pytest.raises(IndexError, match="^" + re.escape(message) + "$"):
        function(logits, labels, axis=axis)
    more = {"reduction": "none"} if function in LOSSES else {}
    with pytest.raises(IndexError, match="^" + re.escape(message) + "$"):
        function(logits, np.asfortranarray(labels.astype(np.int8)), axis=axis, **more)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("label", [-1, 3, 2**40, -(2**63), 2**64 - 1, 10**30, -(10**30)])
def test_a_bad_label_of_one_row_is_named(label, function):
    with pytest.raises(IndexError, match=rf"^target must lie in \[0, 3\); got {label}\b"):
        function(np.ones(3), label)


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
