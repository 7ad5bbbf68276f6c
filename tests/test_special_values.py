"""NaN, infinities, underflow and extreme logits."""

from itertools import product

import numpy as np
import pytest
from cases import REAL, one_hot, some_logits
from scipy import special
from scipy.sparse import csr_array

import cysoftmax

WIDTHS = range(1, 71)  # more than four of the widest vecs, with every tail


def results(x, labels, **options):
    """Every function of the rows of x, by name: arrays of the shape of x or of its rows."""
    masses = 0.5 * one_hot(labels, x.shape[1]) + 0.25
    by_label = cysoftmax.cross_entropy_with_grad(x, labels, reduction="none", **options)
    by_mass = cysoftmax.cross_entropy_with_grad(x, masses, reduction="none", **options)
    return {
        "softmax": cysoftmax.softmax(x, **options),
        "log_softmax": cysoftmax.log_softmax(x, **options),
        "logsumexp": cysoftmax.logsumexp(x, **options),
        "loss": by_label.loss,
        "loss alone": cysoftmax.cross_entropy(x, labels, reduction="none", **options),
        "grad": by_label.grad,
        "grad alone": cysoftmax.cross_entropy_grad(x, labels, reduction="none", **options),
        "loss of masses": by_mass.loss,
        "grad of masses": by_mass.grad,
    }


def assert_all_nan(got, rows):
    for name, result in got.items():
        assert np.isnan(result[rows]).all(), name


def assert_finite(got):
    for name, result in got.items():
        assert np.isfinite(result).all(), name


# ---------------------------------------------------------------- NaN


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", REAL)
def test_nan_anywhere_makes_its_row_nan_and_no_other(dtype, order, isa):
    for n_classes in WIDTHS:
        clean = some_logits((2 * n_classes, n_classes), dtype)
        labels = np.arange(2 * n_classes) % n_classes
        spoilt, whole = np.arange(0, 2 * n_classes, 2), np.arange(1, 2 * n_classes, 2)
        x = clean.copy(order=order)
        x[spoilt, np.arange(n_classes)] = np.nan
        got, want = results(x, labels), results(clean, labels)
        assert_all_nan(got, spoilt)
        for name in got:
            np.testing.assert_array_equal(got[name][whole], want[name][whole], name)


@pytest.mark.parametrize("dtype", REAL)
def test_nan_in_p_or_v_makes_its_row_nan_and_no_other(dtype, isa):
    for n_classes in WIDTHS:
        p = special.softmax(some_logits((2 * n_classes, n_classes)), axis=-1).astype(dtype)
        v = some_logits(p.shape, dtype, 1)
        spoilt, whole = np.arange(0, 2 * n_classes, 2), np.arange(1, 2 * n_classes, 2)
        want = cysoftmax.softmax_vjp(p, v)
        for changed in p, v:
            before = changed.copy()
            changed[spoilt, np.arange(n_classes)] = np.nan
            got = cysoftmax.softmax_vjp(p, v)
            changed[...] = before
            assert np.isnan(got[spoilt]).all()
            np.testing.assert_array_equal(got[whole], want[whole])


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("place", [0, 1023, 1024, 16383, 16384, 39_998, 39_999])
def test_nan_anywhere_in_a_long_row_makes_it_nan(place, dtype, n_threads, isa):
    x = some_logits((2, 40_000), dtype)
    x[1, place] = -np.nan if place % 2 else np.nan
    got = results(x, np.array([5, 39_999]), n_threads=n_threads)
    assert_all_nan(got, 1)
    assert_finite({name: result[0] for name, result in got.items()})


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("other", [np.nan, np.inf, -np.inf, 0.0, "max", "lowest"])
def test_nan_beside_any_other_value_makes_the_row_nan(other, dtype, isa):
    value = {"max": np.finfo(dtype).max, "lowest": np.finfo(dtype).min}.get(other, other)
    for n_classes in 2, 5, 17, 40:
        x = np.full((n_classes, n_classes), value, dtype)
        np.fill_diagonal(x, np.nan)
        for shift in 0, 1:
            assert_all_nan(results(x, (np.arange(n_classes) + shift) % n_classes), slice(None))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_row_that_is_nan_makes_the_reduced_loss_nan(reduction, isa):
    x = some_logits((40, 5))
    x[7, 3] = np.nan
    assert np.isnan(cysoftmax.cross_entropy(x, np.zeros(40, int), reduction=reduction))
    grad = cysoftmax.cross_entropy_grad(x, np.zeros(40, int), reduction=reduction)
    assert np.isnan(grad[7]).all()
    assert np.isfinite(np.delete(grad, 7, 0)).all()


