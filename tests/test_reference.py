"""The reference of the options: against numbers done by hand, and against finite differences."""

import numpy as np
import pytest
import reference
from cases import one_hot, some_logits, some_masses, some_options

LONG = np.longdouble


def near(got, want):
    np.testing.assert_allclose(np.asarray(got, float), want, rtol=1e-14, atol=1e-15)


# p = (1/8, 1/4, 5/8)
X = np.log(np.array([[1, 2, 5]], LONG))
P = np.array([1 / 8, 1 / 4, 5 / 8])
ONE = [[0, 1, 0]]


def test_a_plain_row_by_hand():
    rows = reference.cross_entropy(X, ONE)
    near(rows.loss, [np.log(4)])
    near(rows.weight, [1])
    near(rows.grad, [[1 / 8, -3 / 4, 5 / 8]])
    near(rows.hess, [P * (1 - P)])
    near(rows.grad_size, [[1 / 8, 1, 5 / 8]])


def test_weights_by_hand():
    rows = reference.cross_entropy(X, ONE, class_weight=[5, 2, 7], sample_weight=[3])
    near(rows.loss, [6 * np.log(4)])
    near(rows.weight, [6])
    near(rows.grad, [[6 / 8, -18 / 4, 30 / 8]])
    near(rows.hess, [6 * P * (1 - P)])


def test_smoothing_by_hand():
    rows = reference.cross_entropy(X, ONE, label_smoothing=0.75)  # T' = (1/4, 1/2, 1/4)
    near(rows.loss, [np.log(8) / 4 + np.log(4) / 2 + np.log(8 / 5) / 4])
    near(rows.grad, [[1 / 8 - 1 / 4, 1 / 4 - 1 / 2, 5 / 8 - 1 / 4]])
    rows = reference.cross_entropy(X, ONE, label_smoothing=0.75, class_weight=[4, 1, 0])
    near(rows.loss, [np.log(8) + np.log(4) / 2])
    near(rows.grad, [[1.5 / 8 - 1, 1.5 / 4 - 1 / 2, 1.5 * 5 / 8]])
    near(rows.weight, [1])


def test_z_loss_by_hand():
    rows = reference.cross_entropy(X, ONE, z_loss=0.5, sample_weight=3)
    lse = np.log(8)
    near(rows.loss, [3 * (np.log(4) + 0.5 * lse**2)])
    near(rows.grad, [3 * ((1 + lse) * P - np.array(ONE[0]))])


def test_temperature_by_hand():
    x = LONG(3) * X
    rows = reference.cross_entropy(x, ONE, temperature=3)
    near(rows.loss, [np.log(4)])
    near(rows.grad, [[1 / 24, -1 / 4, 5 / 24]])
    near(reference.tempered(x, 3).lse, [[np.log(8)]])


def test_where_by_hand():
    where = [[True, True, False]]
    for junk in 7, np.nan, np.inf:
        x = X.copy()
        x[0, 2] = junk
        rows = reference.cross_entropy(x, ONE, where=where, label_smoothing=0.5)
        near(rows.loss, [0.75 * np.log(3 / 2) + 0.25 * np.log(3)])
        near(rows.grad, [[1 / 3 - 1 / 4, 2 / 3 - 3 / 4, 0]])
        stats = reference.row_stats(x, ONE, where=where)
        near(stats.logsumexp, [np.log(3)])
        near(stats.entropy, [np.log(3) - 2 / 3 * np.log(2)])
        near(stats.max_prob, [2 / 3])
        near(stats.target_prob, [2 / 3])


def test_a_label_on_a_masked_class_by_hand():
    rows = reference.cross_entropy(X, [[0, 0, 1]], where=[[True, True, False]])
    assert rows.loss == np.inf
    near(rows.grad, [[1 / 3, 2 / 3, 0]])
    near(rows.weight, [1])


