"""Everything about a row in one read."""

import bounds
import numpy as np
import pytest
import reference
from cases import (
    REAL,
    assert_same_bits,
    one_hot,
    some_labels,
    some_logits,
    some_mask,
    some_masses,
)
from scipy import sparse

from cysoftmax import RowStats, cross_entropy, row_stats

SHAPES = [(37, 2), (37, 10), (18, 33), (6, 130), (3, 1025)]


def assert_same_stats(got, want, message=""):
    for name in RowStats._fields:
        a, b = getattr(got, name), getattr(want, name)
        if b is None:
            assert a is None, name
        else:
            assert_same_bits(a, b, f"{message} {name}:")


def test_one_row_by_hand(isa):
    x = np.log(np.array([1.0, 2, 5]))  # p = 1/8, 1/4, 5/8
    for target, masses in (1, [0, 1, 0]), (np.array([1, 0.5, 0.25]), [1, 0.5, 0.25]):
        got = row_stats(x, target)
        assert isinstance(got, RowStats)
        assert got.logsumexp == pytest.approx(np.log(8), rel=1e-15)
        assert got.loss == pytest.approx(masses @ np.log([8, 4, 8 / 5]), rel=1e-15)
        entropy = np.log(8) / 8 + np.log(4) / 4 + np.log(8 / 5) * 5 / 8
        assert got.entropy == pytest.approx(entropy, rel=1e-15)
        assert got.argmax == 2
        assert got.max_prob == pytest.approx(5 / 8, rel=1e-15)
        assert got.target_prob == pytest.approx(masses @ np.array([1, 2, 5]) / 8, rel=1e-15)


def test_without_a_target_there_is_no_loss(isa):
    for shape in SHAPES:
        x = some_logits(shape)
        got, want = row_stats(x), row_stats(x, np.zeros(shape[0], int))
        assert got.loss is None
        assert got.target_prob is None
        assert_same_stats(got, want._replace(loss=None, target_prob=None))


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("shape", SHAPES)
def test_all_are_within_their_bounds(shape, axis, dtype, isa):
    mask = some_mask(shape)
    mask[-1, 0] = True
    labels, masses = some_labels(shape[0], shape[1]), some_masses(shape)
    for spread in 1, 10:
        x = spread * some_logits(shape, dtype)
        logits = np.moveaxis(x, -1, axis).copy()
        for where in None, mask:
            more = {} if where is None else {"where": np.moveaxis(where, -1, axis)}
            for temperature in 1, 0.7, 3:
                for target, matrix in (labels, one_hot(labels, shape[1])), (masses, masses):
                    turned = np.moveaxis(target, -1, axis) if target.ndim == 2 else target
                    got = row_stats(logits, turned, axis=axis, temperature=temperature, **more)
                    exact = reference.row_stats(x, matrix, temperature, where)
                    counted = x if where is None else np.where(where, x, 0)
                    larger = np.max(np.abs(counted), -1) / temperature
                    larger = np.maximum(np.abs(exact.logsumexp), larger)
                    error = np.abs(got.logsumexp - exact.logsumexp) / reference.ulp(larger, dtype)
                    assert error.max() <= bounds.LOGSUMEXP.on(isa)
                    # Of p log p, with a p that is a denormal, not all bits are left.
                    size = np.maximum(exact.entropy, 300 * np.finfo(dtype).tiny)
                    error = np.abs(got.entropy - exact.entropy) / reference.ulp(size, dtype)
                    assert error.max() <= bounds.ENTROPY.on(isa)
                    error = reference.error_in_ulp(got.max_prob, exact.max_prob)
                    assert error <= bounds.MAX_PROB.on(isa)
                    error = reference.error_in_ulp(got.target_prob, exact.target_prob)
                    bound = bounds.TARGET_PROB if target.ndim == 2 else bounds.LABEL_PROB
                    assert error <= bound.on(isa)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [2, 3, 10, 33, 1000, 40_000])
def test_the_entropy_keeps_its_accuracy_in_confident_rows(n_classes, dtype, isa):
    x = some_logits((16, n_classes), dtype) / 3
    x[np.arange(16), n_classes // 2] = np.linspace(10, 80, 16)
    got = row_stats(x)
    exact = reference.row_stats(x, np.zeros_like(x))
    assert reference.error_in_ulp(got.entropy, exact.entropy) <= bounds.ENTROPY.on(isa)
    assert (got.entropy > 0).all()


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [2, 10, 33, 1000, 40_000])
def test_the_entropy_of_equal_logits_is_the_logarithm_of_their_number(n_classes, dtype, isa):
    for n_rows in 3, 20:
        got = row_stats(np.full((n_rows, n_classes), 0.3, dtype))
        exact = np.log(np.full(n_rows, n_classes, np.longdouble))
        assert reference.error_in_ulp(got.entropy, exact) <= bounds.ENTROPY.on(isa)
        assert (got.argmax == 0).all()


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_loss_is_that_of_cross_entropy(shape, dtype, isa):
    x, where = some_logits(shape, dtype), some_mask(shape)
    x[1, 0] += 30
    masses = some_masses(shape)
    for target in some_labels(shape[0], shape[1]), masses, sparse.csr_array(masses):
        for options in {}, {"where": where}, {"temperature": 0.7}, {"where": where,
                                                                   "temperature": 3}:  # fmt: skip
            want = cross_entropy(x, target, reduction="none", **options)
            assert_same_bits(row_stats(x, target, **options).loss, want)