# ---------------------------------------------------------------- infinities


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", REAL)
def test_a_row_with_plus_inf_is_nan_and_its_logsumexp_inf(dtype, order, isa):
    for n_classes in WIDTHS:
        x = some_logits((2 * n_classes, n_classes), dtype).copy(order=order)
        labels = np.arange(2 * n_classes) % n_classes
        infinite, finite = np.arange(0, 2 * n_classes, 2), np.arange(1, 2 * n_classes, 2)
        x[infinite, np.arange(n_classes)] = np.inf
        got = results(x, labels)
        assert (got["logsumexp"][infinite] == np.inf).all()
        assert_finite({name: result[finite] for name, result in got.items()})
        del got["logsumexp"]
        assert_all_nan(got, infinite)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", REAL)
def test_a_row_of_minus_inf_is_nan_and_its_logsumexp_minus_inf(dtype, order, isa):
    for n_classes in WIDTHS:
        x = some_logits((20, n_classes), dtype).copy(order=order)
        x[::2] = -np.inf
        got = results(x, np.arange(20) % n_classes)
        assert (got["logsumexp"][::2] == -np.inf).all()
        assert_finite({name: result[1::2] for name, result in got.items()})
        del got["logsumexp"]
        assert_all_nan(got, slice(None, None, 2))


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("place", [0, 16384, 39_999])
def test_infinities_in_long_rows_are_treated_as_in_short_ones(place, dtype, n_threads, isa):
    x = some_logits((2, 40_000), dtype)
    x[0, place] = np.inf
    x[1] = -np.inf
    got = results(x, np.array([5, 39_999]), n_threads=n_threads)
    np.testing.assert_array_equal(got.pop("logsumexp"), [np.inf, -np.inf])
    assert_all_nan(got, slice(None))


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [1, 2, 3, 4])
def test_special_values_give_what_scipy_gives(n_classes, dtype, isa):
    big = float(np.finfo(dtype).max)
    values = [-np.inf, np.inf, np.nan, 0.0, 1.0, -1e4, big, -big]
    x = np.array(list(product(values, repeat=n_classes)), dtype)
    wide = x.astype(np.float64)
    with np.errstate(all="ignore"):
        softmax, logsumexp = special.softmax(wide, -1), special.logsumexp(wide, -1)
    rtol = 4 * np.finfo(dtype).eps
    np.testing.assert_allclose(cysoftmax.softmax(x), softmax, rtol=rtol)
    np.testing.assert_allclose(cysoftmax.logsumexp(x), logsumexp, rtol=rtol)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", REAL)
def test_minus_inf_gets_probability_zero(dtype, order, isa):
    rng = np.random.default_rng(0)
    for n_classes in WIDTHS:
        x = some_logits((20, n_classes), dtype).copy(order=order)
        masked = rng.random(x.shape) < 0.5
        labels = rng.integers(0, n_classes, 20)
        masked[np.arange(20), labels] = False
        x[masked] = -np.inf
        got = results(x, labels)
        for name in "softmax", "grad", "grad alone":
            assert (got[name][masked] == 0).all(), name
            assert not np.signbit(got[name][masked]).any(), name
        assert (got["log_softmax"][masked] == -np.inf).all()
        rtol = 4 * np.finfo(dtype).eps + 4e-15  # the latter is SciPy's
        with np.errstate(divide="ignore"):
            want = special.softmax(x.astype(np.float64), -1)
            want_log = special.log_softmax(x.astype(np.float64), -1)
        np.testing.assert_allclose(got["softmax"], want, rtol=rtol)
        np.testing.assert_allclose(got["log_softmax"], want_log, rtol=rtol, atol=rtol)
        np.testing.assert_allclose(
            got["loss"], -want_log[np.arange(20), labels], rtol=rtol, atol=rtol
        )


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [2, 5, 17, 40, 1030])
def test_a_target_on_minus_inf_gives_loss_inf(n_classes, dtype, isa):
    x = some_logits((20, n_classes), dtype)
    x[3, 1] = -np.inf
    labels = np.ones(20, int)
    distribution = np.full((20, n_classes), 1 / n_classes)
    others = np.arange(20) != 3
    for target in labels, one_hot(labels, n_classes), distribution:
        loss, grad = cysoftmax.cross_entropy_with_grad(x, target, reduction="none")
        assert loss[3] == np.inf
        assert np.isfinite(loss[others]).all()
        masses = one_hot(target, n_classes) if target.ndim == 1 else target
        want = special.softmax(x.astype(np.float64), -1) - masses
        np.testing.assert_allclose(grad, want, rtol=1e-6, atol=1e-6)
        assert grad[3, 1] == pytest.approx(-masses[3, 1], rel=2 * float(np.finfo(dtype).eps))
        for reduction in "mean", "sum":
            assert cysoftmax.cross_entropy(x, target, reduction=reduction) == np.inf
    assert cysoftmax.log_softmax(x)[3, 1] == -np.inf


