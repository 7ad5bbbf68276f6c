"""The softmax functions, the loss and the gradient by autograd agree with PyTorch's."""

import numpy as np
import pytest
from comparison import (
    FINITE,
    LOGITS,
    agree,
    check_line,
    lines_of,
    some_class_weights,
    some_inputs,
    some_labels,
    some_masses,
    some_sample_weights,
)

import cysoftmax

torch = pytest.importorskip("torch")

F = torch.nn.functional
pytestmark = pytest.mark.peers

REDUCTIONS = ["mean", "sum", "none"]
by_reduction = pytest.mark.parametrize("reduction", REDUCTIONS)
by_logits = pytest.mark.parametrize("x", LOGITS.values(), ids=LOGITS.keys())
by_weights = pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
by_smoothing = pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])


def to_torch(array):
    return None if array is None else torch.tensor(array)


def test_a_tensor_that_requires_grad_is_refused_with_the_way_out():
    with pytest.raises(RuntimeError, match=r"functions of cysoftmax\.torch keep gradients"):
        cysoftmax.softmax(torch.zeros(3, requires_grad=True))


def with_grad(loss_of, x):
    """The value of a function of logits, and the gradient of its sum by autograd."""
    x = torch.tensor(x, requires_grad=True)
    loss = loss_of(x)
    (grad,) = torch.autograd.grad(loss.sum(), x)
    return loss.detach().numpy(), grad.numpy()


def cross_entropy_of(x, target, weight=None, **options):
    def loss_of(x):
        return F.cross_entropy(x, to_torch(target), weight=to_torch(weight), **options)

    return with_grad(loss_of, x)


@pytest.mark.parametrize("line", lines_of("PyTorch"))
def test_each_line_of_the_page_holds(line):
    inputs = some_inputs()
    names = {name: to_torch(array) for name, array in inputs.items()}
    names["x"].requires_grad_()
    names |= {"torch": torch, "F": F, "grad": torch.autograd.grad}
    check_line(line, inputs, names, lambda tensor: tensor.detach().numpy())


@by_reduction
@by_weights
@by_smoothing
@pytest.mark.parametrize("ignore_index", [None, -100, 2])
@by_logits
def test_losses_of_labels_agree(x, reduction, weighted, label_smoothing, ignore_index):
    labels = some_labels(x)
    if ignore_index == -100:
        labels[2::3] = ignore_index
    weight = some_class_weights(x) if weighted else None
    ours = cysoftmax.cross_entropy_with_grad(
        x, labels, class_weight=weight, ignore_index=ignore_index,
        label_smoothing=label_smoothing, reduction=reduction,
    )  # fmt: skip
    ignored = {} if ignore_index is None else {"ignore_index": ignore_index}
    theirs = cross_entropy_of(
        x, labels, weight, label_smoothing=label_smoothing, reduction=reduction, **ignored
    )
    agree(ours, theirs)


@by_reduction
@by_weights
@by_smoothing
@pytest.mark.parametrize("shape", [(7,), (5, 7), (5, 7, 3), (2, 7, 3, 4)], ids=str)
def test_losses_of_any_number_of_dimensions_agree(shape, reduction, weighted, label_smoothing):
    random = np.random.default_rng(0)
    axis = min(1, len(shape) - 1)
    x = random.standard_normal(shape)
    labels = random.integers(0, 7, shape[:axis] + shape[axis + 1 :])
    weight = random.uniform(0.5, 2, 7) if weighted else None
    options = {"label_smoothing": label_smoothing, "reduction": reduction}
    ours = cysoftmax.cross_entropy_with_grad(x, labels, axis=axis, class_weight=weight, **options)
    agree(ours, cross_entropy_of(x, np.asarray(labels), weight, **options))


@by_reduction
@by_weights
@pytest.mark.parametrize(("total", "label_smoothing"), [(None, 0), (1, 0), (1, 0.1), (1, 1)])
@pytest.mark.parametrize("x", FINITE.values(), ids=FINITE.keys())
def test_losses_of_distributions_agree(x, reduction, weighted, label_smoothing, total):
    """But for what the page names: the mean, smoothed masses, and no mass at -inf."""
    masses = some_masses(x, total)
    weight = some_class_weights(x) if weighted else None
    mean = reduction == "mean"
    loss, grad = cysoftmax.cross_entropy_with_grad(
        x, masses, class_weight=weight, label_smoothing=label_smoothing,
        reduction="sum" if mean else reduction, scale=1 / max(len(x), 1) if mean else 1,
    )  # fmt: skip
    if mean:
        loss = np.divide(loss, len(x)) if len(x) else np.nan
    options = {"label_smoothing": float(label_smoothing), "reduction": reduction}
    agree((loss, grad), cross_entropy_of(x, masses, weight, **options))