# ---------------------------------------------------------------- ignore_index


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("shape", [(40, 5), (40, 50), (6, 1100), (3, 70_000)])
def test_an_ignored_row_has_loss_zero_and_all_else_of_its_logits(shape, dtype, isa):
    x, where = some_logits(shape, dtype), some_mask(shape)
    labels = some_labels(shape[0], shape[1])
    ignored = np.arange(shape[0]) % 3 == 1
    y = np.where(ignored, -7, labels)
    for options in {}, {"where": where}, {"temperature": 0.7}:
        for n_threads in 1, 2:
            got = row_stats(x, y, ignore_index=-7, n_threads=n_threads, **options)
            want = row_stats(x, labels, **options)
            want.loss[ignored] = want.target_prob[ignored] = 0
            assert_same_stats(got, want, f"{list(options)}")


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [4, 40, 1100])
def test_an_ignored_row_of_nan_has_loss_zero(n_classes, dtype, isa):
    x, labels = some_logits((20, n_classes), dtype), np.zeros(20, np.int8)
    x[3, 1], x[4], labels[3], labels[4] = np.nan, -np.inf, 2, 2
    got = row_stats(x, labels, ignore_index=2)
    np.testing.assert_array_equal(got.loss[3:5], 0)
    np.testing.assert_array_equal(got.target_prob[3:5], 0)
    np.testing.assert_array_equal(got.logsumexp[3:5], [np.nan, -np.inf])
    np.testing.assert_array_equal(got.argmax[3:5], [1, 0])
    assert np.isnan(got.entropy[3:5]).all()
    assert np.isfinite(np.delete(got, [3, 4], 1)).all()


def test_without_labels_ignore_index_has_no_meaning():
    x = some_logits((3, 4))
    for target in None, np.eye(3, 4), sparse.csr_array(np.eye(3, 4)):
        with pytest.raises(ValueError, match=r"^ignore_index must be None unless .*; got -100$"):
            row_stats(x, target, ignore_index=-100)


# ---------------------------------------------------------------- argmax


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [*range(1, 36), 64, 65, 130, 1025, 40_000])
def test_argmax_is_that_of_numpy(n_classes, dtype, isa):
    rng = np.random.default_rng(n_classes)
    n_rows = 40 if n_classes < 100 else 5
    rows = [
        rng.standard_normal((n_rows, n_classes)),
        rng.integers(-1, 2, (n_rows, n_classes)),  # many are equal
        rng.choice([-0.0, 0.0], (n_rows, n_classes)),
        rng.choice([np.nan, 1, 2], (n_rows, n_classes), p=[0.1, 0.5, 0.4]),
        rng.choice([np.inf, -np.inf, np.nan, 1], (n_rows, n_classes)),
        np.full((n_rows, n_classes), -np.inf),
        np.where(np.arange(n_classes) == n_classes - 1, 2.0, np.ones((n_rows, 1))),
    ]
    for row in rows:
        x = row.astype(dtype)
        for logits in x, np.asfortranarray(x):
            got = row_stats(logits).argmax
            assert got.dtype == np.intp
            np.testing.assert_array_equal(got, np.argmax(x, -1))
        where = rng.random(x.shape) < 0.5
        got = row_stats(x, where=where).argmax
        for i in range(n_rows):
            counted = np.flatnonzero(where[i])
            want = counted[np.argmax(x[i, counted])] if len(counted) else -1
            assert got[i] == want


@pytest.mark.parametrize("n_threads", [1, 2, 7])
@pytest.mark.parametrize("dtype", REAL)
def test_argmax_of_long_rows_is_the_first(n_threads, dtype, isa):
    x = np.zeros((2, 100_000), dtype)
    for places in [(5, 99_999), (40_000, 70_000), (99_998, 99_999), (1023, 1024)]:
        for value in 1, np.inf, np.nan:
            x[:] = 0
            x[1, list(places)] = value
            got = row_stats(x, n_threads=n_threads).argmax
            np.testing.assert_array_equal(got, [0, places[0]])