@pytest.mark.parametrize("dtype", REAL)
def test_targets_on_minus_inf_in_all_rows_give_loss_inf(dtype, isa):
    for n_rows in 1, 2, 16, 17, 100, 5000:
        x = np.tile(np.array([0, -np.inf, 1], dtype), (n_rows, 1))
        assert cysoftmax.cross_entropy(x, np.ones(n_rows, int)) == np.inf
        assert cysoftmax.cross_entropy(x, np.tile([0, 1, 0], (n_rows, 1))) == np.inf


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("finite", [0, 1023, 1024, 16384, 69_999])
def test_one_finite_logit_among_minus_inf_has_probability_one(finite, dtype, n_threads, isa):
    x = np.full((1, 70_000), -np.inf, dtype)
    x[0, finite] = -5
    want = np.zeros((1, 70_000), dtype)
    want[0, finite] = 1
    np.testing.assert_array_equal(cysoftmax.softmax(x, n_threads=n_threads), want)
    assert cysoftmax.logsumexp(x, n_threads=n_threads) == -5
    loss, grad = cysoftmax.cross_entropy_with_grad(x, [finite], n_threads=n_threads)
    assert loss == 0
    np.testing.assert_array_equal(grad, np.zeros_like(x))


# ---------------------------------------------------------------- underflow

# Logits below the maximum whose exp is a denormal, from the largest to the smallest.
DENORMAL = {np.float32: np.linspace(-87.4, -103.9, 200), np.float64: np.linspace(-708.5, -745, 200)}


def assert_within_denormal_ulp(got, want, ulp=1):
    """Errors up to the spacing of the denormals, or of the result where that is normal."""
    spacing = np.maximum(
        np.spacing(np.abs(want).astype(got.dtype)).astype(np.longdouble),
        np.finfo(got.dtype).smallest_subnormal,
    )
    assert (np.abs(got.astype(np.longdouble) - want) <= ulp * spacing).all()


@pytest.mark.parametrize("n_classes", [2, 40])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", REAL)
def test_underflow_of_probabilities_is_gradual(dtype, order, n_classes, isa):
    x = np.full((200, n_classes), -np.inf, dtype)
    x[:, 0] = 0
    x[:, 1] = DENORMAL[dtype]
    x = x.copy(order=order)
    want = np.exp(x[:, 1].astype(np.longdouble))
    assert (want < np.finfo(dtype).tiny).all()
    assert (want > np.finfo(dtype).smallest_subnormal / 2).all()
    got = cysoftmax.softmax(x)[:, 1]
    assert (got > 0).all()
    assert_within_denormal_ulp(got, want)
    assert (cysoftmax.softmax(x)[:, 0] == 1).all()


@pytest.mark.parametrize("dtype", REAL)
def test_underflow_below_half_of_the_smallest_denormal_is_zero(dtype, isa):
    for below in {
        np.float32: (-104.2, -115.5, -115.9, -116.4, -200, -1e30),
        np.float64: (-746, -841.9, -842.3, -843, -2000, -1e300),
    }[dtype]:
        for n_classes in 2, 40:
            x = np.full((3, n_classes), below, dtype)
            x[:, 0] = 0
            p = cysoftmax.softmax(x)
            assert (p[:, 1:] == 0).all()
            assert (p[:, 0] == 1).all()


