"""Loss, gradient and Hessian agree with those of scikit-learn's HalfMultinomialLoss."""

import numpy as np
import pytest
from comparison import (
    LOGITS,
    agree,
    check_line,
    lines_of,
    rounding_of_logits,
    some_inputs,
    some_labels,
    some_sample_weights,
)

import cysoftmax

sklearn = pytest.importorskip("sklearn")
pytest.importorskip("sklearn.metrics")

HalfMultinomialLoss = pytest.importorskip("sklearn._loss").HalfMultinomialLoss
LinearModelLoss = pytest.importorskip("sklearn.linear_model._linear_loss").LinearModelLoss
pytestmark = pytest.mark.peers

# scikit-learn takes a single class for a problem of another kind.
MANY_CLASSES = {name: x for name, x in LOGITS.items() if x.shape[1] > 1}
by_logits = pytest.mark.parametrize("x", MANY_CLASSES.values(), ids=MANY_CLASSES.keys())
by_weights = pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])


def inputs_of(x, weighted):
    """Labels, weights, and scikit-learn's loss for as many classes."""
    labels = some_labels(x)
    weight = some_sample_weights(x) if weighted else None
    return labels, weight, HalfMultinomialLoss(n_classes=x.shape[1])


@pytest.mark.parametrize("line", lines_of("scikit-learn"))
def test_each_line_of_the_page_holds(line):
    inputs = some_inputs()
    inputs["yf"] = inputs["y"].astype(float)
    names = inputs | {"sklearn": sklearn, "loss": HalfMultinomialLoss(n_classes=4)}
    names["LinearModelLoss"] = LinearModelLoss
    check_line(line, inputs, names)


@by_weights
@by_logits
def test_the_loss_and_gradient_of_each_row_agree(x, weighted):
    labels, weight, loss = inputs_of(x, weighted)
    options = {"sample_weight": weight, "reduction": "none"}
    given = labels.astype(float), x, weight
    agree(cysoftmax.cross_entropy_grad(x, labels, **options), loss.gradient(*given))
    atol = rounding_of_logits(x)
    agree(cysoftmax.cross_entropy(x, labels, **options), loss.loss(*given), atol)
    ours = cysoftmax.cross_entropy_with_grad(x, labels, **options)
    agree(ours, loss.loss_gradient(*given), atol)


@by_weights
@by_logits
def test_the_mean_of_the_losses_agrees(x, weighted):
    labels, weight, loss = inputs_of(x, weighted)
    ours = cysoftmax.cross_entropy(x, labels, sample_weight=weight)
    if len(x):  # theirs warns, or raises, of a mean over nothing
        agree(ours, loss(labels.astype(float), x, weight), rounding_of_logits(x))
    else:
        assert np.isnan(ours)


@by_weights
@by_logits
def test_the_gradient_and_hessian_agree_in_either_layout(x, weighted):
    labels, weight, loss = inputs_of(x, weighted)
    theirs = loss.gradient_hessian(labels.astype(float), x, weight)
    agree(cysoftmax.cross_entropy_grad_hess(x, labels, sample_weight=weight), theirs)
    class_major = np.ascontiguousarray(x.T)
    ours = cysoftmax.cross_entropy_grad_hess(class_major, labels, axis=0, sample_weight=weight)
    agree(tuple(array.T for array in ours), theirs)


def test_special_logits_give_nan_and_inf_in_the_same_places():
    nan, inf = np.nan, np.inf
    rows = [[0, 1, 2], [0, nan, 1], [0, inf, 1], [-inf, -inf, -inf], [0, -inf, 1], [0, -inf, 1]]
    x, labels = np.array(rows), np.array([2, 0, 1, 0, 1, 2])
    loss = HalfMultinomialLoss(n_classes=3)
    theirs = loss.loss_gradient(labels.astype(float), x)
    agree(cysoftmax.cross_entropy_with_grad(x, labels, reduction="none"), theirs)
    theirs = loss.gradient_hessian(labels.astype(float), x)
    agree(cysoftmax.cross_entropy_grad_hess(x, labels), theirs)


def test_the_gradient_of_scikit_learns_linear_model_agrees():
    """Which divides by the sum of the weights."""
    linear = pytest.importorskip("sklearn.linear_model._linear_loss")
    random = np.random.default_rng(0)
    features, coefficients = random.standard_normal((30, 5)), random.standard_normal((4, 5))
    labels, weight = random.integers(0, 4, 30), random.uniform(0.5, 2, 30)
    model = linear.LinearModelLoss(HalfMultinomialLoss(n_classes=4), fit_intercept=False)
    theirs = model.loss_gradient(
        np.asfortranarray(coefficients), features, labels.astype(float), weight
    )
    ours = cysoftmax.cross_entropy_with_grad(
        features @ coefficients.T, labels, sample_weight=weight
    )
    agree((ours.loss, ours.grad.T @ features), theirs)
