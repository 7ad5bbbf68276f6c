"""-inf, NaN and huge logits, with options."""

import numpy as np
import pytest
import reference
from cases import REAL, assert_formula, assert_same_bits, one_hot, problem, results, some_logits
from scipy import sparse

import cysoftmax
from cysoftmax import cross_entropy, cross_entropy_with_grad


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [4, 40, 1100])
def test_minus_inf_without_mass_contributes_nothing_with_all_options(n_classes, dtype, isa):
    x = some_logits((20, n_classes), dtype)
    x[:, 1] = -np.inf
    options = {"class_weight": np.linspace(1, 2, n_classes).astype(np.float32),
               "sample_weight": np.linspace(0.1, 2, 20), "z_loss": 0.1,
               "temperature": 0.7}  # fmt: skip
    matrix = one_hot(np.full(20, 2), n_classes)
    rows = reference.cross_entropy(x, matrix, **options)
    for target in np.full(20, 2), matrix, sparse.csr_array(matrix):
        loss, grad = cross_entropy_with_grad(x, target, reduction="none", **options)
        assert_formula(loss, grad, rows.loss, rows.grad, rows.grad_size)
        assert_same_bits(grad[:, 1], np.zeros(20, dtype))


@pytest.mark.parametrize("n_classes", [4, 40, 1100])
def test_minus_inf_with_smoothed_mass_has_loss_inf(n_classes, isa):
    x = some_logits((20, n_classes))
    x[3, 1] = -np.inf
    weight = np.ones(n_classes)
    for target in np.full(20, 2), one_hot(np.full(20, 2), n_classes):
        loss = cross_entropy(x, target, label_smoothing=0.1, reduction="none")
        assert loss[3] == np.inf
        assert np.isfinite(np.delete(loss, 3)).all()
        weight[1] = 0  # 0 times inf is 0
        loss = cross_entropy(x, target, label_smoothing=0.1, class_weight=weight, reduction="none")
        assert np.isfinite(loss).all()


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [3, 40, 1100])
@pytest.mark.parametrize("junk", [np.nan, np.inf])
def test_nan_and_inf_spoil_their_row_alone_with_all_options(junk, n_classes, dtype, isa):
    x, target, options = problem((20, n_classes), dtype)
    clean = results(x, target, reduction="none", **options)
    options["where"][5, 0] = True
    target[5], options["sample_weight"][5] = (options["ignore_index"] + 1) % n_classes, 1
    x[5, 0] = junk
    for logits in x, np.asfortranarray(x):
        got = results(logits, target, reduction="none", **options)
        for name, result in got.items():
            assert_same_bits(np.delete(result, 5, 0), np.delete(clean[name], 5, 0), name)
            spoilt = result[5][options["where"][5]] if result.ndim == 2 else result[5]
            assert np.isnan(spoilt).all(), name


@pytest.mark.parametrize("dtype", REAL)
def test_huge_logits_are_like_others_with_options(dtype, isa):
    big = np.finfo(dtype).max
    for n_classes in 3, 40, 1100:
        for value in big, -big, 1e30:
            x = np.full((20, n_classes), value, dtype)
            for temperature in 0.5, 1, 3:
                p = cysoftmax.softmax(x, temperature=temperature)
                np.testing.assert_allclose(p, 1 / n_classes, rtol=1e-6)
                loss, grad = cross_entropy_with_grad(
                    x, np.zeros(20, int), temperature=temperature, label_smoothing=0.5,
                    class_weight=np.ones(n_classes), where=np.ones(n_classes, bool),
                )  # fmt: skip
                assert loss == pytest.approx(np.log(n_classes), rel=1e-6)
                np.testing.assert_allclose(
                    20 * temperature * grad[:, 1:], 0.5 / n_classes, rtol=1e-5
                )