@pytest.mark.parametrize("n_classes", [2, 40])
@pytest.mark.parametrize("dtype", REAL)
def test_underflow_of_losses_is_gradual(dtype, n_classes, isa):
    x = np.full((200, n_classes), -np.inf, dtype)
    x[:, 0] = 0
    x[:, 1] = DENORMAL[dtype]
    want = np.exp(x[:, 1].astype(np.longdouble))
    for target in np.zeros(200, int), one_hot(np.zeros(200, int), n_classes):
        loss, grad = cysoftmax.cross_entropy_with_grad(x, target, reduction="none")
        assert (loss > 0).all()
        assert_within_denormal_ulp(loss, want)
        assert_within_denormal_ulp(grad[:, 1], want)
        assert_within_denormal_ulp(grad[:, 0], -want)
        total = cysoftmax.cross_entropy(x, target, reduction="sum")
        assert total == pytest.approx(float(want.sum()), rel=1e-6, abs=200 * 5e-324)
    assert_within_denormal_ulp(-cysoftmax.log_softmax(x)[:, 0], want)
    assert_within_denormal_ulp(cysoftmax.logsumexp(x), want)


@pytest.mark.parametrize("n_classes", [3, 40])
@pytest.mark.parametrize("dtype", REAL)
def test_underflow_of_scaled_gradients_is_gradual(dtype, n_classes, isa):
    x, labels = some_logits((20, n_classes), dtype), np.arange(20) % 3
    scale = float(np.finfo(dtype).tiny) / 16
    want = cysoftmax.cross_entropy_grad(x, labels).astype(np.longdouble) * scale
    for target in labels, one_hot(labels, n_classes):
        got = cysoftmax.cross_entropy_grad(x, target, scale=scale)
        assert_within_denormal_ulp(got, want, 4)
        assert (got != 0).sum() > 10


@pytest.mark.parametrize("dtype", REAL)
def test_denormal_logits_are_logits_like_others(dtype, isa):
    small = np.finfo(dtype).smallest_subnormal
    for n_classes in 1, 5, 40:
        x = np.full((3, n_classes), -np.inf, dtype)
        x[:, 0] = [small, -small, 1000 * small]
        np.testing.assert_array_equal(cysoftmax.logsumexp(x), x[:, 0])
        x[:] = x[:, :1]
        np.testing.assert_array_equal(cysoftmax.softmax(x), cysoftmax.softmax(np.zeros_like(x)))
    p = np.array([[small, 3 * small]])
    v = np.array([[2.0, 4.0]], dtype)
    np.testing.assert_array_equal(cysoftmax.softmax_vjp(p.astype(dtype), v), p * v)


# ---------------------------------------------------------------- extreme logits


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [2, 3, 17, 40])
def test_the_largest_and_lowest_logits_are_like_others(n_classes, dtype, isa):
    big = np.finfo(dtype).max
    for value in big, -big:
        x = np.full((20, n_classes), value, dtype)
        np.testing.assert_allclose(cysoftmax.softmax(x), 1 / n_classes, rtol=1e-6)
        np.testing.assert_allclose(cysoftmax.log_softmax(x), -np.log(n_classes), rtol=1e-6)
        np.testing.assert_array_equal(cysoftmax.logsumexp(x), x[:, 0])
        loss, grad = cysoftmax.cross_entropy_with_grad(x, np.zeros(20, int))
        assert loss == pytest.approx(np.log(n_classes), rel=1e-6)
        np.testing.assert_allclose(20 * grad[:, 1:], 1 / n_classes, rtol=1e-6)
    x = np.full((20, n_classes), -big, dtype)
    x[:, 1] = big
    want = one_hot(np.ones(20, int), n_classes)
    np.testing.assert_array_equal(cysoftmax.softmax(x), want)
    np.testing.assert_array_equal(cysoftmax.log_softmax(x), np.where(want, 0, -np.inf))
    np.testing.assert_array_equal(cysoftmax.logsumexp(x), x[:, 1])
    assert cysoftmax.cross_entropy(x, np.ones(20, int)) == 0
    spread = 2 * float(big) if dtype is np.float32 else np.inf
    for target in np.zeros(20, int), one_hot(np.zeros(20, int), n_classes):
        loss, grad = cysoftmax.cross_entropy_with_grad(x, target)
        assert loss == pytest.approx(spread, rel=1e-15)
        np.testing.assert_allclose(20 * grad[:, :2], np.tile([-1, 1], (20, 1)), rtol=1e-6)
        assert (grad[:, 2:] == 0).all()


