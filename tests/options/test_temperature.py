"""What the logits are divided by."""

import bounds
import numpy as np
import pytest
import reference
from cases import REAL, assert_formula, assert_same_bits, one_hot, results, some_labels, some_logits

import cysoftmax
from cysoftmax import cross_entropy, cross_entropy_with_grad

LEAST, LARGEST = 2.0**-60, 2.0**60


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("temperature", [0.7, 3, 1 / 3, 1e-3, 1e3, 1.01 * LEAST, 0.99 * LARGEST])
@pytest.mark.parametrize("shift", [0, 1e4])
def test_a_temperature_costs_no_accuracy(shift, temperature, dtype, isa):
    for n_classes in 3, 10, 33, 130, 1025:
        x = (temperature * some_logits((19, n_classes)) + shift * max(1, temperature)).astype(dtype)
        labels = some_labels(19, n_classes)
        rows = reference.tempered(x, temperature)
        p = cysoftmax.softmax(x, temperature=temperature)
        assert reference.error_in_ulp(p, rows.e / rows.total) <= bounds.SOFTMAX.on(isa)
        log_p = cysoftmax.log_softmax(x, temperature=temperature)
        assert reference.error_in_ulp(log_p, rows.d - rows.log_total) <= bounds.LOG_SOFTMAX.on(isa)
        loss = cross_entropy(x, labels, temperature=temperature, reduction="none")
        exact = reference.cross_entropy(x, one_hot(labels, n_classes), temperature=temperature)
        assert reference.error_in_ulp(loss, exact.loss) <= bounds.LOSS.on(isa)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [2, 10, 33, 1000])
@pytest.mark.parametrize("temperature", [0.7, 1.0, 3.0])
def test_confident_rows_keep_full_relative_accuracy(temperature, n_classes, dtype, isa):
    x = some_logits((16, n_classes), dtype) / 3
    labels = np.full(16, n_classes // 2)
    x[np.arange(16), labels] = temperature * np.linspace(10, 80, 16)
    options = {"class_weight": np.linspace(0.5, 2, n_classes).astype(np.float32),
               "sample_weight": np.linspace(0.3, 3, 16), "temperature": temperature}  # fmt: skip
    rows = reference.cross_entropy(x, one_hot(labels, n_classes), **options)
    for target in labels, one_hot(labels, n_classes):
        loss, grad = cross_entropy_with_grad(x, target, reduction="none", **options)
        assert_formula(loss, grad, rows.loss, rows.grad, rows.grad)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [3, 40, 1100])
def test_a_huge_temperature_makes_rows_uniform(n_classes, dtype, isa):
    x, labels = some_logits((20, n_classes), dtype), some_labels(20, n_classes)
    for temperature in LARGEST / 3, LARGEST:
        p = cysoftmax.softmax(x, temperature=temperature)
        np.testing.assert_allclose(p, 1 / n_classes, rtol=np.finfo(dtype).eps)
        loss, grad = cross_entropy_with_grad(x, labels, temperature=temperature, reduction="none")
        np.testing.assert_allclose(loss, np.log(n_classes), rtol=1e-6)
        want = (1 / n_classes - one_hot(labels, n_classes)) / temperature
        tiny = float(np.finfo(dtype).smallest_subnormal)
        np.testing.assert_allclose(grad, want, rtol=1e-6, atol=tiny)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("n_classes", [3, 40, 1100])
def test_a_tiny_temperature_leaves_the_largest_logit(n_classes, dtype, isa):
    x = some_logits((20, n_classes), dtype)
    x[0] = 1  # all of them
    x[1, :2] = 77, 77
    largest = (x == x.max(-1, keepdims=True)).astype(np.float64)
    want = largest / largest.sum(-1, keepdims=True)
    labels = np.argmax(x, -1)
    for temperature in 1e-6, 1e-12, LEAST:
        p = cysoftmax.softmax(x, temperature=temperature)
        np.testing.assert_allclose(p, want, rtol=1e-6, atol=0)
        log_p = cysoftmax.log_softmax(x, temperature=temperature)
        np.testing.assert_allclose(log_p[largest > 0], np.log(want[largest > 0]), rtol=1e-6)
        assert (log_p[largest == 0] < -1e3).all()
        for target in labels, one_hot(labels, n_classes):
            loss, grad = cross_entropy_with_grad(
                x, target, temperature=temperature, reduction="none"
            )
            np.testing.assert_allclose(loss, -np.log(want[np.arange(20), labels]), rtol=1e-6)
            assert (grad[2:] == 0).all()
            assert not np.isnan(grad).any()


@pytest.mark.parametrize("dtype", REAL)
def test_a_temperature_of_two_is_half_the_logits_to_a_few_ulp(dtype, isa):
    close = {"rtol": 4 * np.finfo(dtype).eps, "atol": 0}  # x - max is found in another way
    for n_classes in 3, 40, 1100:
        x, labels = some_logits((20, n_classes), dtype), some_labels(20, n_classes)
        for function in cysoftmax.softmax, cysoftmax.log_softmax:
            np.testing.assert_allclose(function(x, temperature=2), function(x / 2), **close)
        got = results(x, labels, temperature=2, z_loss=0.1)
        want = results(x / 2, labels, z_loss=0.1)
        want["grad"], want["grad alone"] = want["grad"] / 2, want["grad alone"] / 2
        for name in want:
            np.testing.assert_allclose(got[name], want[name], **close, err_msg=name)


def test_a_temperature_may_be_any_real_number():
    x = some_logits((3, 4))
    for two in 2, np.float32(2), np.int8(2), np.array(2.0):
        assert_same_bits(cysoftmax.softmax(x, temperature=two), cysoftmax.softmax(x / 2))


def test_a_loss_beyond_the_largest_number_is_inf_and_not_nan():
    x = np.array([[2.847899241491691e303, -3.9341813956458016e304]])
    for target in ([1], [[0.5, 0.5]]):
        assert cysoftmax.cross_entropy(x, target, temperature=LEAST) == np.inf