def test_ignored_rows_by_hand():
    x = np.full((3, 3), np.nan)
    target = [[0, 0, 0], [0, 1, 0], [0, 1, 0]]
    where = np.array([[True] * 3, [True] * 3, [False] * 3])
    rows = reference.cross_entropy(x, target, sample_weight=[1, 0, 1], z_loss=1, where=where)
    for field in rows:
        assert (field == 0).all()


def test_a_row_with_nan_or_inf_is_nan_where_it_is_not_masked():
    for junk in np.nan, np.inf:
        x = X.copy()
        x[0, 0] = junk
        rows = reference.cross_entropy(x, ONE, where=[[True, True, False]])
        assert np.isnan(rows.loss)
        np.testing.assert_array_equal(rows.grad, [[np.nan, np.nan, 0]])


def test_confident_rows_keep_their_accuracy():
    x = np.array([[80.0, 0, -1]])
    rows = reference.cross_entropy(x, [[1, 0, 0]], class_weight=[2, 1, 1])
    rest = np.exp(-80.0) + np.exp(-81.0)
    near(rows.loss / rest, [2])
    near(rows.grad / rest, [[-2, 2 * np.exp(-80.0) / rest, 2 * np.exp(-81.0) / rest]])
    near(rows.hess[0, 0] / rest, 2)
    near(reference.row_stats(x, [[1, 0, 0]]).entropy / rest, 81 + np.exp(-81.0) / rest)


@pytest.mark.parametrize("labels", [True, False])
def test_the_gradient_is_that_of_the_loss(labels):
    shape = 5, 7
    target = one_hot([1, 0, 3, 6, 2], 7) if labels else some_masses(shape)
    options = some_options(shape)
    target = target * options["where"]  # or the loss is inf
    x = some_logits(shape).astype(LONG)
    rows = reference.cross_entropy(x, target, **options)
    assert (rows.loss != 0).sum() > 1
    step = LONG(1e-5)
    for c in range(7):
        above, below = x.copy(), x.copy()
        above[:, c] += step
        below[:, c] -= step
        slope = reference.cross_entropy(above, target, **options).loss
        slope = (slope - reference.cross_entropy(below, target, **options).loss) / (2 * step)
        np.testing.assert_allclose(
            slope.astype(float), rows.grad[:, c].astype(float), rtol=1e-7, atol=1e-9
        )


def test_the_hessian_is_that_of_the_loss():
    shape = 5, 7
    options = {"class_weight": np.arange(1.0, 8), "sample_weight": np.arange(1.0, 6)}
    x, target = some_logits(shape).astype(LONG), some_masses(shape)
    hess = reference.cross_entropy(x, target, **options).hess
    step = LONG(1e-5)
    for c in range(7):
        above, below = x.copy(), x.copy()
        above[:, c] += step
        below[:, c] -= step
        slope = reference.cross_entropy(above, target, **options).grad
        slope = (slope - reference.cross_entropy(below, target, **options).grad) / (2 * step)
        np.testing.assert_allclose(slope[:, c].astype(float), hess[:, c].astype(float), rtol=1e-7)


def test_reductions_by_hand():
    rows = reference.cross_entropy(
        np.concatenate([X, X]), [[0, 1, 0], [0, 0, 1]], sample_weight=[1, 3]
    )
    near(reference.reduced(rows, "sum")[0], np.log(4) + 3 * np.log(8 / 5))
    near(reference.reduced(rows, "mean")[0], (np.log(4) + 3 * np.log(8 / 5)) / 4)
    near(reference.reduced(rows, "mean", [4, -8])[1], [[1 / 8, -3 / 4, 5 / 8],
                                                       [-6 / 8, -6 / 4, 18 / 8]])  # fmt: skip
    near(reference.reduced(rows, "none", [4, -8])[0], [np.log(4), 3 * np.log(8 / 5)])
    nothing = reference.cross_entropy(X, [[0, 0, 0]])
    assert np.isnan(reference.reduced(nothing, "mean")[0])
    assert (reference.reduced(nothing, "mean")[1] == 0).all()
    assert reference.reduced(nothing, "sum")[0] == 0