@pytest.mark.parametrize("dtype", REAL)
def test_a_loss_beyond_the_largest_number_is_inf(dtype, isa):
    big = np.finfo(dtype).max
    x = np.array([[big, -big], [-big, 0]], dtype)
    for target in np.array([1, 0]), one_hot([1, 0], 2):
        loss = cysoftmax.cross_entropy(x, target, reduction="none")
        np.testing.assert_array_equal(loss, np.array([np.inf, big], dtype))
        loss, _ = cysoftmax.cross_entropy_with_grad(x, target, reduction="none")
        np.testing.assert_array_equal(loss, np.array([np.inf, big], dtype))


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("spread", [1e2, 1e5, 1e37])
def test_a_huge_spread_of_logits_gives_what_scipy_gives(spread, dtype, isa):
    for n_classes in WIDTHS:
        x = (spread * np.random.default_rng(0).uniform(-1, 1, (20, n_classes))).astype(dtype)
        labels = np.arange(20) % n_classes
        wide = x.astype(np.float64)
        p, logarithms = special.softmax(wide, -1), special.log_softmax(wide, -1)
        rtol, tiny = 4 * np.finfo(dtype).eps, float(np.finfo(dtype).smallest_subnormal)
        got = results(x, labels)
        # SciPy's own error is that of exp for large arguments.
        np.testing.assert_allclose(got["softmax"], p, rtol=1e-13 + rtol, atol=tiny)
        np.testing.assert_allclose(got["log_softmax"], logarithms, rtol=rtol, atol=1e-15)
        np.testing.assert_allclose(
            got["loss"], -logarithms[np.arange(20), labels], rtol=rtol, atol=1e-15
        )


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("logit", [0.0, -0.0, 1.0, -1e30, 1e30, "max", "lowest"])
def test_one_class_has_probability_one_and_loss_zero(logit, dtype, isa):
    logit = {"max": np.finfo(dtype).max, "lowest": np.finfo(dtype).min}.get(logit, logit)
    for n_rows in 1, 16, 20:
        x = np.full((n_rows, 1), logit, dtype)
        ones, zeros = np.ones_like(x), np.zeros_like(x)
        np.testing.assert_array_equal(cysoftmax.softmax(x), ones)
        np.testing.assert_array_equal(cysoftmax.log_softmax(x), zeros)
        np.testing.assert_array_equal(cysoftmax.logsumexp(x), x[:, 0])
        for target in np.zeros(n_rows, int), np.ones((n_rows, 1)):
            loss, grad = cysoftmax.cross_entropy_with_grad(x, target)
            assert loss == 0
            np.testing.assert_array_equal(grad, zeros)


def test_a_confident_row_has_no_negative_zero_for_its_loss(isa):
    for x in np.array([[1000.0, 0.0]]), np.array([[5.0]]):
        for target in [0], one_hot([0], x.shape[1]):
            assert not np.signbit(cysoftmax.cross_entropy(x, target))
            assert not np.signbit(cysoftmax.cross_entropy(x, target, reduction="none")).any()


# ---------------------------------------------------------------- infinite masses


@pytest.mark.parametrize("dtype", REAL)
def test_an_infinite_mass_makes_its_row_nan_in_every_layout_and_batch(dtype, isa):
    for n_classes in WIDTHS:
        x, target = np.zeros((33, n_classes), dtype), np.ones((33, n_classes), dtype)
        target[::2, n_classes // 2] = np.inf
        sparse_target = csr_array(target)
        for logits in x, np.asfortranarray(x):
            for masses in target, np.asfortranarray(target), sparse_target:
                got = cysoftmax.cross_entropy_with_grad(logits, masses, reduction="none")
                assert np.isnan(got.loss[::2]).all(), n_classes
                assert np.isnan(got.grad[::2]).all(), n_classes
                assert np.isfinite(got.grad[1::2]).all(), n_classes
        alone = cysoftmax.cross_entropy_with_grad(x[:1], target[:1], reduction="none")
        assert np.isnan(alone.loss).all(), n_classes
        assert np.isnan(alone.grad).all(), n_classes
