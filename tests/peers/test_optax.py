"""The losses agree with optax's, masks and smoothing too, and the gradients with JAX's."""

from functools import partial

import numpy as np
import pytest
from comparison import (
    ATOL,
    FINITE,
    LOGITS,
    agree,
    check_line,
    lines_of,
    rounding_of_logits,
    some_inputs,
    some_labels,
    some_masses,
)

import cysoftmax

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")

jnp = jax.numpy
jax.config.update("jax_enable_x64", True)
pytestmark = pytest.mark.peers

by_logits = pytest.mark.parametrize("x", LOGITS.values(), ids=LOGITS.keys())
by_finite_logits = pytest.mark.parametrize("x", FINITE.values(), ids=FINITE.keys())
by_mask = pytest.mark.parametrize("masked", [None, "classes", "rows", "both"])


def mask_of(x, labels, masked):
    """A mask that leaves the labels, or some of the rows, or both."""
    random = np.random.default_rng(6)
    where = np.ones(x.shape, bool)
    if masked in ("classes", "both"):
        where = (random.random(x.shape) < 0.6) | (labels[:, None] == np.arange(x.shape[1]))
    if masked in ("rows", "both"):
        where &= random.random((len(x), 1)) < 0.6
    return where


def of_labels(x, labels, where):
    return optax.softmax_cross_entropy_with_integer_labels(x, labels, where=where)


def of_masses(x, masses, where):
    return optax.softmax_cross_entropy(x, masses, where=where)


@partial(jax.jit, static_argnums=0)
def losses_and_grad(loss_of, x, *given):
    losses, pullback = jax.vjp(lambda x: loss_of(x, *given), x)
    return losses, *pullback(jnp.ones_like(losses))


def check(ours, loss_of, x, *given, atol=ATOL):
    """Hold losses and gradient against a function of the logits and its gradient by JAX."""
    losses, grad = losses_and_grad(loss_of, x, *given)
    agree(ours.loss, np.asarray(losses), atol)
    agree(ours.grad, np.asarray(grad))


@pytest.mark.parametrize("line", lines_of("optax"))
def test_each_line_of_the_page_holds(line):
    inputs = some_inputs()
    names = {name: jnp.asarray(array) for name, array in inputs.items()}
    check_line(line, inputs, names | {"jax": jax, "jnp": jnp, "optax": optax})


@by_mask
@by_logits
def test_losses_of_labels_agree(x, masked):
    labels = some_labels(x)
    where = mask_of(x, labels, masked)
    ours = cysoftmax.cross_entropy_with_grad(
        x, labels, where=where if masked else None, reduction="none"
    )
    check(ours, of_labels, x, labels, where, atol=rounding_of_logits(x))


@by_mask
@pytest.mark.parametrize("total", [1, None], ids=["distributions", "masses"])
@by_finite_logits
def test_losses_of_distributions_agree(x, masked, total):
    where = mask_of(x, some_labels(x), masked)
    masses = some_masses(x, total) * where
    ours = cysoftmax.cross_entropy_with_grad(
        x, masses, where=where if masked else None, reduction="none"
    )
    check(ours, of_masses, x, masses, where)


@by_logits
def test_masses_of_zero_at_minus_inf_agree_with_the_safe_variant(x):
    masses = some_masses(x) * (x > -np.inf)
    ours = cysoftmax.cross_entropy_with_grad(x, masses, reduction="none")
    check(ours, optax.safe_softmax_cross_entropy, x, masses)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("masked", [None, "classes"])
@by_finite_logits
def test_smoothed_labels_agree(x, masked, label_smoothing):
    labels = some_labels(x)
    where = mask_of(x, labels, masked)
    ours = cysoftmax.cross_entropy_with_grad(
        x, labels, where=where if masked else None, label_smoothing=label_smoothing,
        reduction="none",
    )  # fmt: skip
    one_hot = jax.nn.one_hot(labels, x.shape[1])
    smooth = optax.smooth_labels(one_hot, label_smoothing, where=where)
    check(ours, of_masses, x, smooth, where)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_losses_along_any_axis_agree(axis):
    x = np.random.default_rng(0).standard_normal((4, 5, 6))
    masses = np.random.default_rng(1).random(x.shape)
    labels = masses.argmax(axis=axis)
    ours = cysoftmax.cross_entropy_with_grad(x, labels, axis=axis, reduction="none")
    of_axis = partial(optax.softmax_cross_entropy_with_integer_labels, axis=axis)
    check(ours, of_axis, x, labels)
    ours = cysoftmax.cross_entropy_with_grad(x, masses, axis=axis, reduction="none")
    check(ours, partial(optax.softmax_cross_entropy, axis=axis), x, masses)


def test_what_is_masked_leaves_no_trace():
    x = np.array([[0.0, 1.0, np.nan], [np.inf, 2.0, 1.0], [np.nan, np.nan, np.nan]])
    where = np.array([[True, True, False], [False, True, True], [False, False, False]])
    labels = np.array([1, 2, 0])
    ours = cysoftmax.cross_entropy_with_grad(x, labels, where=where, reduction="none")
    check(ours, of_labels, x, labels, where)


@by_mask
@by_logits
def test_softmax_of_what_is_not_masked_agrees(x, masked):
    where = mask_of(x, some_labels(x), masked)
    for ours, theirs in (
        (cysoftmax.softmax, jax.nn.softmax),
        (cysoftmax.log_softmax, jax.nn.log_softmax),
    ):
        agree(ours(x, where=where), np.asarray(theirs(x, where=where)))
    theirs = jax.nn.logsumexp(x, axis=1, where=where)
    agree(cysoftmax.logsumexp(x, where=where), np.asarray(theirs))


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
def test_the_hessian_of_distributions_is_the_diagonal_of_jax(weighted):
    x = LOGITS["random"]
    masses = some_masses(x)
    weight = np.linspace(0, 2, x.shape[1]) if weighted else None
    ours = cysoftmax.cross_entropy_grad_hess(x, masses, class_weight=weight)

    def loss_of(x, masses):
        return optax.softmax_cross_entropy(x, masses if weight is None else masses * weight)

    theirs = jax.vmap(jax.grad(loss_of))(x, masses), jax.vmap(jax.hessian(loss_of))(x, masses)
    agree(ours, (np.asarray(theirs[0]), np.diagonal(theirs[1], axis1=1, axis2=2)))
