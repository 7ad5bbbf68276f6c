"""Label smoothing, and the penalty of a sum of exponentials far from 1."""

import numpy as np
import pytest
import reference
from cases import REAL, assert_formula, one_hot, results, some_labels, some_logits
from scipy import sparse

import cysoftmax
from cysoftmax import cross_entropy_with_grad


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [1, 3, 40, 1100])
def test_full_smoothing_forgets_the_label(n_classes, dtype, isa):
    x = some_logits((20, n_classes), dtype)
    uniform = reference.cross_entropy(x, np.full(x.shape, np.longdouble(1) / n_classes))
    for labels in some_labels(20, n_classes), np.zeros(20, int):
        loss, grad = cross_entropy_with_grad(x, labels, label_smoothing=1, reduction="none")
        assert_formula(loss, grad, uniform.loss, uniform.grad, uniform.grad_size)


def test_full_smoothing_over_a_masked_label_is_finite(isa):
    x, where = some_logits((20, 5)), np.ones((20, 5), bool)
    where[:, 2] = False
    for target in np.full(20, 2), one_hot(np.full(20, 2), 5):
        loss, grad = cross_entropy_with_grad(x, target, label_smoothing=1, where=where)
        want = cross_entropy_with_grad(np.delete(x, 2, 1), np.zeros(20, int), label_smoothing=1)
        assert loss == pytest.approx(want.loss, rel=1e-15)
        np.testing.assert_allclose(np.delete(grad, 2, 1), want.grad, rtol=1e-13, atol=1e-17)
        assert (grad[:, 2] == 0).all()


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [4, 40, 1100])
def test_one_class_left_has_loss_zero_and_z_loss_beside(n_classes, dtype, isa):
    x, labels = some_logits((20, n_classes), dtype), some_labels(20, n_classes)
    where = one_hot(labels, n_classes, bool)
    for more in {}, {"label_smoothing": 0.3}, {"temperature": 0.1}:
        loss, grad = cross_entropy_with_grad(x, labels, where=where, reduction="none", **more)
        assert (loss == 0).all()
        eps = np.finfo(dtype).eps if "label_smoothing" in more else 0
        assert (np.abs(grad) <= eps * where).all()
    loss, grad = cross_entropy_with_grad(x, labels, where=where, z_loss=0.5, reduction="none")
    logit = x[np.arange(20), labels]
    np.testing.assert_allclose(loss, logit**2 / 2, rtol=1e-6)
    np.testing.assert_allclose(grad, where * logit[:, None], rtol=1e-6)


@pytest.mark.parametrize("dtype", REAL)
def test_one_class_has_loss_zero_with_all_options(dtype, isa):
    for n_rows in 1, 16, 20:
        x = some_logits((n_rows, 1), dtype)
        options = {"class_weight": [2.0], "sample_weight": np.full(n_rows, 3.0),
                   "label_smoothing": 0.2, "temperature": 0.3,
                   "where": np.ones((n_rows, 1), bool)}  # fmt: skip
        for target in np.zeros(n_rows, int), np.ones((n_rows, 1)):
            got = results(x, target, **options)
            assert got["loss"] == got["loss alone"] == 0
            assert not np.signbit(got["loss"])
            assert (np.abs(got["grad"]) <= 20 * np.finfo(dtype).eps).all()


@pytest.mark.parametrize("dtype", REAL)
def test_z_loss_holds_where_logsumexp_is_near_zero(dtype, isa):
    x = np.log(np.arange(1, 10) / 45).astype(dtype)[None].repeat(20, 0)
    rows = reference.cross_entropy(x, one_hot(np.zeros(20, int), 9), z_loss=1)
    loss, grad = cross_entropy_with_grad(x, np.zeros(20, int), z_loss=1, reduction="none")
    assert_formula(loss, grad, rows.loss, rows.grad, rows.grad_size)


def test_a_small_share_keeps_its_gradient_where_z_loss_takes_away_what_multiplies_p():
    """b is nearly 0, and s A much smaller still: neither may stand for the other."""
    x = np.array([[-4.9999999995, -34.9999999995]])
    target = np.array([[1 - 1e-9, 1e-9]])
    wide = x.astype(np.longdouble)
    e = np.exp(wide - wide.max())
    p = e / e.sum()
    lse = wide.max() + np.log(e.sum())
    mass = target.astype(np.longdouble).sum()
    exact = (mass + 2 * np.longdouble(0.1) * mass * lse) * p - target
    for same in target, sparse.csr_array(target):
        grad = cysoftmax.cross_entropy_grad(x, same, z_loss=0.1, reduction="none")
        assert abs(grad[0, 1] - exact[0, 1]) <= 1e-15 * target[0, 1]
