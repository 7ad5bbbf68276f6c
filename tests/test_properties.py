"""What must hold for any shapes, strides, dtypes and options: found by hypothesis."""

import bounds
import numpy as np
import pytest
import reference
from cases import (
    REDUCTIONS,
    assert_formula,
    assert_same_bits,
    assert_same_results,
    one_hot,
    results,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

import cysoftmax
from cysoftmax import _core

ISA = _core.active_isa()
GRAD = bounds.GRAD_WITH_OPTIONS.on(ISA)
OPTIONS = ["class_weight", "sample_weight", "label_smoothing", "z_loss", "temperature", "where"]


def examples(number):
    return settings(
        max_examples=number,
        derandomize=True,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


@st.composite
def layouts(draw, ndim):
    """Draw what gives any array of that many dimensions other strides, and the same values."""
    order = draw(st.permutations(range(ndim)))
    steps = draw(st.lists(st.sampled_from([1, 1, 2, 3, -1, -2]), min_size=ndim, max_size=ndim))
    offset = draw(st.sampled_from([0, 0, 1]))

    def laid_out(array):
        sizes = [array.shape[axis] * abs(steps[axis]) for axis in order]
        count = int(np.prod(sizes))
        memory = np.zeros(count * array.itemsize + offset, np.uint8)[offset:]
        memory = memory.view(array.dtype).reshape(sizes)
        view = memory.transpose(np.argsort(order))
        view = view[tuple(slice(None, None, step) for step in steps)]
        view[...] = array
        return view

    return laid_out


class Problem:
    """Logits with the class axis last, a target as labels and as masses, options."""

    def __init__(self, seed, shape, dtype, names, spread, labels):
        rng = np.random.default_rng(seed)
        rows = shape[:-1]
        self.x = (spread * rng.standard_normal(shape)).astype(dtype)
        self.labels = rng.integers(0, shape[-1], rows) if labels else None
        if labels:
            self.masses = one_hot(self.labels, shape[-1], bool)
        else:
            self.masses = rng.integers(0, 5, shape) / 8
        where = rng.random(shape) < 0.8
        where |= one_hot(self.labels, shape[-1], bool) if labels else self.masses > 0
        self.scale = rng.uniform(-2, 2, rows)
        options = {
            "class_weight": rng.uniform(0.1, 3, shape[-1]).astype(np.float32),
            "sample_weight": rng.uniform(0.1, 3, rows) * (rng.random(rows) < 0.8),
            "label_smoothing": float(rng.choice([0.1, 0.5, 1])),
            "z_loss": float(rng.choice([1e-4, 0.1])),
            "temperature": float(rng.choice([0.3, 0.7, 2, 10])),
            "where": where,
        }
        self.options = {name: options[name] for name in names}

    @property
    def target(self):
        return self.masses if self.labels is None else self.labels


@st.composite
def problems(draw, names=OPTIONS, max_dims=3):
    shape = draw(st.lists(st.integers(0, 20), min_size=0, max_size=max_dims - 1))
    shape = [n if k == 0 else min(n, 3) for k, n in enumerate(shape)]
    shape.append(draw(st.one_of(st.integers(1, 40), st.sampled_from([64, 65, 130, 1030]))))
    return Problem(
        draw(st.integers(0, 2**32 - 1)),
        tuple(shape),
        draw(st.sampled_from([np.float32, np.float64])),
        draw(st.lists(st.sampled_from(names), unique=True)),
        draw(st.sampled_from([0.1, 3, 30])),
        draw(st.booleans()),
    )


@examples(300)
@given(problems(), st.sampled_from(REDUCTIONS))
def test_loss_and_gradient_are_those_of_the_formula(problem, reduction):
    x = problem.x
    rows = reference.cross_entropy(x, problem.masses, **problem.options)
    loss, grad, size = reference.reduced(rows, reduction, problem.scale)
    got = results(x, problem.target, reduction=reduction, scale=problem.scale, **problem.options)
    if np.isnan(loss).any():
        assert np.isnan(got["loss"])
        assert_formula(0, got["grad"], 0, grad, size)
    else:
        assert_formula(got["loss"], got["grad"], loss, grad, size)
    assert_same_bits(got["loss alone"], got["loss"])
    assert_same_bits(got["grad alone"], got["grad"])


@examples(300)
@given(problems(), st.data())
def test_layouts_axes_threads_and_places_change_no_bit(problem, data):
    x, options = problem.x, problem.options
    want = results(x, problem.target, reduction="none", scale=problem.scale, **options)
    axis = data.draw(st.integers(0, x.ndim - 1))
    laid_out = data.draw(layouts(x.ndim))

    def turned(array):
        return laid_out(np.moveaxis(array, -1, axis)) if array.ndim == x.ndim else array

    options = {name: turned(v) if name == "where" else v for name, v in options.items()}
    options["n_threads"] = data.draw(st.sampled_from([1, 2, 3, None]))
    logits = turned(x)
    target = problem.target if problem.target.ndim < x.ndim else turned(problem.target)
    got = results(logits, target, axis=axis, reduction="none", scale=problem.scale, **options)
    out = turned(np.zeros_like(x))
    in_place = logits.copy(order="K")
    for place, given_logits in (out, logits), (in_place, in_place):
        cysoftmax.cross_entropy_grad(
            given_logits, target, axis=axis, reduction="none", scale=problem.scale, out=place,
            **options,
        )  # fmt: skip
        assert_same_bits(np.moveaxis(place, axis, -1), want["grad"])
    for name in "grad", "grad alone":
        got[name] = np.moveaxis(got[name], axis, -1)
    assert_same_results(got, want)


@examples(200)
@given(problems(max_dims=2), st.sampled_from(REDUCTIONS))
def test_labels_matrices_and_sparse_rows_agree_to_the_bit(problem, reduction):
    if problem.x.ndim == 1:
        return
    given_options = problem.options | {"scale": problem.scale, "reduction": reduction}
    want = results(problem.x, problem.masses, **given_options)
    targets = [problem.target, problem.masses.astype(float), sparse.csr_array(problem.masses)]
    if problem.labels is not None:
        targets.append(problem.masses.astype(np.uint8))
    for target in targets:
        assert_same_results(results(problem.x, target, **given_options), want)


@examples(200)
@given(problems(["where", "temperature"]))
def test_softmax_is_a_distribution_and_log_softmax_its_logarithm(problem):
    x, options = problem.x, problem.options
    eps = np.finfo(x.dtype).eps
    where = options.get("where", np.ones(x.shape, bool))
    p, log_p = cysoftmax.softmax(x, **options), cysoftmax.log_softmax(x, **options)
    assert (p >= 0).all()
    assert (p <= 1).all()
    assert (p[~where] == 0).all()
    some = where.any(-1)
    total = np.sum(p.astype(np.longdouble), axis=-1)[some]
    assert np.max(np.abs(total - 1), initial=0) <= 4 * eps
    exact = np.exp(log_p.astype(np.longdouble))
    assert (np.abs(p - exact) <= 4 * eps * (1 + np.abs(np.where(p > 0, log_p, 0))) * exact
            + np.finfo(x.dtype).tiny).all()  # fmt: skip
    stats = cysoftmax.row_stats(x, **options)
    largest = np.take_along_axis(p, np.maximum(stats.argmax, 0)[..., None], -1)[..., 0]
    np.testing.assert_allclose(stats.max_prob, largest, rtol=8 * eps)


@examples(200)
@given(problems([name for name in OPTIONS if name != "z_loss"]))
def test_gradients_sum_to_zero(problem):
    grad = cysoftmax.cross_entropy_grad(
        problem.x, problem.target, reduction="none", **problem.options
    )
    total = np.abs(np.sum(grad.astype(np.longdouble), axis=-1))
    size = reference.cross_entropy(problem.x, problem.masses, **problem.options).grad_size
    assert (total <= GRAD * np.sum(reference.ulp(size, grad.dtype), axis=-1)).all()


@examples(150)
@given(
    problems([name for name in OPTIONS if name != "z_loss"]),
    st.sampled_from([1, -3, 1000, 2**17, -(10**8)]),
)
def test_a_shift_of_the_logits_changes_nothing(problem, shift):
    if problem.x.dtype == np.float32:
        shift = int(np.clip(shift, -1000, 1000))
    x = np.round(problem.x * 64) / 64  # with the shift added, too, these are exact
    options = problem.options | {"reduction": "none"}
    want = results(x, problem.target, **options)
    got = results((x + shift).astype(x.dtype), problem.target, **options)
    assert_same_results(got, want)


@examples(150)
@given(problems([name for name in OPTIONS if name != "sample_weight"]), st.integers(-8, 8))
def test_weights_count_relative_to_each_other(problem, exponent):
    """A power of two in all weights: no bit of the mean, and itself in the sum."""
    x, options, factor = problem.x, problem.options, 2.0**exponent
    want = results(x, problem.target, **options)
    weights = np.full(x.shape[:-1], factor)
    assert_same_results(results(x, problem.target, sample_weight=weights, **options), want)
    want = results(x, problem.target, reduction="sum", **options)
    got = results(x, problem.target, reduction="sum", sample_weight=weights, **options)
    assert got["loss"] == want["loss"] * factor
    tiny = np.finfo(x.dtype).tiny
    close = np.abs(got["grad"] - want["grad"] * factor) <= tiny
    assert close.all()


@examples(150)
@given(problems(), st.randoms(use_true_random=False))
def test_the_order_of_classes_does_not_matter(problem, random):
    n_classes = problem.x.shape[-1]
    order = list(range(n_classes))
    random.shuffle(order)
    options = problem.options.copy()
    want = results(problem.x, problem.masses, reduction="none", **options)
    for name in options.keys() & {"class_weight", "where"}:
        options[name] = options[name][..., order]
    got = results(problem.x[..., order], problem.masses[..., order], reduction="none", **options)
    eps = np.finfo(problem.x.dtype).eps
    np.testing.assert_allclose(
        got["loss"], want["loss"], rtol=2 * bounds.LOSS_WITH_OPTIONS.on(ISA) * eps
    )
    exact = reference.cross_entropy(problem.x, problem.masses, **problem.options)
    unit = reference.ulp(exact.grad_size[..., order], problem.x.dtype)
    assert np.max(np.abs(got["grad"] - want["grad"][..., order]) / unit, initial=0) <= 2 * GRAD


@examples(150)
@given(problems(max_dims=2), st.integers(0, 2**32 - 1))
def test_an_ignored_row_might_as_well_not_be_there(problem, seed):
    if problem.labels is None or problem.x.ndim == 1:
        return
    rng = np.random.default_rng(seed)
    kept = rng.random(len(problem.x)) < 0.7
    labels, x = problem.labels.copy(), problem.x.copy()
    labels[~kept] = -5
    x[~kept] = rng.choice([np.nan, np.inf, 0], (np.sum(~kept), 1))
    few = {
        name: value[kept] if name in ("sample_weight", "where") else value
        for name, value in problem.options.items()
    }
    got = results(x, labels, ignore_index=-5, **problem.options)
    want = results(problem.x[kept], problem.labels[kept], **few)
    assert got["loss"] == pytest.approx(want["loss"], rel=1e-14, abs=1e-300, nan_ok=True)
    assert (got["grad"][~kept] == 0).all()
    eps = np.finfo(x.dtype).eps
    np.testing.assert_allclose(
        got["grad"][kept], want["grad"], rtol=2 * eps, atol=np.finfo(x.dtype).tiny
    )


@examples(150)
@given(problems(["class_weight", "sample_weight"]))
def test_the_hessian_is_that_of_the_formula(problem):
    rows = reference.cross_entropy(problem.x, problem.masses, **problem.options)
    got = cysoftmax.cross_entropy_grad_hess(problem.x, problem.target, **problem.options)
    error = np.abs(got.hess - rows.hess) / reference.ulp(rows.hess_size, problem.x.dtype)
    assert np.max(error, initial=0) <= bounds.HESS.on(ISA)
    error = np.abs(got.grad - rows.grad) / reference.ulp(rows.grad_size, problem.x.dtype)
    assert np.max(error, initial=0) <= GRAD