# ---------------------------------------------------------------- special values


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [4, 40, 1100])
def test_special_values_are_those_of_the_parts(n_classes, dtype, isa):
    x = some_logits((20, n_classes), dtype)
    x[0, 1], x[1, 2], x[2], x[3, 0] = np.nan, np.inf, -np.inf, -np.inf
    labels = np.zeros(20, int)
    for target in labels, one_hot(labels, n_classes), sparse.csr_array(one_hot(labels, n_classes)):
        got = row_stats(x, target)
        np.testing.assert_array_equal(got.logsumexp[:3], [np.nan, np.inf, -np.inf])
        np.testing.assert_array_equal(got.argmax, np.argmax(x, -1))
        for name in "loss", "entropy", "max_prob", "target_prob":
            assert np.isnan(getattr(got, name)[:3]).all(), name
            assert not np.isnan(getattr(got, name)[3:]).any(), name
        assert got.loss[3] == np.inf
        assert got.target_prob[3] == 0
        assert np.isfinite(got.entropy[3])
        assert np.isfinite(got.loss[4:]).all()


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [4, 40, 1100])
def test_masked_entries_leave_no_trace(n_classes, dtype, isa):
    x, where = some_logits((20, n_classes), dtype), some_mask((20, n_classes))
    labels = np.argmax(where, -1)
    x[~where] = 0
    want = row_stats(x, labels, where=where)
    assert np.isfinite(want.loss).all()
    for junk in np.nan, np.inf, -np.inf, np.finfo(dtype).max, np.finfo(dtype).min:
        x[~where] = junk
        for logits in x, np.asfortranarray(x):
            assert_same_stats(row_stats(logits, labels, where=where), want, junk)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [1, 4, 40, 1100, 70_000])
def test_a_row_of_which_nothing_is_left_is_empty(n_classes, dtype, isa):
    for n_rows in 2, 20 if n_classes < 70_000 else 3:
        x, where = some_logits((n_rows, n_classes), dtype), np.ones((n_rows, n_classes), bool)
        where[1] = False
        for junk in 1, np.nan, np.inf:
            x[1] = junk
            for target in np.zeros(n_rows, int), one_hot(np.zeros(n_rows, int), n_classes):
                got = row_stats(x, target, where=where)
                row = RowStats(*(array[1] for array in got))
                assert row == (-np.inf, 0, 0, -1, 0, 0)
                assert np.isfinite(got.logsumexp[0])


@pytest.mark.parametrize("n_classes", [4, 40, 1100])
def test_a_label_on_a_masked_class_has_loss_inf_and_probability_zero(n_classes, isa):
    x, where = some_logits((20, n_classes)), np.ones((20, n_classes), bool)
    where[:, 2] = False
    got = row_stats(x, np.full(20, 2), where=where)
    assert (got.loss == np.inf).all()
    assert (got.target_prob == 0).all()
    assert np.isfinite(got.entropy).all()


@pytest.mark.parametrize("dtype", REAL)
def test_one_class_has_entropy_zero_and_probability_one(dtype, isa):
    for n_rows in 1, 20:
        got = row_stats(np.full((n_rows, 1), 7, dtype), np.zeros(n_rows, int))
        for name, value in zip(RowStats._fields, (7, 0, 0, 0, 1, 1), strict=True):
            result = getattr(got, name)
            assert (result == value).all(), name
            assert not np.signbit(result).any(), name


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [4, 40, 1100])
def test_probabilities_that_underflow_have_no_entropy(n_classes, dtype, isa):
    x = np.full((20, n_classes), -1e6, dtype)
    x[:, 1] = 0
    got = row_stats(x, np.ones(20, int))
    assert (got.entropy == 0).all()
    assert not np.signbit(got.entropy).any()
    assert (got.max_prob == 1).all()
    x[:, 2] = -np.inf
    assert (row_stats(x).entropy == 0).all()


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("error", "message", "target", "options"),
    [
        (IndexError, r"^target must lie in \[0, 4\); got 4 at index \(1,\)", [0, 4, -1], {}),
        (TypeError, "^target must hold integers .*float64", [0.0, 1, 2], {}),
        (ValueError, r"^target must have shape .*; got \(2,\)", [0, 1], {}),
        (TypeError, r"^target must .*tocsr", sparse.csc_array(np.eye(3, 4)), {}),
        (ValueError, r"^temperature must .*; got 0", None, {"temperature": 0}),
        (TypeError, r"^temperature must .*; got str", None, {"temperature": "1"}),
        (TypeError, r"^where must .*; got .*int", None, {"where": np.ones((3, 4), int)}),
        (ValueError, r"^where must .*; got .*\(3,\)", None, {"where": np.ones(3, bool)}),
        (ValueError, r"^axis must .*; got 2", None, {"axis": 2}),
        (ValueError, r"^n_threads must .*; got 0", None, {"n_threads": 0}),
        (TypeError, "out", None, {"out": np.zeros(3)}),
        (TypeError, "class_weight", None, {"class_weight": None}),
    ],
)  # fmt: skip
def test_a_wrong_argument_has_its_error(error, message, target, options):
    x = some_logits((3, 4))
    before = x.copy()
    with pytest.raises(error, match=message):
        row_stats(x, target, **options)
    assert_same_bits(x, before)