@by_reduction
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("z_loss", [0.0, 0.01])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
@by_weights
@pytest.mark.parametrize("by_row", [False, True], ids=["", "sample_weight"])
@pytest.mark.parametrize("masked", [False, True], ids=["", "where"])
def test_the_gradient_of_the_full_formula_is_that_of_autograd(
    reduction, label_smoothing, z_loss, temperature, weighted, by_row, masked
):
    x = 3 * np.random.default_rng(0).standard_normal((40, 7))
    where = np.random.default_rng(1).random(x.shape) < 0.7 if masked else np.ones(x.shape, bool)
    masses = some_masses(x) * where
    weight = some_class_weights(x) if weighted else None
    rows = some_sample_weights(x) if by_row else None

    T, m = to_torch(masses), to_torch(where.astype(float))
    v = torch.ones(7, dtype=T.dtype) if weight is None else to_torch(weight)
    s = torch.ones(40, dtype=T.dtype) if rows is None else to_torch(rows)
    s = s * T.any(dim=1)  # rows without a target are ignored

    def loss_of(x):
        x = x / temperature
        mass, n_classes = T.sum(dim=1, keepdim=True), m.sum(dim=1, keepdim=True)
        A = v * ((1 - label_smoothing) * T + label_smoothing * m * mass / n_classes.clamp(min=1))
        lse = torch.logsumexp(x.masked_fill(m == 0, -1e300), dim=1)
        w = s * (v * T).sum(dim=1)
        losses = s * (A * (lse[:, None] - x)).sum(dim=1) + w * z_loss * lse**2
        return {"none": losses, "sum": losses.sum(), "mean": losses.sum() / w.sum()}[reduction]

    ours = cysoftmax.cross_entropy_with_grad(
        x, masses, class_weight=weight, sample_weight=rows, label_smoothing=label_smoothing,
        z_loss=z_loss, temperature=temperature, where=where if masked else None,
        reduction=reduction,
    )  # fmt: skip
    agree(ours, with_grad(loss_of, x))


@by_reduction
def test_special_logits_give_nan_and_inf_in_the_same_places(reduction):
    nan, inf = np.nan, np.inf
    rows = [[0, 1, 2], [0, nan, 1], [0, inf, 1], [-inf, -inf, -inf], [0, -inf, 1], [0, -inf, 1]]
    labels = np.array([2, 0, 1, 0, 1, 2])
    for chosen in ([0, 1, 2, 3, 4, 5], [0, 4, 5], [0, 5]):
        x = np.array(rows)[chosen]
        ours = cysoftmax.cross_entropy_with_grad(x, labels[chosen], reduction=reduction)
        agree(ours, cross_entropy_of(x, labels[chosen], reduction=reduction))


@by_reduction
def test_rows_that_are_all_ignored_have_the_same_loss_and_no_gradient(reduction):
    x, labels = np.ones((3, 4)), np.full(3, -100)
    ours = cysoftmax.cross_entropy_with_grad(x, labels, ignore_index=-100, reduction=reduction)
    agree(ours, cross_entropy_of(x, labels, reduction=reduction))
    assert not ours.grad.any()


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_softmax_and_its_jacobian_agree_along_any_axis(axis, temperature):
    x, v = np.random.default_rng(0).standard_normal((2, 4, 5, 6))
    ours = cysoftmax.softmax(x, axis=axis, temperature=temperature)
    agree(ours, F.softmax(to_torch(x) / temperature, dim=axis).numpy())
    agree(
        cysoftmax.log_softmax(x, axis=axis, temperature=temperature),
        F.log_softmax(to_torch(x) / temperature, dim=axis).numpy(),
    )
    agree(cysoftmax.logsumexp(x, axis=axis), torch.logsumexp(to_torch(x), dim=axis).numpy())
    _, theirs = with_grad(lambda x: F.softmax(x / temperature, dim=axis) * to_torch(v), x)
    agree(cysoftmax.softmax_vjp(ours, v, axis=axis) / temperature, theirs)
